#include "overview.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jobs_internal.h"

/* How old what is looked at may be. */
#define SCREEN_LASTS (200 * AP_MS)
#define USAGE_LASTS  (5 * AP_SECOND)

/* A backend that does not answer for so long is not asked for so long: what was seen before has to
 * do meanwhile. */
#define CAPTURE_LIMIT AP_SECOND
#define CAPTURE_PAUSE (30 * AP_SECOND)

/* --- screens and usage --- */

/* Looks at the screen, if anything was printed since the last time. False: the backend did not
 * answer. */
static bool look_at_screen(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	output_read(agent);
	int64_t size = atomic_load(&agent->raw.size);
	pthread_mutex_lock(&pool->lock);
	unsigned start = agent->start;
	bool same = agent->shown && agent->shown_start == start && agent->shown_size == size;
	pthread_mutex_unlock(&pool->lock);
	if (same)
		return true;
	int r = pool->backend->ops->capture(pool->backend, &agent->terminal, false, CAPTURE_LIMIT,
					    &screen, NULL);
	if (r < 0 || screen.failed)
		return r != -ETIMEDOUT;
	ap_buf_adds(&screen, ""); /* a text also where it is empty */
	pthread_mutex_lock(&pool->lock);
	char *before = agent->shown;
	agent->shown = ap_steal(screen.data);
	agent->shown_size = size;
	agent->shown_start = start;
	pthread_mutex_unlock(&pool->lock);
	free(before);
	return true;
}

static void look_at_usage(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct process_usage usage;
	double percent;
	pthread_mutex_lock(&pool->lock);
	bool fresh = agent->ended ||
		     (agent->usage_known && ap_clock_ns() - agent->cpu.at_ns < USAGE_LASTS);
	pthread_mutex_unlock(&pool->lock);
	if (!fresh)
		(void)agent_usage(agent, &usage, &percent); /* -ESRCH: it has ended meanwhile */
}

static void look_at_agents(struct ap_pool *pool)
{
	bool answers = ap_clock_ns() >= pool->silent_until_ns;
	for (unsigned i = 0; i < pool->machine.n_slots; i++) {
		pthread_mutex_lock(&pool->lock);
		struct ap_agent *agent = pool->agents[i];
		if (agent && agent->started)
			agent_ref(agent);
		else
			agent = NULL;
		pthread_mutex_unlock(&pool->lock);
		if (!agent)
			continue;
		if (answers && !(answers = look_at_screen(agent)))
			pool->silent_until_ns = ap_clock_ns() + CAPTURE_PAUSE;
		look_at_usage(agent);
		ap_agent_unref(agent);
	}
}

static struct ap_request *next_looker(struct ap_pool *pool)
{
	struct ap_request *request = NULL;
	pthread_mutex_lock(&pool->lock);
	if (!ap_list_empty(&pool->lookers)) { /* one that is cancelled takes itself out */
		request = ap_container_of(pool->lookers.next, struct ap_request, link);
		ap_list_remove(&request->link);
	}
	pool->looks = request != NULL;
	pthread_mutex_unlock(&pool->lock);
	return request;
}

static void job_look(struct worker_job *job)
{
	struct ap_pool *pool = ap_container_of(job, struct ap_pool, look_job);
	struct ap_request *request;
	while ((request = next_looker(pool))) {
		if (!pool->looked_ns || ap_clock_ns() - pool->looked_ns >= SCREEN_LASTS) {
			pool->looked_ns = ap_clock_ns();
			look_at_agents(pool);
			atomic_fetch_add(&pool->n_changes, 1); /* no poller sees it */
		}
		request_answer(request, 0, NULL);
	}
}

void ap_pool_look(struct ap_pool *pool, struct ap_request *request)
{
	ap_request_ref(request);
	pthread_mutex_lock(&pool->lock);
	ap_list_append(&pool->lookers, &request->link);
	if (!pool->looks) {
		pool->looks = true;
		pool->look_job = (struct worker_job){.run = job_look};
		worker_submit(pool->looking, &pool->look_job);
	}
	pthread_mutex_unlock(&pool->lock);
}

/* --- one look --- */

static bool agent_overview_locked(const struct ap_agent *agent, struct ap_agent_overview *ret)
{
	*ret = (struct ap_agent_overview){
		.has_usage = agent->usage_known && !agent->ended,
		.memory = agent->usage.memory,
		.cpu_percent = agent->cpu.percent,
		.n_tasks = agent->usage.n_processes,
	};
	if (!agent_info_locked(agent, &ret->info))
		return false;
	ret->screen = agent->shown ? strdup(agent->shown) : NULL; /* ENOMEM: without it */
	return true;
}

static void waiters_locked(const struct ap_pool *pool, struct ap_overview *ret)
{
	struct ap_list *at;
	ap_list_for_each (at, &pool->machine.waiters) {
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
	ret->agents = calloc(pool->machine.n_slots, sizeof *ret->agents);
	if (!ret->agents)
		return -ENOMEM;
	templates_look(pool->templates, &templates);
	pthread_mutex_lock(&pool->lock);
	ret->at_ns = ap_clock_ns();
	ret->metrics = metrics_of_locked(pool, &templates, ret->at_ns);
	ret->history = pool->history;
	ret->color = ap_config_choice(&pool->config, AP_OPT_STATUS_COLOR) != 0;
	for (unsigned i = 0; i < pool->machine.n_slots; i++) {
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
	for (unsigned i = 0; i < overview->n_agents; i++)
		free(overview->agents[i].screen);
	free(overview->agents);
}
