/* Shared by the files of the pool. Not for fs/.
 *
 * Locks, in the order in which they are taken: pool->lock, those of sessions (session.h), then the
 * worker pools' own and the loop's. The backend's locks are leaves: a thread that takes one holds
 * none of these. The lock of kept_work is a leaf, too, but a thread that takes it may hold them; so
 * is usage_lock, whose holder may take the store's.
 * Under pool->lock: no I/O, no callback, nothing that sleeps. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "agentpool.h"
#include "clock.h"
#include "events.h"
#include "history.h"
#include "kept.h"
#include "kept_work.h"
#include "loop.h"
#include "machine.h"
#include "metrics.h"
#include "session.h"
#include "spawn_backend.h"
#include "store.h"
#include "worker.h"
#include "worktree.h"

#define POOL_N_WORKERS	  6
#define POOL_N_ENDERS	  26	      /* workers at the end: they mostly wait */
#define POOL_WAITERS_MAX  10000	      /* acquirers in the queue */
#define POOL_WAITERS_USER 1000	      /* acquirers of one user, neither root nor the owner */
#define POOL_COMMITS_MAX  64	      /* commits of one agent that wait or are being made */
#define POOL_ASKED_MAX	  16384	      /* texts and commands that workers have not answered yet */
#define POOL_WORKTREES	  "worktrees" /* directories in the state directory */
#define POOL_LAYERS	  "layers"
#define POOL_INSIDE	  "inside" /* what inside.c keeps */
#define POOL_AGENTS	  "agents"

/* The last changes of an agent's state, in a ring. */
struct transition {
	int64_t at_ns;
	uint8_t from, to, reason; /* enum ap_agent_state, enum ap_reason */
};

/* Lease data that the event log still needs after the machine has cleared the slot. */
struct noted_lease {
	unsigned number; /* of its agent */
	char label[AP_LABEL_MAX + 1];
	int64_t granted_ns, waited_ns; /* when, after how long; granted_ns 0: not granted */
};

struct ap_request {
	struct machine_request machine; /* of an acquirer or a releaser */
	ap_request_done *done;
	void *data;
	atomic_int n_refs;    /* the caller's, and the pool's while it is submitted */
	atomic_bool answered; /* whoever sets it calls done */
	bool in_machine : 1;  /* the machine answers it */
	bool has_restore : 1; /* behind base's NUL: the name of the kept work to restore */
	bool wants_response : 1; /* once the agent has settled */
	int16_t permission;	 /* of an acquirer: a policy; -1: the configuration's */
	char *why;	      /* the sentence for the result, owned; NULL: none */
	struct ap_buf text;   /* the answer; the thread that calls done writes it before */
	char *base;	      /* of an acquirer, owned; NULL: the configuration's */
	unsigned granted;     /* number of the agent that an acquirer got */
	/* of an acquirer: the process that the lease ends with, 0: none; and its start by
	 * process_start_time(): a waiting request needs no descriptor */
	pid_t holder;
	uint64_t holder_start;
	struct ap_agent *agent; /* that the request waits for, with a reference; NULL: none */
	/* the wait for that agent; ap_pool_look() uses only the link, in pool->lookers, guarded by
	 * pool->lock */
	struct session_wait settles;
	int64_t asked_ns; /* of an acquirer or of ap_pool_look(): when */
	union {
		int64_t offset; /* of a reader: where the piece of a kept text begins */
		int64_t budget; /* of an acquirer; -1: the configuration's */
	};
};

struct ap_agent {
	struct ap_pool *pool;
	struct session *session; /* has the reference count of both, and the lane */
	unsigned number, slot;
	char name[32];
	char *dir; /* its directory in the state directory */
	char *worktree_path;

	/* only what runs in the lane touches these */
	struct machine_effect effect; /* the one being carried out */
	struct worktree worktree;
	struct worktree_lease lease;
	uint64_t token;	    /* of the last lease that a validation began for */
	bool lease_open;    /* the worktree is on the lease's branch, its work not saved yet */
	bool lease_held;    /* the store has recorded the grant of that lease */
	int64_t granted_ns; /* when the store recorded the last grant */
	bool has_served; /* a lease was granted since the program was started in a new worktree */
	bool dir_made;	    /* this agent made `dir`: its stop removes it */
	char prompted_label[AP_LABEL_MAX + 1]; /* of the lease whose prompt is being given */
	atomic_bool saving;		       /* a save is under way; these three: any thread */
	atomic_uint_least64_t saved_files, saved_bytes; /* progress of the save */

	/* guarded by pool->lock */
	struct worker_job effect_job;	   /* queued or running; at most one is queued */
	struct machine_effect next_effect; /* what effect_job carries out when it runs next */
	bool effect_queued;		   /* effect_job is queued */
	struct worker_job probe_job;
	uint32_t probe; /* id of the probe under way; 0: none */
	struct transition transitions[AP_TRANSITIONS];
	unsigned n_transitions; /* ever */
	int holder_fd; /* pidfd of the process that the lease ends with, from the validation on;
			* -1: none */
	struct loop_source holder_ends; /* watches holder_fd, once the lease is granted */
	bool gone;			/* its slot has been given up */
	/* copies of `lease` and `worktree` for readers outside of the lane: the base of a granted
	 * lease; the commit that the pool last put the worktree at, "" while a lease has it */
	char base[GIT_OID_MAX + 1], commit[GIT_OID_MAX + 1];
	unsigned port, n_ports; /* for its own use, the first and how many; 0: none */
	int permission;		/* of its lease: a policy; -1: the configuration's */
	int64_t budget;		/* likewise */
	uint8_t spent;		/* of that: SPENT_…; what was told of */
	uint64_t broken_off;	/* the last prompt when a turn was broken off for it; 0: none was */
	uint64_t n_prompts;	/* of its lease */
	uint64_t n_prompts_shown; /* of these, those that the store has */
	uint64_t prompt_seq;	/* of its last prompt */
	unsigned n_commits;	/* that wait or are being made */
	char conversation[SESSION_CONVERSATION_MAX]; /* recorded for its lease; "": none */
	bool converses;		/* in its lease something was said in the conversation */
	atomic_bool forwarding; /* job_forward() is queued */
	atomic_bool following;	/* job_follow() is queued */
	/* the usage limit that its program itself has reached: when it counts as over, of the wall
	 * clock; and when it says so. 0: none; unknown */
	int64_t limit_ends_ns, limit_until_s;
	const char *shown;    /* the screen that overview.c captured last, shared; NULL: none yet */
	const char *asked;    /* likewise what it asks, as its file `request` has it; "": nothing */
	int64_t shown_size;   /* of the raw output at that capture */
	unsigned shown_start; /* session_info.start at that capture */

	struct ap_account account; /* usage_lock; so is the next */
	uint64_t account_token;	   /* of the lease that it is of; 0: none */
	atomic_bool reported;	   /* its program has reported, and budgets.c has not looked */
};

/* How much of a budget is used. */
enum { SPENT_LITTLE, SPENT_MOST, SPENT_ALL };

struct ap_pool {
	struct repo repo;
	const char *const *argv;
	struct profile *profile;      /* of the program */
	struct session_host sessions; /* shared by all sessions */
	struct session_wall wall;     /* sessions.wall, if they have one */
	char *worktrees;	      /* the directory of all worktrees */
	struct events *events;
	char *mountpoint, *shim, *state_dir;
	void (*agent_gone)(void *data, const char *name);
	void (*changed)(void *data);
	void (*tell)(void *data, const char *sentence);
	void *observer;
	atomic_uint n_watching; /* watchers of changes that are no events */
	_Atomic uint64_t n_changes;
	uid_t owner, shown_owner; /* the daemon's user; that of -o uid=, else the same */
	int lock_fd;		  /* the state directory's lock */
	bool locked;		  /* this daemon holds that lock */
	struct ap_config mounted; /* the configuration of the command line */
	struct store *store;
	bool kept;	   /* agents and leases stay for the next daemon */
	int helpers_fd;	   /* every running helper holds a lock on it */
	bool helpers_gone; /* no helper of an earlier daemon runs any more */
	bool store_lost;   /* the store was damaged, and is empty now */
	struct backend *backend;
	struct worker_pool *workers;
	struct templates *templates;
	struct kept_work *kept_work;
	struct worker_once tidy;  /* removes garbage, prepares the next worktree */
	struct worker_once budgets; /* looks what is used of them; from the start on */
	struct worker_once bound; /* passes max_memory on to the backend */
	struct worker_job revive_job;
	/* three threads: one refreshes screens and usage, one answers the requests that wait for
	 * the refresh (both overview.c), one notifies the observer */
	struct worker_pool *looking;
	struct worker_once notify; /* tells the observer that something shown has changed */
	struct worker_job look_job, answer_job;
	int64_t silent_until_ns; /* look_job only: it asks the backend for no screen before */
	int64_t usage_due_ns;	 /* look_job only: it reads no usage before */
	unsigned usage_from;	 /* look_job only: the slot whose usage it reads first */
	int64_t started_ns;
	struct spawn_inside inside; /* where worktrees can be mounted */
	/* inside: the process that keeps them mounted, and through which others see them; else 0.
	 * The directory of worktrees there, and that of links to them outside */
	pid_t shown_by;
	int keeper_fd, inside_fd, outside_fd;

	pthread_mutex_t usage_lock; /* a leaf, but for the store's; guards what follows */
	struct ap_usage used, used_today;
	int64_t day; /* that is: since 1970, UTC */

	pthread_mutex_t lock;	/* guards what follows */
	uint8_t spent;		/* of pool_budget: SPENT_…; what was told of */
	pthread_cond_t emptied; /* pool_is_over_locked() has become true */
	struct ap_config config;
	unsigned serials[AP_N_OPTIONS];	 /* how often each was set while the pool ran */
	struct machine *machine;	 /* only pool_step_locked() steps it */
	const struct machine_view *view; /* of the machine */
	struct machine_effects effects;	 /* of the step under way */
	struct ap_list answered;	 /* machine requests, until pool_unlock() */
	struct counters counters;
	struct history history;
	struct ap_agent **agents;  /* by slot; NULL: free */
	struct noted_lease *noted; /* by slot */
	struct ap_err spawn_error; /* why the last spawn failed */
	int64_t spawn_error_ns;
	struct ap_err quarantine_error; /* where work lies that could not be saved */
	unsigned n_quarantined;
	struct ap_list lookers; /* requests that answer_job answers */
	/* likewise a limit of all, while the profile says that one agent's limit is everyone's */
	int64_t limit_ends_ns, limit_until_s;
	bool looks, answers;	/* look_job, answer_job is queued or runs */
	int64_t look_due_ns;	/* no new refresh begins before */
	pthread_cond_t looked;	/* a refresh has ended */

	struct loop *loop;
	struct loop_source machine_due;	 /* the machine's next deadline */
	struct loop_source backend_says; /* the backend has an answer, or has gone */
	struct loop_source day_ends;	 /* what was used of pool_budget does not count any more */
	struct loop_source revive_due;	 /* time for the next attempt to revive the backend */
	bool reviving;			 /* an attempt to revive it is under way; pool->lock */
	atomic_uint n_asked;		 /* jobs with a request */
	atomic_uint names_kept;		 /* the store has agent numbers below this as spent */
};

/* --- inside.c --- */

/* Chooses how worktrees are made, and whether the daemon goes inside for it; for a pool whose
 * mount point has nothing of ours. Starts processes; before any thread. */
int inside_choose(struct ap_pool *pool, struct ap_err *err);

/* The end of ap_pool_go_inside(), and of all that it has made unless agents stay there. */
void inside_leave(struct ap_pool *pool);

/* Ends what a daemon that is dead has left in that state directory to keep its worktrees mounted.
 */
void inside_end_left(const char *state_dir);

/* Makes the path of an agent's worktree lead there for those outside, too, if it does not; ends
 * that. Nothing if the daemon is not inside. */
int inside_show(struct ap_pool *pool, const char *name, struct ap_err *err);
void inside_hide(struct ap_pool *pool, const char *name);

/* --- pool.c --- */

/* Steps the machine and begins its effects. Takes the lock. */
int pool_step(struct ap_pool *pool, const struct machine_event *event);

/* The same for a caller that holds the lock, and drops it with pool_unlock(). */
int pool_step_locked(struct ap_pool *pool, const struct machine_event *event);

/* Drops the lock, then answers the requests that steps have answered under it. */
void pool_unlock(struct ap_pool *pool);

/* Continues the machine's numbers where an earlier daemon stopped. Takes the lock. */
void pool_restore(struct ap_pool *pool, const struct machine_restored *restored);

/* Steps one event about the agent's slot. Takes the lock. -ENODEV: it is gone. */
int pool_step_agent(struct ap_agent *agent, struct machine_event event);

/* The sentence for an acquirer's -EDQUOT. */
extern const char pool_is_spent[];

/* The result of a step, with its sentence where it was refused. */
int pool_refused(int result, struct ap_err *err);

/* Reports that something shown of the pool or an agent has changed, or is about to change under the
 * pool's lock. Any thread, any lock; costs nothing when nobody watches. */
void pool_changed(struct ap_pool *pool);

/* Tells the user who mounts something that is no failure. Before the pool is started. */
void pool_tell(struct ap_pool *pool, const char *sentence);

/* Records where work lies that could not be saved; the unmount reports the last one. With `is_kept`
 * it also counts: the worktree stays when the daemon ends. Takes the lock. */
void pool_note_unsaved(struct ap_pool *pool, const struct ap_err *err, bool is_kept);

/* Whether the end of the pool has nothing more to wait for. */
bool pool_is_over_locked(const struct ap_pool *pool);

/* Records why the last spawn failed. Takes the lock. */
void pool_note_spawn_error(struct ap_pool *pool, const struct ap_err *err);

/* Logs an event: an option has its present value. */
void pool_note_config_locked(struct ap_pool *pool, enum ap_option option);

/* Restores the size that the user asked for, as near as the limits allow; -1: none. */
void pool_set_target_locked(struct ap_pool *pool, int target);

/* Passes the configuration on to the machine and the sessions. */
void pool_obey_config_locked(struct ap_pool *pool);
struct machine_limits pool_limits(struct ap_pool *pool);
void pool_bound_sessions_locked(struct ap_pool *pool);

/* Attaches a sentence to a request that the machine will answer; the last one wins. pool->lock
 * held.
 */
void request_explain_locked(struct ap_request *request, const struct ap_err *err);

/* Answers a request that is not in the machine: calls `done` unless it was answered before. `err`
 * says why it failed, or is NULL. Drops the pool's reference. */
void request_answer(struct ap_request *request, int result, const struct ap_err *err);

/* The number of a name such as agent-7; 0 if it is none. */
unsigned agent_number(const char *name);

/* --- wall.c --- */

/* Tries the sandbox, if the options want one, and gives it to the sessions. Before the pool makes
 * anything; needs repository and state directory chosen. Blocks for some milliseconds. -EINVAL,
 * -ENOENT, -EPERM: the sentence says what is missing. */
int wall_begin(struct ap_pool *pool, struct ap_err *err);
void wall_end(struct ap_pool *pool);

/* Whether the program that runs of the agent with that directory was started without the sandbox
 * that the options want. */
bool wall_lacks(const struct ap_pool *pool, const char *agent_dir);

/* What is in force: "no", "yes", "yes, no network". */
const char *wall_word(const struct ap_pool *pool);

/* --- observe.c: pool->lock held --- */

/* What observe_step_locked() compares before and after a step. */
struct step_before {
	enum breaker_state breaker;
	unsigned n_live;
	int64_t scaled_ns;
	int target;
};
struct step_before observe_before_locked(const struct ap_pool *pool);

/* Counts the time up to now for the states as they are. Before every step. */
void observe_time_locked(struct ap_pool *pool, int64_t now_ns);

/* Counts an event that was stepped, by its result. */
void observe_event_locked(struct ap_pool *pool, const struct machine_event *event, int result);

/* Counts an answer of the machine. Before the moves of the same step. */
void observe_answer_locked(struct ap_pool *pool, const struct ap_request *request, int64_t now_ns);

/* Counts and logs what the last step changed. */
void observe_step_locked(struct ap_pool *pool, const struct step_before *before, int64_t now_ns);

/* Records whether acquirers wait while the pool is at max_pool_size. After every step. */
void observe_queue_locked(struct ap_pool *pool);

/* A consistent snapshot of the counts. */
struct ap_metrics metrics_of_locked(struct ap_pool *pool, const struct templates_stats *templates,
				    int64_t now_ns);

/* --- config.c --- */

/* The option's text as it is now, owned by the caller. NULL on ENOMEM. */
char *config_text(struct ap_pool *pool, enum ap_option option);

/* --- program.c --- */

/* Whether agents can run the pool's program. -ENOENT, -EACCES, or what stat(2) says. Blocks. */
int program_check(const struct ap_pool *pool, struct ap_err *err);

/* --- state_dir.c --- */

#define STATE_MOUNT	 "mount"      /* in it: where the pool is mounted, once it is */
#define STATE_REPOSITORY "repository" /* in it: the main checkout of the repository */

/* The directory that has the state directories of all repositories, by the XDG base directory
 * specification and the user's environment. The caller owns the path. -ENOENT: there is no home. */
int state_dir_parent(char **ret, struct ap_err *err);

/* For those who are no daemon: who has the state directory (0: nobody; -1: a process of another pid
 * namespace), and taking it, until the process ends or looks who has it. -EBUSY. */
pid_t state_dir_holder(const char *dir);
int state_dir_seize(const char *dir, struct ap_err *err);

/* Removes the links of state directories that are gone. */
void state_dir_forget_links(void);

/* Sets pool->state_dir, a canonical path, by the options and pool->repo; makes nothing. -EINVAL:
 * the directory cannot be there (in the mount point, round it, or in a checkout of the repository);
 * -ENOTEMPTY: it exists and is no state directory; -ENAMETOOLONG, … Blocks. */
int state_dir_choose(struct ap_pool *pool, struct ap_err *err);

/* Waits for a daemon that is about to end, a minute at most. True: there was such a daemon, and it
 * has ended. Makes nothing. Blocks. */
bool state_dir_await_end(struct ap_pool *pool);

/* Record where the pool is mounted, and that it begins to end: a daemon that starts meanwhile waits
 * for the end. */
void state_dir_mounted(struct ap_pool *pool);
void state_dir_leave(struct ap_pool *pool);

/* Makes and locks the directory and opens the store; renames a damaged store first, and sets
 * pool->store_lost. Waits for a daemon that is about to end, a minute at most. -EBUSY: another
 * daemon has the directory; the sentence names its pid. Blocks.
 * state_dir_close() undoes what state_dir_open() has done, and removes empty subdirectories. The
 * lock stays until the process ends. */
int state_dir_open(struct ap_pool *pool, struct ap_err *err);
void state_dir_close(struct ap_pool *pool);

/* Waits until the helpers of a dead daemon, such as git, have ended, a minute at most, and marks
 * this daemon's helpers for the next one. Sets pool->helpers_gone if they have ended. Before the
 * threads. Blocks. */
int state_dir_await_helpers(struct ap_pool *pool, struct ap_err *err);

/* "STATE_DIR/SUBDIR/NAME", owned by the caller; NULL on ENOMEM. */
static inline char *state_dir_path(const struct ap_pool *pool, const char *subdir, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s/%s", pool->state_dir, subdir, name) < 0 ? NULL : path;
}

/* Stores a setting as it is now; `done` as in store_submit(). Takes the lock. */
void state_dir_keep_option(struct ap_pool *pool, enum ap_option option, store_done *done,
			   void *data);
void state_dir_keep_scale(struct ap_pool *pool, store_done *done, void *data);

/* Returns when every record queued so far is on the disk. Blocks. */
int state_dir_save(struct ap_pool *pool, struct ap_err *err);

/* Gives back the names that were reserved in advance. No agent is left, and none will be made. */
int state_dir_save_next_agent(struct ap_pool *pool, struct ap_err *err);

/* Applies the stored settings, all or none: -ERANGE when they do not fit each other. At start the
 * command line's settings win, and stored ones that do not fit them are left out and reported.
 * Takes the lock. Blocks. */
int state_dir_load(struct ap_pool *pool, bool at_start, struct ap_err *err);

/* Continues the machine's counters and numbers where the store's end. */
void state_dir_load_counters(struct ap_pool *pool);

/* --- lease_record.c --- */

struct lease_record {
	struct worktree_lease lease;
	unsigned generation;
	uint64_t token;
	char *admin_dir; /* owned */
};

/* Write and remove what a next daemon needs to save an agent's lease when the store is lost,
 * whatever the agent did to its worktree. Lane. */
int lease_record_write(const struct ap_agent *agent, struct ap_err *err);
void lease_record_remove(const struct ap_agent *agent);

/* 1, or 0: there is no record, the agent was not leased. -EBADMSG: the record is damaged or not
 * whole; -ENOMEM. */
int lease_record_read(const char *agent_dir, struct lease_record *ret);

/* The message of the commit that saves a lease's work. */
void lease_message(const char *label, const char *name, unsigned generation, struct ap_buf *ret);

/* --- recovery.c --- */

/* Continues with what a dead daemon left: adopts agents that live and their leases; undoes what was
 * half done; saves the work of what the store does not know, and removes it. Keeps and counts what
 * it cannot save. Needs the threads. Blocks. */
int pool_recover(struct ap_pool *pool, struct ap_err *err);

/* --- agent.c --- */

/* Makes an agent and puts it into the pool's table. NULL on ENOMEM. */
struct ap_agent *agent_new_locked(struct ap_pool *pool, unsigned slot, unsigned number);
void agent_ref(struct ap_agent *agent);
unsigned agent_generation(const struct ap_agent *agent);

/* Fills in what users see of an agent, with the session's part from `info`. False: it is gone. */
bool agent_info_locked(const struct ap_agent *agent, const struct session_info *info,
		       struct ap_agent_info *ret);

/* Tells its session which questions are answered by rule: none without a lease. True: they are
 * others than before. */
bool agent_permit_locked(const struct ap_agent *agent);

/* Takes an agent out of the table and answers those who wait for it. */
void agent_leave(struct ap_agent *agent);

/* Closes the agent's session and stops the loop from watching for the agent, before the pool drops
 * it. Returns when no callback of it runs: do not call it with the lock held. */
void agent_close(struct ap_agent *agent);

/* Steps the machine by a limit that an earlier daemon has seen. Takes the lock. */
void agent_adopt_limit(struct ap_agent *agent);

/* Stops watching the process that the lease ends with. pool->lock held. */
void agent_forget_holder_locked(struct ap_agent *agent);

/* --- conversations.c --- */

/* Something is said in the conversation that the agent's program is in: records it for the lease,
 * if there is one. */
void conversation_note_locked(struct ap_agent *agent);

/* The program is in another conversation, or ("") forgets the one that it is in. Takes the lock;
 * blocks as the store does. */
void conversation_changed(struct ap_agent *agent, const char *id);

/* --- spending.c --- */

/* Initialize; spending_open() continues with the store's counts. */
void spending_init(struct ap_pool *pool);
void spending_open(struct ap_pool *pool);
void spending_init_agent(struct ap_agent *agent);

/* An agent is adopted with that lease, or another lease begins: `budget` -1 is the
 * configuration's. */
void spending_adopt(struct ap_agent *agent, const struct store_lease *lease);
void spending_begin_lease_locked(struct ap_agent *agent, uint64_t token, int64_t budget);

/* Counts a report of its program. Takes leaf locks alone; what follows from it a worker does. */
void spending_report(struct ap_agent *agent, const struct ap_usage_report *report);

/* -EDQUOT: the lease's budget is used up. */
int spending_refused_locked(struct ap_agent *agent, struct ap_err *err);

/* Whether the day's budget of the pool is used up. */
bool spending_is_over_locked(struct ap_pool *pool);

/* What is used, and how much of the budget of its lease, or of the pool's today, that is: in
 * percent. */
unsigned spending_percent_locked(struct ap_agent *agent, struct ap_usage *ret_used);
unsigned spending_day_percent_locked(struct ap_pool *pool, struct ap_usage *ret_used);
uint8_t spending_level(unsigned percent); /* SPENT_… */

/* What was used: in the lease and since the agent was made; by the pool since it began; and by the
 * lease, as one line. */
void spending_look_locked(const struct ap_agent *agent, struct ap_usage *ret_lease,
			  struct ap_usage *ret_life);
struct ap_usage spending_of_pool(struct ap_pool *pool);
void spending_line(struct ap_agent *agent, char *ret, size_t size);

/* The budget of its lease, or of one that begins now. */
int64_t spending_budget_locked(const struct ap_agent *agent);

/* --- budgets.c --- */

/* Watches them from now on: needs the loop and the workers. -ENOMEM. */
int budgets_init(struct ap_pool *pool);

/* --- commands.c --- */

/* Logs an event: the program's question has an answer, of that user, or by a rule; "": by none. */
void note_answer(struct ap_agent *agent, uid_t uid, const struct question *asked,
		 const struct question_option *option, const char *rule);

/* Queues a prompt of the pool's own ahead of all others. -errno. Takes the lock. */
int prompt_first(struct ap_agent *agent, uint64_t token, const char *text);

/* The program has not gone on with the conversation: starts it anew. Takes no lock. */
void conversation_failed(struct ap_agent *agent, const char *id);

/* --- limits.c: pool->lock held --- */

/* A limit of all is the new agent's, too. */
void limit_new_agent_locked(struct ap_agent *agent);

/* Takes note of the agent's limit, and tells the other sessions of one of all. `lifted`: the limit
 * is over before its time. Returns the event for the machine. */
struct machine_event limit_take_locked(struct ap_agent *agent, const struct limit *limit,
				       bool lifted);

/* Logs an event; `until_s` 0: unknown. */
void limit_note_locked(const struct ap_agent *agent, const char *what, int64_t until_s);

/* Whether the program is to be given its profile's word, now that the limit is over. */
bool limit_goes_on_locked(const struct ap_agent *agent, const struct limit *limit);

/* --- jobs.c --- */

/* Queues an effect of the machine for a worker. pool->lock held. */
void job_effect_locked(struct ap_agent *agent, const struct machine_effect *effect);

/* Queues a check of the agent's health and usage, unless one is under way. pool->lock held. */
void job_probe_locked(struct ap_agent *agent, uint32_t id);

/* After a turn of the agent: queues a job that moves the branch of its lease, in the repository, to
 * where the agent's own commits are. */
void job_follow_soon(struct ap_agent *agent);

/* Initializes the pool's own jobs. */
void jobs_init(struct ap_pool *pool);

/* --- keeping.c --- */

/* Opens kept/ of a pool that has its state directory. The next lease's token must be at least
 * `ret_next_token`. Blocks. */
int keeping_open(struct ap_pool *pool, uint64_t *ret_next_token, struct ap_err *err);

/* Whether keep_work is on. */
bool keeping_is_on(struct ap_pool *pool);

/* Fills in what is known of a lease at its end, before its worktree is touched; all but `commit`.
 */
void keeping_info(struct ap_pool *pool, const struct worktree *worktree,
		  const struct worktree_lease *lease, uint64_t token, enum ap_reason reason,
		  struct kept_info *ret);

/* Moves what a lease left to kept/, and logs an event. As worktree_keep(). */
int keeping_keep(struct ap_pool *pool, struct worktree *worktree, const struct kept_info *info,
		 bool in_place, struct ap_err *err);

/* --- watch.c --- */

/* Makes the loop, with what the pool itself waits for: the machine's deadlines, and the backend. */
int watch_init(struct ap_pool *pool, struct ap_err *err);

/* Watches a backend that was started, or started again. -errno. */
int watch_backend(struct ap_pool *pool, struct ap_err *err);

/* Reconnects to the backend after its connection broke, or starts it again. Blocks. */
int pool_revive_backend(struct ap_pool *pool, struct ap_err *err);
