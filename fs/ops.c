#include "ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "last_error.h"

#define FOR_LONG 3600.0 /* s: the daemon notifies the kernel of changes */

static struct mount *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Gives everybody the owner's permissions, less the umask. A symbolic link has no mode of its own.
 * Modes and owners never change during a mount: the kernel may cache them. */
static mode_t mode_for_all(mode_t mode, int umask)
{
	mode_t allowed = mode >> 6 & 7;
	return S_ISLNK(mode) ? mode : (mode & S_IFMT) | ((allowed * 0111) & ~(mode_t)umask);
}

static void set_size(struct stat *attr, int64_t size)
{
	attr->st_size = size;
	attr->st_blocks = (size + 511) / 512; /* else cp takes it for a file with holes */
}

static int show(struct mount *mount, struct node node, const struct fuse_ctx *who,
		struct ap_buf *ret)
{
	struct tree_call call;
	struct ap_err err; /* a lookup or getattr sets no last_error */
	if (!tree_call_init(&call, mount->pool, node, &err))
		return -ENOENT;
	call.uid = call.opener = who->uid;
	call.tid = who->pid;
	int r = tree_row(node)->show(&call, ret);
	tree_call_fini(&call);
	return r == 0 && ret->failed ? -ENOMEM : r;
}

/* Makes the text of a file at its lookup: the open that follows reads it. */
static int publish(struct mount *mount, struct node *node, const struct fuse_ctx *who,
		   int64_t *ret_size)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	*ret_size = 0;
	if (open_files_are_full(mount->files)) { /* the open will be refused */
		*node = snapshots_fresh(mount->snapshots, *node);
		return 0;
	}
	int r = show(mount, *node, who, &text);
	*ret_size = (int64_t)text.len;
	/* an open to write makes the kernel take the size for 0: the writer gets a node of its
	 * own */
	bool alone = tree_mode(*node) & 0222;
	return r < 0 ? r : snapshot_publish(mount->snapshots, *node, who->uid, alone, &text, node);
}

/* The length of the text of a node that was looked up; -1: it is not made yet. */
static int64_t text_size(struct mount *mount, struct node node, const struct fuse_ctx *who)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int64_t size = snapshot_size(mount->snapshots, node);
	if (size >= 0 || tree_reading(tree_row(node)) != TREE_READ_SHOW)
		return size;
	/* forgotten, and not open: another lookup precedes the next open */
	return show(mount, node, who, &text) == 0 ? (int64_t)text.len : 0;
}

static int stat_of(struct mount *mount, struct node node, struct stat *ret)
{
	*ret = (struct stat){.st_uid = mount->uid,
			     .st_gid = mount->gid,
			     .st_blksize = 4096,
			     .st_atim = mount->since,
			     .st_mtim = mount->since,
			     .st_ctim = mount->since};
	int r = tree_stat(mount->pool, node, ret);
	set_size(ret, ret->st_size);
	if (r == 0 && mount->umask >= 0)
		ret->st_mode = mode_for_all(ret->st_mode, mount->umask);
	return r;
}

/* Whether a file has a text whose length is known once the text is made. A text that a read waits
 * for has another size until then. */
static bool has_text(struct node node)
{
	const struct tree_row *row = tree_row(node);
	enum tree_reading reading = tree_reading(row);
	return reading == TREE_READ_PARK ||
	       ((reading == TREE_READ_SHOW || reading == TREE_READ_FETCH) && !row->size);
}

/* Seconds that the kernel may cache attributes; 0 for a size that grows. */
static double attributes_last(struct node node)
{
	return tree_reading(tree_row(node)) == TREE_READ_KEPT ? 0 : FOR_LONG;
}

/* Whether the kernel looks the name up every time: the next open may get another node, a lease
 * comes and goes under the same name, or kept work goes by itself. */
static bool is_looked_up_anew(struct node node)
{
	const struct tree_row *row = tree_row(node);
	enum tree_reading reading = tree_reading(row);
	bool comes_and_goes = node.dir == NODE_LEASES || (node.dir == NODE_KEPT_ONE && !row);
	return comes_and_goes || (row && row->fresh) || reading == TREE_READ_SHOW ||
	       reading == TREE_READ_FETCH || reading == TREE_READ_PARK;
}

static void op_init(void *data, struct fuse_conn_info *conn)
{
	struct mount *mount = data;
	if (mount->max_read > 0)
		conn->max_read = mount->max_read;
	mount->answers(mount->data);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *mount = mount_of(req);
	struct node node;
	struct fuse_entry_param entry = {.generation = 1};
	int r = tree_lookup(mount->pool, node_unpack(parent), name, &node);
	if (r == 0)
		r = stat_of(mount, node, &entry.attr);
	const struct tree_row *row = r == 0 ? tree_row(node) : NULL;
	if (tree_reading(row) == TREE_READ_SHOW) {
		int64_t size;
		r = publish(mount, &node, fuse_req_ctx(req), &size);
		set_size(&entry.attr, size);
	} else if (row && node.dir != NODE_LEASES && is_looked_up_anew(node)) {
		node = snapshots_fresh(mount->snapshots, node);
	}
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	entry.ino = node_pack(node);
	bool is_lease_dir = node.dir == NODE_LEASES && node.row == 0;
	entry.entry_timeout = is_lease_dir || !is_looked_up_anew(node) ? FOR_LONG : 0;
	/* a text that takes time is made at the getattr, or at the open */
	bool later = has_text(node) && tree_reading(row) != TREE_READ_SHOW;
	entry.attr_timeout = later ? 0 : attributes_last(node);
	fuse_reply_entry(req, &entry);
}

static void reply_attr(fuse_req_t req, struct node node, int64_t size)
{
	struct stat attr;
	int r = stat_of(mount_of(req), node, &attr);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	if (size >= 0)
		set_size(&attr, size);
	fuse_reply_attr(req, &attr, attributes_last(node));
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	struct node node = node_unpack(ino);
	struct mount *mount = mount_of(req);
	int64_t size = has_text(node) ? text_size(mount, node, fuse_req_ctx(req)) : -1;
	if (size < 0 && has_text(node))
		open_file_measure(mount->files, req, node, reply_attr);
	else
		reply_attr(req, node, size);
}

/* touch leases/LABEL, which follows the link to the agent, or touch -h. */
static int renew(struct mount *mount, struct node node, uid_t uid)
{
	struct ap_err err = {""};
	struct ap_agent_info info;
	struct tree_call call;
	int r = tree_call_init(&call, mount->pool, node, &err) ? 0 : -ENOENT;
	if (r == 0 && call.agent && ap_agent_look(mount->pool, call.agent, &info) && info.token)
		r = ap_pool_renew(mount->pool, info.label, uid, &err);
	tree_call_fini(&call);
	if (r < 0)
		last_error_set(uid, err.text);
	return r;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct node node = node_unpack(ino);
	(void)attr;
	if (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	bool times = to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW);
	bool leased = (node.dir == NODE_AGENT && node.row == 0) || node.dir == NODE_LEASES;
	int r = times && leased ? renew(mount_of(req), node, fuse_req_ctx(req)->uid) : 0;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		op_getattr(req, ino,
			   fi); /* a new size is accepted and ignored: `echo >` truncates */
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct node node = node_unpack(ino);
	const struct tree_row *row = tree_row(node);
	struct tree_call call;
	struct ap_err err;
	struct ap_buf target = {0};
	int r = row && row->link ? 0 : -EINVAL;
	if (r == 0 && !tree_call_init(&call, mount_of(req)->pool, node, &err))
		r = -ENOENT;
	if (r == 0) {
		r = row->link(&call, &target);
		tree_call_fini(&call);
	}
	if (r < 0 || target.failed)
		fuse_reply_err(req, r < 0 ? -r : ENOMEM);
	else
		fuse_reply_readlink(req, ap_buf_text(&target));
	ap_buf_fini(&target);
}

struct listing {
	fuse_req_t req;
	char *block;
	size_t used, size;
	uint64_t after; /* cookie of the last entry that the reader has */
};

static bool list_add(void *data, const char *name, struct node node, uint64_t cookie)
{
	struct listing *listing = data;
	if (cookie <= listing->after)
		return true;
	struct stat attr = {.st_ino = node_pack(node_file(node)), .st_mode = tree_mode(node)};
	size_t n = fuse_add_direntry(listing->req, listing->block + listing->used,
				     listing->size - listing->used, name, &attr, (off_t)cookie);
	if (listing->used + n > listing->size)
		return false;
	listing->used += n;
	return true;
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	(void)fi;
	struct listing listing = {
		.req = req, .block = malloc(size), .size = size, .after = (uint64_t)offset};
	int r = listing.block ? tree_list(mount_of(req)->pool, node_unpack(ino), listing.after,
					  list_add, &listing)
			      : -ENOMEM;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, listing.block, listing.used);
	free(listing.block);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node node = node_unpack(ino);
	if (!tree_row(node))
		fuse_reply_err(req, EISDIR);
	else
		open_file_open(mount_of(req)->files, req, node, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	(void)ino;
	open_file_read(mount_of(req)->files, req, size, offset, fi);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	(void)ino;
	(void)offset;
	open_file_write(mount_of(req)->files, req, data, size, fi);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	open_file_flush(mount_of(req)->files, req, fi);
}

static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		    struct fuse_pollhandle *handle)
{
	(void)ino;
	open_file_poll(mount_of(req)->files, req, fi, handle);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	open_file_release(mount_of(req)->files, req, fi);
}

static void unlink_done(struct ap_request *request, int result, void *data)
{
	fuse_req_t req = data;
	if (result < 0)
		last_error_set(fuse_req_ctx(req)->uid, ap_request_why(request));
	fuse_reply_err(req, -result);
}

/* rm leases/LABEL. The kernel holds the lock of the directory meanwhile: the reply waits for no
 * more than the state store. */
static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct ap_err err = {""};
	uid_t uid = fuse_req_ctx(req)->uid;
	struct node dir = node_unpack(parent);
	struct ap_request *request = ap_request_new(unlink_done, req);
	int r = -ENOMEM;
	if (request && dir.dir == NODE_LEASES && dir.row == 0)
		r = ap_pool_begin_release(mount_of(req)->pool, name, uid, request, &err);
	else if (request)
		r = ap_err_set(&err, -EPERM, "nothing but leases can be removed");
	ap_request_free(request);
	if (r == 0)
		return; /* unlink_done answers */
	last_error_set(uid, err.text[0] ? err.text : strerror(-r));
	fuse_reply_err(req, -r);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs text = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	(void)ino;
	fuse_reply_statfs(req, &text);
}

/* The tree is the pool's: nobody makes, moves or removes what is in it. */
static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fuse_reply_err(req, EPERM);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
	fuse_reply_err(req, EPERM);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	fuse_reply_err(req, EPERM);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned int flags)
{
	fuse_reply_err(req, EPERM);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	fuse_reply_err(req, EPERM);
}

const struct fuse_lowlevel_ops mount_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.readdir = op_readdir,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.poll = op_poll,
	.release = op_release,
	.unlink = op_unlink,
	.statfs = op_statfs,
	.mkdir = op_mkdir,
	.rmdir = op_rmdir,
	.mknod = op_mknod,
	.create = op_create,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
};

void mount_forget_agent(struct mount *mount, const char *name)
{
	uint64_t agents = node_pack((struct node){.dir = NODE_AGENTS});
	/* fails when the kernel does not know the name, or the mount has gone */
	(void)fuse_lowlevel_notify_inval_entry(mount->session, agents, name, strlen(name));
}
