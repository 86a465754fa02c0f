/* Builds the tree of what lies in a worktree, from the tree that the worktree was made from and its
 * layer. The cost grows with what was changed. The new tree has what the first tree has and the
 * layer does not change, what the layer holds and no rule ignores, and what is ignored but tracked.
 * What setup made is as the agent's last commit has it.
 *
 * Where a repository lies in the worktree, the caller says what stands for it. */
#pragma once

#include "git.h"
#include "layer.h"
#include "rules.h"

/* A directory in the worktree that has a `.git`. */
struct saved_nested {
	const struct layer_dir *dir; /* the directory that `.git` is in, open */
	const struct layer_entry *dot_git;
	const char *path;      /* of the directory, from the top of the worktree */
	const char *base_tree; /* the tree of what the template has there; "": nothing */
	const char *gitlink;   /* the commit that the tree has there; "": none */
};

struct saved_tree {
	struct ap_git *git; /* writes the objects of the tree */
	struct layer *layer;
	struct rules *rules;
	const char *top;	  /* path in the layer of the directory whose tree it is; "" */
	const char *sparse_files; /* the template's files if a sparse checkout left some of its tree
				   * out: what is not among them was not removed; NULL: all are
				   * checked out */
	bool git_is_placed;	  /* the pool made the file `.git` in that directory */
	bool make_readable;	  /* make unreadable things readable, as the lease is over */
	bool skip_unreadable;	  /* for worktree_look(): what cannot be read is as it was */
	const char *index; /* file of the agent's index, whose paths are tracked; may be NULL */

	/* Says what stands for a directory with `.git` in it: fills `ret` with the commit of a
	 * gitlink and returns 1; 0: it is an ordinary directory, without its `.git`. */
	int (*nested)(void *data, const struct saved_nested *nested, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

	/* Appends a blob that the index names and the repository does not have: the agent has
	 * staged it and not committed it. 0, or it cannot be had. */
	int (*staged)(void *data, const char *oid, size_t max, struct ap_buf *ret);

	/* Receives what git has no place for: a name that no tree can have, or a path that is too
	 * deep. NULL: for worktree_look(). */
	void (*unplaced)(void *data, const char *path, const char *why);
	void *data;

	/* Receives how far the build is; may be NULL. */
	void (*progress)(void *data, uint64_t n_files, uint64_t bytes);

	bool any;		 /* something is there, ignored or not, that setup has not made */
	uint64_t n_files, bytes; /* that were read so far */

	/* private */
	const char *root,
		*head_root; /* the trees as a whole, of which moved directories use the first */
	unsigned depth;
	char **tracked; /* of the index: each a path, a NUL and its object; sorted */
	size_t n_tracked, room_tracked;
	bool has_tracked;
};

/* Builds the tree of the open directory `dir`, the top one or that of a repository inside.
 * `base_tree` is the tree that it was made from, "" for none, `head_tree` that of the agent's last
 * commit, likewise. -EIO, -EACCES: something that belongs to it cannot be read; the sentence names
 * it. Blocks. */
int saved_tree_build(struct saved_tree *saved, const struct layer_dir *dir, const char *base_tree,
		     const char *head_tree, char ret[GIT_OID_MAX + 1], struct ap_err *err);
void saved_tree_fini(struct saved_tree *saved);
