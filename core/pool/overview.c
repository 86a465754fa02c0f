#include "overview.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jobs_internal.h"
#include "shared.h"

/* How old a screen and the usage may be. */
#define SCREEN_LASTS (200 * AP_MS)
#define USAGE_LASTS  (5 * AP_SECOND)

/* How long a reader waits for a refresh. A longer one continues in the background: the reader gets
 * the previous values, and "unknown" for values that no refresh has read yet. */
#define LOOK_PATIENCE (15 * AP_MS)

/* Reading usage takes at most 1/(USAGE_SHARE + 1) of the time. From TABLE_FROM agents on, the
 * refresh reads one table of all processes instead of a tree per agent. */
#define USAGE_SHARE 10
#define TABLE_FROM  8

/* If the backend does not answer within CAPTURE_LIMIT, the refresh does not ask it again for
 * CAPTURE_PAUSE: readers get the previous screens meanwhile. */
#define CAPTURE_LIMIT AP_SECOND
#define CAPTURE_PAUSE (30 * AP_SECOND)

/* --- screens and usage --- */

/* Requests of a program that an overview has. */
#define REQUESTS_SHOWN 8

/* Looks at what the program asks, if it waits; a terminal is asked only where it may have changed.
 */
static void refresh_request(struct ap_agent *agent, const struct session_info *info, bool same)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	bool waits = info->activity == AP_ACTIVITY_WAITING;
	pthread_mutex_lock(&pool->lock);
	bool known = agent->asked != NULL && (*agent->asked != '\0') == waits && same;
	pthread_mutex_unlock(&pool->lock);
	if (known)
		return;
	if (waits)
		agent_requests(agent, REQUESTS_SHOWN, &text);
	const char *now = text.failed ? NULL : ap_shared_new(ap_buf_text(&text), text.len);
	pthread_mutex_lock(&pool->lock);
	const char *before = agent->asked;
	agent->asked = now;
	pthread_mutex_unlock(&pool->lock);
	ap_shared_unref(before);
}

/* Captures the screen, if the program has printed anything since the last capture. False: the
 * backend did not answer. */
static bool refresh_screen(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	struct session_info info;
	session_read_on(agent->session);
	session_info(agent->session, &info);
	pthread_mutex_lock(&pool->lock);
	bool same = agent->shown && agent->shown_start == info.start &&
		    agent->shown_size == info.raw_size;
	pthread_mutex_unlock(&pool->lock);
	refresh_request(agent, &info, same);
	if (same)
		return true;
	int r = session_screen(agent->session, CAPTURE_LIMIT, &screen, NULL);
	if (r < 0 || screen.failed)
		return r != -ETIMEDOUT;
	const char *now = ap_shared_new(ap_buf_text(&screen), screen.len);
	if (!now)
		return true; /* ENOMEM: the previous screen stays */
	pthread_mutex_lock(&pool->lock);
	const char *before = agent->shown;
	agent->shown = now;
	agent->shown_size = info.raw_size;
	agent->shown_start = info.start;
	pthread_mutex_unlock(&pool->lock);
	ap_shared_unref(before);
	return true;
}

/* The agent of a slot, with a reference, if its program was started; else NULL. Taken one by one:
 * the lock is not held while a slow agent is read. */
static struct ap_agent *agent_started_in(struct ap_pool *pool, unsigned slot)
{
	pthread_mutex_lock(&pool->lock);
	struct ap_agent *agent = pool->agents[slot];
	if (agent && session_running(agent->session, true, NULL) == 0)
		agent_ref(agent);
	else
		agent = NULL;
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

static void refresh_screens(struct ap_pool *pool)
{
	bool answers = ap_clock_ns() >= pool->silent_until_ns;
	for (unsigned i = 0; i < pool->view->n_slots && answers; i++) {
		struct ap_agent *agent = agent_started_in(pool, i);
		if (!agent)
			continue;
		answers = !atomic_load(&pool->sessions.closed) && refresh_screen(agent);
		if (!answers)
			pool->silent_until_ns = ap_clock_ns() + CAPTURE_PAUSE;
		ap_agent_unref(agent);
	}
}

/* The number of running agents, if the usage of any of them is unknown or too old; else 0. */
static unsigned usage_wanted(struct ap_pool *pool, int64_t now)
{
	unsigned n = 0;
	bool wanted = false;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		const struct ap_agent *agent = pool->agents[i];
		struct session_info info = {.started = false};
		if (agent)
			session_info(agent->session, &info);
		if (!info.started || info.ended)
			continue;
		n++;
		wanted = wanted || !info.usage_known || now - info.usage_ns >= USAGE_LASTS;
	}
	pthread_mutex_unlock(&pool->lock);
	return wanted ? n : 0;
}

/* Reads the usage of all agents together: one listing of the machine's processes serves them all.
 */
static void refresh_usage(struct ap_pool *pool)
{
	int64_t began = ap_clock_ns();
	unsigned n_slots = pool->view->n_slots, from = pool->usage_from;
	unsigned n = began >= pool->usage_due_ns ? usage_wanted(pool, began) : 0;
	if (n == 0)
		return;
	struct process_table *table = n >= TABLE_FROM ? process_table_new() : NULL;
	bool late = false;
	for (unsigned i = 0; i < n_slots && !atomic_load(&pool->sessions.closed); i++) {
		unsigned slot = (from + i) % n_slots;
		struct ap_agent *agent = agent_started_in(pool, slot);
		struct process_usage usage;
		double percent;
		if (!agent)
			continue;
		if (table && !late && (late = process_table_is_late(table)))
			pool->usage_from = slot; /* the next refresh begins with this slot */
		(void)session_usage(agent->session, table, &usage,
				    &percent); /* -ESRCH: the program has ended */
		ap_agent_unref(agent);
	}
	process_table_free(table);
	int64_t now = ap_clock_ns();
	pool->usage_due_ns = now + USAGE_SHARE * (now - began);
}

static void job_refresh(struct worker_job *job)
{
	struct ap_pool *pool = ap_container_of(job, struct ap_pool, look_job);
	int64_t began = ap_clock_ns();
	refresh_screens(pool);
	refresh_usage(pool);
	atomic_fetch_add(&pool->n_changes, 1); /* without pool_changed(): wakes no poller */
	int64_t took = ap_clock_ns() - began;
	pthread_mutex_lock(&pool->lock);
	pool->looks = false;
	pool->look_due_ns = began + (took > SCREEN_LASTS / 2 ? 2 * took : SCREEN_LASTS);
	pthread_cond_signal(&pool->looked);
	pthread_mutex_unlock(&pool->lock);
}

/* Answers the requests that wait for a refresh: when it has ended, or after LOOK_PATIENCE. */
static void job_answer(struct worker_job *job)
{
	struct ap_pool *pool = ap_container_of(job, struct ap_pool, answer_job);
	pthread_mutex_lock(&pool->lock);
	while (!ap_list_empty(&pool->lookers)) { /* a cancel removes its request, see pool.c */
		struct ap_request *request =
			ap_container_of(pool->lookers.next, struct ap_request, settles.link);
		int64_t until = request->asked_ns + LOOK_PATIENCE;
		const struct timespec deadline = {.tv_sec = until / AP_SECOND,
						  .tv_nsec = until % AP_SECOND};
		if (pool->looks && ap_clock_ns() < until) {
			pthread_cond_timedwait(&pool->looked, &pool->lock, &deadline);
			continue;
		}
		ap_list_remove(&request->settles.link);
		pthread_mutex_unlock(&pool->lock);
		request_answer(request, 0, NULL);
		pthread_mutex_lock(&pool->lock);
	}
	pool->answers = false;
	pthread_mutex_unlock(&pool->lock);
}

void ap_pool_look(struct ap_pool *pool, struct ap_request *request)
{
	ap_request_ref(request);
	pthread_mutex_lock(&pool->lock);
	request->asked_ns = ap_clock_ns();
	ap_list_append(&pool->lookers, &request->settles.link);
	if (!pool->looks && request->asked_ns >= pool->look_due_ns) {
		pool->looks = true;
		pool->look_job = (struct worker_job){.run = job_refresh};
		worker_submit(pool->looking, &pool->look_job);
	}
	if (!pool->answers) {
		pool->answers = true;
		pool->answer_job = (struct worker_job){.run = job_answer};
		worker_submit(pool->looking, &pool->answer_job);
	}
	pthread_mutex_unlock(&pool->lock);
}

/* --- one snapshot --- */

static bool agent_overview_locked(const struct ap_agent *agent, struct ap_agent_overview *ret)
{
	struct session_info info;
	session_info(agent->session, &info);
	*ret = (struct ap_agent_overview){
		.has_usage = info.usage_known && !info.ended,
		.memory = info.usage.memory,
		.cpu_percent = info.cpu_percent,
		.n_tasks = info.usage.n_processes,
	};
	if (!agent_info_locked(agent, &info, &ret->info))
		return false;
	ret->screen = ap_shared_ref(agent->shown);
	ret->request = ap_shared_ref(agent->asked);
	return true;
}

static void waiters_locked(const struct ap_pool *pool, struct ap_overview *ret)
{
	struct ap_list *at;
	ap_list_for_each (at, &pool->view->waiters) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		struct ap_waiter_overview *next = &ret->waiters[ret->n_waiters++];
		memcpy(next->label, request->label.text, sizeof next->label);
		next->uid = request->uid;
		next->pid = request->pid;
		next->asked_ns = ap_container_of(request, struct ap_request, machine)->asked_ns;
		if (ret->n_waiters == AP_WAITERS_SHOWN)
			break;
	}
}

static int by_number(const void *a, const void *b)
{
	const struct ap_agent_overview *left = a, *right = b;
	return (left->info.number > right->info.number) - (left->info.number < right->info.number);
}

int ap_pool_overview(struct ap_pool *pool, struct ap_overview *ret)
{
	struct templates_stats templates;
	*ret = (struct ap_overview){.repo = pool->repo.path};
	ret->agents = calloc(pool->view->n_slots, sizeof *ret->agents);
	if (!ret->agents)
		return -ENOMEM;
	templates_look(pool->templates, &templates);
	pthread_mutex_lock(&pool->lock);
	ret->at_ns = ap_clock_ns();
	ret->metrics = metrics_of_locked(pool, &templates, ret->at_ns);
	ret->history = pool->history;
	ret->color = ap_config_choice(&pool->config, AP_OPT_STATUS_COLOR) != 0;
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		struct ap_agent_overview *next = &ret->agents[ret->n_agents];
		if (pool->agents[i] && agent_overview_locked(pool->agents[i], next))
			ret->n_agents++;
	}
	waiters_locked(pool, ret);
	pthread_mutex_unlock(&pool->lock);
	qsort(ret->agents, ret->n_agents, sizeof *ret->agents, by_number);
	return 0;
}

void ap_overview_fini(struct ap_overview *overview)
{
	for (unsigned i = 0; i < overview->n_agents; i++) {
		ap_shared_unref(overview->agents[i].screen);
		ap_shared_unref(overview->agents[i].request);
	}
	free(overview->agents);
}
