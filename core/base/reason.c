#include "reason.h"

#include <string.h>

const char *ap_reason_name(enum ap_reason reason)
{
	static const char *const names[AP_N_REASONS] = {
		[AP_REASON_NONE] = "none",
		[AP_REASON_DEMAND] = "demand",
		[AP_REASON_SPAWNED] = "spawned",
		[AP_REASON_ADOPTED] = "adopted",
		[AP_REASON_CLEANED] = "cleaned",
		[AP_REASON_RECYCLED] = "recycled",
		[AP_REASON_ACQUIRE] = "acquire",
		[AP_REASON_GRANT] = "grant",
		[AP_REASON_REFUSED] = "refused",
		[AP_REASON_CANCELLED] = "cancelled",
		[AP_REASON_RELEASE] = "release",
		[AP_REASON_HANDLE] = "handle",
		[AP_REASON_TTL] = "ttl",
		[AP_REASON_HOLDER] = "holder",
		[AP_REASON_UNSAVED] = "unsaved",
		[AP_REASON_ASKED] = "asked",
		[AP_REASON_REQUESTS] = "requests",
		[AP_REASON_AGE] = "age",
		[AP_REASON_MEMORY] = "memory",
		[AP_REASON_CPU] = "cpu",
		[AP_REASON_UNHEALTHY] = "unhealthy",
		[AP_REASON_EXITED] = "exited",
		[AP_REASON_FAILED] = "failed",
		[AP_REASON_TIMEOUT] = "timeout",
		[AP_REASON_KILL] = "kill",
		[AP_REASON_IDLE] = "idle",
		[AP_REASON_SCALE] = "scale",
		[AP_REASON_DRAIN] = "drain",
		[AP_REASON_RECYCLES] = "recycles",
		[AP_REASON_SHUTDOWN] = "shutdown",
		[AP_REASON_DRAINED] = "drained",
		[AP_REASON_LOST] = "lost",
		[AP_REASON_DEAD] = "dead",
		[AP_REASON_STOPPED] = "stopped",
	};
	return names[reason];
}

enum ap_reason ap_reason_find(const char *name)
{
	for (int i = 0; i < AP_N_REASONS; i++) {
		if (strcmp(ap_reason_name((enum ap_reason)i), name) == 0)
			return (enum ap_reason)i;
	}
	return AP_REASON_NONE;
}
