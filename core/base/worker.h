/* Threads for what blocks. A job runs on one of a fixed few threads, in order of arrival; jobs of
 * the same lane run one after the other, so that what is done to one agent never overlaps. */
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
	struct worker_lane *lane;			/* NULL: none. Lives until run() returned */
	void (*lane_release)(struct worker_lane *lane); /* called after run(), if lane is set */
	struct ap_list link;
};

/* NULL on ENOMEM or when no thread can be had. All signals are blocked in the threads. */
struct worker_pool *worker_pool_new(unsigned n_threads);

/* So many threads more, as far as they can be had. Not with worker_pool_end(). */
void worker_pool_grow(struct worker_pool *pool, unsigned n_more);

/* Never blocks for long, never fails, calls nothing back; the job's memory is the caller's until it
 * runs. */
void worker_submit(struct worker_pool *pool, struct worker_job *job);

/* Runs what is queued and ends the threads; what is submitted afterwards is never run. Blocks. */
void worker_pool_end(struct worker_pool *pool);

/* The same, and frees. */
void worker_pool_free(struct worker_pool *pool);

void worker_lane_init(struct worker_lane *lane);

/* A job that is asked for again and again, whatever it finds to do each time: one run is for all
 * who asked before it began, and never are there two at a time. */
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

/* Has it run, once more if it runs already. True: it rested, and `rests` will be called. As
 * worker_submit(). */
bool worker_once_ask(struct worker_once *once);
