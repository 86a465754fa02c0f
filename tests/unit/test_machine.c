/* The machine with a virtual clock and no world: the test answers the effects itself. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "machine.h"

#define N_SLOTS 10

static struct machine machine;
static struct machine_effects fx;
static int64_t now;

static const struct machine_limits limits_default = {
	.min_size = 1,
	.max_size = N_SLOTS,
	.max_spawning = 2,
	.max_waiting = 1000,
	.scaling = {.min_size = 1, .up_at = 80, .down_at = 20, .min_idle = 2, .max_idle = 6},
	.scale_down_window_ns = 3600 * AP_SECOND,
	.spawn_timeout_ns = 60 * AP_SECOND,
	.idle_timeout_ns = 300 * AP_SECOND,
	.pass_ns = 30 * AP_SECOND,
};

static void begin(unsigned min, unsigned max)
{
	struct machine_limits limits = limits_default;
	limits.min_size = limits.scaling.min_size = min;
	limits.max_size = max;
	now = 1000 * AP_SECOND;
	assert_int_equal(machine_init(&machine, N_SLOTS, &limits, 1, 42, now), 0);
	fx.at = calloc(machine_max_effects(&machine), sizeof *fx.at);
	fx.moves = calloc(machine_max_effects(&machine), sizeof *fx.moves);
	assert_non_null(fx.at);
	assert_non_null(fx.moves);
}

static int end(void **state)
{
	machine_fini(&machine);
	free(fx.at);
	free(fx.moves);
	return 0;
}

static int step(struct machine_event event)
{
	return machine_step(&machine, &event, now, &fx);
}

#define STEP(...) step((struct machine_event){__VA_ARGS__})

/* The outcome of one effect. */
static int report(struct machine_effect effect, int result)
{
	return STEP(.type = machine_outcome(effect.type), .slot = effect.slot, .effect = effect.id,
		    .result = result);
}

/* As a world in which all goes well would have it. */
static void succeed(struct machine_effect effect)
{
	assert_int_equal(report(effect, 0), 0);
}

/* Lets everything that is under way succeed, and what follows from it. */
static void settle(void)
{
	struct machine_effect queue[256];
	unsigned n = 0;
	for (unsigned i = 0; i < fx.n; i++)
		queue[n++] = fx.at[i];
	for (unsigned i = 0; i < n; i++) {
		if (queue[i].type == EFFECT_PROBE) /* beside the others; a move ends it */
			continue;
		succeed(queue[i]);
		for (unsigned j = 0; j < fx.n; j++)
			queue[n++] = fx.at[j];
		assert_true(n < 200);
	}
}

/* The spawn under way fails, is cleaned up, and so are those that follow it. */
static void fail_spawns(int n)
{
	for (int i = 0; i < n; i++) {
		report(fx.at[0], -ENOSPC);
		assert_int_equal(fx.at[0].type, EFFECT_STOP);
		succeed(fx.at[0]);
	}
}

static void warm(void)
{
	STEP(.type = MACHINE_CONFIG);
	settle();
}

static int acquire(struct machine_request *request, const char *label, int64_t timeout_ns)
{
	*request = (struct machine_request){.deadline_ns = timeout_ns ? now + timeout_ns : 0};
	snprintf(request->label.text, sizeof request->label.text, "%s", label);
	return STEP(.type = MACHINE_ACQUIRE, .request = request);
}

static struct machine_slot *slot_of(const struct machine_request *request)
{
	return &machine.slots[request->slot];
}

static void warm_minimum(void **state)
{
	begin(3, 10);
	STEP(.type = MACHINE_CONFIG);
	assert_int_equal(fx.n, 2); /* max_spawning */
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 3);
	assert_int_equal(machine.n_spawned, 3);
	assert_int_equal(machine.scale_direction, AP_SCALE_NONE);
}

static void grant_and_release(void **state)
{
	struct machine_request a;
	begin(1, 1);
	warm();
	assert_int_equal(acquire(&a, "job", AP_SECOND), 0);
	settle();
	assert_int_equal(a.state, REQUEST_ANSWERED);
	assert_int_equal(a.result, 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
	assert_string_equal(slot_of(&a)->label.text, "job");
	assert_int_equal(machine.n_grants, 1);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot), 0);
	assert_int_equal(fx.at[0].type, EFFECT_SAVE);
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
	assert_null(machine_find_label(&machine, "job"));
}

static void first_come_first_served(void **state)
{
	struct machine_request first, waiters[20];
	begin(1, 1);
	warm();
	acquire(&first, "first", AP_SECOND);
	settle();
	for (int i = 0; i < 20; i++)
		assert_int_equal(acquire(&waiters[i], "", 100 * AP_SECOND), 0);
	assert_int_equal(machine.n_waiting, 20);
	unsigned slot = first.slot;
	for (int i = 0; i < 20; i++) {
		STEP(.type = MACHINE_RELEASE, .slot = slot);
		settle();
		assert_int_equal(waiters[i].state, REQUEST_ANSWERED);
		assert_int_equal(waiters[i].result, 0);
		if (i < 19)
			assert_int_equal(waiters[i + 1].state, REQUEST_WAITING);
	}
}

static void tries_once(void **state)
{
	struct machine_request a, b;
	begin(1, 1);
	warm();
	assert_int_equal(acquire(&a, "a", 0), 0);
	settle();
	assert_int_equal(a.result, 0);
	assert_int_equal(acquire(&b, "b", 0), 0);
	assert_int_equal(b.state, REQUEST_ANSWERED);
	assert_int_equal(b.result, -EAGAIN);
	assert_int_equal(machine.n_waiting, 0);
}

static void times_out(void **state)
{
	struct machine_request a, b;
	begin(1, 1);
	warm();
	acquire(&a, "a", AP_SECOND);
	settle();
	acquire(&b, "b", AP_SECOND);
	assert_true(machine.wake_ns <= now + AP_SECOND);
	now += AP_SECOND - 1;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(b.state, REQUEST_WAITING);
	now += 1;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(b.result, -ETIMEDOUT);
	assert_true(machine.wake_ns > now);
}

static void cancels(void **state)
{
	struct machine_request a, b, c;
	begin(1, 1);
	warm();
	acquire(&a, "a", AP_SECOND); /* being made ready */
	struct machine_effect validate = fx.at[0];
	acquire(&b, "b", 100 * AP_SECOND);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &b), 0);
	assert_int_equal(b.result, -ECANCELED);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &a), 0);
	assert_int_equal(a.result, -ECANCELED);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &a), -EALREADY);
	succeed(validate); /* nobody wants it any more */
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
	assert_int_equal(machine.n_grants, 0);
	acquire(&c, "a", AP_SECOND);
	settle();
	assert_int_equal(c.result, 0);
}

static void labels_are_unique(void **state)
{
	struct machine_request a, b, c;
	begin(1, 1);
	warm();
	acquire(&a, "job", AP_SECOND);
	settle();
	assert_int_equal(acquire(&b, "job", AP_SECOND), -EEXIST);
	assert_int_equal(acquire(&b, "other", AP_SECOND), 0);
	assert_int_equal(acquire(&c, "other", AP_SECOND), -EEXIST);
}

static void stale_tokens(void **state)
{
	struct machine_request a, b;
	begin(1, 1);
	warm();
	acquire(&a, "a", AP_SECOND);
	settle();
	uint64_t token = a.token;
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .token = token);
	struct machine_effect saving = fx.at[0];
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot, .token = token), -ESTALE);
	succeed(saving);
	settle();
	acquire(&b, "b", AP_SECOND);
	settle();
	assert_int_equal(b.result, 0);
	assert_true(b.token > token);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = b.slot, .token = token), -ESTALE);
	assert_int_equal(slot_of(&b)->state, AP_AGENT_ACTIVE);
}

static void grows_on_demand(void **state)
{
	struct machine_request requests[N_SLOTS + 2];
	begin(1, N_SLOTS);
	warm();
	for (int i = 0; i < N_SLOTS + 2; i++) {
		acquire(&requests[i], "", 100 * AP_SECOND);
		settle();
		assert_true(machine_total(&machine) <= N_SLOTS);
	}
	assert_int_equal(machine.n_in_state[AP_AGENT_ACTIVE], N_SLOTS);
	assert_int_equal(machine.n_waiting, 2);
	assert_int_equal(machine.scale_direction, AP_SCALE_UP);
}

static void shrinks_when_idle(void **state)
{
	begin(1, N_SLOTS);
	STEP(.type = MACHINE_SCALE, .target = 5);
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 5);
	STEP(.type = MACHINE_SCALE, .target = -1);
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 5);
	now += 301 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
	assert_int_equal(machine.scale_direction, AP_SCALE_DOWN);
	assert_int_equal(machine.n_terminated, 4);
}

static void spares_the_leased(void **state)
{
	struct machine_request a, b;
	begin(1, 4);
	STEP(.type = MACHINE_SCALE, .target = 4);
	settle();
	acquire(&a, "a", AP_SECOND);
	settle();
	acquire(&b, "b", AP_SECOND);
	settle();
	assert_int_equal(STEP(.type = MACHINE_SCALE, .target = 1), 0);
	settle();
	assert_int_equal(machine_total(&machine), 2);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
	assert_int_equal(slot_of(&b)->state, AP_AGENT_ACTIVE);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	settle();
	assert_int_equal(machine_total(&machine), 1);
	assert_int_equal(STEP(.type = MACHINE_SCALE, .target = 5), -ERANGE);
	assert_int_equal(STEP(.type = MACHINE_SCALE, .target = 0), -ERANGE);
}

static void unhealthy_is_replaced(void **state)
{
	struct machine_request a;
	begin(2, 2);
	warm();
	acquire(&a, "a", 100 * AP_SECOND);
	struct machine_effect validate = fx.at[0];
	assert_int_equal(report(validate, -ECHILD), 0);
	settle();
	assert_int_equal(a.result, 0);
	assert_int_not_equal(a.slot, validate.slot);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
}

static void acquirers_fault(void **state)
{
	struct machine_request a;
	begin(1, 1);
	warm();
	acquire(&a, "a", 100 * AP_SECOND);
	struct machine_effect validate = fx.at[0];
	report(validate, -EBUSY);
	assert_int_equal(a.result, -EBUSY);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
}

static void set_aside(void **state)
{
	struct machine_request a, release = {0};
	begin(1, 1);
	warm();
	acquire(&a, "a", AP_SECOND);
	settle();
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &release);
	assert_int_equal(release.state, REQUEST_RELEASING);
	report(fx.at[0], -EIO);
	assert_int_equal(release.result, -EIO);
	assert_int_equal(machine.n_in_state[AP_AGENT_UNHEALTHY], 1);
	assert_int_equal(fx.n, 0); /* its worktree is not touched */
	/* again, when the disk has room */
	release = (struct machine_request){0};
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &release), 0);
	settle();
	assert_int_equal(release.result, 0);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
}

static void breaker_opens(void **state)
{
	struct machine_request a;
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	fail_spawns(3);
	assert_int_equal(machine.breaker.state, BREAKER_OPEN);
	assert_int_equal(machine_total(&machine), 0);
	assert_int_equal(acquire(&a, "a", 100 * AP_SECOND), 0);
	assert_int_equal(a.result, -EHOSTDOWN); /* at once: nothing can serve */
	now = machine.breaker.retry_ns;
	assert_true(machine.wake_ns <= now);
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(fx.n, 1); /* one probe */
	settle();
	now += 6 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.breaker.state, BREAKER_CLOSED);
}

static void fast_exits_are_failures(void **state)
{
	begin(1, 1);
	warm();
	int n_spawns = 0;
	for (int i = 0; i < 20 && machine.breaker.state != BREAKER_OPEN; i++, n_spawns++) {
		unsigned slot = (unsigned)(ap_container_of(machine.states[AP_AGENT_IDLE].next,
							   struct machine_slot, link) -
					   machine.slots);
		STEP(.type = MACHINE_EXITED, .slot = slot);
		settle();
	}
	assert_int_equal(n_spawns, 3);
}

static void ttl_ends(void **state)
{
	struct machine_request a = {.deadline_ns = 0, .ttl_ns = 10 * AP_SECOND, .label.text = "a"};
	begin(1, 1);
	warm();
	STEP(.type = MACHINE_ACQUIRE, .request = &a);
	settle();
	now += 9 * AP_SECOND;
	assert_int_equal(STEP(.type = MACHINE_RENEW, .slot = a.slot), 0);
	now += 9 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
	assert_true(machine.wake_ns <= now + AP_SECOND);
	now += AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
}

static void shuts_down(void **state)
{
	struct machine_request a, b, c;
	begin(2, 2);
	warm();
	acquire(&a, "a", AP_SECOND);
	settle();
	acquire(&b, "b", AP_SECOND);
	settle();
	acquire(&c, "c", AP_SECOND);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(c.result, -ESHUTDOWN);
	assert_int_equal(fx.at[0].type, EFFECT_SAVE);
	settle();
	assert_int_equal(machine_total(&machine), 0);
	assert_int_equal(acquire(&c, "c", AP_SECOND), -ESHUTDOWN);
	assert_int_equal(machine.n_spawned, machine.n_terminated);
}

static void shuts_down_while_validating(void **state)
{
	struct machine_request a;
	begin(1, 1);
	warm();
	acquire(&a, "a", AP_SECOND);
	struct machine_effect validate = fx.at[0];
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(a.result, -ESHUTDOWN);
	succeed(validate);
	settle();
	assert_int_equal(machine_total(&machine), 0);
}

static void once_does_not_wait(void **state)
{
	struct machine_request a, b;
	begin(2, 2);
	warm();
	acquire(&a, "a", AP_SECOND);
	settle();
	acquire(&b, "b", 0);
	struct machine_effect validate = fx.at[0];
	report(validate, -ENOTDIR);
	assert_int_equal(b.result, -EAGAIN);
	assert_int_equal(machine.n_waiting, 0);
}

static void retry_is_not_forgotten(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	fail_spawns(3);
	machine.breaker.retry_ns = machine.pass_due_ns + AP_SECOND;
	now = machine.pass_due_ns;
	STEP(.type = MACHINE_TIMER);
	assert_true(machine.wake_ns <= machine.breaker.retry_ns);
}

/* An idle pool of that size on which probation is over. */
static void settled_pool(unsigned size)
{
	begin(size, size);
	warm();
	now += 6 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.n_unproven, 0);
}

static void lease_and_release(const char *label)
{
	struct machine_request request;
	assert_int_equal(acquire(&request, label, AP_SECOND), 0);
	settle();
	assert_int_equal(request.result, 0);
	STEP(.type = MACHINE_RELEASE, .slot = request.slot);
	settle();
}

static void overdue_spawn(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	struct machine_effect spawn = fx.at[0];
	now += machine.limits.spawn_timeout_ns;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(fx.at[0].type, EFFECT_STOP);
	assert_int_equal(fx.moves[0].reason, AP_REASON_TIMEOUT);
	assert_int_equal(report(spawn, 0), -ESTALE); /* it comes late */
	assert_int_equal(machine.n_spawned, 0);
}

static void overdue_saving(void **state)
{
	struct machine_request a, release = {0};
	settled_pool(1);
	acquire(&a, "a", AP_SECOND);
	settle();
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &release);
	struct machine_effect save = fx.at[0];
	now = slot_of(&a)->deadline_ns;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(release.result, -ETIMEDOUT);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_UNHEALTHY);
	assert_true(slot_of(&a)->aside);
	assert_int_equal(report(save, 0), -ESTALE);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot), 0); /* once more */
}

static void overdue_stop(void **state)
{
	settled_pool(1);
	STEP(.type = MACHINE_KILL, .slot = 0);
	now += 3600 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.n_in_state[AP_AGENT_STOPPING], 1); /* it may live: it counts */
	assert_int_equal(machine_total(&machine), 1);
	assert_true(machine.wake_ns > now);
}

static void recycled_by_requests(void **state)
{
	settled_pool(1);
	machine.limits.recycling.max_requests = 2;
	lease_and_release("a");
	assert_int_equal(machine.n_recycled, 0);
	lease_and_release("b");
	assert_int_equal(machine.n_recycled, 1);
	assert_int_equal(machine.slots[0].generation, 2);
	assert_int_equal(machine.slots[0].number, 1);
	assert_int_equal(machine.slots[0].n_requests, 2);
	assert_int_equal(machine.slots[0].n_served, 0);
}

static void recycled_by_age(void **state)
{
	settled_pool(2);
	machine.limits.recycling.max_age_ns = 100 * AP_SECOND;
	STEP(.type = MACHINE_CONFIG);
	int64_t first = AP_FOREVER;
	for (unsigned i = 0; i < 2; i++) {
		const struct machine_slot *slot = &machine.slots[i];
		int64_t expiry =
			recycling_expiry(&machine.limits.recycling, slot->started_ns, slot->jitter);
		assert_in_range(expiry - slot->started_ns, 90 * AP_SECOND, 100 * AP_SECOND);
		first = expiry < first ? expiry : first;
	}
	assert_true(machine.wake_ns <= first);
	now += 100 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.n_in_state[AP_AGENT_RECYCLING], 1); /* one at a time */
	settle();
	assert_int_equal(machine.n_recycled, 2);
}

static void probe(unsigned slot, uint64_t memory, unsigned cpu, int result)
{
	STEP(.type = MACHINE_PASS);
	STEP(.type = MACHINE_PROBED, .slot = slot, .effect = machine.slots[slot].probe,
	     .memory = memory, .cpu = cpu, .result = result);
}

static void recycled_by_memory(void **state)
{
	settled_pool(1);
	machine.limits.recycling.max_memory = 100;
	probe(0, 101, 0, 0);
	probe(0, 101, 0, 0);
	probe(0, 100, 0, 0); /* a peak */
	probe(0, 101, 0, 0);
	probe(0, 101, 0, 0);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
	probe(0, 101, 0, 0);
	assert_int_equal(fx.moves[0].reason, AP_REASON_MEMORY);
	assert_int_equal(machine.n_in_state[AP_AGENT_RECYCLING], 1);
}

static void marked_under_its_holder(void **state)
{
	struct machine_request a;
	settled_pool(1);
	machine.limits.recycling.max_cpu = 80;
	acquire(&a, "a", AP_SECOND);
	settle();
	probe(0, 0, 81, 0);
	assert_int_equal(machine.slots[0].state, AP_AGENT_ACTIVE);
	probe(0, 0, 0, 0); /* it stays marked */
	STEP(.type = MACHINE_RELEASE, .slot = 0);
	succeed(fx.at[0]);
	assert_int_equal(fx.moves[0].reason, AP_REASON_CPU);
	assert_true(fx.at[0].restart);
	settle();
	assert_int_equal(machine.n_recycled, 1);
}

static void found_ill(void **state)
{
	settled_pool(1);
	probe(0, 0, 0, -ENOTDIR);
	assert_int_equal(machine.n_in_state[AP_AGENT_RECYCLING], 1);
	settle();
	assert_int_equal(machine.slots[0].number, 1);
	assert_int_equal(machine.n_recycled, 1);
}

static void spent(void **state)
{
	settled_pool(1);
	machine.limits.recycling.max_recycles = 1;
	STEP(.type = MACHINE_RECYCLE, .slot = 0);
	settle();
	STEP(.type = MACHINE_RECYCLE, .slot = 0);
	assert_int_equal(fx.at[0].type, EFFECT_DRAIN);
	assert_int_equal(fx.moves[0].reason, AP_REASON_RECYCLES);
	settle();
	assert_int_equal(machine.slots[0].number, 2);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 1);
}

static void prompts_have_a_quota(void **state)
{
	settled_pool(1);
	machine.limits.max_prompts = 2;
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = 0), 0);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = 0), 0);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = 0), -EDQUOT);
	now += 24 * 3600 * AP_SECOND;
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = 0), 0);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = 0, .token = 99), -ESTALE);
}

static void affinity_is_preferred(void **state)
{
	struct machine_request a = {.label.text = "a", .affinity = 7}, b, c = a, d = a;
	settled_pool(2);
	STEP(.type = MACHINE_ACQUIRE, .request = &a);
	settle();
	acquire(&b, "b", AP_SECOND);
	settle();
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	settle();
	STEP(.type = MACHINE_RELEASE, .slot = b.slot); /* the last one to idle */
	settle();
	STEP(.type = MACHINE_ACQUIRE, .request = &c);
	settle();
	assert_int_equal(c.slot, a.slot);
	d.label.text[0] = 'd';
	STEP(.type = MACHINE_ACQUIRE, .request = &d); /* it does not wait */
	settle();
	assert_int_equal(d.result, 0);
	assert_int_equal(d.slot, b.slot);
}

static void its_agent_ends(void **state)
{
	struct machine_request a, b = {.label.text = "b", .agent = 1};
	settled_pool(1);
	acquire(&a, "a", AP_SECOND);
	settle();
	b.deadline_ns = now + 100 * AP_SECOND;
	assert_int_equal(STEP(.type = MACHINE_ACQUIRE, .request = &b), 0);
	STEP(.type = MACHINE_KILL, .slot = a.slot);
	settle();
	assert_int_equal(b.result, -ENOENT);
}

static void spare_is_kept(void **state)
{
	struct machine_request a;
	begin(1, N_SLOTS);
	machine.limits.policy = SCALING_SPARE;
	machine.limits.scaling.min_idle = 2;
	machine.limits.scaling.max_idle = 3;
	machine.limits.scale_down_window_ns = 10 * AP_SECOND;
	warm();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 2);
	acquire(&a, "a", AP_SECOND);
	settle();
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 2);
	STEP(.type = MACHINE_SCALE, .target = 6);
	settle();
	STEP(.type = MACHINE_SCALE, .target = -1);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 5);
	now += 10 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 4); /* a step a window */
	now += 10 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 3);
	now += 100 * AP_SECOND;
	STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine.n_in_state[AP_AGENT_IDLE], 3);
}

static void passes_adapt(void **state)
{
	settled_pool(1);
	machine.limits.pass_ns = 0;
	STEP(.type = MACHINE_CONFIG);
	int64_t shortest = AP_FOREVER, longest = 0;
	for (int i = 0; i < 40; i++) {
		if (i < 10)
			lease_and_release("a");
		now = machine.pass_due_ns;
		STEP(.type = MACHINE_TIMER);
		int64_t interval = machine.pass_due_ns - now;
		shortest = interval < shortest ? interval : shortest;
		longest = interval > longest ? interval : longest;
	}
	assert_int_equal(shortest, AP_SECOND);
	assert_int_equal(longest, 120 * AP_SECOND);
}

static void tokens_in_order_of_arrival(void **state)
{
	struct machine_request a, b;
	settled_pool(2);
	acquire(&a, "a", 100 * AP_SECOND);
	struct machine_effect first = fx.at[0];
	acquire(&b, "b", 100 * AP_SECOND);
	succeed(fx.at[0]); /* b is made ready sooner */
	succeed(first);
	assert_true(a.token < b.token);
}

static void queue_is_bounded(void **state)
{
	struct machine_request a, b, c;
	settled_pool(1);
	machine.limits.max_waiting = 1;
	acquire(&a, "a", AP_SECOND);
	settle();
	assert_int_equal(acquire(&b, "b", AP_SECOND), 0);
	assert_int_equal(acquire(&c, "c", AP_SECOND), -EAGAIN);
}

static void breaker_is_reset(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	fail_spawns(3);
	assert_int_equal(fx.n, 0);
	STEP(.type = MACHINE_RESET_BREAKER);
	assert_int_equal(fx.at[0].type, EFFECT_SPAWN);
}

#define MACHINE_TEST(sentence, function)                                                           \
	{                                                                                          \
		(sentence), (function), NULL, end, NULL                                            \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MACHINE_TEST("the warm minimum is spawned, max_spawning at once", warm_minimum),
		MACHINE_TEST("a grant is validated, a release saved and recycled",
			     grant_and_release),
		MACHINE_TEST("waiters are served first come first served", first_come_first_served),
		MACHINE_TEST("timeout 0 takes an idle agent or is EAGAIN at once", tries_once),
		MACHINE_TEST("a waiter times out at its deadline and not before", times_out),
		MACHINE_TEST("a cancelled acquirer leaves nothing, in the queue or half granted",
			     cancels),
		MACHINE_TEST("a label is leased once and asked for once", labels_are_unique),
		MACHINE_TEST("a token of an ended lease is ESTALE and changes nothing",
			     stale_tokens),
		MACHINE_TEST("demand grows the pool to its maximum and never over",
			     grows_on_demand),
		MACHINE_TEST("idle agents over the minimum are retired after idle_timeout",
			     shrinks_when_idle),
		MACHINE_TEST("scaling never takes a leased agent away", spares_the_leased),
		MACHINE_TEST("an unhealthy agent is replaced and the acquirer served another",
			     unhealthy_is_replaced),
		MACHINE_TEST("an acquirer's own fault costs no agent", acquirers_fault),
		MACHINE_TEST(
			"an agent whose work cannot be saved is set aside, and can be saved later",
			set_aside),
		MACHINE_TEST(
			"three failed spawns open the breaker, and acquirers fail with EHOSTDOWN",
			breaker_opens),
		MACHINE_TEST("a program that ends at once is a failed spawn",
			     fast_exits_are_failures),
		MACHINE_TEST("a lease ends with its ttl unless it is renewed", ttl_ends),
		MACHINE_TEST("shutdown refuses acquirers, saves leases and stops every agent",
			     shuts_down),
		MACHINE_TEST("shutdown does not wait for an acquirer that is being validated",
			     shuts_down_while_validating),
		MACHINE_TEST("timeout 0 does not wait either when its agent turns out unhealthy",
			     once_does_not_wait),
		MACHINE_TEST("a maintenance pass does not forget the breaker's retry",
			     retry_is_not_forgotten),
		MACHINE_TEST("a spawn that lasts too long is stopped, and its late outcome refused",
			     overdue_spawn),
		MACHINE_TEST("a saving that lasts too long sets the agent aside", overdue_saving),
		MACHINE_TEST("an agent that does not stop goes on to count", overdue_stop),
		MACHINE_TEST("an agent is recycled after so many requests, under its name",
			     recycled_by_requests),
		MACHINE_TEST(
			"idle agents are recycled at their age, up to a tenth early, one by one",
			recycled_by_age),
		MACHINE_TEST("memory over the quota three times in a row recycles",
			     recycled_by_memory),
		MACHINE_TEST("a leased agent over a quota is recycled when its lease ends",
			     marked_under_its_holder),
		MACHINE_TEST("an idle agent that is found ill is made as new", found_ill),
		MACHINE_TEST("an agent recycled often enough is replaced under a new name", spent),
		MACHINE_TEST("prompts have a quota of 24 hours, and a stale token none",
			     prompts_have_a_quota),
		MACHINE_TEST("affinity is preferred and not waited for", affinity_is_preferred),
		MACHINE_TEST("who waits for one agent is refused when that ends", its_agent_ends),
		MACHINE_TEST("policy spare keeps idle agents, and shrinks a step a window",
			     spare_is_kept),
		MACHINE_TEST("the adapted interval is between a second and two minutes",
			     passes_adapt),
		MACHINE_TEST("tokens are in the order of arrival, whoever is ready first",
			     tokens_in_order_of_arrival),
		MACHINE_TEST("a full queue refuses at once", queue_is_bounded),
		MACHINE_TEST("a breaker that is reset lets spawning begin", breaker_is_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
