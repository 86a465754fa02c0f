/* What was changed in a worktree, found without git: a layer. With an overlay it is what its upper
 * directory holds; with every other backend what differs from a manifest, the list of all files as
 * they were when the worktree was handed over. Nothing here follows a link, leaves the file system
 * that the worktree lies on, waits for a FIFO or is stopped by PATH_MAX: everything is opened from
 * the descriptor of the directory that it is in.
 *
 * A layer is read directory by directory, by one thread. An agent may be at work meanwhile: what it
 * makes or takes away while a directory is read may be seen or not. Functions return 0 or a
 * negative errno with its sentence, and block. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "buf.h"
#include "err.h"

#define LAYER_DEPTH_MAX 2048	  /* directories in one another; git reads no deeper trees either */
#define LAYER_DIR_MAX	(1 << 20) /* entries of one directory */

/* What identifies the content of a file without reading it. */
struct layer_stamp {
	uint64_t ino, size;
	int64_t mtime_ns, ctime_ns;
	uint32_t mode;
};

/* A list of files with their stamps, kept on the disk: a manifest of a whole worktree, or the
 * baseline, what setup made in one. */
struct layer_list;

/* Reads one that was written whole by layer_write_manifest() or layer_write_baseline(). -ENOENT:
 * there is none; -EIO: it is not whole. */
int layer_list_read(struct layer_list **ret, const char *file, struct ap_err *err);
void layer_list_free(struct layer_list *list); /* NULL is ignored */

/* Where a worktree's layer is. */
struct layer_place {
	const char *upper;    /* of an overlay; NULL: it is none, and `manifest` counts */
	const char *path;     /* of the worktree */
	const char *manifest; /* the file of the list of all files; may be NULL with `upper` */
	const char *baseline; /* the file of the list of what setup made; not there: nothing */
	bool user_xattrs;     /* the overlay keeps its marks in user.overlay.*, not trusted. */
};

struct layer;

int layer_open(struct layer **ret, const struct layer_place *place, struct ap_err *err);
void layer_close(struct layer *layer); /* NULL is ignored */

enum layer_kind {
	LAYER_FILE,  /* a regular file, new or changed */
	LAYER_LINK,  /* a symbolic link, new or changed */
	LAYER_DIR,   /* a directory in which something may be changed */
	LAYER_GONE,  /* the name is not there any more */
	LAYER_OTHER, /* a FIFO, socket or device: in the place of the name, never opened */
	LAYER_MOUNT, /* something is mounted there: never opened */
};

struct layer_entry {
	char *name;
	enum layer_kind kind;
	struct stat st;	  /* of all but GONE and MOUNT */
	bool is_baseline; /* setup made it so, and it is unchanged since; of GONE too */
	bool is_opaque;	  /* DIR: nothing of what the template has there is in it any more */
	char *from;	  /* DIR that was moved: what the template has at this path is in it and
			   * below it, not what it has at its own; NULL: no. Relative to the top,
			   * without . and .. */
};

/* One directory of a layer, open. */
struct layer_dir {
	struct layer *layer;
	int fd;			     /* of the upper directory or the worktree's; owned */
	struct layer_entry *entries; /* in no order; owned */
	size_t n;

	/* layer.c's own */
	unsigned depth;
	uint32_t in_manifest, in_baseline; /* its place in these lists */
	char *from;	 /* of the nearest directory from here up that was moved; NULL: none */
	size_t from_len; /* bytes of that directory's own path */
	bool is_new;	 /* opaque, or below such a one */
};

/* The top directory. `.git` of the top is left out: it is the pool's. */
int layer_top(struct layer *layer, struct layer_dir *ret, struct ap_err *err);

/* The directory of an entry. `path` is its path from the top. With `make_readable` one that its
 * owner, who we are, may not read is made readable for him first; else -EACCES. -EXDEV: something
 * was mounted there meanwhile; -ENAMETOOLONG: it is deeper than LAYER_DEPTH_MAX; -E2BIG: it has
 * more than LAYER_DIR_MAX entries. */
int layer_enter(const struct layer_dir *dir, const struct layer_entry *entry, const char *path,
		bool make_readable, struct layer_dir *ret, struct ap_err *err);
void layer_dir_fini(struct layer_dir *dir);

/* Opens a regular file for reading; a descriptor, or a negative errno: -EACCES as above, -ESTALE:
 * it is none any more. */
int layer_open_file(const struct layer_dir *dir, const struct layer_entry *entry,
		    bool make_readable, struct ap_err *err);

/* Reads where a link leads. */
int layer_read_link(const struct layer_dir *dir, const struct layer_entry *entry,
		    struct ap_buf *ret, struct ap_err *err);

/* The directory of that path in the files as the agent sees them, the worktree's own; a descriptor
 * (O_PATH), or -ENOENT, -ENOTDIR, -ELOOP, -EXDEV. For what has to be read beside the layer, such as
 * .gitignore files. "" is the top. */
int layer_merged_dir(struct layer *layer, const char *path, struct ap_err *err);

/* Opens a regular file of them for reading; a descriptor, or as layer_open_file(), -ESTALE: no such
 * file is there. */
int layer_merged_file(struct layer *layer, const char *path, bool make_readable,
		      struct ap_err *err);

/* Lists what cannot be entered with nothing in it: it counts as changed then, or as work. A file
 * that was changed less than a tick of the clock before a list was written, and so might be again
 * without a trace, counts as changed for the manifest and as work for the baseline. */

/* Writes the list of all files of a worktree as they are now: its manifest. */
int layer_write_manifest(const char *path, const char *file, struct ap_err *err);

/* What is changed in the layer now and is not in its baseline. */
int layer_note(struct layer *layer, struct layer_list **ret, struct ap_err *err);

/* Has `file` hold what is changed in the layer now and is not in `before`, which layer_note() made;
 * NULL: nothing was. That is what setup made in between. Waits a few ticks first, so that what
 * setup wrote last is told from what is written next. */
int layer_write_baseline(struct layer *layer, const struct layer_list *before, const char *file,
			 struct ap_err *err);
