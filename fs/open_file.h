/* Open files of the mount: what one open has read, written and asked for. Reads through one open
 * file see one snapshot of a text, and the next one when they read a value again from its start;
 * writes are lines or one text; a lease by handle lives as long as its open file. The kernel knows
 * an open file by a file handle that is never a pointer. For the FUSE thread only, except where a
 * comment says otherwise. */
#pragma once

#include "parked.h"
#include "tree.h"

struct open_files;

struct snapshots;

/* The arguments must outlive the result. NULL on ENOMEM. */
struct open_files *open_files_new(struct ap_pool *pool, struct parked_set *parked,
				  struct snapshots *snapshots);

/* Sets the session through which texts reach the kernel's page cache. Call before its first
 * request. */
void open_files_serve(struct open_files *files, struct fuse_session *session);

/* Whether the texts made for readers are over their limit in bytes: the next one is refused. */
bool open_files_are_full(const struct open_files *files);

void open_files_free(struct open_files *files);

/* Makes the text of a file that is not open and passes its length to `measured`, on any thread; the
 * open that follows reads that text. -1: the text cannot be made, or not without waiting for an
 * agent; the open that follows says why, or waits. If the request is interrupted first, the reply
 * is EINTR and nobody calls `measured`. */
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
/* Takes `handle` over; NULL: the kernel wants no notification. */
void open_file_poll(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi,
		    struct fuse_pollhandle *handle);
void open_file_release(struct open_files *files, fuse_req_t req, struct fuse_file_info *fi);

/* Call when there are more events, when there will be none, or when a shown value may have changed:
 * wakes followers and pollers. Any thread that serves no request, without locks. */
void open_files_changed(struct open_files *files);

/* Whether all who read the events as a stream have read them to their end, or have closed the file.
 * Of a pool that has ended; any thread. */
bool open_files_end_is_told(struct open_files *files);
