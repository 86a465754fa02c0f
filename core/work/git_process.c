#include "git_process.h"

#include <errno.h>

/* Appends a directory to a list with colons, quoted, as its name may have a colon. */
static void add_dir(struct ap_buf *list, const char *dir)
{
	ap_buf_adds(list, list->len > 0 && list->data[list->len - 1] != '=' ? ":\"" : "\"");
	for (; *dir; dir++) {
		if (*dir == '\n')
			ap_buf_adds(list, "\\n");
		else {
			if (*dir == '"' || *dir == '\\')
				ap_buf_adds(list, "\\");
			ap_buf_add(list, dir, 1);
		}
	}
	ap_buf_adds(list, "\"");
}

int git_process_init(struct git_process *process, struct ap_git *git)
{
	size_t n = 0;
	bool alternates = git->objects || git->borrowed[0];
	ap_buf_adds(&process->alternates, "GIT_ALTERNATE_OBJECT_DIRECTORIES=");
	if (git->objects) {
		ap_buf_printf(&process->objects, "GIT_OBJECT_DIRECTORY=%s", git->objects);
		ap_buf_printf(&process->own, "%s/objects", git->common_dir);
		add_dir(&process->alternates, ap_buf_text(&process->own));
		process->env[n++] = ap_buf_text(&process->objects);
	}
	for (size_t i = 0; git->borrowed[i]; i++)
		add_dir(&process->alternates, git->borrowed[i]);
	if (alternates)
		process->env[n++] = ap_buf_text(&process->alternates);
	process->env[n++] = "GIT_NO_REPLACE_OBJECTS=1"; /* read objects as they are */
	process->env[n] = NULL;
	ap_buf_printf(&process->index, "%s/.git/index", git->rules ? git->rules : "/dev/fd");
	process->place = (struct git_place){
		.git_dir = git->git_dir,
		.work_tree = git->rules,
		.index = ap_buf_text(&process->index),
		.env = process->env,
		.limit_ns = git->limit_ns,
	};
	return process->objects.failed || process->own.failed || process->alternates.failed ||
			       process->index.failed
		       ? -ENOMEM
		       : 0;
}

void git_process_fini(struct git_process *process)
{
	ap_buf_fini(&process->objects);
	ap_buf_fini(&process->alternates);
	ap_buf_fini(&process->own);
	ap_buf_fini(&process->index);
}
