/* An agent's own git directory, with a real git at work in it. */
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_git.h"
#include "remove.h"

static char path[128], seed[128], own[128], view[128];
static struct repo repo;
static char head[GIT_OID_MAX + 1];

static int begin(const char *make)
{
	make_dir();
	char home[128];
	snprintf(home, sizeof home, "%s/gitconfig", dir);
	setenv("GIT_CONFIG_GLOBAL", home, 1);
	RUN(make);
	snprintf(path, sizeof path, "%s/my repo", dir);
	snprintf(seed, sizeof seed, "%s/seed", dir);
	snprintf(own, sizeof own, "%s/own", dir);
	snprintf(view, sizeof view, "%s/view", dir);
	must(repo_open(&repo, path, false, false, &err));
	must(repo_resolve(&repo, "HEAD", head, &err));
	return 0;
}

static int setup(void **state)
{
	return begin(
		"git init -q -b main 'my repo' && cd 'my repo' && git config user.name u && "
		"git config user.email u@e && echo 1 > a && mkdir d && echo 2 > d/b && "
		"git add . && git commit -qm first && git branch other && git tag -a -m t v1 && "
		"echo mine >> a && git stash -q");
}

static int setup_sha256(void **state)
{
	return begin("git init -q -b main --object-format=sha256 'my repo' && cd 'my repo' && "
		     "git config user.name u && git config user.email u@e && echo 1 > a && "
		     "mkdir d && echo 2 > d/b && git add . && git commit -qm first && "
		     "git branch other && git tag -a -m t v1");
}

static int setup_shallow(void **state)
{
	return begin("git init -q -b main origin && cd origin && for i in 1 2 3; do echo $i > a; "
		     "mkdir -p d; echo 2 > d/b; git add .; "
		     "git -c user.name=u -c user.email=u@e commit -qm $i; done; git branch other; "
		     "cd ..; "
		     "git clone -q --no-single-branch --depth=1 file://$PWD/origin 'my repo' && cd "
		     "'my repo' && "
		     "git config user.name u && git config user.email u@e");
}

static int setup_partial(void **state)
{
	return begin("git init -q -b main origin && cd origin && "
		     "git config uploadpack.allowFilter true && "
		     "git config uploadpack.allowAnySHA1InWant true && "
		     "for i in 1 2 3; do echo $i > a; mkdir -p d; echo 2 > d/b; git add .; "
		     "git -c user.name=u -c user.email=u@e commit -qm $i; done; "
		     "git checkout -q -b side HEAD~; echo s > s; git add .; "
		     "git -c user.name=u -c user.email=u@e commit -qm side; git checkout -q main; "
		     "git branch other; cd ..; "
		     "git clone -q --filter=blob:none file://$PWD/origin 'my repo' && "
		     "cd 'my repo' && git config user.name u && git config user.email u@e && "
		     "git branch -q other origin/other");
}

static int teardown(void **state)
{
	repo_fini(&repo);
	return remove_tree(dir, NULL, &err);
}

/* A git directory with files beside it, as an agent has them, on the branch agentpool/job. */
static void make_own(void)
{
	must(agent_git_seed(&repo, head, seed, &err));
	RUN("mkdir files && git --git-dir=seed --work-tree=files read-tree HEAD && "
	    "cd files && git --git-dir=../seed --work-tree=. checkout-index -qua");
	must(agent_git_copy(&repo, seed, own, &err));
	must(agent_git_start(own, "agentpool/job", head, &err));
	RUN("echo \"gitdir: $PWD/own\" > files/.git");
}

static void has_nothing_to_do(void **state)
{
	make_own();
	assert_shell("cd files && git status --porcelain && git branch --show-current",
		     "agentpool/job");
	assert_shell("cd files && git log -1 --format=%H", head);
	assert_shell("git -C own fsck --connectivity-only --no-dangling 2>&1", "");
}

/* All that the repository says of itself. */
#define FACTS                                                                                      \
	"git for-each-ref; git stash list; cat .git/HEAD .git/config; ls .git/hooks; "             \
	"git worktree list; find .git/logs -type f -exec cat {} +; "                               \
	"find .git -type f ! -path '*/objects/*' | sort"

static void stays_inside(void **state)
{
	make_own();
	char *before = shell("cd 'my repo' && " FACTS);
	RUN("cd files && echo 2 > new && git add . && git commit -qm second && "
	    "git branch -q -D other && git tag -d v1 && echo 3 > new && git stash -q && "
	    "git config user.name evil && git config core.hooksPath /x && "
	    "git update-ref refs/heads/main HEAD && git worktree add -q ../linked && "
	    "git gc -q --prune=now && git reflog expire --expire=all --all && "
	    "git gc -q --prune=now");
	char *after = shell("cd 'my repo' && " FACTS);
	assert_string_equal(after, before);
	free(before);
	free(after);
	assert_shell("cd 'my repo' && git fsck --no-dangling 2>&1", "");
	assert_shell("cd files && git log --format=%s && git stash list | wc -l",
		     "second\nfirst\n0");
}

static void has_the_configuration(void **state)
{
	RUN("git init -q --bare origin.git; cd 'my repo'; git config core.worktree \"$PWD\"; "
	    "git config include.path extra; printf '[user]\\n\\temail = included@e\\n' > "
	    ".git/extra; git remote add origin ../origin.git; "
	    "git remote add host example.org:path; git config alias.quoted "
	    "$'!echo \"a;b\" # \\\\ \\n\\tc'; git config extensions.worktreeConfig true; "
	    "git config --worktree some.worktree yes; printf '[no]\\n\\tvalue\\n' >> "
	    ".git/config;"
	    "git config core.ignoreCase true; git config 'remote.o\"\\.x.fetch' '+a:b'");
	/* which counts for the repository by where it lies */
	RUN("printf '[user]\\n\\tname = global\\n[includeIf \"gitdir:%s/my repo/\"]\\n"
	    "\\tpath = work\\n' \"$PWD\" > gitconfig; "
	    "printf '[work]\\n\\temail = w@e\\n' > work");
	make_own();
	assert_shell("cd files && git config user.email && git config user.name && "
		     "git config some.worktree && git config work.email && "
		     "git config --type=bool no.value",
		     "included@e\nu\nyes\nw@e\ntrue");
	assert_shell(
		"cd files && [ \"$(git config alias.quoted)\" = \"$(git -C '../my repo' config "
		"alias.quoted)\" ] && git config remote.host.url && "
		"git config 'remote.o\"\\.x.fetch'",
		"example.org:path\n+a:b");
	assert_shell(
		"[ \"$(git -C files config remote.origin.url)\" = "
		"\"$PWD/my repo/../origin.git\" ] && git -C files push -q origin HEAD:pushed && "
		"git -C files fetch -q origin && git -C origin.git branch",
		"  pushed");
	assert_shell("[ \"$(git -C files config lfs.storage)\" = \"$PWD/my repo/.git/lfs\" ]", "");
	assert_shell("cd files && git config --local --get-regexp "
		     "'core.worktree|core.bare|core.ignorecase|extensions|include'",
		     "core.bare false");
	assert_shell("git -C files config --local --list | grep -c user.name", "1");
}

static void has_the_hooks(void **state)
{
	RUN("cd 'my repo/.git/hooks' && mkdir lib && printf '#!/bin/sh\\n. "
	    "\"$(dirname \"$0\")/lib/sh\"\\n' > pre-commit && echo 'touch ran' > lib/sh && "
	    "chmod +x pre-commit && ln -s nowhere dangling");
	make_own();
	assert_shell(
		"cd files && git commit -q --allow-empty -m x && ls ran && cd ../own/hooks && ls",
		"ran\nlib\npre-commit");
	assert_shell("echo evil > own/hooks/pre-commit; head -1 'my repo/.git/hooks/pre-commit'",
		     "#!/bin/sh");
}

static void knows_when_it_is_stale(void **state)
{
	RUN("find 'my repo/.git' -exec touch -d '1 hour ago' {} +");
	while (agent_git_seed(&repo, head, seed, &err) == 0 && agent_git_is_stale(&repo, seed))
		must(remove_tree(seed, NULL, &err)); /* its times are as coarse as a tick */
	assert_false(agent_git_is_stale(&repo, seed));
	RUN("cd 'my repo' && git branch another && git commit -q --allow-empty -m x");
	assert_false(agent_git_is_stale(&repo, seed));
	static const char *const changes[] = {
		"git config a.b c", "echo true > .git/hooks/post-commit",
		"echo false > .git/hooks/post-commit", "echo x >> .git/info/exclude",
		"git rev-parse HEAD > .git/shallow"};
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		char script[256];
		snprintf(script, sizeof script, "cd 'my repo' && %s", changes[i]);
		RUN(script);
		assert_true(agent_git_is_stale(&repo, seed));
		do {
			must(remove_tree(seed, NULL, &err));
			must(agent_git_seed(&repo, head, seed, &err));
		} while (agent_git_is_stale(&repo, seed));
	}
}

static void has_the_refs_of_now(void **state)
{
	RUN("cd 'my repo' && git update-ref refs/remotes/origin/main HEAD && "
	    "git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/main && "
	    "git update-ref refs/agentpool/x HEAD && git branch agentpool/there && "
	    "git pack-refs --all && git branch loose && git tag -a -m t v2 && "
	    "git update-ref refs/notes/n HEAD");
	make_own();
	/* those of the repository, peeled as it has them */
	assert_shell("cd 'my repo' && git show-ref -d | grep -v -e refs/agentpool -e refs/stash > "
		     "../expected; cd ../files && git show-ref -d | grep -v agentpool/job | diff - "
		     "../expected",
		     "");
	assert_shell("git -C files symbolic-ref refs/remotes/origin/HEAD",
		     "refs/remotes/origin/main");
	/* as they are now, however often */
	for (int i = 0; i < 20; i++) {
		char script[512];
		must(remove_tree(own, NULL, &err));
		snprintf(script, sizeof script,
			 "cd 'my repo' && git commit -q --allow-empty -m x && git branch -D loose "
			 "-q; "
			 "git branch loose && case %d in *5) git pack-refs --all;; *7) find "
			 ".git/refs "
			 ".git/packed-refs -exec touch -d '1 hour ago' {} +;; esac",
			 i);
		RUN(script);
		must(agent_git_copy(&repo, seed, own, &err));
		char *now = shell("git -C 'my repo' rev-parse main loose");
		assert_shell("git -C own rev-parse main loose", now);
		free(now);
	}
}

static void begins_at_a_branch(void **state)
{
	make_own();
	struct agent_head at;
	must(agent_git_head(own, &at, &err));
	assert_string_equal(at.ref, "refs/heads/agentpool/job");
	assert_string_equal(at.oid, head);
	agent_head_fini(&at);
	RUN("cd files && git commit -q --allow-empty -m x && git pack-refs --all && "
	    "git symbolic-ref refs/heads/alias refs/heads/agentpool/job && "
	    "git symbolic-ref HEAD refs/heads/alias");
	must(agent_git_head(own, &at, &err));
	assert_string_equal(at.ref, "refs/heads/agentpool/job");
	char *now = shell("git -C files rev-parse HEAD");
	assert_string_equal(at.oid, now);
	free(now);
	agent_head_fini(&at);
	must(agent_git_detach(own, head, &err));
	assert_shell("git -C files branch --show-current; git -C files rev-parse HEAD", head);
	RUN("cd files && git checkout -q --orphan fresh");
	must(agent_git_head(own, &at, &err));
	assert_string_equal(at.ref, "refs/heads/fresh");
	assert_string_equal(at.oid, "");
	agent_head_fini(&at);
	/* as git has it with core.preferSymlinkRefs */
	RUN("ln -sfn refs/heads/agentpool/job own/HEAD");
	must(agent_git_head(own, &at, &err));
	assert_string_equal(at.ref, "refs/heads/agentpool/job");
	agent_head_fini(&at);
}

/* No branch of an agent's is made through what it has put in the way. */
static void is_not_led_out(void **state)
{
	make_own();
	RUN("mkdir outside && rm -r own/refs/heads && ln -s ../../outside own/refs/heads");
	assert_true(agent_git_start(own, "agentpool/two", head, &err) < 0);
	assert_shell("ls outside", "");
	RUN("rm own/refs/heads own/HEAD; ln -s ../outside/file own/HEAD; mkdir own/refs/heads; "
	    "ln -s ../outside/file own/agentpoolfs.new");
	must(agent_git_start(own, "agentpool/two", head, &err));
	assert_shell("ls outside; cat own/HEAD", "ref: refs/heads/agentpool/two");
}

static void broken_heads(void **state)
{
#define LOOP_OF_REFS                                                                               \
	"echo ref: refs/heads/a > HEAD; rm -rf refs/heads; mkdir -p refs/heads; "                  \
	"echo ref: refs/heads/a > refs/heads/a"
	static const char *const heads[] = {"mkfifo HEAD",
					    "ln -s /dev/zero HEAD",
					    "mkdir HEAD",
					    "echo ref: refs/heads/.invalid > HEAD",
					    "echo ref: x > HEAD",
					    "truncate -s 1T HEAD",
					    "ln -s other HEAD",
					    LOOP_OF_REFS,
					    ": > HEAD",
					    "true",
					    "echo ref: refs/heads/../../../x > HEAD"};
	make_own();
	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
		char script[256];
		struct agent_head at;
		snprintf(script, sizeof script, "cd own; rm -rf HEAD; %s", heads[i]);
		RUN(script);
		assert_int_equal(agent_git_head(own, &at, &err), -EIO);
	}
}

/* The object that a name has; "": none. */
static const char *tip_of(const struct agent_tips *tips, const char *name)
{
	for (size_t i = 0; i < tips->n; i++) {
		if (strcmp(tips->at[i].name, name) == 0)
			return tips->at[i].oid;
	}
	return "";
}

static void assert_tip(const struct agent_tips *tips, const char *name, const char *revision)
{
	char script[256];
	snprintf(script, sizeof script, "git -C files rev-parse '%s'", revision);
	assert_shell(script, tip_of(tips, name));
}

static void finds_all_names(void **state)
{
	struct agent_tips tips;
	make_own();
	RUN("cd files && for i in 2 3 4; do echo $i > a && git stash -q; done; "
	    "git commit -q --allow-empty -m x && git checkout -q --detach && "
	    "git commit -q --allow-empty -m detached && git tag here && "
	    "git checkout -q -b left && echo left > a && git commit -qam left && "
	    "git checkout -q -b right other && echo right > a && git commit -qam right && "
	    "git worktree add -q --detach ../linked && "
	    "git -C ../linked commit -q --allow-empty -m linked && git pack-refs --all && "
	    "git branch -q after && git reset -q --hard HEAD~ && git reset -q --hard "
	    "HEAD@{1} && "
	    "! git merge left >&2 2> /dev/null");
	must(agent_git_tips(own, &tips, &err));
	assert_false(tips.is_cut);
	assert_tip(&tips, "HEAD", "HEAD");
	assert_tip(&tips, "refs/heads/left", "left");
	assert_tip(&tips, "refs/heads/after", "after");
	assert_tip(&tips, "refs/tags/here", "here");
	assert_tip(&tips, "refs/tags/v1", "v1");
	assert_tip(&tips, "refs/stash", "stash");
	assert_tip(&tips, "stash@{2}", "stash@{2}");
	assert_tip(&tips, "stash@{0}", "stash@{0}");
	assert_tip(&tips, "HEAD@{1}", "HEAD@{1}");
	assert_tip(&tips, "MERGE_HEAD", "MERGE_HEAD");
	assert_tip(&tips, "ORIG_HEAD", "ORIG_HEAD");
	assert_tip(&tips, "heads/right@{1}", "right@{1}");
	assert_shell("git -C linked rev-parse HEAD", tip_of(&tips, "worktrees/linked/HEAD"));
	agent_tips_fini(&tips);
}

static void is_read_as_data(void **state)
{
	static const char *const hostile[] = {
		"mkfifo logs/HEAD",
		"ln -s /dev/zero logs/HEAD",
		"truncate -s 1T logs/HEAD",
		"mkfifo packed-refs",
		"ln -s /dev/zero packed-refs",
		"mkfifo refs/heads/fifo MERGE_HEAD",
		"ln -s / refs/heads/root; ln -s .. refs/up; ln -s /dev/zero ORIG_HEAD",
		"mkdir -p rebase-merge; mkfifo rebase-merge/autostash",
		"rm -rf refs; mkfifo refs",
		"mkdir refs/heads/dir.lock; printf 'x\\n' > $'refs/heads/new\\nline'",
		"mkdir -p reftable",
		"rm -rf worktrees; ln -s / worktrees",
		"printf '%01000000d' 1 > refs/heads/long",
		"(d=refs/heads; for i in $(seq 300); do d=$d/d; done; mkdir -p $d)",
	};
	make_own();
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		char script[512];
		struct agent_tips tips;
		snprintf(script, sizeof script,
			 "rm -rf own2; cp -a own own2; cd own2; mkdir -p logs; rm -f logs/HEAD "
			 "packed-refs; h=$(git -C ../own rev-parse HEAD); echo $h > HEAD; %s",
			 hostile[i]);
		RUN(script);
		char other[160];
		snprintf(other, sizeof other, "%s/own2", dir);
		must(agent_git_tips(other, &tips, &err));
		assert_string_equal(tip_of(&tips, "HEAD"), head);
		for (size_t j = 0; j < tips.n; j++)
			assert_null(strchr(tips.at[j].name, '\n'));
		if (strstr(hostile[i], "1T") || strstr(hostile[i], "reftable") ||
		    strstr(hostile[i], "seq"))
			assert_true(tips.is_cut);
		agent_tips_fini(&tips);
	}
}

static int take(const char *oid, const char *known)
{
	must(agent_git_view(own, view, &err));
	return agent_git_take(&repo, view, (const char *const[]){oid, NULL},
			      (const char *const[]){known, NULL}, 60 * AP_SECOND, &err);
}

static void is_taken_over(void **state)
{
	make_own();
	RUN("cd files && echo 2 > new && git add . && git commit -qm second && "
	    "git tag -a -m signed mine");
	char *tag = shell("git -C files rev-parse mine");
	must(take(tag, head));
	free(tag);
	assert_shell("cd 'my repo' && git log --format=%s $(git -C ../files rev-parse mine) && "
		     "git cat-file -t $(git -C ../files rev-parse mine) && "
		     "git show $(git -C ../files rev-parse HEAD):new && "
		     "git fsck --no-dangling 2>&1",
		     "second\nfirst\ntag\n2");
	assert_shell("cd 'my repo' && git fsck --no-dangling; ls .git/objects | grep tmp || :", "");
	/* many: a pack, and all that the agent's own packing has made of them */
	RUN("cd files && for i in $(seq 60); do echo $i > new; git commit -qam $i; done; "
	    "git repack -qad; git prune-packed; echo last > new; git commit -qam last");
	char *tip = shell("git -C files rev-parse HEAD");
	must(take(tip, head));
	free(tip);
	assert_shell("cd 'my repo' && git rev-list --count $(git -C ../files rev-parse HEAD) && "
		     "git fsck --no-dangling && ls .git/objects/pack/*.pack | wc -l; "
		     "ls .git/objects | grep tmp || :",
		     "63\n1");
}

/* A tree that names an object that is nowhere; a tree that git would not make. */
static void what_is_wrong_is_not(void **state)
{
	make_own();
	RUN("cd files && echo gone > gone && git add . && git commit -qm second && "
	    "b=$(git rev-parse HEAD:gone) && rm -f ../own/objects/${b:0:2}/${b:2}");
	char *before = shell("find 'my repo/.git/objects' | sort");
	char *tip = shell("git -C files rev-parse HEAD");
	assert_true(take(tip, head) < 0);
	free(tip);
	RUN("cd files && t=$(printf '100644 .git\\0%b' \"$(git rev-parse HEAD:a | sed "
	    "'s/../\\\\x&/g')\" | git hash-object -w --literally -t tree --stdin) && "
	    "git update-ref HEAD $(git commit-tree -p "
	    "other"
	    " -m evil $t)");
	tip = shell("git -C files rev-parse HEAD");
	assert_true(take(tip, head) < 0);
	assert_non_null(strstr(err.text, "hasDotgit"));
	free(tip);
	char *after = shell("find 'my repo/.git/objects' | sort");
	assert_string_equal(after, before);
	free(before);
	free(after);
}

/* What git itself makes and fetches is taken, though it would not pass for well-formed. */
static void oddities_are_taken(void **state)
{
	make_own();
	RUN("cd files && t=$(printf '040000 d\\0%b' \"$(git rev-parse HEAD:d | sed "
	    "'s/../\\\\x&/g')\" | git hash-object -w --literally -t tree --stdin) && "
	    "c=$(printf 'tree %s\\nparent %s\\nauthor A<a@e> 1 +0000\\ncommitter B <> 1 +051800"
	    "\\n\\nodd\\n' $t $(git rev-parse HEAD) | git hash-object -w --literally -t commit "
	    "--stdin) && git update-ref HEAD $c && git reset -q --hard && "
	    "printf '[submodule \"a\"]\\n\\tpath = -a\\n\\turl = -u\\n' > .gitmodules && "
	    "git add . && git commit -qm modules");
	char *tip = shell("git -C files rev-parse HEAD");
	must(take(tip, head));
	free(tip);
}

/* Nothing but objects is in a view, whatever lies beside them, and as links it has none. */
static void a_view_has_objects_alone(void **state)
{
	make_own();
	RUN("cd files && echo 2 > new && git add . && git commit -qm second && cd "
	    "../own/objects "
	    "&& mkdir -p aa pack info && mkfifo aa/11111111111111111111111111111111111111 && "
	    "ln -s /etc/passwd aa/22222222222222222222222222222222222222 && "
	    "echo x > aa/not-an-object && echo x > pack/x.pack && "
	    "ln -s /dev/zero pack/pack-1111111111111111111111111111111111111111.pack && "
	    "for name in b0 b1 b2 b3; do [ -e $name ] || ln -s / $name; done && "
	    "echo /somewhere > info/alternates");
	char *tip = shell(
		"git -C files rev-parse HEAD 2>/dev/null || git --git-dir=own rev-parse HEAD");
	must(take(tip, head));
	free(tip);
	char *shown =
		shell("find view -mindepth 1 -maxdepth 1 -printf '%f\\n' | sort | tr '\\n' ' '; "
		      "ls view/pack view/aa");
	assert_shell("find view ! -type d ! -type f; ls view | tr '\\n' ' '; ls view/pack view/aa; "
		     "find view -name '*not*' -o -name alternates",
		     shown);
	free(shown);
}

static void a_view_crosses_file_systems(void **state)
{
	make_own();
	struct stat here, there;
	const char *other = strncmp(dir, "/dev/shm/", 9) == 0 ? "/tmp" : "/dev/shm";
	snprintf(view, sizeof view, "%s/agentpool-test-%d", other, getpid());
	if (stat(other, &there) < 0 || stat(dir, &here) < 0 || here.st_dev == there.st_dev)
		skip();
	RUN("cd files && echo 2 > new && git add . && git commit -qm second");
	char *tip = shell("git -C files rev-parse HEAD");
	int r = take(tip, head);
	(void)remove_tree(view, NULL, NULL);
	must(r);
	free(tip);
}

/* The agent's gc is at it while its objects are taken. */
static void is_packed_meanwhile(void **state)
{
	make_own();
	RUN("cd files && for i in $(seq 20); do echo $i > new; git add .; git commit -qm $i; "
	    "done; (while [ ! -e ../stop ]; do git repack -qad -f; git prune-packed; "
	    "git unpack-objects -q < ../own/objects/pack/*.pack || :; done) > ../log 2>&1 "
	    "< /dev/null & echo $! > ../pid");
	char *tip = shell("git -C files rev-parse HEAD");
	for (int i = 0; i < 20; i++) {
		must(remove_tree(view, NULL, &err));
		must(take(tip, head));
	}
	free(tip);
	RUN("touch stop; while kill -0 $(cat pid) 2>/dev/null; do read -t 0.05 < <(:) || :; "
	    "done");
	assert_shell("cd 'my repo' && git fsck --no-dangling 2>&1", "");
}

static int note_module(void *data, const char *module, const char *name)
{
	ap_buf_printf(data, "%s\n", name);
	return 0;
}

static void has_modules(void **state)
{
	AP_CLEANUP_BUF struct ap_buf names = {0};
	make_own();
	RUN("cd own && git init -q -b m --bare modules/libs/foo && git init -q -b m --bare "
	    "modules/libs/foo/modules/inner && git init -q -b m --bare modules/bar && "
	    "mkdir modules/empty && ln -s bar modules/link && cd modules/libs/foo && "
	    "git update-ref refs/heads/m $(git -c user.name=a -c user.email=a@e commit-tree "
	    "-m in $(git hash-object -w -t tree /dev/null))");
	must(agent_git_each_module(own, note_module, &names, &err));
	char *sorted = shell("cd own && find modules -name HEAD -printf '%h\\n' | sort");
	assert_int_equal(names.len, strlen(sorted) + 1);
	assert_non_null(strstr(ap_buf_text(&names), "modules/libs/foo/modules/inner\n"));
	free(sorted);
	char *tip = shell("git -C own/modules/libs/foo rev-parse m");
	must(agent_git_view(own, view, &err));
	must(agent_git_take(&repo, view, (const char *const[]){tip, NULL},
			    (const char *const[]){NULL}, 60 * AP_SECOND, &err));
	assert_shell(
		"cd 'my repo' && git cat-file -t $(git -C ../own/modules/libs/foo rev-parse m)",
		"commit");
	free(tip);
}

/* What is missing in the repository can be had from where it is. */
static void missing_objects_are_fetched(void **state)
{
	make_own();
	assert_shell("cd files && git status --porcelain && git show HEAD~2:a", "1");
	RUN("cd files && git merge -q -m merged origin/side && echo 2 > new && git add . && "
	    "git commit -qm second");
	char *tip = shell("git -C files rev-parse HEAD");
	must(take(tip, head));
	free(tip);
	assert_shell("cd 'my repo' && git show $(git -C ../files rev-parse HEAD):new && "
		     "git fsck --no-dangling 2>&1",
		     "2");
}

static void recognises_one(void **state)
{
	make_own();
	RUN("mkdir -p no/objects no/refs; cp -a own half; rm -r half/objects; ln -s own link; "
	    "cp -a own fifo; rm fifo/HEAD; mkfifo fifo/HEAD; "
	    "cp -a own table; echo 'ref: refs/heads/.invalid' > table/HEAD");
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_true(agent_git_is_one(fd, "own"));
	assert_true(agent_git_is_one(fd, "table"));
	assert_false(agent_git_is_one(fd, "no"));
	assert_false(agent_git_is_one(fd, "half"));
	assert_false(agent_git_is_one(fd, "link"));
	assert_false(agent_git_is_one(fd, "fifo"));
	assert_false(agent_git_is_one(fd, "files"));
	close(fd);
}

#define HERE(sentence, function)                                                                   \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = setup,                  \
		.teardown_func = teardown                                                          \
	}
#define IN(kind, sentence, function)                                                               \
	{                                                                                          \
		.name = #kind ": " sentence, .test_func = (function), .setup_func = setup_##kind,  \
		.teardown_func = teardown                                                          \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HERE("a new git directory has nothing to commit, and is on its branch",
		     has_nothing_to_do),
		HERE("what an agent does in git stays in its own git directory", stays_inside),
		HERE("it has the repository's configuration, but for what is about its place",
		     has_the_configuration),
		HERE("it has copies of the repository's hooks", has_the_hooks),
		HERE("a seed is stale when configuration, hooks or what is shallow have changed",
		     knows_when_it_is_stale),
		HERE("a copy has the refs that the repository has now", has_the_refs_of_now),
		HERE("HEAD is read where it leads, loose, packed, symbolic or unborn",
		     begins_at_a_branch),
		HERE("a branch is begun inside, whatever lies in the way", is_not_led_out),
		HERE("a HEAD that is none is an error, and holds nobody up", broken_heads),
		HERE("all that names a commit is found", finds_all_names),
		HERE("files that are none, or have no end, hold nobody up", is_read_as_data),
		HERE("commits and tags are taken over, few or many", is_taken_over),
		HERE("what is missing or malformed is refused, and leaves nothing",
		     what_is_wrong_is_not),
		HERE("what git itself makes is taken, however odd", oddities_are_taken),
		HERE("a view has regular files of objects alone", a_view_has_objects_alone),
		HERE("a view is of copies where there can be no links",
		     a_view_crosses_file_systems),
		HERE("objects are taken while the agent's git packs them anew",
		     is_packed_meanwhile),
		HERE("submodules are found at any depth, and their objects taken", has_modules),
		HERE("what git takes for a git directory is taken for one", recognises_one),
		IN(sha256, "a new git directory has nothing to commit", has_nothing_to_do),
		IN(sha256, "what an agent does stays in its own", stays_inside),
		IN(sha256, "commits are taken over", is_taken_over),
		IN(shallow, "a new git directory has nothing to commit", has_nothing_to_do),
		IN(partial, "a new git directory has nothing to commit", has_nothing_to_do),
		IN(partial, "what is missing is fetched, and commits are taken over",
		   missing_objects_are_fetched),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
