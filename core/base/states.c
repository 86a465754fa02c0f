#include "states.h"

const char *ap_agent_state_name(enum ap_agent_state state)
{
	static const char *const names[] = {
		[AP_AGENT_FREE] = "free",	    [AP_AGENT_SPAWNING] = "spawning",
		[AP_AGENT_IDLE] = "idle",	    [AP_AGENT_VALIDATING] = "validating",
		[AP_AGENT_ACTIVE] = "active",	    [AP_AGENT_RECYCLING] = "recycling",
		[AP_AGENT_UNHEALTHY] = "unhealthy", [AP_AGENT_DRAINING] = "draining",
		[AP_AGENT_STOPPING] = "stopping",   [AP_AGENT_LOST] = "lost",
	};
	return names[ap_agent_state_shown(state)];
}

const char *ap_host_state_name(enum ap_host_state state)
{
	static const char *const names[] = {
		[AP_HOST_DOWN] = "down",	 [AP_HOST_PENDING] = "pending", [AP_HOST_UP] = "up",
		[AP_HOST_DRAINING] = "draining", [AP_HOST_LOST] = "lost",
	};
	return names[state];
}

const char *ap_activity_name(enum ap_activity activity)
{
	static const char *const names[] = {
		[AP_ACTIVITY_STARTING] = "starting", [AP_ACTIVITY_READY] = "ready",
		[AP_ACTIVITY_BUSY] = "busy",	     [AP_ACTIVITY_WAITING] = "waiting",
		[AP_ACTIVITY_LIMITED] = "limited",   [AP_ACTIVITY_EXITED] = "exited",
	};
	return names[activity];
}

const char *ap_scale_direction_name(enum ap_scale_direction direction)
{
	static const char *const names[] = {
		[AP_SCALE_NONE] = "NONE", [AP_SCALE_UP] = "UP", [AP_SCALE_DOWN] = "DOWN"};
	return names[direction];
}
