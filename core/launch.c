/* Starting an agent's program, and the commands that come before and after it: their environment,
 * their output, their time limits. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"
#include "process.h"

/* Ports of agents: below those that the kernel gives out by itself, from 32768 on. */
#define PORT_FIRST 20000
#define PORTS	   12000

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

int launch_setup(struct ap_agent *agent, struct ap_err *err)
{
	return run_command(agent, AP_OPT_SETUP, err);
}

void launch_teardown(struct ap_agent *agent)
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

int launch_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	const struct backend_ops *ops = pool->backend->ops;
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	struct agent_env env __attribute__((cleanup(agent_env_fini))) = {.words = {NULL}};
	int r = kind == LAUNCH_AGAIN ? 0 : agent_output_begin(agent, err);
	if (r == 0 && kind != LAUNCH_AGAIN) /* the worktree is new */
		r = launch_setup(agent, err);
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
	r = kind == LAUNCH_FIRST ? ops->spawn(pool->backend, &spawn, &agent->terminal, err)
				 : ops->respawn(pool->backend, &spawn, &agent->terminal, err);
	if (r < 0)
		return ap_err_wrap(err, r, "starting %s", agent->name);
	return agent_started(agent, err);
}

/* A port for the agent's own use: one that nobody listens on now, and no other agent of the pool
 * has. Pools begin at places of their own, as far as chance has it. */
void launch_choose_port(struct ap_agent *agent)
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
