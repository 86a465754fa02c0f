/* Reading an open file: text that is there, text that is still to come, pieces of kept text. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "last_error.h"
#include "open_file_internal.h"

/* Of all open files together; the text that comes to be over it is shown still. */
#define TEXTS_MAX (256 << 20)

static bool too_much_is_shown(const struct open_files *files)
{
	return atomic_load(&files->text_bytes) > TEXTS_MAX;
}

static int show_text(const struct open_file *file, struct ap_buf *out)
{
	struct ap_err err; /* there is no last_error for an open */
	struct tree_call call = file_call(file, &err);
	int r = file->row->show(&call, out);
	return r == 0 && out->failed ? -ENOMEM : r;
}

int text_make(struct open_file *file)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int r = too_much_is_shown(file->files) ? -ENFILE : show_text(file, &text);
	pthread_mutex_lock(&file->files->lock);
	if (r == 0)
		text_take_locked(file, &text);
	file->text_state = r < 0 ? TEXT_FAILED : TEXT_READY;
	pthread_mutex_unlock(&file->files->lock);
	return r;
}

void text_take_locked(struct open_file *file, struct ap_buf *text)
{
	atomic_fetch_sub(&file->files->text_bytes, file->counted);
	ap_buf_fini(&file->text);
	file->text = *text;
	*text = (struct ap_buf){0};
	file->counted = file->text.len;
	atomic_fetch_add(&file->files->text_bytes, file->counted);
}

void parked_fail(struct parked *parked, int error)
{
	fuse_req_t req = parked_claim(parked);
	if (req)
		fuse_reply_err(req, -error);
	parked_unref(parked);
}

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

void reader_interrupted(struct parked *parked, void *data)
{
	struct reader *reader = data;
	struct open_files *files = reader->file->files;
	pthread_mutex_lock(&files->lock);
	bool listed = !ap_list_empty(&reader->link);
	ap_list_remove(&reader->link);
	reader->interrupted = true;
	pthread_mutex_unlock(&files->lock);
	if (listed) /* else it is not in the list yet, or being answered */
		parked_fail(parked, -EINTR);
}

struct reader *reader_new(struct open_file *file, fuse_req_t req, size_t size, off_t offset,
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

void text_complete(struct open_file *file, int result)
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

static void fetch_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	if (result < 0 && result != -ECANCELED && *ap_request_why(request))
		last_error_set(file->call.uid, ap_request_why(request));
	if (result == 0 && file->row->show)
		result = show_text(file, ap_request_text(request));
	pthread_mutex_lock(&file->files->lock);
	if (result == 0)
		text_take_locked(file, ap_request_text(request));
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
	struct ap_err err; /* nor for a read that is refused at once */
	struct tree_call call = file_call(file, &err);
	int r = too_much_is_shown(file->files) ? -ENFILE : file->row->fetch(&call, request);
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
	if (interrupted)
		parked_fail(reader->parked, -EINTR);
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

/* What was asked for may have been dropped: a reader that goes on from where it was is given what
 * comes next all the same, so that cat and tail -f miss just that. */
static void piece_done(struct ap_request *request, int result, void *data)
{
	struct reader *reader = data;
	struct open_file *file = reader->file;
	struct parked *parked = reader->parked;
	const struct ap_buf *text = ap_request_text(request);
	fuse_req_t req = parked_claim(parked);
	if (req && result >= 0) { /* else it is asked for again */
		pthread_mutex_lock(&file->files->lock);
		file->shift = ap_request_offset(request) - reader->offset;
		file->next_offset = reader->offset + (off_t)text->len;
		pthread_mutex_unlock(&file->files->lock);
	}
	if (req && result < 0)
		fuse_reply_err(req, -result);
	else if (req)
		reply_slice(req, text, 0, text->len);
	ap_request_free(request);
	parked_unref(parked);
}

static void read_piece(struct open_file *file, fuse_req_t req, size_t size, off_t offset)
{
	struct reader *reader = reader_new(file, req, size, offset, piece_interrupted);
	struct ap_request *request = reader ? ap_request_new(piece_done, reader) : NULL;
	pthread_mutex_lock(&file->files->lock);
	off_t shift = offset == file->next_offset ? file->shift : 0;
	pthread_mutex_unlock(&file->files->lock);
	struct ap_err err;
	struct tree_call call = file_call(file, &err);
	int r = request ? file->row->read(&call, offset + shift, size, request) : -ENOMEM;
	if (!reader)
		fuse_reply_err(req, ENOMEM);
	if (r == 0 || !reader)
		return;
	ap_request_free(request);
	parked_fail(reader->parked, r);
}

void open_file_read(struct open_files *files, fuse_req_t req, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	int r = file && file->row->wakes && offset == 0 ? value_renew(file) : 0;
	if (!file)
		fuse_reply_err(req, EBADF);
	else if (r < 0)
		fuse_reply_err(req, -r);
	else if (file->following)
		follow_read(file, req, size, !(fi->flags & O_NONBLOCK));
	else if (file->row->read)
		read_piece(file, req, size, offset);
	else
		read_text(file, req, size, offset);
}
