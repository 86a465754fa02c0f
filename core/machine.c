#include "machine.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* A program that ends sooner than this after its spawn makes the spawn a failure. */
#define PROVEN_AFTER (5 * AP_SECOND)
/* Agents that may fail under one acquirer before the failure is the acquirer's answer. */
#define MAX_TRIES 2

#define BIT(state) (1u << AP_AGENT_##state)

/* Legal moves; anything else is a programming error. */
static const unsigned legal_moves[AP_N_AGENT_STATES] = {
	[AP_AGENT_FREE] = BIT(SPAWNING),
	[AP_AGENT_SPAWNING] = BIT(IDLE) | BIT(STOPPING),
	[AP_AGENT_IDLE] =
		BIT(VALIDATING) | BIT(RECYCLING) | BIT(DRAINING) | BIT(UNHEALTHY) | BIT(STOPPING),
	[AP_AGENT_VALIDATING] = BIT(IDLE) | BIT(ACTIVE) | BIT(UNHEALTHY) | BIT(STOPPING),
	[AP_AGENT_ACTIVE] = BIT(RECYCLING) | BIT(DRAINING) | BIT(UNHEALTHY) | BIT(STOPPING),
	[AP_AGENT_RECYCLING] = BIT(IDLE) | BIT(UNHEALTHY) | BIT(STOPPING),
	[AP_AGENT_UNHEALTHY] = BIT(RECYCLING) | BIT(STOPPING),
	[AP_AGENT_DRAINING] = BIT(STOPPING),
	[AP_AGENT_STOPPING] = BIT(FREE),
};

static void wake_by(struct machine *m, int64_t at_ns)
{
	if (at_ns < m->wake_ns)
		m->wake_ns = at_ns;
}

static unsigned slot_index(const struct machine *m, const struct machine_slot *slot)
{
	return (unsigned)(slot - m->slots);
}

/* The only function that changes a slot's state. IDLE is entered at the front: last used first. */
static void slot_move(struct machine *m, struct machine_slot *slot, enum ap_agent_state to)
{
	assert(legal_moves[slot->state] & (1u << to));
	ap_list_remove(&slot->link);
	m->n_in_state[slot->state]--;
	slot->state = to;
	m->n_in_state[to]++;
	ap_list_insert_after(&m->states[to], &slot->link);
}

static void effect_add(struct machine *m, struct machine_effects *fx, enum machine_effect_type type,
		       struct machine_slot *slot, bool discard)
{
	assert(fx->n < machine_max_effects(m));
	fx->at[fx->n++] = (struct machine_effect){
		.type = type,
		.slot = slot_index(m, slot),
		.generation = slot->generation,
		.discard = discard,
	};
}

static void answer(struct machine_effects *fx, struct machine_request *request, int result)
{
	request->result = result;
	request->state = REQUEST_ANSWERED;
	ap_list_append(&fx->answered, &request->link);
}

static void slot_answer(struct machine_slot *slot, struct machine_effects *fx, int result)
{
	if (slot->request)
		answer(fx, slot->request, result);
	slot->request = NULL;
}

static void slot_prove(struct machine *m, struct machine_slot *slot)
{
	if (slot->proven)
		return;
	slot->proven = true;
	m->n_unproven--;
	breaker_succeeded(&m->breaker);
}

static uint32_t random_next(struct machine *m)
{
	/* xorshift32: Marsaglia, 2003 */
	m->random ^= m->random << 13;
	m->random ^= m->random >> 17;
	m->random ^= m->random << 5;
	return m->random;
}

static void spawn_failed(struct machine *m, int error, int64_t now)
{
	m->spawn_error = error;
	breaker_failed(&m->breaker, now, random_next(m));
	if (m->breaker.state == BREAKER_OPEN)
		wake_by(m, m->breaker.retry_ns);
}

static void slot_disown(struct machine *m, struct machine_slot *slot)
{
	if (!slot->proven)
		m->n_unproven--;
	slot->proven = true;
}

static void slot_stop(struct machine *m, struct machine_slot *slot, struct machine_effects *fx)
{
	slot_disown(m, slot);
	slot_move(m, slot, AP_AGENT_STOPPING);
	effect_add(m, fx, EFFECT_STOP, slot, slot->aside);
}

static void slot_free(struct machine *m, struct machine_slot *slot)
{
	slot_move(m, slot, AP_AGENT_FREE);
	struct ap_list link = slot->link;
	*slot = (struct machine_slot){.link = link, .state = AP_AGENT_FREE, .proven = true};
}

/* Becomes idle, or is stopped where that was asked for meanwhile. */
static void slot_settle(struct machine *m, struct machine_slot *slot, int64_t now,
			struct machine_effects *fx)
{
	slot->used_ns = now;
	if (slot->stop_after || m->shutdown)
		slot_stop(m, slot, fx);
	else
		slot_move(m, slot, AP_AGENT_IDLE);
}

static void lease_clear(struct machine_slot *slot)
{
	slot->label[0] = '\0';
	slot->token = 0;
	slot->granted_ns = slot->expires_ns = slot->ttl_ns = 0;
	slot->uid = 0;
	slot->pid = 0;
	slot->by_handle = slot->releasing = false;
}

static void lease_end(struct machine *m, struct machine_slot *slot, bool discard,
		      struct machine_request *request, struct machine_effects *fx)
{
	slot->releasing = true;
	slot->request = request;
	if (request)
		request->state = REQUEST_RELEASING;
	effect_add(m, fx, EFFECT_SAVE, slot, discard);
}

/* --- reconcile: level-triggered, after every event --- */

static struct machine_slot *idle_for(struct machine *m, const struct machine_request *request)
{
	struct ap_list *at;
	ap_list_for_each (at, &m->states[AP_AGENT_IDLE]) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (request->agent == 0 || request->agent == slot->number)
			return slot;
	}
	return NULL;
}

static void waiter_remove(struct machine *m, struct machine_request *request)
{
	ap_list_remove(&request->link);
	m->n_waiting--;
}

static void reserve(struct machine *m, struct machine_slot *slot, struct machine_request *request,
		    struct machine_effects *fx)
{
	waiter_remove(m, request);
	request->state = REQUEST_VALIDATING;
	request->slot = slot_index(m, slot);
	slot->request = request;
	slot->uid = request->uid;
	slot->pid = request->pid;
	slot->by_handle = request->by_handle;
	slot->ttl_ns = request->ttl_ns;
	memcpy(slot->label, request->label, sizeof slot->label);
	slot_move(m, slot, AP_AGENT_VALIDATING);
	effect_add(m, fx, EFFECT_VALIDATE, slot, false);
}

/* Idle agents to the waiters in their order; one that wants a certain agent is passed over. */
static void serve(struct machine *m, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &m->waiters) {
		if (m->n_in_state[AP_AGENT_IDLE] == 0)
			return;
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		struct machine_slot *slot = idle_for(m, request);
		if (slot)
			reserve(m, slot, request, fx);
	}
}

static unsigned size_wanted(const struct machine *m)
{
	if (m->shutdown)
		return 0;
	if (m->target >= 0)
		return (unsigned)m->target;
	struct scaling_sample sample;
	machine_sample(m, &sample);
	unsigned desired = scaling_desired(&sample, m->limits.scale_up_at);
	/* what comes back from a lease or a spawn serves a waiter too */
	unsigned coming = m->n_in_state[AP_AGENT_SPAWNING] + m->n_in_state[AP_AGENT_RECYCLING];
	unsigned ready = coming + m->n_in_state[AP_AGENT_IDLE];
	if (m->n_waiting > ready && sample.n_total + m->n_waiting - ready > desired)
		desired = sample.n_total + m->n_waiting - ready;
	return desired > m->limits.min_size ? desired : m->limits.min_size;
}

static void note_scaled(struct machine *m, enum ap_scale_direction direction, int64_t now)
{
	m->scaled_ns = now;
	m->scale_direction = direction;
}

static void grow(struct machine *m, unsigned wanted, int64_t now, struct machine_effects *fx)
{
	if (wanted > m->limits.max_size)
		wanted = m->limits.max_size;
	while (machine_total(m) < wanted &&
	       m->n_in_state[AP_AGENT_SPAWNING] < m->limits.max_spawning &&
	       breaker_allowance(&m->breaker, m->n_unproven, now) > 0) {
		if (machine_total(m) >= m->limits.min_size)
			note_scaled(m, AP_SCALE_UP, now);
		struct machine_slot *slot =
			ap_container_of(m->states[AP_AGENT_FREE].next, struct machine_slot, link);
		slot->number = m->next_number++;
		slot->generation = 1;
		slot->created_ns = slot->used_ns = now;
		slot->proven = false;
		m->n_unproven++;
		slot_move(m, slot, AP_AGENT_SPAWNING);
		effect_add(m, fx, EFFECT_SPAWN, slot, false);
	}
}

static struct machine_slot *idle_longest(struct machine *m)
{
	if (m->n_in_state[AP_AGENT_IDLE] == 0)
		return NULL;
	return ap_container_of(m->states[AP_AGENT_IDLE].prev, struct machine_slot, link);
}

static void retire_idle(struct machine *m, unsigned down_to, int64_t idle_since, int64_t now,
			struct machine_effects *fx)
{
	struct machine_slot *slot;
	while (machine_total(m) - m->n_in_state[AP_AGENT_STOPPING] > down_to &&
	       (slot = idle_longest(m)) && slot->used_ns <= idle_since) {
		slot_stop(m, slot, fx);
		note_scaled(m, AP_SCALE_DOWN, now);
	}
}

static void refuse_all(struct machine *m, int error, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &m->waiters) {
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		waiter_remove(m, request);
		answer(fx, request, error);
	}
}

static bool hopeless(const struct machine *m)
{
	return m->breaker.state == BREAKER_OPEN && machine_total(m) == 0;
}

static void reconcile(struct machine *m, int64_t now, struct machine_effects *fx)
{
	serve(m, fx);
	unsigned wanted = size_wanted(m);
	grow(m, wanted, now, fx);
	if (m->shutdown || m->target >= 0)
		retire_idle(m, wanted, AP_FOREVER, now, fx);
	else if (machine_total(m) > m->limits.max_size)
		retire_idle(m, m->limits.max_size, AP_FOREVER, now, fx);
	if (hopeless(m))
		refuse_all(m, -EHOSTDOWN, fx);
}

/* --- events --- */

static bool label_taken(struct machine *m, const char *label)
{
	struct ap_list *at;
	ap_list_for_each (at, &m->waiters) {
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		if (strcmp(request->label, label) == 0)
			return true;
	}
	return machine_find_label(m, label);
}

static void label_invent(struct machine *m, struct machine_request *request)
{
	do
		snprintf(request->label, sizeof request->label, "lease-%" PRIu64, m->next_lease++);
	while (label_taken(m, request->label));
}

/* One that tries once does not wait. */
static void refuse_if_once(struct machine *m, struct machine_request *request,
			   struct machine_effects *fx)
{
	if (request->state != REQUEST_WAITING || !request->once)
		return;
	waiter_remove(m, request);
	answer(fx, request, -EAGAIN);
}

static int on_acquire(struct machine *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_request *request = event->request;
	if (m->closed)
		return -ESHUTDOWN;
	if (request->agent && !machine_find_number(m, request->agent))
		return -ENOENT;
	if (request->label[0] && label_taken(m, request->label))
		return -EEXIST;
	if (!request->label[0])
		label_invent(m, request);
	request->state = REQUEST_WAITING;
	request->n_tries = 0;
	ap_list_append(&m->waiters, &request->link);
	m->n_waiting++;
	request->once = request->deadline_ns <= now;
	reconcile(m, now, fx);
	refuse_if_once(m, request, fx);
	if (request->once)
		request->deadline_ns = AP_FOREVER; /* an agent is there: it may be made ready */
	wake_by(m, request->deadline_ns);
	return 0;
}

static int on_cancel(struct machine *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	struct machine_request *request = event->request;
	switch (request->state) {
	case REQUEST_WAITING:
		waiter_remove(m, request);
		break;
	case REQUEST_VALIDATING:
	case REQUEST_RELEASING:
		m->slots[request->slot].request = NULL;
		break;
	case REQUEST_NEW:
	case REQUEST_ANSWERED:
		return -EALREADY;
	}
	answer(fx, request, -ECANCELED);
	return 0;
}

static int on_release(struct machine *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (slot->state != AP_AGENT_ACTIVE && !slot->aside)
		return -ENOENT;
	if (slot->releasing || slot->state == AP_AGENT_STOPPING ||
	    (event->token && event->token != slot->token))
		return -ESTALE;
	if (event->request)
		event->request->slot = event->slot;
	lease_end(m, slot, event->discard, event->request, fx);
	return 0;
}

static int on_renew(struct machine *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (!machine_slot_leased(slot))
		return -ESTALE;
	if (slot->ttl_ns > 0)
		slot->expires_ns = ap_clock_after(now, slot->ttl_ns);
	return 0;
}

static int on_kill(struct machine *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	switch (slot->state) {
	case AP_AGENT_FREE:
		return -ENOENT;
	case AP_AGENT_VALIDATING:
		return -EBUSY;
	case AP_AGENT_IDLE:
		slot_stop(m, slot, fx);
		break;
	case AP_AGENT_ACTIVE:
		if (!slot->releasing)
			lease_end(m, slot, false, NULL, fx);
		break;
	case AP_AGENT_UNHEALTHY:
		if (slot->aside && !slot->releasing)
			lease_end(m, slot, false, NULL, fx);
		break;
	default:
		break;
	}
	slot->stop_after = true;
	return 0;
}

static int on_spawned(struct machine *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (slot->state != AP_AGENT_SPAWNING)
		return -ESTALE;
	if (event->result < 0) {
		slot_disown(m, slot);
		slot_move(m, slot, AP_AGENT_STOPPING); /* nothing is left to stop */
		slot_free(m, slot);
		spawn_failed(m, event->result, now);
		return 0;
	}
	m->n_spawned++;
	wake_by(m, slot->created_ns + PROVEN_AFTER);
	slot_settle(m, slot, now, fx);
	return 0;
}

/* Errors that are the acquirer's own doing and say nothing about the agent. */
static bool acquirer_at_fault(int error)
{
	return error == -EBUSY || error == -EINVAL || error == -EEXIST;
}

static void grant(struct machine *m, struct machine_slot *slot, int64_t now,
		  struct machine_effects *fx)
{
	slot_move(m, slot, AP_AGENT_ACTIVE);
	slot->token = m->next_token++;
	slot->granted_ns = now;
	if (!slot->request) { /* the acquirer gave up meanwhile */
		lease_end(m, slot, false, NULL, fx);
		return;
	}
	slot->n_requests++;
	m->n_grants++;
	slot->expires_ns = slot->ttl_ns > 0 ? ap_clock_after(now, slot->ttl_ns) : AP_FOREVER;
	wake_by(m, slot->expires_ns);
	slot->request->token = slot->token;
	slot_answer(slot, fx, 0);
}

static int on_validated(struct machine *m, const struct machine_event *event, int64_t now,
			struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (slot->state != AP_AGENT_VALIDATING)
		return -ESTALE;
	if (event->result == 0) {
		grant(m, slot, now, fx);
		return 0;
	}
	struct machine_request *request = slot->request;
	slot->request = NULL;
	lease_clear(slot);
	if (acquirer_at_fault(event->result)) {
		if (request)
			answer(fx, request, event->result);
		slot_settle(m, slot, now, fx);
		return 0;
	}
	slot_move(m, slot, AP_AGENT_UNHEALTHY);
	slot_stop(m, slot, fx);
	if (!request)
		return 0;
	if (request->agent) {
		answer(fx, request, -ENOENT); /* the only one that would have done */
	} else if (m->closed || ++request->n_tries >= MAX_TRIES) {
		answer(fx, request, m->closed ? -ESHUTDOWN : -EIO);
	} else { /* unnoticed: first in the queue again */
		request->state = REQUEST_WAITING;
		ap_list_insert_after(&m->waiters, &request->link);
		m->n_waiting++;
		wake_by(m, request->deadline_ns);
		serve(m, fx);
		refuse_if_once(m, request, fx);
	}
	return 0;
}

static int on_saved(struct machine *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (!slot->releasing)
		return -ESTALE;
	slot_answer(slot, fx, event->result);
	slot->releasing = false;
	slot->token = 0;
	if (event->result < 0) { /* the label stays to be seen: it is where the work is */
		if (slot->state == AP_AGENT_ACTIVE)
			slot_move(m, slot, AP_AGENT_UNHEALTHY);
		slot->aside = true;
		slot->stop_after = false;
		return 0;
	}
	bool was_aside = slot->aside;
	slot->aside = false;
	lease_clear(slot);
	if (slot->stop_after || m->shutdown || was_aside) {
		slot_stop(m, slot, fx);
		return 0;
	}
	slot_prove(m, slot);
	slot_move(m, slot, AP_AGENT_RECYCLING);
	effect_add(m, fx, EFFECT_RECYCLE, slot, false);
	return 0;
}

static int on_recycled(struct machine *m, const struct machine_event *event, int64_t now,
		       struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (slot->state != AP_AGENT_RECYCLING)
		return -ESTALE;
	if (event->result < 0) {
		slot_move(m, slot, AP_AGENT_UNHEALTHY);
		slot_stop(m, slot, fx);
		spawn_failed(m, event->result, now);
		return 0;
	}
	slot->generation++;
	slot_settle(m, slot, now, fx);
	return 0;
}

static int on_stopped(struct machine *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (slot->state != AP_AGENT_STOPPING)
		return -ESTALE;
	m->n_terminated++;
	slot_free(m, slot);
	return 0;
}

static int on_exited(struct machine *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	struct machine_slot *slot = &m->slots[event->slot];
	if (!slot->proven)
		spawn_failed(m, -ECHILD, now);
	/* a leased agent stays as it is: its holder sees `exited` and may restart it */
	if (slot->state == AP_AGENT_IDLE) {
		slot_move(m, slot, AP_AGENT_UNHEALTHY);
		slot_stop(m, slot, fx);
	} else if (slot->state == AP_AGENT_SPAWNING || slot->state == AP_AGENT_RECYCLING) {
		slot->stop_after = true; /* before its effect was reported */
	}
	return 0;
}

static void expire_waiters(struct machine *m, int64_t now, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &m->waiters) {
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		if (request->deadline_ns > now) {
			wake_by(m, request->deadline_ns);
			continue;
		}
		waiter_remove(m, request);
		answer(fx, request, -ETIMEDOUT);
	}
}

static void expire_slot(struct machine *m, struct machine_slot *slot, int64_t now,
			struct machine_effects *fx)
{
	if (machine_slot_leased(slot)) {
		if (slot->expires_ns <= now)
			lease_end(m, slot, false, NULL, fx);
		else
			wake_by(m, slot->expires_ns);
	}
	if (slot->state == AP_AGENT_VALIDATING && slot->request) {
		if (slot->request->deadline_ns <= now)
			slot_answer(slot, fx, -ETIMEDOUT);
		else
			wake_by(m, slot->request->deadline_ns);
	}
	if (!slot->proven && slot->state != AP_AGENT_SPAWNING) {
		if (slot->created_ns + PROVEN_AFTER <= now)
			slot_prove(m, slot);
		else
			wake_by(m, slot->created_ns + PROVEN_AFTER);
	}
}

static int on_pass(struct machine *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	m->pass_due_ns = ap_clock_after(now, m->limits.pass_ns);
	wake_by(m, m->pass_due_ns);
	if (m->limits.idle_timeout_ns > 0 && m->n_waiting == 0 && m->target < 0)
		retire_idle(m, m->limits.min_size, now - m->limits.idle_timeout_ns, now, fx);
	return 0;
}

static int on_timer(struct machine *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	m->wake_ns = AP_FOREVER;
	if (m->pass_due_ns <= now)
		on_pass(m, event, now, fx);
	wake_by(m, m->pass_due_ns);
	if (m->breaker.state == BREAKER_OPEN && m->breaker.retry_ns > now)
		wake_by(m, m->breaker.retry_ns);
	expire_waiters(m, now, fx);
	for (unsigned i = 0; i < m->n_slots; i++)
		expire_slot(m, &m->slots[i], now, fx);
	return 0;
}

static int on_config(struct machine *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	if (m->pass_due_ns > ap_clock_after(now, m->limits.pass_ns)) {
		m->pass_due_ns = ap_clock_after(now, m->limits.pass_ns);
		wake_by(m, m->pass_due_ns);
	}
	return 0;
}

static int on_scale(struct machine *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	if (event->target >= 0 && ((unsigned)event->target < m->limits.min_size ||
				   (unsigned)event->target > m->limits.max_size))
		return -ERANGE;
	m->target = event->target;
	return 0;
}

static int on_drain(struct machine *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	retire_idle(m, m->limits.min_size, AP_FOREVER, now, fx);
	return 0;
}

static int on_close(struct machine *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	m->closed = true;
	refuse_all(m, -ESHUTDOWN, fx);
	return 0;
}

static int on_open(struct machine *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	if (m->shutdown)
		return -ESHUTDOWN;
	m->closed = false;
	return 0;
}

static int on_shutdown(struct machine *m, const struct machine_event *event, int64_t now,
		       struct machine_effects *fx)
{
	on_close(m, event, now, fx);
	m->shutdown = true;
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = &m->slots[i];
		if (machine_slot_leased(slot))
			lease_end(m, slot, false, NULL, fx);
		else if (slot->state == AP_AGENT_VALIDATING)
			slot_answer(slot, fx, -ESHUTDOWN); /* ended as soon as it is granted */
	}
	return 0;
}

/* What was set aside is let go; its worktree is kept. */
static void leave_aside(struct machine *m, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &m->states[AP_AGENT_UNHEALTHY]) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (!slot->releasing)
			slot_stop(m, slot, fx);
	}
}

static const struct {
	int (*handle)(struct machine *, const struct machine_event *, int64_t,
		      struct machine_effects *);
	bool outcome; /* names a slot and the generation it is about */
} handlers[] = {
	[MACHINE_ACQUIRE] = {on_acquire, false},    [MACHINE_CANCEL] = {on_cancel, false},
	[MACHINE_RELEASE] = {on_release, false},    [MACHINE_RENEW] = {on_renew, false},
	[MACHINE_KILL] = {on_kill, false},	    [MACHINE_SPAWNED] = {on_spawned, true},
	[MACHINE_VALIDATED] = {on_validated, true}, [MACHINE_SAVED] = {on_saved, true},
	[MACHINE_RECYCLED] = {on_recycled, true},   [MACHINE_STOPPED] = {on_stopped, true},
	[MACHINE_EXITED] = {on_exited, true},	    [MACHINE_TIMER] = {on_timer, false},
	[MACHINE_PASS] = {on_pass, false},	    [MACHINE_CONFIG] = {on_config, false},
	[MACHINE_SCALE] = {on_scale, false},	    [MACHINE_DRAIN] = {on_drain, false},
	[MACHINE_CLOSE] = {on_close, false},	    [MACHINE_OPEN] = {on_open, false},
	[MACHINE_SHUTDOWN] = {on_shutdown, false},
};

int machine_step(struct machine *m, const struct machine_event *event, int64_t now,
		 struct machine_effects *fx)
{
	fx->n = 0;
	ap_list_init(&fx->answered);
	if (handlers[event->type].outcome && m->slots[event->slot].generation != event->generation)
		return -ESTALE;
	int r = handlers[event->type].handle(m, event, now, fx);
	if (r < 0)
		return r;
	reconcile(m, now, fx);
	if (m->shutdown)
		leave_aside(m, fx);
	return 0;
}

unsigned machine_max_effects(const struct machine *m)
{
	/* in one step a slot leaves a state at most a few times: spawned, settled, stopped */
	return 4 * m->n_slots;
}

struct machine_slot *machine_find_label(const struct machine *m, const char *label)
{
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = &m->slots[i];
		if ((slot->state == AP_AGENT_ACTIVE || slot->state == AP_AGENT_VALIDATING ||
		     slot->aside) &&
		    strcmp(slot->label, label) == 0)
			return slot;
	}
	return NULL;
}

struct machine_slot *machine_find_number(const struct machine *m, unsigned number)
{
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = &m->slots[i];
		if (slot->state != AP_AGENT_FREE && slot->number == number)
			return slot;
	}
	return NULL;
}

unsigned machine_total(const struct machine *m)
{
	return m->n_slots - m->n_in_state[AP_AGENT_FREE];
}

void machine_sample(const struct machine *m, struct scaling_sample *ret)
{
	const unsigned *n = m->n_in_state;
	*ret = (struct scaling_sample){
		.n_active = n[AP_AGENT_ACTIVE] + n[AP_AGENT_VALIDATING],
		.n_idle = n[AP_AGENT_IDLE],
		.n_coming = n[AP_AGENT_SPAWNING] + n[AP_AGENT_RECYCLING],
		.n_waiting = m->n_waiting,
		.n_total = machine_total(m),
	};
}

int machine_init(struct machine *m, unsigned n_slots, const struct machine_limits *limits,
		 uint32_t next_number, uint32_t seed, int64_t now_ns)
{
	*m = (struct machine){
		.limits = *limits,
		.n_slots = n_slots,
		.target = -1,
		.next_number = next_number,
		.next_token = 1,
		.next_lease = 1,
		.random = seed ? seed : 1,
		.scale_direction = AP_SCALE_NONE,
	};
	m->slots = calloc(n_slots, sizeof *m->slots);
	if (!m->slots)
		return -ENOMEM;
	ap_list_init(&m->waiters);
	for (int i = 0; i < AP_N_AGENT_STATES; i++)
		ap_list_init(&m->states[i]);
	for (unsigned i = 0; i < n_slots; i++) {
		m->slots[i].state = AP_AGENT_FREE;
		m->slots[i].proven = true;
		ap_list_append(&m->states[AP_AGENT_FREE], &m->slots[i].link);
	}
	m->n_in_state[AP_AGENT_FREE] = n_slots;
	m->pass_due_ns = m->wake_ns = ap_clock_after(now_ns, limits->pass_ns);
	return 0;
}

void machine_fini(struct machine *m)
{
	free(m->slots);
	m->slots = NULL;
}
