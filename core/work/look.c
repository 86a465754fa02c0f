/* Inspects a worktree while its agent is at work: changes, diff, diffstat, head. A look writes
 * objects into a store of its own, which it removes at its end, and nothing into the repository. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "git_command.h"
#include "remove.h"
#include "restore.h"
#include "worktree_internal.h"

/* Bytes of the longest diff that is read. */
#define DIFF_MAX (64 << 20)

struct look {
	const struct worktree *worktree;
	char *dir; /* directory of the look's own: objects/ and the copies of rules */
	char *objects;
	bool borrowed; /* read the objects of the agent's own git too */
	struct layer *layer;
	struct rules rules;
	struct ap_git *git;
	struct ap_git *staged; /* reads the agent's own objects too; NULL: not opened yet */
	char base_tree[GIT_OID_MAX + 1]; /* to compare the files with */
	char head_tree[GIT_OID_MAX + 1]; /* of the agent's last commit; as base_tree if unknown */
	char tree[GIT_OID_MAX + 1];	 /* of the files as they are */
};

static void look_fini(struct look *look)
{
	ap_git_close(look->git);
	ap_git_close(look->staged);
	rules_fini(&look->rules);
	layer_close(look->layer);
	if (look->dir)
		(void)remove_tree(look->dir, NULL, NULL); /* else at the next start */
	free(look->dir);
	free(look->objects);
}

#define CLEANUP_LOOK __attribute__((cleanup(look_fini)))

/* A repository inside is a gitlink to its HEAD; one without a commit is an ordinary directory. */
static int look_at_nested(void *data, const struct saved_nested *nested, char ret[GIT_OID_MAX + 1],
			  struct ap_err *err)
{
	struct look *look = data;
	(void)err;
	return nested_head(look->worktree, look->layer, nested, ret);
}

/* Makes what the look needs. `borrowed`: it needs the objects of the agent's own git. */
static int look_init(struct look *look, const struct worktree *worktree, bool borrowed,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	const struct repo *repo = worktree->repo;
	*look = (struct look){.worktree = worktree, .borrowed = borrowed};
	worktree_scratch(worktree, &scratch);
	int r = file_make_dirs(ap_buf_text(&scratch), err);
	if (r < 0)
		return r;
	ap_buf_adds(&scratch, "/look-XXXXXX");
	if (scratch.failed || !mkdtemp(scratch.data))
		return ap_err_errno(err, scratch.failed ? -ENOMEM : -errno, "%s",
				    ap_buf_text(&scratch));
	look->dir = ap_steal(scratch.data);
	if (asprintf(&look->objects, "%s/objects", look->dir) < 0)
		look->objects = NULL;
	r = look->objects ? file_make_dirs(look->objects, err)
			  : ap_err_errno(err, -ENOMEM, "%s", look->dir);
	if (r == 0)
		r = worktree_layer(worktree, &look->layer, err);
	if (r == 0)
		r = rules_init(&look->rules, look->dir, look->layer, "", err);
	if (r == 0 && borrowed)
		r = agent_git_view(worktree->git_dir, worktree->view, err);
	const struct ap_git_place place = {.git_dir = repo->git_dir,
					   .common_dir = repo->common_dir,
					   .objects = look->objects,
					   .borrowed = borrowed ? GIT_ARGS(worktree->view) : NULL,
					   .rules = look->rules.dir,
					   .by_program = repo->by_program};
	if (r == 0)
		r = ap_git_open(&look->git, &place, err);
	return r < 0 ? r : worktree_rules(worktree, &look->rules, look->git, err);
}

/* Appends a blob that the agent has staged and not committed. */
static int read_staged(void *data, const char *oid, size_t max, struct ap_buf *ret)
{
	struct look *look = data;
	const struct worktree *worktree = look->worktree;
	int r = 0;
	if (!look->staged)
		r = agent_git_view(worktree->git_dir, worktree->view, NULL);
	if (r == 0 && !look->staged)
		r = worktree_git(worktree, NULL, GIT_ARGS(worktree->view), &look->staged, NULL);
	return r < 0 ? r : ap_git_read_blob(look->staged, oid, max, ret, NULL);
}

/* Builds the tree of the files as they are. */
static int look_at_files(struct look *look, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	char origin[GIT_OID_MAX + 1];
	struct layer_dir top;
	ap_buf_printf(&index, "%s/index", look->worktree->git_dir);
	struct saved_tree tree = {.git = look->git,
				  .layer = look->layer,
				  .rules = &look->rules,
				  .top = "",
				  .sparse_files = worktree_sparse_files(look->worktree),
				  .skip_unreadable = true,
				  .index = ap_buf_text(&index),
				  .nested = look_at_nested,
				  .staged = read_staged,
				  .data = look};
	int r = ap_git_tree_of(look->git, worktree_origin(look->worktree), origin, err);
	if (r == 0)
		r = layer_top(look->layer, &top, err);
	if (r < 0)
		return r;
	r = saved_tree_build(&tree, &top, origin, look->head_tree, look->tree, err);
	layer_dir_fini(&top);
	saved_tree_fini(&tree);
	return r;
}

/* --- changes --- */

struct path_change {
	char *path; /* owned */
	char letter;
};

/* Sorted by path: the comparison of trees gives them in git's order, which is another. */
struct changes {
	struct path_change *at;
	size_t n, cap;
};

static char letter_of(const struct ap_git_entry *old, const struct ap_git_entry *new)
{
	if (!old)
		return 'A';
	if (!new)
		return 'D';
	return (old->mode & 0170000) == (new->mode & 0170000) ? 'M' : 'T';
}

static int add_change(void *data, const char *path, const struct ap_git_entry *old,
		      const struct ap_git_entry *new)
{
	struct changes *changes = data;
	if (changes->n == changes->cap) {
		size_t cap = changes->cap ? 2 * changes->cap : 64;
		struct path_change *grown = realloc(changes->at, cap * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		changes->at = grown;
		changes->cap = cap;
	}
	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	changes->at[changes->n++] =
		(struct path_change){.path = copy, .letter = letter_of(old, new)};
	return 0;
}

static int compare_changes(const void *a, const void *b)
{
	const struct path_change *one = a, *other = b;
	return strcmp(one->path, other->path);
}

static int compare_trees(struct look *look, const char *old, const char *new, struct changes *ret,
			 struct ap_err *err)
{
	int r = ap_git_diff_trees(look->git, old, new, add_change, ret, err);
	if (ret->n > 0)
		qsort(ret->at, ret->n, sizeof *ret->at, compare_changes);
	return r;
}

static char letter_in(const struct changes *changes, const struct path_change *change)
{
	const struct path_change *found = changes->n ? bsearch(change, changes->at, changes->n,
							       sizeof *change, compare_changes)
						     : NULL;
	return found ? found->letter : ' ';
}

static void changes_fini(struct changes *changes)
{
	for (size_t i = 0; i < changes->n; i++)
		free(changes->at[i].path);
	free(changes->at);
}

#define CLEANUP_CHANGES __attribute__((cleanup(changes_fini)))

/* Appends a path as git status --porcelain writes it: quoted if it must be. */
static void add_path(struct ap_buf *out, const char *path)
{
	bool plain = true;
	for (const char *at = path; *at; at++)
		plain = plain && *at > ' ' && *at < 0x7f && *at != '"' && *at != '\\';
	if (plain) {
		ap_buf_adds(out, path);
		return;
	}
	ap_buf_adds(out, "\"");
	for (const char *at = path; *at; at++) {
		static const char special[] = "\a\b\t\n\v\f\r\"\\", as[] = "abtnvfr\"\\";
		const char *found = strchr(special, *at);
		if (found)
			ap_buf_printf(out, "\\%c", as[found - special]);
		else if (*at < ' ' || *at == 0x7f) /* also beyond ASCII: a char is signed */
			ap_buf_printf(out, "\\%03o", (unsigned char)*at);
		else
			ap_buf_add(out, at, 1);
	}
	ap_buf_adds(out, "\"");
}

/* Prints what differs from base, and whether it comes from the agent's commits or from its files.
 */
static int print_status(struct look *look, struct ap_buf *out, struct ap_err *err)
{
	CLEANUP_CHANGES struct changes all = {NULL, 0, 0};
	CLEANUP_CHANGES struct changes committed = {NULL, 0, 0};
	CLEANUP_CHANGES struct changes others = {NULL, 0, 0};
	int r = compare_trees(look, look->base_tree, look->tree, &all, err);
	if (r == 0)
		r = compare_trees(look, look->base_tree, look->head_tree, &committed, err);
	if (r == 0)
		r = compare_trees(look, look->head_tree, look->tree, &others, err);
	for (size_t i = 0; r == 0 && i < all.n; i++) {
		char x = letter_in(&committed, &all.at[i]), y = letter_in(&others, &all.at[i]);
		if (y == 'A')
			x = y = '?';
		ap_buf_printf(out, "%c%c ", x, y);
		add_path(out, all.at[i].path);
		ap_buf_adds(out, "\n");
	}
	return r;
}

/* --- diff --- */

struct filling {
	struct rules *rules;
	struct ap_err *err;
};

static int fill_rules_for(void *data, const char *path, const struct ap_git_entry *old_entry,
			  const struct ap_git_entry *new_entry)
{
	const struct filling *filling = data;
	return rules_fill_for(filling->rules, path, filling->err);
}

/* Copies the rules for every file that differs, deleted and committed ones too: their attributes
 * say whether a file is text. */
static int fill_rules(struct look *look, struct ap_err *err)
{
	struct filling filling = {&look->rules, err};
	return ap_git_diff_trees(look->git, look->base_tree, look->tree, fill_rules_for, &filling,
				 err);
}

/* Prints the diff by the git program, from objects alone, with REPO's configuration and the
 * attributes of the worktree. git does not read REPO's index, which is of REPO's own files and
 * grows with their number. */
static int print_patch(struct look *look, struct ap_buf *out, struct ap_err *err)
{
	const struct repo *repo = look->worktree->repo;
	AP_CLEANUP_BUF struct ap_buf no_index = {0};
	/* the look's own store lacks what the agent's git has already */
	const char *const stores[] = {look->objects, look->borrowed ? look->worktree->view : NULL,
				      NULL};
	ap_buf_printf(&no_index, "%s/.git/index", look->rules.dir);
	const struct git_place place = {.git_dir = repo->git_dir,
					.work_tree = look->rules.dir,
					.borrowed = stores,
					.index = ap_buf_text(&no_index),
					.out_max = DIFF_MAX};
	if (strcmp(look->base_tree, look->tree) == 0)
		return 0;
	return git_must(&place, out, err,
			GIT_ARGS("diff-tree", "-r", "-p", "--no-ext-diff", "--no-textconv",
				 "--no-color", "-M", look->base_tree, look->tree));
}

/* --- entry --- */

/* The commit that HEAD is at; "": none can be found. */
static void head_of(const struct worktree *worktree, char ret[GIT_OID_MAX + 1])
{
	struct agent_head head = {NULL, ""};
	*ret = '\0';
	if (worktree_agent_head(worktree, &head, NULL) == 0)
		strcpy(ret, head.oid);
	agent_head_fini(&head);
}

int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err)
{
	struct agent_head head = {NULL, ""};
	int r = worktree_agent_head(worktree, &head, err);
	if (r == 0 && !*head.oid)
		r = ap_err_set(err, -EIO, "HEAD of %s is at no commit", worktree->path);
	if (r == 0)
		ap_buf_printf(out, "%s\n", head.oid);
	agent_head_fini(&head);
	return r;
}

static int look(const struct worktree *worktree, const char *base, enum worktree_look what,
		struct ap_buf *out, struct ap_err *err)
{
	CLEANUP_LOOK struct look at = {.worktree = worktree};
	char head[GIT_OID_MAX + 1];
	int r = worktree_check_git(worktree, err);
	if (r == -EXDEV)
		return r;
	head_of(worktree, head);
	if (!*base)
		base = *head ? head : worktree_origin(worktree);
	bool same = !*head || strcmp(head, base) == 0;
	r = look_init(&at, worktree, !same && !worktree_is_registered(worktree), err);
	if (r == 0)
		r = ap_git_tree_of(at.git, base, at.base_tree, err);
	if (r == 0 && (same || ap_git_tree_of(at.git, head, at.head_tree, NULL) < 0))
		strcpy(at.head_tree, at.base_tree);
	if (r == 0)
		r = look_at_files(&at, err);
	if (r < 0)
		return r;
	if (what == WORKTREE_CHANGES)
		return print_status(&at, out, err);
	r = fill_rules(&at, err);
	if (r < 0)
		return r;
	return what == WORKTREE_DIFF ? print_patch(&at, out, err)
				     : ap_git_diffstat(at.git, at.base_tree, at.tree, out, err);
}

int worktree_look(const struct worktree *worktree, const char *base, enum worktree_look what,
		  struct ap_buf *out, struct ap_err *err)
{
	/* a worktree_clean() meanwhile may put the files over another template */
	struct worktree as_it_is = *worktree;
	as_it_is.template = template_pin(worktree->templates, &worktree->template);
	int r = look(&as_it_is, base, what, out, err);
	if (as_it_is.template)
		template_put(as_it_is.template);
	return r;
}
