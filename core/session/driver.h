/* How a session communicates with its program: one driver per way. The profile's mode chooses it.
 */
#pragma once

#include "session_internal.h"

/* NULL hooks do nothing, where no comment says otherwise. */
struct session_driver {
	/* The program runs in a terminal; otherwise its input is a FIFO and its output a file. */
	bool needs_terminal;

	/* What the program says on its standard error goes to a file of its own: its standard
	 * output is for the driver. */
	bool errors_apart;

	/* The program tells which conversation it is in, and is told which to go on with: nothing
	 * of the profile is needed for that. */
	bool converses;

	/* --- its life: `init` when the session is made, false on ENOMEM --- */

	bool (*init)(struct session *session);
	void (*fini)(struct session *session);

	/* Add the driver's own sources to the loop, false on ENOMEM; and remove them, as
	 * loop_remove(). */
	bool (*joins)(struct session *session);
	void (*leaves)(struct session *session);

	/* The files of the output are opened: of a new one, or with `adopt` of one that an earlier
	 * daemon left, which is read again next. -errno. */
	int (*opens)(struct session *session, bool adopt);

	/* A program is about to start, to go on with that conversation ("": a new
	 * one); the output begins anew while it goes on. output_lock held.
	 */
	void (*starts)(struct session *session, const char *conversation);
	void (*forgets)(struct session *session);

	/* The program was started, or was taken up from an earlier daemon. In the lane, or before
	 * it has any job. */
	void (*started)(struct session *session);
	void (*taken_up)(struct session *session);

	/* --- prompts: in the lane; they block as the backend does --- */

	/* Gives the program a prompt, and checks whether the program accepted it. -EAGAIN: too
	 * early, the program got nothing of the prompt; -ECANCELED: delivery_is_void(); -EIO, … */
	int (*deliver)(struct session *session, const struct ap_buf *text,
		       enum session_outcome *ret, struct ap_err *err);

	/* Gives the program the profile's command to forget; `forget` also waits for its effect.
	 * False: it did not come within `limit_ns`. NULL: it has none. */
	int (*command)(struct session *session, const char *text, struct ap_err *err);
	bool (*forget)(struct session *session, const char *text, int64_t limit_ns);

	/* As session_resume(). NULL: only a start of the program can. */
	int (*resume)(struct session *session, const char *conversation, int64_t limit_ns);

	/* Has the program break off what it does: session->n_cancels says that it is asked for, and
	 * the driver subtracts what it has said. Does not block. NULL: the profile's keys do. */
	void (*cancel)(struct session *session);

	/* --- its output: output_lock held --- */

	/* Takes the next bytes that the program has printed, which begin at the offset `at`, and
	 * appends what they are as plain text. */
	void (*printed)(struct session *session, const char *bytes, size_t n, int64_t at,
			struct ap_buf *ret);

	/* The same of its standard error, if that is apart. */
	void (*complained)(struct session *session, const char *bytes, size_t n,
			   struct ap_buf *ret);

	/* Appends the answer to the last prompt. NULL: the answer is the output since that prompt.
	 */
	void (*response)(const struct session *session, struct ap_buf *ret);

	/* Appends what else the program has told. */
	void (*told)(const struct session *session, enum session_told what, struct ap_buf *ret);

	/* Fills in where the program's counters count. NULL: in its process. */
	void (*counts)(const struct session *session, struct ap_usage_report *ret);

	/* After these, with no lock held. */
	void (*heard)(struct session *session);

	/* A prompt was being given when an earlier daemon died: it may have arrived, in part, whole
	 * or not at all. With no lock held. NULL: what the program shows will tell. */
	void (*was_cut)(struct session *session);

	/* --- what it asks; they block as the backend does. NULL: it asks nothing --- */

	/* As session_question(). */
	void (*question)(struct session *session, unsigned nth, struct question *ret);

	/* As session_answer(), of the question of that id ("": the first). `typing` held. */
	int (*answer)(struct session *session, const char *id, const char *word, uid_t uid,
		      struct question *ret_asked, const struct question_option **ret_option,
		      struct ap_err *err);

	/* Answers what it asks now where session->permission says how. True: it may ask more. */
	bool (*rule)(struct session *session);
};

extern const struct session_driver driver_terminal, driver_stream, driver_acp;

/* --- driver_stream.c: programs without a terminal --- */

/* How long a program may take to read its input. */
#define INPUT_LIMIT (30 * AP_SECOND)

/* Opens the FIFO that the program reads; the caller closes it. -EAGAIN: the program has not opened
 * it; -EIO, … */
int input_open(const struct session *session);

/* Writes the rest of a text, of which `done` bytes are written. -ETIMEDOUT: the program does not
 * read; other -errno. */
int input_write(int fd, const char *text, size_t len, int64_t deadline, size_t *done);

/* Writes a whole text, and ends a line that was cut before. `typing` held, or in the lane of a
 * session that nobody else writes to. -EAGAIN: as input_open(); -ETIMEDOUT: the program does not
 * read, and may have a part of it; -EIO, … Blocks up to INPUT_LIMIT. */
int write_input(struct session *session, const char *text, size_t len, struct ap_err *err);

/* --- question.c: a terminal's --- */

void terminal_question(struct session *session, unsigned nth, struct question *ret);
bool terminal_rule(struct session *session);
int terminal_answer(struct session *session, const char *id, const char *word, uid_t uid,
		    struct question *ret_asked, const struct question_option **ret_option,
		    struct ap_err *err);
