/* Start and end of the daemon: daemonizing, mount, threads, and all that backwards. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "command_line.h"
#include "mountpoint.h"
#include "mounts.h"
#include "notify.h"
#include "ops.h"
#include "progress.h"
#include "startup.h"

/* Everything that lives as long as the mount. */
struct daemon {
	struct command_line *line;
	struct mount mount;
	struct ap_pool *pool;
	struct parked_set *parked;
	const char *program[2];
	char *mountpoint;
	int report_fd;			 /* to the process that the user started; -1: foreground */
	char *ignore_line, *ignore_file; /* the line that makes git ignore the mount; NULL: none */
	/* main_thread answers requests, pool_thread begins and ends the pool */
	pthread_t main_thread, pool_thread;
	sem_t may_start, started; /* of pool_thread: to begin; that it has begun */
	struct ap_err start_err;
	int start_result;
	int signals_fd;	  /* what pool_thread waits for, and the table of mounts; NULL: no /proc */
	FILE *mounts;	  /* as it is where the daemon was started */
	int unmounter_fd; /* mountpoint_unmounter(); -1: the daemon unmounts itself */
	dev_t device; /* of the mount; 0: not known, or not mounted */
	atomic_bool loop_left;
};

/* Finds what belongs to this program: installed, or beside it in a build directory. */
static int find_own(const char *const places[2], char ret[PATH_MAX], struct ap_err *err)
{
	char self[PATH_MAX], path[2 * PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = '\0';
	const char *dir = dirname(self);
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, places[i]);
		if (access(path, X_OK) == 0 && realpath(path, ret))
			return 0;
	}
	return ap_err_set(err, -ENOENT, "%s is not installed beside agentpoolfs", places[0] + 3);
}

/* The program that starts agents. */
static int find_shim(char ret[PATH_MAX], struct ap_err *err)
{
	static const char *const places[] = {"../libexec/agentpoolfs/agentpool-shim",
					     "../core/host/agentpool-shim"};
	return find_own(places, ret, err);
}

/* The directory of the installed program profiles. */
static int find_profiles(char ret[PATH_MAX], struct ap_err *err)
{
	static const char *const places[] = {"../share/agentpoolfs/programs", "../share/programs"};
	return find_own(places, ret, err);
}

/* --- the daemon's life --- */

/* Reports the start to the process that the user started: an empty sentence means success. */
static void report(struct daemon *daemon, const char *sentence)
{
	if (daemon->report_fd >= 0) {
		(void)!write(daemon->report_fd, sentence, strlen(sentence) + 1);
		close(daemon->report_fd);
		daemon->report_fd = -1;
	} else if (*sentence) {
		fprintf(stderr, "agentpoolfs: %s\n", sentence);
	}
}

/* Prints a notice that is no failure, for the user who mounts. */
static void on_tell(void *data, const char *sentence)
{
	(void)data;
	fprintf(stderr, "agentpoolfs: %s\n", sentence);
}

/* Tells the service manager, whose process the daemon is only in the foreground. */
static void tell_manager(struct daemon *daemon, const char *state)
{
	struct ap_err err;
	if (daemon->line->foreground && notify_send(state, &err) < 0)
		on_tell(daemon, err.text);
}

static void advise_ignoring(struct daemon *daemon)
{
	struct ap_err advice;
	if (!daemon->ignore_line)
		return;
	ap_err_set(&advice, 0,
		   "the mount is in the checkout, where git finds it: have git pass it by with the "
		   "line %s in %s",
		   daemon->ignore_line, daemon->ignore_file);
	on_tell(daemon, advice.text);
}

static void on_answers(void *data)
{
	struct daemon *daemon = data;
	advise_ignoring(daemon);
	tell_manager(daemon, "READY=1");
	if (daemon->report_fd < 0)
		return;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2 && null_fd >= 0; fd++)
		dup2(null_fd, fd);
	if (null_fd > 2)
		close(null_fd);
	report(daemon, "");
}

static void on_agent_gone(void *data, const char *name)
{
	struct daemon *daemon = data;
	if (!atomic_load(&daemon->loop_left))
		mount_forget_agent(&daemon->mount, name);
}

static void on_changed(void *data)
{
	struct daemon *daemon = data;
	open_files_changed(daemon->mount.files);
}

static void stop_pool(struct daemon *daemon)
{
	struct ap_err err;
	tell_manager(daemon, "STOPPING=1");
	unsigned n_kept = ap_pool_stop(daemon->pool, &err);
	if (n_kept > 0)
		fprintf(stderr, "agentpoolfs: %u worktrees are kept: %s\n", n_kept, err.text);
}

/* Whether anybody in our namespace can reach the mount. Copies of it that other namespaces took do
 * not count: the kernel keeps the connection for them when everybody here has unmounted. */
static bool is_mounted(const struct daemon *daemon)
{
	return daemon->device == 0 || !daemon->mounts || mounts_has(daemon->mounts, daemon->device);
}

static void on_wake(int signal_number)
{
	(void)signal_number; /* interrupts the read of the loop */
}

/* How long the mount stays for those who follow the events and have not read their end. */
#define FOLLOWERS_MS 5000

#define MOUNTS_PAUSE_MS 100 /* between two looks at a table of mounts that changes all the time */

/* Waits for a signal that ends the daemon, or for the end of the mount. */
static void await_end(const struct daemon *daemon)
{
	struct pollfd fds[] = {
		{.fd = daemon->signals_fd, .events = POLLIN},
		{.fd = daemon->mounts ? fileno(daemon->mounts) : -1, .events = POLLPRI},
	};
	while (is_mounted(daemon) && poll(fds, 1, MOUNTS_PAUSE_MS) <= 0)
		(void)poll(fds, 2, -1);
}

/* Ends the loop of the main thread, once those who follow the events have read their end. */
static void end_loop(struct daemon *daemon)
{
	for (int i = 0; i < FOLLOWERS_MS / 10 && !atomic_load(&daemon->loop_left) &&
			!open_files_end_is_told(daemon->mount.files);
	     i++)
		poll(NULL, 0, 10);
	fuse_session_exit(daemon->mount.session);
	while (!atomic_load(&daemon->loop_left)) { /* the signal may come before the read */
		pthread_kill(daemon->main_thread, SIGUSR1);
		poll(NULL, 0, 10);
	}
}

/* Starts the pool, and ends it while the mount still answers. */
static void *pool_main(void *data)
{
	struct daemon *daemon = data;
	sem_wait(&daemon->may_start);
	int r = daemon->start_result = ap_pool_start(daemon->pool, &daemon->start_err);
	sem_post(&daemon->started);
	if (r == 0) {
		await_end(daemon);
		stop_pool(daemon);
		end_loop(daemon);
	}
	ap_pool_free(ap_steal(daemon->pool)); /* its workers answer what is still parked */
	return NULL;
}

static int make_pool(struct daemon *daemon, struct ap_err *err)
{
	struct command_line *line = daemon->line;
	char shim[PATH_MAX], profiles[PATH_MAX];
	int r = mountpoint_resolve(line->mountpoint, &daemon->mountpoint, err);
	if (r == 0)
		r = find_shim(shim, err);
	if (r == 0)
		r = find_profiles(profiles, err);
	if (r < 0)
		return r;
	daemon->program[0] = strdup(line->config.text[AP_OPT_PROGRAM]);
	if (!daemon->program[0])
		return ap_err_errno(err, -ENOMEM, "program");
	struct ap_pool_options options = {
		.repo = line->repo,
		.config = line->config,
		.argv = line->program ? line->program : daemon->program,
		.mountpoint = daemon->mountpoint,
		.shim = shim,
		.profiles = profiles,
		.agent_gone = on_agent_gone,
		.changed = on_changed,
		.tell = on_tell,
		.data = daemon,
	};
	r = ap_pool_new(&daemon->pool, &options, err);
	line->config = options.config; /* empty when it was taken over */
	if (r == 0)
		r = mountpoint_check(daemon->mountpoint, err);
	if (r == -EBUSY && ap_pool_await_end(daemon->pool)) /* that pool has ended */
		r = mountpoint_check(daemon->mountpoint, err);
	if (r < 0)
		return r;
	if (!ap_pool_ignore_line(daemon->pool, &daemon->ignore_line, &daemon->ignore_file))
		daemon->ignore_line = daemon->ignore_file = NULL;
	return ap_pool_begin(daemon->pool, err);
}

/* The value of an option that may have none. */
static int64_t number_or(const struct daemon *daemon, enum ap_option option, int64_t otherwise)
{
	int64_t number = ap_pool_config_number(daemon->pool, option);
	return number >= 0 ? number : otherwise;
}

/* Takes the daemon where it may mount worktrees, once it has mounted the pool for everybody. */
static int go_inside(struct daemon *daemon, struct ap_err *err)
{
	if (!ap_pool_goes_inside(daemon->pool))
		return 0;
	daemon->unmounter_fd = mountpoint_unmounter(daemon->mountpoint, err);
	return daemon->unmounter_fd < 0 ? daemon->unmounter_fd
					: ap_pool_go_inside(daemon->pool, err);
}

static int make_mount(struct daemon *daemon, struct ap_err *err)
{
	struct mount *mount = &daemon->mount;
	mount->pool = daemon->pool;
	mount->max_read = daemon->line->max_read;
	mount->uid = (uid_t)number_or(daemon, AP_OPT_UID, geteuid());
	mount->gid = (gid_t)number_or(daemon, AP_OPT_GID, getegid());
	mount->umask = (int)number_or(daemon, AP_OPT_UMASK, -1);
	clock_gettime(CLOCK_REALTIME, &mount->since);
	mount->answers = on_answers;
	mount->data = daemon;
	if (fuse_session_mount(mount->session, daemon->mountpoint) < 0)
		return ap_err_set(err, -EIO,
				  "cannot mount on %s: is /dev/fuse there, and fusermount3?",
				  daemon->mountpoint);
	daemon->device = mountpoint_device(daemon->mountpoint);
	int r = go_inside(daemon, err); /* before the first thread, of `parked` */
	if (r < 0)
		return r;
	daemon->parked = parked_set_new();
	mount->snapshots = snapshots_new();
	if (daemon->parked && mount->snapshots)
		mount->files = open_files_new(daemon->pool, daemon->parked, mount->snapshots);
	if (!mount->files)
		return ap_err_errno(err, -ENOMEM, "mount");
	open_files_serve(mount->files, mount->session);
	return 0;
}

/* Leaves alone what somebody has mounted at the mount point since. libfuse unmounts that unless its
 * descriptor is in error, as it is not while a copy of the mount is left: it gets one that is. */
static void unmount(struct daemon *daemon)
{
	int ends[2];
	bool mounted = is_mounted(daemon);
	if (mounted && daemon->unmounter_fd >= 0) {
		mountpoint_unmount_by(daemon->unmounter_fd);
		daemon->unmounter_fd = -1;
		mounted = false;
	}
	if (!mounted && pipe2(ends, O_CLOEXEC) == 0) {
		close(ends[0]); /* nobody can read what would be written */
		dup2(ends[1], fuse_session_fd(daemon->mount.session));
		close(ends[1]);
	}
	fuse_session_unmount(daemon->mount.session);
}

static void unmake(struct daemon *daemon)
{
	ap_pool_free(daemon->pool); /* NULL: the pool's thread has */
	if (daemon->mount.session)
		unmount(daemon);
	open_files_free(daemon->mount.files);
	snapshots_free(daemon->mount.snapshots);
	parked_set_free(daemon->parked);
	if (daemon->mount.session)
		fuse_session_destroy(daemon->mount.session);
	close(daemon->signals_fd);
	if (daemon->unmounter_fd >= 0)
		close(daemon->unmounter_fd);
	if (daemon->mounts)
		(void)fclose(daemon->mounts);
	free((void *)daemon->program[0]);
	free(daemon->mountpoint);
	free(daemon->ignore_line);
	free(daemon->ignore_file);
}

/* Has the pool's thread start it, and waits until it has. */
static int start_pool(struct daemon *daemon, struct ap_err *err)
{
	daemon->main_thread = pthread_self();
	sem_init(&daemon->may_start, 0, 0);
	sem_init(&daemon->started, 0, 0);
	int r = -pthread_create(&daemon->pool_thread, NULL, pool_main, daemon);
	if (r < 0)
		return ap_err_errno(err, r, "a thread");
	ap_pool_show_inside(daemon->pool);
	sem_post(&daemon->may_start);
	sem_wait(&daemon->started);
	if (daemon->start_result < 0) {
		*err = daemon->start_err;
		pthread_join(daemon->pool_thread, NULL);
	}
	return daemon->start_result;
}

static int run(struct daemon *daemon)
{
	struct ap_err err = {""};
	sigset_t ending_signals;
	startup_block_signals(&ending_signals);
	daemon->signals_fd = signalfd(-1, &ending_signals, SFD_CLOEXEC);
	daemon->mounts = fopen("/proc/self/mountinfo", "re");
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_wake}, NULL);
	if (startup_lacks_files((unsigned)daemon->line->config.number[AP_OPT_HARD_CAP], &err))
		on_tell(daemon, err.text);
	int r = daemon->signals_fd < 0 ? ap_err_errno(&err, -EMFILE, "signals")
				       : make_pool(daemon, &err);
	if (r == 0)
		r = make_mount(daemon, &err);
	if (r == 0)
		r = start_pool(daemon, &err);
	if (r < 0) {
		report(daemon, err.text[0] ? err.text : strerror(-r));
		unmake(daemon);
		return 1;
	}
	if (chdir("/") < 0)
		report(daemon, "cannot leave the working directory");
	fuse_session_loop(daemon->mount.session);
	atomic_store(&daemon->loop_left, true);
	pthread_kill(daemon->pool_thread, SIGTERM); /* if the loop has ended by itself */
	pthread_join(daemon->pool_thread, NULL);
	unmake(daemon);
	return 0;
}

/* Waits for the daemon's report. Returns the exit code. */
static int await_report(int fd)
{
	char sentence[AP_ERR_MAX];
	size_t len = 0;
	ssize_t n;
	while (len < sizeof sentence && (n = read(fd, sentence + len, sizeof sentence - len)) > 0)
		len += (size_t)n;
	if (len == 0) {
		fprintf(stderr, "agentpoolfs: the daemon died at its start\n");
		return 1;
	}
	if (sentence[0])
		fprintf(stderr, "agentpoolfs: %.*s\n", (int)len, sentence);
	return sentence[0] ? 1 : 0;
}

int main(int argc, char **argv)
{
	static struct command_line line = {.fuse = FUSE_ARGS_INIT(0, NULL)};
	static struct daemon daemon = {.line = &line, .report_fd = -1, .unmounter_fd = -1};
	startup();
	if (!setlocale(LC_CTYPE, "C.UTF-8")) /* how wide a character is */
		(void)setlocale(LC_CTYPE, "");
	tree_config_init();
	if (ap_config_init(&line.config) < 0) {
		fprintf(stderr, "agentpoolfs: out of memory\n");
		return 1;
	}
	int r = command_line_parse(&line, argc, argv);
	if (r != 0)
		return r - 1;
	daemon.mount.session =
		command_line_session(&line, &mount_ops, sizeof mount_ops, &daemon.mount);
	if (!daemon.mount.session)
		return 2;
	if (!line.foreground) {
		int fds[2];
		if (pipe2(fds, O_CLOEXEC) < 0) {
			perror("agentpoolfs");
			return 1;
		}
		pid_t pid = fork(); /* before any thread */
		if (pid < 0) {
			perror("agentpoolfs: fork");
			return 1;
		}
		if (pid > 0) {
			close(fds[1]);
			r = await_report(fds[0]);
			if (r == 0 && isatty(STDERR_FILENO))
				progress_show(line.mountpoint);
			if (r != 0) /* until the daemon has undone what it had begun */
				(void)waitpid(pid, NULL, 0);
			return r;
		}
		close(fds[0]);
		setsid();
		startup_let_go(); /* before a helper could inherit them, if only until its exec */
		daemon.report_fd = fds[1];
	}
	r = run(&daemon);
	ap_config_fini(&line.config);
	fuse_opt_free_args(&line.fuse);
	return r;
}
