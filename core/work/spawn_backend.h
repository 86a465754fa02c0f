/* How the files of a worktree come about. All but `git` put them there from a template: the files
 * of one commit, checked out once, that nothing ever changes. Knows directories; nothing of
 * branches, leases or agents. */
#pragma once

#include <stdbool.h>

#include "err.h"

/* Where one worktree is made. All of it lies on one file system. */
struct spawn_place {
	const char *template_files;
	const char *path;   /* of the worktree; the directory may be there, empty */
	const char *layers; /* what a backend needs beside it: a directory of the worktree's own */
	const char *admin_dir; /* of the worktree: its index is a copy of the template's */
};

struct spawn_backend {
	const char *name; /* as users write and read it */

	/* Making a worktree as new is putting its files aside and populating it again; else it is
	 * cleaned by git, which is the faster the less was changed. */
	bool is_instant;

	/* Whether it works in an empty directory, which is removed afterwards, whatever is in it.
	 * -EOPNOTSUPP, … NULL: it works wherever files do. */
	int (*probe)(const char *dir, struct ap_err *);

	/* Makes the empty directory that becomes a template's files. NULL: a plain one does. */
	int (*make_template_dir)(const char *path, struct ap_err *);

	/* Has the template's files appear at `path`, with an index that finds them unchanged. What
	 * is half made is left to detach and removal. */
	int (*populate)(const struct spawn_place *, struct ap_err *);

	/* Has the files of a worktree appear again that were there before a restart of the machine.
	 * NULL: they always are. */
	int (*attach)(const struct spawn_place *, struct ap_err *);

	/* Lets go of `path`, so that it can be moved and removed. NULL: it can be. A descriptor
	 * that holds what is let go, or -1: closing it may take long, and is left to the caller. */
	int (*detach)(const struct spawn_place *);
};

extern const struct spawn_backend spawn_overlay, spawn_btrfs, spawn_copy;

/* The backend of that name, or with "auto" the first that works in `dir`, in the order overlay,
 * btrfs, copy, git. NULL is `git worktree add`, without templates. Blocks. A negative errno when
 * the one that is asked for does not work there. */
int spawn_backend_choose(const struct spawn_backend **ret, const char *name, const char *dir,
			 struct ap_err *err);

/* Makes the empty directory that becomes a template's files. */
int spawn_backend_make_dir(const struct spawn_backend *backend, const char *path,
			   struct ap_err *err);

/* Its name; that of NULL is git. */
const char *spawn_backend_name(const struct spawn_backend *backend);
