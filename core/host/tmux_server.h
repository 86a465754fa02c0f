/* The server of tmux behind a socket, as a process: found again when the socket has gone, ended
 * whether it can be reached or not. A record beside the socket, `tmux.pid`, names it by pid and
 * time of start; without one it is whoever listens at the socket and was started for it. Nobody
 * else's server is ever signalled, whatever stands in the socket's place. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

struct tmux_server {
	pid_t pid; /* 0: there is none, or it is not known */
	uint64_t start;
};

/* The one that lives. Does not block. */
struct tmux_server tmux_server_find(const char *socket);

/* Whether it lives still. */
bool tmux_server_lives(const struct tmux_server *server);

/* Whether it stands still: it answers nothing until somebody has it go on. */
bool tmux_server_stopped(const struct tmux_server *server);

/* Writes the record, for who comes after us. */
int tmux_server_record(const char *socket, const struct tmux_server *server, struct ap_err *err);

/* Whether the socket leads to it. Does not block. */
bool tmux_server_reached(const struct tmux_server *server, const char *socket);

/* Asks it to make the socket anew, in place of whatever is there. Does not wait for it. */
void tmux_server_restore(const struct tmux_server *server);

/* Sees to it that the socket leads to it. -ETIMEDOUT: it does not make it, as one that stands
 * still. Blocks for a second at most. */
int tmux_server_reach(const struct tmux_server *server, const char *socket, struct ap_err *err);

/* Ends it, one that stands still too, and waits until it has ended; made to after three seconds.
 * The shims in its terminals then end their trees by themselves. Takes socket and record away. */
void tmux_server_end(const struct tmux_server *server, const char *socket);
