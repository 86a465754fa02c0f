/* Giving a program what it is to read. */
#pragma once

#include "session_internal.h"

/* Gives it a prompt, and sees whether it took it. In the lane. -EAGAIN: it came too early, and
 * nothing of it was given; -ECANCELED: the lane is wanted, or the program has ended; -EIO, … */
int deliver(struct session *session, struct prompt *prompt, enum session_outcome *ret,
	    struct ap_err *err);

/* Types keys, in tmux's names or as they stand, with blanks between. Blocks as the backend does. */
int press(struct session *session, const char *keys, struct ap_err *err);
