/* The root of the mount: README, control files, status. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "control.h"
#include "last_error.h"
#include "openmetrics.h"
#include "status.h"
#include "tree.h"

static const char readme[] =
	"A pool of agents: terminal programs, each in a git worktree of its own.\n"
	"\n"
	"    echo fix-auth > acquire            lease an agent; waits until one is free\n"
	"    cd leases/fix-auth\n"
	"    echo \"Fix the flaky test\" > prompt  give it work\n"
	"    cat wait                           returns when it is done\n"
	"    cat screen output diff             look at what it did\n"
	"    cd ../.. && echo fix-auth > release   the work is on branch agentpool/fix-auth\n"
	"\n"
	"acquire      [LABEL] [timeout=30s] [ttl=1h] [pid=N] [agent=NAME] [affinity=KEY] "
	"[base=REF]\n"
	"             [permission=ask|allow|reject|allow:KIND,KIND];\n"
	"             timeout=0 tries once; the lease ends by itself with ttl, or with process "
	"pid\n"
	"release      LABEL|NAME [discard]; rm leases/LABEL does the same and does not wait\n"
	"scale        N, +N, -N or auto\n"
	"ctl          warm, drain, save, load, maintain, close, open, reset-breaker,\n"
	"             restore LABEL@TOKEN AS-LABEL\n"
	"status       a table of the agents; status.json for programs, status.html for a browser\n"
	"last_error   why your last write was refused\n"
	"metrics      OpenMetrics text; metrics.prom the same for node_exporter\n"
	"events       what happened, as JSON; grows. follow: the same as a stream, not listed\n"
	"stats/       one value a file               config/     one value a file, writable\n"
	"agents/NAME/ state activity why lease owner prompt keys screen output diff ctl ...;\n"
	"             sh attach is its terminal in yours, sh attach -r to look on (C-b d leaves);\n"
	"             wait and response, which a walk over the tree does not meet, are not listed\n"
	"leases/LABEL a link to the lease's agent\n"
	"kept/        what leases left, whole, for a while: LABEL@TOKEN/info size files; restore\n"
	"             in ctl makes a lease of it\n"
	"\n"
	"poll (POLLPRI) and select (exceptions) on a value of stats/ or agents/NAME/ wake when it "
	"changes.\n"
	"\n"
	"A lease that ends with its holder, however that dies:\n"
	"\n"
	"    exec 3<>acquire; echo timeout=1m >&3; read -r agent label <&3\n"
	"    ...\n"
	"    exec 3>&-\n"
	"\n"
	"Every file is described in agentpoolfs(5).\n";

static int readme_show(const struct tree_call *call, struct ap_buf *out)
{
	(void)call;
	ap_buf_adds(out, readme);
	return 0;
}

static int acquire_show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_stats stats;
	ap_pool_stats(call->pool, &stats);
	ap_buf_printf(out,
		      "write: [LABEL] [timeout=DUR] [ttl=DUR] [pid=N] [agent=NAME] [affinity=KEY] "
		      "[base=REF] [permission=WORD] [budget=WORD]\n"
		      "%u waiting\n",
		      stats.n_waiting);
	return 0;
}

static int scale_show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_stats stats;
	ap_pool_stats(call->pool, &stats);
	ap_buf_printf(out, "%s %u\n", stats.target >= 0 ? "manual" : "auto",
		      stats.target >= 0 ? (unsigned)stats.target : stats.n_total);
	return 0;
}

static int run_warm(const struct tree_call *call)
{
	ap_pool_warm(call->pool);
	return 0;
}

static int run_drain(const struct tree_call *call)
{
	ap_pool_drain(call->pool);
	return 0;
}

static int submit_save(const struct tree_call *call, const char *words, struct ap_request *request)
{
	return ap_pool_save(call->pool, request, call->err);
}

static int submit_load(const struct tree_call *call, const char *words, struct ap_request *request)
{
	return ap_pool_load(call->pool, request, call->err);
}

static int run_maintain(const struct tree_call *call)
{
	ap_pool_maintain(call->pool);
	return 0;
}

static int run_close(const struct tree_call *call)
{
	ap_pool_close(call->pool);
	return 0;
}

static int run_open(const struct tree_call *call)
{
	return ap_pool_open(call->pool, call->err);
}

static int run_reset_breaker(const struct tree_call *call)
{
	ap_pool_reset_breaker(call->pool);
	return 0;
}

static int submit_restore(const struct tree_call *call, const char *words,
			  struct ap_request *request)
{
	struct ap_acquire acquire = {
		.timeout_ns = -1,
		.ttl_ns = -1,
		.permission = -1,
		.budget = -1,
		.uid = call->uid,
		.pid = call->tid,
	};
	size_t n = strcspn(words, " \t");
	AP_CLEANUP_FREE char *name = strndup(words, n);
	const char *label = words + n + strspn(words + n, " \t");
	size_t len = strcspn(label, " \t");
	if (!name)
		return -ENOMEM;
	if (len == 0 || label[len + strspn(label + len, " \t")])
		return ap_err_set(call->err, -EINVAL, "write restore LABEL@TOKEN AS-LABEL");
	if (len < sizeof acquire.label)
		memcpy(acquire.label, label, len);
	if (!ap_label_valid(acquire.label))
		return ap_err_set(
			call->err, -EINVAL,
			"'%.80s' is not a valid label: letters, digits, '.', '_' and '-', 64 at "
			"most",
			label);
	return ap_pool_restore(call->pool, name, &acquire, request, call->err);
}

static const struct control_command commands[] = {
	{"warm", "make agents up to min_pool_size now", .run = run_warm},
	{"drain", "retire idle agents down to min_pool_size now", .run = run_drain},
	{"save", "write settings and counters to the state store now", .submit = submit_save},
	{"load", "make the settings of the state store effective now", .submit = submit_load},
	{"maintain", "one maintenance pass now", .run = run_maintain},
	{"close", "grant nothing more", .run = run_close},
	{"open", "grant again", .run = run_open},
	{"restore", "make a lease of what another one left", .submit = submit_restore,
	 .takes = "LABEL@TOKEN AS-LABEL"},
	{"reset-breaker", "spawn again, whatever failed before", .run = run_reset_breaker},
	{0},
};

static int ctl_submit(const struct tree_call *call, char *line, struct ap_request *request)
{
	return control_run(commands, call, line, request);
}

static int last_error(const struct tree_call *call, struct ap_buf *out)
{
	last_error_show(call->uid, out);
	return 0;
}

static int64_t events_length(const struct tree_call *call)
{
	return ap_pool_events_size(call->pool);
}

static int events_settle(const struct tree_call *call, struct ap_request *request)
{
	return ap_pool_events_settle(call->pool, request, call->err);
}

static int events_piece(const struct tree_call *call, int64_t offset, size_t size,
			struct ap_request *request)
{
	return ap_pool_read_kept(call->pool, NULL, AP_KEPT_EVENTS, offset, size, request,
				 call->err);
}

static int fetch_look(const struct tree_call *call, struct ap_request *request)
{
	ap_pool_look(call->pool, request);
	return 0;
}

static int status_show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_overview overview;
	int r = ap_pool_overview(call->pool, &overview);
	if (r < 0)
		return r;
	status_table(&overview, out);
	ap_overview_fini(&overview);
	return 0;
}

/* A text that is costly to make and read often. It is made again when it is older than lasts_ns;
 * one that is always new, also when anything has changed. */
struct made {
	int (*make)(const struct ap_overview *, const struct tree_call *, struct ap_buf *out);
	int64_t lasts_ns;
	bool is_always_new;
	pthread_mutex_t lock; /* of what follows */
	struct ap_buf text;
	int64_t made_ns;
	uint64_t changes; /* ap_pool_changes() at that time */
};

static int make_locked(struct made *made, const struct tree_call *call)
{
	struct ap_overview overview;
	ap_buf_fini(&made->text);
	made->changes = ap_pool_changes(call->pool);
	made->made_ns = ap_clock_ns();
	int r = ap_pool_overview(call->pool, &overview);
	if (r == 0)
		r = made->make(&overview, call, &made->text);
	ap_overview_fini(&overview);
	if (r == 0 && made->text.failed)
		r = -ENOMEM;
	if (r < 0)
		ap_buf_fini(&made->text);
	return r;
}

static int show_made(struct made *made, const struct tree_call *call, struct ap_buf *out)
{
	pthread_mutex_lock(&made->lock);
	bool is_old = ap_clock_ns() - made->made_ns >= made->lasts_ns ||
		      (made->is_always_new && ap_pool_changes(call->pool) != made->changes);
	int r = made->text.len == 0 || is_old ? make_locked(made, call) : 0;
	if (r == 0)
		ap_buf_add(out, made->text.data, made->text.len);
	pthread_mutex_unlock(&made->lock);
	return r;
}

static int make_json(const struct ap_overview *overview, const struct tree_call *call,
		     struct ap_buf *out)
{
	(void)call;
	return status_json(overview, out);
}

static int status_json_show(const struct tree_call *call, struct ap_buf *out)
{
	static struct made made = {.make = make_json,
				   .lasts_ns = 100 * AP_MS,
				   .is_always_new = true,
				   .lock = PTHREAD_MUTEX_INITIALIZER};
	return show_made(&made, call, out);
}

static int make_page(const struct ap_overview *overview, const struct tree_call *call,
		     struct ap_buf *out)
{
	return status_page(overview, ap_pool_hard_cap(call->pool), out);
}

static int status_page_show(const struct tree_call *call, struct ap_buf *out)
{
	static struct made made = {
		.make = make_page, .lasts_ns = 200 * AP_MS, .lock = PTHREAD_MUTEX_INITIALIZER};
	return show_made(&made, call, out);
}

static int64_t status_page_length(const struct tree_call *call)
{
	return (int64_t)status_page_size(ap_pool_hard_cap(call->pool));
}

static int metrics_in(enum openmetrics_format format, const struct tree_call *call,
		      struct ap_buf *out)
{
	struct ap_metrics look;
	unsigned max = ap_pool_hard_cap(call->pool);
	struct ap_agent_metrics *agents = calloc(max, sizeof *agents);
	if (!agents)
		return -ENOMEM;
	ap_pool_metrics(call->pool, &look, agents, max);
	openmetrics_show(&look, agents, format, out);
	free(agents);
	return 0;
}

static int metrics(const struct tree_call *call, struct ap_buf *out)
{
	return metrics_in(OPENMETRICS, call, out);
}

static int metrics_prom(const struct tree_call *call, struct ap_buf *out)
{
	return metrics_in(OPENMETRICS_OLDER, call, out);
}

const struct tree_row tree_root[] = {
	{"README", "this tree and its idioms on one screen", .show = readme_show},
	{"acquire",
	 "lease an agent: [LABEL] [timeout=DUR] [ttl=DUR] [pid=N] [agent=NAME] [affinity=KEY] "
	 "[base=REF] [permission=WORD] [budget=WORD]",
	 .show = acquire_show, .submit = control_acquire, .writer = TREE_WRITER_ANYONE,
	 .fresh = true, .holds = true},
	{"release", "end a lease, its work saved: LABEL|NAME [discard]", .submit = control_release,
	 .writer = TREE_WRITER_ANYONE, .fresh = true},
	{"scale", "size of the pool: N, +N, -N or auto", .show = scale_show,
	 .submit = control_scale, .fresh = true},
	{"ctl",
	 "warm, drain, save, load, maintain, close, open, reset-breaker, restore LABEL@TOKEN "
	 "AS-LABEL",
	 .submit = ctl_submit, .fresh = true},
	{"status", "a table for people", .fetch = fetch_look, .show = status_show},
	{"status.json", "the same for programs: one JSON object", .fetch = fetch_look,
	 .show = status_json_show},
	{"status.html", "the same as a page that shows itself again every second",
	 .fetch = fetch_look, .show = status_page_show, .size = status_page_length},
	{"metrics", "numbers for Prometheus and the like: OpenMetrics text", .show = metrics},
	{"metrics.prom", "the same in Prometheus's older text format", .show = metrics_prom},
	{"events", "what happened, one JSON object a line; grows", .fetch = events_settle,
	 .size = events_length, .read = events_piece},
	{"follow", "the same from now on; a read waits for the next", .follow = true,
	 .unlisted = true},
	{".git",
	 "cannot be opened: git takes the mount for a repository of another's and stays out",
	 .unlisted = true},
	{"last_error", "why your last refused write was refused", .show = last_error},
	{"stats", "one value a file", .is_dir = true, .subdir = NODE_STATS},
	{"config", "one value a file, writable", .is_dir = true, .subdir = NODE_CONFIG},
	{"agents", "one directory an agent", .is_dir = true, .subdir = NODE_AGENTS},
	{"kept", "one directory for what each lease left, for a while", .is_dir = true,
	 .subdir = NODE_KEPT},
	{"leases", "one link a lease", .is_dir = true, .subdir = NODE_LEASES},
	{0},
};
