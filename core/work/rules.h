/* The files of an agent's worktree by which git decides what is ignored and how files are
 * converted, as copies in a directory of the pool's: git reads these, and none in the worktree. A
 * copy is made of a regular file of no more than RULES_MAX bytes; anything else is not there. */
#pragma once

#include "err.h"
#include "layer.h"

#define RULES_MAX (1 << 20) /* bytes of one file */

struct rules {
	char *dir; /* owned; made and removed here */
	struct layer *layer;
	const char *top; /* path of the repository in the layer, whose rules they are; "" */
	char *filled;	 /* the last directory that was filled, owned */
};

/* Begins with an empty directory below `scratch`. 0, or a negative errno with its sentence. */
int rules_init(struct rules *ret, const char *scratch, struct layer *layer, const char *top,
	       struct ap_err *err);
void rules_fini(struct rules *rules);

/* Copies those of a directory and of all above it, up to the top. `path` is relative to the top.
 * One that is too long for a path of the system has none. */
int rules_fill(struct rules *rules, const char *path, struct ap_err *err);

/* The same for what lies at a path: of the directory that it is in. */
int rules_fill_for(struct rules *rules, const char *path, struct ap_err *err);
