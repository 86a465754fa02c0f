/* Changes to a running pool: options, the manual size, open and close, commands such as drain; and
 * saving settings to the state store and loading them from it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jobs_internal.h"

/* A setting that is in force, until the store has recorded it. */
struct setting {
	struct ap_request *request; /* with a reference */
	struct ap_pool *pool;
	enum ap_option option; /* AP_N_OPTIONS: the size */
	int target, old_target;
	uint8_t old_origin;
	unsigned serial; /* pool->serials[option] when it was set */
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

/* Restores the old value of a setting that the store could not record, unless somebody has set it
 * again. */
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
	request_answer(setting->request, result, err);
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
	pool_step(pool, &(struct machine_event){.type = MACHINE_CONFIG}); /* only to reconcile */
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

/* Teardown, the files, setup, the program: each step has its own time limit. */
#define SPAWN_STEPS 4

/* Whether a program keeps running when its lease ends: as it is, or after its clear command. */
static bool keeps_program(const struct ap_pool *pool)
{
	const char *on_release = pool->config.text[AP_OPT_ON_RELEASE];
	if (strcmp(on_release, "keep") == 0)
		return true;
	return strcmp(on_release, "restart") != 0 && *profile_values(pool->profile)->clear;
}

struct machine_limits pool_limits(struct ap_pool *pool)
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
		.spent = spending_is_over_locked(pool),
	};
}

void pool_bound_sessions_locked(struct ap_pool *pool)
{
	atomic_store(&pool->sessions.max_prompt, pool->config.number[AP_OPT_MAX_PROMPT]);
	atomic_store(&pool->sessions.output_limit, pool->config.number[AP_OPT_OUTPUT_LIMIT]);
	int64_t size = pool->config.number[AP_OPT_TERMINAL_SIZE];
	atomic_store(&pool->sessions.terminal_size,
		     ((struct terminal_size){(uint16_t)(size >> 16), (uint16_t)size}));
}

/* A question that stands is judged anew where another policy is in force now. */
static void permit_leases_locked(struct ap_pool *pool)
{
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		struct ap_agent *agent = pool->agents[i];
		if (agent && agent_permit_locked(agent))
			session_judge_again(agent->session);
	}
}

void pool_obey_config_locked(struct ap_pool *pool)
{
	uint64_t max_memory = pool->view->limits.recycling.max_memory;
	struct machine_limits limits = pool_limits(pool);
	pool_bound_sessions_locked(pool);
	permit_leases_locked(pool);
	pool_step_locked(pool, &(struct machine_event){.type = MACHINE_CONFIG, .limits = &limits});
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		if (pool->agents[i])
			atomic_store(&pool->agents[i]->reported, true);
	}
	if (pool->workers) /* before: the start does */
		worker_once_ask(&pool->budgets);
	if (limits.recycling.max_memory != max_memory && pool->workers) /* before: the start does */
		worker_once_ask(&pool->bound);
}

/* The present value of an option, owned by the caller. NULL on ENOMEM. */
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

/* --- saving and loading --- */

static void job_save(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_err err = {""};
	int r = state_dir_save(job->pool, &err);
	request_answer(job->request, r, &err);
	pool_job_free(job);
}

static void job_load(struct worker_job *worker_job)
{
	struct pool_job *job = ap_container_of(worker_job, struct pool_job, job);
	struct ap_err err = {""};
	int r = state_dir_load(job->pool, false, &err);
	request_answer(job->request, r, &err);
	pool_job_free(job);
}

int ap_pool_save(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return pool_job_begin(pool, request, job_save, err);
}

int ap_pool_load(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return pool_job_begin(pool, request, job_load, err);
}
