/* How a session speaks with its program: a row for each way. A profile's mode chooses the row. */
#pragma once

#include "session_internal.h"

struct session_driver {
	/* The program lives in a terminal; else it has a FIFO for its input, and a file for its
	 * output. */
	bool needs_terminal;

	/* Gives the program a prompt, and sees whether it took it. In the lane; blocks as the
	 * backend does. -EAGAIN: it came too early, and nothing of it was given; -ECANCELED:
	 * delivery_is_void(); -EIO, … */
	int (*deliver)(struct session *session, const struct ap_buf *text,
		       enum session_outcome *ret, struct ap_err *err);

	/* Reads what the program has printed since the last call, as plain text. NULL: it says
	 * nothing beside the text. output_lock held. */
	void (*printed)(struct session *session, const struct ap_buf *text);

	/* Appends the answer to the last prompt. NULL: what was printed since. output_lock held. */
	void (*response)(const struct session *session, struct ap_buf *ret);
};

extern const struct session_driver driver_terminal, driver_stream;
