#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "when.h"

#define NOW INT64_C(1795878000) /* 2026-11-28T15:00:00Z */

static const struct when_zone utc = {.local = false};

static int64_t when(const char *text, int64_t now, struct when_zone zone)
{
	int64_t at = -77;
	int r = when_parse(text, strlen(text), now, zone, &at);
	return r < 0 ? r : at;
}

static void clock_times_are_the_next_such_time(void **state)
{
	static const struct {
		const char *text;
		int64_t after; /* NOW */
	} rows[] = {
		{"3:04 PM", 240},	 {"15:04", 240},      {"15:04:05", 245},
		{"15:04:05.678", 245},	 {"3:04pm", 240},     {"3:04\u202fPM", 240},
		{"3:04\u00a0p.m.", 240}, {"4pm", 3600},	      {"3pm", 60}, /* the present minute */
		{"2pm", 23 * 3600},	 {"12am", 9 * 3600},  {"12 pm", 21 * 3600},
		{"14:59:59", 86399},	 {"15:00:00", 60},    {"00:00", 9 * 3600},
		{"16:00 UTC", 3600},	 {"16:00+01:00", 60}, {"16:30 +01:00", 1800},
		{"16:30+0100", 1800},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int64_t at = when(rows[i].text, NOW, utc);
		if (at != NOW + rows[i].after)
			fail_msg("%s: %lld s after now", rows[i].text, (long long)(at - NOW));
	}
	assert_int_equal(when("3pm", NOW + 59, utc), NOW + 60);
	assert_int_equal(when("3pm", NOW + 60, utc), NOW + 86400);
	assert_int_equal(when("3pm", NOW - 1, utc), NOW);
}

static void dates_are_read(void **state)
{
	static const struct {
		const char *text;
		int64_t after;
	} rows[] = {
		{"2026-11-28 15:04", 240},
		{"2026-11-28T15:04:05Z", 245},
		{"2026-11-28T15:04:05+00:00", 245},
		{"2026-11-28T16:04:05+01:00", 245},
		{"2026-11-28 15:00", 0}, /* a date is what it is */
		{"2026-11-27 15:00", -86400},
		{"Nov 28th, 2026 3:04 PM", 240},
		{"November 28, 2026 at 3:04 PM", 240},
		{"Nov 28, 3:04 PM", 240},
		{"Nov. 28 at 3:04pm", 240},
		{"Nov 29 at 3pm", 86400},
		{"Jan 1st, 2027 12am", 33 * 86400 + 9 * 3600},
		{"Jan 1, 12am", 33 * 86400 + 9 * 3600}, /* next year's */
		{"Nov 27, 3pm", 364 * 86400},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int64_t at = when(rows[i].text, NOW, utc);
		if (at != NOW + rows[i].after)
			fail_msg("%s: %lld s after now", rows[i].text, (long long)(at - NOW));
	}
	/* of leap years only */
	assert_int_equal(when("Feb 29, 12:00", NOW, utc), INT64_C(1835438400));
	assert_int_equal(when("Feb 29, 2026 12:00", NOW, utc), -EINVAL);
}

static void garbage_is_no_time(void **state)
{
	static const char *const rows[] = {
		"",
		" ",
		"3",
		"15",
		"25:00",
		"24:00",
		"12:60",
		"12:00:60",
		"13pm",
		"0pm",
		"3pmish",
		"pm",
		"3:4 pm",
		"-3pm",
		"Nov",
		"Nov 28",
		"Nov 31, 3pm",
		"Nov 0, 3pm",
		"2026-13-01 12:00",
		"2026-00-01 12:00",
		"2026-11-31 12:00",
		"1969-12-31 12:00",
		"99999-11-28 12:00",
		"2026-11-28",
		"3pm tomorrow",
		"12:00 +15:00",
		"12:00 +1",
		"99999999999999999999pm",
		"3pm\x01",
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (when(rows[i], NOW, utc) != -EINVAL)
			fail_msg("'%s' is a time", rows[i]);
	}
	int64_t at;
	assert_int_equal(when_parse("3pm\0", 4, NOW, utc, &at), -EINVAL);
	char text[WHEN_TEXT_MAX + 2];
	memset(text, ' ', sizeof text);
	memcpy(text, "3pm", 3);
	assert_int_equal(when_parse(text, WHEN_TEXT_MAX, NOW, utc, &at), 0);
	assert_int_equal(when_parse(text, WHEN_TEXT_MAX + 1, NOW, utc, &at), -EINVAL);
}

static void zones_are_read(void **state)
{
	static const struct {
		const char *text;
		bool local;
		int offset;
	} rows[] = {{"local", true, 0},
		    {"UTC", false, 0},
		    {"+02:00", false, 7200},
		    {"-05:30", false, -19800},
		    {"+14:00", false, 50400}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct when_zone zone;
		assert_int_equal(when_zone_parse(rows[i].text, &zone), 0);
		assert_int_equal(zone.local, rows[i].local);
		assert_int_equal(zone.offset_s, rows[i].offset);
	}
	struct when_zone zone;
	assert_int_equal(when_zone_parse("", &zone), -EINVAL);
	assert_int_equal(when_zone_parse("Europe/Berlin", &zone), -EINVAL);
	assert_int_equal(when_zone_parse("+15:00", &zone), -EINVAL);
	assert_int_equal(when_zone_parse("UTC+1", &zone), -EINVAL);
	assert_int_equal(when("5pm", NOW, (struct when_zone){.offset_s = 7200}), NOW + 60);
	assert_int_equal(when("5pm", NOW, (struct when_zone){.offset_s = -18000}), NOW + 7 * 3600);
	/* the day is the zone's */
	assert_int_equal(when("1am", NOW, (struct when_zone){.offset_s = 36000}), NOW + 60);
}

/* The clock is put on at 2:00 of 2026-03-29 and back at 3:00 of 2026-10-25. */
static void the_local_zone_changes_with_summer(void **state)
{
	const struct when_zone local = {.local = true};
	char *before = getenv("TZ");
	before = before ? strdup(before) : NULL;
	setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	int64_t spring = INT64_C(1774738800); /* 2026-03-29T00:00 there */
	assert_int_equal(when("12:00", spring, local), spring + 11 * 3600);
	int64_t autumn = INT64_C(1792879200); /* 2026-10-25T00:00 there */
	assert_int_equal(when("12:00", autumn, local), autumn + 13 * 3600);
	/* a time that there is not is near to it, and later than now */
	int64_t at = when("2:30", spring, local);
	assert_true(at > spring && at < spring + 4 * 3600);
	at = when("2:30", autumn, local);
	assert_true(at > autumn && at < autumn + 4 * 3600);
	if (before)
		setenv("TZ", before, 1);
	else
		unsetenv("TZ");
	tzset();
	free(before);
}

static void spans_are_read(void **state)
{
	static const struct {
		const char *text;
		int64_t seconds;
	} rows[] = {
		{"3h", 10800},
		{"21h35m10s", 77710},
		{"3 days 2 hours 5 minutes", 266700},
		{"3 days, 2 hours and 5 minutes", 266700},
		{"1 day", 86400},
		{"45 seconds", 45},
		{"45", 45},
		{"0s", 0},
		{"11.054s", 12},
		{"6m0s", 360},
		{"2 hrs 3 mins", 7380},
		{"1w", 604800},
		{"", -EINVAL},
		{"h", -EINVAL},
		{"-3h", -EINVAL},
		{"3 parsecs", -EINVAL},
		{"3h5", -EINVAL},
		{"3 4 5", -EINVAL},
		{"1.5h", -EINVAL},
		{"1.", -EINVAL},
		{"3h or so", -EINVAL},
		{"999999999999999999w", -ERANGE},
		{"999999999999999999", -ERANGE},
		{"9999999999999999999", -EINVAL},
		{"36600d 1s", -ERANGE},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int64_t seconds = -77;
		int r = when_span_parse(rows[i].text, strlen(rows[i].text), &seconds);
		if ((r < 0 ? r : seconds) != rows[i].seconds)
			fail_msg("'%s': %d, %lld", rows[i].text, r, (long long)seconds);
	}
}

static void epochs_are_read(void **state)
{
	static const struct {
		const char *text;
		int64_t at;
	} rows[] = {
		{"1795878000", NOW},
		{"1795878000000", NOW},
		{"1795878000001", NOW + 1},
		{"0", 0},
		{"", -EINVAL},
		{"12x", -EINVAL},
		{"-1", -EINVAL},
		{"999999999999999999", -ERANGE},
		{"9999999999999999999", -EINVAL},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int64_t at = -77;
		int r = when_epoch_parse(rows[i].text, strlen(rows[i].text), &at);
		if ((r < 0 ? r : at) != rows[i].at)
			fail_msg("'%s': %d, %lld", rows[i].text, r, (long long)at);
	}
	char text[32];
	when_format(NOW, text, sizeof text);
	assert_string_equal(text, "2026-11-28T15:00:00Z");
	when_format(INT64_MAX, text, sizeof text);
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a clock time is the next such time", clock_times_are_the_next_such_time),
		IT("dates are read, without a year the next such date", dates_are_read),
		IT("garbage is no time", garbage_is_no_time),
		IT("zones are read, and the day is the zone's", zones_are_read),
		IT("the local zone changes with summer", the_local_zone_changes_with_summer),
		IT("spans are read", spans_are_read),
		IT("seconds and milliseconds since 1970 are read", epochs_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
