/* What the kernel tells of control groups: the texts of mountinfo and of a membership, and files of
 * a group, each up to a NUL. */
#include "fuzz.h"

#include "../../core/host/cgroup.c"

static void home(const char *mountinfo, const char *membership)
{
	char *found = cgroup_home(mountinfo, membership);
	if (!found)
		return;
	HOLDS(strstr(mountinfo, " - cgroup2 "));
	HOLDS(strstr(membership, "0::"));
	HOLDS(strlen(found) <= strlen(mountinfo) + strlen(membership));
	free(found);
}

static void escapes(const char *text)
{
	char *copy = fuzz_copy(text, strlen(text));
	unescape(copy);
	HOLDS(strlen(copy) <= strlen(text));
	HOLDS(strchr(text, '\\') || strcmp(copy, text) == 0);
	free(copy);
}

static void keys(const char *text)
{
	uint64_t number = 4711;
	if (find_number(text, "oom_kill", &number))
		HOLDS(strstr(text, "oom_kill "));
	else
		HOLDS(number == 4711);
	if (has_word(text, "cpu"))
		HOLDS(strstr(text, "cpu"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	char *mountinfo = fuzz_text(&input), *membership = fuzz_text(&input),
	     *file = fuzz_text(&input);
	home(mountinfo, membership);
	escapes(mountinfo);
	keys(file);
	free(mountinfo);
	free(membership);
	free(file);
	return 0;
}
