/* The sandbox of an agent's program, made by bubblewrap (bwrap): what of the machine is there for
 * the program, and what it may write. Knows paths; what they are is the caller's to say. The shim
 * starts it (sandboxed.h).
 *
 * bwrap mounts one thing after the other, in the order of its words, and what comes later lies on
 * top:
 *
 *     1. the whole machine, read-only; a /dev and a /proc of its own, of which what sets the kernel
 *        is read-only
 *     2. /tmp, /var/tmp and /run, empty and writable (/dev/shm is in the new /dev)
 *     3. of what lay there: what the program is started from, read-only (`reads`)
 *     4. what the profile lists, writable (`writes`), where that is not hidden
 *     5. an empty read-only directory, or /dev/null, over what is hidden (`hides`): keys, and the
 *        state directories of all pools
 *     6. of what is hidden now: the repository's objects and the agent's records, read-only
 *        (`keeps`); the worktree, the agent's git directory and what of its records the program
 *        writes, writable (`owns`)
 *
 * A path in `hides` wins over one in `writes` at or below it, and loses to those in `keeps` and
 * `owns`. The shim then hides all mounts of pools but the agent's own directory. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "words.h"

/* Absolute paths without links; a path that is not there is left out by the caller. */
struct sandbox_plan {
	const char *bwrap;	 /* its path */
	bool network;		 /* the machine's; else one of its own, with loopback alone */
	unsigned uid;		 /* whose /run/user is made */
	const char *dir;	 /* where the program starts */
	const char *pool;	 /* the own pool's mount; NULL: nobody answers there */
	struct ap_words empties; /* what of 2. there is on this machine */
	struct ap_words reads, writes, hides, keeps, owns;
	struct ap_words hidden_files; /* those of `hides` that are no directories */
};

/* Fills `empties`. */
void sandbox_begin(struct sandbox_plan *plan);
void sandbox_plan_fini(struct sandbox_plan *plan);

/* Appends the path of bwrap and its words. ENOMEM: ret->failed. */
void sandbox_words(const struct sandbox_plan *plan, struct ap_words *ret);

/* Add a path as it is without links, if it is there: to `reads`, `writes`, `keeps` or `owns`; to
 * `hides`, or to `hidden_files`, by what it is. May block on a mount that does not answer. */
void sandbox_add(struct ap_words *paths, const char *path);
void sandbox_hide(struct sandbox_plan *plan, const char *path);

/* Whether a directory on the way to a path is in `writes` already: what is there is writable with
 * it, and may be a link that an agent has made. */
bool sandbox_may_change(const struct sandbox_plan *plan, const char *path);

/* Writes the words as the shim reads them, each with its NUL. */
int sandbox_write(const struct sandbox_plan *plan, const char *file, struct ap_err *err);

/* The path of bwrap, in `ret`, by PATH. -ENOENT: the sentence says what to install. */
int sandbox_find(struct ap_buf *ret, struct ap_err *err);

/* Tries the sandbox in the form that agents get, by `shim`. -EPERM, …: the sentence says what is
 * missing. Blocks for some milliseconds. */
int sandbox_probe(const struct sandbox_plan *plan, const char *shim, struct ap_err *err);
