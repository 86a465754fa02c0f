/* Kept text: a file that only grows, of which the last part is kept. Offsets count from its
 * beginning whatever was dropped since, so a follower is never disturbed; what was dropped takes no
 * room on the disk. Not thread-safe: the owner locks. Functions block on the disk, except
 * kept_read() with `at_once`. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct kept {
	int fd;		       /* -1: none */
	_Atomic int64_t size;  /* bytes ever written; may be read without the owner's lock */
	_Atomic int64_t first; /* offset of the first byte that is kept; likewise */
};

#define KEPT_NONE ((struct kept){.fd = -1})

/* Creates or truncates the file, and begins at offset 0. -errno. */
int kept_open(struct kept *ret, const char *path);

/* Opens the file, and goes on behind what it holds. -errno. */
int kept_adopt(struct kept *ret, const char *path);

void kept_close(struct kept *kept);

/* Appends. What a full disk does not take is lost, and nothing else. */
void kept_append(struct kept *kept, const char *text, size_t len);

/* Counts `n` bytes that another process has appended. */
void kept_grown(struct kept *kept, int64_t n);

/* Drops all of it; offsets begin at 0 again. */
void kept_forget(struct kept *kept);

/* Moves `from` to `ret`, which has no file; `from` has none afterwards. */
void kept_move(struct kept *ret, struct kept *from);

/* When more than `limit` and an eighth of it is kept, drops all but the last `limit` bytes, and the
 * start of a line that they cut if its end is near. */
void kept_bound(struct kept *kept, int64_t limit);

/* Takes the owner's lock; with `at_once`, only if it is free. False: it was not. */
bool kept_lock(pthread_mutex_t *lock, bool at_once);

/* Reads up to `size` bytes from `offset`, or from the first byte that is kept; `ret_offset` is
 * where they begin. Returns how many, or -errno; -EAGAIN: `at_once` is set, and not all is in
 * memory. */
ssize_t kept_read(const struct kept *kept, bool at_once, void *ret, size_t size, int64_t offset,
		  int64_t *ret_offset);
