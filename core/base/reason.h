/* Why an agent changed its state: one word each, the same in `transitions`, events and metrics. */
#pragma once

enum ap_reason {
	AP_REASON_NONE,
	/* why an agent came, or became ready */
	AP_REASON_DEMAND, /* the pool is smaller than it should be */
	AP_REASON_SPAWNED,
	AP_REASON_ADOPTED, /* the daemon before left it */
	AP_REASON_CLEANED, /* after a lease */
	AP_REASON_RECYCLED,
	/* of a lease */
	AP_REASON_ACQUIRE,
	AP_REASON_GRANT,
	AP_REASON_REFUSED, /* by the acquirer's own fault: its branch is checked out elsewhere, … */
	AP_REASON_CANCELLED,
	AP_REASON_RELEASE,
	AP_REASON_HANDLE, /* the handle that was the lease is closed */
	AP_REASON_TTL,
	AP_REASON_HOLDER, /* the process of pid= has ended */
	AP_REASON_UNSAVED,
	/* why an agent is recycled */
	AP_REASON_ASKED,
	AP_REASON_REQUESTS,
	AP_REASON_AGE,
	AP_REASON_MEMORY,
	AP_REASON_CPU,
	AP_REASON_UNHEALTHY,
	/* why an agent ends */
	AP_REASON_EXITED,
	AP_REASON_FAILED,
	AP_REASON_TIMEOUT,
	AP_REASON_KILL,
	AP_REASON_IDLE,
	AP_REASON_SCALE,
	AP_REASON_DRAIN,
	AP_REASON_RECYCLES,
	AP_REASON_SHUTDOWN,
	AP_REASON_DRAINED,
	AP_REASON_LOST, /* its host does not answer, or has answered again */
	AP_REASON_DEAD, /* its host is proven dead */
	AP_REASON_STOPPED,
	AP_N_REASONS,
};

const char *ap_reason_name(enum ap_reason reason);

/* The reason of that name; NONE: there is none. */
enum ap_reason ap_reason_find(const char *name);
