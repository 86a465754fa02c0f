/* Lists of files with their stamps, as a tree: a node is a name in a directory, and the children of
 * a node lie side by side in the order of their names. A list has the same form on the disk as in
 * memory; layer_list_read() refuses a damaged one. Private to the code that reads layers. */
#pragma once

#include "layer.h"

#define LAYER_ROOT 0U	      /* the node of the top */
#define LAYER_NONE UINT32_MAX /* no node: nothing is below it either */

/* What a list says of a name; mode 0: it has gone. */
struct layer_node {
	uint64_t ino, size;
	int64_t mtime_ns, ctime_ns;
	uint32_t mode;
	uint32_t name;	   /* where it begins in the names */
	uint32_t first, n; /* its children */
};

struct layer_list {
	struct ap_buf nodes, names;
	int64_t moment_ns; /* wall clock; when its making began */
};

/* An empty one, made now. NULL on ENOMEM. */
struct layer_list *layer_list_new(void);

/* Adds a name to the directory that is being filled. The caller adds all its names, then calls
 * layer_list_end_dir() with `first`, the number of nodes that there were before. -ENOMEM; -EFBIG:
 * the list is full. */
int layer_list_add(struct layer_list *list, const char *name, const struct layer_stamp *stamp);
uint32_t layer_list_count(const struct layer_list *list);
void layer_list_end_dir(struct layer_list *list, uint32_t dir, uint32_t first);

/* Writes the list beside `file`, and renames that to `file`. */
int layer_list_write(const struct layer_list *list, const char *file, struct ap_err *err);

/* The node of a name in a directory, by binary search; LAYER_NONE: there is none, as if `list` is
 * NULL or `dir` is LAYER_NONE. */
uint32_t layer_list_find(const struct layer_list *list, uint32_t dir, const char *name);
const struct layer_node *layer_list_node(const struct layer_list *list, uint32_t node);
const char *layer_list_name(const struct layer_list *list, uint32_t node);

/* Whether a node has that stamp. */
bool layer_node_equals(const struct layer_node *node, const struct layer_stamp *stamp);

/* Whether the file of a node could have changed since the list was made and still have its stamp.
 */
bool layer_node_is_racy(const struct layer_list *list, const struct layer_node *node);

/* ns of a tick of the clock that the kernel stamps files with. */
int64_t layer_tick_ns(void);
