/* Writing to an open file: lines that are done at once, lines that are answered later while the
 * write is parked, texts that the row gets whole at the last close, and values. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "last_error.h"
#include "open_file_internal.h"

/* A write shorter than this that does not end in a newline ends its line all the same, as with
 * procfs: `printf job > acquire`. A longer one is a program's full buffer: its last line goes on in
 * the next write. */
#define BLOCK_SIZE 4096

/* Bytes of texts being written that the mount holds at most. */
#define TAKING_MAX (256 << 20)

/* Bytes of command lines whose writes are parked, likewise. */
#define LINES_MAX (64 << 20)

/* Lines of one write that are done at once: the writer repeats the rest, and others have their turn
 * meanwhile. */
#define LINES_AT_ONCE 512

size_t line_length(const char *text, size_t len)
{
	const char *newline = memchr(text, '\n', len);
	return newline ? (size_t)(newline + 1 - text) : len;
}

int line_copy(const char *text, size_t len, char ret[LINE_MAX_LEN + 1], struct ap_err *err)
{
	if (len > 0 && text[len - 1] == '\n')
		len--;
	if (len > LINE_MAX_LEN)
		return ap_err_set(err, -EINVAL, "the line is longer than %d bytes", LINE_MAX_LEN);
	if (memchr(text, '\0', len))
		return ap_err_set(err, -EINVAL, "the line has a NUL in it");
	memcpy(ret, text, len);
	ret[len] = '\0';
	return 0;
}

void refused(const struct open_file *file, int error, const struct ap_err *err)
{
	last_error_set(file->call.uid, err->text[0] ? err->text : strerror(-error));
}

int may_still_write(struct open_file *file, struct ap_err *err)
{
	const struct tree_call call = file_call(file, err);
	return tree_may_write(file->row, &call, file->call.uid);
}

/* How much of `text` is whole lines; all of it where the last line ends with the write. */
static size_t whole_lines(const char *text, size_t len, bool is_block)
{
	if (!is_block)
		return len;
	const char *newline = memrchr(text, '\n', len);
	return newline ? (size_t)(newline + 1 - text) : 0;
}

ssize_t run_lines(struct open_file *file, const char *text, size_t len)
{
	char line[LINE_MAX_LEN + 1];
	size_t done = 0;
	for (unsigned i = 0; done < len && i < LINES_AT_ONCE; i++) {
		size_t n = line_length(text + done, len - done);
		struct ap_err err = {""};
		struct tree_call call = file_call(file, &err);
		int r = line_copy(text + done, n, line, &err);
		if (r == 0 && !line_is_comment(line))
			r = file->row->line(&call, line);
		if (r < 0) {
			refused(file, r, &err);
			return done ? (ssize_t)done : r;
		}
		done += n;
	}
	return (ssize_t)done;
}

/* How many of its `size` bytes the write returns when `done` of `whole` bytes had their effect:
 * earlier writes returned the first `from`, and the start of a line that goes on counts as
 * written. */
static size_t written(size_t done, size_t whole, size_t from, size_t size)
{
	if (done == whole)
		return size;
	return done > from ? done - from : 0;
}

/* --- commands that are answered later --- */

void writing_free(struct writing *writing)
{
	if (!writing)
		return;
	ap_buf_fini(&writing->work);
	free(writing);
}

/* Longest write that is remembered: longer than what libraries buffer. */
#define REFUSED_MAX (64 << 10)

static void remember_refused(struct writing *writing, int error)
{
	size_t len = writing->work.len - writing->work_from;
	if (len > REFUSED_MAX)
		return;
	writing->refused_len = len;
	writing->refused_hash = ap_hash_bytes(writing->work.data + writing->work_from, len);
	writing->refused_error = error;
}

/* Whether a write repeats the refused one. Libraries that buffer (Python's, for one) write refused
 * bytes again when they close, and so would get a lease that nobody knows of: they get the same
 * answer, once. */
static bool repeats_refused(struct open_file *file, const char *data, size_t size)
{
	struct writing *writing = file->writing;
	if (!writing)
		return false;
	bool repeats = size > 0 && writing->refused_len == size &&
		       ap_hash_bytes(data, size) == writing->refused_hash;
	writing->refused_len = 0;
	return repeats;
}

static void write_finish(struct open_file *file, int result)
{
	struct writing *writing = file->writing;
	struct parked *parked = writing->parked;
	struct ap_lease_key lease = file->lease;
	bool acquired = result == 0 && file->row->holds && lease.token;
	size_t n =
		written(writing->done, writing->work.len, writing->work_from, writing->write_size);
	writing->parked = NULL;
	writing->cut = n < writing->write_size;
	if (writing->cut && writing->is_block && n > 0)
		file->block_left = writing->write_size - n;
	pthread_mutex_lock(&file->files->lock);
	bool interrupted = writing->interrupted;
	pthread_mutex_unlock(&file->files->lock);
	if (acquired && interrupted)
		result = -ECANCELED;
	if (result < 0 && n == 0)
		remember_refused(writing, result);
	atomic_fetch_sub(&file->files->line_bytes, writing->work.len);
	ap_buf_fini(&writing->work);
	fuse_req_t req = parked_claim(parked);
	int r = -ENOENT;
	if (req && result < 0 && (n == 0 || interrupted))
		r = fuse_reply_err(req, -result);
	else if (req)
		r = fuse_reply_write(req, n);
	/* the writer was killed in the moment of the grant: nobody knows of the lease */
	if (acquired && (r == -ENOENT || interrupted))
		ap_pool_release_key(file->files->pool, lease);
	parked_unref(parked);
}

static void write_continue(struct open_file *file);

static void submit_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	struct open_files *files = file->files;
	struct writing *writing = file->writing;
	if (result < 0)
		last_error_set(file->call.uid, ap_request_why(request));
	pthread_mutex_lock(&files->lock);
	if (result == 0)
		file->lease = ap_request_lease(request);
	writing->answer = result;
	writing->answered = true;
	bool inside = writing->submitting;
	pthread_mutex_unlock(&files->lock);
	request_over(file, request);
	if (!inside) {
		if (result == 0) {
			writing->done += writing->line_len;
			write_continue(file);
		} else {
			write_finish(file, result);
		}
	}
	file_unref(file);
}

/* Submits one line. enum tree_submitted, or negative errno. */
static int submit_line(struct open_file *file, char *line)
{
	struct open_files *files = file->files;
	struct writing *writing = file->writing;
	struct ap_err err = {""};
	struct tree_call call = file_call(file, &err);
	struct ap_request *request = ap_request_new(submit_done, file);
	if (!request)
		return -ENOMEM;
	file_ref(file);
	ap_request_ref(request);
	pthread_mutex_lock(&files->lock);
	file->request = request;
	writing->submitting = true;
	writing->answered = false;
	pthread_mutex_unlock(&files->lock);
	int r = file->row->submit(&call, line, request);
	pthread_mutex_lock(&files->lock);
	writing->submitting = false;
	bool answered = writing->answered, interrupted = writing->interrupted;
	int answer = writing->answer;
	pthread_mutex_unlock(&files->lock);
	if (r != TREE_PENDING) {
		if (r < 0)
			refused(file, r, &err);
		request_over(file, request);
		file_unref(file);
	} else if (answered) {
		r = answer < 0 ? answer : TREE_DONE;
	} else if (interrupted) { /* while it was being submitted */
		ap_request_cancel(files->pool, request);
	}
	ap_request_free(request);
	return r;
}

static void write_continue(struct open_file *file)
{
	struct writing *writing = file->writing;
	char line[LINE_MAX_LEN + 1];
	int r = TREE_DONE;
	for (unsigned i = 0;
	     r == TREE_DONE && writing->done < writing->work.len && i < LINES_AT_ONCE; i++) {
		pthread_mutex_lock(&file->files->lock);
		bool interrupted = writing->interrupted;
		pthread_mutex_unlock(&file->files->lock);
		if (interrupted) {
			r = -ECANCELED;
			break;
		}
		const char *at = writing->work.data + writing->done;
		struct ap_err err = {""};
		writing->line_len = line_length(at, writing->work.len - writing->done);
		r = line_copy(at, writing->line_len, line, &err);
		if (r < 0)
			refused(file, r, &err);
		else
			r = line_is_comment(line) ? TREE_DONE : submit_line(file, line);
		if (r == TREE_PENDING)
			return; /* submit_done goes on */
		if (r == TREE_DONE)
			writing->done += writing->line_len;
	}
	write_finish(file, r < 0 ? r : 0);
}

static void writer_interrupted(struct parked *parked, void *data)
{
	struct open_file *file = data;
	struct open_files *files = file->files;
	(void)parked;
	pthread_mutex_lock(&files->lock);
	file->writing->interrupted = true;
	struct ap_request *request = file->writing->submitting ? NULL : file->request;
	if (request)
		ap_request_ref(request);
	pthread_mutex_unlock(&files->lock);
	if (!request)
		return; /* submit_line() checks `interrupted` afterwards */
	ap_request_cancel(files->pool, request);
	ap_request_free(request);
}

/* Parks the write and submits its lines. The write is alone on its node, so that no other writer
 * waits for the lock that the kernel holds meanwhile. */
static void submit_lines(struct open_file *file, fuse_req_t req, const char *text, size_t len,
			 size_t from, size_t size, bool is_block)
{
	struct writing *writing = file->writing;
	struct ap_err err;
	size_t held = atomic_load(&file->files->line_bytes);
	if (held + len > LINES_MAX) {
		ap_err_set(&err, -EAGAIN, "lines of %zu bytes wait for their answers already",
			   held);
		refused(file, -EAGAIN, &err);
		fuse_reply_err(req, EAGAIN);
		return;
	}
	if (!writing && !(writing = file->writing = calloc(1, sizeof *writing))) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	writing->work.len = 0;
	writing->work_from = from;
	writing->write_size = size;
	writing->is_block = is_block;
	writing->done = 0;
	writing->interrupted = false;
	file->lease.token = 0;
	ap_buf_add(&writing->work, text, len);
	file_ref(file); /* the parked request's */
	struct parked *parked = writing->work.failed
					? NULL
					: parked_new(file->files->parked, req, writer_interrupted,
						     file_unref, file);
	if (!parked) {
		ap_buf_fini(&writing->work);
		file_unref(file);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	writing->parked = parked;
	atomic_fetch_add(&file->files->line_bytes, writing->work.len);
	file_ref(file); /* ours: the last answer may end the file under us */
	write_continue(file);
	file_unref(file);
}

/* --- texts that are taken whole --- */

static int take_piece(struct open_file *file, const char *data, size_t size, struct ap_err *err)
{
	struct ap_pool *pool = file->files->pool;
	int64_t max = ap_pool_config_number(pool, AP_OPT_MAX_PROMPT);
	if ((int64_t)(file->pending.len + size) > max)
		return ap_err_set(err, -EMSGSIZE, "the prompt is over max_prompt");
	if (file->files->taking_bytes + size > TAKING_MAX)
		return ap_err_set(err, -EAGAIN, "prompts of %zu bytes are being written already",
				  file->files->taking_bytes);
	if (!ap_buf_reserve(&file->pending, size))
		return -ENOMEM;
	int r = 0;
	if (!file->taking)
		r = ap_agent_prompt_begin(pool, file->call.agent, file->call.token, err);
	if (r < 0)
		return r;
	file->taking = true;
	r = ap_agent_prompt_grow(pool, file->call.agent, file->call.token, size, err);
	if (r < 0)
		return r;
	ap_buf_add(&file->pending, data, size);
	file->files->taking_bytes += size;
	return 0;
}

/* Ends a text that is taken or given up. */
static void take_over(struct open_file *file)
{
	size_t len = file->pending.len;
	ap_buf_fini(&file->pending);
	if (!file->taking)
		return;
	file->taking = false;
	file->files->taking_bytes -= len;
	ap_agent_prompt_end(file->files->pool, file->call.agent, file->call.token, len);
}

static void take(struct open_file *file, fuse_req_t req, const char *data, size_t size)
{
	struct ap_err err = {""};
	if (file->broken) {
		fuse_reply_err(req, EIO); /* last_error has said why */
		return;
	}
	int r = take_piece(file, data, size, &err);
	if (r < 0) {
		file->broken = true;
		take_over(file);
		refused(file, r, &err);
		fuse_reply_err(req, -r);
	} else {
		fuse_reply_write(req, size);
	}
}

void take_end(struct open_file *file)
{
	struct ap_err err = {""};
	struct tree_call call = file_call(file, &err);
	if (!file->taking)
		return;
	int r = may_still_write(file, &err);
	if (r == 0)
		r = file->row->take(&call, file->pending.data, file->pending.len);
	if (r < 0) /* only last_error can still say so */
		refused(file, r, &err);
	take_over(file);
}

/* --- values --- */

/* A write or a close that waits until the state store has its value. */
struct value_answer {
	struct open_file *file; /* with a reference */
	struct parked *parked;
	size_t size; /* of the write; 0: it is a close */
};

static void value_free(void *data)
{
	struct value_answer *answer = data;
	file_unref(answer->file);
	free(answer);
}

static void value_reply(const struct value_answer *answer, fuse_req_t req, int result)
{
	if (result < 0 || answer->size == 0)
		fuse_reply_err(req, -result);
	else
		fuse_reply_write(req, answer->size);
}

/* Replies at once; the value stays set. */
static void value_interrupted(struct parked *parked, void *data)
{
	const struct value_answer *answer = data;
	fuse_req_t req = parked_claim(parked);
	if (req)
		value_reply(answer, req, answer->size > 0 ? -ECANCELED : -EINTR);
}

static void value_done(struct ap_request *request, int result, void *data)
{
	struct value_answer *answer = data;
	struct parked *parked = answer->parked;
	if (result < 0)
		last_error_set(answer->file->call.uid, ap_request_why(request));
	fuse_req_t req = parked_claim(parked);
	if (req)
		value_reply(answer, req, result);
	parked_unref(parked);
}

/* Sets the value, and replies when the state store has it. */
static void value_set(struct open_file *file, fuse_req_t req, char *value, size_t size)
{
	struct value_answer *answer = calloc(1, sizeof *answer);
	struct ap_request *request = answer ? ap_request_new(value_done, answer) : NULL;
	if (request) {
		answer->file = file;
		answer->size = size;
		file_ref(file);
		answer->parked =
			parked_new(file->files->parked, req, value_interrupted, value_free, answer);
	}
	if (!request || !answer->parked) {
		if (request)
			file_unref(file);
		free(answer);
		ap_request_free(request);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	struct parked *parked = answer->parked;
	struct ap_err err = {""};
	struct tree_call call = file_call(file, &err);
	int r = file->row->set(&call, value, request);
	if (r < 0) {
		refused(file, r, &err);
		req = parked_claim(parked);
		if (req)
			fuse_reply_err(req, -r);
		parked_unref(parked);
	}
	ap_request_free(request);
}

/* Checks a piece of a value. The caller sets a value with a newline at once. One without is only
 * checked, so that a shell sees a bad value refused, and set when the file is closed: until then it
 * may be the beginning of another, which is refused too. */
static int value_piece(struct open_file *file, const char *data, size_t size,
		       char ret[LINE_MAX_LEN + 1], struct ap_err *err)
{
	const char *newline = memchr(data, '\n', size), *fault = NULL;
	size_t len = newline ? size - 1 : size;
	if (file->append)
		fault = "a value is replaced, not appended to: write with > instead of >>";
	else if (file->pending.len > 0)
		fault = "a value is written in one piece";
	else if (newline && newline != data + size - 1)
		fault = "one value, not several lines";
	else if (len > LINE_MAX_LEN)
		fault = "the value is too long";
	else if (memchr(data, '\0', len))
		fault = "the value has a NUL in it";
	ap_buf_fini(&file->pending);
	if (fault)
		return ap_err_set(err, -EINVAL, "%s: %s", file->row->name, fault);
	memcpy(ret, data, len);
	ret[len] = '\0';
	struct tree_call call = file_call(file, err);
	int r = newline ? 0 : file->row->set(&call, ret, NULL);
	if (r == 0 && !newline) {
		ap_buf_add(&file->pending, data, size);
		r = file->pending.failed ? -ENOMEM : 0;
	}
	return r;
}

void value_end(struct open_file *file, fuse_req_t req)
{
	value_set(file, req, file->pending.data, 0);
}

static void value_write(struct open_file *file, fuse_req_t req, const char *data, size_t size)
{
	char value[LINE_MAX_LEN + 1];
	struct ap_err err = {""};
	int r = value_piece(file, data, size, value, &err);
	if (r < 0) {
		refused(file, r, &err);
		fuse_reply_err(req, -r);
	} else if (file->pending.len > 0) { /* it is set at the close */
		fuse_reply_write(req, size);
	} else {
		value_set(file, req, value, size);
	}
}

/* --- what a write is --- */

/* Drops the first `n` bytes. The rest waits for the rest of its line, and takes no more memory than
 * it has bytes. */
static void pending_drop(struct open_file *file, size_t n)
{
	struct ap_buf rest = {0};
	if (file->pending.len > n)
		ap_buf_add(&rest, file->pending.data + n, file->pending.len - n);
	if (rest.failed) {
		ap_buf_fini(&rest);
		ap_buf_drop(&file->pending, n);
		return;
	}
	ap_buf_fini(&file->pending);
	file->pending = rest;
}

void open_file_write(struct open_files *files, fuse_req_t req, const char *data, size_t size,
		     struct fuse_file_info *fi)
{
	struct open_file *file = open_file_find(files, fi->fh);
	if (!file) {
		fuse_reply_err(req, EBADF);
		return;
	}
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct ap_err err = {""};
	const struct tree_call call = file_call(file, &err);
	int r = tree_may_write(file->row, &call, ctx->uid);
	if (r < 0) { /* earlier bytes stay pending, but a text would have a hole */
		if (file->taking && ctx->uid == file->call.uid) {
			file->broken = true;
			take_over(file);
		}
		last_error_set(ctx->uid, err.text);
		fuse_reply_err(req, -r);
		return;
	}
	file->call.uid = ctx->uid;
	file->call.tid = ctx->pid;
	if (file->row->take) {
		take(file, req, data, size);
		return;
	}
	if (file->row->set) {
		value_write(file, req, data, size);
		return;
	}
	if (file->by_handle) {
		hold(file, req, data, size);
		return;
	}
	if (file->row->submit && repeats_refused(file, data, size)) {
		fuse_reply_err(req, -file->writing->refused_error);
		return;
	}
	if (file->writing && file->writing->cut) { /* the writer has the rest, as below */
		ap_buf_fini(&file->pending);
		file->writing->cut = false;
	}
	/* the rest of a block is one too, however short */
	bool is_block = size >= BLOCK_SIZE || (file->block_left > 0 && size == file->block_left);
	file->block_left = 0;
	size_t from = file->pending.len;
	ap_buf_add(&file->pending, data, size);
	size_t whole = whole_lines(ap_buf_text(&file->pending), file->pending.len, is_block);
	if (file->pending.failed || file->pending.len - whole > LINE_MAX_LEN) {
		int error = file->pending.failed ? ENOMEM : EINVAL;
		ap_buf_fini(&file->pending);
		ap_err_set(&err, -error, "the line is longer than %d bytes", LINE_MAX_LEN);
		refused(file, -error, &err);
		fuse_reply_err(req, error);
		return;
	}
	if (file->row->submit) {
		submit_lines(file, req, file->pending.data, whole, from, size, is_block);
		pending_drop(file, whole);
		return;
	}
	ssize_t done = run_lines(file, file->pending.data, whole);
	if (done == (ssize_t)whole) {
		pending_drop(file, whole);
	} else { /* the writer has the rest, with the unfinished last line */
		ap_buf_fini(&file->pending);
		if (is_block && done > (ssize_t)from)
			file->block_left = size - ((size_t)done - from);
	}
	if (done < 0)
		fuse_reply_err(req, (int)-done);
	else
		fuse_reply_write(req, written((size_t)done, whole, from, size));
}
