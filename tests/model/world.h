/* The machine and all that is around it: the host that carries effects out, the clock, the requests
 * of acquirers and releasers, and the naive model beside it. world_step() gives all of them one
 * event and asserts every invariant afterwards; the first that is broken ends the program with the
 * events that led there.
 *
 * A world is one flat piece of memory: it can be copied and put back to the same address. */
#pragma once

#include "naive.h"

#define N_LABEL_BUCKETS 4  /* few: chains are tested, and copies are small */
#define N_USER_PLACES	64 /* twice the requests and agents at least */
#define MAX_UNDER_WAY	64
#define N_LOGGED	30

/* All that machine_step() may write to. */
struct machine_memory {
	struct machine machine;
	struct machine_slot slots[MAX_SLOTS];
	struct machine_host hosts[MAX_HOSTS];
	struct ap_list labels[N_LABEL_BUCKETS];
	struct machine_user users[N_USER_PLACES];
	struct machine_request requests[N_REQUESTS];
};

/* What the host remembers of a request. */
struct host_request {
	bool busy, acquirer;
	uint64_t arrival; /* order in which acquirers came */
	uint64_t token;	  /* that it was given first; 0: none yet */
};

/* What must not change during a generation of an agent. */
struct host_generation {
	uint32_t number, generation;
	uint16_t jitter;
	int64_t started_ns;
};

struct logged_event {
	uint64_t step;
	int64_t now;
	struct machine_event event;
	char label[12];
	unsigned agent, host;
	int64_t deadline_ns; /* AP_FOREVER: it asks once */
	int request, result;
};

struct world {
	struct machine_memory memory;
	struct naive naive;
	int64_t now;
	/* the host */
	struct host_request requests[N_REQUESTS];
	struct machine_effect under_way[MAX_UNDER_WAY]; /* also some that nobody awaits */
	unsigned n_under_way;
	bool alive[MAX_SLOTS]; /* from SPAWN until STOPPED: may use memory */
	struct host_generation generations[MAX_SLOTS];
	uint64_t n_arrived, last_arrival, last_token, n_ended, n_adopted;
	uint32_t last_effect;
	/* the walk */
	uint64_t seed, random, n_steps;
	uint64_t hash; /* of all that the machine has said */
	struct logged_event log[N_LOGGED];
};

/* The seed alone decides what follows. */
void world_init(struct world *world, uint64_t seed);

/* An empty pool; what was before is forgotten, but for dice, steps and hash. */
void world_begin(struct world *world, unsigned n_slots, unsigned n_hosts,
		 const struct machine_limits *limits);

/* One event, with all checks. The machine's answer. */
int world_step(struct world *world, const struct machine_event *event);

/* MACHINE_CONFIG with these. */
void world_configure(struct world *world, const struct machine_limits *limits);

/* A request that is free, emptied; NULL: all are busy. */
struct machine_request *world_request(struct world *world);

/* Reports the outcome of under_way[i], which is then under way no more. */
int world_report(struct world *world, unsigned i, int result);

/* Whether the machine waits for it. */
bool world_awaits(const struct world *world, const struct machine_effect *effect);

/* Index of what the slot's state waits for; -1: nothing, or it never comes back. */
int world_awaited(const struct world *world, unsigned slot);

/* Forgets what nobody awaits. */
void world_forget(struct world *world);

/* Says how a host stands. */
int world_host(struct world *world, unsigned host, enum ap_host_state state, unsigned slots);

/* Brings the machine to rest: hosts that were lost come back, everything succeeds, time passes. At
 * most `n_steps`; whether nothing but probes is under way. */
bool world_calm(struct world *world, unsigned n_steps);

/* A number below `below`. */
uint32_t world_draw(struct world *world, uint32_t below);

/* An invariant does not hold: says so with the last events and ends the program. */
_Noreturn void world_fail(const struct world *world, const char *invariant, ...)
	__attribute__((format(printf, 2, 3)));

#define CHECK(world, condition, ...)                                                               \
	do {                                                                                       \
		if (!(condition))                                                                  \
			world_fail((world), __VA_ARGS__);                                          \
	} while (0)

/* invariants.c: of the state alone; and of what one step did, `before` being the machine's memory
 * before it. */
void check_state(const struct world *world);
void check_step(struct world *world, const struct machine_event *event,
		const struct machine_memory *before, const struct machine_effects *fx);

/* What runs at the moment, for the report of an abort. */
extern const struct world *world_running;

/* walk.c, exhaustive.c */
uint64_t random_walk(uint64_t seed, uint64_t n_steps); /* the hash */
void exhaustive_walk(unsigned n_states, unsigned *ret_states, unsigned *ret_depth);
