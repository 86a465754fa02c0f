/* What the files of a session share. */
#pragma once

#include "activity.h"
#include "clock.h"
#include "kept.h"
#include "session.h"
#include "text.h"

#define OUTPUT_LINE_MAX 128 /* bytes of the last line that are looked at */

struct prompt {
	struct ap_list link; /* session->prompts; session->lock */
	uint64_t seq;
	size_t len;
	bool cleaned;	 /* of what is no text; the delivery's own */
	bool is_command; /* of the program's own: typed as it stands */
	char text[];
};

/* What the output says beside the text. */
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

struct session_driver;

struct session {
	atomic_uint n_refs;
	struct session_host *host;
	const struct session_driver *driver;
	const struct session_callbacks *callbacks;
	void *owner;
	char name[32];
	char *dir, *cwd;
	struct worker_lane lane;      /* what is done to it, one after the other */
	struct worker_lane keys_lane; /* keys typed by hand, likewise */
	pthread_mutex_t typing;	      /* held from a prompt's text to its Enter, and for keys */

	/* only what runs in the lane touches these */
	struct backend_terminal terminal;
	unsigned n_starts; /* of its program: each has an output file of its own */
	unsigned port;
	bool input_cut; /* driver stream: a line was written in part only */

	pthread_mutex_t lock; /* of what follows */
	bool closed;
	bool wanted;	 /* its lane is: what is being typed is given up */
	uint64_t token;	 /* for whom it works */
	bool started;	 /* it has a terminal: its name stays as it is */
	bool ending;	 /* its program is being ended by us */
	bool ended;	 /* its program has ended */
	bool restarting; /* it was asked to start again: as good as started */
	bool paused;	 /* its processes are stopped, or will be */
	char ended_how[64];
	char exit_how[64];
	int64_t exit_time;
	int over_fd; /* can be read when program and processes are over; -1: none */
	struct loop_source program_ends; /* watches that */
	struct backend_terminal running; /* the terminal as it was when its program was started */
	pid_t program;			 /* 0: not known yet, or ended */
	int program_fd; /* can be read when that has ended, waited for or not; -1: not known yet */
	unsigned start; /* goes up with every start of the program */
	struct cpu_average cpu;
	struct process_usage usage; /* when it was last looked at */
	bool usage_known;	    /* it was, since its program was started */
	struct ap_list prompts, waits;
	unsigned n_prompts_queued;
	unsigned n_prompts_open; /* being written, on behalf of that token */
	size_t open_bytes;	 /* of them */
	uint64_t open_token;
	size_t prompt_bytes;
	bool prompted; /* since it began anew: what it printed since answers the last one */
	bool delivering;
	unsigned n_keys; /* lines of them that wait or are being typed */
	size_t keys_bytes;
	struct worker_once pause; /* has the processes obey `paused`; holds a reference till it
				   * rests */
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

	pthread_mutex_t output_lock; /* of what follows; output.c */
	int read_fd;		     /* where the raw output is read on */
	struct kept raw, plain;	     /* what the terminal printed; the same as plain text */
	struct ap_plain filter;
	struct output_signs signs;
	struct ap_buf line;	/* driver stream: the event that is being printed */
	struct ap_buf response; /* driver stream: the text of the last answer */
};

/* A job of its own memory: keys to be typed, a look at the screen. */
struct session_job {
	struct worker_job job;
	struct session *session; /* with a reference */
	uint64_t token;		 /* on whose behalf; 0: any */
	char words[];		 /* keys */
};

/* NULL on ENOMEM. */
struct session_job *session_job_new(struct session *session, void (*run)(struct worker_job *),
				    const char *words);
void session_job_free(struct session_job *job);

/* --- session.c --- */

static inline void tell_changed(struct session *session)
{
	session->callbacks->changed(session->owner);
}

/* Asks the loop for a review, which concludes the activity, answers waits and gives the next prompt
 * to a worker. At a time, in place of the time before; now; or by a time, unless one is due
 * earlier. Any lock. */
static inline void session_review_at(struct session *session, int64_t at_ns)
{
	loop_set(session->host->loop, &session->review, at_ns);
}

static inline void session_review_now(struct session *session)
{
	session_review_at(session, ap_clock_ns());
}

static inline void session_review_by(struct session *session, int64_t at_ns)
{
	loop_advance(session->host->loop, &session->review, at_ns);
}

/* --- output.c --- */

void output_init(struct session *session);
void output_fini(struct session *session);

/* Adopts the output that an earlier daemon kept: reads again what the program said so far. */
int output_adopt(struct session *session, struct ap_err *err);

/* Appends the path of the file that the program's bytes go to. */
void output_raw_path(const struct session *session, struct ap_buf *out);

/* Drops the output so far, of a program that goes on in another lease. */
void output_forget(struct session *session);

/* Copies what the program said so far beside the text. */
void output_look(struct session *session, struct output_signs *ret);

/* Marks the place in the output from which on it answers the next prompt. */
void output_prompted(struct session *session);

/* Notes that a prompt reaches the program now, and returns when the prompt before did;
 * output_not_entered() takes that back. */
int64_t output_entered(struct session *session);
void output_not_entered(struct session *session, int64_t before);

/* Forgets what the last program said of itself: another one starts. */
void output_restarts(struct session *session);

/* Appends what was printed since the last prompt. -errno. */
int output_response(struct session *session, struct ap_buf *ret);

/* Appends the last lines that were printed, for a program that has no screen. -errno. */
int output_last_lines(struct session *session, struct ap_buf *ret);

/* Captures the screen, and judges it by the profile. Blocks as the backend does. */
void look_at_screen(struct session *session, struct ap_buf *ret_screen,
		    struct activity_signal *ret);

/* Removes one of the shim's or our own records. */
void remove_record(const struct session *session, const char *name);

/* --- program.c --- */

/* As session_running(); session->lock held. */
int running_locked(const struct session *session, bool even_ended, struct ap_err *err);

/* Asks the kernel whether the program and all that it started have ended. session->lock held. */
bool is_over_locked(const struct session *session);

/* A descriptor that can be read once they have, which the caller closes; -1: there is none.
 * session->lock held. */
int over_fd_locked(const struct session *session);

/* Whether a delivery must give up: the lane is wanted for something else, or the program has ended.
 * delivery_void() sets the sentence for that: -ECANCELED. */
bool delivery_is_void(struct session *session);
int delivery_void(const struct session *session, struct ap_err *err);

/* Notes that a program is about to start: the output from now on is its own. */
void program_starts(struct session *session);

/* Notes the program that was started in session->terminal, and watches for its end. */
int program_started(struct session *session, struct ap_err *err);

/* Reads the shim's record of who the program of that start is, if it is there yet. */
void know_program(struct session *session, unsigned start);

/* Notes that the program of that start has ended. */
void program_ended(struct session *session, unsigned start);

/* --- driver_terminal.c --- */

/* Types a command of the program's own and submits it. In the lane. As session_driver.deliver. */
int type_command(struct session *session, const char *text, struct ap_err *err);

/* Types keys, in tmux's names or as they stand, with blanks between. Blocks as the backend does. */
int send_keys(struct session *session, const char *keys, struct ap_err *err);

/* --- prompts.c --- */

/* Initializes the session's pause. */
void pause_init(struct session *session);

/* Queues the delivery of the first prompt. session->lock held. */
void job_prompt_locked(struct session *session);

/* Drops the queued prompts, and returns the seq of the last one; 0: there was none. session->lock
 * held. */
uint64_t drop_prompts_locked(struct session *session);

/* Begin and end the typing of keys by hand, which began at `from_ns` (0: nothing was typed). What
 * was concluded before them does not count until something has come of them. session->lock held. */
void keys_begin_locked(struct session *session);
void keys_typed_locked(struct session *session, int64_t from_ns);
