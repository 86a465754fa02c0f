/* The files of an agent's worktree by which git decides what is ignored and how files are
 * converted, as copies in a directory of the pool's: git reads these, and none in the worktree. A
 * copy is made of a regular file of no more than RULES_MAX bytes; anything else is not there. Those
 * that a sparse checkout leaves out hold all the same, as git has them from its index. */
#pragma once

#include "err.h"
#include "git.h"
#include "layer.h"

#define RULES_MAX (1 << 20) /* bytes of one file */

struct rules {
	char *dir; /* owned; made and removed here */
	struct layer *layer;
	const char *top; /* path of the repository in the layer, whose rules they are; "" */
	char *filled;	 /* the last directory that was filled, owned */

	/* rules_leave_out() */
	struct ap_git *git;
	const char *checked_out; /* NULL: nothing is left out */
	char tree[GIT_OID_MAX + 1];
};

/* Begins with an empty directory below `scratch`. 0, or a negative errno with its sentence. */
int rules_init(struct rules *ret, const char *scratch, struct layer *layer, const char *top,
	       struct ap_err *err);
void rules_fini(struct rules *rules);

/* Says that not all of a tree was checked out: what it has is in `checked_out`, a directory, or was
 * left out. All that is given outlives the rules' use. */
int rules_leave_out(struct rules *rules, struct ap_git *git, const char *checked_out,
		    const char *commit, struct ap_err *err);

/* Copies those of a directory and of all above it, up to the top. `path` is relative to the top.
 * One that is too long for a path of the system has none. */
int rules_fill(struct rules *rules, const char *path, struct ap_err *err);

/* The same for what lies at a path: of the directory that it is in. */
int rules_fill_for(struct rules *rules, const char *path, struct ap_err *err);
