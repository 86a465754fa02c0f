/* The pool's life: checks before it makes anything, start, end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "crash_point.h"
#include "pool_internal.h"

static void notify(struct worker_once *once)
{
	struct ap_pool *pool = ap_container_of(once, struct ap_pool, notify);
	if (pool->changed)
		pool->changed(pool->observer);
}

/* New events can be read. */
static void on_news(void *data)
{
	struct ap_pool *pool = data;
	worker_once_ask(&pool->notify);
}

/* The profiles in the user's configuration directory, by the XDG base directory specification. "":
 * there is none. NULL on ENOMEM. */
static char *user_profiles(void)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	char *path = NULL;
	if (config && config[0] == '/')
		return asprintf(&path, "%s/agentpoolfs/programs", config) < 0 ? NULL : path;
	if (home && home[0] == '/')
		return asprintf(&path, "%s/.config/agentpoolfs/programs", home) < 0 ? NULL : path;
	return strdup("");
}

/* Whether a directory of profiles can be read; tells the user if it exists and cannot. */
static bool can_read_profiles(struct ap_pool *pool, const char *dir)
{
	struct ap_err err;
	if (!*dir)
		return false;
	if (faccessat(AT_FDCWD, dir, R_OK | X_OK, AT_EACCESS) == 0)
		return true;
	if (errno != ENOENT && errno != ENOTDIR) {
		ap_err_errno(&err, -errno, "no profiles are taken from %s", dir);
		pool_tell(pool, err.text);
	}
	return false;
}

/* Loads the program's profile: the option's, that of the program's name, or the default. */
static int load_profile(struct ap_pool *pool, const char *installed, struct ap_err *err)
{
	AP_CLEANUP_FREE char *own = NULL;
	AP_CLEANUP_FREE char *user = user_profiles();
	const char *option = pool->config.text[AP_OPT_PROGRAM_PROFILE];
	const char *slash = strrchr(pool->argv[0], '/');
	const char *name = slash ? slash + 1 : pool->argv[0];
	if (asprintf(&own, "%s/programs", pool->state_dir) < 0)
		own = NULL;
	if (!own || !user)
		return ap_err_errno(err, -ENOMEM, "profile");
	const char *const all[] = {own, user, installed};
	const char *dirs[sizeof all / sizeof *all + 1] = {NULL};
	unsigned n = 0;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (can_read_profiles(pool, all[i]))
			dirs[n++] = all[i];
	}
	if (*option) {
		int r = profile_load(&pool->profile, option, dirs, err);
		return r == -ENOENT ? ap_err_wrap(err, -EINVAL, "program_profile") : r;
	}
	int r = profile_load(&pool->profile, name, dirs, err);
	bool shell = r == 0 && profile_values(pool->profile)->rules.shell;
	if (shell && !activity_is_interactive(pool->argv)) { /* the shell runs a script */
		profile_free(ap_steal(pool->profile));
		r = -ENOENT;
	}
	return r == -ENOENT ? profile_load(&pool->profile, "default", dirs, err) : r;
}

static int open_events(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = NULL;
	if (asprintf(&path, "%s/events", pool->state_dir) < 0) {
		path = NULL;
		return ap_err_errno(err, -ENOMEM, "events");
	}
	return events_open(&pool->events, path, err);
}

/* Checks that `base` of the command line is a commit. */
static int check_base(const struct ap_pool *pool, struct ap_err *err)
{
	char oid[GIT_OID_MAX + 1];
	int r = repo_resolve(&pool->repo, pool->config.text[AP_OPT_BASE], oid, err);
	return r < 0 ? ap_err_wrap(err, r, "base") : 0;
}

static void cond_init_monotonic(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* Fills in all of pool->sessions but loop, workers and backend: ap_pool_start() does those. */
static int fill_session_host(struct ap_pool *pool, struct ap_err *err)
{
	struct session_host *host = &pool->sessions;
	if (asprintf(&pool->worktrees, "%s/" POOL_WORKTREES, pool->state_dir) < 0) {
		pool->worktrees = NULL;
		return ap_err_errno(err, -ENOMEM, "pool");
	}
	host->profile = pool->profile;
	host->driver = session_driver(pool->profile);
	host->argv = pool->argv;
	host->repo = pool->repo.main_path;
	host->worktrees = pool->worktrees;
	host->mountpoint = pool->mountpoint;
	pool_bound_sessions_locked(pool); /* needs no lock yet: nobody else has the pool */
	return 0;
}

/* Makes a pool from the options alone, without I/O; takes over options->config. NULL on ENOMEM. */
static struct ap_pool *pool_alloc(struct ap_pool_options *options)
{
	struct ap_pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return NULL;
	pool->lock_fd = pool->helpers_fd = -1;
	pool->kept = true; /* until ap_pool_stop() decides: free removes nothing */
	pthread_mutex_init(&pool->lock, NULL);
	pthread_mutex_init(&pool->sessions.seeding, NULL);
	spending_init(pool);
	pthread_cond_init(&pool->emptied, NULL);
	ap_list_init(&pool->answered);
	ap_list_init(&pool->lookers);
	cond_init_monotonic(&pool->looked);
	pool->config = options->config;
	options->config = (struct ap_config){0};
	pool->argv = options->argv;
	pool->agent_gone = options->agent_gone;
	pool->changed = options->changed;
	pool->tell = options->tell;
	pool->observer = options->data;
	pool->owner = geteuid();
	pool->inside.pidfd = pool->keeper_fd = pool->inside_fd = pool->outside_fd = -1;
	int64_t shown = pool->config.number[AP_OPT_UID];
	pool->shown_owner = shown >= 0 ? (uid_t)shown : pool->owner;
	pool->started_ns = ap_clock_ns();
	pool->mountpoint = strdup(options->mountpoint);
	pool->shim = strdup(options->shim);
	unsigned n_slots = (unsigned)pool->config.number[AP_OPT_HARD_CAP];
	pool->agents = calloc(n_slots, sizeof(struct ap_agent *));
	pool->noted = calloc(n_slots, sizeof *pool->noted);
	if (pool->mountpoint && pool->shim && pool->agents && pool->noted)
		return pool;
	ap_pool_free(pool);
	return NULL;
}

static int open_repo(struct ap_pool *pool, const char *path, struct ap_err *err)
{
	const char *git = pool->config.text[AP_OPT_GIT];
	int r = repo_open(&pool->repo, path,
			  ap_config_choice(&pool->config, AP_OPT_ALLOW_FOREIGN_REPO),
			  strcmp(git, "program") == 0, err);
	if (r == 0 && strcmp(git, "library") == 0 &&
	    strcmp(repo_git_kind(&pool->repo), "libgit2") != 0)
		return ap_err_set(err, -EINVAL, "git=library: libgit2 cannot open %s",
				  pool->repo.path);
	return r;
}

int ap_pool_new(struct ap_pool **ret, struct ap_pool_options *options, struct ap_err *err)
{
	int r = ap_config_check(&options->config, err);
	if (r < 0)
		return r;
	struct ap_pool *pool = pool_alloc(options);
	if (!pool)
		return ap_err_errno(err, -ENOMEM, "pool");
	if ((r = open_repo(pool, options->repo, err)) < 0 ||
	    (r = state_dir_choose(pool, err)) < 0 ||
	    (r = load_profile(pool, options->profiles, err)) < 0 ||
	    (r = fill_session_host(pool, err)) < 0 || (r = check_base(pool, err)) < 0 ||
	    (r = program_check(pool, err)) < 0 || (r = wall_begin(pool, err)) < 0) {
		ap_pool_free(pool);
		return r;
	}
	*ret = pool;
	return 0;
}

bool ap_pool_await_end(struct ap_pool *pool)
{
	return state_dir_await_end(pool);
}

bool ap_pool_ignore_line(struct ap_pool *pool, char **ret_line, char **ret_file)
{
	const struct repo *repo = &pool->repo;
	const char *mountpoint = pool->mountpoint;
	AP_CLEANUP_FREE char *place = repo_place_of(repo, mountpoint);
	AP_CLEANUP_BUF struct ap_buf line = {0}, file = {0};
	size_t len = place ? strlen(place) : 0;
	if (!place || strncmp(mountpoint, place, len) != 0 || mountpoint[len] != '/' ||
	    strcmp(place, repo->common_dir) == 0 || strcmp(place, repo->git_dir) == 0 ||
	    repo_ignores(place, mountpoint))
		return false;
	for (const char *at = mountpoint + len; *at; at++) {
		if (strchr("\\*?[ ", *at)) /* special in a pattern */
			ap_buf_adds(&line, "\\");
		ap_buf_add(&line, at, 1);
	}
	ap_buf_adds(&line, "/");
	ap_buf_printf(&file, "%s/info/exclude", repo->common_dir);
	if (line.failed || file.failed)
		return false;
	*ret_line = ap_steal(line.data);
	*ret_file = ap_steal(file.data);
	return true;
}

/* Makes the machine, suspended: it begins nothing until recovery is done and ap_pool_start() steps
 * MACHINE_RESUME. */
static int make_machine(struct ap_pool *pool, struct ap_err *err)
{
	struct machine_limits limits = pool_limits(pool);
	unsigned n_slots = (unsigned)pool->config.number[AP_OPT_HARD_CAP];
	pool->machine =
		machine_new(n_slots, 1, &limits, (uint32_t)pool->started_ns, pool->started_ns);
	if (!pool->machine)
		return ap_err_errno(err, -ENOMEM, "pool");
	pool->view = machine_view(pool->machine);
	unsigned most = machine_max_effects(pool->view);
	pool->effects.at = calloc(most, sizeof *pool->effects.at);
	pool->effects.moves = calloc(most, sizeof *pool->effects.moves);
	if (!pool->effects.at || !pool->effects.moves)
		return ap_err_errno(err, -ENOMEM, "pool");
	pool_step(pool, &(struct machine_event){.type = MACHINE_SUSPEND});
	return 0;
}

#define INVENTED "refs/heads/agentpool/lease-" /* branches of labels that the machine invents */

int ap_pool_begin(struct ap_pool *pool, struct ap_err *err)
{
	uint64_t next_token = 0;
	int r = state_dir_open(pool, err);
	if (r == 0)
		r = open_events(pool, err);
	if (r == 0)
		r = inside_choose(pool, err);
	if (r == 0)
		r = watch_init(pool, err);
	if (r == 0)
		spending_open(pool);
	if (r == 0)
		r = make_machine(pool, err);
	if (r == 0) {
		state_dir_load_counters(pool);
		r = keeping_open(pool, &next_token, err);
	}
	if (r == 0) /* never reuse a token of kept/, nor a label of a branch, even if the store was
		       lost */
		pool_restore(pool,
			     &(struct machine_restored){
				     .next_token = next_token,
				     .next_lease = 1 + repo_last_number(&pool->repo, INVENTED)});
	if (r == 0)
		r = ap_config_copy(&pool->mounted, &pool->config);
	if (r == 0)
		(void)state_dir_load(pool, true, NULL); /* reports what it leaves out */
	return r;
}

/* Configures the backend. A server of terminals that an earlier daemon left may not answer any
 * more: then revives the backend. */
static int configure_backend(struct ap_pool *pool, struct ap_err *err)
{
	const struct backend_ops *ops = pool->backend->ops;
	int r = backend_configure(pool->backend, err);
	if (r < 0 && ops->revive)
		r = pool_revive_backend(pool, err);
	pthread_mutex_lock(&pool->lock);
	pool->reviving = false; /* workers revive it from now on; it may have failed meanwhile */
	if (ops->revive && ops->fd(pool->backend) < 0)
		loop_set(pool->loop, &pool->revive_due, ap_clock_ns());
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int ap_pool_start(struct ap_pool *pool, struct ap_err *err)
{
	bool full = ap_config_choice(&pool->config, AP_OPT_DURABILITY) == 0;
	state_dir_mounted(pool);
	int r = state_dir_await_helpers(pool, err);
	if (r == 0)
		r = store_start(pool->store, full, err);
	if (r == 0)
		r = backend_new(&pool->backend, session_needs_terminal(pool->profile),
				pool->state_dir, pool->shim, err);
	if (r == 0 && (!(pool->workers = worker_pool_new(POOL_N_WORKERS)) ||
		       !(pool->looking = worker_pool_new(3))))
		r = ap_err_errno(err, -EAGAIN, "worker threads");
	pool->sessions.loop = pool->loop;
	pool->sessions.workers = pool->workers;
	pool->sessions.backend = pool->backend;
	if (r == 0) {
		jobs_init(pool);
		if (budgets_init(pool) < 0)
			return ap_err_errno(err, -ENOMEM, "pool");
		worker_once_init(&pool->notify, pool->looking, notify, NULL);
		r = events_start(pool->events, on_news, pool);
		if (r < 0)
			ap_err_errno(err, r, "thread of the events");
	}
	if (r == 0)
		pool->backend->ops->bound(pool->backend, pool->view->limits.recycling.max_memory);
	pool->reviving =
		true; /* until configure_backend() is done: no worker revives it beside that */
	if (r == 0)
		r = watch_backend(pool, err);
	if (r == 0)
		r = loop_start(pool->loop, err);
	if (r == 0)
		r = configure_backend(pool, err);
	if (r == 0)
		r = pool_recover(pool, err);
	if (r < 0)
		return r;
	pool_step(pool, &(struct machine_event){.type = MACHINE_RESUME});
	return 0;
}

/* Refuses everyone who waits for an agent with -ESHUTDOWN: the next daemon cannot answer them. */
static void answer_all_waits(struct ap_pool *pool)
{
	struct ap_err err;
	ap_err_set(&err, -ESHUTDOWN, "the pool is closed");
	atomic_store(&pool->sessions.closed, true);
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		pthread_mutex_lock(&pool->lock);
		struct ap_agent *agent = pool->agents[i];
		if (agent)
			agent_ref(agent);
		pthread_mutex_unlock(&pool->lock);
		if (agent)
			session_refuse_waits(agent->session, -ESHUTDOWN, &err);
		ap_agent_unref(agent);
	}
}

/* Tells all programs that have to end to do so at once: the machine's effects, which reach them one
 * after the other, then find them ended. The store knows by now which leases end: if this daemon
 * dies, the next one continues. */
static void tell_all_to_end(struct ap_pool *pool)
{
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		pthread_mutex_lock(&pool->lock);
		const struct machine_slot *slot = &pool->view->slots[i];
		struct ap_agent *agent = pool->agents[i];
		bool ends = slot->state == AP_AGENT_DRAINING ||
			    (slot->state == AP_AGENT_ACTIVE && slot->leaving);
		if (agent && ends && session_running(agent->session, false, NULL) == 0)
			agent_ref(agent);
		else
			agent = NULL;
		pthread_mutex_unlock(&pool->lock);
		if (agent)
			session_tell_to_end(agent->session);
		ap_agent_unref(agent);
	}
}

static void end_all(struct ap_pool *pool)
{
	templates_begin_end(pool->templates);
	pool_step(pool, &(struct machine_event){.type = MACHINE_SHUTDOWN});
	(void)store_commit(pool->store, store_txn_new(), true, NULL); /* waits for the records */
	tell_all_to_end(pool);
	crash_point("end-told");
	pthread_mutex_lock(&pool->lock);
	unsigned n = machine_total(pool->view);
	pthread_mutex_unlock(&pool->lock);
	worker_pool_grow(pool->workers, n < POOL_N_ENDERS ? n : POOL_N_ENDERS);
}

unsigned ap_pool_stop(struct ap_pool *pool, struct ap_err *err)
{
	atomic_store(&pool->sessions.unserved, true);
	state_dir_leave(pool);
	pthread_mutex_lock(&pool->lock); /* `load` puts other texts in the place of the options */
	pool->kept = ap_config_choice(&pool->config, AP_OPT_PERSIST) != 0;
	pthread_mutex_unlock(&pool->lock);
	if (pool->kept) {
		pool_step(pool, &(struct machine_event){.type = MACHINE_SUSPEND});
		pool_step(pool, &(struct machine_event){.type = MACHINE_CLOSE});
	} else {
		end_all(pool);
	}
	pthread_mutex_lock(&pool->lock);
	while (!pool_is_over_locked(pool)) /* every effect has a time limit of its own */
		pthread_cond_wait(&pool->emptied, &pool->lock);
	*err = pool->quarantine_error;
	unsigned n_quarantined = pool->n_quarantined;
	pthread_mutex_unlock(&pool->lock);
	if (pool->kept)
		answer_all_waits(pool);
	else
		(void)state_dir_save_next_agent(pool, NULL); /* on failure numbers are skipped */
	events_end(pool->events);
	return n_quarantined;
}

/* Drops the agents and leaves their worktrees to the next daemon; after a failed start, too. */
static void leave_agents(struct ap_pool *pool)
{
	for (unsigned i = 0; pool->view && i < pool->view->n_slots; i++) {
		struct ap_agent *agent = pool->agents[i];
		if (!agent)
			continue;
		pool->agents[i] = NULL;
		agent_close(agent);
		worktree_leave(&agent->worktree);
		ap_agent_unref(agent);
	}
}

void ap_pool_free(struct ap_pool *pool)
{
	if (!pool)
		return;
	atomic_store(&pool->sessions.closed, true);
	worker_pool_end(pool->workers); /* first: a running job may need `looking` and the loop */
	if (pool->events)
		events_end(pool->events); /* before `looking`: its on_news() submits there */
	worker_pool_end(pool->looking);
	loop_stop(pool->loop);
	worker_pool_free(pool->workers);
	worker_pool_free(pool->looking);
	leave_agents(pool);
	if (pool->templates && !pool->kept) /* before the backend: that ends meanwhile */
		templates_end(pool->templates);
	if (pool->backend)
		pool->backend->ops->free(pool->backend, pool->kept);
	loop_free(pool->loop);
	inside_leave(pool);
	state_dir_close(pool);
	events_close(pool->events);
	profile_free(pool->profile);
	machine_free(pool->machine);
	free(pool->effects.at);
	free(pool->effects.moves);
	free(pool->agents);
	free(pool->noted);
	repo_fini(&pool->repo);
	ap_config_fini(&pool->config);
	ap_config_fini(&pool->mounted);
	pthread_cond_destroy(&pool->emptied);
	pthread_cond_destroy(&pool->looked);
	pthread_mutex_destroy(&pool->lock);
	pthread_mutex_destroy(&pool->sessions.seeding);
	wall_end(pool);
	free(pool->worktrees);
	free(pool->mountpoint);
	free(pool->shim);
	free(pool);
}
