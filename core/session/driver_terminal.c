/* The driver of programs in a terminal: types prompts, and reads their effect from the screen. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "driver.h"
#include "file.h"

/* Longest line that a terminal in canonical mode does not cut: N_TTY_BUF_SIZE less the newline. */
#define CANONICAL_LINE 4095
/* Keys of one write: a line of keys has 4096 bytes at most, with a blank between two keys. */
#define KEYS_MAX 2048

static bool has_long_line(const char *text, size_t len)
{
	while (len > 0) {
		const char *newline = memchr(text, '\n', len);
		size_t line = newline ? (size_t)(newline - text) : len;
		if (line > CANONICAL_LINE)
			return true;
		if (!newline)
			break;
		len -= line + 1;
		text = newline + 1;
	}
	return false;
}

int send_keys(struct session *session, const char *keys_text, struct ap_err *err)
{
	const char *keys[KEYS_MAX + 1];
	AP_CLEANUP_FREE char *text = strdup(keys_text);
	char *cursor = text;
	size_t n = 0;
	if (!text)
		return ap_err_errno(err, -ENOMEM, "keys");
	while (n < KEYS_MAX && (keys[n] = ap_word_next(&cursor)))
		n++;
	keys[n] = NULL;
	return n > 0 ? session->host->backend->ops->keys(session->host->backend, &session->terminal,
							 keys, err)
		     : 0;
}

/* --- a prompt ---
 *
 * The driver pastes a prompt, and submits it once the screen shows the text. It repeats Enter only
 * while the text is still in the input field of a program that is ready: an Enter too many would
 * answer the next question, text typed twice would be two prompts. Keys by hand go before the text
 * or after Enter, unless that takes too long. */

#define POLL_PAUSE_MS  60
#define SETTLE_LIMIT   (4 * AP_SECOND)	/* for the text to show */
#define BLIND_LIMIT    AP_SECOND	/* likewise, if the profile knows no input field */
#define EVIDENCE_LIMIT (1200 * AP_MS)	/* for Enter to have an effect */
#define SHELL_LIMIT    (10 * AP_SECOND) /* likewise, of a shell: it prints a newline, maybe late */
#define BYTE_LIMIT     (AP_MS / 100)	/* in addition, per byte that it reads before Enter */
#define ECHO_LIMIT     (300 * AP_MS)	/* for a shell to show what was typed */
#define ECHO_PAUSE_MS  10
#define ENTER_TRIES    3
#define QUIT_LIMIT_MS  2000 /* for a program to end by its quit command */

/* A delivery under way, and the last capture of the screen. */
struct delivery {
	struct session *session;
	bool composes; /* the profile knows the input field */
	bool typing;   /* the delivery holds session->typing */
	size_t len;    /* of the text that goes before Enter */
	struct ap_buf screen, before;
	struct activity_signal seen;
	enum profile_composer composer;
};

static void end_typing(struct delivery *delivery)
{
	if (delivery->typing)
		pthread_mutex_unlock(&delivery->session->typing);
	delivery->typing = false;
}

static void delivery_fini(struct delivery *delivery)
{
	end_typing(delivery);
	ap_buf_fini(&delivery->screen);
	ap_buf_fini(&delivery->before);
}

static void observe(struct delivery *delivery)
{
	look_at_screen(delivery->session, &delivery->screen, &delivery->seen);
	delivery->composer =
		profile_composer(delivery->session->host->profile, ap_buf_text(&delivery->screen));
}

/* Keeps the last capture, for has_changed(). */
static void remember(struct delivery *delivery)
{
	delivery->before.len = 0;
	ap_buf_adds(&delivery->before, ap_buf_text(&delivery->screen));
}

static bool has_changed(const struct delivery *delivery)
{
	return strcmp(ap_buf_text(&delivery->screen), ap_buf_text(&delivery->before)) != 0;
}

static bool seen_as(const struct delivery *delivery, enum ap_activity activity)
{
	return delivery->seen.found && delivery->seen.activity == activity;
}

/* Whether the program is ready for a prompt. -EAGAIN: not any more, the prompt waits again; -EIO:
 * the input field keeps other text; -ECANCELED. */
static int may_type(struct delivery *delivery, struct ap_err *err)
{
	struct session *session = delivery->session;
	int64_t deadline = ap_clock_ns() + SETTLE_LIMIT / 2;
	if (!profile_values(session->host->profile)->rules.tells_ready) {
		observe(delivery);
		return 0;
	}
	for (;;) {
		observe(delivery);
		if (delivery_is_void(session))
			return delivery_void(session, err);
		if (!seen_as(delivery, AP_ACTIVITY_READY)) {
			pthread_mutex_lock(&session->lock);
			session->screen = delivery->seen; /* else the next review concludes ready */
			pthread_mutex_unlock(&session->lock);
			return -EAGAIN;
		}
		if (delivery->composer != COMPOSER_FILLED)
			return 0;
		if (ap_clock_ns() > deadline)
			return ap_err_set(
				err, -EIO,
				"there is text in the input field of %s already: submit or "
				"remove it, by keys or attach",
				session->name);
		poll(NULL, 0, POLL_PAUSE_MS);
	}
}

/* Locks session->typing: until Enter no keys by hand come between. -EAGAIN: somebody has just typed
 * text into the input field; the prompt waits again. */
static int begin_typing(struct delivery *delivery)
{
	pthread_mutex_lock(&delivery->session->typing);
	delivery->typing = true;
	if (!delivery->composes)
		return 0;
	observe(delivery);
	return delivery->composer == COMPOSER_FILLED ? -EAGAIN : 0;
}

/* Waits until two captures in a row show the text alike, or until BLIND_LIMIT if the profile knows
 * no input field. False: the text does not show. */
static bool await_typed(struct delivery *delivery)
{
	AP_CLEANUP_BUF struct ap_buf last = {0};
	int64_t start = ap_clock_ns();
	remember(delivery);
	for (;;) {
		poll(NULL, 0, POLL_PAUSE_MS);
		last.len = 0;
		ap_buf_adds(&last, ap_buf_text(&delivery->screen));
		observe(delivery);
		bool shown = has_changed(delivery) && delivery->composer != COMPOSER_EMPTY;
		bool still = strcmp(ap_buf_text(&last), ap_buf_text(&delivery->screen)) == 0;
		int64_t waited = ap_clock_ns() - start;
		if ((shown && still) ||
		    delivery_is_void(delivery->session)) /* submit() checks it again */
			return true;
		if (waited > (shown || delivery->composes ? SETTLE_LIMIT : BLIND_LIMIT))
			return shown || !delivery->composes;
	}
}

static int64_t printed(struct session *session)
{
	session_read_on(session);
	return atomic_load(&session->raw.size);
}

/* Waits for an effect of Enter: the input field is empty, or the program is busy or asks; if the
 * profile knows no input field, any output. */
static bool await_submitted(struct delivery *delivery, int64_t printed_before)
{
	struct session *session = delivery->session;
	bool shell = profile_values(session->host->profile)->rules.shell;
	int64_t deadline = ap_clock_ns() + (shell ? SHELL_LIMIT : EVIDENCE_LIMIT);
	if (!delivery->composes)
		deadline += (int64_t)delivery->len * BYTE_LIMIT;
	for (int pause_ms = 2; ap_clock_ns() < deadline && !delivery_is_void(session);) {
		poll(NULL, 0, pause_ms);
		if (!delivery->composes && printed(session) > printed_before)
			return true;
		if (pause_ms < POLL_PAUSE_MS) {
			pause_ms *= 2;
			continue;
		}
		if (!delivery->composes)
			continue;
		observe(delivery);
		if (delivery->composer == COMPOSER_EMPTY || seen_as(delivery, AP_ACTIVITY_BUSY) ||
		    seen_as(delivery, AP_ACTIVITY_WAITING))
			return true;
	}
	return false;
}

/* Types the profile's keys that remove typed text. Only if the screen shows that the program is
 * ready, or in a shell: the same keys would interrupt a busy program, and answer a question. */
static bool take_back(struct delivery *delivery)
{
	struct session *session = delivery->session;
	const struct profile_values *values = profile_values(session->host->profile);
	bool safe = values->rules.shell || seen_as(delivery, AP_ACTIVITY_READY);
	return *values->abandon && safe && send_keys(session, values->abandon, NULL) == 0;
}

static int submit(struct delivery *delivery, enum session_outcome *ret, struct ap_err *err)
{
	struct session *session = delivery->session;
	const struct profile_values *values = profile_values(session->host->profile);
	if (values->pause_ns > 0)
		poll(NULL, 0, (int)(values->pause_ns / AP_MS));
	output_prompted(session);
	for (unsigned tries = 0; tries < ENTER_TRIES; tries++) {
		int64_t before = atomic_load(&session->raw.size);
		if (delivery_is_void(session)) {
			if (tries == 0)
				(void)take_back(delivery);
			return delivery_void(session, err);
		}
		if (delivery->composes && seen_as(delivery, AP_ACTIVITY_WAITING))
			break; /* Enter would answer its question */
		if (tries == 0)
			(void)output_entered(session);
		int r = send_keys(session, values->submit, err);
		if (!delivery->composes) /* with a composer, Enter may be repeated */
			end_typing(delivery);
		if (r < 0)
			return r;
		if (await_submitted(delivery, before)) {
			*ret = SESSION_SUBMITTED;
			return 0;
		}
		if (!delivery->composes) {
			*ret = SESSION_NO_EVIDENCE;
			return 0;
		}
		if (delivery->composer != COMPOSER_FILLED || !seen_as(delivery, AP_ACTIVITY_READY))
			break;
	}
	*ret = SESSION_NOT_SUBMITTED;
	bool back = take_back(delivery);
	return ap_err_set(err, -EIO, "the prompt was typed, but Enter did not submit it%s",
			  back ? "; it was taken back" : "");
}

static int paste(struct session *session, const struct ap_buf *text, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf file = {0};
	ap_buf_printf(&file, "%s/prompt", session->dir);
	int r = file_write(ap_buf_text(&file), text->data, text->len, err);
	if (r == 0)
		r = session->host->backend->ops->paste(session->host->backend, &session->terminal,
						       ap_buf_text(&file), err);
	unlink(ap_buf_text(&file));
	return r;
}

/* Waits until the terminal of a shell has echoed the pasted text, which is no part of the answer.
 * Not needed for a shell that marks its commands (OSC 133). */
static void await_echo(struct session *session, int64_t printed_before)
{
	struct output_signs signs;
	int64_t deadline = ap_clock_ns() + ECHO_LIMIT, last = printed_before;
	output_look(session, &signs);
	while (!signs.ends_commands && ap_clock_ns() < deadline) {
		poll(NULL, 0, ECHO_PAUSE_MS);
		int64_t now = printed(session);
		if (now > printed_before && now == last)
			return;
		last = now;
	}
}

static int terminal_deliver(struct session *session, const struct ap_buf *text,
			    enum session_outcome *ret, struct ap_err *err)
{
	bool shell = profile_values(session->host->profile)->rules.shell;
	struct delivery delivery __attribute__((cleanup(delivery_fini))) = {
		.session = session,
		.composes = profile_has_composer(session->host->profile),
		.len = text->len,
	};
	*ret = SESSION_NO_EVIDENCE;
	if (has_long_line(ap_buf_text(text), text->len) &&
	    session->host->backend->ops->canonical(session->host->backend, &session->terminal))
		return ap_err_set(err, -EMSGSIZE,
				  "a line over %d bytes would be cut by the terminal of %s",
				  CANONICAL_LINE, session->name);
	int r = shell ? 0 : may_type(&delivery, err);
	if (r == 0 && text->len > 0) {
		int64_t before = shell ? printed(session) : 0;
		r = begin_typing(&delivery);
		if (r == 0)
			r = paste(session, text, err);
		if (r == 0 && shell)
			await_echo(session, before);
		if (r == 0 && !shell && !await_typed(&delivery)) {
			(void)take_back(&delivery);
			r = ap_err_set(err, -EIO,
				       "the prompt did not show in the input field of %s; it was "
				       "not submitted",
				       session->name);
		}
	}
	return r < 0 ? r : submit(&delivery, ret, err);
}

static int type_command(struct session *session, const char *text, struct ap_err *err)
{
	struct delivery delivery __attribute__((cleanup(delivery_fini))) = {
		.session = session, .composes = profile_has_composer(session->host->profile)};
	enum session_outcome outcome;
	int r = may_type(&delivery, err);
	if (r == 0)
		r = begin_typing(&delivery);
	/* types the command, as one word: a bracketed paste would make it text */
	if (r == 0)
		r = session->host->backend->ops->keys(session->host->backend, &session->terminal,
						      (const char *const[]){text, NULL}, err);
	if (r == 0 && !await_typed(&delivery))
		r = ap_err_set(err, -EIO, "'%s' does not show in the input field", text);
	return r < 0 ? r : submit(&delivery, &outcome, err);
}

static bool await_ready(struct session *session, int64_t limit_ns)
{
	struct delivery delivery __attribute__((cleanup(delivery_fini))) = {.session = session};
	for (int64_t deadline = ap_clock_ns() + limit_ns; ap_clock_ns() < deadline;) {
		observe(&delivery);
		if (seen_as(&delivery, AP_ACTIVITY_READY) || delivery_is_void(session))
			return !delivery_is_void(session);
		poll(NULL, 0, POLL_PAUSE_MS);
	}
	return false;
}

/* --- the program's own commands --- */

static bool terminal_forget(struct session *session, const char *text, int64_t limit_ns)
{
	return type_command(session, text, NULL) == 0 && await_ready(session, limit_ns);
}

bool session_clear(struct session *session, int64_t limit_ns)
{
	limit_commanded(session, true);
	bool forgets = session->driver->forget(
		session, profile_values(session->host->profile)->clear, limit_ns);
	limit_commanded(session, false);
	return forgets;
}

void session_quit(struct session *session)
{
	const char *quit = profile_values(session->host->profile)->quit;
	pthread_mutex_lock(&session->lock);
	session->ending = true;
	AP_CLEANUP_CLOSE int over_fd = over_fd_locked(session);
	pthread_mutex_unlock(&session->lock);
	struct pollfd over = {.fd = over_fd, .events = POLLIN};
	if (over_fd >= 0 && type_command(session, quit, NULL) == 0)
		(void)poll(&over, 1, QUIT_LIMIT_MS); /* if in vain, session_end() follows */
}

const struct session_driver driver_terminal = {
	.needs_terminal = true,
	.deliver = terminal_deliver,
	.command = type_command,
	.forget = terminal_forget,
	.question = terminal_question,
	.answer = terminal_answer,
	.rule = terminal_rule,
};
