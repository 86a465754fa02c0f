/* Worktrees and the branches of leases: made, put on a branch, saved, cleaned, looked at.
 *
 * A worktree is hostile ground: its agent may have changed or deleted anything in it, the `.git`
 * file and what git keeps of it included. So git is always told where the worktree's
 * administrative directory is (git.h). Nothing here touches the user's own checkout, index, stash
 * or branches. All functions block; all may run in several threads, for one worktree one at a
 * time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "repo.h"
#include "template.h"
#include "text.h"

#define WORKTREE_BRANCH_PREFIX "agentpool/"
/* Where work is kept that a branch cannot hold: LABEL/… below it. */
#define WORKTREE_KEPT_PREFIX "refs/agentpool/"

struct worktree {
	const struct repo *repo;
	struct templates *templates;
	struct template *template; /* that its files are from, referenced; NULL: from git itself */
	char *path;		   /* the files: STATE_DIR/worktrees/NAME */
	char *layers;		   /* its backend's own: STATE_DIR/layers/NAME */
	char *admin_dir;	   /* COMMON_DIR/worktrees/…; NULL: not made yet */
	char commit[GIT_OID_MAX + 1]; /* where the pool last put it */
};

/* Makes the worktree of that name, at the commit `base`, on no branch. Ignored files that the
 * repository's .worktreeinclude names are copied into it. On failure nothing is left. */
int worktree_add(struct worktree *ret, struct templates *templates, const char *name,
		 const char *base, int64_t limit_ns, struct ap_err *err);

/* Takes an existing worktree up again, such as a dead daemon left. `admin_dir` is its
 * administrative directory if that is known, "" if it has none; NULL: the one that its `.git` file
 * names, if it is the repository's. */
int worktree_open(struct worktree *ret, struct templates *templates, const char *name,
		  const char *admin_dir, struct ap_err *err);

/* Describes one that is only to be removed, whatever has become of it. `admin_dir` as above. */
int worktree_left(struct worktree *ret, struct templates *templates, const char *name,
		  const char *admin_dir, struct ap_err *err);

/* Frees the description; the worktree stays. */
void worktree_fini(struct worktree *worktree);

/* As worktree_fini(), for one that is kept as it is, with its work: its template stays too. */
void worktree_leave(struct worktree *worktree);

/* The files and what git keeps of them are there, as far as a look at the places tells. */
bool worktree_present(const struct worktree *worktree);

/* What a lease stands on. */
struct worktree_lease {
	char label[AP_LABEL_MAX + 1];
	char base[GIT_OID_MAX + 1]; /* commit that the lease started from */
	bool created;		    /* its branch did not exist before */
};

/* What a lease would stand on: the branch agentpool/LABEL if it exists, else a new one at
 * `base_revision` as it is now. lease->label is given, the rest filled in; changes nothing, so that
 * it can be written down first. -EINVAL: no such revision. */
int worktree_plan(const struct worktree *worktree, const char *base_revision,
		  struct worktree_lease *lease, struct ap_err *err);

/* Puts the worktree there. -EBUSY: the branch is checked out elsewhere, or cannot be; nothing is
 * changed then. Anything else is the worktree's fault, and the branch may be there: saving removes
 * it again. */
int worktree_start(struct worktree *worktree, const struct worktree_lease *lease,
		   struct ap_err *err);

/* Puts a worktree that serves no lease at `commit`; costs what differs. */
int worktree_forward(struct worktree *worktree, const char *commit, struct ap_err *err);

/* Commits all changes, untracked files included and ignored ones not, to the lease's branch,
 * whatever branch or commit the agent has left HEAD on: its own commits are kept by the branch too.
 * What a branch cannot hold is kept by refs below refs/agentpool/LABEL/: the commits of
 * repositories inside the worktree, and those that the agent left behind on no branch. A branch
 * that the lease created and that got no commit is removed. Runs no hook. On failure the worktree
 * and the branch are as they were. */
int worktree_save(struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, struct ap_err *err);

/* Commits all changes as git sees them, untracked files included and ignored ones not, to the
 * lease's branch, or to HEAD where that is on none; those of repositories inside the worktree
 * first. The agent may be at work: what it writes meanwhile is in the commit or is changed behind
 * it. Runs no hook. -ENODATA: nothing has changed; -EBUSY: HEAD is on another branch; -EIO with
 * git's own sentence, such as of an index that the agent's git has locked. */
int worktree_commit(struct worktree *worktree, const struct worktree_lease *lease,
		    const char *message, struct ap_err *err);

/* Throws away what is in the worktree, and the lease's branch if the lease created it. */
int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err);

/* Makes it clean at `base`, on no branch, as worktree_add() would make it; ignored files go too.
 * Processes that run in it go on to see it if `in_place`; else none may. */
int worktree_clean(struct worktree *worktree, const char *base, bool in_place, int64_t limit_ns,
		   struct ap_err *err);

/* Removes files and administrative directory, whatever is in them; files behind the caller, see
 * templates_discard(). What the lease left on branches stays. */
int worktree_remove(struct worktree *worktree, struct ap_err *err);

/* The commit HEAD is at. */
int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err);

/* The difference to `base` as git prints it, untracked files included; `stat` prints a summary.
 * Never writes to the worktree's index: works on a copy of it in `scratch`. */
int worktree_diff(const struct worktree *worktree, const char *base, bool stat, const char *scratch,
		  struct ap_buf *out, struct ap_err *err);
