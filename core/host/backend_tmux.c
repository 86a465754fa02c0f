/* tmux as the terminal of agents: one private server, driven through one client in control mode.
 *
 * A command is a line on the client's standard input; its answer is a block between %begin and %end
 * (or %error) on its output, in the order of the commands. Workers write the lines and wait, up to
 * a deadline, also for room to write them; the thread of the loop reads the answers and wakes them,
 * and waits for nothing. Knows nothing of pools, leases or git.
 *
 * An agent's terminal is a pane, known by its id, which a pane keeps whatever people make of
 * windows and sessions. The pane carries the agent's name and the id of the session that was made
 * for it as an option of its own, so that the next daemon finds it; ids are those of one run of the
 * server. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend.h"
#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "list.h"
#include "process.h"
#include "shim.h"
#include "text.h"
#include "tmux_server.h"

#define COMMAND_LIMIT (20 * AP_SECOND)
/* Bytes of one line of the server, and of one answer, which hold what programs print and call
 * themselves; longer ones are cut. */
#define LINE_MAX_LEN (4 << 20)
#define BLOCK_MAX    (64 << 20)
#define STUCK_LIMIT  AP_SECOND /* of a command after one that timed out */
#define START_MS     3000      /* that a client may take to start the server */
#define OWN_SESSION  "pool"    /* the control client's, beside those of the agents */
#define TAG	     "@agentpool" /* a pane's option: "NAME $SESSION" */

struct tmux_command {
	struct ap_list link;
	unsigned n_blocks;   /* answers still to come */
	struct ap_buf *out;  /* where the text of the answers goes; NULL: nowhere */
	bool failed;	     /* one of the answers was %error */
	struct ap_buf error; /* its text */
	bool abandoned;	     /* nobody waits any more: the reader frees it */
	pthread_cond_t done;
};

/* The terminal of an agent. */
struct pane {
	struct ap_list link;
	char name[32]; /* of the agent */
	unsigned id, session;
	pid_t pid; /* of the shim that was started in it */
};

struct backend_tmux {
	struct shim_backend shims;
	char *socket;
	pid_t client;

	pthread_mutex_t lock; /* of what follows */
	bool writes; /* a command is being written: the thread that set it may use in_fd and rest */
	pthread_cond_t written; /* signalled when `writes` is false again */
	struct ap_buf rest;    /* unwritten part of a command that timed out while it was written */
	int in_fd;	       /* the client's standard input */
	int out_fd;	       /* its output: the reader reads it, and hangs up at its end */
	pthread_cond_t closed; /* signalled when the reader has hung up */
	struct ap_list commands; /* sent, not answered; in order */
	unsigned n_abandoned;	 /* of them */
	bool dead;		 /* the client has gone */
	struct ap_list panes;	 /* struct pane, owned */
	struct tmux_server server;
	dev_t socket_dev; /* the socket as tmux_tend() or note_socket() last saw it */
	ino_t socket_ino;

	/* the reader's own */
	bool heard; /* the server has said anything */
	struct ap_buf line;
	bool in_block, block_is_ours;
	char block_id[64];
	struct ap_buf block;
};

static struct backend_tmux *tmux_of(struct backend *backend)
{
	return (struct backend_tmux *)backend;
}

/* --- the reader --- */

static void command_free(struct tmux_command *command)
{
	ap_buf_fini(&command->error);
	pthread_cond_destroy(&command->done);
	free(command);
}

static void command_finish_locked(struct backend_tmux *tmux, struct tmux_command *command)
{
	ap_list_remove(&command->link);
	command->n_blocks = 0;
	if (!command->abandoned) {
		pthread_cond_signal(&command->done);
		return;
	}
	tmux->n_abandoned--;
	command_free(command);
}

static void block_end(struct backend_tmux *tmux, bool error)
{
	pthread_mutex_lock(&tmux->lock);
	if (tmux->block_is_ours && !ap_list_empty(&tmux->commands)) {
		struct tmux_command *command =
			ap_container_of(tmux->commands.next, struct tmux_command, link);
		if (error && !command->failed) {
			command->failed = true;
			ap_buf_add(&command->error, tmux->block.data, tmux->block.len);
		} else if (command->out && !command->abandoned) {
			ap_buf_add(command->out, tmux->block.data, tmux->block.len);
		}
		if (--command->n_blocks == 0)
			command_finish_locked(tmux, command);
	}
	pthread_mutex_unlock(&tmux->lock);
	tmux->in_block = false;
	tmux->block.len = 0;
}

/* `%begin TIME NUMBER FLAGS`: bit 0 of FLAGS says that it answers a command of this client. */
static void line_done(struct backend_tmux *tmux, const char *line, size_t len)
{
	if (tmux->in_block) {
		bool end = strncmp(line, "%end ", 5) == 0, error = strncmp(line, "%error ", 7) == 0;
		if ((end && strcmp(line + 5, tmux->block_id) == 0) ||
		    (error && strcmp(line + 7, tmux->block_id) == 0)) {
			block_end(tmux, error);
			return;
		}
		if (tmux->block.len + len < BLOCK_MAX) {
			ap_buf_add(&tmux->block, line, len);
			ap_buf_add(&tmux->block, "\n", 1);
		}
		return;
	}
	if (strncmp(line, "%begin ", 7) != 0)
		return; /* a notification */
	unsigned flags = 0;
	snprintf(tmux->block_id, sizeof tmux->block_id, "%s", line + 7);
	if (sscanf(line + 7, "%*u %*u %u", &flags) == 1) {
		tmux->in_block = true;
		tmux->block_is_ours = flags & 1;
	}
}

static void client_died(struct backend_tmux *tmux)
{
	pthread_mutex_lock(&tmux->lock);
	tmux->dead = true;
	while (!ap_list_empty(&tmux->commands)) {
		struct tmux_command *command =
			ap_container_of(tmux->commands.next, struct tmux_command, link);
		command->failed = true;
		ap_buf_adds(&command->error, "the tmux server has gone\n");
		command_finish_locked(tmux, command);
	}
	pthread_mutex_unlock(&tmux->lock);
}

static bool tmux_ready(struct backend *backend)
{
	struct backend_tmux *tmux = tmux_of(backend);
	char block[16 << 10];
	ssize_t n = read(tmux->out_fd, block, sizeof block);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		client_died(tmux);
		return false;
	}
	tmux->heard = true;
	for (const char *at = block, *end = block + n; at < end;) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		if (tmux->line.len < LINE_MAX_LEN)
			ap_buf_add(&tmux->line, at, (size_t)((newline ? newline : end) - at));
		at = newline ? newline + 1 : end;
		if (newline) {
			line_done(tmux, ap_buf_text(&tmux->line), tmux->line.len);
			tmux->line.len = 0;
			if (tmux->line.data)
				tmux->line.data[0] = '\0';
		}
	}
	return true;
}

static void tmux_hang_up(struct backend *backend)
{
	struct backend_tmux *tmux = tmux_of(backend);
	pthread_mutex_lock(&tmux->lock);
	close(tmux->out_fd);
	tmux->out_fd = -1;
	pthread_cond_signal(&tmux->closed);
	pthread_mutex_unlock(&tmux->lock);
}

static int tmux_fd(struct backend *backend)
{
	struct backend_tmux *tmux = tmux_of(backend);
	pthread_mutex_lock(&tmux->lock);
	int fd = tmux->out_fd;
	pthread_mutex_unlock(&tmux->lock);
	return fd;
}

/* --- commands --- */

/* Appends a blank and a word in tmux's single quotes. `doubled` are characters that tmux would
 * expand in the word, and that stand for themselves when they are written twice. */
static void quote_doubled(struct ap_buf *line, const char *word, const char *doubled)
{
	ap_buf_adds(line, " '");
	for (; *word; word++) {
		if (*word == '\'')
			ap_buf_adds(line, "'\\''");
		else
			ap_buf_add(line, word, 1);
		if (strchr(doubled, *word))
			ap_buf_add(line, word, 1);
	}
	ap_buf_adds(line, "'");
}

static void quote(struct ap_buf *line, const char *word)
{
	ap_buf_adds(line, " ");
	ap_buf_add_quoted(line, word); /* tmux reads single quotes as sh does */
}

/* Writes until the deadline, and takes what is written out of `data`. 0: all is written; -EIO,
 * -ETIMEDOUT: the rest is still in `data`. */
static int write_by(int fd, struct ap_buf *data, int64_t deadline_ns)
{
	while (data->len > 0) {
		ssize_t n = write(fd, data->data, data->len);
		struct pollfd room = {.fd = fd, .events = POLLOUT};
		int64_t left = deadline_ns - ap_clock_ns();
		if (n > 0)
			ap_buf_drop(data, (size_t)n);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -EIO;
		else if (left <= 0)
			return -ETIMEDOUT;
		else
			(void)poll(&room, 1, (int)(left / AP_MS) + 1);
	}
	return 0;
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / AP_SECOND, .tv_nsec = ns % AP_SECOND};
}

/* Puts the command behind those that were sent, where its answer will come, and writes it; nobody
 * else writes meanwhile, so both orders agree. A command of which nothing was written was not sent;
 * the rest of one that was written in part is written before the next. */
static int send_writing(struct backend_tmux *tmux, struct tmux_command *command,
			struct ap_buf *lines, int64_t deadline_ns)
{
	pthread_mutex_lock(&tmux->lock);
	int fd = tmux->dead ? -1 : tmux->in_fd;
	pthread_mutex_unlock(&tmux->lock);
	int r = fd < 0 ? -EIO : write_by(fd, &tmux->rest, deadline_ns);
	if (r < 0)
		return r;
	pthread_mutex_lock(&tmux->lock);
	bool dead = tmux->dead; /* nobody would answer it */
	if (!dead)
		ap_list_append(&tmux->commands, &command->link);
	pthread_mutex_unlock(&tmux->lock);
	size_t len = lines->len;
	r = dead ? -EIO : write_by(fd, lines, deadline_ns);
	if (r == -ETIMEDOUT && lines->len < len) {
		tmux->rest = *lines;
		*lines = (struct ap_buf){0};
		return 0; /* the wait for its answer will time out */
	}
	if (r < 0) {
		pthread_mutex_lock(&tmux->lock);
		ap_list_remove(&command->link);
		pthread_mutex_unlock(&tmux->lock);
	}
	return r;
}

/* Takes the turn to write, if it comes by the deadline. */
static bool begin_writing(struct backend_tmux *tmux, int64_t deadline_ns)
{
	const struct timespec deadline = timespec_of(deadline_ns);
	int r = 0;
	pthread_mutex_lock(&tmux->lock);
	while (tmux->writes && r == 0)
		r = pthread_cond_timedwait(&tmux->written, &tmux->lock, &deadline);
	bool ours = !tmux->writes;
	tmux->writes = true;
	pthread_mutex_unlock(&tmux->lock);
	return ours;
}

static void end_writing(struct backend_tmux *tmux)
{
	pthread_mutex_lock(&tmux->lock);
	tmux->writes = false;
	pthread_cond_signal(&tmux->written);
	pthread_mutex_unlock(&tmux->lock);
}

static int send_command(struct backend_tmux *tmux, struct tmux_command *command,
			struct ap_buf *lines, int64_t deadline_ns)
{
	if (!begin_writing(tmux, deadline_ns))
		return -ETIMEDOUT;
	int r = send_writing(tmux, command, lines, deadline_ns);
	end_writing(tmux);
	return r;
}

static int await_until_locked(struct backend_tmux *tmux, struct tmux_command *command,
			      int64_t deadline_ns)
{
	const struct timespec deadline = timespec_of(deadline_ns);
	while (command->n_blocks > 0) {
		if (pthread_cond_timedwait(&command->done, &tmux->lock, &deadline) == ETIMEDOUT &&
		    command->n_blocks > 0)
			return -ETIMEDOUT;
	}
	return 0;
}

/* Waits for a command, but not as long for a stopped server as for one that is busy. */
static int await_locked(struct backend_tmux *tmux, struct tmux_command *command,
			int64_t deadline_ns)
{
	int64_t soon_ns = ap_clock_ns() + STUCK_LIMIT;
	int r = await_until_locked(tmux, command, soon_ns < deadline_ns ? soon_ns : deadline_ns);
	if (r == 0 || soon_ns >= deadline_ns)
		return r;
	struct tmux_server server = tmux->server;
	pthread_mutex_unlock(&tmux->lock);
	bool stopped = tmux_server_stopped(&server);
	pthread_mutex_lock(&tmux->lock);
	return stopped && command->n_blocks > 0 ? -ETIMEDOUT
						: await_until_locked(tmux, command, deadline_ns);
}

static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

static struct tmux_command *command_new(unsigned n_blocks, struct ap_buf *out)
{
	struct tmux_command *command = calloc(1, sizeof *command);
	if (!command)
		return NULL;
	cond_init(&command->done);
	ap_list_init(&command->link);
	command->n_blocks = n_blocks;
	command->out = out;
	return command;
}

/* Sends lines, one command each, and waits for all their answers. A newline inside a word would be
 * another command: -EINVAL. Takes the lines over. */
static int tmux_run_within(struct backend_tmux *tmux, int64_t limit_ns, unsigned n_lines,
			   struct ap_buf *lines, struct ap_buf *out, struct ap_err *err)
{
	unsigned n_newlines = 0;
	for (size_t i = 0; i < lines->len; i++)
		n_newlines += lines->data[i] == '\n';
	if (lines->failed)
		return ap_err_errno(err, -ENOMEM, "tmux");
	if (n_newlines != n_lines)
		return ap_err_set(err, -EINVAL, "tmux: a newline where none can be");
	struct tmux_command *command = command_new(n_lines, out);
	if (!command)
		return ap_err_errno(err, -ENOMEM, "tmux");
	pthread_mutex_lock(&tmux->lock);
	/* a stopped server keeps no more than one worker waiting for long */
	if (tmux->n_abandoned > 0 && limit_ns > STUCK_LIMIT)
		limit_ns = STUCK_LIMIT;
	pthread_mutex_unlock(&tmux->lock);
	int64_t deadline_ns = ap_clock_ns() + limit_ns;
	int r = send_command(tmux, command, lines, deadline_ns);
	pthread_mutex_lock(&tmux->lock);
	if (r == 0)
		r = await_locked(tmux, command, deadline_ns);
	bool failed = command->failed;
	command->abandoned =
		r == -ETIMEDOUT && command->n_blocks > 0 && !ap_list_empty(&command->link);
	bool abandoned = command->abandoned;
	command->out = NULL;
	tmux->n_abandoned += abandoned;
	pthread_mutex_unlock(&tmux->lock);
	if (r == 0 && failed) {
		size_t len = strcspn(ap_buf_text(&command->error), "\n");
		r = ap_err_set(err, -EIO, "tmux: %.*s", (int)len, ap_buf_text(&command->error));
	} else if (r == -ETIMEDOUT) {
		ap_err_set(err, r, "tmux does not answer");
	} else if (r < 0) {
		ap_err_set(err, r, "the tmux server has gone");
	}
	if (!abandoned)
		command_free(command);
	return r;
}

static int tmux_run(struct backend_tmux *tmux, unsigned n_lines, struct ap_buf *lines,
		    struct ap_buf *out, struct ap_err *err)
{
	return tmux_run_within(tmux, COMMAND_LIMIT, n_lines, lines, out, err);
}

/* --- what the pool asks --- */

static void add_program(struct backend_tmux *tmux, const struct backend_spawn *spawn,
			struct ap_buf *line)
{
	ap_buf_adds(line, " -c");
	quote_doubled(line, spawn->dir, "#");
	for (const char *const *env = spawn->env; env && *env; env++) {
		if (strchr(*env, '=')) {
			quote(line, "-e");
			quote(line, *env);
		}
	}
	ap_buf_adds(line, " --");
	AP_CLEANUP_WORDS struct ap_words words = {NULL, 0, false};
	shim_words(&tmux->shims, spawn, NULL, &words);
	for (unsigned i = 0; i < words.n; i++)
		quote(line, words.at[i]);
	line->failed = line->failed || words.failed;
	ap_buf_adds(line, "\n");
}

/* Sends all that the program prints to the file, from the first byte on: the lines reach tmux in
 * one write, so that it reads nothing of the terminal between them. */
static void add_recorder(const struct backend_spawn *spawn, const char *target, struct ap_buf *line)
{
	AP_CLEANUP_BUF struct ap_buf shell = {0};
	ap_buf_adds(&shell, "exec cat >>");
	quote(&shell, spawn->output_file); /* quoted alike in tmux and sh; then quoted again */
	ap_buf_adds(line, "pipe-pane -t");
	quote(line, target);
	quote_doubled(line, ap_buf_text(&shell), "#%");
	ap_buf_adds(line, "\n");
}

/* --- panes --- */

static struct pane *pane_locked(struct backend_tmux *tmux, const char *name)
{
	struct ap_list *at;
	ap_list_for_each (at, &tmux->panes) {
		struct pane *pane = ap_container_of(at, struct pane, link);
		if (strcmp(pane->name, name) == 0)
			return pane;
	}
	return NULL;
}

/* Copies the agent's pane. False: there is none. */
static bool pane_find(struct backend_tmux *tmux, const char *name, struct pane *ret)
{
	pthread_mutex_lock(&tmux->lock);
	const struct pane *pane = pane_locked(tmux, name);
	if (pane)
		*ret = *pane;
	pthread_mutex_unlock(&tmux->lock);
	return pane != NULL;
}

static int pane_set_locked(struct backend_tmux *tmux, const struct pane *found)
{
	struct pane *pane = pane_locked(tmux, found->name);
	if (!pane) {
		pane = calloc(1, sizeof *pane);
		if (!pane)
			return -ENOMEM;
		ap_list_append(&tmux->panes, &pane->link);
	}
	memcpy(pane->name, found->name, sizeof pane->name);
	pane->id = found->id;
	pane->session = found->session;
	pane->pid = found->pid;
	return 0;
}

static int pane_set(struct backend_tmux *tmux, const struct pane *found, struct ap_err *err)
{
	pthread_mutex_lock(&tmux->lock);
	int r = pane_set_locked(tmux, found);
	pthread_mutex_unlock(&tmux->lock);
	return r < 0 ? ap_err_errno(err, r, "tmux") : 0;
}

static void pane_drop(struct pane *pane)
{
	ap_list_remove(&pane->link);
	free(pane);
}

static void panes_forget_locked(struct backend_tmux *tmux)
{
	while (!ap_list_empty(&tmux->panes))
		pane_drop(ap_container_of(tmux->panes.next, struct pane, link));
}

/* Replaces the known panes by those that the server has: "%ID PID NAME $SESSION" a line. */
static int panes_take(struct backend_tmux *tmux, const char *text, struct ap_err *err)
{
	int r = 0;
	pthread_mutex_lock(&tmux->lock);
	panes_forget_locked(tmux);
	for (const char *line = text; *line && r == 0;
	     line += strcspn(line, "\n"), line += *line != 0) {
		struct pane pane = {.id = 0};
		if (sscanf(line, "%%%u %d %31s $%u", &pane.id, &pane.pid, pane.name,
			   &pane.session) == 4)
			r = pane_set_locked(tmux, &pane);
	}
	pthread_mutex_unlock(&tmux->lock);
	return r < 0 ? ap_err_errno(err, r, "tmux") : 0;
}

/* How commands name a pane. */
struct target {
	char text[16];
};

static int target_of(struct backend_tmux *tmux, const struct backend_terminal *terminal,
		     struct target *ret, struct ap_err *err)
{
	struct pane pane;
	if (!pane_find(tmux, terminal->session, &pane))
		return ap_err_set(err, -EIO, "the terminal of %s has gone", terminal->session);
	snprintf(ret->text, sizeof ret->text, "%%%u", pane.id);
	return 0;
}

static int unexpected(const struct ap_buf *out, struct ap_err *err)
{
	return ap_err_set(err, -EIO, "tmux: unexpected answer '%.80s'", ap_buf_text(out));
}

/* Keeps the pane to itself: keys that a human types into synchronized panes do not reach it, and
 * its size stays. */
static void add_settings(const char *target, const struct terminal_size *size, struct ap_buf *lines)
{
	ap_buf_adds(lines, "set-option -p -t");
	quote(lines, target);
	ap_buf_printf(lines, " synchronize-panes off\nresize-window -x %u -y %u -t", size->columns,
		      size->rows);
	quote(lines, target);
	ap_buf_adds(lines, "\n");
}

static int tmux_spawn(struct backend *backend, const struct backend_spawn *spawn,
		      struct backend_terminal *ret, struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct pane pane = {.id = 0};
	char target[sizeof ret->session + 2]; /* the session has only one pane yet */
	/* set before the session exists: the caller can remove one that is half made */
	snprintf(ret->session, sizeof ret->session, "%s", spawn->name);
	snprintf(pane.name, sizeof pane.name, "%s", spawn->name);
	snprintf(target, sizeof target, "=%s:", spawn->name);
	ap_buf_printf(&lines,
		      "new-session -d -P -F '#{pane_id} #{session_id} #{pane_pid}' -x %u -y %u -s",
		      spawn->size.columns, spawn->size.rows);
	quote(&lines, spawn->name);
	add_program(tmux, spawn, &lines);
	add_recorder(spawn, target, &lines);
	ap_buf_adds(&lines, "set-option -p -F -t");
	quote(&lines, target);
	ap_buf_printf(&lines, " " TAG " '%s #{session_id}'\n", spawn->name);
	add_settings(target, &spawn->size, &lines);
	int r = tmux_run(tmux, 5, &lines, &out, err);
	if (r == -EIO && err && strstr(err->text, "duplicate session"))
		ret->session[0] = '\0'; /* somebody else's: it is not ours to remove */
	if (r < 0)
		return r;
	if (sscanf(ap_buf_text(&out), "%%%u $%u %d", &pane.id, &pane.session, &pane.pid) != 3)
		return unexpected(&out, err);
	shim_set(ret, pane.pid);
	return pane_set(tmux, &pane, err);
}

static int kill_what(struct backend_tmux *tmux, const char *command, const char *target)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	ap_buf_adds(&line, command);
	quote(&line, target);
	ap_buf_adds(&line, "\n");
	return tmux_run(tmux, 1, &line, NULL, NULL);
}

/* Removes the pane, wherever it is now, and all that is in the session that was made for it,
 * whatever the session's name is now. If tmux was too slow to report the pane, removes the session
 * by its name. */
static int tmux_remove(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	char target[sizeof terminal->session + 2];
	struct pane pane;
	(void)err;
	if (!terminal->session[0])
		return 0; /* an empty target would be our own session */
	if (!pane_find(tmux, terminal->session, &pane)) {
		snprintf(target, sizeof target, "=%s", terminal->session);
		return kill_what(tmux, "kill-session -t", target);
	}
	snprintf(target, sizeof target, "%%%u", pane.id);
	(void)kill_what(tmux, "kill-pane -t", target); /* either may take the other with it */
	snprintf(target, sizeof target, "$%u", pane.session);
	int r = kill_what(tmux, "kill-session -t", target);
	pthread_mutex_lock(&tmux->lock);
	struct pane *left = pane_locked(tmux, terminal->session);
	if (left)
		pane_drop(left);
	pthread_mutex_unlock(&tmux->lock);
	return r == -ETIMEDOUT ? r : 0;
}

/* Starts a program whose terminal somebody has removed, or whose terminal went with the server. */
static int spawn_again(struct backend *backend, const struct backend_spawn *spawn,
		       struct backend_terminal *terminal, struct ap_err *err)
{
	struct backend_terminal fresh;
	(void)tmux_remove(backend, terminal, NULL);
	int r = tmux_spawn(backend, spawn, &fresh, err);
	if (r == 0)
		shim_set(terminal, fresh.shim);
	return r;
}

/* Which session the pane is in now. -ENOENT: the pane is gone. */
static int session_of(struct backend_tmux *tmux, const struct pane *pane, unsigned *ret,
		      struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	/* display-message shows something else if its target is gone */
	ap_buf_printf(&line, "list-panes -a -f '#{==:#{pane_id},%%%u}' -F '#{session_id}'\n",
		      pane->id);
	int r = tmux_run(tmux, 1, &line, &out, err);
	return r < 0 ? r : sscanf(ap_buf_text(&out), "$%u", ret) == 1 ? 0 : -ENOENT;
}

static int tmux_respawn(struct backend *backend, const struct backend_spawn *spawn,
			struct backend_terminal *terminal, struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct pane pane;
	char target[16];
	unsigned session;
	int r = pane_find(tmux, terminal->session, &pane) ? session_of(tmux, &pane, &session, err)
							  : -ENOENT;
	if (r == -ENOENT)
		return spawn_again(backend, spawn, terminal, err);
	if (r < 0)
		return r;
	snprintf(target, sizeof target, "%%%u", pane.id);
	bool own = session == pane.session; /* else a human has moved it, and decides on its size */
	if (own) /* first: the program starts in the size that it will have */
		add_settings(target, &spawn->size, &lines);
	ap_buf_printf(&lines, "clear-history -t %s\nrespawn-pane -k -t %s", target, target);
	add_program(tmux, spawn, &lines);
	add_recorder(spawn, target, &lines);
	ap_buf_printf(&lines, "display-message -p -t %s '#{pane_pid}'\n", target);
	r = tmux_run(tmux, own ? 6 : 4, &lines, &out, err);
	if (r < 0)
		return r;
	if (sscanf(ap_buf_text(&out), "%d", &pane.pid) != 1)
		return unexpected(&out, err);
	shim_set(terminal, pane.pid);
	return pane_set(tmux, &pane, err);
}

static int tmux_adopt(struct backend *backend, const char *name, struct backend_terminal *terminal,
		      struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	struct pane pane;
	snprintf(terminal->session, sizeof terminal->session, "%s", name);
	bool found = pane_find(tmux, name, &pane);
	if (found && pane.pid == terminal->shim &&
	    process_start_time(pane.pid) == terminal->shim_start)
		return 0;
	if (found) /* nobody's */
		(void)tmux_remove(backend, terminal, NULL);
	terminal->shim = 0;
	return ap_err_set(err, -ESRCH, "the program of %s has ended", name);
}

/* Leaves the pane's mode: one such as copy mode, in which people scroll, would swallow keys. */
static void leave_mode(const char *target, struct ap_buf *lines)
{
	ap_buf_adds(lines, "copy-mode -q -t");
	quote(lines, target);
	ap_buf_adds(lines, "\n");
}

static int tmux_paste(struct backend *backend, const struct backend_terminal *terminal,
		      const char *file, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	struct target target;
	char name[32];
	int r = target_of(tmux_of(backend), terminal, &target, err);
	if (r < 0)
		return r;
	/* buffers belong to the server: a name of its own for every terminal */
	snprintf(name, sizeof name, "prompt-%.20s", terminal->session);
	ap_buf_adds(&lines, "load-buffer -b");
	quote(&lines, name);
	quote_doubled(&lines, file, "#");
	ap_buf_adds(&lines, "\n");
	leave_mode(target.text, &lines);
	ap_buf_adds(&lines, "paste-buffer -p -r -d -b");
	quote(&lines, name);
	ap_buf_adds(&lines, " -t");
	quote(&lines, target.text);
	ap_buf_adds(&lines, "\n");
	return tmux_run(tmux_of(backend), 3, &lines, NULL, err);
}

static int tmux_keys(struct backend *backend, const struct backend_terminal *terminal,
		     const char *const *keys, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	struct target target;
	int r = target_of(tmux_of(backend), terminal, &target, err);
	if (r < 0)
		return r;
	leave_mode(target.text, &lines);
	ap_buf_adds(&lines, "send-keys -t");
	quote(&lines, target.text);
	ap_buf_adds(&lines, " --");
	for (; *keys; keys++)
		quote(&lines, *keys);
	ap_buf_adds(&lines, "\n");
	return tmux_run(tmux_of(backend), 2, &lines, NULL, err);
}

static int tmux_capture(struct backend *backend, const struct backend_terminal *terminal,
			bool above, int64_t limit_ns, struct ap_buf *out, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	struct target target;
	int r = target_of(tmux_of(backend), terminal, &target, err);
	if (r < 0)
		return r;
	/* -J: a line that the terminal has wrapped is one line again */
	ap_buf_adds(&line, above ? "capture-pane -p -J -S - -t" : "capture-pane -p -t");
	quote(&line, target.text);
	ap_buf_adds(&line, "\n");
	r = tmux_run_within(tmux_of(backend), limit_ns ? limit_ns : COMMAND_LIMIT, 1, &line, out,
			    err);
	if (r < 0)
		return r;
	while (out->len > 1 && out->data[out->len - 1] == '\n' && out->data[out->len - 2] == '\n')
		out->data[--out->len] = '\0';
	if (out->len == 1 && out->data[0] == '\n')
		out->data[--out->len] = '\0';
	return 0;
}

static bool tmux_cursor_waits(struct backend *backend, const struct backend_terminal *terminal)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct target target;
	if (target_of(tmux_of(backend), terminal, &target, NULL) < 0)
		return false;
	ap_buf_adds(&line, "display-message -p -t");
	quote(&line, target.text);
	ap_buf_adds(&line, " '#{cursor_flag} #{alternate_on} #{cursor_x} #{cursor_character}'\n");
	unsigned shows, alternate, column;
	int text = 0; /* of what the cursor stands on: nothing but blanks */
	return tmux_run(tmux_of(backend), 1, &line, &out, NULL) == 0 &&
	       sscanf(ap_buf_text(&out), "%u %u %u %n", &shows, &alternate, &column, &text) == 3 &&
	       shows && !alternate && column > 0 && text > 0 && !ap_buf_text(&out)[text];
}

static int tmux_forget(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	struct target target;
	int r = target_of(tmux_of(backend), terminal, &target, err);
	if (r < 0)
		return r;
	ap_buf_adds(&line, "clear-history -t");
	quote(&line, target.text);
	ap_buf_adds(&line, "\n");
	return tmux_run(tmux_of(backend), 1, &line, NULL, err);
}

static int tmux_attach(struct backend *backend, const char *name, struct ap_buf *ret,
		       struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	struct pane pane;
	if (!pane_find(tmux, name, &pane))
		return ap_err_set(err, -EIO, "%s has no terminal now", name);
	ap_buf_adds(ret, "tmux -S ");
	ap_buf_add_quoted(ret, tmux->socket);
	/* -E: else the next start of the program finds the DISPLAY and the like of who attaches */
	ap_buf_printf(ret, " attach-session -E -f ignore-size -t %%%u", pane.id);
	return 0;
}

/* --- its life --- */

static int tmux_cli(const char *socket, const char *const words[3], struct ap_buf *out)
{
	const char *argv[] = {"tmux", "-S", socket, words[0], words[1], words[2], NULL};
	return process_run(
		&(struct process_run){.argv = argv, .limit_ns = COMMAND_LIMIT, .out = out}, NULL);
}

/* Whether the server has any terminal but the client's own; true if the server does not answer. */
static bool has_terminals(const struct backend_tmux *tmux)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct pollfd said = {.fd = tmux->out_fd, .events = POLLIN};
	if (tmux->client > 0 && !tmux->heard) /* the client may just be starting it */
		poll(&said, 1, START_MS);
	if (tmux_cli(tmux->socket, (const char *const[]){"list-sessions", "-F", "#{session_name}"},
		     &out) != 0)
		return true;
	return strcmp(ap_buf_text(&out), OWN_SESSION "\n") != 0;
}

static struct tmux_server server_of(struct backend_tmux *tmux)
{
	pthread_mutex_lock(&tmux->lock);
	struct tmux_server server = tmux->server;
	pthread_mutex_unlock(&tmux->lock);
	return tmux_server_lives(&server) ? server : tmux_server_find(tmux->socket);
}

static void end_server(struct backend_tmux *tmux)
{
	struct tmux_server server = server_of(tmux);
	tmux_server_end(&server, tmux->socket);
}

/* Call before a client is started: a client that does not find the existing server starts
 * another. */
static int find_server(struct backend_tmux *tmux, struct ap_err *err)
{
	struct tmux_server server = server_of(tmux);
	if (server.pid)
		return tmux_server_reach(&server, tmux->socket, err);
	unlink(tmux->socket); /* nobody's, or not of a server of ours */
	return 0;
}

static void end_client(struct backend_tmux *tmux)
{
	pthread_mutex_lock(&tmux->lock);
	tmux->dead = true;
	pthread_mutex_unlock(&tmux->lock);
	/* a writer stops at its deadline, and sooner when nobody reads any more */
	(void)begin_writing(tmux, AP_FOREVER);
	if (tmux->in_fd >= 0)
		close(tmux->in_fd);
	tmux->in_fd = -1;
	ap_buf_fini(&tmux->rest);
	end_writing(tmux);
	if (tmux->client > 0) {
		kill(tmux->client, SIGKILL); /* our own child, not waited for yet */
		while (waitpid(tmux->client, NULL, 0) < 0 && errno == EINTR)
			;
	}
	tmux->client = 0;
}

static void tmux_free(struct backend *backend, bool keep)
{
	struct backend_tmux *tmux = tmux_of(backend);
	if (!keep || !has_terminals(tmux)) /* where a start failed there may be none */
		end_server(tmux);
	end_client(tmux);
	if (tmux->out_fd >= 0) /* the reader is gone */
		close(tmux->out_fd);
	client_died(tmux);
	panes_forget_locked(tmux); /* no other thread is left */
	pthread_cond_destroy(&tmux->closed);
	ap_buf_fini(&tmux->line);
	ap_buf_fini(&tmux->block);
	pthread_cond_destroy(&tmux->written);
	pthread_mutex_destroy(&tmux->lock);
	shims_close(&tmux->shims, keep);
	free(tmux->socket);
	free(tmux);
}

static int start_client(struct backend_tmux *tmux, struct ap_err *err)
{
	const char *argv[] = {"tmux",
			      "-S",
			      tmux->socket,
			      "-f",
			      "/dev/null",
			      "-u",
			      "-C",
			      "new-session",
			      "-A",
			      "-f",
			      "ignore-size,no-output",
			      "-s",
			      OWN_SESSION,
			      "sleep", /* two words: no shell, as the user's may refuse */
			      "infinity",
			      NULL};
	int in_fd, out_fd;
	int r = process_open(&(struct process_run){.argv = argv, .is_server = true}, &tmux->client,
			     &in_fd, &out_fd, err);
	if (r < 0)
		return r;
	fcntl(out_fd, F_SETFL, O_NONBLOCK);
	fcntl(in_fd, F_SETFL, O_NONBLOCK);
	pthread_mutex_lock(&tmux->lock);
	tmux->in_fd = in_fd;
	tmux->out_fd = out_fd;
	pthread_mutex_unlock(&tmux->lock);
	return 0;
}

static int tmux_revive(struct backend *backend, bool anew, struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	end_client(tmux);
	pthread_mutex_lock(&tmux->lock);
	while (tmux->out_fd >= 0) /* the client has ended: the reader sees that and hangs up */
		pthread_cond_wait(&tmux->closed, &tmux->lock);
	pthread_mutex_unlock(&tmux->lock);
	if (anew)
		end_server(tmux);
	pthread_mutex_lock(&tmux->lock);
	panes_forget_locked(tmux); /* it may be another server, with ids of its own */
	pthread_mutex_unlock(&tmux->lock);
	tmux->line.len = tmux->block.len = 0;
	tmux->in_block = false;
	int r = find_server(tmux, err);
	if (r == 0)
		r = start_client(tmux, err);
	pthread_mutex_lock(&tmux->lock);
	tmux->dead = r < 0;
	pthread_mutex_unlock(&tmux->lock);
	return r;
}

/* Records the socket as it is now, if it leads to the server. */
static void note_socket(struct backend_tmux *tmux)
{
	struct stat st = {0};
	bool there =
		tmux_server_reached(&tmux->server, tmux->socket) && lstat(tmux->socket, &st) == 0;
	pthread_mutex_lock(&tmux->lock);
	tmux->socket_dev = there ? st.st_dev : 0;
	tmux->socket_ino = there ? st.st_ino : 0;
	pthread_mutex_unlock(&tmux->lock);
}

static bool tmux_tend(struct backend *backend)
{
	struct backend_tmux *tmux = tmux_of(backend);
	struct stat st = {0};
	(void)lstat(tmux->socket, &st);
	pthread_mutex_lock(&tmux->lock);
	struct tmux_server server = tmux->server;
	bool same = st.st_ino && st.st_ino == tmux->socket_ino && st.st_dev == tmux->socket_dev;
	if (!same) { /* recorded at once: only one of many callers repairs it */
		tmux->socket_ino = st.st_ino;
		tmux->socket_dev = st.st_dev;
	}
	pthread_mutex_unlock(&tmux->lock);
	if (same || !tmux_server_lives(&server) || tmux_server_reached(&server, tmux->socket))
		return false;
	tmux_server_restore(&server);
	return true;
}

static int tmux_configure(struct backend *backend, struct ap_err *err)
{
	static const char options[] = "set-option -g remain-on-exit on\n"
				      "set-option -g status off\n"
				      "set-option -g history-limit 2000\n"
				      "set-option -g default-terminal tmux-256color\n"
				      "set-option -g default-shell /bin/sh\n"
				      "set-option -s exit-empty off\n"
				      "set-option -s escape-time 0\n"
				      "display-message -p '#{pid}'\n"
				      "list-panes -a -f '#{" TAG "}'"
				      " -F '#{pane_id} #{pane_pid} #{" TAG "}'\n";
	struct backend_tmux *tmux = tmux_of(backend);
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct tmux_server server;
	int end;
	ap_buf_adds(&lines, options);
	int r = tmux_run(tmux, 9, &lines, &out, err);
	if (r < 0)
		return r;
	if (sscanf(ap_buf_text(&out), "%d%n", &server.pid, &end) != 1)
		return unexpected(&out, err);
	server.start = process_start_time(server.pid);
	pthread_mutex_lock(&tmux->lock);
	tmux->server = server;
	pthread_mutex_unlock(&tmux->lock);
	r = panes_take(tmux, ap_buf_text(&out) + end, err);
	if (r == 0)
		r = tmux_server_record(tmux->socket, &server, err);
	note_socket(tmux);
	return r;
}

static const struct backend_ops tmux_ops = {
	.name = "tmux",
	.spawn = tmux_spawn,
	.respawn = tmux_respawn,
	.adopt = tmux_adopt,
	.remove = tmux_remove,
	.paste = tmux_paste,
	.keys = tmux_keys,
	.capture = tmux_capture,
	.cursor_waits = tmux_cursor_waits,
	.forget = tmux_forget,
	.attach = tmux_attach,
	.over_fd = shim_over_fd,
	.end = shim_end,
	.canonical = shim_canonical,
	.usage = shim_usage,
	.sweep = shim_sweep,
	.bound = shim_bound,
	.groups = shim_groups,
	.pause = shim_pause,
	.configure = tmux_configure,
	.fd = tmux_fd,
	.ready = tmux_ready,
	.hang_up = tmux_hang_up,
	.revive = tmux_revive,
	.tend = tmux_tend,
	.free = tmux_free,
};

void backend_tmux_end_left(const char *state_dir)
{
	AP_CLEANUP_BUF struct ap_buf socket = {0};
	ap_buf_printf(&socket, "%s/tmux.sock", state_dir);
	struct tmux_server server = tmux_server_find(ap_buf_text(&socket));
	if (server.pid)
		tmux_server_end(&server, ap_buf_text(&socket));
}

pid_t backend_tmux_left(const char *state_dir, int *ret_pidfd)
{
	AP_CLEANUP_BUF struct ap_buf socket = {0};
	ap_buf_printf(&socket, "%s/tmux.sock", state_dir);
	struct tmux_server server = tmux_server_find(ap_buf_text(&socket));
	*ret_pidfd = tmux_server_open(&server);
	return *ret_pidfd < 0 ? 0 : server.pid;
}

int backend_tmux_new(struct backend **ret, const char *state_dir, const char *shim,
		     struct ap_err *err)
{
	struct backend_tmux *tmux = calloc(1, sizeof *tmux);
	AP_CLEANUP_BUF struct ap_buf socket = {0};
	ap_buf_printf(&socket, "%s/tmux.sock", state_dir);
	if (!tmux || socket.failed) {
		free(tmux);
		return ap_err_errno(err, -ENOMEM, "tmux");
	}
	tmux->shims.base.ops = &tmux_ops;
	tmux->in_fd = tmux->out_fd = -1;
	tmux->socket = ap_steal(socket.data);
	pthread_mutex_init(&tmux->lock, NULL);
	pthread_cond_init(&tmux->closed, NULL);
	cond_init(&tmux->written);
	ap_list_init(&tmux->commands);
	ap_list_init(&tmux->panes);
	int r = 0;
	if (strlen(tmux->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
		r = ap_err_set(err, -ENAMETOOLONG,
			       "'%s' is too long for a socket: choose a shorter -o state_dir",
			       tmux->socket);
	if (r == 0)
		r = find_server(tmux, err);
	if (r == 0)
		r = shims_open(&tmux->shims, state_dir, shim, err);
	if (r == 0)
		r = start_client(tmux, err);
	if (r < 0) {
		tmux_free(&tmux->shims.base, true);
		return r;
	}
	*ret = &tmux->shims.base;
	return 0;
}
