/* What the last hour was like: exact over time, whole over gaps. */
#include "unit.h"

#include "history.h"

#define S	 INT64_C(1000000000)
#define INTERVAL HISTORY_INTERVAL_NS

static const struct history_sample half = {.n_agents = 5, .n_active = 2, .n_able = 4};
static const struct history_sample none = {.n_agents = 1, .n_able = 0};

static void begins_with_one_interval(void **state)
{
	struct history history = {0};
	history_elapse(&history, half, S);
	assert_int_equal(history.n, 1);
	assert_int_equal(history_get(&history, 0)->us, 0);
	assert_int_equal(history_utilization(history_get(&history, 0)), -1);
	assert_true(history_mean(history_get(&history, 0), 0) == 0);
}

static void is_the_mean_over_time(void **state)
{
	struct history history = {0};
	struct history_sample full = {.n_agents = 4, .n_active = 4, .n_able = 4, .n_waiting = 3};
	history_elapse(&history, half, S);
	history_elapse(&history, half, 4 * S);
	history_elapse(&history, full, 5 * S);
	const struct history_interval *i = history_get(&history, 0);
	assert_int_equal(history_utilization(i), 100 * (3 * 2 + 4) / (4 * 4));
	assert_true(history_mean(i, i->agents_us) == (3 * 5 + 4) / 4.0);
	assert_int_equal(i->most_waiting, 3);
}

static void time_is_split_where_intervals_end(void **state)
{
	struct history history = {0};
	history_elapse(&history, half, S);
	history_elapse(&history, half, S + INTERVAL + 7 * S);
	assert_int_equal(history.n, 2);
	assert_int_equal(history_get(&history, 0)->us, INTERVAL / 1000);
	assert_int_equal(history_get(&history, 1)->us, 7 * S / 1000);
	assert_int_equal(history_get(&history, 1)->active_us, 2 * 7 * S / 1000);
}

static void a_grant_counts_in_its_interval(void **state)
{
	struct history history = {0};
	history_elapse(&history, half, S);
	history_granted(&history, 3 * S);
	history_granted(&history, 2 * S);
	history_elapse(&history, half, S + INTERVAL);
	history_granted(&history, S);
	assert_int_equal(history_get(&history, 0)->n_grants, 2);
	assert_int_equal(history_get(&history, 0)->longest_wait_ns, 3 * S);
	assert_int_equal(history_get(&history, 1)->n_grants, 1);
	assert_int_equal(history_get(&history, 1)->longest_wait_ns, S);
}

static void an_hour_is_kept(void **state)
{
	struct history history = {0};
	history_elapse(&history, half, S);
	for (int i = 1; i <= 2 * HISTORY_N; i++)
		history_elapse(&history, i <= HISTORY_N ? half : none, S + i * INTERVAL);
	assert_int_equal(history.n, HISTORY_N);
	for (unsigned i = 0; i < HISTORY_N - 1; i++)
		assert_int_equal(history_get(&history, i)->agents_us, INTERVAL / 1000);
	assert_int_equal(history_utilization(history_get(&history, 0)), -1);
}

static void days_without_a_change_are_told_at_once(void **state)
{
	struct history history = {0};
	history_elapse(&history, none, S);
	history_elapse(&history, half, 100 * 24 * 3600 * S + 8 * S);
	assert_int_equal(history.n, HISTORY_N);
	for (unsigned i = 0; i < HISTORY_N; i++)
		assert_int_equal(history_utilization(history_get(&history, i)), 50);
	for (unsigned i = 0; i < HISTORY_N - 1; i++)
		assert_int_equal(history_get(&history, i)->us, INTERVAL / 1000);
	assert_int_equal(history_get(&history, HISTORY_N - 1)->us, (7 * S % INTERVAL) / 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("it begins with one interval, which says nothing yet", begins_with_one_interval),
		IT("an interval is the mean over its time", is_the_mean_over_time),
		IT("time is split where intervals end", time_is_split_where_intervals_end),
		IT("a grant counts in its interval", a_grant_counts_in_its_interval),
		IT("an hour is kept", an_hour_is_kept),
		IT("days without a change are told at once",
		   days_without_a_change_are_told_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
