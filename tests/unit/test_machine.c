/* The machine with a virtual clock and no world: the test answers the effects itself. Every step of
 * every test checks that the reported moves lead from the states before to the states after. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "machine_internal.h"

#define N_SLOTS 20
#define N_HOSTS 3
#define DAY	(24 * 3600 * AP_SECOND)

static struct machine machine;
static struct machine_effects fx;
static int64_t now;

/* What the moves reported so far make of each slot. */
static enum ap_agent_state reported[N_SLOTS];

/* Effects whose outcome has not been stepped, in order. */
static struct machine_effect under_way[512];
static unsigned n_under_way;

/* --- the world --- */

static const struct machine_limits limits_default = {
	.max_spawning = 2,
	.max_waiting = 100,
	.max_waiting_of_user = 100,
	.owner = 1000,
	.policy = SCALING_UTILIZATION,
	.scaling = {.up_at = 80, .down_at = 20, .min_idle = 1, .max_idle = 2},
	.scale_down_window_ns = 300 * AP_SECOND,
	.spawn_timeout_ns = 60 * AP_SECOND,
	.pass_ns = 30 * AP_SECOND,
};

/* A pool without agents yet. A test sets further limits in machine.view.limits before it warms it.
 */
static void begin(unsigned min, unsigned max)
{
	struct machine_limits limits = limits_default;
	limits.min_size = limits.scaling.min_size = min;
	limits.max_size = max;
	now = 1000 * AP_SECOND;
	n_under_way = 0;
	memset(reported, 0, sizeof reported);
	assert_int_equal(machine_init(&machine, N_SLOTS, N_HOSTS, &limits, 42, now), 0);
	fx.at = calloc(machine_max_effects(&machine.view), sizeof *fx.at);
	fx.moves = calloc(machine_max_effects(&machine.view), sizeof *fx.moves);
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

static void check_moves(void)
{
	for (unsigned i = 0; i < fx.n_moves; i++) {
		const struct machine_move *move = &fx.moves[i];
		assert_int_equal(move->from, reported[move->slot]);
		assert_int_not_equal(move->reason, AP_REASON_NONE);
		reported[move->slot] = move->to;
	}
	for (unsigned i = 0; i < N_SLOTS; i++)
		assert_int_equal(reported[i], machine.view.slots[i].state);
}

static int step(struct machine_event event)
{
	int r = machine_step(&machine, &event, now, &fx);
	check_moves();
	for (unsigned i = 0; i < fx.n; i++) {
		assert_true(n_under_way < sizeof under_way / sizeof *under_way);
		under_way[n_under_way++] = fx.at[i];
	}
	return r;
}

#define STEP(...) step((struct machine_event){__VA_ARGS__})

/* The first effect of a type that is under way; its outcome is the test's to give now. */
static struct machine_effect take(enum machine_effect_type type)
{
	for (unsigned i = 0; i < n_under_way; i++) {
		struct machine_effect effect = under_way[i];
		if (effect.type != type)
			continue;
		n_under_way--;
		memmove(&under_way[i], &under_way[i + 1], (n_under_way - i) * sizeof *under_way);
		return effect;
	}
	fail_msg("no effect of type %d is under way", type);
	return (struct machine_effect){.type = N_EFFECTS};
}

static unsigned n_effects(enum machine_effect_type type)
{
	unsigned n = 0;
	for (unsigned i = 0; i < n_under_way; i++)
		n += under_way[i].type == type;
	return n;
}

static int finish(struct machine_effect effect, int result)
{
	return STEP(.type = machine_outcome(effect.type), .slot = effect.slot, .effect = effect.id,
		    .result = result);
}

/* Lets everything that is under way succeed, and what follows from it. */
static void settle(void)
{
	for (int i = 0; n_under_way > 0; i++) {
		assert_true(i < 1000);
		struct machine_effect effect = take(under_way[0].type);
		const struct machine_slot *slot = &machine.view.slots[effect.slot];
		bool awaited = effect.id == slot->effect || effect.id == slot->probe;
		assert_int_equal(finish(effect, 0), awaited ? 0 : -ESTALE);
	}
}

static struct machine_host *host_at(unsigned index)
{
	return (struct machine_host *)&machine.view.hosts[index];
}

static struct machine_slot *slot_at_index(unsigned index)
{
	return (struct machine_slot *)&machine.view.slots[index];
}

static void warm(void)
{
	assert_int_equal(STEP(.type = MACHINE_CONFIG), 0);
	settle();
}

/* The clock goes on; what is due is done, nothing of it finished. */
static void later(int64_t span_ns)
{
	now += span_ns;
	assert_int_equal(STEP(.type = MACHINE_TIMER), 0);
	assert_true(machine.view.wake_ns > now);
}

/* A pool of agents that are well and idle, their starts proven. */
static void begin_idle(unsigned min, unsigned max)
{
	begin(min, max);
	warm();
	later(6 * AP_SECOND);
	settle();
	assert_int_equal(machine.view.n_in_state[AP_AGENT_IDLE], min);
}

static void scale(int target)
{
	assert_int_equal(STEP(.type = MACHINE_SCALE, .target = target), 0);
	settle();
}

static unsigned count(enum ap_agent_state state)
{
	return machine.view.n_in_state[state];
}

/* --- leases --- */

static int acquire(struct machine_request *request, const char *label, int64_t timeout_ns)
{
	*request = (struct machine_request){
		.deadline_ns = timeout_ns ? now + timeout_ns : AP_FOREVER, .once = timeout_ns == 0};
	snprintf(request->label.text, sizeof request->label.text, "%s", label);
	return STEP(.type = MACHINE_ACQUIRE, .request = request);
}

static int acquire_agent(struct machine_request *request, unsigned agent)
{
	*request = (struct machine_request){.deadline_ns = AP_FOREVER, .agent = agent};
	return STEP(.type = MACHINE_ACQUIRE, .request = request);
}

static int acquire_near(struct machine_request *request, uint64_t affinity)
{
	*request = (struct machine_request){.deadline_ns = AP_FOREVER, .affinity = affinity};
	return STEP(.type = MACHINE_ACQUIRE, .request = request);
}

static void assert_granted(const struct machine_request *request)
{
	assert_int_equal(request->state, REQUEST_ANSWERED);
	assert_int_equal(request->result, 0);
}

static void lease(struct machine_request *request, const char *label)
{
	assert_int_equal(acquire(request, label, AP_FOREVER / 2), 0);
	settle();
	assert_granted(request);
}

static void release(const struct machine_request *request)
{
	assert_int_equal(
		STEP(.type = MACHINE_RELEASE, .slot = request->slot, .token = request->token), 0);
	settle();
}

static const struct machine_slot *slot_of(const struct machine_request *request)
{
	return &machine.view.slots[request->slot];
}

static const struct machine_slot *first_in(enum ap_agent_state state)
{
	assert_true(count(state) > 0);
	return ap_container_of(machine.view.states[state].next, struct machine_slot, link);
}

static unsigned index_of(const struct machine_slot *slot)
{
	return machine_slot_index(&machine.view, slot);
}

/* One agent, leased. */
static void begin_leased(struct machine_request *request)
{
	begin_idle(1, 1);
	lease(request, "job");
}

/* The last reason that the last step gave for a move to a state. */
static enum ap_reason reason_to(enum ap_agent_state state)
{
	for (unsigned i = fx.n_moves; i-- > 0;) {
		if (fx.moves[i].to == state)
			return fx.moves[i].reason;
	}
	return AP_REASON_NONE;
}

static void release_serves_the_next(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	acquire(&b, "b", 100 * AP_SECOND);
	release(&a);
	assert_granted(&b);
	assert_int_equal(b.slot, a.slot);
}

static void grant_is_validated(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	assert_int_equal(acquire(&a, "job", AP_SECOND), 0);
	assert_int_equal(a.state, REQUEST_VALIDATING);
	assert_int_equal(finish(take(EFFECT_VALIDATE), 0), 0);
	assert_granted(&a);
	assert_ptr_equal(fx.answered.next, &a.link);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
	assert_ptr_equal(machine_find_label(&machine.view, "job"), slot_of(&a));
	assert_int_equal(slot_of(&a)->granted_ns, now);
}

static void grant_is_as_old_as_its_record(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	assert_int_equal(acquire(&a, "job", AP_SECOND), 0);
	struct machine_effect effect = take(EFFECT_VALIDATE);
	assert_int_equal(STEP(.type = MACHINE_VALIDATED, .slot = effect.slot, .effect = effect.id,
			      .granted_ns = now - AP_MS),
			 0);
	assert_granted(&a);
	assert_int_equal(slot_of(&a)->granted_ns, now - AP_MS);
}

static void release_saves_and_cleans(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot), 0);
	assert_false(machine_slot_leased(slot_of(&a)));
	assert_int_equal(finish(take(EFFECT_SAVE), 0), 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_RECYCLING);
	assert_null(machine_find_label(&machine.view, "job"));
	assert_int_equal(finish(take(EFFECT_RECYCLE), 0), 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_IDLE);
}

static void discard_reaches_the_effect(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .discard = true);
	assert_true(take(EFFECT_SAVE).discard);
}

static void program_restarts_between_leases(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	struct machine_effect save = take(EFFECT_SAVE);
	assert_true(save.restart);
	finish(save, 0);
	assert_true(take(EFFECT_RECYCLE).restart);
}

static void program_kept_between_leases(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	machine.view.limits.keep_program = true;
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	struct machine_effect save = take(EFFECT_SAVE);
	assert_false(save.restart);
	finish(save, 0);
	assert_false(take(EFFECT_RECYCLE).restart);
}

static void release_is_answered_when_saved(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	assert_int_equal(r.state, REQUEST_RELEASING);
	finish(take(EFFECT_SAVE), 0);
	assert_granted(&r);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_RECYCLING);
}

static void cancelled_release_goes_on(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &r), 0);
	assert_int_equal(r.result, -ECANCELED);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
}

static void first_come_first_served(void **state)
{
	struct machine_request waiters[20];
	begin_idle(1, 1);
	lease(&waiters[0], "first");
	for (int i = 1; i < 20; i++)
		assert_int_equal(acquire(&waiters[i], "", 100 * AP_SECOND), 0);
	assert_int_equal(machine.view.n_waiting, 19);
	for (int i = 1; i < 20; i++) {
		assert_int_equal(waiters[i].state, REQUEST_WAITING);
		release(&waiters[i - 1]);
		assert_granted(&waiters[i]);
	}
}

static void tokens_in_order_of_arrival(void **state)
{
	struct machine_request a, b, c;
	begin_idle(3, 3);
	acquire(&a, "a", AP_SECOND);
	acquire(&b, "b", AP_SECOND);
	acquire(&c, "c", AP_SECOND);
	struct machine_effect first = take(EFFECT_VALIDATE);
	settle(); /* b and c are granted before a */
	finish(first, 0);
	assert_true(a.token < b.token);
	assert_true(b.token < c.token);
}

static void token_kept_over_a_failed_agent(void **state)
{
	struct machine_request a, b;
	begin_idle(2, 2);
	acquire(&a, "a", 100 * AP_SECOND);
	acquire(&b, "b", 100 * AP_SECOND);
	finish(take(EFFECT_VALIDATE), -ECHILD);
	settle();
	assert_granted(&a);
	assert_granted(&b);
	assert_true(a.token < b.token);
	assert_int_equal(slot_of(&a)->token, a.token);
}

static void tries_once(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 1);
	assert_int_equal(acquire(&a, "a", 0), 0);
	settle();
	assert_granted(&a);
	assert_int_equal(acquire(&b, "b", 0), 0);
	assert_int_equal(b.state, REQUEST_ANSWERED);
	assert_int_equal(b.result, -EAGAIN);
	assert_int_equal(machine.view.n_waiting, 0);
}

static void once_does_not_wait(void **state)
{
	struct machine_request a, b;
	begin_idle(2, 2);
	lease(&a, "a");
	acquire(&b, "b", 0);
	finish(take(EFFECT_VALIDATE), -ENOTDIR);
	assert_int_equal(b.result, -EAGAIN);
	assert_int_equal(machine.view.n_waiting, 0);
}

static void once_lets_validation_take_its_time(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", 0);
	later(10 * AP_SECOND);
	settle();
	assert_granted(&a);
}

static void times_out(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	acquire(&b, "b", AP_SECOND);
	assert_true(machine.view.wake_ns <= now + AP_SECOND);
	later(AP_SECOND - 1);
	assert_int_equal(b.state, REQUEST_WAITING);
	later(1);
	assert_int_equal(b.state, REQUEST_ANSWERED);
	assert_int_equal(b.result, -ETIMEDOUT);
}

static void times_out_while_validated(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", AP_SECOND);
	assert_true(machine.view.wake_ns <= now + AP_SECOND);
	later(AP_SECOND);
	assert_int_equal(a.result, -ETIMEDOUT);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_int_equal(machine.view.n_grants, 0);
}

static void times_out_beside_a_slow_spawn(void **state)
{
	struct machine_request a;
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	acquire(&a, "a", AP_SECOND);
	later(AP_SECOND);
	assert_int_equal(a.result, -ETIMEDOUT);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
}

static void cancels_a_waiter(void **state)
{
	struct machine_request a, b, c;
	begin_leased(&a);
	acquire(&b, "b", 100 * AP_SECOND);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &b), 0);
	assert_int_equal(b.result, -ECANCELED);
	assert_int_equal(machine.view.n_waiting, 0);
	assert_int_equal(acquire(&c, "b", 100 * AP_SECOND), 0); /* the label is free again */
}

static void cancels_half_granted(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 1);
	acquire(&a, "a", AP_SECOND);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &a), 0);
	assert_int_equal(a.result, -ECANCELED);
	assert_int_equal(finish(take(EFFECT_VALIDATE), 0), 0);
	assert_int_equal(n_effects(EFFECT_SAVE), 1);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_int_equal(machine.view.n_grants, 0);
	lease(&b, "a");
}

static void cancels_an_answered(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &a), -EALREADY);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
}

static void label_leased_once(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	assert_int_equal(acquire(&b, "job", AP_SECOND), -EEXIST);
}

static void label_asked_once(void **state)
{
	struct machine_request a, b, c;
	begin_leased(&a);
	assert_int_equal(acquire(&b, "other", AP_SECOND), 0);
	assert_int_equal(acquire(&c, "other", AP_SECOND), -EEXIST);
	assert_int_equal(machine.view.n_waiting, 1);
}

static void label_invented(void **state)
{
	struct machine_request a, b;
	begin_idle(2, 2);
	lease(&a, "lease-1"); /* what it would invent */
	lease(&b, "");
	assert_string_not_equal(slot_of(&b)->label.text, "");
	assert_string_not_equal(slot_of(&b)->label.text, "lease-1");
	assert_string_equal(b.label.text, slot_of(&b)->label.text);
}

static void second_release_is_stale(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .token = a.token);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot, .token = a.token), -ESTALE);
	assert_int_equal(n_effects(EFFECT_SAVE), 1);
}

static void old_token_is_stale(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	release(&a);
	lease(&b, "b");
	assert_true(b.token > a.token);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = b.slot, .token = a.token), -ESTALE);
	assert_int_equal(STEP(.type = MACHINE_RENEW, .slot = b.slot, .token = a.token), -ESTALE);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = b.slot, .token = a.token), -ESTALE);
	assert_true(machine_slot_leased(slot_of(&b)));
	assert_int_equal(slot_of(&b)->n_prompts, 0);
}

static void release_of_an_idle_agent(void **state)
{
	begin_idle(1, 1);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = index_of(first_in(AP_AGENT_IDLE))),
			 -ENOENT);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
}

static void certain_and_any_in_order(void **state)
{
	struct machine_request a, b, certain, any, again;
	begin_idle(2, 2);
	lease(&a, "a");
	lease(&b, "b");
	unsigned number = slot_of(&b)->number;
	assert_int_equal(acquire_agent(&certain, number), 0);
	assert_int_equal(acquire(&any, "any", AP_SECOND), 0);
	assert_int_equal(acquire_agent(&again, number), 0);
	release(&b);
	settle();
	assert_granted(&certain); /* it came first */
	assert_int_equal(any.state, REQUEST_WAITING);
	release(&certain);
	settle();
	assert_granted(&any); /* the next of all, not of those who want this one */
	assert_int_equal(again.state, REQUEST_WAITING);
	release(&any);
	settle();
	assert_granted(&again);
	assert_int_equal(slot_of(&again)->number, number);
}

static void queue_full(void **state)
{
	struct machine_request a, b, c;
	begin_leased(&a);
	machine.view.limits.max_waiting = 1;
	assert_int_equal(acquire(&b, "b", AP_SECOND), 0);
	assert_int_equal(acquire(&c, "c", AP_SECOND), -EAGAIN);
	assert_int_equal(machine.view.n_waiting, 1);
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &b), 0);
	assert_int_equal(acquire(&c, "c", AP_SECOND), 0); /* refused, it left nothing */
}

static int acquire_as(struct machine_request *request, uid_t uid)
{
	*request = (struct machine_request){.deadline_ns = AP_FOREVER, .uid = uid};
	return STEP(.type = MACHINE_ACQUIRE, .request = request);
}

static void user_queue_full(void **state)
{
	struct machine_request a, one, two, three, others[4];
	begin_leased(&a);
	machine.view.limits.max_waiting_of_user = 2;
	assert_int_equal(acquire_as(&one, 1001), 0);
	assert_int_equal(acquire_as(&two, 1001), 0);
	assert_int_equal(acquire_as(&three, 1001), -EAGAIN);
	assert_int_equal(acquire_as(&others[0], 1002), 0); /* another's part is his own */
	assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &one), 0);
	assert_int_equal(acquire_as(&three, 1001), 0);
	release(&a);
	settle();
	assert_granted(&two);
	assert_int_equal(acquire_as(&others[1], 1001), 0); /* who is served waits no more */
	assert_int_equal(acquire_as(&others[2], 1001), -EAGAIN);
}

static void root_and_owner_unbounded(void **state)
{
	struct machine_request a, requests[6];
	begin_leased(&a);
	machine.view.limits.max_waiting_of_user = 1;
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(acquire_as(&requests[i], i % 2 ? 0 : 1000), 0);
}

/* Their places in the table collide, and close up again. */
static void users_come_and_go(void **state)
{
	static struct machine_request requests[100];
	struct machine_request a, more;
	begin_leased(&a);
	machine.view.limits.max_waiting_of_user = 1;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(acquire_as(&requests[i], 5000 + 7919 * i), 0);
	for (unsigned i = 0; i < 100; i += 2)
		assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &requests[i]), 0);
	for (unsigned i = 0; i < 100; i++) {
		bool waits = i % 2;
		assert_int_equal(acquire_as(&more, requests[i].uid), waits ? -EAGAIN : 0);
		if (!waits)
			assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &more), 0);
	}
	for (unsigned i = 1; i < 100; i += 2)
		assert_int_equal(STEP(.type = MACHINE_CANCEL, .request = &requests[i]), 0);
	for (unsigned i = 0; i < machine.view.n_user_places; i++)
		assert_int_equal(machine.view.users[i].n_waiting, 0);
}

static void close_refuses(void **state)
{
	struct machine_request a, b, c;
	begin_leased(&a);
	acquire(&b, "b", AP_SECOND);
	assert_int_equal(STEP(.type = MACHINE_CLOSE), 0);
	assert_int_equal(b.result, -ESHUTDOWN);
	assert_int_equal(acquire(&c, "c", AP_SECOND), -ESHUTDOWN);
	assert_true(machine_slot_leased(slot_of(&a)));
}

static void close_lets_half_granted_go_on(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", AP_SECOND);
	STEP(.type = MACHINE_CLOSE);
	settle();
	assert_granted(&a);
}

static void close_does_not_try_again(void **state)
{
	struct machine_request a;
	begin_idle(2, 2);
	acquire(&a, "a", AP_SECOND);
	STEP(.type = MACHINE_CLOSE);
	finish(take(EFFECT_VALIDATE), -ECHILD);
	assert_int_equal(a.result, -ESHUTDOWN);
}

static void open_admits(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	STEP(.type = MACHINE_CLOSE);
	assert_int_equal(STEP(.type = MACHINE_OPEN), 0);
	lease(&a, "a");
}

static void shutdown_is_not_opened(void **state)
{
	begin_idle(1, 1);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(STEP(.type = MACHINE_OPEN), -ESHUTDOWN);
}

static void last_used_first(void **state)
{
	struct machine_request a, b, c;
	begin_idle(3, 3);
	lease(&a, "a");
	lease(&b, "b");
	release(&b);
	release(&a);
	lease(&c, "c");
	assert_int_equal(c.slot, a.slot);
}

static void affinity_prefers(void **state)
{
	struct machine_request a, b, c;
	begin_idle(3, 3);
	acquire_near(&a, 7);
	settle();
	lease(&b, "b");
	release(&a);
	release(&b); /* idle last, and so first for all others */
	acquire_near(&c, 7);
	settle();
	assert_granted(&c);
	assert_int_equal(c.slot, a.slot);
}

static void label_prefers(void **state)
{
	struct machine_request a, b, c;
	begin_idle(3, 3);
	lease(&a, "web");
	lease(&b, "b");
	release(&a);
	release(&b); /* idle last, and so first for all others */
	lease(&c, "web");
	assert_int_equal(c.slot, a.slot);
	release(&c);
	lease(&a, "d"); /* any other label: it is the last one now */
	assert_int_equal(a.slot, c.slot);
	release(&a);
	lease(&a, "b");
	assert_int_equal(a.slot, b.slot);
}

static void label_is_no_lease(void **state)
{
	struct machine_request a;
	begin_idle(2, 2);
	lease(&a, "web");
	release(&a);
	assert_null(machine_find_label(&machine.view, "web"));
	assert_null(machine_find_label(&machine.view, ""));
	lease(&a, "web");
	assert_non_null(machine_find_label(&machine.view, "web"));
}

static void key_goes_before_label(void **state)
{
	struct machine_request a, b, c;
	begin_idle(3, 3);
	acquire_near(&a, 7);
	settle();
	lease(&b, "web");
	release(&a);
	release(&b);
	c = (struct machine_request){.label.text = "web", .deadline_ns = AP_FOREVER, .affinity = 7};
	assert_int_equal(STEP(.type = MACHINE_ACQUIRE, .request = &c), 0);
	settle();
	assert_granted(&c);
	assert_int_equal(c.slot, a.slot);
}

static void affinity_does_not_wait(void **state)
{
	struct machine_request a, b;
	begin_idle(2, 2);
	acquire_near(&a, 7);
	settle();
	acquire_near(&b, 7);
	settle();
	assert_granted(&b);
	assert_int_not_equal(b.slot, a.slot);
}

static void wanted_agent_is_waited_for(void **state)
{
	struct machine_request a, b;
	begin_idle(2, 2);
	lease(&a, "a");
	assert_int_equal(acquire_agent(&b, slot_of(&a)->number), 0);
	settle();
	assert_int_equal(b.state, REQUEST_WAITING);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	release(&a);
	assert_granted(&b);
	assert_int_equal(b.slot, a.slot);
}

static void wanted_agent_is_passed_over(void **state)
{
	struct machine_request a, b, c;
	begin_idle(2, 2);
	lease(&a, "a");
	acquire_agent(&b, slot_of(&a)->number);
	lease(&c, "c");
	assert_int_equal(b.state, REQUEST_WAITING);
}

static void wanted_agent_unknown(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	assert_int_equal(acquire_agent(&a, 77), -ENOENT);
}

static void wanted_agent_ends(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	acquire_agent(&b, slot_of(&a)->number);
	STEP(.type = MACHINE_KILL, .slot = a.slot);
	settle();
	assert_int_equal(b.state, REQUEST_ANSWERED);
	assert_int_equal(b.result, -ENOENT);
}

static void wanted_agent_ending(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	unsigned number = first_in(AP_AGENT_IDLE)->number;
	STEP(.type = MACHINE_KILL, .slot = index_of(first_in(AP_AGENT_IDLE)));
	assert_int_equal(acquire_agent(&a, number), -ENOENT);
}

static void ttl_ends(void **state)
{
	struct machine_request a = {
		.deadline_ns = AP_FOREVER, .ttl_ns = 10 * AP_SECOND, .label.text = "a"};
	begin_idle(1, 1);
	STEP(.type = MACHINE_ACQUIRE, .request = &a);
	settle();
	assert_true(machine.view.wake_ns <= now + 10 * AP_SECOND);
	later(10 * AP_SECOND - 1);
	assert_true(machine_slot_leased(slot_of(&a)));
	later(1);
	assert_int_equal(n_effects(EFFECT_SAVE), 1);
	assert_int_equal(finish(take(EFFECT_SAVE), 0), 0);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_TTL);
}

static void renew_begins_ttl_anew(void **state)
{
	struct machine_request a = {.ttl_ns = 10 * AP_SECOND};
	begin_idle(1, 1);
	STEP(.type = MACHINE_ACQUIRE, .request = &a);
	settle();
	later(9 * AP_SECOND);
	assert_int_equal(STEP(.type = MACHINE_RENEW, .slot = a.slot, .token = a.token), 0);
	later(9 * AP_SECOND);
	assert_true(machine_slot_leased(slot_of(&a)));
	later(AP_SECOND);
	assert_false(machine_slot_leased(slot_of(&a)));
}

static void prompt_renews(void **state)
{
	struct machine_request a = {.ttl_ns = 10 * AP_SECOND};
	begin_idle(1, 1);
	STEP(.type = MACHINE_ACQUIRE, .request = &a);
	settle();
	later(9 * AP_SECOND);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), 0);
	later(9 * AP_SECOND);
	assert_true(machine_slot_leased(slot_of(&a)));
}

static void renew_of_an_ended_lease(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	assert_int_equal(STEP(.type = MACHINE_RENEW, .slot = a.slot, .token = a.token), -ESTALE);
}

static void grants_are_counted_on_every_path(void **state)
{
	struct machine_request a, b, c;
	begin_idle(1, 2);
	lease(&a, "a"); /* idle */
	lease(&b, "b"); /* spawned for it */
	acquire(&c, "c", 100 * AP_SECOND);
	release(&a); /* handed over */
	assert_granted(&c);
	assert_int_equal(machine.view.n_grants, 3);
}

static void counters_do_not_fall(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_KILL, .slot = a.slot);
	settle();
	assert_int_equal(machine.view.n_grants, 1);
	assert_int_equal(machine.view.n_spawned, 2);
	assert_int_equal(machine.view.n_terminated, 1);
}

static void capacity_survives_many_leases(void **state)
{
	struct machine_request a, b, c;
	begin_idle(2, 2);
	machine.view.limits.recycling.max_requests = 2;
	for (int i = 0; i < 20; i++) {
		lease(&a, "a");
		release(&a);
	}
	assert_int_equal(count(AP_AGENT_IDLE), 2);
	lease(&a, "a");
	lease(&b, "b");
	assert_int_equal(acquire(&c, "c", 0), 0);
	assert_int_equal(c.result, -EAGAIN);
}

/* --- validation and saving --- */

static void failed_agent_goes_unnoticed(void **state)
{
	struct machine_request a;
	begin_idle(2, 2);
	acquire(&a, "a", 100 * AP_SECOND);
	struct machine_effect validate = take(EFFECT_VALIDATE);
	assert_int_equal(finish(validate, -ECHILD), 0);
	assert_int_equal(a.state, REQUEST_VALIDATING);
	settle();
	assert_granted(&a);
	assert_int_not_equal(a.slot, validate.slot);
}

static void failed_agent_keeps_the_place_in_the_queue(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 1);
	acquire(&a, "a", 100 * AP_SECOND);
	acquire(&b, "b", 100 * AP_SECOND);
	finish(take(EFFECT_VALIDATE), -ECHILD);
	settle();
	assert_granted(&a);
	assert_int_equal(b.state, REQUEST_WAITING);
}

static void second_failed_agent_is_the_answer(void **state)
{
	struct machine_request a;
	begin_idle(3, 3);
	acquire(&a, "a", 100 * AP_SECOND);
	finish(take(EFFECT_VALIDATE), -ENOTDIR);
	finish(take(EFFECT_VALIDATE), -ENOTDIR);
	assert_int_equal(a.state, REQUEST_ANSWERED);
	assert_int_equal(a.result, -EIO);
	assert_null(machine_find_label(&machine.view, "a"));
}

static void killed_programs_do_not_open_the_breaker(void **state)
{
	struct machine_request a;
	begin_idle(3, 3);
	acquire(&a, "a", 100 * AP_SECOND);
	for (unsigned i = 0; i < 3; i++)
		finish(take(EFFECT_VALIDATE), MACHINE_KILLED);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_CLOSED);
	assert_int_equal(a.state, REQUEST_WAITING);
	settle();
	assert_granted(&a);
}

static void ended_programs_fail_nobody(void **state)
{
	struct machine_request a;
	begin_idle(3, 3);
	acquire(&a, "a", 100 * AP_SECOND);
	for (unsigned i = 0; i < 3; i++)
		finish(take(EFFECT_VALIDATE), -ECHILD);
	assert_int_equal(a.state, REQUEST_WAITING);
	settle();
	assert_granted(&a);
}

static void acquirers_fault(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", 100 * AP_SECOND);
	finish(take(EFFECT_VALIDATE), -EBUSY);
	assert_int_equal(a.result, -EBUSY);
	assert_int_equal(reason_to(AP_AGENT_IDLE), AP_REASON_REFUSED);
	assert_null(machine_find_label(&machine.view, "a"));
}

static void unsaved_is_quarantined(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	finish(take(EFFECT_SAVE), -EIO);
	assert_int_equal(r.result, -EIO);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_QUARANTINED);
	assert_int_equal(n_under_way, 0); /* its worktree is not touched */
	assert_ptr_equal(machine_find_label(&machine.view, "job"), slot_of(&a));
}

static void quarantined_counts_against_the_maximum(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), -EIO);
	acquire(&b, "b", 100 * AP_SECOND);
	assert_int_equal(b.state, REQUEST_WAITING);
	assert_int_equal(machine_total(&machine.view), 1);
}

static void quarantined_is_saved_later(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), -EIO);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r), 0);
	assert_int_equal(finish(take(EFFECT_SAVE), 0), 0);
	assert_granted(&r);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
	assert_false(take(EFFECT_STOP).keep);
}

/* --- what a state may last --- */

static void overdue_spawning(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	struct machine_effect spawn = take(EFFECT_SPAWN);
	assert_true(machine.view.wake_ns <= now + 60 * AP_SECOND);
	later(60 * AP_SECOND - 1);
	assert_int_equal(machine.view.slots[spawn.slot].state, AP_AGENT_SPAWNING);
	later(1);
	assert_int_equal(machine.view.slots[spawn.slot].state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_TIMEOUT);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 1);
	assert_int_equal(finish(spawn, 0), -ESTALE);
	assert_int_equal(machine.view.slots[spawn.slot].state, AP_AGENT_STOPPING);
	assert_int_equal(machine.view.n_spawned, 0);
}

static void overdue_validating(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", 1000 * AP_SECOND);
	struct machine_effect validate = take(EFFECT_VALIDATE);
	later(60 * AP_SECOND - 1);
	assert_int_equal(machine.view.slots[validate.slot].state, AP_AGENT_VALIDATING);
	later(1);
	assert_int_equal(reason_to(AP_AGENT_UNHEALTHY), AP_REASON_TIMEOUT);
	assert_int_equal(machine.view.slots[validate.slot].state, AP_AGENT_RECYCLING);
	assert_int_equal(a.state, REQUEST_WAITING);
	assert_int_equal(finish(validate, 0), -ESTALE);
	assert_int_equal(a.state, REQUEST_WAITING);
	settle();
	assert_granted(&a);
}

static void overdue_saving(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	struct machine_effect save = take(EFFECT_SAVE);
	later(600 * AP_SECOND - 1);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
	later(1);
	assert_int_equal(r.result, -ETIMEDOUT);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_QUARANTINED);
	assert_int_equal(reason_to(AP_AGENT_QUARANTINED), AP_REASON_UNSAVED);
	assert_int_equal(finish(save, 0), -ESTALE);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_QUARANTINED);
}

static void overdue_saving_again(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), -EIO);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	struct machine_effect save = take(EFFECT_SAVE);
	later(600 * AP_SECOND);
	assert_int_equal(r.result, -ETIMEDOUT);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_QUARANTINED);
	assert_int_equal(finish(save, 0), -ESTALE);
}

static void overdue_recycling(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), 0);
	struct machine_effect recycle = take(EFFECT_RECYCLE);
	later(60 * AP_SECOND - 1);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_RECYCLING);
	later(1);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_TIMEOUT);
	assert_int_equal(finish(recycle, 0), -ESTALE);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
}

static void overdue_draining(void **state)
{
	begin_idle(2, 2);
	machine.view.limits.min_size = machine.view.limits.scaling.min_size = 1;
	STEP(.type = MACHINE_DRAIN);
	struct machine_effect drain = take(EFFECT_DRAIN);
	later(60 * AP_SECOND - 1);
	assert_int_equal(machine.view.slots[drain.slot].state, AP_AGENT_DRAINING);
	later(1);
	assert_int_equal(machine.view.slots[drain.slot].state, AP_AGENT_STOPPING);
	assert_int_equal(finish(drain, 0), -ESTALE);
	assert_int_equal(machine.view.slots[drain.slot].state, AP_AGENT_STOPPING);
	assert_int_equal(n_effects(EFFECT_STOP), 1);
}

static void overdue_stopping(void **state)
{
	begin_idle(1, 1);
	STEP(.type = MACHINE_KILL, .slot = index_of(first_in(AP_AGENT_IDLE)));
	struct machine_effect stop = take(EFFECT_STOP);
	for (int i = 0; i < 3; i++) {
		later(120 * AP_SECOND);
		assert_int_equal(machine.view.slots[stop.slot].state, AP_AGENT_STOPPING);
	}
	assert_int_equal(machine_total(&machine.view), 1); /* what may live is not spawned beside */
	assert_int_equal(finish(stop, 0), 0);
	assert_int_equal(machine.view.n_terminated, 1);
}

static void resting_states_have_no_deadline(void **state)
{
	struct machine_request a;
	begin_idle(2, 2);
	lease(&a, "a");
	later(DAY);
	settle();
	assert_true(machine_slot_leased(slot_of(&a)));
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_int_equal(machine.view.n_terminated, 0);
}

static void outcome_of_an_other_effect(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	struct machine_effect spawn = take(EFFECT_SPAWN);
	spawn.id++;
	assert_int_equal(finish(spawn, 0), -ESTALE);
	assert_int_equal(count(AP_AGENT_SPAWNING), 1);
}

/* --- recycling --- */

static void recycles_at_release_by_requests(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	machine.view.limits.recycling.max_requests = 2;
	lease(&a, "a");
	release(&a);
	assert_int_equal(machine.view.n_recycled, 0);
	lease(&a, "a");
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), 0);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_REQUESTS);
	settle();
	assert_int_equal(machine.view.n_recycled, 1);
	assert_int_equal(slot_of(&a)->generation, 2);
	assert_int_equal(slot_of(&a)->n_served, 0);
	assert_int_equal(slot_of(&a)->n_requests, 2);
}

static void cleaning_is_no_recycling(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	release(&a);
	assert_int_equal(machine.view.n_recycled, 0);
	assert_int_equal(slot_of(&a)->generation, 1);
	assert_int_equal(slot_of(&a)->n_recycles, 0);
}

static void recycling_keeps_the_name(void **state)
{
	begin_idle(1, 1);
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	unsigned number = slot->number;
	STEP(.type = MACHINE_RECYCLE, .slot = index_of(slot));
	settle();
	assert_int_equal(slot->number, number);
	assert_int_equal(slot->generation, 2);
	assert_int_equal(slot->n_recycles, 1);
	assert_int_equal(machine.view.n_spawned, 1);
}

static void recycles_by_age(void **state)
{
	begin(1, 1);
	machine.view.limits.recycling.max_age_ns = 3600 * AP_SECOND;
	warm();
	assert_true(machine.view.wake_ns <= now + 3600 * AP_SECOND);
	later(3239 * AP_SECOND); /* under nine tenths: whatever the jitter */
	settle();
	assert_int_equal(machine.view.n_recycled, 0);
	later(361 * AP_SECOND);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_AGE);
	settle();
	assert_int_equal(machine.view.n_recycled, 1);
	later(3239 * AP_SECOND); /* its age began anew */
	settle();
	assert_int_equal(machine.view.n_recycled, 1);
}

static void ages_are_spread(void **state)
{
	begin(10, 10);
	warm();
	for (unsigned i = 1; i < N_SLOTS / 2; i++)
		assert_int_not_equal(machine.view.slots[i].jitter,
				     machine.view.slots[i - 1].jitter);
}

static void age_is_drawn_once_a_generation(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	uint16_t jitter = first_in(AP_AGENT_IDLE)->jitter;
	lease(&a, "a");
	later(30 * AP_SECOND);
	settle();
	release(&a);
	assert_int_equal(slot_of(&a)->jitter, jitter);
	STEP(.type = MACHINE_RECYCLE, .slot = a.slot);
	settle();
	assert_int_not_equal(slot_of(&a)->jitter, jitter);
}

static void wakes_for_age(void **state)
{
	begin(1, 1);
	machine.view.limits.recycling.max_age_ns = 100 * AP_SECOND;
	machine.view.limits.pass_ns = 1000 * AP_SECOND;
	warm();
	for (int i = 0; i < 10 && machine.view.n_recycled == 0; i++) {
		later(machine.view.wake_ns - now);
		settle();
	}
	assert_int_equal(machine.view.n_recycled, 1);
	assert_true(now <= 1100 * AP_SECOND);
}

static void active_is_recycled_at_release(void **state)
{
	struct machine_request a;
	begin(1, 1);
	machine.view.limits.recycling.max_age_ns = 3600 * AP_SECOND;
	warm();
	lease(&a, "a");
	later(3700 * AP_SECOND);
	settle();
	assert_true(machine_slot_leased(slot_of(&a)));
	assert_int_equal(slot_of(&a)->recycle, AP_REASON_AGE);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	struct machine_effect save = take(EFFECT_SAVE);
	assert_true(save.restart);
	finish(save, 0);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_AGE);
	assert_true(take(EFFECT_RECYCLE).restart);
}

static struct machine_effect probe(void)
{
	STEP(.type = MACHINE_PASS);
	return take(EFFECT_PROBE);
}

static int usage(struct machine_effect effect, uint64_t memory, unsigned cpu)
{
	return STEP(.type = MACHINE_PROBED, .slot = effect.slot, .effect = effect.id,
		    .memory = memory, .cpu = cpu);
}

static void recycles_by_memory(void **state)
{
	begin_idle(1, 1);
	machine.view.limits.recycling.max_memory = 1000;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(machine.view.n_in_state[AP_AGENT_RECYCLING], 0);
		assert_int_equal(usage(probe(), 1001, 0), 0);
	}
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_MEMORY);
}

static void memory_in_a_row(void **state)
{
	begin_idle(1, 1);
	machine.view.limits.recycling.max_memory = 1000;
	usage(probe(), 1001, 0);
	usage(probe(), 1001, 0);
	usage(probe(), 1000, 0);
	usage(probe(), 1001, 0);
	usage(probe(), 1001, 0);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
}

static void recycles_by_cpu(void **state)
{
	begin_idle(1, 1);
	machine.view.limits.recycling.max_cpu = 80;
	usage(probe(), 0, 80);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	usage(probe(), 0, 81);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_CPU);
}

static void recycles_when_asked(void **state)
{
	begin_idle(1, 1);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = index_of(first_in(AP_AGENT_IDLE))),
			 0);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_ASKED);
	assert_true(take(EFFECT_RECYCLE).restart);
}

static void recycles_an_active_when_asked(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = a.slot), 0);
	assert_true(machine_slot_leased(slot_of(&a)));
	release(&a);
	assert_int_equal(machine.view.n_recycled, 1);
}

/* What a lease leaves is cleaned and the program kept: that is not what was asked for. */
static void recycles_one_that_is_cleaned_when_asked(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	machine.view.limits.keep_program = true;
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot), 0);
	assert_int_equal(finish(take(EFFECT_SAVE), 0), 0);
	struct machine_effect cleaning = take(EFFECT_RECYCLE);
	assert_false(cleaning.restart);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = a.slot), 0);
	assert_int_equal(finish(cleaning, 0), 0);
	struct machine_effect recycling = take(EFFECT_RECYCLE);
	assert_true(recycling.restart);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = a.slot), 0); /* this is it */
	assert_int_equal(finish(recycling, 0), 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_IDLE);
	assert_int_equal(machine.view.n_recycled, 1);
	assert_int_equal(n_effects(EFFECT_RECYCLE), 0);
}

/* Who asked may be the one who waits: the cleaning began before he asked. */
static void recycles_one_that_is_cleaned_before_it_serves(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = a.slot), 0);
	assert_int_equal(finish(take(EFFECT_SAVE), 0), 0);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = a.slot), 0);
	assert_int_equal(acquire(&b, "next", 60 * AP_SECOND), 0);
	assert_int_equal(finish(take(EFFECT_RECYCLE), 0), 0);
	assert_int_equal(n_effects(EFFECT_VALIDATE), 0);
	assert_int_equal(finish(take(EFFECT_RECYCLE), 0), 0);
	assert_int_equal(n_effects(EFFECT_VALIDATE), 1);
	assert_int_equal(machine.view.n_recycled, 1);
}

static void recycling_of_an_ending_agent(void **state)
{
	begin_idle(1, 1);
	unsigned slot = index_of(first_in(AP_AGENT_IDLE));
	STEP(.type = MACHINE_KILL, .slot = slot);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = slot), -EBUSY);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = N_SLOTS - 1), -ENOENT);
}

static void unhealthy_is_recycled_in_place(void **state)
{
	begin_idle(1, 1);
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	unsigned number = slot->number;
	finish(probe(), -ECHILD);
	assert_int_equal(slot->state, AP_AGENT_RECYCLING);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_UNHEALTHY);
	settle();
	assert_int_equal(slot->number, number);
	assert_int_equal(slot->n_recycles, 1);
}

static void ill_from_its_start_is_stopped(void **state)
{
	begin(1, 1);
	warm();
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	finish(probe(), -ECHILD);
	assert_int_equal(slot->state, AP_AGENT_STOPPING);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 1);
}

static void ill_while_leased_is_left_alone(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	assert_int_equal(finish(probe(), -ECHILD), 0);
	assert_true(machine_slot_leased(slot_of(&a)));
}

static void one_of_few_at_once(void **state)
{
	begin(5, 5);
	machine.view.limits.recycling.max_age_ns = 1000 * AP_SECOND;
	warm();
	later(1100 * AP_SECOND);
	assert_int_equal(machine.view.n_marked, 5);
	assert_int_equal(count(AP_AGENT_RECYCLING), 1);
	finish(take(EFFECT_RECYCLE), 0);
	assert_int_equal(count(AP_AGENT_RECYCLING), 1);
	assert_int_equal(machine.view.n_recycled, 1);
	settle();
	assert_int_equal(machine.view.n_recycled, 5);
}

static void a_tenth_of_many_at_once(void **state)
{
	begin(20, 20);
	machine.view.limits.recycling.max_age_ns = 1000 * AP_SECOND;
	warm();
	later(1100 * AP_SECOND);
	assert_int_equal(count(AP_AGENT_RECYCLING), 2);
}

static void asked_for_are_not_held_up(void **state)
{
	begin_idle(3, 3);
	for (unsigned i = 0; i < 3; i++)
		STEP(.type = MACHINE_RECYCLE, .slot = i);
	assert_int_equal(count(AP_AGENT_RECYCLING), 3);
}

static void marked_still_serve(void **state)
{
	struct machine_request a;
	begin(2, 2);
	machine.view.limits.recycling.max_age_ns = 1000 * AP_SECOND;
	warm();
	later(1100 * AP_SECOND); /* one is recycled, the other waits for its turn */
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	acquire(&a, "a", AP_SECOND);
	finish(take(EFFECT_VALIDATE), 0);
	assert_granted(&a);
}

static void replaced_when_recycled_often(void **state)
{
	begin_idle(1, 1);
	machine.view.limits.recycling.max_recycles = 2;
	unsigned number = first_in(AP_AGENT_IDLE)->number;
	for (int i = 0; i < 2; i++) {
		STEP(.type = MACHINE_RECYCLE, .slot = index_of(first_in(AP_AGENT_IDLE)));
		settle();
		assert_int_equal(first_in(AP_AGENT_IDLE)->number, number);
	}
	STEP(.type = MACHINE_RECYCLE, .slot = index_of(first_in(AP_AGENT_IDLE)));
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_RECYCLES);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_int_not_equal(first_in(AP_AGENT_IDLE)->number, number);
	assert_int_equal(first_in(AP_AGENT_IDLE)->n_recycles, 0);
}

static void unhealthy_and_recycled_often(void **state)
{
	begin_idle(1, 1);
	machine.view.limits.recycling.max_recycles = 1;
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	((struct machine_slot *)slot)->n_recycles = 1;
	finish(probe(), -ECHILD);
	assert_int_equal(slot->state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_RECYCLES);
}

static void failed_recycling_is_replaced(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	unsigned number = slot_of(&a)->number;
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), 0);
	finish(take(EFFECT_RECYCLE), -EIO);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_FAILED);
	assert_int_equal(machine.view.spawn_error, -EIO);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 1);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_int_not_equal(first_in(AP_AGENT_IDLE)->number, number);
}

static void no_limit_no_recycling(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	machine.view.limits.recycling = (struct recycling_limits){0};
	for (int i = 0; i < 50; i++) {
		lease(&a, "a");
		usage(probe(), UINT64_MAX, 1000);
		release(&a);
	}
	later(400 * DAY);
	settle();
	assert_int_equal(machine.view.n_recycled, 0);
	assert_int_equal(machine.view.n_terminated, 0);
}

/* --- quota of prompts --- */

static void prompts_over_quota(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	machine.view.limits.max_prompts = 2;
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), 0);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), 0);
	assert_int_equal(machine_may_prompt(&machine.view, slot_of(&a), a.token, now), -EDQUOT);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), -EDQUOT);
	assert_true(machine_slot_leased(slot_of(&a)));
}

static void prompts_again_next_day(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	machine.view.limits.max_prompts = 1;
	STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token);
	now += DAY - 1;
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), -EDQUOT);
	now += 1;
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), 0);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), -EDQUOT);
}

static void quota_outlives_leases(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	machine.view.limits.max_prompts = 1;
	STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token);
	release(&a);
	lease(&a, "b");
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = a.slot, .token = a.token), -EDQUOT);
}

/* --- size --- */

static void warm_minimum(void **state)
{
	begin(3, 10);
	STEP(.type = MACHINE_CONFIG);
	assert_int_equal(n_effects(EFFECT_SPAWN), 2); /* max_spawning */
	finish(take(EFFECT_SPAWN), 0);
	assert_int_equal(n_effects(EFFECT_SPAWN), 2);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 3);
	assert_int_equal(machine.view.n_spawned, 3);
	assert_int_equal(machine.view.scale_direction, AP_SCALE_NONE);
}

static void never_over_the_maximum(void **state)
{
	struct machine_request requests[64];
	begin(1, 4);
	machine.view.limits.max_spawning = 10;
	warm();
	for (int i = 0; i < 64; i++) {
		assert_int_equal(acquire(&requests[i], "", 100 * AP_SECOND), 0);
		assert_true(machine_total(&machine.view) <= 4);
	}
	settle();
	assert_int_equal(count(AP_AGENT_ACTIVE), 4);
	assert_int_equal(machine.view.n_waiting, 60);
}

static void ending_agents_count(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	STEP(.type = MACHINE_KILL, .slot = index_of(first_in(AP_AGENT_IDLE)));
	acquire(&a, "a", 100 * AP_SECOND);
	assert_int_equal(machine_total(&machine.view), 1);
	assert_int_equal(n_effects(EFFECT_SPAWN), 0);
	finish(take(EFFECT_STOP), 0);
	assert_int_equal(n_effects(EFFECT_SPAWN), 1);
}

static void utilization_up_at_once(void **state)
{
	struct machine_request a;
	begin_idle(1, 10);
	lease(&a, "a");
	assert_int_equal(machine_total(&machine.view), 2);
	assert_int_equal(machine.view.scale_direction, AP_SCALE_UP);
	assert_int_equal(machine.view.scaled_ns, now);
}

static void utilization_at_its_bound(void **state)
{
	struct machine_request requests[5];
	begin_idle(5, 10);
	for (int i = 0; i < 4; i++)
		lease(&requests[i], "");
	assert_int_equal(machine_total(&machine.view), 5); /* 80 % */
	lease(&requests[4], "");
	assert_true(machine_total(&machine.view) > 5);
}

static void slow_starts_are_capacity(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 10);
	acquire(&a, "a", 100 * AP_SECOND);
	acquire(&b, "b", 100 * AP_SECOND);
	unsigned total = machine_total(&machine.view);
	for (int i = 0; i < 10; i++)
		STEP(.type = MACHINE_TIMER);
	assert_int_equal(machine_total(&machine.view), total);
}

static void utilization_down_by_steps(void **state)
{
	begin_idle(1, 10);
	scale(5);
	scale(-1);
	assert_int_equal(count(AP_AGENT_IDLE), 5);
	assert_true(machine.view.wake_ns <= now + 300 * AP_SECOND);
	later(300 * AP_SECOND - 1);
	settle();
	assert_int_equal(machine_total(&machine.view), 5);
	for (unsigned n = 4; n > 0; n--) {
		later(n == 4 ? 1 : 300 * AP_SECOND);
		assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_SCALE);
		settle();
		assert_int_equal(machine_total(&machine.view), n);
	}
	assert_int_equal(machine.view.scale_direction, AP_SCALE_DOWN);
	later(300 * AP_SECOND);
	settle();
	assert_int_equal(machine_total(&machine.view), 1);
}

static void load_begins_the_window_anew(void **state)
{
	struct machine_request a;
	begin_idle(1, 10);
	scale(4);
	scale(-1);
	later(200 * AP_SECOND);
	settle();
	lease(&a, "a"); /* 25 % */
	release(&a);
	later(200 * AP_SECOND);
	settle();
	assert_int_equal(machine_total(&machine.view), 4);
	later(100 * AP_SECOND);
	settle();
	assert_int_equal(machine_total(&machine.view), 3);
}

static void no_window_no_delay(void **state)
{
	begin_idle(1, 10);
	machine.view.limits.scale_down_window_ns = 0;
	machine.view.limits.policy = SCALING_SPARE;
	scale(5);
	scale(-1);
	assert_int_equal(machine_total(&machine.view), 2); /* max_idle */
}

static void spare_keeps_min_idle(void **state)
{
	struct machine_request requests[4];
	begin(1, 10);
	machine.view.limits.policy = SCALING_SPARE;
	machine.view.limits.scaling.min_idle = 2;
	machine.view.limits.scaling.max_idle = 3;
	warm();
	assert_int_equal(count(AP_AGENT_IDLE), 2);
	for (int i = 0; i < 4; i++) {
		lease(&requests[i], "");
		assert_int_equal(count(AP_AGENT_IDLE), 2);
	}
}

static void spare_trims_to_max_idle(void **state)
{
	struct machine_request requests[4];
	begin(1, 10);
	machine.view.limits.policy = SCALING_SPARE;
	machine.view.limits.scaling.min_idle = 2;
	machine.view.limits.scaling.max_idle = 3;
	warm();
	for (int i = 0; i < 4; i++)
		lease(&requests[i], "");
	for (int i = 0; i < 4; i++)
		release(&requests[i]);
	assert_int_equal(count(AP_AGENT_IDLE), 6);
	for (int i = 0; i < 10; i++) {
		later(300 * AP_SECOND);
		settle();
	}
	assert_int_equal(count(AP_AGENT_IDLE), 3);
}

static void manual_target(void **state)
{
	begin_idle(1, 10);
	scale(5);
	assert_int_equal(count(AP_AGENT_IDLE), 5);
	later(4000 * AP_SECOND); /* the policy is not asked */
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 5);
	scale(2);
	assert_int_equal(machine_total(&machine.view), 2);
}

static void desired_size_is_what_the_pool_goes_to(void **state)
{
	struct machine_request a, b, c, d;
	begin_idle(1, 3);
	assert_int_equal(machine_desired(&machine.view), 1);
	acquire(&a, "a", 100 * AP_SECOND); /* by the one that idles: utilization is 100 % */
	assert_int_equal(machine_desired(&machine.view), 2);
	settle();
	acquire(&b, "b", 100 * AP_SECOND);
	acquire(&c, "c", 100 * AP_SECOND);
	acquire(&d, "d", 100 * AP_SECOND);
	assert_int_equal(machine_desired(&machine.view), 3); /* of max_size, whoever waits */
	scale(2);
	assert_int_equal(machine_desired(&machine.view), 2);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(machine_desired(&machine.view), 0);
}

static void a_smaller_size_is_desired_before_it_is_gone_to(void **state)
{
	begin_idle(1, 10);
	scale(5);
	scale(-1);
	assert_int_equal(machine_total(&machine.view), 5);
	assert_int_equal(machine_desired(&machine.view), 4);
}

static void target_is_not_exceeded_by_demand(void **state)
{
	struct machine_request a, b, c;
	begin_idle(1, 10);
	scale(2);
	lease(&a, "a");
	lease(&b, "b");
	acquire(&c, "c", AP_SECOND);
	assert_int_equal(machine_total(&machine.view), 2);
	assert_int_equal(c.state, REQUEST_WAITING);
}

static void target_out_of_range(void **state)
{
	begin_idle(1, 4);
	assert_int_equal(STEP(.type = MACHINE_SCALE, .target = 5), -ERANGE);
	assert_int_equal(STEP(.type = MACHINE_SCALE, .target = 0), -ERANGE);
	assert_int_equal(machine.view.target, -1);
}

static void target_follows_the_limits(void **state)
{
	begin_idle(1, 10);
	scale(8);
	machine.view.limits.max_size = 3;
	warm();
	assert_int_equal(machine.view.target, 3);
	assert_int_equal(machine_total(&machine.view), 3);
}

static void spares_the_leased(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 4);
	scale(4);
	lease(&a, "a");
	lease(&b, "b");
	scale(1);
	assert_int_equal(machine_total(&machine.view), 2);
	assert_true(machine_slot_leased(slot_of(&a)));
	assert_true(machine_slot_leased(slot_of(&b)));
	release(&a);
	assert_int_equal(machine_total(&machine.view), 1);
}

static void drains_the_idle(void **state)
{
	struct machine_request a;
	begin_idle(1, 10);
	scale(5);
	scale(-1);
	lease(&a, "a");
	STEP(.type = MACHINE_DRAIN);
	assert_int_equal(count(AP_AGENT_DRAINING), 4);
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_DRAIN);
	assert_true(machine_slot_leased(slot_of(&a)));
}

static void drains_to_the_minimum(void **state)
{
	begin_idle(2, 10);
	scale(5);
	scale(-1);
	STEP(.type = MACHINE_DRAIN);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 2);
}

static void draining_serves_nobody(void **state)
{
	struct machine_request a;
	begin_idle(1, 2);
	scale(2);
	scale(-1);
	STEP(.type = MACHINE_DRAIN);
	struct machine_effect drain = take(EFFECT_DRAIN);
	lease(&a, "a");
	assert_int_not_equal(a.slot, drain.slot);
}

static void lower_maximum_retires(void **state)
{
	begin_idle(1, 10);
	scale(6);
	scale(-1);
	machine.view.limits.max_size = 3;
	warm();
	assert_int_equal(machine_total(&machine.view), 3);
}

static void shrinks_when_idle(void **state)
{
	begin_idle(1, 10);
	machine.view.limits.idle_timeout_ns = 300 * AP_SECOND;
	machine.view.limits.scale_down_window_ns = DAY;
	scale(5);
	scale(-1);
	later(290 * AP_SECOND);
	settle();
	assert_int_equal(machine_total(&machine.view), 5);
	later(30 * AP_SECOND);
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_IDLE);
	settle();
	assert_int_equal(machine_total(&machine.view), 1);
	assert_int_equal(machine.view.n_terminated, 4);
}

static void idles_from_its_return(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 2);
	machine.view.limits.idle_timeout_ns = 300 * AP_SECOND;
	machine.view.limits.scale_down_window_ns = DAY;
	lease(&a, "a");
	lease(&b, "b");
	later(3000 * AP_SECOND);
	settle();
	release(&a);
	release(&b);
	later(30 * AP_SECOND);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 2);
}

static void longest_idle_goes_first(void **state)
{
	struct machine_request a;
	begin_idle(1, 3);
	scale(3);
	lease(&a, "a");
	release(&a);
	scale(1);
	assert_ptr_equal(first_in(AP_AGENT_IDLE), slot_of(&a));
}

static void idle_timeout_leaves_the_spare(void **state)
{
	begin(1, 10);
	machine.view.limits.policy = SCALING_SPARE;
	machine.view.limits.scaling.min_idle = 3;
	machine.view.limits.scaling.max_idle = 5;
	machine.view.limits.idle_timeout_ns = 300 * AP_SECOND;
	warm();
	later(1000 * AP_SECOND);
	settle();
	assert_int_equal(machine.view.n_terminated, 0);
	assert_int_equal(count(AP_AGENT_IDLE), 3);
}

static void counts_are_those_of_now(void **state)
{
	struct machine_request a, b;
	begin_idle(2, 2);
	lease(&a, "a");
	acquire(&b, "b", AP_SECOND);
	struct scaling_sample sample = machine_sample(&machine.view);
	assert_int_equal(sample.n_active, 2);
	assert_int_equal(sample.n_idle, 0);
	assert_int_equal(sample.n_coming, 0);
	assert_int_equal(sample.n_waiting, 0);
}

/* --- maintenance passes --- */

static void pass_probes(void **state)
{
	struct machine_request a;
	begin_idle(2, 2);
	lease(&a, "a");
	later(machine.view.pass_due_ns - now);
	assert_int_equal(n_effects(EFFECT_PROBE), 2);
	assert_int_equal(machine.view.n_in_state[AP_AGENT_IDLE], 1); /* beside what they do */
}

static void pass_does_not_probe_the_coming(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	STEP(.type = MACHINE_PASS);
	assert_int_equal(n_effects(EFFECT_PROBE), 0);
}

static void probe_of_before_is_stale(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	struct machine_effect old = probe();
	acquire(&a, "a", AP_SECOND);
	assert_int_equal(finish(old, -ECHILD), -ESTALE);
	settle();
	assert_granted(&a);
}

static void fixed_interval(void **state)
{
	begin_idle(1, 1);
	for (int i = 0; i < 10; i++) {
		later(machine.view.pass_due_ns - now);
		settle();
		assert_int_equal(machine.view.pass_due_ns - now, 30 * AP_SECOND);
	}
}

static void quiet_passes_lengthen(void **state)
{
	begin(1, 1);
	machine.view.limits.pass_ns = 0;
	warm();
	STEP(.type = MACHINE_PASS); /* takes note of the start */
	int64_t first = machine.view.pass_ns;
	STEP(.type = MACHINE_PASS);
	STEP(.type = MACHINE_PASS);
	assert_int_equal(machine.view.pass_ns, first);
	STEP(.type = MACHINE_PASS);
	assert_int_equal(machine.view.pass_ns, first / 2 * 3);
	for (int i = 0; i < 30; i++)
		STEP(.type = MACHINE_PASS);
	assert_int_equal(machine.view.pass_ns, 120 * AP_SECOND);
	assert_int_equal(machine.view.pass_due_ns, now + 120 * AP_SECOND);
}

static void busy_passes_shorten(void **state)
{
	struct machine_request a;
	begin(1, 1);
	machine.view.limits.pass_ns = 0;
	warm();
	STEP(.type = MACHINE_PASS);
	int64_t last = machine.view.pass_ns;
	for (int i = 0; i < 10; i++) {
		settle();
		lease(&a, "a");
		release(&a);
		STEP(.type = MACHINE_PASS);
		assert_int_equal(machine.view.pass_ns, last / 2 > AP_SECOND ? last / 2 : AP_SECOND);
		last = machine.view.pass_ns;
	}
	assert_int_equal(last, AP_SECOND);
}

static void shorter_interval_holds_at_once(void **state)
{
	begin_idle(1, 1);
	machine.view.limits.pass_ns = 2 * AP_SECOND;
	STEP(.type = MACHINE_CONFIG);
	assert_true(machine.view.pass_due_ns <= now + 2 * AP_SECOND);
	assert_true(machine.view.wake_ns <= machine.view.pass_due_ns);
}

/* --- the breaker --- */

static void fail_spawns(int n)
{
	for (int i = 0; i < n; i++) {
		assert_int_equal(finish(take(EFFECT_SPAWN), -ENOSPC), 0);
		assert_int_equal(finish(take(EFFECT_STOP), 0), 0);
	}
}

/* No agent, and no start before the retry. */
static void begin_broken(unsigned max)
{
	begin(1, max);
	STEP(.type = MACHINE_CONFIG);
	fail_spawns(3);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_OPEN);
}

static void breaker_opens(void **state)
{
	begin_broken(1);
	assert_int_equal(machine_total(&machine.view), 0);
	assert_int_equal(n_effects(EFFECT_SPAWN), 0);
	assert_int_equal(machine.view.spawn_error, -ENOSPC);
	assert_int_equal(machine.view.n_spawned, 0);
	assert_int_equal(machine.view.n_terminated, 0);
}

static void broken_serves_nobody(void **state)
{
	struct machine_request a;
	begin_broken(1);
	assert_int_equal(acquire(&a, "a", 100 * AP_SECOND), 0);
	assert_int_equal(a.state, REQUEST_ANSWERED);
	assert_int_equal(a.result, -EHOSTDOWN);
}

static void breaking_refuses_who_waits(void **state)
{
	struct machine_request a;
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	acquire(&a, "a", 100 * AP_SECOND);
	fail_spawns(2);
	assert_int_equal(a.state, REQUEST_WAITING);
	fail_spawns(1);
	assert_int_equal(a.result, -EHOSTDOWN);
}

static void failed_spawn_is_repeated(void **state)
{
	struct machine_request a;
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	acquire(&a, "a", 100 * AP_SECOND);
	finish(take(EFFECT_SPAWN), -ENOSPC);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_FAILED);
	settle();
	assert_granted(&a);
}

static void half_open_lets_one(void **state)
{
	begin_broken(10);
	machine.view.limits.min_size = 5;
	assert_true(machine.view.wake_ns <= machine.view.hosts[0].breaker.retry_ns);
	later(machine.view.hosts[0].breaker.retry_ns - now);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_HALF_OPEN);
	assert_int_equal(n_effects(EFFECT_SPAWN), 1);
	finish(take(EFFECT_SPAWN), 0);
	assert_int_equal(n_effects(EFFECT_SPAWN), 0); /* not before it has lived a while */
	later(5 * AP_SECOND - 1);
	assert_int_equal(n_effects(EFFECT_SPAWN), 0);
	later(1);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_CLOSED);
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 5);
}

static void half_open_opens_again(void **state)
{
	begin_broken(1);
	later(machine.view.hosts[0].breaker.retry_ns - now);
	fail_spawns(1);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_OPEN);
	assert_true(machine.view.hosts[0].breaker.retry_ns > now);
	assert_true(machine.view.wake_ns <= machine.view.hosts[0].breaker.retry_ns);
}

static void early_exits_open_the_breaker(void **state)
{
	begin(1, 1);
	warm();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_CLOSED);
		STEP(.type = MACHINE_EXITED, .slot = index_of(first_in(AP_AGENT_IDLE)));
		settle();
	}
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_OPEN);
	assert_int_equal(machine_total(&machine.view), 0);
}

static void late_exits_do_not(void **state)
{
	begin_idle(1, 1);
	for (int i = 0; i < 10; i++) {
		STEP(.type = MACHINE_EXITED, .slot = index_of(first_in(AP_AGENT_IDLE)));
		settle();
		later(6 * AP_SECOND);
		settle();
	}
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_CLOSED);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 0);
}

static void breaker_is_reset(void **state)
{
	begin_broken(1);
	assert_int_equal(STEP(.type = MACHINE_RESET_BREAKER), 0);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_CLOSED);
	assert_int_equal(n_effects(EFFECT_SPAWN), 1);
}

static void retry_is_not_forgotten(void **state)
{
	begin_broken(1);
	host_at(0)->breaker.retry_ns = machine.view.pass_due_ns + AP_SECOND;
	later(machine.view.pass_due_ns - now);
	assert_true(machine.view.wake_ns <= machine.view.hosts[0].breaker.retry_ns);
}

/* --- the program ends by itself --- */

static int exits(unsigned slot)
{
	return STEP(.type = MACHINE_EXITED, .slot = slot);
}

static void exits_spawning(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	struct machine_effect spawn = take(EFFECT_SPAWN);
	exits(spawn.slot);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 1);
	finish(spawn, 0);
	assert_int_equal(machine.view.slots[spawn.slot].state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_EXITED);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 1);
}

static void exits_idle(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	exits(index_of(slot));
	assert_int_equal(reason_to(AP_AGENT_UNHEALTHY), AP_REASON_EXITED);
	assert_int_equal(slot->state, AP_AGENT_RECYCLING);
	acquire(&a, "a", 0); /* it is not handed out dead */
	assert_int_equal(a.result, -EAGAIN);
}

static void exits_validating(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", 100 * AP_SECOND);
	struct machine_effect validate = take(EFFECT_VALIDATE);
	exits(validate.slot);
	assert_int_equal(machine.view.slots[validate.slot].state, AP_AGENT_VALIDATING);
	finish(validate, -ECHILD);
	assert_int_equal(machine.view.slots[validate.slot].state, AP_AGENT_RECYCLING);
	settle();
	assert_granted(&a);
}

static void exits_active(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	exits(a.slot);
	assert_true(machine_slot_leased(slot_of(&a)));
	release(&a);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
}

static void exits_recycling(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), 0);
	exits(a.slot);
	finish(take(EFFECT_RECYCLE), 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_EXITED);
}

static void exits_quarantined(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), -EIO);
	exits(a.slot);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_QUARANTINED);
}

static void exits_ending(void **state)
{
	begin_idle(1, 2);
	scale(2);
	scale(-1);
	STEP(.type = MACHINE_DRAIN);
	struct machine_effect drain = take(EFFECT_DRAIN);
	exits(drain.slot);
	assert_int_equal(machine.view.slots[drain.slot].state, AP_AGENT_DRAINING);
	finish(drain, 0);
	exits(drain.slot);
	assert_int_equal(machine.view.slots[drain.slot].state, AP_AGENT_STOPPING);
	settle();
	exits(drain.slot);
	assert_int_equal(machine.view.slots[drain.slot].state, AP_AGENT_FREE);
	assert_int_equal(machine.view.n_terminated, 1);
}

/* --- kill --- */

static int kill_slot(unsigned slot)
{
	return STEP(.type = MACHINE_KILL, .slot = slot);
}

static void kills_nothing(void **state)
{
	begin_idle(1, 2);
	assert_int_equal(kill_slot(N_SLOTS - 1), -ENOENT);
}

static void kills_spawning(void **state)
{
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	struct machine_effect spawn = take(EFFECT_SPAWN);
	assert_int_equal(kill_slot(spawn.slot), 0);
	finish(spawn, 0);
	assert_int_equal(machine.view.slots[spawn.slot].state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_KILL);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 0);
}

static void kills_idle(void **state)
{
	begin_idle(1, 1);
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	assert_int_equal(kill_slot(index_of(slot)), 0);
	assert_int_equal(slot->state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_KILL);
}

static void kills_validating(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", AP_SECOND);
	assert_int_equal(kill_slot(a.slot), -EBUSY);
	settle();
	assert_granted(&a);
}

static void kills_active(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	assert_int_equal(kill_slot(a.slot), 0);
	assert_false(machine_slot_leased(slot_of(&a)));
	finish(take(EFFECT_SAVE), 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_KILL);
}

static void kills_released(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	assert_int_equal(kill_slot(a.slot), 0);
	assert_int_equal(n_effects(EFFECT_SAVE), 1);
	finish(take(EFFECT_SAVE), 0);
	assert_granted(&r);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
}

static void kills_recycling(void **state)
{
	begin_idle(1, 1);
	unsigned slot = index_of(first_in(AP_AGENT_IDLE));
	STEP(.type = MACHINE_RECYCLE, .slot = slot);
	assert_int_equal(kill_slot(slot), 0);
	finish(take(EFFECT_RECYCLE), 0);
	assert_int_equal(machine.view.slots[slot].state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_KILL);
}

static void kills_quarantined(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), -EIO);
	assert_int_equal(kill_slot(a.slot), 0);
	finish(take(EFFECT_SAVE), -EIO); /* still no room: the work is not lost */
	assert_int_equal(slot_of(&a)->state, AP_AGENT_QUARANTINED);
	assert_int_equal(kill_slot(a.slot), 0);
	finish(take(EFFECT_SAVE), 0);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
}

static void kills_draining(void **state)
{
	begin_idle(1, 2);
	scale(2);
	scale(-1);
	STEP(.type = MACHINE_DRAIN);
	struct machine_effect drain = take(EFFECT_DRAIN);
	assert_int_equal(kill_slot(drain.slot), 0);
	finish(drain, 0);
	settle();
	assert_int_equal(machine.view.n_terminated, 1);
}

static void kills_stopping(void **state)
{
	begin_idle(1, 1);
	unsigned slot = index_of(first_in(AP_AGENT_IDLE));
	kill_slot(slot);
	assert_int_equal(kill_slot(slot), 0);
	settle();
	assert_int_equal(machine.view.n_terminated, 1);
}

static void killed_is_replaced(void **state)
{
	begin_idle(1, 1);
	unsigned number = first_in(AP_AGENT_IDLE)->number;
	kill_slot(index_of(first_in(AP_AGENT_IDLE)));
	settle();
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_true(first_in(AP_AGENT_IDLE)->number > number);
}

/* --- shutdown --- */

static void shuts_down(void **state)
{
	struct machine_request a, b, c;
	begin_idle(3, 3);
	lease(&a, "a");
	lease(&b, "b");
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(n_effects(EFFECT_SAVE), 2);
	assert_int_equal(n_effects(EFFECT_DRAIN), 1);
	settle();
	assert_int_equal(machine_total(&machine.view), 0);
	assert_int_equal(acquire(&c, "c", AP_SECOND), -ESHUTDOWN);
	assert_int_equal(machine.view.n_spawned, machine.view.n_terminated);
}

static void shuts_down_who_waits(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	acquire(&b, "b", AP_SECOND);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(b.result, -ESHUTDOWN);
}

static void shuts_down_while_validating(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "a", AP_SECOND);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(a.result, -ESHUTDOWN);
	settle();
	assert_int_equal(machine_total(&machine.view), 0);
}

static void shuts_down_while_spawning(void **state)
{
	begin(2, 2);
	STEP(.type = MACHINE_CONFIG);
	STEP(.type = MACHINE_SHUTDOWN);
	settle();
	assert_int_equal(machine_total(&machine.view), 0);
	assert_int_equal(machine.view.n_terminated, 2);
}

static void shuts_down_while_releasing(void **state)
{
	struct machine_request a, r = {0};
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .request = &r);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(n_effects(EFFECT_SAVE), 1);
	settle();
	assert_granted(&r);
	assert_int_equal(machine_total(&machine.view), 0);
}

/* What a daemon finds it first takes stock of: nothing is ended under its hands. */
static void suspended_begins_nothing_whatever_is_due(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	machine.view.limits.pass_ns = AP_SECOND;
	((struct machine_slot *)slot_of(&a))->ttl_ns = AP_SECOND;
	STEP(.type = MACHINE_RENEW, .slot = a.slot);
	STEP(.type = MACHINE_SUSPEND);
	later(100 * AP_SECOND);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_ACTIVE);
	assert_int_equal(n_under_way, 0);
	STEP(.type = MACHINE_RESUME);
	assert_int_equal(n_effects(EFFECT_SAVE), 1);
	assert_int_equal(slot_of(&a)->leaving, AP_REASON_TTL);
}

static void shutdown_keeps_what_is_not_saved(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_SHUTDOWN);
	finish(take(EFFECT_SAVE), -EIO);
	struct machine_effect stop = take(EFFECT_STOP);
	assert_true(stop.keep);
	finish(stop, 0);
	assert_int_equal(machine_total(&machine.view), 0);
}

static void shutdown_lets_go_what_is_quarantined(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), -EIO);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_true(take(EFFECT_STOP).keep);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_STOPPING);
}

static void shutdown_recycles_nothing(void **state)
{
	begin_idle(1, 1);
	struct machine_effect ill = probe();
	STEP(.type = MACHINE_CLOSE);
	machine.view.shutdown = true; /* found ill between two steps of it */
	finish(ill, -ECHILD);
	assert_int_equal(n_effects(EFFECT_RECYCLE), 0);
	settle();
	assert_int_equal(machine_total(&machine.view), 0);
}

/* --- the step itself --- */

static void moves_are_reported(void **state)
{
	struct machine_request a;
	begin_leased(&a);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .reason = AP_REASON_HANDLE);
	assert_int_equal(fx.n_moves, 0);
	finish(take(EFFECT_SAVE), 0);
	assert_int_equal(fx.n_moves, 1);
	assert_int_equal(fx.moves[0].slot, a.slot);
	assert_int_equal(fx.moves[0].from, AP_AGENT_ACTIVE);
	assert_int_equal(fx.moves[0].to, AP_AGENT_RECYCLING);
	assert_int_equal(fx.moves[0].reason, AP_REASON_HANDLE);
}

static void life_is_reported_with_its_reasons(void **state)
{
	struct machine_request a;
	begin(1, 1);
	STEP(.type = MACHINE_CONFIG);
	assert_int_equal(reason_to(AP_AGENT_SPAWNING), AP_REASON_DEMAND);
	finish(take(EFFECT_SPAWN), 0);
	assert_int_equal(reason_to(AP_AGENT_IDLE), AP_REASON_SPAWNED);
	acquire(&a, "a", AP_SECOND);
	assert_int_equal(reason_to(AP_AGENT_VALIDATING), AP_REASON_ACQUIRE);
	finish(take(EFFECT_VALIDATE), 0);
	assert_int_equal(reason_to(AP_AGENT_ACTIVE), AP_REASON_GRANT);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot);
	finish(take(EFFECT_SAVE), 0);
	assert_int_equal(reason_to(AP_AGENT_RECYCLING), AP_REASON_RELEASE);
	finish(take(EFFECT_RECYCLE), 0);
	assert_int_equal(reason_to(AP_AGENT_IDLE), AP_REASON_CLEANED);
	STEP(.type = MACHINE_RECYCLE, .slot = a.slot);
	finish(take(EFFECT_RECYCLE), 0);
	assert_int_equal(reason_to(AP_AGENT_IDLE), AP_REASON_RECYCLED);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_SHUTDOWN);
	finish(take(EFFECT_DRAIN), 0);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_DRAINED);
	finish(take(EFFECT_STOP), 0);
	assert_int_equal(reason_to(AP_AGENT_FREE), AP_REASON_STOPPED);
}

static void refused_event_changes_nothing(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	struct machine before = machine;
	struct machine_slot slots[N_SLOTS];
	memcpy(slots, machine.view.slots, sizeof slots);
	STEP(.type = MACHINE_RELEASE, .slot = a.slot, .token = a.token + 1);
	STEP(.type = MACHINE_SAVED, .slot = a.slot, .effect = 9999);
	STEP(.type = MACHINE_SCALE, .target = 99);
	acquire(&b, "job", AP_SECOND);
	assert_memory_equal(&before, &machine, sizeof machine);
	assert_memory_equal(slots, machine.view.slots, sizeof slots);
}

static void outcomes_belong_to_effects(void **state)
{
	assert_int_equal(machine_outcome(EFFECT_SPAWN), MACHINE_SPAWNED);
	assert_int_equal(machine_outcome(EFFECT_VALIDATE), MACHINE_VALIDATED);
	assert_int_equal(machine_outcome(EFFECT_SAVE), MACHINE_SAVED);
	assert_int_equal(machine_outcome(EFFECT_RECYCLE), MACHINE_RECYCLED);
	assert_int_equal(machine_outcome(EFFECT_DRAIN), MACHINE_DRAINED);
	assert_int_equal(machine_outcome(EFFECT_STOP), MACHINE_STOPPED);
	assert_int_equal(machine_outcome(EFFECT_PROBE), MACHINE_PROBED);
}

static void numbers_are_not_used_twice(void **state)
{
	unsigned last = 0;
	begin_idle(1, 1);
	for (int i = 0; i < 5; i++) {
		const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
		assert_true(slot->number > last);
		assert_ptr_equal(machine_find_number(&machine.view, slot->number), slot);
		last = slot->number;
		kill_slot(index_of(slot));
		settle();
		assert_null(machine_find_number(&machine.view, last));
	}
}

#define MACHINE_TEST(sentence, function)                                                           \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .teardown_func = end                  \
	}

/* --- limits --- */

static int limit(unsigned slot, bool on)
{
	return STEP(.type = MACHINE_LIMIT, .slot = slot, .on = on);
}

static int limit_all(unsigned slot, int64_t until_ns)
{
	return STEP(.type = MACHINE_LIMIT, .slot = slot, .on = until_ns != 0, .everyone = true,
		    .until_ns = until_ns);
}

static void limited_agent_serves_nobody(void **state)
{
	struct machine_request a, b, c;
	begin_idle(1, 1);
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	unsigned index = index_of(slot);
	uint32_t generation = slot->generation;
	assert_int_equal(limit(index, true), 0);
	assert_int_equal(acquire(&a, "a", 100 * AP_SECOND), 0);
	assert_int_equal(acquire(&b, "b", 100 * AP_SECOND), 0);
	assert_int_equal(acquire(&c, "c", 0), 0);
	assert_int_equal(c.result, -EAGAIN);
	settle();
	assert_int_equal(a.state, REQUEST_WAITING);
	assert_int_equal(limit(index, false), 0);
	assert_int_equal(a.state, REQUEST_VALIDATING);
	settle();
	assert_granted(&a);
	assert_int_equal(b.state, REQUEST_WAITING);
	release(&a);
	assert_granted(&b);
	assert_int_equal(slot->generation, generation);
	assert_int_equal(machine.view.hosts[0].breaker.n_failures, 0);
}

static void limited_agent_is_not_ill(void **state)
{
	begin_idle(1, 1);
	const struct machine_slot *slot = first_in(AP_AGENT_IDLE);
	assert_int_equal(limit(index_of(slot), true), 0);
	assert_int_equal(STEP(.type = MACHINE_PASS), 0);
	assert_int_equal(n_effects(EFFECT_PROBE), 1);
	settle();
	assert_int_equal(slot->state, AP_AGENT_IDLE);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = index_of(slot)), 0);
	settle();
	assert_int_equal(slot->state, AP_AGENT_IDLE);
	assert_true(slot->limited); /* whatever became of the program */
	assert_int_equal(STEP(.type = MACHINE_KILL, .slot = index_of(slot)), 0);
	settle();
	assert_int_equal(machine.view.n_limited, 0);
	assert_int_equal(limit(19, true), -ENOENT);
}

static void limit_outlives_the_lease(void **state)
{
	struct machine_request a, b;
	begin_leased(&a);
	assert_int_equal(limit(a.slot, true), 0);
	release(&a);
	assert_int_equal(acquire(&b, "b", 100 * AP_SECOND), 0);
	settle();
	assert_int_equal(b.state, REQUEST_WAITING);
	assert_int_equal(limit(a.slot, false), 0);
	settle();
	assert_granted(&b);
}

static void others_serve_beside_a_limited_one(void **state)
{
	struct machine_request a, b;
	begin_idle(1, 2);
	unsigned index = index_of(first_in(AP_AGENT_IDLE));
	assert_int_equal(limit(index, true), 0);
	assert_int_equal(acquire_agent(&b, machine.view.slots[index].number), 0);
	assert_int_equal(acquire(&a, "a", 100 * AP_SECOND), 0);
	settle(); /* the pool has grown */
	assert_granted(&a);
	assert_int_not_equal(a.slot, index);
	assert_int_equal(b.state, REQUEST_WAITING);
	assert_int_equal(limit(index, false), 0);
	settle();
	assert_granted(&b);
}

static void limit_of_all_stops_the_pool(void **state)
{
	struct machine_request a, b, c;
	begin_idle(1, 4);
	unsigned index = index_of(first_in(AP_AGENT_IDLE));
	assert_int_equal(limit_all(index, now + 50 * AP_SECOND), 0);
	acquire(&a, "a", 100 * AP_SECOND);
	acquire(&b, "b", 100 * AP_SECOND);
	acquire(&c, "c", 0);
	assert_int_equal(c.result, -EAGAIN);
	settle();
	assert_int_equal(machine_total(&machine.view), 1); /* more would not serve either */
	assert_true(machine.view.wake_ns <= now + 50 * AP_SECOND);
	later(49 * AP_SECOND);
	settle();
	assert_int_equal(a.state, REQUEST_WAITING);
	assert_int_equal(limit(index, false), 0);
	assert_int_equal(a.state, REQUEST_WAITING);
	later(AP_SECOND); /* also where nobody tells of the end */
	settle();
	assert_granted(&a);
	assert_granted(&b);
}

static void limit_of_all_may_end_before(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	unsigned index = index_of(first_in(AP_AGENT_IDLE));
	assert_int_equal(limit_all(index, now + 50 * AP_SECOND), 0);
	acquire(&a, "a", 100 * AP_SECOND);
	assert_int_equal(limit_all(index, 0), 0);
	settle();
	assert_granted(&a);
}

/* --- hosts --- */

static int host(unsigned index, enum ap_host_state state, unsigned slots)
{
	return STEP(.type = MACHINE_HOST, .host = index, .host_state = state, .slots = slots);
}

static unsigned n_on(unsigned index)
{
	return machine.view.hosts[index].n_agents;
}

static int acquire_host(struct machine_request *request, unsigned index)
{
	*request = (struct machine_request){.deadline_ns = AP_FOREVER, .host = index + 1};
	return STEP(.type = MACHINE_ACQUIRE, .request = request);
}

/* Two hosts with an idle agent each, and room for another. */
static void begin_two_hosts(void)
{
	begin(2, 4);
	assert_int_equal(host(0, AP_HOST_UP, 1), 0);
	assert_int_equal(host(1, AP_HOST_UP, 1), 0);
	settle();
	host(0, AP_HOST_UP, 2);
	host(1, AP_HOST_UP, 2);
	later(6 * AP_SECOND);
	settle();
	assert_int_equal(n_on(0), 1);
	assert_int_equal(n_on(1), 1);
	assert_int_equal(count(AP_AGENT_IDLE), 2);
}

/* The first slot of a host in a state. */
static const struct machine_slot *one_on(unsigned index, enum ap_agent_state state)
{
	for (unsigned i = 0; i < N_SLOTS; i++) {
		const struct machine_slot *slot = &machine.view.slots[i];
		if (slot->state == state && slot->host == index)
			return slot;
	}
	fail_msg("no agent of host %u is %s", index, ap_agent_state_name(state));
	return NULL;
}

/* A lease on a host, granted. */
static void lease_on(struct machine_request *request, unsigned index)
{
	assert_int_equal(acquire_host(request, index), 0);
	settle();
	assert_granted(request);
	assert_int_equal(slot_of(request)->host, index);
}

static void one_host_has_all(void **state)
{
	begin(1, 1);
	assert_int_equal(machine.view.hosts[0].state, AP_HOST_UP);
	assert_int_equal(machine.view.hosts[0].slots, N_SLOTS);
	for (unsigned i = 1; i < N_HOSTS; i++) {
		assert_int_equal(machine.view.hosts[i].state, AP_HOST_DOWN);
		assert_int_equal(machine.view.hosts[i].slots, 0);
	}
}

static void hosts_that_are_none(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	assert_int_equal(host(N_HOSTS, AP_HOST_UP, 1), -EINVAL);
	assert_int_equal(host(0, AP_N_HOST_STATES, 1), -EINVAL);
	assert_int_equal(acquire_host(&a, N_HOSTS), -ENOENT);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
}

static void agents_begin_where_there_is_room(void **state)
{
	begin(9, 9);
	machine.view.limits.max_spawning = 9;
	host(0, AP_HOST_UP, 2);
	settle();
	host(1, AP_HOST_PENDING, 3);
	settle();
	assert_int_equal(machine_total(&machine.view), 2);
	host(1, AP_HOST_UP, 3);
	settle();
	host(2, AP_HOST_DRAINING, 3);
	assert_int_equal(n_on(1), 3);
	assert_int_equal(machine_total(&machine.view), 5);
}

static void agents_are_spread(void **state)
{
	begin_two_hosts();
	scale(4);
	assert_int_equal(n_on(0), 2);
	assert_int_equal(n_on(1), 2);
}

static void agents_are_packed(void **state)
{
	begin(0, 4);
	host(0, AP_HOST_UP, 3);
	host(1, AP_HOST_UP, 2);
	machine.view.limits.placement = PLACEMENT_PACK;
	scale(2);
	assert_int_equal(n_on(1), 2);
	scale(4);
	assert_int_equal(n_on(0), 2);
}

static void agents_begin_where_it_is_warm(void **state)
{
	begin(0, 4);
	host(0, AP_HOST_UP, 4);
	STEP(.type = MACHINE_HOST, .host = 1, .host_state = AP_HOST_UP, .slots = 3, .warm = true);
	machine.view.limits.placement = PLACEMENT_WARM;
	scale(4);
	assert_int_equal(n_on(1), 3);
	assert_int_equal(n_on(0), 1);
}

static void host_is_wanted(void **state)
{
	struct machine_request a, b, c;
	begin_two_hosts();
	lease_on(&a, 1);
	assert_int_equal(acquire_host(&b, 1), 0); /* beside an idle agent of host 0 */
	assert_int_equal(b.state, REQUEST_WAITING);
	assert_int_equal(n_effects(EFFECT_SPAWN), 1);
	assert_int_equal(n_on(1), 2);
	acquire(&c, "c", 0);
	assert_int_equal(c.state, REQUEST_VALIDATING);
	assert_int_equal(slot_of(&c)->host, 0);
	settle();
	assert_granted(&b);
	assert_int_equal(slot_of(&b)->host, 1);
}

static void host_and_agent_are_wanted(void **state)
{
	struct machine_request a = {.deadline_ns = AP_FOREVER}, b = a;
	begin_two_hosts();
	a.agent = b.agent = one_on(1, AP_AGENT_IDLE)->number;
	a.host = 1;
	b.host = 2;
	assert_int_equal(STEP(.type = MACHINE_ACQUIRE, .request = &a), -ENOENT);
	assert_int_equal(STEP(.type = MACHINE_ACQUIRE, .request = &b), 0);
	settle();
	assert_granted(&b);
}

static void label_does_not_lead_to_another_host(void **state)
{
	struct machine_request a;
	begin_two_hosts();
	lease(&a, "job");
	unsigned first = slot_of(&a)->host;
	release(&a);
	a = (struct machine_request){.deadline_ns = AP_FOREVER, .host = 2 - first};
	strcpy(a.label.text, "job");
	assert_int_equal(STEP(.type = MACHINE_ACQUIRE, .request = &a), 0);
	assert_int_equal(slot_of(&a)->host, 1 - first);
}

static void who_wants_a_host_has_his_turn(void **state)
{
	struct machine_request a, b, c, x;
	begin_idle(1, 1);
	lease(&x, "x");
	acquire_host(&a, 0);
	acquire(&b, "b", AP_FOREVER / 2);
	acquire_host(&c, 0);
	release(&x);
	assert_granted(&a);
	release(&a);
	assert_granted(&b);
	release(&b);
	assert_granted(&c);
}

static void host_that_goes_down_is_waited_for(void **state)
{
	struct machine_request a, b;
	begin_two_hosts();
	host(1, AP_HOST_DOWN, 2);
	settle();
	acquire_host(&a, 1);
	acquire_host(&b, 1);
	b.deadline_ns = now + AP_SECOND;
	machine.view.waiters_due_ns = b.deadline_ns;
	later(2 * AP_SECOND);
	settle();
	assert_int_equal(b.result, -ETIMEDOUT);
	assert_int_equal(a.state, REQUEST_WAITING);
	host(1, AP_HOST_UP, 1);
	settle();
	assert_granted(&a);
}

static void draining_host_empties(void **state)
{
	struct machine_request a, b, c;
	begin_two_hosts();
	scale(4);
	lease_on(&a, 1);
	acquire_host(&b, 1);
	struct machine_effect validate = take(EFFECT_VALIDATE);
	host(1, AP_HOST_DRAINING, 2);
	assert_int_equal(n_effects(EFFECT_DRAIN), 0);
	assert_int_equal(finish(validate, 0), 0); /* it was under way */
	assert_granted(&b);
	release(&a);
	assert_int_equal(acquire_host(&c, 1), 0);
	settle();
	assert_int_equal(c.state, REQUEST_WAITING);
	assert_int_equal(n_on(1), 1);
	STEP(.type = MACHINE_RELEASE, .slot = b.slot);
	assert_int_equal(finish(take(EFFECT_SAVE), 0), 0);
	assert_int_equal(slot_of(&b)->state, AP_AGENT_DRAINING);
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_DRAIN);
	settle();
	assert_int_equal(n_on(1), 0);
	assert_int_equal(machine_total(&machine.view), 2);
}

static void draining_host_keeps_nothing_idle(void **state)
{
	begin_two_hosts();
	host(1, AP_HOST_DRAINING, 2);
	assert_int_equal(one_on(1, AP_AGENT_DRAINING)->host, 1);
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_DRAIN);
	assert_int_equal(n_effects(EFFECT_SPAWN), 1);
	assert_int_equal(n_on(0), 2);
}

static void draining_host_ends_what_was_coming(void **state)
{
	struct machine_request a, b;
	begin_two_hosts();
	acquire_host(&a, 1);
	struct machine_effect refused = take(EFFECT_VALIDATE);
	STEP(.type = MACHINE_SCALE, .target = 4);
	struct machine_effect spawns[] = {take(EFFECT_SPAWN), take(EFFECT_SPAWN)};
	bool second = machine.view.slots[spawns[1].slot].host == 1;
	host(1, AP_HOST_DRAINING, 2);
	assert_int_equal(finish(spawns[second], 0), 0);
	assert_int_equal(machine.view.slots[spawns[second].slot].state, AP_AGENT_DRAINING);
	assert_int_equal(finish(refused, -EBUSY), 0);
	assert_int_equal(a.result, -EBUSY);
	assert_int_equal(slot_of(&a)->state, AP_AGENT_DRAINING);
	acquire_host(&b, 0);
	assert_int_equal(b.state, REQUEST_VALIDATING);
}

/* Host 1 has one agent in every state that an agent can be lost in, or be ending in; host 0 none
 * that is idle. */
struct lost {
	struct machine_request validating, leased, leaving, releaser, first;
	const struct machine_slot *draining;
	struct machine_effect spawn, validate, save, recycle, drain;
};

static void begin_lost(struct lost *lost)
{
	struct machine_request cleaned;
	begin(0, 8);
	machine.view.limits.max_spawning = 8;
	host(0, AP_HOST_UP, 0);
	host(1, AP_HOST_UP, 7);
	scale(6);
	later(6 * AP_SECOND);
	settle();
	lease_on(&lost->leased, 1);
	slot_at_index(lost->leased.slot)->ttl_ns = 10 * AP_SECOND;
	STEP(.type = MACHINE_RENEW, .slot = lost->leased.slot);
	lease_on(&lost->leaving, 1);
	lease_on(&cleaned, 1);
	acquire_host(&lost->first, 1);
	lost->validate = take(EFFECT_VALIDATE);
	lost->releaser = (struct machine_request){0};
	STEP(.type = MACHINE_RELEASE, .slot = lost->leaving.slot, .request = &lost->releaser);
	lost->save = take(EFFECT_SAVE);
	STEP(.type = MACHINE_RELEASE, .slot = cleaned.slot);
	finish(take(EFFECT_SAVE), 0);
	lost->recycle = take(EFFECT_RECYCLE);
	STEP(.type = MACHINE_SCALE, .target = 5);
	lost->drain = take(EFFECT_DRAIN);
	lost->draining = one_on(1, AP_AGENT_DRAINING);
	STEP(.type = MACHINE_SCALE, .target = 6);
	lost->spawn = take(EFFECT_SPAWN);
	assert_int_equal(n_under_way, 0);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	assert_int_equal(host(1, AP_HOST_LOST, 7), 0);
}

static void lost_host_loses_what_serves_nobody(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	assert_int_equal(count(AP_AGENT_LOST), 4); /* idle, spawning, recycling, validating */
	assert_int_equal(count(AP_AGENT_ACTIVE), 2);
	assert_int_equal(count(AP_AGENT_DRAINING), 1);
	assert_int_equal(reason_to(AP_AGENT_LOST), AP_REASON_LOST);
	assert_int_equal(machine_total(&machine.view), 7);
	assert_int_equal(machine_live(&machine.view), 2);
	assert_int_equal(n_under_way, 0);
	assert_int_equal(finish(lost.spawn, 0), -ESTALE);
	assert_int_equal(finish(lost.recycle, 0), -ESTALE);
	assert_int_equal(finish(lost.validate, 0), -ESTALE);
}

static void lost_host_grants_nothing(void **state)
{
	struct machine_request a;
	begin_two_hosts();
	host(1, AP_HOST_LOST, 2);
	settle();
	acquire_host(&a, 1);
	settle();
	assert_int_equal(a.state, REQUEST_WAITING);
	assert_int_equal(count(AP_AGENT_LOST), 1);
}

static void lost_agents_are_replaced_elsewhere(void **state)
{
	begin_two_hosts();
	host(1, AP_HOST_LOST, 2);
	settle();
	assert_int_equal(n_on(0), 2);
	assert_int_equal(machine_total(&machine.view), 3);
	scale(4); /* two of at most four are there, and no host has room */
	assert_int_equal(machine_total(&machine.view), 3);
	host(0, AP_HOST_UP, 9);
	settle();
	assert_int_equal(machine_total(&machine.view), 4); /* the lost one may live */
}

static void acquirer_of_a_lost_host_goes_elsewhere(void **state)
{
	struct machine_request a;
	begin_two_hosts();
	for (int i = 0; i < 5; i++) { /* as often as it likes: that is no try */
		acquire(&a, "job", AP_FOREVER / 2);
		unsigned first = slot_of(&a)->host;
		uint64_t token = a.token;
		take(EFFECT_VALIDATE);
		host(first, AP_HOST_LOST, 2);
		assert_int_equal(a.state, REQUEST_VALIDATING);
		assert_int_equal(slot_of(&a)->host, 1 - first);
		assert_int_equal(a.token, token);
		assert_int_equal(a.n_tries, 0);
		settle();
		assert_granted(&a);
		release(&a);
		host(first, AP_HOST_UP, 2);
		settle();
	}
}

static void once_does_not_wait_for_a_lost_host(void **state)
{
	struct machine_request a;
	begin_idle(1, 1);
	acquire(&a, "job", 0);
	assert_int_equal(a.state, REQUEST_VALIDATING);
	host(0, AP_HOST_LOST, 1);
	assert_int_equal(a.result, -EAGAIN);
}

static void nothing_times_out_on_a_lost_host(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	later(DAY);
	assert_int_equal(count(AP_AGENT_LOST), 4);
	assert_int_equal(count(AP_AGENT_DRAINING), 1);
	assert_true(machine_slot_leased(slot_of(&lost.leased)));
	assert_int_equal(slot_of(&lost.leaving)->effect, lost.save.id);
	assert_int_equal(STEP(.type = MACHINE_RENEW, .slot = lost.leased.slot), 0);
	assert_int_equal(STEP(.type = MACHINE_PROMPT, .slot = lost.leased.slot), 0);
	later(DAY);
	assert_true(machine_slot_leased(slot_of(&lost.leased)));
	assert_int_equal(n_under_way, 0);
}

static void lost_host_is_not_reached(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	unsigned leased = lost.leased.slot, draining = index_of(lost.draining);
	unsigned idle = index_of(first_in(AP_AGENT_LOST));
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = leased), -EHOSTUNREACH);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = leased, .token = 99), -ESTALE);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = idle), -ENOENT);
	assert_int_equal(STEP(.type = MACHINE_KILL, .slot = leased), -EHOSTUNREACH);
	assert_int_equal(STEP(.type = MACHINE_KILL, .slot = draining), -EHOSTUNREACH);
	assert_int_equal(STEP(.type = MACHINE_KILL, .slot = idle), -EHOSTUNREACH);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = leased), -EHOSTUNREACH);
	assert_int_equal(STEP(.type = MACHINE_RECYCLE, .slot = idle), -EHOSTUNREACH);
	assert_int_equal(n_under_way, 0);
}

static void lost_host_is_not_probed(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	STEP(.type = MACHINE_PASS);
	assert_int_equal(n_effects(EFFECT_PROBE), 0);
}

static void what_ends_on_a_lost_host_is_taken_note_of(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	assert_int_equal(finish(lost.save, 0), 0);
	assert_granted(&lost.releaser);
	assert_int_equal(slot_of(&lost.leaving)->state, AP_AGENT_LOST);
	assert_int_equal(finish(lost.drain, 0), 0);
	assert_int_equal(lost.draining->state, AP_AGENT_LOST);
	assert_int_equal(n_under_way, 0);
	host(1, AP_HOST_UP, 7);
	assert_int_equal(lost.draining->state, AP_AGENT_STOPPING);
	assert_int_equal(slot_of(&lost.leaving)->state, AP_AGENT_RECYCLING);
}

static void what_cannot_be_saved_on_a_lost_host_is_kept(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	assert_int_equal(finish(lost.save, -EIO), 0);
	assert_int_equal(slot_of(&lost.leaving)->state, AP_AGENT_QUARANTINED);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = lost.leaving.slot), -EHOSTUNREACH);
	host(1, AP_HOST_UP, 7);
	assert_int_equal(STEP(.type = MACHINE_RELEASE, .slot = lost.leaving.slot), 0);
}

static void what_is_back_begins_anew(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	machine.view.limits.keep_program = true;
	uint64_t n_recycled = machine.view.n_recycled;
	later(DAY);
	host(1, AP_HOST_UP, 7);
	assert_int_equal(n_effects(EFFECT_RECYCLE), 3);
	assert_int_equal(n_effects(EFFECT_STOP), 1); /* it was never born */
	assert_int_equal(machine.view.slots[lost.spawn.slot].state, AP_AGENT_STOPPING);
	for (int i = 0; i < 3; i++) {
		struct machine_effect clean = take(EFFECT_RECYCLE);
		assert_true(clean.restart);
		finish(clean, 0);
	}
	assert_int_equal(machine.view.n_recycled, n_recycled);
	assert_int_equal(count(AP_AGENT_LOST), 0);
}

static void what_is_back_has_its_full_time(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	later(DAY);
	host(1, AP_HOST_UP, 7);
	assert_int_equal(slot_of(&lost.leased)->deadline_ns, now + 10 * AP_SECOND);
	assert_int_equal(slot_of(&lost.leaving)->deadline_ns, now + 600 * AP_SECOND);
	assert_int_equal(lost.draining->deadline_ns, now + 60 * AP_SECOND);
	assert_true(machine.view.wake_ns <= now + 10 * AP_SECOND);
	assert_int_equal(finish(lost.save, 0), 0);
	assert_int_equal(finish(lost.drain, 0), 0);
	later(10 * AP_SECOND);
	assert_int_equal(slot_of(&lost.leased)->leaving, AP_REASON_TTL);
}

static void what_is_back_on_a_draining_host_leaves(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	host(1, AP_HOST_DRAINING, 7);
	assert_int_equal(n_effects(EFFECT_DRAIN), 3);
	assert_int_equal(n_effects(EFFECT_STOP), 1);
	assert_int_equal(n_effects(EFFECT_RECYCLE), 0);
}

static void kill_before_a_loss_is_not_forgotten(void **state)
{
	begin_two_hosts();
	const struct machine_slot *slot = one_on(1, AP_AGENT_IDLE);
	STEP(.type = MACHINE_RECYCLE, .slot = index_of(slot));
	STEP(.type = MACHINE_KILL, .slot = index_of(slot));
	host(1, AP_HOST_LOST, 2);
	host(1, AP_HOST_UP, 2);
	assert_int_equal(slot->state, AP_AGENT_STOPPING);
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_KILL);
}

static void host_that_is_back_waits_for_a_suspended_pool(void **state)
{
	begin_two_hosts();
	STEP(.type = MACHINE_SUSPEND);
	host(0, AP_HOST_DRAINING, 2);
	host(1, AP_HOST_LOST, 2);
	host(1, AP_HOST_UP, 2);
	assert_int_equal(n_under_way, 0);
	assert_int_equal(count(AP_AGENT_LOST), 1);
	assert_int_equal(count(AP_AGENT_IDLE), 1);
	STEP(.type = MACHINE_RESUME);
	assert_int_equal(n_effects(EFFECT_RECYCLE), 1);
	assert_int_equal(n_effects(EFFECT_DRAIN), 1);
}

static void shutdown_waits_for_a_lost_host(void **state)
{
	struct lost lost;
	begin_lost(&lost);
	STEP(.type = MACHINE_SHUTDOWN);
	assert_int_equal(n_under_way, 0);
	assert_true(machine_slot_leased(slot_of(&lost.leased)));
	host(1, AP_HOST_UP, 7);
	assert_int_equal(slot_of(&lost.leased)->leaving, AP_REASON_SHUTDOWN);
	finish(lost.save, 0);
	finish(lost.drain, 0);
	settle();
	assert_int_equal(machine_total(&machine.view), 0);
}

static void dead_host_ends_all_its_agents(void **state)
{
	struct lost lost;
	struct machine_request agent, other;
	begin_lost(&lost);
	uint64_t n_terminated = machine.view.n_terminated;
	acquire_agent(&agent, slot_of(&lost.leased)->number);
	acquire(&other, "other", AP_FOREVER / 2);
	host(1, AP_HOST_DOWN, 0);
	assert_int_equal(machine_total(&machine.view), 0);
	assert_int_equal(n_on(1), 0);
	assert_int_equal(lost.releaser.result, -EHOSTDOWN);
	assert_int_equal(agent.result, -ENOENT);
	assert_int_equal(other.state, REQUEST_WAITING);
	assert_int_equal(lost.first.state, REQUEST_WAITING); /* it was made ready for */
	assert_null(machine_find_label(&machine.view, lost.leased.label.text));
	assert_int_equal(machine.view.n_terminated - n_terminated, 6); /* one was never born */
	assert_int_equal(reason_to(AP_AGENT_STOPPING), AP_REASON_DEAD);
	assert_int_equal(n_under_way, 0);
	assert_int_equal(finish(lost.save, 0), -ESTALE);
	assert_int_equal(finish(lost.drain, 0), -ESTALE);
	host(0, AP_HOST_UP, 2);
	settle();
	assert_granted(&other);
	assert_int_equal(slot_of(&other)->host, 0);
}

static void host_dies_without_being_lost_before(void **state)
{
	struct machine_request a, b;
	begin_two_hosts();
	lease_on(&a, 1);
	acquire_host(&b, 0);
	assert_int_equal(b.state, REQUEST_VALIDATING);
	take(EFFECT_VALIDATE);
	host(1, AP_HOST_PENDING, 2);
	assert_int_equal(n_on(1), 0);
	assert_int_equal(slot_of(&a)->token, 0);
	host(0, AP_HOST_DOWN, 2);
	assert_int_equal(b.state, REQUEST_WAITING);
	assert_int_equal(machine_total(&machine.view), 0);
	host(0, AP_HOST_UP, 2);
	settle();
	assert_granted(&b);
}

static void fewer_slots_drain_what_idles(void **state)
{
	struct machine_request a;
	begin(0, 4);
	scale(4);
	later(6 * AP_SECOND);
	settle();
	lease(&a, "job");
	const struct machine_slot *oldest =
		ap_container_of(machine.view.states[AP_AGENT_IDLE].prev, struct machine_slot, link);
	host(0, AP_HOST_UP, 3);
	assert_int_equal(oldest->state, AP_AGENT_DRAINING);
	assert_int_equal(reason_to(AP_AGENT_DRAINING), AP_REASON_SCALE);
	assert_int_equal(n_effects(EFFECT_DRAIN), 1);
	settle();
	host(0, AP_HOST_UP, 0);
	settle();
	assert_int_equal(machine_total(&machine.view), 1);
	assert_true(machine_slot_leased(slot_of(&a)));
	release(&a);
	assert_int_equal(machine_total(&machine.view), 0);
}

static int adopt_on(unsigned index, unsigned slot, const char *label)
{
	const struct machine_adoption adoption = {
		.host = index,
		.number = slot + 1,
		.generation = 1,
		.label = label,
		.token = *label ? 7 : 0,
		.ttl_ns = *label ? AP_SECOND : 0,
	};
	return STEP(.type = MACHINE_ADOPT, .slot = slot, .adoption = &adoption);
}

static void agents_are_adopted_on_their_hosts(void **state)
{
	begin(0, 4);
	STEP(.type = MACHINE_SUSPEND);
	host(1, AP_HOST_LOST, 2);
	assert_int_equal(adopt_on(N_HOSTS, 0, ""), -EINVAL);
	assert_int_equal(adopt_on(2, 0, ""), -EHOSTDOWN);
	assert_int_equal(adopt_on(0, 0, ""), 0);
	assert_int_equal(adopt_on(1, 1, ""), 0);
	assert_int_equal(adopt_on(1, 2, "job"), 0);
	STEP(.type = MACHINE_RESUME);
	const struct machine_slot *slots = machine.view.slots;
	assert_int_equal(slots[0].state, AP_AGENT_IDLE);
	assert_int_equal(slots[1].state, AP_AGENT_LOST);
	assert_true(machine_slot_leased(&slots[2]));
	later(DAY);
	assert_true(machine_slot_leased(&slots[2]));
	host(1, AP_HOST_UP, 2);
	assert_int_equal(slots[1].state, AP_AGENT_RECYCLING);
	assert_int_equal(slots[2].deadline_ns, now + AP_SECOND);
}

static void every_host_has_its_breaker(void **state)
{
	struct machine_request a;
	begin(0, 4);
	host(0, AP_HOST_UP, 4);
	host(1, AP_HOST_UP, 2);
	machine.view.limits.max_spawning = 1;
	acquire_host(&a, 1);
	fail_spawns(3);
	assert_int_equal(machine.view.hosts[1].breaker.state, BREAKER_OPEN);
	assert_int_equal(machine.view.hosts[0].breaker.state, BREAKER_CLOSED);
	assert_ptr_equal(machine_breaker(&machine.view), &machine.view.hosts[0].breaker);
	assert_int_equal(a.state, REQUEST_WAITING); /* something can serve, though not him */
	assert_true(machine.view.wake_ns <= machine.view.hosts[1].breaker.retry_ns);
	scale(2);
	assert_int_equal(n_on(0), 2);
	scale(-1);
	STEP(.type = MACHINE_RESET_BREAKER);
	settle();
	assert_granted(&a);
}

static void nothing_serves_where_every_breaker_is_open(void **state)
{
	struct machine_request a;
	begin(0, 4);
	host(0, AP_HOST_UP, 2);
	host(1, AP_HOST_UP, 2);
	machine.view.limits.max_spawning = 1;
	acquire(&a, "job", AP_FOREVER / 2);
	fail_spawns(5);
	assert_int_equal(a.state, REQUEST_WAITING);
	fail_spawns(1);
	assert_int_equal(a.result, -EHOSTDOWN);
	assert_int_equal(machine_breaker(&machine.view)->state, BREAKER_OPEN);
}

static void who_waits_for_hosts_to_come_waits(void **state)
{
	struct machine_request a;
	begin_broken(1);
	host(0, AP_HOST_LOST, 1);
	assert_int_equal(machine_breaker(&machine.view)->state, BREAKER_CLOSED);
	acquire(&a, "job", AP_FOREVER / 2);
	host(0, AP_HOST_PENDING, 1);
	assert_int_equal(a.state, REQUEST_WAITING);
	host(0, AP_HOST_UP, 1); /* its breaker is open still */
	assert_int_equal(a.result, -EHOSTDOWN);
	assert_true(machine.view.wake_ns <= machine.view.hosts[0].breaker.retry_ns);
}

int main(void)
{
	const struct CMUnitTest limits[] = {
		MACHINE_TEST(
			"an agent at its limit is granted to nobody, who waits keeps his place",
			limited_agent_serves_nobody),
		MACHINE_TEST("an agent at its limit is not ill", limited_agent_is_not_ill),
		MACHINE_TEST("a limit outlives the lease", limit_outlives_the_lease),
		MACHINE_TEST("others serve beside an agent at its limit",
			     others_serve_beside_a_limited_one),
		MACHINE_TEST("a limit of all stops the pool, which does not grow for it",
			     limit_of_all_stops_the_pool),
		MACHINE_TEST("a limit of all may end before its time", limit_of_all_may_end_before),
	};
	const struct CMUnitTest leases[] = {
		MACHINE_TEST("an acquirer has its agent when it is validated", grant_is_validated),
		MACHINE_TEST("a lease was granted when that was written down",
			     grant_is_as_old_as_its_record),
		MACHINE_TEST("a released agent is saved, cleaned and idle again",
			     release_saves_and_cleans),
		MACHINE_TEST("a released agent serves who waits", release_serves_the_next),
		MACHINE_TEST("a release may throw the work away", discard_reaches_the_effect),
		MACHINE_TEST("the program is started anew between leases",
			     program_restarts_between_leases),
		MACHINE_TEST("the program goes on between leases with keep_program",
			     program_kept_between_leases),
		MACHINE_TEST("a release is answered when the work is saved",
			     release_is_answered_when_saved),
		MACHINE_TEST("a release whose caller gave up goes on", cancelled_release_goes_on),
		MACHINE_TEST("waiters are served first come first served", first_come_first_served),
		MACHINE_TEST("tokens are in order of arrival, whoever is granted first",
			     tokens_in_order_of_arrival),
		MACHINE_TEST("an acquirer whose agent failed keeps its token",
			     token_kept_over_a_failed_agent),
		MACHINE_TEST("timeout 0 takes an idle agent or is EAGAIN at once", tries_once),
		MACHINE_TEST("timeout 0 does not wait either when its agent turns out unhealthy",
			     once_does_not_wait),
		MACHINE_TEST("timeout 0 lets the validation of its agent take its time",
			     once_lets_validation_take_its_time),
		MACHINE_TEST("a waiter times out at its deadline and not before", times_out),
		MACHINE_TEST("an acquirer times out while its agent is validated",
			     times_out_while_validated),
		MACHINE_TEST("a slow spawn does not hold up a deadline",
			     times_out_beside_a_slow_spawn),
		MACHINE_TEST("a cancelled waiter leaves nothing in the queue", cancels_a_waiter),
		MACHINE_TEST("an acquirer that is cancelled half granted leaves an idle agent",
			     cancels_half_granted),
		MACHINE_TEST("an answered request cannot be cancelled", cancels_an_answered),
		MACHINE_TEST("a label is leased once", label_leased_once),
		MACHINE_TEST("a label is asked for once", label_asked_once),
		MACHINE_TEST("an invented label is one that nobody has", label_invented),
		MACHINE_TEST("a second release is ESTALE and saves nothing twice",
			     second_release_is_stale),
		MACHINE_TEST("the token of an ended lease is ESTALE and changes nothing",
			     old_token_is_stale),
		MACHINE_TEST("an agent that is not leased is not released",
			     release_of_an_idle_agent),
		MACHINE_TEST("who wants a certain agent and who takes any are served in one order",
			     certain_and_any_in_order),
		MACHINE_TEST("a full queue is EAGAIN", queue_full),
		MACHINE_TEST("a user's part of the queue that is full is EAGAIN", user_queue_full),
		MACHINE_TEST("root's and the owner's waiters have no bound of their own",
			     root_and_owner_unbounded),
		MACHINE_TEST("users are counted as they come and go", users_come_and_go),
		MACHINE_TEST("close refuses acquirers and leaves leases alone", close_refuses),
		MACHINE_TEST("close lets an acquirer whose agent is validated have it",
			     close_lets_half_granted_go_on),
		MACHINE_TEST("a closed pool does not try another agent", close_does_not_try_again),
		MACHINE_TEST("open admits acquirers again", open_admits),
		MACHINE_TEST("a pool that shuts down is not opened", shutdown_is_not_opened),
		MACHINE_TEST("the agent used last is granted first", last_used_first),
		MACHINE_TEST("affinity prefers the agent that last served the key",
			     affinity_prefers),
		MACHINE_TEST("a label prefers the agent that had it last", label_prefers),
		MACHINE_TEST("the label of an ended lease finds nothing", label_is_no_lease),
		MACHINE_TEST("affinity goes before the label", key_goes_before_label),
		MACHINE_TEST("affinity takes another agent rather than wait",
			     affinity_does_not_wait),
		MACHINE_TEST("who wants a certain agent waits for it, beside idle ones",
			     wanted_agent_is_waited_for),
		MACHINE_TEST("who wants a certain agent holds nobody else up",
			     wanted_agent_is_passed_over),
		MACHINE_TEST("an agent that there is not is ENOENT", wanted_agent_unknown),
		MACHINE_TEST("who waits for an agent that ends has ENOENT", wanted_agent_ends),
		MACHINE_TEST("an agent that is being ended is ENOENT", wanted_agent_ending),
		MACHINE_TEST("a lease ends with its time to live", ttl_ends),
		MACHINE_TEST("renewing begins the time to live anew", renew_begins_ttl_anew),
		MACHINE_TEST("a prompt renews the lease", prompt_renews),
		MACHINE_TEST("a lease that is being ended is not renewed", renew_of_an_ended_lease),
		MACHINE_TEST("a grant is counted on every path to it",
			     grants_are_counted_on_every_path),
		MACHINE_TEST("no counter falls when an agent ends", counters_do_not_fall),
		MACHINE_TEST("leases and recyclings leave the capacity as it was",
			     capacity_survives_many_leases),
		MACHINE_TEST("an agent that fails validation is replaced unnoticed",
			     failed_agent_goes_unnoticed),
		MACHINE_TEST("an acquirer whose agent failed is first in the queue",
			     failed_agent_keeps_the_place_in_the_queue),
		MACHINE_TEST("the second agent that fails is the acquirer's answer",
			     second_failed_agent_is_the_answer),
		MACHINE_TEST("programs that somebody killed do not open the breaker",
			     killed_programs_do_not_open_the_breaker),
		MACHINE_TEST(
			"an acquirer is served however many agents' programs have ended under him",
			ended_programs_fail_nobody),
		MACHINE_TEST("an acquirer's own fault costs no agent", acquirers_fault),
		MACHINE_TEST("an agent whose work cannot be saved is quarantined",
			     unsaved_is_quarantined),
		MACHINE_TEST("what is quarantined counts against the maximum",
			     quarantined_counts_against_the_maximum),
		MACHINE_TEST("what is quarantined can be saved later, and ends then",
			     quarantined_is_saved_later),
	};
	const struct CMUnitTest deadlines[] = {
		MACHINE_TEST("a spawn that lasts too long has failed and is stopped",
			     overdue_spawning),
		MACHINE_TEST("a validation that lasts too long makes the agent unhealthy",
			     overdue_validating),
		MACHINE_TEST("saving that lasts too long quarantines the agent", overdue_saving),
		MACHINE_TEST("saving once more that lasts too long leaves it quarantined",
			     overdue_saving_again),
		MACHINE_TEST("recycling that lasts too long stops the agent", overdue_recycling),
		MACHINE_TEST("draining that lasts too long stops the agent", overdue_draining),
		MACHINE_TEST("stopping is never given up", overdue_stopping),
		MACHINE_TEST("an agent may be idle or leased for ever",
			     resting_states_have_no_deadline),
		MACHINE_TEST("the outcome of an effect that is not awaited is ESTALE",
			     outcome_of_an_other_effect),
	};
	const struct CMUnitTest recycling[] = {
		MACHINE_TEST("an agent that served enough leases is recycled at release",
			     recycles_at_release_by_requests),
		MACHINE_TEST("being cleaned after a lease is not being recycled",
			     cleaning_is_no_recycling),
		MACHINE_TEST("a recycled agent keeps its name", recycling_keeps_the_name),
		MACHINE_TEST("an idle agent is recycled between nine tenths of max_age and all",
			     recycles_by_age),
		MACHINE_TEST("agents made together do not grow old together", ages_are_spread),
		MACHINE_TEST("the jitter of age is drawn once a generation",
			     age_is_drawn_once_a_generation),
		MACHINE_TEST("age is a reason to wake", wakes_for_age),
		MACHINE_TEST("a leased agent is marked and recycled at its release",
			     active_is_recycled_at_release),
		MACHINE_TEST("three samples over the memory quota recycle", recycles_by_memory),
		MACHINE_TEST("samples over the memory quota count in a row only", memory_in_a_row),
		MACHINE_TEST("a sample over the CPU quota recycles", recycles_by_cpu),
		MACHINE_TEST("an idle agent is recycled when asked", recycles_when_asked),
		MACHINE_TEST("a leased agent that is asked to is recycled at its release",
			     recycles_an_active_when_asked),
		MACHINE_TEST("one that is cleaned is recycled afterwards when that is asked for",
			     recycles_one_that_is_cleaned_when_asked),
		MACHINE_TEST("an agent that is to be recycled while it is cleaned is, before it "
			     "serves who waits",
			     recycles_one_that_is_cleaned_before_it_serves),
		MACHINE_TEST("an agent that ends or is none is not recycled",
			     recycling_of_an_ending_agent),
		MACHINE_TEST("an unhealthy idle agent is recycled in place",
			     unhealthy_is_recycled_in_place),
		MACHINE_TEST("an agent that is ill from its start on is stopped",
			     ill_from_its_start_is_stopped),
		MACHINE_TEST("an unhealthy leased agent is its holder's",
			     ill_while_leased_is_left_alone),
		MACHINE_TEST("of a few idle agents one is recycled at once", one_of_few_at_once),
		MACHINE_TEST("of many idle agents a tenth is recycled at once",
			     a_tenth_of_many_at_once),
		MACHINE_TEST("agents asked to are recycled whatever the others do",
			     asked_for_are_not_held_up),
		MACHINE_TEST("an idle agent that waits to be recycled still serves",
			     marked_still_serve),
		MACHINE_TEST("an agent recycled max_recycles times is replaced under a new name",
			     replaced_when_recycled_often),
		MACHINE_TEST("so is an unhealthy one", unhealthy_and_recycled_often),
		MACHINE_TEST("an agent whose recycling fails is replaced",
			     failed_recycling_is_replaced),
		MACHINE_TEST("a limit of 0 never recycles", no_limit_no_recycling),
		MACHINE_TEST("a prompt over requests_per_quota is EDQUOT", prompts_over_quota),
		MACHINE_TEST("prompts are allowed again after 24 h", prompts_again_next_day),
		MACHINE_TEST("the quota is the agent's, not the lease's", quota_outlives_leases),
	};
	const struct CMUnitTest size[] = {
		MACHINE_TEST("the warm minimum is spawned, max_spawning at once", warm_minimum),
		MACHINE_TEST("a burst never makes more agents than the maximum",
			     never_over_the_maximum),
		MACHINE_TEST("an agent that is being stopped counts against the maximum",
			     ending_agents_count),
		MACHINE_TEST("utilization over up_at grows the pool at once",
			     utilization_up_at_once),
		MACHINE_TEST("utilization at up_at does not", utilization_at_its_bound),
		MACHINE_TEST("agents that are still starting are not started again",
			     slow_starts_are_capacity),
		MACHINE_TEST("utilization under down_at retires one agent a window",
			     utilization_down_by_steps),
		MACHINE_TEST("load in between begins the window anew", load_begins_the_window_anew),
		MACHINE_TEST("without a window the pool shrinks at once", no_window_no_delay),
		MACHINE_TEST("spare keeps min_idle agents beside the leased", spare_keeps_min_idle),
		MACHINE_TEST("spare trims idle agents to max_idle", spare_trims_to_max_idle),
		MACHINE_TEST("a manual size holds until it is automatic again", manual_target),
		MACHINE_TEST("the desired size is what the pool goes to",
			     desired_size_is_what_the_pool_goes_to),
		MACHINE_TEST("a smaller size is desired before it is gone to",
			     a_smaller_size_is_desired_before_it_is_gone_to),
		MACHINE_TEST("demand does not exceed a manual size",
			     target_is_not_exceeded_by_demand),
		MACHINE_TEST("a manual size outside of the limits is ERANGE", target_out_of_range),
		MACHINE_TEST("a manual size follows the limits", target_follows_the_limits),
		MACHINE_TEST("scaling never takes a leased agent away", spares_the_leased),
		MACHINE_TEST("drain retires idle agents and leaves leases alone", drains_the_idle),
		MACHINE_TEST("drain leaves the minimum", drains_to_the_minimum),
		MACHINE_TEST("an agent that is being retired serves nobody",
			     draining_serves_nobody),
		MACHINE_TEST("a lower maximum retires idle agents", lower_maximum_retires),
		MACHINE_TEST("idle agents over the minimum are retired after idle_timeout",
			     shrinks_when_idle),
		MACHINE_TEST("an agent idles from its return on, not from its lease",
			     idles_from_its_return),
		MACHINE_TEST("the agent that idles longest is retired first",
			     longest_idle_goes_first),
		MACHINE_TEST("idle_timeout leaves the spare agents of policy spare",
			     idle_timeout_leaves_the_spare),
		MACHINE_TEST("the counts are those of the last step", counts_are_those_of_now),
		MACHINE_TEST("a pass probes idle and leased agents", pass_probes),
		MACHINE_TEST("a pass does not probe agents that are coming",
			     pass_does_not_probe_the_coming),
		MACHINE_TEST("a probe from before a change of state is ESTALE",
			     probe_of_before_is_stale),
		MACHINE_TEST("a fixed interval between passes stays", fixed_interval),
		MACHINE_TEST("three quiet passes make the adapted interval longer, to its bound",
			     quiet_passes_lengthen),
		MACHINE_TEST("work between passes makes the adapted interval shorter, to its bound",
			     busy_passes_shorten),
		MACHINE_TEST("a shorter interval holds at once", shorter_interval_holds_at_once),
	};
	const struct CMUnitTest breaker[] = {
		MACHINE_TEST("three failed spawns in a row open the breaker", breaker_opens),
		MACHINE_TEST("an acquirer that nothing can serve has EHOSTDOWN at once",
			     broken_serves_nobody),
		MACHINE_TEST("who waits when nothing can serve any more has EHOSTDOWN",
			     breaking_refuses_who_waits),
		MACHINE_TEST("a failed spawn is repeated for who waits", failed_spawn_is_repeated),
		MACHINE_TEST("half-open lets exactly one start through, which has to live 5 s",
			     half_open_lets_one),
		MACHINE_TEST("half-open opens again when its start fails", half_open_opens_again),
		MACHINE_TEST("a program that ends at once is a failed spawn",
			     early_exits_open_the_breaker),
		MACHINE_TEST("a program that ends later is none", late_exits_do_not),
		MACHINE_TEST("reset-breaker starts agents at once", breaker_is_reset),
		MACHINE_TEST("a maintenance pass does not forget the breaker's retry",
			     retry_is_not_forgotten),
	};
	const struct CMUnitTest ends[] = {
		MACHINE_TEST("an exit while spawning is one failed spawn", exits_spawning),
		MACHINE_TEST("an exit while idle recycles, and the dead agent serves nobody",
			     exits_idle),
		MACHINE_TEST("an exit while validating is left to the validation",
			     exits_validating),
		MACHINE_TEST("an exit while leased leaves the lease", exits_active),
		MACHINE_TEST("an exit while recycling stops the agent", exits_recycling),
		MACHINE_TEST("an exit of what is quarantined changes nothing", exits_quarantined),
		MACHINE_TEST("an exit while ending changes nothing", exits_ending),
		MACHINE_TEST("a kill of no agent is ENOENT", kills_nothing),
		MACHINE_TEST("an agent killed while spawning is stopped then", kills_spawning),
		MACHINE_TEST("an agent killed while idle is stopped", kills_idle),
		MACHINE_TEST("an agent is not killed while validating", kills_validating),
		MACHINE_TEST("an agent killed while leased is saved and stopped", kills_active),
		MACHINE_TEST("an agent killed while released is saved once and stopped",
			     kills_released),
		MACHINE_TEST("an agent killed while recycling is stopped then", kills_recycling),
		MACHINE_TEST("what is quarantined is not killed before it is saved",
			     kills_quarantined),
		MACHINE_TEST("an agent killed while draining ends once", kills_draining),
		MACHINE_TEST("an agent killed while stopping ends once", kills_stopping),
		MACHINE_TEST("a killed agent is replaced under a new name", killed_is_replaced),
		MACHINE_TEST("shutdown saves every lease and stops every agent", shuts_down),
		MACHINE_TEST("shutdown refuses who waits", shuts_down_who_waits),
		MACHINE_TEST("shutdown does not wait for an acquirer that is being validated",
			     shuts_down_while_validating),
		MACHINE_TEST("shutdown ends agents that are still spawning",
			     shuts_down_while_spawning),
		MACHINE_TEST("shutdown saves a lease that is being released once",
			     shuts_down_while_releasing),
		MACHINE_TEST(
			"a suspended pool begins nothing, whatever is due, and then all at once",
			suspended_begins_nothing_whatever_is_due),
		MACHINE_TEST("shutdown keeps the worktree of what cannot be saved",
			     shutdown_keeps_what_is_not_saved),
		MACHINE_TEST("shutdown lets go what is quarantined, and keeps its worktree",
			     shutdown_lets_go_what_is_quarantined),
		MACHINE_TEST("shutdown recycles nothing", shutdown_recycles_nothing),
		MACHINE_TEST("a change of state is reported once, with its reason",
			     moves_are_reported),
		MACHINE_TEST("a life is reported with the reason of every step",
			     life_is_reported_with_its_reasons),
		MACHINE_TEST("a refused event changes nothing", refused_event_changes_nothing),
		IT("every effect has the event of its outcome", outcomes_belong_to_effects),
		MACHINE_TEST("a name is never used twice", numbers_are_not_used_twice),
	};
	const struct CMUnitTest hosts[] = {
		MACHINE_TEST("a pool begins with one host, that may have all agents",
			     one_host_has_all),
		MACHINE_TEST("a host that there is not is refused", hosts_that_are_none),
		MACHINE_TEST("agents begin on hosts that are up and have room",
			     agents_begin_where_there_is_room),
		MACHINE_TEST("agents are spread over the hosts", agents_are_spread),
		MACHINE_TEST("agents are packed where the policy says so", agents_are_packed),
		MACHINE_TEST("agents begin where the template is, where the policy says so",
			     agents_begin_where_it_is_warm),
		MACHINE_TEST("who wants a host is served there, by an agent that begins for him",
			     host_is_wanted),
		MACHINE_TEST("who wants an agent of another host is refused",
			     host_and_agent_are_wanted),
		MACHINE_TEST(
			"the agent that had a label last is not taken on another host than wanted",
			label_does_not_lead_to_another_host),
		MACHINE_TEST("who wants a host has his turn in the order of the queue",
			     who_wants_a_host_has_his_turn),
		MACHINE_TEST("who wants a host that is down waits until it is up",
			     host_that_goes_down_is_waited_for),
		MACHINE_TEST("a lease on a draining host goes on, and its agent leaves with it",
			     draining_host_empties),
		MACHINE_TEST("a draining host keeps nothing that is idle",
			     draining_host_keeps_nothing_idle),
		MACHINE_TEST("a draining host ends what was coming there",
			     draining_host_ends_what_was_coming),
		MACHINE_TEST("on a lost host what serves nobody is lost, and counts",
			     lost_host_loses_what_serves_nobody),
		MACHINE_TEST("nobody is granted an agent of a lost host", lost_host_grants_nothing),
		MACHINE_TEST("lost agents are replaced on other hosts, within max_size",
			     lost_agents_are_replaced_elsewhere),
		MACHINE_TEST("an acquirer whose host is lost goes elsewhere, and no try is counted",
			     acquirer_of_a_lost_host_goes_elsewhere),
		MACHINE_TEST("an acquirer that does not wait does not wait for a lost host",
			     once_does_not_wait_for_a_lost_host),
		MACHINE_TEST("nothing times out on a lost host", nothing_times_out_on_a_lost_host),
		MACHINE_TEST("release, kill and recycle on a lost host are EHOSTUNREACH",
			     lost_host_is_not_reached),
		MACHINE_TEST("a lost host is not probed", lost_host_is_not_probed),
		MACHINE_TEST("outcomes on a lost host count, and nothing begins there",
			     what_ends_on_a_lost_host_is_taken_note_of),
		MACHINE_TEST("work that cannot be saved on a lost host is kept",
			     what_cannot_be_saved_on_a_lost_host_is_kept),
		MACHINE_TEST(
			"what comes back is cleaned and restarted, and what was never born ends",
			what_is_back_begins_anew),
		MACHINE_TEST("leases and effects that come back have their full time",
			     what_is_back_has_its_full_time),
		MACHINE_TEST("what comes back on a draining host leaves",
			     what_is_back_on_a_draining_host_leaves),
		MACHINE_TEST("an agent killed before its host was lost ends when it is back",
			     kill_before_a_loss_is_not_forgotten),
		MACHINE_TEST("a host that is back waits for a suspended pool",
			     host_that_is_back_waits_for_a_suspended_pool),
		MACHINE_TEST("shutdown ends what is on a lost host when it is back",
			     shutdown_waits_for_a_lost_host),
		MACHINE_TEST(
			"a dead host ends all its agents at once, and answers who waits for them",
			dead_host_ends_all_its_agents),
		MACHINE_TEST("a host may die without being lost before",
			     host_dies_without_being_lost_before),
		MACHINE_TEST("fewer slots drain what idles beyond, the longest first, and no lease",
			     fewer_slots_drain_what_idles),
		MACHINE_TEST("agents are adopted on their hosts, also on a lost one",
			     agents_are_adopted_on_their_hosts),
		MACHINE_TEST("every host has a breaker of its own", every_host_has_its_breaker),
		MACHINE_TEST("acquirers are refused where every breaker is open",
			     nothing_serves_where_every_breaker_is_open),
		MACHINE_TEST("acquirers wait for hosts that are lost or pending",
			     who_waits_for_hosts_to_come_waits),
	};
	return cmocka_run_group_tests(leases, NULL, NULL) +
	       cmocka_run_group_tests(deadlines, NULL, NULL) +
	       cmocka_run_group_tests(recycling, NULL, NULL) +
	       cmocka_run_group_tests(size, NULL, NULL) +
	       cmocka_run_group_tests(breaker, NULL, NULL) +
	       cmocka_run_group_tests(ends, NULL, NULL) +
	       cmocka_run_group_tests(limits, NULL, NULL) +
	       cmocka_run_group_tests(hosts, NULL, NULL);
}
