/* What a whole process tree uses: a process and all its descendants. A shim, which takes over the
 * processes that its descendants leave behind, makes the tree complete. Reads /proc; starts
 * nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The start time of a process, as the kernel counts it: with its pid it tells the process from any
 * other. 0: there is no such process, or it has ended. */
uint64_t process_start_time(pid_t pid);

/* Whether a process exists and is not about to end. One with SIGKILL pending is about to end,
 * though that may take long on a busy machine. */
bool process_lives(pid_t pid);

/* Whether the process's command line has that word: so the caller recognises a process of ours by a
 * pid that somebody else has recorded. */
bool process_has_word(pid_t pid, const char *word);

struct process_usage {
	/* bytes; shared pages count in parts (PSS), as far as the kernel reports them in time */
	uint64_t memory;
	int64_t cpu_ns; /* of all, those that have ended and were waited for included */
	unsigned n_processes;
};

/* Measures the tree below `root`; of `root` itself only the CPU time counts, which includes
 * descendants that it has waited for. -ESRCH: there is no such process; -ENOSYS: this kernel does
 * not list children. Takes some 30 us a process, more for large ones, and long where a process
 * starves: not for the FUSE thread. */
int process_tree_usage(pid_t root, struct process_usage *ret);

/* Lists the tree below `root`, parents first, in an array that the caller frees. -ESRCH, -ENOSYS,
 * -ENOMEM; a process whose parent ends meanwhile may be missing. */
int process_tree_list(pid_t root, pid_t **ret, size_t *ret_n);

/* All processes, to measure many trees for the price of one. The first process_table_usage() reads
 * the table, in some 10 us a process. It measures memory closely (PSS) for a limited time only, in
 * all calls together, and assumes that later processes share as much as those before. For one
 * thread. */
struct process_table;

struct process_table *process_table_new(void); /* NULL on ENOMEM */
void process_table_free(struct process_table *table);

/* As process_tree_usage(). */
int process_table_usage(struct process_table *table, pid_t root, struct process_usage *ret);

/* Whether the time to measure memory closely is over. */
bool process_table_is_late(const struct process_table *table);

/* process_tree_stop() stops the tree below `root`, parents first; process_tree_continue() continues
 * it, children first: so no shell sees its job stop. -ESRCH, -ENOSYS, -ENOMEM. */
int process_tree_stop(pid_t root);
int process_tree_continue(pid_t root);

/* CPU use as a running average over a minute: a burst counts by its length. */
struct cpu_average {
	int64_t cpu_ns, at_ns; /* the last sample; at_ns 0: none yet */
	double percent;	       /* of one CPU */
};

/* Starts the average again: nothing was used at `now_ns`. */
void cpu_average_begin(struct cpu_average *average, int64_t now_ns);

/* Takes a further sample. */
void cpu_average_add(struct cpu_average *average, int64_t cpu_ns, int64_t now_ns);
