/* The shell round the machine: holds the lock, steps the machine, hands effects to workers and
 * answers to requesters. The pool lives from locking the state directory to removing its content.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_internal.h"

/* --- requests --- */

struct ap_request *ap_request_new(ap_request_done *done, void *data)
{
	struct ap_request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	atomic_init(&request->n_refs, 1);
	request->done = done;
	request->data = data;
	ap_list_init(&request->settles.link);
	ap_list_init(&request->machine.link);
	ap_list_init(&request->machine.label.link);
	return request;
}

void ap_request_ref(struct ap_request *request)
{
	atomic_fetch_add(&request->n_refs, 1);
}

void ap_request_free(struct ap_request *request)
{
	if (!request || atomic_fetch_sub(&request->n_refs, 1) != 1)
		return;
	ap_buf_fini(&request->text);
	free(request->why);
	free(request->base);
	ap_agent_unref(request->agent);
	free(request);
}

static void explain(struct ap_request *request, const struct ap_err *err)
{
	free(request->why);
	request->why = strdup(err->text); /* ENOMEM: only the errno remains */
}

static void request_finish(struct ap_request *request, int result, const struct ap_err *err)
{
	if (atomic_exchange(&request->answered, true))
		return;
	if (result < 0 && err)
		explain(request, err);
	request->done(request, result, request->data);
}

void request_answer(struct ap_request *request, int result, const struct ap_err *err)
{
	request_finish(request, result, err);
	ap_request_free(request);
}

void request_explain_locked(struct ap_request *request, const struct ap_err *err)
{
	explain(request, err);
}

const char *ap_request_why(const struct ap_request *request)
{
	return request->why ? request->why : "";
}

struct ap_buf *ap_request_text(struct ap_request *request)
{
	return &request->text;
}

struct ap_lease_key ap_request_lease(const struct ap_request *request)
{
	return (struct ap_lease_key){.agent = request->granted, .token = request->machine.token};
}

/* Removes the request from the list of those that wait for a refresh. False: job_answer() has taken
 * it off already, and answers it. */
static bool stop_looking(struct ap_pool *pool, struct ap_request *request)
{
	pthread_mutex_lock(&pool->lock);
	bool waits = !ap_list_empty(&request->settles.link);
	ap_list_remove(&request->settles.link);
	pthread_mutex_unlock(&pool->lock);
	return waits;
}

void ap_request_cancel(struct ap_pool *pool, struct ap_request *request)
{
	if (request->in_machine) {
		pool_step(pool, &(struct machine_event){.type = MACHINE_CANCEL,
							.request = &request->machine});
		return;
	}
	bool waits = request->agent ? session_unwait(request->agent->session, &request->settles)
				    : stop_looking(pool, request);
	struct ap_err err;
	ap_err_set(&err, 0, "interrupted");
	if (waits)
		request_answer(request, -ECANCELED, &err);
	else /* a worker has the request, and drops the pool's reference */
		request_finish(request, -ECANCELED, &err);
}

/* --- steps --- */

const char pool_is_spent[] = "the pool_budget of today is used up: what is granted goes on";

static const char *refusal(int error)
{
	switch (error) {
	case -EAGAIN:
		return "no agent is free";
	case -ETIMEDOUT:
		return "no agent became free in time";
	case -EEXIST:
		return "the label is leased, or asked for, already";
	case -ENOENT:
		return "there is no such lease or agent";
	case -ESRCH:
		return "the process of pid= has ended meanwhile";
	case -ESTALE:
		return "the lease has ended meanwhile";
	case -ESHUTDOWN:
		return "the pool is closed";
	case -ECANCELED:
		return "interrupted";
	case -EBUSY:
		return "the agent is starting or stopping; try again";
	case -ENODEV:
		return "the agent is gone";
	case -EIO:
		return "the agents that were to serve it failed";
	case -EDQUOT:
		return "the agent has taken its requests_per_quota prompts of 24 hours";
	case -ERANGE:
		return "the size is not between min_pool_size and max_pool_size";
	}
	return strerror(-error);
}

/* The sentence for the machine's refusal. Takes the lock. */
static void refusal_of(struct ap_pool *pool, int result, struct ap_err *ret)
{
	if (result != -EHOSTDOWN) {
		ap_err_set(ret, result, "%s", result == -EDQUOT ? pool_is_spent : refusal(result));
		return;
	}
	pthread_mutex_lock(&pool->lock);
	ap_err_set(ret, result, "no agent can be made: %s (%" PRId64 " s ago)",
		   pool->spawn_error.text, (ap_clock_ns() - pool->spawn_error_ns) / AP_SECOND);
	pthread_mutex_unlock(&pool->lock);
}

/* Gives the lease's key and text to the acquirer, and watches the holder's process. */
static void grant_locked(struct ap_pool *pool, struct ap_request *request)
{
	if (request->machine.result < 0 || request->machine.token == 0)
		return;
	struct ap_agent *agent = pool->agents[request->machine.slot];
	request->granted = agent->number;
	pool->noted[agent->slot].waited_ns = ap_clock_ns() - request->asked_ns;
	ap_buf_printf(&request->text, "%s %s\n", agent->name, request->machine.label.text);
	if (agent->holder_fd >= 0)
		(void)loop_watch_fd(pool->loop, &agent->holder_ends,
				    agent->holder_fd); /* ENOMEM: only the ttl ends the lease */
}

/* Outcomes of effects that no worker carries out, as there is no agent: agent_new_locked() failed,
 * or the stop that follows finds no agent. */
struct unmade {
	unsigned n;
	struct machine_event events[AP_MAX_SPAWNING + 1]; /* spawns, and the stop after a failed one
							   */
};

/* Records that a lease ends: if this daemon dies, the next one ends the lease. */
static void keep_ending_locked(struct ap_pool *pool, const struct machine_slot *slot)
{
	struct store_txn *txn = slot->token ? store_txn_new() : NULL;
	txn_lease_ends(txn, slot->token, ap_reason_name(slot->leaving));
	if (txn) /* token 0: the agent is quarantined, and the end recorded already */
		store_submit(pool->store, txn, false, NULL, NULL);
}

/* Hands the effects of the step just made to workers. */
static void hand_out_locked(struct ap_pool *pool, struct unmade *unmade)
{
	for (unsigned i = 0; i < pool->effects.n; i++) {
		const struct machine_effect *effect = &pool->effects.at[i];
		struct ap_agent *agent = pool->agents[effect->slot];
		if (effect->type == EFFECT_SPAWN)
			agent = agent_new_locked(pool, effect->slot,
						 pool->view->slots[effect->slot].number);
		if (effect->type == EFFECT_SAVE) {
			const struct machine_slot *slot = &pool->view->slots[effect->slot];
			keep_ending_locked(pool, slot);
			if (slot->leaving == AP_REASON_TTL)
				pool->counters.n_expired++;
		}
		if (agent && effect->type == EFFECT_PROBE) {
			job_probe_locked(agent, effect->id);
		} else if (agent) {
			job_effect_locked(agent, effect);
		} else {
			assert(unmade->n < sizeof unmade->events / sizeof *unmade->events);
			unmade->events[unmade->n++] =
				(struct machine_event){.type = machine_outcome(effect->type),
						       .slot = effect->slot,
						       .effect = effect->id,
						       .result = -ENOMEM};
		}
	}
}

/* Applies the moves of the step just made to the agents: fences their sessions, forgets holders,
 * and keeps the sentence for a spawn or recycling that took too long. */
static void follow_moves_locked(struct ap_pool *pool, const struct machine_event *event,
				int64_t now)
{
	for (unsigned i = 0; i < pool->effects.n_moves; i++) {
		const struct machine_move *move = &pool->effects.moves[i];
		struct ap_agent *agent = pool->agents[move->slot];
		if (!agent || move->to == AP_AGENT_FREE)
			continue;
		session_fence(agent->session, pool->view->slots[move->slot].token);
		(void)agent_permit_locked(agent);
		if (move->from == AP_AGENT_ACTIVE)
			agent_forget_holder_locked(agent);
		/* a job that reported -ETIMEDOUT itself has set the sentence */
		bool told = event->slot == move->slot && event->result == -ETIMEDOUT;
		if (move->reason == AP_REASON_TIMEOUT && move->from != AP_AGENT_VALIDATING &&
		    !told) {
			ap_err_set(&pool->spawn_error, 0, "%s took longer than spawn_timeout",
				   agent->name);
			pool->spawn_error_ns = now;
		}
	}
}

/* Takes the answered requests of the step just made, in order. */
static void collect_locked(struct ap_pool *pool, int64_t now)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &pool->effects.answered) {
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		struct ap_request *asked = ap_container_of(request, struct ap_request, machine);
		ap_list_remove(at);
		grant_locked(pool, asked);
		observe_answer_locked(pool, asked, now);
		ap_list_append(&pool->answered, at);
	}
}

bool pool_is_over_locked(const struct ap_pool *pool)
{
	const struct machine_view *m = pool->view;
	return machine_total(m) == 0 || (m->suspended && machine_at_rest(m));
}

int pool_step_locked(struct ap_pool *pool, const struct machine_event *event)
{
	struct unmade unmade = {.n = 0};
	int64_t now = ap_clock_ns();
	observe_time_locked(pool, now);
	struct step_before before = observe_before_locked(pool);
	int result = machine_step(pool->machine, event, now, &pool->effects);
	observe_event_locked(pool, event, result);
	struct machine_event next = *event;
	for (int r = result; r == 0;) {
		collect_locked(pool, now);
		hand_out_locked(pool, &unmade);
		follow_moves_locked(pool, &next, now);
		observe_step_locked(pool, &before, now);
		if (unmade.n == 0)
			break;
		next = unmade.events[--unmade.n];
		before = observe_before_locked(pool);
		r = machine_step(pool->machine, &next, now, &pool->effects);
	}
	observe_queue_locked(pool);
	if (result == 0)
		pool_changed(pool);
	loop_set(pool->loop, &pool->machine_due, pool->view->wake_ns);
	if (pool_is_over_locked(pool))
		pthread_cond_broadcast(&pool->emptied);
	return result;
}

void pool_unlock(struct ap_pool *pool)
{
	struct ap_list answered;
	ap_list_init(&answered);
	ap_list_splice(&pool->answered, &answered);
	pthread_mutex_unlock(&pool->lock);
	while (!ap_list_empty(&answered)) {
		struct machine_request *request =
			ap_container_of(answered.next, struct machine_request, link);
		struct ap_request *asked = ap_container_of(request, struct ap_request, machine);
		struct ap_err err;
		bool told = request->result == 0 || asked->why; /* the failed job has explained */
		ap_list_remove(&request->link);
		if (!told)
			refusal_of(pool, request->result, &err);
		request_answer(asked, request->result, told ? NULL : &err);
	}
}

int pool_step(struct ap_pool *pool, const struct machine_event *event)
{
	pthread_mutex_lock(&pool->lock);
	int r = pool_step_locked(pool, event);
	pool_unlock(pool);
	return r;
}

void pool_restore(struct ap_pool *pool, const struct machine_restored *restored)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_RESTORE, .restored = restored});
}

int pool_step_agent(struct ap_agent *agent, struct machine_event event)
{
	struct ap_pool *pool = agent->pool;
	event.slot = agent->slot;
	pthread_mutex_lock(&pool->lock);
	int r = agent->gone ? -ENODEV : pool_step_locked(pool, &event);
	pool_unlock(pool);
	return r;
}

void pool_note_unsaved(struct ap_pool *pool, const struct ap_err *err, bool is_kept)
{
	pthread_mutex_lock(&pool->lock);
	if (err->text[0])
		pool->quarantine_error = *err;
	pool->n_quarantined += is_kept;
	pthread_mutex_unlock(&pool->lock);
}

void pool_note_spawn_error(struct ap_pool *pool, const struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	pool->spawn_error = *err;
	pool->spawn_error_ns = ap_clock_ns();
	pthread_mutex_unlock(&pool->lock);
}

int pool_refused(int r, struct ap_err *err)
{
	return r < 0 ? ap_err_set(err, r, "%s", refusal(r)) : r;
}

void pool_tell(struct ap_pool *pool, const char *sentence)
{
	if (pool->tell)
		pool->tell(pool->observer, sentence);
}
