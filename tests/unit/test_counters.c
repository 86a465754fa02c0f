/* What is counted: buckets, quantiles, time in states. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "counters.h"

static void bounds_ascend(void **state)
{
	for (int span = 0; span < COUNTERS_N_SPANS; span++) {
		unsigned n;
		const int64_t *bounds = counters_bounds((enum counters_span)span, &n);
		assert_true(n > 1 && n <= COUNTERS_BOUNDS);
		assert_true(bounds[0] > 0);
		for (unsigned i = 1; i < n; i++)
			assert_true(bounds[i] > bounds[i - 1]);
		for (unsigned i = 0; i < n; i++) {
			const char *text = counters_bound_text((enum counters_span)span, i);
			assert_true(strtod(text, NULL) == (double)bounds[i] / 1e9);
			assert_non_null(strpbrk(text, ".e"));
		}
	}
}

static void a_bound_is_in_its_bucket(void **state)
{
	for (int span = 0; span < COUNTERS_N_SPANS; span++) {
		struct counters counters = {0};
		unsigned n;
		const int64_t *bounds = counters_bounds((enum counters_span)span, &n);
		for (unsigned i = 0; i < n; i++) {
			counters_observe(&counters, (enum counters_span)span, bounds[i]);
			assert_int_equal(counters.spans[span].n[i], 1);
		}
		counters_observe(&counters, (enum counters_span)span, bounds[n - 1] + 1);
		assert_int_equal(counters.spans[span].n[COUNTERS_BOUNDS], 1);
		assert_int_equal(counters_count(&counters, (enum counters_span)span), n + 1);
	}
}

static void sums_up(void **state)
{
	struct counters counters = {0};
	counters_observe(&counters, COUNTERS_HOLD, 3 * AP_SECOND);
	counters_observe(&counters, COUNTERS_HOLD, 4 * AP_SECOND);
	counters_observe(&counters, COUNTERS_HOLD, -1); /* a clock that was read before another */
	assert_int_equal(counters.spans[COUNTERS_HOLD].sum_ns, 7 * AP_SECOND);
	assert_int_equal(counters_count(&counters, COUNTERS_HOLD), 3);
	assert_int_equal(counters_count(&counters, COUNTERS_WAIT), 0);
}

static void quantiles(void **state)
{
	struct counters counters = {0};
	assert_true(counters_quantile(&counters, COUNTERS_WAIT, 0.5) < 0);
	for (int i = 0; i < 90; i++)
		counters_observe(&counters, COUNTERS_WAIT, 750 * AP_SECOND / 1000);
	for (int i = 0; i < 10; i++)
		counters_observe(&counters, COUNTERS_WAIT, 8 * AP_SECOND);
	double half = counters_quantile(&counters, COUNTERS_WAIT, 0.5) / (double)AP_SECOND;
	double most = counters_quantile(&counters, COUNTERS_WAIT, 0.95) / (double)AP_SECOND;
	assert_true(half > 0.5 && half <= 1); /* the bucket that they are in */
	assert_true(most > 7.49 && most < 7.51);
	counters_observe(&counters, COUNTERS_SPAWN, 3000 * AP_SECOND);
	assert_true(counters_quantile(&counters, COUNTERS_SPAWN, 0.5) == 300.0 * (double)AP_SECOND);
}

static void time_in_states(void **state)
{
	struct counters counters = {0};
	unsigned n[AP_N_AGENT_STATES] = {[AP_AGENT_IDLE] = 2, [AP_AGENT_ACTIVE] = 1};
	counters_elapse(&counters, n, 10 * AP_SECOND); /* nothing is known of before */
	counters_elapse(&counters, n, 12 * AP_SECOND);
	counters_elapse(&counters, n, 11 * AP_SECOND);
	n[AP_AGENT_IDLE] = 0;
	counters_elapse(&counters, n, 13 * AP_SECOND);
	assert_int_equal(counters.state_us[AP_AGENT_IDLE], 4000000);
	assert_int_equal(counters.state_us[AP_AGENT_ACTIVE], 3000000);
}

static void counts_beginnings_of_the_maximum(void **state)
{
	struct counters counters = {0};
	const bool at_max[] = {false, true, true, false, true};
	for (size_t i = 0; i < sizeof at_max / sizeof *at_max; i++)
		counters_note_max(&counters, at_max[i]);
	assert_int_equal(counters.n_at_max, 2);
}

static void every_error_has_a_name(void **state)
{
	for (int error = 0; error < 200; error++)
		assert_non_null(counters_acquire_name(counters_refused(-error)));
	assert_int_equal(counters_refused(-EAGAIN), COUNTERS_TIMEOUT);
	assert_int_equal(counters_refused(-EHOSTDOWN), COUNTERS_BREAKER_OPEN);
	assert_int_equal(counters_refused(-EEXIST), COUNTERS_REJECTED);
	assert_int_equal(counters_refused(-EIO), COUNTERS_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("bounds of buckets ascend, and their texts say the same", bounds_ascend),
		IT("a bound belongs to the bucket below it", a_bound_is_in_its_bucket),
		IT("what is observed sums up, by its kind", sums_up),
		IT("quantiles lie within their bucket", quantiles),
		IT("agents times time, by state", time_in_states),
		IT("the maximum counts when it is reached, not while it lasts",
		   counts_beginnings_of_the_maximum),
		IT("every answer to an acquirer has a name", every_error_has_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
