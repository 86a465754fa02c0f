#include "worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

struct worker_pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct ap_list ready; /* jobs that may run now; guarded by lock */
	bool ending;	      /* guarded by lock */
	unsigned n_threads;
	pthread_t *threads; /* owned */
};

void worker_lane_init(struct worker_lane *lane)
{
	ap_list_init(&lane->waiting);
	lane->running = 0;
}

static void make_ready_locked(struct worker_pool *pool, struct worker_job *job)
{
	ap_list_append(&pool->ready, &job->link);
	pthread_cond_signal(&pool->work);
}

void worker_submit(struct worker_pool *pool, struct worker_job *job)
{
	pthread_mutex_lock(&pool->lock);
	ap_list_init(&job->link);
	if (job->lane && job->lane->running) {
		ap_list_append(&job->lane->waiting, &job->link);
	} else {
		if (job->lane)
			job->lane->running = 1;
		make_ready_locked(pool, job);
	}
	pthread_mutex_unlock(&pool->lock);
}

static void lane_next(struct worker_pool *pool, struct worker_lane *lane)
{
	pthread_mutex_lock(&pool->lock);
	if (ap_list_empty(&lane->waiting)) {
		lane->running = 0;
	} else {
		struct worker_job *next =
			ap_container_of(lane->waiting.next, struct worker_job, link);
		ap_list_remove(&next->link);
		make_ready_locked(pool, next);
	}
	pthread_mutex_unlock(&pool->lock);
}

static struct worker_job *next_job(struct worker_pool *pool)
{
	struct worker_job *job = NULL;
	pthread_mutex_lock(&pool->lock);
	while (ap_list_empty(&pool->ready) && !pool->ending)
		pthread_cond_wait(&pool->work, &pool->lock);
	if (!ap_list_empty(&pool->ready)) {
		job = ap_container_of(pool->ready.next, struct worker_job, link);
		ap_list_remove(&job->link);
	}
	pthread_mutex_unlock(&pool->lock);
	return job;
}

static void *worker_main(void *data)
{
	struct worker_pool *pool = data;
	struct worker_job *job;
	while ((job = next_job(pool))) {
		struct worker_lane *lane = job->lane;
		void (*lane_release)(struct worker_lane *) = job->lane_release;
		job->run(job);
		if (lane) {
			lane_next(pool, lane);
			lane_release(lane);
		}
	}
	return NULL;
}

void worker_pool_end(struct worker_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->n_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pool->n_threads = 0;
}

void worker_pool_grow(struct worker_pool *pool, unsigned n_more)
{
	sigset_t all, before;
	pthread_t *threads =
		realloc(pool->threads, (pool->n_threads + n_more) * sizeof *pool->threads);
	if (!threads)
		return;
	pool->threads = threads;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (n_more > 0 &&
	       pthread_create(&threads[pool->n_threads], NULL, worker_main, pool) == 0) {
		pool->n_threads++;
		n_more--;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct worker_pool *worker_pool_new(unsigned n_threads)
{
	struct worker_pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	ap_list_init(&pool->ready);
	worker_pool_grow(pool, n_threads);
	if (pool->n_threads == n_threads)
		return pool;
	worker_pool_free(pool);
	return NULL;
}

void worker_pool_free(struct worker_pool *pool)
{
	if (!pool)
		return;
	worker_pool_end(pool);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool->threads);
	free(pool);
}

/* --- once for all who ask --- */

enum { RESTS, QUEUED, RUNS, RUNS_AGAIN };

static void run_once(struct worker_job *job)
{
	struct worker_once *once = ap_container_of(job, struct worker_once, job);
	int runs = RUNS;
	atomic_store(&once->state, RUNS); /* who asks from now on is another run's */
	once->run(once);
	void (*rests)(struct worker_once *) = once->rests;
	if (atomic_compare_exchange_strong(&once->state, &runs, RESTS)) {
		if (rests)
			rests(once);
		return;
	}
	atomic_store(&once->state, QUEUED);
	worker_submit(once->pool, &once->job);
}

void worker_once_init(struct worker_once *once, struct worker_pool *pool,
		      void (*run)(struct worker_once *), void (*rests)(struct worker_once *))
{
	*once = (struct worker_once){
		.run = run, .rests = rests, .pool = pool, .job = {.run = run_once}};
	atomic_init(&once->state, RESTS);
}

bool worker_once_ask(struct worker_once *once)
{
	int state = atomic_load(&once->state), next;
	do {
		next = state == RESTS ? QUEUED : state == RUNS ? RUNS_AGAIN : state;
	} while (!atomic_compare_exchange_weak(&once->state, &state, next));
	if (state == RESTS)
		worker_submit(once->pool, &once->job);
	return state == RESTS;
}
