#include "kept.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file.h"

/* How far the start of a line is looked for. */
#define LINE_NEAR 4096

int kept_open(struct kept *ret, const char *path)
{
	int fd = file_open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fd;
	ret->fd = fd;
	atomic_store(&ret->size, 0);
	atomic_store(&ret->first, 0);
	return 0;
}

/* Where the text begins behind the hole that was made at the front: blocks are whole. */
static int64_t first_byte(int fd, int64_t size)
{
	char block[LINE_NEAR];
	off_t at = lseek(fd, 0, SEEK_DATA);
	if (at < 0)
		return size;
	ssize_t n = pread(fd, block, sizeof block, at), i = 0;
	while (i < n && block[i] == '\0')
		i++;
	return at + i;
}

int kept_adopt(struct kept *ret, const char *path)
{
	struct stat st;
	int fd = file_open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0) {
		int error = -errno;
		close(fd);
		return error;
	}
	ret->fd = fd;
	atomic_store(&ret->size, st.st_size);
	atomic_store(&ret->first, first_byte(fd, st.st_size));
	return 0;
}

void kept_close(struct kept *kept)
{
	if (kept->fd >= 0)
		close(kept->fd);
	kept->fd = -1;
}

void kept_append(struct kept *kept, const char *text, size_t len)
{
	while (kept->fd >= 0 && len > 0) {
		ssize_t n = write(kept->fd, text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		atomic_fetch_add(&kept->size, n);
		text += n;
		len -= (size_t)n;
	}
}

void kept_grown(struct kept *kept, int64_t n)
{
	atomic_fetch_add(&kept->size, n);
}

void kept_forget(struct kept *kept)
{
	if (kept->fd < 0 || ftruncate(kept->fd, 0) < 0)
		return;
	atomic_store(&kept->size, 0);
	atomic_store(&kept->first, 0);
}

void kept_move(struct kept *ret, struct kept *from)
{
	ret->fd = from->fd;
	atomic_store(&ret->size, atomic_load(&from->size));
	atomic_store(&ret->first, atomic_load(&from->first));
	from->fd = -1;
}

/* The start of the first line at or behind an offset, or the offset where none is near. */
static int64_t line_start(const struct kept *kept, int64_t at)
{
	char near[LINE_NEAR];
	ssize_t n = pread(kept->fd, near, sizeof near, at);
	const char *newline = n > 0 ? memchr(near, '\n', (size_t)n) : NULL;
	return newline ? at + (newline - near) + 1 : at;
}

void kept_bound(struct kept *kept, int64_t limit)
{
	int64_t size = atomic_load(&kept->size), first = atomic_load(&kept->first);
	if (kept->fd < 0 || size - first <= limit + limit / 8)
		return;
	int64_t at = line_start(kept, size - limit);
	/* a file system that cannot make holes keeps all: the text is bounded all the same */
	(void)fallocate(kept->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, at);
	atomic_store(&kept->first, at);
}

bool kept_lock(pthread_mutex_t *lock, bool at_once)
{
	return (at_once ? pthread_mutex_trylock(lock) : pthread_mutex_lock(lock)) == 0;
}

ssize_t kept_read(const struct kept *kept, bool at_once, void *ret, size_t size, int64_t offset,
		  int64_t *ret_offset)
{
	const struct iovec piece = {.iov_base = ret, .iov_len = size};
	int64_t first = atomic_load(&kept->first);
	*ret_offset = offset < first ? first : offset;
	if (kept->fd < 0) /* nothing was written yet */
		return 0;
	ssize_t n = preadv2(kept->fd, &piece, 1, *ret_offset, at_once ? RWF_NOWAIT : 0);
	if (n < 0 && errno == EOPNOTSUPP) /* a file system that always waits */
		return -EAGAIN;
	if (at_once && n >= 0 && (size_t)n < size && *ret_offset + n < atomic_load(&kept->size))
		return -EAGAIN; /* a part is in memory; Linux 5.9 may say so of none, too */
	return n < 0 ? -errno : n;
}
