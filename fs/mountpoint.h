/* Checks the mount point of a pool, and unmounts dead mounts of ours there. Never touches a mount
 * that is alive. */
#pragma once

#include <sys/types.h>

#include "../core/agentpool.h"

/* Resolves the canonical path of a mount point, owned by the caller, without asking what is mounted
 * there. -EINVAL: the path has a newline, … */
int mountpoint_resolve(const char *given, char **ret, struct ap_err *err);

/* Checks that a canonical path is an empty directory, on which a pool can be mounted; unmounts dead
 * mounts of ours first. -EBUSY: a pool is mounted there that is not dead; -ENOTEMPTY, -ENOTDIR,
 * -ENOENT, … Blocks. */
int mountpoint_check(const char *path, struct ap_err *err);

/* The device of what is mounted at a canonical path; 0: it cannot be told. Asks the kernel alone.
 */
dev_t mountpoint_device(const char *path);
