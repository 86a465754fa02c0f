/* Programs without a terminal: a shim by itself, with a FIFO at the program's input and a file at
 * its output. The daemon holds neither open: both go on while it is away, and the next daemon
 * adopts the shim by its pid and start time. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "list.h"
#include "process.h"
#include "shim.h"

#define START_LIMIT (20 * AP_SECOND)

/* A shim that was started or adopted, and not removed. */
struct pipe_program {
	struct ap_list link;
	struct backend_terminal terminal;
};

struct backend_pipe {
	struct shim_backend shims;
	pthread_mutex_t lock;	 /* of what follows */
	struct ap_list programs; /* owned */
};

static struct backend_pipe *pipe_of(struct backend *backend)
{
	return (struct backend_pipe *)backend;
}

static struct pipe_program *find_locked(struct backend_pipe *pipe, const char *name)
{
	struct ap_list *at;
	ap_list_for_each (at, &pipe->programs) {
		struct pipe_program *program = ap_container_of(at, struct pipe_program, link);
		if (strcmp(program->terminal.session, name) == 0)
			return program;
	}
	return NULL;
}

/* Records a shim until it is removed, in place of an earlier one of that name. -ENOMEM. */
static int remember(struct backend_pipe *pipe, const struct backend_terminal *terminal)
{
	pthread_mutex_lock(&pipe->lock);
	struct pipe_program *program = find_locked(pipe, terminal->session);
	if (!program) {
		program = calloc(1, sizeof *program);
		if (program)
			ap_list_append(&pipe->programs, &program->link);
	}
	if (program)
		program->terminal = *terminal;
	pthread_mutex_unlock(&pipe->lock);
	return program ? 0 : -ENOMEM;
}

static void forget_program(struct pipe_program *program)
{
	ap_list_remove(&program->link);
	free(program);
}

/* --- starting one --- */

/* Starts a shim, which goes into the background and prints its pid. */
static int start(struct backend_pipe *pipe, const struct backend_spawn *spawn, pid_t *ret,
		 struct ap_err *err)
{
	AP_CLEANUP_WORDS struct ap_words words = {NULL, 0, false};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	shim_words(&pipe->shims, spawn, spawn->output_file, &words);
	if (words.failed)
		return ap_err_errno(err, -ENOMEM, "%s", spawn->name);
	int r = process_run(
		&(struct process_run){
			.argv = (const char *const *)words.at,
			.env = spawn->env,
			.dir = spawn->dir,
			.limit_ns = START_LIMIT,
			.out = &out,
			.is_server = true,
		},
		err);
	if (r > 0)
		return ap_err_wrap(err, -EIO, "agentpool-shim");
	if (r < 0)
		return r;
	return sscanf(ap_buf_text(&out), "%d", ret) == 1 && *ret > 0
		       ? 0
		       : ap_err_set(err, -EIO, "agentpool-shim: unexpected answer '%.80s'",
				    ap_buf_text(&out));
}

static int pipe_respawn(struct backend *backend, const struct backend_spawn *spawn,
			struct backend_terminal *terminal, struct ap_err *err)
{
	struct backend_terminal started = {.shim = 0};
	pid_t shim;
	snprintf(started.session, sizeof started.session, "%s", spawn->name);
	/* first: ENOMEM must not leave a program running that nobody knows */
	int r = remember(pipe_of(backend), &started);
	if (r < 0)
		return ap_err_errno(err, r, "%s", spawn->name);
	r = start(pipe_of(backend), spawn, &shim, err);
	if (r < 0)
		return r;
	shim_set(&started, shim);
	terminal->shim = started.shim;
	terminal->shim_start = started.shim_start;
	(void)remember(pipe_of(backend), &started); /* cannot fail: it has its place */
	return 0;
}

static int pipe_spawn(struct backend *backend, const struct backend_spawn *spawn,
		      struct backend_terminal *ret, struct ap_err *err)
{
	*ret = (struct backend_terminal){.shim = 0};
	snprintf(ret->session, sizeof ret->session, "%s", spawn->name);
	return pipe_respawn(backend, spawn, ret, err);
}

/* Whether the shim runs without a terminal: one in a terminal has that as its standard input. */
static bool has_no_terminal(pid_t shim)
{
	char path[64], to[64];
	snprintf(path, sizeof path, "/proc/%d/fd/0", (int)shim);
	ssize_t n = readlink(path, to, sizeof to);
	return n == sizeof "/dev/null" - 1 && memcmp(to, "/dev/null", (size_t)n) == 0;
}

static int pipe_adopt(struct backend *backend, const char *name, struct backend_terminal *terminal,
		      struct ap_err *err)
{
	snprintf(terminal->session, sizeof terminal->session, "%s", name);
	if (shim_lives(terminal) && has_no_terminal(terminal->shim)) {
		int r = remember(pipe_of(backend), terminal);
		return r < 0 ? ap_err_errno(err, r, "%s", name) : 0;
	}
	terminal->shim = 0;
	return ap_err_set(err, -ESRCH, "the program of %s has ended", name);
}

static int pipe_remove(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	struct backend_pipe *pipe = pipe_of(backend);
	(void)err;
	pthread_mutex_lock(&pipe->lock);
	struct pipe_program *program = find_locked(pipe, terminal->session);
	if (program)
		forget_program(program);
	pthread_mutex_unlock(&pipe->lock);
	return 0;
}

static void pipe_free(struct backend *backend, bool keep)
{
	struct backend_pipe *pipe = pipe_of(backend);
	while (!ap_list_empty(&pipe->programs)) {
		struct pipe_program *program =
			ap_container_of(pipe->programs.next, struct pipe_program, link);
		AP_CLEANUP_CLOSE int over_fd =
			keep ? -1 : shim_over_fd(backend, &program->terminal, NULL);
		if (over_fd >= 0)
			shim_end(backend, &program->terminal, over_fd);
		forget_program(program);
	}
	shims_close(&pipe->shims, keep);
	pthread_mutex_destroy(&pipe->lock);
	free(pipe);
}

static const struct backend_ops pipe_ops = {
	.name = "pipe",
	.spawn = pipe_spawn,
	.respawn = pipe_respawn,
	.adopt = pipe_adopt,
	.over_fd = shim_over_fd,
	.end = shim_end,
	.remove = pipe_remove,
	.usage = shim_usage,
	.sweep = shim_sweep,
	.bound = shim_bound,
	.groups = shim_groups,
	.pause = shim_pause,
	.free = pipe_free,
};

int backend_pipe_new(struct backend **ret, const char *state_dir, const char *shim,
		     struct ap_err *err)
{
	struct backend_pipe *pipe = calloc(1, sizeof *pipe);
	if (!pipe)
		return ap_err_errno(err, -ENOMEM, "backend");
	pipe->shims.base.ops = &pipe_ops;
	pthread_mutex_init(&pipe->lock, NULL);
	ap_list_init(&pipe->programs);
	int r = shims_open(&pipe->shims, state_dir, shim, err);
	if (r < 0)
		pipe_free(&pipe->shims.base, true);
	else
		*ret = &pipe->shims.base;
	return r;
}
