/* Where a pool is to be mounted: whether it can be there, and dead mounts of our own out of the
 * way. Never touches what is mounted and alive. */
#pragma once

#include "../core/agentpool.h"

/* The canonical path of a mount point, owned by the caller; what is mounted there need not answer.
 * -EINVAL: it has a newline, … */
int mountpoint_resolve(const char *given, char **ret, struct ap_err *err);

/* Whether a pool can be mounted at a canonical path: it is an empty directory. Dead mounts of ours
 * are taken away. -EBUSY: a pool is mounted there that is not dead; -ENOTEMPTY, -ENOTDIR, -ENOENT,
 * … Blocks. */
int mountpoint_check(const char *path, struct ap_err *err);
