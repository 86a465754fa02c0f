/* The words for how an agent, its program and its pool stand: the same in files, events, metrics
 * and the store. */
#pragma once

enum ap_agent_state {
	AP_AGENT_FREE, /* an empty slot: never seen from outside */
	AP_AGENT_SPAWNING,
	AP_AGENT_IDLE,
	AP_AGENT_VALIDATING,
	AP_AGENT_ACTIVE,
	AP_AGENT_RECYCLING,
	AP_AGENT_UNHEALTHY,
	AP_AGENT_DRAINING,
	AP_AGENT_STOPPING,
	AP_AGENT_LOST,	   /* its host does not answer: it may live or not */
	AP_N_SHOWN_STATES, /* users see the states before as they are */
	/* its lease's work could not be saved: it waits for a human, its worktree untouched. Users
	 * see it as unhealthy */
	AP_AGENT_QUARANTINED = AP_N_SHOWN_STATES,
	AP_N_AGENT_STATES,
};

/* The state that users see. */
static inline enum ap_agent_state ap_agent_state_shown(enum ap_agent_state state)
{
	return state == AP_AGENT_QUARANTINED ? AP_AGENT_UNHEALTHY : state;
}

/* A host is a place where agents live. */
enum ap_host_state {
	AP_HOST_DOWN,	 /* there is none, or it is proven dead */
	AP_HOST_PENDING, /* it is being made */
	AP_HOST_UP,
	AP_HOST_DRAINING, /* it takes no further agents; those it has end with their leases */
	AP_HOST_LOST,	  /* it does not answer, and is not proven dead */
	AP_N_HOST_STATES,
};

enum ap_activity {
	AP_ACTIVITY_STARTING,
	AP_ACTIVITY_READY,
	AP_ACTIVITY_BUSY,
	AP_ACTIVITY_WAITING, /* for a human's answer */
	AP_ACTIVITY_LIMITED, /* it would be ready, but a usage limit is reached */
	AP_ACTIVITY_EXITED,
};

enum ap_scale_direction { AP_SCALE_NONE, AP_SCALE_UP, AP_SCALE_DOWN };

/* Static strings, lower case but for the direction's. */
const char *ap_agent_state_name(enum ap_agent_state state);
const char *ap_host_state_name(enum ap_host_state state);
const char *ap_activity_name(enum ap_activity activity);
const char *ap_scale_direction_name(enum ap_scale_direction direction);
