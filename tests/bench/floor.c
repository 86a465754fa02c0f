/* floor MOUNTPOINT N_NAMES N_BYTES: the least file system that does what a pool is asked for, as
 * the floor of scripts/bench: every answer costs what kernel, libfuse and one mutex cost, and
 * nothing more.
 *
 *     value  reads as N_BYTES bytes        take, give  a write takes an agent, gives it back
 *     wait   a read waits for a write (EAGAIN where no read waits, or one does already)
 *
 * `take` open for reading and writing is a lease by handle: its close gives the agent back. The
 * root has N_NAMES names besides. One thread, direct I/O, and the kernel keeps names and
 * attributes. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "list.h"

#define FOR_EVER 1e6 /* seconds that the kernel keeps names and attributes */

enum { ROOT = FUSE_ROOT_ID, VALUE, TAKE, GIVE, WAIT, FIRST_NAME };

static const char *const names[] = {
	[VALUE] = "value", [TAKE] = "take", [GIVE] = "give", [WAIT] = "wait"};
static unsigned n_names;
static size_t n_bytes;
static char *text;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ap_list idle, agent; /* protected by lock */
static fuse_req_t waiting;	   /* a read that waits; of the one thread */

static void node_name(fuse_ino_t ino, char *ret_name, size_t size)
{
	if (ino < FIRST_NAME)
		snprintf(ret_name, size, "%s", names[ino]);
	else
		snprintf(ret_name, size, "agent-%lu", (unsigned long)(ino - FIRST_NAME + 1));
}

static struct stat node_stat(fuse_ino_t ino)
{
	if (ino == ROOT || ino >= FIRST_NAME)
		return (struct stat){.st_ino = ino, .st_mode = S_IFDIR | 0755, .st_nlink = 2};
	return (struct stat){.st_ino = ino, .st_mode = S_IFREG | 0666, .st_nlink = 1};
}

static void floor_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {.attr_timeout = FOR_EVER, .entry_timeout = FOR_EVER};
	unsigned long n = 0;
	if (sscanf(name, "agent-%lu", &n) == 1 && n >= 1 && n <= n_names)
		entry.ino = FIRST_NAME + n - 1;
	for (fuse_ino_t ino = VALUE; ino < FIRST_NAME; ino++) {
		if (strcmp(name, names[ino]) == 0)
			entry.ino = ino;
	}
	entry.attr = node_stat(entry.ino);
	if (parent == ROOT && entry.ino)
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, ENOENT);
}

static void floor_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = node_stat(ino);
	fuse_reply_attr(req, &st, FOR_EVER);
}

static void floor_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
			  struct fuse_file_info *fi)
{
	floor_getattr(req, ino, fi);
}

static void floor_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void floor_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void floor_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	size_t len = ino == VALUE ? n_bytes : 1;
	if (ino == TAKE)
		off = 0; /* the answer to what was written before */
	if (ino == WAIT && waiting) {
		fuse_reply_err(req, EAGAIN);
	} else if (ino == WAIT) {
		waiting = req;
	} else {
		if ((size_t)off >= len)
			size = 0;
		else if (size > len - (size_t)off)
			size = len - (size_t)off;
		fuse_reply_buf(req, text + (size ? off : 0), size);
	}
}

static void take(void)
{
	pthread_mutex_lock(&lock);
	ap_list_remove(&agent);
	pthread_mutex_unlock(&lock);
}

static void give(void)
{
	pthread_mutex_lock(&lock);
	ap_list_insert_after(&idle, &agent);
	pthread_mutex_unlock(&lock);
}

static void floor_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	if (ino == WAIT && !waiting) {
		fuse_reply_err(req, EAGAIN);
		return;
	}
	if (ino == WAIT) {
		fuse_reply_buf(waiting, text, 1);
		waiting = NULL;
	} else if (ino == TAKE) {
		take();
	} else if (ino == GIVE) {
		give();
	}
	fuse_reply_write(req, size);
}

static void floor_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino == TAKE && (fi->flags & O_ACCMODE) == O_RDWR)
		give();
	fuse_reply_err(req, 0);
}

static void floor_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			  struct fuse_file_info *fi)
{
	size_t used = 0;
	char *buf = malloc(size);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (off_t at = off; ino == ROOT && at < (off_t)(FIRST_NAME - VALUE + n_names); at++) {
		char name[32];
		struct stat st = node_stat(VALUE + (fuse_ino_t)at);
		node_name(VALUE + (fuse_ino_t)at, name, sizeof name);
		size_t len = fuse_add_direntry(req, buf + used, size - used, name, &st, at + 1);
		if (len > size - used)
			break;
		used += len;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = floor_lookup,
	.getattr = floor_getattr,
	.setattr = floor_setattr,
	.open = floor_open,
	.read = floor_read,
	.write = floor_write,
	.release = floor_release,
	.opendir = floor_opendir,
	.readdir = floor_readdir,
};

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	n_names = (unsigned)strtoul(argv[2], NULL, 10);
	n_bytes = strtoul(argv[3], NULL, 10);
	text = malloc(n_bytes + 1);
	if (!text)
		return 1;
	memset(text, '1', n_bytes + 1);
	ap_list_init(&idle);
	ap_list_append(&idle, &agent);

	struct fuse_args args = FUSE_ARGS_INIT(1, argv); /* the program's name */
	struct fuse_session *session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	int r = 1;
	if (session && fuse_set_signal_handlers(session) == 0 &&
	    fuse_session_mount(session, argv[1]) == 0) {
		r = fuse_session_loop(session) < 0;
		fuse_session_unmount(session);
	}
	if (session)
		fuse_session_destroy(session);
	free(text);
	return r;
}
