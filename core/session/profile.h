/* Program profiles: what the pool knows of the program that its agents run, as data. A profile is a
 * file NAME.conf of lines "KEY = VALUE": how to start the program, how to tell what it is doing,
 * how to submit a prompt. agentpoolfs(5) describes the keys.
 *
 * Knows files and patterns, nothing of agents. A loaded profile never changes: any thread may call
 * all functions. Patterns are Perl-compatible regular expressions over several lines, with a bound
 * on the work of one match: the output of programs is hostile. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "activity.h"
#include "buf.h"
#include "err.h"
#include "permission.h"
#include "usage.h"
#include "when.h"

struct profile;

/* How sessions communicate with a program: the key `mode`. */
enum profile_mode {
	PROFILE_TERMINAL,
	PROFILE_SHELL,	/* in a terminal; its processes are evidence, too */
	PROFILE_STREAM, /* prompts are lines on its standard input, answers lines on its output */
	PROFILE_ACP,	/* the same, of the Agent Client Protocol */
};

/* The text that a rule is about. */
enum profile_source {
	PROFILE_SCREEN,	      /* the terminal's screen */
	PROFILE_TITLE,	      /* the terminal's title */
	PROFILE_OSC,	      /* an operating system command in the output: "NUMBER;TEXT" */
	PROFILE_EVENT,	      /* mode stream: a line of the output, an object of JSON */
	PROFILE_LINE,	      /* mode shell: the unfinished last line of the output */
	PROFILE_CONVERSATION, /* the end of the conversation's file */
};

/* Loads a profile: NAME.conf in the first of `dirs` (NULL at the end) that has it, or the file at
 * that path if `name` has a slash. -ENOENT: there is none; -EINVAL: it is bad, the sentence names
 * file and line; other errors of reading it. Blocks. */
int profile_load(struct profile **ret, const char *name, const char *const *dirs,
		 struct ap_err *err);

/* The profile of an unknown program. NULL on ENOMEM. */
struct profile *profile_unknown(void);
void profile_free(struct profile *profile);

/* --- values --- */

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

/* The plain values of a profile. Strings are "" without a value; keys are in tmux's names. */
struct profile_values {
	char *name;  /* of the file, without .conf */
	enum profile_mode mode;
	struct activity_rules rules;
	struct profile_words args;  /* arguments between the program's name and the user's own */
	struct profile_words env;   /* NAME=VALUE sets, NAME unsets */
	struct profile_words writes; /* paths that a sandbox lets the program write */
	struct profile_words passes; /* patterns of the environment that a sandbox lets through */
	struct profile_words new_conversation; /* arguments that begin one of our choice */
	struct profile_words resume;	       /* arguments that go on with one */
	struct profile_words own_conversation; /* the user's arguments that choose one */
	bool holds_conversation; /* also one that it was told to forget: nobody else can open it */
	bool follows_conversation; /* what `conversation` finds later is the program's, too */
	int64_t settle_ns;	   /* that a start that goes on with one has to look ready, unless
				    * profile_resumed() */
	bool conversation_stays; /* a conversation can be gone on with in its own worktree alone */
	char *conversation_file;	       /* path of the file that keeps one; "": not known */
	char *conversation_from;	       /* pattern of paths that it may be copied from */
	char *conversations;	 /* patterns of paths: `conversation` finds the present one there */
	char *conversation_logs; /* likewise, `conversation_log` */
	struct profile_pairs files; /* name and text of files in each agent's directory */
	struct profile_pairs seeds; /* path of a JSON file, and the object to merge into it */
	struct profile_pairs configure; /* mode acp: options of the session, and their values */
	char *submit;		    /* keys that submit the pasted text */
	char *abandon;		    /* keys that remove text that was not submitted */
	char *cancel;		    /* keys that break off what the program does, or asks */
	char *clear;		    /* command that makes the program forget its context */
	char *quit;		    /* command that ends the program */
	int64_t pause_ns;	    /* between paste and submit, at least */
	char *input;		    /* mode stream: JSON of a prompt; "${PROMPT}" stands for it */
	char *response;		    /* mode stream: JSON pointer to the text, in the ready event */
	struct when_zone limit_zone; /* of the times that the program names */
	bool limit_is_shared;	     /* one agent's limit is everyone's */
	char *go_on;		     /* the prompt that has it go on after a limit; "": none */
};

const struct profile_values *profile_values(const struct profile *profile);

/* Applies the rules of a source to a text: those for waiting first, then busy, starting, ready; the
 * first match wins. PROFILE_SCREEN applies the rules of the title, too, if `title` is not NULL.
 * False: no rule matches. Does not set `at_ns`. */
bool profile_judge(const struct profile *profile, enum profile_source source, const char *text,
		   const char *title, struct activity_signal *ret);

enum profile_composer {
	COMPOSER_UNKNOWN, /* the profile does not say, or it is not on the screen */
	COMPOSER_EMPTY,
	COMPOSER_FILLED,
};

/* Whether the input field on the screen has text in it. */
enum profile_composer profile_composer(const struct profile *profile, const char *screen);
bool profile_has_composer(const struct profile *profile);

/* Whether the screen shows the conversation that the program was started to go on with. False also
 * if the profile does not say how that looks. */
bool profile_resumed(const struct profile *profile, const char *screen);

/* Appends a prompt, with a blank before or behind it if it matches `lead` or `trail`: the program
 * would not read it as plain text without. -ENOMEM. */
int profile_dress(const struct profile *profile, const char *text, size_t len, struct ap_buf *ret);

/* Appends the answer to the last prompt, as `answer` finds it in the terminal's screen and history.
 * False: the profile has no `answer`, or it does not match. */
bool profile_answer(const struct profile *profile, const char *terminal, struct ap_buf *ret);
bool profile_has_answer(const struct profile *profile);

/* Finds a conversation in a text: the path and the first bytes of a file by the rule
 * `conversation`, or a line by `conversation_log`. False: the rule does not match. */
struct profile_found {
	struct ap_buf id;   /* of the conversation */
	struct ap_buf cwd;  /* the directory that it belongs to */
	struct ap_buf time; /* when it began, RFC 3339; only of a line */
};
bool profile_conversation(const struct profile *profile, bool is_line, const char *text, size_t len,
			  struct profile_found *ret);
void profile_found_fini(struct profile_found *found);

/* Mode stream: appends the line of the program's input for a prompt. -EILSEQ: the prompt is not
 * UTF-8; -ENOMEM. */
int profile_input(const struct profile *profile, const char *text, size_t len, struct ap_buf *ret);

/* Mode stream: appends the text of an answer, from the event that says ready. */
void profile_response(const struct profile *profile, const char *event, struct ap_buf *ret);

/* Fills in what a text says of use by the rules of its source: where the program's counters are.
 * The number is that of the context, of an event that says it; else 0. False: it says nothing. */
bool profile_usage(const struct profile *profile, enum profile_source source, const char *text,
		   size_t len, struct ap_usage_report *ret);

/* Whether there are such rules. */
bool profile_says_usage(const struct profile *profile, enum profile_source source);

#define QUESTION_OPTIONS_MAX 16
#define QUESTION_TEXT_MAX    1024 /* bytes of a title or detail, with the NUL */
#define QUESTION_NAME_MAX    256  /* likewise of an option */

/* One of the answers that a program offers. */
struct question_option {
	char id[64];
	const char *kind; /* allow_once, allow_always, reject_once, reject_always, other */
	char name[QUESTION_NAME_MAX];
	char keys[64]; /* that give this answer, in tmux's names */
};

/* What a program asks a human. Every text is one line of printable text. */
struct question {
	char id[20]; /* the same as long as it asks the same; "": it asks nothing */
	char title[QUESTION_TEXT_MAX];
	char detail[QUESTION_TEXT_MAX]; /* such as the command that it wants to run; "" */
	const char *kind;		/* of what it wants to do, as ACP's kinds of tools */
	struct question_option options[QUESTION_OPTIONS_MAX];
	unsigned n_options;
};

/* Finds the question on the screen by the rules `question` and `option`. False: no rule matches,
 * and `ret` is empty. */
bool profile_question(const struct profile *profile, const char *screen, struct question *ret);

/* The option that an answer names: by its kind, which are the words allow, always and reject,
 * whatever ids the program has given; else by its id. NULL: none. */
const struct question_option *question_option(const struct question *question, const char *answer);

/* The refusal of a word that names none: -EINVAL. `cancels`: the word cancel is an answer, too. */
int question_no_answer(const struct question *asked, const char *word, bool cancels,
		       struct ap_err *err);

/* The option that a rule takes: allow_once, never allow_always; reject_once, or else reject_always.
 * NULL: none. */
const struct question_option *question_option_by(const struct question *question,
						 enum ap_verdict verdict);

/* --- limits --- */

#define PROFILE_LIMIT_TEXT 4096 /* bytes at the end of an answer that are looked at */

/* A usage limit that a program tells of. */
struct profile_limit {
	bool found;	  /* false: none, and nothing else is set */
	bool is_overload; /* of the provider, and no end is named */
	int64_t until_s;  /* seconds since 1970; 0: no end is named, or none that can be */
	uint64_t hash;	  /* of what matched */
	char text[ACTIVITY_WHY_MAX]; /* likewise, one line */
};

/* Applies the rules `limited` to the screen (`is_answer`: to the text with which a turn ended) at
 * that time of the wall clock. False: no rule matches. */
bool profile_limited(const struct profile *profile, bool is_answer, const char *text, int64_t now_s,
		     struct profile_limit *ret);

/* The keys of the auto_answer that matches the screen, or NULL. */
const char *profile_auto_answer(const struct profile *profile, const char *screen);
