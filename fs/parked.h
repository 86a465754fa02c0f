/* Parked requests: the one place where a kernel request gets its reply later. Whoever claims a
 * request first replies to it, exactly once. The kernel may interrupt a request at any time: a
 * client that is killed is gone at once. */
#pragma once

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <stdbool.h>

struct parked_set;
struct parked;

/* Starts the thread that handles interrupts. NULL on ENOMEM, or if there can be no thread. */
struct parked_set *parked_set_new(void);
/* Ends the thread. No request may still be parked. */
void parked_set_free(struct parked_set *set);

/* The set's thread calls it, with no lock held, when the client was interrupted: make the answer
 * come, or claim the request and reply. */
typedef void parked_interrupted(struct parked *parked, void *data);

/* Parks a request; from now on only the caller of parked_claim() replies to it. Returns one
 * reference, for the answerer. The last parked_unref() calls `data_free` with `data`. NULL on
 * ENOMEM: the request is still the caller's. Nothing else may know of the request before this
 * returns. */
struct parked *parked_new(struct parked_set *set, fuse_req_t req, parked_interrupted *interrupted,
			  void (*data_free)(void *data), void *data);

/* Claims the request: the caller replies to it now. NULL: it has been claimed before. Call without
 * locks. */
fuse_req_t parked_claim(struct parked *parked);

void parked_unref(struct parked *parked);
