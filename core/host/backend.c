/* The backends that run programs, and which of them a pool needs. */
#include "backend.h"

const bool backend_runs_programs = true;

int backend_new(struct backend **ret, bool terminal, const char *state_dir, const char *shim,
		struct ap_err *err)
{
	if (terminal)
		return backend_tmux_new(ret, state_dir, shim, err);
	/* the pool may have had terminals before, which nobody else would end */
	backend_tmux_end_left(state_dir);
	return backend_pipe_new(ret, state_dir, shim, err);
}

pid_t backend_left(const char *state_dir, int *ret_pidfd)
{
	return backend_tmux_left(state_dir, ret_pidfd);
}
