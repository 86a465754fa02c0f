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

/* Has the files of an overlay appear again where nothing is mounted: after the machine was started
 * anew, or somebody unmounted it. Its layers are there all the same. */
int worktree_attach(struct worktree *worktree, struct ap_err *err);

/* Opens what was changed in it. */
int worktree_layer(const struct worktree *worktree, struct layer **ret, struct ap_err *err);

/* The commit that its layer lies over: of its template, else where it was last put. */
const char *worktree_origin(const struct worktree *worktree);

/* Whether it is one of the repository's own worktrees, made by `git worktree add`: its git
 * directory is in the repository, and so are its branches and objects. */
bool worktree_is_registered(const struct worktree *worktree);

/* Whether its layer has been moved to kept/: whoever did that had saved it, and died then. */
bool worktree_is_kept(const struct worktree *worktree);

/* Whether the git directory is there, and nothing is mounted over it, which might never answer:
 * -EXDEV. */
int worktree_check_git(const struct worktree *worktree, struct ap_err *err);

/* Where the agent's HEAD is, wherever its branches are. */
int worktree_agent_head(const struct worktree *worktree, struct agent_head *ret,
			struct ap_err *err);

/* The files of its template where not all of the commit are checked out (sparse); else NULL. */
const char *worktree_sparse_files(const struct worktree *worktree);

/* Has rules hold that a sparse checkout has left out; `git` reads them. */
int worktree_rules(const struct worktree *worktree, struct rules *rules, struct ap_git *git,
		   struct ap_err *err);

/* STATE_DIR/scratch: for what lasts as long as one call. */
void worktree_scratch(const struct worktree *worktree, struct ap_buf *ret);

/* REPO's git, to write into it; rules may be NULL. */
int worktree_git(const struct worktree *worktree, const char *rules, const char *const *borrowed,
		 struct ap_git **ret, struct ap_err *err);

/* What a submodule borrows from that the pool has made ready: `name` is its git directory below the
 * agent's. Up to WORKTREE_STORES of them, with NULL behind them, in `ret`; they point into `text`.
 */
#define WORKTREE_STORES 4
void worktree_module_stores(const struct worktree *worktree, const char *name, struct ap_buf *text,
			    const char *ret[WORKTREE_STORES + 1]);

/* The ref that holds what a lease stands on: refs/agentpool/_held/…/NAME. */
void worktree_held_ref(const struct worktree *worktree, struct ap_buf *ret);

/* --- a saving --- */

#define COMMIT_MORE_MAX 8 /* parents of a merge that was begun */

struct commits;

/* One saving of a worktree, or of a repository inside it. */
struct saving {
	const struct worktree *worktree;
	const char *label;
	const char *message;
	const char *path; /* of the repository below the worktree; "" */
	unsigned depth;
	bool any;	    /* something was changed that is not setup's */
	bool git_is_placed; /* its file `.git` is the pool's making */
	bool is_over;	    /* the lease is: nobody works in it any more */
	struct ap_git *git; /* of REPO; its rules are those of this repository */
	struct rules rules;
	struct layer *layer;
	worktree_progress *progress;
	void *data;
	struct worktree_saved *saved;
	const char *const *stores; /* object directories that a submodule of REPO's borrows from,
				    * NULL at the end; NULL: none */
	const struct commits *own; /* of the agent's own git directory; NULL: not taken yet */
	/* saving_tree()'s own: what the index names and REPO does not have */
	const char *index;
	struct ap_buf staged_view; /* a directory; empty: it was not made */
	struct ap_git *staged;	   /* reads that; NULL: nothing was asked for yet, or it cannot */
};

/* Begins one; `outer` is that of the repository around it, or NULL. */
int saving_init(struct saving *saving, const struct worktree *worktree, const char *path,
		const struct saving *outer, const char *const *stores, struct ap_err *err);
void saving_fini(struct saving *saving);

/* Notes what only kept/ has. */
void saving_note_kept(struct saving *saving, const char *path, const char *why);

/* As saved_tree.h wants it told. */
void saving_unplaced(void *saving, const char *path, const char *why);

/* The tree of a directory of the layer. */
int saving_tree(struct saving *saving, const struct layer_dir *dir, const char *base_tree,
		const char *head_tree, const char *index, char ret[GIT_OID_MAX + 1],
		struct ap_err *err);

/* The commit that has the tree and both `tip` and `head` as ancestors ("" for none): one of the two
 * if its tree is the same already, else a new one. `more` are further parents, NULL at the end. */
int saving_commit(struct saving *saving, const char *tree, const char *tip, const char *head,
		  const char *const *more, char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* --- commits.c --- */

/* What a git directory holds beyond what it began with. */
struct commits {
	struct agent_head head;
	char head_oid[GIT_OID_MAX + 1]; /* "" none, or one that REPO cannot have */
	struct agent_tips tips;		/* that are new */
};

/* Reads it as data and copies what is new into REPO's objects. `dir` is the git directory; `began`
 * has the refs that it began with, or is NULL; `known` commits of REPO that it stands on. What
 * cannot be taken is noted as only kept; HEAD is where it is known to be, then. */
int commits_take(struct saving *saving, const char *dir, const char *began,
		 const char *const *known, struct commits *ret, struct ap_err *err);
void commits_fini(struct commits *commits);

/* Makes a directory that has the objects of a git directory, and borrows from the saving's stores.
 * The caller removes it. */
int commits_view(const struct saving *saving, const char *dir, struct ap_buf *ret,
		 struct ap_err *err);

/* Where a tip of that name is; "": there is none that is new. */
const char *commits_find(const struct commits *commits, const char *name);

/* Sets refs/agentpool/LABEL/NAME/END. What was there before stays in its log. Where another ref's
 * name is in the way, the slashes of this one's end are written out. */
int commits_keep(struct saving *saving, const char *name, const char *end, const char *oid,
		 struct ap_err *err);

/* Sets refs below refs/agentpool/LABEL/NAME/ for those that `saved` does not lead to: heads/,
 * tags/, stash. `except` is a ref that is left out, or NULL. */
int commits_keep_refs(struct saving *saving, const struct commits *commits, const char *name,
		      const char *saved, const char *except, struct ap_err *err);

/* Sets refs below refs/agentpool/LABEL/left-behind/ for the commits that HEAD was at and nothing
 * leads to any more. */
int commits_keep_left_behind(struct saving *saving, const struct commits *commits,
			     const char *saved, struct ap_err *err);

/* Appends the name of a ref that is called after a path: what a ref cannot hold is written %XX. */
void commits_add_ref_path(struct ap_buf *ref, const char *path);

/* --- nested.c --- */

/* Repositories inside: what stands for one in the tree; see saved_tree.h. */
int nested_save(void *saving, const struct saved_nested *nested, char ret[GIT_OID_MAX + 1],
		struct ap_err *err);

/* The commit that HEAD of a repository inside is at: 1, or 0: it has none. For a look. */
int nested_head(const struct worktree *worktree, struct layer *layer,
		const struct saved_nested *nested, char ret[GIT_OID_MAX + 1]);

/* Those of submodules, which are in the agent's git directory, wherever their files are. */
int nested_save_modules(struct saving *saving, struct ap_err *err);
