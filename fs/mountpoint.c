#include "mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "mounts.h"
#include "process.h"
#include "tree.h"

#define UNMOUNT_LIMIT (20 * AP_SECOND)
#define MAX_DEAD      16 /* mounts, one over the other */

int mountpoint_resolve(const char *given, char **ret, struct ap_err *err)
{
	int r = file_resolve(given, ret, err);
	if (r < 0)
		return ap_err_wrap(err, r, "the mount point");
	if (!strchr(*ret, '\n'))
		return 0;
	r = ap_err_set(err, -EINVAL,
		       "the mount point %s has a newline in its path, with which neither tmux nor "
		       "fusermount3 can do: choose another",
		       *ret);
	free(ap_steal(*ret));
	return r;
}

static bool mounted_by_us(const char *path)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	char type[MOUNTS_TYPE_MAX];
	return mounts_read(0, &table) == 0 && mounts_type_at(ap_buf_text(&table), path, type) &&
	       strcmp(type, "fuse.agentpoolfs") == 0;
}

static bool unmount_dead(const char *path)
{
	if (umount2(path, MNT_DETACH) == 0)
		return true;
	if (errno != EPERM)
		return false;
	const char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", path, NULL};
	return process_run(&(struct process_run){.argv = argv, .limit_ns = UNMOUNT_LIMIT}, NULL) ==
	       0;
}

/* Unmounts dead mounts of ours, and opens the directory below them. */
static DIR *open_below_dead(const char *path)
{
	DIR *dir = opendir(path);
	/* only an open tells: the kernel may still answer all else about a dead mount from its
	 * caches. A mount that dies just now, with the last helper that has its descriptor, gives
	 * ECONNABORTED */
	for (int i = 0; !dir && (errno == ENOTCONN || errno == ECONNABORTED) && i < MAX_DEAD; i++) {
		int error = errno;
		if (!mounted_by_us(path) || !unmount_dead(path)) {
			errno = error;
			return NULL;
		}
		dir = opendir(path);
	}
	return dir;
}

/* Whether an entry that is no directory has the name of one of the mount's files: a write to that
 * file creates it while nothing is mounted. A README may just as well be the user's. */
static bool is_in_the_way(const struct dirent *entry)
{
	if (entry->d_type == DT_DIR || strcmp(entry->d_name, "README") == 0)
		return false;
	for (const struct tree_row *row = tree_root; row->name; row++) {
		if (strcmp(entry->d_name, row->name) == 0)
			return true;
	}
	return false;
}

static int refuse_contents(const char *path, DIR *dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf ours = {0};
	unsigned n_ours = 0, n_others = 0;
	struct dirent *entry;
	rewinddir(dir);
	while ((entry = readdir(dir))) {
		if (is_in_the_way(entry))
			ap_buf_printf(&ours, "%s%s", n_ours++ > 0 ? ", " : "", entry->d_name);
		else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			n_others++;
	}
	bool one = n_ours == 1;
	if (n_ours == 0)
		return ap_err_set(err, -ENOTEMPTY, "the mount point %s is not empty, %u %s in it",
				  path, n_others, n_others == 1 ? "thing is" : "things are");
	return ap_err_set(err, -ENOTEMPTY,
			  "the mount point %s is not empty: %s in it %s, as a write makes it while "
			  "nothing is mounted (beside %u %s): take it away",
			  path, ap_buf_text(&ours), one ? "is a plain file" : "are plain files",
			  n_others, n_others == 1 ? "other" : "others");
}

int mountpoint_check(const char *path, struct ap_err *err)
{
	DIR *dir = open_below_dead(path);
	if (!dir) {
		int error = -errno;
		if (error == -EACCES && mounted_by_us(path)) /* root cannot enter another's mount */
			error = -EBUSY;
		return error == -EBUSY
			       ? ap_err_set(err, error,
					    "the mount point %s is in use by another pool", path)
			       : ap_err_errno(err, error, "the mount point %s", path);
	}
	int r = 0;
	unsigned n = 0;
	if (mounted_by_us(path))
		r = ap_err_set(err, -EBUSY, "the mount point %s is in use by another pool", path);
	while (r == 0 && n <= 2 && readdir(dir))
		n++;
	if (r == 0 && n > 2)
		r = refuse_contents(path, dir, err);
	closedir(dir);
	return r;
}

dev_t mountpoint_device(const char *path)
{
	struct statx there;
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
	return statx(AT_FDCWD, path, flags, 0, &there) == 0
		       ? makedev(there.stx_dev_major, there.stx_dev_minor)
		       : 0;
}

/* The process: waits for a byte, or for the end of whoever could write it. */
static _Noreturn void unmount_when_asked(int fd, const char *path)
{
	char byte;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i <= 2; i++)
		dup2(null_fd, i); /* keeps no pipe of the user's open */
	dup2(fd, 3);		  /* stays open in what is run: its end tells that it is done */
	close_range(4, ~0U, 0);
	if (chdir("/") == 0 && read(3, &byte, 1) == 1)
		execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", path, (char *)NULL);
	_exit(0);
}

int mountpoint_unmounter(const char *path, struct ap_err *err)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return ap_err_errno(err, -errno, "a process that unmounts");
	pid_t pid = fork();
	if (pid == 0) {
		close(ends[0]);
		unmount_when_asked(ends[1], path);
	}
	close(ends[1]);
	if (pid > 0)
		return ends[0];
	close(ends[0]);
	return ap_err_errno(err, -EAGAIN, "a process that unmounts");
}

void mountpoint_unmount_by(int fd)
{
	struct pollfd done = {.fd = fd, .events = POLLIN};
	if (send(fd, "", 1, MSG_NOSIGNAL) == 1)
		(void)poll(&done, 1, UNMOUNT_LIMIT / AP_MS);
	close(fd);
}
