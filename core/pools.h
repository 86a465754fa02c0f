/* The pools of a user, served by a daemon or not: what their state directories say. The functions
 * are for a process that is no daemon; they block. */
#pragma once

#include <sys/types.h>

#include "err.h"

/* One pool; the texts live for the call that gets it. */
struct ap_pool_found {
	const char *repo;	/* "": not known, as an older version left it */
	const char *mountpoint; /* "": it is not mounted, and its daemon was not killed either */
	const char *state_dir;
	pid_t pid;	 /* of its daemon; 0: there is none; -1: in another pid namespace */
	int n_leases;	 /* that are not over; -1: the store cannot be read */
	unsigned n_kept; /* leases whose work is in kept/ */
};

/* Calls `take` for every pool that has its state directory where it is by default, or has left a
 * link there, in the order of their names. -ENOENT: there is no home directory. */
int ap_pools_list(void (*take)(void *data, const struct ap_pool_found *), void *data,
		  struct ap_err *err);

/* Removes the state directories of a repository, or the one that `path` is, with all idle agents
 * in it. -ENOENT: there is none; -EBUSY: a daemon serves it, or a program of it does not end;
 * -ENOTEMPTY: it has leases that are not saved, or kept work. Nothing is removed then. */
int ap_pool_forget(const char *path, struct ap_err *err);
