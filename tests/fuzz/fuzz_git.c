/* What git prints of a worktree that an agent has worked in, and its reflogs; files have names
 * there that anybody chose. */
#include "fuzz.h"

#include "../../core/work/worktree_save.c"

static void is_oid(const char *text, size_t max)
{
	HOLDS(strlen(text) <= max && strspn(text, "0123456789abcdef") == strlen(text));
}

static void status_holds(const char *line)
{
	struct look look = {.is_changed = false};
	look_at_line(&look, line);
	is_oid(look.head, GIT_OID_MAX);
	HOLDS(look.is_changed || look.nested.len == 0);
	if (look.nested.len > 0) {
		const char *path = look.nested.data;
		size_t len = strlen(path);
		HOLDS(len > 0 && len + 1 == look.nested.len);
		HOLDS(strstr(line, path));
	}
	ap_buf_fini(&look.nested);
}

static void reflog_holds(const void *text, size_t len)
{
	AP_CLEANUP_BUF struct ap_buf commits = {0};
	add_reflog("/proc/self/fd", fuzz_file(text, len), "^", &commits);
	for (char *at = commits.data, *end; at && *at; at = end + 1) {
		end = strchr(at, '\n');
		HOLDS(end && *at == '^' && end > at + 1);
		*end = '\0';
		is_oid(at + 1, GIT_OID_MAX);
		HOLDS(strspn(at + 1, "0") != strlen(at + 1));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	reflog_holds(data, size);
	while (input.left > 0) {
		char *line = fuzz_text(&input);
		status_holds(line);
		free(line);
	}
	return 0;
}
