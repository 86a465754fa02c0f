#include "clock.h"

#include <stdio.h>
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
	return span_ns >= AP_FOREVER - now_ns ? AP_FOREVER : now_ns + span_ns;
}

int64_t ap_clock_to_wall(int64_t at_ns)
{
	return clock_read(CLOCK_REALTIME) - ap_clock_ns() + at_ns;
}

int64_t ap_clock_from_wall(int64_t wall_ns)
{
	int64_t now = ap_clock_ns(), at = wall_ns - clock_read(CLOCK_REALTIME) + now;
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
