/* test_model [--seed N] [--steps N]: random walks of the machine beside the naive model, and all
 * that a small machine can come to. A failing walk prints its seed and its last events. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tap.h"
#include "world.h"

#define STEPS	 130000 /* of one walk; eight of them are a million */
#define N_STATES 500000 /* of the exhaustive walk */

static void on_abort(int signal_number)
{
	(void)signal_number;
	world_fail(world_running, "an assertion in the machine failed");
}

static void walk(uint64_t seed, uint64_t n_steps)
{
	tap_begin("a walk of %" PRIu64 " random steps, seed %" PRIu64
		  ", keeps every invariant and agrees with the naive model",
		  n_steps, seed);
	random_walk(seed, n_steps);
	tap_ok();
}

static uint64_t number_after(int argc, char **argv, const char *option, uint64_t other)
{
	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], option) == 0)
			return strtoull(argv[i + 1], NULL, 10);
	}
	return other;
}

int main(int argc, char **argv)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t fresh = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	uint64_t seed = number_after(argc, argv, "--seed", 0);
	uint64_t n_steps = number_after(argc, argv, "--steps", STEPS);
	signal(SIGABRT, on_abort);
	if (seed) {
		walk(seed, n_steps);
		tap_end();
		return 0;
	}
	for (seed = 1; seed <= 7; seed++)
		walk(seed, n_steps);
	walk(fresh, n_steps);
	tap_begin("the same seed takes the same way");
	if (random_walk(1, n_steps / 10) != random_walk(1, n_steps / 10))
		tap_not_ok("two walks differ");
	tap_ok();
	unsigned n_states, depth;
	tap_begin("all states that two agents and three waiters can come to keep every invariant");
	exhaustive_walk(n_steps == STEPS ? N_STATES : N_STATES / 10, &n_states, &depth);
	tap_note("%u states, up to %u events deep", n_states, depth);
	tap_ok();
	tap_end();
	return 0;
}
