/* One program: started, spoken to, watched, ended. A session knows its profile and the host it runs
 * on; nothing of pools, leases, the machine, git or the store. Its owner learns of the program by
 * callbacks.
 *
 * Owner and session live and die together: the session has the only count of references, and frees
 * its owner with itself. The session has a lane, a serial queue of jobs: the owner's and its own
 * run there one after the other. Functions "in the lane" are called from such jobs, and block, each
 * up to a deadline of its own. Any thread may call the others, with the owner's lock held too; they
 * do not block but where they say so.
 *
 * Locks, in the order in which they are taken: typing, which is held for seconds; the owner's; the
 * session's; then the worker pool's and the loop's. The output's and the backend's are leaves: a
 * thread that takes one holds none of the others. The session calls its callbacks with no lock
 * held, but for these: `changed`, with the session's lock held or not, may take only the
 * worker pool's; `note` of SESSION_SEED_FAILED comes with the host's `seeding` held, `answered`
 * perhaps with `typing`. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "buf.h"
#include "err.h"
#include "limit.h"
#include "list.h"
#include "loop.h"
#include "process_tree.h"
#include "profile.h"
#include "states.h"
#include "usage.h"
#include "worker.h"

#define SESSION_PROMPTS_MAX  64		/* prompts of one session, queued or being written */
#define SESSION_PROMPT_BYTES (8 << 20)	/* of these prompts in all; or max_prompt, if larger */
#define SESSION_KEYS_MAX     256	/* lines of keys that are not typed yet */
#define SESSION_KEYS_BYTES   (64 << 10) /* of these lines in all */

/* The record of a program that was started in a sandbox: the words of bwrap. */
#define SESSION_WALL "wall"

/* The directory in a session's own that its program may write to, also in a sandbox. */
#define SESSION_LEFT "left"

#define SESSION_CONVERSATION_MAX 128 /* bytes of a conversation's id, with the NUL */

struct session;
struct session_driver;
struct prompt;

/* The sandbox of all sessions of a host. */
struct session_wall {
	char *bwrap;		    /* its path, owned */
	bool network;		    /* the machine's */
	const char *shim;	    /* of backend_new() */
	const char *state_dir;	    /* hidden */
	const char *repo, *git_dir; /* the repository: its checkout and git directory */
};

/* Shared by all sessions of one creator, which fills it in. A closed session may outlive its host
 * while somebody holds a reference: freeing a session does not touch the host. */
struct session_host {
	struct loop *loop;
	struct worker_pool *workers;
	struct backend *backend;
	const struct profile *profile;
	const struct session_driver *driver; /* session_driver() of the profile */
	const char *const *argv; /* the program and its arguments, NULL behind them */
	const char *repo, *worktrees, *mountpoint; /* ${REPO}, ${WORKTREES}; for AGENTPOOL_DIR */
	atomic_int_least64_t max_prompt, output_limit; /* bytes */
	_Atomic(struct terminal_size) terminal_size;   /* from the next start of a program on */
	const struct session_wall *wall;	       /* NULL: its programs have no sandbox */
	atomic_bool unserved;			       /* nobody answers in the mount any more */
	atomic_bool closed;			       /* sessions conclude nothing any more */
	pthread_mutex_t seeding; /* guards what follows; held while settings are made */
	bool seeded;		 /* the profile's settings of the program are made */
};

enum session_outcome {
	SESSION_SUBMITTED,
	SESSION_NOT_SUBMITTED,
	SESSION_NO_EVIDENCE, /* if the profile knows the input field: the text never showed in it;
				if not, the program may well have accepted it */
	SESSION_PUT_BACK,    /* too early: the prompt is the first of the queue again */
	SESSION_REFUSED,     /* by the owner: the program got nothing of it */
};

enum session_note {
	SESSION_AUTO_ANSWER,	   /* text: the keys that the session typed by the profile's rule */
	SESSION_SEED_FAILED,	   /* text: why it could not make a setting of the program */
	SESSION_CONVERSATION_GONE, /* text: the id; the program has it no more, and starts anew */
};

struct session_callbacks {
	/* The last reference is dropped, the session freed: the owner frees its own memory. */
	void (*freed)(void *owner);

	/* A rule has answered what the program asked: `rule` is its word, such as
	 * "permission=allow". */
	void (*answered)(void *owner, const struct question *asked,
			 const struct question_option *option, const char *rule);

	/* Something in session_info() changes now. */
	void (*changed)(void *owner);

	/* The program of that start has ended by itself; `killed`: by a signal that somebody sent.
	 */
	void (*ended)(void *owner, unsigned start, const char *how, bool killed);

	/* What the program is doing is another thing than when this was last called, or than
	 * starting; `why` says by what that is known. Each change once, before the waits that it
	 * answers. */
	void (*activity)(void *owner, enum ap_activity from, enum ap_activity to, const char *why);

	/* Called before anything of the prompt reaches the program: if the daemon dies from here
	 * on, the next one must not give the prompt again. -errno: it is not to be given. In the
	 * lane; may block. */
	int (*prompt_taken)(void *owner, uint64_t seq, bool is_command, struct ap_err *err);
	void (*prompt_done)(void *owner, uint64_t seq, enum session_outcome outcome, size_t len,
			    const struct ap_err *why);

	/* The queued prompts up to that one are dropped. */
	void (*prompts_dropped)(void *owner, uint64_t up_to_seq);

	void (*note)(void *owner, enum session_note what, const char *text);

	/* The program is in another conversation, or it is known now in which; "": it forgets the
	 * one that it was in. In the lane, or by a worker; may block. */
	void (*conversation)(void *owner, const char *conversation);

	/* The program reports what it uses. Before anything that follows from the report: the end
	 * of a turn is not known before what it has used. With the output's lock held: takes leaf
	 * locks alone, which nobody holds who takes that one. */
	void (*used)(void *owner, const struct ap_usage_report *report);

	/* The program that was to go on with a conversation has ended before it was ready. The
	 * session behaves as after session_restarts(): the owner starts the program again. */
	void (*resume_failed)(void *owner, const char *conversation);

	/* A usage limit begins, or another one in its place; or it is over (!limit->on), `lifted`:
	 * before its time had come. By a worker, one call at a time; may block. */
	void (*limit)(void *owner, const struct limit *limit, bool lifted);

	/* The limit's time has come, and the program rests: whether it is to be given its profile's
	 * word. If so, go_on() follows, once the session has recorded that it does: the word is for
	 * the lease of that token. Likewise. */
	bool (*goes_on)(void *owner, const struct limit *limit);
	void (*go_on)(void *owner, uint64_t token);
};

/* How sessions communicate with programs of that profile; and whether these need a backend with
 * terminals. */
const struct session_driver *session_driver(const struct profile *profile);
bool session_needs_terminal(const struct profile *profile);

/* session_new() copies the strings. */
struct session_place {
	const char *name;
	const char *dir; /* of records and output */
	const char *cwd; /* the worktree */
	const char *git_dir; /* of the worktree */
};

/* --- its life --- */

/* Makes a session with one reference, the owner's. NULL on ENOMEM. */
struct session *session_new(struct session_host *host, const struct session_place *place,
			    const struct session_callbacks *callbacks, void *owner);
void session_ref(struct session *session);
void session_unref(struct session *session);

/* Answers all waits with -ENODEV and stops the loop from watching for the session. Returns when the
 * loop runs nothing of it: do not call it with the owner's lock held. Its lane may go on. */
void session_close(struct session *session);

/* Queues a job in the lane. The lane holds a reference until the job has run. */
void session_submit(struct session *session, struct worker_job *job,
		    void (*run)(struct worker_job *job));

/* --- the program: in the lane --- */

/* Sets the ports that the program finds in its environment for its own use: `n` from `first` on. */
void session_set_ports(struct session *session, unsigned first, unsigned n);

/* Sets what sandboxes hide and which names of the environment they have from the next start on: the
 * values of the options sandbox_hide and sandbox_env. -ENOMEM. */
int session_set_wall(struct session *session, const char *hide, const char *env);

/* Has AGENTPOOL_DIR of a program in a sandbox, which an earlier daemon has left, lead into this
 * daemon's mount, by a job in the lane, as that mount may not answer yet. Where this daemon may not
 * mount it leads nowhere until the next start. Does not block. */
void session_renew_wall(struct session *session);

/* Begins a new output for the next start. -errno. */
int session_begin_output(struct session *session, struct ap_err *err);

/* Runs a command in the worktree, in the program's environment, and appends what it prints to the
 * output. Processes that it leaves in its process group end with it. -EIO: it failed, the sentence
 * has what it said; -ETIMEDOUT. */
int session_run(struct session *session, const char *command, int64_t limit_ns, struct ap_err *err);

/* Appends a line of our own to the output. */
void session_say(struct session *session, const char *line);

/* Starts the program: in a new terminal if `first`, else in the terminal that it had. */
int session_start(struct session *session, bool first, struct ap_err *err);

/* Ends the program and all that it started. Returns when they have ended. -ETIMEDOUT. */
int session_end(struct session *session, struct ap_err *err);

/* Types the profile's command to quit, and waits a moment for the program to end. */
void session_quit(struct session *session);

/* Types the profile's command to forget. False: the program did not take it, or is not ready within
 * `limit_ns`. */
bool session_clear(struct session *session, int64_t limit_ns);

/* Drops the output so far, of a program that goes on in another lease. */
void session_forget_output(struct session *session);

/* Removes the terminal of a program that has ended. Blocks. */
void session_remove_terminal(struct session *session);

/* Asks the kernel whether the program and its shim live. Waits for a start that is under way. */
bool session_lives(struct session *session);

/* Whether somebody killed the program that has ended. Waits a few seconds for the shim's record. */
bool session_was_killed(struct session *session);

/* What the next daemon needs to adopt the session. */
struct session_record {
	unsigned n_starts;
	struct backend_terminal terminal;
	bool prompted; /* the lease has had a prompt: the output since answers it; set by the
			* adopter, session_record() leaves it false */
};
void session_record(const struct session *session, struct session_record *ret);

/* Adopt what an earlier daemon left: session_adopt() the output, which may be lost; then
 * session_take_up() the program if `alive`, or else its end. A pause goes on. */
void session_adopt(struct session *session, const struct session_record *record);
int session_take_up(struct session *session, bool alive, struct ap_err *err);

/* Notes that the last write to the program's input may have been cut. */
void session_input_was_cut(struct session *session);

/* Announces that the program will start again: the session accepts prompts, and waits block until
 * it is up. session_restart_failed(): it will not. Any thread. */
void session_restarts(struct session *session);
void session_restart_failed(struct session *session, const struct ap_err *err);

/* --- the conversation --- */

/* Whether programs of the host can go on with a conversation: the profile says how, and the user's
 * arguments choose none. */
bool session_resumes(const struct session_host *host);

/* Whether an id can be a word of a command line, and of a path: at most 127 letters, digits and any
 * of ._:- but no - or . at its start. */
bool session_conversation_valid(const char *id);

/* The next start of the program goes on with that conversation; "", or an id that is not valid:
 * with a new one. */
void session_converse(struct session *session, const char *conversation);

/* Has the running program go on with that conversation, in place of the one that it is in. In the
 * lane; blocks up to `limit_ns`. -ENOENT: the program has it no more, and begins another one;
 * -EOPNOTSUPP, -EAGAIN, -ETIMEDOUT: a start of the program may do it. */
int session_resume(struct session *session, const char *conversation, int64_t limit_ns);

/* Whether the program has that conversation, as far as its profile tells. In the lane; blocks. */
bool session_has_conversation(struct session *session, const char *conversation);

/* The conversation that the program is in, or was in when it ended. False: unknown. */
bool session_conversation(struct session *session, char ret[SESSION_CONVERSATION_MAX]);

/* Reads from the program's own files which conversation it is in. Blocks. */
void session_learn_conversation(struct session *session);

/* The program is about to forget the conversation. In the lane. */
void session_forget_conversation(struct session *session);

/* --- the lease --- */

/* Sets the fencing token: what names another token, other than 0, is -ESTALE from now on. */
void session_fence(struct session *session, uint64_t token);

/* Sets which questions are answered by rule from now on (permission.h): of the lease, and to ask
 * without one. A question that stands already stays as it was judged. True: it was another policy
 * before. */
bool session_permit(struct session *session, uint32_t policy);

/* Judges the question that stands by the present policy. */
void session_judge_again(struct session *session);

/* While `wanted`, the lane is wanted for something else: a delivery under way gives up. */
void session_break_off(struct session *session, bool wanted);

/* Tells the program and all that it started to end, without waiting; unless the profile has a
 * command to quit that session_quit() can type. */
void session_tell_to_end(struct session *session);

/* --- prompts, keys, pause --- */

/* 0: the session has a program, which may have ended if `even_ended`. -ENODEV: the session is
 * closed; -EBUSY: the program is still starting for the first time; -EIO: it has ended. */
int session_running(struct session *session, bool even_ended, struct ap_err *err);

/* 0: the session would accept one more prompt of `len` bytes. -EMSGSIZE, -ENODEV, -EIO, -EAGAIN. */
int session_prompt_check(struct session *session, size_t len, struct ap_err *err);

/* Begin, grow and end a prompt that is being written on behalf of a token: until it ends, the
 * session counts as busy. `len` at the end is the sum by which it grew. -EAGAIN: too many prompts,
 * or too many bytes. */
int session_prompt_begin(struct session *session, uint64_t token, struct ap_err *err);
int session_prompt_grow(struct session *session, uint64_t token, size_t len, struct ap_err *err);
void session_prompt_end(struct session *session, uint64_t token, size_t len);

/* Makes a prompt, or a command of the program's own, which is typed as it stands. NULL on ENOMEM.
 */
struct prompt *session_prompt_new(const char *text, size_t len, bool is_command);
void session_prompt_free(struct prompt *prompt);

/* Queues a prompt and takes its memory. `seq` goes up with every prompt. */
void session_prompt(struct session *session, uint64_t seq, struct prompt *prompt);

/* The same, ahead of all that are queued. */
void session_prompt_first(struct session *session, uint64_t seq, struct prompt *prompt);

/* Drops the prompts that are queued or being written. `begins_anew`: the output so far answers no
 * prompt. */
void session_drop_prompts(struct session *session, bool begins_anew);

/* Types keys, in tmux's names with blanks between, ahead of prompts in the queue; drops them if the
 * token is stale by then. -EAGAIN, -ENOMEM, -EOPNOTSUPP (no terminal), and as session_running(). */
int session_keys(struct session *session, uint64_t token, const char *keys, struct ap_err *err);

/* Has the program break off what it does. The token as in session_keys(). */
int session_cancel(struct session *session, uint64_t token, struct ap_err *err);

/* The n-th of what the program asks a human now, from 0 on; ret->id is "" if it asks no more, or
 * does not run. Blocks as the backend does. */
void session_question(struct session *session, unsigned nth, struct question *ret);

/* Answers on behalf of a user what it asks: "[ID] WORD", the word an option's id, allow, always,
 * reject or cancel, ID that of the question; without it the first. Waits for the program to take
 * that. `ret_option` points into `ret_asked`, or is NULL for cancel. Blocks for seconds. -ENODATA:
 * it asks no such thing; -EINVAL: it does not offer that; -EIO: it asks the same still; -EBUSY:
 * somebody types; -EOPNOTSUPP. */
int session_answer(struct session *session, const char *answer, uid_t uid,
		   struct question *ret_asked, const struct question_option **ret_option,
		   struct ap_err *err);

/* Stops the program and all that it started, or continues them. */
void session_pause(struct session *session, bool pause);

/* Continues them if they are stopped. In the lane. */
void session_go_on(struct session *session);

/* Sets the activity that the program reports through its hook. -ENODEV; -EBUSY: the program is
 * starting for the first time. */
int session_hook(struct session *session, enum ap_activity activity, struct ap_err *err);

/* Takes what the program reports of its use, through its hook: where its own counters are now,
 * since its process has begun, or its conversation if its driver knows that. Errors likewise. */
int session_count(struct session *session, const struct ap_usage *now, struct ap_err *err);
/* --- limits --- */

/* The usage limit that the program has reached; !ret->on: none. */
void session_limit(struct session *session, struct limit *ret);

/* Another program has reached a limit that is this one's too, until that time of the wall clock; 0:
 * not any more. */
void session_share_limit(struct session *session, int64_t until_s, int64_t ends_ns);

/* --- reading --- */

struct session_info {
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX];
	pid_t pid; /* 0: not known yet, or ended */
	bool started, ended, restarting;
	unsigned start;	   /* goes up with every start of the program */
	char exit_how[64]; /* of the last program that has ended */
	int64_t exit_time; /* of that end, seconds of the wall clock; 0: none, or unknown */
	int64_t output_size, raw_size; /* bytes of plain text, and bytes, printed so far */
	int64_t calls_size;	       /* bytes of SESSION_CALLS so far */
	bool usage_known;	       /* read at least once since the program's start */
	struct process_usage usage;    /* as last read */
	double cpu_percent;
	int64_t usage_ns; /* when usage was last read */
	char conversation[SESSION_CONVERSATION_MAX]; /* that it is in; "": unknown */
	int64_t until_s; /* when its usage limit ends, seconds since 1970; 0: none, or unknown */
};
void session_info(struct session *session, struct session_info *ret);

/* Whether the program has ended, though the loop may not have seen it yet; and whether the loop has
 * seen the end of that start. */
bool session_is_over(struct session *session);
bool session_has_ended(struct session *session, unsigned start);

/* The session calls `done` once, when the program is ready, waiting, limited or exited, or with an
 * error; perhaps before session_wait() returns. `result` -EIO: the last prompt was not delivered.
 */
struct session_wait {
	struct ap_list link;
	void (*done)(struct session_wait *wait, int result, enum ap_activity activity,
		     const struct ap_err *err);
};

/* -EAGAIN: the session has not settled, and `nonblock` is set. The caller holds a reference. */
int session_wait(struct session *session, struct session_wait *wait, bool nonblock,
		 struct ap_err *err);
/* Takes a wait back. False: `done` was called, or is being called. */
bool session_unwait(struct session *session, struct session_wait *wait);
void session_refuse_waits(struct session *session, int error, const struct ap_err *err);
bool session_has_settled(struct session *session);

/* These three block as the backend or the disk does. session_screen() appends the screen, within
 * `limit_ns` (0: the backend's own limit); session_response() appends the answer to the last
 * prompt; session_usage() reads what the processes use, from `table` unless it is NULL (-ESRCH: the
 * program has ended). */
int session_screen(struct session *session, int64_t limit_ns, struct ap_buf *ret,
		   struct ap_err *err);
int session_response(struct session *session, struct ap_buf *ret, struct ap_err *err);
int session_usage(struct session *session, struct process_table *table, struct process_usage *ret,
		  double *ret_percent);

/* Appends the command, for sh, that attaches a person's terminal to the session's; the word -r
 * behind it makes that read-only. Does not block. -EOPNOTSUPP: the program has none; -EIO: there is
 * none now. */
int session_attach(struct session *session, struct ap_buf *ret, struct ap_err *err);

/* Reads a bounded piece of what was printed since the last call. False: there was nothing. */
bool session_read_on(struct session *session);

enum session_output {
	SESSION_PLAIN, /* what it printed, as plain text */
	SESSION_RAW,   /* the bytes */
	SESSION_CALLS, /* its tool calls that have ended, a line of JSON each */
};

/* Reads as kept_read(). -EAGAIN: `at_once`, and it could block. */
ssize_t session_read_output(struct session *session, enum session_output what, bool at_once,
			    void *ret, size_t size, int64_t offset, int64_t *ret_offset);

enum session_told {
	SESSION_PLAN,	     /* a line for each entry: status, priority, text */
	SESSION_STOP_REASON, /* why its last turn ended */
};

/* Appends what a program that speaks a protocol has told; nothing where it has not. */
void session_told(struct session *session, enum session_told what, struct ap_buf *ret);

/* Appends the PATH of the programs of a host. False: each session has a different one. */
bool session_path(const struct session_host *host, struct ap_buf *ret);
