/* Counters and histograms of a pool since the mount, which never fall. Pure: an observation is an
 * addition or two; the owner locks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reason.h"
#include "states.h"

enum counters_span {
	COUNTERS_WAIT,	/* of acquirers who were granted a lease: from the request to the answer */
	COUNTERS_HOLD,	/* of leases that are over: from the grant until the work was saved */
	COUNTERS_SPAWN, /* of agents that became ready: from the decision to spawn */
	COUNTERS_N_SPANS,
};

#define COUNTERS_BOUNDS 18

struct counters_histogram {
	uint64_t n[COUNTERS_BOUNDS + 1]; /* by bucket; the last is over all bounds */
	uint64_t sum_ns;
};

/* What became of an acquirer. */
enum counters_acquire {
	COUNTERS_HIT,	  /* served by an agent that was idle when it asked */
	COUNTERS_SPAWNED, /* by an agent that was spawned since */
	COUNTERS_HANDOFF, /* by an agent that came back from a lease since */
	COUNTERS_TIMEOUT,
	COUNTERS_CANCELLED,
	COUNTERS_REJECTED,
	COUNTERS_FAILED, /* the agents failed, or the store could not record the lease */
	COUNTERS_BREAKER_OPEN,
	COUNTERS_N_ACQUIRES,
};

/* Where a lease's agent went after it; or that a release named a lease that was ending. */
enum counters_release {
	COUNTERS_TO_IDLE,
	COUNTERS_TO_RECYCLE,
	COUNTERS_TO_END,
	COUNTERS_TO_QUARANTINE, /* its work could not be saved */
	COUNTERS_STALE,
	COUNTERS_N_RELEASES,
};

enum counters_outcome { COUNTERS_OK, COUNTERS_ERROR, COUNTERS_LATE, COUNTERS_N_OUTCOMES };

struct counters {
	struct counters_histogram spans[COUNTERS_N_SPANS];
	uint64_t acquires[COUNTERS_N_ACQUIRES];
	uint64_t releases[COUNTERS_N_RELEASES];
	uint64_t spawns[COUNTERS_N_OUTCOMES];
	uint64_t probes[2];		     /* healthy, unhealthy */
	uint64_t terminations[AP_N_REASONS]; /* agents whose end has begun */
	uint64_t recycles[AP_N_REASONS];
	uint64_t n_expired; /* leases ended by their ttl */
	uint64_t n_breaker; /* changes of the breaker's state */
	uint64_t n_at_max;  /* times that acquirers began to wait for a pool that may not grow */
	uint64_t state_us[AP_N_SHOWN_STATES]; /* agents times time */
	int64_t elapsed_us;		      /* until when state_us counts */
	bool at_max;
};

/* Upper bounds of the buckets of a span, ns, ascending; COUNTERS_BOUNDS of them at most. */
const int64_t *counters_bounds(enum counters_span span, unsigned *ret_n);

/* The i-th bound in seconds, as the text of a label, such as `0.25` or `1.0`. */
const char *counters_bound_text(enum counters_span span, unsigned i);

void counters_observe(struct counters *counters, enum counters_span span, int64_t ns);

/* How many values of a span were observed. */
uint64_t counters_count(const struct counters *counters, enum counters_span span);

/* The value in ns that a part `q` (0 to 1) of the observed ones did not exceed. Assumes that values
 * spread evenly within a bucket, and that those over all bounds are at the last bound. -1: there
 * are none. */
double counters_quantile(const struct counters *counters, enum counters_span span, double q);

/* The outcome of an acquirer that gets that error. */
enum counters_acquire counters_refused(int error);

/* Adds the time since the last call to each state, for as many agents as were in it. */
void counters_elapse(struct counters *counters, const unsigned n_in_state[AP_N_AGENT_STATES],
		     int64_t now_ns);

/* Records whether acquirers wait while there may be no more agents; counts each time that this
 * begins. */
void counters_note_max(struct counters *counters, bool at_max);

const char *counters_acquire_name(enum counters_acquire acquire);
const char *counters_release_name(enum counters_release release);
const char *counters_outcome_name(enum counters_outcome outcome);
