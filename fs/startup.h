/* Turns what the daemon inherits from its caller into what a daemon needs: descriptors, signals,
 * environment, umask and limits, here and nowhere else. It then makes no difference whether a
 * shell, a git hook, cron, mount(8) or a service manager started it. Call before any thread
 * starts. */
#pragma once

#include "../core/agentpool.h"

/* Does all of this, first thing in main(). */
void startup(void);

/* Blocks the signals that end the pool, and returns them for a thread that waits with sigwait(). */
void startup_block_signals(sigset_t *ret);

/* Whether fewer files can be open than so many agents need; `ret` then has the sentence. */
bool startup_lacks_files(unsigned n_agents, struct ap_err *ret);

/* Closes the inherited descriptors other than the standard ones: a daemon keeps nothing of its
 * caller's. No program that the daemon starts gets them in any case. */
void startup_let_go(void);
