/* Paths made canonical, and the kernel's table of mounts read. */
#include "unit.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "mounts.h"
#include "remove.h"

static char top[PATH_MAX]; /* of what a test makes; canonical */

static int make_top(void **state)
{
	char name[] = "/tmp/agentpool-file-XXXXXX";
	return mkdtemp(name) && realpath(name, top) && chdir(top) == 0 ? 0 : -1;
}

static int remove_top(void **state)
{
	return chdir("/") == 0 ? remove_tree(top, NULL, NULL) : -1;
}

static void assert_resolves(const char *path, const char *below_top)
{
	AP_CLEANUP_FREE char *resolved = NULL;
	char expected[PATH_MAX + 64];
	struct ap_err err;
	snprintf(expected, sizeof expected, "%s%s", top, below_top);
	assert_int_equal(file_resolve(path, &resolved, &err), 0);
	assert_string_equal(resolved, expected);
}

static void resolves(void **state)
{
	char *none = NULL;
	struct ap_err err;
	mkdir("a", 0700);
	mkdir("a/b", 0700);
	assert_int_equal(symlink("a/b", "link"), 0);
	assert_int_equal(symlink("loop", "loop"), 0);
	assert_int_equal(symlink("none/x", "away"), 0);
	assert_resolves(".", "");
	assert_resolves("a//b/./", "/a/b");
	assert_resolves("link", "/a/b");
	assert_resolves("link/..", "/a");
	assert_resolves("link/../../a/none/../c", "/a/c");
	assert_resolves("away/y", "/none/x/y");
	assert_resolves("a/new/state/", "/a/new/state");
	assert_int_equal(file_resolve("loop", &none, &err), -ELOOP);
	assert_int_equal(file_resolve("", &none, &err), -ENOENT);
	AP_CLEANUP_FREE char *root = NULL;
	assert_int_equal(file_resolve("/../..", &root, &err), 0);
	assert_string_equal(root, "/");
}

static void is_within(void **state)
{
	char path[PATH_MAX + 64];
	assert_true(file_is_within(top, top));
	assert_true(file_is_within(top, "/"));
	snprintf(path, sizeof path, "%s/none/x", top);
	assert_true(file_is_within(path, top));
	assert_false(file_is_within(top, path));
	snprintf(path, sizeof path, "%s-beside", top);
	assert_false(file_is_within(path, top));
}

static void finds_mounts(void **state)
{
	static const char table[] =
		"21 1 8:1 / / rw - ext4 /dev/vda rw\n"
		"22 21 0:40 / /my\\040pool rw,nosuid shared:1 master:2 - fuse.agentpoolfs "
		"agentpool rw\n"
		"23 21 0:41 / /tab\\011line\\012back\\134 rw - fuse.other none rw\n"
		"24 21 0:42 / /twice rw - tmpfs none rw\n"
		"25 24 0:43 / /twice rw - fuse.agentpoolfs x rw\n"
		"26 21 0:44\n"
		"27 21 0:45 / /cut rw - ";
	char type[MOUNTS_TYPE_MAX] = "";
	assert_true(mounts_type_at(table, "/my pool", type));
	assert_string_equal(type, "fuse.agentpoolfs");
	assert_true(mounts_type_at(table, "/tab\tline\nback\\", type));
	assert_string_equal(type, "fuse.other");
	assert_true(mounts_type_at(table, "/twice", type));
	assert_string_equal(type, "fuse.agentpoolfs");
	assert_true(mounts_type_at(table, "/", type));
	assert_false(mounts_type_at(table, "/my\\040pool", type));
	assert_false(mounts_type_at(table, "/my", type));
	assert_false(mounts_type_at("", "/", type));
}

static void assert_makes(const char *path, const char *made)
{
	struct stat st;
	struct ap_err err;
	assert_int_equal(file_make_dirs(path, &err), 0);
	assert_int_equal(stat(made, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0700);
}

static void makes_dirs(void **state)
{
	char absolute[PATH_MAX + 64];
	struct ap_err err;
	snprintf(absolute, sizeof absolute, "%s/d/from/top", top);
	assert_makes(absolute, "d/from");
	assert_makes(absolute, "d/from/top");
	assert_makes("d", "d");
	assert_makes("d/from/x", "d/from/x");
	assert_makes("e//f/./g/", "e/f/g");
	assert_makes("d/../h/i", "h/i");
	assert_int_equal(mknod("d/file", S_IFREG | 0600, 0), 0);
	assert_int_equal(file_make_dirs("d/file/x", &err), -ENOTDIR);
	assert_int_equal(file_make_dirs("", &err), -ENOENT);
	assert_int_equal(file_make_dirs("/", &err), 0);
}

/* Who has it open keeps the old one: it is never seen in part. */
static void replaces(void **state)
{
	char text[16];
	assert_int_equal(file_replace("record", "first\n", 6, NULL), 0);
	FILE *before = fopen("record", "re");
	assert_non_null(before);
	assert_int_equal(file_replace("record", "second\n", 7, NULL), 0);
	assert_non_null(fgets(text, sizeof text, before));
	assert_string_equal(text, "first\n");
	fclose(before);
	assert_int_equal(file_read_line(".", "record", text, sizeof text), 0);
	assert_string_equal(text, "second");
	assert_int_equal(access("record.new", F_OK), -1);
	assert_int_equal(file_replace("none/record", "x", 1, NULL), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a path is canonical whether it is there or not", resolves),
		IT("a path is within a directory by its names and by what they are", is_within),
		IT("a directory is made with those above it", makes_dirs),
		IT("a file is replaced as a whole", replaces),
		IT("a mount is found whatever is in its path", finds_mounts),
	};
	return cmocka_run_group_tests_name("file", tests, make_top, remove_top);
}
