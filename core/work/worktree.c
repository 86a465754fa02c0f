#include "worktree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkout.h"
#include "cleanup.h"
#include "file.h"
#include "git_command.h"
#include "namespace.h"
#include "process.h"
#include "remove.h"
#include "restore.h"
#include "worktree_internal.h"

/* --- where things are --- */

const char *worktree_origin(const struct worktree *worktree)
{
	return worktree->template ? template_commit(worktree->template) : worktree->origin;
}

const char *worktree_sparse_files(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf patterns = {0};
	if (!worktree->template)
		return NULL;
	template_seed(worktree->template, &patterns);
	ap_buf_adds(&patterns, "/info/sparse-checkout");
	return access(ap_buf_text(&patterns), F_OK) == 0 ? template_files(worktree->template)
							 : NULL;
}

int worktree_rules(const struct worktree *worktree, struct rules *rules, struct ap_git *git,
		   struct ap_err *err)
{
	const char *files = worktree_sparse_files(worktree);
	return files ? rules_leave_out(rules, git, files, worktree_origin(worktree), err) : 0;
}

void worktree_scratch(const struct worktree *worktree, struct ap_buf *ret)
{
	ap_buf_printf(ret, "%s/scratch", templates_state_dir(worktree->templates));
}

int worktree_git(const struct worktree *worktree, const char *rules, const char *const *borrowed,
		 struct ap_git **ret, struct ap_err *err)
{
	const struct repo *repo = worktree->repo;
	const struct ap_git_place place = {.git_dir = repo->git_dir,
					   .common_dir = repo->common_dir,
					   .rules = rules,
					   .borrowed = borrowed,
					   .limit_ns = WORKTREE_SAVE_LIMIT,
					   .ref_notes = repo->ref_notes,
					   .by_program = repo->by_program};
	return ap_git_open(ret, &place, err);
}

void worktree_held_ref(const struct worktree *worktree, struct ap_buf *ret)
{
	templates_held_ref(worktree->templates, worktree->name, ret);
}

void worktree_module_stores(const struct worktree *worktree, const char *name, struct ap_buf *text,
			    const char *ret[WORKTREE_STORES + 1])
{
	AP_CLEANUP_BUF struct ap_buf objects = {0};
	size_t n = 0;
	template_seed(worktree->template, &objects);
	ap_buf_printf(&objects, "/%s/objects", name);
	if (worktree->template)
		(void)agent_git_stores(ap_buf_text(&objects), text); /* else it has none */
	const char *at = ap_buf_text(text), *end = at + text->len;
	for (; at < end && n < WORKTREE_STORES; at += strlen(at) + 1)
		ret[n++] = at;
	ret[n] = NULL;
}

/* DIR/NAME of what lies beside the worktree's files. */
static void beside(const struct worktree *worktree, const char *name, struct ap_buf *ret)
{
	ap_buf_printf(ret, "%s/%s", worktree->layers, name);
}

/* Judged by the path: `git worktree add` makes the git directory below COMMON_DIR. */
bool worktree_is_registered(const struct worktree *worktree)
{
	size_t len = strlen(worktree->repo->common_dir);
	return worktree->git_dir &&
	       strncmp(worktree->git_dir, worktree->repo->common_dir, len) == 0 &&
	       worktree->git_dir[len] == '/';
}

/* Whether its files are an overlay: the template's below, what was changed in a layer above. */
static bool is_overlay(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf upper = {0};
	beside(worktree, "upper", &upper);
	return access(ap_buf_text(&upper), F_OK) == 0;
}

bool worktree_is_kept(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf work = {0};
	beside(worktree, "work", &work);
	return !is_overlay(worktree) && access(ap_buf_text(&work), F_OK) == 0;
}

int worktree_layer(const struct worktree *worktree, struct layer **ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf upper = {0};
	AP_CLEANUP_BUF struct ap_buf manifest = {0};
	AP_CLEANUP_BUF struct ap_buf baseline = {0};
	beside(worktree, "upper", &upper);
	beside(worktree, "manifest", &manifest);
	beside(worktree, "baseline", &baseline);
	const struct layer_place place = {
		.upper = is_overlay(worktree) ? ap_buf_text(&upper) : NULL,
		.path = worktree->path,
		.manifest = is_overlay(worktree) ? NULL : ap_buf_text(&manifest),
		.baseline = ap_buf_text(&baseline),
		.user_xattrs = namespace_marks_as_user(),
	};
	return layer_open(ret, &place, err);
}

/* Replaces a file by a rename: a daemon that dies here leaves the old file or the new one. */
static int write_in(const char *dir, const char *name, const char *text, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf temporary = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	ap_buf_printf(&temporary, "%s.new", ap_buf_text(&path));
	int r = file_printf(ap_buf_text(&temporary), err, "%s\n", text);
	if (r == 0 && rename(ap_buf_text(&temporary), ap_buf_text(&path)) < 0)
		r = ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	return r;
}

/* Writes the file by which git finds the git directory from the worktree. Removes what an agent has
 * put in its place. */
static int write_link(const struct worktree *worktree, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf link = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&link, "%s/.git", worktree->path);
	ap_buf_printf(&text, "gitdir: %s", worktree->git_dir);
	int r = remove_tree(ap_buf_text(&link), NULL, err);
	return r < 0 ? r : write_in(worktree->path, ".git", ap_buf_text(&text), err);
}

/* Stats what is at a path, without asking a file system that is mounted there. */
static int look_at(const char *path, struct statx *ret)
{
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
	return statx(AT_FDCWD, path, flags, STATX_TYPE | STATX_MNT_ID, ret) < 0 ? -errno : 0;
}

/* An agent may have put a link in the place of the worktree: what it leads to must stay untouched.
 */
static int check_directory(const struct worktree *worktree, struct ap_err *err)
{
	struct statx at;
	int r = look_at(worktree->path, &at);
	if (r < 0)
		return ap_err_errno(err, r, "%s", worktree->path);
	if (!S_ISDIR(at.stx_mode))
		return ap_err_set(err, S_ISLNK(at.stx_mode) ? -ELOOP : -ENOTDIR,
				  "%s is no directory any more: what stands there is left alone",
				  worktree->path);
	return 0;
}

/* The mount that its files are in; 0: unknown. */
static uint64_t mount_of(const struct worktree *worktree)
{
	struct statx at;
	return look_at(worktree->path, &at) == 0 ? at.stx_mnt_id : 0;
}

/* Whether something is mounted at the worktree: presumably an overlay of ours. */
static bool is_mount_point(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf above = {0};
	struct statx at;
	ap_buf_printf(&above, "%s/worktrees", templates_state_dir(worktree->templates));
	return look_at(ap_buf_text(&above), &at) == 0 && at.stx_mnt_id != mount_of(worktree);
}

int worktree_check_git(const struct worktree *worktree, struct ap_err *err)
{
	struct statx at, above;
	AP_CLEANUP_FREE char *parent = worktree->git_dir ? strdup(worktree->git_dir) : NULL;
	if (!parent)
		return ap_err_errno(err, -ENOENT, "the git directory of %s", worktree->path);
	*strrchr(parent, '/') = '\0';
	int r = look_at(worktree->git_dir, &at);
	if (r == 0)
		r = look_at(parent, &above);
	if (r < 0)
		return ap_err_errno(err, r, "%s", worktree->git_dir);
	if (at.stx_mnt_id != above.stx_mnt_id)
		return ap_err_set(err, -EXDEV, "something is mounted at %s", worktree->git_dir);
	return 0;
}

/* --- ignored files that a worktree gets --- */

static int copy_included(const char *from, const char *to, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf source = {0};
	AP_CLEANUP_BUF struct ap_buf target = {0};
	ap_buf_printf(&source, "%s/%s", from, name);
	ap_buf_printf(&target, "%s/%s", to, name);
	if (source.failed || target.failed)
		return ap_err_errno(err, -ENOMEM, "%s", name);
	for (char *slash = target.data + strlen(to) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		int made = mkdir(target.data, 0777);
		*slash = '/';
		if (made < 0 && errno != EEXIST)
			return ap_err_errno(err, -errno, "%s", target.data);
	}
	struct stat st;
	if (lstat(ap_buf_text(&source), &st) < 0)
		return errno == ENOENT ? 0 : ap_err_errno(err, -errno, "%s", source.data);
	if (!S_ISLNK(st.st_mode))
		return file_copy(source.data, target.data, true, err);
	char link[PATH_MAX];
	ssize_t n = readlink(source.data, link, sizeof link - 1);
	link[n > 0 ? n : 0] = '\0';
	return n > 0 && symlink(link, target.data) == 0
		       ? 0
		       : ap_err_errno(err, -errno, "%s", source.data);
}

/* Copies those of the paths, each with its NUL, that the worktree's rules ignore and that are not
 * there yet. Leaves out what git would commit there, such as at an older base. */
static int copy_named(const struct worktree *worktree, struct layer *layer,
		      const struct ap_buf *named, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	struct rules rules;
	struct ap_git *git = NULL;
	worktree_scratch(worktree, &scratch);
	int r = rules_init(&rules, ap_buf_text(&scratch), layer, "", err);
	if (r == 0)
		r = worktree_git(worktree, rules.dir, NULL, &git, err);
	if (r == 0)
		r = worktree_rules(worktree, &rules, git, err);
	const char *at = ap_buf_text(named), *end = at + named->len;
	for (; r == 0 && at < end; at += strlen(at) + 1) {
		AP_CLEANUP_BUF struct ap_buf target = {0};
		struct stat st;
		ap_buf_printf(&target, "%s/%s", worktree->path, at);
		if (target.failed)
			r = ap_err_errno(err, -ENOMEM, "%s", at);
		if (r < 0 || lstat(ap_buf_text(&target), &st) == 0)
			continue;
		r = rules_fill_for(&rules, at, err);
		if (r == 0)
			r = ap_git_is_ignored(git, at, false, err);
		if (r == 1)
			r = copy_included(worktree->repo->work_tree, worktree->path, at, err);
	}
	ap_git_close(git);
	rules_fini(&rules);
	return r;
}

/* Copies the files of the user's checkout that its .worktreeinclude names and git ignores. They
 * belong to the worktree's baseline. */
static int copy_ignored(const struct worktree *worktree, struct ap_err *err)
{
	const struct repo *repo = worktree->repo;
	AP_CLEANUP_BUF struct ap_buf include = {0};
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf named = {0};
	struct layer_list *before = NULL;
	struct layer *layer;
	if (!repo->work_tree)
		return 0;
	ap_buf_printf(&include, "%s/.worktreeinclude", repo->work_tree);
	if (access(ap_buf_text(&include), R_OK) < 0)
		return 0;
	const struct git_place user = {.git_dir = repo->git_dir, .work_tree = repo->work_tree};
	ap_buf_printf(&from, "--exclude-from=%s", ap_buf_text(&include));
	int r = git_must(&user, &named, err,
			 GIT_ARGS("ls-files", "-z", "--others", "--ignored", ap_buf_text(&from)));
	if (r == 0 && named.len > 0)
		r = worktree_before_setup(worktree, &before, err);
	if (r == 0 && named.len > 0)
		r = worktree_layer(worktree, &layer, err);
	if (r == 0 && named.len > 0) {
		r = copy_named(worktree, layer, &named, err);
		layer_close(layer);
	}
	if (r == 0 && named.len > 0)
		r = worktree_after_setup(worktree, ap_steal(before), err);
	layer_list_free(before);
	return r < 0 ? ap_err_wrap(err, r, ".worktreeinclude") : 0;
}

/* --- life of a worktree --- */

static int describe(struct worktree *ret, struct templates *templates, const char *name,
		    struct ap_err *err)
{
	*ret = (struct worktree){.repo = templates_repo(templates), .templates = templates};
	const char *state_dir = templates_state_dir(templates);
	ret->name = strdup(name);
	if (asprintf(&ret->path, "%s/worktrees/%s", state_dir, name) < 0)
		ret->path = NULL;
	if (asprintf(&ret->layers, "%s/layers/%s", state_dir, name) < 0)
		ret->layers = NULL;
	if (asprintf(&ret->view, "%s/scratch/%s.view", state_dir, name) < 0)
		ret->view = NULL;
	return ret->name && ret->path && ret->layers && ret->view
		       ? 0
		       : ap_err_errno(err, -ENOMEM, "%s", name);
}

void worktree_fini(struct worktree *worktree)
{
	if (worktree->template)
		template_put(worktree->template);
	free(worktree->name);
	free(worktree->path);
	free(worktree->layers);
	free(worktree->git_dir);
	free(worktree->view);
	*worktree = (struct worktree){0};
}

static struct spawn_place spawn_place_of(const struct worktree *worktree, const char *git_dir)
{
	return (struct spawn_place){
		.template_files = worktree->template ? template_files(worktree->template) : NULL,
		.path = worktree->path,
		.layers = worktree->layers,
		.admin_dir = git_dir,
	};
}

int worktree_unmount(const struct worktree *worktree,
		     void (*each)(void *data, const char *place, const char *type), void *data,
		     struct ap_err *err)
{
	int r = restore_unmount(worktree->path, is_overlay(worktree), each, data, err);
	if (r == 0 && worktree->git_dir)
		r = restore_unmount(worktree->git_dir, 0, each, data, err);
	return r;
}

/* Unmounts the files, and moves them to the trash. */
static int discard_files(const struct worktree *worktree, struct ap_err *err)
{
	const struct spawn_place place = spawn_place_of(worktree, NULL);
	(void)worktree_unmount(worktree, NULL, NULL, NULL); /* nothing enters a mount that stays */
	/* another daemon, with another backend, may have made it */
	templates_let_go(worktree->templates, spawn_overlay.detach(&place));
	int r = templates_discard(worktree->templates, worktree->path, err);
	if (r == 0)
		r = templates_discard(worktree->templates, worktree->layers, err);
	return r < 0 ? r : templates_discard(worktree->templates, worktree->view, err);
}

/* Records the refs that a git directory begins with, so that a save can tell what is new in it. */
static int note_refs(const struct worktree *worktree, const char *git_dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	beside(worktree, "began", &to);
	int r = file_make_dirs(ap_buf_text(&to), err);
	ap_buf_adds(&to, "/packed-refs");
	ap_buf_printf(&from, "%s/packed-refs", git_dir);
	(void)unlink(ap_buf_text(&to));
	if (r == 0 && access(ap_buf_text(&from), F_OK) == 0)
		r = file_copy(ap_buf_text(&from), ap_buf_text(&to), false, err);
	return r;
}

/* Puts a git directory that the pool has just made in place of the present one. */
static int enter_git_dir(struct worktree *worktree, const struct staged *staged, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	ap_buf_printf(&dir, "%s/git", templates_state_dir(worktree->templates));
	int r = file_make_dirs(ap_buf_text(&dir), err);
	ap_buf_printf(&dir, "/%s", worktree->name);
	if (r == 0)
		r = templates_discard(worktree->templates, ap_buf_text(&dir), err);
	if (r == 0)
		r = templates_discard(worktree->templates, worktree->view, err);
	if (r == 0)
		r = note_refs(worktree, staged->admin, err);
	if (r == 0 && rename(staged->admin, ap_buf_text(&dir)) < 0)
		r = ap_err_errno(err, -errno, "%s", ap_buf_text(&dir));
	if (r == 0 && !worktree->git_dir && !(worktree->git_dir = strdup(ap_buf_text(&dir))))
		r = ap_err_errno(err, -ENOMEM, "%s", worktree->name);
	return r;
}

/* Makes the git directory again, with the template's index. */
static int renew_git_dir(struct worktree *worktree, struct ap_err *err)
{
	struct staged staged;
	int r = template_stage(worktree->templates, worktree->template, &staged, err);
	if (r == 0)
		r = enter_git_dir(worktree, &staged, err);
	if (r < 0 || rmdir(staged.dir) < 0)
		(void)remove_tree(staged.dir, NULL, NULL);
	return r;
}

/* Writes the manifest of all files, unless an overlay's layer shows what is changed; drops the
 * baseline. */
static int write_manifest(const struct worktree *worktree, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf file = {0};
	AP_CLEANUP_BUF struct ap_buf baseline = {0};
	int r = file_make_dirs(worktree->layers, err);
	beside(worktree, "manifest", &file);
	beside(worktree, "baseline", &baseline);
	(void)unlink(ap_buf_text(&baseline));
	if (r < 0 || is_overlay(worktree))
		return r;
	return layer_write_manifest(worktree->path, ap_buf_text(&file), err);
}

/* Makes the files from the template, and a git directory for them. */
static int populate(struct worktree *worktree, struct ap_err *err)
{
	const struct spawn_backend *backend = templates_backend(worktree->templates);
	struct staged staged;
	const char *commit = template_commit(worktree->template);
	int r = template_stage(worktree->templates, worktree->template, &staged, err);
	struct spawn_place place = spawn_place_of(worktree, staged.admin);
	if (r == 0)
		r = backend->populate(&place, err);
	if (r == 0)
		r = file_make_dirs(worktree->layers, err);
	if (r == 0) /* to mount them again, and to find what was changed */
		r = write_in(worktree->layers, "template", commit, err);
	if (r == 0)
		r = enter_git_dir(worktree, &staged, err);
	if (r < 0 || rmdir(staged.dir) < 0)
		(void)remove_tree(staged.dir, NULL, NULL);
	worktree->mount = mount_of(worktree);
	if (r == 0)
		r = write_link(worktree, err);
	if (r == 0)
		r = template_place_modules(worktree->template, worktree->path, worktree->git_dir,
					   err);
	if (r == 0)
		memcpy(worktree->commit, commit, sizeof worktree->commit);
	return r;
}

static int add_from_template(struct worktree *worktree, const char *base, int64_t limit_ns,
			     struct ap_err *err)
{
	int r = template_get(worktree->templates, base, limit_ns, &worktree->template, err);
	if (r == 0)
		r = populate(worktree, err);
	if (r == 0)
		r = write_manifest(worktree, err);
	return r < 0 ? r : worktree_forward(worktree, base, err);
}

/* Records the commit that its manifest is of. */
static int note_origin(struct worktree *worktree, const char *commit, struct ap_err *err)
{
	snprintf(worktree->commit, sizeof worktree->commit, "%s", commit);
	snprintf(worktree->origin, sizeof worktree->origin, "%s", commit);
	int r = file_make_dirs(worktree->layers, err);
	return r < 0 ? r : write_in(worktree->layers, "origin", commit, err);
}

static int add_by_git(struct worktree *worktree, const char *base, int64_t limit_ns,
		      struct ap_err *err)
{
	const struct git_place place = {
		.git_dir = worktree->repo->common_dir,
		.limit_ns = limit_ns,
	};
	struct ap_err warning = {""};
	int r = git_must(&place, NULL, err,
			 GIT_ARGS("worktree", "add", "--quiet", "--lock", "--reason",
				  "of agentpoolfs", "--detach", worktree->path, base));
	if (r == 0)
		r = repo_admin_dir(worktree->repo, worktree->path, &worktree->git_dir, err);
	if (r == 0) /* git itself would fail with the user's hook */
		r = checkout_hook(worktree->repo, worktree->git_dir, worktree->path, true, base,
				  limit_ns, &warning, err);
	templates_warn(worktree->templates, &warning);
	worktree->mount = mount_of(worktree);
	if (r == 0)
		r = note_origin(worktree, base, err);
	return r < 0 ? r : write_manifest(worktree, err);
}

/* Removes the git directory, also a half-made one. */
static void remove_git_dir(struct worktree *worktree)
{
	if (worktree_is_registered(worktree))
		(void)remove_tree(worktree->git_dir, NULL, NULL);
	else if (worktree->git_dir)
		(void)templates_discard(worktree->templates, worktree->git_dir, NULL);
}

int worktree_add(struct worktree *ret, struct templates *templates, const char *name,
		 const char *base, int64_t limit_ns, struct ap_err *err)
{
	struct worktree worktree;
	int r = describe(&worktree, templates, name, err);
	if (r == 0)
		r = templates_backend(templates) ? add_from_template(&worktree, base, limit_ns, err)
						 : add_by_git(&worktree, base, limit_ns, err);
	if (r == 0)
		r = copy_ignored(&worktree, err);
	if (r < 0) { /* removes half-made things */
		if (worktree.path && worktree.layers)
			(void)discard_files(&worktree, NULL);
		remove_git_dir(&worktree);
		repo_forget_worktrees(worktree.repo, worktree.path);
		worktree_fini(&worktree);
		return r;
	}
	*ret = worktree;
	return 0;
}

int worktree_attach(struct worktree *worktree, struct ap_err *err)
{
	char commit[GIT_OID_MAX + 1];
	int r = check_directory(worktree, err);
	if (r < 0)
		return r;
	if (file_read_line(worktree->layers, "template", commit, sizeof commit) < 0) {
		(void)file_read_line(worktree->layers, "origin", worktree->origin,
				     sizeof worktree->origin);
		if (!worktree->mount)
			worktree->mount = mount_of(worktree);
		return 0; /* made by the backend git */
	}
	if (!worktree->template)
		worktree->template = template_find(worktree->templates, commit);
	if (!worktree->template)
		return ap_err_set(err, -EIO, "the template of %s has gone; its changes are in %s",
				  worktree->path, worktree->layers);
	if (!is_overlay(worktree)) {
		if (!worktree->mount)
			worktree->mount = mount_of(worktree);
		return 0;
	}
	const struct spawn_place place = spawn_place_of(worktree, NULL);
	r = is_mount_point(worktree) ? 0 : spawn_overlay.attach(&place, err);
	if (r == 0 && !worktree->mount)
		worktree->mount = mount_of(worktree);
	return r;
}

/* Finds its git directory: the pool's, else the one that its `.git` file names. */
static int find_git_dir(struct worktree *worktree, struct ap_err *err)
{
	if (asprintf(&worktree->git_dir, "%s/git/%s", templates_state_dir(worktree->templates),
		     worktree->name) < 0)
		worktree->git_dir = NULL;
	if (!worktree->git_dir)
		return ap_err_errno(err, -ENOMEM, "%s", worktree->name);
	if (access(worktree->git_dir, F_OK) == 0)
		return 0;
	free(ap_steal(worktree->git_dir));
	return repo_admin_dir(worktree->repo, worktree->path, &worktree->git_dir, err);
}

int worktree_open(struct worktree *ret, struct templates *templates, const char *name,
		  const char *git_dir, struct ap_err *err)
{
	struct worktree worktree;
	int r = describe(&worktree, templates, name, err);
	if (r == 0 && access(worktree.path, F_OK) < 0)
		r = ap_err_errno(err, -errno, "%s", worktree.path);
	if (r == 0)
		r = worktree_attach(&worktree, err);
	if (r == 0 && !git_dir)
		r = find_git_dir(&worktree, err);
	else if (r == 0 && *git_dir && !(worktree.git_dir = strdup(git_dir)))
		r = ap_err_errno(err, -ENOMEM, "%s", name);
	if (r < 0) /* it may be kept: then it needs its template */
		worktree_leave(&worktree);
	else
		*ret = worktree;
	return r;
}

int worktree_left(struct worktree *ret, struct templates *templates, const char *name,
		  const char *git_dir, struct ap_err *err)
{
	struct worktree worktree;
	int r = describe(&worktree, templates, name, err);
	if (r == 0 && *git_dir && !(worktree.git_dir = strdup(git_dir)))
		r = ap_err_errno(err, -ENOMEM, "%s", name);
	if (r < 0)
		worktree_fini(&worktree);
	else
		*ret = worktree;
	return r;
}

void worktree_leave(struct worktree *worktree)
{
	worktree->template = NULL; /* its reference stays */
	worktree_fini(worktree);
}

bool worktree_present(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf link = {0};
	ap_buf_printf(&link, "%s/.git", worktree->path);
	/* first the checks that ask no file system that somebody has mounted over it */
	return worktree->git_dir && check_directory(worktree, NULL) == 0 &&
	       mount_of(worktree) == worktree->mount && worktree_check_git(worktree, NULL) == 0 &&
	       access(ap_buf_text(&link), R_OK) == 0 && access(worktree->git_dir, X_OK) == 0;
}

/* --- setup --- */

int worktree_before_setup(const struct worktree *worktree, struct layer_list **ret,
			  struct ap_err *err)
{
	struct layer *layer;
	int r = worktree_layer(worktree, &layer, err);
	if (r < 0)
		return r;
	r = layer_note(layer, ret, err);
	layer_close(layer);
	return r;
}

int worktree_after_setup(const struct worktree *worktree, struct layer_list *before,
			 struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf file = {0};
	struct layer *layer;
	int r = worktree_layer(worktree, &layer, err);
	beside(worktree, "baseline", &file);
	if (r == 0) {
		r = layer_write_baseline(layer, before, ap_buf_text(&file), err);
		layer_close(layer);
	}
	layer_list_free(before);
	return r;
}

/* --- the agent's HEAD --- */

int worktree_agent_head(const struct worktree *worktree, struct agent_head *ret, struct ap_err *err)
{
	int r = worktree_check_git(worktree, err);
	if (r == 0)
		r = agent_git_head(worktree->git_dir, ret, err);
	/* one of the repository's own worktrees has its branches in the repository */
	if (r == 0 && ret->ref && !*ret->oid && worktree_is_registered(worktree) &&
	    repo_lookup(worktree->repo, ret->ref, ret->oid, NULL) != 0)
		ret->oid[0] = '\0';
	return r;
}

/* --- cleaning --- */

/* Removes what was changed, repositories inside too; git puts back what it has. */
static int remove_changed(const struct worktree *worktree, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf nothing = {0};
	struct layer *layer;
	worktree_scratch(worktree, &nothing);
	ap_buf_printf(&nothing, "/nothing-%s", worktree->name);
	int r = remove_tree(ap_buf_text(&nothing), NULL, err);
	if (r == 0)
		r = file_make_dirs(ap_buf_text(&nothing), err);
	if (r == 0)
		r = worktree_layer(worktree, &layer, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r; /* it has no layer yet: it is being made */
	r = restore_from(layer, ap_buf_text(&nothing), err);
	layer_close(layer);
	(void)rmdir(ap_buf_text(&nothing));
	return r;
}

/* Makes the git directory of one of the repository's own worktrees again, as git makes it, without
 * what an agent has written there; then resets the files. */
static int renew_registered(struct worktree *worktree, const char *base, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	AP_CLEANUP_BUF struct ap_buf link = {0};
	ap_buf_printf(&dir, "%s.new", worktree->git_dir);
	ap_buf_printf(&link, "%s/.git", worktree->path);
	const struct git_place place = {.git_dir = worktree->git_dir, .work_tree = worktree->path};
	int r = remove_changed(worktree, err);
	if (r == 0)
		r = remove_tree(ap_buf_text(&dir), NULL, err);
	if (r == 0 && mkdir(ap_buf_text(&dir), 0777) < 0)
		r = ap_err_errno(err, -errno, "%s", ap_buf_text(&dir));
	if (r == 0)
		r = write_in(ap_buf_text(&dir), "commondir", "../..", err);
	if (r == 0)
		r = write_in(ap_buf_text(&dir), "HEAD", base, err);
	if (r == 0)
		r = write_in(ap_buf_text(&dir), "gitdir", ap_buf_text(&link), err);
	if (r == 0) /* so that it stays if somebody prunes while the files are not there */
		r = write_in(ap_buf_text(&dir), "locked", "of agentpoolfs", err);
	if (r == 0)
		r = remove_tree(worktree->git_dir, NULL, err);
	if (r == 0 && rename(ap_buf_text(&dir), worktree->git_dir) < 0)
		r = ap_err_errno(err, -errno, "%s", worktree->git_dir);
	if (r == 0)
		r = write_link(worktree, err);
	if (r == 0)
		r = git_must(&place, NULL, err, GIT_ARGS("reset", "--quiet", "--hard", base));
	if (r == 0)
		r = git_must(&place, NULL, err, GIT_ARGS("clean", "-ffdxq"));
	if (r == 0)
		r = note_origin(worktree, base, err);
	return r < 0 ? r : write_manifest(worktree, err);
}

/* Restores what was changed from the template. */
static int clean_in_place(struct worktree *worktree, struct ap_err *err)
{
	struct layer *layer;
	int r = worktree_attach(worktree, err);
	if (r == 0)
		r = worktree_layer(worktree, &layer, err);
	if (r < 0)
		return r;
	r = restore_from(layer, template_files(worktree->template), err);
	layer_close(layer);
	if (r == 0)
		r = renew_git_dir(worktree, err);
	if (r == 0)
		r = write_link(worktree, err);
	if (r == 0)
		r = template_place_modules(worktree->template, worktree->path, worktree->git_dir,
					   err);
	if (r == 0)
		r = write_manifest(worktree, err);
	if (r == 0)
		snprintf(worktree->commit, sizeof worktree->commit, "%s",
			 template_commit(worktree->template));
	return r;
}

static int make_anew(struct worktree *worktree, const char *base, int64_t limit_ns,
		     struct ap_err *err)
{
	struct template *template;
	int r = template_get(worktree->templates, base, limit_ns, &template, err);
	if (r < 0)
		return r;
	r = discard_files(worktree, err);
	template_replace(worktree->templates, &worktree->template, template);
	if (r == 0)
		r = populate(worktree, err);
	return r < 0 ? r : write_manifest(worktree, err);
}

int worktree_clean(struct worktree *worktree, const char *base, bool in_place, int64_t limit_ns,
		   struct ap_err *err)
{
	const struct spawn_backend *backend = templates_backend(worktree->templates);
	/* files that were moved to kept/ are made again whatever the backend */
	bool anew =
		backend && !in_place &&
		(backend->is_instant || !worktree->template || access(worktree->path, F_OK) < 0);
	int r = worktree_unmount(worktree, NULL, NULL, err);
	if (r == 0 && !anew)
		r = check_directory(worktree, err);
	worktree->followed[0] = '\0';
	if (r == 0 && anew)
		r = make_anew(worktree, base, limit_ns, err);
	else if (r == 0)
		r = worktree->template ? clean_in_place(worktree, err)
				       : renew_registered(worktree, base, err);
	if (r == 0)
		r = worktree_forward(worktree, base, err);
	/* those that the agent made inside this worktree */
	repo_forget_worktrees(worktree->repo, worktree->path);
	if (r == 0)
		r = copy_ignored(worktree, err);
	return r < 0 ? ap_err_wrap(err, r, "cleaning %s", worktree->path) : 0;
}

int worktree_remove(struct worktree *worktree, struct ap_err *err)
{
	int r = discard_files(worktree, err);
	if (r == 0)
		remove_git_dir(worktree);
	if (r < 0)
		return ap_err_wrap(err, r, "removing %s", worktree->path);
	if (!templates_are_ending(worktree->templates))
		repo_forget_worktrees(worktree->repo, worktree->path);
	template_replace(worktree->templates, &worktree->template, NULL);
	return 0;
}

/* --- keeping what a lease left --- */

/* Moves `from` to DIR/NAME, if it is there. */
static int move(const char *from, const char *dir, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf to = {0};
	ap_buf_printf(&to, "%s/%s", dir, name);
	if (rename(from, ap_buf_text(&to)) == 0 || errno == ENOENT)
		return 0;
	int error = errno;
	/* an agent may have made it immutable */
	AP_CLEANUP_CLOSE int fd = open(from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0) {
		remove_unlock_dir(fd);
		if (rename(from, ap_buf_text(&to)) == 0)
			return 0;
		error = errno;
	}
	errno = error;
	return ap_err_errno(err, -errno, "%s", from);
}

/* Keeps a directory that an agent has put in the place of the worktree's own file `.git`: no layer
 * has it. */
static int keep_git_in_place(const struct worktree *worktree, const char *files, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	struct stat st;
	ap_buf_printf(&from, "%s/.git", worktree->path);
	ap_buf_printf(&to, "%s/.git", files);
	if (lstat(ap_buf_text(&from), &st) < 0 || !S_ISDIR(st.st_mode))
		return 0;
	return restore_keep_links(ap_buf_text(&from), ap_buf_text(&to), err);
}

static int keep_files(struct worktree *worktree, const char *dir, bool in_place, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf upper = {0};
	AP_CLEANUP_BUF struct ap_buf files = {0};
	struct layer *layer;
	beside(worktree, "upper", &upper);
	ap_buf_printf(&files, "%s/files", dir);
	if (is_overlay(worktree) && !in_place) {
		const struct spawn_place place = spawn_place_of(worktree, NULL);
		templates_let_go(worktree->templates, spawn_overlay.detach(&place));
		return move(ap_buf_text(&upper), dir, "files", err);
	}
	if (is_overlay(worktree))
		return restore_keep_links(ap_buf_text(&upper), ap_buf_text(&files), err);
	int r = worktree_layer(worktree, &layer, err);
	if (r < 0)
		return r;
	r = restore_keep_layer(layer, ap_buf_text(&files), err);
	layer_close(layer);
	return r < 0 ? r : keep_git_in_place(worktree, ap_buf_text(&files), err);
}

int worktree_keep(struct worktree *worktree, const char *dir, bool in_place, struct ap_err *err)
{
	int r = worktree_unmount(worktree, NULL, NULL, err);
	if (r == 0)
		r = keep_files(worktree, dir, in_place, err);
	if (r == 0 && worktree->git_dir && !worktree_is_registered(worktree))
		r = move(worktree->git_dir, dir, "git", err);
	return r < 0 ? ap_err_wrap(err, r, "keeping %s", worktree->path) : 0;
}

/* --- leases --- */

/* Puts the files, which are as the template's, at another commit. git does it, in a git directory
 * that the pool has just made, with REPO's configuration and no hooks. */
static int check_out(struct worktree *worktree, const char *commit, struct ap_err *err)
{
	struct staged staged;
	int r = template_stage(worktree->templates, worktree->template, &staged, err);
	const struct git_place place = {.git_dir = staged.admin, .work_tree = worktree->path};
	if (r == 0)
		r = git_must(&place, NULL, err,
			     GIT_ARGS("-c", "submodule.recurse=false", "checkout", "--quiet",
				      "--force", "--detach", commit));
	if (r == 0)
		r = enter_git_dir(worktree, &staged, err);
	if (r < 0 || rmdir(staged.dir) < 0)
		(void)remove_tree(staged.dir, NULL, NULL);
	return r;
}

/* Files that are no overlay can change over to the template of this commit, if there is one: the
 * former one can go then. */
static int follow_template(struct worktree *worktree, const char *commit, struct ap_err *err)
{
	if (is_overlay(worktree) || strcmp(commit, template_commit(worktree->template)) == 0)
		return 0;
	struct template *template = template_find(worktree->templates, commit);
	if (!template)
		return 0;
	template_replace(worktree->templates, &worktree->template, template);
	int r = write_in(worktree->layers, "template", commit, err);
	return r < 0 ? r : write_manifest(worktree, err);
}

int worktree_forward(struct worktree *worktree, const char *commit, struct ap_err *err)
{
	struct agent_head head = {NULL, ""};
	(void)worktree_agent_head(worktree, &head, NULL);
	/* a process that runs between leases may have moved HEAD */
	bool is_there =
		strcmp(worktree->commit, commit) == 0 && !head.ref && strcmp(head.oid, commit) == 0;
	agent_head_fini(&head);
	if (is_there)
		return 0;
	int r = check_directory(worktree, err);
	if (r == 0 && !worktree->template)
		return renew_registered(worktree, commit, err);
	if (r == 0 && strcmp(worktree->commit, template_commit(worktree->template)) != 0)
		r = clean_in_place(worktree, err);
	if (r == 0 && strcmp(commit, template_commit(worktree->template)) != 0)
		r = check_out(worktree, commit, err);
	else if (r == 0)
		r = renew_git_dir(worktree, err);
	if (r == 0)
		r = template_place_modules(worktree->template, worktree->path, worktree->git_dir,
					   err);
	if (r == 0)
		snprintf(worktree->commit, sizeof worktree->commit, "%s", commit);
	return r < 0 ? r : follow_template(worktree, commit, err);
}

/* -EBUSY: one of the repository's checkouts is on the branch, or a branch of this name cannot
 * exist. */
static int check_branch(const struct worktree *worktree, const char *ref, struct ap_err *err)
{
	AP_CLEANUP_FREE char *place = NULL;
	char oid[GIT_OID_MAX + 1];
	int r = repo_branch_place(worktree->repo, ref, &place, err);
	if (r == 1)
		return ap_err_set(err, -EBUSY, "%s is checked out at %s",
				  ref + strlen("refs/heads/"), place);
	if (r == 0)
		r = repo_lookup(worktree->repo, "refs/heads/agentpool", oid, err);
	if (r == 0)
		return ap_err_set(err, -EBUSY,
				  "there is a branch agentpool: no branch agentpool/… can be");
	return r < 0 ? r : 0;
}

int worktree_plan(const struct worktree *worktree, const char *base_revision,
		  struct worktree_lease *lease, struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	int r = check_branch(worktree, ref, err);
	if (r == 0)
		r = repo_lookup(worktree->repo, ref, lease->base, err);
	if (r < 0)
		return r;
	lease->created = r > 0;
	return lease->created ? repo_resolve(worktree->repo, base_revision, lease->base, err) : 0;
}

/* Sets a ref that keeps the repository from losing the lease's commit meanwhile. */
static int hold(const struct worktree *worktree, const char *commit, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	struct ap_git *git;
	if (worktree->template && strcmp(commit, template_commit(worktree->template)) == 0)
		return 0; /* the template's ref does */
	int r = worktree_git(worktree, NULL, NULL, &git, err);
	if (r < 0)
		return r;
	worktree_held_ref(worktree, &ref);
	r = ap_git_set_ref(git, ap_buf_text(&ref), commit, NULL, "agentpoolfs: a lease is on it",
			   err);
	ap_git_close(git);
	return r;
}

/* Makes the branch in the repository, where the worktree is one of the repository's own, and puts
 * HEAD on it. */
static int start_registered(const struct worktree *worktree, const struct worktree_lease *lease,
			    const char *ref, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf head = {0};
	struct ap_git *git;
	int r = worktree_git(worktree, NULL, NULL, &git, err);
	if (r < 0)
		return r;
	if (lease->created)
		r = ap_git_set_ref(git, ref, lease->base, "", "agentpoolfs: a lease begins", err);
	ap_git_close(git);
	ap_buf_printf(&head, "ref: %s", ref);
	if (r < 0)
		return r == -ESTALE || r == -EEXIST ? -EBUSY : r;
	return write_in(worktree->git_dir, "HEAD", ap_buf_text(&head), err);
}

int worktree_start(struct worktree *worktree, const struct worktree_lease *lease,
		   struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	worktree->followed[0] = '\0';
	int r = hold(worktree, lease->base, err);
	if (r == 0)
		r = worktree_forward(worktree, lease->base, err);
	if (r == 0)
		r = worktree_is_registered(worktree)
			    ? start_registered(worktree, lease, ref, err)
			    : agent_git_start(worktree->git_dir, ref + strlen("refs/heads/"),
					      lease->base, err);
	if (r == 0) /* the lease may leave HEAD anywhere */
		worktree->commit[0] = '\0';
	return r;
}

void worktree_end(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	struct ap_git *git;
	char oid[GIT_OID_MAX + 1];
	worktree_held_ref(worktree, &ref);
	if (repo_lookup(worktree->repo, ap_buf_text(&ref), oid, NULL) != 0 ||
	    worktree_git(worktree, NULL, NULL, &git, NULL) < 0)
		return;
	(void)ap_git_remove_ref(git, ap_buf_text(&ref), NULL, NULL); /* else the next lease does */
	ap_git_close(git);
}
