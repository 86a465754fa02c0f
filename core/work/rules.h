/* Copies of the .gitignore and .gitattributes files of an agent's worktree in a directory of the
 * pool's: git reads these, and none in the worktree. Copies only a regular file of no more than
 * RULES_MAX bytes; anything else is not there. Files that a sparse checkout leaves out count all
 * the same, as git has them from its index; the copies are from the tree of the commit. */
#pragma once

#include "err.h"
#include "git.h"
#include "layer.h"

#define RULES_MAX (1 << 20) /* bytes of one file */

struct rules {
	char *dir; /* owned; made and removed here */
	struct layer *layer;
	const char *top; /* path in the layer of the repository whose rules they are; "" */
	char *filled;	 /* the last directory that was filled, owned */

	/* set by rules_leave_out() */
	struct ap_git *git;
	const char *checked_out; /* NULL: nothing is left out */
	char tree[GIT_OID_MAX + 1];
};

/* Makes an empty directory below `scratch`. 0, or a negative errno with its sentence. */
int rules_init(struct rules *ret, const char *scratch, struct layer *layer, const char *top,
	       struct ap_err *err);
void rules_fini(struct rules *rules);

/* Makes the rules count files that a sparse checkout left out: what the tree of `commit` has and
 * the directory `checked_out` has not. `git` and `checked_out` must outlive the rules' use. */
int rules_leave_out(struct rules *rules, struct ap_git *git, const char *checked_out,
		    const char *commit, struct ap_err *err);

/* Copies the files of a directory and of all above it, up to the top. `path` is relative to the
 * top. A directory whose path is longer than PATH_MAX has none. */
int rules_fill(struct rules *rules, const char *path, struct ap_err *err);

/* Likewise, for the directory that the name at `path` is in. */
int rules_fill_for(struct rules *rules, const char *path, struct ap_err *err);
