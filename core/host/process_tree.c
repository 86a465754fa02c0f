#include "process_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"

/* A tree that is larger than this is not followed further: it changes under us anyway. */
#define TREE_MAX    65536
#define STOP_ROUNDS 20
/* Bytes of a file in /proc, such as the list of a tree's processes. */
#define PROC_MAX (1 << 20)
/* Processes of the whole machine; those above are left out. */
#define TABLE_MAX (1 << 18)
/* A millisecond each, to see a process stop: one in an uninterruptible sleep is left to itself. */
#define STOP_TRIES 1000
/* How long memory is measured closely. The kernel makes the reader wait as long as the process
 * forks; where hundreds forked and starved, that took seconds for each (measured). */
#define CLOSELY_LIMIT (200 * AP_MS)

#define AVERAGED_OVER (60 * AP_SECOND)

/* Reads a file of /proc as a string; only a part of one that is longer than PROC_MAX. */
static int read_proc(struct ap_buf *out, pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	AP_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	out->len = 0;
	for (;;) {
		if (!ap_buf_reserve(out, 1024))
			return -ENOMEM;
		ssize_t n = read(fd, out->data + out->len, 1023);
		if (n < 0)
			return -errno;
		out->len += (size_t)n;
		out->data[out->len] = '\0';
		if (n == 0 || out->len >= PROC_MAX)
			return 0;
	}
}

uint64_t process_start_time(pid_t pid)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	uint64_t start = 0;
	if (pid <= 0 || read_proc(&text, pid, "stat") < 0)
		return 0;
	const char *name_end = strrchr(ap_buf_text(&text), ')');
	char state = 0;
	if (!name_end || sscanf(name_end + 1,
				" %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
				"%*d %*d %*d %" SCNu64,
				&state, &start) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : start;
}

bool process_has_word(pid_t pid, const char *word)
{
	AP_CLEANUP_BUF struct ap_buf words = {0};
	if (pid <= 0 || read_proc(&words, pid, "cmdline") < 0)
		return false;
	const char *at = ap_buf_text(&words), *end = at + words.len;
	while (at < end && strcmp(at, word) != 0)
		at += strlen(at) + 1;
	return at < end;
}

#define FLAG_EXITING 0x4 /* PF_EXITING in /proc/PID/stat */

/* Whether a set of signals of /proc/PID/status has SIGKILL in it. */
static bool has_kill(const char *status, const char *set)
{
	const char *at = strstr(status, set);
	return at && strtoull(at + strlen(set), NULL, 16) >> (SIGKILL - 1) & 1;
}

bool process_lives(pid_t pid)
{
	AP_CLEANUP_BUF struct ap_buf stat = {0};
	AP_CLEANUP_BUF struct ap_buf status = {0};
	char state;
	unsigned flags;
	if (pid <= 0 || read_proc(&status, pid, "status") < 0 || read_proc(&stat, pid, "stat") < 0)
		return false;
	const char *name_end = strrchr(ap_buf_text(&stat), ')');
	if (!name_end || sscanf(name_end + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return false;
	return state != 'Z' && state != 'X' && !(flags & FLAG_EXITING) &&
	       !has_kill(ap_buf_text(&status), "\nSigPnd:") &&
	       !has_kill(ap_buf_text(&status), "\nShdPnd:");
}

/* What /proc/PID/stat says of a process. */
struct process_stat {
	pid_t pid, parent;
	int64_t cpu_ns; /* of it, and of those of its children that it has waited for */
	uint64_t rss;	/* bytes */
};

static bool parse_stat(const char *text, struct process_stat *ret)
{
	const char *name_end = strrchr(text, ')'); /* the name may hold blanks and parentheses */
	uint64_t user = 0, system = 0, children_user = 0, children_system = 0, pages = 0;
	const uint64_t tick = (uint64_t)(AP_SECOND / sysconf(_SC_CLK_TCK));
	int parent;
	if (!name_end ||
	    sscanf(name_end + 1,
		   " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64
		   " %" SCNu64 " %*d %*d %*d %*d %*u %*u %" SCNu64,
		   &parent, &user, &system, &children_user, &children_system, &pages) != 6)
		return false;
	uint64_t ticks = user + system + children_user + children_system;
	ret->parent = parent;
	ret->cpu_ns = (int64_t)(ticks < INT64_MAX / tick ? ticks * tick : INT64_MAX);
	ret->rss = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return true;
}

static bool read_stat(pid_t pid, struct ap_buf *text, struct process_stat *ret)
{
	*ret = (struct process_stat){.pid = pid};
	return read_proc(text, pid, "stat") == 0 && parse_stat(ap_buf_text(text), ret);
}

/* Bytes, from what /proc/PID/smaps_rollup says; or false. */
static bool pss_of(const char *rollup, uint64_t *ret)
{
	const char *pss = strstr(rollup, "\nPss:");
	uint64_t kib;
	if (!pss || sscanf(pss, "\nPss: %" SCNu64, &kib) != 1)
		return false;
	*ret = kib * 1024;
	return true;
}

/* The memory of a tree, in bytes. */
struct memory_sum {
	uint64_t pss, rss_of_pss; /* of processes that were measured closely */
	uint64_t rss_unseen;	  /* of processes that there was no time for */
	uint64_t rss_closed;	  /* of processes that we may not read */
	int64_t close_until_ns;
};

static void add_memory(struct memory_sum *sum, pid_t pid, uint64_t rss, struct ap_buf *text)
{
	uint64_t pss;
	if (ap_clock_ns() >= sum->close_until_ns) {
		sum->rss_unseen += rss;
	} else if (read_proc(text, pid, "smaps_rollup") == 0 && pss_of(ap_buf_text(text), &pss)) {
		sum->pss += pss;
		sum->rss_of_pss += rss;
	} else {
		sum->rss_closed += rss;
	}
}

/* Assumes that processes that there was no time for share as much as those that were measured. */
static uint64_t memory_of(const struct memory_sum *sum)
{
	double part = sum->rss_of_pss > 0 ? (double)sum->pss / (double)sum->rss_of_pss : 1;
	return sum->pss + sum->rss_closed + (uint64_t)(part * (double)sum->rss_unseen);
}

struct pids {
	pid_t *at;
	size_t n, room;
};

static int pids_add(struct pids *pids, const char *text)
{
	for (char *end; *text; text = end) {
		long pid = strtol(text, &end, 10);
		if (end == text || pid <= 0 ||
		    pid > INT_MAX) /* kill() takes 0 and less for a group, or all */
			break;
		if (pids->n == pids->room) {
			size_t room = pids->room ? 2 * pids->room : 64;
			pid_t *at = realloc(pids->at, room * sizeof *at);
			if (!at)
				return -ENOMEM;
			pids->at = at;
			pids->room = room;
		}
		pids->at[pids->n++] = (pid_t)pid;
	}
	return 0;
}

/* The kernel lists a process's children by the thread that started them. */
static int add_children(struct pids *pids, pid_t pid, struct ap_buf *text)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	DIR *tasks = opendir(path);
	struct dirent *task;
	int r = tasks ? 0 : -errno;
	while (r == 0 && (task = readdir(tasks))) {
		if (task->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "task/%.16s/children", task->d_name);
		r = read_proc(text, pid, path);
		r = r < 0 ? r : pids_add(pids, ap_buf_text(text));
	}
	if (tasks)
		closedir(tasks);
	return r;
}

/* All below `root`, parents before their children. */
static int add_tree(struct pids *pids, pid_t root, struct ap_buf *text)
{
	char proc[32];
	snprintf(proc, sizeof proc, "/proc/%d", (int)root);
	if (access(proc, F_OK) < 0)
		return -ESRCH;
	int r = add_children(pids, root, text);
	if (r == -ENOENT)
		r = access(proc, F_OK) < 0 ? -ESRCH : -ENOSYS;
	for (size_t i = 0; r == 0 && i < pids->n && i < TREE_MAX; i++)
		(void)add_children(pids, pids->at[i], text); /* it has ended meanwhile, perhaps */
	return r;
}

int process_tree_usage(pid_t root, struct process_usage *ret)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct process_usage usage = {0};
	struct memory_sum memory = {.close_until_ns = ap_clock_ns() + CLOSELY_LIMIT};
	struct pids pids = {0};
	int r = add_tree(&pids, root, &text);
	struct process_stat stat;
	for (size_t i = 0; r == 0 && i < pids.n; i++) {
		if (!read_stat(pids.at[i], &text, &stat))
			continue; /* it has ended meanwhile */
		usage.n_processes++;
		usage.cpu_ns += stat.cpu_ns;
		add_memory(&memory, stat.pid, stat.rss, &text);
	}
	usage.memory = memory_of(&memory);
	/* the root has waited for descendants that it took over */
	if (r == 0 && read_stat(root, &text, &stat))
		usage.cpu_ns += stat.cpu_ns;
	free(pids.at);
	if (r == 0)
		*ret = usage;
	return r;
}

int process_tree_list(pid_t root, pid_t **ret, size_t *ret_n)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct pids pids = {0};
	int r = add_tree(&pids, root, &text);
	if (r < 0) {
		free(pids.at);
		return r;
	}
	*ret = pids.at;
	*ret_n = pids.n;
	return 0;
}

/* --- the table of all --- */

struct process_table {
	struct process_stat *at; /* by parent */
	size_t n;
	bool read;
	int64_t close_until_ns;
	uint64_t pss, rss; /* of all that were measured closely */
	size_t *below;	   /* scratch of a walk: indices into `at` */
	struct ap_buf text;
};

struct process_table *process_table_new(void)
{
	return calloc(1, sizeof(struct process_table));
}

void process_table_free(struct process_table *table)
{
	if (!table)
		return;
	ap_buf_fini(&table->text);
	free(table->below);
	free(table->at);
	free(table);
}

bool process_table_is_late(const struct process_table *table)
{
	return table->read && ap_clock_ns() >= table->close_until_ns;
}

static int by_parent(const void *a, const void *b)
{
	const struct process_stat *left = a, *right = b;
	return (left->parent > right->parent) - (left->parent < right->parent);
}

static int table_read(struct process_table *table)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	size_t room = 0;
	int r = proc ? 0 : -errno;
	while (r == 0 && table->n < TABLE_MAX && (entry = readdir(proc))) {
		pid_t pid = (pid_t)atoi(entry->d_name); /* 0: it is no process */
		if (table->n == room) {
			room = room ? 2 * room : 512;
			struct process_stat *at = realloc(table->at, room * sizeof *at);
			if (!at) {
				r = -ENOMEM;
				break;
			}
			table->at = at;
		}
		if (pid > 0 && read_stat(pid, &table->text, &table->at[table->n]))
			table->n++;
	}
	if (proc)
		closedir(proc);
	table->below = r == 0 ? calloc(table->n + 1, sizeof *table->below) : NULL;
	if (r == 0 && !table->below)
		r = -ENOMEM;
	if (r == 0)
		qsort(table->at, table->n, sizeof *table->at, by_parent);
	table->close_until_ns = ap_clock_ns() + CLOSELY_LIMIT;
	table->read = true;
	return r;
}

/* The first of the children of a process, which stand together; table->n: it has none. */
static size_t first_child(const struct process_table *table, pid_t parent)
{
	size_t from = 0, to = table->n;
	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (table->at[middle].parent < parent)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* Adds the children of a process to the `n` that are below. There are never more than processes,
 * even if a pid that was reused meanwhile makes a loop of the tree. */
static size_t add_below(struct process_table *table, pid_t parent, size_t n)
{
	for (size_t i = first_child(table, parent);
	     i < table->n && table->at[i].parent == parent && n < table->n; i++)
		table->below[n++] = i;
	return n;
}

static const struct process_stat *find_process(const struct process_table *table, pid_t pid)
{
	for (size_t i = 0; i < table->n; i++) {
		if (table->at[i].pid == pid)
			return &table->at[i];
	}
	return NULL;
}

int process_table_usage(struct process_table *table, pid_t root, struct process_usage *ret)
{
	int r = table->read ? 0 : table_read(table);
	const struct process_stat *top = r == 0 ? find_process(table, root) : NULL;
	if (!top)
		return r < 0 ? r : -ESRCH;
	struct memory_sum memory = {.close_until_ns = table->close_until_ns};
	struct process_usage usage = {.cpu_ns = top->cpu_ns};
	size_t n = add_below(table, root, 0);
	for (size_t i = 0; i < n; i++) {
		const struct process_stat *stat = &table->at[table->below[i]];
		n = add_below(table, stat->pid, n);
		usage.n_processes++;
		usage.cpu_ns += stat->cpu_ns;
		add_memory(&memory, stat->pid, stat->rss, &table->text);
	}
	table->pss += memory.pss;
	table->rss += memory.rss_of_pss;
	if (memory.rss_of_pss == 0) { /* too late to measure: it shares as the others do */
		memory.pss = table->pss;
		memory.rss_of_pss = table->rss;
		usage.memory = memory_of(&memory) - table->pss;
	} else {
		usage.memory = memory_of(&memory);
	}
	*ret = usage;
	return 0;
}

/* --- stopping --- */

/* Waits until a process that got SIGSTOP is stopped, or has ended. The signal alone is not enough:
 * a shell that is not stopped yet would still see its job stop. */
static void await_stopped(pid_t pid, struct ap_buf *text)
{
	for (unsigned tries = 0; tries < STOP_TRIES && read_proc(text, pid, "stat") == 0; tries++) {
		const char *name_end = strrchr(ap_buf_text(text), ')');
		if (!name_end || strchr("TtZX", name_end[1] ? name_end[2] : 'X'))
			return;
		poll(NULL, 0, 1);
	}
}

/* Repeats until no process is new: a fork may slip by. */
int process_tree_stop(pid_t root)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	size_t n_before = 0;
	int r = 0;
	for (unsigned round = 0; r == 0 && round < STOP_ROUNDS; round++) {
		struct pids pids = {0};
		r = add_tree(&pids, root, &text);
		for (size_t i = 0; i < pids.n; i++) {
			if (kill(pids.at[i], SIGSTOP) == 0) /* else it has ended meanwhile */
				await_stopped(pids.at[i], &text);
		}
		size_t n = pids.n;
		free(pids.at);
		if (n == n_before)
			break;
		n_before = n;
	}
	return r;
}

int process_tree_continue(pid_t root)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct pids pids = {0};
	int r = add_tree(&pids, root, &text);
	for (size_t i = pids.n; i > 0; i--)
		(void)kill(pids.at[i - 1], SIGCONT); /* likewise */
	free(pids.at);
	return r;
}

void cpu_average_begin(struct cpu_average *average, int64_t now)
{
	*average = (struct cpu_average){.at_ns = now};
}

void cpu_average_add(struct cpu_average *average, int64_t cpu_ns, int64_t now)
{
	if (average->at_ns && now > average->at_ns) {
		int64_t span = now - average->at_ns;
		/* less than before: a process has ended whose time nobody took over */
		int64_t used = cpu_ns > average->cpu_ns ? cpu_ns - average->cpu_ns : 0;
		double percent = 100.0 * (double)used / (double)span;
		average->percent += (percent - average->percent) * (double)span /
				    (double)(AVERAGED_OVER + span);
	}
	average->cpu_ns = cpu_ns;
	average->at_ns = now;
}
