#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "activity.h"
#include "clock.h"

#define NOW (1000 * AP_SECOND)

static const struct activity_rules shell_rules = {.shell = true,
						  .looks = true,
						  .debounce_ns = 300 * AP_MS,
						  .hold_ns = 500 * AP_MS,
						  .silence_ns = 2 * AP_SECOND},
				   any_rules = {.looks = true,
						.debounce_ns = 300 * AP_MS,
						.hold_ns = 500 * AP_MS,
						.silence_ns = 2 * AP_SECOND},
				   screen_rules = {.looks = true,
						   .tells_ready = true,
						   .debounce_ns = 300 * AP_MS,
						   .hold_ns = 500 * AP_MS,
						   .silence_ns = 2 * AP_SECOND},
				   /* a program without a profile */
	terminal_rules = {.terminal = true,
			  .looks = true,
			  .debounce_ns = 300 * AP_MS,
			  .hold_ns = 500 * AP_MS,
			  .silence_ns = 2 * AP_SECOND},
				   stream_rules = {.reports = true, .tells_ready = true};

static struct activity_input shell(void)
{
	return (struct activity_input){
		.ended_how = "",
		.line = "$ ",
		.prompt = "",
		.started_ready = true,
		.output_ns = NOW - AP_SECOND,
		.started_ns = NOW - 10 * AP_SECOND,
		.screen = {.at_ns = NOW - AP_SECOND},
		.look = {.known = true, .program = 10, .foreground = 10, .reads = READS_PROMPT},
	};
}

/* A program with a profile, whose screen was looked at after its last output and shows that. */
static struct activity_input shows(enum ap_activity activity)
{
	struct activity_input in = shell();
	in.look = (struct activity_look){.known = false};
	in.screen = (struct activity_signal){
		.at_ns = NOW - AP_SECOND, .found = true, .activity = activity, .why = "screen: x"};
	return in;
}

/* Concluded twice, so long apart that what is steady has settled. */
static struct activity settle(const struct activity_rules *rules, const struct activity_input *in)
{
	struct activity_memory memory = {.since_ns = 0};
	activity_conclude(rules, in, &memory, NOW - 400 * AP_MS);
	return activity_conclude(rules, in, &memory, NOW);
}

static void assert_concludes(const struct activity_rules *rules, const struct activity_input *in,
			     enum ap_activity expected)
{
	struct activity result = settle(rules, in);
	assert_string_equal(ap_activity_name(result.activity), ap_activity_name(expected));
	assert_true(result.why[0]);
	assert_true(result.recheck_ns > NOW);
}

static void shell_at_prompt(void **state)
{
	struct activity_input in = shell();
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
}

static void shell_with_job(void **state)
{
	struct activity_input in = shell();
	in.look.foreground = 11;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&shell_rules, &in).recheck_ns == AP_FOREVER); /* only output can */
}

static void shell_that_computes(void **state)
{
	struct activity_input in = shell();
	in.look.reads = READS_NOTHING;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
}

static void job_that_reads(void **state)
{
	struct activity_input in = shell();
	in.look.foreground = 11;
	in.look.reader = true;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	in.output_ns = NOW - 100 * AP_MS; /* it may only have begun to ask */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&shell_rules, &in).recheck_ns <= NOW + 300 * AP_MS);
}

static void builtin_that_reads(void **state)
{
	struct activity_input in = shell();
	in.runs_command = true;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
}

static void end_that_is_on_its_way(void **state)
{
	struct activity_input in = shell();
	in.marks = in.runs_command = in.look.edits = true; /* the shell is at its prompt already */
	in.marked_ns = in.output_ns = in.screen.at_ns = NOW - 100 * AP_MS;
	in.entered_ns = NOW - 110 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&shell_rules, &in).recheck_ns <= NOW + AP_SECOND);
	in.marked_ns = in.output_ns = in.screen.at_ns = NOW - 2 * AP_SECOND; /* it never comes */
	in.entered_ns = NOW - 3 * AP_SECOND;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
}

static void substitution_in_a_start_up_file(void **state)
{
	struct activity_input in = shell();
	in.started_ready = false;
	in.look.reads = READS_NOTHING; /* a pipe */
	in.output_ns = in.screen.at_ns = NOW - 30 * AP_SECOND;
	in.started_ns = NOW - 31 * AP_SECOND;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_STARTING);
	in.output_ns = in.started_ns = NOW - 61 * AP_SECOND; /* a human is to look, for once */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	in.look.reads = READS_PROMPT;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
	in.look.known = false; /* silence says nothing of a start */
	in.output_ns = in.started_ns = NOW - 31 * AP_SECOND;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_STARTING);
}

static void first_prompt_without_marks(void **state)
{
	struct activity_input in = shell();
	in.started_ready = false;
	in.output_ns = NOW - 100 * AP_MS;
	in.screen.at_ns = NOW - 90 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_STARTING);
	in.marks = true; /* which come with the first prompt */
	in.marked_ns = NOW - 110 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
	in.marks = false;
	in.output_ns = NOW - 400 * AP_MS; /* it may be a question that it shows */
	in.screen.at_ns = NOW - 500 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_STARTING);
	assert_true(settle(&shell_rules, &in).wants_look);
	in.screen = shows(AP_ACTIVITY_WAITING).screen;
	in.screen.at_ns = NOW - 50 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	in.screen.found = false;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
	in.look.reads = READS_INPUT; /* `read` in a start-up file */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
}

static void rest_of_a_command_by_its_line(void **state)
{
	struct activity_input in = shell();
	in.entered_ns = NOW - 2 * AP_SECOND;
	in.line = "> ";
	in.line_goes_on = true;
	in.prompt = "$ ";
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	assert_non_null(strstr(settle(&shell_rules, &in).why, "rest of a command"));
	in.output_ns = NOW - 100 * AP_MS; /* which more may be printed behind */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - AP_SECOND;
	in.prompt = "> "; /* as its first prompt is */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
}

static void rest_of_a_command_by_its_marks(void **state)
{
	struct activity_input in = shell();
	in.marks = true;
	in.marked_ns = NOW - 4 * AP_SECOND;
	in.entered_ns = NOW - 3 * AP_SECOND;
	in.output_ns = NOW - 2 * AP_SECOND;
	in.line = "more? ";
	in.prompt = "$ ";
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	in.output_ns = NOW - 500 * AP_MS; /* they may be on their way */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	in.line = "$ "; /* it marks no more */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
	in.line = "more? ";
	in.marked_ns = NOW - AP_SECOND;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
}

static void keys_that_answer(void **state)
{
	struct activity_input in = shell();
	in.look.known = false;
	in.screen = shows(AP_ACTIVITY_WAITING).screen;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_WAITING);
	in.keys_from_ns = NOW - 110 * AP_MS;
	in.keys_ns = NOW - 100 * AP_MS;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&any_rules, &in).recheck_ns == NOW + 1900 * AP_MS);
	in.keys_from_ns = in.keys_ns = NOW - 2 * AP_SECOND; /* nothing has come of them */
	in.output_ns = in.screen.at_ns = NOW - 3 * AP_SECOND;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_WAITING);
	/* of what has, the screen says more as soon as it is looked at */
	in = shows(AP_ACTIVITY_WAITING);
	in.keys_from_ns = in.keys_ns = NOW - 500 * AP_MS;
	in.output_ns = NOW - 450 * AP_MS;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&screen_rules, &in).wants_look);
	in.screen.at_ns = NOW - 400 * AP_MS;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
	/* also where it came, and was looked at, while they were still being typed */
	in.output_ns = NOW - 490 * AP_MS;
	in.screen.at_ns = NOW - 480 * AP_MS;
	in.keys_ns = NOW - 470 * AP_MS;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&screen_rules, &in).wants_look);
}

static void keys_that_answer_what_a_hook_told(void **state)
{
	struct activity_input in = shell();
	in.look.known = false;
	in.hook = (struct activity_signal){.at_ns = NOW - AP_SECOND,
					   .found = true,
					   .activity = AP_ACTIVITY_WAITING,
					   .why = "hook"};
	in.keys_from_ns = in.keys_ns = NOW - 500 * AP_MS;
	in.output_ns = NOW - 450 * AP_MS;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_BUSY);
	in.hook.at_ns = NOW - 400 * AP_MS; /* it asks the next */
	assert_concludes(&any_rules, &in, AP_ACTIVITY_WAITING);
	in.hook.at_ns = NOW - 4 * AP_SECOND; /* they were no answer */
	in.keys_from_ns = in.keys_ns = NOW - 3 * AP_SECOND;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_WAITING);
}

static void start_that_is_to_be_told(void **state)
{
	const struct activity_rules rules = {
		.says_ready = true, .debounce_ns = 300 * AP_MS, .silence_ns = 2 * AP_SECOND};
	struct activity_input in = shell();
	in.look.known = false;
	in.started_ready = false;
	in.output_ns = in.started_ns = NOW - 5 * AP_SECOND;
	assert_concludes(&rules, &in, AP_ACTIVITY_STARTING);
	in.output_ns = in.started_ns = NOW - 20 * AP_SECOND;
	assert_concludes(&rules, &in, AP_ACTIVITY_WAITING);
	in.started_ready = true;
	assert_concludes(&rules, &in, AP_ACTIVITY_READY);
}

static void question_on_the_screen(void **state)
{
	struct activity_input in = shell();
	in.screen = shows(AP_ACTIVITY_WAITING).screen;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	in.look.foreground = 11;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_WAITING);
	assert_concludes(&any_rules, &in, AP_ACTIVITY_WAITING);
	in.output_ns = NOW - 500 * AP_MS; /* answered: something was printed since */
	in.look.foreground = 10;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
	assert_true(settle(&shell_rules, &in).wants_look);
}

static void not_yet_seen(void **state)
{
	struct activity_input in = shell();
	in.entered_ns = NOW - 10 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 5 * AP_MS; /* echoed, but it may print more */
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
	in.entered_ns = NOW - 200 * AP_MS;
	in.output_ns = NOW - 100 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
}

static void silence_decides(void **state)
{
	struct activity_input in = shell();
	in.look.known = false;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 3 * AP_SECOND;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_READY);
	in.started_ns = NOW - AP_SECOND;
	in.started_ready = false;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_STARTING);
}

/* --- by the terminal, of a program without a profile --- */

/* It printed 100 ms ago, its screen was looked at since, and its process does something else. */
static struct activity_input program(void)
{
	struct activity_input in = shell();
	in.output_ns = NOW - 100 * AP_MS;
	in.screen = (struct activity_signal){.at_ns = NOW - 50 * AP_MS};
	in.look.reads = READS_NOTHING;
	return in;
}

static void reader_is_ready(void **state)
{
	struct activity_input in = program();
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.look.reader = true;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_READY);
	in.started_ready = false;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_READY);
	in.output_ns = NOW - 10 * AP_MS; /* it may print more */
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_STARTING);
	assert_true(settle(&terminal_rules, &in).recheck_ns < NOW + 30 * AP_MS);
}

static void reader_is_looked_at_first(void **state)
{
	struct activity_input in = program();
	in.look.reader = true;
	in.screen.at_ns = NOW - 150 * AP_MS;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&terminal_rules, &in).wants_look);
	in.screen = shows(AP_ACTIVITY_WAITING).screen;
	in.screen.at_ns = NOW - 50 * AP_MS; /* a question; but maybe not for long */
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 400 * AP_MS;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_WAITING);
}

static void reader_at_work(void **state)
{
	struct activity_input in = program();
	struct activity_memory memory = {.since_ns = 0};
	in.look.reader = true;
	activity_conclude(&terminal_rules, &in, &memory, NOW - 9 * AP_SECOND);
	in.look.reader = false;
	in.output_ns = in.screen.at_ns = NOW - 8 * AP_SECOND;
	struct activity result = activity_conclude(&terminal_rules, &in, &memory, NOW);
	assert_int_equal(result.activity, AP_ACTIVITY_BUSY);
	assert_true(result.recheck_ns <= NOW + AP_SECOND); /* it may read without printing */
	result = activity_conclude(&terminal_rules, &in, &memory, NOW + 60 * AP_SECOND);
	assert_int_equal(result.activity, AP_ACTIVITY_READY);
}

static void reader_that_shows_nothing(void **state)
{
	struct activity_input in = program();
	in.output_ns = in.screen.at_ns = 0;
	in.started_ready = false;
	in.started_ns = NOW - 500 * AP_MS;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_STARTING);
	assert_true(settle(&terminal_rules, &in).recheck_ns < NOW + 600 * AP_MS);
	in.look.reader = true;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_READY);
	in.started_ready = true;
	in.entered_ns = NOW - 200 * AP_MS; /* it may not have got it yet */
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.entered_ns = NOW - 400 * AP_MS;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_READY);
}

static void line_editor_is_ready(void **state)
{
	struct activity_input in = program();
	in.output_ns = NOW - 400 * AP_MS;
	in.look.reads = READS_PROMPT; /* or it waits for something else, too */
	in.look.edits = true;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.cursor_waits = true;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_READY);
	in.output_ns = NOW - 100 * AP_MS;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 400 * AP_MS;
	in.look.edits = false;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
}

static void prompt_that_is_marked(void **state)
{
	struct activity_input in = program();
	in.prompt_mark_ns = NOW - 110 * AP_MS;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_READY);
	in.entered_ns = NOW - 105 * AP_MS; /* and only its echo since */
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.prompt_mark_ns = in.entered_ns = 0;
	in.marks = in.runs_command = true;
	in.output_ns = in.screen.at_ns = NOW - 100 * AP_SECOND;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_BUSY);
	in.look.foreground = 11;
	in.look.reader = true;
	assert_concludes(&terminal_rules, &in, AP_ACTIVITY_WAITING);
}

static void starting_until_ready(void **state)
{
	struct activity_input in = shell();
	in.started_ready = false;
	in.look.reads = READS_NOTHING;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_STARTING);
}

static void not_there_yet(void **state)
{
	struct activity_input in = shell();
	in.look = (struct activity_look){0};
	in.started_ready = false;
	in.started_ns = NOW - 100 * AP_MS;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_STARTING);
	assert_true(settle(&shell_rules, &in).recheck_ns < NOW + 100 * AP_MS);
}

static void end_is_told(void **state)
{
	struct activity_input in = shell();
	in.ended = true;
	in.ended_how = "code 3";
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_EXITED);
	assert_non_null(strstr(settle(&shell_rules, &in).why, "code 3"));
}

/* --- by the screen --- */

static void screen_decides(void **state)
{
	static const enum ap_activity all[] = {AP_ACTIVITY_READY, AP_ACTIVITY_BUSY,
					       AP_ACTIVITY_WAITING, AP_ACTIVITY_STARTING};
	for (size_t i = 0; i < 4; i++) {
		struct activity_input in = shows(all[i]);
		assert_concludes(&screen_rules, &in, all[i]);
		assert_string_equal(settle(&screen_rules, &in).why, "screen: x");
		assert_false(settle(&screen_rules, &in).wants_look);
	}
}

static void a_moment_is_no_state(void **state)
{
	struct activity_input in = shows(AP_ACTIVITY_READY);
	struct activity_memory memory = {.since_ns = 0};
	struct activity result = activity_conclude(&screen_rules, &in, &memory, NOW);
	assert_int_equal(result.activity, AP_ACTIVITY_BUSY);
	assert_true(result.recheck_ns == NOW + 300 * AP_MS);
	result = activity_conclude(&screen_rules, &in, &memory, NOW + 300 * AP_MS);
	assert_int_equal(result.activity, AP_ACTIVITY_READY);
	in.screen.activity = AP_ACTIVITY_BUSY; /* which is believed at once */
	result = activity_conclude(&screen_rules, &in, &memory, NOW + 301 * AP_MS);
	assert_int_equal(result.activity, AP_ACTIVITY_BUSY);
	in.screen.activity = AP_ACTIVITY_READY; /* and begins the time anew */
	result = activity_conclude(&screen_rules, &in, &memory, NOW + 302 * AP_MS);
	assert_int_equal(result.activity, AP_ACTIVITY_BUSY);
}

static void output_since_the_look(void **state)
{
	struct activity_input in = shows(AP_ACTIVITY_READY);
	struct activity_memory memory = {.since_ns = 0};
	in.output_ns = NOW - 10 * AP_MS;
	struct activity result = activity_conclude(&screen_rules, &in, &memory, NOW);
	assert_true(result.wants_look);
	assert_int_equal(result.activity, AP_ACTIVITY_BUSY);
	/* what it showed before is no evidence of now: the time runs from the new look */
	in.screen.at_ns = NOW + 200 * AP_MS;
	result = activity_conclude(&screen_rules, &in, &memory, NOW + 200 * AP_MS);
	assert_int_equal(result.activity, AP_ACTIVITY_BUSY);
	/* one that has settled does not flicker when something is printed */
	in = shows(AP_ACTIVITY_WAITING);
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
	memory = (struct activity_memory){.candidate = AP_ACTIVITY_WAITING,
					  .since_ns = NOW - AP_SECOND};
	in.output_ns = NOW - 10 * AP_MS;
	result = activity_conclude(&screen_rules, &in, &memory, NOW);
	assert_int_equal(result.activity, AP_ACTIVITY_WAITING);
}

static void held_after_a_prompt(void **state)
{
	struct activity_input in = shows(AP_ACTIVITY_READY);
	in.entered_ns = NOW - 300 * AP_MS;
	in.output_ns = in.screen.at_ns = NOW - 250 * AP_MS;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_BUSY);
	struct activity_memory shown = {.candidate = AP_ACTIVITY_READY,
					.since_ns = in.entered_ns + 10 * AP_MS};
	assert_true(activity_conclude(&screen_rules, &in, &shown, NOW).recheck_ns ==
		    in.entered_ns + 500 * AP_MS);
	in = shows(AP_ACTIVITY_WAITING); /* but a question is a question */
	in.entered_ns = NOW - 300 * AP_MS;
	in.output_ns = in.screen.at_ns = NOW - 290 * AP_MS;
	struct activity_memory memory = {.candidate = AP_ACTIVITY_WAITING,
					 .since_ns = NOW - 300 * AP_MS};
	assert_int_equal(activity_conclude(&screen_rules, &in, &memory, NOW).activity,
			 AP_ACTIVITY_WAITING);
	in = shows(AP_ACTIVITY_READY); /* and once it was seen busy, that it is not is believed */
	in.entered_ns = NOW - 400 * AP_MS;
	in.output_ns = in.screen.at_ns = NOW - 390 * AP_MS;
	in.title_busy_ns = NOW - 395 * AP_MS;
	memory = (struct activity_memory){.candidate = AP_ACTIVITY_READY,
					  .since_ns = NOW - 390 * AP_MS};
	assert_int_equal(activity_conclude(&screen_rules, &in, &memory, NOW).activity,
			 AP_ACTIVITY_READY);
}

static void unknown_screen(void **state)
{
	struct activity_input in = shows(AP_ACTIVITY_READY);
	in.screen.found = false;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_BUSY);
	in.output_ns = NOW - 4 * AP_SECOND; /* never typed into: a human is to look */
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
	in.started_ready = false; /* it may be loading */
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_STARTING);
}

static void silent_start(void **state)
{
	struct activity_input in = {
		.ended_how = "", .started_ns = NOW - 5 * AP_SECOND, .screen = {.at_ns = 0}};
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_STARTING);
	in.started_ns = NOW - 20 * AP_SECOND;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
}

/* --- by what the program says --- */

static struct activity_signal says(enum ap_activity activity, int64_t at_ns)
{
	return (struct activity_signal){
		.at_ns = at_ns, .found = true, .activity = activity, .why = "told"};
}

static void hook_alone(void **state)
{
	struct activity_input in = shell();
	in.look.known = false;
	in.hook = says(AP_ACTIVITY_WAITING, NOW - 500 * AP_MS);
	assert_concludes(&any_rules, &in, AP_ACTIVITY_WAITING);
	in.hook.activity = AP_ACTIVITY_BUSY;
	in.output_ns = NOW - 60 * AP_SECOND; /* silent, but it says that it works */
	in.started_ns = NOW - 90 * AP_SECOND;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_BUSY);
	in.hook.activity = AP_ACTIVITY_READY;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_READY);
	in.entered_ns = NOW - 100 * AP_MS; /* that was before this prompt */
	assert_concludes(&any_rules, &in, AP_ACTIVITY_BUSY);
	in = shell(); /* of a program in a shell: until that ends */
	in.look.foreground = 11;
	in.hook = says(AP_ACTIVITY_READY, NOW - 60 * AP_SECOND);
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_READY);
	in.look.foreground = 10;
	in.look.reads = READS_NOTHING;
	assert_concludes(&shell_rules, &in, AP_ACTIVITY_BUSY);
}

static void hook_that_forgot(void **state)
{
	struct activity_input in = shell();
	in.look.known = false;
	in.hook = says(AP_ACTIVITY_BUSY, NOW - 700 * AP_SECOND);
	in.output_ns = in.started_ns = NOW - 700 * AP_SECOND;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_READY);
	in.output_ns = NOW - 500 * AP_SECOND;
	assert_concludes(&any_rules, &in, AP_ACTIVITY_BUSY);
	assert_true(settle(&any_rules, &in).recheck_ns == NOW + 100 * AP_SECOND);
	/* a screen that no rule knows is not ready because a hook said so once */
	in = shows(AP_ACTIVITY_READY);
	in.screen.found = false;
	in.output_ns = NOW - 4 * AP_SECOND;
	in.hook = says(AP_ACTIVITY_READY, NOW - 60 * AP_SECOND);
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
	in.hook.at_ns = NOW - 500 * AP_MS;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
}

static void hook_and_screen(void **state)
{
	struct activity_input in = shows(AP_ACTIVITY_READY);
	in.hook = says(AP_ACTIVITY_BUSY, NOW - 500 * AP_MS);
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_BUSY); /* the screen is late */
	assert_true(settle(&screen_rules, &in).recheck_ns <= NOW + 500 * AP_MS);
	in.hook.at_ns = NOW - 2 * AP_SECOND; /* interrupted: no hook said so */
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_READY);
	in.screen.activity = AP_ACTIVITY_WAITING;
	in.hook = says(AP_ACTIVITY_READY, NOW - 500 * AP_MS);
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
}

static void told_by_a_sequence(void **state)
{
	struct activity_input in = shows(AP_ACTIVITY_READY);
	in.told = says(AP_ACTIVITY_BUSY, NOW - 60 * AP_SECOND);
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_BUSY);
	in.told.activity = AP_ACTIVITY_WAITING;
	assert_concludes(&screen_rules, &in, AP_ACTIVITY_WAITING);
}

static void told_by_events(void **state)
{
	struct activity_input in = {.ended_how = "", .started_ns = NOW - AP_SECOND};
	assert_concludes(&stream_rules, &in, AP_ACTIVITY_READY);
	in.started_ready = true;
	in.entered_ns = NOW - 60 * AP_SECOND;
	assert_concludes(&stream_rules, &in, AP_ACTIVITY_BUSY); /* however silent */
	in.told = says(AP_ACTIVITY_READY, NOW - AP_SECOND);
	assert_concludes(&stream_rules, &in, AP_ACTIVITY_READY);
	in.told.activity = AP_ACTIVITY_WAITING;
	assert_concludes(&stream_rules, &in, AP_ACTIVITY_WAITING);
}

/* --- looks --- */

static void scripts_are_not_interactive(void **state)
{
	static const char *const bash[] = {"bash", NULL}, *const login[] = {"/bin/sh", "-l", NULL},
				 *const script[] = {"bash", "x.sh", NULL},
				 *const command[] = {"bash", "-c", "x", NULL};
	assert_true(activity_is_interactive(bash));
	assert_true(activity_is_interactive(login));
	assert_false(activity_is_interactive(script));
	assert_false(activity_is_interactive(command));
}

static void looks_at_processes(void **state)
{
	struct activity_look look = activity_look(getpid(), false);
	assert_true(look.known);
	assert_int_equal(look.reads, READS_NOTHING); /* it runs */
	assert_false(activity_look(-1, false).known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a shell that waits for input is ready", shell_at_prompt),
		IT("a shell whose job has the terminal is busy", shell_with_job),
		IT("a shell that is at work itself is busy", shell_that_computes),
		IT("a job that reads the terminal waits", job_that_reads),
		IT("a command of the shell that reads the terminal waits", builtin_that_reads),
		IT("a shell at its prompt is busy until the end of its command is told, for a "
		   "while",
		   end_that_is_on_its_way),
		IT("a shell is starting until its first prompt, however silent",
		   substitution_in_a_start_up_file),
		IT("a first prompt without marks is one when the screen asks nothing",
		   first_prompt_without_marks),
		IT("a prompt for the rest of a command waits, a first one that looks alike does "
		   "not",
		   rest_of_a_command_by_its_line),
		IT("a shell that marks commands waits for the rest of one that it has not begun",
		   rest_of_a_command_by_its_marks),
		IT("what was concluded before keys is not believed until something comes of them",
		   keys_that_answer),
		IT("a hook's question is not believed for a while behind keys",
		   keys_that_answer_what_a_hook_told),
		IT("silence is not ready at a start that is to be told", start_that_is_to_be_told),
		IT("a question on the screen waits until something is printed",
		   question_on_the_screen),
		IT("a prompt is not done before it shows", not_yet_seen),
		IT("any other program is ready when it has been silent", silence_decides),
		IT("a program that waits for its terminal alone is ready", reader_is_ready),
		IT("it is not ready where its screen asks", reader_is_looked_at_first),
		IT("a program that waits for its terminal when it is ready is at work until it "
		   "does",
		   reader_at_work),
		IT("a program that shows nothing is ready when it reads",
		   reader_that_shows_nothing),
		IT("a line editor is ready when the cursor stands behind its prompt",
		   line_editor_is_ready),
		IT("a program that marks its prompts is ready at one, and busy in a command",
		   prompt_that_is_marked),
		IT("busy before it was ever ready is starting", starting_until_ready),
		IT("a shell whose process is not known yet is looked at again soon", not_there_yet),
		IT("a program that has ended is exited, and why says how", end_is_told),
		IT("a program with a profile is what its screen shows", screen_decides),
		IT("ready and waiting are believed when they last, busy at once",
		   a_moment_is_no_state),
		IT("what was printed since the last look has the say", output_since_the_look),
		IT("a prompt keeps it busy until it shows so, for a while, unless it asks",
		   held_after_a_prompt),
		IT("a screen that no rule knows is shown to a human", unknown_screen),
		IT("a program that starts in silence is starting, not waiting", silent_start),
		IT("a hook is believed where there is nothing else", hook_alone),
		IT("a hook is believed against the screen for a second", hook_and_screen),
		IT("a hook that speaks no more is not believed for ever", hook_that_forgot),
		IT("an escape sequence is believed until the next", told_by_a_sequence),
		IT("a stream is busy from the prompt to the event that says ready", told_by_events),
		IT("a shell that runs a script is not interactive", scripts_are_not_interactive),
		IT("a look at a running process says that it runs", looks_at_processes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
