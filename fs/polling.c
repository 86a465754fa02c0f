/* Pollers, and what poll reports. A poller who may have to wait is recorded with the state at that
 * time, is notified once when the state differs, and polls again: so nothing here knows which
 * change concerns whom. reading.c and following.c do the reading. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "open_file_internal.h"

/* The poll events of a file that never waits. */
#define POLL_ALWAYS (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)

struct polling {
	struct ap_list
		link; /* files->polled while there is a handle; as the rest, under files->lock */
	struct open_file *file;
	struct fuse_pollhandle *handle; /* to be notified once; owned; NULL: nobody waits */
	uint64_t seen;			/* state when the handle came, or at the last read since */
};

/* --- values --- */

static bool is_value(const struct open_file *file)
{
	return file->row->wakes && file->text_state == TEXT_READY;
}

/* The present text of a value. Any thread: uses only fields of the call that stay as they were at
 * open. */
static int value_now(const struct open_file *file, struct ap_buf *ret)
{
	struct ap_err err;
	const struct tree_call call = {.pool = file->files->pool,
				       .agent = file->call.agent,
				       .index = file->call.index,
				       .err = &err};
	int r = file->row->show(&call, ret);
	return r == 0 && ret->failed ? -ENOMEM : r;
}

int value_renew(struct open_file *file)
{
	struct ap_buf now = {0};
	bool looked = file->looked;
	file->looked = true;
	int r = looked ? value_now(file, &now) : 0;
	if (!looked || r < 0) {
		ap_buf_fini(&now);
		return r;
	}
	pthread_mutex_lock(&file->files->lock);
	text_take_locked(file, &now);
	file->renewed = true;
	if (file->polling) /* pollers are notified when the value differs from this one */
		file->polling->seen = ap_hash(ap_buf_text(&file->text));
	pthread_mutex_unlock(&file->files->lock);
	return 0;
}

/* As in kernfs: a value is always readable, and exceptional (POLLPRI) while it differs from the one
 * that was read last. */
static unsigned value_poll_locked(const struct open_file *file, uint64_t *ret_seen)
{
	AP_CLEANUP_BUF struct ap_buf now = {0};
	int r = value_now(file, &now);
	*ret_seen = r < 0 ? (uint64_t)r : ap_hash(ap_buf_text(&now));
	if (r == -ENODEV)
		return POLL_ALWAYS | POLLPRI | POLLERR | POLLHUP;
	bool same = r < 0 || strcmp(ap_buf_text(&now), ap_buf_text(file_text_locked(file))) == 0;
	return POLL_ALWAYS | (same ? 0 : POLLPRI | POLLERR);
}

/* Readable if the text that a read waits for is there or has failed, or if a read would not
 * wait. */
static unsigned wait_poll_locked(const struct open_file *file, uint64_t *ret_seen)
{
	bool ready = file->text_state == TEXT_READY || file->text_state == TEXT_FAILED ||
		     ap_agent_has_settled(file->files->pool, file->call.agent);
	*ret_seen = ready;
	return ready ? POLLIN | POLLRDNORM : 0;
}

/* A lease by handle: readable once the acquire is answered. */
static unsigned hold_poll_locked(const struct open_file *file, uint64_t *ret_seen)
{
	bool answered = file->text_state == TEXT_READY || file->text_state == TEXT_FAILED;
	*ret_seen = answered;
	return POLLOUT | POLLWRNORM | (answered ? POLLIN | POLLRDNORM : 0);
}

static unsigned look_locked(const struct open_file *file, uint64_t *ret_seen)
{
	if (file->following)
		return follow_poll_locked(file, ret_seen);
	if (file->by_handle)
		return hold_poll_locked(file, ret_seen);
	return file->row->parks ? wait_poll_locked(file, ret_seen)
				: value_poll_locked(file, ret_seen);
}

/* --- who waits --- */

/* Whether the pool's `changed` wakes the pollers of this file. The events wake those of a stream,
 * the answer wakes those of a lease by handle. */
static bool is_told_by_pool(const struct open_file *file)
{
	return !file->following && !file->by_handle;
}

static struct fuse_pollhandle *take_handle_locked(struct polling *polling)
{
	struct fuse_pollhandle *handle = ap_steal(polling->handle);
	ap_list_remove(&polling->link);
	if (handle && is_told_by_pool(polling->file))
		ap_pool_watch(polling->file->files->pool, false);
	return handle;
}

struct fuse_pollhandle *poll_take_locked(struct open_file *file)
{
	return file->polling ? take_handle_locked(file->polling) : NULL;
}

void poll_notify(struct fuse_pollhandle *handle)
{
	if (!handle)
		return;
	(void)fuse_lowlevel_notify_poll(handle); /* the mount may have gone */
	fuse_pollhandle_destroy(handle);
}

static void put_handle_locked(struct polling *polling, struct fuse_pollhandle *handle)
{
	polling->handle = handle;
	ap_list_append(&polling->file->files->polled, &polling->link);
	if (is_told_by_pool(polling->file))
		ap_pool_watch(polling->file->files->pool, true);
}

static struct polling *polling_new(struct open_file *file)
{
	struct polling *polling = calloc(1, sizeof *polling);
	if (!polling)
		return NULL;
	ap_list_init(&polling->link);
	polling->file = file;
	return polling;
}

/* Checks the file, and takes the handle over unless there is one: the state of the first handle's
 * poller is recorded already, and the kernel wakes all who wait for the file. */
static int poll_file(struct open_file *file, struct fuse_pollhandle **handle, unsigned *ret_events)
{
	/* only the FUSE thread, which runs this, sets file->polling */
	struct polling *polling = file->polling ? file->polling : polling_new(file);
	if (!polling)
		return -ENOMEM;
	file->looked = true;
	uint64_t seen;
	pthread_mutex_lock(&file->files->lock);
	file->polling = polling;
	bool waits = *handle && !polling->handle;
	if (waits)
		put_handle_locked(polling, ap_steal(*handle));
	/* after the handle is in place: a later change is notified, or seen here */
	*ret_events = look_locked(file, &seen);
	if (waits)
		polling->seen = seen;
	pthread_mutex_unlock(&file->files->lock);
	return 0;
}

void open_file_poll(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi,
		    struct fuse_pollhandle *handle)
{
	struct open_file *file = open_file_find(files, fi->fh);
	unsigned events = POLL_ALWAYS;
	int r = 0;
	if (file && (file->following || file->row->parks || file->by_handle || is_value(file)))
		r = poll_file(file, &handle, &events);
	if (handle)
		fuse_pollhandle_destroy(handle);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_poll(req, events);
}

void poll_close(struct open_file *file)
{
	if (!file->polling)
		return;
	pthread_mutex_lock(&file->files->lock);
	struct fuse_pollhandle *handle = poll_take_locked(file);
	pthread_mutex_unlock(&file->files->lock);
	if (handle)
		fuse_pollhandle_destroy(handle);
}

void polling_free(struct polling *polling)
{
	if (polling && polling->handle)
		fuse_pollhandle_destroy(polling->handle);
	free(polling);
}

static void notify_pollers(struct open_files *files)
{
	struct ap_list todo;
	ap_list_init(&todo);
	pthread_mutex_lock(&files->lock);
	ap_list_splice(&files->polled, &todo);
	while (!ap_list_empty(&todo)) { /* one that is closed meanwhile takes itself out */
		struct polling *polling = ap_container_of(todo.next, struct polling, link);
		struct fuse_pollhandle *handle = NULL;
		uint64_t seen;
		ap_list_remove(&polling->link);
		ap_list_append(&files->polled, &polling->link);
		(void)look_locked(polling->file, &seen);
		if (seen != polling->seen)
			handle = take_handle_locked(polling);
		pthread_mutex_unlock(&files->lock); /* a long list keeps nobody from the lock */
		poll_notify(handle);
		pthread_mutex_lock(&files->lock);
	}
	pthread_mutex_unlock(&files->lock);
}

void open_files_changed(struct open_files *files)
{
	notify_pollers(files);
	follow_grew(files);
}
