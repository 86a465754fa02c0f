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
#define SETTLE_LIMIT	AP_SECOND	/* for a dialog to be drawn */
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
	int pause_ms = 2; /* short at first: it may ask the same again soon */
	for (int64_t deadline = ap_clock_ns() + ANSWER_LIMIT; ap_clock_ns() < deadline;) {
		poll(NULL, 0, pause_ms);
		pause_ms = pause_ms < POLL_PAUSE_MS / 2 ? 2 * pause_ms : POLL_PAUSE_MS;
		terminal_question(session, 0, &now);
		if (strcmp(now.id, id) != 0)
			return true;
	}
	return false;
}

/* Types the keys of an answer, and waits until the program has taken it; keys_begin_locked() came
 * before. */
static int type_answer(struct session *session, const char *keys, const char *id, bool *ret_taken,
		       struct ap_err *err)
{
	int64_t from = ap_clock_ns();
	int r = send_keys(session, keys, err);
	*ret_taken = r == 0 && await_taken(session, id);
	pthread_mutex_lock(&session->lock);
	keys_typed_locked(session, from);
	pthread_mutex_unlock(&session->lock);
	return r;
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
	bool cancels = *values->cancel != '\0', cancel = cancels && strcmp(word, "cancel") == 0;
	*ret_option = cancel ? NULL : question_option(ret_asked, word);
	if (!cancel && !*ret_option)
		return question_no_answer(ret_asked, word, cancels, err);
	pthread_mutex_lock(&session->lock);
	keys_begin_locked(session);
	pthread_mutex_unlock(&session->lock);
	bool taken;
	int r = type_answer(session, cancel ? values->cancel : (*ret_option)->keys, ret_asked->id,
			    &taken, err);
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

/* --- answers by rule ---
 *
 * A question is judged once: when it is first seen, or when the policy changes while it is asked.
 * What was judged and left to a human stays his, also in the next lease; what is seen while the
 * policy is to ask, as without a lease, is left. Once a look shows something else, the next
 * question is a new one, even if it is the same. */

/* What the program asks, once two looks agree: a dialog that is half drawn may look like another.
 * Nothing, if they do not for SETTLE_LIMIT. */
static void settled_question(struct session *session, struct question *ret)
{
	char before[sizeof ret->id] = "";
	int64_t deadline = ap_clock_ns() + SETTLE_LIMIT;
	terminal_question(session, 0, ret);
	while (ret->id[0] && strcmp(before, ret->id) != 0) {
		memcpy(before, ret->id, sizeof before);
		poll(NULL, 0, POLL_PAUSE_MS);
		terminal_question(session, 0, ret);
		if (strcmp(before, ret->id) != 0 && ap_clock_ns() > deadline)
			*ret = (struct question){.kind = "other"};
	}
}

/* Whose program it is. */
struct whose {
	unsigned start;
	uint64_t token;
};

static struct whose whose_locked(const struct session *session)
{
	return (struct whose){session->start, session->token};
}

static void set_judged_locked(struct session *session, const char *id)
{
	snprintf(session->judged, sizeof session->judged, "%s", id);
}

/* The option that the policy takes, of a question that was seen on the screen of that program;
 * NULL: none. With one the session counts as busy. */
static const struct question_option *judge(struct session *session, const struct question *asked,
					   struct whose seen, uint32_t *ret_policy)
{
	const struct question_option *option = NULL;
	pthread_mutex_lock(&session->lock);
	struct whose now = whose_locked(session);
	*ret_policy = atomic_load(&session->permission);
	if (strcmp(asked->id, session->judged) != 0 && running_locked(session, false, NULL) == 0 &&
	    now.start == seen.start && now.token == seen.token)
		option = question_option_by(asked, ap_permission_judge(*ret_policy, asked->kind));
	set_judged_locked(session, asked->id);
	if (option)
		keys_begin_locked(session);
	pthread_mutex_unlock(&session->lock);
	return option;
}

/* Answers what the program asks now. False: that is no rule's, or it does not take the answer. */
bool terminal_rule(struct session *session)
{
	struct question asked;
	uint32_t policy;
	bool taken = false;
	pthread_mutex_lock(&session->typing);
	pthread_mutex_lock(&session->lock);
	struct whose seen = whose_locked(session);
	pthread_mutex_unlock(&session->lock);
	settled_question(session, &asked);
	const struct question_option *option = judge(session, &asked, seen, &policy);
	int r = option ? type_answer(session, option->keys, asked.id, &taken, NULL) : -ENODATA;
	if (taken) { /* the same question is another one from here on */
		pthread_mutex_lock(&session->lock);
		set_judged_locked(session, "");
		pthread_mutex_unlock(&session->lock);
	}
	pthread_mutex_unlock(&session->typing);
	if (r == 0) {
		char word[AP_PERMISSION_MAX], rule[AP_PERMISSION_MAX + sizeof "permission="];
		ap_permission_format(policy, word, sizeof word);
		snprintf(rule, sizeof rule, "permission=%s", word);
		session->callbacks->answered(session->owner, &asked, option, rule);
	}
	return taken;
}

static void rule_run(struct worker_once *once)
{
	struct session *session = ap_container_of(once, struct session, rule);
	bool again = session->driver->rule && session->driver->rule(session);
	if (again) /* what it asks next, behind the jobs of others; the reference is still held */
		(void)worker_once_ask(once);
	pthread_mutex_lock(&session->lock);
	session->ruling = again;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
}

static void rule_rests(struct worker_once *once)
{
	session_unref(ap_container_of(once, struct session, rule));
}

void rule_init(struct session *session)
{
	atomic_init(&session->permission, AP_PERMISSION_ASK);
	worker_once_init(&session->rule, session->host->workers, rule_run, rule_rests);
}

static void ask_rule(struct session *session)
{
	session_ref(session); /* until they rest */
	if (!worker_once_ask(&session->rule))
		session_unref(session);
}

void rule_on_screen(struct session *session, const char *screen)
{
	struct question seen = {.id = ""};
	uint32_t policy = atomic_load(&session->permission);
	if (screen)
		(void)profile_question(session->host->profile, screen, &seen);
	bool answers = seen.id[0] &&
		       question_option_by(&seen, ap_permission_judge(policy, seen.kind)) != NULL;
	pthread_mutex_lock(&session->lock);
	answers = answers && strcmp(seen.id, session->judged) != 0;
	if (answers)
		session->ruling = true;
	else
		set_judged_locked(session, seen.id);
	pthread_mutex_unlock(&session->lock);
	if (answers)
		ask_rule(session);
}

bool session_permit(struct session *session, uint32_t policy)
{
	return atomic_exchange(&session->permission, policy) != policy;
}

void session_judge_again(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	set_judged_locked(session, "");
	pthread_mutex_unlock(&session->lock);
	ask_rule(session);
}
