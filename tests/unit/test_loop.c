/* The thread that waits: who is called for what, in what order, and not any more. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "list.h"
#include "loop.h"

#define WAIT_MS 60000 /* for what must come */

static struct loop *loop;
static struct ap_err err;

/* A source that counts its calls and says so. */
struct counted {
	struct loop_source source;
	atomic_int n_calls;
	int told_fd; /* an eventfd: one more call */
};

static void count(struct loop_source *source)
{
	struct counted *counted = ap_container_of(source, struct counted, source);
	uint64_t one = 1;
	atomic_fetch_add(&counted->n_calls, 1);
	(void)!write(counted->told_fd, &one, sizeof one);
}

static void add(struct counted *counted, void (*call)(struct loop_source *))
{
	atomic_init(&counted->n_calls, 0);
	counted->told_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	assert_int_equal(loop_add(loop, &counted->source, call), 0);
}

static void remove_counted(struct counted *counted)
{
	loop_remove(loop, &counted->source);
	close(counted->told_fd);
}

static void await_call(struct counted *counted)
{
	struct pollfd told = {.fd = counted->told_fd, .events = POLLIN};
	uint64_t one;
	assert_int_equal(poll(&told, 1, WAIT_MS), 1);
	assert_int_equal(read(counted->told_fd, &one, sizeof one), sizeof one);
}

static int begin(void **state)
{
	return loop_new(&loop, &err) == 0 ? loop_start(loop, &err) : -1;
}

static int end(void **state)
{
	loop_stop(loop);
	loop_free(loop);
	return 0;
}

/* Has the thread go round once: all that was there before has been called. */
static void go_round(void)
{
	struct counted round;
	add(&round, count);
	loop_set(loop, &round.source, ap_clock_ns());
	await_call(&round);
	remove_counted(&round);
}

static void calls_for_descriptors(void **state)
{
	struct counted counted;
	int first[2], second[2];
	char byte = 'x';
	assert_int_equal(pipe2(first, O_CLOEXEC), 0);
	assert_int_equal(pipe2(second, O_CLOEXEC), 0);
	add(&counted, count);
	assert_int_equal(loop_watch_fd(loop, &counted.source, first[0]), 0);
	go_round();
	assert_int_equal(atomic_load(&counted.n_calls), 0);
	assert_int_equal(write(first[1], &byte, 1), 1);
	await_call(&counted);
	await_call(&counted); /* as long as nobody reads it */
	assert_int_equal(loop_watch_fd(loop, &counted.source, second[0]), 0);
	go_round();
	int n = atomic_load(&counted.n_calls);
	go_round();
	assert_int_equal(atomic_load(&counted.n_calls), n);
	close(second[1]); /* the end counts as well */
	for (int i = 0; i < n + 1; i++)
		await_call(&counted);
	assert_int_equal(loop_watch_fd(loop, &counted.source, -1), 0);
	go_round();
	n = atomic_load(&counted.n_calls);
	go_round();
	assert_int_equal(atomic_load(&counted.n_calls), n);
	assert_int_equal(loop_watch_fd(loop, &counted.source, INT_MAX), -EBADF);
	remove_counted(&counted);
	close(first[0]);
	close(first[1]);
	close(second[0]);
}

static void a_file_has_one_source(void **state)
{
	struct counted first, second;
	char path[] = "/tmp/agentpool-loop-XXXXXX";
	int fd = mkstemp(path);
	(void)state;
	add(&first, count);
	add(&second, count);
	assert_int_equal(loop_watch_file(loop, &first.source, path), 0);
	assert_int_equal(loop_watch_file(loop, &second.source, path), -EEXIST);
	assert_int_equal(write(fd, "x", 1), 1);
	await_call(&first);
	remove_counted(&first);
	assert_int_equal(loop_watch_file(loop, &second.source, path), 0);
	assert_int_equal(write(fd, "x", 1), 1);
	await_call(&second);
	remove_counted(&second);
	close(fd);
	unlink(path);
}

static void calls_for_files(void **state)
{
	struct counted counted;
	char one[] = "/tmp/agentpool-loop-XXXXXX", other[] = "/tmp/agentpool-loop-XXXXXX";
	int one_fd = mkstemp(one), other_fd = mkstemp(other);
	add(&counted, count);
	assert_int_equal(loop_watch_file(loop, &counted.source, one), 0);
	assert_int_equal(write(one_fd, "x", 1), 1);
	await_call(&counted);
	assert_int_equal(loop_watch_file(loop, &counted.source, one), 0); /* again */
	assert_int_equal(write(one_fd, "x", 1), 1);
	await_call(&counted);
	assert_int_equal(loop_watch_file(loop, &counted.source, other), 0);
	go_round();
	int n = atomic_load(&counted.n_calls);
	assert_int_equal(write(one_fd, "x", 1), 1);
	go_round();
	assert_int_equal(atomic_load(&counted.n_calls), n);
	assert_int_equal(write(other_fd, "x", 1), 1);
	await_call(&counted);
	unlink(other);
	assert_int_equal(loop_watch_file(loop, &counted.source, NULL), 0);
	assert_int_equal(loop_watch_file(loop, &counted.source, other), -ENOENT);
	remove_counted(&counted);
	unlink(one);
	close(one_fd);
	close(other_fd);
}

#define N_TIMES 200

static struct counted timed[N_TIMES];
static atomic_int n_timed;
static int order[N_TIMES];

static void note_order(struct loop_source *source)
{
	order[atomic_fetch_add(&n_timed, 1)] =
		(int)(ap_container_of(source, struct counted, source) - timed);
}

/* In the order of their times, whatever they were before; those that were taken back not at all. */
static void calls_in_order_of_time(void **state)
{
	struct loop *idle; /* its thread begins when all is set */
	int64_t base = ap_clock_ns() - 3600 * AP_SECOND, at[N_TIMES];
	struct counted last;
	unsigned seed = 7;
	assert_int_equal(loop_new(&idle, &err), 0);
	for (int i = 0; i < N_TIMES; i++)
		assert_int_equal(loop_add(idle, &timed[i].source, note_order), 0);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < N_TIMES; i++) {
			at[i] = rand_r(&seed) % 7 == 0 ? AP_FOREVER : base + rand_r(&seed) % 1000;
			loop_set(idle, &timed[i].source, at[i]);
		}
	}
	for (int i = 0; i < N_TIMES; i += 3) { /* later ones change nothing */
		int64_t to = base + rand_r(&seed) % 1000;
		loop_advance(idle, &timed[i].source, to);
		at[i] = to < at[i] ? to : at[i];
	}
	for (int i = 0; i < N_TIMES; i += 5) {
		loop_remove(idle, &timed[i].source);
		at[i] = AP_FOREVER;
	}
	last.told_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	atomic_init(&last.n_calls, 0);
	assert_int_equal(loop_add(idle, &last.source, count), 0);
	loop_set(idle, &last.source, ap_clock_ns());
	assert_int_equal(loop_start(idle, &err), 0);
	await_call(&last);
	loop_stop(idle);
	int n = 0;
	for (int i = 0; i < N_TIMES; i++)
		n += at[i] != AP_FOREVER;
	assert_int_equal(atomic_load(&n_timed), n);
	for (int i = 1; i < n; i++)
		assert_true(at[order[i - 1]] <= at[order[i]]);
	loop_free(idle);
	close(last.told_fd);
}

static void wakes_for_an_earlier_time(void **state)
{
	struct counted late, early;
	add(&late, count);
	add(&early, count);
	loop_set(loop, &late.source, ap_clock_ns() + 3600 * AP_SECOND);
	go_round(); /* it sleeps for an hour now */
	loop_set(loop, &early.source, ap_clock_ns() + 10 * AP_MS);
	await_call(&early);
	assert_int_equal(atomic_load(&early.n_calls), 1);
	assert_int_equal(atomic_load(&late.n_calls), 0);
	remove_counted(&late);
	remove_counted(&early);
}

static void set_again(struct loop_source *source)
{
	loop_set(loop, source, ap_clock_ns());
	count(source);
}

static void who_sets_himself_again_starves_nobody(void **state)
{
	struct counted greedy, other;
	add(&greedy, set_again);
	add(&other, count);
	loop_set(loop, &greedy.source, ap_clock_ns());
	await_call(&greedy);
	loop_set(loop, &other.source, ap_clock_ns());
	await_call(&other);
	await_call(&greedy);
	remove_counted(&greedy);
	remove_counted(&other);
}

static void remove_itself(struct loop_source *source)
{
	struct counted *counted = ap_container_of(source, struct counted, source);
	int told_fd = counted->told_fd;
	uint64_t one = 1;
	loop_remove(loop, source);
	free(counted);
	(void)!write(told_fd, &one, sizeof one);
}

static void a_call_may_end_its_own_source(void **state)
{
	struct counted *counted = malloc(sizeof *counted);
	add(counted, remove_itself);
	struct counted told = {.told_fd = counted->told_fd};
	loop_set(loop, &counted->source, ap_clock_ns());
	await_call(&told);
	close(told.told_fd);
}

static atomic_bool is_inside, may_return;

static void stay_inside(struct loop_source *source)
{
	atomic_store(&is_inside, true);
	count(source);
	while (!atomic_load(&may_return))
		poll(NULL, 0, 1);
	atomic_store(&is_inside, false);
}

static void *let_return(void *data)
{
	poll(NULL, 0, 20);
	atomic_store(&may_return, true);
	return NULL;
}

static void removal_waits_for_a_call(void **state)
{
	struct counted counted;
	pthread_t thread;
	add(&counted, stay_inside);
	loop_set(loop, &counted.source, ap_clock_ns());
	await_call(&counted);
	assert_true(atomic_load(&is_inside));
	assert_int_equal(pthread_create(&thread, NULL, let_return, NULL), 0);
	remove_counted(&counted);
	assert_false(atomic_load(&is_inside));
	pthread_join(thread, NULL);
}

static void what_was_removed_waits_for_nothing(void **state)
{
	struct counted counted;
	int fd = eventfd(1, EFD_CLOEXEC);
	add(&counted, count);
	loop_remove(loop, &counted.source);
	for (int i = 0; i < 100; i++) { /* more than there is room for */
		loop_set(loop, &counted.source, ap_clock_ns() + i);
		loop_advance(loop, &counted.source, ap_clock_ns());
	}
	assert_int_equal(loop_watch_fd(loop, &counted.source, fd), 0);
	assert_int_equal(loop_watch_file(loop, &counted.source, "/tmp"), 0);
	go_round();
	assert_int_equal(atomic_load(&counted.n_calls), 0);
	remove_counted(&counted); /* again: nothing */
	close(fd);
}

/* Sources come and go in other threads while the loop calls them. NULL: all is well. */
static void *come_and_go(void *data)
{
	for (int i = 0; i < 500; i++) {
		struct counted counted = {.told_fd = -1};
		int fd = eventfd(1, EFD_CLOEXEC);
		if (loop_add(loop, &counted.source, count) < 0 || fd < 0)
			return data;
		loop_set(loop, &counted.source, ap_clock_ns() + i % 3 * AP_MS / 10);
		if (loop_watch_fd(loop, &counted.source, fd) < 0)
			return data;
		loop_advance(loop, &counted.source, ap_clock_ns());
		loop_remove(loop, &counted.source);
		close(fd);
	}
	return NULL;
}

static void sources_come_and_go(void **state)
{
	pthread_t threads[4];
	void *wrong;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, loop), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a source is called while its descriptor can be read", calls_for_descriptors),
		IT("a source is called when its file is written to", calls_for_files),
		IT("a file has one source", a_file_has_one_source),
		IT("times are called in their order", calls_in_order_of_time),
		IT("an earlier time wakes a loop that sleeps", wakes_for_an_earlier_time),
		IT("who sets himself again starves nobody", who_sets_himself_again_starves_nobody),
		IT("a call may end its own source", a_call_may_end_its_own_source),
		IT("a removal waits for a call that is under way", removal_waits_for_a_call),
		IT("what was removed waits for nothing", what_was_removed_waits_for_nothing),
		IT("sources come and go while others are called", sources_come_and_go),
	};
	return cmocka_run_group_tests_name("loop", tests, begin, end);
}
