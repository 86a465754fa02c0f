#include "placement.h"

#include <stdint.h>

/* Below 0: of the slots of `a` a smaller share is in use than of those of `b`; 0: the same. */
static int compare_shares(const struct placement_host *a, const struct placement_host *b)
{
	uint64_t x = (uint64_t)a->n_agents * b->slots, y = (uint64_t)b->n_agents * a->slots;
	return (x > y) - (x < y);
}

static int compare_free(const struct placement_host *a, const struct placement_host *b)
{
	unsigned x = a->slots - a->n_agents, y = b->slots - b->n_agents;
	return (x > y) - (x < y);
}

static bool spread_better(const struct placement_host *a, const struct placement_host *b)
{
	int shares = compare_shares(a, b), room = compare_free(a, b);
	return shares != 0 ? shares < 0 : room != 0 ? room > 0 : a->index < b->index;
}

static bool pack_better(const struct placement_host *a, const struct placement_host *b)
{
	int shares = compare_shares(a, b), room = compare_free(a, b);
	return shares != 0 ? shares > 0 : room != 0 ? room < 0 : a->index < b->index;
}

static bool warm_better(const struct placement_host *a, const struct placement_host *b)
{
	return a->warm != b->warm ? a->warm : spread_better(a, b);
}

const struct placement_policy placement_policies[PLACEMENT_N_POLICIES] = {
	[PLACEMENT_SPREAD] = {"spread", spread_better},
	[PLACEMENT_PACK] = {"pack", pack_better},
	[PLACEMENT_WARM] = {"warm", warm_better},
};
