/* What the pool ought to do, said a second time: arrays, full scans, nothing kept that can be
 * counted, no line shared with core/machine/machine.c. It is told every event and predicts what the
 * machine answers; naive_compare() names the first difference. Two things it cannot know and takes
 * over from the machine: identities of effects, and what the dice say (jitter, backoff). */
#pragma once

#include "machine_internal.h"

#define MAX_SLOTS  10
#define N_REQUESTS 16
#define MAX_HOSTS  3

enum naive_mark { UNMARKED, DUE, ASKED };

struct naive_agent {
	enum ap_agent_state state;
	unsigned number, host;
	char label[AP_LABEL_MAX + 1], last_label[AP_LABEL_MAX + 1];
	int request; /* index; -1: none */
	uint64_t token, affinity;
	int64_t until; /* its state ends by itself then */
	int64_t started, idle_since, ttl, quota_from;
	unsigned idle_order; /* the higher, the later it became idle */
	unsigned lost_order; /* the higher, the later it was lost */
	unsigned lease_order; /* the higher, the later it was given its last lease */
	unsigned n_recycles, n_served, n_prompts, n_over;
	uint32_t awaited, probe; /* identities of effects */
	uint16_t jitter;
	enum naive_mark mark;
	bool probation, born, hot, leaving, retire, asked_again, limited;
};

struct naive_request {
	char label[AP_LABEL_MAX + 1];
	unsigned agent, host; /* wanted; a host plus 1 */
	uid_t uid;
	uint64_t affinity, token;
	int64_t deadline, ttl;
	unsigned tries;
	int slot; /* that makes ready for it, or is saved for it; -1: none */
	bool once, open;
};

struct naive_effect {
	enum machine_effect_type type;
	unsigned slot, number;
	bool discard, keep, restart;
};

struct naive_host {
	enum ap_host_state state;
	unsigned slots;
	bool warm;
	enum breaker_state breaker;
	unsigned n_failures;
	int64_t retry;
};

struct naive {
	struct machine_limits limits;
	unsigned n_slots;
	struct naive_agent agents[MAX_SLOTS];
	struct naive_host hosts[MAX_HOSTS];
	unsigned n_hosts;
	unsigned free[MAX_SLOTS], n_free; /* a stack */
	struct naive_request requests[N_REQUESTS];
	unsigned queue[N_REQUESTS], n_queued;
	int target;
	bool closed, shutdown, suspended;
	int64_t limited_until; /* of all; 0: not */
	unsigned next_number, next_lease, idle_order, lost_order, lease_order;
	uint64_t next_token;
	int64_t low_since, pass_due, pass;
	double load; /* under policy ewma: of who is busy, on average */
	unsigned load_busy;
	int64_t load_since; /* 0: not begun */
	uint64_t n_begun, begun_at_pass;
	unsigned n_quiet;
	uint64_t n_grants, n_recycled, n_spawned, n_terminated;
	/* the prediction of one step */
	int result;
	struct naive_effect effects[6 * MAX_SLOTS];
	unsigned n_effects;
	bool answered[N_REQUESTS];
	int answers[N_REQUESTS];
};

void naive_init(struct naive *naive, unsigned n_slots, unsigned n_hosts,
		const struct machine_limits *limits, uint32_t next_number, int64_t now);

/* Takes the event before the machine does; `request` is the index of event->request, or -1. */
void naive_step(struct naive *naive, const struct machine_event *event, int request, int64_t now);

/* The first difference to what the machine did, as a sentence; NULL: none. Adopts what cannot be
 * predicted. `requests` is where indices of requests count from. The sentence is static memory. */
const char *naive_compare(struct naive *naive, const struct machine_view *machine, int result,
			  const struct machine_effects *fx, const struct machine_request *requests);
