/* A random walk: every event there is, in any order, with faults in every effect, effects that
 * never come back, outcomes that come late or twice, and a clock that jumps. The checks are
 * world.c's. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "clock.h"
#include "tap.h"
#include "world.h"

#define N_USERS 4 /* 0 is root */
#define OWNER	1 /* of the mount */

static int64_t some_time(struct world *w, int64_t longest)
{
	static const int64_t spans[] = {AP_MS,		AP_SECOND,	  10 * AP_SECOND,
					60 * AP_SECOND, 3600 * AP_SECOND, 90000 * AP_SECOND};
	int64_t span = spans[world_draw(w, 6)];
	if (span > longest)
		span = longest;
	return 1 + (int64_t)((double)span * world_draw(w, 1000) / 1000);
}

static bool one_in(struct world *w, uint32_t n)
{
	return world_draw(w, n) == 0;
}

static struct machine_limits some_limits(struct world *w, unsigned n_slots)
{
	unsigned max = 1 + world_draw(w, n_slots), min = 1 + world_draw(w, max);
	unsigned up = 1 + world_draw(w, 100), idle = world_draw(w, 5);
	return (struct machine_limits){
		.min_size = min,
		.max_size = max,
		.max_spawning = 1 + world_draw(w, 4),
		.max_waiting = one_in(w, 4) ? 3 : N_REQUESTS,
		.max_waiting_of_user = one_in(w, 3) ? 2 : N_REQUESTS,
		.owner = OWNER,
		.max_prompts = one_in(w, 2) ? 0 : world_draw(w, 5),
		.policy = (enum scaling_policy_id)world_draw(w, SCALING_N_POLICIES),
		.placement = (enum placement_policy_id)world_draw(w, PLACEMENT_N_POLICIES),
		.scaling = {.min_size = min,
			    .up_at = up,
			    .down_at = world_draw(w, up),
			    .min_idle = idle,
			    .max_idle = idle + world_draw(w, 4)},
		.recycling = {.max_age_ns = one_in(w, 2) ? 0 : some_time(w, AP_FOREVER),
			      .max_requests = one_in(w, 2) ? 0 : 1 + world_draw(w, 4),
			      .max_recycles = one_in(w, 2) ? 0 : 1 + world_draw(w, 3),
			      .max_memory = one_in(w, 2) ? 0 : 100,
			      .max_cpu = one_in(w, 2) ? 0 : 80},
		.scale_down_window_ns = one_in(w, 3) ? 0 : some_time(w, 3600 * AP_SECOND),
		.spent = one_in(w, 12),
		.idle_timeout_ns = one_in(w, 3) ? 0 : some_time(w, 3600 * AP_SECOND),
		.spawn_timeout_ns = AP_SECOND + some_time(w, 60 * AP_SECOND),
		.pass_ns = one_in(w, 3) ? 0 : 100 * AP_MS + some_time(w, 3600 * AP_SECOND),
		.keep_program = one_in(w, 2),
	};
}

/* --- events --- */

static unsigned some_slot(struct world *w)
{
	return world_draw(w, w->memory.machine.view.n_slots);
}

static void step(struct world *w, struct machine_event event)
{
	world_step(w, &event);
}

static void acquire(struct world *w)
{
	struct machine_request *request = world_request(w);
	if (!request)
		return;
	if (!one_in(w, 4))
		snprintf(request->label.text, sizeof request->label.text, "%s%u",
			 one_in(w, 3) ? "lease-" : "l", world_draw(w, 12));
	if (one_in(w, 6))
		request->agent =
			one_in(w, 4) ? world_draw(w, 40) : w->memory.slots[some_slot(w)].number;
	if (one_in(w, 8)) /* there may be no such host */
		request->host = 1 + world_draw(w, MAX_HOSTS);
	request->affinity = world_draw(w, 4);
	request->once = one_in(w, 4);
	request->deadline_ns = request->once ? AP_FOREVER : w->now + some_time(w, 3600 * AP_SECOND);
	request->ttl_ns = one_in(w, 2) ? 0 : some_time(w, 3600 * AP_SECOND);
	request->uid = world_draw(w, N_USERS);
	request->pid = (pid_t)world_draw(w, 1000);
	request->by_handle = one_in(w, 2);
	step(w, (struct machine_event){.type = MACHINE_ACQUIRE, .request = request});
}

static void cancel(struct world *w)
{
	unsigned i = world_draw(w, N_REQUESTS);
	if (w->requests[i].busy || one_in(w, 8))
		step(w, (struct machine_event){.type = MACHINE_CANCEL,
					       .request = &w->memory.requests[i]});
}

static uint64_t some_token(struct world *w, unsigned slot)
{
	uint64_t token = w->memory.slots[slot].token;
	return one_in(w, 2) ? 0 : one_in(w, 4) ? world_draw(w, 20) : token;
}

static void release(struct world *w)
{
	unsigned slot = some_slot(w);
	step(w, (struct machine_event){.type = MACHINE_RELEASE,
				       .slot = slot,
				       .token = some_token(w, slot),
				       .discard = one_in(w, 4),
				       .reason = one_in(w, 2) ? AP_REASON_NONE : AP_REASON_HANDLE,
				       .request = one_in(w, 2) ? world_request(w) : NULL});
}

static void about_slot(struct world *w, enum machine_event_type type)
{
	unsigned slot = some_slot(w);
	step(w, (struct machine_event){.type = type, .slot = slot, .token = some_token(w, slot)});
}

/* Half of them end. */
static void limit(struct world *w)
{
	bool on = one_in(w, 2);
	step(w, (struct machine_event){.type = MACHINE_LIMIT,
				       .slot = some_slot(w),
				       .on = on,
				       .everyone = one_in(w, 4),
				       .until_ns = on ? w->now + some_time(w, 60 * AP_SECOND) : 0});
}

static void exited(struct world *w)
{
	unsigned slot = some_slot(w);
	if (w->alive[slot])
		step(w, (struct machine_event){.type = MACHINE_EXITED,
					       .slot = slot,
					       .result = one_in(w, 4) ? MACHINE_KILLED : 0});
}

/* One of so many effects fails; an epoch's own, so that long runs of success come about too. */
static uint32_t fault_every;

static void outcome(struct world *w)
{
	static const int errors[] = {-EIO,    -ENOSPC,	  -EBUSY, -EINVAL, -EEXIST,
				     -ECHILD, -ETIMEDOUT, -EROFS, -ESRCH,  MACHINE_KILLED};
	if (!one_in(w, 4))
		world_forget(w);
	if (w->n_under_way == 0)
		return;
	unsigned i = world_draw(w, w->n_under_way);
	struct machine_effect effect = w->under_way[i];
	int result =
		one_in(w, fault_every) ? errors[world_draw(w, sizeof errors / sizeof *errors)] : 0;
	if (effect.type == EFFECT_STOP)
		result = 0;
	if (effect.type == EFFECT_PROBE)
		/* stays under way: it may come twice */
		step(w, (struct machine_event){.type = MACHINE_PROBED,
					       .slot = effect.slot,
					       .effect = effect.id,
					       .result = result,
					       .memory = world_draw(w, 200),
					       .cpu = world_draw(w, 100)});
	else if (one_in(w, 30)) /* nobody's */
		step(w, (struct machine_event){.type = machine_outcome(effect.type),
					       .slot = some_slot(w),
					       .effect = effect.id + 1000000});
	else
		world_report(w, i, result);
}

static void let_time_pass(struct world *w)
{
	int64_t wake = w->memory.machine.view.wake_ns;
	if (one_in(w, 2) && wake > w->now && wake != AP_FOREVER)
		w->now = wake - (one_in(w, 4) ? 1 : 0);
	else
		w->now += some_time(w, one_in(w, 10) ? AP_FOREVER : 10 * AP_SECOND);
	if (w->now >= wake)
		step(w, (struct machine_event){.type = MACHINE_TIMER});
}

static void whole_pool(struct world *w)
{
	switch (world_draw(w, 12)) {
	case 0:
		if (one_in(w, 4))
			step(w, (struct machine_event){.type = MACHINE_CLOSE});
		break;
	case 1:
	case 2:
	case 3:
		step(w, (struct machine_event){.type = MACHINE_OPEN});
		break;
	case 4:
	case 5: {
		struct machine_limits limits = some_limits(w, w->memory.machine.view.n_slots);
		world_configure(w, &limits);
		break;
	}
	case 6:
		step(w, (struct machine_event){.type = MACHINE_DRAIN});
		break;
	case 7:
		step(w, (struct machine_event){.type = MACHINE_RESET_BREAKER});
		break;
	case 8:
		step(w, (struct machine_event){.type = MACHINE_PASS});
		break;
	default:
		step(w,
		     (struct machine_event){
			     .type = MACHINE_SCALE,
			     .target = (int)world_draw(w, w->memory.machine.view.n_slots + 2) - 1});
	}
}

/* How many may live there: now too few, now enough, now nobody. */
static unsigned some_room(struct world *w)
{
	return one_in(w, 6) ? 0 : 1 + world_draw(w, w->memory.machine.view.n_slots);
}

/* An epoch's own: how often a host changes; most hosts are well most of the time. */
static uint32_t hosts_change_every;

static void host(struct world *w)
{
	static const enum ap_host_state states[] = {
		AP_HOST_UP,   AP_HOST_UP,	AP_HOST_UP,	  AP_HOST_LOST, AP_HOST_LOST,
		AP_HOST_LOST, AP_HOST_DRAINING, AP_HOST_DRAINING, AP_HOST_DOWN, AP_HOST_PENDING,
	};
	unsigned i = world_draw(w, w->memory.machine.view.n_hosts);
	bool stays = one_in(w, 2); /* as large as it is */
	enum ap_host_state state = states[world_draw(w, sizeof states / sizeof *states)];
	if (w->memory.hosts[i].state != AP_HOST_UP && one_in(w, 2))
		state = AP_HOST_UP;
	if (one_in(w, 50))
		i = MAX_HOSTS;
	else if (one_in(w, 50))
		state = AP_N_HOST_STATES;
	world_host(w, i, state, stays && i < MAX_HOSTS ? w->memory.hosts[i].slots : some_room(w));
}

static void random_step(struct world *w)
{
	uint32_t die = world_draw(w, 100);
	if (one_in(w, hosts_change_every))
		host(w);
	else if (die < 16)
		acquire(w);
	else if (die < 20)
		cancel(w);
	else if (die < 32)
		release(w);
	else if (die < 34)
		about_slot(w, MACHINE_RENEW);
	else if (die < 38)
		about_slot(w, MACHINE_PROMPT);
	else if (die < 39)
		about_slot(w, MACHINE_KILL);
	else if (die < 41)
		about_slot(w, MACHINE_RECYCLE);
	else if (die < 41 + world_draw(w, 2))
		exited(w);
	else if (die < 44)
		limit(w);
	else if (die < 86)
		outcome(w);
	else if (die < 96)
		let_time_pass(w);
	else
		whole_pool(w);
}

/* --- the walk --- */

static void release_everything(struct world *w)
{
	for (unsigned i = 0; i < N_REQUESTS; i++)
		if (w->requests[i].busy)
			step(w, (struct machine_event){.type = MACHINE_CANCEL,
						       .request = &w->memory.requests[i]});
	world_calm(w, 2000);
	for (unsigned i = 0; i < w->memory.machine.view.n_slots; i++)
		step(w, (struct machine_event){.type = MACHINE_RELEASE, .slot = i});
	CHECK(w, world_calm(w, 2000), "without load the machine comes to rest");
}

/* Without load, and when all goes well, the pool comes to the size that it should have. */
static void check_rest(struct world *w)
{
	struct machine_view *m = &w->memory.machine.view;
	struct machine_limits limits = m->limits;
	limits.policy = SCALING_UTILIZATION;
	limits.scaling.down_at = limits.scaling.up_at > 1 ? 1 : 0;
	limits.idle_timeout_ns = 60 * AP_SECOND;
	limits.recycling.max_age_ns = 0;
	world_configure(w, &limits);
	for (unsigned i = 0; i < m->n_hosts; i++)
		CHECK(w, world_host(w, i, AP_HOST_UP, m->n_slots) == 0, "a host comes back");
	step(w, (struct machine_event){.type = MACHINE_SCALE, .target = -1});
	step(w, (struct machine_event){.type = MACHINE_RESET_BREAKER});
	release_everything(w);
	for (int i = 0; i < 4; i++) {
		w->now += 7200 * AP_SECOND;
		step(w, (struct machine_event){.type = MACHINE_TIMER});
		CHECK(w, world_calm(w, 2000), "without load the machine comes to rest");
	}
	CHECK(w,
	      machine_live(m) == limits.min_size && m->n_in_state[AP_AGENT_IDLE] == limits.min_size,
	      "without load the pool has its least size: %u, not %u", machine_live(m),
	      limits.min_size);
}

static void check_end(struct world *w)
{
	step(w, (struct machine_event){.type = MACHINE_SHUTDOWN});
	CHECK(w, world_calm(w, 4000), "a pool that shuts down comes to rest");
	CHECK(w, machine_total(&w->memory.machine.view) == 0, "and has no agent left");
	for (unsigned i = 0; i < N_REQUESTS; i++)
		CHECK(w, !w->requests[i].busy, "and has answered request %u", i);
}

/* The pool rests: what is under way comes to its end, and nothing else begins. */
static void check_suspension(struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	step(w, (struct machine_event){.type = MACHINE_SUSPEND});
	step(w, (struct machine_event){.type = MACHINE_CLOSE});
	CHECK(w, world_calm(w, 4000), "a pool that is suspended comes to rest");
	CHECK(w, machine_at_rest(m), "and says so");
	for (unsigned i = 0; i < N_REQUESTS; i++)
		CHECK(w, !w->requests[i].busy, "and has answered request %u", i);
}

/* What was counted and used before. */
static void restore(struct world *w)
{
	const struct machine_restored restored = {
		.next_number = world_draw(w, 50),
		.next_token = world_draw(w, 50),
		.next_lease = world_draw(w, 50),
		.n_grants = world_draw(w, 50),
		.n_recycled = world_draw(w, 50),
		.n_spawned = world_draw(w, 20),
	};
	w->n_ended += restored.n_grants;
	step(w, (struct machine_event){.type = MACHINE_RESTORE, .restored = &restored});
	w->last_token = w->memory.machine.view.next_token - 1;
}

/* Agents that were there before: some of them idle, some leased, some that cannot be. */
static void adopt_some(struct world *w)
{
	for (unsigned n = world_draw(w, w->memory.machine.view.n_slots + 2); n > 0; n--) {
		char label[16] = "";
		if (one_in(w, 2))
			snprintf(label, sizeof label, "l%u", world_draw(w, 12));
		const struct machine_adoption adoption = {
			.host = world_draw(w, one_in(w, 20) ? MAX_HOSTS + 1
							    : w->memory.machine.view.n_hosts),
			.number = 1 + world_draw(w, 20),
			.generation = 1 + world_draw(w, 3),
			.n_recycles = world_draw(w, 3),
			.n_served = world_draw(w, 4),
			.created_ns = w->now - 5 * AP_SECOND,
			.started_ns = w->now - some_time(w, 3600 * AP_SECOND),
			.label = label,
			.token = *label ? w->memory.machine.view.next_token + world_draw(w, 3) : 0,
			.affinity = world_draw(w, 4),
			.ttl_ns = one_in(w, 2) ? 0 : some_time(w, 3600 * AP_SECOND),
		};
		step(w, (struct machine_event){.type = MACHINE_ADOPT,
					       .slot = some_slot(w),
					       .adoption = &adoption});
	}
	w->last_token = w->memory.machine.view.next_token - 1;
}

uint64_t random_walk(uint64_t seed, uint64_t n_steps)
{
	static struct world world;
	struct world *w = &world;
	uint64_t n_grants = 0, n_recycled = 0, n_spawned = 0;
	world_init(w, seed);
	while (w->n_steps < n_steps) {
		unsigned n_slots = 2 + world_draw(w, MAX_SLOTS - 1);
		unsigned n_hosts = 1 + world_draw(w, MAX_HOSTS);
		struct machine_limits limits = some_limits(w, n_slots);
		world_begin(w, n_slots, n_hosts, &limits);
		static const uint32_t rates[] = {5, 20, 100, 1000};
		fault_every = rates[world_draw(w, 4)];
		static const uint32_t changes[] = {10, 30, 100, 1000, 1000000};
		hosts_change_every = changes[world_draw(w, 5)];
		bool suspended = one_in(w, 2);
		if (suspended)
			step(w, (struct machine_event){.type = MACHINE_SUSPEND});
		for (unsigned i = 0; i < n_hosts; i++)
			if (one_in(w, 2))
				world_host(w, i, one_in(w, 4) ? AP_HOST_LOST : AP_HOST_UP,
					   some_room(w));
		if (one_in(w, 3))
			restore(w);
		if (one_in(w, 3))
			adopt_some(w);
		world_configure(w, &limits);
		for (unsigned n = suspended ? world_draw(w, 20) : 0; n > 0; n--)
			random_step(w);
		if (suspended)
			step(w, (struct machine_event){.type = MACHINE_RESUME});
		uint64_t end = w->n_steps + 500 + world_draw(w, 3000);
		while (w->n_steps < end && w->n_steps < n_steps) {
			uint64_t before = w->n_steps;
			random_step(w);
			if (w->n_steps == before) /* it came to nothing: never an endless loop */
				let_time_pass(w);
		}
		if (one_in(w, 2))
			check_rest(w);
		if (one_in(w, 3))
			check_suspension(w);
		else
			check_end(w);
		n_grants += w->memory.machine.view.n_grants;
		n_recycled += w->memory.machine.view.n_recycled;
		n_spawned += w->memory.machine.view.n_spawned;
	}
	tap_note("%" PRIu64 " grants, %" PRIu64 " recyclings, %" PRIu64 " spawns", n_grants,
		 n_recycled, n_spawned);
	return w->hash;
}
