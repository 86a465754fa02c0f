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

static void utilization_of_nothing(void **state)
{
	assert_int_equal(scaling_utilization((struct scaling_sample){0}), 0);
	assert_int_equal(scaling_utilization((struct scaling_sample){.n_waiting = 1}), 100);
	assert_int_equal(utilization((struct scaling_sample){.n_waiting = 3}), 3);
}

static void coming_is_capacity(void **state)
{
	struct scaling_sample sample = {.n_active = 1, .n_coming = 3};
	assert_int_equal(scaling_size(sample), 4);
	assert_int_equal(scaling_utilization(sample), 25);
	assert_int_equal(spare(sample), 4); /* three of them spare */
}

static void utilization_floor_is_the_minimum(void **state)
{
	struct scaling_sample sample = {.n_active = 5, .n_idle = 9};
	assert_int_equal(scaling_policies[SCALING_UTILIZATION].floor(sample, &limits), 1);
}

static void spare_floor_is_not_under_the_minimum(void **state)
{
	struct scaling_limits large = limits;
	large.min_size = 6;
	struct scaling_sample sample = {.n_active = 1, .n_idle = 9};
	assert_int_equal(scaling_policies[SCALING_SPARE].floor(sample, &large), 6);
}

static void policies_have_names(void **state)
{
	assert_string_equal(scaling_policies[SCALING_UTILIZATION].name, "utilization");
	assert_string_equal(scaling_policies[SCALING_SPARE].name, "spare");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("utilization grows over up_at and shrinks under down_at, not at them",
		   strictly_between),
		IT("utilization does what the shown percentage says", agrees_with_what_is_shown),
		IT("utilization grows by as many as wait", as_many_as_wait),
		IT("spare keeps between min_idle and max_idle beside the busy", spare_keeps_idle),
		IT("an empty pool is used when somebody waits", utilization_of_nothing),
		IT("agents that are coming are capacity", coming_is_capacity),
		IT("under utilization idle agents go down to the minimum",
		   utilization_floor_is_the_minimum),
		IT("under spare idle agents go down to the minimum, not below",
		   spare_floor_is_not_under_the_minimum),
		IT("a policy has the name that the configuration knows", policies_have_names),
	};
	return cmocka_run_group_tests_name("scaling", tests, NULL, NULL);
}
