/* agentpool-host MOUNT: serves the files of a mounted pool over its standard input and output, so
 * that whoever has a way to run a command on this machine, such as ssh or srun, can use the pool.
 *
 * Frames as wire.h has them. A request has an `id`, a positive integer that is its own as long as
 * it is under way, and `op`; its answer has the id, and `error`, the name of an errno, if it
 * failed. Requests run beside each other, as those of several programs on this machine do: who
 * wants an order waits for the answer. The first one is hello.
 *
 *     hello   version           -> version, agentpoolfs: of this program
 *     open    file, path, mode  `file` is a number of the other side's choice; mode r, w or rw
 *     read    file, size, at    -> bytes; none at the end. Waits where the file does; goes on
 *                               behind the last one without `at`
 *     write   file, bytes       -> n
 *     close   file
 *     list    path              -> bytes: the names, a NUL behind each
 *     link    path              -> bytes: where the link leads
 *     cancel  of                no answer: the request of that id is answered EINTR, if it waits
 *
 * The end of its input ends it, and what waits. Whatever is written to a pool goes through its
 * files: nothing here may more than its user may. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "list.h"
#include "wire.h"

#define FILES_MAX    4096 /* open at once */
#define REQUESTS_MAX 1024 /* under way at once; more are answered EAGAIN */
#define STACK_SIZE   (128 << 10)
#define OPEN_TRIES   1000
#define AGAIN_MS     10 /* a signal may come before the call that it is to interrupt */

/* An open file; whoever uses it has a reference, so that its descriptor is nobody else's. */
struct file {
	struct ap_list link;
	json_int_t number;
	int fd;
	unsigned n_refs;
};

struct request {
	struct ap_list link;
	json_int_t id;
	json_t *head;
	void *bytes; /* owned */
	size_t len;
	pthread_t thread;
	bool cancelled;
};

/* What a request answers with. */
struct answer {
	json_t *head;
	struct ap_buf bytes;
};

static int mount_fd;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static struct ap_list files = {&files, &files}, requests = {&requests, &requests};
static unsigned n_files, n_requests, n_cancelled;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER; /* a frame to standard output */

/* --- files --- */

/* Opens what is in the mount, also by links in it. While somebody mounts or renames anywhere, the
 * kernel cannot vouch for the `..` of such a link, and says EAGAIN. */
static int open_beneath(const char *path, int flags)
{
	const struct open_how how = {
		.flags = (uint64_t)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	long fd = -1;
	for (unsigned tries = 0; tries < OPEN_TRIES; tries++) {
		fd = syscall(SYS_openat2, mount_fd, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

static struct file *file_find_locked(json_int_t number)
{
	struct ap_list *at;
	ap_list_for_each (at, &files) {
		struct file *file = ap_container_of(at, struct file, link);
		if (file->number == number)
			return file;
	}
	return NULL;
}

/* The file of that number, with a reference; NULL: there is none. */
static struct file *file_get(const struct request *request)
{
	pthread_mutex_lock(&lock);
	struct file *file =
		file_find_locked(json_integer_value(json_object_get(request->head, "file")));
	if (file)
		file->n_refs++;
	pthread_mutex_unlock(&lock);
	return file;
}

/* Drops a reference; the last one closes the file. -errno of that. */
static int file_put(struct file *file)
{
	pthread_mutex_lock(&lock);
	bool last = --file->n_refs == 0;
	pthread_mutex_unlock(&lock);
	if (!last)
		return 0;
	int r = close(file->fd) < 0 ? -errno : 0;
	free(file);
	return r;
}

static int file_add(json_int_t number, int fd)
{
	struct file *file = malloc(sizeof *file);
	if (!file)
		return -ENOMEM;
	*file = (struct file){.number = number, .fd = fd, .n_refs = 1};
	pthread_mutex_lock(&lock);
	int r = n_files >= FILES_MAX ? -EMFILE : file_find_locked(number) ? -EEXIST : 0;
	if (r == 0) {
		ap_list_append(&files, &file->link);
		n_files++;
	}
	pthread_mutex_unlock(&lock);
	if (r < 0)
		free(file);
	return r;
}

/* --- requests: 0 or -errno --- */

static const char *text_of(const struct request *request, const char *name)
{
	const char *text = json_string_value(json_object_get(request->head, name));
	return text ? text : "";
}

static int run_open(struct request *request, struct answer *answer)
{
	const char *mode = text_of(request, "mode");
	int flags = strcmp(mode, "r") == 0    ? O_RDONLY
		    : strcmp(mode, "w") == 0  ? O_WRONLY | O_TRUNC
		    : strcmp(mode, "rw") == 0 ? O_RDWR
					      : -EINVAL;
	(void)answer;
	int fd = flags < 0 ? flags : open_beneath(text_of(request, "path"), flags);
	if (fd < 0)
		return fd;
	int r = file_add(json_integer_value(json_object_get(request->head, "file")), fd);
	if (r < 0)
		close(fd);
	return r;
}

static int run_read(struct request *request, struct answer *answer)
{
	const json_t *at = json_object_get(request->head, "at");
	json_int_t size = json_integer_value(json_object_get(request->head, "size"));
	struct file *file = file_get(request);
	if (!file)
		return -EBADF;
	ssize_t n;
	if (size < 0 || size > WIRE_BYTES_MAX)
		n = -EINVAL;
	else if (!ap_buf_reserve(&answer->bytes, (size_t)size))
		n = -ENOMEM;
	else if ((n = at ? pread(file->fd, answer->bytes.data, (size_t)size, json_integer_value(at))
			 : read(file->fd, answer->bytes.data, (size_t)size)) < 0)
		n = -errno;
	if (n > 0)
		answer->bytes.len = (size_t)n;
	(void)file_put(file);
	return n < 0 ? (int)n : 0;
}

static int run_write(struct request *request, struct answer *answer)
{
	struct file *file = file_get(request);
	if (!file)
		return -EBADF;
	ssize_t n = write(file->fd, request->bytes, request->len);
	int r = n < 0							  ? -errno
		: json_object_set_new(answer->head, "n", json_integer(n)) ? -ENOMEM
									  : 0;
	(void)file_put(file);
	return r;
}

static int run_close(struct request *request, struct answer *answer)
{
	(void)answer;
	pthread_mutex_lock(&lock);
	struct file *file =
		file_find_locked(json_integer_value(json_object_get(request->head, "file")));
	if (file) {
		ap_list_remove(&file->link);
		n_files--;
	}
	pthread_mutex_unlock(&lock);
	return file ? file_put(file) : -EBADF;
}

static int run_list(struct request *request, struct answer *answer)
{
	int fd = open_beneath(text_of(request, "path"), O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	if (!dir)
		return fd < 0 ? fd : -ENOMEM;
	while ((errno = 0, entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			ap_buf_add(&answer->bytes, entry->d_name, strlen(entry->d_name) + 1);
	}
	int r = -errno;
	closedir(dir);
	return answer->bytes.failed ? -ENOMEM : answer->bytes.len > WIRE_BYTES_MAX ? -E2BIG : r;
}

static int run_link(struct request *request, struct answer *answer)
{
	char leads_to[PATH_MAX];
	AP_CLEANUP_CLOSE int fd = open_beneath(text_of(request, "path"), O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	ssize_t n = readlinkat(fd, "", leads_to, sizeof leads_to);
	if (n < 0)
		return errno == ENOENT ? -EINVAL : -errno; /* no link */
	ap_buf_add(&answer->bytes, leads_to, (size_t)n);
	return answer->bytes.failed ? -ENOMEM : 0;
}

static const struct op {
	const char *name;
	int (*run)(struct request *request, struct answer *answer);
} ops[] = {
	{"open", run_open},   {"read", run_read}, {"write", run_write},
	{"close", run_close}, {"list", run_list}, {"link", run_link},
};

/* --- frames out --- */

/* Writes one frame. Where nobody reads any more, this program has nothing left to do. */
static void put(const json_t *head, const struct ap_buf *bytes)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	if (wire_put(&out, head, bytes ? bytes->data : NULL, bytes ? bytes->len : 0) < 0)
		_exit(1); /* out of memory: the other side finds the connection broken */
	pthread_mutex_lock(&writing);
	for (size_t at = 0; at < out.len;) {
		ssize_t n = write(STDOUT_FILENO, out.data + at, out.len - at);
		if (n < 0 && errno != EINTR)
			_exit(1);
		at += n > 0 ? (size_t)n : 0;
	}
	pthread_mutex_unlock(&writing);
}

static void answer_to(json_int_t id, json_t *head, int result, const struct ap_buf *bytes)
{
	const char *name = result < 0 ? strerrorname_np(-result) : NULL;
	json_object_set_new(head, "id", json_integer(id));
	if (result < 0)
		json_object_set_new(head, "error", json_string(name ? name : "EIO"));
	put(head, result < 0 ? NULL : bytes);
}

/* --- requests, beside each other --- */

static void request_free(struct request *request)
{
	json_decref(request->head);
	free(request->bytes);
	free(request);
}

static void *run(void *data)
{
	struct request *request = data;
	struct answer answer = {.head = json_object()};
	const char *name = text_of(request, "op");
	int r = -ENOSYS;
	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
		if (strcmp(name, ops[i].name) == 0)
			r = ops[i].run(request, &answer);
	}
	answer_to(request->id, answer.head, r, &answer.bytes);
	json_decref(answer.head);
	ap_buf_fini(&answer.bytes);
	pthread_mutex_lock(&lock);
	ap_list_remove(&request->link);
	n_cancelled -= request->cancelled;
	n_requests--;
	pthread_mutex_unlock(&lock);
	request_free(request);
	return NULL;
}

/* Starts a request and takes it. -EAGAIN: too many are under way; -EEXIST: one has that id. */
static int start(struct request *request)
{
	pthread_attr_t attr;
	struct ap_list *at;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_mutex_lock(&lock);
	int r = n_requests >= REQUESTS_MAX ? -EAGAIN : 0;
	ap_list_for_each (at, &requests) {
		if (ap_container_of(at, struct request, link)->id == request->id)
			r = -EEXIST;
	}
	if (r == 0 && pthread_create(&request->thread, &attr, run, request) != 0)
		r = -EAGAIN;
	if (r == 0) { /* it ends behind this lock */
		ap_list_append(&requests, &request->link);
		n_requests++;
	}
	pthread_mutex_unlock(&lock);
	pthread_attr_destroy(&attr);
	return r;
}

static void interrupt_cancelled_locked(void)
{
	struct ap_list *at;
	ap_list_for_each (at, &requests) {
		struct request *request = ap_container_of(at, struct request, link);
		if (request->cancelled)
			pthread_kill(request->thread, SIGUSR1);
	}
}

/* Cancels the request of that id, if it is under way. */
static void cancel(json_int_t id)
{
	struct ap_list *at;
	pthread_mutex_lock(&lock);
	ap_list_for_each (at, &requests) {
		struct request *request = ap_container_of(at, struct request, link);
		if (request->id != id || request->cancelled)
			continue;
		request->cancelled = true;
		n_cancelled++;
	}
	interrupt_cancelled_locked();
	pthread_mutex_unlock(&lock);
}

/* --- frames in --- */

/* -EPROTO: what comes is not this protocol, or another version of it. */
static int hello(const struct wire_frame *frame, struct ap_err *err)
{
	json_int_t version = json_integer_value(json_object_get(frame->head, "version"));
	const char *op = json_string_value(json_object_get(frame->head, "op"));
	if (!op || strcmp(op, "hello") != 0)
		return ap_err_set(err, -EPROTO, "the first frame is no hello");
	json_t *head = json_pack("{s:i, s:s}", "version", WIRE_VERSION, "agentpoolfs", AP_VERSION);
	answer_to(json_integer_value(json_object_get(frame->head, "id")), head,
		  version == WIRE_VERSION ? 0 : -EPROTONOSUPPORT, NULL);
	json_decref(head);
	return version == WIRE_VERSION
		       ? 0
		       : ap_err_set(err, -EPROTO, "the other side speaks version %lld, this one %d",
				    (long long)version, WIRE_VERSION);
}

static int handle(const struct wire_frame *frame, struct ap_err *err)
{
	json_int_t id = json_integer_value(json_object_get(frame->head, "id"));
	const char *op = json_string_value(json_object_get(frame->head, "op"));
	if (op && strcmp(op, "cancel") == 0) {
		cancel(json_integer_value(json_object_get(frame->head, "of")));
		return 0;
	}
	if (id <= 0)
		return ap_err_set(err, -EPROTO, "a request has no id");
	struct request *request = calloc(1, sizeof *request);
	void *bytes = malloc(frame->len + 1);
	if (!request || !bytes) {
		free(request);
		free(bytes);
		return ap_err_errno(err, -ENOMEM, "a request");
	}
	memcpy(bytes, frame->bytes, frame->len);
	*request = (struct request){
		.id = id, .head = json_incref(frame->head), .bytes = bytes, .len = frame->len};
	int r = start(request);
	if (r < 0) {
		json_t *head = json_object();
		answer_to(id, head, r, NULL);
		json_decref(head);
		request_free(request);
	}
	return 0;
}

/* Handles the whole frames in `in`, and drops them. */
static int handle_all(struct ap_buf *in, bool *greeted, struct ap_err *err)
{
	struct wire_frame frame;
	size_t at = 0;
	long n;
	int r = 0;
	while (r == 0 && (n = wire_take(in->data + at, in->len - at, &frame, err)) > 0) {
		r = *greeted ? handle(&frame, err) : hello(&frame, err);
		*greeted = true;
		json_decref(frame.head);
		at += (size_t)n;
	}
	ap_buf_drop(in, at);
	return r < 0 ? r : n < 0 ? (int)n : 0;
}

static int serve(struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf in = {0};
	bool greeted = false;
	int r = 0;
	for (;;) {
		struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
		pthread_mutex_lock(&lock);
		bool again = n_cancelled > 0;
		if (again)
			interrupt_cancelled_locked();
		pthread_mutex_unlock(&lock);
		if (poll(&input, 1, again ? AGAIN_MS : -1) <= 0)
			continue;
		if (!ap_buf_reserve(&in, 64 << 10))
			return ap_err_errno(err, -ENOMEM, "standard input");
		ssize_t n = read(STDIN_FILENO, in.data + in.len, 64 << 10);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return ap_err_errno(err, -errno, "standard input");
		if (n == 0)
			return in.len == 0
				       ? 0
				       : ap_err_set(err, -EPROTO, "the input ends inside a frame");
		in.len += (size_t)n;
		if ((r = handle_all(&in, &greeted, err)) < 0)
			return r;
	}
}

static void interrupted(int signal)
{
	(void)signal; /* a call that waits returns EINTR */
}

int main(int argc, char **argv)
{
	struct ap_err err = {""};
	struct statfs fs;
	if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: agentpool-host MOUNT\n");
		return 2;
	}
	mount_fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (mount_fd < 0 || fstatfs(mount_fd, &fs) < 0) {
		fprintf(stderr, "agentpool-host: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (fs.f_type != FUSE_SUPER_MAGIC) {
		fprintf(stderr, "agentpool-host: %s is no mounted pool\n", argv[1]);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = interrupted}, NULL);
	int r = serve(&err);
	if (r < 0)
		fprintf(stderr, "agentpool-host: %s\n", err.text);
	return r < 0;
}
