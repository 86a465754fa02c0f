/* What the files share that carry jobs out: jobs.c, launch.c, prompts.c, texts.c. */
#pragma once

#include "kept_work.h"
#include "pool_internal.h"

/* The option's text as it is now, owned by the caller. NULL on ENOMEM. */
char *config_text(struct ap_pool *pool, enum ap_option option);

/* --- jobs.c --- */

/* Has a job run in the agent's lane. */
void agent_submit(struct ap_agent *agent, struct worker_job *job, void (*run)(struct worker_job *));

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

/* Whether it has a program, one that has ended too if `even_ended`. -ENODEV: the agent is gone;
 * -EBUSY: it is being made; -EIO: its program has ended. */
int agent_running(struct ap_agent *agent, bool even_ended, struct ap_err *err);
int agent_running_locked(const struct ap_agent *agent, bool even_ended, struct ap_err *err);

/* What its process tree uses now, by a table of processes if one is given; the CPU's average is
 * brought up to now by it. -ESRCH, … */
int agent_usage(struct ap_agent *agent, struct process_table *table, struct process_usage *ret,
		double *ret_percent);

/* Records the program that was started in its terminal. Lane only. Blocks as the store does. */
int agent_record_program(struct ap_agent *agent, struct ap_err *err);

/* --- keeping.c --- */

/* Counts what is new and removes what is too old or too much. Blocks, long. */
void keeping_tidy(struct ap_pool *pool);

/* Lays what is kept as `name` over the agent's new worktree. -ENOSPC, -EBUSY (it has gone), -EIO.
 * Lane only. */
int agent_restore(struct ap_agent *agent, const char *name, struct ap_err *err);

/* --- texts.c --- */

/* Looks at the agent's screen, and what the profile makes of it. Blocks as the backend does. */
void agent_look(struct ap_agent *agent, struct ap_buf *ret_screen, struct activity_signal *ret);

/* --- prompts.c --- */

/* Types keys, in tmux's names or as they stand, with blanks between. Blocks as the backend does. */
int agent_press(struct ap_agent *agent, const char *keys, struct ap_err *err);

/* Types a command of the program's own and submits it. Lane only. -EIO: it did not take it. */
int agent_command(struct ap_agent *agent, const char *text, struct ap_err *err);

/* Waits until the program's screen says that it is ready. Lane only. */
bool agent_await_ready(struct ap_agent *agent, int64_t limit_ns);

/* Has its processes stand still or go on, as agent->paused says, and keeps that for the next
 * daemon. Takes its time, in the lane or not: where something else is wanted behind it of the same
 * program, that is done too. */
void agent_obey_pause(struct ap_agent *agent);

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

/* Appends PATH as the agents' programs have it. False: it is another for each of them. */
bool launch_path(const struct ap_pool *pool, struct ap_buf *ret);
