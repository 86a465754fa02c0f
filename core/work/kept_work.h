/* What leases left, kept whole for a while: STATE_DIR/kept/LABEL@TOKEN has `info`, a text, and
 * `files` and `git`, which the caller moved there. kept_work_tidy() removes kept work that is too
 * old, and the oldest when all of it takes too many bytes. Kept work outlives the daemon: the next
 * one finds it.
 *
 * Thread-safe. Functions return 0 or a negative errno with its sentence. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

struct kept_work; /* of one state directory */

/* Finds the kept work that is there, and removes directories that were begun and have neither
 * `files` nor `git`. NULL on ENOMEM. Blocks. */
struct kept_work *kept_work_new(const char *state_dir);
void kept_work_free(struct kept_work *kept); /* NULL is ignored */

#define KEPT_NAME_MAX	128 /* LABEL@TOKEN */
#define KEPT_NUMBER_MAX ((1u << 28) - 1)

/* What is known of one kept work. An unknown text is "", an unknown number 0. */
struct kept_info {
	char name[KEPT_NAME_MAX];
	char label[72];
	uint64_t token;
	unsigned number; /* the low bits of the token: 1 to KEPT_NUMBER_MAX */
	char agent[32];
	char base[72],
		commit[72]; /* where the lease began and the commit that saved its work; "": none */
	char branch[96];
	/* overlay: `files` is an upper directory over the template's files; else `files` has what
	 * was changed */
	char backend[16];
	char template_commit[72];
	char reason[32];  /* why the lease ended */
	char usage[192];  /* what it has used, as one line; "": nothing is known */
	int64_t ended_ns; /* wall clock; whole seconds are kept */
	int64_t size;	  /* bytes of blocks that it takes; -1: not counted yet */
};

/* LABEL@TOKEN. */
void kept_work_name(const char *label, uint64_t token, char ret[KEPT_NAME_MAX]);

/* Begins to keep the work of a lease: makes its directory and writes `info`, whose name, number and
 * size the function sets itself. The caller moves `files` and `git` to `ret_dir`, then calls
 * kept_work_end(), whether the move failed or not. Kept work of that name that was begun and not
 * ended is begun again. -EEXIST: there is kept work of that name or number. Blocks as the disk
 * does. */
int kept_work_begin(struct kept_work *kept, const struct kept_info *info, struct ap_buf *ret_dir,
		    struct ap_err *err);

/* The kept work is whole: lists it from now on. kept_work_tidy() counts its bytes later. Removes a
 * directory that has neither `files` nor `git`. Blocks as the disk does. */
void kept_work_end(struct kept_work *kept, const char *name);

/* Counts the bytes of kept work that has not been counted, and moves kept work into
 * STATE_DIR/trash, the oldest first: what is older than `max_age_ns` (0: all), and more while all
 * of it takes over `max_size` bytes (0: no bound). Leaves what is held. Calls `each` for everything
 * that went, with why: "age" or "size". What cannot be moved stays; the sentence names the last
 * such. Blocks, long. */
int kept_work_tidy(struct kept_work *kept, int64_t max_age_ns, int64_t max_size,
		   void (*each)(void *data, const struct kept_info *info, const char *why),
		   void *data, struct ap_err *err);

/* How many there are, bytes of those that are counted, and the highest token; does not block. */
struct kept_stats {
	unsigned n;
	int64_t bytes;
	uint64_t max_token;
};
void kept_work_stats(struct kept_work *kept, struct kept_stats *ret);

/* kept_work_next() finds the one with the lowest number above `after`, kept_work_look() the one of
 * that number, kept_work_find() the one of that name. -ENOENT. None blocks; each is a binary
 * search. */
int kept_work_next(struct kept_work *kept, unsigned after, struct kept_info *ret);
int kept_work_look(struct kept_work *kept, unsigned number, struct kept_info *ret);
int kept_work_find(struct kept_work *kept, const char *name, struct kept_info *ret);

/* Appends its directory: "STATE_DIR/kept/LABEL@TOKEN". */
void kept_work_dir(const struct kept_work *kept, const char *name, struct ap_buf *ret);

/* Appends what is known of it as the text `info` has it: a key and a value on each line. */
void kept_work_show(const struct kept_info *info, struct ap_buf *ret);

/* kept_work_hold() keeps kept_work_tidy() from removing it while the caller reads its files, and
 * appends its directory; kept_work_release() ends that. -ENOENT. */
int kept_work_hold(struct kept_work *kept, const char *name, struct ap_buf *ret_dir);
void kept_work_release(struct kept_work *kept, const char *name);

/* Lays the kept work in `kept_dir`, which the caller holds, over the new worktree of a lease that
 * began at its commit. All of it is there again then: files, links, FIFOs and deletions, ignored or
 * not, with modes and times, but for `.git` of the top, devices and sockets. `template_files` has
 * the files of its template; NULL: the template has gone. -ENOMEDIUM: the template is needed, for a
 * directory that was renamed as a whole and is in no commit. After a failure part of it is laid,
 * and the caller may lay it again. Blocks, long. */
int kept_work_lay(const char *kept_dir, const struct kept_info *info, const char *template_files,
		  const char *worktree_path, struct ap_err *err);
