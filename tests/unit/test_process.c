/* Helpers that are run to their end, on real programs. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "process.h"

#define SHELL(script) ((const char *const[]){"sh", "-c", (script), NULL})

static void has_output_and_code(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct ap_err err;
	const struct process_run run = {
		.argv = SHELL(
			"echo out; echo advice >&2; echo fatal: why >&2; echo more >&2; exit 3"),
		.limit_ns = 60 * AP_SECOND,
		.out = &out};
	assert_int_equal(process_run(&run, &err), 3);
	assert_string_equal(ap_buf_text(&out), "out\n");
	assert_string_equal(err.text, "sh: advice; fatal: why; more");
}

static void is_asked_to_end_first(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct ap_err err;
	const struct process_run run = {
		.argv = SHELL("trap 'echo locks are gone; exit' TERM; sleep 1000 & wait"),
		.limit_ns = AP_SECOND,
		.out = &out};
	assert_int_equal(process_run(&run, &err), -ETIMEDOUT);
	assert_string_equal(ap_buf_text(&out), "locks are gone\n");
	assert_non_null(strstr(err.text, "took too long"));
}

static void is_made_to_end(void **state)
{
	struct ap_err err;
	const struct process_run run = {.argv = SHELL("trap '' TERM; while :; do sleep 1; done"),
					.limit_ns = 100 * AP_MS};
	int64_t begin = ap_clock_ns();
	assert_int_equal(process_run(&run, &err), -ETIMEDOUT);
	assert_true(ap_clock_ns() - begin < 60 * AP_SECOND);
}

static void prints_too_much(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct ap_err err;
	struct process_run run = {.argv = SHELL("head -c 100000 /dev/zero; sleep 1000"),
				  .limit_ns = 60 * AP_SECOND,
				  .out = &out,
				  .out_max = 50000};
	assert_int_equal(process_run(&run, &err), -EFBIG);
	assert_string_equal(err.text, "'sh' printed more than 50000 bytes");
	assert_true(out.len < 100000);
	run.argv = SHELL("head -c 100000 /dev/zero"); /* its end comes with the last of it */
	ap_buf_fini(&out);
	assert_int_equal(process_run(&run, &err), -EFBIG);
	run.out_max = 100000;
	ap_buf_fini(&out);
	assert_int_equal(process_run(&run, &err), 0);
	assert_int_equal(out.len, 100000);
}

static void is_not_there(void **state)
{
	struct ap_err err;
	const struct process_run run = {.argv = (const char *const[]){"/no/such/program", NULL},
					.limit_ns = AP_SECOND};
	assert_int_equal(process_run(&run, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/no/such/program"));
}

static void has_no_signals_of_ours(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct ap_err err;
	sigset_t all, was;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	const struct process_run run = {
		.argv = (const char *const[]){"grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status",
					      NULL},
		.limit_ns = 60 * AP_SECOND,
		.out = &out};
	int r = process_run(&run, &err);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGUSR2, SIG_DFL);
	assert_int_equal(r, 0);
	assert_string_equal(ap_buf_text(&out),
			    "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void has_limits_of_its_own(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct ap_err err;
	const struct process_run run = {
		.argv = SHELL("ulimit -Sn"), .limit_ns = 60 * AP_SECOND, .out = &out};
	process_limit_files(77);
	assert_int_equal(process_run(&run, &err), 0);
	process_limit_files(0);
	assert_string_equal(ap_buf_text(&out), "77\n");
}

/* Whether a process, which may be this one's child, has a lock on the mark. */
static bool is_locked(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	assert_int_equal(fcntl(fd, F_GETLK, &lock), 0);
	return lock.l_type != F_UNLCK;
}

static void is_marked_alone(void **state)
{
	char name[] = "/tmp/agentpool-mark-XXXXXX";
	struct ap_err err;
	int fd = mkostemp(name, O_CLOEXEC), in_fd, out_fd;
	pid_t pid;
	char left[16] = "";
	assert_true(fd >= 0);
	unlink(name);
	process_mark(fd);
	/* it says who it leaves behind, and goes on until its input ends */
	const struct process_run run = {
		.argv = SHELL("sleep 1000 >/dev/null 2>&1 & echo $!; read x; exit 0")};
	assert_int_equal(process_open(&run, &pid, &in_fd, &out_fd, &err), 0);
	assert_true(read(out_fd, left, sizeof left - 1) > 0);
	assert_true(is_locked(fd));
	close(in_fd);
	close(out_fd);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(kill((pid_t)atoi(left), 0), 0);
	assert_false(is_locked(fd));
	kill((pid_t)atoi(left), SIGKILL);
	process_mark(-1);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a helper's output and exit code come back, with what it complains of",
		   has_output_and_code),
		IT("a helper that takes too long is asked to end first", is_asked_to_end_first),
		IT("a helper that does not is made to", is_made_to_end),
		IT("a helper that is not there is ENOENT", is_not_there),
		IT("no signal that is ignored or blocked here is so in a helper",
		   has_no_signals_of_ours),
		IT("a helper may have as many files open as it is told", has_limits_of_its_own),
		IT("a helper has the mark as long as it runs, what it leaves behind does not",
		   is_marked_alone),
		IT("a helper that prints more than it may is ended, EFBIG", prints_too_much),
	};
	return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
