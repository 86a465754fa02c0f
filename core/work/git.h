/* Git in the process: the objects and refs of one repository, read and written without a process of
 * git. libgit2 does it. If libgit2 cannot open the repository (sha256, reftable, other extensions,
 * core.sharedRepository), or if the caller asks for it, the git program does the same behind the
 * same functions, with processes that live as long as the handle.
 *
 * A handle uses the configuration of the repository, the user and the system, as git finds them.
 * The .gitignore and .gitattributes files of a directory that the caller fills (`rules`) decide
 * which files are ignored and how a file becomes an object: none is read from a worktree. A filter
 * runs only if that configuration defines its driver.
 *
 * All functions block. A handle serves one thread at a time; any number may be open. Object names
 * are hex digits. Functions return 0 or a negative errno with its sentence unless they say
 * otherwise. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"
#include "text.h"

struct ap_git;

/* Paths are absolute. */
struct ap_git_place {
	const char *git_dir;	/* of the repository; revisions use its HEAD */
	const char *common_dir; /* the git directory that its worktrees share; may be the same */
	const char *objects;	/* directory for new objects; NULL: the repository's own */
	const char *const *borrowed; /* object directories to read as well, NULL at the end; do not
				      * rely on alternates in them; may be NULL */
	const char *rules; /* the directory of .gitignore and .gitattributes files; NULL: none. A
			    * file that git itself has to filter appears in it for a moment */
	const char *ref_notes; /* directory of ref_notes.h; NULL: no notes of locked refs */
	bool by_program;       /* use the git program even where libgit2 could do it */
	int64_t limit_ns;      /* of one run of the git program, such as a filter's; 0: GIT_LIMIT */
};

/* Opens a handle, and copies all strings. With libgit2 this costs less than a millisecond, and no
 * process. */
int ap_git_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err);
void ap_git_close(struct ap_git *git); /* NULL is ignored */

/* "libgit2" or "program": what stats/git says. */
const char *ap_git_kind(const struct ap_git *git);

/* --- revisions and refs: always the repository's --- */

/* The commit that a revision names. 0, 1 (it names none) or a negative errno. */
int ap_git_resolve(struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err);

/* Sets a ref, with `why` in its log; makes a log if the ref is below refs/agentpool/, whatever the
 * configuration says. `old` is the object that the ref must name now: "": the ref must not exist,
 * NULL: anything. -ESTALE: it is something else; -EEXIST: its name and another ref's are in each
 * other's way (a and a/b); -EBUSY: somebody holds its lock. Runs no hook. */
int ap_git_set_ref(struct ap_git *git, const char *ref, const char *oid, const char *old,
		   const char *why, struct ap_err *err);

/* Removes a ref. A missing ref is no failure unless `old` is given (-ESTALE); else as above. */
int ap_git_remove_ref(struct ap_git *git, const char *ref, const char *old, struct ap_err *err);

/* Calls `each` for every ref whose name begins with `prefix`, with the object it names; resolves
 * symbolic refs and leaves out broken ones. Stops when `each` returns non-zero, and returns that.
 */
int ap_git_each_ref(struct ap_git *git, const char *prefix,
		    int (*each)(void *data, const char *ref, const char *oid), void *data,
		    struct ap_err *err);

/* --- objects --- */

struct ap_git_entry {
	unsigned mode; /* 0100644, 0100755, 0120000, 0040000, 0160000 */
	char oid[GIT_OID_MAX + 1];
	char *name; /* owned by the tree */
};

/* The entries of a tree, in git's order: ap_git_compare_entries(). */
struct ap_git_tree {
	struct ap_git_entry *entries;
	size_t n;
};

/* As strcmp(), by git's order: the name of a tree counts with a slash at its end. */
int ap_git_compare_entries(const struct ap_git_entry *a, const struct ap_git_entry *b);

void ap_git_tree_fini(struct ap_git_tree *tree);
#define AP_CLEANUP_GIT_TREE __attribute__((cleanup(ap_git_tree_fini)))

/* The entry of that name; NULL: there is none. */
struct ap_git_entry *ap_git_tree_find(const struct ap_git_tree *tree, const char *name);

/* Adds an entry, in place of the one of that name if there is one. Adding many is cheapest in git's
 * order. -ENOMEM. */
int ap_git_tree_set(struct ap_git_tree *tree, const char *name, unsigned mode, const char *oid);
void ap_git_tree_remove(struct ap_git_tree *tree, const char *name);

/* Reads a tree, or the tree of a commit or tag. -ENOENT: there is no such object. */
int ap_git_read_tree(struct ap_git *git, const char *oid, struct ap_git_tree *ret,
		     struct ap_err *err);

/* What a tree, or the tree of a commit, has at a path: its mode, 0 for nothing, and its object.
 * `tree` may be "", an empty tree. -ENOENT: an object is missing. */
int ap_git_entry_at(struct ap_git *git, const char *tree, const char *path, unsigned *ret_mode,
		    char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* Writes a tree, which may be empty. Entries may name objects that are not there (gitlinks).
 * -EINVAL: git accepts no such name in a tree, such as .git. */
int ap_git_write_tree(struct ap_git *git, const struct ap_git_tree *tree, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

/* Whether git accepts a name in a tree: not .git in any spelling that some file system takes for
 * it, nor .gitmodules as a link. */
bool ap_git_takes_name(const char *name, unsigned mode);

/* The name of the tree of a commit. -ENOENT. */
int ap_git_tree_of(struct ap_git *git, const char *commit, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err);

/* Writes the whole content of a regular file as the blob that git would commit at `path`, with the
 * line ends, ident, encodings and filters that attributes and configuration ask for. A `path` that
 * is NULL or longer than PATH_MAX: unchanged. Does not hold a large file in memory as a whole
 * unless the attribute ident applies. -EIO with the filter's own words: a required filter failed.
 *
 * `tracked` looks up the blob that is tracked at a path, "" for none. The function asks where that
 * decides: text=auto and core.autocrlf leave the line ends of a file alone if its tracked blob has
 * CRLF. `read` appends a blob of at most `max` bytes that the repository does not have; NULL, or a
 * negative errno: it cannot be had. `tracked` may be NULL: nothing is tracked. */
struct ap_git_tracked {
	void (*at)(void *data, const char *path, char ret[GIT_OID_MAX + 1]);
	int (*read)(void *data, const char *oid, size_t max, struct ap_buf *ret);
	void *data;
};
int ap_git_write_file(struct ap_git *git, int fd, const char *path,
		      const struct ap_git_tracked *tracked, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

/* Whether a file of `size` bytes at `path`, which was checked out from the blob `oid`, could be
 * written as another blob: because the rules of its path change it, or because the rules by which
 * it was checked out changed the blob. Reads only the header of the object. 1, 0 or a negative
 * errno. */
int ap_git_converts(struct ap_git *git, const char *path, const char *oid, uint64_t size,
		    struct ap_err *err);

/* Writes a buffer as a blob, unchanged. */
int ap_git_write_blob(struct ap_git *git, const void *data, size_t len, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

/* Appends what a blob holds. -ENOENT; -EFBIG: more than `max` bytes. */
int ap_git_read_blob(struct ap_git *git, const char *oid, size_t max, struct ap_buf *ret,
		     struct ap_err *err);

/* Writes a commit, dated now, by the user as environment and configuration name him, else by the
 * pool (agentpoolfs, agentpoolfs@localhost). `parents` has NULL at the end. Uses the message as it
 * is, and adds a newline if there is none at its end. Passes nothing of it in the arguments of a
 * process. */
int ap_git_write_commit(struct ap_git *git, const char *tree, const char *const *parents,
			const char *message, char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* 1: `old` is `commit` or an ancestor of it; 0: it is not; -ENOENT: one of them is not there. */
int ap_git_is_ancestor(struct ap_git *git, const char *old, const char *commit, struct ap_err *err);

/* Whether there is a commit of that name. */
bool ap_git_has_commit(struct ap_git *git, const char *oid);

/* --- rules --- */

/* Whether the rules, REPO's info/exclude or the user's own excludes file ignore a path, as git
 * decides it for an untracked path. `path` is relative to the top, without a slash at its end. The
 * caller has filled in the rules of the directories above it, and does not change these. 1, 0 or a
 * negative errno. */
int ap_git_is_ignored(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err);

/* Calls `each` with every path of an index file and its object, in git's order, once for a path in
 * conflict. Reads the file as data, at most 256 MiB of it. Stops when `each` returns non-zero, and
 * returns that. -EIO: it is no index, or one that is split, sparse or damaged. */
int ap_git_read_index(struct ap_git *git, const char *file,
		      int (*each)(void *data, const char *path, const char *oid), void *data,
		      struct ap_err *err);

/* --- looking --- */

/* Calls `each` with every path (file, link, gitlink) that differs between two trees, or the trees
 * of two commits, in git's order; NULL is an empty tree. `old_entry` is NULL for a new path,
 * `new_entry` for a removed one; a name that became a directory, or was one, gives removed and new
 * paths. A path may be longer than PATH_MAX. Reads no subtrees that are equal. Stops when `each`
 * returns non-zero, and returns that. -EFBIG: more than 4 million directories differ;
 * -ENAMETOOLONG: a path of more than 1 MiB; -ENOENT: an object is missing. */
int ap_git_diff_trees(struct ap_git *git, const char *old_tree, const char *new_tree,
		      int (*each)(void *data, const char *path,
				  const struct ap_git_entry *old_entry,
				  const struct ap_git_entry *new_entry),
		      void *data, struct ap_err *err);

/* Appends what `git diff --stat` says of the difference of two trees, 80 columns wide; files of
 * more than 8 MiB count as binary. */
int ap_git_diffstat(struct ap_git *git, const char *old_tree, const char *new_tree,
		    struct ap_buf *ret, struct ap_err *err);
