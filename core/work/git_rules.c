#include "git_rules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "file.h"

/* Largest file of rules, and line of attributes, in bytes: git does not read longer ones either. */
#define FILE_MAX	    ((size_t)100 << 20)
#define LINE_MAX_ATTRIBUTES 2048

static const char blank[] = " \t\r\n";

/* An attribute that a line of attributes sets. */
struct setting {
	char *name;
	const char *value; /* git_attr_true, git_attr_false, attr_unset, or `owned` */
	char *owned;
};

static const char attr_unset[] = "";

struct line {
	struct git_pattern pattern;
	char *macro; /* the attribute that a line [attr] defines; NULL: it has a pattern */
	struct setting *settings;
	size_t n;
};

/* What one file says. */
struct file {
	struct line *lines;
	size_t n;
};

/* The rules of one directory. */
struct level {
	size_t base_len; /* bytes of the directory's path with the slash at its end */
	struct file ignore, attributes;
};

struct git_rules {
	char *dir;
	struct file excludes, exclude;			    /* the user's; REPO's */
	struct file builtin, system, user_attributes, info; /* attributes, by rank */
	struct level *levels; /* from the top to the directory that was asked for last */
	size_t n_levels;
	char *path; /* of that directory, with a slash at its end; "" is the top */
};

static void file_free(struct file *file)
{
	for (size_t i = 0; i < file->n; i++) {
		for (size_t k = 0; k < file->lines[i].n; k++) {
			free(file->lines[i].settings[k].name);
			free(file->lines[i].settings[k].owned);
		}
		free(file->lines[i].settings);
		free(file->lines[i].macro);
		free(file->lines[i].pattern.text);
	}
	free(file->lines);
	*file = (struct file){0};
}

/* Room for one more line, all zero; NULL on ENOMEM. */
static struct line *file_grow(struct file *file)
{
	if ((file->n & (file->n - 1)) == 0) {
		struct line *lines =
			realloc(file->lines, (file->n ? 2 * file->n : 1) * sizeof *lines);
		if (!lines)
			return NULL;
		file->lines = lines;
	}
	memset(&file->lines[file->n], 0, sizeof *file->lines);
	return &file->lines[file->n];
}

/* --- lines --- */

/* Cuts blanks off the end of a line, unless one is escaped. */
static void trim(char *line)
{
	char *end = NULL;
	for (char *c = line; *c; c++) {
		if (*c == ' ') {
			end = end ? end : c;
			continue;
		}
		end = NULL;
		if (*c == '\\' && !*++c)
			return;
	}
	if (end)
		*end = '\0';
}

static int add_ignore(struct file *file, char *line)
{
	size_t len = strlen(line);
	if (len == 0 || *line == '#')
		return 0;
	if (line[len - 1] == '\r')
		line[len - 1] = '\0';
	trim(line);
	struct line *new = file_grow(file);
	if (!new || git_pattern_parse(&new->pattern, line) < 0)
		return -ENOMEM;
	file->n++;
	return 0;
}

static bool is_name(const char *name)
{
	return *name && *name != '-' &&
	       name[strspn(name, "-._0123456789abcdefghijklmnopqrstuvwxyz"
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0';
}

/* Parses one word that sets an attribute. 1: it is no valid attribute, and nothing of its line
 * counts. */
static int add_setting(struct line *line, const char *word, size_t len)
{
	struct setting setting = {.value = git_attr_true};
	const char *equals = memchr(word, '=', len);
	bool is_off = *word == '-' || *word == '!';
	const char *name = word + is_off;
	if (is_off)
		setting.value = *word == '-' ? git_attr_false : attr_unset;
	size_t name_len = (size_t)((equals ? equals : word + len) - name);
	setting.name = strndup(name, name_len);
	if (equals && !is_off) {
		setting.owned = strndup(equals + 1, (size_t)(word + len - equals - 1));
		setting.value = setting.owned;
	}
	struct setting *settings = realloc(line->settings, (line->n + 1) * sizeof *line->settings);
	if (settings)
		line->settings = settings;
	if (!settings || !setting.name || !setting.value || !is_name(setting.name)) {
		int r = settings && setting.name && setting.value ? 1 : -ENOMEM;
		free(setting.name);
		free(setting.owned);
		return r;
	}
	settings[line->n++] = setting;
	return 0;
}

static int add_settings(struct line *line, const char *at)
{
	int r = 0;
	for (at += strspn(at, blank); *at && r == 0; at += strspn(at, blank)) {
		size_t len = strcspn(at, blank);
		r = add_setting(line, at, len);
		at += len;
	}
	return r;
}

/* Unquotes a text in C quotes, in place. Returns what follows the quotes; NULL: the quotes are not
 * valid. */
static char *unquote(char *text)
{
	static const char names[] = "abtnvfr";
	static const char codes[] = "\a\b\t\n\v\f\r";
	char *to = text, *at = text + 1;
	for (; *at && *at != '"'; to++) {
		char c = *at++;
		if (c == '\\') {
			c = *at++;
			const char *name = c ? strchr(names, c) : NULL;
			if (name) {
				c = codes[name - names];
			} else if (c >= '0' && c <= '3' && at[0] >= '0' && at[0] <= '7' &&
				   at[1] >= '0' && at[1] <= '7') {
				c = (char)((c - '0') << 6 | (at[0] - '0') << 3 | (at[1] - '0'));
				at += 2;
			} else if (c != '\\' && c != '"') {
				return NULL;
			}
		}
		*to = c;
	}
	if (*at != '"')
		return NULL;
	*to = '\0';
	return at + 1;
}

/* Parses a line: a pattern, or [attr]NAME where macros are allowed, and what it sets. 1: it does
 * not count. */
static int parse_attributes(struct line *line, char *at, bool macros)
{
	AP_CLEANUP_FREE char *quoted = NULL;
	char *name = at, *states = NULL;
	if (*at == '"') {
		quoted = strdup(at);
		if (!quoted)
			return -ENOMEM;
		char *end = unquote(quoted);
		states = end ? at + (end - quoted) : NULL;
		name = end ? quoted : at;
	}
	if (!states) {
		states = at + strcspn(at, blank);
		states += *states != '\0';
		if (states > at && strchr(blank, states[-1]))
			states[-1] = '\0';
	}
	if (strlen(name) > 6 && strncmp(name, "[attr]", 6) == 0) {
		name += 6 + strspn(name + 6, blank);
		name[strcspn(name, blank)] = '\0';
		if (!macros || !is_name(name))
			return 1;
		line->macro = strdup(name);
		if (!line->macro)
			return -ENOMEM;
	} else {
		int r = git_pattern_parse(&line->pattern, name);
		if (r < 0 || line->pattern.is_negative)
			return r < 0 ? r : 1;
	}
	return add_settings(line, states);
}

static int add_attributes(struct file *file, char *text, bool macros)
{
	text += strspn(text, blank);
	if (*text == '\0' || *text == '#' || strlen(text) >= LINE_MAX_ATTRIBUTES)
		return 0;
	struct line *line = file_grow(file);
	if (!line)
		return -ENOMEM;
	file->n++;
	int r = parse_attributes(line, text, macros);
	if (r != 0) { /* the line does not count */
		struct file last = {.lines = malloc(sizeof *line), .n = 1};
		file->n--;
		if (last.lines) {
			*last.lines = *line;
			file_free(&last);
		}
	}
	return r < 0 ? r : 0;
}

/* Parses the text of a file. */
static int parse(struct file *file, char *text, size_t len, bool attributes, bool macros)
{
	int r = 0;
	char *end = text + len;
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	while (r == 0 && text < end) {
		char *newline = memchr(text, '\n', (size_t)(end - text));
		char *next = newline ? newline + 1 : end;
		if (newline)
			*newline = '\0';
		r = attributes ? add_attributes(file, text, macros) : add_ignore(file, text);
		text = next;
	}
	return r;
}

/* Reads a file; one that cannot be read counts as empty. `flags` such as O_NOFOLLOW. */
static int read_rules(struct file *file, const char *dir, const char *name, int flags,
		      bool attributes, bool macros)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&path, "%s%s%s", dir, *name ? "/" : "", name);
	if (path.failed)
		return -ENOMEM;
	int r = file_read(ap_buf_text(&path), flags, FILE_MAX, &text, NULL);
	if (r == -ENOMEM || text.failed)
		return -ENOMEM;
	return r < 0 || text.len == 0 ? 0 : parse(file, text.data, text.len, attributes, macros);
}

/* --- the rules --- */

struct git_rules *git_rules_new(const struct git_rules_place *place)
{
	struct git_rules *rules = calloc(1, sizeof *rules);
	char binary[] = "[attr]binary -diff -merge -text";
	if (!rules)
		return NULL;
	rules->dir = strdup(place->dir);
	rules->path = strdup("");
	int r = rules->dir && rules->path ? 0 : -ENOMEM;
	if (r == 0 && place->excludes)
		r = read_rules(&rules->excludes, place->excludes, "", 0, false, false);
	if (r == 0)
		r = read_rules(&rules->exclude, place->info, "exclude", 0, false, false);
	if (r == 0)
		r = parse(&rules->builtin, binary, strlen(binary), true, true);
	if (r == 0 && place->system)
		r = read_rules(&rules->system, place->system, "", 0, true, true);
	if (r == 0 && place->attributes)
		r = read_rules(&rules->user_attributes, place->attributes, "", 0, true, true);
	if (r == 0)
		r = read_rules(&rules->info, place->info, "attributes", 0, true, true);
	if (r < 0) {
		git_rules_free(rules);
		return NULL;
	}
	return rules;
}

static void drop_levels(struct git_rules *rules, size_t n)
{
	while (rules->n_levels > n) {
		struct level *level = &rules->levels[--rules->n_levels];
		file_free(&level->ignore);
		file_free(&level->attributes);
	}
}

void git_rules_free(struct git_rules *rules)
{
	if (!rules)
		return;
	struct file *files[] = {&rules->excludes, &rules->exclude,	   &rules->builtin,
				&rules->system,	  &rules->user_attributes, &rules->info};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		file_free(files[i]);
	drop_levels(rules, 0);
	free(rules->levels);
	free(rules->dir);
	free(rules->path);
	free(rules);
}

static int add_level(struct git_rules *rules, const char *path, size_t base_len)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	struct level *levels =
		realloc(rules->levels, (rules->n_levels + 1) * sizeof *rules->levels);
	if (!levels)
		return -ENOMEM;
	rules->levels = levels;
	struct level *level = &levels[rules->n_levels];
	*level = (struct level){.base_len = base_len};
	ap_buf_printf(&dir, "%s/", rules->dir);
	ap_buf_add(&dir, path, base_len);
	if (dir.failed)
		return -ENOMEM;
	rules->n_levels++;
	dir.data[dir.len - 1] = '\0';
	int r = read_rules(&level->ignore, dir.data, ".gitignore", O_NOFOLLOW, false, false);
	return r < 0 ? r
		     : read_rules(&level->attributes, dir.data, ".gitattributes", O_NOFOLLOW, true,
				  base_len == 0);
}

/* Loads the rules of all directories above a path. */
static int enter(struct git_rules *rules, const char *path)
{
	size_t keep = 0;
	const char *slash = strrchr(path, '/');
	size_t dir_len = slash ? (size_t)(slash - path) + 1 : 0;
	while (keep < rules->n_levels && rules->levels[keep].base_len <= dir_len &&
	       strncmp(rules->path, path, rules->levels[keep].base_len) == 0)
		keep++;
	drop_levels(rules, keep);
	char *copy = strndup(path, dir_len);
	if (!copy)
		return -ENOMEM;
	free(rules->path);
	rules->path = copy;
	int r = rules->n_levels == 0 ? add_level(rules, path, 0) : 0;
	size_t at = r == 0 ? rules->levels[rules->n_levels - 1].base_len : 0;
	for (; r == 0 && at < dir_len; at++) {
		if (path[at] == '/')
			r = add_level(rules, path, at + 1);
	}
	if (r < 0)
		drop_levels(rules, 0);
	return r;
}

/* What the last line that matches a path says: 1, 0; -1: no line matches. */
static int last_of(const struct file *file, const char *path, size_t base_len, bool is_dir)
{
	for (size_t i = file->n; i > 0; i--) {
		if (git_pattern_matches(&file->lines[i - 1].pattern, path, base_len, is_dir))
			return !file->lines[i - 1].pattern.is_negative;
	}
	return -1;
}

int git_rules_ignore(struct git_rules *rules, const char *path, bool is_dir)
{
	if (enter(rules, path) < 0)
		return -ENOMEM;
	int says = -1;
	for (size_t i = rules->n_levels; says < 0 && i > 0; i--) {
		const struct level *level = &rules->levels[i - 1];
		says = last_of(&level->ignore, path, level->base_len, is_dir);
	}
	if (says < 0)
		says = last_of(&rules->exclude, path, 0, is_dir);
	if (says < 0)
		says = last_of(&rules->excludes, path, 0, is_dir);
	return says > 0;
}

/* --- attributes --- */

/* The attributes that have a value already: those that the caller wants, and others, which may be
 * macros. */
struct values {
	struct git_rules *rules;
	const char **ret; /* of those that the caller wants */
	bool decided[N_GIT_ATTRS];
	const char **names; /* others that have a value; the array is owned */
	size_t n;
	bool failed;
};

/* Gives an attribute its value, unless it has one already: true then. */
static bool decide(struct values *values, const char *name, const char *value)
{
	for (size_t i = 0; i < N_GIT_ATTRS; i++) {
		if (strcmp(git_attr_names[i], name) != 0)
			continue;
		if (values->decided[i])
			return true;
		values->decided[i] = true;
		values->ret[i] = value == attr_unset ? NULL : value;
		return false;
	}
	for (size_t i = 0; i < values->n; i++) {
		if (strcmp(values->names[i], name) == 0)
			return true;
	}
	const char **names = realloc(values->names, (values->n + 1) * sizeof *names);
	if (!names) {
		values->failed = true;
		return true;
	}
	values->names = names;
	names[values->n++] = name;
	return false;
}

/* The files of attributes by rank, the highest first; NULL: there are no more. */
static const struct file *ranked(const struct git_rules *rules, size_t i, size_t *ret_base_len)
{
	const struct file *others[] = {&rules->user_attributes, &rules->system, &rules->builtin};
	*ret_base_len = 0;
	if (i == 0)
		return &rules->info;
	if (i <= rules->n_levels) {
		const struct level *level = &rules->levels[rules->n_levels - i];
		*ret_base_len = level->base_len;
		return &level->attributes;
	}
	i -= rules->n_levels + 1;
	return i < sizeof others / sizeof *others ? others[i] : NULL;
}

static const struct line *find_macro(const struct git_rules *rules, const char *name)
{
	size_t base_len;
	const struct file *file;
	for (size_t i = 0; (file = ranked(rules, i, &base_len)); i++) {
		for (size_t k = file->n; k > 0; k--) {
			const struct line *line = &file->lines[k - 1];
			if (line->macro && strcmp(line->macro, name) == 0)
				return line;
		}
	}
	return NULL;
}

/* Applies a line: what comes last in it counts, and a macro that is set sets what it stands for. A
 * macro that has a value already is not expanded again: so macros end, however they name one
 * another. */
static void apply(struct values *values, const struct line *line, unsigned depth)
{
	for (size_t i = line->n; i > 0; i--) {
		const struct setting *setting = &line->settings[i - 1];
		if (decide(values, setting->name, setting->value) ||
		    setting->value != git_attr_true || depth == 0)
			continue;
		const struct line *macro = find_macro(values->rules, setting->name);
		if (macro)
			apply(values, macro, depth - 1);
	}
}

#define MACRO_DEPTH 100

int git_rules_attributes(struct git_rules *rules, const char *path,
			 const char *ret_values[N_GIT_ATTRS])
{
	struct values values = {.rules = rules, .ret = ret_values};
	size_t base_len;
	const struct file *file;
	for (size_t i = 0; i < N_GIT_ATTRS; i++)
		ret_values[i] = NULL;
	if (enter(rules, path) < 0)
		return -ENOMEM;
	for (size_t i = 0; (file = ranked(rules, i, &base_len)); i++) {
		for (size_t k = file->n; k > 0; k--) {
			const struct line *line = &file->lines[k - 1];
			if (!line->macro &&
			    git_pattern_matches(&line->pattern, path, base_len, false))
				apply(&values, line, MACRO_DEPTH);
		}
	}
	free(values.names);
	return values.failed ? -ENOMEM : 0;
}
