/* What a machine is made of: for machine.c, and for tests that have one in memory of their own. */
#pragma once

#include "machine.h"

struct machine {
	struct machine_view view;
};

/* In memory of the caller's. -ENOMEM. */
int machine_init(struct machine *machine, unsigned n_slots, const struct machine_limits *limits,
		 uint32_t seed, int64_t now_ns);
void machine_fini(struct machine *machine);
