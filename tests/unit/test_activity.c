#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "activity.h"
#include "clock.h"

#define NOW (1000 * AP_SECOND)

static struct activity_input shell(void)
{
	return (struct activity_input){
		.is_shell = true,
		.ended_how = "",
		.started_ready = true,
		.output_ns = NOW - AP_SECOND,
		.started_ns = NOW - 10 * AP_SECOND,
		.look = {.known = true, .program = 10, .foreground = 10, .reads_terminal = true},
	};
}

static void assert_concludes(const struct activity_input *input, enum ap_activity expected)
{
	struct activity result = activity_conclude(input, NOW);
	assert_string_equal(ap_activity_name(result.activity), ap_activity_name(expected));
	assert_true(result.why[0]);
	assert_true(result.recheck_ns > NOW);
}

static void shell_at_prompt(void **state)
{
	struct activity_input in = shell();
	assert_concludes(&in, AP_ACTIVITY_READY);
}

static void shell_with_job(void **state)
{
	struct activity_input in = shell();
	in.look.foreground = 11;
	assert_concludes(&in, AP_ACTIVITY_BUSY);
}

static void shell_that_computes(void **state)
{
	struct activity_input in = shell();
	in.look.reads_terminal = false;
	assert_concludes(&in, AP_ACTIVITY_BUSY);
}

static void not_yet_seen(void **state)
{
	struct activity_input in = shell();
	in.entered_ns = NOW - 10 * AP_MS;
	assert_concludes(&in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 5 * AP_MS; /* echoed, but it may print more */
	assert_concludes(&in, AP_ACTIVITY_BUSY);
	in.entered_ns = NOW - 200 * AP_MS;
	in.output_ns = NOW - 100 * AP_MS;
	assert_concludes(&in, AP_ACTIVITY_READY);
}

static void silence_decides(void **state)
{
	struct activity_input in = shell();
	in.is_shell = false;
	assert_concludes(&in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 3 * AP_SECOND;
	assert_concludes(&in, AP_ACTIVITY_READY);
}

static void starting_until_ready(void **state)
{
	struct activity_input in = shell();
	in.started_ready = false;
	in.look.reads_terminal = false;
	assert_concludes(&in, AP_ACTIVITY_STARTING);
}

static void not_there_yet(void **state)
{
	struct activity_input in = shell();
	in.look = (struct activity_look){0};
	in.started_ready = false;
	in.started_ns = NOW - 100 * AP_MS;
	assert_concludes(&in, AP_ACTIVITY_STARTING);
	assert_true(activity_conclude(&in, NOW).recheck_ns < NOW + 100 * AP_MS);
}

static void end_is_told(void **state)
{
	struct activity_input in = shell();
	in.ended = true;
	in.ended_how = "code 3";
	assert_concludes(&in, AP_ACTIVITY_EXITED);
	assert_non_null(strstr(activity_conclude(&in, NOW).why, "code 3"));
}

static void shells_are_known(void **state)
{
	static const char *const bash[] = {"bash", NULL}, *const login[] = {"/bin/sh", "-l", NULL},
				 *const script[] = {"bash", "x.sh", NULL},
				 *const command[] = {"bash", "-c", "x", NULL},
				 *const cat[] = {"cat", NULL};
	assert_true(activity_is_shell(bash));
	assert_true(activity_is_shell(login));
	assert_false(activity_is_shell(script));
	assert_false(activity_is_shell(command));
	assert_false(activity_is_shell(cat));
}

static void looks_at_processes(void **state)
{
	struct activity_look look = activity_look(getpid());
	assert_true(look.known);
	assert_false(look.reads_terminal); /* it runs */
	assert_false(activity_look(-1).known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a shell that waits for input is ready", shell_at_prompt),
		IT("a shell whose job has the terminal is busy", shell_with_job),
		IT("a shell that is at work itself is busy", shell_that_computes),
		IT("a prompt is not done before it shows", not_yet_seen),
		IT("any other program is ready when it has been silent", silence_decides),
		IT("busy before it was ever ready is starting", starting_until_ready),
		IT("a shell whose process is not known yet is looked at again soon", not_there_yet),
		IT("a program that has ended is exited, and why says how", end_is_told),
		IT("interactive shells are known by their command line", shells_are_known),
		IT("a look at a running process says that it runs", looks_at_processes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
