/* Texts that take time to make: an agent's screen, diff, usage, output; waits for an agent; the
 * event log. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs_internal.h"

static int look_text(struct ap_agent *agent, enum worktree_look what, struct ap_buf *out,
		     struct ap_err *err)
{
	char base[GIT_OID_MAX + 1];
	pthread_mutex_lock(&agent->pool->lock);
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	bool has_base = slot->state == AP_AGENT_ACTIVE || slot->state == AP_AGENT_QUARANTINED;
	snprintf(base, sizeof base, "%s", has_base ? agent->base : "");
	pthread_mutex_unlock(&agent->pool->lock);
	return worktree_look(&agent->worktree, base, what, out, err);
}

static int usage_text(struct ap_agent *agent, enum ap_agent_text what, struct ap_buf *out,
		      struct ap_err *err)
{
	struct process_usage usage;
	double percent;
	int r = session_usage(agent->session, NULL, &usage, &percent);
	if (r == -ESRCH) { /* the program has ended */
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

/* A line a key, then a line an option: agentpoolfs(5) describes it. */
static void question_text(const struct question *asked, struct ap_buf *out)
{
	ap_buf_printf(out, "id %s\ntitle %s\nkind %s\n", asked->id, asked->title, asked->kind);
	if (asked->detail[0])
		ap_buf_printf(out, "detail %s\n", asked->detail);
	for (unsigned i = 0; i < asked->n_options; i++)
		ap_buf_printf(out, "%s %s %s\n", asked->options[i].id, asked->options[i].kind,
			      asked->options[i].name);
}

void agent_requests(struct ap_agent *agent, unsigned n_most, struct ap_buf *out)
{
	struct question asked;
	for (unsigned nth = 0; nth < n_most; nth++) {
		session_question(agent->session, nth, &asked);
		if (!asked.id[0])
			return;
		if (nth > 0)
			ap_buf_adds(out, "\n");
		question_text(&asked, out);
	}
}

static int told_text(struct ap_agent *agent, enum session_told what, struct ap_buf *out)
{
	session_told(agent->session, what, out);
	return 0;
}

static void job_text(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_buf *out = &job->request->text;
	struct ap_err error = {""}, *err = &error;
	int r = -EINVAL;
	if (atomic_load(&job->request->answered)) { /* cancelled: nobody reads the text */
		request_answer(job->request, -ECANCELED, NULL);
		pool_job_free(job);
		return;
	}
	switch (job->text) {
	case AP_TEXT_SCREEN:
		r = session_screen(agent->session, 0, out, err);
		break;
	case AP_TEXT_REQUEST:
		agent_requests(agent, UINT_MAX, out);
		r = 0;
		break;
	case AP_TEXT_PLAN:
		r = told_text(agent, SESSION_PLAN, out);
		break;
	case AP_TEXT_STOP_REASON:
		r = told_text(agent, SESSION_STOP_REASON, out);
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
		r = usage_text(agent, job->text, out, err);
		break;
	}
	if (r == 0 && out->failed)
		r = -ENOMEM;
	request_answer(job->request, r, err);
	pool_job_free(job);
}

/* --- waits --- */

static void job_response(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_request *request = job->request;
	struct ap_err err = {""};
	int r = atomic_load(&request->answered)
			? -ECANCELED
			: session_response(job->agent->session, &request->text, &err);
	request_answer(request, r, &err);
	pool_job_free(job);
}

/* Submits a job that makes the response. -ENOMEM. */
static int response_submit(struct ap_agent *agent, struct ap_request *request)
{
	struct pool_job *job = pool_job_new(agent->pool, agent, request, job_response);
	if (job)
		pool_job_submit(job);
	return job ? 0 : -ENOMEM;
}

/* Answers a request that waited; drops the pool's reference. */
static void on_settled(struct session_wait *wait, int result, enum ap_activity activity,
		       const struct ap_err *err)
{
	struct ap_request *request = ap_container_of(wait, struct ap_request, settles);
	if (result == 0 && request->wants_response) {
		result = response_submit(request->agent, request);
		if (result == 0) { /* the job has its own reference */
			ap_request_free(request);
			return;
		}
	}
	if (result == 0)
		ap_buf_printf(&request->text, "%s\n", ap_activity_name(activity));
	request_answer(request, result, err);
}

bool ap_agent_has_settled(struct ap_pool *pool, struct ap_agent *agent)
{
	(void)pool;
	return session_has_settled(agent->session);
}

int ap_agent_wait(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_wait what,
		  bool nonblock, struct ap_request *request, struct ap_err *err)
{
	int r = what == AP_WAIT_RESPONSE ? pool_may_ask(pool, err) : 0;
	if (r < 0)
		return r;
	ap_request_ref(request);
	agent_ref(agent);
	request->agent = agent;
	request->wants_response = what == AP_WAIT_RESPONSE;
	request->settles.done = on_settled;
	r = session_wait(agent->session, &request->settles, nonblock, err);
	if (r < 0)
		ap_request_free(request);
	return r;
}

int ap_agent_text(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_text what,
		  struct ap_request *request, struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r == 0)
		r = session_running(agent->session, true, err);
	if (r < 0)
		return r;
	struct pool_job *job = pool_job_new(agent->pool, agent, request, job_text);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	job->text = what;
	pool_job_submit(job);
	return 0;
}

int ap_agent_attach(struct ap_pool *pool, struct ap_agent *agent, struct ap_buf *out,
		    struct ap_err *err)
{
	(void)pool;
	return session_attach(agent->session, out, err);
}

/* --- events --- */

int64_t ap_pool_events_size(struct ap_pool *pool)
{
	return events_size(pool->events);
}

static void job_settle(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	events_settle(job->pool->events);
	request_answer(job->request, 0, NULL);
	pool_job_free(job);
}

int ap_pool_events_settle(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	if (events_are_settled(pool->events)) {
		ap_request_ref(request);
		request_answer(request, 0, NULL);
		return 0;
	}
	return pool_job_begin(pool, request, job_settle, err);
}

struct ap_events_end ap_pool_events_end(struct ap_pool *pool)
{
	struct events_end end = events_look(pool->events);
	return (struct ap_events_end){.offset = end.offset, .seq = end.seq, .over = end.over};
}

/* --- kept texts --- */

/* Reads a piece of a kept text into the request. With `at_once` it fails where it would block. */
static ssize_t read_kept(const struct pool_job *job, bool at_once)
{
	static const enum session_output outputs[] = {
		[AP_KEPT_OUTPUT] = SESSION_PLAIN,
		[AP_KEPT_RAW] = SESSION_RAW,
		[AP_KEPT_CALLS] = SESSION_CALLS,
	};
	struct ap_request *request = job->request;
	size_t size = job->kept.size;
	ssize_t n;
	if (!ap_buf_reserve(&request->text, size))
		return -ENOMEM;
	if (job->kept.text == AP_KEPT_EVENTS)
		n = events_read(job->pool->events, at_once, request->text.data, size,
				job->kept.offset, &request->offset);
	else
		n = session_read_output(job->agent->session, outputs[job->kept.text], at_once,
					request->text.data, size, job->kept.offset,
					&request->offset);
	request->text.len = n > 0 ? (size_t)n : 0;
	return n;
}

static void job_kept(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	ssize_t n = atomic_load(&job->request->answered) ? -ECANCELED : read_kept(job, false);
	request_answer(job->request, n < 0 ? (int)n : 0, NULL);
	pool_job_free(job);
}

int64_t ap_request_offset(const struct ap_request *request)
{
	return request->offset;
}

int ap_pool_read_kept(struct ap_pool *pool, struct ap_agent *agent, enum ap_kept_text what,
		      int64_t offset, size_t size, struct ap_request *request, struct ap_err *err)
{
	const struct pool_job asked = {.pool = pool,
				       .agent = agent,
				       .request = request,
				       .kept = {.text = what, .offset = offset, .size = size}};
	if (read_kept(&asked, true) >= 0) { /* a reader at the end, as most are, costs no worker */
		ap_request_ref(request);
		request_answer(request, 0, NULL);
		return 0;
	}
	ap_buf_fini(&request->text); /* no memory for it while the request waits */
	int r = pool_may_ask(pool, err);
	if (r < 0)
		return r;
	struct pool_job *job = pool_job_new(pool, agent, request, job_kept);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "output");
	job->kept = asked.kept;
	pool_job_submit(job);
	return 0;
}
