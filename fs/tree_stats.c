/* stats/: one value a file. */
#include <inttypes.h>

#include "tree.h"

static int show(const struct tree_call *call, struct ap_buf *out);

enum {
	ACTIVE_AGENTS,
	IDLE_AGENTS,
	TOTAL_AGENTS,
	SPAWNING_AGENTS,
	WAITING,
	UTILIZATION,
	TOTAL_REQUESTS,
	TOTAL_RECYCLES,
	SPAWNED_AGENTS,
	TERMINATED_AGENTS,
	LAST_SCALE_EVENT,
	SCALE_DIRECTION,
	UPTIME,
	BREAKER,
	SPAWN_BACKEND,
	TEMPLATES,
	CGROUP,
	OLDEST_WAITER,
	WAIT_P50,
	WAIT_P95,
	WAIT_P99,
	HOLD_P50,
	HOLD_P95,
	HOLD_P99,
	N_STATS,
};

#define ROW(index, text, about) [index] = {.name = (text), .doc = (about), .show = show}

const struct tree_row tree_stats[N_STATS + 1] = {
	ROW(ACTIVE_AGENTS, "active_agents", "agents that serve a lease"),
	ROW(IDLE_AGENTS, "idle_agents", "agents that wait for a lease"),
	ROW(TOTAL_AGENTS, "total_agents", "agents in any state"),
	ROW(SPAWNING_AGENTS, "spawning_agents", "agents being made"),
	ROW(WAITING, "waiting", "acquirers in the queue"),
	ROW(UTILIZATION, "utilization", "percent of the agents that serve, of those that could"),
	ROW(TOTAL_REQUESTS, "total_requests", "leases granted since the pool began"),
	ROW(TOTAL_RECYCLES, "total_recycles", "agents recycled since the pool began"),
	ROW(SPAWNED_AGENTS, "spawned_agents", "agents made since the pool began"),
	ROW(TERMINATED_AGENTS, "terminated_agents", "agents ended since the pool began"),
	ROW(LAST_SCALE_EVENT, "last_scale_event", "when the pool last changed size; empty: never"),
	ROW(SCALE_DIRECTION, "scale_direction", "of that step: UP, DOWN or NONE"),
	ROW(UPTIME, "uptime", "seconds since the mount"),
	ROW(BREAKER, "breaker", "circuit breaker on spawning: closed, open or half-open"),
	ROW(SPAWN_BACKEND, "spawn_backend", "how worktrees are made: overlay, btrfs, copy or git"),
	ROW(TEMPLATES, "templates", "checkouts that worktrees are made from"),
	ROW(CGROUP, "cgroup", "control groups of agents: v2 and its controllers, or none"),
	ROW(OLDEST_WAITER, "oldest_waiter", "seconds that the oldest acquirer of the queue waits"),
	ROW(WAIT_P50, "wait_p50", "seconds that half of the acquirers waited at most"),
	ROW(WAIT_P95, "wait_p95", "seconds that 95 percent of them waited at most"),
	ROW(WAIT_P99, "wait_p99", "seconds that 99 percent of them waited at most"),
	ROW(HOLD_P50, "hold_p50", "seconds that half of the leases were held at most"),
	ROW(HOLD_P95, "hold_p95", "seconds that 95 percent of them were held at most"),
	ROW(HOLD_P99, "hold_p99", "seconds that 99 percent of them were held at most"),
};

static void add_seconds(struct ap_buf *out, double ns)
{
	ap_buf_printf(out, "%.6f\n", ns / (double)AP_SECOND);
}

static void add_quantile(const struct ap_metrics *metrics, enum metrics_span span, double part,
			 struct ap_buf *out)
{
	double ns = metrics_quantile(&metrics->counts, span, part);
	if (ns >= 0) /* else there were none */
		add_seconds(out, ns);
}

void tree_stats_value(const struct ap_metrics *metrics, unsigned i, struct ap_buf *out)
{
	const struct ap_stats s = metrics->stats;
	char when[32];
	switch (i) {
	case ACTIVE_AGENTS:
		ap_buf_printf(out, "%u\n", s.n_active);
		break;
	case IDLE_AGENTS:
		ap_buf_printf(out, "%u\n", s.n_idle);
		break;
	case TOTAL_AGENTS:
		ap_buf_printf(out, "%u\n", s.n_total);
		break;
	case SPAWNING_AGENTS:
		ap_buf_printf(out, "%u\n", s.n_spawning);
		break;
	case WAITING:
		ap_buf_printf(out, "%u\n", s.n_waiting);
		break;
	case UTILIZATION:
		ap_buf_printf(out, "%u\n", s.utilization);
		break;
	case TOTAL_REQUESTS:
		ap_buf_printf(out, "%" PRIu64 "\n", s.n_requests);
		break;
	case TOTAL_RECYCLES:
		ap_buf_printf(out, "%" PRIu64 "\n", s.n_recycles);
		break;
	case SPAWNED_AGENTS:
		ap_buf_printf(out, "%" PRIu64 "\n", s.n_spawned);
		break;
	case TERMINATED_AGENTS:
		ap_buf_printf(out, "%" PRIu64 "\n", s.n_terminated);
		break;
	case LAST_SCALE_EVENT:
		if (s.scaled_ns) {
			ap_clock_rfc3339(s.scaled_ns, when, sizeof when);
			ap_buf_printf(out, "%s\n", when);
		}
		break;
	case SCALE_DIRECTION:
		ap_buf_printf(out, "%s\n", ap_scale_direction_name(s.scale_direction));
		break;
	case UPTIME:
		ap_buf_printf(out, "%.3f\n", (double)s.uptime_ns / (double)AP_SECOND);
		break;
	case BREAKER:
		ap_buf_printf(out, "%s\n", s.breaker);
		break;
	case SPAWN_BACKEND:
		ap_buf_printf(out, "%s\n", s.spawn_backend);
		break;
	case TEMPLATES:
		ap_buf_printf(out, "%u\n", s.n_templates);
		break;
	case CGROUP:
		ap_buf_printf(out, "%s\n", s.cgroup);
		break;
	case OLDEST_WAITER:
		add_seconds(out, (double)metrics->oldest_waiter_ns);
		break;
	case WAIT_P50:
		add_quantile(metrics, METRICS_WAIT, 0.50, out);
		break;
	case WAIT_P95:
		add_quantile(metrics, METRICS_WAIT, 0.95, out);
		break;
	case WAIT_P99:
		add_quantile(metrics, METRICS_WAIT, 0.99, out);
		break;
	case HOLD_P50:
		add_quantile(metrics, METRICS_HOLD, 0.50, out);
		break;
	case HOLD_P95:
		add_quantile(metrics, METRICS_HOLD, 0.95, out);
		break;
	case HOLD_P99:
		add_quantile(metrics, METRICS_HOLD, 0.99, out);
		break;
	}
}

static int show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_metrics metrics;
	ap_pool_metrics(call->pool, &metrics, NULL, 0);
	tree_stats_value(&metrics, call->index, out);
	return 0;
}
