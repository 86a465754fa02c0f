/* Worktrees against a real git in a directory of its own. */
#include "shell.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "namespace.h"
#include "remove.h"
#include "worktree.h"

static char path[128], state_dir[128];
static struct repo repo;
static struct templates *templates;
static struct worktree worktree;
static char head[GIT_OID_MAX + 1];
static bool by_program; /* git.h by the git program */

static int choose_backend(const struct spawn_backend **ret, const char *name, const char *in)
{
	struct ap_err why_not;
	return spawn_backend_choose(ret, name, in, &(struct spawn_inside){.pidfd = -1}, &why_not,
				    &err);
}

/* A worktree made by the backend of that name, in the test's directory as `agent-1`. */
static int setup(const char *backend_name)
{
	const struct spawn_backend *backend;
	make_dir();
	RUN("mkdir -p state/worktrees state/layers && ln -s state/worktrees/agent-1 && "
	    "git init -q -b main 'my repo' && cd 'my repo' && git config user.name u && "
	    "git config user.email u@e && echo 1 > a && mkdir d && echo 2 > d/b && "
	    "echo '*.o' > .gitignore && git add . && git commit -qm first");
	snprintf(path, sizeof path, "%s/my repo", dir);
	snprintf(state_dir, sizeof state_dir, "%s/state", dir);
	assert_int_equal(repo_open(&repo, path, false, by_program, &err), 0);
	assert_int_equal(repo_resolve(&repo, "HEAD", head, &err), 0);
	if (choose_backend(&backend, backend_name, state_dir) < 0)
		fail_msg("%s", err.text);
	templates = templates_new(&repo, state_dir, backend);
	if (worktree_add(&worktree, templates, "agent-1", head, 60 * AP_SECOND, &err) < 0)
		fail_msg("%s", err.text);
	return 0;
}

static int setup_overlay(void **state)
{
	return setup("overlay");
}

static int setup_copy(void **state)
{
	return setup("copy");
}

static int setup_git(void **state)
{
	return setup("git");
}

static int teardown(void **state)
{
	if (worktree.path)
		worktree_remove(&worktree, NULL);
	worktree_fini(&worktree);
	templates_end(templates);
	templates_free(templates);
	repo_fini(&repo);
	return remove_tree(dir, NULL, &err);
}

static void clean(void)
{
	if (worktree_clean(&worktree, head, false, 60 * AP_SECOND, &err) < 0)
		fail_msg("%s", err.text);
}

static void clean_in_place(void)
{
	if (worktree_clean(&worktree, head, true, 60 * AP_SECOND, &err) < 0)
		fail_msg("%s", err.text);
}

static struct worktree_lease start(const char *label)
{
	struct worktree_lease lease = {0};
	strcpy(lease.label, label);
	if (worktree_plan(&worktree, "HEAD", &lease, &err) < 0 ||
	    worktree_start(&worktree, &lease, &err) < 0)
		fail_msg("%s", err.text);
	return lease;
}

static void save(const struct worktree_lease *lease)
{
	struct worktree_saved saved;
	if (worktree_save(&worktree, lease, "saved", NULL, NULL, &saved, &err) < 0)
		fail_msg("%s", err.text);
	if (saved.only_kept.len > 0)
		fail_msg("%s", saved.only_kept.data);
	worktree_end(&worktree);
}

static void saves_everything(void **state)
{
	struct worktree_lease lease = start("job");
	assert_true(lease.created);
	assert_string_equal(lease.base, head);
	RUN("cd agent-1 && echo new > n && echo 2 >> a && rm d/b && echo x > x.o && "
	    "echo staged > s && git add s");
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
	RUN("cd agent-1 && echo 1 > one");
	save(&lease);
	clean();
	assert_shell("ls agent-1", "a\nd");
	lease = start("job");
	assert_false(lease.created);
	assert_shell("ls agent-1", "a\nd\none");
	save(&lease); /* nothing new: the branch stays */
	assert_shell("cd 'my repo' && git log --format=%s agentpool/job", "saved\nfirst");
}

/* A filter that runs while the files are looked at stands for whoever moves the branch just then.
 */
static void moved_meanwhile(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("touch moved && cat > mover <<'END'\n"
	    "cd \"$1/my repo\"\n"
	    "[ $(cat ../moved | wc -l) -ge 3 ] && exec cat\n"
	    "new=$(git commit-tree -p agentpool/job -m theirs agentpool/job^{tree})\n"
	    "git update-ref refs/heads/agentpool/job $new\n"
	    "echo $new >> ../moved\n"
	    "cat\n"
	    "END\n"
	    "cd 'my repo' && git config filter.move.clean \"sh '$PWD/../mover' '$PWD/..'\" && "
	    "echo '*.m filter=move' > ../agent-1/.gitattributes && echo w > ../agent-1/w.m");
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:w.m", "w");
	assert_shell("test -s moved && cd 'my repo' && for theirs in $(cat ../moved); do "
		     "git merge-base --is-ancestor $theirs agentpool/job; done",
		     "");
}

static void own_commits_are_kept(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git config user.name a && git config user.email a@e && "
	    "echo 1 > one && git add . && git commit -qm mine && echo 2 > two");
	save(&lease);
	assert_shell("cd 'my repo' && git log --format=%s agentpool/job", "saved\nmine\nfirst");
}

static void wherever_head_is(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && echo 0 > zero && git add . && git commit -qm zero && "
	    "git checkout -q --detach HEAD~ && echo 1 > one && git add . && git commit -qm "
	    "side && "
	    "git checkout -q -b other && echo 2 > two");
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
	RUN("cd agent-1 && echo 1 > one && git checkout -q --detach && "
	    "git branch -q -D agentpool/job");
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
}

static void deleted_link(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && echo 1 > one && rm .git");
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
	clean();
	assert_shell("cd agent-1 && git status --porcelain && ls", "a\nd");
}

static void unfinished_merge(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git checkout -q -b left && echo left > a && git commit -qam left && "
	    "git checkout -q agentpool/job && echo right > a && git commit -qam right && "
	    "! git merge -q left 2>/dev/null >&2");
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:a | head -1", "<<<<<<< HEAD");
	clean();
	assert_shell("cd agent-1 && git status | tail -1", "nothing to commit, working tree clean");
}

static void unfinished_rebase(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git checkout -q -b left && echo left > a && git commit -qam left && "
	    "git checkout -q agentpool/job && echo right > a && git commit -qam right && "
	    "! git rebase -q left 2>/dev/null >&2");
	save(&lease);
	clean();
	assert_shell("cd agent-1 && git status | head -2 | tail -1",
		     "nothing to commit, working tree clean");
	RUN("git -C 'my repo' worktree add -q ../mine agentpool/job"); /* not held any more */
}

static void off_the_branch(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("echo 1 > agent-1/one");
	save(&lease);
	/* saved, not cleaned yet: the label can go on elsewhere */
	RUN("git -C 'my repo' worktree add -q ../mine agentpool/job && cat mine/one");
}

static void nested_repository(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git init -q -b main 'sub dir.lock' && cd 'sub dir.lock' && "
	    "git config user.name a && git config user.email a@e && echo 1 > one && "
	    "git add . && git commit -qm mine && git branch other && echo 2 > two");
	save(&lease);
	assert_shell("cd 'my repo' && git for-each-ref --format='%(refname)' refs/agentpool/job",
		     "refs/agentpool/job/sub%20dir%2Elock/HEAD\n"
		     "refs/agentpool/job/sub%20dir%2Elock/heads/main\n"
		     "refs/agentpool/job/sub%20dir%2Elock/heads/other");
	assert_shell("cd 'my repo' && git ls-tree --name-only "
		     "$(git rev-parse 'agentpool/job:sub dir.lock')",
		     "one\ntwo");
	clean();
	assert_shell("ls agent-1", "a\nd");
}

static void nested_without_commit(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git init -q -b main new && echo 1 > new/one && git init -q empty");
	save(&lease);
	assert_shell("cd 'my repo' && git show refs/agentpool/job/new/HEAD:one", "1");
	assert_shell("cd 'my repo' && git ls-tree --name-only agentpool/job",
		     ".gitignore\na\nd\nempty\nnew");
}

static void nested_in_nested(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git init -q -b main x && cd x && echo 1 > one && "
	    "git init -q -b main y && echo 2 > y/two");
	save(&lease);
	assert_shell("cd 'my repo' && git show refs/agentpool/job/x/HEAD:one", "1");
	assert_shell("cd 'my repo' && git show refs/agentpool/job/x/y/HEAD:two", "2");
}

static void repository_in_its_place(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && rm .git && git init -q -b main && git config user.name a && "
	    "git config user.email a@e && echo 1 > one && git add one && "
	    "git commit -qm mine && git branch side && rm one");
	save(&lease);
	assert_shell("cd 'my repo' && git show refs/agentpool/job/%2Egit/heads/side:one", "1");
	clean_in_place();
	assert_shell("cd agent-1 && git status --porcelain && ls && cat .git | cut -c-7",
		     "a\nd\ngitdir:");
}

static void submodule_work(void **state)
{
	RUN("git init -q -b main lib && cd lib && git config user.name a && "
	    "git config user.email a@e && echo 1 > lib.c && git add . && git commit -qm lib && "
	    "cd '../my repo' && git -c protocol.file.allow=always submodule --quiet add ../lib "
	    "&& "
	    "git commit -qm sub");
	assert_int_equal(repo_resolve(&repo, "HEAD", head, &err), 0);
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git -c protocol.file.allow=always submodule --quiet update "
	    "--init && "
	    "cd lib && git config user.name a && git config user.email a@e && "
	    "echo 2 > lib.c && git commit -qam two && echo 3 > lib.c && "
	    "git checkout -q -b side HEAD~ 2>/dev/null || true");
	save(&lease);
	assert_shell("cd 'my repo' && git show $(git rev-parse agentpool/job:lib):lib.c", "3");
	clean();
	assert_shell("cd agent-1 && git status --porcelain && ls lib", "");
}

static void hidden_changes(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git update-index --assume-unchanged a && echo 2 > a && "
	    "git update-index --skip-worktree d/b && echo 3 > d/b");
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:a agentpool/job:d/b", "2\n3");
}

static void left_behind(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git config user.name a && git config user.email a@e && "
	    "git checkout -q --detach && echo 1 > one && git add . && git commit -qm lost && "
	    "git checkout -q agentpool/job");
	save(&lease);
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
	assert_shell("cd 'my repo' && git log -1 --format=%s "
		     "$(git for-each-ref --format='%(refname)' refs/agentpool/job/left-behind)",
		     "lost");
}

static void stash_of_a_rebase(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git checkout -q -b left && echo left > a && git commit -qam left && "
	    "git checkout -q agentpool/job && echo right > a && git commit -qam right && "
	    "echo more > d/b && ! git rebase -q --autostash left 2>/dev/null >&2");
	save(&lease);
	assert_shell("cd 'my repo' && git for-each-ref --format='%(refname)' refs/agentpool/job | "
		     "while read r; do git show $r:d/b; done",
		     "more");
}

static void removed_admin_dir(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && echo 1 > one && echo 2 > a && rm -r \"$(git rev-parse "
	    "--git-dir)\"");
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one agentpool/job:a", "1\n2");
	assert_shell("cd 'my repo' && git diff --name-only main agentpool/job", "a\none");
	clean();
	assert_shell("cd agent-1 && git status --porcelain && ls", "a\nd");
}

static void odd_names(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && touch -- '-f' 'new\nline' \"$(printf 'a\\nb')\" ' ' '\"q\"' "
	    "':(top)x' "
	    "'ü' && ln -s /nowhere link && ln -s a alias && mkdir empty && mkfifo pipe");
	save(&lease);
	assert_shell("cd 'my repo' && git ls-tree --name-only -z agentpool/job | tr '\\0' '|'",
		     " |\"q\"|-f|.gitignore|:(top)x|a|a\nb|alias|d|link|new\nline|ü|");
}

static void hostile_settings(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && printf '#!/bin/sh\ntouch '$PWD'/../../../ran\nexit 1\n' > evil && "
	    "chmod +x evil && git config core.hooksPath $PWD && cp evil pre-commit && "
	    "cp evil reference-transaction && git config core.fsmonitor $PWD/evil && "
	    "git config core.pager $PWD/evil && git config diff.external $PWD/evil && "
	    "git config commit.gpgSign true && git config gpg.program $PWD/evil && "
	    "git config core.sshCommand $PWD/evil && git config core.safecrlf true");
	save(&lease);
	clean();
	assert_shell("ls | grep ran || true", "");
	assert_shell("cd 'my repo' && git --no-pager ls-tree --name-only agentpool/job",
		     ".gitignore\na\nd\nevil\npre-commit\nreference-transaction");
	if (!templates_backend(templates))
		return; /* the configuration of the repository's own worktrees is the repository's
			 */
	assert_shell("cd 'my repo' && for c in core.hooksPath core.fsmonitor core.pager "
		     "diff.external commit.gpgSign; do git config $c || true; done",
		     "");
}

static void comes_forward(void **state)
{
	char now[GIT_OID_MAX + 1];
	RUN("cd 'my repo' && echo 3 > c && git rm -q d/b && git add . && git commit -qm "
	    "second");
	assert_int_equal(repo_resolve(&repo, "HEAD", now, &err), 0);
	assert_int_equal(worktree_forward(&worktree, now, &err), 0);
	assert_shell(
		"ls agent-1; cd agent-1; git status --porcelain; git rev-parse HEAD > ../../../h; "
		"git -C '../../../my repo' rev-parse HEAD | cmp - ../../../h",
		"a\nc");
	if (templates_backend(templates)) { /* the template follows, the old one stays in use */
		struct templates_stats stats;
		assert_int_equal(templates_follow(templates, now, 60 * AP_SECOND, &err), 0);
		templates_look(templates, &stats);
		assert_int_equal(stats.n, 2);
		memcpy(head, now, sizeof head);
		clean();
		assert_shell("ls agent-1", "a\nc");
	}
}

static void templates_go(void **state)
{
	struct templates_stats stats;
	struct worktree other;
	char now[GIT_OID_MAX + 1];
	if (!templates_backend(templates))
		return;
	assert_int_equal(worktree_add(&other, templates, "agent-2", head, 60 * AP_SECOND, &err), 0);
	templates_look(templates, &stats);
	assert_int_equal(stats.n, 1);
	assert_int_equal(stats.n_users, 2);
	RUN("cd 'my repo' && git commit -q --allow-empty -m second");
	assert_int_equal(repo_resolve(&repo, "HEAD", now, &err), 0);
	assert_int_equal(templates_follow(templates, now, 60 * AP_SECOND, &err), 0);
	templates_look(templates, &stats);
	assert_int_equal(stats.n, 2);
	assert_int_equal(worktree_remove(&other, &err), 0);
	worktree_fini(&other);
	assert_int_equal(worktree_remove(&worktree, &err), 0);
	templates_look(templates, &stats);
	assert_int_equal(stats.n, 1);
	assert_int_equal(stats.n_made, 2);
	assert_int_equal(stats.n_removed, 1);
	templates_empty_trash(templates, NULL, NULL);
	assert_shell("ls state/templates | wc -l; ls state/trash | wc -l; ls state/worktrees "
		     "state/layers",
		     "1\n0\nstate/layers:\n\nstate/worktrees:");
}

static void cleaning_lets_templates_go(void **state)
{
	struct templates_stats stats;
	char now[GIT_OID_MAX + 1];
	if (!templates_backend(templates))
		return;
	RUN("cd 'my repo' && git commit -q --allow-empty -m second");
	assert_int_equal(repo_resolve(&repo, "HEAD", now, &err), 0);
	assert_int_equal(templates_follow(templates, now, 60 * AP_SECOND, &err), 0);
	if (worktree_clean(&worktree, now, false, 60 * AP_SECOND, &err) < 0)
		fail_msg("%s", err.text);
	templates_look(templates, &stats);
	assert_int_equal(stats.n, 1);
	assert_int_equal(stats.n_removed, 1);
}

static void index_knows_its_files(void **state)
{
	/* no file is read: one whose content is another, at the same size and times, is not seen */
	RUN("cd agent-1 && git diff-files --quiet && git ls-files --debug a | "
	    "grep -q \"ino: $(stat -c %i a)\" && git ls-files --debug a | "
	    "grep -q \"ctime: $(stat -c %Z a):\"");
}

static void included_files(void **state)
{
	RUN("cd 'my repo' && printf '*.o\n.env\nconf/\n' > .gitignore && "
	    "printf '.env\nconf/*.local\nnot-ignored\n' > .worktreeinclude && mkdir conf && "
	    "echo secret > .env && echo l > conf/x.local && echo l > conf/y && echo n > "
	    "not-ignored && git add .gitignore .worktreeinclude && git commit -qm include");
	clean(); /* at the commit before, where git would commit them */
	assert_shell("ls -A agent-1", ".git\n.gitignore\na\nd");
	assert_int_equal(repo_resolve(&repo, "HEAD", head, &err), 0);
	clean();
	assert_shell(
		"cd agent-1; cat .env; find . -path ./.git -o -type f -print | sort",
		"secret\n./.env\n./.gitignore\n./.worktreeinclude\n./a\n./conf/x.local\n./d/b");
}

static void hooks_stay_silent(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd 'my repo' && mkdir -p .git/hooks && for h in pre-commit commit-msg post-commit "
	    "post-checkout reference-transaction; do printf '#!/bin/sh\\ntouch "
	    "\"'$PWD'/ran\"\\nexit 1\\n' "
	    "> .git/hooks/$h; chmod +x .git/hooks/$h; done; cd ../agent-1; echo 1 > one");
	save(&lease);
	clean();
	assert_shell("ls 'my repo'", "a\nd");
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
}

static void locked_index(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && echo 1 > one && touch \"$(git rev-parse --git-dir)/index.lock\"");
	assert_int_equal(worktree_commit(&worktree, &lease, "during", &err), -EIO);
	assert_non_null(strstr(err.text, "index.lock"));
	save(&lease);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
}

static void checked_out_elsewhere(void **state)
{
	struct worktree_lease lease = {.label = "job"};
	RUN("cd 'my repo' && git branch agentpool/job && git worktree add -q ../mine "
	    "agentpool/job");
	assert_int_equal(worktree_plan(&worktree, "HEAD", &lease, &err), -EBUSY);
	assert_non_null(strstr(err.text, "mine"));
}

static void no_room_for_a_branch(void **state)
{
	struct worktree_lease lease = {.label = "job"};
	RUN("git -C 'my repo' branch agentpool");
	assert_int_equal(worktree_plan(&worktree, "HEAD", &lease, &err), -EBUSY);
	assert_non_null(strstr(err.text, "agentpool"));
	assert_shell("cd agent-1 && git status --porcelain --branch", "## HEAD (no branch)");
}

static void killed_before_its_branch(void **state)
{
	struct worktree_lease lease = {.label = "job"};
	assert_int_equal(worktree_plan(&worktree, "HEAD", &lease, &err), 0);
	save(&lease); /* as the next daemon does, by the record */
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
}

static void no_such_base(void **state)
{
	struct worktree_lease lease = {.label = "job"};
	assert_int_equal(worktree_plan(&worktree, "nowhere", &lease, &err), -EINVAL);
	assert_int_equal(worktree_plan(&worktree, "--help", &lease, &err), -EINVAL);
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
}

static void starts_at_the_newest(void **state)
{
	RUN("cd 'my repo' && echo 3 > c && git add . && git commit -qm second");
	struct worktree_lease lease = start("job");
	assert_shell("ls agent-1", "a\nc\nd");
	save(&lease);
}

static void discards(void **state)
{
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && echo 1 > one && git add . && git commit -qm mine");
	assert_int_equal(worktree_discard(&worktree, &lease, &err), 0);
	assert_shell("cd 'my repo' && git branch --list 'agentpool/*'", "");
}

static void diffs(void **state)
{
	struct worktree_lease lease = start("job");
	struct ap_buf out = {0};
	RUN("cd agent-1 && echo 2 >> a && echo new > 'ü n' && echo x > x.o && git add a && "
	    "printf 'a\\0b' > bin");
	char *before = shell("md5sum < \"$(cd agent-1; git rev-parse --git-dir)/index\"; "
			     "find 'my repo/.git' -type f | sort");
	assert_int_equal(worktree_look(&worktree, lease.base, WORKTREE_DIFF, &out, &err), 0);
	assert_non_null(strstr(out.data, "+2\n"));
	assert_non_null(strstr(out.data, "+new\n"));
	assert_non_null(strstr(out.data, "Binary files /dev/null and b/bin differ"));
	assert_null(strstr(out.data, "x.o"));
	ap_buf_fini(&out);
	assert_int_equal(worktree_look(&worktree, lease.base, WORKTREE_DIFFSTAT, &out, &err), 0);
	assert_non_null(strstr(out.data, "3 files changed"));
	ap_buf_fini(&out);
	assert_int_equal(worktree_look(&worktree, lease.base, WORKTREE_CHANGES, &out, &err), 0);
	assert_string_equal(out.data, " M a\n?? bin\n?? \"\\303\\274 n\"\n");
	ap_buf_fini(&out);
	assert_shell("md5sum < \"$(cd agent-1; git rev-parse --git-dir)/index\"; "
		     "find 'my repo/.git' -type f | sort",
		     before);
	free(before);
	assert_shell("ls state/scratch", "");
}

static void removes(void **state)
{
	assert_int_equal(worktree_remove(&worktree, &err), 0);
	assert_shell("ls state/worktrees; cd 'my repo'; git worktree list | wc -l; "
		     "ls .git | grep -c worktrees || true",
		     "1\n0");
}

static void resumes_after_a_crash(void **state)
{
	struct worktree again;
	struct worktree_lease lease = start("job");
	RUN("cd agent-1 && git checkout -q -b other && echo 1 > one");
	assert_int_equal(worktree_open(&again, templates, "agent-1", NULL, &err), 0);
	assert_string_equal(again.git_dir, worktree.git_dir);
	worktree_fini(&again);
	RUN("rm agent-1/.git");
	assert_int_equal(worktree_open(&again, templates, "agent-1", worktree.git_dir, &err), 0);
	struct worktree_saved saved;
	assert_int_equal(worktree_save(&again, &lease, "saved", NULL, NULL, &saved, &err), 0);
	assert_shell("cd 'my repo' && git show agentpool/job:one", "1");
	worktree_fini(&again);
}

static void refuses_what_is_no_repository(void **state)
{
	struct repo other;
	RUN("git init -q empty; mkdir none");
	char where[128];
	snprintf(where, sizeof where, "%s/empty", dir);
	assert_int_equal(repo_open(&other, where, false, false, &err), -EINVAL);
	assert_non_null(strstr(err.text, "no commit"));
	assert_int_equal(repo_open(&other, "/proc", false, false, &err), -EINVAL);
	assert_int_equal(repo_open(&other, "/nowhere", false, false, &err), -ENOENT);
}

/* Every test with every way in which worktrees are made. */
#define GIT_TEST(sentence, function)                                                               \
	{                                                                                          \
		(sentence), (function), SETUP, teardown, NULL                                      \
	}
#define GIT_TESTS                                                                                  \
	GIT_TEST("saving commits tracked, untracked, staged and deleted, not ignored",             \
		 saves_everything),                                                                \
		GIT_TEST("a branch without commits of its own is removed", empty_branches_go),     \
		GIT_TEST("a label goes on from its branch", labels_resume),                        \
		GIT_TEST("a branch that somebody else moves meanwhile keeps both",                 \
			 moved_meanwhile),                                                         \
		GIT_TEST("the agent's own commits are kept", own_commits_are_kept),                \
		GIT_TEST("work is on the branch wherever the agent left HEAD", wherever_head_is),  \
		GIT_TEST("work is on the branch although the agent deleted it", deleted_branch),   \
		GIT_TEST("work is saved although the agent deleted .git", deleted_link),           \
		GIT_TEST("an unfinished merge is saved as it stands and cleaned",                  \
			 unfinished_merge),                                                        \
		GIT_TEST("an unfinished rebase is saved and does not reach the next lease",        \
			 unfinished_rebase),                                                       \
		GIT_TEST("a saved label can go on in another worktree at once", off_the_branch),   \
		GIT_TEST("a repository inside the worktree is saved on refs called after it",      \
			 nested_repository),                                                       \
		GIT_TEST("so is one without a commit", nested_without_commit),                     \
		GIT_TEST("so is one in another", nested_in_nested),                                \
		GIT_TEST("so is one in place of the worktree's own .git",                          \
			 repository_in_its_place),                                                 \
		GIT_TEST("work in a submodule is saved", submodule_work),                          \
		GIT_TEST("changes that the index is told not to look at are saved",                \
			 hidden_changes),                                                          \
		GIT_TEST("commits that the agent left on no branch are kept", left_behind),        \
		GIT_TEST("the stash of an unfinished rebase is kept", stash_of_a_rebase),          \
		GIT_TEST("work is saved although the agent removed git's own directory",           \
			 removed_admin_dir),                                                       \
		GIT_TEST("odd names and links are saved", odd_names),                              \
		GIT_TEST("the repository's configuration runs nothing", hostile_settings),         \
		GIT_TEST("an idle worktree comes forward when base moves", comes_forward),         \
		GIT_TEST("a template that nothing uses and no new worktree starts from goes",      \
			 templates_go),                                                            \
		GIT_TEST("a worktree that was cleaned holds no template of a base before",         \
			 cleaning_lets_templates_go),                                              \
		GIT_TEST("the index knows its files without reading them", index_knows_its_files), \
		GIT_TEST("ignored files that .worktreeinclude names are there", included_files),   \
		GIT_TEST("no hook of the repository runs", hooks_stay_silent),                     \
		GIT_TEST("a locked index holds up a commit and no saving", locked_index),          \
		GIT_TEST("a branch checked out elsewhere is EBUSY", checked_out_elsewhere),        \
		GIT_TEST("a branch that cannot be is EBUSY", no_room_for_a_branch),                \
		GIT_TEST("a lease that was only planned leaves no branch",                         \
			 killed_before_its_branch),                                                \
		GIT_TEST("a base that is no commit is EINVAL and leaves no branch", no_such_base), \
		GIT_TEST("a lease starts at the newest HEAD", starts_at_the_newest),               \
		GIT_TEST("discard throws work and branch away", discards),                         \
		GIT_TEST("diff has untracked and binary files and leaves the index alone", diffs), \
		GIT_TEST("removing leaves no trace in the repository", removes),                   \
		GIT_TEST("a worktree of a dead daemon is taken up and saved",                      \
			 resumes_after_a_crash),                                                   \
		GIT_TEST("what is no repository, or has no commit, is refused",                    \
			 refuses_what_is_no_repository),

static bool is_inside, overlays;

/* Whether overlays can be mounted, inside a namespace where only that helps. Says why not. */
static bool can_overlay(void)
{
	const struct spawn_backend *backend;
	char scratch[] = "/tmp/agentpool-test-XXXXXX";
	if (!mkdtemp(scratch))
		return true; /* the tests fail and say why */
	int r = choose_backend(&backend, "overlay", scratch);
	if (r == -EPERM && namespace_enter(-1, &err) == 0) {
		is_inside = true;
		r = choose_backend(&backend, "overlay", scratch);
	}
	rmdir(scratch);
	if (r == -EPERM)
		printf("1..0 # SKIP no overlay: %s\n", err.text);
	return r != -EPERM;
}

struct run {
	sem_t *dropped;
	int *failed;
};

/* All tests, in a thread that may mount inside while the main thread may not: else git could not
 * read by the descriptors of this process (namespace.h). */
static void *run_all(void *data)
{
	const struct run *run = data;
	int *failed = run->failed;
	sem_wait(run->dropped);
#define SETUP setup_overlay
	const struct CMUnitTest overlay[] = {GIT_TESTS};
#undef SETUP
#define SETUP setup_copy
	const struct CMUnitTest copy[] = {GIT_TESTS};
#undef SETUP
#define SETUP setup_git
	const struct CMUnitTest git[] = {GIT_TESTS};
#undef SETUP
	if (overlays)
		*failed += cmocka_run_group_tests_name("overlay", overlay, NULL, NULL);
	*failed += cmocka_run_group_tests_name("copy", copy, NULL, NULL);
	*failed += cmocka_run_group_tests_name("git", git, NULL, NULL);
	by_program = true;
	if (overlays)
		*failed += cmocka_run_group_tests_name("overlay, git=program", overlay, NULL, NULL);
	else
		*failed += cmocka_run_group_tests_name("copy, git=program", copy, NULL, NULL);
	return NULL;
}

int main(void)
{
	pthread_t thread;
	sem_t dropped;
	int failed = 0;
	overlays = can_overlay();
	sem_init(&dropped, 0, 0);
	struct run run = {.dropped = &dropped, .failed = &failed};
	if (pthread_create(&thread, NULL, run_all, &run) != 0)
		return 1;
	if (is_inside)
		namespace_drop();
	sem_post(&dropped);
	pthread_join(thread, NULL);
	return failed;
}
