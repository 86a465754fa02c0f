/* Whose conversation a program is in: the store has it with the label of the lease and the name of
 * the profile, from the first turn on, and a program that starts under a lease of that label goes
 * on with it. A conversation in which nothing was said is nobody's: programs do not keep it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "jobs_internal.h"

static const char *profile_name(const struct ap_pool *pool)
{
	return profile_values(pool->profile)->name;
}

/* Records the conversation for the label, unless that was done in this lease. */
static struct store_txn *note_locked(struct ap_agent *agent, const char *label, const char *id)
{
	if (!*label || !*id || strcmp(agent->conversation, id) == 0)
		return NULL;
	struct store_txn *txn = store_txn_new();
	snprintf(agent->conversation, sizeof agent->conversation, "%s", id);
	struct store_conversation record;
	snprintf(record.id, sizeof record.id, "%s", id);
	snprintf(record.place, sizeof record.place, "%s", agent->worktree_path);
	txn_conversation(txn, label, profile_name(agent->pool), &record,
			 ap_clock_to_wall(ap_clock_ns()));
	return txn;
}

void conversation_note_locked(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	char id[SESSION_CONVERSATION_MAX];
	if (agent->gone || slot->state != AP_AGENT_ACTIVE ||
	    !session_conversation(agent->session, id))
		return;
	agent->converses = true;
	struct store_txn *txn = note_locked(agent, slot->label.text, id);
	if (txn)
		store_submit(pool->store, txn, false, NULL, NULL);
}

/* Removes what is recorded for the agent's lease: the program forgets it. Before that, so that no
 * daemon goes on with it. */
static void forget(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	struct store_txn *txn = NULL;
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = &pool->view->slots[agent->slot];
	if (!agent->gone && slot->state == AP_AGENT_ACTIVE && (txn = store_txn_new()))
		txn_conversation_gone(txn, slot->label.text, profile_name(pool));
	agent->conversation[0] = '\0';
	agent->converses = false;
	pthread_mutex_unlock(&pool->lock);
	if (txn)
		(void)store_commit(pool->store, txn, true, NULL); /* a full disk stops no reset */
}

void conversation_changed(struct ap_agent *agent, const char *id)
{
	if (!*id) {
		forget(agent);
		return;
	}
	pthread_mutex_lock(&agent->pool->lock);
	conversation_note_locked(agent);
	pthread_mutex_unlock(&agent->pool->lock);
}

void conversation_settle(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	char id[SESSION_CONVERSATION_MAX];
	if (!session_resumes(&pool->sessions) || !agent->lease_open || !agent->lease_held)
		return;
	session_learn_conversation(agent->session);
	if (!session_conversation(agent->session, id))
		return;
	pthread_mutex_lock(&pool->lock);
	bool used = agent->converses || agent->n_prompts > 0;
	struct store_txn *txn = used ? note_locked(agent, agent->lease.label, id) : NULL;
	pthread_mutex_unlock(&pool->lock);
	if (txn)
		(void)store_commit(pool->store, txn, false, NULL);
}

bool conversation_find(struct ap_agent *agent, char ret[SESSION_CONVERSATION_MAX])
{
	struct ap_pool *pool = agent->pool;
	struct store_conversation found;
	if (!session_resumes(&pool->sessions))
		return false;
	pthread_mutex_lock(&pool->lock);
	bool wanted = strcmp(pool->config.text[AP_OPT_RESUME], "yes") == 0;
	pthread_mutex_unlock(&pool->lock);
	if (!wanted ||
	    !store_conversation(pool->store, agent->lease.label, profile_name(pool), &found) ||
	    !session_conversation_valid(found.id))
		return false;
	if (profile_values(pool->profile)->conversation_stays &&
	    strcmp(found.place, agent->worktree_path) != 0) {
		conversation_tell_gone(agent, found.id, "it can go on in its own worktree alone");
		return false;
	}
	snprintf(ret, SESSION_CONVERSATION_MAX, "%s", found.id);
	return true;
}

void conversation_granted(struct ap_agent *agent)
{
	pthread_mutex_lock(&agent->pool->lock);
	agent->conversation[0] = '\0';
	agent->converses = false;
	pthread_mutex_unlock(&agent->pool->lock);
	agent->has_served = true;
}

void conversation_prepare(struct ap_agent *agent)
{
	char id[SESSION_CONVERSATION_MAX] = "";
	bool leased = agent->lease_open && agent->lease_held;
	session_converse(agent->session, leased && conversation_find(agent, id) ? id : "");
}

void conversation_tell_gone(struct ap_agent *agent, const char *id, const char *reason)
{
	events_add(agent->pool->events, "conversation_gone",
		   EVENT_FIELDS({"agent", agent->name, 0},
				{"lease", agent->lease_open ? agent->lease.label : "", 0},
				{"conversation", id, 0}, {"reason", reason, 0}));
}
