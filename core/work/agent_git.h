/* The git directory of one agent: its own, with its own refs, HEAD, index, configuration and hooks,
 * and objects that are borrowed from the repository's. What the agent does in git stays in it.
 *
 * It begins as the pool makes it. Once an agent has had it, everything in it is data: the pool
 * reads it from descriptors, follows no links, bounds every read, and never runs git in it. The
 * same goes for every git directory inside a worktree. A caller names one that it has open by
 * /proc/self/fd/N.
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
 * with at `commit`: configuration (the repository's own, flattened, without what depends on its
 * place), hooks, info/, shallow, lfs.storage of the repository's, packed-refs with the refs of the
 * repository (without refs/agentpool/, refs/stash and those of one worktree alone),
 * objects/info/alternates. HEAD is detached at `commit`. It has no index yet. */
int agent_git_seed(const struct repo *repo, const char *commit, const char *seed,
		   struct ap_err *err);

/* Adds to the configuration of the seed `to` what somebody has set in the seed `from` since the
 * pool made that: a hook may, at the checkout. */
int agent_git_keep_settings(const char *from, const char *to, struct ap_err *err);

/* Adds `store` to the alternates of an object directory that the pool has made. */
int agent_git_borrow(const char *objects, const char *store, struct ap_err *err);

/* Appends the alternates of an object directory that the pool has made, each with its NUL. */
int agent_git_stores(const char *objects, struct ap_buf *ret);

/* Whether the repository's configuration, hooks or shallow file have changed since the seed was
 * made, judged by their times, sizes and inodes. */
bool agent_git_is_stale(const struct repo *repo, const char *seed);

/* Gives a git directory that no agent has had yet the refs that the repository has now. */
int agent_git_renew_refs(const struct repo *repo, const char *seed, const char *dir,
			 struct ap_err *err);

/* Copies a seed, with the index in it, to `dir`, which is not there yet. The copy has the refs that
 * the repository has now. */
int agent_git_copy(const struct repo *repo, const char *seed, const char *dir, struct ap_err *err);

/* Puts refs/heads/BRANCH at `commit`, and HEAD on it. Replaces each file by a rename: a daemon that
 * dies here leaves the old file or the new one. */
int agent_git_start(const char *dir, const char *branch, const char *commit, struct ap_err *err);

/* Detaches HEAD at `commit`, by a rename likewise. */
int agent_git_detach(const char *dir, const char *commit, struct ap_err *err);

/* --- reading, as data --- */

struct agent_head {
	char *ref;		   /* the ref that it is on; NULL: it is detached; owned */
	char oid[GIT_OID_MAX + 1]; /* "": the ref has no commit yet */
};

void agent_head_fini(struct agent_head *head);

/* Where HEAD is. -EIO: it cannot be read, or is no valid HEAD. Reads a few small files. */
int agent_git_head(const char *dir, struct agent_head *ret, struct ap_err *err);

#define AGENT_TIPS_MAX 100000

struct agent_tip {
	char *name; /* HEAD, refs/…; of the logs stash@{N}, heads/…@{N} and HEAD@{N}, 0 is the last;
		     * pseudo refs such as MERGE_HEAD, ORIG_HEAD, rebase-merge/autostash; those of a
		     * worktree that the agent added begin with worktrees/…/; owned */
	char oid[GIT_OID_MAX + 1];
	bool is_known; /* for the caller's use */
};

struct agent_tips {
	struct agent_tip *at;
	size_t n;
	bool is_cut; /* not all was read: it is over a bound (LIMITS), of an unknown form
		      * (reftable), or unreadable */
};

void agent_tips_fini(struct agent_tips *tips);

/* Reads all names of objects in a git directory, and leaves out what is broken. */
int agent_git_tips(const char *dir, struct agent_tips *ret, struct ap_err *err);

/* Whether git would take a directory for a git directory. */
bool agent_git_is_one(int dir_fd, const char *name);

/* Calls `each` for the git directory of every submodule in `dir`, nested ones too; `name` is its
 * path in `dir`: modules/NAME. Stops when `each` returns non-zero, and returns that. -EFBIG: there
 * are more than 1000 directories, or more than 16 levels of them. */
int agent_git_each_module(const char *dir,
			  int (*each)(void *data, const char *dir, const char *name), void *data,
			  struct ap_err *err);

/* --- taking out --- */

/* Fills `view` with hard links to all objects of a git directory, packs with their indexes, and
 * nothing else: an object directory without alternates, of regular files. Includes the objects of
 * its submodules' git directories, below modules/. Links only what is new if `view` is there
 * already; copies what cannot be linked. */
int agent_git_view(const char *dir, const char *view, struct ap_err *err);

/* Copies into the repository the objects of the commits (or tags) `oids` that `known`, commits of
 * the repository, do not lead to. The repository's own git does it, over its own object store and
 * the view, and checks (fsck) them as a fetch would. Both arrays have NULL at the end. -EIO with
 * git's own sentence: an object is missing or wrong, and nothing was copied. */
int agent_git_take(const struct repo *repo, const char *view, const char *const *oids,
		   const char *const *known, int64_t limit_ns, struct ap_err *err);
