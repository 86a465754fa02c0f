/* What a lease costs in the machine, beside the least that any pool behind a lock costs: a mutex
 * and a list operation each for taking and giving back, and one reading of the clock.
 *
 *     bench_machine                          times, allocations and sizes, as JSON
 *     bench_machine AGENTS WAITERS LEASES [HOSTS]
 *                                            so many leases; with 0 agents, of the floor; the
 *                                            agents on so many hosts, as many on each
 *
 * Instructions are counted from outside, of the second form, in counted_*() and below.
 *
 * Says what it measured and judges nothing: bench_machine.py does. Times are compared within one
 * run only: floor and machine take turns in short repetitions, and a ratio is the median of those
 * of neighbours. Linked with malloc and its relatives wrapped, so that an allocation in a measured
 * loop is seen. */
#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "machine_internal.h"

#define N_REPETITIONS 101
#define N_PAIRS	      600 /* in a repetition */
#define N_BATCH	      10  /* leases held at once where single steps are timed */

/* A function of its own, whatever the compiler thinks of it: instructions in it are counted. */
#ifdef __clang__
#define COUNTED __attribute__((noinline))
#else
#define COUNTED __attribute__((noinline, noclone))
#endif

/* --- allocations --- */

static uint64_t n_allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
	n_allocations++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	n_allocations++;
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	n_allocations++;
	return __real_realloc(old, size);
}

/* --- the floor --- */

static pthread_mutex_t floor_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ap_list floor_idle;
static struct ap_list floor_agents[N_BATCH];
static int64_t floor_now;

static void floor_begin(void)
{
	ap_list_init(&floor_idle);
	for (int i = 0; i < N_BATCH; i++)
		ap_list_append(&floor_idle, &floor_agents[i]);
}

static COUNTED void counted_floor(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	floor_now = ts.tv_sec * AP_SECOND + ts.tv_nsec;
	pthread_mutex_lock(&floor_lock);
	struct ap_list *agent = floor_idle.next;
	ap_list_remove(agent);
	pthread_mutex_unlock(&floor_lock);
	pthread_mutex_lock(&floor_lock);
	ap_list_insert_after(&floor_idle, agent);
	pthread_mutex_unlock(&floor_lock);
}

static double floor_ns(void)
{
	int64_t from = ap_clock_ns();
	for (int i = 0; i < N_PAIRS; i++)
		counted_floor();
	return (double)(ap_clock_ns() - from) / N_PAIRS;
}

/* --- the machine --- */

/* A pool in which nothing is under way; with waiters, all its agents are leased. */
struct bench {
	const char *name;
	unsigned n_slots, n_waiters, n_hosts; /* of hosts 0 means one */
	pthread_mutex_t lock;
	struct machine machine;
	struct machine_effects fx;
	struct machine_request *requests; /* used in turn */
	unsigned n_requests, next, oldest;
	double pair[N_REPETITIONS], cycle[N_REPETITIONS]; /* ns */
};

/* One locked step; the effect that it asked for, if it did. */
static struct machine_effect bench_step(struct bench *bench, const struct machine_event *event,
					int64_t now)
{
	pthread_mutex_lock(&bench->lock);
	int r = machine_step(&bench->machine, event, now, &bench->fx);
	struct machine_effect effect = bench->fx.at[0];
	pthread_mutex_unlock(&bench->lock);
	if (r < 0)
		abort();
	return effect;
}

static struct machine_effect bench_acquire(struct bench *bench, int64_t now)
{
	struct machine_request *request = &bench->requests[bench->next];
	if (++bench->next == bench->n_requests)
		bench->next = 0;
	request->deadline_ns = now + 3600 * AP_SECOND;
	return bench_step(
		bench, &(struct machine_event){.type = MACHINE_ACQUIRE, .request = request}, now);
}

static struct machine_effect bench_release(struct bench *bench, int64_t now)
{
	struct machine_request *request = &bench->requests[bench->oldest];
	if (++bench->oldest == bench->n_requests)
		bench->oldest = 0;
	return bench_step(bench,
			  &(struct machine_event){.type = MACHINE_RELEASE,
						  .slot = request->slot,
						  .token = request->token},
			  now);
}

static struct machine_effect bench_succeed(struct bench *bench, struct machine_effect effect,
					   int64_t now)
{
	return bench_step(bench,
			  &(struct machine_event){.type = machine_outcome(effect.type),
						  .slot = effect.slot,
						  .effect = effect.id},
			  now);
}

/* All that is under way, and what follows from it. */
static void bench_settle(struct bench *bench, int64_t now)
{
	struct machine_effect *queue = malloc(16 * bench->n_slots * sizeof *queue);
	unsigned n = 0;
	if (!queue)
		abort();
	for (unsigned i = 0; i < bench->fx.n; i++)
		queue[n++] = bench->fx.at[i];
	for (unsigned i = 0; i < n; i++) {
		bench_succeed(bench, queue[i], now);
		for (unsigned j = 0; j < bench->fx.n; j++)
			queue[n++] = bench->fx.at[j];
	}
	free(queue);
}

static void bench_begin(struct bench *bench)
{
	const struct machine_limits limits = {
		.min_size = 1,
		.max_size = bench->n_slots,
		.max_spawning = bench->n_slots,
		.max_waiting = 4096,
		.scaling = {.min_size = 1, .up_at = 80, .down_at = 20},
		.recycling = {.max_age_ns = 3600 * AP_SECOND, .max_requests = UINT32_MAX},
		.scale_down_window_ns = 3600 * AP_SECOND,
		.idle_timeout_ns = 3600 * AP_SECOND,
		.spawn_timeout_ns = 60 * AP_SECOND,
		.pass_ns = 3600 * AP_SECOND,
		.keep_program = true,
	};
	int64_t now = ap_clock_ns();
	pthread_mutex_init(&bench->lock, NULL);
	unsigned n_hosts = bench->n_hosts > 0 ? bench->n_hosts : 1;
	if (machine_init(&bench->machine, bench->n_slots, n_hosts, &limits, 1, now) < 0)
		abort();
	bench->fx.at = calloc(machine_max_effects(&bench->machine.view), sizeof *bench->fx.at);
	bench->fx.moves =
		calloc(machine_max_effects(&bench->machine.view), sizeof *bench->fx.moves);
	bench->n_requests = bench->n_waiters + bench->n_slots + N_BATCH;
	bench->requests = calloc(bench->n_requests, sizeof *bench->requests);
	if (!bench->fx.at || !bench->fx.moves || !bench->requests)
		abort();
	for (unsigned i = 0; i < bench->n_requests; i++)
		snprintf(bench->requests[i].label.text, sizeof bench->requests[i].label.text,
			 "job-%u", i);
	for (unsigned i = 0; i < n_hosts; i++) { /* one is filled after the other */
		unsigned slots = bench->n_slots / n_hosts;
		bench_step(bench,
			   &(struct machine_event){.type = MACHINE_HOST,
						   .host = i,
						   .host_state = AP_HOST_UP,
						   .slots = slots},
			   now);
		bench_settle(bench, now);
		bench_step(bench,
			   &(struct machine_event){.type = MACHINE_SCALE,
						   .target = (int)(slots * (i + 1))},
			   now);
		bench_settle(bench, now);
	}
	bench_step(bench, &(struct machine_event){.type = MACHINE_SCALE, .target = -1}, now);
	now += 10 * AP_SECOND; /* every start counts as a success */
	bench_step(bench, &(struct machine_event){.type = MACHINE_CONFIG}, now);
	assert(bench->machine.view.n_in_state[AP_AGENT_IDLE] == bench->n_slots);
	for (unsigned i = 0; bench->n_waiters > 0 && i < bench->n_slots + bench->n_waiters; i++) {
		bench_acquire(bench, now);
		bench_settle(bench, now);
	}
	assert(bench->machine.view.n_waiting == bench->n_waiters);
}

static void bench_end(struct bench *bench)
{
	machine_fini(&bench->machine);
	free(bench->fx.at);
	free(bench->fx.moves);
	free(bench->requests);
	pthread_mutex_destroy(&bench->lock);
}

/* A lease from acquire to idle again. With waiters the acquirer queues, and the agent that is
 * released goes to the first of them. */
static void bench_cycle(struct bench *bench)
{
	int64_t now = ap_clock_ns();
	struct machine_effect effect = bench_acquire(bench, now);
	if (bench->n_waiters == 0)
		bench_succeed(bench, effect, now); /* VALIDATED */
	effect = bench_release(bench, now);
	effect = bench_succeed(bench, effect, now); /* SAVED */
	effect = bench_succeed(bench, effect, now); /* RECYCLED */
	if (bench->n_waiters > 0)
		bench_succeed(bench, effect, now); /* VALIDATED */
}

static double cycle_ns(struct bench *bench)
{
	int64_t from = ap_clock_ns();
	for (int i = 0; i < N_PAIRS; i++)
		bench_cycle(bench);
	return (double)(ap_clock_ns() - from) / N_PAIRS;
}

static COUNTED void counted_acquires(struct bench *bench, struct machine_effect *effects)
{
	for (int i = 0; i < N_BATCH; i++)
		effects[i] = bench_acquire(bench, ap_clock_ns());
}

static COUNTED void counted_releases(struct bench *bench, int64_t now,
				     struct machine_effect *effects)
{
	for (int i = 0; i < N_BATCH; i++)
		effects[i] = bench_release(bench, now);
}

/* The acquire and release steps of a batch of leases, timed; their outcomes between, not timed. The
 * function is counted too, where all steps of a lease matter. */
static COUNTED int64_t pair_batch(struct bench *bench)
{
	struct machine_effect effects[N_BATCH];
	int64_t from = ap_clock_ns();
	counted_acquires(bench, effects);
	int64_t now = ap_clock_ns(), spent = now - from;
	for (int i = 0; bench->n_waiters == 0 && i < N_BATCH; i++)
		bench_succeed(bench, effects[i], now); /* VALIDATED */
	from = ap_clock_ns();
	counted_releases(bench, now, effects);
	spent += ap_clock_ns() - from;
	for (int i = 0; i < N_BATCH; i++) {
		struct machine_effect next = bench_succeed(bench, effects[i], now); /* SAVED */
		next = bench_succeed(bench, next, now);				    /* RECYCLED */
		if (bench->n_waiters > 0)
			bench_succeed(bench, next, now); /* VALIDATED */
	}
	return spent;
}

static double pair_ns(struct bench *bench)
{
	int64_t spent = 0;
	for (int i = 0; i < N_PAIRS / N_BATCH; i++)
		spent += pair_batch(bench);
	return (double)spent / N_PAIRS;
}

/* --- the comparison --- */

static double floors[N_REPETITIONS];

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Of at[i] / by[i]; of at[i] without `by`. */
static double median(const double *at, const double *by)
{
	double sorted[N_REPETITIONS];
	for (int i = 0; i < N_REPETITIONS; i++)
		sorted[i] = by ? at[i] / by[i] : at[i];
	qsort(sorted, N_REPETITIONS, sizeof *sorted, compare);
	return sorted[N_REPETITIONS / 2];
}

static struct bench benches[] = {
	{.name = "10 agents", .n_slots = 10},
	{.name = "64 agents", .n_slots = 64},
	{.name = "4096 agents", .n_slots = 4096},
	{.name = "10 agents, 1000 waiters", .n_slots = 10, .n_waiters = 1000},
};

#define N_BENCHES (sizeof benches / sizeof *benches)

static void measure(void)
{
	for (size_t b = 0; b < N_BENCHES; b++)
		bench_begin(&benches[b]);
	uint64_t before = n_allocations;
	for (int i = 0; i < N_REPETITIONS; i++) {
		floors[i] = floor_ns();
		for (size_t b = 0; b < N_BENCHES; b++) {
			benches[b].pair[i] = pair_ns(&benches[b]);
			benches[b].cycle[i] = cycle_ns(&benches[b]);
		}
	}
	uint64_t n_measured = n_allocations - before;
	printf("{\"leases\": %d, \"allocations\": %" PRIu64 ", \"slot_bytes\": %zu, "
	       "\"floor_ns\": %.1f, \"pools\": [",
	       (int)N_BENCHES * N_REPETITIONS * 2 * N_PAIRS, n_measured,
	       sizeof(struct machine_slot), median(floors, NULL));
	for (size_t b = 0; b < N_BENCHES; b++) {
		const struct bench *bench = &benches[b];
		printf("%s{\"name\": \"%s\", \"pair_ns\": %.1f, \"cycle_ns\": %.1f, "
		       "\"pair_of_floor\": %.2f, \"cycle_of_floor\": %.2f, \"pair_growth\": %.2f}",
		       b == 0 ? "" : ", ", bench->name, median(bench->pair, NULL),
		       median(bench->cycle, NULL), median(bench->pair, floors),
		       median(bench->cycle, floors), median(bench->pair, benches[0].pair));
	}
	puts("]}");
	for (size_t b = 0; b < N_BENCHES; b++)
		bench_end(&benches[b]);
}

/* So many leases, rounded to batches. */
static void count(unsigned n_slots, unsigned n_waiters, unsigned n_leases, unsigned n_hosts)
{
	struct bench bench = {.n_slots = n_slots, .n_waiters = n_waiters, .n_hosts = n_hosts};
	if (n_slots > 0)
		bench_begin(&bench);
	for (unsigned i = 0; i < n_leases; i += N_BATCH) {
		for (int j = 0; n_slots == 0 && j < N_BATCH; j++)
			counted_floor();
		if (n_slots > 0)
			pair_batch(&bench);
	}
	if (n_slots > 0)
		bench_end(&bench);
}

int main(int argc, char **argv)
{
	floor_begin();
	if (argc == 1)
		measure();
	else if (argc == 4 || argc == 5)
		count((unsigned)atoi(argv[1]), (unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]),
		      argc == 5 ? (unsigned)atoi(argv[4]) : 0);
	else
		return 2;
	return 0;
}
