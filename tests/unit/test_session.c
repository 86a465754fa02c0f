/* One session on the fake host: what is delivered, dropped, told, and not any more. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "remove.h"
#include "session.h"

#define WAIT_MS 60000 /* for what must come */

static struct ap_err err;
static char dir[] = "/tmp/agentpool-session-XXXXXX";
static const char *const argv[] = {"fake", NULL};
static struct session_host host;
static struct profile *profile;

/* What the owner was told. */
static struct told {
	pthread_mutex_t lock;
	unsigned n_freed, n_ended, n_turns, n_taken, n_done, n_dropped;
	unsigned ended_start;
	bool killed;
	enum session_outcome outcome;
	uint64_t taken_seq, done_seq, dropped_seq;
	char why[AP_ERR_MAX];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define TELL(...)                                                                                  \
	do {                                                                                       \
		pthread_mutex_lock(&told.lock);                                                    \
		__VA_ARGS__;                                                                       \
		pthread_mutex_unlock(&told.lock);                                                  \
	} while (0)

static void on_freed(void *owner)
{
	(void)owner;
	TELL(told.n_freed++);
}

static void on_changed(void *owner)
{
	(void)owner;
}

static void on_ended(void *owner, unsigned start, const char *how, bool killed)
{
	(void)owner, (void)how;
	TELL(told.n_ended++, told.ended_start = start, told.killed = killed);
}

static void on_activity(void *owner, enum ap_activity from, enum ap_activity to, const char *why)
{
	(void)owner;
	assert_int_not_equal(from, to);
	assert_true(*why);
	TELL(told.n_turns += from == AP_ACTIVITY_BUSY);
}

static int on_taken(void *owner, uint64_t seq, bool is_command, struct ap_err *why)
{
	(void)owner;
	TELL(told.n_taken++, told.taken_seq = seq);
	return 0;
}

static void on_used(void *owner, const struct ap_usage_report *report)
{
	(void)owner, (void)report;
}

static void on_done(void *owner, uint64_t seq, enum session_outcome outcome, size_t len,
		    const struct ap_err *why)
{
	(void)owner, (void)len;
	TELL(told.n_done++, told.done_seq = seq, told.outcome = outcome;
	     snprintf(told.why, sizeof told.why, "%s", why->text));
}

static void on_dropped(void *owner, uint64_t seq)
{
	(void)owner;
	TELL(told.n_dropped++, told.dropped_seq = seq);
}

static void on_note(void *owner, enum session_note what, const char *text)
{
	(void)owner, (void)what, (void)text;
}

static void on_conversation(void *owner, const char *conversation)
{
	(void)owner, (void)conversation;
}

static const struct session_callbacks callbacks = {
	.freed = on_freed,
	.changed = on_changed,
	.ended = on_ended,
	.activity = on_activity,
	.prompt_taken = on_taken,
	.used = on_used,
	.prompt_done = on_done,
	.prompts_dropped = on_dropped,
	.note = on_note,
	.conversation = on_conversation,
	.resume_failed = on_conversation,
};

/* Waits until a number that was told is so many. */
static void await_told(const unsigned *n, unsigned wanted)
{
	for (int i = 0; i < WAIT_MS; i++) {
		unsigned now;
		TELL(now = *n);
		if (now >= wanted)
			return;
		poll(NULL, 0, 1);
	}
	fail_msg("it was not told");
}

struct settled {
	struct session_wait wait;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int result;
	enum ap_activity activity;
};

static void on_settled(struct session_wait *wait, int result, enum ap_activity activity,
		       const struct ap_err *why)
{
	struct settled *settled = ap_container_of(wait, struct settled, wait);
	(void)why;
	pthread_mutex_lock(&settled->lock);
	settled->done = true;
	settled->result = result;
	settled->activity = activity;
	pthread_cond_signal(&settled->cond);
	pthread_mutex_unlock(&settled->lock);
}

static void wait_begin(struct session *session, struct settled *settled)
{
	*settled = (struct settled){.wait.done = on_settled,
				    .lock = PTHREAD_MUTEX_INITIALIZER,
				    .cond = PTHREAD_COND_INITIALIZER};
	assert_int_equal(session_wait(session, &settled->wait, false, &err), 0);
}

static int wait_end(struct settled *settled)
{
	pthread_mutex_lock(&settled->lock);
	while (!settled->done)
		pthread_cond_wait(&settled->cond, &settled->lock);
	int r = settled->result < 0 ? settled->result : (int)settled->activity;
	pthread_mutex_unlock(&settled->lock);
	return r;
}

static void expect_settled(struct session *session, enum ap_activity activity)
{
	struct settled settled;
	wait_begin(session, &settled);
	assert_int_equal(wait_end(&settled), (int)activity);
}

static void prompt(struct session *session, uint64_t seq, const char *text)
{
	assert_int_equal(session_prompt_check(session, strlen(text), &err), 0);
	session_prompt(session, seq, session_prompt_new(text, strlen(text), false));
}

static struct session *new_session(const char *name)
{
	char place[sizeof dir + 40];
	snprintf(place, sizeof place, "%s/%s", dir, name);
	assert_int_equal(mkdir(place, 0700), 0);
	struct session *session =
		session_new(&host, &(struct session_place){.name = name, .dir = place, .cwd = dir},
			    &callbacks, NULL);
	assert_non_null(session);
	return session;
}

static struct session *started(const char *name)
{
	struct session *session = new_session(name);
	assert_int_equal(session_begin_output(session, &err), 0);
	assert_int_equal(session_start(session, true, &err), 0);
	expect_settled(session, AP_ACTIVITY_READY);
	return session;
}

/* The owner lets go of it: it is freed once nothing of it runs any more. */
static void ended(struct session *session)
{
	unsigned n;
	TELL(n = told.n_freed);
	assert_int_equal(session_end(session, &err), 0);
	session_close(session);
	session_unref(session);
	await_told(&told.n_freed, n + 1);
}

static int setup(void **state)
{
	(void)state;
	pthread_mutex_lock(&told.lock);
	memset((char *)&told + sizeof told.lock, 0, sizeof told - sizeof told.lock);
	pthread_mutex_unlock(&told.lock);
	return 0;
}

static void prompts_are_submitted_in_order(void **state)
{
	struct session *session = started("order");
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	(void)state;
	for (uint64_t seq = 1; seq <= 3; seq++)
		prompt(session, seq, seq == 1 ? "one" : seq == 2 ? "two" : "three");
	expect_settled(session, AP_ACTIVITY_READY);
	assert_int_equal(told.n_taken, 3);
	assert_int_equal(told.n_done, 3);
	assert_int_equal(told.done_seq, 3);
	assert_int_equal(told.outcome, SESSION_SUBMITTED);
	await_told(&told.n_turns, 1);
	assert_int_equal(session_screen(session, 0, &screen, &err), 0);
	assert_string_equal(ap_buf_text(&screen), "one\ntwo\nthree\n");
	ended(session);
}

static void what_breaks_off_gives_up_a_prompt(void **state)
{
	struct session *session = started("off");
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	(void)state;
	session_break_off(session, true);
	prompt(session, 1, "never");
	await_told(&told.n_done, 1);
	assert_int_equal(told.outcome, SESSION_NO_EVIDENCE);
	assert_non_null(strstr(told.why, "has ended"));
	session_break_off(session, false);
	prompt(session, 2, "given");
	await_told(&told.n_done, 2);
	assert_int_equal(told.outcome, SESSION_SUBMITTED);
	assert_int_equal(session_screen(session, 0, &screen, &err), 0);
	assert_string_equal(ap_buf_text(&screen), "given\n");
	ended(session);
}

static void keys_of_another_token_are_not_typed(void **state)
{
	struct session *session = started("keys");
	struct session_info before, after;
	(void)state;
	session_fence(session, 8);
	session_info(session, &before);
	assert_int_equal(session_keys(session, 7, "Enter", &err), 0); /* it is told when typed */
	expect_settled(session, AP_ACTIVITY_READY);
	session_info(session, &after);
	assert_int_equal(after.raw_size, before.raw_size);
	assert_int_equal(session_keys(session, 8, "Enter", &err), 0);
	expect_settled(session, AP_ACTIVITY_READY);
	session_read_on(session);
	session_info(session, &after);
	assert_int_equal(after.raw_size, before.raw_size + 1);
	ended(session);
}

static void a_paused_session_takes_no_prompt_until_it_goes_on(void **state)
{
	struct session *session = started("pause");
	struct session_info info;
	struct settled settled;
	(void)state;
	session_pause(session, true);
	prompt(session, 1, "later");
	wait_begin(session, &settled);
	for (int i = 0; i < 20; i++) { /* it is concluded anew, and not given */
		poll(NULL, 0, 5);
		session_info(session, &info);
		assert_int_equal(info.activity, AP_ACTIVITY_BUSY);
	}
	assert_int_equal(told.n_taken, 0);
	session_pause(session, false);
	assert_int_equal(wait_end(&settled), AP_ACTIVITY_READY);
	assert_int_equal(told.n_done, 1);
	ended(session);
}

static void a_program_that_ends_drops_what_waits(void **state)
{
	struct session *session = started("ends");
	struct session_info info;
	(void)state;
	session_pause(session, true); /* nothing is given */
	prompt(session, 4, "one");
	prompt(session, 5, "two");
	session_info(session, &info);
	assert_int_equal(session_end(session, &err), 0);
	expect_settled(session, AP_ACTIVITY_EXITED);
	await_told(&told.n_dropped, 1);
	assert_int_equal(told.dropped_seq, 5);
	assert_int_equal(told.n_ended, 0); /* not by itself */
	assert_true(session_has_ended(session, info.start));
	assert_int_equal(session_prompt_check(session, 1, &err), -EIO);
	ended(session);
}

static void a_program_started_again_takes_what_was_queued_meanwhile(void **state)
{
	struct session *session = started("again");
	struct session_info before, after;
	(void)state;
	session_info(session, &before);
	session_restarts(session);
	prompt(session, 1, "to the new one");
	assert_int_equal(session_end(session, &err), 0);
	assert_int_equal(session_start(session, false, &err), 0);
	expect_settled(session, AP_ACTIVITY_READY);
	session_info(session, &after);
	assert_int_equal(after.start, before.start + 1);
	assert_int_equal(told.n_dropped, 0);
	assert_int_equal(told.done_seq, 1);
	assert_int_equal(told.outcome, SESSION_SUBMITTED);
	assert_int_equal(told.n_ended, 0);
	ended(session);
}

static void a_program_that_ends_by_itself_is_told(void **state)
{
	static const char *const dies[] = {"fake", "exit=100", NULL};
	(void)state;
	host.argv = dies;
	struct session *session = started("itself");
	host.argv = argv;
	prompt(session, 1, "the last one");
	await_told(&told.n_ended, 1);
	assert_int_equal(told.ended_start, 1);
	assert_true(told.killed); /* without a record of its end */
	expect_settled(session, AP_ACTIVITY_EXITED);
	ended(session);
}

static void closing_answers_who_waits(void **state)
{
	struct session *session = new_session("close");
	struct settled settled;
	(void)state;
	assert_int_equal(session_wait(session, &settled.wait, true, &err), -EAGAIN);
	wait_begin(session, &settled);
	session_close(session);
	assert_int_equal(wait_end(&settled), -ENODEV);
	assert_int_equal(session_running(session, true, &err), -ENODEV);
	session_unref(session);
	await_told(&told.n_freed, 1);
}

static void who_waits_no_more_is_not_answered(void **state)
{
	struct session *session = new_session("unwait");
	struct settled settled;
	(void)state;
	wait_begin(session, &settled);
	assert_true(session_unwait(session, &settled.wait));
	assert_false(session_unwait(session, &settled.wait));
	session_close(session);
	assert_false(settled.done);
	session_unref(session);
}

static void a_program_that_is_taken_up_goes_on(void **state)
{
	struct session *session = started("taken");
	struct session_record record;
	struct session_info before, after;
	char place[sizeof dir + 40];
	(void)state;
	prompt(session, 1, "before");
	expect_settled(session, AP_ACTIVITY_READY);
	session_record(session, &record);
	record.prompted = true;
	snprintf(place, sizeof place, "%s/taken", dir);
	session_info(session, &before);
	session_close(session); /* the program is left as a daemon leaves it */
	session_unref(session);
	struct session *next = session_new(
		&host, &(struct session_place){.name = "taken", .dir = place, .cwd = dir},
		&callbacks, NULL);
	assert_non_null(next);
	session_adopt(next, &record);
	assert_int_equal(session_take_up(next, true, &err), 0);
	expect_settled(next, AP_ACTIVITY_READY);
	session_info(next, &after);
	assert_int_equal(after.raw_size, before.raw_size);
	assert_int_equal(after.output_size, before.output_size);
	assert_true(before.raw_size > 0);
	prompt(next, 2, "after");
	expect_settled(next, AP_ACTIVITY_READY);
	assert_int_equal(told.done_seq, 2);
	ended(next);
}

static void too_many_prompts_are_refused(void **state)
{
	struct session *session = started("many");
	(void)state;
	session_pause(session, true);
	for (uint64_t seq = 1; seq <= SESSION_PROMPTS_MAX; seq++)
		prompt(session, seq, "x");
	assert_int_equal(session_prompt_check(session, 1, &err), -EAGAIN);
	assert_int_equal(session_prompt_begin(session, 1, &err), -EAGAIN);
	session_drop_prompts(session, true);
	assert_int_equal(told.dropped_seq, SESSION_PROMPTS_MAX);
	assert_int_equal(session_prompt_check(session, 1, &err), 0);
	assert_int_equal(session_prompt_check(session, 5000, &err), -EMSGSIZE);
	ended(session);
}

static int open_host(void **state)
{
	char path[sizeof dir + 20];
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/quick.conf", dir);
	FILE *file = fopen(path, "w");
	fputs("silence = 30ms\n", file);
	fclose(file);
	const char *const none[] = {NULL};
	if (profile_load(&profile, path, none, &err) < 0 || loop_new(&host.loop, &err) < 0 ||
	    loop_start(host.loop, &err) < 0 || backend_new(&host.backend, true, dir, "", &err) < 0)
		return -1;
	host.workers = worker_pool_new(4);
	host.profile = profile;
	host.driver = session_driver(host.profile);
	host.argv = argv;
	host.repo = host.worktrees = host.mountpoint = dir;
	atomic_store(&host.max_prompt, 4096);
	atomic_store(&host.output_limit, 1 << 20);
	pthread_mutex_init(&host.seeding, NULL);
	return host.workers ? 0 : -1;
}

static int close_host(void **state)
{
	(void)state;
	worker_pool_end(host.workers);
	loop_stop(host.loop);
	worker_pool_free(host.workers);
	host.backend->ops->free(host.backend, false);
	loop_free(host.loop);
	profile_free(profile);
	remove_tree(dir, NULL, NULL);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("prompts are submitted in order, and who waits is told",
		   prompts_are_submitted_in_order),
		IT("a prompt is given up when the lane is wanted",
		   what_breaks_off_gives_up_a_prompt),
		IT("keys on behalf of another token are not typed",
		   keys_of_another_token_are_not_typed),
		IT("a paused session takes no prompt until it goes on",
		   a_paused_session_takes_no_prompt_until_it_goes_on),
		IT("a program that is ended drops what waits, and tells up to which",
		   a_program_that_ends_drops_what_waits),
		IT("a program that is started again takes what was queued meanwhile",
		   a_program_started_again_takes_what_was_queued_meanwhile),
		IT("a program that ends by itself is told, with its start",
		   a_program_that_ends_by_itself_is_told),
		IT("closing answers who waits", closing_answers_who_waits),
		IT("who waits no more is not answered", who_waits_no_more_is_not_answered),
		IT("a program that is taken up goes on, with what it printed",
		   a_program_that_is_taken_up_goes_on),
		IT("too many prompts are refused, and one that is too long",
		   too_many_prompts_are_refused),
	};
	struct CMUnitTest each[sizeof tests / sizeof *tests];
	memcpy(each, tests, sizeof tests);
	for (size_t i = 0; i < sizeof each / sizeof *each; i++)
		each[i].setup_func = setup;
	return cmocka_run_group_tests_name("session", each, open_host, close_host);
}
