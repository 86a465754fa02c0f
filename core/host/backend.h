/* A backend runs an agent's program, for the pool and its session: in a terminal of tmux; without a
 * terminal, with files as its input and output; or not at all, for tests. Except where a comment
 * says otherwise, every function blocks, up to a deadline of its own, and workers call it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"
#include "process_tree.h"
#include "words.h"

struct backend;

struct terminal_size {
	uint16_t columns, rows;
};

/* What to start; the strings need to live for the call only. */
/* The sandbox of a program, for the shim. */
struct backend_wall {
	const char *words;	     /* file, as sandbox_write() writes it */
	const char *const *patterns; /* of the environment, as sandboxed.h; NULL at the end */
	const char *place;	     /* the agent's directory in the mount; NULL: not there */
};

struct backend_spawn {
	const char *name; /* of the agent: unique in the pool */
	const char *dir;  /* working directory */
	const char *const *argv;
	const char *const
		*env; /* on top of the server's: NAME=VALUE sets, NAME unsets; NULL at the end */
	/* the shim's records: `pid`, `alive` (locked), `exit` at the end */
	const char *record_dir;
	const char *output_file; /* everything that it prints is appended to this file */
	const char *errors_file; /* but for its standard error, which goes here; NULL: it does not.
				  * Without terminals only */
	const struct backend_wall *wall; /* NULL: it has no sandbox */
	struct terminal_size size; /* of its terminal, which keeps it, whoever attaches */
	bool input_fifo;	 /* its standard input is the FIFO `input` in record_dir */
};

#define BACKEND_WALL_PROCESSES 2 /* of a tree: bwrap, and process 1 inside */

/* Appends the options of the shim for a sandbox. */
static inline void backend_wall_words(const struct backend_wall *wall, struct ap_words *ret)
{
	ap_words_add(ret, "-w");
	ap_words_add(ret, wall->words);
	for (const char *const *pattern = wall->patterns; pattern && *pattern; pattern++) {
		ap_words_add(ret, "-p");
		ap_words_add(ret, *pattern);
	}
	if (wall->place) {
		ap_words_add(ret, "-d");
		ap_words_add(ret, wall->place);
	}
}

struct backend_terminal {
	char session[32]; /* the agent's name; "" before it was spawned */
	pid_t shim; /* starts and ends the program's whole tree, and ends after it; 0: no process
		     */
	uint64_t shim_start; /* from process_start_time(); 0: it had ended by then */
};

struct backend_ops {
	const char *name;

	/* Starts a program in a terminal of its own. -EIO, -ETIMEDOUT. */
	int (*spawn)(struct backend *, const struct backend_spawn *, struct backend_terminal *ret,
		     struct ap_err *);

	/* Starts a program again in the terminal of one that has ended, or in a new one of the same
	 * name if that terminal is gone. Changes only the shim in the terminal: others may use it
	 * meanwhile. */
	int (*respawn)(struct backend *, const struct backend_spawn *, struct backend_terminal *,
		       struct ap_err *);

	/* Adopts the terminal that an earlier daemon left for the agent of that name; `terminal`
	 * has the shim that it had. -ESRCH: that shim has ended, or is another; a terminal that is
	 * there is removed then. */
	int (*adopt)(struct backend *, const char *name, struct backend_terminal *terminal,
		     struct ap_err *);

	/* Returns a descriptor that is readable once the program and all that it started have
	 * ended: at once if they have. The caller closes it. Does not block. */
	int (*over_fd)(struct backend *, const struct backend_terminal *, struct ap_err *);

	/* Asks the program and all that it started to end, and kills them after a grace. Does not
	 * wait for the end, of which `over_fd`, from over_fd(), tells. Does not block. */
	void (*end)(struct backend *, const struct backend_terminal *, int over_fd);

	/* Removes a terminal whose program has ended, wherever people have moved it, and what
	 * people have put beside it in the session that was made for it; nothing else of theirs. */
	int (*remove)(struct backend *, const struct backend_terminal *, struct ap_err *);

	/* --- of a backend with terminals; NULL: it has none --- */

	/* Puts text into the terminal as one paste. `file` holds it. */
	int (*paste)(struct backend *, const struct backend_terminal *, const char *file,
		     struct ap_err *);

	/* Types keys, in tmux's names, also while somebody scrolls back in the terminal. */
	int (*keys)(struct backend *, const struct backend_terminal *, const char *const *keys,
		    struct ap_err *);

	/* Appends the screen as plain text, without trailing blank lines; with `above`, the
	 * scrollback before it too. Waits at most `limit_ns`; 0: as long as for any command.
	 * -ETIMEDOUT. */
	int (*capture)(struct backend *, const struct backend_terminal *, bool above,
		       int64_t limit_ns, struct ap_buf *, struct ap_err *);

	/* Whether the cursor stands where a line is to be typed: it shows, on the main screen, at
	 * the end of what its line says. */
	bool (*cursor_waits)(struct backend *, const struct backend_terminal *);

	/* Clears the scrollback. */
	int (*forget)(struct backend *, const struct backend_terminal *, struct ap_err *);

	/* Appends the command, for sh, that attaches a person's terminal to that of the agent of
	 * that name, and takes -r as one more word: read-only. Neither its size nor its environment
	 * reaches the agent. Does not block. -EIO: the agent has no terminal now. NULL:
	 * nobody can attach. */
	int (*attach)(struct backend *, const char *name, struct ap_buf *, struct ap_err *);

	/* Whether the program reads whole lines, as the terminal edits them (canonical mode). Does
	 * not block: the thread that calls `ready` calls it. */
	bool (*canonical)(struct backend *, const struct backend_terminal *);

	/* --- of every backend --- */

	/* Measures what the program and all that it started use; looks for processes in `table`
	 * where it has to, or in /proc if that is NULL. -ESRCH, -ENOSYS. */
	int (*usage)(struct backend *, const struct backend_terminal *, struct process_table *table,
		     struct process_usage *ret);

	/* Kills at once what is left of the agent of that name, and removes what was kept for it.
	 * For an agent whose shim has ended, or does not end. */
	void (*sweep)(struct backend *, const char *name);

	/* Bounds the memory of each program, with all that it starts, by so many bytes and a
	 * quarter more, where the machine can enforce it; leaves a program that already uses more
	 * as it is. 0: no bound. */
	void (*bound)(struct backend *, uint64_t max_memory);

	/* Describes what enforces the bound and measures usage. The text lives as long as the
	 * backend. Does not block. */
	const char *(*groups)(struct backend *);

	/* Stops the program and all that it started, or continues them. -ESRCH, -ENOSYS. */
	int (*pause)(struct backend *, const struct backend_terminal *, bool stop);

	/* Sets up a backend after backend_new() or revive(); needs the thread that calls `ready`.
	 * NULL: there is nothing to set up. */
	int (*configure)(struct backend *, struct ap_err *);

	/* fd() returns a descriptor to watch, or -1: the server of the terminals is gone. The
	 * thread that watches it calls ready() when it is readable; false: the descriptor is at its
	 * end, and the thread stops watching it and calls hang_up(), which closes it. They do not
	 * block. NULL: there is never a descriptor. */
	int (*fd)(struct backend *);
	bool (*ready)(struct backend *);
	void (*hang_up)(struct backend *);

	/* Makes sure that people and the next daemon can reach the server of the terminals. True:
	 * it had to repair that. Does not block. NULL: there is no server. */
	bool (*tend)(struct backend *);

	/* Connects to the server of the terminals again; with `anew`, ends the server with its
	 * terminals first. The caller then watches the new descriptor and calls configure(). NULL:
	 * there is no server. -EIO, … */
	int (*revive)(struct backend *, bool anew, struct ap_err *);

	/* Ends the backend, and with it the terminals that are left; with `keep` it leaves them for
	 * the next daemon. */
	void (*free)(struct backend *, bool keep);
};

struct backend {
	const struct backend_ops *ops;
};

/* Creates the backend of a pool. What is linked decides which one: backend_fake.c, or backend.c,
 * which takes backend_tmux.c for programs that need a `terminal` and backend_pipe.c for others.
 * `shim` is the path of agentpool-shim. Start the thread that calls ops->ready before any other
 * operation. Blocks while it reaches, or ends, a server that an earlier daemon left. */
int backend_new(struct backend **ret, bool terminal, const char *state_dir, const char *shim,
		struct ap_err *err);

/* The process by which an earlier daemon has started programs under `state_dir`, and which starts
 * the next ones, with its pidfd in *ret_pidfd, which the caller closes. 0, and -1 there: none. Does
 * not block. */
pid_t backend_left(const char *state_dir, int *ret_pidfd);

/* Whether the linked backend runs the programs that it gets: they must exist then. */
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

/* Runs a tmux server of its own under `state_dir`, driven through one client in control mode. Takes
 * over the server that an earlier daemon left, also if its socket is gone. */
int backend_tmux_new(struct backend **ret, const char *state_dir, const char *shim,
		     struct ap_err *err);

/* backend_left() of tmux. */
pid_t backend_tmux_left(const char *state_dir, int *ret_pidfd);

/* Ends a tmux server that an earlier daemon left under `state_dir`, if there is one. */
void backend_tmux_end_left(const char *state_dir);

int backend_pipe_new(struct backend **ret, const char *state_dir, const char *shim,
		     struct ap_err *err);
