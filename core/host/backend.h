/* Where an agent's program lives, as the pool and its session see it: in a terminal of tmux;
 * without a terminal, its input and output being files; or nowhere, for tests. Every function but
 * those marked blocks, up to a deadline of its own, and is called by workers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"
#include "process_tree.h"

struct backend;

/* A terminal to be made; the strings need to live for the call only. */
struct backend_spawn {
	const char *name; /* of the agent: unique in the pool */
	const char *dir;  /* working directory */
	const char *const *argv;
	const char *const
		*env; /* over the server's: NAME=VALUE sets, NAME unsets; NULL at the end */
	/* the shim's records: `pid`, `alive` (locked), `exit` at the end */
	const char *record_dir;
	const char *output_file; /* where everything it prints is appended */
	bool input_fifo;	 /* its standard input is the FIFO `input` in record_dir */
};

struct backend_terminal {
	char session[32]; /* the agent's name; "" before it was spawned */
	pid_t shim; /* starts and ends the program's whole tree, and ends after it; 0: no process
		     */
	uint64_t shim_start; /* as process_start_time() tells it; 0: it had ended by then */
};

struct backend_ops {
	const char *name;

	/* Starts a program in a terminal of its own. -EIO, -ETIMEDOUT. */
	int (*spawn)(struct backend *, const struct backend_spawn *, struct backend_terminal *ret,
		     struct ap_err *);

	/* Starts a program anew in the terminal of one that has ended, or in one of the same name
	 * where that has gone. Of the terminal only the shim is changed: others may use it
	 * meanwhile. */
	int (*respawn)(struct backend *, const struct backend_spawn *, struct backend_terminal *,
		       struct ap_err *);

	/* Takes up the terminal that a daemon before this one has left for the agent of that name,
	 * with the shim that it had. -ESRCH: that shim has ended, or is another; a terminal
	 * that is there is ended then. */
	int (*adopt)(struct backend *, const char *name, struct backend_terminal *terminal,
		     struct ap_err *);

	/* A descriptor that can be read once the program and all that it started are over: at once
	 * if they are. The caller closes it. Does not block. */
	int (*over_fd)(struct backend *, const struct backend_terminal *, struct ap_err *);

	/* Asks the program and all that it started to end, and makes them after a grace. Does not
	 * wait for it: that is what over_fd is for, and which it is given. Does not block. */
	void (*end)(struct backend *, const struct backend_terminal *, int over_fd);

	/* Removes a terminal whose program has ended, wherever people have moved it, and what they
	 * have put beside it in what was made for it; not what is theirs. */
	int (*remove)(struct backend *, const struct backend_terminal *, struct ap_err *);

	/* --- of a backend with terminals; NULL: it has none --- */

	/* Puts text into the terminal as one paste. `file` holds it. */
	int (*paste)(struct backend *, const struct backend_terminal *, const char *file,
		     struct ap_err *);

	/* Types keys, in tmux's names, also while people look back in it. */
	int (*keys)(struct backend *, const struct backend_terminal *, const char *const *keys,
		    struct ap_err *);

	/* What is on the screen, plain text; with `above`, what has gone up from it before.
	 * Trailing blank lines are left out. Waits at most `limit_ns`; 0: as long as for anything.
	 * -ETIMEDOUT. */
	int (*capture)(struct backend *, const struct backend_terminal *, bool above,
		       int64_t limit_ns, struct ap_buf *, struct ap_err *);

	/* Forgets what has gone up from the screen. */
	int (*forget)(struct backend *, const struct backend_terminal *, struct ap_err *);

	/* Whether the program reads whole lines, as the terminal edits them. Does not block: the
	 * thread that reads the backend's answers asks. */
	bool (*canonical)(struct backend *, const struct backend_terminal *);

	/* --- of every backend --- */

	/* What the program and all that it started use; `table`, which may be NULL, is looked into
	 * where processes are to be looked for. -ESRCH, -ENOSYS. */
	int (*usage)(struct backend *, const struct backend_terminal *, struct process_table *table,
		     struct process_usage *ret);

	/* Ends at once what is left of the agent of that name, and lets go of what was kept for it:
	 * where its shim has ended, or does not come to its end. */
	void (*sweep)(struct backend *, const char *name);

	/* From now on a program has so much memory with all that it starts, and a quarter more,
	 * where the machine can see to it; one that uses more already is let be. 0: no bound. */
	void (*bound)(struct backend *, uint64_t max_memory);

	/* What sees to that and to usage, in words; as long as the backend. Does not block. */
	const char *(*groups)(struct backend *);

	/* Stops the program and all that it started, or has them go on. -ESRCH, -ENOSYS. */
	int (*pause)(struct backend *, const struct backend_terminal *, bool stop);

	/* Sets up a backend that was begun, or begun again; needs the thread that calls `ready`.
	 * NULL: there is nothing to set up. */
	int (*configure)(struct backend *, struct ap_err *);

	/* A descriptor to watch, or -1: what runs the terminals has gone. And what to call when it
	 * can be read; false: it has come to its end. Who watches it lets go of it then, and says
	 * so by `hang_up`: it is closed. Do not block. NULL: there is never one. */
	int (*fd)(struct backend *);
	bool (*ready)(struct backend *);
	void (*hang_up)(struct backend *);

	/* Sees to it that people, and the next daemon, find what runs the terminals. Whether
	 * something had to be mended for that. Does not block. NULL: they need nothing for it. */
	bool (*tend)(struct backend *);

	/* Goes on with what runs the terminals, or has it begin anew: then the terminals that there
	 * were are ended. There is another descriptor to watch then, and `configure` to be
	 * called. NULL: it never goes. -EIO, … */
	int (*revive)(struct backend *, bool anew, struct ap_err *);

	/* Ends the backend. Terminals that are left are ended with it, or left for the next one:
	 * `keep`. */
	void (*free)(struct backend *, bool keep);
};

struct backend {
	const struct backend_ops *ops;
};

/* Begins the backend of a pool. What is linked decides which one: backend_fake.c, or backend.c,
 * which takes backend_tmux.c for programs that need a `terminal` and backend_pipe.c for others.
 * `shim` is the path of agentpool-shim. Start the thread that calls ops->ready before any other
 * operation. Blocks until what runs the terminals answers. */
int backend_new(struct backend **ret, bool terminal, const char *state_dir, const char *shim,
		struct ap_err *err);

/* Whether it runs the programs that it is given, so that they must be there. */
extern const bool backend_runs_programs;

static inline int backend_configure(struct backend *backend, struct ap_err *err)
{
	return backend->ops->configure ? backend->ops->configure(backend, err) : 0;
}

/* Whether its programs have terminals, so that they can be typed to and looked at. */
static inline bool backend_has_terminals(const struct backend *backend)
{
	return backend->ops->capture != NULL;
}

/* --- the two that run programs; as backend_new() --- */

/* tmux is a server of its own under `state_dir`, driven through one client in control mode; one
 * that a daemon before left is gone on with, also where its socket has gone. */
int backend_tmux_new(struct backend **ret, const char *state_dir, const char *shim,
		     struct ap_err *err);

/* Ends a tmux server that a daemon before left under `state_dir`, if there is one. */
void backend_tmux_end_left(const char *state_dir);

int backend_pipe_new(struct backend **ret, const char *state_dir, const char *shim,
		     struct ap_err *err);
