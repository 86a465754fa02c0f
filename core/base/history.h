/* The last hour of a pool: a ring of intervals, each with exact sums over its time. The owner
 * reports a change when it happens, so an idle pool costs nothing. Pure: the owner locks. */
#pragma once

#include <stdint.h>

#define HISTORY_INTERVAL_NS INT64_C(20000000000)
#define HISTORY_N	    180 /* intervals: an hour */

/* The state of the pool at one time. */
struct history_sample {
	unsigned n_agents;  /* in any state */
	unsigned n_active;  /* serve a lease, or are being made ready for one */
	unsigned n_able;    /* serve or could */
	unsigned n_waiting; /* acquirers */
};

struct history_interval {
	uint64_t us;				/* time of the interval that has passed */
	uint64_t agents_us, active_us, able_us; /* agents times time */
	unsigned most_waiting;			/* at one time */
	unsigned n_grants;
	int64_t longest_wait_ns; /* of those granted in it */
};

struct history {
	int64_t now_us; /* up to when it is filled; 0: it has not begun */
	int64_t end_us; /* of the interval that is being filled */
	unsigned n;	/* intervals there are, that one included */
	unsigned at;	/* its place in the ring */
	struct history_interval ring[HISTORY_N];
};

/* Records that the pool has been in that state since the last call. */
void history_elapse(struct history *history, struct history_sample sample, int64_t now_ns);

/* A lease was granted after that wait, in the interval that is being filled. */
void history_granted(struct history *history, int64_t waited_ns);

/* The i-th interval, oldest first: i < history->n. */
const struct history_interval *history_get(const struct history *history, unsigned i);

/* Percent of the able agents that served, over the interval's time; -1: there were none. */
int history_utilization(const struct history_interval *interval);

/* The mean number of agents over the interval's time; `agents_us` is one of its sums. */
double history_mean(const struct history_interval *interval, uint64_t agents_us);
