#include "git_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "process.h"

#define MAX_ARGS 64
#define MAX_ENV	 16
/* Bytes of a line of an answer, which may contain a path. */
#define MAX_LINE (1 << 20)

static const char *const settings[] = {"core.fsmonitor=false",	 "core.quotePath=false",
				       "core.safecrlf=false",	 "gc.auto=0",
				       "maintenance.auto=false", "advice.detachedHead=false",
				       "commit.gpgSign=false",	 "advice.addEmbeddedRepo=false"};

/* Fills `safe` with strings that some of the arguments point to. */
static size_t begin_args(const struct git_place *place, struct ap_buf *safe,
			 const char *argv[MAX_ARGS])
{
	size_t n = 0;
	/* The pool checked the repository's owner when it began. git refuses repositories of other
	 * users: safe.directory makes it, and what it starts, trust this one. Without a git_dir the
	 * caller only asks which repository a path is in, and git obeys nothing of that. */
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

/* Appends a list of directories as git reads it, each quoted as in C. */
static void add_borrowed(const char *const *dirs, struct ap_buf *ret)
{
	ap_buf_adds(ret, "GIT_ALTERNATE_OBJECT_DIRECTORIES=");
	for (size_t i = 0; dirs[i]; i++) {
		ap_buf_adds(ret, i > 0 ? ":\"" : "\"");
		for (const char *at = dirs[i]; *at; at++) {
			if (*at == '\n')
				ap_buf_adds(ret, "\\n");
			else
				ap_buf_printf(ret, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
		}
		ap_buf_adds(ret, "\"");
	}
}

/* Fills `env` with the variables that every git gets and those that the place adds, and `index` and
 * `borrowed` with strings that some of them point to. */
static void begin_env(const struct git_place *place, struct ap_buf *index, struct ap_buf *borrowed,
		      const char *env[MAX_ENV])
{
	size_t n = 0;
	env[n++] = "GIT_OPTIONAL_LOCKS=0";
	env[n++] = "GIT_TERMINAL_PROMPT=0";
	env[n++] = "LC_ALL=C";
	if (place->index) {
		ap_buf_printf(index, "GIT_INDEX_FILE=%s", place->index);
		env[n++] = ap_buf_text(index);
	}
	if (place->borrowed) {
		add_borrowed(place->borrowed, borrowed);
		env[n++] = ap_buf_text(borrowed);
	}
	if (place->progress) /* from the beginning on, else after two seconds */
		env[n++] = "GIT_PROGRESS_DELAY=0";
	for (size_t i = 0; place->env && place->env[i] && n < MAX_ENV - 1; i++)
		env[n++] = place->env[i];
	env[n] = NULL;
}

static void add_args(const char *argv[MAX_ARGS], size_t n, const char *const *args)
{
	for (; *args && n < MAX_ARGS - 1; args++)
		argv[n++] = *args;
	argv[n] = NULL;
}

/* Takes the last count of what git has just printed, as in "Updating files:  42% (21/50)". */
static void on_progress(void *data, const char *text, size_t len)
{
	struct git_progress *progress = data;
	const char *open = memrchr(text, '(', len);
	char counts[32];
	unsigned done, all;
	if (!open)
		return;
	snprintf(counts, sizeof counts, "%.*s", (int)(text + len - open), open);
	if (sscanf(counts, "(%u/%u)", &done, &all) != 2)
		return;
	atomic_store(&progress->all, all);
	atomic_store(&progress->done, done);
}

int git_run(const struct git_place *place, struct ap_buf *out, struct ap_err *err,
	    const char *const *args)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	AP_CLEANUP_BUF struct ap_buf borrowed = {0};
	AP_CLEANUP_BUF struct ap_buf safe = {0};
	const char *argv[MAX_ARGS], *env[MAX_ENV];
	add_args(argv, begin_args(place, &safe, argv), args);
	begin_env(place, &index, &borrowed, env);
	return process_run(
		&(struct process_run){
			.argv = argv,
			.env = env,
			.dir = place->work_tree ? place->work_tree : place->git_dir,
			.limit_ns = place->limit_ns ? place->limit_ns : GIT_LIMIT,
			.in = place->in,
			.out = out,
			.out_max = place->out_max,
			.in_fd = place->in_fd,
			.out_fd = place->out_fd,
			.file_max = place->file_max,
			.complains = place->progress ? on_progress : NULL,
			.complains_data = place->progress,
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
	/* everything behind ":/" is a message to search for, which finds a commit */
	ap_buf_printf(&commit, "%s%s", revision,
		      strncmp(revision, ":/", 2) == 0 ? "" : "^{commit}");
	int r = git_run(place, &out, err,
			GIT_ARGS("rev-parse", "--verify", "--quiet", "--end-of-options",
				 ap_buf_text(&commit)));
	if (r != 0)
		return r < 0 ? r : 1;
	return copy_oid(ret, &out, err);
}

/* --- a git process that stays --- */

int git_coprocess_start(struct git_coprocess *ret, const struct git_place *place,
			struct ap_err *err, const char *const *args)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	AP_CLEANUP_BUF struct ap_buf borrowed = {0};
	AP_CLEANUP_BUF struct ap_buf safe = {0};
	const char *argv[MAX_ARGS], *env[MAX_ENV];
	struct git_coprocess git = {.limit_ns = place->limit_ns ? place->limit_ns : GIT_LIMIT};
	add_args(argv, begin_args(place, &safe, argv), args);
	begin_env(place, &index, &borrowed, env);
	int r = process_open(
		&(struct process_run){.argv = argv,
				      .env = env,
				      .dir = place->work_tree ? place->work_tree : place->git_dir},
		&git.pid, &git.in_fd, &git.out_fd, err);
	if (r < 0)
		return r;
	fcntl(git.in_fd, F_SETFL, O_NONBLOCK);
	fcntl(git.out_fd, F_SETFL, O_NONBLOCK);
	*ret = git;
	return 0;
}

void git_coprocess_end(struct git_coprocess *git)
{
	if (!git->pid)
		return;
	close(git->in_fd);
	close(git->out_fd);
	kill(-git->pid, SIGKILL); /* with what it has started; what it has written is whole */
	while (waitpid(git->pid, NULL, 0) < 0 && errno == EINTR)
		;
	ap_buf_fini(&git->got);
	*git = (struct git_coprocess){0};
}

/* Waits until a pipe is ready. -ETIMEDOUT. */
static int await_pipe(int fd, short events, int64_t deadline_ns)
{
	for (;;) {
		struct pollfd ready = {.fd = fd, .events = events};
		int64_t left = deadline_ns - ap_clock_ns();
		if (left <= 0)
			return -ETIMEDOUT;
		int64_t ms = left / AP_MS + 1;
		int n = poll(&ready, 1, ms > 60000 ? 60000 : (int)ms);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int git_coprocess_ask(struct git_coprocess *git, const void *data, size_t len)
{
	int64_t deadline = ap_clock_after(ap_clock_ns(), git->limit_ns);
	for (size_t done = 0; done < len;) {
		ssize_t n = write(git->in_fd, (const char *)data + done, len - done);
		if (n < 0 && errno == EAGAIN) {
			int r = await_pipe(git->in_fd, POLLOUT, deadline);
			if (r < 0)
				return r;
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		}
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Reads what is there of an answer; waits for some of it. */
static int hear(struct git_coprocess *git, int64_t deadline_ns)
{
	for (;;) {
		if (!ap_buf_reserve(&git->got, 64 << 10))
			return -ENOMEM;
		ssize_t n = read(git->out_fd, git->got.data + git->got.len, 64 << 10);
		if (n > 0) {
			git->got.len += (size_t)n;
			git->got.data[git->got.len] = '\0';
			return 0;
		}
		if (n == 0)
			return -EPIPE;
		int r = errno == EAGAIN	 ? await_pipe(git->out_fd, POLLIN, deadline_ns)
			: errno == EINTR ? 0
					 : -errno;
		if (r < 0)
			return r;
	}
}

/* Moves the first `len` bytes of what was read to `ret`, and drops `drop` more. */
static int take(struct git_coprocess *git, size_t len, size_t drop, struct ap_buf *ret)
{
	ap_buf_add(ret, git->got.data, len);
	ap_buf_drop(&git->got, len + drop);
	return ret->failed ? -ENOMEM : 0;
}

int git_coprocess_line(struct git_coprocess *git, char end, struct ap_buf *ret)
{
	int64_t deadline = ap_clock_after(ap_clock_ns(), git->limit_ns);
	for (size_t looked = 0;;) {
		const char *at = git->got.len > looked ? memchr(git->got.data + looked, end,
								git->got.len - looked)
						       : NULL;
		if (at)
			return take(git, (size_t)(at - git->got.data), 1, ret);
		looked = git->got.len;
		if (looked > MAX_LINE)
			return -EFBIG;
		int r = hear(git, deadline);
		if (r < 0)
			return r;
	}
}

int git_coprocess_bytes(struct git_coprocess *git, size_t len, struct ap_buf *ret)
{
	int64_t deadline = ap_clock_after(ap_clock_ns(), git->limit_ns);
	while (len > 0) {
		if (git->got.len == 0) {
			int r = hear(git, deadline);
			if (r < 0)
				return r;
		}
		size_t n = git->got.len < len ? git->got.len : len;
		int r = take(git, n, 0, ret);
		if (r < 0)
			return r;
		len -= n;
	}
	return 0;
}
