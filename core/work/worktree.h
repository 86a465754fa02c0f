/* Worktrees and the branches of leases: makes worktrees, puts them on branches, saves, keeps,
 * cleans and inspects them.
 *
 * A worktree is hostile ground: its agent may have changed or deleted anything in it and in its git
 * directory. Once an agent has had them, the pool never runs git in either: it reads what was
 * changed as data (layer.h, agent_git.h) and writes it as objects of the repository in its own
 * process (git.h). Nothing here touches the user's own checkout, index, stash or branches: of the
 * repository's refs the pool writes only those below refs/heads/agentpool/ and refs/agentpool/. All
 * functions block. All may run in several threads; for one worktree only one may run at a time,
 * except worktree_head() and worktree_look(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "repo.h"
#include "template.h"
#include "text.h"

/* Time limit of one run of a filter while a lease is saved: what the machine allows for the whole
 * save. */
#define WORKTREE_SAVE_LIMIT (600 * AP_SECOND)

#define WORKTREE_BRANCH_PREFIX "agentpool/"
/* Refs for the work that a branch cannot hold: LABEL/… below this prefix. */
#define WORKTREE_KEPT_PREFIX "refs/agentpool/"

struct worktree {
	const struct repo *repo;
	struct templates *templates;
	struct template *template;    /* that its files are from, referenced; NULL: from git */
	char *name;		      /* of the agent */
	char *path;		      /* the files: STATE_DIR/worktrees/NAME */
	char *layers;		      /* of its backend, and its lists: STATE_DIR/layers/NAME */
	char *git_dir;		      /* STATE_DIR/git/NAME, or with the backend `git` the
				       * repository's COMMON_DIR/worktrees/…; NULL: not made yet */
	char *view;		      /* links to its objects, for worktree_look():
				       * STATE_DIR/scratch/NAME.view */
	uint64_t mount;		      /* ID of the mount that its files are in; 0: not known yet */
	char commit[GIT_OID_MAX + 1]; /* where the pool last put it; "": a lease may move it */
	char origin[GIT_OID_MAX + 1]; /* without a template: the commit of its manifest */
	char followed[GIT_OID_MAX + 1]; /* where the pool last put its lease's branch; or "" */
};

/* Makes the worktree of that name with a detached HEAD at the commit `base`, and copies the ignored
 * files that the repository's .worktreeinclude names into it. On failure nothing is left. */
int worktree_add(struct worktree *ret, struct templates *templates, const char *name,
		 const char *base, int64_t limit_ns, struct ap_err *err);

/* Opens an existing worktree again, such as one that a dead daemon left. `git_dir` is its git
 * directory if the caller knows it, "" if it has none; NULL: STATE_DIR/git/NAME if that exists,
 * else what the worktree's `.git` file names. */
int worktree_open(struct worktree *ret, struct templates *templates, const char *name,
		  const char *git_dir, struct ap_err *err);

/* Describes a worktree that the caller only removes, whatever has become of it. `git_dir` is its
 * git directory, "" if it has none; not NULL. */
int worktree_left(struct worktree *ret, struct templates *templates, const char *name,
		  const char *git_dir, struct ap_err *err);

/* Frees the description; the worktree stays. */
void worktree_fini(struct worktree *worktree);

/* As worktree_fini(), for a worktree that stays as it is, with its work: it keeps its reference to
 * the template, so the template stays too. */
void worktree_leave(struct worktree *worktree);

/* Whether the files, their `.git` file and the git directory are there, judged by their paths and
 * mounts alone. */
bool worktree_present(const struct worktree *worktree);

/* --- what setup makes --- */

/* The caller calls these before and after setup runs in the worktree. What setup makes becomes the
 * worktree's baseline: it is in no diff and on no branch as long as nobody changes it. Each scans
 * what was changed. worktree_after_setup() takes over `before`. */
struct layer_list;
int worktree_before_setup(const struct worktree *worktree, struct layer_list **ret,
			  struct ap_err *err);
int worktree_after_setup(const struct worktree *worktree, struct layer_list *before,
			 struct ap_err *err);

/* --- leases --- */

/* Where a lease starts. */
struct worktree_lease {
	char label[AP_LABEL_MAX + 1];
	char base[GIT_OID_MAX + 1]; /* commit that the lease started from */
	bool created;		    /* its branch did not exist before */
};

/* Fills `lease` with where it would start: the branch agentpool/LABEL if it exists, else a new
 * branch at the commit that `base_revision` names now. The caller sets lease->label. Changes
 * nothing, so the caller can record the lease first. -EINVAL: no such revision. -EBUSY: the branch
 * is checked out elsewhere, or cannot exist beside a branch `agentpool`. */
int worktree_plan(const struct worktree *worktree, const char *base_revision,
		  struct worktree_lease *lease, struct ap_err *err);

/* Puts the worktree at lease->base, on the branch, in the agent's own git; the repository gets the
 * branch with its first commit (with the backend `git` at once). After a failure saving or
 * discarding the lease leaves nothing behind. */
int worktree_start(struct worktree *worktree, const struct worktree_lease *lease,
		   struct ap_err *err);

/* Puts a worktree that serves no lease at `commit`. The cost grows with what differs. */
int worktree_forward(struct worktree *worktree, const char *commit, struct ap_err *err);

/* The result of a save. */
struct worktree_saved {
	char commit[GIT_OID_MAX + 1]; /* that the branch is at; "": the lease created the branch and
				       * made no commit */
	bool is_untouched;	      /* no file was changed, and the agent's git has nothing new */
	struct ap_buf only_kept;      /* a sentence with the first thing that git has no place for;
				       * empty: all is in the repository. Owned by the caller */
};

/* Receives how far a save is: worktree_save() calls it often, in the caller's thread. */
typedef void worktree_progress(void *data, uint64_t n_files, uint64_t bytes);

/* Saves all changes on the lease's branch in the repository, with untracked and without ignored
 * files, whatever branch or commit the agent has left HEAD on; the branch holds the agent's own
 * commits too. Refs below refs/agentpool/LABEL/ hold what the branch cannot: other branches,
 * stashes, commits that the agent left on no branch, and those of repositories inside the worktree,
 * with their files. Removes a branch that the lease created and that got no commit. Runs nothing of
 * the agent's. On failure the files are as they were, but for modes that had to be made readable;
 * the branch may have moved if a ref below refs/agentpool/LABEL/ could not be set. -EACCES, -EIO,
 * …: the sentence names the first path that cannot be read. */
int worktree_save(struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, worktree_progress *progress, void *data,
		  struct worktree_saved *ret, struct ap_err *err);

/* Moves the branch in the repository forward to the agent's own commits on it, if there are new
 * ones. Leaves a branch that somebody else has moved to worktree_save(). */
int worktree_follow(struct worktree *worktree, const struct worktree_lease *lease,
		    struct ap_err *err);

/* Commits all changes, with untracked and without ignored files, to the lease's branch, in the
 * repository and in the agent's own git; commits those of repositories inside the worktree first.
 * The agent may be at work: what it writes meanwhile is in the commit or shows as a change after
 * it. Runs no hook. -ENODATA: nothing has changed; -EBUSY: HEAD is on another branch; -EIO: the
 * agent's git has its index locked. */
int worktree_commit(struct worktree *worktree, const struct worktree_lease *lease,
		    const char *message, struct ap_err *err);

/* Moves what a lease left into the directory `dir`: as `files` the upper directory of an overlay,
 * else the files that were changed; as `git` the agent's git directory, but for the backend `git`.
 * With `in_place` processes in the worktree go on, and the files stay there too; without, the
 * worktree is unusable until worktree_clean(). */
int worktree_keep(struct worktree *worktree, const char *dir, bool in_place, struct ap_err *err);

/* The lease is over, however it ended: removes the ref that holds its commit in the repository. */
void worktree_end(const struct worktree *worktree);

/* Gives up what the lease did on its branch: puts the branch back to lease->base, or removes it if
 * the lease created it. A branch that somebody else has moved meanwhile stays. Leaves the files to
 * worktree_clean(). */
int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err);

/* Cleans the worktree: makes it as worktree_add() would, with a detached HEAD at `base`. Ignored
 * files go too, and the git directory is new. With `in_place` processes that run in the worktree go
 * on to see it; without, no process may run in it. */
int worktree_clean(struct worktree *worktree, const char *base, bool in_place, int64_t limit_ns,
		   struct ap_err *err);

/* Lazily unmounts everything in the worktree, but for its own overlay, and in its git directory.
 * Calls `each`, which may be NULL, with the place and type of each mount. */
int worktree_unmount(const struct worktree *worktree,
		     void (*each)(void *data, const char *place, const char *type), void *data,
		     struct ap_err *err);

/* Removes the files and the git directory, whatever is in them; the files go after the call
 * returns, see templates_discard(). What leases left on branches stays. */
int worktree_remove(struct worktree *worktree, struct ap_err *err);

/* --- looking: nothing is written into the repository --- */

/* Appends the commit that the agent's HEAD is at, and a newline. -EIO: HEAD is at no commit. */
int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err);

enum worktree_look {
	WORKTREE_CHANGES,  /* a line for each path, as git status --porcelain: X compares the
			    * agent's commits to `base`, Y the files to these commits */
	WORKTREE_DIFF,	   /* as git diff prints it, untracked files included */
	WORKTREE_DIFFSTAT, /* the summary of that, as git diff --stat prints it */
};

/* Appends how the files differ from the commit `base`; "": from the agent's own HEAD. -EFBIG: the
 * diff is longer than 64 MiB. */
int worktree_look(const struct worktree *worktree, const char *base, enum worktree_look what,
		  struct ap_buf *out, struct ap_err *err);
