/* One agent: its program, what it prints, what it is doing, the prompts that wait for it. Decides
 * nothing of the pool. A field's lock stands at its declaration. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "pool_internal.h"

/* The backend asks, waits its grace and makes the processes end; it is given this long for it. */
#define END_LIMIT   (30 * AP_SECOND)
#define SWEEP_AFTER (4 * AP_SECOND)

/* A screen that changes all the time is looked at as often as this. */
#define LOOK_PAUSE (100 * AP_MS)

/* The keeper says who the program is a moment after it was started. */
#define PID_PAUSE    (10 * AP_MS)
#define PID_PAUSE_MS 1 /* where somebody waits for it */
#define PID_LIMIT    (5 * AP_SECOND)

/* What a keeper is waited for to say how the program ended; it ends first what that left behind. */
#define RECORD_MS 3000

static void review(struct ap_agent *agent);

/* --- its life --- */

/* Whether a descriptor that is watched for its end has seen it; it is watched no more then. It may
 * have been replaced since the source was called: it is asked again. */
static bool has_ended_locked(struct ap_agent *agent, struct loop_source *source, int fd)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	if (fd < 0 || poll(&end, 1, 0) != 1 || !end.revents)
		return false;
	(void)loop_watch_fd(agent->pool->loop, source, -1);
	return true;
}

static void on_program_ends(struct loop_source *source)
{
	struct ap_agent *agent = ap_container_of(source, struct ap_agent, program_ends);
	pthread_mutex_lock(&agent->pool->lock);
	unsigned start = agent->start;
	bool over = has_ended_locked(agent, source, agent->over_fd);
	pthread_mutex_unlock(&agent->pool->lock);
	if (over)
		agent_ended(agent, start);
}

static void on_holder_ends(struct loop_source *source)
{
	struct ap_agent *agent = ap_container_of(source, struct ap_agent, holder_ends);
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	uint64_t token = pool->view->slots[agent->slot].token;
	bool over = !agent->gone && has_ended_locked(agent, source, agent->holder_fd);
	pthread_mutex_unlock(&pool->lock);
	if (over) /* refused when the lease is ending already */
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = token,
							      .reason = AP_REASON_HOLDER});
}

static void on_output(struct loop_source *source)
{
	output_read(ap_container_of(source, struct ap_agent, output_grows));
}

static void on_review(struct loop_source *source)
{
	review(ap_container_of(source, struct ap_agent, review));
}

static bool add_sources(struct ap_agent *agent)
{
	struct loop *loop = agent->pool->loop;
	return loop_add(loop, &agent->program_ends, on_program_ends) == 0 &&
	       loop_add(loop, &agent->holder_ends, on_holder_ends) == 0 &&
	       loop_add(loop, &agent->output_grows, on_output) == 0 &&
	       loop_add(loop, &agent->review, on_review) == 0;
}

void agent_remove_sources(struct ap_agent *agent)
{
	struct loop *loop = agent->pool->loop;
	loop_remove(loop, &agent->program_ends);
	loop_remove(loop, &agent->holder_ends);
	loop_remove(loop, &agent->output_grows);
	loop_remove(loop, &agent->review);
}

void agent_review_at(struct ap_agent *agent, int64_t at_ns)
{
	loop_set(agent->pool->loop, &agent->review, at_ns);
}

void agent_review_now(struct ap_agent *agent)
{
	agent_review_at(agent, ap_clock_ns());
}

void agent_review_by(struct ap_agent *agent, int64_t at_ns)
{
	loop_advance(agent->pool->loop, &agent->review, at_ns);
}

struct ap_agent *agent_new_locked(struct ap_pool *pool, unsigned slot, unsigned number)
{
	struct ap_agent *agent = calloc(1, sizeof *agent);
	if (!agent)
		return NULL;
	atomic_init(&agent->n_refs, 1); /* the table's */
	agent->pool = pool;
	agent->slot = slot;
	agent->number = number;
	snprintf(agent->name, sizeof agent->name, "agent-%u", number);
	agent->dir = state_dir_path(pool, POOL_AGENTS, agent->name);
	agent->worktree_path = state_dir_path(pool, POOL_WORKTREES, agent->name);
	agent->over_fd = agent->program_fd = agent->holder_fd = -1;
	agent->started_ns = ap_clock_ns();
	snprintf(agent->why, sizeof agent->why, "start: being made");
	ap_list_init(&agent->prompts);
	ap_list_init(&agent->waits);
	worker_lane_init(&agent->lane);
	worker_lane_init(&agent->keys_lane);
	pthread_mutex_init(&agent->typing, NULL);
	output_init(agent);
	pause_init(agent);
	if (!agent->dir || !agent->worktree_path || !add_sources(agent)) {
		agent_remove_sources(agent);
		ap_agent_unref(agent);
		return NULL;
	}
	pool->agents[slot] = agent;
	return agent;
}

void agent_ref(struct ap_agent *agent)
{
	atomic_fetch_add(&agent->n_refs, 1);
}

/* The pool may be gone by then. */
static void agent_free(struct ap_agent *agent)
{
	const int fds[] = {agent->over_fd, agent->program_fd, agent->holder_fd};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	while (!ap_list_empty(&agent->prompts)) {
		struct prompt *prompt = ap_container_of(agent->prompts.next, struct prompt, link);
		ap_list_remove(&prompt->link);
		free(prompt);
	}
	worktree_fini(&agent->worktree);
	output_fini(agent);
	pthread_mutex_destroy(&agent->typing);
	free(agent->dir);
	free(agent->worktree_path);
	free(agent->shown);
	free(agent);
}

void ap_agent_unref(struct ap_agent *agent)
{
	if (agent && atomic_fetch_sub(&agent->n_refs, 1) == 1)
		agent_free(agent);
}

void agent_lane_release(struct worker_lane *lane)
{
	ap_agent_unref(ap_container_of(lane, struct ap_agent, lane));
}

/* Takes the waits that the conclusion answers out of the agent; all of them if `all`. */
static void take_waits_locked(struct ap_agent *agent, bool all, struct ap_list *ret)
{
	ap_list_init(ret);
	bool settled = agent->activity == AP_ACTIVITY_READY ||
		       agent->activity == AP_ACTIVITY_WAITING ||
		       agent->activity == AP_ACTIVITY_EXITED;
	if (settled || all)
		ap_list_splice(&agent->waits, ret);
}

/* Answers with an error and its sentence, or with the activity. */
static void answer_waits(struct ap_pool *pool, struct ap_list *waits, int result,
			 const struct ap_err *err, enum ap_activity activity)
{
	for (;;) { /* a cancel may take one out under us */
		struct ap_request *request = NULL;
		pthread_mutex_lock(&pool->lock);
		if (!ap_list_empty(waits)) {
			request = ap_container_of(waits->next, struct ap_request, link);
			ap_list_remove(&request->link);
		}
		pthread_mutex_unlock(&pool->lock);
		if (!request)
			return;
		job_settled(request, result, err, activity);
	}
}

void agent_refuse_waits(struct ap_agent *agent, int error, const struct ap_err *err)
{
	struct ap_list waits;
	pthread_mutex_lock(&agent->pool->lock);
	take_waits_locked(agent, true, &waits);
	pthread_mutex_unlock(&agent->pool->lock);
	answer_waits(agent->pool, &waits, error, err, AP_ACTIVITY_EXITED);
}

void agent_leave(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct ap_list waits;
	pthread_mutex_lock(&pool->lock);
	agent->gone = true;
	pool->agents[agent->slot] = NULL;
	take_waits_locked(agent, true, &waits);
	pthread_mutex_unlock(&pool->lock);
	struct ap_err err;
	answer_waits(pool, &waits, ap_err_set(&err, -ENODEV, "%s is gone", agent->name), &err,
		     AP_ACTIVITY_EXITED);
	agent_remove_sources(agent);
	pool_changed(pool);
	if (pool->agent_gone)
		pool->agent_gone(pool->observer, agent->name);
	ap_agent_unref(agent);
}

/* --- its program --- */

void agent_remove_record(const struct ap_agent *agent, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", agent->dir, name);
	unlink(ap_buf_text(&path));
}

void agent_starts(struct ap_agent *agent)
{
	/* those of the program before would be taken for this one's */
	agent_remove_record(agent, "pid");
	agent_remove_record(agent, "exit");
	agent_remove_record(agent, "paused");
	pthread_mutex_lock(&agent->pool->lock);
	agent->activity = AP_ACTIVITY_STARTING;
	agent->entered_ns = agent->output_ns = agent->keys_from_ns = agent->keys_ns = 0;
	agent->prompt[0] = '\0';
	agent->prompt_ns = 0;
	agent->started_ns = ap_clock_ns();
	agent->screen = agent->hook = (struct activity_signal){.at_ns = 0};
	agent->memory = (struct activity_memory){.since_ns = 0};
	agent->answered = agent->paused = false;
	pool_changed(agent->pool);
	pthread_mutex_unlock(&agent->pool->lock);
	output_restarts(agent);
}

static void forget_program_locked(struct ap_agent *agent)
{
	if (agent->program_fd >= 0)
		close(agent->program_fd);
	agent->program_fd = -1;
	agent->program = 0;
}

int agent_started(struct ap_agent *agent, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	int over_fd = pool->backend->ops->over_fd(pool->backend, &agent->terminal, err);
	if (over_fd < 0)
		return over_fd;
	pthread_mutex_lock(&pool->lock);
	int r = loop_watch_fd(pool->loop, &agent->program_ends, over_fd);
	if (agent->over_fd >= 0)
		close(agent->over_fd);
	agent->over_fd = over_fd;
	agent->running = agent->terminal;
	cpu_average_begin(&agent->cpu, ap_clock_ns());
	agent->usage_known = false;
	agent->started = true;
	agent->ending = agent->ended = agent->started_ready = agent->restarting = false;
	agent->prompt_error.text[0] = '\0';
	forget_program_locked(agent);
	agent->start++;
	agent->ended_how[0] = '\0';
	agent_review_now(agent);
	pool_changed(pool);
	pthread_mutex_unlock(&pool->lock);
	return r < 0 ? ap_err_errno(err, r, "the end of %s", agent->name) : 0;
}

int agent_adopted(struct ap_agent *agent, bool alive, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	int r = alive ? agent_started(agent, err) : 0;
	pthread_mutex_lock(&pool->lock);
	agent->started_ready = alive && r == 0;	       /* or it says otherwise itself */
	agent->cpu = (struct cpu_average){.at_ns = 0}; /* what it used before was not used now */
	agent->running = agent->terminal;
	if (!alive) {
		agent->started = true;
		agent->start++;
	}
	unsigned start = agent->start;
	pthread_mutex_unlock(&pool->lock);
	if (!alive)
		agent_ended(agent, start);
	return r;
}

void agent_restarts_locked(struct ap_agent *agent)
{
	agent->restarting = true;
	agent->ended = agent->started_ready = false;
	agent->activity = AP_ACTIVITY_STARTING;
	snprintf(agent->why, sizeof agent->why, "start: asked for");
	pool_changed(agent->pool);
}

void agent_restart_failed(struct ap_agent *agent, const struct ap_err *err)
{
	pthread_mutex_lock(&agent->pool->lock);
	agent->restarting = false;
	agent->ended = true;
	agent->prompt_error = *err;
	agent_review_now(agent);
	pthread_mutex_unlock(&agent->pool->lock);
}

/* Whether a record of an end says that somebody has seen to it: a signal that nothing raises by
 * what it does itself. Nobody but one who killed the keeper leaves it without a record. */
static bool is_killed(const char *how)
{
	static const int sent[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM};
	int signal, end = 0;
	if (!*how)
		return true;
	if (sscanf(how, "signal %d%n", &signal, &end) != 1 || how[end] != '\0')
		return false; /* by itself, or for want of memory */
	for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
		if (signal == sent[i])
			return true;
	}
	return false;
}

/* How its last program ended, by its keeper's record, and when; "" and 0: there is none. */
static void read_end(const struct ap_agent *agent, char *ret_how, size_t size, int64_t *ret_time)
{
	*ret_time = 0;
	(void)file_read_line(agent->dir, "exit", ret_how, size);
	char *time = strrchr(ret_how, ' '); /* "code 0 TIME" */
	if (time) {
		*time = '\0';
		(void)ap_number_parse(time + 1, ret_time);
	}
}

bool agent_was_killed(struct ap_agent *agent)
{
	char how[sizeof agent->ended_how];
	int64_t time;
	pthread_mutex_lock(&agent->pool->lock);
	AP_CLEANUP_CLOSE int over_fd =
		agent->over_fd >= 0 ? fcntl(agent->over_fd, F_DUPFD_CLOEXEC, 0) : -1;
	pthread_mutex_unlock(&agent->pool->lock);
	struct pollfd over = {.fd = over_fd, .events = POLLIN};
	(void)poll(&over, 1, RECORD_MS);
	read_end(agent, how, sizeof how, &time);
	return is_killed(how);
}

/* `start` is that of the program that was seen to end. */
void agent_ended(struct ap_agent *agent, unsigned start)
{
	struct ap_pool *pool = agent->pool;
	char how[sizeof agent->ended_how];
	int64_t when;
	read_end(agent, how, sizeof how, &when);
	pthread_mutex_lock(&pool->lock);
	if (agent->start != start || agent->restarting) {
		pthread_mutex_unlock(&pool->lock);
		return;
	}
	agent->ended = true;
	forget_program_locked(agent);
	snprintf(agent->ended_how, sizeof agent->ended_how, "%s", how);
	snprintf(agent->exit_how, sizeof agent->exit_how, "%s", how);
	agent->exit_time = when;
	agent_review_now(agent);
	pool_changed(pool);
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	bool killed = is_killed(how);
	if (!agent->ending && !agent->gone && !slot->proven && !killed) {
		ap_err_set(&pool->spawn_error, 0, "'%s' ended soon after its start (%s)",
			   pool->argv[0], how);
		pool->spawn_error_ns = ap_clock_ns();
	}
	if (!agent->ending && !agent->gone)
		pool_step_locked(pool,
				 &(struct machine_event){.type = MACHINE_EXITED,
							 .slot = agent->slot,
							 .result = killed ? MACHINE_KILLED : 0});
	pool_unlock(pool);
}

void agent_forget_holder_locked(struct ap_agent *agent)
{
	(void)loop_watch_fd(agent->pool->loop, &agent->holder_ends, -1);
	if (agent->holder_fd >= 0)
		close(agent->holder_fd);
	agent->holder_fd = -1;
}

/* Whether something becomes readable until then. */
static bool is_over_by(int over_fd, int64_t deadline)
{
	struct pollfd over = {.fd = over_fd, .events = POLLIN};
	for (;;) {
		int64_t left = deadline - ap_clock_ns();
		int n = poll(&over, 1, left > 0 ? (int)(left / AP_MS) + 1 : 0);
		if (n > 0 || (n == 0 && left <= 0))
			return n > 0;
	}
}

static int over_fd_locked(const struct ap_agent *agent)
{
	return agent->over_fd >= 0 ? fcntl(agent->over_fd, F_DUPFD_CLOEXEC, 0) : -1;
}

/* Asks the keeper to end all, and waits until it has. */
static int end_keeper(struct ap_agent *agent, int over_fd, struct ap_err *err)
{
	struct backend *backend = agent->pool->backend;
	int64_t now = ap_clock_ns();
	backend->ops->end(backend, &agent->terminal, over_fd);
	if (is_over_by(over_fd, now + SWEEP_AFTER))
		return 0;
	backend->ops->sweep(backend, agent->name); /* they leave it no time to */
	if (is_over_by(over_fd, now + END_LIMIT))
		return 0;
	return ap_err_set(err, -ETIMEDOUT, "the processes of %s do not end", agent->name);
}

void agent_tell_to_end(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	bool quits = *profile_values(pool->profile)->quit;
	pthread_mutex_lock(&pool->lock);
	bool asked = quits && agent->activity == AP_ACTIVITY_READY;
	struct backend_terminal running = agent->running;
	agent->ending = agent->ending || !asked;
	AP_CLEANUP_CLOSE int over_fd = asked ? -1 : over_fd_locked(agent);
	pthread_mutex_unlock(&pool->lock);
	if (over_fd >= 0)
		pool->backend->ops->end(pool->backend, &running, over_fd);
}

int agent_end_program(struct ap_agent *agent, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->lock);
	agent->ending = true;
	AP_CLEANUP_CLOSE int over_fd = over_fd_locked(agent);
	pthread_mutex_unlock(&pool->lock);
	int r = over_fd >= 0 ? end_keeper(agent, over_fd, err) : 0;
	/* a keeper that was made to end leaves its processes behind */
	pool->backend->ops->sweep(pool->backend, agent->name);
	return r;
}

/* --- the program itself: its keeper learns of its end a moment later, and tells it later still ---
 */

/* The program that the keeper has recorded, if it has. A descriptor of it, which the caller closes;
 * -1: there is none, or it has ended and was waited for. */
static int program_open(const struct ap_agent *agent, pid_t *ret_pid)
{
	char text[64];
	unsigned long long start = 0; /* one that was started before that was recorded */
	*ret_pid = 0;
	(void)file_read_line(agent->dir, "pid", text, sizeof text); /* "" when there is none */
	if (sscanf(text, "%d %llu", ret_pid, &start) < 1 || *ret_pid <= 0)
		return -1;
	int fd = pidfd_open(*ret_pid, 0);
	if (fd >= 0 && start && process_start_time(*ret_pid) != start) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The program of the last start becomes known, and is watched. */
static void know_program(struct ap_agent *agent, unsigned start)
{
	struct ap_pool *pool = agent->pool;
	pid_t pid;
	int fd = program_open(agent, &pid);
	pthread_mutex_lock(&pool->lock);
	bool news = agent->start == start && !agent->ended && agent->program == 0;
	if (news) {
		agent->program = pid;
		agent->program_fd = fd;
	}
	if (news && pid)
		pool_changed(pool);
	pthread_mutex_unlock(&pool->lock);
	if (!news && fd >= 0)
		close(fd);
}

/* 1: it runs; 0: it does not; -EAGAIN: its keeper has not said yet who it is. */
static int lives_locked(const struct ap_agent *agent)
{
	struct pollfd ends[] = {{.fd = agent->over_fd, .events = POLLIN},
				{.fd = agent->program_fd, .events = POLLIN}};
	if (agent->ended || poll(ends, 2, 0) > 0)
		return 0;
	if (agent->terminal.keeper == 0) /* no process */
		return 1;
	if (agent->program_fd < 0)
		return agent->program ? 0 : -EAGAIN;
	/* while the descriptors say that they have not ended, these numbers are theirs */
	return process_lives(agent->program) && process_lives(agent->terminal.keeper);
}

bool agent_lives(struct ap_agent *agent)
{
	int64_t deadline = ap_clock_ns() + PID_LIMIT;
	for (;;) {
		pthread_mutex_lock(&agent->pool->lock);
		int lives = lives_locked(agent);
		unsigned start = agent->start;
		pthread_mutex_unlock(&agent->pool->lock);
		if (lives >= 0 || ap_clock_ns() > deadline)
			return lives > 0;
		know_program(agent, start);
		poll(NULL, 0, PID_PAUSE_MS);
	}
}

/* --- what it is doing --- */

static bool prompted_locked(const struct ap_agent *agent)
{
	return agent->n_prompts_open > 0 || agent->n_prompts_queued > 0 || agent->delivering;
}

/* What of it is shown, and changes without a step of the pool. */
static void shown_locked(const struct ap_agent *agent, struct ap_agent_info *ret)
{
	ret->activity = agent->activity;
	ret->pid = agent->program;
	memcpy(ret->why, agent->why, sizeof ret->why);
	uint64_t files = atomic_load(&agent->saved_files), bytes = atomic_load(&agent->saved_bytes);
	if (atomic_load(&agent->saving))
		snprintf(ret->why, sizeof ret->why, "saving: %" PRIu64 " files, %" PRIu64 " bytes",
			 files, bytes);
}

/* What is queued keeps it busy, whatever its program does, unless that waits for a human first. */
static void activity_set_locked(struct ap_agent *agent, const struct activity *concluded)
{
	agent->activity = concluded->activity;
	agent_review_by(agent, concluded->recheck_ns); /* unless there is news since the look */
	memcpy(agent->why, concluded->why, sizeof agent->why);
	if (concluded->activity == AP_ACTIVITY_READY)
		agent->started_ready = true;
	if (agent->paused && concluded->activity != AP_ACTIVITY_EXITED) {
		agent->activity = AP_ACTIVITY_BUSY;
		snprintf(agent->why, sizeof agent->why, "pause: asked for");
		return;
	}
	if (agent->n_keys > 0 && concluded->activity != AP_ACTIVITY_EXITED) {
		agent->activity = AP_ACTIVITY_BUSY;
		snprintf(agent->why, sizeof agent->why, "keys: being typed");
		return;
	}
	bool asks = concluded->activity == AP_ACTIVITY_WAITING && !agent->delivering;
	if (concluded->activity == AP_ACTIVITY_EXITED || asks || !prompted_locked(agent))
		return;
	agent->activity = AP_ACTIVITY_BUSY;
	const char *prompt = agent->delivering		 ? "being submitted"
			     : agent->n_prompts_open > 0 ? "being written"
							 : "queued";
	snprintf(agent->why, sizeof agent->why, "prompt: %s; %.96s", prompt, concluded->why);
}

void agent_keys_begin_locked(struct ap_agent *agent)
{
	agent->n_keys++;
	if (agent->activity != AP_ACTIVITY_STARTING)
		agent->activity = AP_ACTIVITY_BUSY;
	snprintf(agent->why, sizeof agent->why, "keys: being typed");
	pool_changed(agent->pool);
}

void agent_keys_typed_locked(struct ap_agent *agent, int64_t from_ns)
{
	agent->n_keys--;
	agent_review_now(agent);
	if (from_ns > 0) {
		agent->keys_from_ns = from_ns;
		agent->keys_ns = ap_clock_ns();
	}
}

void agent_forget_prompts_locked(struct ap_agent *agent)
{
	struct ap_list *at, *next;
	if (agent->n_prompts_queued > 0) {
		struct store_txn *txn = store_txn_new();
		txn_prompts_gone(txn, agent->number);
		store_submit(agent->pool->store, txn, false, NULL, NULL);
	}
	ap_list_for_each_safe (at, next, &agent->prompts) {
		ap_list_remove(at);
		free(ap_container_of(at, struct prompt, link));
	}
	agent->n_prompts_queued = agent->n_prompts_open = 0;
	agent->open_bytes = 0;
	agent->open_token = UINT64_MAX; /* no handle's */
	agent->prompt_bytes = 0;
	agent->prompt_error.text[0] = '\0';
}

/* What there is to conclude from. */
static struct activity_input input_locked(const struct ap_agent *agent,
					  const struct output_signs *signs,
					  const struct activity_look *look)
{
	return (struct activity_input){
		.ended = agent->ended,
		.ended_how = agent->ended_how,
		.started_ready = agent->started_ready,
		.runs_command = signs->runs_command,
		.marks = signs->ends_commands,
		.marked_ns = signs->marked_ns,
		.line = signs->line,
		.prompt = agent->prompt,
		.entered_ns = agent->entered_ns,
		.keys_from_ns = agent->keys_from_ns,
		.keys_ns = agent->keys_ns,
		.output_ns = agent->output_ns,
		.started_ns = agent->started_ns,
		.look = *look,
		.screen = agent->screen,
		.told = signs->told,
		.hook = agent->hook,
		.title_busy_ns = signs->title_busy_ns,
	};
}

/* Takes note of how a shell's first prompt looks: of the line behind each mark of a command's end,
 * as soon as it reads; without marks, of that which its start ends with. */
static void learn_prompt_locked(struct ap_agent *agent, const struct output_signs *signs,
				const struct activity_look *look, const struct activity *concluded,
				int64_t now)
{
	bool reads =
		look->known && look->foreground == look->program && look->reads == READS_PROMPT;
	bool anew = signs->ends_commands && signs->marked_ns > agent->prompt_ns &&
		    signs->marked_ns > agent->entered_ns && !signs->runs_command;
	bool first = !signs->ends_commands && !agent->started_ready;
	if (!reads || concluded->activity != AP_ACTIVITY_READY || !(anew || first))
		return;
	memcpy(agent->prompt, signs->line, sizeof agent->prompt);
	agent->prompt_ns = now;
}

/* Has a worker look at a screen that has changed, but not all the time. */
static void look_soon_locked(struct ap_agent *agent, int64_t now)
{
	int64_t due = agent->screen.at_ns + LOOK_PAUSE;
	if (agent->looking)
		return; /* it is looked at again if that was too early */
	if (now >= due)
		job_look_locked(agent);
	else
		agent_review_by(agent, due);
}

/* Concludes the activity anew, answers waits, hands the next prompt to a worker. Reads /proc. In
 * the loop's thread. */
static void review(struct ap_agent *agent)
{
	int64_t now = ap_clock_ns();
	struct ap_pool *pool = agent->pool;
	const struct activity_rules *rules = &profile_values(pool->profile)->rules;
	struct activity_look look = {.known = false};
	struct output_signs signs;
	pthread_mutex_lock(&pool->lock);
	pid_t program = agent->program;
	unsigned start = agent->start;
	bool running = agent->started && !agent->ended, reads_on = agent->reads_on;
	const struct backend_terminal running_in = agent->running;
	agent->reads_on = false;
	pthread_mutex_unlock(&pool->lock);
	if (reads_on)
		output_read(agent);
	if (running && program == 0) {
		know_program(agent, start);
		pthread_mutex_lock(&pool->lock);
		program = agent->program;
		pthread_mutex_unlock(&pool->lock);
	}
	bool edits = running && rules->shell &&
		     !pool->backend->ops->canonical(pool->backend, &running_in);
	if (running && rules->shell)
		look = activity_look(program, edits);
	output_look(agent, &signs);
	/* a shell that edits its input at a prompt runs no command, whatever its marks say */
	if (look.known && look.foreground == program && edits)
		signs.runs_command = false;
	struct activity_signal line = {.found = false};
	if (rules->shell)
		(void)profile_judge(pool->profile, PROFILE_LINE, signs.line, NULL, &line);

	struct ap_list waits;
	pthread_mutex_lock(&pool->lock);
	if (!agent->started || agent->gone || agent->restarting || atomic_load(&pool->leaving)) {
		pthread_mutex_unlock(&pool->lock);
		return;
	}
	if (agent->start != start) { /* what was looked at is another program already */
		agent_review_now(agent);
		pthread_mutex_unlock(&pool->lock);
		return;
	}
	struct ap_agent_info before;
	shown_locked(agent, &before);
	struct activity_input input = input_locked(agent, &signs, &look);
	input.line_goes_on = line.found;
	struct activity concluded = activity_conclude(rules, &input, &agent->memory, now);
	if (rules->shell)
		learn_prompt_locked(agent, &signs, &look, &concluded, now);
	activity_set_locked(agent, &concluded);
	if (agent->activity != before.activity || strcmp(agent->why, before.why) != 0)
		pool_changed(pool);
	if (program == 0 && running && now < agent->started_ns + PID_LIMIT)
		agent_review_by(agent, now + PID_PAUSE);
	if (concluded.wants_look)
		look_soon_locked(agent, now);
	if (concluded.activity == AP_ACTIVITY_EXITED)
		agent_forget_prompts_locked(agent);
	else if (concluded.activity == AP_ACTIVITY_READY && agent->n_prompts_queued > 0 &&
		 !agent->delivering && !agent->paused)
		job_prompt_locked(agent);
	take_waits_locked(agent, false, &waits);
	enum ap_activity activity = agent->activity;
	struct ap_err error = agent->prompt_error;
	pthread_mutex_unlock(&pool->lock);
	answer_waits(pool, &waits, agent_settled_result(activity, &error), &error, activity);
	if (before.activity == AP_ACTIVITY_BUSY && activity != AP_ACTIVITY_BUSY) /* a turn ended */
		job_follow_soon(agent);
}

int agent_settled_result(enum ap_activity activity, const struct ap_err *prompt_error)
{
	return prompt_error->text[0] && activity != AP_ACTIVITY_EXITED ? -EIO : 0;
}

int ap_agent_activity_set(struct ap_pool *pool, struct ap_agent *agent, const char *text,
			  struct ap_err *err)
{
	static const enum ap_activity told[] = {AP_ACTIVITY_STARTING, AP_ACTIVITY_READY,
						AP_ACTIVITY_BUSY, AP_ACTIVITY_WAITING};
	size_t i = 0;
	while (i < 4 && strcmp(text, ap_activity_name(told[i])) != 0)
		i++;
	if (i == 4)
		return ap_err_set(err, -EINVAL, "'%.64s' is none of: starting ready busy waiting",
				  text);
	pthread_mutex_lock(&pool->lock);
	int r = agent->gone	  ? ap_err_set(err, -ENODEV, "%s is gone", agent->name)
		: !agent->started ? ap_err_set(err, -EBUSY, "%s is being made", agent->name)
				  : 0;
	if (r == 0) {
		agent->hook = (struct activity_signal){
			.at_ns = ap_clock_ns(), .found = true, .activity = told[i]};
		snprintf(agent->hook.why, sizeof agent->hook.why, "hook: wrote %s", text);
		agent_review_now(agent);
	}
	pthread_mutex_unlock(&pool->lock);
	return r;
}

/* --- what the mount asks of it --- */

static int too_much_locked(const struct ap_agent *agent, struct ap_err *err)
{
	return ap_err_set(err, -EAGAIN,
			  "%u prompts of %zu bytes are queued for %s already, and %u of %zu are "
			  "being written",
			  agent->n_prompts_queued, agent->prompt_bytes, agent->name,
			  agent->n_prompts_open, agent->open_bytes);
}

/* Whether `len` more bytes are more than one agent takes; a single prompt never is. */
static bool is_too_much_locked(const struct ap_pool *pool, size_t bytes, size_t len)
{
	int64_t most = pool->config.number[AP_OPT_MAX_PROMPT];
	if (most < POOL_PROMPT_BYTES)
		most = POOL_PROMPT_BYTES;
	return (int64_t)(bytes + len) > most;
}

static int prompt_refused_locked(const struct ap_pool *pool, const struct ap_agent *agent,
				 size_t len, struct ap_err *err)
{
	if ((int64_t)len > pool->config.number[AP_OPT_MAX_PROMPT])
		return ap_err_set(err, -EMSGSIZE, "a prompt of %zu bytes is over max_prompt", len);
	if (agent->gone)
		return ap_err_set(err, -ENODEV, "%s is gone", agent->name);
	if (agent->ended)
		return ap_err_set(err, -EIO, "the program of %s has ended (%s): restart it",
				  agent->name, agent->ended_how);
	if (agent->n_prompts_queued >= POOL_PROMPTS_MAX ||
	    is_too_much_locked(pool, agent->prompt_bytes, len))
		return too_much_locked(agent, err);
	return 0;
}

int ap_agent_prompt_begin(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			  struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	int r = prompt_refused_locked(pool, agent, 0, err);
	if (r == 0)
		r = pool_refused(machine_may_prompt(pool->view, &pool->view->slots[agent->slot],
						    token, ap_clock_ns()),
				 err);
	if (r == 0 && agent->open_token != token) {
		agent->n_prompts_open = 0;
		agent->open_bytes = 0;
		agent->open_token = token;
	}
	if (r == 0 && agent->n_prompts_queued + agent->n_prompts_open >= POOL_PROMPTS_MAX)
		r = too_much_locked(agent, err);
	if (r == 0) {
		agent->n_prompts_open++;
		agent_review_now(agent);
		if (agent->activity != AP_ACTIVITY_STARTING)
			agent->activity = AP_ACTIVITY_BUSY;
		pool_changed(pool);
	}
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int ap_agent_prompt_grow(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len,
			 struct ap_err *err)
{
	int r = 0;
	pthread_mutex_lock(&pool->lock);
	if (agent->open_token == token &&
	    is_too_much_locked(pool, agent->prompt_bytes + agent->open_bytes, len))
		r = too_much_locked(agent, err);
	else if (agent->open_token == token)
		agent->open_bytes += len;
	pthread_mutex_unlock(&pool->lock);
	return r;
}

void ap_agent_prompt_end(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len)
{
	pthread_mutex_lock(&pool->lock);
	if (agent->open_token == token && agent->n_prompts_open > 0) {
		agent->n_prompts_open--;
		agent->open_bytes -= len < agent->open_bytes ? len : agent->open_bytes;
	}
	agent_review_now(agent);
	pthread_mutex_unlock(&pool->lock);
}

static struct prompt *prompt_new(const char *text, size_t len, bool is_command)
{
	struct prompt *prompt = malloc(sizeof *prompt + len + 1);
	if (!prompt)
		return NULL;
	ap_list_init(&prompt->link);
	prompt->len = len;
	prompt->cleaned = false;
	prompt->is_command = is_command;
	memcpy(prompt->text, text, len);
	prompt->text[len] = '\0';
	return prompt;
}

static void prompt_append_locked(struct ap_agent *agent, struct prompt *prompt)
{
	ap_list_append(&agent->prompts, &prompt->link);
	agent->n_prompts_queued++;
	agent->prompt_bytes += prompt->len;
}

int agent_prompt_again(struct ap_agent *agent, const struct store_prompt *stored)
{
	struct prompt *prompt = prompt_new(stored->text, stored->len, stored->is_command);
	if (!prompt)
		return -ENOMEM;
	prompt->seq = stored->seq;
	pthread_mutex_lock(&agent->pool->lock);
	prompt_append_locked(agent, prompt);
	pthread_mutex_unlock(&agent->pool->lock);
	return 0;
}

/* For the next daemon. What a full disk does not take is given all the same. */
static void keep_prompt_locked(struct ap_agent *agent, const struct prompt *prompt)
{
	const struct store_prompt record = {.seq = prompt->seq,
					    .text = prompt->text,
					    .len = prompt->len,
					    .is_command = prompt->is_command};
	struct store_txn *txn = store_txn_new();
	txn_prompt(txn, agent->number, &record);
	store_submit(agent->pool->store, txn, false, NULL, NULL);
}

static int queue_prompt(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			const char *text, size_t len, bool is_command, struct ap_err *err)
{
	struct prompt *prompt = prompt_new(text, len, is_command);
	if (!prompt)
		return ap_err_errno(err, -ENOMEM, "prompt");
	pthread_mutex_lock(&pool->lock);
	int r = prompt_refused_locked(pool, agent, len, err);
	if (r == 0)
		r = pool_refused(
			pool_step_locked(pool, &(struct machine_event){.type = MACHINE_PROMPT,
								       .slot = agent->slot,
								       .token = token}),
			err);
	if (r == 0) {
		prompt->seq = ++agent->prompt_seq;
		keep_prompt_locked(agent, prompt);
		prompt_append_locked(agent, prompt);
		agent->n_prompts += !is_command;
		agent->prompt_error.text[0] = '\0';
		if (agent->activity != AP_ACTIVITY_STARTING)
			agent->activity = AP_ACTIVITY_BUSY;
		agent_review_now(agent);
	}
	pool_unlock(pool);
	if (r < 0)
		free(prompt);
	return r;
}

int ap_agent_prompt(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *text,
		    size_t len, struct ap_err *err)
{
	return queue_prompt(pool, agent, token, text, len, false, err);
}

int ap_agent_reset(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, struct ap_err *err)
{
	const struct profile_values *values = profile_values(pool->profile);
	if (!*values->clear || values->stream)
		return ap_err_set(err, -EOPNOTSUPP, "the profile %s knows no command to forget by",
				  values->name);
	return queue_prompt(pool, agent, token, values->clear, strlen(values->clear), true, err);
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

bool agent_info_locked(const struct ap_agent *agent, struct ap_agent_info *ret)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	*ret = (struct ap_agent_info){.number = agent->number, .worktree = agent->worktree_path};
	memcpy(ret->name, agent->name, sizeof ret->name);
	ret->output_size = atomic_load(&agent->plain.size);
	ret->raw_size = atomic_load(&agent->raw.size);
	if (agent->gone)
		return false;
	ret->state = slot->state;
	shown_locked(agent, ret);
	memcpy(ret->exit_how, agent->exit_how, sizeof ret->exit_how);
	ret->exit_time = agent->exit_time;
	ret->created_ns = slot->created_ns;
	ret->idle_since_ns = slot->state == AP_AGENT_IDLE ? slot->used_ns : 0;
	ret->n_requests = slot->n_requests;
	ret->n_recycles = slot->n_recycles;
	ret->generation = slot->generation;
	ret->n_prompts = agent->n_prompts;
	if (slot->state != AP_AGENT_ACTIVE && !slot->aside)
		return true;
	memcpy(ret->label, slot->label.text, sizeof ret->label);
	memcpy(ret->base, agent->base, sizeof ret->base);
	snprintf(ret->branch, sizeof ret->branch, WORKTREE_BRANCH_PREFIX "%s", ret->label);
	ret->owner_uid = slot->uid;
	ret->owner_pid = slot->pid;
	ret->token = slot->token;
	ret->granted_ns = slot->granted_ns;
	ret->expires_ns = slot->token && slot->ttl_ns > 0 ? slot->deadline_ns : 0;
	return true;
}

bool ap_agent_look(struct ap_pool *pool, struct ap_agent *agent, struct ap_agent_info *ret)
{
	pthread_mutex_lock(&pool->lock);
	bool there = agent_info_locked(agent, ret);
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
