/* One consistent look at a pool, in numbers. */
#pragma once

#include "agentpool.h"
#include "counters.h"

/* What is known of one agent. */
struct ap_agent_metrics {
	unsigned number;
	int64_t age_ns;
	uint64_t n_requests;
	struct ap_usage used; /* since it was made */
	bool has_usage; /* its process tree was measured: at a pass, or when its files were read */
	uint64_t memory;
	int64_t cpu_ns;
};

/* One consistent look at the pool. */
struct ap_metrics {
	struct ap_stats stats;
	struct counters counts;
	const char *mountpoint; /* as long as the pool */
	unsigned n_in_state[AP_N_SHOWN_STATES];
	unsigned min_size, max_size;
	uint64_t max_memory;		      /* of an agent, bytes; 0: there is no bound */
	uint64_t n_scaled[AP_SCALE_DOWN + 1]; /* steps by direction */
	int64_t oldest_waiter_ns; /* how long the oldest acquirer has waited; 0: none waits */
	/* why spawning last failed; empty if no start has failed since the last success, or since
	 * the breaker was reset */
	struct ap_err breaker_cause;
	unsigned n_agents; /* that were filled in */
};

/* Gets the metrics of the pool, and of at most `max` agents. Holds the pool's lock for a copy. */
void ap_pool_metrics(struct ap_pool *pool, struct ap_metrics *ret,
		     struct ap_agent_metrics *ret_agents, unsigned max);
