/* stats/: one value a file, from one look at the pool. A row says where in the look its value is,
 * and how it is printed. */
#include <inttypes.h>
#include <stddef.h>

#include "tree.h"

struct stat_value {
	void (*print)(const struct ap_metrics *look, const struct stat_value *value,
		      struct ap_buf *out);
	size_t at; /* of its field in the look */
	enum counters_span span;
	double part; /* quantile of the span, 0 to 1 */
};

static const void *field(const struct ap_metrics *look, const struct stat_value *value)
{
	return (const char *)look + value->at;
}

static void print_count(const struct ap_metrics *look, const struct stat_value *value,
			struct ap_buf *out)
{
	ap_buf_printf(out, "%u\n", *(const unsigned *)field(look, value));
}

static void print_total(const struct ap_metrics *look, const struct stat_value *value,
			struct ap_buf *out)
{
	ap_buf_printf(out, "%" PRIu64 "\n", *(const uint64_t *)field(look, value));
}

static void print_word(const struct ap_metrics *look, const struct stat_value *value,
		       struct ap_buf *out)
{
	ap_buf_printf(out, "%s\n", *(const char *const *)field(look, value));
}

static void print_direction(const struct ap_metrics *look, const struct stat_value *value,
			    struct ap_buf *out)
{
	const enum ap_scale_direction *direction = field(look, value);
	ap_buf_printf(out, "%s\n", ap_scale_direction_name(*direction));
}

static void print_date(const struct ap_metrics *look, const struct stat_value *value,
		       struct ap_buf *out)
{
	char when[32];
	int64_t at_ns = *(const int64_t *)field(look, value);
	if (at_ns == 0) /* never */
		return;
	ap_clock_rfc3339(at_ns, when, sizeof when);
	ap_buf_printf(out, "%s\n", when);
}

static void print_seconds(const struct ap_metrics *look, const struct stat_value *value,
			  struct ap_buf *out)
{
	const int64_t *ns = field(look, value);
	ap_buf_printf(out, "%.3f\n", (double)*ns / (double)AP_SECOND);
}

static void print_exact_seconds(const struct ap_metrics *look, const struct stat_value *value,
				struct ap_buf *out)
{
	const int64_t *ns = field(look, value);
	ap_buf_printf(out, "%.6f\n", (double)*ns / (double)AP_SECOND);
}

static void print_agent_seconds(const struct ap_metrics *look, const struct stat_value *value,
				struct ap_buf *out)
{
	const uint64_t *us = field(look, value);
	ap_buf_printf(out, "%.3f\n", (double)*us / 1e6);
}

static void print_quantile(const struct ap_metrics *look, const struct stat_value *value,
			   struct ap_buf *out)
{
	double ns = counters_quantile(&look->counts, value->span, value->part);
	if (ns >= 0) /* else there were none */
		ap_buf_printf(out, "%.6f\n", ns / (double)AP_SECOND);
}

static void print_tokens(const struct ap_metrics *look, const struct stat_value *value,
			 struct ap_buf *out)
{
	int64_t n = *(const int64_t *)field(look, value);
	if (n >= 0)
		ap_buf_printf(out, "%" PRId64 "\n", n);
}

static void print_money(const struct ap_metrics *look, const struct stat_value *value,
			struct ap_buf *out)
{
	char text[32];
	int64_t money = *(const int64_t *)field(look, value);
	if (money < 0)
		return;
	ap_usage_format_value(AP_USAGE_COST, money, text, sizeof text);
	ap_buf_printf(out, "%s\n", text);
}

static void print_cause(const struct ap_metrics *look, const struct stat_value *value,
			struct ap_buf *out)
{
	const struct ap_err *err = field(look, value);
	if (err->text[0])
		ap_buf_printf(out, "%s\n", err->text);
}

void tree_stats_value(const struct ap_metrics *metrics, unsigned i, struct ap_buf *out)
{
	const struct stat_value *value = tree_stats[i].stat_value;
	value->print(metrics, value, out);
}

static int show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_metrics look;
	ap_pool_metrics(call->pool, &look, NULL, 0);
	tree_stats_value(&look, call->index, out);
	return 0;
}

#define ROW(how, field, file, about)                                                               \
	.name = (file), .doc = (about), .show = show, .stat_value = &(const struct stat_value)     \
	{                                                                                          \
		.print = (how), .at = offsetof(struct ap_metrics, field)                           \
	}
#define VALUE(how, field, file, about)                                                             \
	{                                                                                          \
		ROW(how, field, file, about), .wakes = true                                        \
	}
/* A value that changes with time alone wakes nobody. */
#define SILENT(how, field, file, about)                                                            \
	{                                                                                          \
		ROW(how, field, file, about)                                                       \
	}
#define QUANTILE(of, q, file, about)                                                               \
	{                                                                                          \
		.name = (file), .doc = (about), .show = show, .wakes = true,                       \
		.stat_value = &(const struct stat_value){                                          \
			.print = print_quantile, .span = (of), .part = (q)},                       \
	}

const struct tree_row tree_stats[] = {
	VALUE(print_count, n_in_state[AP_AGENT_ACTIVE], "active_agents",
	      "agents that serve a lease"),
	VALUE(print_count, n_in_state[AP_AGENT_IDLE], "idle_agents",
	      "agents that wait for a lease"),
	VALUE(print_count, stats.n_total, "total_agents", "agents in any state"),
	VALUE(print_count, stats.n_desired, "desired_agents",
	      "agents wanted: by the policy, or by scale"),
	VALUE(print_count, n_in_state[AP_AGENT_SPAWNING], "spawning_agents", "agents being made"),
	VALUE(print_count, n_in_state[AP_AGENT_VALIDATING], "validating_agents",
	      "agents being made ready for a lease"),
	VALUE(print_count, n_in_state[AP_AGENT_RECYCLING], "recycling_agents",
	      "agents being recycled, or cleaned after a lease"),
	VALUE(print_count, n_in_state[AP_AGENT_UNHEALTHY], "unhealthy_agents",
	      "agents that failed a check, or hold work that could not be saved"),
	VALUE(print_count, n_in_state[AP_AGENT_DRAINING], "draining_agents",
	      "agents whose programs are asked to end"),
	VALUE(print_count, n_in_state[AP_AGENT_STOPPING], "stopping_agents",
	      "agents being removed"),
	VALUE(print_count, n_in_state[AP_AGENT_LOST], "lost_agents",
	      "agents whose host does not answer"),
	VALUE(print_count, stats.n_waiting, "waiting", "acquirers in the queue"),
	VALUE(print_count, stats.utilization, "utilization",
	      "percent of the agents able to serve that do"),
	VALUE(print_total, stats.n_requests, "total_requests",
	      "leases granted since the pool began"),
	VALUE(print_total, stats.n_recycles, "total_recycles",
	      "agents recycled since the pool began"),
	VALUE(print_total, stats.n_spawned, "spawned_agents", "agents made since the pool began"),
	VALUE(print_total, stats.n_terminated, "terminated_agents",
	      "agents ended since the pool began"),
	VALUE(print_tokens, stats.used.at[AP_USAGE_INPUT], "input_tokens",
	      "tokens that programs have read anew since the pool began; empty: none is known"),
	VALUE(print_tokens, stats.used.at[AP_USAGE_OUTPUT], "output_tokens",
	      "tokens that they have written"),
	VALUE(print_tokens, stats.used.at[AP_USAGE_CACHED], "cached_tokens",
	      "tokens that they have read from caches"),
	VALUE(print_money, stats.used.at[AP_USAGE_COST], "cost_usd",
	      "what that has cost, as far as programs say it"),
	VALUE(print_date, stats.scaled_ns, "last_scale_event",
	      "when the pool last changed size; empty: never"),
	VALUE(print_direction, stats.scale_direction, "scale_direction",
	      "direction of that change: UP, DOWN or NONE"),
	SILENT(print_seconds, stats.uptime_ns, "uptime", "seconds since the mount"),
	VALUE(print_word, stats.breaker, "breaker",
	      "circuit breaker on spawning: closed, open or half-open"),
	VALUE(print_cause, breaker_cause, "breaker_cause",
	      "why the last start failed; empty: it did not"),
	VALUE(print_word, stats.spawn_backend, "spawn_backend",
	      "how worktrees are made: overlay, btrfs, copy or git"),
	VALUE(print_word, stats.sandbox, "sandbox",
	      "whether programs are in a sandbox: no, yes, or yes, no network"),
	VALUE(print_count, stats.n_templates, "templates",
	      "checkouts that worktrees are made from"),
	SILENT(print_count, stats.n_files_done, "template_files_done",
	       "files written of the template that is being made"),
	SILENT(print_count, stats.n_files, "template_files",
	       "files that it will have; 0: none is being made"),
	VALUE(print_word, stats.git, "git",
	      "what reads and writes the repository: libgit2 or program"),
	VALUE(print_count, stats.n_kept, "kept", "ended leases whose work is kept"),
	VALUE(print_total, stats.kept_bytes, "kept_bytes",
	      "bytes of kept work that are counted so far"),
	VALUE(print_count, stats.n_stuck, "trash_stuck",
	      "pieces of garbage that cannot be removed; events say which"),
	VALUE(print_word, stats.cgroup, "cgroup",
	      "control groups of agents: v2 and its controllers, or none"),
	SILENT(print_exact_seconds, oldest_waiter_ns, "oldest_waiter",
	       "seconds that the oldest acquirer in the queue has waited"),
	QUANTILE(COUNTERS_WAIT, 0.50, "wait_p50",
		 "seconds that half of the acquirers waited at most"),
	QUANTILE(COUNTERS_WAIT, 0.95, "wait_p95", "seconds that 95 percent of them waited at most"),
	QUANTILE(COUNTERS_WAIT, 0.99, "wait_p99", "seconds that 99 percent of them waited at most"),
	QUANTILE(COUNTERS_HOLD, 0.50, "hold_p50",
		 "seconds that half of the leases were held at most"),
	QUANTILE(COUNTERS_HOLD, 0.95, "hold_p95",
		 "seconds that 95 percent of them were held at most"),
	QUANTILE(COUNTERS_HOLD, 0.99, "hold_p99",
		 "seconds that 99 percent of them were held at most"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_SPAWNING], "spawning_seconds",
	       "seconds that agents were spawning since the mount, of all together"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_IDLE], "idle_seconds",
	       "seconds that they were idle"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_VALIDATING], "validating_seconds",
	       "seconds that they were validating"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_ACTIVE], "active_seconds",
	       "seconds that they were active"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_RECYCLING], "recycling_seconds",
	       "seconds that they were recycling"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_UNHEALTHY], "unhealthy_seconds",
	       "seconds that they were unhealthy"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_DRAINING], "draining_seconds",
	       "seconds that they were draining"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_STOPPING], "stopping_seconds",
	       "seconds that they were stopping"),
	SILENT(print_agent_seconds, counts.state_us[AP_AGENT_LOST], "lost_seconds",
	       "seconds that they were lost"),
	{0},
};
