/* How a worktree gets its files. All backends but `git` take them from a template: the files of one
 * commit, checked out once and never changed. Knows directories, and nothing of branches, leases or
 * agents. */
#pragma once

#include <stdbool.h>

#include "err.h"

/* Where one worktree is made. All of it lies on one file system. */
struct spawn_place {
	const char *template_files;
	const char *path;   /* of the worktree; the directory may be there, empty */
	const char *layers; /* what a backend needs beside it: a directory of the worktree's own */
	const char *admin_dir; /* of the worktree, with a copy of the template's index */
};

struct spawn_backend {
	const char *name; /* as users write and read it */

	/* Populating again is the fast way to clean a worktree, whose old files are put aside; else
	 * worktree_clean() restores what was changed, which is faster the less that is. */
	bool is_instant;

	/* Tries whether the backend works in an empty directory, which the caller removes
	 * afterwards, whatever is in it. -EOPNOTSUPP, … NULL: it works on every file system. */
	int (*probe)(const char *dir, struct ap_err *);

	/* Makes the empty directory that becomes a template's files. NULL: mkdir() does. */
	int (*make_template_dir)(const char *path, struct ap_err *);

	/* Makes the template's files appear at `path`, with an index that finds them unchanged. On
	 * failure the caller detaches and removes what is half-made. */
	int (*populate)(const struct spawn_place *, struct ap_err *);

	/* Makes the files of a worktree appear again after a reboot. NULL: they always stay. */
	int (*attach)(const struct spawn_place *, struct ap_err *);

	/* Unmounts `path`, so that the caller can move and remove it. NULL: nothing is mounted.
	 * Returns a descriptor that holds what was unmounted, or -1; the caller closes it, which
	 * may take long. */
	int (*detach)(const struct spawn_place *);
};

extern const struct spawn_backend spawn_overlay, spawn_btrfs, spawn_copy;

/* Whether the caller can go into namespaces (core/base/namespace.h), where it may mount. */
struct spawn_inside {
	bool may;
	bool must;   /* it will: what does not work inside does not count */
	int pidfd;   /* as of namespace_enter() */
	bool enters; /* set by spawn_backend_choose(): the backend works inside alone */
};

/* Chooses the backend of that name, or with "auto" the first that works in `dir`, in the order
 * overlay, btrfs, copy, git. NULL in `ret` is `git worktree add`, without templates. Sets `why_not`
 * to why overlay was passed over; "": it was not. Starts processes; call before any thread starts.
 * Blocks. A negative errno: the named backend does not work there. */
int spawn_backend_choose(const struct spawn_backend **ret, const char *name, const char *dir,
			 struct spawn_inside *inside, struct ap_err *why_not, struct ap_err *err);

/* Makes the empty directory that becomes a template's files. */
int spawn_backend_make_dir(const struct spawn_backend *backend, const char *path,
			   struct ap_err *err);

/* The name of a backend; that of NULL is git. */
const char *spawn_backend_name(const struct spawn_backend *backend);
