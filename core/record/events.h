/* The events of a pool: one JSON object a line, in a file of the state directory, of which the last
 * part is kept. Every event has `seq`, which goes up by one, `time` and `event`. What is noted goes
 * through one bounded queue and is written in its order, by a thread of its own: whoever notes
 * under a lock has the order of that lock, and never waits for the disk. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

struct events;

/* Goes on in that file. Blocks. Writes what is still in the queue at the end. */
int events_open(struct events **ret, const char *path, struct ap_err *err);
void events_close(struct events *events);

/* Starts the thread; until then what is noted stays in the queue. `news` is called by the thread,
 * without a lock, when there is more to be read, and once when it is over. -errno. */
int events_start(struct events *events, void (*news)(void *data), void *data);

/* Writes what is in the queue and ends the thread: nobody need follow any more. Blocks. */
void events_end(struct events *events);

struct event_field {
	const char *name; /* NULL: behind the last one */
	const char *text; /* NULL: it is a number; an empty one is left out */
	int64_t number;
};

/* Notes one of that kind; `kind` and the fields' names are literals. Does not block. What has no
 * room in the queue is counted, and an event `missed` says how many there were. */
void events_note(struct events *events, const char *kind, const struct event_field *fields);

/* The same, and it is in the file when this returns. Blocks as the disk does, so never under the
 * pool's lock. */
void events_add(struct events *events, const char *kind, const struct event_field *fields);

#define EVENT_FIELDS(...) ((const struct event_field[]){__VA_ARGS__, {0}})

/* Has all that was noted so far in the file. Blocks as the disk does. */
void events_settle(struct events *events);

/* Whether it is there already, or nobody writes any more. Does not block. */
bool events_are_settled(struct events *events);

/* Where the next event will be, and the number of the last before it; whether no one follows.
 * Does not block. */
struct events_end {
	int64_t offset, seq;
	bool over;
};
struct events_end events_look(struct events *events);

/* Bytes ever written. Does not block. */
int64_t events_size(const struct events *events);

/* Reads up to `size` bytes from `offset`, or from the first that is kept; `ret_offset` is where
 * they begin. How many there were, or -errno; -EAGAIN: not `at_once`, as that could block. */
ssize_t events_read(struct events *events, bool at_once, void *ret, size_t size, int64_t offset,
		    int64_t *ret_offset);
