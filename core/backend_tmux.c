/* tmux as the terminal of agents: one private server, driven through one client in control mode.
 *
 * A command is a line on the client's standard input; its answer is a block between %begin and %end
 * (or %error) on its output, in the order of the commands. Workers write the lines and wait; the
 * maintenance thread reads the answers and wakes them. Knows nothing of pools, leases or git. */
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
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "backend.h"
#include "cgroup.h"
#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "list.h"
#include "process.h"
#include "text.h"

#define COMMAND_LIMIT (20 * AP_SECOND)
#define SERVER_END_MS 3000
#define PROC_MAX      (16 << 20) /* bytes of a file of /proc */
/* Bytes of one line of the server, and of one answer; what is longer is cut: it holds what programs
 * print and call themselves. */
#define LINE_MAX_LEN (4 << 20)
#define BLOCK_MAX    (64 << 20)
#define OWN_SESSION  "pool" /* the control client's, beside those of the agents */

struct tmux_command {
	struct ap_list link;
	unsigned n_blocks;   /* answers still to come */
	struct ap_buf *out;  /* where the text of the answers goes; NULL: nowhere */
	bool failed;	     /* one of the answers was %error */
	struct ap_buf error; /* its text */
	bool abandoned;	     /* nobody waits any more: the reader frees it */
	pthread_cond_t done;
};

struct backend_tmux {
	struct backend base;
	char *socket, *shim;
	pid_t client;
	struct cgroup_subtree groups; /* of agents; set once */
	char groups_told[64];	      /* what they are good for, in words; likewise */
	char *groups_record;	      /* file that says where they are */
	_Atomic uint64_t max_memory;

	pthread_mutex_t lock;	 /* of what follows */
	int in_fd;		 /* the client's standard input */
	int out_fd;		 /* its output: the reader reads it, and closes it at its end */
	pthread_cond_t closed;	 /* the reader has */
	struct ap_list commands; /* sent, not answered; in order */
	bool dead;		 /* the client has gone */

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

static void command_finish_locked(struct tmux_command *command)
{
	ap_list_remove(&command->link);
	command->n_blocks = 0;
	if (command->abandoned)
		command_free(command);
	else
		pthread_cond_signal(&command->done);
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
			command_finish_locked(command);
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
		command_finish_locked(command);
	}
	pthread_mutex_unlock(&tmux->lock);
}

static void tmux_ready(struct backend *backend)
{
	struct backend_tmux *tmux = tmux_of(backend);
	char block[16 << 10];
	ssize_t n = read(tmux->out_fd, block, sizeof block);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_died(tmux);
		pthread_mutex_lock(&tmux->lock);
		close(tmux->out_fd);
		tmux->out_fd = -1;
		pthread_cond_signal(&tmux->closed);
		pthread_mutex_unlock(&tmux->lock);
		return;
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

/* Appends a word in tmux's single quotes, after a blank; `doubled` are characters that tmux would
 * expand in it, and that stand for themselves when they are written twice. */
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
	quote_doubled(line, word, "");
}

static bool write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			return false;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return true;
}

static int send_locked(struct backend_tmux *tmux, struct tmux_command *command,
		       const struct ap_buf *lines, int64_t limit_ns)
{
	if (tmux->dead || !write_all(tmux->in_fd, lines->data, lines->len))
		return -EIO;
	ap_list_append(&tmux->commands, &command->link);
	int64_t end_ns = ap_clock_ns() + limit_ns;
	struct timespec deadline = {.tv_sec = end_ns / AP_SECOND, .tv_nsec = end_ns % AP_SECOND};
	while (command->n_blocks > 0) {
		if (pthread_cond_timedwait(&command->done, &tmux->lock, &deadline) == ETIMEDOUT)
			return -ETIMEDOUT;
	}
	return 0;
}

static struct tmux_command *command_new(unsigned n_blocks, struct ap_buf *out)
{
	struct tmux_command *command = calloc(1, sizeof *command);
	if (!command)
		return NULL;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&command->done, &attr);
	pthread_condattr_destroy(&attr);
	ap_list_init(&command->link);
	command->n_blocks = n_blocks;
	command->out = out;
	return command;
}

/* Sends lines, one command each, and waits for all their answers. A newline inside a word would be
 * another command: -EINVAL. */
static int tmux_run_within(struct backend_tmux *tmux, int64_t limit_ns, unsigned n_lines,
			   const struct ap_buf *lines, struct ap_buf *out, struct ap_err *err)
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
	int r = send_locked(tmux, command, lines, limit_ns);
	if (r == -ETIMEDOUT && command->n_blocks > 0) {
		command->abandoned = true;
		command->out = NULL;
		pthread_mutex_unlock(&tmux->lock);
		return ap_err_set(err, r, "tmux does not answer");
	}
	bool failed = command->failed;
	pthread_mutex_unlock(&tmux->lock);
	if (r == 0 && failed) {
		size_t len = strcspn(ap_buf_text(&command->error), "\n");
		r = ap_err_set(err, -EIO, "tmux: %.*s", (int)len, ap_buf_text(&command->error));
	} else if (r < 0) {
		ap_err_set(err, r, "the tmux server has gone");
	}
	command_free(command);
	return r;
}

static int tmux_run(struct backend_tmux *tmux, unsigned n_lines, const struct ap_buf *lines,
		    struct ap_buf *out, struct ap_err *err)
{
	return tmux_run_within(tmux, COMMAND_LIMIT, n_lines, lines, out, err);
}

/* --- what the pool asks --- */

/* The group of the agent of that name; owned by the caller, NULL: there are no groups. */
static char *group_of(const struct backend_tmux *tmux, const char *name)
{
	char *path;
	if (!tmux->groups.path || !*name)
		return NULL;
	return asprintf(&path, "%s/%s", tmux->groups.path, name) < 0 ? NULL : path;
}

/* In a group of its own, whose counters begin with it. */
static void add_group(struct backend_tmux *tmux, const char *name, struct ap_buf *line)
{
	AP_CLEANUP_FREE char *group =
		cgroup_make(&tmux->groups, name, atomic_load(&tmux->max_memory));
	if (!group)
		return;
	quote(line, "-c");
	quote(line, group);
}

static void add_program(struct backend_tmux *tmux, const struct backend_spawn *spawn,
			struct ap_buf *line)
{
	quote(line, "-c");
	quote_doubled(line, spawn->dir, "#");
	for (const char *const *env = spawn->env; env && *env; env++) {
		if (strchr(*env, '=')) {
			quote(line, "-e");
			quote(line, *env);
		}
	}
	ap_buf_adds(line, " --");
	quote(line, tmux->shim);
	for (const char *const *env = spawn->env; env && *env; env++) {
		if (!strchr(*env, '=')) {
			quote(line, "-u");
			quote(line, *env);
		}
	}
	if (spawn->by_lines)
		quote(line, "-i");
	if (process_files() > 0) { /* the server has as many as the daemon */
		char files[32];
		snprintf(files, sizeof files, "%" PRIu64, process_files());
		quote(line, "-n");
		quote(line, files);
	}
	add_group(tmux, spawn->name, line);
	quote(line, "--");
	quote(line, spawn->record_dir);
	for (const char *const *arg = spawn->argv; *arg; arg++)
		quote(line, *arg);
	ap_buf_adds(line, "\n");
}

/* All it prints goes to the file, from the first byte on: both lines reach tmux in one write, so
 * that it reads nothing of the terminal between them. */
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

/* The one pane that a terminal has, whatever else its program makes of the session. */
struct target {
	char text[sizeof((struct backend_terminal *)0)->session + 8];
};

static struct target target_of(const struct backend_terminal *terminal)
{
	struct target target;
	snprintf(target.text, sizeof target.text, "=%s:0.0", terminal->session);
	return target;
}

static void keeper_set(struct backend_terminal *terminal, int keeper)
{
	terminal->keeper = keeper;
	terminal->keeper_start = process_start_time(keeper);
}

static int unexpected(const struct ap_buf *out, struct ap_err *err)
{
	return ap_err_set(err, -EIO, "tmux: unexpected answer '%.80s'", ap_buf_text(out));
}

static int tmux_spawn(struct backend *backend, const struct backend_spawn *spawn,
		      struct backend_terminal *ret, struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	/* known before it is there: what is half made can be removed */
	snprintf(ret->session, sizeof ret->session, "%s", spawn->name);
	ap_buf_adds(&lines, "new-session -d -P -F '#{pane_pid}' -x 200 -y 50 -s");
	quote(&lines, spawn->name);
	add_program(tmux, spawn, &lines);
	add_recorder(spawn, target_of(ret).text, &lines);
	int r = tmux_run(tmux, 2, &lines, &out, err);
	if (r < 0)
		return r;
	int keeper;
	if (sscanf(ap_buf_text(&out), "%d", &keeper) != 1)
		return unexpected(&out, err);
	keeper_set(ret, keeper);
	return 0;
}

/* The process in a terminal's pane, which may have ended. -ENOENT: there is no such terminal. */
static int pane_of(struct backend_tmux *tmux, const struct backend_terminal *terminal, int *ret_pid,
		   bool *ret_dead)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct ap_err err;
	int pid, dead;
	/* of a target that is not there, display-message shows something else */
	ap_buf_printf(&line,
		      "list-panes -s -f '#{==:#{window_index}.#{pane_index},0.0}'"
		      " -F '#{pane_pid} #{pane_dead}' -t '=%s'\n",
		      terminal->session);
	int r = tmux_run(tmux, 1, &line, &out, &err);
	if (r == -EIO && strstr(err.text, "can't find"))
		return -ENOENT;
	if (r == 0 && sscanf(ap_buf_text(&out), "%d %d", &pid, &dead) != 2)
		r = -ENOENT;
	if (r == 0 && ret_pid)
		*ret_pid = pid;
	if (r == 0 && ret_dead)
		*ret_dead = dead;
	return r;
}

static int tmux_respawn(struct backend *backend, const struct backend_spawn *spawn,
			struct backend_terminal *terminal, struct ap_err *err)
{
	struct backend_tmux *tmux = tmux_of(backend);
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const struct target target = target_of(terminal);
	if (pane_of(tmux, terminal, NULL, NULL) == -ENOENT) {
		struct backend_terminal fresh;
		int r = tmux_spawn(backend, spawn, &fresh, err);
		if (r == 0)
			keeper_set(terminal, fresh.keeper);
		return r;
	}
	ap_buf_adds(&lines, "clear-history -t");
	quote(&lines, target.text);
	ap_buf_adds(&lines, "\nrespawn-pane -k -t");
	quote(&lines, target.text);
	add_program(tmux, spawn, &lines);
	add_recorder(spawn, target.text, &lines);
	ap_buf_adds(&lines, "display-message -p -t");
	quote(&lines, target.text);
	ap_buf_adds(&lines, " '#{pane_pid}'\n");
	int r = tmux_run(tmux, 4, &lines, &out, err);
	if (r < 0)
		return r;
	int keeper;
	if (sscanf(ap_buf_text(&out), "%d", &keeper) != 1)
		return unexpected(&out, err);
	keeper_set(terminal, keeper);
	return 0;
}

static int one_command(struct backend_tmux *tmux, const char *command, const char *target,
		       const char *const *words, struct ap_buf *out, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	ap_buf_adds(&line, command);
	quote(&line, target);
	for (; words && *words; words++)
		quote(&line, *words);
	ap_buf_adds(&line, "\n");
	return tmux_run(tmux, 1, &line, out, err);
}

static int tmux_remove(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	char target[sizeof terminal->session + 2];
	if (!terminal->session[0])
		return 0; /* an empty target would be our own session */
	snprintf(target, sizeof target, "=%s", terminal->session);
	return one_command(tmux_of(backend), "kill-session -t", target, NULL, NULL, err);
}

static int tmux_adopt(struct backend *backend, const char *name, struct backend_terminal *terminal,
		      struct ap_err *err)
{
	int pid = 0;
	bool dead = true;
	snprintf(terminal->session, sizeof terminal->session, "%s", name);
	int r = pane_of(tmux_of(backend), terminal, &pid, &dead);
	bool same = r == 0 && !dead && pid == terminal->keeper &&
		    process_start_time(pid) == terminal->keeper_start;
	if (same)
		return 0;
	if (r < 0 && r != -ENOENT) /* whether it has is not known */
		return ap_err_set(err, r, "tmux does not say what became of %s", name);
	if (r == 0 && !dead) /* nobody's */
		(void)tmux_remove(backend, terminal, NULL);
	terminal->keeper = 0;
	return ap_err_set(err, -ESRCH, "the program of %s has ended", name);
}

static int tmux_paste(struct backend *backend, const struct backend_terminal *terminal,
		      const char *file, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	char name[32];
	/* buffers belong to the server: a name of its own for every terminal */
	const struct target target = target_of(terminal);
	snprintf(name, sizeof name, "prompt-%.20s", terminal->session);
	ap_buf_adds(&lines, "load-buffer -b");
	quote(&lines, name);
	quote_doubled(&lines, file, "#");
	ap_buf_adds(&lines, "\ncopy-mode -q -t"); /* a mode would swallow the keys that follow */
	quote(&lines, target.text);
	ap_buf_adds(&lines, "\npaste-buffer -p -r -d -b");
	quote(&lines, name);
	ap_buf_adds(&lines, " -t");
	quote(&lines, target.text);
	ap_buf_adds(&lines, "\n");
	return tmux_run(tmux_of(backend), 3, &lines, NULL, err);
}

static int tmux_keys(struct backend *backend, const struct backend_terminal *terminal,
		     const char *const *keys, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	ap_buf_adds(&line, "send-keys -t");
	quote(&line, target_of(terminal).text);
	ap_buf_adds(&line, " --");
	for (; *keys; keys++)
		quote(&line, *keys);
	ap_buf_adds(&line, "\n");
	return tmux_run(tmux_of(backend), 1, &line, NULL, err);
}

static int tmux_capture(struct backend *backend, const struct backend_terminal *terminal,
			bool above, int64_t limit_ns, struct ap_buf *out, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	/* -J: what the terminal has wrapped is one line again */
	ap_buf_adds(&line, above ? "capture-pane -p -J -S - -t" : "capture-pane -p -t");
	quote(&line, target_of(terminal).text);
	ap_buf_adds(&line, "\n");
	int r = tmux_run_within(tmux_of(backend), limit_ns ? limit_ns : COMMAND_LIMIT, 1, &line,
				out, err);
	if (r < 0)
		return r;
	while (out->len > 1 && out->data[out->len - 1] == '\n' && out->data[out->len - 2] == '\n')
		out->data[--out->len] = '\0';
	if (out->len == 1 && out->data[0] == '\n')
		out->data[--out->len] = '\0';
	return 0;
}

static int tmux_forget(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	return one_command(tmux_of(backend), "clear-history -t", target_of(terminal).text, NULL,
			   NULL, err);
}

/* --- the process behind a terminal --- */

static int keeper_over_fd(struct backend *backend, const struct backend_terminal *terminal,
			  struct ap_err *err)
{
	(void)backend;
	int pid_fd = pidfd_open(terminal->keeper, 0);
	if (pid_fd < 0)
		return ap_err_errno(err, -errno, "the keeper of %s", terminal->session);
	if (terminal->keeper_start &&
	    process_start_time(terminal->keeper) != terminal->keeper_start) {
		close(pid_fd);
		return ap_err_set(err, -ESRCH, "the keeper of %s has ended", terminal->session);
	}
	return pid_fd;
}

static void keeper_end(struct backend *backend, const struct backend_terminal *terminal,
		       int over_fd)
{
	(void)backend;
	(void)terminal;
	(void)pidfd_send_signal(over_fd, SIGTERM, NULL, 0); /* fails when it has ended */
}

static bool keeper_canonical(struct backend *backend, const struct backend_terminal *terminal)
{
	char path[64];
	struct termios modes;
	(void)backend;
	snprintf(path, sizeof path, "/proc/%d/fd/0", (int)terminal->keeper);
	AP_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && tcgetattr(fd, &modes) == 0 && (modes.c_lflag & ICANON);
}

static int keeper_usage(struct backend *backend, const struct backend_terminal *terminal,
			struct process_table *table, struct process_usage *ret)
{
	AP_CLEANUP_FREE char *path = group_of(tmux_of(backend), terminal->session);
	struct cgroup_usage group;
	bool grouped = path && cgroup_usage(path, &group);
	int r = 0;
	if (!grouped || !group.has_memory)
		r = table ? process_table_usage(table, terminal->keeper, ret)
			  : process_tree_usage(terminal->keeper, ret);
	if (r == 0 && grouped) {
		ret->cpu_ns = group.cpu_ns;
		ret->n_processes = group.n_processes;
		if (group.has_memory)
			ret->memory = group.memory;
	}
	return r;
}

static void keeper_sweep(struct backend *backend, const char *name)
{
	AP_CLEANUP_FREE char *path = group_of(tmux_of(backend), name);
	if (path)
		(void)cgroup_remove(path); /* what does not end is left for the next start */
}

static void tmux_bound(struct backend *backend, uint64_t max_memory)
{
	struct backend_tmux *tmux = tmux_of(backend);
	atomic_store(&tmux->max_memory, max_memory);
	cgroup_subtree_bound(&tmux->groups, max_memory);
}

static const char *tmux_groups(struct backend *backend)
{
	return tmux_of(backend)->groups_told;
}

static int keeper_pause(struct backend *backend, const struct backend_terminal *terminal, bool stop)
{
	(void)backend;
	return stop ? process_tree_stop(terminal->keeper) : process_tree_continue(terminal->keeper);
}

/* --- where the groups are --- */

static void read_proc(const char *name, struct ap_buf *ret)
{
	AP_CLEANUP_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : 1;
	while (n > 0 && ret->len < PROC_MAX && ap_buf_reserve(ret, 4096)) {
		n = read(fd, ret->data + ret->len, 4095);
		ret->len += n > 0 ? (size_t)n : 0;
		ret->data[ret->len] = '\0';
	}
}

/* Of this state directory and no other, also where another mount namespace has one of that name. */
static void groups_name(const char *state_dir, char *ret, size_t size)
{
	struct stat st = {0};
	char text[64];
	(void)stat(state_dir, &st); /* then by its path alone */
	snprintf(text, sizeof text, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	snprintf(ret, size, "agentpoolfs-%016jx", (uintmax_t)(ap_hash(state_dir) ^ ap_hash(text)));
}

/* Where a daemon before has its groups, as they may hold agents still: it may have been started
 * elsewhere. Owned by the caller; NULL: there is none. */
static char *groups_before(const struct backend_tmux *tmux, const char *state_dir, const char *name)
{
	char path[1024];
	if (file_read_line(state_dir, "cgroup", path, sizeof path) < 0)
		return NULL;
	const char *slash = strrchr(path, '/');
	if (path[0] != '/' || strcmp(slash + 1, name) != 0 || access(path, F_OK) < 0) {
		unlink(tmux->groups_record);
		return NULL;
	}
	return strdup(path);
}

static char *groups_here(const char *name)
{
	AP_CLEANUP_BUF struct ap_buf mounts = {0};
	AP_CLEANUP_BUF struct ap_buf membership = {0};
	char *path;
	read_proc("/proc/self/mountinfo", &mounts);
	read_proc("/proc/self/cgroup", &membership);
	AP_CLEANUP_FREE char *home = cgroup_home(ap_buf_text(&mounts), ap_buf_text(&membership));
	return !home || asprintf(&path, "%s/%s", home, name) < 0 ? NULL : path;
}

/* Has the agents' groups, if there can be any. */
static void groups_open(struct backend_tmux *tmux, const char *state_dir)
{
	char name[64];
	groups_name(state_dir, name, sizeof name);
	AP_CLEANUP_FREE char *path = groups_before(tmux, state_dir, name);
	if (!path)
		path = groups_here(name);
	/* known before it is there: what is half made can be removed */
	if (path && file_write(tmux->groups_record, path, strlen(path), NULL) == 0 &&
	    !cgroup_subtree_open(&tmux->groups, path))
		unlink(tmux->groups_record);
	cgroup_subtree_describe(&tmux->groups, tmux->groups_told, sizeof tmux->groups_told);
}

static void groups_close(struct backend_tmux *tmux, bool keep)
{
	if (tmux->groups.path && cgroup_subtree_close(&tmux->groups, keep))
		unlink(tmux->groups_record);
}

/* --- its life --- */

static int tmux_cli(const char *socket, const char *const words[3], struct ap_buf *out)
{
	const char *argv[] = {"tmux", "-S", socket, words[0], words[1], words[2], NULL};
	return process_run(
		&(struct process_run){.argv = argv, .limit_ns = COMMAND_LIMIT, .out = out}, NULL);
}

/* Ends the server of a socket, if there is one, and waits until it has ended. A server whose
 * control client died without reading its last answer waits for it for ever (tmux 3.3a): it is made
 * to end; the keepers in its terminals then end their trees by themselves. */
static void end_server(const char *socket)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	int pid = 0;
	if (access(socket, F_OK) < 0)
		return;
	if (tmux_cli(socket, (const char *const[]){"display-message", "-p", "#{pid}"}, &out) == 0)
		pid = atoi(ap_buf_text(&out));
	AP_CLEANUP_CLOSE int pid_fd = pid > 1 ? pidfd_open(pid, 0) : -1;
	tmux_cli(socket, (const char *const[]){"kill-server", NULL, NULL}, NULL);
	struct pollfd over = {.fd = pid_fd, .events = POLLIN};
	if (pid_fd >= 0 && poll(&over, 1, SERVER_END_MS) == 0)
		(void)pidfd_send_signal(pid_fd, SIGKILL, NULL, 0); /* fails when it has ended now */
	unlink(socket);
}

/* Whether the server has any terminal but the client's own; one that does not answer may. */
static bool has_terminals(const struct backend_tmux *tmux)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct pollfd said = {.fd = tmux->out_fd, .events = POLLIN};
	if (tmux->client > 0 && !tmux->heard) /* the client may just be starting it */
		poll(&said, 1, SERVER_END_MS);
	if (tmux_cli(tmux->socket, (const char *const[]){"list-sessions", "-F", "#{session_name}"},
		     &out) != 0)
		return true;
	return strcmp(ap_buf_text(&out), OWN_SESSION "\n") != 0;
}

static void end_client(struct backend_tmux *tmux)
{
	pthread_mutex_lock(&tmux->lock);
	tmux->dead = true;
	if (tmux->in_fd >= 0)
		close(tmux->in_fd);
	tmux->in_fd = -1;
	pthread_mutex_unlock(&tmux->lock);
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
		end_server(tmux->socket);
	end_client(tmux);
	if (tmux->out_fd >= 0) /* the reader is there no more */
		close(tmux->out_fd);
	client_died(tmux);
	pthread_cond_destroy(&tmux->closed);
	groups_close(tmux, keep);
	ap_buf_fini(&tmux->line);
	ap_buf_fini(&tmux->block);
	pthread_mutex_destroy(&tmux->lock);
	free(tmux->groups_record);
	free(tmux->socket);
	free(tmux->shim);
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
			      "exec sleep infinity",
			      NULL};
	int in_fd, out_fd;
	int r = process_open(&(struct process_run){.argv = argv, .is_server = true}, &tmux->client,
			     &in_fd, &out_fd, err);
	if (r < 0)
		return r;
	fcntl(out_fd, F_SETFL, O_NONBLOCK);
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
	while (tmux->out_fd >= 0) /* its client has ended: the reader sees that */
		pthread_cond_wait(&tmux->closed, &tmux->lock);
	pthread_mutex_unlock(&tmux->lock);
	if (anew)
		end_server(tmux->socket);
	tmux->line.len = tmux->block.len = 0;
	tmux->in_block = false;
	int r = start_client(tmux, err);
	pthread_mutex_lock(&tmux->lock);
	tmux->dead = r < 0;
	pthread_mutex_unlock(&tmux->lock);
	return r;
}

const bool backend_runs_programs = true;

int backend_configure(struct backend *backend, struct ap_err *err)
{
	static const char options[] = "set-option -g remain-on-exit on\n"
				      "set-option -g status off\n"
				      "set-option -g history-limit 2000\n"
				      "set-option -g default-terminal tmux-256color\n"
				      "set-option -g default-shell /bin/sh\n"
				      "set-option -s exit-empty off\n"
				      "set-option -s escape-time 0\n";
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	ap_buf_adds(&lines, options);
	return tmux_run(tmux_of(backend), 7, &lines, NULL, err);
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
	.forget = tmux_forget,
	.over_fd = keeper_over_fd,
	.end = keeper_end,
	.canonical = keeper_canonical,
	.usage = keeper_usage,
	.sweep = keeper_sweep,
	.bound = tmux_bound,
	.groups = tmux_groups,
	.pause = keeper_pause,
	.fd = tmux_fd,
	.ready = tmux_ready,
	.revive = tmux_revive,
	.free = tmux_free,
};

int backend_new(struct backend **ret, const char *state_dir, const char *shim, struct ap_err *err)
{
	struct backend_tmux *tmux = calloc(1, sizeof *tmux);
	AP_CLEANUP_BUF struct ap_buf socket = {0};
	ap_buf_printf(&socket, "%s/tmux.sock", state_dir);
	if (!tmux || socket.failed) {
		free(tmux);
		return ap_err_errno(err, -ENOMEM, "tmux");
	}
	tmux->base.ops = &tmux_ops;
	tmux->in_fd = tmux->out_fd = -1;
	tmux->socket = ap_steal(socket.data);
	tmux->shim = strdup(shim);
	pthread_mutex_init(&tmux->lock, NULL);
	pthread_cond_init(&tmux->closed, NULL);
	ap_list_init(&tmux->commands);
	int r = 0;
	if (asprintf(&tmux->groups_record, "%s/cgroup", state_dir) < 0)
		tmux->groups_record = NULL;
	if (!tmux->shim || !tmux->groups_record)
		r = ap_err_errno(err, -ENOMEM, "tmux");
	else if (strlen(tmux->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
		r = ap_err_set(err, -ENAMETOOLONG,
			       "'%s' is too long for a socket: choose a shorter -o state_dir",
			       tmux->socket);
	if (r == 0) {
		groups_open(tmux, state_dir);
		r = start_client(tmux, err);
	}
	if (r < 0) {
		tmux_free(&tmux->base, true);
		return r;
	}
	*ret = &tmux->base;
	return 0;
}
