/* Ignore rules and attributes, as gitignore(5) and gitattributes(5) describe them and git itself
 * reads them: libgit2 differs from git in what overrides what. Keeps the rules of the directories
 * above the path of the last question. */
#pragma once

#include "git_internal.h"

/* A pattern of either kind of file. */
struct git_pattern {
	char *text;	     /* without what the flags below say; owned */
	size_t len, n_plain; /* bytes; bytes at its beginning that are no wildcards */
	bool is_negative, for_dirs, for_names; /* for_names: has no slash, matches the last part */
	bool is_suffix;			       /* a star, then no other wildcard */
};

/* Parses a line, given without its newline. -ENOMEM. */
int git_pattern_parse(struct git_pattern *ret, const char *line);

/* Whether a pattern matches a path, whose first `base_len` bytes, with the slash, are the directory
 * of the rules. */
bool git_pattern_matches(const struct git_pattern *pattern, const char *path, size_t base_len,
			 bool is_dir);

/* Where the rules are. */
struct git_rules_place {
	const char *dir;      /* has the rules of a work tree, in its directories */
	const char *info;     /* the directory of REPO's own files: exclude, attributes */
	const char *excludes; /* the user's own files; NULL: none */
	const char *attributes;
	const char *system; /* attributes of the system; NULL: none */
};

struct git_rules;

/* Copies what it is given. NULL on ENOMEM. */
struct git_rules *git_rules_new(const struct git_rules_place *place);
void git_rules_free(struct git_rules *rules); /* NULL is ignored */

/* Whether the rules for a path say that it is ignored, whatever those for directories above it say.
 * 1, 0, -ENOMEM. */
int git_rules_ignore(struct git_rules *rules, const char *path, bool is_dir);

/* The values of attributes of a file; they live until the next call. -ENOMEM. */
int git_rules_attributes(struct git_rules *rules, const char *path,
			 const char *ret_values[N_GIT_ATTRS]);
