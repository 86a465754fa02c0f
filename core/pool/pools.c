/* Pools as those see them who are no daemon: listed and forgotten, by their state directories. */
#include "pools.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "mounts.h"
#include "pool_internal.h"
#include "process.h"
#include "remove.h"

/* One state directory, as read. */
struct found {
	char state_dir[PATH_MAX], repo[PATH_MAX], mountpoint[PATH_MAX];
	struct ap_pool_found pool;
};

/* How many entries a directory has; 0: it is not there. */
static unsigned entries_of(const char *dir, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	unsigned n = 0;
	struct dirent *entry;
	ap_buf_printf(&path, "%s/%s", dir, name);
	DIR *entries = opendir(ap_buf_text(&path));
	while (entries && (entry = readdir(entries)))
		n += entry->d_name[0] != '.';
	if (entries)
		closedir(entries);
	return n;
}

static void look(const char *state_dir, struct found *ret)
{
	AP_CLEANUP_BUF struct ap_buf store = {0};
	unsigned n_leases;
	snprintf(ret->state_dir, sizeof ret->state_dir, "%s", state_dir);
	if (file_read_path(state_dir, STATE_REPOSITORY, ret->repo, sizeof ret->repo) < 0)
		ret->repo[0] = '\0';
	if (file_read_path(state_dir, STATE_MOUNT, ret->mountpoint, sizeof ret->mountpoint) < 0)
		ret->mountpoint[0] = '\0';
	ap_buf_printf(&store, "%s/state.db", state_dir);
	ret->pool = (struct ap_pool_found){
		.repo = ret->repo,
		.mountpoint = ret->mountpoint,
		.state_dir = ret->state_dir,
		.pid = state_dir_holder(state_dir),
		.n_leases =
			store_count_leases(ap_buf_text(&store), &n_leases) < 0 ? -1 : (int)n_leases,
		.n_kept = entries_of(state_dir, "kept"),
	};
}

/* A state directory by its entry in the parent: the directory itself, or a link to it. */
static bool is_state_dir(const char *parent, const char *name, char ret[PATH_MAX])
{
	char path[PATH_MAX + 8];
	snprintf(path, PATH_MAX, "%s/%s", parent, name);
	if (name[0] == '.' || !realpath(path, ret))
		return false;
	snprintf(path, sizeof path, "%s/lock", ret);
	return access(path, F_OK) == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int ap_pools_list(void (*take)(void *data, const struct ap_pool_found *), void *data,
		  struct ap_err *err)
{
	AP_CLEANUP_FREE char *parent = NULL;
	char state_dir[PATH_MAX];
	struct dirent **entries;
	struct found *found = malloc(sizeof *found);
	int r = found ? state_dir_parent(&parent, err) : ap_err_errno(err, -ENOMEM, "pools");
	if (r < 0) {
		free(found);
		return r;
	}
	int n = scandir(parent, &entries, NULL, by_name);
	if (n < 0 && errno != ENOENT)
		r = ap_err_errno(err, -errno, "%s", parent);
	for (int i = 0; i < n; i++) {
		if (is_state_dir(parent, entries[i]->d_name, state_dir)) {
			look(state_dir, found);
			take(data, &found->pool);
		}
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	free(found);
	return r;
}

/* --- forgetting --- */

static int refuse_unsaved(const struct found *found, struct ap_err *err)
{
	const char *dir = found->state_dir;
	AP_CLEANUP_BUF struct ap_buf store = {0};
	unsigned n_leases = 0, n_kept = entries_of(dir, "kept");
	ap_buf_printf(&store, "%s/state.db", dir);
	if (access(ap_buf_text(&store), F_OK) == 0 &&
	    store_count_leases(ap_buf_text(&store), &n_leases) < 0)
		return ap_err_set(
			err, -EIO,
			"%s cannot be read, so that nobody knows what is saved: remove %s "
			"by hand",
			store.data, dir);
	if (n_leases > 0)
		return ap_err_set(
			err, -ENOTEMPTY,
			"%s has work that is not saved, of %u lease%s: mount the pool, and "
			"unmount it without persist",
			dir, n_leases, n_leases == 1 ? "" : "s");
	if (n_kept > 0)
		return ap_err_set(
			err, -ENOTEMPTY,
			"%s/kept has what %u lease%s left: take what you need, and remove it", dir,
			n_kept, n_kept == 1 ? "" : "s");
	return 0;
}

static int kill_agent(void *data, const struct store_agent *agent)
{
	struct backend *backend = data;
	char name[32];
	snprintf(name, sizeof name, "agent-%u", agent->number);
	backend->ops->sweep(backend, name);
	return 0;
}

/* Ends the programs of idle agents that a daemon left. */
static int end_programs(const struct found *found, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct backend *backend;
	struct store *store;
	int r = backend_new(&backend, false, found->state_dir, "", err); /* ends the terminals */
	if (r < 0)
		return r;
	ap_buf_printf(&path, "%s/state.db", found->state_dir);
	if (store_open(&store, ap_buf_text(&path), NULL) == 0) {
		r = store_agents_read(store, kill_agent, backend, err);
		store_close(store);
	}
	backend->ops->free(backend, false);
	inside_end_left(found->state_dir);
	return r;
}

static int unmount_below(const char *dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	struct mounts_row *rows = NULL;
	size_t n = 0;
	int r = mounts_read(0, &table);
	if (r == 0)
		r = mounts_below(ap_buf_text(&table), dir, &rows, &n);
	if (r < 0)
		return ap_err_errno(err, r, "the table of mounts");
	for (size_t i = n; i-- > 0 && r == 0;) {
		if (umount2(rows[i].path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
			r = ap_err_errno(err, -errno, "unmounting %s", rows[i].path);
	}
	mounts_free(rows, n);
	return r;
}

static int forget(const struct found *found, struct ap_err *err)
{
	struct repo repo;
	int r = end_programs(found, err);
	if (r == 0)
		r = unmount_below(found->state_dir, err);
	if (r == 0)
		r = remove_tree(found->state_dir, NULL, err);
	if (r == 0 && found->repo[0] && repo_open(&repo, found->repo, true, false, NULL) == 0) {
		repo_forget_worktrees(&repo, found->state_dir);
		repo_fini(&repo);
	}
	return r;
}

/* The state directories that a path means. */
struct wanted {
	const char *path; /* canonical */
	const char *repo; /* the main checkout of that repository; NULL: it is none */
	struct found *found;
	unsigned n;
	bool failed; /* no memory */
};

static void want(void *data, const struct ap_pool_found *pool)
{
	struct wanted *wanted = data;
	if (strcmp(pool->state_dir, wanted->path) != 0 && strcmp(pool->repo, wanted->path) != 0 &&
	    (!wanted->repo || strcmp(pool->repo, wanted->repo) != 0))
		return;
	struct found *more = realloc(wanted->found, (wanted->n + 1) * sizeof *more);
	wanted->failed = wanted->failed || !more;
	if (!more)
		return;
	wanted->found = more;
	more[wanted->n].pool.pid = pool->pid;
	snprintf(more[wanted->n].state_dir, PATH_MAX, "%s", pool->state_dir);
	snprintf(more[wanted->n].repo, PATH_MAX, "%s", pool->repo);
	wanted->n++;
}

/* All of them or none: each is locked and looked at before one is removed. The locks stay until the
 * process ends. */
static int forget_all(const struct wanted *wanted, struct ap_err *err)
{
	int r = wanted->failed ? ap_err_errno(err, -ENOMEM, "pools") : 0;
	for (unsigned i = 0; i < wanted->n && r == 0; i++) {
		r = state_dir_seize(wanted->found[i].state_dir, err);
		if (r == 0)
			r = refuse_unsaved(&wanted->found[i], err);
	}
	for (unsigned i = 0; i < wanted->n && r == 0; i++)
		r = forget(&wanted->found[i], err);
	return r;
}

int ap_pool_forget(const char *path, struct ap_err *err)
{
	struct repo repo;
	struct wanted wanted = {.path = NULL};
	AP_CLEANUP_FREE char *canonical = NULL;
	int r = file_resolve(path, &canonical, err);
	if (r < 0)
		return r;
	bool is_repo = repo_open(&repo, path, true, false, NULL) == 0;
	wanted.path = canonical;
	wanted.repo = is_repo ? repo.main_path : NULL;
	r = ap_pools_list(want, &wanted, err);
	if (r == 0 && wanted.n == 0)
		r = ap_err_set(err, -ENOENT,
			       "there is no pool of %s, nor is it a state directory: agentpoolfs "
			       "--list shows those that there are",
			       path);
	if (r == 0)
		r = forget_all(&wanted, err);
	if (r == 0)
		state_dir_forget_links();
	if (is_repo)
		repo_fini(&repo);
	free(wanted.found);
	return r;
}
