/* The pool as a pure function: machine_step(machine, event, now) changes the state and names the
 * effects that somebody else carries out. No thread, clock, I/O, lock or allocation in here, so the
 * daemon, the tests and a replay run the same code.
 *
 * Every agent is in a slot, every slot in exactly one list, that of its state; the counts are the
 * lengths of the lists, so they cannot drift. One function moves a slot; one, reconcile(),
 * reserves. The outcome of an effect comes back as an event that names slot and generation. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agentpool.h"
#include "breaker.h"
#include "list.h"
#include "scaling.h"
#include "text.h"

/* What of the configuration the machine obeys. Set before MACHINE_CONFIG is stepped. */
struct machine_limits {
	unsigned min_size, max_size, max_spawning, scale_up_at;
	int64_t idle_timeout_ns; /* 0: never */
	int64_t pass_ns;	 /* between maintenance passes */
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
	char label[AP_LABEL_MAX + 1];
	unsigned agent;	     /* number of the only agent that will do; 0: any */
	int64_t deadline_ns; /* at or before now: only if an agent is idle */
	int64_t ttl_ns;	     /* 0: without end */
	uid_t uid;
	pid_t pid;
	bool by_handle;
	/* the machine's */
	struct ap_list link; /* queue of acquirers, or answered */
	enum machine_request_state state;
	unsigned n_tries; /* agents that failed under this request */
	bool once;	  /* its deadline was now: it takes an idle agent or none */
	/* the answer */
	int result; /* 0 or negative errno */
	unsigned slot;
	uint64_t token; /* of the lease granted */
};

struct machine_slot {
	struct ap_list link; /* list of its state */
	struct machine_request
		*request; /* that validates or releases it; NULL: none, or it gave up */
	enum ap_agent_state state;
	uint32_t number;     /* of the name agent-N; never used twice */
	uint32_t generation; /* of the running program */
	uint32_t n_requests, n_recycles;
	int64_t created_ns, used_ns; /* spawned; last became idle */
	/* the lease; label and token are 0 without one */
	uint64_t token; /* strictly increasing over all leases of a pool */
	int64_t granted_ns, expires_ns, ttl_ns;
	uid_t uid;
	pid_t pid;
	bool by_handle;
	bool releasing;	 /* ACTIVE: the work is being saved */
	bool stop_after; /* to be stopped at the next chance instead of becoming idle */
	bool aside;	 /* UNHEALTHY: saving failed, the worktree is kept as it is */
	bool proven;	 /* alive long enough that its spawn counts as a success */
	char label[AP_LABEL_MAX + 1];
};

enum machine_effect_type {
	EFFECT_SPAWN,	 /* make worktree and program -> SPAWNED */
	EFFECT_VALIDATE, /* is it healthy; put its worktree on the label's branch -> VALIDATED */
	EFFECT_SAVE,	 /* commit the lease's work to its branch -> SAVED */
	EFFECT_RECYCLE,	 /* clean worktree, program anew -> RECYCLED */
	EFFECT_STOP,	 /* end the program, remove the worktree -> STOPPED */
};

struct machine_effect {
	enum machine_effect_type type;
	unsigned slot;
	uint32_t generation;
	bool discard; /* SAVE: throw the work away; STOP: keep the worktree */
};

struct machine_effects {
	struct ap_list answered; /* requests whose answer is known, in order */
	unsigned n;
	struct machine_effect *at; /* room for machine_max_effects() */
};

enum machine_event_type {
	MACHINE_ACQUIRE,   /* request */
	MACHINE_CANCEL,	   /* request: -EALREADY if it is answered */
	MACHINE_RELEASE,   /* slot, token (0: whatever lease it has), discard, request or NULL */
	MACHINE_RENEW,	   /* slot: its lease's time to live begins anew */
	MACHINE_KILL,	   /* slot */
	MACHINE_SPAWNED,   /* slot, generation, result */
	MACHINE_VALIDATED, /* slot, generation, result */
	MACHINE_SAVED,	   /* slot, generation, result */
	MACHINE_RECYCLED,  /* slot, generation, result */
	MACHINE_STOPPED,   /* slot, generation */
	MACHINE_EXITED,	   /* slot, generation: the program ended by itself */
	MACHINE_TIMER,	   /* wake_ns is reached */
	MACHINE_PASS,	   /* a maintenance pass now */
	MACHINE_CONFIG,	   /* the limits are other ones */
	MACHINE_SCALE,	   /* target: a size, or -1 for automatic */
	MACHINE_DRAIN,	   /* stop idle agents down to min_size */
	MACHINE_CLOSE,	   /* grant nothing more */
	MACHINE_OPEN,
	MACHINE_SHUTDOWN, /* close, save every lease, stop every agent */
};

struct machine_event {
	enum machine_event_type type;
	struct machine_request *request;
	unsigned slot;
	uint32_t generation;
	int result;
	uint64_t token;
	bool discard;
	int target;
};

struct machine {
	struct machine_limits limits;
	struct machine_slot *slots; /* n_slots of them, owned */
	unsigned n_slots;
	struct ap_list states[AP_N_AGENT_STATES]; /* slots by state; IDLE: last used first */
	unsigned n_in_state[AP_N_AGENT_STATES];
	struct ap_list waiters; /* requests, first come first */
	unsigned n_waiting, n_unproven;
	struct breaker breaker;
	int target; /* manual size; -1: automatic */
	bool closed, shutdown;
	uint32_t next_number;
	uint64_t next_token, next_lease;
	uint32_t random; /* state of the generator for jitter */
	int64_t wake_ns; /* step MACHINE_TIMER then; may be early, is never late */
	int64_t pass_due_ns;
	/* counters; they never fall */
	uint64_t n_grants, n_recycled, n_spawned, n_terminated;
	int64_t scaled_ns; /* last scale step; 0: none */
	enum ap_scale_direction scale_direction;
	int spawn_error; /* of the last failed spawn, negative errno */
};

/* n_slots is the most agents there will ever be at once. -ENOMEM. */
int machine_init(struct machine *machine, unsigned n_slots, const struct machine_limits *limits,
		 uint32_t next_number, uint32_t seed, int64_t now_ns);
void machine_fini(struct machine *machine);

/* How many effects one step can name at most. */
unsigned machine_max_effects(const struct machine *machine);

/* Takes one event. `effects` is emptied first. 0, or why the event was refused: nothing has changed
 * then, and a request that it brought has not been taken.
 * ACQUIRE: -ESHUTDOWN, -EEXIST (the label is leased or asked for), -ENOENT (no such agent).
 * RELEASE: -ENOENT, -ESTALE. KILL: -EBUSY, -ENOENT. SCALE: -ERANGE. An outcome of another
 * generation is -ESTALE. The result of an acquirer's request: 0, -EAGAIN (none idle and the
 * deadline was now), -ETIMEDOUT, -ECANCELED, -ESHUTDOWN, -EHOSTDOWN (nothing can serve:
 * spawn_error), or what failed under it. */
int machine_step(struct machine *machine, const struct machine_event *event, int64_t now_ns,
		 struct machine_effects *effects);

/* Slots by what users call them; NULL if there is none. */
struct machine_slot *machine_find_label(const struct machine *machine, const char *label);
struct machine_slot *machine_find_number(const struct machine *machine, unsigned number);

/* All but FREE: what counts against max_size. */
unsigned machine_total(const struct machine *machine);

void machine_sample(const struct machine *machine, struct scaling_sample *ret);

/* Whether the slot's lease is held: granted and not being ended. */
static inline bool machine_slot_leased(const struct machine_slot *slot)
{
	return slot->state == AP_AGENT_ACTIVE && !slot->releasing;
}
