/* Usage limits that agents' programs reach: what the machine learns of them, whom else they
 * concern, and whether a program is told to go on when its limit is over. */
#include <string.h>

#include "pool_internal.h"
#include "when.h"

/* The agent whose own limit ends last, of those that have one; NULL: none has. */
static const struct ap_agent *last_limited_locked(const struct ap_pool *pool)
{
	const struct ap_agent *last = NULL;
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		const struct ap_agent *agent = pool->agents[i];
		if (agent && agent->limit_ends_ns &&
		    (!last || agent->limit_ends_ns > last->limit_ends_ns))
			last = agent;
	}
	return last;
}

/* Tells every session how long the limit of all lasts. */
static void share_locked(struct ap_pool *pool)
{
	for (unsigned i = 0; i < pool->view->n_slots; i++) {
		if (pool->agents[i])
			session_share_limit(pool->agents[i]->session, pool->limit_until_s,
					    pool->limit_ends_ns);
	}
}

void limit_new_agent_locked(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	if (pool->limit_ends_ns > ap_clock_to_wall(ap_clock_ns()))
		session_share_limit(agent->session, pool->limit_until_s, pool->limit_ends_ns);
}

struct machine_event limit_take_locked(struct ap_agent *agent, const struct limit *limit,
				       bool lifted)
{
	struct ap_pool *pool = agent->pool;
	bool is_shared = profile_values(pool->profile)->limit_is_shared;
	int64_t now = ap_clock_ns(), wall = ap_clock_to_wall(now);
	agent->limit_ends_ns = limit->on ? limit->ends_ns : 0;
	agent->limit_until_s = limit->on ? limit->until_s : 0;
	if (is_shared) {
		/* who has gone on with the account has shown that it has no limit any more */
		const struct ap_agent *last = lifted ? NULL : last_limited_locked(pool);
		pool->limit_ends_ns = last ? last->limit_ends_ns : 0;
		pool->limit_until_s = last ? last->limit_until_s : 0;
		share_locked(pool);
	}
	return (struct machine_event){
		.type = MACHINE_LIMIT,
		.slot = agent->slot,
		.on = limit->on,
		.everyone = is_shared,
		.until_ns = pool->limit_ends_ns ? now + (pool->limit_ends_ns - wall) : 0,
	};
}

void limit_note_locked(const struct ap_agent *agent, const char *what, int64_t until_s)
{
	const struct machine_slot *slot = &agent->pool->view->slots[agent->slot];
	char until[32] = "";
	if (until_s)
		when_format(until_s, until, sizeof until);
	events_note(
		agent->pool->events, "limit",
		EVENT_FIELDS({"agent", agent->name, 0},
			     {"lease", slot->state == AP_AGENT_ACTIVE ? slot->label.text : "", 0},
			     {"what", what, 0}, {"until", until, 0}));
}

bool limit_goes_on_locked(const struct ap_agent *agent, const struct limit *limit)
{
	const struct ap_pool *pool = agent->pool;
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	return !agent->gone && slot->state == AP_AGENT_ACTIVE && !slot->leaving && limit->broke &&
	       slot->token == limit->token &&
	       strcmp(pool->config.text[AP_OPT_ON_LIMIT], "continue") == 0 &&
	       *profile_values(pool->profile)->go_on;
}
