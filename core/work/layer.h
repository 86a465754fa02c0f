/* What was changed in a worktree, found without git: a layer. With an overlay it is what its upper
 * directory holds; with every other backend what differs from a manifest, the list of all files as
 * they were when the worktree was handed over. Nothing here follows a link, leaves the file system
 * that the worktree lies on, waits for a FIFO or is stopped by PATH_MAX: every name is opened from
 * the descriptor of its directory.
 *
 * One thread reads a layer, directory by directory. An agent may be at work meanwhile: the reader
 * may or may not see what it makes or removes while a directory is read. Functions return 0 or a
 * negative errno with its sentence, and block. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "buf.h"
#include "err.h"

#define LAYER_DEPTH_MAX 2048	  /* levels of directories; git reads no deeper trees either */
#define LAYER_DIR_MAX	(1 << 20) /* entries of one directory */

/* What identifies the content of a file without reading it. */
struct layer_stamp {
	uint64_t ino, size;
	int64_t mtime_ns, ctime_ns;
	uint32_t mode;
};

/* A list of files with their stamps, kept on the disk: the manifest of a whole worktree, or its
 * baseline, what setup made in it. */
struct layer_list;

/* Reads a list that layer_write_manifest() or layer_write_baseline() wrote. -ENOENT: there is none;
 * -EIO: it is damaged or not whole. */
int layer_list_read(struct layer_list **ret, const char *file, struct ap_err *err);
void layer_list_free(struct layer_list *list); /* NULL is ignored */

/* Where a worktree's layer is. */
struct layer_place {
	const char *upper;    /* the upper directory of an overlay; NULL: no overlay, `manifest`
			       * counts */
	const char *path;     /* of the worktree */
	const char *manifest; /* the file of the list of all files; NULL: with `upper`, or all is
			       * new */
	const char *baseline; /* the file of the list of what setup made; NULL or missing: none */
	bool user_xattrs;     /* the overlay keeps its marks in user.overlay.*, not
			       * trusted.overlay.* */
};

struct layer;

int layer_open(struct layer **ret, const struct layer_place *place, struct ap_err *err);
void layer_close(struct layer *layer); /* NULL is ignored */

enum layer_kind {
	LAYER_FILE,  /* a regular file, new or changed */
	LAYER_LINK,  /* a symbolic link, new or changed */
	LAYER_DIR,   /* a directory in which something may be changed */
	LAYER_GONE,  /* the name is not there any more */
	LAYER_OTHER, /* a FIFO, socket or device has the name: never opened */
	LAYER_MOUNT, /* something is mounted there: never opened */
};

struct layer_entry {
	char *name;
	enum layer_kind kind;
	struct stat st;	  /* of all but GONE and MOUNT */
	bool is_baseline; /* setup made it so, and nobody changed it since; GONE too */
	bool is_opaque;	  /* DIR, opaque as in overlayfs: nothing of the template's shows in it */
	char *from;	  /* DIR that was moved, as an overlayfs redirect: it shows what the
			   * template has at this path, not what the template has at its own; NULL:
			   * not moved. Relative to the top, without . and .. */
};

/* One directory of a layer, open. */
struct layer_dir {
	struct layer *layer;
	int fd;			     /* of the directory, in the upper directory or the worktree;
				      * owned */
	struct layer_entry *entries; /* in no order; owned */
	size_t n;

	/* private to layer.c */
	unsigned depth;
	uint32_t in_manifest, in_baseline; /* its place in these lists */
	char *from;	 /* `from` of the nearest moved directory, this one or above; NULL: none */
	size_t from_len; /* bytes of that directory's own path */
	bool is_new;	 /* opaque, or below an opaque directory */
};

/* Opens and reads the top directory, without its `.git`, which is the pool's. */
int layer_top(struct layer *layer, struct layer_dir *ret, struct ap_err *err);

/* Opens and reads the directory of an entry. `path` is its path from the top. A directory of ours
 * without u+rx is -EACCES; with `make_readable` the function adds u+rx first. -EXDEV: something was
 * mounted there meanwhile; -ENAMETOOLONG: it is deeper than LAYER_DEPTH_MAX; -E2BIG: it has more
 * than LAYER_DIR_MAX entries. */
int layer_enter(const struct layer_dir *dir, const struct layer_entry *entry, const char *path,
		bool make_readable, struct layer_dir *ret, struct ap_err *err);
void layer_dir_fini(struct layer_dir *dir);

/* Opens a regular file for reading; a descriptor, or a negative errno: -EACCES as above (u+r),
 * -ESTALE: it is no regular file any more. */
int layer_open_file(const struct layer_dir *dir, const struct layer_entry *entry,
		    bool make_readable, struct ap_err *err);

/* Appends the target of a link. -ENOENT: it has gone; -ESTALE: it is no link any more. */
int layer_read_link(const struct layer_dir *dir, const struct layer_entry *entry,
		    struct ap_buf *ret, struct ap_err *err);

/* Opens the directory at that path in the worktree itself, as the agent sees it; a descriptor
 * (O_PATH), or -ENOENT, -ENOTDIR, -ELOOP, -EXDEV. For what the caller reads beside the layer, such
 * as .gitignore files. "" is the top. */
int layer_merged_dir(struct layer *layer, const char *path, struct ap_err *err);

/* Opens a regular file of the worktree itself for reading; a descriptor, or an errno as
 * layer_open_file(). -ESTALE: there is no such file. */
int layer_merged_file(struct layer *layer, const char *path, bool make_readable,
		      struct ap_err *err);

/* A list shows a directory that cannot be entered as empty: what is in it counts as changed, or as
 * work. A file that was changed less than a tick of the clock before a list was begun could change
 * again without another stamp: it counts as changed for the manifest, and as work for the baseline.
 */

/* Writes the list of all files of a worktree as they are now: its manifest. Waits a few ticks of
 * the clock first, as layer_write_baseline(). */
int layer_write_manifest(const char *path, const char *file, struct ap_err *err);

/* Lists what is changed in the layer now and is not in its baseline. */
int layer_note(struct layer *layer, struct layer_list **ret, struct ap_err *err);

/* Writes to `file` what is changed in the layer now and is not in `before`, a list by layer_note()
 * (NULL: an empty list): what setup made in between. Waits a few ticks of the clock first, so that
 * the next write gets another time than the last one of setup. */
int layer_write_baseline(struct layer *layer, const struct layer_list *before, const char *file,
			 struct ap_err *err);
