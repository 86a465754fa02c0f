/* Patterns of .gitignore and .gitattributes files. Anybody may have written them: the steps of one
 * comparison have a bound, beyond which nothing matches. */
#include "git_rules.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STEPS 100000

struct wild {
	const char *begin; /* of the pattern */
	bool is_path;	   /* only a slash or two stars match a slash */
	unsigned steps;	   /* that are left */
};

static const struct {
	const char *name;
	int (*holds)(int c);
} classes[] = {{"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl},
	       {"digit", isdigit}, {"graph", isgraph}, {"lower", islower}, {"print", isprint},
	       {"punct", ispunct}, {"space", isspace}, {"upper", isupper}, {"xdigit", isxdigit}};

/* Whether a character is of a class [:name:]; -1: there is none of that name. */
static int is_of(const char *name, size_t len, unsigned char c)
{
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
		if (strlen(classes[i].name) == len && strncmp(classes[i].name, name, len) == 0)
			return c < 128 && classes[i].holds(c) != 0;
	}
	return -1;
}

/* Reads one character of a set, which may be escaped. */
static bool next_of_set(const char **at, unsigned char *ret)
{
	if (**at == '\\')
		(*at)++;
	*ret = (unsigned char)**at;
	return *ret != '\0';
}

/* Whether a set in brackets has a character. *ret_end points behind the set; NULL: the set does not
 * end. */
static bool set_has(const char *at, unsigned char c, const char **ret_end)
{
	bool negated = *++at == '!' || *at == '^', has = false;
	unsigned char before = 0, now;
	*ret_end = NULL;
	at += negated;
	for (bool first = true; first || *at != ']'; first = false, at++) {
		if (*at == '[' && at[1] == ':') {
			const char *end = strchr(at + 2, ']');
			if (!end)
				return false;
			if (end - at > 2 && end[-1] == ':') {
				int of = is_of(at + 2, (size_t)(end - 1 - (at + 2)), c);
				if (of < 0)
					return false;
				has |= of > 0;
				before = 0;
				at = end;
				continue;
			}
		}
		bool is_range = *at == '-' && before && at[1] && at[1] != ']';
		at += is_range;
		if (!next_of_set(&at, &now))
			return false;
		has |= is_range ? c >= before && c <= now : c == now;
		before = is_range ? 0 : now;
	}
	*ret_end = at + 1;
	return has != negated;
}

static bool matches(struct wild *wild, const char *p, const char *text);

/* Matches stars: tries the empty text first, then ever longer ones. */
static bool matches_star(struct wild *wild, const char *p, const char *text)
{
	const char *rest = p + strspn(p, "*");
	bool at_begin = p == wild->begin || p[-1] == '/';
	bool at_end = *rest == '\0' || *rest == '/' || (rest[0] == '\\' && rest[1] == '/');
	bool wide = !wild->is_path || (rest - p > 1 && at_begin && at_end);
	if (wide && wild->is_path && *rest == '/' && matches(wild, rest + 1, text))
		return true;
	for (;; text++) {
		if (matches(wild, rest, text))
			return true;
		if (*text == '\0' || (*text == '/' && !wide) || wild->steps == 0)
			return false;
	}
}

static bool matches(struct wild *wild, const char *p, const char *text)
{
	for (; *p; text++) {
		if (wild->steps == 0)
			return false;
		wild->steps--;
		if (*p == '*')
			return matches_star(wild, p, text);
		if (*text == '\0')
			return false;
		if (*p == '?' || *p == '[') {
			const char *end = p + 1;
			if ((*p == '[' && !set_has(p, (unsigned char)*text, &end)) || !end ||
			    (*text == '/' && wild->is_path))
				return false;
			p = end;
		} else {
			p += *p == '\\';
			if (*p != *text)
				return false;
			p++;
		}
	}
	return *text == '\0';
}

static bool matches_wild(const char *pattern, const char *text, bool is_path)
{
	struct wild wild = {.begin = pattern, .is_path = is_path, .steps = MAX_STEPS};
	return matches(&wild, pattern, text);
}

int git_pattern_parse(struct git_pattern *ret, const char *line)
{
	static const char special[] = "*?[\\";
	struct git_pattern pattern = {.is_negative = *line == '!'};
	line += pattern.is_negative;
	pattern.len = strlen(line);
	pattern.for_dirs = pattern.len > 0 && line[pattern.len - 1] == '/';
	pattern.len -= pattern.for_dirs;
	pattern.for_names = !memchr(line, '/', pattern.len);
	pattern.n_plain = strcspn(line, special);
	if (pattern.n_plain > pattern.len)
		pattern.n_plain = pattern.len;
	pattern.is_suffix = *line == '*' && !strpbrk(line + 1, special);
	pattern.text = strndup(line, pattern.len);
	*ret = pattern;
	return pattern.text ? 0 : -ENOMEM;
}

static bool matches_name(const struct git_pattern *pattern, const char *name)
{
	size_t len = strlen(name);
	if (pattern->n_plain == pattern->len)
		return strcmp(pattern->text, name) == 0;
	if (pattern->is_suffix)
		return len >= pattern->len - 1 &&
		       strcmp(pattern->text + 1, name + len - (pattern->len - 1)) == 0;
	return matches_wild(pattern->text, name, false);
}

bool git_pattern_matches(const struct git_pattern *pattern, const char *path, size_t base_len,
			 bool is_dir)
{
	const char *name = strrchr(path, '/');
	if (pattern->for_dirs && !is_dir)
		return false;
	if (pattern->for_names)
		return matches_name(pattern, name ? name + 1 : path);
	const char *text = pattern->text, *rest = path + base_len;
	size_t n_plain = pattern->n_plain;
	if (*text == '/') {
		text++;
		n_plain -= n_plain > 0;
	}
	if (strncmp(text, rest, n_plain) != 0)
		return false;
	/* the rest is a pattern of its own: two stars at its beginning count as at a beginning */
	return matches_wild(text + n_plain, rest + n_plain, true);
}
