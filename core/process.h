/* Starting helpers: one program, run to its end within a time limit. The daemon never forks:
 * helpers are started by posix_spawn, in a process group of their own, so that a time limit ends
 * all of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"

#define PROCESS_OUT_MAX ((size_t)1 << 30)

struct process_run {
	const char *const *argv; /* found by PATH; NULL at the end */
	const char *const
		*env;	  /* over the daemon's own: NAME=VALUE sets, NAME unsets; may be NULL */
	const char *dir;  /* working directory; NULL: the daemon's */
	int64_t limit_ns; /* how long it may take */
	const struct ap_buf *in; /* its standard input; NULL: empty */
	struct ap_buf *out;	 /* what it printed; NULL: thrown away */
	size_t out_max;		 /* bytes of that; 0: PROCESS_OUT_MAX */
	int log_fd;		 /* where all it prints goes instead; 0: nowhere */
	bool kill_group;	 /* what it leaves behind in its process group is ended with it */
};

/* Runs it and waits. Blocks up to limit_ns; one that takes longer is asked to end, a second later
 * made to: git takes its locks away. Its exit code (0..255), or -ETIMEDOUT (ended), -EFBIG (it
 * printed more than out_max, and was ended), -ECHILD (it died of a signal), -ENOENT, -ENOMEM, …;
 * for all but 0 the sentence is the line of its stderr that begins with fatal: or error:, else the
 * last one, or what became of it. */
int process_run(const struct process_run *run, struct ap_err *err);

/* Every helper that is started from now on has this descriptor too, as long as it runs: whoever
 * comes after a dead daemon can wait for them by a lock on it. -1: none. */
void process_mark(int fd);

/* Starts it with pipes at its standard input and output, which the caller closes; the caller waits
 * for it. `in`, `out` and `limit_ns` mean nothing here. */
int process_open(const struct process_run *run, pid_t *ret_pid, int *ret_in_fd, int *ret_out_fd,
		 struct ap_err *err);

/* Removes a path with everything below it; a path that is not there is no failure. Blocks. */
int process_remove_tree(const char *path, struct ap_err *err);
