#include "scaling.h"

#include <math.h>

unsigned scaling_utilization(struct scaling_sample sample)
{
	unsigned wanted = scaling_busy(sample);
	unsigned capacity = scaling_size(sample);
	if (wanted == 0)
		return 0;
	return capacity == 0 ? 100 : 100 * wanted / capacity;
}

/* --- utilization: above up_at one more, or one per waiter; below down_at one less --- */

static unsigned utilization_desired(struct scaling_sample sample, double load,
				    const struct scaling_limits *limits)
{
	unsigned size = scaling_size(sample), busy = scaling_busy(sample);
	/* as scaling_utilization(), whole percent, but without its division: this runs often */
	if (100 * busy >= (limits->up_at + 1) * size && busy > 0)
		return size + (sample.n_waiting > 0 ? sample.n_waiting : 1);
	return 100 * busy < limits->down_at * size ? size - 1 : size;
}

static unsigned utilization_floor(struct scaling_sample sample, double load,
				  const struct scaling_limits *limits)
{
	return limits->min_size;
}

/* --- spare: min_idle to max_idle idle agents on top of those in use --- */

static unsigned spare_desired(struct scaling_sample sample, double load,
			      const struct scaling_limits *limits)
{
	unsigned size = scaling_size(sample);
	unsigned busy = scaling_busy(sample);
	unsigned spare = size > busy ? size - busy : 0;
	if (spare < limits->min_idle)
		return busy + limits->min_idle;
	return spare > limits->max_idle ? busy + limits->max_idle : size;
}

static unsigned spare_floor(struct scaling_sample sample, double load,
			    const struct scaling_limits *limits)
{
	unsigned spare = sample.n_active + limits->min_idle;
	return spare > limits->min_size ? spare : limits->min_size;
}

/* --- target: the size at which up_at percent of the agents are busy --- */

static unsigned target_floor(struct scaling_sample sample, double load,
			     const struct scaling_limits *limits)
{
	return (100 * scaling_busy(sample) + limits->up_at - 1) / limits->up_at;
}

/* Keeps one agent too many: a small pool would otherwise grow and shrink all the time. */
static unsigned target_desired(struct scaling_sample sample, double load,
			       const struct scaling_limits *limits)
{
	unsigned size = scaling_size(sample), wanted = target_floor(sample, load, limits);
	return wanted + 1 == size ? size : wanted;
}

/* --- ewma: the average load plus one standard deviation of a Poisson distribution --- */

void scaling_load_add(struct scaling_load *load, unsigned busy, int64_t now)
{
	int64_t passed = load->at_ns ? now - load->at_ns : 0;
	if (load->at_ns == 0)
		load->mean = busy;
	if (passed > 0)
		load->mean +=
			(load->busy - load->mean) * (1 - exp(-(double)passed / SCALING_LOAD_TAU));
	load->busy = busy;
	if (passed >= 0)
		load->at_ns = now;
}

static unsigned ewma_desired(struct scaling_sample sample, double load,
			     const struct scaling_limits *limits)
{
	unsigned wanted = (unsigned)ceil(load + sqrt(load));
	return wanted > scaling_busy(sample) ? wanted : scaling_busy(sample);
}

const struct scaling_policy scaling_policies[SCALING_N_POLICIES] = {
	[SCALING_UTILIZATION] = {"utilization", utilization_desired, utilization_floor},
	[SCALING_SPARE] = {"spare", spare_desired, spare_floor},
	[SCALING_TARGET] = {"target", target_desired, target_floor},
	[SCALING_EWMA] = {"ewma", ewma_desired, ewma_desired},
};
