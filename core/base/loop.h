/* An event loop: one thread that waits for descriptors that can be read, files that grow, and
 * times, and calls the source of each. It sleeps in between. Setting a time costs a system call
 * only if the loop has to wake earlier for it.
 *
 * The loop calls one source at a time, with no lock held; a call must not block. Any thread may
 * call all functions except those marked, from a source's call too, and with any lock held. */
#pragma once

#include <stdint.h>

#include "clock.h"
#include "err.h"

struct loop;

/* What the loop waits for on behalf of one object, which embeds it. */
struct loop_source {
	void (*call)(struct loop_source *source);

	/* the loop's own, guarded by its lock */
	uint32_t index;	 /* in its table, from 1 on; 0: it is in none */
	uint32_t serial; /* of what is watched: the loop drops events of an earlier watch */
	int fd;		 /* that is watched; -1: none */
	int file;	 /* inotify's number of the file that is watched; -1: none */
	int64_t at_ns;	 /* when it is called; AP_FOREVER: not by the time */
	uint32_t place;	 /* among the times */
};

/* Makes a loop without a thread. -EMFILE, … */
int loop_new(struct loop **ret, struct ap_err *err);

/* Starts its thread, in which all signals are blocked. -EAGAIN. */
int loop_start(struct loop *loop, struct ap_err *err);

/* Ends the thread: no source is called any more. Blocks until a call that is under way has
 * returned. Not from a source's call. */
void loop_stop(struct loop *loop);

/* Frees a loop that was stopped, or not started; NULL is ignored. Sources need not be removed
 * before, and cannot be afterwards. */
void loop_free(struct loop *loop);

/* Adds a source, which waits for nothing yet. Later calls for it need no memory. -ENOMEM. */
int loop_add(struct loop *loop, struct loop_source *source, void (*call)(struct loop_source *));

/* Removes a source, if it is in the loop. Setting or watching something for it has no effect from
 * now on, and its memory may be freed once nobody does. Blocks while the source is being called,
 * unless that call removes it: do not hold a lock that the call takes. */
void loop_remove(struct loop *loop, struct loop_source *source);

/* Calls the source while `fd` can be read or has come to its end, in place of the descriptor
 * before; -1: none. The descriptor stays the caller's: set another, or -1, before closing it. A
 * negative errno. */
int loop_watch_fd(struct loop *loop, struct loop_source *source, int fd);

/* Calls the source after a write to a file, in place of the file before; NULL: none. A file has one
 * source: -EEXIST for another. -ENOENT, … */
int loop_watch_file(struct loop *loop, struct loop_source *source, const char *path);

/* Calls the source once at that time, in place of the time before; AP_FOREVER: never. */
void loop_set(struct loop *loop, struct loop_source *source, int64_t at_ns);

/* The same, but keeps a time that is earlier. */
void loop_advance(struct loop *loop, struct loop_source *source, int64_t at_ns);
