#include "recycling.h"

#include "clock.h"

int64_t recycling_expiry(const struct recycling_limits *limits, int64_t started_ns, uint16_t jitter)
{
	if (limits->max_age_ns <= 0)
		return AP_FOREVER;
	int64_t tenth = limits->max_age_ns / 10;
	return ap_clock_after(started_ns, limits->max_age_ns - tenth / UINT16_MAX * jitter);
}

enum ap_reason recycling_due(const struct recycling_limits *limits,
			     const struct recycling_sample *sample, int64_t now)
{
	if (limits->max_requests > 0 && sample->n_requests >= limits->max_requests)
		return AP_REASON_REQUESTS;
	if (recycling_expiry(limits, sample->started_ns, sample->jitter) <= now)
		return AP_REASON_AGE;
	if (sample->n_memory_over >= RECYCLING_MEMORY_SAMPLES)
		return AP_REASON_MEMORY;
	return sample->cpu_over ? AP_REASON_CPU : AP_REASON_NONE;
}
