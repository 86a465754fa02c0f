/* Texts that take time to make: an agent's screen, diff, usage, output; what is waited for; and the
 * state store written and read on demand. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"

static int look_text(struct ap_agent *agent, enum worktree_look what, struct ap_buf *out,
		     struct ap_err *err)
{
	char base[GIT_OID_MAX + 1];
	pthread_mutex_lock(&agent->pool->lock);
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	bool has_base = slot->state == AP_AGENT_ACTIVE || slot->aside;
	snprintf(base, sizeof base, "%s", has_base ? agent->base : "");
	pthread_mutex_unlock(&agent->pool->lock);
	return worktree_look(&agent->worktree, base, what, out, err);
}

static int usage_text(struct ap_agent *agent, enum ap_agent_text what, struct ap_buf *out,
		      struct ap_err *err)
{
	struct process_usage usage;
	double percent;
	int r = agent_usage(agent, NULL, &usage, &percent);
	if (r == -ESRCH) { /* it has ended */
		usage = (struct process_usage){0};
		percent = 0;
	} else if (r < 0) {
		return ap_err_errno(err, r, "the processes of %s", agent->name);
	}
	if (what == AP_TEXT_CPU)
		ap_buf_printf(out, "%.1f\n", percent);
	else
		ap_buf_printf(out, "%" PRIu64 "\n",
			      what == AP_TEXT_MEMORY ? usage.memory : usage.n_processes);
	return 0;
}

static void job_text(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_pool *pool = agent->pool;
	struct ap_buf *out = &job->request->text;
	struct ap_err error = {""}, *err = &error;
	int r = -EINVAL;
	if (atomic_load(&job->request->answered)) { /* nobody reads it any more */
		request_answer(job->request, -ECANCELED, NULL);
		agent_job_free(job);
		return;
	}
	switch (job->what) {
	case AP_TEXT_SCREEN:
		r = pool->backend->ops->capture(pool->backend, &agent->terminal, false, 0, out,
						err);
		break;
	case AP_TEXT_DIFF:
		r = look_text(agent, WORKTREE_DIFF, out, err);
		break;
	case AP_TEXT_DIFFSTAT:
		r = look_text(agent, WORKTREE_DIFFSTAT, out, err);
		break;
	case AP_TEXT_CHANGES:
		r = look_text(agent, WORKTREE_CHANGES, out, err);
		break;
	case AP_TEXT_HEAD:
		r = worktree_head(&agent->worktree, out, err);
		break;
	case AP_TEXT_MEMORY:
	case AP_TEXT_CPU:
	case AP_TEXT_TASKS:
		r = usage_text(agent, job->what, out, err);
		break;
	}
	if (r == 0 && out->failed)
		r = -ENOMEM;
	request_answer(job->request, r, err);
	agent_job_free(job);
}

/* --- what is waited for --- */

/* The answer to the last prompt: as the profile finds it on the terminal, else what was printed. */
static int response_text(struct ap_agent *agent, struct ap_buf *out, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf terminal = {0};
	pthread_mutex_lock(&pool->lock);
	bool prompted = agent->n_prompts > 0; /* else what is there is of the lease before */
	pthread_mutex_unlock(&pool->lock);
	if (prompted && profile_has_answer(pool->profile) &&
	    pool->backend->ops->capture(pool->backend, &agent->terminal, true, 0, &terminal,
					NULL) == 0 &&
	    profile_answer(pool->profile, ap_buf_text(&terminal), out))
		return 0;
	output_read(agent);
	int r = output_response(agent, out);
	return r < 0 ? ap_err_errno(err, r, "the output of %s", agent->name) : 0;
}

static void job_response(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_request *request = job->request;
	struct ap_err err = {""};
	int r = atomic_load(&request->answered) ? -ECANCELED
						: response_text(job->agent, &request->text, &err);
	request_answer(request, r, &err);
	agent_job_free(job);
}

/* Has a worker make the text; takes the reference of the agent over. */
static int response_submit(struct ap_agent *agent, struct ap_request *request)
{
	struct agent_job *job = agent_job_new(agent, request, job_response, "");
	if (job)
		worker_submit(agent->pool->workers, &job->job);
	ap_agent_unref(agent);
	return job ? 0 : -ENOMEM;
}

void job_settled(struct ap_request *request, int result, const struct ap_err *err,
		 enum ap_activity activity)
{
	struct ap_agent *responder = ap_steal(request->responder);
	if (result == 0 && responder) {
		result = response_submit(responder, request);
		if (result == 0) { /* the job has a reference of its own */
			ap_request_free(request);
			return;
		}
		responder = NULL;
	}
	ap_agent_unref(responder);
	if (result == 0)
		ap_buf_printf(&request->text, "%s\n", ap_activity_name(activity));
	request_answer(request, result, err);
}

static bool is_settled_locked(const struct ap_agent *agent)
{
	return agent->gone ||
	       (agent->activity != AP_ACTIVITY_BUSY && agent->activity != AP_ACTIVITY_STARTING);
}

bool ap_agent_has_settled(struct ap_pool *pool, struct ap_agent *agent)
{
	pthread_mutex_lock(&pool->lock);
	bool settled = is_settled_locked(agent);
	pthread_mutex_unlock(&pool->lock);
	return settled;
}

int ap_agent_wait(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_wait what,
		  bool nonblock, struct ap_request *request, struct ap_err *err)
{
	struct ap_err error = {""};
	int r = what == AP_WAIT_RESPONSE ? pool_may_ask(pool, err) : 0;
	if (r < 0)
		return r;
	pthread_mutex_lock(&pool->lock);
	enum ap_activity activity = agent->activity;
	bool gone = agent->gone, parked = !is_settled_locked(agent);
	if (parked && nonblock) {
		pthread_mutex_unlock(&pool->lock);
		return ap_err_set(err, -EAGAIN, "%s is %s", agent->name,
				  ap_activity_name(activity));
	}
	ap_request_ref(request);
	if (what == AP_WAIT_RESPONSE) {
		agent_ref(agent);
		request->responder = agent;
	}
	if (parked)
		ap_list_append(&agent->waits, &request->link);
	else if (!gone)
		error = agent->prompt_error;
	pthread_mutex_unlock(&pool->lock);
	if (parked)
		return 0;
	r = agent_settled_result(activity, &error);
	if (gone)
		r = ap_err_set(&error, -ENODEV, "%s is gone", agent->name);
	job_settled(request, r, &error, activity);
	return 0;
}

/* --- looks at the screen --- */

void agent_look(struct ap_agent *agent, struct ap_buf *ret_screen, struct activity_signal *ret)
{
	struct ap_pool *pool = agent->pool;
	struct output_signs signs;
	output_read(agent);
	*ret = (struct activity_signal){.at_ns = ap_clock_ns()};
	ret_screen->len = 0;
	if (pool->backend->ops->capture(pool->backend, &agent->terminal, false, 0, ret_screen,
					NULL) < 0)
		return;
	output_look(agent, &signs);
	profile_judge(pool->profile, PROFILE_SCREEN, ap_buf_text(ret_screen), signs.title, ret);
}

static void job_look(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	struct activity_signal signal;
	pthread_mutex_lock(&pool->lock);
	unsigned start = agent->start;
	pthread_mutex_unlock(&pool->lock);
	agent_look(agent, &screen, &signal);
	bool asks = signal.found && signal.activity == AP_ACTIVITY_WAITING;
	const char *keys = asks ? profile_auto_answer(pool->profile, ap_buf_text(&screen)) : NULL;
	pthread_mutex_lock(&pool->lock);
	agent->looking = false;
	if (agent->start == start)
		agent->screen = signal;
	bool answers = keys && !agent->answered && agent->start == start;
	agent->answered = asks && (agent->answered || answers);
	agent_review_now(agent);
	if (answers)
		agent_keys_begin_locked(agent);
	pthread_mutex_unlock(&pool->lock);
	int64_t from = ap_clock_ns();
	if (answers && agent_press(agent, keys, NULL) == 0)
		events_add(pool->events, "auto_answer",
			   EVENT_FIELDS({"agent", agent->name, 0}, {"keys", keys, 0}));
	if (answers) {
		pthread_mutex_lock(&pool->lock);
		agent_keys_typed_locked(agent, from);
		pthread_mutex_unlock(&pool->lock);
	}
	agent_job_free(job);
}

void job_look_locked(struct ap_agent *agent)
{
	struct agent_job *job = agent_job_new(agent, NULL, job_look, "");
	if (!job) { /* later */
		agent_review_at(agent, ap_clock_ns() + AP_SECOND);
		return;
	}
	agent->looking = true;
	worker_submit(agent->pool->workers, &job->job);
}

int ap_agent_text(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_text what,
		  struct ap_request *request, struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r == 0)
		r = agent_running(agent, true, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, request, job_text, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	job->what = what;
	worker_submit(pool->workers, &job->job);
	return 0;
}

/* --- what is asked of the pool as a whole --- */

struct pool_job {
	struct worker_job job;
	struct ap_pool *pool;
	struct ap_request *request; /* with a reference */
};

static int pool_job_submit(struct ap_pool *pool, struct ap_request *request,
			   void (*run)(struct worker_job *), struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r < 0)
		return r;
	struct pool_job *job = calloc(1, sizeof *job);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "pool");
	job->job.run = run;
	job->pool = pool;
	job->request = request;
	job_asked(pool, request);
	worker_submit(pool->workers, &job->job);
	return 0;
}

static void pool_job_answer(struct pool_job *job, int result, const struct ap_err *err)
{
	request_answer(job->request, result, err);
	job_answered(job->pool);
	free(job);
}

static void job_save(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_err err = {""};
	int r = state_dir_save(job->pool, &err);
	pool_job_answer(job, r, &err);
}

static void job_load(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_err err = {""};
	int r = state_dir_load(job->pool, false, &err);
	pool_job_answer(job, r, &err);
}

int ap_pool_save(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return pool_job_submit(pool, request, job_save, err);
}

int ap_pool_load(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return pool_job_submit(pool, request, job_load, err);
}

int64_t ap_pool_events_size(struct ap_pool *pool)
{
	return events_size(pool->events);
}

struct ap_events_end ap_pool_events_end(struct ap_pool *pool)
{
	struct events_end end = events_look(pool->events);
	return (struct ap_events_end){.offset = end.offset, .seq = end.seq, .over = end.over};
}

/* --- kept texts --- */

struct kept_job {
	struct worker_job job;
	struct ap_pool *pool;
	struct ap_agent *agent;	    /* with a reference; NULL: the pool's own text */
	struct ap_request *request; /* with a reference */
	enum ap_kept_text what;
	int64_t offset;
	size_t size;
};

static ssize_t read_kept(const struct kept_job *job, bool at_once)
{
	struct ap_request *request = job->request;
	ssize_t n;
	if (!ap_buf_reserve(&request->text, job->size))
		return -ENOMEM;
	if (job->what == AP_KEPT_EVENTS)
		n = events_read(job->pool->events, at_once, request->text.data, job->size,
				job->offset, &request->offset);
	else
		n = output_read_kept(job->agent, job->what == AP_KEPT_RAW, at_once,
				     request->text.data, job->size, job->offset, &request->offset);
	request->text.len = n > 0 ? (size_t)n : 0;
	return n;
}

static void job_kept(struct worker_job *worker_job)
{
	struct kept_job *job = ap_container_of(worker_job, struct kept_job, job);
	ssize_t n = atomic_load(&job->request->answered) ? -ECANCELED : read_kept(job, false);
	request_answer(job->request, n < 0 ? (int)n : 0, NULL);
	job_answered(job->pool);
	ap_agent_unref(job->agent);
	free(job);
}

int64_t ap_request_offset(const struct ap_request *request)
{
	return request->offset;
}

int ap_pool_read_kept(struct ap_pool *pool, struct ap_agent *agent, enum ap_kept_text what,
		      int64_t offset, size_t size, struct ap_request *request, struct ap_err *err)
{
	const struct kept_job asked = {.job.run = job_kept,
				       .pool = pool,
				       .agent = agent,
				       .request = request,
				       .what = what,
				       .offset = offset,
				       .size = size};
	if (read_kept(&asked, true) >= 0) { /* who looks on, mostly at the end, costs no worker */
		ap_request_ref(request);
		request_answer(request, 0, NULL);
		return 0;
	}
	ap_buf_fini(&request->text); /* it costs memory when it is read only */
	int r = pool_may_ask(pool, err);
	struct kept_job *job = r == 0 ? malloc(sizeof *job) : NULL;
	if (r < 0)
		return r;
	if (!job)
		return ap_err_errno(err, -ENOMEM, "output");
	*job = asked;
	if (agent)
		agent_ref(agent);
	job_asked(pool, request);
	worker_submit(pool->workers, &job->job);
	return 0;
}
