/* What size the pool should have. Pure functions of counts; the machine calls them whenever it
 * reconciles, and so reacts to a burst at once. A new policy is two functions and a row. */
#pragma once

#include <stdint.h>

#include "clock.h"

struct scaling_sample {
	unsigned n_active; /* serve a lease, or are being validated for one */
	unsigned n_idle;
	unsigned n_coming;  /* spawning or recycling: they count as capacity, however slow */
	unsigned n_waiting; /* acquirers */
};

/* What a policy obeys. */
struct scaling_limits {
	unsigned min_size;
	unsigned up_at, down_at;     /* percent; policy target aims at up_at */
	unsigned min_idle, max_idle; /* of policy spare */
};

enum scaling_policy_id {
	SCALING_UTILIZATION,
	SCALING_SPARE,
	SCALING_TARGET,
	SCALING_EWMA,
	SCALING_N_POLICIES,
};

/* `load` is the average of scaling_busy(); the machine keeps it while the policy is ewma. */
struct scaling_policy {
	const char *name; /* as config/scale_policy has it */

	/* The size that the pool should have. The machine grows at once, and shrinks by one agent
	 * when this has returned less than the size for a whole scale_down_window. */
	unsigned (*desired)(struct scaling_sample, double load, const struct scaling_limits *);

	/* The machine retires agents that idle for long, but never below this size. */
	unsigned (*floor)(struct scaling_sample, double load, const struct scaling_limits *);
};

extern const struct scaling_policy scaling_policies[SCALING_N_POLICIES];

/* Agents that serve, can serve or soon will. */
static inline unsigned scaling_size(struct scaling_sample sample)
{
	return sample.n_active + sample.n_idle + sample.n_coming;
}

/* Agents in use, and one for each waiter. */
static inline unsigned scaling_busy(struct scaling_sample sample)
{
	return sample.n_active + sample.n_waiting;
}

/* An exponentially weighted moving average of scaling_busy() over time. All zero: not begun. */
struct scaling_load {
	double mean;
	unsigned busy; /* since at_ns */
	int64_t at_ns;
};

#define SCALING_LOAD_TAU (300 * AP_SECOND) /* a load of this age has a weight of 1/e */

/* From now on `busy` agents are in use or asked for. The first call sets the average to `busy`. */
void scaling_load_add(struct scaling_load *load, unsigned busy, int64_t now_ns);

/* scaling_busy() in percent of scaling_size(). 0 if nothing is busy; 100 for waiters on an empty
 * pool. */
unsigned scaling_utilization(struct scaling_sample sample);
