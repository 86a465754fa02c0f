/* Texts whose size the kernel knows. The kernel reads a file of any kind up to the size that it
 * knows (splice, sendfile, mmap and its page cache do), so the daemon makes a text when the file is
 * looked up, and the open that follows reads that text.
 *
 * Invariant: the length of a node's text never changes, nor does its text while the node is open. A
 * text of another length, or another text while the old one is open, gets another node of the same
 * file, so every reader gets one whole text. All nodes of a file have the file's inode number.
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

/* A node of that file that is not in use yet. */
struct node snapshots_fresh(struct snapshots *set, struct node file);

/* Publishes the text that a user's lookup has made; `ret` is the node that has it now. Reuses the
 * user's last node where the invariant allows it, unless the node is to be `alone`. Takes `text`
 * over, unless the reused node is open with the same text. -ENOMEM. The set forgets texts that
 * nobody opens, the least recent first. */
int snapshot_publish(struct snapshots *set, struct node file, uid_t uid, bool alone,
		     struct ap_buf *text, struct node *ret);

/* Gives a node a text before it is opened, and takes `text` over; a node that has a text keeps
 * that, and `text` stays the caller's. Returns the length of the node's text, or -ENOMEM. */
int64_t snapshot_keep(struct snapshots *set, struct node node, struct ap_buf *text);

/* Opens a node for the caller and gives it a text, taking `text` over; a node that has a text keeps
 * that, and `text` stays the caller's. `ret_first` says whether nobody else has the node open. NULL
 * on ENOMEM. */
struct snapshot *snapshot_enter(struct snapshots *set, struct node node, struct ap_buf *text,
				bool *ret_first);

/* Opens the node's text for the caller, until snapshot_close(); `ret_first` likewise. NULL: the
 * text is forgotten. */
struct snapshot *snapshot_open(struct snapshots *set, struct node node, bool *ret_first);
void snapshot_close(struct snapshots *set, struct snapshot *snapshot);

/* The text of a snapshot that the caller has open. */
const struct ap_buf *snapshot_text(const struct snapshot *snapshot);

/* The length of the node's text; -1: it has none, or it is forgotten. */
int64_t snapshot_size(struct snapshots *set, struct node node);

/* Bytes of all texts that are open. */
size_t snapshots_open_bytes(struct snapshots *set);
