/* Helpers that are run to their end, on real programs. */
#include "unit.h"

#include <errno.h>
#include <string.h>

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

static void is_not_there(void **state)
{
	struct ap_err err;
	const struct process_run run = {.argv = (const char *const[]){"/no/such/program", NULL},
					.limit_ns = AP_SECOND};
	assert_int_equal(process_run(&run, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/no/such/program"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a helper's output and exit code come back, with what it complains of",
		   has_output_and_code),
		IT("a helper that takes too long is asked to end first", is_asked_to_end_first),
		IT("a helper that does not is made to", is_made_to_end),
		IT("a helper that is not there is ENOENT", is_not_there),
	};
	return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
