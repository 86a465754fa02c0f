/* What the files share that carry jobs out: commands.c, jobs.c, launch.c, texts.c. */
#pragma once

#include "kept_work.h"
#include "pool_internal.h"

/* --- jobs.c --- */

/* A job of its own memory: something asked of one agent, once. */
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

/* Whether one more thing may be asked that a worker answers. -EAGAIN: an asker that is killed
 * leaves his job behind until a worker comes by it. */
int pool_may_ask(struct ap_pool *pool, struct ap_err *err);

/* Counts it, with a reference of its request, until it is worked on: agent_job_new() and
 * agent_job_free() do. */
void job_asked(struct ap_pool *pool, struct ap_request *request);
void job_answered(struct ap_pool *pool);

/* Records the program that was started in its terminal. Lane only. Blocks as the store does. */
int agent_record_program(struct ap_agent *agent, struct ap_err *err);

/* --- keeping.c --- */

/* Counts what is new and removes what is too old or too much. Blocks, long. */
void keeping_tidy(struct ap_pool *pool);

/* Lays what is kept as `name` over the agent's new worktree. -ENOSPC, -EBUSY (it has gone), -EIO.
 * Lane only. */
int agent_restore(struct ap_agent *agent, const char *name, struct ap_err *err);

/* --- launch.c: all of it in the lane --- */

enum launch_kind { LAUNCH_FIRST, LAUNCH_CLEAN, LAUNCH_AGAIN };

/* Starts the program: in a new terminal, in the same one with an output of its own, or just again.
 * For the first two the worktree is new: setup runs in it before. */
int launch_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err);

/* The commands for a worktree that is new without a new program, or that ends. The failure of
 * teardown holds nothing up: it is said where what it printed is. */
int launch_setup(struct ap_agent *agent, struct ap_err *err);
void launch_teardown(struct ap_agent *agent);

/* Gives the agent its port. */
void launch_choose_port(struct ap_agent *agent);
