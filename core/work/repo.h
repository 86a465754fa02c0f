/* The repository that a pool works on, of whatever kind: bare, a linked worktree, shallow, sparse,
 * of sha256. Nothing here touches its checkout, index, stash or branches. All functions block; all
 * may run in several threads. */
#pragma once

#include <pthread.h>

#include "git_command.h"

struct repo {
	char *path;	    /* what the user gave, made absolute */
	char *git_dir;	    /* its own: differs from common_dir in a linked worktree */
	char *common_dir;   /* the git directory that all its worktrees share */
	char *main_path;    /* its main checkout; the repository itself where it is bare */
	char *work_tree;    /* where its files are; NULL: it is bare */
	struct ap_git *git; /* stays open for frequent lookups */
	pthread_mutex_t *git_lock;
	char *ref_notes; /* where handles of git.h note the refs that they lock; NULL: nowhere */
	bool by_program; /* open handles of git.h that way */
};

/* Fills `ret`. -EINVAL: no repository, or one without a commit. -EPERM: it belongs to another user,
 * whose hooks, filters and settings would act as us, and `allow_foreign` is false. With
 * `by_program` the git program does what libgit2 would. */
int repo_open(struct repo *ret, const char *path, bool allow_foreign, bool by_program,
	      struct ap_err *err);
void repo_fini(struct repo *repo);

/* Makes the handles of git.h note the refs that they lock (ref_notes.h) in `dir`, which this
 * process alone uses. With `settle` first removes the locks that a dead process has noted there: no
 * helper of that process may run any more. The caller calls this before other threads have the
 * repository. */
int repo_note_refs(struct repo *repo, const char *dir, bool settle, struct ap_err *err);

/* What git.h works with: "libgit2" or "program". */
const char *repo_git_kind(const struct repo *repo);

/* The commit that a revision names, as the user's own HEAD and branches stand now. -EINVAL. */
int repo_resolve(const struct repo *repo, const char *revision, char ret_oid[GIT_OID_MAX + 1],
		 struct ap_err *err);

/* The commit that a ref is at. 0, 1 (there is none) or a negative errno. */
int repo_lookup(const struct repo *repo, const char *ref, char ret_oid[GIT_OID_MAX + 1],
		struct ap_err *err);

/* The largest N of the refs that are `prefix` and a number N; 0: there is none. */
uint64_t repo_last_number(const struct repo *repo, const char *prefix);

/* Whether the repository itself has a commit. */
bool repo_has_commit(const struct repo *repo, const char *oid);

/* Whether a checkout of the repository is on a branch, judged by the HEAD files in the git
 * directory. 1, with the checkout's path, owned by the caller; 0: none is, or no memory. */
int repo_branch_place(const struct repo *repo, const char *ref, char **ret, struct ap_err *err);

/* The innermost checkout or git directory of the repository and its worktrees that a canonical path
 * is in, or would be if it were there; owned by the caller. NULL: none, or no memory. */
char *repo_place_of(const struct repo *repo, const char *path);

/* Whether a file is executable, or a link, in the tree of a commit; `path` is relative to its top.
 */
bool repo_has_program(const struct repo *repo, const char *commit, const char *path);

/* Whether git ignores a directory in a checkout. The directory need not be there. */
bool repo_ignores(const char *work_tree, const char *path);

/* The administrative directory that a worktree's `.git` file names, owned by the caller, if it is
 * one of the repository's; else -EIO: the function does not follow what an agent may have written
 * there instead. */
int repo_admin_dir(const struct repo *repo, const char *path, char **ret, struct ap_err *err);

/* Removes the administrative directories of worktrees that were below `dir` and are not there any
 * more. git itself would keep locked ones, and others for months. */
void repo_forget_worktrees(const struct repo *repo, const char *dir);
