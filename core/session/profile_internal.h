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

/* `limited = SOURCE PATTERN` */
struct limit_rule {
	bool is_answer;	  /* about the end of a turn; else about the screen */
	unsigned n_lines; /* as in struct rule */
	pcre2_code *regex;
};

struct auto_answer {
	pcre2_code *regex;
	char *keys;
};

/* What texts say of use: `usage = SOURCE PATTERN`, or `usage = event NAME POINTER`. */
struct usage_rule {
	enum profile_source source;
	pcre2_code *regex; /* NULL: of an event */
	int value;	   /* of an event: an enum ap_usage_value, or AP_N_USAGE: the context */
	char *pointer;
};

struct profile {
	struct profile_values values;
	struct rule *rules;
	unsigned n_rules;
	struct auto_answer *answers;
	unsigned n_answers;
	struct usage_rule *usages;
	unsigned n_usages;
	struct question_rule *questions, *options; /* in the order of the profile: the first wins */
	unsigned n_questions, n_options;
	struct limit_rule *limits; /* likewise */
	unsigned n_limits;
	pcre2_code *composer, *composer_empty, *lead, *trail, *answer, *conversation,
		*conversation_log, *resumed;
	pcre2_match_context *match; /* read only */
};

/* --- profile.c --- */

/* Compiles a pattern. -EINVAL, with a sentence. */
int profile_regex(pcre2_code **ret, const char *text, struct ap_err *err);

/* --- profile_usage.c --- */

/* Reads the value of a key `usage`, and changes its text. -EINVAL, -ENOMEM. */
int usage_rule_parse(char *text, struct usage_rule *ret, struct ap_err *err);
void usage_rule_fini(struct usage_rule *rule);
