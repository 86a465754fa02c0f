#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "driver.h"
#include "session_internal.h"

/* Between two captures of a screen that changes all the time. */
#define LOOK_PAUSE (100 * AP_MS)

/* The shim records the program's pid a moment after the start. */
#define PID_PAUSE (10 * AP_MS)
#define PID_LIMIT (5 * AP_SECOND)

static void review(struct session *session);

/* --- its life --- */

static void on_program_ends(struct loop_source *source)
{
	struct session *session = ap_container_of(source, struct session, program_ends);
	pthread_mutex_lock(&session->lock);
	unsigned start = session->start;
	bool over = is_over_locked(session); /* again: another program may run since the event */
	if (over)
		(void)loop_watch_fd(session->host->loop, source, -1);
	pthread_mutex_unlock(&session->lock);
	if (over)
		program_ended(session, start);
}

static void on_output(struct loop_source *source)
{
	session_read_on(ap_container_of(source, struct session, output_grows));
}

static void on_errors(struct loop_source *source)
{
	session_read_on(ap_container_of(source, struct session, errors_grow));
}

static void on_review(struct loop_source *source)
{
	review(ap_container_of(source, struct session, review));
}

static bool add_sources(struct session *session)
{
	struct loop *loop = session->host->loop;
	return loop_add(loop, &session->program_ends, on_program_ends) == 0 &&
	       loop_add(loop, &session->output_grows, on_output) == 0 &&
	       loop_add(loop, &session->errors_grow, on_errors) == 0 &&
	       loop_add(loop, &session->review, on_review) == 0 &&
	       (!session->driver->joins || session->driver->joins(session));
}

static void remove_sources(struct session *session)
{
	struct loop *loop = session->host->loop;
	loop_remove(loop, &session->program_ends);
	loop_remove(loop, &session->output_grows);
	loop_remove(loop, &session->errors_grow);
	loop_remove(loop, &session->review);
	if (session->driver->leaves)
		session->driver->leaves(session);
}

static void limit_run(struct worker_once *once)
{
	limit_tell(ap_container_of(once, struct session, limit_tells));
}

static void limit_rests(struct worker_once *once)
{
	session_unref(ap_container_of(once, struct session, limit_tells));
}

/* Does not touch the host, which may be freed by then. */
static void session_free(struct session *session)
{
	const int fds[] = {session->over_fd, session->program_fd};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	while (!ap_list_empty(&session->prompts)) {
		struct prompt *prompt = ap_container_of(session->prompts.next, struct prompt, link);
		ap_list_remove(&prompt->link);
		session_prompt_free(prompt);
	}
	if (session->driver->fini)
		session->driver->fini(session);
	output_fini(session);
	pthread_mutex_destroy(&session->typing);
	pthread_mutex_destroy(&session->lock);
	free(session->dir);
	free(session->cwd);
	free(session->git_dir);
	free(session->hide);
	free(session->env);
	free(session);
}

struct session *session_new(struct session_host *host, const struct session_place *place,
			    const struct session_callbacks *callbacks, void *owner)
{
	struct session *session = calloc(1, sizeof *session);
	if (!session)
		return NULL;
	atomic_init(&session->n_refs, 1);
	session->host = host;
	session->driver = host->driver;
	session->callbacks = callbacks;
	session->owner = owner;
	snprintf(session->name, sizeof session->name, "%s", place->name);
	session->dir = strdup(place->dir);
	session->cwd = strdup(place->cwd);
	session->git_dir = strdup(place->git_dir ? place->git_dir : "");
	session->over_fd = session->program_fd = -1;
	session->started_ns = ap_clock_ns();
	snprintf(session->why, sizeof session->why, "start: being made");
	ap_list_init(&session->prompts);
	ap_list_init(&session->waits);
	worker_lane_init(&session->lane);
	worker_lane_init(&session->keys_lane);
	pthread_mutex_init(&session->typing, NULL);
	pthread_mutex_init(&session->lock, NULL);
	output_init(session);
	pause_init(session);
	rule_init(session);
	worker_once_init(&session->limit_tells, host->workers, limit_run, limit_rests);
	bool init = !session->driver->init || session->driver->init(session);
	if (!init || !session->dir || !session->cwd || !session->git_dir || !add_sources(session)) {
		remove_sources(session);
		session_free(session);
		return NULL;
	}
	return session;
}

void session_ref(struct session *session)
{
	atomic_fetch_add(&session->n_refs, 1);
}

void session_unref(struct session *session)
{
	if (atomic_fetch_sub(&session->n_refs, 1) != 1)
		return;
	void (*freed)(void *) = session->callbacks->freed;
	void *owner = session->owner;
	session_free(session);
	freed(owner);
}

static void lane_release(struct worker_lane *lane)
{
	session_unref(ap_container_of(lane, struct session, lane));
}

void session_submit(struct session *session, struct worker_job *job,
		    void (*run)(struct worker_job *))
{
	*job = (struct worker_job){
		.run = run, .lane = &session->lane, .lane_release = lane_release};
	session_ref(session); /* the lane's, until lane_release */
	worker_submit(session->host->workers, job);
}

struct session_job *session_job_new(struct session *session, void (*run)(struct worker_job *),
				    const char *words)
{
	struct session_job *job = calloc(1, sizeof *job + strlen(words) + 1);
	if (!job)
		return NULL;
	job->job.run = run;
	job->session = session;
	session_ref(session);
	strcpy(job->words, words);
	return job;
}

void session_job_free(struct session_job *job)
{
	session_unref(job->session);
	free(job);
}

void session_fence(struct session *session, uint64_t token)
{
	pthread_mutex_lock(&session->lock);
	session->token = token;
	pthread_mutex_unlock(&session->lock);
}

void session_break_off(struct session *session, bool wanted)
{
	pthread_mutex_lock(&session->lock);
	session->wanted = wanted;
	pthread_mutex_unlock(&session->lock);
}

/* --- waits for the program to settle --- */

static bool is_settled_locked(const struct session *session)
{
	return session->closed ||
	       (session->activity != AP_ACTIVITY_BUSY && session->activity != AP_ACTIVITY_STARTING);
}

/* The result that readers of wait and response get: -EIO when the last prompt was not delivered. */
static int settled_result(enum ap_activity activity, const struct ap_err *prompt_error)
{
	return prompt_error->text[0] && activity != AP_ACTIVITY_EXITED ? -EIO : 0;
}

/* Answers all waits of the list with an error and its sentence, or with the activity. */
static void answer_waits(struct session *session, struct ap_list *waits, int result,
			 enum ap_activity activity, const struct ap_err *err)
{
	for (;;) { /* session_unwait() may remove a wait from the list meanwhile */
		struct session_wait *wait = NULL;
		pthread_mutex_lock(&session->lock);
		if (!ap_list_empty(waits)) {
			wait = ap_container_of(waits->next, struct session_wait, link);
			ap_list_remove(&wait->link);
		}
		pthread_mutex_unlock(&session->lock);
		if (!wait)
			return;
		wait->done(wait, result, activity, err);
	}
}

void session_refuse_waits(struct session *session, int error, const struct ap_err *err)
{
	struct ap_list waits;
	ap_list_init(&waits);
	pthread_mutex_lock(&session->lock);
	ap_list_splice(&session->waits, &waits);
	pthread_mutex_unlock(&session->lock);
	answer_waits(session, &waits, error, AP_ACTIVITY_EXITED, err);
}

void session_close(struct session *session)
{
	struct ap_err err;
	pthread_mutex_lock(&session->lock);
	session->closed = true;
	pthread_mutex_unlock(&session->lock);
	ap_err_set(&err, -ENODEV, "%s is gone", session->name);
	session_refuse_waits(session, -ENODEV, &err);
	remove_sources(session);
}

int session_wait(struct session *session, struct session_wait *wait, bool nonblock,
		 struct ap_err *err)
{
	struct ap_err why = {""};
	pthread_mutex_lock(&session->lock);
	enum ap_activity activity = session->activity;
	bool closed = session->closed, settled = is_settled_locked(session);
	ap_list_init(&wait->link);
	if (!settled && !nonblock)
		ap_list_append(&session->waits, &wait->link);
	else if (!closed)
		why = session->prompt_error;
	pthread_mutex_unlock(&session->lock);
	if (!settled)
		return nonblock ? ap_err_set(err, -EAGAIN, "%s is %s", session->name,
					     ap_activity_name(activity))
				: 0;
	int r = closed ? ap_err_set(&why, -ENODEV, "%s is gone", session->name)
		       : settled_result(activity, &why);
	wait->done(wait, r, activity, &why);
	return 0;
}

bool session_unwait(struct session *session, struct session_wait *wait)
{
	pthread_mutex_lock(&session->lock);
	bool waits = !ap_list_empty(&wait->link);
	ap_list_remove(&wait->link);
	pthread_mutex_unlock(&session->lock);
	return waits;
}

bool session_has_settled(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	bool settled = is_settled_locked(session);
	pthread_mutex_unlock(&session->lock);
	return settled;
}

/* --- the activity --- */

static bool prompted_locked(const struct session *session)
{
	return session->n_prompts_open > 0 || session->n_prompts_queued > 0 || session->delivering;
}

/* Whether a program that goes on with a conversation looks ready for so short a while that it may
 * be about to show that, and lose what is typed. */
static bool takes_up_locked(struct session *session, enum ap_activity concluded)
{
	int64_t settle_ns = profile_values(session->host->profile)->settle_ns;
	int64_t now = ap_clock_ns();
	if (!session->resumed || session->shows_conversation || session->started_ready ||
	    concluded != AP_ACTIVITY_READY) {
		session->looks_ready_ns = 0;
		return false;
	}
	if (session->looks_ready_ns == 0)
		session->looks_ready_ns = now;
	if (now >= ap_clock_after(session->looks_ready_ns, settle_ns))
		return false;
	session_review_by(session, ap_clock_after(session->looks_ready_ns, settle_ns));
	return true;
}

/* Sets the activity. A pause, keys or prompts make the session busy, whatever its program does; not
 * if it has exited, and prompts not while it waits for a human, or for the end of a limit. */
static void activity_set_locked(struct session *session, const struct activity *concluded)
{
	session->activity = concluded->activity;
	session_review_by(session, concluded->recheck_ns); /* keeps an earlier review */
	memcpy(session->why, concluded->why, sizeof session->why);
	if (concluded->activity == AP_ACTIVITY_READY || concluded->activity == AP_ACTIVITY_LIMITED)
		session->started_ready = true;
	if (session->paused && concluded->activity != AP_ACTIVITY_EXITED) {
		session->activity = AP_ACTIVITY_BUSY;
		snprintf(session->why, sizeof session->why, "pause: asked for");
		return;
	}
	if ((session->n_keys > 0 || session->ruling) && concluded->activity != AP_ACTIVITY_EXITED) {
		session->activity = AP_ACTIVITY_BUSY;
		snprintf(session->why, sizeof session->why, "keys: being typed");
		return;
	}
	if (session->n_cancels > 0 && concluded->activity != AP_ACTIVITY_EXITED) {
		session->activity = AP_ACTIVITY_BUSY;
		snprintf(session->why, sizeof session->why, "cancel: asked for");
		return;
	}
	bool holds = concluded->activity == AP_ACTIVITY_WAITING ||
		     concluded->activity == AP_ACTIVITY_LIMITED;
	if (concluded->activity == AP_ACTIVITY_EXITED || (holds && !session->delivering) ||
	    !prompted_locked(session))
		return;
	session->activity = AP_ACTIVITY_BUSY;
	const char *prompt = session->delivering	   ? "being submitted"
			     : session->n_prompts_open > 0 ? "being written"
							   : "queued";
	snprintf(session->why, sizeof session->why, "prompt: %s; %.96s", prompt, concluded->why);
}

/* Evidence about the program of one start, gathered without the session's lock. */
struct evidence {
	unsigned start;
	pid_t program; /* 0: not known yet */
	bool running;
	struct output_signs signs;
	struct activity_look look;
	bool line_goes_on; /* its last line is a prompt for the rest of a command */
};

/* Reads the rest of the output, and the state of the processes. */
static void gather(struct session *session, struct evidence *ret)
{
	const struct activity_rules *rules = &profile_values(session->host->profile)->rules;
	struct backend *backend = session->host->backend;
	*ret = (struct evidence){.start = 0};
	pthread_mutex_lock(&session->lock);
	ret->program = session->program;
	ret->start = session->start;
	ret->running = session->started && !session->ended;
	bool reads_on = session->reads_on;
	const struct backend_terminal running_in = session->running;
	session->reads_on = false;
	pthread_mutex_unlock(&session->lock);
	if (reads_on)
		session_read_on(session);
	if (ret->running && ret->program == 0) {
		know_program(session, ret->start);
		pthread_mutex_lock(&session->lock);
		ret->program = session->program;
		pthread_mutex_unlock(&session->lock);
	}
	if (ret->running && ret->program && (rules->shell || rules->terminal))
		ret->look =
			activity_look(ret->program, !backend->ops->canonical(backend, &running_in));
	output_look(session, &ret->signs);
	struct activity_signal line = {.found = false};
	if (rules->shell)
		(void)profile_judge(session->host->profile, PROFILE_LINE, ret->signs.line, NULL,
				    &line);
	ret->line_goes_on = line.found;
}

static struct activity_input input_locked(const struct session *session,
					  const struct evidence *evidence)
{
	const struct output_signs *signs = &evidence->signs;
	return (struct activity_input){
		.ended = session->ended,
		.ended_how = session->ended_how,
		.started_ready = session->started_ready,
		.runs_command = signs->runs_command,
		.marks = signs->ends_commands,
		.marked_ns = signs->marked_ns,
		.prompt_mark_ns = signs->prompt_mark_ns,
		.line = signs->line,
		.line_goes_on = evidence->line_goes_on,
		.prompt = session->prompt,
		.entered_ns = session->entered_ns,
		.keys_from_ns = session->keys_from_ns,
		.keys_ns = session->keys_ns,
		.output_ns = session->output_ns,
		.started_ns = session->started_ns,
		.look = evidence->look,
		.screen = session->screen,
		.cursor_waits = session->cursor_waits,
		.told = signs->told,
		.hook = session->hook,
		.title_busy_ns = signs->title_busy_ns,
	};
}

/* Learns the line of a shell's primary prompt. With OSC 133 markers: the line behind each end of a
 * command, once the shell reads; without: the line when the shell is ready for the first time. */
static void learn_prompt_locked(struct session *session, const struct output_signs *signs,
				const struct activity_look *look, const struct activity *concluded,
				int64_t now)
{
	bool reads =
		look->known && look->foreground == look->program && look->reads == READS_PROMPT;
	bool anew = signs->ends_commands && signs->marked_ns > session->prompt_ns &&
		    signs->marked_ns > session->entered_ns && !signs->runs_command;
	bool first = !signs->ends_commands && !session->started_ready;
	if (!reads || concluded->activity != AP_ACTIVITY_READY || !(anew || first))
		return;
	memcpy(session->prompt, signs->line, sizeof session->prompt);
	session->prompt_ns = now;
}

/* Captures and judges the screen; types the profile's answer to a question that it always answers,
 * once a question, and leaves others to the rules of the lease. */
static void job_look_at_screen(struct worker_job *worker_job)
{
	struct session_job *job = ap_container_of(worker_job, struct session_job, job);
	struct session *session = job->session;
	struct backend *backend = session->host->backend;
	AP_CLEANUP_BUF struct ap_buf screen = {0};
	struct activity_signal signal;
	pthread_mutex_lock(&session->lock);
	unsigned start = session->start;
	pthread_mutex_unlock(&session->lock);
	look_at_screen(session, &screen, &signal);
	struct profile_limit limit;
	(void)profile_limited(session->host->profile, false, ap_buf_text(&screen), limit_now_s(),
			      &limit);
	bool cursor_waits = profile_values(session->host->profile)->rules.terminal &&
			    backend->ops->cursor_waits(backend, &session->terminal);
	bool asks = signal.found && signal.activity == AP_ACTIVITY_WAITING;
	const char *keys =
		asks ? profile_auto_answer(session->host->profile, ap_buf_text(&screen)) : NULL;
	count_by_screen(session, &screen);
	if (screen.len > 0) /* else the terminal could not be looked at */
		rule_on_screen(session, asks && !keys ? ap_buf_text(&screen) : NULL);
	pthread_mutex_lock(&session->lock);
	session->looking = false;
	if (session->start == start) {
		session->screen = signal;
		session->cursor_waits = cursor_waits;
		session->shows_conversation |=
			profile_resumed(session->host->profile, ap_buf_text(&screen));
	}
	if (session->start == start && screen.len > 0)
		limit_on_screen_locked(session, &limit, &signal);
	bool answers = keys && !session->answered && session->start == start;
	session->answered = asks && (session->answered || answers);
	session_review_now(session);
	if (answers)
		keys_begin_locked(session);
	pthread_mutex_unlock(&session->lock);
	int64_t from = ap_clock_ns();
	if (answers && send_keys(session, keys, NULL) == 0)
		session->callbacks->note(session->owner, SESSION_AUTO_ANSWER, keys);
	if (answers) {
		pthread_mutex_lock(&session->lock);
		keys_typed_locked(session, from);
		pthread_mutex_unlock(&session->lock);
	}
	session_job_free(job);
}

static void job_look_locked(struct session *session)
{
	struct session_job *job = session_job_new(session, job_look_at_screen, "");
	if (!job) { /* ENOMEM: try again later */
		session_review_at(session, ap_clock_ns() + AP_SECOND);
		return;
	}
	session->looking = true;
	worker_submit(session->host->workers, &job->job);
}

/* Makes a worker capture a screen that has changed, but once in LOOK_PAUSE at most. */
static void look_soon_locked(struct session *session, int64_t now)
{
	int64_t due = session->screen.at_ns + LOOK_PAUSE;
	if (session->looking)
		return; /* the review behind that capture asks again if it was too early */
	if (now >= due)
		job_look_locked(session);
	else
		session_review_by(session, due);
}

static void job_learn(struct worker_job *worker_job)
{
	struct session_job *job = ap_container_of(worker_job, struct session_job, job);
	atomic_store(&job->session->learning, false);
	session_learn_conversation(job->session);
	count_by_conversation(job->session);
	session_job_free(job);
}

/* Has a worker read which conversation the program is in, if its profile says how. */
static void learn_conversation_soon(struct session *session)
{
	const struct profile_values *values = profile_values(session->host->profile);
	bool wanted = *values->conversations || *values->conversation_logs ||
		      profile_says_usage(session->host->profile, PROFILE_CONVERSATION);
	if (!wanted || atomic_exchange(&session->learning, true))
		return; /* the waiting job reads when it runs */
	struct session_job *job = session_job_new(session, job_learn, "");
	if (job)
		worker_submit(session->host->workers, &job->job);
	else
		atomic_store(&session->learning, false);
}

/* Whether the activity may be concluded from evidence about the program of that start. */
static bool may_review_locked(struct session *session, unsigned start)
{
	if (!session->started || session->closed || session->restarting ||
	    atomic_load(&session->host->closed))
		return false;
	if (session->start == start)
		return true;
	session_review_now(session); /* another program has started since the evidence */
	return false;
}

/* Concludes the activity, and when to review it again. */
static enum ap_activity conclude_locked(struct session *session, const struct evidence *evidence,
					int64_t now)
{
	const struct activity_rules *rules = &profile_values(session->host->profile)->rules;
	const struct activity_input input = input_locked(session, evidence);
	struct activity concluded = activity_conclude(rules, &input, &session->memory, now);
	enum ap_activity before = session->activity;
	char why_before[ACTIVITY_WHY_MAX];
	memcpy(why_before, session->why, sizeof why_before);
	if (rules->shell)
		learn_prompt_locked(session, &evidence->signs, &evidence->look, &concluded, now);
	if (takes_up_locked(session, concluded.activity)) {
		concluded.activity = AP_ACTIVITY_STARTING;
		snprintf(concluded.why, sizeof concluded.why, "start: takes up its conversation");
	}
	limit_conclude_locked(session, &evidence->signs, &concluded, now);
	if (session->limit_news) {
		session->limit_news = false;
		session_ref(session); /* until it rests */
		if (!worker_once_ask(&session->limit_tells))
			session_unref(session);
	}
	activity_set_locked(session, &concluded);
	if (session->activity != before || strcmp(session->why, why_before) != 0)
		tell_changed(session);
	if (evidence->program == 0 && evidence->running && now < session->started_ns + PID_LIMIT)
		session_review_by(session, now + PID_PAUSE);
	if (concluded.wants_look)
		look_soon_locked(session, now);
	return concluded.activity;
}

/* Queues the delivery of the next prompt to a program that is ready; drops the prompts to a program
 * that has ended. Returns the seq of the last one dropped; 0: none. */
static uint64_t go_on_with_prompts_locked(struct session *session, enum ap_activity concluded)
{
	if (concluded == AP_ACTIVITY_EXITED)
		return drop_prompts_locked(session);
	if (concluded == AP_ACTIVITY_READY && session->n_prompts_queued > 0 &&
	    !session->delivering && !session->paused)
		job_prompt_locked(session);
	return 0;
}

/* Concludes the activity again, answers waits, hands the next prompt to a worker. Reads /proc. In
 * the loop's thread. */
static void review(struct session *session)
{
	int64_t now = ap_clock_ns();
	struct evidence evidence;
	struct ap_list waits;
	ap_list_init(&waits);
	gather(session, &evidence);
	pthread_mutex_lock(&session->lock);
	if (!may_review_locked(session, evidence.start)) {
		pthread_mutex_unlock(&session->lock);
		return;
	}
	enum ap_activity concluded = conclude_locked(session, &evidence, now);
	uint64_t dropped = go_on_with_prompts_locked(session, concluded);
	if (is_settled_locked(session))
		ap_list_splice(&session->waits, &waits);
	enum ap_activity activity = session->activity, told = session->told;
	char why[ACTIVITY_WHY_MAX];
	memcpy(why, session->why, sizeof why);
	session->told = activity;
	struct ap_err error = session->prompt_error;
	pthread_mutex_unlock(&session->lock);
	if (activity != told)
		learn_conversation_soon(session);
	if (activity != told)
		session->callbacks->activity(session->owner, told, activity, why);
	if (dropped)
		session->callbacks->prompts_dropped(session->owner, dropped);
	answer_waits(session, &waits, settled_result(activity, &error), activity, &error);
}

int session_hook(struct session *session, enum ap_activity activity, struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	int r = running_locked(session, true, err);
	if (r == 0) {
		session->hook = (struct activity_signal){
			.at_ns = ap_clock_ns(), .found = true, .activity = activity};
		snprintf(session->hook.why, sizeof session->hook.why, "hook: wrote %s",
			 ap_activity_name(activity));
		session_review_now(session);
	}
	pthread_mutex_unlock(&session->lock);
	return r;
}

/* --- reading --- */

void session_info(struct session *session, struct session_info *ret)
{
	pthread_mutex_lock(&session->lock);
	*ret = (struct session_info){
		.activity = session->activity,
		.pid = session->program,
		.started = session->started,
		.ended = session->ended,
		.restarting = session->restarting,
		.start = session->start,
		.exit_time = session->exit_time,
		.output_size = atomic_load(&session->plain.size),
		.raw_size = atomic_load(&session->raw.size),
		.calls_size = atomic_load(&session->calls.size),
		.usage_known = session->usage_known,
		.usage = session->usage,
		.cpu_percent = session->cpu.percent,
		.usage_ns = session->cpu.at_ns,
		.until_s = limit_until_locked(session),
	};
	memcpy(ret->why, session->why, sizeof ret->why);
	memcpy(ret->exit_how, session->exit_how, sizeof ret->exit_how);
	memcpy(ret->conversation, session->conversation, sizeof ret->conversation);
	pthread_mutex_unlock(&session->lock);
}

int session_screen(struct session *session, int64_t limit_ns, struct ap_buf *ret,
		   struct ap_err *err)
{
	struct backend *backend = session->host->backend;
	if (backend_has_terminals(backend))
		return backend->ops->capture(backend, &session->terminal, false, limit_ns, ret,
					     err);
	session_read_on(session);
	int r = output_last_lines(session, ret);
	return r < 0 ? ap_err_errno(err, r, "the output of %s", session->name) : 0;
}

int session_attach(struct session *session, struct ap_buf *ret, struct ap_err *err)
{
	struct backend *backend = session->host->backend;
	if (!backend->ops->attach)
		return ap_err_set(err, -EOPNOTSUPP, "the program of %s runs without a terminal",
				  session->name);
	return backend->ops->attach(backend, session->name, ret, err);
}

/* The answer to the last prompt: as the profile finds it on the terminal, else the output since. */
int session_response(struct session *session, struct ap_buf *ret, struct ap_err *err)
{
	struct backend *backend = session->host->backend;
	const struct profile *profile = session->host->profile;
	AP_CLEANUP_BUF struct ap_buf terminal = {0};
	pthread_mutex_lock(&session->lock);
	bool prompted = session->prompted; /* else the terminal shows the last lease's answers */
	pthread_mutex_unlock(&session->lock);
	if (prompted && profile_has_answer(profile) && backend_has_terminals(backend) &&
	    backend->ops->capture(backend, &session->terminal, true, 0, &terminal, NULL) == 0 &&
	    profile_answer(profile, ap_buf_text(&terminal), ret))
		return 0;
	session_read_on(session);
	int r = output_response(session, ret);
	return r < 0 ? ap_err_errno(err, r, "the output of %s", session->name) : 0;
}

void session_told(struct session *session, enum session_told what, struct ap_buf *ret)
{
	pthread_mutex_lock(&session->output_lock);
	if (session->driver->told)
		session->driver->told(session, what, ret);
	pthread_mutex_unlock(&session->output_lock);
}

int session_usage(struct session *session, struct process_table *table, struct process_usage *ret,
		  double *ret_percent)
{
	struct backend *backend = session->host->backend;
	pthread_mutex_lock(&session->lock);
	struct backend_terminal running = session->running;
	unsigned start = session->start;
	bool walled = session->walled;
	pthread_mutex_unlock(&session->lock);
	int r = backend->ops->usage(backend, &running, table, ret);
	if (r == 0 && walled && ret->n_processes > BACKEND_WALL_PROCESSES)
		ret->n_processes -= BACKEND_WALL_PROCESSES;
	pthread_mutex_lock(&session->lock);
	if (r == 0 && session->start == start) {
		cpu_average_add(&session->cpu, ret->cpu_ns, ap_clock_ns());
		/* the sum falls if a process ends whose time no parent collects: keep the larger */
		int64_t cpu_ns = session->usage_known ? session->usage.cpu_ns : 0;
		session->usage = *ret;
		if (session->usage.cpu_ns < cpu_ns)
			session->usage.cpu_ns = cpu_ns;
		session->usage_known = true;
	}
	*ret_percent = session->cpu.percent;
	pthread_mutex_unlock(&session->lock);
	return r;
}
