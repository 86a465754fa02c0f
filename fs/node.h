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
	NODE_AGENT, /* id: the agent's number, see node_agent() */
	NODE_LEASES,
	NODE_N_DIRS,
};

struct node {
	enum node_dir dir;
	unsigned row; /* 0: the directory itself; else 1 + index of the row in its table */
	uint64_t id;  /* agent's number, of 32 bits; lease's token; serial; else 0; 48 bits */
};

/* Another node of the same file: its id is a serial, or has one above the number of the agent. */
static inline struct node node_fresh(struct node node, uint64_t serial)
{
	node.id =
		node.dir == NODE_AGENT ? (node.id & UINT32_MAX) | (serial & 0xffff) << 32 : serial;
	return node;
}

/* The number of the agent that a node of NODE_AGENT is about. */
static inline uint32_t node_agent(struct node node)
{
	return (uint32_t)node.id;
}

uint64_t node_pack(struct node node);
struct node node_unpack(uint64_t ino);
