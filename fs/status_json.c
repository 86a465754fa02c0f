#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "status.h"
#include "status_html.h"
#include "tree.h"
#include "when.h"

/* How much of an overview to show. */
struct detail {
	size_t path_len;  /* of the mount point and the repository, at most */
	bool lists;	  /* of agents and waiters; else they are empty */
	unsigned n_lines; /* of a screen, the last ones */
};

#define FORMAT (JSON_COMPACT | JSON_REAL_PRECISION(15))

static const struct detail whole = {.path_len = SIZE_MAX, .lists = true, .n_lines = UINT32_MAX};

/* A part was lost to ENOMEM since add_json() began: the rest would not be what the schema says. */
static bool lost;

static void set(json_t *object, const char *name, json_t *value)
{
	lost = json_object_set_new(object, name, value) < 0 || lost;
}

static void append(json_t *array, json_t *value)
{
	lost = json_array_append_new(array, value) < 0 || lost;
}

static json_t *seconds(int64_t ns)
{
	return json_real((double)(ns / 1000) / 1e6);
}

static json_t *rounded(double value, int digits)
{
	double tens = pow(10, digits);
	return json_real(round(value * tens) / tens);
}

/* What a program or user wrote, made fit to show; null if it is empty. */
static json_t *text_of(const char *text, size_t len)
{
	AP_CLEANUP_BUF struct ap_buf tame = {0};
	ap_buf_add(&tame, text, len);
	lost = lost || tame.failed;
	if (len == 0 || tame.failed)
		return json_null();
	ap_text_tame(tame.data);
	return json_string(tame.data);
}

static json_t *text(const char *text)
{
	return text_of(text, strlen(text));
}

static json_t *date(int64_t at_ns)
{
	char when[32];
	if (!at_ns)
		return json_null();
	ap_clock_rfc3339(at_ns, when, sizeof when);
	return json_string(when);
}

/* The last lines of a screen, without the blanks at their ends. */
static json_t *screen_lines(const char *screen, unsigned n_most)
{
	json_t *lines = json_array();
	const char *at = screen + strlen(screen);
	for (unsigned n = 0; n < n_most && at > screen; n++) {
		const char *end = at[-1] == '\n' ? at - 1 : at;
		const char *start = end;
		while (start > screen && start[-1] != '\n')
			start--;
		at = start;
		while (end > start && end[-1] == ' ')
			end--;
		json_t *line =
			end > start ? text_of(start, (size_t)(end - start)) : json_string("");
		lost = json_array_insert_new(lines, 0, line) < 0 || lost;
	}
	return lines;
}

#define REQUEST_LINES 40

/* The first lines of what a program asks; null: it asks nothing. */
static json_t *request_lines(const char *request, unsigned n_most)
{
	json_t *lines = json_array();
	for (unsigned n = 0; request && *request && n < n_most; n++) {
		size_t len = strcspn(request, "\n");
		append(lines, len > 0 ? text_of(request, len) : json_string(""));
		request += len + (request[len] == '\n');
	}
	if (json_array_size(lines) > 0)
		return lines;
	json_decref(lines);
	return json_null();
}

static json_t *number_or_null(bool known, json_t *number)
{
	if (known)
		return number;
	json_decref(number);
	return json_null();
}

/* What is known of it, by the names of the file `usage`. */
static json_t *usage_of(const struct ap_usage *usage)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	ap_usage_json(usage, &line);
	json_t *object = json_loads(ap_buf_text(&line), 0, NULL);
	return object ? object : json_object();
}

static json_t *lease_of(const struct ap_agent_info *a)
{
	json_t *lease = json_object();
	char permission[AP_PERMISSION_MAX], budget[AP_BUDGET_MAX];
	if (!a->label[0]) {
		json_decref(lease);
		return json_null();
	}
	set(lease, "label", text(a->label));
	set(lease, "uid", json_integer(a->owner_uid));
	set(lease, "pid", json_integer(a->owner_pid));
	set(lease, "granted", date(a->granted_ns));
	set(lease, "expires", date(a->expires_ns));
	set(lease, "token", json_integer((json_int_t)a->token));
	set(lease, "branch", text(a->branch));
	set(lease, "base", text(a->base));
	ap_permission_format(a->permission, permission, sizeof permission);
	set(lease, "permission", text(permission));
	ap_budget_format(a->budget, budget, sizeof budget);
	set(lease, "budget", text(budget));
	set(lease, "usage", usage_of(&a->used));
	return lease;
}

static json_t *agent_of(const struct ap_agent_overview *agent, int64_t now, unsigned n_lines)
{
	const struct ap_agent_info *a = &agent->info;
	json_t *o = json_object();
	AP_CLEANUP_BUF struct ap_buf exit_status = {0};
	ap_agent_exit_status(a, &exit_status);
	set(o, "name", text(a->name));
	set(o, "state", text(ap_agent_state_name(a->state)));
	set(o, "activity", text(ap_activity_name(a->activity)));
	set(o, "why", text(a->why));
	char until[32] = "";
	if (a->until_s)
		when_format(a->until_s, until, sizeof until);
	set(o, "until", text(until));
	set(o, "lease", lease_of(a));
	set(o, "created", date(a->created_ns));
	set(o, "age", seconds(now - a->created_ns));
	set(o, "idle_time", seconds(a->idle_since_ns ? now - a->idle_since_ns : 0));
	set(o, "requests", json_integer(a->n_requests));
	set(o, "prompts", json_integer((json_int_t)a->n_prompts));
	set(o, "recycles", json_integer(a->n_recycles));
	set(o, "generation", json_integer(a->generation));
	set(o, "usage", usage_of(&a->used_ever));
	set(o, "pid", number_or_null(a->pid != 0, json_integer(a->pid)));
	set(o, "memory", number_or_null(agent->has_usage, json_integer((json_int_t)agent->memory)));
	set(o, "cpu", number_or_null(agent->has_usage, rounded(agent->cpu_percent, 1)));
	set(o, "tasks", number_or_null(agent->has_usage, json_integer(agent->n_tasks)));
	set(o, "worktree", text(a->worktree));
	set(o, "exit_status", text(ap_buf_text(&exit_status)));
	/* what is asked goes before what is shown */
	set(o, "request", request_lines(agent->request, n_lines > 0 ? REQUEST_LINES : 0));
	set(o, "screen", agent->screen ? screen_lines(agent->screen, n_lines) : json_null());
	return o;
}

static json_t *agents_of(const struct ap_overview *overview, struct detail detail)
{
	json_t *agents = json_array();
	for (unsigned i = 0; detail.lists && i < overview->n_agents; i++)
		append(agents, agent_of(&overview->agents[i], overview->at_ns, detail.n_lines));
	return agents;
}

static json_t *waiters_of(const struct ap_overview *overview, struct detail detail)
{
	json_t *waiters = json_array();
	for (unsigned i = 0; detail.lists && i < overview->n_waiters; i++) {
		const struct ap_waiter_overview *waiter = &overview->waiters[i];
		json_t *o = json_object();
		set(o, "label", text(waiter->label));
		set(o, "uid", json_integer(waiter->uid));
		set(o, "pid", json_integer(waiter->pid));
		set(o, "waited", seconds(overview->at_ns - waiter->asked_ns));
		append(waiters, o);
	}
	return waiters;
}

/* --- the last hour: a row is a series --- */

static json_t *mean_agents(const struct history_interval *in)
{
	return rounded(history_mean(in, in->agents_us), 2);
}

static json_t *mean_active(const struct history_interval *in)
{
	return rounded(history_mean(in, in->active_us), 2);
}

static json_t *utilization(const struct history_interval *in)
{
	int percent = history_utilization(in);
	return percent < 0 ? json_null() : json_integer(percent);
}

static json_t *most_waiting(const struct history_interval *in)
{
	return json_integer(in->most_waiting);
}

static json_t *longest_wait(const struct history_interval *in)
{
	return rounded((double)in->longest_wait_ns / (double)AP_SECOND, 3);
}

static json_t *granted(const struct history_interval *in)
{
	return json_integer(in->n_grants);
}

static json_t *history_of(const struct history *history)
{
	static const struct {
		const char *name;
		json_t *(*value)(const struct history_interval *);
	} series[] = {
		{"agents", mean_agents},	{"active", mean_active},
		{"utilization", utilization},	{"waiting", most_waiting},
		{"longest_wait", longest_wait}, {"granted", granted},
	};
	json_t *object = json_object();
	set(object, "interval", json_integer(HISTORY_INTERVAL_NS / AP_SECOND));
	for (size_t k = 0; k < sizeof series / sizeof *series; k++) {
		json_t *values = json_array();
		for (unsigned i = 0; i < history->n; i++)
			append(values, series[k].value(history_get(history, i)));
		set(object, series[k].name, values);
	}
	return object;
}

#define HISTORY_LASTS AP_SECOND

/* A thousand numbers: made once a second at most. NULL on ENOMEM. */
static const char *history_json(const struct ap_overview *overview)
{
	static char *made;
	static int64_t made_ns;
	if (made && overview->at_ns - made_ns < HISTORY_LASTS)
		return made;
	json_t *history = history_of(&overview->history);
	free(made);
	made = lost ? NULL : json_dumps(history, FORMAT);
	made_ns = overview->at_ns;
	json_decref(history);
	return made;
}

/* --- the whole --- */

/* The files of stats/ under their names. */
static json_t *stats_of(const struct ap_metrics *metrics)
{
	json_t *stats = json_object();
	for (unsigned i = 0; tree_stats[i].name; i++) {
		AP_CLEANUP_BUF struct ap_buf value = {0};
		tree_stats_value(metrics, i, &value);
		size_t len = value.len > 0 ? value.len - 1 : 0; /* without its newline */
		const char *said = ap_buf_text(&value);
		bool number = len > 0 && strspn(said, "-.0123456789") == len;
		json_t *json = !number			? text_of(said, len)
			       : memchr(said, '.', len) ? json_real(strtod(said, NULL))
							: json_integer(strtoll(said, NULL, 10));
		set(stats, tree_stats[i].name, json);
	}
	return stats;
}

static json_t *scale_of(const struct ap_metrics *metrics)
{
	json_t *scale = json_object();
	bool manual = metrics->stats.target >= 0;
	set(scale, "mode", json_string(manual ? "manual" : "auto"));
	set(scale, "target", number_or_null(manual, json_integer(metrics->stats.target)));
	set(scale, "min", json_integer(metrics->min_size));
	set(scale, "max", json_integer(metrics->max_size));
	return scale;
}

static json_t *path_of(const char *path, struct detail detail)
{
	return text_of(path, strnlen(path, detail.path_len));
}

static int add_json(const struct ap_overview *overview, struct detail detail, struct ap_buf *out)
{
	json_t *o = json_object();
	lost = false;
	set(o, "version", json_string(AP_VERSION));
	set(o, "time", date(overview->at_ns));
	set(o, "mountpoint", path_of(overview->metrics.mountpoint, detail));
	set(o, "repository", path_of(overview->repo, detail));
	set(o, "closed", json_boolean(overview->metrics.stats.closed));
	set(o, "scale", scale_of(&overview->metrics));
	set(o, "stats", stats_of(&overview->metrics));
	set(o, "agents", agents_of(overview, detail));
	set(o, "waiters", waiters_of(overview, detail));
	AP_CLEANUP_FREE char *json = json_dumps(o, FORMAT);
	const char *history = history_json(overview);
	json_decref(o);
	if (!json || !history || lost)
		return -ENOMEM;
	ap_buf_add(out, json, strlen(json) - 1); /* without its last brace */
	ap_buf_printf(out, ",\"history\":%s}\n", history);
	return 0;
}

int status_json(const struct ap_overview *overview, struct ap_buf *out)
{
	return add_json(overview, whole, out);
}

/* --- the page --- */

size_t status_page_size(unsigned n_agents_max)
{
	unsigned n_large = n_agents_max < 64 ? n_agents_max : 64;
	return (36u << 10) + n_large * (2u << 10) + (n_agents_max - n_large) * (1u << 10);
}

/* The page and a copy of it recognise each other by this key: nobody who cannot read the file has
 * it. */
static const char *page_key(void)
{
	static char key[33];
	unsigned char random[16];
	if (*key || getrandom(random, sizeof random, 0) != sizeof random)
		return key;
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(key + 2 * i, 3, "%02x", random[i]);
	return key;
}

/* Adds JSON that cannot end the script: escapes each `<`, which JSON has in strings only. */
static void add_script_data(const char *json, struct ap_buf *out)
{
	for (const char *from = json; *from;) {
		size_t n = strcspn(from, "<");
		ap_buf_add(out, from, n);
		from += n;
		if (*from == '<') {
			ap_buf_adds(out, "\\u003c");
			from++;
		}
	}
}

/* Adds the page up to a mark, and returns what is behind it. */
static const char *add_until(const char *page, const char *mark, struct ap_buf *out)
{
	const char *at = strstr(page, mark);
	ap_buf_add(out, page, (size_t)(at - page));
	return at + strlen(mark);
}

static void fill_page(const char *json, struct ap_buf *out)
{
	const char *at = add_until(status_html, "@KEY@", out);
	ap_buf_adds(out, page_key());
	at = add_until(at, "@STATUS@", out);
	add_script_data(json, out);
	ap_buf_adds(out, at);
}

int status_page(const struct ap_overview *overview, unsigned n_agents_max, struct ap_buf *out)
{
	size_t size = status_page_size(n_agents_max);
	static const struct detail details[] = {/* the last one fits in any case */
						{512, true, 14},
						{512, true, 4},
						{512, true, 1},
						{512, true, 0},
						{512, false, 0}};
	for (size_t i = 0; i < sizeof details / sizeof *details; i++) {
		AP_CLEANUP_BUF struct ap_buf json = {0};
		int r = add_json(overview, details[i], &json);
		if (r < 0 || json.failed)
			return -ENOMEM;
		out->len = 0;
		fill_page(ap_buf_text(&json), out);
		if (out->len <= size)
			break;
	}
	if (out->len < size && ap_buf_reserve(out, size - out->len)) {
		memset(out->data + out->len, '\n', size - out->len);
		out->len = size;
		out->data[size] = '\0';
	}
	return out->failed ? -ENOMEM : 0;
}
