#include "unit.h"

#include <pthread.h>
#include <string.h>

#include "clock.h"

static void an_instant_has_one_wall_time(void **state)
{
	int64_t at = ap_clock_ns(), wall = ap_clock_to_wall(at);
	for (int i = 0; i < 200000; i++)
		assert_int_equal(ap_clock_to_wall(at), wall);
	assert_int_equal(ap_clock_from_wall(wall), at);
}

static void *look(void *ret)
{
	*(int64_t *)ret = ap_clock_to_wall(0);
	return NULL;
}

static void it_is_the_same_for_all_threads(void **state)
{
	pthread_t threads[16];
	int64_t seen[16];
	for (int i = 0; i < 16; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look, &seen[i]), 0);
	for (int i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	for (int i = 1; i < 16; i++)
		assert_int_equal(seen[i], seen[0]);
}

/* What is written down as wall time, and read by another daemon, is shown as it was. */
static void what_was_written_down_is_shown_as_it_was(void **state)
{
	char before[32], after[32];
	int64_t wall = ap_clock_to_wall(ap_clock_ns()) / AP_SECOND *
		       AP_SECOND; /* of a second, its start */
	int64_t at = ap_clock_from_wall(wall);
	ap_clock_rfc3339(at, before, sizeof before);
	ap_clock_rfc3339(ap_clock_from_wall(ap_clock_to_wall(at)), after, sizeof after);
	assert_string_equal(before, after);
	assert_int_equal(ap_clock_to_wall(at), wall);
}

static void no_instant_is_in_the_future(void **state)
{
	int64_t at = ap_clock_from_wall(ap_clock_to_wall(ap_clock_ns()) + 60 * AP_SECOND);
	assert_true(at <= ap_clock_ns());
}

static void spans_do_not_overflow(void **state)
{
	assert_int_equal(ap_clock_after(5, 7), 12);
	assert_int_equal(ap_clock_after(5, AP_FOREVER), AP_FOREVER);
	assert_int_equal(ap_clock_after(AP_FOREVER - 1, 2), AP_FOREVER);
	assert_int_equal(ap_clock_after(-5, 7), 2);
	assert_int_equal(ap_clock_after(-5, AP_FOREVER), AP_FOREVER);
	assert_int_equal(ap_clock_after(INT64_MIN, 1), INT64_MIN + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("an instant has one wall time", an_instant_has_one_wall_time),
		IT("it is the same for all threads", it_is_the_same_for_all_threads),
		IT("what was written down is shown as it was",
		   what_was_written_down_is_shown_as_it_was),
		IT("no instant is in the future", no_instant_is_in_the_future),
		IT("spans do not overflow", spans_do_not_overflow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
