/* Watches what is used of the budgets: tells of it, breaks off turns, and has the pool grant
 * nothing more. A worker does that, behind the reports. */
#include <string.h>

#include "jobs_internal.h"

/* `agent` is NULL for the pool's budget. */
static void note_budget_locked(struct ap_pool *pool, const struct ap_agent *agent, unsigned percent,
			       int64_t budget, const struct ap_usage *used)
{
	struct ap_buf told = {0};
	const char *label = agent ? pool->view->slots[agent->slot].label.text : "";
	ap_budget_tell(budget, used, &told);
	events_note(pool->events, agent ? "budget" : "pool_budget",
		    EVENT_FIELDS({"agent", agent ? agent->name : "", 0}, {"lease", label, 0},
				 {"percent", NULL, percent}, {"used", ap_buf_text(&told), 0}));
	ap_buf_fini(&told);
}

/* Breaks off the turn that runs beyond its budget, if that is wanted: once for each prompt. */
static void break_off_locked(struct ap_agent *agent, uint64_t token)
{
	struct session_info info;
	if (strcmp(agent->pool->config.text[AP_OPT_OVER_BUDGET], "cancel") != 0 ||
	    agent->broken_off == agent->prompt_seq)
		return;
	session_info(agent->session, &info);
	if (info.activity != AP_ACTIVITY_BUSY && info.activity != AP_ACTIVITY_WAITING)
		return;
	agent->broken_off = agent->prompt_seq;
	(void)session_cancel(agent->session, token, NULL); /* fails if the program has ended */
}

/* Tells of each level of a lease's budget once. */
static void watch_lease_locked(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	struct ap_usage used;
	if (agent->gone || !machine_slot_leased(slot))
		return;
	unsigned percent = spending_percent_locked(agent, &used), before = agent->spent;
	agent->spent = spending_level(percent);
	if (agent->spent > before)
		note_budget_locked(pool, agent, percent, spending_budget_locked(agent), &used);
	if (agent->spent == SPENT_ALL)
		break_off_locked(agent, slot->token);
}

static void watch_day_locked(struct ap_pool *pool)
{
	struct ap_usage used;
	unsigned percent = spending_day_percent_locked(pool, &used), before = pool->spent;
	pool->spent = spending_level(percent);
	if (pool->spent > before)
		note_budget_locked(pool, NULL, percent, pool->config.number[AP_OPT_POOL_BUDGET],
				   &used);
	int64_t now = ap_clock_ns(), day_ns = 86400 * AP_SECOND;
	int64_t left = day_ns - ap_clock_to_wall(now) % day_ns;
	if (pool->spent > SPENT_LITTLE) /* the pool grants again on the next day */
		loop_set(pool->loop, &pool->day_ends, ap_clock_after(now, left));
	if ((pool->spent == SPENT_ALL) == pool->view->limits.spent)
		return;
	struct machine_limits limits = pool_limits(pool);
	pool_step_locked(pool, &(struct machine_event){.type = MACHINE_CONFIG, .limits = &limits});
}

static void watch(struct worker_once *once)
{
	struct ap_pool *pool = ap_container_of(once, struct ap_pool, budgets);
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		struct ap_agent *agent = pool->agents[i];
		if (agent && atomic_exchange(&agent->reported, false))
			watch_lease_locked(agent);
	}
	watch_day_locked(pool);
	pool_unlock(pool);
}

static void on_day_ends(struct loop_source *source)
{
	worker_once_ask(&ap_container_of(source, struct ap_pool, day_ends)->budgets);
}

int budgets_init(struct ap_pool *pool)
{
	worker_once_init(&pool->budgets, pool->workers, watch, NULL);
	return loop_add(pool->loop, &pool->day_ends, on_day_ends);
}
