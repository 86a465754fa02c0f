/* One table: a row is a family of metrics with the function that writes its samples. A value that
 * the pool does not know has no sample. Every sample has the pool's name as its first label. The
 * formats differ in the comments before a family and in the end, never in a sample. */
#include "openmetrics.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct page {
	const struct ap_metrics *m;
	const struct ap_agent_metrics *agents;
	const char *pool; /* escaped */
	const char *name; /* of the family that is being written */
	struct ap_buf *out;
};

static double seconds(int64_t ns)
{
	return (double)ns / (double)AP_SECOND;
}

/* Most values are whole, which ap_buf_add_number() writes in a fifth of the time. */
static void add_value(struct ap_buf *out, double value)
{
	if (value >= 0 && value < 1e15 && value == (double)(uint64_t)value)
		ap_buf_add_number(out, (uint64_t)value);
	else
		ap_buf_printf(out, "%.15g", value);
	ap_buf_adds(out, "\n");
}

/* One line. `suffix` and `label` are "" where there is none. */
static void sample(const struct page *page, const char *suffix, const char *label,
		   const char *label_value, double value)
{
	const char *const parts[] = {page->name,  suffix,
				     "{pool=\"",  page->pool,
				     "\"",	  *label ? "," : "",
				     label,	  *label ? "=\"" : "",
				     label_value, *label ? "\"} " : "} "};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		ap_buf_adds(page->out, parts[i]);
	add_value(page->out, value);
}

static void gauge(const struct page *page, double value)
{
	sample(page, "", "", "", value);
}

static void counter(const struct page *page, uint64_t value)
{
	sample(page, "_total", "", "", (double)value);
}

static void histogram(const struct page *page, enum counters_span span)
{
	const struct counters_histogram *h = &page->m->counts.spans[span];
	unsigned n;
	(void)counters_bounds(span, &n);
	uint64_t sum = 0;
	for (unsigned i = 0; i < n; i++) {
		sum += h->n[i];
		sample(page, "_bucket", "le", counters_bound_text(span, i), (double)sum);
	}
	sum += h->n[COUNTERS_BOUNDS];
	sample(page, "_bucket", "le", "+Inf", (double)sum);
	sample(page, "_count", "", "", (double)sum);
	sample(page, "_sum", "", "", seconds((int64_t)h->sum_ns));
}

/* --- the pool as a whole --- */

static void agents(const struct page *page)
{
	for (int i = AP_AGENT_FREE + 1; i < AP_N_SHOWN_STATES; i++)
		sample(page, "", "state", ap_agent_state_name((enum ap_agent_state)i),
		       page->m->n_in_state[i]);
}

static void agent_seconds(const struct page *page)
{
	for (int i = AP_AGENT_FREE + 1; i < AP_N_SHOWN_STATES; i++)
		sample(page, "_total", "state", ap_agent_state_name((enum ap_agent_state)i),
		       (double)page->m->counts.state_us[i] / 1e6);
}

static void agents_min(const struct page *page)
{
	gauge(page, page->m->min_size);
}

static void agents_max(const struct page *page)
{
	gauge(page, page->m->max_size);
}

static void agents_desired(const struct page *page)
{
	gauge(page, page->m->stats.n_desired);
}

static void max_reached(const struct page *page)
{
	counter(page, page->m->counts.n_at_max);
}

static void utilization(const struct page *page)
{
	gauge(page, page->m->stats.utilization / 100.0);
}

static void uptime(const struct page *page)
{
	gauge(page, seconds(page->m->stats.uptime_ns));
}

static void build(const struct page *page)
{
	sample(page, "_info", "version", AP_VERSION, 1);
}

/* --- leases --- */

static void waiters(const struct page *page)
{
	gauge(page, page->m->stats.n_waiting);
}

static void waiter_oldest(const struct page *page)
{
	gauge(page, seconds(page->m->oldest_waiter_ns));
}

static void requests(const struct page *page)
{
	counter(page, page->m->stats.n_requests);
}

static void acquire(const struct page *page)
{
	for (int i = 0; i < COUNTERS_N_ACQUIRES; i++)
		sample(page, "_total", "result", counters_acquire_name((enum counters_acquire)i),
		       (double)page->m->counts.acquires[i]);
}

static void acquire_wait(const struct page *page)
{
	histogram(page, COUNTERS_WAIT);
}

static void lease_duration(const struct page *page)
{
	histogram(page, COUNTERS_HOLD);
}

static void lease_expired(const struct page *page)
{
	counter(page, page->m->counts.n_expired);
}

static void releases(const struct page *page)
{
	for (int i = 0; i < COUNTERS_N_RELEASES; i++)
		sample(page, "_total", "result", counters_release_name((enum counters_release)i),
		       (double)page->m->counts.releases[i]);
}

/* --- agents that come and go --- */

static void spawns(const struct page *page)
{
	for (int i = 0; i < COUNTERS_N_OUTCOMES; i++)
		sample(page, "_total", "result", counters_outcome_name((enum counters_outcome)i),
		       (double)page->m->counts.spawns[i]);
}

static void spawn_duration(const struct page *page)
{
	histogram(page, COUNTERS_SPAWN);
}

/* Writes a sample for each reason of `always`, and for any other from its first count on. */
static void by_reason(const struct page *page, const uint64_t *counts, uint64_t always)
{
	_Static_assert(AP_N_REASONS <= 64, "a bit for every reason");
	for (int i = 0; i < AP_N_REASONS; i++) {
		if (counts[i] > 0 || always & (UINT64_C(1) << i))
			sample(page, "_total", "reason", ap_reason_name((enum ap_reason)i),
			       (double)counts[i]);
	}
}

#define BIT(reason) (UINT64_C(1) << AP_REASON_##reason)

static void terminations(const struct page *page)
{
	by_reason(page, page->m->counts.terminations,
		  BIT(UNHEALTHY) | BIT(EXITED) | BIT(FAILED) | BIT(TIMEOUT) | BIT(KILL) |
			  BIT(IDLE) | BIT(SCALE) | BIT(DRAIN) | BIT(RECYCLES) | BIT(SHUTDOWN));
}

static void recycles(const struct page *page)
{
	by_reason(page, page->m->counts.recycles,
		  BIT(ASKED) | BIT(REQUESTS) | BIT(AGE) | BIT(MEMORY) | BIT(CPU) | BIT(UNHEALTHY));
}

static void scale_events(const struct page *page)
{
	sample(page, "_total", "direction", "up", (double)page->m->n_scaled[AP_SCALE_UP]);
	sample(page, "_total", "direction", "down", (double)page->m->n_scaled[AP_SCALE_DOWN]);
}

static void last_scale_event(const struct page *page)
{
	if (page->m->stats.scaled_ns)
		gauge(page, seconds(ap_clock_to_wall(page->m->stats.scaled_ns)));
}

static void breaker_state(const struct page *page)
{
	static const char *const states[] = {"closed", "open", "half-open"}; /* as stats/breaker */
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		sample(page, "", page->name, states[i],
		       strcmp(page->m->stats.breaker, states[i]) == 0);
}

static void breaker_transitions(const struct page *page)
{
	counter(page, page->m->counts.n_breaker);
}

static void probe(const struct page *page)
{
	sample(page, "_total", "result", "ok", (double)page->m->counts.probes[0]);
	sample(page, "_total", "result", "unhealthy", (double)page->m->counts.probes[1]);
}

/* --- what leases left --- */

static void kept(const struct page *page)
{
	gauge(page, page->m->stats.n_kept);
}

static void kept_bytes(const struct page *page)
{
	gauge(page, (double)page->m->stats.kept_bytes);
}

static void trash_stuck(const struct page *page)
{
	gauge(page, page->m->stats.n_stuck);
}

/* --- each agent --- */

static void of_agent(const struct page *page, const struct ap_agent_metrics *agent,
		     const char *suffix, double value)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	ap_buf_printf(&name, "agent-%u", agent->number);
	sample(page, suffix, "agent", ap_buf_text(&name), value);
}

static void agent_memory(const struct page *page)
{
	for (unsigned i = 0; i < page->m->n_agents; i++) {
		if (page->agents[i].has_usage)
			of_agent(page, &page->agents[i], "", (double)page->agents[i].memory);
	}
}

static void agent_memory_max(const struct page *page)
{
	if (page->m->max_memory)
		gauge(page, (double)page->m->max_memory);
}

static void agent_cpu(const struct page *page)
{
	for (unsigned i = 0; i < page->m->n_agents; i++) {
		if (page->agents[i].has_usage)
			of_agent(page, &page->agents[i], "_total", seconds(page->agents[i].cpu_ns));
	}
}

static void agent_age(const struct page *page)
{
	for (unsigned i = 0; i < page->m->n_agents; i++)
		of_agent(page, &page->agents[i], "", seconds(page->agents[i].age_ns));
}

static void agent_requests(const struct page *page)
{
	for (unsigned i = 0; i < page->m->n_agents; i++)
		of_agent(page, &page->agents[i], "_total", (double)page->agents[i].n_requests);
}

static const struct {
	const char *direction;
	enum ap_usage_value value;
} directions[] = {
	{"input", AP_USAGE_INPUT},
	{"output", AP_USAGE_OUTPUT},
	{"cached", AP_USAGE_CACHED},
};

static void tokens(const struct page *page)
{
	for (size_t i = 0; i < sizeof directions / sizeof *directions; i++) {
		int64_t n = page->m->stats.used.at[directions[i].value];
		if (n >= 0)
			sample(page, "_total", "direction", directions[i].direction, (double)n);
	}
}

static void cost(const struct page *page)
{
	if (page->m->stats.used.at[AP_USAGE_COST] >= 0)
		sample(page, "_total", "", "",
		       ap_usage_dollars(page->m->stats.used.at[AP_USAGE_COST]));
}

static void agent_tokens_of(const struct page *page, const struct ap_agent_metrics *agent,
			    size_t direction)
{
	AP_CLEANUP_BUF struct ap_buf labels = {0};
	int64_t n = agent->used.at[directions[direction].value];
	if (n < 0)
		return;
	ap_buf_printf(&labels, "agent=\"agent-%u\",direction", agent->number);
	sample(page, "_total", ap_buf_text(&labels), directions[direction].direction, (double)n);
}

static void agent_tokens(const struct page *page)
{
	for (unsigned i = 0; i < page->m->n_agents; i++) {
		for (size_t j = 0; j < sizeof directions / sizeof *directions; j++)
			agent_tokens_of(page, &page->agents[i], j);
	}
}

static void agent_cost(const struct page *page)
{
	for (unsigned i = 0; i < page->m->n_agents; i++) {
		int64_t money = page->agents[i].used.at[AP_USAGE_COST];
		if (money >= 0)
			of_agent(page, &page->agents[i], "_total", ap_usage_dollars(money));
	}
}

/* --- the table --- */

struct family {
	const char *name, *type;
	const char *unit; /* "" without one; else the name ends in it */
	const char *help;
	void (*show)(const struct page *);
};

static const struct family families[] = {
	{"agentpool_build", "info", "", "Version of the daemon.", build},
	{"agentpool_uptime_seconds", "gauge", "seconds", "Since the mount.", uptime},
	{"agentpool_agents", "gauge", "", "Agents by state.", agents},
	{"agentpool_agents_min", "gauge", "", "Agents kept ready: min_pool_size.", agents_min},
	{"agentpool_agents_max", "gauge", "", "Never more: max_pool_size.", agents_max},
	{"agentpool_agents_desired", "gauge", "",
	 "Agents that there should be: by the policy, or as asked for.", agents_desired},
	{"agentpool_max_reached", "counter", "",
	 "Times that acquirers came to wait while there were max_pool_size agents.", max_reached},
	{"agentpool_utilization_ratio", "gauge", "ratio",
	 "Agents that serve a lease, of those that could.", utilization},
	{"agentpool_agent_seconds", "counter", "seconds", "Agents times their time in each state.",
	 agent_seconds},
	{"agentpool_waiters", "gauge", "", "Acquirers in the queue.", waiters},
	{"agentpool_waiter_oldest_seconds", "gauge", "seconds",
	 "How long the acquirer waits that waits longest; 0: none does.", waiter_oldest},
	{"agentpool_requests", "counter", "", "Leases granted since the pool began, over mounts.",
	 requests},
	{"agentpool_tokens", "counter", "",
	 "Tokens since the pool began, as far as programs say it: input that was read anew, "
	 "output, "
	 "and what was read from caches.",
	 tokens},
	{"agentpool_cost_usd", "counter", "usd", "What that has cost, likewise.", cost},
	{"agentpool_acquire", "counter", "",
	 "Acquirers by answer: hit is by an agent that was idle, spawned by a new one, handoff by "
	 "one that came back.",
	 acquire},
	{"agentpool_acquire_wait_seconds", "histogram", "seconds",
	 "Waits of acquirers who were granted a lease.", acquire_wait},
	{"agentpool_lease_duration_seconds", "histogram", "seconds",
	 "Leases that are over, from the grant until the work was saved.", lease_duration},
	{"agentpool_lease_expired", "counter", "", "Leases ended by their ttl.", lease_expired},
	{"agentpool_releases", "counter", "",
	 "Leases that are over by what their agent comes to: idle again, recycled, ended, or set "
	 "aside unsaved; and releases of one that was ending already (stale).",
	 releases},
	{"agentpool_spawns", "counter", "", "Agents made, and those that could not be.", spawns},
	{"agentpool_spawn_duration_seconds", "histogram", "seconds",
	 "Making of agents, until they were ready.", spawn_duration},
	{"agentpool_terminations", "counter", "", "Agents whose end has begun, by reason.",
	 terminations},
	{"agentpool_recycles", "counter", "", "Agents recycled, by reason.", recycles},
	{"agentpool_scale_events", "counter", "", "Steps in size.", scale_events},
	{"agentpool_last_scale_event_timestamp_seconds", "gauge", "seconds",
	 "When the pool last changed size.", last_scale_event},
	{"agentpool_breaker_state", "stateset", "", "Circuit breaker on spawning.", breaker_state},
	{"agentpool_breaker_transitions", "counter", "", "Changes of its state.",
	 breaker_transitions},
	{"agentpool_probe", "counter", "", "Looks at the health of agents.", probe},
	{"agentpool_kept", "gauge", "", "Leases of which what they left is kept.", kept},
	{"agentpool_kept_bytes", "gauge", "bytes", "What that takes, as far as it is counted.",
	 kept_bytes},
	{"agentpool_trash_stuck", "gauge", "",
	 "Things that are garbage and cannot be removed: events say which.", trash_stuck},
	{"agentpool_agent_memory_bytes", "gauge", "bytes",
	 "Memory of an agent's process tree, when it was last looked at.", agent_memory},
	{"agentpool_agent_memory_max_bytes", "gauge", "bytes",
	 "An agent that is over it three passes in a row is recycled: max_memory_mb.",
	 agent_memory_max},
	{"agentpool_agent_cpu_seconds", "counter", "seconds",
	 "CPU time of an agent's process tree, likewise.", agent_cpu},
	{"agentpool_agent_age_seconds", "gauge", "seconds", "Since the agent was made.", agent_age},
	{"agentpool_agent_requests", "counter", "", "Leases that the agent has served.",
	 agent_requests},
	{"agentpool_agent_tokens", "counter", "", "Tokens that the agent's programs have used.",
	 agent_tokens},
	{"agentpool_agent_cost_usd", "counter", "usd", "What that has cost.", agent_cost},
};

static bool is_utf8(const char *text)
{
	for (const unsigned char *at = (const unsigned char *)text; *at;) {
		unsigned n = *at < 0x80 ? 0 : *at >= 0xf0 ? 3 : *at >= 0xe0 ? 2 : 1;
		if ((*at >= 0x80 && *at < 0xc2) || *at > 0xf4)
			return false;
		for (at++; n > 0; n--, at++) {
			if ((*at & 0xc0) != 0x80)
				return false;
		}
	}
	return true;
}

/* The last part of a path, as the value of a label. */
static void add_pool_name(struct ap_buf *out, const char *path)
{
	const char *slash = strrchr(path, '/');
	bool utf8 = is_utf8(path);
	for (const char *at = slash && slash[1] ? slash + 1 : path; *at; at++) {
		if (*at == '\\' || *at == '"')
			ap_buf_printf(out, "\\%c", *at);
		else if (*at == '\n')
			ap_buf_adds(out, "\\n");
		else if ((*at & 0x80) && !utf8)
			ap_buf_adds(out, "?");
		else
			ap_buf_add(out, at, 1);
	}
}

/* The types that the older format names differently: it has fewer, and its comments have the name
 * of the samples. */
static const struct {
	const char *type, *older, *suffix;
} older_types[] = {
	{"counter", "counter", "_total"},
	{"info", "gauge", "_info"},
	{"stateset", "gauge", ""},
};

static void add_comments_older(const struct family *family, struct ap_buf *out)
{
	const char *type = family->type, *suffix = "";
	for (size_t i = 0; i < sizeof older_types / sizeof *older_types; i++) {
		if (strcmp(family->type, older_types[i].type) == 0) {
			type = older_types[i].older;
			suffix = older_types[i].suffix;
		}
	}
	ap_buf_printf(out, "# TYPE %s%s %s\n", family->name, suffix, type);
	ap_buf_printf(out, "# HELP %s%s %s\n", family->name, suffix, family->help);
}

static void add_comments(const struct family *family, struct ap_buf *out)
{
	ap_buf_printf(out, "# TYPE %s %s\n", family->name, family->type);
	if (*family->unit)
		ap_buf_printf(out, "# UNIT %s %s\n", family->name, family->unit);
	ap_buf_printf(out, "# HELP %s %s\n", family->name, family->help);
}

void openmetrics_show(const struct ap_metrics *metrics, const struct ap_agent_metrics *agent,
		      enum openmetrics_format format, struct ap_buf *out)
{
	bool older = format == OPENMETRICS_OLDER;
	AP_CLEANUP_BUF struct ap_buf pool = {0};
	add_pool_name(&pool, metrics->mountpoint);
	struct page page = {.m = metrics, .agents = agent, .pool = ap_buf_text(&pool), .out = out};
	for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
		const struct family *family = &families[i];
		page.name = family->name;
		(older ? add_comments_older : add_comments)(family, out);
		family->show(&page);
	}
	if (!older)
		ap_buf_adds(out, "# EOF\n");
	out->failed = out->failed || pool.failed;
}
