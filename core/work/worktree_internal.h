/* What worktree.c and worktree_save.c share. */
#pragma once

#include <stdio.h>

#include "worktree.h"

static inline struct git_place place_of(const struct worktree *worktree)
{
	return (struct git_place){.git_dir = worktree->admin_dir, .work_tree = worktree->path};
}

static inline void branch_ref(char ret[AP_LABEL_MAX + 32], const char *label)
{
	snprintf(ret, AP_LABEL_MAX + 32, "refs/heads/" WORKTREE_BRANCH_PREFIX "%s", label);
}

/* Has the files of an overlay appear again where nothing is mounted: after the machine was started
 * anew, or somebody unmounted it. Its layers are there all the same. */
int worktree_attach(struct worktree *worktree, struct ap_err *err);

/* Makes the administrative directory anew where an agent has removed it: at the commit, with an
 * index of it. */
int worktree_repair(struct worktree *worktree, const char *commit, struct ap_err *err);
