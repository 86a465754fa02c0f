/* Acquiring, renewing and releasing leases, by label, agent or key. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>

#include "cleanup.h"
#include "pool_internal.h"

unsigned agent_number(const char *name)
{
	int64_t number;
	if (strncmp(name, "agent-", 6) != 0 || name[6] == '0' || name[6] == '+' || name[6] == '-' ||
	    ap_number_parse(name + 6, &number) < 0 || number <= 0 || number > UINT32_MAX)
		return 0;
	return (unsigned)number;
}

/* The acquirer's base and, behind its NUL, the name of what it restores: in one allocation, as many
 * acquirers wait and few restore. NULL on ENOMEM. */
static char *base_of(const struct ap_acquire *acquire)
{
	struct ap_buf text = {0};
	ap_buf_add(&text, acquire->base, strlen(acquire->base) + 1);
	if (acquire->restore)
		ap_buf_add(&text, acquire->restore, strlen(acquire->restore) + 1);
	char *whole = text.failed ? NULL : malloc(text.len); /* exact: a buffer has spare room */
	if (whole)
		memcpy(whole, text.data, text.len);
	ap_buf_fini(&text);
	return whole;
}

int ap_pool_acquire(struct ap_pool *pool, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err)
{
	struct machine_request *wanted = &request->machine;
	int64_t now = ap_clock_ns();
	memcpy(wanted->label.text, acquire->label, sizeof wanted->label.text);
	if (acquire->label[0] && !ap_label_valid(acquire->label))
		return ap_err_set(
			err, -EINVAL,
			"'%s' is not a valid label: letters, digits, '.', '_' and '-', 64 at most",
			acquire->label);
	if (acquire->agent[0] && (wanted->agent = agent_number(acquire->agent)) == 0)
		return ap_err_set(err, -ENOENT,
				  "there is no agent '%s': agents/ has those that there are",
				  acquire->agent);
	if (acquire->base[0] && !(request->base = base_of(acquire)))
		return ap_err_errno(err, -ENOMEM, "acquire");
	request->has_restore = request->base && acquire->restore;
	request->permission = (int16_t)acquire->permission;
	request->budget = acquire->budget;
	if (acquire->holder) {
		AP_CLEANUP_CLOSE int fd = pidfd_open(acquire->holder, 0);
		if (fd < 0)
			return ap_err_errno(err, -errno, "pid %d", (int)acquire->holder);
		request->holder = acquire->holder;
		request->holder_start = process_start_time(acquire->holder);
	}
	if (acquire->affinity[0])
		wanted->affinity = ap_hash(acquire->affinity);
	wanted->uid = acquire->uid;
	wanted->pid = acquire->holder ? acquire->holder : acquire->pid;
	wanted->by_handle = acquire->by_handle;
	request->asked_ns = now;
	request->in_machine = true;

	ap_request_ref(request);
	pthread_mutex_lock(&pool->lock);
	int64_t timeout = acquire->timeout_ns >= 0 ? acquire->timeout_ns
						   : pool->config.number[AP_OPT_ACQUIRE_TIMEOUT];
	wanted->once = timeout == 0;
	wanted->deadline_ns = wanted->once ? AP_FOREVER : ap_clock_after(now, timeout);
	wanted->ttl_ns =
		acquire->ttl_ns >= 0 ? acquire->ttl_ns : pool->config.number[AP_OPT_LEASE_TTL];
	int r = pool_step_locked(
		pool, &(struct machine_event){.type = MACHINE_ACQUIRE, .request = wanted});
	bool full = pool->view->n_waiting >= POOL_WAITERS_MAX;
	pool_unlock(pool);
	if (r < 0)
		ap_request_free(request);
	if (r == -EDQUOT)
		return ap_err_set(err, r, "%s", pool_is_spent);
	if (r == -EAGAIN)
		return full ? ap_err_set(err, r, "%d acquirers wait already", POOL_WAITERS_MAX)
			    : ap_err_set(err, r, "%d acquirers of yours wait already",
					 POOL_WAITERS_USER);
	return pool_refused(r, err);
}

int ap_pool_restore(struct ap_pool *pool, const char *name, const struct ap_acquire *given,
		    struct ap_request *request, struct ap_err *err)
{
	struct kept_info info;
	struct ap_acquire acquire = *given;
	if (kept_work_find(pool->kept_work, name, &info) < 0)
		return ap_err_set(err, -ENOENT, "nothing is kept as '%.*s': kept/ has what is",
				  KEPT_NAME_MAX, name);
	const char *commit = info.commit[0] ? info.commit : info.base;
	if (!commit[0] || !info.backend[0])
		return ap_err_set(err, -ENODATA,
				  "what %s began at is not known: its files are in %s/kept/%s",
				  name, pool->state_dir, name);
	snprintf(acquire.base, sizeof acquire.base, "%s", commit);
	acquire.restore = name;
	return ap_pool_acquire(pool, &acquire, request, err);
}

/* The slot of a lease by its label, or by the name of its agent. */
static const struct machine_slot *lease_find_locked(struct ap_pool *pool, const char *word)
{
	const struct machine_slot *slot = machine_find_label(pool->view, word);
	if (!slot && agent_number(word))
		slot = machine_find_number(pool->view, agent_number(word));
	return slot && (slot->state == AP_AGENT_ACTIVE || slot->state == AP_AGENT_QUARANTINED)
		       ? slot
		       : NULL;
}

bool ap_pool_is_owner(const struct ap_pool *pool, uid_t uid)
{
	return uid == 0 || uid == pool->owner || uid == pool->shown_owner;
}

static int may_end_locked(struct ap_pool *pool, const struct machine_slot *slot, uid_t uid,
			  struct ap_err *err)
{
	if (ap_pool_is_owner(pool, uid) || uid == slot->uid)
		return 0;
	return ap_err_set(err, -EPERM, "lease %s is not yours", slot->label.text);
}

/* Steps an event about a lease on behalf of `uid`. `ret_token`: the lease's token; may be NULL. */
static int lease_step(struct ap_pool *pool, const char *word, uid_t uid, struct machine_event event,
		      uint64_t *ret_token, struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = lease_find_locked(pool, word);
	int r = slot ? may_end_locked(pool, slot, uid, err)
		     : ap_err_set(err, -ENOENT,
				  "there is no lease '%s': leases/ has those that there are", word);
	if (r == 0) {
		event.slot = machine_slot_index(pool->view, slot);
		if (ret_token)
			*ret_token = slot->token;
		r = pool_refused(pool_step_locked(pool, &event), err);
	}
	pool_unlock(pool);
	return r;
}

/* Answers a request once the store has recorded its change, or failed to. */
static void on_kept(void *data, int result, const struct ap_err *err)
{
	request_answer(data, result, err);
}

int ap_pool_release(struct ap_pool *pool, const char *label_or_agent, bool discard, uid_t uid,
		    struct ap_request *request, struct ap_err *err)
{
	if (request) {
		request->in_machine = true;
		ap_request_ref(request);
	}
	int r = lease_step(pool, label_or_agent, uid,
			   (struct machine_event){
				   .type = MACHINE_RELEASE,
				   .discard = discard,
				   .request = request ? &request->machine : NULL,
			   },
			   NULL, err);
	if (r < 0)
		ap_request_free(request);
	return r;
}

int ap_pool_begin_release(struct ap_pool *pool, const char *label, uid_t uid,
			  struct ap_request *request, struct ap_err *err)
{
	uint64_t token;
	int r = lease_step(pool, label, uid, (struct machine_event){.type = MACHINE_RELEASE},
			   &token, err);
	if (r < 0)
		return r;
	struct store_txn *txn = store_txn_new();
	ap_request_ref(request);
	txn_lease_ends(txn, token, ap_reason_name(AP_REASON_RELEASE));
	store_submit(pool->store, txn, true, on_kept, request);
	return 0;
}

int ap_pool_may_release(struct ap_pool *pool, const char *label_or_agent, uid_t uid,
			struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	const struct machine_slot *slot = lease_find_locked(pool, label_or_agent);
	int r = slot ? may_end_locked(pool, slot, uid, err) : 0;
	pthread_mutex_unlock(&pool->lock);
	return r;
}

int ap_pool_renew(struct ap_pool *pool, const char *label, uid_t uid, struct ap_err *err)
{
	return lease_step(pool, label, uid, (struct machine_event){.type = MACHINE_RENEW}, NULL,
			  err);
}

void ap_pool_release_key(struct ap_pool *pool, struct ap_lease_key key)
{
	struct ap_agent *agent = ap_agent_get(pool, key.agent);
	if (agent) /* the machine refuses if the agent has another lease by now */
		pool_step_agent(agent, (struct machine_event){.type = MACHINE_RELEASE,
							      .token = key.token,
							      .reason = AP_REASON_HANDLE});
	ap_agent_unref(agent);
}
