/* The state directory: where it is, the lock on it, the store in it, and the settings and counters
 * in that. */
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

/* What git and other helpers of a dead daemon are given to come to their end. */
#define HELPERS_LIMIT (60 * AP_SECOND)

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

/* One daemon a state directory. The lock is of the process and of nothing else, and dies with it:
 * one by flock(2) would live on in a helper that is about to be started. */
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
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(pool->lock_fd, F_SETLK, &whole) == 0) {
		pool->locked = true;
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

/* Moves a database that is damaged out of the way, with its log. */
static int set_store_aside(const char *database, struct ap_err *err)
{
	static const char *const parts[] = {"", "-wal", "-shm"};
	char when[32];
	ap_clock_rfc3339(ap_clock_ns(), when, sizeof when);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		AP_CLEANUP_BUF struct ap_buf from = {0};
		AP_CLEANUP_BUF struct ap_buf to = {0};
		ap_buf_printf(&from, "%s%s", database, parts[i]);
		ap_buf_printf(&to, "%s.corrupt-%s%s", database, when, parts[i]);
		if (rename(ap_buf_text(&from), ap_buf_text(&to)) < 0 && errno != ENOENT)
			return ap_err_errno(err, -errno, "%s", ap_buf_text(&from));
	}
	return 0;
}

static int open_store(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *database = NULL;
	int r = state_file(pool, "state.db", &database, err);
	if (r < 0)
		return r;
	(void)chmod(database, 0600); /* there is none yet, or it may be one of an older version */
	r = store_open(&pool->store, database, err);
	if (r != -EUCLEAN)
		return r;
	pool->store_lost = true;
	r = set_store_aside(database, err);
	return r < 0 ? r : store_open(&pool->store, database, err);
}

int state_dir_open(struct ap_pool *pool, struct ap_err *err)
{
	/* the store's files have the mode that it leaves them; there are no other threads yet */
	mode_t umask_was = umask(077);
	int r = make_state_dir(pool, err);
	if (r == 0)
		r = lock_state_dir(pool, err);
	if (r == 0)
		r = open_store(pool, err);
	umask(umask_was);
	return r;
}

/* --- helpers of a dead daemon --- */

int state_dir_await_helpers(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = NULL;
	int r = state_file(pool, "helpers", &path, err);
	if (r < 0)
		return r;
	pool->helpers_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (pool->helpers_fd < 0)
		return ap_err_errno(err, -errno, "%s", path);
	int64_t deadline = ap_clock_ns() + HELPERS_LIMIT;
	while (flock(pool->helpers_fd, LOCK_EX | LOCK_NB) < 0 && ap_clock_ns() < deadline)
		poll(NULL, 0, 20);
	pool->helpers_gone = flock(pool->helpers_fd, LOCK_EX | LOCK_NB) == 0;
	process_mark(pool->helpers_fd);
	return 0;
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
	pool->machine.n_terminated = pool->machine.n_spawned; /* less those that are adopted */
	pool->machine.next_lease = (uint64_t)store_counter(pool->store, "next_lease", 1);
	pool->machine.next_token = (uint64_t)store_counter(pool->store, "next_token", 1);
}

int state_dir_save_next_agent(struct ap_pool *pool, struct ap_err *err)
{
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "next_agent", pool->machine.next_number);
	return store_commit(pool->store, txn, true, err);
}

int state_dir_save(struct ap_pool *pool, struct ap_err *err)
{
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "saved",
		ap_clock_to_wall(ap_clock_ns())); /* an empty one would sync nothing */
	return store_commit(pool->store, txn, true, err);
}

void state_dir_keep_option(struct ap_pool *pool, enum ap_option option, store_done *done,
			   void *data)
{
	AP_CLEANUP_BUF struct ap_buf value = {0};
	pthread_mutex_lock(&pool->lock);
	ap_config_show(&pool->config, option, &value);
	pthread_mutex_unlock(&pool->lock);
	struct store_txn *txn = value.failed ? NULL : store_txn_new();
	txn_setting(txn, ap_options[option].name, ap_buf_text(&value));
	store_submit(pool->store, txn, true, done, data);
}

void state_dir_keep_scale(struct ap_pool *pool, store_done *done, void *data)
{
	char value[16];
	pthread_mutex_lock(&pool->lock);
	int target = pool->machine.target;
	pthread_mutex_unlock(&pool->lock);
	snprintf(value, sizeof value, "%d", target);
	struct store_txn *txn = store_txn_new();
	txn_setting(txn, SETTING_SCALE, target >= 0 ? value : NULL);
	store_submit(pool->store, txn, true, done, data);
}

struct loading {
	struct ap_pool *pool;
	struct ap_config config;
	bool at_start;
	bool one_by_one; /* what does not fit the others is left out */
	bool tells;	 /* and said */
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
	struct ap_err err = {""};
	int r = ap_config_set(&loading->config, (enum ap_option)option, value, !loading->one_by_one,
			      &err);
	if (r == 0)
		loading->config.origin[option] = AP_ORIGIN_SET;
	if (r < 0 && loading->tells)
		events_add(loading->pool->events, "setting_left_out",
			   EVENT_FIELDS({"setting", name, 0}, {"value", value, 0},
					{"reason", err.text, 0}));
	if (loading->one_by_one)
		return 0;
	if (r < 0 && loading->err)
		*loading->err = err;
	return r;
}

/* All that fits the command line: one may do so only once another is there. */
static int load_one_by_one(struct loading *loading)
{
	int r = 0;
	loading->one_by_one = true;
	for (int pass = 0; r == 0 && pass < 2; pass++) {
		loading->tells = pass == 1;
		r = store_settings_read(loading->pool->store, take_setting, loading, loading->err);
	}
	return r;
}

static int copy_mounted(struct ap_pool *pool, struct ap_config *ret)
{
	pthread_mutex_lock(&pool->lock);
	int r = ap_config_copy(ret, &pool->mounted); /* what no store has stays so */
	pthread_mutex_unlock(&pool->lock);
	return r;
}

/* Notes which settings are others than they were. */
static void note_changes_locked(struct ap_pool *pool, const struct ap_config *before)
{
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		AP_CLEANUP_BUF struct ap_buf was = {0}, is = {0};
		ap_config_show(before, (enum ap_option)i, &was);
		ap_config_show(&pool->config, (enum ap_option)i, &is);
		if (strcmp(ap_buf_text(&was), ap_buf_text(&is)) != 0)
			pool_note_config_locked(pool, (enum ap_option)i);
	}
}

int state_dir_load(struct ap_pool *pool, bool at_start, struct ap_err *err)
{
	struct loading loading = {.pool = pool, .at_start = at_start, .target = -1, .err = err};
	struct ap_list answered;
	ap_list_init(&answered);
	int r = copy_mounted(pool, &loading.config);
	if (r < 0)
		return ap_err_errno(err, r, "settings");
	r = store_settings_read(pool->store, take_setting, &loading, err);
	if (r == 0)
		r = ap_config_check(&loading.config, err);
	if (r < 0 && at_start) {
		ap_config_fini(&loading.config);
		r = copy_mounted(pool, &loading.config);
		if (r == 0)
			r = load_one_by_one(&loading);
	}
	if (r == 0) {
		pthread_mutex_lock(&pool->lock);
		struct ap_config old = pool->config;
		pool->config = loading.config;
		loading.config = old;
		pool_set_target_locked(pool, loading.target);
		note_changes_locked(pool, &loading.config);
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
	if (pool->templates && !pool->kept) /* such as of agents that ended while it was away */
		repo_forget_worktrees(&pool->repo, pool->state_dir);
	for (size_t i = 0; pool->locked && i < sizeof dirs / sizeof *dirs; i++) {
		AP_CLEANUP_FREE char *path = NULL;
		if (state_file(pool, dirs[i], &path, NULL) == 0)
			(void)rmdir(path); /* not empty: work that could not be saved */
	}
	store_close(pool->store);
	process_mark(-1);
	if (pool->helpers_fd >= 0)
		close(pool->helpers_fd);
	if (pool->lock_fd >= 0)
		close(pool->lock_fd);
	templates_free(pool->templates);
	free(pool->state_dir);
}
