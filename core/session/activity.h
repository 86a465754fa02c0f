/* What an agent's program is doing, concluded from what is known of it. Pure, but for the looks at
 * processes, which read /proc.
 *
 * Evidence comes from the program's processes, from its terminal, and from itself: a hook that
 * writes `activity`, an escape sequence. Where it contradicts itself, waiting goes before busy,
 * busy before ready: a prompt typed too late costs time, one typed too early may answer a question
 * that nobody has read. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "states.h"

#define ACTIVITY_WHY_MAX 128

/* How a program's activity is concluded: from its profile. */
struct activity_rules {
	bool shell;	     /* an interactive shell: it gives its jobs the foreground */
	bool reports;	     /* it says itself what it does: nothing else is evidence */
	bool looks;	     /* there are rules about the screen */
	bool tells_ready;    /* some rule says when it is ready: silence does not */
	bool says_ready;     /* it says so itself by what it prints: silence does not at a start */
	int64_t debounce_ns; /* how long ready and waiting must have been so */
	int64_t hold_ns;     /* how long it counts as busy after a prompt before it has shown it */
	int64_t silence_ns;  /* a program without rules is ready after so much of it */
};

/* What one source of evidence said last. */
struct activity_signal {
	int64_t at_ns; /* 0: nothing yet */
	bool found;    /* false: it looked, and nothing matched */
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX]; /* the rule and what matched */
};

/* What a shell sleeps in. */
enum activity_read {
	READS_NOTHING, /* no read of its terminal */
	READS_PROMPT,  /* one as for its next command */
	READS_INPUT,   /* one as a command of its own makes, such as `read` */
};

/* A look at the program's process and at that in the foreground of its terminal. */
struct activity_look {
	bool known; /* false: there was none to look at */
	pid_t program;
	pid_t foreground; /* process group in the foreground of its terminal */
	enum activity_read reads;
	bool job_reads; /* the foreground's leader sleeps in a read of its terminal */
};

/* Reads /proc; does not block. `edits`: the terminal hands its input on as it is typed, as to a
 * program that edits its line itself. */
struct activity_look activity_look(pid_t program, bool edits);

struct activity_input {
	bool ended;	       /* the program has */
	const char *ended_how; /* its exit record; "" when unknown */
	bool started_ready;    /* it has been ready before */
	bool runs_command;     /* by its own marks (OSC 133) it is between start and end of one */
	bool marks;	       /* it marks where commands end, which is before every first prompt */
	int64_t marked_ns;     /* its last mark; 0: none yet */
	const char *line;      /* that it has begun to print, such as its prompt; "" */
	bool line_goes_on;     /* by a rule: it is a prompt for the rest of a command */
	const char *prompt;    /* that line as its first prompt is known to be; "" when it is not */
	int64_t entered_ns;    /* Enter behind the last prompt; 0: none yet */
	/* the last keys that were typed by hand, from when on and when they had been; 0: none */
	int64_t keys_from_ns, keys_ns;
	int64_t output_ns; /* last output; 0: none yet */
	int64_t started_ns;
	struct activity_look look;     /* of a shell */
	struct activity_signal screen; /* the last look at it */
	struct activity_signal told;   /* what its output said: an escape sequence, an event */
	struct activity_signal hook;   /* what its own hook wrote */
	int64_t title_busy_ns;	       /* when its title last said busy; 0: never */
};

/* What the last conclusion came to, for the next. */
struct activity_memory {
	enum ap_activity candidate; /* what was seen, and since when */
	int64_t since_ns;	    /* 0: nothing yet */
	int64_t busy_ns;	    /* when it last was busy; 0: never */
};

struct activity {
	enum ap_activity activity;
	char why[ACTIVITY_WHY_MAX];
	int64_t recheck_ns; /* when time alone may change the conclusion; AP_FOREVER: only output
			       can */
	bool wants_look;    /* the screen has changed since it was looked at */
};

struct activity activity_conclude(const struct activity_rules *rules,
				  const struct activity_input *input,
				  struct activity_memory *memory, int64_t now_ns);

/* Whether the words of a shell's command line make it interactive. */
bool activity_is_interactive(const char *const *argv);
