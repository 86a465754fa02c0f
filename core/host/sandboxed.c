#include "sandboxed.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "file.h"
#include "mounts.h"
#include "process.h"

#define WORDS_MAX  (1 << 20) /* bytes of the file of words */
#define SOCKET_FD  3	     /* in process 1, which has no other descriptor but the program's */
#define FAILED	   126	     /* exit code: nothing was started */
#define OUR_MOUNTS "fuse.agentpoolfs"

#ifndef LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
#define LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET 1
#endif

extern char **environ;

/* What process 1 says; whose number it is comes with the message. */
enum said {
	SAID_READY,   /* the sandbox is made, as far as bwrap makes it: process 1's */
	SAID_PROGRAM, /* the program is about to be executed: the program's */
	SAID_ENDED,   /* it has ended, with that status */
};

struct message {
	int said, status;
};

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "agentpoolfs: the sandbox: %s: %s\n", what, strerror(errno));
	_exit(FAILED);
}

void sandboxed_cut_environment(const char *const *patterns, size_t n)
{
	for (char **at = environ; *at;) {
		AP_CLEANUP_FREE char *name = strndup(*at, strcspn(*at, "="));
		bool cut = false;
		for (size_t i = 0; name && i < n; i++) {
			const char *pattern = patterns[i];
			bool cuts = *pattern == '!';
			if (fnmatch(pattern + cuts, name, 0) == 0)
				cut = cuts;
		}
		if (!name || !cut || unsetenv(name) < 0)
			at++;
	}
}

/* --- before bwrap --- */

bool sandboxed_begin(struct sandboxed *box, const char *dir)
{
	int ends[2];
	const int on = 1;
	*box = (struct sandboxed){.tells = -1, .child_end = -1, .dir = dir};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	box->tells = ends[0];
	box->child_end = ends[1];
	return setsockopt(box->tells, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0 &&
	       fcntl(box->tells, F_SETOWN, getpid()) == 0 &&
	       fcntl(box->tells, F_SETFL, O_NONBLOCK | O_ASYNC) == 0;
}

/* A descriptor without a name, from which bwrap reads its words: in its command line everybody
 * inside could read what is hidden from them. */
static int words_fd(const char *words, size_t len)
{
	int fd = memfd_create("words", 0);
	if (fd >= 0 && (write(fd, words, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET) < 0))
		return -1;
	return fd;
}

void sandboxed_exec(const struct sandboxed *box, const char *words, char **argv)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char words_at[16], self[32], socket[16];
	size_t n = 0;
	/* keys of the user's session stay outside; fails where the kernel knows no keys */
	(void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	errno = -file_read(words, 0, WORDS_MAX, &text, NULL);
	if (errno != 0 || text.len == 0)
		die(words);
	size_t program = strlen(text.data) + 1;
	int fd = words_fd(text.data + program, text.len - program);
	int shim =
		open("/proc/self/exe", O_PATH); /* by this it is started inside, wherever it is */
	if (fd < 0 || shim < 0 || fcntl(box->child_end, F_SETFD, 0) < 0)
		die("its words");
	while (argv[n])
		n++;
	snprintf(words_at, sizeof words_at, "%d", fd);
	snprintf(self, sizeof self, "/proc/self/fd/%d", shim);
	snprintf(socket, sizeof socket, "%d", box->child_end);
	const char *const head[] = {text.data, "--args", words_at, "--", self, "-z", socket};
	const size_t n_head = sizeof head / sizeof *head;
	char **all = calloc(n_head + n + 1, sizeof *all);
	if (!all)
		die("its words");
	memcpy(all, head, sizeof head);
	memcpy(all + n_head, argv, n * sizeof *argv);
	execv(all[0], all);
	die(all[0]);
}

/* --- inside its namespaces --- */

static bool make_dirs(const char *path)
{
	AP_CLEANUP_FREE char *at = strdup(path);
	for (char *slash = at ? strchr(at + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(at, 0755) < 0 && errno != EEXIST)
			return false;
		*slash = '/';
	}
	return at && (mkdir(path, 0755) == 0 || errno == EEXIST);
}

/* Lays an empty directory over a pool's mount, and the agent's own directory of it in that. */
static bool hide_pool(const char *path, const char *dir)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV;
	size_t len = strlen(path);
	bool is_own = dir && strncmp(dir, path, len) == 0 && dir[len] == '/';
	int tree = is_own ? (int)syscall(SYS_open_tree, AT_FDCWD, dir,
					 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
			  : -1;
	if (mount("agentpoolfs", path, "tmpfs", flags, "mode=0755,nr_inodes=64,size=64k") < 0)
		/* it lies under what is hidden, or where the user may not go */
		return errno == ENOENT || errno == ENOTDIR || errno == EACCES;
	if (tree >= 0 &&
	    (!make_dirs(dir) ||
	     syscall(SYS_move_mount, tree, "", AT_FDCWD, dir, MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	     mount(NULL, dir, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0))
		return false;
	return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) == 0;
}

/* Opens the mount namespace of a process, and the user namespace that it belongs to. */
static bool open_namespaces(pid_t inside, int *ret_user, int *ret_mounts)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)inside);
	*ret_mounts = open(path, O_RDONLY | O_CLOEXEC);
	*ret_user = *ret_mounts < 0 ? -1 : ioctl(*ret_mounts, NS_GET_USERNS);
	return *ret_user >= 0;
}

static bool enter(int user, int mounts)
{
	return setns(user, CLONE_NEWUSER) == 0 && setns(mounts, CLONE_NEWNS) == 0;
}

static void complete(int user, int mounts, const struct ap_buf *table, const char *dir)
{
	struct mounts_row *rows = NULL;
	size_t n = 0;
	if (!enter(user, mounts))
		die("its namespaces");
	/* else what is mounted on the machine from now on comes in, writable: another pool's mount,
	 * a disk */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("its mounts");
	if (mounts_below(ap_buf_text(table), "/", &rows, &n) < 0)
		die("its mounts");
	for (size_t i = 0; i < n; i++) {
		if (strcmp(rows[i].type, OUR_MOUNTS) == 0 && !hide_pool(rows[i].path, dir))
			die(rows[i].path);
	}
	_exit(0);
}

/* Opens the directory that a path leads to without any link: what is on its way may be the agent's.
 */
static int open_without_links(int at, const char *path)
{
	const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				     .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, at, path, &how, sizeof how);
}

/* Mounts a tree in place of the dead mount of ours there, and of nothing else. The caller is in the
 * sandbox, whose processes may rename and link what is not mounted meanwhile. */
static bool replace_mount(const char *table, const char *dir, int tree)
{
	char type[MOUNTS_TYPE_MAX];
	AP_CLEANUP_FREE char *parent = strdup(dir);
	char *name = parent ? strrchr(parent, '/') : NULL;
	if (!name || !mounts_type_at(table, dir, type) || strcmp(type, OUR_MOUNTS) != 0) {
		errno = ESTALE; /* the agent has moved it: it leads nowhere until the next start */
		return false;
	}
	*name++ = '\0';
	AP_CLEANUP_CLOSE int above = open_without_links(AT_FDCWD, parent);
	AP_CLEANUP_CLOSE int dead = above < 0 ? -1 : open_without_links(above, name);
	struct statx at = {0};
	if (dead < 0 || statx(dead, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &at) < 0)
		return false;
	if (!(at.stx_attributes & STATX_ATTR_MOUNT_ROOT)) {
		errno = ESTALE;
		return false;
	}
	return fchdir(dead) == 0 && umount2(".", MNT_DETACH) == 0 &&
	       syscall(SYS_move_mount, tree, "", above, name, MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

int sandboxed_renew(pid_t inside, const char *dir)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	int user, mounts;
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0 || mounts_read(inside, &table) < 0 ||
	    !open_namespaces(inside, &user, &mounts) || !enter(user, mounts)) {
		perror("agentpoolfs: the sandbox: its namespaces");
		return 1;
	}
	if (!replace_mount(ap_buf_text(&table), dir, tree)) {
		perror(dir);
		return 1;
	}
	return 0;
}

/* Completes the sandbox by a process that goes into its namespaces. They belong to the user, who
 * has all capabilities in them; nothing of the agent's runs there yet. */
static bool complete_from_within(const struct sandboxed *box)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	AP_CLEANUP_CLOSE int user = -1;
	AP_CLEANUP_CLOSE int mounts = -1;
	int status;
	if (!open_namespaces(box->init, &user, &mounts) || mounts_read(box->init, &table) < 0) {
		perror("agentpoolfs: the sandbox: its namespaces");
		return false;
	}
	pid_t child = fork();
	if (child == 0)
		complete(user, mounts, &table, box->dir);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return child > 0 && status == 0;
}

/* Takes a message, and by whom it is as the kernel says. False: there is none. */
static bool take_message(struct sandboxed *box, struct message *ret, pid_t *ret_from)
{
	union {
		char space[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec text = {ret, sizeof *ret};
	struct msghdr message = {.msg_iov = &text,
				 .msg_iovlen = 1,
				 .msg_control = control.space,
				 .msg_controllen = sizeof control.space};
	struct ucred from = {.pid = 0};
	if (recvmsg(box->tells, &message, MSG_CMSG_CLOEXEC) != sizeof *ret)
		return false;
	struct cmsghdr *part = CMSG_FIRSTHDR(&message);
	if (part && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS)
		memcpy(&from, CMSG_DATA(part), sizeof from);
	*ret_from = from.pid;
	return from.pid > 0;
}

void sandboxed_hear(struct sandboxed *box)
{
	struct message message;
	pid_t from;
	if (box->child_end >= 0) { /* bwrap has it, and its end is the end of the socket */
		close(box->child_end);
		box->child_end = -1;
	}
	while (take_message(box, &message, &from)) {
		if (message.said == SAID_READY && box->init == 0) {
			box->init = from;
			if (!complete_from_within(box) || write(box->tells, "", 1) != 1) {
				kill(box->bwrap, SIGKILL); /* it has started nothing */
				box->ended = true;
				box->status = FAILED << 8;
			}
		} else if (message.said == SAID_PROGRAM && box->program == 0) {
			box->program = from;
		} else if (message.said == SAID_ENDED && from == box->init && !box->ended) {
			box->ended = true;
			box->status = message.status;
		}
	}
}

pid_t sandboxed_root(const struct sandboxed *box)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%d", (int)box->init);
	return box->init > 0 && stat(path, &st) == 0 ? box->init : 0;
}

/* --- process 1 --- */

static void say(int socket, enum said said, int status)
{
	const struct message message = {.said = (int)said, .status = status};
	if (write(socket, &message, sizeof message) != sizeof message)
		_exit(FAILED);
}

/* Keeps the program from the abstract sockets of the machine, such as X11's, which belong to the
 * network and so come with it. Kernels before 6.12 cannot. */
static void leave_abstract_sockets(void)
{
	const struct {
		uint64_t fs, net, scoped;
	} rules = {.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET};
	int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
	if (fd < 0)
		return;
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		die("landlock");
	close(fd);
}

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

/* Keeps a program of root's from the control groups of version 1, whose files root may write
 * without any capability: in a user namespace of its own and a namespace of control groups it could
 * mount all of the group that the daemon is in (cgroup_namespaces(7)). clone3 has its flags where
 * no filter sees them: who is told that there is none takes clone. */
static void leave_control_groups(void)
{
#ifdef OUR_ARCH
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 0, 8),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 6, 0), /* x32 */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWCGROUP, 0, 2),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
	if (getuid() == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		die("seccomp");
#endif
}

/* The program's terminal stays the pane's, in the pane's session, as its job control needs it.
 * TIOCSTI would let it type into that: to itself alone, as nobody else reads the pane. */
static void __attribute__((noreturn)) run(int socket, char **argv)
{
	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(STDIN_FILENO, getpid());
	process_reset_signals();
	leave_abstract_sockets();
	leave_control_groups();
	say(socket, SAID_PROGRAM, 0);
	execvp(argv[0], argv);
	fprintf(stderr, "agentpoolfs: cannot run '%s': %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : FAILED);
}

void sandboxed_main(char **argv)
{
	char go;
	int status, socket = atoi(argv[0]);
	prctl(PR_SET_DUMPABLE, 0); /* the agent reads and traces nothing of this process */
	prctl(PR_SET_NAME, "agentpool-shim");
	if (socket != SOCKET_FD && dup2(socket, SOCKET_FD) < 0)
		die("its socket");
	socket = SOCKET_FD;
	if (fcntl(socket, F_SETFD, FD_CLOEXEC) < 0 || close_range(SOCKET_FD + 1, ~0U, 0) < 0)
		die("its descriptors");
	say(socket, SAID_READY, 0);
	if (read(socket, &go, 1) != 1)
		_exit(FAILED);
	pid_t program = fork();
	if (program < 0)
		die("fork");
	if (program == 0)
		run(socket, argv + 1);
	setpgid(program, program); /* parent and child both do it: whoever is first */
	for (;;) {
		pid_t pid = waitpid(-1, &status, 0);
		if (pid == program)
			say(socket, SAID_ENDED, status);
		else if (pid < 0 && errno != EINTR)
			_exit(0);
	}
}
