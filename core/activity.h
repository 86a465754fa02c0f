/* What an agent's program is doing, concluded from what is known of it. Pure, but for
 * activity_look(), which reads /proc. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agentpool.h"

/* A look at the program's process. */
struct activity_look {
	bool known; /* false: there was none to look at */
	pid_t program;
	pid_t foreground;    /* process group in the foreground of its terminal */
	bool reads_terminal; /* sleeps in a call that waits for input */
};

/* Reads /proc; does not block. */
struct activity_look activity_look(pid_t program);

struct activity_input {
	bool ended;	       /* the program has */
	const char *ended_how; /* its exit record; "" when unknown */
	bool is_shell;	       /* an interactive shell: it gives its jobs the foreground */
	bool started_ready;    /* it has been ready before */
	int64_t entered_ns;    /* Enter behind the last prompt; 0: none yet */
	int64_t output_ns;     /* last output; 0: none yet */
	int64_t started_ns;
	struct activity_look look; /* of a shell */
};

struct activity {
	enum ap_activity activity;
	char why[128];	    /* the rule and what matched */
	int64_t recheck_ns; /* when time alone may change the conclusion; AP_FOREVER: only output
			       can */
};

struct activity activity_conclude(const struct activity_input *input, int64_t now_ns);

/* Whether a command line starts an interactive shell. */
bool activity_is_shell(const char *const *argv);
