/* What the pool itself waits for, turned into events: the next of the machine's deadlines, answers
 * of the backend, and its end. Agents have sources of their own in the same loop. An idle pool
 * wakes it for its maintenance passes only. */
#include "pool_internal.h"

static void on_machine_due(struct loop_source *source)
{
	struct ap_pool *pool = ap_container_of(source, struct ap_pool, machine_due);
	if (!atomic_load(&pool->sessions.closed)) /* else it is let be */
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
	int r = loop_watch_fd(pool->loop, &pool->backend_says, ops->fd(pool->backend));
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
