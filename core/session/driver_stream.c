/* The driver of programs that speak JSON lines: a prompt is a line on the program's standard input,
 * an event is a line of its output. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "driver.h"

/* Longest event; the driver drops longer ones. */
#define EVENT_MAX (16 << 20)

/* --- the program's standard input --- */

int input_open(const struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/input", session->dir);
	int fd = open(ap_buf_text(&path), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENXIO)
		return -EAGAIN;
	return fd >= 0 ? fd : -errno;
}

int input_write(int fd, const char *text, size_t len, int64_t deadline, size_t *done)
{
	while (*done < len) {
		ssize_t n = write(fd, text + *done, len - *done);
		struct pollfd room = {.fd = fd, .events = POLLOUT};
		int64_t left = deadline - ap_clock_ns();
		if (n > 0)
			*done += (size_t)n;
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		else if (left <= 0 || poll(&room, 1, (int)(left / AP_MS) + 1) == 0)
			return -ETIMEDOUT;
	}
	return 0;
}

int write_input(struct session *session, const char *text, size_t len, struct ap_err *err)
{
	int64_t deadline = ap_clock_ns() + INPUT_LIMIT;
	size_t ended = 0, done = 0;
	AP_CLEANUP_CLOSE int fd = input_open(session);
	if (fd == -EAGAIN)
		return fd; /* the program has not opened its input yet */
	int r = fd < 0 ? fd : 0;
	if (r == 0 && session->input_cut) /* ends the cut line */
		r = input_write(fd, "\n", 1, deadline, &ended);
	if (r == 0)
		r = input_write(fd, text, len, deadline, &done);
	session->input_cut = session->input_cut && !ended;
	if (r < 0 && done > 0)
		session->input_cut = true;
	return r < 0 ? ap_err_errno(err, r, "the input of %s", session->name) : 0;
}

/* --- a prompt --- */

static int stream_deliver(struct session *session, const struct ap_buf *text,
			  enum session_outcome *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	*ret = SESSION_NO_EVIDENCE;
	int r = profile_input(session->host->profile, ap_buf_text(text), text->len, &line);
	if (r < 0)
		return ap_err_errno(err, r, "the prompt");
	output_prompted(session);
	int64_t entered_before = output_entered(session);
	r = write_input(session, line.data, line.len, err);
	if (r < 0)
		output_not_entered(session, entered_before);
	*ret = r < 0 ? SESSION_NOT_SUBMITTED : SESSION_SUBMITTED;
	return r;
}

/* --- events --- */

/* Takes note of the end of a turn, with the answer or, where the event has none, with itself. */
static void turn_ended(struct session *session, const char *event)
{
	const struct ap_buf *answer = &session->response;
	size_t over = answer->len > PROFILE_LIMIT_TEXT ? answer->len - PROFILE_LIMIT_TEXT : 0;
	const char *text = answer->len > 0 ? ap_buf_text(answer) + over : event;
	struct profile_limit *limit = &session->signs.limit;
	session->signs.n_turns++;
	if (strlen(text) > PROFILE_LIMIT_TEXT)
		text += strlen(text) - PROFILE_LIMIT_TEXT;
	if (profile_limited(session->host->profile, true, text, limit_now_s(), limit))
		limit->hash = ap_hash(event); /* the same limit of another turn is another one */
}

static void on_event(struct session *session, const char *line)
{
	struct activity_signal told;
	if (!profile_judge(session->host->profile, PROFILE_EVENT, line, NULL, &told))
		return;
	told.at_ns = ap_clock_ns();
	if (told.activity == AP_ACTIVITY_READY)
		count_by_event_locked(session, line);
	session->signs.told = told;
	if (told.activity == AP_ACTIVITY_READY) {
		session->response.len = 0;
		profile_response(session->host->profile, line, &session->response);
		turn_ended(session, line);
	}
}

/* Splits the plain text into events, which are whole lines; drops one over EVENT_MAX. */
static void stream_printed(struct session *session, const char *bytes, size_t n, int64_t offset,
			   struct ap_buf *ret)
{
	struct ap_buf *line = &session->line;
	size_t before = ret->len;
	(void)offset;
	ap_plain_add(&session->filter, bytes, n, ret);
	for (const char *at = ap_buf_text(ret) + before, *end = ap_buf_text(ret) + ret->len;
	     at < end;) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((newline ? newline : end) - at);
		if (line->len <= EVENT_MAX)
			ap_buf_add(line, at, len);
		at += len + (newline != NULL);
		if (!newline)
			continue;
		if (line->len <= EVENT_MAX && !line->failed)
			on_event(session, ap_buf_text(line));
		ap_buf_fini(line);
	}
}

static void stream_response(const struct session *session, struct ap_buf *ret)
{
	ap_buf_add(ret, ap_buf_text(&session->response), session->response.len);
}

const struct session_driver driver_stream = {
	.deliver = stream_deliver,
	.printed = stream_printed,
	.response = stream_response,
};
