/* The pool's side of kept/, the work that leases left: keeping it with what is known of its lease,
 * removing it, showing it in the mount, and restoring it into a new lease. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "jobs_internal.h"
#include "kept_work.h"

_Static_assert(AP_KEPT_NAME_MAX >= KEPT_NAME_MAX, "every name has room");

int keeping_open(struct ap_pool *pool, uint64_t *ret_next_token, struct ap_err *err)
{
	struct kept_stats stats;
	pool->kept_work = kept_work_new(pool->state_dir);
	if (!pool->kept_work)
		return ap_err_errno(err, -ENOMEM, "%s/kept", pool->state_dir);
	kept_work_stats(pool->kept_work, &stats);
	*ret_next_token = stats.max_token + 1;
	return 0;
}

/* --- keeping --- */

/* Whether the worktree is an overlay: has an upper directory among its layers. */
static bool is_layer(const struct worktree *worktree)
{
	AP_CLEANUP_BUF struct ap_buf upper = {0};
	ap_buf_printf(&upper, "%s/upper", worktree->layers);
	return access(ap_buf_text(&upper), F_OK) == 0;
}

void keeping_info(struct ap_pool *pool, const struct worktree *worktree,
		  const struct worktree_lease *lease, uint64_t token, enum ap_reason reason,
		  struct kept_info *ret)
{
	const struct spawn_backend *backend = templates_backend(pool->templates);
	*ret = (struct kept_info){
		.token = token, .ended_ns = ap_clock_to_wall(ap_clock_ns()), .size = -1};
	snprintf(ret->label, sizeof ret->label, "%s", lease->label);
	snprintf(ret->agent, sizeof ret->agent, "%s", worktree->name);
	snprintf(ret->base, sizeof ret->base, "%s", lease->base);
	snprintf(ret->branch, sizeof ret->branch, WORKTREE_BRANCH_PREFIX "%s", lease->label);
	/* an earlier daemon with another backend may have made the worktree */
	snprintf(ret->backend, sizeof ret->backend, "%s",
		 is_layer(worktree) ? spawn_overlay.name : spawn_backend_name(backend));
	snprintf(ret->reason, sizeof ret->reason, "%s",
		 ap_reason_name(reason ? reason : AP_REASON_CANCELLED));
	if (worktree->template)
		snprintf(ret->template_commit, sizeof ret->template_commit, "%s",
			 template_commit(worktree->template));
	kept_work_name(ret->label, ret->token, ret->name);
}

static void keeping_note(struct ap_pool *pool, const struct kept_info *info)
{
	events_note(pool->events, "kept",
		    EVENT_FIELDS({"lease", info->label, 0}, {"token", NULL, (int64_t)info->token},
				 {"agent", info->agent, 0}, {"reason", info->reason, 0}));
	pool_changed(pool); /* stats/kept */
}

int keeping_keep(struct ap_pool *pool, struct worktree *worktree, const struct kept_info *info,
		 bool in_place, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	int r = kept_work_begin(pool->kept_work, info, &dir, err);
	if (r < 0)
		return r;
	r = worktree_keep(worktree, ap_buf_text(&dir), in_place, err);
	kept_work_end(pool->kept_work, info->name); /* on failure, too: for what was moved */
	if (r == 0)
		keeping_note(pool, info);
	return r;
}

bool keeping_is_on(struct ap_pool *pool)
{
	return ap_pool_config_number(pool, AP_OPT_KEEP_WORK) > 0;
}

/* --- tidying --- */

static void note_removed(void *data, const struct kept_info *info, const char *why)
{
	struct ap_pool *pool = data;
	events_note(pool->events, "kept_removed",
		    EVENT_FIELDS({"lease", info->label, 0}, {"token", NULL, (int64_t)info->token},
				 {"reason", why, 0},
				 {"bytes", NULL, info->size > 0 ? info->size : 0}));
}

void keeping_tidy(struct ap_pool *pool)
{
	int64_t max_age = ap_pool_config_number(pool, AP_OPT_KEEP_WORK);
	int64_t max_size = ap_pool_config_number(pool, AP_OPT_KEEP_WORK_SIZE);
	struct ap_err err;
	if (kept_work_tidy(pool->kept_work, max_age, max_size, note_removed, pool, &err) < 0)
		events_note(pool->events, "kept_stuck", EVENT_FIELDS({"reason", err.text, 0}));
}

/* --- reading --- */

bool ap_kept_work_find(struct ap_pool *pool, const char *name, unsigned *ret_number)
{
	struct kept_info info;
	if (kept_work_find(pool->kept_work, name, &info) < 0)
		return false;
	*ret_number = info.number;
	return true;
}

bool ap_kept_work_next(struct ap_pool *pool, unsigned after, unsigned *ret_number,
		       char ret_name[AP_KEPT_NAME_MAX])
{
	struct kept_info info;
	if (kept_work_next(pool->kept_work, after, &info) < 0)
		return false;
	*ret_number = info.number;
	strcpy(ret_name, info.name);
	return true;
}

int ap_kept_work_show(struct ap_pool *pool, unsigned number, enum ap_kept_work_text what,
		      struct ap_buf *out)
{
	struct kept_info info;
	if (kept_work_look(pool->kept_work, number, &info) < 0)
		return -ENOENT;
	if (what == AP_KEPT_WORK_INFO)
		kept_work_show(&info, out);
	if (what == AP_KEPT_WORK_SIZE && info.size >= 0)
		ap_buf_printf(out, "%lld\n", (long long)info.size);
	if (what == AP_KEPT_WORK_FILES) {
		kept_work_dir(pool->kept_work, info.name, out);
		ap_buf_adds(out, "/files");
	}
	return 0;
}

static int lay(struct ap_agent *agent, const struct kept_info *info, const char *dir,
	       struct ap_err *err)
{
	struct templates *templates = agent->pool->templates;
	const char *to = agent->worktree.path;
	struct template *template = template_find(templates, info->template_commit);
	int r = kept_work_lay(dir, info, template ? template_files(template) : NULL, to, err);
	if (r == -ENOMEDIUM && info->template_commit[0] &&
	    template_make(templates, info->template_commit,
			  ap_pool_config_number(agent->pool, AP_OPT_SPAWN_TIMEOUT), &template,
			  err) == 0)
		r = kept_work_lay(dir, info, template_files(template), to, err);
	if (template)
		template_put(template);
	return r;
}

int agent_restore(struct ap_agent *agent, const char *name, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	struct kept_info info;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	if (kept_work_hold(pool->kept_work, name, &dir) < 0) /* -EBUSY: not the agent's fault */
		return ap_err_set(err, -EBUSY, "%s has been removed meanwhile", name);
	int r = kept_work_find(pool->kept_work, name, &info);
	if (r == 0)
		r = dir.failed ? ap_err_errno(err, -ENOMEM, "%s", name)
			       : lay(agent, &info, dir.data, err);
	kept_work_release(pool->kept_work, name);
	if (r < 0)
		return ap_err_wrap(err, r == -ENOSPC ? r : -EIO, "restoring %s", name);
	events_note(pool->events, "restored",
		    EVENT_FIELDS({"lease", agent->lease.label, 0}, {"agent", agent->name, 0},
				 {"from", name, 0}));
	return 0;
}
