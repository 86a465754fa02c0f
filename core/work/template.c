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

#include "agent_git.h"
#include "checkout.h"
#include "cleanup.h"
#include "file.h"
#include "git.h"
#include "git_command.h"
#include "list.h"
#include "process.h"
#include "remove.h"
#include "submodules.h"
#include "text.h"

struct template
{
	struct ap_list link;
	struct templates *all;
	char commit[GIT_OID_MAX + 1];
	char *dir, *files, *git;
	pthread_rwlock_t seed; /* guards the content of `git`; a reader copies it */
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
	pthread_mutex_t making;	  /* held while a template is made; taken before `lock` */
	pthread_mutex_t renewing; /* held while a seed is made again; taken before `lock` */

	pthread_mutex_t lock;	       /* of what follows */
	struct ap_list list;	       /* the newest first, then those found at the start */
	char current[GIT_OID_MAX + 1]; /* written under `making` too, but for templates_end() */
	uint64_t n_made, n_removed;
	struct git_progress progress; /* of the template that is being made; no lock */
	struct ap_err warning; /* not taken yet; "": none */
	int *held;	       /* descriptors to close before the trash is emptied */
	unsigned n_held;
	unsigned n_stuck;
	uint64_t *told; /* hashes of the names that `each` was told of; owned */
	unsigned n_told;
};

#define STAGED ".staged-" /* names of staged git directories in STATE_DIR/git begin so */

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

void template_seed(const struct template *template, struct ap_buf *ret)
{
	if (template)
		ap_buf_adds(ret, template->git);
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

static bool is_commit_name(const char *name)
{
	size_t len = strspn(name, "0123456789abcdef");
	return len >= 40 && len <= GIT_OID_MAX && name[len] == '\0';
}

/* --- refs that hold commits --- */

void templates_held_ref(const struct templates *templates, const char *name, struct ap_buf *ret)
{
	ap_buf_printf(ret, "refs/agentpool/_held/%016" PRIx64 "/%s", ap_hash(templates->state_dir),
		      name);
}

static int open_git(const struct templates *templates, struct ap_git **ret, struct ap_err *err)
{
	const struct repo *repo = templates->repo;
	const struct ap_git_place place = {.git_dir = repo->git_dir,
					   .common_dir = repo->common_dir,
					   .ref_notes = repo->ref_notes,
					   .by_program = repo->by_program};
	return ap_git_open(ret, &place, err);
}

/* Sets a ref that holds the commit, so that the repository's gc leaves what worktrees borrow. */
static int hold(const struct templates *templates, const char *commit, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	struct ap_git *git = NULL;
	templates_held_ref(templates, commit, &ref);
	char now[GIT_OID_MAX + 1];
	int r = ref.failed ? -ENOMEM : open_git(templates, &git, err);
	if (r == 0 && ap_git_resolve(git, ap_buf_text(&ref), now, NULL) != 0)
		r = ap_git_set_ref(git, ap_buf_text(&ref), commit, NULL,
				   "agentpoolfs: a template stands on it", err);
	ap_git_close(git);
	return r;
}

/* Removes the ref that holds the commit. If the repository cannot be written, the ref stays and
 * holds the commit still. */
static void let_go_of(const struct templates *templates, const char *commit)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	struct ap_git *git = NULL;
	templates_held_ref(templates, commit, &ref);
	if (!ref.failed && open_git(templates, &git, NULL) == 0)
		(void)ap_git_remove_ref(git, ap_buf_text(&ref), NULL, NULL);
	ap_git_close(git);
}

static int note_ref(void *data, const char *ref, const char *oid)
{
	(void)oid;
	ap_buf_add(data, ref, strlen(ref) + 1);
	return 0;
}

/* Removes the refs of templates that have gone in another way, such as with their state directory.
 * Leaves the refs that have the names of agents. */
static void let_go_of_others(struct templates *templates)
{
	AP_CLEANUP_BUF struct ap_buf prefix = {0};
	AP_CLEANUP_BUF struct ap_buf refs = {0};
	struct ap_git *git = NULL;
	templates_held_ref(templates, "", &prefix);
	if (prefix.failed || open_git(templates, &git, NULL) < 0)
		return;
	(void)ap_git_each_ref(git, ap_buf_text(&prefix), note_ref, &refs, NULL);
	const char *at = ap_buf_text(&refs), *end = at + refs.len;
	for (; at < end; at += strlen(at) + 1) {
		const char *name = at + prefix.len;
		pthread_mutex_lock(&templates->lock);
		bool is_known = find_locked(templates, name) != NULL;
		pthread_mutex_unlock(&templates->lock);
		if (!is_known && is_commit_name(name))
			(void)ap_git_remove_ref(git, at, NULL, NULL);
	}
	ap_git_close(git);
}

/* --- staging --- */

static int stage(const struct templates *templates, struct template *template, struct staged *ret,
		 struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	ret->dir[0] = '\0';
	ap_buf_printf(&dir, "%s/git", templates->state_dir);
	int r = file_make_dirs(ap_buf_text(&dir), err);
	if (r < 0)
		return r;
	ap_buf_adds(&dir, "/" STAGED "XXXXXX");
	if (dir.failed || dir.len + sizeof "/admin" > sizeof ret->admin)
		return ap_err_errno(err, -ENAMETOOLONG, "%s", templates->state_dir);
	if (!mkdtemp(dir.data))
		return ap_err_errno(err, -errno, "%s", dir.data);
	memcpy(ret->dir, dir.data, dir.len + 1);
	snprintf(ret->admin, sizeof ret->admin, "%s/admin", dir.data);
	pthread_rwlock_rdlock(&template->seed);
	r = agent_git_copy(templates->repo, template->git, ret->admin, err);
	pthread_rwlock_unlock(&template->seed);
	return r;
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

static void discard_spare(struct template *template)
{
	struct staged spare;
	if (take_spare(template, &spare))
		(void)remove_tree(spare.dir, NULL, NULL);
}

void templates_forget_staged(struct templates *templates)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	ap_buf_printf(&dir, "%s/git", templates->state_dir);
	DIR *entries = opendir(ap_buf_text(&dir));
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", ap_buf_text(&dir), entry->d_name);
		if (strncmp(entry->d_name, STAGED, strlen(STAGED)) == 0)
			(void)remove_tree(ap_buf_text(&path), NULL, NULL);
	}
	if (entries)
		closedir(entries);
}

/* --- the seed --- */

/* Whether a file belongs to the index: the index itself, or a shared one. */
static bool is_index(const char *name)
{
	return strcmp(name, "index") == 0 || strncmp(name, "sharedindex.", 12) == 0;
}

static int copy_index(const char *from, const char *to, struct ap_err *err)
{
	DIR *entries = opendir(from);
	struct dirent *entry;
	int r = entries ? 0 : ap_err_errno(err, -errno, "%s", from);
	while (r == 0 && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf source = {0};
		AP_CLEANUP_BUF struct ap_buf target = {0};
		ap_buf_printf(&source, "%s/%s", from, entry->d_name);
		ap_buf_printf(&target, "%s/%s", to, entry->d_name);
		if (is_index(entry->d_name)) /* with its time: git needs it to trust entries */
			r = file_copy(ap_buf_text(&source), ap_buf_text(&target), true, err);
	}
	if (entries)
		closedir(entries);
	return r;
}

/* Makes the seed again, beside the present one, and puts it in that one's place. `from` is the
 * directory of the index. */
static int renew_seed(struct templates *templates, struct template *template, const char *from,
		      struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf beside = {0};
	AP_CLEANUP_BUF struct ap_buf old = {0};
	AP_CLEANUP_BUF struct ap_buf modules = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	ap_buf_printf(&beside, "%s/git.new", template->dir);
	ap_buf_printf(&old, "%s/git.old", template->dir);
	ap_buf_printf(&modules, "%s/modules", ap_buf_text(&old));
	ap_buf_printf(&to, "%s/modules", template->git);
	int r = remove_tree(ap_buf_text(&beside), NULL, err);
	if (r == 0)
		r = remove_tree(ap_buf_text(&old), NULL, err);
	if (r == 0)
		r = agent_git_seed(templates->repo, template->commit, ap_buf_text(&beside), err);
	if (r == 0)
		r = agent_git_keep_settings(template->git, ap_buf_text(&beside), err);
	if (r == 0)
		r = copy_index(from, ap_buf_text(&beside), err);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&template->seed);
	if ((rename(template->git, ap_buf_text(&old)) < 0 && errno != ENOENT) ||
	    rename(ap_buf_text(&beside), template->git) < 0 ||
	    (rename(ap_buf_text(&modules), ap_buf_text(&to)) < 0 && errno != ENOENT))
		r = ap_err_errno(err, -errno, "%s", template->git);
	pthread_rwlock_unlock(&template->seed);
	(void)remove_tree(ap_buf_text(&old), NULL, NULL); /* else the next time */
	discard_spare(template);
	return r;
}

/* Makes the seed again if the repository's configuration or hooks have changed. */
static void refresh_seed(struct templates *templates, struct template *template)
{
	pthread_mutex_lock(&templates->renewing);
	if (agent_git_is_stale(templates->repo, template->git))
		(void)renew_seed(templates, template, template->git, NULL); /* else the next time */
	pthread_mutex_unlock(&templates->renewing);
}

int template_stage(struct templates *templates, struct template *template, struct staged *ret,
		   struct ap_err *err)
{
	refresh_seed(templates, template);
	if (!take_spare(template, ret))
		return stage(templates, template, ret, err);
	pthread_rwlock_rdlock(&template->seed);
	int r = agent_git_renew_refs(templates->repo, template->git, ret->admin, err);
	pthread_rwlock_unlock(&template->seed);
	return r;
}

/* Makes the seed of a template that an earlier version made without one, as its worktrees may be in
 * use. */
static void complete(struct templates *templates, struct template *template)
{
	AP_CLEANUP_BUF struct ap_buf admin = {0};
	ap_buf_printf(&admin, "%s/admin", template->dir);
	if (access(template->git, F_OK) < 0 && access(ap_buf_text(&admin), F_OK) == 0)
		(void)renew_seed(templates, template, ap_buf_text(&admin), NULL);
}

/* --- their life --- */

static void remove_unused(struct templates *templates);

static void template_free(struct template *template)
{
	discard_spare(template);
	pthread_rwlock_destroy(&template->seed);
	free(template->dir);
	free(template->files);
	free(template->git);
	free(template);
}

static struct template *template_new(struct templates *all, const char *name)
{
	struct template *template = calloc(1, sizeof *template);
	if (!template)
		return NULL;
	ap_list_init(&template->link);
	pthread_rwlock_init(&template->seed, NULL);
	template->all = all;
	snprintf(template->commit, sizeof template->commit, "%s", name);
	if (asprintf(&template->dir, "%s/%s", all->dir, name) < 0)
		template->dir = NULL;
	if (asprintf(&template->files, "%s/%s/files", all->dir, name) < 0)
		template->files = NULL;
	if (asprintf(&template->git, "%s/%s/git", all->dir, name) < 0)
		template->git = NULL;
	if (template->dir && template->files && template->git)
		return template;
	template_free(template);
	return NULL;
}

/* Lists the templates that an earlier daemon made, and removes what it left half-made. */
static void take_up(struct templates *templates)
{
	DIR *entries = opendir(templates->dir);
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		struct template *template = NULL;
		if (entry->d_name[0] == '.')
			continue;
		if (is_commit_name(entry->d_name))
			template = template_new(templates, entry->d_name);
		if (template) {
			ap_list_append(&templates->list, &template->link);
			complete(templates, template);
			(void)hold(templates, template->commit, NULL); /* it is there, as a rule */
		} else {
			AP_CLEANUP_BUF struct ap_buf path = {0};
			ap_buf_printf(&path, "%s/%s", templates->dir, entry->d_name);
			(void)remove_tree(ap_buf_text(&path), NULL, NULL);
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
	pthread_mutex_init(&templates->renewing, NULL);
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
	pthread_mutex_destroy(&templates->renewing);
	pthread_mutex_destroy(&templates->lock);
	free(templates->told);
	free(templates->state_dir);
	free(templates->dir);
	free(templates);
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
		(void)remove_tree(ap_buf_text(&moved), NULL, NULL); /* else with the trash */
	if (r == -EXDEV)
		r = remove_tree(path, NULL, err);
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

/* Whether the caller has not been told yet that this name cannot be removed; remembers the name.
 * For one thread at a time. */
static bool is_news(struct templates *templates, const char *name)
{
	uint64_t hash = ap_hash(name);
	for (unsigned i = 0; i < templates->n_told; i++) {
		if (templates->told[i] == hash)
			return false;
	}
	uint64_t *told =
		realloc(templates->told, (templates->n_told + 1) * sizeof *templates->told);
	if (told) { /* on failure the caller is told again */
		told[templates->n_told++] = hash;
		templates->told = told;
	}
	return true;
}

void templates_empty_trash(struct templates *templates,
			   void (*each)(void *data, const struct ap_err *why), void *data)
{
	unsigned n_stuck = 0;
	close_held(templates);
	AP_CLEANUP_BUF struct ap_buf trash = {0};
	ap_buf_printf(&trash, "%s/trash", templates->state_dir);
	DIR *entries = opendir(ap_buf_text(&trash));
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", ap_buf_text(&trash), entry->d_name);
		struct ap_err err = {""};
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    remove_tree(ap_buf_text(&path), NULL, &err) == 0)
			continue;
		n_stuck++;
		if (each && is_news(templates, entry->d_name))
			each(data, &err);
	}
	if (entries)
		closedir(entries);
	pthread_mutex_lock(&templates->lock);
	templates->n_stuck = n_stuck;
	pthread_mutex_unlock(&templates->lock);
}

void templates_prepare(struct templates *templates)
{
	struct staged spare;
	pthread_mutex_lock(&templates->lock);
	struct template *template = find_locked(templates, templates->current);
	if (template)
		template->n_users++; /* it must not go meanwhile */
	pthread_mutex_unlock(&templates->lock);
	if (!template)
		return;
	refresh_seed(templates, template);
	pthread_mutex_lock(&templates->lock);
	bool wanted = !template->has_spare;
	pthread_mutex_unlock(&templates->lock);
	int r = wanted ? stage(templates, template, &spare, NULL) : -EEXIST;
	pthread_mutex_lock(&templates->lock);
	bool taken = r == 0 && !template->has_spare;
	if (taken) {
		template->spare = spare;
		template->has_spare = true;
	}
	pthread_mutex_unlock(&templates->lock);
	if (wanted && !taken && spare.dir[0])
		(void)remove_tree(spare.dir, NULL, NULL);
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
	let_go_of_others(templates);
	templates_empty_trash(templates, NULL, NULL);
}

/* --- making --- */

void templates_warn(struct templates *templates, const struct ap_err *why)
{
	if (!why->text[0])
		return;
	pthread_mutex_lock(&templates->lock);
	templates->warning = *why;
	pthread_mutex_unlock(&templates->lock);
}

bool templates_take_warning(struct templates *templates, struct ap_err *ret)
{
	pthread_mutex_lock(&templates->lock);
	bool is_one = templates->warning.text[0] != '\0';
	if (is_one)
		*ret = templates->warning;
	templates->warning.text[0] = '\0';
	pthread_mutex_unlock(&templates->lock);
	return is_one;
}

static int check_out(struct templates *templates, const char *dir, const char *commit,
		     int64_t limit_ns, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf files = {0};
	AP_CLEANUP_BUF struct ap_buf git = {0};
	const struct repo *repo = templates->repo;
	struct ap_err warning = {""};
	ap_buf_printf(&files, "%s/files", dir);
	ap_buf_printf(&git, "%s/git", dir);
	int r = file_make_dirs(dir, err);
	if (r == 0)
		r = spawn_backend_make_dir(templates->backend, ap_buf_text(&files), err);
	if (r == 0)
		r = agent_git_seed(repo, commit, ap_buf_text(&git), err);
	if (r == 0)
		r = checkout_files(repo, ap_buf_text(&git), ap_buf_text(&files), limit_ns,
				   &templates->progress, err);
	if (r == 0) /* before the hook, which may use them */
		r = submodules_check_out(repo, commit, dir, limit_ns, &warning, err);
	templates_warn(templates, &warning);
	if (r == 0)
		r = checkout_hook(repo, ap_buf_text(&git), ap_buf_text(&files), false, commit,
				  limit_ns, &warning, err);
	templates_warn(templates, &warning);
	return r;
}

/* Makes a template beside its place and renames it into that. The caller holds templates->making.
 */
static int make(struct templates *templates, const char *commit, int64_t limit_ns,
		struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	struct template *template = template_new(templates, commit);
	ap_buf_printf(&dir, "%s/making", templates->dir);
	if (!template || dir.failed)
		return ap_err_errno(err, -ENOMEM, "template");
	int r = remove_tree(ap_buf_text(&dir), NULL, err);
	if (r == 0) /* first: somebody may rewrite its branch meanwhile */
		r = hold(templates, commit, err);
	if (r == 0)
		r = check_out(templates, ap_buf_text(&dir), commit, limit_ns, err);
	atomic_store(&templates->progress.done, 0);
	atomic_store(&templates->progress.all, 0);
	if (r == 0 && rename(ap_buf_text(&dir), template->dir) < 0)
		r = ap_err_errno(err, -errno, "%s", template->dir);
	if (r < 0) {
		(void)remove_tree(ap_buf_text(&dir), NULL, NULL);
		let_go_of(templates, commit);
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

/* The template of the commit, else the first of the list, with a reference. */
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
		template = take(templates, commit); /* another thread may have made it meanwhile */
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

int template_make(struct templates *templates, const char *commit, int64_t limit_ns,
		  struct template **ret, struct ap_err *err)
{
	pthread_mutex_lock(&templates->making);
	struct template *template = template_find(templates, commit);
	int r = template ? 0 : make(templates, commit, limit_ns, err);
	if (!template && r == 0 && !(template = template_find(templates, commit)))
		r = ap_err_set(err, -EBUSY, "the template of %.12s has gone again", commit);
	pthread_mutex_unlock(&templates->making);
	if (template)
		*ret = template;
	return r;
}

/* Takes a template out of the list that nothing uses and that is not current; NULL: there is none.
 */
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
		let_go_of(templates, unused->commit);
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

struct template *template_pin(struct templates *templates, struct template *const *slot)
{
	pthread_mutex_lock(&templates->lock);
	struct template *template = *slot;
	if (template)
		template->n_users++;
	pthread_mutex_unlock(&templates->lock);
	return template;
}

void template_replace(struct templates *templates, struct template **slot, struct template *by)
{
	pthread_mutex_lock(&templates->lock);
	struct template *before = *slot;
	*slot = by;
	pthread_mutex_unlock(&templates->lock);
	if (before)
		template_put(before);
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
	ret->n_stuck = templates->n_stuck;
	ret->n_files_done = atomic_load(&templates->progress.done);
	ret->n_files = atomic_load(&templates->progress.all);
	pthread_mutex_unlock(&templates->lock);
}

int template_place_modules(struct template *template, const char *path, const char *git_dir,
			   struct ap_err *err)
{
	return submodules_place(template->commit, template->dir, git_dir, path, err);
}
