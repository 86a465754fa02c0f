/* Parses the command line: words, and options of the pool, of FUSE and of mount(8), which passes
 * its own on. The parser reports an error on standard error before anything is started. */
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

/* Returns 0 to go on and mount. Any other value is 1 more than the exit code: an option such as
 * --help is done, or an error is reported. */
int command_line_parse(struct command_line *line, int argc, char **argv);

/* Creates a FUSE session with the options of the command line; mounts nothing. NULL: FUSE refuses
 * an option, or memory is short; the function has reported it. */
struct fuse_session *command_line_session(struct command_line *line,
					  const struct fuse_lowlevel_ops *ops, size_t ops_size,
					  void *data);
