/* Texts that take time to make: an agent's screen, diff, usage, output; what is waited for; and the
 * state store written and read on demand. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"

static int diff_text(struct ap_agent *agent, bool stat, struct ap_buf *out, struct ap_err *err)
{
	static atomic_uint n_diffs;
	char base[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	pthread_mutex_lock(&agent->pool->lock);
	bool leased = agent->pool->machine.slots[agent->slot].state == AP_AGENT_ACTIVE;
	snprintf(base, sizeof base, "%s", leased ? agent->base : "HEAD");
	pthread_mutex_unlock(&agent->pool->lock);
	ap_buf_printf(&scratch, "%s/index-%u", agent->dir, atomic_fetch_add(&n_diffs, 1));
	return worktree_diff(&agent->worktree, base, stat, ap_buf_text(&scratch), out, err);
}

static int usage_text(struct ap_agent *agent, enum ap_agent_text what, struct ap_buf *out,
		      struct ap_err *err)
{
	struct process_usage usage;
	double percent;
	int r = agent_usage(agent, &usage, &percent);
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
	struct ap_err *err = &job->request->err;
	int r = -EINVAL;
	switch (job->what) {
	case AP_TEXT_SCREEN:
		r = pool->backend->ops->capture(pool->backend, &agent->terminal, out, err);
		break;
	case AP_TEXT_DIFF:
	case AP_TEXT_DIFFSTAT:
		r = diff_text(agent, job->what == AP_TEXT_DIFFSTAT, out, err);
		break;
	case AP_TEXT_HEAD:
		r = worktree_head(&agent->worktree, out, err);
		break;
	case AP_TEXT_MEMORY:
	case AP_TEXT_CPU:
	case AP_TEXT_TASKS:
		r = usage_text(agent, job->what, out, err);
		break;
	case AP_TEXT_WAIT:
		break;
	}
	if (r == 0 && out->failed)
		r = -ENOMEM;
	request_answer(job->request, r);
	agent_job_free(job);
}

static void job_output(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_buf *out = &job->request->text;
	int r = 0;
	pthread_mutex_lock(&job->agent->output_lock);
	AP_CLEANUP_CLOSE int fd = fcntl(job->agent->plain_fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&job->agent->output_lock);
	if (!ap_buf_reserve(out, job->size)) {
		r = -ENOMEM;
	} else if (fd >= 0) { /* nothing printed yet reads as empty */
		ssize_t n = pread(fd, out->data, job->size, job->offset);
		r = n < 0 ? -errno : 0;
		out->len = n < 0 ? 0 : (size_t)n;
	}
	request_answer(job->request, r);
	agent_job_free(job);
}

int ap_agent_output(struct ap_pool *pool, struct ap_agent *agent, int64_t offset, size_t size,
		    struct ap_request *request, struct ap_err *err)
{
	struct agent_job *job = agent_job_new(agent, request, job_output, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "output");
	job->offset = offset;
	job->size = size;
	worker_submit(pool->workers, &job->job);
	return 0;
}

static int wait_text(struct ap_pool *pool, struct ap_agent *agent, struct ap_request *request,
		     struct ap_err *err)
{
	bool parked = false;
	enum ap_activity activity;
	ap_request_ref(request);
	pthread_mutex_lock(&pool->lock);
	bool gone = agent->gone;
	activity = agent->activity;
	if (!gone && (activity == AP_ACTIVITY_BUSY || activity == AP_ACTIVITY_STARTING)) {
		ap_list_append(&agent->waits, &request->link);
		parked = true;
	}
	pthread_mutex_unlock(&pool->lock);
	if (parked)
		return 0;
	if (gone)
		ap_err_set(&request->err, -ENODEV, "%s is gone", agent->name);
	else
		ap_buf_printf(&request->text, "%s\n", ap_activity_name(activity));
	request_answer(request, gone ? -ENODEV : 0);
	return 0;
}

int ap_agent_text(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_text what,
		  struct ap_request *request, struct ap_err *err)
{
	if (what == AP_TEXT_WAIT)
		return wait_text(pool, agent, request, err);
	int r = agent_running(pool, agent, true, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, request, job_text, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	job->what = what;
	worker_submit(pool->workers, &job->job);
	return 0;
}

/* --- the state store --- */

struct store_job {
	struct worker_job job;
	struct ap_pool *pool;
	struct ap_request *request; /* with a reference */
	bool load;
};

static void job_store(struct worker_job *worker_job)
{
	struct store_job *job = ap_container_of(worker_job, struct store_job, job);
	struct ap_err *err = &job->request->err;
	int r = job->load ? state_dir_load(job->pool, false, err) : state_dir_save(job->pool, err);
	request_answer(job->request, r);
	free(job);
}

static int store_submit(struct ap_pool *pool, bool load, struct ap_request *request,
			struct ap_err *err)
{
	struct store_job *job = calloc(1, sizeof *job);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "state store");
	job->job.run = job_store;
	job->pool = pool;
	job->load = load;
	job->request = request;
	ap_request_ref(request);
	worker_submit(pool->workers, &job->job);
	return 0;
}

int ap_pool_save(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return store_submit(pool, false, request, err);
}

int ap_pool_load(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return store_submit(pool, true, request, err);
}
