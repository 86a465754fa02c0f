/* Saving: whatever an agent did in its worktree is on the branch of its lease afterwards, or is
 * kept by a ref below refs/agentpool/LABEL/, or the saving fails and all stays as it is. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "worktree_internal.h"

#define NESTED_DEPTH_MAX 8  /* repositories in repositories */
#define SAVE_TRIES	 10 /* while somebody else moves the branch */

/* One repository with its files: that of the worktree, or one inside it. */
struct saving {
	struct git_place place;
	const struct repo *repo; /* where what is kept goes */
	const char *label;
	const char *message;
	const char *path; /* of the repository below the worktree; "" */
	unsigned depth;
};

/* --- what there is --- */

struct look {
	bool is_changed;
	char head[GIT_OID_MAX + 1]; /* "": none yet */
	struct ap_buf nested;	    /* paths of repositories inside, each with its NUL */
};

/* The path behind `n` fields of a status line. */
static const char *field(const char *line, unsigned n)
{
	while (n-- > 0 && (line = strchr(line, ' ')))
		line++;
	return line;
}

/* One line of `git status --porcelain=v2 -z`: git-status(1). */
static void look_at_line(struct look *look, const char *line)
{
	size_t len = strlen(line);
	const char *path = NULL;
	if (sscanf(line, "# branch.oid %64[0-9a-f]", look->head) == 1 || line[0] == '#')
		return;
	look->is_changed = true;
	if (strncmp(line, "? ", 2) == 0 && line[len - 1] == '/')
		path = line + 2;
	else if (line[0] == '1' && strncmp(field(line, 2) ? field(line, 2) : "", "S", 1) == 0)
		path = field(line, 8);
	else if (line[0] == 'u' && strncmp(field(line, 2) ? field(line, 2) : "", "S", 1) == 0)
		path = field(line, 10);
	if (!path)
		return;
	len = strlen(path);
	len -= len > 0 && path[len - 1] == '/';
	if (len == 0)
		return;
	ap_buf_add(&look->nested, path, len);
	ap_buf_add(&look->nested, "", 1);
}

static int look_at(const struct saving *saving, struct look *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	int r = git_must(&saving->place, &out, err,
			 GIT_ARGS("status", "--porcelain=v2", "-z", "--branch", "--no-renames",
				  "--untracked-files=all", "--ignored=no",
				  "--ignore-submodules=none"));
	const char *at = ap_buf_text(&out), *end = at + out.len;
	for (; r == 0 && at < end; at += strlen(at) + 1)
		look_at_line(ret, at);
	return r == 0 && ret->nested.failed ? ap_err_errno(err, -ENOMEM, "status") : r;
}

/* Files that the index says are never to be looked at: an agent may have said so to git, and
 * changed them. In a sparse checkout they are those that are not there. */
static int reveal_hidden(const struct saving *saving, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf hidden = {0};
	AP_CLEANUP_BUF struct ap_buf sparse = {0};
	int r = git_must(&saving->place, &out, err, GIT_ARGS("ls-files", "-z", "-v", "--cached"));
	const char *at = ap_buf_text(&out), *end = at + out.len;
	for (; r == 0 && at < end; at += strlen(at) + 1) { /* "TAG PATH": man git-ls-files */
		if (*at == 'S' || (*at >= 'a' && *at <= 'z'))
			ap_buf_add(&hidden, at + 2, strlen(at + 2) + 1);
	}
	if (r < 0 || hidden.len == 0)
		return r;
	struct git_place place = saving->place;
	r = git_run(&place, &sparse, err, GIT_ARGS("config", "--type=bool", "core.sparseCheckout"));
	git_trim(&sparse);
	bool is_sparse = r == 0 && strcmp(ap_buf_text(&sparse), "true") == 0;
	place.in = &hidden;
	r = git_must(&place, NULL, err,
		     GIT_ARGS("update-index", "--no-assume-unchanged", "-z", "--stdin"));
	if (r == 0 && !is_sparse)
		r = git_must(&place, NULL, err,
			     GIT_ARGS("update-index", "--no-skip-worktree", "-z", "--stdin"));
	return r;
}

/* --- commits --- */

/* Appends a setting: as it is configured, else `otherwise`. */
static int config_of(const struct git_place *place, const char *name, const char *otherwise,
		     struct ap_buf *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf value = {0};
	int r = git_run(place, &value, err, GIT_ARGS("config", name));
	git_trim(&value);
	ap_buf_printf(ret, "%s=%s", name, value.len > 0 ? ap_buf_text(&value) : otherwise);
	return r < 0 ? r : ret->failed || value.failed ? -ENOMEM : 0;
}

/* Who commits, as settings of git: the user as configured, else the pool. */
struct author {
	struct ap_buf name, email;
};

#define CLEANUP_AUTHOR __attribute__((cleanup(author_fini)))

static void author_fini(struct author *author)
{
	ap_buf_fini(&author->name);
	ap_buf_fini(&author->email);
}

static int author_of(const struct git_place *place, struct author *ret, struct ap_err *err)
{
	int r = config_of(place, "user.name", "agentpoolfs", &ret->name, err);
	return r < 0 ? r
		     : config_of(place, "user.email", "agentpoolfs@localhost", &ret->email, err);
}

static int commit_tree(const struct saving *saving, const char *tree, const char *const parents[2],
		       char ret_oid[GIT_OID_MAX + 1], struct ap_err *err)
{
	CLEANUP_AUTHOR struct author author = {0};
	int r = author_of(&saving->place, &author, err);
	const char *args[16] = {"-c",		ap_buf_text(&author.name),
				"-c",		ap_buf_text(&author.email),
				"commit-tree",	"-m",
				saving->message};
	size_t n = 7;
	for (size_t i = 0; i < 2 && parents[i]; i++) {
		args[n++] = "-p";
		args[n++] = parents[i];
	}
	args[n] = tree;
	return r < 0 ? r : git_oid(&saving->place, ret_oid, err, args);
}

static bool is_ancestor(const struct git_place *place, const char *old, const char *new)
{
	return strcmp(old, new) == 0 ||
	       git_run(place, NULL, NULL, GIT_ARGS("merge-base", "--is-ancestor", old, new)) == 0;
}

/* The tree of all files. */
static int write_tree(const struct saving *saving, char ret_oid[GIT_OID_MAX + 1],
		      struct ap_err *err)
{
	int r = git_must(&saving->place, NULL, err, GIT_ARGS("add", "--all", "--sparse"));
	return r < 0 ? r : git_oid(&saving->place, ret_oid, err, GIT_ARGS("write-tree"));
}

/* The commit that holds all files and has both the branch's tip and HEAD as ancestors: one of the
 * two if its files are the same already, else a new one. */
static int commit_all(const struct saving *saving, const char *tip, const char *head,
		      bool is_changed, char ret_oid[GIT_OID_MAX + 1], struct ap_err *err)
{
	const struct git_place *place = &saving->place;
	const char *parents[2] = {*tip ? tip : head, head};
	char tree[GIT_OID_MAX + 1], parent_tree[GIT_OID_MAX + 1];
	if (!*tip || is_ancestor(place, tip, head))
		parents[0] = *head ? head : NULL, parents[1] = NULL;
	else if (!*head || is_ancestor(place, head, tip))
		parents[1] = NULL;
	if (!is_changed && parents[0] == head) {
		strcpy(ret_oid, head);
		return 0;
	}
	int r = write_tree(saving, tree, err);
	if (r == 0 && parents[0] && !parents[1]) {
		AP_CLEANUP_BUF struct ap_buf revision = {0};
		ap_buf_printf(&revision, "%s^{tree}", parents[0]);
		r = git_oid(place, parent_tree, err,
			    GIT_ARGS("rev-parse", "--verify", "--quiet", ap_buf_text(&revision)));
		if (r == 0 && strcmp(parent_tree, tree) == 0) {
			strcpy(ret_oid, parents[0]);
			return 0;
		}
	}
	return r < 0 ? r : commit_tree(saving, tree, parents, ret_oid, err);
}

/* --- what a branch cannot hold --- */

/* Appends the name of a ref that is called after a path: what a ref cannot hold is written %XX. */
static void add_ref_path(struct ap_buf *ref, const char *path)
{
#define IS_PLAIN(c)                                                                                \
	(((c) >= 'a' && (c) <= 'z') || ((c) >= 'A' && (c) <= 'Z') || ((c) >= '0' && (c) <= '9'))
	for (const char *at = path; *at; at++) {
		bool in_word = at > path && IS_PLAIN(at[-1]) && IS_PLAIN(at[1]);
		if (IS_PLAIN(*at) || *at == '-' || *at == '_' || *at == '/' ||
		    (*at == '.' && in_word && strncmp(at, ".lock", 5) != 0))
			ap_buf_add(ref, at, 1);
		else
			ap_buf_printf(ref, "%%%02X", (unsigned char)*at);
	}
#undef IS_PLAIN
}

/* Fetches the commits of a repository that is inside the worktree, all its branches and its stash,
 * to refs called after its path. Those that it has from a remote of its own are not work. */
static int keep_commits(const struct saving *inner, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf own = {0};
	AP_CLEANUP_BUF struct ap_buf kept = {0};
	AP_CLEANUP_BUF struct ap_buf head = {0};
	AP_CLEANUP_BUF struct ap_buf heads = {0};
	AP_CLEANUP_BUF struct ap_buf stash = {0};
	char oid[GIT_OID_MAX + 1];
	bool has_head = git_rev_parse(&inner->place, "HEAD", oid, NULL) == 0;
	bool has_stash = git_rev_parse(&inner->place, "refs/stash", oid, NULL) == 0;
	int r = git_run(&inner->place, &own, err,
			GIT_ARGS("rev-list", "--max-count=1", "--branches", "--glob=refs/stash",
				 has_head ? "HEAD" : "--not", "--not", "--remotes"));
	if (r != 0 || own.len == 0)
		return r > 0 ? -EIO : r;
	ap_buf_printf(&kept, WORKTREE_KEPT_PREFIX "%s/", inner->label);
	add_ref_path(&kept, inner->path);
	ap_buf_printf(&heads, "+refs/heads/*:%s/heads/*", ap_buf_text(&kept));
	if (has_head)
		ap_buf_printf(&head, "+HEAD:%s/HEAD", ap_buf_text(&kept));
	if (has_stash)
		ap_buf_printf(&stash, "+refs/stash:%s/stash", ap_buf_text(&kept));
	const char *args[12] = {"fetch",
				"--quiet",
				"--no-tags",
				"--no-write-fetch-head",
				"--no-recurse-submodules",
				"--no-auto-maintenance",
				"--",
				inner->place.git_dir,
				ap_buf_text(&heads)};
	size_t n = 9;
	if (has_head)
		args[n++] = ap_buf_text(&head);
	if (has_stash)
		args[n++] = ap_buf_text(&stash);
	const struct git_place all = {.git_dir = inner->repo->common_dir};
	return git_must(&all, NULL, err, args);
}

static int save_nested(const struct saving *outer, const struct look *look, struct ap_err *err);

/* Commits what is changed in a repository inside the worktree on its own branch, and keeps its
 * commits. A tree can name that commit then. */
static int save_repository(const struct saving *outer, const char *path, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf files = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf whole = {0};
	ap_buf_printf(&files, "%s/%s", outer->place.work_tree, path);
	ap_buf_printf(&whole, *outer->path ? "%s/%s" : "%s%s", outer->path, path);
	const struct git_place any = {0};
	if (outer->depth >= NESTED_DEPTH_MAX)
		return ap_err_set(err, -EIO, "%s: repositories in repositories", path);
	int r = git_must(&any, &out, err,
			 GIT_ARGS("-C", ap_buf_text(&files), "rev-parse", "--absolute-git-dir",
				  "--show-prefix"));
	const char *newline = strchr(ap_buf_text(&out), '\n');
	if (r < 0 || !newline || newline[1] != '\n')
		/* a directory, whatever it was: no repository of its own is there */
		return r < 0 ? r : ap_err_set(err, -EIO, "%s is no repository", path);
	AP_CLEANUP_FREE char *git_dir =
		strndup(ap_buf_text(&out), (size_t)(newline - ap_buf_text(&out)));
	struct saving inner = *outer;
	inner.place = (struct git_place){.git_dir = git_dir, .work_tree = ap_buf_text(&files)};
	inner.path = ap_buf_text(&whole);
	inner.depth++;
	struct look look = {.is_changed = false};
	char saved[GIT_OID_MAX + 1];
	r = git_dir ? look_at(&inner, &look, err) : ap_err_errno(err, -ENOMEM, "%s", path);
	if (r == 0)
		r = save_nested(&inner, &look, err);
	if (r == 0) /* one without a commit gets one: else no tree can name it */
		r = commit_all(&inner, "", look.head, look.is_changed || !look.head[0], saved, err);
	if (r == 0 && strcmp(saved, look.head) != 0)
		r = git_must(&inner.place, NULL, err, GIT_ARGS("update-ref", "HEAD", saved));
	if (r == 0)
		r = keep_commits(&inner, err);
	ap_buf_fini(&look.nested);
	return r < 0 ? ap_err_wrap(err, r, "%s is a git repository of its own", path) : 0;
}

static int save_nested(const struct saving *outer, const struct look *look, struct ap_err *err)
{
	const char *at = ap_buf_text(&look->nested), *end = at + look->nested.len;
	int r = 0;
	for (; r == 0 && at < end; at += strlen(at) + 1) {
		AP_CLEANUP_BUF struct ap_buf link = {0};
		ap_buf_printf(&link, "%s/%s/.git", outer->place.work_tree, at);
		if (access(ap_buf_text(&link), F_OK) == 0) /* else a submodule not checked out */
			r = save_repository(outer, at, err);
	}
	return r;
}

/* Repositories that are not files of the worktree: what stands in place of its `.git`, and those
 * of submodules, which git keeps elsewhere. */
static int keep_hidden_repositories(const struct saving *saving, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct stat st;
	struct saving inner = *saving;
	int r = 0;
	ap_buf_printf(&path, "%s/.git", saving->place.work_tree);
	inner.place = (struct git_place){.git_dir = ap_buf_text(&path)};
	inner.path = ".git";
	if (lstat(ap_buf_text(&path), &st) == 0 && S_ISDIR(st.st_mode) &&
	    git_run(&inner.place, NULL, NULL, GIT_ARGS("rev-parse", "--git-dir")) == 0)
		r = keep_commits(&inner, err);

	path.len = 0;
	ap_buf_printf(&path, "%s/modules", saving->place.git_dir);
	DIR *entries = opendir(ap_buf_text(&path));
	struct dirent *entry;
	while (r == 0 && entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf module = {0};
		AP_CLEANUP_BUF struct ap_buf name = {0};
		ap_buf_printf(&module, "%s/%s", ap_buf_text(&path), entry->d_name);
		ap_buf_printf(&name, "modules/%s", entry->d_name);
		inner.place = (struct git_place){.git_dir = ap_buf_text(&module)};
		inner.path = ap_buf_text(&name);
		if (entry->d_name[0] != '.' &&
		    file_read_line(ap_buf_text(&module), "HEAD", (char[8]){""}, 8) == 0)
			r = keep_commits(&inner, err);
	}
	if (entries)
		closedir(entries);
	return r;
}

/* --- commits that are on no branch --- */

/* Adds the commits that a reflog went to, a line each: git keeps "OLD NEW who\twhat" lines. */
static void add_reflog(const char *dir, const char *name, const char *mark, struct ap_buf *ret)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	FILE *file = fopen(ap_buf_text(&path), "re");
	AP_CLEANUP_FREE char *line = NULL;
	size_t size = 0;
	char last[GIT_OID_MAX + 1] = "", oid[GIT_OID_MAX + 1];
	while (file && getline(&line, &size, file) > 0) {
		if (sscanf(line, "%*s %64[0-9a-f]", oid) == 1 && strcmp(oid, last) != 0 &&
		    strspn(oid, "0") != strlen(oid)) {
			ap_buf_printf(ret, "%s%s\n", mark, oid);
			strcpy(last, oid);
		}
	}
	if (file)
		fclose(file);
}

/* Whether any line names a commit that none of `known` is. */
static bool has_unknown(const struct ap_buf *lines, const char *const *known)
{
	for (const char *at = ap_buf_text(lines); *at; at += strcspn(at, "\n") + 1) {
		bool found = false;
		for (size_t i = 0; known[i] && !found; i++)
			found = known[i][0] && strncmp(at, known[i], strlen(known[i])) == 0;
		if (!found)
			return true;
	}
	return false;
}

/* Whether the commit that a line of `git rev-list --parents` begins with is a parent in any. */
static bool is_parent(const struct ap_buf *lines, const char *line, size_t oid_len)
{
	char word[GIT_OID_MAX + 2] = " ";
	memcpy(word + 1, line, oid_len);
	word[oid_len + 1] = '\0';
	return strstr(ap_buf_text(lines), word) != NULL;
}

/* Keeps the commits that HEAD was at during the lease and that nothing leads to any more. Those
 * that the branch was at stay in the branch's own reflog, as long as the branch stays. */
static int keep_left_behind(const struct saving *saving, const char *saved,
			    const char *const *known, bool branch_stays, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf commits = {0};
	AP_CLEANUP_BUF struct ap_buf branch_log = {0};
	AP_CLEANUP_BUF struct ap_buf left = {0};
	char autostash[GIT_OID_MAX + 2];
	const char *admin = saving->place.git_dir;
	struct git_place place = saving->place;
	add_reflog(admin, "logs/HEAD", "", &commits);
	if (file_read_line(admin, "rebase-merge/autostash", autostash, sizeof autostash) == 0)
		ap_buf_printf(&commits, "%s\n", autostash);
	if (commits.len == 0 || !has_unknown(&commits, known))
		return 0;
	ap_buf_printf(&branch_log, "logs/refs/heads/" WORKTREE_BRANCH_PREFIX "%s", saving->label);
	if (branch_stays)
		add_reflog(saving->repo->common_dir, ap_buf_text(&branch_log), "^", &commits);
	place.in = &commits;
	int r = git_must(&place, &left, err,
			 GIT_ARGS("rev-list", "--parents", "--ignore-missing", "--stdin", "--not",
				  saved, "--branches", "--tags", "--remotes",
				  "--glob=" WORKTREE_KEPT_PREFIX "*"));
	const char *at = ap_buf_text(&left);
	for (; r == 0 && *at; at += strcspn(at, "\n") + 1) {
		AP_CLEANUP_BUF struct ap_buf ref = {0};
		size_t len = strspn(at, "0123456789abcdef");
		if (is_parent(&left, at, len))
			continue;
		ap_buf_printf(&ref, WORKTREE_KEPT_PREFIX "%s/left-behind/%.12s", saving->label, at);
		char oid[GIT_OID_MAX + 1] = "";
		memcpy(oid, at, len);
		r = git_must(&place, NULL, err, GIT_ARGS("update-ref", ap_buf_text(&ref), oid));
	}
	return r;
}

/* --- saving --- */

/* Puts the branch at `saved`, or removes it if nothing was made on it. */
static int update_branch(const struct saving *saving, const struct worktree_lease *lease,
			 const char *tip, const char *saved, struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32];
	const struct git_place place = {.git_dir = saving->repo->common_dir};
	branch_ref(ref, lease->label);
	if (lease->created && strcmp(saved, lease->base) == 0)
		return *tip ? git_must(&place, NULL, err, GIT_ARGS("update-ref", "-d", ref, tip))
			    : 0;
	if (strcmp(saved, tip) == 0)
		return 0;
	return git_must(&place, NULL, err,
			GIT_ARGS("update-ref", "-m", "agentpoolfs: lease ended", ref, saved,
				 *tip ? tip : ""));
}

/* Has the branch hold all files and both histories. */
static int save_on_branch(const struct saving *saving, const struct worktree_lease *lease,
			  const struct look *look, const char *tip, struct ap_err *err)
{
	char saved[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf head_path = {0};
	/* HEAD may be on a branch without a commit: where the lease began then */
	const char *head = look->head[0] ? look->head : *tip ? tip : lease->base;
	int r = commit_all(saving, tip, head, look->is_changed, saved, err);
	if (r == 0)
		r = keep_left_behind(saving, saved,
				     (const char *const[]){lease->base, head, tip, NULL},
				     !lease->created || strcmp(saved, lease->base) != 0, err);
	/* off the branch: the next lease of the label may be in another worktree */
	ap_buf_printf(&head_path, "%s/HEAD", saving->place.git_dir);
	if (r == 0)
		r = file_printf(ap_buf_text(&head_path), err, "%s\n", saved);
	return r < 0 ? r : update_branch(saving, lease, tip, saved, err);
}

/* Somebody else may move the branch meanwhile: what was made of it is built upon then. */
static int save_on_moving_branch(const struct saving *saving, const struct worktree_lease *lease,
				 const struct look *look, struct ap_err *err)
{
	const struct git_place place = {.git_dir = saving->repo->common_dir};
	char ref[AP_LABEL_MAX + 32], tip[GIT_OID_MAX + 1] = "", before[GIT_OID_MAX + 1];
	branch_ref(ref, lease->label);
	int r = git_resolve(saving->repo->resolver, ref, tip, err);
	for (unsigned tries = 0; r >= 0; tries++) {
		if (r > 0)
			tip[0] = '\0'; /* the agent deleted or renamed it */
		r = save_on_branch(saving, lease, look, tip, err);
		if (r == 0 || tries == SAVE_TRIES)
			break;
		struct ap_err why = *err;
		strcpy(before, tip);
		r = git_rev_parse(&place, ref, tip, err);
		if (r >= 0 && strcmp(r > 0 ? "" : tip, before) == 0) { /* that was not it */
			*err = why;
			return -EIO;
		}
	}
	return r;
}

static int save_all(const struct saving *saving, const struct worktree_lease *lease,
		    struct ap_err *err)
{
	struct look look = {.is_changed = false};
	int r = reveal_hidden(saving, err);
	if (r == 0)
		r = look_at(saving, &look, err);
	if (r == 0)
		r = save_nested(saving, &look, err);
	ap_buf_fini(&look.nested);
	if (r == 0)
		r = keep_hidden_repositories(saving, err);
	return r < 0 ? r : save_on_moving_branch(saving, lease, &look, err);
}

static struct saving saving_of(const struct worktree *worktree, const struct worktree_lease *lease,
			       const char *message)
{
	return (struct saving){
		.place = place_of(worktree),
		.repo = worktree->repo,
		.label = lease->label,
		.message = message,
		.path = "",
	};
}

int worktree_save(struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, struct ap_err *err)
{
	int r = worktree_attach(worktree, err); /* else all files would count as deleted */
	if (r == 0)
		r = worktree_repair(worktree, lease->base, err);
	const struct saving saving = saving_of(worktree, lease, message);
	if (r == 0)
		r = save_all(&saving, lease, err);
	return r < 0 ? ap_err_wrap(err, r, "saving the work of lease %s", lease->label) : 0;
}

/* On the lease's branch, or on none: others are the user's. */
static int check_branch(const struct saving *saving, struct ap_err *err)
{
	char own[AP_LABEL_MAX + 32];
	AP_CLEANUP_BUF struct ap_buf head = {0};
	int r = git_run(&saving->place, &head, err, GIT_ARGS("symbolic-ref", "--quiet", "HEAD"));
	branch_ref(own, saving->label);
	git_trim(&head);
	if (r == 0 && strcmp(ap_buf_text(&head), own) != 0)
		r = ap_err_set(err, -EBUSY, "the worktree is on %.256s, not on %s",
			       ap_buf_text(&head), own);
	return r < 0 ? r : 0;
}

/* A merge that changes no file is something to commit too. */
static int check_staged(const struct saving *saving, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf merge = {0};
	ap_buf_printf(&merge, "%s/MERGE_HEAD", saving->place.git_dir);
	int r = git_run(&saving->place, NULL, err, GIT_ARGS("diff", "--cached", "--quiet"));
	if (r == 0 && access(ap_buf_text(&merge), F_OK) < 0)
		r = ap_err_set(err, -ENODATA, "nothing has changed since the last commit");
	return r < 0 ? r : 0;
}

static int commit_changes(const struct saving *saving, struct ap_err *err)
{
	CLEANUP_AUTHOR struct author author = {0};
	int r = git_must(&saving->place, NULL, err, GIT_ARGS("add", "--all", "--sparse"));
	if (r == 0)
		r = check_staged(saving, err);
	if (r == 0)
		r = author_of(&saving->place, &author, err);
	if (r == 0)
		r = git_must(&saving->place, NULL, err,
			     GIT_ARGS("-c", ap_buf_text(&author.name), "-c",
				      ap_buf_text(&author.email), "commit", "--quiet",
				      "--cleanup=whitespace", "-m", saving->message));
	return r;
}

int worktree_commit(struct worktree *worktree, const struct worktree_lease *lease,
		    const char *message, struct ap_err *err)
{
	struct look look = {.is_changed = false};
	const struct saving saving = saving_of(worktree, lease, message);
	int r = worktree_attach(worktree, err);
	if (r == 0)
		r = check_branch(&saving, err);
	if (r == 0)
		r = look_at(&saving, &look, err);
	if (r == 0)
		r = save_nested(&saving, &look, err);
	ap_buf_fini(&look.nested);
	return r < 0 ? r : commit_changes(&saving, err);
}
