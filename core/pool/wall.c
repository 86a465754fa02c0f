/* Whether the pool's programs can have the sandbox that is asked for: tried before anything is
 * made, as there is no way round it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "pool_internal.h"
#include "sandbox.h"

const char *wall_word(const struct ap_pool *pool)
{
	if (!pool->sessions.wall)
		return "no";
	return pool->wall.network ? "yes" : "yes, no network";
}

bool wall_lacks(const struct ap_pool *pool, const char *agent_dir)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/" SESSION_WALL, agent_dir);
	return pool->sessions.wall && access(ap_buf_text(&path), F_OK) < 0;
}

int wall_begin(struct ap_pool *pool, struct ap_err *err)
{
	struct session_wall *wall = &pool->wall;
	AP_CLEANUP_BUF struct ap_buf bwrap = {0};
	if (!ap_config_choice(&pool->config, AP_OPT_SANDBOX))
		return 0;
	if (strcmp(pool->config.text[AP_OPT_SPAWN_BACKEND], "git") == 0)
		return ap_err_set(err, -EINVAL,
				  "sandbox=yes: spawn_backend=git has agents write to the git "
				  "directory of %s: choose another one",
				  pool->repo.main_path);
	if (!backend_runs_programs)
		return 0;
	int r = sandbox_find(&bwrap, err);
	if (r < 0)
		return r;
	*wall = (struct session_wall){
		.bwrap = ap_steal(bwrap.data),
		.network = ap_config_choice(&pool->config, AP_OPT_SANDBOX_NET),
		.shim = pool->shim,
		.state_dir = pool->state_dir,
		.repo = pool->repo.main_path,
		.git_dir = pool->repo.common_dir,
	};
	struct sandbox_plan plan = {
		.bwrap = wall->bwrap, .network = wall->network, .uid = geteuid(), .dir = "/"};
	sandbox_begin(&plan);
	r = sandbox_probe(&plan, pool->shim, err);
	sandbox_plan_fini(&plan);
	if (r == 0)
		pool->sessions.wall = wall;
	return r;
}

void wall_end(struct ap_pool *pool)
{
	free(pool->wall.bwrap);
}
