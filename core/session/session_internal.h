/* Shared by the files of a session. */
#pragma once

#include "activity.h"
#include "clock.h"
#include "kept.h"
#include "session.h"
#include "text.h"
#include "words.h"

#define OUTPUT_LINE_MAX 128 /* bytes kept of the last line, with the NUL */

struct prompt {
	struct ap_list link; /* session->prompts; session->lock */
	uint64_t seq;
	size_t len;
	bool cleaned;	 /* clean_text() has run; only the delivery uses it */
	bool is_command; /* a command of the program's own: typed as it stands */
	char text[];
};

/* What the output says beside the text. */
struct output_signs {
	char title[AP_OSC_MAX];
	struct activity_signal told; /* by a rule of the profile about an OSC or an event */
	int64_t title_busy_ns;	     /* when a title last said busy; 0: never */
	bool runs_command;	     /* a command has started (OSC 133 C) and not ended; only if
				      * ends_commands */
	bool ends_commands;	     /* the program marks the end of commands (OSC 133 D) */
	int64_t marked_ns;	     /* the last start or end of a command; 0: none yet */
	int64_t prompt_mark_ns; /* the last marker, if it begins a prompt (OSC 133 A, B) or ends
				 * a command; else 0 */
	unsigned n_turns;	/* that have ended, as a protocol tells */
	struct profile_limit limit;  /* with which the last of them did */
	char line[OUTPUT_LINE_MAX];  /* mode shell: the unfinished last line, or the end of it */
	/* offsets in the plain text: where the output since the last prompt begins; where the
	 * output of the first command since then begins, and that of the last ends; -1: none yet */
	int64_t prompted, command_start, command_end;
};

struct acp_driver;

struct session {
	atomic_uint n_refs;
	struct session_host *host;
	const struct session_driver *driver;
	const struct session_callbacks *callbacks;
	void *owner;
	char name[32];
	char *dir, *cwd, *git_dir;
	struct worker_lane lane;      /* its jobs, one after the other */
	struct worker_lane keys_lane; /* keys typed by hand, likewise */
	pthread_mutex_t typing;	      /* held from a prompt's text to its Enter, and for keys; or
				       * while the driver writes to the program's input */
	bool input_cut;		      /* a line was written in part only; typing */
	atomic_uint permission;	 /* which questions are answered by rule; any thread reads it */
	struct worker_once rule; /* answers by rule what a terminal asks; holds a reference until
				  * it rests */

	/* only what runs in the lane touches these */
	struct backend_terminal terminal;
	unsigned n_starts; /* output files begun: the number in the name of the present one */
	unsigned port, n_ports;
	char *hide, *env; /* session_set_wall(); NULL: not set yet */

	pthread_mutex_t lock; /* guards what follows */
	bool closed;
	bool wanted;	    /* another job wants the lane: a delivery under way gives up */
	uint64_t token;	    /* fencing token of the lease */
	bool started;	    /* the program was started once, by this daemon or an earlier one */
	bool ending;	    /* this daemon is ending the program */
	bool ended;	    /* its program has ended */
	bool restarting;    /* a restart is announced: prompts and waits treat it as started */
	bool paused;	    /* its processes are stopped, or will be */
	char ended_how[64]; /* of the present start; "": it has not ended, or unknown */
	char exit_how[64];  /* of the last program that has ended */
	int64_t exit_time;
	int over_fd; /* readable when the program and all its processes have ended; -1: none */
	struct loop_source program_ends; /* watches over_fd */
	struct backend_terminal running; /* the terminal as it was when its program was started */
	bool walled;			 /* it was started in a sandbox */
	pid_t program;			 /* 0: not known yet, or ended */
	int program_fd; /* pidfd: readable when the program has ended; -1: not known yet */
	unsigned start; /* goes up with every start of the program */
	struct cpu_average cpu;
	struct process_usage usage; /* as last read */
	bool usage_known;	    /* read at least once since the program's start */
	/* ids of conversations; "": none, or unknown */
	char next_conversation[SESSION_CONVERSATION_MAX]; /* the next start goes on with it */
	char conversation[SESSION_CONVERSATION_MAX];	  /* that the program is in */
	char forgotten[SESSION_CONVERSATION_MAX];	  /* that it was in before */
	int64_t conversation_since_ns; /* wall clock: a new one has appeared after that */
	bool resumed;		       /* this start goes on with one, and has not been ready yet */
	bool shows_conversation;       /* likewise, but its screen has shown that */
	int64_t looks_ready_ns;	       /* of such a start: since when; 0: it does not */
	struct ap_list prompts, waits;
	unsigned n_prompts_queued;
	unsigned n_prompts_open; /* being written, on behalf of open_token */
	size_t open_bytes;	 /* of the prompts being written */
	uint64_t open_token;
	size_t prompt_bytes; /* of the queued prompts */
	bool prompted;	     /* the lease has had a prompt: the output since answers it */
	bool delivering;     /* job_prompt() is queued or runs */
	unsigned n_keys;     /* lines of keys that wait or are being typed */
	size_t keys_bytes;
	struct worker_once pause; /* makes the processes obey `paused`; holds a reference until
				   * it rests */
	struct worker_job prompt_job;
	struct ap_err prompt_error; /* why the last prompt was not delivered */
	enum ap_activity activity, told; /* `told`: of it the owner knows */
	char why[ACTIVITY_WHY_MAX];
	bool started_ready;
	int64_t entered_ns, output_ns, started_ns;
	int64_t keys_from_ns, keys_ns; /* begin and end of the last typing of keys; 0: none since
					* the start */
	char prompt[OUTPUT_LINE_MAX];  /* the line of a shell's primary prompt; "": not known */
	int64_t prompt_ns;	       /* when that was learnt */
	struct loop_source review;     /* when the activity is concluded again */
	struct activity_signal screen, hook;
	bool cursor_waits; /* on that screen */
	struct activity_memory memory;
	bool looking;			 /* a worker captures the screen */
	bool reads_on;			 /* there is more output than was read */
	bool answered;			 /* auto_answer has answered the question on the screen */
	unsigned n_cancels;		 /* asked for, and not said to the program yet: likewise */
	bool ruling;	 /* a rule is about to answer it: the session counts as busy */
	char judged[20]; /* id of the question on the screen that rules have judged; "": none */
	struct limit limit; /* a usage limit that it has reached; limited.c, so is what follows */
	unsigned n_limits;  /* that have begun */
	bool limit_news;    /* limit_tells has something to do */
	bool limit_is_over; /* its time has come, and limit_tells has not ended it yet */
	struct profile_limit limit_awaited; /* on the screen, at the last look, while it worked: it
					     * waits for the end by itself */
	struct profile_limit limit_shown; /* on the screen, at the last look, while it rested */
	int64_t limit_seen_ns;		  /* when it began, or was taken up from another daemon */
	int64_t given_ns;		  /* when this daemon last gave it a prompt; 0: not yet */
	bool works;			  /* since a limit was seen, it has been at work */
	bool commanded;			  /* what it does is to obey a command of its own */
	unsigned n_turns;		  /* of output_signs.n_turns, taken note of */
	/* another program's limit that is this one's too, of the wall clock; 0: none */
	int64_t shared_until_s, shared_ends_ns;
	struct loop_source output_grows; /* watches the raw output's file */
	struct loop_source errors_grow;	 /* and that of the standard error, if that is apart */

	struct worker_once limit_tells; /* records the limit, tells the owner, ends it; holds a
					 * reference until it rests. Only its run touches: */
	unsigned n_limits_told;
	bool limit_told; /* the owner knows of a limit */

	atomic_bool learning; /* a job that learns the conversation is queued */

	pthread_mutex_t output_lock; /* guards what follows; output.c */
	int read_fd;		     /* the raw output, at the offset of the next read */
	struct kept raw, plain;	     /* what the terminal printed; the same as plain text */
	struct ap_plain filter;
	struct output_signs signs;
	int64_t adopted_to; /* up to there an earlier daemon may have read the output; 0: nowhere */
	struct ap_usage_report held; /* the last report of an event before that */
	struct ap_buf line;	/* driver stream: the event that is being printed */
	struct ap_buf response; /* driver stream: the text of the last answer */
	struct kept calls;	/* driver acp: the tool calls that have ended */
	struct acp_driver *acp; /* its own; NULL: of another driver */
	int errors_fd;		/* driver->errors_apart: the standard error, as read_fd */
	struct kept errors;
};

/* A job on the heap: keys to type, or a capture of the screen. */
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

/* Ask the loop for a review, which concludes the activity, answers waits and gives the next prompt
 * to a worker: at a time, in place of the time before; now; or by a time, unless a review is due
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

/* Adopts the output that an earlier daemon kept: reads it again, for the text and its signs. */
int output_adopt(struct session *session, struct ap_err *err);

/* Appends the path of the file that the program's bytes go to; and of that of its standard error,
 * if it is apart. */
void output_raw_path(const struct session *session, struct ap_buf *out);
void output_errors_path(const struct session *session, struct ap_buf *out);

/* Drops the output so far, of a program that goes on in another lease. */
void output_forget(struct session *session);

/* Copies the signs in the output so far. */
void output_look(struct session *session, struct output_signs *ret);

/* Marks the place in the output from which on the output answers the next prompt. */
void output_prompted(struct session *session);

/* Records that a prompt reaches the program now, and returns when the last prompt did;
 * output_not_entered() restores that time. */
int64_t output_entered(struct session *session);
void output_not_entered(struct session *session, int64_t before);

/* Forgets the signs of the last program: another program starts. */
void output_restarts(struct session *session);

/* Appends what was printed since the last prompt. -errno. */
int output_response(struct session *session, struct ap_buf *ret);

/* Appends the last lines that were printed, for a program that has no screen. -errno. */
int output_last_lines(struct session *session, struct ap_buf *ret);

/* Captures the screen, and judges it by the profile. Blocks as the backend does. */
void look_at_screen(struct session *session, struct ap_buf *ret_screen,
		    struct activity_signal *ret);

/* Removes a record of the shim's or the session's from the session's directory. */
void remove_record(const struct session *session, const char *name);

/* --- conversation.c --- */

/* Notes the conversation that the program about to start is in, and appends the arguments for that.
 * In the lane. */
void conversation_begin(struct session *session, struct ap_words *ret);

/* Takes session_forget_conversation() back: the program has not taken the command. */
void conversation_not_forgotten(struct session *session);

/* The program itself says, to a driver that it speaks with, that it is in that conversation. May
 * block. session->resumed says whether this start was to go on with session->conversation. */
void conversation_told(struct session *session, const char *id);

/* Adopts what an earlier daemon knew of it. */
void conversation_adopt(struct session *session);

/* Appends the path of the file that keeps it. False: there is none, or it is not known where. */
bool conversation_file(struct session *session, const char *conversation, struct ap_buf *ret_path);

/* --- counting.c --- */

/* Report what the program has used: by what its hook has left for a daemon that was away; by its
 * screen; by the file of its conversation. The last two block. */
void count_left(struct session *session);
void count_by_screen(struct session *session, const struct ap_buf *screen);
void count_by_conversation(struct session *session);

/* The same by an event that ends a turn. From count_adopt_locked() on, of those that are in the
 * output already the last one alone, once count_adopted_locked() finds them read. output_lock held.
 */
void count_by_event_locked(struct session *session, const char *event);
void count_adopt_locked(struct session *session);
void count_adopted_locked(struct session *session);

/* Another program starts. */
void count_anew(const struct session *session);

/* --- wall.c --- */

/* The sandbox of the session's next program. */
struct wall {
	struct ap_buf words, place;
	struct ap_words patterns;
	struct backend_wall shim; /* for the backend; into the above */
};

/* Writes the words of a sandbox to the session's directory, under that name. The host has a wall.
 */
int wall_make(const struct session *session, const char *name, struct wall *ret,
	      struct ap_err *err);
void wall_fini(struct wall *wall);

/* --- variables.c --- */

/* Append a text of the profile with ${NAME} and ${NAME:-OTHERWISE} replaced by their values;
 * expand_with() replaces ${CONVERSATION} by that id, too. */
void expand(const struct session *session, const char *text, size_t len, struct ap_buf *ret);
void expand_with(const struct session *session, const char *text, const char *conversation,
		 struct ap_buf *ret);

/* The profile's word about PATH: "PATH=VALUE" sets it, "PATH" unsets it. NULL: none. */
const char *profile_path(const struct session_host *host);

/* --- program.c --- */

/* As session_running(); session->lock held. */
int running_locked(const struct session *session, bool even_ended, struct ap_err *err);

/* Asks the kernel whether the program and all that it started have ended. session->lock held. */
bool is_over_locked(const struct session *session);

/* A copy of over_fd, readable once they have ended, which the caller closes; -1: there is none.
 * session->lock held. */
int over_fd_locked(const struct session *session);

/* Whether a delivery must give up: the lane is wanted for something else, or the program has ended.
 * delivery_void() sets the sentence for that: -ECANCELED. */
bool delivery_is_void(struct session *session);
int delivery_void(const struct session *session, struct ap_err *err);

/* Resets the session's state for a program that is about to start. */
void program_starts(struct session *session);

/* Records the program that was started in session->terminal, and watches for its end. */
int program_started(struct session *session, struct ap_err *err);

/* Reads the shim's record of who the program of that start is, if it is there yet. */
void know_program(struct session *session, unsigned start);

/* Records that the program of that start has ended. */
void program_ended(struct session *session, unsigned start);

/* --- question.c --- */

/* Initializes what answers by rule. */
void rule_init(struct session *session);

/* Shows them what is on the screen of a terminal while it asks; NULL: it asks nothing, or what the
 * profile's auto_answer answers. */
void rule_on_screen(struct session *session, const char *screen);

/* --- limited.c --- */

/* Records how the limit is now, tells the owner, and ends it if its time has come. By
 * session->limit_tells alone; blocks. */
void limit_tell(struct session *session);

/* Adopts what an earlier daemon knew of a limit. */
void limit_adopt(struct session *session);

/* Now, of the wall clock, for profile_limited(). */
int64_t limit_now_s(void);

/* What a look at the screen has shown. session->lock held, as for all that follows. */
void limit_on_screen_locked(struct session *session, const struct profile_limit *seen,
			    const struct activity_signal *signal);

/* Another program is about to start. */
void limit_forget_screen_locked(struct session *session);

/* The program has been given a prompt, at session->entered_ns. */
void limit_prompt_given_locked(struct session *session);

/* A command of the program's own is being typed: what it does then is no turn. Takes the lock. */
void limit_commanded(struct session *session, bool begins);

bool limit_is_on_locked(const struct session *session);

/* When the limit ends, seconds since 1970; 0: there is none, or that is not known. */
int64_t limit_until_locked(const struct session *session);

/* Makes ready limited while there is a limit; has it end when its time has come. */
void limit_conclude_locked(struct session *session, const struct output_signs *signs,
			   struct activity *concluded, int64_t now);

/* --- driver_terminal.c --- */

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

/* Begin and end the typing of keys, which began at `from_ns` (0: nothing was typed). Conclusions
 * from before the keys do not count until they show an effect. session->lock held. */
void keys_begin_locked(struct session *session);
void keys_typed_locked(struct session *session, int64_t from_ns);
