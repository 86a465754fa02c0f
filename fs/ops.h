/* The FUSE operations: decode, ask tree.c or open_file.c, reply exactly once. */
#pragma once

#include "open_file.h"
#include "snapshot.h"

struct mount {
	struct ap_pool *pool;
	struct snapshots *snapshots;
	struct open_files *files;
	struct fuse_session *session;
	uid_t uid; /* owner of everything in the mount */
	gid_t gid;
	int umask; /* cleared from modes that are then alike for everybody; -1: the rows' modes */
	unsigned max_read; /* of -o max_read=, which FUSE needs at the mount and in INIT; 0: none */
	struct timespec since;
	void (*answers)(void *data); /* called once, when the kernel's INIT request comes */
	void *data;
};

extern const struct fuse_lowlevel_ops mount_ops; /* their user data is a struct mount */

/* Invalidates the kernel's directory entry of agents/NAME. Any thread that serves no request,
 * without locks. */
void mount_forget_agent(struct mount *mount, const char *name);
