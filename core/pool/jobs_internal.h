/* Shared by the files whose functions run in workers: commands.c, jobs.c, launch.c, settings.c,
 * texts.c. */
#pragma once

#include "kept_work.h"
#include "pool_internal.h"

/* --- jobs.c --- */

/* One job for the pool or for one agent. */
struct pool_job {
	struct worker_job job;
	struct ap_pool *pool;
	struct ap_agent *agent;	    /* with a reference; NULL: for the pool */
	struct ap_request *request; /* with a reference, answered by whoever runs it; NULL: none */
	union {
		enum ap_agent_text text;
		struct {
			enum ap_kept_text text;
			int64_t offset;
			size_t size;
		} kept;
		uint64_t token; /* of the lease that a commit or an answer is for; 0: any */
	};
	char *message; /* of a commit, or an answer; owned, or NULL */
	uid_t uid;     /* who answers */
};

/* Makes a job; a job with a request counts for pool_may_ask() until it is freed. NULL on ENOMEM. */
struct pool_job *pool_job_new(struct ap_pool *pool, struct ap_agent *agent,
			      struct ap_request *request, void (*run)(struct worker_job *));
void pool_job_free(struct pool_job *job);

/* Submit a job: to any worker, or to the lane of its agent. */
void pool_job_submit(struct pool_job *job);
void pool_job_in_lane(struct pool_job *job);

/* 0: the pool accepts one more request that a worker answers. -EAGAIN: too many wait; the job of a
 * client that is killed counts until a worker reaches it. */
int pool_may_ask(struct ap_pool *pool, struct ap_err *err);

/* Submits a job for a request that the pool itself answers. -EAGAIN as pool_may_ask(), -ENOMEM. */
int pool_job_begin(struct ap_pool *pool, struct ap_request *request,
		   void (*run)(struct worker_job *), struct ap_err *err);

/* Records the agent with the program just started. Lane only. Blocks as the store does. */
int agent_record_program(struct ap_agent *agent, struct ap_err *err);

/* --- conversations.c: in the lane, but for the last --- */

/* The conversation that a program of the agent's lease goes on with. False: a new one. Blocks. */
bool conversation_find(struct ap_agent *agent, char ret[SESSION_CONVERSATION_MAX]);

/* A lease is granted: nothing was said in it yet. */
void conversation_granted(struct ap_agent *agent);

/* Before the program ends or forgets under a lease: records which conversation it is in. Blocks. */
void conversation_settle(struct ap_agent *agent);

/* Before the program starts again: it goes on with the conversation of its lease's label. Blocks.
 */
void conversation_prepare(struct ap_agent *agent);

/* Logs that the program does not go on with a conversation. Any thread. */
void conversation_tell_gone(struct ap_agent *agent, const char *id, const char *reason);

/* --- keeping.c --- */

/* Measures what is new in kept/, and removes what is over keep_work or keep_work_size. Blocks for
 * long. */
void keeping_tidy(struct ap_pool *pool);

/* Lays what is kept as `name` over the agent's new worktree. -ENOSPC, -EBUSY (it has been removed),
 * -EIO. Lane only. */
int agent_restore(struct ap_agent *agent, const char *name, struct ap_err *err);

/* --- texts.c --- */

/* Appends what the program asks, up to so many requests, with an empty line between. Blocks as the
 * backend does. */
void agent_requests(struct ap_agent *agent, unsigned n_most, struct ap_buf *out);

/* --- launch.c: all of it in the lane --- */

enum launch_kind { LAUNCH_FIRST, LAUNCH_CLEAN, LAUNCH_AGAIN, LAUNCH_RESUME };

/* Starts the program. FIRST: in a new terminal; CLEAN: in the same terminal, with a new output;
 * AGAIN: only starts; RESUME: likewise, with a new output. For FIRST and CLEAN the worktree is new:
 * runs setup in it before. */
int launch_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err);

/* Run setup in a new worktree, and teardown before a worktree is reset or removed. A teardown that
 * fails stops nothing: the agent's output says why. */
int launch_setup(struct ap_agent *agent, struct ap_err *err);
void launch_teardown(struct ap_agent *agent);

/* Chooses the agent's ports. Takes the pool's lock. */
void launch_choose_ports(struct ap_agent *agent);
