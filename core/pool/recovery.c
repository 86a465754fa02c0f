/* Recovery of what an earlier daemon left, by a crash or on purpose.
 *
 * The pool knows an agent by its record, and adopts it if its terminal has the shim that the record
 * names, by pid and time of start. A lease by write continues with its agent, whether the program
 * lives or not; a lease by a handle ends, as its handle did; a lease that was ending ends; a lease
 * that was not granted is undone. The machine adopts all of these first, so that they end as any
 * lease does. Recovery removes an agent or worktree that has no record, or does not fit its record,
 * and saves the work in it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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
#include "process_tree.h"
#include "remove.h"

/* How long the shim of an agent that is not adopted may take to end. */
#define ORPHAN_LIMIT (10 * AP_SECOND)

/* --- what is left --- */

struct left {
	struct store_agent agent;
	struct store_lease lease; /* token 0: none */
	struct ap_agent *adopted; /* with a reference; NULL: not adopted */
	bool quarantined;	  /* stays as it is, with its records */
};

struct recovery {
	struct ap_pool *pool;
	struct left *at; /* n of them, owned */
	unsigned n;
};

static struct left *left_find(const struct recovery *recovery, unsigned number)
{
	for (unsigned i = 0; i < recovery->n; i++) {
		if (recovery->at[i].agent.number == number)
			return &recovery->at[i];
	}
	return NULL;
}

static int take_agent(void *data, const struct store_agent *agent)
{
	struct recovery *recovery = data;
	struct left *grown = realloc(recovery->at, (recovery->n + 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	recovery->at = grown;
	recovery->at[recovery->n++] = (struct left){.agent = *agent};
	return 0;
}

static int take_lease(void *data, const struct store_lease *lease)
{
	struct left *left = left_find(data, lease->agent);
	if (left)
		left->lease = *lease;
	return 0;
}

static void for_each_left(struct recovery *recovery, const char *subdir,
			  void (*handle)(struct recovery *, const char *))
{
	AP_CLEANUP_FREE char *path = NULL;
	if (asprintf(&path, "%s/%s", recovery->pool->state_dir, subdir) < 0)
		return;
	DIR *dir = opendir(path);
	if (!dir)
		return;
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		if (agent_number(entry->d_name))
			handle(recovery, entry->d_name);
	}
	closedir(dir);
}

/* Raises the machine's numbers above a name that is on the disk and the token in its lease's
 * record, whatever the store says. */
static void spend_numbers(struct recovery *recovery, const char *name)
{
	struct ap_pool *pool = recovery->pool;
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	struct lease_record record = {.token = 0};
	if (agent_dir)
		(void)lease_record_read(agent_dir, &record);
	free(record.admin_dir);
	pool_restore(pool, &(struct machine_restored){.next_number = agent_number(name) + 1,
						      .next_token = record.token + 1});
}

static void tell_lost(struct ap_pool *pool, const char *label, const char *name, const char *reason)
{
	events_add(pool->events, "lease_lost",
		   EVENT_FIELDS({"lease", label, 0}, {"agent", name, 0}, {"reason", reason, 0}));
}

/* Sends SIGTERM to the shim that AGENT_DIR/alive names, which ends its process tree, whatever
 * became of its terminal. */
static void ask_shim(const char *agent_dir)
{
	char line[32] = "";
	(void)file_read_line(agent_dir, "alive", line, sizeof line);
	pid_t pid = (pid_t)atoi(line);
	AP_CLEANUP_CLOSE int fd = pid > 1 ? pidfd_open(pid, 0) : -1;
	if (fd < 0 || !process_has_word(pid, agent_dir))
		return;
	(void)pidfd_send_signal(fd, SIGTERM, NULL, 0); /* fails if the shim has just ended */
	(void)pidfd_send_signal(fd, SIGCONT, NULL, 0);
}

/* Ends what still runs of an agent and waits, ORPHAN_LIMIT at most, until its shim has ended.
 * -ETIMEDOUT. */
static int end_left(struct ap_pool *pool, const char *name, const char *agent_dir,
		    struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct backend_terminal terminal = {.shim = 0};
	snprintf(terminal.session, sizeof terminal.session, "%s", name);
	(void)pool->backend->ops->remove(pool->backend, &terminal, NULL); /* may not exist */
	ap_buf_printf(&path, "%s/alive", agent_dir);
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&path), O_RDWR | O_CLOEXEC);
	int64_t deadline = ap_clock_ns() + ORPHAN_LIMIT;
	for (bool asked = false; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; asked = true) {
		if (!asked)
			ask_shim(agent_dir);
		if (ap_clock_ns() > deadline)
			return ap_err_set(err, -ETIMEDOUT, "the processes of %s do not end", name);
		poll(NULL, 0, 20);
	}
	pool->backend->ops->sweep(pool->backend, name);
	return 0;
}

static void quarantine_left(struct ap_pool *pool, struct worktree *worktree,
			    const struct ap_err *err)
{
	pool_note_unsaved(pool, err, true);
	worktree_leave(worktree);
}

/* --- what is not adopted --- */

/* The lease of a worktree without any record: that of the branch at HEAD, if it is a lease's branch
 * and exists. */
static bool lease_by_head(const struct worktree *worktree, struct worktree_lease *ret)
{
	static const char prefix[] = "ref: refs/heads/" WORKTREE_BRANCH_PREFIX;
	char head[sizeof prefix + AP_LABEL_MAX + 1];
	if (!worktree->git_dir ||
	    file_read_line(worktree->git_dir, "HEAD", head, sizeof head) < 0 ||
	    strncmp(head, prefix, sizeof prefix - 1) != 0 ||
	    !ap_label_valid(head + sizeof prefix - 1))
		return false;
	strcpy(ret->label, head + sizeof prefix - 1); /* valid: it fits */
	return worktree_plan(worktree, "HEAD", ret, NULL) == 0 && !ret->created;
}

/* The lease whose work has to be saved: by the record in the agent's directory, else by that in the
 * store, else by the branch that the worktree is on. 1; 0: none; -EBADMSG: the record is damaged,
 * and the store has none. */
static int lease_of(const struct left *left, int found, const struct lease_record *record,
		    const struct worktree *worktree, struct worktree_lease *ret)
{
	if (found > 0) {
		*ret = record->lease;
		return 1;
	}
	if (left && left->lease.token) {
		memcpy(ret->label, left->lease.label, sizeof ret->label);
		memcpy(ret->base, left->lease.base, sizeof ret->base);
		ret->created = left->lease.created;
		return 1;
	}
	if (found < 0)
		return found;
	return !left && lease_by_head(worktree, ret);
}

/* Keeps the work in kept/, as keep_if_wanted() in jobs.c: fails only if some of the work has no
 * place in git and kept/ cannot hold it. */
static int keep_left(struct ap_pool *pool, struct worktree *worktree,
		     const struct worktree_lease *lease, uint64_t token,
		     const struct worktree_saved *saved, struct ap_err *err)
{
	struct kept_info info;
	bool needed = saved->only_kept.len > 0;
	if (saved->is_untouched || (!keeping_is_on(pool) && !needed))
		return 0;
	if (!keeping_is_on(pool))
		return ap_err_set(err, -EIO, "%s; kept/ could hold it, but keep_work is off",
				  ap_buf_text(&saved->only_kept));
	keeping_info(pool, worktree, lease, token, AP_REASON_FAILED, &info);
	snprintf(info.commit, sizeof info.commit, "%s", saved->commit);
	int r = keeping_keep(pool, worktree, &info, false, err);
	return needed ? r : 0;
}

static int save_left(struct ap_pool *pool, const char *name, const struct left *left, int found,
		     const struct lease_record *record, struct worktree *worktree,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf message = {0};
	struct worktree_saved saved;
	struct worktree_lease lease;
	int r = lease_of(left, found, record, worktree, &lease);
	if (r < 0)
		return ap_err_set(err, r, "the record of the lease of %s is damaged", name);
	if (r == 0)
		return 0;
	tell_lost(pool, lease.label, name,
		  left ? "its agent cannot be taken up: its work is on its branch"
		       : "the state store does not know it: its work is on its branch");
	lease_message(lease.label, name, record->generation, &message);
	(void)worktree_unmount(worktree, NULL, NULL, NULL); /* the save enters no mount */
	r = worktree_save(worktree, &lease, ap_buf_text(&message), NULL, NULL, &saved, err);
	if (r == 0)
		r = keep_left(pool, worktree, &lease,
			      found > 0 ? record->token
			      : left	? left->lease.token
					: 0,
			      &saved, err);
	if (r == 0)
		worktree_end(worktree);
	ap_buf_fini(&saved.only_kept);
	return r;
}

/* Saves the work of a worktree that was not adopted to its lease's branch, and removes it. */
static void remove_worktree(struct recovery *recovery, const char *name)
{
	struct ap_pool *pool = recovery->pool;
	struct left *left = left_find(recovery, agent_number(name));
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	struct worktree worktree = {0};
	struct lease_record record;
	struct ap_err err = {""};
	if (!agent_dir || (left && (left->adopted || left->quarantined)))
		return;
	int found = lease_record_read(agent_dir, &record);
	int r = end_left(pool, name, agent_dir, &err);
	/* a spawn, recycling or stop was under way: no lease has work in it */
	bool garbage = left && !left->lease.token && found == 0;
	if (r == 0 && garbage)
		r = worktree_left(&worktree, pool->templates, name, left->agent.admin_dir, &err);
	else if (r == 0)
		r = worktree_open(&worktree, pool->templates, name, record.admin_dir, &err);
	if (r < 0 && r != -ETIMEDOUT && !left && found == 0)
		r = worktree_open(&worktree, pool->templates, name, "", &err);
	if (r == 0 && !garbage)
		r = save_left(pool, name, left, found, &record, &worktree, &err);
	if (r == 0)
		r = worktree_remove(&worktree, &err);
	if (r == 0) {
		inside_hide(pool, name);
		remove_tree(agent_dir, NULL, NULL);
		worktree_fini(&worktree);
	} else { /* the record stays with the worktree: the next start tries again */
		quarantine_left(pool, &worktree, &err);
		if (left)
			left->quarantined = true;
	}
	free(record.admin_dir);
}

/* Removes the directory of an agent that has no worktree. */
static void remove_records(struct recovery *recovery, const char *name)
{
	struct ap_pool *pool = recovery->pool;
	const struct left *left = left_find(recovery, agent_number(name));
	AP_CLEANUP_FREE char *worktree = state_dir_path(pool, POOL_WORKTREES, name);
	AP_CLEANUP_FREE char *agent_dir = state_dir_path(pool, POOL_AGENTS, name);
	if (!worktree || !agent_dir || (left && (left->adopted || left->quarantined)) ||
	    access(worktree, F_OK) == 0)
		return;
	if (end_left(pool, name, agent_dir, NULL) == 0)
		remove_tree(agent_dir, NULL, NULL);
}

/* Discards the layers of an overlay whose mount point is removed. */
static void discard_layers(struct recovery *recovery, const char *name)
{
	struct ap_pool *pool = recovery->pool;
	AP_CLEANUP_FREE char *worktree = state_dir_path(pool, POOL_WORKTREES, name);
	AP_CLEANUP_FREE char *layers = state_dir_path(pool, POOL_LAYERS, name);
	const struct left *left = left_find(recovery, agent_number(name));
	if (left && left->adopted)
		return;
	if (worktree && layers && access(worktree, F_OK) < 0)
		(void)templates_discard(pool->templates, layers, NULL);
}

/* --- what is adopted --- */

/* Whether the record in the agent's directory names the lease that the store knows, or is absent. A
 * damaged record counts as proof if the store knows a lease. */
static bool is_proven(const struct left *left, const char *agent_dir)
{
	struct lease_record record;
	int found = lease_record_read(agent_dir, &record);
	free(record.admin_dir);
	if (found < 0) /* a power failure may damage the record */
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

/* Opens and watches the process that the lease ends with. False: it has ended. */
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
	(void)loop_watch_fd(pool->loop, &agent->holder_ends, fd); /* ENOMEM: only the ttl ends it */
	pthread_mutex_unlock(&pool->lock);
	return true;
}

/* Why an adopted lease has to end; NONE: it continues. */
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

/* Queues a prompt of an earlier daemon again; not one that was being given when that daemon died:
 * it may have reached the program or not, and is logged with the outcome "unknown". */
static int take_prompt(void *data, const struct store_prompt *prompt)
{
	struct ap_agent *agent = data;
	agent->prompt_seq = prompt->seq;
	if (!prompt->taken) {
		struct prompt *again =
			session_prompt_new(prompt->text, prompt->len, prompt->is_command);
		if (!again)
			return -ENOMEM;
		session_prompt(agent->session, prompt->seq, again);
		return 0;
	}
	session_input_was_cut(agent->session);
	events_add(agent->pool->events, "prompt",
		   EVENT_FIELDS({"agent", agent->name, 0}, {"lease", agent->lease.label, 0},
				{"outcome", "unknown", 0}, {"bytes", NULL, (int64_t)prompt->len}));
	return 0;
}

/* Queues the prompts that waited, if `wanted`; else drops them. */
static void go_on_with_prompts(struct ap_agent *agent, bool wanted)
{
	struct ap_pool *pool = agent->pool;
	struct store_txn *txn = store_txn_new();
	if (wanted)
		(void)store_prompts_read(pool->store, agent->number, take_prompt, agent, NULL);
	if (!wanted)
		txn_prompts_gone(txn, agent->number, STORE_ALL_PROMPTS);
	else
		txn_prompts_taken_gone(txn, agent->number);
	store_submit(pool->store, txn, false, NULL, NULL);
}

/* Makes an agent in a free slot. NULL: no slot is free, or ENOMEM. */
static struct ap_agent *enter_left(struct ap_pool *pool, const struct left *left)
{
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = machine_free_slot(pool->view);
	struct ap_agent *agent = slot ? agent_new_locked(pool, machine_slot_index(pool->view, slot),
							 left->agent.number)
				      : NULL;
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

/* Adopts an agent and its lease, and takes over the worktree. set_going() starts it later. */
static int adopt(struct ap_pool *pool, struct left *left, struct worktree *worktree,
		 const struct backend_terminal *terminal, struct ap_err *err)
{
	const struct store_lease *lease = &left->lease;
	struct ap_agent *agent = enter_left(pool, left);
	if (!agent)
		return ap_err_set(err, -EAGAIN, "there is no room for one more agent");
	agent->worktree = *worktree;
	*worktree = (struct worktree){0};
	agent->port = left->agent.port;
	agent->n_ports = left->agent.n_ports;
	session_set_ports(agent->session, agent->port, agent->n_ports);
	agent->token = lease->token;
	agent->lease_open = lease->token != 0;
	agent->lease_held = lease->granted != 0;
	agent->has_served = agent->lease_held || left->agent.n_served > 0;
	agent->dir_made = true;
	agent->n_prompts = agent->n_prompts_shown = lease->n_prompts;
	uint32_t permission;
	if (*lease->permission && ap_permission_parse(lease->permission, &permission, NULL) == 0)
		agent->permission = (int)permission;
	spending_adopt(agent, lease);
	memcpy(agent->lease.label, lease->label, sizeof agent->lease.label);
	memcpy(agent->lease.base, lease->base, sizeof agent->lease.base);
	memcpy(agent->base, lease->base, sizeof agent->base);
	agent->lease.created = lease->created;
	session_adopt(agent->session, &(struct session_record){.terminal = *terminal,
							       .n_starts = left->agent.n_starts,
							       .prompted = lease->n_prompts > 0});
	struct machine_adoption adoption = adoption_of(left);
	int r = pool_step(pool, &(struct machine_event){.type = MACHINE_ADOPT,
							.slot = agent->slot,
							.adoption = &adoption});
	if (r < 0) {
		worktree_leave(&agent->worktree);
		agent_leave(agent);
		return ap_err_set(err, r, "%s cannot be taken up: %s", agent->name, strerror(-r));
	}
	agent_adopt_limit(agent);
	agent_ref(agent);
	left->adopted = agent;
	return 0;
}

/* Makes the session take up the agent's program, or its end; then queues the prompts that waited,
 * or ends the lease. From now on workers carry out the machine's effects on the agent. */
static void set_going(struct ap_agent *agent, const struct store_lease *lease)
{
	struct session_record record;
	session_record(agent->session, &record);
	bool alive = record.terminal.shim != 0;
	if (session_take_up(agent->session, alive, NULL) < 0)
		(void)session_take_up(agent->session, false, NULL); /* the program has just ended */
	else if (alive)
		session_renew_wall(agent->session);
	enum ap_reason reason = lease->token ? why_over(agent, lease) : AP_REASON_NONE;
	go_on_with_prompts(agent, reason == AP_REASON_NONE && alive);
	if (reason)
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = lease->token,
							      .reason = reason});
}

/* Starts all adopted agents. The caller has removed everything that was not adopted before: an
 * agent that is being recycled has no worktree for a moment, and would look removable. */
static void set_all_going(const struct recovery *recovery)
{
	for (int leased = 1; leased >= 0; leased--) { /* holders first */
		for (unsigned i = 0; i < recovery->n; i++) {
			const struct left *left = &recovery->at[i];
			if (left->adopted && (left->lease.token != 0) == leased)
				set_going(left->adopted, &left->lease);
		}
	}
}

/* A hash of the program's command line. */
static int64_t program_mark(const struct ap_pool *pool)
{
	uint64_t mark = 0;
	for (const char *const *word = pool->argv; *word; word++)
		mark = mark * 31 + ap_hash(*word);
	return (int64_t)mark;
}

/* A hash of the id of this boot; 0: unknown. */
static int64_t boot_mark(void)
{
	char id[64];
	return file_read_line("/proc/sys/kernel/random", "boot_id", id, sizeof id) == 0
		       ? (int64_t)ap_hash(id)
		       : 0;
}

/* Whether to adopt an agent without a lease: there is room, and it has the pool's program, alive,
 * in a clean worktree. */
static bool is_of_use(struct ap_pool *pool, const struct left *left,
		      const struct worktree *worktree, bool alive)
{
	pthread_mutex_lock(&pool->lock);
	bool room = machine_total(pool->view) < pool->view->limits.max_size;
	pthread_mutex_unlock(&pool->lock);
	bool same_program = store_counter(pool->store, "program", 0) == program_mark(pool);
	return room && same_program && alive && left->agent.clean && worktree_present(worktree);
}

/* Removes index.lock, which a git that was killed leaves behind. The caller knows that no process
 * of the agent runs. */
static void remove_stale_lock(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/index.lock", worktree->git_dir);
	(void)unlink(ap_buf_text(&path));
}

/* Opens the worktree of an agent, and finds its terminal; terminal->shim is 0 unless the program
 * lives. */
static int open_left(struct recovery *recovery, const struct left *left, const char *name,
		     const char *dir, struct worktree *worktree, struct backend_terminal *terminal,
		     struct ap_err *err)
{
	struct ap_pool *pool = recovery->pool;
	int r = worktree_open(worktree, pool->templates, name, left->agent.admin_dir, err);
	if (r < 0)
		return r;
	r = pool->backend->ops->adopt(pool->backend, name, terminal, err);
	if (r == 0 && wall_lacks(pool, dir)) { /* its lease goes on, without a program */
		terminal->shim = 0;
		r = -ESRCH;
	}
	if (r != -ESRCH)
		return r;
	r = end_left(pool, name, dir, err); /* processes that outlived the terminal */
	if (r == 0 && pool->helpers_gone)
		remove_stale_lock(worktree);
	return r;
}

/* Adopts an agent, or quarantines it if it has a lease and cannot be adopted; leaves all others to
 * remove_worktree(). -EIO: the backend cannot tell what became of the terminal. */
static int go_on_with(struct recovery *recovery, struct left *left, struct ap_err *err)
{
	struct ap_pool *pool = recovery->pool;
	char name[32];
	struct worktree worktree = {0};
	struct backend_terminal terminal = {.shim = left->agent.shim,
					    .shim_start = left->agent.shim_start};
	snprintf(name, sizeof name, "agent-%u", left->agent.number);
	AP_CLEANUP_FREE char *dir = state_dir_path(pool, POOL_AGENTS, name);
	AP_CLEANUP_FREE char *path = state_dir_path(pool, POOL_WORKTREES, name);
	bool leased = left->lease.token != 0;
	struct stat st;
	if (!dir || !path || !is_proven(left, dir))
		return 0;
	if (lstat(path, &st) < 0) {
		if (leased)
			tell_lost(pool, left->lease.label, name, "its worktree has gone");
		return 0;
	}
	int r = open_left(recovery, left, name, dir, &worktree, &terminal, err);
	if (r == -EIO && worktree.path) {
		worktree_fini(&worktree);
		return r;
	}
	if (r == 0 && (leased || is_of_use(pool, left, &worktree, terminal.shim)))
		r = adopt(pool, left, &worktree, &terminal, err);
	else if (r == 0)
		r = -EAGAIN;
	left->quarantined = r < 0 && r != -EAGAIN && leased;
	if (left->quarantined) { /* stays with its records: the next start tries again */
		tell_lost(pool, left->lease.label, name, err->text);
		quarantine_left(pool, &worktree, err);
	}
	worktree_fini(&worktree);
	return 0;
}

/* Removes the records of agents that were neither adopted nor quarantined, and records this
 * program and boot. */
static int forget(const struct recovery *recovery, struct ap_err *err)
{
	struct ap_pool *pool = recovery->pool;
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "program", program_mark(pool));
	txn_set(txn, "boot", boot_mark());
	for (unsigned i = 0; i < recovery->n; i++) {
		const struct left *left = &recovery->at[i];
		if (left->adopted || left->quarantined)
			continue;
		txn_agent_gone(txn, left->agent.number);
		if (left->lease.token)
			txn_lease_over(txn, left->lease.token, ap_clock_to_wall(ap_clock_ns()),
				       ap_reason_name(AP_REASON_FAILED));
	}
	return store_commit(pool->store, txn, false, err);
}

/* Forgets the shims and holders in the records of another boot: pid and time of start identify a
 * process within one boot only. */
static void forget_processes_of_another_boot(struct recovery *recovery)
{
	if (store_counter(recovery->pool->store, "boot", 0) == boot_mark())
		return;
	for (unsigned i = 0; i < recovery->n; i++) {
		recovery->at[i].agent.shim = 0;
		if (recovery->at[i].lease.holder_start)
			recovery->at[i].lease.holder_start = STORE_ALL_PROMPTS; /* no process's */
	}
}

static int take_up_left(struct recovery *recovery, struct ap_err *err)
{
	int r = 0;
	for (int leased = 1; leased >= 0; leased--) { /* holders first */
		for (unsigned i = 0; r == 0 && i < recovery->n; i++) {
			if ((recovery->at[i].lease.token != 0) == leased)
				r = go_on_with(recovery, &recovery->at[i], err);
		}
	}
	return r;
}

int pool_recover(struct ap_pool *pool, struct ap_err *err)
{
	struct recovery recovery = {.pool = pool};
	int r = store_agents_read(pool->store, take_agent, &recovery, err);
	if (r == 0)
		r = store_leases_read(pool->store, take_lease, &recovery, err);
	if (pool->store_lost)
		events_add(pool->events, "store_lost",
			   EVENT_FIELDS({"reason", "it was damaged and is set aside", 0}));
	for_each_left(&recovery, POOL_WORKTREES, spend_numbers);
	for_each_left(&recovery, POOL_AGENTS, spend_numbers);
	for_each_left(&recovery, POOL_LAYERS, spend_numbers);
	if (r == 0) {
		forget_processes_of_another_boot(&recovery);
		r = take_up_left(&recovery, err);
	}
	crash_point("recover-adopted");
	if (r == 0) {
		for_each_left(&recovery, POOL_WORKTREES, remove_worktree);
		for_each_left(&recovery, POOL_AGENTS, remove_records);
		for_each_left(&recovery, POOL_LAYERS, discard_layers);
		crash_point("recover-removed");
		r = forget(&recovery, err);
		repo_forget_worktrees(&pool->repo, pool->state_dir);
		templates_forget_staged(pool->templates);
	}
	if (r == 0)
		set_all_going(&recovery);
	for (unsigned i = 0; i < recovery.n; i++)
		ap_agent_unref(recovery.at[i].adopted);
	free(recovery.at);
	return r;
}
