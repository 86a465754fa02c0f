/* What a worker does in an agent's worktree before the program starts and before the worktree goes:
 * chooses the ports, runs setup and teardown. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "jobs_internal.h"

/* Ports of agents: below the ephemeral ports, which the kernel assigns from 32768 on. */
#define PORT_FIRST 20000
#define PORTS	   12000

/* Gives the session what a sandbox of it is made by now. */
static int renew_wall(struct ap_agent *agent, struct ap_err *err)
{
	AP_CLEANUP_FREE char *hide = config_text(agent->pool, AP_OPT_SANDBOX_HIDE);
	AP_CLEANUP_FREE char *env = config_text(agent->pool, AP_OPT_SANDBOX_ENV);
	return hide && env && session_set_wall(agent->session, hide, env) == 0
		       ? 0
		       : ap_err_errno(err, -ENOMEM, "%s", agent->name);
}

static int run_command(struct ap_agent *agent, enum ap_option option, const char *command,
		       struct ap_err *err)
{
	int64_t limit_ns = ap_pool_config_number(agent->pool, AP_OPT_SPAWN_TIMEOUT);
	int r = renew_wall(agent, err);
	if (r == 0)
		r = session_run(agent->session, command, limit_ns, err);
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
	if (r == 0 && (kind == LAUNCH_FIRST || kind == LAUNCH_CLEAN)) /* the worktree is new */
		r = launch_setup(agent, err);
	if (r == 0)
		r = renew_wall(agent, err);
	return r < 0 ? r : session_start(agent->session, kind == LAUNCH_FIRST, err);
}

/* Whether nobody listens on the port now. */
static bool port_is_free(unsigned port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons((uint16_t)port),
				      .sin_addr = {htonl(INADDR_LOOPBACK)}};
	AP_CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

/* Gives the agent the ports unless another agent of the pool has one of them. */
static bool take_ports(struct ap_agent *agent, unsigned first, unsigned n)
{
	struct ap_pool *pool = agent->pool;
	bool taken = false;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && !taken; i++) {
		const struct ap_agent *other = pool->agents[i];
		taken = other && other->port < first + n && first < other->port + other->n_ports;
	}
	if (!taken) {
		agent->port = first;
		agent->n_ports = n;
	}
	pthread_mutex_unlock(&pool->lock);
	return !taken;
}

/* Chooses a block of ports for the agent's own use: nobody listens on one of them now, and no other
 * agent of the pool has one. The hash of the state directory spreads the blocks of pools, the slot
 * those of agents. If no block is free, the agent stays without. */
void launch_choose_ports(struct ap_agent *agent)
{
	unsigned n = (unsigned)ap_pool_config_number(agent->pool, AP_OPT_PORTS);
	unsigned n_slots = agent->pool->view->n_slots, n_blocks = n ? PORTS / n : 0;
	unsigned own = (unsigned)(ap_hash(agent->pool->state_dir) % PORTS) + agent->slot;
	for (unsigned tries = 0; tries * n_slots < n_blocks; tries++) {
		unsigned first = PORT_FIRST + (own + tries * n_slots) % n_blocks * n, n_free = 0;
		while (n_free < n && port_is_free(first + n_free))
			n_free++;
		if (n_free == n && take_ports(agent, first, n)) {
			session_set_ports(agent->session, first, n);
			return;
		}
	}
}
