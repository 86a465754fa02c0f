#include "usage.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define BILLION	   INT64_C(1000000000)
#define BUDGET_MAX (INT64_C(1) << 60) /* tokens, or money */

const char *const ap_usage_names[AP_N_USAGE] = {
	[AP_USAGE_INPUT] = "input_tokens",	  [AP_USAGE_OUTPUT] = "output_tokens",
	[AP_USAGE_CACHED] = "cached_tokens",	  [AP_USAGE_COST] = "cost_usd",
	[AP_USAGE_CONTEXT_USED] = "context_used", [AP_USAGE_CONTEXT_SIZE] = "context_size",
};

/* --- values --- */

bool ap_usage_is_known(const struct ap_usage *usage)
{
	for (int i = 0; i < AP_N_USAGE; i++) {
		if (usage->at[i] >= 0)
			return true;
	}
	return false;
}

static int64_t sum_of(int64_t a, int64_t b)
{
	int64_t sum;
	return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

void ap_usage_add(struct ap_usage *sum, const struct ap_usage *more)
{
	for (int i = 0; i < AP_N_USAGE; i++) {
		if (more->at[i] < 0)
			continue;
		bool adds = i < AP_N_COUNTERS && sum->at[i] >= 0;
		sum->at[i] = adds ? sum_of(sum->at[i], more->at[i]) : more->at[i];
	}
}

/* Dollars without zeros at the end. */
static void format_money(int64_t money, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%" PRId64 ".%09" PRId64, money / BILLION, money % BILLION);
	while (n > 1 && ret[n - 1] == '0')
		n--;
	n -= ret[n - 1] == '.';
	ret[n] = '\0';
}

void ap_usage_format_value(enum ap_usage_value value, int64_t number, char *ret, size_t size)
{
	if (value == AP_USAGE_COST)
		format_money(number, ret, size);
	else
		snprintf(ret, size, "%" PRId64, number);
}

void ap_usage_format(const struct ap_usage *usage, const char *before, const char *between,
		     const char *behind, struct ap_buf *ret)
{
	char text[32];
	for (int i = 0; i < AP_N_USAGE; i++) {
		if (usage->at[i] < 0)
			continue;
		ap_usage_format_value((enum ap_usage_value)i, usage->at[i], text, sizeof text);
		ap_buf_printf(ret, "%s%s%s%s%s", before, ap_usage_names[i], between, text, behind);
	}
}

void ap_usage_json(const struct ap_usage *usage, struct ap_buf *ret)
{
	ap_buf_adds(ret, "{");
	ap_usage_format(usage, "\"", "\":", ",", ret);
	if (ap_usage_is_known(usage) && ret->len > 0)
		ret->len--; /* the last comma */
	ap_buf_adds(ret, "}");
}

int64_t ap_usage_money(double dollars)
{
	double money = dollars * (double)BILLION;
	return money >= 0 && money < (double)INT64_MAX / 2 ? llround(money) : -1;
}

double ap_usage_dollars(int64_t money)
{
	return (double)money / (double)BILLION;
}

/* A decimal number that stands alone, as programs print it: digits, a point, an exponent. */
static bool read_decimal(const char *text, const char **ret_end, double *ret)
{
	char *end;
	if (!isdigit((unsigned char)*text))
		return false; /* neither a sign nor inf, nan or 0x */
	if (text[0] == '0' && tolower((unsigned char)text[1]) == 'x')
		return false;
	*ret = strtod(text, &end);
	*ret_end = end;
	return isfinite(*ret);
}

static int parse_value(int value, const char *text, int64_t *ret)
{
	const char *end;
	double dollars;
	if (value != AP_USAGE_COST) {
		int r = ap_number_parse(text, ret);
		return r < 0 || (*ret >= 0 && *ret <= AP_USAGE_MAX) ? r : -ERANGE;
	}
	if (!read_decimal(text, &end, &dollars) || *end)
		return -EINVAL;
	*ret = ap_usage_money(dollars);
	return *ret >= 0 ? 0 : -ERANGE;
}

static int parse_line(char *line, struct ap_usage *ret, struct ap_err *err)
{
	const char *name = ap_word_next(&line), *value = ap_word_next(&line);
	for (int i = 0; name && i < AP_N_USAGE; i++) {
		if (strcmp(name, ap_usage_names[i]) != 0)
			continue;
		int r = value && !ap_word_next(&line) ? parse_value(i, value, &ret->at[i])
						      : -EINVAL;
		return r < 0 ? ap_err_set(err, r, "%s: '%.64s' is not %s", name, value ? value : "",
					  i == AP_USAGE_COST ? "an amount of dollars such as 0.05"
							     : "a number of tokens")
			     : 0;
	}
	return name ? ap_err_set(err, -EINVAL,
				 "'%.64s' is none of: input_tokens output_tokens cached_tokens "
				 "cost_usd context_used context_size",
				 name)
		    : 0;
}

int ap_usage_parse(const char *text, struct ap_usage *ret, struct ap_err *err)
{
	char line[256];
	*ret = AP_USAGE_UNKNOWN;
	while (*text) {
		size_t len = strcspn(text, "\n");
		snprintf(line, sizeof line, "%.*s",
			 (int)(len < sizeof line ? len : sizeof line - 1), text);
		int r = parse_line(line, ret, err);
		if (r < 0)
			return r;
		text += len + (text[len] == '\n');
	}
	return 0;
}

/* --- an account --- */

void ap_account_init(struct ap_account *account)
{
	*account = (struct ap_account){
		.lease = AP_USAGE_UNKNOWN, .life = AP_USAGE_UNKNOWN, .last = AP_USAGE_UNKNOWN};
}

void ap_account_begin_lease(struct ap_account *account)
{
	account->lease = AP_USAGE_UNKNOWN;
}

/* What a counter has grown by. */
static int64_t grown(int64_t before, int64_t now)
{
	return before >= 0 && now >= before ? now - before : now;
}

/* Counts the program's own counters; what they were is in `added` before. */
static void count_on(struct ap_account *account, const struct ap_usage_report *report,
		     struct ap_usage *added)
{
	if (report->number && account->context != report->number) {
		account->last = AP_USAGE_UNKNOWN;
		account->context = report->number;
	}
	for (int i = 0; i < AP_N_COUNTERS; i++) {
		int64_t now = added->at[i], before = account->last.at[i];
		if (now < 0)
			continue;
		account->last.at[i] = now;
		added->at[i] = report->is_base && before < 0 ? 0 : grown(before, now);
		if (account->by_turn & 1 << i)
			added->at[i] = -1;
	}
}

static void count_turn(struct ap_account *account, const struct ap_usage_report *report,
		       struct ap_usage *added)
{
	bool again = report->number <= account->turn;
	for (int i = 0; i < AP_N_COUNTERS; i++) {
		if (added->at[i] >= 0)
			account->by_turn |= 1 << i;
		if (again)
			added->at[i] = -1;
	}
	if (!again)
		account->turn = report->number;
}

bool ap_account_count(struct ap_account *account, const struct ap_usage_report *report,
		      struct ap_usage *ret_added)
{
	const struct ap_account before = *account;
	*ret_added = report->usage;
	if (report->is_turn)
		count_turn(account, report, ret_added);
	else
		count_on(account, report, ret_added);
	ap_usage_add(&account->lease, ret_added);
	ap_usage_add(&account->life, ret_added);
	return memcmp(&before, account, sizeof before) != 0;
}

/* The numbers of an account, in the order of its record. */
#define ACCOUNT_N (3 * AP_N_USAGE + 3)

void ap_account_format(const struct ap_account *account, char ret[AP_ACCOUNT_TEXT_MAX])
{
	const struct ap_usage *usages[] = {&account->lease, &account->life, &account->last};
	int n = snprintf(ret, AP_ACCOUNT_TEXT_MAX, "%" PRId64 " %" PRId64 " %" PRId64,
			 account->context, account->turn, account->by_turn);
	for (int i = 0; i < 3 * AP_N_USAGE; i++)
		n += snprintf(ret + n, AP_ACCOUNT_TEXT_MAX - (size_t)n, " %" PRId64,
			      usages[i / AP_N_USAGE]->at[i % AP_N_USAGE]);
}

int ap_account_parse(const char *text, struct ap_account *ret)
{
	int64_t numbers[ACCOUNT_N];
	int end = 0;
	for (int i = 0; i < ACCOUNT_N; i++, text += end) {
		if (sscanf(text, "%" SCNd64 "%n", &numbers[i], &end) != 1)
			return -EINVAL;
	}
	*ret = (struct ap_account){
		.context = numbers[0], .turn = numbers[1], .by_turn = numbers[2]};
	memcpy(ret->lease.at, numbers + 3, sizeof ret->lease.at);
	memcpy(ret->life.at, numbers + 3 + AP_N_USAGE, sizeof ret->life.at);
	memcpy(ret->last.at, numbers + 3 + 2 * AP_N_USAGE, sizeof ret->last.at);
	return 0;
}

/* --- budgets: twice the amount, and one more if that is money --- */

static bool is_money(int64_t budget)
{
	return budget & 1;
}

static int64_t amount_of(int64_t budget)
{
	return budget >> 1;
}

int ap_budget_parse(const char *text, int64_t *ret, struct ap_err *err)
{
	static const struct {
		const char *unit;
		double factor;
		bool money;
	} units[] = {
		{"usd", (double)BILLION, true},
		{"", 1, false},
		{"k", 1e3, false},
		{"K", 1e3, false},
		{"m", 1e6, false},
		{"M", 1e6, false},
	};
	const char *unit;
	double number;
	if (strcmp(text, "none") == 0) {
		*ret = AP_BUDGET_NONE;
		return 0;
	}
	for (size_t i = 0; read_decimal(text, &unit, &number) && i < sizeof units / sizeof *units;
	     i++) {
		if (strcmp(unit, units[i].unit) != 0)
			continue;
		if (number * units[i].factor < 1 || number * units[i].factor > (double)BUDGET_MAX)
			return ap_err_set(err, -ERANGE, "'%.64s' is too little or too much", text);
		*ret = 2 * llround(number * units[i].factor) + units[i].money;
		return 0;
	}
	return ap_err_set(err, -EINVAL,
			  "'%.64s' is no budget: write none, money such as 2.50usd, or tokens such "
			  "as 200k",
			  text);
}

static void format_amount(int64_t budget, int64_t amount, char *ret, size_t size)
{
	ap_usage_format_value(is_money(budget) ? AP_USAGE_COST : AP_USAGE_INPUT, amount, ret, size);
}

void ap_budget_format(int64_t budget, char *ret, size_t size)
{
	char amount[32];
	format_amount(budget, amount_of(budget), amount, sizeof amount);
	if (budget == AP_BUDGET_NONE)
		snprintf(ret, size, "none");
	else
		snprintf(ret, size, "%s%s", amount, is_money(budget) ? "usd" : "");
}

/* What counts against the budget. */
static int64_t used_of(int64_t budget, const struct ap_usage *usage)
{
	int64_t input = usage->at[AP_USAGE_INPUT], output = usage->at[AP_USAGE_OUTPUT];
	if (is_money(budget))
		return usage->at[AP_USAGE_COST] > 0 ? usage->at[AP_USAGE_COST] : 0;
	return sum_of(input > 0 ? input : 0, output > 0 ? output : 0);
}

unsigned ap_budget_percent(int64_t budget, const struct ap_usage *used)
{
	if (budget == AP_BUDGET_NONE)
		return 0;
	int64_t amount = amount_of(budget), of_it = used_of(budget, used);
	double percent = (double)of_it / (double)amount * 100;
	if (of_it >= amount)
		return percent < 1e6 ? (unsigned)percent : 1000000;
	return percent < 99 ? (unsigned)percent : 99;
}

void ap_budget_tell(int64_t budget, const struct ap_usage *used, struct ap_buf *ret)
{
	char of_it[32], all[32];
	format_amount(budget, used_of(budget, used), of_it, sizeof of_it);
	format_amount(budget, amount_of(budget), all, sizeof all);
	ap_buf_printf(ret, "%s of %s %s", of_it, all, is_money(budget) ? "usd" : "tokens");
}
