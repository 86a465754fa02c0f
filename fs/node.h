/* Node numbers: a stable identity packed into 64 bits, so that nothing about a node has to be
 * remembered: what the kernel asks for by number is found from the number alone, also by another
 * daemon. Pure. */
#pragma once

#include <stdint.h>

/* Every directory is one table of rows. */
enum node_dir {
	NODE_ROOT,
	NODE_STATS,
	NODE_CONFIG,
	NODE_AGENTS,
	NODE_AGENT, /* id: the agent's number */
	NODE_LEASES,
	NODE_N_DIRS,
};

struct node {
	enum node_dir dir;
	unsigned row; /* 0: the directory itself; else 1 + index of the row in its table */
	uint64_t id;  /* agent's number; lease's token; serial of a fresh node; else 0; 48 bits */
};

uint64_t node_pack(struct node node);
struct node node_unpack(uint64_t ino);
