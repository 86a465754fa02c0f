/* What a whole process tree uses: a process and all that descend from it. A shim that takes over
 * what its descendants leave behind makes the tree complete. Reads /proc; starts nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* When a process was started, in the kernel's own count: with its number it tells it from any
 * other. 0: there is no such process. */
uint64_t process_start_time(pid_t pid);

/* Whether a process is there and not about to end: one that SIGKILL was sent to is, though it may
 * take its time to where there is much to do. */
bool process_lives(pid_t pid);

/* Whether a word of its command line is that one: what tells a process of ours whose number
 * somebody else has written down. */
bool process_has_word(pid_t pid, const char *word);

struct process_usage {
	/* bytes; what is shared counts in parts (PSS), as far as the kernel tells it in time */
	uint64_t memory;
	int64_t cpu_ns; /* of all, those that have ended and were waited for included */
	unsigned n_processes;
};

/* The tree below `root`, without it. -ESRCH: there is no such process; -ENOSYS: this kernel does
 * not list children. Takes some 30 us a process, more for large ones, and long where a process
 * starves: not for the FUSE thread. */
int process_tree_usage(pid_t root, struct process_usage *ret);

/* The tree below `root`, parents first, in an array that the caller frees. -ESRCH, -ENOSYS,
 * -ENOMEM; one whose parent ends meanwhile may be missing. */
int process_tree_list(pid_t root, pid_t **ret, size_t *ret_n);

/* All processes that there are, to look at many trees for the price of one. It is read at the first
 * look at a tree in it, in some 10 us a process; memory is looked into closely for some time only,
 * for all looks together: later ones are taken to share as much as those before. For one thread. */
struct process_table;

struct process_table *process_table_new(void); /* NULL on ENOMEM */
void process_table_free(struct process_table *table);

/* As process_tree_usage(). */
int process_table_usage(struct process_table *table, pid_t root, struct process_usage *ret);

/* Whether the time for close looks at memory is over. */
bool process_table_is_late(const struct process_table *table);

/* Stops the tree below `root`, parents first, or has it go on, children first, so that no shell
 * sees its job stop. -ESRCH, -ENOSYS, -ENOMEM. */
int process_tree_stop(pid_t root);
int process_tree_continue(pid_t root);

/* CPU use as a running average over a minute: a burst counts by its length. */
struct cpu_average {
	int64_t cpu_ns, at_ns; /* the last sample; at_ns 0: none yet */
	double percent;	       /* of one CPU */
};

/* Begins anew: nothing was used at `now_ns`. */
void cpu_average_begin(struct cpu_average *average, int64_t now_ns);

/* Takes a further sample. */
void cpu_average_add(struct cpu_average *average, int64_t cpu_ns, int64_t now_ns);
