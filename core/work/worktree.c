#include "worktree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "process.h"
#include "worktree_internal.h"

/* Bytes of a diff that is read. */
#define DIFF_MAX (64 << 20)

/* --- what git keeps of a worktree --- */

/* As a whole: whoever dies here leaves what was there, or all of it. */
static int write_in(const char *dir, const char *name, const char *text, const char *end,
		    struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf temporary = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	ap_buf_printf(&temporary, "%s.new", ap_buf_text(&path));
	int r = file_printf(ap_buf_text(&temporary), err, "%s%s\n", text, end);
	if (r == 0 && rename(ap_buf_text(&temporary), ap_buf_text(&path)) < 0)
		r = ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	return r;
}

/* The administrative directory of a worktree at `commit`, in the making. */
static int stage_admin(const struct worktree *worktree, struct template *template,
		       const char *commit, struct staged *ret, struct ap_err *err)
{
	int r = template_stage(worktree->templates, template, ret, err);
	if (r == 0)
		r = write_in(ret->admin, "commondir", "../..", "", err);
	if (r == 0)
		r = write_in(ret->admin, "HEAD", commit, "", err);
	if (r == 0)
		r = write_in(ret->admin, "gitdir", worktree->path, "/.git", err);
	if (r == 0) /* it stays when somebody prunes while the files are not there */
		r = write_in(ret->admin, "locked", "of agentpoolfs", "", err);
	return r;
}

/* Moves it where git looks for it: in place of the one that the worktree has, or under a name that
 * none has. */
static int enter_admin(struct worktree *worktree, const struct staged *staged, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	const char *name = strrchr(worktree->path, '/');
	ap_buf_printf(&path, "%s/worktrees", worktree->repo->common_dir);
	for (unsigned tries = 0; tries < 1000; tries++) {
		/* git removes the directory with the last worktree in it */
		if (mkdir(ap_buf_text(&path), 0777) < 0 && errno != EEXIST)
			break;
		AP_CLEANUP_BUF struct ap_buf to = {0};
		if (worktree->admin_dir)
			ap_buf_adds(&to, worktree->admin_dir);
		else
			ap_buf_printf(&to, tries ? "%s%s-%u" : "%s%s", ap_buf_text(&path), name,
				      tries);
		if (to.failed)
			return ap_err_errno(err, -ENOMEM, "%s", worktree->path);
		if (renameat2(AT_FDCWD, staged->admin, AT_FDCWD, ap_buf_text(&to),
			      RENAME_NOREPLACE) == 0) {
			if (!worktree->admin_dir)
				worktree->admin_dir = ap_steal(to.data);
			return 0;
		}
		if (errno != ENOENT && (errno != EEXIST || worktree->admin_dir))
			break;
	}
	return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
}

/* The file by which git finds from the worktree to its administrative directory. */
static int write_link(const struct worktree *worktree, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf link = {0};
	struct stat st;
	ap_buf_printf(&link, "%s/.git", worktree->path);
	if (lstat(ap_buf_text(&link), &st) == 0 && !S_ISREG(st.st_mode)) {
		int r = process_remove_tree(ap_buf_text(&link), err);
		if (r < 0)
			return r;
	}
	return file_printf(ap_buf_text(&link), err, "gitdir: %s\n", worktree->admin_dir);
}

int worktree_repair(struct worktree *worktree, const char *commit, struct ap_err *err)
{
	char line[PATH_MAX];
	struct staged staged;
	if (file_read_line(worktree->admin_dir, "commondir", line, sizeof line) == 0 &&
	    strcmp(line, "../..") == 0 &&
	    file_read_line(worktree->admin_dir, "HEAD", line, sizeof line) == 0 && *line)
		return 0;
	int r = process_remove_tree(worktree->admin_dir, err);
	if (r < 0)
		return r;
	r = stage_admin(worktree, NULL, commit, &staged, err);
	if (r == 0)
		r = enter_admin(worktree, &staged, err);
	(void)process_remove_tree(staged.dir, NULL);
	struct git_place place = place_of(worktree);
	return r < 0 ? r : git_must(&place, NULL, err, GIT_ARGS("read-tree", commit));
}

/* An agent may have put a link in its place: what lies behind that is nobody's business here. */
static int check_directory(const struct worktree *worktree, struct ap_err *err)
{
	struct stat st;
	if (lstat(worktree->path, &st) < 0)
		return ap_err_errno(err, -errno, "%s", worktree->path);
	if (!S_ISDIR(st.st_mode))
		return ap_err_set(err, S_ISLNK(st.st_mode) ? -ELOOP : -ENOTDIR,
				  "%s is no directory any more: what stands there is left alone",
				  worktree->path);
	return 0;
}

/* --- ignored files that a worktree is to have --- */

static int copy_included(const char *from, const char *to, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf source = {0};
	AP_CLEANUP_BUF struct ap_buf target = {0};
	ap_buf_printf(&source, "%s/%s", from, name);
	ap_buf_printf(&target, "%s/%s", to, name);
	if (source.failed || target.failed)
		return ap_err_errno(err, -ENOMEM, "%s", name);
	for (char *slash = target.data + strlen(to) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		int made = mkdir(target.data, 0777);
		*slash = '/';
		if (made < 0 && errno != EEXIST)
			return ap_err_errno(err, -errno, "%s", target.data);
	}
	struct stat st;
	if (lstat(ap_buf_text(&source), &st) < 0)
		return errno == ENOENT ? 0 : ap_err_errno(err, -errno, "%s", source.data);
	if (!S_ISLNK(st.st_mode))
		return file_copy(source.data, target.data, true, err);
	char link[PATH_MAX];
	ssize_t n = readlink(source.data, link, sizeof link - 1);
	link[n > 0 ? n : 0] = '\0';
	return n > 0 && symlink(link, target.data) == 0
		       ? 0
		       : ap_err_errno(err, -errno, "%s", source.data);
}

/* Files of the user's checkout that are named by its .worktreeinclude and ignored by git, in the
 * worktree: what git would commit there, such as of an older base, is left out. */
static int copy_ignored(const struct worktree *worktree, struct ap_err *err)
{
	const struct repo *repo = worktree->repo;
	AP_CLEANUP_BUF struct ap_buf include = {0};
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf named = {0};
	AP_CLEANUP_BUF struct ap_buf ignored = {0};
	if (!repo->work_tree)
		return 0;
	ap_buf_printf(&include, "%s/.worktreeinclude", repo->work_tree);
	if (access(ap_buf_text(&include), R_OK) < 0)
		return 0;
	const struct git_place user = {.git_dir = repo->git_dir, .work_tree = repo->work_tree};
	struct git_place place = place_of(worktree);
	ap_buf_printf(&from, "--exclude-from=%s", ap_buf_text(&include));
	int r = git_must(&user, &named, err,
			 GIT_ARGS("ls-files", "-z", "--others", "--ignored", ap_buf_text(&from)));
	place.in = &named;
	if (r == 0 && named.len > 0)
		r = git_run(&place, &ignored, err, GIT_ARGS("check-ignore", "-z", "--stdin"));
	if (r == 1) /* none of them */
		return 0;
	if (r > 1)
		r = -EIO;
	const char *at = ap_buf_text(&ignored), *end = at + ignored.len;
	for (; r == 0 && at < end; at += strlen(at) + 1)
		r = copy_included(repo->work_tree, worktree->path, at, err);
	return r < 0 ? ap_err_wrap(err, r, ".worktreeinclude") : 0;
}

/* --- life of a worktree --- */

static int describe(struct worktree *ret, struct templates *templates, const char *name,
		    struct ap_err *err)
{
	*ret = (struct worktree){.repo = templates_repo(templates), .templates = templates};
	const char *state_dir = templates_state_dir(templates);
	if (asprintf(&ret->path, "%s/worktrees/%s", state_dir, name) < 0)
		ret->path = NULL;
	if (asprintf(&ret->layers, "%s/layers/%s", state_dir, name) < 0)
		ret->layers = NULL;
	return ret->path && ret->layers ? 0 : ap_err_errno(err, -ENOMEM, "%s", name);
}

void worktree_fini(struct worktree *worktree)
{
	if (worktree->template)
		template_put(worktree->template);
	free(worktree->path);
	free(worktree->layers);
	free(worktree->admin_dir);
	*worktree = (struct worktree){0};
}

static struct spawn_place spawn_place_of(const struct worktree *worktree, const char *admin_dir)
{
	return (struct spawn_place){
		.template_files = worktree->template ? template_files(worktree->template) : NULL,
		.path = worktree->path,
		.layers = worktree->layers,
		.admin_dir = admin_dir,
	};
}

/* Lets go of the files, and moves them out of the way. */
static int discard_files(const struct worktree *worktree, struct ap_err *err)
{
	const struct spawn_place place = spawn_place_of(worktree, NULL);
	/* it may be another daemon's, of another backend */
	templates_let_go(worktree->templates, spawn_overlay.detach(&place));
	int r = templates_discard(worktree->templates, worktree->path, err);
	return r < 0 ? r : templates_discard(worktree->templates, worktree->layers, err);
}

/* The files of the template, with an administrative directory for them. */
static int populate(struct worktree *worktree, struct ap_err *err)
{
	const struct spawn_backend *backend = templates_backend(worktree->templates);
	struct staged staged;
	const char *commit = template_commit(worktree->template);
	int r = stage_admin(worktree, worktree->template, commit, &staged, err);
	struct spawn_place place = spawn_place_of(worktree, staged.admin);
	if (r == 0)
		r = backend->populate(&place, err);
	if (r == 0 && backend->attach) /* what is needed to do that */
		r = write_in(worktree->layers, "template", commit, "", err);
	if (r == 0 && worktree->admin_dir) /* whatever the agent left in it goes */
		r = templates_discard(worktree->templates, worktree->admin_dir, err);
	if (r == 0)
		r = enter_admin(worktree, &staged, err);
	if (r < 0 || rmdir(staged.dir) < 0)
		(void)process_remove_tree(staged.dir, NULL);
	if (r == 0)
		r = write_link(worktree, err);
	if (r == 0)
		memcpy(worktree->commit, commit, sizeof worktree->commit);
	return r;
}

static int add_from_template(struct worktree *worktree, const char *base, int64_t limit_ns,
			     struct ap_err *err)
{
	int r = template_get(worktree->templates, base, limit_ns, &worktree->template, err);
	if (r == 0)
		r = populate(worktree, err);
	return r < 0 ? r : worktree_forward(worktree, base, err);
}

static int add_by_git(struct worktree *worktree, const char *base, int64_t limit_ns,
		      struct ap_err *err)
{
	const struct git_place place = {
		.git_dir = worktree->repo->common_dir,
		.with_hooks = true, /* the user's post-checkout hook */
		.limit_ns = limit_ns,
	};
	int r = git_must(&place, NULL, err,
			 GIT_ARGS("worktree", "add", "--quiet", "--lock", "--reason",
				  "of agentpoolfs", "--detach", worktree->path, base));
	if (r == 0)
		r = repo_admin_dir(worktree->repo, worktree->path, &worktree->admin_dir, err);
	if (r == 0)
		snprintf(worktree->commit, sizeof worktree->commit, "%s", base);
	return r;
}

int worktree_add(struct worktree *ret, struct templates *templates, const char *name,
		 const char *base, int64_t limit_ns, struct ap_err *err)
{
	struct worktree worktree;
	int r = describe(&worktree, templates, name, err);
	if (r == 0)
		r = templates_backend(templates) ? add_from_template(&worktree, base, limit_ns, err)
						 : add_by_git(&worktree, base, limit_ns, err);
	if (r == 0)
		r = copy_ignored(&worktree, err);
	if (r < 0) { /* half-made things go */
		(void)discard_files(&worktree, NULL);
		if (worktree.admin_dir)
			(void)process_remove_tree(worktree.admin_dir, NULL);
		repo_forget_worktrees(worktree.repo, worktree.path);
		worktree_fini(&worktree);
		return r;
	}
	*ret = worktree;
	return 0;
}

/* Whether something is mounted there. */
static bool is_mount_point(const char *path)
{
	AP_CLEANUP_BUF struct ap_buf parent = {0};
	struct stat here, above;
	ap_buf_printf(&parent, "%s/..", path);
	return stat(path, &here) == 0 && stat(ap_buf_text(&parent), &above) == 0 &&
	       here.st_dev != above.st_dev;
}

int worktree_attach(struct worktree *worktree, struct ap_err *err)
{
	char commit[GIT_OID_MAX + 1];
	int r = check_directory(worktree, err);
	if (r < 0)
		return r;
	if (file_read_line(worktree->layers, "template", commit, sizeof commit) < 0)
		return 0; /* of another backend */
	if (!worktree->template)
		worktree->template = template_find(worktree->templates, commit);
	if (!worktree->template)
		return ap_err_set(err, -EIO, "the template of %s has gone; its changes are in %s",
				  worktree->path, worktree->layers);
	const struct spawn_place place = spawn_place_of(worktree, NULL);
	return is_mount_point(worktree->path) ? 0 : spawn_overlay.attach(&place, err);
}

int worktree_open(struct worktree *ret, struct templates *templates, const char *name,
		  const char *admin_dir, struct ap_err *err)
{
	struct worktree worktree;
	int r = describe(&worktree, templates, name, err);
	if (r == 0 && access(worktree.path, F_OK) < 0)
		r = ap_err_errno(err, -errno, "%s", worktree.path);
	if (r == 0)
		r = worktree_attach(&worktree, err);
	if (r == 0 && !admin_dir)
		r = repo_admin_dir(worktree.repo, worktree.path, &worktree.admin_dir, err);
	else if (r == 0 && !(worktree.admin_dir = strdup(admin_dir)))
		r = ap_err_errno(err, -ENOMEM, "%s", name);
	if (r < 0) /* it may be kept: then its template is needed */
		worktree_leave(&worktree);
	else
		*ret = worktree;
	return r;
}

int worktree_left(struct worktree *ret, struct templates *templates, const char *name,
		  const char *admin_dir, struct ap_err *err)
{
	struct worktree worktree;
	int r = describe(&worktree, templates, name, err);
	if (r == 0 && !(worktree.admin_dir = strdup(admin_dir)))
		r = ap_err_errno(err, -ENOMEM, "%s", name);
	if (r < 0)
		worktree_fini(&worktree);
	else
		*ret = worktree;
	return r;
}

void worktree_leave(struct worktree *worktree)
{
	worktree->template = NULL; /* its reference stays */
	worktree_fini(worktree);
}

bool worktree_present(const struct worktree *worktree)
{
	const struct spawn_backend *backend = templates_backend(worktree->templates);
	AP_CLEANUP_BUF struct ap_buf link = {0};
	ap_buf_printf(&link, "%s/.git", worktree->path);
	return worktree->admin_dir && check_directory(worktree, NULL) == 0 &&
	       access(ap_buf_text(&link), R_OK) == 0 && access(worktree->admin_dir, X_OK) == 0 &&
	       (!backend || !backend->attach || is_mount_point(worktree->path));
}

/* Ends what an agent left unfinished and what would hold the next lease on the last one's branch.
 */
static int forget_unfinished(const struct worktree *worktree, struct ap_err *err)
{
	static const char *const traces[] = {"rebase-merge", "rebase-apply", "sequencer",
					     "BISECT_LOG",   "BISECT_START", "BISECT_TERMS",
					     "BISECT_NAMES", "refs",	     "logs"};
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

/* Submodules that were checked out: their files are none of the worktree's, and `clean` leaves
 * them. What git keeps of them is beside the worktree's own. */
static int empty_submodules(const struct worktree *worktree, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf modules = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const struct git_place place = place_of(worktree);
	ap_buf_printf(&modules, "%s/modules", worktree->admin_dir);
	if (access(ap_buf_text(&modules), F_OK) < 0)
		return 0;
	int r = git_must(&place, &out, err, GIT_ARGS("ls-files", "-z", "--stage"));
	const char *at = ap_buf_text(&out), *end = at + out.len;
	for (; r == 0 && at < end; at += strlen(at) + 1) { /* "MODE OBJECT STAGE<tab>PATH" */
		AP_CLEANUP_BUF struct ap_buf dir = {0};
		const char *tab = strchr(at, '\t');
		if (!tab || strncmp(at, "160000 ", 7) != 0)
			continue;
		ap_buf_printf(&dir, "%s/%s", worktree->path, tab + 1);
		r = process_remove_tree(ap_buf_text(&dir), err);
		if (r == 0 && mkdir(ap_buf_text(&dir), 0777) < 0 && errno != ENOENT)
			r = ap_err_errno(err, -errno, "%s", ap_buf_text(&dir));
	}
	return r < 0 ? r : process_remove_tree(ap_buf_text(&modules), err);
}

static int clean_in_place(struct worktree *worktree, const char *base, struct ap_err *err)
{
	const struct git_place place = place_of(worktree);
	int r = forget_unfinished(worktree, err);
	if (r == 0)
		r = empty_submodules(worktree, err);
	if (r == 0) /* which ends an unfinished merge, cherry-pick or revert too */
		r = git_must(&place, NULL, err,
			     GIT_ARGS("checkout", "--quiet", "--force", "--detach", base));
	if (r == 0)
		r = git_must(&place, NULL, err, GIT_ARGS("clean", "-ffdxq"));
	/* an agent may have replaced the link to its repository: `clean` leaves `.git` alone */
	if (r == 0)
		r = write_link(worktree, err);
	if (r < 0)
		return r;
	snprintf(worktree->commit, sizeof worktree->commit, "%s", base);
	/* files that lie over no template are git's now */
	if (worktree->template && !templates_backend(worktree->templates)->attach) {
		template_put(worktree->template);
		worktree->template = NULL;
	}
	return 0;
}

static int make_anew(struct worktree *worktree, const char *base, int64_t limit_ns,
		     struct ap_err *err)
{
	struct template *template;
	int r = template_get(worktree->templates, base, limit_ns, &template, err);
	if (r < 0)
		return r;
	r = discard_files(worktree, err);
	if (worktree->template)
		template_put(worktree->template);
	worktree->template = template;
	if (r == 0)
		r = populate(worktree, err);
	return r < 0 ? r : worktree_forward(worktree, base, err);
}

int worktree_clean(struct worktree *worktree, const char *base, bool in_place, int64_t limit_ns,
		   struct ap_err *err)
{
	const struct spawn_backend *backend = templates_backend(worktree->templates);
	bool anew = backend && backend->is_instant && !in_place;
	int r = anew ? 0 : check_directory(worktree, err);
	if (r == 0)
		r = anew ? make_anew(worktree, base, limit_ns, err)
			 : clean_in_place(worktree, base, err);
	/* worktrees that the agent made inside this one */
	repo_forget_worktrees(worktree->repo, worktree->path);
	if (r == 0)
		r = copy_ignored(worktree, err);
	return r < 0 ? ap_err_wrap(err, r, "cleaning %s", worktree->path) : 0;
}

int worktree_remove(struct worktree *worktree, struct ap_err *err)
{
	int r = discard_files(worktree, err);
	if (r == 0 && worktree->admin_dir)
		r = templates_discard(worktree->templates, worktree->admin_dir, err);
	if (r < 0)
		return ap_err_wrap(err, r, "removing %s", worktree->path);
	if (!templates_are_ending(worktree->templates))
		repo_forget_worktrees(worktree->repo, worktree->path);
	if (worktree->template)
		template_put(worktree->template);
	worktree->template = NULL;
	return 0;
}

/* --- lease branches --- */

int worktree_forward(struct worktree *worktree, const char *commit, struct ap_err *err)
{
	const struct git_place place = place_of(worktree);
	char head[PATH_MAX];
	(void)file_read_line(worktree->admin_dir, "HEAD", head, sizeof head);
	/* what runs while nobody leases it may have gone elsewhere */
	if (strcmp(worktree->commit, commit) == 0 && strcmp(head, commit) == 0)
		return 0;
	int r = check_directory(worktree, err);
	if (r == 0)
		r = git_must(&place, NULL, err,
			     GIT_ARGS("checkout", "--quiet", "--force", "--detach", commit));
	if (r == 0)
		snprintf(worktree->commit, sizeof worktree->commit, "%s", commit);
	return r;
}

/* Goes on from the branch of a lease before. */
static int resume(struct worktree *worktree, const char *branch, struct ap_err *err)
{
	const struct git_place place = place_of(worktree);
	int r = check_directory(worktree, err);
	if (r == 0)
		r = git_run(&place, NULL, err,
			    GIT_ARGS("checkout", "--quiet", "--force", branch, "--"));
	if (r > 0 && strstr(err->text, "already "))
		return -EBUSY; /* … checked out at, … used by worktree at */
	return r > 0 ? -EIO : r;
}

/* Puts a worktree that stands at `base` on a new branch. By hand: git would look at every file. */
static int begin_branch(const struct worktree *worktree, const char *ref, const char *base,
			struct ap_err *err)
{
	const struct git_place place = {.git_dir = worktree->repo->common_dir};
	int r = git_must(&place, NULL, err,
			 GIT_ARGS("branch", "--no-track", ref + strlen("refs/heads/"), base));
	if (r < 0) /* such as one that is called agentpool: no worktree can help */
		return r == -EIO ? -EBUSY : r;
	return write_in(worktree->admin_dir, "HEAD", "ref: ", ref, err);
}

int worktree_plan(const struct worktree *worktree, const char *base_revision,
		  struct worktree_lease *lease, struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	int r = git_resolve(worktree->repo->resolver, ref, lease->base, err);
	if (r < 0)
		return r;
	lease->created = r > 0;
	return lease->created ? repo_resolve(worktree->repo, base_revision, lease->base, err) : 0;
}

int worktree_start(struct worktree *worktree, const struct worktree_lease *lease,
		   struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	int r = 0;
	if (lease->created)
		r = worktree_forward(worktree, lease->base, err);
	if (r == 0)
		r = lease->created ? begin_branch(worktree, ref, lease->base, err)
				   : resume(worktree, ref + strlen("refs/heads/"), err);
	if (r == 0) /* the lease may leave it anywhere */
		worktree->commit[0] = '\0';
	return r;
}

int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err)
{
	const struct git_place place = {.git_dir = worktree->repo->common_dir};
	const struct git_place here = place_of(worktree);
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	/* fails where the agent broke its HEAD: what comes after the lease makes that anew */
	(void)git_run(&here, NULL, NULL, GIT_ARGS("update-ref", "--no-deref", "HEAD", lease->base));
	if (lease->created)
		return git_must(&place, NULL, err, GIT_ARGS("update-ref", "-d", ref));
	/* commits of this lease go too */
	return git_must(&place, NULL, err, GIT_ARGS("update-ref", ref, lease->base));
}

/* --- looking --- */

int worktree_head(const struct worktree *worktree, struct ap_buf *out, struct ap_err *err)
{
	const struct git_place place = place_of(worktree);
	return git_must(&place, out, err, GIT_ARGS("rev-parse", "--verify", "--quiet", "HEAD"));
}

int worktree_diff(const struct worktree *worktree, const char *base, bool stat, const char *scratch,
		  struct ap_buf *out, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf index = {0};
	AP_CLEANUP_BUF struct ap_buf untracked = {0};
	ap_buf_printf(&index, "%s/index", worktree->admin_dir);
	struct git_place place = place_of(worktree);
	int r = file_copy(ap_buf_text(&index), scratch, true, err);
	place.index = scratch;
	if (r == 0)
		r = git_must(&place, &untracked, err,
			     GIT_ARGS("ls-files", "-z", "--others", "--exclude-standard"));
	/* untracked files as "intended": they are seen by diff, and no object is written for them
	 */
	place.in = &untracked;
	if (r == 0 && untracked.len > 0)
		r = git_must(&place, NULL, err,
			     GIT_ARGS("--literal-pathspecs", "add", "--sparse", "--intent-to-add",
				      "--pathspec-from-file=-", "--pathspec-file-nul"));
	place.in = NULL;
	place.out_max = DIFF_MAX;
	if (r == 0)
		r = git_must(&place, out, err,
			     GIT_ARGS("diff", "--no-ext-diff", "--no-textconv", "--no-color",
				      stat ? "--stat" : "--patch", base, "--"));
	unlink(scratch);
	return r;
}
