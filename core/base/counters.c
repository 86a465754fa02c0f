#include "counters.h"

#include <errno.h>

#include "clock.h"

#define US (AP_SECOND / 1000000)
#define MS (AP_SECOND / 1000)
#define S  AP_SECOND

static const int64_t short_spans[] = {
	10 * US,  100 * US, MS,	       5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS,
	500 * MS, S,	    2500 * MS, 5 * S,  10 * S,	30 * S,	 60 * S,  120 * S,  300 * S,
};

static const int64_t long_spans[] = {
	100 * MS, S,	    5 * S,    15 * S,	30 * S,	   60 * S,    120 * S,	 300 * S,
	600 * S,  1800 * S, 3600 * S, 7200 * S, 14400 * S, 28800 * S, 86400 * S,
};

/* The same in seconds, as the label of a bucket has it. */
static const char *const short_texts[] = {
	"1e-05", "0.0001", "0.001", "0.005", "0.01", "0.025", "0.05", "0.1",   "0.25",
	"0.5",	 "1.0",	   "2.5",   "5.0",   "10.0", "30.0",  "60.0", "120.0", "300.0",
};

static const char *const long_texts[] = {
	"0.1",	 "1.0",	   "5.0",    "15.0",   "30.0",	  "60.0",    "120.0",	"300.0",
	"600.0", "1800.0", "3600.0", "7200.0", "14400.0", "28800.0", "86400.0",
};

#define N(array) (sizeof(array) / sizeof *(array))

_Static_assert(N(short_spans) <= COUNTERS_BOUNDS && N(long_spans) <= COUNTERS_BOUNDS,
	       "every bound has its bucket");
_Static_assert(N(short_spans) == N(short_texts) && N(long_spans) == N(long_texts),
	       "every bound has its text");

const int64_t *counters_bounds(enum counters_span span, unsigned *ret_n)
{
	bool holds = span == COUNTERS_HOLD;
	*ret_n = holds ? N(long_spans) : N(short_spans);
	return holds ? long_spans : short_spans;
}

const char *counters_bound_text(enum counters_span span, unsigned i)
{
	return span == COUNTERS_HOLD ? long_texts[i] : short_texts[i];
}

void counters_observe(struct counters *counters, enum counters_span span, int64_t ns)
{
	struct counters_histogram *histogram = &counters->spans[span];
	unsigned n, bucket = 0;
	const int64_t *bounds = counters_bounds(span, &n);
	if (ns < 0)
		ns = 0;
	while (bucket < n && ns > bounds[bucket])
		bucket++;
	histogram->n[bucket < n ? bucket : COUNTERS_BOUNDS]++;
	histogram->sum_ns += (uint64_t)ns;
}

uint64_t counters_count(const struct counters *counters, enum counters_span span)
{
	uint64_t count = 0;
	for (unsigned i = 0; i <= COUNTERS_BOUNDS; i++)
		count += counters->spans[span].n[i];
	return count;
}

double counters_quantile(const struct counters *counters, enum counters_span span, double q)
{
	const struct counters_histogram *histogram = &counters->spans[span];
	unsigned n;
	const int64_t *bounds = counters_bounds(span, &n);
	double rank = q * (double)counters_count(counters, span), below = 0;
	if (counters_count(counters, span) == 0)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		double here = (double)histogram->n[i];
		double from = i > 0 ? (double)bounds[i - 1] : 0;
		if (here > 0 && below + here >= rank)
			return from + ((double)bounds[i] - from) * (rank - below) / here;
		below += here;
	}
	return (double)bounds[n - 1];
}

enum counters_acquire counters_refused(int error)
{
	switch (error) {
	case -ETIMEDOUT:
	case -EAGAIN: /* with no time to wait */
		return COUNTERS_TIMEOUT;
	case -ECANCELED:
		return COUNTERS_CANCELLED;
	case -EHOSTDOWN:
		return COUNTERS_BREAKER_OPEN;
	case -EEXIST: /* what was asked for cannot be had */
	case -ENOENT:
	case -EBUSY:
	case -EINVAL:
	case -ESHUTDOWN:
		return COUNTERS_REJECTED;
	}
	return COUNTERS_FAILED;
}

void counters_elapse(struct counters *counters, const unsigned n_in_state[AP_N_AGENT_STATES],
		     int64_t now)
{
	int64_t now_us = now / US, passed = now_us - counters->elapsed_us;
	if (passed <= 0)
		return;
	if (counters->elapsed_us > 0) {
		for (int i = 0; i < AP_N_AGENT_STATES; i++)
			counters->state_us[ap_agent_state_shown(i)] +=
				n_in_state[i] * (uint64_t)passed;
	}
	counters->elapsed_us = now_us;
}

void counters_note_max(struct counters *counters, bool at_max)
{
	if (at_max && !counters->at_max)
		counters->n_at_max++;
	counters->at_max = at_max;
}

const char *counters_acquire_name(enum counters_acquire acquire)
{
	static const char *const names[] = {
		[COUNTERS_HIT] = "hit",
		[COUNTERS_SPAWNED] = "spawned",
		[COUNTERS_HANDOFF] = "handoff",
		[COUNTERS_TIMEOUT] = "timeout",
		[COUNTERS_CANCELLED] = "cancelled",
		[COUNTERS_REJECTED] = "rejected",
		[COUNTERS_FAILED] = "failed",
		[COUNTERS_BREAKER_OPEN] = "breaker_open",
	};
	return names[acquire];
}

const char *counters_release_name(enum counters_release release)
{
	static const char *const names[] = {
		[COUNTERS_TO_IDLE] = "idle", [COUNTERS_TO_RECYCLE] = "recycle",
		[COUNTERS_TO_END] = "ended", [COUNTERS_TO_QUARANTINE] = "unsaved",
		[COUNTERS_STALE] = "stale",
	};
	return names[release];
}

const char *counters_outcome_name(enum counters_outcome outcome)
{
	static const char *const names[] = {
		[COUNTERS_OK] = "ok", [COUNTERS_ERROR] = "error", [COUNTERS_LATE] = "timeout"};
	return names[outcome];
}
