/* How a file becomes an object: converts line ends and $Id$ as attributes and settings ask for it,
 * like git's convert.c, and a large file block by block. git itself runs filters and encodings
 * (git_filter.c). */
#include "git_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

const char *const git_attr_names[N_GIT_ATTRS] = {"crlf", "ident", "filter",
						 "eol",	 "text",  "working-tree-encoding"};
const char git_attr_true[] = "true", git_attr_false[] = "false";

/* Files up to SMALL bytes are read as a whole; of larger ones only a block at a time is in memory.
 */
#define SMALL ((size_t)1 << 20)
#define BLOCK ((size_t)64 << 10)

/* What to do with line ends. */
enum eol {
	EOL_KEEP, /* nothing */
	EOL_TEXT, /* every CRLF becomes LF */
	EOL_AUTO, /* likewise, if the file looks like text and the tracked blob has no CRLF */
};

/* What the attribute `text`, or `crlf`, its old name, says. */
static enum eol eol_of(const char *value, bool *ret_is_set)
{
	*ret_is_set = true;
	if (value == git_attr_true || (value && strcmp(value, "input") == 0))
		return EOL_TEXT;
	if (value && value != git_attr_false && strcmp(value, "auto") == 0)
		return EOL_AUTO;
	*ret_is_set = value == git_attr_false;
	return EOL_KEEP;
}

static bool is_text(const char *value)
{
	return value && value != git_attr_true && value != git_attr_false;
}

static enum eol eol_wanted(struct ap_git *git, const struct git_attrs *attrs)
{
	bool is_set;
	enum eol eol = eol_of(attrs->value[GIT_ATTR_TEXT], &is_set);
	if (!is_set)
		eol = eol_of(attrs->value[GIT_ATTR_CRLF], &is_set);
	if (is_set)
		return eol;
	const char *end = attrs->value[GIT_ATTR_EOL];
	if (is_text(end) && (strcmp(end, "lf") == 0 || strcmp(end, "crlf") == 0))
		return EOL_TEXT;
	AP_CLEANUP_FREE char *value = NULL;
	if (git->ops->setting(git, "core.autocrlf", &value, NULL) == 0 && value &&
	    strcasecmp(value, "input") == 0)
		return EOL_AUTO;
	return git_setting_is(git, "core.autocrlf", false) ? EOL_AUTO : EOL_KEEP;
}

/* --- content of a file --- */

struct stats {
	uint64_t n_cr, n_crlf, nul, printable, nonprintable;
	unsigned char last; /* the byte before */
	bool last_is_any;
};

static void gather(struct stats *stats, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		if (c == '\r') {
			stats->n_cr++;
		} else if (c == '\n') {
			stats->n_crlf += stats->last_is_any && stats->last == '\r';
		} else if (c == 127 || (c < 32 && !strchr("\b\t\033\014", c)) || c == 0) {
			stats->nul += c == 0;
			stats->nonprintable++;
		} else {
			stats->printable++;
		}
		stats->last = c;
		stats->last_is_any = true;
	}
}

/* Whether the content looks binary. A DOS EOF (^Z) at the end of a file does not count. */
static bool looks_binary(const struct stats *stats)
{
	uint64_t odd = stats->nonprintable - (stats->last_is_any && stats->last == '\032');
	return stats->n_cr != stats->n_crlf || stats->nul > 0 || stats->printable >> 7 < odd;
}

/* Whether the blob that is tracked at that path is text with CRLF. No if it cannot be read. */
static bool has_tracked_crlf(struct ap_git *git, const struct ap_git_tracked *tracked,
			     const char *path)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char oid[GIT_OID_MAX + 1] = "";
	enum git_type type;
	struct stats stats = {0};
	if (tracked)
		tracked->at(tracked->data, path, oid);
	if (!*oid)
		return false;
	int r = git->ops->read(git, oid, GIT_OBJECT_MAX, &type, &text, NULL);
	if (r < 0 && tracked->read)
		r = tracked->read(tracked->data, oid, GIT_OBJECT_MAX, &text);
	if (r < 0)
		return false;
	gather(&stats, ap_buf_text(&text), text.len);
	return stats.n_crlf > 0 && !looks_binary(&stats);
}

/* --- doing it --- */

/* Removes each CR before an LF from `len` bytes, in place, and returns how many are left. `next` is
 * the byte that follows them, 0 at the end of the file. */
static size_t drop_cr(char *data, size_t len, char next)
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		char after = i + 1 < len ? data[i + 1] : next;
		if (data[i] != '\r' || after != '\n')
			data[n++] = data[i];
	}
	return n;
}

/* Turns each $Id: something$ back into $Id$. */
static void collapse_ident(struct ap_buf *text)
{
	char *to = text->data, *end = text->data + text->len;
	for (char *at = text->data; at < end;) {
		char *close = NULL;
		if (end - at > 4 && memcmp(at, "$Id:", 4) == 0) {
			close = memchr(at + 4, '$', (size_t)(end - at - 4));
			if (close && memchr(at + 4, '\n', (size_t)(close - at - 4)))
				close = NULL;
		}
		if (close) {
			memmove(to, "$Id$", 4);
			to += 4;
			at = close + 1;
		} else {
			*to++ = *at++;
		}
	}
	text->len = (size_t)(to - text->data);
}

/* Reads from the offset `at` until the block is full or the file ends. Returns the number of bytes.
 */
static ssize_t read_block(int fd, char *block, size_t size, off_t at)
{
	size_t done = 0;
	while (done < size) {
		ssize_t n = pread(fd, block + done, size - done, at + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Calls `each` for all blocks of a file; `next` is the byte behind the block, 0 at the end. */
static int each_block(int fd, int (*each)(void *data, char *block, size_t len, char next),
		      void *data)
{
	AP_CLEANUP_FREE char *block = malloc(BLOCK + 1);
	off_t at = 0;
	ssize_t n = block ? 0 : -ENOMEM;
	int r = 0;
	while (block && r == 0 && (n = read_block(fd, block, BLOCK + 1, at)) > 0) {
		bool more = (size_t)n > BLOCK;
		size_t len = more ? BLOCK : (size_t)n;
		r = each(data, block, len, more ? block[BLOCK] : '\0');
		at += (off_t)len;
	}
	return r < 0 ? r : n < 0 ? (int)n : 0;
}

static int gather_block(void *data, char *block, size_t len, char next)
{
	(void)next;
	gather(data, block, len);
	return 0;
}

static int copy_block(void *data, char *block, size_t len, char next)
{
	const int *to = data;
	size_t n = drop_cr(block, len, next);
	for (size_t done = 0; done < n;) {
		ssize_t written = write(*to, block + done, n - done);
		if (written < 0 && errno != EINTR)
			return -errno;
		done += written > 0 ? (size_t)written : 0;
	}
	return 0;
}

/* Writes a large file without its CRs, by way of a file without a name, which is on disk if
 * possible. */
static int convert_large(struct ap_git *git, int fd, const char *path, char ret[GIT_OID_MAX + 1],
			 struct ap_err *err)
{
	AP_CLEANUP_CLOSE int to =
		open(git->objects ? git->objects : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (to < 0)
		to = memfd_create("file", MFD_CLOEXEC);
	int r = to < 0 ? -errno : each_block(fd, copy_block, &to);
	return r < 0 ? ap_err_errno(err, r, "%s", path) : git->ops->write_fd(git, to, ret, err);
}

/* The conversions that a file needs. */
struct conversion {
	enum eol eol;
	bool ident;
	bool filtered, encoded; /* git itself must write the file */
	const struct ap_git_tracked *tracked;
};

/* Whether CRs before LFs go. */
static bool wants_lf(struct ap_git *git, const struct conversion *conversion,
		     const struct stats *stats, const char *path)
{
	if (conversion->eol == EOL_KEEP || stats->n_crlf == 0)
		return false;
	return conversion->eol == EOL_TEXT ||
	       (!looks_binary(stats) && !has_tracked_crlf(git, conversion->tracked, path));
}

static int write_large(struct ap_git *git, int fd, const char *path,
		       const struct conversion *conversion, char ret[GIT_OID_MAX + 1],
		       struct ap_err *err)
{
	struct stats stats = {0};
	int r = conversion->eol == EOL_KEEP ? 0 : each_block(fd, gather_block, &stats);
	if (r < 0)
		return ap_err_errno(err, r, "%s", path);
	return wants_lf(git, conversion, &stats, path) ? convert_large(git, fd, path, ret, err)
						       : git->ops->write_fd(git, fd, ret, err);
}

static int read_all(int fd, size_t size, struct ap_buf *ret)
{
	if (!ap_buf_reserve(ret, size))
		return -ENOMEM;
	ssize_t n = read_block(fd, ret->data, size, 0);
	if (n < 0)
		return (int)n;
	ret->len = (size_t)n;
	ret->data[n] = '\0';
	return 0;
}

static int write_small(struct ap_git *git, int fd, size_t size, const char *path,
		       const struct conversion *conversion, char ret[GIT_OID_MAX + 1],
		       struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct stats stats = {0};
	int r = read_all(fd, size, &text);
	if (r < 0)
		return ap_err_errno(err, r, "%s", path ? path : "file");
	if (conversion->eol != EOL_KEEP)
		gather(&stats, text.data, text.len);
	if (wants_lf(git, conversion, &stats, path))
		text.len = drop_cr(text.data, text.len, '\0');
	if (conversion->ident)
		collapse_ident(&text);
	return git->ops->write(git, GIT_TYPE_BLOB, text.data, text.len, ret, err);
}

/* Whether settings define a filter of that name that works on files that become objects. */
static bool has_filter(struct ap_git *git, const char *name)
{
	static const char *const keys[] = {"clean", "process"};
	AP_CLEANUP_BUF struct ap_buf setting = {0};
	for (size_t i = 0; i < 2; i++) {
		AP_CLEANUP_FREE char *value = NULL;
		setting.len = 0;
		ap_buf_printf(&setting, "filter.%s.%s", name, keys[i]);
		if (!setting.failed &&
		    git->ops->setting(git, ap_buf_text(&setting), &value, NULL) == 0 && value)
			return true;
	}
	setting.len = 0;
	ap_buf_printf(&setting, "filter.%s.required", name);
	return !setting.failed && git_setting_is(git, ap_buf_text(&setting), false);
}

bool git_is_smudge(const char *setting)
{
	size_t len = strcspn(setting, "\n");
	return strncmp(setting, "filter.", 7) == 0 &&
	       ((len > 14 && strncmp(setting + len - 7, ".smudge", 7) == 0) ||
		(len > 15 && strncmp(setting + len - 8, ".process", 8) == 0));
}

static bool needs_filter(struct ap_git *git, const struct git_attrs *attrs)
{
	const char *filter = attrs->value[GIT_ATTR_FILTER];
	return is_text(filter) && has_filter(git, filter);
}

static bool needs_encoding(const struct git_attrs *attrs)
{
	const char *encoding = attrs->value[GIT_ATTR_ENCODING];
	return is_text(encoding) && *encoding && strcasecmp(encoding, "utf-8") != 0 &&
	       strcasecmp(encoding, "utf8") != 0;
}

/* The conversions that attributes and settings ask for at a path; none if it is NULL or too long.
 */
static int conversion_of(struct ap_git *git, const char *path, struct conversion *ret,
			 struct ap_err *err)
{
	struct git_attrs attrs = {0};
	*ret = (struct conversion){.eol = EOL_KEEP};
	if (!path || strlen(path) >= PATH_MAX)
		return 0;
	int r = git->ops->attributes(git, path, &attrs, err);
	if (r == 0) {
		ret->eol = eol_wanted(git, &attrs);
		ret->ident = attrs.value[GIT_ATTR_IDENT] == git_attr_true;
		ret->filtered = needs_filter(git, &attrs);
		ret->encoded = needs_encoding(&attrs);
	}
	ap_buf_fini(&attrs.text);
	return r;
}

/* Line ends, $Id$ and encodings make a file longer or shorter than its blob, if they change it; a
 * filter may do anything. */
int ap_git_converts(struct ap_git *git, const char *path, const char *oid, uint64_t size,
		    struct ap_err *err)
{
	struct conversion conversion;
	enum git_type type;
	size_t blob_size = 0;
	int r = conversion_of(git, path, &conversion, err);
	if (r < 0 || conversion.eol != EOL_KEEP || conversion.ident || conversion.filtered ||
	    conversion.encoded)
		return r < 0 ? r : 1;
	r = git->ops->look(git, oid, &type, &blob_size, err);
	if (r < 0 || blob_size != size)
		return r < 0 ? r : 1;
	r = git->smudge_known ? git->smudges : git->ops->has_smudge(git, err);
	if (r < 0)
		return r;
	git->smudge_known = true;
	git->smudges = r > 0;
	return r;
}

int ap_git_write_file(struct ap_git *git, int fd, const char *path,
		      const struct ap_git_tracked *tracked, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err)
{
	struct conversion conversion;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return ap_err_errno(err, -errno, "%s", path ? path : "file");
	if (!S_ISREG(st.st_mode))
		return ap_err_set(err, -EINVAL, "%s is no regular file", path ? path : "it");
	int r = conversion_of(git, path, &conversion, err);
	if (r < 0)
		return r;
	conversion.tracked = tracked;
	if (conversion.filtered || conversion.encoded) {
		r = git_write_filtered(git, fd, path, ret, err);
		if (r != -EIO || conversion.filtered)
			return r;
		/* it does not have the encoding of its attribute: it is written unchanged */
		conversion = (struct conversion){.eol = EOL_KEEP};
	}
	if ((size_t)st.st_size <= SMALL || conversion.ident)
		return write_small(git, fd, (size_t)st.st_size, path, &conversion, ret, err);
	return write_large(git, fd, path, &conversion, ret, err);
}
