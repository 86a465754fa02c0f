/* What workers do for the pool: the machine's effects carried out, agents looked after. A job ends
 * by reporting its outcome; it decides nothing. What a failed one has made is removed by the effect
 * that the machine has follow. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"
#include "process.h"

/* Fencing tokens are written down in advance, so that a grant need not wait for the disk. */
#define TOKEN_BLOCK 65536
#define NAME_BLOCK  32

/* What a program gets to end by its own command. */
#define QUIT_LIMIT_MS 2000

/* What a program gets to be ready again when it was made to forget. */
#define CLEAR_LIMIT (3 * AP_SECOND)

/* Reports how the agent's effect went. Refused when the machine does not wait for it any more. */
static void outcome(struct ap_agent *agent, int result)
{
	pool_step(agent->pool, &(struct machine_event){
				       .type = machine_outcome(agent->effect.type),
				       .slot = agent->effect.slot,
				       .effect = agent->effect.id,
				       .result = result,
			       });
}

/* Puts the sentence where the acquirer or releaser of the agent finds it. */
static void tell_request(struct ap_agent *agent, const struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	struct machine_request *request = agent->pool->machine.slots[agent->slot].request;
	if (request)
		ap_container_of(request, struct ap_request, machine)->err = *err;
	pthread_mutex_unlock(&agent->pool->lock);
}

char *config_text(struct ap_pool *pool, enum ap_option option)
{
	pthread_mutex_lock(&pool->lock);
	char *text = strdup(pool->config.text[option]);
	pthread_mutex_unlock(&pool->lock);
	return text;
}

static int resolve_base(struct ap_pool *pool, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_FREE char *base = config_text(pool, AP_OPT_BASE);
	if (!base)
		return ap_err_errno(err, -ENOMEM, "base");
	return repo_resolve(&pool->repo, base, ret, err);
}

/* --- behind the callers --- */

static void job_tidy(struct worker_job *job)
{
	struct ap_pool *pool = ap_container_of(job, struct ap_pool, tidy_job);
	atomic_store(&pool->tidying, false); /* what comes from now on is another job's */
	templates_prepare(pool->templates);
	templates_empty_trash(pool->templates);
}

/* Has what templates_discard() moved away removed, and the next worktree prepared, behind the
 * caller. */
static void tidy_soon(struct ap_pool *pool)
{
	if (atomic_exchange(&pool->tidying, true))
		return;
	pool->tidy_job = (struct worker_job){.run = job_tidy};
	worker_submit(pool->workers, &pool->tidy_job);
}

/* Where its worktree stands, for who asks whether it is to be brought forward. */
static void note_commit(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	memcpy(agent->commit, agent->worktree.commit, sizeof agent->commit);
	pthread_mutex_unlock(&agent->pool->lock);
}

/* A name is spent, says the store, before anything carries it; a block of them at a time, so that
 * few spawns wait for the disk. */
static int keep_name(const struct ap_agent *agent, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	if (agent->number < atomic_load(&pool->names_kept))
		return 0;
	int r = store_raise(pool->store, "next_agent", (int64_t)agent->number + NAME_BLOCK, err);
	if (r == 0) /* another worker may have gone further: at worst it is written again */
		atomic_store(&pool->names_kept, agent->number + NAME_BLOCK);
	return r;
}

static void job_spawn(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	char base[GIT_OID_MAX + 1];
	int r = keep_name(agent, &err);
	if (r == 0)
		r = resolve_base(pool, base, &err);
	if (r == 0 && mkdir(agent->dir, 0700) < 0)
		r = ap_err_errno(&err, -errno, "%s", agent->dir);
	if (r == 0)
		r = worktree_add(&agent->worktree, pool->templates, agent->name, base,
				 ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT), &err);
	if (r == 0) {
		note_commit(agent);
		launch_choose_port(agent);
		r = launch_program(agent, LAUNCH_FIRST, &err);
	}
	if (r < 0) /* what was made of it is removed by the stop that follows */
		pool_note_spawn_error(pool, &err);
	outcome(agent, r);
	tidy_soon(pool);
}

/* --- leases --- */

/* What the acquirer asked for; of one that has given up meanwhile, what the configuration says. */
static void wanted_lease(struct ap_agent *agent, struct worktree_lease *lease, char *ret_base,
			 size_t size)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = &pool->machine.slots[agent->slot];
	const char *base = pool->config.text[AP_OPT_BASE];
	if (slot->request) {
		const struct ap_request *request =
			ap_container_of(slot->request, struct ap_request, machine);
		if (request->base[0])
			base = request->base;
	}
	snprintf(ret_base, size, "%s", base);
	memcpy(lease->label, slot->label.text, sizeof lease->label);
	pthread_mutex_unlock(&pool->lock);
}

static int check_health(struct ap_agent *agent, struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	struct pollfd over = {.fd = agent->over_fd, .events = POLLIN};
	bool ended = agent->ended || (poll(&over, 1, 0) == 1 && over.revents);
	pthread_mutex_unlock(&agent->pool->lock);
	if (ended)
		return ap_err_set(err, -ECHILD, "the program of %s has ended", agent->name);
	if (!worktree_present(&agent->worktree))
		return ap_err_set(err, -ENOTDIR, "the worktree of %s has gone", agent->name);
	return 0;
}

/* Numbers that are spent are in the store before anyone sees them; tokens in blocks. */
static int keep_numbers(struct ap_agent *agent, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	uint64_t number, token;
	int r = 0;
	pthread_mutex_lock(&pool->lock);
	token = pool->machine.slots[agent->slot].token;
	pthread_mutex_unlock(&pool->lock);
	if (sscanf(agent->lease.label, "lease-%" SCNu64, &number) == 1)
		r = store_raise(pool->store, "next_lease", (int64_t)number + 1, err);
	if (r == 0 && token >= atomic_load(&pool->tokens_kept)) {
		uint64_t kept = token + TOKEN_BLOCK;
		r = store_raise(pool->store, "next_token", (int64_t)kept, err);
		if (r == 0) /* another worker may have gone further: at worst it is written again */
			atomic_store(&pool->tokens_kept, kept);
	}
	return r;
}

static void job_validate(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	char base[AP_OPTION_TEXT_MAX];
	wanted_lease(agent, &agent->lease, base, sizeof base);
	int r = keep_numbers(agent, &err);
	if (r == 0)
		r = check_health(agent, &err);
	if (r == 0)
		r = worktree_plan(&agent->worktree, base, &agent->lease, &err);
	if (r == 0) /* before the branch is there: a branch without a record would stay for ever */
		r = lease_record_write(agent, &err);
	if (r == 0) {
		r = worktree_start(&agent->worktree, &agent->lease, &err);
		agent->lease_open = r != -EBUSY;
	}
	if (!agent->lease_open)
		agent_remove_record(agent, "lease");
	note_commit(agent);
	if (r == 0) {
		pthread_mutex_lock(&pool->lock);
		memcpy(agent->base, agent->lease.base, sizeof agent->base);
		agent->n_prompts = 0;
		agent_forget_prompts_locked(agent); /* from before the lease */
		pthread_mutex_unlock(&pool->lock);
	} else {
		tell_request(agent, &err);
	}
	outcome(agent, r);
}

void lease_message(const char *label, const char *name, unsigned generation, struct ap_buf *ret)
{
	char when[32];
	ap_clock_rfc3339(ap_clock_ns(), when, sizeof when);
	ap_buf_printf(ret, "agentpool: work of lease %s\n\nAgent: %s, generation %u\nEnded: %s",
		      label, name, generation, when);
}

unsigned agent_generation(const struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	unsigned generation = agent->pool->machine.slots[agent->slot].generation;
	pthread_mutex_unlock(&agent->pool->lock);
	return generation;
}

static int save_lease(struct ap_agent *agent, struct ap_err *err)
{
	if (agent->effect.type == EFFECT_SAVE && agent->effect.discard)
		return worktree_discard(&agent->worktree, &agent->lease, err);
	AP_CLEANUP_BUF struct ap_buf message = {0};
	lease_message(agent->lease.label, agent->name, agent_generation(agent), &message);
	if (message.failed)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	return worktree_save(&agent->worktree, &agent->lease, ap_buf_text(&message), err);
}

static void note_aside(struct ap_agent *agent, const struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	agent->pool->aside_error = *err;
	pthread_mutex_unlock(&agent->pool->lock);
}

/* Whether the program is to forget the lease by its own command, instead of a start anew. */
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
	pthread_mutex_lock(&agent->pool->lock);
	bool ready = agent->activity == AP_ACTIVITY_READY && !agent->ended;
	pthread_mutex_unlock(&agent->pool->lock);
	return ready;
}

/* A pause is the lease's. */
static void go_on_if_paused(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	bool paused = agent->paused;
	struct backend_terminal running = agent->running;
	agent->paused = false;
	pthread_mutex_unlock(&pool->lock);
	if (paused)
		(void)pool->backend->ops->pause(pool->backend, &running, false);
}

static void job_save(struct ap_agent *agent)
{
	struct ap_err err = {""};
	/* the program first: what it still writes belongs to the lease. One that is at work takes
	 * no command. */
	bool ends = agent->effect.restart || (is_cleared(agent) && !is_ready(agent));
	int r = ends ? agent_end_program(agent, &err) : 0;
	if (!ends)
		go_on_if_paused(agent);
	if (r == 0)
		r = save_lease(agent, &err);
	if (r < 0) {
		ap_err_wrap(&err, r, "%s is set aside with its work in %s", agent->name,
			    agent->worktree_path);
		tell_request(agent, &err);
		note_aside(agent, &err);
	} else {
		agent->lease_open = false;
	}
	outcome(agent, r < 0 ? -EIO : 0);
}

static bool has_ended(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	bool ended = agent->ended;
	pthread_mutex_unlock(&agent->pool->lock);
	return ended;
}

/* The program goes on in the clean worktree. One that does not forget is to be started anew. */
static int go_on(struct ap_agent *agent, bool *ret_restart, struct ap_err *err)
{
	const char *clear = profile_values(agent->pool->profile)->clear;
	if (is_cleared(agent) &&
	    (agent_command(agent, clear, NULL) < 0 || !agent_await_ready(agent, CLEAR_LIMIT))) {
		*ret_restart = true;
		return agent_end_program(agent, err);
	}
	struct backend *backend = agent->pool->backend;
	backend->ops->forget(backend, &agent->terminal, NULL); /* a terminal that has gone forgot */
	output_forget(agent);
	return launch_setup(agent, err);
}

static void job_recycle(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	char base[GIT_OID_MAX + 1];
	bool restart = agent->effect.restart || has_ended(agent);
	int r = restart ? agent_end_program(agent, &err) : 0;
	if (r == 0 && agent->lease_open) /* it was granted too late for its acquirer */
		r = save_lease(agent, &err);
	agent->lease_open = agent->lease_open && r < 0;
	if (r == 0)
		r = resolve_base(pool, base, &err);
	if (r == 0) {
		launch_teardown(agent);
		r = worktree_clean(&agent->worktree, base, !restart,
				   ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT), &err);
	}
	note_commit(agent);
	if (r == 0) {
		agent_remove_record(agent, "lease");
		pthread_mutex_lock(&pool->lock);
		agent_forget_prompts_locked(agent);
		pthread_mutex_unlock(&pool->lock);
	}
	if (r == 0 && !restart)
		r = go_on(agent, &restart, &err);
	if (r == 0 && restart)
		r = launch_program(agent, LAUNCH_CLEAN, &err);
	if (r < 0)
		pool_note_spawn_error(pool, &err);
	outcome(agent, r);
	tidy_soon(pool);
}

/* A program that knows a command to end by has the time to. */
static void ask_to_end(struct ap_agent *agent)
{
	const char *quit = profile_values(agent->pool->profile)->quit;
	pthread_mutex_lock(&agent->pool->lock);
	agent->ending = true;
	AP_CLEANUP_CLOSE int over_fd =
		agent->over_fd >= 0 ? fcntl(agent->over_fd, F_DUPFD_CLOEXEC, 0) : -1;
	pthread_mutex_unlock(&agent->pool->lock);
	struct pollfd over = {.fd = over_fd, .events = POLLIN};
	if (over_fd >= 0 && agent_command(agent, quit, NULL) == 0)
		(void)poll(&over, 1, QUIT_LIMIT_MS); /* else it is made to */
}

static void job_drain(struct ap_agent *agent)
{
	if (*profile_values(agent->pool->profile)->quit && is_ready(agent))
		ask_to_end(agent);
	outcome(agent, agent_end_program(agent, NULL));
}

/* Ends what is left, however far its making or its lease had come. */
static void job_stop(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	bool keep = agent->effect.discard;
	int r = agent_end_program(agent, &err);
	if (r == 0 && !keep && agent->lease_open)
		r = save_lease(agent, &err);
	pool->backend->ops->remove(pool->backend, &agent->terminal, NULL);
	if (r == 0 && !keep && agent->worktree.path) {
		launch_teardown(agent);
		r = worktree_remove(&agent->worktree, &err);
	}
	if (r < 0)
		note_aside(agent, &err);
	if (r == 0 && !keep) { /* else the lease's record stays with the worktree */
		process_remove_tree(agent->dir, NULL);
	} else {
		worktree_leave(&agent->worktree);
		pthread_mutex_lock(&pool->lock);
		pool->n_aside++;
		pthread_mutex_unlock(&pool->lock);
	}
	agent_leave(agent);
	outcome(agent, 0);
	tidy_soon(pool);
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
	pthread_mutex_unlock(&agent->pool->lock);
	jobs[agent->effect.type](agent);
}

void agent_submit(struct ap_agent *agent, struct worker_job *job, void (*run)(struct worker_job *))
{
	*job = (struct worker_job){
		.run = run, .lane = &agent->lane, .lane_release = agent_lane_release};
	agent_ref(agent); /* the lane's, until lane_release */
	worker_submit(agent->pool->workers, job);
}

/* One that has not begun gives way: the machine does not wait for it any more. */
void job_effect_locked(struct ap_agent *agent, const struct machine_effect *effect)
{
	agent->next_effect = *effect;
	if (!agent->effect_queued)
		agent_submit(agent, &agent->effect_job, job_effect);
	agent->effect_queued = true;
}

/* --- jobs of their own memory --- */

struct agent_job *agent_job_new(struct ap_agent *agent, struct ap_request *request,
				void (*run)(struct worker_job *), const char *keys)
{
	struct agent_job *job = calloc(1, sizeof *job + strlen(keys) + 1);
	if (!job)
		return NULL;
	job->job.run = run;
	job->agent = agent;
	agent_ref(agent);
	job->request = request;
	if (request)
		ap_request_ref(request);
	strcpy(job->keys, keys);
	return job;
}

void agent_job_free(struct agent_job *job)
{
	ap_agent_unref(job->agent);
	free(job);
}

void agent_job_in_lane(struct agent_job *job)
{
	agent_submit(job->agent, &job->job, job->job.run);
}

/* --- health and usage --- */

int agent_running(struct ap_pool *pool, struct ap_agent *agent, bool even_ended, struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = 0;
	if (agent->gone)
		r = ap_err_set(err, -ENODEV, "%s is gone", agent->name);
	else if (!agent->started)
		r = ap_err_set(err, -EBUSY, "%s is being made", agent->name);
	else if (agent->ended && !even_ended)
		r = ap_err_set(err, -EIO, "the program of %s has ended (%s): restart it",
			       agent->name, agent->ended_how);
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int agent_usage(struct ap_agent *agent, struct process_usage *ret, double *ret_percent)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	struct backend_terminal running = agent->running;
	unsigned start = agent->start;
	pthread_mutex_unlock(&pool->lock);
	int r = pool->backend->ops->usage(pool->backend, &running, ret);
	pthread_mutex_lock(&pool->lock);
	if (r == 0 && agent->start == start)
		cpu_average_add(&agent->cpu, ret->cpu_ns, ap_clock_ns());
	*ret_percent = agent->cpu.percent;
	pthread_mutex_unlock(&pool->lock);
	return r;
}

static void job_forward(struct worker_job *worker_job);

/* Keeps templates and idle agents where new leases begin. */
static void follow_base(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	char base[GIT_OID_MAX + 1];
	if (resolve_base(pool, base, NULL) < 0) /* the next lease says so */
		return;
	pthread_mutex_lock(&pool->lock);
	bool behind = !agent->gone && strcmp(agent->commit, base) != 0 &&
		      pool->machine.slots[agent->slot].state == AP_AGENT_IDLE;
	pthread_mutex_unlock(&pool->lock);
	struct agent_job *job = behind ? agent_job_new(agent, NULL, job_forward, "") : NULL;
	if (job)
		agent_job_in_lane(job);
	(void)templates_follow(pool->templates, base,
			       ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT), NULL);
	tidy_soon(pool);
}

static void job_probe(struct worker_job *job)
{
	struct ap_agent *agent = ap_container_of(job, struct ap_agent, probe_job);
	struct process_usage usage = {0};
	double percent = 0;
	int r = check_health(agent, NULL);
	if (r == 0) /* a tree that cannot be looked at is no illness */
		(void)agent_usage(agent, &usage, &percent);
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
	if (under_way) /* it answers for this one too */
		return;
	agent->probe_job = (struct worker_job){.run = job_probe};
	agent_ref(agent); /* the job's; not in the lane: it is to see what is done there for long */
	worker_submit(agent->pool->workers, &agent->probe_job);
}

/* Brings an agent forward that serves nobody; who is granted it meanwhile waits in the lane. */
static void job_forward(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	char base[GIT_OID_MAX + 1];
	pthread_mutex_lock(&agent->pool->lock);
	enum ap_agent_state state = agent->pool->machine.slots[agent->slot].state;
	bool serves_nobody = !agent->gone && !agent->lease_open &&
			     (state == AP_AGENT_IDLE || state == AP_AGENT_VALIDATING);
	pthread_mutex_unlock(&agent->pool->lock);
	if (serves_nobody && resolve_base(agent->pool, base, NULL) == 0)
		(void)worktree_forward(&agent->worktree, base, NULL); /* a grant tries it again */
	note_commit(agent);
	agent_job_free(job);
}
