/* Repositories inside a worktree: reads them as data, and keeps their files and commits. In the
 * tree around it a gitlink stands for a repository, to a commit that has its files, and its HEAD as
 * a parent. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "git_command.h"
#include "remove.h"
#include "restore.h"
#include "worktree_internal.h"

#define NESTED_DEPTH_MAX 8	  /* repositories in repositories */
#define LINK_MAX	 PATH_MAX /* bytes of a `.git` file */

/* --- where the git directory of a repository is --- */

/* Opens a directory below another one, part by part, and follows no link. */
static int open_below(int dir_fd, const char *path)
{
	int fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
	while (fd >= 0 && *path) {
		size_t len = strcspn(path, "/");
		char part[NAME_MAX + 1];
		snprintf(part, sizeof part, "%.*s", (int)len, path);
		int next = len > NAME_MAX || strcmp(part, "..") == 0
				   ? -1
				   : openat(fd, len ? part : ".",
					    O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
		path += len + (path[len] == '/');
	}
	return fd;
}

/* The path that a `.git` file names, made absolute, without `.` and `..`. False: it names none. */
static bool resolve_link(const char *text, const char *at, char ret[PATH_MAX])
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	static const char prefix[] = "gitdir: ";
	size_t n = 0;
	if (strncmp(text, prefix, sizeof prefix - 1) != 0)
		return false;
	text += sizeof prefix - 1;
	ap_buf_printf(&path, "%s/%.*s", *text == '/' ? "" : at, (int)strcspn(text, "\n"), text);
	if (path.failed || path.len >= PATH_MAX)
		return false;
	for (const char *part = path.data; *part;) {
		part += strspn(part, "/");
		size_t len = strcspn(part, "/");
		if (len == 2 && strncmp(part, "..", 2) == 0) {
			while (n > 0 && ret[--n] != '/')
				;
		} else if (len > 0 && !(len == 1 && *part == '.')) {
			ret[n++] = '/';
			memcpy(ret + n, part, len);
			n += len;
		}
		part += len;
	}
	ret[n] = '\0';
	return n > 0;
}

static const char *below(const char *path, const char *dir)
{
	size_t len = dir ? strlen(dir) : 0;
	return len > 0 && strncmp(path, dir, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

/* Reads the path that a `.git` file of the layer names. */
static bool read_link_path(const struct worktree *worktree, const struct saved_nested *nested,
			   bool is_over, char ret[PATH_MAX])
{
	AP_CLEANUP_BUF struct ap_buf at = {0};
	char text[LINK_MAX + 1];
	AP_CLEANUP_CLOSE int fd = layer_open_file(nested->dir, nested->dot_git, is_over, NULL);
	ssize_t n = fd < 0 ? -1 : read(fd, text, LINK_MAX);
	if (n <= 0)
		return false;
	text[n] = '\0';
	ap_buf_printf(&at, "%s/%s", worktree->path, nested->path);
	return !at.failed && resolve_link(text, ap_buf_text(&at), ret);
}

/* Opens the git directory that a `.git` file names, if it is in this worktree or in the agent's own
 * git directory; follows no other. */
static int open_linked(const struct worktree *worktree, struct layer *layer,
		       const struct saved_nested *nested, bool is_over)
{
	char path[PATH_MAX];
	if (!read_link_path(worktree, nested, is_over, path))
		return -1;
	const char *rest = below(path, worktree->git_dir);
	if (rest) {
		AP_CLEANUP_CLOSE int dir =
			open(worktree->git_dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		return dir < 0 ? -1 : open_below(dir, rest);
	}
	rest = below(path, worktree->path);
	return rest ? layer_merged_dir(layer, rest, NULL) : -1;
}

/* Opens the git directory of a repository inside: a descriptor, or -1: there is none that counts.
 */
static int open_git_dir(const struct worktree *worktree, struct layer *layer,
			const struct saved_nested *nested, bool is_over)
{
	int fd = -1;
	if (nested->dot_git->kind == LAYER_DIR)
		fd = openat(nested->dir->fd, ".git", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	else if (nested->dot_git->kind == LAYER_FILE)
		fd = open_linked(worktree, layer, nested, is_over);
	if (fd >= 0 && !agent_git_is_one(fd, ".")) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* --- what is no repository --- */

/* Saves a directory `.git` that is no git directory. No tree can have that name, so its content
 * gets a tree of its own, with a commit and a ref. */
static int save_plain(struct saving *saving, const struct saved_nested *nested, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf name = {0};
	char tree[GIT_OID_MAX + 1], commit[GIT_OID_MAX + 1];
	struct layer_dir dir;
	struct saving inner;
	if (nested->dot_git->kind != LAYER_DIR) {
		ap_buf_printf(&path, "%s/.git", nested->path);
		if (nested->dot_git->kind == LAYER_FILE || nested->dot_git->kind == LAYER_LINK)
			saving_note_kept(saving, ap_buf_text(&path), "git takes no such name");
		return 0;
	}
	ap_buf_printf(&path, "%s/.git", nested->path);
	int r = layer_enter(nested->dir, nested->dot_git, ap_buf_text(&path), saving->is_over, &dir,
			    err);
	if (r < 0)
		return r;
	if (dir.n == 0) {
		layer_dir_fini(&dir);
		return 0;
	}
	r = saving_init(&inner, saving->worktree, ap_buf_text(&path), saving, NULL, err);
	if (r == 0) {
		r = saving_tree(&inner, &dir, "", "", NULL, tree, err);
		if (r == 0)
			r = saving_commit(&inner, tree, "", "", NULL, commit, err);
		commits_add_ref_path(&name, nested->path);
		if (r == 0)
			r = commits_keep(&inner, ap_buf_text(&name), ".git", commit, err);
		saving_fini(&inner);
	}
	layer_dir_fini(&dir);
	return r;
}

/* --- what is a repository --- */

/* Handles a HEAD whose commit is not the agent's, such as of a clone or a submodule: only changes
 * to it are saved. Fills `ret` with HEAD and returns 1 if the files have no changes. Else copies
 * HEAD, and the gitlink that the files may have come from, into REPO, or records why it cannot. */
static int save_borrowed(struct saving *inner, const char *dir, const char *head,
			 const char *gitlink, const char *tree, char ret[GIT_OID_MAX + 1],
			 struct ap_err *err)
{
	const struct worktree *worktree = inner->worktree;
	AP_CLEANUP_BUF struct ap_buf view = {0};
	char head_tree[GIT_OID_MAX + 1];
	const char *stores[WORKTREE_STORES + 2] = {NULL};
	const char *const wanted[] = {head, *gitlink ? gitlink : NULL, NULL};
	struct ap_git *git = NULL;
	struct ap_err why = {""};
	size_t n = 0;
	int r = commits_view(inner, dir, &view, err);
	stores[n++] = ap_buf_text(&view);
	for (size_t i = 0; inner->stores && inner->stores[i] && n <= WORKTREE_STORES; i++)
		stores[n++] = inner->stores[i];
	if (r == 0)
		r = worktree_git(worktree, NULL, stores, &git, err);
	if (r == 0 && ap_git_tree_of(git, head, head_tree, NULL) == 0 &&
	    strcmp(head_tree, tree) == 0) {
		strcpy(ret, head);
		r = 1;
	} else if (r == 0 &&
		   agent_git_take(worktree->repo, view.data, wanted, GIT_ARGS(NULL), 0, &why) < 0) {
		saving_note_kept(inner, inner->path, why.text);
	}
	ap_git_close(git);
	if (view.len > 0)
		(void)remove_tree(view.data, NULL, NULL); /* else at the next start */
	return r;
}

/* Sets the refs for what is kept of a repository. */
static int keep_repository(struct saving *inner, const struct commits *commits,
			   const struct saved_nested *nested, const char *commit,
			   struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	int r = 0;
	commits_add_ref_path(&name, nested->path);
	if (*commit && strcmp(commit, nested->gitlink) != 0)
		r = commits_keep(inner, ap_buf_text(&name), "HEAD", commit, err);
	if (r == 0)
		r = commits_keep_refs(inner, commits, ap_buf_text(&name), "", NULL, err);
	if (r == 0)
		r = commits_keep_left_behind(inner, commits, commit, err);
	return r;
}

/* Whether the commit that was kept of it before has that tree and that history; puts it into `ret`
 * then. */
static bool is_kept_already(struct saving *inner, const char *path, const char *tree,
			    const char *head, char ret[GIT_OID_MAX + 1])
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	char oid[GIT_OID_MAX + 1], its_tree[GIT_OID_MAX + 1];
	ap_buf_printf(&ref, WORKTREE_KEPT_PREFIX "%s/", inner->label);
	commits_add_ref_path(&ref, path);
	ap_buf_adds(&ref, "/HEAD");
	if (ap_git_resolve(inner->git, ap_buf_text(&ref), oid, NULL) != 0 ||
	    ap_git_tree_of(inner->git, oid, its_tree, NULL) < 0 || strcmp(its_tree, tree) != 0 ||
	    (*head && ap_git_is_ancestor(inner->git, head, oid, NULL) != 1))
		return false;
	strcpy(ret, oid);
	return true;
}

/* Whether the template has files in a directory, which are those of a submodule that is ready. */
static bool template_has_files(const struct worktree *worktree, const char *path)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	struct dirent *entry;
	bool any = false;
	if (!worktree->template)
		return false;
	ap_buf_printf(&dir, "%s/%s", template_files(worktree->template), path);
	DIR *entries = opendir(ap_buf_text(&dir));
	while (entries && !any && (entry = readdir(entries)))
		any = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	if (entries)
		closedir(entries);
	return any;
}

static int save_repository(struct saving *saving, const struct saved_nested *nested, int git_fd,
			   char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	const struct worktree *worktree = saving->worktree;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	AP_CLEANUP_BUF struct ap_buf index = {0};
	AP_CLEANUP_BUF struct ap_buf began = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct commits commits = {0};
	struct saving inner;
	char tree[GIT_OID_MAX + 1], head_tree[GIT_OID_MAX + 1] = "", base_tree[GIT_OID_MAX + 1];
	char link[PATH_MAX];
	const char *stores[WORKTREE_STORES + 1] = {NULL};
	const char *const known[] = {*nested->gitlink ? nested->gitlink : NULL, NULL};
	ap_buf_printf(&dir, "/proc/self/fd/%d/.", git_fd);
	ap_buf_printf(&index, "%s/index", ap_buf_text(&dir));
	snprintf(base_tree, sizeof base_tree, "%s", nested->base_tree);
	if (nested->dot_git->kind == LAYER_FILE &&
	    read_link_path(worktree, nested, saving->is_over, link)) {
		const char *name = below(link, worktree->git_dir);
		template_seed(worktree->template, &began);
		ap_buf_printf(&began, "/%s", name ? name : "none");
		if (name)
			worktree_module_stores(worktree, name, &text, stores);
	}
	int r = saving_init(&inner, worktree, nested->path, saving, stores, err);
	if (r < 0)
		return r;
	inner.git_is_placed = *nested->gitlink != '\0';
	/* a submodule that is ready has its files in the template */
	if (!*base_tree && *nested->gitlink && template_has_files(worktree, nested->path) &&
	    ap_git_tree_of(inner.git, nested->gitlink, base_tree, NULL) < 0)
		*base_tree = '\0';
	r = commits_take(&inner, ap_buf_text(&dir), began.len ? ap_buf_text(&began) : NULL, known,
			 &commits, err);
	if (r == 0 && *commits.head.oid)
		(void)ap_git_tree_of(inner.git, commits.head.oid, head_tree, NULL);
	if (r == 0)
		r = saving_tree(&inner, nested->dir, base_tree, head_tree, ap_buf_text(&index),
				tree, err);
	saving->any = saving->any || inner.any;
	bool is_unchanged = false;
	if (r == 0 && *commits.head.oid && !*commits.head_oid) {
		r = save_borrowed(&inner, ap_buf_text(&dir), commits.head.oid, nested->gitlink,
				  tree, ret, err);
		is_unchanged = r == 1;
		if (r == 0 && repo_has_commit(worktree->repo, commits.head.oid))
			strcpy(commits.head_oid, commits.head.oid);
	}
	if (r == 0 && !is_kept_already(&inner, nested->path, tree, commits.head_oid, ret))
		r = saving_commit(&inner, tree, "", commits.head_oid, NULL, ret, err);
	if (r >= 0)
		r = keep_repository(&inner, &commits, nested, is_unchanged ? "" : ret, err);
	commits_fini(&commits);
	saving_fini(&inner);
	return r;
}

/* The name, worktrees/NAME in the agent's git directory, of a linked worktree that the agent has
 * added there (git worktree add). False: it is none. */
static bool own_worktree(const struct saving *saving, const struct saved_nested *nested,
			 char ret[PATH_MAX])
{
	const struct worktree *worktree = saving->worktree;
	char path[PATH_MAX];
	if (nested->dot_git->kind != LAYER_FILE || saving->depth > 0 || !saving->own ||
	    !read_link_path(worktree, nested, saving->is_over, path))
		return false;
	const char *rest = below(path, worktree->git_dir);
	if (!rest || strncmp(rest, "worktrees/", strlen("worktrees/")) != 0 ||
	    strchr(rest + strlen("worktrees/"), '/'))
		return false;
	snprintf(ret, PATH_MAX, "%s", rest);
	return true;
}

/* Saves a linked worktree of the agent's: its commits are in the agent's own git, and taken
 * already. */
static int save_own_worktree(struct saving *saving, const struct saved_nested *nested,
			     const char *name, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf tip = {0};
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	char tree[GIT_OID_MAX + 1], head_tree[GIT_OID_MAX + 1] = "";
	struct saving inner;
	ap_buf_printf(&tip, "%s/HEAD", name);
	const char *head = commits_find(saving->own, ap_buf_text(&tip));
	if (!*head) /* no new commit was made there: its HEAD is taken to be the agent's */
		head = saving->own->head_oid;
	int r = saving_init(&inner, saving->worktree, nested->path, saving, NULL, err);
	if (r < 0)
		return r;
	if (*head)
		(void)ap_git_tree_of(inner.git, head, head_tree, NULL);
	r = saving_tree(&inner, nested->dir, nested->base_tree, head_tree, NULL, tree, err);
	saving->any = saving->any || inner.any;
	if (r == 0)
		r = saving_commit(&inner, tree, "", head, NULL, ret, err);
	commits_add_ref_path(&ref, nested->path);
	if (r == 0)
		r = commits_keep(&inner, ap_buf_text(&ref), "HEAD", ret, err);
	saving_fini(&inner);
	return r < 0 ? r : 1;
}

int nested_save(void *data, const struct saved_nested *nested, char ret[GIT_OID_MAX + 1],
		struct ap_err *err)
{
	struct saving *saving = data;
	char name[PATH_MAX];
	if (own_worktree(saving, nested, name))
		return save_own_worktree(saving, nested, name, ret, err);
	AP_CLEANUP_CLOSE int git_fd =
		open_git_dir(saving->worktree, saving->layer, nested, saving->is_over);
	if (git_fd < 0)
		return save_plain(saving, nested, err);
	if (saving->depth >= NESTED_DEPTH_MAX) {
		saving_note_kept(saving, nested->path, "it lies in too many repositories");
		return 0;
	}
	int r = save_repository(saving, nested, git_fd, ret, err);
	return r < 0 ? ap_err_wrap(err, r, "%s is a git repository of its own", nested->path) : 1;
}

int nested_head(const struct worktree *worktree, struct layer *layer,
		const struct saved_nested *nested, char ret[GIT_OID_MAX + 1])
{
	AP_CLEANUP_CLOSE int fd = open_git_dir(worktree, layer, nested, false);
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	struct agent_head head = {NULL, ""};
	ap_buf_printf(&dir, "/proc/self/fd/%d/.", fd);
	int r = fd < 0 ? -ENOENT : agent_git_head(ap_buf_text(&dir), &head, NULL);
	/* the tree cannot name an object of another format */
	bool found = r == 0 && strlen(head.oid) == strlen(worktree_origin(worktree));
	if (found)
		strcpy(ret, head.oid);
	agent_head_fini(&head);
	return found;
}

/* --- submodules, wherever their files are --- */

struct modules {
	struct saving *saving;
	struct ap_err *err;
};

static int save_module(void *data, const char *dir, const char *name)
{
	struct modules *modules = data;
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	AP_CLEANUP_BUF struct ap_buf began = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct commits commits = {0};
	const char *const known[] = {NULL};
	commits_add_ref_path(&ref, name);
	const char *stores[WORKTREE_STORES + 1] = {NULL};
	struct saving *saving = modules->saving;
	template_seed(saving->worktree->template, &began);
	ap_buf_printf(&began, "/%s", name);
	worktree_module_stores(saving->worktree, name, &text, stores);
	saving->stores = stores;
	int r = commits_take(saving, dir, ap_buf_text(&began), known, &commits, modules->err);
	saving->stores = NULL;
	if (r == 0)
		r = commits_keep_refs(modules->saving, &commits, ap_buf_text(&ref), "", NULL,
				      modules->err);
	if (r == 0)
		r = commits_keep_left_behind(modules->saving, &commits, "", modules->err);
	commits_fini(&commits);
	return r;
}

int nested_save_modules(struct saving *saving, struct ap_err *err)
{
	struct modules modules = {.saving = saving, .err = err};
	struct ap_err why = {""};
	if (!saving->worktree->git_dir)
		return 0;
	int r = agent_git_each_module(saving->worktree->git_dir, save_module, &modules, &why);
	if (r == -EFBIG) {
		saving_note_kept(saving, "modules", why.text);
		r = 0;
	}
	return r == -ENOENT ? 0 : r;
}
