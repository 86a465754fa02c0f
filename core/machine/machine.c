#include "machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* A start counts as failed if the program ends sooner than this. */
#define PROVEN_AFTER (5 * AP_SECOND)
/* Agents that may fail under one acquirer: at the last one the acquirer gets -EIO. */
#define MAX_TRIES 2
/* How long a save, a drain and a stop may take. */
#define SAVE_LIMIT  (600 * AP_SECOND)
#define DRAIN_LIMIT (60 * AP_SECOND)
#define STOP_LIMIT  (120 * AP_SECOND)
/* Bounds of the adapted interval between maintenance passes. */
#define PASS_FIRST    (30 * AP_SECOND)
#define PASS_SHORTEST AP_SECOND
#define PASS_LONGEST  (120 * AP_SECOND)
#define QUIET_PASSES  3 /* in a row lengthen it */
/* Labels of waiters in one bucket of the index while the queue is full. */
#define LABELS_A_BUCKET 8
/* The period of the prompt quota. */
#define QUOTA_SPAN (24 * 3600 * AP_SECOND)

#define BIT(state) (1u << AP_AGENT_##state)

/* Legal moves; anything else is a programming error. */
static const unsigned legal_moves[AP_N_AGENT_STATES] = {
	[AP_AGENT_FREE] = BIT(SPAWNING) | BIT(IDLE) | BIT(ACTIVE) | BIT(LOST), /* three: adopted */
	[AP_AGENT_SPAWNING] = BIT(IDLE) | BIT(STOPPING) | BIT(LOST),
	[AP_AGENT_IDLE] = BIT(VALIDATING) | BIT(RECYCLING) | BIT(DRAINING) | BIT(UNHEALTHY) |
			  BIT(STOPPING) | BIT(LOST),
	[AP_AGENT_VALIDATING] = BIT(IDLE) | BIT(ACTIVE) | BIT(UNHEALTHY) | BIT(LOST),
	[AP_AGENT_ACTIVE] =
		BIT(RECYCLING) | BIT(DRAINING) | BIT(QUARANTINED) | BIT(STOPPING) | BIT(LOST),
	[AP_AGENT_RECYCLING] = BIT(IDLE) | BIT(STOPPING) | BIT(LOST),
	[AP_AGENT_UNHEALTHY] = BIT(RECYCLING) | BIT(STOPPING), /* within one step */
	[AP_AGENT_QUARANTINED] = BIT(STOPPING) | BIT(LOST),
	[AP_AGENT_DRAINING] = BIT(STOPPING) | BIT(LOST),
	[AP_AGENT_STOPPING] = BIT(FREE),
	[AP_AGENT_LOST] = BIT(RECYCLING) | BIT(DRAINING) | BIT(STOPPING),
};

static void wake_by(struct machine_view *m, int64_t at_ns)
{
	if (at_ns < m->wake_ns)
		m->wake_ns = at_ns;
}

static uint32_t random_next(struct machine_view *m)
{
	/* xorshift32: Marsaglia, 2003 */
	m->random ^= m->random << 13;
	m->random ^= m->random >> 17;
	m->random ^= m->random << 5;
	return m->random;
}

/* --- slots --- */

/* A slot to write to; outside of this file slots are const. */
static struct machine_slot *slot_at(const struct machine_view *m, unsigned index)
{
	return (struct machine_slot *)&m->slots[index];
}

static struct machine_slot *slot_find(const struct machine_view *m, unsigned number)
{
	const struct machine_slot *slot = machine_find_number(m, number);
	return slot ? slot_at(m, machine_slot_index(m, slot)) : NULL;
}

/* --- hosts --- */

static struct machine_host *host_at(const struct machine_view *m, unsigned index)
{
	return (struct machine_host *)&m->hosts[index];
}

static struct machine_host *host_of(const struct machine_view *m, const struct machine_slot *slot)
{
	return host_at(m, slot->host);
}

static bool lives_on(const struct machine_view *m, const struct machine_slot *slot,
		     const struct machine_host *host)
{
	return slot->state != AP_AGENT_FREE && host_of(m, slot) == host;
}

static bool on_lost_host(const struct machine_view *m, const struct machine_slot *slot)
{
	return m->hosts[slot->host].state == AP_HOST_LOST;
}

static void list_if(struct ap_list *list, struct ap_list *link, bool belongs)
{
	if (!belongs)
		ap_list_remove(link);
	else if (ap_list_empty(link))
		ap_list_append(list, link);
}

/* Puts the host into the lists that it belongs to by its state and its room. */
static void host_list(struct machine_view *m, struct machine_host *host)
{
	bool up = host->state == AP_HOST_UP;
	list_if(&m->up, &host->up, up);
	list_if(&m->room, &host->room, up && host->n_agents < host->slots);
}

static bool ends(enum ap_agent_state state)
{
	return state == AP_AGENT_DRAINING || state == AP_AGENT_STOPPING;
}

static void host_count(struct machine_view *m, struct machine_host *host, enum ap_agent_state from,
		       enum ap_agent_state to)
{
	host->n_agents += from == AP_AGENT_FREE;
	host->n_agents -= to == AP_AGENT_FREE;
	host->n_ending += ends(to);
	host->n_ending -= ends(from);
	host_list(m, host);
}

/* Why an idle agent has to leave the host; NONE: it may stay. */
static enum ap_reason host_sheds(const struct machine_host *host)
{
	if (host->state == AP_HOST_DRAINING)
		return AP_REASON_DRAIN;
	return host->n_agents - host->n_ending > host->slots ? AP_REASON_SCALE : AP_REASON_NONE;
}

/* --- labels --- */

static struct ap_list *label_bucket(const struct machine_view *m, uint32_t hash)
{
	return &m->labels[hash & (m->n_labels - 1)];
}

static struct machine_label *label_find_hashed(const struct machine_view *m, const char *text,
					       uint32_t hash)
{
	struct ap_list *at, *bucket = label_bucket(m, hash);
	ap_list_for_each (at, bucket) {
		struct machine_label *label = ap_container_of(at, struct machine_label, link);
		if (label->hash == hash && strcmp(label->text, text) == 0)
			return label;
	}
	return NULL;
}

static struct machine_label *label_find(const struct machine_view *m, const char *text)
{
	return label_find_hashed(m, text, (uint32_t)ap_hash(text));
}

static void label_add(struct machine_view *m, struct machine_label *label)
{
	ap_list_insert_after(label_bucket(m, label->hash), &label->link);
}

static uint32_t label_invent(struct machine_view *m, struct machine_label *label)
{
	uint32_t hash;
	do {
		snprintf(label->text, sizeof label->text, "lease-%" PRIu64, m->next_lease++);
		hash = (uint32_t)ap_hash(label->text);
	} while (label_find_hashed(m, label->text, hash));
	return hash;
}

/* --- users --- */

static bool user_is_bounded(const struct machine_view *m, uid_t uid)
{
	return uid != 0 && uid != m->limits.owner;
}

static unsigned user_home(const struct machine_view *m, uid_t uid)
{
	return (uid * 2654435769u >> 16) & (m->n_user_places - 1); /* Knuth's multiplier */
}

/* The user's place in the table, or the one to insert him at: the first from his home on that is
 * his or free. There are twice as many places as there can be users. */
static unsigned user_place(const struct machine_view *m, uid_t uid)
{
	unsigned at = user_home(m, uid);
	while (m->users[at].n_waiting > 0 && m->users[at].uid != uid)
		at = (at + 1) & (m->n_user_places - 1);
	return at;
}

static bool user_is_full(const struct machine_view *m, uid_t uid)
{
	return user_is_bounded(m, uid) &&
	       m->users[user_place(m, uid)].n_waiting >= m->limits.max_waiting_of_user;
}

static void user_waits(struct machine_view *m, uid_t uid)
{
	if (!user_is_bounded(m, uid))
		return;
	struct machine_user *user = &m->users[user_place(m, uid)];
	user->uid = uid;
	user->n_waiting++;
}

/* If the user's place becomes free, moves back into it each user that user_place() would not find
 * behind the gap. */
static void user_waits_no_more(struct machine_view *m, uid_t uid)
{
	if (!user_is_bounded(m, uid))
		return;
	unsigned mask = m->n_user_places - 1, gap = user_place(m, uid);
	if (--m->users[gap].n_waiting > 0)
		return;
	for (unsigned at = (gap + 1) & mask; m->users[at].n_waiting > 0; at = (at + 1) & mask) {
		unsigned from_home = (at - user_home(m, m->users[at].uid)) & mask;
		if (from_home < ((at - gap) & mask))
			continue;
		m->users[gap] = m->users[at];
		m->users[at].n_waiting = 0;
		gap = at;
	}
}

/* --- slots --- */

/* The only function that changes a slot's state. A slot enters its list at the front: last used
 * first. The machine does not await the effects of the old state any more. */
static void slot_move(struct machine_view *m, struct machine_slot *slot, enum ap_agent_state to,
		      enum ap_reason reason, struct machine_effects *fx)
{
	assert(legal_moves[slot->state] & (1u << to));
	assert(fx->n_moves < machine_max_effects(m));
	fx->moves[fx->n_moves++] = (struct machine_move){
		.slot = machine_slot_index(m, slot),
		.from = slot->state,
		.to = to,
		.reason = reason,
	};
	if ((BIT(FREE) | BIT(DRAINING) | BIT(STOPPING)) & (1u << slot->state | 1u << to))
		host_count(m, host_of(m, slot), slot->state, to);
	ap_list_remove(&slot->link);
	m->n_in_state[slot->state]--;
	slot->state = to;
	slot->effect = slot->probe = 0;
	slot->deadline_ns = AP_FOREVER;
	m->n_in_state[to]++;
	ap_list_insert_after(&m->states[to], &slot->link);
}

static struct machine_effect *effect_add(struct machine_view *m, struct machine_effects *fx,
					 enum machine_effect_type type, struct machine_slot *slot)
{
	assert(fx->n < machine_max_effects(m));
	struct machine_effect *effect = &fx->at[fx->n++];
	if (++m->next_effect == 0) /* 0 means none */
		m->next_effect = 1;
	*effect = (struct machine_effect){
		.type = type, .slot = machine_slot_index(m, slot), .id = m->next_effect};
	return effect;
}

/* Begins the one effect that the slot's state waits for, until deadline_ns. */
static struct machine_effect *effect_begin(struct machine_view *m, struct machine_effects *fx,
					   enum machine_effect_type type, struct machine_slot *slot,
					   int64_t deadline_ns)
{
	struct machine_effect *effect = effect_add(m, fx, type, slot);
	m->n_begun++;
	slot->effect = effect->id;
	slot->deadline_ns = deadline_ns;
	wake_by(m, deadline_ns);
	return effect;
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

/* Puts the start of the slot's program on probation: an early end counts as a failed spawn. */
static void slot_unprove(struct machine_view *m, struct machine_slot *slot, int64_t now)
{
	if (slot->proven)
		host_of(m, slot)->n_unproven++;
	slot->proven = false;
	slot->started_ns = now;
}

static void slot_disown(struct machine_view *m, struct machine_slot *slot)
{
	if (!slot->proven)
		host_of(m, slot)->n_unproven--;
	slot->proven = true;
}

static void slot_prove(struct machine_view *m, struct machine_slot *slot)
{
	if (!slot->proven)
		breaker_succeeded(&host_of(m, slot)->breaker);
	slot_disown(m, slot);
}

static void wake_for_retry(struct machine_view *m, const struct machine_host *host, int64_t now)
{
	if (host->breaker.state == BREAKER_OPEN && host->breaker.retry_ns > now)
		wake_by(m, host->breaker.retry_ns);
}

static void spawn_failed(struct machine_view *m, const struct machine_slot *slot, int error,
			 int64_t now)
{
	struct machine_host *host = host_of(m, slot);
	m->spawn_error = error;
	breaker_failed(&host->breaker, now, random_next(m));
	wake_for_retry(m, host, now);
}

static void slot_mark(struct machine_view *m, struct machine_slot *slot, enum ap_reason reason)
{
	m->n_marked -= slot->recycle != AP_REASON_NONE;
	slot->recycle = (uint8_t)reason;
	m->n_marked += slot->recycle != AP_REASON_NONE;
}

static void slot_limit(struct machine_view *m, struct machine_slot *slot, bool limited)
{
	m->n_limited -= slot->limited;
	slot->limited = limited;
	m->n_limited += slot->limited;
}

static struct machine_effect *slot_stop(struct machine_view *m, struct machine_slot *slot,
					enum ap_reason reason, int64_t now,
					struct machine_effects *fx)
{
	slot_disown(m, slot);
	slot_mark(m, slot, AP_REASON_NONE);
	slot_move(m, slot, AP_AGENT_STOPPING, reason, fx);
	return effect_begin(m, fx, EFFECT_STOP, slot, ap_clock_after(now, STOP_LIMIT));
}

/* Ends a healthy agent in order. */
static void slot_drain(struct machine_view *m, struct machine_slot *slot, enum ap_reason reason,
		       int64_t now, struct machine_effects *fx)
{
	slot_disown(m, slot);
	slot_mark(m, slot, AP_REASON_NONE);
	slot_move(m, slot, AP_AGENT_DRAINING, reason, fx);
	effect_begin(m, fx, EFFECT_DRAIN, slot, ap_clock_after(now, DRAIN_LIMIT));
}

/* Makes the agent ready for the next lease. `counted`: as a recycling; else at the end of a lease.
 */
static struct machine_effect *slot_clean(struct machine_view *m, struct machine_slot *slot,
					 enum ap_reason reason, bool counted, int64_t now,
					 struct machine_effects *fx)
{
	slot_move(m, slot, AP_AGENT_RECYCLING, reason, fx);
	slot->recycle_next = false;
	slot_mark(m, slot, counted ? reason : AP_REASON_NONE);
	struct machine_effect *effect = effect_begin(
		m, fx, EFFECT_RECYCLE, slot, ap_clock_after(now, m->limits.spawn_timeout_ns));
	effect->restart = counted || !m->limits.keep_program;
	return effect;
}

/* Recycles the agent, or ends it after max_recycles: its replacement has a new name. */
static void slot_recycle(struct machine_view *m, struct machine_slot *slot, enum ap_reason reason,
			 int64_t now, struct machine_effects *fx)
{
	if (!recycling_spent(&m->limits.recycling, slot->n_recycles))
		slot_clean(m, slot, reason, true, now, fx);
	else if (slot->state == AP_AGENT_UNHEALTHY)
		slot_stop(m, slot, AP_REASON_RECYCLES, now, fx);
	else
		slot_drain(m, slot, AP_REASON_RECYCLES, now, fx);
}

/* The slot's program has ended, or failed a health check: on probation that is a failed spawn. */
static void start_failed(struct machine_view *m, const struct machine_slot *slot, int error,
			 int64_t now)
{
	if (!slot->proven && error != MACHINE_KILLED)
		spawn_failed(m, slot, -ECHILD, now);
}

/* An agent without a lease has failed its health check. Recycles it, or stops it if it would have
 * to leave then, or is still on probation, where recycling would not help. */
static void slot_sicken(struct machine_view *m, struct machine_slot *slot, enum ap_reason reason,
			int error, int64_t now, struct machine_effects *fx)
{
	slot_move(m, slot, AP_AGENT_UNHEALTHY, reason, fx);
	start_failed(m, slot, error, now);
	if (m->shutdown || !slot->proven || host_sheds(host_of(m, slot)))
		slot_stop(m, slot, reason, now, fx);
	else
		slot_recycle(m, slot, AP_REASON_UNHEALTHY, now, fx);
}

/* The machine checks age and probation in IDLE and ACTIVE only: called when a slot enters them. */
static void wake_for_age(struct machine_view *m, const struct machine_slot *slot)
{
	wake_by(m, recycling_expiry(&m->limits.recycling, slot->started_ns, slot->jitter));
	if (!slot->proven)
		wake_by(m, slot->started_ns + PROVEN_AFTER);
}

/* The slot becomes idle, or stops if somebody asked for its end meanwhile. It does not stay idle on
 * a host that it has to leave; while the pool is suspended see hosts_catch_up(). */
static void slot_settle(struct machine_view *m, struct machine_slot *slot, enum ap_reason reason,
			int64_t now, struct machine_effects *fx)
{
	slot->used_ns = now;
	if (slot->retire) {
		slot_stop(m, slot, slot->retire, now, fx);
		return;
	}
	slot_move(m, slot, AP_AGENT_IDLE, reason, fx);
	wake_for_age(m, slot);
	enum ap_reason leaves = host_sheds(host_of(m, slot));
	if (leaves && !m->suspended)
		slot_drain(m, slot, leaves, now, fx);
}

static void generation_begin(struct machine_view *m, struct machine_slot *slot)
{
	slot->generation++;
	slot->jitter = (uint16_t)random_next(m);
	slot->n_served = 0;
	slot->n_memory_over = 0;
	slot->cpu_over = false;
}

static void slot_free(struct machine_view *m, struct machine_slot *slot, struct machine_effects *fx)
{
	if (slot->born)
		m->n_terminated++;
	slot_limit(m, slot, false);
	ap_list_remove(&slot->label.link);
	slot_move(m, slot, AP_AGENT_FREE, AP_REASON_STOPPED, fx);
	struct ap_list link = slot->link;
	*slot = (struct machine_slot){
		.link = link,
		.state = AP_AGENT_FREE,
		.deadline_ns = AP_FOREVER,
		.proven = true,
		.label.in_slot = true,
	};
	ap_list_init(&slot->label.link);
	ap_list_init(&slot->waiters);
}

/* --- leases --- */

/* The label stays in the index, without its text: see idle_that_had(). */
static void lease_clear(struct machine_slot *slot)
{
	slot->label.text[0] = '\0';
	slot->token = 0;
	slot->granted_ns = slot->ttl_ns = 0;
	slot->uid = 0;
	slot->pid = 0;
	slot->by_handle = false;
	slot->leaving = AP_REASON_NONE;
}

/* On shutdown: stops a quarantined agent and keeps its worktree. */
static void slot_let_go(struct machine_view *m, struct machine_slot *slot, int64_t now,
			struct machine_effects *fx)
{
	lease_clear(slot);
	slot_stop(m, slot, AP_REASON_SHUTDOWN, now, fx)->keep = true;
}

static void lease_end(struct machine_view *m, struct machine_slot *slot, enum ap_reason reason,
		      bool discard, int64_t now, struct machine_effects *fx)
{
	slot->leaving = (uint8_t)reason;
	struct machine_effect *save =
		effect_begin(m, fx, EFFECT_SAVE, slot, ap_clock_after(now, SAVE_LIMIT));
	save->discard = discard;
	save->restart = !m->limits.keep_program || slot->retire || slot->recycle || m->shutdown ||
			slot->state == AP_AGENT_QUARANTINED;
}

/* --- reconcile: level-triggered, after every event but those of concerns_holder_only() --- */

static bool can_serve(const struct machine_slot *slot)
{
	return slot->state == AP_AGENT_IDLE && !slot->limited;
}

static bool is_wanted(const struct machine_request *request, const struct machine_slot *slot)
{
	return (!request->agent || request->agent == slot->number) &&
	       (!request->host || request->host == slot->host + 1u);
}

/* The idle agent that had the request's label last, of those that it wants and whose last lease had
 * the label; NULL: none. */
static struct machine_slot *idle_that_had(const struct machine_view *m,
					  const struct machine_request *request)
{
	uint32_t hash = request->label.hash;
	struct ap_list *at, *bucket = label_bucket(m, hash);
	ap_list_for_each (at, bucket) { /* the latest first */
		struct machine_label *label = ap_container_of(at, struct machine_label, link);
		if (!label->in_slot || label->hash != hash)
			continue;
		struct machine_slot *slot = ap_container_of(label, struct machine_slot, label);
		if (can_serve(slot) && is_wanted(request, slot))
			return slot;
	}
	return NULL;
}

static struct machine_slot *idle_for(const struct machine_view *m,
				     const struct machine_request *request)
{
	const struct ap_list *idle = &m->states[AP_AGENT_IDLE];
	struct machine_slot *found = request->agent ? NULL : idle_that_had(m, request);
	struct ap_list *at;
	if (found && !request->affinity)
		return found;
	ap_list_for_each (at, idle) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (!can_serve(slot) || !is_wanted(request, slot))
			continue;
		if (!request->affinity || slot->affinity == request->affinity)
			return slot;
		if (!found)
			found = slot;
	}
	return found;
}

/* Whether two requests take turns: who wants an agent does so with those who want it, on whatever
 * host it is. */
static bool takes_turns(const struct machine_request *a, const struct machine_request *b)
{
	return a->agent == b->agent && (a->agent || a->host == b->host);
}

/* Counts a request in the queue that wants a host, and any agent there. */
static void count_for_host(struct machine_view *m, const struct machine_request *request, int n)
{
	if (request->agent || !request->host)
		return;
	host_at(m, request->host - 1)->n_waiting += (unsigned)n;
	m->n_waiting_for_host += (unsigned)n;
}

/* Adds a request that is in the queue to the list of those that want the same agent, the same host,
 * or any, in the order of the queue. A retried request, which has a token, is near the front:
 * search backwards. */
static void turn_add(struct machine_view *m, struct machine_request *request)
{
	struct ap_list *turns = request->agent	? &slot_find(m, request->agent)->waiters
				: request->host ? &host_at(m, request->host - 1)->waiters
						: &m->anyone;
	if (request->token == 0) {
		ap_list_append(turns, &request->turn);
		return;
	}
	for (struct ap_list *at = request->link.prev; at != &m->waiters; at = at->prev) {
		struct machine_request *before = ap_container_of(at, struct machine_request, link);
		if (takes_turns(before, request)) {
			turns = &before->turn;
			break;
		}
	}
	ap_list_insert_after(turns, &request->turn);
}

static void waiter_add(struct machine_view *m, struct machine_request *request, struct ap_list *at)
{
	request->state = REQUEST_WAITING;
	request->arrival = m->next_arrival++;
	label_add(m, &request->label);
	ap_list_insert_after(at, &request->link);
	turn_add(m, request);
	count_for_host(m, request, 1);
	user_waits(m, request->uid);
	m->n_waiting++;
	if (request->deadline_ns < m->waiters_due_ns)
		m->waiters_due_ns = request->deadline_ns;
	wake_by(m, request->deadline_ns);
}

static void waiter_remove(struct machine_view *m, struct machine_request *request)
{
	ap_list_remove(&request->link);
	ap_list_remove(&request->turn);
	ap_list_remove(&request->label.link);
	count_for_host(m, request, -1);
	user_waits_no_more(m, request->uid);
	m->n_waiting--;
}

static void waiter_refuse(struct machine_view *m, struct machine_request *request, int error,
			  struct machine_effects *fx)
{
	waiter_remove(m, request);
	answer(fx, request, error);
}

/* Reserves an idle agent for an acquirer that is not in the queue (any more), and validates it. */
static void reserve(struct machine_view *m, struct machine_slot *slot,
		    struct machine_request *request, int64_t now, struct machine_effects *fx)
{
	request->state = REQUEST_VALIDATING;
	request->slot = machine_slot_index(m, slot);
	if (request->token == 0)
		request->token = m->next_token++;
	slot->request = request;
	slot->token = request->token;
	slot->uid = request->uid;
	slot->pid = request->pid;
	slot->by_handle = request->by_handle;
	slot->ttl_ns = request->ttl_ns;
	if (request->affinity)
		slot->affinity = request->affinity;
	ap_list_remove(&slot->label.link); /* its last lease's */
	memcpy(slot->label.text, request->label.text, sizeof slot->label.text);
	slot->label.hash = request->label.hash;
	label_add(m, &slot->label);
	slot_move(m, slot, AP_AGENT_VALIDATING, AP_REASON_ACQUIRE, fx);
	effect_begin(m, fx, EFFECT_VALIDATE, slot, ap_clock_after(now, m->limits.spawn_timeout_ns));
}

/* The order of the queue: retried acquirers, which have a token, come first. */
static bool comes_before(const struct machine_request *a, const struct machine_request *b)
{
	if (a->token && b->token)
		return a->token < b->token;
	return a->token || b->token ? a->token : a->arrival < b->arrival;
}

static struct machine_request *first_turn(const struct ap_list *turns)
{
	return ap_list_empty(turns) ? NULL
				    : ap_container_of(turns->next, struct machine_request, turn);
}

static struct machine_request *earlier(struct machine_request *a, struct machine_request *b)
{
	return a && (!b || comes_before(a, b)) ? a : b;
}

/* The first in the queue that an idle agent can serve. Costs nothing for acquirers that wait for a
 * certain busy agent, or for a host. */
static struct machine_request *next_to_serve(const struct machine_view *m)
{
	struct machine_request *found = NULL, *any = first_turn(&m->anyone);
	struct ap_list *at;
	ap_list_for_each (at, &m->states[AP_AGENT_IDLE]) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (!can_serve(slot))
			continue;
		found = earlier(first_turn(&slot->waiters), found ? found : any);
		if (m->n_waiting_for_host > 0)
			found = earlier(first_turn(&host_of(m, slot)->waiters), found);
	}
	return found;
}

/* Whether agents are granted at all now. */
static bool may_grant(const struct machine_view *m)
{
	return !m->suspended && m->limited_until_ns == 0;
}

/* Gives idle agents to the waiters in their order; skips a waiter whose wanted agent is busy. */
static void serve(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	struct machine_request *request;
	while (may_grant(m) && (request = next_to_serve(m))) {
		waiter_remove(m, request);
		reserve(m, idle_for(m, request), request, now, fx);
	}
}

/* Recycles marked idle agents: at most a tenth of the pool at once, except those that a user asked
 * to recycle. serve() runs before: no waiter could use what is idle now. */
static void recycle_marked(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	unsigned most = machine_total(m) / 10 > 0 ? machine_total(m) / 10 : 1;
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &m->states[AP_AGENT_IDLE]) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (!slot->recycle ||
		    (slot->recycle != AP_REASON_ASKED && m->n_in_state[AP_AGENT_RECYCLING] >= most))
			continue;
		slot_recycle(m, slot, slot->recycle, now, fx);
	}
}

static void note_scaled(struct machine_view *m, enum ap_scale_direction direction, int64_t now)
{
	m->scaled_ns = now;
	m->scale_direction = direction;
	m->n_scaled[direction]++;
}

static unsigned n_on_host(const struct machine_view *m, const struct machine_host *host,
			  enum ap_agent_state state)
{
	unsigned n = 0;
	struct ap_list *at;
	ap_list_for_each (at, &m->states[state])
		n += host_of(m, ap_container_of(at, struct machine_slot, link)) == host;
	return n;
}

/* How many who wait for the host will have to wait longer than for what comes there. */
static unsigned host_lacks(const struct machine_view *m, const struct machine_host *host)
{
	if (host->n_waiting == 0)
		return 0;
	unsigned coming =
		n_on_host(m, host, AP_AGENT_SPAWNING) + n_on_host(m, host, AP_AGENT_RECYCLING);
	return host->n_waiting > coming ? host->n_waiting - coming : 0;
}

/* Where the next agent begins; NULL: nowhere. Where somebody waits for a host, there first. */
static struct machine_host *place(struct machine_view *m, int64_t now)
{
	const struct placement_policy *policy = &placement_policies[m->limits.placement];
	struct machine_host *best = NULL;
	struct placement_host best_place = {0};
	bool best_lacks = false;
	struct ap_list *at;
	ap_list_for_each (at, &m->room) {
		struct machine_host *host = ap_container_of(at, struct machine_host, room);
		if (breaker_allowance(&host->breaker, host->n_unproven, now) == 0)
			continue;
		struct placement_host here = {.index = (unsigned)(host - m->hosts),
					      .n_agents = host->n_agents,
					      .slots = host->slots,
					      .warm = host->warm};
		bool lacks = m->n_waiting_for_host > 0 && host_lacks(m, host) > 0;
		if (best &&
		    (lacks != best_lacks ? best_lacks : !policy->better(&here, &best_place)))
			continue;
		best = host;
		best_place = here;
		best_lacks = lacks;
	}
	return best;
}

static void grow(struct machine_view *m, unsigned wanted, int64_t now, struct machine_effects *fx)
{
	struct machine_host *host;
	while (machine_live(m) < wanted && machine_total(m) < m->limits.max_size &&
	       m->n_in_state[AP_AGENT_SPAWNING] < m->limits.max_spawning &&
	       (host = place(m, now))) {
		if (machine_live(m) >= m->limits.min_size)
			note_scaled(m, AP_SCALE_UP, now);
		struct machine_slot *slot =
			ap_container_of(m->states[AP_AGENT_FREE].next, struct machine_slot, link);
		slot->number = m->next_number++;
		slot->host = (uint16_t)(host - m->hosts);
		slot->created_ns = slot->used_ns = now;
		slot_unprove(m, slot, now);
		generation_begin(m, slot);
		slot_move(m, slot, AP_AGENT_SPAWNING, AP_REASON_DEMAND, fx);
		effect_begin(m, fx, EFFECT_SPAWN, slot,
			     ap_clock_after(now, m->limits.spawn_timeout_ns));
	}
}

/* Drains agents that idle since idle_since or longer, down to a size; the longest idle one first.
 */
static void retire_idle(struct machine_view *m, unsigned down_to, int64_t idle_since,
			enum ap_reason reason, int64_t now, struct machine_effects *fx)
{
	while (m->n_in_state[AP_AGENT_IDLE] > 0 && machine_live(m) > down_to) {
		struct machine_slot *slot =
			ap_container_of(m->states[AP_AGENT_IDLE].prev, struct machine_slot, link);
		if (slot->used_ns > idle_since)
			return;
		slot_drain(m, slot, reason, now, fx);
		note_scaled(m, AP_SCALE_DOWN, now);
	}
}

static void refuse_all(struct machine_view *m, int error, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &m->waiters)
		waiter_refuse(m, ap_container_of(at, struct machine_request, link), error, fx);
}

static void refuse_waiters_of(struct machine_view *m, struct machine_slot *slot,
			      struct machine_effects *fx)
{
	struct machine_request *request;
	while ((request = first_turn(&slot->waiters)))
		waiter_refuse(m, request, -ENOENT, fx);
}

static void slot_gone(struct machine_view *m, struct machine_slot *slot, struct machine_effects *fx)
{
	refuse_waiters_of(m, slot, fx);
	slot_free(m, slot, fx);
}

/* The policy's size, within the limits. */
static unsigned policy_size(const struct machine_view *m, struct scaling_sample sample,
			    unsigned (*ask)(struct scaling_sample, double,
					    const struct scaling_limits *))
{
	unsigned size = ask(sample, m->load.mean, &m->limits.scaling);
	if (size < m->limits.min_size)
		size = m->limits.min_size;
	return size < m->limits.max_size ? size : m->limits.max_size;
}

/* What the size is decided by: more agents would not serve those who wait for the end of a limit of
 * the whole pool; nor, but for those of lacking_on_hosts(), those who wait for a host. */
static struct scaling_sample sizing_sample(const struct machine_view *m)
{
	struct scaling_sample sample = machine_sample(m);
	sample.n_waiting -= m->n_waiting_for_host;
	if (m->limited_until_ns != 0)
		sample.n_waiting = 0;
	return sample;
}

static unsigned n_idle_limited(const struct machine_view *m)
{
	unsigned n = 0;
	struct ap_list *at;
	if (m->n_limited == 0)
		return 0;
	ap_list_for_each (at, &m->states[AP_AGENT_IDLE])
		n += ap_container_of(at, struct machine_slot, link)->limited;
	return n;
}

/* The policy's size, but at least enough for the waiters, whom an agent that has reached its limit
 * does not serve. */
static unsigned policy_wants(const struct machine_view *m)
{
	struct scaling_sample sample = sizing_sample(m);
	unsigned size = scaling_size(sample);
	unsigned ready = sample.n_coming + sample.n_idle - n_idle_limited(m);
	unsigned wanted = policy_size(m, sample, scaling_policies[m->limits.policy].desired);
	if (sample.n_waiting > ready && wanted < size + sample.n_waiting - ready)
		wanted = size + sample.n_waiting - ready;
	return wanted;
}

/* Agents to begin for those who wait for a host, where they can begin. */
static unsigned lacking_on_hosts(const struct machine_view *m, int64_t now)
{
	unsigned n = 0;
	struct ap_list *at;
	ap_list_for_each (at, &m->room) {
		const struct machine_host *host = ap_container_of(at, struct machine_host, room);
		struct breaker breaker = host->breaker; /* asked, and not changed */
		unsigned most = breaker_allowance(&breaker, host->n_unproven, now);
		unsigned lacks = host_lacks(m, host), room = host->slots - host->n_agents;
		if (most > room)
			most = room;
		n += lacks < most ? lacks : most;
	}
	return n;
}

/* The policy's size, and an agent more for each who waits for a host and could have it there. */
static unsigned policy_and_hosts_want(const struct machine_view *m, int64_t now)
{
	unsigned wanted = policy_wants(m);
	if (m->n_waiting_for_host == 0 || m->limited_until_ns != 0)
		return wanted;
	unsigned size = machine_live(m), lacking = lacking_on_hosts(m, now);
	return lacking > 0 && wanted < size ? size + lacking : wanted + lacking;
}

unsigned machine_desired(const struct machine_view *m)
{
	if (m->suspended)
		return machine_live(m);
	if (m->shutdown)
		return 0;
	unsigned wanted = m->target >= 0 ? (unsigned)m->target : policy_and_hosts_want(m, 0);
	return wanted < m->limits.max_size ? wanted : m->limits.max_size;
}

/* Moves to the policy's size: up at once, down by one agent for every window throughout which the
 * pool was too large. Without a window, down at once. */
static void scale_by_policy(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	unsigned size = machine_live(m), wanted = policy_and_hosts_want(m, now);
	if (wanted >= size) {
		m->low_since_ns = AP_FOREVER;
		grow(m, wanted, now, fx);
		return;
	}
	if (m->low_since_ns == AP_FOREVER)
		m->low_since_ns = now;
	if (ap_clock_after(m->low_since_ns, m->limits.scale_down_window_ns) <= now) {
		retire_idle(m, m->limits.scale_down_window_ns ? size - 1 : wanted, AP_FOREVER,
			    AP_REASON_SCALE, now, fx);
		m->low_since_ns = m->limits.scale_down_window_ns ? now : AP_FOREVER;
	}
	if (m->low_since_ns != AP_FOREVER)
		wake_by(m, ap_clock_after(m->low_since_ns, m->limits.scale_down_window_ns));
}

/* Whether waiters would wait in vain: spawning has failed, and nothing may be spawned anywhere. */
static bool nothing_can_serve(const struct machine_view *m)
{
	bool failed = false;
	struct ap_list *at;
	if (machine_live(m) > 0)
		return false;
	ap_list_for_each (at, &m->up) {
		const struct machine_host *host = ap_container_of(at, struct machine_host, up);
		if (host->breaker.state == BREAKER_OPEN)
			failed = true;
		else if (host->n_agents < host->slots)
			return false;
	}
	return failed;
}

static void reconcile(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	if (m->suspended)
		return;
	if (m->n_waiting > 0)
		serve(m, now, fx);
	if (m->limits.policy == SCALING_EWMA)
		scaling_load_add(&m->load, scaling_busy(sizing_sample(m)), now);
	if (m->n_marked > 0)
		recycle_marked(m, now, fx);
	if (m->shutdown) {
		retire_idle(m, 0, AP_FOREVER, AP_REASON_SHUTDOWN, now, fx);
	} else if (m->target >= 0) {
		m->low_since_ns = AP_FOREVER;
		grow(m, (unsigned)m->target, now, fx);
		retire_idle(m, (unsigned)m->target, AP_FOREVER, AP_REASON_SCALE, now, fx);
	} else {
		scale_by_policy(m, now, fx);
		retire_idle(m, m->limits.max_size, AP_FOREVER, AP_REASON_SCALE, now, fx);
	}
	if (m->n_waiting > 0 && nothing_can_serve(m))
		refuse_all(m, -EHOSTDOWN, fx);
}

/* --- agents of hosts that are lost, and come back --- */

/* Nobody knows whether the agent lives: nothing begins there until its host has answered. */
static void slot_lose(struct machine_view *m, struct machine_slot *slot, struct machine_effects *fx)
{
	slot_disown(m, slot);
	slot_mark(m, slot, AP_REASON_NONE);
	slot_move(m, slot, AP_AGENT_LOST, AP_REASON_LOST, fx);
}

/* An agent that was lost answers again. What happened on its host meanwhile is not known: what the
 * agent was, it begins anew. */
static void slot_take_back(struct machine_view *m, struct machine_slot *slot, int64_t now,
			   struct machine_effects *fx)
{
	enum ap_reason leaves = m->shutdown ? AP_REASON_SHUTDOWN : host_sheds(host_of(m, slot));
	if (slot->retire)
		slot_stop(m, slot, slot->retire, now, fx);
	else if (!slot->born)
		slot_stop(m, slot, AP_REASON_LOST, now, fx);
	else if (leaves)
		slot_drain(m, slot, leaves, now, fx);
	else
		slot_clean(m, slot, AP_REASON_LOST, false, now, fx)->restart = true;
}

/* What has to leave its host is drained, and what was lost on a host that is back is taken back:
 * wherever that may have become so without it. */
static void hosts_catch_up(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	if (m->suspended)
		return;
	for (at = m->states[AP_AGENT_IDLE].prev; at != &m->states[AP_AGENT_IDLE]; at = next) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		enum ap_reason leaves = host_sheds(host_of(m, slot));
		next = at->prev; /* the longest idle one leaves first */
		if (leaves)
			slot_drain(m, slot, leaves, now, fx);
	}
	ap_list_for_each_safe (at, next, &m->states[AP_AGENT_LOST]) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (!on_lost_host(m, slot))
			slot_take_back(m, slot, now, fx);
	}
}

/* --- what an earlier daemon left --- */

static int on_restore(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	const struct machine_restored *restored = event->restored;
	if (m->next_number < restored->next_number)
		m->next_number = restored->next_number;
	if (m->next_token < restored->next_token)
		m->next_token = restored->next_token;
	if (m->next_lease < restored->next_lease)
		m->next_lease = restored->next_lease;
	m->n_grants += restored->n_grants;
	m->n_recycled += restored->n_recycled;
	m->n_spawned += restored->n_spawned;
	m->n_terminated += restored->n_spawned;
	return 0;
}

/* The lease's time to live begins. */
static void ttl_begin(struct machine_view *m, struct machine_slot *slot, int64_t now)
{
	if (slot->ttl_ns > 0 && !on_lost_host(m, slot))
		slot->deadline_ns = ap_clock_after(now, slot->ttl_ns);
	wake_by(m, slot->deadline_ns);
}

static void adopt_lease(struct machine_view *m, struct machine_slot *slot,
			const struct machine_adoption *adoption, int64_t now)
{
	snprintf(slot->label.text, sizeof slot->label.text, "%s", adoption->label);
	slot->label.hash = (uint32_t)ap_hash(slot->label.text);
	label_add(m, &slot->label);
	slot->token = adoption->token;
	slot->affinity = adoption->affinity;
	slot->uid = adoption->uid;
	slot->pid = adoption->pid;
	slot->by_handle = adoption->by_handle;
	slot->granted_ns = adoption->granted_ns;
	slot->ttl_ns = adoption->ttl_ns;
	ttl_begin(m, slot, now);
	if (m->next_token <= slot->token)
		m->next_token = slot->token + 1;
}

static int on_adopt(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	const struct machine_adoption *adoption = event->adoption;
	if (adoption->host >= m->n_hosts)
		return -EINVAL;
	if (slot->state != AP_AGENT_FREE)
		return -EBUSY;
	if (machine_find_number(m, adoption->number) ||
	    (*adoption->label && label_find(m, adoption->label)))
		return -EEXIST;
	const struct machine_host *host = &m->hosts[adoption->host];
	if (host->state == AP_HOST_DOWN || host->state == AP_HOST_PENDING)
		return -EHOSTDOWN;
	slot->number = adoption->number;
	slot->host = (uint16_t)adoption->host;
	if (m->next_number <= slot->number)
		m->next_number = slot->number + 1;
	generation_begin(m, slot);
	slot->generation = adoption->generation;
	slot->n_recycles = adoption->n_recycles;
	slot->n_requests = adoption->n_requests;
	slot->n_served = adoption->n_served;
	slot->created_ns = adoption->created_ns;
	slot->started_ns = adoption->started_ns;
	slot->used_ns = now;
	slot->born = true;
	if (m->n_terminated > 0) /* on_restore() counted it as terminated */
		m->n_terminated--;
	else
		m->n_spawned++;
	slot_move(m, slot,
		  *adoption->label	  ? AP_AGENT_ACTIVE
		  : on_lost_host(m, slot) ? AP_AGENT_LOST
					  : AP_AGENT_IDLE,
		  AP_REASON_ADOPTED, fx);
	wake_for_age(m, slot);
	if (*adoption->label)
		adopt_lease(m, slot, adoption, now);
	hosts_catch_up(m, now, fx);
	return 0;
}

/* --- what acquirers and holders ask for --- */

/* A request with `once` does not wait in the queue. */
static void refuse_if_once(struct machine_view *m, struct machine_request *request,
			   struct machine_effects *fx)
{
	if (request->state == REQUEST_WAITING && request->once)
		waiter_refuse(m, request, -EAGAIN, fx);
}

/* Whether there is what the request wants, and it may come to serve. */
static bool wants_what_is(const struct machine_view *m, const struct machine_request *request)
{
	if (request->host > m->n_hosts)
		return false;
	if (!request->agent)
		return true;
	const struct machine_slot *slot = machine_find_number(m, request->agent);
	return slot && !ends(slot->state) && is_wanted(request, slot);
}

/* Why nothing more is granted; 0: something may be. */
static int grants_nothing(const struct machine_view *m)
{
	return m->closed ? -ESHUTDOWN : m->limits.spent ? -EDQUOT : 0;
}

static int on_acquire(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_request *request = event->request;
	if (grants_nothing(m))
		return grants_nothing(m);
	if ((request->agent || request->host) && !wants_what_is(m, request))
		return -ENOENT;
	uint32_t hash = (uint32_t)ap_hash(request->label.text);
	if (request->label.text[0] && label_find_hashed(m, request->label.text, hash))
		return -EEXIST;
	if (m->n_waiting >= m->limits.max_waiting || user_is_full(m, request->uid))
		return -EAGAIN;
	request->label.hash = request->label.text[0] ? hash : label_invent(m, &request->label);
	request->label.in_slot = false;
	request->n_tries = 0;
	request->token = 0;
	struct machine_slot *slot = m->n_waiting == 0 && may_grant(m) ? idle_for(m, request) : NULL;
	if (slot) {
		wake_by(m, request->deadline_ns);
		reserve(m, slot, request, now, fx);
		return 0;
	}
	waiter_add(m, request, m->waiters.prev);
	if (request->once) {
		serve(m, now, fx);
		refuse_if_once(m, request, fx);
	}
	return 0;
}

static int on_cancel(struct machine_view *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	struct machine_request *request = event->request;
	switch (request->state) {
	case REQUEST_WAITING:
		waiter_refuse(m, request, -ECANCELED, fx);
		return 0;
	case REQUEST_VALIDATING:
	case REQUEST_RELEASING:
		slot_answer(slot_at(m, request->slot), fx, -ECANCELED);
		return 0;
	case REQUEST_NEW:
	case REQUEST_ANSWERED:
		break;
	}
	return -EALREADY;
}

static int on_release(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (slot->state != AP_AGENT_ACTIVE && slot->state != AP_AGENT_QUARANTINED)
		return -ENOENT;
	if (slot->leaving || machine_slot_stale(slot, event->token))
		return -ESTALE;
	if (on_lost_host(m, slot))
		return -EHOSTUNREACH;
	slot->request = event->request;
	if (event->request) {
		event->request->slot = event->slot;
		event->request->state = REQUEST_RELEASING;
	}
	lease_end(m, slot, event->reason ? event->reason : AP_REASON_RELEASE, event->discard, now,
		  fx);
	return 0;
}

static int on_renew(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (!machine_slot_leased(slot) || machine_slot_stale(slot, event->token))
		return -ESTALE;
	ttl_begin(m, slot, now);
	return 0;
}

int machine_may_prompt(const struct machine_view *m, const struct machine_slot *slot,
		       uint64_t token, int64_t now)
{
	if (slot->state == AP_AGENT_FREE || machine_slot_stale(slot, token))
		return -ESTALE;
	bool same_span = now - slot->quota_from_ns < QUOTA_SPAN;
	if (m->limits.max_prompts > 0 && same_span && slot->n_prompts >= m->limits.max_prompts)
		return -EDQUOT;
	return 0;
}

static int on_prompt(struct machine_view *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	int r = machine_may_prompt(m, slot, event->token, now);
	if (r < 0)
		return r;
	if (slot->n_prompts == 0 || now - slot->quota_from_ns >= QUOTA_SPAN) {
		slot->quota_from_ns = now;
		slot->n_prompts = 0;
	}
	slot->n_prompts++;
	(void)on_renew(m, event, now, fx); /* -ESTALE without a lease: nothing to renew */
	return 0;
}

static int on_kill(struct machine_view *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (slot->state == AP_AGENT_FREE)
		return -ENOENT;
	if (machine_slot_stale(slot, event->token))
		return -ESTALE;
	if (on_lost_host(m, slot))
		return -EHOSTUNREACH;
	switch (slot->state) {
	case AP_AGENT_VALIDATING:
		return -EBUSY;
	case AP_AGENT_IDLE:
		slot_stop(m, slot, AP_REASON_KILL, now, fx);
		break;
	case AP_AGENT_ACTIVE:
	case AP_AGENT_QUARANTINED:
		slot->retire = AP_REASON_KILL;
		if (!slot->leaving)
			lease_end(m, slot, AP_REASON_KILL, false, now, fx);
		break;
	default:
		slot->retire = AP_REASON_KILL;
		break;
	}
	return 0;
}

static int on_recycle(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (slot->state == AP_AGENT_FREE)
		return -ENOENT;
	if (machine_slot_stale(slot, event->token))
		return -ESTALE;
	if (on_lost_host(m, slot))
		return -EHOSTUNREACH;
	switch (slot->state) {
	case AP_AGENT_IDLE:
	case AP_AGENT_VALIDATING:
	case AP_AGENT_ACTIVE:
		slot_mark(m, slot, AP_REASON_ASKED); /* reconcile() recycles the idle ones */
		return 0;
	case AP_AGENT_RECYCLING: /* a cleaning after a lease began before this was asked for */
		slot->recycle_next |= !slot->recycle;
		return 0;
	default:
		return -EBUSY;
	}
}

static int on_limit(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (slot->state == AP_AGENT_FREE)
		return -ENOENT;
	slot_limit(m, slot, event->on);
	if (event->everyone)
		m->limited_until_ns = event->until_ns > now ? event->until_ns : 0;
	if (m->limited_until_ns != 0)
		wake_by(m, m->limited_until_ns);
	return 0;
}

/* --- outcomes of effects --- */

static enum ap_reason failure(int error)
{
	return error == -ETIMEDOUT ? AP_REASON_TIMEOUT : AP_REASON_FAILED;
}

static int on_spawned(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (event->result < 0) {
		slot_stop(m, slot, failure(event->result), now, fx);
		spawn_failed(m, slot, event->result, now);
		return 0;
	}
	slot->born = true;
	slot->started_ns = now; /* probation begins here, however long the spawn took */
	m->n_spawned++;
	slot_settle(m, slot, AP_REASON_SPAWNED, now, fx);
	return 0;
}

/* Whether the error says nothing about the agent: the acquirer caused it, or the disk takes no
 * writes. Another agent would not do better. */
static bool agent_is_well(int error)
{
	return error == -EBUSY || error == -EINVAL || error == -EEXIST || error == -ENOSPC ||
	       error == -EROFS || error == -ESRCH;
}

static void grant(struct machine_view *m, struct machine_slot *slot, int64_t granted_ns,
		  int64_t now, struct machine_effects *fx)
{
	slot_move(m, slot, AP_AGENT_ACTIVE, AP_REASON_GRANT, fx);
	wake_for_age(m, slot);
	slot->granted_ns = granted_ns ? granted_ns : now;
	if (!slot->request) { /* the acquirer gave up meanwhile */
		lease_end(m, slot, m->shutdown ? AP_REASON_SHUTDOWN : AP_REASON_CANCELLED, false,
			  now, fx);
		return;
	}
	slot->n_requests++;
	slot->n_served++;
	m->n_grants++;
	ttl_begin(m, slot, now);
	slot_answer(slot, fx, 0);
}

/* Where a retried request goes: behind those with a lower token, before all others. */
static struct ap_list *place_in_queue(struct machine_view *m, uint64_t token)
{
	struct ap_list *at = &m->waiters;
	while (at->next != &m->waiters) {
		struct machine_request *next =
			ap_container_of(at->next, struct machine_request, link);
		if (next->token == 0 || next->token > token)
			break;
		at = at->next;
	}
	return at;
}

/* Back to the queue: an agent was reserved for the request, and does not become its. */
static void waiter_return(struct machine_view *m, struct machine_request *request, int64_t now,
			  struct machine_effects *fx)
{
	if (grants_nothing(m))
		answer(fx, request, grants_nothing(m));
	else if (request->n_tries >= MAX_TRIES)
		answer(fx, request, -EIO);
	else if (request->deadline_ns <= now)
		answer(fx, request, -ETIMEDOUT);
	else
		waiter_add(m, request, place_in_queue(m, request->token));
}

/* The agent failed under its acquirer: another agent serves the request, and the acquirer does not
 * notice. A program that has ended is never the request's fault, and counts no try: the breaker
 * bounds how many are started in its place. */
static void try_again(struct machine_view *m, struct machine_request *request, int error,
		      int64_t now, struct machine_effects *fx)
{
	request->n_tries += error != -ECHILD && error != MACHINE_KILLED;
	waiter_return(m, request, now, fx);
	if (request->state == REQUEST_WAITING) {
		serve(m, now, fx);
		refuse_if_once(m, request, fx);
	}
}

/* Serves those who have come back to the queue, as try_again() does one. */
static void serve_returned(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	serve(m, now, fx);
	ap_list_for_each_safe (at, next, &m->waiters) {
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		if (request->token == 0)
			break;
		refuse_if_once(m, request, fx);
	}
}

/* The acquirer that the agent was made ready for, if it still waits, has to have another. */
static void slot_unreserve(struct machine_view *m, struct machine_slot *slot, int64_t now,
			   struct machine_effects *fx)
{
	struct machine_request *request = slot->request;
	slot->request = NULL;
	lease_clear(slot);
	slot_lose(m, slot, fx);
	if (request)
		waiter_return(m, request, now, fx);
}

static int on_validated(struct machine_view *m, const struct machine_event *event, int64_t now,
			struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (event->result == 0) {
		grant(m, slot, event->granted_ns, now, fx);
		return 0;
	}
	struct machine_request *request = slot->request;
	slot->request = NULL;
	lease_clear(slot);
	if (agent_is_well(event->result)) {
		if (request)
			answer(fx, request, event->result);
		slot_settle(m, slot, AP_REASON_REFUSED, now, fx);
		return 0;
	}
	slot_sicken(m, slot, event->result == -ETIMEDOUT ? AP_REASON_TIMEOUT : AP_REASON_UNHEALTHY,
		    event->result, now, fx);
	if (request)
		try_again(m, request, event->result, now, fx);
	return 0;
}

/* The work could not be saved. The slot keeps its label, by which users find the work. */
static void quarantine(struct machine_view *m, struct machine_slot *slot, int64_t now,
		       struct machine_effects *fx)
{
	slot_disown(m, slot);
	slot_mark(m, slot, AP_REASON_NONE);
	slot->leaving = slot->retire = AP_REASON_NONE;
	slot->token = 0;
	slot->effect = 0;
	slot->deadline_ns = AP_FOREVER;
	if (slot->state == AP_AGENT_ACTIVE)
		slot_move(m, slot, AP_AGENT_QUARANTINED, AP_REASON_UNSAVED, fx);
	if (m->shutdown && !on_lost_host(m, slot))
		slot_let_go(m, slot, now, fx);
}

static void check_recycling(struct machine_view *m, struct machine_slot *slot, int64_t now)
{
	if (slot->recycle)
		return;
	struct recycling_sample sample = {
		.started_ns = slot->started_ns,
		.jitter = slot->jitter,
		.n_requests = slot->n_served,
		.n_memory_over = slot->n_memory_over,
		.cpu_over = slot->cpu_over,
	};
	slot_mark(m, slot, recycling_due(&m->limits.recycling, &sample, now));
}

static int on_saved(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	enum ap_reason reason = slot->leaving;
	slot_answer(slot, fx, event->result);
	/* agent_is_well(): the save succeeded, its record failed: the releaser gets the error */
	if (event->result < 0 && !agent_is_well(event->result)) {
		quarantine(m, slot, now, fx);
		return 0;
	}
	lease_clear(slot);
	if (slot->state == AP_AGENT_QUARANTINED && !slot->retire)
		slot->retire = (uint8_t)reason;
	enum ap_reason leaves = m->shutdown ? AP_REASON_SHUTDOWN : host_sheds(host_of(m, slot));
	if (on_lost_host(m, slot)) {
		slot_lose(m, slot, fx);
		return 0;
	}
	if (slot->retire) {
		slot_stop(m, slot, slot->retire, now, fx);
		return 0;
	}
	if (leaves) {
		slot_drain(m, slot, leaves, now, fx);
		return 0;
	}
	slot_prove(m, slot);
	check_recycling(m, slot, now);
	if (slot->recycle)
		slot_recycle(m, slot, slot->recycle, now, fx);
	else
		slot_clean(m, slot, reason, false, now, fx);
	return 0;
}

static int on_recycled(struct machine_view *m, const struct machine_event *event, int64_t now,
		       struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (event->result < 0) {
		slot_stop(m, slot, failure(event->result), now, fx);
		spawn_failed(m, slot, event->result, now);
		return 0;
	}
	bool counted = slot->recycle;
	if (counted) {
		slot_mark(m, slot, AP_REASON_NONE);
		slot->n_recycles++;
		m->n_recycled++;
		generation_begin(m, slot);
		slot_unprove(m, slot, now);
	}
	bool again = slot->recycle_next;
	slot->recycle_next = false;
	slot_settle(m, slot, counted ? AP_REASON_RECYCLED : AP_REASON_CLEANED, now, fx);
	if (!again || slot->state != AP_AGENT_IDLE)
		return 0;
	slot_mark(m, slot, AP_REASON_ASKED);
	if (!m->suspended) /* before anybody is served: who asked may be the next acquirer */
		slot_recycle(m, slot, AP_REASON_ASKED, now, fx);
	return 0;
}

static int on_drained(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	if (!on_lost_host(m, slot)) {
		slot_stop(m, slot, AP_REASON_DRAINED, now, fx);
		return 0;
	}
	slot->retire = AP_REASON_DRAINED;
	slot_lose(m, slot, fx);
	return 0;
}

static int on_stopped(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	slot_gone(m, slot_at(m, event->slot), fx);
	return 0;
}

static int on_probed(struct machine_view *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	const struct recycling_limits *limits = &m->limits.recycling;
	slot->probe = 0;
	if (event->result < 0) {
		if (slot->state == AP_AGENT_IDLE) /* a leased agent is the holder's concern */
			slot_sicken(m, slot, AP_REASON_UNHEALTHY, event->result, now, fx);
		return 0;
	}
	bool over = limits->max_memory > 0 && event->memory > limits->max_memory;
	if (!over)
		slot->n_memory_over = 0;
	else if (slot->n_memory_over < UINT8_MAX)
		slot->n_memory_over++;
	slot->cpu_over = limits->max_cpu > 0 && event->cpu > limits->max_cpu;
	check_recycling(m, slot, now);
	return 0;
}

static int on_exited(struct machine_view *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	struct machine_slot *slot = slot_at(m, event->slot);
	switch ((enum ap_agent_state)slot->state) {
	case AP_AGENT_IDLE:
		slot_sicken(m, slot, AP_REASON_EXITED, event->result, now, fx);
		break;
	case AP_AGENT_SPAWNING: /* before the outcome of the effect came in */
	case AP_AGENT_RECYCLING:
		if (!slot->retire)
			start_failed(m, slot, event->result, now);
		slot->retire = AP_REASON_EXITED;
		break;
	case AP_AGENT_VALIDATING: /* the health check may have run before the exit */
		start_failed(m, slot, event->result, now);
		slot_disown(m, slot);
		break;
	case AP_AGENT_ACTIVE: /* stays ACTIVE: the holder sees `exited` and may restart it */
		slot_disown(m, slot);
		break;
	default:
		break;
	}
	return 0;
}

/* --- time --- */

static void expire_waiters(struct machine_view *m, int64_t now, struct machine_effects *fx)
{
	struct ap_list *at, *next;
	if (m->waiters_due_ns <= now) {
		m->waiters_due_ns = AP_FOREVER;
		ap_list_for_each_safe (at, next, &m->waiters) {
			struct machine_request *request =
				ap_container_of(at, struct machine_request, link);
			if (request->deadline_ns <= now)
				waiter_refuse(m, request, -ETIMEDOUT, fx);
			else if (request->deadline_ns < m->waiters_due_ns)
				m->waiters_due_ns = request->deadline_ns;
		}
	}
	wake_by(m, m->waiters_due_ns);
}

/* The slot's deadline has passed: moves it to the one successor of its state. The machine does not
 * await the old effect any more; the successor's effect runs behind the old one. */
static void slot_overdue(struct machine_view *m, struct machine_slot *slot, int64_t now,
			 struct machine_effects *fx)
{
	const struct machine_event late = {.slot = machine_slot_index(m, slot),
					   .result = -ETIMEDOUT};
	switch ((enum ap_agent_state)slot->state) {
	case AP_AGENT_SPAWNING:
		on_spawned(m, &late, now, fx);
		break;
	case AP_AGENT_VALIDATING:
		on_validated(m, &late, now, fx);
		break;
	case AP_AGENT_ACTIVE:
		if (slot->leaving)
			on_saved(m, &late, now, fx);
		else
			lease_end(m, slot, AP_REASON_TTL, false, now, fx);
		break;
	case AP_AGENT_QUARANTINED: /* another save of the work is under way */
		on_saved(m, &late, now, fx);
		break;
	case AP_AGENT_RECYCLING:
		on_recycled(m, &late, now, fx);
		break;
	case AP_AGENT_DRAINING:
		on_drained(m, &late, now, fx);
		break;
	case AP_AGENT_STOPPING: /* never given up: an agent that may live counts against max_size */
		slot->deadline_ns = ap_clock_after(now, STOP_LIMIT);
		break;
	case AP_AGENT_FREE:
	case AP_AGENT_IDLE:
	case AP_AGENT_UNHEALTHY: /* within one step */
	case AP_AGENT_LOST:
	case AP_N_AGENT_STATES:
		break;
	}
}

static void expire_slot(struct machine_view *m, struct machine_slot *slot, int64_t now,
			struct machine_effects *fx)
{
	if (m->suspended && !slot->effect) /* nothing begins now: MACHINE_RESUME checks again */
		return;
	if (on_lost_host(m, slot)) /* host_return() has what was due begin anew */
		return;
	if (slot->deadline_ns <= now)
		slot_overdue(m, slot, now, fx);
	wake_by(m, slot->deadline_ns);
	if (slot->state == AP_AGENT_VALIDATING && slot->request) {
		if (slot->request->deadline_ns <= now)
			slot_answer(slot, fx, -ETIMEDOUT);
		else
			wake_by(m, slot->request->deadline_ns);
	}
	if (slot->state != AP_AGENT_IDLE && slot->state != AP_AGENT_ACTIVE)
		return;
	if (!slot->proven) {
		if (slot->started_ns + PROVEN_AFTER <= now)
			slot_prove(m, slot);
		else
			wake_by(m, slot->started_ns + PROVEN_AFTER);
	}
	int64_t expiry = recycling_expiry(&m->limits.recycling, slot->started_ns, slot->jitter);
	if (expiry <= now)
		check_recycling(m, slot, now);
	else
		wake_by(m, expiry);
}

/* The interval to the next pass. An adapted one halves if an effect has begun since the last pass;
 * from the third quiet pass in a row on it grows by half. */
static int64_t pass_interval(struct machine_view *m)
{
	if (m->limits.pass_ns > 0)
		return m->limits.pass_ns;
	if (m->n_begun != m->pass_begun) {
		m->n_quiet = 0;
		m->pass_ns /= 2;
	} else if (++m->n_quiet >= QUIET_PASSES) {
		m->pass_ns = m->pass_ns / 2 * 3;
	}
	m->pass_begun = m->n_begun;
	if (m->pass_ns < PASS_SHORTEST)
		m->pass_ns = PASS_SHORTEST;
	return m->pass_ns = m->pass_ns < PASS_LONGEST ? m->pass_ns : PASS_LONGEST;
}

static void probe_all(struct machine_view *m, enum ap_agent_state state, struct machine_effects *fx)
{
	struct ap_list *at;
	ap_list_for_each (at, &m->states[state]) {
		struct machine_slot *slot = ap_container_of(at, struct machine_slot, link);
		if (on_lost_host(m, slot))
			continue;
		slot->probe = effect_add(m, fx, EFFECT_PROBE, slot)->id;
	}
}

static int on_pass(struct machine_view *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	if (m->suspended)
		return 0;
	m->pass_due_ns = ap_clock_after(now, pass_interval(m));
	wake_by(m, m->pass_due_ns);
	if (m->limits.idle_timeout_ns > 0 && m->n_waiting == 0 && m->target < 0) {
		const struct scaling_policy *policy = &scaling_policies[m->limits.policy];
		retire_idle(m, policy_size(m, sizing_sample(m), policy->floor),
			    now - m->limits.idle_timeout_ns, AP_REASON_IDLE, now, fx);
	}
	probe_all(m, AP_AGENT_IDLE, fx);
	probe_all(m, AP_AGENT_ACTIVE, fx);
	return 0;
}

static int on_timer(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	struct ap_list *at;
	m->wake_ns = AP_FOREVER;
	if (m->limited_until_ns <= now)
		m->limited_until_ns = 0;
	if (m->limited_until_ns != 0)
		wake_by(m, m->limited_until_ns);
	expire_waiters(m, now, fx);
	for (unsigned i = 0; i < m->n_slots; i++)
		expire_slot(m, slot_at(m, i), now, fx);
	if (m->pass_due_ns <= now)
		on_pass(m, event, now, fx);
	if (!m->suspended)
		wake_by(m, m->pass_due_ns);
	ap_list_for_each (at, &m->up)
		wake_for_retry(m, ap_container_of(at, struct machine_host, up), now);
	return 0;
}

/* --- the pool as a whole --- */

static int on_config(struct machine_view *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	if (event->limits)
		m->limits = *event->limits;
	int64_t pass = m->limits.pass_ns > 0 ? m->limits.pass_ns : m->pass_ns;
	if (m->pass_due_ns > ap_clock_after(now, pass))
		m->pass_due_ns = ap_clock_after(now, pass);
	if (m->target > (int)m->limits.max_size)
		m->target = (int)m->limits.max_size;
	if (m->target >= 0 && m->target < (int)m->limits.min_size)
		m->target = (int)m->limits.min_size;
	if (m->limits.policy != SCALING_EWMA)
		m->load = (struct scaling_load){0};
	if (m->limits.spent)
		refuse_all(m, -EDQUOT, fx);
	return on_timer(m, event, now, fx); /* for what is due under the new limits */
}

static int on_scale(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	if (event->target >= 0 && ((unsigned)event->target < m->limits.min_size ||
				   (unsigned)event->target > m->limits.max_size))
		return -ERANGE;
	m->target = event->target;
	return 0;
}

static int on_drain(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	retire_idle(m, m->limits.min_size, AP_FOREVER, AP_REASON_DRAIN, now, fx);
	return 0;
}

static int on_close(struct machine_view *m, const struct machine_event *event, int64_t now,
		    struct machine_effects *fx)
{
	m->closed = true;
	refuse_all(m, -ESHUTDOWN, fx);
	return 0;
}

static int on_open(struct machine_view *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	if (m->shutdown || m->suspended)
		return -ESHUTDOWN;
	m->closed = false;
	return 0;
}

static int on_reset_breaker(struct machine_view *m, const struct machine_event *event, int64_t now,
			    struct machine_effects *fx)
{
	for (unsigned i = 0; i < m->n_hosts; i++)
		breaker_reset(&host_at(m, i)->breaker);
	return 0;
}

/* Begins the end of what a lease has left, or of the lease. */
static void slot_shut_down(struct machine_view *m, struct machine_slot *slot, int64_t now,
			   struct machine_effects *fx)
{
	if (machine_slot_leased(slot))
		lease_end(m, slot, AP_REASON_SHUTDOWN, false, now, fx);
	else if (slot->state == AP_AGENT_QUARANTINED && !slot->leaving)
		slot_let_go(m, slot, now, fx);
}

static int on_shutdown(struct machine_view *m, const struct machine_event *event, int64_t now,
		       struct machine_effects *fx)
{
	on_close(m, event, now, fx);
	m->shutdown = true;
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = slot_at(m, i);
		if (slot->state == AP_AGENT_VALIDATING)
			slot_answer(slot, fx, -ESHUTDOWN); /* grant() ends its lease at once */
		else if (!on_lost_host(m, slot))
			slot_shut_down(m, slot, now, fx);
	}
	return 0;
}

static int on_suspend(struct machine_view *m, const struct machine_event *event, int64_t now,
		      struct machine_effects *fx)
{
	m->suspended = true;
	return 0;
}

static int on_resume(struct machine_view *m, const struct machine_event *event, int64_t now,
		     struct machine_effects *fx)
{
	m->suspended = false;
	hosts_catch_up(m, now, fx);
	return on_timer(m, event, now, fx); /* for what was due meanwhile */
}

/* --- a host --- */

/* It does not answer: what begins no lease and ends none is lost, what is under way for the others
 * is waited for, and the acquirers that its agents were made ready for go elsewhere. */
static void host_lose(struct machine_view *m, const struct machine_host *host, int64_t now,
		      struct machine_effects *fx)
{
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = slot_at(m, i);
		if (!lives_on(m, slot, host))
			continue;
		if (slot->state == AP_AGENT_VALIDATING)
			slot_unreserve(m, slot, now, fx);
		else if (slot->state == AP_AGENT_IDLE || slot->state == AP_AGENT_SPAWNING ||
			 slot->state == AP_AGENT_RECYCLING)
			slot_lose(m, slot, fx);
		slot->deadline_ns = AP_FOREVER;
	}
	serve_returned(m, now, fx);
}

/* It answers again: effects that are still awaited, and leases, have their full time. */
static void host_return(struct machine_view *m, const struct machine_host *host, int64_t now,
			struct machine_effects *fx)
{
	static const int64_t limits[AP_N_AGENT_STATES] = {
		[AP_AGENT_ACTIVE] = SAVE_LIMIT,
		[AP_AGENT_QUARANTINED] = SAVE_LIMIT,
		[AP_AGENT_DRAINING] = DRAIN_LIMIT,
		[AP_AGENT_STOPPING] = STOP_LIMIT,
	};
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = slot_at(m, i);
		if (!lives_on(m, slot, host))
			continue;
		if (slot->effect) {
			slot->deadline_ns = ap_clock_after(now, limits[slot->state]);
			wake_by(m, slot->deadline_ns);
		} else if (m->shutdown) {
			slot_shut_down(m, slot, now, fx);
		} else if (slot->state == AP_AGENT_ACTIVE) {
			ttl_begin(m, slot, now);
		}
		if (slot->state == AP_AGENT_ACTIVE)
			wake_for_age(m, slot);
	}
}

/* It is dead, and every agent of it gone. */
static void host_die(struct machine_view *m, const struct machine_host *host, int64_t now,
		     struct machine_effects *fx)
{
	for (unsigned i = 0; i < m->n_slots; i++) {
		struct machine_slot *slot = slot_at(m, i);
		if (!lives_on(m, slot, host))
			continue;
		if (slot->state == AP_AGENT_VALIDATING)
			slot_unreserve(m, slot, now, fx);
		slot_answer(slot, fx, -EHOSTDOWN);
		slot_disown(m, slot);
		slot_mark(m, slot, AP_REASON_NONE);
		if (slot->state != AP_AGENT_STOPPING)
			slot_move(m, slot, AP_AGENT_STOPPING, AP_REASON_DEAD, fx);
		slot_gone(m, slot, fx);
	}
	serve_returned(m, now, fx);
}

static int on_host(struct machine_view *m, const struct machine_event *event, int64_t now,
		   struct machine_effects *fx)
{
	if (event->host >= m->n_hosts || (unsigned)event->host_state >= AP_N_HOST_STATES)
		return -EINVAL;
	struct machine_host *host = host_at(m, event->host);
	enum ap_host_state before = host->state;
	host->state = event->host_state;
	host->slots = event->slots;
	host->warm = event->warm;
	host_list(m, host);
	if (host->state == AP_HOST_DOWN || host->state == AP_HOST_PENDING)
		host_die(m, host, now, fx);
	else if (host->state == AP_HOST_LOST)
		host_lose(m, host, now, fx);
	else if (before == AP_HOST_LOST)
		host_return(m, host, now, fx);
	hosts_catch_up(m, now, fx);
	if (host->state == AP_HOST_UP)
		wake_for_retry(m, host, now);
	return 0;
}

typedef int handler(struct machine_view *, const struct machine_event *, int64_t,
		    struct machine_effects *);

static handler *const handlers[N_MACHINE_EVENTS] = {
	[MACHINE_ADOPT] = on_adopt,	  [MACHINE_ACQUIRE] = on_acquire,
	[MACHINE_CANCEL] = on_cancel,	  [MACHINE_RELEASE] = on_release,
	[MACHINE_RENEW] = on_renew,	  [MACHINE_PROMPT] = on_prompt,
	[MACHINE_KILL] = on_kill,	  [MACHINE_RECYCLE] = on_recycle,
	[MACHINE_SPAWNED] = on_spawned,	  [MACHINE_VALIDATED] = on_validated,
	[MACHINE_SAVED] = on_saved,	  [MACHINE_RECYCLED] = on_recycled,
	[MACHINE_DRAINED] = on_drained,	  [MACHINE_STOPPED] = on_stopped,
	[MACHINE_PROBED] = on_probed,	  [MACHINE_EXITED] = on_exited,
	[MACHINE_TIMER] = on_timer,	  [MACHINE_PASS] = on_pass,
	[MACHINE_CONFIG] = on_config,	  [MACHINE_SCALE] = on_scale,
	[MACHINE_DRAIN] = on_drain,	  [MACHINE_CLOSE] = on_close,
	[MACHINE_OPEN] = on_open,	  [MACHINE_RESET_BREAKER] = on_reset_breaker,
	[MACHINE_SHUTDOWN] = on_shutdown, [MACHINE_SUSPEND] = on_suspend,
	[MACHINE_RESUME] = on_resume,	  [MACHINE_RESTORE] = on_restore,
	[MACHINE_LIMIT] = on_limit,	  [MACHINE_HOST] = on_host,
};

enum machine_event_type machine_outcome(enum machine_effect_type effect)
{
	static const enum machine_event_type outcomes[N_EFFECTS] = {
		[EFFECT_SPAWN] = MACHINE_SPAWNED, [EFFECT_VALIDATE] = MACHINE_VALIDATED,
		[EFFECT_SAVE] = MACHINE_SAVED,	  [EFFECT_RECYCLE] = MACHINE_RECYCLED,
		[EFFECT_DRAIN] = MACHINE_DRAINED, [EFFECT_STOP] = MACHINE_STOPPED,
		[EFFECT_PROBE] = MACHINE_PROBED,
	};
	return outcomes[effect];
}

/* Whether the event is no outcome, or the outcome of the effect that its slot waits for. */
static bool awaited(const struct machine_view *m, const struct machine_event *event)
{
	const struct machine_slot *slot = &m->slots[event->slot];
	switch (event->type) {
	case MACHINE_SPAWNED:
	case MACHINE_VALIDATED:
	case MACHINE_SAVED:
	case MACHINE_RECYCLED:
	case MACHINE_DRAINED:
	case MACHINE_STOPPED:
		return event->effect && event->effect == slot->effect;
	case MACHINE_PROBED:
		return event->effect && event->effect == slot->probe;
	default:
		return true;
	}
}

/* Whether the event changes nothing that reconcile() reads, or a later one reconciles for it. */
static bool concerns_holder_only(enum machine_event_type type)
{
	return type == MACHINE_RELEASE || type == MACHINE_RENEW || type == MACHINE_PROMPT ||
	       type == MACHINE_ADOPT || type == MACHINE_RESTORE; /* other events follow these two */
}

int machine_step(struct machine *machine, const struct machine_event *event, int64_t now,
		 struct machine_effects *fx)
{
	struct machine_view *m = &machine->view;
	fx->n = fx->n_moves = 0;
	ap_list_init(&fx->answered);
	if (!awaited(m, event))
		return -ESTALE;
	int r = handlers[event->type](m, event, now, fx);
	if (r == 0 && !concerns_holder_only(event->type))
		reconcile(m, now, fx);
	return r;
}

unsigned machine_max_effects(const struct machine_view *m)
{
	/* a slot changes state only a few times in one step: spawned, settled, probed, drained */
	return 6 * m->n_slots;
}

const struct machine_slot *machine_find_label(const struct machine_view *m, const char *text)
{
	struct machine_label *label = label_find(m, text);
	return label && label->in_slot ? ap_container_of(label, struct machine_slot, label) : NULL;
}

const struct machine_slot *machine_find_number(const struct machine_view *m, unsigned number)
{
	for (unsigned i = 0; i < m->n_slots; i++) {
		const struct machine_slot *slot = &m->slots[i];
		if (slot->state != AP_AGENT_FREE && slot->number == number)
			return slot;
	}
	return NULL;
}

unsigned machine_total(const struct machine_view *m)
{
	return m->n_slots - m->n_in_state[AP_AGENT_FREE];
}

const struct breaker *machine_breaker(const struct machine_view *m)
{
	static const struct breaker closed = {.state = BREAKER_CLOSED};
	const struct breaker *best = NULL;
	struct ap_list *at;
	ap_list_for_each (at, &m->up) {
		const struct breaker *here = &ap_container_of(at, struct machine_host, up)->breaker;
		if (here->state == BREAKER_CLOSED)
			return here;
		if (!best || (best->state == BREAKER_OPEN && here->state == BREAKER_HALF_OPEN))
			best = here;
	}
	return best ? best : &closed;
}

const struct machine_slot *machine_free_slot(const struct machine_view *m)
{
	const struct ap_list *free_slots = &m->states[AP_AGENT_FREE];
	return ap_list_empty(free_slots)
		       ? NULL
		       : ap_container_of(free_slots->next, struct machine_slot, link);
}

bool machine_at_rest(const struct machine_view *m)
{
	for (unsigned i = 0; i < m->n_slots; i++) {
		if (m->slots[i].effect)
			return false;
	}
	return true;
}

unsigned machine_live(const struct machine_view *m)
{
	const unsigned *n = m->n_in_state;
	return n[AP_AGENT_SPAWNING] + n[AP_AGENT_IDLE] + n[AP_AGENT_VALIDATING] +
	       n[AP_AGENT_ACTIVE] + n[AP_AGENT_RECYCLING];
}

struct scaling_sample machine_sample(const struct machine_view *m)
{
	const unsigned *n = m->n_in_state;
	return (struct scaling_sample){
		.n_active = n[AP_AGENT_ACTIVE] + n[AP_AGENT_VALIDATING],
		.n_idle = n[AP_AGENT_IDLE],
		.n_coming = n[AP_AGENT_SPAWNING] + n[AP_AGENT_RECYCLING],
		.n_waiting = m->n_waiting,
	};
}

static void init_hosts(struct machine_view *m)
{
	ap_list_init(&m->up);
	ap_list_init(&m->room);
	for (unsigned i = 0; i < m->n_hosts; i++) {
		struct machine_host *host = host_at(m, i);
		ap_list_init(&host->up);
		ap_list_init(&host->room);
		ap_list_init(&host->waiters);
	}
	host_at(m, 0)->state = AP_HOST_UP;
	host_at(m, 0)->slots = m->n_slots;
	host_list(m, host_at(m, 0));
}

int machine_init(struct machine *machine, unsigned n_slots, unsigned n_hosts,
		 const struct machine_limits *limits, uint32_t seed, int64_t now_ns)
{
	struct machine_view *m = &machine->view;
	assert(n_hosts > 0 && n_hosts <= MACHINE_MAX_HOSTS);
	*m = (struct machine_view){
		.limits = *limits,
		.n_slots = n_slots,
		.n_hosts = n_hosts,
		.n_labels = 256,
		.n_user_places = 16,
		.target = -1,
		.next_number = 1,
		.next_token = 1,
		.next_lease = 1,
		.random = seed ? seed : 1,
		.low_since_ns = AP_FOREVER,
		.waiters_due_ns = AP_FOREVER,
		.pass_ns = PASS_FIRST,
		.scale_direction = AP_SCALE_NONE,
	};
	while (m->n_labels < 2 * n_slots + limits->max_waiting / LABELS_A_BUCKET)
		m->n_labels *= 2;
	m->slots = calloc(n_slots, sizeof *m->slots);
	m->hosts = calloc(n_hosts, sizeof *m->hosts);
	m->labels = calloc(m->n_labels, sizeof *m->labels);
	/* up to n_slots requests come back to the queue beyond max_waiting, when agents fail */
	while (m->n_user_places < 2 * (limits->max_waiting + n_slots))
		m->n_user_places *= 2;
	m->users = calloc(m->n_user_places, sizeof *m->users);
	if (!m->slots || !m->hosts || !m->labels || !m->users) {
		machine_fini(machine);
		return -ENOMEM;
	}
	init_hosts(m);
	ap_list_init(&m->waiters);
	ap_list_init(&m->anyone);
	for (unsigned i = 0; i < m->n_labels; i++)
		ap_list_init(&m->labels[i]);
	for (int i = 0; i < AP_N_AGENT_STATES; i++)
		ap_list_init(&m->states[i]);
	for (unsigned i = 0; i < n_slots; i++) {
		struct machine_slot *slot = slot_at(m, i);
		slot->proven = slot->label.in_slot = true;
		slot->deadline_ns = AP_FOREVER;
		ap_list_init(&slot->label.link);
		ap_list_init(&slot->waiters);
		ap_list_append(&m->states[AP_AGENT_FREE], &slot->link);
	}
	m->n_in_state[AP_AGENT_FREE] = n_slots;
	m->pass_due_ns = m->wake_ns =
		ap_clock_after(now_ns, limits->pass_ns > 0 ? limits->pass_ns : m->pass_ns);
	return 0;
}

void machine_fini(struct machine *machine)
{
	struct machine_view *m = &machine->view;
	free(slot_at(m, 0));
	free(host_at(m, 0));
	free(m->labels);
	free(m->users);
	m->slots = NULL;
	m->hosts = NULL;
	m->labels = NULL;
	m->users = NULL;
}

struct machine *machine_new(unsigned n_slots, unsigned n_hosts, const struct machine_limits *limits,
			    uint32_t seed, int64_t now_ns)
{
	struct machine *machine = malloc(sizeof *machine);
	if (machine && machine_init(machine, n_slots, n_hosts, limits, seed, now_ns) == 0)
		return machine;
	free(machine);
	return NULL;
}

void machine_free(struct machine *machine)
{
	if (machine)
		machine_fini(machine);
	free(machine);
}

const struct machine_view *machine_view(const struct machine *machine)
{
	return &machine->view;
}
