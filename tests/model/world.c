#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "tap.h"

const struct world *world_running;

static struct machine_effect effects[6 * MAX_SLOTS];
static struct machine_move moves[6 * MAX_SLOTS];

/* --- dice and reports --- */

uint32_t world_draw(struct world *w, uint32_t below)
{
	/* splitmix64: Steele, Lea, Flood, 2014 */
	uint64_t z = w->random += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((((z ^ (z >> 31)) >> 32) * below) >> 32);
}

static const char *event_name(enum machine_event_type type)
{
	static const char *const names[N_MACHINE_EVENTS] = {
		[MACHINE_RESTORE] = "restore",	 [MACHINE_RESUME] = "resume",
		[MACHINE_ADOPT] = "adopt",	 [MACHINE_ACQUIRE] = "acquire",
		[MACHINE_CANCEL] = "cancel",	 [MACHINE_RELEASE] = "release",
		[MACHINE_RENEW] = "renew",	 [MACHINE_PROMPT] = "prompt",
		[MACHINE_KILL] = "kill",	 [MACHINE_RECYCLE] = "recycle",
		[MACHINE_SPAWNED] = "spawned",	 [MACHINE_VALIDATED] = "validated",
		[MACHINE_SAVED] = "saved",	 [MACHINE_RECYCLED] = "recycled",
		[MACHINE_DRAINED] = "drained",	 [MACHINE_STOPPED] = "stopped",
		[MACHINE_PROBED] = "probed",	 [MACHINE_EXITED] = "exited",
		[MACHINE_TIMER] = "timer",	 [MACHINE_PASS] = "pass",
		[MACHINE_CONFIG] = "config",	 [MACHINE_SCALE] = "scale",
		[MACHINE_DRAIN] = "drain",	 [MACHINE_CLOSE] = "close",
		[MACHINE_OPEN] = "open",	 [MACHINE_RESET_BREAKER] = "reset-breaker",
		[MACHINE_SHUTDOWN] = "shutdown", [MACHINE_SUSPEND] = "suspend",
		[MACHINE_LIMIT] = "limit",	 [MACHINE_HOST] = "host",
	};
	return names[type];
}

static void print_event(const struct logged_event *logged)
{
	const struct machine_event *event = &logged->event;
	printf("# step %lu at %.9f: %s", (unsigned long)logged->step, (double)logged->now / 1e9,
	       event_name(event->type));
	if (logged->request >= 0)
		printf(" request=%d", logged->request);
	if (event->type == MACHINE_ACQUIRE)
		printf(" label='%s' agent=%u host=%u deadline=%.9f", logged->label, logged->agent,
		       logged->host, (double)logged->deadline_ns / 1e9);
	else if (event->type == MACHINE_HOST)
		printf(" host=%u state=%d slots=%u", event->host, (int)event->host_state,
		       event->slots);
	else if (event->type == MACHINE_SCALE)
		printf(" target=%d", event->target);
	else if (event->type != MACHINE_CANCEL && event->type < MACHINE_TIMER)
		printf(" slot=%u effect=%u token=%lu result=%d", event->slot, event->effect,
		       (unsigned long)event->token, event->result);
	printf(" -> %d\n", logged->result);
}

static void print_limits(const struct machine_limits *l)
{
	printf("# min %u max %u spawning %u waiting %u policy %d up %u down %u idle %u-%u "
	       "window %lds idle-timeout %lds spawn-timeout %lds pass %lds keep %d "
	       "age %lds requests %u recycles %u\n",
	       l->min_size, l->max_size, l->max_spawning, l->max_waiting, l->policy,
	       l->scaling.up_at, l->scaling.down_at, l->scaling.min_idle, l->scaling.max_idle,
	       (long)(l->scale_down_window_ns / AP_SECOND), (long)(l->idle_timeout_ns / AP_SECOND),
	       (long)(l->spawn_timeout_ns / AP_SECOND), (long)(l->pass_ns / AP_SECOND),
	       l->keep_program, (long)(l->recycling.max_age_ns / AP_SECOND),
	       l->recycling.max_requests, l->recycling.max_recycles);
}

void world_fail(const struct world *w, const char *invariant, ...)
{
	char text[384], reason[512];
	va_list args;
	va_start(args, invariant);
	vsnprintf(text, sizeof text, invariant, args);
	va_end(args);
	print_limits(&w->memory.machine.view.limits);
	for (unsigned i = 0; i < N_LOGGED; i++) {
		const struct logged_event *logged = &w->log[(w->n_steps + 1 + i) % N_LOGGED];
		if (logged->step > 0)
			print_event(logged);
	}
	snprintf(reason, sizeof reason, "%s (seed %lu, step %lu)", text, (unsigned long)w->seed,
		 (unsigned long)w->n_steps);
	tap_not_ok(reason);
}

static void log_event(struct world *w, const struct machine_event *event, int request)
{
	struct logged_event *logged = &w->log[w->n_steps % N_LOGGED];
	*logged = (struct logged_event){
		.step = w->n_steps, .now = w->now, .event = *event, .request = request};
	if (event->type != MACHINE_ACQUIRE)
		return;
	logged->agent = event->request->agent;
	logged->host = event->request->host;
	logged->deadline_ns = event->request->deadline_ns;
	memcpy(logged->label, event->request->label.text, sizeof logged->label - 1);
}

/* --- life --- */

void world_init(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof *w);
	w->seed = w->random = seed;
	w->now = 1000 * AP_SECOND;
	world_running = w;
}

/* The machine's own memory becomes the world's, with fewer buckets of labels. */
static void adopt_memory(struct machine_memory *memory, unsigned n_slots)
{
	struct machine_view *m = &memory->machine.view;
	ap_list_init(&m->states[AP_AGENT_FREE]);
	memset(memory->slots, 0, sizeof memory->slots);
	for (unsigned i = 0; i < n_slots; i++) {
		memory->slots[i] = m->slots[i];
		ap_list_init(&memory->slots[i].label.link);
		ap_list_init(&memory->slots[i].waiters);
		ap_list_append(&m->states[AP_AGENT_FREE], &memory->slots[i].link);
	}
	for (unsigned i = 0; i < N_LABEL_BUCKETS; i++)
		ap_list_init(&memory->labels[i]);
	memset(memory->hosts, 0, sizeof memory->hosts);
	for (unsigned i = 0; i < m->n_hosts; i++) {
		memory->hosts[i] = m->hosts[i];
		ap_list_init(&memory->hosts[i].up);
		ap_list_init(&memory->hosts[i].room);
		ap_list_init(&memory->hosts[i].waiters);
	}
	machine_fini(&memory->machine);
	ap_list_init(&m->up);
	ap_list_init(&m->room);
	ap_list_append(&m->up, &memory->hosts[0].up);
	ap_list_append(&m->room, &memory->hosts[0].room);
	m->slots = memory->slots;
	m->hosts = memory->hosts;
	m->labels = memory->labels;
	m->n_labels = N_LABEL_BUCKETS;
	memset(memory->users, 0, sizeof memory->users);
	m->users = memory->users;
	m->n_user_places = N_USER_PLACES;
}

void world_begin(struct world *w, unsigned n_slots, unsigned n_hosts,
		 const struct machine_limits *limits)
{
	struct machine_view *m = &w->memory.machine.view;
	memset(w->memory.requests, 0, sizeof w->memory.requests);
	memset(w->requests, 0, sizeof w->requests);
	memset(w->alive, 0, sizeof w->alive);
	memset(w->generations, 0, sizeof w->generations);
	w->n_under_way = 0;
	w->n_arrived = w->last_arrival = w->last_token = w->n_ended = w->n_adopted = 0;
	w->last_effect = 0;
	if (machine_init(&w->memory.machine, n_slots, n_hosts, limits, world_draw(w, UINT32_MAX),
			 w->now) < 0)
		world_fail(w, "out of memory");
	adopt_memory(&w->memory, n_slots);
	naive_init(&w->naive, n_slots, n_hosts, limits, 1, w->now);
	CHECK(w, machine_max_effects(m) <= 6 * MAX_SLOTS, "there is room for every effect");
	check_state(w);
}

void world_configure(struct world *w, const struct machine_limits *limits)
{
	world_step(w, &(struct machine_event){.type = MACHINE_CONFIG, .limits = limits});
}

struct machine_request *world_request(struct world *w)
{
	for (unsigned i = 0; i < N_REQUESTS; i++)
		if (!w->requests[i].busy) {
			struct machine_request *request = &w->memory.requests[i];
			memset(request, 0, sizeof *request);
			w->requests[i] = (struct host_request){0};
			return request;
		}
	return NULL;
}

/* --- effects --- */

bool world_awaits(const struct world *w, const struct machine_effect *effect)
{
	const struct machine_slot *slot = &w->memory.slots[effect->slot];
	return effect->id == (effect->type == EFFECT_PROBE ? slot->probe : slot->effect);
}

int world_awaited(const struct world *w, unsigned slot)
{
	for (unsigned i = 0; i < w->n_under_way; i++)
		if (w->under_way[i].slot == slot && w->under_way[i].type != EFFECT_PROBE &&
		    world_awaits(w, &w->under_way[i]))
			return (int)i;
	return -1;
}

static void under_way_remove(struct world *w, unsigned i)
{
	w->under_way[i] = w->under_way[--w->n_under_way];
}

void world_forget(struct world *w)
{
	for (unsigned i = w->n_under_way; i-- > 0;)
		if (!world_awaits(w, &w->under_way[i]))
			under_way_remove(w, i);
}

int world_report(struct world *w, unsigned i, int result)
{
	struct machine_effect effect = w->under_way[i];
	under_way_remove(w, i);
	return world_step(w, &(struct machine_event){.type = machine_outcome(effect.type),
						     .slot = effect.slot,
						     .effect = effect.id,
						     .result = result,
						     .granted_ns = effect.id % 2 ? w->now - 1 : 0});
}

static bool report_awaited(struct world *w, bool *ret_probe)
{
	for (unsigned i = 0; i < w->n_under_way; i++)
		if (world_awaits(w, &w->under_way[i])) {
			*ret_probe = w->under_way[i].type == EFFECT_PROBE;
			world_report(w, i, 0);
			return true;
		}
	return false;
}

static bool at_rest(const struct world *w)
{
	for (unsigned i = 0; i < w->memory.machine.view.n_slots; i++)
		if (w->memory.slots[i].effect)
			return false;
	return true;
}

int world_host(struct world *w, unsigned host, enum ap_host_state state, unsigned slots)
{
	return world_step(w, &(struct machine_event){.type = MACHINE_HOST,
						     .host = host,
						     .host_state = state,
						     .slots = slots,
						     .warm = world_draw(w, 2)});
}

bool world_calm(struct world *w, unsigned n_steps)
{
	bool probe;
	for (unsigned i = 0; i < w->memory.machine.view.n_hosts; i++)
		if (w->memory.hosts[i].state == AP_HOST_LOST)
			world_host(w, i, AP_HOST_UP, w->memory.hosts[i].slots);
	while (n_steps-- > 0) {
		if (report_awaited(w, &probe))
			continue;
		if (at_rest(w))
			return true;
		/* what never came back: its deadline */
		if (w->memory.machine.view.wake_ns > w->now)
			w->now = w->memory.machine.view.wake_ns;
		world_step(w, &(struct machine_event){.type = MACHINE_TIMER});
	}
	return at_rest(w);
}

/* --- a step --- */

static void take_effects(struct world *w, const struct machine_effects *fx)
{
	if (w->n_under_way + fx->n > MAX_UNDER_WAY)
		world_forget(w);
	for (unsigned i = 0; i < fx->n; i++) {
		CHECK(w, w->n_under_way < MAX_UNDER_WAY, "few effects are under way at once");
		w->under_way[w->n_under_way++] = fx->at[i];
	}
}

static void mix(struct world *w, uint64_t value)
{
	w->hash = (w->hash ^ value) * 0x100000001b3u;
	w->hash ^= w->hash >> 29;
}

static void take_answers(struct world *w, struct machine_effects *fx)
{
	while (!ap_list_empty(&fx->answered)) {
		struct machine_request *request =
			ap_container_of(fx->answered.next, struct machine_request, link);
		unsigned i = (unsigned)(request - w->memory.requests);
		ap_list_remove(&request->link);
		w->requests[i].busy = false;
		mix(w, i);
		mix(w, (uint64_t)request->result);
		mix(w, request->token);
	}
}

static void mix_step(struct world *w, int result, const struct machine_effects *fx)
{
	mix(w, (uint64_t)result);
	for (unsigned i = 0; i < fx->n; i++) {
		const struct machine_effect *e = &fx->at[i];
		mix(w, (uint64_t)e->id << 32 | e->slot << 8 | (unsigned)e->type << 2 |
			       (unsigned)e->discard << 1 | e->restart);
		mix(w, e->keep);
	}
	for (unsigned i = 0; i < fx->n_moves; i++) {
		const struct machine_move *move = &fx->moves[i];
		mix(w, move->slot << 24 | (unsigned)move->from << 16 | (unsigned)move->to << 8 |
			       move->reason);
	}
	mix(w, (uint64_t)w->memory.machine.view.wake_ns);
}

int world_step(struct world *w, const struct machine_event *event)
{
	static struct machine_memory before;
	struct machine_view *m = &w->memory.machine.view;
	struct machine_effects fx = {.at = effects, .moves = moves};
	int request = event->request ? (int)(event->request - w->memory.requests) : -1;
	w->n_steps++;
	log_event(w, event, request);
	memcpy(&before, &w->memory, sizeof before);

	naive_step(&w->naive, event, request, w->now);
	int r = machine_step(&w->memory.machine, event, w->now, &fx);
	w->log[w->n_steps % N_LOGGED].result = r;

	if (r < 0) {
		CHECK(w, memcmp(&before, &w->memory, sizeof before) == 0,
		      "a refused event changes nothing");
		CHECK(w, fx.n == 0 && fx.n_moves == 0 && ap_list_empty(&fx.answered),
		      "a refused event has no effects");
	} else if (event->type == MACHINE_ACQUIRE || event->type == MACHINE_RELEASE) {
		if (request >= 0)
			w->requests[request] = (struct host_request){
				.busy = true,
				.acquirer = event->type == MACHINE_ACQUIRE,
				.arrival = ++w->n_arrived,
			};
	}
	if (r == 0) {
		check_step(w, event, &before, &fx);
		check_state(w);
	}
	const char *difference = naive_compare(&w->naive, m, r, &fx, w->memory.requests);
	CHECK(w, !difference, "the machine and the naive model disagree: %s", difference);
	mix_step(w, r, &fx);
	take_answers(w, &fx);
	take_effects(w, &fx);
	return r;
}
