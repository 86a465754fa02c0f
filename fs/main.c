/* Start-up and end of the daemon: options, daemonizing, mount, threads, and all that backwards. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops.h"

extern char **environ;

static const char usage[] =
	"usage: agentpoolfs [-f] [-d] [-o OPT[,OPT...]] REPO MOUNTPOINT [-- PROGRAM [ARG...]]\n"
	"       agentpoolfs --list-files | --list-options | -h | -V\n"
	"\n"
	"Mounts a pool of agents, each a PROGRAM (bash by default) in a tmux session and a git\n"
	"worktree of REPO, on the empty directory MOUNTPOINT. See agentpoolfs(1).\n"
	"\n"
	"  -f                 stay in the foreground\n"
	"  -d                 stay in the foreground and trace FUSE requests\n"
	"  -o OPT[,OPT...]    options of the pool (--list-options) and of FUSE\n"
	"  --list-files       the files of a mount, with mode and meaning\n"
	"  --list-options     the options, with default and meaning\n";

struct command_line {
	bool foreground, debug;
	const char *repo, *mountpoint;
	const char *const *program; /* after --; NULL: none */
	struct ap_config config;
	struct fuse_args fuse;
};

/* Everything that lives as long as the mount. */
struct daemon {
	struct command_line *line;
	struct mount mount;
	struct ap_pool *pool;
	struct parked_set *parked;
	const char *program[2];
	char *mountpoint;
	int report_fd; /* to the process that was called; -1: foreground */
	pthread_t main_thread, ending_thread;
	atomic_bool loop_left;
	pthread_mutex_t stop_lock; /* round ap_pool_stop: it happens once */
	bool stopped;
};

/* --- options --- */

static int pool_option(struct command_line *line, const char *name, const char *value,
		       struct ap_err *err)
{
	int option = ap_option_find(name);
	bool profile = strcmp(name, "profile") == 0;
	if (option < 0 && !profile)
		return 1; /* FUSE's */
	if (!value && !profile)
		value = ap_options[option].alone;
	if (!value)
		return ap_err_set(err, -EINVAL, "-o %s needs a value: -o %s=VALUE", name, name);
	if (profile)
		return ap_config_profile(&line->config, value, err);
	return ap_config_set(&line->config, (enum ap_option)option, value, true, err);
}

static int one_option(struct command_line *line, char *option, struct ap_err *err)
{
	char *equals = strchr(option, '=');
	if (equals)
		*equals = '\0';
	int r = pool_option(line, option, equals ? equals + 1 : NULL, err);
	if (equals)
		*equals = '=';
	if (r <= 0)
		return r;
	if (fuse_opt_add_arg(&line->fuse, "-o") < 0 || fuse_opt_add_arg(&line->fuse, option) < 0)
		return ap_err_errno(err, -ENOMEM, "-o %s", option);
	return 0;
}

/* Splits at commas; a backslash before a comma keeps it. */
static int options_add(struct command_line *line, const char *text, struct ap_err *err)
{
	char *option = strdup(text);
	if (!option)
		return ap_err_errno(err, -ENOMEM, "-o");
	int r = 0;
	for (const char *at = text; r == 0 && *at;) {
		size_t n = 0;
		for (; *at && *at != ','; at++) {
			if (*at == '\\' && at[1] == ',')
				at++;
			option[n++] = *at;
		}
		option[n] = '\0';
		if (*at)
			at++;
		if (n > 0)
			r = one_option(line, option, err);
	}
	free(option);
	return r;
}

static void list_options(void)
{
	for (int i = 0; i < AP_N_OPTIONS; i++)
		printf("%-22s %-12s %s\n", ap_options[i].name,
		       *ap_options[i].initial ? ap_options[i].initial : "-", ap_options[i].doc);
	printf("%-22s %-12s %s\n", "profile", "-",
	       "values of several options: development, production or high-load; later ones "
	       "override");
}

/* Cuts the words behind -- off. */
static const char *const *program_words(int *argc, char **argv)
{
	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		const char *const *program = (const char *const *)&argv[i + 1];
		*argc = i;
		argv[i] = NULL;
		return program[0] ? program : NULL;
	}
	return NULL;
}

/* 0: mount; else the exit code plus 1 of what is done already. */
static int parse(struct command_line *line, int argc, char **argv)
{
	static const struct option options[] = {
		{"list-files", no_argument, NULL, 'F'}, {"list-options", no_argument, NULL, 'O'},
		{"help", no_argument, NULL, 'h'},	{"version", no_argument, NULL, 'V'},
		{"foreground", no_argument, NULL, 'f'}, {0},
	};
	struct ap_err err;
	line->program = program_words(&argc, argv);
	if (fuse_opt_add_arg(&line->fuse, argv[0]) < 0)
		return 2;
	int c;
	while ((c = getopt_long(argc, argv, "fdo:hV", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			line->foreground = true;
			break;
		case 'd':
			line->foreground = line->debug = true;
			break;
		case 'o':
			if (options_add(line, optarg, &err) == 0)
				break;
			fprintf(stderr, "agentpoolfs: %s\n", err.text);
			return 3;
		case 'F':
			tree_print();
			return 1;
		case 'O':
			list_options();
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'V':
			printf("agentpoolfs %s\n", AP_VERSION);
			return 1;
		default:
			fputs(usage, stderr);
			return 3;
		}
	}
	if (argc - optind != 2) {
		fputs(usage, stderr);
		return 3;
	}
	line->repo = argv[optind];
	line->mountpoint = argv[optind + 1];
	if (line->program &&
	    ap_config_set(&line->config, AP_OPT_PROGRAM, line->program[0], true, &err) < 0) {
		fprintf(stderr, "agentpoolfs: %s\n", err.text);
		return 3;
	}
	return 0;
}

/* --- the mount point --- */

static bool mounted_by_us(const char *path)
{
	FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[2 * PATH_MAX], type[64], at[PATH_MAX];
	bool found = false;
	while (mounts && fgets(line, sizeof line, mounts)) {
		if (sscanf(line, "%*s %4095s %63s", at, type) == 2 && strcmp(at, path) == 0)
			found = strcmp(type, "fuse.agentpoolfs") == 0; /* the last one is on top */
	}
	if (mounts)
		fclose(mounts);
	return found;
}

static void unmount_stale(const char *path)
{
	if (umount2(path, MNT_DETACH) == 0 || errno != EPERM)
		return;
	const char *argv[] = {"fusermount3", "-u", "-z", "--", path, NULL};
	pid_t pid;
	if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ) == 0)
		waitpid(pid, NULL, 0);
}

/* The absolute path of an empty directory; a dead mount of our own there is cleaned up. */
static int mountpoint_check(const char *given, char **ret, struct ap_err *err)
{
	char absolute[PATH_MAX];
	if (given[0] == '/') {
		snprintf(absolute, sizeof absolute, "%s", given);
	} else {
		char here[PATH_MAX];
		if (!getcwd(here, sizeof here) ||
		    snprintf(absolute, sizeof absolute, "%s/%s", here, given) >= PATH_MAX)
			return ap_err_set(err, -ENAMETOOLONG, "%s is too long", given);
	}
	for (size_t len = strlen(absolute); len > 1 && absolute[len - 1] == '/';)
		absolute[--len] = '\0';
	DIR *dir = opendir(absolute);
	/* the kernel may still remember enough of a dead mount for anything but opening it; one
	 * that dies just now, with the last helper that has its descriptor, is ECONNABORTED */
	if (!dir && (errno == ENOTCONN || errno == ECONNABORTED) && mounted_by_us(absolute)) {
		unmount_stale(absolute);
		dir = opendir(absolute);
	}
	char *path = dir ? realpath(absolute, NULL) : NULL;
	if (!path) {
		int error = -errno;
		if (dir)
			closedir(dir);
		return ap_err_errno(err, error, "the mount point %s", given);
	}
	bool mounted = mounted_by_us(path);
	unsigned n = 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	if (mounted || n > 2) {
		free(path);
		return ap_err_set(err, -EBUSY, "the mount point %s is %s", given,
				  mounted ? "in use by another pool" : "not empty");
	}
	*ret = path;
	return 0;
}

/* What belongs to this program: installed, or beside it in a build directory. */
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
					     "../core/agentpool-shim"};
	return find_own(places, ret, err);
}

/* The directory of what is known of programs. */
static int find_profiles(char ret[PATH_MAX], struct ap_err *err)
{
	static const char *const places[] = {"../share/agentpoolfs/programs", "../share/programs"};
	return find_own(places, ret, err);
}

/* --- the daemon's life --- */

/* Tells the process that was called how it went: an empty sentence means well. */
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

static void on_answers(void *data)
{
	struct daemon *daemon = data;
	if (daemon->report_fd < 0)
		return;
	report(daemon, "");
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2 && null_fd >= 0; fd++)
		dup2(null_fd, fd);
	if (null_fd > 2)
		close(null_fd);
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

/* Once, by whichever comes first: the signal or the end of the mount. */
static void stop_pool(struct daemon *daemon)
{
	struct ap_err err;
	pthread_mutex_lock(&daemon->stop_lock);
	if (!daemon->stopped) {
		daemon->stopped = true;
		unsigned n_kept = ap_pool_stop(daemon->pool, &err);
		if (n_kept > 0)
			fprintf(stderr, "agentpoolfs: %u worktrees are kept: %s\n", n_kept,
				err.text);
	}
	pthread_mutex_unlock(&daemon->stop_lock);
}

static void on_wake(int signal_number)
{
	(void)signal_number; /* interrupts the read of the loop */
}

/* Ends the pool while the mount still answers, then the loop. */
static void *ending_main(void *data)
{
	struct daemon *daemon = data;
	sigset_t signals;
	int got;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	while (sigwait(&signals, &got) != 0)
		;
	stop_pool(daemon);
	fuse_session_exit(daemon->mount.session);
	while (!atomic_load(&daemon->loop_left)) { /* the signal may come before the read */
		pthread_kill(daemon->main_thread, SIGUSR1);
		poll(NULL, 0, 10);
	}
	return NULL;
}

static void block_signals(void)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_wake}, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* What a shell inside an agent, tmux or git left in our environment is not the agents'. */
static void clean_environment(void)
{
	static const char *const names[] = {"TMUX",
					    "TMUX_PANE",
					    "CLAUDECODE",
					    "GIT_DIR",
					    "GIT_WORK_TREE",
					    "GIT_INDEX_FILE",
					    "GIT_COMMON_DIR",
					    "GIT_PREFIX",
					    "GIT_NAMESPACE",
					    "GIT_OBJECT_DIRECTORY",
					    "GIT_ALTERNATE_OBJECT_DIRECTORIES"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		unsetenv(names[i]);
}

static int make_pool(struct daemon *daemon, struct ap_err *err)
{
	struct command_line *line = daemon->line;
	char shim[PATH_MAX], profiles[PATH_MAX];
	int r = mountpoint_check(line->mountpoint, &daemon->mountpoint, err);
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
		.data = daemon,
	};
	r = ap_pool_new(&daemon->pool, &options, err);
	line->config = options.config; /* empty when it was taken over */
	return r;
}

/* The value of an option that may have none. */
static int64_t number_or(const struct daemon *daemon, enum ap_option option, int64_t otherwise)
{
	int64_t number = ap_pool_config_number(daemon->pool, option);
	return number >= 0 ? number : otherwise;
}

static int make_mount(struct daemon *daemon, struct ap_err *err)
{
	struct command_line *line = daemon->line;
	struct mount *mount = &daemon->mount;
	mount->pool = daemon->pool;
	mount->uid = (uid_t)number_or(daemon, AP_OPT_UID, geteuid());
	mount->gid = (gid_t)number_or(daemon, AP_OPT_GID, getegid());
	mount->umask = (int)number_or(daemon, AP_OPT_UMASK, -1);
	clock_gettime(CLOCK_REALTIME, &mount->since);
	mount->answers = on_answers;
	mount->data = daemon;
	if (line->debug)
		fuse_opt_add_arg(&line->fuse, "-d");
	fuse_opt_add_arg(&line->fuse, "-o");
	fuse_opt_add_arg(&line->fuse, "subtype=agentpoolfs,fsname=agentpool,default_permissions");
	daemon->parked = parked_set_new();
	mount->snapshots = snapshots_new();
	if (daemon->parked && mount->snapshots)
		mount->files = open_files_new(daemon->pool, daemon->parked, mount->snapshots);
	if (!mount->files)
		return ap_err_errno(err, -ENOMEM, "mount");
	mount->session = fuse_session_new(&line->fuse, &mount_ops, sizeof mount_ops, mount);
	if (!mount->session)
		return ap_err_set(err, -EINVAL, "FUSE refuses an option: see -o in agentpoolfs(1)");
	open_files_serve(mount->files, mount->session);
	if (fuse_session_mount(mount->session, daemon->mountpoint) < 0)
		return ap_err_set(err, -EIO,
				  "cannot mount on %s: is /dev/fuse there, and fusermount3?",
				  daemon->mountpoint);
	return 0;
}

static void unmake(struct daemon *daemon)
{
	ap_pool_free(daemon->pool); /* its workers answer what is still parked */
	if (daemon->mount.session)
		fuse_session_unmount(daemon->mount.session);
	open_files_free(daemon->mount.files);
	snapshots_free(daemon->mount.snapshots);
	parked_set_free(daemon->parked);
	if (daemon->mount.session)
		fuse_session_destroy(daemon->mount.session);
	free((void *)daemon->program[0]);
	free(daemon->mountpoint);
}

static int run(struct daemon *daemon)
{
	struct ap_err err = {""};
	block_signals();
	clean_environment();
	int r = make_pool(daemon, &err);
	if (r == 0)
		r = make_mount(daemon, &err);
	if (r == 0)
		r = ap_pool_start(daemon->pool, &err);
	bool started = r == 0;
	daemon->main_thread = pthread_self();
	if (r == 0)
		r = -pthread_create(&daemon->ending_thread, NULL, ending_main, daemon);
	if (r < 0) {
		report(daemon, err.text[0] ? err.text : strerror(-r));
		if (started)
			stop_pool(daemon);
		unmake(daemon);
		return 1;
	}
	if (chdir("/") < 0)
		report(daemon, "cannot leave the working directory");
	fuse_session_loop(daemon->mount.session);
	atomic_store(&daemon->loop_left, true);
	stop_pool(daemon);
	pthread_cancel(daemon->ending_thread); /* in sigwait, or on its way out */
	pthread_join(daemon->ending_thread, NULL);
	unmake(daemon);
	return 0;
}

/* Waits for what the daemon reports. The exit code. */
static int await_report(int fd)
{
	char sentence[sizeof((struct ap_err *)0)->text];
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
	static struct daemon daemon = {.line = &line, .report_fd = -1};
	if (!setlocale(LC_CTYPE, "C.UTF-8")) /* how wide a character is */
		(void)setlocale(LC_CTYPE, "");
	tree_config_init();
	if (ap_config_init(&line.config) < 0) {
		fprintf(stderr, "agentpoolfs: out of memory\n");
		return 1;
	}
	int r = parse(&line, argc, argv);
	if (r != 0)
		return r - 1;
	pthread_mutex_init(&daemon.stop_lock, NULL);
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
			return await_report(fds[0]);
		}
		close(fds[0]);
		setsid();
		daemon.report_fd = fds[1];
	}
	r = run(&daemon);
	ap_config_fini(&line.config);
	fuse_opt_free_args(&line.fuse);
	return r;
}
