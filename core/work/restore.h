/* Files put back and put away, and mounts let go of, whatever an agent has made of them: from
 * descriptors, without following links, on one file system. All functions block, and return 0 or a
 * negative errno with its sentence. */
#pragma once

#include "err.h"
#include "layer.h"

/* Puts back what is changed in a worktree, in place, so that what runs in it goes on to see it: new
 * files go, changed and missing ones are made anew from `template_files`, modes and times too.
 * Costs what was changed, and with a manifest a look at every file. `.git` of the top is left
 * alone. A manifest is to be written anew afterwards: what is put back is not in it. -EBUSY:
 * something is mounted in there. On failure as much as can be is put back, and the sentence names
 * the first that is not. */
int restore_from(struct layer *layer, const char *template_files, struct ap_err *err);

/* As a hard link each: all files, links and directories of a layer below the new directory `to`,
 * for what is put back in place afterwards. Whiteouts and marks of an overlay too, so that it is an
 * upper directory as `from` is. Sockets and what is mounted in there are left out; what cannot be
 * linked is copied. -ENAMETOOLONG: it is deeper than LAYER_DEPTH_MAX. */
int restore_keep_links(const char *from, const char *to, struct ap_err *err);

/* Lets go, lazily, of everything that is mounted at `path`, which is canonical, above the `n_own`
 * lowest overlays there, and of everything that is mounted below it. Nothing behind them is read.
 * `each` is told their places, if it is not NULL. An ordinary user, who may not, asks fusermount3.
 * -EPERM, -EBUSY: one is still there. */
int restore_unmount(const char *path, unsigned n_own,
		    void (*each)(void *data, const char *place, const char *type), void *data,
		    struct ap_err *err);

/* As a hard link each: what a layer says is changed, below the new directory `to`. What has gone is
 * not said there; what cannot be entered or linked is left out. */
int restore_keep_layer(struct layer *layer, const char *to, struct ap_err *err);
