/* Trees removed, whatever was made of them: from descriptors, without following links, on one mount
 * only. What is in the way because of its mode, or because it is immutable or append-only, is made
 * removable where that is ours to do. Takes a bounded number of descriptors, however deep it is.
 * Both functions block, long for many files. */
#pragma once

#include <stdint.h>

#include "err.h"

/* Removes a path with everything below it; no failure where it is not there. What is mounted in it
 * stays, and is not touched. On failure as much as can be has gone, the errno and the sentence are
 * of the first that has not, and *ret_left, if it is not NULL, is how many would not go, without
 * the directories that they are in. */
int remove_tree(const char *path, uint64_t *ret_left, struct ap_err *err);

/* The same of a name in a directory that is open for reading, which is made writable too if it is
 * in the way. */
int remove_tree_at(int dir_fd, const char *name, uint64_t *ret_left, struct ap_err *err);

/* Has a directory that is open for reading take names and lose them, as far as that is ours to do:
 * u+rwx, neither immutable nor append-only. */
void remove_unlock_dir(int dir_fd);
