/* Runs helpers: one program, to its end within a time limit. A helper starts by vfork, as with
 * posix_spawn, in a process group of its own, so that a time limit ends all of it; with every
 * signal as a program expects it, and with the limits that the daemon itself was started with. */
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
	int log_fd;		 /* gets all that it prints instead; 0: none */
	int in_fd, out_fd;	 /* files in place of `in` and `out`; 0: none */
	uint64_t file_max;	 /* largest file that it may write, in bytes; 0: no bound */
	/* called with each piece of what it prints to its standard error, as it comes; may be NULL
	 */
	void (*complains)(void *data, const char *text, size_t len);
	void *complains_data;
	bool kill_group;	 /* kills what it leaves behind in its process group */
	bool no_terminal;	 /* gets a session of its own: the daemon's terminal is not its */
	/* it gets a session of its own, the daemon's present limits and no mark (process_mark()):
	 * it may outlive the daemon, and serves many programs */
	bool is_server;
	/* it may mount if the calling thread may, as inside namespaces (namespace.h): otherwise
	 * only root's helpers may do what the daemon may */
	bool may_mount;
};

/* Runs a helper and waits, up to limit_ns; asks one that takes longer to end, so that git removes
 * its locks, and kills it a second later. Returns its exit code (0..255), or -ETIMEDOUT (it was
 * ended), -EFBIG (it printed more than out_max, or wrote more than file_max, and was ended),
 * -ECHILD (it died of a signal), -ENOENT, -ENOMEM, …; for all but 0 the sentence is the gist of its
 * stderr (ap_text_gist), or what became of it. */
int process_run(const struct process_run *run, struct ap_err *err);

/* Before an exec: whatever the caller does with signals is no affair of a program, for which none
 * is ignored or blocked. Safe in the child of a vfork. */
void process_reset_signals(void);

/* Every helper that starts from now on has a read lock (fcntl) on the first byte of this file until
 * it ends: a later daemon waits for the helpers of a dead one with a lock on that byte. What a
 * helper starts does not inherit the lock, so what it leaves behind holds nobody up. -1: none. Not
 * thread-safe: call before any thread starts. */
void process_mark(int fd);

/* Sets how many files every helper that starts from now on may have open (RLIMIT_NOFILE, soft), as
 * the daemon's own limit is another; likewise. 0: as many as the daemon. process_files() returns
 * it. */
void process_limit_files(uint64_t n);
uint64_t process_files(void);

/* Starts a program with pipes at its standard input and output. The caller closes the pipes, and
 * waits for the program. Ignores `in`, `out` and `limit_ns`. */
int process_open(const struct process_run *run, pid_t *ret_pid, int *ret_in_fd, int *ret_out_fd,
		 struct ap_err *err);
