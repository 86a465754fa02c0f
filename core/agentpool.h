/* The pool, as the mount sees it: with config.h, metrics.h and overview.h all of core/ that fs/
 * includes.
 *
 * Functions return 0 or a negative errno that may go to the kernel as it is, and fill a
 * caller-owned ap_err with the sentence behind it. None blocks, but for the three of the pool's
 * life and where it says so: what takes time is an ap_request, whose `done` is called once, from
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
#include "reason.h"
#include "states.h"
#include "text.h"

struct ap_pool;
struct ap_agent;   /* one agent from spawn to stop; pinned by a reference */
struct ap_request; /* something under way whose answer comes later */

/* --- the pool's life --- */

struct ap_pool_options {
	const char *repo;	 /* path of the repository */
	struct ap_config config; /* taken over by a successful ap_pool_new */
	const char *const *argv; /* the program and its arguments, NULL at the end */
	const char *mountpoint;	 /* canonical; told to agents, never touched */
	const char *shim;	 /* path of the program that starts agents */
	const char *profiles;	 /* directory of the installed program profiles */
	/* The agent of that name is gone. Called from any thread, without a lock. */
	void (*agent_gone)(void *data, const char *name);
	/* There are more events to be read, or there will be no more; or what is shown of the pool
	 * or of an agent has changed, while someone watches: once for all changes meanwhile.
	 * Likewise. NULL: nobody asks. */
	void (*changed)(void *data);
	/* Something that who mounts is to know, and that is no failure; before ap_pool_start() has
	 * returned, from its thread. NULL: nobody asks. */
	void (*tell)(void *data, const char *sentence);
	void *data;
};

/* Checks all that can be known before anything is made: configuration, repository and base, where
 * the state directory would be, the program's profile, and whether the program is there. Makes
 * nothing, starts no thread. Blocks. -EINVAL, -ENOENT, … */
int ap_pool_new(struct ap_pool **ret, struct ap_pool_options *options, struct ap_err *err);

/* Whether another daemon had the state directory that was about to end, and has ended now: what it
 * had mounted is free then. Of a new pool. Blocks, for a minute at most. */
bool ap_pool_await_end(struct ap_pool *pool);

/* The line of a .gitignore that has git pass the mount point by, and the file that it belongs into,
 * owned by the caller. False: git does not come by it, as it is ignored or in no checkout of the
 * repository; or no memory. Before there is a mount. Blocks. */
bool ap_pool_ignore_line(struct ap_pool *pool, char **ret_line, char **ret_file);

/* Takes the state directory's lock and opens its store; of a new pool. Starts no thread. Blocks,
 * for a minute too where another daemon is about to end. -EBUSY (another daemon, named in the
 * sentence), -EPROTO (the store is from a newer version), … */
int ap_pool_begin(struct ap_pool *pool, struct ap_err *err);

/* Starts the threads and tmux, goes on with the agents and leases that a daemon before has left,
 * and starts the first agents. Of a pool that has begun and is mounted; not before the process has
 * daemonized. Blocks. */
int ap_pool_start(struct ap_pool *pool, struct ap_err *err);

/* Ends in order: refuses acquirers, saves the work of leases, ends agents, removes worktrees; with
 * persist=yes agents and leases are left for the next daemon. Every outstanding request is
 * answered. Blocks until done. The number of worktrees that had to be kept because saving failed;
 * `err` names one. */
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

/* Has the request answered with -ECANCELED, unless it is answered already. What it asked for is
 * undone (an acquirer) or goes on behind it (a release). */
void ap_request_cancel(struct ap_pool *pool, struct ap_request *request);

/* To be asked in or after `done` only. The sentence is "" when nobody has said why. */
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
	const char *restore; /* of kept/: laid over the worktree before the answer; NULL: nothing */
};

struct ap_lease_key {
	unsigned agent; /* number */
	uint64_t token; /* of the lease; never used twice */
};

/* Queues an acquirer. Refused at once: -EINVAL, -EEXIST, -ENOENT, -ESRCH (no such holder),
 * -ESHUTDOWN, -EAGAIN (the queue is full). Answered later: 0, -EAGAIN, -ETIMEDOUT, -EBUSY (the
 * label's branch is checked out elsewhere), -ESHUTDOWN, -EHOSTDOWN, -ESRCH (the holder has ended
 * meanwhile), -ECANCELED. The text of a
 * granted one is `AGENT LABEL\n`. */
int ap_pool_acquire(struct ap_pool *pool, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err);

/* The lease that an acquirer's request was granted. */
struct ap_lease_key ap_request_lease(const struct ap_request *request);

/* Whether that user is root, whose daemon it is, or who is shown as the owner: they may do
 * everything. */
bool ap_pool_is_owner(const struct ap_pool *pool, uid_t uid);

/* Ends the lease of that label or agent on behalf of `uid` (its holder, an owner). Refused at once:
 * -ENOENT, -ESTALE, -EPERM. Answered with 0 when the work is safe, or -EIO when saving failed.
 * `request` may be NULL: nobody waits for the answer. */
int ap_pool_release(struct ap_pool *pool, const char *label_or_agent, bool discard, uid_t uid,
		    struct ap_request *request, struct ap_err *err);

/* The same, but answered as soon as it is written down that the lease ends. -ENOSPC, -EROFS, -EIO:
 * that failed, and it ends all the same. */
int ap_pool_begin_release(struct ap_pool *pool, const char *label, uid_t uid,
			  struct ap_request *request, struct ap_err *err);

/* -EPERM: that user may not end it. */
int ap_pool_may_release(struct ap_pool *pool, const char *label_or_agent, uid_t uid,
			struct ap_err *err);

/* Ends the lease of a handle that was closed, if it still is that lease. */
void ap_pool_release_key(struct ap_pool *pool, struct ap_lease_key key);

/* Begins the lease's time to live anew, on behalf of `uid`. -ESTALE, -ENOENT, -EPERM. */
int ap_pool_renew(struct ap_pool *pool, const char *label, uid_t uid, struct ap_err *err);

/* --- what leases left, and is kept for a while --- */

#define AP_KEPT_NAME_MAX 128 /* bytes of LABEL@TOKEN with its NUL */

/* The number of the one of that name: below 2^28, and the same as long as it is kept. */
bool ap_kept_work_find(struct ap_pool *pool, const char *name, unsigned *ret_number);

/* The one with the lowest number above `after`. False: there is none. Costs the same however many
 * there are. */
bool ap_kept_work_next(struct ap_pool *pool, unsigned after, unsigned *ret_number,
		       char ret_name[AP_KEPT_NAME_MAX]);

/* Appends what is known of it, key value a line; how many bytes it takes, or nothing while that is
 * not counted; where its files are. -ENOENT: it has gone. */
enum ap_kept_work_text {
	AP_KEPT_WORK_INFO,
	AP_KEPT_WORK_SIZE,
	AP_KEPT_WORK_FILES,
};
int ap_kept_work_show(struct ap_pool *pool, unsigned number, enum ap_kept_work_text what,
		      struct ap_buf *out);

/* Acquires, but that the lease begins at what the kept one was saved as, or began at where nothing
 * was saved, and that all that was kept is laid over its worktree before the answer. `base` does
 * not count. Refused at once: also -ENOENT (there is none of that name) and -ENODATA (what it began
 * at is not known). Answered later: also -EIO and -ENOSPC: it could not be laid. */
int ap_pool_restore(struct ap_pool *pool, const char *name, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err);

/* --- the pool as a whole --- */

/* Sets the size, -1: automatic, and is answered when that is written down. -ERANGE. */
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

/* Sets an option, and is answered when that is written down: -ENOSPC, -EROFS, -EIO where it cannot
 * be, and is taken back; or only says whether it would be taken. */
int ap_pool_config_set(struct ap_pool *pool, enum ap_option option, const char *text,
		       struct ap_request *request, struct ap_err *err);
int ap_pool_config_try(struct ap_pool *pool, enum ap_option option, const char *text,
		       struct ap_err *err);
void ap_pool_config_show(struct ap_pool *pool, enum ap_option option, struct ap_buf *out);
int64_t ap_pool_config_number(struct ap_pool *pool, enum ap_option option);

struct ap_stats {
	unsigned n_active, n_idle, n_total, n_spawning, n_waiting, utilization; /* percent */
	uint64_t n_requests, n_recycles, n_spawned, n_terminated;
	int64_t scaled_ns, uptime_ns; /* last scale step, 0: none; since start */
	enum ap_scale_direction scale_direction;
	bool closed;
	int target;	    /* manual size, -1: automatic */
	unsigned n_desired; /* the size that there should be */
	const char *breaker, *spawn_backend, *cgroup;
	unsigned n_templates;
	unsigned n_kept;     /* leases of which what they left is kept */
	uint64_t kept_bytes; /* what of that is counted takes */
	unsigned n_stuck;    /* things that are garbage and cannot be removed */
	const char *git;     /* what reads and writes the repository: libgit2 or program */
};

void ap_pool_stats(struct ap_pool *pool, struct ap_stats *ret);

/* One more, or one less, is to be told by `changed` when something that is shown has changed: what
 * a look before this call, or at the same time, may have missed. What time alone changes is not
 * told. */
void ap_pool_watch(struct ap_pool *pool, bool watch);

/* How often something that is shown has changed: while this is the same, only what passes with time
 * is another, and usage and screens until they are looked at again. */
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
	/* of its lease, or of the one whose work it is set aside with; "": it has none */
	char label[AP_LABEL_MAX + 1], base[65], branch[AP_LABEL_MAX + 16];
	const char *worktree; /* absolute; as long as the reference */
	uid_t owner_uid;
	pid_t owner_pid, pid; /* holder; the program, 0 when it has ended */
	uint64_t token;	      /* of its lease; 0: not leased */
	int64_t created_ns, granted_ns, expires_ns, idle_since_ns; /* 0: not so */
	unsigned n_requests, n_recycles, generation;
	uint64_t n_prompts;
	int64_t output_size; /* bytes of plain text printed so far */
	int64_t raw_size;    /* bytes printed so far */
	char exit_how[64];   /* of the last program that has ended, such as "code 0"; "" */
	int64_t exit_time;   /* when: seconds of the wall clock; 0: not known */
};

/* One consistent look. False when the agent is gone. */
bool ap_agent_look(struct ap_pool *pool, struct ap_agent *agent, struct ap_agent_info *ret);

/* Appends how its program last ended, and when: "code 0 2026-11-24T10:00:00Z"; nothing: it has not.
 */
void ap_agent_exit_status(const struct ap_agent_info *agent, struct ap_buf *out);

/* What is asked of an agent on behalf of a lease names its token: -ESTALE when the lease has ended
 * meanwhile. Token 0 is whatever lease it has, or none. */

/* A prompt of up to `len` bytes is being written. 0: it counts the agent busy until it is taken or
 * given up. -EIO (the program has ended), -EAGAIN (queue full), -EMSGSIZE, -EDQUOT, -ESTALE,
 * -ENODEV. */
int ap_agent_prompt_begin(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			  struct ap_err *err);

/* It is `len` bytes longer. -EAGAIN: with what is queued, and what else is being written, it would
 * be more than one agent takes. */
int ap_agent_prompt_grow(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len,
			 struct ap_err *err);

/* It is taken or given up, with the `len` bytes that it has grown by. */
void ap_agent_prompt_end(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len);

/* Takes a prompt to be submitted as one message when the program is ready for it. The agent is busy
 * from now on. Errors as above, and -ENOMEM. */
int ap_agent_prompt(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *text,
		    size_t len, struct ap_err *err);

/* Has keys typed, in tmux's names, separated by blanks; at once, whatever prompts wait.
 * -EINVAL, -EIO (the program has ended), -EAGAIN (too many wait), -ESTALE, -ENODEV. */
int ap_agent_keys(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *keys,
		  struct ap_err *err);

/* Commands: end it (its work is saved); recycle it, at once or when its lease ends; start its
 * program anew in the same worktree. -ESTALE, -EBUSY, -ENODEV. */
int ap_agent_kill(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, struct ap_err *err);
int ap_agent_recycle(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err);
int ap_agent_restart(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err);

/* Stops the program and all that it started, or has them go on. A paused agent is busy, and takes
 * no prompt until it goes on. -EIO, -ESTALE, -EBUSY, -ENODEV. */
int ap_agent_pause(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, bool pause,
		   struct ap_err *err);

/* Has the program forget what was said, by its own command; in order with the prompts before it.
 * -EOPNOTSUPP: its profile knows none; else as ap_agent_prompt(). */
int ap_agent_reset(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		   struct ap_err *err);

/* Commits all that has changed in the worktree of its lease, untracked files included and ignored
 * ones not, to the lease's branch, and is answered then. Waits for what is being done to the agent,
 * not for prompts in its queue. -ENODATA: nothing has changed. -EBUSY: it is on another branch, or
 * being made. -EIO: git's own complaint. -EAGAIN (too many wait), -ESTALE, -ENOENT (no lease),
 * -ECANCELED, -ENODEV. */
int ap_agent_commit(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		    const char *message, struct ap_request *request, struct ap_err *err);

/* What the program says of itself, by a hook: starting, ready, busy or waiting. -EINVAL, -EBUSY,
 * -ENODEV. */
int ap_agent_activity_set(struct ap_pool *pool, struct ap_agent *agent, const char *text,
			  struct ap_err *err);

/* Its last AP_TRANSITIONS changes of state, oldest first, a line each: time, from, to, reason.
 * False when the agent is gone. */
#define AP_TRANSITIONS 64
bool ap_agent_transitions(struct ap_pool *pool, struct ap_agent *agent, struct ap_buf *out);

/* What is read of an agent and takes time; the text comes with the request. */
enum ap_agent_text {
	AP_TEXT_SCREEN, /* what is on the terminal */
	AP_TEXT_DIFF,	/* worktree against base, untracked files included */
	AP_TEXT_DIFFSTAT,
	AP_TEXT_CHANGES,
	AP_TEXT_HEAD,	/* the worktree's commit */
	AP_TEXT_MEMORY, /* of its process tree: bytes */
	AP_TEXT_CPU,	/* percent of one CPU, averaged over a minute */
	AP_TEXT_TASKS,	/* processes */
};
int ap_agent_text(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_text what,
		  struct ap_request *request, struct ap_err *err);

/* What is waited for: until the program is ready, waiting or exited. */
enum ap_agent_wait {
	AP_WAIT_ACTIVITY, /* which of them it is */
	AP_WAIT_RESPONSE, /* what was printed since the last prompt */
};

/* Waits, and brings the text. -EIO: the last prompt was not delivered. With `nonblock`, -EAGAIN
 * where it would have to wait for the program. */
int ap_agent_wait(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_wait what,
		  bool nonblock, struct ap_request *request, struct ap_err *err);

/* Whether it would not have to. */
bool ap_agent_has_settled(struct ap_pool *pool, struct ap_agent *agent);

/* Texts that grow, and of which the last part is kept. */
enum ap_kept_text {
	AP_KEPT_OUTPUT, /* of an agent: all it printed, plain text */
	AP_KEPT_RAW,	/* of an agent: the bytes */
	AP_KEPT_EVENTS, /* of the pool; `agent` is NULL */
};

/* Reads at most `size` bytes from `offset`, or from the first byte that is kept;
 * ap_request_offset() says where the text of the request begins. */
int ap_pool_read_kept(struct ap_pool *pool, struct ap_agent *agent, enum ap_kept_text what,
		      int64_t offset, size_t size, struct ap_request *request, struct ap_err *err);
int64_t ap_request_offset(const struct ap_request *request);

/* Bytes of events ever written. */
int64_t ap_pool_events_size(struct ap_pool *pool);

/* Answered when all that has happened so far is in the events. -EAGAIN: too much is asked already.
 */
int ap_pool_events_settle(struct ap_pool *pool, struct ap_request *request, struct ap_err *err);

/* Where the next event will be, the number of the last before it, and whether none will come. */
struct ap_events_end {
	int64_t offset, seq;
	bool over;
};
struct ap_events_end ap_pool_events_end(struct ap_pool *pool);
