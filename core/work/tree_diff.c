/* What differs between two trees, file by file. An agent may have made the trees: as deep as it
 * likes, and with one subtree under very many names. So the state of the walk is on the heap, and
 * the work has a bound. */
#include "git_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Trees that are read for one comparison, and bytes of a path. */
#define MAX_TREES ((size_t)4 << 20)
#define MAX_PATH  ((size_t)1 << 20)

/* A pair of directories in the walk. */
struct level {
	struct ap_git_tree old, new;
	size_t i, k;   /* the next entry of each */
	size_t parent; /* bytes of the path of the directory above */
};

struct walk {
	struct ap_git *git;
	int (*each)(void *data, const char *path, const struct ap_git_entry *old_entry,
		    const struct ap_git_entry *new_entry);
	void *data;
	struct level *levels; /* owned */
	size_t n, room;
	struct ap_buf path; /* of the directory, with a slash at its end; "" is the top */
	size_t n_trees;
};

static int read_side(struct walk *walk, const char *oid, struct ap_git_tree *ret,
		     struct ap_err *err)
{
	if (!oid)
		return 0;
	if (++walk->n_trees > MAX_TREES)
		return ap_err_set(err, -EFBIG, "more than %zu directories differ", MAX_TREES);
	return ap_git_read_tree(walk->git, oid, ret, err);
}

/* Enters a pair of directories, of which one may be missing. */
static int enter(struct walk *walk, const char *name, const char *old, const char *new,
		 struct ap_err *err)
{
	if (walk->n == walk->room) {
		size_t room = walk->room ? 2 * walk->room : 16;
		struct level *levels = realloc(walk->levels, room * sizeof *levels);
		if (!levels)
			return ap_err_errno(err, -ENOMEM, "trees");
		walk->levels = levels;
		walk->room = room;
	}
	struct level *level = &walk->levels[walk->n];
	*level = (struct level){.parent = walk->path.len};
	int r = read_side(walk, old, &level->old, err);
	if (r == 0)
		r = read_side(walk, new, &level->new, err);
	walk->n++;
	if (*name)
		ap_buf_printf(&walk->path, "%s/", name);
	if (r == 0 && (walk->path.failed || walk->path.len > MAX_PATH))
		r = ap_err_errno(err, walk->path.failed ? -ENOMEM : -ENAMETOOLONG, "trees");
	return r;
}

static void leave(struct walk *walk)
{
	struct level *level = &walk->levels[--walk->n];
	ap_git_tree_fini(&level->old);
	ap_git_tree_fini(&level->new);
	walk->path.len = level->parent;
	if (walk->path.data)
		walk->path.data[walk->path.len] = '\0';
}

static int tell(struct walk *walk, const struct ap_git_entry *old, const struct ap_git_entry *new,
		struct ap_err *err)
{
	size_t len = walk->path.len;
	ap_buf_adds(&walk->path, old ? old->name : new->name);
	if (walk->path.failed)
		return ap_err_errno(err, -ENOMEM, "trees");
	int r = walk->each(walk->data, walk->path.data, old, new);
	walk->path.len = len;
	walk->path.data[len] = '\0';
	return r;
}

/* Takes the next entry of the current pair of directories: from one of them, or from both if name
 * and kind are the same. */
static int step(struct walk *walk, struct ap_err *err)
{
	struct level *level = &walk->levels[walk->n - 1];
	const struct ap_git_entry *old =
		level->i < level->old.n ? &level->old.entries[level->i] : NULL;
	const struct ap_git_entry *new =
		level->k < level->new.n ? &level->new.entries[level->k] : NULL;
	if (!old && !new) {
		leave(walk);
		return 0;
	}
	int order = !new ? -1 : !old ? 1 : ap_git_compare_entries(old, new);
	if (order < 0)
		new = NULL;
	else if (order > 0)
		old = NULL;
	level->i += old != NULL;
	level->k += new != NULL;
	if (old && new && old->mode == new->mode && strcmp(old->oid, new->oid) == 0)
		return 0;
	const struct ap_git_entry *any = old ? old : new;
	if (S_ISDIR(any->mode))
		return enter(walk, any->name, old ? old->oid : NULL, new ? new->oid : NULL, err);
	return tell(walk, old, new, err);
}

int ap_git_diff_trees(struct ap_git *git, const char *old_tree, const char *new_tree,
		      int (*each)(void *data, const char *path,
				  const struct ap_git_entry *old_entry,
				  const struct ap_git_entry *new_entry),
		      void *data, struct ap_err *err)
{
	struct walk walk = {.git = git, .each = each, .data = data};
	bool differs = !old_tree || !new_tree || strcmp(old_tree, new_tree) != 0;
	int r = differs ? enter(&walk, "", old_tree, new_tree, err) : 0;
	while (r == 0 && walk.n > 0)
		r = step(&walk, err);
	while (walk.n > 0)
		leave(&walk);
	free(walk.levels);
	ap_buf_fini(&walk.path);
	return r;
}
