/* The program of a session: taken note of when it starts, ends, is taken up; and made to end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "session_internal.h"

/* The backend asks, waits its grace and makes the processes end; it is given this long for it. */
#define END_LIMIT   (30 * AP_SECOND)
#define SWEEP_AFTER (4 * AP_SECOND)

/* The shim says who the program is a moment after it was started. */
#define PID_PAUSE_MS 1 /* where somebody waits for it */
#define PID_LIMIT    (5 * AP_SECOND)

/* What a shim is waited for to say how the program ended; it ends first what that left behind. */
#define RECORD_MS 3000

bool is_over_locked(const struct session *session)
{
	struct pollfd over = {.fd = session->over_fd, .events = POLLIN};
	return poll(&over, 1, 0) == 1 && over.revents;
}

int over_fd_locked(const struct session *session)
{
	return session->over_fd >= 0 ? fcntl(session->over_fd, F_DUPFD_CLOEXEC, 0) : -1;
}

bool delivery_is_void(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	bool over = session->wanted || session->closed || session->ended;
	pthread_mutex_unlock(&session->lock);
	return over;
}

int delivery_void(const struct session *session, struct ap_err *err)
{
	return ap_err_set(err, -ECANCELED, "the lease or the program of %s has ended",
			  session->name);
}

void program_starts(struct session *session)
{
	/* those of the program before would be taken for this one's */
	remove_record(session, "pid");
	remove_record(session, "exit");
	remove_record(session, "paused");
	pthread_mutex_lock(&session->lock);
	session->activity = AP_ACTIVITY_STARTING;
	session->entered_ns = session->output_ns = session->keys_from_ns = session->keys_ns = 0;
	session->prompt[0] = '\0';
	session->prompt_ns = 0;
	session->started_ns = ap_clock_ns();
	session->screen = session->hook = (struct activity_signal){.at_ns = 0};
	session->memory = (struct activity_memory){.since_ns = 0};
	session->answered = session->paused = false;
	tell_changed(session);
	pthread_mutex_unlock(&session->lock);
	output_restarts(session);
}

static void forget_program_locked(struct session *session)
{
	if (session->program_fd >= 0)
		close(session->program_fd);
	session->program_fd = -1;
	session->program = 0;
}

int program_started(struct session *session, struct ap_err *err)
{
	int over_fd = session->host->backend->ops->over_fd(session->host->backend,
							   &session->terminal, err);
	if (over_fd < 0)
		return over_fd;
	pthread_mutex_lock(&session->lock);
	int r = loop_watch_fd(session->host->loop, &session->program_ends, over_fd);
	if (session->over_fd >= 0)
		close(session->over_fd);
	session->over_fd = over_fd;
	session->running = session->terminal;
	cpu_average_begin(&session->cpu, ap_clock_ns());
	session->usage_known = false;
	session->started = true;
	session->ending = session->ended = session->started_ready = session->restarting = false;
	session->prompt_error.text[0] = '\0';
	forget_program_locked(session);
	session->start++;
	session->ended_how[0] = '\0';
	session_review_now(session);
	tell_changed(session);
	pthread_mutex_unlock(&session->lock);
	return r < 0 ? ap_err_errno(err, r, "the end of %s", session->name) : 0;
}

/* Whether a record of an end says that somebody has seen to it: a signal that nothing raises by
 * what it does itself. Nobody but one who killed the shim leaves it without a record. */
static bool is_killed(const char *how)
{
	static const int sent[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM};
	int signal, end = 0;
	if (!*how)
		return true;
	if (sscanf(how, "signal %d%n", &signal, &end) != 1 || how[end] != '\0')
		return false; /* by itself, or for want of memory */
	for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
		if (signal == sent[i])
			return true;
	}
	return false;
}

/* How its last program ended, by its shim's record, and when; "" and 0: there is none. */
static void read_end(const struct session *session, char *ret_how, size_t size, int64_t *ret_time)
{
	*ret_time = 0;
	(void)file_read_line(session->dir, "exit", ret_how, size);
	char *time = strrchr(ret_how, ' '); /* "code 0 TIME" */
	if (time) {
		*time = '\0';
		(void)ap_number_parse(time + 1, ret_time);
	}
}

bool session_was_killed(struct session *session)
{
	char how[sizeof session->ended_how];
	int64_t time;
	pthread_mutex_lock(&session->lock);
	AP_CLEANUP_CLOSE int over_fd = over_fd_locked(session);
	pthread_mutex_unlock(&session->lock);
	struct pollfd over = {.fd = over_fd, .events = POLLIN};
	(void)poll(&over, 1, RECORD_MS);
	read_end(session, how, sizeof how, &time);
	return is_killed(how);
}

/* `start` is that of the program that was seen to end. */
void program_ended(struct session *session, unsigned start)
{
	char how[sizeof session->ended_how];
	int64_t when;
	read_end(session, how, sizeof how, &when);
	pthread_mutex_lock(&session->lock);
	if (session->start != start || session->restarting) {
		pthread_mutex_unlock(&session->lock);
		return;
	}
	session->ended = true;
	forget_program_locked(session);
	snprintf(session->ended_how, sizeof session->ended_how, "%s", how);
	snprintf(session->exit_how, sizeof session->exit_how, "%s", how);
	session->exit_time = when;
	session_review_now(session);
	bool by_itself = !session->ending && !session->closed;
	pthread_mutex_unlock(&session->lock);
	tell_changed(session);
	if (by_itself)
		session->callbacks->ended(session->owner, start, how, is_killed(how));
}

int session_take_up(struct session *session, bool alive, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	int r = alive ? program_started(session, err) : 0;
	ap_buf_printf(&path, "%s/paused", session->dir);
	bool paused = access(ap_buf_text(&path), F_OK) == 0;
	pthread_mutex_lock(&session->lock);
	session->started_ready = alive && r == 0;	 /* or it says otherwise itself */
	session->cpu = (struct cpu_average){.at_ns = 0}; /* what it used before was not used now */
	session->running = session->terminal;
	if (!alive) {
		session->started = true;
		session->start++;
	}
	session->paused = paused;
	unsigned start = session->start;
	pthread_mutex_unlock(&session->lock);
	if (!alive)
		program_ended(session, start);
	return r;
}

void session_restarts(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	session->restarting = true;
	session->ended = session->started_ready = false;
	session->activity = AP_ACTIVITY_STARTING;
	snprintf(session->why, sizeof session->why, "start: asked for");
	pthread_mutex_unlock(&session->lock);
	tell_changed(session);
}

void session_restart_failed(struct session *session, const struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	session->restarting = false;
	session->ended = true;
	session->prompt_error = *err;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
}

/* Whether something becomes readable until then. */
static bool is_over_by(int over_fd, int64_t deadline)
{
	struct pollfd over = {.fd = over_fd, .events = POLLIN};
	for (;;) {
		int64_t left = deadline - ap_clock_ns();
		int n = poll(&over, 1, left > 0 ? (int)(left / AP_MS) + 1 : 0);
		if (n > 0 || (n == 0 && left <= 0))
			return n > 0;
	}
}

/* Asks the shim to end all, and waits until it has. */
static int end_shim(struct session *session, int over_fd, struct ap_err *err)
{
	struct backend *backend = session->host->backend;
	int64_t now = ap_clock_ns();
	backend->ops->end(backend, &session->terminal, over_fd);
	if (is_over_by(over_fd, now + SWEEP_AFTER))
		return 0;
	backend->ops->sweep(backend, session->name); /* they leave it no time to */
	if (is_over_by(over_fd, now + END_LIMIT))
		return 0;
	return ap_err_set(err, -ETIMEDOUT, "the processes of %s do not end", session->name);
}

void session_tell_to_end(struct session *session)
{
	bool quits = *profile_values(session->host->profile)->quit;
	pthread_mutex_lock(&session->lock);
	bool asked = quits && session->activity == AP_ACTIVITY_READY;
	struct backend_terminal running = session->running;
	session->ending = session->ending || !asked;
	AP_CLEANUP_CLOSE int over_fd = asked ? -1 : over_fd_locked(session);
	pthread_mutex_unlock(&session->lock);
	if (over_fd >= 0)
		session->host->backend->ops->end(session->host->backend, &running, over_fd);
}

int session_end(struct session *session, struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	session->ending = true;
	AP_CLEANUP_CLOSE int over_fd = over_fd_locked(session);
	pthread_mutex_unlock(&session->lock);
	int r = over_fd >= 0 ? end_shim(session, over_fd, err) : 0;
	/* a shim that was made to end leaves its processes behind */
	session->host->backend->ops->sweep(session->host->backend, session->name);
	return r;
}

/* The program that the shim has recorded, if it has. A descriptor of it, which the caller closes;
 * -1: there is none, or it has ended and was waited for. */
static int program_open(const struct session *session, pid_t *ret_pid)
{
	char text[64];
	unsigned long long start = 0; /* one that was started before that was recorded */
	*ret_pid = 0;
	(void)file_read_line(session->dir, "pid", text, sizeof text); /* "" when there is none */
	if (sscanf(text, "%d %llu", ret_pid, &start) < 1 || *ret_pid <= 0)
		return -1;
	int fd = pidfd_open(*ret_pid, 0);
	if (fd >= 0 && start && process_start_time(*ret_pid) != start) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The program of the last start becomes known, and is watched. */
void know_program(struct session *session, unsigned start)
{
	pid_t pid;
	int fd = program_open(session, &pid);
	pthread_mutex_lock(&session->lock);
	bool news = session->start == start && !session->ended && session->program == 0;
	if (news) {
		session->program = pid;
		session->program_fd = fd;
	}
	if (news && pid)
		tell_changed(session);
	pthread_mutex_unlock(&session->lock);
	if (!news && fd >= 0)
		close(fd);
}

/* 1: it runs; 0: it does not; -EAGAIN: its shim has not said yet who it is. */
static int lives_locked(const struct session *session)
{
	struct pollfd ends[] = {{.fd = session->over_fd, .events = POLLIN},
				{.fd = session->program_fd, .events = POLLIN}};
	if (session->ended || poll(ends, 2, 0) > 0)
		return 0;
	if (session->terminal.shim == 0) /* no process */
		return 1;
	if (session->program_fd < 0)
		return session->program ? 0 : -EAGAIN;
	/* while the descriptors say that they have not ended, these numbers are theirs */
	return process_lives(session->program) && process_lives(session->terminal.shim);
}

bool session_lives(struct session *session)
{
	int64_t deadline = ap_clock_ns() + PID_LIMIT;
	for (;;) {
		pthread_mutex_lock(&session->lock);
		int lives = lives_locked(session);
		unsigned start = session->start;
		pthread_mutex_unlock(&session->lock);
		if (lives >= 0 || ap_clock_ns() > deadline)
			return lives > 0;
		know_program(session, start);
		poll(NULL, 0, PID_PAUSE_MS);
	}
}

int running_locked(const struct session *session, bool even_ended, struct ap_err *err)
{
	if (session->closed)
		return ap_err_set(err, -ENODEV, "%s is gone", session->name);
	if (!session->started)
		return ap_err_set(err, -EBUSY, "%s is still starting", session->name);
	if (session->ended && !even_ended)
		return ap_err_set(err, -EIO, "the program of %s has ended (%s): restart it",
				  session->name, session->ended_how);
	return 0;
}

int session_running(struct session *session, bool even_ended, struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	int r = running_locked(session, even_ended, err);
	pthread_mutex_unlock(&session->lock);
	return r;
}

bool session_is_over(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	bool ended = session->ended || is_over_locked(session);
	pthread_mutex_unlock(&session->lock);
	return ended;
}

bool session_has_ended(struct session *session, unsigned start)
{
	pthread_mutex_lock(&session->lock);
	bool ended = session->ended && session->start == start && !session->restarting;
	pthread_mutex_unlock(&session->lock);
	return ended;
}

void session_record(const struct session *session, struct session_record *ret)
{
	*ret = (struct session_record){.n_starts = session->n_starts,
				       .terminal = session->terminal};
}

void session_adopt(struct session *session, const struct session_record *record)
{
	session->terminal = record->terminal;
	session->n_starts = record->n_starts;
	session->prompted = record->prompted;
	(void)output_adopt(session, NULL); /* what it printed is lost then, not what it does */
}

void session_input_was_cut(struct session *session)
{
	session->input_cut = true;
}

void session_forget_output(struct session *session)
{
	struct backend *backend = session->host->backend;
	if (backend_has_terminals(backend))
		backend->ops->forget(backend, &session->terminal,
				     NULL); /* one that has gone forgot */
	output_forget(session);
}

void session_remove_terminal(struct session *session)
{
	struct backend *backend = session->host->backend;
	backend->ops->remove(backend, &session->terminal, NULL);
}
