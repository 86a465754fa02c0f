/* What workers do for the pool: carry out the machine's effects, probe agents. A job ends by
 * reporting its outcome; it decides nothing. A failed job leaves its debris to the effect that the
 * machine begins next. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "crash_point.h"
#include "jobs_internal.h"
#include "remove.h"

/* Agent numbers that the store reserves at once, so that few spawns wait for the disk. */
#define NAME_BLOCK 32

/* How long a program may take to be ready again after its clear command. */
#define CLEAR_LIMIT (3 * AP_SECOND)

/* Reports the outcome of the agent's effect. -ESTALE: the machine does not await it any more. */
static int outcome(struct ap_agent *agent, int result)
{
	return pool_step(agent->pool, &(struct machine_event){
					      .type = machine_outcome(agent->effect.type),
					      .slot = agent->effect.slot,
					      .effect = agent->effect.id,
					      .result = result,
					      .granted_ns = agent->granted_ns,
				      });
}

/* Attaches the sentence to the request of the agent's acquirer or releaser. */
static void tell_request(struct ap_agent *agent, const struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	struct machine_request *request = agent->pool->view->slots[agent->slot].request;
	if (request)
		request_explain_locked(ap_container_of(request, struct ap_request, machine), err);
	pthread_mutex_unlock(&agent->pool->lock);
}

static int resolve_base(struct ap_pool *pool, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_FREE char *base = config_text(pool, AP_OPT_BASE);
	if (!base)
		return ap_err_errno(err, -ENOMEM, "base");
	return repo_resolve(&pool->repo, base, ret, err);
}

/* --- in the background --- */

static void note_stuck(void *data, const struct ap_err *why)
{
	struct ap_pool *pool = data;
	events_note(pool->events, "trash_stuck", EVENT_FIELDS({"reason", why->text, 0}));
}

/* Logs a failure of the user's checkout hook; the checkout itself succeeded. */
static void note_hook(struct ap_pool *pool)
{
	struct ap_err why;
	if (templates_take_warning(pool->templates, &why))
		events_note(pool->events, "hook_failed", EVENT_FIELDS({"reason", why.text, 0}));
}

/* Removes what templates_discard() moved away, and prepares the next worktree. */
static void tidy(struct worker_once *once)
{
	struct ap_pool *pool = ap_container_of(once, struct ap_pool, tidy);
	note_hook(pool);
	if (templates_are_ending(pool->templates)) /* templates_end() removes everything at once */
		return;
	templates_prepare(pool->templates);
	keeping_tidy(pool);
	templates_empty_trash(pool->templates, note_stuck, pool);
	pool_changed(pool); /* stats/templates */
}

static void bound(struct worker_once *once)
{
	struct ap_pool *pool = ap_container_of(once, struct ap_pool, bound);
	pthread_mutex_lock(&pool->lock);
	uint64_t max_memory = pool->view->limits.recycling.max_memory;
	pthread_mutex_unlock(&pool->lock);
	pool->backend->ops->bound(pool->backend, max_memory);
}

void jobs_init(struct ap_pool *pool)
{
	worker_once_init(&pool->tidy, pool->workers, tidy, NULL);
	worker_once_init(&pool->bound, pool->workers, bound, NULL);
}

/* Copies the worktree's commit to where follow_base() reads it under the lock. */
static void note_commit(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	memcpy(agent->commit, agent->worktree.commit, sizeof agent->commit);
	pthread_mutex_unlock(&agent->pool->lock);
}

/* Records in the store that the agent's number is spent, before anything has its name; a block of
 * numbers at a time, so that few spawns wait for the disk. */
static int keep_name(const struct ap_agent *agent, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	if (agent->number < atomic_load(&pool->names_kept))
		return 0;
	struct store_txn *txn = store_txn_new();
	txn_raise(txn, "next_agent", (int64_t)agent->number + NAME_BLOCK);
	int r = store_commit(pool->store, txn, true, err);
	if (r == 0) /* may undo the progress of another worker: at worst a spawn commits again */
		atomic_store(&pool->names_kept, agent->number + NAME_BLOCK);
	return r;
}

/* Logs a failed write to the store. Returns the error for the acquirer or releaser. */
static int store_failed(struct ap_pool *pool, int error, const struct ap_err *err)
{
	events_add(pool->events, "store_failed", EVENT_FIELDS({"reason", err->text, 0}));
	return error == -ENOSPC || error == -EBUSY ? error : -EROFS;
}

/* --- records: what the next daemon needs to adopt an agent --- */

/* The agent's record. `recycled`: a recycling is done that the machine does not know of yet. */
static void agent_record(struct ap_agent *agent, bool clean, bool recycled, struct store_agent *ret)
{
	struct ap_pool *pool = agent->pool;
	struct session_record record;
	session_record(agent->session, &record);
	*ret = (struct store_agent){
		.number = agent->number,
		.n_starts = record.n_starts,
		.port = agent->port,
		.n_ports = agent->n_ports,
		.clean = clean,
		.shim = record.terminal.shim,
		.shim_start = record.terminal.shim_start,
	};
	snprintf(ret->admin_dir, sizeof ret->admin_dir, "%s", agent->worktree.git_dir);
	int64_t now = ap_clock_ns();
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	ret->generation = slot->generation + recycled;
	ret->n_recycles = slot->n_recycles + recycled;
	ret->n_requests = slot->n_requests;
	ret->n_served = recycled ? 0 : slot->n_served;
	ret->created = ap_clock_to_wall(slot->created_ns);
	ret->started = ap_clock_to_wall(recycled ? now : slot->started_ns);
	pthread_mutex_unlock(&pool->lock);
}

/* Records the agent with its present program. `clean`: no lease has used the worktree since it was
 * made ready. Raises `counter` by one; NULL: none. */
static int record_program(struct ap_agent *agent, bool clean, bool recycled, const char *counter,
			  struct ap_err *err)
{
	struct store_agent record;
	struct store_txn *txn = store_txn_new();
	agent_record(agent, clean, recycled, &record);
	txn_agent(txn, &record);
	if (counter)
		txn_count(txn, counter, 1);
	return store_commit(agent->pool->store, txn, false, err);
}

int agent_record_program(struct ap_agent *agent, struct ap_err *err)
{
	return record_program(agent, !agent->lease_open, false, NULL, err);
}

/* Records a lease that is about to be granted, before its branch exists: its base, and that its
 * token and label number are spent. */
static int record_wanted(struct ap_agent *agent, struct store_lease *record, struct ap_err *err)
{
	uint64_t number;
	struct store_txn *txn = store_txn_new();
	memcpy(record->label, agent->lease.label, sizeof record->label);
	memcpy(record->base, agent->lease.base, sizeof record->base);
	record->created = agent->lease.created;
	record->agent = agent->number;
	txn_raise(txn, "next_token", (int64_t)record->token + 1);
	if (sscanf(record->label, "lease-%" SCNu64, &number) == 1)
		txn_raise(txn, "next_lease", (int64_t)number + 1);
	txn_lease(txn, record);
	txn_prompts_gone(txn, agent->number, STORE_ALL_PROMPTS);
	int r = store_commit(agent->pool->store, txn, false, err);
	return r < 0 ? r : lease_record_write(agent, err);
}

static int record_granted(struct ap_agent *agent, uint64_t token, struct ap_err *err)
{
	struct store_txn *txn = store_txn_new();
	agent->granted_ns = ap_clock_ns();
	txn_lease_granted(txn, token, ap_clock_to_wall(agent->granted_ns));
	txn_agent_used(txn, agent->number);
	txn_count(txn, "total_requests", 1);
	return store_commit(agent->pool->store, txn, true, err);
}

/* Takes record_granted() back: the lease was not granted after all. */
static void record_not_granted(struct ap_agent *agent, const struct store_lease *wanted)
{
	struct store_txn *txn = store_txn_new();
	txn_lease(txn, wanted);
	txn_count(txn, "total_requests", -1);
	store_submit(agent->pool->store, txn, false, NULL, NULL); /* record_over() comes behind */
}

static struct store_txn *over_txn(const struct ap_agent *agent, enum ap_reason reason)
{
	struct store_txn *txn = store_txn_new();
	txn_lease_over(txn, agent->token, ap_clock_to_wall(ap_clock_ns()),
		       ap_reason_name(reason ? reason : AP_REASON_CANCELLED));
	txn_prompts_gone(txn, agent->number, STORE_ALL_PROMPTS);
	return txn;
}

/* Records that the lease is over, its work safe. If the store cannot now, it does as soon as it
 * can; the function fails all the same. */
static int record_over(struct ap_agent *agent, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	enum ap_reason reason = pool->view->slots[agent->slot].leaving;
	pthread_mutex_unlock(&pool->lock);
	/* remove the file first: without it recovery trusts the store; a file of a lease that the
	 * store does not know makes recovery distrust the store */
	lease_record_remove(agent);
	int r = store_commit(pool->store, over_txn(agent, reason), true, err);
	if (r == 0)
		return 0;
	store_insist(pool->store, over_txn(agent, reason));
	return store_failed(pool, r, err);
}

static void job_spawn(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	char base[GIT_OID_MAX + 1];
	int r = keep_name(agent, &err);
	crash_point("spawn-named");
	if (r == 0)
		r = resolve_base(pool, base, &err);
	if (r == 0 && mkdir(agent->dir, 0700) < 0)
		r = ap_err_errno(&err, -errno, "%s", agent->dir);
	else
		agent->dir_made = r == 0;
	if (r == 0)
		r = worktree_add(&agent->worktree, pool->templates, agent->name, base,
				 ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT), &err);
	if (r == 0)
		r = inside_show(pool, agent->name, &err);
	if (r == 0) {
		note_commit(agent);
		launch_choose_ports(agent);
		crash_point("spawn-worktree");
		r = launch_program(agent, LAUNCH_FIRST, &err);
	}
	crash_point("spawn-program");
	if (r == 0)
		r = record_program(agent, true, false, "spawned_agents", &err);
	crash_point("spawn-recorded");
	if (r < 0) /* job_stop() follows, and removes what was made */
		pool_note_spawn_error(pool, &err);
	outcome(agent, r);
	worker_once_ask(&pool->tidy);
}

/* --- leases --- */

/* Fills in what the acquirer asked for. If it has given up meanwhile: the configured base, and
 * neither holder nor restore. */
static void wanted_lease(struct ap_agent *agent, struct store_lease *record, pid_t *ret_holder,
			 char *ret_base, size_t size, char ret_restore[KEPT_NAME_MAX])
{
	struct worktree_lease *lease = &agent->lease;
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	const char *base = pool->config.text[AP_OPT_BASE];
	*record = (struct store_lease){
		.token = slot->token,
		.uid = slot->uid,
		.pid = slot->pid,
		.by_handle = slot->by_handle,
		.ttl_ns = slot->ttl_ns,
		.affinity = slot->affinity,
	};
	if (slot->request) {
		const struct ap_request *request =
			ap_container_of(slot->request, struct ap_request, machine);
		if (request->base)
			base = request->base;
		if (request->has_restore)
			snprintf(ret_restore, KEPT_NAME_MAX, "%s", base + strlen(base) + 1);
		record->holder_start = request->holder_start;
		*ret_holder = request->holder;
	}
	agent->permission = -1;
	if (slot->request)
		agent->permission =
			ap_container_of(slot->request, struct ap_request, machine)->permission;
	if (agent->permission >= 0)
		ap_permission_format((uint32_t)agent->permission, record->permission,
				     sizeof record->permission);
	int64_t budget = -1;
	if (slot->request)
		budget = ap_container_of(slot->request, struct ap_request, machine)->budget;
	if (budget >= 0)
		ap_budget_format(budget, record->budget, sizeof record->budget);
	spending_begin_lease_locked(agent, slot->token, budget);
	agent->token = slot->token;
	snprintf(ret_base, size, "%s", base);
	memcpy(lease->label, slot->label.text, sizeof lease->label);
	pthread_mutex_unlock(&pool->lock);
}

/* Opens a pidfd of the process that the lease ends with. -ESRCH: the process has ended while its
 * acquirer waited. */
static int take_holder(struct ap_agent *agent, pid_t holder, uint64_t start, struct ap_err *err)
{
	int fd = holder ? pidfd_open(holder, 0) : -1;
	if (fd >= 0 && process_start_time(holder) != start) { /* another process has its pid */
		close(fd);
		fd = -1;
		errno = ESRCH;
	}
	if (holder && fd < 0) { /* -EBUSY, as without descriptors: not the agent's fault */
		int r = errno == ESRCH ? -ESRCH : -EBUSY;
		ap_err_errno(err, -errno, "pid %d", (int)holder);
		return r;
	}
	pthread_mutex_lock(&agent->pool->lock);
	agent_forget_holder_locked(agent);
	agent->holder_fd = fd;
	pthread_mutex_unlock(&agent->pool->lock);
	return 0;
}

static void forget_holder(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	agent_forget_holder_locked(agent);
	pthread_mutex_unlock(&agent->pool->lock);
}

static int has_died(struct ap_agent *agent, struct ap_err *err)
{
	return ap_err_set(err, session_was_killed(agent->session) ? MACHINE_KILLED : -ECHILD,
			  "the program of %s has ended", agent->name);
}

static int check_health(struct ap_agent *agent, struct ap_err *err)
{
	if (session_is_over(agent->session))
		return has_died(agent, err);
	if (!worktree_present(&agent->worktree))
		return ap_err_set(err, -ENOTDIR, "the worktree of %s has gone", agent->name);
	return 0;
}

/* Takes the worktree off the lease's branch again; nobody has worked on the branch. */
static int undo_grant(struct ap_agent *agent)
{
	int r = worktree_discard(&agent->worktree, &agent->lease, NULL);
	if (r == 0)
		r = worktree_forward(&agent->worktree, agent->lease.base, NULL);
	agent->lease_open = r < 0;
	return r;
}

/* Whether the program that serves the next lease is meant to know the leases before. */
static bool goes_over(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	bool keeps = strcmp(pool->config.text[AP_OPT_ON_RELEASE], "keep") == 0;
	pthread_mutex_unlock(&pool->lock);
	return keeps && agent->has_served;
}

static void tell_resumed(const struct ap_agent *agent, const char *id)
{
	events_add(agent->pool->events, "resumed",
		   EVENT_FIELDS({"agent", agent->name, 0}, {"lease", agent->lease.label, 0},
				{"conversation", id, 0}));
}

/* At a grant, before it is recorded: has the program go on with the conversation of the lease's
 * label, if there is one, by starting it again where that is the only way. False: the program stays
 * as it is, or has ended. */
static bool go_on_with_conversation(struct ap_agent *agent, struct ap_err *err)
{
	char id[SESSION_CONVERSATION_MAX], now[SESSION_CONVERSATION_MAX];
	bool stays = goes_over(agent) || !conversation_find(agent, id) ||
		     (session_conversation(agent->session, now) && strcmp(now, id) == 0);
	conversation_granted(agent);
	if (stays)
		return false;
	if (!session_has_conversation(agent->session, id)) {
		conversation_tell_gone(agent, id, "the program has it no more");
		return false;
	}
	int resumed = session_resume(agent->session, id, CLEAR_LIMIT);
	if (resumed == 0)
		tell_resumed(agent, id);
	if (resumed == 0 || resumed == -ENOENT)
		return false;
	session_converse(agent->session, id);
	session_restarts(agent->session); /* nothing is concluded from the one before */
	int r = session_end(agent->session, err);
	if (r == 0)
		r = launch_program(agent, LAUNCH_RESUME, err);
	if (r == 0)
		(void)agent_record_program(agent, err); /* unrecorded, the next daemon ends it */
	if (r == 0)
		tell_resumed(agent, id);
	else
		session_restart_failed(agent->session, err);
	return r == 0;
}

static void job_validate(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	char base[AP_OPTION_TEXT_MAX], restore[KEPT_NAME_MAX] = "";
	struct store_lease record;
	pid_t holder = 0;
	wanted_lease(agent, &record, &holder, base, sizeof base, restore);
	session_go_on(agent->session); /* a pause from before the lease ends here */
	int r = take_holder(agent, holder, record.holder_start, &err);
	if (r == 0)
		r = check_health(agent, &err);
	if (r == 0) /* somebody may have removed it */
		r = inside_show(pool, agent->name, &err);
	if (r == 0)
		r = worktree_plan(&agent->worktree, base, &agent->lease, &err);
	/* record before creating the branch: a branch without a record would stay for ever */
	bool recorded = r == 0;
	if (r == 0 && (r = record_wanted(agent, &record, &err)) < 0)
		r = store_failed(pool, r, &err);
	crash_point("grant-wanted");
	if (r == 0) {
		r = worktree_start(&agent->worktree, &agent->lease, &err);
		agent->lease_open = r != -EBUSY;
	}
	crash_point("grant-started");
	if (r == 0 && *restore)
		r = agent_restore(agent, restore, &err);
	crash_point("grant-restored");
	bool goes_on = r == 0 && go_on_with_conversation(agent, &err);
	if (r == 0 && (r = record_granted(agent, record.token, &err)) < 0)
		r = store_failed(pool, r, &err);
	crash_point("grant-recorded");
	/* check last, right before the answer: the agent granted has to live; one that does not go
	 * on with the conversation is started anew */
	if (r == 0 && !goes_on && !session_lives(agent->session)) {
		record_not_granted(agent, &record);
		r = has_died(agent, &err);
	}
	/* an agent that serves the next lease has nothing of one that was not granted: where that
	 * cannot be undone, the agent is ill, and its recycling does */
	if (r < 0 && agent->lease_open && undo_grant(agent) < 0)
		r = -EIO;
	if (r < 0 && goes_on) { /* it knows what is not for the next lease */
		(void)session_end(agent->session, NULL);
		r = -ECHILD;
	}
	agent->lease_held = r == 0;
	if (recorded && !agent->lease_open)
		(void)record_over(agent, NULL); /* on failure store_insist() tries again */
	note_commit(agent);
	if (r == 0) {
		pthread_mutex_lock(&pool->lock);
		memcpy(agent->base, agent->lease.base, sizeof agent->base);
		agent->n_prompts = agent->n_prompts_shown = 0;
		pthread_mutex_unlock(&pool->lock);
		session_drop_prompts(agent->session, true); /* those from before the lease */
	} else {
		tell_request(agent, &err);
	}
	if (outcome(agent, r) < 0 || r < 0)
		forget_holder(agent);
}

static void tell_mount(void *data, const char *place, const char *type)
{
	struct ap_agent *agent = data;
	events_add(agent->pool->events, "mount_detached",
		   EVENT_FIELDS({"agent", agent->name, 0}, {"lease", agent->lease.label, 0},
				{"path", place, 0}, {"type", type, 0}));
}

static void note_progress(void *data, uint64_t n_files, uint64_t bytes)
{
	struct ap_agent *agent = data;
	atomic_store(&agent->saved_files, n_files);
	atomic_store(&agent->saved_bytes, bytes);
	pool_changed(agent->pool);
}

/* Moves what the lease left to kept/. */
static int keep_work(struct ap_agent *agent, const struct worktree_saved *saved, bool in_place,
		     struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	struct kept_info info;
	pthread_mutex_lock(&pool->lock);
	enum ap_reason reason = pool->view->slots[agent->slot].leaving;
	pthread_mutex_unlock(&pool->lock);
	keeping_info(pool, &agent->worktree, &agent->lease, agent->token, reason, &info);
	spending_line(agent, info.usage, sizeof info.usage);
	snprintf(info.commit, sizeof info.commit, "%s", saved->commit);
	return keeping_keep(pool, &agent->worktree, &info, in_place, err);
}

/* Keeps all that the lease has changed, if keep_work is on. If it is off, fails the save when there
 * is work that only kept/ could hold. */
static int keep_if_wanted(struct ap_agent *agent, const struct worktree_saved *saved, bool in_place,
			  struct ap_err *err)
{
	struct ap_err why = {""};
	bool wanted = keeping_is_on(agent->pool);
	bool needed = saved->only_kept.len > 0;
	if (saved->is_untouched || (!wanted && !needed))
		return 0;
	if (!wanted)
		return ap_err_set(err, -EIO, "%s; kept/ could hold it, but keep_work is off",
				  ap_buf_text(&saved->only_kept));
	int r = keep_work(agent, saved, in_place, &why);
	if (r < 0 && needed) {
		*err = why;
		return ap_err_wrap(err, -EIO, "%s", ap_buf_text(&saved->only_kept));
	}
	if (r < 0 || needed)
		events_add(agent->pool->events, r < 0 ? "keep_failed" : "only_kept",
			   EVENT_FIELDS({"lease", agent->lease.label, 0}, {"agent", agent->name, 0},
					{"reason",
					 r < 0 ? why.text : ap_buf_text(&saved->only_kept), 0}));
	return 0;
}

/* Saves the lease's work, or discards it if so asked. `in_place`: the program stays in the
 * worktree. */
static int save_lease(struct ap_agent *agent, bool in_place, struct ap_err *err)
{
	struct worktree_saved saved = {.is_untouched = false};
	AP_CLEANUP_BUF struct ap_buf message = {0};
	if (!agent->lease_held) { /* never granted: there may be a branch, but no work */
		(void)worktree_discard(&agent->worktree, &agent->lease, NULL);
		worktree_end(&agent->worktree);
		return 0;
	}
	/* the save does not enter a mount that stays */
	(void)worktree_unmount(&agent->worktree, tell_mount, agent, NULL);
	int r = 0;
	note_progress(agent, 0, 0);
	atomic_store(&agent->saving, true);
	if (agent->effect.type == EFFECT_SAVE && agent->effect.discard) {
		r = worktree_discard(&agent->worktree, &agent->lease, err);
	} else {
		lease_message(agent->lease.label, agent->name, agent_generation(agent), &message);
		r = worktree_save(&agent->worktree, &agent->lease, ap_buf_text(&message),
				  note_progress, agent, &saved, err);
		if (r == 0)
			r = keep_if_wanted(agent, &saved, in_place, err);
	}
	atomic_store(&agent->saving, false);
	if (r == 0)
		worktree_end(&agent->worktree);
	ap_buf_fini(&saved.only_kept);
	return r;
}

/* Whether the program forgets a lease by its own clear command, instead of by a restart. */
static bool is_cleared(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	bool kept = strcmp(pool->config.text[AP_OPT_ON_RELEASE], "keep") == 0;
	pthread_mutex_unlock(&pool->lock);
	return !kept && *profile_values(pool->profile)->clear;
}

static bool is_ready(struct ap_agent *agent)
{
	struct session_info info;
	session_info(agent->session, &info);
	/* a limit does not keep a program from obeying its own commands */
	bool rests = info.activity == AP_ACTIVITY_READY || info.activity == AP_ACTIVITY_LIMITED;
	return rests && !info.ended;
}

/* Whether a later program could not go on with the lease's conversation while this one lives. */
static bool holds_conversation(struct ap_agent *agent)
{
	char id[SESSION_CONVERSATION_MAX];
	return profile_values(agent->pool->profile)->holds_conversation &&
	       session_conversation(agent->session, id);
}

static void job_save(struct ap_agent *agent)
{
	struct ap_err err = {""};
	/* end the program before the save: what it still writes belongs to the lease. A busy
	 * program takes no clear command, and has to end, too. */
	conversation_settle(agent);
	bool ends = agent->effect.restart ||
		    (is_cleared(agent) && (!is_ready(agent) || holds_conversation(agent)));
	int r = ends ? session_end(agent->session, &err) : 0;
	if (!ends)
		session_go_on(agent->session);
	crash_point("save-ended");
	if (r == 0)
		r = save_lease(agent, !agent->effect.restart, &err);
	crash_point("save-saved");
	int recorded = r == 0 ? record_over(agent, &err) : 0;
	crash_point("save-recorded");
	if (recorded < 0) {
		ap_err_wrap(&err, recorded, "the work is saved, but");
		tell_request(agent, &err);
	}
	if (r < 0) {
		ap_err_wrap(&err, r, "%s is set aside with its work in %s", agent->name,
			    agent->worktree_path);
		tell_request(agent, &err);
		pool_note_unsaved(agent->pool, &err, false);
	} else {
		agent->lease_open = false;
	}
	outcome(agent, r < 0 ? -EIO : recorded);
}

static bool program_has_ended(struct ap_agent *agent)
{
	struct session_info info;
	session_info(agent->session, &info);
	return info.ended;
}

/* Ends the program if it is to restart, and a lease that is still open: its grant came too late for
 * the acquirer, or could not be undone. */
static int end_old(struct ap_agent *agent, bool restart, struct ap_err *err)
{
	int r = restart ? session_end(agent->session, err) : 0;
	if (r < 0 || !agent->lease_open)
		return r;
	r = save_lease(agent, !restart, err);
	if (r < 0)
		return r;
	(void)record_over(agent, NULL); /* on failure store_insist() tries again */
	agent->lease_open = false;
	return 0;
}

/* Runs teardown and resets the worktree to what the next lease starts from. */
static int clean(struct ap_agent *agent, bool restart, struct ap_err *err)
{
	char base[GIT_OID_MAX + 1];
	int64_t limit_ns = ap_pool_config_number(agent->pool, AP_OPT_SPAWN_TIMEOUT);
	int r = resolve_base(agent->pool, base, err);
	if (r == 0) {
		launch_teardown(agent);
		r = worktree_clean(&agent->worktree, base, !restart, limit_ns, err);
	}
	note_commit(agent);
	return r;
}

/* Keeps the program in the clean worktree, or restarts it: if `restart`, or if its clear command
 * fails. */
static int start_next(struct ap_agent *agent, bool restart, struct ap_err *err)
{
	bool cleared = !restart && is_cleared(agent);
	if (cleared)
		session_forget_conversation(agent->session);
	agent->has_served = agent->has_served && !restart && !cleared;
	if (cleared && !session_clear(agent->session, CLEAR_LIMIT)) {
		int r = session_end(agent->session, err);
		if (r < 0)
			return r;
		restart = true;
	}
	if (restart)
		return launch_program(agent, LAUNCH_CLEAN, err);
	session_forget_output(agent->session);
	return launch_setup(agent, err);
}

/* Whether the machine counts it as a recycling. */
static bool is_recycled(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	bool recycled = agent->pool->view->slots[agent->slot].recycle;
	pthread_mutex_unlock(&agent->pool->lock);
	return recycled;
}

static void job_recycle(struct ap_agent *agent)
{
	struct ap_err err = {""};
	bool restart = agent->effect.restart || program_has_ended(agent);
	int r = end_old(agent, restart, &err);
	if (r == 0)
		r = clean(agent, restart, &err);
	crash_point("recycle-cleaned");
	if (r == 0) {
		session_drop_prompts(agent->session, false);
		r = start_next(agent, restart, &err);
	}
	crash_point("recycle-program");
	if (r == 0) {
		bool recycled = is_recycled(agent);
		r = record_program(agent, true, recycled, recycled ? "total_recycles" : NULL, &err);
	}
	crash_point("recycle-recorded");
	if (r < 0)
		pool_note_spawn_error(agent->pool, &err);
	outcome(agent, r);
	worker_once_ask(&agent->pool->tidy);
}

static void job_drain(struct ap_agent *agent)
{
	if (*profile_values(agent->pool->profile)->quit && is_ready(agent))
		session_quit(agent->session);
	outcome(agent, session_end(agent->session, NULL));
}

/* Ends what is left of an agent, whatever state its spawn or its lease was in. */
static void job_stop(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	bool keep = agent->effect.keep;
	int r = session_end(agent->session, &err);
	crash_point("stop-ended");
	if (r == 0 && !keep && agent->lease_open)
		r = save_lease(agent, false, &err);
	if (r == 0 && !keep && agent->lease_open)
		(void)record_over(agent, NULL);	    /* on failure store_insist() tries again */
	if (!templates_are_ending(pool->templates)) /* else the backend's end removes it */
		session_remove_terminal(agent->session);
	if (r == 0 && !keep && agent->worktree.path) {
		launch_teardown(agent);
		r = worktree_remove(&agent->worktree, &err);
	}
	crash_point("stop-removed");
	if (r == 0 && !keep) { /* otherwise the lease's record stays with the worktree */
		struct store_txn *txn = store_txn_new();
		inside_hide(pool, agent->name);
		if (agent->dir_made)
			remove_tree(agent->dir, NULL, NULL);
		txn_agent_gone(txn, agent->number);
		(void)store_commit(pool->store, txn, false, NULL); /* on failure: recovery does */
		crash_point("stop-recorded");
	} else {
		worktree_leave(&agent->worktree);
		pool_note_unsaved(pool, &err, true);
	}
	agent_leave(agent);
	outcome(agent, 0);
	worker_once_ask(&pool->tidy);
}

static void job_effect(struct worker_job *job)
{
	static void (*const jobs[N_EFFECTS])(struct ap_agent *) = {
		[EFFECT_SPAWN] = job_spawn, [EFFECT_VALIDATE] = job_validate,
		[EFFECT_SAVE] = job_save,   [EFFECT_RECYCLE] = job_recycle,
		[EFFECT_DRAIN] = job_drain, [EFFECT_STOP] = job_stop,
	};
	struct ap_agent *agent = ap_container_of(job, struct ap_agent, effect_job);
	pthread_mutex_lock(&agent->pool->lock);
	agent->effect = agent->next_effect;
	agent->effect_queued = false;
	session_break_off(agent->session, false);
	pthread_mutex_unlock(&agent->pool->lock);
	jobs[agent->effect.type](agent);
}

/* Replaces an effect that has not begun: the machine does not await that one any more. */
void job_effect_locked(struct ap_agent *agent, const struct machine_effect *effect)
{
	agent->next_effect = *effect;
	if (!agent->effect_queued)
		session_submit(agent->session, &agent->effect_job, job_effect);
	agent->effect_queued = true;
	/* any effect but VALIDATE breaks off a prompt that is being given */
	session_break_off(agent->session, effect->type != EFFECT_VALIDATE);
}

/* --- jobs on the heap --- */

int pool_may_ask(struct ap_pool *pool, struct ap_err *err)
{
	unsigned n = atomic_load(&pool->n_asked);
	return n < POOL_ASKED_MAX
		       ? 0
		       : ap_err_set(err, -EAGAIN,
				    "%u texts and commands are being worked on already", n);
}

struct pool_job *pool_job_new(struct ap_pool *pool, struct ap_agent *agent,
			      struct ap_request *request, void (*run)(struct worker_job *))
{
	struct pool_job *job = calloc(1, sizeof *job);
	if (!job)
		return NULL;
	job->job.run = run;
	job->pool = pool;
	job->agent = agent;
	if (agent)
		agent_ref(agent);
	job->request = request;
	if (request) {
		ap_request_ref(request);
		atomic_fetch_add(&pool->n_asked, 1);
	}
	return job;
}

void pool_job_free(struct pool_job *job)
{
	if (job->request)
		atomic_fetch_sub(&job->pool->n_asked, 1);
	ap_agent_unref(job->agent);
	free(job->message);
	free(job);
}

void pool_job_submit(struct pool_job *job)
{
	worker_submit(job->pool->workers, &job->job);
}

int pool_job_begin(struct ap_pool *pool, struct ap_request *request,
		   void (*run)(struct worker_job *), struct ap_err *err)
{
	int r = pool_may_ask(pool, err);
	if (r < 0)
		return r;
	struct pool_job *job = pool_job_new(pool, NULL, request, run);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "pool");
	pool_job_submit(job);
	return 0;
}

void pool_job_in_lane(struct pool_job *job)
{
	session_submit(job->agent->session, &job->job, job->job.run);
}

/* --- health and usage --- */

static void job_forward(struct worker_job *worker_job);

static void forward_soon(struct ap_agent *agent)
{
	if (atomic_exchange(&agent->forwarding,
			    true)) /* the waiting job resolves the base when it runs */
		return;
	struct pool_job *job = pool_job_new(agent->pool, agent, NULL, job_forward);
	if (job)
		pool_job_in_lane(job);
	else
		atomic_store(&agent->forwarding, false);
}

/* Moves templates and an idle agent to the commit that new leases start from. */
static void follow_base(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	char base[GIT_OID_MAX + 1];
	if (resolve_base(pool, base, NULL) < 0) /* the next grant reports it */
		return;
	pthread_mutex_lock(&pool->lock);
	bool behind = !agent->gone && strcmp(agent->commit, base) != 0 &&
		      pool->view->slots[agent->slot].state == AP_AGENT_IDLE;
	pthread_mutex_unlock(&pool->lock);
	if (behind)
		forward_soon(agent);
	(void)templates_follow(pool->templates, base,
			       ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT), NULL);
	worker_once_ask(&pool->tidy);
}

/* Checks the socket to the terminals with every probe: without it users cannot attach, and the next
 * daemon would not find the terminals. */
static void tend_backend(struct ap_pool *pool)
{
	const struct backend_ops *ops = pool->backend->ops;
	if (ops->tend && ops->tend(pool->backend))
		events_add(pool->events, "socket_gone",
			   EVENT_FIELDS({"backend", ops->name, 0},
					{"reason", "the way to the terminals is made anew", 0}));
}

static void job_probe(struct worker_job *job)
{
	struct ap_agent *agent = ap_container_of(job, struct ap_agent, probe_job);
	struct process_usage usage = {0};
	double percent = 0;
	tend_backend(agent->pool);
	int r = check_health(agent, NULL);
	if (r == 0) /* an unreadable process tree does not make the agent unhealthy */
		(void)session_usage(agent->session, NULL, &usage, &percent);
	pthread_mutex_lock(&agent->pool->lock);
	uint32_t id = agent->probe;
	agent->probe = 0;
	pthread_mutex_unlock(&agent->pool->lock);
	pool_step_agent(agent, (struct machine_event){.type = MACHINE_PROBED,
						      .effect = id,
						      .result = r,
						      .memory = usage.memory,
						      .cpu = (unsigned)ceil(percent)});
	follow_base(agent);
	ap_agent_unref(agent);
}

void job_probe_locked(struct ap_agent *agent, uint32_t id)
{
	bool under_way = agent->probe != 0;
	agent->probe = id;
	if (under_way) /* the running job reports the outcome with the new id */
		return;
	agent->probe_job = (struct worker_job){.run = job_probe};
	agent_ref(agent); /* the job's; not in the lane, where a long job would delay it */
	worker_submit(agent->pool->workers, &agent->probe_job);
}

/* Moves the lease's branch in the repository to the agent's own commits. */
static void job_follow(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	atomic_store(&agent->following, false);
	if (agent->lease_open && agent->lease_held &&
	    worktree_follow(&agent->worktree, &agent->lease, &err) < 0) /* the save tries again */
		events_add(agent->pool->events, "follow_failed",
			   EVENT_FIELDS({"lease", agent->lease.label, 0}, {"agent", agent->name, 0},
					{"reason", err.text, 0}));
	pool_job_free(job);
}

void job_follow_soon(struct ap_agent *agent)
{
	if (atomic_exchange(&agent->following, true)) /* the waiting job reads when it runs */
		return;
	struct pool_job *job = pool_job_new(agent->pool, agent, NULL, job_follow);
	if (job)
		pool_job_in_lane(job);
	else
		atomic_store(&agent->following, false);
}

/* Fast-forwards the worktree of an agent without a lease. A grant meanwhile waits in the lane. */
static void job_forward(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_agent *agent = job->agent;
	char base[GIT_OID_MAX + 1];
	atomic_store(&agent->forwarding, false);
	pthread_mutex_lock(&agent->pool->lock);
	enum ap_agent_state state = agent->pool->view->slots[agent->slot].state;
	bool serves_nobody = !agent->gone && !agent->lease_open &&
			     (state == AP_AGENT_IDLE || state == AP_AGENT_VALIDATING);
	pthread_mutex_unlock(&agent->pool->lock);
	if (serves_nobody && resolve_base(agent->pool, base, NULL) == 0)
		(void)worktree_forward(&agent->worktree, base, NULL); /* the grant tries again */
	note_commit(agent);
	pool_job_free(job);
}
