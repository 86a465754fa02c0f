/* The tree of what lies in a worktree: the tree that it was made from, and its layer. It costs what
 * was changed. What belongs to it: what the tree has and the layer does not say otherwise, what the
 * layer holds and is not ignored, and what is ignored but tracked. What setup made is as the
 * agent's last commit has it.
 *
 * Where a repository lies in the worktree the caller is asked what stands for it. */
#pragma once

#include "git.h"
#include "layer.h"
#include "rules.h"

/* A name in the worktree where something of git's own stands. */
struct saved_nested {
	const struct layer_dir *dir; /* the directory that `.git` is in, open */
	const struct layer_entry *dot_git;
	const char *path;      /* of the directory, from the top of the worktree */
	const char *base_tree; /* of what the template has there; "": nothing */
	const char *gitlink;   /* the commit that the tree has there; "": none */
};

struct saved_tree {
	struct ap_git *git; /* writes where the tree is to be */
	struct layer *layer;
	struct rules *rules;
	const char *top;	  /* path of the directory in the layer that the tree is of; "" */
	const char *sparse_files; /* the files of the template, where not all of its tree are
				   * checked out: what is not there is not removed; NULL: all are */
	bool git_is_placed;	  /* a file `.git` in that directory is the pool's making */
	bool make_readable;	  /* the lease is over: modes are in nobody's way */
	bool skip_unreadable;	  /* for a look: what cannot be read is as it was */
	const char *index; /* a file: the agent's index, what it has is tracked; may be NULL */

	/* Says what stands for a directory with `.git` in it: fills `ret` with the commit of a
	 * gitlink, and returns 1; 0: the directory is one as others, without its `.git`. */
	int (*nested)(void *data, const struct saved_nested *nested, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

	/* Appends a blob that the index names and the repository does not have: the agent has
	 * staged it and not committed it. 0, or it cannot be had. */
	int (*staged)(void *data, const char *oid, size_t max, struct ap_buf *ret);

	/* Is told what git has no place for: a name that no tree can have, what lies too deep.
	 * NULL: a look. */
	void (*unplaced)(void *data, const char *path, const char *why);
	void *data;

	/* Is told how far it is; may be NULL. */
	void (*progress)(void *data, uint64_t n_files, uint64_t bytes);

	bool any;		 /* something is there, ignored or not, that setup has not made */
	uint64_t n_files, bytes; /* that were read so far */

	/* its own */
	const char *root,
		*head_root; /* the trees as a whole: moved directories are from the first */
	unsigned depth;
	char **tracked; /* of the index: each a path, a NUL and its object; sorted */
	size_t n_tracked, room_tracked;
	bool has_tracked;
};

/* Builds that of the open directory `dir`, the top one or that of a repository inside. `base_tree`
 * is the tree that it was made from, "" for none, `head_tree` that of the agent's last commit,
 * likewise. -EIO, -EACCES: something that belongs to it cannot be read; the sentence names it.
 * Blocks. */
int saved_tree_build(struct saved_tree *saved, const struct layer_dir *dir, const char *base_tree,
		     const char *head_tree, char ret[GIT_OID_MAX + 1], struct ap_err *err);
void saved_tree_fini(struct saved_tree *saved);
