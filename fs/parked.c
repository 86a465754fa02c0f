#include "parked.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "list.h"

/* How often the thread checks a request again that only harmless signals have interrupted: the
 * kernel sends no second INTERRUPT. */
#define LOOK_AGAIN_MS 100

struct parked {
	struct ap_list link; /* in set->marked, set->harmless or in neither; set->lock */
	struct parked_set *set;
	fuse_req_t req;
	pid_t tid; /* the client's thread */
	parked_interrupted *interrupted;
	void (*data_free)(void *data);
	void *data;
	atomic_int
		n_refs; /* the answerer's; libfuse's, until claimed; the thread's while it looks */
	atomic_bool claimed;
};

struct parked_set {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct ap_list marked;	       /* INTERRUPT has come, not acted upon yet; guarded by lock */
	struct ap_list harmless;       /* only harmless signals were pending; guarded by lock */
	struct timespec look_again_at; /* at those; guarded by lock */
	bool ending;		       /* guarded by lock */
	pthread_t thread;
};

static void parked_ref(struct parked *parked)
{
	atomic_fetch_add(&parked->n_refs, 1);
}

void parked_unref(struct parked *parked)
{
	if (!parked || atomic_fetch_sub(&parked->n_refs, 1) != 1)
		return;
	parked->data_free(parked->data);
	free(parked);
}

/* libfuse calls this with the request's lock held, even from inside fuse_req_interrupt_func(): a
 * reply here would free what libfuse still uses. It only marks the request. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct parked *parked = data;
	(void)req;
	pthread_mutex_lock(&parked->set->lock);
	ap_list_remove(&parked->link);
	ap_list_append(&parked->set->marked, &parked->link);
	pthread_cond_signal(&parked->set->changed);
	pthread_mutex_unlock(&parked->set->lock);
}

struct parked *parked_new(struct parked_set *set, fuse_req_t req, parked_interrupted *interrupted,
			  void (*data_free)(void *data), void *data)
{
	struct parked *parked = calloc(1, sizeof *parked);
	if (!parked)
		return NULL;
	parked->set = set;
	parked->req = req;
	parked->tid = fuse_req_ctx(req)->pid;
	parked->interrupted = interrupted;
	parked->data_free = data_free;
	parked->data = data;
	atomic_init(&parked->n_refs, 2);
	ap_list_init(&parked->link);
	/* before anyone else can reply; may mark at once */
	fuse_req_interrupt_func(req, on_interrupt, parked);
	return parked;
}

fuse_req_t parked_claim(struct parked *parked)
{
	if (atomic_exchange(&parked->claimed, true))
		return NULL;
	fuse_req_t req = parked->req;
	/* waits for a running on_interrupt; none comes afterwards */
	fuse_req_interrupt_func(req, NULL, NULL);
	pthread_mutex_lock(&parked->set->lock);
	ap_list_remove(&parked->link);
	pthread_mutex_unlock(&parked->set->lock);
	parked_unref(parked);
	return req;
}

/* --- interrupts --- */

static bool pending_mask(const char *status, const char *key, unsigned long long *mask)
{
	const char *line = strstr(status, key);
	unsigned long long value;
	if (!line || sscanf(line + strlen(key), "%llx", &value) != 1)
		return false;
	*mask |= value;
	return true;
}

/* Whether only harmless signals interrupted the client: one of the list below, such as SIGCHLD at
 * the end of a shell's background child, or one that another of its threads has taken meanwhile. A
 * signal for this thread stays pending until the request has its answer. */
static bool harmless(pid_t tid)
{
	static const int signals[] = {SIGCHLD, SIGWINCH, SIGCONT, SIGURG};
	char path[64], status[4096];
	unsigned long long pending = 0, allowed = 0;
	snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
	FILE *file = fopen(path, "re");
	if (!file)
		return false;
	size_t n = fread(status, 1, sizeof status - 1, file);
	fclose(file);
	status[n] = '\0';
	if (!pending_mask(status, "\nSigPnd:", &pending) ||
	    !pending_mask(status, "\nShdPnd:", &pending))
		return false;
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		allowed |= 1ull << (signals[i] - 1);
	return (pending & ~allowed) == 0;
}

static void look_again_later_locked(struct parked_set *set, struct parked *parked)
{
	/* else it has been replied to, or was marked again */
	if (atomic_load(&parked->claimed) || !ap_list_empty(&parked->link))
		return;
	if (ap_list_empty(&set->harmless)) {
		clock_gettime(CLOCK_MONOTONIC, &set->look_again_at);
		set->look_again_at.tv_nsec += LOOK_AGAIN_MS * 1000000L;
		if (set->look_again_at.tv_nsec >= 1000000000L) {
			set->look_again_at.tv_sec++;
			set->look_again_at.tv_nsec -= 1000000000L;
		}
	}
	ap_list_append(&set->harmless, &parked->link);
}

/* Handles the first marked request. Drops the lock meanwhile. */
static void act_on_marked_locked(struct parked_set *set)
{
	struct parked *parked = ap_container_of(set->marked.next, struct parked, link);
	ap_list_remove(&parked->link);
	parked_ref(parked);
	pthread_mutex_unlock(&set->lock);
	bool goes_on = harmless(parked->tid);
	if (!goes_on)
		parked->interrupted(parked, parked->data);
	pthread_mutex_lock(&set->lock);
	if (goes_on)
		look_again_later_locked(set, parked);
	pthread_mutex_unlock(&set->lock);
	parked_unref(parked);
	pthread_mutex_lock(&set->lock);
}

/* Waits for a mark, or until it is time to mark the harmless ones again. */
static void wait_locked(struct parked_set *set)
{
	if (ap_list_empty(&set->harmless)) {
		pthread_cond_wait(&set->changed, &set->lock);
		return;
	}
	if (pthread_cond_timedwait(&set->changed, &set->lock, &set->look_again_at) != ETIMEDOUT)
		return;
	while (!ap_list_empty(&set->harmless)) {
		struct ap_list *first = set->harmless.next;
		ap_list_remove(first);
		ap_list_append(&set->marked, first);
	}
}

static void *parked_main(void *data)
{
	struct parked_set *set = data;
	pthread_mutex_lock(&set->lock);
	while (!set->ending) {
		if (ap_list_empty(&set->marked))
			wait_locked(set);
		else
			act_on_marked_locked(set);
	}
	pthread_mutex_unlock(&set->lock);
	return NULL;
}

struct parked_set *parked_set_new(void)
{
	struct parked_set *set = calloc(1, sizeof *set);
	if (!set)
		return NULL;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&set->lock, NULL);
	pthread_cond_init(&set->changed, &attr);
	pthread_condattr_destroy(&attr);
	ap_list_init(&set->marked);
	ap_list_init(&set->harmless);
	if (pthread_create(&set->thread, NULL, parked_main, set) != 0) {
		free(set);
		return NULL;
	}
	return set;
}

void parked_set_free(struct parked_set *set)
{
	if (!set)
		return;
	pthread_mutex_lock(&set->lock);
	set->ending = true;
	pthread_cond_signal(&set->changed);
	pthread_mutex_unlock(&set->lock);
	pthread_join(set->thread, NULL);
	pthread_cond_destroy(&set->changed);
	pthread_mutex_destroy(&set->lock);
	free(set);
}
