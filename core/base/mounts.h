/* The kernel's table of mounts, /proc/PID/mountinfo, as text: what is mounted where. Knows the
 * table's form and no mount's meaning; touches nothing that is mounted. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "buf.h"

#define MOUNTS_TYPE_MAX 64 /* bytes of a file system's type with its NUL */

/* Appends the table as a process sees it; `pid` 0: this process. -ENOENT, -EACCES, -ENOMEM, … */
int mounts_read(pid_t pid, struct ap_buf *ret);

/* The type, such as "fuse.agentpoolfs", of the mount at exactly that canonical path; of several,
 * the last one. False: there is none. */
bool mounts_type_at(const char *table, const char *path, char ret_type[MOUNTS_TYPE_MAX]);

/* Whether what is mounted at that canonical path, or below it in the same mount, appears in copies
 * of this namespace as well (mount_namespaces(7), shared). */
bool mounts_is_shared(const char *table, const char *path);

/* Whether something of that device is mounted; true if that cannot be told. `table` is an open
 * /proc/self/mountinfo, read from its beginning, and no further than to the first such row. */
bool mounts_has(FILE *table, dev_t device);

struct mounts_row {
	int id;
	char *path; /* canonical; owned */
	char type[MOUNTS_TYPE_MAX];
};

/* All mounts at a canonical path or below it, in the table's order: of several at one place the
 * last lies on top. Returns an array of *ret_n that mounts_free() frees; NULL for none. -ENOMEM. */
int mounts_below(const char *table, const char *path, struct mounts_row **ret, size_t *ret_n);
void mounts_free(struct mounts_row *rows, size_t n);
