/* The circuit breaker on spawning: closed, it lets every spawn through; three failures in a row
 * open it; after its backoff it is half-open and lets exactly one spawn through, which closes or
 * re-opens it. Pure: time and randomness come as arguments. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
	enum breaker_state state;
	unsigned n_failures; /* in a row */
	unsigned n_opened;   /* in a row: the exponent of the backoff */
	int64_t retry_ns;    /* when an open breaker becomes half-open */
};

/* How many further spawns may begin now, with `n_spawning` under way. The call makes an open
 * breaker half-open if its backoff is over. */
unsigned breaker_allowance(struct breaker *breaker, unsigned n_spawning, int64_t now_ns);

/* A spawn succeeded: closes the breaker, unless it is open: that spawn began before the failures.
 */
void breaker_succeeded(struct breaker *breaker);

/* Closes the breaker, whatever its state. */
void breaker_reset(struct breaker *breaker);

/* A spawn failed: opens the breaker at the third failure in a row, or if it is half-open. The
 * backoff is 1 s doubling up to 300 s, times 0.5 to 1.5: `random` decides that jitter. */
void breaker_failed(struct breaker *breaker, int64_t now_ns, uint32_t random);

const char *breaker_state_name(enum breaker_state state);
