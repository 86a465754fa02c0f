/* What a daemon inherits from whoever starts it, made what a daemon needs: descriptors, signals,
 * environment, umask and limits, all of it here and nowhere else. Whether it is a shell, a git
 * hook, cron, mount(8) or a service manager makes no difference then. Before any thread. */
#pragma once

#include "../core/agentpool.h"

/* All of it, first thing in main(). */
void startup(void);

/* The signals that end the pool are left to whoever waits for them with sigwait(). */
void startup_block_signals(sigset_t *ret);

/* Says in `ret` if fewer files can be open than so many agents need; false: there are enough. */
bool startup_lacks_files(unsigned n_agents, struct ap_err *ret);

/* Closes the descriptors that were inherited beside the standard ones: a daemon keeps nothing of
 * its caller's. They reach no program that it starts in any case. */
void startup_let_go(void);
