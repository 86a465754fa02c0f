/* The words of a sandbox: what lies over what, and what wins. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "sandbox.h"

static struct sandbox_plan plan;
static struct ap_words words;

static int begin(void **state)
{
	(void)state;
	words = (struct ap_words){NULL, 0, false};
	plan = (struct sandbox_plan){
		.bwrap = "/bin/bwrap", .network = true, .uid = 7, .dir = "/work"};
	ap_words_add(&plan.empties, "/tmp");
	ap_words_add(&plan.empties, "/run");
	return 0;
}

static int end(void **state)
{
	(void)state;
	sandbox_plan_fini(&plan);
	ap_words_fini(&words);
	return 0;
}

static void make(void)
{
	sandbox_words(&plan, &words);
	assert_false(words.failed);
}

/* Where the words stand, one behind the other; -1: nowhere. `second` may be NULL. */
static int place(const char *option, const char *first, const char *second)
{
	for (unsigned i = 0; i + 1 < words.n; i++) {
		bool found =
			strcmp(words.at[i], option) == 0 && strcmp(words.at[i + 1], first) == 0;
		if (found && (!second || (i + 2 < words.n && strcmp(words.at[i + 2], second) == 0)))
			return (int)i;
	}
	return -1;
}

static int bound(const char *option, const char *path)
{
	return place(option, path, path);
}

static bool has(const char *word)
{
	for (unsigned i = 0; i < words.n; i++) {
		if (strcmp(words.at[i], word) == 0)
			return true;
	}
	return false;
}

static void machine_first(void **state)
{
	(void)state;
	make();
	assert_string_equal(words.at[0], "/bin/bwrap");
	int root = bound("--ro-bind", "/");
	assert_true(root > 0);
	assert_true(root < place("--dev", "/dev", NULL));
	assert_true(place("--tmpfs", "/tmp", NULL) > place("--proc", "/proc", NULL));
	assert_true(place("--dir", "/run/user/7", NULL) > place("--tmpfs", "/run", NULL));
	assert_int_equal(place("--chdir", "/work", NULL), words.n - 2);
	assert_false(has("--unshare-net"));
}

static void own_network(void **state)
{
	(void)state;
	plan.network = false;
	make();
	assert_true(has("--unshare-net"));
}

static void reads_where_empty(void **state)
{
	(void)state;
	ap_words_add(&plan.reads, "/usr/bin");
	ap_words_add(&plan.reads, "/tmp/bin");
	ap_words_add(&plan.reads, "/tmpfile");
	make();
	assert_true(bound("--ro-bind", "/tmp/bin") > place("--tmpfs", "/tmp", NULL));
	assert_int_equal(bound("--ro-bind", "/usr/bin"), -1);
	assert_int_equal(bound("--ro-bind", "/tmpfile"), -1);
}

static void hidden_is_not_written(void **state)
{
	(void)state;
	ap_words_add(&plan.hides, "/home/u/.config/gh");
	ap_words_add(&plan.hidden_files, "/home/u/.netrc");
	ap_words_add(&plan.writes, "/home/u/.config");
	ap_words_add(&plan.writes, "/home/u/.config/gh/hosts");
	ap_words_add(&plan.writes, "/home/u/.netrc");
	make();
	int written = bound("--bind", "/home/u/.config");
	assert_true(written > 0);
	assert_true(place("--tmpfs", "/home/u/.config/gh", NULL) > written);
	assert_int_equal(bound("--bind", "/home/u/.config/gh/hosts"), -1);
	assert_int_equal(bound("--bind", "/home/u/.netrc"), -1);
	assert_true(place("--dev-bind", "/dev/null", "/home/u/.netrc") > 0);
}

static void hidden_once(void **state)
{
	(void)state;
	ap_words_add(&plan.hides, "/home/u/s/pool");
	ap_words_add(&plan.hides, "/home/u/s");
	ap_words_add(&plan.hides, "/home/u/s");
	ap_words_add(&plan.hides, "/home/u/s-other");
	ap_words_add(&plan.hidden_files, "/home/u/s/key");
	make();
	assert_true(place("--tmpfs", "/home/u/s", NULL) > 0);
	assert_true(place("--tmpfs", "/home/u/s-other", NULL) > 0);
	assert_int_equal(place("--tmpfs", "/home/u/s/pool", NULL), -1);
	assert_int_equal(place("--dev-bind", "/dev/null", "/home/u/s/key"), -1);
}

static void own_is_back(void **state)
{
	(void)state;
	ap_words_add(&plan.hides, "/s");
	ap_words_add(&plan.keeps, "/s/agents/a");
	ap_words_add(&plan.owns, "/s/worktrees/a");
	ap_words_add(&plan.owns, "/s/agents/a/left");
	make();
	int hidden = place("--tmpfs", "/s", NULL), records = bound("--ro-bind", "/s/agents/a");
	int left = bound("--bind", "/s/agents/a/left"), tree = bound("--bind", "/s/worktrees/a");
	assert_true(hidden > 0 && records > hidden && left > records && tree > hidden);
	assert_true(place("--remount-ro", "/s", NULL) > tree);
}

static void unseen_is_not_hidden(void **state)
{
	(void)state;
	ap_words_add(&plan.hides, "/tmp/x/state");
	make();
	assert_int_equal(place("--tmpfs", "/tmp/x/state", NULL), -1);
}

static void seen_again_is_hidden(void **state)
{
	(void)state;
	ap_words_add(&plan.reads, "/tmp/x");
	ap_words_add(&plan.hides, "/tmp/x/state");
	make();
	assert_true(place("--tmpfs", "/tmp/x/state", NULL) > bound("--ro-bind", "/tmp/x"));
}

static void pool_where_covered(void **state)
{
	(void)state;
	plan.pool = "/tmp/pool";
	make();
	assert_true(bound("--bind", "/tmp/pool") > place("--tmpfs", "/tmp", NULL));
}

static void pool_where_it_is(void **state)
{
	(void)state;
	plan.pool = "/home/u/pool";
	make();
	assert_int_equal(bound("--bind", "/home/u/pool"), -1);
}

static void links_are_followed(void **state)
{
	char dir[] = "/tmp/agentpool-sandbox-XXXXXX", path[64], link[64];
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(link, sizeof link, "%s/link", dir);
	snprintf(path, sizeof path, "%s/nothing", dir);
	assert_int_equal(symlink(dir, link), 0);
	sandbox_hide(&plan, path);
	sandbox_hide(&plan, link);
	sandbox_hide(&plan, "relative");
	sandbox_hide(&plan, "/dev/null");
	assert_int_equal(plan.hides.n, 1);
	assert_string_equal(plan.hides.at[0], dir);
	assert_int_equal(plan.hidden_files.n, 1);
	unlink(link);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define SANDBOX(sentence, function)                                                                \
	{.name = (sentence), .test_func = (function), .setup_func = begin, .teardown_func = end}
		SANDBOX("the machine is there read-only, with /dev, /proc and /tmp of its own",
			machine_first),
		SANDBOX("without the machine's network it has one of its own", own_network),
		SANDBOX("what the program is started from is there also where it would be empty",
			reads_where_empty),
		SANDBOX("what is hidden is not written, whatever the profile lists",
			hidden_is_not_written),
		SANDBOX("what is below something hidden is not hidden again", hidden_once),
		SANDBOX("the agent's own lies over the hidden state directory", own_is_back),
		SANDBOX("what is not seen is not hidden", unseen_is_not_hidden),
		SANDBOX("what is seen because of something above it is hidden",
			seen_again_is_hidden),
		SANDBOX("the pool's mount comes back where it would be empty", pool_where_covered),
		SANDBOX("the pool's mount stays where it is", pool_where_it_is),
		SANDBOX("a link is hidden where it leads, and nothing where nothing is",
			links_are_followed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
