/* Starts the program, and runs the commands before and after it: their environment, output and time
 * limits. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "driver.h"
#include "file.h"
#include "process.h"
#include "seed.h"
#include "session_internal.h"
#include "words.h"

static void words_expand(struct ap_words *words, const struct session *session, const char *text)
{
	struct ap_buf word = {0};
	expand(session, text, strlen(text), &word);
	ap_words_take(words, &word);
}

/* AGENTPOOL_PORT_1 to _N, and AGENTPOOL_PORT, which is the first. */
static void add_ports(struct ap_words *ret, const struct session *session)
{
	char name[32], port[16];
	if (session->n_ports == 0)
		ap_words_add(ret, "AGENTPOOL_PORT"); /* that of a pool around this one */
	for (unsigned i = 0; i < session->n_ports; i++) {
		snprintf(port, sizeof port, "%u", session->port + i);
		snprintf(name, sizeof name, "AGENTPOOL_PORT_%u", i + 1);
		ap_words_add_pair(ret, name, port);
		if (i == 0)
			ap_words_add_pair(ret, "AGENTPOOL_PORT", port);
	}
}

/* The changes to the environment of a session's programs: NAME=VALUE sets, NAME unsets. */
static int session_env(struct ap_words *ret, const struct session *session, struct ap_err *err)
{
	const struct profile_words *more = &profile_values(session->host->profile)->env;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	ap_buf_printf(&dir, "%s/agents/%s", session->host->mountpoint, session->name);
	ap_words_add_pair(ret, "AGENTPOOL_DIR", ap_buf_text(&dir));
	ap_words_add_pair(ret, "AGENTPOOL_NAME", session->name);
	ap_words_add_pair(ret, "AGENTPOOL_WORKTREE", session->cwd);
	add_ports(ret, session);
	if (!profile_path(session->host) && getenv("PATH")) /* not that of an older tmux server */
		ap_words_add_pair(ret, "PATH", getenv("PATH"));
	for (unsigned i = 0; i < more->n; i++)
		words_expand(ret, session, more->at[i]);
	return ret->failed || dir.failed ? ap_err_errno(err, -ENOMEM, "%s", session->name) : 0;
}

/* The program, the arguments of its profile, those for its conversation, then the user's own. */
static int session_argv(struct ap_words *ret, struct session *session, struct ap_err *err)
{
	const struct profile_words *more = &profile_values(session->host->profile)->args;
	const char *const *own = session->host->argv;
	for (const char *const *word = own; *word; word++) {
		ap_words_add(ret, *word);
		for (unsigned i = 0; word == own && i < more->n; i++)
			words_expand(ret, session, more->at[i]);
		if (word == own)
			conversation_begin(session, ret);
	}
	return ret->failed ? ap_err_errno(err, -ENOMEM, "%s", session->name) : 0;
}

/* Writes the files that the profile lists to the session's directory. */
static int write_files(const struct session *session, struct ap_err *err)
{
	const struct profile_pairs *files = &profile_values(session->host->profile)->files;
	AP_CLEANUP_BUF struct ap_buf left = {0};
	ap_buf_printf(&left, "%s/" SESSION_LEFT, session->dir);
	int made = file_make_dirs(ap_buf_text(&left), err);
	if (made < 0)
		return made;
	for (unsigned i = 0; i < files->n; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		AP_CLEANUP_BUF struct ap_buf text = {0};
		const char *value = files->at[i].value;
		ap_buf_printf(&path, "%s/%s", session->dir, files->at[i].name);
		expand(session, value, strlen(value), &text);
		int r = path.failed || text.failed
				? ap_err_errno(err, -ENOMEM, "%s", session->name)
				: file_write(ap_buf_text(&path), ap_buf_text(&text), text.len, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- settings without which the program asks questions --- */

/* expand() as seed_json() calls it. */
static void expand_json(void *data, const char *text, struct ap_buf *ret)
{
	expand(data, text, strlen(text), ret);
}

static void seed_settings(struct session *session)
{
	const struct profile_pairs *seeds = &profile_values(session->host->profile)->seeds;
	for (unsigned i = 0; i < seeds->n; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		struct ap_err err = {""};
		expand(session, seeds->at[i].name, strlen(seeds->at[i].name), &path);
		if (seed_json(ap_buf_text(&path), seeds->at[i].value, expand_json, session, &err) <
		    0)
			session->callbacks->note(session->owner, SESSION_SEED_FAILED, err.text);
	}
}

/* Makes the settings before the first program of the host starts; other sessions wait. */
static void seed_once(struct session *session)
{
	struct session_host *host = session->host;
	pthread_mutex_lock(&host->seeding);
	if (!host->seeded)
		seed_settings(session);
	host->seeded = true;
	pthread_mutex_unlock(&host->seeding);
}

/* --- commands --- */

#define TOLD_KEPT (64 << 10) /* bytes at the end of a command's output that are searched */

/* The gist of what a command printed, which the file has from an offset on. */
static void what_it_said(int fd, off_t from, struct ap_buf *ret)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	off_t end = lseek(fd, 0, SEEK_END);
	off_t at = end - TOLD_KEPT > from ? end - TOLD_KEPT : from;
	if (end <= at || !ap_buf_reserve(&text, (size_t)(end - at)))
		return;
	ssize_t n = pread(fd, text.data, (size_t)(end - at), at);
	ap_text_gist(text.data, n > 0 ? (size_t)n : 0, ret);
}

/* What runs a command: sh, where there is a wall by the shim, which makes the sandbox. */
static void command_argv(const struct session *session, const char *command,
			 const struct wall *wall, struct ap_words *ret)
{
	if (session->host->wall) {
		ap_words_add(ret, session->host->wall->shim);
		ap_words_add(ret, "-x");
		backend_wall_words(&wall->shim, ret);
		ap_words_add(ret, "--");
		ap_words_add(ret, session->dir);
	}
	ap_words_add(ret, "/bin/sh");
	ap_words_add(ret, "-c");
	ap_words_add(ret, command);
}

int session_run(struct session *session, const char *command, int64_t limit_ns, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	AP_CLEANUP_WORDS struct ap_words env = {NULL, 0, false};
	output_raw_path(session, &raw);
	AP_CLEANUP_CLOSE int log = file_open(ap_buf_text(&raw), O_RDWR | O_APPEND | O_NOFOLLOW, 0);
	if (log < 0)
		return ap_err_errno(err, log, "%s", ap_buf_text(&raw));
	struct wall wall = {.shim = {.words = NULL}};
	AP_CLEANUP_WORDS struct ap_words argv = {NULL, 0, false};
	int r = session_env(&env, session, err);
	if (r == 0 && session->host->wall)
		r = wall_make(session, "wall.command", &wall, err);
	if (r == 0)
		command_argv(session, command, &wall, &argv);
	wall_fini(&wall);
	if (r == 0 && argv.failed)
		r = ap_err_errno(err, -ENOMEM, "%s", session->name);
	if (r < 0)
		return r;
	off_t from = lseek(log, 0, SEEK_END);
	r = process_run(
		&(struct process_run){
			.argv = (const char *const *)argv.at,
			.env = (const char *const *)env.at,
			.dir = session->cwd,
			.limit_ns = limit_ns,
			.log_fd = log,
			.kill_group = true,
			.no_terminal = true,
		},
		err);
	if (r > 0) {
		AP_CLEANUP_BUF struct ap_buf said = {0};
		what_it_said(log, from, &said);
		r = ap_err_set(err, -EIO, "exit code %d%s%s", r, said.len ? ": " : "",
			       ap_buf_text(&said));
	}
	return r;
}

void session_say(struct session *session, const char *line)
{
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	output_raw_path(session, &raw);
	AP_CLEANUP_CLOSE int log =
		file_open(ap_buf_text(&raw), O_WRONLY | O_APPEND | O_NOFOLLOW, 0);
	if (log >= 0) /* fails on a full disk */
		(void)dprintf(log, "agentpoolfs: %s\n", line);
}

/* --- the program --- */

void session_set_ports(struct session *session, unsigned first, unsigned n)
{
	session->port = first;
	session->n_ports = n;
}

static int start_program(struct session *session, bool first, struct ap_err *err)
{
	struct session_host *host = session->host;
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	AP_CLEANUP_BUF struct ap_buf errors = {0};
	AP_CLEANUP_WORDS struct ap_words env = {NULL, 0, false};
	AP_CLEANUP_WORDS struct ap_words argv = {NULL, 0, false};
	int r = session_env(&env, session, err);
	if (r == 0)
		r = session_argv(&argv, session, err);
	if (r < 0)
		return r;
	output_raw_path(session, &raw);
	struct backend_spawn spawn = {
		.name = session->name,
		.dir = session->cwd,
		.argv = (const char *const *)argv.at,
		.env = (const char *const *)env.at,
		.record_dir = session->dir,
		.output_file = ap_buf_text(&raw),
		.size = atomic_load(&host->terminal_size),
		.input_fifo = !session->driver->needs_terminal,
	};
	if (session->driver->errors_apart) {
		output_errors_path(session, &errors);
		spawn.errors_file = ap_buf_text(&errors);
	}
	pthread_mutex_lock(&session->typing);
	session->input_cut = false; /* the cut line went to the last program */
	pthread_mutex_unlock(&session->typing);
	program_starts(session);
	struct wall wall = {.shim = {.words = NULL}};
	if (host->wall) {
		r = wall_make(session, SESSION_WALL, &wall, err);
		spawn.wall = &wall.shim;
	}
	if (r == 0)
		r = (first ? host->backend->ops->spawn : host->backend->ops->respawn)(
			host->backend, &spawn, &session->terminal, err);
	wall_fini(&wall);
	return r;
}

int session_start(struct session *session, bool first, struct ap_err *err)
{
	int r = write_files(session, err);
	if (r < 0)
		return r;
	seed_once(session);
	r = start_program(session, first, err);
	if (r < 0)
		return ap_err_wrap(err, r, "starting %s", session->name);
	r = program_started(session, err);
	if (r == 0 && session->driver->started)
		session->driver->started(session);
	return r;
}
