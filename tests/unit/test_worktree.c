/* Worktrees against a real git in a directory of its own. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "process.h"
#include "worktree.h"

static char dir[64], path[128];
static struct repo repo;
static struct worktree worktree;
static struct ap_err err;
static char head[WORKTREE_OID_MAX + 1];

/* Runs a shell script in the test's directory and returns what it printed, to be freed. */
static char *shell(const char *script)
{
	struct ap_buf out = {0};
	struct process_run run = {
		.argv = (const char *const[]){"sh", "-ec", script, NULL},
		.env = (const char *const[]){"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
					     NULL},
		.dir = dir,
		.limit_ns = 60 * AP_SECOND,
		.out = &out,
	};
	int r = process_run(&run, &err);
	if (r != 0)
		fail_msg("%s: %s", script, err.text);
	while (out.len > 0 && out.data[out.len - 1] == '\n')
		out.data[--out.len] = '\0';
	return out.data ? out.data : strdup("");
}

static void assert_shell(const char *script, const char *expected)
{
	char *printed = shell(script);
	assert_string_equal(printed, expected);
	free(printed);
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/agentpool-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	free(shell("git init -q -b main 'my repo' && cd 'my repo' && git config user.name u && "
		   "git config user.email u@e && echo 1 > a && mkdir d && echo 2 > d/b && "
		   "echo '*.o' > .gitignore && git add . && git commit -qm first"));
	snprintf(path, sizeof path, "%s/my repo", dir);
	assert_int_equal(repo_open(&repo, path, &err), 0);
	assert_int_equal(repo_resolve(&repo, "HEAD", head, &err), 0);
	snprintf(path, sizeof path, "%s/agent-1", dir);
	if (worktree_add(&worktree, &repo, path, head, 60 * AP_SECOND, &err) < 0)
		fail_msg("%s", err.text);
	return 0;
}

static int teardown(void **state)
{
	worktree_fini(&worktree);
	repo_fini(&repo);
	return process_remove_tree(dir, &err);
}

static struct worktree_lease start(const char *label)
{
	struct worktree_lease lease = {0};
	strcpy(lease.label, label);
	if (worktree_start(&worktree, "HEAD", &lease, &err) < 0)
		fail_msg("%s", err.text);
	return lease;
}

static void save(const struct worktree_lease *lease)
{
	if (worktree_save(&worktree, lease, "saved", &err) < 0)
		fail_msg("%s", err.text);
}

static void saves_everything(void **state)
{
	struct worktree_lease lease = start("job");
	assert_true(lease.created);
	assert_string_equal(lease.base, head);
	free(shell("cd agent-1 && echo new > n && echo 2 >> a && rm d/b && echo x > x.o && "
		   "echo staged > s && git add s"));
	save(&lease);
	assert_shell("cd 'my repo' && git ls-tree -r --name-only agentpool/job",
		     ".gitignore\na\nn\ns");
	assert_shell("cd 'my repo' && git show agentpool/job:a", "1\n2");
	assert_shell("cd 'my repo' && git status --porcelain && git branch --show-current", "main");
	assert_shell("cd 'my repo' && git log -1 --format='%an %s' agentpool/job", "u saved");
}

static void empty_branches_go(void **state)
{
	struct worktree_lease lease = start("job");
	save(&lease);
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
	assert_shell("cd agent-1 && git status --porcelain", "");
}

static void labels_resume(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && echo 1 > one"));
	save(&lease);
	assert_int_equal(worktree_clean(&worktree, head, &err), 0);
	assert_shell("ls agent-1", "a\nd");
	lease = start("job");
	assert_false(lease.created);
	assert_shell("ls agent-1", "a\nd\none");
	save(&lease); /* nothing new: the branch stays */
	assert_shell("cd 'my repo' && git log --format=%s agentpool/job", "saved\nfirst");
}

static void own_commits_are_kept(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && git config user.name a && git config user.email a@e && "
		   "echo 1 > one && git add . && git commit -qm mine && echo 2 > two"));
	save(&lease);
	assert_shell("cd 'my repo' && git log --format=%s agentpool/job", "saved\nmine\nfirst");
}

static void wherever_head_is(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && echo 0 > zero && git add . && git commit -qm zero && "
		   "git checkout -q --detach HEAD~ && echo 1 > one && git add . && git commit -qm "
		   "side && "
		   "git checkout -q -b other && echo 2 > two"));
	save(&lease);
	/* the files as they were, and both lines of commits */
	assert_shell("cd 'my repo' && git ls-tree --name-only agentpool/job",
		     ".gitignore\na\nd\none\ntwo");
	assert_shell("cd 'my repo' && git log --format=%s agentpool/job | sort",
		     "first\nsaved\nside\nzero");
}

static void deleted_branch(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && echo 1 > one && git checkout -q --detach && "
		   "git branch -q -D agentpool/job"));
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
}

static void deleted_link(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && echo 1 > one && rm .git"));
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
	assert_int_equal(worktree_clean(&worktree, head, &err), 0);
	assert_shell("cd agent-1 && git status --porcelain && ls", "a\nd");
}

static void unfinished_merge(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell(
		"cd agent-1 && git checkout -q -b left && echo left > a && git commit -qam left && "
		"git checkout -q agentpool/job && echo right > a && git commit -qam right && "
		"! git merge -q left 2>/dev/null >&2"));
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:a | head -1", "<<<<<<< HEAD");
	assert_int_equal(worktree_clean(&worktree, head, &err), 0);
	assert_shell("cd agent-1 && git status | tail -1", "nothing to commit, working tree clean");
}

static void unfinished_rebase(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell(
		"cd agent-1 && git checkout -q -b left && echo left > a && git commit -qam left && "
		"git checkout -q agentpool/job && echo right > a && git commit -qam right && "
		"! git rebase -q left 2>/dev/null >&2"));
	save(&lease);
	assert_int_equal(worktree_clean(&worktree, head, &err), 0);
	assert_shell("cd agent-1 && git status | head -2 | tail -1",
		     "nothing to commit, working tree clean");
	free(shell(
		"git -C 'my repo' worktree add -q ../mine agentpool/job")); /* not held any more */
}

static void off_the_branch(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("echo 1 > agent-1/one"));
	save(&lease);
	/* saved, not cleaned yet: the label can go on elsewhere */
	free(shell("git -C 'my repo' worktree add -q ../mine agentpool/job && cat mine/one"));
}

static void nested_repository(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell(
		"cd agent-1 && git init -q 'sub dir' && cd 'sub dir' && git config user.name a && "
		"git config user.email a@e && echo 1 > one && git add . && git commit -qm mine"));
	assert_int_equal(worktree_save(&worktree, &lease, "saved", &err), -EIO);
	assert_non_null(strstr(err.text, "sub dir"));
	assert_shell("cat 'agent-1/sub dir/one'", "1");
}

static void hooks_stay_silent(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell(
		"cd 'my repo' && mkdir -p .git/hooks && for h in pre-commit commit-msg post-commit "
		"post-checkout reference-transaction; do printf '#!/bin/sh\\ntouch "
		"\"'$PWD'/ran\"\\nexit 1\\n' "
		"> .git/hooks/$h; chmod +x .git/hooks/$h; done; cd ../agent-1; echo 1 > one"));
	save(&lease);
	assert_int_equal(worktree_clean(&worktree, head, &err), 0);
	assert_shell("ls 'my repo'", "a\nd");
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
}

static void locked_index(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell(
		"cd agent-1 && echo 1 > one && touch \"$(git rev-parse --git-dir)/index.lock\""));
	assert_int_equal(worktree_save(&worktree, &lease, "saved", &err), -EIO);
	assert_non_null(strstr(err.text, "job"));
	assert_shell("cat agent-1/one", "1");
	free(shell("cd agent-1 && rm \"$(git rev-parse --git-dir)/index.lock\""));
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
}

static void checked_out_elsewhere(void **state)
{
	struct worktree_lease lease = {.label = "job"};
	free(shell("cd 'my repo' && git branch agentpool/job && git worktree add -q ../mine "
		   "agentpool/job"));
	assert_int_equal(worktree_start(&worktree, "HEAD", &lease, &err), -EBUSY);
}

static void no_such_base(void **state)
{
	struct worktree_lease lease = {.label = "job"};
	assert_int_equal(worktree_start(&worktree, "nowhere", &lease, &err), -EINVAL);
	assert_int_equal(worktree_start(&worktree, "--help", &lease, &err), -EINVAL);
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
}

static void starts_at_the_newest(void **state)
{
	free(shell("cd 'my repo' && echo 3 > c && git add . && git commit -qm second"));
	struct worktree_lease lease = start("job");
	assert_shell("ls agent-1", "a\nc\nd");
	save(&lease);
}

static void discards(void **state)
{
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && echo 1 > one && git add . && git commit -qm mine"));
	assert_int_equal(worktree_discard(&worktree, &lease, &err), 0);
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
}

static void diffs(void **state)
{
	struct worktree_lease lease = start("job");
	struct ap_buf out = {0};
	char scratch[128];
	snprintf(scratch, sizeof scratch, "%s/scratch", dir);
	free(shell("cd agent-1 && echo 2 >> a && echo new > 'ü n' && echo x > x.o && git add a && "
		   "printf 'a\\0b' > bin"));
	char *before = shell("md5sum < \"$(cd agent-1; git rev-parse --git-dir)/index\"");
	assert_int_equal(worktree_diff(&worktree, lease.base, false, scratch, &out, &err), 0);
	assert_non_null(strstr(out.data, "+2\n"));
	assert_non_null(strstr(out.data, "+new\n"));
	assert_non_null(strstr(out.data, "Binary files /dev/null and b/bin differ"));
	assert_null(strstr(out.data, "x.o"));
	assert_shell("md5sum < \"$(cd agent-1; git rev-parse --git-dir)/index\"", before);
	free(before);
	ap_buf_fini(&out);
	assert_int_equal(worktree_diff(&worktree, lease.base, true, scratch, &out, &err), 0);
	assert_non_null(strstr(out.data, "3 files changed"));
	ap_buf_fini(&out);
	assert_int_not_equal(access(scratch, F_OK), 0);
}

static void removes(void **state)
{
	assert_int_equal(worktree_remove(&worktree, &err), 0);
	assert_shell(
		"ls; cd 'my repo'; git worktree list | wc -l; ls .git | grep -c worktrees || true",
		"my repo\n1\n0");
}

static void resumes_after_a_crash(void **state)
{
	struct worktree again;
	struct worktree_lease lease = start("job");
	free(shell("cd agent-1 && git checkout -q -b other && echo 1 > one"));
	assert_int_equal(worktree_open(&again, &repo, path, NULL, &err), 0);
	assert_string_equal(again.admin_dir, worktree.admin_dir);
	worktree_fini(&again);
	free(shell("rm agent-1/.git"));
	assert_int_equal(worktree_open(&again, &repo, path, NULL, &err), -EIO);
	assert_int_equal(worktree_open(&again, &repo, path, worktree.admin_dir, &err), 0);
	assert_int_equal(worktree_save(&again, &lease, "saved", &err), 0);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
	worktree_fini(&again);
}

static void refuses_what_is_no_repository(void **state)
{
	struct repo other;
	free(shell("git init -q empty; mkdir none"));
	char where[128];
	snprintf(where, sizeof where, "%s/empty", dir);
	assert_int_equal(repo_open(&other, where, &err), -EINVAL);
	assert_non_null(strstr(err.text, "no commit"));
	assert_int_equal(repo_open(&other, "/proc", &err), -EINVAL);
	assert_int_equal(repo_open(&other, "/nowhere", &err), -ENOENT);
}

#define GIT_TEST(sentence, function)                                                               \
	{                                                                                          \
		(sentence), (function), setup, teardown, NULL                                      \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		GIT_TEST("saving commits tracked, untracked, staged and deleted, not ignored",
			 saves_everything),
		GIT_TEST("a branch without commits of its own is removed", empty_branches_go),
		GIT_TEST("a label goes on from its branch", labels_resume),
		GIT_TEST("the agent's own commits are kept", own_commits_are_kept),
		GIT_TEST("work is on the branch wherever the agent left HEAD", wherever_head_is),
		GIT_TEST("work is on the branch although the agent deleted it", deleted_branch),
		GIT_TEST("work is saved although the agent deleted .git", deleted_link),
		GIT_TEST("an unfinished merge is saved as it stands and cleaned", unfinished_merge),
		GIT_TEST("an unfinished rebase is saved and does not reach the next lease",
			 unfinished_rebase),
		GIT_TEST("a saved label can go on in another worktree at once", off_the_branch),
		GIT_TEST("a repository inside the worktree fails the saving and is kept",
			 nested_repository),
		GIT_TEST("no hook of the repository runs", hooks_stay_silent),
		GIT_TEST("a locked index fails the saving and loses nothing", locked_index),
		GIT_TEST("a branch checked out elsewhere is EBUSY", checked_out_elsewhere),
		GIT_TEST("a base that is no commit is EINVAL and leaves no branch", no_such_base),
		GIT_TEST("a lease starts at the newest HEAD", starts_at_the_newest),
		GIT_TEST("discard throws work and branch away", discards),
		GIT_TEST("diff has untracked and binary files and leaves the index alone", diffs),
		GIT_TEST("removing leaves no trace in the repository", removes),
		GIT_TEST("a worktree of a dead daemon is taken up and saved",
			 resumes_after_a_crash),
		GIT_TEST("what is no repository, or has no commit, is refused",
			 refuses_what_is_no_repository),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
