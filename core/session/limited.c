/* A session whose program has reached a usage limit of its provider: how that is seen, what it
 * means for what the program does, its record, and its end. limit.h says what a limit is.
 *
 * In the session's directory: `limit`, the record, written before anybody is told what follows
 * from it. It outlives the daemon and every start of the program: a limit is the provider's. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "crash_point.h"
#include "file.h"
#include "session_internal.h"

/* A program may show the old limit for so long after it was given a prompt. */
#define LIMIT_DOUBT AP_SECOND

static int64_t wall_ns(void)
{
	return ap_clock_to_wall(ap_clock_ns());
}

int64_t limit_now_s(void)
{
	return wall_ns() / AP_SECOND;
}

/* --- seen --- */

static void begin_locked(struct session *session, const struct profile_limit *seen, int64_t now)
{
	struct limit *limit = &session->limit;
	limit_begin(limit, seen, wall_ns());
	limit->token = session->token;
	limit->broke = session->token != 0 && session->prompted;
	session->n_limits++;
	session->limit_seen_ns = now;
	session->works = session->limit_is_over = false;
	session->limit_news = true;
}

/* A turn has ended without a limit. */
static void ended_well_locked(struct session *session)
{
	struct limit *limit = &session->limit;
	bool news = limit->on || limit->n_words > 0 || limit->hash != 0;
	session->works = session->limit_is_over = false;
	limit_end(limit);
	limit->n_words = 0;
	limit->hash = 0;
	if (news)
		session->limit_news = true;
}

void limit_on_screen_locked(struct session *session, const struct profile_limit *seen,
			    const struct activity_signal *signal)
{
	bool rests = !signal->found || signal->activity == AP_ACTIVITY_READY;
	session->works = session->works || (signal->found && signal->activity == AP_ACTIVITY_BUSY &&
					    !session->commanded);
	session->limit_shown = session->limit_awaited = (struct profile_limit){.found = false};
	if (seen->found && rests)
		session->limit_shown = *seen;
	else if (seen->found && signal->activity == AP_ACTIVITY_BUSY)
		session->limit_awaited = *seen;
	if (seen->found || session->limit.hash == 0)
		return;
	session->limit.hash = 0; /* the same again is another one */
	session->limit_news = true;
}

/* Takes note of the end of a turn that a protocol has told of. */
static void take_turn_locked(struct session *session, const struct output_signs *signs, int64_t now)
{
	const struct profile_limit *limit = &signs->limit;
	if (signs->n_turns == session->n_turns)
		return;
	session->n_turns = signs->n_turns;
	/* an earlier daemon has seen that turn end */
	bool known = session->given_ns == 0 && limit->found && limit->hash == session->limit.hash;
	if (limit->found && !known)
		begin_locked(session, limit, now);
	else if (!limit->found)
		ended_well_locked(session);
}

/* Judges the screen of a program that looks ready. True: what it shows may be from before the last
 * prompt. */
static bool judge_screen_locked(struct session *session, int64_t now)
{
	const struct profile_limit *shown = &session->limit_shown;
	bool same = shown->hash == session->limit.hash;
	bool later = session->given_ns > session->limit_seen_ns;
	if (!shown->found) {
		if (session->works && session->screen.at_ns > session->given_ns)
			ended_well_locked(session);
		return false;
	}
	if (same && later && now < session->given_ns + LIMIT_DOUBT)
		return true;
	if (!same || later)
		begin_locked(session, shown, now);
	return false;
}

/* --- what it means --- */

static void look_at_time_locked(struct session *session, int64_t now)
{
	int64_t wall = ap_clock_to_wall(now);
	if (session->shared_ends_ns && wall >= session->shared_ends_ns)
		session->shared_ends_ns = session->shared_until_s = 0;
	if (session->shared_ends_ns)
		session_review_by(session, now + (session->shared_ends_ns - wall));
	if (session->limit.on && !limit_is_over(&session->limit, wall)) {
		session_review_by(session, now + (session->limit.ends_ns - wall));
	} else if (session->limit.on && !session->limit_is_over) {
		session->limit_is_over = true;
		session->limit_news = true;
	}
}

bool limit_is_on_locked(const struct session *session)
{
	return session->limit.on || session->shared_ends_ns != 0;
}

int64_t limit_until_locked(const struct session *session)
{
	if (session->limit.on)
		return session->limit.until_s;
	return session->limit_awaited.found ? session->limit_awaited.until_s
					    : session->shared_until_s;
}

void limit_conclude_locked(struct session *session, const struct output_signs *signs,
			   struct activity *concluded, int64_t now)
{
	take_turn_locked(session, signs, now);
	bool ready = concluded->activity == AP_ACTIVITY_READY;
	bool reports = profile_values(session->host->profile)->rules.reports;
	if (ready && !reports && judge_screen_locked(session, now)) {
		concluded->activity = AP_ACTIVITY_BUSY;
		concluded->recheck_ns = session->given_ns + LIMIT_DOUBT;
		snprintf(concluded->why, sizeof concluded->why,
			 "limit: it may be the one before the last prompt");
		return;
	}
	look_at_time_locked(session, now);
	if (concluded->activity == AP_ACTIVITY_BUSY && session->limit_awaited.found) {
		concluded->activity = AP_ACTIVITY_LIMITED;
		snprintf(concluded->why, sizeof concluded->why,
			 "limit: it tries again by itself: %.80s", session->limit_awaited.text);
		ap_text_tame(concluded->why);
		return;
	}
	if (!ready || !limit_is_on_locked(session))
		return;
	concluded->activity = AP_ACTIVITY_LIMITED;
	snprintf(concluded->why, sizeof concluded->why, "limit: %.110s",
		 session->limit.on ? session->limit.text : "another agent has reached it");
	ap_text_tame(concluded->why); /* the cut may be inside a character */
}

void limit_forget_screen_locked(struct session *session)
{
	session->limit_shown = session->limit_awaited = (struct profile_limit){.found = false};
	session->works = false;
}

void limit_prompt_given_locked(struct session *session)
{
	session->given_ns = session->entered_ns;
	session->works = session->works || session->given_ns > session->limit_seen_ns;
}

void limit_commanded(struct session *session, bool begins)
{
	pthread_mutex_lock(&session->lock);
	session->commanded = begins;
	pthread_mutex_unlock(&session->lock);
}

void session_limit(struct session *session, struct limit *ret)
{
	pthread_mutex_lock(&session->lock);
	*ret = session->limit;
	pthread_mutex_unlock(&session->lock);
}

void session_share_limit(struct session *session, int64_t until_s, int64_t ends_ns)
{
	pthread_mutex_lock(&session->lock);
	session->shared_until_s = until_s;
	session->shared_ends_ns = ends_ns;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
}

/* --- recorded and told, by a worker --- */

static int keep_record(const struct session *session, const struct limit *limit)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf record = {0};
	ap_buf_printf(&path, "%s/limit", session->dir);
	limit_record(limit, &record);
	return file_replace(ap_buf_text(&path), ap_buf_text(&record), record.len, NULL);
}

void limit_adopt(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf record = {0};
	struct limit limit;
	ap_buf_printf(&path, "%s/limit", session->dir);
	if (file_read(ap_buf_text(&path), O_NOFOLLOW, LIMIT_RECORD_MAX, &record, NULL) < 0 ||
	    !limit_read(ap_buf_text(&record), wall_ns(), &limit))
		return;
	pthread_mutex_lock(&session->lock);
	session->limit = limit;
	session->limit_seen_ns = ap_clock_ns();
	session->limit_told = limit.on;
	pthread_mutex_unlock(&session->lock);
}

/* Has the owner decide whether the program is given the word, and records that it is before it is.
 * False: it is not. */
static bool gives_word(struct session *session, bool is_idle)
{
	struct limit limit;
	session_limit(session, &limit);
	if (!is_idle || limit.n_words >= LIMIT_WORDS_MAX ||
	    !session->callbacks->goes_on(session->owner, &limit))
		return false;
	pthread_mutex_lock(&session->lock);
	session->limit.n_words++;
	limit = session->limit;
	pthread_mutex_unlock(&session->lock);
	limit_end(&limit);
	return keep_record(session, &limit) == 0;
}

/* Its time has come: prompts go on once it is off, the word before them. */
static void come_to_end(struct session *session, unsigned n_limits)
{
	struct limit limit;
	pthread_mutex_lock(&session->lock);
	bool is_idle = session->activity == AP_ACTIVITY_LIMITED;
	uint64_t token = session->limit.token;
	pthread_mutex_unlock(&session->lock);
	bool word = gives_word(session, is_idle);
	if (word) {
		crash_point("limit-counted");
		session->callbacks->go_on(session->owner, token);
	}
	pthread_mutex_lock(&session->lock);
	bool still = session->n_limits == n_limits && session->limit_is_over;
	if (still)
		limit_end(&session->limit);
	session->limit_is_over = session->limit_is_over && !still;
	limit = session->limit;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
	if (!still)
		return; /* another one has begun, or a turn ended meanwhile: that asks again */
	if (!word)
		(void)keep_record(session, &limit); /* else the next daemon ends it again */
	session->limit_told = false;
	session->callbacks->limit(session->owner, &limit, false);
}

void limit_tell(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	struct limit limit = session->limit;
	unsigned n_limits = session->n_limits;
	bool is_over = session->limit_is_over;
	pthread_mutex_unlock(&session->lock);
	if (atomic_load(&session->host->closed))
		return;
	bool begins = limit.on && (n_limits != session->n_limits_told || !session->limit_told);
	bool ends = !limit.on && session->limit_told;
	if (!is_over || begins)
		(void)keep_record(session, &limit);
	session->n_limits_told = n_limits;
	session->limit_told = limit.on;
	if (begins || ends)
		session->callbacks->limit(session->owner, &limit, ends);
	if (is_over)
		come_to_end(session, n_limits);
}
