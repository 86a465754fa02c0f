/* The state directory: where it is, the lock on it, the store in it, and what a dead daemon left
 * there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "pool_internal.h"
#include "process.h"

/* What keepers of a dead daemon's agents are given to end. */
#define ORPHAN_LIMIT (10 * AP_SECOND)

char *state_dir_path(const struct ap_pool *pool, const char *subdir, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s/%s", pool->state_dir, subdir, name) < 0 ? NULL : path;
}

/* By the XDG base directory specification: one directory a repository. */
static char *default_state_dir(const struct repo *repo)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	const char *slash = strrchr(repo->path, '/');
	char *path = NULL;
	int n;
	if (state && state[0] == '/')
		n = asprintf(&path, "%s/agentpoolfs/%s-%016" PRIx64, state, slash + 1,
			     ap_hash(repo->common_dir));
	else
		n = asprintf(&path, "%s/.local/state/agentpoolfs/%s-%016" PRIx64,
			     home ? home : "/root", slash + 1, ap_hash(repo->common_dir));
	return n < 0 ? NULL : path;
}

static int make_state_dir(struct ap_pool *pool, struct ap_err *err)
{
	const char *option = pool->config.text[AP_OPT_STATE_DIR];
	AP_CLEANUP_FREE char *path = *option ? strdup(option) : default_state_dir(&pool->repo);
	if (!path)
		return ap_err_errno(err, -ENOMEM, "state directory");
	int r = file_make_dirs(path, err);
	if (r < 0)
		return r;
	pool->state_dir = realpath(path, NULL);
	/* whoever reaches the socket in it owns all agents */
	if (!pool->state_dir || chmod(pool->state_dir, 0700) < 0)
		return ap_err_errno(err, -errno, "%s", path);
	static const char *const dirs[] = {POOL_WORKTREES, POOL_AGENTS, POOL_LAYERS};
	for (size_t i = 0; r == 0 && i < sizeof dirs / sizeof *dirs; i++) {
		AP_CLEANUP_BUF struct ap_buf dir = {0};
		ap_buf_printf(&dir, "%s/%s", pool->state_dir, dirs[i]);
		r = file_make_dirs(ap_buf_text(&dir), err);
	}
	return r;
}

static int state_file(const struct ap_pool *pool, const char *name, char **ret, struct ap_err *err)
{
	if (asprintf(ret, "%s/%s", pool->state_dir, name) < 0) {
		*ret = NULL;
		return ap_err_errno(err, -ENOMEM, "state directory");
	}
	return 0;
}

/* One daemon a state directory: the lock dies with the process. */
static int lock_state_dir(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = NULL;
	char holder[32] = "";
	int r = state_file(pool, "lock", &path, err);
	if (r < 0)
		return r;
	pool->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (pool->lock_fd < 0)
		return ap_err_errno(err, -errno, "%s", path);
	if (flock(pool->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		if (ftruncate(pool->lock_fd, 0) < 0 || dprintf(pool->lock_fd, "%d\n", getpid()) < 0)
			return ap_err_errno(err, -errno, "%s", path);
		return 0;
	}
	ssize_t n = pread(pool->lock_fd, holder, sizeof holder - 1, 0);
	holder[n > 0 ? n : 0] = '\0';
	holder[strcspn(holder, "\n")] = '\0';
	return ap_err_set(
		err, -EBUSY,
		"%s is in use by process %s: unmount that pool or choose another -o state_dir",
		pool->state_dir, *holder ? holder : "unknown");
}

int state_dir_open(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *database = NULL;
	int r = make_state_dir(pool, err);
	if (r == 0)
		r = lock_state_dir(pool, err);
	if (r == 0)
		r = state_file(pool, "state.db", &database, err);
	if (r == 0)
		r = store_open(&pool->store, database, err);
	return r;
}

/* --- what a dead daemon left --- */

/* Waits until the keeper of a left agent, told to end by the end of its terminal, has ended. */
static void await_keeper(const char *agent_dir)
{
	AP_CLEANUP_FREE char *path = NULL;
	if (asprintf(&path, "%s/alive", agent_dir) < 0)
		return;
	AP_CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	int64_t deadline = ap_clock_ns() + ORPHAN_LIMIT;
	while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && ap_clock_ns() < deadline)
		poll(NULL, 0, 20);
}

/* --- the record of a lease: "LABEL BASE CREATED GENERATION\nADMIN_DIR\n" --- */

static char *record_path(const char *agent_dir)
{
	char *path;
	return asprintf(&path, "%s/lease", agent_dir) < 0 ? NULL : path;
}

int lease_record_write(const struct ap_agent *agent, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = record_path(agent->dir);
	AP_CLEANUP_FREE char *temporary = NULL;
	if (!path || asprintf(&temporary, "%s.new", path) < 0)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	FILE *file = fopen(temporary, "we");
	if (!file)
		return ap_err_errno(err, -errno, "%s", temporary);
	fprintf(file, "%s %s %d %u\n%s\n", agent->lease.label, agent->lease.base,
		agent->lease.created, agent_generation(agent), agent->worktree.admin_dir);
	bool failed = ferror(file);
	if (fclose(file) != 0 || failed || rename(temporary, path) < 0)
		return ap_err_errno(err, errno ? -errno : -EIO, "%s", path);
	return 0;
}

/* False when there is none: the agent was not leased. */
static bool lease_record_read(const char *agent_dir, struct worktree_lease *ret,
			      unsigned *ret_generation, char **ret_admin_dir)
{
	AP_CLEANUP_FREE char *path = record_path(agent_dir);
	FILE *file = path ? fopen(path, "re") : NULL;
	int created;
	size_t size = 0;
	if (!file)
		return false;
	*ret_admin_dir = NULL;
	bool whole = fscanf(file, "%64s %64s %d %u\n", ret->label, ret->base, &created,
			    ret_generation) == 4 &&
		     getline(ret_admin_dir, &size, file) > 1;
	fclose(file);
	if (!whole) {
		free(*ret_admin_dir);
		return false;
	}
	(*ret_admin_dir)[strcspn(*ret_admin_dir, "\n")] = '\0';
	ret->created = created;
	return true;
}

/* --- recovery --- */

/* Saves the work of one left worktree to its lease's branch and removes it. */
static void recover_worktree(struct ap_pool *pool, const char *name)
{
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	AP_CLEANUP_FREE char *admin_dir = NULL;
	AP_CLEANUP_BUF struct ap_buf message = {0};
	struct worktree worktree = {0};
	struct worktree_lease lease;
	struct ap_err err = {""};
	unsigned generation = 0;
	if (!agent_dir)
		return;
	await_keeper(agent_dir);
	bool leased = lease_record_read(agent_dir, &lease, &generation, &admin_dir);
	int r = worktree_open(&worktree, pool->templates, name, admin_dir, &err);
	if (r < 0 && !leased) /* half made, or half removed: nobody has worked in it */
		r = worktree_open(&worktree, pool->templates, name, "", &err);
	if (r == 0 && leased) {
		lease_message(lease.label, name, generation, &message);
		r = worktree_save(&worktree, &lease, ap_buf_text(&message), &err);
	}
	if (r == 0)
		r = worktree_remove(&worktree, &err);
	if (r == 0) {
		process_remove_tree(agent_dir, NULL);
		worktree_fini(&worktree);
	} else { /* the record stays with the worktree: the next start tries again */
		pool->n_aside++;
		pool->aside_error = err;
		worktree_leave(&worktree);
	}
}

/* What is left of an agent without a worktree. */
static void remove_records(struct ap_pool *pool, const char *name)
{
	AP_CLEANUP_FREE char *worktree = state_dir_path(pool, POOL_WORKTREES, name);
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	if (!worktree || !agent_dir)
		return;
	await_keeper(agent_dir);
	if (access(worktree, F_OK) < 0)
		process_remove_tree(agent_dir, NULL);
}

/* What is left of an overlay whose place has gone. */
static void discard_layers(struct ap_pool *pool, const char *name)
{
	AP_CLEANUP_FREE char *worktree = state_dir_path(pool, POOL_WORKTREES, name);
	AP_CLEANUP_FREE char *layers = state_dir_path(pool, POOL_LAYERS, name);
	if (worktree && layers && access(worktree, F_OK) < 0)
		(void)templates_discard(pool->templates, layers, NULL);
}

static void for_each_left(struct ap_pool *pool, const char *subdir,
			  void (*handle)(struct ap_pool *, const char *))
{
	AP_CLEANUP_FREE char *path = NULL;
	if (asprintf(&path, "%s/%s", pool->state_dir, subdir) < 0)
		return;
	DIR *dir = opendir(path);
	if (!dir)
		return;
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		if (agent_number(entry->d_name))
			handle(pool, entry->d_name);
	}
	closedir(dir);
}

void state_dir_recover(struct ap_pool *pool)
{
	for_each_left(pool, POOL_WORKTREES, recover_worktree);
	for_each_left(pool, POOL_AGENTS, remove_records);
	for_each_left(pool, POOL_LAYERS, discard_layers);
	repo_forget_worktrees(&pool->repo, pool->state_dir);
	templates_forget_staged(pool->templates);
}

/* --- settings and counters --- */

#define SETTING_SCALE "scale" /* the size set by hand */

static uint64_t *counter_of(struct ap_pool *pool, unsigned i, const char **ret_name)
{
	struct machine *m = &pool->machine;
	static const char *const names[] = {"total_requests", "total_recycles", "spawned_agents"};
	uint64_t *const counters[] = {&m->n_grants, &m->n_recycled, &m->n_spawned};
	if (i >= sizeof names / sizeof *names)
		return NULL;
	*ret_name = names[i];
	return counters[i];
}

void state_dir_load_counters(struct ap_pool *pool)
{
	const char *name;
	uint64_t *counter;
	for (unsigned i = 0; (counter = counter_of(pool, i, &name)); i++)
		*counter = (uint64_t)store_counter(pool->store, name, 0);
	pool->machine.n_terminated = pool->machine.n_spawned; /* whatever there was is over */
	pool->machine.next_lease = (uint64_t)store_counter(pool->store, "next_lease", 1);
	pool->machine.next_token = (uint64_t)store_counter(pool->store, "next_token", 1);
	pool->tokens_kept = pool->machine.next_token;
}

int state_dir_save_next_agent(struct ap_pool *pool, struct ap_err *err)
{
	return store_set(pool->store, "next_agent", pool->machine.next_number, err);
}

int state_dir_save_counters(struct ap_pool *pool, struct ap_err *err)
{
	const char *name;
	int r = 0;
	for (unsigned i = 0; r == 0 && counter_of(pool, i, &name); i++) {
		pthread_mutex_lock(&pool->lock);
		int64_t value = (int64_t)*counter_of(pool, i, &name);
		pthread_mutex_unlock(&pool->lock);
		r = store_raise(pool->store, name, value, err);
	}
	return r;
}

int state_dir_save(struct ap_pool *pool, struct ap_err *err)
{
	struct store_setting settings[AP_N_OPTIONS + 1];
	unsigned n = 0;
	int r = 0;
	pthread_mutex_lock(&pool->lock);
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		struct ap_buf value = {0};
		if (pool->config.origin[i] != AP_ORIGIN_SET)
			continue;
		ap_config_show(&pool->config, (enum ap_option)i, &value);
		if (value.failed)
			r = ap_err_errno(err, -ENOMEM, "settings");
		settings[n++] = (struct store_setting){ap_options[i].name, value.data};
	}
	if (pool->machine.target >= 0) {
		settings[n] = (struct store_setting){SETTING_SCALE, NULL};
		if (asprintf(&settings[n].value, "%d", pool->machine.target) < 0)
			r = ap_err_errno(err, -ENOMEM, "settings");
		else
			n++;
	}
	pthread_mutex_unlock(&pool->lock);
	if (r == 0)
		r = store_settings_write(pool->store, settings, n, err);
	for (unsigned i = 0; i < n; i++)
		free(settings[i].value);
	return r < 0 ? r : state_dir_save_counters(pool, err);
}

struct loading {
	struct ap_config config;
	bool at_start;
	int target;
	struct ap_err *err;
};

/* What the command line says goes before what is stored. */
static int take_setting(void *data, const char *name, const char *value)
{
	struct loading *loading = data;
	int option = ap_option_find(name);
	if (strcmp(name, SETTING_SCALE) == 0)
		loading->target = atoi(value);
	if (option < 0 || ap_options[option].when != AP_WHEN_ANYTIME ||
	    (loading->at_start && loading->config.origin[option] == AP_ORIGIN_MOUNT))
		return 0;
	int r = ap_config_set(&loading->config, (enum ap_option)option, value, true, loading->err);
	loading->config.origin[option] = AP_ORIGIN_SET;
	return r;
}

int state_dir_load(struct ap_pool *pool, bool at_start, struct ap_err *err)
{
	struct loading loading = {.at_start = at_start, .target = -1, .err = err};
	struct ap_list answered;
	ap_list_init(&answered);
	pthread_mutex_lock(&pool->lock);
	int r = ap_config_copy(&loading.config, &pool->config);
	pthread_mutex_unlock(&pool->lock);
	if (r < 0)
		return ap_err_errno(err, r, "settings");
	r = store_settings_read(pool->store, take_setting, &loading, err);
	if (r == 0)
		r = ap_config_check(&loading.config, err);
	if (r == 0) {
		pthread_mutex_lock(&pool->lock);
		struct ap_config old = pool->config;
		pool->config = loading.config;
		loading.config = old;
		pool->machine.target = loading.target;
		if (!at_start)
			pool_obey_config_locked(pool, &answered);
		pthread_mutex_unlock(&pool->lock);
		pool_deliver(pool, &answered);
	}
	ap_config_fini(&loading.config);
	return r;
}

void state_dir_close(struct ap_pool *pool)
{
	static const char *const dirs[] = {POOL_AGENTS, POOL_WORKTREES, POOL_LAYERS, "templates",
					   "trash"};
	if (pool->templates)
		templates_end(pool->templates);
	for (size_t i = 0; pool->store && i < sizeof dirs / sizeof *dirs; i++) {
		AP_CLEANUP_FREE char *path = NULL;
		if (state_file(pool, dirs[i], &path, NULL) == 0)
			(void)rmdir(path); /* not empty: work that could not be saved */
	}
	store_close(pool->store);
	if (pool->lock_fd >= 0)
		close(pool->lock_fd);
	templates_free(pool->templates);
	free(pool->state_dir);
}
