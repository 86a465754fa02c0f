/* What the files share whose functions run in workers: commands.c, jobs.c, launch.c, settings.c,
 * texts.c. */
#pragma once

#include "kept_work.h"
#include "pool_internal.h"

/* --- jobs.c --- */

/* Something asked of the pool or of one agent, once. */
struct pool_job {
	struct worker_job job;
	struct ap_pool *pool;
	struct ap_agent *agent;	    /* with a reference; NULL: asked of the pool */
	struct ap_request *request; /* with a reference, answered by whoever runs it; NULL: none */
	union {
		enum ap_agent_text text;
		struct {
			enum ap_kept_text text;
			int64_t offset;
			size_t size;
		} kept;
		uint64_t token; /* of the lease that a commit is asked for; 0: any */
	};
	char *message; /* of a commit; owned, or NULL */
};

/* Counts it for pool_may_ask() while it has a request. NULL on ENOMEM. */
struct pool_job *pool_job_new(struct ap_pool *pool, struct ap_agent *agent,
			      struct ap_request *request, void (*run)(struct worker_job *));
void pool_job_free(struct pool_job *job);

/* Has a worker run it, at once or in the lane of its agent. */
void pool_job_submit(struct pool_job *job);
void pool_job_in_lane(struct pool_job *job);

/* 0: the pool accepts one more request that a worker answers. -EAGAIN: too many wait; the job of a
 * client that is killed counts until a worker reaches it. */
int pool_may_ask(struct ap_pool *pool, struct ap_err *err);

/* Records the program that was started in its terminal. Lane only. Blocks as the store does. */
int agent_record_program(struct ap_agent *agent, struct ap_err *err);

/* --- keeping.c --- */

/* Counts what is new in kept/, and removes what is too old or too much. Blocks for long. */
void keeping_tidy(struct ap_pool *pool);

/* Lays what is kept as `name` over the agent's new worktree. -ENOSPC, -EBUSY (it has gone), -EIO.
 * Lane only. */
int agent_restore(struct ap_agent *agent, const char *name, struct ap_err *err);

/* --- launch.c: all of it in the lane --- */

enum launch_kind { LAUNCH_FIRST, LAUNCH_CLEAN, LAUNCH_AGAIN };

/* Starts the program: in a new terminal, in the same one with an output of its own, or just again.
 * For the first two the worktree is new: setup runs in it before. */
int launch_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err);

/* Run setup in a worktree that is new without a new program, and teardown in one that ends. A
 * teardown that fails stops nothing: the output says so. */
int launch_setup(struct ap_agent *agent, struct ap_err *err);
void launch_teardown(struct ap_agent *agent);

/* Chooses the agent's port. */
void launch_choose_port(struct ap_agent *agent);
