#include "unit.h"

#include <string.h>

#include "clock.h"
#include "limit.h"

#define NOW_S	INT64_C(1795878000)
#define WALL_NS (NOW_S * AP_SECOND + 500 * AP_MS)

static struct limit begun(const struct profile_limit *seen, unsigned n_words)
{
	struct limit limit = {.n_words = n_words};
	limit_begin(&limit, seen, WALL_NS);
	return limit;
}

static void a_limit_lasts_until_its_end(void **state)
{
	struct limit limit = begun(&(struct profile_limit){.until_s = NOW_S + 60}, 0);
	assert_true(limit.on);
	assert_int_equal(limit.ends_ns, (NOW_S + 60) * AP_SECOND);
	assert_false(limit_is_over(&limit, limit.ends_ns - 1));
	assert_true(limit_is_over(&limit, limit.ends_ns));
	limit_end(&limit);
	assert_false(limit_is_over(&limit, INT64_MAX));
	assert_int_equal(limit.until_s, 0);
}

static void a_limit_without_an_end_lasts_a_while(void **state)
{
	static const int64_t untils[] = {0, NOW_S + LIMIT_LONGEST_S + 1, INT64_MAX};
	for (size_t i = 0; i < sizeof untils / sizeof *untils; i++) {
		struct limit limit = begun(&(struct profile_limit){.until_s = untils[i]}, 0);
		assert_int_equal(limit.until_s, 0);
		assert_int_equal(limit.ends_ns, WALL_NS + LIMIT_UNKNOWN_S * AP_SECOND);
	}
	struct limit past = begun(&(struct profile_limit){.until_s = NOW_S - 5}, 0);
	assert_true(limit_is_over(&past, WALL_NS));
}

static void an_overload_is_tried_again_less_and_less(void **state)
{
	static const int64_t pauses[] = {0, 60, 300, 0};
	for (unsigned n = 0; n <= LIMIT_WORDS_MAX; n++) {
		struct limit limit = begun(&(struct profile_limit){.is_overload = true}, n);
		assert_int_equal(limit.ends_ns, WALL_NS + pauses[n] * AP_SECOND);
	}
}

static void a_record_is_read_as_it_was(void **state)
{
	struct ap_buf record = {0};
	struct limit limit = begun(&(struct profile_limit){.until_s = NOW_S + 60,
							   .hash = UINT64_MAX,
							   .text = "limit: at %d\\ 3 pm"},
				   2),
		     again;
	limit.token = 77;
	limit.broke = true;
	limit_record(&limit, &record);
	assert_true(record.len < LIMIT_RECORD_MAX);
	assert_true(limit_read(ap_buf_text(&record), WALL_NS, &again));
	assert_memory_equal(&again.text, &limit.text, strlen(limit.text) + 1);
	assert_true(again.on && again.broke && !again.is_overload);
	assert_int_equal(again.token, 77);
	assert_int_equal(again.until_s, limit.until_s);
	assert_int_equal(again.ends_ns, limit.ends_ns);
	assert_true(again.hash == UINT64_MAX);
	assert_int_equal(again.n_words, 2);
	ap_buf_fini(&record);
}

static void a_record_that_somebody_has_changed_is_none(void **state)
{
	static const char *const records[] = {
		"",
		"limit",
		"limit 1 0 0",
		"nonsense 1 0 0 1 1 1 1 1 x\n",
		"limit 1 0 0 1 9999999999999 1 1 1 far\n", /* until */
		"limit 1 0 0 1 -1 1 1 1 before\n",
		"limit 1 0 0 1 0 9223372036854775807 1 1 for ever\n", /* ends */
		"limit 1 0 0 1 0 0 1 4 many words\n",
	};
	for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
		struct limit limit;
		if (limit_read(records[i], WALL_NS, &limit))
			fail_msg("'%s' is a record", records[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a limit lasts until its end", a_limit_lasts_until_its_end),
		IT("a limit without an end lasts a while", a_limit_without_an_end_lasts_a_while),
		IT("an overload is tried again less and less",
		   an_overload_is_tried_again_less_and_less),
		IT("a record is read as it was", a_record_is_read_as_it_was),
		IT("a record that somebody has changed is none",
		   a_record_that_somebody_has_changed_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
