/* git.h by libgit2 and by the git program: every test on both, and on a repository of sha256, which
 * the program alone can open. What is expected is what the git program itself says. */
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "git.h"
#include "remove.h"

enum kind { LIBGIT2, PROGRAM, SHA256, N_KINDS };

static enum kind kind;
static char git_dir[128], rules[128], objects[128];
static struct ap_git *git;

/* The object that a revision names, by the git program. */
static void ask(char ret[GIT_OID_MAX + 1], const char *revision)
{
	char script[160];
	snprintf(script, sizeof script, "git rev-parse '%s'", revision);
	char *printed = shell(script);
	assert_true(strlen(printed) <= GIT_OID_MAX);
	strcpy(ret, printed);
	free(printed);
}

/* Opens the repository anew. */
static void reopen(const struct ap_git_place *more)
{
	struct ap_git_place place = *more;
	place.git_dir = place.common_dir = git_dir;
	place.by_program = kind != LIBGIT2;
	ap_git_close(git);
	git = NULL;
	must(ap_git_open(&git, &place, &err));
	assert_string_equal(ap_git_kind(git), kind == LIBGIT2 ? "libgit2" : "program");
}

static int setup(enum kind of)
{
	kind = of;
	make_dir();
	snprintf(git_dir, sizeof git_dir, "%s/.git", dir);
	snprintf(rules, sizeof rules, "%s/rules", dir);
	snprintf(objects, sizeof objects, "%s/objects", dir);
	RUN(of == SHA256 ? "git init -q -b main --object-format=sha256" : "git init -q -b main");
	RUN("git config user.name u && git config user.email u@e && mkdir rules objects d && "
	    "echo 1 > a && echo 2 > d/b && ln -s a link && chmod +x d/b && git add a d link && "
	    "git commit -qm first && echo 3 > a && git commit -qam second");
	reopen(&(struct ap_git_place){0});
	return 0;
}

static int setup_libgit2(void **state)
{
	return setup(LIBGIT2);
}

static int setup_program(void **state)
{
	return setup(PROGRAM);
}

static int setup_sha256(void **state)
{
	return setup(SHA256);
}

static int teardown(void **state)
{
	ap_git_close(git);
	git = NULL;
	return remove_tree(dir, NULL, &err);
}

/* --- revisions and refs --- */

static void resolves(void **state)
{
	static const char *const revisions[] = {
		"HEAD",	    "main",	   "HEAD~1",	 "refs/heads/main",
		"v1",	    "v1^{commit}", "@",		 "HEAD^{/first}",
		"main@{0}", ":/first",	   "a-good-one", "a-good-one~1"};
	RUN("git tag -a v1 -m v HEAD~1; git branch a-good-one");
	for (size_t i = 0; i < sizeof revisions / sizeof *revisions; i++) {
		char oid[GIT_OID_MAX + 1], script[128];
		snprintf(script, sizeof script, "git rev-list -1 '%s'", revisions[i]);
		assert_int_equal(ap_git_resolve(git, revisions[i], oid, &err), 0);
		assert_shell(script, oid);
	}
	char oid[GIT_OID_MAX + 1], abbreviated[12];
	must(ap_git_resolve(git, "HEAD", oid, &err));
	snprintf(abbreviated, sizeof abbreviated, "%.9s", oid);
	assert_int_equal(ap_git_resolve(git, abbreviated, oid, &err), 0);
	assert_shell("git rev-parse HEAD", oid);
}

static void what_names_no_commit(void **state)
{
	static const char *const revisions[] = {
		"nothing",   "HEAD:a",	"refs/heads/nothing", "--all",	      "HEAD\nmain",
		"",	     "HEAD~99", "refs/heads/..",      "v1-0-gabcdef", "HEAD^{/no such}",
		":/no such", "@{-3}"};
	for (size_t i = 0; i < sizeof revisions / sizeof *revisions; i++) {
		char oid[GIT_OID_MAX + 1];
		assert_int_equal(ap_git_resolve(git, revisions[i], oid, &err), 1);
	}
}

static void sees_what_others_do(void **state)
{
	char before[GIT_OID_MAX + 1], after[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "main", before, &err));
	RUN("git commit -q --allow-empty -m third");
	must(ap_git_resolve(git, "main", after, &err));
	assert_string_not_equal(before, after);
	RUN("git gc -q --prune=now && git pack-refs --all");
	must(ap_git_resolve(git, "main", after, &err));
	assert_shell("git rev-parse main", after);
	RUN("git branch other && git pack-refs --all");
	must(ap_git_resolve(git, "refs/heads/other", after, &err));
}

static void sets_refs(void **state)
{
	char head[GIT_OID_MAX + 1], first[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_resolve(git, "HEAD~1", first, &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/x", first, "", "made", &err));
	assert_shell("git rev-parse refs/heads/agentpool/x", first);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/x", head, "", "made", &err),
			 -ESTALE);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/x", head, head, "moved", &err),
			 -ESTALE);
	assert_shell("git rev-parse refs/heads/agentpool/x", first);
	must(ap_git_set_ref(git, "refs/heads/agentpool/x", head, first, "moved", &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/x", first, NULL, "back", &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/x", first, first, "same", &err));
	assert_shell("git rev-parse refs/heads/agentpool/x", first);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/y", head, first, "gone", &err),
			 -ESTALE);
	assert_shell("git log -g --format='%gs %gn %ge' agentpool/x | head -n3",
		     "back u u@e\nmoved u u@e\nmade u u@e");
	assert_shell("git for-each-ref refs/heads/agentpool --format='%(refname)'",
		     "refs/heads/agentpool/x");
}

static void packed_refs_are_moved_and_removed(void **state)
{
	char head[GIT_OID_MAX + 1], first[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_resolve(git, "HEAD~1", first, &err));
	RUN("git branch agentpool/x && git branch agentpool/y && git tag -a -m t t && "
	    "git pack-refs --all");
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/x", first, "", "w", &err),
			 -ESTALE);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/x", first, first, "w", &err),
			 -ESTALE);
	must(ap_git_set_ref(git, "refs/heads/agentpool/x", first, head, "w", &err));
	assert_int_equal(ap_git_remove_ref(git, "refs/heads/agentpool/y", first, &err), -ESTALE);
	must(ap_git_remove_ref(git, "refs/heads/agentpool/y", head, &err));
	assert_int_equal(ap_git_remove_ref(git, "refs/heads/agentpool/x", head, &err), -ESTALE);
	must(ap_git_remove_ref(git, "refs/heads/agentpool/x", NULL, &err));
	must(ap_git_remove_ref(git, "refs/heads/agentpool/x", NULL, &err));
	assert_int_equal(ap_git_remove_ref(git, "refs/heads/agentpool/x", head, &err), -ESTALE);
	assert_shell("git for-each-ref --format='%(refname)'", "refs/heads/main\nrefs/tags/t");
	assert_shell("ls -R .git/logs | grep -c agentpool || true", "0");
	assert_shell("git fsck 2>&1", "");
}

static void names_in_the_way(void **state)
{
	char head[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/a", head, "", "w", &err));
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/a/b", head, "", "w", &err),
			 -EEXIST);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/a/b", head, NULL, "w", &err),
			 -EEXIST);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool", head, "", "w", &err), -EEXIST);
	RUN("git pack-refs --all");
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/a/b", head, "", "w", &err),
			 -EEXIST);
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool", head, NULL, "w", &err),
			 -EEXIST);
	must(ap_git_remove_ref(git, "refs/heads/agentpool/a", NULL, &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/a/b", head, "", "w", &err));
	must(ap_git_remove_ref(git, "refs/heads/agentpool/a/b", NULL, &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/a", head, "", "w", &err));
}

static void a_lock_is_busy(void **state)
{
	char head[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_set_ref(git, "refs/heads/agentpool/a", head, "", "w", &err));
	RUN("touch .git/refs/heads/agentpool/a.lock");
	assert_int_equal(ap_git_set_ref(git, "refs/heads/agentpool/a", head, NULL, "w", &err),
			 -EBUSY);
	assert_int_equal(ap_git_remove_ref(git, "refs/heads/agentpool/a", head, &err), -EBUSY);
	RUN("rm .git/refs/heads/agentpool/a.lock");
	must(ap_git_set_ref(git, "refs/heads/agentpool/a", head, NULL, "w", &err));
}

static void logs_are_as_configured_but_of_our_own(void **state)
{
	char head[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "HEAD", head, &err));
	RUN("git config core.logAllRefUpdates false");
	reopen(&(struct ap_git_place){.rules = rules});
	must(ap_git_set_ref(git, "refs/heads/agentpool/x", head, "", "w", &err));
	must(ap_git_set_ref(git, "refs/agentpool/x", head, "", "for us", &err));
	assert_shell("ls .git/logs/refs/heads", "main");
	assert_shell("git log -g --format=%gs refs/agentpool/x", "for us");
	RUN("git config --unset core.logAllRefUpdates; git config core.bare true");
	reopen(&(struct ap_git_place){.rules = rules});
	must(ap_git_set_ref(git, "refs/heads/agentpool/y", head, "", "w", &err));
	assert_shell("ls .git/logs/refs/heads", "main");
}

static void no_hook_runs(void **state)
{
	char head[GIT_OID_MAX + 1];
	RUN("printf '#!/bin/sh\\ntouch %s/ran\\n' \"$PWD\" > .git/hooks/reference-transaction && "
	    "chmod +x .git/hooks/reference-transaction");
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_set_ref(git, "refs/agentpool/x", head, "", "w", &err));
	must(ap_git_remove_ref(git, "refs/agentpool/x", head, &err));
	assert_shell("ls ran 2>/dev/null || true", "");
}

struct seen {
	struct ap_buf text;
	unsigned n, stop_at;
};

static int note_ref(void *data, const char *ref, const char *oid)
{
	struct seen *seen = data;
	ap_buf_printf(&seen->text, "%s %s\n", oid, ref);
	return ++seen->n == seen->stop_at ? 7 : 0;
}

static int forget_ref(void *data, const char *ref, const char *oid)
{
	return ap_git_remove_ref(git, ref, oid, &err);
}

static void lists_refs(void **state)
{
	struct seen seen = {.stop_at = 0};
	RUN("git update-ref refs/agentpool/b HEAD && git update-ref refs/agentpool/a HEAD~1 && "
	    "git update-ref refs/agentpoolish HEAD && git pack-refs --all && "
	    "git update-ref refs/agentpool/c/d HEAD~1 && "
	    "git symbolic-ref refs/agentpool/s refs/heads/main && "
	    "git symbolic-ref refs/agentpool/broken refs/heads/nothing");
	must(ap_git_each_ref(git, "refs/agentpool/", note_ref, &seen, &err));
	seen.text.data[seen.text.len - 1] = '\0';
	assert_shell("git for-each-ref --format='%(objectname) %(refname)' refs/agentpool/",
		     seen.text.data);
	assert_int_equal(seen.n, 4);
	seen.n = 0;
	seen.stop_at = 2;
	assert_int_equal(ap_git_each_ref(git, "refs/agentpool/", note_ref, &seen, &err), 7);
	assert_int_equal(seen.n, 2);
	seen.n = seen.stop_at = 0;
	must(ap_git_each_ref(git, "refs/agentpool/", forget_ref, NULL, &err));
	must(ap_git_each_ref(git, "refs/agentpool/", note_ref, &seen, &err));
	assert_int_equal(seen.n, 0);
	must(ap_git_each_ref(git, "refs/agentp", note_ref, &seen, &err));
	assert_int_equal(seen.n, 1);
	ap_buf_fini(&seen.text);
}

/* --- objects --- */

static void reads_trees(void **state)
{
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
	char head[GIT_OID_MAX + 1], top[GIT_OID_MAX + 1];
	struct ap_buf text = {0};
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_tree_of(git, head, top, &err));
	assert_shell("git rev-parse HEAD^{tree}", top);
	must(ap_git_read_tree(git, head, &tree, &err));
	for (size_t i = 0; i < tree.n; i++)
		ap_buf_printf(&text, "%s%06o %s %s", i ? "\n" : "", tree.entries[i].mode,
			      tree.entries[i].oid, tree.entries[i].name);
	assert_shell("git ls-tree --format='%(objectmode) %(objectname) %(path)' HEAD", text.data);
	ap_buf_fini(&text);
	char blob[GIT_OID_MAX + 1];
	strcpy(blob, ap_git_tree_find(&tree, "a")->oid);
	must(ap_git_read_blob(git, blob, 2, &text, &err));
	assert_string_equal(text.data, "3\n");
	assert_int_equal(ap_git_read_blob(git, blob, 1, &text, &err), -EFBIG);
	ap_buf_fini(&text);
	assert_null(ap_git_tree_find(&tree, "b"));
	struct ap_git_tree none = {0};
	assert_int_equal(ap_git_read_tree(git, blob, &none, &err), -EINVAL);
	memset(blob, '1', strlen(blob));
	assert_int_equal(ap_git_read_tree(git, blob, &none, &err), -ENOENT);
	assert_int_equal(ap_git_read_blob(git, blob, 9, &text, &err), -ENOENT);
	assert_int_equal(ap_git_tree_of(git, blob, top, &err), -ENOENT);
	assert_false(ap_git_has_commit(git, blob));
	assert_false(ap_git_has_commit(git, tree.entries[0].oid));
	assert_true(ap_git_has_commit(git, head));
}

static void writes_trees(void **state)
{
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
	char oid[GIT_OID_MAX + 1], blob[GIT_OID_MAX + 1], other[GIT_OID_MAX + 1];
	must(ap_git_write_tree(git, &tree, oid, &err));
	assert_shell("git mktree </dev/null", oid);
	must(ap_git_write_blob(git, "x\0y", 3, blob, &err));
	assert_shell("printf 'x\\0y' | git hash-object --stdin", blob);
	assert_shell("git cat-file --batch-all-objects --batch-check | grep -c ' blob 3$'", "1");
	assert_int_equal(ap_git_read_tree(git, "0", &tree, NULL), -ENOENT);
	/* a tree counts with a slash at its end: a.b, a/, a0 */
	static const char *const names[] = {"a0", "a", "a.b", "z\nz", "\xff", "-", "a b", "B"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		must(ap_git_tree_set(&tree, names[i], 0100644, blob));
	must(ap_git_tree_set(&tree, "a", 0040000, oid));
	memset(other, 'e', strlen(blob));
	other[strlen(blob)] = '\0';
	must(ap_git_tree_set(&tree, "module", 0160000, other));
	must(ap_git_tree_set(&tree, "gone", 0100755, blob));
	ap_git_tree_remove(&tree, "gone");
	ap_git_tree_remove(&tree, "never");
	must(ap_git_tree_set(&tree, "l", 0120000, blob));
	must(ap_git_tree_set(&tree, "B", 0100755, blob));
	must(ap_git_write_tree(git, &tree, oid, &err));
	char script[512];
	snprintf(script, sizeof script, "git ls-tree -z %s | git mktree -z --missing", oid);
	assert_shell(script, oid);
	snprintf(script, sizeof script,
		 "git ls-tree -z %s | tr '\\n\\0' ' \\n' | cut -c1-6,8-11 | tr '\\n' ' '", oid);
	assert_shell(script, "100644blob 100755blob 100644blob 100644blob 040000tree 100644blob "
			     "120000blob 160000comm 100644blob 100644blob ");
}

static void names_that_git_does_not_take(void **state)
{
	static const char *const bad[] = {"",	     ".",	"..",	  ".git",  ".GIT",
					  "a/b",     ".git ",	"git~1",  "GIT~1", ".git::$INDEX",
					  "x\\.git", ".git\\x", ".git..."};
	static const char *const good[] = {".gitignore", "git",		".git2",  "x\\y",  "con",
					   "a:b",	 ".gitmodules", "GIT~10", "x\\git"};
	char blob[GIT_OID_MAX + 1], oid[GIT_OID_MAX + 1];
	must(ap_git_write_blob(git, "", 0, blob, &err));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
		must(ap_git_tree_set(&tree, bad[i], 0100644, blob));
		if (ap_git_write_tree(git, &tree, oid, &err) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	}
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
		must(ap_git_tree_set(&tree, good[i], 0100644, blob));
		must(ap_git_write_tree(git, &tree, oid, &err));
	}
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
	must(ap_git_tree_set(&tree, ".gitmodules", 0120000, blob));
	assert_int_equal(ap_git_write_tree(git, &tree, oid, &err), -EINVAL);
}

static void a_tree_stays_in_order(void **state)
{
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
	char oid[GIT_OID_MAX + 1], name[16];
	must(ap_git_resolve(git, "HEAD", oid, &err));
	srand(1);
	for (unsigned i = 0; i < 5000; i++) {
		unsigned mode = rand() % 3 ? 0100644 : 0040000;
		snprintf(name, sizeof name, "%x%s", (unsigned)rand() % 256, rand() % 2 ? "." : "");
		if (rand() % 3 == 0)
			ap_git_tree_remove(&tree, name);
		else
			must(ap_git_tree_set(&tree, name, mode, oid));
		struct ap_git_entry *entry = ap_git_tree_find(&tree, name);
		assert_true(!entry || entry->mode == mode);
		for (size_t k = 1; k < tree.n; k++) {
			assert_true(ap_git_compare_entries(&tree.entries[k - 1], &tree.entries[k]) <
				    0);
			assert_string_not_equal(tree.entries[k - 1].name, tree.entries[k].name);
		}
	}
}

static void writes_commits(void **state)
{
	char tree[GIT_OID_MAX + 1], head[GIT_OID_MAX + 1], oid[GIT_OID_MAX + 1];
	must(ap_git_resolve(git, "HEAD", head, &err));
	must(ap_git_tree_of(git, head, tree, &err));
	must(ap_git_write_commit(git, tree, (const char *const[]){head, NULL},
				 "subject\n\n# body é", oid, &err));
	must(ap_git_set_ref(git, "refs/heads/x", oid, "", "w", &err));
	assert_shell("git log -1 --format='%an %ae %cn %ce|%B|' x",
		     "u u@e u u@e|subject\n\n# body é\n|");
	assert_shell("git rev-parse x^", head);
	assert_shell("git rev-parse x^{tree}", tree);
	assert_shell("git fsck --strict 2>&1", "");
}

/* --- rules, and what they make of files --- */

static void put(const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void ignores_what_git_ignores(void **state)
{
	static const char *const dirs[] = {"d", "build", "sub", "sub/build", "sub/d", "keep", "x"};
	static const char *const files[] = {"a.o",	 "keep.o",   "sub/keep.o",  "sub/a.o",
					    "d/x",	 "build/x",  "sub/build/x", "sub/deep/x.o",
					    "sub/d/x",	 "excluded", "sub/x/y/z.c", "x/build",
					    ":colon",	 "-dash",    "sp ace ",	    "tab\tx",
					    "new\nline", "é",	     "sub/keep.log"};
	reopen(&(struct ap_git_place){.rules = rules});
	RUN("mkdir -p rules/sub/d && echo excluded > .git/info/exclude");
	put("rules/.gitignore", "*.o\n!keep.o\nbuild/\n/x/**/build\n\\!d\n*.log\nsub/**/z.c\n");
	put("rules/sub/.gitignore", "!*.o\n!keep.log\nd\r\n# d\n");
	put("rules/sub/d/.gitignore", "!x\n");
	for (unsigned i = 0; i < 7 + 19; i++) {
		bool is_dir = i < 7;
		const char *path = is_dir ? dirs[i] : files[i - 7];
		char script[512];
		snprintf(script, sizeof script,
			 "cp -a rules tree && cd tree && mkdir -p \"$(dirname './%s')\" && "
			 "%s './%s' && (git -C . --git-dir=../.git --work-tree=. check-ignore -q "
			 "--no-index './%s' && echo 1 || echo 0); cd .. && rm -r tree",
			 path, is_dir ? "mkdir -p" : "touch", path, path);
		int r = ap_git_is_ignored(git, path, is_dir, &err);
		char *expected = shell(script);
		if (r < 0 || r != atoi(expected))
			fail_msg("%s: %d, not %s", path, r, expected);
		free(expected);
	}
	assert_shell("cd rules && find . | sort", ".\n./.gitignore\n./sub\n./sub/.gitignore\n"
						  "./sub/d\n./sub/d/.gitignore");
}

/* What nobody would wait for. */
static void a_pattern_takes_no_time(void **state)
{
	char path[2048] = "";
	if (kind != LIBGIT2) /* git itself takes it */
		return;
	reopen(&(struct ap_git_place){.rules = rules});
	put("rules/.gitignore", "/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/b\n"
				"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\nlast\n");
	for (unsigned i = 0; i < 500; i++)
		strcat(path, "a/");
	strcat(path, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	assert_int_equal(ap_git_is_ignored(git, path, false, &err), 0);
	strcat(path, "/last");
	assert_int_equal(ap_git_is_ignored(git, path, false, &err), 1);
}

/* What HEAD tracks. */
static void tracked_at(void *data, const char *path, char ret[GIT_OID_MAX + 1])
{
	char command[512];
	snprintf(command, sizeof command, "git rev-parse --verify -q 'HEAD:%s' || true", path);
	char *oid = shell(command);
	snprintf(ret, GIT_OID_MAX + 1, "%s", oid);
	free(oid);
}

static const struct ap_git_tracked tracked = {.at = tracked_at};

/* Writes a file as the rules have it at a path, and asks git to do the same. */
static void assert_written(const char *path, const char *script)
{
	char oid[GIT_OID_MAX + 1], file[160], command[512];
	snprintf(file, sizeof file, "%s/file", dir);
	RUN(script);
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	must(ap_git_write_file(git, fd, path, &tracked, oid, &err));
	close(fd);
	snprintf(command, sizeof command,
		 "cp -a rules tree && rm -f .git/tmp-index && export "
		 "GIT_INDEX_FILE=$PWD/.git/tmp-index && "
		 "git read-tree HEAD && cd tree && mkdir -p \"$(dirname './%s')\" && cp ../file "
		 "'./%s' "
		 "&& "
		 "git -c core.safecrlf=false --git-dir=../.git --work-tree=. add -f './%s' && "
		 "git --git-dir=../.git ls-files -s -- './%s' | cut -d' ' -f2; cd .. && rm -r tree",
		 path, path, path, path);
	assert_shell(command, oid);
	snprintf(command, sizeof command, "git cat-file -e %s", oid);
	RUN(command);
}

/* Files of all kinds at paths of all kinds, at once: a process for each would take too long. */
static void writes_files_as_git_would(void **state)
{
	static const char *const settings[] = {"false", "input", "true"};
	static const char *const suffixes[] = {"auto", "bin", "both", "c",
					       "id",   "lf",  "none", "txt"};
	put("rules/.gitattributes", "*.txt text\n*.auto text=auto\n*.bin -text\n*.id ident\n"
				    "*.lf eol=lf\n*.both text ident\n*.none !text\n");
	RUN("mkdir in && cd in && printf 'a\\r\\nb\\n' > 0 && printf 'a\\r\\nb\\r' > 1 && "
	    "printf 'a\\0\\r\\n' > 2 && : > 3 && "
	    "printf '$Id: x y $ $Id$ $Id: a\\r\\n$ $Id:$' > 4 && "
	    "(yes line | head -c 3000000; printf '\\r\\n\\r\\r\\n$Id: z $') > 5 && "
	    "(head -c 65535 /dev/zero | tr '\\0' x; printf '\\r\\n'; yes a | head -c 1500000) > 6");
	for (unsigned i = 0; i < 3; i++) {
		AP_CLEANUP_BUF struct ap_buf text = {0};
		char path[200], oid[GIT_OID_MAX + 1], script[64];
		snprintf(script, sizeof script, "git config core.autocrlf %s", settings[i]);
		RUN(script);
		reopen(&(struct ap_git_place){.rules = rules});
		for (unsigned c = 0; c < 7; c++) {
			snprintf(path, sizeof path, "%s/in/%u", dir, c);
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			assert_true(fd >= 0);
			for (unsigned k = 0; k < 8; k++) {
				snprintf(path, sizeof path, "x/%u.%s", c, suffixes[k]);
				must(ap_git_write_file(git, fd, path, NULL, oid, &err));
				ap_buf_printf(&text, "%s%s %s", text.len ? "\n" : "", oid, path);
			}
			close(fd);
		}
		assert_shell(
			"export GIT_INDEX_FILE=$PWD/.git/tmp-index && rm -f .git/tmp-index && "
			"cp -a rules tree && mkdir tree/x && for i in in/*; do for s in auto bin "
			"both c id lf none txt; do cp $i tree/x/${i#in/}.$s; done; done && "
			"cd tree && git --git-dir=../.git --work-tree=. add x 2>/dev/null && "
			"git --git-dir=../.git ls-files -s x | cut -d' ' -f2,3 | sed 's/ 0\\t/ /'; "
			"rm -r ../tree",
			text.data);
	}
}

static void tracked_line_ends_stay(void **state)
{
	RUN("mkdir -p deep/er && printf 'a\\r\\nb\\r\\n' | tee crlf.auto deep/er/crlf.auto > "
	    "bin.auto && "
	    "printf 'a\\r\\n\\0' > bin.auto && git -c core.safecrlf=false add . && git commit -qm "
	    "crlf");
	put("rules/.gitattributes", "*.auto text=auto\n*.txt text\n");
	reopen(&(struct ap_git_place){.rules = rules});
	static const char *const paths[] = {"crlf.auto", "deep/er/crlf.auto", "deep/crlf.auto",
					    "bin.auto",	 "a/b.auto",	      "crlf.txt",
					    "a.auto"};
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++)
		assert_written(paths[i], "printf 'x\\r\\ny\\r\\n' > file");
}

static void filters_of_the_repository_run(void **state)
{
	char oid[GIT_OID_MAX + 1], file[160];
	put("rules/.gitattributes",
	    "*.f filter=upper\n*.undefined filter=nobody\n*.r filter=fails\n"
	    "*.o filter=optional\n*.utf16 text working-tree-encoding=UTF-16LE\n"
	    "*.bad working-tree-encoding=nonsense\n.gitattributes filter=upper\n");
	RUN("git config filter.upper.clean 'tr a-z A-Z' && git config filter.fails.clean "
	    "'echo no luck >&2; exit 3' && git config filter.fails.required true && "
	    "git config filter.optional.clean false");
	reopen(&(struct ap_git_place){.rules = rules});
	assert_written("x.f", "echo hello > file");
	assert_written("deep/er/\"odd\" name\t.f", "echo again > file");
	assert_written(":x.f", "echo colon > file");
	assert_written("-x.f", "echo dash > file");
	assert_written("x.undefined", "echo hello > file");
	assert_written("x.o", "echo hello > file");
	assert_written("x.utf16", "printf 'h\\0i\\0\\r\\0\\n\\0' > file");
	assert_written("x.f", "head -c 3000000 /dev/zero | tr '\\0' x > file");
	assert_shell("ls -A rules", ".gitattributes");
	snprintf(file, sizeof file, "%s/file", dir);
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_int_equal(ap_git_write_file(git, fd, "x.r", NULL, oid, &err), -EIO);
	assert_non_null(strstr(err.text, "no luck"));
	/* an encoding that is none: the file is kept as it is */
	must(ap_git_write_file(git, fd, "x.bad", NULL, oid, &err));
	assert_shell("git hash-object --no-filters file", oid);
	/* rules that are a file to be filtered themselves */
	must(ap_git_write_file(git, fd, ".gitattributes", NULL, oid, &err));
	assert_shell("tr a-z A-Z < file | git hash-object --stdin", oid);
	must(ap_git_write_file(git, fd, NULL, NULL, oid, &err));
	assert_shell("git hash-object --no-filters file", oid);
	close(fd);
}

/* A store that takes new objects, and one that is read beside the repository's. */
static void objects_go_where_they_are_to(void **state)
{
	char oid[GIT_OID_MAX + 1], other[GIT_OID_MAX + 1], head[GIT_OID_MAX + 1], script[256];
	char borrowed[160];
	snprintf(borrowed, sizeof borrowed, "%s/borrow: \"ed", dir);
	RUN("mkdir 'borrow: \"ed' && echo lent | GIT_OBJECT_DIRECTORY=$PWD/'borrow: \"ed' "
	    "git hash-object -w --stdin > lent");
	char *lent = shell("cat lent");
	strcpy(other, lent);
	free(lent);
	ask(head, "HEAD");
	put("rules/.gitattributes", "*.f filter=upper\n");
	RUN("git config filter.upper.clean 'tr a-z A-Z' && find .git/objects -type f | sort > "
	    "before");
	reopen(&(struct ap_git_place){.rules = rules,
				      .objects = objects,
				      .borrowed = (const char *const[]){borrowed, NULL}});
	AP_CLEANUP_BUF struct ap_buf text = {0};
	must(ap_git_read_blob(git, other, 100, &text, &err));
	assert_string_equal(text.data, "lent\n");
	must(ap_git_write_blob(git, "new", 3, oid, &err));
	RUN("echo hello > file");
	snprintf(script, sizeof script, "%s/file", dir);
	int fd = open(script, O_RDONLY | O_CLOEXEC);
	must(ap_git_write_file(git, fd, "x.f", NULL, oid, &err));
	snprintf(script, sizeof script, "GIT_OBJECT_DIRECTORY=$PWD/objects git cat-file blob %s",
		 oid);
	assert_shell(script, "HELLO");
	RUN("yes | head -c 3000000 > file");
	must(ap_git_write_file(git, fd, "x", NULL, oid, &err));
	close(fd);
	AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
	must(ap_git_read_tree(git, head, &tree, &err));
	must(ap_git_tree_set(&tree, "lent", 0100644, other));
	must(ap_git_tree_set(&tree, "new", 0100644, oid));
	must(ap_git_write_tree(git, &tree, oid, &err));
	must(ap_git_write_commit(git, oid, (const char *const[]){head, NULL}, "m", oid, &err));
	assert_true(ap_git_has_commit(git, oid));
	assert_int_equal(ap_git_is_ancestor(git, head, oid, &err), 1);
	assert_int_equal(ap_git_is_ancestor(git, oid, head, &err), 0);
	assert_shell("find .git/objects -type f | sort | diff before -", "");
}

static void objects_without_compression_are_read(void **state)
{
	char oid[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf text = {0};
	RUN("git config core.compression 0 && echo plain > plain && git add . && git commit -qm 0");
	reopen(&(struct ap_git_place){0});
	ask(oid, "HEAD");
	assert_true(ap_git_has_commit(git, oid));
	ask(oid, "HEAD:plain");
	must(ap_git_read_blob(git, oid, 100, &text, &err));
	assert_string_equal(text.data, "plain\n");
}

/* --- what differs --- */

static int note_change(void *data, const char *path, const struct ap_git_entry *old,
		       const struct ap_git_entry *new)
{
	struct seen *seen = data;
	ap_buf_printf(&seen->text, "%s:%06o %06o %.8s %.8s %s", seen->n ? "\n" : "",
		      old ? old->mode : 0, new ? new->mode : 0, old ? old->oid : "00000000",
		      new ? new->oid : "00000000", path);
	return ++seen->n == seen->stop_at ? 7 : 0;
}

static void tells_what_differs(void **state)
{
	struct seen seen = {.stop_at = 0};
	char old[GIT_OID_MAX + 1], new[GIT_OID_MAX + 1];
	RUN("mkdir -p same/er x y/z && echo 1 | tee same/er/f x/1 x/2 y/z/f y.b mode >/dev/null && "
	    "git add . && git commit -qm old");
	must(ap_git_resolve(git, "HEAD", old, &err));
	RUN("git rm -qr x y mode && echo file > x && mkdir -p y mode/d && echo 2 | "
	    "tee y/z y/0 mode/d/f 'sp ace' > /dev/null && ln -sf b a && chmod -x d/b && "
	    "git add . && git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),module "
	    "&& "
	    "git commit -qm new");
	must(ap_git_resolve(git, "HEAD", new, &err));
	must(ap_git_diff_trees(git, old, new, note_change, &seen, &err));
	assert_shell("git diff-tree -r --no-renames HEAD~1 HEAD | tr '\\t' ' ' | "
		     "sed -E 's/([0-9a-f]{8})[0-9a-f]+ ([0-9a-f]{8})[0-9a-f]+ [A-Z]/\\1 \\2/'",
		     seen.text.data);
	seen.n = 0;
	seen.stop_at = 3;
	assert_int_equal(ap_git_diff_trees(git, old, new, note_change, &seen, &err), 7);
	assert_int_equal(seen.n, 3);
	seen.n = 0;
	must(ap_git_diff_trees(git, new, new, note_change, &seen, &err));
	assert_int_equal(seen.n, 0);
	seen.stop_at = 0;
	must(ap_git_diff_trees(git, NULL, old, note_change, &seen, &err));
	char *n = shell("git ls-tree -r HEAD~1 | wc -l");
	assert_int_equal(seen.n, atoi(n));
	free(n);
	memset(new, '1', strlen(new));
	assert_int_equal(ap_git_diff_trees(git, old, new, note_change, &seen, &err), -ENOENT);
	ap_buf_fini(&seen.text);
}

/* A tree in a tree in a tree: deeper than a path of the system can be. */
static void depth_has_no_bound_but_memory(void **state)
{
	struct seen seen = {.stop_at = 0};
	char oid[GIT_OID_MAX + 1];
	must(ap_git_write_blob(git, "x", 1, oid, &err));
	for (unsigned i = 0; i < 2100; i++) { /* git stops at 2048 */
		AP_CLEANUP_GIT_TREE struct ap_git_tree tree = {0};
		must(ap_git_tree_set(&tree, "deep", i ? 0040000 : 0100644, oid));
		must(ap_git_write_tree(git, &tree, oid, &err));
	}
	must(ap_git_diff_trees(git, NULL, oid, note_change, &seen, &err));
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.text.len, strlen(":000000 100644 00000000 12345678 ") + 5 * 2100 - 1);
	ap_buf_fini(&seen.text);
}

/* One line for each, as the next begins. */
static void assert_stat(const char *old, const char *new)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char script[256];
	must(ap_git_diffstat(git, old, new, &text, &err));
	snprintf(script, sizeof script,
		 "git -c core.quotePath=false -c core.bigFileThreshold=8m diff --stat %s %s", old,
		 new);
	if (text.len > 0)
		text.data[text.len - 1] = '\0';
	assert_shell(script, ap_buf_text(&text));
}

static void diffstat_is_what_git_says(void **state)
{
	char old[GIT_OID_MAX + 1], new[GIT_OID_MAX + 1];
	RUN("mkdir -p d/e long/directory/names/that/do/not/fit/on/a/line/of/eighty && "
	    "seq 1 30 > d/e/ren && seq 100 130 > top && seq 1 40 > gone && seq 1 500 > many && "
	    ": > empty && printf 'a\\0b' > bin && echo 1 > 'tab\tand \"quote' && echo 1 > ümläut "
	    "&& "
	    "echo 1 > long/directory/names/that/do/not/fit/on/a/line/of/eighty/columns && "
	    "printf 'a\\0bc' > same && git add . && git commit -qm old");
	ask(old, "HEAD^{tree}");
	assert_stat(old, old);
	RUN("echo 2 > a && git add . && git commit -qm few");
	ask(new, "HEAD^{tree}");
	assert_stat(old, new);
	RUN("mkdir d/f && git mv d/e/ren d/f/ren && git mv top d/top2 && git rm -q gone && "
	    "echo 31 >> d/f/ren && seq 2 3 1500 > many && chmod +x empty && : > new-empty && "
	    "printf 'a\\0bcd' > bin && echo 2 > 'tab\tand \"quote' && echo 2 > ümläut && "
	    "echo 2 > long/directory/names/that/do/not/fit/on/a/line/of/eighty/columns && "
	    "chmod +x same && rm link && echo file > link && "
	    "head -c 9000000 /dev/zero | tr '\\0' '\\n' > large && "
	    "git add . && git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),module "
	    "&& "
	    "git commit -qm new");
	ask(new, "HEAD^{tree}");
	AP_CLEANUP_BUF struct ap_buf text = {0};
	must(ap_git_diffstat(git, old, new, &text, &err));
	text.data[text.len - 1] = '\0';
	assert_shell(
		"git -c core.quotePath=false -c core.bigFileThreshold=8m diff --stat HEAD~2 HEAD",
		text.data);
	assert_stat(new, old);
}

/* Whatever the two have in common, and whatever room is left for the lines. */
static void diffstats_of_many_shapes(void **state)
{
	char old[GIT_OID_MAX + 1], new[GIT_OID_MAX + 1];
	RUN("git checkout -q --orphan shapes && git rm -qrf . && git commit -q --allow-empty -m 0 "
	    "&& "
	    "for n in 1 3 10 30 90 100 1000 5000; do seq 1 $n > f$n; git add .; "
	    "git commit -qm $n; done");
	for (int i = 0; i < 8; i++) {
		char revision[64];
		for (int k = 0; k < 8; k++) {
			snprintf(revision, sizeof revision, "HEAD~%d^{tree}", i);
			ask(old, revision);
			snprintf(revision, sizeof revision, "HEAD~%d^{tree}", k);
			ask(new, revision);
			assert_stat(old, new);
		}
	}
}

/* --- the index --- */

static int note_path(void *data, const char *path, const char *oid)
{
	struct seen *seen = data;
	ap_buf_printf(&seen->text, seen->n ? "\n%s %s" : "%s %s", oid, path);
	return ++seen->n == seen->stop_at ? 7 : 0;
}

static void reads_an_index(void **state)
{
	struct seen seen = {.stop_at = 0};
	char file[200];
	snprintf(file, sizeof file, "%s/index", git_dir);
	RUN("mkdir -p long/names/of/directories && for n in 1 12 123 1234 12345 123456 1234567 "
	    "12345678; do echo $n > long/names/of/directories/$n; done && "
	    "git add . && echo n > later && git add -N later && "
	    "echo s > sparse && git add sparse && git update-index --skip-worktree sparse");
	for (int version = 2; version <= 4; version++) {
		char script[64];
		snprintf(script, sizeof script, "git update-index --index-version %d", version);
		RUN(script);
		seen.n = 0;
		seen.text.len = 0;
		must(ap_git_read_index(git, file, note_path, &seen, &err));
		assert_shell("git ls-files --format='%(objectname) %(path)'", seen.text.data);
	}
	seen.n = 0;
	seen.stop_at = 2;
	assert_int_equal(ap_git_read_index(git, file, note_path, &seen, &err), 7);
	seen.n = 0;
	seen.stop_at = 0;
	RUN("cp .git/index whole && head -c 300 whole > .git/index");
	assert_int_equal(ap_git_read_index(git, file, note_path, &seen, &err), -EIO);
	RUN("cp whole .git/index && git update-index --split-index");
	assert_int_equal(ap_git_read_index(git, file, note_path, &seen, &err), -EIO);
	RUN("git update-index --no-split-index && ln -s index .git/link && mkfifo .git/fifo");
	snprintf(file, sizeof file, "%s/link", git_dir);
	assert_int_equal(ap_git_read_index(git, file, note_path, &seen, &err), -ELOOP);
	snprintf(file, sizeof file, "%s/fifo", git_dir);
	assert_int_equal(ap_git_read_index(git, file, note_path, &seen, &err), -EINVAL);
	snprintf(file, sizeof file, "%s/nothing", git_dir);
	assert_int_equal(ap_git_read_index(git, file, note_path, &seen, &err), -ENOENT);
	assert_int_equal(seen.n, 0);
	ap_buf_fini(&seen.text);
}

static void an_index_in_conflict_has_each_path_once(void **state)
{
	struct seen seen = {.stop_at = 0};
	char file[200];
	snprintf(file, sizeof file, "%s/index", git_dir);
	RUN("git branch other && echo 4 > a && git commit -qam ours && git checkout -q other && "
	    "echo 5 > a && git commit -qam theirs && ! git merge main >/dev/null");
	assert_shell("git ls-files a | wc -l", "3");
	must(ap_git_read_index(git, file, note_path, &seen, &err));
	assert_shell("git ls-files --format='%(stage) %(objectname) %(path)' | grep '^[01]' | "
		     "cut -c3-",
		     seen.text.data);
	ap_buf_fini(&seen.text);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	static const struct {
		const char *name;
		CMUnitTestFunction test;
	} tests[] = {
		{"a revision is resolved as git resolves it", resolves},
		{"what names no commit is told apart from a failure", what_names_no_commit},
		{"what others do with refs is seen at once", sees_what_others_do},
		{"a ref is moved if it is what it must be", sets_refs},
		{"packed refs are moved and removed", packed_refs_are_moved_and_removed},
		{"a name in the way of another is EEXIST", names_in_the_way},
		{"a ref that somebody has locked is EBUSY", a_lock_is_busy},
		{"refs have logs as configured, the pool's own always",
		 logs_are_as_configured_but_of_our_own},
		{"no hook of the repository runs", no_hook_runs},
		{"refs are listed by prefix, and may be changed meanwhile", lists_refs},
		{"trees and files are read", reads_trees},
		{"trees are written as git writes them", writes_trees},
		{"a name that git does not take is EINVAL", names_that_git_does_not_take},
		{"a tree stays in order", a_tree_stays_in_order},
		{"what git ignores is ignored", ignores_what_git_ignores},
		{"a pattern takes bounded time", a_pattern_takes_no_time},
		{"a file becomes the object that git would make of it", writes_files_as_git_would},
		{"line ends of what is tracked stay", tracked_line_ends_stay},
		{"filters that the repository defines run, and no others",
		 filters_of_the_repository_run},
		{"new objects go into their own store", objects_go_where_they_are_to},
		{"objects that are stored without compression are read",
		 objects_without_compression_are_read},
		{"what differs between trees is told file by file", tells_what_differs},
		{"how deep a tree is has no bound", depth_has_no_bound_but_memory},
		{"a diffstat is what git says", diffstat_is_what_git_says},
		{"diffstats of many shapes are what git says", diffstats_of_many_shapes},
		{"the paths of an index are read in all its versions", reads_an_index},
		{"an index in conflict has each path once",
		 an_index_in_conflict_has_each_path_once},
		{"a commit has the user's name and the message as it is", writes_commits},
	};
	static const CMFixtureFunction setups[] = {setup_libgit2, setup_program, setup_sha256};
	static const char *const kinds[] = {"libgit2", "the program", "sha256"};
	static char names[N_KINDS][64][160];
	struct CMUnitTest all[N_KINDS * 64];
	size_t n = 0;
	for (int k = 0; k < N_KINDS; k++) {
		for (size_t i = 0; i < sizeof tests / sizeof *tests; i++, n++) {
			snprintf(names[k][i], sizeof names[k][i], "%s (%s)", tests[i].name,
				 kinds[k]);
			all[n] = (struct CMUnitTest){.name = names[k][i],
						     .test_func = tests[i].test,
						     .setup_func = setups[k],
						     .teardown_func = teardown};
		}
	}
	return _cmocka_run_group_tests("git", all, n, NULL, NULL);
}
