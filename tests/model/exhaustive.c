/* All that a small machine can come to: two agents, three acquirers, every event in every state,
 * breadth first. A state is the way that leads to it: it is come back to by copying the world as it
 * was. States that differ in counters, identities and absolute times only are one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "world.h"

#define N_AGENTS    2
#define N_ACQUIRERS 3
#define N_SEEN	    (1u << 21) /* hashes; a power of two, far more than states */

static const struct machine_limits limits = {
	.min_size = 1,
	.max_size = N_AGENTS,
	.max_spawning = 2,
	.max_waiting = N_REQUESTS,
	.max_waiting_of_user = N_REQUESTS,
	.scaling = {.min_size = 1, .up_at = 80, .down_at = 20},
	.recycling = {.max_requests = 2, .max_recycles = 1},
	.scale_down_window_ns = 300 * AP_SECOND,
	.idle_timeout_ns = 300 * AP_SECOND,
	.spawn_timeout_ns = 60 * AP_SECOND,
	.pass_ns = 3600 * AP_SECOND,
};

/* --- which states are one --- */

static uint64_t mixed(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 32;
}

static uint64_t time_from_now(const struct world *w, int64_t at)
{
	if (at == AP_FOREVER)
		return 1;
	return at <= w->now ? 0 : (uint64_t)((at - w->now) / AP_SECOND) + 2;
}

static uint64_t request_of(const struct world *w, const struct machine_request *request)
{
	return request ? (uint64_t)(request - w->memory.requests) + 1 : 0;
}

static uint64_t slot_hash(const struct world *w, const struct machine_slot *slot, uint64_t first)
{
	bool effect_comes =
		world_awaited(w, machine_slot_index(&w->memory.machine.view, slot)) >= 0;
	uint64_t hash = mixed(slot->state, slot->recycle << 8 | slot->retire);
	hash = mixed(hash, (uint64_t) !!slot->leaving << 4 | (uint64_t)slot->proven << 3 |
				   (uint64_t)slot->born << 2 | (uint64_t)effect_comes << 1 |
				   (slot->state == 0));
	hash = mixed(hash, slot->state == AP_AGENT_FREE ? 0 : slot->number - first + 1);
	hash = mixed(hash, request_of(w, slot->request) << 8 | (unsigned char)slot->label.text[0]);
	hash = mixed(hash, time_from_now(w, slot->deadline_ns));
	hash = mixed(hash, (uint64_t)slot->n_served << 32 | slot->n_recycles);
	return mixed(hash, slot->proven ? 0 : time_from_now(w, slot->started_ns + 5 * AP_SECOND));
}

static uint64_t state_hash(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	const struct breaker *breaker = &m->hosts[0].breaker;
	uint64_t hash = mixed(m->closed, breaker->state), first = UINT32_MAX;
	hash = mixed(hash, (uint64_t)breaker->n_failures << 32 | breaker->n_opened);
	hash = mixed(hash, m->hosts[0].state);
	hash = mixed(hash,
		     time_from_now(w, m->low_since_ns == AP_FOREVER
					      ? AP_FOREVER
					      : m->low_since_ns + limits.scale_down_window_ns));
	for (unsigned i = 0; i < N_AGENTS; i++) {
		if (m->slots[i].state != AP_AGENT_FREE && m->slots[i].number < first)
			first = m->slots[i].number;
	}
	for (unsigned i = 0; i < N_AGENTS; i++)
		hash = mixed(hash, slot_hash(w, &m->slots[i], first));
	struct ap_list *at;
	ap_list_for_each (at, &m->states[AP_AGENT_IDLE]) /* their order decides who serves */
		hash = mixed(hash,
			     (uint64_t)(ap_container_of(at, struct machine_slot, link) - m->slots));
	ap_list_for_each (at, &m->waiters) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		hash = mixed(hash, request_of(w, request) << 8 | request->n_tries);
		hash = mixed(hash, request->agent ? request->agent - first + 1 : 0);
		hash = mixed(hash, time_from_now(w, request->deadline_ns));
	}
	return hash ? hash : 1;
}

static bool see(uint64_t *seen, uint64_t hash)
{
	uint32_t at = (uint32_t)hash & (N_SEEN - 1);
	while (seen[at] && seen[at] != hash)
		at = (at + 1) & (N_SEEN - 1);
	bool is_new = seen[at] == 0;
	seen[at] = hash;
	return is_new;
}

/* --- what can happen --- */

static void acquire(struct world *w, unsigned i, bool once, bool first_agent)
{
	struct machine_request *request = &w->memory.requests[i];
	if (w->requests[i].busy)
		return;
	memset(request, 0, sizeof *request);
	request->label.text[0] = (char)('a' + i);
	request->once = once;
	request->deadline_ns = once ? AP_FOREVER : w->now + 30 * AP_SECOND;
	request->agent = first_agent ? w->memory.slots[0].number : 0;
	request->ttl_ns = i == 0 ? 20 * AP_SECOND : 0;
	world_step(w, &(struct machine_event){.type = MACHINE_ACQUIRE, .request = request});
}

static void report(struct world *w, unsigned slot, int result)
{
	int i = world_awaited(w, slot);
	if (i >= 0 && (w->under_way[i].type != EFFECT_STOP || result == 0))
		world_report(w, (unsigned)i, result);
}

static void about(struct world *w, enum machine_event_type type, unsigned slot)
{
	if (w->memory.slots[slot].state != AP_AGENT_FREE)
		world_step(w, &(struct machine_event){.type = type, .slot = slot});
}

static void whole_pool(struct world *w, unsigned kind)
{
	static const enum machine_event_type types[] = {MACHINE_CLOSE, MACHINE_OPEN, MACHINE_DRAIN};
	if (kind < 3) {
		world_step(w, &(struct machine_event){.type = types[kind]});
		return;
	}
	if (w->memory.machine.view.wake_ns > w->now) /* else it is due already */
		w->now = w->memory.machine.view.wake_ns;
	world_step(w, &(struct machine_event){.type = MACHINE_TIMER});
}

#define N_HOST_KINDS 3
#define N_KINDS	     (3 * N_ACQUIRERS + 1 + 7 * N_AGENTS + N_HOST_KINDS + 4)

static void happen(struct world *w, unsigned kind)
{
	static const int results[] = {0, -EIO, -EBUSY};
	static const enum machine_event_type types[] = {MACHINE_RELEASE, MACHINE_KILL,
							MACHINE_RECYCLE, MACHINE_EXITED};
	if (kind < 2 * N_ACQUIRERS) {
		acquire(w, kind / 2, kind % 2, false);
	} else if (kind < 3 * N_ACQUIRERS) {
		unsigned i = kind - 2 * N_ACQUIRERS;
		if (w->requests[i].busy)
			world_step(w, &(struct machine_event){.type = MACHINE_CANCEL,
							      .request = &w->memory.requests[i]});
	} else if (kind == 3 * N_ACQUIRERS) {
		acquire(w, N_ACQUIRERS - 1, false, true);
	} else if (kind < 3 * N_ACQUIRERS + 1 + 7 * N_AGENTS) {
		unsigned k = kind - 3 * N_ACQUIRERS - 1, slot = k % N_AGENTS;
		k /= N_AGENTS;
		if (k < 3)
			report(w, slot, results[k]);
		else
			about(w, types[k - 3], slot);
	} else if (kind >= N_KINDS - N_HOST_KINDS) {
		static const enum ap_host_state states[N_HOST_KINDS] = {AP_HOST_UP, AP_HOST_DOWN,
									AP_HOST_LOST};
		world_host(w, 0, states[N_KINDS - 1 - kind], N_AGENTS);
	} else {
		whole_pool(w, kind - 3 * N_ACQUIRERS - 1 - 7 * N_AGENTS);
	}
}

/* --- the walk --- */

struct way {
	unsigned from; /* the state before; the first comes from itself */
	uint16_t depth;
	uint8_t kind;
};

static struct world world; /* always here: it points into itself */

/* Takes a way again from the beginning. */
static void go(const struct world *start, const struct way *ways, unsigned to)
{
	uint8_t kinds[4096];
	unsigned n = 0;
	for (unsigned at = to; ways[at].depth > 0; at = ways[at].from)
		kinds[n++] = ways[at].kind;
	memcpy(&world, start, sizeof world);
	while (n > 0)
		happen(&world, kinds[--n]);
}

void exhaustive_walk(unsigned n_states, unsigned *ret_states, unsigned *ret_depth)
{
	struct way *ways = calloc(n_states + N_KINDS, sizeof *ways);
	uint64_t *seen = calloc(N_SEEN, sizeof *seen);
	struct world *start = malloc(sizeof *start), *here = malloc(sizeof *here);
	world_init(&world, 1);
	if (!ways || !seen || !start || !here)
		world_fail(&world, "out of memory");
	world_begin(&world, N_AGENTS, 1, &limits);
	memcpy(start, &world, sizeof world);
	see(seen, state_hash(&world));
	unsigned n = 1, at = 0;
	for (; at < n && n < n_states; at++) {
		go(start, ways, at);
		memcpy(here, &world, sizeof world);
		for (unsigned kind = 0; kind < N_KINDS; kind++) {
			memcpy(&world, here, sizeof world);
			happen(&world, (unsigned)kind);
			if (see(seen, state_hash(&world)))
				ways[n++] = (struct way){.from = at,
							 .depth = (uint16_t)(ways[at].depth + 1),
							 .kind = (uint8_t)kind};
		}
	}
	*ret_states = n;
	*ret_depth = ways[n - 1].depth;
	free(ways);
	free(seen);
	free(start);
	free(here);
}
