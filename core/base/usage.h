/* What programs use: tokens and money. Values as text, the account of an agent, budgets. Knows
 * nothing of programs or leases. Pure.
 *
 * Money is in billionths of a US dollar, so that sums of small costs are exact. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

/* Counters, which add up; and behind them what is so at the moment. */
enum ap_usage_value {
	AP_USAGE_INPUT,	 /* tokens that were read anew, those written to a cache included */
	AP_USAGE_OUTPUT, /* tokens, those of thoughts included */
	AP_USAGE_CACHED, /* tokens that were read from a cache */
	AP_USAGE_COST,
	AP_N_COUNTERS,
	AP_USAGE_CONTEXT_USED = AP_N_COUNTERS, /* tokens */
	AP_USAGE_CONTEXT_SIZE,
	AP_N_USAGE,
};

#define AP_USAGE_MAX (INT64_C(1) << 53) /* of a value that is reported; no sum exceeds INT64_MAX   \
					 */

extern const char *const ap_usage_names[AP_N_USAGE];

/* A value below 0 is not known. */
struct ap_usage {
	int64_t at[AP_N_USAGE];
};

#define AP_USAGE_UNKNOWN ((struct ap_usage){.at = {-1, -1, -1, -1, -1, -1}})

bool ap_usage_is_known(const struct ap_usage *usage);

/* Adds the counters that are known, and takes the other values over. */
void ap_usage_add(struct ap_usage *sum, const struct ap_usage *more);

/* Appends what is known, a name and a value each, with these texts before, between and behind them;
 * money in dollars. */
void ap_usage_format(const struct ap_usage *usage, const char *before, const char *between,
		     const char *behind, struct ap_buf *ret);

/* Appends what is known as an object of JSON. */
void ap_usage_json(const struct ap_usage *usage, struct ap_buf *ret);
void ap_usage_format_value(enum ap_usage_value value, int64_t number, char *ret, size_t size);

/* Reads lines `NAME VALUE`. -EINVAL, -ERANGE, with a sentence. */
int ap_usage_parse(const char *text, struct ap_usage *ret, struct ap_err *err);

/* Money, from and to dollars. A negative or too large amount becomes -1, which is not known. */
int64_t ap_usage_money(double dollars);
double ap_usage_dollars(int64_t money);

/* --- an account --- */

/* What an agent has used, and how far its program's reports are counted. */
struct ap_account {
	struct ap_usage lease, life; /* since the lease began; since the agent was made */
	struct ap_usage last;	     /* what the program's own counters were last */
	int64_t context;	     /* where those count */
	int64_t turn;		     /* the last one that was counted */
	int64_t by_turn;	     /* bits of the counters that come turn by turn */
};

#define AP_ACCOUNT_TEXT_MAX 512

/* A report of a program: what one turn has used; or where its own counters are, in a context of
 * that number. Turns are numbered upwards. A context is a process or a conversation, as the program
 * has it; its counters begin at 0. `is_base`: nothing was used yet in this context, and its
 * counters stand where an earlier one has left them. */
struct ap_usage_report {
	bool is_turn, is_base;
	int64_t number; /* of the turn or the context; 0: the context of the last report */
	struct ap_usage usage;
};

/* Counts a report: a turn once, whoever reports it again; counters by what they have grown since
 * the last report. One that has fallen has begun anew, and was used up to where it is. A counter
 * that was once reported by turns is counted by turns alone. `ret_added` is what was new. False:
 * nothing was. */
bool ap_account_count(struct ap_account *account, const struct ap_usage_report *report,
		      struct ap_usage *ret_added);

/* An empty account. ap_account_begin_lease(): of another lease. */
void ap_account_init(struct ap_account *account);
void ap_account_begin_lease(struct ap_account *account);

/* As one line, for a record; and from it. -EINVAL: it is none. */
void ap_account_format(const struct ap_account *account, char ret[AP_ACCOUNT_TEXT_MAX]);
int ap_account_parse(const char *text, struct ap_account *ret);

/* --- budgets --- */

/* A bound on money, or on tokens read anew and written, as one number. */
#define AP_BUDGET_NONE INT64_C(0)
#define AP_BUDGET_MAX  40 /* bytes of its word, with the NUL */

/* Reads `none`, money such as `2.50usd`, or tokens such as `200k` or `1.5M`. -EINVAL, -ERANGE. */
int ap_budget_parse(const char *text, int64_t *ret, struct ap_err *err);
void ap_budget_format(int64_t budget, char *ret, size_t size);

/* What of a budget is used, in percent; at least 100 when all of it is. 0 where there is none, or
 * the use is not known. */
unsigned ap_budget_percent(int64_t budget, const struct ap_usage *used);

/* Appends "USED of ALLOWED usd" or "... tokens". */
void ap_budget_tell(int64_t budget, const struct ap_usage *used, struct ap_buf *ret);
