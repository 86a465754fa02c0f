#include "checkout.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "git_command.h"
#include "process.h"
#include "remove.h"

/* The path where git would find a hook of a checkout; empty: there is none. */
static int find_hook(const char *git, const char *files, const char *name, struct ap_buf *ret,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	const struct git_place place = {.git_dir = git, .work_tree = files, .with_hooks = true};
	ap_buf_printf(&path, "hooks/%s", name);
	int r = git_must(&place, &out, err,
			 GIT_ARGS("rev-parse", "--git-path", ap_buf_text(&path)));
	git_trim(&out);
	if (r < 0)
		return r;
	ap_buf_printf(ret, out.len > 0 && out.data[0] == '/' ? "%s%s" : "%s/%s",
		      out.len > 0 && out.data[0] == '/' ? "" : files, ap_buf_text(&out));
	if (ret->failed)
		return ap_err_errno(err, -ENOMEM, "%s", name);
	if (access(ret->data, X_OK) < 0)
		ret->len = 0;
	return 0;
}

int checkout_hook(const struct repo *repo, const char *git, const char *files, bool is_linked,
		  const char *commit, int64_t limit_ns, struct ap_err *ret_warning,
		  struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf hook = {0};
	AP_CLEANUP_BUF struct ap_buf link = {0};
	char none[GIT_OID_MAX + 1];
	ret_warning->text[0] = '\0';
	int r = find_hook(git, files, "post-checkout", &hook, err);
	if (r < 0 || hook.len == 0)
		return r;
	ap_buf_printf(&link, "%s/.git", files);
	r = is_linked ? 0 : file_printf(ap_buf_text(&link), err, "gitdir: %s\n", git);
	if (r < 0)
		return r;
	memset(none, '0', strlen(commit));
	none[strlen(commit)] = '\0';
	const struct process_run run = {
		.argv = GIT_ARGS(ap_buf_text(&hook), none, commit, "1"),
		.env = GIT_ARGS("GIT_TERMINAL_PROMPT=0"),
		.dir = files,
		.limit_ns = limit_ns > 0 ? limit_ns : GIT_LIMIT,
	};
	if (process_run(&run, ret_warning) != 0)
		ap_err_wrap(ret_warning, -EIO, "the post-checkout hook of %s", repo->path);
	/* removes it, whatever the hook has made of it */
	return is_linked ? 0 : remove_tree(ap_buf_text(&link), NULL, err);
}

int checkout_files(const struct repo *repo, const char *git, const char *files, int64_t limit_ns,
		   struct git_progress *progress, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf objects = {0};
	ap_buf_printf(&objects, "GIT_OBJECT_DIRECTORY=%s/objects", repo->common_dir);
	const struct git_place place = {.git_dir = git,
					.work_tree = files,
					.env = GIT_ARGS(ap_buf_text(&objects)),
					.progress = progress,
					.limit_ns = limit_ns};
	return objects.failed ? ap_err_errno(err, -ENOMEM, "%s", files)
			      : git_must(&place, NULL, err,
					 GIT_ARGS("-c", "submodule.recurse=false", "reset",
						  progress ? "--no-quiet" : "--quiet", "--hard"));
}
