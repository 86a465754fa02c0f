/* Open files of the mount: what one open has read, written and asked for. What is read through one
 * open file is one snapshot; what is written is lines or one text; a lease by handle hangs on it.
 * The kernel knows them by numbers that are never pointers. Called by the FUSE thread only, but where
 * it is said otherwise. */
#pragma once

#include "parked.h"
#include "tree.h"

struct open_files;

struct snapshots;

/* All that is given outlives it. NULL on ENOMEM. */
struct open_files *open_files_new(struct ap_pool *pool, struct parked_set *parked,
				  struct snapshots *snapshots);

/* From now on texts can be given to the kernel through that session. Before its first request. */
void open_files_serve(struct open_files *files, struct fuse_session *session);

/* Whether the texts made for readers are too many bytes already for another. */
bool open_files_are_full(const struct open_files *files);

void open_files_free(struct open_files *files);

/* Has the text of a file made that is not open, and is told its length, on any thread: it is what
 * the open that follows reads. -1: it cannot be made, or not without waiting for an agent; that open
 * says why, or waits. Replies itself where there is nobody to be told any more. */
typedef void open_file_measured(fuse_req_t req, struct node node, int64_t size);
void open_file_measure(struct open_files *files, fuse_req_t req, struct node node,
		       open_file_measured *measured);

/* Each replies to the request exactly once, now or later. */
void open_file_open(struct open_files *files, fuse_req_t req, struct node node,
		    struct fuse_file_info *fi);
void open_file_read(struct open_files *files, fuse_req_t req, size_t size, off_t offset,
		    struct fuse_file_info *fi);
void open_file_write(struct open_files *files, fuse_req_t req, const char *data, size_t size,
		     struct fuse_file_info *fi);
void open_file_flush(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi);
/* `handle` is taken; NULL: nobody is to be notified. */
void open_file_poll(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi,
		    struct fuse_pollhandle *handle);
void open_file_release(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi);

/* There are more events, or there will be none, or what is shown may have changed: has those know
 * who follow and who poll. Any thread that serves no request, without locks. */
void open_files_changed(struct open_files *files);

/* Whether all who read the events as a stream have read them to their end, or have closed the file.
 * Of a pool that has ended; any thread. */
bool open_files_end_is_told(struct open_files *files);
