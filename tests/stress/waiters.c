/* waiters ACTION POOL N ...: a pool with N acquirers waiting by handle, a thread for each.
 *
 *     order POOL N DAEMON GRANTS  what they cost the daemon; the first GRANTS are served in order;
 * close kill POOL N                 they are killed all at once, in a process of their own beside
 * POOL N ROUNDS        they wait for agent-1: what acquire and release of another agent cost
 *     files POOL N                N processes open files until no more can be opened
 *
 * The pool has no lease when it begins and none afterwards. Prints figures, a `name value` line
 * each; fails with a sentence when something is not as it ought to be. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_S 120 /* of everything that is waited for */
#define PAUSE_US   1000

struct waiter {
	pthread_t thread;
	int fd;
	_Atomic pid_t tid; /* 0: not about to read yet */
	int error;	   /* of its read; 0: granted */
	char answer[128];
};

static const char *pool;
static unsigned n_waiters;
static struct waiter *waiters;
static atomic_uint n_granted, n_out_of_order, n_ended;

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- the pool's files --- */

static int open_in(const char *name, int flags)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/%s", pool, name);
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	return fd;
}

/* 0 or the errno of the write. */
static int write_to(const char *name, const char *text)
{
	int fd = open_in(name, O_WRONLY);
	int error = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return error;
}

static unsigned stat_of(const char *name)
{
	char text[64] = "";
	int fd = open_in(name, O_RDONLY);
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n < 0)
		fail("%s: %s", name, strerror(errno));
	return (unsigned)strtoul(text, NULL, 10);
}

static void await_stat(const char *name, unsigned value)
{
	double end = now_s() + DEADLINE_S;
	while (stat_of(name) != value) {
		if (now_s() > end)
			fail("%s is %u, not %u", name, stat_of(name), value);
		usleep(PAUSE_US);
	}
}

/* Opens acquire and asks. 0 or the errno of the write. */
static int ask(const char *line, int *ret_fd)
{
	*ret_fd = open_in("acquire", O_RDWR);
	return write(*ret_fd, line, strlen(line)) < 0 ? errno : 0;
}

/* Holds an agent by handle. */
static int hold_agent(const char *line)
{
	char answer[128];
	int fd, error = ask(line, &fd);
	if (error)
		fail("%s: %s", line, strerror(error));
	if (read(fd, answer, sizeof answer) <= 0)
		fail("the read of '%s': %s", line, strerror(errno));
	return fd;
}

/* The kernel tells of closed files later and in their order: when a lease has ended whose handle
 * was closed last, the daemon has heard of all. What is unmounted before aborts what is under way.
 */
static void await_all_closed(void)
{
	close(hold_agent("last timeout=1m\n"));
	await_stat("stats/active_agents", 0);
}

/* --- waiters --- */

/* Granted ones count themselves before they let the next one have the agent. */
static void *wait_main(void *data)
{
	struct waiter *waiter = data;
	atomic_store(&waiter->tid, gettid());
	ssize_t n = read(waiter->fd, waiter->answer, sizeof waiter->answer - 1);
	waiter->error = n < 0 ? errno : 0;
	if (n >= 0 && atomic_fetch_add(&n_granted, 1) != (unsigned)(waiter - waiters))
		atomic_fetch_add(&n_out_of_order, 1);
	close(waiter->fd);
	atomic_fetch_add(&n_ended, 1);
	return NULL;
}

/* Those from `first` up to `end` ask one after the other, so that the order of arrival is known. */
static void start_some(const char *line, unsigned first, unsigned end)
{
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN + 8192);
	pthread_attr_setguardsize(&attr, 0);
	for (unsigned i = first; i < end; i++) {
		int error = ask(line, &waiters[i].fd);
		if (error)
			fail("waiter %u: %s", i, strerror(error));
		error = pthread_create(&waiters[i].thread, &attr, wait_main, &waiters[i]);
		if (error)
			fail("thread %u: %s", i, strerror(error));
	}
	pthread_attr_destroy(&attr);
}

static void make_waiters(void)
{
	waiters = calloc(n_waiters, sizeof *waiters);
	if (!waiters)
		fail("no memory");
}

static void start_waiters(const char *line)
{
	make_waiters();
	start_some(line, 0, n_waiters);
}

static char thread_state(pid_t tid)
{
	char path[64], state = '?';
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
	FILE *file = fopen(path, "re");
	if (!file)
		return state;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = '?';
	fclose(file);
	return state;
}

/* A thread that was about to read and sleeps has its read parked. */
static void await_parked(unsigned n)
{
	double end = now_s() + DEADLINE_S;
	for (unsigned i = 0; i < n; i++) {
		pid_t tid;
		while (!(tid = atomic_load(&waiters[i].tid)) || thread_state(tid) != 'S') {
			if (now_s() > end)
				fail("waiter %u does not wait", i);
			usleep(PAUSE_US);
		}
	}
}

static void await_count(atomic_uint *count, unsigned value)
{
	double end = now_s() + DEADLINE_S;
	while (atomic_load(count) < value) {
		if (now_s() > end)
			fail("%u of %u", atomic_load(count), value);
		usleep(PAUSE_US);
	}
}

/* --- what the daemon costs --- */

static long field_of(const char *pid, const char *file_name, const char *key)
{
	char path[64], line[256];
	long value = -1;
	snprintf(path, sizeof path, "/proc/%s/%s", pid, file_name);
	FILE *file = fopen(path, "re");
	if (!file)
		fail("%s: %s", path, strerror(errno));
	while (value < 0 && fgets(line, sizeof line, file)) {
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtol(line + strlen(key), NULL, 10);
	}
	fclose(file);
	return value;
}

struct cost {
	long pss, rss, threads;
};

static struct cost cost_of(const char *pid)
{
	return (struct cost){
		/* what other processes share and give up meanwhile is not the waiters' */
		.pss = field_of(pid, "smaps_rollup", "Pss_Anon:") * 1024,
		.rss = field_of(pid, "smaps_rollup", "Rss:") * 1024,
		.threads = field_of(pid, "status", "Threads:"),
	};
}

/* --- actions --- */

static int order(const char *daemon, unsigned n_grants)
{
	int holder = hold_agent("holder\n");
	/* what the daemon needs for any waiter at all, it has when there are some */
	unsigned n_some = n_waiters / 10, n_more = n_waiters - n_some;
	double start = now_s();
	make_waiters();
	start_some("timeout=1h\n", 0, n_some);
	await_parked(n_some);
	struct cost before = cost_of(daemon);
	start_some("timeout=1h\n", n_some, n_waiters);
	printf("queued_s %.2f\n", now_s() - start);
	await_parked(n_waiters);
	struct cost after = cost_of(daemon);
	printf("waiting %u\n", stat_of("stats/waiting"));
	printf("threads_more %ld\n", after.threads - before.threads);
	printf("bytes_pss_anon %ld\n", (after.pss - before.pss) / (long)n_more);
	printf("bytes_rss %ld\n", (after.rss - before.rss) / (long)n_more);

	int fd;
	start = now_s();
	int error = ask("timeout=1h\n", &fd);
	printf("one_more %s\n", error ? strerrorname_np(error) : "accepted");
	printf("one_more_ms %.1f\n", (now_s() - start) * 1e3);
	close(fd);
	char why[512] = "";
	fd = open_in("last_error", O_RDONLY);
	if (read(fd, why, sizeof why - 1) < 0)
		fail("last_error: %s", strerror(errno));
	printf("one_more_why %s", why);
	close(fd);

	start = now_s();
	close(holder);
	await_count(&n_granted, n_grants);
	printf("grants_s %.2f\n", now_s() - start);
	start = now_s();
	error = write_to("ctl", "close\n");
	if (error)
		fail("close: %s", strerror(error));
	await_count(&n_ended, n_waiters);
	printf("close_s %.2f\n", now_s() - start);
	unsigned n_refused = 0;
	for (unsigned i = 0; i < n_waiters; i++) {
		pthread_join(waiters[i].thread, NULL);
		n_refused += waiters[i].error == ESHUTDOWN;
	}
	printf("granted %u\nrefused %u\n", atomic_load(&n_granted), n_refused);
	printf("out_of_order %u\n", atomic_load(&n_out_of_order));
	error = write_to("ctl", "open\n");
	if (error)
		fail("open: %s", strerror(error));
	await_all_closed();
	return 0;
}

/* A process in which they wait, for others to be killed; returns when all do. */
static pid_t fork_waiters(const char *line)
{
	int ready[2];
	char byte;
	fflush(stdout);
	if (pipe(ready) < 0)
		fail("pipe: %s", strerror(errno));
	pid_t child = fork();
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child == 0) {
		close(ready[0]);
		start_waiters(line);
		await_parked(n_waiters);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		fail("the process that waits has ended");
	close(ready[0]);
	return child;
}

/* How long it takes until nobody waits any more. */
static double kill_waiters(pid_t child)
{
	double start = now_s();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	await_stat("stats/waiting", 0);
	return now_s() - start;
}

static int kill_all(void)
{
	int holder = hold_agent("holder\n");
	pid_t child = fork_waiters("timeout=1h\n");
	printf("waiting %u\n", stat_of("stats/waiting"));
	printf("kill_s %.2f\n", kill_waiters(child));
	close(holder);
	await_all_closed();
	return 0;
}

static int ascending(const void *a, const void *b)
{
	const double *left = a, *right = b;
	return (*left > *right) - (*left < *right);
}

/* The median of what an acquire and its release take, in ms. */
static double lease_ms(unsigned n_rounds)
{
	double *took = calloc(n_rounds, sizeof *took);
	if (!took)
		fail("no memory");
	for (unsigned i = 0; i < n_rounds; i++) {
		double start = now_s();
		int error = write_to("acquire", "beside timeout=1m\n");
		if (!error)
			error = write_to("release", "beside\n");
		if (error)
			fail("a lease beside them: %s", strerror(error));
		took[i] = (now_s() - start) * 1e3;
		await_stat("stats/idle_agents", 1);
	}
	qsort(took, n_rounds, sizeof *took, ascending);
	double median = took[n_rounds / 2];
	free(took);
	return median;
}

static int beside(unsigned n_rounds)
{
	int holder = hold_agent("holder agent=agent-1\n");
	await_stat("stats/idle_agents", 1);
	printf("alone_ms %.2f\n", lease_ms(n_rounds));
	pid_t child = fork_waiters("timeout=1h agent=agent-1\n");
	printf("waiting %u\n", stat_of("stats/waiting"));
	printf("beside_ms %.2f\n", lease_ms(n_rounds));
	printf("kill_s %.2f\n", kill_waiters(child));
	close(holder);
	await_all_closed();
	return 0;
}

/* Opens files until it is refused and waits to be killed. Tells how many, and the errno. */
static void open_many(int told)
{
	int report[2] = {0, 0};
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/stats/waiting", pool);
	while (open(path, O_RDONLY | O_CLOEXEC) >= 0)
		report[0]++;
	report[1] = errno;
	if (write(told, report, sizeof report) != sizeof report)
		_exit(1);
	for (;;)
		pause();
}

/* Each may open fewer than the mount may have. */
static int open_all(unsigned n_processes)
{
	int told[2], n_open = 0, error = 0;
	pid_t *children = calloc(n_processes, sizeof *children);
	if (!children || pipe(told) < 0)
		fail("pipe: %s", strerror(errno));
	for (unsigned i = 0; i < n_processes; i++) {
		int report[2];
		children[i] = fork();
		if (children[i] == 0)
			open_many(told[1]);
		if (read(told[0], report, sizeof report) != sizeof report)
			fail("a process that opens files has ended");
		n_open += report[0];
		error = report[1];
	}
	printf("open %d\nrefused_with %s\n", n_open, strerrorname_np(error));
	for (unsigned i = 0; i < n_processes; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	free(children);
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/stats/waiting", pool);
	double end = now_s() + DEADLINE_S;
	int fd;
	while ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		if (now_s() > end)
			fail("%s: %s", path, strerror(errno));
		usleep(PAUSE_US);
	}
	close(fd);
	await_all_closed();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		fail("usage: waiters order|kill|beside|files POOL N ...");
	pool = argv[2];
	n_waiters = (unsigned)strtoul(argv[3], NULL, 10);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < n_waiters + 64)
		fail("%u open files are too few: ulimit -n", (unsigned)files.rlim_cur);
	if (strcmp(argv[1], "order") == 0 && argc == 6)
		return order(argv[4], (unsigned)strtoul(argv[5], NULL, 10));
	if (strcmp(argv[1], "kill") == 0 && argc == 4)
		return kill_all();
	if (strcmp(argv[1], "beside") == 0 && argc == 5)
		return beside((unsigned)strtoul(argv[4], NULL, 10));
	if (strcmp(argv[1], "files") == 0 && argc == 4)
		return open_all(n_waiters);
	fail("what is '%s'?", argv[1]);
}
