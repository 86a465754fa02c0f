/* The program of a session: records its start and its end, takes it up from an earlier daemon, ends
 * it. */
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
#include "driver.h"
#include "file.h"

/* How long the backend has to ask the processes to end, wait its grace and kill them; and when the
 * session sweeps what keeps the shim busy. */
#define END_LIMIT   (30 * AP_SECOND)
#define SWEEP_AFTER (4 * AP_SECOND)

/* The shim records the program's pid a moment after the start. */
#define PID_PAUSE_MS 1 /* between two reads, while somebody waits for it */
#define PID_LIMIT    (5 * AP_SECOND)

/* How long to wait for the shim's record of the end: it first ends what the program left behind. */
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
	/* records of the last program would count as this one's */
	remove_record(session, "pid");
	remove_record(session, "exit");
	remove_record(session, "paused");
	remove_record(session, SESSION_WALL);
	count_anew(session);
	pthread_mutex_lock(&session->lock);
	session->activity = AP_ACTIVITY_STARTING;
	session->entered_ns = session->output_ns = session->keys_from_ns = session->keys_ns = 0;
	session->prompt[0] = '\0';
	session->prompt_ns = 0;
	session->started_ns = ap_clock_ns();
	session->screen = session->hook = (struct activity_signal){.at_ns = 0};
	session->memory = (struct activity_memory){.since_ns = 0};
	session->answered = session->paused = false;
	session->judged[0] = '\0';
	limit_forget_screen_locked(session);
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
	AP_CLEANUP_BUF struct ap_buf wall = {0};
	ap_buf_printf(&wall, "%s/" SESSION_WALL, session->dir);
	bool walled = access(ap_buf_text(&wall), F_OK) == 0;
	pthread_mutex_lock(&session->lock);
	session->walled = walled;
	int r = loop_watch_fd(session->host->loop, &session->program_ends, over_fd);
	if (session->over_fd >= 0)
		close(session->over_fd);
	session->over_fd = over_fd;
	session->running = session->terminal;
	session->screen = (struct activity_signal){.at_ns = 0}; /* perhaps of the last program */
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

/* Whether the record of an end says that somebody killed the program: by a signal that a program
 * does not get through a fault of its own. Without a record somebody has killed the shim. */
static bool is_killed(const char *how)
{
	static const int sent[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM};
	int signal, end = 0;
	if (!*how)
		return true;
	if (sscanf(how, "signal %d%n", &signal, &end) != 1 || how[end] != '\0')
		return false; /* exited by itself, or killed for lack of memory */
	for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
		if (signal == sent[i])
			return true;
	}
	return false;
}

/* Reads from the shim's record how and when the last program ended; "" and 0: there is none. */
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

/* `start`: of the program whose end was seen; ignored if another start has come since. */
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
	/* it exits at once where it does not know the conversation */
	bool fails = session->resumed && !session->started_ready && !session->ending &&
		     !session->closed && !is_killed(how);
	session->resumed = false;
	if (fails) {
		char conversation[SESSION_CONVERSATION_MAX];
		strcpy(conversation, session->conversation);
		session->restarting = true;
		session->activity = AP_ACTIVITY_STARTING;
		snprintf(session->why, sizeof session->why, "start: the conversation is gone");
		forget_program_locked(session);
		pthread_mutex_unlock(&session->lock);
		tell_changed(session);
		session->callbacks->resume_failed(session->owner, conversation);
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
	session->started_ready = alive && r == 0;	 /* assume ready; its signals may differ */
	session->cpu = (struct cpu_average){.at_ns = 0}; /* leaves out the CPU time used so far */
	session->running = session->terminal;
	if (!alive) {
		session->started = true;
		session->start++;
	}
	session->paused = paused;
	unsigned start = session->start;
	session_review_now(session); /* one may have concluded without all that */
	pthread_mutex_unlock(&session->lock);
	if (!alive)
		program_ended(session, start);
	else if (r == 0 && session->driver->taken_up)
		session->driver->taken_up(session);
	count_left(session);
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

/* Whether over_fd becomes readable by the deadline. */
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

/* Asks the shim to end all processes, and waits until it has. */
static int end_shim(struct session *session, int over_fd, struct ap_err *err)
{
	struct backend *backend = session->host->backend;
	int64_t now = ap_clock_ns();
	backend->ops->end(backend, &session->terminal, over_fd);
	if (is_over_by(over_fd, now + SWEEP_AFTER))
		return 0;
	backend->ops->sweep(backend, session->name); /* new processes keep the shim busy */
	if (is_over_by(over_fd, now + END_LIMIT))
		return 0;
	return ap_err_set(err, -ETIMEDOUT, "the processes of %s do not end", session->name);
}

void session_tell_to_end(struct session *session)
{
	bool quits = *profile_values(session->host->profile)->quit;
	pthread_mutex_lock(&session->lock);
	bool asked = quits && (session->activity == AP_ACTIVITY_READY ||
			       session->activity == AP_ACTIVITY_LIMITED);
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
	/* a shim that was killed leaves its processes behind */
	session->host->backend->ops->sweep(session->host->backend, session->name);
	return r;
}

/* Opens a pidfd of the program that the shim has recorded; the caller closes it. -1: there is no
 * record, or the program has ended and was waited for. */
static int program_open(const struct session *session, pid_t *ret_pid)
{
	char text[64];
	unsigned long long start = 0; /* 0: the record has no start time */
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

/* Reads the shim's record, and keeps pid and pidfd of the program if it is that of `start`. */
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

/* 1: the program runs; 0: it does not; -EAGAIN: the shim has not recorded its pid yet. */
static int lives_locked(const struct session *session)
{
	struct pollfd ends[] = {{.fd = session->over_fd, .events = POLLIN},
				{.fd = session->program_fd, .events = POLLIN}};
	if (session->ended || poll(ends, 2, 0) > 0)
		return 0;
	if (session->terminal.shim == 0) /* a backend without processes */
		return 1;
	if (session->program_fd < 0)
		return session->program ? 0 : -EAGAIN;
	/* the descriptors say that neither has ended: the pids are not reused */
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
		return ap_err_set(err, -EBUSY, "%s is still starting: read wait first",
				  session->name);
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
	conversation_adopt(session);
	limit_adopt(session);
	(void)output_adopt(session, NULL); /* on failure only the output so far is lost */
}

void session_input_was_cut(struct session *session)
{
	pthread_mutex_lock(&session->typing);
	session->input_cut = true;
	pthread_mutex_unlock(&session->typing);
	if (session->driver->was_cut)
		session->driver->was_cut(session);
}

void session_forget_output(struct session *session)
{
	struct backend *backend = session->host->backend;
	if (backend_has_terminals(backend))
		backend->ops->forget(backend, &session->terminal,
				     NULL); /* fails if the terminal has gone, and so its history */
	output_forget(session);
}

void session_remove_terminal(struct session *session)
{
	struct backend *backend = session->host->backend;
	backend->ops->remove(backend, &session->terminal, NULL);
}
