/* The tmux server behind a socket, as a process. The functions find the server also when its socket
 * is gone, and end it whether it can be reached or not. A record beside the socket, `tmux.pid`,
 * names the server by pid and start time; without a record it is the process that listens at the
 * socket and was started for it. They never signal somebody else's server, whatever stands in the
 * socket's place. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

struct tmux_server {
	pid_t pid; /* 0: there is none, or it is not known */
	uint64_t start;
};

/* Finds the live server of a socket. Does not block. */
struct tmux_server tmux_server_find(const char *socket);

/* A pidfd of the server, and not of another process that has its pid now. -1: the server has ended,
 * waited for or not. */
int tmux_server_open(const struct tmux_server *server);

/* Whether the server still lives. */
bool tmux_server_lives(const struct tmux_server *server);

/* Whether the server is stopped: it answers nothing until somebody continues it. */
bool tmux_server_stopped(const struct tmux_server *server);

/* Writes the record, for the next daemon. */
int tmux_server_record(const char *socket, const struct tmux_server *server, struct ap_err *err);

/* Whether the socket leads to the server; true also if that cannot be told now. Does not block. */
bool tmux_server_reached(const struct tmux_server *server, const char *socket);

/* Asks the server to create its socket again, in place of whatever is there. Does not wait for
 * it. */
void tmux_server_restore(const struct tmux_server *server);

/* Makes sure that the socket leads to the server. -ETIMEDOUT: the server does not create it, as
 * when it is stopped. Blocks for a second at most. */
int tmux_server_reach(const struct tmux_server *server, const char *socket, struct ap_err *err);

/* Ends the server, also a stopped one, and waits until it has ended; kills it after three seconds.
 * The shims in its terminals then end their trees by themselves. Removes the socket and the
 * record. */
void tmux_server_end(const struct tmux_server *server, const char *socket);
