/* What a worker does in an agent's worktree before the program starts and before the worktree goes:
 * chooses the port, runs setup and teardown. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "jobs_internal.h"

/* Ports of agents: below the ephemeral ports, which the kernel assigns from 32768 on. */
#define PORT_FIRST 20000
#define PORTS	   12000

static int run_command(struct ap_agent *agent, enum ap_option option, const char *command,
		       struct ap_err *err)
{
	int64_t limit_ns = ap_pool_config_number(agent->pool, AP_OPT_SPAWN_TIMEOUT);
	int r = session_run(agent->session, command, limit_ns, err);
	return r < 0 ? ap_err_wrap(err, r, "%s", ap_options[option].name) : 0;
}

int launch_setup(struct ap_agent *agent, struct ap_err *err)
{
	AP_CLEANUP_FREE char *command = config_text(agent->pool, AP_OPT_SETUP);
	struct layer_list *before;
	if (!command || !*command)
		return command ? 0 : ap_err_errno(err, -ENOMEM, "%s", agent->name);
	int r = worktree_before_setup(&agent->worktree, &before, err);
	if (r < 0)
		return r;
	r = run_command(agent, AP_OPT_SETUP, command, err);
	int noted = worktree_after_setup(&agent->worktree, before, r < 0 ? NULL : err);
	return r < 0 ? r : noted;
}

void launch_teardown(struct ap_agent *agent)
{
	struct ap_err err = {""};
	AP_CLEANUP_FREE char *command = config_text(agent->pool, AP_OPT_TEARDOWN);
	struct session_record record;
	session_record(agent->session, &record);
	if (record.n_starts == 0 || (command && !*command))
		return;
	int r = command ? run_command(agent, AP_OPT_TEARDOWN, command, &err)
			: ap_err_errno(&err, -ENOMEM, "%s", agent->name);
	if (r < 0)
		session_say(agent->session, err.text);
}

int launch_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err)
{
	int r = kind == LAUNCH_AGAIN ? 0 : session_begin_output(agent->session, err);
	if (r == 0 && kind != LAUNCH_AGAIN) /* the worktree is new */
		r = launch_setup(agent, err);
	return r < 0 ? r : session_start(agent->session, kind == LAUNCH_FIRST, err);
}

/* Chooses a port for the agent's own use: nobody listens on it now, and no other agent of the pool
 * has it. The hash of the state directory spreads the first ports of pools. If no port is free, the
 * agent stays without one. */
void launch_choose_port(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	unsigned first = (unsigned)(ap_hash(pool->state_dir) % PORTS),
		 n_slots = pool->view->n_slots;
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
		if (agent->port) {
			session_set_port(agent->session, agent->port);
			return;
		}
	}
}
