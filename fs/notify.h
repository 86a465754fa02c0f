/* Tells the service manager that started the daemon how it is: systemd's protocol, as in
 * sd_notify(3), without its library. Knows the manager's socket; what is told, and when, is the
 * caller's. */
#pragma once

#include "../core/agentpool.h"

/* Sets where the manager listens, as NOTIFY_SOCKET says it: the path of a datagram socket, or @ and
 * a name in the abstract namespace. NULL: there is no manager. Returns 0, or -EINVAL: the address
 * is none, and there is no manager either. Not thread-safe: call before any thread starts. */
int notify_open(const char *address);

/* Sends one message: lines such as "READY=1". Returns 0, also where there is no manager; otherwise
 * -EAGAIN (the manager takes nothing more), -ECONNREFUSED, -ENOENT, … Blocks, for 10 s at most. */
int notify_send(const char *lines, struct ap_err *err);
