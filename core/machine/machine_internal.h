/* The definition of struct machine: for machine.c, and for tests that own a machine's memory. */
#pragma once

#include "machine.h"

struct machine {
	struct machine_view view;
};

/* Initialises a machine in the caller's memory. 0 or -ENOMEM. */
int machine_init(struct machine *machine, unsigned n_slots, unsigned n_hosts,
		 const struct machine_limits *limits, uint32_t seed, int64_t now_ns);
void machine_fini(struct machine *machine);
