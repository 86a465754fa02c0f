/* Agents in control groups: version 2 of the kernel's, where this process may make some.
 *
 * A pool has a subtree, below the group that its daemon is in, and every agent a group in it, which
 * its program is born into. The group counts what the program uses with all that it starts, bounds
 * it where the kernel has the controllers for that, and ends all of it at one word, whatever forks
 * meanwhile. Only what is the caller's own is touched: no foreign process is moved, nothing is
 * mounted, version 1 is left alone, and a group is never frozen.
 *
 * That something cannot be done means that it is not to be had on this machine, and is no error.
 * Groups are named by their paths in the file system. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Controllers that are made use of. */
enum { CGROUP_MEMORY = 1, CGROUP_CPU = 2, CGROUP_PIDS = 4 };

/* Processes and threads in an agent's group, together. */
#define CGROUP_TASKS_MAX 4096

/* The group below which subtrees may be made, from the texts of /proc/self/mountinfo and
 * /proc/self/cgroup: the process's own, or the one above it that was handed over with it (systemd:
 * Delegate= and DelegateSubgroup=), as that has no processes and can have controllers. Owned by the
 * caller; NULL: there is none. */
char *cgroup_home(const char *mountinfo, const char *membership);

struct cgroup_subtree {
	char *path;	      /* NULL: there is none */
	unsigned controllers; /* that the groups in it have */
};

/* Makes a subtree of that path or takes up one that is there, has its groups have what controllers
 * can be had, and removes the groups in it that have no processes. False: it cannot be had. */
bool cgroup_subtree_open(struct cgroup_subtree *ret, const char *path);

/* Removes the subtree, with all processes that are left in it; with `keep` only what has none.
 * Whether it is gone. Blocks as cgroup_remove() does. */
bool cgroup_subtree_close(struct cgroup_subtree *subtree, bool keep);

/* "v2 memory cpu pids", as far as they are there; "none" without a subtree. */
void cgroup_subtree_describe(const struct cgroup_subtree *subtree, char *ret, size_t size);

/* Bounds all groups of the subtree anew; 0: no bound. One that uses more already is left as it is,
 * as a bound is not to end what runs. */
void cgroup_subtree_bound(const struct cgroup_subtree *subtree, uint64_t max_memory);

/* --- one group --- */

/* Makes a group without processes, whose counters are at 0; what was there of that name before is
 * removed. Owned by the caller; NULL: it cannot be had. Blocks as cgroup_remove() does. */
char *cgroup_make(const struct cgroup_subtree *subtree, const char *name, uint64_t max_memory);

/* Moves the calling process, which has no other threads, into a group. */
bool cgroup_enter(const char *path);

/* Has the kernel end all processes of a group, without waiting for it. */
bool cgroup_kill(const char *path);

/* Ends what is left in a group and removes it, with groups that were made below it. Blocks while
 * processes end, for two seconds at most. Whether it is gone. */
bool cgroup_remove(const char *path);

/* Times that the kernel ended a process of the group because of its bound on memory. */
uint64_t cgroup_oom_kills(const char *path);

struct cgroup_usage {
	bool has_memory;
	uint64_t memory; /* bytes; without what the kernel keeps of files and would drop first */
	int64_t cpu_ns;
	unsigned n_processes;
};

/* What the processes of a group use, those that have ended included. False: it has no processes, or
 * is not there. */
bool cgroup_usage(const char *path, struct cgroup_usage *ret);
