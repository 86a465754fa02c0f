#include "saved_tree.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

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
	bool is_changed;      /* `base` is another tree than that of base_oid by now */
};

static int build_dir(struct saved_tree *saved, const struct layer_dir *dir, struct ap_buf *path,
		     const char *base_oid, const char *head_oid, char ret[GIT_OID_MAX + 1],
		     struct ap_err *err);

/* The path below the top of the tree, by which git knows it. */
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

/* --- what is ignored, and tracked all the same --- */

static int add_tracked(void *data, const char *path)
{
	struct ap_buf *tracked = data;
	ap_buf_add(tracked, path, strlen(path) + 1);
	return tracked->failed ? -ENOMEM : 0;
}

/* Whether the agent's index has that path, or one below it. It is asked only where something is
 * ignored. The index is sorted as memcmp has it. */
static int in_index(struct saved_tree *saved, const char *path, struct ap_err *err)
{
	if (!saved->index)
		return 0;
	if (!saved->has_tracked) {
		int r = ap_git_read_index(saved->git, saved->index, add_tracked, &saved->tracked,
					  NULL);
		if (r == -ENOMEM)
			return ap_err_errno(err, r, "the index");
		saved->has_tracked = true; /* one that cannot be read has none */
	}
	size_t len = strlen(path);
	const char *at = ap_buf_text(&saved->tracked), *end = at + saved->tracked.len;
	for (; at < end; at += strlen(at) + 1) {
		if (strncmp(at, path, len) == 0 && (at[len] == '/' || at[len] == '\0'))
			return 1;
	}
	return 0;
}

/* Whether something new is left out. 1, 0 or a negative errno. */
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
	if (strlen(path) >= PATH_MAX) /* nobody can have meant it */
		return 0;
	AP_CLEANUP_FREE char *above = strdup(path);
	if (!above)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	char *slash = strrchr(above, '/');
	*(slash ? slash : above) = '\0';
	int r = rules_fill(saved->rules, above, err);
	if (r == 0)
		r = ap_git_is_ignored(saved->git, path, is_dir, err);
	if (r <= 0)
		return r;
	r = in_index(saved, path, err);
	return r < 0 ? r : !r;
}

/* --- entries --- */

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

/* What setup made, and nobody has changed since, is as the agent's last commit has it. */
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

static int build_file(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	char oid[GIT_OID_MAX + 1];
	AP_CLEANUP_CLOSE int fd = layer_open_file(b->dir, entry, saved->make_readable, NULL);
	if (fd == -ENOENT || fd == -ESTALE) { /* it has gone meanwhile, or is something else now */
		remove_entry(b, entry->name);
		return 0;
	}
	if (fd < 0)
		return cannot_read(b, fd, err);
	const char *path = tree_path(saved, b->path);
	AP_CLEANUP_FREE char *above = strdup(path);
	if (!above)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	char *slash = strrchr(above, '/');
	*(slash ? slash : above) = '\0';
	int r = rules_fill(saved->rules, above, err);
	if (r == 0)
		r = ap_git_write_file(saved->git, fd, path, oid, err);
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
	if (r == -ENOENT || r == -EINVAL) {
		remove_entry(b, entry->name);
		return 0;
	}
	if (r < 0)
		return cannot_read(b, r, err);
	r = ap_git_write_blob(b->saved->git, ap_buf_text(&target), target.len, oid, err);
	return r < 0 ? r : set_entry(b, entry->name, MODE_LINK, oid, err);
}

/* The tree that the template has at a path, "" for none. */
static int tree_at(struct saved_tree *saved, const char *root, const char *path,
		   char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	char oid[GIT_OID_MAX + 1];
	snprintf(oid, sizeof oid, "%s", root);
	while (*path && *oid) {
		AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {NULL, 0};
		size_t len = strcspn(path, "/");
		AP_CLEANUP_FREE char *name = strndup(path, len);
		if (!name)
			return ap_err_errno(err, -ENOMEM, "%s", path);
		int r = ap_git_read_tree(saved->git, oid, &tree, err);
		if (r < 0)
			return r;
		const struct ap_git_entry *entry = ap_git_tree_find(&tree, name);
		snprintf(oid, sizeof oid, "%s", is_tree(entry) ? entry->oid : "");
		path += len + (path[len] == '/');
	}
	snprintf(ret, GIT_OID_MAX + 1, "%s", oid);
	return 0;
}

/* Where `.git` is among the entries of a directory; NULL: there is none. */
static const struct layer_entry *dot_git_of(const struct layer_dir *dir)
{
	for (size_t i = 0; i < dir->n; i++) {
		if (strcmp(dir->entries[i].name, ".git") == 0)
			return dir->entries[i].kind == LAYER_GONE ? NULL : &dir->entries[i];
	}
	return NULL;
}

/* A directory: a tree, or a gitlink where a repository is. */
static int build_child(struct building *b, const struct layer_entry *entry,
		       const struct layer_dir *child, struct ap_err *err)
{
	struct saved_tree *saved = b->saved;
	const struct ap_git_entry *base = ap_git_tree_find(&b->base, entry->name),
				  *head = ap_git_tree_find(&b->head, entry->name);
	const struct layer_entry *dot_git = dot_git_of(child);
	char base_oid[GIT_OID_MAX + 1] = "", head_oid[GIT_OID_MAX + 1] = "", oid[GIT_OID_MAX + 1],
				    link[GIT_OID_MAX + 1] = "";
	int r = 0;
	if (is_gitlink(base) || is_gitlink(head))
		snprintf(link, sizeof link, "%s", is_gitlink(base) ? base->oid : head->oid);
	if (entry->from)
		r = tree_at(saved, saved->root, entry->from, base_oid, err);
	else if (is_tree(base) && !entry->is_opaque)
		snprintf(base_oid, sizeof base_oid, "%s", base->oid);
	if (is_tree(head))
		snprintf(head_oid, sizeof head_oid, "%s", head->oid);
	if (r == 0 && dot_git) {
		const struct saved_nested nested = {.dir = child,
						    .dot_git = dot_git,
						    .path = ap_buf_text(b->path),
						    .base_tree = base_oid,
						    .gitlink = link};
		r = saved->nested(saved->data, &nested, oid, err);
		if (r == 1)
			return set_entry(b, entry->name, MODE_REPO, oid, err);
	} else if (r == 0 && *link && child->n == 0) {
		return 0; /* a submodule that is not checked out */
	}
	if (r == 0)
		r = build_dir(saved, child, b->path, base_oid, head_oid, oid, err);
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
	int r = layer_enter(b->dir, entry, ap_buf_text(b->path), b->saved->make_readable, &child,
			    NULL);
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP) {
		remove_entry(b, entry->name);
		return 0;
	}
	if (r == -EXDEV) /* what is mounted there is nobody's work here */
		return 0;
	if (r < 0)
		return cannot_read(b, r, err);
	r = build_child(b, entry, &child, err);
	layer_dir_fini(&child);
	return r;
}

static int build_entry(struct building *b, const struct layer_entry *entry, struct ap_err *err)
{
	if (strcmp(entry->name, ".git") == 0) /* no tree can have it: the caller was asked */
		return 0;
	if (entry->is_baseline && entry->kind != LAYER_DIR)
		return take_from_head(b, entry->name, err);
	if (entry->kind == LAYER_GONE || entry->kind == LAYER_OTHER) {
		remove_entry(b, entry->name);
		return 0;
	}
	if (entry->kind == LAYER_MOUNT)
		return 0;
	int r = is_left_out(b, entry, err);
	if (r != 0)
		return r < 0 ? r : 0;
	switch (entry->kind) {
	case LAYER_FILE:
		return build_file(b, entry, err);
	case LAYER_LINK:
		return build_link(b, entry, err);
	default:
		return build_subdir(b, entry, err);
	}
}

/* The tree of a directory; "" where nothing is in it. */
static int build_dir(struct saved_tree *saved, const struct layer_dir *dir, struct ap_buf *path,
		     const char *base_oid, const char *head_oid, char ret[GIT_OID_MAX + 1],
		     struct ap_err *err)
{
	struct building b = {.saved = saved, .dir = dir, .path = path, .base_oid = base_oid};
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
	int r = build_dir(saved, dir, &path, base_tree, head_tree, ret, err);
	if (r == 0 && !*ret) /* git has a tree for nothing, too */
		r = ap_git_write_tree(saved->git, &(struct ap_git_tree){NULL, 0}, ret, err);
	return r;
}

void saved_tree_fini(struct saved_tree *saved)
{
	ap_buf_fini(&saved->tracked);
}
