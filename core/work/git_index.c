/* The index file of git, read as data: gitformat-index(5), versions 2 to 4. */
#include "git_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "file.h"

#define INDEX_MAX ((size_t)256 << 20)

#define HEADER	 12 /* DIRC, version, number of entries */
#define STAT	 40 /* of an entry before its object's name */
#define EXTENDED 0x4000
/* Bytes of a path. Version 4 reuses part of the path before, so a small file could make long paths.
 */
#define MAX_PATH ((size_t)64 << 10)

struct index {
	const unsigned char *at, *end; /* of the entries and extensions, without the checksum */
	uint32_t version;
	size_t oid_bytes;
	struct ap_buf path;
	const unsigned char *oid; /* of the last entry that was read */
};

static uint32_t get32(const unsigned char *at)
{
	uint32_t n;
	memcpy(&n, at, sizeof n);
	return ntohl(n);
}

/* Reads how many bytes at the end of the path before to drop: seven bits a byte; the high bit says
 * that another byte follows, and each such byte adds one. */
static bool next_strip(struct index *index, size_t *ret)
{
	size_t n = 0;
	for (unsigned i = 0; index->at < index->end && i < 4; i++) {
		unsigned char c = *index->at++;
		n = (n << 7) + (c & 127);
		if (!(c & 128)) {
			*ret = n;
			return true;
		}
		n++;
	}
	return false;
}

/* The path of the next entry. */
static int next_path(struct index *index)
{
	const unsigned char *begin = index->at;
	size_t fixed = STAT + index->oid_bytes + 2;
	if ((size_t)(index->end - begin) < fixed)
		return -EIO;
	unsigned flags = (unsigned)begin[fixed - 2] << 8 | begin[fixed - 1];
	if (flags & EXTENDED)
		fixed += 2;
	if (((flags & EXTENDED) && index->version < 3) || (size_t)(index->end - begin) < fixed)
		return -EIO;
	index->oid = begin + STAT;
	index->at += fixed;
	size_t strip = index->path.len;
	if (index->version == 4 && (!next_strip(index, &strip) || strip > index->path.len))
		return -EIO;
	const unsigned char *nul = memchr(index->at, '\0', (size_t)(index->end - index->at));
	if (!nul || index->path.len - strip + (size_t)(nul - index->at) > MAX_PATH)
		return -EIO;
	index->path.len -= strip;
	ap_buf_add(&index->path, index->at, (size_t)(nul - index->at));
	if (index->path.failed)
		return -ENOMEM;
	index->at = nul + 1;
	if (index->version < 4) { /* up to seven more NULs */
		size_t len = ((size_t)(nul - begin) + 8) & ~(size_t)7;
		if ((size_t)(index->end - begin) < len)
			return -EIO;
		index->at = begin + len;
	}
	/* what ends with a slash is a directory of a sparse index */
	return index->path.len == 0 || index->path.data[index->path.len - 1] == '/' ? -EIO : 0;
}

/* Checks the extensions. One that git must understand to read the index has a name in lower case: a
 * split or a sparse index. */
static int check_extensions(const struct index *index)
{
	const unsigned char *at = index->at;
	while (at < index->end) {
		if (index->end - at < 8 || *at < 'A' || *at > 'Z' ||
		    get32(at + 4) > (size_t)(index->end - at - 8))
			return -EIO;
		at += 8 + get32(at + 4);
	}
	return 0;
}

/* Calls `each` for the entries, once for those of a path in conflict. */
static int each_entry(struct index *index, uint32_t n,
		      int (*each)(void *data, const char *path, const char *oid), void *data)
{
	char oid[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf last = {0};
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = next_path(index);
		if (r < 0 || (i > 0 && last.len == index->path.len &&
			      memcmp(last.data, index->path.data, last.len) == 0))
			continue;
		last.len = 0;
		ap_buf_add(&last, index->path.data, index->path.len);
		git_hex(index->oid, index->oid_bytes, oid);
		r = last.failed ? -ENOMEM : each(data, index->path.data, oid);
	}
	return r;
}

static int tell_nothing(void *data, const char *path, const char *oid)
{
	(void)data, (void)path, (void)oid;
	return 0;
}

/* Reads the index twice: if it is damaged, `each` is not called at all. */
int git_index_parse(const struct ap_buf *text, size_t oid_bytes,
		    int (*each)(void *data, const char *path, const char *oid), void *data)
{
	struct index index = {.oid_bytes = oid_bytes};
	const unsigned char *bytes = (const unsigned char *)text->data;
	if (text->len < HEADER + oid_bytes || memcmp(bytes, "DIRC", 4) != 0)
		return -EIO;
	index.version = get32(bytes + 4);
	if (index.version < 2 || index.version > 4)
		return -EIO;
	index.at = bytes + HEADER;
	index.end = bytes + text->len - oid_bytes;
	int r = each_entry(&index, get32(bytes + 8), tell_nothing, NULL);
	if (r == 0)
		r = check_extensions(&index);
	index.at = bytes + HEADER;
	index.path.len = 0;
	if (r == 0)
		r = each_entry(&index, get32(bytes + 8), each, data);
	ap_buf_fini(&index.path);
	return r;
}

int ap_git_read_index(struct ap_git *git, const char *file,
		      int (*each)(void *data, const char *path, const char *oid), void *data,
		      struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int r = file_read(file, O_NOFOLLOW, INDEX_MAX, &text, err);
	if (r < 0)
		return r;
	r = git_index_parse(&text, git->oid_len / 2, each, data);
	return r == -EIO || r == -ENOMEM ? ap_err_errno(err, r, "%s", file) : r;
}
