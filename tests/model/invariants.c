/* What must hold after every step, in the test's own words. */
#include <string.h>

#include "clock.h"
#include "world.h"

#define PROBATION   (5 * AP_SECOND)
#define MAX_BACKOFF (450 * AP_SECOND)

/* --- of the state --- */

static void check_lists(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_listed = 0;
	for (unsigned state = 0; state < AP_N_AGENT_STATES; state++) {
		unsigned n = 0;
		int64_t used = AP_FOREVER;
		struct ap_list *at;
		ap_list_for_each (at, &m->states[state]) {
			const struct machine_slot *slot =
				ap_container_of(at, struct machine_slot, link);
			CHECK(w, at->next->prev == at && at->prev->next == at, "lists are whole");
			CHECK(w, slot->state == state, "a slot is in the list of its state");
			if (state == AP_AGENT_IDLE)
				CHECK(w, slot->used_ns <= used, "idle: last used first");
			used = slot->used_ns;
			CHECK(w, ++n <= m->n_slots, "a list of slots ends");
		}
		CHECK(w, n == m->n_in_state[state], "a count is the length of its list");
		n_listed += n;
	}
	CHECK(w, n_listed == m->n_slots, "every slot is in exactly one list");
}

static void check_counts(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_marked = 0, n_alive = 0, n_born = 0, n_leased = 0, n_limited = 0;
	for (unsigned i = 0; i < m->n_slots; i++) {
		const struct machine_slot *slot = &m->slots[i];
		n_marked += slot->recycle != 0;
		n_limited += slot->limited;
		n_alive += w->alive[i];
		n_born += slot->born;
		n_leased += slot->state == AP_AGENT_ACTIVE && !slot->leaving;
		CHECK(w, w->alive[i] == (slot->state != AP_AGENT_FREE),
		      "what may be alive is in a slot that is not free");
	}
	CHECK(w, n_marked == m->n_marked, "marked agents are counted");
	CHECK(w, n_limited == m->n_limited, "agents at their limit are counted");
	CHECK(w, n_alive == machine_total(m), "what may be alive counts in the total");
	CHECK(w, m->n_spawned - m->n_terminated == n_born,
	      "spawned less terminated are the agents that live");
	CHECK(w, m->n_grants + w->n_adopted - w->n_ended == n_leased,
	      "grants less ended are the leases held");
}

static bool is_in(const struct ap_list *list, const struct ap_list *link)
{
	const struct ap_list *at;
	ap_list_for_each (at, list)
		if (at == link)
			return true;
	return false;
}

static void check_host(const struct world *w, unsigned index)
{
	const struct machine_view *m = &w->memory.machine.view;
	const struct machine_host *host = &m->hosts[index];
	unsigned n_agents = 0, n_unproven = 0, n_ending = 0, n_waiting = 0;
	struct ap_list *at;
	for (unsigned i = 0; i < m->n_slots; i++) {
		const struct machine_slot *slot = &m->slots[i];
		if (slot->state == AP_AGENT_FREE || slot->host != index)
			continue;
		n_agents++;
		n_unproven += !slot->proven;
		n_ending += slot->state == AP_AGENT_DRAINING || slot->state == AP_AGENT_STOPPING;
		CHECK(w,
		      slot->state != AP_AGENT_LOST || host->state == AP_HOST_LOST || m->suspended,
		      "an agent is lost while its host is");
		CHECK(w, slot->state != AP_AGENT_IDLE || host->state == AP_HOST_UP || m->suspended,
		      "agents are idle where they can be granted");
	}
	ap_list_for_each (at, &host->waiters)
		n_waiting++;
	CHECK(w, n_agents == host->n_agents, "agents of a host are counted");
	CHECK(w, n_unproven == host->n_unproven, "agents on probation are counted");
	CHECK(w, n_ending == host->n_ending, "agents that end are counted");
	CHECK(w, n_waiting == host->n_waiting, "those who wait for a host are counted");
	CHECK(w, n_agents == 0 || (host->state != AP_HOST_DOWN && host->state != AP_HOST_PENDING),
	      "nothing lives where there is nothing");
	CHECK(w, is_in(&m->up, &host->up) == (host->state == AP_HOST_UP), "who is up is listed");
	CHECK(w,
	      is_in(&m->room, &host->room) == (host->state == AP_HOST_UP && n_agents < host->slots),
	      "who has room is listed");
}

static void check_hosts(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_agents = 0, n_waiting = 0;
	for (unsigned i = 0; i < m->n_hosts; i++) {
		check_host(w, i);
		n_agents += m->hosts[i].n_agents;
		n_waiting += m->hosts[i].n_waiting;
	}
	CHECK(w, n_agents == machine_total(m), "every agent is on a host");
	CHECK(w, n_waiting == m->n_waiting_for_host, "those who wait for hosts are counted");
}

static void check_labels(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_indexed = 0, n_labels = m->n_waiting;
	for (unsigned i = 0; i < m->n_labels; i++) {
		struct ap_list *at;
		ap_list_for_each (at, &m->labels[i]) {
			CHECK(w, at->next->prev == at, "chains of labels are whole");
			CHECK(w, ++n_indexed <= m->n_slots + N_REQUESTS, "a chain of labels ends");
		}
	}
	for (unsigned i = 0; i < m->n_slots; i++) {
		const struct machine_slot *slot = &m->slots[i];
		n_labels += !ap_list_empty(&slot->label.link);
		CHECK(w, slot->state != AP_AGENT_FREE || ap_list_empty(&slot->label.link),
		      "the label of an agent that is gone is forgotten");
		if (!slot->label.text[0])
			continue;
		CHECK(w, machine_find_label(m, slot->label.text) == slot,
		      "a label is of one lease only, and leads to it");
	}
	CHECK(w, n_indexed == n_labels,
	      "the index has each label of a waiter, a lease or a last lease once");
}

static bool may_have_lease(const struct machine_slot *slot)
{
	return slot->state == AP_AGENT_VALIDATING || slot->state == AP_AGENT_ACTIVE;
}

static void check_leases(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	for (unsigned i = 0; i < m->n_slots; i++) {
		const struct machine_slot *slot = &m->slots[i];
		CHECK(w, !!slot->token == may_have_lease(slot), "a lease and only it has a token");
		CHECK(w,
		      !!slot->label.text[0] ==
			      (may_have_lease(slot) || slot->state == AP_AGENT_QUARANTINED),
		      "a label is of a lease, or of work that is quarantined");
		CHECK(w, !slot->leaving || slot->effect, "a lease that leaves is being saved");
		CHECK(w, slot->token < m->next_token, "tokens come from one counter");
		for (unsigned k = 0; k < i && slot->token; k++)
			CHECK(w, slot->token != m->slots[k].token, "no two leases have one token");
	}
}

/* The waiters who want agent number `agent`, or any (0) on a host (0: on any), in their order. */
static void check_turns(const struct world *w, const struct ap_list *turns, unsigned agent,
			unsigned host)
{
	const struct machine_view *m = &w->memory.machine.view;
	const struct ap_list *turn = turns->next;
	struct ap_list *at;
	ap_list_for_each (at, &m->waiters) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		if (request->agent != agent || (!agent && request->host != host))
			continue;
		CHECK(w, turn == &request->turn, "those who want the same keep their order");
		turn = turn->next;
	}
	CHECK(w, turn == turns, "who has a turn waits");
}

static void check_requests(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_waiting = 0, n_held = 0, n_busy = 0;
	uint64_t last = 0;
	struct ap_list *at;
	ap_list_for_each (at, &m->waiters) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		const struct host_request *host = &w->requests[request - w->memory.requests];
		/* who was reserved an agent before comes before who was not */
		uint64_t order = request->token ? request->token : host->arrival + (1ull << 62);
		CHECK(w, ++n_waiting <= N_REQUESTS, "the queue ends");
		CHECK(w, host->busy && request->state == REQUEST_WAITING, "a waiter waits");
		CHECK(w, !request->once, "who tries once never waits");
		CHECK(w, order > last, "the queue is in the order of arrival");
		last = order;
	}
	CHECK(w, n_waiting == m->n_waiting, "waiters are counted");
	check_turns(w, &m->anyone, 0, 0);
	for (unsigned i = 0; i < m->n_hosts; i++)
		check_turns(w, &m->hosts[i].waiters, 0, i + 1);
	for (unsigned i = 0; i < m->n_slots; i++) {
		if (m->slots[i].state != AP_AGENT_FREE)
			check_turns(w, &m->slots[i].waiters, m->slots[i].number, 0);
		else
			CHECK(w, ap_list_empty(&m->slots[i].waiters), "nobody wants who is gone");
	}
	for (unsigned i = 0; i < m->n_slots; i++)
		n_held += m->slots[i].request != NULL;
	for (unsigned i = 0; i < N_REQUESTS; i++)
		n_busy += w->requests[i].busy && w->memory.requests[i].state != REQUEST_ANSWERED;
	CHECK(w, n_busy == n_waiting + n_held, "a request under way is in one place");
}

static bool anyone_for(const struct machine_view *m, const struct machine_request *request)
{
	for (unsigned i = 0; i < m->n_slots; i++)
		if (m->slots[i].state == AP_AGENT_IDLE && !m->slots[i].limited &&
		    (!request->agent || request->agent == m->slots[i].number) &&
		    (!request->host || request->host == m->slots[i].host + 1u))
			return true;
	return false;
}

static bool can_spawn_on(const struct machine_host *host)
{
	return host->state == AP_HOST_UP && host->n_agents < host->slots &&
	       host->breaker.state == BREAKER_CLOSED;
}

static bool comes_to(const struct machine_view *m, unsigned host)
{
	for (unsigned i = 0; i < m->n_slots; i++)
		if (m->slots[i].host == host && (m->slots[i].state == AP_AGENT_SPAWNING ||
						 m->slots[i].state == AP_AGENT_RECYCLING))
			return true;
	return false;
}

static void check_liveness(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	bool waits = false, anywhere = false;
	struct ap_list *at;
	ap_list_for_each (at, &m->waiters) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		CHECK(w, m->suspended || m->limited_until_ns != 0 || !anyone_for(m, request),
		      "no one waits beside an idle agent that could serve");
		bool counts = request->agent == 0 && !m->suspended && m->limited_until_ns == 0;
		waits |= counts && !request->host;
		if (counts && request->host && m->target < 0 &&
		    machine_total(m) < m->limits.max_size &&
		    m->n_in_state[AP_AGENT_SPAWNING] < m->limits.max_spawning &&
		    can_spawn_on(&m->hosts[request->host - 1]))
			CHECK(w, comes_to(m, request->host - 1),
			      "who waits for a host with room has an agent coming there");
	}
	for (unsigned i = 0; i < m->n_hosts; i++)
		anywhere |= can_spawn_on(&m->hosts[i]);
	if (waits && m->target < 0 && machine_total(m) < m->limits.max_size && anywhere)
		CHECK(w, m->n_in_state[AP_AGENT_SPAWNING] + m->n_in_state[AP_AGENT_RECYCLING] > 0,
		      "who waits and could be served has an agent coming");
	CHECK(w, !m->closed || m->n_waiting == 0, "nobody waits at a closed pool");
	CHECK(w, !m->limits.spent || m->n_waiting == 0, "nobody waits for what is not granted");
}

static bool rests(const struct machine_slot *slot)
{
	switch (slot->state) {
	case AP_AGENT_FREE:
	case AP_AGENT_IDLE:
	case AP_AGENT_LOST:
		return true;
	case AP_AGENT_ACTIVE: /* without a time to live */
		return !slot->leaving && slot->ttl_ns == 0;
	case AP_AGENT_QUARANTINED:
		return !slot->leaving;
	default:
		return false;
	}
}

static void check_slot_time(const struct world *w, const struct machine_slot *slot)
{
	const struct machine_view *m = &w->memory.machine.view;
	if (slot->state != AP_AGENT_FREE && m->hosts[slot->host].state == AP_HOST_LOST) {
		CHECK(w, slot->deadline_ns == AP_FOREVER, "nothing times out on a lost host");
		return;
	}
	CHECK(w, rests(slot) == (slot->deadline_ns == AP_FOREVER),
	      "where an agent does not rest, and only there, it has a deadline");
	CHECK(w, (slot->effect == 0) == (rests(slot) || machine_slot_leased(slot)),
	      "where an agent does not rest an effect is under way");
	if (m->suspended && !slot->effect)
		return; /* nothing begins, whatever is due */
	CHECK(w, m->wake_ns <= slot->deadline_ns, "no deadline is slept over");
	if (slot->state == AP_AGENT_VALIDATING && slot->request)
		CHECK(w, m->wake_ns <= slot->request->deadline_ns,
		      "no acquirer's deadline is slept over");
	if (m->suspended || (slot->state != AP_AGENT_IDLE && slot->state != AP_AGENT_ACTIVE))
		return;
	if (!slot->proven)
		CHECK(w, m->wake_ns <= slot->started_ns + PROBATION,
		      "no end of a probation is slept over");
	if (!slot->recycle)
		CHECK(w,
		      m->wake_ns <= recycling_expiry(&m->limits.recycling, slot->started_ns,
						     slot->jitter),
		      "no end of an age is slept over");
}

static void check_time(const struct world *w)
{
	const struct machine_view *m = &w->memory.machine.view;
	struct ap_list *at;
	for (unsigned i = 0; i < m->n_slots; i++)
		check_slot_time(w, &m->slots[i]);
	ap_list_for_each (at, &m->waiters)
		CHECK(w,
		      m->wake_ns <= ap_container_of(at, struct machine_request, link)->deadline_ns,
		      "no waiter's deadline is slept over");
	CHECK(w, m->suspended || m->wake_ns <= m->pass_due_ns, "no pass is slept over");
	CHECK(w, m->limited_until_ns == 0 || m->wake_ns <= m->limited_until_ns,
	      "no end of a limit is slept over");
	ap_list_for_each (at, &m->up) {
		const struct breaker *b = &ap_container_of(at, struct machine_host, up)->breaker;
		if (b->state == BREAKER_OPEN && b->retry_ns > w->now)
			CHECK(w, m->wake_ns <= b->retry_ns, "no retry is slept over");
	}
	if (m->low_since_ns != AP_FOREVER && m->target < 0 && !m->shutdown)
		CHECK(w,
		      m->wake_ns <= ap_clock_after(m->low_since_ns, m->limits.scale_down_window_ns),
		      "no step down is slept over");
}

void check_state(const struct world *w)
{
	check_lists(w);
	check_counts(w);
	check_hosts(w);
	check_labels(w);
	check_leases(w);
	check_requests(w);
	check_liveness(w);
	check_time(w);
}

/* --- of one step --- */

/* Whether the step has ended the host that the slot's agent was on, and so the agent. */
static bool died(const struct machine_event *event, const struct machine_memory *before,
		 unsigned slot)
{
	return event->type == MACHINE_HOST &&
	       (event->host_state == AP_HOST_DOWN || event->host_state == AP_HOST_PENDING) &&
	       before->slots[slot].state != AP_AGENT_FREE &&
	       before->slots[slot].host == event->host;
}

static bool was_leased(const struct machine_memory *before, unsigned slot)
{
	return before->slots[slot].state == AP_AGENT_ACTIVE && !before->slots[slot].leaving;
}

/* A lease ends by its work being saved, or by that not coming back in time. */
static void check_end_of_lease(const struct world *w, const struct machine_event *event,
			       const struct machine_memory *before, unsigned slot)
{
	const struct machine_slot *old = &before->slots[slot];
	bool in_time = event->type == MACHINE_SAVED && event->slot == slot;
	bool late = (event->type == MACHINE_TIMER || event->type == MACHINE_CONFIG) &&
		    old->deadline_ns <= w->now;
	CHECK(w,
	      (old->state == AP_AGENT_ACTIVE && old->leaving && (in_time || late)) ||
		      died(event, before, slot),
	      "a lease is left through saving, or dies with its host");
}

static void check_moves(const struct world *w, const struct machine_event *event,
			const struct machine_memory *before, const struct machine_effects *fx)
{
	static const char letters[] = "FSIVARUDTLQ";
	static const char *const legal[AP_N_AGENT_STATES] = {
		[AP_AGENT_FREE] = "SIAL",    [AP_AGENT_SPAWNING] = "ITL",
		[AP_AGENT_IDLE] = "VRDUTL",  [AP_AGENT_VALIDATING] = "IAUL",
		[AP_AGENT_ACTIVE] = "RDQTL", [AP_AGENT_RECYCLING] = "ITL",
		[AP_AGENT_UNHEALTHY] = "RT", [AP_AGENT_DRAINING] = "TL",
		[AP_AGENT_STOPPING] = "F",   [AP_AGENT_QUARANTINED] = "TL",
		[AP_AGENT_LOST] = "RDT",
	};
	unsigned states[MAX_SLOTS];
	for (unsigned i = 0; i < MAX_SLOTS; i++)
		states[i] = before->slots[i].state;
	for (unsigned i = 0; i < fx->n_moves; i++) {
		const struct machine_move *move = &fx->moves[i];
		CHECK(w, states[move->slot] == move->from, "moves are told in their order");
		CHECK(w, strchr(legal[move->from], letters[move->to]), "slot %u: %c to %c is legal",
		      move->slot, letters[move->from], letters[move->to]);
		CHECK(w, move->reason > AP_REASON_NONE && move->reason < AP_N_REASONS,
		      "a move has a reason");
		if (move->from == AP_AGENT_ACTIVE)
			check_end_of_lease(w, event, before, move->slot);
		if (move->to == AP_AGENT_ACTIVE)
			CHECK(w,
			      (event->type == MACHINE_VALIDATED || event->type == MACHINE_ADOPT) &&
				      event->slot == move->slot,
			      "an agent is granted when it is valid, or was before");
		if (move->from == AP_AGENT_FREE && move->to != AP_AGENT_SPAWNING)
			CHECK(w, event->type == MACHINE_ADOPT && event->slot == move->slot,
			      "an agent is spawned, or was before");
		if (move->to == AP_AGENT_FREE)
			CHECK(w,
			      (event->type == MACHINE_STOPPED && event->slot == move->slot) ||
				      died(event, before, move->slot),
			      "a slot is free when its agent has stopped, or died");
		states[move->slot] = move->to;
	}
	for (unsigned i = 0; i < MAX_SLOTS; i++)
		CHECK(w, states[i] == w->memory.slots[i].state, "every change of state is told");
}

/* Tokens are drawn when an agent is first reserved, in the order of arrival. */
static void check_reservations(struct world *w, const struct machine_effects *fx)
{
	for (unsigned i = 0; i < fx->n_moves; i++) {
		if (fx->moves[i].to != AP_AGENT_VALIDATING)
			continue;
		const struct machine_slot *slot = &w->memory.slots[fx->moves[i].slot];
		const struct machine_request *request = slot->request;
		CHECK(w, request && request->token == slot->token, "who is served has the token");
		CHECK(w, !slot->limited && w->memory.machine.view.limited_until_ns == 0,
		      "an agent at its limit is granted to nobody");
		CHECK(w, w->memory.hosts[slot->host].state == AP_HOST_UP,
		      "who is served has an agent on a host that is up");
		struct host_request *host = &w->requests[request - w->memory.requests];
		if (host->token != 0) {
			CHECK(w, host->token == slot->token, "a second try has the first's token");
			continue;
		}
		CHECK(w, slot->token > w->last_token, "tokens increase strictly");
		w->last_token = host->token = slot->token;
		if (request->agent || request->host)
			continue;
		CHECK(w, host->arrival > w->last_arrival, "who came first is served first");
		w->last_arrival = host->arrival;
	}
}

static bool effect_fits(const struct machine_effect *effect, const struct machine_slot *slot)
{
	static const enum ap_agent_state states[N_EFFECTS] = {
		[EFFECT_SPAWN] = AP_AGENT_SPAWNING, [EFFECT_VALIDATE] = AP_AGENT_VALIDATING,
		[EFFECT_SAVE] = AP_AGENT_ACTIVE,    [EFFECT_RECYCLE] = AP_AGENT_RECYCLING,
		[EFFECT_DRAIN] = AP_AGENT_DRAINING, [EFFECT_STOP] = AP_AGENT_STOPPING,
	};
	if (effect->type == EFFECT_SAVE && slot->state == AP_AGENT_QUARANTINED)
		return slot->leaving;
	if (effect->type == EFFECT_SAVE && !slot->leaving)
		return false;
	return slot->state == states[effect->type];
}

static void check_spawns(const struct world *w, const struct machine_effects *fx)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_spawns[MAX_HOSTS] = {0};
	for (unsigned i = 0; i < fx->n; i++)
		n_spawns[w->memory.slots[fx->at[i].slot].host] += fx->at[i].type == EFFECT_SPAWN;
	for (unsigned i = 0; i < m->n_hosts; i++) {
		const struct machine_host *host = &m->hosts[i];
		if (n_spawns[i] == 0)
			continue;
		CHECK(w, host->state == AP_HOST_UP, "agents begin on a host that is up");
		CHECK(w, host->n_agents <= host->slots, "and has room for them");
		CHECK(w, host->breaker.state != BREAKER_OPEN, "an open breaker spawns none");
		CHECK(w,
		      host->breaker.state == BREAKER_CLOSED ||
			      (n_spawns[i] == 1 && host->n_unproven == 1),
		      "a half-open breaker lets one start at a time");
	}
}

static void check_effects(struct world *w, const struct machine_event *event,
			  const struct machine_memory *before, const struct machine_effects *fx)
{
	const struct machine_view *m = &w->memory.machine.view;
	unsigned n_spawns = 0;
	for (unsigned i = 0; i < fx->n; i++) {
		const struct machine_effect *effect = &fx->at[i];
		const struct machine_slot *slot = &w->memory.slots[effect->slot];
		CHECK(w, effect->id > w->last_effect, "every effect has an identity of its own");
		w->last_effect = effect->id;
		CHECK(w, m->hosts[slot->host].state != AP_HOST_LOST,
		      "nothing begins on a host that is lost");
		if (effect->type == EFFECT_PROBE)
			continue;
		CHECK(w, effect->id == slot->effect && effect_fits(effect, slot),
		      "an effect is the one that its slot waits for");
		if (was_leased(before, effect->slot) && !died(event, before, effect->slot)) {
			CHECK(w, effect->type == EFFECT_SAVE,
			      "a lease that is held is saved first");
			w->n_ended++;
		}
		if (effect->type == EFFECT_SPAWN) {
			CHECK(w, !w->alive[effect->slot], "no two agents live in one slot");
			w->alive[effect->slot] = true;
			n_spawns++;
		}
	}
	check_spawns(w, fx);
	CHECK(w, n_spawns == 0 || !(m->shutdown || m->suspended),
	      "a pool that shuts down or rests does not spawn");
	CHECK(w, m->n_in_state[AP_AGENT_SPAWNING] <= m->limits.max_spawning || n_spawns == 0,
	      "no more than max_spawning at once");
}

static void check_answers(const struct world *w, const struct machine_event *event,
			  const struct machine_effects *fx)
{
	unsigned n = 0;
	struct ap_list *at;
	int64_t granted_ns = event->granted_ns ? event->granted_ns : w->now;
	ap_list_for_each (at, &fx->answered) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		const struct host_request *host = &w->requests[request - w->memory.requests];
		CHECK(w, ++n <= N_REQUESTS, "the list of answers ends");
		CHECK(w, host->busy, "a request is answered once");
		CHECK(w, request->state == REQUEST_ANSWERED, "an answered request says so");
		if (!host->acquirer || request->result != 0)
			continue;
		const struct machine_slot *slot = &w->memory.slots[request->slot];
		CHECK(w,
		      machine_slot_leased(slot) && slot->token == request->token &&
			      strcmp(slot->label.text, request->label.text) == 0 &&
			      slot->uid == request->uid && slot->pid == request->pid &&
			      slot->by_handle == request->by_handle && slot->granted_ns == granted_ns,
		      "who is granted a lease holds it");
	}
}

static void check_counters(const struct world *w, const struct machine_event *event,
			   const struct machine_memory *before)
{
	const struct machine_view *m = &w->memory.machine.view, *old = &before->machine.view;
	unsigned total = machine_total(m);
	CHECK(w,
	      m->n_grants >= old->n_grants && m->n_recycled >= old->n_recycled &&
		      m->n_spawned >= old->n_spawned &&
		      m->n_terminated + (event->type == MACHINE_ADOPT) >= old->n_terminated &&
		      m->next_token >= old->next_token && m->next_number >= old->next_number,
	      "counters never fall");
	CHECK(w,
	      total <= m->limits.max_size || total <= machine_total(old) ||
		      event->type == MACHINE_ADOPT,
	      "the pool never grows over max_size");
	if (event->type == MACHINE_TIMER)
		CHECK(w, m->wake_ns > w->now, "after the timer nothing is due");
	for (unsigned i = 0; i < m->n_hosts; i++) {
		const struct breaker *b = &m->hosts[i].breaker;
		if (b->state == BREAKER_OPEN && b->n_opened != before->hosts[i].breaker.n_opened)
			CHECK(w, b->retry_ns > w->now && b->retry_ns <= w->now + MAX_BACKOFF,
			      "a breaker opens for a while");
	}
}

/* Jitter and beginning are drawn once a generation: when it expires does not change. */
static void check_generations(struct world *w)
{
	for (unsigned i = 0; i < w->memory.machine.view.n_slots; i++) {
		const struct machine_slot *slot = &w->memory.slots[i];
		struct host_generation *known = &w->generations[i];
		if (slot->state != AP_AGENT_IDLE && slot->state != AP_AGENT_VALIDATING &&
		    slot->state != AP_AGENT_ACTIVE)
			continue;
		if (known->number == slot->number && known->generation == slot->generation)
			CHECK(w,
			      known->jitter == slot->jitter &&
				      known->started_ns == slot->started_ns,
			      "a generation's age has one end");
		*known = (struct host_generation){slot->number, slot->generation, slot->jitter,
						  slot->started_ns};
	}
}

void check_step(struct world *w, const struct machine_event *event,
		const struct machine_memory *before, const struct machine_effects *fx)
{
	if (event->type == MACHINE_STOPPED)
		w->alive[event->slot] = false;
	for (unsigned i = 0; i < w->memory.machine.view.n_slots; i++)
		if (died(event, before, i)) {
			w->alive[i] = false;
			w->n_ended += was_leased(before, i);
		}
	if (event->type == MACHINE_ADOPT) {
		w->alive[event->slot] = true;
		w->n_adopted += machine_slot_leased(&w->memory.slots[event->slot]);
	}
	check_moves(w, event, before, fx);
	check_reservations(w, fx);
	check_effects(w, event, before, fx);
	check_answers(w, event, fx);
	check_counters(w, event, before);
	check_generations(w);
}
