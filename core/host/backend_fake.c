/* A backend without programs, for tests and simulation: a terminal is a record in memory, a paste
 * is printed to it, and the words of the command line are the script of what goes wrong.
 *
 *     spawn=20ms   a start takes that long
 *     fail=5       of a hundred starts five fail
 *     exit=3       of a hundred prompts three end the program
 *
 * What goes wrong does so in the same order every time. Knows nothing of pools, leases or git. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend.h"
#include "cleanup.h"
#include "clock.h"
#include "list.h"
#include "text.h"

struct fake_program {
	struct ap_list link;
	char session[32];
	int over_fd, output_fd;
	struct ap_buf screen;
	unsigned exit_percent;
};

struct backend_fake {
	struct backend base;
	pthread_mutex_t lock; /* of what follows */
	struct ap_list programs;
	uint32_t random;
};

static struct backend_fake *fake_of(struct backend *backend)
{
	return (struct backend_fake *)backend;
}

static struct fake_program *find_locked(struct backend_fake *fake, const char *session)
{
	struct ap_list *at;
	ap_list_for_each (at, &fake->programs) {
		struct fake_program *program = ap_container_of(at, struct fake_program, link);
		if (strcmp(program->session, session) == 0)
			return program;
	}
	return NULL;
}

/* The number behind `key=` in the words of a command line; durations are milliseconds. */
static unsigned script(const char *const *argv, const char *key)
{
	size_t len = strlen(key);
	for (; *argv; argv++) {
		if (strncmp(*argv, key, len) == 0 && (*argv)[len] == '=')
			return (unsigned)strtoul(*argv + len + 1, NULL, 10);
	}
	return 0;
}

static bool happens_locked(struct backend_fake *fake, unsigned percent)
{
	fake->random = fake->random * 1664525 + 1013904223; /* Numerical Recipes */
	return (fake->random >> 16) % 100 < percent;
}

static void over_locked(const struct fake_program *program)
{
	uint64_t one = 1;
	(void)!write(program->over_fd, &one, sizeof one); /* fails when it is over already */
}

static void program_free(struct fake_program *program)
{
	ap_list_remove(&program->link);
	if (program->over_fd >= 0)
		close(program->over_fd);
	if (program->output_fd >= 0)
		close(program->output_fd);
	ap_buf_fini(&program->screen);
	free(program);
}

static int program_start(struct fake_program *program, const struct backend_spawn *spawn,
			 struct ap_err *err)
{
	program->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	program->output_fd =
		open(spawn->output_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	program->exit_percent = script(spawn->argv, "exit");
	if (program->over_fd < 0 || program->output_fd < 0)
		return ap_err_errno(err, -errno, "%s", spawn->output_file);
	return 0;
}

static int fake_start(struct backend *backend, const struct backend_spawn *spawn,
		      struct backend_terminal *terminal, struct ap_err *err)
{
	struct backend_fake *fake = fake_of(backend);
	struct fake_program *program = calloc(1, sizeof *program);
	if (!program)
		return ap_err_errno(err, -ENOMEM, "%s", spawn->name);
	ap_list_init(&program->link);
	program->over_fd = program->output_fd = -1;
	snprintf(program->session, sizeof program->session, "%s", spawn->name);
	poll(NULL, 0,
	     (int)script(spawn->argv, "spawn")); /* the time of a start, and no wait for it */
	int r = program_start(program, spawn, err);
	pthread_mutex_lock(&fake->lock);
	struct fake_program *old = find_locked(fake, spawn->name);
	if (r == 0 && happens_locked(fake, script(spawn->argv, "fail")))
		r = ap_err_set(err, -EIO, "'%s' fails as its script says", spawn->argv[0]);
	if (r == 0) {
		ap_list_append(&fake->programs, &program->link);
		snprintf(terminal->session, sizeof terminal->session, "%s", spawn->name);
	}
	if (r == 0 && old)
		program_free(old);
	if (r < 0)
		program_free(program);
	pthread_mutex_unlock(&fake->lock);
	return r;
}

/* Leaves `terminal` alone: its name is set already, and others may be reading it. */
static int fake_respawn(struct backend *backend, const struct backend_spawn *spawn,
			struct backend_terminal *terminal, struct ap_err *err)
{
	struct backend_terminal same;
	(void)terminal;
	return fake_start(backend, spawn, &same, err);
}

static int fake_adopt(struct backend *backend, const char *name, struct backend_terminal *terminal,
		      struct ap_err *err)
{
	(void)backend;
	snprintf(terminal->session, sizeof terminal->session, "%s", name);
	return ap_err_set(err, -ESRCH, "the program of %s has ended with its daemon", name);
}

static int fake_remove(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	struct backend_fake *fake = fake_of(backend);
	(void)err;
	pthread_mutex_lock(&fake->lock);
	struct fake_program *program = find_locked(fake, terminal->session);
	if (program)
		program_free(program);
	pthread_mutex_unlock(&fake->lock);
	return 0;
}

static int missing(const struct backend_terminal *terminal, struct ap_err *err)
{
	return ap_err_set(err, -EIO, "there is no terminal '%s'", terminal->session);
}

static void print_locked(struct fake_program *program, const char *data, size_t len)
{
	(void)!write(program->output_fd, data, len); /* a full disk loses output, nothing else */
	ap_buf_add(&program->screen, data, len);
	if (program->screen.len > 4096)
		ap_buf_drop(&program->screen, program->screen.len - 4096);
}

static int fake_paste(struct backend *backend, const struct backend_terminal *terminal,
		      const char *file, struct ap_err *err)
{
	struct backend_fake *fake = fake_of(backend);
	char text[4096];
	AP_CLEANUP_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
	if (n < 0)
		return ap_err_errno(err, -errno, "%s", file);
	pthread_mutex_lock(&fake->lock);
	struct fake_program *program = find_locked(fake, terminal->session);
	if (program)
		print_locked(program, text, (size_t)n);
	if (program && happens_locked(fake, program->exit_percent))
		over_locked(program);
	pthread_mutex_unlock(&fake->lock);
	return program ? 0 : missing(terminal, err);
}

static int fake_keys(struct backend *backend, const struct backend_terminal *terminal,
		     const char *const *keys, struct ap_err *err)
{
	struct backend_fake *fake = fake_of(backend);
	pthread_mutex_lock(&fake->lock);
	struct fake_program *program = find_locked(fake, terminal->session);
	for (; program && *keys; keys++)
		print_locked(program, "\n", 1);
	pthread_mutex_unlock(&fake->lock);
	return program ? 0 : missing(terminal, err);
}

static int fake_capture(struct backend *backend, const struct backend_terminal *terminal,
			bool above, int64_t limit_ns, struct ap_buf *out, struct ap_err *err)
{
	struct backend_fake *fake = fake_of(backend);
	(void)above;
	(void)limit_ns;
	pthread_mutex_lock(&fake->lock);
	struct fake_program *program = find_locked(fake, terminal->session);
	if (program)
		ap_buf_add(out, ap_buf_text(&program->screen), program->screen.len);
	pthread_mutex_unlock(&fake->lock);
	return program ? 0 : missing(terminal, err);
}

static int fake_forget(struct backend *backend, const struct backend_terminal *terminal,
		       struct ap_err *err)
{
	(void)backend;
	(void)terminal;
	(void)err;
	return 0;
}

static int fake_over_fd(struct backend *backend, const struct backend_terminal *terminal,
			struct ap_err *err)
{
	struct backend_fake *fake = fake_of(backend);
	pthread_mutex_lock(&fake->lock);
	struct fake_program *program = find_locked(fake, terminal->session);
	int fd = program ? fcntl(program->over_fd, F_DUPFD_CLOEXEC, 0) : -1;
	pthread_mutex_unlock(&fake->lock);
	return fd >= 0 ? fd : missing(terminal, err);
}

static void fake_end(struct backend *backend, const struct backend_terminal *terminal, int over_fd)
{
	uint64_t one = 1;
	(void)backend;
	(void)terminal;
	(void)!write(over_fd, &one, sizeof one); /* as over_locked() */
}

static bool fake_canonical(struct backend *backend, const struct backend_terminal *terminal)
{
	(void)backend;
	(void)terminal;
	return false;
}

static bool fake_cursor_waits(struct backend *backend, const struct backend_terminal *terminal)
{
	(void)backend;
	(void)terminal;
	return false;
}

static int fake_usage(struct backend *backend, const struct backend_terminal *terminal,
		      struct process_table *table, struct process_usage *ret)
{
	(void)table;
	(void)backend;
	(void)terminal;
	*ret = (struct process_usage){.memory = 1 << 20, .n_processes = 1};
	return 0;
}

static void fake_sweep(struct backend *backend, const char *name)
{
	(void)backend;
	(void)name;
}

static void fake_bound(struct backend *backend, uint64_t max_memory)
{
	(void)backend;
	(void)max_memory;
}

static const char *fake_groups(struct backend *backend)
{
	(void)backend;
	return "none";
}

static int fake_pause(struct backend *backend, const struct backend_terminal *terminal, bool stop)
{
	(void)backend;
	(void)terminal;
	(void)stop;
	return 0;
}

static void fake_free(struct backend *backend, bool keep)
{
	(void)keep;
	struct backend_fake *fake = fake_of(backend);
	while (!ap_list_empty(&fake->programs))
		program_free(ap_container_of(fake->programs.next, struct fake_program, link));
	pthread_mutex_destroy(&fake->lock);
	free(fake);
}

static const struct backend_ops fake_ops = {
	.name = "fake",
	.spawn = fake_start,
	.respawn = fake_respawn,
	.adopt = fake_adopt,
	.remove = fake_remove,
	.over_fd = fake_over_fd,
	.end = fake_end,
	.paste = fake_paste,
	.keys = fake_keys,
	.capture = fake_capture,
	.cursor_waits = fake_cursor_waits,
	.forget = fake_forget,
	.canonical = fake_canonical,
	.usage = fake_usage,
	.sweep = fake_sweep,
	.bound = fake_bound,
	.groups = fake_groups,
	.pause = fake_pause,
	.free = fake_free,
};

pid_t backend_left(const char *state_dir, int *ret_pidfd)
{
	(void)state_dir;
	*ret_pidfd = -1;
	return 0;
}

int backend_new(struct backend **ret, bool terminal, const char *state_dir, const char *shim,
		struct ap_err *err)
{
	struct backend_fake *fake = calloc(1, sizeof *fake);
	(void)terminal; /* it has one, whatever the caller asks for */
	(void)state_dir;
	(void)shim;
	if (!fake)
		return ap_err_errno(err, -ENOMEM, "backend");
	fake->base.ops = &fake_ops;
	fake->random = 1;
	pthread_mutex_init(&fake->lock, NULL);
	ap_list_init(&fake->programs);
	*ret = &fake->base;
	return 0;
}

const bool backend_runs_programs = false;
