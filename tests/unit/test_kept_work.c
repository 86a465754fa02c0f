/* What leases left: kept over daemons, counted, tidied, and laid over a worktree again. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "kept_work.h"
#include "process.h"
#include "remove.h"

#define DAY (86400 * AP_SECOND)

static char dir[64];
static struct kept_work *kept;
static struct ap_err err;

static int setup(void **state)
{
	strcpy(dir, "/tmp/agentpool-kept-XXXXXX");
	assert_non_null(mkdtemp(dir));
	kept = kept_work_new(dir);
	assert_non_null(kept);
	return 0;
}

static int teardown(void **state)
{
	kept_work_free(kept);
	return remove_tree(dir, NULL, NULL);
}

static const char *at(const char *path)
{
	static char all[4][512];
	static unsigned i;
	i = (i + 1) % 4;
	snprintf(all[i], sizeof all[i], "%s/%s", dir, path);
	return all[i];
}

static void make_dir(const char *path)
{
	assert_int_equal(file_make_dirs(at(path), &err), 0);
}

static void make_file(const char *path, const char *text)
{
	assert_int_equal(file_write(at(path), text, strlen(text), &err), 0);
}

static bool there(const char *path)
{
	struct stat st;
	return lstat(at(path), &st) == 0;
}

static void assert_text(const char *path, const char *expected)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	assert_int_equal(file_read(at(path), O_NOFOLLOW, 1 << 20, &text, &err), 0);
	assert_string_equal(ap_buf_text(&text), expected);
}

static void file_of(const char *path, size_t size)
{
	char *bytes = malloc(size);
	assert_non_null(bytes);
	memset(bytes, 'x', size);
	assert_int_equal(file_write(path, bytes, size, &err), 0);
	free(bytes);
}

static struct kept_info info_of(const char *label, uint64_t token)
{
	struct kept_info info = {.token = token,
				 .ended_ns =
					 ap_clock_to_wall(ap_clock_ns()) / AP_SECOND * AP_SECOND,
				 .agent = "agent-7",
				 .base = "1111",
				 .commit = "2222",
				 .backend = "overlay",
				 .reason = "release"};
	snprintf(info.label, sizeof info.label, "%s", label);
	return info;
}

/* Keeps one with a file of so many bytes, that ended so long ago. */
static void keep(const char *label, uint64_t token, size_t size, int64_t age_ns)
{
	AP_CLEANUP_BUF struct ap_buf to = {0};
	struct kept_info info = info_of(label, token);
	char name[KEPT_NAME_MAX], path[512];
	info.ended_ns -= age_ns;
	assert_int_equal(kept_work_begin(kept, &info, &to, &err), 0);
	snprintf(path, sizeof path, "%s/files", ap_buf_text(&to));
	assert_int_equal(mkdir(path, 0700), 0);
	strcat(path, "/file");
	file_of(path, size);
	kept_work_name(label, token, name);
	kept_work_end(kept, name);
}

static void the_next_daemon(void)
{
	kept_work_free(kept);
	kept = kept_work_new(dir);
	assert_non_null(kept);
}

static unsigned count(void)
{
	struct kept_stats stats;
	kept_work_stats(kept, &stats);
	return stats.n;
}

static bool is_kept(const char *name)
{
	struct kept_info info;
	return kept_work_find(kept, name, &info) == 0;
}

static char removed[512];

static void note(void *data, const struct kept_info *info, const char *why)
{
	size_t len = strlen(removed);
	snprintf(removed + len, sizeof removed - len, "%s %s;", info->name, why);
}

static void tidy(int64_t max_age_ns, int64_t max_size)
{
	removed[0] = '\0';
	assert_int_equal(kept_work_tidy(kept, max_age_ns, max_size, note, NULL, &err), 0);
}

/* --- coming --- */

static void is_taken_up(void **state)
{
	struct kept_info before, after;
	keep("job", 5, 100, 0);
	tidy(DAY, 0);
	assert_int_equal(kept_work_find(kept, "job@5", &before), 0);
	the_next_daemon();
	assert_int_equal(count(), 1);
	assert_int_equal(kept_work_find(kept, "job@5", &after), 0);
	assert_memory_equal(&before, &after, sizeof before);
	assert_string_equal(after.label, "job");
	assert_string_equal(after.commit, "2222");
	assert_string_equal(after.reason, "release");
	assert_true(after.size > 0);
}

static void half_made_is_listed(void **state)
{
	struct kept_info info;
	make_dir("kept/job@5/files");
	make_dir("kept/other@6/files");
	make_file("kept/other@6/info", "label other\nagent agent-3\nba");
	the_next_daemon();
	assert_int_equal(count(), 2);
	assert_int_equal(kept_work_find(kept, "job@5", &info), 0);
	assert_string_equal(info.label, "job");
	assert_int_equal(info.token, 5);
	assert_string_equal(info.agent, "");
	assert_true(info.ended_ns > 0);
	assert_int_equal(kept_work_find(kept, "other@6", &info), 0);
	assert_string_equal(info.agent, "agent-3");
}

static void nothing_moved_goes(void **state)
{
	AP_CLEANUP_BUF struct ap_buf to = {0};
	struct kept_info info = info_of("job", 5);
	assert_int_equal(kept_work_begin(kept, &info, &to, &err), 0);
	assert_false(is_kept("job@5"));
	assert_true(there("kept/job@5/info"));
	the_next_daemon();
	assert_int_equal(count(), 0);
	assert_false(there("kept/job@5"));
	ap_buf_fini(&to);
	assert_int_equal(kept_work_begin(kept, &info, &to, &err), 0);
	kept_work_end(kept, "job@5");
	assert_int_equal(count(), 0);
	assert_false(there("kept/job@5"));
}

static void is_not_kept_twice(void **state)
{
	AP_CLEANUP_BUF struct ap_buf to = {0};
	struct kept_info info = info_of("job", 5);
	keep("job", 5, 100, 0);
	assert_int_equal(kept_work_begin(kept, &info, &to, &err), -EEXIST);
	assert_non_null(strstr(err.text, "kept/job@5"));
	assert_int_equal(to.len, 0);
	assert_true(is_kept("job@5"));
	assert_text("kept/job@5/files/file",
		    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		    "xxxxxxxxxxxxxxxxxxxxxx");
}

static void begun_is_gone_on_with(void **state)
{
	AP_CLEANUP_BUF struct ap_buf to = {0};
	struct kept_info info = info_of("job", 5);
	assert_int_equal(kept_work_begin(kept, &info, &to, &err), 0);
	keep("job", 5, 100, 0);
	assert_true(is_kept("job@5"));
}

static void others_are_left_alone(void **state)
{
	static const char *const names[] = {"job",    "job@", "@5",    "job@x",	 "job@-5",
					    "job@05", "..@5", "a b@5", "job@5@6"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[64];
		snprintf(path, sizeof path, "kept/%s/files", names[i]);
		make_dir(path);
	}
	make_file("kept/file@9", "");
	the_next_daemon();
	assert_int_equal(count(), 0);
	tidy(0, 0);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[64];
		snprintf(path, sizeof path, "kept/%s/files", names[i]);
		assert_true(there(path));
		assert_false(is_kept(names[i]));
	}
}

static void are_gone_through_by_number(void **state)
{
	static const uint64_t tokens[] = {9, 2, 400, 7};
	struct kept_info info;
	for (size_t i = 0; i < 4; i++)
		keep("job", tokens[i], 1, 0);
	unsigned after = 0, n = 0;
	static const unsigned expected[] = {2, 7, 9, 400};
	while (kept_work_next(kept, after, &info) == 0) {
		assert_int_equal(info.number, expected[n++]);
		after = info.number;
		assert_int_equal(kept_work_look(kept, after, &info), 0);
	}
	assert_int_equal(n, 4);
	struct kept_stats stats;
	kept_work_stats(kept, &stats);
	assert_int_equal(stats.max_token, 400);
	assert_int_equal(kept_work_look(kept, 3, &info), -ENOENT);
}

/* --- going --- */

static void the_oldest_go_first(void **state)
{
	struct kept_stats stats;
	keep("new", 1, 64 << 10, 0);
	keep("oldest", 3, 64 << 10, 3 * 3600 * AP_SECOND);
	keep("older", 2, 64 << 10, 2 * 3600 * AP_SECOND);
	tidy(DAY, 100 << 20);
	assert_string_equal(removed, "");
	kept_work_stats(kept, &stats);
	assert_true(stats.bytes >= 3 * (64 << 10) && stats.bytes < 4 * (64 << 10));
	tidy(DAY, stats.bytes - 1);
	assert_string_equal(removed, "oldest@3 size;");
	tidy(DAY, 1);
	assert_string_equal(removed, "older@2 size;new@1 size;");
	kept_work_stats(kept, &stats);
	assert_true(stats.n == 0 && stats.bytes == 0);
	assert_false(there("kept/new@1"));
}

static void what_is_too_old_goes(void **state)
{
	keep("new", 1, 1, 0);
	keep("old", 2, 1, 2 * DAY);
	tidy(DAY, 0);
	assert_string_equal(removed, "old@2 age;");
	assert_true(is_kept("new@1"));
	the_next_daemon();
	tidy(0, 0);
	assert_string_equal(removed, "new@1 age;");
	assert_int_equal(count(), 0);
}

static void what_is_held_stays(void **state)
{
	AP_CLEANUP_BUF struct ap_buf held = {0};
	keep("job", 5, 100, 2 * DAY);
	assert_int_equal(kept_work_hold(kept, "job@5", &held), 0);
	assert_string_equal(ap_buf_text(&held), at("kept/job@5"));
	tidy(DAY, 1);
	assert_string_equal(removed, "");
	kept_work_release(kept, "job@5");
	tidy(DAY, 1);
	assert_string_equal(removed, "job@5 age;");
	assert_int_equal(kept_work_hold(kept, "job@5", &held), -ENOENT);
}

/* Makes directories in one another, and ends in the last. */
static void go_deep(const char *path, unsigned n)
{
	assert_int_equal(chdir(at(path)), 0);
	for (unsigned i = 0; i < n; i++)
		assert_true(mkdir("a-rather-long-name", 0700) == 0 &&
			    chdir("a-rather-long-name") == 0);
}

static void blocks_are_counted(void **state)
{
	struct kept_info info;
	make_dir("kept/job@5/files/shut");
	make_file("kept/job@5/files/shut/file", "text");
	assert_int_equal(chmod(at("kept/job@5/files/shut"), 0), 0);
	make_file("big", "");
	assert_int_equal(truncate(at("big"), 1 << 30), 0); /* a hole */
	assert_int_equal(rename(at("big"), at("kept/job@5/files/big")), 0);
	file_of(at("kept/job@5/files/one"), 1 << 20);
	assert_int_equal(link(at("kept/job@5/files/one"), at("kept/job@5/files/two")), 0);
	assert_int_equal(symlink("/", at("kept/job@5/files/root")), 0);
	assert_int_equal(mkfifo(at("kept/job@5/files/fifo"), 0600), 0);
	go_deep("kept/job@5/files", 300); /* beyond PATH_MAX */
	file_of("bottom", 1 << 20);
	assert_int_equal(chdir("/"), 0);
	the_next_daemon();
	tidy(DAY, 0);
	assert_int_equal(kept_work_find(kept, "job@5", &info), 0);
	assert_true(info.size >= 2 << 20 && info.size < 4 << 20);
	struct stat st;
	assert_int_equal(stat(at("kept/job@5/files/shut"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0);
	assert_int_equal(chmod(at("kept/job@5/files/shut"), 0700), 0); /* for the teardown */
}

/* --- laid again --- */

static int lay(const char *backend, const char *template_files)
{
	struct kept_info info = {.label = "job"};
	snprintf(info.backend, sizeof info.backend, "%s", backend);
	return kept_work_lay(at("kept/job@5"), &info, template_files, at("worktree"), &err);
}

/* What was kept, and a new worktree of what the lease began at. */
static void before_laying(void)
{
	make_dir("kept/job@5/files/sub");
	make_dir("worktree/sub");
	make_dir("worktree/.git");
	make_file("worktree/.git/HEAD", "ours");
	make_file("kept/job@5/files/.git", "an agent's");
	make_file("worktree/sub/same", "same");
	make_file("worktree/sub/gone", "gone");
	make_file("worktree/gone", "gone");
	make_file("worktree/changed", "before");
	make_file("kept/job@5/files/changed", "after");
	make_file("kept/job@5/files/new", "new");
	make_file("kept/job@5/files/sub/new", "new");
	assert_int_equal(chmod(at("kept/job@5/files/new"), 0751), 0);
	assert_int_equal(symlink("/etc/passwd", at("kept/job@5/files/link")), 0);
	assert_int_equal(mkfifo(at("kept/job@5/files/sub/fifo"), 0600), 0);
	make_file("outside", "outside");
	assert_int_equal(symlink(at("outside"), at("kept/job@5/files/sub/to")), 0);
	make_file("worktree/sub/to", "was a file");
}

static void assert_laid(void)
{
	struct stat st;
	assert_text("worktree/.git/HEAD", "ours");
	assert_text("worktree/changed", "after");
	assert_text("worktree/new", "new");
	assert_text("worktree/sub/new", "new");
	assert_text("outside", "outside");
	assert_int_equal(lstat(at("worktree/link"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(lstat(at("worktree/sub/to"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(lstat(at("worktree/sub/fifo"), &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	assert_int_equal(lstat(at("worktree/new"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0751);
	assert_false(there("worktree/gone"));
	assert_false(there("worktree/sub/gone"));
}

static void changed_files_are_laid(void **state)
{
	struct stat st;
	before_laying();
	assert_int_equal(unlink(at("worktree/gone")), 0);
	assert_int_equal(unlink(at("worktree/sub/gone")), 0);
	assert_int_equal(chmod(at("worktree/sub"), 0751), 0);
	assert_int_equal(lay("copy", NULL), 0);
	assert_laid();
	assert_text("worktree/sub/same", "same");
	assert_int_equal(stat(at("worktree/sub"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0751);
}

static void white_out(const char *path)
{
	assert_int_equal(mknod(at(path), S_IFCHR, makedev(0, 0)), 0);
}

static void mark(const char *path, const char *what, const char *value)
{
	char key[64];
	snprintf(key, sizeof key, "%s.overlay.%s", geteuid() == 0 ? "trusted" : "user", what);
	assert_int_equal(setxattr(at(path), key, value, strlen(value), 0), 0);
}

static void upper_layer_is_laid(void **state)
{
	before_laying();
	white_out("kept/job@5/files/gone");
	white_out("kept/job@5/files/sub/gone");
	assert_int_equal(lay("overlay", NULL), 0);
	assert_laid();
	assert_text("worktree/sub/same", "same");
}

static void opaque_is_new(void **state)
{
	make_dir("kept/job@5/files/sub");
	make_file("kept/job@5/files/sub/new", "new");
	mark("kept/job@5/files/sub", "opaque", "y");
	make_dir("worktree/sub/below");
	make_file("worktree/sub/below/old", "old");
	assert_int_equal(lay("overlay", NULL), 0);
	assert_text("worktree/sub/new", "new");
	assert_false(there("worktree/sub/below"));
}

static void renamed_is_from_the_template(void **state)
{
	make_dir("template/old/below");
	make_file("template/old/below/file", "file");
	make_dir("kept/job@5/files/moved");
	make_file("kept/job@5/files/moved/new", "new");
	mark("kept/job@5/files/moved", "redirect", "/old");
	make_dir("worktree");
	assert_int_equal(lay("overlay", NULL), -ENOMEDIUM);
	assert_non_null(strstr(err.text, "moved was old"));
	assert_int_equal(lay("overlay", at("template")), 0);
	assert_text("worktree/moved/below/file", "file");
	assert_text("worktree/moved/new", "new");
}

/* Who can set the mark says what he likes. */
static void renamed_leads_nowhere_else(void **state)
{
	make_dir("template/real");
	make_dir("elsewhere");
	make_file("elsewhere/secret", "secret");
	assert_int_equal(symlink(at("elsewhere"), at("template/link")), 0);
	make_dir("kept/job@5/files/one");
	make_dir("kept/job@5/files/two");
	mark("kept/job@5/files/one", "redirect", "/link");
	mark("kept/job@5/files/two", "redirect", "/../elsewhere");
	make_dir("worktree");
	assert_int_equal(lay("overlay", at("template")), 0);
	assert_false(there("worktree/one/secret"));
	assert_false(there("worktree/two/secret"));
}

static void deep_is_laid(void **state)
{
	make_dir("kept/job@5/files");
	make_dir("worktree");
	go_deep("kept/job@5/files", 300);
	FILE *file = fopen("bottom", "we");
	assert_true(file && fputs("deep", file) >= 0 && fclose(file) == 0);
	assert_int_equal(lay("copy", NULL), 0);
	assert_int_equal(chdir(at("worktree")), 0);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(chdir("a-rather-long-name"), 0);
	assert_int_equal(access("bottom", R_OK), 0);
	assert_int_equal(chdir("/"), 0);
}

#define KEPT_TEST(sentence, function)                                                              \
	{                                                                                          \
		(sentence), (function), setup, teardown, NULL                                      \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEPT_TEST("what was kept is there for the next daemon", is_taken_up),
		KEPT_TEST("one of which little is known is kept and listed", half_made_is_listed),
		KEPT_TEST("one to which nothing was moved goes", nothing_moved_goes),
		KEPT_TEST("nothing is kept twice under one name", is_not_kept_twice),
		KEPT_TEST("one that was begun is gone on with", begun_is_gone_on_with),
		KEPT_TEST("what has no name of ours is left alone", others_are_left_alone),
		KEPT_TEST("they are gone through by number", are_gone_through_by_number),
		KEPT_TEST("beyond the size the oldest go first", the_oldest_go_first),
		KEPT_TEST("what is too old goes, and all of it when nothing is to be kept",
			  what_is_too_old_goes),
		KEPT_TEST("what is held stays", what_is_held_stays),
		KEPT_TEST("blocks are counted once, behind no link and however deep",
			  blocks_are_counted),
		KEPT_TEST("changed files are laid, and what is beside them stays",
			  changed_files_are_laid),
		KEPT_TEST("an upper layer is laid, with what had gone", upper_layer_is_laid),
		KEPT_TEST("an opaque directory has nothing else in it", opaque_is_new),
		KEPT_TEST("a renamed directory is filled from the template",
			  renamed_is_from_the_template),
		KEPT_TEST("a renamed directory is from nowhere else", renamed_leads_nowhere_else),
		KEPT_TEST("paths beyond PATH_MAX are laid", deep_is_laid),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
