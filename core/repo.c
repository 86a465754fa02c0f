#include "repo.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "process.h"

/* The next line of what git printed, owned by the caller; NULL: there is none, or no memory. */
static char *take_line(const char **at)
{
	size_t len = strcspn(*at, "\n");
	char *line = len ? strndup(*at, len) : NULL;
	*at += len + ((*at)[len] == '\n');
	return line;
}

/* The directory that programs know the repository by, whichever worktree they are in. */
static char *main_path(const char *common_dir)
{
	size_t len = strlen(common_dir);
	bool in_checkout = len > 5 && strcmp(common_dir + len - 5, "/.git") == 0;
	return strndup(common_dir, in_checkout ? len - 5 : len);
}

/* Where the directories of the repository are, by git's own search. Nothing of what it says of
 * itself is obeyed in that. */
static int find_dirs(struct repo *repo, const char *path, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf top = {0};
	const struct git_place any = {0};
	int r = git_run(&any, &out, err,
			GIT_ARGS("-C", repo->path, "rev-parse", "--path-format=absolute",
				 "--git-dir", "--git-common-dir", "--is-bare-repository"));
	if (r > 0)
		r = ap_err_wrap(err, -EINVAL, "%s is not usable as a git repository", path);
	if (r < 0)
		return r;
	const char *at = ap_buf_text(&out);
	repo->git_dir = take_line(&at);
	repo->common_dir = take_line(&at);
	if (!repo->git_dir || !repo->common_dir)
		return ap_err_set(err, -EIO, "git does not say where the repository %s is", path);
	/* fails inside a .git directory: there are no files then */
	if (strncmp(at, "false", 5) == 0 &&
	    git_run(&any, &top, NULL,
		    GIT_ARGS("-C", repo->path, "rev-parse", "--path-format=absolute",
			     "--show-toplevel")) == 0) {
		git_trim(&top);
		repo->work_tree = strdup(ap_buf_text(&top));
	}
	return 0;
}

static void name_user(uid_t uid, char *ret, size_t size)
{
	char block[1024];
	struct passwd entry, *found = NULL;
	(void)getpwuid_r(uid, &entry, block, sizeof block, &found); /* else the number does */
	if (found)
		snprintf(ret, size, "%s (uid %u)", found->pw_name, uid);
	else
		snprintf(ret, size, "uid %u", uid);
}

static int check_owner(const char *dir, struct ap_err *err)
{
	struct stat st;
	char owner[128], us[128];
	if (stat(dir, &st) < 0)
		return ap_err_errno(err, -errno, "%s", dir);
	if (st.st_uid == geteuid())
		return 0;
	name_user(st.st_uid, owner, sizeof owner);
	name_user(geteuid(), us, sizeof us);
	return ap_err_set(err, -EPERM,
			  "%s belongs to %s, and its hooks and settings would act as %s: mount it "
			  "as its owner, or with -o allow_foreign_repo if you trust it",
			  dir, owner, us);
}

int repo_open(struct repo *ret, const char *path, bool allow_foreign, struct ap_err *err)
{
	struct repo repo = {.path = realpath(path, NULL)};
	char head[GIT_OID_MAX + 1];
	if (!repo.path)
		return ap_err_errno(err, -errno, "%s", path);
	int r = find_dirs(&repo, path, err);
	if (r == 0 && !allow_foreign)
		r = check_owner(repo.git_dir, err);
	if (r == 0 && !allow_foreign)
		r = check_owner(repo.common_dir, err);
	if (r == 0) {
		repo.main_path = main_path(repo.common_dir);
		repo.resolver = git_resolver_new(repo.git_dir);
		if (!repo.main_path || !repo.resolver)
			r = ap_err_errno(err, -ENOMEM, "%s", path);
	}
	if (r == 0 &&
	    git_rev_parse(&(struct git_place){.git_dir = repo.git_dir}, "HEAD", head, NULL) != 0)
		r = ap_err_set(err, -EINVAL, "%s has no commit yet: make a first one", path);
	if (r < 0)
		repo_fini(&repo);
	else
		*ret = repo;
	return r;
}

void repo_fini(struct repo *repo)
{
	git_resolver_free(repo->resolver);
	free(repo->path);
	free(repo->git_dir);
	free(repo->common_dir);
	free(repo->main_path);
	free(repo->work_tree);
	*repo = (struct repo){0};
}

int repo_resolve(const struct repo *repo, const char *revision, char ret_oid[GIT_OID_MAX + 1],
		 struct ap_err *err)
{
	int r = git_resolve(repo->resolver, revision, ret_oid, err);
	if (r > 0)
		return ap_err_set(err, -EINVAL, "'%s' names no commit of %s", revision, repo->path);
	return r;
}

int repo_admin_dir(const struct repo *repo, const char *path, char **ret, struct ap_err *err)
{
	char text[PATH_MAX + 16];
	(void)file_read_line(path, ".git", text, sizeof text);
	const char *dir = text + strlen("gitdir: ");
	size_t common = strlen(repo->common_dir);
	if (strncmp(text, "gitdir: ", strlen("gitdir: ")) != 0 ||
	    strncmp(dir, repo->common_dir, common) != 0 ||
	    strncmp(dir + common, "/worktrees/", strlen("/worktrees/")) != 0 || strstr(dir, "/../"))
		return ap_err_set(err, -EIO, "%s is no worktree of %s", path, repo->path);
	*ret = strdup(dir);
	return *ret ? 0 : ap_err_errno(err, -ENOMEM, "%s", path);
}

void repo_forget_worktrees(const struct repo *repo, const char *dir)
{
	AP_CLEANUP_BUF struct ap_buf all = {0};
	size_t len = strlen(dir);
	ap_buf_printf(&all, "%s/worktrees", repo->common_dir);
	DIR *entries = opendir(ap_buf_text(&all));
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf admin = {0};
		char link[PATH_MAX];
		ap_buf_printf(&admin, "%s/%s", ap_buf_text(&all), entry->d_name);
		if (entry->d_name[0] == '.' ||
		    file_read_line(ap_buf_text(&admin), "gitdir", link, sizeof link) < 0 ||
		    strncmp(link, dir, len) != 0 || link[len] != '/')
			continue;
		char *slash = strrchr(link, '/');
		*slash = '\0'; /* DIR/.git */
		if (access(link, F_OK) < 0)
			(void)process_remove_tree(ap_buf_text(&admin), NULL);
	}
	if (entries)
		closedir(entries);
	(void)rmdir(ap_buf_text(&all)); /* git removes that of the last worktree too */
}
