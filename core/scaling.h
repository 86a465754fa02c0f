/* What size the pool should have. Pure functions of counts, asked by the machine on every event, so
 * that a burst is answered at once. */
#pragma once

struct scaling_sample {
	unsigned n_active, n_idle, n_coming; /* coming: spawning, validating, recycling */
	unsigned n_waiting;
	unsigned n_total;
};

/* Percent of the agents that serve or are asked for, of those that serve or could: 0 for an empty
 * pool without waiters. */
unsigned scaling_utilization(const struct scaling_sample *sample);

/* Policy utilization: one agent more (or as many as wait) when utilization is over `up_at` percent,
 * else as many as there are. Agents on their way count as capacity: a slow start is no panic. */
unsigned scaling_desired(const struct scaling_sample *sample, unsigned up_at);
