/* A test that is the kernel: it speaks FUSE's protocol to a session over a socket, without a mount
 * and without /dev/fuse, so that what is asked, in which order and when it is interrupted is the
 * test's. Every request has one reply: another one, or one to nobody, fails the test. */
#pragma once

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "parked.h"

#define REPLY_WAIT_MS (60 * 1000)
#define REPLY_MAX     (128 << 10)

/* A request, from when it is sent until its reply is taken. */
struct kernel_request {
	uint64_t unique; /* 0: a free slot */
	bool replied;
	int error;  /* negative errno, or 0 */
	size_t len; /* of what is behind the header */
	char *data; /* that; NULL: nothing */
};

static struct {
	int fd; /* the kernel's end */
	pthread_t thread;
	uint64_t last_unique;
	struct kernel_request requests[4096];
	uint64_t poll_notified; /* `kh` of the last notification of poll; 0: none */
	unsigned n_poll_notified;
	uid_t uid; /* who asks */
} kernel;

/* --- replies --- */

/* Numbers of requests are even; that of an interrupt is its request's and one more. */
static inline struct kernel_request *kernel_find(uint64_t unique)
{
	return &kernel.requests[unique / 2 % 4096];
}

static inline void kernel_interrupt(uint64_t unique);

static inline void kernel_notified(int code, const char *data, size_t len)
{
	if (code == FUSE_NOTIFY_POLL) {
		struct fuse_notify_poll_wakeup_out out;
		assert_int_equal(len, sizeof out);
		memcpy(&out, data, sizeof out);
		kernel.poll_notified = out.kh;
		kernel.n_poll_notified++;
	} else if (code != FUSE_NOTIFY_STORE && code != FUSE_NOTIFY_INVAL_ENTRY) {
		fail_msg("notified of %d", code);
	}
}

/* Takes one message of the session. False: none has come within that time. */
static inline bool kernel_receive(int timeout_ms)
{
	static char message[REPLY_MAX];
	struct fuse_out_header head;
	struct pollfd ready = {.fd = kernel.fd, .events = POLLIN};
	if (poll(&ready, 1, timeout_ms) != 1)
		return false;
	ssize_t n = recv(kernel.fd, message, sizeof message, 0);
	if (n <= 0)
		return false;
	assert_true((size_t)n >= sizeof head);
	memcpy(&head, message, sizeof head);
	assert_int_equal(head.len, n);
	size_t len = (size_t)n - sizeof head;
	if (head.unique == 0) {
		kernel_notified(head.error, message + sizeof head, len);
		return true;
	}
	struct kernel_request *request = kernel_find(head.unique);
	if (head.unique % 2 ==
	    1) { /* an interrupt of a request that is not known yet, or not any more */
		assert_int_equal(head.error, -EAGAIN);
		if (request->unique == head.unique - 1 && !request->replied)
			kernel_interrupt(request->unique);
		return true;
	}
	if (request->unique != head.unique)
		fail_msg("a reply to nobody");
	if (request->replied)
		fail_msg("a second reply");
	request->replied = true;
	request->error = head.error;
	request->len = len;
	request->data = len > 0 ? malloc(len) : NULL;
	if (len > 0)
		memcpy(request->data, message + sizeof head, len);
	return true;
}

static inline bool kernel_has_reply(uint64_t unique)
{
	while (kernel_receive(0))
		;
	return kernel_find(unique)->replied;
}

/* Waits for a reply and takes it. The bytes that it has, of which `ret` gets as many as fit and a
 * NUL, or a negative errno. */
static inline int kernel_reply(uint64_t unique, void *ret, size_t size)
{
	struct kernel_request *request = kernel_find(unique);
	assert_int_equal(request->unique, unique);
	while (!request->replied) {
		if (!kernel_receive(REPLY_WAIT_MS))
			fail_msg("no reply");
	}
	size_t len = request->len < size ? request->len : size;
	if (len > 0)
		memcpy(ret, request->data, len);
	if (ret && len < size)
		((char *)ret)[len] = '\0';
	int r = request->error < 0 ? request->error : (int)request->len;
	free(request->data);
	*request = (struct kernel_request){0};
	return r;
}

/* --- requests --- */

static inline void kernel_send_as(uint64_t unique, uint32_t opcode, uint64_t nodeid,
				  const void *arg, size_t arg_len, const void *more,
				  size_t more_len)
{
	struct fuse_in_header head = {
		.len = (uint32_t)(sizeof head + arg_len + more_len),
		.opcode = opcode,
		.unique = unique,
		.nodeid = nodeid,
		.uid = kernel.uid,
		.gid = kernel.uid,
	};
	struct iovec parts[] = {{.iov_base = &head, .iov_len = sizeof head},
				{.iov_base = (void *)arg, .iov_len = arg_len},
				{.iov_base = (void *)more, .iov_len = more_len}};
	assert_int_equal(writev(kernel.fd, parts, 3), head.len);
}

/* Sends a request: its argument, and what follows that. What it is replied to by. */
static inline uint64_t kernel_send(uint32_t opcode, uint64_t nodeid, const void *arg,
				   size_t arg_len, const void *more, size_t more_len)
{
	uint64_t unique = kernel.last_unique += 2;
	struct kernel_request *request = kernel_find(unique);
	assert_int_equal(request->unique, 0);
	request->unique = unique;
	kernel_send_as(unique, opcode, nodeid, arg, arg_len, more, more_len);
	return unique;
}

static inline void kernel_interrupt(uint64_t unique)
{
	struct fuse_interrupt_in in = {.unique = unique};
	kernel_send_as(unique + 1, FUSE_INTERRUPT, 0, &in, sizeof in, NULL, 0);
}

/* Looks a path up from the root, as an open does. What its last part is; -errno. */
static inline int kernel_look_up(const char *path, struct fuse_entry_out *ret)
{
	char copy[256], *rest = copy;
	*ret = (struct fuse_entry_out){.nodeid = FUSE_ROOT_ID};
	assert_true(strlen(path) < sizeof copy);
	strcpy(copy, path);
	for (const char *name; (name = strsep(&rest, "/"));) {
		uint64_t unique =
			kernel_send(FUSE_LOOKUP, ret->nodeid, name, strlen(name) + 1, NULL, 0);
		int r = kernel_reply(unique, ret, sizeof *ret);
		if (r < 0)
			return r;
		assert_int_equal(r, sizeof *ret);
	}
	return 0;
}

struct kernel_file {
	uint64_t nodeid, fh;
	uint64_t size;	/* as it was told when it was looked up */
	uint32_t flags; /* of open(2) */
	off_t offset;
	bool direct; /* its reads do not come from the page cache */
};

static inline uint64_t kernel_open_begin(const char *path, int flags, struct kernel_file *ret)
{
	struct fuse_entry_out entry;
	assert_int_equal(kernel_look_up(path, &entry), 0);
	struct fuse_open_in in = {.flags = (uint32_t)flags};
	*ret = (struct kernel_file){
		.nodeid = entry.nodeid, .size = entry.attr.size, .flags = (uint32_t)flags};
	return kernel_send(FUSE_OPEN, entry.nodeid, &in, sizeof in, NULL, 0);
}

static inline int kernel_open_reply(uint64_t unique, struct kernel_file *file)
{
	struct fuse_open_out out;
	int r = kernel_reply(unique, &out, sizeof out);
	if (r < 0)
		return r;
	file->fh = out.fh;
	file->direct = out.open_flags & FOPEN_DIRECT_IO;
	return 0;
}

static inline int kernel_try_open(const char *path, int flags, struct kernel_file *ret)
{
	return kernel_open_reply(kernel_open_begin(path, flags, ret), ret);
}

static inline struct kernel_file kernel_open(const char *path, int flags)
{
	struct kernel_file file;
	int r = kernel_try_open(path, flags, &file);
	if (r < 0)
		fail_msg("%s: %s", path, strerror(-r));
	return file;
}

static inline uint64_t kernel_read_begin(struct kernel_file *file, size_t size)
{
	struct fuse_read_in in = {
		.fh = file->fh,
		.offset = (uint64_t)file->offset,
		.size = (uint32_t)size,
		.flags = file->flags,
		/* the kernel names an owner for what passes its page cache by, and only then */
		.read_flags = file->direct ? FUSE_READ_LOCKOWNER : 0,
		.lock_owner = file->direct ? 1 : 0,
	};
	return kernel_send(FUSE_READ, file->nodeid, &in, sizeof in, NULL, 0);
}

static inline int kernel_read_reply(uint64_t unique, struct kernel_file *file, char *ret,
				    size_t size)
{
	int r = kernel_reply(unique, ret, size);
	file->offset += r > 0 ? r : 0;
	return r;
}

static inline int kernel_read(struct kernel_file *file, char *ret, size_t size)
{
	return kernel_read_reply(kernel_read_begin(file, size), file, ret, size);
}

static inline uint64_t kernel_write_begin(struct kernel_file *file, const char *text, size_t len)
{
	struct fuse_write_in in = {.fh = file->fh,
				   .offset = (uint64_t)file->offset,
				   .size = (uint32_t)len,
				   .flags = file->flags};
	return kernel_send(FUSE_WRITE, file->nodeid, &in, sizeof in, text, len);
}

/* The bytes that were taken, or -errno. */
static inline int kernel_write_reply(uint64_t unique)
{
	struct fuse_write_out out;
	int r = kernel_reply(unique, &out, sizeof out);
	return r < 0 ? r : (int)out.size;
}

static inline int kernel_write(struct kernel_file *file, const char *text)
{
	return kernel_write_reply(kernel_write_begin(file, text, strlen(text)));
}

static inline int kernel_flush(struct kernel_file *file)
{
	struct fuse_flush_in in = {.fh = file->fh};
	return kernel_reply(kernel_send(FUSE_FLUSH, file->nodeid, &in, sizeof in, NULL, 0), NULL,
			    0);
}

static inline void kernel_release(struct kernel_file *file)
{
	struct fuse_release_in in = {.fh = file->fh, .flags = file->flags};
	uint64_t unique = kernel_send(FUSE_RELEASE, file->nodeid, &in, sizeof in, NULL, 0);
	assert_int_equal(kernel_reply(unique, NULL, 0), 0);
}

/* What a program sees of close(2): the last copy of a descriptor. */
static inline int kernel_close(struct kernel_file *file)
{
	int r = kernel_flush(file);
	kernel_release(file);
	return r;
}

/* The events of poll(2) now; with `kh` it is to be notified once of others. */
static inline unsigned kernel_poll(struct kernel_file *file, uint64_t kh)
{
	struct fuse_poll_in in = {.fh = file->fh,
				  .kh = kh,
				  .flags = kh ? FUSE_POLL_SCHEDULE_NOTIFY : 0,
				  .events = POLLIN | POLLPRI};
	struct fuse_poll_out out;
	uint64_t unique = kernel_send(FUSE_POLL, file->nodeid, &in, sizeof in, NULL, 0);
	assert_int_equal(kernel_reply(unique, &out, sizeof out), sizeof out);
	return out.revents;
}

/* The whole text of a file, by an open of its own. To be freed. */
static inline char *kernel_cat(const char *path)
{
	static char text[REPLY_MAX - 4096];
	struct kernel_file file = kernel_open(path, O_RDONLY);
	size_t len = 0;
	for (int n; (n = kernel_read(&file, text + len, sizeof text - 1 - len)) != 0;) {
		if (n < 0)
			fail_msg("%s: %s", path, strerror(-n));
		len += (size_t)n;
	}
	text[len] = '\0';
	assert_int_equal(kernel_close(&file), 0);
	return strdup(text);
}

#define assert_cat(path, expected)                                                                 \
	do {                                                                                       \
		char *is = kernel_cat(path);                                                       \
		assert_string_equal(is, expected);                                                 \
		free(is);                                                                          \
	} while (0)

/* One write, and the close: what of the two failed. */
static inline int kernel_echo(const char *text, const char *path)
{
	struct kernel_file file = kernel_open(path, O_WRONLY | O_TRUNC);
	int r = kernel_write(&file, text), end = kernel_close(&file);
	return r < 0 ? r : end;
}

/* --- the session --- */

static inline ssize_t kernel_sends(int fd, void *data, size_t size, void *userdata)
{
	(void)userdata;
	ssize_t n = read(fd, data, size);
	if (n != 0)
		return n;
	errno = ENODEV; /* as when it is unmounted */
	return -1;
}

static inline ssize_t kernel_gets(int fd, struct iovec *parts, int n, void *userdata)
{
	(void)userdata;
	return writev(fd, parts, n);
}

static inline void *kernel_main(void *data)
{
	fuse_session_loop(data);
	return NULL;
}

/* Begins to serve: from now on it is mounted, as far as the session knows. */
static inline void kernel_begin(struct fuse_session *session)
{
	static const struct fuse_custom_io io = {.read = kernel_sends, .writev = kernel_gets};
	int fds[2], size = 1 << 20;
	memset(&kernel, 0, sizeof kernel);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	for (int i = 0; i < 2; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	kernel.fd = fds[0];
	kernel.uid = getuid();
	assert_int_equal(fuse_session_custom_io(session, &io, fds[1]), 0);
	assert_int_equal(pthread_create(&kernel.thread, NULL, kernel_main, session), 0);
	struct fuse_init_in in = {
		.major = FUSE_KERNEL_VERSION, .minor = 36, .max_readahead = 128 << 10};
	struct fuse_init_out out;
	uint64_t unique = kernel_send(FUSE_INIT, 0, &in, sizeof in, NULL, 0);
	assert_true(kernel_reply(unique, &out, sizeof out) > 0);
}

/* Unmounts: the session's loop ends. */
static inline void kernel_end(void)
{
	shutdown(kernel.fd, SHUT_WR);
	pthread_join(kernel.thread, NULL);
}

/* Takes what was still replied, and sees that nobody is left without. Once all that answers has
 * ended. */
static inline void kernel_done(void)
{
	while (kernel_receive(0))
		;
	for (size_t i = 0; i < 4096; i++) {
		struct kernel_request *request = &kernel.requests[i];
		if (request->unique && !request->replied)
			fail_msg("request %zu was never replied to", i);
		free(request->data);
		*request = (struct kernel_request){0};
	}
	close(kernel.fd);
}
