/* What leases left, kept whole for a while: STATE_DIR/kept/LABEL@TOKEN with `info`, a text, and
 * `files` and `git`, moved there. Oldest first they go when they are too old or too many bytes.
 *
 * Thread-safe. Functions return 0 or a negative errno with its sentence. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

struct kept_work; /* of one state directory */

/* Takes up what is there. NULL on ENOMEM. Blocks. */
struct kept_work *kept_work_new(const char *state_dir);
void kept_work_free(struct kept_work *kept);

#define KEPT_NAME_MAX 128 /* LABEL@TOKEN */

/* What is known of one. */
struct kept_info {
	char name[KEPT_NAME_MAX];
	char label[72];
	uint64_t token;
	char agent[32];
	char base[72],
		commit[72]; /* what the lease began at and what was saved of it; "": nothing */
	char backend[16];   /* overlay: `files` is an upper layer over the files of `template` */
	char template_commit[72];
	char reason[32];  /* why the lease ended */
	int64_t ended_ns; /* wall clock */
	int64_t size;	  /* bytes of blocks that it takes; -1: not counted yet */
};

/* Begins one: makes its directory, and writes `info`. `ret_dir`: where the caller moves `files` and
 * `git` to. -EEXIST: there is one of that name. Blocks as the disk does. */
int kept_work_begin(struct kept_work *kept, const struct kept_info *info, struct ap_buf *ret_dir,
		    struct ap_err *err);

/* It is whole, and is listed from now on; it is counted behind the caller, by kept_work_tidy(). */
void kept_work_end(struct kept_work *kept, const char *name);

/* Counts what has not been counted, and removes those that are older than `max_age_ns` or beyond
 * `max_size` bytes together, the oldest first; 0 is off: nothing is kept. `each` is told what was
 * removed. Blocks, long. `ret_stuck`: how many of them could not be removed as a whole. */
int kept_work_tidy(struct kept_work *kept, int64_t max_age_ns, int64_t max_size,
		   void (*each)(void *data, const struct kept_info *info), void *data,
		   unsigned *ret_stuck, struct ap_err *err);

/* The names in order, the oldest first; an array that the caller frees. Does not block. */
int kept_work_list(struct kept_work *kept, struct kept_info **ret, size_t *ret_n);

/* One of them. -ENOENT. Does not block. */
int kept_work_find(struct kept_work *kept, const char *name, struct kept_info *ret);

/* Keeps it from being removed, and lets it be again, while its files are read. -ENOENT. */
int kept_work_hold(struct kept_work *kept, const char *name, struct ap_buf *ret_dir);
void kept_work_release(struct kept_work *kept, const char *name);
