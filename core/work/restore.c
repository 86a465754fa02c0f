/* restore_from() and restore_keep_links() walk from descriptor to descriptor with a stack of their
 * own on the heap: however deep a tree is, no thread's stack overflows. restore_keep_layer()
 * recurses, to a bounded depth. */
#include "restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "mounts.h"
#include "process.h"
#include "remove.h"

#define FUSERMOUNT_LIMIT (10 * AP_SECOND)
#define NAME_PATH_MAX	 300 /* bytes of a path /proc/self/fd/N/NAME */

/* The path of a name by the open descriptor of its directory: short, and with no link on the way.
 */
static void path_at(char ret[NAME_PATH_MAX], int dir_fd, const char *name)
{
	snprintf(ret, NAME_PATH_MAX, "/proc/self/fd/%d/%s", dir_fd, name);
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Opens a directory for reading and changing, and makes it u+rwx, mutable, for that. */
static int open_free_dir(int dir_fd, const char *name)
{
	char path[32];
	struct stat st;
	AP_CLEANUP_CLOSE int path_fd = file_open_below(dir_fd, name, O_PATH | O_DIRECTORY);
	if (path_fd < 0)
		return path_fd;
	snprintf(path, sizeof path, "/proc/self/fd/%d", path_fd);
	if (fstat(path_fd, &st) == 0 && (st.st_mode & 0700) != 0700)
		(void)chmod(path, (st.st_mode & 07777) | 0700); /* on failure what follows fails */
	int fd = file_open_below(path_fd, ".", O_RDONLY | O_DIRECTORY);
	if (fd >= 0)
		remove_unlock_dir(fd);
	return fd;
}

static int copy_link(int from_fd, int to_fd, const char *name)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from_fd, name, target, sizeof target - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	return symlinkat(target, to_fd, name) < 0 ? -errno : 0;
}

static int copy_file(int from_fd, int to_fd, const char *name)
{
	char from[NAME_PATH_MAX], to[NAME_PATH_MAX];
	path_at(from, from_fd, name);
	path_at(to, to_fd, name);
	return file_copy(from, to, true, NULL);
}

/* --- what both walks share --- */

/* A directory on the way. */
struct level {
	int from_fd, to_fd;
	DIR *names;	      /* of from_fd, which it owns; NULL: the walk follows `dir` */
	struct layer_dir dir; /* for restoring: the layer's directory */
	size_t next;
	struct stat st; /* its mode and times at the end */
	size_t path_len;
};

struct walk {
	struct level *levels;
	size_t n, room;
	struct ap_buf path;
	int result; /* of the first that failed */
	struct ap_err *err;
};

/* Records a failure; the first one counts. The walk goes on. */
static void fail(struct walk *walk, const char *name, int error)
{
	if (walk->result < 0)
		return;
	walk->result = error;
	int len = (int)walk->path.len;
	(void)ap_err_errno(walk->err, error, "%.*s%s%s", len, ap_buf_text(&walk->path),
			   len > 0 && *name ? "/" : "", name);
}

static void level_fini(struct level *level)
{
	if (level->names)
		closedir(level->names);
	else if (level->from_fd >= 0)
		close(level->from_fd);
	if (level->to_fd >= 0)
		close(level->to_fd);
	if (level->dir.layer)
		layer_dir_fini(&level->dir);
}

/* Takes over what is in the level, also on failure. */
static int push(struct walk *walk, const struct level *level, const char *name)
{
	if (walk->n == walk->room) {
		size_t more = walk->room ? walk->room * 2 : 16;
		struct level *levels = realloc(walk->levels, more * sizeof *levels);
		if (!levels) {
			struct level lost = *level;
			level_fini(&lost);
			return -ENOMEM;
		}
		walk->levels = levels;
		walk->room = more;
	}
	if (walk->path.len > 0)
		ap_buf_adds(&walk->path, "/");
	ap_buf_adds(&walk->path, name);
	walk->levels[walk->n] = *level;
	walk->levels[walk->n++].path_len = walk->path.len;
	return walk->path.failed ? -ENOMEM : 0;
}

static void pop(struct walk *walk)
{
	level_fini(&walk->levels[--walk->n]);
	walk->path.len = walk->n > 0 ? walk->levels[walk->n - 1].path_len : 0;
}

static void walk_fini(struct walk *walk)
{
	while (walk->n > 0)
		pop(walk);
	free(walk->levels);
	ap_buf_fini(&walk->path);
}

/* The next name of a directory that is being read; NULL: there are no more. */
static const char *next_name(struct walk *walk, struct level *level)
{
	const struct dirent *at;
	do {
		errno = 0;
		at = readdir(level->names);
	} while (at && is_dot(at->d_name));
	if (!at && errno != 0)
		fail(walk, "", -errno);
	return at ? at->d_name : NULL;
}

/* Makes the walk follow the names in from_fd. */
static int read_names(struct level *level)
{
	level->names = fdopendir(level->from_fd);
	return level->names ? 0 : -ENOMEM;
}

/* --- putting back --- */

/* Begins to fill a directory that was just made with what the template has there. */
static int enter_copy(struct walk *walk, int from_fd, int to_fd, const char *name,
		      const struct stat *st)
{
	struct level below = {.st = *st};
	if (mkdirat(to_fd, name, 0700) < 0)
		return -errno;
	below.from_fd = file_open_below(from_fd, name, O_RDONLY | O_DIRECTORY);
	below.to_fd = file_open_below(to_fd, name, O_RDONLY | O_DIRECTORY);
	int r = below.from_fd < 0 ? below.from_fd : below.to_fd < 0 ? below.to_fd : 0;
	if (r == 0)
		r = read_names(&below);
	if (r == 0)
		return push(walk, &below, name);
	level_fini(&below);
	return r;
}

/* Makes a missing name as the template has it. */
static void put_name(struct walk *walk, int from_fd, int to_fd, const char *name)
{
	struct stat st;
	int r = fstatat(from_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	if (r == -ENOENT)
		return;
	if (r == 0 && S_ISDIR(st.st_mode))
		r = enter_copy(walk, from_fd, to_fd, name, &st);
	else if (r == 0 && S_ISLNK(st.st_mode))
		r = copy_link(from_fd, to_fd, name);
	else if (r == 0 && S_ISREG(st.st_mode))
		r = copy_file(from_fd, to_fd, name);
	if (r < 0)
		fail(walk, name, r);
}

/* Goes into a directory that is one in the template too. */
static int enter_changed(struct walk *walk, const struct level *level,
			 const struct layer_entry *entry, const struct stat *st)
{
	struct level below = {.st = *st, .to_fd = -1};
	size_t len = walk->path.len;
	below.from_fd = file_open_below(level->from_fd, entry->name, O_RDONLY | O_DIRECTORY);
	if (below.from_fd >= 0)
		below.to_fd = open_free_dir(level->to_fd, entry->name);
	int r = below.from_fd < 0 ? below.from_fd : below.to_fd < 0 ? below.to_fd : 0;
	if (r == 0) {
		ap_buf_printf(&walk->path, len > 0 ? "/%s" : "%s", entry->name);
		r = walk->path.failed ? -ENOMEM
				      : layer_enter(&level->dir, entry, walk->path.data, true,
						    &below.dir, NULL);
		walk->path.len = len;
	}
	if (r == 0)
		return push(walk, &below, entry->name);
	level_fini(&below);
	return r;
}

static void restore_entry(struct walk *walk, const struct level *level,
			  const struct layer_entry *entry)
{
	struct stat st;
	const int from_fd = level->from_fd, to_fd = level->to_fd; /* the level may move */
	int r = 0;
	if (entry->kind == LAYER_MOUNT) {
		fail(walk, entry->name, -EBUSY);
		return;
	}
	if (entry->kind == LAYER_DIR && !entry->is_opaque && !entry->from &&
	    fstatat(from_fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
		r = enter_changed(walk, level, entry, &st);
		if (r < 0)
			fail(walk, entry->name, r);
		return;
	}
	r = remove_tree_at(to_fd, entry->name, NULL, NULL);
	if (r < 0)
		fail(walk, entry->name, r);
	else
		put_name(walk, from_fd, to_fd, entry->name);
}

/* Leaves a directory, with the mode that the template has. */
static void end_restored(struct walk *walk)
{
	const struct level *level = &walk->levels[walk->n - 1];
	struct stat st;
	if (fstat(level->to_fd, &st) < 0 || ((st.st_mode & 07777) != (level->st.st_mode & 07777) &&
					     fchmod(level->to_fd, level->st.st_mode & 07777) < 0))
		fail(walk, "", -errno);
	pop(walk);
}

static int begin_restoring(struct walk *walk, struct layer *layer, const char *template_files)
{
	struct level top = {.to_fd = -1};
	AP_CLEANUP_CLOSE int merged = layer_merged_dir(layer, "", walk->err);
	if (merged < 0)
		return merged;
	top.from_fd = open(template_files, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top.from_fd < 0 || fstat(top.from_fd, &top.st) < 0)
		return ap_err_errno(walk->err, -errno, "%s", template_files);
	top.to_fd = open_free_dir(merged, ".");
	int r = top.to_fd < 0 ? ap_err_errno(walk->err, top.to_fd, "the worktree")
			      : layer_top(layer, &top.dir, walk->err);
	if (r == 0)
		return push(walk, &top, "");
	level_fini(&top);
	return r;
}

int restore_from(struct layer *layer, const char *template_files, struct ap_err *err)
{
	struct walk walk = {.err = err};
	int r = begin_restoring(&walk, layer, template_files);
	while (r == 0 && walk.n > 0) {
		struct level *level = &walk.levels[walk.n - 1];
		const char *name;
		if (!level->names && level->next < level->dir.n)
			restore_entry(&walk, level, &level->dir.entries[level->next++]);
		else if (level->names && (name = next_name(&walk, level)))
			put_name(&walk, level->from_fd, level->to_fd, name);
		else
			end_restored(&walk);
	}
	walk_fini(&walk);
	return r < 0 ? r : walk.result;
}

/* --- keeping --- */

/* Copies the marks of a directory in an overlay's upper directory: opaque and redirect. */
static void copy_marks(int from_fd, int to_fd)
{
	static const char *const marks[] = {"trusted.overlay.opaque", "trusted.overlay.redirect",
					    "user.overlay.opaque", "user.overlay.redirect"};
	char value[4096];
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
		ssize_t n = fgetxattr(from_fd, marks[i], value, sizeof value);
		if (n >= 0)
			(void)fsetxattr(to_fd, marks[i], value, (size_t)n, 0);
	}
}

static int enter_kept(struct walk *walk, int from_fd, int to_fd, const char *name,
		      const struct stat *st)
{
	struct level below = {.st = *st, .to_fd = -1};
	if (walk->n > LAYER_DEPTH_MAX)
		return -ENAMETOOLONG;
	if (mkdirat(to_fd, name, 0700) < 0)
		return -errno;
	below.from_fd = open_free_dir(from_fd, name);
	if (below.from_fd >= 0)
		below.to_fd = file_open_below(to_fd, name, O_RDONLY | O_DIRECTORY);
	int r = below.from_fd < 0 ? below.from_fd : below.to_fd < 0 ? below.to_fd : 0;
	if (r == 0) {
		copy_marks(below.from_fd, below.to_fd);
		r = read_names(&below);
	}
	if (r == 0)
		return push(walk, &below, name);
	level_fini(&below);
	return r;
}

/* Makes a hard link; copies what cannot have another one (too many links, not ours, a file system
 * without links). Not for directories. */
static int link_name(int from_fd, int to_fd, const char *name, const struct stat *st)
{
	if (linkat(from_fd, name, to_fd, name, 0) == 0)
		return 0;
	if (S_ISREG(st->st_mode))
		return copy_file(from_fd, to_fd, name);
	if (S_ISLNK(st->st_mode))
		return copy_link(from_fd, to_fd, name);
	return mknodat(to_fd, name, st->st_mode, st->st_rdev) < 0 ? -errno : 0;
}

static void keep_name(struct walk *walk, int from_fd, int to_fd, const char *name)
{
	struct stat st = {.st_mode = 0};
	int r = 0;
	AP_CLEANUP_CLOSE int path_fd = file_open_below(from_fd, name, O_PATH);
	if (path_fd == -ENOENT || path_fd == -EXDEV)
		return;
	if (path_fd < 0)
		r = path_fd;
	else if (fstat(path_fd, &st) < 0)
		r = -errno;
	else if (S_ISDIR(st.st_mode))
		r = enter_kept(walk, from_fd, to_fd, name, &st);
	else if (!S_ISSOCK(st.st_mode))
		r = link_name(from_fd, to_fd, name, &st);
	if (r < 0 && r != -ENOENT)
		fail(walk, name, r);
}

/* Leaves a directory, with its mode and times; gives the directory that it was made from its own
 * mode back too. */
static void end_kept(struct walk *walk)
{
	const struct level *level = &walk->levels[walk->n - 1];
	const struct timespec times[] = {level->st.st_atim, level->st.st_mtim};
	(void)fchmod(level->from_fd, level->st.st_mode & 07777);
	if (fchmod(level->to_fd, level->st.st_mode & 07777) < 0 ||
	    futimens(level->to_fd, times) < 0)
		fail(walk, "", -errno);
	pop(walk);
}

int restore_keep_links(const char *from, const char *to, struct ap_err *err)
{
	struct walk walk = {.err = err};
	struct level top = {.to_fd = -1};
	top.from_fd = open(from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (top.from_fd < 0 || fstat(top.from_fd, &top.st) < 0) {
		int r = ap_err_errno(err, -errno, "%s", from);
		level_fini(&top);
		return r;
	}
	if (mkdir(to, 0700) == 0)
		top.to_fd = open(to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = top.to_fd < 0 ? -errno : read_names(&top);
	if (r < 0) {
		level_fini(&top);
		return ap_err_errno(err, r, "%s", to);
	}
	copy_marks(top.from_fd, top.to_fd);
	r = push(&walk, &top, "");
	while (r == 0 && walk.n > 0) {
		struct level *level = &walk.levels[walk.n - 1];
		const char *name = next_name(&walk, level);
		if (name)
			keep_name(&walk, level->from_fd, level->to_fd, name);
		else
			end_kept(&walk);
	}
	walk_fini(&walk);
	return r < 0 ? r : walk.result;
}

/* --- keeping what a layer says is changed --- */

#define KEEP_DEPTH_MAX 1000 /* levels of directories: what a thread's stack takes */

static int keep_changed(const struct layer_dir *dir, int to_fd, struct ap_buf *path, unsigned depth,
			struct ap_err *err);

/* Keeps a directory at `path`. 1: something of it is kept; 0: nothing is changed in it, it has
 * gone, or something is mounted over it; or a negative errno. */
static int keep_dir(const struct layer_dir *dir, int to_fd, const struct layer_entry *entry,
		    struct ap_buf *path, unsigned depth, struct ap_err *err)
{
	struct layer_dir child;
	if (depth >= KEEP_DEPTH_MAX)
		return ap_err_set(err, -ENAMETOOLONG, "%.*s/… lies too deep to be kept",
				  file_path_shown(path->data), path->data);
	int r = layer_enter(dir, entry, path->data, true, &child, err);
	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -EXDEV ? 0 : r;
	AP_CLEANUP_CLOSE int below = -1;
	if (mkdirat(to_fd, entry->name, 0700) < 0)
		r = -errno;
	else if ((below = file_open_below(to_fd, entry->name, O_RDONLY | O_DIRECTORY)) < 0)
		r = below;
	if (r < 0)
		(void)ap_err_errno(err, r, "%s", path->data);
	else
		r = keep_changed(&child, below, path, depth + 1, err);
	if (r > 0) /* it has its own mode, as it was */
		(void)fchmod(below, entry->st.st_mode & 07777);
	else if (r == 0)
		(void)unlinkat(to_fd, entry->name, AT_REMOVEDIR);
	layer_dir_fini(&child);
	return r;
}

/* Links the changed files of a directory. 1: it has linked something; 0: nothing is changed; or a
 * negative errno: something changed cannot be kept. */
static int keep_changed(const struct layer_dir *dir, int to_fd, struct ap_buf *path, unsigned depth,
			struct ap_err *err)
{
	int any = 0, r = 0;
	size_t len = path->len;
	for (size_t i = 0; i < dir->n && r >= 0; i++) {
		const struct layer_entry *entry = &dir->entries[i];
		path->len = len;
		ap_buf_printf(path, len ? "/%s" : "%s", entry->name);
		if (path->failed)
			return ap_err_errno(err, -ENOMEM, "%s", entry->name);
		r = 0;
		if (entry->kind == LAYER_DIR) {
			r = keep_dir(dir, to_fd, entry, path, depth, err);
		} else if ((entry->kind == LAYER_FILE || entry->kind == LAYER_LINK) &&
			   !entry->is_baseline) {
			r = link_name(dir->fd, to_fd, entry->name, &entry->st);
			if (r < 0 && r != -ENOENT) /* else it has gone meanwhile */
				return ap_err_errno(err, r, "%s", path->data);
			r = r == 0;
		}
		any |= r > 0;
	}
	path->len = len;
	return r < 0 ? r : any;
}

int restore_keep_layer(struct layer *layer, const char *to, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct layer_dir top;
	if (mkdir(to, 0700) < 0)
		return ap_err_errno(err, -errno, "%s", to);
	AP_CLEANUP_CLOSE int fd = open(to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return ap_err_errno(err, -errno, "%s", to);
	int r = layer_top(layer, &top, err);
	if (r < 0)
		return r;
	r = keep_changed(&top, fd, &path, 0, err);
	layer_dir_fini(&top);
	if (r < 0)
		(void)remove_tree(to, NULL, NULL); /* all of it is where it was, too */
	return r < 0 ? r : 0;
}

/* --- mounts --- */

struct mounts {
	struct mounts_row *rows;
	size_t n;
};

static void mounts_fini(struct mounts *mounts)
{
	mounts_free(mounts->rows, mounts->n);
}

/* Lists the mounts at the path and below it, without the lowest `n_own` overlays at the path
 * itself. */
static int list_mounts(const char *path, unsigned n_own, struct mounts *ret)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	struct mounts_row *rows;
	size_t n, kept = 0;
	int r = mounts_read(0, &table);
	if (r == 0)
		r = mounts_below(ap_buf_text(&table), path, &rows, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (n_own > 0 && strcmp(rows[i].path, path) == 0 &&
		    strcmp(rows[i].type, "overlay") == 0) {
			free(rows[i].path);
			n_own--;
		} else {
			rows[kept++] = rows[i];
		}
	}
	*ret = (struct mounts){.rows = rows, .n = kept};
	return 0;
}

static int unmount_fuse(const char *path)
{
	const char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", path, NULL};
	int r = process_run(&(struct process_run){.argv = argv, .limit_ns = FUSERMOUNT_LIMIT},
			    NULL);
	return r > 0 ? -EPERM : r;
}

/* Unmounts what lies on top at a name. Gets there by descriptor: an agent may put a link in the
 * place of a directory, and what that leads to must stay mounted. */
static int unmount_at(int dir_fd, const char *name, const struct mounts_row *row)
{
	char path[NAME_PATH_MAX];
	path_at(path, dir_fd, name);
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno == EPERM && strncmp(row->type, "fuse", 4) == 0)
		return unmount_fuse(row->path);
	return -errno;
}

/* Opens the parent directory of a mount's place: from the root for `path` itself, whose parents are
 * the pool's, else from `path`. -EXDEV: another mount lies between. */
static int open_above(const char *path, int top_fd, const char *place, const char **ret_name)
{
	const char *slash = strrchr(place, '/');
	*ret_name = slash + 1;
	bool is_top = strcmp(place, path) == 0;
	const char *begin = is_top ? place : place + strlen(path);
	AP_CLEANUP_FREE char *above = strndup(begin, (size_t)(slash - begin) + is_top);
	if (!above)
		return -ENOMEM;
	if (!is_top)
		return file_open_below(top_fd, *above == '/' ? above + 1 : above,
				       O_PATH | O_DIRECTORY);
	int fd = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Unmounts one mount at each place: with `is_over` only at the path itself, else only below. A
 * mount that never answers may hide others: these go with it, and nobody looks for them. */
static int unmount_round(const char *path, const struct mounts *mounts, bool is_over)
{
	AP_CLEANUP_CLOSE int top_fd =
		is_over ? -1 : open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int result = 0;
	for (size_t i = 0; i < mounts->n; i++) {
		const struct mounts_row *row = &mounts->rows[i];
		const char *name;
		if (is_over != (strcmp(row->path, path) == 0))
			continue;
		AP_CLEANUP_CLOSE int fd = open_above(path, top_fd, row->path, &name);
		int r = fd < 0 ? fd : unmount_at(fd, name, row);
		if (r < 0 && r != -EXDEV && result == 0)
			result = r;
	}
	return result;
}

static bool is_over_path(const struct mounts *mounts, const char *path)
{
	for (size_t i = 0; i < mounts->n; i++) {
		if (strcmp(mounts->rows[i].path, path) == 0)
			return true;
	}
	return false;
}

static bool has_id(const struct mounts *mounts, int id)
{
	for (size_t i = 0; i < mounts->n; i++) {
		if (mounts->rows[i].id == id)
			return true;
	}
	return false;
}

int restore_unmount(const char *path, unsigned n_own,
		    void (*each)(void *data, const char *place, const char *type), void *data,
		    struct ap_err *err)
{
	struct mounts before = {.n = 0};
	int r = list_mounts(path, n_own, &before), last = 0;
	while (r == 0 && before.n > 0) {
		struct mounts after;
		last = unmount_round(path, &before, is_over_path(&before, path));
		r = list_mounts(path, n_own, &after);
		if (r < 0)
			break;
		bool any = false;
		for (size_t i = 0; i < before.n; i++) {
			if (has_id(&after, before.rows[i].id))
				continue;
			any = true;
			if (each)
				each(data, before.rows[i].path, before.rows[i].type);
		}
		mounts_fini(&before);
		before = after;
		if (!any)
			break;
	}
	if (r < 0)
		r = ap_err_errno(err, r, "mounts at %s", path);
	else if (before.n > 0)
		r = ap_err_set(err, last == -EPERM ? last : -EBUSY,
			       "%s (%s) is mounted at %s still", before.rows[0].type,
			       strerror(last ? -last : EBUSY), before.rows[0].path);
	mounts_fini(&before);
	return r;
}
