#include "template.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "list.h"
#include "process.h"
#include "text.h"

struct template
{
	struct ap_list link;
	struct templates *all;
	char commit[GIT_OID_MAX + 1];
	char *dir, *files, *admin;
	/* guarded by all->lock */
	unsigned n_users;
	struct staged spare;
	bool has_spare;
};

struct templates {
	const struct repo *repo;
	char *state_dir, *dir;
	const struct spawn_backend *backend;

	atomic_bool ending;
	pthread_mutex_t making; /* held while one is made; taken before `lock` */

	pthread_mutex_t lock;	       /* of what follows */
	struct ap_list list;	       /* the newest first */
	char current[GIT_OID_MAX + 1]; /* written under both locks */
	uint64_t n_made, n_removed;
	int *held; /* to be closed before what was discarded is removed */
	unsigned n_held;
};

const struct repo *templates_repo(const struct templates *templates)
{
	return templates->repo;
}

const char *templates_state_dir(const struct templates *templates)
{
	return templates->state_dir;
}

const struct spawn_backend *templates_backend(const struct templates *templates)
{
	return templates->backend;
}

const char *template_commit(const struct template *template)
{
	return template->commit;
}

const char *template_files(const struct template *template)
{
	return template->files;
}

/* --- staging --- */

/* Copies what git keeps of a template and is of use to any worktree of that commit: the index and
 * what belongs to it, and its configuration. */
static int copy_admin_files(const char *from, const char *to, struct ap_err *err)
{
	static const char *const own[] = {"HEAD", "ORIG_HEAD", "commondir", "gitdir", "locked"};
	DIR *entries = opendir(from);
	if (!entries)
		return ap_err_errno(err, -errno, "%s", from);
	struct dirent *entry;
	int r = 0;
	while (r == 0 && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf source = {0};
		AP_CLEANUP_BUF struct ap_buf target = {0};
		bool is_own = entry->d_type != DT_REG;
		for (size_t i = 0; i < sizeof own / sizeof *own; i++)
			is_own = is_own || strcmp(entry->d_name, own[i]) == 0;
		if (is_own)
			continue;
		ap_buf_printf(&source, "%s/%s", from, entry->d_name);
		ap_buf_printf(&target, "%s/%s", to, entry->d_name);
		r = file_copy(ap_buf_text(&source), ap_buf_text(&target), false, err);
	}
	closedir(entries);
	AP_CLEANUP_BUF struct ap_buf sparse = {0};
	ap_buf_printf(&sparse, "%s/info/sparse-checkout", from);
	if (r == 0 && access(ap_buf_text(&sparse), R_OK) == 0) {
		AP_CLEANUP_BUF struct ap_buf target = {0};
		ap_buf_printf(&target, "%s/info", to);
		r = file_make_dirs(ap_buf_text(&target), err);
		ap_buf_adds(&target, "/sparse-checkout");
		if (r == 0)
			r = file_copy(ap_buf_text(&sparse), ap_buf_text(&target), false, err);
	}
	return r;
}

/* "COMMON_DIR/agentpool-…", what all that one state directory stages begins with. */
static int staged_prefix(const struct templates *templates, char ret[PATH_MAX])
{
	int n = snprintf(ret, PATH_MAX, "%s/agentpool-%016" PRIx64 "-", templates->repo->common_dir,
			 ap_hash(templates->state_dir));
	return n < PATH_MAX - 16 ? 0 : -ENAMETOOLONG;
}

static int stage(const struct templates *templates, const struct template *template,
		 struct staged *ret, struct ap_err *err)
{
	int r = staged_prefix(templates, ret->dir);
	if (r < 0)
		return ap_err_errno(err, r, "%s", templates->repo->common_dir);
	strcat(ret->dir, "XXXXXX");
	if (!mkdtemp(ret->dir) ||
	    snprintf(ret->admin, sizeof ret->admin, "%s/admin", ret->dir) >= PATH_MAX ||
	    mkdir(ret->admin, 0777) < 0)
		return ap_err_errno(err, -errno, "%s", ret->dir);
	return template ? copy_admin_files(template->admin, ret->admin, err) : 0;
}

/* Takes the spare of the template, if there is one. */
static bool take_spare(struct template *template, struct staged *ret)
{
	pthread_mutex_lock(&template->all->lock);
	bool taken = template->has_spare;
	if (taken)
		*ret = template->spare;
	template->has_spare = false;
	pthread_mutex_unlock(&template->all->lock);
	return taken && access(ret->admin, W_OK) == 0;
}

int template_stage(struct templates *templates, struct template *template, struct staged *ret,
		   struct ap_err *err)
{
	return template && take_spare(template, ret) ? 0 : stage(templates, template, ret, err);
}

static void discard_spare(struct template *template)
{
	struct staged spare;
	if (take_spare(template, &spare))
		(void)process_remove_tree(spare.dir, NULL);
}

void templates_forget_staged(struct templates *templates)
{
	char prefix[PATH_MAX];
	if (staged_prefix(templates, prefix) < 0)
		return;
	const char *name = strrchr(prefix, '/') + 1;
	DIR *entries = opendir(templates->repo->common_dir);
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", templates->repo->common_dir, entry->d_name);
		if (strncmp(entry->d_name, name, strlen(name)) == 0)
			(void)process_remove_tree(ap_buf_text(&path), NULL);
	}
	if (entries)
		closedir(entries);
}

/* --- their life --- */

static void remove_unused(struct templates *templates);

static void template_free(struct template *template)
{
	discard_spare(template);
	free(template->dir);
	free(template->files);
	free(template->admin);
	free(template);
}

static struct template *template_new(struct templates *all, const char *name)
{
	struct template *template = calloc(1, sizeof *template);
	if (!template)
		return NULL;
	ap_list_init(&template->link);
	template->all = all;
	snprintf(template->commit, sizeof template->commit, "%s", name);
	if (asprintf(&template->dir, "%s/%s", all->dir, name) < 0)
		template->dir = NULL;
	if (asprintf(&template->files, "%s/%s/files", all->dir, name) < 0)
		template->files = NULL;
	if (asprintf(&template->admin, "%s/%s/admin", all->dir, name) < 0)
		template->admin = NULL;
	if (template->dir && template->files && template->admin)
		return template;
	template_free(template);
	return NULL;
}

/* Those that a daemon before made, and the leavings of one that it did not. */
static void take_up(struct templates *templates)
{
	DIR *entries = opendir(templates->dir);
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		struct template *template = NULL;
		if (entry->d_name[0] == '.')
			continue;
		if (strlen(entry->d_name) >= 40 && strlen(entry->d_name) <= GIT_OID_MAX)
			template = template_new(templates, entry->d_name);
		if (template) {
			ap_list_append(&templates->list, &template->link);
		} else {
			AP_CLEANUP_BUF struct ap_buf path = {0};
			ap_buf_printf(&path, "%s/%s", templates->dir, entry->d_name);
			(void)process_remove_tree(ap_buf_text(&path), NULL);
		}
	}
	if (entries)
		closedir(entries);
}

struct templates *templates_new(const struct repo *repo, const char *state_dir,
				const struct spawn_backend *backend)
{
	struct templates *templates = calloc(1, sizeof *templates);
	if (!templates)
		return NULL;
	templates->repo = repo;
	templates->backend = backend;
	templates->state_dir = strdup(state_dir);
	if (asprintf(&templates->dir, "%s/templates", state_dir) < 0)
		templates->dir = NULL;
	pthread_mutex_init(&templates->making, NULL);
	pthread_mutex_init(&templates->lock, NULL);
	ap_list_init(&templates->list);
	if (!templates->state_dir || !templates->dir) {
		templates_free(templates);
		return NULL;
	}
	take_up(templates);
	return templates;
}

static void close_held(struct templates *templates)
{
	pthread_mutex_lock(&templates->lock);
	int *held = ap_steal(templates->held);
	unsigned n = templates->n_held;
	templates->n_held = 0;
	pthread_mutex_unlock(&templates->lock);
	for (unsigned i = 0; i < n; i++)
		close(held[i]);
	free(held);
}

void templates_free(struct templates *templates)
{
	if (!templates)
		return;
	while (!ap_list_empty(&templates->list)) {
		struct template *template =
			ap_container_of(templates->list.next, struct template, link);
		ap_list_remove(&template->link);
		template_free(template);
	}
	close_held(templates);
	pthread_mutex_destroy(&templates->making);
	pthread_mutex_destroy(&templates->lock);
	free(templates->state_dir);
	free(templates->dir);
	free(templates);
}

static struct template *find_locked(struct templates *templates, const char *commit)
{
	struct ap_list *at;
	ap_list_for_each (at, &templates->list) {
		struct template *template = ap_container_of(at, struct template, link);
		if (strcmp(template->commit, commit) == 0)
			return template;
	}
	return NULL;
}

int templates_discard(struct templates *templates, const char *path, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf trash = {0};
	AP_CLEANUP_BUF struct ap_buf moved = {0};
	ap_buf_printf(&trash, "%s/trash", templates->state_dir);
	int r = file_make_dirs(ap_buf_text(&trash), err);
	if (r == 0)
		r = file_move_into(path, ap_buf_text(&trash), &moved, err);
	if (r == 0 && templates_are_ending(templates))
		(void)process_remove_tree(ap_buf_text(&moved), NULL); /* else with the trash */
	if (r == -EXDEV)
		r = process_remove_tree(path, err);
	return r == -ENOENT ? 0 : r;
}

void templates_let_go(struct templates *templates, int fd)
{
	if (fd < 0)
		return;
	pthread_mutex_lock(&templates->lock);
	int *held = realloc(templates->held, (templates->n_held + 1) * sizeof *held);
	if (held) {
		templates->held = held;
		held[templates->n_held++] = fd;
	}
	pthread_mutex_unlock(&templates->lock);
	if (!held)
		close(fd);
}

void templates_empty_trash(struct templates *templates)
{
	close_held(templates);
	AP_CLEANUP_BUF struct ap_buf trash = {0};
	ap_buf_printf(&trash, "%s/trash", templates->state_dir);
	DIR *entries = opendir(ap_buf_text(&trash));
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", ap_buf_text(&trash), entry->d_name);
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			(void)process_remove_tree(ap_buf_text(&path), NULL);
	}
	if (entries)
		closedir(entries);
}

void templates_prepare(struct templates *templates)
{
	struct staged spare;
	pthread_mutex_lock(&templates->lock);
	struct template *template = find_locked(templates, templates->current);
	bool wanted = template && !template->has_spare;
	if (wanted)
		template->n_users++; /* it must not go meanwhile */
	pthread_mutex_unlock(&templates->lock);
	if (!wanted)
		return;
	int r = stage(templates, template, &spare, NULL);
	pthread_mutex_lock(&templates->lock);
	bool taken = r == 0 && !template->has_spare;
	if (taken) {
		template->spare = spare;
		template->has_spare = true;
	}
	pthread_mutex_unlock(&templates->lock);
	if (!taken)
		(void)process_remove_tree(spare.dir, NULL);
	template_put(template);
}

void templates_begin_end(struct templates *templates)
{
	atomic_store(&templates->ending, true);
}

bool templates_are_ending(const struct templates *templates)
{
	return atomic_load(&templates->ending);
}

void templates_end(struct templates *templates)
{
	pthread_mutex_lock(&templates->lock);
	snprintf(templates->current, sizeof templates->current, "none");
	pthread_mutex_unlock(&templates->lock);
	remove_unused(templates);
	templates_empty_trash(templates);
}

/* --- making --- */

/* What git knows of the template's worktree goes out of the repository into the template: the
 * repository lists the worktrees of agents only. */
static int take_admin(const struct templates *templates, const char *dir, const char *files,
		      struct ap_err *err)
{
	AP_CLEANUP_FREE char *admin = NULL;
	AP_CLEANUP_BUF struct ap_buf to = {0};
	AP_CLEANUP_BUF struct ap_buf link = {0};
	int r = repo_admin_dir(templates->repo, files, &admin, err);
	if (r < 0)
		return r;
	ap_buf_printf(&to, "%s/admin", dir);
	ap_buf_printf(&link, "%s/.git", files);
	/* -a: by the index's own time git knows which of its entries it may trust */
	const char *copy[] = {"cp", "-a", "--", admin, ap_buf_text(&to), NULL};
	r = process_run(&(struct process_run){.argv = copy, .limit_ns = GIT_LIMIT}, err);
	if (r == 0)
		r = process_remove_tree(admin, err);
	if (r == 0 && unlink(ap_buf_text(&link)) < 0)
		r = ap_err_errno(err, -errno, "%s", ap_buf_text(&link));
	return r > 0 ? -EIO : r;
}

static int check_out(const struct templates *templates, const char *dir, const char *commit,
		     int64_t limit_ns, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf files = {0};
	ap_buf_printf(&files, "%s/files", dir);
	int r = file_make_dirs(dir, err);
	if (r == 0)
		r = spawn_backend_make_dir(templates->backend, ap_buf_text(&files), err);
	/* with the user's hooks: as `git worktree add` does it for them */
	const struct git_place place = {
		.git_dir = templates->repo->common_dir, .with_hooks = true, .limit_ns = limit_ns};
	if (r == 0)
		r = git_must(&place, NULL, err,
			     GIT_ARGS("worktree", "add", "--quiet", "--force", "--detach",
				      ap_buf_text(&files), commit));
	if (r == 0)
		r = take_admin(templates, dir, ap_buf_text(&files), err);
	return r;
}

/* Makes it beside its place and moves it there whole. templates->making held. */
static int make(struct templates *templates, const char *commit, int64_t limit_ns,
		struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	struct template *template = template_new(templates, commit);
	ap_buf_printf(&dir, "%s/making", templates->dir);
	if (!template || dir.failed)
		return ap_err_errno(err, -ENOMEM, "template");
	int r = process_remove_tree(ap_buf_text(&dir), err);
	if (r == 0)
		r = check_out(templates, ap_buf_text(&dir), commit, limit_ns, err);
	if (r == 0 && rename(ap_buf_text(&dir), template->dir) < 0)
		r = ap_err_errno(err, -errno, "%s", template->dir);
	if (r < 0) {
		(void)process_remove_tree(ap_buf_text(&dir), NULL);
		repo_forget_worktrees(templates->repo, templates->dir);
		template_free(template);
		return ap_err_wrap(err, r, "making a template of %.12s", commit);
	}
	pthread_mutex_lock(&templates->lock);
	ap_list_insert_after(&templates->list, &template->link);
	templates->n_made++;
	pthread_mutex_unlock(&templates->lock);
	return 0;
}

/* --- use --- */

struct template *template_find(struct templates *templates, const char *commit)
{
	pthread_mutex_lock(&templates->lock);
	struct template *template = find_locked(templates, commit);
	if (template)
		template->n_users++;
	pthread_mutex_unlock(&templates->lock);
	return template;
}

/* That of the commit, else the newest. */
static struct template *take(struct templates *templates, const char *commit)
{
	pthread_mutex_lock(&templates->lock);
	struct template *template = find_locked(templates, commit);
	if (!template && !ap_list_empty(&templates->list))
		template = ap_container_of(templates->list.next, struct template, link);
	if (template)
		template->n_users++;
	pthread_mutex_unlock(&templates->lock);
	return template;
}

static void set_current(struct templates *templates, const char *commit)
{
	pthread_mutex_lock(&templates->lock);
	snprintf(templates->current, sizeof templates->current, "%s", commit);
	pthread_mutex_unlock(&templates->lock);
}

int template_get(struct templates *templates, const char *commit, int64_t limit_ns,
		 struct template **ret, struct ap_err *err)
{
	struct template *template = take(templates, commit);
	int r = 0;
	if (!template) {
		pthread_mutex_lock(&templates->making);
		template = take(templates, commit); /* another may have made it meanwhile */
		if (!template)
			r = make(templates, commit, limit_ns, err);
		if (!template && r == 0)
			template = take(templates, commit);
		if (template && !templates->current[0])
			set_current(templates, commit);
		pthread_mutex_unlock(&templates->making);
	}
	if (template)
		*ret = template;
	return r;
}

/* Takes one out that nothing uses and that is not current; NULL: there is none. */
static struct template *take_unused(struct templates *templates)
{
	struct ap_list *at;
	struct template *unused = NULL;
	pthread_mutex_lock(&templates->lock);
	ap_list_for_each (at, &templates->list) {
		struct template *template = ap_container_of(at, struct template, link);
		bool is_current = strcmp(template->commit, templates->current) == 0;
		/* before the first commit is followed, all may be wanted */
		if (template->n_users == 0 && !is_current && templates->current[0])
			unused = template;
	}
	if (unused) {
		ap_list_remove(&unused->link);
		templates->n_removed++;
	}
	pthread_mutex_unlock(&templates->lock);
	return unused;
}

static void remove_unused(struct templates *templates)
{
	struct template *unused;
	while ((unused = take_unused(templates))) {
		(void)templates_discard(templates, unused->dir, NULL); /* else at the next start */
		template_free(unused);
	}
}

void template_put(struct template *template)
{
	struct templates *templates = template->all;
	pthread_mutex_lock(&templates->lock);
	bool unused = --template->n_users == 0;
	pthread_mutex_unlock(&templates->lock);
	if (unused)
		remove_unused(templates);
}

int templates_follow(struct templates *templates, const char *commit, int64_t limit_ns,
		     struct ap_err *err)
{
	int r = 0;
	if (!templates->backend || pthread_mutex_trylock(&templates->making) != 0)
		return 0;
	pthread_mutex_lock(&templates->lock);
	bool there = find_locked(templates, commit) != NULL;
	pthread_mutex_unlock(&templates->lock);
	if (!there)
		r = make(templates, commit, limit_ns, err);
	if (r == 0)
		set_current(templates, commit);
	pthread_mutex_unlock(&templates->making);
	if (r == 0)
		remove_unused(templates);
	return r;
}

void templates_look(struct templates *templates, struct templates_stats *ret)
{
	*ret = (struct templates_stats){0};
	pthread_mutex_lock(&templates->lock);
	struct ap_list *at;
	ap_list_for_each (at, &templates->list) {
		ret->n++;
		ret->n_users += ap_container_of(at, struct template, link)->n_users;
	}
	ret->n_made = templates->n_made;
	ret->n_removed = templates->n_removed;
	pthread_mutex_unlock(&templates->lock);
}
