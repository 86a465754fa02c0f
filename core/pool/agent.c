/* One agent of the pool: its session, its slot of the machine, the holder of its lease, what users
 * see of it. A field's lock stands at its declaration. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"
#include "shared.h"

/* --- callbacks of its session --- */

static void on_freed(void *owner)
{
	struct ap_agent *agent = owner;
	if (agent->holder_fd >= 0)
		close(agent->holder_fd);
	worktree_fini(&agent->worktree);
	free(agent->dir);
	free(agent->worktree_path);
	ap_shared_unref(agent->shown);
	ap_shared_unref(agent->asked);
	free(agent);
}

static void on_changed(void *owner)
{
	struct ap_agent *agent = owner;
	pool_changed(agent->pool);
}

/* The program of that start has ended. Ignored if the session has begun another start meanwhile. */
static void on_ended(void *owner, unsigned start, const char *how, bool killed)
{
	struct ap_agent *agent = owner;
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	bool still = !agent->gone && session_has_ended(agent->session, start);
	if (still && !pool->view->slots[agent->slot].proven && !killed) {
		ap_err_set(&pool->spawn_error, 0, "'%s' ended soon after its start (%s)",
			   pool->argv[0], how);
		pool->spawn_error_ns = ap_clock_ns();
	}
	if (still)
		pool_step_locked(pool,
				 &(struct machine_event){.type = MACHINE_EXITED,
							 .slot = agent->slot,
							 .result = killed ? MACHINE_KILLED : 0});
	pool_unlock(pool);
}

static void on_activity(void *owner, enum ap_activity from, enum ap_activity to, const char *why)
{
	struct ap_agent *agent = owner;
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	if (!agent->gone && slot->state == AP_AGENT_ACTIVE)
		events_note(pool->events, "activity",
			    EVENT_FIELDS({"agent", agent->name, 0}, {"lease", slot->label.text, 0},
					 {"from", ap_activity_name(from), 0},
					 {"to", ap_activity_name(to), 0}, {"why", why, 0}));
	if (from == AP_ACTIVITY_BUSY || to == AP_ACTIVITY_BUSY)
		conversation_note_locked(agent);
	pool_unlock(pool);
	if (from == AP_ACTIVITY_BUSY) /* a turn has ended */
		job_follow_soon(agent);
}

/* Records that the prompt is being given: if this daemon dies, the next one does not give it again.
 * Not beyond the budget. */
static int on_prompt_taken(void *owner, uint64_t seq, bool is_command, struct ap_err *err)
{
	struct ap_agent *agent = owner;
	struct ap_pool *pool = agent->pool;
	struct store_txn *txn = store_txn_new();
	pthread_mutex_lock(&pool->lock);
	memcpy(agent->prompted_label, pool->view->slots[agent->slot].label.text,
	       sizeof agent->prompted_label);
	int r = is_command ? 0 : spending_refused_locked(agent, err);
	pthread_mutex_unlock(&pool->lock);
	if (r < 0) {
		store_txn_free(txn);
		return r;
	}
	txn_prompt_taken(txn, agent->number, seq, true);
	(void)store_commit(pool->store, txn, false, NULL); /* full disk: give it anyway */
	return 0;
}

static void on_prompt_done(void *owner, uint64_t seq, enum session_outcome outcome, size_t len,
			   const struct ap_err *why)
{
	static const char *const names[] = {
		[SESSION_SUBMITTED] = "submitted",
		[SESSION_NOT_SUBMITTED] = "typed_not_submitted",
		[SESSION_NO_EVIDENCE] = "no_evidence",
		[SESSION_REFUSED] = "refused",
	};
	struct ap_agent *agent = owner;
	struct ap_pool *pool = agent->pool;
	struct store_txn *txn = store_txn_new();
	if (outcome == SESSION_PUT_BACK)
		txn_prompt_taken(txn, agent->number, seq, false);
	else
		txn_prompt_gone(txn, agent->number, seq);
	store_submit(pool->store, txn, false, NULL, NULL);
	if (outcome != SESSION_PUT_BACK)
		events_add(pool->events, "prompt",
			   EVENT_FIELDS({"agent", agent->name, 0},
					{"lease", agent->prompted_label, 0},
					{"outcome", names[outcome], 0},
					{"bytes", NULL, (int64_t)len}, {"reason", why->text, 0}));
}

static void on_prompts_dropped(void *owner, uint64_t up_to_seq)
{
	struct ap_agent *agent = owner;
	struct store_txn *txn = store_txn_new();
	txn_prompts_gone(txn, agent->number, up_to_seq);
	store_submit(agent->pool->store, txn, false, NULL, NULL);
}

static void on_note(void *owner, enum session_note what, const char *text)
{
	struct ap_agent *agent = owner;
	if (what == SESSION_AUTO_ANSWER)
		events_add(agent->pool->events, "auto_answer",
			   EVENT_FIELDS({"agent", agent->name, 0}, {"keys", text, 0}));
	else if (what == SESSION_CONVERSATION_GONE)
		conversation_tell_gone(agent, text, "the program has it no more");
	else
		events_add(agent->pool->events, "seed_failed", EVENT_FIELDS({"reason", text, 0}));
}

/* On behalf of the lease's owner. */
static void on_answered(void *owner, const struct question *asked,
			const struct question_option *option, const char *rule)
{
	struct ap_agent *agent = owner;
	pthread_mutex_lock(&agent->pool->lock);
	uid_t uid = agent->pool->view->slots[agent->slot].uid;
	pthread_mutex_unlock(&agent->pool->lock);
	note_answer(agent, uid, asked, option, rule);
}

static void on_conversation(void *owner, const char *conversation)
{
	conversation_changed(owner, conversation);
}

static void on_resume_failed(void *owner, const char *conversation)
{
	conversation_failed(owner, conversation);
}

static void on_used(void *owner, const struct ap_usage_report *report)
{
	spending_report(owner, report);
}

static void on_limit(void *owner, const struct limit *limit, bool lifted)
{
	struct ap_agent *agent = owner;
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	if (!agent->gone) {
		limit_note_locked(agent, limit->on ? "begins" : "ends",
				  limit->on ? limit->until_s : 0);
		struct machine_event event = limit_take_locked(agent, limit, lifted);
		(void)pool_step_locked(pool, &event); /* -ENOENT: the agent is going */
	}
	pool_unlock(pool);
}

static bool on_limit_over(void *owner, const struct limit *limit)
{
	struct ap_agent *agent = owner;
	pthread_mutex_lock(&agent->pool->lock);
	bool goes_on = limit_goes_on_locked(agent, limit);
	pthread_mutex_unlock(&agent->pool->lock);
	return goes_on;
}

static void on_go_on(void *owner, uint64_t token)
{
	struct ap_agent *agent = owner;
	struct ap_pool *pool = agent->pool;
	if (prompt_first(agent, token, profile_values(pool->profile)->go_on) < 0)
		return; /* the lease has ended, or takes no more prompts */
	pthread_mutex_lock(&pool->lock);
	limit_note_locked(agent, "continued", 0);
	pool_unlock(pool);
}

static const struct session_callbacks callbacks = {
	.freed = on_freed,
	.changed = on_changed,
	.ended = on_ended,
	.activity = on_activity,
	.prompt_taken = on_prompt_taken,
	.prompt_done = on_prompt_done,
	.prompts_dropped = on_prompts_dropped,
	.note = on_note,
	.answered = on_answered,
	.conversation = on_conversation,
	.resume_failed = on_resume_failed,
	.used = on_used,
	.limit = on_limit,
	.goes_on = on_limit_over,
	.go_on = on_go_on,
};

void agent_adopt_limit(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct limit limit;
	session_limit(agent->session, &limit);
	if (!limit.on)
		return;
	pthread_mutex_lock(&pool->lock);
	struct machine_event event = limit_take_locked(agent, &limit, false);
	(void)pool_step_locked(pool, &event);
	pool_unlock(pool);
}

/* --- its lease --- */

static uint32_t permission_locked(const struct ap_agent *agent)
{
	return agent->permission >= 0 ? (uint32_t)agent->permission
				      : (uint32_t)agent->pool->config.number[AP_OPT_PERMISSION];
}

bool agent_permit_locked(const struct ap_agent *agent)
{
	bool leased = agent->pool->view->slots[agent->slot].state == AP_AGENT_ACTIVE;
	return session_permit(agent->session,
			      leased ? permission_locked(agent) : AP_PERMISSION_ASK);
}

/* --- its life --- */

/* Whether the holder's process has ended. Polls again: the descriptor may be another one since the
 * loop called the source. */
static bool holder_has_ended_locked(struct ap_agent *agent)
{
	struct pollfd end = {.fd = agent->holder_fd, .events = POLLIN};
	if (agent->gone || agent->holder_fd < 0 || poll(&end, 1, 0) != 1 || !end.revents)
		return false;
	(void)loop_watch_fd(agent->pool->loop, &agent->holder_ends, -1);
	return true;
}

static void on_holder_ends(struct loop_source *source)
{
	struct ap_agent *agent = ap_container_of(source, struct ap_agent, holder_ends);
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	uint64_t token = pool->view->slots[agent->slot].token;
	bool over = holder_has_ended_locked(agent);
	pthread_mutex_unlock(&pool->lock);
	if (over) /* the machine refuses if the lease is ending already */
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = token,
							      .reason = AP_REASON_HOLDER});
}

void agent_forget_holder_locked(struct ap_agent *agent)
{
	(void)loop_watch_fd(agent->pool->loop, &agent->holder_ends, -1);
	if (agent->holder_fd >= 0)
		close(agent->holder_fd);
	agent->holder_fd = -1;
}

struct ap_agent *agent_new_locked(struct ap_pool *pool, unsigned slot, unsigned number)
{
	struct ap_agent *agent = calloc(1, sizeof *agent);
	if (!agent)
		return NULL;
	agent->pool = pool;
	agent->slot = slot;
	agent->number = number;
	snprintf(agent->name, sizeof agent->name, "agent-%u", number);
	agent->dir = state_dir_path(pool, POOL_AGENTS, agent->name);
	agent->worktree_path = state_dir_path(pool, POOL_WORKTREES, agent->name);
	agent->holder_fd = agent->permission = -1;
	spending_init_agent(agent);
	bool watched = loop_add(pool->loop, &agent->holder_ends, on_holder_ends) == 0;
	AP_CLEANUP_FREE char *git_dir = state_dir_path(pool, "git", agent->name);
	if (watched && agent->dir && agent->worktree_path && git_dir)
		agent->session = session_new(&pool->sessions,
					     &(struct session_place){.name = agent->name,
								     .dir = agent->dir,
								     .cwd = agent->worktree_path,
								     .git_dir = git_dir},
					     &callbacks, agent);
	if (!agent->session) {
		loop_remove(pool->loop, &agent->holder_ends);
		on_freed(agent);
		return NULL;
	}
	pool->agents[slot] = agent;
	limit_new_agent_locked(agent);
	return agent;
}

void agent_ref(struct ap_agent *agent)
{
	session_ref(agent->session);
}

void ap_agent_unref(struct ap_agent *agent)
{
	if (agent)
		session_unref(agent->session);
}

void agent_close(struct ap_agent *agent)
{
	session_close(agent->session);
	loop_remove(agent->pool->loop, &agent->holder_ends);
}

void agent_leave(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	agent->gone = true;
	pool->agents[agent->slot] = NULL;
	pthread_mutex_unlock(&pool->lock);
	agent_close(agent);
	pool_changed(pool);
	if (pool->agent_gone)
		pool->agent_gone(pool->observer, agent->name);
	ap_agent_unref(agent);
}

/* --- what users see of it --- */

int ap_agent_activity_set(struct ap_pool *pool, struct ap_agent *agent, const char *text,
			  struct ap_err *err)
{
	static const enum ap_activity told[] = {AP_ACTIVITY_STARTING, AP_ACTIVITY_READY,
						AP_ACTIVITY_BUSY, AP_ACTIVITY_WAITING};
	(void)pool;
	for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
		if (strcmp(text, ap_activity_name(told[i])) == 0)
			return session_hook(agent->session, told[i], err);
	}
	return ap_err_set(err, -EINVAL, "'%.64s' is none of: starting ready busy waiting", text);
}

int ap_agent_count(struct ap_pool *pool, struct ap_agent *agent, const char *text,
		   struct ap_err *err)
{
	struct ap_usage now;
	(void)pool;
	int r = ap_usage_parse(text, &now, err);
	return r < 0 ? r : session_count(agent->session, &now, err);
}

bool ap_agent_transitions(struct ap_pool *pool, struct ap_agent *agent, struct ap_buf *out)
{
	struct transition transitions[AP_TRANSITIONS];
	pthread_mutex_lock(&pool->lock);
	bool there = !agent->gone;
	unsigned n = there ? agent->n_transitions : 0;
	memcpy(transitions, agent->transitions, sizeof transitions);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = n > AP_TRANSITIONS ? n - AP_TRANSITIONS : 0; i < n; i++) {
		const struct transition *at = &transitions[i % AP_TRANSITIONS];
		char when[32];
		ap_clock_rfc3339_us(at->at_ns, when, sizeof when);
		ap_buf_printf(out, "%s %s %s %s\n", when, ap_agent_state_name(at->from),
			      ap_agent_state_name(at->to), ap_reason_name(at->reason));
	}
	return there;
}

/* Fills in what the session knows, and the progress of a save. */
static void session_shown(const struct ap_agent *agent, const struct session_info *info,
			  struct ap_agent_info *ret)
{
	ret->output_size = info->output_size;
	ret->raw_size = info->raw_size;
	ret->calls_size = info->calls_size;
	ret->activity = info->activity;
	ret->pid = info->pid;
	memcpy(ret->why, info->why, sizeof ret->why);
	memcpy(ret->exit_how, info->exit_how, sizeof ret->exit_how);
	memcpy(ret->conversation, info->conversation, sizeof ret->conversation);
	ret->exit_time = info->exit_time;
	ret->until_s = info->until_s;
	uint64_t files = atomic_load(&agent->saved_files), bytes = atomic_load(&agent->saved_bytes);
	if (atomic_load(&agent->saving))
		snprintf(ret->why, sizeof ret->why, "saving: %" PRIu64 " files, %" PRIu64 " bytes",
			 files, bytes);
}

bool agent_info_locked(const struct ap_agent *agent, const struct session_info *info,
		       struct ap_agent_info *ret)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	*ret = (struct ap_agent_info){.number = agent->number, .worktree = agent->worktree_path};
	memcpy(ret->name, agent->name, sizeof ret->name);
	session_shown(agent, info, ret);
	if (agent->gone)
		return false;
	ret->state = ap_agent_state_shown(slot->state);
	ret->created_ns = slot->created_ns;
	ret->idle_since_ns = slot->state == AP_AGENT_IDLE ? slot->used_ns : 0;
	ret->n_requests = slot->n_requests;
	ret->n_recycles = slot->n_recycles;
	ret->generation = slot->generation;
	ret->n_prompts = agent->n_prompts_shown;
	spending_look_locked(agent, &ret->used, &ret->used_ever);
	if (slot->state != AP_AGENT_ACTIVE && slot->state != AP_AGENT_QUARANTINED)
		return true;
	memcpy(ret->label, slot->label.text, sizeof ret->label);
	memcpy(ret->base, agent->base, sizeof ret->base);
	snprintf(ret->branch, sizeof ret->branch, WORKTREE_BRANCH_PREFIX "%s", ret->label);
	ret->owner_uid = slot->uid;
	ret->owner_pid = slot->pid;
	ret->token = slot->token;
	ret->permission = permission_locked(agent);
	ret->budget = spending_budget_locked(agent);
	ret->granted_ns = slot->granted_ns;
	ret->expires_ns = slot->token && slot->ttl_ns > 0 ? slot->deadline_ns : 0;
	return true;
}

bool ap_agent_look(struct ap_pool *pool, struct ap_agent *agent, struct ap_agent_info *ret)
{
	struct session_info info;
	pthread_mutex_lock(&pool->lock);
	session_info(agent->session, &info);
	bool there = agent_info_locked(agent, &info, ret);
	pthread_mutex_unlock(&pool->lock);
	return there;
}

void ap_agent_exit_status(const struct ap_agent_info *agent, struct ap_buf *out)
{
	char when[32];
	time_t at = (time_t)agent->exit_time;
	struct tm utc;
	ap_buf_adds(out, agent->exit_how);
	if (agent->exit_how[0] && at > 0 && gmtime_r(&at, &utc) &&
	    strftime(when, sizeof when, " %Y-%m-%dT%H:%M:%SZ", &utc) > 0)
		ap_buf_adds(out, when);
}
