#include "naive.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SECOND	((int64_t)1000000000)
#define NEVER	INT64_MAX
#define PENDING UINT32_MAX /* identity of an effect that the machine has yet to name */

static int64_t later(int64_t now, int64_t span)
{
	/* an agent may have begun before the clock did */
	return span == NEVER || (now > 0 && span > NEVER - now) ? NEVER : now + span;
}

/* --- counts, by looking --- */

static unsigned in_state(const struct naive *n, enum ap_agent_state state)
{
	unsigned found = 0;
	for (unsigned i = 0; i < n->n_slots; i++)
		found += n->agents[i].state == state;
	return found;
}

static unsigned total(const struct naive *n)
{
	return n->n_slots - in_state(n, AP_AGENT_FREE);
}

static unsigned live(const struct naive *n)
{
	return total(n) - in_state(n, AP_AGENT_QUARANTINED) - in_state(n, AP_AGENT_DRAINING) -
	       in_state(n, AP_AGENT_STOPPING) - in_state(n, AP_AGENT_LOST);
}

static bool label_known(const struct naive *n, const char *label)
{
	for (unsigned i = 0; i < n->n_slots; i++)
		if (strcmp(n->agents[i].label, label) == 0)
			return true;
	for (unsigned i = 0; i < n->n_queued; i++)
		if (strcmp(n->requests[n->queue[i]].label, label) == 0)
			return true;
	return false;
}

/* --- the hosts --- */

static unsigned there_in(const struct naive *n, unsigned host, enum ap_agent_state state)
{
	unsigned found = 0;
	for (unsigned i = 0; i < n->n_slots; i++)
		found += n->agents[i].state == state && n->agents[i].host == host;
	return found;
}

static unsigned there(const struct naive *n, unsigned host)
{
	unsigned found = 0;
	for (unsigned i = 0; i < n->n_slots; i++)
		found += n->agents[i].state != AP_AGENT_FREE && n->agents[i].host == host;
	return found;
}

static bool is_lost(const struct naive *n, const struct naive_agent *a)
{
	return a->state != AP_AGENT_FREE && n->hosts[a->host].state == AP_HOST_LOST;
}

/* It is asked to be empty, or has more than it may, but for those that end already. */
static bool is_to_leave(const struct naive *n, const struct naive_agent *a)
{
	const struct naive_host *h = &n->hosts[a->host];
	unsigned ending =
		there_in(n, a->host, AP_AGENT_DRAINING) + there_in(n, a->host, AP_AGENT_STOPPING);
	return h->state == AP_HOST_DRAINING || there(n, a->host) > h->slots + ending;
}

static void start_failed(struct naive *n, const struct naive_agent *a)
{
	struct naive_host *h = &n->hosts[a->host];
	h->n_failures++;
	if (h->breaker == BREAKER_OPEN || (h->breaker == BREAKER_CLOSED && h->n_failures < 3))
		return;
	h->breaker = BREAKER_OPEN;
	h->retry = NEVER; /* the dice decide */
}

static void breaker_close(struct naive_host *h)
{
	h->breaker = BREAKER_CLOSED;
	h->n_failures = 0;
}

static bool may_start(struct naive *n, unsigned host, int64_t now)
{
	struct naive_host *h = &n->hosts[host];
	if (h->state != AP_HOST_UP || there(n, host) >= h->slots)
		return false;
	if (h->breaker == BREAKER_OPEN && now >= h->retry)
		h->breaker = BREAKER_HALF_OPEN;
	if (h->breaker != BREAKER_HALF_OPEN)
		return h->breaker == BREAKER_CLOSED;
	for (unsigned i = 0; i < n->n_slots; i++)
		if (n->agents[i].probation && n->agents[i].host == host)
			return false;
	return true;
}

/* Those who wait for this host and for no agent of it, beyond what comes there. */
static unsigned misses(const struct naive *n, unsigned host)
{
	unsigned waiting = 0;
	unsigned coming =
		there_in(n, host, AP_AGENT_SPAWNING) + there_in(n, host, AP_AGENT_RECYCLING);
	for (unsigned i = 0; i < n->n_queued; i++)
		waiting += n->requests[n->queue[i]].host == host + 1 &&
			   n->requests[n->queue[i]].agent == 0;
	return waiting > coming ? waiting - coming : 0;
}

/* How well the policy likes a host for one more agent: a higher figure is better. */
static double liking(const struct naive *n, unsigned host)
{
	const struct naive_host *h = &n->hosts[host];
	double share = (double)there(n, host) / h->slots, left = h->slots - there(n, host);
	double spread = (1 - share) * 1e6 + left;
	if (n->limits.placement == PLACEMENT_PACK)
		return -spread;
	return spread + (n->limits.placement == PLACEMENT_WARM && h->warm ? 1e9 : 0);
}

/* -1: nowhere. */
static int where_next(struct naive *n, int64_t now)
{
	bool may[MAX_HOSTS], any_missed = false;
	int best = -1;
	for (unsigned i = 0; i < n->n_hosts; i++) {
		may[i] = may_start(n, i, now);
		any_missed |= may[i] && misses(n, i) > 0;
	}
	for (unsigned i = 0; i < n->n_hosts; i++)
		if (may[i] && (!any_missed || misses(n, i) > 0) &&
		    (best < 0 || liking(n, i) > liking(n, (unsigned)best)))
			best = (int)i;
	return best;
}

/* --- what happens to one agent --- */

static void move(struct naive *n, struct naive_agent *a, enum ap_agent_state to)
{
	a->state = to;
	a->awaited = a->probe = 0;
	a->until = NEVER;
	if (to == AP_AGENT_IDLE)
		a->idle_order = ++n->idle_order;
}

static struct naive_effect *effect(struct naive *n, struct naive_agent *a,
				   enum machine_effect_type type)
{
	struct naive_effect *e = &n->effects[n->n_effects++];
	*e = (struct naive_effect){
		.type = type, .slot = (unsigned)(a - n->agents), .number = a->number};
	return e;
}

static struct naive_effect *begin(struct naive *n, struct naive_agent *a,
				  enum machine_effect_type type, int64_t until)
{
	n->n_begun++;
	a->awaited = PENDING;
	a->until = until;
	return effect(n, a, type);
}

static void answer(struct naive *n, int request, int result)
{
	if (request < 0)
		return;
	n->answered[request] = true;
	n->answers[request] = result;
	n->requests[request].open = false;
}

static void answer_of(struct naive *n, struct naive_agent *a, int result)
{
	answer(n, a->request, result);
	a->request = -1;
}

static void proved(struct naive *n, struct naive_agent *a)
{
	if (a->probation && n->hosts[a->host].breaker != BREAKER_OPEN)
		breaker_close(&n->hosts[a->host]);
	a->probation = false;
}

static struct naive_effect *stop(struct naive *n, struct naive_agent *a, int64_t now)
{
	a->probation = false;
	a->mark = UNMARKED;
	move(n, a, AP_AGENT_STOPPING);
	return begin(n, a, EFFECT_STOP, later(now, 120 * SECOND));
}

static void drain(struct naive *n, struct naive_agent *a, int64_t now)
{
	a->probation = false;
	a->mark = UNMARKED;
	move(n, a, AP_AGENT_DRAINING);
	begin(n, a, EFFECT_DRAIN, later(now, 60 * SECOND));
}

static void clean(struct naive *n, struct naive_agent *a, enum naive_mark mark, int64_t now)
{
	move(n, a, AP_AGENT_RECYCLING);
	a->asked_again = false;
	a->mark = mark;
	begin(n, a, EFFECT_RECYCLE, later(now, n->limits.spawn_timeout_ns))->restart =
		mark != UNMARKED || !n->limits.keep_program;
}

static void recycle(struct naive *n, struct naive_agent *a, int64_t now)
{
	unsigned most = n->limits.recycling.max_recycles;
	if (most == 0 || a->n_recycles < most)
		clean(n, a, DUE, now);
	else if (a->state == AP_AGENT_UNHEALTHY)
		stop(n, a, now);
	else
		drain(n, a, now);
}

/* -EOWNERDEAD: somebody has killed its program, which says nothing of how it starts. */
static void sicken(struct naive *n, struct naive_agent *a, int result, int64_t now)
{
	move(n, a, AP_AGENT_UNHEALTHY);
	if (a->probation && result != -EOWNERDEAD)
		start_failed(n, a);
	if (n->shutdown || a->probation || is_to_leave(n, a))
		stop(n, a, now);
	else
		recycle(n, a, now);
}

static void lose(struct naive *n, struct naive_agent *a)
{
	a->probation = false;
	a->mark = UNMARKED;
	a->lost_order = ++n->lost_order;
	move(n, a, AP_AGENT_LOST);
}

static void settle(struct naive *n, struct naive_agent *a, int64_t now)
{
	a->idle_since = now;
	if (a->retire)
		stop(n, a, now);
	else if (is_to_leave(n, a) && !n->suspended)
		drain(n, a, now);
	else
		move(n, a, AP_AGENT_IDLE);
}

static void end_lease(struct naive *n, struct naive_agent *a, bool discard, int64_t now)
{
	a->leaving = true;
	struct naive_effect *e = begin(n, a, EFFECT_SAVE, later(now, 600 * SECOND));
	e->discard = discard;
	e->restart = !n->limits.keep_program || a->retire || a->mark != UNMARKED || n->shutdown ||
		     a->state == AP_AGENT_QUARANTINED;
}

static void clear_lease(struct naive_agent *a)
{
	a->label[0] = '\0';
	a->token = 0;
	a->ttl = 0;
	a->leaving = false;
}

static void let_go(struct naive *n, struct naive_agent *a, int64_t now)
{
	clear_lease(a);
	stop(n, a, now)->keep = true;
}

static int64_t expiry(const struct naive *n, const struct naive_agent *a)
{
	int64_t age = n->limits.recycling.max_age_ns;
	return age > 0 ? later(a->started, age - age / 10 / UINT16_MAX * a->jitter) : NEVER;
}

static void mark_if_due(struct naive *n, struct naive_agent *a, int64_t now)
{
	unsigned most = n->limits.recycling.max_requests;
	if (a->mark == UNMARKED &&
	    ((most > 0 && a->n_served >= most) || expiry(n, a) <= now || a->n_over >= 3 || a->hot))
		a->mark = DUE;
}

/* --- the queue --- */

static void queue_insert(struct naive *n, unsigned at, unsigned request)
{
	memmove(&n->queue[at + 1], &n->queue[at], (n->n_queued - at) * sizeof n->queue[0]);
	n->queue[at] = request;
	n->n_queued++;
}

static void queue_remove(struct naive *n, unsigned at)
{
	n->n_queued--;
	memmove(&n->queue[at], &n->queue[at + 1], (n->n_queued - at) * sizeof n->queue[0]);
}

static int queue_find(const struct naive *n, int request)
{
	for (unsigned i = 0; i < n->n_queued; i++)
		if ((int)n->queue[i] == request)
			return (int)i;
	return -1;
}

static void refuse(struct naive *n, unsigned at, int error)
{
	unsigned request = n->queue[at];
	queue_remove(n, at);
	answer(n, (int)request, error);
}

/* How well an idle agent suits an acquirer: one that knows its key best, then the one whose last
 * lease had the label last, then the one last used. */
static bool suits_better(const struct naive_request *q, const struct naive_agent *a,
			 const struct naive_agent *than)
{
	bool key = q->affinity && a->affinity == q->affinity;
	bool other_key = q->affinity && than->affinity == q->affinity;
	bool label = !q->agent && strcmp(a->last_label, q->label) == 0;
	bool other_label = !q->agent && strcmp(than->last_label, q->label) == 0;
	if (key != other_key)
		return key;
	if (!key && label != other_label)
		return label;
	if (!key && label)
		return a->lease_order > than->lease_order;
	return a->idle_order > than->idle_order;
}

static struct naive_agent *choose(struct naive *n, const struct naive_request *q)
{
	struct naive_agent *best = NULL;
	for (unsigned i = 0; i < n->n_slots; i++) {
		struct naive_agent *a = &n->agents[i];
		if (a->state != AP_AGENT_IDLE || a->limited ||
		    (q->agent && q->agent != a->number) || (q->host && q->host - 1 != a->host))
			continue;
		if (!best || suits_better(q, a, best))
			best = a;
	}
	return best;
}

static void serve(struct naive *n, int64_t now)
{
	for (unsigned i = 0; i < n->n_queued && !n->suspended && n->limited_until == 0;) {
		unsigned request = n->queue[i];
		struct naive_request *q = &n->requests[request];
		struct naive_agent *a = choose(n, q);
		if (!a) {
			i++;
			continue;
		}
		queue_remove(n, i);
		if (q->token == 0)
			q->token = n->next_token++;
		q->slot = (int)(a - n->agents);
		memcpy(a->label, q->label, sizeof a->label);
		memcpy(a->last_label, q->label, sizeof a->last_label);
		a->lease_order = ++n->lease_order;
		a->request = (int)request;
		a->token = q->token;
		a->ttl = q->ttl;
		if (q->affinity)
			a->affinity = q->affinity;
		move(n, a, AP_AGENT_VALIDATING);
		begin(n, a, EFFECT_VALIDATE, later(now, n->limits.spawn_timeout_ns));
	}
}

static void refuse_if_once(struct naive *n, int request)
{
	int at = queue_find(n, request);
	if (at >= 0 && n->requests[request].once)
		refuse(n, (unsigned)at, -EAGAIN);
}

/* Its agent failed: among those who had one before, in the order they had it, before all others. */
static void come_back(struct naive *n, int request, int64_t now)
{
	struct naive_request *q = &n->requests[request];
	q->slot = -1;
	if (n->closed || n->limits.spent) {
		answer(n, request, n->closed ? -ESHUTDOWN : -EDQUOT);
		return;
	}
	if (q->tries >= 2 || q->deadline <= now) {
		answer(n, request, q->tries >= 2 ? -EIO : -ETIMEDOUT);
		return;
	}
	unsigned at = 0;
	while (at < n->n_queued && n->requests[n->queue[at]].token &&
	       n->requests[n->queue[at]].token < q->token)
		at++;
	queue_insert(n, at, (unsigned)request);
}

static void retry(struct naive *n, int request, int result, int64_t now)
{
	n->requests[request].tries += result != -ECHILD && result != -EOWNERDEAD; /* it has ended */
	come_back(n, request, now);
	if (queue_find(n, request) < 0)
		return;
	serve(n, now);
	refuse_if_once(n, request);
}

/* --- the size of the pool --- */

static struct naive_agent *idle_longest(struct naive *n)
{
	struct naive_agent *oldest = NULL;
	for (unsigned i = 0; i < n->n_slots; i++) {
		struct naive_agent *a = &n->agents[i];
		if (a->state == AP_AGENT_IDLE && (!oldest || a->idle_order < oldest->idle_order))
			oldest = a;
	}
	return oldest;
}

static void shrink(struct naive *n, unsigned down_to, int64_t idle_since, int64_t now)
{
	struct naive_agent *a;
	while (live(n) > down_to && (a = idle_longest(n)) && a->idle_since <= idle_since)
		drain(n, a, now);
}

static void grow(struct naive *n, unsigned wanted, int64_t now)
{
	int host;
	while (live(n) < wanted && total(n) < n->limits.max_size &&
	       in_state(n, AP_AGENT_SPAWNING) < n->limits.max_spawning &&
	       (host = where_next(n, now)) >= 0) {
		struct naive_agent *a = &n->agents[n->free[--n->n_free]];
		*a = (struct naive_agent){.number = n->next_number++,
					  .host = (unsigned)host,
					  .request = -1,
					  .probation = true,
					  .started = now,
					  .idle_since = now};
		move(n, a, AP_AGENT_SPAWNING);
		begin(n, a, EFFECT_SPAWN, later(now, n->limits.spawn_timeout_ns));
	}
}

static unsigned clamp(const struct naive *n, unsigned size)
{
	if (size < n->limits.min_size)
		size = n->limits.min_size;
	return size > n->limits.max_size ? n->limits.max_size : size;
}

/* Who waits, and could be served by more agents, wherever they are. */
static unsigned served_soon(const struct naive *n)
{
	unsigned found = 0;
	for (unsigned i = 0; i < n->n_queued && !n->limited_until; i++)
		found += n->requests[n->queue[i]].host == 0 || n->requests[n->queue[i]].agent != 0;
	return found;
}

/* More agents that who waits for a host could have there now. */
static unsigned missing(const struct naive *n, int64_t now)
{
	unsigned found = 0;
	for (unsigned i = 0; i < n->n_hosts && !n->limited_until; i++) {
		struct naive copy = *n;
		unsigned may = misses(n, i);
		if (!may_start(&copy, i, now))
			continue;
		if (copy.hosts[i].breaker == BREAKER_HALF_OPEN && may > 1)
			may = 1;
		if (may > n->hosts[i].slots - there(n, i))
			may = n->hosts[i].slots - there(n, i);
		found += may;
	}
	return found;
}

static unsigned busy_now(const struct naive *n)
{
	return in_state(n, AP_AGENT_ACTIVE) + in_state(n, AP_AGENT_VALIDATING) + served_soon(n);
}

static unsigned wants_for_target(const struct naive *n)
{
	unsigned wanted = 0;
	while (wanted * n->limits.scaling.up_at < 100 * busy_now(n))
		wanted++;
	return wanted;
}

static unsigned wants_for_load(const struct naive *n)
{
	unsigned wanted = busy_now(n);
	while (wanted < n->load + sqrt(n->load))
		wanted++;
	return wanted;
}

/* What was three hundred seconds ago counts 1/e. */
static void average_load(struct naive *n, int64_t now)
{
	if (n->load_since == 0)
		n->load = busy_now(n);
	else
		n->load += (n->load_busy - n->load) *
			   (1 - exp(-(double)(now - n->load_since) / (300 * SECOND)));
	n->load_busy = busy_now(n);
	n->load_since = now;
}

static unsigned policy_wants(const struct naive *n)
{
	const struct scaling_limits *s = &n->limits.scaling;
	unsigned size = live(n), busy = busy_now(n);
	if (n->limits.policy == SCALING_TARGET) {
		unsigned wanted = wants_for_target(n);
		return clamp(n, size - wanted == 1 ? size : wanted);
	}
	if (n->limits.policy == SCALING_EWMA)
		return clamp(n, wants_for_load(n));
	if (n->limits.policy == SCALING_SPARE) {
		unsigned spare = busy < size ? size - busy : 0;
		if (spare < s->min_idle)
			spare = s->min_idle;
		else if (spare > s->max_idle)
			spare = s->max_idle;
		else
			return clamp(n, size);
		return clamp(n, busy + spare);
	}
	unsigned percent = size > 0 ? busy * 100 / size : busy > 0 ? 100 : 0;
	if (percent > s->up_at)
		return clamp(n, size + (served_soon(n) > 1 ? served_soon(n) : 1));
	return clamp(n, percent < s->down_at && size > 0 ? size - 1 : size);
}

/* Agents that idle for long are not needed over this size. */
static unsigned policy_keeps(const struct naive *n)
{
	if (n->limits.policy == SCALING_UTILIZATION)
		return clamp(n, 0);
	if (n->limits.policy == SCALING_TARGET)
		return clamp(n, wants_for_target(n));
	if (n->limits.policy == SCALING_EWMA)
		return clamp(n, wants_for_load(n));
	return clamp(n, in_state(n, AP_AGENT_ACTIVE) + in_state(n, AP_AGENT_VALIDATING) +
				n->limits.scaling.min_idle);
}

static void scale_automatically(struct naive *n, int64_t now)
{
	unsigned size = live(n), wanted = policy_wants(n);
	unsigned ready = in_state(n, AP_AGENT_SPAWNING) + in_state(n, AP_AGENT_RECYCLING);
	for (unsigned i = 0; i < n->n_slots; i++)
		ready += n->agents[i].state == AP_AGENT_IDLE && !n->agents[i].limited;
	if (served_soon(n) > ready && wanted < size + served_soon(n) - ready)
		wanted = size + served_soon(n) - ready;
	if (missing(n, now) > 0)
		wanted = (wanted < size ? size : wanted) + missing(n, now);
	if (wanted >= size) {
		n->low_since = NEVER;
		grow(n, wanted, now);
		return;
	}
	int64_t window = n->limits.scale_down_window_ns;
	if (window == 0) {
		shrink(n, wanted, NEVER, now);
		n->low_since = NEVER;
		return;
	}
	if (n->low_since == NEVER)
		n->low_since = now;
	if (later(n->low_since, window) <= now) {
		shrink(n, size - 1, NEVER, now);
		n->low_since = now;
	}
}

static void recycle_marked(struct naive *n, int64_t now)
{
	unsigned at_once = total(n) / 10 > 1 ? total(n) / 10 : 1;
	for (unsigned order = n->idle_order; order > 0; order--) /* last used first */
		for (unsigned i = 0; i < n->n_slots; i++) {
			struct naive_agent *a = &n->agents[i];
			if (a->state != AP_AGENT_IDLE || a->idle_order != order)
				continue;
			if (a->mark == ASKED ||
			    (a->mark == DUE && in_state(n, AP_AGENT_RECYCLING) < at_once))
				recycle(n, a, now);
		}
}

static bool any_marked(const struct naive *n)
{
	for (unsigned i = 0; i < n->n_slots; i++)
		if (n->agents[i].state == AP_AGENT_IDLE && n->agents[i].mark != UNMARKED)
			return true;
	return false;
}

/* Names of ranks instead of ever growing ones: so that a scan over them is short. */
static void idle_orders_compact(struct naive *n)
{
	unsigned next = 0;
	for (unsigned k = 0; k < n->n_slots; k++) {
		struct naive_agent *first = NULL;
		for (unsigned i = 0; i < n->n_slots; i++) {
			struct naive_agent *a = &n->agents[i];
			if (a->state == AP_AGENT_IDLE && a->idle_order > next &&
			    (!first || a->idle_order < first->idle_order))
				first = a;
		}
		if (!first)
			break;
		first->idle_order = ++next;
	}
	n->idle_order = next;
}

static void after_event(struct naive *n, int64_t now)
{
	serve(n, now);
	if (n->limits.policy == SCALING_EWMA)
		average_load(n, now);
	if (any_marked(n))
		recycle_marked(n, now);
	if (n->shutdown) {
		shrink(n, 0, NEVER, now);
	} else if (n->target >= 0) {
		n->low_since = NEVER;
		grow(n, (unsigned)n->target, now);
		shrink(n, (unsigned)n->target, NEVER, now);
	} else {
		scale_automatically(n, now);
		shrink(n, n->limits.max_size, NEVER, now);
	}
	bool any_open = false, any_way = live(n) > 0;
	for (unsigned i = 0; i < n->n_hosts; i++) {
		const struct naive_host *h = &n->hosts[i];
		bool open = h->breaker == BREAKER_OPEN;
		any_open |= h->state == AP_HOST_UP && open;
		any_way |= h->state == AP_HOST_UP && !open && there(n, i) < h->slots;
	}
	while (any_open && !any_way && n->n_queued > 0)
		refuse(n, 0, -EHOSTDOWN);
	idle_orders_compact(n);
}

/* --- events --- */

static struct naive_agent *by_number(struct naive *n, unsigned number)
{
	for (unsigned i = 0; i < n->n_slots; i++)
		if (n->agents[i].state != AP_AGENT_FREE && n->agents[i].number == number)
			return &n->agents[i];
	return NULL;
}

static int acquire(struct naive *n, const struct machine_request *asked, int request, int64_t now)
{
	if (n->closed)
		return -ESHUTDOWN;
	if (n->limits.spent)
		return -EDQUOT;
	if (asked->host && asked->host - 1 >= n->n_hosts)
		return -ENOENT;
	if (asked->agent) {
		struct naive_agent *a = by_number(n, asked->agent);
		if (!a || a->state == AP_AGENT_DRAINING || a->state == AP_AGENT_STOPPING)
			return -ENOENT;
		if (asked->host && asked->host - 1 != a->host)
			return -ENOENT;
	}
	if (asked->label.text[0] && label_known(n, asked->label.text))
		return -EEXIST;
	if (n->n_queued >= n->limits.max_waiting)
		return -EAGAIN;
	unsigned n_his = 0;
	for (unsigned i = 0; i < n->n_queued; i++)
		n_his += n->requests[n->queue[i]].uid == asked->uid;
	if (asked->uid != 0 && asked->uid != n->limits.owner &&
	    n_his >= n->limits.max_waiting_of_user)
		return -EAGAIN;
	struct naive_request *q = &n->requests[request];
	*q = (struct naive_request){.agent = asked->agent,
				    .host = asked->host,
				    .uid = asked->uid,
				    .affinity = asked->affinity,
				    .deadline = asked->deadline_ns,
				    .ttl = asked->ttl_ns,
				    .slot = -1,
				    .once = asked->once,
				    .open = true};
	memcpy(q->label, asked->label.text, sizeof q->label);
	while (!q->label[0] || (!asked->label.text[0] && label_known(n, q->label)))
		snprintf(q->label, sizeof q->label, "lease-%u", n->next_lease++);
	queue_insert(n, n->n_queued, (unsigned)request);
	if (q->once) {
		serve(n, now);
		refuse_if_once(n, request);
	}
	return 0;
}

static int cancel(struct naive *n, int request)
{
	struct naive_request *q = &n->requests[request];
	int at = queue_find(n, request);
	if (!q->open)
		return -EALREADY;
	if (at >= 0)
		refuse(n, (unsigned)at, -ECANCELED);
	else
		answer_of(n, &n->agents[q->slot], -ECANCELED);
	return 0;
}

static int release(struct naive *n, struct naive_agent *a, const struct machine_event *event,
		   int request, int64_t now)
{
	if (a->state != AP_AGENT_ACTIVE && a->state != AP_AGENT_QUARANTINED)
		return -ENOENT;
	if (a->leaving || (event->token && event->token != a->token))
		return -ESTALE;
	if (is_lost(n, a))
		return -EHOSTUNREACH;
	if (request >= 0)
		n->requests[request] =
			(struct naive_request){.slot = (int)(a - n->agents), .open = true};
	a->request = request;
	end_lease(n, a, event->discard, now);
	return 0;
}

static int renew(const struct naive *n, struct naive_agent *a, uint64_t token, int64_t now)
{
	if (a->state != AP_AGENT_ACTIVE || a->leaving || (token && token != a->token))
		return -ESTALE;
	if (a->ttl > 0 && !is_lost(n, a))
		a->until = later(now, a->ttl);
	return 0;
}

static int prompt(struct naive *n, struct naive_agent *a, uint64_t token, int64_t now)
{
	const int64_t day = 24 * 3600 * SECOND;
	if (a->state == AP_AGENT_FREE || (token && token != a->token))
		return -ESTALE;
	if (now - a->quota_from >= day)
		a->n_prompts = 0;
	if (n->limits.max_prompts > 0 && a->n_prompts >= n->limits.max_prompts)
		return -EDQUOT;
	if (a->n_prompts++ == 0)
		a->quota_from = now;
	(void)renew(n, a, token, now); /* an agent without a lease has nothing to renew */
	return 0;
}

static int limit(struct naive *n, struct naive_agent *a, const struct machine_event *event,
		 int64_t now)
{
	if (a->state == AP_AGENT_FREE)
		return -ENOENT;
	a->limited = event->on;
	if (event->everyone)
		n->limited_until = event->until_ns <= now ? 0 : event->until_ns;
	return 0;
}

static int kill_agent(struct naive *n, struct naive_agent *a, uint64_t token, int64_t now)
{
	if (a->state == AP_AGENT_FREE)
		return -ENOENT;
	if (token && token != a->token)
		return -ESTALE;
	if (is_lost(n, a))
		return -EHOSTUNREACH;
	if (a->state == AP_AGENT_VALIDATING)
		return -EBUSY;
	if (a->state == AP_AGENT_IDLE) {
		stop(n, a, now);
		return 0;
	}
	a->retire = true;
	if ((a->state == AP_AGENT_ACTIVE || a->state == AP_AGENT_QUARANTINED) && !a->leaving)
		end_lease(n, a, false, now);
	return 0;
}

static int ask_to_recycle(const struct naive *n, struct naive_agent *a, uint64_t token)
{
	if (a->state != AP_AGENT_FREE && token && token != a->token)
		return -ESTALE;
	if (is_lost(n, a))
		return -EHOSTUNREACH;
	switch (a->state) {
	case AP_AGENT_FREE:
		return -ENOENT;
	case AP_AGENT_RECYCLING:
		if (a->mark == UNMARKED)
			a->asked_again = true;
		return 0;
	case AP_AGENT_IDLE:
	case AP_AGENT_VALIDATING:
	case AP_AGENT_ACTIVE:
		a->mark = ASKED;
		return 0;
	default:
		return -EBUSY;
	}
}

static void spawned(struct naive *n, struct naive_agent *a, int result, int64_t now)
{
	if (result < 0) {
		stop(n, a, now);
		start_failed(n, a);
		return;
	}
	a->born = true;
	a->started = now; /* its probation begins with its life, however long the birth took */
	n->n_spawned++;
	settle(n, a, now);
}

/* The acquirer's fault, or one that any agent would have. */
static bool is_well(int result)
{
	return result == -EBUSY || result == -EINVAL || result == -EEXIST || result == -ENOSPC ||
	       result == -EROFS || result == -ESRCH;
}

static void validated(struct naive *n, struct naive_agent *a, int result, int64_t now)
{
	int request = a->request;
	if (result == 0) {
		move(n, a, AP_AGENT_ACTIVE);
		if (request < 0) {
			end_lease(n, a, false, now);
			return;
		}
		a->n_served++;
		n->n_grants++;
		a->until = a->ttl > 0 ? later(now, a->ttl) : NEVER;
		answer_of(n, a, 0);
		return;
	}
	a->request = -1;
	clear_lease(a);
	if (is_well(result)) {
		answer(n, request, result);
		settle(n, a, now);
		return;
	}
	sicken(n, a, result, now);
	if (request >= 0)
		retry(n, request, result, now);
}

static void saved(struct naive *n, struct naive_agent *a, int result, int64_t now)
{
	answer_of(n, a, result);
	if (result < 0 && !is_well(result)) {
		a->probation = a->leaving = a->retire = false;
		a->mark = UNMARKED;
		a->token = 0;
		move(n, a, AP_AGENT_QUARANTINED);
		if (n->shutdown && !is_lost(n, a))
			let_go(n, a, now);
		return;
	}
	clear_lease(a);
	if (is_lost(n, a)) {
		a->retire |= a->state == AP_AGENT_QUARANTINED;
		lose(n, a);
	} else if (a->retire || a->state == AP_AGENT_QUARANTINED) {
		stop(n, a, now);
	} else if (n->shutdown || is_to_leave(n, a)) {
		drain(n, a, now);
	} else {
		proved(n, a);
		mark_if_due(n, a, now);
		if (a->mark != UNMARKED)
			recycle(n, a, now);
		else
			clean(n, a, UNMARKED, now);
	}
}

static void recycled(struct naive *n, struct naive_agent *a, int result, int64_t now)
{
	if (result < 0) {
		stop(n, a, now);
		start_failed(n, a);
		return;
	}
	if (a->mark != UNMARKED) {
		a->mark = UNMARKED;
		a->n_recycles++;
		n->n_recycled++;
		a->n_served = a->n_over = 0;
		a->hot = false;
		a->probation = true;
		a->started = now;
	}
	bool again = a->asked_again;
	a->asked_again = false;
	settle(n, a, now);
	if (again && a->state == AP_AGENT_IDLE && n->suspended)
		a->mark = ASKED;
	else if (again && a->state == AP_AGENT_IDLE)
		recycle(n, a, now);
}

static void stopped(struct naive *n, struct naive_agent *a)
{
	unsigned number = a->number;
	n->n_terminated += a->born;
	*a = (struct naive_agent){.state = AP_AGENT_FREE, .request = -1, .until = NEVER};
	n->free[n->n_free++] = (unsigned)(a - n->agents);
	for (unsigned i = 0; i < n->n_queued;)
		if (n->requests[n->queue[i]].agent == number)
			refuse(n, i, -ENOENT);
		else
			i++;
}

static void probed(struct naive *n, struct naive_agent *a, const struct machine_event *event,
		   int64_t now)
{
	const struct recycling_limits *limits = &n->limits.recycling;
	a->probe = 0;
	if (event->result < 0) {
		if (a->state == AP_AGENT_IDLE)
			sicken(n, a, event->result, now);
		return;
	}
	bool over = limits->max_memory > 0 && event->memory > limits->max_memory;
	a->n_over = over ? a->n_over + 1 : 0;
	a->hot = limits->max_cpu > 0 && event->cpu > limits->max_cpu;
	mark_if_due(n, a, now);
}

static void exited(struct naive *n, struct naive_agent *a, int result, int64_t now)
{
	switch (a->state) {
	case AP_AGENT_IDLE:
		sicken(n, a, result, now);
		break;
	case AP_AGENT_SPAWNING:
	case AP_AGENT_RECYCLING:
		if (a->probation && !a->retire && result != -EOWNERDEAD)
			start_failed(n, a);
		a->retire = true;
		break;
	case AP_AGENT_VALIDATING:
		if (a->probation && result != -EOWNERDEAD)
			start_failed(n, a);
		a->probation = false;
		break;
	case AP_AGENT_ACTIVE:
		a->probation = false;
		break;
	default:
		break;
	}
}

static void overdue(struct naive *n, struct naive_agent *a, int64_t now)
{
	switch (a->state) {
	case AP_AGENT_SPAWNING:
		spawned(n, a, -ETIMEDOUT, now);
		break;
	case AP_AGENT_VALIDATING:
		validated(n, a, -ETIMEDOUT, now);
		break;
	case AP_AGENT_ACTIVE:
		if (a->leaving)
			saved(n, a, -ETIMEDOUT, now);
		else
			end_lease(n, a, false, now);
		break;
	case AP_AGENT_QUARANTINED:
		saved(n, a, -ETIMEDOUT, now);
		break;
	case AP_AGENT_RECYCLING:
		recycled(n, a, -ETIMEDOUT, now);
		break;
	case AP_AGENT_DRAINING:
		stop(n, a, now);
		break;
	default:
		a->until = later(now, 120 * SECOND);
	}
}

static void pass(struct naive *n, int64_t now)
{
	if (n->suspended)
		return;
	if (n->limits.pass_ns == 0) {
		bool quiet = n->n_begun == n->begun_at_pass;
		n->n_quiet = quiet ? n->n_quiet + 1 : 0;
		if (!quiet)
			n->pass /= 2;
		else if (n->n_quiet >= 3)
			n->pass = n->pass / 2 * 3;
		n->pass = n->pass < SECOND ? SECOND : n->pass;
		n->pass = n->pass > 120 * SECOND ? 120 * SECOND : n->pass;
		n->begun_at_pass = n->n_begun;
	}
	n->pass_due = later(now, n->limits.pass_ns ? n->limits.pass_ns : n->pass);
	if (n->limits.idle_timeout_ns > 0 && n->n_queued == 0 && n->target < 0)
		shrink(n, policy_keeps(n), now - n->limits.idle_timeout_ns, now);
	for (unsigned i = 0; i < n->n_slots; i++) {
		struct naive_agent *a = &n->agents[i];
		if ((a->state != AP_AGENT_IDLE && a->state != AP_AGENT_ACTIVE) || is_lost(n, a))
			continue;
		effect(n, a, EFFECT_PROBE);
		a->probe = PENDING;
	}
}

static void time_passes(struct naive *n, int64_t now)
{
	if (now >= n->limited_until)
		n->limited_until = 0;
	for (unsigned i = 0; i < n->n_queued;)
		if (n->requests[n->queue[i]].deadline <= now)
			refuse(n, i, -ETIMEDOUT);
		else
			i++;
	for (unsigned i = 0; i < n->n_slots; i++) {
		struct naive_agent *a = &n->agents[i];
		bool rests = a->state == AP_AGENT_IDLE ||
			     ((a->state == AP_AGENT_ACTIVE || a->state == AP_AGENT_QUARANTINED) &&
			      !a->leaving);
		if ((n->suspended && rests) || is_lost(n, a))
			continue;
		if (a->until <= now)
			overdue(n, a, now);
		if (a->state == AP_AGENT_VALIDATING && a->request >= 0 &&
		    n->requests[a->request].deadline <= now)
			answer_of(n, a, -ETIMEDOUT);
		if (a->state != AP_AGENT_IDLE && a->state != AP_AGENT_ACTIVE)
			continue;
		if (a->started + 5 * SECOND <= now)
			proved(n, a);
		if (expiry(n, a) <= now)
			mark_if_due(n, a, now);
	}
	if (n->pass_due <= now)
		pass(n, now);
}

static void close_pool(struct naive *n)
{
	n->closed = true;
	while (n->n_queued > 0)
		refuse(n, 0, -ESHUTDOWN);
}

static void shut_one_down(struct naive *n, struct naive_agent *a, int64_t now)
{
	if (a->state == AP_AGENT_ACTIVE && !a->leaving)
		end_lease(n, a, false, now);
	else if (a->state == AP_AGENT_QUARANTINED && !a->leaving)
		let_go(n, a, now);
}

static void shut_down(struct naive *n, int64_t now)
{
	close_pool(n);
	n->shutdown = true;
	for (unsigned i = 0; i < n->n_slots; i++) {
		struct naive_agent *a = &n->agents[i];
		if (a->state == AP_AGENT_VALIDATING)
			answer_of(n, a, -ESHUTDOWN);
		else if (!is_lost(n, a))
			shut_one_down(n, a, now);
	}
}

static int configure(struct naive *n, int64_t now)
{
	const struct machine_limits *l = &n->limits;
	int64_t due = later(now, l->pass_ns ? l->pass_ns : n->pass);
	if (due < n->pass_due)
		n->pass_due = due;
	if (n->target >= 0)
		n->target = (int)clamp(n, (unsigned)n->target);
	if (n->limits.policy != SCALING_EWMA) {
		n->load = 0;
		n->load_since = 0;
	}
	time_passes(n, now);
	return 0;
}

static int scale(struct naive *n, int target)
{
	if (target >= 0 && (target < (int)n->limits.min_size || target > (int)n->limits.max_size))
		return -ERANGE;
	n->target = target;
	return 0;
}

static void take_back(struct naive *n, struct naive_agent *a, int64_t now)
{
	if (a->retire || !a->born) {
		stop(n, a, now);
	} else if (n->shutdown || is_to_leave(n, a)) {
		drain(n, a, now);
	} else {
		clean(n, a, UNMARKED, now);
		n->effects[n->n_effects - 1].restart = true;
	}
}

/* What is idle and has to leave does, longest idle first; what was lost and is not any more begins
 * anew, or ends. */
static void catch_up(struct naive *n, int64_t now)
{
	if (n->suspended)
		return;
	for (unsigned order = 0; order <= n->idle_order; order++)
		for (unsigned i = 0; i < n->n_slots; i++) {
			struct naive_agent *a = &n->agents[i];
			if (a->state == AP_AGENT_IDLE && a->idle_order == order &&
			    is_to_leave(n, a))
				drain(n, a, now);
		}
	for (unsigned order = n->lost_order; order > 0; order--)
		for (unsigned i = 0; i < n->n_slots; i++) {
			struct naive_agent *a = &n->agents[i];
			if (a->state == AP_AGENT_LOST && a->lost_order == order && !is_lost(n, a))
				take_back(n, a, now);
		}
}

/* An agent from before takes a free slot, idle or with its lease. */
static int take_up(struct naive *n, struct naive_agent *a, const struct machine_adoption *from,
		   int64_t now)
{
	if (from->host >= n->n_hosts)
		return -EINVAL;
	if (a->state != AP_AGENT_FREE)
		return -EBUSY;
	if (by_number(n, from->number) || (*from->label && label_known(n, from->label)))
		return -EEXIST;
	if (n->hosts[from->host].state < AP_HOST_UP) /* nothing can live there */
		return -EHOSTDOWN;
	for (unsigned i = 0; i < n->n_free; i++)
		if (n->free[i] == (unsigned)(a - n->agents)) {
			memmove(&n->free[i], &n->free[i + 1],
				(n->n_free - i - 1) * sizeof n->free[0]);
			n->n_free--;
			break;
		}
	a->number = from->number;
	a->host = from->host;
	if (n->next_number <= a->number)
		n->next_number = a->number + 1;
	a->n_recycles = from->n_recycles;
	a->n_served = from->n_served;
	a->started = from->started_ns;
	a->idle_since = now;
	a->born = true;
	n->n_spawned += n->n_terminated == 0;
	n->n_terminated -= n->n_terminated > 0;
	bool lost = n->hosts[a->host].state == AP_HOST_LOST;
	a->lost_order = ++n->lost_order;
	move(n, a, *from->label ? AP_AGENT_ACTIVE : lost ? AP_AGENT_LOST : AP_AGENT_IDLE);
	if (!*from->label) {
		catch_up(n, now);
		return 0;
	}
	snprintf(a->label, sizeof a->label, "%s", from->label);
	snprintf(a->last_label, sizeof a->last_label, "%s", from->label);
	a->lease_order = ++n->lease_order;
	a->token = from->token;
	a->affinity = from->affinity;
	a->ttl = from->ttl_ns;
	a->until = a->ttl && !lost ? later(now, a->ttl) : NEVER;
	if (n->next_token <= a->token)
		n->next_token = a->token + 1;
	catch_up(n, now);
	return 0;
}

/* A host stands otherwise from now on. */
static int host_changes(struct naive *n, const struct machine_event *event, int64_t now)
{
	if (event->host >= n->n_hosts || event->host_state >= AP_N_HOST_STATES)
		return -EINVAL;
	struct naive_host *h = &n->hosts[event->host];
	bool was_lost = h->state == AP_HOST_LOST;
	h->state = event->host_state;
	h->slots = event->slots;
	h->warm = event->warm;
	bool dead = h->state == AP_HOST_DOWN || h->state == AP_HOST_PENDING;
	for (unsigned i = 0; i < n->n_slots; i++) {
		struct naive_agent *a = &n->agents[i];
		if (a->state == AP_AGENT_FREE || a->host != event->host)
			continue;
		int request = a->state == AP_AGENT_VALIDATING ? a->request : -1;
		if (dead || h->state == AP_HOST_LOST) {
			a->until = NEVER;
			if (request >= 0)
				come_back(n, request, now);
			if (a->state == AP_AGENT_VALIDATING) {
				a->request = -1;
				clear_lease(a);
			}
		}
		if (dead) {
			answer_of(n, a, -EHOSTDOWN);
			stopped(n, a);
		} else if (h->state == AP_HOST_LOST) {
			if (a->state == AP_AGENT_IDLE || a->state == AP_AGENT_SPAWNING ||
			    a->state == AP_AGENT_VALIDATING || a->state == AP_AGENT_RECYCLING)
				lose(n, a);
		} else if (was_lost) {
			int64_t span = a->state == AP_AGENT_DRAINING   ? 60 * SECOND
				       : a->state == AP_AGENT_STOPPING ? 120 * SECOND
								       : 600 * SECOND;
			if (a->awaited)
				a->until = later(now, span);
			else if (n->shutdown)
				shut_one_down(n, a, now);
			else if (a->state == AP_AGENT_ACTIVE && a->ttl)
				a->until = later(now, a->ttl);
		}
	}
	serve(n, now);
	for (int i = 0; i < N_REQUESTS; i++)
		refuse_if_once(n, i);
	catch_up(n, now);
	return 0;
}

static void restore(struct naive *n, const struct machine_restored *r)
{
	n->next_number = r->next_number > n->next_number ? r->next_number : n->next_number;
	n->next_token = r->next_token > n->next_token ? r->next_token : n->next_token;
	n->next_lease = r->next_lease > n->next_lease ? (unsigned)r->next_lease : n->next_lease;
	n->n_grants += r->n_grants;
	n->n_recycled += r->n_recycled;
	n->n_spawned += r->n_spawned;
	n->n_terminated += r->n_spawned; /* until they are adopted */
}

static int handle(struct naive *n, const struct machine_event *event, int request, int64_t now)
{
	struct naive_agent *a = &n->agents[event->slot];
	if (event->type >= MACHINE_SPAWNED && event->type <= MACHINE_STOPPED &&
	    (event->effect == 0 || event->effect != a->awaited))
		return -ESTALE;
	switch (event->type) {
	case MACHINE_ADOPT:
		return take_up(n, a, event->adoption, now);
	case MACHINE_RESTORE:
		restore(n, event->restored);
		return 0;
	case MACHINE_SUSPEND:
		n->suspended = true;
		return 0;
	case MACHINE_RESUME:
		n->suspended = false;
		catch_up(n, now);
		time_passes(n, now);
		return 0;
	case MACHINE_ACQUIRE:
		return acquire(n, event->request, request, now);
	case MACHINE_CANCEL:
		return cancel(n, request);
	case MACHINE_RELEASE:
		return release(n, a, event, request, now);
	case MACHINE_RENEW:
		return renew(n, a, event->token, now);
	case MACHINE_PROMPT:
		return prompt(n, a, event->token, now);
	case MACHINE_LIMIT:
		return limit(n, a, event, now);
	case MACHINE_KILL:
		return kill_agent(n, a, event->token, now);
	case MACHINE_RECYCLE:
		return ask_to_recycle(n, a, event->token);
	case MACHINE_SPAWNED:
		spawned(n, a, event->result, now);
		return 0;
	case MACHINE_VALIDATED:
		validated(n, a, event->result, now);
		return 0;
	case MACHINE_SAVED:
		saved(n, a, event->result, now);
		return 0;
	case MACHINE_RECYCLED:
		recycled(n, a, event->result, now);
		return 0;
	case MACHINE_DRAINED:
		if (is_lost(n, a)) {
			a->retire = true;
			lose(n, a);
		} else {
			stop(n, a, now);
		}
		return 0;
	case MACHINE_STOPPED:
		stopped(n, a);
		return 0;
	case MACHINE_PROBED:
		if (event->effect == 0 || event->effect != a->probe)
			return -ESTALE;
		probed(n, a, event, now);
		return 0;
	case MACHINE_EXITED:
		exited(n, a, event->result, now);
		return 0;
	case MACHINE_TIMER:
		time_passes(n, now);
		return 0;
	case MACHINE_PASS:
		pass(n, now);
		return 0;
	case MACHINE_CONFIG:
		if (event->limits)
			n->limits = *event->limits;
		while (n->limits.spent && n->n_queued > 0)
			refuse(n, 0, -EDQUOT);
		return configure(n, now);
	case MACHINE_SCALE:
		return scale(n, event->target);
	case MACHINE_DRAIN:
		shrink(n, n->limits.min_size, NEVER, now);
		return 0;
	case MACHINE_CLOSE:
		close_pool(n);
		return 0;
	case MACHINE_OPEN:
		if (n->shutdown || n->suspended)
			return -ESHUTDOWN;
		n->closed = false;
		return 0;
	case MACHINE_RESET_BREAKER:
		for (unsigned i = 0; i < n->n_hosts; i++)
			breaker_close(&n->hosts[i]);
		return 0;
	case MACHINE_HOST:
		return host_changes(n, event, now);
	case MACHINE_SHUTDOWN:
		shut_down(n, now);
		return 0;
	case N_MACHINE_EVENTS:
		break;
	}
	return -ENOSYS;
}

void naive_step(struct naive *n, const struct machine_event *event, int request, int64_t now)
{
	n->n_effects = 0;
	memset(n->answered, 0, sizeof n->answered);
	n->result = handle(n, event, request, now);
	/* a holder's own affairs: no one else is served or scaled for them */
	bool own = event->type == MACHINE_RELEASE || event->type == MACHINE_RENEW ||
		   event->type == MACHINE_PROMPT || event->type == MACHINE_ADOPT ||
		   event->type == MACHINE_RESTORE;
	if (n->result == 0 && !own && !n->suspended)
		after_event(n, now);
}

void naive_init(struct naive *n, unsigned n_slots, unsigned n_hosts,
		const struct machine_limits *limits, uint32_t next_number, int64_t now)
{
	*n = (struct naive){
		.limits = *limits,
		.n_slots = n_slots,
		.n_hosts = n_hosts,
		.hosts[0] = {.state = AP_HOST_UP, .slots = n_slots},
		.target = -1,
		.next_number = next_number,
		.next_lease = 1,
		.next_token = 1,
		.low_since = NEVER,
		.pass = 30 * SECOND,
	};
	n->pass_due = later(now, limits->pass_ns ? limits->pass_ns : n->pass);
	for (unsigned i = 0; i < n_slots; i++) {
		n->agents[i] = (struct naive_agent){.request = -1, .until = NEVER};
		n->free[n->n_free++] = n_slots - 1 - i;
	}
}

/* --- comparison --- */

static const char *sentence(const char *format, ...) __attribute__((format(printf, 1, 2)));

static const char *sentence(const char *format, ...)
{
	static char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return text;
}

static const char *compare_answers(const struct naive *n, const struct machine_effects *fx,
				   const struct machine_request *requests)
{
	bool answered[N_REQUESTS] = {false};
	struct ap_list *at;
	ap_list_for_each (at, &fx->answered) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		unsigned i = (unsigned)(request - requests);
		answered[i] = true;
		if (!n->answered[i])
			return sentence("request %u is answered with %d, and should not be", i,
					request->result);
		if (n->answers[i] != request->result)
			return sentence("request %u is answered with %d, not %d", i,
					request->result, n->answers[i]);
	}
	for (unsigned i = 0; i < N_REQUESTS; i++)
		if (n->answered[i] && !answered[i])
			return sentence("request %u is not answered with %d", i, n->answers[i]);
	return NULL;
}

static const char *compare_effects(const struct naive *n, const struct machine_effects *fx)
{
	bool seen[6 * MAX_SLOTS] = {false};
	for (unsigned i = 0; i < n->n_effects; i++) {
		const struct naive_effect *e = &n->effects[i];
		unsigned k = 0;
		while (k < fx->n && (seen[k] || fx->at[k].type != e->type ||
				     fx->at[k].slot != e->slot || fx->at[k].discard != e->discard ||
				     fx->at[k].keep != e->keep || fx->at[k].restart != e->restart))
			k++;
		if (k == fx->n)
			return sentence("no effect of type %d for agent-%u, discard %d, keep %d, "
					"restart %d",
					e->type, e->number, e->discard, e->keep, e->restart);
		seen[k] = true;
	}
	for (unsigned k = 0; k < fx->n; k++)
		if (!seen[k])
			return sentence("an effect of type %d for slot %u is one too many",
					fx->at[k].type, fx->at[k].slot);
	return NULL;
}

static const char *compare_agents(const struct naive *n, const struct machine_view *m)
{
	for (unsigned i = 0; i < n->n_slots; i++) {
		const struct naive_agent *a = &n->agents[i];
		const struct machine_slot *slot = &m->slots[i];
		if (a->state != slot->state || a->number != slot->number)
			return sentence("slot %u holds agent-%u in state %d, not agent-%u in %d", i,
					slot->number, slot->state, a->number, a->state);
		if (strcmp(a->label, slot->label.text) != 0)
			return sentence("agent-%u has label '%s', not '%s'", a->number,
					slot->label.text, a->label);
		if (a->state != AP_AGENT_FREE && a->host != slot->host)
			return sentence("agent-%u is on host %u, not %u", a->number, slot->host,
					a->host);
		if (a->token != slot->token)
			return sentence("agent-%u has token %lu, not %lu", a->number,
					(unsigned long)slot->token, (unsigned long)a->token);
		if (a->until != slot->deadline_ns)
			return sentence("agent-%u has deadline %ld, not %ld", a->number,
					(long)slot->deadline_ns, (long)a->until);
		if (a->probation == slot->proven || a->born != slot->born ||
		    a->leaving != !!slot->leaving)
			return sentence("agent-%u: %sproven, not %sproven; or born, leaving",
					a->number, slot->proven ? "" : "un",
					a->probation ? "un" : "");
		if (a->limited != slot->limited)
			return sentence("agent-%u is %slimited", a->number,
					slot->limited ? "" : "not ");
		if ((a->mark != UNMARKED) != !!slot->recycle)
			return sentence("agent-%u is %smarked to be recycled", a->number,
					slot->recycle ? "" : "not ");
		if (a->n_prompts != slot->n_prompts && m->limits.max_prompts > 0 &&
		    a->quota_from == slot->quota_from_ns)
			return sentence("agent-%u has %u prompts, not %u", a->number,
					slot->n_prompts, a->n_prompts);
	}
	return NULL;
}

static const char *compare_queue(const struct naive *n, const struct machine_view *m,
				 const struct machine_request *requests)
{
	unsigned i = 0;
	struct ap_list *at;
	ap_list_for_each (at, &m->waiters) {
		const struct machine_request *request =
			ap_container_of(at, struct machine_request, link);
		if (i >= n->n_queued || request != &requests[n->queue[i]])
			return sentence("request %u is in the queue at %u, and should not be",
					(unsigned)(request - requests), i);
		if (strcmp(request->label.text, n->requests[n->queue[i]].label) != 0)
			return sentence("the acquirer at %u has label '%s', not '%s'", i,
					request->label.text, n->requests[n->queue[i]].label);
		i++;
	}
	return i == n->n_queued ? NULL : sentence("request %u is not in the queue", n->queue[i]);
}

static const char *compare_pool(const struct naive *n, const struct machine_view *m)
{
	if (m->n_grants != n->n_grants || m->n_recycled != n->n_recycled ||
	    m->n_spawned != n->n_spawned || m->n_terminated != n->n_terminated)
		return sentence("grants %lu %lu, recycled %lu %lu, spawned %lu %lu, terminated "
				"%lu %lu",
				(unsigned long)m->n_grants, (unsigned long)n->n_grants,
				(unsigned long)m->n_recycled, (unsigned long)n->n_recycled,
				(unsigned long)m->n_spawned, (unsigned long)n->n_spawned,
				(unsigned long)m->n_terminated, (unsigned long)n->n_terminated);
	if (m->target != n->target || m->closed != n->closed || m->shutdown != n->shutdown)
		return sentence("target %d, not %d; or closed, shutdown", m->target, n->target);
	if (m->limited_until_ns != n->limited_until)
		return sentence("the pool is limited until %ld, not %ld", (long)m->limited_until_ns,
				(long)n->limited_until);
	for (unsigned i = 0; i < n->n_hosts; i++) {
		const struct naive_host *h = &n->hosts[i];
		if (m->hosts[i].state != h->state || m->hosts[i].n_agents != there(n, i))
			return sentence("host %u is %s with %u agents, not %s with %u", i,
					ap_host_state_name(m->hosts[i].state), m->hosts[i].n_agents,
					ap_host_state_name(h->state), there(n, i));
		if (m->hosts[i].breaker.state != h->breaker)
			return sentence("the breaker of host %u is %s, not %s", i,
					breaker_state_name(m->hosts[i].breaker.state),
					breaker_state_name(h->breaker));
	}
	if (m->pass_due_ns != n->pass_due)
		return sentence("the next pass is at %ld, not %ld", (long)m->pass_due_ns,
				(long)n->pass_due);
	if (m->low_since_ns != n->low_since)
		return sentence("the pool is too large since %ld, not %ld", (long)m->low_since_ns,
				(long)n->low_since);
	return NULL;
}

static void adopt(struct naive *n, const struct machine_view *m, const struct machine_effects *fx)
{
	for (unsigned k = 0; k < fx->n; k++) {
		struct naive_agent *a = &n->agents[fx->at[k].slot];
		if (fx->at[k].type == EFFECT_PROBE && a->probe == PENDING)
			a->probe = fx->at[k].id;
		else if (fx->at[k].type != EFFECT_PROBE && a->awaited == PENDING)
			a->awaited = fx->at[k].id;
	}
	for (unsigned i = 0; i < n->n_slots; i++)
		n->agents[i].jitter = m->slots[i].jitter;
	for (unsigned i = 0; i < n->n_hosts; i++)
		n->hosts[i].retry = m->hosts[i].breaker.retry_ns;
}

const char *naive_compare(struct naive *n, const struct machine_view *m, int result,
			  const struct machine_effects *fx, const struct machine_request *requests)
{
	if (result != n->result)
		return sentence("the event returns %d, not %d", result, n->result);
	const char *difference = compare_answers(n, fx, requests);
	if (!difference)
		difference = compare_agents(n, m);
	if (!difference)
		difference = compare_effects(n, fx);
	if (!difference)
		difference = compare_queue(n, m, requests);
	if (!difference)
		difference = compare_pool(n, m);
	if (!difference)
		adopt(n, m, fx);
	return difference;
}
