/* Git in the process: the objects and refs of one repository, read and written without a process of
 * git. libgit2 does it; where libgit2 cannot open the repository (sha256, reftable, extensions that
 * it does not know), or where that is asked for, the git program does the same behind the same
 * functions, with processes that stay as long as the handle.
 *
 * Of configuration the repository's own counts, with the user's and the system's, as git finds
 * them. Which files are ignored and how a file is written into an object is decided by the
 * .gitignore and .gitattributes files of a directory that the caller fills (`rules`): none is read
 * from a worktree. A filter runs only where the repository's own configuration defines its driver.
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
	const char *git_dir;	/* of the repository; its HEAD is what revisions name */
	const char *common_dir; /* the git directory that its worktrees share; may be the same */
	const char *objects;	/* where new objects go, a directory; NULL: into the repository */
	const char *const *borrowed; /* object directories that are read as well, NULL at the end;
				      * alternates in them are not followed; may be NULL */
	const char *rules; /* the directory of .gitignore and .gitattributes files; NULL: none. What
			    * git itself has to filter appears in it for a moment */
	const char *ref_notes; /* ref_notes.h; NULL: locks of refs are not noted */
	bool by_program;       /* even where libgit2 could */
	int64_t limit_ns;      /* of one run of the git program, such as a filter's; 0: GIT_LIMIT */
};

/* Opens it; all strings are copied. With libgit2 it costs less than a millisecond, and no process.
 */
int ap_git_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err);
void ap_git_close(struct ap_git *git); /* NULL is ignored */

/* "libgit2" or "program": what stats/git says. */
const char *ap_git_kind(const struct ap_git *git);

/* --- revisions and refs: always the repository's --- */

/* The commit that a revision names. 0, 1 (it names none) or a negative errno. */
int ap_git_resolve(struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err);

/* Sets a ref, with `why` in its log; makes a log if the ref is below refs/agentpool/, whatever the
 * configuration says. `old` is what it must be now: "" it must not be there, NULL whatever it is.
 * -ESTALE: it is something else; -EEXIST: its name and that of another ref are in each other's way
 * (a and a/b); -EBUSY: somebody holds its lock. Runs no hook. */
int ap_git_set_ref(struct ap_git *git, const char *ref, const char *oid, const char *old,
		   const char *why, struct ap_err *err);

/* Removes a ref. No failure where it is not there, unless `old` is given; else as above. */
int ap_git_remove_ref(struct ap_git *git, const char *ref, const char *old, struct ap_err *err);

/* Calls `each` for every ref whose name begins with `prefix`, with the object it names; symbolic
 * ones are resolved, broken ones left out. Stops at the first that returns non-zero, and returns
 * that. */
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

/* Puts an entry in, in place of one of that name. Of many, it is cheapest to put them in in order.
 * -ENOMEM. */
int ap_git_tree_set(struct ap_git_tree *tree, const char *name, unsigned mode, const char *oid);
void ap_git_tree_remove(struct ap_git_tree *tree, const char *name);

/* Reads a tree, or that of a commit. -ENOENT: there is no such object. */
int ap_git_read_tree(struct ap_git *git, const char *oid, struct ap_git_tree *ret,
		     struct ap_err *err);

/* What a tree, or that of a commit, has at a path: its mode, 0 for nothing, and its object. "" is
 * an empty tree. -ENOENT: an object is missing. */
int ap_git_entry_at(struct ap_git *git, const char *tree, const char *path, unsigned *ret_mode,
		    char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* Writes a tree; an empty one too. Entries may name objects that are not there (gitlinks). -EINVAL:
 * a name that git does not take, such as .git. */
int ap_git_write_tree(struct ap_git *git, const struct ap_git_tree *tree, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

/* Whether git takes a name into its trees: not .git in any writing that some system takes for it,
 * nor .gitmodules as a link. */
bool ap_git_takes_name(const char *name, unsigned mode);

/* The name of the tree of a commit. -ENOENT. */
int ap_git_tree_of(struct ap_git *git, const char *commit, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err);

/* Writes what a regular file holds from its beginning, as git would commit it at `path`: line ends,
 * ident, encodings and filters as attributes and configuration have it. NULL: as it is. The file is
 * not held in memory as a whole if it is large and nothing is to be done to it. `path` may be
 * longer than PATH_MAX: it is written as it is then. -EIO with the filter's own words when a filter
 * that is required fails.
 *
 * `tracked` says what blob is tracked at a path, "" for none, and is asked where that decides:
 * text=auto and core.autocrlf leave the line ends of a file alone that has had such. `read` is
 * asked for a blob of at most `max` bytes that the repository does not have; NULL, or not 0: nobody
 * has it. NULL: nothing is tracked. */
struct ap_git_tracked {
	void (*at)(void *data, const char *path, char ret[GIT_OID_MAX + 1]);
	int (*read)(void *data, const char *oid, size_t max, struct ap_buf *ret);
	void *data;
};
int ap_git_write_file(struct ap_git *git, int fd, const char *path,
		      const struct ap_git_tracked *tracked, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

/* Whether a file that lies at `path` could be written as anything else than the blob that it was
 * checked out from, `oid`, of which it has `size` bytes: by the rules of its path, or because those
 * by which it was checked out made something else of the blob. Costs what a look at the object's
 * head does. 1, 0 or a negative errno. */
int ap_git_converts(struct ap_git *git, const char *path, const char *oid, uint64_t size,
		    struct ap_err *err);

/* Writes what is in memory, as it is. */
int ap_git_write_blob(struct ap_git *git, const void *data, size_t len, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err);

/* Appends what a blob holds. -ENOENT; -EFBIG: more than `max` bytes. */
int ap_git_read_blob(struct ap_git *git, const char *oid, size_t max, struct ap_buf *ret,
		     struct ap_err *err);

/* Writes a commit of the user as configured, else of the pool (agentpoolfs, agentpoolfs@localhost),
 * dated now. `parents` has NULL at the end. The message is taken as it is, with a newline at its
 * end. Nothing of it is in the arguments of a process. */
int ap_git_write_commit(struct ap_git *git, const char *tree, const char *const *parents,
			const char *message, char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* 1: `old` is `commit` or leads to it by parents; 0: it does not; -ENOENT: one of them is not
 * there. */
int ap_git_is_ancestor(struct ap_git *git, const char *old, const char *commit, struct ap_err *err);

/* Whether there is a commit of that name. */
bool ap_git_has_commit(struct ap_git *git, const char *oid);

/* --- rules --- */

/* Whether a path is ignored by the rules, REPO's info/exclude and the user's own excludes file; as
 * git has it for a path that is not tracked. `path` is relative to the top, without a slash at its
 * end. The rules of the directories above it are there already, and stay as they are. 1, 0 or a
 * negative errno. */
int ap_git_is_ignored(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err);

/* Calls `each` with every path of an index file and its object, in git's order: it is read as data,
 * at most 256 MiB of it. Stops at the first that returns non-zero, and returns that. -EIO: it is no
 * index, or one that is split, sparse or damaged. */
int ap_git_read_index(struct ap_git *git, const char *file,
		      int (*each)(void *data, const char *path, const char *oid), void *data,
		      struct ap_err *err);

/* --- looking --- */

/* Calls `each` with every path (file, link, gitlink) that is not the same in two trees, or trees of
 * commits, in git's order; NULL is an empty one. `old_entry` is NULL where it is new, `new_entry`
 * where it is gone; what becomes a directory, or was one, is told as one path gone and others new.
 * A path may be longer than PATH_MAX. Costs what differs: equal subtrees are not read. Stops at the
 * first that returns non-zero, and returns that. -EFBIG: more than 4 million directories differ;
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
int ap_git_diff_trees(struct ap_git *git, const char *old_tree, const char *new_tree,
		      int (*each)(void *data, const char *path,
				  const struct ap_git_entry *old_entry,
				  const struct ap_git_entry *new_entry),
		      void *data, struct ap_err *err);
