/* What size the pool should have. Pure functions of counts, asked by the machine on every event, so
 * that a burst is answered at once. A policy is a row: a further one is a function and a row. */
#pragma once

#include <stdint.h>

#include "clock.h"

struct scaling_sample {
	unsigned n_active; /* serve a lease, or are being made ready for one */
	unsigned n_idle;
	unsigned n_coming;  /* spawning or recycling: a slow start is capacity, no panic */
	unsigned n_waiting; /* acquirers */
};

/* What a policy obeys. */
struct scaling_limits {
	unsigned min_size;
	unsigned up_at, down_at;     /* percent; of policy target, up_at is what is aimed at */
	unsigned min_idle, max_idle; /* of policy spare */
};

enum scaling_policy_id {
	SCALING_UTILIZATION,
	SCALING_SPARE,
	SCALING_TARGET,
	SCALING_EWMA,
	SCALING_N_POLICIES,
};

/* `load` is how many serve or wait on average, kept while a policy asks for it. */
struct scaling_policy {
	const char *name; /* as config/scale_policy has it */

	/* The size that there should be. Over the present size it is gone to at once, under it step
	 * by step, each when this has said so for a whole scale_down_window. */
	unsigned (*desired)(struct scaling_sample, double load, const struct scaling_limits *);

	/* Agents that idle for long are retired, but never below this size. */
	unsigned (*floor)(struct scaling_sample, double load, const struct scaling_limits *);
};

extern const struct scaling_policy scaling_policies[SCALING_N_POLICIES];

/* Agents that serve or can. */
static inline unsigned scaling_size(struct scaling_sample sample)
{
	return sample.n_active + sample.n_idle + sample.n_coming;
}

/* Agents that serve or are asked for. */
static inline unsigned scaling_busy(struct scaling_sample sample)
{
	return sample.n_active + sample.n_waiting;
}

/* An exponentially weighted moving average of them over time. All zero: not begun. */
struct scaling_load {
	double mean;
	unsigned busy; /* since at_ns */
	int64_t at_ns;
};

#define SCALING_LOAD_TAU (300 * AP_SECOND) /* what was so long ago counts 1/e */

/* From now on so many are busy. The first is the average there is to begin with. */
void scaling_load_add(struct scaling_load *load, unsigned busy, int64_t now_ns);

/* Percent of the agents that serve or are asked for, of those that serve or could: 0 for an empty
 * pool without waiters. */
unsigned scaling_utilization(struct scaling_sample sample);
