/* Lays what a lease left over a worktree. Reads it as a layer: an overlay's upper directory, else
 * the files that were changed, without what had gone, which the commit shows. Works from
 * descriptors of the directories on both sides, and follows no link on either. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "kept_work.h"
#include "layer.h"
#include "namespace.h"
#include "remove.h"

struct laying {
	struct layer *layer;
	const char *template_files; /* NULL: the template has gone */
	bool is_overlay;	    /* the modes and times of its directories count in any case */
	bool is_whole;		    /* remove what is not in the layer */
	struct ap_buf path;	    /* of what is being laid, from the top */
	struct ap_err *err;
};

static int failed(const struct laying *laying, int error)
{
	return ap_err_errno(laying->err, error, "%s", ap_buf_text(&laying->path));
}

/* --- one name of the worktree --- */

/* Removes a name, whatever it is. */
static int take_away(const struct laying *laying, int dir_fd, const char *name)
{
	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return failed(laying, -errno);
	return remove_tree_at(dir_fd, name, NULL, laying->err);
}

/* Gives a name the owner, mode and times of what was kept; the owner only if we may change it. */
static void dress(int dir_fd, const char *name, const struct stat *st)
{
	(void)fchownat(dir_fd, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW);
	if (!S_ISLNK(st->st_mode))
		(void)fchmodat(dir_fd, name, st->st_mode & 07777, 0); /* we made it: no link */
	(void)utimensat(dir_fd, name, (const struct timespec[]){st->st_atim, st->st_mtim},
			AT_SYMLINK_NOFOLLOW);
}

static int lay_file(const struct laying *laying, const struct layer_dir *from,
		    const struct layer_entry *entry, int to_fd)
{
	AP_CLEANUP_CLOSE int in = layer_open_file(from, entry, true, laying->err);
	if (in < 0)
		return in == -ESTALE ? 0 : failed(laying, in);
	int r = take_away(laying, to_fd, entry->name);
	if (r < 0)
		return r;
	AP_CLEANUP_CLOSE int out = openat(
		to_fd, entry->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = out < 0 ? -errno : file_copy_bytes(in, out);
	if (r < 0)
		return failed(laying, r);
	dress(to_fd, entry->name, &entry->st);
	return 0;
}

static int lay_link(const struct laying *laying, const struct layer_dir *from,
		    const struct layer_entry *entry, int to_fd)
{
	AP_CLEANUP_BUF struct ap_buf target = {0};
	int r = layer_read_link(from, entry, &target, laying->err);
	if (r == 0)
		r = take_away(laying, to_fd, entry->name);
	if (r == 0 && symlinkat(ap_buf_text(&target), to_fd, entry->name) < 0)
		r = failed(laying, -errno);
	if (r == 0)
		dress(to_fd, entry->name, &entry->st);
	return r;
}

/* Makes a FIFO again; a device or a socket is useless without its server, and is only removed. */
static int lay_other(const struct laying *laying, const struct layer_entry *entry, int to_fd)
{
	int r = take_away(laying, to_fd, entry->name);
	if (r < 0 || !S_ISFIFO(entry->st.st_mode))
		return r;
	if (mknodat(to_fd, entry->name, S_IFIFO | 0600, 0) < 0)
		return failed(laying, -errno);
	dress(to_fd, entry->name, &entry->st);
	return 0;
}

/* --- directories --- */

static int lay_dir(struct laying *laying, const struct layer_dir *from, int to_fd);

static int by_name(const void *one, const void *other)
{
	return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* Removes what is in a directory of the worktree and not in that of the layer; `.git` of the top
 * stays. */
static int take_others_away(const struct laying *laying, const struct layer_dir *from, int to_fd)
{
	AP_CLEANUP_FREE const char **names = calloc(from->n + 1, sizeof *names);
	AP_CLEANUP_BUF struct ap_buf there = {0}; /* names, each with its NUL */
	int r = names ? file_names(to_fd, &there) : -ENOMEM;
	if (r < 0)
		return failed(laying, r);
	for (size_t i = 0; i < from->n; i++)
		names[i] = from->entries[i].name;
	qsort(names, from->n, sizeof *names, by_name);
	const char *name = ap_buf_text(&there), *end = name + there.len;
	for (; r == 0 && name < end; name += strlen(name) + 1) {
		if ((laying->path.len == 0 && strcmp(name, ".git") == 0) ||
		    bsearch(&name, names, from->n, sizeof *names, by_name))
			continue;
		r = take_away(laying, to_fd, name);
	}
	return r;
}

/* Opens a directory of the worktree, and makes it if there is none. Returns a descriptor. */
static int enter_made(const struct laying *laying, int to_fd, const char *name)
{
	struct stat st;
	bool there = fstatat(to_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
	int r = there ? 0 : take_away(laying, to_fd, name);
	if (r < 0)
		return r;
	if (!there && mkdirat(to_fd, name, 0700) < 0)
		return failed(laying, -errno);
	int fd = openat(to_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? failed(laying, -errno) : fd;
}

/* Fills a directory with what the template has at `path`. The path is from the layer, so no link is
 * followed on the way. */
static int lay_template(struct laying *laying, const char *path, int to_fd)
{
	const struct layer_place all = {.path = laying->template_files};
	struct layer *template = NULL, *part = NULL;
	struct layer_dir dir;
	char place_path[64];
	int r = layer_open(&template, &all, laying->err);
	if (r < 0)
		return r;
	AP_CLEANUP_CLOSE int fd = layer_merged_dir(template, path, laying->err);
	layer_close(template);
	if (fd < 0) /* the kernel showed nothing there either */
		return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? 0 : fd;
	snprintf(place_path, sizeof place_path, "/proc/self/fd/%d/.", fd);
	r = layer_open(&part, &(struct layer_place){.path = place_path}, laying->err);
	if (r < 0)
		return r;
	struct laying below = {
		.layer = part, .is_whole = true, .path = laying->path, .err = laying->err};
	r = layer_top(part, &dir, laying->err);
	if (r == 0) {
		r = lay_dir(&below, &dir, to_fd);
		layer_dir_fini(&dir);
	}
	layer_close(part);
	laying->path = below.path;
	return r;
}

/* Prepares a directory before the layer's own entries are laid into it. `had`: the worktree had the
 * directory, with what was committed of it. */
static int lay_ground(struct laying *laying, const struct layer_entry *entry, bool had, int fd)
{
	const struct layer_dir nothing = {.n = 0};
	if (laying->is_whole || (!entry->is_opaque && !entry->from))
		return 0;
	if (entry->is_opaque)
		return take_others_away(laying, &nothing, fd);
	if (laying->template_files)
		return lay_template(laying, entry->from, fd);
	return had ? 0
		   : ap_err_set(laying->err, -ENOMEDIUM,
				"%s was %s when the lease began, whose files have gone from the "
				"state directory",
				ap_buf_text(&laying->path), entry->from);
}

static int lay_subdir(struct laying *laying, const struct layer_dir *from,
		      const struct layer_entry *entry, int to_fd)
{
	struct layer_dir dir;
	struct stat st;
	bool had =
		fstatat(to_fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
	AP_CLEANUP_CLOSE int fd = enter_made(laying, to_fd, entry->name);
	if (fd < 0)
		return fd;
	int r = lay_ground(laying, entry, had, fd);
	if (r == 0)
		r = layer_enter(from, entry, ap_buf_text(&laying->path), true, &dir, laying->err);
	if (r < 0)
		return r;
	r = lay_dir(laying, &dir, fd);
	layer_dir_fini(&dir);
	if (!had || laying->is_overlay || laying->is_whole)
		dress(to_fd, entry->name, &entry->st);
	return r;
}

static int lay_entry(struct laying *laying, const struct layer_dir *from,
		     const struct layer_entry *entry, int to_fd)
{
	switch (entry->kind) {
	case LAYER_FILE:
		return lay_file(laying, from, entry, to_fd);
	case LAYER_LINK:
		return lay_link(laying, from, entry, to_fd);
	case LAYER_DIR:
		return lay_subdir(laying, from, entry, to_fd);
	case LAYER_GONE:
		return take_away(laying, to_fd, entry->name);
	case LAYER_OTHER:
		return lay_other(laying, entry, to_fd);
	case LAYER_MOUNT:
		break;
	}
	return 0;
}

static int lay_dir(struct laying *laying, const struct layer_dir *from, int to_fd)
{
	size_t len = laying->path.len;
	int r = laying->is_whole ? take_others_away(laying, from, to_fd) : 0;
	for (size_t i = 0; r == 0 && i < from->n; i++) {
		const struct layer_entry *entry = &from->entries[i];
		ap_buf_printf(&laying->path, len ? "/%s" : "%s", entry->name);
		r = laying->path.failed ? failed(laying, -ENOMEM)
					: lay_entry(laying, from, entry, to_fd);
		laying->path.len = len;
		if (laying->path.data)
			laying->path.data[len] = '\0';
	}
	return r;
}

int kept_work_lay(const char *kept_dir, const struct kept_info *info, const char *template_files,
		  const char *worktree_path, struct ap_err *err)
{
	struct laying laying = {.template_files = template_files, .err = err};
	struct layer_dir top;
	AP_CLEANUP_BUF struct ap_buf files = {0};
	ap_buf_printf(&files, "%s/files", kept_dir);
	if (files.failed)
		return ap_err_errno(err, -ENOMEM, "%s", kept_dir);
	laying.is_overlay = strcmp(info->backend, "overlay") == 0;
	const struct layer_place place = {
		.path = files.data,
		.upper = laying.is_overlay ? files.data : NULL,
		.user_xattrs = namespace_marks_as_user(),
	};
	AP_CLEANUP_CLOSE int to_fd =
		open(worktree_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to_fd < 0)
		return ap_err_errno(err, -errno, "%s", worktree_path);
	int r = layer_open(&laying.layer, &place, err);
	if (r < 0)
		return r;
	r = layer_top(laying.layer, &top, err);
	if (r == 0) {
		r = lay_dir(&laying, &top, to_fd);
		layer_dir_fini(&top);
	}
	layer_close(laying.layer);
	ap_buf_fini(&laying.path);
	return r;
}
