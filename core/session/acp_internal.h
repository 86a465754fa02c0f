/* Shared by acp.c, which speaks the protocol, and acp_told.c, which keeps what the program tells of
 * its work. */
#pragma once

#include <jansson.h>

#include "acp.h"
#include "activity.h"
#include "text.h"

/* How far the connection is. */
enum acp_phase {
	ACP_NOTHING,	 /* no program */
	ACP_GREETING,	 /* initialize is not answered */
	ACP_OPENING,	 /* session/new, resume or load is not */
	ACP_CONFIGURING, /* an option of the session is being set */
	ACP_OPEN,
	ACP_LOGIN,  /* it wants a login first */
	ACP_FAILED, /* there is no session to be had */
};

/* What a request of ours is about: the low bits of its id. */
enum acp_request {
	ACP_INITIALIZE = 1,
	ACP_NEW,
	ACP_RESUME,
	ACP_LOAD,
	ACP_CONFIGURE,
	ACP_PROMPT,
	ACP_CLOSE,
};

/* A request of the program's that is not answered. */
struct acp_pending {
	struct ap_list link;
	json_t *id; /* of its message */
	int64_t at;
	bool unknown;			     /* a method that we do not have */
	const char *refused;		     /* why nobody is asked; NULL: somebody is */
	bool over;			     /* its turn has ended */
	char call[ACP_ID_MAX];		     /* the tool call that it is about; "" */
	struct question *question;	     /* NULL if unknown */
	char *options[QUESTION_OPTIONS_MAX]; /* the program's own ids of its options */
};

/* A tool call that has not ended. */
struct acp_call {
	char id[ACP_ID_MAX];
	json_t *told;	    /* an object: title, kind, status, input, locations */
	json_t *permission; /* what was answered; NULL: nothing was asked */
};

/* What an earlier owner had sent in answer to the request that ends at `at`. */
struct acp_sent {
	int64_t at;
	json_t *record;
};

struct acp {
	enum acp_phase phase;
	bool adopting;
	unsigned start;		      /* acp_begin()s so far */
	unsigned n_skipped;	      /* lines of this program that were no messages */
	bool anew;		      /* the session is opened in place of another */
	int64_t at;		      /* the end of the line that was taken last */
	int64_t started;	      /* where the program's own output begins */
	int64_t quiet[2];	      /* between them the program repeats an old conversation */
	int64_t prompted;	      /* where the output since the last prompt begins */
	bool past_start, past_prompt; /* while adopting: a line from behind them was taken */
	int64_t last_id, awaited;     /* ids of ours; 0: none */
	int64_t prompt;		      /* of the turn under way; 0: none */
	int64_t last_prompt;	      /* of the last turn, under way or not */
	int64_t issued;		      /* the highest id that a prompt has got, whoever's */
	int64_t opening;	      /* id of the request that has opened the session */
	bool asked;		      /* since then a prompt was given */
	bool unsure;		      /* it may not have been written */
	bool heard;		      /* since it was, the program has said something of its turn */
	char *cwd;
	char session[ACP_ID_MAX], resume[ACP_ID_MAX];
	char gone[ACP_ID_MAX];	    /* that could not be resumed; "" */
	char gone_told[ACP_ID_MAX]; /* what acp_gone() returned last */
	bool can_load, can_resume, can_close;
	const struct profile_pairs *configure;
	unsigned n_configured;
	json_t *opened; /* the result that opened the session: its options and modes */
	char logins[ACTIVITY_WHY_MAX];
	char trouble[ACTIVITY_WHY_MAX]; /* ACP_FAILED, or how the last turn failed; "" */
	char stop_reason[32];
	uint32_t policy;

	struct ap_buf text; /* for people */
	struct ap_plain filter;
	enum { SAID_NOTHING, SAID_MESSAGE, SAID_THOUGHT } said; /* in the line that goes on */
	bool line_open;						/* it has no newline yet */
	char message[ACP_ID_MAX];				/* the id of the last message */
	bool interrupted; /* a tool call came since its last piece */
	struct ap_buf response, plan, ended;
	struct ap_buf usage; /* reports */
	/* while adopting: the last report of the program's counters; and the last request that has
	 * opened a session there, 0: none yet */
	struct ap_usage_report held;
	int64_t past_opening;
	struct ap_buf over; /* the text with which the last turn has ended */
	int64_t over_at;
	bool is_over; /* acp_turn_over() has not told of it yet */
	int64_t calls_known;
	struct acp_call calls[ACP_CALLS_MAX];
	unsigned n_calls;

	struct ap_list pending, outbox;
	unsigned n_pending, n_outbox;
	struct acp_sent *sent;
	unsigned n_sent;
	bool sent_sorted; /* by the place */
	struct ap_buf recorded;
};

static inline void buf_empty(struct ap_buf *buf)
{
	ap_buf_drop(buf, buf->len);
}

/* --- acp.c --- */

/* Queues the answer to a request, and forgets it. */
void acp_reply(struct acp *acp, struct acp_pending *pending, int option,
	       const struct acp_giver *giver);

/* --- acp_told.c --- */

/* A string as one line of tame text; "" if it is none. */
void acp_one_line(const json_t *string, char *ret, size_t size);

/* Shows a line of our own about the program. */
void acp_say(struct acp *acp, const char *tag, const char *line);

/* Shows a line that is no message. */
void acp_show_line(struct acp *acp, const char *line, size_t len);

/* Takes the `update` of a session/update. */
void acp_take_update(struct acp *acp, json_t *update);

/* Fills in what a session/request_permission asks. False: ENOMEM, or it offers nothing. */
bool acp_fill_question(struct acp *acp, json_t *params, struct acp_pending *ret);

/* Notes what was answered with its tool call. Takes the reference. */
void acp_note_permission(struct acp *acp, const char *call, json_t *permission);

/* Tells of the calls that have not ended, and forgets them: the turn has ended. */
void acp_end_calls(struct acp *acp);

/* Forgets them without a word. */
void acp_forget_calls(struct acp *acp);

/* Ends a line of text. */
void acp_end_line(struct acp *acp);

/* --- acp_usage.c --- */

/* Takes the answer to the prompt of that id, or the `update` of a session/update, for what they say
 * of use. While adopting, of its counters the last ones alone are reported: by acp_report_held(),
 * at the end, if no session was opened behind them; acp_pass_opening() says that one was. */
void acp_take_turn_usage(struct acp *acp, int64_t id, const json_t *result);
void acp_take_usage_update(struct acp *acp, json_t *update);
bool acp_turn_has_used(const json_t *result);
void acp_pass_opening(struct acp *acp, int64_t id);
void acp_report_held(struct acp *acp);
