/* Worktrees and the branches of leases: made, put on a branch, saved, kept, cleaned, looked at.
 *
 * A worktree is hostile ground: its agent may have changed or deleted anything in it and in its git
 * directory. Git is never run in either while an agent has had them: what was changed is read as
 * data (layer.h, agent_git.h) and made into objects of the repository in the process (git.h).
 * Nothing here touches the user's own checkout, index, stash or branches: of the repository's refs
 * only those below refs/heads/agentpool/ and refs/agentpool/ are written. All functions block; all
 * may run in several threads, for one worktree one at a time but for those that look. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "repo.h"
#include "template.h"
#include "text.h"

/* How long a filter may take in a saving: as long as the machine gives that as a whole. */
#define WORKTREE_SAVE_LIMIT (600 * AP_SECOND)

#define WORKTREE_BRANCH_PREFIX "agentpool/"
/* Where work is kept that a branch cannot hold: LABEL/… below it. */
#define WORKTREE_KEPT_PREFIX "refs/agentpool/"

struct worktree {
	const struct repo *repo;
	struct templates *templates;
	struct template *template; /* that its files are from, referenced; NULL: from git itself */
	char *name;		   /* of the agent */
	char *path;		   /* the files: STATE_DIR/worktrees/NAME */
	char *layers;		   /* its backend's own and its lists: STATE_DIR/layers/NAME */
	char *git_dir;		   /* the agent's own, STATE_DIR/git/NAME; one of the repository's,
				    * COMMON_DIR/worktrees/…, of the backend `git`; NULL: not made yet */
	char *view;		   /* links to its objects, for looks: STATE_DIR/layers/NAME.view */
	uint64_t mount;		   /* that its files are in; 0: not known yet */
	char commit[GIT_OID_MAX + 1];	/* where the pool last put it */
	char origin[GIT_OID_MAX + 1];	/* without a template: what its manifest was written over */
	char followed[GIT_OID_MAX + 1]; /* where the pool has put the branch of its lease; "" */
};

/* Makes the worktree of that name, at the commit `base`, on no branch. Ignored files that the
 * repository's .worktreeinclude names are copied into it. On failure nothing is left. */
int worktree_add(struct worktree *ret, struct templates *templates, const char *name,
		 const char *base, int64_t limit_ns, struct ap_err *err);

/* Takes an existing worktree up again, such as a dead daemon left. `git_dir` is its git directory
 * if that is known, "" if it has none; NULL: where it is by the pool's own rules. */
int worktree_open(struct worktree *ret, struct templates *templates, const char *name,
		  const char *git_dir, struct ap_err *err);

/* Describes one that is only to be removed, whatever has become of it. `git_dir` as above. */
int worktree_left(struct worktree *ret, struct templates *templates, const char *name,
		  const char *git_dir, struct ap_err *err);

/* Frees the description; the worktree stays. */
void worktree_fini(struct worktree *worktree);

/* As worktree_fini(), for one that is kept as it is, with its work: its template stays too. */
void worktree_leave(struct worktree *worktree);

/* The files and what git keeps of them are there, as far as a look at the places tells. */
bool worktree_present(const struct worktree *worktree);

/* --- what setup makes --- */

/* Before and after setup has run in it: what it makes is the worktree's baseline, in no diff and on
 * no branch as long as it stays as it is. Costs a look at what was changed. */
struct layer_list;
int worktree_before_setup(const struct worktree *worktree, struct layer_list **ret,
			  struct ap_err *err);
int worktree_after_setup(const struct worktree *worktree, struct layer_list *before,
			 struct ap_err *err);

/* --- leases --- */

/* What a lease stands on. */
struct worktree_lease {
	char label[AP_LABEL_MAX + 1];
	char base[GIT_OID_MAX + 1]; /* commit that the lease started from */
	bool created;		    /* its branch did not exist before */
};

/* What a lease would stand on: the branch agentpool/LABEL if it exists, else a new one at
 * `base_revision` as it is now. lease->label is given, the rest filled in; changes nothing, so that
 * it can be written down first. -EINVAL: no such revision. -EBUSY: the branch is checked out
 * elsewhere, or cannot be. */
int worktree_plan(const struct worktree *worktree, const char *base_revision,
		  struct worktree_lease *lease, struct ap_err *err);

/* Puts the worktree there, on the branch in the agent's own git; the repository gets the branch
 * with its first commit. On failure saving it leaves nothing behind. */
int worktree_start(struct worktree *worktree, const struct worktree_lease *lease,
		   struct ap_err *err);

/* Puts a worktree that serves no lease at `commit`; costs what differs. */
int worktree_forward(struct worktree *worktree, const char *commit, struct ap_err *err);

/* What came of a saving. */
struct worktree_saved {
	char commit[GIT_OID_MAX + 1]; /* that the branch is at; "": it has none of its own */
	bool is_untouched;	      /* nothing was changed, and nothing made in the agent's git */
	struct ap_buf only_kept; /* what git has no place for, the first of it: a sentence; empty:
				  * all is in the repository. Owned by the caller */
};

/* How far a saving is; called from it, often. */
typedef void worktree_progress(void *data, uint64_t n_files, uint64_t bytes);

/* Has the lease's branch in the repository hold all changes, untracked files included and ignored
 * ones not, whatever branch or commit the agent has left HEAD on: its own commits are kept by the
 * branch too. What a branch cannot hold is kept by refs below refs/agentpool/LABEL/: other
 * branches, stashes and commits that the agent left behind on none, and those of repositories
 * inside the worktree, with their files. A branch that the lease created and that got no commit is
 * removed. Runs nothing of the agent's. On failure worktree and branch are as they were: -EIO with
 * the first path that cannot be read. */
int worktree_save(struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, worktree_progress *progress, void *data,
		  struct worktree_saved *ret, struct ap_err *err);

/* Has the branch in the repository follow the agent's own commits on it, if there are new ones. */
int worktree_follow(struct worktree *worktree, const struct worktree_lease *lease,
		    struct ap_err *err);

/* Commits all changes, untracked files included and ignored ones not, to the lease's branch, in the
 * repository and in the agent's own git; those of repositories inside the worktree first. The agent
 * may be at work: what it writes meanwhile is in the commit or is changed behind it. Runs no hook.
 * -ENODATA: nothing has changed; -EBUSY: HEAD is on another branch; -EIO: the agent's git has its
 * index locked. */
int worktree_commit(struct worktree *worktree, const struct worktree_lease *lease,
		    const char *message, struct ap_err *err);

/* Moves what a lease left into the directory `dir`, as `files` and `git`: of an overlay its upper
 * layer, else the files that were changed. `in_place`: what runs in the worktree goes on, and the
 * files stay there too; else there is no worktree afterwards until it is cleaned. */
int worktree_keep(struct worktree *worktree, const char *dir, bool in_place, struct ap_err *err);

/* The lease is over, in whichever way: the repository need not hold what it stood on. */
void worktree_end(const struct worktree *worktree);

/* Throws away what is in the worktree, and puts the lease's branch back to where it was: one that
 * was moved by somebody else meanwhile stays. */
int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err);

/* Makes it clean at `base`, on no branch, as worktree_add() would make it; ignored files go too,
 * and the git directory is new. Processes that run in it go on to see it if `in_place`; else none
 * may. */
int worktree_clean(struct worktree *worktree, const char *base, bool in_place, int64_t limit_ns,
		   struct ap_err *err);

/* Lets go of everything that is mounted in the worktree, lazily, and calls `each` with the places.
 */
int worktree_unmount(const struct worktree *worktree,
		     void (*each)(void *data, const char *place, const char *type), void *data,
		     struct ap_err *err);

/* Removes files and git directory, whatever is in them; files behind the caller, see
 * templates_discard(). What the lease left on branches stays. */
int worktree_remove(struct worktree *worktree, struct ap_err *err);

/* --- looking: nothing is written into the repository --- */

/* The commit that the agent's HEAD is at, and a newline. */
int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err);

enum worktree_look {
	WORKTREE_CHANGES,  /* a line a path, as git status --porcelain: X against `base` in the
			    * agent's  commits, Y in the files against these */
	WORKTREE_DIFF,	   /* as git diff prints it, untracked files included */
	WORKTREE_DIFFSTAT, /* its summary */
};

/* The difference of the files to `base`, a commit; "" the agent's own HEAD. -EFBIG: more than 64
 * MiB. */
int worktree_look(const struct worktree *worktree, const char *base, enum worktree_look what,
		  struct ap_buf *out, struct ap_err *err);
