/* Shared by profile.c, which loads profiles, and profile_rules.c, which applies them. */
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8

#include <jansson.h>
#include <pcre2.h>

#include "profile.h"

struct rule {
	enum ap_activity activity;
	enum profile_source source;
	bool perhaps;	   /* the program may never say it: nothing waits for that */
	unsigned n_lines;  /* matches the last so many lines of the screen; 0: all */
	pcre2_code *regex; /* NULL: PROFILE_EVENT */
	json_t *event;	   /* PROFILE_EVENT: an object that the event contains; else NULL */
	char *text;	   /* the pattern as the profile has it */
};

/* What a program asks: `question = KIND PATTERN`, and what it offers: `option = KIND PATTERN =>
 * KEYS`. */
struct question_rule {
	const char *kind; /* a literal */
	pcre2_code *regex;
	char *keys; /* of an option; "${1}" in it stands for group 1; else NULL */
};

struct auto_answer {
	pcre2_code *regex;
	char *keys;
};

struct profile {
	struct profile_values values;
	struct rule *rules;
	unsigned n_rules;
	struct auto_answer *answers;
	unsigned n_answers;
	struct question_rule *questions, *options; /* in the order of the profile: the first wins */
	unsigned n_questions, n_options;
	pcre2_code *composer, *composer_empty, *lead, *trail, *answer, *conversation,
		*conversation_log;
	pcre2_match_context *match; /* read only */
};
