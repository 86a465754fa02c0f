/* The pool, as the mount sees it: with config.h, metrics.h and overview.h all of core/ that fs/
 * includes.
 *
 * Functions return 0 or a negative errno that may go to the kernel as it is, and fill a
 * caller-owned ap_err with the sentence behind it. None blocks, except those of the pool's life and
 * where a comment says so: a slow operation takes an ap_request, whose `done` is called once, from
 * any thread, possibly before the call returns, with no lock held. Times are ns of CLOCK_MONOTONIC.
 * All functions but those of the pool's life may be called from any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "clock.h"
#include "config.h"
#include "err.h"
#include "permission.h"
#include "usage.h"
#include "reason.h"
#include "states.h"
#include "text.h"

struct ap_pool;
struct ap_agent;   /* one agent from spawn to stop; pinned by a reference */
struct ap_request; /* an operation under way whose answer comes later */

/* --- the pool's life --- */

struct ap_pool_options {
	const char *repo;	 /* path of the repository */
	struct ap_config config; /* taken over by a successful ap_pool_new */
	const char *const *argv; /* the program and its arguments, NULL at the end */
	const char *mountpoint;	 /* canonical; agents get it, the pool never touches it */
	const char *shim;	 /* path of the program that starts agents */
	const char *profiles;	 /* directory of the installed program profiles */
	/* The agent of that name is gone. Called from any thread, without a lock. */
	void (*agent_gone)(void *data, const char *name);
	/* There are more events to read, or there will be no more; or, while someone watches, a
	 * shown value of the pool or of an agent has changed: one call for all changes meanwhile.
	 * Likewise. NULL: nobody asks. */
	void (*changed)(void *data);
	/* A notice for the user who mounts, which is no failure; before ap_pool_start() has
	 * returned, from its thread. NULL: nobody asks. */
	void (*tell)(void *data, const char *sentence);
	void *data;
};

/* Checks all that can be known before anything is made: configuration, repository and base, where
 * the state directory would be, the program's profile, and whether the program exists. Makes
 * nothing, starts no thread. Blocks. -EINVAL, -ENOENT, … */
int ap_pool_new(struct ap_pool **ret, struct ap_pool_options *options, struct ap_err *err);

/* Waits for another daemon that has the state directory and is about to end. True: it has ended,
 * and what it had mounted is free. For a new pool. Blocks, for a minute at most. */
bool ap_pool_await_end(struct ap_pool *pool);

/* Returns the line of a .gitignore that makes git ignore the mount point, and the file that it
 * belongs into, both owned by the caller. False: git ignores the mount point already, it is in no
 * checkout of the repository, or memory is short. Call before there is a mount. Blocks. */
bool ap_pool_ignore_line(struct ap_pool *pool, char **ret_line, char **ret_file);

/* Takes the state directory's lock and opens its store; for a new pool. Starts no thread. Blocks,
 * up to a minute if another daemon is about to end. -EBUSY (another daemon, named in the sentence),
 * -EPROTO (the store is from a newer version), … */
int ap_pool_begin(struct ap_pool *pool, struct ap_err *err);

/* Whether the pool makes worktrees by mounts that the process may make inside namespaces of its own
 * alone, and ap_pool_go_inside() takes the process there: between its mount and ap_pool_start(),
 * and before it has a thread. From there it cannot unmount what it has mounted before. For a pool
 * that has begun. */
bool ap_pool_goes_inside(const struct ap_pool *pool);
int ap_pool_go_inside(struct ap_pool *pool, struct ap_err *err);

/* A process inside by which others get to worktrees, with nsenter(1) or through its
 * /proc/PID/root; 0: worktrees are where everybody is. For a pool that has started. Does not block.
 */
pid_t ap_pool_inside(const struct ap_pool *pool);

/* Lets the process be looked at by its helpers, which read files by its descriptors. Call in the
 * main thread, which cannot mount then: another calls ap_pool_start(), ap_pool_stop() and
 * ap_pool_free(). Nothing if the pool is not inside. */
void ap_pool_show_inside(struct ap_pool *pool);

/* Starts the threads and the backend, goes on with the agents and leases that an earlier daemon has
 * left, and starts the first agents. For a pool that has begun and is mounted; only after the
 * process has daemonized. Blocks. */
int ap_pool_start(struct ap_pool *pool, struct ap_err *err);

/* Ends the pool in order: refuses acquirers, saves the work of leases, ends agents, removes
 * worktrees; with persist=yes it leaves agents and leases for the next daemon. Answers every
 * outstanding request. Blocks until done. Returns the number of worktrees that it keeps because
 * saving failed; `err` names one. */
unsigned ap_pool_stop(struct ap_pool *pool, struct ap_err *err);

/* Frees a pool that has not begun or started, whose start failed or that is stopped. */
void ap_pool_free(struct ap_pool *pool);

/* --- requests --- */

/* `result` is 0 or a negative errno; ap_request_why() has the sentence, ap_request_text() the text.
 */
typedef void ap_request_done(struct ap_request *request, int result, void *data);

/* NULL on ENOMEM. A request is submitted once, by one of the functions that take one. */
struct ap_request *ap_request_new(ap_request_done *done, void *data);

/* A further reference, to be dropped with ap_request_free(). */
void ap_request_ref(struct ap_request *request);

/* Drops the caller's reference: after `done`, or instead of submitting. */
void ap_request_free(struct ap_request *request);

/* Answers the request with -ECANCELED, unless it is answered already. The pool undoes an acquire; a
 * release goes on without its request. */
void ap_request_cancel(struct ap_pool *pool, struct ap_request *request);

/* Call in or after `done` only. The sentence is "" when nobody has said why. */
const char *ap_request_why(const struct ap_request *request);
struct ap_buf *ap_request_text(struct ap_request *request);

/* --- leases --- */

struct ap_acquire {
	char label[AP_LABEL_MAX + 1];	 /* "": the pool invents one */
	char agent[32];			 /* only this agent; "": any */
	char affinity[AP_LABEL_MAX + 1]; /* the agent that last served this key is preferred; "" */
	char base[256];			 /* what a new branch starts from; "": config/base */
	int64_t timeout_ns;		 /* -1: config/acquire_timeout; 0: try once */
	int64_t ttl_ns;			 /* -1: config/lease_ttl; 0: without end */
	uid_t uid;
	pid_t pid;	     /* who asks, for display */
	pid_t holder;	     /* the lease ends when this process does; 0: none */
	bool by_handle;	     /* the lease ends with the caller's handle */
	int permission;	     /* a policy (permission.h); -1: config/permission */
	int64_t budget;	     /* (usage.h); -1: config/budget */
	const char *restore; /* name in kept/: what is laid over the worktree before the answer;
				NULL: nothing */
};

struct ap_lease_key {
	unsigned agent; /* number */
	uint64_t token; /* of the lease; never used twice */
};

/* Queues an acquirer. Refused at once: -EINVAL, -EEXIST, -ENOENT, -ESRCH (no such holder),
 * -ESHUTDOWN, -EAGAIN (the queue is full). Answered later: 0, -EAGAIN, -ETIMEDOUT, -EBUSY (the
 * label's branch is checked out elsewhere), -ESHUTDOWN, -EHOSTDOWN, -ESRCH (the holder has ended
 * meanwhile), -ECANCELED. The text of a granted one is `AGENT LABEL\n`. */
int ap_pool_acquire(struct ap_pool *pool, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err);

/* The lease that an acquirer's request was granted. */
struct ap_lease_key ap_request_lease(const struct ap_request *request);

/* Whether that user is root, the user of the daemon, or the user shown as the owner: they may do
 * everything. */
bool ap_pool_is_owner(const struct ap_pool *pool, uid_t uid);

/* Ends the lease of that label or agent on behalf of `uid` (its holder, an owner). Refused at once:
 * -ENOENT, -ESTALE, -EPERM. Answered with 0 when the work is safe, or -EIO when saving failed.
 * `request` may be NULL: nobody waits for the answer. */
int ap_pool_release(struct ap_pool *pool, const char *label_or_agent, bool discard, uid_t uid,
		    struct ap_request *request, struct ap_err *err);

/* The same, but answered as soon as the store has recorded that the lease ends. -ENOSPC, -EROFS,
 * -EIO: the store could not, and the lease ends all the same. */
int ap_pool_begin_release(struct ap_pool *pool, const char *label, uid_t uid,
			  struct ap_request *request, struct ap_err *err);

/* -EPERM: that user may not end it. 0 also if there is no such lease. */
int ap_pool_may_release(struct ap_pool *pool, const char *label_or_agent, uid_t uid,
			struct ap_err *err);

/* Ends the lease of a handle that was closed, if it still is that lease. */
void ap_pool_release_key(struct ap_pool *pool, struct ap_lease_key key);

/* Begins the lease's time to live again, on behalf of `uid`. -ESTALE, -ENOENT, -EPERM. */
int ap_pool_renew(struct ap_pool *pool, const char *label, uid_t uid, struct ap_err *err);

/* --- what leases left, and is kept for a while --- */

#define AP_KEPT_NAME_MAX 128 /* bytes of LABEL@TOKEN with its NUL */

/* The number of the kept work of that name: below 2^28, and the same as long as it is kept. False:
 * there is none. */
bool ap_kept_work_find(struct ap_pool *pool, const char *name, unsigned *ret_number);

/* The kept work with the lowest number above `after`. False: there is none. Costs the same however
 * many there are. */
bool ap_kept_work_next(struct ap_pool *pool, unsigned after, unsigned *ret_number,
		       char ret_name[AP_KEPT_NAME_MAX]);

/* Appends what is known of kept work, key value a line; how many bytes it takes, or nothing until
 * they are counted; or where its files are. -ENOENT: it has gone. */
enum ap_kept_work_text {
	AP_KEPT_WORK_INFO,
	AP_KEPT_WORK_SIZE,
	AP_KEPT_WORK_FILES,
};
int ap_kept_work_show(struct ap_pool *pool, unsigned number, enum ap_kept_work_text what,
		      struct ap_buf *out);

/* As ap_pool_acquire(), but the lease begins at the commit that the kept one was saved as, or at
 * the kept one's base if nothing was saved, and the pool lays all that was kept over the worktree
 * before the answer. Ignores `base`. Refused at once: also -ENOENT (there is none of that name) and
 * -ENODATA (what it began at is not known). Answered later: also -EIO and -ENOSPC: the pool could
 * not lay it. */
int ap_pool_restore(struct ap_pool *pool, const char *name, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err);

/* --- the pool as a whole --- */

/* Sets the size, -1: automatic; answered when the store has recorded it. -ERANGE. */
int ap_pool_scale(struct ap_pool *pool, int target, struct ap_request *request, struct ap_err *err);
void ap_pool_maintain(struct ap_pool *pool); /* one pass now */
void ap_pool_warm(struct ap_pool *pool);
void ap_pool_drain(struct ap_pool *pool);
void ap_pool_close(struct ap_pool *pool); /* grant nothing more */
void ap_pool_reset_breaker(struct ap_pool *pool);

/* ap_pool_save(): answered once every queued record is on disk. ap_pool_load(): applies the stored
 * settings, all or none, and is answered then. */
int ap_pool_save(struct ap_pool *pool, struct ap_request *request, struct ap_err *err);
int ap_pool_load(struct ap_pool *pool, struct ap_request *request, struct ap_err *err);
int ap_pool_open(struct ap_pool *pool, struct ap_err *err);

/* ap_pool_config_set() sets an option; answered when the store has recorded it. -ENOSPC, -EROFS,
 * -EIO: the store could not, and the option has its old value again. ap_pool_config_try() only
 * checks whether the value would be accepted. */
int ap_pool_config_set(struct ap_pool *pool, enum ap_option option, const char *text,
		       struct ap_request *request, struct ap_err *err);
int ap_pool_config_try(struct ap_pool *pool, enum ap_option option, const char *text,
		       struct ap_err *err);
void ap_pool_config_show(struct ap_pool *pool, enum ap_option option, struct ap_buf *out);
int64_t ap_pool_config_number(struct ap_pool *pool, enum ap_option option);

struct ap_stats {
	unsigned n_active, n_idle, n_total, n_spawning, n_waiting, utilization; /* percent */
	uint64_t n_requests, n_recycles, n_spawned, n_terminated;
	struct ap_usage used;	      /* since the pool began */
	int64_t scaled_ns, uptime_ns; /* last scale step, 0: none; since start */
	enum ap_scale_direction scale_direction;
	bool closed;
	int target;	    /* manual size, -1: automatic */
	unsigned n_desired; /* the size that the policy, or a user, wants */
	const char *breaker, *spawn_backend, *sandbox, *cgroup;
	unsigned n_templates;
	/* files written of the template that is being made, of how many; 0 of 0: none is */
	unsigned n_files_done, n_files;
	unsigned n_kept;     /* ended leases whose work is kept */
	uint64_t kept_bytes; /* bytes of kept work, as far as counted */
	unsigned n_stuck;    /* pieces of garbage that cannot be removed */
	const char *git;     /* what reads and writes the repository: libgit2 or program */
};

void ap_pool_stats(struct ap_pool *pool, struct ap_stats *ret);

/* Adds or removes a watcher. While there is one, the pool calls `changed` for every change of a
 * shown value: a look that begins after this call misses none. Changes by time alone do not
 * count. */
void ap_pool_watch(struct ap_pool *pool, bool watch);

/* Counts the changes of shown values. While the count is the same, only values that pass with time
 * are different, and usage and screens until they are refreshed. */
uint64_t ap_pool_changes(struct ap_pool *pool);

/* --- agents --- */

/* The numbers of the agents that there are, ascending; at most `max`. Returns how many. */
unsigned ap_pool_agents(struct ap_pool *pool, unsigned *ret_numbers, unsigned max);
unsigned ap_pool_hard_cap(const struct ap_pool *pool);

/* The agent of that number or name with a reference, or NULL. */
struct ap_agent *ap_agent_get(struct ap_pool *pool, unsigned number);
struct ap_agent *ap_agent_find(struct ap_pool *pool, const char *name);
void ap_agent_unref(struct ap_agent *agent);

/* The agent that serves the lease of that label or token, with a reference, or NULL. */
struct ap_agent *ap_agent_of_label(struct ap_pool *pool, const char *label, uint64_t *ret_token);
struct ap_agent *ap_agent_of_token(struct ap_pool *pool, uint64_t token);

struct ap_agent_info {
	unsigned number;
	char name[32];
	enum ap_agent_state state;
	enum ap_activity activity;
	char why[128]; /* what the activity was concluded from */
	/* of its lease, or of the one whose unsaved work keeps it quarantined; "": it has none */
	char label[AP_LABEL_MAX + 1], base[65], branch[AP_LABEL_MAX + 16];
	/* absolute, by which all of the daemon's user get there; as long as the reference */
	const char *worktree;
	uid_t owner_uid;
	pid_t owner_pid, pid; /* holder; the program, 0 when it has ended */
	uint64_t token;	      /* of its lease; 0: not leased */
	uint32_t permission;  /* of its lease: a policy (permission.h) */
	int64_t budget;	      /* likewise (usage.h) */
	struct ap_usage used, used_ever; /* in its lease; since it was made */
	int64_t created_ns, granted_ns, expires_ns, idle_since_ns; /* 0: does not apply */
	unsigned n_requests, n_recycles, generation;
	uint64_t n_prompts;
	int64_t output_size; /* bytes of plain text printed so far */
	int64_t raw_size;    /* bytes printed so far */
	int64_t calls_size;  /* bytes of AP_KEPT_CALLS */
	char conversation[128]; /* that its program is in, by the program's own id; "": unknown */
	int64_t until_s;	/* when its usage limit ends: seconds of the wall clock; 0: none, or
				 * not known */
	char exit_how[64];   /* of the last program that has ended, such as "code 0"; "" */
	int64_t exit_time;   /* when: seconds of the wall clock; 0: not known */
};

/* Fills in one consistent look at the agent. False when it is gone. */
bool ap_agent_look(struct ap_pool *pool, struct ap_agent *agent, struct ap_agent_info *ret);

/* Appends how its program last ended, and when: "code 0 2026-11-24T10:00:00Z"; nothing: it has not.
 */
void ap_agent_exit_status(const struct ap_agent_info *agent, struct ap_buf *out);

/* The functions below that act for a lease take its token: -ESTALE when the lease has ended
 * meanwhile. Token 0 is whatever lease the agent has, or none. */

/* A prompt is being written: the agent counts as busy until ap_agent_prompt_end(). -EIO (the
 * program has ended), -EAGAIN (queue full), -EMSGSIZE, -EDQUOT, -ESTALE, -ENODEV. */
int ap_agent_prompt_begin(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			  struct ap_err *err);

/* That prompt is `len` bytes longer. -EAGAIN: with what is queued, and what else is being written,
 * it would be more than one agent takes. */
int ap_agent_prompt_grow(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len,
			 struct ap_err *err);

/* That prompt is taken or given up; `len` is the sum of the bytes that it has grown by. */
void ap_agent_prompt_end(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len);

/* Queues a prompt: the program gets it as one message when it is ready for it. The agent is busy
 * from now on. Errors as above, and -ENOMEM. */
int ap_agent_prompt(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *text,
		    size_t len, struct ap_err *err);

/* Types keys, in tmux's names, separated by blanks; at once, whatever prompts wait. -EINVAL, -EIO
 * (the program has ended), -EAGAIN (too many wait), -ESTALE, -ENODEV. */
int ap_agent_keys(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *keys,
		  struct ap_err *err);

/* Answers what the program asks, on behalf of `uid`: with the id of an option, with allow, always,
 * reject or cancel. Answered when the program has taken it, or with -ENODATA (it asks nothing),
 * -EINVAL (it does not offer that), -EIO (it asks the same still), -EBUSY (somebody types, or it is
 * starting), -EOPNOTSUPP (it has no terminal), -EAGAIN (too many wait), -ESTALE, -ENODEV. */
int ap_agent_answer(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, uid_t uid,
		    const char *answer, struct ap_request *request, struct ap_err *err);

/* Breaks off what the program does, by the keys of its profile. As ap_agent_keys(). */
int ap_agent_cancel(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		    struct ap_err *err);

/* ap_agent_kill() ends the agent and saves its work; ap_agent_recycle() recycles it, at once or
 * when its lease ends; ap_agent_restart() starts its program again in the same worktree. -ESTALE,
 * -EBUSY, -ENODEV. */
int ap_agent_kill(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, struct ap_err *err);
int ap_agent_recycle(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err);
int ap_agent_restart(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err);

/* Stops the program and all that it started, or continues them. A paused agent is busy, and gets no
 * prompt until it is continued. -EIO, -ESTALE, -EBUSY, -ENODEV. */
int ap_agent_pause(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, bool pause,
		   struct ap_err *err);

/* Makes the program forget what was said, by its own command, in order with the prompts before it.
 * -EOPNOTSUPP: its profile knows none; else as ap_agent_prompt(). */
int ap_agent_reset(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		   struct ap_err *err);

/* Commits all that has changed in the worktree of its lease, untracked files included and ignored
 * ones not, to the lease's branch; answered when that is done. Waits for jobs of the agent that are
 * under way, not for prompts in its queue. -ENODATA: nothing has changed. -EBUSY: the worktree is
 * on another branch, or the agent is still starting. -EIO: git's own complaint. -EAGAIN (too many
 * wait), -ESTALE, -ENOENT (no lease), -ECANCELED, -ENODEV. */
int ap_agent_commit(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		    const char *message, struct ap_request *request, struct ap_err *err);

/* Sets what the program reports of itself, by a hook: starting, ready, busy or waiting. -EINVAL,
 * -EBUSY, -ENODEV. */
int ap_agent_activity_set(struct ap_pool *pool, struct ap_agent *agent, const char *text,
			  struct ap_err *err);

/* Takes what the program reports of its use, by a hook: a line `NAME VALUE`, where its own counter
 * is now. -EINVAL, -ERANGE, -EBUSY, -ENODEV. */
int ap_agent_count(struct ap_pool *pool, struct ap_agent *agent, const char *text,
		   struct ap_err *err);

/* Its last AP_TRANSITIONS changes of state, oldest first, a line each: time, from, to, reason.
 * False when the agent is gone. */
#define AP_TRANSITIONS 64
bool ap_agent_transitions(struct ap_pool *pool, struct ap_agent *agent, struct ap_buf *out);

/* Appends the command, for sh, that attaches a person's terminal to the agent's, and takes the word
 * -r: read-only. -EOPNOTSUPP: its program runs without a terminal; -EIO: there is none now. Does
 * not block. */
int ap_agent_attach(struct ap_pool *pool, struct ap_agent *agent, struct ap_buf *out,
		    struct ap_err *err);

/* Texts of an agent that take time to make; ap_request_text() has the text. */
enum ap_agent_text {
	AP_TEXT_SCREEN,	     /* what is on the terminal */
	AP_TEXT_REQUEST,     /* what the program asks, and what it offers */
	AP_TEXT_PLAN,	     /* of the program, a line an entry */
	AP_TEXT_STOP_REASON, /* why its last turn ended */
	AP_TEXT_DIFF,	     /* worktree against base, untracked files included */
	AP_TEXT_DIFFSTAT,
	AP_TEXT_CHANGES,
	AP_TEXT_HEAD,	/* the worktree's commit */
	AP_TEXT_MEMORY, /* of its process tree: bytes */
	AP_TEXT_CPU,	/* percent of one CPU, averaged over a minute */
	AP_TEXT_TASKS,	/* processes */
};
int ap_agent_text(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_text what,
		  struct ap_request *request, struct ap_err *err);

/* What a wait brings, once the program is ready, waiting or exited. */
enum ap_agent_wait {
	AP_WAIT_ACTIVITY, /* which of them it is */
	AP_WAIT_RESPONSE, /* what was printed since the last prompt */
};

/* Waits, and answers with that text. -EIO: the last prompt was not delivered. With `nonblock`,
 * -EAGAIN if it would have to wait for the program. */
int ap_agent_wait(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_wait what,
		  bool nonblock, struct ap_request *request, struct ap_err *err);

/* Whether ap_agent_wait() would not have to wait. */
bool ap_agent_has_settled(struct ap_pool *pool, struct ap_agent *agent);

/* Texts that grow, and of which the last part is kept. */
enum ap_kept_text {
	AP_KEPT_OUTPUT, /* of an agent: all it printed, plain text */
	AP_KEPT_RAW,	/* of an agent: the bytes */
	AP_KEPT_CALLS,	/* of an agent: its program's tool calls, a line of JSON each */
	AP_KEPT_EVENTS, /* of the pool; `agent` is NULL */
};

/* Reads at most `size` bytes from `offset`, or from the first byte that is kept;
 * ap_request_offset() says where the text of the request begins. */
int ap_pool_read_kept(struct ap_pool *pool, struct ap_agent *agent, enum ap_kept_text what,
		      int64_t offset, size_t size, struct ap_request *request, struct ap_err *err);
int64_t ap_request_offset(const struct ap_request *request);

/* Bytes of events ever written. */
int64_t ap_pool_events_size(struct ap_pool *pool);

/* Answered when all that has happened so far is in the events. -EAGAIN: too many requests wait
 * already. */
int ap_pool_events_settle(struct ap_pool *pool, struct ap_request *request, struct ap_err *err);

/* Where the next event will be, the number of the last before it, and whether none will come. */
struct ap_events_end {
	int64_t offset, seq;
	bool over;
};
struct ap_events_end ap_pool_events_end(struct ap_pool *pool);
