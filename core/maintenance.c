/* The maintenance thread: everything that is waited for with epoll, turned into events. It sleeps
 * until there is something: an end of a program, output, an answer of the backend, or the next of
 * the machine's deadlines. An idle pool wakes it for its maintenance passes only. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "pool_internal.h"

enum source { SOURCE_WAKE, SOURCE_BACKEND, SOURCE_INOTIFY, SOURCE_OVER, SOURCE_HOLDER };

static uint64_t source_pack(enum source source, unsigned number)
{
	return (uint64_t)source << 32 | number;
}

static int watch(struct ap_pool *pool, int fd, enum source source, unsigned number)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = source_pack(source, number)};
	return epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int maintenance_watch_over(struct ap_pool *pool, const struct ap_agent *agent, int over_fd)
{
	return watch(pool, over_fd, SOURCE_OVER, agent->number);
}

int maintenance_watch_backend(struct ap_pool *pool)
{
	int fd = pool->backend->ops->fd(pool->backend);
	return fd >= 0 ? watch(pool, fd, SOURCE_BACKEND, 0) : 0;
}

int maintenance_watch_holder(struct ap_pool *pool, const struct ap_agent *agent, int pid_fd)
{
	return watch(pool, pid_fd, SOURCE_HOLDER, agent->number);
}

int maintenance_watch_output(struct ap_pool *pool, const char *path)
{
	int wd = inotify_add_watch(pool->inotify_fd, path, IN_MODIFY);
	return wd < 0 ? -errno : wd;
}

void maintenance_unwatch_output(struct ap_pool *pool, int wd)
{
	if (wd >= 0) /* fails where the file is gone already */
		(void)inotify_rm_watch(pool->inotify_fd, wd);
}

void maintenance_poke(struct ap_pool *pool)
{
	uint64_t one = 1;
	/* fails only when 2^64 pokes are pending */
	(void)!write(pool->wake_fd, &one, sizeof one);
}

static struct ap_agent *agent_by_watch(struct ap_pool *pool, int wd)
{
	struct ap_agent *found = NULL;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && !found; i++) {
		if (pool->agents[i] && pool->agents[i]->watch == wd) {
			found = pool->agents[i];
			agent_ref(found);
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return found;
}

static void on_inotify(struct ap_pool *pool)
{
	char block[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(pool->inotify_fd, block, sizeof block);
	for (char *at = block; n > 0 && at < block + n;) {
		const struct inotify_event *event = (const void *)at;
		at += sizeof *event + event->len;
		struct ap_agent *agent = agent_by_watch(pool, event->wd);
		if (!agent)
			continue;
		output_read(agent);
		ap_agent_unref(agent);
	}
}

/* Whether a descriptor that was watched for its end has seen it; it is watched no more then. It may
 * have been replaced since the event was made: it is asked again. */
static bool has_ended_locked(struct ap_pool *pool, int fd)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	if (fd < 0 || poll(&end, 1, 0) != 1 || !end.revents)
		return false;
	(void)epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	return true;
}

static void on_over(struct ap_pool *pool, struct ap_agent *agent)
{
	pthread_mutex_lock(&pool->lock);
	unsigned start = agent->start;
	bool over = has_ended_locked(pool, agent->over_fd);
	pthread_mutex_unlock(&pool->lock);
	if (over)
		agent_ended(agent, start);
}

static void on_holder(struct ap_pool *pool, struct ap_agent *agent)
{
	pthread_mutex_lock(&pool->lock);
	uint64_t token = pool->view->slots[agent->slot].token;
	bool over = !agent->gone && has_ended_locked(pool, agent->holder_fd);
	pthread_mutex_unlock(&pool->lock);
	if (over) /* refused when the lease is ending already */
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = token,
							      .reason = AP_REASON_HOLDER});
}

static void on_agent(struct ap_pool *pool, unsigned number,
		     void (*handle)(struct ap_pool *, struct ap_agent *))
{
	struct ap_agent *agent = ap_agent_get(pool, number);
	if (agent)
		handle(pool, agent);
	ap_agent_unref(agent);
}

static void on_backend(struct ap_pool *pool)
{
	const struct backend_ops *ops = pool->backend->ops;
	ops->ready(pool->backend);
	if (ops->fd(pool->backend) >= 0 || !ops->revive)
		return;
	pthread_mutex_lock(&pool->lock);
	job_revive_locked(pool);
	pthread_mutex_unlock(&pool->lock);
}

static void on_event(struct ap_pool *pool, const struct epoll_event *event)
{
	uint64_t count;
	switch ((enum source)(event->data.u64 >> 32)) {
	case SOURCE_WAKE:
		(void)!read(pool->wake_fd, &count, sizeof count);
		break;
	case SOURCE_BACKEND:
		on_backend(pool);
		break;
	case SOURCE_INOTIFY:
		on_inotify(pool);
		break;
	case SOURCE_OVER:
		on_agent(pool, (unsigned)event->data.u64, on_over);
		break;
	case SOURCE_HOLDER:
		on_agent(pool, (unsigned)event->data.u64, on_holder);
		break;
	}
}

/* Agents whose activity is due for a look, with references. */
static unsigned agents_due(struct ap_pool *pool, struct ap_agent **ret, unsigned max, int64_t now)
{
	unsigned n = 0;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && n < max; i++) {
		struct ap_agent *agent = pool->agents[i];
		if (agent && agent->recheck_ns <= now) {
			agent->recheck_ns = AP_FOREVER;
			agent_ref(agent);
			ret[n++] = agent;
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return n;
}

static void review_due(struct ap_pool *pool)
{
	struct ap_agent *due[16];
	int64_t now = ap_clock_ns();
	unsigned n;
	do {
		n = agents_due(pool, due, 16, now);
		for (unsigned i = 0; i < n; i++) {
			agent_review(due[i], ap_clock_ns());
			ap_agent_unref(due[i]);
		}
	} while (n == 16);
}

/* Arms the sleep: from now on, whoever makes an earlier deadline pokes. */
static int64_t arm(struct ap_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	int64_t at = pool->revive_ns;
	if (pool->view->wake_ns < at && !atomic_load(&pool->leaving)) /* else it is let be */
		at = pool->view->wake_ns;
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		if (pool->agents[i] && pool->agents[i]->recheck_ns < at)
			at = pool->agents[i]->recheck_ns;
	}
	pool->armed_ns = at;
	pthread_mutex_unlock(&pool->lock);
	return at;
}

static int sleep_ms(int64_t until_ns)
{
	int64_t left = until_ns - ap_clock_ns();
	if (left <= 0)
		return 0;
	if (left > 3600 * AP_SECOND)
		return 3600 * 1000;
	return (int)((left + AP_MS - 1) / AP_MS);
}

static void *maintenance_main(void *data)
{
	struct ap_pool *pool = data;
	struct epoll_event events[16];
	while (!atomic_load(&pool->maintenance_end)) {
		int n = epoll_wait(pool->epoll_fd, events, 16, sleep_ms(arm(pool)));
		for (int i = 0; i < n; i++)
			on_event(pool, &events[i]);
		pthread_mutex_lock(&pool->lock);
		bool due = pool->view->wake_ns <= ap_clock_ns();
		if (pool->revive_ns <= ap_clock_ns())
			job_revive_locked(pool);
		pthread_mutex_unlock(&pool->lock);
		if (due && !atomic_load(&pool->leaving))
			pool_step(pool, &(struct machine_event){.type = MACHINE_TIMER});
		review_due(pool);
	}
	return NULL;
}

int maintenance_init(struct ap_pool *pool, struct ap_err *err)
{
	pool->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	pool->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pool->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (pool->epoll_fd < 0 || pool->wake_fd < 0 || pool->inotify_fd < 0 ||
	    watch(pool, pool->wake_fd, SOURCE_WAKE, 0) < 0 ||
	    watch(pool, pool->inotify_fd, SOURCE_INOTIFY, 0) < 0)
		return ap_err_errno(err, -errno, "maintenance thread");
	return 0;
}

int maintenance_start(struct ap_pool *pool, struct ap_err *err)
{
	sigset_t all, before;
	int r = maintenance_watch_backend(pool);
	if (r < 0)
		return ap_err_errno(err, r, "maintenance thread");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&pool->maintenance, NULL, maintenance_main, pool);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0)
		return ap_err_errno(err, r, "maintenance thread");
	pool->maintenance_runs = true;
	return 0;
}

void maintenance_stop(struct ap_pool *pool)
{
	if (!pool->maintenance_runs)
		return;
	atomic_store(&pool->maintenance_end, true);
	maintenance_poke(pool);
	pthread_join(pool->maintenance, NULL);
	pool->maintenance_runs = false;
}

void maintenance_fini(struct ap_pool *pool)
{
	const int fds[] = {pool->epoll_fd, pool->wake_fd, pool->inotify_fd};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}
