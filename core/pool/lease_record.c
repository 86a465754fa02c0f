/* The record of a lease in its agent's directory, for when the store is lost:
 * "LABEL BASE CREATED GENERATION TOKEN\nADMIN_DIR\n"; and the message of the commit that saves the
 * lease's work. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "pool_internal.h"

#define RECORD_MAX (8 << 10) /* bytes */

static char *record_path(const char *agent_dir)
{
	char *path;
	return asprintf(&path, "%s/lease", agent_dir) < 0 ? NULL : path;
}

unsigned agent_generation(const struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	unsigned generation = agent->pool->view->slots[agent->slot].generation;
	pthread_mutex_unlock(&agent->pool->lock);
	return generation;
}

int lease_record_write(const struct ap_agent *agent, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = record_path(agent->dir);
	AP_CLEANUP_FREE char *temporary = NULL;
	if (!path || asprintf(&temporary, "%s.new", path) < 0)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	FILE *file = file_create(temporary);
	if (!file)
		return ap_err_errno(err, -errno, "%s", temporary);
	fprintf(file, "%s %s %d %u %" PRIu64 "\n%s\n", agent->lease.label, agent->lease.base,
		agent->lease.created, agent_generation(agent), agent->token,
		agent->worktree.git_dir);
	bool failed = ferror(file);
	if (fclose(file) != 0 || failed || rename(temporary, path) < 0)
		return ap_err_errno(err, errno ? -errno : -EIO, "%s", path);
	return 0;
}

void lease_record_remove(const struct ap_agent *agent)
{
	AP_CLEANUP_FREE char *path = record_path(agent->dir);
	if (path)
		unlink(path);
}

int lease_record_read(const char *agent_dir, struct lease_record *ret)
{
	AP_CLEANUP_FREE char *path = record_path(agent_dir);
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int created, end = 0;
	*ret = (struct lease_record){.admin_dir = NULL};
	int r = path ? file_read(path, O_NOFOLLOW, RECORD_MAX, &text, NULL) : -ENOENT;
	if (r < 0)
		return r == -ENOENT ? 0 : -EBADMSG;
	bool whole = sscanf(ap_buf_text(&text), "%64s %64s %d %u %" SCNu64 " %n", ret->lease.label,
			    ret->lease.base, &created, &ret->generation, &ret->token, &end) == 5;
	const char *admin_dir = ap_buf_text(&text) + end;
	if (!whole || !ap_label_valid(ret->lease.label) || admin_dir[0] != '/')
		return -EBADMSG;
	ret->admin_dir = strndup(admin_dir, strcspn(admin_dir, "\n"));
	ret->lease.created = created;
	return ret->admin_dir ? 1 : -ENOMEM;
}

void lease_message(const char *label, const char *name, unsigned generation, struct ap_buf *ret)
{
	char when[32];
	ap_clock_rfc3339(ap_clock_ns(), when, sizeof when);
	ap_buf_printf(ret, "agentpool: work of lease %s\n\nAgent: %s, generation %u\nEnded: %s",
		      label, name, generation, when);
}
