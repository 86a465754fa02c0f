#include "submodules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_git.h"
#include "checkout.h"
#include "cleanup.h"
#include "file.h"
#include "git_command.h"
#include "remove.h"

#define LIST_MAX	(4 << 20) /* bytes of the list of a template */
#define SUBMODULE_DEPTH 16	  /* levels of submodules in submodules */

/* --- the list --- */

/* A submodule of the tree, or of another submodule. */
struct submodule {
	const char *git;  /* its git directory, below that of the worktree: modules/NAME… */
	const char *path; /* its files, below those of the worktree */
	const char *oid;  /* the commit that the template has checked out */
};

static void add_field(struct ap_buf *list, const char *text)
{
	ap_buf_add(list, text, strlen(text) + 1);
}

/* Reads the next submodule of a list: three fields, each with its NUL. */
static bool next_submodule(const char **at, const char *end, struct submodule *ret)
{
	const char *fields[3];
	for (size_t i = 0; i < 3; i++) {
		fields[i] = *at;
		if (*at >= end)
			return false;
		*at += strlen(*at) + 1;
	}
	*ret = (struct submodule){fields[0], fields[1], fields[2]};
	return true;
}

/* --- what the tree has --- */

/* Whether a name is safe by git's own rule: it becomes a path. */
static bool is_safe(const char *name)
{
	if (!*name || *name == '/')
		return false;
	for (const char *part = name; part; part = strchr(part, '/'), part += part != NULL) {
		size_t len = strcspn(part, "/");
		if (len == 0 || (len == 2 && strncmp(part, "..", 2) == 0) ||
		    (len == 1 && *part == '.'))
			return false;
	}
	return true;
}

/* The commit of the submodule that the tree of a commit has at a path. False: it has none there. */
static bool find_gitlink(const char *git, const char *commit, const char *path,
			 char ret[GIT_OID_MAX + 1])
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const struct git_place place = {.git_dir = git};
	return git_must(&place, &out, NULL,
			GIT_ARGS("--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit,
				 "--", path)) == 0 &&
	       sscanf(ap_buf_text(&out), "160000 commit %64[0-9a-f]\t", ret) == 1;
}

/* Whether the user has initialised the submodule, by `settings`: "KEY\nVALUE", each with its NUL.
 */
static bool is_wanted(const struct ap_buf *settings, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf url = {0};
	AP_CLEANUP_BUF struct ap_buf active = {0};
	const char *at = ap_buf_text(settings), *end = at + settings->len;
	ap_buf_printf(&url, "submodule.%s.url\n", name);
	ap_buf_printf(&active, "submodule.%s.active\ntrue", name);
	for (; at < end; at += strlen(at) + 1) {
		if (strncmp(at, ap_buf_text(&url), url.len) == 0 ||
		    strcmp(at, ap_buf_text(&active)) == 0)
			return true;
	}
	return false;
}

static bool is_git_dir(const char *path)
{
	AP_CLEANUP_CLOSE int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 && agent_git_is_one(fd, ".");
}

/* The path of its git directory in the repository; "": there is none. */
static void find_module(const struct repo *repo, const char *name, const char *path,
			struct ap_buf *ret)
{
	const char *const above[] = {repo->git_dir, repo->common_dir};
	for (size_t i = 0; i < 2; i++) {
		ret->len = 0;
		ap_buf_printf(ret, "%s/modules/%s", above[i], name);
		if (is_git_dir(ap_buf_text(ret)))
			return;
	}
	ret->len = 0;
	if (repo->work_tree) /* made by an old version of git, or by hand */
		ap_buf_printf(ret, "%s/%s/.git", repo->work_tree, path);
	if (!is_git_dir(ap_buf_text(ret)))
		ret->len = 0;
}

/* --- checking out --- */

struct checking_out {
	const char *kept; /* objects of the outermost repository, which has what leases committed in
			   * a submodule */
	struct ap_buf *list;
	int64_t limit_ns;
	struct ap_err *warning;
	struct ap_err *err;
};

static int check_out_all(struct checking_out *out, const struct repo *repo, const char *git,
			 const char *files, const char *commit, const char *git_below,
			 const char *path_below, unsigned depth);

static int borrow_kept(const char *git, const char *store, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf objects = {0};
	ap_buf_printf(&objects, "%s/objects", git);
	return objects.failed ? ap_err_errno(err, -ENOMEM, "%s", git)
			      : agent_git_borrow(objects.data, store, err);
}

/* Checks out a submodule that the repository has. */
static int check_out_one(struct checking_out *out, const struct repo *module, const char *git,
			 const char *files, const char *oid, const char *git_below,
			 const char *path_below, unsigned depth)
{
	struct ap_err warning = {""};
	int r = file_make_dirs(git, out->err);
	if (r == 0)
		r = agent_git_seed(module, oid, git, out->err);
	if (r == 0)
		r = borrow_kept(git, out->kept, out->err);
	if (r == 0)
		r = checkout_files(module, git, files, out->limit_ns, NULL, out->err);
	if (r < 0)
		return r;
	add_field(out->list, git_below);
	add_field(out->list, path_below);
	add_field(out->list, oid);
	r = check_out_all(out, module, git, files, oid, git_below, path_below, depth + 1);
	if (r == 0)
		r = checkout_hook(module, git, files, false, oid, out->limit_ns, &warning,
				  out->err);
	if (warning.text[0])
		*out->warning = warning;
	return r;
}

/* Checks out a submodule that the tree has at `path`, if the repository has it. */
static int check_out(struct checking_out *out, const struct repo *repo, const char *name,
		     const char *path, const char *oid, const char *git, const char *files,
		     const char *git_below, const char *path_below, unsigned depth)
{
	AP_CLEANUP_BUF struct ap_buf module = {0};
	AP_CLEANUP_BUF struct ap_buf work_tree = {0};
	AP_CLEANUP_BUF struct ap_buf its_git = {0};
	AP_CLEANUP_BUF struct ap_buf its_files = {0};
	AP_CLEANUP_BUF struct ap_buf its_git_below = {0};
	AP_CLEANUP_BUF struct ap_buf its_path_below = {0};
	char found[GIT_OID_MAX + 1];
	struct stat st;
	find_module(repo, name, path, &module);
	ap_buf_printf(&its_git, "%s/modules/%s", git, name);
	ap_buf_printf(&its_files, "%s/%s", files, path);
	ap_buf_printf(&its_git_below, *git_below ? "%s/modules/%s" : "%smodules/%s", git_below,
		      name);
	ap_buf_printf(&its_path_below, *path_below ? "%s/%s" : "%s%s", path_below, path);
	if (repo->work_tree)
		ap_buf_printf(&work_tree, "%s/%s", repo->work_tree, path);
	if (its_git.failed || its_files.failed || its_git_below.failed || its_path_below.failed ||
	    work_tree.failed)
		return ap_err_errno(out->err, -ENOMEM, "%s", path);
	/* a sparse checkout has left it out */
	if (module.len == 0 || lstat(ap_buf_text(&its_files), &st) < 0 || !S_ISDIR(st.st_mode))
		return 0;
	struct repo sub = {.path = work_tree.len ? work_tree.data : module.data,
			   .git_dir = module.data,
			   .common_dir = module.data,
			   .work_tree = work_tree.len ? work_tree.data : NULL};
	const struct git_place place = {.git_dir = module.data};
	if (git_rev_parse(&place, oid, found, NULL) != 0) /* the repository lacks the commit */
		return 0;
	int r = check_out_one(out, &sub, ap_buf_text(&its_git), ap_buf_text(&its_files), oid,
			      ap_buf_text(&its_git_below), ap_buf_text(&its_path_below), depth);
	return r < 0 ? ap_err_wrap(out->err, r, "submodule %s", path) : 0;
}

static int check_out_all(struct checking_out *out, const struct repo *repo, const char *git,
			 const char *files, const char *commit, const char *git_below,
			 const char *path_below, unsigned depth)
{
	AP_CLEANUP_BUF struct ap_buf file = {0};
	AP_CLEANUP_BUF struct ap_buf blob = {0};
	AP_CLEANUP_BUF struct ap_buf paths = {0};
	AP_CLEANUP_BUF struct ap_buf settings = {0};
	const struct git_place place = {.git_dir = git};
	ap_buf_printf(&file, "%s/.gitmodules", files);
	ap_buf_printf(&blob, "%s:.gitmodules", commit);
	if (depth > SUBMODULE_DEPTH || access(ap_buf_text(&file), F_OK) < 0)
		return 0;
	/* git returns 1 if there are none; a .gitmodules that git cannot read names none */
	int r = git_run(&place, &paths, NULL,
			GIT_ARGS("config", "-z", "--blob", ap_buf_text(&blob), "--get-regexp",
				 "^submodule\\..*\\.path$"));
	if (r == 0)
		r = git_run(&place, &settings, NULL,
			    GIT_ARGS("config", "-z", "--get-regexp",
				     "^submodule\\..*\\.(url|active)$"));
	if (r != 0)
		return 0;
	char *at = paths.data, *end = at + paths.len;
	for (char *next; at < end; at = next) { /* submodule.NAME.path\nPATH */
		char oid[GIT_OID_MAX + 1], *path = strchr(at, '\n');
		next = at + strlen(at) + 1;
		if (!path || path - at < (ptrdiff_t)strlen("submodule..path"))
			continue;
		path[-(ptrdiff_t)strlen(".path")] = '\0';
		path++;
		const char *name = at + strlen("submodule.");
		if (is_safe(name) && is_safe(path) && is_wanted(&settings, name) &&
		    find_gitlink(git, commit, path, oid))
			r = check_out(out, repo, name, path, oid, git, files, git_below, path_below,
				      depth);
		if (r < 0)
			return r;
	}
	return 0;
}

int submodules_check_out(const struct repo *repo, const char *commit, const char *dir,
			 int64_t limit_ns, struct ap_err *ret_warning, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf list = {0};
	AP_CLEANUP_BUF struct ap_buf kept = {0};
	AP_CLEANUP_BUF struct ap_buf git = {0};
	AP_CLEANUP_BUF struct ap_buf files = {0};
	AP_CLEANUP_BUF struct ap_buf file = {0};
	ap_buf_printf(&kept, "%s/objects", repo->common_dir);
	struct checking_out out = {.kept = ap_buf_text(&kept),
				   .list = &list,
				   .limit_ns = limit_ns,
				   .warning = ret_warning,
				   .err = err};
	ret_warning->text[0] = '\0';
	ap_buf_printf(&git, "%s/git", dir);
	ap_buf_printf(&files, "%s/files", dir);
	ap_buf_printf(&file, "%s/modules", dir);
	int r = check_out_all(&out, repo, ap_buf_text(&git), ap_buf_text(&files), commit, "", "",
			      0);
	if (r < 0 || list.len == 0)
		return r;
	return list.failed ? ap_err_errno(err, -ENOMEM, "%s", dir)
			   : file_write(ap_buf_text(&file), list.data, list.len, err);
}

/* --- placing them --- */

/* Writes the file by which git finds the git directory from the files. `files_fd` is their
 * directory. Follows nothing that an agent may have put in the place of the file. */
static int write_link(int files_fd, const char *git)
{
	static const char temporary[] = ".git.new";
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&text, "gitdir: %s\n", git);
	(void)unlinkat(files_fd, temporary, 0);
	AP_CLEANUP_CLOSE int fd = openat(
		files_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (text.failed || fd < 0)
		return text.failed ? -ENOMEM : -errno;
	return write(fd, text.data, text.len) == (ssize_t)text.len &&
			       renameat(files_fd, temporary, files_fd, ".git") == 0
		       ? 0
		       : -errno;
}

/* Records in the git directory where its files are, as git does (core.worktree). */
static int note_files(const char *git, const char *files, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&path, "%s/config", git);
	ap_buf_adds(&text, "[core]\n\tworktree = \"");
	for (const char *at = files; *at; at++) {
		if (*at == '\n')
			ap_buf_adds(&text, "\\n");
		else
			ap_buf_printf(&text, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
	}
	ap_buf_adds(&text, "\"\n");
	AP_CLEANUP_CLOSE int fd =
		file_open(ap_buf_text(&path), O_WRONLY | O_APPEND | O_NOFOLLOW, 0);
	if (fd < 0 || write(fd, ap_buf_text(&text), text.len) != (ssize_t)text.len)
		return ap_err_errno(err, fd < 0 ? fd : -errno, "%s", ap_buf_text(&path));
	return 0;
}

/* A submodule, or the worktree itself, as it stands in the worktree now. */
struct standing {
	const char *git; /* its git directory */
	const char *path;
	char oid[GIT_OID_MAX + 1];
	bool is_changed; /* `oid` is not what the template has */
};

/* The path of a submodule below the submodule that it lies in, or below the worktree. */
static const char *below(const struct standing *above, const struct submodule *submodule)
{
	const char *path = submodule->path + strlen(above->path);
	return path + (*path == '/');
}

/* Replaces a submodule that the commit does not have, or whose commit the repository does not have,
 * by what git would have there: what else the commit has at its path, or an empty directory. */
static int take_away(const char *git, const char *files, const struct standing *above,
		     const char *above_files, const struct submodule *submodule, struct ap_err *err)
{
	const struct git_place place = {.git_dir = above->git, .work_tree = above_files};
	int r = remove_tree(git, NULL, err);
	if (r == 0)
		r = remove_tree(files, NULL, err);
	if (r == 0) /* fails if the commit has nothing there */
		(void)git_run(&place, NULL, NULL,
			      GIT_ARGS("--literal-pathspecs", "-c", "submodule.recurse=false",
				       "checkout", "--quiet", "--force", "HEAD", "--",
				       below(above, submodule)));
	return r;
}

/* Checks out the commit that the outer commit names for a submodule now, and puts it into `ret`.
 * False: it cannot be checked out, or there is no such submodule any more. */
static bool move_on(const char *git, const char *files, const struct standing *above,
		    const struct submodule *submodule, char ret[GIT_OID_MAX + 1])
{
	const struct git_place place = {.git_dir = git, .work_tree = files};
	if (!find_gitlink(above->git, above->oid, below(above, submodule), ret))
		return false;
	return strcmp(ret, submodule->oid) == 0 ||
	       git_must(&place, NULL, NULL,
			GIT_ARGS("-c", "submodule.recurse=false", "checkout", "--quiet", "--force",
				 "--detach", ret)) == 0;
}

static bool is_within(const char *path, const char *dir)
{
	size_t len = strlen(dir);
	return strncmp(path, dir, len) == 0 && path[len] == '/';
}

/* Places one submodule. The list has nested submodules behind the ones that they lie in: `above` is
 * the stack of these. */
static int place(const char *git_dir, const char *worktree, int worktree_fd,
		 const struct submodule *submodule, struct standing above[SUBMODULE_DEPTH + 2],
		 unsigned *depth, struct ap_err *err)
{
	AP_CLEANUP_FREE char *git = NULL;
	AP_CLEANUP_FREE char *files = NULL;
	if (asprintf(&git, "%s/%s", git_dir, submodule->git) < 0)
		git = NULL;
	if (asprintf(&files, "%s/%s", worktree, submodule->path) < 0)
		files = NULL;
	if (!git || !files)
		return ap_err_errno(err, -ENOMEM, "%s", worktree);
	while (*depth > 0 && !is_within(submodule->path, above[*depth].path)) {
		free((char *)above[*depth].git);
		--*depth;
	}
	struct standing *in = &above[*depth];
	char oid[GIT_OID_MAX + 1];
	snprintf(oid, sizeof oid, "%s", submodule->oid);
	AP_CLEANUP_CLOSE int fd =
		file_open_below(worktree_fd, submodule->path, O_RDONLY | O_DIRECTORY);
	if (fd < 0 || !*in->oid) /* the commit has something else there */
		return 0;
	if (in->is_changed && !move_on(git, files, in, submodule, oid)) {
		AP_CLEANUP_BUF struct ap_buf above_files = {0};
		ap_buf_printf(&above_files, *in->path ? "%s/%s" : "%s%s", worktree, in->path);
		return take_away(git, files, in, ap_buf_text(&above_files), submodule, err);
	}
	int r = write_link(fd, git);
	if (r < 0)
		return ap_err_errno(err, r, "%s/.git", files);
	r = note_files(git, files, err);
	if (r == 0 && *depth <= SUBMODULE_DEPTH) {
		struct standing *own = &above[++*depth];
		own->git = ap_steal(git);
		own->path = submodule->path;
		snprintf(own->oid, sizeof own->oid, "%s", oid);
		own->is_changed = strcmp(oid, submodule->oid) != 0;
	}
	return r;
}

int submodules_place(const char *origin, const char *dir, const char *git_dir, const char *path,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf list = {0};
	AP_CLEANUP_BUF struct ap_buf file = {0};
	struct standing above[SUBMODULE_DEPTH + 2] = {{.git = git_dir, .path = ""}};
	struct agent_head head = {NULL, ""};
	struct submodule submodule;
	unsigned depth = 0;
	ap_buf_printf(&file, "%s/modules", dir);
	if (access(ap_buf_text(&file), F_OK) < 0)
		return 0;
	int r = file_read(ap_buf_text(&file), O_NOFOLLOW, LIST_MAX, &list, err);
	if (r == 0)
		r = agent_git_head(git_dir, &head, err);
	if (r < 0)
		return r;
	snprintf(above[0].oid, sizeof above[0].oid, "%s", head.oid);
	above[0].is_changed = strcmp(head.oid, origin) != 0;
	agent_head_fini(&head);
	AP_CLEANUP_CLOSE int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return ap_err_errno(err, -errno, "%s", path);
	const char *at = ap_buf_text(&list), *end = at + list.len;
	while (r == 0 && next_submodule(&at, end, &submodule))
		r = place(git_dir, path, fd, &submodule, above, &depth, err);
	for (; depth > 0; depth--)
		free((char *)above[depth].git);
	return r < 0 ? ap_err_wrap(err, r, "submodules") : 0;
}
