/* On which host a new agent begins. Pure functions of how two hosts stand; the machine calls them
 * for the hosts that could have it. A new policy is a function and a row. */
#pragma once

#include <stdbool.h>

/* A host that could have one more agent. */
struct placement_host {
	unsigned index;
	unsigned n_agents, slots; /* n_agents < slots */
	bool warm;		  /* it has the template */
};

enum placement_policy_id {
	PLACEMENT_SPREAD, /* the smallest share of its slots in use; then the most free slots */
	PLACEMENT_PACK,	  /* the largest share; then the fewest free slots */
	PLACEMENT_WARM,	  /* one that is warm before one that is not; then as spread */
	PLACEMENT_N_POLICIES,
};

struct placement_policy {
	const char *name;

	/* Whether the agent had better begin on `a` than on `b`. Where both are as good, the lower
	 * index is better. */
	bool (*better)(const struct placement_host *a, const struct placement_host *b);
};

extern const struct placement_policy placement_policies[PLACEMENT_N_POLICIES];
