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

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the third failure in a row opens it", opens_at_the_third),
		IT("half-open lets exactly one spawn through, which closes it", half_open_lets_one),
		IT("the backoff doubles up to its bound", backoff_doubles_to_its_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
