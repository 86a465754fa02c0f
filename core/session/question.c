/* What a program asks a human, and the answer to it; of one in a terminal read from the screen, and
 * given by keys. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "driver.h"

#define TYPING_PATIENCE (5 * AP_SECOND) /* for others who type */
#define ANSWER_LIMIT	(5 * AP_SECOND) /* for the program to take an answer */
#define POLL_PAUSE_MS	30

/* The last line that shows something, for a question that no rule knows. */
static void last_line(const char *screen, struct question *ret)
{
	size_t len;
	const char *line = ap_text_last_line(screen, &len);
	snprintf(ret->title, sizeof ret->title, "%.*s", (int)len, line);
	ap_text_tame(ret->title);
	snprintf(ret->id, sizeof ret->id, "%08x", (unsigned)ap_hash(ret->title));
}

void terminal_question(struct session *session, unsigned nth, struct question *ret)
{
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	struct activity_signal seen;
	*ret = (struct question){.kind = "other"};
	if (nth > 0) /* a screen shows one */
		return;
	look_at_screen(session, &screen, &seen);
	pthread_mutex_lock(&session->lock);
	bool runs = running_locked(session, false, NULL) == 0;
	bool asks = session->activity == AP_ACTIVITY_WAITING;
	pthread_mutex_unlock(&session->lock);
	if (!runs)
		return;
	bool shows = seen.found && seen.activity == AP_ACTIVITY_WAITING;
	if ((shows || asks) &&
	    !profile_question(session->host->profile, ap_buf_text(&screen), ret) && asks)
		last_line(ap_buf_text(&screen), ret);
}

void session_question(struct session *session, unsigned nth, struct question *ret)
{
	*ret = (struct question){.kind = "other"};
	if (session->driver->question && session_running(session, false, NULL) == 0)
		session->driver->question(session, nth, ret);
}

/* Waits until the program asks something else, or nothing. */
static bool await_taken(struct session *session, const char *id)
{
	struct question now;
	for (int64_t deadline = ap_clock_ns() + ANSWER_LIMIT; ap_clock_ns() < deadline;) {
		poll(NULL, 0, POLL_PAUSE_MS);
		terminal_question(session, 0, &now);
		if (strcmp(now.id, id) != 0)
			return true;
	}
	return false;
}

int terminal_answer(struct session *session, const char *id, const char *word, uid_t uid,
		    struct question *ret_asked, const struct question_option **ret_option,
		    struct ap_err *err)
{
	const struct profile_values *values = profile_values(session->host->profile);
	(void)uid;
	terminal_question(session, 0, ret_asked);
	if (!ret_asked->id[0])
		return ap_err_set(err, -ENODATA, "%s asks nothing", session->name);
	if (*id && strcmp(id, ret_asked->id) != 0)
		return ap_err_set(err, -ENODATA, "%s does not ask %.32s", session->name, id);
	bool cancel = strcmp(word, "cancel") == 0 && *values->cancel;
	*ret_option = cancel ? NULL : question_option(ret_asked, word);
	if (!cancel && !*ret_option)
		return question_no_answer(ret_asked, word, err);
	pthread_mutex_lock(&session->lock);
	keys_begin_locked(session);
	pthread_mutex_unlock(&session->lock);
	int64_t from = ap_clock_ns();
	int r = send_keys(session, cancel ? values->cancel : (*ret_option)->keys, err);
	bool taken = r == 0 && await_taken(session, ret_asked->id);
	pthread_mutex_lock(&session->lock);
	keys_typed_locked(session, from);
	pthread_mutex_unlock(&session->lock);
	if (r == 0 && !taken)
		r = ap_err_set(err, -EIO, "the answer was typed, but %s asks the same still",
			       session->name);
	return r;
}

int session_answer(struct session *session, const char *answer, uid_t uid,
		   struct question *ret_asked, const struct question_option **ret_option,
		   struct ap_err *err)
{
	char id[sizeof ret_asked->id] = "";
	const char *blank = strpbrk(answer, " \t"), *word = answer;
	*ret_asked = (struct question){.kind = "other"};
	if (!session->driver->answer)
		return ap_err_set(err, -EOPNOTSUPP, "%s is asked nothing by its program",
				  session->name);
	if (blank && (size_t)(blank - answer) < sizeof id) {
		snprintf(id, sizeof id, "%.*s", (int)(blank - answer), answer);
		word = blank + strspn(blank, " \t");
	}
	int64_t deadline = ap_clock_ns() + TYPING_PATIENCE;
	while (pthread_mutex_trylock(&session->typing) != 0) {
		if (ap_clock_ns() > deadline)
			return ap_err_set(err, -EBUSY, "somebody types into %s", session->name);
		poll(NULL, 0, POLL_PAUSE_MS);
	}
	int r = session->driver->answer(session, id, word, uid, ret_asked, ret_option, err);
	pthread_mutex_unlock(&session->typing);
	return r;
}
