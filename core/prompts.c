/* What is typed into an agent's terminal: prompts, keys; and what else is done to it by hand. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "crash_point.h"
#include "file.h"
#include "jobs_internal.h"

/* Longest line that a terminal in canonical mode takes whole: N_TTY_BUF_SIZE less its end. */
#define CANONICAL_LINE 4095
/* Keys of one write: a line has 4096 bytes at most, and a blank between two. */
#define KEYS_MAX 2048

/* Line ends become newlines, and what could drive the terminal is left out: a prompt is text. */
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
		/* a C1 control in UTF-8, whatever stood between its two bytes */
		if (c >= 0x80 && c < 0xa0 && n > 0 && (unsigned char)text[n - 1] == 0xc2)
			n--;
		else if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f))
			text[n++] = (char)c;
	}
	if (n > 0 && text[n - 1] == '\n')
		n--; /* the shell's own */
	return n;
}

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

int agent_press(struct ap_agent *agent, const char *keys_text, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	const char *keys[KEYS_MAX + 1];
	AP_CLEANUP_FREE char *text = strdup(keys_text);
	char *cursor = text;
	size_t n = 0;
	if (!text)
		return ap_err_errno(err, -ENOMEM, "keys");
	while (n < KEYS_MAX && (keys[n] = ap_word_next(&cursor)))
		n++;
	keys[n] = NULL;
	return n > 0 ? pool->backend->ops->keys(pool->backend, &agent->terminal, keys, err) : 0;
}

/* --- delivery to a program with a terminal ---
 *
 * A prompt is pasted, and submitted once it is seen to be there. Enter is given again only while
 * the text still stands in the input field of a program that is ready: an Enter too many would
 * answer the next question, text typed twice would be two prompts. Keys that are typed by hand come
 * before the text or after Enter, unless that takes too long. */

#define POLL_PAUSE_MS  60
#define SETTLE_LIMIT   (4 * AP_SECOND)	/* for the text to show */
#define BLIND_LIMIT    AP_SECOND	/* likewise, of a program that may show nothing */
#define EVIDENCE_LIMIT (1200 * AP_MS)	/* for Enter to have an effect */
#define SHELL_LIMIT    (10 * AP_SECOND) /* likewise, of a shell: it shows a new line, if late */
#define BYTE_LIMIT     (AP_MS / 100)	/* more for every byte that is to be read before it */
#define ECHO_LIMIT     (300 * AP_MS)	/* for a shell to show what was typed */
#define ECHO_PAUSE_MS  10
#define PUT_BACK_PAUSE (200 * AP_MS) /* before a prompt is tried that came too early */
#define ENTER_TRIES    3
#define KEYS_PATIENCE  (5 * AP_SECOND) /* of keys, for Enter: they may be to break it off */

enum outcome {
	SUBMITTED,
	TYPED_NOT_SUBMITTED,
	NO_EVIDENCE, /* of a program whose profile knows its input field, the text never came there;
			else it may well have been taken */
};

/* What is being delivered, and what of it has been seen. */
struct delivery {
	struct ap_agent *agent;
	bool composes; /* the profile knows the input field */
	bool typing;   /* it holds the agent's lock of that name */
	size_t len;    /* of the text that goes before Enter */
	struct ap_buf screen, before;
	struct activity_signal seen;
	enum profile_composer composer;
};

static void end_typing(struct delivery *delivery)
{
	if (delivery->typing)
		pthread_mutex_unlock(&delivery->agent->typing);
	delivery->typing = false;
}

static void delivery_fini(struct delivery *delivery)
{
	end_typing(delivery);
	ap_buf_fini(&delivery->screen);
	ap_buf_fini(&delivery->before);
}

static void look(struct delivery *delivery)
{
	agent_look(delivery->agent, &delivery->screen, &delivery->seen);
	delivery->composer =
		profile_composer(delivery->agent->pool->profile, ap_buf_text(&delivery->screen));
}

/* Keeps what was seen last, to see what changes. */
static void remember(struct delivery *delivery)
{
	delivery->before.len = 0;
	ap_buf_adds(&delivery->before, ap_buf_text(&delivery->screen));
}

static bool has_changed(const struct delivery *delivery)
{
	return strcmp(ap_buf_text(&delivery->screen), ap_buf_text(&delivery->before)) != 0;
}

/* The lease has ended meanwhile: the agent is wanted for something else. */
static bool is_over(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	bool ends = agent->effect_queued && agent->next_effect.type != EFFECT_VALIDATE;
	bool over = ends || agent->gone || agent->ended;
	pthread_mutex_unlock(&agent->pool->lock);
	return over;
}

static int over(const struct ap_agent *agent, struct ap_err *err)
{
	return ap_err_set(err, -ECANCELED, "the lease or the program of %s has ended", agent->name);
}

static bool seen_as(const struct delivery *delivery, enum ap_activity activity)
{
	return delivery->seen.found && delivery->seen.activity == activity;
}

/* -EAGAIN: it is not ready any more, the prompt waits on. -EIO: somebody's text is in the way. */
static int may_type(struct delivery *delivery, struct ap_err *err)
{
	struct ap_agent *agent = delivery->agent;
	int64_t deadline = ap_clock_ns() + SETTLE_LIMIT / 2;
	if (!profile_values(agent->pool->profile)->rules.tells_ready) {
		look(delivery);
		return 0;
	}
	for (;;) {
		look(delivery);
		if (is_over(agent))
			return over(agent, err);
		if (!seen_as(delivery, AP_ACTIVITY_READY)) {
			pthread_mutex_lock(&agent->pool->lock);
			agent->screen = delivery->seen; /* or it would be taken for ready again */
			pthread_mutex_unlock(&agent->pool->lock);
			return -EAGAIN;
		}
		if (delivery->composer != COMPOSER_FILLED)
			return 0;
		if (ap_clock_ns() > deadline)
			return ap_err_set(err, -EIO,
					  "there is text in the input field of %s already",
					  agent->name);
		poll(NULL, 0, POLL_PAUSE_MS);
	}
}

/* From here to Enter nobody else types. -EAGAIN: somebody has, just now; the prompt waits on. */
static int begin_typing(struct delivery *delivery)
{
	pthread_mutex_lock(&delivery->agent->typing);
	delivery->typing = true;
	if (!delivery->composes)
		return 0;
	look(delivery);
	return delivery->composer == COMPOSER_FILLED ? -EAGAIN : 0;
}

/* Waits until the text is seen to be there, twice alike; or long enough for a program that may show
 * nothing. False when it does not come. */
static bool await_typed(struct delivery *delivery)
{
	AP_CLEANUP_BUF struct ap_buf last = {0};
	int64_t start = ap_clock_ns();
	remember(delivery);
	for (;;) {
		poll(NULL, 0, POLL_PAUSE_MS);
		last.len = 0;
		ap_buf_adds(&last, ap_buf_text(&delivery->screen));
		look(delivery);
		bool shown = has_changed(delivery) && delivery->composer != COMPOSER_EMPTY;
		bool still = strcmp(ap_buf_text(&last), ap_buf_text(&delivery->screen)) == 0;
		int64_t waited = ap_clock_ns() - start;
		if ((shown && still) || is_over(delivery->agent)) /* submit() looks at that */
			return true;
		if (waited > (shown || delivery->composes ? SETTLE_LIMIT : BLIND_LIMIT))
			return shown || !delivery->composes;
	}
}

static int64_t printed(struct ap_agent *agent)
{
	output_read(agent);
	return atomic_load(&agent->raw.size);
}

/* Whether Enter had an effect: the input field is empty, it works or asks; where the field is not
 * known, something was printed. */
static bool await_submitted(struct delivery *delivery, int64_t printed_before)
{
	struct ap_agent *agent = delivery->agent;
	bool shell = profile_values(agent->pool->profile)->rules.shell;
	int64_t deadline = ap_clock_ns() + (shell ? SHELL_LIMIT : EVIDENCE_LIMIT);
	if (!delivery->composes)
		deadline += (int64_t)delivery->len * BYTE_LIMIT;
	for (int pause_ms = 2; ap_clock_ns() < deadline && !is_over(agent);) {
		poll(NULL, 0, pause_ms);
		if (!delivery->composes && printed(agent) > printed_before)
			return true;
		if (pause_ms < POLL_PAUSE_MS) {
			pause_ms *= 2;
			continue;
		}
		if (!delivery->composes)
			continue;
		look(delivery);
		if (delivery->composer == COMPOSER_EMPTY || seen_as(delivery, AP_ACTIVITY_BUSY) ||
		    seen_as(delivery, AP_ACTIVITY_WAITING))
			return true;
	}
	return false;
}

/* When it was so before. */
static int64_t note_entered(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	int64_t before = agent->entered_ns;
	agent->entered_ns = ap_clock_ns();
	pthread_mutex_unlock(&agent->pool->lock);
	return before;
}

static void note_not_entered(struct ap_agent *agent, int64_t before)
{
	pthread_mutex_lock(&agent->pool->lock);
	agent->entered_ns = before;
	pthread_mutex_unlock(&agent->pool->lock);
}

/* Takes away what was typed, where the program is seen to be ready, or was as a shell: the keys for
 * that interrupt one that works, and answer one that asks. */
static bool take_back(struct delivery *delivery)
{
	struct ap_agent *agent = delivery->agent;
	const struct profile_values *values = profile_values(agent->pool->profile);
	bool safe = values->rules.shell || seen_as(delivery, AP_ACTIVITY_READY);
	return *values->abandon && safe && agent_press(agent, values->abandon, NULL) == 0;
}

static int submit(struct delivery *delivery, enum outcome *ret, struct ap_err *err)
{
	struct ap_agent *agent = delivery->agent;
	const struct profile_values *values = profile_values(agent->pool->profile);
	if (values->pause_ns > 0)
		poll(NULL, 0, (int)(values->pause_ns / AP_MS));
	output_prompted(agent);
	for (unsigned tries = 0; tries < ENTER_TRIES; tries++) {
		int64_t before = atomic_load(&agent->raw.size);
		if (is_over(agent)) {
			if (tries == 0)
				(void)take_back(delivery);
			return over(agent, err);
		}
		if (delivery->composes && seen_as(delivery, AP_ACTIVITY_WAITING))
			break; /* Enter would be the answer */
		if (tries == 0)
			(void)note_entered(agent);
		int r = agent_press(agent, values->submit, err);
		if (!delivery->composes) /* else it may have to be given again */
			end_typing(delivery);
		if (r < 0)
			return r;
		if (await_submitted(delivery, before)) {
			*ret = SUBMITTED;
			return 0;
		}
		if (!delivery->composes) {
			*ret = NO_EVIDENCE;
			return 0;
		}
		if (delivery->composer != COMPOSER_FILLED || !seen_as(delivery, AP_ACTIVITY_READY))
			break;
	}
	*ret = TYPED_NOT_SUBMITTED;
	bool back = take_back(delivery);
	return ap_err_set(err, -EIO, "the prompt was typed, but Enter did not submit it%s",
			  back ? "; it was taken back" : "");
}

static int paste(struct ap_agent *agent, const struct ap_buf *text, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf file = {0};
	ap_buf_printf(&file, "%s/prompt", agent->dir);
	int r = file_write(ap_buf_text(&file), text->data, text->len, err);
	if (r == 0)
		r = pool->backend->ops->paste(pool->backend, &agent->terminal, ap_buf_text(&file),
					      err);
	unlink(ap_buf_text(&file));
	return r;
}

/* The terminal of a shell shows what was pasted before it is run: that is no answer to it. A shell
 * that marks its commands needs no such wait. */
static void await_echo(struct ap_agent *agent, int64_t printed_before)
{
	struct output_signs signs;
	int64_t deadline = ap_clock_ns() + ECHO_LIMIT, last = printed_before;
	output_look(agent, &signs);
	while (!signs.ends_commands && ap_clock_ns() < deadline) {
		poll(NULL, 0, ECHO_PAUSE_MS);
		int64_t now = printed(agent);
		if (now > printed_before && now == last)
			return;
		last = now;
	}
}

static int type_text(struct ap_agent *agent, const struct ap_buf *text, enum outcome *ret,
		     struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	bool shell = profile_values(pool->profile)->rules.shell;
	struct delivery delivery __attribute__((cleanup(delivery_fini))) = {
		.agent = agent,
		.composes = profile_has_composer(pool->profile),
		.len = text->len,
	};
	*ret = NO_EVIDENCE;
	if (has_long_line(ap_buf_text(text), text->len) &&
	    pool->backend->ops->canonical(pool->backend, &agent->terminal))
		return ap_err_set(err, -EMSGSIZE,
				  "a line over %d bytes would be cut by the terminal of %s",
				  CANONICAL_LINE, agent->name);
	int r = shell ? 0 : may_type(&delivery, err);
	if (r == 0 && text->len > 0) {
		int64_t before = shell ? printed(agent) : 0;
		r = begin_typing(&delivery);
		if (r == 0)
			r = paste(agent, text, err);
		if (r == 0 && shell)
			await_echo(agent, before);
		if (r == 0 && !shell && !await_typed(&delivery)) {
			(void)take_back(&delivery);
			r = ap_err_set(err, -EIO,
				       "the prompt did not show in the input field of %s; it was "
				       "not submitted",
				       agent->name);
		}
	}
	return r < 0 ? r : submit(&delivery, ret, err);
}

int agent_command(struct ap_agent *agent, const char *text, struct ap_err *err)
{
	struct delivery delivery __attribute__((cleanup(delivery_fini))) = {
		.agent = agent, .composes = profile_has_composer(agent->pool->profile)};
	enum outcome outcome;
	int r = may_type(&delivery, err);
	if (r == 0)
		r = begin_typing(&delivery);
	/* a command is typed, as one word: pasted it would be text */
	if (r == 0)
		r = agent->pool->backend->ops->keys(agent->pool->backend, &agent->terminal,
						    (const char *const[]){text, NULL}, err);
	if (r == 0 && !await_typed(&delivery))
		r = ap_err_set(err, -EIO, "'%s' does not show in the input field", text);
	return r < 0 ? r : submit(&delivery, &outcome, err);
}

bool agent_await_ready(struct ap_agent *agent, int64_t limit_ns)
{
	struct delivery delivery __attribute__((cleanup(delivery_fini))) = {.agent = agent};
	for (int64_t deadline = ap_clock_ns() + limit_ns; ap_clock_ns() < deadline;) {
		look(&delivery);
		if (seen_as(&delivery, AP_ACTIVITY_READY) || is_over(agent))
			return !is_over(agent);
		poll(NULL, 0, POLL_PAUSE_MS);
	}
	return false;
}

/* --- delivery by lines --- */

/* How long a program may take to read its input. */
#define INPUT_LIMIT (30 * AP_SECOND)

static int write_input(int fd, const char *text, size_t len)
{
	int64_t deadline = ap_clock_ns() + INPUT_LIMIT;
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, text + done, len - done);
		struct pollfd room = {.fd = fd, .events = POLLOUT};
		int64_t left = deadline - ap_clock_ns();
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		else if (left <= 0 || poll(&room, 1, (int)(left / AP_MS) + 1) == 0)
			return -ETIMEDOUT;
	}
	return 0;
}

static int give_line(struct ap_agent *agent, const struct ap_buf *text, enum outcome *ret,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf line = {0};
	*ret = NO_EVIDENCE;
	int r = profile_input(agent->pool->profile, ap_buf_text(text), text->len, &line);
	if (r < 0)
		return ap_err_errno(err, r, "the prompt");
	ap_buf_printf(&path, "%s/input", agent->dir);
	AP_CLEANUP_CLOSE int fd =
		open(ap_buf_text(&path), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return ap_err_errno(err, -errno, "the input of %s", agent->name);
	output_prompted(agent);
	int64_t entered_before = note_entered(agent);
	r = agent->input_cut ? write_input(fd, "\n", 1) : 0; /* its end */
	if (r == 0)
		r = write_input(fd, line.data, line.len);
	agent->input_cut = r < 0;
	if (r < 0)
		note_not_entered(agent, entered_before);
	*ret = r < 0 ? TYPED_NOT_SUBMITTED : SUBMITTED;
	return r < 0 ? ap_err_errno(err, r, "the input of %s", agent->name) : 0;
}

/* --- the queue --- */

static int deliver(struct ap_agent *agent, struct prompt *prompt, enum outcome *ret,
		   struct ap_err *err)
{
	const struct profile *profile = agent->pool->profile;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (is_over(agent))
		return over(agent, err);
	if (prompt->is_command) {
		int r = agent_command(agent, prompt->text, err);
		*ret = r < 0 ? NO_EVIDENCE : SUBMITTED;
		return r;
	}
	if (!prompt->cleaned)
		prompt->len = clean_text(prompt->text, prompt->len);
	prompt->cleaned = true;
	if (profile_dress(profile, prompt->text, prompt->len, &text) < 0)
		return ap_err_errno(err, -ENOMEM, "prompt");
	return profile_values(profile)->stream ? give_line(agent, &text, ret, err)
					       : type_text(agent, &text, ret, err);
}

static void tell_outcome(struct ap_agent *agent, const char *label, size_t len,
			 enum outcome outcome, const struct ap_err *err)
{
	static const char *const names[] = {"submitted", "typed_not_submitted", "no_evidence"};
	events_add(agent->pool->events, "prompt",
		   EVENT_FIELDS({"agent", agent->name, 0}, {"lease", label, 0},
				{"outcome", names[outcome], 0}, {"bytes", NULL, (int64_t)len},
				{"reason", err->text, 0}));
}

static struct prompt *first_prompt(struct ap_agent *agent, char ret_label[AP_LABEL_MAX + 1])
{
	struct prompt *prompt = NULL;
	pthread_mutex_lock(&agent->pool->lock);
	memcpy(ret_label, agent->pool->view->slots[agent->slot].label.text, AP_LABEL_MAX + 1);
	if (!ap_list_empty(&agent->prompts)) {
		prompt = ap_container_of(agent->prompts.next, struct prompt, link);
		ap_list_remove(&prompt->link);
		agent->n_prompts_queued--;
		agent->prompt_bytes -= prompt->len;
	}
	pthread_mutex_unlock(&agent->pool->lock);
	return prompt;
}

/* Before anything of it reaches the program: a daemon that dies then does not give it twice. */
static void record_taken(struct ap_agent *agent, const struct prompt *prompt)
{
	struct store_txn *txn = store_txn_new();
	txn_prompt_taken(txn, agent->number, prompt->seq, true);
	(void)store_commit(agent->pool->store, txn, false,
			   NULL); /* a full disk: given all the same */
}

static void record_given(struct ap_agent *agent, const struct prompt *prompt, bool given)
{
	struct store_txn *txn = store_txn_new();
	if (given)
		txn_prompt_gone(txn, agent->number, prompt->seq);
	else
		txn_prompt_taken(txn, agent->number, prompt->seq, false);
	store_submit(agent->pool->store, txn, false, NULL, NULL);
}

static void put_back_locked(struct ap_agent *agent, struct prompt *prompt)
{
	ap_list_insert_after(&agent->prompts, &prompt->link);
	agent->n_prompts_queued++;
	agent->prompt_bytes += prompt->len;
}

static void job_prompt(struct worker_job *job)
{
	struct ap_agent *agent = ap_container_of(job, struct ap_agent, prompt_job);
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	enum outcome outcome = NO_EVIDENCE;
	char label[AP_LABEL_MAX + 1];
	struct prompt *prompt = first_prompt(agent, label); /* NULL: its lease has ended */
	if (prompt)
		record_taken(agent, prompt);
	crash_point("prompt-taken");
	int r = prompt ? deliver(agent, prompt, &outcome, &err) : 0;
	crash_point("prompt-given");
	if (prompt)
		record_given(agent, prompt, r != -EAGAIN);
	if (prompt && r != -EAGAIN)
		tell_outcome(agent, label, prompt->len, outcome, &err);
	pthread_mutex_lock(&pool->lock);
	agent->delivering = false;
	/* what said that it was ready may still do so: not before a while */
	agent_review_at(agent, ap_clock_ns() + (r == -EAGAIN ? PUT_BACK_PAUSE : 0));
	if (r == -EAGAIN) {
		put_back_locked(agent, ap_steal(prompt));
	} else if (r < 0 && r != -ECANCELED) {
		agent->prompt_error = err;
	} else if (prompt && r == 0) {
		agent->prompt_error.text[0] = '\0';
	}
	pthread_mutex_unlock(&pool->lock);
	free(prompt);
}

void job_prompt_locked(struct ap_agent *agent)
{
	agent->delivering = true;
	agent_submit(agent, &agent->prompt_job, job_prompt);
}

static int may_be_asked_locked(const struct ap_agent *agent, uint64_t token, bool even_ended,
			       struct ap_err *err)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	int r = agent_running_locked(agent, even_ended, err);
	return r < 0 ? r : pool_refused(machine_slot_stale(slot, token) ? -ESTALE : 0, err);
}

/* Whether something can be asked of it for that lease. Errors as agent_running(), and -ESTALE. */
static int may_be_asked(struct ap_agent *agent, uint64_t token, bool even_ended, struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	int r = may_be_asked_locked(agent, token, even_ended, err);
	pthread_mutex_unlock(&agent->pool->lock);
	return r;
}

static void keys_lane_release(struct worker_lane *lane)
{
	ap_agent_unref(ap_container_of(lane, struct ap_agent, keys_lane));
}

/* Keys wait for no prompt in the queue. */
static void job_in_keys_lane(struct agent_job *job)
{
	job->job.lane = &job->agent->keys_lane;
	job->job.lane_release = keys_lane_release;
	agent_ref(job->agent); /* the lane's */
	worker_submit(job->agent->pool->workers, &job->job);
}

static void job_keys(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	int64_t deadline = ap_clock_ns() + KEYS_PATIENCE;
	bool alone;
	while (!(alone = pthread_mutex_trylock(&agent->typing) == 0) && ap_clock_ns() < deadline)
		poll(NULL, 0, ECHO_PAUSE_MS);
	bool asked = may_be_asked(agent, job->token, false, NULL) == 0;
	int64_t from = asked ? ap_clock_ns() : 0;
	if (asked)
		(void)agent_press(agent, job->words, NULL); /* the terminal may have gone */
	if (alone)
		pthread_mutex_unlock(&agent->typing);
	pthread_mutex_lock(&agent->pool->lock);
	agent->keys_bytes -= strlen(job->words);
	agent_keys_typed_locked(agent, from);
	pthread_mutex_unlock(&agent->pool->lock);
	agent_job_free(job);
}

/* Whether a line of keys more would be too much. */
static int keys_refused_locked(const struct ap_agent *agent, size_t len, struct ap_err *err)
{
	if (agent->n_keys >= POOL_KEYS_MAX || agent->keys_bytes + len > POOL_KEYS_BYTES)
		return ap_err_set(err, -EAGAIN, "%u lines of keys of %zu bytes wait for %s already",
				  agent->n_keys, agent->keys_bytes, agent->name);
	return 0;
}

int ap_agent_keys(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *keys,
		  struct ap_err *err)
{
	struct agent_job *job = agent_job_new(agent, NULL, job_keys, keys);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "keys");
	job->token = token;
	pthread_mutex_lock(&pool->lock);
	int r = may_be_asked_locked(agent, token, false, err);
	if (r == 0)
		r = keys_refused_locked(agent, strlen(keys), err);
	if (r == 0) {
		agent->keys_bytes += strlen(keys);
		agent_keys_begin_locked(agent);
	}
	pthread_mutex_unlock(&pool->lock);
	if (r == 0)
		job_in_keys_lane(job);
	else
		agent_job_free(job);
	return r;
}

/* Whether its processes are to stand still: the last word counts, and what is to end goes on. */
static bool is_to_stop(struct ap_agent *agent, struct backend_terminal *ret_running)
{
	pthread_mutex_lock(&agent->pool->lock);
	bool stop = agent->paused && !agent->ending && !agent->ended;
	*ret_running = agent->running;
	pthread_mutex_unlock(&agent->pool->lock);
	return stop;
}

void agent_obey_pause(struct ap_agent *agent)
{
	struct backend *backend = agent->pool->backend;
	struct backend_terminal running;
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/paused", agent->dir);
	bool stop;
	do {
		stop = is_to_stop(agent, &running);
		if (stop) /* for the next daemon */
			(void)file_write(ap_buf_text(&path), "", 0, NULL);
		else
			agent_remove_record(agent, "paused");
		(void)backend->ops->pause(backend, &running, stop); /* it has ended, perhaps */
	} while (stop != is_to_stop(agent, &running));
}

static void pause_run(struct worker_once *once)
{
	agent_obey_pause(ap_container_of(once, struct ap_agent, pause));
}

static void pause_rests(struct worker_once *once)
{
	ap_agent_unref(ap_container_of(once, struct ap_agent, pause));
}

void pause_init(struct ap_agent *agent)
{
	worker_once_init(&agent->pause, agent->pool->workers, pause_run, pause_rests);
}

static void job_pause(struct ap_agent *agent)
{
	agent_ref(agent); /* until it rests */
	if (!worker_once_ask(&agent->pause))
		ap_agent_unref(agent);
}

/* As may_be_asked(), of the program that there is: -EBUSY on the way to the next one, or to the
 * next lease, which would find it so. */
static int may_be_commanded_locked(const struct ap_agent *agent, uint64_t token, bool even_ended,
				   struct ap_err *err)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	int r = may_be_asked_locked(agent, token, even_ended, err);
	bool rests = slot->state == AP_AGENT_IDLE || machine_slot_leased(slot);
	if (r == 0 && (!rests || agent->restarting))
		r = ap_err_set(err, -EBUSY, "%s is being made ready", agent->name);
	return r;
}

int ap_agent_pause(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, bool pause,
		   struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = may_be_commanded_locked(agent, token, false, err);
	if (r == 0) {
		agent->paused = pause;
		agent_review_now(agent);
		job_pause(agent);
	}
	pthread_mutex_unlock(&pool->lock);
	return r;
}

static void job_restart(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	int r = agent_end_program(agent, &err);
	if (r == 0)
		r = launch_program(agent, LAUNCH_AGAIN, &err);
	crash_point("restart-program");
	if (r == 0)
		(void)agent_record_program(agent, &err); /* else the next daemon ends it */
	if (r < 0) {
		events_add(agent->pool->events, "restart_failed",
			   EVENT_FIELDS({"agent", agent->name, 0}, {"reason", err.text, 0}));
		agent_restart_failed(agent, &err);
	}
	agent_job_free(job);
}

int ap_agent_restart(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err)
{
	struct agent_job *job = agent_job_new(agent, NULL, job_restart, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "restart");
	pthread_mutex_lock(&pool->lock);
	int r = may_be_commanded_locked(agent, token, true, err);
	if (r == 0)
		agent_restarts_locked(agent);
	pthread_mutex_unlock(&pool->lock);
	if (r < 0) {
		agent_job_free(job);
		return r;
	}
	agent_job_in_lane(job);
	return 0;
}

static void job_commit(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	int r = atomic_load(&job->request->answered) ? -ECANCELED : 0; /* while it waited */
	if (r == 0)
		r = may_be_asked(agent, job->token, true, &err);
	if (r == 0 && !(agent->lease_open && agent->lease_held))
		r = ap_err_set(&err, -ENOENT, "%s serves no lease", agent->name);
	if (r == 0)
		r = worktree_commit(&agent->worktree, &agent->lease, job->words, &err);
	request_answer(job->request, r, &err);
	pthread_mutex_lock(&agent->pool->lock);
	agent->n_commits--;
	pthread_mutex_unlock(&agent->pool->lock);
	agent_job_free(job);
}

int ap_agent_commit(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		    const char *message, struct ap_request *request, struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, request, job_commit, message);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "commit");
	job->token = token;
	pthread_mutex_lock(&pool->lock);
	r = may_be_asked_locked(agent, token, true, err);
	if (r == 0 && agent->n_commits >= POOL_COMMITS_MAX)
		r = ap_err_set(err, -EAGAIN, "%u commits wait for %s already", agent->n_commits,
			       agent->name);
	agent->n_commits += r == 0;
	pthread_mutex_unlock(&pool->lock);
	if (r == 0) {
		agent_job_in_lane(job);
		return 0;
	}
	ap_request_free(request); /* the job's reference */
	agent_job_free(job);
	return r;
}
