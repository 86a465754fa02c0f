#include "clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t clock_read(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * AP_SECOND + ts.tv_nsec;
}

int64_t ap_clock_ns(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

int64_t ap_clock_after(int64_t now_ns, int64_t span_ns)
{
	int64_t at;
	bool never = span_ns == AP_FOREVER || __builtin_add_overflow(now_ns, span_ns, &at);
	return never ? AP_FOREVER : at;
}

/* In a build for tests, a day of which tests say how far it is ahead. */
static int64_t wall_ns(void)
{
#ifdef AP_CRASH_POINTS
	const char *days = getenv("AGENTPOOLFS_DAYS_AHEAD");
	return clock_read(CLOCK_REALTIME) + (days ? atoi(days) : 0) * 86400 * AP_SECOND;
#else
	return clock_read(CLOCK_REALTIME);
#endif
}

/* Both clocks are read within that. */
#define TOGETHER_NS 10000

/* The wall clock is another when it is off by that. */
#define SET_NS (10 * AP_MS)

/* How far the wall clock is before the other, as well as can be measured: who reads them may be
 * held up between the two. */
static int64_t measure_offset(void)
{
	int64_t ret = 0, least = INT64_MAX;
	for (int i = 0; i < 10 && least > TOGETHER_NS; i++) {
		int64_t before = ap_clock_ns(), wall = wall_ns();
		int64_t took = ap_clock_ns() - before;
		if (took < least) {
			least = took;
			ret = wall - before - took / 2;
		}
	}
	return ret;
}

static int64_t wall_offset(void)
{
	static _Atomic int64_t kept; /* 0: not known yet */
	int64_t now = measure_offset(), was = atomic_load(&kept);
	int64_t off = now > was ? now - was : was - now;
	if (was != 0 && off < SET_NS)
		return was;
	return atomic_compare_exchange_strong(&kept, &was, now) ? now : was;
}

int64_t ap_clock_to_wall(int64_t at_ns)
{
	return wall_offset() + at_ns;
}

int64_t ap_clock_from_wall(int64_t wall_ns)
{
	int64_t now = ap_clock_ns(), at = wall_ns - wall_offset();
	return at < now ? at : now;
}

/* RFC 3339 in UTC with `fraction`, which ends in Z, for the part of a second. */
static void format(int64_t wall_ns, const char *fraction, char *ret_text, size_t size)
{
	time_t wall = (time_t)(wall_ns / AP_SECOND);
	struct tm tm;
	gmtime_r(&wall, &tm);
	size_t n = strftime(ret_text, size, "%Y-%m-%dT%H:%M:%S", &tm);
	if (size > 0)
		snprintf(ret_text + n, size - n, "%s", n ? fraction : "");
}

void ap_clock_rfc3339(int64_t at_ns, char *ret_text, size_t size)
{
	format(ap_clock_to_wall(at_ns), "Z", ret_text, size);
}

void ap_clock_rfc3339_us(int64_t at_ns, char *ret_text, size_t size)
{
	char fraction[16];
	int64_t wall_ns = ap_clock_to_wall(at_ns);
	snprintf(fraction, sizeof fraction, ".%06dZ", (int)(wall_ns % AP_SECOND / 1000));
	format(wall_ns, fraction, ret_text, size);
}
