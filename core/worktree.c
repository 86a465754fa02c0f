#include "worktree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "process.h"

#define GIT_LIMIT    (120 * AP_SECOND) /* of one git command on a worktree */
#define GIT_MAX_ARGS 40

/* Sets where git works: a repository as a whole, or one worktree of it. */
struct place {
	const char *git_dir;
	const char *work_tree; /* NULL: none */
	const char *index;     /* another index file; NULL: the worktree's own */
	bool with_hooks;
	int64_t limit_ns;
};

static struct place place_repo(const struct repo *repo)
{
	return (struct place){.git_dir = repo->common_dir, .limit_ns = GIT_LIMIT};
}

static struct place place_worktree(const struct worktree *worktree)
{
	return (struct place){
		.git_dir = worktree->admin_dir, .work_tree = worktree->path, .limit_ns = GIT_LIMIT};
}

/* Runs git with the words of `args`. Its exit code or a negative errno; prints to `out`. */
static int git_run(const struct place *place, struct ap_buf *out, struct ap_err *err,
		   const char *const *args)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	const char *env[] = {"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", NULL,
			     NULL};
	const char *argv[GIT_MAX_ARGS] = {"git"};
	static const char *const settings[] = {"core.fsmonitor=false", "core.quotePath=false",
					       "gc.auto=0", "advice.detachedHead=false",
					       "commit.gpgSign=false"};
	size_t n = 1;
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
		argv[n++] = "-c";
		argv[n++] = settings[i];
	}
	if (!place->with_hooks) {
		argv[n++] = "-c";
		argv[n++] = "core.hooksPath=/dev/null";
	}
	argv[n++] = "--git-dir";
	argv[n++] = place->git_dir;
	if (place->work_tree) {
		argv[n++] = "--work-tree";
		argv[n++] = place->work_tree;
	}
	if (place->index) {
		ap_buf_printf(&index, "GIT_INDEX_FILE=%s", place->index);
		env[3] = ap_buf_text(&index);
	}
	for (; *args && n < GIT_MAX_ARGS - 1; args++)
		argv[n++] = *args;
	argv[n] = NULL;
	return process_run(
		&(struct process_run){
			.argv = argv,
			.env = env,
			.dir = place->work_tree ? place->work_tree : place->git_dir,
			.limit_ns = place->limit_ns,
			.out = out,
		},
		err);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* As git_run, for commands where any exit code but 0 is a failure: -EIO then. */
static int git_must(const struct place *place, struct ap_buf *out, struct ap_err *err,
		    const char *const *args)
{
	int r = git_run(place, out, err, args);
	return r > 0 ? -EIO : r;
}

static void trim_line(struct ap_buf *buf)
{
	while (buf->len > 0 && buf->data[buf->len - 1] == '\n')
		buf->data[--buf->len] = '\0';
}

/* Copies an object name that git printed. */
static int oid_copy(char ret[WORKTREE_OID_MAX + 1], struct ap_buf *line, struct ap_err *err)
{
	trim_line(line);
	if (line->len == 0 || line->len > WORKTREE_OID_MAX)
		return ap_err_set(err, -EIO, "git: '%.80s' is no object name", ap_buf_text(line));
	memcpy(ret, line->data, line->len + 1);
	return 0;
}

/* The commit of a revision in a place. 0, 1 (there is none) or negative errno. */
static int rev_parse(const struct place *place, const char *revision,
		     char ret_oid[WORKTREE_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf commit = {0};
	ap_buf_printf(&commit, "%s^{commit}", revision);
	int r = git_run(
		place, &out, err,
		ARGS("rev-parse", "--verify", "--quiet", "--end-of-options", ap_buf_text(&commit)));
	if (r != 0)
		return r < 0 ? r : 1;
	return oid_copy(ret_oid, &out, err);
}

int repo_open(struct repo *ret, const char *path, struct ap_err *err)
{
	AP_CLEANUP_FREE char *real = realpath(path, NULL);
	if (!real)
		return ap_err_errno(err, -errno, "%s", path);
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const char *argv[] = {"git",
			      "-C",
			      real,
			      "rev-parse",
			      "--path-format=absolute",
			      "--git-dir",
			      "--git-common-dir",
			      NULL};
	struct process_run run = {
		.argv = argv, .env = ARGS("LC_ALL=C"), .limit_ns = GIT_LIMIT, .out = &out};
	int r = process_run(&run, err);
	if (r < 0)
		return r;
	if (r > 0)
		return ap_err_wrap(err, -EINVAL, "%s is not usable as a git repository", path);
	trim_line(&out);
	const char *newline = strchr(ap_buf_text(&out), '\n');
	if (out.failed || !newline)
		return ap_err_set(err, -EIO, "git does not say where the repository %s is", path);
	struct repo repo = {
		.path = ap_steal(real),
		.git_dir = strndup(out.data, (size_t)(newline - out.data)),
		.common_dir = strdup(newline + 1),
	};
	char head[WORKTREE_OID_MAX + 1];
	if (!repo.git_dir || !repo.common_dir)
		r = ap_err_errno(err, -ENOMEM, "%s", path);
	else if (repo_resolve(&repo, "HEAD", head, NULL) < 0)
		r = ap_err_set(err, -EINVAL, "%s has no commit yet: make a first one", path);
	if (r < 0)
		repo_fini(&repo);
	else
		*ret = repo;
	return r;
}

void repo_fini(struct repo *repo)
{
	free(repo->path);
	free(repo->git_dir);
	free(repo->common_dir);
	*repo = (struct repo){0};
}

int repo_resolve(const struct repo *repo, const char *revision, char ret_oid[WORKTREE_OID_MAX + 1],
		 struct ap_err *err)
{
	struct place place = place_repo(repo);
	place.git_dir = repo->git_dir; /* HEAD is the user's own there */
	int r = rev_parse(&place, revision, ret_oid, err);
	if (r > 0)
		return ap_err_set(err, -EINVAL, "'%s' names no commit of %s", revision, repo->path);
	return r;
}

/* --- life of a worktree --- */

/* The administrative directory that a worktree's `.git` file names, if it is one of the
 * repository's: what an agent may have written there instead is not followed. */
static int admin_dir_of(const struct repo *repo, const char *path, char **ret, struct ap_err *err)
{
	AP_CLEANUP_FREE char *link = NULL;
	char text[PATH_MAX + 16];
	if (asprintf(&link, "%s/.git", path) < 0) {
		link = NULL;
		return ap_err_errno(err, -ENOMEM, "%s", path);
	}
	AP_CLEANUP_CLOSE int fd = open(link, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	const char *dir = text + strlen("gitdir: ");
	size_t common = strlen(repo->common_dir);
	if (strncmp(text, "gitdir: ", strlen("gitdir: ")) != 0 ||
	    strncmp(dir, repo->common_dir, common) != 0 ||
	    strncmp(dir + common, "/worktrees/", strlen("/worktrees/")) != 0 || strstr(dir, "/../"))
		return ap_err_set(err, -EIO, "%s is no worktree of %s", path, repo->path);
	*ret = strdup(dir);
	return *ret ? 0 : ap_err_errno(err, -ENOMEM, "%s", path);
}

int worktree_open(struct worktree *ret, const struct repo *repo, const char *path,
		  const char *admin_dir, struct ap_err *err)
{
	AP_CLEANUP_FREE char *real = realpath(path, NULL);
	char *admin = NULL;
	if (!real)
		return ap_err_errno(err, -errno, "%s", path);
	int r = 0;
	if (!admin_dir)
		r = admin_dir_of(repo, real, &admin, err);
	else if (!(admin = strdup(admin_dir)))
		r = ap_err_errno(err, -ENOMEM, "%s", path);
	if (r < 0)
		return r;
	*ret = (struct worktree){.repo = repo, .path = ap_steal(real), .admin_dir = admin};
	return 0;
}

int worktree_add(struct worktree *ret, const struct repo *repo, const char *path, const char *base,
		 int64_t limit_ns, struct ap_err *err)
{
	struct place place = place_repo(repo);
	place.with_hooks = true; /* the user's post-checkout hook, as `git worktree add` runs it */
	place.limit_ns = limit_ns;
	int r = git_must(&place, NULL, err,
			 ARGS("worktree", "add", "--quiet", "--detach", path, base));
	if (r == 0)
		r = worktree_open(ret, repo, path, NULL, err);
	if (r < 0) { /* half-made things go */
		place = place_repo(repo);
		git_run(&place, NULL, NULL, ARGS("worktree", "remove", "-f", "-f", path));
		process_remove_tree(path, NULL);
		git_run(&place, NULL, NULL, ARGS("worktree", "prune"));
	}
	return r;
}

void worktree_fini(struct worktree *worktree)
{
	free(worktree->path);
	free(worktree->admin_dir);
	*worktree = (struct worktree){0};
}

bool worktree_present(const struct worktree *worktree)
{
	return worktree->path && access(worktree->path, X_OK) == 0 &&
	       access(worktree->admin_dir, X_OK) == 0;
}

/* Ends what an agent left unfinished and what would hold the next lease on the last one's branch.
 */
static int forget_unfinished(const struct worktree *worktree, struct ap_err *err)
{
	static const char *const traces[] = {"rebase-merge", "rebase-apply", "sequencer",
					     "BISECT_LOG",   "BISECT_START", "BISECT_TERMS",
					     "BISECT_NAMES", "refs"};
	for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", worktree->admin_dir, traces[i]);
		int r = access(ap_buf_text(&path), F_OK) == 0
				? process_remove_tree(ap_buf_text(&path), err)
				: 0;
		if (r < 0)
			return r;
	}
	return 0;
}

int worktree_clean(const struct worktree *worktree, const char *base, struct ap_err *err)
{
	struct place place = place_worktree(worktree);
	int r = forget_unfinished(worktree, err);
	/* reset ends an unfinished merge, cherry-pick or revert */
	if (r == 0)
		r = git_must(&place, NULL, err, ARGS("reset", "--quiet", "--hard"));
	if (r == 0)
		r = git_must(&place, NULL, err,
			     ARGS("checkout", "--quiet", "--force", "--detach", base));
	if (r == 0)
		r = git_must(&place, NULL, err, ARGS("clean", "-ffdxq"));
	if (r < 0)
		return ap_err_wrap(err, r, "cleaning %s", worktree->path);
	/* an agent may have replaced the link to its repository: `clean` leaves `.git` alone */
	AP_CLEANUP_BUF struct ap_buf link = {0};
	ap_buf_printf(&link, "%s/.git", worktree->path);
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&link),
				       O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (fd < 0)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&link));
	if (dprintf(fd, "gitdir: %s\n", worktree->admin_dir) < 0)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&link));
	return 0;
}

int worktree_remove(const struct worktree *worktree, struct ap_err *err)
{
	int r = process_remove_tree(worktree->path, err);
	if (r == 0)
		r = process_remove_tree(worktree->admin_dir, err);
	if (r < 0)
		return ap_err_wrap(err, r, "removing %s", worktree->path);
	/* git removes the directory of the last worktree too */
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	ap_buf_printf(&dir, "%s/worktrees", worktree->repo->common_dir);
	(void)rmdir(ap_buf_text(&dir)); /* not empty: other worktrees */
	return 0;
}

/* --- lease branches --- */

static void branch_name(char ret[AP_LABEL_MAX + 16], const char *label)
{
	snprintf(ret, AP_LABEL_MAX + 16, WORKTREE_BRANCH_PREFIX "%s", label);
}

static void branch_ref(char ret[AP_LABEL_MAX + 32], const char *label)
{
	snprintf(ret, AP_LABEL_MAX + 32, "refs/heads/" WORKTREE_BRANCH_PREFIX "%s", label);
}

int worktree_start(const struct worktree *worktree, const char *base_revision,
		   struct worktree_lease *lease, struct ap_err *err)
{
	char branch[AP_LABEL_MAX + 16], ref[AP_LABEL_MAX + 32];
	branch_name(branch, lease->label);
	branch_ref(ref, lease->label);
	struct place place = place_worktree(worktree);
	int r = rev_parse(&place, ref, lease->base, err);
	if (r < 0)
		return r;
	if (r == 0) {
		lease->created = false;
		r = git_run(&place, NULL, err,
			    ARGS("checkout", "--quiet", "--force", branch, "--"));
		if (r > 0 && strstr(err->text, "already "))
			return -EBUSY; /* … checked out at, … used by worktree at */
		return r > 0 ? -EIO : r;
	}
	lease->created = true;
	r = repo_resolve(worktree->repo, base_revision, lease->base, err);
	if (r < 0)
		return r;
	return git_must(
		&place, NULL, err,
		ARGS("checkout", "--quiet", "--force", "--no-track", "-b", branch, lease->base));
}

/* Who the saving commits are by: the user as configured, else the pool. */
static int identity(const struct place *place, struct ap_buf *ret_name, struct ap_buf *ret_email,
		    struct ap_err *err)
{
	int r = git_run(place, ret_name, err, ARGS("config", "user.name"));
	if (r >= 0)
		r = git_run(place, ret_email, err, ARGS("config", "user.email"));
	if (r < 0)
		return r;
	trim_line(ret_name);
	trim_line(ret_email);
	if (ret_name->len == 0)
		ap_buf_adds(ret_name, "agentpoolfs");
	if (ret_email->len == 0)
		ap_buf_adds(ret_email, "agentpoolfs@localhost");
	return ret_name->failed || ret_email->failed ? -ENOMEM : 0;
}

static int commit_tree(const struct place *place, const char *tree, const char *const parents[2],
		       const char *message, char ret_oid[WORKTREE_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_BUF struct ap_buf email = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_BUF struct ap_buf set_name = {0};
	AP_CLEANUP_BUF struct ap_buf set_email = {0};
	int r = identity(place, &name, &email, err);
	if (r < 0)
		return r;
	ap_buf_printf(&set_name, "user.name=%s", ap_buf_text(&name));
	ap_buf_printf(&set_email, "user.email=%s", ap_buf_text(&email));
	const char *args[] = {"-c",	     ap_buf_text(&set_name),
			      "-c",	     ap_buf_text(&set_email),
			      "commit-tree", "-m",
			      message,	     "-p",
			      parents[0],    parents[1] ? "-p" : tree,
			      parents[1],    parents[1] ? tree : NULL,
			      NULL};
	r = git_must(place, &out, err, args);
	return r < 0 ? r : oid_copy(ret_oid, &out, err);
}

static bool is_ancestor(const struct place *place, const char *old, const char *new)
{
	return git_run(place, NULL, NULL, ARGS("merge-base", "--is-ancestor", old, new)) == 0;
}

/* The commit that holds `tree` and, as ancestors, both the branch's tip and HEAD: one of the two if
 * its tree is `tree` already, else a new one. */
static int commit_on(const struct place *place, const char *tip, const char *head, const char *tree,
		     const char *message, char ret_oid[WORKTREE_OID_MAX + 1], struct ap_err *err)
{
	const char *parents[2] = {tip, head};
	if (!*tip || is_ancestor(place, tip, head))
		parents[0] = head, parents[1] = NULL;
	else if (is_ancestor(place, head, tip))
		parents[1] = NULL;
	if (!parents[1]) {
		AP_CLEANUP_BUF struct ap_buf out = {0};
		AP_CLEANUP_BUF struct ap_buf revision = {0};
		char parent_tree[WORKTREE_OID_MAX + 1];
		ap_buf_printf(&revision, "%s^{tree}", parents[0]);
		int r = git_must(place, &out, err,
				 ARGS("rev-parse", "--verify", "--quiet", ap_buf_text(&revision)));
		if (r == 0)
			r = oid_copy(parent_tree, &out, err);
		if (r < 0)
			return r;
		if (strcmp(parent_tree, tree) == 0) {
			strcpy(ret_oid, parents[0]);
			return 0;
		}
	}
	return commit_tree(place, tree, parents, message, ret_oid, err);
}

/* Takes it out of the index again, so that it can be saved as files once it is none any more. */
static int refuse_path(const struct place *place, const char *path, size_t len, struct ap_err *err)
{
	AP_CLEANUP_FREE char *name = strndup(path, len);
	if (name)
		git_run(place, NULL, NULL, ARGS("reset", "--quiet", "--", name));
	return ap_err_set(err, -EIO, "%.*s is a git repository of its own", (int)len, path);
}

/* A repository inside the worktree is only named by a tree, not held: its work would go with the
 * cleaning. -EIO names the first one that the lease made or changed. */
static int refuse_nested(const struct place *place, const char *base, struct ap_err *err)
{
	const char *const *const looks[] = {
		ARGS("diff-index", "--cached", "--raw", base),
		ARGS("diff-files", "--raw", "--ignore-submodules=none"),
	};
	for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
		AP_CLEANUP_BUF struct ap_buf out = {0};
		int r = git_must(place, &out, err, looks[i]);
		if (r < 0)
			return r;
		for (const char *line = ap_buf_text(&out); *line;) { /* ":OLD NEW …<tab>PATH" */
			size_t len = strcspn(line, "\n");
			const char *path = memchr(line, '\t', len);
			if (path && len > 14 && strncmp(line + 8, "160000", 6) == 0)
				return refuse_path(place, path + 1, (size_t)(line + len - path - 1),
						   err);
			line += len + (line[len] == '\n');
		}
	}
	return 0;
}

int worktree_save(const struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, struct ap_err *err)
{
	struct place place = place_worktree(worktree);
	char ref[AP_LABEL_MAX + 32];
	char tip[WORKTREE_OID_MAX + 1] = "", head[WORKTREE_OID_MAX + 1], tree[WORKTREE_OID_MAX + 1],
				    saved[WORKTREE_OID_MAX + 1];
	branch_ref(ref, lease->label);
	AP_CLEANUP_BUF struct ap_buf out = {0};
	int r = git_must(&place, NULL, err, ARGS("add", "--all"));
	if (r == 0)
		r = refuse_nested(&place, lease->base, err);
	if (r == 0)
		r = git_must(&place, &out, err, ARGS("write-tree"));
	if (r == 0)
		r = oid_copy(tree, &out, err);
	if (r == 0)
		r = rev_parse(&place, ref, tip, err);
	if (r > 0)
		tip[0] = '\0'; /* the agent deleted or renamed it */
	if (r >= 0)
		r = rev_parse(&place, "HEAD", head, err);
	if (r > 0) /* HEAD is on a branch without a commit: then it is where the lease began */
		strcpy(head, *tip ? tip : lease->base), r = 0;
	if (r == 0)
		r = commit_on(&place, tip, head, tree, message, saved, err);
	if (r < 0)
		return ap_err_wrap(err, r, "saving the work of lease %s", lease->label);

	/* off the branch: the next lease of the label may be in another worktree */
	r = git_must(&place, NULL, err, ARGS("update-ref", "--no-deref", "HEAD", saved));
	if (r < 0)
		return ap_err_wrap(err, r, "branch of lease %s", lease->label);
	if (lease->created && strcmp(saved, lease->base) == 0) { /* nothing was made: no branch */
		if (*tip)
			r = git_must(&place, NULL, err, ARGS("update-ref", "-d", ref, tip));
	} else if (strcmp(saved, tip) != 0) {
		r = git_must(&place, NULL, err,
			     ARGS("update-ref", "-m", "agentpoolfs: lease ended", ref, saved,
				  *tip ? tip : ""));
	}
	return r < 0 ? ap_err_wrap(err, r, "branch of lease %s", lease->label) : 0;
}

int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err)
{
	struct place place = place_worktree(worktree);
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	int r = git_must(&place, NULL, err, ARGS("update-ref", "--no-deref", "HEAD", lease->base));
	if (r == 0 && lease->created)
		r = git_must(&place, NULL, err, ARGS("update-ref", "-d", ref));
	else if (r == 0) /* commits of this lease go too */
		r = git_must(&place, NULL, err, ARGS("update-ref", ref, lease->base));
	return r;
}

/* --- looking --- */

int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err)
{
	struct place place = place_worktree(worktree);
	return git_must(&place, out, err, ARGS("rev-parse", "--verify", "--quiet", "HEAD"));
}

static int copy_file(const char *from, const char *to, struct ap_err *err)
{
	AP_CLEANUP_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	if (in < 0)
		return errno == ENOENT ? 0 : ap_err_errno(err, -errno, "%s", from);
	AP_CLEANUP_CLOSE int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0)
		return ap_err_errno(err, -errno, "%s", to);
	ssize_t n;
	while ((n = copy_file_range(in, NULL, out, NULL, SSIZE_MAX & ~0xfff, 0)) > 0)
		;
	if (n < 0) { /* two file systems of different kinds: by hand */
		char block[64 << 10];
		while ((n = read(in, block, sizeof block)) > 0) {
			if (write(out, block, (size_t)n) != n)
				return ap_err_errno(err, -errno, "%s", to);
		}
	}
	return n < 0 ? ap_err_errno(err, -errno, "%s", from) : 0;
}

int worktree_diff(const struct worktree *worktree, const char *base, bool stat, const char *scratch,
		  struct ap_buf *out, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	ap_buf_printf(&index, "%s/index", worktree->admin_dir);
	int r = copy_file(ap_buf_text(&index), scratch, err);
	if (r < 0)
		return r;
	struct place place = place_worktree(worktree);
	place.index = scratch;
	/* untracked files as "intended": they are seen by diff, and no object is written for them
	 */
	r = git_must(&place, NULL, err, ARGS("add", "--intent-to-add", "--", "."));
	if (r == 0)
		r = git_must(&place, out, err,
			     ARGS("diff", "--no-ext-diff", "--no-textconv", "--no-color",
				  stat ? "--stat" : "--patch", base, "--"));
	unlink(scratch);
	return r;
}
