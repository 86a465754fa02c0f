/* Program profiles: what the pool knows of the program that its agents run, as data. A profile is a
 * file NAME.conf of lines "KEY = VALUE": how the program is started, how it is told what it does,
 * how a prompt is submitted. agentpoolfs(5) describes the keys.
 *
 * Knows files and patterns, nothing of agents. A loaded profile never changes: all functions may be
 * called from any thread. Patterns are Perl-compatible regular expressions over several lines, with
 * a bound on the work of one match: what programs print is hostile. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "activity.h"
#include "buf.h"
#include "err.h"

struct profile;

/* How a program is spoken to: `mode`. */
enum profile_mode {
	PROFILE_TERMINAL,
	PROFILE_SHELL,	/* in a terminal, and known by its processes */
	PROFILE_STREAM, /* prompts are lines on its standard input, answers lines on its output */
};

/* Where a rule looks. */
enum profile_source {
	PROFILE_SCREEN, /* what is on the terminal */
	PROFILE_TITLE,	/* the terminal's title */
	PROFILE_OSC,	/* an operating system command, as it passes: "NUMBER;TEXT" */
	PROFILE_EVENT,	/* mode stream: a line that the program printed, an object of JSON */
	PROFILE_LINE,	/* mode shell: the line that it has begun to print */
};

/* Loads a profile: of that name in the first of `dirs` (NULL at the end) that has one, or of that
 * path where `name` has a slash. -ENOENT: there is none; -EINVAL: a bad one, the sentence names
 * file and line. Blocks. */
int profile_load(struct profile **ret, const char *name, const char *const *dirs,
		 struct ap_err *err);

/* One of a program that nothing is known of. NULL on ENOMEM. */
struct profile *profile_unknown(void);
void profile_free(struct profile *profile);

/* --- what it says --- */

struct profile_words {
	char **at; /* `n` of them */
	unsigned n;
};

/* A value with a word before it: "PATH TEXT". */
struct profile_pair {
	char *name, *value;
};

struct profile_pairs {
	struct profile_pair *at;
	unsigned n;
};

/* The plain values of a profile. Strings are "" where nothing is said; keys are in tmux's names. */
struct profile_values {
	char *name;  /* of the file, without .conf */
	enum profile_mode mode;
	struct activity_rules rules;
	struct profile_words args;  /* put behind the program's name */
	struct profile_words env;   /* NAME=VALUE sets, NAME unsets */
	struct profile_pairs files; /* name and text of files that an agent has of its own */
	struct profile_pairs seeds; /* path of a JSON file, and what it is to have */
	char *submit;		    /* keys that submit what was pasted */
	char *abandon;		    /* keys that take away what was not submitted */
	char *clear;		    /* what is typed to have it forget */
	char *quit;		    /* what is typed to have it end */
	int64_t pause_ns;	    /* between paste and submit, at least */
	char *input;		    /* mode stream: a prompt, as JSON with ${PROMPT} in it */
	char *response;		    /* mode stream: JSON pointer to the text, in the ready event */
};

const struct profile_values *profile_values(const struct profile *profile);

/* What the rules of a source make of a text, in the order waiting, busy, starting, ready. For
 * PROFILE_SCREEN the title is looked at too, if it is not NULL. False when none matches. Does not
 * set `at_ns`. */
bool profile_judge(const struct profile *profile, enum profile_source source, const char *text,
		   const char *title, struct activity_signal *ret);

enum profile_composer {
	COMPOSER_UNKNOWN, /* the profile does not say, or it is not on the screen */
	COMPOSER_EMPTY,
	COMPOSER_FILLED,
};

/* Whether there is text in the field that prompts are written into. */
enum profile_composer profile_composer(const struct profile *profile, const char *screen);
bool profile_has_composer(const struct profile *profile);

/* Appends a prompt as the program takes it: with a blank before or behind it where it would mean
 * something else without. -ENOMEM. */
int profile_dress(const struct profile *profile, const char *text, size_t len, struct ap_buf *ret);

/* Appends the answer to the last prompt, from all that is on the terminal and above it. False when
 * the profile does not say how, or none is there. */
bool profile_answer(const struct profile *profile, const char *terminal, struct ap_buf *ret);
bool profile_has_answer(const struct profile *profile);

/* Mode stream: what is written to the program's input for a prompt, one line. -EILSEQ: it is no
 * UTF-8; -ENOMEM. */
int profile_input(const struct profile *profile, const char *text, size_t len, struct ap_buf *ret);

/* Mode stream: appends the text of an answer, from the event that says ready. */
void profile_response(const struct profile *profile, const char *event, struct ap_buf *ret);

/* The keys that always answer what is on the screen, or NULL. */
const char *profile_auto_answer(const struct profile *profile, const char *screen);
