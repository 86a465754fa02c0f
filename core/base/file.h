/* Whole files and directories, by path. Except where a comment says otherwise, all functions block
 * and return 0 or a negative errno with its sentence. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"

/* Creates or truncates a file for writing, for the owner only whatever the umask, through no
 * symbolic link. NULL with errno. */
FILE *file_create(const char *path);

/* Creates a file or replaces its contents, likewise for the owner only. */
int file_write(const char *path, const void *data, size_t len, struct ap_err *err);

/* The same as a whole: whoever reads it, or dies here, has the file before or the new one. Needs
 * the name PATH.new. */
int file_replace(const char *path, const void *data, size_t len, struct ap_err *err);

/* Creates a file or replaces its contents, with the mode that the umask leaves: for files that git
 * and users work with. */
int file_printf(const char *path, struct ap_err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Opens a regular file without ever waiting: a path that an agent can reach may have become
 * anything. Returns a descriptor, close-on-exec, or a negative errno. -EINVAL: it is no regular
 * file. */
int file_open(const char *path, int flags, mode_t mode);

/* Opens a path of any length below an open directory ("": itself), on the mount that the directory
 * is on. Follows no link and touches no mount on the way or at the path, so a mount that never
 * answers holds nobody up. `flags` such as O_PATH, which opens a link, a FIFO or a device as a mere
 * name. Returns a descriptor, close-on-exec, or a negative errno. -EXDEV: something is mounted
 * there. */
int file_open_below(int dir_fd, const char *path, int flags);

/* Appends what a regular file holds; `flags` such as O_NOFOLLOW. -EFBIG: more than `max` bytes. */
int file_read(const char *path, int flags, size_t max, struct ap_buf *ret, struct ap_err *err);

/* The first line of DIR/NAME, without its newline; "" when the file is empty. -ENOENT, … */
int file_read_line(const char *dir, const char *name, char *ret, size_t size);

/* Reads all of DIR/NAME but the newlines at its end, as git stores paths, which may have newlines
 * in them. Likewise; cuts off what is longer than `size` - 1 bytes. */
int file_read_path(const char *dir, const char *name, char *ret, size_t size);

/* Copies a regular file with its mode, sharing its blocks where the file system can. With
 * `keep_times` the copy gets its access and modification times. */
int file_copy(const char *from, const char *to, bool keep_times, struct ap_err *err);

/* Copies the rest of one open regular file to another, likewise. -errno. */
int file_copy_bytes(int in, int out);

/* Appends the names in an open directory, each with its NUL; not `.` and `..`. -errno. */
int file_names(int dir_fd, struct ap_buf *ret);

/* Makes a directory and those above it, for the owner only; no failure if it exists. */
int file_make_dirs(const char *path, struct ap_err *err);

/* Moves a path into a directory under a name that nothing there has; `ret_to`: where it is now. */
int file_move_into(const char *path, const char *dir, struct ap_buf *ret_to, struct ap_err *err);

/* Resolves the canonical path of `path`, owned by the caller: absolute, without links, `.`, `..`,
 * doubled or trailing slashes. Keeps names that do not exist yet as they are, and waits for no dead
 * mount. -ELOOP, -ENAMETOOLONG, -EACCES, -ENOENT (empty, or the working directory is gone). */
int file_resolve(const char *path, char **ret, struct ap_err *err);

/* Whether a canonical path is `dir` or below it, or would be if it existed; also if a bind mount
 * leads from one to the other. */
bool file_is_within(const char *path, const char *dir);

/* How many bytes of a path a sentence shows: all, or of a long one what is before a slash. */
int file_path_shown(const char *path);
