/* Reading an open file: text that is there, text that is still to come, pieces of kept text. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "last_error.h"
#include "open_file_internal.h"

static int show_text(const struct open_file *file, struct ap_buf *out)
{
	struct ap_err err; /* an open sets no last_error */
	struct tree_call call = file_call(file, &err);
	int r = file->row->show(&call, out);
	return r == 0 && out->failed ? -ENOMEM : r;
}

int text_open(struct open_file *file)
{
	struct open_files *files = file->files;
	if (open_files_are_full(files))
		return -ENFILE;
	struct snapshot *snapshot =
		snapshot_open(files->snapshots, file_node(file), &file->is_first);
	if (!snapshot)
		return -ESTALE;
	pthread_mutex_lock(&files->lock);
	file->snapshot = snapshot;
	file->text_state = TEXT_READY;
	pthread_mutex_unlock(&files->lock);
	return 0;
}

/* Not where others have the node open: one of them may be reading, with a page locked in the
 * kernel, and the store would wait for a read that only we can answer. */
bool text_push(struct open_file *file)
{
	const struct ap_buf *text = file->snapshot ? snapshot_text(file->snapshot) : NULL;
	if (!text || text->len == 0 || file->direct || !file->is_first)
		return false;
	struct fuse_bufvec bytes = FUSE_BUFVEC_INIT(text->len);
	bytes.buf[0].mem = text->data;
	return fuse_lowlevel_notify_store(file->files->session, file->ino, 0, &bytes, 0) == 0;
}

const struct ap_buf *file_text_locked(const struct open_file *file)
{
	return file->snapshot && !file->renewed ? snapshot_text(file->snapshot) : &file->text;
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

/* The part of a text that a request wants. */
struct piece {
	size_t size;
	off_t offset;
	bool cached; /* the kernel fills its page cache: offsets mean what they say */
};

/* Replies with what is ready. False: it is still to come. */
static bool reply_text_locked(struct open_file *file, fuse_req_t req, const struct piece *piece)
{
	/* the page cache has the node's text, even if direct readers have a later one */
	if (piece->cached && file->snapshot) {
		reply_slice(req, snapshot_text(file->snapshot), (size_t)piece->offset, piece->size);
		return true;
	}
	if (file->text_state == TEXT_FAILED) {
		fuse_reply_err(req, -file->text_error);
		return true;
	}
	if (file->text_state != TEXT_READY)
		return false;
	const struct ap_buf *text = file_text_locked(file);
	size_t at = file->stream ? file->cursor : (size_t)piece->offset;
	size_t left = at < text->len ? text->len - at : 0;
	file->cursor = at + (piece->size < left ? piece->size : left);
	reply_slice(req, text, at, piece->size);
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
	if (!listed) /* it is not in the list yet, or being answered */
		return;
	struct open_file *file = reader->file;
	bool opens = reader->opens, measures = reader->measured;
	file_ref(file);
	parked_fail(parked, -EINTR);
	if (opens)
		open_file_end(file);
	else if (measures)
		request_cancel(file);
	file_unref(file);
}

struct reader *reader_new(struct open_file *file, fuse_req_t req, parked_interrupted *interrupted)
{
	struct reader *reader = calloc(1, sizeof *reader);
	if (!reader)
		return NULL;
	ap_list_init(&reader->link);
	reader->file = file;
	file_ref(file);
	reader->parked = parked_new(file->files->parked, req, interrupted, reader_free, reader);
	if (!reader->parked) {
		reader_free(reader);
		return NULL;
	}
	return reader;
}

/* Replies to the open whose text has come, or has failed. */
static void answer_open(struct open_file *file, fuse_req_t req, int result)
{
	if (result < 0)
		fuse_reply_err(req, -result);
	if (result < 0 || !open_reply(file, req, text_push(file) || !file->is_first))
		open_file_end(file);
}

static void answer_reader(struct reader *reader, int result)
{
	struct open_file *file = reader->file;
	struct parked *parked = reader->parked;
	const struct piece piece = {.size = reader->size, .offset = reader->offset};
	fuse_req_t req = parked_claim(parked);
	if (req && reader->measured) {
		reader->measured(req, file_node(file),
				 snapshot_size(file->files->snapshots, file_node(file)));
	} else if (req && reader->opens) {
		answer_open(file, req, result);
	} else if (req && result < 0) {
		fuse_reply_err(req, -result);
	} else if (req) {
		pthread_mutex_lock(&file->files->lock);
		reply_text_locked(file, req, &piece);
		pthread_mutex_unlock(&file->files->lock);
	}
	parked_unref(parked);
}

void text_complete(struct open_file *file, int result)
{
	struct ap_list readers;
	ap_list_init(&readers);
	pthread_mutex_lock(&file->files->lock);
	/* the next read fetches a text again that was not there at once; a lease is not asked for
	 * again */
	bool again = result == -EAGAIN && !file->by_handle;
	file->text_state = again ? TEXT_NONE : result < 0 ? TEXT_FAILED : TEXT_READY;
	file->text_error = result;
	ap_list_splice(&file->readers, &readers);
	struct fuse_pollhandle *poller = poll_take_locked(file);
	pthread_mutex_unlock(&file->files->lock);
	poll_notify(poller);
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
		answer_reader(reader, result);
	}
}

/* Stores a text that was made where its readers get it from. */
static int text_made(struct open_file *file, struct ap_buf *text)
{
	struct open_files *files = file->files;
	struct snapshot *snapshot = NULL;
	bool first = false, fetched = tree_reading(file->row) == TREE_READ_FETCH;
	if (file->place) { /* it is in the kept text */
		const struct tree_call call = file_call(file, NULL);
		pthread_mutex_lock(&files->lock);
		file->place->end = file->row->size(&call);
		pthread_mutex_unlock(&files->lock);
		return 0;
	}
	if (file->measures) {
		int64_t len = snapshot_keep(files->snapshots, file_node(file), text);
		return len < 0 ? (int)len : 0;
	}
	if (fetched &&
	    !(snapshot = snapshot_enter(files->snapshots, file_node(file), text, &first)))
		return -ENOMEM;
	pthread_mutex_lock(&files->lock);
	if (fetched) {
		file->snapshot = snapshot;
		file->is_first = first;
	} else {
		text_take_locked(file, text);
		file->renewed = true;
	}
	pthread_mutex_unlock(&files->lock);
	return 0;
}

static void fetch_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	/* a getattr sets no last_error: the open that follows says why */
	if (result < 0 && result != -ECANCELED && !file->measures && *ap_request_why(request))
		last_error_set(file->call.uid, ap_request_why(request));
	if (result == 0 && file->row->show)
		result = show_text(file, ap_request_text(request));
	if (result == 0)
		result = text_made(file, ap_request_text(request));
	request_over(file, request);
	text_complete(file, result);
	file_unref(file);
}

static void fetch_start(struct open_file *file, bool nonblock)
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
	struct ap_err err; /* a read that is refused at once sets no last_error either */
	struct tree_call call = file_call(file, &err);
	call.nonblock = nonblock;
	int r = open_files_are_full(file->files) ? -ENFILE : file->row->fetch(&call, request);
	if (r < 0) {
		request_over(file, request);
		text_complete(file, r);
		file_unref(file);
	}
}

/* Parks a request, and has the text made that the request waits for. */
static void await_text(struct open_file *file, struct reader *reader)
{
	file_ref(file); /* ours: an answer may end the file under us */
	pthread_mutex_lock(&file->files->lock);
	bool interrupted = reader->interrupted, opens = reader->opens;
	if (!interrupted)
		ap_list_append(&file->readers, &reader->link);
	file->text_state = TEXT_COMING;
	pthread_mutex_unlock(&file->files->lock);
	if (!interrupted) {
		fetch_start(file, file->measures); /* a getattr waits for no agent */
	} else {
		parked_fail(reader->parked, -EINTR);
		if (opens)
			open_file_end(file);
	}
	file_unref(file);
}

void text_open_later(struct open_file *file, fuse_req_t req)
{
	struct reader *reader = reader_new(file, req, reader_interrupted);
	if (!reader) {
		fuse_reply_err(req, ENOMEM);
		open_file_end(file);
		return;
	}
	reader->opens = true;
	await_text(file, reader);
}

void text_measure(struct open_file *file, fuse_req_t req, open_file_measured *measured)
{
	struct reader *reader = reader_new(file, req, reader_interrupted);
	if (!reader) {
		measured(req, file_node(file), -1);
		return;
	}
	reader->measured = measured;
	await_text(file, reader);
}

/* Reads a text that is made once for this open file: replies at once if it is there, else parks. */
static void read_text(struct open_file *file, fuse_req_t req, const struct piece *piece,
		      bool nonblock)
{
	struct open_files *files = file->files;
	pthread_mutex_lock(&files->lock);
	bool replied = reply_text_locked(file, req, piece);
	bool nothing_asked = !replied && file->text_state == TEXT_NONE && file->by_handle;
	bool refuse = !replied && file->text_state == TEXT_COMING && nonblock;
	pthread_mutex_unlock(&files->lock);
	if (replied)
		return;
	if (nothing_asked || refuse) { /* EINVAL: a lease by handle is asked for by a write first */
		fuse_reply_err(req, refuse ? EAGAIN : EINVAL);
		return;
	}
	struct reader *reader = reader_new(file, req, reader_interrupted);
	if (!reader) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reader->size = piece->size;
	reader->offset = piece->offset;
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
		fetch_start(file, nonblock);
	else if (came) /* between the two checks */
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

/* The piece that was asked for may have been dropped: a reader that goes on from where it was gets
 * what comes next all the same, so that cat and tail -f miss just the dropped part. */
static void piece_done(struct ap_request *request, int result, void *data)
{
	struct reader *reader = data;
	struct open_file *file = reader->file;
	struct parked *parked = reader->parked;
	const struct ap_buf *text = ap_request_text(request);
	fuse_req_t req = parked_claim(parked);
	if (req && result >= 0) { /* else it is asked for again */
		pthread_mutex_lock(&file->files->lock);
		file->place->shift = ap_request_offset(request) - reader->offset;
		file->place->next_offset = reader->offset + (off_t)text->len;
		pthread_mutex_unlock(&file->files->lock);
	}
	if (req && result < 0)
		fuse_reply_err(req, -result);
	else if (req)
		reply_slice(req, text, 0, text->len);
	ap_request_free(request);
	parked_unref(parked);
}

/* How much a reader who goes on gets of a text that grows meanwhile: up to where the text ended
 * when the reader began, then an end of file, then the rest likewise. So a reader to the end comes
 * to an end, however much is printed, and a follower goes on. files->lock held. */
static size_t until_end_locked(struct open_file *file, const struct piece *piece, off_t shift)
{
	struct ap_err err;
	const struct tree_call call = file_call(file, &err);
	if (piece->cached) /* the kernel asks for no more than the size that it knows */
		return piece->size;
	if (piece->offset != file->place->next_offset ||
	    file->place->end_told) /* the reader begins elsewhere, or goes on behind the end */
		file->place->end = file->row->size(&call);
	off_t left = file->place->end - (piece->offset + shift);
	return left <= 0 ? 0 : (off_t)piece->size < left ? piece->size : (size_t)left;
}

static void read_piece(struct open_file *file, fuse_req_t req, const struct piece *piece)
{
	struct ap_err err;
	const struct tree_call call = file_call(file, &err);
	pthread_mutex_lock(&file->files->lock);
	off_t shift = piece->offset == file->place->next_offset ? file->place->shift : 0;
	size_t size = until_end_locked(file, piece, shift);
	file->place->end_told = size == 0;
	pthread_mutex_unlock(&file->files->lock);
	if (size == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	struct reader *reader = reader_new(file, req, piece_interrupted);
	if (!reader) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reader->offset = piece->offset;
	struct ap_request *request = ap_request_new(piece_done, reader);
	int r = request ? file->row->read(&call, piece->offset + shift, size, request) : -ENOMEM;
	if (r == 0)
		return;
	ap_request_free(request);
	parked_fail(reader->parked, r);
}

void open_file_read(struct open_files *files, fuse_req_t req, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	if (!file) {
		fuse_reply_err(req, EBADF);
		return;
	}
	/* the kernel names the owner of locks in reads that bypass its page cache, and only in
	 * those */
	const struct piece piece = {.size = size, .offset = offset, .cached = fi->lock_owner == 0};
	bool nonblock = fi->flags & O_NONBLOCK;
	bool value = file->row->wakes && offset == 0 && !piece.cached;
	int r = value ? value_renew(file) : 0;
	/* A text that a read waits for is in no page cache: programs that splice fall back to
	 * read(2). A splice that waited would hold the lock of its pipe. */
	if (piece.cached && file->stream && !file->snapshot)
		r = -EINVAL;
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (file->following)
		follow_read(file, req, size, !nonblock);
	else if (file->row->read)
		read_piece(file, req, &piece);
	else
		read_text(file, req, &piece, nonblock);
}
