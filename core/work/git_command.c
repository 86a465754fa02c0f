#include "git_command.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "process.h"

#define MAX_ARGS      64
#define RESOLVE_LIMIT (5 * AP_SECOND)

static const char *const settings[] = {"core.fsmonitor=false",	 "core.quotePath=false",
				       "core.safecrlf=false",	 "gc.auto=0",
				       "maintenance.auto=false", "advice.detachedHead=false",
				       "commit.gpgSign=false",	 "advice.addEmbeddedRepo=false"};

/* `safe` is filled with what some of the arguments point to. */
static size_t begin_args(const struct git_place *place, struct ap_buf *safe,
			 const char *argv[MAX_ARGS])
{
	size_t n = 0;
	/* Whose the repository is was looked at when the pool began: git, which refuses those of
	 * other users, is to trust this one, and what it starts too. Where none is named it is only
	 * asked which one a path is in, and obeys nothing of it. */
	ap_buf_printf(safe, "safe.directory=%s", place->git_dir ? place->git_dir : "*");
	argv[n++] = "git";
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
		argv[n++] = "-c";
		argv[n++] = settings[i];
	}
	argv[n++] = "-c";
	argv[n++] = ap_buf_text(safe);
	if (!place->with_hooks) {
		argv[n++] = "-c";
		argv[n++] = "core.hooksPath=/dev/null";
	}
	if (place->git_dir) {
		argv[n++] = "--git-dir";
		argv[n++] = place->git_dir;
	}
	if (place->work_tree) {
		argv[n++] = "--work-tree";
		argv[n++] = place->work_tree;
	}
	return n;
}

int git_run(const struct git_place *place, struct ap_buf *out, struct ap_err *err,
	    const char *const *args)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	AP_CLEANUP_BUF struct ap_buf safe = {0};
	const char *argv[MAX_ARGS];
	const char *env[] = {"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", NULL,
			     NULL};
	size_t n = begin_args(place, &safe, argv);
	if (place->index) {
		ap_buf_printf(&index, "GIT_INDEX_FILE=%s", place->index);
		env[3] = ap_buf_text(&index);
	}
	for (; *args && n < MAX_ARGS - 1; args++)
		argv[n++] = *args;
	argv[n] = NULL;
	return process_run(
		&(struct process_run){
			.argv = argv,
			.env = env,
			.dir = place->work_tree ? place->work_tree : place->git_dir,
			.limit_ns = place->limit_ns ? place->limit_ns : GIT_LIMIT,
			.in = place->in,
			.out = out,
			.out_max = place->out_max,
		},
		err);
}

int git_must(const struct git_place *place, struct ap_buf *out, struct ap_err *err,
	     const char *const *args)
{
	int r = git_run(place, out, err, args);
	return r > 0 ? -EIO : r;
}

void git_trim(struct ap_buf *line)
{
	while (line->len > 0 && line->data[line->len - 1] == '\n')
		line->data[--line->len] = '\0';
}

/* Copies an object name that git printed. */
static int copy_oid(char ret[GIT_OID_MAX + 1], struct ap_buf *line, struct ap_err *err)
{
	git_trim(line);
	if (line->failed || line->len == 0 || line->len > GIT_OID_MAX)
		return ap_err_set(err, -EIO, "git: '%.80s' is no object name", ap_buf_text(line));
	memcpy(ret, line->data, line->len + 1);
	return 0;
}

int git_oid(const struct git_place *place, char ret[GIT_OID_MAX + 1], struct ap_err *err,
	    const char *const *args)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	int r = git_must(place, &out, err, args);
	return r < 0 ? r : copy_oid(ret, &out, err);
}

int git_rev_parse(const struct git_place *place, const char *revision, char ret[GIT_OID_MAX + 1],
		  struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf commit = {0};
	ap_buf_printf(&commit, "%s^{commit}", revision);
	int r = git_run(place, &out, err,
			GIT_ARGS("rev-parse", "--verify", "--quiet", "--end-of-options",
				 ap_buf_text(&commit)));
	if (r != 0)
		return r < 0 ? r : 1;
	return copy_oid(ret, &out, err);
}

/* --- the resolver --- */

struct git_resolver {
	const char *git_dir;
	pthread_mutex_t lock; /* of what follows */
	pid_t pid;	      /* 0: not running */
	int in_fd, out_fd;    /* its standard input and output */
};

struct git_resolver *git_resolver_new(const char *git_dir)
{
	struct git_resolver *resolver = calloc(1, sizeof *resolver);
	if (!resolver)
		return NULL;
	resolver->git_dir = git_dir;
	pthread_mutex_init(&resolver->lock, NULL);
	return resolver;
}

static void resolver_end_locked(struct git_resolver *resolver)
{
	if (!resolver->pid)
		return;
	close(resolver->in_fd);
	close(resolver->out_fd);
	kill(resolver->pid, SIGKILL); /* it only reads */
	while (waitpid(resolver->pid, NULL, 0) < 0 && errno == EINTR)
		;
	resolver->pid = 0;
}

void git_resolver_free(struct git_resolver *resolver)
{
	if (!resolver)
		return;
	resolver_end_locked(resolver);
	pthread_mutex_destroy(&resolver->lock);
	free(resolver);
}

static int resolver_start_locked(struct git_resolver *resolver, struct ap_err *err)
{
	const struct git_place place = {.git_dir = resolver->git_dir};
	AP_CLEANUP_BUF struct ap_buf safe = {0};
	const char *argv[MAX_ARGS];
	size_t n = begin_args(&place, &safe, argv);
	argv[n++] = "cat-file";
	argv[n++] = "--batch-check=%(objectname)";
	argv[n] = NULL;
	return process_open(&(struct process_run){.argv = argv,
						  .env = GIT_ARGS("LC_ALL=C"),
						  .dir = resolver->git_dir},
			    &resolver->pid, &resolver->in_fd, &resolver->out_fd, err);
}

/* Reads one line of the answer, without its newline. False when it does not come. */
static bool read_line(int fd, struct ap_buf *line)
{
	int64_t deadline = ap_clock_ns() + RESOLVE_LIMIT;
	for (;;) {
		char block[512];
		struct pollfd ready = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - ap_clock_ns();
		if (left <= 0 || (poll(&ready, 1, (int)(left / AP_MS) + 1) <= 0 && errno != EINTR))
			return false;
		ssize_t n = read(fd, block, sizeof block);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n < 0)
			continue;
		ap_buf_add(line, block, (size_t)n);
		if (line->failed)
			return false;
		if (line->data[line->len - 1] == '\n') {
			git_trim(line);
			return true;
		}
	}
}

/* One question to the git that stays. False when it has gone. */
static bool ask_locked(struct git_resolver *resolver, const struct ap_buf *question,
		       struct ap_buf *answer)
{
	if (!resolver->pid && resolver_start_locked(resolver, NULL) < 0)
		return false;
	if (write(resolver->in_fd, question->data, question->len) == (ssize_t)question->len &&
	    read_line(resolver->out_fd, answer))
		return true;
	resolver_end_locked(resolver);
	return false;
}

int git_resolve(struct git_resolver *resolver, const char *revision, char ret[GIT_OID_MAX + 1],
		struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf question = {0};
	AP_CLEANUP_BUF struct ap_buf answer = {0};
	const struct git_place place = {.git_dir = resolver->git_dir};
	ap_buf_printf(&question, "%s^{commit}\n", revision);
	if (question.failed)
		return ap_err_errno(err, -ENOMEM, "%s", revision);
	if (strchr(revision, '\n') ||
	    question.len > 4096) /* it reads lines; a pipe's atomic write */
		return 1;
	pthread_mutex_lock(&resolver->lock);
	bool answered = ask_locked(resolver, &question, &answer);
	pthread_mutex_unlock(&resolver->lock);
	if (!answered)
		return git_rev_parse(&place, revision, ret, err);
	/* an object name, or "QUESTION missing", "QUESTION ambiguous" */
	if (strchr(ap_buf_text(&answer), ' '))
		return 1;
	return copy_oid(ret, &answer, err);
}
