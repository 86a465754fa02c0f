/* Texts that the kernel has been told the size of. The kernel reads a file of any kind up to the
 * size that it knows (splice, sendfile, mmap and its page cache do), so a text is made when its file
 * is looked up, and is what the open file that follows reads.
 *
 * Invariant: the length of a node's text never changes, nor does its text while the node is open. A
 * text of another length, or another text while the old one is open, is another node of the same
 * file: so whoever reads, and however, reads one whole text. Inode numbers are the file's.
 *
 * Knows nodes and texts, nothing of FUSE or the pool. Any thread may call; nothing blocks. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "buf.h"
#include "node.h"

struct snapshots;
struct snapshot; /* a node with its text */

/* NULL on ENOMEM. */
struct snapshots *snapshots_new(void);
void snapshots_free(struct snapshots *set);

/* Another node of that file: no two that are in use are alike. */
struct node snapshots_fresh(struct snapshots *set, struct node file);

/* Publishes a text for a user who looks the file up, and takes it over: `ret` is the node that has
 * it now. The same node as before where the invariant lets it be, unless it is to be `alone`.
 * -ENOMEM. What nobody opens is forgotten, the least recent first. */
int snapshot_publish(struct snapshots *set, struct node file, uid_t uid, bool alone,
		     struct ap_buf *text, struct node *ret);

/* Gives a node a text before it is opened, which is taken over; a node that has one keeps it. The
 * length of the one that it has then, or -ENOMEM. */
int64_t snapshot_keep(struct snapshots *set, struct node node, struct ap_buf *text);

/* Gives a node that is open its text, which is taken over; a node that has one keeps it. The
 * snapshot is open for the caller; `ret_first` says whether for nobody else. NULL on ENOMEM. */
struct snapshot *snapshot_enter(struct snapshots *set, struct node node, struct ap_buf *text,
				bool *ret_first);

/* The node's text, open for the caller until snapshot_close(); `ret_first` likewise. NULL: it is
 * forgotten. */
struct snapshot *snapshot_open(struct snapshots *set, struct node node, bool *ret_first);
void snapshot_close(struct snapshots *set, struct snapshot *snapshot);

/* The text of a snapshot that the caller has open. */
const struct ap_buf *snapshot_text(const struct snapshot *snapshot);

/* The length of the node's text; -1: it has none, or it is forgotten. */
int64_t snapshot_size(struct snapshots *set, struct node node);

/* Bytes of all texts that are open. */
size_t snapshots_open_bytes(struct snapshots *set);
