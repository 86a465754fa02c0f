/* Requests of the kernel that wait: the one place where a reply comes later. Each is replied to
 * exactly once, by whoever claims it first, and can be interrupted at any time: a client that is
 * told to die is gone at once. */
#pragma once

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <stdbool.h>

struct parked_set;
struct parked;

/* Starts the thread that looks after interrupts. NULL if it cannot be had. */
struct parked_set *parked_set_new(void);
/* Ends the thread. No request may be parked any more. */
void parked_set_free(struct parked_set *set);

/* Called by the set's thread, with no lock held, when the client has been interrupted: make the
 * answer come, or claim and reply. */
typedef void parked_interrupted(struct parked *parked, void *data);

/* Parks a request; from now on it is replied to only through parked_claim(). With one reference for
 * who will answer. `data_free` is called with `data` when the last reference has gone. NULL on
 * ENOMEM: the request is still the caller's. Nothing else may know of the request before this
 * returns. */
struct parked *parked_new(struct parked_set *set, fuse_req_t req, parked_interrupted *interrupted,
			  void (*data_free)(void *data), void *data);

/* The request, to be replied to by the caller now; or NULL: it has been replied to. Call without
 * locks. */
fuse_req_t parked_claim(struct parked *parked);

void parked_unref(struct parked *parked);
