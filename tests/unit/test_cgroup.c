/* Control groups on a hierarchy of plain files in a temporary directory: what is found, asked for
 * and told. What only the kernel does is shown by tests/mount/cgroup.bats. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cgroup.h"
#include "cleanup.h"
#include "remove.h"

static char *fake; /* the hierarchy */

static const char *path_of(const char *name)
{
	static char path[512];
	snprintf(path, sizeof path, "%s%s", fake, name);
	return path;
}

static void put(const char *name, const char *text)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static const char *get(const char *name)
{
	static char text[256];
	int fd = open(path_of(name), O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
	return text;
}

/* A group as the kernel fills it; one below the root has a type. */
static void make_group(const char *name, bool is_root, const char *there, const char *procs)
{
	static const char *const files[] = {"cgroup.subtree_control", "cgroup.kill", "memory.max",
					    "pids.max"};
	char path[128];
	(void)mkdir(path_of(name), 0700);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "%s/%s", name, files[i]);
		put(path, "");
	}
	snprintf(path, sizeof path, "%s/cgroup.controllers", name);
	put(path, there);
	snprintf(path, sizeof path, "%s/cgroup.procs", name);
	put(path, procs);
	snprintf(path, sizeof path, "%s/cgroup.type", name);
	if (!is_root)
		put(path, "domain\n");
}

static int setup(void **state)
{
	static char template[64];
	strcpy(template, "/tmp/agentpool-cgroup-XXXXXX");
	fake = mkdtemp(template);
	return fake ? 0 : -1;
}

static int teardown(void **state)
{
	return remove_tree(fake, NULL, NULL);
}

/* --- where groups may be made --- */

static char *home(const char *format, const char *membership)
{
	char mountinfo[1024];
	snprintf(mountinfo, sizeof mountinfo,
		 "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		 "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n%s",
		 format);
	return cgroup_home(mountinfo, membership);
}

static void assert_home(const char *mount, const char *membership, const char *expected)
{
	char *found = home(mount, membership);
	if (expected)
		assert_string_equal(found, expected);
	else
		assert_null(found);
	free(found);
}

static void the_own_group_is_found(void **state)
{
	const char *hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
			     "41 31 0:38 / /nowhere/unified rw - cgroup2 cgroup2 rw\n";
	assert_home(hybrid, "4:memory:/some\n0::/\n", "/nowhere/unified");
	assert_home(hybrid, "0::/", "/nowhere/unified");
	assert_home(hybrid, "4:memory:/some\n0::/a.slice/b.service\n",
		    "/nowhere/unified/a.slice/b.service");
	assert_home("41 31 0:38 / /no\\040where shared:4 master:2 - cgroup2 none rw", "0::/a\n",
		    "/no where/a");
}

static void a_part_of_the_hierarchy_may_be_mounted(void **state)
{
	const char *part = "41 31 0:38 /docker/abc /nowhere rw - cgroup2 cgroup2 rw\n";
	assert_home(part, "0::/docker/abc\n", "/nowhere");
	assert_home(part, "0::/docker/abc/d\n", "/nowhere/d");
	assert_home(part, "0::/docker/abcd\n", NULL);
	assert_home(part, "0::/other\n", NULL);
}

static void nothing_is_made_of_nothing(void **state)
{
	const char *mount = "41 31 0:38 / /nowhere rw - cgroup2 cgroup2 rw\n";
	assert_home("", "0::/\n", NULL);
	assert_home("32 31 0:29 / /cpu rw - cgroup cgroup rw,cpu\n", "0::/\n", NULL);
	assert_home(mount, "", NULL);
	assert_home(mount, "4:memory:/some\n", NULL);
	assert_home(mount, "0::/../outside\n", NULL);
	assert_home("cgroup2 - cgroup2 cgroup2\n", "0::/\n", NULL);
}

static void a_parent_that_was_handed_over_can_have_controllers(void **state)
{
	char mount[256];
	char *found;
	make_group("/pool.service", false, "memory\n", "");
	make_group("/pool.service/daemon", false, "", "7\n");
	snprintf(mount, sizeof mount, "41 31 0:38 / %s rw - cgroup2 cgroup2 rw\n", fake);
	found = home(mount, "0::/pool.service/daemon\n");
	assert_string_equal(found, path_of("/pool.service/daemon"));
	free(found);
	const char *name = geteuid() == 0 ? "trusted.delegate" : "user.delegate";
	if (setxattr(path_of("/pool.service"), name, "1", 1, 0) < 0)
		skip(); /* a file system without them */
	found = home(mount, "0::/pool.service/daemon\n");
	assert_string_equal(found, path_of("/pool.service"));
	free(found);
	put("/pool.service/cgroup.procs", "8\n"); /* somebody else's are not moved */
	found = home(mount, "0::/pool.service/daemon\n");
	assert_string_equal(found, path_of("/pool.service/daemon"));
	free(found);
}

/* --- the subtree --- */

static void assert_described(const struct cgroup_subtree *subtree, const char *expected)
{
	char text[64];
	cgroup_subtree_describe(subtree, text, sizeof text);
	assert_string_equal(text, expected);
}

static void controllers_are_enabled_where_they_can_be(void **state)
{
	struct cgroup_subtree subtree = {.path = NULL};
	assert_described(&subtree, "none");
	make_group("", true, "cpuset cpu io memory hugetlb pids\n", "1\n2\n");
	make_group("/pool", false, "cpu memory pids\n", "");
	assert_true(cgroup_subtree_open(&subtree, path_of("/pool")));
	assert_described(&subtree, "v2 memory cpu pids");
	assert_string_equal(get("/cgroup.subtree_control"), "+pids");
	assert_string_equal(get("/pool/cgroup.subtree_control"), "+pids");
	assert_string_equal(get("/cgroup.procs"), "1\n2\n");
	assert_false(cgroup_subtree_close(&subtree, true)); /* the files are in the way */
	assert_null(subtree.path);

	make_group("", true, "hugetlb cpuset\n", "1\n");
	make_group("/pool", false, "hugetlb\n", "");
	assert_true(cgroup_subtree_open(&subtree, path_of("/pool")));
	assert_described(&subtree, "v2");
	assert_string_equal(get("/cgroup.subtree_control"), "");
	cgroup_subtree_close(&subtree, true);
}

static void a_group_with_processes_enables_nothing(void **state)
{
	struct cgroup_subtree subtree;
	make_group("/scope", false, "cpu memory pids\n", "7\n");
	make_group("/scope/pool", false, "", "");
	assert_true(cgroup_subtree_open(&subtree, path_of("/scope/pool")));
	assert_described(&subtree, "v2");
	assert_string_equal(get("/scope/cgroup.subtree_control"), "");
	cgroup_subtree_close(&subtree, true);
}

static void what_is_enabled_already_is_used(void **state)
{
	struct cgroup_subtree subtree;
	make_group("/slice", false, "cpu memory pids\n", "");
	put("/slice/cgroup.subtree_control", "memory pids\n");
	make_group("/slice/pool", false, "memory pids\n", "");
	assert_true(cgroup_subtree_open(&subtree, path_of("/slice/pool")));
	assert_described(&subtree, "v2 memory pids");
	cgroup_subtree_close(&subtree, true);
}

static void what_cannot_be_had_is_none(void **state)
{
	struct cgroup_subtree subtree = {.path = NULL};
	assert_false(cgroup_subtree_open(&subtree, path_of("/nowhere/pool")));
	make_group("/scope", false, "", "7\n");
	assert_false(cgroup_subtree_open(&subtree, path_of("/scope/pool"))); /* no cgroup.kill */
	assert_int_not_equal(access(path_of("/scope/pool"), F_OK), 0);
	make_group("/scope/pool", false, "", "");
	put("/scope/pool/cgroup.type", "domain invalid\n");
	assert_false(cgroup_subtree_open(&subtree, path_of("/scope/pool")));
	put("/scope/pool/cgroup.type", "domain\n");
	put("/scope/cgroup.type", "threaded\n");
	assert_false(cgroup_subtree_open(&subtree, path_of("/scope/pool")));
	assert_described(&subtree, "none");
	assert_null(cgroup_make(&subtree, "agent-1", 0));
	cgroup_subtree_bound(&subtree, 1);
	assert_true(cgroup_subtree_close(&subtree, false));
}

/* --- one group --- */

static void a_group_is_bounded_and_bounds_follow(void **state)
{
	char path[512];
	struct cgroup_subtree subtree = {.path = path, .controllers = CGROUP_MEMORY | CGROUP_PIDS};
	make_group("/pool", false, "memory pids\n", "");
	make_group("/pool/agent-1", false, "", "7\n");
	make_group("/pool/agent-2", false, "", "8\n");
	strcpy(path, path_of("/pool"));
	cgroup_subtree_bound(&subtree, 512 << 20);
	assert_string_equal(get("/pool/agent-1/memory.max"), "671088640");
	cgroup_subtree_bound(&subtree, 0);
	assert_string_equal(get("/pool/agent-1/memory.max"), "max");
	assert_string_equal(get("/pool/agent-2/memory.max"), "max");

	/* one that uses more is not ended by it; what can be dropped does not count */
	put("/pool/agent-1/memory.current", "200000000\n");
	put("/pool/agent-1/memory.stat", "anon 180000000\ninactive_file 20000000\n");
	put("/pool/agent-2/memory.current", "200000000\n");
	put("/pool/agent-2/memory.stat",
	    "anon 80000000\nfile 120000000\ninactive_file 110000000\n");
	cgroup_subtree_bound(&subtree, 100000000);
	assert_string_equal(get("/pool/agent-1/memory.max"), "max");
	assert_string_equal(get("/pool/agent-2/memory.max"), "125000000");

	subtree.controllers = 0;
	cgroup_subtree_bound(&subtree, 400000000);
	assert_string_equal(get("/pool/agent-1/memory.max"), "max");
}

static void a_new_group_is_empty(void **state)
{
	char path[512];
	struct cgroup_subtree subtree = {.path = path};
	make_group("/pool", false, "", "");
	strcpy(path, path_of("/pool"));
	assert_int_equal(mkdir(path_of("/pool/agent-1"), 0700), 0);
	assert_int_equal(mkdir(path_of("/pool/agent-1/below"), 0700), 0);
	char *made = cgroup_make(&subtree, "agent-1", 0);
	assert_string_equal(made, path_of("/pool/agent-1"));
	assert_int_not_equal(access(path_of("/pool/agent-1/below"), F_OK), 0);
	assert_true(cgroup_remove(made));
	assert_true(cgroup_remove(made)); /* it is gone */
	free(made);
}

static void what_a_group_is_told(void **state)
{
	make_group("/agent-1", false, "", "");
	assert_true(cgroup_enter(path_of("/agent-1")));
	assert_string_equal(get("/agent-1/cgroup.procs"), "0");
	assert_true(cgroup_kill(path_of("/agent-1")));
	assert_string_equal(get("/agent-1/cgroup.kill"), "1");
	assert_false(cgroup_enter(path_of("/agent-2")));
	assert_false(cgroup_kill(path_of("/agent-2")));
	assert_int_not_equal(access(path_of("/agent-2"), F_OK), 0); /* nothing is made by it */
}

static void usage_is_read(void **state)
{
	struct cgroup_usage usage;
	make_group("/agent-1", false, "", "7\n8\n19\n");
	assert_false(cgroup_usage(path_of("/agent-1"), &usage));
	put("/agent-1/cgroup.events", "populated 1\nfrozen 0\n");
	put("/agent-1/cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n");
	assert_true(cgroup_usage(path_of("/agent-1"), &usage));
	assert_false(usage.has_memory);
	assert_int_equal(usage.cpu_ns, 1500000000);
	assert_int_equal(usage.n_processes, 3);
	put("/agent-1/memory.current", "5000\n");
	put("/agent-1/memory.stat", "anon 3000\nfile 2000\ninactive_file 1500\n");
	make_group("/agent-1/below", false, "", "21\n");
	assert_true(cgroup_usage(path_of("/agent-1"), &usage));
	assert_true(usage.has_memory);
	assert_int_equal(usage.memory, 3500);
	assert_int_equal(usage.n_processes, 4);
	put("/agent-1/memory.stat", "inactive_file 9000\n"); /* read a moment later */
	assert_true(cgroup_usage(path_of("/agent-1"), &usage));
	assert_int_equal(usage.memory, 0);
	put("/agent-1/cgroup.events", "populated 0\nfrozen 0\n"); /* the program is elsewhere */
	assert_false(cgroup_usage(path_of("/agent-1"), &usage));
	put("/agent-1/cgroup.events", "garbage");
	assert_false(cgroup_usage(path_of("/agent-1"), &usage));
}

static void kills_for_memory_are_counted(void **state)
{
	make_group("/agent-1", false, "", "");
	assert_int_equal(cgroup_oom_kills(path_of("/agent-1")), 0);
	put("/agent-1/memory.events",
	    "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 0\n");
	assert_int_equal(cgroup_oom_kills(path_of("/agent-1")), 3);
}

#define ON_FAKE(sentence, function)                                                                \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = setup,                  \
		.teardown_func = teardown                                                          \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the own group is found", the_own_group_is_found),
		IT("a part of the hierarchy may be mounted",
		   a_part_of_the_hierarchy_may_be_mounted),
		IT("nothing is made of nothing", nothing_is_made_of_nothing),
		ON_FAKE("a parent that was handed over can have controllers",
			a_parent_that_was_handed_over_can_have_controllers),
		ON_FAKE("controllers are enabled where they can be",
			controllers_are_enabled_where_they_can_be),
		ON_FAKE("a group with processes enables nothing",
			a_group_with_processes_enables_nothing),
		ON_FAKE("what is enabled already is used", what_is_enabled_already_is_used),
		ON_FAKE("what cannot be had is none", what_cannot_be_had_is_none),
		ON_FAKE("a group is bounded, and bounds follow",
			a_group_is_bounded_and_bounds_follow),
		ON_FAKE("a new group is empty", a_new_group_is_empty),
		ON_FAKE("what a group is told", what_a_group_is_told),
		ON_FAKE("usage is read", usage_is_read),
		ON_FAKE("kills for memory are counted", kills_for_memory_are_counted),
	};
	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
