/* Threads for what blocks. A few threads run jobs in the order of their arrival. A lane is a serial
 * queue: its jobs run one after the other, so that the jobs of one agent never overlap. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "list.h"

struct worker_pool;

struct worker_lane {
	/* guarded by the worker pool's lock */
	struct ap_list waiting; /* jobs behind the one that runs */
	int running;
};

struct worker_job {
	void (*run)(struct worker_job *job);		/* may free the job */
	struct worker_lane *lane;			/* NULL: none. Lives until lane_release() */
	void (*lane_release)(struct worker_lane *lane); /* called after run(), if lane is set */
	struct ap_list link;
};

/* NULL on ENOMEM or when no thread can be had. All signals are blocked in the threads. */
struct worker_pool *worker_pool_new(unsigned n_threads);

/* Adds threads, as many of `n_more` as the machine gives. Not together with worker_pool_end(). */
void worker_pool_grow(struct worker_pool *pool, unsigned n_more);

/* Queues a job. Never fails, never blocks for long. The job's memory is the caller's, and must last
 * until the job runs. */
void worker_submit(struct worker_pool *pool, struct worker_job *job);

/* Runs what is queued, then ends the threads. Jobs submitted afterwards never run. Blocks. */
void worker_pool_end(struct worker_pool *pool);

/* Ends the threads as above, and frees the pool. */
void worker_pool_free(struct worker_pool *pool);

void worker_lane_init(struct worker_lane *lane);

/* A job that many callers ask for again and again. One run serves all who asked before it began;
 * two runs never overlap. */
struct worker_once {
	void (*run)(struct worker_once *once);
	void (*rests)(struct worker_once *once); /* called when nobody has asked for more; may free
						  * it; may be NULL */
	struct worker_pool *pool;
	struct worker_job job;
	atomic_int state;
};

void worker_once_init(struct worker_once *once, struct worker_pool *pool,
		      void (*run)(struct worker_once *), void (*rests)(struct worker_once *));

/* Asks for a run: one more if a run is under way. True: the job was at rest, and `rests` will be
 * called. As worker_submit(). */
bool worker_once_ask(struct worker_once *once);
