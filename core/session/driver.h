/* How a session communicates with its program: one driver per way. The profile's mode chooses it.
 */
#pragma once

#include "session_internal.h"

struct session_driver {
	/* The program runs in a terminal; otherwise its input is a FIFO and its output a file. */
	bool needs_terminal;

	/* Gives the program a prompt, and checks whether the program accepted it. In the lane;
	 * blocks as the backend does. -EAGAIN: too early, the program got nothing of the prompt;
	 * -ECANCELED: delivery_is_void(); -EIO, … */
	int (*deliver)(struct session *session, const struct ap_buf *text,
		       enum session_outcome *ret, struct ap_err *err);

	/* Consumes the plain text of what the program has printed since the last call. NULL: the
	 * driver finds no events in it. output_lock held. */
	void (*printed)(struct session *session, const struct ap_buf *text);

	/* Appends the answer to the last prompt. NULL: the answer is the output since that prompt.
	 * output_lock held. */
	void (*response)(const struct session *session, struct ap_buf *ret);
};

extern const struct session_driver driver_terminal, driver_stream;
