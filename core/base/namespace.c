#include "namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"

/* Writes a file of /proc/self, which takes one write. */
static int write_own(const char *name, const char *text, struct ap_err *err)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/%s", name);
	AP_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return ap_err_errno(err, -errno, "%s", path);
	return 0;
}

static int make_namespaces(struct ap_err *err)
{
	char users[64], groups[64];
	snprintf(users, sizeof users, "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
	snprintf(groups, sizeof groups, "%u %u 1", (unsigned)getegid(), (unsigned)getegid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return ap_err_errno(err, -errno, "a user namespace");
	int r = write_own("setgroups", "deny", err); /* else the kernel takes no map of groups */
	if (r == 0)
		r = write_own("gid_map", groups, err);
	if (r == 0)
		r = write_own("uid_map", users, err);
	if (r == 0 && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		r = ap_err_errno(err, -errno, "a mount namespace");
	return r;
}

int namespace_enter(int pidfd, struct ap_err *err)
{
	if (pidfd < 0)
		return make_namespaces(err);
	if (setns(pidfd, CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return ap_err_errno(err, -errno, "the namespaces of agents that were left");
	return 0;
}

int namespace_try(int pidfd, int (*work)(void *data, struct ap_err *err), void *data,
		  struct ap_err *err)
{
	struct ap_err told = {""};
	int ends[2], status = 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return ap_err_errno(err, -errno, "a pipe");
	pid_t child = fork();
	if (child == 0) {
		int r = namespace_enter(pidfd, &told);
		if (r == 0)
			r = work(data, &told);
		_exit(write(ends[1], &told, sizeof told) == (ssize_t)sizeof told ? -r & 0xff : EIO);
	}
	int r = child < 0 ? ap_err_errno(err, -errno, "a process") : 0;
	close(ends[1]);
	if (r == 0 && (waitpid(child, &status, 0) < 0 || !WIFEXITED(status)))
		r = ap_err_set(err, -EIO, "a process in namespaces of its own died");
	if (r == 0 && WEXITSTATUS(status) != 0) {
		bool whole = read(ends[0], &told, sizeof told) == (ssize_t)sizeof told;
		r = -WEXITSTATUS(status);
		if (err && whole)
			*err = told;
		else
			ap_err_errno(err, r, "in namespaces of its own");
	}
	close(ends[0]);
	return r;
}

bool namespace_is_other(pid_t pid)
{
	char path[64];
	struct stat own, other;
	snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
	return stat("/proc/self/ns/user", &own) == 0 && stat(path, &other) == 0 &&
	       own.st_ino != other.st_ino;
}

void namespace_drop(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
	(void)syscall(SYS_capset, &header, none); /* what takes away does not fail */
}

/* The process, of which other threads of the caller have left nothing that may be used. */
static _Noreturn void stay(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setsid();
	(void)prctl(PR_SET_NAME, NAMESPACE_KEEPER);
	close_range(0, ~0U, 0);
	(void)chdir("/");
	namespace_drop();
	for (;;)
		pause();
}

pid_t namespace_keep(struct ap_err *err)
{
	pid_t pid = fork();
	if (pid == 0)
		stay();
	return pid < 0 ? ap_err_errno(err, -errno, "a process") : pid;
}

bool namespace_marks_as_user(void)
{
	char map[64] = "";
	unsigned inside, outside, n;
	if (geteuid() != 0)
		return true;
	return file_read_line("/proc/self", "uid_map", map, sizeof map) == 0 &&
	       sscanf(map, "%u %u %u", &inside, &outside, &n) == 3 &&
	       (inside != 0 || outside != 0 || n != 4294967295U);
}
