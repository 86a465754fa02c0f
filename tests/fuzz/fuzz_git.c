/* Names of refs that are made of paths which anybody chose: git must take them. */
#include "fuzz.h"

#include "worktree_internal.h"

/* The rules of git-check-ref-format(1), for what stands behind a prefix. */
static void is_ref(const char *ref)
{
	size_t len = strlen(ref);
	for (const char *at = ref; *at; at++)
		HOLDS((unsigned char)*at > ' ' && *at != 0x7f && !strchr("~^:?*[\\", *at));
	HOLDS(!strstr(ref, "..") && !strstr(ref, "@{") && !strstr(ref, "//") && !strstr(ref, "/."));
	HOLDS(!strstr(ref, ".lock/") && ref[0] != '.');
	HOLDS(len < 5 || strcmp(ref + len - 5, ".lock") != 0);
	HOLDS(len == 0 || (ref[len - 1] != '.' && ref[len - 1] != '/'));
	for (const char *at = ref; *at; at += strcspn(at, "/") + (at[strcspn(at, "/")] == '/'))
		HOLDS(strcspn(at, "/") < 250);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	while (input.left > 0) {
		AP_CLEANUP_BUF struct ap_buf ref = {0};
		char *path = fuzz_text(&input);
		size_t len = strlen(path);
		/* as paths are: no slash at its ends, none doubled */
		bool is_path =
			len > 0 && path[0] != '/' && path[len - 1] != '/' && !strstr(path, "//");
		if (is_path) {
			commits_add_ref_path(&ref, path);
			is_ref(ap_buf_text(&ref));
		}
		free(path);
	}
	return 0;
}
