/* What leases left, kept whole for a while: STATE_DIR/kept/LABEL@TOKEN with `info`, a text, and
 * `files` and `git`, moved there. Oldest first they go when they are too old or too many bytes.
 * They outlive the daemon: whatever is there is taken up by the next one.
 *
 * Thread-safe. Functions return 0 or a negative errno with its sentence. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

struct kept_work; /* of one state directory */

/* Takes up what is there; what was begun and nothing was moved to goes. NULL on ENOMEM. Blocks. */
struct kept_work *kept_work_new(const char *state_dir);
void kept_work_free(struct kept_work *kept); /* NULL is ignored */

#define KEPT_NAME_MAX	128 /* LABEL@TOKEN */
#define KEPT_NUMBER_MAX ((1u << 28) - 1)

/* What is known of one. A text is "" and a number 0 where it is not. */
struct kept_info {
	char name[KEPT_NAME_MAX];
	char label[72];
	uint64_t token;
	unsigned number; /* the same as the token, as far as it goes: from 1 to KEPT_NUMBER_MAX */
	char agent[32];
	char base[72],
		commit[72]; /* what the lease began at and what was saved of it; "": nothing */
	char branch[96];
	/* overlay: `files` is an upper layer over the files of `template`; else what was changed */
	char backend[16];
	char template_commit[72];
	char reason[32];  /* why the lease ended */
	int64_t ended_ns; /* wall clock; whole seconds are kept */
	int64_t size;	  /* bytes of blocks that it takes; -1: not counted yet */
};

/* LABEL@TOKEN. */
void kept_work_name(const char *label, uint64_t token, char ret[KEPT_NAME_MAX]);

/* Begins one: makes its directory, and writes `info`, of which name, number and size are not asked.
 * `ret_dir`: where the caller moves `files` and `git` to; then, whether that was well or not, he
 * calls kept_work_end(). One that was begun before and has no `files` yet is gone on with. -EEXIST:
 * there is one of that name, or number. Blocks as the disk does. */
int kept_work_begin(struct kept_work *kept, const struct kept_info *info, struct ap_buf *ret_dir,
		    struct ap_err *err);

/* It is whole, and is listed from now on; it is counted behind the caller, by kept_work_tidy(). One
 * that has nothing in it goes. Blocks as the disk does. */
void kept_work_end(struct kept_work *kept, const char *name);

/* Counts what has not been counted, and moves those into STATE_DIR/trash that are older than
 * `max_age_ns` (0: all) or beyond `max_size` bytes together (0: no bound), the oldest first; not
 * those that are held. `each` is told what went, and why: age or size. What cannot be moved stays,
 * and the sentence names the last. Blocks, long. */
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

/* The one with the lowest number above `after`; of that number; of that name. -ENOENT. None blocks,
 * and each costs the same however many there are. */
int kept_work_next(struct kept_work *kept, unsigned after, struct kept_info *ret);
int kept_work_look(struct kept_work *kept, unsigned number, struct kept_info *ret);
int kept_work_find(struct kept_work *kept, const char *name, struct kept_info *ret);

/* Appends where it is: "STATE_DIR/kept/LABEL@TOKEN". */
void kept_work_dir(const struct kept_work *kept, const char *name, struct ap_buf *ret);

/* Appends what is known of it, key value a line: what `info` has. */
void kept_work_show(const struct kept_info *info, struct ap_buf *ret);

/* Keeps it from being removed, and lets it be again, while its files are read. -ENOENT. */
int kept_work_hold(struct kept_work *kept, const char *name, struct ap_buf *ret_dir);
void kept_work_release(struct kept_work *kept, const char *name);

/* Lays what was kept over the new worktree of a lease that began at its commit, so that all of it
 * is there again: files, links, FIFOs and what is missing, ignored or not, with modes and times;
 * but for `.git` of the top, devices and sockets. Of `kept_dir`, which the caller holds.
 * `template_files` is where the files of its template are, or NULL: it has gone. -ENOMEDIUM: that
 * is needed, for what was renamed as a whole directory and is in no commit. On failure it is laid
 * in part, and may be laid again. Blocks, long. */
int kept_work_lay(const char *kept_dir, const struct kept_info *info, const char *template_files,
		  const char *worktree_path, struct ap_err *err);
