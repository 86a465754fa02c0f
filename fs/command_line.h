/* The command line: words and options, of the pool, of FUSE, and of mount(8), which hands its own
 * on. What is bad is said on standard error, before anything is begun. */
#pragma once

#include <fuse_lowlevel.h>

#include "../core/agentpool.h"

struct command_line {
	bool foreground, debug;
	const char *repo, *mountpoint;
	const char *const *program; /* after --; NULL: none */
	unsigned max_read; /* of -o max_read=; 0: not given */
	struct ap_config config;
	struct fuse_args fuse;
};

/* 0: mount; else the exit code plus 1 of what is done already. */
int command_line_parse(struct command_line *line, int argc, char **argv);

/* A session of FUSE with its options; nothing is mounted. NULL: it refuses one. */
struct fuse_session *command_line_session(struct command_line *line,
					  const struct fuse_lowlevel_ops *ops, size_t ops_size,
					  void *data);
