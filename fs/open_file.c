#include "open_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

void file_ref(struct open_file *file)
{
	atomic_fetch_add(&file->n_refs, 1);
}

void file_unref(void *data)
{
	struct open_file *file = data;
	if (atomic_fetch_sub(&file->n_refs, 1) != 1)
		return;
	tree_call_fini(&file->call);
	ap_buf_fini(&file->pending);
	atomic_fetch_sub(&file->files->text_bytes, file->counted);
	ap_buf_fini(&file->text);
	writing_free(file->writing);
	free(file->following);
	polling_free(file->polling);
	free(file);
}

/* --- the table --- */

/* 64 times a power of two. */
#define OPEN_FILES_MAX 65536u

struct open_files *open_files_new(struct ap_pool *pool, struct parked_set *parked)
{
	struct open_files *files = calloc(1, sizeof *files);
	if (!files)
		return NULL;
	files->pool = pool;
	files->parked = parked;
	ap_list_init(&files->followers);
	ap_list_init(&files->polled);
	pthread_mutex_init(&files->lock, NULL);
	return files;
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

static int table_grow(struct open_files *files, struct ap_err *err)
{
	uint32_t from = files->n_slots, n = from ? 2 * from : 64;
	if (from == OPEN_FILES_MAX)
		return ap_err_set(err, -ENFILE, "%u files are open already", OPEN_FILES_MAX);
	struct slot *slots = realloc(files->slots, n * sizeof *slots);
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = from; i < n; i++) /* the last one's next is where the table ends */
		slots[i] = (struct slot){.next_free = i + 1};
	files->slots = slots;
	files->n_slots = n;
	return 0;
}

static int table_add(struct open_files *files, struct open_file *file, uint64_t *ret_fh,
		     struct ap_err *err)
{
	int r = files->first_free == files->n_slots ? table_grow(files, err) : 0;
	if (r < 0)
		return r;
	uint32_t at = files->first_free;
	files->first_free = files->slots[at].next_free;
	files->slots[at].file = file;
	*ret_fh = (uint64_t)++files->slots[at].generation << 32 | at;
	return 0;
}

static void table_remove(struct open_files *files, uint64_t fh)
{
	uint32_t at = (uint32_t)fh;
	files->slots[at].file = NULL;
	files->slots[at].next_free = files->first_free;
	files->first_free = at;
}

struct open_file *open_file_find(struct open_files *files, uint64_t fh)
{
	uint32_t at = (uint32_t)fh;
	if (at >= files->n_slots || files->slots[at].generation != fh >> 32)
		return NULL;
	return files->slots[at].file;
}

void request_over(struct open_file *file, struct ap_request *request)
{
	pthread_mutex_lock(&file->files->lock);
	if (file->request == request) /* the next line's may be there already */
		file->request = NULL;
	pthread_mutex_unlock(&file->files->lock);
	ap_request_free(request);
}

/* --- open --- */

/* libfuse 3.14 has no field for FOPEN_STREAM: the answer is made by hand, as the kernel reads it.
 */
static int reply_open(fuse_req_t req, uint64_t fh, uint32_t flags)
{
	struct fuse_open_out out = {.fh = fh, .open_flags = flags};
	return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

static struct open_file *file_new(struct open_files *files, struct node node, int open_flags)
{
	struct open_file *file = calloc(1, sizeof *file);
	if (!file)
		return NULL;
	atomic_init(&file->n_refs, 1);
	file->files = files;
	file->row = tree_row(node);
	ap_list_init(&file->readers);
	file->by_handle = file->row->holds && (open_flags & O_ACCMODE) == O_RDWR;
	file->stream = file->by_handle || file->row->parks || file->row->follow || file->row->take;
	file->append = open_flags & O_APPEND;
	return file;
}

void open_file_open(struct open_files *files, fuse_req_t req, struct node node,
		    struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int access_mode = fi->flags & O_ACCMODE;
	mode_t mode = tree_mode(node);
	/* root is above the modes, but there is no such text and no such command, as in kernfs */
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
	int r = 0;
	struct ap_err err = {""};
	if (!tree_call_init(&file->call, files->pool, node, &err))
		r = -ENODEV;
	file->call.err = NULL; /* `err` ends with this call: file_call() */
	file->call.uid = file->call.opener = ctx->uid;
	file->call.tid = ctx->pid;
	file->call.by_handle = file->by_handle;
	struct ap_agent_info info;
	if (r == 0 && file->call.agent && ap_agent_look(files->pool, file->call.agent, &info))
		file->call.token = info.token;
	if (r == 0 && access_mode != O_RDONLY) {
		const struct tree_call call = file_call(file, &err);
		r = tree_may_write(file->row, &call, ctx->uid);
		if (r < 0)
			refused(file, r, &err);
	}
	if (r == 0 && access_mode != O_WRONLY && file->row->show && !file->row->fetch &&
	    !file->by_handle)
		r = text_make(file);
	if (r == 0 && file->row->follow)
		r = follow_open(file);
	uint64_t fh = 0;
	if (r == 0)
		r = table_add(files, file, &fh, &err);
	if (r < 0) {
		if (r == -ENFILE)
			refused(file, r, &err);
		fuse_reply_err(req, -r);
		if (file->following)
			follow_close(file);
		file_unref(file);
		return;
	}
	uint32_t flags = FOPEN_DIRECT_IO;
	if (file->stream)
		flags |= FOPEN_STREAM | FOPEN_NONSEEKABLE;
	if (!file->row->line && !file->row->submit && !file->row->set)
		flags |= FOPEN_NOFLUSH;
	if (reply_open(req, fh, flags) < 0) { /* interrupted: no RELEASE will come */
		table_remove(files, fh);
		if (file->following)
			follow_close(file);
		file_unref(file);
	}
}

/* --- closing --- */

/* Comes at every close of a copy of the descriptor. It means something only to a line without its
 * newline that filled a program's buffer. */
void open_file_flush(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	struct ap_err err = {""};
	int r = 0;
	bool cut = file && file->writing && file->writing->cut; /* what is there was not taken */
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

/* The last copy of the descriptor is closed, however its holder died. */
void open_file_release(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	fuse_reply_err(req, 0);
	if (!file)
		return;
	table_remove(files, fi->fh);
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
	struct ap_request *request = writes ? NULL : file->request;
	if (request)
		ap_request_ref(request);
	pthread_mutex_unlock(&files->lock);
	if (request) {
		ap_request_cancel(files->pool, request);
		ap_request_free(request);
	}
	if (granted)
		ap_pool_release_key(files->pool, lease);
	file_unref(file);
}
