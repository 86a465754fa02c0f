/* Git: the repository, worktrees, lease branches, saving work, diff. The only user of git. Runs the
 * git program, so that every kind of repository works that it can read.
 *
 * A worktree is hostile ground: its agent may have changed or deleted anything in it, the `.git`
 * file included. So git is always told where the worktree's administrative directory is, and runs
 * without hooks, fsmonitor and external diff there, and within a time limit. Nothing here touches
 * the user's own checkout, index, stash or branches. All functions block; all may run in several
 * threads. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "text.h"

#define WORKTREE_OID_MAX       64 /* hex digits of a sha256 */
#define WORKTREE_BRANCH_PREFIX "agentpool/"

struct repo {
	char *path;	  /* what the user gave, made absolute */
	char *git_dir;	  /* its own: another than common_dir where it is a linked worktree */
	char *common_dir; /* the git directory that all its worktrees share */
};

/* Fills `ret`. -EINVAL: no repository, or one without a commit. */
int repo_open(struct repo *ret, const char *path, struct ap_err *err);
void repo_fini(struct repo *repo);

/* The commit that a revision names. -EINVAL. */
int repo_resolve(const struct repo *repo, const char *revision, char ret_oid[WORKTREE_OID_MAX + 1],
		 struct ap_err *err);

struct worktree {
	const struct repo *repo;
	char *path;	 /* the files */
	char *admin_dir; /* COMMON/worktrees/NAME */
};

/* Makes a worktree at `path`, at the commit `base`, on no branch. On failure nothing is left. */
int worktree_add(struct worktree *ret, const struct repo *repo, const char *path, const char *base,
		 int64_t limit_ns, struct ap_err *err);

/* Takes an existing worktree up again, such as a dead daemon left. `admin_dir` is its
 * administrative directory if that is known; NULL: the one that its `.git` file names, if it is the
 * repository's. */
int worktree_open(struct worktree *ret, const struct repo *repo, const char *path,
		  const char *admin_dir, struct ap_err *err);

/* Frees the description; the worktree stays. */
void worktree_fini(struct worktree *worktree);

/* The files and the administrative directory are there. */
bool worktree_present(const struct worktree *worktree);

/* What a lease stands on. */
struct worktree_lease {
	char label[AP_LABEL_MAX + 1];
	char base[WORKTREE_OID_MAX + 1]; /* commit that the lease started from */
	bool created;			 /* its branch did not exist before */
};

/* Puts the worktree on branch agentpool/LABEL: where that stands if it exists, else newly made at
 * `base_revision` as it is now. lease->label is given, the rest filled in. -EBUSY: the branch is
 * checked out elsewhere; -EINVAL: no such revision; anything else is the worktree's fault. */
int worktree_start(const struct worktree *worktree, const char *base_revision,
		   struct worktree_lease *lease, struct ap_err *err);

/* Commits all changes, untracked files included and ignored ones not, to the lease's branch,
 * whatever branch or commit the agent has left HEAD on: its own commits are kept by the branch too.
 * A branch that the lease created and that got no commit is removed. Runs no hook. On failure the
 * worktree and the branch are as they were. */
int worktree_save(const struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, struct ap_err *err);

/* Throws away what is in the worktree, and the lease's branch if the lease created it. */
int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err);

/* Makes it clean at `base`, on no branch; ignored files go too. */
int worktree_clean(const struct worktree *worktree, const char *base, struct ap_err *err);

/* Removes files and administrative directory, whatever is in them. What the lease left on branches
 * stays. */
int worktree_remove(const struct worktree *worktree, struct ap_err *err);

/* The branch HEAD is on, "" if none, and the commit it is at. */
int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err);

/* The difference to `base` as git prints it, untracked files included; `stat` prints a summary.
 * Never writes to the worktree's index: works on a copy of it in `scratch`. */
int worktree_diff(const struct worktree *worktree, const char *base, bool stat, const char *scratch,
		  struct ap_buf *out, struct ap_err *err);
