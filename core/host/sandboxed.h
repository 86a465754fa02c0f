/* The shim's side of the sandbox. bwrap makes it, and starts in it the shim once more as process 1,
 * which is the parent of the agent's program there: it takes over what that leaves behind, and says
 * by a socket how it ended, which bwrap's exit code could not (a program may exit with 137).
 *
 *     shim ── bwrap ── shim (process 1 inside) ── program
 *
 * Before the program starts the outer shim completes what bwrap has made, from within its
 * namespaces: mounts made on the machine later do not come in, and of pools' mounts only the
 * agent's own directory is there. The kernel itself says by the socket who the processes inside are
 * out here. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct sandboxed {
	int tells;	 /* our end of the socket; SIGIO comes when it can be read */
	int child_end;	 /* that of process 1 inside; closed once bwrap has it */
	const char *dir; /* the agent's directory in the mount; NULL: it gets none */
	pid_t bwrap;	 /* our child */
	pid_t init;	 /* process 1 inside; 0: not there yet */
	pid_t program;	 /* 0: not started yet */
	bool ended;	 /* the program has, with that `status` */
	int status;
};

/* Makes the socket. False: errno. */
bool sandboxed_begin(struct sandboxed *box, const char *dir);

/* In the child that becomes bwrap: does not return. `words` is the file of sandbox.h. */
void sandboxed_exec(const struct sandboxed *box, const char *words, char **argv);

/* Takes what process 1 says, completes the sandbox when it is made, and lets the program start
 * then. */
void sandboxed_hear(struct sandboxed *box);

/* Whose descendants are the program and what it started: process 1's; 0: there is none now. */
pid_t sandboxed_root(const struct sandboxed *box);

/* Has the agent's directory of a new mount take the place of the one that a dead daemon left in the
 * sandbox that a process is in. Returns an exit code. Needs the right to mount out here. */
int sandboxed_renew(pid_t inside, const char *dir);

/* The shim as process 1 inside: `argv` is the socket's number and the program. Does not return. */
void sandboxed_main(char **argv);

/* Cuts the environment: a name is removed if the last of the patterns that matches it, each of
 * fnmatch(3), has a `!` before it. */
void sandboxed_cut_environment(const char *const *patterns, size_t n);
