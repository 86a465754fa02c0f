/* What agents use: counts the reports of their programs for the lease, the agent, the pool and the
 * day, and holds that against budgets. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "jobs_internal.h"

#define WARN_AT 80 /* percent of a budget */

/* --- the counts: usage_lock held --- */

static const char *const counters[] = {
	[AP_USAGE_INPUT] = "input_tokens",
	[AP_USAGE_OUTPUT] = "output_tokens",
	[AP_USAGE_CACHED] = "cached_tokens",
	[AP_USAGE_COST] = "cost",
};
static const char *const counters_today[] = {
	[AP_USAGE_INPUT] = "input_tokens_today",
	[AP_USAGE_OUTPUT] = "output_tokens_today",
	[AP_USAGE_CACHED] = "cached_tokens_today",
	[AP_USAGE_COST] = "cost_today",
};

/* Days since 1970, UTC. */
static int64_t day_of(int64_t now_ns)
{
	return ap_clock_to_wall(now_ns) / AP_SECOND / 86400;
}

static void begin_day(struct ap_pool *pool)
{
	int64_t day = day_of(ap_clock_ns());
	if (day == pool->day)
		return;
	pool->day = day;
	pool->used_today = AP_USAGE_UNKNOWN;
}

/* What stands in records of a lease: "input_tokens 12 output_tokens 3". */
static void lease_line(const struct ap_agent *agent, char *ret, size_t size)
{
	struct ap_buf line = {0};
	ap_usage_format(&agent->account.lease, "", " ", " ", &line);
	snprintf(ret, size, "%.*s", (int)(line.len > 0 ? line.len - 1 : 0), ap_buf_text(&line));
	ap_buf_fini(&line);
}

/* Records all counts, in the order in which they are made: whichever of these transactions the
 * store gets last has them all. */
static void keep(const struct ap_agent *agent)
{
	const struct ap_pool *pool = agent->pool;
	struct store_txn *txn = store_txn_new();
	struct store_usage usage = {.token = agent->account_token};
	ap_account_format(&agent->account, usage.account);
	lease_line(agent, usage.line, sizeof usage.line);
	txn_usage(txn, agent->number, &usage);
	txn_set(txn, "day", pool->day);
	for (int i = 0; i < AP_N_COUNTERS; i++) {
		txn_set(txn, counters[i], pool->used.at[i]);
		txn_set(txn, counters_today[i], pool->used_today.at[i]);
	}
	store_submit(pool->store, txn, false, NULL, NULL);
}

/* --- budgets --- */

int64_t spending_budget_locked(const struct ap_agent *agent)
{
	return agent->budget >= 0 ? agent->budget : agent->pool->config.number[AP_OPT_BUDGET];
}

unsigned spending_percent_locked(struct ap_agent *agent, struct ap_usage *ret_used)
{
	pthread_mutex_lock(&agent->pool->usage_lock);
	*ret_used = agent->account.lease;
	pthread_mutex_unlock(&agent->pool->usage_lock);
	return ap_budget_percent(spending_budget_locked(agent), ret_used);
}

unsigned spending_day_percent_locked(struct ap_pool *pool, struct ap_usage *ret_used)
{
	pthread_mutex_lock(&pool->usage_lock);
	begin_day(pool);
	*ret_used = pool->used_today;
	pthread_mutex_unlock(&pool->usage_lock);
	return ap_budget_percent(pool->config.number[AP_OPT_POOL_BUDGET], ret_used);
}

uint8_t spending_level(unsigned percent)
{
	return percent >= 100 ? SPENT_ALL : percent >= WARN_AT ? SPENT_MOST : SPENT_LITTLE;
}

bool spending_is_over_locked(struct ap_pool *pool)
{
	struct ap_usage used;
	return spending_day_percent_locked(pool, &used) >= 100;
}

int spending_refused_locked(struct ap_agent *agent, struct ap_err *err)
{
	struct ap_usage used;
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	if (slot->state != AP_AGENT_ACTIVE || spending_percent_locked(agent, &used) < 100)
		return 0;
	struct ap_buf told = {0};
	ap_budget_tell(spending_budget_locked(agent), &used, &told);
	int r = ap_err_set(err, -EDQUOT, "the budget of %s is used up: %s", slot->label.text,
			   ap_buf_text(&told));
	ap_buf_fini(&told);
	return r;
}

/* --- reports --- */

void spending_report(struct ap_agent *agent, const struct ap_usage_report *report)
{
	struct ap_pool *pool = agent->pool;
	struct ap_usage added;
	pthread_mutex_lock(&pool->usage_lock);
	bool news = ap_account_count(&agent->account, report, &added);
	if (news) {
		added.at[AP_USAGE_CONTEXT_USED] = added.at[AP_USAGE_CONTEXT_SIZE] = -1;
		begin_day(pool);
		ap_usage_add(&pool->used, &added);
		ap_usage_add(&pool->used_today, &added);
		keep(agent);
	}
	pthread_mutex_unlock(&pool->usage_lock);
	if (!news)
		return;
	pool_changed(pool);
	atomic_store(&agent->reported, true);
	worker_once_ask(&pool->budgets);
}

/* --- its life --- */

void spending_init_agent(struct ap_agent *agent)
{
	ap_account_init(&agent->account);
	agent->budget = -1;
}

void spending_adopt(struct ap_agent *agent, const struct store_lease *lease)
{
	struct ap_pool *pool = agent->pool;
	struct store_usage usage;
	struct ap_usage used;
	int64_t budget;
	if (*lease->budget && ap_budget_parse(lease->budget, &budget, NULL) == 0)
		agent->budget = budget;
	if (!store_usage(pool->store, agent->number, &usage))
		usage = (struct store_usage){.token = 0};
	pthread_mutex_lock(&pool->usage_lock);
	if (ap_account_parse(usage.account, &agent->account) < 0)
		ap_account_init(&agent->account);
	if (usage.token != lease->token)
		ap_account_begin_lease(&agent->account);
	agent->account_token = lease->token;
	pthread_mutex_unlock(&pool->usage_lock);
	pthread_mutex_lock(&pool->lock);
	agent->spent = spending_level(spending_percent_locked(agent, &used)); /* told of then */
	pthread_mutex_unlock(&pool->lock);
}

void spending_begin_lease_locked(struct ap_agent *agent, uint64_t token, int64_t budget)
{
	agent->budget = budget;
	agent->spent = SPENT_LITTLE;
	pthread_mutex_lock(&agent->pool->usage_lock);
	if (agent->account_token != token)
		ap_account_begin_lease(&agent->account);
	agent->account_token = token;
	pthread_mutex_unlock(&agent->pool->usage_lock);
}

void spending_look_locked(const struct ap_agent *agent, struct ap_usage *ret_lease,
			  struct ap_usage *ret_life)
{
	pthread_mutex_lock(&agent->pool->usage_lock);
	*ret_lease = agent->account.lease;
	*ret_life = agent->account.life;
	ret_life->at[AP_USAGE_CONTEXT_USED] = ret_life->at[AP_USAGE_CONTEXT_SIZE] = -1;
	pthread_mutex_unlock(&agent->pool->usage_lock);
}

struct ap_usage spending_of_pool(struct ap_pool *pool)
{
	pthread_mutex_lock(&pool->usage_lock);
	struct ap_usage used = pool->used;
	pthread_mutex_unlock(&pool->usage_lock);
	return used;
}

void spending_line(struct ap_agent *agent, char *ret, size_t size)
{
	pthread_mutex_lock(&agent->pool->usage_lock);
	lease_line(agent, ret, size);
	pthread_mutex_unlock(&agent->pool->usage_lock);
}

void spending_open(struct ap_pool *pool)
{
	struct store *store = pool->store;
	pool->day = store_counter(store, "day", 0);
	for (int i = 0; i < AP_N_COUNTERS; i++) {
		pool->used.at[i] = store_counter(store, counters[i], -1);
		pool->used_today.at[i] = store_counter(store, counters_today[i], -1);
	}
	begin_day(pool);
}

void spending_init(struct ap_pool *pool)
{
	pthread_mutex_init(&pool->usage_lock, NULL);
	pool->used = pool->used_today = AP_USAGE_UNKNOWN;
}
