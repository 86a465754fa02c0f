#include "open_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../core/list.h"
#include "last_error.h"

/* A write shorter than this that does not end in a newline ends its line all the same, as with
 * procfs: `printf job > acquire`. A longer one is a program's full buffer: its last line goes on in
 * the next. */
#define BLOCK_SIZE   4096
#define LINE_MAX_LEN 4096

enum text_state {
	TEXT_NONE,   /* nothing was asked for yet */
	TEXT_COMING, /* readers wait */
	TEXT_READY,
	TEXT_FAILED, /* text_error */
};

struct open_file {
	atomic_uint n_refs; /* the table's; of each request and parked request under way */
	struct open_files *files;
	const struct tree_row *row;
	struct tree_call call; /* with the agent pinned; uid and tid are those of the last write */
	struct ap_err err;     /* of call */
	bool by_handle;	       /* it is a lease, or will be */
	bool stream;	       /* offsets mean nothing: `cursor` counts */

	/* the FUSE thread's own */
	struct ap_buf pending; /* written: a line that goes on, or the text so far */
	bool taking;	       /* the pool knows that a text is being written */
	bool broken;	       /* a piece of the text was refused: none of it is taken */

	/* guarded by files->lock */
	enum text_state text_state;
	int text_error;
	struct ap_buf text;
	size_t cursor;
	struct ap_list readers;	    /* struct reader */
	struct ap_request *request; /* under way, with our reference; at most one */
	struct ap_lease_key lease;  /* the last one granted through this file */
	bool granted;		    /* by_handle: it is held */
	bool closed;		    /* RELEASE has come */

	/* a parked write: its lines are submitted one after the other */
	struct parked *writer;
	struct ap_buf work;
	size_t work_from; /* bytes of it that earlier writes brought */
	size_t write_size;
	size_t done,
		line_len; /* bytes whose commands have had their effect; of the line under way */
	bool submitting;  /* guarded by files->lock: submit() has not returned yet */
	bool answered;	  /* likewise: the answer came before it did */
	bool interrupted; /* likewise: the writer is to die */
	int answer;
};

struct slot {
	struct open_file *file;
	uint32_t generation;
};

struct open_files {
	struct ap_pool *pool;
	struct parked_set *parked;
	pthread_mutex_t lock;
	struct slot *slots;	      /* the FUSE thread's own */
	uint32_t n_slots, first_free; /* no slot before first_free is free */
};

/* A parked read. Freed with its parked request. */
struct reader {
	struct ap_list link; /* file->readers; files->lock */
	struct open_file *file;
	struct parked *parked;
	size_t size;
	off_t offset;
	bool interrupted; /* before it was in the list; files->lock */
};

static void file_ref(struct open_file *file)
{
	atomic_fetch_add(&file->n_refs, 1);
}

static void file_unref(void *data)
{
	struct open_file *file = data;
	if (atomic_fetch_sub(&file->n_refs, 1) != 1)
		return;
	tree_call_fini(&file->call);
	ap_buf_fini(&file->pending);
	ap_buf_fini(&file->text);
	ap_buf_fini(&file->work);
	free(file);
}

/* --- the table ---------------------------------------------------------------------------------
 */

struct open_files *open_files_new(struct ap_pool *pool, struct parked_set *parked)
{
	struct open_files *files = calloc(1, sizeof *files);
	if (!files)
		return NULL;
	files->pool = pool;
	files->parked = parked;
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

static int table_add(struct open_files *files, struct open_file *file, uint64_t *ret_fh)
{
	uint32_t at = files->first_free;
	while (at < files->n_slots && files->slots[at].file)
		at++;
	if (at == files->n_slots) {
		uint32_t n = files->n_slots ? 2 * files->n_slots : 64;
		struct slot *slots = realloc(files->slots, n * sizeof *slots);
		if (!slots)
			return -ENOMEM;
		memset(slots + files->n_slots, 0, (n - files->n_slots) * sizeof *slots);
		files->slots = slots;
		files->n_slots = n;
	}
	files->slots[at].file = file;
	files->first_free = at + 1;
	*ret_fh = (uint64_t)++files->slots[at].generation << 32 | at;
	return 0;
}

static void table_remove(struct open_files *files, uint64_t fh)
{
	uint32_t at = (uint32_t)fh;
	files->slots[at].file = NULL;
	if (at < files->first_free)
		files->first_free = at;
}

static struct open_file *table_find(struct open_files *files, uint64_t fh)
{
	uint32_t at = (uint32_t)fh;
	if (at >= files->n_slots || files->slots[at].generation != fh >> 32)
		return NULL;
	return files->slots[at].file;
}

/* --- open --------------------------------------------------------------------------------------
 */

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
	file->stream = file->by_handle || file->row->parks || file->row->take;
	return file;
}

/* Text that is made at open: what is read later is this. */
static int make_text(struct open_file *file)
{
	int r = file->row->show(&file->call, &file->text);
	if (r == 0 && file->text.failed)
		r = -ENOMEM;
	file->text_state = r < 0 ? TEXT_FAILED : TEXT_READY;
	return r;
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
	if (!tree_call_init(&file->call, files->pool, node, &file->err))
		r = -ENODEV;
	file->call.uid = ctx->uid;
	file->call.tid = ctx->pid;
	file->call.by_handle = file->by_handle;
	if (r == 0 && access_mode != O_WRONLY && file->row->show && !file->by_handle)
		r = make_text(file);
	uint64_t fh = 0;
	if (r == 0)
		r = table_add(files, file, &fh);
	if (r < 0) {
		fuse_reply_err(req, -r);
		file_unref(file);
		return;
	}
	uint32_t flags = FOPEN_DIRECT_IO;
	if (file->stream)
		flags |= FOPEN_STREAM | FOPEN_NONSEEKABLE;
	if (!file->row->line && !file->row->submit)
		flags |= FOPEN_NOFLUSH;
	if (reply_open(req, fh, flags) < 0) { /* interrupted: no RELEASE will come */
		table_remove(files, fh);
		file_unref(file);
	}
}

/* --- reading -----------------------------------------------------------------------------------
 */

static void reply_slice(fuse_req_t req, const struct ap_buf *text, size_t at, size_t size)
{
	size_t left = at < text->len ? text->len - at : 0;
	fuse_reply_buf(req, left ? text->data + at : NULL, size < left ? size : left);
}

/* Replies with what is ready. False: it is still to come. */
static bool reply_text_locked(struct open_file *file, fuse_req_t req, size_t size, off_t offset)
{
	if (file->text_state == TEXT_FAILED) {
		fuse_reply_err(req, -file->text_error);
		return true;
	}
	if (file->text_state != TEXT_READY)
		return false;
	size_t at = file->stream ? file->cursor : (size_t)offset;
	size_t left = at < file->text.len ? file->text.len - at : 0;
	file->cursor = at + (size < left ? size : left);
	reply_slice(req, &file->text, at, size);
	return true;
}

static void reader_free(void *data)
{
	struct reader *reader = data;
	file_unref(reader->file);
	free(reader);
}

static void reader_interrupted(struct parked *parked, void *data)
{
	struct reader *reader = data;
	struct open_files *files = reader->file->files;
	pthread_mutex_lock(&files->lock);
	bool listed = !ap_list_empty(&reader->link);
	ap_list_remove(&reader->link);
	reader->interrupted = true;
	pthread_mutex_unlock(&files->lock);
	if (!listed)
		return; /* it is not in the list yet, or being answered */
	fuse_req_t req = parked_claim(parked);
	if (req)
		fuse_reply_err(req, EINTR);
	parked_unref(parked);
}

static struct reader *reader_new(struct open_file *file, fuse_req_t req, size_t size, off_t offset,
				 parked_interrupted *interrupted)
{
	struct reader *reader = calloc(1, sizeof *reader);
	if (!reader)
		return NULL;
	ap_list_init(&reader->link);
	reader->file = file;
	file_ref(file);
	reader->size = size;
	reader->offset = offset;
	reader->parked = parked_new(file->files->parked, req, interrupted, reader_free, reader);
	if (!reader->parked) {
		reader_free(reader);
		return NULL;
	}
	return reader;
}

/* The text has come, or the reason why not: all who wait are answered. */
static void text_complete(struct open_file *file, int result)
{
	struct ap_list readers;
	ap_list_init(&readers);
	pthread_mutex_lock(&file->files->lock);
	file->text_state = result < 0 ? TEXT_FAILED : TEXT_READY;
	file->text_error = result;
	ap_list_splice(&file->readers, &readers);
	pthread_mutex_unlock(&file->files->lock);
	for (;;) { /* an interrupt may take one out under us */
		struct reader *reader = NULL;
		pthread_mutex_lock(&file->files->lock);
		if (!ap_list_empty(&readers)) {
			reader = ap_container_of(readers.next, struct reader, link);
			ap_list_remove(&reader->link);
		}
		pthread_mutex_unlock(&file->files->lock);
		if (!reader)
			return;
		struct parked *parked = reader->parked;
		fuse_req_t req = parked_claim(parked);
		pthread_mutex_lock(&file->files->lock);
		if (req)
			reply_text_locked(file, req, reader->size, reader->offset);
		pthread_mutex_unlock(&file->files->lock);
		parked_unref(parked);
	}
}

/* Takes the request that has been answered off the file. */
static void request_over(struct open_file *file, struct ap_request *request)
{
	pthread_mutex_lock(&file->files->lock);
	file->request = NULL;
	pthread_mutex_unlock(&file->files->lock);
	ap_request_free(request);
}

static void fetch_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	pthread_mutex_lock(&file->files->lock);
	if (result == 0) {
		ap_buf_fini(&file->text);
		file->text = *ap_request_text(request);
		*ap_request_text(request) = (struct ap_buf){0};
	}
	pthread_mutex_unlock(&file->files->lock);
	request_over(file, request);
	text_complete(file, result);
	file_unref(file);
}

static void fetch_start(struct open_file *file)
{
	struct ap_request *request = ap_request_new(fetch_done, file);
	if (!request) {
		text_complete(file, -ENOMEM);
		return;
	}
	file_ref(file);
	pthread_mutex_lock(&file->files->lock);
	file->request = request;
	pthread_mutex_unlock(&file->files->lock);
	int r = file->row->fetch(&file->call, request);
	if (r < 0) {
		request_over(file, request);
		text_complete(file, r);
		file_unref(file);
	}
}

/* Reads what is made once for this open file: replied to at once if it is there, else parked. */
static void read_text(struct open_file *file, fuse_req_t req, size_t size, off_t offset)
{
	struct open_files *files = file->files;
	pthread_mutex_lock(&files->lock);
	bool replied = reply_text_locked(file, req, size, offset);
	bool nothing_asked = !replied && file->text_state == TEXT_NONE && file->by_handle;
	pthread_mutex_unlock(&files->lock);
	if (replied)
		return;
	if (nothing_asked) { /* a lease by handle: what is wanted is written first */
		fuse_reply_err(req, EINVAL);
		return;
	}
	struct reader *reader = reader_new(file, req, size, offset, reader_interrupted);
	if (!reader) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&files->lock);
	bool start = file->text_state == TEXT_NONE;
	bool came = file->text_state == TEXT_READY || file->text_state == TEXT_FAILED;
	bool interrupted = reader->interrupted;
	if (!interrupted)
		ap_list_append(&file->readers, &reader->link);
	if (start)
		file->text_state = TEXT_COMING;
	int result = file->text_state == TEXT_FAILED ? file->text_error : 0;
	pthread_mutex_unlock(&files->lock);
	if (interrupted) {
		struct parked *parked = reader->parked;
		if (parked_claim(parked))
			fuse_reply_err(req, EINTR);
		parked_unref(parked);
	}
	if (start)
		fetch_start(file);
	else if (came) /* between the two looks */
		text_complete(file, result);
}

/* A piece of kept text: each read is a request of its own. */
static void piece_interrupted(struct parked *parked, void *data)
{
	(void)data;
	fuse_req_t req = parked_claim(parked);
	if (req)
		fuse_reply_err(req, EINTR);
}

static void piece_done(struct ap_request *request, int result, void *data)
{
	struct parked *parked = data;
	fuse_req_t req = parked_claim(parked);
	if (req && result < 0)
		fuse_reply_err(req, -result);
	else if (req)
		reply_slice(req, ap_request_text(request), 0, ap_request_text(request)->len);
	ap_request_free(request);
	parked_unref(parked);
}

static void read_piece(struct open_file *file, fuse_req_t req, size_t size, off_t offset)
{
	struct reader *reader = reader_new(file, req, size, offset, piece_interrupted);
	struct ap_request *request = reader ? ap_request_new(piece_done, reader->parked) : NULL;
	int r = request ? file->row->read(&file->call, offset, size, request) : -ENOMEM;
	if (!reader)
		fuse_reply_err(req, ENOMEM);
	if (r == 0 || !reader)
		return;
	ap_request_free(request);
	struct parked *parked = reader->parked;
	if (parked_claim(parked))
		fuse_reply_err(req, -r);
	parked_unref(parked);
}

void open_file_read(struct open_files *files, fuse_req_t req, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct open_file *file = table_find(files, fi->fh);
	if (!file)
		fuse_reply_err(req, EBADF);
	else if (file->row->read)
		read_piece(file, req, size, offset);
	else
		read_text(file, req, size, offset);
}

/* --- writing -----------------------------------------------------------------------------------
 */

/* The length of the line at the start of `text` with its newline; all of it if there is none. */
static size_t line_length(const char *text, size_t len)
{
	const char *newline = memchr(text, '\n', len);
	return newline ? (size_t)(newline + 1 - text) : len;
}

/* Copies the line without its newline. 1: nothing to do, a comment. -EINVAL. */
static int line_copy(struct open_file *file, const char *text, size_t len,
		     char ret[LINE_MAX_LEN + 1])
{
	if (len > 0 && text[len - 1] == '\n')
		len--;
	if (len > LINE_MAX_LEN)
		return ap_err_set(&file->err, -EINVAL, "the line is longer than %d bytes",
				  LINE_MAX_LEN);
	if (memchr(text, '\0', len))
		return ap_err_set(&file->err, -EINVAL, "the line has a NUL in it");
	memcpy(ret, text, len);
	ret[len] = '\0';
	return ret[0] == '#';
}

static void refused(struct open_file *file, int error)
{
	last_error_set(file->call.uid, file->err.text[0] ? file->err.text : strerror(-error));
}

/* The part of `text` that is whole lines, or all of it where the last line ends with the write. */
static size_t whole_lines(const char *text, size_t len, size_t size)
{
	if (size < BLOCK_SIZE)
		return len;
	const char *newline = memrchr(text, '\n', len);
	return newline ? (size_t)(newline + 1 - text) : 0;
}

/* Lines whose commands are done at once. Returns the bytes that had their effect, or the error of
 * the first line. */
static ssize_t run_lines(struct open_file *file, const char *text, size_t len)
{
	char line[LINE_MAX_LEN + 1];
	size_t done = 0;
	while (done < len) {
		size_t n = line_length(text + done, len - done);
		file->err.text[0] = '\0';
		int r = line_copy(file, text + done, n, line);
		if (r == 0)
			r = file->row->line(&file->call, line);
		if (r < 0) {
			refused(file, r);
			return done ? (ssize_t)done : r;
		}
		done += n;
	}
	return (ssize_t)done;
}

/* What the writer is told of `done` bytes that had their effect, of `whole`: earlier writes have
 * been told of some, and what goes on in the next write is taken too. */
static size_t written(const struct open_file *file, size_t done, size_t whole)
{
	if (done == whole)
		return file->write_size;
	return done > file->work_from ? done - file->work_from : 0;
}

static void write_finish(struct open_file *file, int result)
{
	struct parked *writer = file->writer;
	struct ap_lease_key lease = file->lease;
	bool acquired = result == 0 && file->row->holds && lease.token;
	size_t n = written(file, file->done, file->work.len);
	file->writer = NULL;
	pthread_mutex_lock(&file->files->lock);
	bool interrupted = file->interrupted;
	pthread_mutex_unlock(&file->files->lock);
	if (acquired && interrupted)
		result = -ECANCELED;
	fuse_req_t req = parked_claim(writer);
	int r = -ENOENT;
	if (req && result < 0 && (n == 0 || interrupted))
		r = fuse_reply_err(req, -result);
	else if (req)
		r = fuse_reply_write(req, n);
	/* the writer was killed in the moment of the grant: nobody has heard of the lease */
	if (acquired && (r == -ENOENT || interrupted))
		ap_pool_release_key(file->files->pool, lease);
	parked_unref(writer);
}

static void write_continue(struct open_file *file);

static void submit_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	struct open_files *files = file->files;
	if (result < 0)
		last_error_set(file->call.uid, ap_request_err(request)->text);
	pthread_mutex_lock(&files->lock);
	if (result == 0)
		file->lease = ap_request_lease(request);
	file->answer = result;
	file->answered = true;
	bool inside = file->submitting;
	pthread_mutex_unlock(&files->lock);
	request_over(file, request);
	if (!inside) {
		if (result == 0) {
			file->done += file->line_len;
			write_continue(file);
		} else {
			write_finish(file, result);
		}
	}
	file_unref(file);
}

/* Submits one line. 0: answered with success; 1: the answer is to come; or negative errno. */
static int submit_line(struct open_file *file, char *line)
{
	struct open_files *files = file->files;
	struct ap_request *request = ap_request_new(submit_done, file);
	if (!request)
		return -ENOMEM;
	file_ref(file);
	ap_request_ref(request);
	pthread_mutex_lock(&files->lock);
	file->request = request;
	file->submitting = true;
	file->answered = false;
	pthread_mutex_unlock(&files->lock);
	int r = file->row->submit(&file->call, line, request);
	pthread_mutex_lock(&files->lock);
	file->submitting = false;
	bool answered = file->answered, interrupted = file->interrupted;
	int answer = file->answer;
	pthread_mutex_unlock(&files->lock);
	if (r < 0) {
		refused(file, r);
		request_over(file, request);
		file_unref(file);
	} else if (answered) {
		r = answer;
	} else {
		if (interrupted) /* while it was being submitted */
			ap_request_cancel(files->pool, request);
		r = 1;
	}
	ap_request_free(request);
	return r;
}

static void write_continue(struct open_file *file)
{
	char line[LINE_MAX_LEN + 1];
	int r = 0;
	while (r == 0 && file->done < file->work.len) {
		pthread_mutex_lock(&file->files->lock);
		bool interrupted = file->interrupted;
		pthread_mutex_unlock(&file->files->lock);
		if (interrupted) {
			r = -ECANCELED;
			break;
		}
		const char *at = file->work.data + file->done;
		file->line_len = line_length(at, file->work.len - file->done);
		file->err.text[0] = '\0';
		r = line_copy(file, at, file->line_len, line);
		if (r < 0)
			refused(file, r);
		else
			r = r == 1 ? 0 : submit_line(file, line);
		if (r == 1)
			return; /* submit_done goes on */
		if (r == 0)
			file->done += file->line_len;
	}
	write_finish(file, r);
}

static void writer_interrupted(struct parked *parked, void *data)
{
	struct open_file *file = data;
	struct open_files *files = file->files;
	(void)parked;
	pthread_mutex_lock(&files->lock);
	file->interrupted = true;
	struct ap_request *request = file->submitting ? NULL : file->request;
	if (request)
		ap_request_ref(request);
	pthread_mutex_unlock(&files->lock);
	if (!request)
		return; /* who submits looks at `interrupted` afterwards */
	ap_request_cancel(files->pool, request);
	ap_request_free(request);
}

/* Commands that are answered later: the write is parked. It is alone on its node, so that no other
 * writer waits for the lock that the kernel holds meanwhile. */
static void submit_lines(struct open_file *file, fuse_req_t req, const char *text, size_t len)
{
	file->work.len = 0;
	file->done = 0;
	file->lease.token = 0;
	file->interrupted = false;
	ap_buf_add(&file->work, text, len);
	file_ref(file); /* the parked request's */
	struct parked *writer = file->work.failed
					? NULL
					: parked_new(file->files->parked, req, writer_interrupted,
						     file_unref, file);
	if (!writer) {
		file->work.failed = false;
		file_unref(file);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	file->writer = writer;
	file_ref(file); /* ours: the last answer may close it under us */
	write_continue(file);
	file_unref(file);
}

/* --- leases by handle --------------------------------------------------------------------------
 */

static void hold_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	struct ap_lease_key lease = ap_request_lease(request);
	pthread_mutex_lock(&file->files->lock);
	bool closed = file->closed;
	if (result == 0 && !closed) {
		file->lease = lease;
		file->granted = true;
		ap_buf_fini(&file->text);
		file->text = *ap_request_text(request);
		*ap_request_text(request) = (struct ap_buf){0};
	}
	pthread_mutex_unlock(&file->files->lock);
	if (result < 0)
		last_error_set(file->call.uid, ap_request_err(request)->text);
	request_over(file, request);
	if (result == 0 && closed)
		ap_pool_release_key(file->files->pool, lease);
	text_complete(file, result);
	file_unref(file);
}

/* Writing asks, reading waits: the write returns at once. */
static int hold_line(struct open_file *file, const char *text, size_t len)
{
	char line[LINE_MAX_LEN + 1];
	int r = line_copy(file, text, len, line);
	if (r != 0)
		return r < 0 ? r : 0;
	struct ap_request *request = ap_request_new(hold_done, file);
	if (!request)
		return -ENOMEM;
	pthread_mutex_lock(&file->files->lock);
	bool taken = file->request || file->granted;
	if (!taken) {
		file->request = request;
		file->text_state = TEXT_COMING;
		file->text.len = file->cursor = 0;
	}
	pthread_mutex_unlock(&file->files->lock);
	if (taken) {
		ap_request_free(request);
		return ap_err_set(&file->err, -EBUSY, "this handle has asked for a lease already");
	}
	file_ref(file);
	r = file->row->submit(&file->call, line, request);
	if (r < 0) {
		request_over(file, request);
		text_complete(file, r);
		file_unref(file);
	}
	return r;
}

static void hold(struct open_file *file, fuse_req_t req, const char *text, size_t len)
{
	size_t n = line_length(text, len);
	int r = n == len ? hold_line(file, text, len)
			 : ap_err_set(&file->err, -EINVAL, "one line asks for one lease");
	if (r < 0) {
		refused(file, r);
		fuse_reply_err(req, -r);
	} else {
		fuse_reply_write(req, len);
	}
}

/* --- texts that are taken whole ----------------------------------------------------------------
 */

static int take_piece(struct open_file *file, const char *data, size_t size)
{
	struct ap_agent_info info;
	struct ap_pool *pool = file->files->pool;
	if (!ap_agent_look(pool, file->call.agent, &info))
		return ap_err_set(&file->err, -ENODEV, "the agent is gone");
	if (info.activity == AP_ACTIVITY_EXITED)
		return ap_err_set(&file->err, -EIO, "the program of %s has ended: restart it",
				  info.name);
	int64_t max = ap_pool_config_number(pool, AP_OPT_MAX_PROMPT);
	if ((int64_t)(file->pending.len + size) > max)
		return ap_err_set(&file->err, -EMSGSIZE, "the prompt is over max_prompt");
	ap_buf_add(&file->pending, data, size);
	if (file->pending.failed)
		return -ENOMEM;
	if (!file->taking)
		ap_agent_prompt_open(pool, file->call.agent, true);
	file->taking = true;
	return 0;
}

static void take(struct open_file *file, fuse_req_t req, const char *data, size_t size)
{
	int r = file->broken ? -EIO : take_piece(file, data, size);
	if (r < 0) {
		file->broken = true;
		refused(file, r);
		fuse_reply_err(req, -r);
	} else {
		fuse_reply_write(req, size);
	}
}

static void take_end(struct open_file *file)
{
	if (!file->taking)
		return;
	if (!file->broken) {
		int r = file->row->take(&file->call, file->pending.data, file->pending.len);
		if (r < 0) /* nobody can be told any more but by last_error */
			refused(file, r);
	}
	ap_agent_prompt_open(file->files->pool, file->call.agent, false);
}

void open_file_write(struct open_files *files, fuse_req_t req, const char *data, size_t size,
		     struct fuse_file_info *fi)
{
	struct open_file *file = table_find(files, fi->fh);
	if (!file) {
		fuse_reply_err(req, EBADF);
		return;
	}
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	file->call.uid = ctx->uid;
	file->call.tid = ctx->pid;
	file->call.err = &file->err;
	file->err.text[0] = '\0';
	if (file->row->take) {
		take(file, req, data, size);
		return;
	}
	if (file->by_handle) {
		hold(file, req, data, size);
		return;
	}
	file->work_from = file->pending.len;
	file->write_size = size;
	ap_buf_add(&file->pending, data, size);
	size_t whole = whole_lines(ap_buf_text(&file->pending), file->pending.len, size);
	if (file->pending.failed || file->pending.len - whole > LINE_MAX_LEN) {
		int error = file->pending.failed ? ENOMEM : EINVAL;
		ap_buf_fini(&file->pending);
		ap_err_set(&file->err, -error, "the line is longer than %d bytes", LINE_MAX_LEN);
		refused(file, -error);
		fuse_reply_err(req, error);
		return;
	}
	if (file->row->submit) {
		submit_lines(file, req, file->pending.data, whole);
		ap_buf_drop(&file->pending, whole);
		return;
	}
	ssize_t done = run_lines(file, file->pending.data, whole);
	ap_buf_drop(&file->pending, whole);
	if (done < 0)
		fuse_reply_err(req, (int)-done);
	else
		fuse_reply_write(req, written(file, (size_t)done, whole));
}

/* --- closing -----------------------------------------------------------------------------------
 */

/* Comes at every close of a copy of the descriptor. It means something only to a line without its
 * newline that filled a program's buffer. */
void open_file_flush(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_file *file = table_find(files, fi->fh);
	int r = 0;
	if (file && file->pending.len > 0 && !file->row->take) {
		if (file->row->line) {
			ssize_t done = run_lines(file, file->pending.data, file->pending.len);
			r = done < 0 ? (int)done : 0;
		} else {
			r = ap_err_set(&file->err, -EINVAL, "the last line has no end");
			refused(file, r);
		}
		ap_buf_fini(&file->pending);
	}
	fuse_reply_err(req, -r);
}

/* The last copy of the descriptor is closed, however its holder died. */
void open_file_release(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_file *file = table_find(files, fi->fh);
	fuse_reply_err(req, 0);
	if (!file)
		return;
	table_remove(files, fi->fh);
	if (file->row->take)
		take_end(file);
	pthread_mutex_lock(&files->lock);
	file->closed = true;
	bool granted = file->granted;
	struct ap_lease_key lease = file->lease;
	struct ap_request *request = file->writer ? NULL : file->request;
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
