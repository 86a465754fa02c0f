/* Node numbers: a stable identity packed into 64 bits. This daemon and a later one find the node
 * that the kernel asks for from its number alone, and remember nothing about it. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Every directory is one table of rows. */
enum node_dir {
	NODE_ROOT,
	NODE_STATS,
	NODE_CONFIG,
	NODE_AGENTS,
	NODE_AGENT, /* id: the agent's number, see node_number() */
	NODE_LEASES,
	NODE_KEPT,
	NODE_KEPT_ONE, /* id: the number of the kept work, see node_number() */
	NODE_N_DIRS,
};

struct node {
	enum node_dir dir;
	unsigned row; /* 0: the directory itself; else 1 + index of the row in its table */
	uint64_t id;  /* number of an agent or of kept work; lease's token; serial; else 0;
			 NODE_ID_BITS wide */
};

#define NODE_ID_BITS	 52
#define NODE_NUMBER_BITS 28 /* of a number; the serial is in the bits above */
#define NODE_NUMBER_MASK ((UINT64_C(1) << NODE_NUMBER_BITS) - 1)

/* Whether the id of a node holds a number: of an agent or of kept work. */
static inline bool node_has_number(struct node node)
{
	return node.dir == NODE_AGENT || node.dir == NODE_KEPT_ONE;
}

static inline uint32_t node_number(struct node node)
{
	return (uint32_t)(node.id & NODE_NUMBER_MASK);
}

/* The file that a node belongs to: the node without its serial. Packed, it is the inode number. */
static inline struct node node_file(struct node node)
{
	if (node_has_number(node))
		node.id = node_number(node);
	else if (node.dir != NODE_LEASES)
		node.id = 0;
	return node;
}

/* Another node of the same file, told apart by `serial`; not of a lease, whose id is its token.
 * Serials wrap around. */
static inline struct node node_fresh(struct node node, uint64_t serial)
{
	node = node_file(node);
	if (node_has_number(node))
		serial <<= NODE_NUMBER_BITS;
	node.id |= serial & ((UINT64_C(1) << NODE_ID_BITS) - 1);
	return node;
}

uint64_t node_pack(struct node node);
struct node node_unpack(uint64_t ino);
