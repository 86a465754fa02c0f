/* Leases by handle: the open file is the lease. A write asks for it, a read gets the answer, and
 * the last close of the descriptor ends it. */
#include <errno.h>

#include "last_error.h"
#include "open_file_internal.h"

static void hold_done(struct ap_request *request, int result, void *data)
{
	struct open_file *file = data;
	struct ap_lease_key lease = ap_request_lease(request);
	pthread_mutex_lock(&file->files->lock);
	bool closed = file->closed;
	if (result == 0 && !closed) {
		file->lease = lease;
		file->granted = true;
		text_take_locked(file, ap_request_text(request));
	}
	pthread_mutex_unlock(&file->files->lock);
	if (result < 0)
		last_error_set(file->call.uid, ap_request_why(request));
	request_over(file, request);
	if (result == 0 && closed)
		ap_pool_release_key(file->files->pool, lease);
	text_complete(file, result);
	file_unref(file);
}

/* Writing asks, reading waits: the write returns at once. */
static int hold_line(struct open_file *file, const char *text, size_t len, struct ap_err *err)
{
	char line[LINE_MAX_LEN + 1];
	int r = line_copy(text, len, line, err);
	if (r < 0 || line_is_comment(line))
		return r;
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
		return ap_err_set(err, -EBUSY,
				  "this handle has asked for a lease already: open acquire anew");
	}
	file_ref(file);
	struct tree_call call = file_call(file, err);
	r = file->row->submit(&call, line, request);
	if (r < 0) {
		request_over(file, request);
		text_complete(file, r);
		file_unref(file);
	}
	return r;
}

void hold(struct open_file *file, fuse_req_t req, const char *text, size_t len)
{
	struct ap_err err = {""};
	size_t n = line_length(text, len);
	int r = n == len ? hold_line(file, text, len, &err)
			 : ap_err_set(&err, -EINVAL, "one line asks for one lease");
	if (r < 0) {
		refused(file, r, &err);
		fuse_reply_err(req, -r);
	} else {
		fuse_reply_write(req, len);
	}
}
