/* The client's end of the Agent Client Protocol, version 1 (agentclientprotocol.com): JSON-RPC 2.0,
 * one message a line. Takes the lines of a program, composes ours, and keeps what the program has
 * told: its session, its turn, what it asks, its tool calls, its plan.
 *
 * Knows no file, process, lock or clock: the owner serialises the calls, writes what acp_next()
 * returns to the program, and says which byte of the program's output a line ends at. These offsets
 * let a new owner read the same output again after the old one has died: what was answered is not
 * answered twice. All that the program says is data: bounded, and tamed before anybody sees it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"
#include "list.h"
#include "permission.h"
#include "profile.h"
#include "states.h"
#include "usage.h"

#define ACP_LINE_MAX	 (16 << 20) /* bytes of a line; the owner drops longer ones */
#define ACP_RESPONSE_MAX (16 << 20) /* bytes kept of an answer; of a longer one the end */
#define ACP_PENDING_MAX	 64	    /* requests of the program that wait; more are refused */
#define ACP_CALLS_MAX	 256	    /* tool calls that have not ended */
#define ACP_OUTBOX_MAX	 1024	    /* answers that wait for a program to read; more are dropped */
#define ACP_ID_MAX	 128	    /* bytes of a session's id, with the NUL */

/* Values in a line; one with more is skipped: they would take a hundred times their length. */
#define ACP_VALUES_MAX (1 << 18)

struct acp;

/* NULL on ENOMEM. */
struct acp *acp_new(void);
void acp_free(struct acp *acp);

/* --- a connection --- */

/* Begins with a program that starts now, whose output begins at `at`: forgets the last one, of
 * which calls that have not ended are told, and greets it. It will work in `cwd`, and goes on with
 * the session `resume` if it can; "": a new one. The pairs of `configure` are options of the
 * session, and live as long as `acp`. */
void acp_begin(struct acp *acp, int64_t at, const char *cwd, const char *resume,
	       const struct profile_pairs *configure);

/* Take over a program from an owner that has died: first acp_adopt() with that owner's record ("":
 * there is none) and the size of the output, then acp_was_sent() with each line of what it had
 * sent, then acp_line() with the output again; acp_go_on() ends that, and says what the old owner
 * did not. */
void acp_adopt(struct acp *acp, const char *record, int64_t size, const char *cwd,
	       const struct profile_pairs *configure);
void acp_was_sent(struct acp *acp, const char *record);
void acp_go_on(struct acp *acp);

/* Appends what the next owner needs to know. False: it is as when this was last called.
 * acp_has_news(): that has changed, or there is a message to write. */
bool acp_record(struct acp *acp, struct ap_buf *ret);
bool acp_has_news(struct acp *acp);

/* Where the output of the program begins. */
int64_t acp_begins_at(const struct acp *acp);

/* --- what the program says --- */

/* Takes a line without its newline, which ends before the byte `at` of the output.
 * acp_line_dropped(): one that was too long. acp_error_line(): one of its standard error. */
void acp_line(struct acp *acp, const char *line, size_t len, int64_t at);
void acp_line_dropped(struct acp *acp);
void acp_error_line(struct acp *acp, const char *line, size_t len);

/* What it does, and why that is known, in ACTIVITY_WHY_MAX bytes. */
enum ap_activity acp_activity(const struct acp *acp, char *ret_why);

/* The n-th of what it asks, from 0 on, in the order in which it asked; ret->id "": there is none.
 */
void acp_question(const struct acp *acp, unsigned nth, struct question *ret);

/* What has come of it since the owner took it out: text for people; and lines of JSON, one a tool
 * call that has ended. */
struct ap_buf *acp_text(struct acp *acp);
struct ap_buf *acp_calls(struct acp *acp);

/* Likewise what it has reported of its use: a struct ap_usage_report each. An owner that has
 * adopted the program gets some that the one before has got. */
struct ap_buf *acp_usage(struct acp *acp);

/* Fills in where the counters of the program count now. */
void acp_context(const struct acp *acp, struct ap_usage_report *ret);

/* The text with which a turn has ended since this was last called, but for one that was cancelled:
 * its last message, or its error and on a line of its own what the program says beside; the end of
 * it, if it is long. And where the output was then. NULL: none has. Lives as `acp` does not change.
 */
const char *acp_turn_over(struct acp *acp, int64_t *ret_at);

/* They live as long as `acp` does not change. acp_session(): "": none is open. acp_gone(): the
 * session that the program could not go on with, once; "": none. */
const char *acp_gone(struct acp *acp);
const char *acp_response(const struct acp *acp);
const char *acp_plan(const struct acp *acp);
const char *acp_stop_reason(const struct acp *acp);
const char *acp_session(const struct acp *acp);

/* The output begins anew, at byte 0, of a program that goes on: what was said so far is forgotten.
 */
void acp_forget_output(struct acp *acp);

/* The calls that end before the byte `at` of the output are known already. */
void acp_calls_known(struct acp *acp, int64_t at);

/* --- what we say --- */

/* Composes a prompt, and begins its turn: appends the line. -EAGAIN: no session is open, or a turn
 * is under way; -EILSEQ: the text is no UTF-8; -ENOMEM. acp_prompt_failed(): it was not written. */
int acp_prompt(struct acp *acp, const char *text, size_t len, struct ap_buf *ret_line);
void acp_prompt_failed(struct acp *acp);

/* Nobody knows whether the prompt under way was written. Until the program says something of its
 * turn it counts as waiting, and acp_cancel() ends the turn without its answer. */
void acp_prompt_unsure(struct acp *acp);

/* Breaks off the turn: what the program asks is answered by that. */
void acp_cancel(struct acp *acp);

/* Closes the session and opens another one, or goes on with `resume` ("": a new one). -EAGAIN: no
 * session is open, or a turn is under way; -EOPNOTSUPP: the program cannot go on with one. */
int acp_reopen(struct acp *acp, const char *resume);

/* Who gives an answer: a user, or a rule. */
struct acp_giver {
	uid_t uid;
	const char *rule; /* NULL: the user */
};

/* Answers what the program asks: the request of that id ("": the first), by an option's id, by
 * allow, always or reject, or by cancel. `ret_option` points into `ret_asked`; NULL for cancel.
 * -ENODATA: it asks no such thing; -EINVAL: it does not offer that. */
int acp_answer(struct acp *acp, const char *id, const char *word, const struct acp_giver *giver,
	       struct question *ret_asked, const struct question_option **ret_option);

/* Sets which requests are answered by rule, as ap_permission_parse() has it, those that wait
 * included. */
void acp_permit(struct acp *acp, uint32_t policy);

/* A message to the program. */
struct acp_message {
	struct ap_list link;
	char *line; /* with its newline */
	size_t len;
	char *record;		/* a line for acp_was_sent(), to be kept once this is written; NULL:
				 * none */
	unsigned start;		/* acp_start() when it was composed */
	struct question *asked; /* what a rule has answered by this; NULL: nothing */
	int option;		/* of that */
	char rule[AP_PERMISSION_MAX + 16];
};

/* Takes out the next message, which the caller frees. NULL: there is none. */
struct acp_message *acp_next(struct acp *acp);

/* The number of acp_begin()s: a message of an earlier one is to a program that has ended. */
unsigned acp_start(const struct acp *acp);
void acp_message_free(struct acp_message *message);
