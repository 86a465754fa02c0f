/* Removes trees, whatever was made of them: works from descriptors, follows no links and stays on
 * one mount. Changes the mode, and the immutable and append-only flags, of what is in the way,
 * where we may. Uses a bounded number of descriptors, however deep a tree is. The first two
 * functions block, long for many files. */
#pragma once

#include <stdint.h>

#include "err.h"

/* Removes a path with everything below it; no failure if it does not exist. Does not touch what is
 * mounted in it, which stays. On failure it has removed as much as it can; the errno and the
 * sentence are of the first name that would not go, and *ret_left, unless it is NULL, is the number
 * of such names, without the directories that they are in. */
int remove_tree(const char *path, uint64_t *ret_left, struct ap_err *err);

/* The same for a name in a directory that is open for reading; makes that directory writable too if
 * it is in the way. */
int remove_tree_at(int dir_fd, const char *name, uint64_t *ret_left, struct ap_err *err);

/* Makes a directory that is open for reading take names and lose them, as far as we may: u+rwx,
 * neither immutable nor append-only. */
void remove_unlock_dir(int dir_fd);
