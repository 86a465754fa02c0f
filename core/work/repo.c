#include "repo.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "ref_notes.h"
#include "remove.h"
#include "text.h"

/* The directory by which programs know the repository, whichever worktree they are in. */
static char *main_path(const char *common_dir)
{
	size_t len = strlen(common_dir);
	bool in_checkout = len > 5 && strcmp(common_dir + len - 5, "/.git") == 0;
	return strndup(common_dir, in_checkout ? len - 5 : len);
}

/* Asks git rev-parse in the repository for a path, which is owned by the caller. The path is the
 * last that git prints, behind a line that says whether the repository is bare (`ret_bare`, which
 * may be NULL), as it may contain newlines. */
static int ask_path(const struct repo *repo, const char *what, bool *ret_bare, char **ret,
		    struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const struct git_place any = {0};
	int r = git_run(&any, &out, err,
			GIT_ARGS("-C", repo->path, "rev-parse", "--path-format=absolute",
				 "--is-bare-repository", what));
	const char *text = ap_buf_text(&out), *path = text + strcspn(text, "\n");
	if (r != 0)
		return r;
	git_trim(&out);
	if (*path != '\n' || path[1] != '/')
		return ap_err_set(err, -EIO, "git does not say where the repository %s is",
				  repo->path);
	if (ret_bare)
		*ret_bare = strncmp(text, "false", 5) != 0;
	*ret = strdup(path + 1);
	return *ret ? 0 : ap_err_errno(err, -ENOMEM, "%s", repo->path);
}

/* Finds the directories of the repository by git's own search. In that git obeys nothing that the
 * repository says of itself. */
static int find_dirs(struct repo *repo, const char *path, struct ap_err *err)
{
	bool bare;
	int r = ask_path(repo, "--git-dir", &bare, &repo->git_dir, err);
	if (r > 0)
		r = ap_err_wrap(err, -EINVAL, "%s is not usable as a git repository", path);
	if (r == 0)
		r = ask_path(repo, "--git-common-dir", NULL, &repo->common_dir, err);
	/* fails inside a .git directory: it has no work tree then */
	if (r == 0 && !bare)
		(void)ask_path(repo, "--show-toplevel", NULL, &repo->work_tree, NULL);
	return r > 0 ? -EIO : r;
}

static void name_user(uid_t uid, char *ret, size_t size)
{
	char block[1024];
	struct passwd entry, *found = NULL;
	(void)getpwuid_r(uid, &entry, block, sizeof block, &found); /* on failure the number does */
	if (found)
		snprintf(ret, size, "%s (uid %u)", found->pw_name, uid);
	else
		snprintf(ret, size, "uid %u", uid);
}

static int check_owner(const char *dir, struct ap_err *err)
{
	struct stat st;
	char owner[128], us[128];
	if (stat(dir, &st) < 0)
		return ap_err_errno(err, -errno, "%s", dir);
	if (st.st_uid == geteuid())
		return 0;
	name_user(st.st_uid, owner, sizeof owner);
	name_user(geteuid(), us, sizeof us);
	return ap_err_set(err, -EPERM,
			  "%s belongs to %s, and its hooks and settings would act as %s: mount it "
			  "as its owner, or with -o allow_foreign_repo if you trust it",
			  dir, owner, us);
}

/* Opens the handle that stays, with its lock. */
static int open_git(struct repo *repo, struct ap_err *err)
{
	repo->git_lock = malloc(sizeof *repo->git_lock);
	if (!repo->git_lock)
		return ap_err_errno(err, -ENOMEM, "%s", repo->path);
	pthread_mutex_init(repo->git_lock, NULL);
	return ap_git_open(&repo->git,
			   &(struct ap_git_place){.git_dir = repo->git_dir,
						  .common_dir = repo->common_dir,
						  .by_program = repo->by_program},
			   err);
}

int repo_open(struct repo *ret, const char *path, bool allow_foreign, bool by_program,
	      struct ap_err *err)
{
	struct repo repo = {.path = realpath(path, NULL), .by_program = by_program};
	char head[GIT_OID_MAX + 1];
	if (!repo.path)
		return ap_err_errno(err, -errno, "%s", path);
	int r = find_dirs(&repo, path, err);
	if (r == 0 && !allow_foreign)
		r = check_owner(repo.git_dir, err);
	if (r == 0 && !allow_foreign)
		r = check_owner(repo.common_dir, err);
	if (r == 0) {
		repo.main_path = main_path(repo.common_dir);
		r = repo.main_path ? open_git(&repo, err) : ap_err_errno(err, -ENOMEM, "%s", path);
	}
	if (r == 0 && repo_lookup(&repo, "HEAD", head, NULL) != 0)
		r = ap_err_set(err, -EINVAL, "%s has no commit yet: make a first one", path);
	if (r < 0)
		repo_fini(&repo);
	else
		*ret = repo;
	return r;
}

void repo_fini(struct repo *repo)
{
	ap_git_close(repo->git);
	if (repo->git_lock)
		pthread_mutex_destroy(repo->git_lock);
	free(repo->git_lock);
	free(repo->path);
	free(repo->git_dir);
	free(repo->common_dir);
	free(repo->main_path);
	free(repo->work_tree);
	free(repo->ref_notes);
	*repo = (struct repo){0};
}

int repo_note_refs(struct repo *repo, const char *dir, bool settle, struct ap_err *err)
{
	int r = file_make_dirs(dir, err);
	if (r == 0 && settle)
		r = ref_notes_settle(dir, repo->common_dir, err);
	if (r == 0 && !(repo->ref_notes = strdup(dir)))
		r = ap_err_errno(err, -ENOMEM, "%s", dir);
	return r;
}

const char *repo_git_kind(const struct repo *repo)
{
	return ap_git_kind(repo->git);
}

int repo_resolve(const struct repo *repo, const char *revision, char ret_oid[GIT_OID_MAX + 1],
		 struct ap_err *err)
{
	int r = repo_lookup(repo, revision, ret_oid, err);
	if (r > 0)
		return ap_err_set(err, -EINVAL, "'%s' names no commit of %s", revision, repo->path);
	return r;
}

int repo_lookup(const struct repo *repo, const char *ref, char ret_oid[GIT_OID_MAX + 1],
		struct ap_err *err)
{
	pthread_mutex_lock(repo->git_lock);
	int r = ap_git_resolve(repo->git, ref, ret_oid, err);
	pthread_mutex_unlock(repo->git_lock);
	return r;
}

/* Returns the longer of two paths and frees the other; takes over both. */
static char *longer(char *a, char *b)
{
	bool first = !b || (a && strlen(a) >= strlen(b));
	free(first ? b : a);
	return first ? a : b;
}

/* Calls `each` for every linked worktree that the repository lists, with its administrative
 * directory and the directory where it is, or was. */
static void each_linked(const struct repo *repo,
			void (*each)(void *data, const char *admin, const char *dir), void *data)
{
	AP_CLEANUP_BUF struct ap_buf all = {0};
	ap_buf_printf(&all, "%s/worktrees", repo->common_dir);
	DIR *entries = opendir(ap_buf_text(&all));
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf admin = {0};
		char link[PATH_MAX];
		ap_buf_printf(&admin, "%s/%s", ap_buf_text(&all), entry->d_name);
		if (entry->d_name[0] == '.' ||
		    file_read_path(ap_buf_text(&admin), "gitdir", link, sizeof link) < 0)
			continue;
		char *slash = strrchr(link, '/'); /* DIR/.git */
		if (!slash || slash == link)
			continue;
		*slash = '\0';
		each(data, ap_buf_text(&admin), link);
	}
	if (entries)
		closedir(entries);
}

struct numbered {
	size_t prefix_len;
	uint64_t last;
};

static int note_number(void *data, const char *ref, const char *oid)
{
	struct numbered *numbered = data;
	int64_t number;
	(void)oid;
	if (ap_number_parse(ref + numbered->prefix_len, &number) == 0 && number > 0 &&
	    (uint64_t)number > numbered->last)
		numbered->last = (uint64_t)number;
	return 0;
}

uint64_t repo_last_number(const struct repo *repo, const char *prefix)
{
	struct numbered numbered = {.prefix_len = strlen(prefix)};
	pthread_mutex_lock(repo->git_lock);
	(void)ap_git_each_ref(repo->git, prefix, note_number, &numbered, NULL);
	pthread_mutex_unlock(repo->git_lock);
	return numbered.last;
}

bool repo_has_commit(const struct repo *repo, const char *oid)
{
	pthread_mutex_lock(repo->git_lock);
	bool has = ap_git_has_commit(repo->git, oid);
	pthread_mutex_unlock(repo->git_lock);
	return has;
}

/* Whether HEAD of a git directory is on a branch. */
static bool is_on(const char *git_dir, const char *ref)
{
	char line[PATH_MAX];
	return file_read_line(git_dir, "HEAD", line, sizeof line) == 0 &&
	       strncmp(line, "ref: ", 5) == 0 && strcmp(line + 5, ref) == 0;
}

struct branch_place {
	const char *ref;
	char *found; /* owned */
};

static void note_branch(void *data, const char *admin, const char *dir)
{
	struct branch_place *place = data;
	if (!place->found && access(dir, F_OK) == 0 && is_on(admin, place->ref))
		place->found = strdup(dir);
}

int repo_branch_place(const struct repo *repo, const char *ref, char **ret, struct ap_err *err)
{
	struct branch_place place = {.ref = ref};
	/* a bare repository has nothing checked out, whatever its HEAD says */
	if (repo->work_tree && is_on(repo->common_dir, ref))
		place.found = strdup(repo->main_path);
	else
		each_linked(repo, note_branch, &place);
	*ret = place.found;
	return place.found != NULL;
}

struct place {
	const char *path; /* the path to find the place of */
	char *found;	  /* the longest so far, owned */
};

static void note_place(void *data, const char *admin, const char *given)
{
	struct place *place = data;
	AP_CLEANUP_FREE char *dir = realpath(given, NULL);
	(void)admin;
	if (dir && file_is_within(place->path, dir))
		place->found = longer(place->found, ap_steal(dir));
}

/* As repo_place_of(), among the linked worktrees. */
static char *linked_place_of(const struct repo *repo, const char *path)
{
	struct place place = {.path = path};
	each_linked(repo, note_place, &place);
	return place.found;
}

char *repo_place_of(const struct repo *repo, const char *path)
{
	const char *const places[] = {repo->common_dir, repo->git_dir, repo->work_tree,
				      repo->main_path};
	char *found = linked_place_of(repo, path);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		if (places[i] && file_is_within(path, places[i]))
			found = longer(found, strdup(places[i]));
	}
	return found;
}

bool repo_has_program(const struct repo *repo, const char *commit, const char *path)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const struct git_place place = {.git_dir = repo->git_dir};
	if (git_run(&place, &out, NULL, GIT_ARGS("ls-tree", "--full-tree", commit, "--", path)) !=
	    0)
		return false;
	/* MODE TYPE OBJECT; a link may lead to a program */
	return strncmp(ap_buf_text(&out), "100755 ", 7) == 0 ||
	       strncmp(ap_buf_text(&out), "120000 ", 7) == 0;
}

bool repo_ignores(const char *work_tree, const char *path)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	const struct git_place any = {0};
	ap_buf_printf(&dir, "%s/", path); /* some patterns match only directories */
	return git_run(&any, NULL, NULL,
		       GIT_ARGS("-C", work_tree, "check-ignore", "--quiet", "--",
				ap_buf_text(&dir))) == 0;
}

int repo_admin_dir(const struct repo *repo, const char *path, char **ret, struct ap_err *err)
{
	char text[PATH_MAX + 16];
	(void)file_read_path(path, ".git", text, sizeof text);
	const char *dir = text + strlen("gitdir: ");
	size_t common = strlen(repo->common_dir);
	if (strncmp(text, "gitdir: ", strlen("gitdir: ")) != 0 ||
	    strncmp(dir, repo->common_dir, common) != 0 ||
	    strncmp(dir + common, "/worktrees/", strlen("/worktrees/")) != 0 || strstr(dir, "/../"))
		return ap_err_set(err, -EIO, "%s is no worktree of %s", path, repo->path);
	*ret = strdup(dir);
	return *ret ? 0 : ap_err_errno(err, -ENOMEM, "%s", path);
}

static void forget_gone(void *data, const char *admin, const char *dir)
{
	const char *const *all = data;
	size_t len = strlen(*all);
	if (strncmp(dir, *all, len) == 0 && dir[len] == '/' && access(dir, F_OK) < 0)
		(void)remove_tree(admin, NULL, NULL);
}

void repo_forget_worktrees(const struct repo *repo, const char *dir)
{
	AP_CLEANUP_BUF struct ap_buf all = {0};
	each_linked(repo, forget_gone, &dir);
	ap_buf_printf(&all, "%s/worktrees", repo->common_dir);
	(void)rmdir(ap_buf_text(&all)); /* git too removes it with the last worktree */
}
