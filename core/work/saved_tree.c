#include "saved_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"

#define DEPTH_MAX 1000 /* levels of directories: what a thread's stack takes */

#define MODE_TYPE 0170000
#define MODE_DIR  0040000
#define MODE_LINK 0120000
#define MODE_REPO 0160000

/* One directory while its tree is built. */
struct building {
	struct saved_tree *saved;
	const struct layer_dir *dir;
	struct ap_buf *path; /* of the directory, from the top of the layer */
	struct ap_git_tree base, head;
	const char *base_oid; /* "": none */
	const char *origin;   /* path in the template of what `base` was at first */
	bool is_changed;      /* `base` is no longer the tree base_oid */
};

static int build_dir(struct saved_tree *saved, const struct layer_dir *dir, struct ap_buf *path,
		     const char *origin, const char *base_oid, const char *head_oid,
		     char ret[GIT_OID_MAX + 1], struct ap_err *err);

/* The path from the top of the tree, by which git knows it. */
static const char *tree_path(const struct saved_tree *saved, const struct ap_buf *path)
{
	size_t len = strlen(saved->top);
	return ap_buf_text(path) + (len ? len + 1 : 0);
}

static void path_cut(struct ap_buf *path, size_t len)
{
	path->len = len;
	if (path->data)
		path->data[len] = '\0';
}

static void path_add(struct ap_buf *path, const char *name)
{
	if (path->len > 0)
		ap_buf_add(path, "/", 1);
	ap_buf_adds(path, name);
}

static bool is_tree(const struct ap_git_entry *entry)
{
	return entry && (entry->mode & MODE_TYPE) == MODE_DIR;
}

static bool is_gitlink(const struct ap_git_entry *entry)
{
	return entry && (entry->mode & MODE_TYPE) == MODE_REPO;
}

/* --- what is tracked --- */

static int add_tracked(void *data, const char *path, const char *oid)
{
	struct saved_tree *saved = data;
	if (saved->n_tracked == saved->room_tracked) {
		size_t room = saved->room_tracked ? 2 * saved->room_tracked : 1024;
		char **grown = realloc(saved->tracked, room * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		saved->tracked = grown;
		saved->room_tracked = room;
	}
	size_t path_size = strlen(path) + 1, oid_size = strlen(oid) + 1;
	char *copy = malloc(path_size + oid_size);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, path, path_size);
	memcpy(copy + path_size, oid, oid_size);
	saved->tracked[saved->n_tracked++] = copy;
	return 0;
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Finds the first path of the agent's index that does not sort before `path`; NULL: there is none.
 * The first call reads the index. */
static int find_tracked(struct saved_tree *saved, const char *path, const char **ret,
			struct ap_err *err)
{
	*ret = NULL;
	if (saved->index && !saved->has_tracked) {
		int r = ap_git_read_index(saved->git, saved->index, add_tracked, saved, NULL);
		if (r == -ENOMEM)
			return ap_err_errno(err, r, "the index");
		saved->has_tracked = true; /* an unreadable index tracks nothing */
		if (saved->n_tracked > 0)
			qsort(saved->tracked, saved->n_tracked, sizeof *saved->tracked,
			      compare_paths);
	}
	size_t low = 0, high = saved->n_tracked;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(saved->tracked[middle], path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < saved->n_tracked)
		*ret = saved->tracked[low];
	return 0;
}

/* Whether the agent's index has that path, or for a directory one below it. */
static int in_index(struct saved_tree *saved, const char *path, bool is_dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf wanted = {0};
	const char *found;
	ap_buf_printf(&wanted, is_dir ? "%s/" : "%s", path);
	if (wanted.failed)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	int r = find_tracked(saved, wanted.data, &found, err);
	if (r < 0 || !found)
		return r;
	return is_dir ? strncmp(found, wanted.data, wanted.len) == 0
		      : strcmp(found, wanted.data) == 0;
}

/* The tree that the tree `root` has at a path; "": none. */
static int tree_at(struct saved_tree *saved, const char *root, const char *path,
		   char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	unsigned mode;
	int r = ap_git_entry_at(saved->git, root, path, &mode, ret, err);
	if (r == 0 && !S_ISDIR(mode))
		*ret = '\0';
	return r;
}

/* The blob that a tree has at a path; "": none, or it cannot be found. */
static void blob_at(struct saved_tree *saved, const char *root, const char *path,
		    char ret[GIT_OID_MAX + 1])
{
	unsigned mode;
	if (ap_git_entry_at(saved->git, root, path, &mode, ret, NULL) < 0 || !S_ISREG(mode))
		*ret = '\0';
}

/* The blob that git would have in its index: of the tree that the worktree was handed over with,
 * else of the agent's index, else of its last commit. */
static void tracked_at(void *data, const char *path, char ret[GIT_OID_MAX + 1])
{
	struct saved_tree *saved = data;
	const char *found;
	blob_at(saved, saved->root, path, ret);
	if (!*ret && find_tracked(saved, path, &found, NULL) == 0 && found &&
	    strcmp(found, path) == 0)
		snprintf(ret, GIT_OID_MAX + 1, "%s", found + strlen(found) + 1);
	if (!*ret)
		blob_at(saved, saved->head_root, path, ret);
}

static int read_staged(void *data, const char *oid, size_t max, struct ap_buf *ret)
{
	const struct saved_tree *saved = data;
	return saved->staged(saved->data, oid, max, ret);
}

/* Whether the tree leaves an entry out, as it is ignored and not tracked. 1, 0 or a negative errno.
 */
static int is_left_out(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	const struct ap_git_entry *tracked = ap_git_tree_find(&b->base, entry->name);
	bool is_dir = entry->kind == LAYER_DIR;
	if (!tracked)
		tracked = ap_git_tree_find(&b->head, entry->name);
	if (tracked && (is_tree(tracked) || is_gitlink(tracked)) == is_dir)
		return 0;
	const char *path = tree_path(saved, b->path);
	if (strlen(path) >= PATH_MAX) /* no rule can be meant for it */
		return 0;
	int r = rules_fill_for(saved->rules, path, err);
	if (r == 0)
		r = ap_git_is_ignored(saved->git, path, is_dir, err);
	if (r <= 0)
		return r;
	r = in_index(saved, path, is_dir, err);
	return r < 0 ? r : !r;
}

/* --- entries --- */

static void tell_unplaced(struct building *b, const char *why)
{
	b->saved->any = true;
	if (b->saved->unplaced)
		b->saved->unplaced(b->saved->data, ap_buf_text(b->path), why);
}

static int set_entry(struct building *b, const char *name, unsigned mode, const char *oid,
		     struct ap_err *err)
{
	const struct ap_git_entry *old = ap_git_tree_find(&b->base, name);
	if (old && old->mode == mode && strcmp(old->oid, oid) == 0)
		return 0;
	b->is_changed = true;
	int r = ap_git_tree_set(&b->base, name, mode, oid);
	return r < 0 ? ap_err_errno(err, r, "%s", ap_buf_text(b->path)) : 0;
}

static void remove_entry(struct building *b, const char *name)
{
	if (!ap_git_tree_find(&b->base, name))
		return;
	b->is_changed = true;
	ap_git_tree_remove(&b->base, name);
}

/* Makes an entry that setup made, and nobody has changed since, as the agent's last commit has it.
 */
static int take_from_head(struct building *b, const char *name, struct ap_err *err)
{
	const struct ap_git_entry *entry = ap_git_tree_find(&b->head, name);
	if (entry)
		return set_entry(b, name, entry->mode, entry->oid, err);
	remove_entry(b, name);
	return 0;
}

static int cannot_read(struct building *b, int error, struct ap_err *err)
{
	if (b->saved->skip_unreadable && (error == -EACCES || error == -EPERM))
		return 0;
	return ap_err_errno(err, error == -EACCES || error == -EPERM ? -EACCES : error,
			    "%s cannot be saved", ap_buf_text(b->path));
}

static int write_file(struct saved_tree *saved, int fd, const char *path, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err)
{
	const struct ap_git_tracked tracked = {
		.at = tracked_at, .read = read_staged, .data = saved};
	return ap_git_write_file(saved->git, fd, path, &tracked, ret, err);
}

static int build_file(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	char oid[GIT_OID_MAX + 1];
	AP_CLEANUP_CLOSE int fd = layer_open_file(b->dir, entry, saved->make_readable, NULL);
	if (fd == -ENOENT || fd == -ESTALE) { /* it has gone, or is no file any more */
		remove_entry(b, entry->name);
		return 0;
	}
	if (fd < 0)
		return cannot_read(b, fd, err);
	const char *path = tree_path(saved, b->path);
	int r = rules_fill_for(saved->rules, path, err);
	if (r == 0)
		r = write_file(saved, fd, path, oid, err);
	if (r < 0)
		return r;
	saved->n_files++;
	saved->bytes += (uint64_t)entry->st.st_size;
	if (saved->progress)
		saved->progress(saved->data, saved->n_files, saved->bytes);
	return set_entry(b, entry->name, entry->st.st_mode & 0100 ? 0100755 : 0100644, oid, err);
}

static int build_link(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf target = {0};
	char oid[GIT_OID_MAX + 1];
	int r = layer_read_link(b->dir, entry, &target, NULL);
	if (r == -ENOENT || r == -ESTALE) { /* it has gone meanwhile, or is no link any more */
		remove_entry(b, entry->name);
		return 0;
	}
	if (r < 0)
		return cannot_read(b, r, err);
	r = ap_git_write_blob(b->saved->git, ap_buf_text(&target), target.len, oid, err);
	return r < 0 ? r : set_entry(b, entry->name, MODE_LINK, oid, err);
}

/* Whether the template has a file there; `path` is from its top. */
static bool is_checked_out(const struct saved_tree *saved, const char *path)
{
	AP_CLEANUP_BUF struct ap_buf file = {0};
	struct stat st;
	ap_buf_printf(&file, "%s/%s", saved->sparse_files, path);
	return lstat(ap_buf_text(&file), &st) == 0;
}

/* The part of a tree of the template that a sparse checkout has checked out, or has left out: an
 * agent that removes or moves a directory does not remove or move what was not in it. "": nothing.
 */
static int part_of(struct saved_tree *saved, const char *oid, const char *origin, bool checked_out,
		   char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {NULL, 0}, part = {NULL, 0};
	int r = ap_git_read_tree(saved->git, oid, &tree, err);
	for (size_t i = 0; r == 0 && i < tree.n; i++) {
		const struct ap_git_entry *entry = &tree.entries[i];
		AP_CLEANUP_BUF struct ap_buf inner = {0};
		char kept[GIT_OID_MAX + 1];
		ap_buf_printf(&inner, *origin ? "%s/%s" : "%s%s", origin, entry->name);
		snprintf(kept, sizeof kept, "%s", entry->oid);
		bool is_there = is_checked_out(saved, ap_buf_text(&inner));
		if (is_there && is_tree(entry))
			r = part_of(saved, entry->oid, ap_buf_text(&inner), checked_out, kept, err);
		else if (is_there != checked_out)
			*kept = '\0';
		if (r == 0 && *kept &&
		    (r = ap_git_tree_set(&part, entry->name, entry->mode, kept)) < 0)
			r = ap_err_errno(err, r, "%s", entry->name);
	}
	*ret = '\0';
	return r < 0 || part.n == 0 ? r : ap_git_write_tree(saved->git, &part, ret, err);
}

/* Adds to the tree `into`, which may be "", what `other` has and it has not. */
static int merge_trees(struct saved_tree *saved, char into[GIT_OID_MAX + 1], const char *other,
		       struct ap_err *err)
{
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {NULL, 0}, more = {NULL, 0};
	if (!*other)
		return 0;
	if (!*into) {
		snprintf(into, GIT_OID_MAX + 1, "%s", other);
		return 0;
	}
	int r = ap_git_read_tree(saved->git, into, &tree, err);
	if (r == 0)
		r = ap_git_read_tree(saved->git, other, &more, err);
	for (size_t i = 0; r == 0 && i < more.n; i++) {
		const struct ap_git_entry *entry = &more.entries[i];
		struct ap_git_entry *there = ap_git_tree_find(&tree, entry->name);
		if (is_tree(there) && is_tree(entry))
			r = merge_trees(saved, there->oid, entry->oid, err);
		else if (!there &&
			 (r = ap_git_tree_set(&tree, entry->name, entry->mode, entry->oid)) < 0)
			r = ap_err_errno(err, r, "%s", entry->name);
	}
	return r < 0 ? r : ap_git_write_tree(saved->git, &tree, into, err);
}

/* Converts a file that was moved with its directory: it was checked out by the rules of its old
 * place; the rules of the new place, where nothing was tracked, decide which blob it is. Puts that
 * into `oid`. The layer shows what is no longer that file. */
static int convert_moved(struct building *b, const struct ap_buf *path, char oid[GIT_OID_MAX + 1],
			 struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	struct stat st;
	AP_CLEANUP_CLOSE int fd =
		layer_merged_file(saved->layer, ap_buf_text(path), saved->make_readable, NULL);
	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	int r = ap_git_converts(saved->git, tree_path(saved, path), oid, (uint64_t)st.st_size, err);
	return r <= 0 ? r : write_file(saved, fd, tree_path(saved, path), oid, err);
}

/* The part of a moved directory that belongs to the tree at its new place: without what is ignored
 * there, unless the agent's last commit or its index has it. */
static int moved_part(struct building *b, struct ap_buf *path, const char *oid,
		      const char *head_oid, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {NULL, 0}, head = {NULL, 0}, part = {NULL, 0};
	int r = ap_git_read_tree(saved->git, oid, &tree, err);
	if (r == 0 && *head_oid)
		(void)ap_git_read_tree(saved->git, head_oid, &head, NULL); /* else it is empty */
	if (r == 0)
		r = rules_fill(saved->rules, tree_path(saved, path), err);
	size_t len = path->len;
	for (size_t i = 0; r == 0 && i < tree.n; i++) {
		const struct ap_git_entry *entry = &tree.entries[i],
					  *known = ap_git_tree_find(&head, entry->name);
		char kept[GIT_OID_MAX + 1];
		snprintf(kept, sizeof kept, "%s", entry->oid);
		path_add(path, entry->name);
		const char *at = tree_path(saved, path);
		int ignored = known || strlen(at) >= PATH_MAX
				      ? 0
				      : ap_git_is_ignored(saved->git, at, is_tree(entry), err);
		if (ignored == 1)
			ignored = !in_index(saved, at, is_tree(entry), err);
		if (ignored < 0)
			r = ignored;
		else if (ignored)
			*kept = '\0';
		else if (is_tree(entry))
			r = moved_part(b, path, entry->oid, is_tree(known) ? known->oid : "", kept,
				       err);
		else if (S_ISREG(entry->mode))
			r = convert_moved(b, path, kept, err);
		path_cut(path, len);
		if (r == 0 && *kept &&
		    (r = ap_git_tree_set(&part, entry->name, entry->mode, kept)) < 0)
			r = ap_err_errno(err, r, "%s", entry->name);
	}
	*ret = '\0';
	return r < 0 || part.n == 0 ? r : ap_git_write_tree(saved->git, &part, ret, err);
}

/* Removes a name that has gone. What the template's tree has at that very path and a sparse
 * checkout left out was never there: it stays, whatever was moved there and away again. */
static int build_gone(struct building *b, const char *name, struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	char oid[GIT_OID_MAX + 1] = "";
	unsigned mode = 0;
	int r = 0;
	if (saved->sparse_files)
		r = ap_git_entry_at(saved->git, saved->root, tree_path(saved, b->path), &mode, oid,
				    err);
	if (r == 0 && S_ISDIR(mode)) {
		char part[GIT_OID_MAX + 1];
		r = part_of(saved, oid, ap_buf_text(b->path), false, part, err);
		strcpy(oid, r == 0 ? part : "");
	} else if (r == 0 && mode != 0 && is_checked_out(saved, ap_buf_text(b->path))) {
		*oid = '\0';
	}
	if (r == 0 && *oid)
		return set_entry(b, name, mode, oid, err);
	remove_entry(b, name);
	return r;
}

/* The entry `.git` of a directory; NULL: there is none. */
static const struct layer_entry *dot_git_of(const struct layer_dir *dir)
{
	for (size_t i = 0; i < dir->n; i++) {
		if (strcmp(dir->entries[i].name, ".git") == 0)
			return dir->entries[i].kind == LAYER_GONE ? NULL : &dir->entries[i];
	}
	return NULL;
}

/* Whether a submodule has the `.git` file that the pool has placed there and nobody has changed:
 * without an overlay the layer does not list it then. */
static bool is_placed(const struct layer_dir *dir, struct layer_entry *ret)
{
	*ret = (struct layer_entry){.name = (char *)".git", .kind = LAYER_FILE};
	return fstatat(dir->fd, ".git", &ret->st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0 &&
	       S_ISREG(ret->st.st_mode);
}

/* The tree that a moved directory has from its old place. */
static int take_moved(struct building *b, const char *from, const char *head_oid,
		      char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	char oid[GIT_OID_MAX + 1], part[GIT_OID_MAX + 1];
	int r = tree_at(b->saved, b->saved->root, from, oid, err);
	*ret = '\0';
	if (r == 0 && *oid && b->saved->sparse_files) {
		r = part_of(b->saved, oid, from, true, part, err);
		strcpy(oid, part);
	}
	return r < 0 || !*oid ? r : moved_part(b, b->path, oid, head_oid, ret, err);
}

/* Builds a directory: a tree, or a gitlink where a repository is. */
static int build_child(struct building *b, const struct layer_entry *entry,
		       const struct layer_dir *child, struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	const struct ap_git_entry *base = ap_git_tree_find(&b->base, entry->name),
				  *head = ap_git_tree_find(&b->head, entry->name);
	const struct layer_entry *dot_git = dot_git_of(child);
	char base_oid[GIT_OID_MAX + 1] = "", head_oid[GIT_OID_MAX + 1] = "", oid[GIT_OID_MAX + 1],
				    link[GIT_OID_MAX + 1] = "";
	char rest[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf here = {0};
	const char *origin;
	int r = 0;
	ap_buf_printf(&here, *b->origin ? "%s/%s" : "%s%s", b->origin, entry->name);
	origin = entry->from ? entry->from : ap_buf_text(&here);
	if (is_gitlink(base)) /* a gitlink that the agent itself has committed counts as new */
		snprintf(link, sizeof link, "%s", base->oid);
	struct layer_entry as_placed;
	if (*link && !dot_git && is_placed(child, &as_placed))
		dot_git = &as_placed;
	if (is_tree(head))
		snprintf(head_oid, sizeof head_oid, "%s", head->oid);
	if (entry->from)
		r = take_moved(b, entry->from, head_oid, base_oid, err);
	else if (is_tree(base) && !entry->is_opaque)
		snprintf(base_oid, sizeof base_oid, "%s", base->oid);
	if (r == 0 && is_tree(base) && saved->sparse_files && (entry->from || entry->is_opaque)) {
		r = part_of(saved, base->oid, ap_buf_text(&here), false, rest, err);
		if (r == 0)
			r = merge_trees(saved, base_oid, rest, err);
	}
	if (r == 0 && dot_git) {
		const struct saved_nested nested = {.dir = child,
						    .dot_git = dot_git,
						    .path = ap_buf_text(b->path),
						    .base_tree = base_oid,
						    .gitlink = link};
		r = saved->nested(saved->data, &nested, oid, err);
		if (r == 1)
			return set_entry(b, entry->name, MODE_REPO, oid, err);
	} else if (r == 0 && child->n == 0 && (*link || is_gitlink(head))) {
		/* a submodule that is not checked out */
		return *link ? 0 : set_entry(b, entry->name, MODE_REPO, head->oid, err);
	}
	if (r == 0)
		r = build_dir(saved, child, b->path, origin, base_oid, head_oid, oid, err);
	if (r < 0)
		return r;
	if (*oid)
		return set_entry(b, entry->name, MODE_DIR, oid, err);
	remove_entry(b, entry->name);
	return 0;
}

static int build_subdir(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	struct layer_dir child;
	if (b->saved->depth >= DEPTH_MAX) {
		tell_unplaced(b, "it lies too deep");
		return 0;
	}
	int r = layer_enter(b->dir, entry, ap_buf_text(b->path), b->saved->make_readable, &child,
			    NULL);
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP) {
		remove_entry(b, entry->name);
		return 0;
	}
	if (r == -EXDEV) /* what is mounted there is no work of this lease */
		return 0;
	if (r < 0)
		return cannot_read(b, r, err);
	b->saved->depth++;
	r = build_child(b, entry, &child, err);
	b->saved->depth--;
	layer_dir_fini(&child);
	return r;
}

/* Whether an entry that is left out has anything that is not setup's. */
static bool has_any(const struct building *b, const struct layer_dir *dir,
		    const struct layer_entry *entry, const char *path, unsigned depth)
{
	struct layer_dir child;
	bool any = false;
	if (entry->kind != LAYER_DIR)
		return !entry->is_baseline;
	if (depth >= DEPTH_MAX ||
	    layer_enter(dir, entry, path, b->saved->make_readable, &child, NULL) < 0)
		return true;
	for (size_t i = 0; i < child.n && !any; i++) {
		AP_CLEANUP_BUF struct ap_buf inner = {0};
		ap_buf_printf(&inner, "%s/%s", path, child.entries[i].name);
		any = inner.failed || has_any(b, &child, &child.entries[i], inner.data, depth + 1);
	}
	layer_dir_fini(&child);
	return any;
}

static unsigned mode_of(const struct layer_entry *entry)
{
	return entry->kind == LAYER_DIR	   ? MODE_DIR
	       : entry->kind == LAYER_LINK ? MODE_LINK
					   : 0100644;
}

/* A `.git` that the pool has not placed counts as something in the worktree, even if all its files
 * and commits go elsewhere. */
static void note_git(struct building *b, const struct layer_entry *entry)
{
	struct saved_tree *saved = b->saved;
	bool placed = saved->git_is_placed && saved->depth == 0 && entry->kind == LAYER_FILE;
	if (!placed && !saved->any)
		saved->any = has_any(b, b->dir, entry, ap_buf_text(b->path), saved->depth);
}

static int build_entry(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	if (strcmp(entry->name, ".git") == 0) { /* `nested` handles it: no tree has it */
		note_git(b, entry);
		return 0;
	}
	if (entry->is_baseline && entry->kind != LAYER_DIR)
		return take_from_head(b, entry->name, err);
	b->saved->any = b->saved->any || entry->kind != LAYER_DIR;
	if (entry->kind == LAYER_GONE)
		return build_gone(b, entry->name, err);
	if (entry->kind == LAYER_OTHER) {
		remove_entry(b, entry->name);
		return 0;
	}
	if (entry->kind == LAYER_MOUNT)
		return 0;
	int r = is_left_out(b, entry, err);
	if (r > 0 && !b->saved->any)
		b->saved->any = has_any(b, b->dir, entry, ap_buf_text(b->path), b->saved->depth);
	if (r > 0) /* what the tree had there has gone */
		return build_gone(b, entry->name, err);
	if (r < 0)
		return r;
	if (!ap_git_takes_name(entry->name, mode_of(entry))) {
		tell_unplaced(b, "git takes no such name");
		return 0;
	}
	switch (entry->kind) {
	case LAYER_FILE:
		return build_file(b, entry, err);
	case LAYER_LINK:
		return build_link(b, entry, err);
	default:
		return build_subdir(b, entry, err);
	}
}

/* Builds the tree of a directory; "": it has nothing for git. */
static int build_dir(struct saved_tree *saved, const struct layer_dir *dir, struct ap_buf *path,
		     const char *origin, const char *base_oid, const char *head_oid,
		     char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	struct building b = {
		.saved = saved, .dir = dir, .path = path, .origin = origin, .base_oid = base_oid};
	int r = 0;
	if (*base_oid && dir->n > 0)
		r = ap_git_read_tree(saved->git, base_oid, &b.base, err);
	if (r == 0 && *head_oid && dir->n > 0)
		r = ap_git_read_tree(saved->git, head_oid, &b.head, NULL) == -ENOMEM ? -ENOMEM : 0;
	size_t len = path->len;
	for (size_t i = 0; r == 0 && i < dir->n; i++) {
		path_add(path, dir->entries[i].name);
		r = path->failed ? ap_err_errno(err, -ENOMEM, "%s", dir->entries[i].name)
				 : build_entry(&b, &dir->entries[i], err);
		path_cut(path, len);
	}
	if (r == 0 && !b.is_changed)
		snprintf(ret, GIT_OID_MAX + 1, "%s", base_oid);
	else if (r == 0 && b.base.n == 0)
		*ret = '\0';
	else if (r == 0)
		r = ap_git_write_tree(saved->git, &b.base, ret, err);
	ap_git_tree_fini(&b.base);
	ap_git_tree_fini(&b.head);
	return r;
}

int saved_tree_build(struct saved_tree *saved, const struct layer_dir *dir, const char *base_tree,
		     const char *head_tree, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_adds(&path, saved->top);
	saved->root = saved->root ? saved->root : base_tree;
	saved->head_root = head_tree;
	int r = build_dir(saved, dir, &path, saved->top, base_tree, head_tree, ret, err);
	if (r == 0 && !*ret) /* git has an empty tree, too */
		r = ap_git_write_tree(saved->git, &(struct ap_git_tree){NULL, 0}, ret, err);
	return r;
}

void saved_tree_fini(struct saved_tree *saved)
{
	for (size_t i = 0; i < saved->n_tracked; i++)
		free(saved->tracked[i]);
	free(saved->tracked);
}
