#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "status.h"
#include "when.h"

#define COLUMNS 80

/* Select Graphic Rendition of ECMA-48. */
#define PLAIN	""
#define RESET	"0"
#define BOLD	"1"
#define DIM	"2"
#define RED	"31"
#define GREEN	"32"
#define YELLOW	"33"
#define MAGENTA "35"
#define CYAN	"36"

struct page {
	struct ap_buf *out;
	bool color;
};

/* Adds at most `columns` columns of a text, with a mark where it is cut. Returns how many it
 * adds. */
static int add_cut(struct ap_buf *out, const char *text, int columns)
{
	AP_CLEANUP_BUF struct ap_buf tame = {0};
	ap_buf_adds(&tame, text);
	if (!tame.data)
		return 0;
	ap_text_tame(tame.data);
	const char *at = tame.data, *cut = at; /* where the mark would stand */
	mbstate_t state = {0};
	wchar_t c;
	int used = 0, used_cut = 0;
	for (size_t n; (n = mbrtowc(&c, at, MB_CUR_MAX, &state)) > 0 && n < (size_t)-2; at += n) {
		int width = wcwidth(c) < 0 ? 1 : wcwidth(c);
		if (used + width > columns) {
			ap_buf_add(out, tame.data, (size_t)(cut - tame.data));
			ap_buf_adds(out, "…");
			return used_cut + 1;
		}
		used += width;
		if (used < columns) {
			cut = at + n;
			used_cut = used;
		}
	}
	ap_buf_add(out, tame.data, (size_t)(at - tame.data));
	return used;
}

static void paint(const struct page *page, const char *sgr)
{
	if (page->color && *sgr)
		ap_buf_printf(page->out, "\033[%sm", sgr);
}

/* Adds a text in color, cut likewise. Returns the columns that it takes. */
static int painted(const struct page *page, const char *sgr, const char *text, int columns)
{
	paint(page, sgr);
	int used = add_cut(page->out, text, columns);
	if (*sgr)
		paint(page, RESET);
	return used;
}

/* The same, padded with blanks. */
static void cell(const struct page *page, const char *sgr, const char *text, int columns)
{
	int used = painted(page, sgr, text, columns);
	ap_buf_printf(page->out, "%*s", columns - used, "");
}

static void line(const struct page *page, const char *sgr, int indent, const char *text)
{
	ap_buf_printf(page->out, "%*s", indent, "");
	painted(page, sgr, text, COLUMNS - indent);
	ap_buf_adds(page->out, "\n");
}

/* --- what is short --- */

struct short_text {
	char text[16];
};

/* A duration in four columns. */
static struct short_text span(int64_t ns)
{
	struct short_text ret;
	int64_t s = ns / AP_SECOND;
	if (s < 100)
		snprintf(ret.text, sizeof ret.text, "%" PRId64 "s", s);
	else if (s < 100 * 60)
		snprintf(ret.text, sizeof ret.text, "%" PRId64 "m", s / 60);
	else if (s < 100 * 3600)
		snprintf(ret.text, sizeof ret.text, "%" PRId64 "h", s / 3600);
	else
		snprintf(ret.text, sizeof ret.text, "%" PRId64 "d", s / 86400);
	return ret;
}

/* A number in five columns. */
static struct short_text count(unsigned n)
{
	struct short_text ret;
	if (n < 10000)
		snprintf(ret.text, sizeof ret.text, "%u", n);
	else if (n < 10000 * 1000)
		snprintf(ret.text, sizeof ret.text, "%uK", n / 1000);
	else
		snprintf(ret.text, sizeof ret.text, "%uM", n / (1000 * 1000));
	return ret;
}

/* Bytes in five columns. */
static struct short_text bytes(uint64_t n)
{
	static const char units[] = "KMGTPE";
	struct short_text ret;
	double value = (double)n / 1024;
	int unit = 0;
	for (; value >= 1000 && units[unit + 1]; unit++)
		value /= 1024;
	snprintf(ret.text, sizeof ret.text, value < 9.95 && unit > 0 ? "%.1f%c" : "%.0f%c", value,
		 units[unit]);
	return ret;
}

/* --- the head --- */

static void add_counts(const struct ap_overview *o, struct ap_buf *out)
{
	const struct ap_stats *stats = &o->metrics.stats;
	const char *between = ": ";
	ap_buf_printf(out, "%u agent%s of %u to %u", stats->n_total, stats->n_total == 1 ? "" : "s",
		      o->metrics.min_size, o->metrics.max_size);
	if (stats->target >= 0)
		ap_buf_printf(out, ", set to %d", stats->target);
	for (int i = AP_AGENT_FREE + 1; i < AP_N_SHOWN_STATES; i++) {
		if (o->metrics.n_in_state[i] == 0)
			continue;
		ap_buf_printf(out, "%s%u %s", between, o->metrics.n_in_state[i],
			      ap_agent_state_name((enum ap_agent_state)i));
		between = ", ";
	}
}

#define SPARKS	  30
#define PER_SPARK (HISTORY_N / SPARKS)

/* Utilization of the last hour, a character for two minutes; a dot where there was no agent. */
static void add_sparkline(const struct history *history, struct ap_buf *out)
{
	static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	for (unsigned spark = 0; spark < SPARKS; spark++) {
		struct history_interval sum = {.us = 0};
		for (unsigned i = spark * PER_SPARK; i < (spark + 1) * PER_SPARK; i++) {
			if (i + history->n < HISTORY_N)
				continue;
			const struct history_interval *interval =
				history_get(history, i + history->n - HISTORY_N);
			sum.active_us += interval->active_us;
			sum.able_us += interval->able_us;
		}
		int percent = history_utilization(&sum);
		ap_buf_adds(out, percent < 0 ? "·" : bars[percent * 7 / 100]);
	}
}

static void queue(const struct page *page, const struct ap_overview *o)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	for (unsigned i = 0; i < o->n_waiters; i++)
		ap_buf_printf(&text, "%s%s %s", i == 0 ? "wait: " : ", ", o->waiters[i].label,
			      span(o->at_ns - o->waiters[i].asked_ns).text);
	if (o->n_waiters < o->metrics.stats.n_waiting)
		ap_buf_adds(&text, ", …");
	if (o->n_waiters > 0)
		line(page, YELLOW, 0, ap_buf_text(&text));
}

static struct short_text amount(int64_t n)
{
	struct short_text ret;
	if (n < 10000)
		snprintf(ret.text, sizeof ret.text, "%d", (int)n);
	else if (n < 10000000)
		snprintf(ret.text, sizeof ret.text, "%dk", (int)(n / 1000));
	else
		snprintf(ret.text, sizeof ret.text, "%.0fM", (double)n / 1e6);
	return ret;
}

/* What was used since the pool began, if anything is known. */
static void used(const struct page *page, const struct ap_usage *usage)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	const int64_t *at = usage->at;
	if (at[AP_USAGE_COST] >= 0)
		ap_buf_printf(&text, "  $%.2f", ap_usage_dollars(at[AP_USAGE_COST]));
	if (at[AP_USAGE_INPUT] >= 0)
		ap_buf_printf(&text, "  %s tokens in", amount(at[AP_USAGE_INPUT]).text);
	if (at[AP_USAGE_OUTPUT] >= 0)
		ap_buf_printf(&text, "  %s out", amount(at[AP_USAGE_OUTPUT]).text);
	if (text.len > 0)
		line(page, PLAIN, 0, ap_buf_text(&text) + 2);
}

static void head(const struct page *page, const struct ap_overview *o)
{
	const struct ap_stats *stats = &o->metrics.stats;
	AP_CLEANUP_BUF struct ap_buf counts = {0};
	AP_CLEANUP_BUF struct ap_buf use = {0};
	AP_CLEANUP_BUF struct ap_buf making = {0};
	AP_CLEANUP_BUF struct ap_buf trouble = {0};
	const char *slash = strrchr(o->metrics.mountpoint, '/');
	ap_buf_printf(&counts, "%s  ", slash && slash[1] ? slash + 1 : o->metrics.mountpoint);
	add_counts(o, &counts);
	line(page, BOLD, 0, ap_buf_text(&counts));

	ap_buf_printf(&use, "%3u%% used  ", stats->utilization);
	add_sparkline(&o->history, &use);
	ap_buf_printf(&use, "  last hour   %u waiting", stats->n_waiting);
	if (stats->n_waiting > 0)
		ap_buf_printf(&use, ", longest %s", span(o->metrics.oldest_waiter_ns).text);
	line(page, stats->n_waiting > 0 ? YELLOW : PLAIN, 0, ap_buf_text(&use));
	queue(page, o);
	used(page, &stats->used);

	if (stats->n_files > 0) {
		ap_buf_printf(&making, "checking out: %u of %u files", stats->n_files_done,
			      stats->n_files);
		line(page, CYAN, 0, ap_buf_text(&making));
	}
	if (stats->closed)
		line(page, YELLOW, 0, "closed: nothing is granted before `echo open > ctl`");
	if (strcmp(stats->breaker, "closed") != 0) {
		ap_buf_printf(&trouble, "breaker %s: %s", stats->breaker,
			      o->metrics.breaker_cause.text);
		line(page, RED, 0, ap_buf_text(&trouble));
	}
}

/* --- the agents --- */

/* Columns of a row without its name and lease. */
#define FIXED 50

static const char *color_of(const struct ap_agent_info *agent)
{
	switch (agent->state) {
	case AP_AGENT_ACTIVE:
		return GREEN;
	case AP_AGENT_SPAWNING:
	case AP_AGENT_VALIDATING:
	case AP_AGENT_RECYCLING:
		return CYAN;
	case AP_AGENT_UNHEALTHY:
	case AP_AGENT_LOST:
		return RED;
	case AP_AGENT_DRAINING:
	case AP_AGENT_STOPPING:
		return YELLOW;
	default:
		return PLAIN;
	}
}

static const char *color_of_activity(enum ap_activity activity)
{
	return activity == AP_ACTIVITY_WAITING	 ? MAGENTA
	       : activity == AP_ACTIVITY_LIMITED ? YELLOW
	       : activity == AP_ACTIVITY_EXITED	 ? RED
						 : PLAIN;
}

static const char *last_line(const char *screen, struct ap_buf *scratch)
{
	size_t len;
	const char *line = ap_text_last_line(screen, &len);
	ap_buf_add(scratch, line, len);
	return ap_buf_text(scratch);
}

static int name_columns(const struct ap_overview *o)
{
	int most = sizeof "AGENT" - 1;
	for (unsigned i = 0; i < o->n_agents; i++) {
		int len = (int)strlen(o->agents[i].info.name);
		most = len > most ? len : most;
	}
	return most;
}

/* Until when an agent is limited, and by what that is known. */
static const char *limit_of(const struct ap_agent_info *a, struct ap_buf *scratch)
{
	char until[32] = "";
	if (a->until_s)
		when_format(a->until_s, until, sizeof until);
	ap_buf_printf(scratch, "%s%s%s", *until ? "until " : "", until, *until ? "; " : "");
	ap_buf_adds(scratch, a->why);
	return ap_buf_text(scratch);
}

static void agent_row(const struct page *page, const struct ap_agent_overview *agent, int64_t now,
		      int name_width)
{
	const struct ap_agent_info *a = &agent->info;
	struct ap_buf *out = page->out;
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	cell(page, BOLD, a->name, name_width + 1);
	cell(page, color_of(a), ap_agent_state_name(a->state), 11);
	cell(page, color_of_activity(a->activity), ap_activity_name(a->activity), 9);
	cell(page, PLAIN, a->label, COLUMNS - name_width - FIXED);
	ap_buf_printf(out, "%5s %5s %5s ", span(now - a->created_ns).text,
		      count(a->n_requests).text, count(a->n_recycles).text);
	if (agent->has_usage)
		ap_buf_printf(out, "%5s %4.0f%%\n", bytes(agent->memory).text, agent->cpu_percent);
	else
		ap_buf_adds(out, "    -     -\n");
	bool rests = a->state == AP_AGENT_IDLE && a->activity == AP_ACTIVITY_READY;
	const char *said = strncmp(agent->info.why, "saving:", 7) == 0 ? agent->info.why
			   : a->activity == AP_ACTIVITY_LIMITED	       ? limit_of(a, &scratch)
			   : agent->screen && !rests ? last_line(agent->screen, &scratch)
						     : "";
	if (*said)
		line(page, DIM, 2, said);
}

void status_table(const struct ap_overview *o, struct ap_buf *out)
{
	struct page page = {.out = out, .color = o->color};
	int name_width = name_columns(o);
	head(&page, o);
	ap_buf_adds(out, "\n");
	paint(&page, BOLD);
	ap_buf_printf(out, "%-*s %-10s %-8s %-*s  AGE   REQ   REC   MEM   CPU\n", name_width,
		      "AGENT", "STATE", "ACTIVITY", COLUMNS - name_width - FIXED, "LEASE");
	paint(&page, RESET);
	for (unsigned i = 0; i < o->n_agents; i++)
		agent_row(&page, &o->agents[i], o->at_ns, name_width);
}
