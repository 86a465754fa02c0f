/* What the files of the pool share. Not for fs/.
 *
 * Locks, in the order in which they are taken: agent->typing, under which things take their time;
 * pool->lock, then the worker pools' own and the loop's. agent->output_lock and the backend's are
 * leaves, taken with neither of these two held; that of kept_work is one too, but may be. Under
 * pool->lock: no I/O, no callback, nothing that sleeps. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "activity.h"
#include "agentpool.h"
#include "backend.h"
#include "clock.h"
#include "events.h"
#include "history.h"
#include "kept.h"
#include "kept_work.h"
#include "list.h"
#include "loop.h"
#include "machine.h"
#include "metrics.h"
#include "process_tree.h"
#include "profile.h"
#include "store.h"
#include "worker.h"
#include "worktree.h"

#define POOL_N_WORKERS	  6
#define POOL_N_ENDERS	  26	      /* more of them at the end, which mostly wait */
#define POOL_WAITERS_MAX  10000	      /* acquirers in the queue */
#define POOL_WAITERS_USER 1000	      /* of them of one user who is neither root nor the owner */
#define POOL_PROMPTS_MAX  64	      /* prompts of one agent, queued or being written */
#define POOL_PROMPT_BYTES (8 << 20)   /* of them, together; or max_prompt, where that is more */
#define POOL_KEYS_MAX	  256	      /* lines of keys of one agent that are not typed yet */
#define POOL_KEYS_BYTES	  (64 << 10)  /* of them, together */
#define POOL_COMMITS_MAX  64	      /* commits of one agent that are not made yet */
#define POOL_ASKED_MAX	  16384	      /* texts and commands that workers have not answered yet */
#define POOL_WORKTREES	  "worktrees" /* directories in the state directory */
#define POOL_LAYERS	  "layers"
#define POOL_AGENTS	  "agents"
#define OUTPUT_LINE_MAX	  128 /* bytes of the last line that are looked at */

/* The last changes of an agent's state, in a ring. */
struct transition {
	int64_t at_ns;
	uint8_t from, to, reason; /* enum ap_agent_state, enum ap_reason */
};

/* What the events say of a slot when the machine has forgotten it. */
struct noted_lease {
	unsigned number; /* of its agent */
	char label[AP_LABEL_MAX + 1];
	int64_t granted_ns, waited_ns; /* when, after how long; granted_ns 0: it is not */
};

struct ap_request {
	struct machine_request machine; /* of an acquirer or a releaser */
	ap_request_done *done;
	void *data;
	atomic_int n_refs;    /* the caller's, and the pool's while it is submitted */
	atomic_bool answered; /* whoever sets it calls done */
	bool in_machine;      /* the machine answers it */
	char *why;	      /* behind the result, owned; NULL: nothing is known */
	struct ap_buf text;   /* what it brings; written by whoever calls done, before it */
	char *base;	      /* of an acquirer, owned; NULL: the configuration's */
	unsigned granted;     /* number of the agent that an acquirer got */
	bool has_restore;     /* behind base's NUL stands what of kept/ is laid over its worktree */
	/* of an acquirer: the process that the lease ends with, 0: none; and its start, as
	 * process_start_time() tells it: who waits costs no descriptor */
	pid_t holder;
	uint64_t holder_start;
	struct ap_agent *responder; /* whose response is wanted, referenced; NULL: none's */
	int64_t asked_ns;	    /* of an acquirer or a look: when */
	int64_t offset;		    /* where a text that is kept begins */
	struct ap_list link;	    /* of a wait: agent->waits; pool->lock */
};

struct prompt {
	struct ap_list link; /* agent->prompts; pool->lock */
	uint64_t seq;
	size_t len;
	bool cleaned;	 /* of what is no text; the delivery's own */
	bool is_command; /* of the program's own: typed as it stands */
	char text[];
};

/* What an agent's output says beside the text. */
struct output_signs {
	char title[AP_OSC_MAX];
	struct activity_signal told; /* by a rule of the profile about it */
	int64_t title_busy_ns;	     /* when the title last said so; 0: never */
	bool runs_command; /* OSC 133: between start and end of a command, if it says ends */
	bool ends_commands;
	int64_t marked_ns;	    /* the last start or end of a command; 0: none yet */
	char line[OUTPUT_LINE_MAX]; /* mode shell: what the last line has, as far as it fits */
	/* offsets in the plain text, since the last prompt: where what it printed begins; where the
	 * output of the first command began, and of the last ended; -1: none yet */
	int64_t prompted, command_start, command_end;
};

struct ap_agent {
	atomic_uint n_refs;
	struct ap_pool *pool;
	unsigned number, slot;
	char name[32];
	char *dir; /* its directory in the state directory */
	char *worktree_path;
	struct worker_lane lane;      /* what is done to it, one after the other */
	struct worker_lane keys_lane; /* keys typed by hand, likewise */
	pthread_mutex_t typing;	      /* held from a prompt's text to its Enter, and for keys */

	/* only what runs in the lane touches these */
	struct machine_effect effect; /* that is being carried out */
	struct worktree worktree;
	struct backend_terminal terminal;
	struct worktree_lease lease;
	uint64_t token;	    /* of the last lease that it was made ready for */
	bool lease_open;    /* the worktree is on the lease's branch, and its work not saved yet */
	bool lease_held;    /* and it was granted, says the store */
	bool dir_made;	    /* its directory is its own */
	atomic_bool saving; /* these three: any thread */
	atomic_uint_least64_t saved_files, saved_bytes; /* how far that is */
	unsigned n_starts; /* of its program: each has an output file of its own */
	bool input_cut;	   /* mode stream: a line was written in part only */

	/* guarded by pool->lock */
	struct worker_job effect_job;	   /* queued or running; no more than one waits */
	struct machine_effect next_effect; /* the last one given to it */
	bool effect_queued;		   /* and not taken up yet */
	struct worker_job probe_job;
	uint32_t probe; /* id of the probe under way; 0: none */
	struct cpu_average cpu;
	struct process_usage usage; /* when it was last looked at */
	bool usage_known;	    /* it was, since its program was started */
	int64_t leased_ns;	    /* when its lease was granted; 0: to nobody */
	struct transition transitions[AP_TRANSITIONS];
	unsigned n_transitions; /* ever */
	int holder_fd; /* of the process that its lease ends with, from the validation on; -1: none
			*/
	struct loop_source holder_ends; /* watches that, once the lease is granted */
	bool gone;			/* its slot has been given up */
	bool started; /* it has a terminal: the worktree and the terminal's name stay as they are */
	bool ending;  /* its program is being ended by us */
	bool ended;   /* its program has ended */
	bool restarting; /* it was asked to start again: as good as started */
	bool paused;	 /* its processes are stopped, or will be */
	char ended_how[64];
	char exit_how[64]; /* of the last program that has ended */
	int64_t exit_time; /* when: seconds of the wall clock; 0: none has, or it is not known */
	int over_fd;	   /* can be read when program and processes are over; -1: none */
	struct loop_source program_ends; /* watches that */
	struct backend_terminal running; /* the terminal as it was when its program was started */
	pid_t program;			 /* 0: not known yet, or ended */
	int program_fd; /* can be read when that has ended, waited for or not; -1: not known yet */
	unsigned start; /* goes up with every start of the program */
	char base[GIT_OID_MAX + 1];   /* of the lease, once granted */
	char commit[GIT_OID_MAX + 1]; /* where its worktree was last put; "": its lease's affair */
	unsigned port;		      /* for its own use; 0: none chosen yet */
	struct ap_list prompts, waits;
	unsigned n_prompts_queued;
	unsigned n_prompts_open; /* being written, by handles of the lease of that token */
	size_t open_bytes;	 /* of them */
	uint64_t open_token;
	size_t prompt_bytes;
	uint64_t n_prompts;
	uint64_t prompt_seq; /* of the last one */
	bool delivering;
	unsigned n_keys; /* lines of them that wait or are being typed */
	size_t keys_bytes;
	unsigned n_commits;	  /* that wait or are being made */
	struct worker_once pause; /* has the processes obey `paused`; holds a reference till it
				   * rests */
	atomic_bool forwarding;	  /* a job to bring it forward waits */
	atomic_bool following;	  /* one to have its branch follow it waits */
	struct worker_job prompt_job;
	struct ap_err prompt_error; /* why the last prompt was not delivered */
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX];
	bool started_ready;
	int64_t entered_ns, output_ns, started_ns;
	int64_t keys_from_ns, keys_ns; /* the last keys were typed then; 0: none since the start */
	char prompt[OUTPUT_LINE_MAX];  /* a shell's first prompt, as far as it is known; "" */
	int64_t prompt_ns;	       /* the mark that it came behind */
	struct loop_source review;     /* when the activity is concluded again */
	struct activity_signal screen, hook;
	struct activity_memory memory;
	bool looking;			 /* a worker looks at the screen */
	bool reads_on;			 /* more output is there than was read */
	bool answered;			 /* the question on the screen, by itself */
	struct loop_source output_grows; /* watches the raw output's file */
	char *shown;	      /* the screen as overview.c last saw it; owned; NULL: it did not */
	int64_t shown_size;   /* of the raw output then */
	unsigned shown_start; /* of which start of the program that was */

	pthread_mutex_t output_lock; /* of what follows; output.c */
	int read_fd;		     /* where the raw output is read on */
	struct kept raw, plain;	     /* what the terminal printed; the same as plain text */
	struct ap_plain filter;
	struct output_signs signs;
	struct ap_buf line;	/* mode stream: the event that is being printed */
	struct ap_buf response; /* mode stream: the text of the last answer */
};

struct ap_pool {
	struct repo repo;
	const char *const *argv;
	struct profile *profile; /* of the program */
	pthread_mutex_t seeding; /* of what follows; held while settings are made */
	bool seeded;		 /* the settings that the program needs are made */
	struct events *events;
	char *mountpoint, *shim, *state_dir;
	void (*agent_gone)(void *data, const char *name);
	void (*changed)(void *data);
	void (*tell)(void *data, const char *sentence);
	void *observer;
	atomic_uint n_watching; /* who wants to be told of changes that are no events */
	_Atomic uint64_t n_changes;
	uid_t owner, shown_owner; /* the daemon's user; that of -o uid=, else the same */
	int lock_fd;		  /* the state directory's lock */
	bool locked;		  /* it is ours */
	struct ap_config mounted; /* as the command line has it */
	struct store *store;
	bool kept;	   /* agents and leases stay for the next daemon */
	int helpers_fd;	   /* locked by every helper that runs */
	bool helpers_gone; /* no process of a daemon before is at work any more */
	bool store_lost;   /* it was damaged, and begins anew */
	struct backend *backend;
	struct worker_pool *workers;
	struct templates *templates;
	struct kept_work *kept_work;
	struct worker_once tidy;  /* removes what is garbage, prepares what is wanted next */
	struct worker_once bound; /* has agents bounded as it is set */
	struct worker_job revive_job;
	/* overview.c: a thread that looks, and one that answers who waits for that; and one that
	 * tells the observer */
	struct worker_pool *looking;
	struct worker_once notify; /* tells him that something is shown otherwise */
	struct worker_job look_job, answer_job;
	int64_t silent_until_ns; /* the former's own: the backend did not answer */
	int64_t usage_due_ns;	 /* likewise: no usage is looked at before */
	unsigned usage_from;	 /* likewise: the slot that is looked at first */
	int64_t started_ns;

	pthread_mutex_t lock;	/* of what follows */
	pthread_cond_t emptied; /* an agent has gone */
	struct ap_config config;
	unsigned serials[AP_N_OPTIONS];	 /* how often each was set while the pool ran */
	struct machine *machine;	 /* pool_step_locked() steps it, nobody else */
	const struct machine_view *view; /* of it */
	struct machine_effects effects;	 /* of the step under way */
	struct ap_list answered;	 /* machine requests, until pool_unlock() */
	struct counters counters;
	struct history history;
	struct ap_agent **agents;  /* by slot; NULL: free */
	struct noted_lease *noted; /* by slot */
	struct ap_err spawn_error; /* why the last spawn failed */
	int64_t spawn_error_ns;
	struct ap_err aside_error; /* where work lies that could not be saved */
	unsigned n_aside;
	struct ap_list lookers; /* requests that answer_job answers */
	bool looks, answers;	/* these jobs are queued or run */
	int64_t look_due_ns;	/* what was looked at before does until then */
	pthread_cond_t looked;	/* a look has ended */

	struct loop *loop;
	struct loop_source machine_due;	 /* a deadline of the machine's */
	struct loop_source backend_says; /* the backend has an answer, or has gone */
	struct loop_source revive_due;	 /* the backend is to be started again */
	atomic_bool leaving;		 /* nothing more is begun: it is being freed */
	bool reviving;			 /* a worker starts the backend again; pool->lock */
	atomic_uint n_asked;		 /* jobs with a request */
	atomic_uint names_kept; /* numbers of agents below this are spent, says the store */
};

/* --- pool.c --- */

/* Steps the machine and sets its effects going. Takes the lock; not to be called with it. */
int pool_step(struct ap_pool *pool, const struct machine_event *event);

/* The same for callers that look at the state under the lock first, and unlock with pool_unlock().
 */
int pool_step_locked(struct ap_pool *pool, const struct machine_event *event);

/* Unlocks, and answers the requests whose answer steps have brought meanwhile. */
void pool_unlock(struct ap_pool *pool);

/* Has the machine go on where a daemon before this one has stopped. Takes the lock. */
void pool_restore(struct ap_pool *pool, const struct machine_restored *restored);

/* Steps one event about the agent's slot. Takes the lock. -ENODEV: it is gone. */
int pool_step_agent(struct ap_agent *agent, struct machine_event event);

/* The result of a step, with its sentence where it was refused. */
int pool_refused(int result, struct ap_err *err);

/* What is shown of the pool or an agent has changed, or is about to under the pool's lock: who
 * watches is told. Any thread, any lock; costs nothing when nobody does. */
void pool_changed(struct ap_pool *pool);

/* Tells who mounts something that is no failure. Before the pool is started. */
void pool_tell(struct ap_pool *pool, const char *sentence);

/* Records where work lies that could not be saved, for who unmounts; the last one is told. With
 * `is_kept` it counts: the worktree stays when the daemon ends. Takes the lock. */
void pool_note_unsaved(struct ap_pool *pool, const struct ap_err *err, bool is_kept);

/* Has it known why spawning failed. Takes the lock. */
void pool_note_spawn_error(struct ap_pool *pool, const struct ap_err *err);

/* Notes the event that an option has been set to what it is now. */
void pool_note_config_locked(struct ap_pool *pool, enum ap_option option);

/* Sets the size set by hand as it is stored, as near as the limits let it; -1: none. */
void pool_set_target_locked(struct ap_pool *pool, int target);

/* Makes the configuration effective, as it is now. */
void pool_obey_config_locked(struct ap_pool *pool);

/* Has it known why what the machine is to answer fails: the last sentence counts. pool->lock held.
 */
void request_explain_locked(struct ap_request *request, const struct ap_err *err);

/* Answers a request that the machine does not know: done is called unless it was answered before.
 * `err` says why it failed; NULL: nobody has said it. Drops the pool's reference. */
void request_answer(struct ap_request *request, int result, const struct ap_err *err);

/* The number of a name such as agent-7; 0 if it is none. */
unsigned agent_number(const char *name);

/* --- observe.c: pool->lock held --- */

/* What of the machine is compared before a step and behind it. */
struct step_before {
	enum breaker_state breaker;
	unsigned n_live;
	int64_t scaled_ns;
	int target;
};
struct step_before observe_before_locked(const struct ap_pool *pool);

/* Time has passed up to now, in the states as they are. Before every step. */
void observe_time_locked(struct ap_pool *pool, int64_t now_ns);

/* An event was stepped, with that result. */
void observe_event_locked(struct ap_pool *pool, const struct machine_event *event, int result);

/* The machine has answered a request. Before the moves of its step are. */
void observe_answer_locked(struct ap_pool *pool, const struct ap_request *request, int64_t now_ns);

/* What the step just made has changed. */
void observe_step_locked(struct ap_pool *pool, const struct step_before *before, int64_t now_ns);

/* The queue is as the step has left it. */
void observe_queue_locked(struct ap_pool *pool);

/* One consistent look at the counts. */
struct ap_metrics metrics_of_locked(struct ap_pool *pool, const struct templates_stats *templates,
				    int64_t now_ns);

/* --- program.c --- */

/* Whether there is such a program for agents to run. -ENOENT, -EACCES. Blocks. */
int program_check(const struct ap_pool *pool, struct ap_err *err);

/* --- state_dir.c --- */

/* Fills pool->state_dir, a canonical path, by the options and pool->repo; makes nothing. -EINVAL:
 * it cannot be there (in the mount point, round it, or in a checkout of the repository);
 * -ENOTEMPTY: it is there and no state directory; -ENAMETOOLONG, … Blocks. */
int state_dir_choose(struct ap_pool *pool, struct ap_err *err);

/* Whether a daemon had it that was about to end, and has now. Makes nothing. Blocks for a minute at
 * most. */
bool state_dir_await_end(struct ap_pool *pool);

/* Has it known where the pool is mounted, and that it begins to end: who mounts meanwhile waits for
 * that. */
void state_dir_mounted(struct ap_pool *pool);
void state_dir_leave(struct ap_pool *pool);

/* Makes and locks the directory and opens the store; one that is damaged is set aside first, and
 * pool->store_lost is set. -EBUSY: another daemon has it, the sentence names it; one that is about
 * to end is waited for, a minute at most. Blocks.
 * state_dir_close() undoes what was done of it, and removes what is empty unless it is all kept. */
int state_dir_open(struct ap_pool *pool, struct ap_err *err);
void state_dir_close(struct ap_pool *pool);

/* Waits until what a dead daemon has started, such as git, has ended, and has it so for the next
 * one; pool->helpers_gone says whether. Before the threads. Blocks. */
int state_dir_await_helpers(struct ap_pool *pool, struct ap_err *err);

/* "STATE_DIR/SUBDIR/NAME", owned by the caller; NULL on ENOMEM. */
char *state_dir_path(const struct ap_pool *pool, const char *subdir, const char *name);

/* Has a setting written down, as it is now; `done` as in store_submit(). Takes the lock. */
void state_dir_keep_option(struct ap_pool *pool, enum ap_option option, store_done *done,
			   void *data);
void state_dir_keep_scale(struct ap_pool *pool, store_done *done, void *data);

/* Returns when all is on the disk that was to be written down so far. Blocks. */
int state_dir_save(struct ap_pool *pool, struct ap_err *err);

/* Gives back the names that were kept in advance. No agent is there, and none is made any more. */
int state_dir_save_next_agent(struct ap_pool *pool, struct ap_err *err);

/* Makes the settings of the store effective, all or none: -ERANGE when they do not fit each other.
 * At start those stay that the command line has set, and what does not fit them is left out and
 * said. Takes the lock. Blocks. */
int state_dir_load(struct ap_pool *pool, bool at_start, struct ap_err *err);

/* Begins the machine's counters and numbers where the store's end. */
void state_dir_load_counters(struct ap_pool *pool);

/* --- recovery.c --- */

/* What is needed to save an agent's lease when the store is lost, whatever the agent did to its
 * worktree. Lane. */
int lease_record_write(const struct ap_agent *agent, struct ap_err *err);

/* What the commit says that saves a lease's work. */
void lease_message(const char *label, const char *name, unsigned generation, struct ap_buf *ret);

/* Goes on with what a dead daemon left: agents that live and leases are taken up; what was half
 * done is undone; what the store does not know is removed, its work saved. All that cannot be saved
 * is kept and counted. Needs the threads. Blocks. */
int pool_recover(struct ap_pool *pool, struct ap_err *err);

/* --- agent.c --- */

/* NULL on ENOMEM. Needs the lock: it is put into the pool's table. */
struct ap_agent *agent_new_locked(struct ap_pool *pool, unsigned slot, unsigned number);
void agent_ref(struct ap_agent *agent);
unsigned agent_generation(const struct ap_agent *agent);
void agent_lane_release(struct worker_lane *lane);

/* One look at it; false when it is gone. */
bool agent_info_locked(const struct ap_agent *agent, struct ap_agent_info *ret);

/* Takes it out of the table and answers who waits for it. */
void agent_leave(struct ap_agent *agent);

/* Lets go of what the loop watches for it, before the pool does of the agent. Returns when nothing
 * of it is being called: not with the lock held. */
void agent_remove_sources(struct ap_agent *agent);

/* Has the loop conclude the activity anew, answer waits and hand the next prompt to a worker: now;
 * at a time, whatever was asked for before; at a time unless it does so earlier. Any thread, any
 * lock. */
void agent_review_now(struct ap_agent *agent);
void agent_review_at(struct ap_agent *agent, int64_t at_ns);
void agent_review_by(struct ap_agent *agent, int64_t at_ns);

/* What who waits for an activity is told: 0, or -EIO when the last prompt was not delivered. */
int agent_settled_result(enum ap_activity activity, const struct ap_err *prompt_error);

/* Answers all who wait for what it does with an error. Takes the lock. */
void agent_refuse_waits(struct ap_agent *agent, int error, const struct ap_err *err);

/* Keys are about to be typed by hand, or were, from then on (0: they were not after all): what was
 * concluded before them is not believed until something has come of them. pool->lock held. */
void agent_keys_begin_locked(struct ap_agent *agent);
void agent_keys_typed_locked(struct ap_agent *agent, int64_t from_ns);

/* Drops the prompts that wait. pool->lock held. */
void agent_forget_prompts_locked(struct ap_agent *agent);

/* Queues a prompt again that a daemon before this one had taken. -ENOMEM. */
int agent_prompt_again(struct ap_agent *agent, const struct store_prompt *prompt);

/* Removes one of the keeper's or our own records. Any thread. */
void agent_remove_record(const struct ap_agent *agent, const char *name);

/* Takes note that a program is about to be started: what is printed from now on is its own. */
void agent_starts(struct ap_agent *agent);

/* Takes note that it is to be started again: from now on it takes prompts and is waited for. */
void agent_restarts_locked(struct ap_agent *agent);
void agent_restart_failed(struct ap_agent *agent, const struct ap_err *err);

/* Takes up a program that a daemon before this one has started, if `alive`, or its end. */
int agent_adopted(struct ap_agent *agent, bool alive, struct ap_err *err);

/* Takes note of a program that was started in agent->terminal, or that has ended. */
int agent_started(struct ap_agent *agent, struct ap_err *err);
void agent_ended(struct ap_agent *agent, unsigned start);

/* Whether the program runs, its keeper with it: asked of the kernel now. Waits for a start that is
 * under way. Lane only. */
bool agent_lives(struct ap_agent *agent);

/* Whether somebody has killed the program that has ended. Waits for its keeper to say so, for a few
 * seconds at most. */
bool agent_was_killed(struct ap_agent *agent);

/* Lets go of the process that its lease ends with. pool->lock held. */
void agent_forget_holder_locked(struct ap_agent *agent);

/* Tells the program and all that it started to end, and waits for nothing; not one that is to be
 * asked by a command of its own. Any thread. */
void agent_tell_to_end(struct ap_agent *agent);

/* Ends the program and all that it started; returns when it is over. Lane only. -ETIMEDOUT. */
int agent_end_program(struct ap_agent *agent, struct ap_err *err);

/* --- output.c --- */

void output_init(struct ap_agent *agent);
void output_fini(struct ap_agent *agent);

/* Begins an output of its own for the next start of the program. Lane only. */
int output_begin(struct ap_agent *agent, struct ap_err *err);

/* Takes up the output that a daemon before this one has kept of the program: what it said so far is
 * read again. */
int output_adopt(struct ap_agent *agent, struct ap_err *err);

/* As kept_read(), of the bytes or of the plain text; -EAGAIN where `at_once` could block. */
ssize_t output_read_kept(struct ap_agent *agent, bool raw, bool at_once, void *ret, size_t size,
			 int64_t offset, int64_t *ret_offset);

/* Where the terminal's bytes are appended. */
void output_raw_path(const struct ap_agent *agent, struct ap_buf *out);

/* Forgets what was printed, for a program that goes on in another lease. */
void output_forget(struct ap_agent *agent);

/* Reads what the terminal printed since, at most a bounded piece. Whether there was any. Any
 * thread. Blocks as the disk does. */
bool output_read(struct ap_agent *agent);

/* What it said so far beside the text. */
void output_look(struct ap_agent *agent, struct output_signs *ret);

/* What is printed from now on belongs to the next prompt. */
void output_prompted(struct ap_agent *agent);

/* Another start of the program: what the one before said of itself does not count. */
void output_restarts(struct ap_agent *agent);

/* Appends what was printed since the last prompt. -errno. */
int output_response(struct ap_agent *agent, struct ap_buf *ret);

/* --- jobs.c --- */

/* Has a worker carry out an effect of the machine. pool->lock held. */
void job_effect_locked(struct ap_agent *agent, const struct machine_effect *effect);

/* Has a worker look after the agent's health and usage, unless one does. pool->lock held. */
void job_probe_locked(struct ap_agent *agent, uint32_t id);

/* A turn of the agent's has ended: has a worker bring the branch of its lease, in the repository,
 * to where the agent's own commits are. */
void job_follow_soon(struct ap_agent *agent);

/* Goes on with the backend after its way broke, else has it begin anew. Blocks. */
int pool_revive_backend(struct ap_pool *pool, struct ap_err *err);

/* Has a worker do that. pool->lock held. */
void job_revive_locked(struct ap_pool *pool);

/* Makes the pool's own jobs ready to be asked for. */
void jobs_init(struct ap_pool *pool);

/* --- keeping.c --- */

/* Takes up what leases have left, behind the store's counters. Of a pool that has its state
 * directory. Blocks. */
int keeping_open(struct ap_pool *pool, struct ap_err *err);

/* Whether what leases leave is kept. */
bool keeping_is_on(struct ap_pool *pool);

/* What is known of a lease at its end, before its worktree is touched; `commit` is the caller's to
 * fill in. */
void keeping_info(struct ap_pool *pool, const struct worktree *worktree,
		  const struct worktree_lease *lease, uint64_t token, enum ap_reason reason,
		  struct kept_info *ret);

/* Moves what the lease left to where it is kept, and says so in an event; as worktree_keep(). */
int keeping_keep(struct ap_pool *pool, struct worktree *worktree, const struct kept_info *info,
		 bool in_place, struct ap_err *err);

/* --- texts.c --- */

/* Has a worker look at the agent's screen. pool->lock held. */
void job_look_locked(struct ap_agent *agent);

/* Answers a request that waited for the agent to settle; drops the pool's reference. */
void job_settled(struct ap_request *request, int result, const struct ap_err *err,
		 enum ap_activity activity);

/* --- prompts.c --- */

/* Makes the agent's pause ready to be asked for. */
void pause_init(struct ap_agent *agent);

/* Has a worker deliver the first prompt of the queue. pool->lock held. */
void job_prompt_locked(struct ap_agent *agent);

/* --- watch.c --- */

/* Takes up what the pool itself waits for: the machine's deadlines, and the backend. */
int watch_init(struct ap_pool *pool, struct ap_err *err);

/* Watches the backend, which was started, or started again. -errno. */
int watch_backend(struct ap_pool *pool, struct ap_err *err);
