/* What is counted of a pool, and one look at all of it. Counters and histograms are since the mount
 * unless it says otherwise; they never fall. Pure: the moves that are counted are pool.c's, under
 * its lock; an observation is an addition or two. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agentpool.h"

enum metrics_span {
	METRICS_WAIT,  /* of acquirers who were granted a lease: from the question to the answer */
	METRICS_HOLD,  /* of leases that are over: from the grant until the work was saved */
	METRICS_SPAWN, /* of agents that came to be ready: from the decision on */
	METRICS_N_SPANS,
};

#define METRICS_BOUNDS 18

struct metrics_histogram {
	uint64_t n[METRICS_BOUNDS + 1]; /* by bucket; the last is over all bounds */
	uint64_t sum_ns;
};

/* What became of an acquirer. */
enum metrics_acquire {
	METRICS_HIT,	 /* served by an agent that was idle when it asked */
	METRICS_SPAWNED, /* by one that was made since */
	METRICS_HANDOFF, /* by one that came back since */
	METRICS_TIMEOUT,
	METRICS_CANCELLED,
	METRICS_REJECTED,
	METRICS_FAILED, /* the agents failed, or nothing could be written down */
	METRICS_BREAKER_OPEN,
	METRICS_N_ACQUIRES,
};

/* What a lease's agent came to behind it; or that a release named a lease that was ending. */
enum metrics_release {
	METRICS_TO_IDLE,
	METRICS_TO_RECYCLE,
	METRICS_TO_END,
	METRICS_TO_ASIDE, /* its work could not be saved */
	METRICS_STALE,
	METRICS_N_RELEASES,
};

enum metrics_outcome { METRICS_OK, METRICS_ERROR, METRICS_LATE, METRICS_N_OUTCOMES };

struct metrics {
	struct metrics_histogram spans[METRICS_N_SPANS];
	uint64_t acquires[METRICS_N_ACQUIRES];
	uint64_t releases[METRICS_N_RELEASES];
	uint64_t spawns[METRICS_N_OUTCOMES];
	uint64_t probes[2];		     /* well, ill */
	uint64_t terminations[AP_N_REASONS]; /* agents whose end has begun */
	uint64_t recycles[AP_N_REASONS];
	uint64_t n_expired; /* leases ended by their ttl */
	uint64_t n_breaker; /* changes of the breaker's state */
	uint64_t n_at_max;  /* times that acquirers came to wait for a pool that may not grow */
	uint64_t state_us[AP_N_AGENT_STATES]; /* agents times time */
	int64_t elapsed_us;		      /* until when state_us counts */
	bool at_max;
};

/* Upper bounds of the buckets of a span, ns, ascending; METRICS_BOUNDS of them at most. */
const int64_t *metrics_bounds(enum metrics_span span, unsigned *ret_n);

/* The i-th of them in seconds, such as `0.25` or `1.0`: numbers of labels have a point. */
const char *metrics_bound_text(enum metrics_span span, unsigned i);

void metrics_observe(struct metrics *metrics, enum metrics_span span, int64_t ns);

/* How many were observed. */
uint64_t metrics_count(const struct metrics *metrics, enum metrics_span span);

/* The time that a part `q` (0 to 1) of those observed did not exceed, ns: within a bucket they are
 * taken to be spread evenly, and what is over all bounds to be at the last. -1: there are none. */
double metrics_quantile(const struct metrics *metrics, enum metrics_span span, double q);

/* How an acquirer fares that is answered with that error. */
enum metrics_acquire metrics_refused(int error);

/* So many agents have been in each state up to now. */
void metrics_elapse(struct metrics *metrics, const unsigned n_in_state[AP_N_AGENT_STATES],
		    int64_t now_ns);

/* Takes note whether acquirers wait while there may be no more agents. */
void metrics_note_max(struct metrics *metrics, bool at_max);

const char *metrics_acquire_name(enum metrics_acquire acquire);
const char *metrics_release_name(enum metrics_release release);
const char *metrics_outcome_name(enum metrics_outcome outcome);

/* What is known of one agent. */
struct ap_agent_metrics {
	unsigned number;
	int64_t age_ns;
	uint64_t n_requests;
	bool has_usage; /* its process tree was looked at: at a pass, or when its files were read */
	uint64_t memory;
	int64_t cpu_ns;
};

/* One consistent look at the pool. */
struct ap_metrics {
	struct ap_stats stats;
	struct metrics counts;
	const char *mountpoint; /* as long as the pool */
	unsigned n_in_state[AP_N_AGENT_STATES];
	unsigned min_size, max_size;
	uint64_t max_memory;		      /* of an agent, bytes; 0: there is no bound */
	uint64_t n_scaled[AP_SCALE_DOWN + 1]; /* steps by direction */
	int64_t oldest_waiter_ns;	      /* how long it waits; 0: none does */
	/* why spawning last failed; no text when no start has failed since one last succeeded, or
	 * since the breaker was reset */
	struct ap_err breaker_cause;
	unsigned n_agents; /* that were filled in */
};

/* Looks at the pool, and at no more than `max` agents. Holds the pool's lock for a copy. */
void ap_pool_metrics(struct ap_pool *pool, struct ap_metrics *ret,
		     struct ap_agent_metrics *ret_agents, unsigned max);
