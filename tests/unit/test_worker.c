#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "worker.h"

#define N_JOBS 2000

struct counted {
	struct worker_job job;
	int number;
};

static struct worker_lane lane;
static atomic_int n_inside, n_run, n_released, worst_inside;
static int order[N_JOBS];

static void run(struct worker_job *job)
{
	struct counted *counted = ap_container_of(job, struct counted, job);
	int inside = atomic_fetch_add(&n_inside, 1) + 1;
	if (inside > atomic_load(&worst_inside))
		atomic_store(&worst_inside, inside);
	order[atomic_fetch_add(&n_run, 1)] = counted->number;
	atomic_fetch_sub(&n_inside, 1);
	free(counted);
}

static void released(struct worker_lane *of)
{
	assert_ptr_equal(of, &lane);
	atomic_fetch_add(&n_released, 1);
}

static void lanes_keep_order(void **state)
{
	struct worker_pool *pool = worker_pool_new(4);
	assert_non_null(pool);
	worker_lane_init(&lane);
	for (int i = 0; i < N_JOBS; i++) {
		struct counted *job = calloc(1, sizeof *job);
		assert_non_null(job);
		job->number = i;
		job->job = (struct worker_job){.run = run, .lane = &lane, .lane_release = released};
		worker_submit(pool, &job->job);
	}
	worker_pool_free(pool);
	assert_int_equal(n_run, N_JOBS);
	assert_int_equal(n_released, N_JOBS);
	assert_int_equal(worst_inside, 1);
	for (int i = 0; i < N_JOBS; i++)
		assert_int_equal(order[i], i);
}

static pthread_barrier_t all_there;

static void meet(struct worker_job *job)
{
	pthread_barrier_wait(&all_there);
	free(job);
}

static void grown_pool_works_wider(void **state)
{
	struct worker_pool *pool = worker_pool_new(2);
	assert_non_null(pool);
	pthread_barrier_init(&all_there, NULL, 5);
	for (int i = 0; i < 5; i++) { /* none ends before all run */
		struct worker_job *job = calloc(1, sizeof *job);
		assert_non_null(job);
		job->run = meet;
		worker_submit(pool, job);
	}
	worker_pool_grow(pool, 3);
	worker_pool_free(pool);
	pthread_barrier_destroy(&all_there);
}

#define N_ASKS 20000

static struct worker_once once;
static atomic_int n_asked, n_seen, n_rests, n_begun;

static void see(struct worker_once *of)
{
	assert_ptr_equal(of, &once);
	assert_int_equal(atomic_fetch_add(&n_inside, 1), 0); /* never two at a time */
	atomic_store(&n_seen, atomic_load(&n_asked));
	atomic_fetch_sub(&n_inside, 1);
}

static void rests(struct worker_once *of)
{
	atomic_fetch_add(&n_rests, 1);
}

static void *ask(void *data)
{
	for (int i = 0; i < N_ASKS; i++) {
		atomic_fetch_add(&n_asked, 1);
		if (worker_once_ask(&once))
			atomic_fetch_add(&n_begun, 1);
	}
	return NULL;
}

static void one_run_for_all_who_asked(void **state)
{
	pthread_t threads[3];
	struct worker_pool *pool = worker_pool_new(3);
	assert_non_null(pool);
	atomic_store(&n_inside, 0);
	worker_once_init(&once, pool, see, rests);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	worker_pool_free(pool);
	assert_int_equal(n_asked, 3 * N_ASKS);
	assert_int_equal(n_seen, n_asked); /* a run began after the last of them */
	assert_int_equal(n_rests, n_begun);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("jobs of a lane run one at a time, in order, and all of them before the end",
		   lanes_keep_order),
		IT("a pool that has grown does more at a time", grown_pool_works_wider),
		IT("a job that is asked for again runs once more, for all who asked",
		   one_run_for_all_who_asked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
