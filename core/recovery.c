/* Going on with what a daemon before this one has left: by a crash, or on purpose.
 *
 * An agent is known by its record: it is adopted if its terminal has the keeper that the record
 * names, by pid and time of start. A lease by write goes on, with its agent, whether the program
 * lives or not; one by a handle ends, as its handle did; one that was ending ends; one that was not
 * granted is undone. All of these are leases to the machine first, so that they end as any lease
 * ends. What has no record, or does not fit the one that it has, is removed, and the work in it
 * saved. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "crash_point.h"
#include "file.h"
#include "pool_internal.h"
#include "process.h"

/* What keepers of agents that are not adopted are given to end. */
#define ORPHAN_LIMIT (10 * AP_SECOND)

/* --- the record beside a worktree: "LABEL BASE CREATED GENERATION TOKEN\nADMIN_DIR\n" --- */

struct lease_record {
	struct worktree_lease lease;
	unsigned generation;
	uint64_t token;
	char *admin_dir; /* owned */
};

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
	FILE *file = file_create(temporary);
	if (!file)
		return ap_err_errno(err, -errno, "%s", temporary);
	fprintf(file, "%s %s %d %u %" PRIu64 "\n%s\n", agent->lease.label, agent->lease.base,
		agent->lease.created, agent_generation(agent), agent->token,
		agent->worktree.admin_dir);
	bool failed = ferror(file);
	if (fclose(file) != 0 || failed || rename(temporary, path) < 0)
		return ap_err_errno(err, errno ? -errno : -EIO, "%s", path);
	return 0;
}

/* 1, or 0: there is none, the agent was not leased. -EBADMSG: one that was not written whole. */
static int lease_record_read(const char *agent_dir, struct lease_record *ret)
{
	AP_CLEANUP_FREE char *path = record_path(agent_dir);
	FILE *file = path ? fopen(path, "re") : NULL;
	int created;
	size_t size = 0;
	*ret = (struct lease_record){.admin_dir = NULL};
	if (!file)
		return 0;
	bool whole = fscanf(file, "%64s %64s %d %u %" SCNu64 "\n", ret->lease.label,
			    ret->lease.base, &created, &ret->generation, &ret->token) == 5 &&
		     getline(&ret->admin_dir, &size, file) > 1;
	fclose(file);
	if (!whole || !ap_label_valid(ret->lease.label) || ret->admin_dir[0] != '/') {
		free(ap_steal(ret->admin_dir));
		return -EBADMSG;
	}
	ret->admin_dir[strcspn(ret->admin_dir, "\n")] = '\0';
	ret->lease.created = created;
	return 1;
}

/* --- what has no record --- */

static void tell_lost(struct ap_pool *pool, const char *label, const char *name, const char *reason)
{
	events_add(pool->events, "lease_lost",
		   EVENT_FIELDS({"lease", label, 0}, {"agent", name, 0}, {"reason", reason, 0}));
}

/* Ends what still runs of an agent and waits until it has. */
static void end_left(struct ap_pool *pool, const char *name, const char *agent_dir)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct backend_terminal terminal = {.keeper = 0};
	snprintf(terminal.session, sizeof terminal.session, "%s", name);
	(void)pool->backend->ops->remove(pool->backend, &terminal, NULL); /* it may have gone */
	ap_buf_printf(&path, "%s/alive", agent_dir);
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&path), O_RDWR | O_CLOEXEC);
	int64_t deadline = ap_clock_ns() + ORPHAN_LIMIT;
	while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && ap_clock_ns() < deadline)
		poll(NULL, 0, 20);
}

static bool is_adopted(struct ap_pool *pool, const char *name)
{
	struct ap_agent *agent = ap_agent_find(pool, name);
	ap_agent_unref(agent);
	return agent != NULL;
}

static void set_aside(struct ap_pool *pool, struct worktree *worktree, const struct ap_err *err)
{
	pool->n_aside++;
	pool->aside_error = *err;
	worktree_leave(worktree);
}

/* Saves the work of one left worktree to its lease's branch and removes it. */
static void remove_worktree(struct ap_pool *pool, const char *name)
{
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	AP_CLEANUP_BUF struct ap_buf message = {0};
	struct worktree worktree = {0};
	struct lease_record record;
	struct ap_err err = {""};
	if (!agent_dir || is_adopted(pool, name))
		return;
	end_left(pool, name, agent_dir);
	int found = lease_record_read(agent_dir, &record);
	bool leased = found != 0; /* as far as is known */
	int r = worktree_open(&worktree, pool->templates, name, record.admin_dir, &err);
	if (r < 0 && !leased) /* half made, or half removed: nobody has worked in it */
		r = worktree_open(&worktree, pool->templates, name, "", &err);
	if (r == 0 && found < 0)
		r = ap_err_set(&err, found, "the record of the lease in %s is damaged", agent_dir);
	if (r == 0 && leased) {
		tell_lost(pool, record.lease.label, name,
			  "the state store does not know it: its work is on its branch");
		lease_message(record.lease.label, name, record.generation, &message);
		r = worktree_save(&worktree, &record.lease, ap_buf_text(&message), &err);
	}
	if (r == 0)
		r = worktree_remove(&worktree, &err);
	if (r == 0) {
		process_remove_tree(agent_dir, NULL);
		worktree_fini(&worktree);
	} else { /* the record stays with the worktree: the next start tries again */
		set_aside(pool, &worktree, &err);
	}
	free(record.admin_dir);
}

/* What is left of an agent without a worktree. */
static void remove_records(struct ap_pool *pool, const char *name)
{
	AP_CLEANUP_FREE char *worktree = state_dir_path(pool, POOL_WORKTREES, name);
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	if (!worktree || !agent_dir || is_adopted(pool, name) || access(worktree, F_OK) == 0)
		return;
	end_left(pool, name, agent_dir);
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

/* --- what has one --- */

struct left {
	struct store_agent agent;
	struct store_lease lease; /* token 0: none */
	bool over;		  /* it has been dealt with */
};

struct lefts {
	struct left *at;
	unsigned n;
};

static int take_agent(void *data, const struct store_agent *agent)
{
	struct lefts *lefts = data;
	struct left *grown = realloc(lefts->at, (lefts->n + 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	lefts->at = grown;
	lefts->at[lefts->n++] = (struct left){.agent = *agent};
	return 0;
}

static int take_lease(void *data, const struct store_lease *lease)
{
	struct lefts *lefts = data;
	for (unsigned i = 0; i < lefts->n; i++) {
		if (lefts->at[i].agent.number == lease->agent)
			lefts->at[i].lease = *lease;
	}
	return 0;
}

/* Whether the worktree was made ready for no other lease than the one that the store knows. */
static bool is_proven(const struct left *left, const char *agent_dir)
{
	struct lease_record record;
	int found = lease_record_read(agent_dir, &record);
	free(record.admin_dir);
	if (found < 0) /* a machine that lost its power may leave one so */
		return left->lease.token != 0;
	return found == 0 || record.token == left->lease.token;
}

static struct machine_adoption adoption_of(const struct left *left)
{
	const struct store_agent *agent = &left->agent;
	const struct store_lease *lease = &left->lease;
	return (struct machine_adoption){
		.number = agent->number,
		.generation = agent->generation,
		.n_recycles = agent->n_recycles,
		.n_requests = agent->n_requests,
		.n_served = agent->n_served,
		.created_ns = ap_clock_from_wall(agent->created),
		.started_ns = ap_clock_from_wall(agent->started),
		.label = lease->label,
		.token = lease->token,
		.affinity = lease->affinity,
		.uid = lease->uid,
		.pid = lease->pid,
		.by_handle = lease->by_handle,
		.granted_ns = ap_clock_from_wall(lease->granted),
		.ttl_ns = lease->ttl_ns,
	};
}

/* The process that the lease ends with. False: it has ended. */
static bool find_holder(struct ap_agent *agent, const struct store_lease *lease)
{
	struct ap_pool *pool = agent->pool;
	int fd = pidfd_open(lease->pid, 0);
	if (fd < 0)
		return false;
	if (process_start_time(lease->pid) != lease->holder_start) {
		close(fd);
		return false;
	}
	pthread_mutex_lock(&pool->lock);
	agent->holder_fd = fd;
	(void)maintenance_watch_holder(pool, agent, fd); /* ENOMEM: ttl is left */
	pthread_mutex_unlock(&pool->lock);
	return true;
}

/* Why a lease that was taken up does not go on; NONE: it does. */
static enum ap_reason why_over(struct ap_agent *agent, const struct store_lease *lease)
{
	if (*lease->ending)
		return ap_reason_find(lease->ending);
	if (lease->granted == 0)
		return AP_REASON_CANCELLED;
	if (lease->by_handle)
		return AP_REASON_HANDLE;
	if (lease->holder_start && !find_holder(agent, lease))
		return AP_REASON_HOLDER;
	return AP_REASON_NONE;
}

/* One that was being given when the daemon died may have reached the program, or not. */
static int take_prompt(void *data, const struct store_prompt *prompt)
{
	struct ap_agent *agent = data;
	if (!prompt->taken)
		return agent_prompt_again(agent, prompt);
	events_add(agent->pool->events, "prompt",
		   EVENT_FIELDS({"agent", agent->name, 0}, {"lease", agent->lease.label, 0},
				{"outcome", "unknown", 0}, {"bytes", NULL, (int64_t)prompt->len}));
	return 0;
}

/* A free slot becomes the agent's. NULL: there is none. */
static struct ap_agent *enter(struct ap_pool *pool, const struct left *left)
{
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = machine_free_slot(&pool->machine);
	struct ap_agent *agent =
		slot ? agent_new_locked(pool, machine_slot_index(&pool->machine, slot),
					left->agent.number)
		     : NULL;
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

/* Takes the worktree over. */
static int adopt(struct ap_pool *pool, const struct left *left, struct worktree *worktree,
		 const struct backend_terminal *terminal, struct ap_err *err)
{
	const struct store_lease *lease = &left->lease;
	struct ap_agent *agent = enter(pool, left);
	if (!agent)
		return ap_err_set(err, -EAGAIN, "there is no room for one more agent");
	agent->worktree = *worktree;
	*worktree = (struct worktree){0};
	agent->terminal = *terminal;
	agent->n_starts = left->agent.n_starts;
	agent->port = left->agent.port;
	agent->token = lease->token;
	agent->lease_open = lease->token != 0;
	agent->lease_held = lease->granted != 0;
	agent->n_prompts = lease->n_prompts;
	memcpy(agent->lease.label, lease->label, sizeof agent->lease.label);
	memcpy(agent->lease.base, lease->base, sizeof agent->lease.base);
	memcpy(agent->base, lease->base, sizeof agent->base);
	agent->lease.created = lease->created;
	(void)output_adopt(agent, NULL); /* what it printed is lost then, not what it does */
	struct machine_adoption adoption = adoption_of(left);
	int r = pool_step(pool, &(struct machine_event){.type = MACHINE_ADOPT,
							.slot = agent->slot,
							.adoption = &adoption});
	if (r < 0) {
		worktree_leave(&agent->worktree);
		agent_leave(agent);
		return ap_err_set(err, r, "%s cannot be taken up: %s", agent->name, strerror(-r));
	}
	if (agent_adopted(agent, terminal->keeper != 0, err) < 0)
		(void)agent_adopted(agent, false, err); /* it has ended just now */
	enum ap_reason reason = lease->token ? why_over(agent, lease) : AP_REASON_NONE;
	if (reason)
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = lease->token,
							      .reason = reason});
	else if (terminal->keeper)
		(void)store_prompts_read(pool->store, agent->number, take_prompt, agent, NULL);
	maintenance_poke(pool);
	return 0;
}

/* Tells one command line from another. */
static int64_t program_mark(const struct ap_pool *pool)
{
	uint64_t mark = 0;
	for (const char *const *word = pool->argv; *word; word++)
		mark = mark * 31 + ap_hash(*word);
	return (int64_t)mark;
}

/* Whether an agent that serves nobody may serve. */
static bool is_of_use(struct ap_pool *pool, const struct left *left,
		      const struct worktree *worktree, bool alive)
{
	pthread_mutex_lock(&pool->lock);
	bool room = machine_total(&pool->machine) < pool->machine.limits.max_size;
	pthread_mutex_unlock(&pool->lock);
	bool same_program = store_counter(pool->store, "program", 0) == program_mark(pool);
	return room && same_program && alive && left->agent.clean && worktree_present(worktree);
}

/* Whether it was taken up, or its work is kept where it lies. */
static void go_on_with(struct ap_pool *pool, struct left *left)
{
	char name[32];
	struct worktree worktree = {0};
	struct ap_err err = {""};
	struct backend_terminal terminal = {.keeper = left->agent.keeper,
					    .keeper_start = left->agent.keeper_start};
	snprintf(name, sizeof name, "agent-%u", left->agent.number);
	AP_CLEANUP_FREE char *dir = state_dir_path(pool, POOL_AGENTS, name);
	if (!dir || !is_proven(left, dir)) {
		left->over = false; /* by what lies there, if anything does */
		return;
	}
	bool leased = left->lease.token != 0;
	int r = worktree_open(&worktree, pool->templates, name, left->agent.admin_dir, &err);
	bool alive = r == 0 && pool->backend->ops->adopt(pool->backend, name, &terminal, NULL) == 0;
	if (r == 0 && !alive)
		end_left(pool, name, dir); /* what its terminal has left behind */
	if (r == 0 && (leased || is_of_use(pool, left, &worktree, alive)))
		r = adopt(pool, left, &worktree, &terminal, &err);
	else if (r == 0)
		r = -EAGAIN;
	left->over = r == 0;
	if (r < 0 && leased) { /* kept with its record: the next start tries again */
		set_aside(pool, &worktree, &err);
		tell_lost(pool, left->lease.label, name, err.text);
		left->over = true;
	}
	worktree_fini(&worktree);
}

/* The records of what was not taken up go, with what they are about. */
static int forget(struct ap_pool *pool, const struct lefts *lefts, struct ap_err *err)
{
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "program", program_mark(pool));
	for (unsigned i = 0; i < lefts->n; i++) {
		const struct left *left = &lefts->at[i];
		if (left->over)
			continue;
		txn_agent_gone(txn, left->agent.number);
		if (left->lease.token)
			txn_lease_over(txn, left->lease.token, ap_clock_to_wall(ap_clock_ns()),
				       ap_reason_name(AP_REASON_FAILED));
	}
	return store_commit(pool->store, txn, false, err);
}

int pool_recover(struct ap_pool *pool, struct ap_err *err)
{
	struct lefts lefts = {.n = 0};
	int r = store_agents_read(pool->store, take_agent, &lefts, err);
	if (r == 0)
		r = store_leases_read(pool->store, take_lease, &lefts, err);
	if (r < 0) {
		free(lefts.at);
		return r;
	}
	if (pool->store_lost)
		events_add(pool->events, "store_lost",
			   EVENT_FIELDS({"reason", "it was damaged and is set aside", 0}));
	for (int leased = 1; leased >= 0; leased--) { /* holders first */
		for (unsigned i = 0; i < lefts.n; i++) {
			if ((lefts.at[i].lease.token != 0) == leased)
				go_on_with(pool, &lefts.at[i]);
		}
	}
	crash_point("recover-adopted");
	for_each_left(pool, POOL_WORKTREES, remove_worktree);
	for_each_left(pool, POOL_AGENTS, remove_records);
	for_each_left(pool, POOL_LAYERS, discard_layers);
	crash_point("recover-removed");
	r = forget(pool, &lefts, err);
	repo_forget_worktrees(&pool->repo, pool->state_dir);
	templates_forget_staged(pool->templates);
	free(lefts.at);
	return r;
}
