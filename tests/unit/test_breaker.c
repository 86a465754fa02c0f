#include "unit.h"

#include "breaker.h"
#include "clock.h"

static void opens_at_the_third(void **state)
{
	struct breaker b = {0};
	breaker_failed(&b, 0, 0);
	breaker_failed(&b, 0, 0);
	assert_true(breaker_allowance(&b, 0, 0) > 0);
	breaker_failed(&b, 0, 0);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_int_equal(breaker_allowance(&b, 0, 0), 0);
}

static void half_open_lets_one(void **state)
{
	struct breaker b = {0};
	for (int i = 0; i < 3; i++)
		breaker_failed(&b, 0, 0);
	int64_t later = b.retry_ns;
	assert_int_equal(breaker_allowance(&b, 0, later - 1), 0);
	assert_int_equal(breaker_allowance(&b, 0, later), 1);
	assert_int_equal(breaker_allowance(&b, 1, later), 0);
	breaker_succeeded(&b);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(b.n_failures, 0);
}

static void backoff_doubles_to_its_bound(void **state)
{
	struct breaker b = {0};
	int64_t now = 0, last = 0;
	for (int i = 0; i < 3; i++)
		breaker_failed(&b, now, UINT32_MAX / 2);
	for (int i = 0; i < 12; i++) {
		int64_t backoff = b.retry_ns - now;
		assert_true(backoff >= last);
		assert_true(backoff <= 450 * AP_SECOND);
		last = backoff;
		now = b.retry_ns;
		assert_int_equal(breaker_allowance(&b, 0, now), 1);
		breaker_failed(&b, now, UINT32_MAX / 2);
	}
	assert_true(last >= 299 * AP_SECOND);
}

static void success_starts_the_count_anew(void **state)
{
	struct breaker b = {0};
	for (int i = 0; i < 5; i++) {
		breaker_failed(&b, 0, 0);
		breaker_failed(&b, 0, 0);
		breaker_succeeded(&b);
	}
	assert_int_equal(b.state, BREAKER_CLOSED);
}

static void open_ignores_a_success(void **state)
{
	struct breaker b = {0};
	for (int i = 0; i < 3; i++)
		breaker_failed(&b, 0, 0);
	struct breaker before = b;
	breaker_succeeded(&b);
	assert_memory_equal(&b, &before, sizeof b);
	assert_int_equal(breaker_allowance(&b, 0, b.retry_ns - 1), 0);
}

static void open_ignores_a_failure(void **state)
{
	struct breaker b = {0};
	for (int i = 0; i < 3; i++)
		breaker_failed(&b, 0, 0);
	int64_t retry = b.retry_ns;
	breaker_failed(&b, AP_SECOND / 4, UINT32_MAX);
	assert_int_equal(b.retry_ns, retry);
}

static void half_open_failure_opens_again(void **state)
{
	struct breaker b = {0};
	for (int i = 0; i < 3; i++)
		breaker_failed(&b, 0, UINT32_MAX / 2);
	int64_t backoff = b.retry_ns, now = b.retry_ns;
	breaker_allowance(&b, 0, now);
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	breaker_failed(&b, now, UINT32_MAX / 2);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_true(b.retry_ns - now > backoff);
}

static void reset_forgets_all(void **state)
{
	const struct breaker fresh = {0};
	struct breaker b = {0};
	for (int i = 0; i < 3; i++)
		breaker_failed(&b, 0, 0);
	breaker_reset(&b);
	assert_memory_equal(&b, &fresh, sizeof b);
	assert_true(breaker_allowance(&b, 5, 0) > 1);
}

static void jitter_has_bounds(void **state)
{
	for (uint64_t random = 0; random <= UINT32_MAX; random += UINT32_MAX / 16) {
		struct breaker b = {0};
		for (int i = 0; i < 3; i++)
			breaker_failed(&b, 0, (uint32_t)random);
		assert_true(b.retry_ns >= AP_SECOND / 2);
		assert_true(b.retry_ns <= AP_SECOND * 3 / 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the third failure in a row opens it", opens_at_the_third),
		IT("half-open lets exactly one spawn through, which closes it", half_open_lets_one),
		IT("the backoff doubles up to its bound", backoff_doubles_to_its_bound),
		IT("a success starts the count of failures anew", success_starts_the_count_anew),
		IT("an open one takes no notice of a success", open_ignores_a_success),
		IT("an open one takes no notice of a failure", open_ignores_a_failure),
		IT("a failure while half-open opens it for longer", half_open_failure_opens_again),
		IT("reset closes it and forgets all", reset_forgets_all),
		IT("the backoff is spread between half and one and a half", jitter_has_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
