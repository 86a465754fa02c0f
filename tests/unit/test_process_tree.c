/* Usage of process trees, on real processes of our own; and the average, on numbers. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "process_tree.h"

static void burn(int64_t cpu_ns)
{
	while ((int64_t)clock() * (AP_SECOND / CLOCKS_PER_SEC) < cpu_ns)
		;
}

/* A process with memory and CPU time behind it, and a child of its own. */
static void be_busy(const int ready[2], const int end[2])
{
	static volatile char memory[32 << 20];
	char byte;
	for (size_t i = 0; i < sizeof memory; i += 512)
		memory[i] = 1;
	burn(200 * AP_MS);
	close(end[1]);
	if (fork() != 0)
		(void)!write(ready[1], "", 1);
	(void)!read(end[0], &byte, 1); /* its other end closes with the test, however that ends */
	_exit(0);
}

static void children_count(void **state)
{
	struct process_usage before, usage = {0}, below = {0};
	int ready[2], end[2];
	char byte;
	assert_int_equal(process_tree_usage(getpid(), &before), 0);
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(end), 0);
	pid_t child = fork();
	if (child == 0)
		be_busy(ready, end);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(process_tree_usage(getpid(), &usage), 0);
	assert_int_equal(process_tree_usage(child, &below), 0);
	struct process_table *table = process_table_new();
	assert_false(process_table_is_late(table)); /* it has not looked at all */
	int64_t begun = ap_clock_ns();
	struct process_usage same;
	assert_int_equal(process_table_usage(table, getpid(), &same), 0);
	assert_int_equal(same.n_processes, usage.n_processes);
	assert_true(same.memory > usage.memory - (2 << 20) &&
		    same.memory < usage.memory + (2 << 20));
	assert_true(same.cpu_ns >= usage.cpu_ns);
	assert_int_equal(process_table_usage(table, child, &same), 0);
	assert_int_equal(same.n_processes, 1);
	assert_int_equal(process_table_usage(table, 1 << 30, &same), -ESRCH);
	bool is_late = process_table_is_late(table);
	assert_true(!is_late || ap_clock_ns() - begun >= 200 * AP_MS);
	poll(NULL, 0, 300); /* the time for close looks passes */
	assert_true(process_table_is_late(table));
	assert_int_equal(process_table_usage(table, getpid(), &same), 0);
	assert_true(same.memory > 20 << 20 && same.memory < 2 * usage.memory);
	process_table_free(table);
	close(end[1]);
	waitpid(child, NULL, 0);
	close(end[0]);
	close(ready[0]);
	close(ready[1]);
	assert_int_equal(usage.n_processes, before.n_processes + 2);
	assert_true(usage.memory > 30 << 20);
	assert_true(usage.cpu_ns >= 150 * AP_MS);
	assert_int_equal(below.n_processes, 1); /* the root itself is left out */
	assert_int_equal(process_tree_usage(child, &usage), -ESRCH);
}

static void average_over_a_minute(void **state)
{
	struct cpu_average average;
	cpu_average_begin(&average, AP_SECOND);
	cpu_average_add(&average, AP_SECOND, 2 * AP_SECOND); /* a second of full use */
	assert_true(average.percent > 1 && average.percent < 2);
	for (int i = 3; i < 600; i++)
		cpu_average_add(&average, (i - 1) * AP_SECOND, i * AP_SECOND);
	assert_true(average.percent > 99 && average.percent <= 100);
	cpu_average_add(&average, 0, 600 * AP_SECOND); /* less than before counts as none */
	assert_true(average.percent < 99 && average.percent > 95);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(children_count),
		cmocka_unit_test(average_over_a_minute),
	};
	return cmocka_run_group_tests_name("process_tree", tests, NULL, NULL);
}
