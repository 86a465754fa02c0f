/* Policies: counts in, a size out. */
#include "unit.h"

#include "scaling.h"

static const struct scaling_limits limits = {
	.min_size = 1, .up_at = 80, .down_at = 20, .min_idle = 2, .max_idle = 4};

static unsigned utilization(struct scaling_sample sample)
{
	return scaling_policies[SCALING_UTILIZATION].desired(sample, &limits);
}

static unsigned spare(struct scaling_sample sample)
{
	return scaling_policies[SCALING_SPARE].desired(sample, &limits);
}

static void strictly_between(void **state)
{
	assert_int_equal(utilization((struct scaling_sample){.n_active = 8, .n_idle = 2}), 10);
	assert_int_equal(utilization((struct scaling_sample){.n_active = 9, .n_idle = 1}), 11);
	assert_int_equal(utilization((struct scaling_sample){.n_active = 2, .n_idle = 8}), 10);
	assert_int_equal(utilization((struct scaling_sample){.n_active = 1, .n_idle = 9}), 9);
	assert_int_equal(utilization((struct scaling_sample){0}), 0);
}

static void agrees_with_what_is_shown(void **state)
{
	for (unsigned active = 0; active <= 10; active++) {
		for (unsigned idle = 0; idle <= 10; idle++) {
			struct scaling_sample sample = {.n_active = active, .n_idle = idle};
			unsigned size = active + idle, shown = scaling_utilization(sample);
			unsigned wanted = utilization(sample);
			assert_int_equal(wanted > size, shown > limits.up_at);
			assert_int_equal(wanted < size, shown < limits.down_at && size > 0);
		}
	}
}

static void as_many_as_wait(void **state)
{
	struct scaling_sample sample = {.n_active = 3, .n_waiting = 4};
	assert_int_equal(utilization(sample), 7);
	sample.n_coming = 9; /* a slow start is no reason for more */
	assert_int_equal(utilization(sample), 12);
}

static void spare_keeps_idle(void **state)
{
	assert_int_equal(spare((struct scaling_sample){.n_active = 5}), 7);
	assert_int_equal(spare((struct scaling_sample){.n_active = 5, .n_idle = 3}), 8);
	assert_int_equal(spare((struct scaling_sample){.n_active = 5, .n_idle = 9}), 9);
	assert_int_equal(spare((struct scaling_sample){.n_waiting = 3, .n_coming = 1}), 5);
	assert_int_equal(scaling_policies[SCALING_SPARE].floor(
				 (struct scaling_sample){.n_active = 5, .n_idle = 9}, &limits),
			 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strictly_between),
		cmocka_unit_test(agrees_with_what_is_shown),
		cmocka_unit_test(as_many_as_wait),
		cmocka_unit_test(spare_keeps_idle),
	};
	return cmocka_run_group_tests_name("scaling", tests, NULL, NULL);
}
