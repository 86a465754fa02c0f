#include "breaker.h"

#include <limits.h>

#include "clock.h"

#define FAILURES_TO_OPEN 3
#define BACKOFF_FIRST	 AP_SECOND
#define BACKOFF_LONGEST	 (300 * AP_SECOND)

unsigned breaker_allowance(struct breaker *breaker, unsigned n_spawning, int64_t now_ns)
{
	if (breaker->state == BREAKER_OPEN && now_ns >= breaker->retry_ns)
		breaker->state = BREAKER_HALF_OPEN;
	switch (breaker->state) {
	case BREAKER_CLOSED:
		return UINT_MAX;
	case BREAKER_HALF_OPEN:
		return n_spawning == 0 ? 1 : 0;
	case BREAKER_OPEN:
		break;
	}
	return 0;
}

void breaker_succeeded(struct breaker *breaker)
{
	if (breaker->state != BREAKER_OPEN)
		breaker_reset(breaker);
}

void breaker_reset(struct breaker *breaker)
{
	*breaker = (struct breaker){.state = BREAKER_CLOSED};
}

void breaker_failed(struct breaker *breaker, int64_t now_ns, uint32_t random)
{
	breaker->n_failures++;
	if (breaker->state == BREAKER_CLOSED && breaker->n_failures < FAILURES_TO_OPEN)
		return;
	if (breaker->state == BREAKER_OPEN)
		return; /* that spawn began before the breaker opened */
	int64_t backoff = BACKOFF_LONGEST;
	if (breaker->n_opened < 9 && (BACKOFF_FIRST << breaker->n_opened) < backoff)
		backoff = BACKOFF_FIRST << breaker->n_opened;
	backoff = backoff / 2 + (int64_t)((double)backoff * (random / (double)UINT32_MAX));
	breaker->n_opened++;
	breaker->retry_ns = ap_clock_after(now_ns, backoff);
	breaker->state = BREAKER_OPEN;
}

const char *breaker_state_name(enum breaker_state state)
{
	static const char *const names[] = {
		[BREAKER_CLOSED] = "closed",
		[BREAKER_OPEN] = "open",
		[BREAKER_HALF_OPEN] = "half-open",
	};
	return names[state];
}
