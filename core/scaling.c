#include "scaling.h"

unsigned scaling_utilization(struct scaling_sample sample)
{
	unsigned wanted = sample.n_active + sample.n_waiting;
	unsigned capacity = scaling_size(sample);
	if (wanted == 0)
		return 0;
	return capacity == 0 ? 100 : 100 * wanted / capacity;
}

/* --- utilization: one more above up_at, or as many as wait; one less below down_at --- */

static unsigned utilization_desired(struct scaling_sample sample,
				    const struct scaling_limits *limits)
{
	unsigned size = scaling_size(sample), busy = sample.n_active + sample.n_waiting;
	/* as scaling_utilization(), whole percent, but without its division: this is asked often */
	if (100 * busy >= (limits->up_at + 1) * size && busy > 0)
		return size + (sample.n_waiting > 0 ? sample.n_waiting : 1);
	return 100 * busy < limits->down_at * size ? size - 1 : size;
}

static unsigned utilization_floor(struct scaling_sample sample, const struct scaling_limits *limits)
{
	(void)sample;
	return limits->min_size;
}

/* --- spare: as many idle ones as min_idle to max_idle says, whatever is leased --- */

static unsigned spare_desired(struct scaling_sample sample, const struct scaling_limits *limits)
{
	unsigned size = scaling_size(sample);
	unsigned busy = sample.n_active + sample.n_waiting;
	unsigned spare = size > busy ? size - busy : 0;
	if (spare < limits->min_idle)
		return busy + limits->min_idle;
	return spare > limits->max_idle ? busy + limits->max_idle : size;
}

static unsigned spare_floor(struct scaling_sample sample, const struct scaling_limits *limits)
{
	unsigned spare = sample.n_active + limits->min_idle;
	return spare > limits->min_size ? spare : limits->min_size;
}

const struct scaling_policy scaling_policies[SCALING_N_POLICIES] = {
	[SCALING_UTILIZATION] = {"utilization", utilization_desired, utilization_floor},
	[SCALING_SPARE] = {"spare", spare_desired, spare_floor},
};
