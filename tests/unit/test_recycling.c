/* When an agent is due: limits and what is known of it in, a reason out. */
#include "unit.h"

#include "clock.h"
#include "recycling.h"

static const struct recycling_limits limits = {
	.max_age_ns = 3600 * AP_SECOND,
	.max_requests = 10,
	.max_recycles = 3,
	.max_memory = 1000,
	.max_cpu = 80,
};

static enum ap_reason due(struct recycling_sample sample, int64_t now_ns)
{
	return recycling_due(&limits, &sample, now_ns);
}

static void nothing_is_due(void **state)
{
	assert_int_equal(due((struct recycling_sample){0}, 0), AP_REASON_NONE);
}

static void by_requests(void **state)
{
	assert_int_equal(due((struct recycling_sample){.n_requests = 9}, 0), AP_REASON_NONE);
	assert_int_equal(due((struct recycling_sample){.n_requests = 10}, 0), AP_REASON_REQUESTS);
}

static void by_age(void **state)
{
	struct recycling_sample sample = {.started_ns = 100 * AP_SECOND};
	assert_int_equal(due(sample, 3700 * AP_SECOND - 1), AP_REASON_NONE);
	assert_int_equal(due(sample, 3700 * AP_SECOND), AP_REASON_AGE);
}

static void by_memory(void **state)
{
	assert_int_equal(due((struct recycling_sample){.n_memory_over = 2}, 0), AP_REASON_NONE);
	assert_int_equal(due((struct recycling_sample){.n_memory_over = 3}, 0), AP_REASON_MEMORY);
}

static void by_cpu(void **state)
{
	assert_int_equal(due((struct recycling_sample){.cpu_over = true}, 0), AP_REASON_CPU);
}

static void off_at_zero(void **state)
{
	const struct recycling_limits none = {0};
	struct recycling_sample sample = {.n_requests = 1000000};
	assert_int_equal(recycling_due(&none, &sample, 1000000 * AP_SECOND), AP_REASON_NONE);
	assert_int_equal(recycling_expiry(&none, 0, 0), AP_FOREVER);
	assert_false(recycling_spent(&none, 1000000));
}

static void jitter_is_at_most_a_tenth(void **state)
{
	int64_t last = recycling_expiry(&limits, 0, 0);
	assert_int_equal(last, 3600 * AP_SECOND);
	for (unsigned jitter = 1; jitter <= UINT16_MAX; jitter += 0x1001) {
		int64_t expiry = recycling_expiry(&limits, 0, (uint16_t)jitter);
		assert_true(expiry < last);
		last = expiry;
	}
	last = recycling_expiry(&limits, 0, UINT16_MAX);
	assert_true(last >= 3240 * AP_SECOND);
	assert_true(last < 3241 * AP_SECOND); /* all of the tenth is used */
}

static void jitter_makes_it_due_earlier(void **state)
{
	struct recycling_sample sample = {.jitter = UINT16_MAX};
	assert_int_equal(due(sample, 3239 * AP_SECOND), AP_REASON_NONE);
	assert_int_equal(due(sample, 3241 * AP_SECOND), AP_REASON_AGE);
}

static void no_overflow(void **state)
{
	const struct recycling_limits for_ever = {.max_age_ns = AP_FOREVER};
	assert_int_equal(recycling_expiry(&for_ever, 100 * AP_SECOND, 0), AP_FOREVER);
}

static void spent_at_its_limit(void **state)
{
	assert_false(recycling_spent(&limits, 2));
	assert_true(recycling_spent(&limits, 3));
	assert_true(recycling_spent(&limits, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a new agent is not due", nothing_is_due),
		IT("it is due when it has served max_requests", by_requests),
		IT("it is due at max_age and not before", by_age),
		IT("it is due at the third memory sample in a row", by_memory),
		IT("it is due over the CPU quota", by_cpu),
		IT("a limit of 0 is off", off_at_zero),
		IT("jitter takes at most a tenth off max_age", jitter_is_at_most_a_tenth),
		IT("an agent with jitter is due that much earlier", jitter_makes_it_due_earlier),
		IT("an age without end never comes", no_overflow),
		IT("an agent is replaced when it was recycled max_recycles times",
		   spent_at_its_limit),
	};
	return cmocka_run_group_tests_name("recycling", tests, NULL, NULL);
}
