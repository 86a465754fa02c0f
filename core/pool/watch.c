/* The pool's own sources in the loop: the machine's next deadline, answers of the backend, and the
 * backend's end. Agents have their own sources in the same loop. An idle pool wakes the loop for
 * its maintenance passes only. */
#include "pool_internal.h"

/* Between two attempts to revive the backend. */
#define REVIVE_PAUSE AP_SECOND

static void job_revive_locked(struct ap_pool *pool);

static void on_machine_due(struct loop_source *source)
{
	struct ap_pool *pool = ap_container_of(source, struct ap_pool, machine_due);
	if (!atomic_load(&pool->sessions.closed)) /* once closed, nothing begins any more */
		pool_step(pool, &(struct machine_event){.type = MACHINE_TIMER});
}

static void revive(struct ap_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	job_revive_locked(pool);
	pthread_mutex_unlock(&pool->lock);
}

static void on_revive_due(struct loop_source *source)
{
	revive(ap_container_of(source, struct ap_pool, revive_due));
}

static void on_backend(struct loop_source *source)
{
	struct ap_pool *pool = ap_container_of(source, struct ap_pool, backend_says);
	const struct backend_ops *ops = pool->backend->ops;
	if (ops->ready(pool->backend))
		return;
	(void)loop_watch_fd(pool->loop, source, -1);
	ops->hang_up(pool->backend);
	if (ops->revive)
		revive(pool);
}

int watch_backend(struct ap_pool *pool, struct ap_err *err)
{
	const struct backend_ops *ops = pool->backend->ops;
	int r = ops->fd ? loop_watch_fd(pool->loop, &pool->backend_says, ops->fd(pool->backend))
			: 0;
	return r < 0 ? ap_err_errno(err, r, "%s", ops->name) : 0;
}

int watch_init(struct ap_pool *pool, struct ap_err *err)
{
	int r = loop_new(&pool->loop, err);
	if (r == 0 && (loop_add(pool->loop, &pool->machine_due, on_machine_due) < 0 ||
		       loop_add(pool->loop, &pool->revive_due, on_revive_due) < 0 ||
		       loop_add(pool->loop, &pool->backend_says, on_backend) < 0))
		r = ap_err_errno(err, -ENOMEM, "event loop");
	return r;
}

/* --- reviving the backend --- */

int pool_revive_backend(struct ap_pool *pool, struct ap_err *err)
{
	int r = -EIO;
	/* first reconnect, as the connection alone may be broken; a backend that does not answer
	 * then is replaced */
	for (int anew = 0; anew <= 1 && r < 0; anew++) {
		r = pool->backend->ops->revive(pool->backend, anew, err);
		if (r == 0)
			r = watch_backend(pool, err);
		if (r == 0)
			r = backend_configure(pool->backend, err);
	}
	return r;
}

static void job_revive(struct worker_job *job)
{
	struct ap_pool *pool = ap_container_of(job, struct ap_pool, revive_job);
	struct ap_err err = {""};
	int r = pool_revive_backend(pool, &err);
	events_add(pool->events, r == 0 ? "backend_revived" : "backend_gone",
		   EVENT_FIELDS({"backend", pool->backend->ops->name, 0},
				{"reason", r == 0 ? "" : err.text, 0}));
	pthread_mutex_lock(&pool->lock);
	pool->reviving = false;
	if (r < 0 || pool->backend->ops->fd(pool->backend) < 0) /* failed, or broken again */
		loop_set(pool->loop, &pool->revive_due,
			 ap_clock_after(ap_clock_ns(), REVIVE_PAUSE));
	pthread_mutex_unlock(&pool->lock);
}

static void job_revive_locked(struct ap_pool *pool)
{
	loop_set(pool->loop, &pool->revive_due, AP_FOREVER);
	if (pool->reviving) /* at its end that attempt checks whether another one is due */
		return;
	pool->reviving = true;
	pool->revive_job = (struct worker_job){.run = job_revive};
	worker_submit(pool->workers, &pool->revive_job);
}
