#include "tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

static const struct tree_table tables[NODE_N_DIRS] = {
	[NODE_ROOT] = {"", tree_root},
	[NODE_STATS] = {"stats/", tree_stats},
	[NODE_CONFIG] = {"config/", tree_config},
	[NODE_AGENTS] = {"agents/", NULL},
	[NODE_AGENT] = {"agents/NAME/", tree_agent},
	[NODE_LEASES] = {"leases/", tree_lease},
	[NODE_KEPT] = {"kept/", NULL},
	[NODE_KEPT_ONE] = {"kept/LABEL@TOKEN/", tree_kept},
};

const struct tree_row *tree_row(struct node node)
{
	return node.row ? &tables[node.dir].rows[node.row - 1] : NULL;
}

enum tree_reading tree_reading(const struct tree_row *row)
{
	if (!row)
		return TREE_READ_NONE;
	if (row->follow)
		return TREE_READ_FOLLOW;
	if (row->read)
		return TREE_READ_KEPT;
	if (row->fetch)
		return row->parks ? TREE_READ_PARK : TREE_READ_FETCH;
	return row->show ? TREE_READ_SHOW : TREE_READ_NONE;
}

bool tree_call_init(struct tree_call *call, struct ap_pool *pool, struct node node,
		    struct ap_err *err)
{
	*call = (struct tree_call){
		.pool = pool, .index = node.row ? node.row - 1 : 0, .id = node.id, .err = err};
	if (node.dir == NODE_KEPT_ONE) {
		AP_CLEANUP_BUF struct ap_buf text = {0};
		call->number = node_number(node);
		return ap_kept_work_show(pool, call->number, AP_KEPT_WORK_SIZE, &text) == 0 ||
		       (ap_err_set(err, -ENODEV, "what was kept has been removed"), false);
	}
	if (node.dir == NODE_AGENT)
		call->agent = ap_agent_get(pool, node_number(node));
	else if (node.dir == NODE_LEASES && node.row)
		call->agent = ap_agent_of_token(pool, node.id);
	else
		return true;
	if (!call->agent)
		ap_err_set(err, -ENODEV, "the agent is gone");
	return call->agent;
}

void tree_call_fini(struct tree_call *call)
{
	ap_agent_unref(call->agent);
	call->agent = NULL;
}

static int user_may_write(const struct tree_row *row, const struct tree_call *call, uid_t uid)
{
	struct ap_agent_info info;
	if (row->writer == TREE_WRITER_ANYONE || ap_pool_is_owner(call->pool, uid))
		return 0;
	if (row->writer == TREE_WRITER_OWNER)
		return ap_err_set(call->err, -EPERM,
				  "only the owner of the mount and root write to %s", row->name);
	if (!ap_agent_look(call->pool, call->agent, &info))
		return ap_err_set(call->err, -ENODEV, "the agent is gone");
	if (!info.token)
		return ap_err_set(call->err, -EPERM,
				  "%s has no lease: only the owner of the mount and root write to "
				  "its files",
				  info.name);
	if (info.owner_uid != uid)
		return ap_err_set(call->err, -EPERM, "lease %s is not yours", info.label);
	return 0;
}

int tree_may_write(const struct tree_row *row, const struct tree_call *call, uid_t uid)
{
	bool same = uid == call->opener;
	if (call->by_handle && !same)
		return ap_err_set(call->err, -EPERM,
				  "this handle is a lease of user %u, who opened it", call->opener);
	int r = user_may_write(row, call, uid);
	if (r == 0 && !same && (r = user_may_write(row, call, call->opener)) < 0)
		ap_err_wrap(call->err, r, "user %u opened the file", call->opener);
	return r;
}

static int lookup_row(struct node dir, const char *name, struct node *ret)
{
	const struct tree_row *rows = tables[dir.dir].rows;
	for (unsigned i = 0; rows[i].name; i++) {
		if (strcmp(rows[i].name, name) != 0)
			continue;
		*ret = (struct node){.dir = dir.dir, .row = i + 1, .id = dir.id};
		if (rows[i].is_dir)
			*ret = (struct node){.dir = rows[i].subdir};
		return 0;
	}
	return -ENOENT;
}

static int lookup_agent(struct ap_pool *pool, const char *name, struct node *ret)
{
	struct ap_agent *agent = ap_agent_find(pool, name);
	struct ap_agent_info info;
	if (!agent)
		return -ENOENT;
	bool there = ap_agent_look(pool, agent, &info);
	ap_agent_unref(agent);
	*ret = (struct node){.dir = NODE_AGENT, .id = info.number};
	return there ? 0 : -ENOENT;
}

static int lookup_lease(struct ap_pool *pool, const char *label, struct node *ret)
{
	uint64_t token;
	struct ap_agent *agent = ap_agent_of_label(pool, label, &token);
	if (!agent)
		return -ENOENT;
	ap_agent_unref(agent);
	*ret = (struct node){.dir = NODE_LEASES, .row = 1, .id = token};
	return 0;
}

static int lookup_kept(struct ap_pool *pool, const char *name, struct node *ret)
{
	unsigned number;
	if (!ap_kept_work_find(pool, name, &number))
		return -ENOENT;
	*ret = (struct node){.dir = NODE_KEPT_ONE, .id = number};
	return 0;
}

int tree_lookup(struct ap_pool *pool, struct node dir, const char *name, struct node *ret)
{
	if (dir.row)
		return -ENOTDIR;
	if (dir.dir == NODE_AGENTS)
		return lookup_agent(pool, name, ret);
	if (dir.dir == NODE_LEASES)
		return lookup_lease(pool, name, ret);
	if (dir.dir == NODE_KEPT)
		return lookup_kept(pool, name, ret);
	return lookup_row(dir, name, ret);
}

static mode_t row_mode(const struct tree_row *row)
{
	if (row->is_dir)
		return S_IFDIR | 0755;
	if (row->link)
		return S_IFLNK | 0777;
	mode_t mode = S_IFREG;
	if (tree_reading(row) != TREE_READ_NONE)
		mode |= 0444;
	if (row->line || row->submit || row->set || row->take)
		mode |= 0200;
	return mode;
}

mode_t tree_mode(struct node node)
{
	const struct tree_row *row = tree_row(node);
	return row ? row_mode(row) : S_IFDIR | 0755;
}

/* A text that a read waits for has no size yet, but programs that do not read(2) first take size 0
 * for empty. A whole page, as in sysfs: programs that trust sizes count a file of whole pages by
 * reading it. */
#define STREAM_SIZE 4096

int tree_stat(struct ap_pool *pool, struct node node, struct stat *ret)
{
	struct tree_call call;
	struct ap_err err;
	struct ap_agent_info info;
	if (!tree_call_init(&call, pool, node, &err))
		return -ENOENT;
	int r = 0;
	const struct tree_row *row = tree_row(node);
	ret->st_ino = node_pack(node_file(node));
	ret->st_mode = tree_mode(node);
	ret->st_nlink = S_ISDIR(ret->st_mode) ? 2 : 1;
	enum tree_reading reading = tree_reading(row);
	if (row && row->size)
		ret->st_size = row->size(&call);
	else if (reading == TREE_READ_PARK || reading == TREE_READ_FOLLOW)
		ret->st_size = STREAM_SIZE;
	if (call.agent && !ap_agent_look(pool, call.agent, &info))
		r = -ENOENT;
	tree_call_fini(&call);
	return r;
}

static int list_agents(struct ap_pool *pool, bool leases, tree_add *add, void *data)
{
	unsigned max = ap_pool_hard_cap(pool);
	unsigned *numbers = calloc(max, sizeof *numbers);
	if (!numbers)
		return -ENOMEM;
	unsigned n = ap_pool_agents(pool, numbers, max);
	bool more = true;
	for (unsigned i = 0; i < n && more; i++) {
		struct ap_agent *agent = ap_agent_get(pool, numbers[i]);
		struct ap_agent_info info;
		struct node node = {.dir = NODE_AGENT, .id = numbers[i]};
		if (agent && ap_agent_look(pool, agent, &info)) {
			if (leases)
				node = (struct node){
					.dir = NODE_LEASES, .row = 1, .id = info.token};
			if (!leases || info.token)
				more = add(data, leases ? info.label : info.name, node, numbers[i]);
		}
		ap_agent_unref(agent);
	}
	free(numbers);
	return 0;
}

static int list_kept(struct ap_pool *pool, uint64_t after, tree_add *add, void *data)
{
	char name[AP_KEPT_NAME_MAX];
	unsigned number = (unsigned)after;
	while (ap_kept_work_next(pool, number, &number, name) &&
	       add(data, name, (struct node){.dir = NODE_KEPT_ONE, .id = number}, number))
		;
	return 0;
}

int tree_list(struct ap_pool *pool, struct node dir, uint64_t after, tree_add *add, void *data)
{
	if (dir.row)
		return -ENOTDIR;
	if (dir.dir == NODE_AGENTS || dir.dir == NODE_LEASES)
		return list_agents(pool, dir.dir == NODE_LEASES, add, data);
	if (dir.dir == NODE_KEPT)
		return list_kept(pool, after, add, data);
	const struct tree_row *rows = tables[dir.dir].rows;
	for (unsigned i = 0; rows[i].name; i++) {
		struct node node = {.dir = dir.dir, .row = i + 1, .id = dir.id};
		if (rows[i].is_dir)
			node = (struct node){.dir = rows[i].subdir};
		if (rows[i].unlisted)
			continue;
		if (!add(data, rows[i].name, node, i + 1))
			break;
	}
	return 0;
}

void tree_print(void)
{
	for (int dir = 0; dir < NODE_N_DIRS; dir++) {
		const struct tree_row *rows = tables[dir].rows;
		for (unsigned i = 0; rows && rows[i].name; i++) {
			mode_t mode = row_mode(&rows[i]);
			char path[64];
			snprintf(path, sizeof path, "%s%s", tables[dir].path, rows[i].name);
			if (!rows[i].is_dir)
				printf("%-32s %c%03o  %s\n", path, S_ISLNK(mode) ? 'l' : '-',
				       mode & 0777, rows[i].doc);
		}
	}
}
