/* What profile.c, which loads profiles, and profile_rules.c, which applies them, share. */
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8

#include <jansson.h>
#include <pcre2.h>

#include "profile.h"

struct rule {
	enum ap_activity activity;
	enum profile_source source;
	unsigned n_lines;  /* of the screen that are looked at, from the end; 0: all */
	pcre2_code *regex; /* NULL: PROFILE_EVENT */
	json_t *event;	   /* what is in the event; NULL: all others */
	char *text;	   /* as it is written */
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
	pcre2_code *composer, *composer_empty, *lead, *trail, *answer;
	pcre2_match_context *match; /* read only */
};
