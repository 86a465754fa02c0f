/* An overview of the pool for people: one consistent look at all of it, with the screens and the
 * usage of its agents fresh enough for them. */
#pragma once

#include "agentpool.h"
#include "history.h"
#include "metrics.h"

struct ap_agent_overview {
	struct ap_agent_info info;
	bool has_usage; /* its process tree was measured, and its program runs */
	uint64_t memory;
	double cpu_percent;
	unsigned n_tasks;
	const char *request; /* what its program asks, likewise; NULL, "": nothing */
	const char *screen; /* plain text, as last captured, shared; NULL: it has none */
};

struct ap_waiter_overview {
	char label[AP_LABEL_MAX + 1]; /* that it will have */
	uid_t uid;
	pid_t pid;
	int64_t asked_ns;
};

#define AP_WAITERS_SHOWN 16

struct ap_overview {
	int64_t at_ns;
	const char *repo; /* path; as long as the pool */
	bool color;	  /* option status_color */
	struct ap_metrics metrics;
	struct history history;
	unsigned n_agents;
	struct ap_agent_overview *agents; /* by number, owned */
	unsigned n_waiters;
	struct ap_waiter_overview waiters[AP_WAITERS_SHOWN]; /* the first in the queue */
};

/* Refreshes the screens and the usage that are older than people mind: some 200 ms and 5 s. Answers
 * the request when that is done, or after some 20 ms; one thread answers all requests, one after
 * the other. */
void ap_pool_look(struct ap_pool *pool, struct ap_request *request);

/* Fills in an overview. -ENOMEM. Balance with ap_overview_fini(). */
int ap_pool_overview(struct ap_pool *pool, struct ap_overview *ret);
void ap_overview_fini(struct ap_overview *overview);
