/* The events as a stream: each open file has its own place in the kept file, so that a reader who
 * lags costs no memory. A read that finds nothing is parked until there is more. One thread at a
 * time answers the readers of an open file. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "open_file_internal.h"

/* Bytes read at once, at least: more than any line has. */
#define PIECE_MIN (32u << 10)

struct following {
	struct ap_list link; /* files->followers; as the rest, guarded by files->lock */
	struct open_file *file;
	int64_t offset, seq; /* where the stream goes on; number of the event before */
	size_t wanted;	     /* bytes, by the reader for whom a piece is fetched */
	int error;	     /* of the last piece, until a reader gets it */
	bool answering;	     /* a thread answers the readers */
	bool again;	     /* and has to look once more */
	bool goes_on;	     /* the last read was given events: the reader comes back for more */
};

int follow_open(struct open_file *file)
{
	struct following *f = calloc(1, sizeof *f);
	if (!f)
		return -ENOMEM;
	struct ap_events_end end = ap_pool_events_end(file->files->pool);
	f->file = file;
	f->offset = end.offset;
	f->seq = end.seq;
	file->following = f;
	pthread_mutex_lock(&file->files->lock);
	ap_list_append(&file->files->followers, &f->link);
	pthread_mutex_unlock(&file->files->lock);
	return 0;
}

void follow_close(struct open_file *file)
{
	pthread_mutex_lock(&file->files->lock);
	ap_list_remove(&file->following->link);
	pthread_mutex_unlock(&file->files->lock);
}

static bool has_text_locked(const struct open_file *file)
{
	return file->cursor < file->text.len;
}

static bool can_read_locked(const struct open_file *file, struct ap_events_end end)
{
	const struct following *f = file->following;
	return has_text_locked(file) || f->error || end.over || end.offset > f->offset;
}

/* The number of the event at the start of a line; 0: there is none. */
static int64_t seq_of(const char *line, const char *end)
{
	static const char start[] = "{\"seq\":";
	size_t n = sizeof start - 1;
	return (size_t)(end - line) > n && memcmp(line, start, n) == 0 ? strtoll(line + n, NULL, 10)
								       : 0;
}

/* How many bytes the reader gets: the whole lines that fit, but one line at least. */
static size_t lines_for(const char *text, size_t len, size_t wanted)
{
	const char *last = memrchr(text, '\n', wanted < len ? wanted : len);
	if (!last)
		last = memchr(text, '\n', len);
	return last ? (size_t)(last - text) + 1 : len;
}

/* Takes over what was read, behind an event `missed` if events before it had been dropped. */
static void take_piece_locked(struct open_file *file, const struct ap_buf *piece, int64_t offset)
{
	struct following *f = file->following;
	const char *text = piece->data, *end = text + piece->len;
	ap_buf_fini(&file->text);
	file->cursor = 0;
	if (piece->len == 0)
		return;
	int64_t first = seq_of(text, end);
	const char *newline = memchr(text, '\n', piece->len);
	if (first == 0 && newline && offset > f->offset) { /* a line whose start was dropped */
		text = newline + 1;
		first = text < end ? seq_of(text, end) : 0;
	}
	if (first > f->seq + 1) {
		char when[32];
		ap_clock_rfc3339_us(ap_clock_ns(), when, sizeof when);
		ap_buf_printf(&file->text,
			      "{\"seq\":%" PRId64
			      ",\"time\":\"%s\",\"event\":\"missed\",\"count\":%" PRId64 "}\n",
			      first - 1, when, first - f->seq - 1);
	}
	size_t room = f->wanted > file->text.len ? f->wanted - file->text.len : 0;
	size_t len = lines_for(text, (size_t)(end - text), room);
	ap_buf_add(&file->text, text, len);
	f->offset = offset + (text - piece->data) + (int64_t)len;
	for (const char *line = text; line && line < text + len;) {
		int64_t seq = seq_of(line, end);
		f->seq = seq ? seq : f->seq;
		line = memchr(line, '\n', (size_t)(text + len - line));
		line = line ? line + 1 : NULL;
	}
	if (file->text.failed)
		f->error = -ENOMEM;
}

static void answer_readers(struct open_file *file);

static void piece_came(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	pthread_mutex_lock(&file->files->lock);
	if (result < 0)
		file->following->error = result;
	else
		take_piece_locked(file, ap_request_text(request), ap_request_offset(request));
	pthread_mutex_unlock(&file->files->lock);
	request_over(file, request);
	answer_readers(file);
	file_unref(file);
}

/* Fetches the next piece. files->lock is not held. */
static void fetch_piece(struct open_file *file, int64_t offset, size_t wanted)
{
	struct ap_err err;
	struct ap_request *request = ap_request_new(piece_came, file);
	file_ref(file);
	pthread_mutex_lock(&file->files->lock);
	file->request = request;
	pthread_mutex_unlock(&file->files->lock);
	int r = request ? ap_pool_read_kept(file->files->pool, NULL, AP_KEPT_EVENTS, offset,
					    wanted < PIECE_MIN ? PIECE_MIN : wanted, request, &err)
			: -ENOMEM;
	if (r == 0)
		return;
	if (request)
		request_over(file, request);
	pthread_mutex_lock(&file->files->lock);
	file->following->error = r;
	file->following->again = true;
	pthread_mutex_unlock(&file->files->lock);
	file_unref(file);
}

/* Replies to the reader with what there is: an error, text, or the end of the stream. */
static void answer_reader(struct reader *reader)
{
	struct open_file *file = reader->file;
	struct following *f = file->following;
	struct parked *parked = reader->parked;
	fuse_req_t req = parked_claim(parked);
	pthread_mutex_lock(&file->files->lock);
	if (req && f->error) {
		fuse_reply_err(req, -f->error);
		f->error = 0;
	} else if (req) {
		size_t left = file->text.len - file->cursor;
		size_t n = reader->size < left ? reader->size : left;
		fuse_reply_buf(req, n ? file->text.data + file->cursor : NULL, n);
		file->cursor += n;
		f->goes_on = n > 0;
		if (!has_text_locked(file)) {
			ap_buf_fini(&file->text);
			file->cursor = 0;
		}
	}
	pthread_mutex_unlock(&file->files->lock);
	parked_unref(parked);
}

/* Answers the first reader, or fetches what that reader waits for. True: there may be more to
 * do. */
static bool answer_one(struct open_file *file)
{
	struct following *f = file->following;
	struct ap_events_end end = ap_pool_events_end(file->files->pool);
	pthread_mutex_lock(&file->files->lock);
	struct reader *reader = ap_list_empty(&file->readers)
					? NULL
					: ap_container_of(file->readers.next, struct reader, link);
	bool idle = !reader || file->request || !can_read_locked(file, end);
	bool fetch = !idle && !has_text_locked(file) && !f->error && end.offset > f->offset;
	bool again = f->again;
	f->again = false;
	if (idle && !again)
		f->answering = false;
	if (!idle && !fetch)
		ap_list_remove(&reader->link);
	int64_t offset = f->offset;
	size_t wanted = reader ? reader->size : 0;
	if (fetch)
		f->wanted = wanted;
	pthread_mutex_unlock(&file->files->lock);
	if (fetch)
		fetch_piece(file, offset, wanted);
	else if (!idle)
		answer_reader(reader);
	return !idle || again;
}

static void answer_readers(struct open_file *file)
{
	struct following *f = file->following;
	pthread_mutex_lock(&file->files->lock);
	bool busy = f->answering;
	f->again = busy;
	f->answering = true;
	pthread_mutex_unlock(&file->files->lock);
	while (!busy && answer_one(file))
		;
}

void follow_read(struct open_file *file, fuse_req_t req, size_t size, bool wait)
{
	struct open_files *files = file->files;
	struct ap_events_end end = ap_pool_events_end(files->pool);
	pthread_mutex_lock(&files->lock);
	bool ready = can_read_locked(file, end);
	pthread_mutex_unlock(&files->lock);
	if (!ready && !wait) {
		fuse_reply_err(req, EAGAIN);
		return;
	}
	struct reader *reader = reader_new(file, req, reader_interrupted);
	if (!reader) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	reader->size = size;
	pthread_mutex_lock(&files->lock);
	bool interrupted = reader->interrupted;
	if (!interrupted)
		ap_list_append(&file->readers, &reader->link);
	pthread_mutex_unlock(&files->lock);
	if (interrupted)
		parked_fail(reader->parked, -EINTR);
	else
		answer_readers(file);
}

/* `ret_seen` is where the events end. */
unsigned follow_poll_locked(const struct open_file *file, uint64_t *ret_seen)
{
	struct ap_events_end end = ap_pool_events_end(file->files->pool);
	unsigned events = can_read_locked(file, end) ? POLLIN | POLLRDNORM : 0;
	*ret_seen = (uint64_t)end.offset << 1 | end.over;
	return events | (end.over ? POLLHUP : 0);
}

bool open_files_end_is_told(struct open_files *files)
{
	bool told = true;
	struct ap_list *at;
	pthread_mutex_lock(&files->lock);
	ap_list_for_each (at, &files->followers)
		told = told && !ap_container_of(at, struct following, link)->goes_on;
	pthread_mutex_unlock(&files->lock);
	return told;
}

void follow_grew(struct open_files *files)
{
	struct ap_list todo;
	ap_list_init(&todo);
	pthread_mutex_lock(&files->lock);
	ap_list_splice(&files->followers, &todo);
	while (!ap_list_empty(&todo)) { /* one that is closed meanwhile takes itself out */
		struct following *f = ap_container_of(todo.next, struct following, link);
		struct open_file *file = f->file;
		ap_list_remove(&f->link);
		ap_list_append(&files->followers, &f->link);
		file_ref(file);
		pthread_mutex_unlock(&files->lock);
		answer_readers(file);
		file_unref(file);
		pthread_mutex_lock(&files->lock);
	}
	pthread_mutex_unlock(&files->lock);
}
