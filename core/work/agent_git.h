/* The git directory of one agent: its own, with its own refs, HEAD, index, configuration and hooks,
 * and objects that are borrowed from the repository's. What the agent does in git stays in it.
 *
 * It begins as the pool makes it. From the moment an agent has had it everything in it is data: it
 * is read from descriptors, without following links, with a bound on every read, and git is never
 * run in it. The same goes for every git directory that is found inside a worktree; one that is
 * open already is named by /proc/self/fd/N.
 *
 * All functions block, and return 0 or a negative errno with its sentence. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "git.h"
#include "repo.h"

/* Fills the directory `seed`, which is not there yet, with what every agent's git directory begins
 * with at `commit`: configuration (the repository's own, flattened, without what is about its
 * place), hooks, info/, shallow, lfs.storage of the repository's, packed-refs with all refs of the
 * repository, objects/info/alternates. HEAD is detached at `commit`. It has no index yet. */
int agent_git_seed(const struct repo *repo, const char *commit, const char *seed,
		   struct ap_err *err);

/* Adds to the configuration of one seed what somebody has set in another since that was made: a
 * hook, at the checkout. */
int agent_git_keep_settings(const char *from, const char *to, struct ap_err *err);

/* Has a directory of objects that the pool has made borrow from one more. */
int agent_git_borrow(const char *objects, const char *store, struct ap_err *err);

/* Appends what a directory of objects that the pool has made borrows from, each with its NUL. */
int agent_git_stores(const char *objects, struct ap_buf *ret);

/* Whether the repository's configuration, hooks or shallow file have changed since that was made,
 * by a look at their times. */
bool agent_git_is_stale(const struct repo *repo, const char *seed);

/* Has a git directory that no agent has had yet have the refs that the repository has now. */
int agent_git_renew_refs(const struct repo *repo, const char *seed, const char *dir,
			 struct ap_err *err);

/* Copies a seed, with the index in it, to `dir`, which is not there yet. Refs are as the repository
 * has them now. */
int agent_git_copy(const struct repo *repo, const char *seed, const char *dir, struct ap_err *err);

/* Puts HEAD on refs/heads/BRANCH, which is at `commit` then. Files are written whole: whoever dies
 * here leaves what was there, or all of it. */
int agent_git_start(const char *dir, const char *branch, const char *commit, struct ap_err *err);

/* Puts HEAD on no branch, at `commit`; likewise. */
int agent_git_detach(const char *dir, const char *commit, struct ap_err *err);

/* --- reading, as data --- */

struct agent_head {
	char *ref;		   /* what it is on; NULL: nothing; owned */
	char oid[GIT_OID_MAX + 1]; /* "": none yet */
};

void agent_head_fini(struct agent_head *head);

/* Where HEAD is. -EIO: it says nothing that is HEAD. Costs a few small files. */
int agent_git_head(const char *dir, struct agent_head *ret, struct ap_err *err);

#define AGENT_TIPS_MAX 100000

struct agent_tip {
	char *name; /* HEAD, refs/…; stash@{N}, heads/…@{N} and HEAD@{N} of the logs,
		     * 0 is the last; such as MERGE_HEAD, ORIG_HEAD, rebase-merge/autostash; of a
		     * worktree that the agent made of it with worktrees/…/ before it; owned */
	char oid[GIT_OID_MAX + 1];
	bool is_known; /* for the caller's use */
};

struct agent_tips {
	struct agent_tip *at;
	size_t n;
	bool is_cut; /* there is more than was read: over a bound (LIMITS), of a form that is not
		      * known (reftable), or not to be read */
};

void agent_tips_fini(struct agent_tips *tips);

/* All that names an object in it. What is broken is left out. */
int agent_git_tips(const char *dir, struct agent_tips *ret, struct ap_err *err);

/* Whether a directory looks like a git directory: what git takes for one. */
bool agent_git_is_one(int dir_fd, const char *name);

/* Calls `each` for the git directory of every submodule in it, theirs too; `name` is where it lies
 * in `dir`: modules/NAME. Stops at the first that returns non-zero, and returns that. -EFBIG: there
 * are more than a thousand directories. */
int agent_git_each_module(const char *dir,
			  int (*each)(void *data, const char *dir, const char *name), void *data,
			  struct ap_err *err);

/* --- taking out --- */

/* Has `view` hold hard links to all objects of a git directory, packs with their indexes, and
 * nothing else: an object directory without alternates, of regular files. Only what is new is
 * linked when it is there already. `modules` too: those of git directories in it, of its
 * submodules. */
int agent_git_view(const char *dir, const char *view, struct ap_err *err);

/* Copies into the repository's objects what the commits (or tags) of `oids` consist of and what
 * `known`, commits of the repository, do not lead to; checked (fsck) as a fetch would. By the
 * repository's own git over its own object store and the view. NULL at the end of both.
 * -EIO with git's own sentence: something is missing or wrong in them, and nothing was copied. */
int agent_git_take(const struct repo *repo, const char *view, const char *const *oids,
		   const char *const *known, int64_t limit_ns, struct ap_err *err);
