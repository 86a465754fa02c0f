/* Namespaces of users and mounts that a daemon without the right to mount goes into: inside, the
 * kernel lets it mount overlays (user_namespaces(7)). Its user keeps his number, and is the only
 * one that has one there: others' files show as nobody's. What is mounted outside goes on to appear
 * inside, where the machine's mounts are shared; what is mounted inside shows outside below
 * /proc/PID/root of a process inside alone. A process that has gone in cannot come back. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "err.h"

/* Goes into the namespaces of the process that `pidfd` stands for, or with -1 into new ones. Call
 * before any thread starts. -EPERM, -ENOSPC (user.max_user_namespaces), -ESRCH, … */
int namespace_enter(int pidfd, struct ap_err *err);

/* Has a process of its own go there and call `work`. Returns what that returns, with its sentence,
 * or the error of namespace_enter(). Call before any thread starts. Blocks. */
int namespace_try(int pidfd, int (*work)(void *data, struct ap_err *err), void *data,
		  struct ap_err *err);

/* Whether the process is in another namespace of users than the caller. False too if it has ended,
 * or is somebody else's. */
bool namespace_is_other(pid_t pid);

/* Takes from the calling thread, for good, what it may do inside. In the main thread: the kernel
 * lets no helper look at /proc/PID/fd of a process whose main thread may do more than it
 * (ptrace(2), access mode checking). Threads that it has started before keep what they may. */
void namespace_drop(void);

/* Starts a process that does nothing, and so keeps what is mounted inside when the caller ends. All
 * processes of the user, inside and outside, can go through its /proc/PID/root. Returns its pid. */
#define NAMESPACE_KEEPER "agentpool-keep" /* its name */
pid_t namespace_keep(struct ap_err *err);

/* Whether overlayfs keeps its marks in user.overlay.* attributes here, as it has to for whom the
 * machine's own namespace of users gives no right to trusted.* ones. */
bool namespace_marks_as_user(void);
