/* The pool as a pure function: machine_step(machine, event, now) changes the state and names the
 * effects that somebody else carries out. No thread, clock, I/O, lock or allocation in here, so the
 * daemon, the tests and a replay run the same code.
 *
 * Every agent is in a slot, every slot in exactly one list, that of its state; the counts are the
 * lengths of the lists, so they cannot drift. One function moves a slot; one, reserve(), gives an
 * agent to an acquirer; one, reconcile(), sizes the pool. A state in which an agent does not rest
 * has an absolute deadline, and one state that it comes to then. The outcome of an effect comes
 * back as an event that names slot and effect; one that comes after its deadline is refused. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "breaker.h"
#include "list.h"
#include "reason.h"
#include "recycling.h"
#include "scaling.h"
#include "states.h"
#include "text.h"

/* What of the configuration the machine obeys. */
struct machine_limits {
	unsigned min_size, max_size; /* kept ready at least; never more, not for a moment */
	unsigned max_spawning;
	unsigned max_waiting; /* acquirers in the queue; may fall after machine_new(), not rise */
	unsigned max_waiting_of_user; /* of them of one user; not of root and not of `owner` */
	uid_t owner;
	unsigned max_prompts; /* of one agent in 24 h; 0: no limit */
	enum scaling_policy_id policy;
	struct scaling_limits scaling;
	struct recycling_limits recycling;
	int64_t scale_down_window_ns;
	int64_t idle_timeout_ns;  /* 0: never */
	int64_t spawn_timeout_ns; /* also of making an agent ready */
	int64_t pass_ns;	  /* between maintenance passes; 0: adapted to what they find */
	bool keep_program;	  /* it goes on running over the end of a lease */
};

/* A label in the machine's index: an acquirer's in the queue, or a slot's. */
struct machine_label {
	struct ap_list link;
	uint32_t hash; /* of the text, while it is in the index */
	bool in_slot;
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
	REQUEST_RELEASING,  /* the lease it ends is being saved */
	REQUEST_ANSWERED,
};

/* One acquire or release under way. Its memory is the caller's, who leaves it alone from the event
 * that brings it in until it stands in machine_effects.answered. */
struct machine_request {
	/* of an acquirer, set by the caller; the machine fills an empty label in */
	struct machine_label label;
	unsigned agent;	     /* number of the only agent that will do; 0: any */
	uint64_t affinity;   /* hash of a key: an agent that last served it is preferred; 0: none */
	int64_t deadline_ns; /* when it is refused, unless it has an agent; AP_FOREVER with `once`
			      */
	bool once; /* only if an agent is idle now: that is waited for while it is made ready */
	int64_t ttl_ns; /* 0: without end */
	uid_t uid;
	pid_t pid;
	bool by_handle;
	/* the machine's */
	struct ap_list link; /* queue of acquirers, or answered */
	struct ap_list turn; /* in the queue: those who take any agent, or who want the same */
	uint64_t arrival;    /* in the queue: order of arrival */
	enum machine_request_state state;
	unsigned n_tries; /* agents that failed under this request, but for ended programs */
	/* the answer */
	int result; /* 0 or negative errno */
	unsigned slot;
	uint64_t token; /* of the lease granted: drawn when an agent is first reserved, so that the
			   order of tokens is that of arrival */
};

struct machine_slot {
	struct ap_list link;	    /* list of its state */
	struct machine_label label; /* of the lease; empty without one */
	struct ap_list waiters;	    /* who want this agent, in their order */
	struct machine_request
		*request;  /* that validates or releases it; NULL: none, or it gave up */
	uint64_t token;	   /* of the lease, strictly increasing over all of a pool; 0: none */
	uint64_t affinity; /* of the last lease that had one */
	int64_t granted_ns, ttl_ns;
	int64_t deadline_ns; /* when it leaves its state by itself: ACTIVE: end of the lease */
	int64_t created_ns, used_ns, started_ns; /* spawned; last became idle; generation's begin */
	int64_t quota_from_ns;			 /* when its 24 h of prompts began */
	uint32_t number;			 /* of the name agent-N; never used twice */
	uint32_t generation;			 /* goes up when it is recycled */
	uint32_t effect, probe; /* that is under way and whose outcome counts; 0: none */
	uint32_t n_requests;	/* leases served */
	uint32_t n_served;	/* of them in this generation */
	uint32_t n_recycles, n_prompts;
	uid_t uid;
	pid_t pid;
	uint16_t jitter;       /* of this generation's age */
	uint8_t state;	       /* enum ap_agent_state */
	uint8_t recycle;       /* enum ap_reason: marked to be recycled; 0: not */
	uint8_t retire;	       /* enum ap_reason: to be ended at the next chance; 0: not */
	uint8_t leaving;       /* enum ap_reason: why its lease ends; 0: it does not */
	uint8_t n_memory_over; /* samples in a row */
	bool by_handle : 1;
	bool proven : 1; /* alive long enough that its start counts as a success */
	bool born : 1;	 /* it was spawned, and counts as terminated when it ends */
	bool cpu_over : 1;
};

enum machine_effect_type {
	EFFECT_SPAWN,	 /* make worktree and program -> SPAWNED */
	EFFECT_VALIDATE, /* is it healthy; put its worktree on the label's branch -> VALIDATED */
	EFFECT_SAVE,	 /* commit the lease's work to its branch -> SAVED */
	EFFECT_RECYCLE,	 /* clean worktree, ready for the next lease -> RECYCLED */
	EFFECT_DRAIN,	 /* end the program in order -> DRAINED */
	EFFECT_STOP,	 /* end what is left of it, remove the worktree -> STOPPED */
	EFFECT_PROBE,	 /* look after health and usage, beside the others -> PROBED */
	N_EFFECTS,
};

struct machine_effect {
	enum machine_effect_type type;
	unsigned slot;
	uint32_t id;  /* its outcome names it */
	bool discard; /* SAVE: throw the work away */
	bool keep;    /* STOP: keep the worktree */
	bool restart; /* SAVE: end the program first; RECYCLE: start it anew */
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
	struct machine_move *moves; /* likewise: every change of state, in order */
};

/* An agent that a daemon before this one has left. */
struct machine_adoption {
	uint32_t number, generation, n_recycles, n_requests, n_served;
	int64_t created_ns, started_ns;
	/* the lease that it serves; an empty label: none */
	const char *label;
	uint64_t token, affinity;
	uid_t uid;
	pid_t pid;
	bool by_handle;
	int64_t granted_ns, ttl_ns; /* its time to live begins anew */
};

/* The result that says of an agent that somebody has killed its program: its start was no failure.
 */
#define MACHINE_KILLED (-EOWNERDEAD)

/* What a daemon before this one has counted, and the numbers that it has used. */
struct machine_restored {
	uint32_t next_number;		 /* of an agent; numbers only rise */
	uint64_t next_token, next_lease; /* likewise */
	uint64_t n_grants, n_recycled;	 /* are added to the counters */
	uint64_t n_spawned;		 /* likewise; they have ended, unless they are adopted */
};

enum machine_event_type {
	MACHINE_RESTORE, /* restored */
	MACHINE_ADOPT,	 /* slot, which is free; adoption */
	MACHINE_ACQUIRE, /* request */
	MACHINE_CANCEL,	 /* request: -EALREADY if it is answered */
	MACHINE_RELEASE, /* slot, token (0: whatever lease it has), reason, discard, request or NULL
			  */
	MACHINE_RENEW,	 /* slot, token: its lease's time to live begins anew */
	MACHINE_PROMPT,	 /* slot, token: counted against its quota; renews */
	MACHINE_KILL,	 /* slot, token */
	MACHINE_RECYCLE, /* slot, token: at once, or when its lease ends */
	MACHINE_SPAWNED, /* slot, effect, result; as the next five */
	MACHINE_VALIDATED, /* and granted_ns */
	MACHINE_SAVED,
	MACHINE_RECYCLED,
	MACHINE_DRAINED,
	MACHINE_STOPPED,
	MACHINE_PROBED, /* and memory, cpu_over */
	MACHINE_EXITED, /* slot: the program ended by itself, or with MACHINE_KILLED as its result
			 */
	MACHINE_TIMER,	/* wake_ns is reached */
	MACHINE_PASS,	/* a maintenance pass now */
	MACHINE_CONFIG, /* limits; NULL: they are as they were */
	MACHINE_SCALE,	/* target: a size, or -1 for automatic */
	MACHINE_DRAIN,	/* retire idle agents down to min_size */
	MACHINE_CLOSE,	/* grant nothing more */
	MACHINE_OPEN,
	MACHINE_RESET_BREAKER,
	MACHINE_SHUTDOWN, /* close, save every lease, stop every agent */
	MACHINE_SUSPEND,  /* begin nothing more, whatever is due: agents are left as they are,
			   * acquirers wait */
	MACHINE_RESUME,
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
	enum ap_reason reason; /* NONE: AP_REASON_RELEASE */
	bool discard;
	int target;
	int64_t granted_ns; /* when the grant was written down, not later than now; 0: now */
	uint64_t memory;    /* bytes */
	unsigned cpu;	    /* percent of one CPU, rounded up */
};

/* What can be read of a machine, between two steps: nobody but the machine writes it. */
struct machine_view {
	struct machine_limits limits;
	const struct machine_slot *slots; /* n_slots of them */
	unsigned n_slots;
	struct ap_list states[AP_N_AGENT_STATES]; /* slots by state; IDLE: last used first */
	unsigned n_in_state[AP_N_AGENT_STATES];
	unsigned n_unproven, n_marked; /* of them: on probation; to be recycled */
	struct ap_list waiters;	       /* requests, first come first */
	struct ap_list anyone;	       /* of them those who take any agent, likewise */
	unsigned n_waiting;
	uint64_t next_arrival;
	int64_t waiters_due_ns; /* no waiter's deadline is before */
	struct ap_list *labels; /* n_labels buckets by hash; a power of two */
	unsigned n_labels;
	struct machine_user *users; /* those who are bounded: n_user_places by hash */
	unsigned n_user_places;	    /* a power of two */
	struct breaker breaker;
	int target;		  /* manual size; -1: automatic */
	struct scaling_load load; /* while the policy is ewma */
	bool closed, shutdown, suspended;
	uint32_t next_number, next_effect;
	uint64_t next_token, next_lease;
	uint32_t random;      /* state of the generator for jitter */
	int64_t wake_ns;      /* step MACHINE_TIMER then; may be early, is never late */
	int64_t low_since_ns; /* the policy has wanted a smaller pool since; AP_FOREVER: it does not
			       */
	int64_t pass_due_ns, pass_ns; /* the next pass; the adapted interval */
	uint64_t n_begun, pass_begun; /* effects that a state waits for: ever; at the last pass */
	unsigned n_quiet;	      /* passes in a row between which there were none */
	/* counters; they never fall */
	uint64_t n_grants, n_recycled, n_spawned, n_terminated;
	uint64_t n_scaled[AP_SCALE_DOWN + 1]; /* scale steps by direction, since the start */
	int64_t scaled_ns;		      /* last scale step; 0: none */
	enum ap_scale_direction scale_direction;
	int spawn_error; /* of the last failed spawn, negative errno */
};

struct machine; /* machine_step() alone changes it */

/* n_slots is the most agents there will ever be at once. NULL on ENOMEM. */
struct machine *machine_new(unsigned n_slots, const struct machine_limits *limits, uint32_t seed,
			    int64_t now_ns);
void machine_free(struct machine *machine); /* NULL is ignored */

/* As long as the machine; what stands there changes with each step. */
const struct machine_view *machine_view(const struct machine *machine);

/* How many effects, and how many moves, one step can name at most. */
unsigned machine_max_effects(const struct machine_view *machine);

/* Takes one event. `effects` is emptied first. 0, or why the event was refused: nothing has changed
 * then, and a request that it brought has not been taken.
 * ADOPT: -EBUSY (the slot is not free), -EEXIST (label or number is there already).
 * ACQUIRE: -ESHUTDOWN, -EEXIST (the label is leased or asked for), -ENOENT (no such agent), -EAGAIN
 * (the queue is full, or its part of the user). RELEASE, RENEW: -ENOENT, -ESTALE. PROMPT: -ESTALE,
 * -EDQUOT. KILL, RECYCLE: -EBUSY, -ENOENT, -ESTALE. SCALE: -ERANGE. An outcome that is not awaited
 * any more: -ESTALE. The result of an acquirer's request: 0, -EAGAIN (none idle, and it asked for
 * one once), -ETIMEDOUT, -ECANCELED, -ESHUTDOWN, -ENOENT (its agent is gone), -EHOSTDOWN (nothing
 * can serve: spawn_error), or what failed under it. */
int machine_step(struct machine *machine, const struct machine_event *event, int64_t now_ns,
		 struct machine_effects *effects);

/* The event that brings an effect's outcome. */
enum machine_event_type machine_outcome(enum machine_effect_type effect);

/* Slots by what users call them; NULL if there is none. */
const struct machine_slot *machine_find_label(const struct machine_view *machine,
					      const char *label);
const struct machine_slot *machine_find_number(const struct machine_view *machine, unsigned number);

/* All but FREE: what counts against max_size. */
unsigned machine_total(const struct machine_view *machine);

/* A slot for one more agent; NULL: there is none. */
const struct machine_slot *machine_free_slot(const struct machine_view *machine);

/* Whether nothing is under way: every agent rests in its state. */
bool machine_at_rest(const struct machine_view *machine);

/* Of them those that serve or will: neither ending nor quarantined. */
unsigned machine_live(const struct machine_view *machine);

struct scaling_sample machine_sample(const struct machine_view *machine);

/* The size that there should be: asked for, or the policy's. It is grown to at once, as far as
 * limits and breaker allow; the policy's is shrunk to one step for every window through which it
 * was less. */
unsigned machine_desired(const struct machine_view *machine);

/* Whether a prompt would be taken: 0, -ESTALE, -EDQUOT. Token 0: whatever lease it has. */
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
