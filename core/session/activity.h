/* Concludes what an agent's program is doing, from evidence. Pure, except for activity_look(),
 * which reads /proc.
 *
 * Evidence comes from the program's processes, from its terminal, and from the program itself: a
 * hook that writes `activity`, an escape sequence. Where the evidence contradicts itself, waiting
 * goes before busy, busy before ready: a prompt typed too late costs time, a prompt typed too early
 * may answer a question that nobody has read. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "states.h"

#define ACTIVITY_WHY_MAX 128

/* How to conclude the activity of a program; set by its profile. */
struct activity_rules {
	bool shell;	  /* an interactive shell: it gives its jobs the foreground */
	bool terminal;	  /* what its terminal tells is evidence: no rule says when it is ready */
	bool reports;	  /* the program reports events: nothing else is evidence */
	bool looks;	  /* there are rules about the screen or the title */
	bool tells_ready; /* a rule, other than on an OSC, says when it is ready: silence does not
			   */
	bool says_ready;  /* a rule that the program will come to says when it is ready: silence
			   * does not at a start */
	int64_t debounce_ns; /* how long ready and waiting must last before they count */
	int64_t hold_ns;     /* how long it counts as busy after Enter, until it shows busy */
	int64_t silence_ns;  /* a program without rules is ready after so much silence */
};

/* The last word of one source of evidence. */
struct activity_signal {
	int64_t at_ns; /* 0: none yet */
	bool found;    /* false: no rule matched */
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX]; /* the rule and what matched */
};

/* The read that a shell sleeps in. */
enum activity_read {
	READS_NOTHING, /* none of its terminal */
	READS_PROMPT,  /* as for its next command */
	READS_INPUT,   /* as by a builtin such as `read` */
};

/* The state of the program's process and of the one in the foreground of its terminal. */
struct activity_look {
	bool known; /* false: /proc does not have the process */
	pid_t program;
	pid_t foreground; /* process group in the foreground of its terminal */
	enum activity_read reads; /* of a program that has the foreground */
	bool reader; /* the foreground's leader waits for its terminal, and for nothing else */
	bool edits;  /* the terminal is not in canonical mode */
};

/* Reads /proc; does not block. `edits`: the terminal is not in canonical mode, as when the program
 * edits its line itself. */
struct activity_look activity_look(pid_t program, bool edits);

struct activity_input {
	bool ended;	       /* the program has ended */
	const char *ended_how; /* its exit record; "" when unknown */
	bool started_ready;    /* the program has been ready since its start */
	bool runs_command;     /* its OSC 133 markers: a command has started and not ended */
	bool marks;	       /* it sends OSC 133 D at the end of commands, before each prompt */
	int64_t marked_ns;     /* its last marker; 0: none yet */
	int64_t prompt_mark_ns; /* its last marker, if that begins a prompt or ends a command; else
				   0 */
	const char *line;      /* the unfinished last line of its output, such as its prompt; "" */
	bool line_goes_on;     /* a rule says: this line is a prompt for the rest of a command */
	const char *prompt;    /* the line of its primary prompt, if known; else "" */
	int64_t entered_ns;    /* Enter behind the last prompt; 0: none yet */
	/* when the typing of the last keys by hand began and ended; 0: none */
	int64_t keys_from_ns, keys_ns;
	int64_t output_ns; /* last output; 0: none yet */
	int64_t started_ns;
	struct activity_look look;     /* rules.shell and rules.terminal only */
	struct activity_signal screen; /* of the last capture */
	bool cursor_waits;	       /* likewise: the cursor stands where a line is to be typed */
	struct activity_signal told;   /* by its output: an escape sequence, an event */
	struct activity_signal hook;   /* by its own hook */
	int64_t title_busy_ns;	       /* when its title last said busy; 0: never */
};

/* State that one conclusion keeps for the next. */
struct activity_memory {
	enum ap_activity candidate; /* ready or waiting, not settled yet */
	int64_t since_ns;	    /* since when; 0: no candidate */
	int64_t busy_ns;	    /* when the program last was busy; 0: never */
	bool reader;		    /* it has been seen to wait for its terminal alone */
};

struct activity {
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX];
	int64_t recheck_ns; /* when time alone may change the conclusion; AP_FOREVER: only output
			       can */
	bool wants_look;    /* the screen may have changed since its last capture */
};

struct activity activity_conclude(const struct activity_rules *rules,
				  const struct activity_input *input,
				  struct activity_memory *memory, int64_t now_ns);

/* Whether a shell with these arguments is interactive: no script, no -c. */
bool activity_is_interactive(const char *const *argv);
