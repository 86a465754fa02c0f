/* Policies: counts in, a size out. */
#include "unit.h"

#include "scaling.h"

static const struct scaling_limits limits = {
	.min_size = 1, .up_at = 80, .down_at = 20, .min_idle = 2, .max_idle = 4};

static unsigned utilization(struct scaling_sample sample)
{
	return scaling_policies[SCALING_UTILIZATION].desired(sample, 0, &limits);
}

static unsigned spare(struct scaling_sample sample)
{
	return scaling_policies[SCALING_SPARE].desired(sample, 0, &limits);
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
				 (struct scaling_sample){.n_active = 5, .n_idle = 9}, 0, &limits),
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
	assert_int_equal(scaling_policies[SCALING_UTILIZATION].floor(sample, 0, &limits), 1);
}

static void spare_floor_is_not_under_the_minimum(void **state)
{
	struct scaling_limits large = limits;
	large.min_size = 6;
	struct scaling_sample sample = {.n_active = 1, .n_idle = 9};
	assert_int_equal(scaling_policies[SCALING_SPARE].floor(sample, 0, &large), 6);
}

static unsigned target(struct scaling_sample sample)
{
	return scaling_policies[SCALING_TARGET].desired(sample, 0, &limits);
}

static void target_is_aimed_at(void **state)
{
	assert_int_equal(target((struct scaling_sample){.n_active = 1}), 2);
	assert_int_equal(target((struct scaling_sample){.n_active = 4}), 5);
	assert_int_equal(target((struct scaling_sample){.n_active = 5, .n_idle = 1}), 7);
	assert_int_equal(target((struct scaling_sample){.n_active = 2, .n_waiting = 6}), 10);
	assert_int_equal(target((struct scaling_sample){.n_active = 4, .n_idle = 6}), 5);
	assert_int_equal(target((struct scaling_sample){.n_idle = 6}), 0);
}

static void target_leaves_one_too_many(void **state)
{
	struct scaling_sample sample = {.n_active = 4, .n_idle = 2};
	assert_int_equal(target(sample), 6);
	assert_int_equal(scaling_policies[SCALING_TARGET].floor(sample, 0, &limits), 5);
}

static unsigned ewma(struct scaling_sample sample, double load)
{
	return scaling_policies[SCALING_EWMA].desired(sample, load, &limits);
}

static void ewma_has_room(void **state)
{
	assert_int_equal(ewma((struct scaling_sample){.n_idle = 3}, 0), 0);
	assert_int_equal(ewma((struct scaling_sample){.n_idle = 3}, 1), 2);
	assert_int_equal(ewma((struct scaling_sample){.n_active = 9}, 9), 12);
	assert_int_equal(ewma((struct scaling_sample){.n_active = 9}, 9.1), 13);
	/* never less than there is to do */
	assert_int_equal(ewma((struct scaling_sample){.n_active = 7, .n_waiting = 8}, 9), 15);
}

static void load_is_an_average_over_time(void **state)
{
	struct scaling_load load = {0};
	const int64_t begin = 1000 * AP_SECOND;
	scaling_load_add(&load, 4, begin);
	assert_float_equal(load.mean, 4, 0);
	scaling_load_add(&load, 0, begin + AP_SECOND); /* it was 4 until then */
	assert_float_equal(load.mean, 4, 1e-12);
	scaling_load_add(&load, 0, begin + AP_SECOND + SCALING_LOAD_TAU);
	assert_float_equal(load.mean, 4 / 2.718281828, 1e-6);
	scaling_load_add(&load, 100, begin); /* a clock that goes back takes nothing away */
	assert_float_equal(load.mean, 4 / 2.718281828, 1e-6);
	/* however often it is looked at */
	struct scaling_load often = {0}, seldom = {0};
	scaling_load_add(&often, 3, begin);
	scaling_load_add(&seldom, 3, begin);
	scaling_load_add(&often, 1, begin + 1);
	scaling_load_add(&seldom, 1, begin + 1);
	for (int i = 1; i <= 1000; i++)
		scaling_load_add(&often, 1, begin + i * AP_SECOND);
	scaling_load_add(&seldom, 1, begin + 1000 * AP_SECOND);
	assert_float_equal(often.mean, seldom.mean, 1e-9);
}

static void policies_have_names(void **state)
{
	assert_string_equal(scaling_policies[SCALING_TARGET].name, "target");
	assert_string_equal(scaling_policies[SCALING_EWMA].name, "ewma");
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
		IT("target has so many that up_at percent of them are busy", target_is_aimed_at),
		IT("target leaves one too many to the idle timeout", target_leaves_one_too_many),
		IT("ewma has the average and its deviation, never less than is busy",
		   ewma_has_room),
		IT("the load is an average over time, however often it is looked at",
		   load_is_an_average_over_time),
		IT("a policy has the name that the configuration knows", policies_have_names),
	};
	return cmocka_run_group_tests_name("scaling", tests, NULL, NULL);
}
