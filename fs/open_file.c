#include "open_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

static void file_free(struct open_file *file)
{
	tree_call_fini(&file->call);
	if (file->snapshot)
		snapshot_close(file->files->snapshots, file->snapshot);
	ap_buf_fini(&file->pending);
	atomic_fetch_sub(&file->files->text_bytes, file->counted);
	ap_buf_fini(&file->text);
	writing_free(file->writing);
	free(file->place);
	free(file->following);
	polling_free(file->polling);
	free(file);
}

/* Drops the table's reference. */
static void file_end(struct open_file *file)
{
	struct open_files *files = file->files;
	table_remove(files, file->fh);
	if (file->row->take)
		take_end(file);
	if (file->following)
		follow_close(file);
	poll_close(file);
	pthread_mutex_lock(&files->lock);
	file->closed = true;
	bool granted = file->granted;
	struct ap_lease_key lease = file->lease;
	bool writes = file->writing && file->writing->parked;
	pthread_mutex_unlock(&files->lock);
	if (!writes)
		request_cancel(file);
	if (granted)
		ap_pool_release_key(files->pool, lease);
	file_unref(file);
}

static const struct open_file_ops ops = {.end = file_end, .free = file_free};

struct open_files *open_files_new(struct ap_pool *pool, struct parked_set *parked,
				  struct snapshots *snapshots)
{
	struct open_files *files = calloc(1, sizeof *files);
	if (!files)
		return NULL;
	files->ops = &ops;
	files->pool = pool;
	files->parked = parked;
	files->snapshots = snapshots;
	ap_list_init(&files->followers);
	ap_list_init(&files->polled);
	pthread_mutex_init(&files->lock, NULL);
	return files;
}

void open_files_serve(struct open_files *files, struct fuse_session *session)
{
	files->session = session;
}

void open_files_free(struct open_files *files)
{
	if (!files)
		return;
	for (uint32_t i = 0; i < files->n_slots; i++) {
		if (files->slots[i].file)
			file_unref(files->slots[i].file);
	}
	free(files->slots);
	pthread_mutex_destroy(&files->lock);
	free(files);
}

/* --- open --- */

static struct open_file *file_new(struct open_files *files, struct node node, int open_flags)
{
	struct open_file *file = calloc(1, sizeof *file);
	if (!file)
		return NULL;
	atomic_init(&file->n_refs, 1);
	file->files = files;
	file->row = tree_row(node);
	file->ino = node_pack(node);
	ap_list_init(&file->readers);
	enum tree_reading reading = tree_reading(file->row);
	bool reads_only = (open_flags & O_ACCMODE) == O_RDONLY;
	file->by_handle = file->row->holds && (open_flags & O_ACCMODE) == O_RDWR;
	file->stream = file->by_handle || reading == TREE_READ_PARK ||
		       reading == TREE_READ_FOLLOW || file->row->take;
	/* a text that does not change while it is open may be in the page cache */
	file->direct = !reads_only || file->row->wakes ||
		       (reading != TREE_READ_SHOW && reading != TREE_READ_FETCH);
	file->append = open_flags & O_APPEND;
	return file;
}

/* Fills in who opens the file, and checks whether that user may write. */
static int file_call_init(struct open_file *file, const struct fuse_ctx *ctx, bool writes,
			  struct ap_err *err)
{
	struct ap_pool *pool = file->files->pool;
	struct ap_agent_info info;
	bool there = tree_call_init(&file->call, pool, file_node(file), err);
	file->call.err = NULL; /* `err` does not outlive the caller: see file_call() */
	file->call.uid = file->call.opener = ctx->uid;
	file->call.tid = ctx->pid;
	file->call.by_handle = file->by_handle;
	if (!there)
		return -ENODEV;
	if (file->call.agent && ap_agent_look(pool, file->call.agent, &info))
		file->call.token = info.token;
	const struct tree_call call = file_call(file, err);
	int r = writes ? tree_may_write(file->row, &call, ctx->uid) : 0;
	if (r < 0)
		refused(file, r, err);
	return r;
}

/* Prepares what a reader of the file finds at once. */
static int file_begin(struct open_file *file)
{
	const struct tree_call call = file_call(file, NULL);
	switch (tree_reading(file->row)) {
	case TREE_READ_SHOW:
		return file->by_handle ? 0 : text_open(file);
	case TREE_READ_KEPT:
		file->place = calloc(1, sizeof *file->place);
		if (!file->place)
			return -ENOMEM;
		file->place->end = file->row->size(&call);
		return 0;
	case TREE_READ_FOLLOW:
		return follow_open(file);
	case TREE_READ_FETCH: /* made by a getattr before; else it is made now */
	case TREE_READ_PARK:  /* for the page cache; a direct read fetches again */
		file->snapshot =
			snapshot_open(file->files->snapshots, file_node(file), &file->is_first);
		if (file->snapshot && tree_reading(file->row) == TREE_READ_FETCH)
			file->text_state = TEXT_READY;
		return 0;
	default:
		return 0;
	}
}

/* Whether the reply to the open has to wait for something. */
static bool is_opened_later(const struct open_file *file)
{
	enum tree_reading reading = tree_reading(file->row);
	return (reading == TREE_READ_FETCH && !file->snapshot) ||
	       (reading == TREE_READ_KEPT && file->row->fetch);
}

void open_file_open(struct open_files *files, fuse_req_t req, struct node node,
		    struct fuse_file_info *fi)
{
	int access_mode = fi->flags & O_ACCMODE;
	mode_t mode = tree_mode(node);
	/* modes do not stop root, but there is no such text and no such command: as kernfs does */
	if ((access_mode != O_WRONLY && !(mode & 0444)) ||
	    (access_mode != O_RDONLY && !(mode & 0222))) {
		fuse_reply_err(req, EACCES);
		return;
	}
	struct open_file *file = file_new(files, node, fi->flags);
	if (!file) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	struct ap_err err = {""};
	int r = file_call_init(file, fuse_req_ctx(req), access_mode != O_RDONLY, &err);
	if (r == 0 && access_mode != O_WRONLY)
		r = file_begin(file);
	if (r == 0 && (r = table_add(files, file, &err)) == -ENFILE)
		refused(file, r, &err);
	if (r < 0) {
		fuse_reply_err(req, -r);
		if (file->following)
			follow_close(file);
		file_unref(file);
	} else if (is_opened_later(file)) {
		text_open_later(file, req);
	} else if (!open_reply(file, req, !file->direct && (text_push(file) || !file->is_first))) {
		open_file_end(file); /* interrupted */
	}
}

void open_file_measure(struct open_files *files, fuse_req_t req, struct node node,
		       open_file_measured *measured)
{
	struct open_file *file = file_new(files, node, O_RDONLY);
	struct ap_err err = {""};
	int r = file ? file_call_init(file, fuse_req_ctx(req), false, &err) : -ENOMEM;
	if (r < 0) {
		measured(req, node, -1);
	} else {
		file->measures = true;
		text_measure(file, req, measured);
	}
	if (file)
		file_unref(file);
}

/* --- closing --- */

/* The kernel sends FLUSH at every close of a copy of the descriptor. Only pending bytes are
 * affected: a value without a newline, or an unfinished line at the end of a program's full
 * buffer. */
void open_file_flush(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	struct ap_err err = {""};
	int r = 0;
	bool cut = file && file->writing && file->writing->cut; /* `pending` was not accepted */
	if (file && file->pending.len > 0 && !file->row->take && !cut) {
		r = may_still_write(file, &err);
		if (r < 0) {
			refused(file, r, &err);
		} else if (file->row->set) {
			value_end(file, req);
			ap_buf_fini(&file->pending);
			return;
		} else if (file->row->line) {
			ssize_t done = run_lines(file, file->pending.data, file->pending.len);
			r = done < 0 ? (int)done : 0;
		} else {
			r = ap_err_set(&err, -EINVAL, "the last line has no end");
			refused(file, r, &err);
		}
		ap_buf_fini(&file->pending);
	}
	fuse_reply_err(req, -r);
}

/* The last copy of the descriptor is closed, also when its holder was killed. */
void open_file_release(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	fuse_reply_err(req, 0);
	if (file)
		open_file_end(file);
}
