/* Input to a session: the queue of prompts, keys by hand, pauses. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "crash_point.h"
#include "driver.h"
#include "file.h"
#include "session_internal.h"

#define KEYS_PATIENCE  (5 * AP_SECOND) /* keys wait for Enter no longer: they may interrupt it */
#define KEYS_PAUSE_MS  10
#define PUT_BACK_PAUSE (200 * AP_MS) /* before the next try of a prompt that came too early */

/* --- the queue of prompts --- */

static int too_much_locked(const struct session *session, struct ap_err *err)
{
	return ap_err_set(err, -EAGAIN,
			  "%u prompts of %zu bytes are queued for %s already, and %u of %zu are "
			  "being written",
			  session->n_prompts_queued, session->prompt_bytes, session->name,
			  session->n_prompts_open, session->open_bytes);
}

/* Whether `len` more bytes exceed what one session queues; a single prompt never does. */
static bool is_too_much(const struct session *session, size_t bytes, size_t len)
{
	int64_t most = atomic_load(&session->host->max_prompt);
	if (most < SESSION_PROMPT_BYTES)
		most = SESSION_PROMPT_BYTES;
	return (int64_t)(bytes + len) > most;
}

static int refused_locked(const struct session *session, size_t len, struct ap_err *err)
{
	int64_t most = atomic_load(&session->host->max_prompt);
	if ((int64_t)len > most)
		return ap_err_set(err, -EMSGSIZE,
				  "a prompt of %zu bytes is over max_prompt, which is %" PRId64,
				  len, most);
	if (session->closed)
		return ap_err_set(err, -ENODEV, "%s is gone", session->name);
	if (session->ended)
		return ap_err_set(err, -EIO, "the program of %s has ended (%s): restart it",
				  session->name, session->ended_how);
	if (session->n_prompts_queued >= SESSION_PROMPTS_MAX ||
	    is_too_much(session, session->prompt_bytes, len))
		return too_much_locked(session, err);
	return 0;
}

int session_prompt_check(struct session *session, size_t len, struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	int r = refused_locked(session, len, err);
	pthread_mutex_unlock(&session->lock);
	return r;
}

/* A prompt is being written or queued: the session counts as busy from now on. */
static void busy_locked(struct session *session)
{
	if (session->activity != AP_ACTIVITY_STARTING)
		session->activity = AP_ACTIVITY_BUSY;
	session_review_now(session);
}

int session_prompt_begin(struct session *session, uint64_t token, struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	if (session->open_token != token) {
		session->n_prompts_open = 0;
		session->open_bytes = 0;
		session->open_token = token;
	}
	int r = session->n_prompts_queued + session->n_prompts_open >= SESSION_PROMPTS_MAX
			? too_much_locked(session, err)
			: 0;
	if (r == 0) {
		session->n_prompts_open++;
		busy_locked(session);
		tell_changed(session);
	}
	pthread_mutex_unlock(&session->lock);
	return r;
}

int session_prompt_grow(struct session *session, uint64_t token, size_t len, struct ap_err *err)
{
	int r = 0;
	pthread_mutex_lock(&session->lock);
	if (session->open_token == token &&
	    is_too_much(session, session->prompt_bytes + session->open_bytes, len))
		r = too_much_locked(session, err);
	else if (session->open_token == token)
		session->open_bytes += len;
	pthread_mutex_unlock(&session->lock);
	return r;
}

void session_prompt_end(struct session *session, uint64_t token, size_t len)
{
	pthread_mutex_lock(&session->lock);
	if (session->open_token == token && session->n_prompts_open > 0) {
		session->n_prompts_open--;
		session->open_bytes -= len < session->open_bytes ? len : session->open_bytes;
	}
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
}

struct prompt *session_prompt_new(const char *text, size_t len, bool is_command)
{
	struct prompt *prompt = malloc(sizeof *prompt + len + 1);
	if (!prompt)
		return NULL;
	ap_list_init(&prompt->link);
	prompt->seq = 0;
	prompt->len = len;
	prompt->cleaned = false;
	prompt->is_command = is_command;
	memcpy(prompt->text, text, len);
	prompt->text[len] = '\0';
	return prompt;
}

void session_prompt_free(struct prompt *prompt)
{
	free(prompt);
}

static void queue(struct session *session, uint64_t seq, struct prompt *prompt, bool first)
{
	prompt->seq = seq;
	pthread_mutex_lock(&session->lock);
	if (first)
		ap_list_insert_after(&session->prompts, &prompt->link);
	else
		ap_list_append(&session->prompts, &prompt->link);
	session->n_prompts_queued++;
	session->prompt_bytes += prompt->len;
	session->prompted = session->prompted || !prompt->is_command;
	session->prompt_error.text[0] = '\0';
	busy_locked(session);
	pthread_mutex_unlock(&session->lock);
}

void session_prompt(struct session *session, uint64_t seq, struct prompt *prompt)
{
	queue(session, seq, prompt, false);
}

void session_prompt_first(struct session *session, uint64_t seq, struct prompt *prompt)
{
	queue(session, seq, prompt, true);
}

uint64_t drop_prompts_locked(struct session *session)
{
	struct ap_list *at, *next;
	uint64_t last = 0;
	ap_list_for_each_safe (at, next, &session->prompts) {
		struct prompt *prompt = ap_container_of(at, struct prompt, link);
		last = prompt->seq;
		ap_list_remove(at);
		session_prompt_free(prompt);
	}
	session->n_prompts_queued = session->n_prompts_open = 0;
	session->open_bytes = 0;
	session->open_token = UINT64_MAX; /* no handle's */
	session->prompt_bytes = 0;
	session->prompt_error.text[0] = '\0';
	return last;
}

void session_drop_prompts(struct session *session, bool begins_anew)
{
	pthread_mutex_lock(&session->lock);
	uint64_t dropped = drop_prompts_locked(session);
	if (begins_anew)
		session->prompted = false;
	pthread_mutex_unlock(&session->lock);
	if (dropped)
		session->callbacks->prompts_dropped(session->owner, dropped);
}

static struct prompt *first_prompt(struct session *session)
{
	struct prompt *prompt = NULL;
	pthread_mutex_lock(&session->lock);
	if (!ap_list_empty(&session->prompts)) {
		prompt = ap_container_of(session->prompts.next, struct prompt, link);
		ap_list_remove(&prompt->link);
		session->n_prompts_queued--;
		session->prompt_bytes -= prompt->len;
	}
	pthread_mutex_unlock(&session->lock);
	return prompt;
}

static void put_back_locked(struct session *session, struct prompt *prompt)
{
	ap_list_insert_after(&session->prompts, &prompt->link);
	session->n_prompts_queued++;
	session->prompt_bytes += prompt->len;
}

/* Turns line ends into newlines, and removes what could control the terminal: a prompt is text. */
static size_t clean_text(char *text, size_t len)
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '\r') {
			if (i + 1 < len && text[i + 1] == '\n')
				continue;
			c = '\n';
		}
		/* a C1 control in UTF-8, whatever was removed between its two bytes */
		if (c >= 0x80 && c < 0xa0 && n > 0 && (unsigned char)text[n - 1] == 0xc2)
			n--;
		else if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f))
			text[n++] = (char)c;
	}
	if (n > 0 && text[n - 1] == '\n')
		n--; /* the one that `echo` adds */
	return n;
}

static int deliver(struct session *session, struct prompt *prompt, enum session_outcome *ret,
		   struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (delivery_is_void(session))
		return delivery_void(session, err);
	if (prompt->is_command) {
		session_forget_conversation(session); /* what it names anew is another one */
		limit_commanded(session, true);
		int r = session->driver->command(session, prompt->text, err);
		limit_commanded(session, false);
		if (r < 0 && r != -ECANCELED) /* else it was asked for, and nobody goes on */
			conversation_not_forgotten(session);
		*ret = r < 0 ? SESSION_NO_EVIDENCE : SESSION_SUBMITTED;
		return r;
	}
	if (!prompt->cleaned)
		prompt->len = clean_text(prompt->text, prompt->len);
	prompt->cleaned = true;
	if (profile_dress(session->host->profile, prompt->text, prompt->len, &text) < 0)
		return ap_err_errno(err, -ENOMEM, "prompt");
	return session->driver->deliver(session, &text, ret, err);
}

static void job_prompt(struct worker_job *job)
{
	struct session *session = ap_container_of(job, struct session, prompt_job);
	const struct session_callbacks *callbacks = session->callbacks;
	struct ap_err err = {""};
	enum session_outcome outcome = SESSION_NO_EVIDENCE;
	struct prompt *prompt = first_prompt(session); /* NULL: dropped meanwhile */
	int r = prompt ? callbacks->prompt_taken(session->owner, prompt->seq, prompt->is_command,
						 &err)
		       : 0;
	if (r < 0)
		outcome = SESSION_REFUSED;
	crash_point("prompt-taken");
	if (prompt && r == 0)
		r = deliver(session, prompt, &outcome, &err);
	crash_point("prompt-given");
	if (r == -EAGAIN)
		outcome = SESSION_PUT_BACK;
	if (prompt)
		callbacks->prompt_done(session->owner, prompt->seq, outcome, prompt->len, &err);
	pthread_mutex_lock(&session->lock);
	session->delivering = false;
	/* the same evidence may still say ready: wait a while before the next try */
	session_review_at(session, ap_clock_ns() + (r == -EAGAIN ? PUT_BACK_PAUSE : 0));
	if (r == -EAGAIN) {
		put_back_locked(session, ap_steal(prompt));
	} else if (r < 0 && r != -ECANCELED) {
		session->prompt_error = err;
	} else if (prompt && r == 0) {
		session->prompt_error.text[0] = '\0';
		if (!prompt->is_command)
			limit_prompt_given_locked(session);
	}
	pthread_mutex_unlock(&session->lock);
	session_prompt_free(prompt);
}

void job_prompt_locked(struct session *session)
{
	session->delivering = true;
	session_submit(session, &session->prompt_job, job_prompt);
}

/* --- keys --- */

static void be_busy_locked(struct session *session, const char *why)
{
	if (session->activity != AP_ACTIVITY_STARTING)
		session->activity = AP_ACTIVITY_BUSY;
	snprintf(session->why, sizeof session->why, "%s", why);
	tell_changed(session);
}

void keys_begin_locked(struct session *session)
{
	session->n_keys++;
	be_busy_locked(session, "keys: being typed");
}

void keys_typed_locked(struct session *session, int64_t from_ns)
{
	session->n_keys--;
	session_review_now(session);
	if (from_ns > 0) {
		session->keys_from_ns = from_ns;
		session->keys_ns = ap_clock_ns();
	}
}

/* Whether the program runs, and the keys' token is not stale. */
static bool may_be_typed(const struct session_job *job)
{
	struct session *session = job->session;
	pthread_mutex_lock(&session->lock);
	bool may = running_locked(session, false, NULL) == 0 &&
		   (job->token == 0 || job->token == session->token);
	pthread_mutex_unlock(&session->lock);
	return may;
}

static void job_keys(struct worker_job *worker_job)
{
	struct session_job *job = ap_container_of(worker_job, struct session_job, job);
	struct session *session = job->session;
	int64_t deadline = ap_clock_ns() + KEYS_PATIENCE;
	bool alone;
	while (!(alone = pthread_mutex_trylock(&session->typing) == 0) && ap_clock_ns() < deadline)
		poll(NULL, 0, KEYS_PAUSE_MS);
	int64_t from = may_be_typed(job) ? ap_clock_ns() : 0;
	if (from)
		(void)send_keys(session, job->words, NULL); /* fails if the terminal has gone */
	if (alone)
		pthread_mutex_unlock(&session->typing);
	pthread_mutex_lock(&session->lock);
	session->keys_bytes -= strlen(job->words);
	keys_typed_locked(session, from);
	pthread_mutex_unlock(&session->lock);
	session_job_free(job);
}

/* -EAGAIN: one more line of keys would be too much. */
static int keys_refused_locked(const struct session *session, size_t len, struct ap_err *err)
{
	if (session->n_keys >= SESSION_KEYS_MAX || session->keys_bytes + len > SESSION_KEYS_BYTES)
		return ap_err_set(err, -EAGAIN, "%u lines of keys of %zu bytes wait for %s already",
				  session->n_keys, session->keys_bytes, session->name);
	return 0;
}

static void keys_lane_release(struct worker_lane *lane)
{
	session_unref(ap_container_of(lane, struct session, keys_lane));
}

int session_keys(struct session *session, uint64_t token, const char *keys, struct ap_err *err)
{
	if (!session->driver->needs_terminal)
		return ap_err_set(err, -EOPNOTSUPP,
				  "%s has no terminal that keys could be typed into",
				  session->name);
	struct session_job *job = session_job_new(session, job_keys, keys);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "keys");
	job->token = token;
	pthread_mutex_lock(&session->lock);
	int r = running_locked(session, false, err);
	if (r == 0)
		r = keys_refused_locked(session, strlen(keys), err);
	if (r == 0) {
		session->keys_bytes += strlen(keys);
		keys_begin_locked(session);
	}
	pthread_mutex_unlock(&session->lock);
	if (r < 0) {
		session_job_free(job);
		return r;
	}
	/* a lane of their own: keys do not wait for the prompts in the queue */
	job->job.lane = &session->keys_lane;
	job->job.lane_release = keys_lane_release;
	session_ref(session); /* the lane's */
	worker_submit(session->host->workers, &job->job);
	return 0;
}

int session_cancel(struct session *session, uint64_t token, struct ap_err *err)
{
	if (!session->driver->cancel)
		return session_keys(session, token, profile_values(session->host->profile)->cancel,
				    err);
	pthread_mutex_lock(&session->lock);
	int r = running_locked(session, false, err);
	if (r == 0) { /* who waits from now on learns of what comes of it */
		session->n_cancels++;
		be_busy_locked(session, "cancel: asked for");
	}
	pthread_mutex_unlock(&session->lock);
	if (r == 0)
		session->driver->cancel(session);
	return r;
}

/* --- pauses --- */

/* Whether the processes have to be stopped: session->paused says so, and they need not end. */
static bool is_to_stop(struct session *session, struct backend_terminal *ret_running)
{
	pthread_mutex_lock(&session->lock);
	bool stop = session->paused && !session->ending && !session->ended;
	*ret_running = session->running;
	pthread_mutex_unlock(&session->lock);
	return stop;
}

/* Stops or continues the processes, as session->paused says, and records that for the next daemon.
 * Repeats if session->paused has changed meanwhile. Blocks as the backend does; in the lane or not.
 */
static void obey_pause(struct session *session)
{
	struct backend *backend = session->host->backend;
	struct backend_terminal running;
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/paused", session->dir);
	bool stop;
	do {
		stop = is_to_stop(session, &running);
		if (stop) /* for the next daemon */
			(void)file_write(ap_buf_text(&path), "", 0, NULL);
		else
			remove_record(session, "paused");
		(void)backend->ops->pause(backend, &running, stop); /* fails if it has ended */
	} while (stop != is_to_stop(session, &running));
}

static void pause_run(struct worker_once *once)
{
	obey_pause(ap_container_of(once, struct session, pause));
}

static void pause_rests(struct worker_once *once)
{
	session_unref(ap_container_of(once, struct session, pause));
}

void pause_init(struct session *session)
{
	worker_once_init(&session->pause, session->host->workers, pause_run, pause_rests);
}

void session_pause(struct session *session, bool pause)
{
	pthread_mutex_lock(&session->lock);
	session->paused = pause;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
	session_ref(session); /* until it rests */
	if (!worker_once_ask(&session->pause))
		session_unref(session);
}

void session_go_on(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	bool paused = session->paused;
	session->paused = false;
	pthread_mutex_unlock(&session->lock);
	if (paused)
		obey_pause(session);
}
