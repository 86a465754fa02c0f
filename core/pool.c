/* The shell round the machine: one lock, steps of the machine, effects handed to workers, answers
 * handed to who asked. Lives from the state directory's lock to the removal of what is in it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "cleanup.h"
#include "crash_point.h"
#include "pool_internal.h"

/* --- requests --- */

struct ap_request *ap_request_new(ap_request_done *done, void *data)
{
	struct ap_request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	atomic_init(&request->n_refs, 1);
	request->done = done;
	request->data = data;
	ap_list_init(&request->link);
	ap_list_init(&request->settles.link);
	ap_list_init(&request->machine.link);
	ap_list_init(&request->machine.label.link);
	return request;
}

void ap_request_ref(struct ap_request *request)
{
	atomic_fetch_add(&request->n_refs, 1);
}

void ap_request_free(struct ap_request *request)
{
	if (!request || atomic_fetch_sub(&request->n_refs, 1) != 1)
		return;
	ap_buf_fini(&request->text);
	free(request->why);
	free(request->base);
	ap_agent_unref(request->agent);
	free(request);
}

static void explain(struct ap_request *request, const struct ap_err *err)
{
	free(request->why);
	request->why = strdup(err->text); /* ENOMEM: the errno alone has to do */
}

static void request_finish(struct ap_request *request, int result, const struct ap_err *err)
{
	if (atomic_exchange(&request->answered, true))
		return;
	if (result < 0 && err)
		explain(request, err);
	request->done(request, result, request->data);
}

void request_answer(struct ap_request *request, int result, const struct ap_err *err)
{
	request_finish(request, result, err);
	ap_request_free(request);
}

void request_explain_locked(struct ap_request *request, const struct ap_err *err)
{
	explain(request, err);
}

const char *ap_request_why(const struct ap_request *request)
{
	return request->why ? request->why : "";
}

struct ap_buf *ap_request_text(struct ap_request *request)
{
	return &request->text;
}

struct ap_lease_key ap_request_lease(const struct ap_request *request)
{
	return (struct ap_lease_key){.agent = request->granted, .token = request->machine.token};
}

void ap_request_cancel(struct ap_pool *pool, struct ap_request *request)
{
	if (request->in_machine) {
		pool_step(pool, &(struct machine_event){.type = MACHINE_CANCEL,
							.request = &request->machine});
		return;
	}
	pthread_mutex_lock(&pool->lock);
	bool waits = !ap_list_empty(&request->link);
	ap_list_remove(&request->link);
	pthread_mutex_unlock(&pool->lock);
	if (request->agent)
		waits = session_unwait(request->agent->session, &request->settles);
	struct ap_err err;
	ap_err_set(&err, 0, "interrupted");
	if (waits)
		request_answer(request, -ECANCELED, &err);
	else /* a worker has it: it drops the pool's reference */
		request_finish(request, -ECANCELED, &err);
}

/* --- steps --- */

static const char *refusal(int error)
{
	switch (error) {
	case -EAGAIN:
		return "no agent is free";
	case -ETIMEDOUT:
		return "no agent became free in time";
	case -EEXIST:
		return "the label is leased, or asked for, already";
	case -ENOENT:
		return "there is no such lease or agent";
	case -ESRCH:
		return "the process of pid= has ended meanwhile";
	case -ESTALE:
		return "the lease has ended meanwhile";
	case -ESHUTDOWN:
		return "the pool is closed";
	case -ECANCELED:
		return "interrupted";
	case -EBUSY:
		return "the agent is on its way into or out of the pool";
	case -ENODEV:
		return "the agent is gone";
	case -EIO:
		return "the agents that were to serve it failed";
	case -EDQUOT:
		return "the agent has taken its requests_per_quota prompts of 24 hours";
	case -ERANGE:
		return "the size is not between min_pool_size and max_pool_size";
	}
	return strerror(-error);
}

/* Why the machine refuses it. Takes the lock. */
static void refusal_of(struct ap_pool *pool, int result, struct ap_err *ret)
{
	if (result != -EHOSTDOWN) {
		ap_err_set(ret, result, "%s", refusal(result));
		return;
	}
	pthread_mutex_lock(&pool->lock);
	ap_err_set(ret, result, "no agent can be made: %s (%" PRId64 " s ago)",
		   pool->spawn_error.text, (ap_clock_ns() - pool->spawn_error_ns) / AP_SECOND);
	pthread_mutex_unlock(&pool->lock);
}

/* Gives the lease's key and text to the acquirer, and has the holder's process watched. */
static void grant_locked(struct ap_pool *pool, struct ap_request *request)
{
	if (request->machine.result < 0 || request->machine.token == 0)
		return;
	struct ap_agent *agent = pool->agents[request->machine.slot];
	request->granted = agent->number;
	pool->noted[agent->slot].waited_ns = ap_clock_ns() - request->asked_ns;
	ap_buf_printf(&request->text, "%s %s\n", agent->name, request->machine.label.text);
	if (agent->holder_fd >= 0)
		(void)loop_watch_fd(pool->loop, &agent->holder_ends,
				    agent->holder_fd); /* ENOMEM: ttl is left */
}

/* Outcomes of effects for which there is no agent: no memory for one, or none to stop. */
struct unmade {
	unsigned n;
	struct machine_event events[AP_MAX_SPAWNING + 1]; /* and the stop of one that failed */
};

/* Has it written down that a lease ends: the next daemon has it end too. */
static void keep_ending_locked(struct ap_pool *pool, const struct machine_slot *slot)
{
	struct store_txn *txn = slot->token ? store_txn_new() : NULL;
	txn_lease_ends(txn, slot->token, ap_reason_name(slot->leaving));
	if (txn) /* else it is set aside, and it has been written down */
		store_submit(pool->store, txn, false, NULL, NULL);
}

/* Hands the effects of the step just made to workers. */
static void hand_out_locked(struct ap_pool *pool, struct unmade *unmade)
{
	for (unsigned i = 0; i < pool->effects.n; i++) {
		const struct machine_effect *effect = &pool->effects.at[i];
		struct ap_agent *agent = pool->agents[effect->slot];
		if (effect->type == EFFECT_SPAWN)
			agent = agent_new_locked(pool, effect->slot,
						 pool->view->slots[effect->slot].number);
		if (effect->type == EFFECT_SAVE) {
			const struct machine_slot *slot = &pool->view->slots[effect->slot];
			keep_ending_locked(pool, slot);
			if (slot->leaving == AP_REASON_TTL)
				pool->counters.n_expired++;
		}
		if (agent && effect->type == EFFECT_PROBE) {
			job_probe_locked(agent, effect->id);
		} else if (agent) {
			job_effect_locked(agent, effect);
		} else {
			assert(unmade->n < sizeof unmade->events / sizeof *unmade->events);
			unmade->events[unmade->n++] =
				(struct machine_event){.type = machine_outcome(effect->type),
						       .slot = effect->slot,
						       .effect = effect->id,
						       .result = -ENOMEM};
		}
	}
}

/* Has the agents and what is said of spawning follow the moves of the step just made. */
static void follow_moves_locked(struct ap_pool *pool, const struct machine_event *event,
				int64_t now)
{
	for (unsigned i = 0; i < pool->effects.n_moves; i++) {
		const struct machine_move *move = &pool->effects.moves[i];
		struct ap_agent *agent = pool->agents[move->slot];
		if (!agent || move->to == AP_AGENT_FREE)
			continue;
		session_fence(agent->session, pool->view->slots[move->slot].token);
		if (move->from == AP_AGENT_ACTIVE)
			agent_forget_holder_locked(agent);
		/* whoever gave up by himself has said why */
		bool told = event->slot == move->slot && event->result == -ETIMEDOUT;
		if (move->reason == AP_REASON_TIMEOUT && move->from != AP_AGENT_VALIDATING &&
		    !told) {
			ap_err_set(&pool->spawn_error, 0, "%s took longer than spawn_timeout",
				   agent->name);
			pool->spawn_error_ns = now;
		}
	}
}

/* Takes the answered requests of the step just made, in order. */
static void collect_locked(struct ap_pool *pool, int64_t now)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &pool->effects.answered) {
		struct machine_request *request = ap_container_of(at, struct machine_request, link);
		struct ap_request *asked = ap_container_of(request, struct ap_request, machine);
		ap_list_remove(at);
		grant_locked(pool, asked);
		observe_answer_locked(pool, asked, now);
		ap_list_append(&pool->answered, at);
	}
}

/* Whether there is nothing more to wait for at the end. */
static bool is_over_locked(const struct ap_pool *pool)
{
	const struct machine_view *m = pool->view;
	return machine_total(m) == 0 || (m->suspended && machine_at_rest(m));
}

int pool_step_locked(struct ap_pool *pool, const struct machine_event *event)
{
	struct unmade unmade = {.n = 0};
	int64_t now = ap_clock_ns();
	observe_time_locked(pool, now);
	struct step_before before = observe_before_locked(pool);
	int result = machine_step(pool->machine, event, now, &pool->effects);
	observe_event_locked(pool, event, result);
	struct machine_event next = *event;
	for (int r = result; r == 0;) {
		collect_locked(pool, now);
		hand_out_locked(pool, &unmade);
		follow_moves_locked(pool, &next, now);
		observe_step_locked(pool, &before, now);
		if (unmade.n == 0)
			break;
		next = unmade.events[--unmade.n];
		before = observe_before_locked(pool);
		r = machine_step(pool->machine, &next, now, &pool->effects);
	}
	observe_queue_locked(pool);
	if (result == 0)
		pool_changed(pool);
	loop_set(pool->loop, &pool->machine_due, pool->view->wake_ns);
	if (is_over_locked(pool))
		pthread_cond_broadcast(&pool->emptied);
	return result;
}

void pool_unlock(struct ap_pool *pool)
{
	struct ap_list answered;
	ap_list_init(&answered);
	ap_list_splice(&pool->answered, &answered);
	pthread_mutex_unlock(&pool->lock);
	while (!ap_list_empty(&answered)) {
		struct machine_request *request =
			ap_container_of(answered.next, struct machine_request, link);
		struct ap_request *asked = ap_container_of(request, struct ap_request, machine);
		struct ap_err err;
		bool told = request->result == 0 || asked->why; /* by who failed under it */
		ap_list_remove(&request->link);
		if (!told)
			refusal_of(pool, request->result, &err);
		request_answer(asked, request->result, told ? NULL : &err);
	}
}

int pool_step(struct ap_pool *pool, const struct machine_event *event)
{
	pthread_mutex_lock(&pool->lock);
	int r = pool_step_locked(pool, event);
	pool_unlock(pool);
	return r;
}

int pool_step_agent(struct ap_agent *agent, struct machine_event event)
{
	struct ap_pool *pool = agent->pool;
	event.slot = agent->slot;
	pthread_mutex_lock(&pool->lock);
	int r = agent->gone ? -ENODEV : pool_step_locked(pool, &event);
	pool_unlock(pool);
	return r;
}

void pool_changed(struct ap_pool *pool)
{
	atomic_fetch_add(&pool->n_changes, 1);
	if (atomic_load(&pool->n_watching) > 0)
		worker_once_ask(&pool->notify);
}

static void notify(struct worker_once *once)
{
	struct ap_pool *pool = ap_container_of(once, struct ap_pool, notify);
	if (pool->changed)
		pool->changed(pool->observer);
}

/* There are events to be read. */
static void on_news(void *data)
{
	struct ap_pool *pool = data;
	worker_once_ask(&pool->notify);
}

uint64_t ap_pool_changes(struct ap_pool *pool)
{
	return atomic_load(&pool->n_changes);
}

void ap_pool_watch(struct ap_pool *pool, bool watch)
{
	if (watch)
		atomic_fetch_add(&pool->n_watching, 1);
	else
		atomic_fetch_sub(&pool->n_watching, 1);
}

void pool_note_unsaved(struct ap_pool *pool, const struct ap_err *err, bool is_kept)
{
	pthread_mutex_lock(&pool->lock);
	if (err->text[0])
		pool->aside_error = *err;
	pool->n_aside += is_kept;
	pthread_mutex_unlock(&pool->lock);
}

void pool_note_spawn_error(struct ap_pool *pool, const struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	pool->spawn_error = *err;
	pool->spawn_error_ns = ap_clock_ns();
	pthread_mutex_unlock(&pool->lock);
}

int pool_refused(int r, struct ap_err *err)
{
	return r < 0 ? ap_err_set(err, r, "%s", refusal(r)) : r;
}

/* --- leases --- */

unsigned agent_number(const char *name)
{
	int64_t number;
	if (strncmp(name, "agent-", 6) != 0 || name[6] == '0' || name[6] == '+' || name[6] == '-' ||
	    ap_number_parse(name + 6, &number) < 0 || number <= 0 || number > UINT32_MAX)
		return 0;
	return (unsigned)number;
}

/* Its base, and behind that what it restores: many wait, and few restore. NULL on ENOMEM. */
static char *base_of(const struct ap_acquire *acquire, bool *ret_restore)
{
	struct ap_buf text = {0};
	ap_buf_add(&text, acquire->base, strlen(acquire->base) + 1);
	if (acquire->restore)
		ap_buf_add(&text, acquire->restore, strlen(acquire->restore) + 1);
	char *whole = text.failed ? NULL : malloc(text.len); /* a buffer has room to grow */
	if (whole)
		memcpy(whole, text.data, text.len);
	*ret_restore = whole && acquire->restore;
	ap_buf_fini(&text);
	return whole;
}

int ap_pool_acquire(struct ap_pool *pool, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err)
{
	struct machine_request *wanted = &request->machine;
	int64_t now = ap_clock_ns();
	memcpy(wanted->label.text, acquire->label, sizeof wanted->label.text);
	if (acquire->label[0] && !ap_label_valid(acquire->label))
		return ap_err_set(err, -EINVAL, "'%s' is no label", acquire->label);
	if (acquire->agent[0] && (wanted->agent = agent_number(acquire->agent)) == 0)
		return ap_err_set(err, -ENOENT, "there is no agent '%s'", acquire->agent);
	if (acquire->base[0] && !(request->base = base_of(acquire, &request->has_restore)))
		return ap_err_errno(err, -ENOMEM, "acquire");
	if (acquire->holder) {
		AP_CLEANUP_CLOSE int fd = pidfd_open(acquire->holder, 0);
		if (fd < 0)
			return ap_err_errno(err, -errno, "pid %d", (int)acquire->holder);
		request->holder = acquire->holder;
		request->holder_start = process_start_time(acquire->holder);
	}
	if (acquire->affinity[0])
		wanted->affinity = ap_hash(acquire->affinity);
	wanted->uid = acquire->uid;
	wanted->pid = acquire->holder ? acquire->holder : acquire->pid;
	wanted->by_handle = acquire->by_handle;
	request->asked_ns = now;
	request->in_machine = true;

	ap_request_ref(request);
	pthread_mutex_lock(&pool->lock);
	int64_t timeout = acquire->timeout_ns >= 0 ? acquire->timeout_ns
						   : pool->config.number[AP_OPT_ACQUIRE_TIMEOUT];
	wanted->once = timeout == 0;
	wanted->deadline_ns = wanted->once ? AP_FOREVER : ap_clock_after(now, timeout);
	wanted->ttl_ns =
		acquire->ttl_ns >= 0 ? acquire->ttl_ns : pool->config.number[AP_OPT_LEASE_TTL];
	int r = pool_step_locked(
		pool, &(struct machine_event){.type = MACHINE_ACQUIRE, .request = wanted});
	bool full = pool->view->n_waiting >= POOL_WAITERS_MAX;
	pool_unlock(pool);
	if (r < 0)
		ap_request_free(request);
	if (r == -EAGAIN)
		return full ? ap_err_set(err, r, "%d acquirers wait already", POOL_WAITERS_MAX)
			    : ap_err_set(err, r, "%d acquirers of yours wait already",
					 POOL_WAITERS_USER);
	return pool_refused(r, err);
}

/* The slot of a lease by its label, or by the name of its agent. */
static const struct machine_slot *lease_find_locked(struct ap_pool *pool, const char *word)
{
	const struct machine_slot *slot = machine_find_label(pool->view, word);
	if (!slot && agent_number(word))
		slot = machine_find_number(pool->view, agent_number(word));
	return slot && (slot->state == AP_AGENT_ACTIVE || slot->aside) ? slot : NULL;
}

bool ap_pool_is_owner(const struct ap_pool *pool, uid_t uid)
{
	return uid == 0 || uid == pool->owner || uid == pool->shown_owner;
}

static int may_end_locked(struct ap_pool *pool, const struct machine_slot *slot, uid_t uid,
			  struct ap_err *err)
{
	if (ap_pool_is_owner(pool, uid) || uid == slot->uid)
		return 0;
	return ap_err_set(err, -EPERM, "lease %s is not yours", slot->label.text);
}

/* Steps an event about a lease on behalf of `uid`; `ret_token`, of that lease, may be NULL. */
static int lease_step(struct ap_pool *pool, const char *word, uid_t uid, struct machine_event event,
		      uint64_t *ret_token, struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = lease_find_locked(pool, word);
	int r = slot ? may_end_locked(pool, slot, uid, err)
		     : ap_err_set(err, -ENOENT, "there is no lease '%s'", word);
	if (r == 0) {
		event.slot = machine_slot_index(pool->view, slot);
		if (ret_token)
			*ret_token = slot->token;
		r = pool_refused(pool_step_locked(pool, &event), err);
	}
	pool_unlock(pool);
	return r;
}

/* Answers a request whose change is written down, or is not. */
static void kept(void *data, int result, const struct ap_err *err)
{
	request_answer(data, result, err);
}

int ap_pool_release(struct ap_pool *pool, const char *label_or_agent, bool discard, uid_t uid,
		    struct ap_request *request, struct ap_err *err)
{
	if (request) {
		request->in_machine = true;
		ap_request_ref(request);
	}
	int r = lease_step(pool, label_or_agent, uid,
			   (struct machine_event){
				   .type = MACHINE_RELEASE,
				   .discard = discard,
				   .request = request ? &request->machine : NULL,
			   },
			   NULL, err);
	if (r < 0)
		ap_request_free(request);
	return r;
}

int ap_pool_begin_release(struct ap_pool *pool, const char *label, uid_t uid,
			  struct ap_request *request, struct ap_err *err)
{
	uint64_t token;
	int r = lease_step(pool, label, uid, (struct machine_event){.type = MACHINE_RELEASE},
			   &token, err);
	if (r < 0)
		return r;
	struct store_txn *txn = store_txn_new();
	ap_request_ref(request);
	txn_lease_ends(txn, token, ap_reason_name(AP_REASON_RELEASE));
	store_submit(pool->store, txn, true, kept, request);
	return 0;
}

int ap_pool_may_release(struct ap_pool *pool, const char *label_or_agent, uid_t uid,
			struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = lease_find_locked(pool, label_or_agent);
	int r = slot ? may_end_locked(pool, slot, uid, err) : 0;
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int ap_pool_renew(struct ap_pool *pool, const char *label, uid_t uid, struct ap_err *err)
{
	return lease_step(pool, label, uid, (struct machine_event){.type = MACHINE_RENEW}, NULL,
			  err);
}

void ap_pool_release_key(struct ap_pool *pool, struct ap_lease_key key)
{
	struct ap_agent *agent = ap_agent_get(pool, key.agent);
	if (agent) /* refused when it is another lease by now */
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = key.token,
							      .reason = AP_REASON_HANDLE});
	ap_agent_unref(agent);
}

/* --- the pool as a whole --- */

/* A setting that was made, until it is written down. */
struct setting {
	struct ap_request *request; /* with a reference */
	struct ap_pool *pool;
	enum ap_option option; /* AP_N_OPTIONS: the size */
	int target, old_target;
	uint8_t old_origin;
	unsigned serial; /* of the option's values */
	char *old_text;	 /* owned */
};

static void setting_free(struct setting *setting)
{
	free(setting->old_text);
	free(setting);
}

void pool_note_config_locked(struct ap_pool *pool, enum ap_option option)
{
	AP_CLEANUP_BUF struct ap_buf value = {0};
	ap_config_show(&pool->config, option, &value);
	events_note(pool->events, "config",
		    EVENT_FIELDS({"name", ap_options[option].name, 0},
				 {"value", ap_buf_text(&value), 0}));
}

void pool_set_target_locked(struct ap_pool *pool, int target)
{
	const struct machine_limits *limits = &pool->view->limits;
	if (target >= 0 && target < (int)limits->min_size)
		target = (int)limits->min_size;
	if (target > (int)limits->max_size)
		target = (int)limits->max_size;
	pool_step_locked(pool, &(struct machine_event){.type = MACHINE_SCALE, .target = target});
}

/* Makes it what it was, unless it has been set once more. */
static void setting_take_back(const struct setting *setting)
{
	struct ap_pool *pool = setting->pool;
	pthread_mutex_lock(&pool->lock);
	if (setting->option == AP_N_OPTIONS) {
		if (pool->view->target == setting->target)
			pool_set_target_locked(pool, setting->old_target);
	} else {
		if (pool->serials[setting->option] == setting->serial &&
		    ap_config_set(&pool->config, setting->option, setting->old_text, true, NULL) ==
			    0)
			pool->config.origin[setting->option] = setting->old_origin;
		pool_note_config_locked(pool, setting->option);
	}
	pool_obey_config_locked(pool);
	pool_unlock(pool);
}

static void setting_kept(void *data, int result, const struct ap_err *err)
{
	struct setting *setting = data;
	if (result < 0)
		setting_take_back(setting);
	kept(setting->request, result, err);
	setting_free(setting);
}

int ap_pool_scale(struct ap_pool *pool, int target, struct ap_request *request, struct ap_err *err)
{
	struct setting *setting = calloc(1, sizeof *setting);
	if (!setting)
		return ap_err_errno(err, -ENOMEM, "scale");
	*setting = (struct setting){
		.request = request, .pool = pool, .option = AP_N_OPTIONS, .target = target};
	pthread_mutex_lock(&pool->lock);
	setting->old_target = pool->view->target;
	int r = pool_refused(pool_step_locked(pool, &(struct machine_event){.type = MACHINE_SCALE,
									    .target = target}),
			     err);
	pool_unlock(pool);
	if (r < 0) {
		setting_free(setting);
		return r;
	}
	ap_request_ref(request);
	state_dir_keep_scale(pool, setting_kept, setting);
	return 0;
}

void ap_pool_maintain(struct ap_pool *pool)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_PASS});
}

void ap_pool_warm(struct ap_pool *pool)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_CONFIG}); /* any event reconciles */
}

void ap_pool_drain(struct ap_pool *pool)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_DRAIN});
}

void ap_pool_close(struct ap_pool *pool)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_CLOSE});
}

void ap_pool_reset_breaker(struct ap_pool *pool)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_RESET_BREAKER});
}

int ap_pool_open(struct ap_pool *pool, struct ap_err *err)
{
	return pool_refused(pool_step(pool, &(struct machine_event){.type = MACHINE_OPEN}), err);
}

/* Teardown, the files, setup, the program: each has the time limit of its own. */
#define SPAWN_STEPS 4

/* Whether a program goes on behind a lease: as it is, or made to forget by its own command. */
static bool keeps_program(const struct ap_pool *pool)
{
	const char *on_release = pool->config.text[AP_OPT_ON_RELEASE];
	if (strcmp(on_release, "keep") == 0)
		return true;
	return strcmp(on_release, "restart") != 0 && *profile_values(pool->profile)->clear;
}

static struct machine_limits limits_of(const struct ap_pool *pool)
{
	const struct ap_config *config = &pool->config;
	const int64_t *number = config->number;
	return (struct machine_limits){
		.min_size = (unsigned)number[AP_OPT_MIN_POOL_SIZE],
		.max_size = (unsigned)number[AP_OPT_MAX_POOL_SIZE],
		.max_spawning = (unsigned)number[AP_OPT_MAX_SPAWNING],
		.max_waiting = POOL_WAITERS_MAX,
		.max_waiting_of_user = POOL_WAITERS_USER,
		.owner = pool->owner,
		.max_prompts = (unsigned)number[AP_OPT_REQUESTS_PER_QUOTA],
		.policy = (enum scaling_policy_id)ap_config_choice(config, AP_OPT_SCALE_POLICY),
		.scaling =
			{
				.min_size = (unsigned)number[AP_OPT_MIN_POOL_SIZE],
				.up_at = (unsigned)number[AP_OPT_SCALE_UP_AT],
				.down_at = (unsigned)number[AP_OPT_SCALE_DOWN_AT],
				.min_idle = (unsigned)number[AP_OPT_MIN_IDLE],
				.max_idle = (unsigned)number[AP_OPT_MAX_IDLE],
			},
		.recycling =
			{
				.max_age_ns = number[AP_OPT_MAX_INSTANCE_AGE],
				.max_requests = (unsigned)number[AP_OPT_RECYCLE_THRESHOLD],
				.max_recycles = (unsigned)number[AP_OPT_MAX_RECYCLES_PER_ID],
				.max_memory = (uint64_t)number[AP_OPT_MAX_MEMORY_MB] << 20,
				.max_cpu = (unsigned)number[AP_OPT_MAX_CPU_PERCENT],
			},
		.scale_down_window_ns = number[AP_OPT_SCALE_DOWN_WINDOW],
		.idle_timeout_ns = number[AP_OPT_IDLE_TIMEOUT],
		.spawn_timeout_ns = SPAWN_STEPS * number[AP_OPT_SPAWN_TIMEOUT],
		.pass_ns = number[AP_OPT_MAINTENANCE_INTERVAL],
		.keep_program = keeps_program(pool),
	};
}

static void bound_sessions_locked(struct ap_pool *pool)
{
	atomic_store(&pool->sessions.max_prompt, pool->config.number[AP_OPT_MAX_PROMPT]);
	atomic_store(&pool->sessions.output_limit, pool->config.number[AP_OPT_OUTPUT_LIMIT]);
}

void pool_obey_config_locked(struct ap_pool *pool)
{
	uint64_t max_memory = pool->view->limits.recycling.max_memory;
	struct machine_limits limits = limits_of(pool);
	bound_sessions_locked(pool);
	pool_step_locked(pool, &(struct machine_event){.type = MACHINE_CONFIG, .limits = &limits});
	if (limits.recycling.max_memory != max_memory && pool->workers) /* else the start does it */
		worker_once_ask(&pool->bound);
}

/* The value that an option has, owned by the caller. NULL on ENOMEM. */
static char *option_text_locked(const struct ap_pool *pool, enum ap_option option)
{
	struct ap_buf text = {0};
	ap_config_show(&pool->config, option, &text);
	ap_buf_adds(&text, "");
	if (!text.failed)
		return text.data ? text.data : strdup("");
	ap_buf_fini(&text);
	return NULL;
}

int ap_pool_config_set(struct ap_pool *pool, enum ap_option option, const char *text,
		       struct ap_request *request, struct ap_err *err)
{
	struct setting *setting = calloc(1, sizeof *setting);
	if (!setting)
		return ap_err_errno(err, -ENOMEM, "%s", ap_options[option].name);
	*setting = (struct setting){.request = request, .pool = pool, .option = option};
	pthread_mutex_lock(&pool->lock);
	setting->old_origin = pool->config.origin[option];
	setting->old_text = option_text_locked(pool, option);
	int r = setting->old_text ? ap_config_set(&pool->config, option, text, false, err)
				  : ap_err_errno(err, -ENOMEM, "%s", ap_options[option].name);
	if (r == 0) {
		pool_obey_config_locked(pool);
		setting->serial = ++pool->serials[option];
		pool_note_config_locked(pool, option);
	}
	pool_unlock(pool);
	if (r < 0) {
		setting_free(setting);
		return r;
	}
	ap_request_ref(request);
	state_dir_keep_option(pool, option, setting_kept, setting);
	return 0;
}

int ap_pool_config_try(struct ap_pool *pool, enum ap_option option, const char *text,
		       struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = ap_config_try(&pool->config, option, text, err);
	pthread_mutex_unlock(&pool->lock);
	return r;
}

void ap_pool_config_show(struct ap_pool *pool, enum ap_option option, struct ap_buf *out)
{
	pthread_mutex_lock(&pool->lock);
	ap_config_show(&pool->config, option, out);
	pthread_mutex_unlock(&pool->lock);
}

int64_t ap_pool_config_number(struct ap_pool *pool, enum ap_option option)
{
	pthread_mutex_lock(&pool->lock);
	int64_t value = pool->config.number[option];
	pthread_mutex_unlock(&pool->lock);
	return value;
}

/* --- finding agents --- */

static int by_number(const void *a, const void *b)
{
	const unsigned *left = a, *right = b;
	return (*left > *right) - (*left < *right);
}

unsigned ap_pool_agents(struct ap_pool *pool, unsigned *ret_numbers, unsigned max)
{
	unsigned n = 0;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && n < max; i++) {
		if (pool->agents[i])
			ret_numbers[n++] = pool->agents[i]->number;
	}
	pthread_mutex_unlock(&pool->lock);
	qsort(ret_numbers, n, sizeof *ret_numbers, by_number);
	return n;
}

unsigned ap_pool_hard_cap(const struct ap_pool *pool)
{
	return pool->view->n_slots;
}

static struct ap_agent *agent_in_locked(struct ap_pool *pool, const struct machine_slot *slot)
{
	struct ap_agent *agent = slot ? pool->agents[slot - pool->view->slots] : NULL;
	if (agent)
		agent_ref(agent);
	return agent;
}

struct ap_agent *ap_agent_get(struct ap_pool *pool, unsigned number)
{
	pthread_mutex_lock(&pool->lock);
	struct ap_agent *agent = agent_in_locked(pool, machine_find_number(pool->view, number));
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

struct ap_agent *ap_agent_find(struct ap_pool *pool, const char *name)
{
	unsigned number = agent_number(name);
	return number ? ap_agent_get(pool, number) : NULL;
}

static struct ap_agent *lease_agent_locked(struct ap_pool *pool, const struct machine_slot *slot,
					   uint64_t *ret_token)
{
	if (!slot || !machine_slot_leased(slot))
		return NULL;
	*ret_token = slot->token;
	return agent_in_locked(pool, slot);
}

struct ap_agent *ap_agent_of_label(struct ap_pool *pool, const char *label, uint64_t *ret_token)
{
	pthread_mutex_lock(&pool->lock);
	struct ap_agent *agent =
		lease_agent_locked(pool, machine_find_label(pool->view, label), ret_token);
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

struct ap_agent *ap_agent_of_token(struct ap_pool *pool, uint64_t token)
{
	struct ap_agent *agent = NULL;
	uint64_t found;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && !agent; i++) {
		if (pool->view->slots[i].token == token)
			agent = lease_agent_locked(pool, &pool->view->slots[i], &found);
	}
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

int ap_agent_kill(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, struct ap_err *err)
{
	const struct machine_event event = {.type = MACHINE_KILL, .token = token};
	return pool_refused(pool_step_agent(agent, event), err);
}

int ap_agent_recycle(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err)
{
	const struct machine_event event = {.type = MACHINE_RECYCLE, .token = token};
	return pool_refused(pool_step_agent(agent, event), err);
}

/* --- its life --- */

static int choose_spawn_backend(struct ap_pool *pool, struct ap_err *err)
{
	const struct spawn_backend *backend;
	int r = spawn_backend_choose(&backend, pool->config.text[AP_OPT_SPAWN_BACKEND],
				     pool->state_dir, err);
	if (r < 0)
		return r;
	pool->templates = templates_new(&pool->repo, pool->state_dir, backend);
	return pool->templates ? 0 : ap_err_errno(err, -ENOMEM, "pool");
}

void pool_tell(struct ap_pool *pool, const char *sentence)
{
	if (pool->tell)
		pool->tell(pool->observer, sentence);
}

/* By the user's configuration directory: the XDG base directory specification. "": there is none.
 */
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

/* Passes a directory of profiles by that cannot be read, and says so. */
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

/* What is known of the program: by the option, by its name, or what holds for any. */
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
	if (shell && !activity_is_interactive(pool->argv)) { /* it runs a script */
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

/* What a new lease starts from, as far as the command line says it. */
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

/* What is known of it before threads and backend are there. */
static int fill_session_host(struct ap_pool *pool, struct ap_err *err)
{
	struct session_host *host = &pool->sessions;
	if (asprintf(&pool->worktrees, "%s/" POOL_WORKTREES, pool->state_dir) < 0) {
		pool->worktrees = NULL;
		return ap_err_errno(err, -ENOMEM, "pool");
	}
	host->profile = pool->profile;
	host->argv = pool->argv;
	host->repo = pool->repo.main_path;
	host->worktrees = pool->worktrees;
	host->mountpoint = pool->mountpoint;
	bound_sessions_locked(pool); /* nobody else has it yet */
	return 0;
}

int ap_pool_new(struct ap_pool **ret, struct ap_pool_options *options, struct ap_err *err)
{
	int r = ap_config_check(&options->config, err);
	if (r < 0)
		return r;
	struct ap_pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return ap_err_errno(err, -ENOMEM, "pool");
	pool->lock_fd = pool->helpers_fd = -1;
	pool->kept = true; /* until it is ended in order, what is there is left alone */
	pthread_mutex_init(&pool->lock, NULL);
	pthread_mutex_init(&pool->sessions.seeding, NULL);
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
	int64_t shown = pool->config.number[AP_OPT_UID];
	pool->shown_owner = shown >= 0 ? (uid_t)shown : pool->owner;
	pool->started_ns = ap_clock_ns();
	pool->mountpoint = strdup(options->mountpoint);
	pool->shim = strdup(options->shim);
	unsigned n_slots = (unsigned)pool->config.number[AP_OPT_HARD_CAP];
	pool->agents = calloc(n_slots, sizeof(struct ap_agent *));
	pool->noted = calloc(n_slots, sizeof *pool->noted);
	if (!pool->mountpoint || !pool->shim || !pool->agents || !pool->noted)
		r = ap_err_errno(err, -ENOMEM, "pool");
	if (r == 0)
		r = repo_open(&pool->repo, options->repo,
			      ap_config_choice(&pool->config, AP_OPT_ALLOW_FOREIGN_REPO),
			      strcmp(pool->config.text[AP_OPT_GIT], "program") == 0, err);
	if (r == 0 && strcmp(pool->config.text[AP_OPT_GIT], "library") == 0 &&
	    strcmp(repo_git_kind(&pool->repo), "libgit2") != 0)
		r = ap_err_set(err, -EINVAL, "git=library: libgit2 cannot open %s",
			       pool->repo.path);
	if (r == 0)
		r = state_dir_choose(pool, err);
	if (r == 0)
		r = load_profile(pool, options->profiles, err);
	if (r == 0)
		r = fill_session_host(pool, err);
	if (r == 0)
		r = check_base(pool, err);
	if (r == 0)
		r = program_check(pool, err);
	if (r < 0) {
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
		if (strchr("\\*?[ ", *at)) /* patterns have a meaning for these */
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

/* It begins nothing before what a daemon before this one has left is known: MACHINE_RESUME. */
static int make_machine(struct ap_pool *pool, struct ap_err *err)
{
	struct machine_limits limits = limits_of(pool);
	unsigned n_slots = (unsigned)pool->config.number[AP_OPT_HARD_CAP];
	pool->machine = machine_new(n_slots, &limits, (uint32_t)pool->started_ns, pool->started_ns);
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

void pool_restore(struct ap_pool *pool, const struct machine_restored *restored)
{
	pool_step(pool, &(struct machine_event){.type = MACHINE_RESTORE, .restored = restored});
}

int ap_pool_begin(struct ap_pool *pool, struct ap_err *err)
{
	int r = state_dir_open(pool, err);
	if (r == 0)
		r = open_events(pool, err);
	if (r == 0)
		r = choose_spawn_backend(pool, err);
	if (r == 0)
		r = watch_init(pool, err);
	if (r == 0)
		r = make_machine(pool, err);
	if (r == 0) {
		state_dir_load_counters(pool);
		r = keeping_open(pool, err);
	}
	if (r == 0)
		r = ap_config_copy(&pool->mounted, &pool->config);
	if (r == 0)
		(void)state_dir_load(pool, true, NULL); /* unfit for the command line: left out */
	return r;
}

/* A server of terminals that a daemon before has left may be one that does not answer any more. */
static int configure_backend(struct ap_pool *pool, struct ap_err *err)
{
	const struct backend_ops *ops = pool->backend->ops;
	int r = backend_configure(pool->backend, err);
	if (r < 0 && ops->revive)
		r = pool_revive_backend(pool, err);
	pthread_mutex_lock(&pool->lock);
	pool->reviving = false; /* a worker does it from now on; perhaps it has gone meanwhile */
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
		r = backend_new(&pool->backend, pool->state_dir, pool->shim, err);
	if (r == 0 && (!(pool->workers = worker_pool_new(POOL_N_WORKERS)) ||
		       !(pool->looking = worker_pool_new(3))))
		r = ap_err_errno(err, -EAGAIN, "worker threads");
	pool->sessions.loop = pool->loop;
	pool->sessions.workers = pool->workers;
	pool->sessions.backend = pool->backend;
	if (r == 0) {
		jobs_init(pool);
		worker_once_init(&pool->notify, pool->looking, notify, NULL);
		r = events_start(pool->events, on_news, pool);
		if (r < 0)
			ap_err_errno(err, r, "thread of the events");
	}
	if (r == 0)
		pool->backend->ops->bound(pool->backend, pool->view->limits.recycling.max_memory);
	pool->reviving =
		true; /* until it is configured: two who revive it would be in each other's way */
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

/* Who waits for what an agent does is not served by the next daemon. */
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

/* Tells the programs all at once to end that are to: the effects of the machine, which come by them
 * one after the other, then find them ended. Whose leases end stands in the store by now, so that
 * the next daemon goes on with that if this one dies. */
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
	(void)store_commit(pool->store, store_txn_new(), true, NULL); /* behind what it has noted */
	tell_all_to_end(pool);
	crash_point("end-told");
	pthread_mutex_lock(&pool->lock);
	unsigned n = machine_total(pool->view);
	pthread_mutex_unlock(&pool->lock);
	worker_pool_grow(pool->workers, n < POOL_N_ENDERS ? n : POOL_N_ENDERS);
}

unsigned ap_pool_stop(struct ap_pool *pool, struct ap_err *err)
{
	state_dir_leave(pool);
	pool->kept = ap_config_choice(&pool->config, AP_OPT_PERSIST) != 0;
	if (pool->kept) {
		pool_step(pool, &(struct machine_event){.type = MACHINE_SUSPEND});
		pool_step(pool, &(struct machine_event){.type = MACHINE_CLOSE});
	} else {
		end_all(pool);
	}
	pthread_mutex_lock(&pool->lock);
	while (!is_over_locked(pool)) /* every effect has a time limit of its own */
		pthread_cond_wait(&pool->emptied, &pool->lock);
	*err = pool->aside_error;
	unsigned n_aside = pool->n_aside;
	pthread_mutex_unlock(&pool->lock);
	if (pool->kept)
		answer_all_waits(pool);
	else
		(void)state_dir_save_next_agent(pool, NULL); /* some names are left out then */
	events_end(pool->events);
	return n_aside;
}

/* Agents that are left for the next daemon; after a start that failed too. */
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
	worker_pool_end(pool->workers); /* what runs may need the other two */
	if (pool->events)
		events_end(pool->events); /* which has the notifier asked */
	worker_pool_end(pool->looking);
	loop_stop(pool->loop);
	worker_pool_free(pool->workers);
	worker_pool_free(pool->looking);
	leave_agents(pool);
	if (pool->templates && !pool->kept) /* the backend comes to its end meanwhile */
		templates_end(pool->templates);
	if (pool->backend)
		pool->backend->ops->free(pool->backend, pool->kept);
	loop_free(pool->loop);
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
	free(pool->worktrees);
	free(pool->mountpoint);
	free(pool->shim);
	free(pool);
}
