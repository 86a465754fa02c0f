/* A thread that waits for what comes to pass, and calls who wants to know: descriptors that can be
 * read, files that grow, and times. It sleeps until there is something; what is set costs no system
 * call but one that has it wake earlier.
 *
 * Calls are made one at a time, with no lock held, and must not block. All functions but those
 * marked may be called from any thread, from a call too, and with any lock held. */
#pragma once

#include <stdint.h>

#include "clock.h"
#include "err.h"

struct loop;

/* One thing that is waited for, embedded in what it belongs to. */
struct loop_source {
	void (*call)(struct loop_source *source);

	/* the loop's own, guarded by its lock */
	uint32_t index;	 /* in its table, from 1 on; 0: it is in none */
	uint32_t serial; /* of what is watched: events of something before are dropped */
	int fd;		 /* that is watched; -1: none */
	int file;	 /* inotify's number of the file that is watched; -1: none */
	int64_t at_ns;	 /* when it is called; AP_FOREVER: not by the time */
	uint32_t place;	 /* among the times */
};

/* Makes a loop without a thread. -EMFILE, … */
int loop_new(struct loop **ret, struct ap_err *err);

/* Starts its thread, in which all signals are blocked. -EAGAIN. */
int loop_start(struct loop *loop, struct ap_err *err);

/* Ends the thread; what has not been called yet is not called any more. Blocks until a call that is
 * under way has returned. Not from a call. */
void loop_stop(struct loop *loop);

/* Frees a loop that was stopped, or not started; NULL is ignored. Sources need not be removed
 * before, and cannot be afterwards. */
void loop_free(struct loop *loop);

/* Takes up a source, which waits for nothing yet; all that follows cannot want for memory then.
 * -ENOMEM. */
int loop_add(struct loop *loop, struct loop_source *source, void (*call)(struct loop_source *));

/* Lets go of a source, if it is in the loop: whoever still sets or watches something for it has no
 * effect, and it may be freed when nobody does. Blocks while it is being called, unless from that
 * call: not with a lock held that its call takes. */
void loop_remove(struct loop *loop, struct loop_source *source);

/* Calls the source while `fd` can be read or has come to its end, in place of what was watched
 * before; -1: no more. The descriptor stays the caller's, who lets go of it here before he closes
 * it. A negative errno. */
int loop_watch_fd(struct loop *loop, struct loop_source *source, int fd);

/* Calls the source after something was written to a file, likewise; NULL: no more. A file has
 * one source: -EEXIST for another. -ENOENT, … */
int loop_watch_file(struct loop *loop, struct loop_source *source, const char *path);

/* Calls the source once when it is time, in place of the time before; AP_FOREVER: not at all. */
void loop_set(struct loop *loop, struct loop_source *source, int64_t at_ns);

/* The same, but leaves a time alone that is earlier. */
void loop_advance(struct loop *loop, struct loop_source *source, int64_t at_ns);
