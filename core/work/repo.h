/* The repository that a pool is over, whatever kind it is of: bare, a linked worktree, shallow,
 * sparse, of sha256. Nothing here touches its checkout, index, stash or branches. All functions
 * block; all may run in several threads. */
#pragma once

#include <pthread.h>

#include "git_command.h"

struct repo {
	char *path;	    /* what the user gave, made absolute */
	char *git_dir;	    /* its own: another than common_dir where it is a linked worktree */
	char *common_dir;   /* the git directory that all its worktrees share */
	char *main_path;    /* its main checkout; the repository itself where it is bare */
	char *work_tree;    /* where its files are; NULL: it is bare */
	struct ap_git *git; /* stays open: for what is asked often */
	pthread_mutex_t *git_lock;
	char *ref_notes; /* where handles of git.h note the refs that they lock; NULL: nowhere */
	bool by_program; /* handles of git.h are to be opened so */
};

/* Fills `ret`. -EINVAL: no repository, or one without a commit. -EPERM: it is another user's,
 * whose hooks, filters and settings would be obeyed as ours, and that was not allowed. With
 * `by_program` libgit2 is not used. */
int repo_open(struct repo *ret, const char *path, bool allow_foreign, bool by_program,
	      struct ap_err *err);
void repo_fini(struct repo *repo);

/* Has refs noted while they are locked (ref_notes.h), in a directory that this process alone uses.
 * With `settle` the locks that a dead process has noted there are removed first: no helper of it
 * may be at work any more. Before other threads have the repository. */
int repo_note_refs(struct repo *repo, const char *dir, bool settle, struct ap_err *err);

/* What git.h works with: "libgit2" or "program". */
const char *repo_git_kind(const struct repo *repo);

/* The commit that a revision names, as the user's own HEAD and branches stand now. -EINVAL. */
int repo_resolve(const struct repo *repo, const char *revision, char ret_oid[GIT_OID_MAX + 1],
		 struct ap_err *err);

/* The commit that a ref is at. 0, 1 (there is none) or a negative errno. */
int repo_lookup(const struct repo *repo, const char *ref, char ret_oid[GIT_OID_MAX + 1],
		struct ap_err *err);

/* Whether the repository itself has a commit. */
bool repo_has_commit(const struct repo *repo, const char *oid);

/* Whether a checkout of the repository is on a branch, by what lies in the git directory. 1, with
 * its place, owned by the caller; 0: none is; or a negative errno. */
int repo_branch_place(const struct repo *repo, const char *ref, char **ret, struct ap_err *err);

/* The innermost checkout or git directory of the repository and its worktrees that a canonical path
 * is in, or would be if it were there; owned by the caller. NULL: none, or no memory. */
char *repo_place_of(const struct repo *repo, const char *path);

/* Whether a file is executable in the tree of a commit; `path` is relative to its top. */
bool repo_has_program(const struct repo *repo, const char *commit, const char *path);

/* Whether a directory in a checkout is ignored by git. It need not be there. */
bool repo_ignores(const char *work_tree, const char *path);

/* The administrative directory that a worktree's `.git` file names, owned by the caller, if it is
 * one of the repository's: what an agent may have written there instead is not followed. */
int repo_admin_dir(const struct repo *repo, const char *path, char **ret, struct ap_err *err);

/* Removes the administrative directories of worktrees that were below `dir` and are not there any
 * more. git itself would keep locked ones, and others for months. */
void repo_forget_worktrees(const struct repo *repo, const char *dir);
