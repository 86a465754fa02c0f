/* Reads layers. Opens each name with O_PATH first, on the mount of its directory, and inspects that
 * descriptor: what it is cannot change between the check and the use, and no file system that is
 * mounted over it has to answer.
 *
 * Reads the marks of an overlay's upper directory as the kernel does: a character device 0:0 is a
 * whiteout, a name that has gone; a directory may be opaque (nothing of the template shows in it),
 * or have a redirect to where it was moved from. An agent may have set any of them. */
#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "layer_list.h"
#include "mounts.h"
#include "text.h"

#define REDIRECT_MAX 4096 /* bytes of a redirect, with its NUL */
#define IS_OPAQUE    1	  /* in a list, in place of the hash of a redirect */
#define LIST_TICKS   3	  /* of waiting: until later writes differ in time from setup's last */

struct layer {
	char *path;    /* of the worktree */
	int top_fd;    /* of the upper directory, or the worktree */
	int merged_fd; /* of the worktree; -1 until it is needed */
	bool is_overlay;
	bool user_xattrs;
	struct layer_list *manifest, *baseline;
};

static struct layer_stamp stamp_of(const struct stat *st)
{
	return (struct layer_stamp){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime_ns = st->st_mtim.tv_sec * AP_SECOND + st->st_mtim.tv_nsec,
		.ctime_ns = st->st_ctim.tv_sec * AP_SECOND + st->st_ctim.tv_nsec,
		.mode = st->st_mode,
	};
}

static void proc_path(char ret[32], int fd)
{
	snprintf(ret, 32, "/proc/self/fd/%d", fd);
}

/* --- opening --- */

/* Opens a directory whose parents are the pool's; nothing may be mounted at the directory. */
static int open_top(const char *path, int flags, struct ap_err *err)
{
	const char *slash = strrchr(path, '/');
	AP_CLEANUP_FREE char *above =
		slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	if (!above)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	AP_CLEANUP_CLOSE int parent = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = parent < 0
			 ? -errno
			 : file_open_below(parent, slash ? slash + 1 : path, flags | O_DIRECTORY);
	if (fd == -EXDEV)
		return ap_err_set(err, fd, "something is mounted at %s", path);
	return fd < 0 ? ap_err_errno(err, fd, "%s", path) : fd;
}

static int read_list(struct layer_list **ret, const char *file, bool is_needed, struct ap_err *err)
{
	int r = file ? layer_list_read(ret, file, err) : 0;
	return r == -ENOENT && !is_needed ? 0 : r;
}

int layer_open(struct layer **ret, const struct layer_place *place, struct ap_err *err)
{
	struct layer *layer = calloc(1, sizeof *layer);
	if (!layer || !(layer->path = strdup(place->path))) {
		free(layer);
		return ap_err_errno(err, -ENOMEM, "%s", place->path);
	}
	layer->merged_fd = -1;
	layer->is_overlay = place->upper;
	layer->user_xattrs = place->user_xattrs;
	layer->top_fd = open_top(place->upper ? place->upper : place->path, O_PATH, err);
	int r = layer->top_fd < 0 ? layer->top_fd : 0;
	if (r == 0 && !place->upper)
		r = read_list(&layer->manifest, place->manifest, true, err);
	if (r == 0)
		r = read_list(&layer->baseline, place->baseline, false, err);
	if (r < 0)
		layer_close(layer);
	else
		*ret = layer;
	return r;
}

void layer_close(struct layer *layer)
{
	if (!layer)
		return;
	if (layer->top_fd >= 0)
		close(layer->top_fd);
	if (layer->merged_fd >= 0)
		close(layer->merged_fd);
	layer_list_free(layer->manifest);
	layer_list_free(layer->baseline);
	free(layer->path);
	free(layer);
}

/* Adds the bits to the mode of a file that is ours. */
static int add_mode(int path_fd, mode_t bits)
{
	struct stat st;
	char name[32];
	if (fstat(path_fd, &st) < 0)
		return -errno;
	if (geteuid() != 0 && st.st_uid != geteuid())
		return -EACCES;
	proc_path(name, path_fd);
	return chmod(name, (st.st_mode & 07777) | bits) < 0 ? -EACCES : 0;
}

/* Whether a directory of ours lacks the bits that it takes to list it and to inspect what is in it
 * (u+rx). */
static bool is_shut(const struct stat *st)
{
	return geteuid() != 0 && st->st_uid == geteuid() && (st->st_mode & 0500) != 0500;
}

static int open_dir(int dir_fd, const char *name, bool make_readable)
{
	struct stat st;
	AP_CLEANUP_CLOSE int path_fd = file_open_below(dir_fd, name, O_PATH | O_DIRECTORY);
	if (path_fd < 0)
		return path_fd;
	if (fstat(path_fd, &st) < 0)
		return -errno;
	int fd = is_shut(&st) ? -EACCES : file_open_below(path_fd, ".", O_RDONLY | O_DIRECTORY);
	if (fd != -EACCES || !make_readable)
		return fd;
	int r = add_mode(path_fd, 0500);
	return r < 0 ? r : file_open_below(path_fd, ".", O_RDONLY | O_DIRECTORY);
}

/* --- marks --- */

/* The value of a mark of an upper directory. Its length, or -ENODATA: there is no such mark.
 * Reading the mark of a directory that is shut needs a change of its mode, which the function
 * undoes. */
static ssize_t read_mark(const struct layer *layer, int path_fd, const struct stat *st,
			 const char *mark, char *value, size_t size)
{
	char name[32], key[64];
	proc_path(name, path_fd);
	snprintf(key, sizeof key, "%s.overlay.%s", layer->user_xattrs ? "user" : "trusted", mark);
	ssize_t n = getxattr(name, key, value, size);
	if (n < 0 && errno == EACCES && add_mode(path_fd, 0400) == 0) {
		n = getxattr(name, key, value, size);
		int error = errno;
		(void)chmod(name, st->st_mode & 07777); /* on failure it stays readable: no harm */
		errno = error;
	}
	if (n < 0 && (errno == ENODATA || errno == ENOTSUP))
		return -ENODATA;
	return n < 0 ? -errno : n;
}

/* Appends a path without empty parts to what is there already; false: the kernel would not follow
 * it. */
static bool add_normalised(struct ap_buf *ret, const char *path)
{
	for (size_t len; *path; path += len) {
		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len == 2 && path[0] == '.' && path[1] == '.')
			return false;
		if (len == 0 || (len == 1 && path[0] == '.'))
			continue;
		if (ret->len > 0)
			ap_buf_adds(ret, "/");
		ap_buf_add(ret, path, len);
	}
	return true;
}

/* Where a directory was moved from, by its redirect mark: a path from the top, or another name in
 * its own directory, which may have been moved itself. NULL with 0: the mark is not valid. */
static int resolve_redirect(const struct layer_dir *dir, const char *path, const char *mark,
			    char **ret)
{
	AP_CLEANUP_BUF struct ap_buf from = {0};
	bool is_sound = *mark == '/' || (!strchr(mark, '/') && !dir->is_new);
	if (is_sound && *mark != '/' && dir->from) {
		ap_buf_adds(&from, dir->from);
		is_sound = add_normalised(&from, path + dir->from_len);
	} else if (is_sound && *mark != '/') {
		is_sound = add_normalised(&from, path);
	}
	size_t before = from.len;
	is_sound = is_sound && add_normalised(&from, mark) && from.len > before;
	if (from.failed)
		return -ENOMEM;
	*ret = is_sound ? ap_steal(from.data) : NULL;
	return 0;
}

/* Whether `from` is the own path of the name. */
static bool is_own_path(const char *from, const char *path, const char *name)
{
	size_t len = strlen(path);
	if (len > 0 && (strncmp(from, path, len) != 0 || from[len++] != '/'))
		return false;
	return strcmp(from + len, name) == 0;
}

static int read_marks(const struct layer_dir *dir, const char *path, int path_fd,
		      struct layer_entry *entry)
{
	char mark[REDIRECT_MAX];
	ssize_t n = read_mark(dir->layer, path_fd, &entry->st, "opaque", mark, sizeof mark);
	entry->is_opaque = n == 1 && mark[0] == 'y';
	if (entry->is_opaque || (n < 0 && n != -ENODATA && n != -ERANGE))
		return entry->is_opaque ? 0 : (int)n;
	n = read_mark(dir->layer, path_fd, &entry->st, "redirect", mark, sizeof mark - 1);
	if (n == -ENODATA)
		return 0;
	if (n < 0 && n != -ERANGE)
		return (int)n;
	mark[n > 0 ? n : 0] = '\0';
	int r = resolve_redirect(dir, path, mark, &entry->from);
	/* the kernel does not follow an invalid mark: only what is in the directory counts */
	entry->is_opaque = r == 0 && !entry->from;
	/* it was moved away and back; below a moved directory the path means another place */
	if (entry->from && !dir->from && !dir->is_new &&
	    is_own_path(entry->from, path, entry->name)) {
		free(entry->from);
		entry->from = NULL;
	}
	return r;
}

/* --- entries --- */

static enum layer_kind kind_of(const struct layer *layer, const struct stat *st)
{
	if (S_ISREG(st->st_mode))
		return LAYER_FILE;
	if (S_ISLNK(st->st_mode))
		return LAYER_LINK;
	if (S_ISDIR(st->st_mode))
		return LAYER_DIR;
	if (layer->is_overlay && S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0))
		return LAYER_GONE;
	return LAYER_OTHER;
}

/* The stamp that a list has for an entry. For a directory it says what shows there instead of the
 * template's; for most directories nothing. */
static struct layer_stamp note_of(const struct layer_entry *entry)
{
	switch (entry->kind) {
	case LAYER_FILE:
	case LAYER_LINK:
	case LAYER_OTHER:
		return stamp_of(&entry->st);
	case LAYER_DIR:
		return (struct layer_stamp){
			.mode = S_IFDIR,
			.size = entry->is_opaque ? IS_OPAQUE
				: entry->from	 ? ap_hash(entry->from)
						 : 0,
		};
	case LAYER_GONE:
	case LAYER_MOUNT:
		break;
	}
	return (struct layer_stamp){.mode = 0};
}

static bool is_listed(const struct layer_list *list, uint32_t dir, const struct layer_entry *entry,
		      bool may_be_racy)
{
	uint32_t at = layer_list_find(list, dir, entry->name);
	if (at == LAYER_NONE || entry->kind == LAYER_MOUNT)
		return false;
	const struct layer_node *node = layer_list_node(list, at);
	const struct layer_stamp note = note_of(entry);
	if (entry->kind == LAYER_DIR && note.size == 0)
		return false;
	return layer_node_equals(node, &note) && (may_be_racy || !layer_node_is_racy(list, node));
}

static int add_entry(struct layer_dir *dir, size_t *room, struct layer_entry *entry)
{
	if (dir->n == LAYER_DIR_MAX)
		return -E2BIG;
	if (dir->n == *room) {
		size_t more = *room ? *room * 2 : 16;
		struct layer_entry *entries = realloc(dir->entries, more * sizeof *entries);
		if (!entries)
			return -ENOMEM;
		dir->entries = entries;
		*room = more;
	}
	entry->is_baseline = is_listed(dir->layer->baseline, dir->in_baseline, entry, false);
	dir->entries[dir->n++] = *entry;
	*entry = (struct layer_entry){.name = NULL};
	return 0;
}

static void entry_fini(struct layer_entry *entry)
{
	free(entry->name);
	free(entry->from);
}

/* Inspects one name, and adds it if it belongs to the layer. Marks in `seen` which names of the
 * manifest are there. */
static int add_name(struct layer_dir *dir, const char *path, const char *name, uint8_t *seen,
		    size_t *room)
{
	const struct layer *layer = dir->layer;
	struct layer_entry entry = {.kind = LAYER_MOUNT};
	AP_CLEANUP_CLOSE int path_fd = file_open_below(dir->fd, name, O_PATH);
	if (path_fd == -ENOENT)
		return 0; /* it has gone meanwhile */
	if (path_fd < 0 && path_fd != -EXDEV)
		return path_fd;
	if (path_fd >= 0) {
		if (fstat(path_fd, &entry.st) < 0)
			return -errno;
		entry.kind = kind_of(layer, &entry.st);
	}
	uint32_t at = layer_list_find(layer->manifest, dir->in_manifest, name);
	if (at != LAYER_NONE) {
		const struct layer_node *node = layer_list_node(layer->manifest, at);
		const struct layer_stamp stamp = stamp_of(&entry.st);
		seen[at - layer_list_node(layer->manifest, dir->in_manifest)->first] = 1;
		if (entry.kind != LAYER_MOUNT && entry.kind != LAYER_DIR &&
		    layer_node_equals(node, &stamp) && !layer_node_is_racy(layer->manifest, node))
			return 0;
	}
	entry.name = strdup(name);
	int r = entry.name ? 0 : -ENOMEM;
	if (r == 0 && layer->is_overlay && entry.kind == LAYER_DIR)
		r = read_marks(dir, path, path_fd, &entry);
	if (r == 0)
		r = add_entry(dir, room, &entry);
	entry_fini(&entry);
	return r;
}

static int add_gone(struct layer_dir *dir, const uint8_t *seen, size_t *room)
{
	const struct layer_list *manifest = dir->layer->manifest;
	if (!manifest || dir->in_manifest == LAYER_NONE)
		return 0;
	const struct layer_node *node = layer_list_node(manifest, dir->in_manifest);
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < node->n; i++) {
		if (seen[i])
			continue;
		const char *name = layer_list_name(manifest, node->first + i);
		struct layer_entry entry = {.kind = LAYER_GONE, .name = strdup(name)};
		r = entry.name ? add_entry(dir, room, &entry) : -ENOMEM;
		entry_fini(&entry);
	}
	return r;
}

static int read_names(struct layer_dir *dir, const char *path, uint8_t *seen, size_t *room)
{
	int fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 0);
	DIR *names = fd < 0 ? NULL : fdopendir(fd);
	if (!names) {
		int r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	int r = 0;
	for (;;) {
		errno = 0;
		const struct dirent *at = readdir(names);
		if (!at)
			r = -errno;
		if (!at || r < 0)
			break;
		if (strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0 ||
		    (dir->depth == 0 && strcmp(at->d_name, ".git") == 0))
			continue;
		r = add_name(dir, path, at->d_name, seen, room);
		if (r < 0)
			break;
	}
	closedir(names);
	return r;
}

static int read_dir(struct layer_dir *dir, const char *path, struct ap_err *err)
{
	const struct layer_list *manifest = dir->layer->manifest;
	size_t n = 0, room = 0;
	if (manifest && dir->in_manifest != LAYER_NONE)
		n = layer_list_node(manifest, dir->in_manifest)->n;
	AP_CLEANUP_FREE uint8_t *seen = calloc(n + 1, 1);
	int r = seen ? read_names(dir, path, seen, &room) : -ENOMEM;
	if (r == 0)
		r = add_gone(dir, seen, &room);
	if (r == -E2BIG)
		return ap_err_set(err, r, "%s has more than %d entries",
				  *path ? path : dir->layer->path, LAYER_DIR_MAX);
	return r < 0 ? ap_err_errno(err, r, "%s", *path ? path : dir->layer->path) : 0;
}

int layer_top(struct layer *layer, struct layer_dir *ret, struct ap_err *err)
{
	struct layer_dir dir = {
		.layer = layer,
		.in_manifest = layer->manifest ? LAYER_ROOT : LAYER_NONE,
		.in_baseline = layer->baseline ? LAYER_ROOT : LAYER_NONE,
	};
	dir.fd = open_dir(layer->top_fd, ".", false);
	if (dir.fd < 0)
		return ap_err_errno(err, dir.fd, "%s", layer->path);
	int r = read_dir(&dir, "", err);
	if (r < 0)
		layer_dir_fini(&dir);
	else
		*ret = dir;
	return r;
}

/* What of the template shows in a directory: what its entry says, else as in the directory above.
 */
static int inherit(const struct layer_dir *above, const struct layer_entry *entry, const char *path,
		   struct layer_dir *dir)
{
	const char *from = entry->from ? entry->from : entry->is_opaque ? NULL : above->from;
	dir->from_len = entry->from ? strlen(path) : above->from_len;
	dir->is_new = !entry->from && (entry->is_opaque || above->is_new);
	if (from && !(dir->from = strdup(from)))
		return -ENOMEM;
	return 0;
}

int layer_enter(const struct layer_dir *above, const struct layer_entry *entry, const char *path,
		bool make_readable, struct layer_dir *ret, struct ap_err *err)
{
	const struct layer *layer = above->layer;
	struct layer_dir dir = {
		.layer = above->layer,
		.depth = above->depth + 1,
		.in_manifest = layer_list_find(layer->manifest, above->in_manifest, entry->name),
		.in_baseline = layer_list_find(layer->baseline, above->in_baseline, entry->name),
	};
	if (dir.depth > LAYER_DEPTH_MAX)
		return ap_err_set(err, -ENAMETOOLONG, "more than %d directories in one another: %s",
				  LAYER_DEPTH_MAX, path);
	dir.fd = open_dir(above->fd, entry->name, make_readable);
	if (dir.fd < 0)
		return ap_err_errno(err, dir.fd, "%s", path);
	int r = inherit(above, entry, path, &dir);
	if (r < 0)
		(void)ap_err_errno(err, r, "%s", path);
	else
		r = read_dir(&dir, path, err);
	if (r < 0)
		layer_dir_fini(&dir);
	else
		*ret = dir;
	return r;
}

void layer_dir_fini(struct layer_dir *dir)
{
	for (size_t i = 0; i < dir->n; i++)
		entry_fini(&dir->entries[i]);
	free(dir->entries);
	free(dir->from);
	if (dir->fd >= 0)
		close(dir->fd);
	*dir = (struct layer_dir){.fd = -1};
}

/* --- content of files and links --- */

static int open_file(int dir_fd, const char *name, bool make_readable)
{
	struct stat st;
	char path[32];
	AP_CLEANUP_CLOSE int path_fd = file_open_below(dir_fd, name, O_PATH);
	if (path_fd < 0)
		return path_fd == -ENOENT || path_fd == -EXDEV ? -ESTALE : path_fd;
	if (fstat(path_fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ESTALE;
	proc_path(path, path_fd);
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && make_readable && add_mode(path_fd, 0400) == 0)
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int layer_open_file(const struct layer_dir *dir, const struct layer_entry *entry,
		    bool make_readable, struct ap_err *err)
{
	int fd = open_file(dir->fd, entry->name, make_readable);
	return fd < 0 ? ap_err_errno(err, fd, "%s", entry->name) : fd;
}

int layer_read_link(const struct layer_dir *dir, const struct layer_entry *entry,
		    struct ap_buf *ret, struct ap_err *err)
{
	char target[PATH_MAX];
	AP_CLEANUP_CLOSE int fd = file_open_below(dir->fd, entry->name, O_PATH);
	ssize_t n = fd < 0 ? fd : readlinkat(fd, "", target, sizeof target);
	if (fd >= 0 && n < 0) /* ENOENT: it is no link */
		n = errno == ENOENT || errno == EINVAL ? -ESTALE : -errno;
	if (n < 0)
		return ap_err_errno(err, (int)n, "%s", entry->name);
	ap_buf_add(ret, target, (size_t)n);
	return ret->failed ? ap_err_errno(err, -ENOMEM, "%s", entry->name) : 0;
}

/* --- the files as the agent sees them --- */

/* Opens the worktree itself. The pool has mounted an overlay there; any other mount is an agent's.
 */
static int open_merged(struct layer *layer, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	char type[MOUNTS_TYPE_MAX];
	if (!layer->is_overlay)
		return layer->top_fd;
	if (layer->merged_fd >= 0)
		return layer->merged_fd;
	int r = mounts_read(0, &table);
	if (r < 0)
		return ap_err_errno(err, r, "%s", layer->path);
	bool is_mounted = mounts_type_at(ap_buf_text(&table), layer->path, type);
	if (is_mounted && strcmp(type, "overlay") == 0) {
		int fd = open(layer->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		layer->merged_fd = fd < 0 ? ap_err_errno(err, -errno, "%s", layer->path) : fd;
	} else {
		layer->merged_fd = open_top(layer->path, O_PATH, err);
	}
	r = layer->merged_fd;
	if (r < 0)
		layer->merged_fd = -1;
	return r;
}

int layer_merged_dir(struct layer *layer, const char *path, struct ap_err *err)
{
	int top = open_merged(layer, err);
	if (top < 0)
		return top;
	int fd = file_open_below(top, path, O_PATH | O_DIRECTORY);
	return fd < 0 ? ap_err_errno(err, fd, "%s", *path ? path : layer->path) : fd;
}

int layer_merged_file(struct layer *layer, const char *path, bool make_readable, struct ap_err *err)
{
	int top = open_merged(layer, err);
	int fd = top < 0 ? top : open_file(top, path, make_readable);
	return top >= 0 && fd < 0 ? ap_err_errno(err, fd, "%s", path) : fd;
}

/* --- lists of a layer --- */

/* A directory on the path of the walk that makes a list. */
struct level {
	struct layer_dir dir;
	uint32_t node, before; /* its nodes in the list, and in the list of before */
	size_t next;	       /* the next entry */
	size_t path_len;
};

struct noting {
	bool skip_baseline; /* leave out what the baseline has already */
	const struct layer_list *before;
	struct layer_list *list;
	struct level *levels;
	size_t n, room;
	struct ap_buf path;
};

/* Adds the names of a directory that are not in the list of before. */
static int note_names(struct noting *noting, const struct level *level)
{
	uint32_t first = layer_list_count(noting->list);
	for (size_t i = 0; i < level->dir.n; i++) {
		const struct layer_entry *entry = &level->dir.entries[i];
		struct layer_stamp note = note_of(entry);
		if (noting->skip_baseline && entry->is_baseline && entry->kind != LAYER_DIR)
			continue;
		/* a directory must be in the list for what is in it */
		if (entry->kind == LAYER_MOUNT ||
		    (entry->kind != LAYER_DIR &&
		     is_listed(noting->before, level->before, entry, true)))
			continue;
		if (is_listed(noting->before, level->before, entry, true))
			note.size = 0;
		int r = layer_list_add(noting->list, entry->name, &note);
		if (r < 0)
			return r;
	}
	layer_list_end_dir(noting->list, level->node, first);
	return 0;
}

static int push(struct noting *noting, struct level *level, struct ap_err *err)
{
	if (noting->n == noting->room) {
		size_t more = noting->room ? noting->room * 2 : 16;
		struct level *levels = realloc(noting->levels, more * sizeof *levels);
		if (!levels) {
			layer_dir_fini(&level->dir);
			return ap_err_errno(err, -ENOMEM, "%s", level->dir.layer->path);
		}
		noting->levels = levels;
		noting->room = more;
	}
	level->path_len = noting->path.len;
	noting->levels[noting->n++] = *level;
	int r = note_names(noting, level);
	return r < 0 ? ap_err_errno(err, r, "a list of %s", level->dir.layer->path) : 0;
}

static void pop(struct noting *noting)
{
	layer_dir_fini(&noting->levels[--noting->n].dir);
}

/* A directory that has gone or cannot be entered counts as empty. */
static bool is_left_out(int error)
{
	static const int errors[] = {EACCES, EPERM, ENOENT,	  ENOTDIR,
				     ELOOP,  EXDEV, ENAMETOOLONG, E2BIG};
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
		if (error == -errors[i])
			return true;
	}
	return false;
}

/* Enters the next directory of the deepest level, or leaves that level. */
static int step(struct noting *noting, struct ap_err *err)
{
	struct level *level = &noting->levels[noting->n - 1];
	while (level->next < level->dir.n && level->dir.entries[level->next].kind != LAYER_DIR)
		level->next++;
	if (level->next == level->dir.n) {
		pop(noting);
		return 0;
	}
	const struct layer_entry *entry = &level->dir.entries[level->next++];
	struct level below = {
		.node = layer_list_find(noting->list, level->node, entry->name),
		.before = layer_list_find(noting->before, level->before, entry->name),
	};
	noting->path.len = level->path_len;
	ap_buf_printf(&noting->path, level->path_len > 0 ? "/%s" : "%s", entry->name);
	if (noting->path.failed)
		return ap_err_errno(err, -ENOMEM, "%s", level->dir.layer->path);
	int r = layer_enter(&level->dir, entry, noting->path.data, false, &below.dir, err);
	if (is_left_out(r))
		return 0;
	return r < 0 ? r : push(noting, &below, err);
}

static int note(struct layer *layer, const struct layer_list *before, bool skip_baseline,
		struct layer_list **ret, struct ap_err *err)
{
	struct noting noting = {
		.before = before, .skip_baseline = skip_baseline, .list = layer_list_new()};
	struct level top = {.node = LAYER_ROOT, .before = before ? LAYER_ROOT : LAYER_NONE};
	int r = noting.list ? layer_top(layer, &top.dir, err)
			    : ap_err_errno(err, -ENOMEM, "%s", layer->path);
	if (r == 0)
		r = push(&noting, &top, err);
	while (r == 0 && noting.n > 0)
		r = step(&noting, err);
	while (noting.n > 0)
		pop(&noting);
	free(noting.levels);
	ap_buf_fini(&noting.path);
	if (r < 0)
		layer_list_free(noting.list);
	else
		*ret = noting.list;
	return r;
}

int layer_note(struct layer *layer, struct layer_list **ret, struct ap_err *err)
{
	return note(layer, NULL, true, ret, err);
}

static void wait_ticks(void)
{
	struct timespec ticks = {.tv_nsec = LIST_TICKS * layer_tick_ns()};
	while (nanosleep(&ticks, &ticks) < 0 && errno == EINTR)
		;
}

int layer_write_baseline(struct layer *layer, const struct layer_list *before, const char *file,
			 struct ap_err *err)
{
	struct layer_list *list;
	wait_ticks();
	int r = note(layer, before, false, &list, err);
	if (r < 0)
		return r;
	r = layer_list_write(list, file, err);
	layer_list_free(list);
	return r;
}

/* A layer without a manifest has all files as changed. */
int layer_write_manifest(const char *path, const char *file, struct ap_err *err)
{
	struct layer *layer;
	struct layer_list *list;
	wait_ticks(); /* so that the next write differs in time from the last */
	const struct layer_place place = {.path = path};
	int r = layer_open(&layer, &place, err);
	if (r < 0)
		return r;
	r = note(layer, NULL, false, &list, err);
	layer_close(layer);
	if (r < 0)
		return r;
	r = layer_list_write(list, file, err);
	layer_list_free(list);
	return r;
}
