/* agentpool-shim [-i] [-c GROUP] [-n FILES] [-o FILE [-e FILE]] [-u NAME]... [-w WORDS [-p
 * PATTERN]... [-d PLACE] [-x]] [--] DIR PROGRAM [ARG...]: the parent of an agent's program, in a
 * pane of tmux or by itself.
 *
 * Starts the program in the foreground of the terminal, as a shell starts a job, with a clean
 * environment; takes over every process that its descendants leave behind; and when the program
 * ends, or when a signal asks the shim to end it (SIGTERM, SIGHUP), ends the whole tree before it
 * writes the exit record and ends itself. So the daemon misses no exit, whatever tmux notices, and
 * nothing of an agent outlives its shim.
 *
 *     -c GROUP  starts the program in that control group, if it can; the shim stays outside, so
 *               that it can end the group as a whole and remove it
 *     -i        the program reads from the FIFO `input` in DIR, and never sees its end
 *     -n FILES  limits the files that the program may have open (RLIMIT_NOFILE, soft)
 *     -o FILE   the shim prints its pid and goes into the background, in a session of its own; what
 *               the program prints is appended to FILE
 *     -e FILE   its standard error, to this FILE instead
 *     -u NAME   removes a name from the program's environment
 *     -w WORDS  starts the program in a sandbox, which bwrap makes by the words in that file
 *               (sandboxed.h); the shim stays outside
 *     -p PATTERN  keeps, or with ! removes, names of the environment that match; the last one wins
 *     -d PLACE  the agent's directory in the mount: it is there in the sandbox
 *     -x        is a command that somebody waits for: without records, and what the program leaves
 *               is killed at once
 *
 * agentpool-shim -r PID PLACE: has that directory of the mount take the place of the one that is in
 * the sandbox of the process.
 *
 * Its records in DIR: `alive`, its pid, locked as long as it lives; `pid`, of the program, and its
 * start as the kernel counts it; `exit`, one line "code N TIME" or "signal N TIME"; "signal 9 (out
 * of memory) TIME" where the group's bound ended it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "process.h"
#include "process_tree.h"
#include "sandboxed.h"

#define KILL_GRACE_MS 2000 /* between asking a tree to end and killing it */
#define KILL_AGAIN_MS 20   /* a fork may have slipped by */
#define ROUNDS	      3	   /* of listing whom to signal, while there is anybody new */

static int records = -1;  /* the directory of the records */
static const char *group; /* of the program; NULL: none */
static rlim_t n_files;	  /* that the program may have open; 0: as many as the shim */
static const char *words; /* of the sandbox; NULL: there is none */
static struct sandboxed box;

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* What /proc/PID/stat has behind the name, which may hold blanks and parentheses; "": nothing. */
static const char *stat_of(pid_t pid, char *text, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	const char *name_end = strrchr(text, ')');
	return name_end ? name_end + 1 : "";
}

/* The parent of a process, or 0. */
static pid_t parent_of(pid_t pid)
{
	char text[512];
	int parent = 0;
	return sscanf(stat_of(pid, text, sizeof text), " %*c %d", &parent) == 1 ? parent : 0;
}

static unsigned long long start_of(pid_t pid)
{
	char text[1024];
	unsigned long long start = 0;
	(void)sscanf(stat_of(pid, text, sizeof text),
		     " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d"
		     " %llu",
		     &start);
	return start;
}

struct process {
	pid_t pid, parent;
	bool is_ours; /* it descends from us */
};

static int by_pid(const void *a, const void *b)
{
	const struct process *left = a, *right = b;
	return (left->pid > right->pid) - (left->pid < right->pid);
}

/* All processes, sorted by pid, in an array that the caller frees. */
static size_t list_processes(struct process **ret)
{
	size_t n = 0, room = 0;
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	*ret = NULL;
	while (proc && (entry = readdir(proc))) {
		pid_t pid = (pid_t)atoi(entry->d_name);
		pid_t parent = pid > 1 ? parent_of(pid) : 0;
		if (n == room && parent > 0) {
			room = 2 * room + 256;
			struct process *grown = realloc(*ret, room * sizeof *grown);
			if (!grown)
				break;
			*ret = grown;
		}
		if (parent > 0)
			(*ret)[n++] = (struct process){.pid = pid, .parent = parent};
	}
	if (proc)
		closedir(proc);
	if (n > 0)
		qsort(*ret, n, sizeof **ret, by_pid);
	return n;
}

/* Marks whoever descends from `root`: its children, theirs, and so on while there are new ones. A
 * child mostly has a higher number than its parent, so that one pass finds nearly all. */
static void mark_descendants(struct process *processes, size_t n, pid_t root)
{
	bool found = true;
	while (found) {
		found = false;
		for (size_t i = 0; i < n; i++) {
			struct process *at = &processes[i];
			if (at->is_ours)
				continue;
			const struct process key = {.pid = at->parent};
			const struct process *parent =
				bsearch(&key, processes, n, sizeof key, by_pid);
			at->is_ours = at->parent == root || (parent && parent->is_ours);
			found = found || at->is_ours;
		}
	}
}

/* Its descendants, in an array that the caller frees, where the kernel does not list children. */
static size_t search_descendants(pid_t root, pid_t **ret)
{
	struct process *processes;
	size_t n = list_processes(&processes), n_ours = 0;
	mark_descendants(processes, n, root);
	*ret = calloc(n + 1, sizeof **ret);
	for (size_t i = 0; *ret && i < n; i++) {
		if (processes[i].is_ours)
			(*ret)[n_ours++] = processes[i].pid;
	}
	free(processes);
	return n_ours;
}

static int by_number(const void *a, const void *b)
{
	const pid_t *left = a, *right = b;
	return (*left > *right) - (*left < *right);
}

/* Sends the processes the signals, one after the other, except those in `before`. True: there was
 * any. */
static bool signal_all(const pid_t *pids, size_t n, const pid_t *before, size_t n_before,
		       const int *signals)
{
	bool any = false;
	for (; *signals; signals++) {
		for (size_t i = 0; i < n; i++) {
			if (n_before > 0 &&
			    bsearch(&pids[i], before, n_before, sizeof *before, by_number))
				continue;
			any = true;
			kill(pids[i], *signals);
		}
	}
	return any;
}

/* Sends all descendants of a process the signals, one after the other; 0 ends the list. Repeats
 * while there is anybody new: a list that is made while a process ends may lack its siblings. */
static void signal_tree(pid_t root, const int *signals)
{
	pid_t *before = NULL;
	size_t n_before = 0;
	bool more = true;
	for (unsigned round = 0; more && round < ROUNDS; round++) {
		pid_t *pids = NULL;
		size_t n = 0;
		if (process_tree_list(root, &pids, &n) < 0)
			n = search_descendants(root, &pids);
		more = signal_all(pids, n, before, n_before, signals);
		free(before);
		before = pids;
		n_before = n;
		if (n > 0)
			qsort(before, n, sizeof *before, by_number);
	}
	free(before);
}

static void record(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Takes what the sandbox says, and records the program that it has started. */
static void hear(void)
{
	pid_t known = box.program;
	sandboxed_hear(&box);
	if (box.program != known)
		record("pid", "%d %llu\n", (int)box.program, start_of(box.program));
}

/* Waits for a child to end, until the time is over (-1: no limit), a request to end comes, or the
 * program in the sandbox has ended. Returns its pid, 0 when nothing came, -1 when there is no
 * child. */
static pid_t wait_child(int *ret_status, int timeout_ms, bool *ret_told)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGIO);
	int64_t deadline = now_ms() + timeout_ms;
	for (;;) {
		bool ended = box.ended;
		if (words)
			hear();
		pid_t pid = waitpid(-1, ret_status, WNOHANG);
		if (pid != 0 || box.ended != ended)
			return pid;
		int64_t left = timeout_ms < 0 ? 3600 * 1000 : deadline - now_ms();
		if (left <= 0)
			return 0;
		struct timespec wait = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
		int got = sigtimedwait(&signals, NULL, &wait);
		if (got == SIGTERM || got == SIGHUP) {
			*ret_told = true;
			return 0;
		}
	}
}

/* Kills the group as one, whatever forks meanwhile, and looks for descendants that are not in
 * it. */
static void make_end(void)
{
	if (group)
		(void)cgroup_kill(group);
	signal_tree(getpid(), (const int[]){SIGKILL, 0});
}

/* Ends every descendant: asks first, and kills after the grace. What makes a sandbox ends with the
 * last process in it, and is not asked. Keeps the program's own status. */
static void end_tree(pid_t program, int64_t grace_ms, int *status)
{
	int64_t make_at = now_ms() + grace_ms;
	pid_t root = words ? sandboxed_root(&box) : 0;
	bool told;
	signal_tree(root ? root : getpid(), (const int[]){SIGHUP, SIGTERM, SIGCONT, 0});
	for (;;) {
		int child_status;
		int64_t left = make_at - now_ms();
		pid_t pid = wait_child(&child_status, left > 0 ? (int)left : 0, &told);
		if (pid < 0)
			return;
		if (pid == program)
			*status = child_status;
		if (now_ms() < make_at)
			continue;
		make_end();
		make_at = now_ms() + KILL_AGAIN_MS;
	}
}

/* Writes a one-line record that others see as a whole or not at all. */
static void record(const char *name, const char *fmt, ...)
{
	char temporary[64], line[128];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	snprintf(temporary, sizeof temporary, "%s.new", name);
	int fd = openat(records, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	bool whole = write(fd, line, (size_t)n) == n;
	if (close(fd) == 0 && whole)
		(void)renameat(records, temporary, records, name);
}

/* Whether the kernel killed the program because its group reached its memory bound. */
static bool is_oom(int status)
{
	return group && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
	       cgroup_oom_kills(group) > 0;
}

static void record_exit(int status, bool oom)
{
	bool signalled = WIFSIGNALED(status);
	record("exit", "%s %d %s%lld\n", signalled ? "signal" : "code",
	       signalled ? WTERMSIG(status) : WEXITSTATUS(status), oom ? "(out of memory) " : "",
	       (long long)time(NULL));
}

/* Keeps the record open and locked until the process ends, however it ends. */
static void record_alive(void)
{
	int fd = openat(records, "alive", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return;
	if (ftruncate(fd, 0) == 0) /* a full disk: only its terminal then tells of it */
		(void)dprintf(fd, "%d\n", (int)getpid());
}

/* Opens the FIFO for standard input, for writing too: a writer that closes is not the end. */
static int open_input(void)
{
	if (mkfifoat(records, "input", 0600) < 0 && errno != EEXIST)
		return -1;
	return openat(records, "input", O_RDWR | O_CLOEXEC);
}

/* Sets the soft limit that programs count on which use select(), or close all that may be open. */
static void limit_files(void)
{
	struct rlimit files;
	if (n_files == 0 || getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = n_files;
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

/* Detaches from the caller, its terminal and its files. False: it could not. */
static bool go_away(const char *output, const char *errors)
{
	const int append = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC;
	int out = open(output, append, 0600);
	int err = errors ? open(errors, append, 0600) : out;
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pid_t shim = out < 0 || err < 0 || in < 0 ? -1 : fork();
	if (shim > 0)
		_exit(printf("%d\n", (int)shim) > 0 && fflush(stdout) == 0 ? 0 : 1);
	return shim == 0 && setsid() >= 0 && dup2(in, STDIN_FILENO) >= 0 &&
	       dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0;
}

/* Goes into the group; with a sandbox into one below it: a program that has a namespace of groups,
 * as bwrap makes it, sees the one that it began in as the root, and may write its limits. */
static void enter_group(void)
{
	AP_CLEANUP_FREE char *below = NULL;
	if (!words || asprintf(&below, "%s/inside", group) < 0 ||
	    (mkdir(below, 0755) < 0 && errno != EEXIST) || !cgroup_enter(below))
		(void)cgroup_enter(group); /* else it runs without */
}

static void run_program(char **argv, int input, pid_t shim)
{
	/* nobody looks after the program when its shim is killed; what it started is in the group,
	 * if any */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != shim)
		_exit(126);
	if (group)
		enter_group();
	limit_files();
	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(STDIN_FILENO, getpid());
	process_reset_signals();
	if (input >= 0)
		dup2(input, STDIN_FILENO);
	if (words)
		sandboxed_exec(&box, words, argv);
	execvp(argv[0], argv);
	fprintf(stderr, "agentpoolfs: cannot run '%s': %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* The status of the program, by that of our child. bwrap says how a program inside was killed by
 * its exit code, which counts only where process 1 could not say it. */
static int status_of(int child_status)
{
	if (!words)
		return child_status;
	if (box.ended)
		return box.status;
	bool killed = WIFEXITED(child_status) && WEXITSTATUS(child_status) > 128;
	return killed ? WEXITSTATUS(child_status) - 128 : child_status;
}

/* Waits until the program has ended, or is to end; and ends what it has left. */
static int see_to_its_end(pid_t child, bool is_command)
{
	int status = 0, child_status;
	bool told = false;
	pid_t pid;
	do {
		pid = wait_child(&child_status, -1, &told);
		if (pid == child)
			status = child_status;
	} while (pid >= 0 && pid != child && !told && !box.ended);
	bool oom = !told && is_oom(status_of(status));
	end_tree(child, is_command ? 0 : KILL_GRACE_MS, &status);
	status = status_of(status);
	if (!is_command)
		record_exit(status, oom);
	return status;
}

static void usage(void)
{
	fprintf(stderr, "usage: agentpool-shim [-i] [-c GROUP] [-n FILES] [-o FILE [-e FILE]] "
			"[-u NAME]... [-w WORDS [-p PATTERN]... [-d PLACE] [-x]] [--] DIR PROGRAM "
			"[ARG...]\n");
}

int main(int argc, char **argv)
{
	static const char *const unset[] = {"TMUX", "TMUX_PANE", "CLAUDECODE"};
	if (argc > 3 && strcmp(argv[1], "-z") == 0)
		sandboxed_main(argv + 2);
	if (argc == 4 && strcmp(argv[1], "-r") == 0)
		return sandboxed_renew((pid_t)atoi(argv[2]), argv[3]);
	for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
		unsetenv(unset[i]);
	const char *output = NULL, *errors = NULL, *place = NULL;
	const char **patterns = calloc((size_t)argc, sizeof *patterns);
	size_t n_patterns = 0;
	bool by_lines = false, is_command = false;
	int option;
	while ((option = getopt(argc, argv, "+ixc:d:e:n:o:p:u:w:")) != -1) {
		if (option == 'u')
			unsetenv(optarg);
		if (option == 'c')
			group = optarg;
		if (option == 'd')
			place = optarg;
		if (option == 'n')
			n_files = strtoull(optarg, NULL, 10);
		if (option == 'e')
			errors = optarg;
		if (option == 'o')
			output = optarg;
		if (option == 'p' && patterns)
			patterns[n_patterns++] = optarg;
		if (option == 'w')
			words = optarg;
		by_lines = by_lines || option == 'i';
		is_command = is_command || option == 'x';
	}
	argv += optind;
	if (argc - optind < 2 || !patterns) {
		usage();
		return 2;
	}
	sandboxed_cut_environment(patterns, n_patterns);
	records = open(argv[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (records < 0) {
		perror(argv[0]);
		return 1;
	}
	int input = by_lines ? open_input() : -1;
	if (by_lines && input < 0) {
		perror("agentpool-shim: input");
		return 1;
	}
	if (output && !go_away(output, errors)) {
		perror(output);
		return 1;
	}
	sigset_t waited;
	sigemptyset(&waited);
	sigaddset(&waited, SIGCHLD);
	sigaddset(&waited, SIGTERM);
	sigaddset(&waited, SIGHUP);
	sigaddset(&waited, SIGIO);
	sigprocmask(SIG_BLOCK, &waited, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (words && !sandboxed_begin(&box, place)) {
		perror("agentpool-shim: socket");
		return 1;
	}
	if (!is_command)
		record_alive();
	pid_t shim = getpid(), child = fork();
	if (child < 0) {
		perror("agentpool-shim: fork");
		return 1;
	}
	if (child == 0)
		run_program(argv + 1, input, shim);
	setpgid(child, child); /* parent and child both do it: whoever is first */
	box.bwrap = child;
	if (!words)
		record("pid", "%d %llu\n", (int)child, start_of(child));
	int status = see_to_its_end(child, is_command);
	if (group)
		(void)cgroup_remove(group); /* else the daemon does, or the next one */
	if (is_command && WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		(void)raise(WTERMSIG(status)); /* pending, until it is let through */
		sigprocmask(SIG_UNBLOCK, &waited, NULL);
	}
	/* Nothing runs after this. A sanitizer's search for leaks would, which stops the process:
	 * it would hang for good if SIGCONT came, by which shims continue. */
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}
