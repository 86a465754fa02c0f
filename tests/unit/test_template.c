/* Templates of a real repository, in a directory of their own. */
#include "shell.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "remove.h"
#include "template.h"

static char path[128], state_dir[128];
static struct repo repo;
static struct templates *templates;
static bool by_program;
static char head[GIT_OID_MAX + 1];

static void resolve_head(void)
{
	must(repo_resolve(&repo, "HEAD", head, &err));
}

static int setup(void **state)
{
	make_dir();
	RUN("mkdir state && git init -q -b main 'my repo' && cd 'my repo' && "
	    "git config user.name u && git config user.email u@e && echo 1 > a && mkdir d && "
	    "echo 2 > d/b && git add . && git commit -qm first");
	snprintf(path, sizeof path, "%s/my repo", dir);
	snprintf(state_dir, sizeof state_dir, "%s/state", dir);
	must(repo_open(&repo, path, false, by_program, &err));
	resolve_head();
	templates = templates_new(&repo, state_dir, &spawn_copy);
	return 0;
}

static int teardown(void **state)
{
	if (templates)
		templates_free(templates);
	templates = NULL;
	repo_fini(&repo);
	return remove_tree(dir, NULL, &err);
}

static void begin_again(void)
{
	templates_free(templates);
	templates = templates_new(&repo, state_dir, &spawn_copy);
	assert_non_null(templates);
}

static struct template *get(void)
{
	struct template *template;
	must(template_get(templates, head, 60 * AP_SECOND, &template, &err));
	return template;
}

/* Has `staged` in the test's directory be a git directory that is staged now, and `files` its
 * files.
 */
static void stage(struct template *template)
{
	struct staged staged;
	char script[3 * PATH_MAX];
	must(template_stage(templates, template, &staged, &err));
	snprintf(script, sizeof script,
		 "rm -rf staged files; mv '%s' staged; rmdir '%s'; cp -a '%s' files; "
		 "echo \"gitdir: $PWD/staged\" > files/.git",
		 staged.admin, staged.dir, template_files(template));
	RUN(script);
}

static void is_known_by_a_ref_alone(void **state)
{
	char *before = shell("cd 'my repo' && find .git -type f ! -path '*/objects/*' "
			     "! -path '*agentpool*' | sort && git worktree list");
	struct template *template = get();
	stage(template);
	assert_shell("cd files && git status --porcelain && git log --format=%s && cat a d/b",
		     "first\n1\n2");
	char *after = shell("cd 'my repo' && find .git -type f ! -path '*/objects/*' "
			    "! -path '*agentpool*' | sort && git worktree list");
	assert_string_equal(after, before);
	free(before);
	free(after);
	/* the branch is rewritten, and the user cleans up */
	RUN("cd 'my repo' && git commit -q --amend -m other && "
	    "git reflog expire --expire=all --all && git gc -q --prune=now");
	assert_shell("cd files && git log --format=%s && git fsck --no-dangling 2>&1", "first");
	template_put(template);
	templates_end(templates);
	assert_shell("cd 'my repo' && git for-each-ref refs/agentpool; ls ../state/templates", "");
}

static void left_over_refs_go(void **state)
{
	struct template *template = get();
	template_put(template);
	RUN("cd 'my repo' && r=$(git for-each-ref --format='%(refname)' refs/agentpool) && "
	    "git commit -q --allow-empty -m x && c=$(git rev-parse HEAD) && "
	    "git update-ref ${r%/*}/$c $c && git update-ref ${r%/*}/agent-1 $c && "
	    "git update-ref refs/agentpool/_held/0000000000000000/$c $c");
	templates_end(templates);
	assert_shell("cd 'my repo' && git for-each-ref --format='%(refname)' refs/agentpool | "
		     "while read r; do case $r in */0000000000000000/*) echo another;; "
		     "*/agent-1) echo agent;; *) echo $r;; esac; done",
		     "another\nagent");
}

static void runs_the_users_hook_once(void **state)
{
	RUN("cd 'my repo' && printf '%s\\n' '#!/bin/sh' 'echo \"$*\" >> ../../../../ran' "
	    "'git rev-parse HEAD >> ../../../../ran' 'echo hooked > made' "
	    "'git config hook.made yes' > .git/hooks/post-checkout && "
	    "chmod +x .git/hooks/post-checkout");
	struct template *template = get();
	stage(template);
	char expected[256];
	snprintf(expected, sizeof expected, "%.40s %s 1\n%s",
		 "0000000000000000000000000000000000000000", head, head);
	assert_shell("cat ran", expected);
	assert_shell("cat files/made && git -C files config hook.made; "
		     "! git -C 'my repo' config hook.made; ls -A state/templates/*/files | { ! "
		     "grep -x .git; }",
		     "hooked\nyes");
	assert_false(templates_take_warning(templates, &err));
	RUN("cd 'my repo' && git config later.setting '; \"x\\y'");
	stage(template);
	assert_shell("git -C files config hook.made && git -C files config later.setting && "
		     "git -C files config --get-all hook.made | wc -l",
		     "yes\n; \"x\\y\n1");
	template_put(template);
}

static void a_failing_hook_is_told(void **state)
{
	RUN("cd 'my repo' && printf '%s\\n' '#!/bin/sh' 'echo git-lfs was not found >&2; "
	    "rm -f .git; mkdir .git; exit 2' > .git/hooks/post-checkout && "
	    "chmod +x .git/hooks/post-checkout");
	struct template *template = get();
	assert_true(templates_take_warning(templates, &err));
	assert_non_null(strstr(err.text, "git-lfs was not found"));
	assert_non_null(strstr(err.text, "post-checkout"));
	assert_false(templates_take_warning(templates, &err));
	stage(template);
	assert_shell("cd files && git status --porcelain", "");
	template_put(template);
}

static void hooks_path_is_obeyed(void **state)
{
	RUN("cd 'my repo' && mkdir hooks && printf '#!/bin/sh\\ntouch ran\\n' > "
	    "hooks/post-checkout && chmod +x hooks/post-checkout && git add . && "
	    "git commit -qm hooks && git config core.hooksPath hooks");
	resolve_head();
	struct template *template = get();
	stage(template);
	assert_shell("ls files/ran", "files/ran");
	template_put(template);
}

static void filters_and_sparse_patterns(void **state)
{
	RUN("cd 'my repo' && git config filter.up.smudge 'tr a-z A-Z' && "
	    "git config filter.up.clean 'tr A-Z a-z' && echo '*.up filter=up' > "
	    ".gitattributes && mkdir c && echo words > c/x.up && git add . && "
	    "git commit -qm up && git sparse-checkout set --no-cone '/*' '!/d'");
	resolve_head();
	struct template *template = get();
	stage(template);
	assert_shell("cd files && cat c/x.up && ls && git status --porcelain && "
		     "git sparse-checkout list",
		     "WORDS\na\nc\n/*\n!/d");
	template_put(template);
}

/* A repository with a submodule whose name has a slash in it, and one in that; none can be cloned
 * any more. */
static void make_submodules(void)
{
	RUN("export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@e GIT_COMMITTER_NAME=u "
	    "GIT_COMMITTER_EMAIL=u@e; a='-c protocol.file.allow=always'; "
	    "for i in inner lib other; do git init -q -b main $i; echo $i > $i/$i; "
	    "git -C $i add .; git -C $i commit -qm $i; done; "
	    "git -C lib $a submodule add -q \"$PWD/inner\" in; git -C lib commit -qm sub; "
	    "cd 'my repo'; git $a submodule add -q \"$PWD/../lib\" libs/foo; "
	    "git $a submodule add -q \"$PWD/../other\" other; git commit -qm subs; "
	    "git $a submodule update -q --init --recursive; git submodule -q deinit -f other; "
	    "cd ..; mv lib gone; mv inner gone2; mv other gone3");
	resolve_head();
}

/* Stages, and puts the submodules in place. */
static void stage_whole(struct template *template)
{
	char files[PATH_MAX], git[PATH_MAX];
	stage(template);
	snprintf(files, sizeof files, "%s/files", dir);
	snprintf(git, sizeof git, "%s/staged", dir);
	must(template_place_modules(template, files, git, &err));
}

static void submodules_are_ready(void **state)
{
	make_submodules();
	char *before = shell("cd 'my repo' && find .git -type f ! -path '*agentpool*' "
			     "! -path '.git/objects/*' | sort");
	struct template *template = get();
	stage_whole(template);
	assert_shell("cd files && cat libs/foo/lib libs/foo/in/inner && ls -A other && "
		     "git status --porcelain && git submodule status --recursive | cut -c 1,43-",
		     "lib\ninner\n libs/foo (heads/main)\n libs/foo/in (heads/main)\n"
		     "-other");
	assert_shell("cd files && git -C libs/foo log --format=%s && git -C libs/foo status "
		     "--porcelain && git -C libs/foo/in rev-parse --git-dir | grep -o 'staged/.*'",
		     "sub\nlib\nstaged/modules/libs/foo/modules/in");
	char *after = shell("cd 'my repo' && find .git -type f ! -path '*agentpool*' "
			    "! -path '.git/objects/*' | sort");
	assert_string_equal(after, before);
	free(before);
	free(after);
	template_put(template);
}

static void submodules_stay_inside(void **state)
{
	make_submodules();
	struct template *template = get();
	stage_whole(template);
	char *before = shell("cd 'my repo/libs/foo' && git for-each-ref && git rev-parse HEAD && "
			     "git config --list && git status --porcelain");
	RUN("cd files/libs/foo && git config user.name a && git config user.email a@e && "
	    "git branch -f main HEAD~ && git commit -q --allow-empty -m mine && "
	    "git gc -q --prune=now && cd ../.. && git add libs && git commit -qm bump && "
	    "git submodule -q deinit -f libs/foo && git submodule -q update --init libs/foo && "
	    "git submodule status libs/foo");
	char *after = shell("cd 'my repo/libs/foo' && git for-each-ref && git rev-parse HEAD && "
			    "git config --list && git status --porcelain");
	assert_string_equal(after, before);
	free(before);
	free(after);
	template_put(template);
}

/* A worktree that comes forward to another commit than the template's. */
static void submodules_move_on(void **state)
{
	make_submodules();
	struct template *template = get();
	RUN("export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@e GIT_COMMITTER_NAME=u "
	    "GIT_COMMITTER_EMAIL=u@e; cd 'my repo/libs/foo' && echo 2 > lib && git rm -q in && "
	    "git commit -qam two && cd ../.. && git commit -qam two");
	stage(template);
	RUN("cd files && git -c submodule.recurse=false checkout -q $(git -C '../my repo' "
	    "rev-parse HEAD)");
	char files[PATH_MAX], git[PATH_MAX];
	snprintf(files, sizeof files, "%s/files", dir);
	snprintf(git, sizeof git, "%s/staged", dir);
	must(template_place_modules(template, files, git, &err));
	assert_shell("cd files && git status --porcelain && cat libs/foo/lib && ls libs/foo",
		     "2\nlib");
	/* what the repository has not is empty */
	stage(template);
	RUN("cd files && git -c submodule.recurse=false checkout -q $(git -C '../my repo' "
	    "rev-parse HEAD) && o='../my repo/.git/modules/libs/foo/objects' && "
	    "c=$(git rev-parse HEAD:libs/foo) && rm -f \"$o/${c:0:2}/${c:2}\"");
	must(template_place_modules(template, files, git, &err));
	assert_shell("cd files && git status --porcelain && ls -A libs/foo", "");
	/* nor is one where the commit has files of its own */
	RUN("export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@e GIT_COMMITTER_NAME=u "
	    "GIT_COMMITTER_EMAIL=u@e; cd 'my repo' && rm -rf libs && git update-index "
	    "--force-remove libs/foo && "
	    "rm -rf libs && mkdir -p libs/foo && echo own > libs/foo/own && git add libs && "
	    "git commit -qm own");
	stage(template);
	RUN("cd files && git -c submodule.recurse=false checkout -qf $(git -C '../my repo' "
	    "rev-parse HEAD)");
	must(template_place_modules(template, files, git, &err));
	assert_shell("cd files && git status --porcelain && ls -A libs/foo && cat libs/foo/own",
		     "own\nown");
	template_put(template);
}

static void submodules_of_old(void **state)
{
	make_submodules();
	RUN("cd 'my repo/libs/foo' && git config --unset core.worktree && rm .git && "
	    "mv ../../.git/modules/libs/foo .git");
	struct template *template = get();
	stage_whole(template);
	assert_shell("cd files && cat libs/foo/lib && git status --porcelain", "lib");
	template_put(template);
}

static void hostile_submodule_names(void **state)
{
	make_submodules();
	RUN("cd 'my repo' && sed -i 's,\"libs/foo\",\"../../../x\",; "
	    "s,\"other\",\"../libs/foo\",'"
	    " .gitmodules && git config submodule.../../../x.url y && "
	    "git config submodule.../libs/foo.url y && git commit -qam evil");
	resolve_head();
	struct template *template = get();
	stage_whole(template);
	assert_shell("cd files && ls -A libs/foo other; ls ../staged/modules 2>/dev/null | wc -l",
		     "libs/foo:\n\nother:\n0");
	template_put(template);
}

static void submodules_recursed_into(void **state)
{
	make_submodules();
	RUN("cd 'my repo' && git config submodule.recurse true");
	struct template *template = get();
	stage_whole(template);
	assert_shell("cd files && git status --porcelain && cat a libs/foo/lib && "
		     "git checkout -q HEAD~ && ! ls libs/foo 2>/dev/null && git checkout -q - && "
		     "cat libs/foo/lib && git status --porcelain",
		     "1\nlib\nlib");
	template_put(template);
}

static void prepared_ones_are_as_of_now(void **state)
{
	struct template *template = get();
	must(templates_follow(templates, head, 60 * AP_SECOND, &err));
	templates_prepare(templates);
	assert_shell("ls -A state/git | wc -l", "1");
	RUN("cd 'my repo' && git branch later && git tag gone && git symbolic-ref "
	    "refs/heads/alias refs/heads/main");
	stage(template);
	assert_shell(
		"cd files && git rev-parse later > /dev/null && git symbolic-ref refs/heads/alias",
		"refs/heads/main");
	templates_prepare(templates);
	RUN("cd 'my repo' && git tag -d gone && git symbolic-ref -d refs/heads/alias");
	stage(template);
	assert_shell("cd files && git for-each-ref --format='%(refname)'",
		     "refs/heads/later\nrefs/heads/main");
	template_put(template);
}

static void new_settings_reach_the_next(void **state)
{
	struct template *template = get();
	must(templates_follow(templates, head, 60 * AP_SECOND, &err));
	templates_prepare(templates);
	RUN("cd 'my repo' && git config some.thing new && echo : > .git/hooks/pre-push && "
	    "chmod +x .git/hooks/pre-push");
	templates_prepare(templates);
	stage(template);
	assert_shell("cd files && git config some.thing && ls ../staged/hooks && "
		     "git status --porcelain && git diff-files",
		     "new\npre-push");
	template_put(template);
}

static void garbage_of_the_dead_goes(void **state)
{
	struct template *template = get();
	must(templates_follow(templates, head, 60 * AP_SECOND, &err));
	templates_prepare(templates);
	template_put(template);
	begin_again(); /* which takes the spare with it */
	RUN("mkdir -p state/git/.staged-abc/admin state/git/agent-1 state/templates/making");
	templates_forget_staged(templates);
	begin_again();
	assert_shell("ls -A state/git; ls state/templates | wc -l", "agent-1\n1");
	template = template_find(templates, head);
	assert_non_null(template);
	stage(template);
	assert_shell("cd files && git status --porcelain", "");
	template_put(template);
}

/* Worktrees of an earlier version may lie over it. */
static void one_of_an_earlier_version(void **state)
{
	struct template *template = get();
	template_put(template);
	RUN("cd state/templates/* && mkdir admin && mv git/index admin && rm -r git");
	begin_again();
	template = template_find(templates, head);
	assert_non_null(template);
	stage(template);
	assert_shell("cd files && git status --porcelain && git diff-files && cat a", "1");
	template_put(template);
}

static void what_cannot_be_made(void **state)
{
	struct template *template;
	RUN("cd 'my repo' && git config filter.no.required true && "
	    "git config filter.no.smudge false && git config filter.no.clean cat && echo 'n "
	    "filter=no' > .gitattributes && "
	    "touch n && git add . && git commit -qm no");
	resolve_head();
	assert_true(template_get(templates, head, 60 * AP_SECOND, &template, &err) < 0);
	assert_shell("ls -A state/templates; git -C 'my repo' for-each-ref refs/agentpool; "
		     "git -C 'my repo' worktree list | wc -l",
		     "1");
}

static void of_a_partial_clone(void **state)
{
	RUN("cd 'my repo' && git config uploadpack.allowFilter true && "
	    "git config uploadpack.allowAnySHA1InWant true && cd .. && "
	    "git clone -q --no-checkout --filter=blob:none \"file://$PWD/my repo\" partial");
	struct repo partial;
	char place[128];
	snprintf(place, sizeof place, "%s/partial", dir);
	must(repo_open(&partial, place, false, by_program, &err));
	templates_free(templates);
	templates = templates_new(&partial, state_dir, &spawn_copy);
	struct template *template = get();
	assert_shell(
		"cat state/templates/*/files/a; find state/templates/*/git/objects -name '*.pack'",
		"1");
	template_put(template);
	templates_free(templates);
	templates = NULL;
	repo_fini(&partial);
}

#define HERE(sentence, function)                                                                   \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = setup,                  \
		.teardown_func = teardown                                                          \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HERE("the repository knows a template by a ref alone, which holds its commit",
		     is_known_by_a_ref_alone),
		HERE("refs of templates that have gone otherwise go at the end", left_over_refs_go),
		HERE("the user's post-checkout hook runs once for a template",
		     runs_the_users_hook_once),
		HERE("a hook that fails is told, and the template is there",
		     a_failing_hook_is_told),
		HERE("hooks are where the repository says", hooks_path_is_obeyed),
		HERE("files are filtered and sparse as the repository says",
		     filters_and_sparse_patterns),
		HERE("submodule.recurse breaks nothing", submodules_recursed_into),
		HERE("submodules that are checked out are ready, without a network",
		     submodules_are_ready),
		HERE("what an agent does in a submodule stays in its own", submodules_stay_inside),
		HERE("submodules come forward with the worktree, or are empty", submodules_move_on),
		HERE("a submodule may have its git directory among its files", submodules_of_old),
		HERE("names of submodules lead nowhere else", hostile_submodule_names),
		HERE("a git directory made in advance has the refs of now",
		     prepared_ones_are_as_of_now),
		HERE("new settings and hooks of the repository are the next worktree's",
		     new_settings_reach_the_next),
		HERE("what a dead daemon began goes, what it made stays", garbage_of_the_dead_goes),
		HERE("a template of an earlier version can be used", one_of_an_earlier_version),
		HERE("a template that cannot be made leaves nothing", what_cannot_be_made),
		HERE("of a partial clone objects are fetched once, for all", of_a_partial_clone),
	};
	int failed = cmocka_run_group_tests_name("libgit2", tests, NULL, NULL);
	by_program = true;
	return failed + cmocka_run_group_tests_name("program", tests, NULL, NULL);
}
