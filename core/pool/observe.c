/* Observes the pool: counts every step and logs its events, under the lock and so in the order of
 * the steps; and gives snapshots of the counts. Decides nothing, and nothing decides by it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "kept_work.h"
#include "pool_internal.h"

/* The agent's last transition; with `back`, the one so many before it. */
static const struct transition *transition_of(const struct ap_agent *agent, unsigned back)
{
	static const struct transition none;
	return agent->n_transitions > back
		       ? &agent->transitions[(agent->n_transitions - 1 - back) % AP_TRANSITIONS]
		       : &none;
}

/* Counts the end of a spawn, by its outcome. */
static void count_spawn_locked(struct ap_pool *pool, const struct ap_agent *agent,
			       const struct machine_move *move, int64_t now)
{
	enum counters_outcome outcome = COUNTERS_OK;
	if (move->reason == AP_REASON_TIMEOUT)
		outcome = COUNTERS_LATE;
	else if (move->reason == AP_REASON_FAILED || move->reason == AP_REASON_EXITED)
		outcome = COUNTERS_ERROR;
	pool->counters.spawns[outcome]++;
	if (outcome == COUNTERS_OK)
		counters_observe(&pool->counters, COUNTERS_SPAWN,
				 now - transition_of(agent, 0)->at_ns);
}

/* Counts the end of a lease, but not if its acquirer had given up: it was granted to nobody. */
static void count_release_locked(struct ap_pool *pool, const struct machine_move *move, int64_t now)
{
	enum counters_release release = COUNTERS_TO_END;
	int64_t granted_ns = pool->noted[move->slot].granted_ns;
	if (granted_ns == 0)
		return;
	if (move->to == AP_AGENT_RECYCLING)
		release = pool->view->slots[move->slot].recycle ? COUNTERS_TO_RECYCLE
								: COUNTERS_TO_IDLE;
	else if (move->to == AP_AGENT_QUARANTINED)
		release = COUNTERS_TO_QUARANTINE;
	pool->counters.releases[release]++;
	counters_observe(&pool->counters, COUNTERS_HOLD, now - granted_ns);
}

static void count_move_locked(struct ap_pool *pool, struct ap_agent *agent,
			      const struct machine_move *move, int64_t now)
{
	const struct machine_slot *slot = &pool->view->slots[move->slot];
	bool ends = move->to == AP_AGENT_DRAINING ||
		    (move->to == AP_AGENT_STOPPING && move->from != AP_AGENT_DRAINING);
	if (move->from == AP_AGENT_SPAWNING)
		count_spawn_locked(pool, agent, move, now);
	if (move->from == AP_AGENT_ACTIVE)
		count_release_locked(pool, move, now);
	if (move->from == AP_AGENT_RECYCLING && move->reason == AP_REASON_RECYCLED)
		pool->counters.recycles[transition_of(agent, 0)->reason]++;
	if (ends && slot->born)
		pool->counters.terminations[move->reason]++;
}

/* Counts the answer to an acquirer. Runs before the moves of the same step: the last transition of
 * a granted agent is still that to VALIDATING, the one before it that to IDLE. */
static void count_acquire_locked(struct ap_pool *pool, const struct ap_request *request,
				 int64_t now)
{
	if (request->machine.result < 0) {
		pool->counters.acquires[counters_refused(request->machine.result)]++;
		return;
	}
	const struct transition *idle = transition_of(pool->agents[request->machine.slot], 1);
	enum counters_acquire acquire = COUNTERS_HIT;
	if (idle->at_ns > request->asked_ns)
		acquire = idle->reason == AP_REASON_SPAWNED ? COUNTERS_SPAWNED : COUNTERS_HANDOFF;
	pool->counters.acquires[acquire]++;
	counters_observe(&pool->counters, COUNTERS_WAIT, now - request->asked_ns);
	history_granted(&pool->history, now - request->asked_ns);
}

/* --- events of a step: logged under the lock, and so in the order of the steps --- */

static void note_refused_locked(struct ap_pool *pool, const struct ap_request *request, int result)
{
	const char *name = strerrorname_np(-result);
	events_note(pool->events, "refused",
		    EVENT_FIELDS({"lease", request->machine.label.text, 0},
				 {"uid", NULL, request->machine.uid},
				 {"errno", name ? name : "", 0}));
}

static void note_granted_locked(struct ap_pool *pool, const struct machine_slot *slot,
				const char *name, struct noted_lease *noted)
{
	noted->granted_ns = slot->granted_ns;
	events_note(pool->events, "lease_granted",
		    EVENT_FIELDS({"lease", slot->label.text, 0}, {"agent", name, 0},
				 {"uid", NULL, slot->uid}, {"token", NULL, (int64_t)slot->token},
				 {"waited", NULL, noted->waited_ns / AP_MS}));
}

/* What its lease has used, as an object of JSON; nothing, if nothing is known. */
static void usage_json_locked(const struct ap_agent *agent, struct ap_buf *ret)
{
	struct ap_usage lease, life;
	spending_look_locked(agent, &lease, &life);
	if (ap_usage_is_known(&lease))
		ap_usage_json(&lease, ret);
}

static void note_ended_locked(struct ap_pool *pool, const char *name, const struct ap_agent *agent,
			      struct noted_lease *noted, enum ap_reason reason, int64_t now)
{
	AP_CLEANUP_BUF struct ap_buf usage = {0};
	if (agent)
		usage_json_locked(agent, &usage);
	events_note(pool->events, "lease_ended",
		    EVENT_FIELDS({"lease", noted->label, 0}, {"agent", name, 0},
				 {"reason", ap_reason_name(reason), 0},
				 {"held", NULL, (now - noted->granted_ns) / AP_MS},
				 {"usage", ap_buf_text(&usage), EVENT_JSON}));
	noted->granted_ns = 0;
}

static bool has_lease(enum ap_agent_state state)
{
	return state == AP_AGENT_VALIDATING || state == AP_AGENT_ACTIVE;
}

static void note_move_locked(struct ap_pool *pool, const struct machine_move *move, int64_t now)
{
	const struct machine_slot *slot = &pool->view->slots[move->slot];
	struct noted_lease *noted = &pool->noted[move->slot];
	char name[32];
	if (move->from == AP_AGENT_FREE) /* one step may free a slot and give it to a new agent */
		noted->number = slot->number;
	snprintf(name, sizeof name, "agent-%u", noted->number);
	bool reserved = move->to == AP_AGENT_VALIDATING;
	bool adopted = move->to == AP_AGENT_ACTIVE && move->reason == AP_REASON_ADOPTED;
	if (reserved || adopted)
		noted->granted_ns = adopted ? slot->granted_ns : 0;
	if (reserved || adopted)
		memcpy(noted->label, slot->label.text, sizeof noted->label);
	bool leased = has_lease(move->from) || has_lease(move->to);
	events_note(pool->events, "state",
		    EVENT_FIELDS({"agent", name, 0}, {"from", ap_agent_state_name(move->from), 0},
				 {"to", ap_agent_state_name(move->to), 0},
				 {"reason", ap_reason_name(move->reason), 0},
				 {"lease", leased ? noted->label : "", 0}));
	if (move->to == AP_AGENT_ACTIVE && !adopted && !slot->leaving) /* its acquirer waits */
		note_granted_locked(pool, slot, name, noted);
	if (move->from == AP_AGENT_ACTIVE && noted->granted_ns)
		note_ended_locked(pool, name, pool->agents[move->slot], noted, move->reason, now);
}

struct step_before observe_before_locked(const struct ap_pool *pool)
{
	const struct machine_view *m = pool->view;
	return (struct step_before){.breaker = machine_breaker(m)->state,
				    .n_live = machine_live(m),
				    .scaled_ns = m->scaled_ns,
				    .target = m->target};
}

static void note_target_locked(struct ap_pool *pool)
{
	int target = pool->view->target;
	events_note(pool->events, "scale",
		    EVENT_FIELDS({"direction", target < 0 ? "auto" : "manual", 0},
				 {"target", NULL, target}));
}

static void note_scaling_locked(struct ap_pool *pool, const struct step_before *before)
{
	const struct machine_view *m = pool->view;
	const char *direction = m->scale_direction == AP_SCALE_UP ? "up" : "down";
	if (m->target != before->target)
		note_target_locked(pool);
	if (m->scaled_ns != before->scaled_ns)
		events_note(pool->events, "scale",
			    EVENT_FIELDS({"direction", direction, 0},
					 {"from", NULL, before->n_live},
					 {"to", NULL, machine_live(m)}));
}

static void note_breaker_locked(struct ap_pool *pool)
{
	enum breaker_state state = machine_breaker(pool->view)->state;
	pool->counters.n_breaker++;
	events_note(
		pool->events, "breaker",
		EVENT_FIELDS({"state", breaker_state_name(state), 0},
			     {"reason", state == BREAKER_OPEN ? pool->spawn_error.text : "", 0}));
}

static void remember_move(struct ap_agent *agent, const struct machine_move *move, int64_t now)
{
	agent->transitions[agent->n_transitions++ % AP_TRANSITIONS] =
		(struct transition){.at_ns = now,
				    .from = (uint8_t)move->from,
				    .to = (uint8_t)move->to,
				    .reason = (uint8_t)move->reason};
}

void observe_step_locked(struct ap_pool *pool, const struct step_before *before, int64_t now)
{
	for (unsigned i = 0; i < pool->effects.n_moves; i++) {
		const struct machine_move *move = &pool->effects.moves[i];
		struct ap_agent *agent = pool->agents[move->slot];
		if (agent && move->to != AP_AGENT_FREE) {
			count_move_locked(pool, agent, move,
					  now); /* before note_move_locked() clears granted_ns */
			remember_move(agent, move, now);
		}
		note_move_locked(pool, move, now);
	}
	note_scaling_locked(pool, before);
	if (machine_breaker(pool->view)->state != before->breaker)
		note_breaker_locked(pool);
}

void observe_event_locked(struct ap_pool *pool, const struct machine_event *event, int result)
{
	if (event->type == MACHINE_RELEASE && result == -ESTALE && event->reason == AP_REASON_NONE)
		pool->counters.releases[COUNTERS_STALE]++;
	if (event->type == MACHINE_PROBED && result == 0)
		pool->counters.probes[event->result < 0]++;
	if (event->type != MACHINE_ACQUIRE || result == 0)
		return;
	struct ap_request *asked = ap_container_of(event->request, struct ap_request, machine);
	pool->counters.acquires[COUNTERS_REJECTED]++;
	note_refused_locked(pool, asked, result);
}

void observe_answer_locked(struct ap_pool *pool, const struct ap_request *request, int64_t now)
{
	if (request->asked_ns == 0)
		return;
	if (request->machine.result < 0)
		note_refused_locked(pool, request, request->machine.result);
	count_acquire_locked(pool, request, now);
}

void observe_time_locked(struct ap_pool *pool, int64_t now)
{
	struct scaling_sample sample = machine_sample(pool->view);
	counters_elapse(&pool->counters, pool->view->n_in_state, now);
	history_elapse(&pool->history,
		       (struct history_sample){.n_agents = machine_total(pool->view),
					       .n_active = sample.n_active,
					       .n_able = scaling_size(sample),
					       .n_waiting = sample.n_waiting},
		       now);
}

void observe_queue_locked(struct ap_pool *pool)
{
	const struct machine_view *m = pool->view;
	counters_note_max(&pool->counters,
			  m->n_waiting > 0 && machine_total(m) >= m->limits.max_size);
}

/* --- snapshots --- */

static void stats_locked(struct ap_pool *pool, const struct templates_stats *templates,
			 struct ap_stats *ret)
{
	const struct machine_view *m = pool->view;
	struct scaling_sample sample = machine_sample(m);
	sample.n_waiting = 0; /* users see the share of agents in use, without the queue */
	struct kept_stats kept;
	kept_work_stats(pool->kept_work, &kept);
	*ret = (struct ap_stats){
		.n_active = m->n_in_state[AP_AGENT_ACTIVE],
		.n_idle = m->n_in_state[AP_AGENT_IDLE],
		.n_total = machine_total(m),
		.n_spawning = m->n_in_state[AP_AGENT_SPAWNING],
		.n_waiting = m->n_waiting,
		.utilization = scaling_utilization(sample),
		.n_requests = m->n_grants,
		.used = spending_of_pool(pool),
		.n_recycles = m->n_recycled,
		.n_spawned = m->n_spawned,
		.n_terminated = m->n_terminated,
		.scaled_ns = m->scaled_ns,
		.uptime_ns = ap_clock_ns() - pool->started_ns,
		.scale_direction = m->scale_direction,
		.closed = m->closed,
		.target = m->target,
		.n_desired = machine_desired(m),
		.breaker = breaker_state_name(machine_breaker(m)->state),
		.sandbox = wall_word(pool),
		.spawn_backend = spawn_backend_name(templates_backend(pool->templates)),
		.n_templates = templates->n,
		.n_files_done = templates->n_files_done,
		.n_files = templates->n_files,
		.n_stuck = templates->n_stuck,
		.n_kept = kept.n,
		.kept_bytes = (uint64_t)kept.bytes,
		.git = repo_git_kind(&pool->repo),
		.cgroup = pool->backend ? pool->backend->ops->groups(pool->backend) : "none",
	};
}

void ap_pool_stats(struct ap_pool *pool, struct ap_stats *ret)
{
	struct templates_stats templates;
	templates_look(pool->templates, &templates);
	pthread_mutex_lock(&pool->lock);
	stats_locked(pool, &templates, ret);
	pthread_mutex_unlock(&pool->lock);
}

/* When the acquirer in the queue that waits longest asked; AP_FOREVER: the queue is empty. Retried
 * requests, with a token, are in front in any order; behind them all others in that of arrival: the
 * first without a token ends the search. */
static int64_t oldest_waiter_locked(const struct ap_pool *pool)
{
	int64_t oldest = AP_FOREVER;
	struct ap_list *at;
	ap_list_for_each (at, &pool->view->waiters) {
		struct machine_request *waiter = ap_container_of(at, struct machine_request, link);
		int64_t asked = ap_container_of(waiter, struct ap_request, machine)->asked_ns;
		if (asked < oldest)
			oldest = asked;
		if (waiter->token == 0)
			break;
	}
	return oldest;
}

struct ap_metrics metrics_of_locked(struct ap_pool *pool, const struct templates_stats *templates,
				    int64_t now)
{
	const struct machine_view *m = pool->view;
	int64_t oldest = oldest_waiter_locked(pool);
	observe_time_locked(pool, now);
	struct ap_metrics metrics = {
		.counts = pool->counters,
		.mountpoint = pool->mountpoint,
		.min_size = m->limits.min_size,
		.max_size = m->limits.max_size,
		.max_memory = m->limits.recycling.max_memory,
		.oldest_waiter_ns = oldest < now ? now - oldest : 0,
	};
	stats_locked(pool, templates, &metrics.stats);
	if (machine_breaker(m)->n_failures > 0)
		metrics.breaker_cause = pool->spawn_error;
	for (int i = 0; i < AP_N_AGENT_STATES; i++)
		metrics.n_in_state[ap_agent_state_shown(i)] += m->n_in_state[i];
	memcpy(metrics.n_scaled, m->n_scaled, sizeof metrics.n_scaled);
	return metrics;
}

static unsigned agent_metrics_locked(const struct ap_pool *pool, int64_t now,
				     struct ap_agent_metrics *ret, unsigned max)
{
	unsigned n = 0;
	for (unsigned i = 0; i < pool->view->n_slots && n < max; i++) {
		const struct ap_agent *agent = pool->agents[i];
		const struct machine_slot *slot = &pool->view->slots[i];
		if (!agent || slot->state == AP_AGENT_FREE)
			continue;
		struct session_info info;
		session_info(agent->session, &info);
		struct ap_usage lease, used;
		spending_look_locked(agent, &lease, &used);
		ret[n++] = (struct ap_agent_metrics){
			.number = agent->number,
			.age_ns = now - slot->created_ns,
			.n_requests = slot->n_requests,
			.used = used,
			.has_usage = info.usage_known,
			.memory = info.usage.memory,
			.cpu_ns = info.usage.cpu_ns,
		};
	}
	return n;
}

void ap_pool_metrics(struct ap_pool *pool, struct ap_metrics *ret,
		     struct ap_agent_metrics *ret_agents, unsigned max)
{
	struct templates_stats templates;
	templates_look(pool->templates, &templates);
	pthread_mutex_lock(&pool->lock);
	int64_t now = ap_clock_ns();
	*ret = metrics_of_locked(pool, &templates, now);
	ret->n_agents = agent_metrics_locked(pool, now, ret_agents, max);
	pthread_mutex_unlock(&pool->lock);
}

/* --- watchers --- */

void pool_changed(struct ap_pool *pool)
{
	atomic_fetch_add(&pool->n_changes, 1);
	if (atomic_load(&pool->n_watching) > 0)
		worker_once_ask(&pool->notify);
}

uint64_t ap_pool_changes(struct ap_pool *pool)
{
	return atomic_load(&pool->n_changes);
}

void ap_pool_watch(struct ap_pool *pool, bool watch)
{
	if (watch)
		atomic_fetch_add(&pool->n_watching, 1);
	else
		atomic_fetch_sub(&pool->n_watching, 1);
}
