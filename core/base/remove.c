/* The way down is a recursion of bounded depth: a directory that lies deeper is moved up into the
 * top of the tree, where its turn comes again. */
#include "remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "file.h"

#define DEPTH_MAX  32  /* of the recursion */
#define PASSES_MAX 100 /* over a directory in which somebody makes new names */

struct removal {
	int top_fd;		   /* what lies too deep is moved here */
	unsigned n_moved, n_names; /* done, and tried */
	uint64_t n_left, n_removed;
	struct ap_buf path; /* where it is at, for the sentence */
	int result;
	struct ap_err *err;
};

/* Counts what would not go. */
static void leave(struct removal *removal, const char *name, int error)
{
	removal->n_left++;
	if (removal->result < 0)
		return;
	removal->result = error;
	(void)ap_err_errno(removal->err, error, "%s/%s", ap_buf_text(&removal->path), name);
}

static void clear_flags(int fd)
{
	int flags;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags); /* if it fails, so does what comes after it */
}

void remove_unlock_dir(int dir_fd)
{
	struct stat st;
	clear_flags(dir_fd);
	if (fstat(dir_fd, &st) == 0 && (st.st_mode & 0700) != 0700)
		(void)fchmod(dir_fd, (st.st_mode & 07777) | 0700);
}

/* Opens a regular file or a directory, of which it is known that it is one, for reading. */
static int open_for_reading(int path_fd)
{
	char name[32];
	snprintf(name, sizeof name, "/proc/self/fd/%d", path_fd);
	int fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void clear_flags_of(int dir_fd, const char *name)
{
	struct stat st;
	AP_CLEANUP_CLOSE int path_fd = file_open_below(dir_fd, name, O_PATH);
	if (path_fd < 0 || fstat(path_fd, &st) < 0 ||
	    (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
		return;
	AP_CLEANUP_CLOSE int fd = open_for_reading(path_fd);
	if (fd >= 0)
		clear_flags(fd);
}

/* Takes a name away, and what is in the way first. `is_ours`: the directory may be changed. */
static int unlink_name(int dir_fd, const char *name, int flags, bool is_ours)
{
	if (unlinkat(dir_fd, name, flags) == 0)
		return 0;
	if (errno != EACCES && errno != EPERM)
		return -errno;
	if (errno == EPERM)
		clear_flags_of(dir_fd, name);
	if (is_ours)
		remove_unlock_dir(dir_fd);
	return unlinkat(dir_fd, name, flags) == 0 ? 0 : -errno;
}

/* Opens a directory to list and empty it; the way in is made free. */
static int open_to_empty(int dir_fd, const char *name)
{
	struct stat st;
	char path[32];
	AP_CLEANUP_CLOSE int path_fd = file_open_below(dir_fd, name, O_PATH | O_DIRECTORY);
	if (path_fd < 0)
		return path_fd;
	int fd = open_for_reading(path_fd);
	if (fd != -EACCES)
		return fd;
	snprintf(path, sizeof path, "/proc/self/fd/%d", path_fd);
	if (fstat(path_fd, &st) < 0 || chmod(path, (st.st_mode & 07777) | 0700) < 0)
		return -EACCES;
	return open_for_reading(path_fd);
}

/* Moves a directory out of the depth, under a name that nothing there has. It may have to be
 * writable itself, as its `..` changes. */
static int move_up(struct removal *removal, int dir_fd, const char *name)
{
	AP_CLEANUP_CLOSE int fd = open_to_empty(dir_fd, name);
	if (fd < 0)
		return fd;
	remove_unlock_dir(fd);
	for (;;) {
		char to[64];
		snprintf(to, sizeof to, "removed-%u", removal->n_names++);
		if (renameat2(dir_fd, name, removal->top_fd, to, RENAME_NOREPLACE) == 0) {
			removal->n_moved++;
			return 0;
		}
		if (errno != EEXIST)
			return -errno;
	}
}

static void remove_name(struct removal *removal, int dir_fd, const char *name, bool is_ours,
			unsigned depth);

/* Removes every name of a directory that is there now. */
static void empty_once(struct removal *removal, DIR *names, unsigned depth)
{
	const struct dirent *at;
	rewinddir(names);
	while ((at = readdir(names))) {
		if (strcmp(at->d_name, ".") != 0 && strcmp(at->d_name, "..") != 0)
			remove_name(removal, dirfd(names), at->d_name, true, depth + 1);
	}
}

/* Removes what is in a directory and then itself; again while something goes, as a list of names
 * that are being removed may leave some out, and what lay too deep has been moved up. */
static int empty_and_remove(struct removal *removal, int dir_fd, const char *name, bool is_ours,
			    int fd, unsigned depth)
{
	DIR *names = fdopendir(fd);
	if (!names) {
		close(fd);
		return -ENOMEM;
	}
	if (depth == 0)
		removal->top_fd = fd;
	const uint64_t left = removal->n_left;
	int r = -ENOTEMPTY;
	for (unsigned passes = 0; r == -ENOTEMPTY && passes < PASSES_MAX; passes++) {
		const uint64_t removed = removal->n_removed;
		const unsigned moved = removal->n_moved;
		removal->n_left = left;
		empty_once(removal, names, depth);
		r = unlink_name(dir_fd, name, AT_REMOVEDIR, is_ours);
		if (removal->n_removed == removed && removal->n_moved == moved)
			break;
		if (depth == 0 && removal->n_moved != moved)
			passes = 0;
	}
	closedir(names);
	/* what is left in it has been counted, or was moved up */
	return r == -ENOTEMPTY && removal->n_left > left ? 0 : r;
}

static int remove_dir(struct removal *removal, int dir_fd, const char *name, bool is_ours,
		      unsigned depth)
{
	if (depth == DEPTH_MAX)
		return move_up(removal, dir_fd, name);
	int fd = open_to_empty(dir_fd, name);
	if (fd < 0)
		return fd == -EXDEV ? -EBUSY : fd;
	size_t len = removal->path.len;
	ap_buf_adds(&removal->path, "/");
	ap_buf_adds(&removal->path, name);
	int r = empty_and_remove(removal, dir_fd, name, is_ours, fd, depth);
	removal->path.len = len;
	if (removal->path.data)
		removal->path.data[len] = '\0';
	return r;
}

/* A mount is no place to go in: a name that something is mounted on is busy. */
static void remove_name(struct removal *removal, int dir_fd, const char *name, bool is_ours,
			unsigned depth)
{
	const uint64_t left = removal->n_left;
	int r = unlink_name(dir_fd, name, 0, is_ours);
	if (r == -EISDIR)
		r = unlink_name(dir_fd, name, AT_REMOVEDIR, is_ours);
	if (r == -ENOTEMPTY)
		r = remove_dir(removal, dir_fd, name, is_ours, depth);
	if (r < 0 && r != -ENOENT)
		leave(removal, name, r);
	else if (removal->n_left == left)
		removal->n_removed++;
}

static int remove_from(int dir_fd, const char *above, const char *name, bool is_ours,
		       uint64_t *ret_left, struct ap_err *err)
{
	struct removal removal = {.top_fd = -1, .err = err};
	ap_buf_adds(&removal.path, above);
	remove_name(&removal, dir_fd, name, is_ours, 0);
	ap_buf_fini(&removal.path);
	if (ret_left)
		*ret_left = removal.n_left;
	return removal.n_left > 0 ? removal.result : 0;
}

int remove_tree_at(int dir_fd, const char *name, uint64_t *ret_left, struct ap_err *err)
{
	return remove_from(dir_fd, ".", name, true, ret_left, err);
}

int remove_tree(const char *path, uint64_t *ret_left, struct ap_err *err)
{
	size_t len = strlen(path);
	while (len > 1 && path[len - 1] == '/')
		len--;
	AP_CLEANUP_FREE char *above = strndup(path, len);
	char *slash = above ? strrchr(above, '/') : NULL;
	AP_CLEANUP_FREE char *name = above ? strdup(slash ? slash + 1 : above) : NULL;
	if (ret_left)
		*ret_left = 0;
	if (!name)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	if (slash)
		*slash = '\0';
	const char *dir = !slash ? "." : *above ? above : "/";
	AP_CLEANUP_CLOSE int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return errno == ENOENT ? 0 : ap_err_errno(err, -errno, "%s", path);
	return remove_from(dir_fd, *name ? dir : "/", name, false, ret_left, err);
}
