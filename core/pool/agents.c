/* Finding agents by number, label or token; killing and recycling an agent. */
#include <stdlib.h>

#include "pool_internal.h"

static int by_number(const void *a, const void *b)
{
	const unsigned *left = a, *right = b;
	return (*left > *right) - (*left < *right);
}

unsigned ap_pool_agents(struct ap_pool *pool, unsigned *ret_numbers, unsigned max)
{
	unsigned n = 0;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && n < max; i++) {
		if (pool->agents[i])
			ret_numbers[n++] = pool->agents[i]->number;
	}
	pthread_mutex_unlock(&pool->lock);
	qsort(ret_numbers, n, sizeof *ret_numbers, by_number);
	return n;
}

unsigned ap_pool_hard_cap(const struct ap_pool *pool)
{
	return pool->view->n_slots;
}

static struct ap_agent *agent_in_locked(struct ap_pool *pool, const struct machine_slot *slot)
{
	struct ap_agent *agent = slot ? pool->agents[slot - pool->view->slots] : NULL;
	if (agent)
		agent_ref(agent);
	return agent;
}

struct ap_agent *ap_agent_get(struct ap_pool *pool, unsigned number)
{
	pthread_mutex_lock(&pool->lock);
	struct ap_agent *agent = agent_in_locked(pool, machine_find_number(pool->view, number));
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

struct ap_agent *ap_agent_find(struct ap_pool *pool, const char *name)
{
	unsigned number = agent_number(name);
	return number ? ap_agent_get(pool, number) : NULL;
}

static struct ap_agent *lease_agent_locked(struct ap_pool *pool, const struct machine_slot *slot,
					   uint64_t *ret_token)
{
	if (!slot || !machine_slot_leased(slot))
		return NULL;
	*ret_token = slot->token;
	return agent_in_locked(pool, slot);
}

struct ap_agent *ap_agent_of_label(struct ap_pool *pool, const char *label, uint64_t *ret_token)
{
	pthread_mutex_lock(&pool->lock);
	struct ap_agent *agent =
		lease_agent_locked(pool, machine_find_label(pool->view, label), ret_token);
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

struct ap_agent *ap_agent_of_token(struct ap_pool *pool, uint64_t token)
{
	struct ap_agent *agent = NULL;
	uint64_t found;
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < pool->view->n_slots && !agent; i++) {
		if (pool->view->slots[i].token == token)
			agent = lease_agent_locked(pool, &pool->view->slots[i], &found);
	}
	pthread_mutex_unlock(&pool->lock);
	return agent;
}

int ap_agent_kill(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, struct ap_err *err)
{
	const struct machine_event event = {.type = MACHINE_KILL, .token = token};
	return pool_refused(pool_step_agent(agent, event), err);
}

int ap_agent_recycle(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		     struct ap_err *err)
{
	const struct machine_event event = {.type = MACHINE_RECYCLE, .token = token};
	return pool_refused(pool_step_agent(agent, event), err);
}
