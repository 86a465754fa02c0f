/* Agents in control groups: version 2 of the kernel's, where this process may create some.
 *
 * A pool has a subtree, below cgroup_home(), and in it a group for every agent, which the agent's
 * program starts in. The group counts what the program uses with all that it starts, bounds it
 * where the kernel has the controllers for that, and kills all of it with one write, whatever forks
 * meanwhile. The functions touch only what is the caller's own: they move no foreign process, mount
 * nothing, leave version 1 alone, and never freeze a group.
 *
 * A failure means that this machine does not offer the feature, and is no error. A group's name is
 * its path in the file system. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Controllers that the agents' groups use. */
enum { CGROUP_MEMORY = 1, CGROUP_CPU = 2, CGROUP_PIDS = 4 };

/* Limit of processes and threads, together, in an agent's group. */
#define CGROUP_TASKS_MAX 4096

/* The group below which subtrees may be created, from the texts of /proc/self/mountinfo and
 * /proc/self/cgroup: the process's own, or the one above it if that was delegated with it (systemd:
 * Delegate= and DelegateSubgroup=), as that has no processes and can have controllers. Owned by the
 * caller; NULL: there is none. */
char *cgroup_home(const char *mountinfo, const char *membership);

struct cgroup_subtree {
	char *path;	      /* NULL: there is none */
	unsigned controllers; /* of the groups in it */
};

/* Creates the subtree of that path or opens one that is there, enables the controllers that are
 * available to its groups, and removes the groups in it that have no processes. False: there can be
 * no subtree. */
bool cgroup_subtree_open(struct cgroup_subtree *ret, const char *path);

/* Removes the subtree and kills all processes that are left in it; with `keep`, removes only what
 * has no processes. True: the subtree is gone. Blocks as cgroup_remove() does. */
bool cgroup_subtree_close(struct cgroup_subtree *subtree, bool keep);

/* Writes "v2" and the controllers that are there, such as "v2 memory cpu pids"; "none" without a
 * subtree. */
void cgroup_subtree_describe(const struct cgroup_subtree *subtree, char *ret, size_t size);

/* Sets the memory bound of all groups of the subtree; 0: no bound. Leaves a group that already uses
 * more as it is: a bound must not kill what runs. */
void cgroup_subtree_bound(const struct cgroup_subtree *subtree, uint64_t max_memory);

/* --- one group --- */

/* Creates a group without processes, with its counters at 0; removes the group that had the name
 * before. Returns its path, owned by the caller; NULL: there can be none. Blocks as cgroup_remove()
 * does. */
char *cgroup_make(const struct cgroup_subtree *subtree, const char *name, uint64_t max_memory);

/* Moves the calling process, which has no other threads, into a group. */
bool cgroup_enter(const char *path);

/* Makes the kernel kill all processes of a group; does not wait for it. */
bool cgroup_kill(const char *path);

/* Kills what is left in a group, and removes it with the groups below it. Blocks while processes
 * end, for two seconds at most. True: the group is gone. */
bool cgroup_remove(const char *path);

/* How often the kernel has killed a process of the group at its memory bound. */
uint64_t cgroup_oom_kills(const char *path);

struct cgroup_usage {
	bool has_memory;
	uint64_t memory; /* bytes; without the page cache that the kernel would drop first */
	int64_t cpu_ns;
	unsigned n_processes;
};

/* Measures what the processes of a group use, with the CPU time of those that have ended. False:
 * the group has no processes, or does not exist. */
bool cgroup_usage(const char *path, struct cgroup_usage *ret);
