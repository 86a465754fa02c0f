/* Commands to an agent on behalf of a lease: prompts, keys, pauses, restarts, commits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash_point.h"
#include "jobs_internal.h"

/* --- who may command --- */

static int may_be_asked_locked(const struct ap_agent *agent, uint64_t token, bool even_ended,
			       struct ap_err *err)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	int r = session_running(agent->session, even_ended, err);
	return r < 0 ? r : pool_refused(machine_slot_stale(slot, token) ? -ESTALE : 0, err);
}

/* Whether the agent takes commands for that lease. Errors as session_running(), and -ESTALE. */
static int may_be_asked(struct ap_agent *agent, uint64_t token, bool even_ended, struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	int r = may_be_asked_locked(agent, token, even_ended, err);
	pthread_mutex_unlock(&agent->pool->lock);
	return r;
}

/* As may_be_asked(), for a command to the present program: -EBUSY while it restarts, or while the
 * agent becomes ready for the next lease, which would inherit the effect. */
static int may_be_commanded_locked(const struct ap_agent *agent, uint64_t token, bool even_ended,
				   struct ap_err *err)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	struct session_info info;
	int r = may_be_asked_locked(agent, token, even_ended, err);
	session_info(agent->session, &info);
	bool rests = slot->state == AP_AGENT_IDLE || machine_slot_leased(slot);
	if (r == 0 && (!rests || info.restarting))
		r = ap_err_set(err, -EBUSY,
			       "%s is being made ready: its state will be idle or active",
			       agent->name);
	return r;
}

/* --- prompts and keys --- */

int ap_agent_prompt_begin(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			  struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = session_prompt_check(agent->session, 0, err);
	if (r == 0)
		r = spending_refused_locked(agent, err);
	if (r == 0)
		r = pool_refused(machine_may_prompt(pool->view, &pool->view->slots[agent->slot],
						    token, ap_clock_ns()),
				 err);
	if (r == 0)
		r = session_prompt_begin(agent->session, token, err);
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int ap_agent_prompt_grow(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len,
			 struct ap_err *err)
{
	(void)pool;
	return session_prompt_grow(agent->session, token, len, err);
}

void ap_agent_prompt_end(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len)
{
	(void)pool;
	session_prompt_end(agent->session, token, len);
}

/* A prompt on its way to the store. */
struct kept_prompt {
	struct ap_agent *agent; /* with a reference */
	uint64_t token;		/* of its lease */
};

static void show_prompt_locked(struct ap_agent *agent, uint64_t token)
{
	if (!agent->gone && agent->pool->view->slots[agent->slot].token == token)
		agent->n_prompts_shown++;
	pool_changed(agent->pool);
}

static void on_prompt_kept(void *data, int result, const struct ap_err *err)
{
	struct kept_prompt *kept = data;
	struct ap_agent *agent = kept->agent;
	(void)result;
	(void)err;
	pthread_mutex_lock(&agent->pool->lock);
	show_prompt_locked(agent, kept->token);
	pthread_mutex_unlock(&agent->pool->lock);
	ap_agent_unref(agent);
	free(kept);
}

/* Records a prompt for the next daemon; users see it counted once that cannot be lost any more. If
 * the disk is full, the session gives it all the same. */
static void keep_prompt_locked(struct ap_agent *agent, const struct store_prompt *prompt)
{
	uint64_t token = agent->pool->view->slots[agent->slot].token;
	struct store_txn *txn = store_txn_new();
	struct kept_prompt *kept = prompt->is_command ? NULL : malloc(sizeof *kept);
	txn_prompt(txn, agent->number, prompt);
	if (kept && store_txn_is_whole(txn)) {
		*kept = (struct kept_prompt){agent, token};
		agent_ref(agent);
		store_submit(agent->pool->store, txn, false, on_prompt_kept, kept);
		return;
	}
	store_submit(agent->pool->store, txn, false, NULL, NULL);
	free(kept);
	if (!prompt->is_command)
		show_prompt_locked(agent, token);
}

enum prompt_kind {
	PROMPT_OF_HOLDER,
	PROMPT_OF_POOL, /* goes before all others */
	PROMPT_COMMAND, /* of the program's own */
};

static int queue_prompt(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			const char *text, size_t len, enum prompt_kind kind, struct ap_err *err)
{
	bool is_command = kind == PROMPT_COMMAND;
	struct prompt *prompt = session_prompt_new(text, len, is_command);
	if (!prompt)
		return ap_err_errno(err, -ENOMEM, "prompt");
	pthread_mutex_lock(&pool->lock);
	int r = session_prompt_check(agent->session, len, err);
	if (r == 0 && !is_command)
		r = spending_refused_locked(agent, err);
	if (r == 0)
		r = pool_refused(
			pool_step_locked(pool, &(struct machine_event){.type = MACHINE_PROMPT,
								       .slot = agent->slot,
								       .token = token}),
			err);
	if (r == 0) {
		keep_prompt_locked(agent, &(struct store_prompt){.seq = ++agent->prompt_seq,
								 .text = text,
								 .len = len,
								 .is_command = is_command});
		agent->n_prompts += !is_command;
		if (kind == PROMPT_OF_POOL)
			session_prompt_first(agent->session, agent->prompt_seq, prompt);
		else
			session_prompt(agent->session, agent->prompt_seq, prompt);
	}
	pool_unlock(pool);
	if (r < 0)
		session_prompt_free(prompt);
	return r;
}

int ap_agent_prompt(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *text,
		    size_t len, struct ap_err *err)
{
	return queue_prompt(pool, agent, token, text, len, PROMPT_OF_HOLDER, err);
}

int prompt_first(struct ap_agent *agent, uint64_t token, const char *text)
{
	return queue_prompt(agent->pool, agent, token, text, strlen(text), PROMPT_OF_POOL, NULL);
}

int ap_agent_reset(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, struct ap_err *err)
{
	const struct profile_values *values = profile_values(pool->profile);
	if (!*values->clear)
		return ap_err_set(err, -EOPNOTSUPP,
				  "the profile %s knows no command to forget by: restart does it",
				  values->name);
	return queue_prompt(pool, agent, token, values->clear, strlen(values->clear),
			    PROMPT_COMMAND, err);
}

int ap_agent_keys(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *keys,
		  struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = may_be_asked_locked(agent, token, false, err);
	if (r == 0)
		r = session_keys(agent->session, token, keys, err);
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int ap_agent_cancel(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		    struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = may_be_asked_locked(agent, token, false, err);
	if (r == 0)
		r = session_cancel(agent->session, token, err);
	pthread_mutex_unlock(&pool->lock);
	return r;
}

/* --- answers --- */

void note_answer(struct ap_agent *agent, uid_t uid, const struct question *asked,
		 const struct question_option *option, const char *rule)
{
	char label[AP_LABEL_MAX + 1];
	pthread_mutex_lock(&agent->pool->lock);
	memcpy(label, agent->pool->view->slots[agent->slot].label.text, sizeof label);
	pthread_mutex_unlock(&agent->pool->lock);
	events_add(agent->pool->events, "answer",
		   EVENT_FIELDS({"agent", agent->name, 0}, {"lease", label, 0},
				{"uid", NULL, (int64_t)uid}, {"rule", rule, 0},
				{"request", asked->id, 0}, {"title", asked->title, 0},
				{"detail", asked->detail, 0}, {"kind", asked->kind, 0},
				{"option", option ? option->id : "cancel", 0},
				{"means", option ? option->kind : "cancel", 0}));
}

static void job_answer(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	struct question asked;
	const struct question_option *option = NULL;
	int r = atomic_load(&job->request->answered) ? -ECANCELED : 0; /* cancelled in the queue */
	if (r == 0)
		r = may_be_asked(agent, job->token, false, &err);
	if (r == 0)
		r = session_answer(agent->session, job->message, job->uid, &asked, &option, &err);
	if (r == 0)
		note_answer(agent, job->uid, &asked, option, "");
	request_answer(job->request, r, &err);
	pool_job_free(job);
}

int ap_agent_answer(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, uid_t uid,
		    const char *answer, struct ap_request *request, struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r < 0)
		return r;
	struct pool_job *job = pool_job_new(pool, agent, request, job_answer);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "answer");
	job->token = token;
	job->uid = uid;
	job->message = strdup(answer);
	r = job->message ? may_be_asked(agent, token, false, err)
			 : ap_err_errno(err, -ENOMEM, "answer");
	if (r == 0) {
		pool_job_submit(job);
		return 0;
	}
	ap_request_free(request); /* the job's reference */
	pool_job_free(job);
	return r;
}

/* --- its program --- */

int ap_agent_pause(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, bool pause,
		   struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = may_be_commanded_locked(agent, token, false, err);
	if (r == 0)
		session_pause(agent->session, pause);
	pthread_mutex_unlock(&pool->lock);
	return r;
}

/* Ends the program if it runs, and starts it again: with its output, in its worktree. */
static void start_again(struct ap_agent *agent, struct ap_err *err)
{
	int r = session_end(agent->session, err);
	if (r == 0)
		r = launch_program(agent, LAUNCH_AGAIN, err);
	crash_point("restart-program");
	if (r == 0)
		(void)agent_record_program(agent, err); /* unrecorded, the next daemon ends it */
	if (r < 0) {
		events_add(agent->pool->events, "restart_failed",
			   EVENT_FIELDS({"agent", agent->name, 0}, {"reason", err->text, 0}));
		session_restart_failed(agent->session, err);
	}
}

static void job_restart(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_err err = {""};
	conversation_settle(job->agent);
	conversation_prepare(job->agent);
	start_again(job->agent, &err);
	pool_job_free(job);
}

int ap_agent_restart(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err)
{
	struct pool_job *job = pool_job_new(agent->pool, agent, NULL, job_restart);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "restart");
	pthread_mutex_lock(&pool->lock);
	int r = may_be_commanded_locked(agent, token, true, err);
	if (r == 0)
		session_restarts(agent->session);
	pthread_mutex_unlock(&pool->lock);
	if (r < 0) {
		pool_job_free(job);
		return r;
	}
	pool_job_in_lane(job);
	return 0;
}

static void job_anew(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_agent *agent = job->agent;
	struct session_info info;
	struct ap_err err = {""};
	session_info(agent->session, &info);
	if (info.restarting) { /* else an effect has started the program meanwhile */
		conversation_tell_gone(agent, job->message,
				       "the program has ended before it was ready");
		session_converse(agent->session, "");
		start_again(agent, &err);
	}
	pool_job_free(job);
}

void conversation_failed(struct ap_agent *agent, const char *id)
{
	struct ap_err err;
	struct pool_job *job = pool_job_new(agent->pool, agent, NULL, job_anew);
	if (job)
		job->message = strdup(id);
	if (job && job->message) {
		pool_job_in_lane(job);
		return;
	}
	if (job)
		pool_job_free(job);
	ap_err_errno(&err, -ENOMEM, "%s", agent->name);
	session_restart_failed(agent->session, &err);
}

/* --- commits --- */

static void job_commit(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	int r = atomic_load(&job->request->answered) ? -ECANCELED : 0; /* cancelled in the queue */
	if (r == 0)
		r = may_be_asked(agent, job->token, true, &err);
	if (r == 0 && !(agent->lease_open && agent->lease_held))
		r = ap_err_set(&err, -ENOENT, "%s serves no lease: acquire it first", agent->name);
	if (r == 0)
		r = worktree_commit(&agent->worktree, &agent->lease, job->message, &err);
	request_answer(job->request, r, &err);
	pthread_mutex_lock(&agent->pool->lock);
	agent->n_commits--;
	pthread_mutex_unlock(&agent->pool->lock);
	pool_job_free(job);
}

int ap_agent_commit(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		    const char *message, struct ap_request *request, struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r < 0)
		return r;
	struct pool_job *job = pool_job_new(pool, agent, request, job_commit);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "commit");
	job->token = token;
	job->message = strdup(message);
	pthread_mutex_lock(&pool->lock);
	r = job->message ? may_be_asked_locked(agent, token, true, err)
			 : ap_err_errno(err, -ENOMEM, "commit");
	if (r == 0 && agent->n_commits >= POOL_COMMITS_MAX)
		r = ap_err_set(err, -EAGAIN, "%u commits wait for %s already", agent->n_commits,
			       agent->name);
	agent->n_commits += r == 0;
	pthread_mutex_unlock(&pool->lock);
	if (r == 0) {
		pool_job_in_lane(job);
		return 0;
	}
	ap_request_free(request); /* the job's reference */
	pool_job_free(job);
	return r;
}
