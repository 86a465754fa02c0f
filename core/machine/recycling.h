/* When an agent is due to be recycled. Pure functions of limits and of a sample of the agent; the
 * machine calls them. A limit of 0 is off. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "reason.h"

/* Samples in a row that must be over the memory quota: a single one may be a compiler's peak. */
#define RECYCLING_MEMORY_SAMPLES 3

struct recycling_limits {
	int64_t max_age_ns;
	unsigned max_requests; /* leases served in a generation */
	unsigned max_recycles; /* under one name */
	uint64_t max_memory;   /* bytes of the process tree */
	unsigned max_cpu;      /* percent of one CPU, averaged over a minute */
};

/* One generation of an agent: from its spawn or last recycling on. */
struct recycling_sample {
	int64_t started_ns;
	uint16_t jitter; /* drawn once a generation: agents spawned together do not expire together
			  */
	unsigned n_requests;
	unsigned n_memory_over; /* samples in a row */
	bool cpu_over;
};

/* When the generation is too old: max_age after its start, less up to a tenth by jitter. AP_FOREVER
 * without a limit. */
int64_t recycling_expiry(const struct recycling_limits *limits, int64_t started_ns,
			 uint16_t jitter);

/* Why the agent is due, or AP_REASON_NONE. */
enum ap_reason recycling_due(const struct recycling_limits *limits,
			     const struct recycling_sample *sample, int64_t now_ns);

/* Whether an agent with n_recycles behind it has to be replaced under a new name instead. */
static inline bool recycling_spent(const struct recycling_limits *limits, unsigned n_recycles)
{
	return limits->max_recycles > 0 && n_recycles >= limits->max_recycles;
}
