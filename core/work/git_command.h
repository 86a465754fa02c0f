/* Runs git: tells it where the repository is, so that git does not search for it, and runs it
 * without hooks, fsmonitor, signatures and questions, and within a time limit. A git that runs in
 * an agent's worktree runs on hostile ground: nothing there may decide which program starts. Every
 * function blocks; all may run in several threads. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "git.h"

#define GIT_LIMIT (120 * AP_SECOND) /* of one git command */

/* How far a git that runs has come, by its own progress: `done` of `all`; 0 of 0: not known yet. */
struct git_progress {
	atomic_uint done, all;
};

/* Where git works: a repository as a whole, or one worktree of it. */
struct git_place {
	const char *git_dir;
	const char *work_tree;	     /* NULL: none */
	const char *const *borrowed; /* more object directories, NULL at the end; NULL: none */
	const char *index;	     /* another index file; NULL: the worktree's own */
	const struct ap_buf *in;     /* standard input; NULL: empty */
	const char *const *env;	     /* on top of the daemon's own and git_run's; NULL: nothing */
	int in_fd, out_fd;	     /* files for standard input and output; 0: `in` and `out` */
	uint64_t file_max;	     /* bytes of the largest file that it may write; 0: no bound */
	bool with_hooks;
	struct git_progress *progress; /* kept up to date, of a command that shows progress; may be
					* NULL */
	int64_t limit_ns;	       /* 0: GIT_LIMIT */
	size_t out_max;	  /* bytes that it may print, else -EFBIG; 0: PROCESS_OUT_MAX */
};

#define GIT_ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Runs git with the words of `args` and appends what it prints to `out`, which may be NULL. Returns
 * its exit code or a negative errno; the sentence is git's own. */
int git_run(const struct git_place *place, struct ap_buf *out, struct ap_err *err,
	    const char *const *args);

/* As git_run, for commands where any exit code but 0 is a failure: -EIO then. */
int git_must(const struct git_place *place, struct ap_buf *out, struct ap_err *err,
	     const char *const *args);

/* As git_must, for commands that print one object name. */
int git_oid(const struct git_place *place, char ret[GIT_OID_MAX + 1], struct ap_err *err,
	    const char *const *args);

/* The commit of a revision. 0, 1 (there is none) or negative errno. */
int git_rev_parse(const struct git_place *place, const char *revision, char ret[GIT_OID_MAX + 1],
		  struct ap_err *err);

/* Cuts the newlines off the end of `line`. */
void git_trim(struct ap_buf *line);

/* A git process that stays: it takes questions on its standard input and answers on its standard
 * output, so that a question costs no new process. One thread at a time. */
struct git_coprocess {
	pid_t pid;	   /* 0: not running */
	int in_fd, out_fd; /* its standard input and output */
	struct ap_buf got; /* read of an answer, and not taken yet */
	int64_t limit_ns;  /* of one question */
};

int git_coprocess_start(struct git_coprocess *ret, const struct git_place *place,
			struct ap_err *err, const char *const *args);

/* Kills it, with what it has started, if it runs. */
void git_coprocess_end(struct git_coprocess *git);

/* Sends a question. -EPIPE: git has ended; -ETIMEDOUT: git does not read it. */
int git_coprocess_ask(struct git_coprocess *git, const void *data, size_t len);

/* Appends to `ret` the answer up to the byte `end`, without that, or `len` bytes of the answer.
 * -EPIPE: git has ended first; -ETIMEDOUT; -EFBIG: a line is longer than 1 MiB; -ENOMEM. */
int git_coprocess_line(struct git_coprocess *git, char end, struct ap_buf *ret);
int git_coprocess_bytes(struct git_coprocess *git, size_t len, struct ap_buf *ret);
