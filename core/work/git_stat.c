/* The text of `git diff --stat`, as git's diff.c lays it out on 80 columns. */
#include "git_stat.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 80

/* Appends a name as git prints it: in quotes if it has control characters, quotes or backslashes.
 */
static bool quote(const char *name, struct ap_buf *ret)
{
	static const char letters[] = "abtnvfr"; /* of \a to \r, as in C */
	bool needs = false;
	for (const char *c = name; *c && !needs; c++)
		needs = (unsigned char)*c < ' ' || *c == 127 || *c == '"' || *c == '\\';
	if (needs)
		ap_buf_adds(ret, "\"");
	for (const char *c = name; *c; c++) {
		unsigned char code = (unsigned char)*c;
		if (needs && code >= 7 && code <= 13)
			ap_buf_printf(ret, "\\%c", letters[code - 7]);
		else if (needs && (code < ' ' || code == 127))
			ap_buf_printf(ret, "\\%03o", code);
		else
			ap_buf_printf(ret, needs && (code == '"' || code == '\\') ? "\\%c" : "%c",
				      *c);
	}
	if (needs)
		ap_buf_adds(ret, "\"");
	return needs;
}

static bool needs_quotes(const char *name)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	return quote(name, &text);
}

/* Appends a rename; writes what the two paths have in common, up to a slash, only once. */
static void add_rename(const char *a, const char *b, struct ap_buf *ret)
{
	size_t len_a = strlen(a), len_b = strlen(b), prefix = 0, suffix = 0;
	if (needs_quotes(a) || needs_quotes(b)) {
		quote(a, ret);
		ap_buf_adds(ret, " => ");
		quote(b, ret);
		return;
	}
	for (size_t i = 0; a[i] && a[i] == b[i]; i++) {
		if (a[i] == '/')
			prefix = i + 1;
	}
	/* the slash at the end of the common prefix may be the first of the common suffix */
	size_t least = prefix ? prefix - 1 : 0;
	for (size_t n = 0; len_a - n >= least && len_b - n >= least && a[len_a - n] == b[len_b - n];
	     n++) {
		if (a[len_a - n] == '/')
			suffix = n;
		if (len_a == n || len_b == n)
			break;
	}
	size_t mid_a = len_a > prefix + suffix ? len_a - prefix - suffix : 0;
	size_t mid_b = len_b > prefix + suffix ? len_b - prefix - suffix : 0;
	bool common = prefix + suffix > 0;
	ap_buf_printf(ret, common ? "%.*s{" : "%.*s", (int)prefix, a);
	ap_buf_printf(ret, "%.*s => %.*s", (int)mid_a, a + prefix, (int)mid_b, b + prefix);
	if (common)
		ap_buf_printf(ret, "}%s", a + len_a - suffix);
}

/* Columns of a text: one for each character. */
static int width_of(const char *text)
{
	int n = 0;
	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static int digits(uint64_t n)
{
	int width = 1;
	while (n >= 10) {
		n /= 10;
		width++;
	}
	return width;
}

struct widths {
	int name, number;
	uint64_t graph, max_change;
};

static struct widths measure(const struct git_stat *stats, const struct ap_buf *names, size_t n)
{
	struct widths w = {0};
	int binary = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t change = stats[i].added + stats[i].deleted;
		int len = width_of(ap_buf_text(&names[i]));
		w.name = len > w.name ? len : w.name;
		if (stats[i].is_binary) {
			int bytes = 14 + digits(stats[i].added) + digits(stats[i].deleted);
			binary = bytes > binary ? bytes : binary;
			w.number = 3; /* as wide as Bin */
		} else if (change > w.max_change) {
			w.max_change = change;
		}
	}
	if (digits(w.max_change) > w.number)
		w.number = digits(w.max_change);
	int width = WIDTH;
	if (width < 16 + 6 + w.number)
		width = 16 + 6 + w.number;
	w.graph = w.max_change + 4 > (uint64_t)binary ? w.max_change : (uint64_t)binary - 4;
	if ((uint64_t)(w.name + w.number + 6) + w.graph > (uint64_t)width) {
		int graph = width * 3 / 8 - w.number - 6;
		if (w.graph > (uint64_t)(graph < 0 ? 0 : graph))
			w.graph = (uint64_t)(graph < 6 ? 6 : graph);
		int room = width - w.number - 6 - (int)w.graph;
		if (w.name > room)
			w.name = room;
		else
			w.graph = (uint64_t)(width - w.number - 6 - w.name);
	}
	return w;
}

/* Appends a name; one that is too long loses its beginning, up to a slash. */
static void add_name(const char *name, const struct widths *w, struct ap_buf *ret)
{
	int len = w->name, has = width_of(name);
	ap_buf_adds(ret, " ");
	if (has > len) {
		ap_buf_adds(ret, "...");
		len -= 3;
		while (has > len && *name) {
			name++;
			while (((unsigned char)*name & 0xc0) == 0x80)
				name++;
			has--;
		}
		const char *slash = strchr(name, '/');
		name = slash ? slash : name;
	}
	ap_buf_adds(ret, name);
	for (int i = width_of(name); i < len; i++)
		ap_buf_adds(ret, " ");
	ap_buf_adds(ret, " |");
}

static uint64_t scale(uint64_t n, const struct widths *w)
{
	return n == 0 ? 0 : 1 + n * (w->graph - 1) / w->max_change;
}

static void add_graph(const struct git_stat *stat, const struct widths *w, struct ap_buf *ret)
{
	uint64_t added = stat->added, deleted = stat->deleted;
	if (w->graph <= w->max_change) {
		uint64_t total = scale(added + deleted, w);
		if (total < 2 && added && deleted)
			total = 2;
		if (added < deleted) {
			added = scale(added, w);
			deleted = total - added;
		} else {
			deleted = scale(deleted, w);
			added = total - deleted;
		}
	}
	while (added-- > 0)
		ap_buf_adds(ret, "+");
	while (deleted-- > 0)
		ap_buf_adds(ret, "-");
}

static void add_line(const struct git_stat *stat, const char *name, const struct widths *w,
		     struct ap_buf *ret)
{
	uint64_t change = stat->added + stat->deleted;
	add_name(name, w, ret);
	if (stat->is_binary) {
		ap_buf_printf(ret, " %*s", w->number, "Bin");
		if (change > 0)
			ap_buf_printf(ret, " %ju -> %ju bytes", (uintmax_t)stat->deleted,
				      (uintmax_t)stat->added);
	} else {
		ap_buf_printf(ret, " %*ju%s", w->number, (uintmax_t)change, change ? " " : "");
		add_graph(stat, w, ret);
	}
	ap_buf_adds(ret, "\n");
}

static void add_count(struct ap_buf *ret, const char *before, uint64_t n, const char *word,
		      const char *after)
{
	ap_buf_printf(ret, "%s%ju %s%s%s", before, (uintmax_t)n, word, n == 1 ? "" : "s", after);
}

void git_stat_format(const struct git_stat *stats, size_t n, struct ap_buf *ret)
{
	uint64_t added = 0, deleted = 0;
	struct ap_buf *names = calloc(n + 1, sizeof *names);
	if (!names) {
		ret->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (stats[i].old_path)
			add_rename(stats[i].old_path, stats[i].path, &names[i]);
		else
			quote(stats[i].path, &names[i]);
		ret->failed |= names[i].failed;
		added += stats[i].is_binary ? 0 : stats[i].added;
		deleted += stats[i].is_binary ? 0 : stats[i].deleted;
	}
	struct widths w = measure(stats, names, n);
	for (size_t i = 0; i < n; i++) {
		add_line(&stats[i], ap_buf_text(&names[i]), &w, ret);
		ap_buf_fini(&names[i]);
	}
	free(names);
	if (n == 0)
		return;
	add_count(ret, " ", n, "file", " changed");
	if (added > 0 || deleted == 0)
		add_count(ret, ", ", added, "insertion", "(+)");
	if (deleted > 0 || added == 0)
		add_count(ret, ", ", deleted, "deletion", "(-)");
	ap_buf_adds(ret, "\n");
}
