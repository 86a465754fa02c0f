/* When something is, as programs say it to people: a clock time, a date, a span. Pure, but for the
 * zone of this machine, which the C library knows. Texts are what a program has printed: of one
 * over WHEN_TEXT_MAX bytes, or with anything in it that is not understood, nothing is taken.
 *
 * Times are seconds since 1970. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WHEN_TEXT_MAX 64

/* The zone of a time that names none. */
struct when_zone {
	bool local;	  /* this machine's */
	int32_t offset_s; /* else: east of UTC */
};

/* Reads local, UTC or +HH:MM. -EINVAL. */
int when_zone_parse(const char *text, struct when_zone *ret);

/* Reads a clock time, with a date before it or without: 3pm, 3:04 PM, 15:04:05, Nov 28th, 2026 3:04
 * PM, 2026-11-28 15:04, 2026-11-28T15:04:05Z. Without a date it is the next such time; a time of
 * the present minute is the end of that minute. Without a year it is the next such date. -EINVAL:
 * it is none. */
int when_parse(const char *text, size_t len, int64_t now_s, struct when_zone zone, int64_t *ret);

/* Reads a span such as 3h, 21h35m10s, 3 days 2 hours and 5 minutes, 45 seconds; a number alone is
 * seconds; what is left of a second is a second more. -EINVAL; -ERANGE: over a century. */
int when_span_parse(const char *text, size_t len, int64_t *ret);

/* Reads seconds since 1970, or milliseconds where the number is that large. -EINVAL; -ERANGE. */
int when_epoch_parse(const char *text, size_t len, int64_t *ret);

/* Writes RFC 3339 in UTC, such as 2026-11-23T10:00:00Z; 32 bytes are enough. */
void when_format(int64_t at_s, char *ret_text, size_t size);
