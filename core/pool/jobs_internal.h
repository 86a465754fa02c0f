/* What the files share whose functions run in workers: commands.c, jobs.c, launch.c, settings.c,
 * texts.c. */
#pragma once

#include "kept_work.h"
#include "pool_internal.h"

/* --- jobs.c --- */

/* Something asked of one agent, once. */
struct agent_job {
	struct worker_job job;
	struct ap_agent *agent;	    /* with a reference */
	struct ap_request *request; /* with a reference, or NULL */
	enum ap_agent_text what;
	uint64_t token; /* of the lease that it is asked for; 0: any */
	char words[];	/* keys, or a message */
};

/* NULL on ENOMEM. Takes a reference of the agent, and of the request if there is one. */
struct agent_job *agent_job_new(struct ap_agent *agent, struct ap_request *request,
				void (*run)(struct worker_job *), const char *words);
void agent_job_free(struct agent_job *job);
void agent_job_in_lane(struct agent_job *job);

/* 0: the pool accepts one more request that a worker answers. -EAGAIN: too many wait; the job of a
 * client that is killed counts until a worker reaches it. */
int pool_may_ask(struct ap_pool *pool, struct ap_err *err);

/* Count a job, and hold a reference to its request, until a worker has answered it. agent_job_new()
 * and agent_job_free() call these. */
void job_asked(struct ap_pool *pool, struct ap_request *request);
void job_answered(struct ap_pool *pool);

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
