/* Files and directories as the house handles them: whole ones, by path. All functions block and
 * return 0 or a negative errno with its sentence. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"

/* Opens a file for writing anew, for the owner only whatever the umask, through no symbolic link.
 * NULL with errno. */
FILE *file_create(const char *path);

/* Writes a file anew, likewise for the owner only. */
int file_write(const char *path, const void *data, size_t len, struct ap_err *err);

/* Writes a file anew, with the mode that the umask leaves it: what git and users have to do with.
 */
int file_printf(const char *path, struct ap_err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Opens a regular file, and waits for nobody: what an agent can reach may have become anything. A
 * descriptor, close-on-exec, or a negative errno: -EINVAL: it is something else. */
int file_open(const char *path, int flags, mode_t mode);

/* Opens what is at a path below an open directory ("": itself), of any length, on the mount that
 * the directory is on: no link is followed, and nothing that is mounted on the way or there is
 * touched, so that one that never answers holds nobody up. `flags` such as O_PATH, which opens a
 * link, a FIFO or a device as a mere name. A descriptor, close-on-exec, or a negative errno:
 * -EXDEV: something is mounted there. */
int file_open_below(int dir_fd, const char *path, int flags);

/* Appends what a regular file holds; `flags` such as O_NOFOLLOW. -EFBIG: more than `max` bytes. */
int file_read(const char *path, int flags, size_t max, struct ap_buf *ret, struct ap_err *err);

/* The first line of DIR/NAME, without its newline; "" when the file is empty. -ENOENT, … */
int file_read_line(const char *dir, const char *name, char *ret, size_t size);

/* All of DIR/NAME but the newlines at its end, as git keeps paths, which may have newlines in them.
 * Likewise; longer than `size` - 1 bytes it is cut off. */
int file_read_path(const char *dir, const char *name, char *ret, size_t size);

/* Copies a regular file with its mode, sharing its blocks where the file system can. With
 * `keep_times` it keeps its modification time. */
int file_copy(const char *from, const char *to, bool keep_times, struct ap_err *err);

/* Copies what is left to read of one open regular file to another, likewise. -errno. */
int file_copy_bytes(int in, int out);

/* Appends the names in an open directory, each with its NUL; not `.` and `..`. -errno. */
int file_names(int dir_fd, struct ap_buf *ret);

/* Makes a directory and those above it, for the owner only; no failure where it is there. */
int file_make_dirs(const char *path, struct ap_err *err);

/* Moves a path into a directory under a name that nothing there has; `ret_to`: where it is now. */
int file_move_into(const char *path, const char *dir, struct ap_buf *ret_to, struct ap_err *err);

/* The canonical path of what `path` names, owned by the caller: absolute, without links, `.`, `..`,
 * doubled or trailing slashes. What is not there yet stays as it is named, and nothing of a mount
 * that is dead has to answer. -ELOOP, -ENAMETOOLONG, -EACCES, -ENOENT (empty, or the working
 * directory is gone). */
int file_resolve(const char *path, char **ret, struct ap_err *err);

/* Whether a canonical path is `dir` or below it, or would be if it were there; also where one of
 * them is reached by a bind mount of it. */
bool file_is_within(const char *path, const char *dir);
