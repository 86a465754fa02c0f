/* The pool as a pure function: machine_step(machine, event, now) changes the state and names the
 * effects, which the caller carries out. No thread, clock, I/O, lock or allocation in here, so the
 * daemon, the tests and a replay run the same code.
 *
 * Agents live on hosts. MACHINE_HOST says how a host stands; the machine decides what that means
 * for its agents. Nothing begins on a host that is lost, and nothing times out there.
 *
 * Every agent is in a slot, every slot in exactly one list, that of its state; the counts are the
 * lengths of the lists. Only slot_move() moves a slot and changes the counts; only reserve() gives
 * an agent to an acquirer; only reconcile() sizes the pool. A state that waits for an effect has an
 * absolute deadline, and one successor that the slot moves to then. The outcome of an effect comes
 * back as an event that names slot and effect; the machine refuses a late outcome with -ESTALE. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "breaker.h"
#include "list.h"
#include "placement.h"
#include "reason.h"
#include "recycling.h"
#include "scaling.h"
#include "states.h"
#include "text.h"

/* The part of the configuration that the machine obeys. */
struct machine_limits {
	unsigned min_size, max_size; /* kept at least; never exceeded, not for a moment */
	unsigned max_spawning;
	unsigned max_waiting; /* acquirers in the queue; may fall after machine_new(), not rise */
	unsigned max_waiting_of_user; /* acquirers of one user in the queue; root and `owner` are
				       * exempt */
	uid_t owner;
	unsigned max_prompts; /* to one agent in 24 h; 0: no limit */
	enum scaling_policy_id policy;
	struct scaling_limits scaling;
	struct recycling_limits recycling;
	enum placement_policy_id placement;
	int64_t scale_down_window_ns;
	int64_t idle_timeout_ns;  /* 0: never */
	int64_t spawn_timeout_ns; /* of validating and recycling, too */
	int64_t pass_ns;	  /* between maintenance passes; 0: adapted, see pass_interval() */
	bool keep_program;	  /* the agent's program keeps running when a lease ends */
	bool spent;		  /* nothing more is granted: acquirers get -EDQUOT */
};

/* A label in the machine's index: an acquirer's in the queue, or a slot's. */
struct machine_label {
	struct ap_list link;
	uint32_t hash; /* of the text, while it is in the index */
	bool in_slot;  /* in the index behind the end of the lease too, without its text */
	char text[AP_LABEL_MAX + 1];
};

/* A user who has acquirers in the queue. */
struct machine_user {
	uid_t uid;
	unsigned n_waiting; /* 0: the place is free */
};

enum machine_request_state {
	REQUEST_NEW,
	REQUEST_WAITING,    /* in the queue of acquirers */
	REQUEST_VALIDATING, /* an agent is reserved and being made ready */
	REQUEST_RELEASING,  /* the lease that it ends is being saved */
	REQUEST_ANSWERED,
};

/* One acquire or release under way. The caller owns its memory, and leaves it alone from the event
 * that brings it in until the machine lists it in machine_effects.answered. */
struct machine_request {
	/* of an acquirer: the caller sets them; the machine invents a label for an empty one */
	struct machine_label label;
	unsigned agent;	   /* number of the only agent that will do; 0: any */
	unsigned host;	   /* index + 1 of the only host that will do; 0: any */
	uint64_t affinity; /* hash of a key: prefers an agent that last served this key; 0: none */
	int64_t deadline_ns; /* when the machine refuses it, unless granted before; AP_FOREVER with
			      * `once` */
	bool once; /* -EAGAIN unless an agent is idle now; waits while that agent is validated */
	int64_t ttl_ns; /* of the lease; 0: without end */
	uid_t uid;
	pid_t pid;
	bool by_handle;
	/* the machine sets these */
	struct ap_list link; /* queue of acquirers, or answered */
	struct ap_list turn; /* in the queue: `anyone`, or `waiters` of the agent or host wanted */
	uint64_t arrival;    /* in the queue: order of arrival */
	enum machine_request_state state;
	unsigned n_tries; /* agents that failed under this request; not counted: a program that
			     ended */
	/* the answer */
	int result; /* 0 or negative errno */
	unsigned slot;
	uint64_t token; /* fencing token of the lease granted; drawn when an agent is first
			 * reserved, and kept on a retry: retried requests queue by it */
};

struct machine_slot {
	struct ap_list link;	    /* list of its state */
	struct machine_label
		label; /* of the lease; without one empty, but for the last one's hash */
	struct ap_list waiters;	    /* requests that want this agent, in their order */
	struct machine_request
		*request;  /* the acquire or release under way; NULL: none, or it gave up */
	uint64_t token;	   /* of the lease, strictly increasing over all of a pool; 0: none */
	uint64_t affinity; /* of the last lease that had an affinity */
	int64_t granted_ns, ttl_ns;
	int64_t deadline_ns; /* of the effect that the state waits for; ACTIVE: the lease's end */
	int64_t created_ns, used_ns, started_ns; /* spawn; last became idle; start of generation */
	int64_t quota_from_ns;			 /* when its 24 h of prompts began */
	uint32_t number;			 /* of the name agent-N; never used twice */
	uint32_t generation;			 /* goes up with every recycling */
	uint32_t effect, probe; /* ids of those under way whose outcome is awaited; 0: none */
	uint32_t n_requests;	/* leases served */
	uint32_t n_served;	/* leases served in this generation */
	uint32_t n_recycles, n_prompts;
	uid_t uid;
	pid_t pid;
	uint16_t host;	       /* where it lives, unless FREE */
	uint16_t jitter;       /* of this generation's age limit */
	uint8_t state;	       /* enum ap_agent_state */
	uint8_t recycle;       /* enum ap_reason: marked to be recycled; 0: not */
	uint8_t retire;	       /* enum ap_reason: to be stopped at the next chance; 0: not */
	uint8_t leaving;       /* enum ap_reason: why its lease ends; 0: it does not */
	uint8_t n_memory_over; /* samples in a row */
	bool by_handle : 1;
	bool proven : 1; /* not on probation: its start succeeded, or does not count any more */
	bool born : 1;	 /* counted in n_spawned; counts in n_terminated when it ends */
	bool cpu_over : 1;
	bool recycle_next : 1; /* RECYCLING after a lease: a user wants it recycled next */
	bool limited : 1;      /* its program has reached a usage limit: granted to nobody */
};

/* A place where agents live. */
struct machine_host {
	struct ap_list up;	/* in view.up while UP */
	struct ap_list room;	/* in view.room while UP and n_agents < slots */
	struct ap_list waiters; /* requests that want this host, in their order */
	unsigned n_waiting;	/* of them */
	unsigned slots;	     /* the most agents there; what a lower one exceeds leaves when idle */
	unsigned n_agents;   /* slots of the machine in use there */
	unsigned n_ending;   /* of them, those that are DRAINING or STOPPING */
	unsigned n_unproven; /* of them, those on probation */
	struct breaker breaker; /* on spawning there */
	enum ap_host_state state;
	bool warm; /* it has the template: agents begin fast */
};

enum machine_effect_type {
	EFFECT_SPAWN,	 /* create the worktree, start the program -> SPAWNED */
	EFFECT_VALIDATE, /* check health; put its worktree on the label's branch -> VALIDATED */
	EFFECT_SAVE,	 /* commit the lease's work to its branch -> SAVED */
	EFFECT_RECYCLE,	 /* clean the worktree for the next lease -> RECYCLED */
	EFFECT_DRAIN,	 /* end the program in order -> DRAINED */
	EFFECT_STOP,	 /* kill what is left of it, remove the worktree -> STOPPED */
	EFFECT_PROBE,	 /* measure health and usage, beside any other effect -> PROBED */
	N_EFFECTS,
};

struct machine_effect {
	enum machine_effect_type type;
	unsigned slot;
	uint32_t id;  /* its outcome names it */
	bool discard; /* SAVE: throw the work away */
	bool keep;    /* STOP: keep the worktree */
	bool restart; /* SAVE: end the program first; RECYCLE: restart it */
};

struct machine_move {
	unsigned slot;
	enum ap_agent_state from, to;
	enum ap_reason reason;
};

struct machine_effects {
	struct ap_list answered; /* requests whose answer is known, in order */
	unsigned n, n_moves;
	struct machine_effect *at;  /* room for machine_max_effects() */
	struct machine_move *moves; /* room for as many: every change of state, in order */
};

/* An agent that an earlier daemon left running. */
struct machine_adoption {
	unsigned host; /* index */
	uint32_t number, generation, n_recycles, n_requests, n_served;
	int64_t created_ns, started_ns;
	/* the lease that the agent serves; an empty label: none */
	const char *label;
	uint64_t token, affinity;
	uid_t uid;
	pid_t pid;
	bool by_handle;
	int64_t granted_ns, ttl_ns; /* its time to live begins again at the adoption */
};

/* The result of an agent whose program somebody has killed: its start does not count as a failure.
 */
#define MACHINE_KILLED (-EOWNERDEAD)

/* Counters and next numbers of an earlier daemon. */
struct machine_restored {
	uint32_t next_number;		 /* of an agent; ignored if lower than the machine's */
	uint64_t next_token, next_lease; /* likewise */
	uint64_t n_grants, n_recycled;	 /* added to the counters */
	uint64_t n_spawned;		 /* likewise; counts as terminated, less one per ADOPT */
};

enum machine_event_type {
	MACHINE_RESTORE, /* restored */
	MACHINE_ADOPT,	 /* slot, which is free; adoption */
	MACHINE_ACQUIRE, /* request */
	MACHINE_CANCEL,	 /* request: -EALREADY if it is new or answered */
	MACHINE_RELEASE, /* slot, token (0: whatever lease it has), reason, discard, request or NULL
			  */
	MACHINE_RENEW,	 /* slot, token: the lease's time to live begins again */
	MACHINE_PROMPT,	 /* slot, token: counts against the agent's quota; renews the lease */
	MACHINE_KILL,	 /* slot, token */
	MACHINE_RECYCLE, /* slot, token: an idle agent at once, else when its lease ends */
	MACHINE_SPAWNED, /* slot, effect, result; likewise the next six */
	MACHINE_VALIDATED, /* and granted_ns */
	MACHINE_SAVED,
	MACHINE_RECYCLED,
	MACHINE_DRAINED,
	MACHINE_STOPPED,
	MACHINE_PROBED, /* and memory, cpu_over */
	MACHINE_LIMIT,	/* slot: its program has reached a usage limit (on), or that is over.
			 * everyone: the limit is the whole pool's, until until_ns */
	MACHINE_EXITED, /* slot: the program ended; result MACHINE_KILLED: somebody killed it */
	MACHINE_TIMER,	/* wake_ns is reached */
	MACHINE_PASS,	/* a maintenance pass now */
	MACHINE_CONFIG, /* limits; NULL: they stay as they are */
	MACHINE_SCALE,	/* target: a size, or -1 for automatic */
	MACHINE_DRAIN,	/* retire idle agents down to min_size */
	MACHINE_CLOSE,	/* refuse queued and new acquirers; a validation may still end in a grant */
	MACHINE_OPEN,
	MACHINE_RESET_BREAKER,
	MACHINE_SHUTDOWN, /* close, save every lease, stop every agent */
	MACHINE_SUSPEND,  /* start nothing by itself, whatever is due: agents stay as they are,
			   * acquirers wait */
	MACHINE_RESUME,
	MACHINE_HOST, /* host, host_state, slots, warm: how a host stands from now on */
	N_MACHINE_EVENTS,
};

struct machine_event {
	enum machine_event_type type;
	struct machine_request *request;
	const struct machine_adoption *adoption;
	const struct machine_restored *restored;
	const struct machine_limits *limits;
	unsigned slot;
	uint32_t effect;
	int result;
	uint64_t token;
	enum ap_reason reason; /* NONE: means AP_REASON_RELEASE */
	bool discard;
	int target;
	bool on, everyone;
	unsigned host, slots; /* index; the most agents there */
	enum ap_host_state host_state;
	bool warm;
	int64_t until_ns;
	int64_t granted_ns; /* when the store recorded the grant, not later than now; 0: now */
	uint64_t memory;    /* bytes */
	unsigned cpu;	    /* percent of one CPU, rounded up */
};

/* The readable state of a machine, between two steps: only the machine writes it. */
struct machine_view {
	struct machine_limits limits;
	const struct machine_slot *slots; /* n_slots of them */
	unsigned n_slots;
	const struct machine_host *hosts; /* n_hosts of them, at least one */
	unsigned n_hosts;
	struct ap_list up, room; /* hosts that are UP; of them, those with room for an agent */
	struct ap_list states[AP_N_AGENT_STATES]; /* slots by state; IDLE: last used first */
	unsigned n_in_state[AP_N_AGENT_STATES];
	unsigned n_marked; /* slots to be recycled */
	unsigned n_limited;
	int64_t limited_until_ns;      /* until then nobody is granted an agent; 0: no limit */
	struct ap_list waiters;	       /* requests in the order of the queue */
	struct ap_list anyone;	       /* the waiters that take any agent, in the same order */
	unsigned n_waiting;
	unsigned n_waiting_for_host; /* those that want a host, and any agent there */
	uint64_t next_arrival;
	int64_t waiters_due_ns; /* no waiter's deadline is earlier */
	struct ap_list *labels; /* n_labels buckets by hash; a power of two */
	unsigned n_labels;
	struct machine_user *users; /* that max_waiting_of_user bounds: n_user_places by hash */
	unsigned n_user_places;	    /* a power of two */
	int target;		  /* manual size; -1: automatic */
	struct scaling_load load; /* while the policy is ewma */
	bool closed, shutdown, suspended;
	uint32_t next_number, next_effect;
	uint64_t next_token, next_lease;
	uint32_t random;      /* state of the generator for jitter */
	int64_t wake_ns;      /* when to step MACHINE_TIMER; may be early, is never late */
	int64_t low_since_ns; /* since when the policy wants a smaller pool; AP_FOREVER: it does not
			       */
	int64_t pass_due_ns, pass_ns; /* the next pass; the adapted interval */
	uint64_t n_begun, pass_begun; /* effects begun, without PROBE: ever; until the last pass */
	unsigned n_quiet; /* passes in a row with no effect begun since the one before */
	/* counters; they never fall */
	uint64_t n_grants, n_recycled, n_spawned, n_terminated;
	uint64_t n_scaled[AP_SCALE_DOWN + 1]; /* scale steps by direction, since the start */
	int64_t scaled_ns;		      /* last scale step; 0: none */
	enum ap_scale_direction scale_direction;
	int spawn_error; /* of the last failed spawn, negative errno */
};

#define MACHINE_MAX_HOSTS (UINT16_MAX + 1u)

struct machine; /* only machine_step() changes it */

/* n_slots: the most agents that the pool will ever have at once. n_hosts: the most hosts, 1 to
 * MACHINE_MAX_HOSTS; host 0 is UP and may have all agents, the others are DOWN. NULL on ENOMEM. */
struct machine *machine_new(unsigned n_slots, unsigned n_hosts, const struct machine_limits *limits,
			    uint32_t seed, int64_t now_ns);
void machine_free(struct machine *machine); /* NULL is ignored */

/* The view is valid as long as the machine; each step changes its content. */
const struct machine_view *machine_view(const struct machine *machine);

/* How many effects, and how many moves, one step can name at most. */
unsigned machine_max_effects(const struct machine_view *machine);

/* Processes one event; empties `effects` first. Returns 0, or why it refused the event: then
 * nothing has changed, and a request that the event brought stays the caller's.
 * ADOPT: -EBUSY (the slot is not free), -EEXIST (label or number exists already), -EINVAL (no such
 * host), -EHOSTDOWN (the host is DOWN or PENDING: nothing lives there).
 * ACQUIRE: -ESHUTDOWN, -EDQUOT, -EEXIST (the label is leased or asked for), -ENOENT (no such
 * agent, no such host, or the agent is on another), -EAGAIN (the queue is full, or the user's part
 * of it). CANCEL: -EALREADY. RELEASE: -ENOENT, -ESTALE. RENEW: -ESTALE. LIMIT: -ENOENT. PROMPT:
 * -ESTALE, -EDQUOT. KILL, RECYCLE: -EBUSY, -ENOENT, -ESTALE. RELEASE, KILL, RECYCLE: -EHOSTUNREACH
 * (its host is lost). SCALE: -ERANGE. OPEN: -ESHUTDOWN. HOST: -EINVAL. An outcome that the machine
 * does not await any more: -ESTALE. The result of an acquirer's request: 0, -EAGAIN (`once`, and no
 * agent is idle), -ETIMEDOUT, -ECANCELED, -ESHUTDOWN, -EDQUOT, -ENOENT (its agent is removed),
 * -EHOSTDOWN (nothing can serve: spawn_error), -EIO (two agents failed under it), or the error of a
 * validation that was not the agent's fault. Of a releaser's: 0, the error of saving, or -EHOSTDOWN
 * (the host died before the work was saved). */
int machine_step(struct machine *machine, const struct machine_event *event, int64_t now_ns,
		 struct machine_effects *effects);

/* The event that brings an effect's outcome. */
enum machine_event_type machine_outcome(enum machine_effect_type effect);

/* Find a slot by the label of its lease, or by the number of its agent; NULL if there is none. */
const struct machine_slot *machine_find_label(const struct machine_view *machine,
					      const char *label);
const struct machine_slot *machine_find_number(const struct machine_view *machine, unsigned number);

/* The number of slots that are not FREE: they count against max_size. */
unsigned machine_total(const struct machine_view *machine);

/* The breaker that is least in the way of a spawn, of the hosts that are UP: a closed one, else a
 * half-open one, else one that is open. Closed if no host is UP. */
const struct breaker *machine_breaker(const struct machine_view *machine);

/* A FREE slot, for one more agent; NULL: there is none. */
const struct machine_slot *machine_free_slot(const struct machine_view *machine);

/* Whether no slot waits for an effect; probes do not count. */
bool machine_at_rest(const struct machine_view *machine);

/* The number of agents that serve or will serve: neither ending, unhealthy, quarantined nor lost.
 */
unsigned machine_live(const struct machine_view *machine);

struct scaling_sample machine_sample(const struct machine_view *machine);

/* The size that the pool should have: the target, or the policy's. The machine grows the pool at
 * once, as far as limits and breaker allow. It shrinks to a target at once, to the policy's size by
 * one agent per scale_down_window, if the policy wanted less throughout the window. */
unsigned machine_desired(const struct machine_view *machine);

/* What MACHINE_PROMPT would return: 0, -ESTALE, -EDQUOT. Token 0: whatever lease the slot has. */
int machine_may_prompt(const struct machine_view *machine, const struct machine_slot *slot,
		       uint64_t token, int64_t now_ns);

/* Whether the slot's lease is held: granted and not being ended. */
static inline bool machine_slot_leased(const struct machine_slot *slot)
{
	return slot->state == AP_AGENT_ACTIVE && !slot->leaving;
}

/* True if `token` names a lease that is not the slot's current one. Token 0 matches any. */
static inline bool machine_slot_stale(const struct machine_slot *slot, uint64_t token)
{
	return token && token != slot->token;
}

static inline unsigned machine_slot_index(const struct machine_view *machine,
					  const struct machine_slot *slot)
{
	return (unsigned)(slot - machine->slots);
}

_Static_assert(sizeof(struct machine_slot) <= 256, "an agent costs at most 256 bytes");
