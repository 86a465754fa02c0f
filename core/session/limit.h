/* A usage limit of the program's provider, as a session has it. Pure: times are passed in.
 *
 * A limit is known by what matched a rule of the profile. The same match, seen on, is the same
 * limit, also when its end has passed, and whatever a clock time in it would mean now; what ends
 * that is a look without it, or a prompt that was given since. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "profile.h"

/* How long a limit counts that names no end. */
#define LIMIT_UNKNOWN_S 300

/* A limit that names a later end counts as one that names none. */
#define LIMIT_LONGEST_S (INT64_C(40) * 24 * 3600)

/* Words that are given for one limit at most. */
#define LIMIT_WORDS_MAX 3

#define LIMIT_RECORD_MAX 256 /* bytes of a record */

struct limit {
	bool on;
	bool is_overload;
	bool broke;	  /* it broke a turn of the lease of `token` */
	uint64_t token;	  /* of the lease then; 0: none */
	int64_t until_s;  /* as the program says, seconds since 1970; 0: unknown */
	int64_t ends_ns;  /* when it counts as over, of the wall clock */
	uint64_t hash;	  /* of what matched when it began, until a look without that; 0: none */
	unsigned n_words; /* given since a turn last ended well */
	char text[ACTIVITY_WHY_MAX]; /* what matched */
};

/* A limit begins, in place of the one before. */
void limit_begin(struct limit *limit, const struct profile_limit *seen, int64_t wall_ns);

/* It counts as over: its words stay counted. */
void limit_end(struct limit *limit);

/* Whether its time has come. */
bool limit_is_over(const struct limit *limit, int64_t wall_ns);

/* Writes and reads what the next daemon needs to know. False: it is no record. */
void limit_record(const struct limit *limit, struct ap_buf *ret);
bool limit_read(const char *record, int64_t wall_ns, struct limit *ret);
