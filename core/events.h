/* The events of a pool: one JSON object a line, in a file of the state directory, of which the last
 * part is kept. Every event has `seq`, which goes up by one, `time` and `event`. Any thread; blocks
 * as the disk does, so never under the pool's lock. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct events;

/* Goes on in that file. Blocks. */
int events_open(struct events **ret, const char *path, struct ap_err *err);
void events_close(struct events *events);

struct event_field {
	const char *name; /* NULL: behind the last one */
	const char *text; /* NULL: it is a number; an empty one is left out */
	int64_t number;
};

/* Adds one of that kind. */
void events_add(struct events *events, const char *kind, const struct event_field *fields);

#define EVENT_FIELDS(...) ((const struct event_field[]){__VA_ARGS__, {0}})

/* Bytes ever written. Does not block. */
int64_t events_size(const struct events *events);

/* Reads up to `size` bytes from `offset`, or from the first that is kept; `ret_offset` is where
 * they begin. How many there were, or -errno. */
long events_read(struct events *events, void *ret, size_t size, int64_t offset,
		 int64_t *ret_offset);
