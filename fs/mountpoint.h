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

/* Starts a process that stays where the caller is, and unmounts what is mounted at that canonical
 * path when mountpoint_unmount_by() asks it to, or else ends with the caller. For a caller that
 * leaves its namespaces. Returns a descriptor of the caller's, or a negative errno. */
int mountpoint_unmounter(const char *path, struct ap_err *err);

/* Has that process unmount, lazily, and closes `fd`. Blocks, 20 s at most. */
void mountpoint_unmount_by(int fd);

/* The device of what is mounted at a canonical path; 0: it cannot be told. Asks the kernel alone.
 */
dev_t mountpoint_device(const char *path);
