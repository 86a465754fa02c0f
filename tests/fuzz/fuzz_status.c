/* What agents and users wrote, in status, status.json and status.html: a picture that no program
 * can break out of. The input is texts with a NUL behind each: mount point, repository, why
 * spawning failed; then for each agent a byte of flags, label, why, how it ended, screen. Who waits
 * has the same labels. */
#include "fuzz.h"

#include <jansson.h>
#include <locale.h>
#include <wchar.h>

#include "../../fs/status.h"

#define AGENTS_MAX 40

static struct ap_agent_overview agents[AGENTS_MAX];

static void take(struct fuzz_input *input, char *ret, size_t size)
{
	char *text = fuzz_text(input);
	snprintf(ret, size, "%s", text);
	free(text);
}

static void take_agent(struct fuzz_input *input, struct ap_agent_overview *agent, unsigned number)
{
	uint8_t flags = fuzz_byte(input);
	*agent = (struct ap_agent_overview){
		.has_usage = flags & 1,
		.memory = (uint64_t)flags << (flags & 63),
		.cpu_percent = flags * 7.3,
		.n_tasks = flags,
		.info = {.number = number,
			 .state = (enum ap_agent_state)(1 + flags % (AP_N_SHOWN_STATES - 1)),
			 .activity = (enum ap_activity)(flags % (AP_ACTIVITY_EXITED + 1)),
			 .worktree = "/worktrees/agent",
			 .token = flags,
			 .granted_ns = flags & 2 ? AP_SECOND : 0,
			 .n_requests = flags & 4 ? UINT32_MAX : flags},
	};
	snprintf(agent->info.name, sizeof agent->info.name, "agent-%u", number);
	take(input, agent->info.label, sizeof agent->info.label);
	take(input, agent->info.why, sizeof agent->info.why);
	take(input, agent->info.exit_how, sizeof agent->info.exit_how);
	agent->screen = fuzz_text(input);
	agent->request = agent->screen;
}

/* Every line has 80 columns at most; a terminal obeys nothing in it but our own colours. */
static void table_holds(const struct ap_overview *overview)
{
	struct ap_buf out = {0};
	status_table(overview, &out);
	HOLDS(!out.failed && fuzz_is_utf8(ap_buf_text(&out), out.len));
	const char *at = ap_buf_text(&out);
	int columns = 0;
	for (wchar_t c; *at;) {
		int n = mbtowc(&c, at, MB_CUR_MAX);
		HOLDS(n > 0);
		if (*at == '\033') {
			HOLDS(overview->color && at[1] == '[');
			at += 2 + strspn(at + 2, "0123456789");
			HOLDS(*at++ == 'm');
			continue;
		}
		at += n;
		HOLDS(c == '\n' || c >= 0x20);
		HOLDS(c < 0x7f || c >= 0xa0);
		columns = c == '\n' ? 0 : columns + (wcwidth(c) < 0 ? 1 : wcwidth(c));
		HOLDS(columns <= 80);
	}
	ap_buf_fini(&out);
}

static void json_holds(const struct ap_overview *overview)
{
	struct ap_buf out = {0};
	HOLDS(status_json(overview, &out) == 0 && !out.failed);
	HOLDS(out.data[out.len - 1] == '\n' && !memchr(out.data, '\n', out.len - 1));
	json_t *status = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
	HOLDS(json_array_size(json_object_get(status, "agents")) == overview->n_agents);
	HOLDS(json_array_size(json_object_get(status, "waiters")) == overview->n_waiters);
	HOLDS(!*overview->metrics.mountpoint ||
	      json_is_string(json_object_get(status, "mountpoint")));
	json_decref(status);
	ap_buf_fini(&out);
}

static unsigned count(const struct ap_buf *text, const char *what)
{
	unsigned n = 0;
	for (const char *at = ap_buf_text(text); (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void page_holds(const struct ap_overview *overview)
{
	struct ap_buf out = {0};
	/* sized for one agent: where there are more, something has to be left out */
	HOLDS(status_page(overview, 1, &out) == 0 && !out.failed);
	HOLDS(out.len == status_page_size(1) && strlen(out.data) == out.len);
	HOLDS(count(&out, "<script") == 2 && count(&out, "</script") == 2);
	HOLDS(count(&out, "<!--") == 0 && count(&out, "</html>") == 1);
	ap_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int64_t now = AP_SECOND;
	struct fuzz_input input = {data, size};
	char *mountpoint, *repo, *cause;
	setlocale(LC_CTYPE, "C.UTF-8");
	now += 60 * AP_SECOND; /* nothing is kept from the last one */
	mountpoint = fuzz_text(&input);
	repo = fuzz_text(&input);
	cause = fuzz_text(&input);
	struct ap_overview overview = {
		.at_ns = now, .repo = repo, .color = size & 1, .agents = agents};
	struct ap_metrics *metrics = &overview.metrics;
	metrics->mountpoint = mountpoint;
	metrics->stats = (struct ap_stats){.breaker = size & 2 ? "open" : "closed",
					   .spawn_backend = "copy",
					   .cgroup = "none",
					   .closed = size & 4,
					   .target = size & 8 ? (int)size : -1};
	snprintf(metrics->breaker_cause.text, sizeof metrics->breaker_cause.text, "%s", cause);
	while (input.left > 0 && overview.n_agents < AGENTS_MAX) {
		take_agent(&input, &agents[overview.n_agents], overview.n_agents + 1);
		metrics->n_in_state[agents[overview.n_agents++].info.state]++;
	}
	for (; overview.n_waiters < overview.n_agents && overview.n_waiters < AP_WAITERS_SHOWN;
	     overview.n_waiters++)
		memcpy(overview.waiters[overview.n_waiters].label,
		       agents[overview.n_waiters].info.label, AP_LABEL_MAX + 1);
	metrics->stats.n_waiting = overview.n_waiters + (size & 16);
	history_elapse(&overview.history, (struct history_sample){.n_agents = 1, .n_able = 1}, now);
	table_holds(&overview);
	json_holds(&overview);
	page_holds(&overview);
	for (unsigned i = 0; i < overview.n_agents; i++)
		free((char *)agents[i].screen);
	free(mountpoint);
	free(repo);
	free(cause);
	return 0;
}
