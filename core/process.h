/* Starting helpers: one program, run to its end within a time limit. The daemon never forks:
 * helpers are started by posix_spawn, in a process group of their own, so that a time limit ends
 * all of it. */
#pragma once

#include <stdint.h>

#include "buf.h"
#include "err.h"

struct process_run {
	const char *const *argv; /* found by PATH; NULL at the end */
	const char *const *env;	 /* NAME=VALUE over the daemon's own; may be NULL */
	const char *dir;	 /* working directory; NULL: the daemon's */
	int64_t limit_ns;	 /* how long it may take */
	struct ap_buf *out;	 /* what it printed; NULL: thrown away */
};

/* Runs it and waits. Blocks up to limit_ns. Its exit code (0..255), or -ETIMEDOUT (ended), -ECHILD
 * (it died of a signal), -ENOENT, -ENOMEM, …; for all but 0 the sentence is the last line that it
 * wrote to stderr, or what became of it. */
int process_run(const struct process_run *run, struct ap_err *err);

/* Removes a path with everything below it; a path that is not there is no failure. Blocks. */
int process_remove_tree(const char *path, struct ap_err *err);
