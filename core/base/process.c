#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "text.h"

extern char **environ;

static int mark_fd = -1;       /* set once, before the threads */
static uint64_t files_allowed; /* likewise; 0: as the daemon */

void process_mark(int fd)
{
	mark_fd = fd;
}

void process_limit_files(uint64_t n)
{
	files_allowed = n;
}

uint64_t process_files(void)
{
	return files_allowed;
}

#define TERM_GRACE  AP_SECOND  /* of one that took too long, between SIGTERM and SIGKILL */
#define STDERR_KEPT (64 << 10) /* bytes: of more, the rest is not read for the sentence */

static bool same_name(const char *a, const char *b)
{
	size_t len = strcspn(a, "=");
	return strncmp(a, b, len) == 0 && b[len] == '=';
}

/* environ with `extra` over it. The array is the caller's to free, the strings are not. */
static const char **environ_with(const char *const *extra)
{
	size_t n = 0, n_extra = 0;
	while (environ[n])
		n++;
	while (extra && extra[n_extra])
		n_extra++;
	const char **env = calloc(n + n_extra + 1, sizeof *env);
	if (!env)
		return NULL;
	size_t used = 0;
	for (size_t i = 0; i < n; i++) {
		bool overridden = false;
		for (size_t j = 0; j < n_extra && !overridden; j++)
			overridden = same_name(extra[j], environ[i]);
		if (!overridden)
			env[used++] = environ[i];
	}
	for (size_t j = 0; j < n_extra; j++) {
		if (strchr(extra[j], '='))
			env[used++] = extra[j];
	}
	return env;
}

void process_reset_signals(void)
{
	sigset_t none;
	for (int i = 1; i < _NSIG; i++) /* two are the C library's own: refused */
		(void)sigaction(i, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A lock by fcntl is of this process, stays over exec and is not inherited by what it starts. It
 * goes when its descriptor is closed, which therefore stays open. */
static void take_mark(void)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	fcntl(mark_fd, F_SETFD, 0);
	fcntl(mark_fd, F_SETLK, &lock); /* fails at worst: it is not waited for then */
}

/* In the child: has the program keep the right to mount. */
static void keep_mounting(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct may[_LINUX_CAPABILITY_U32S_3];
	if (syscall(SYS_capget, &header, may) < 0)
		return;
	may[0].inheritable |= may[0].permitted & 1U << CAP_SYS_ADMIN;
	if (syscall(SYS_capset, &header, may) == 0)
		(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0);
}

/* In the child, which borrows its parent's memory: makes it the program. */
static _Noreturn void become(const struct process_run *run, const int fds[3], char *const *env,
			     int error_fd)
{
	struct rlimit files;
	process_reset_signals();
	if (run->is_server || run->no_terminal)
		(void)setsid();
	else
		(void)setpgid(0, 0);
	if (mark_fd >= 0 && !run->is_server)
		take_mark();
	if (files_allowed > 0 && !run->is_server && getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files_allowed;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (run->may_mount)
		keep_mounting();
	if (run->file_max > 0)
		(void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){run->file_max, run->file_max});
	/* the daemon has its three standard descriptors: these are none of them */
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (!run->dir || chdir(run->dir) == 0)
		execvpe(run->argv[0], (char *const *)run->argv, env);
	int error = errno;
	(void)!write(error_fd, &error, sizeof error);
	_exit(127);
}

/* vfork() and not posix_spawn(), which is the same with less to be said in the child: a lock and a
 * limit of its own. Nothing of the parent runs while the child borrows its memory, but its other
 * threads; no handler of a signal may run in the child. */
static pid_t start(const struct process_run *run, const int fds[3], char *const *env, int error_fd)
{
	sigset_t all, was;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	pid_t pid = vfork();
	if (pid == 0)
		become(run, fds, env, error_fd);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return pid;
}

/* Starts it with these as its standard input, output and error. */
static int spawn_with(const struct process_run *run, int in, int out, int errs, pid_t *ret_pid)
{
	AP_CLEANUP_FREE const char **env = environ_with(run->env);
	const int fds[] = {in, out, errs};
	int failed[2], error = 0;
	if (!env)
		return -ENOMEM;
	if (pipe2(failed, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = start(run, fds, (char *const *)env, failed[1]);
	if (pid < 0)
		error = errno;
	close(failed[1]);
	/* it has become the program, or has ended with this */
	ssize_t n = 0;
	while (pid > 0 && (n = read(failed[0], &error, sizeof error)) < 0 && errno == EINTR)
		;
	if (n == sizeof error) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(failed[0]);
	if (error == 0)
		*ret_pid = pid;
	return -error;
}

/* What the program reads: a file without a name, or nothing. */
static int input_open(const struct ap_buf *in)
{
	if (!in)
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	int fd = memfd_create("input", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < in->len;) {
		ssize_t n = write(fd, in->data + done, in->len - done);
		if (n < 0) {
			close(fd);
			return -errno;
		}
		done += (size_t)n;
	}
	(void)lseek(fd, 0, SEEK_SET);
	return fd;
}

int process_open(const struct process_run *run, pid_t *ret_pid, int *ret_in_fd, int *ret_out_fd,
		 struct ap_err *err)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1};
	AP_CLEANUP_CLOSE int errs = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int r = errs < 0 || pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ? -errno : 0;
	if (r == 0)
		r = spawn_with(run, in[0], out[1], errs, ret_pid);
	if (in[0] >= 0)
		close(in[0]);
	if (out[1] >= 0)
		close(out[1]);
	if (r == 0) {
		*ret_in_fd = in[1];
		*ret_out_fd = out[0];
		return 0;
	}
	if (in[1] >= 0)
		close(in[1]);
	if (out[0] >= 0)
		close(out[0]);
	return ap_err_errno(err, r, "cannot run '%s'", run->argv[0]);
}

/* Reads what is there, and keeps no more than `max` bytes and a block of it. False at the end of
 * the pipe. `run`: whose standard error it is; NULL: it is the output. */
static bool drain(int fd, struct ap_buf *out, size_t max, const struct process_run *run)
{
	char block[16 << 10];
	for (;;) {
		ssize_t n = read(fd, block, sizeof block);
		if (n > 0 && out && out->len <= max)
			ap_buf_add(out, block, (size_t)n);
		if (n > 0 && run && run->complains)
			run->complains(run->complains_data, block, (size_t)n);
		if (n == 0)
			return false;
		if (n < 0 && errno != EINTR)
			return true; /* EAGAIN */
	}
}

/* How often a process is asked for whose end there is no descriptor. */
#define ASK_MS 10

static bool child_has_ended(pid_t pid)
{
	siginfo_t info = {.si_pid = 0};
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == pid;
}

/* Collects output until the process has ended. False when the time is over first, or it is too
 * much.
 */
static bool collect(const struct process_run *run, pid_t pid, int out_fd, int err_fd,
		    int64_t deadline_ns, struct ap_buf *out, size_t out_max, struct ap_buf *errs)
{
	AP_CLEANUP_CLOSE int pid_fd = pidfd_open(pid, 0);
	struct pollfd fds[] = {
		{.fd = out_fd, .events = POLLIN},
		{.fd = err_fd, .events = POLLIN},
		{.fd = pid_fd, .events = POLLIN},
	};
	for (;;) {
		int64_t left = deadline_ns - ap_clock_ns();
		if (left <= 0 || (out && out->len > out_max))
			return false;
		int wait_ms = pid_fd < 0 ? ASK_MS : (int)(left / AP_MS) + 1;
		if (poll(fds, 3, wait_ms) < 0 && errno != EINTR)
			return false;
		bool ended = pid_fd < 0 ? child_has_ended(pid) : fds[2].revents != 0;
		if (fds[0].revents && !drain(out_fd, out, out_max, NULL))
			fds[0].fd = -1;
		if (fds[1].revents && !drain(err_fd, errs, STDERR_KEPT, run))
			fds[1].fd = -1;
		if (ended) { /* a grandchild may hold the pipes: what is there now is all */
			drain(out_fd, out, out_max, NULL);
			return !out || out->len <= out_max;
		}
	}
}

static void tell_complaint(const struct ap_buf *text, struct ap_err *err, const char *program)
{
	AP_CLEANUP_BUF struct ap_buf gist = {0};
	ap_text_gist(ap_buf_text(text), text->len, &gist);
	ap_err_set(err, 0, "%s: %s", program, gist.len ? gist.data : "failed without a word");
}

int process_run(const struct process_run *run, struct ap_err *err)
{
	AP_CLEANUP_CLOSE int out_read = -1;
	AP_CLEANUP_CLOSE int err_read = -1;
	AP_CLEANUP_CLOSE int in =
		run->in_fd ? fcntl(run->in_fd, F_DUPFD_CLOEXEC, 0) : input_open(run->in);
	if (in < 0)
		return ap_err_errno(err, in, "cannot run '%s'", run->argv[0]);
	int out[2], errs[2];
	if (pipe2(out, O_CLOEXEC) < 0)
		return ap_err_errno(err, -errno, "cannot run '%s'", run->argv[0]);
	if (pipe2(errs, O_CLOEXEC) < 0) {
		int error = -errno;
		close(out[0]);
		close(out[1]);
		return ap_err_errno(err, error, "cannot run '%s'", run->argv[0]);
	}
	out_read = out[0];
	err_read = errs[0];
	fcntl(out_read, F_SETFL, O_NONBLOCK);
	fcntl(err_read, F_SETFL, O_NONBLOCK);
	pid_t pid;
	int out_fd = run->out_fd ? run->out_fd : run->log_fd ? run->log_fd : out[1];
	int r = spawn_with(run, in, out_fd, run->log_fd ? run->log_fd : errs[1], &pid);
	close(out[1]);
	close(errs[1]);
	if (r < 0)
		return ap_err_errno(err, r, "cannot run '%s'", run->argv[0]);

	AP_CLEANUP_BUF struct ap_buf complaints = {0};
	size_t out_max = run->out_max ? run->out_max : PROCESS_OUT_MAX;
	bool ended =
		collect(run, pid, out_read, err_read, ap_clock_after(ap_clock_ns(), run->limit_ns),
			run->out, out_max, &complaints);
	bool too_much = run->out && run->out->len > out_max;
	if (!ended) { /* git takes its locks away */
		kill(-pid, SIGTERM);
		(void)collect(run, pid, out_read, err_read, ap_clock_ns() + TERM_GRACE,
			      too_much ? NULL : run->out, out_max, &complaints);
	}
	if (!ended || run->kill_group)
		kill(-pid, SIGKILL);
	int status;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (too_much)
		return ap_err_set(err, -EFBIG, "'%s' printed more than %zu bytes", run->argv[0],
				  out_max);
	if (!ended)
		return ap_err_set(err, -ETIMEDOUT, "'%s' took too long and was ended",
				  run->argv[0]);
	if (run->out && run->out->failed)
		return ap_err_errno(err, -ENOMEM, "output of '%s'", run->argv[0]);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ)
		return ap_err_set(err, -EFBIG, "'%s' wrote more than %ju bytes", run->argv[0],
				  (uintmax_t)run->file_max);
	if (WIFSIGNALED(status))
		return ap_err_set(err, -ECHILD, "'%s' died of signal %d", run->argv[0],
				  WTERMSIG(status));
	if (WEXITSTATUS(status) != 0) {
		drain(err_read, &complaints, STDERR_KEPT, run);
		tell_complaint(&complaints, err, run->argv[0]);
	}
	return WEXITSTATUS(status);
}
