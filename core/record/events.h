/* The events of a pool: one JSON object a line, in a file of the state directory, of which the last
 * part is kept. Every event has `seq`, which goes up by one, `time` and `event`. Noted events go
 * through one bounded queue, and a thread of their own writes them in its order: events that are
 * noted under a lock have the order of that lock, and their caller never waits for the disk. Any
 * thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

struct events;

/* events_open() goes on in that file; events_close() writes what is still in the queue. Both
 * block. */
int events_open(struct events **ret, const char *path, struct ap_err *err);
void events_close(struct events *events);

/* Starts the thread; until then noted events stay in the queue. The thread calls `news`, without a
 * lock, when there is more to read, and once when it ends. -errno. */
int events_start(struct events *events, void (*news)(void *data), void *data);

/* Writes what is in the queue and ends the thread: no event follows any more. Blocks. */
void events_end(struct events *events);

struct event_field {
	const char *name; /* NULL: the end of the array */
	const char *text; /* NULL: it is the number; "": the field is left out */
	int64_t number;	  /* with a text: EVENT_JSON if that is JSON, else 0 */
};

#define EVENT_JSON 1

/* Queues an event; `kind` and the fields' names are literals. Does not block. An event that has no
 * room in the queue is only counted, and an event `missed` says how many there were. */
void events_note(struct events *events, const char *kind, const struct event_field *fields);

/* The same, and the event is in the file when this returns. Blocks on the disk, so never call it
 * under the pool's lock. */
void events_add(struct events *events, const char *kind, const struct event_field *fields);

#define EVENT_FIELDS(...) ((const struct event_field[]){__VA_ARGS__, {0}})

/* Writes all that was noted so far to the file. Blocks on the disk. */
void events_settle(struct events *events);

/* Whether all that was noted is in the file, or nobody writes any more. Does not block: false also
 * while somebody uses the file. */
bool events_are_settled(struct events *events);

/* Where the next event will be, the number of the last event before it, and whether no event
 * follows. Does not block. */
struct events_end {
	int64_t offset, seq;
	bool over;
};
struct events_end events_look(struct events *events);

/* Bytes ever written. Does not block. */
int64_t events_size(const struct events *events);

/* Reads up to `size` bytes from `offset`, or from the first byte that is kept; `ret_offset` is
 * where they begin. Returns how many, or -errno; -EAGAIN: `at_once` is set, and the read could
 * block. */
ssize_t events_read(struct events *events, bool at_once, void *ret, size_t size, int64_t offset,
		    int64_t *ret_offset);
