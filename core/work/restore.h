/* Files put back, put away and removed, whatever an agent has made of them: from descriptors,
 * without following links, on one file system. All functions block, and return 0 or a negative
 * errno with its sentence. */
#pragma once

#include <stdint.h>

#include "err.h"
#include "layer.h"

/* Puts back what is changed in a worktree, in place, so that what runs in it goes on to see it: new
 * files go, changed and missing ones are made anew from `template_files`, modes and times too.
 * Costs what was changed. `.git` of the top is left alone. */
int restore_from(struct layer *layer, const char *template_files, struct ap_err *err);

/* As a hard link each: all files, links and directories of a layer below the new directory `to`,
 * for what is put back in place afterwards. Whiteouts and marks of an overlay too. */
int restore_keep_links(const char *from, const char *to, struct ap_err *err);

/* Lets go, lazily, of everything that is mounted at `path` above the `n_own` lowest mounts there,
 * and of everything that is mounted below it. Nothing behind them is read. `each` is told their
 * places, if it is not NULL. An ordinary user, who may not, asks fusermount3. -EPERM, -EBUSY: one
 * is still there. */
int restore_unmount(const char *path, unsigned n_own,
		    void (*each)(void *data, const char *place, const char *type), void *data,
		    struct ap_err *err);

/* Removes a path with everything below it, on its own file system only; no failure where it is not
 * there. What is in the way because of its mode, or because it is immutable or append-only, is made
 * removable. On failure as much as can be has gone; `ret_left` counts what is left, if it is not
 * NULL, and the sentence names the first. */
int restore_remove(const char *path, uint64_t *ret_left, struct ap_err *err);
