#include "node.h"

#define ROOT_INO 1 /* FUSE_ROOT_ID: fixed by the protocol */
#define ID_BITS	 NODE_ID_BITS
#define ROW_BITS 8
#define ID_MASK	 ((UINT64_C(1) << ID_BITS) - 1)
#define ROW_MASK ((1u << ROW_BITS) - 1)

uint64_t node_pack(struct node node)
{
	if (node.dir == NODE_ROOT && node.row == 0)
		return ROOT_INO;
	return (uint64_t)node.dir << (ID_BITS + ROW_BITS) | (uint64_t)node.row << ID_BITS |
	       (node.id & ID_MASK);
}

struct node node_unpack(uint64_t ino)
{
	if (ino == ROOT_INO)
		return (struct node){.dir = NODE_ROOT};
	return (struct node){
		.dir = (enum node_dir)(ino >> (ID_BITS + ROW_BITS)),
		.row = (unsigned)(ino >> ID_BITS) & ROW_MASK,
		.id = ino & ID_MASK,
	};
}
