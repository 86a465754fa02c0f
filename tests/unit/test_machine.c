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
	.scale_up_at = 80,
	.idle_timeout_ns = 300 * AP_SECOND,
	.pass_ns = 30 * AP_SECOND,
};

static void begin(unsigned min, unsigned max)
{
	struct machine_limits limits = limits_default;
	limits.min_size = min;
	limits.max_size = max;
	now = 1000 * AP_SECOND;
	assert_int_equal(machine_init(&machine, N_SLOTS, &limits, 1, 42, now), 0);
	fx.at = calloc(machine_max_effects(&machine), sizeof *fx.at);
	assert_non_null(fx.at);
}

static int end(void **state)
{
	machine_fini(&machine);
	free(fx.at);
	return 0;
}

static int step(struct machine_event event)
{
	return machine_step(&machine, &event, now, &fx);
}

#define STEP(...) step((struct machine_event){__VA_ARGS__})

/* The outcome of one effect, as a world in which all goes well would have it. */
static void succeed(struct machine_effect effect)
{
	static const enum machine_event_type outcomes[] = {
		[EFFECT_SPAWN] = MACHINE_SPAWNED, [EFFECT_VALIDATE] = MACHINE_VALIDATED,
		[EFFECT_SAVE] = MACHINE_SAVED,	  [EFFECT_RECYCLE] = MACHINE_RECYCLED,
		[EFFECT_STOP] = MACHINE_STOPPED,
	};
	assert_int_equal(STEP(.type = outcomes[effect.type], .slot = effect.slot,
			      .generation = effect.generation),
			 0);
}

/* Lets everything that is under way succeed, and what follows from it. */
static void settle(void)
{
	struct machine_effect queue[256];
	unsigned n = 0;
	for (unsigned i = 0; i < fx.n; i++)
		queue[n++] = fx.at[i];
	for (unsigned i = 0; i < n; i++) {
		succeed(queue[i]);
		for (unsigned j = 0; j < fx.n; j++)
			queue[n++] = fx.at[j];
		assert_true(n < 200);
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
	snprintf(request->label, sizeof request->label, "%s", label);
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
	assert_string_equal(slot_of(&a)->label, "job");
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
	assert_int_equal(STEP(.type = MACHINE_VALIDATED, .slot = validate.slot,
			      .generation = validate.generation, .result = -ECHILD),
			 0);
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
	STEP(.type = MACHINE_VALIDATED, .slot = validate.slot, .generation = validate.generation,
	     .result = -EBUSY);
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
	STEP(.type = MACHINE_SAVED, .slot = a.slot, .generation = 1, .result = -EIO);
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
	for (int i = 0; i < 3; i++)
		STEP(.type = MACHINE_SPAWNED, .slot = fx.at[0].slot, .generation = 1,
		     .result = -ENOSPC);
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
		STEP(.type = MACHINE_EXITED, .slot = slot,
		     .generation = machine.slots[slot].generation);
		settle();
	}
	assert_int_equal(n_spawns, 3);
}

static void ttl_ends(void **state)
{
	struct machine_request a = {.deadline_ns = 0, .ttl_ns = 10 * AP_SECOND, .label = "a"};
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
	STEP(.type = MACHINE_VALIDATED, .slot = validate.slot, .generation = validate.generation,
	     .result = -ENOTDIR);
	assert_int_equal(b.result, -EAGAIN);
	assert_int_equal(machine.n_waiting, 0);
}

static void retry_is_not_forgotten(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	for (int i = 0; i < 3; i++)
		STEP(.type = MACHINE_SPAWNED, .slot = fx.at[0].slot, .generation = 1,
		     .result = -ENOSPC);
	machine.breaker.retry_ns = machine.pass_due_ns + AP_SECOND;
	now = machine.pass_due_ns;
	STEP(.type = MACHINE_TIMER);
	assert_true(machine.wake_ns <= machine.breaker.retry_ns);
}

/* --- a random walk, every invariant after every step --- */

#define N_REQUESTS 12

struct world {
	struct machine_effect under_way[N_SLOTS];
	unsigned n_under_way;
	struct machine_request requests[N_REQUESTS];
	bool used[N_REQUESTS];
	uint64_t last_token;
	uint32_t random;
};

static uint32_t draw(struct world *world, uint32_t below)
{
	world->random = world->random * 1664525 + 1013904223;
	return (uint32_t)(((uint64_t)world->random * below) >> 32);
}

static void check(struct world *world)
{
	unsigned sum = 0;
	for (int i = 0; i < AP_N_AGENT_STATES; i++) {
		unsigned n = 0;
		struct ap_list *at;
		ap_list_for_each (at, &machine.states[i]) {
			assert_int_equal(ap_container_of(at, struct machine_slot, link)->state, i);
			n++;
		}
		assert_int_equal(n, machine.n_in_state[i]);
		sum += n;
	}
	assert_int_equal(sum, machine.n_slots);
	assert_true(machine_total(&machine) <= machine.limits.max_size);
	assert_int_equal(machine.n_spawned - machine.n_terminated +
				 machine.n_in_state[AP_AGENT_SPAWNING],
			 machine_total(&machine));
	/* a waiter that any agent will do never waits beside an idle one */
	struct ap_list *at;
	unsigned n_waiting = 0;
	ap_list_for_each (at, &machine.waiters) {
		n_waiting++;
		assert_true(machine.n_in_state[AP_AGENT_IDLE] == 0);
	}
	assert_int_equal(n_waiting, machine.n_waiting);
	for (unsigned i = 0; i < machine.n_slots; i++) {
		const struct machine_slot *slot = &machine.slots[i];
		for (unsigned j = 0; j < i && slot->label[0]; j++)
			assert_string_not_equal(slot->label, machine.slots[j].label);
	}
}

static void take_effects(struct world *world)
{
	for (unsigned i = 0; i < fx.n; i++) {
		for (unsigned j = 0; j < world->n_under_way; j++) /* one at a time for each slot */
			assert_int_not_equal(world->under_way[j].slot, fx.at[i].slot);
		assert_true(world->n_under_way < N_SLOTS);
		world->under_way[world->n_under_way++] = fx.at[i];
	}
	while (!ap_list_empty(&fx.answered)) {
		struct machine_request *request =
			ap_container_of(fx.answered.next, struct machine_request, link);
		ap_list_remove(&request->link);
		assert_int_equal(request->state, REQUEST_ANSWERED);
		if (request->result == 0 && request->token) {
			assert_true(request->token > world->last_token);
			world->last_token = request->token;
		}
		world->used[request - world->requests] = false;
	}
}

static void finish_one(struct world *world)
{
	static const enum machine_event_type outcomes[] = {
		[EFFECT_SPAWN] = MACHINE_SPAWNED, [EFFECT_VALIDATE] = MACHINE_VALIDATED,
		[EFFECT_SAVE] = MACHINE_SAVED,	  [EFFECT_RECYCLE] = MACHINE_RECYCLED,
		[EFFECT_STOP] = MACHINE_STOPPED,
	};
	static const int failures[] = {-EIO, -ENOSPC, -EBUSY, -EINVAL, -ECHILD};
	if (world->n_under_way == 0)
		return;
	unsigned i = draw(world, world->n_under_way);
	struct machine_effect effect = world->under_way[i];
	world->under_way[i] = world->under_way[--world->n_under_way];
	bool fails = effect.type != EFFECT_STOP && draw(world, 5) == 0;
	assert_int_equal(STEP(.type = outcomes[effect.type], .slot = effect.slot,
			      .generation = effect.generation,
			      .result = fails ? failures[draw(world, 5)] : 0),
			 0);
	take_effects(world);
}

static void random_request(struct world *world)
{
	unsigned i = draw(world, N_REQUESTS);
	struct machine_request *request = &world->requests[i];
	if (world->used[i]) {
		STEP(.type = MACHINE_CANCEL, .request = request);
		take_effects(world);
		return;
	}
	*request = (struct machine_request){
		.deadline_ns = draw(world, 4) ? now + (int64_t)draw(world, 60) * AP_SECOND : 0,
		.ttl_ns = draw(world, 2) ? 0 : 20 * AP_SECOND,
	};
	snprintf(request->label, sizeof request->label, "%s%u", draw(world, 2) ? "label" : "l",
		 draw(world, 20));
	if (STEP(.type = MACHINE_ACQUIRE, .request = request) == 0)
		world->used[i] = true;
	take_effects(world);
}

static void random_release(struct world *world)
{
	for (unsigned i = 0; i < N_REQUESTS; i++) {
		if (world->used[i])
			continue;
		struct machine_request *request = &world->requests[i];
		*request = (struct machine_request){0};
		if (STEP(.type = MACHINE_RELEASE, .slot = draw(world, N_SLOTS), .request = request,
			 .discard = draw(world, 4) == 0) == 0)
			world->used[i] = request->state != REQUEST_NEW;
		take_effects(world);
		return;
	}
}

static void random_step(struct world *world)
{
	unsigned slot = draw(world, N_SLOTS);
	switch (draw(world, 14)) {
	case 0:
	case 1:
	case 2:
		random_request(world);
		break;
	case 3:
	case 4:
		random_release(world);
		break;
	case 5:
		STEP(.type = MACHINE_KILL, .slot = slot);
		take_effects(world);
		break;
	case 6:
		STEP(.type = MACHINE_EXITED, .slot = slot,
		     .generation = machine.slots[slot].generation);
		take_effects(world);
		break;
	case 7:
		STEP(.type = MACHINE_SCALE, .target = (int)draw(world, N_SLOTS + 2) - 1);
		take_effects(world);
		break;
	case 8:
		now += (int64_t)draw(world, 20) * AP_SECOND;
		if (now >= machine.wake_ns) {
			STEP(.type = MACHINE_TIMER);
			assert_true(machine.wake_ns > now);
			take_effects(world);
		}
		break;
	default:
		finish_one(world);
	}
}

static void random_walk(void **state)
{
	struct world *world = calloc(1, sizeof *world);
	assert_non_null(world);
	world->random = 20261123;
	begin(2, 6);
	STEP(.type = MACHINE_CONFIG);
	take_effects(world);
	for (int i = 0; i < 200000; i++) {
		random_step(world);
		check(world);
	}
	STEP(.type = MACHINE_SHUTDOWN);
	take_effects(world);
	for (int i = 0; i < 10000 && machine_total(&machine) > 0; i++) {
		finish_one(world);
		check(world);
	}
	assert_int_equal(machine_total(&machine), 0);
	for (unsigned i = 0; i < N_REQUESTS; i++)
		assert_false(world->used[i]);
	free(world);
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
		MACHINE_TEST("a random walk keeps every invariant and ends empty", random_walk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
