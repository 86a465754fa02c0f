#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#define N_EVENTS 16		    /* that are taken at once */
#define LONGEST	 (3600 * AP_SECOND) /* sleep */

/* What epoll tells of the loop's own descriptors. */
#define WAKE_KEY ((uint64_t)1 << 32)
#define FILE_KEY ((uint64_t)2 << 32)

struct loop {
	int epoll_fd, wake_fd, inotify_fd;
	pthread_t thread;
	bool runs;

	pthread_mutex_t lock;  /* a leaf; of what follows */
	pthread_cond_t called; /* a call has returned that somebody waits for */
	bool ending;
	struct loop_source **sources; /* by index - 1; NULL: free */
	struct loop_source **times;   /* a heap, the earliest first: room for all sources */
	struct loop_source **files;   /* sorted by number: likewise */
	uint32_t n_sources, room, n_times, n_files;
	uint32_t free_from; /* no place before is free */
	uint32_t last_serial;
	struct loop_source *running; /* is being called */
	unsigned n_waiting;	     /* threads that wait for that */
	int64_t armed_ns;	     /* when it wakes by itself */
};

/* --- times: a binary heap, in which every source knows its place --- */

static void put(struct loop *loop, uint32_t place, struct loop_source *source)
{
	loop->times[place] = source;
	source->place = place;
}

static void sift_up(struct loop *loop, struct loop_source *source)
{
	uint32_t place = source->place;
	while (place > 0 && loop->times[(place - 1) / 2]->at_ns > source->at_ns) {
		put(loop, place, loop->times[(place - 1) / 2]);
		place = (place - 1) / 2;
	}
	put(loop, place, source);
}

static void sift_down(struct loop *loop, struct loop_source *source)
{
	uint32_t place = source->place;
	for (;;) {
		uint32_t next = 2 * place + 1;
		if (next + 1 < loop->n_times &&
		    loop->times[next + 1]->at_ns < loop->times[next]->at_ns)
			next++;
		if (next >= loop->n_times || loop->times[next]->at_ns >= source->at_ns)
			break;
		put(loop, place, loop->times[next]);
		place = next;
	}
	put(loop, place, source);
}

static void set_time_locked(struct loop *loop, struct loop_source *source, int64_t at_ns)
{
	int64_t before = source->at_ns;
	source->at_ns = at_ns;
	if (before == at_ns)
		return;
	if (before == AP_FOREVER) {
		source->place = loop->n_times++;
		sift_up(loop, source);
	} else if (at_ns == AP_FOREVER) {
		struct loop_source *last = loop->times[--loop->n_times];
		if (last != source) {
			last->place = source->place;
			sift_up(loop, last);
			sift_down(loop, last);
		}
	} else if (at_ns < before) {
		sift_up(loop, source);
	} else {
		sift_down(loop, source);
	}
}

/* --- its life --- */

static int watch(struct loop *loop, int fd, uint64_t key)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = key};
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int loop_new(struct loop **ret, struct ap_err *err)
{
	struct loop *loop = calloc(1, sizeof *loop);
	if (!loop)
		return ap_err_errno(err, -ENOMEM, "event loop");
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->called, NULL);
	loop->armed_ns = AP_FOREVER;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int r = loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->inotify_fd < 0 ? -errno : 0;
	if (r == 0)
		r = watch(loop, loop->wake_fd, WAKE_KEY);
	if (r == 0)
		r = watch(loop, loop->inotify_fd, FILE_KEY);
	if (r < 0) {
		loop_free(loop);
		return ap_err_errno(err, r, "event loop");
	}
	*ret = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	const int fds[] = {loop->epoll_fd, loop->wake_fd, loop->inotify_fd};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	pthread_mutex_destroy(&loop->lock);
	pthread_cond_destroy(&loop->called);
	free(loop->sources);
	free(loop->times);
	free(loop->files);
	free(loop);
}

static bool is_in_thread(const struct loop *loop)
{
	return loop->runs && pthread_equal(loop->thread, pthread_self());
}

/* Has the thread look at its times, and whether it is to end. */
static void wake(struct loop *loop)
{
	uint64_t one = 1;
	(void)!write(loop->wake_fd, &one, sizeof one); /* fails when 2^64 are pending */
}

/* --- sources --- */

static bool grow_locked(struct loop *loop)
{
	uint32_t room = loop->room ? 2 * loop->room : 16;
	struct loop_source ***const tables[] = {&loop->sources, &loop->times, &loop->files};
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		struct loop_source **grown = realloc(*tables[i], room * sizeof *grown);
		if (!grown)
			return false;
		*tables[i] = grown;
	}
	loop->room = room;
	return true;
}

int loop_add(struct loop *loop, struct loop_source *source, void (*call)(struct loop_source *))
{
	*source = (struct loop_source){.call = call, .fd = -1, .file = -1, .at_ns = AP_FOREVER};
	pthread_mutex_lock(&loop->lock);
	uint32_t index = loop->free_from;
	while (index < loop->n_sources && loop->sources[index])
		index++;
	bool fits = index < loop->room || grow_locked(loop);
	if (fits) {
		loop->sources[index] = source;
		source->index = index + 1;
		loop->free_from = index + 1;
		if (index == loop->n_sources)
			loop->n_sources++;
	}
	pthread_mutex_unlock(&loop->lock);
	return fits ? 0 : -ENOMEM;
}

static void forget_fd_locked(struct loop *loop, struct loop_source *source)
{
	if (source->fd >= 0)
		(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	source->fd = -1;
	source->serial = 0;
}

int loop_watch_fd(struct loop *loop, struct loop_source *source, int fd)
{
	pthread_mutex_lock(&loop->lock);
	forget_fd_locked(loop, source);
	int r = 0;
	if (fd >= 0 && source->index > 0) {
		if (++loop->last_serial <= FILE_KEY >> 32) /* those are the loop's own */
			loop->last_serial = (FILE_KEY >> 32) + 1;
		r = watch(loop, fd, (uint64_t)loop->last_serial << 32 | source->index);
		if (r == 0) {
			source->fd = fd;
			source->serial = loop->last_serial;
		}
	}
	pthread_mutex_unlock(&loop->lock);
	return r;
}

/* Where a file's number is among the files, or would be. */
static uint32_t file_place(const struct loop *loop, int file)
{
	uint32_t low = 0, high = loop->n_files;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (loop->files[middle]->file < file)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void forget_file_locked(struct loop *loop, struct loop_source *source)
{
	if (source->file < 0)
		return;
	uint32_t place = file_place(loop, source->file);
	loop->n_files--;
	memmove(&loop->files[place], &loop->files[place + 1],
		(loop->n_files - place) * sizeof *loop->files);
	(void)inotify_rm_watch(loop->inotify_fd, source->file); /* or the file has gone */
	source->file = -1;
}

/* The kernel has one watch for a file, whoever asks. */
static bool is_anothers_locked(const struct loop *loop, const struct loop_source *source, int file)
{
	uint32_t place = file_place(loop, file);
	return place < loop->n_files && loop->files[place]->file == file &&
	       loop->files[place] != source;
}

int loop_watch_file(struct loop *loop, struct loop_source *source, const char *path)
{
	pthread_mutex_lock(&loop->lock);
	int file = path && source->index > 0 ? inotify_add_watch(loop->inotify_fd, path, IN_MODIFY)
					     : -1;
	int r = path && source->index > 0 && file < 0 ? -errno : 0;
	if (r == 0 && file >= 0 && is_anothers_locked(loop, source, file))
		r = -EEXIST;
	if (r == 0 && file != source->file) {
		forget_file_locked(loop, source);
		source->file = file;
	}
	if (r == 0 && file >= 0) {
		uint32_t place = file_place(loop, file);
		if (place == loop->n_files || loop->files[place] != source) {
			memmove(&loop->files[place + 1], &loop->files[place],
				(loop->n_files - place) * sizeof *loop->files);
			loop->files[place] = source;
			loop->n_files++;
		}
	}
	pthread_mutex_unlock(&loop->lock);
	return r;
}

static void set_locked(struct loop *loop, struct loop_source *source, int64_t at_ns)
{
	if (source->index == 0) /* it was removed */
		return;
	set_time_locked(loop, source, at_ns);
	if (at_ns >= loop->armed_ns)
		return;
	loop->armed_ns = at_ns;
	if (!is_in_thread(loop)) /* which arms itself before it sleeps */
		wake(loop);
}

void loop_set(struct loop *loop, struct loop_source *source, int64_t at_ns)
{
	pthread_mutex_lock(&loop->lock);
	set_locked(loop, source, at_ns);
	pthread_mutex_unlock(&loop->lock);
}

void loop_advance(struct loop *loop, struct loop_source *source, int64_t at_ns)
{
	pthread_mutex_lock(&loop->lock);
	if (at_ns < source->at_ns)
		set_locked(loop, source, at_ns);
	pthread_mutex_unlock(&loop->lock);
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	if (source->index == 0)
		return;
	pthread_mutex_lock(&loop->lock);
	forget_fd_locked(loop, source);
	forget_file_locked(loop, source);
	set_time_locked(loop, source, AP_FOREVER);
	loop->sources[source->index - 1] = NULL;
	if (source->index - 1 < loop->free_from)
		loop->free_from = source->index - 1;
	source->index = 0;
	loop->n_waiting++;
	while (loop->running == source && !is_in_thread(loop))
		pthread_cond_wait(&loop->called, &loop->lock);
	loop->n_waiting--;
	pthread_mutex_unlock(&loop->lock);
}

/* --- the thread --- */

/* Calls a source, without the lock meanwhile. */
static void call_locked(struct loop *loop, struct loop_source *source)
{
	loop->running = source;
	pthread_mutex_unlock(&loop->lock);
	source->call(source); /* may free it */
	pthread_mutex_lock(&loop->lock);
	loop->running = NULL;
	if (loop->n_waiting > 0)
		pthread_cond_broadcast(&loop->called);
}

static void on_files(struct loop *loop)
{
	char block[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(loop->inotify_fd, block, sizeof block);
	for (char *at = block; n > 0 && at < block + n;) {
		const struct inotify_event *event = (const void *)at;
		at += sizeof *event + event->len;
		pthread_mutex_lock(&loop->lock);
		uint32_t place = file_place(loop, event->wd);
		if (place < loop->n_files && loop->files[place]->file == event->wd)
			call_locked(loop, loop->files[place]);
		pthread_mutex_unlock(&loop->lock);
	}
}

static void on_event(struct loop *loop, uint64_t key)
{
	uint64_t count;
	uint32_t index = (uint32_t)key;
	if (key == WAKE_KEY) {
		(void)!read(loop->wake_fd, &count, sizeof count);
		return;
	}
	if (key == FILE_KEY) {
		on_files(loop);
		return;
	}
	pthread_mutex_lock(&loop->lock);
	struct loop_source *source = loop->sources[index - 1];
	if (source && source->serial == key >> 32) /* else it watches something else by now */
		call_locked(loop, source);
	pthread_mutex_unlock(&loop->lock);
}

/* Those whose time has come. What they set anew waits for the next round. */
static void on_times(struct loop *loop)
{
	int64_t now = ap_clock_ns();
	pthread_mutex_lock(&loop->lock);
	while (loop->n_times > 0 && loop->times[0]->at_ns <= now) {
		struct loop_source *source = loop->times[0];
		set_time_locked(loop, source, AP_FOREVER);
		call_locked(loop, source);
	}
	pthread_mutex_unlock(&loop->lock);
}

/* Arms the sleep: from now on, whoever sets an earlier time wakes. False: it is to end. */
static bool arm(struct loop *loop, int *ret_ms)
{
	pthread_mutex_lock(&loop->lock);
	loop->armed_ns = loop->n_times > 0 ? loop->times[0]->at_ns : AP_FOREVER;
	int64_t left = loop->armed_ns - ap_clock_ns();
	bool goes_on = !loop->ending;
	pthread_mutex_unlock(&loop->lock);
	if (left > LONGEST)
		left = LONGEST;
	*ret_ms = left > 0 ? (int)((left + AP_MS - 1) / AP_MS) : 0;
	return goes_on;
}

static void *loop_main(void *data)
{
	struct loop *loop = data;
	struct epoll_event events[N_EVENTS];
	int ms;
	while (arm(loop, &ms)) {
		int n = epoll_wait(loop->epoll_fd, events, N_EVENTS, ms);
		for (int i = 0; i < n; i++)
			on_event(loop, events[i].data.u64);
		on_times(loop);
	}
	return NULL;
}

int loop_start(struct loop *loop, struct ap_err *err)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&loop->lock); /* the thread asks whether it is the one */
	int r = -pthread_create(&loop->thread, NULL, loop_main, loop);
	loop->runs = r == 0;
	pthread_mutex_unlock(&loop->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r < 0 ? ap_err_errno(err, r, "thread of the event loop") : 0;
}

void loop_stop(struct loop *loop)
{
	if (!loop || !loop->runs)
		return;
	pthread_mutex_lock(&loop->lock);
	loop->ending = true;
	pthread_mutex_unlock(&loop->lock);
	wake(loop);
	pthread_join(loop->thread, NULL);
	loop->runs = false;
}
