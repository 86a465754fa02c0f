/* Shims as the daemon sees them. A shim (agentpool_shim.c) is the parent of an agent's program,
 * whatever backend started it: it starts the program, records its pid and its end, and ends its
 * whole tree before it ends itself. So a shim's pidfd tells the daemon when the program and all
 * that it started have ended. Backends that run programs embed a struct shim_backend as their first
 * member and put the functions below into their tables.
 *
 * Every shim puts its program into a control group of its own, named after the agent, where this
 * machine lets the daemon create some. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "cgroup.h"
#include "words.h"

struct shim_backend {
	struct backend base;
	char *path;		      /* of the program agentpool-shim */
	struct cgroup_subtree groups; /* one for every agent; set once */
	char groups_described[64];    /* what they can do, in words; likewise */
	char *groups_record;	      /* file that says where they are */
	_Atomic uint64_t max_memory;  /* of an agent, bytes; 0: no bound */
};

/* Opens the control groups that an earlier daemon left for this state directory, or creates a
 * subtree for them. -ENOMEM. */
int shims_open(struct shim_backend *shims, const char *state_dir, const char *path,
	       struct ap_err *err);

/* Removes the groups and kills what runs in them; with `keep`, removes only empty groups. Also for
 * one that shims_open() has refused, or that is all zeros. Blocks as cgroup_remove() does. */
void shims_close(struct shim_backend *shims, bool keep);

/* Appends the words of the command line that starts `spawn` under a shim, and creates its control
 * group. With `output`, the shim detaches from the caller and its terminal, makes the program print
 * to that file, and prints its own pid. ENOMEM: ret->failed. Blocks as cgroup_make() does. */
void shim_words(struct shim_backend *shims, const struct backend_spawn *spawn, const char *output,
		struct ap_words *ret);

/* Records the shim that was started for a terminal. */
void shim_set(struct backend_terminal *terminal, pid_t shim);

/* Whether the terminal's shim lives, and is the recorded one. */
bool shim_lives(const struct backend_terminal *terminal);

/* These are operations of a backend as struct backend_ops declares them. */
int shim_over_fd(struct backend *backend, const struct backend_terminal *terminal,
		 struct ap_err *err);
void shim_end(struct backend *backend, const struct backend_terminal *terminal, int over_fd);
bool shim_canonical(struct backend *backend, const struct backend_terminal *terminal);
int shim_usage(struct backend *backend, const struct backend_terminal *terminal,
	       struct process_table *table, struct process_usage *ret);
void shim_sweep(struct backend *backend, const char *name);
void shim_bound(struct backend *backend, uint64_t max_memory);
const char *shim_groups(struct backend *backend);
int shim_pause(struct backend *backend, const struct backend_terminal *terminal, bool stop);
