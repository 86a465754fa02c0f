/* Running git: always told where the repository is, never finding it by itself, without hooks,
 * fsmonitor, signatures and questions, and within a time limit. What runs in an agent's worktree
 * runs on hostile ground: nothing there may decide which program is started. Every function blocks;
 * all may run in several threads. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "git.h"

#define GIT_LIMIT   (120 * AP_SECOND) /* of one git command */

/* Where git works: a repository as a whole, or one worktree of it. */
struct git_place {
	const char *git_dir;
	const char *work_tree;	 /* NULL: none */
	const char *index;	 /* another index file; NULL: the worktree's own */
	const struct ap_buf *in; /* standard input; NULL: empty */
	bool with_hooks;
	int64_t limit_ns; /* 0: GIT_LIMIT */
	size_t out_max;	  /* bytes that it may print, else -EFBIG; 0: PROCESS_OUT_MAX */
};

#define GIT_ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Runs git with the words of `args` and collects what it prints in `out`, which may be NULL. Its
 * exit code or a negative errno; the sentence is git's own. */
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

/* Cuts the newlines off at the end. */
void git_trim(struct ap_buf *line);

/* A git that stays and answers which object a name is: a question costs no process. It sees refs
 * as they are at the question. */
struct git_resolver;

/* NULL on ENOMEM. Starts nothing yet. `git_dir` must live as long. */
struct git_resolver *git_resolver_new(const char *git_dir);
void git_resolver_free(struct git_resolver *resolver);

/* The commit of a revision. 0, 1 (there is none) or negative errno. */
int git_resolve(struct git_resolver *resolver, const char *revision, char ret[GIT_OID_MAX + 1],
		struct ap_err *err);
