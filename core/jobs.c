/* What workers do for the pool: the machine's effects carried out, prompts typed, texts made. A job
 * ends by reporting its outcome; it decides nothing. Each effect rolls back what it made when it
 * fails, so that its failure leaves nothing behind. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "pool_internal.h"
#include "process.h"

/* Longest line that a terminal in canonical mode takes whole: N_TTY_BUF_SIZE less its end. */
#define CANONICAL_LINE 4095
/* Keys of one write: a line has 4096 bytes at most, and a blank between two. */
#define KEYS_MAX 2048
/* Fencing tokens are written down in advance, so that a grant need not wait for the disk. */
#define TOKEN_BLOCK 65536
#define NAME_BLOCK  32
/* Ports of agents: below those that the kernel gives out by itself, from 32768 on. */
#define PORT_FIRST 20000
#define PORTS	   12000

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

/* The option's text as it is now, owned by the caller. */
static char *config_text(struct ap_pool *pool, enum ap_option option)
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

/* --- programs --- */

/* What an agent's programs find in their environment. */
struct agent_env {
	struct ap_buf dir, name, worktree, port;
	const char *words[5];
};

static void agent_env_fini(struct agent_env *env)
{
	ap_buf_fini(&env->dir);
	ap_buf_fini(&env->name);
	ap_buf_fini(&env->worktree);
	ap_buf_fini(&env->port);
}

static int agent_env_init(struct agent_env *env, const struct ap_agent *agent, struct ap_err *err)
{
	ap_buf_printf(&env->dir, "AGENTPOOL_DIR=%s/agents/%s", agent->pool->mountpoint,
		      agent->name);
	ap_buf_printf(&env->name, "AGENTPOOL_NAME=%s", agent->name);
	ap_buf_printf(&env->worktree, "AGENTPOOL_WORKTREE=%s", agent->worktree.path);
	ap_buf_printf(&env->port, "AGENTPOOL_PORT=%u", agent->port);
	const char *words[] = {ap_buf_text(&env->dir), ap_buf_text(&env->name),
			       ap_buf_text(&env->worktree), ap_buf_text(&env->port), NULL};
	memcpy(env->words, words, sizeof words);
	if (env->dir.failed || env->name.failed || env->worktree.failed || env->port.failed)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	return 0;
}

/* The last line that a file has from an offset on. */
static void last_line(int fd, off_t from, char *ret, size_t size)
{
	off_t end = lseek(fd, 0, SEEK_END);
	off_t at = end - (off_t)size + 1 > from ? end - (off_t)size + 1 : from;
	ssize_t n = pread(fd, ret, size - 1, at);
	while (n > 0 && (ret[n - 1] == '\n' || ret[n - 1] == '\r'))
		n--;
	ret[n > 0 ? n : 0] = '\0';
	char *newline = strrchr(ret, '\n');
	if (newline)
		memmove(ret, newline + 1, strlen(newline));
}

/* Runs the command of an option in the agent's worktree, as its programs are run, what it prints
 * into the agent's output. Whatever it leaves in its process group ends with it. */
static int run_command(struct ap_agent *agent, enum ap_option option, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_FREE char *command = config_text(pool, option);
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	struct agent_env env __attribute__((cleanup(agent_env_fini))) = {.words = {NULL}};
	if (!command)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	if (!*command)
		return 0;
	agent_raw_path(agent, &raw);
	AP_CLEANUP_CLOSE int log = open(ap_buf_text(&raw), O_RDWR | O_APPEND | O_CLOEXEC);
	if (log < 0)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&raw));
	int r = agent_env_init(&env, agent, err);
	if (r < 0)
		return r;
	off_t from = lseek(log, 0, SEEK_END);
	r = process_run(
		&(struct process_run){
			.argv = (const char *const[]){"/bin/sh", "-c", command, NULL},
			.env = env.words,
			.dir = agent->worktree.path,
			.limit_ns = ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT),
			.log_fd = log,
			.kill_group = true,
		},
		err);
	if (r > 0) {
		char line[256];
		last_line(log, from, line, sizeof line);
		ap_err_set(err, -EIO, "exit code %d%s%.200s", r, *line ? ": " : "", line);
		r = -EIO;
	}
	if (r < 0)
		ap_err_wrap(err, r, "%s", ap_options[option].name);
	return r;
}

/* Its failure does not keep the worktree: it is said where what it printed is. */
static void run_teardown(struct ap_agent *agent)
{
	struct ap_err err = {""};
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	if (agent->n_starts == 0 || run_command(agent, AP_OPT_TEARDOWN, &err) == 0)
		return;
	agent_raw_path(agent, &raw);
	AP_CLEANUP_CLOSE int log = open(ap_buf_text(&raw), O_WRONLY | O_APPEND | O_CLOEXEC);
	if (log >= 0) /* fails on a full disk */
		(void)dprintf(log, "agentpoolfs: %s\n", err.text);
}

enum start_kind { START_FIRST, START_CLEAN, START_AGAIN };

/* Starts the program: in a new terminal, in the same one with an output of its own, or just again.
 */
static int start_program(struct ap_agent *agent, enum start_kind kind, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	const struct backend_ops *ops = pool->backend->ops;
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	struct agent_env env __attribute__((cleanup(agent_env_fini))) = {.words = {NULL}};
	int r = kind == START_AGAIN ? 0 : agent_output_begin(agent, err);
	if (r == 0 && kind != START_AGAIN) /* the worktree is new */
		r = run_command(agent, AP_OPT_SETUP, err);
	if (r == 0)
		r = agent_env_init(&env, agent, err);
	if (r < 0)
		return r;
	agent_raw_path(agent, &raw);
	struct backend_spawn spawn = {
		.name = agent->name,
		.dir = agent->worktree.path,
		.argv = pool->argv,
		.env = env.words,
		.record_dir = agent->dir,
		.output_file = ap_buf_text(&raw),
	};
	agent_starts(agent);
	r = kind == START_FIRST ? ops->spawn(pool->backend, &spawn, &agent->terminal, err)
				: ops->respawn(pool->backend, &spawn, &agent->terminal, err);
	if (r < 0)
		return ap_err_wrap(err, r, "starting %s", agent->name);
	return agent_started(agent, err);
}

/* A port for the agent's own use: one that nobody listens on now, and no other agent of the pool
 * has. Pools begin at places of their own, as far as chance has it. */
static void choose_port(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	unsigned first = (unsigned)(ap_hash(pool->state_dir) % PORTS),
		 n_slots = pool->machine.n_slots;
	for (unsigned tries = 0; tries < PORTS / n_slots; tries++) {
		unsigned port = PORT_FIRST + (first + tries * n_slots + agent->slot) % PORTS;
		struct sockaddr_in address = {.sin_family = AF_INET,
					      .sin_port = htons((uint16_t)port),
					      .sin_addr = {htonl(INADDR_LOOPBACK)}};
		AP_CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool free_now =
			fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
		bool taken = false;
		pthread_mutex_lock(&pool->lock);
		for (unsigned i = 0; i < n_slots; i++)
			taken = taken || (pool->agents[i] && pool->agents[i]->port == port);
		if (free_now && !taken)
			agent->port = port;
		pthread_mutex_unlock(&pool->lock);
		if (agent->port)
			return;
	}
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
		choose_port(agent);
		r = start_program(agent, START_FIRST, &err);
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

static void job_save(struct ap_agent *agent)
{
	struct ap_err err = {""};
	/* the program first: what it still writes belongs to the lease */
	int r = agent->effect.restart ? agent_end_program(agent, &err) : 0;
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
		run_teardown(agent);
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
	if (r == 0)
		r = restart ? start_program(agent, START_CLEAN, &err)
			    : run_command(agent, AP_OPT_SETUP, &err);
	if (r < 0)
		pool_note_spawn_error(pool, &err);
	outcome(agent, r);
	tidy_soon(pool);
}

static void job_drain(struct ap_agent *agent)
{
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
		run_teardown(agent);
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

static void agent_submit(struct ap_agent *agent, struct worker_job *job,
			 void (*run)(struct worker_job *))
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

/* A job of its own memory: something asked of one agent, once. */
struct agent_job {
	struct worker_job job;
	struct ap_agent *agent;	    /* with a reference */
	struct ap_request *request; /* with a reference, or NULL */
	enum ap_agent_text what;
	int64_t offset;
	size_t size;
	char keys[];
};

static struct agent_job *agent_job_new(struct ap_agent *agent, struct ap_request *request,
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

static void agent_job_free(struct agent_job *job)
{
	ap_agent_unref(job->agent);
	free(job);
}

static void agent_job_in_lane(struct agent_job *job)
{
	agent_submit(job->agent, &job->job, job->job.run);
}

/* --- health and usage --- */

/* What its process tree uses now; the CPU's average is brought up to now by it. */
static int agent_usage(struct ap_agent *agent, struct process_usage *ret, double *ret_percent)
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

/* --- prompts and keys --- */

/* Line ends become newlines, and what could drive the terminal is left out: a prompt is text. */
static size_t clean_text(char *text, size_t len)
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '\r') {
			if (i + 1 < len && text[i + 1] == '\n')
				continue;
			c = '\n';
		}
		if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f))
			text[n++] = (char)c;
	}
	if (n > 0 && text[n - 1] == '\n')
		n--; /* the shell's own */
	return n;
}

static bool has_long_line(const char *text, size_t len)
{
	while (len > 0) {
		const char *newline = memchr(text, '\n', len);
		size_t line = newline ? (size_t)(newline - text) : len;
		if (line > CANONICAL_LINE)
			return true;
		if (!newline)
			break;
		len -= line + 1;
		text = newline + 1;
	}
	return false;
}

/* A program that draws its own input takes a moment to show a paste, and an Enter before that would
 * be part of it. Waits until the screen shows something new and stays, or long enough for one that
 * shows nothing. */
static void await_settled(struct ap_agent *agent, const struct ap_buf *before)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf last = {0};
	int64_t start = ap_clock_ns();
	for (;;) {
		struct ap_buf now = {0};
		poll(NULL, 0, 60);
		int r = pool->backend->ops->capture(pool->backend, &agent->terminal, &now, NULL);
		bool same = strcmp(ap_buf_text(&now), ap_buf_text(&last)) == 0;
		bool shown = strcmp(ap_buf_text(&now), ap_buf_text(before)) != 0;
		ap_buf_fini(&last);
		last = now;
		int64_t waited = ap_clock_ns() - start;
		if (r < 0 || (same && shown) || waited > (shown ? 4 : 1) * AP_SECOND)
			return;
	}
}

static int type_prompt(struct ap_agent *agent, char *text, size_t len, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	const struct backend_ops *ops = pool->backend->ops;
	static const char *const enter[] = {"Enter", NULL};
	AP_CLEANUP_BUF struct ap_buf file = {0};
	AP_CLEANUP_BUF struct ap_buf before = {0};
	len = clean_text(text, len);
	if (has_long_line(text, len) && ops->canonical(pool->backend, &agent->terminal))
		return ap_err_set(err, -EMSGSIZE,
				  "a line over %d bytes would be cut by the terminal of %s",
				  CANONICAL_LINE, agent->name);
	ap_buf_printf(&file, "%s/prompt", agent->dir);
	int r = 0;
	if (len > 0) {
		r = file_write(ap_buf_text(&file), text, len, err);
		if (r == 0 && !pool->is_shell)
			r = ops->capture(pool->backend, &agent->terminal, &before, err);
		if (r == 0)
			r = ops->paste(pool->backend, &agent->terminal, ap_buf_text(&file), err);
		unlink(ap_buf_text(&file));
		if (r == 0 && !pool->is_shell)
			await_settled(agent, &before);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&pool->lock);
	agent->entered_ns = ap_clock_ns();
	pthread_mutex_unlock(&pool->lock);
	return ops->keys(pool->backend, &agent->terminal, enter, err);
}

static struct prompt *first_prompt(struct ap_agent *agent)
{
	struct prompt *prompt = NULL;
	pthread_mutex_lock(&agent->pool->lock);
	if (!ap_list_empty(&agent->prompts)) {
		prompt = ap_container_of(agent->prompts.next, struct prompt, link);
		ap_list_remove(&prompt->link);
		agent->n_prompts_queued--;
		agent->prompt_bytes -= prompt->len;
	}
	pthread_mutex_unlock(&agent->pool->lock);
	return prompt;
}

static void job_prompt(struct worker_job *job)
{
	struct ap_agent *agent = ap_container_of(job, struct ap_agent, prompt_job);
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	struct prompt *prompt = first_prompt(agent); /* NULL: its lease has ended */
	if (prompt)
		type_prompt(agent, prompt->text, prompt->len, &err);
	free(prompt);
	pthread_mutex_lock(&pool->lock);
	agent->delivering = false;
	agent->prompt_error = err;
	agent->recheck_ns = ap_clock_ns();
	pthread_mutex_unlock(&pool->lock);
	maintenance_poke(pool);
}

void job_prompt_locked(struct ap_agent *agent)
{
	agent->delivering = true;
	agent_submit(agent, &agent->prompt_job, job_prompt);
}

static void job_keys(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_pool *pool = job->agent->pool;
	const char *keys[KEYS_MAX + 1];
	size_t n = 0;
	char *cursor = job->keys;
	while (n < KEYS_MAX && (keys[n] = ap_word_next(&cursor)))
		n++;
	keys[n] = NULL;
	if (n > 0)
		pool->backend->ops->keys(pool->backend, &job->agent->terminal, keys, NULL);
	agent_job_free(job);
}

static int running(struct ap_pool *pool, struct ap_agent *agent, bool even_ended,
		   struct ap_err *err)
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

static int same_lease(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		      struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	bool same = token == 0 || token == pool->machine.slots[agent->slot].token;
	pthread_mutex_unlock(&pool->lock);
	return pool_refused(same ? 0 : -ESTALE, err);
}

int ap_agent_keys(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *keys,
		  struct ap_err *err)
{
	int r = running(pool, agent, false, err);
	if (r == 0)
		r = same_lease(pool, agent, token, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, NULL, job_keys, keys);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "keys");
	agent_job_in_lane(job);
	return 0;
}

static void job_restart(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	int r = agent_end_program(agent, &err);
	if (r == 0)
		r = start_program(agent, START_AGAIN, &err);
	if (r < 0)
		agent_restart_failed(agent, &err);
	agent_job_free(job);
}

int ap_agent_restart(struct ap_pool *pool, struct ap_agent *agent, struct ap_err *err)
{
	int r = running(pool, agent, true, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, NULL, job_restart, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "restart");
	agent_restarts(agent);
	agent_job_in_lane(job);
	return 0;
}

/* --- texts --- */

static int diff_text(struct ap_agent *agent, bool stat, struct ap_buf *out, struct ap_err *err)
{
	static atomic_uint n_diffs;
	char base[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	pthread_mutex_lock(&agent->pool->lock);
	bool leased = agent->pool->machine.slots[agent->slot].state == AP_AGENT_ACTIVE;
	snprintf(base, sizeof base, "%s", leased ? agent->base : "HEAD");
	pthread_mutex_unlock(&agent->pool->lock);
	ap_buf_printf(&scratch, "%s/index-%u", agent->dir, atomic_fetch_add(&n_diffs, 1));
	return worktree_diff(&agent->worktree, base, stat, ap_buf_text(&scratch), out, err);
}

static int usage_text(struct ap_agent *agent, enum ap_agent_text what, struct ap_buf *out,
		      struct ap_err *err)
{
	struct process_usage usage;
	double percent;
	int r = agent_usage(agent, &usage, &percent);
	if (r == -ESRCH) { /* it has ended */
		usage = (struct process_usage){0};
		percent = 0;
	} else if (r < 0) {
		return ap_err_errno(err, r, "the processes of %s", agent->name);
	}
	if (what == AP_TEXT_CPU)
		ap_buf_printf(out, "%.1f\n", percent);
	else
		ap_buf_printf(out, "%" PRIu64 "\n",
			      what == AP_TEXT_MEMORY ? usage.memory : usage.n_processes);
	return 0;
}

static void job_text(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_pool *pool = agent->pool;
	struct ap_buf *out = &job->request->text;
	struct ap_err *err = &job->request->err;
	int r = -EINVAL;
	switch (job->what) {
	case AP_TEXT_SCREEN:
		r = pool->backend->ops->capture(pool->backend, &agent->terminal, out, err);
		break;
	case AP_TEXT_DIFF:
	case AP_TEXT_DIFFSTAT:
		r = diff_text(agent, job->what == AP_TEXT_DIFFSTAT, out, err);
		break;
	case AP_TEXT_HEAD:
		r = worktree_head(&agent->worktree, out, err);
		break;
	case AP_TEXT_MEMORY:
	case AP_TEXT_CPU:
	case AP_TEXT_TASKS:
		r = usage_text(agent, job->what, out, err);
		break;
	case AP_TEXT_WAIT:
		break;
	}
	if (r == 0 && out->failed)
		r = -ENOMEM;
	request_answer(job->request, r);
	agent_job_free(job);
}

static void job_output(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_buf *out = &job->request->text;
	int r = 0;
	pthread_mutex_lock(&job->agent->output_lock);
	AP_CLEANUP_CLOSE int fd = fcntl(job->agent->plain_fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&job->agent->output_lock);
	if (!ap_buf_reserve(out, job->size)) {
		r = -ENOMEM;
	} else if (fd >= 0) { /* nothing printed yet reads as empty */
		ssize_t n = pread(fd, out->data, job->size, job->offset);
		r = n < 0 ? -errno : 0;
		out->len = n < 0 ? 0 : (size_t)n;
	}
	request_answer(job->request, r);
	agent_job_free(job);
}

int ap_agent_output(struct ap_pool *pool, struct ap_agent *agent, int64_t offset, size_t size,
		    struct ap_request *request, struct ap_err *err)
{
	struct agent_job *job = agent_job_new(agent, request, job_output, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "output");
	job->offset = offset;
	job->size = size;
	worker_submit(pool->workers, &job->job);
	return 0;
}

static int wait_text(struct ap_pool *pool, struct ap_agent *agent, struct ap_request *request,
		     struct ap_err *err)
{
	bool parked = false;
	enum ap_activity activity;
	ap_request_ref(request);
	pthread_mutex_lock(&pool->lock);
	bool gone = agent->gone;
	activity = agent->activity;
	if (!gone && (activity == AP_ACTIVITY_BUSY || activity == AP_ACTIVITY_STARTING)) {
		ap_list_append(&agent->waits, &request->link);
		parked = true;
	}
	pthread_mutex_unlock(&pool->lock);
	if (parked)
		return 0;
	if (gone)
		ap_err_set(&request->err, -ENODEV, "%s is gone", agent->name);
	else
		ap_buf_printf(&request->text, "%s\n", ap_activity_name(activity));
	request_answer(request, gone ? -ENODEV : 0);
	return 0;
}

int ap_agent_text(struct ap_pool *pool, struct ap_agent *agent, enum ap_agent_text what,
		  struct ap_request *request, struct ap_err *err)
{
	if (what == AP_TEXT_WAIT)
		return wait_text(pool, agent, request, err);
	int r = running(pool, agent, true, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, request, job_text, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	job->what = what;
	worker_submit(pool->workers, &job->job);
	return 0;
}

/* --- the state store --- */

struct store_job {
	struct worker_job job;
	struct ap_pool *pool;
	struct ap_request *request; /* with a reference */
	bool load;
};

static void job_store(struct worker_job *worker_job)
{
	struct store_job *job = ap_container_of(worker_job, struct store_job, job);
	struct ap_err *err = &job->request->err;
	int r = job->load ? state_dir_load(job->pool, false, err) : state_dir_save(job->pool, err);
	request_answer(job->request, r);
	free(job);
}

static int store_submit(struct ap_pool *pool, bool load, struct ap_request *request,
			struct ap_err *err)
{
	struct store_job *job = calloc(1, sizeof *job);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "state store");
	job->job.run = job_store;
	job->pool = pool;
	job->load = load;
	job->request = request;
	ap_request_ref(request);
	worker_submit(pool->workers, &job->job);
	return 0;
}

int ap_pool_save(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return store_submit(pool, false, request, err);
}

int ap_pool_load(struct ap_pool *pool, struct ap_request *request, struct ap_err *err)
{
	return store_submit(pool, true, request, err);
}
