/* The driver of programs that speak the Agent Client Protocol (acp.h): carries lines between the
 * program and the protocol, and keeps what the next daemon needs to go on with both.
 *
 * In the session's directory: `acp`, the record of the connection, written before any message that
 * follows from it goes out; `answers`, a line for each request of the program's that was answered,
 * written after the answer: one that a kill -9 came between is answered twice, never not at all;
 * `calls`, the tool calls that have ended. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acp.h"
#include "cleanup.h"
#include "clock.h"
#include "driver.h"
#include "file.h"

#define RECORD_MAX     (16 << 10)  /* bytes of the record */
#define ANSWERS_MAX    (16 << 20)  /* of the answers that are read again */
#define CALLS_TAIL     (256 << 10) /* of the calls that are looked at for the last one */
#define ERROR_LINE_MAX (8 << 10)
#define OPEN_PAUSE_MS  20
#define ANSWER_LIMIT   (5 * AP_SECOND) /* for the program to read an answer */

struct acp_driver {
	struct acp *acp;		 /* output_lock; so are the next three */
	struct ap_buf line, errors_line; /* being printed */
	bool line_dropped;		 /* it is too long */
	struct kept answers;		 /* typing */
	struct worker_once flush;	 /* holds a reference until it rests */
	struct acp_message *sending;	 /* written in part; typing; so are the next three */
	size_t written;
	int input_fd, room_fd;	 /* while the program does not read: its input, and an epoll for
				  * room in it; -1: none */
	struct loop_source room; /* watches room_fd */
	struct session *session;
};

/* --- what comes of the lines --- */

static void report_usage_locked(struct session *session)
{
	struct ap_buf *usage = acp_usage(session->acp->acp);
	for (size_t at = 0; at < usage->len; at += sizeof(struct ap_usage_report)) {
		struct ap_usage_report report;
		memcpy(&report, usage->data + at, sizeof report);
		session->callbacks->used(session->owner, &report);
	}
	usage->len = 0;
}

/* Takes note of the last turn that has ended. */
static void take_turn_locked(struct session *session)
{
	int64_t at;
	struct profile_limit *limit = &session->signs.limit;
	const char *text = acp_turn_over(session->acp->acp, &at);
	if (!text)
		return;
	session->signs.n_turns++;
	if (profile_limited(session->host->profile, true, text, limit_now_s(), limit))
		limit->hash += (uint64_t)at; /* the same limit of another turn is another one */
}

/* Takes out what the protocol has made of them: the text for people to `ret`, the calls to their
 * file, what the program uses and what it does. output_lock held. */
static void take_out_locked(struct session *session, struct ap_buf *ret)
{
	struct acp *acp = session->acp->acp;
	struct ap_buf *text = acp_text(acp), *calls = acp_calls(acp);
	struct activity_signal *told = &session->signs.told;
	char why[ACTIVITY_WHY_MAX];
	enum ap_activity activity = acp_activity(acp, why);
	report_usage_locked(session);
	ap_buf_add(ret, ap_buf_text(text), text->len);
	text->len = 0;
	kept_append(&session->calls, ap_buf_text(calls), calls->len);
	calls->len = 0;
	kept_bound(&session->calls, atomic_load(&session->host->output_limit));
	take_turn_locked(session);
	if (told->found && told->activity == activity && strcmp(told->why, why) == 0)
		return;
	*told = (struct activity_signal){
		.at_ns = ap_clock_ns(), .found = true, .activity = activity};
	memcpy(told->why, why, sizeof told->why);
}

/* The same where no line has come. */
static void take_out(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	pthread_mutex_lock(&session->output_lock);
	take_out_locked(session, &text);
	kept_append(&session->plain, ap_buf_text(&text), text.len);
	pthread_mutex_unlock(&session->output_lock);
	session_review_now(session);
}

/* --- messages to the program --- */

/* Writes the record if it has changed; returns the next message, which the record accounts for. */
static struct acp_message *next_message(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf record = {0};
	pthread_mutex_lock(&session->output_lock);
	bool changed = acp_record(session->acp->acp, &record);
	struct acp_message *message = acp_next(session->acp->acp);
	pthread_mutex_unlock(&session->output_lock);
	ap_buf_printf(&path, "%s/acp", session->dir);
	if (changed) /* on a full disk the next daemon asks again */
		(void)file_replace(ap_buf_text(&path), record.data, record.len, NULL);
	return message;
}

/* Writes what there is room for of the present message. -ETIMEDOUT: there is none; -EAGAIN: the
 * program is not there yet; other -errno: it is gone. */
static int write_message(struct session *session)
{
	struct acp_driver *driver = session->acp;
	const struct acp_message *message = driver->sending;
	size_t ended = 0;
	if (driver->input_fd < 0)
		driver->input_fd = input_open(session);
	if (driver->input_fd < 0)
		return driver->input_fd;
	int r = session->input_cut ? input_write(driver->input_fd, "\n", 1, 0, &ended) : 0;
	session->input_cut = r < 0 && session->input_cut;
	return r < 0 ? r
		     : input_write(driver->input_fd, message->line, message->len, 0,
				   &driver->written);
}

/* The message has been written. */
static void was_sent(struct session *session, const struct acp_message *message)
{
	struct acp_driver *driver = session->acp;
	if (message->record)
		kept_append(&driver->answers, message->record, strlen(message->record));
	kept_bound(&driver->answers, ANSWERS_MAX / 2);
	if (message->asked)
		session->callbacks->answered(session->owner, message->asked,
					     &message->asked->options[message->option],
					     message->rule);
}

/* Has the loop call once there is room in the FIFO: an epoll that waits for room can itself be read
 * when there is. */
static void await_room(struct session *session)
{
	struct acp_driver *driver = session->acp;
	struct epoll_event room = {.events = EPOLLOUT};
	if (driver->room_fd < 0)
		driver->room_fd = epoll_create1(EPOLL_CLOEXEC);
	if (driver->room_fd >= 0 &&
	    (epoll_ctl(driver->room_fd, EPOLL_CTL_ADD, driver->input_fd, &room) == 0 ||
	     errno == EEXIST))
		(void)loop_watch_fd(session->host->loop, &driver->room, driver->room_fd);
}

static void close_input(struct session *session)
{
	struct acp_driver *driver = session->acp;
	const int fds[] = {driver->room_fd, driver->input_fd};
	if (driver->room_fd >= 0)
		(void)loop_watch_fd(session->host->loop, &driver->room, -1);
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	driver->room_fd = driver->input_fd = -1;
}

/* Takes the next message, unless one is being sent; drops one to the last program. */
static bool take_message(struct session *session)
{
	struct acp_driver *driver = session->acp;
	pthread_mutex_lock(&session->output_lock);
	bool stale = driver->sending && driver->sending->start != acp_start(driver->acp);
	pthread_mutex_unlock(&session->output_lock);
	if (stale)
		acp_message_free(ap_steal(driver->sending));
	if (driver->sending)
		return true;
	driver->written = 0;
	return (driver->sending = next_message(session));
}

/* Sends what there is to say, as far as the program reads: the loop has it go on later, and what
 * comes before the program waits for its start. False: there is more. `typing` held. */
static bool send_all(struct session *session)
{
	struct acp_driver *driver = session->acp;
	int r = 0;
	while (take_message(session)) {
		r = write_message(session);
		if (r == -ETIMEDOUT)
			await_room(session);
		if (r == -ETIMEDOUT || r == -EAGAIN)
			break;
		if (r == 0)
			was_sent(session, driver->sending);
		acp_message_free(ap_steal(driver->sending)); /* unsent: the program has ended */
	}
	if (r != -ETIMEDOUT)
		close_input(session);
	return !driver->sending;
}

/* The same, and waits. False: the program does not read. */
static bool send_all_by(struct session *session, int64_t deadline)
{
	struct acp_driver *driver = session->acp;
	while (!send_all(session)) {
		struct pollfd room = {.fd = driver->input_fd, .events = POLLOUT};
		int64_t left = deadline - ap_clock_ns();
		if (driver->input_fd < 0 || left <= 0 || delivery_is_void(session))
			return false;
		(void)poll(&room, 1, left > 100 * AP_MS ? 100 : (int)(left / AP_MS) + 1);
	}
	return true;
}

/* Tells which conversation the program is in, and which it could not go on with. */
static void tell_conversation(struct session *session)
{
	char now[ACP_ID_MAX], gone[ACP_ID_MAX];
	pthread_mutex_lock(&session->output_lock);
	strcpy(now, acp_session(session->acp->acp));
	strcpy(gone, acp_gone(session->acp->acp));
	pthread_mutex_unlock(&session->output_lock);
	if (*gone)
		session->callbacks->note(session->owner, SESSION_CONVERSATION_GONE, gone);
	if (*now)
		conversation_told(session, now);
}

static unsigned cancels_asked(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	unsigned n = session->n_cancels;
	pthread_mutex_unlock(&session->lock);
	return n;
}

static void cancels_done(struct session *session, unsigned n)
{
	pthread_mutex_lock(&session->lock);
	session->n_cancels -= n;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
}

static void flush_run(struct worker_once *once)
{
	struct session *session = ap_container_of(once, struct acp_driver, flush)->session;
	unsigned n_cancels = cancels_asked(session);
	pthread_mutex_lock(&session->typing);
	if (n_cancels > 0) {
		pthread_mutex_lock(&session->output_lock);
		acp_cancel(session->acp->acp);
		pthread_mutex_unlock(&session->output_lock);
		take_out(session);
	}
	send_all(session);
	pthread_mutex_unlock(&session->typing);
	if (n_cancels > 0)
		cancels_done(session, n_cancels);
	tell_conversation(session);
}

static void flush_rests(struct worker_once *once)
{
	session_unref(ap_container_of(once, struct acp_driver, flush)->session);
}

/* Has a worker send what there is to say. Any lock but the worker pool's. */
static void flush(struct session *session)
{
	session_ref(session); /* until it rests */
	if (!worker_once_ask(&session->acp->flush))
		session_unref(session);
}

static void on_room(struct loop_source *source)
{
	struct acp_driver *driver = ap_container_of(source, struct acp_driver, room);
	/* not again before it was written to */
	(void)loop_watch_fd(driver->session->host->loop, source, -1);
	flush(driver->session);
}

/* --- its life --- */

static bool acp_joins(struct session *session)
{
	return loop_add(session->host->loop, &session->acp->room, on_room) == 0;
}

static void acp_leaves(struct session *session)
{
	if (session->acp)
		loop_remove(session->host->loop, &session->acp->room);
}

static void acp_fini(struct session *session)
{
	struct acp_driver *driver = session->acp;
	if (!driver)
		return;
	acp_message_free(driver->sending);
	const int fds[] = {driver->room_fd, driver->input_fd};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	acp_free(driver->acp);
	ap_buf_fini(&driver->line);
	ap_buf_fini(&driver->errors_line);
	kept_close(&driver->answers);
	free(driver);
}

static bool acp_init(struct session *session)
{
	struct acp_driver *driver = calloc(1, sizeof *driver);
	session->acp = driver;
	if (!driver || !(driver->acp = acp_new()))
		return false;
	driver->session = session;
	driver->answers = KEPT_NONE;
	driver->input_fd = driver->room_fd = -1;
	worker_once_init(&driver->flush, session->host->workers, flush_run, flush_rests);
	return true;
}

/* Makes the protocol know what an earlier daemon has answered. Nobody writes yet. */
static void adopt_answers(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	const struct kept *answers = &session->acp->answers;
	int64_t from = atomic_load(&answers->first), size = atomic_load(&answers->size);
	if (size - from > ANSWERS_MAX)
		from = size - ANSWERS_MAX;
	ssize_t n = ap_buf_reserve(&text, (size_t)(size - from) + 1)
			    ? pread(answers->fd, text.data, (size_t)(size - from), from)
			    : -1;
	if (n < 0)
		return;
	text.data[n] = '\0';
	for (char *line = text.data, *end; line && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		acp_was_sent(session->acp->acp, line);
	}
}

/* What the file of the output holds, read or not. */
static int64_t output_size(const struct session *session)
{
	struct stat st;
	return fstat(session->read_fd, &st) == 0 ? (int64_t)st.st_size : 0;
}

static void adopt_connection(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf record = {0};
	ap_buf_printf(&path, "%s/acp", session->dir);
	(void)file_read(ap_buf_text(&path), O_NOFOLLOW, RECORD_MAX, &record, NULL);
	acp_adopt(session->acp->acp, ap_buf_text(&record), output_size(session), session->cwd,
		  &profile_values(session->host->profile)->configure);
}

/* Where the output ended when the last call in the file was told of; 0: none was. */
static int64_t last_call(const struct kept *calls)
{
	AP_CLEANUP_BUF struct ap_buf tail = {0};
	int64_t size = atomic_load(&calls->size), at = 0;
	int64_t from = size > CALLS_TAIL ? size - CALLS_TAIL : 0;
	ssize_t n = ap_buf_reserve(&tail, CALLS_TAIL)
			    ? pread(calls->fd, tail.data, CALLS_TAIL, from)
			    : -1;
	if (n <= 0)
		return 0;
	tail.data[n] = '\0';
	char *found = NULL;
	for (char *next = tail.data; (next = strstr(next, ",\"at\":")); next++)
		found = next;
	if (found)
		at = strtoll(found + sizeof ",\"at\":" - 1, NULL, 10);
	return at;
}

static int open_kept(const struct session *session, const char *name, bool adopt, struct kept *ret)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", session->dir, name);
	if (adopt)
		return kept_adopt(ret, ap_buf_text(&path));
	unlink(ap_buf_text(&path)); /* whatever an agent has made of it */
	return kept_open(ret, ap_buf_text(&path));
}

static int acp_opens(struct session *session, bool adopt)
{
	struct kept calls = KEPT_NONE, answers = KEPT_NONE;
	int r = open_kept(session, "answers", adopt, &answers);
	if (r == 0)
		r = open_kept(session, "calls", adopt, &calls);
	if (r < 0) {
		kept_close(&answers);
		return r;
	}
	pthread_mutex_lock(&session->typing);
	kept_close(&session->acp->answers);
	kept_move(&session->acp->answers, &answers);
	pthread_mutex_unlock(&session->typing);
	pthread_mutex_lock(&session->output_lock);
	kept_close(&session->calls);
	kept_move(&session->calls, &calls);
	acp_forget_output(session->acp->acp);
	if (adopt) {
		adopt_connection(session);
		adopt_answers(session);
		acp_calls_known(session->acp->acp, last_call(&session->calls));
	}
	pthread_mutex_unlock(&session->output_lock);
	return 0;
}

static void acp_starts(struct session *session, const char *conversation)
{
	struct acp_driver *driver = session->acp;
	/* what was printed by now, setup's output too, is not the program's */
	acp_begin(driver->acp, output_size(session), session->cwd, conversation,
		  &profile_values(session->host->profile)->configure);
	AP_CLEANUP_BUF struct ap_buf text = {0};
	take_out_locked(session, &text);
	kept_append(&session->plain, ap_buf_text(&text), text.len);
}

static void acp_forgets(struct session *session)
{
	acp_forget_output(session->acp->acp);
	kept_forget(&session->calls);
}

static void acp_started(struct session *session)
{
	pthread_mutex_lock(&session->typing);
	send_all(session);
	pthread_mutex_unlock(&session->typing);
}

static void acp_taken_up(struct session *session)
{
	pthread_mutex_lock(&session->output_lock);
	acp_permit(session->acp->acp, atomic_load(&session->permission));
	acp_go_on(session->acp->acp);
	pthread_mutex_unlock(&session->output_lock);
	take_out(session);
	flush(session);
}

static void acp_was_cut(struct session *session)
{
	pthread_mutex_lock(&session->output_lock);
	acp_prompt_unsure(session->acp->acp);
	pthread_mutex_unlock(&session->output_lock);
	take_out(session);
	flush(session);
}

/* --- its output --- */

/* Adds to the line that is being printed; one that is too long is dropped. */
static void add_to_line(struct acp_driver *driver, const char *bytes, size_t n)
{
	if (driver->line.len + n > ACP_LINE_MAX || driver->line.failed) {
		ap_buf_fini(&driver->line);
		driver->line_dropped = true;
	}
	if (!driver->line_dropped)
		ap_buf_add(&driver->line, bytes, n);
}

static void end_of_line(struct acp_driver *driver, int64_t at)
{
	if (driver->line_dropped || driver->line.failed)
		acp_line_dropped(driver->acp);
	else
		acp_line(driver->acp, ap_buf_text(&driver->line), driver->line.len, at);
	driver->line_dropped = false;
	if (driver->line.cap > ACP_LINE_MAX / 16)
		ap_buf_fini(&driver->line);
	driver->line.len = 0;
	driver->line.failed = false;
}

static void acp_printed(struct session *session, const char *bytes, size_t n, int64_t offset,
			struct ap_buf *ret)
{
	struct acp_driver *driver = session->acp;
	int64_t start = acp_begins_at(driver->acp);
	acp_permit(driver->acp, atomic_load(&session->permission));
	for (size_t at = 0; at < n;) {
		/* what was printed before the program started ends there, if not with a newline */
		bool inside = start > offset + (int64_t)at && start < offset + (int64_t)n;
		size_t end = inside ? (size_t)(start - offset) : n;
		if (offset + (int64_t)at == start && driver->line.len > 0)
			end_of_line(driver, start);
		const char *newline = memchr(bytes + at, '\n', end - at);
		size_t len = newline ? (size_t)(newline - bytes) - at : end - at;
		add_to_line(driver, bytes + at, len);
		at += len + (newline != NULL);
		if (newline)
			end_of_line(driver, offset + (int64_t)at);
	}
	take_out_locked(session, ret);
}

static void acp_complained(struct session *session, const char *bytes, size_t n, struct ap_buf *ret)
{
	struct acp_driver *driver = session->acp;
	struct ap_buf *line = &driver->errors_line;
	for (size_t at = 0; at < n;) {
		const char *newline = memchr(bytes + at, '\n', n - at);
		size_t len = newline ? (size_t)(newline - bytes) - at : n - at;
		if (line->len + len <= ERROR_LINE_MAX)
			ap_buf_add(line, bytes + at, len);
		at += len + (newline != NULL);
		if (!newline)
			continue;
		acp_error_line(driver->acp, ap_buf_text(line), line->len);
		line->len = 0;
	}
	take_out_locked(session, ret);
}

static void acp_heard(struct session *session)
{
	pthread_mutex_lock(&session->output_lock);
	bool news = acp_has_news(session->acp->acp);
	pthread_mutex_unlock(&session->output_lock);
	if (news)
		flush(session);
}

static void acp_response_of(const struct session *session, struct ap_buf *ret)
{
	ap_buf_adds(ret, acp_response(session->acp->acp));
}

static void acp_told(const struct session *session, enum session_told what, struct ap_buf *ret)
{
	const struct acp *acp = session->acp->acp;
	const char *reason = acp_stop_reason(acp);
	if (what == SESSION_PLAN)
		ap_buf_adds(ret, acp_plan(acp));
	else if (*reason)
		ap_buf_printf(ret, "%s\n", reason);
}

static void acp_counts(const struct session *session, struct ap_usage_report *ret)
{
	acp_context(session->acp->acp, ret);
}

/* --- prompts --- */

static int acp_deliver(struct session *session, const struct ap_buf *text,
		       enum session_outcome *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	*ret = SESSION_NO_EVIDENCE;
	pthread_mutex_lock(&session->typing);
	session_read_on(session); /* the output so far does not answer this prompt */
	int64_t deadline = ap_clock_ns() + INPUT_LIMIT;
	if (!send_all_by(session, deadline)) {
		bool is_there = session->acp->input_fd >= 0;
		pthread_mutex_unlock(&session->typing);
		if (!is_there)
			return -EAGAIN;
		*ret = SESSION_NOT_SUBMITTED;
		return delivery_is_void(session)
			       ? delivery_void(session, err)
			       : ap_err_errno(err, -ETIMEDOUT, "the input of %s", session->name);
	}
	pthread_mutex_lock(&session->output_lock);
	int r = acp_prompt(session->acp->acp, ap_buf_text(text), text->len, &line);
	pthread_mutex_unlock(&session->output_lock);
	int64_t entered_before = output_entered(session);
	if (r == 0) {
		take_out(session);
		send_all(session); /* the record: a prompt is under way */
		r = write_input(session, line.data, line.len, err);
		*ret = r < 0 ? SESSION_NOT_SUBMITTED : SESSION_SUBMITTED;
	} else if (r != -EAGAIN) {
		ap_err_errno(err, r, "the prompt");
	}
	if (r < 0)
		output_not_entered(session, entered_before);
	if (r < 0 && *ret == SESSION_NOT_SUBMITTED) {
		pthread_mutex_lock(&session->output_lock);
		acp_prompt_failed(session->acp->acp);
		pthread_mutex_unlock(&session->output_lock);
		take_out(session);
	}
	pthread_mutex_unlock(&session->typing);
	return r;
}

/* Closes the session, and opens another one. */
static int reopen(struct session *session, const char *conversation)
{
	pthread_mutex_lock(&session->typing);
	pthread_mutex_lock(&session->output_lock);
	int r = acp_reopen(session->acp->acp, conversation);
	pthread_mutex_unlock(&session->output_lock);
	take_out(session);
	send_all(session);
	pthread_mutex_unlock(&session->typing);
	return r;
}

/* What the profile calls the command does not matter. */
static int acp_command(struct session *session, const char *text, struct ap_err *err)
{
	(void)text;
	(void)err;
	return reopen(session, "");
}

static bool await_open(struct session *session, int64_t limit_ns)
{
	char why[ACTIVITY_WHY_MAX];
	for (int64_t deadline = ap_clock_ns() + limit_ns; ap_clock_ns() < deadline;) {
		session_read_on(session);
		pthread_mutex_lock(&session->output_lock);
		bool ready = acp_activity(session->acp->acp, why) == AP_ACTIVITY_READY;
		pthread_mutex_unlock(&session->output_lock);
		if (ready || delivery_is_void(session))
			return ready;
		poll(NULL, 0, OPEN_PAUSE_MS);
	}
	return false;
}

static bool acp_forget(struct session *session, const char *text, int64_t limit_ns)
{
	(void)text;
	return reopen(session, "") == 0 && await_open(session, limit_ns);
}

static int acp_resume(struct session *session, const char *conversation, int64_t limit_ns)
{
	char now[ACP_ID_MAX];
	int r = await_open(session, limit_ns) ? reopen(session, conversation) : -ETIMEDOUT;
	if (r == 0 && !await_open(session, limit_ns))
		r = -ETIMEDOUT;
	if (r < 0)
		return r;
	pthread_mutex_lock(&session->output_lock);
	strcpy(now, acp_session(session->acp->acp));
	pthread_mutex_unlock(&session->output_lock);
	tell_conversation(session);
	return strcmp(now, conversation) == 0 ? 0 : -ENOENT;
}

/* --- what it asks --- */

static void acp_asks(struct session *session, unsigned nth, struct question *ret)
{
	session_read_on(session);
	pthread_mutex_lock(&session->output_lock);
	acp_question(session->acp->acp, nth, ret);
	pthread_mutex_unlock(&session->output_lock);
}

static int acp_answers(struct session *session, const char *id, const char *word, uid_t uid,
		       struct question *ret_asked, const struct question_option **ret_option,
		       struct ap_err *err)
{
	const struct acp_giver giver = {.uid = uid};
	pthread_mutex_lock(&session->output_lock);
	int r = acp_answer(session->acp->acp, id, word, &giver, ret_asked, ret_option);
	pthread_mutex_unlock(&session->output_lock);
	if (r == -ENODATA)
		return ap_err_set(err, r, *id ? "%s does not ask %.32s" : "%s asks nothing%s",
				  session->name, id);
	if (r == -EINVAL)
		return question_no_answer(ret_asked, word, true, err);
	take_out(session);
	if (!send_all_by(session, ap_clock_ns() + ANSWER_LIMIT))
		r = ap_err_set(err, -EIO, "%s does not read its input: it may get the answer later",
			       session->name);
	/* who waits from now on learns of what follows the answer, once that was concluded */
	pthread_mutex_lock(&session->lock);
	if (session->activity == AP_ACTIVITY_WAITING)
		session->activity = AP_ACTIVITY_BUSY;
	session_review_now(session); /* it may ask more, and that have been concluded already */
	pthread_mutex_unlock(&session->lock);
	return r;
}

static bool acp_rule(struct session *session)
{
	pthread_mutex_lock(&session->output_lock);
	acp_permit(session->acp->acp, atomic_load(&session->permission));
	pthread_mutex_unlock(&session->output_lock);
	take_out(session);
	flush(session);
	return false;
}

const struct session_driver driver_acp = {
	.errors_apart = true,
	.converses = true,
	.init = acp_init,
	.joins = acp_joins,
	.leaves = acp_leaves,
	.fini = acp_fini,
	.opens = acp_opens,
	.starts = acp_starts,
	.forgets = acp_forgets,
	.started = acp_started,
	.taken_up = acp_taken_up,
	.deliver = acp_deliver,
	.command = acp_command,
	.forget = acp_forget,
	.resume = acp_resume,
	.cancel = flush,
	.printed = acp_printed,
	.complained = acp_complained,
	.response = acp_response_of,
	.told = acp_told,
	.counts = acp_counts,
	.heard = acp_heard,
	.was_cut = acp_was_cut,
	.question = acp_asks,
	.answer = acp_answers,
	.rule = acp_rule,
};
