/* Starting helpers: one program, run to its end within a time limit. They are started by vfork, as
 * posix_spawn does it, in a process group of their own, so that a time limit ends all of it; with
 * every signal as a program expects it, and the limits that the daemon itself was started with. */
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
	int in_fd, out_fd;	 /* files in place of `in` and `out`; 0: those */
	uint64_t file_max;	 /* bytes that any file may have that it writes; 0: no bound */
	bool kill_group;	 /* what it leaves behind in its process group is ended with it */
	/* it has a session of its own, the daemon's own limits and no mark: it may outlive the
	 * daemon, and serves many programs */
	bool is_server;
};

/* Runs it and waits. Blocks up to limit_ns; one that takes longer is asked to end, a second later
 * made to: git takes its locks away. Its exit code (0..255), or -ETIMEDOUT (ended), -EFBIG (it
 * printed more than out_max, or wrote more than file_max, and was ended), -ECHILD (it died of a signal), -ENOENT, -ENOMEM, …;
 * for all but 0 the sentence is the gist of its stderr (ap_text_gist), or what became of it. */
int process_run(const struct process_run *run, struct ap_err *err);

/* Every helper that is started from now on has a read lock (fcntl) on the first byte of this file
 * until it ends: whoever comes after a dead daemon can wait for them by a lock on it. What a helper
 * starts does not have it, so that what it leaves behind holds nobody up. -1: none. Not
 * thread-safe: before the threads. */
void process_mark(int fd);

/* How many files every helper that is started from now on may have open (RLIMIT_NOFILE, soft), as
 * the daemon's own limit is another; likewise. 0: as many as the daemon. */
void process_limit_files(uint64_t n);
uint64_t process_files(void);

/* Starts it with pipes at its standard input and output, which the caller closes; the caller waits
 * for it. `in`, `out` and `limit_ns` mean nothing here. */
int process_open(const struct process_run *run, pid_t *ret_pid, int *ret_in_fd, int *ret_out_fd,
		 struct ap_err *err);
