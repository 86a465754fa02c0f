/* One program: started, spoken to, watched, ended. Knows its profile and the host it runs on;
 * nothing of pools, leases, the machine, git or the store: whose program it is learns of it by
 * callbacks.
 *
 * The owner is one thing with its session: a session has the only count of references, and frees
 * its owner with itself. It has a lane too, in which the owner's jobs run one after the other with
 * those of the session. Functions "in the lane" block, each up to a deadline of its own, and are
 * called there; all others by any thread, and they do not block but where they say so. They may be
 * called with the owner's lock held.
 *
 * Locks, in the order in which they are taken: typing, under which things take their time; the
 * owner's; the session's, then the worker pool's and the loop's. That of the output and the
 * backend's are leaves, taken with none of the others held. Callbacks are called with none of these
 * held, but for `changed`, which takes none. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "buf.h"
#include "err.h"
#include "list.h"
#include "loop.h"
#include "process_tree.h"
#include "profile.h"
#include "states.h"
#include "worker.h"

#define SESSION_PROMPTS_MAX  64		/* prompts of one session, queued or being written */
#define SESSION_PROMPT_BYTES (8 << 20)	/* of them, together; or max_prompt, where that is more */
#define SESSION_KEYS_MAX     256	/* lines of keys that are not typed yet */
#define SESSION_KEYS_BYTES   (64 << 10) /* of them, together */

struct session;
struct prompt;

/* What the sessions of one owner of them share: the owner fills it in, and it outlives them. */
struct session_host {
	struct loop *loop;
	struct worker_pool *workers;
	struct backend *backend;
	const struct profile *profile;
	const char *const *argv; /* the program and its arguments, NULL behind them */
	const char *repo, *worktrees, *mountpoint;     /* what profiles call so; of AGENTPOOL_DIR */
	atomic_int_least64_t max_prompt, output_limit; /* bytes */
	atomic_bool closed;			       /* nothing more is concluded */
	pthread_mutex_t seeding; /* of what follows; held while settings are made */
	bool seeded;		 /* the settings that the program needs are made */
};

enum session_outcome {
	SESSION_SUBMITTED,
	SESSION_NOT_SUBMITTED,
	SESSION_NO_EVIDENCE, /* of a program whose profile knows its input field, the text never
				came there; else it may well have been taken */
	SESSION_PUT_BACK,    /* it came too early: it is the first of the queue again */
};

enum session_note {
	SESSION_AUTO_ANSWER, /* keys that were typed by the profile's rule */
	SESSION_SEED_FAILED, /* why a setting of the program could not be made */
};

struct session_callbacks {
	/* The last reference has gone: the owner's memory is to go too. */
	void (*freed)(void *owner);

	/* Something of session_info() is about to be another. */
	void (*changed)(void *owner);

	/* The program of that start has ended by itself; `killed`: by a signal that somebody sent.
	 */
	void (*ended)(void *owner, unsigned start, const char *how, bool killed);

	/* It was busy, and is not any more. */
	void (*turn_ended)(void *owner);

	/* Before anything of the prompt reaches the program: whoever dies from here on must not
	 * give it twice. In the lane; may block. */
	void (*prompt_taken)(void *owner, uint64_t seq);
	void (*prompt_done)(void *owner, uint64_t seq, enum session_outcome outcome, size_t len,
			    const struct ap_err *why);

	/* Those that waited are dropped, up to that one. */
	void (*prompts_dropped)(void *owner, uint64_t up_to_seq);

	void (*note)(void *owner, enum session_note what, const char *text);
};

/* Whether programs of that profile need a backend with terminals. */
bool session_needs_terminal(const struct profile *profile);

/* Strings are copied. */
struct session_place {
	const char *name;
	const char *dir; /* of records and output */
	const char *cwd; /* the worktree */
};

/* --- its life --- */

/* With one reference, the owner's. NULL on ENOMEM. */
struct session *session_new(struct session_host *host, const struct session_place *place,
			    const struct session_callbacks *callbacks, void *owner);
void session_ref(struct session *session);
void session_unref(struct session *session);

/* Answers who waits with -ENODEV, and lets go of what the loop watches for it. Returns when the
 * loop calls nothing of it: not with the owner's lock held. Its lane may go on. */
void session_close(struct session *session);

/* Has a job run in the lane; a reference is held until it has run. */
void session_submit(struct session *session, struct worker_job *job,
		    void (*run)(struct worker_job *job));

/* --- the program: in the lane --- */

/* A port for the program's own use, for its environment: 0 is none. */
void session_set_port(struct session *session, unsigned port);

/* Begins an output of its own for the next start. -errno. */
int session_begin_output(struct session *session, struct ap_err *err);

/* Runs a command in the worktree as programs are run, what it prints into the output. Whatever it
 * leaves in its process group ends with it. -EIO: it failed, with what it said; -ETIMEDOUT. */
int session_run(struct session *session, const char *command, int64_t limit_ns, struct ap_err *err);

/* Puts a line beside what the program prints. */
void session_say(struct session *session, const char *line);

/* Starts the program: in a new terminal if `first`, else in the one that it had. */
int session_start(struct session *session, bool first, struct ap_err *err);

/* Ends the program and all that it started; returns when it is over. -ETIMEDOUT. */
int session_end(struct session *session, struct ap_err *err);

/* Has it end by its profile's command, and gives it the time to. */
void session_quit(struct session *session);

/* Has it forget by its profile's command. False: it did not take it, or is not ready in time. */
bool session_clear(struct session *session, int64_t limit_ns);

/* Forgets what was printed, for a program that goes on in another lease. */
void session_forget_output(struct session *session);

/* Removes the terminal of a program that has ended. Blocks. */
void session_remove_terminal(struct session *session);

/* Whether the program runs, its shim with it: asked of the kernel now. Waits for a start that is
 * under way. */
bool session_lives(struct session *session);

/* Whether somebody has killed the program that has ended. Waits for its shim to say so, for a few
 * seconds at most. */
bool session_was_killed(struct session *session);

/* What the next daemon needs to go on with it. */
struct session_record {
	unsigned n_starts;
	struct backend_terminal terminal;
	bool prompted; /* there was one since it began anew: what it printed answers it */
};
void session_record(const struct session *session, struct session_record *ret);

/* Takes up what a daemon before this one has left: first what it printed, which may be lost then,
 * and then the program, if `alive`, or its end; a pause goes on. */
void session_adopt(struct session *session, const struct session_record *record);
int session_take_up(struct session *session, bool alive, struct ap_err *err);

/* What was written to it last may be there in part only. */
void session_input_was_cut(struct session *session);

/* It is to be started again: from now on it takes prompts and is waited for. Any thread. */
void session_restarts(struct session *session);
void session_restart_failed(struct session *session, const struct ap_err *err);

/* --- for whom it works --- */

/* What names another token than this one, or 0, is -ESTALE from now on. */
void session_fence(struct session *session, uint64_t token);

/* The lane is wanted: what is being typed is given up. Until it is not. */
void session_break_off(struct session *session, bool wanted);

/* Tells the program and all that it started to end, and waits for nothing; not one that is to be
 * asked by a command of its own. */
void session_tell_to_end(struct session *session);

/* --- prompts, keys, pause --- */

/* Whether it has a program, one that has ended too if `even_ended`. -ENODEV: the session is closed;
 * -EBUSY: it is being made; -EIO: its program has ended. */
int session_running(struct session *session, bool even_ended, struct ap_err *err);

/* Whether a prompt of `len` bytes more is taken. -EMSGSIZE, -ENODEV, -EIO, -EAGAIN. */
int session_prompt_check(struct session *session, size_t len, struct ap_err *err);

/* A prompt is being written on behalf of a token: it counts as busy until that ends, with all the
 * bytes that it has grown by. -EAGAIN: too many, or too much. */
int session_prompt_begin(struct session *session, uint64_t token, struct ap_err *err);
int session_prompt_grow(struct session *session, uint64_t token, size_t len, struct ap_err *err);
void session_prompt_end(struct session *session, uint64_t token, size_t len);

/* A prompt, or a command of the program's own, which is typed as it stands. NULL on ENOMEM. */
struct prompt *session_prompt_new(const char *text, size_t len, bool is_command);
void session_prompt_free(struct prompt *prompt);

/* Queues it, and takes it over. `seq` goes up with every one. */
void session_prompt(struct session *session, uint64_t seq, struct prompt *prompt);

/* Drops those that wait or are being written; `begins_anew`: what it printed answers none of them.
 */
void session_drop_prompts(struct session *session, bool begins_anew);

/* Has keys typed, in tmux's names with blanks between, at once, whatever prompts wait. -EAGAIN, as
 * session_running(), -ENOMEM; what names a token that is stale by then is not typed. */
int session_keys(struct session *session, uint64_t token, const char *keys, struct ap_err *err);

/* Stops the program and all that it started, or has them go on. */
void session_pause(struct session *session, bool pause);

/* Has them go on now, where they are stopped. In the lane. */
void session_go_on(struct session *session);

/* The program's own word of what it does. -ENODEV, -EBUSY: it is being made. */
int session_hook(struct session *session, enum ap_activity activity, struct ap_err *err);

/* --- looking at it --- */

struct session_info {
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX];
	pid_t pid; /* 0: not known yet, or ended */
	bool started, ended, restarting;
	unsigned start;	   /* goes up with every start of the program */
	char exit_how[64]; /* of the last program that has ended */
	int64_t exit_time; /* when: seconds of the wall clock; 0: none has, or it is not known */
	int64_t output_size, raw_size; /* bytes of plain text, and bytes, printed so far */
	bool usage_known;	       /* since the program was started */
	struct process_usage usage;    /* when it was last looked at */
	double cpu_percent;
	int64_t usage_ns; /* when that was */
};
void session_info(struct session *session, struct session_info *ret);

/* Whether that start's program is over, though its end may not have been taken note of. */
bool session_is_over(struct session *session);
bool session_has_ended(struct session *session, unsigned start);

/* Called when it is ready, waiting or exited, or with an error: once, perhaps before session_wait()
 * returns. `result` -EIO: the last prompt was not delivered. */
struct session_wait {
	struct ap_list link;
	void (*done)(struct session_wait *wait, int result, enum ap_activity activity,
		     const struct ap_err *err);
};

/* -EAGAIN: it would wait and must not. Who waits holds a reference. */
int session_wait(struct session *session, struct session_wait *wait, bool nonblock,
		 struct ap_err *err);
/* False: done has been called, or is being. */
bool session_unwait(struct session *session, struct session_wait *wait);
void session_refuse_waits(struct session *session, int error, const struct ap_err *err);
bool session_has_settled(struct session *session);

/* These block: as the backend does, or the disk. What is on the screen; `limit_ns` 0: as long as
 * for anything. What was printed since the last prompt. What the processes use, by a table of them
 * if one is given; -ESRCH. */
int session_screen(struct session *session, int64_t limit_ns, struct ap_buf *ret,
		   struct ap_err *err);
int session_response(struct session *session, struct ap_buf *ret, struct ap_err *err);
int session_usage(struct session *session, struct process_table *table, struct process_usage *ret,
		  double *ret_percent);

/* Reads what was printed since, as far as a bounded piece of it goes. */
bool session_read_on(struct session *session);

/* As kept_read(), of the bytes or of the plain text; -EAGAIN where `at_once` could block. */
ssize_t session_read_output(struct session *session, bool raw, bool at_once, void *ret, size_t size,
			    int64_t offset, int64_t *ret_offset);

/* Appends PATH as the programs of a host have it. False: it is another for each of them. */
bool session_path(const struct session_host *host, struct ap_buf *ret);
