/* Restores files, keeps copies of them, and unmounts, whatever an agent has made of them: works
 * from descriptors, follows no links and stays on one file system. All functions block, and return
 * 0 or a negative errno with its sentence. */
#pragma once

#include "err.h"
#include "layer.h"

/* Undoes the changes in a worktree, in place, so that processes in it go on to see it: removes new
 * files, and makes changed and missing ones again from `template_files`, with modes and times.
 * Costs what was changed, and with a manifest a stat of every file. Leaves `.git` of the top alone.
 * The caller writes a manifest again afterwards, as the old one does not match the restored files.
 * -EBUSY: something is mounted in there. On failure restores as much as it can, and the sentence
 * names the first thing that it cannot. */
int restore_from(struct layer *layer, const char *template_files, struct ap_err *err);

/* Makes the new directory `to` with everything below `from`: hard links to files and links, and
 * directories of its own, for a caller that restores the files in place afterwards. Keeps whiteouts
 * and marks of an overlay, so that `to` is an upper directory as `from` is. Leaves out sockets and
 * what is mounted in there; copies what cannot be linked. -ENAMETOOLONG: it is deeper than
 * LAYER_DEPTH_MAX. */
int restore_keep_links(const char *from, const char *to, struct ap_err *err);

/* Lazily unmounts everything at `path`, which is canonical, above the `n_own` lowest overlays
 * there, and everything below it. Reads nothing behind a mount. Calls `each`, which may be NULL,
 * with the place and type of each mount. Where we may not unmount a FUSE mount it asks fusermount3.
 * -EPERM, -EBUSY: a mount is still there. */
int restore_unmount(const char *path, unsigned n_own,
		    void (*each)(void *data, const char *place, const char *type), void *data,
		    struct ap_err *err);

/* Makes the new directory `to` with hard links to the files and links that a layer says are
 * changed, without those that setup made; copies what cannot be linked. Records nothing of what has
 * gone. Leaves out FIFOs, sockets, devices and mounts. Fails if it cannot keep something that is
 * changed: -ENAMETOOLONG below 1000 levels of directories, -ENOSPC, -EACCES, … */
int restore_keep_layer(struct layer *layer, const char *to, struct ap_err *err);
