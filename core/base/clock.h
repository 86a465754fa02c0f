/* Time. All times in the code are int64 nanoseconds of CLOCK_MONOTONIC; only texts for people, and
 * records that outlive the daemon, have wall time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define AP_MS	   ((int64_t)1000000)
#define AP_SECOND  ((int64_t)1000000000)
#define AP_FOREVER INT64_MAX /* a deadline that never comes */

/* Now, CLOCK_MONOTONIC, ns. */
int64_t ap_clock_ns(void);

/* Now plus `span_ns`, without overflow; an instant from before the start of the machine is below 0. */
int64_t ap_clock_after(int64_t now_ns, int64_t span_ns);

/* Writes the wall time of a monotonic instant as RFC 3339 in UTC, such as 2026-11-23T10:00:00Z. */
void ap_clock_rfc3339(int64_t at_ns, char *ret_text, size_t size);

/* The same to the microsecond; needs 28 bytes. */
void ap_clock_rfc3339_us(int64_t at_ns, char *ret_text, size_t size);

/* ap_clock_to_wall() returns the wall time of a monotonic instant, ns since the epoch;
 * ap_clock_from_wall() the instant of a wall time, never later than now. An instant keeps its wall
 * time, to the nanosecond, until the wall clock is off by 10 ms, because somebody set it or it was
 * led elsewhere. */
int64_t ap_clock_to_wall(int64_t at_ns);
int64_t ap_clock_from_wall(int64_t wall_ns);
