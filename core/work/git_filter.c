/* What only git itself can do to a file that becomes an object: filters, which are programs that
 * the configuration of the repository and of the user names, and encodings. git has the directory
 * of rules as its work tree: the file appears in it as a link to an open descriptor, and nothing
 * else there is made by an agent but the copies of its rules. One git process serves all files of a
 * handle, as a filter may be a process that stays. */
#include "git_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

struct git_filter {
	struct git_process process;
	struct git_coprocess writer;
};

void git_filter_free(struct git_filter *filter)
{
	if (!filter)
		return;
	git_coprocess_end(&filter->writer);
	git_process_fini(&filter->process);
	free(filter);
}

static struct git_filter *filter_of(struct ap_git *git)
{
	struct git_filter *filter = git->filter;
	if (filter)
		return filter;
	filter = calloc(1, sizeof *filter);
	if (filter && git_process_init(&filter->process, git) < 0) {
		git_filter_free(filter);
		filter = NULL;
	}
	return git->filter = filter;
}

/* --- a place in the directory of rules --- */

/* Makes the first `len` bytes of the path if they are missing: a directory, or at the end of the
 * path a link to `fd` unless that is -1. */
static int place_to(struct git_placed *placed, size_t len, int fd)
{
	char link[40];
	char saved = placed->path[len];
	placed->path[len] = '\0';
	int r = 0;
	if (saved == '\0' && fd >= 0) {
		snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)getpid(), fd);
		r = symlinkat(link, placed->rules_fd, placed->path) < 0 ? -errno : 0;
		if (r == 0)
			placed->has_link = true;
	} else {
		r = mkdirat(placed->rules_fd, placed->path, 0700) < 0 ? -errno : 0;
		if (r == -EEXIST)
			r = 1; /* if it is no directory, the next step fails */
	}
	placed->path[len] = saved;
	if (r == 0 && placed->made == 0)
		placed->made = len;
	return r < 0 ? r : 0;
}

int git_place(struct ap_git *git, const char *path, bool is_dir, int fd, struct git_placed *ret)
{
	struct git_placed placed = {.path = strdup(path)};
	if (!placed.path)
		return -ENOMEM;
	placed.rules_fd = open(git->rules, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = placed.rules_fd < 0 ? -errno : 0;
	for (size_t len = 0; r == 0 && path[len]; len++) {
		bool is_end = path[len + 1] == '\0';
		if (path[len] == '/')
			r = place_to(&placed, len, -1);
		if (r == 0 && is_end && (is_dir || fd >= 0))
			r = place_to(&placed, len + 1, is_dir ? -1 : fd);
	}
	*ret = placed;
	if (r < 0)
		git_unplace(ret);
	return r;
}

void git_unplace(struct git_placed *placed)
{
	size_t len = placed->path && placed->made ? strlen(placed->path) : 0;
	while (len > 0 && len >= placed->made) {
		int flags = placed->has_link ? 0 : AT_REMOVEDIR;
		placed->has_link = false;
		if (placed->path[len] == '/' || placed->path[len] == '\0') {
			placed->path[len] = '\0';
			(void)unlinkat(placed->rules_fd, placed->path,
				       flags); /* fails if it is not empty */
		}
		len--;
	}
	if (placed->rules_fd >= 0)
		close(placed->rules_fd);
	free(placed->path);
	*placed = (struct git_placed){.rules_fd = -1};
}

/* --- writing --- */

/* Appends a line that names a path: as it is, or in quotes with ambiguous bytes as \ooo. */
void git_quote_path(const char *path, struct ap_buf *ret)
{
	bool is_plain = *path != '"';
	for (const char *c = path; *c; c++)
		is_plain &= (unsigned char)*c >= ' ';
	if (is_plain) {
		ap_buf_printf(ret, "%s\n", path);
		return;
	}
	ap_buf_adds(ret, "\"");
	for (const char *c = path; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\')
			ap_buf_printf(ret, "\\%03o", (unsigned char)*c);
		else
			ap_buf_add(ret, c, 1);
	}
	ap_buf_adds(ret, "\"\n");
}

static int copy_oid(const struct ap_git *git, struct ap_buf *line, char ret[GIT_OID_MAX + 1],
		    struct ap_err *err)
{
	git_trim(line);
	if (!git_is_oid(git, ap_buf_text(line)))
		return ap_err_set(err, -EIO, "git: '%.80s' is no object name", ap_buf_text(line));
	memcpy(ret, line->data, line->len + 1);
	return 0;
}

/* Writes the file by a git process of its own, which says what went wrong. */
static int write_alone(struct ap_git *git, struct git_filter *filter, int fd, const char *path,
		       char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf as = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	char file[40];
	snprintf(file, sizeof file, "/proc/%d/fd/%d", (int)getpid(), fd);
	ap_buf_printf(&as, "--path=%s", path);
	if (as.failed)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	int r = git_must(
		&filter->process.place, &out, err,
		GIT_ARGS(GIT_AS_THEY_ARE, "hash-object", "-w", ap_buf_text(&as), "--", file));
	return r < 0 ? ap_err_wrap(err, r, "%s", path) : copy_oid(git, &out, ret, err);
}

/* Writes the file by the git process that stays. -EPIPE: that has ended over this file. */
static int write_placed(struct ap_git *git, struct git_filter *filter, const char *path,
			char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	int r = filter->writer.pid
			? 0
			: git_coprocess_start(
				  &filter->writer, &filter->process.place, err,
				  GIT_ARGS(GIT_AS_THEY_ARE, "hash-object", "-w", "--stdin-paths"));
	if (r < 0)
		return r;
	git_quote_path(path, &line);
	r = line.failed ? -ENOMEM : git_coprocess_ask(&filter->writer, line.data, line.len);
	line.len = 0;
	if (r == 0)
		r = git_coprocess_line(&filter->writer, '\n', &line);
	if (r == 0)
		return copy_oid(git, &line, ret, err);
	git_coprocess_end(&filter->writer);
	return ap_err_errno(err, r, "%s: what filters it", path);
}

int git_write_filtered(struct ap_git *git, int fd, const char *path, char ret[GIT_OID_MAX + 1],
		       struct ap_err *err)
{
	struct git_placed placed;
	struct git_filter *filter = filter_of(git);
	if (!filter)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	/* fails if `path` is a file of rules itself, which is there already */
	int r = git_place(git, path, false, fd, &placed);
	if (r < 0)
		return write_alone(git, filter, fd, path, ret, err);
	r = write_placed(git, filter, path, ret, err);
	git_unplace(&placed);
	return r == -EPIPE ? write_alone(git, filter, fd, path, ret, err) : r;
}
