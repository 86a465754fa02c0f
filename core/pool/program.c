/* Whether the pool's program exists, before the pool makes anything: looks for it as the shim of an
 * agent will, by execvp() in a worktree with the PATH of agents. Assumes that it exists where only
 * a worktree could tell. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"

/* Whether execvp() could run the file: 0, -ENOENT, -EISDIR, -EACCES, another errno of stat(2), or
 * -ENOEXEC: the interpreter that it names, in `ret_interpreter`, cannot be run. A file of unknown
 * format is fine: execvp() gives it to sh. */
static int runnable(const char *path, char ret_interpreter[PATH_MAX])
{
	struct stat st;
	char head[256] = "";
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EACCES;
	if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
		return -errno;
	AP_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || pread(fd, head, sizeof head - 1, 0) < 2 || strncmp(head, "#!", 2) != 0)
		return 0;
	const char *at = head + 2 + strspn(head + 2, " \t");
	size_t len = strcspn(at, " \t\r\n");
	if (len == 0 || at[len] == '\0' || at[0] != '/') /* relative to the agent's directory */
		return 0;
	snprintf(ret_interpreter, PATH_MAX, "%.*s", (int)len, at);
	return access(ret_interpreter, X_OK) < 0 ? -ENOEXEC : 0;
}

static int refuse_program(const char *name, const char *path, int error, const char *interpreter,
			  struct ap_err *err)
{
	switch (error) {
	case -ENOEXEC:
		return ap_err_set(err, -ENOENT,
				  "the program %s cannot be run: its interpreter %s is not there",
				  path, interpreter);
	case -EISDIR:
		return ap_err_set(err, -EACCES, "the program %s is a directory", path);
	case -EACCES:
		return ap_err_set(err, -EACCES, "the program %s is not executable", path);
	}
	return ap_err_errno(err, error, "the program %s", name);
}

/* Looks in PATH as execvp() does. A relative directory in PATH is relative to the worktree: looks
 * in the repository's checkout instead. */
static int check_in_path(const struct ap_pool *pool, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf found = {0}; /* the first that exists and cannot be run */
	char interpreter[PATH_MAX], found_interpreter[PATH_MAX] = "";
	int error = -ENOENT;
	if (!session_path(&pool->sessions, &path))
		return 0;
	for (const char *at = ap_buf_text(&path); path.len > 0; at++) {
		size_t len = strcspn(at, ":");
		AP_CLEANUP_BUF struct ap_buf file = {0};
		if (*at != '/' && pool->repo.work_tree)
			ap_buf_printf(&file, "%s/", pool->repo.work_tree);
		ap_buf_printf(&file, "%.*s/%s", len ? (int)len : 1, len ? at : ".", name);
		int r = runnable(ap_buf_text(&file), interpreter);
		if (r == 0)
			return 0;
		if (found.len == 0 && (r == -EACCES || r == -ENOEXEC) &&
		    access(ap_buf_text(&file), F_OK) == 0) {
			error = r;
			ap_buf_adds(&found, ap_buf_text(&file));
			memcpy(found_interpreter, interpreter, sizeof interpreter);
		}
		at += len;
		if (!*at)
			break;
	}
	if (found.len > 0)
		return refuse_program(name, found.data, error, found_interpreter, err);
	return ap_err_set(err, -ENOENT,
			  "there is no program '%s' in the PATH of agents, which is %s", name,
			  path.len > 0 ? path.data : "empty");
}

/* Checks a path relative to the agents' worktrees: the base has to contain it, or the checkout, as
 * files from there may come into a worktree. Assumes the best if setup could make it. */
static int check_in_worktree(const struct ap_pool *pool, const char *name, struct ap_err *err)
{
	const struct repo *repo = &pool->repo;
	char interpreter[PATH_MAX], commit[GIT_OID_MAX + 1];
	const char *inside = name;
	while (strncmp(inside, "./", 2) == 0)
		inside += 2 + strspn(inside + 2, "/");
	if (*pool->config.text[AP_OPT_SETUP] || strncmp(inside, "../", 3) == 0 ||
	    strstr(inside, "/../"))
		return 0; /* setup may make it; or it is outside of the worktree */
	if (repo_resolve(repo, pool->config.text[AP_OPT_BASE], commit, NULL) < 0 ||
	    repo_has_program(repo, commit, inside))
		return 0;
	if (repo->work_tree) { /* a file that .worktreeinclude names, or that a hook makes */
		AP_CLEANUP_BUF struct ap_buf file = {0};
		ap_buf_printf(&file, "%s/%s", repo->work_tree, inside);
		if (runnable(ap_buf_text(&file), interpreter) == 0)
			return 0;
	}
	return ap_err_set(err, -ENOENT,
			  "the program %s is looked for in an agent's worktree, and %s has no such "
			  "executable file: commit it, or give its absolute path",
			  name, pool->config.text[AP_OPT_BASE]);
}

int program_check(const struct ap_pool *pool, struct ap_err *err)
{
	const char *name = pool->argv[0];
	char interpreter[PATH_MAX];
	if (!backend_runs_programs)
		return 0;
	if (!strchr(name, '/'))
		return check_in_path(pool, name, err);
	if (name[0] != '/')
		return check_in_worktree(pool, name, err);
	int r = runnable(name, interpreter);
	return r < 0 ? refuse_program(name, name, r, interpreter, err) : 0;
}
