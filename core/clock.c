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

void ap_clock_rfc3339(int64_t at_ns, char *ret_text, size_t size)
{
	time_t wall = (time_t)((clock_read(CLOCK_REALTIME) - ap_clock_ns() + at_ns) / AP_SECOND);
	struct tm tm;
	gmtime_r(&wall, &tm);
	if (strftime(ret_text, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0 && size > 0)
		ret_text[0] = '\0';
}
