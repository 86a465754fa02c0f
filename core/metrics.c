#include "metrics.h"

#include <errno.h>

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

_Static_assert(N(short_spans) <= METRICS_BOUNDS && N(long_spans) <= METRICS_BOUNDS,
	       "every bound has its bucket");
_Static_assert(N(short_spans) == N(short_texts) && N(long_spans) == N(long_texts),
	       "every bound has its text");

const int64_t *metrics_bounds(enum metrics_span span, unsigned *ret_n)
{
	bool holds = span == METRICS_HOLD;
	*ret_n = holds ? N(long_spans) : N(short_spans);
	return holds ? long_spans : short_spans;
}

const char *metrics_bound_text(enum metrics_span span, unsigned i)
{
	return span == METRICS_HOLD ? long_texts[i] : short_texts[i];
}

void metrics_observe(struct metrics *metrics, enum metrics_span span, int64_t ns)
{
	struct metrics_histogram *histogram = &metrics->spans[span];
	unsigned n, bucket = 0;
	const int64_t *bounds = metrics_bounds(span, &n);
	if (ns < 0)
		ns = 0;
	while (bucket < n && ns > bounds[bucket])
		bucket++;
	histogram->n[bucket < n ? bucket : METRICS_BOUNDS]++;
	histogram->sum_ns += (uint64_t)ns;
}

uint64_t metrics_count(const struct metrics *metrics, enum metrics_span span)
{
	uint64_t count = 0;
	for (unsigned i = 0; i <= METRICS_BOUNDS; i++)
		count += metrics->spans[span].n[i];
	return count;
}

double metrics_quantile(const struct metrics *metrics, enum metrics_span span, double q)
{
	const struct metrics_histogram *histogram = &metrics->spans[span];
	unsigned n;
	const int64_t *bounds = metrics_bounds(span, &n);
	double rank = q * (double)metrics_count(metrics, span), below = 0;
	if (metrics_count(metrics, span) == 0)
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

enum metrics_acquire metrics_refused(int error)
{
	switch (error) {
	case -ETIMEDOUT:
	case -EAGAIN: /* with no time to wait */
		return METRICS_TIMEOUT;
	case -ECANCELED:
		return METRICS_CANCELLED;
	case -EHOSTDOWN:
		return METRICS_BREAKER_OPEN;
	case -EEXIST: /* what was asked for cannot be had */
	case -ENOENT:
	case -EBUSY:
	case -EINVAL:
	case -ESHUTDOWN:
		return METRICS_REJECTED;
	}
	return METRICS_FAILED;
}

void metrics_elapse(struct metrics *metrics, const unsigned n_in_state[AP_N_AGENT_STATES],
		    int64_t now)
{
	int64_t now_us = now / US, passed = now_us - metrics->elapsed_us;
	if (passed <= 0)
		return;
	if (metrics->elapsed_us > 0) {
		for (int i = 0; i < AP_N_AGENT_STATES; i++)
			metrics->state_us[i] += n_in_state[i] * (uint64_t)passed;
	}
	metrics->elapsed_us = now_us;
}

void metrics_note_max(struct metrics *metrics, bool at_max)
{
	if (at_max && !metrics->at_max)
		metrics->n_at_max++;
	metrics->at_max = at_max;
}

const char *metrics_acquire_name(enum metrics_acquire acquire)
{
	static const char *const names[] = {
		[METRICS_HIT] = "hit",
		[METRICS_SPAWNED] = "spawned",
		[METRICS_HANDOFF] = "handoff",
		[METRICS_TIMEOUT] = "timeout",
		[METRICS_CANCELLED] = "cancelled",
		[METRICS_REJECTED] = "rejected",
		[METRICS_FAILED] = "failed",
		[METRICS_BREAKER_OPEN] = "breaker_open",
	};
	return names[acquire];
}

const char *metrics_release_name(enum metrics_release release)
{
	static const char *const names[] = {
		[METRICS_TO_IDLE] = "idle", [METRICS_TO_RECYCLE] = "recycle",
		[METRICS_TO_END] = "ended", [METRICS_TO_ASIDE] = "unsaved",
		[METRICS_STALE] = "stale",
	};
	return names[release];
}

const char *metrics_outcome_name(enum metrics_outcome outcome)
{
	static const char *const names[] = {
		[METRICS_OK] = "ok", [METRICS_ERROR] = "error", [METRICS_LATE] = "timeout"};
	return names[outcome];
}
