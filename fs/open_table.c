/* The open files of the mount by their handles, and the references that keep them while something
 * of theirs is under way. open_file.c decides what becomes of a file, in struct open_file_ops. */
#include "open_file_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>

void file_ref(struct open_file *file)
{
	atomic_fetch_add(&file->n_refs, 1);
}

void file_unref(void *data)
{
	struct open_file *file = data;
	if (atomic_fetch_sub(&file->n_refs, 1) == 1)
		file->files->ops->free(file);
}

void open_file_end(struct open_file *file)
{
	file->files->ops->end(file);
}

/* --- the table --- */

/* 64 times a power of two. */
#define OPEN_FILES_MAX 65536u

/* In bytes; a text that crosses the limit is still shown. */
#define TEXTS_MAX (256u << 20)

bool open_files_are_full(const struct open_files *files)
{
	return atomic_load(&files->text_bytes) + snapshots_open_bytes(files->snapshots) > TEXTS_MAX;
}

static int table_grow_locked(struct open_files *files, struct ap_err *err)
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

int table_add(struct open_files *files, struct open_file *file, struct ap_err *err)
{
	pthread_mutex_lock(&files->lock);
	int r = files->first_free == files->n_slots ? table_grow_locked(files, err) : 0;
	if (r == 0) {
		uint32_t at = files->first_free;
		files->first_free = files->slots[at].next_free;
		files->slots[at].file = file;
		file->fh = (uint64_t)++files->slots[at].generation << 32 | at;
	}
	pthread_mutex_unlock(&files->lock);
	return r;
}

void table_remove(struct open_files *files, uint64_t fh)
{
	uint32_t at = (uint32_t)fh;
	pthread_mutex_lock(&files->lock);
	files->slots[at].file = NULL;
	files->slots[at].next_free = files->first_free;
	files->first_free = at;
	pthread_mutex_unlock(&files->lock);
}

/* The result stays valid: the kernel sends RELEASE only when nothing of the handle is under way. */
struct open_file *open_file_find(struct open_files *files, uint64_t fh)
{
	uint32_t at = (uint32_t)fh;
	pthread_mutex_lock(&files->lock);
	bool there = at < files->n_slots && files->slots[at].generation == fh >> 32;
	struct open_file *file = there ? files->slots[at].file : NULL;
	pthread_mutex_unlock(&files->lock);
	return file;
}

void request_over(struct open_file *file, struct ap_request *request)
{
	pthread_mutex_lock(&file->files->lock);
	if (file->request == request) /* the next line's request may be there already */
		file->request = NULL;
	pthread_mutex_unlock(&file->files->lock);
	ap_request_free(request);
}

void request_cancel(struct open_file *file)
{
	pthread_mutex_lock(&file->files->lock);
	struct ap_request *request = file->request;
	if (request)
		ap_request_ref(request);
	pthread_mutex_unlock(&file->files->lock);
	if (!request)
		return;
	ap_request_cancel(file->files->pool, request);
	ap_request_free(request);
}

/* --- the reply to an open --- */

/* libfuse 3.14 has no field for FOPEN_STREAM: the answer is made by hand, as the kernel reads it.
 */
bool open_reply(struct open_file *file, fuse_req_t req, bool keep_cache)
{
	uint32_t flags = keep_cache ? FOPEN_KEEP_CACHE : 0;
	if (file->direct)
		flags |= FOPEN_DIRECT_IO;
	if (file->stream)
		flags |= FOPEN_STREAM | FOPEN_NONSEEKABLE;
	if (!file->row->line && !file->row->submit && !file->row->set)
		flags |= FOPEN_NOFLUSH;
	struct fuse_open_out out = {.fh = file->fh, .open_flags = flags};
	return fuse_reply_buf(req, (const char *)&out, sizeof out) == 0;
}
