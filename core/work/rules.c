#include "rules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "file.h"
#include "remove.h"
#include "restore.h"

int rules_init(struct rules *ret, const char *scratch, struct layer *layer, const char *top,
	       struct ap_err *err)
{
	*ret = (struct rules){.layer = layer, .top = top};
	int r = file_make_dirs(scratch, err);
	if (r < 0)
		return r;
	if (asprintf(&ret->dir, "%s/rules-XXXXXX", scratch) < 0) {
		ret->dir = NULL;
		return ap_err_errno(err, -ENOMEM, "%s", scratch);
	}
	return mkdtemp(ret->dir) ? 0 : ap_err_errno(err, -errno, "%s", ret->dir);
}

void rules_fini(struct rules *rules)
{
	if (rules->dir)
		(void)remove_tree(rules->dir, NULL, NULL); /* else at the next start */
	free(rules->dir);
	free(rules->filled);
	*rules = (struct rules){0};
}

int rules_leave_out(struct rules *rules, struct ap_git *git, const char *checked_out,
		    const char *commit, struct ap_err *err)
{
	int r = ap_git_tree_of(git, commit, rules->tree, err);
	rules->git = git;
	rules->checked_out = r == 0 ? checked_out : NULL;
	return r;
}

/* Writes the file that a sparse checkout left out at a path, if it is a regular file that is not
 * too large. */
static int copy_left_out(struct rules *rules, const char *path, const char *to, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf file = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char oid[GIT_OID_MAX + 1];
	struct stat st;
	unsigned mode;
	ap_buf_printf(&file, "%s/%s", rules->checked_out, path);
	if (file.failed)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	if (lstat(file.data, &st) == 0) /* it was checked out, and the agent has removed it */
		return 0;
	int r = ap_git_entry_at(rules->git, rules->tree, path, &mode, oid, err);
	if (r < 0 || !S_ISREG(mode))
		return r;
	r = ap_git_read_blob(rules->git, oid, RULES_MAX, &text, err);
	return r == -EFBIG ? 0 : r < 0 ? r : file_write(to, ap_buf_text(&text), text.len, err);
}

/* Copies a file of a directory, if it is a regular one that is not too large. */
static int copy_rule(int from_dir, const char *name, const char *to, struct ap_err *err)
{
	struct stat st;
	AP_CLEANUP_CLOSE int fd =
		openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > RULES_MAX)
		return 0;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (!ap_buf_reserve(&text, RULES_MAX))
		return ap_err_errno(err, -ENOMEM, "%s", to);
	for (ssize_t n = 1; n > 0 && text.len<RULES_MAX; text.len += n> 0 ? (size_t)n : 0)
		n = read(fd, text.data + text.len, RULES_MAX - text.len);
	return file_write(to, text.data, text.len, err);
}

/* Copies the rules of one directory. */
static int fill_one(struct rules *rules, const char *path, struct ap_err *err)
{
	static const char *const names[] = {".gitignore", ".gitattributes"};
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	AP_CLEANUP_BUF struct ap_buf here = {0};
	ap_buf_printf(&from, *rules->top && *path ? "%s/%s" : "%s%s", rules->top, path);
	ap_buf_printf(&to, *path ? "%s/%s" : "%s%s", rules->dir, path);
	if (from.failed || to.failed)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	AP_CLEANUP_CLOSE int dir = layer_merged_dir(rules->layer, ap_buf_text(&from), NULL);
	if (dir < 0 && !rules->checked_out) /* it has gone meanwhile, or cannot be opened */
		return 0;
	if (*path && mkdir(ap_buf_text(&to), 0700) < 0 && errno != EEXIST)
		return errno == ENAMETOOLONG ? 0 : ap_err_errno(err, -errno, "%s", to.data);
	size_t len = to.len;
	int r = 0;
	for (size_t i = 0; r == 0 && i < sizeof names / sizeof *names; i++) {
		to.len = len;
		ap_buf_printf(&to, "/%s", names[i]);
		if (to.len >= PATH_MAX)
			continue;
		if (dir >= 0 && faccessat(dir, names[i], F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
			r = copy_rule(dir, names[i], ap_buf_text(&to), err);
		} else if (rules->checked_out) {
			here.len = 0;
			ap_buf_printf(&here, *path ? "%s/%s" : "%s%s", path, names[i]);
			r = copy_left_out(rules, ap_buf_text(&here), ap_buf_text(&to), err);
		}
	}
	return r;
}

/* Whether the first `len` bytes of `path` are the directory `dir` or one above it. */
static bool is_above(const char *dir, const char *path, size_t len)
{
	return strncmp(dir, path, len) == 0 && (dir[len] == '/' || dir[len] == '\0' || len == 0);
}

int rules_fill(struct rules *rules, const char *path, struct ap_err *err)
{
	size_t done = 0; /* bytes of `path` up to which all is filled */
	bool top_done = rules->filled != NULL;
	if (rules->filled && strcmp(rules->filled, path) == 0)
		return 0;
	for (const char *at = path; rules->filled && *at;) {
		size_t end = (size_t)(at - path) + strcspn(at, "/");
		if (!is_above(rules->filled, path, end))
			break;
		done = end;
		at = path + end + (path[end] == '/');
	}
	AP_CLEANUP_FREE char *part = strdup(path);
	if (!part)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	int r = top_done ? 0 : fill_one(rules, "", err);
	for (size_t at = done; r == 0 && path[at];) {
		size_t end = at + (path[at] == '/');
		end += strcspn(path + end, "/");
		part[end] = '\0';
		r = fill_one(rules, part, err);
		part[end] = path[end];
		at = end;
	}
	if (r == 0) {
		free(rules->filled);
		rules->filled = ap_steal(part);
	}
	return r;
}

int rules_fill_for(struct rules *rules, const char *path, struct ap_err *err)
{
	const char *slash = strrchr(path, '/');
	AP_CLEANUP_FREE char *above = strndup(path, slash ? (size_t)(slash - path) : 0);
	return above ? rules_fill(rules, above, err) : ap_err_errno(err, -ENOMEM, "%s", path);
}
