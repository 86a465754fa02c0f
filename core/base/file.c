#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

#define SMALL_FILE (64 << 10) /* bytes */

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int file_open(const char *path, int flags, mode_t mode)
{
	struct stat st;
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC, mode);
	if (fd < 0)
		return errno == ENXIO ? -EINVAL : -errno; /* a FIFO that nobody reads, a socket */
	int r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

/* The same part by part: what is mounted is told by its device alone. */
static int open_by_parts(int dir_fd, const char *path, int flags)
{
	struct stat above, st;
	int at = openat(dir_fd, ".", O_PATH | O_CLOEXEC);
	while (at >= 0 && *path) {
		size_t len = strcspn(path, "/");
		const char *rest = path + len + strspn(path + len, "/");
		char part[NAME_MAX + 1];
		snprintf(part, sizeof part, "%.*s", (int)len, path);
		int fd = len > NAME_MAX		   ? (errno = ENAMETOOLONG, -1)
			 : strcmp(part, "..") == 0 ? (errno = EXDEV, -1)
						   : openat(at, part,
							    (*rest ? O_PATH | O_DIRECTORY : flags) |
								    O_NOFOLLOW | O_CLOEXEC);
		int error = errno;
		if (fd >= 0 &&
		    (fstat(at, &above) < 0 || fstat(fd, &st) < 0 || above.st_dev != st.st_dev)) {
			error = EXDEV;
			close(fd);
			fd = -1;
		}
		close(at);
		at = fd;
		errno = error;
		path = rest;
	}
	return at < 0 ? -errno : at;
}

static int open_beneath(int dir_fd, const char *path, int flags)
{
	const struct open_how how = {
		.flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
	if (fd < 0 && errno == ENOSYS) /* under valgrind */
		return open_by_parts(dir_fd, path, flags);
	return fd < 0 ? -errno : (int)fd;
}

/* A path that is longer than one can be is gone in pieces. */
int file_open_below(int dir_fd, const char *path, int flags)
{
	int at = dir_fd, fd;
	while (strlen(path) >= PATH_MAX) {
		char piece[PATH_MAX];
		size_t len = PATH_MAX - 1;
		while (len > 0 && path[len] != '/')
			len--;
		snprintf(piece, sizeof piece, "%.*s", (int)len, path);
		fd = len == 0 ? -ENAMETOOLONG : open_beneath(at, piece, O_PATH | O_DIRECTORY);
		if (at != dir_fd)
			close(at);
		if (fd < 0)
			return fd;
		at = fd;
		path += len;
		path += strspn(path, "/");
	}
	fd = open_beneath(at, *path ? path : ".", flags);
	if (at != dir_fd)
		close(at);
	return fd;
}

static int open_anew(const char *path, mode_t mode)
{
	return file_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode);
}

int file_read(const char *path, int flags, size_t max, struct ap_buf *ret, struct ap_err *err)
{
	AP_CLEANUP_CLOSE int fd = file_open(path, O_RDONLY | flags, 0);
	ssize_t n = fd < 0 ? fd : 1;
	while (n > 0 && ret->len <= max) {
		size_t room = max - ret->len < SMALL_FILE ? max - ret->len + 1 : SMALL_FILE;
		if (!ap_buf_reserve(ret, room))
			return ap_err_errno(err, -ENOMEM, "%s", path);
		n = read(fd, ret->data + ret->len, room);
		if (n < 0)
			n = -errno;
		ret->len += n > 0 ? (size_t)n : 0;
		ret->data[ret->len] = '\0';
	}
	if (n < 0)
		return ap_err_errno(err, (int)n, "%s", path);
	if (ret->len > max)
		return ap_err_set(err, -EFBIG, "%s has more than %zu bytes", path, max);
	return 0;
}

static int write_anew(const char *path, mode_t mode, const void *data, size_t len,
		      struct ap_err *err)
{
	AP_CLEANUP_CLOSE int fd = open_anew(path, mode);
	int r = fd < 0 ? fd : write_all(fd, data, len);
	return r < 0 ? ap_err_errno(err, r, "%s", path) : 0;
}

FILE *file_create(const char *path)
{
	int fd = open_anew(path, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
	if (fd < 0)
		errno = -fd;
	else if (!file)
		close(fd);
	return file;
}

int file_write(const char *path, const void *data, size_t len, struct ap_err *err)
{
	return write_anew(path, 0600, data, len, err);
}

int file_replace(const char *path, const void *data, size_t len, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf temporary = {0};
	ap_buf_printf(&temporary, "%s.new", path);
	if (temporary.failed)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	(void)unlink(ap_buf_text(&temporary)); /* of one that died over it */
	int r = file_write(ap_buf_text(&temporary), data, len, err);
	if (r == 0 && rename(ap_buf_text(&temporary), path) < 0)
		r = ap_err_errno(err, -errno, "%s", path);
	if (r < 0)
		(void)unlink(ap_buf_text(&temporary));
	return r;
}

int file_printf(const char *path, struct ap_err *err, const char *fmt, ...)
{
	char text[PATH_MAX + 64];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof text)
		return ap_err_errno(err, -ENAMETOOLONG, "%s", path);
	return write_anew(path, 0666, text, (size_t)n, err);
}

static int read_start(const char *dir, const char *name, char *ret, size_t size)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	AP_CLEANUP_CLOSE int fd = file_open(ap_buf_text(&path), O_RDONLY, 0);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
	int r = fd < 0 ? fd : n < 0 ? -errno : 0;
	ret[n > 0 ? n : 0] = '\0';
	return r;
}

int file_read_line(const char *dir, const char *name, char *ret, size_t size)
{
	int r = read_start(dir, name, ret, size);
	ret[strcspn(ret, "\n")] = '\0';
	return r;
}

int file_read_path(const char *dir, const char *name, char *ret, size_t size)
{
	int r = read_start(dir, name, ret, size);
	for (size_t len = strlen(ret); len > 0 && ret[len - 1] == '\n';)
		ret[--len] = '\0';
	return r;
}

/* Most files are small: the calls that copy inside the kernel cost more than they save there. */
static int copy_small(int in, int out, size_t size)
{
	char block[SMALL_FILE];
	ssize_t n = read(in, block, size);
	return n < 0 ? -errno : write_all(out, block, (size_t)n);
}

int file_copy_bytes(int in, int out)
{
	ssize_t n;
	if (ioctl(out, FICLONE, in) == 0)
		return 0;
	bool some = false;
	while ((n = copy_file_range(in, NULL, out, NULL, SSIZE_MAX & ~0xfff, 0)) > 0)
		some = true;
	if (n == 0 || some)
		return n < 0 ? -errno : 0;
	char block[64 << 10]; /* two file systems of different kinds: by hand */
	while ((n = read(in, block, sizeof block)) > 0) {
		int r = write_all(out, block, (size_t)n);
		if (r < 0)
			return r;
	}
	return n < 0 ? -errno : 0;
}

int file_names(int dir_fd, struct ap_buf *ret)
{
	AP_CLEANUP_CLOSE int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *names = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	if (!names)
		return -errno;
	fd = -1;
	errno = 0;
	while ((entry = readdir(names))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			ap_buf_add(ret, entry->d_name, strlen(entry->d_name) + 1);
	}
	int r = errno ? -errno : ret->failed ? -ENOMEM : 0;
	closedir(names);
	return r;
}

int file_copy(const char *from, const char *to, bool keep_times, struct ap_err *err)
{
	struct stat st;
	AP_CLEANUP_CLOSE int in = file_open(from, O_RDONLY | O_NOFOLLOW, 0);
	if (in < 0 || fstat(in, &st) < 0)
		return ap_err_errno(err, in < 0 ? in : -errno, "%s", from);
	AP_CLEANUP_CLOSE int out = open_anew(to, st.st_mode & 07777);
	if (out < 0)
		return ap_err_errno(err, out, "%s", to);
	int r = 0;
	if (st.st_size > SMALL_FILE)
		r = file_copy_bytes(in, out);
	else if (st.st_size > 0)
		r = copy_small(in, out, (size_t)st.st_size);
	if (r == 0 && keep_times &&
	    futimens(out, (const struct timespec[]){st.st_atim, st.st_mtim}) < 0)
		r = -errno;
	return r < 0 ? ap_err_errno(err, r, "copying %s to %s", from, to) : 0;
}

/* -errno; no failure where it is there. */
static int make_dir(const char *path)
{
	return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

/* From below: what is asked for is there most of the time. */
int file_make_dirs(const char *path, struct ap_err *err)
{
	int r = make_dir(path);
	if (r == -ENOENT) {
		AP_CLEANUP_FREE char *above = strdup(path);
		char *slash = above ? strrchr(above, '/') : NULL;
		if (!above)
			return ap_err_errno(err, -ENOMEM, "%s", path);
		if (slash && slash > above) {
			*slash = '\0';
			r = file_make_dirs(above, err);
			if (r < 0)
				return r;
			r = make_dir(path);
		}
	}
	return r < 0 ? ap_err_errno(err, r, "%s", path) : 0;
}

int file_move_into(const char *path, const char *dir, struct ap_buf *ret_to, struct ap_err *err)
{
	static atomic_uint n_moved;
	const char *slash = strrchr(path, '/');
	ap_buf_printf(ret_to, "%s/%s-%jx-%u", dir, slash ? slash + 1 : path,
		      (intmax_t)ap_clock_ns(), atomic_fetch_add(&n_moved, 1));
	if (rename(path, ap_buf_text(ret_to)) < 0)
		return ap_err_errno(err, -errno, "moving %s to %s", path, dir);
	return 0;
}

#define MAX_LINKS 40 /* as the kernel follows at most */

static void go_up(struct ap_buf *at)
{
	const char *slash = at->len > 0 ? memrchr(at->data, '/', at->len) : NULL;
	at->len = slash ? (size_t)(slash - at->data) : 0;
	if (at->data)
		at->data[at->len] = '\0';
}

/* Goes on from `at`, which is canonical ("" is the root), by the words of `path`; of links by their
 * targets. Only the names of things are looked at: what is mounted somewhere need not answer. */
static int resolve_from(struct ap_buf *at, const char *path, unsigned n_links)
{
	if (*path == '/')
		at->len = 0;
	for (size_t len; *path; path += len) {
		char target[PATH_MAX];
		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len == 0 || (len == 1 && path[0] == '.'))
			continue;
		if (len == 2 && path[0] == '.' && path[1] == '.') {
			go_up(at);
			continue;
		}
		size_t before = at->len;
		ap_buf_adds(at, "/");
		ap_buf_add(at, path, len);
		if (at->failed)
			return -ENOMEM;
		if (at->len >= PATH_MAX)
			return -ENAMETOOLONG;
		ssize_t n = readlink(at->data, target, sizeof target - 1);
		if (n < 0 && (errno == EACCES || errno == ELOOP || errno == ENAMETOOLONG))
			return -errno;
		if (n < 0)
			continue; /* no link, or not there yet */
		target[n] = '\0';
		at->len = before;
		at->data[before] = '\0';
		int r = n_links == 0 ? -ELOOP : resolve_from(at, target, n_links - 1);
		if (r < 0)
			return r;
	}
	return 0;
}

int file_resolve(const char *path, char **ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf at = {0};
	int r = *path ? 0 : -ENOENT;
	if (r == 0 && path[0] != '/') {
		char here[PATH_MAX];
		if (!getcwd(here, sizeof here))
			r = -errno;
		else
			ap_buf_adds(&at, strcmp(here, "/") == 0 ? "" : here);
	}
	if (r == 0)
		r = resolve_from(&at, path, MAX_LINKS);
	if (r < 0)
		return ap_err_errno(err, r, "%s", path);
	*ret = strdup(at.len > 0 ? at.data : "/");
	return *ret ? 0 : ap_err_errno(err, -ENOMEM, "%s", path);
}

bool file_is_within(const char *path, const char *dir)
{
	struct stat top, st;
	size_t len = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
	if (strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0'))
		return true;
	AP_CLEANUP_FREE char *at = strdup(path);
	if (!at || stat(dir, &top) < 0)
		return false;
	for (;;) {
		if (stat(*at ? at : "/", &st) == 0 && st.st_dev == top.st_dev &&
		    st.st_ino == top.st_ino)
			return true;
		char *slash = strrchr(at, '/');
		if (!slash)
			return false;
		*slash = '\0';
	}
}

#define PATH_SHOWN 200

int file_path_shown(const char *path)
{
	size_t len = strlen(path);
	if (len <= PATH_SHOWN)
		return (int)len;
	const char *slash = memrchr(path, '/', PATH_SHOWN);
	return slash ? (int)(slash - path) : 0;
}
