/* What the files about worktrees share: worktree.c (life), save.c (the end of a lease), commits.c
 * (what git directories hold), nested.c (repositories inside), look.c (changes, diff). */
#pragma once

#include <stdio.h>

#include "agent_git.h"
#include "git.h"
#include "layer.h"
#include "rules.h"
#include "saved_tree.h"
#include "worktree.h"

static inline void branch_ref(char ret[AP_LABEL_MAX + 32], const char *label)
{
	snprintf(ret, AP_LABEL_MAX + 32, "refs/heads/" WORKTREE_BRANCH_PREFIX "%s", label);
}

/* --- worktree.c --- */

/* Finds the template and the mount of a worktree, and mounts its overlay again if nothing is
 * mounted: after a reboot, or after somebody unmounted it; the layers are on the disk all the same.
 * -EIO: its template has gone. */
int worktree_attach(struct worktree *worktree, struct ap_err *err);

/* Opens the layer of a worktree: what was changed in it. */
int worktree_layer(const struct worktree *worktree, struct layer **ret, struct ap_err *err);

/* The commit that its layer lies over: its template's, else the one of its manifest. */
const char *worktree_origin(const struct worktree *worktree);

/* Whether it is one of the repository's own worktrees, made by `git worktree add`: its git
 * directory is in the repository, and so are its branches and objects. */
bool worktree_is_registered(const struct worktree *worktree);

/* Whether its layer has been moved to kept/: a daemon saved the lease, moved the layer and died
 * then. */
bool worktree_is_kept(const struct worktree *worktree);

/* Checks that the git directory is there and that nothing is mounted over it, as a mount might
 * never answer. -EXDEV: something is mounted. */
int worktree_check_git(const struct worktree *worktree, struct ap_err *err);

/* Where the agent's HEAD is, whether its branches are in its own git directory or in the
 * repository. */
int worktree_agent_head(const struct worktree *worktree, struct agent_head *ret,
			struct ap_err *err);

/* The files of its template if a sparse checkout left some of the commit's files out; else NULL. */
const char *worktree_sparse_files(const struct worktree *worktree);

/* Makes `rules` count the files that a sparse checkout has left out; `git` reads these from the
 * commit. */
int worktree_rules(const struct worktree *worktree, struct rules *rules, struct ap_git *git,
		   struct ap_err *err);

/* Appends STATE_DIR/scratch, the directory for temporary files. */
void worktree_scratch(const struct worktree *worktree, struct ap_buf *ret);

/* Opens REPO's git (git.h) for writing; `rules` may be NULL. */
int worktree_git(const struct worktree *worktree, const char *rules, const char *const *borrowed,
		 struct ap_git **ret, struct ap_err *err);

/* Finds the object directories that a submodule which the pool has made ready borrows from; `name`
 * is its git directory below the agent's. Puts up to WORKTREE_STORES of them into `ret`, NULL at
 * the end; they point into `text`. */
#define WORKTREE_STORES 4
void worktree_module_stores(const struct worktree *worktree, const char *name, struct ap_buf *text,
			    const char *ret[WORKTREE_STORES + 1]);

/* Appends the ref that holds a lease's commit in the repository: refs/agentpool/_held/…/NAME. */
void worktree_held_ref(const struct worktree *worktree, struct ap_buf *ret);

/* --- a saving --- */

#define COMMIT_MORE_MAX 8 /* parents of a merge that is not concluded */

struct commits;

/* One saving of a worktree, or of a repository inside it. */
struct saving {
	const struct worktree *worktree;
	const char *label;
	const char *message;
	const char *path; /* of the repository, from the top of the worktree; "": that itself */
	unsigned depth;
	bool any;	    /* something was changed that is not setup's */
	bool git_is_placed; /* the pool made its file `.git` */
	bool is_over;	    /* the lease is over: nobody works in it any more */
	struct ap_git *git; /* of REPO, with the rules of this repository */
	struct rules rules;
	struct layer *layer;
	worktree_progress *progress;
	void *data;
	struct worktree_saved *saved;
	const char *const *stores; /* object directories that a submodule of REPO's borrows from,
				    * NULL at the end; NULL: none */
	const struct commits *own; /* of the agent's own git directory; NULL: not read yet */
	/* saving_tree()'s own: what the index names and REPO does not have */
	const char *index;
	struct ap_buf staged_view; /* a directory; empty: it was not made */
	struct ap_git *staged;	   /* reads that; NULL: nothing was asked for yet, or it cannot */
};

/* Begins a saving; `outer` is the saving of the repository around this one, or NULL. */
int saving_init(struct saving *saving, const struct worktree *worktree, const char *path,
		const struct saving *outer, const char *const *stores, struct ap_err *err);
void saving_fini(struct saving *saving);

/* Records that only kept/ can hold `path`, and why. The first call counts. */
void saving_note_kept(struct saving *saving, const char *path, const char *why);

/* saving_note_kept() as the `unplaced` callback of saved_tree.h. */
void saving_unplaced(void *saving, const char *path, const char *why);

/* Builds the tree of a directory of the layer. */
int saving_tree(struct saving *saving, const struct layer_dir *dir, const char *base_tree,
		const char *head_tree, const char *index, char ret[GIT_OID_MAX + 1],
		struct ap_err *err);

/* Finds or makes the commit that has the tree, and both `tip` and `head` as ancestors ("" for
 * none): one of the two if it has that tree already, else a new one. `more` are further parents,
 * NULL at the end; it may be NULL. */
int saving_commit(struct saving *saving, const char *tree, const char *tip, const char *head,
		  const char *const *more, char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* --- commits.c --- */

/* What a git directory holds beyond what it began with. */
struct commits {
	struct agent_head head;
	char head_oid[GIT_OID_MAX + 1]; /* "": none, or not in REPO */
	struct agent_tips tips;		/* the new ones only */
};

/* Reads the git directory `dir` as data and copies what is new into REPO's objects. `began` is a
 * directory with the refs that `dir` began with, or NULL; `known` are commits of REPO that it
 * stands on. Records what cannot be taken by saving_note_kept(). ret->head_oid is "" if REPO could
 * not take HEAD. */
int commits_take(struct saving *saving, const char *dir, const char *began,
		 const char *const *known, struct commits *ret, struct ap_err *err);
void commits_fini(struct commits *commits);

/* Makes a directory with the objects of the git directory `dir`, which borrows from the saving's
 * stores. `ret` is its path; the caller removes it, after a failure too unless `ret` is empty. */
int commits_view(const struct saving *saving, const char *dir, struct ap_buf *ret,
		 struct ap_err *err);

/* The object of the tip of that name; "": there is no new tip of that name. */
const char *commits_find(const struct commits *commits, const char *name);

/* Sets refs/agentpool/LABEL/NAME/END to `oid`. If the ref was at a commit that `oid` does not lead
 * to, that commit gets a ref of its own, with -1, -2, … at the end of its name. If another ref's
 * name is in the way, writes the slashes in END, behind heads/ or tags/, as %2F. */
int commits_keep(struct saving *saving, const char *name, const char *end, const char *oid,
		 struct ap_err *err);

/* Sets refs below refs/agentpool/LABEL/NAME/ for the branches, tags and stashes that `saved` does
 * not lead to: heads/, tags/, stash, stash-N. `except` is a ref to leave out, or NULL. */
int commits_keep_refs(struct saving *saving, const struct commits *commits, const char *name,
		      const char *saved, const char *except, struct ap_err *err);

/* Sets refs below refs/agentpool/LABEL/left-behind/ for the commits that HEAD, a log or a pseudo
 * ref names and that no branch, tag or kept ref leads to. */
int commits_keep_left_behind(struct saving *saving, const struct commits *commits,
			     const char *saved, struct ap_err *err);

/* Appends a path to the name of a ref, and writes what a ref's name cannot hold as %XX. */
void commits_add_ref_path(struct ap_buf *ref, const char *path);

/* --- nested.c --- */

/* Saves a repository inside the worktree and says what stands for it in the tree: the `nested`
 * callback of saved_tree.h. */
int nested_save(void *saving, const struct saved_nested *nested, char ret[GIT_OID_MAX + 1],
		struct ap_err *err);

/* Fills `ret` with the commit that HEAD of a repository inside is at, and returns 1; 0: it has
 * none. For worktree_look(). */
int nested_head(const struct worktree *worktree, struct layer *layer,
		const struct saved_nested *nested, char ret[GIT_OID_MAX + 1]);

/* Saves the commits of submodules, whose git directories are in the agent's, wherever their files
 * are. */
int nested_save_modules(struct saving *saving, struct ap_err *err);
