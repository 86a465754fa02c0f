#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "usage.h"

static struct ap_usage tokens(int64_t input, int64_t output)
{
	struct ap_usage usage = AP_USAGE_UNKNOWN;
	usage.at[AP_USAGE_INPUT] = input;
	usage.at[AP_USAGE_OUTPUT] = output;
	return usage;
}

static struct ap_usage money(double dollars)
{
	struct ap_usage usage = AP_USAGE_UNKNOWN;
	usage.at[AP_USAGE_COST] = ap_usage_money(dollars);
	return usage;
}

static void assert_tells(const struct ap_usage *usage, const char *expected)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_usage_format(usage, "", " ", "\n", &text);
	assert_string_equal(ap_buf_text(&text), expected);
}

/* --- values --- */

static void what_is_not_known_is_absent(void **state)
{
	struct ap_usage usage = AP_USAGE_UNKNOWN;
	assert_false(ap_usage_is_known(&usage));
	assert_tells(&usage, "");
	usage.at[AP_USAGE_OUTPUT] = 0;
	assert_true(ap_usage_is_known(&usage));
	assert_tells(&usage, "output_tokens 0\n");
}

static void lines_are_read_as_they_are_written(void **state)
{
	static const char text[] = "input_tokens 12\noutput_tokens 9007199254740992\n"
				   "cached_tokens 0\ncost_usd 1234.000000001\ncontext_used 7\n"
				   "context_size 200000\n";
	struct ap_usage usage;
	assert_int_equal(ap_usage_parse(text, &usage, NULL), 0);
	assert_tells(&usage, text);
}

static void money_is_read_as_programs_print_it(void **state)
{
	static const struct {
		const char *text, *shown;
	} rows[] = {
		{"0", "0"},	{"0.05", "0.05"},  {"2.50", "2.5"}, {"1.2e-05", "0.000012"},
		{"1e2", "100"}, {"0.1", "0.1"},	   {"3", "3"},	    {"0.0123456789", "0.012345679"},
		{"10", "10"},	{"100.00", "100"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char line[64], shown[64];
		struct ap_usage usage;
		snprintf(line, sizeof line, "cost_usd %s\n", rows[i].text);
		snprintf(shown, sizeof shown, "cost_usd %s\n", rows[i].shown);
		assert_int_equal(ap_usage_parse(line, &usage, NULL), 0);
		assert_tells(&usage, shown);
	}
}

static void what_is_no_usage_is_refused_with_what_there_is(void **state)
{
	static const struct {
		const char *text;
		int error;
	} rows[] = {
		{"input_tokens", -EINVAL},
		{"input_tokens 1 2", -EINVAL},
		{"input_tokens -1", -EINVAL},
		{"input_tokens 1.5", -EINVAL},
		{"input_tokens 0x10", -EINVAL},
		{"input_tokens 9007199254740993", -ERANGE},
		{"input_tokens 99999999999999999999", -ERANGE},
		{"tokens 1", -EINVAL},
		{"cost_usd -0.1", -EINVAL},
		{"cost_usd nan", -EINVAL},
		{"cost_usd inf", -EINVAL},
		{"cost_usd 0x1p3", -EINVAL},
		{"cost_usd 1e300", -ERANGE},
		{"cost_usd 1e999", -EINVAL},
		{"cost_usd 1 usd", -EINVAL},
		{"output_tokens 1\nfrob 2", -EINVAL},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct ap_usage usage;
		struct ap_err err = {""};
		int r = ap_usage_parse(rows[i].text, &usage, &err);
		if (r == 0)
			fail_msg("'%s' is taken", rows[i].text);
		if (rows[i].error == -EINVAL && strstr(rows[i].text, " -1"))
			assert_true(r == -EINVAL || r == -ERANGE);
		else
			assert_int_equal(r, rows[i].error);
		assert_true(strlen(err.text) > 0);
	}
}

static void sums_do_not_overflow(void **state)
{
	struct ap_usage sum = tokens(INT64_MAX - 1, 1), more = tokens(10, 1);
	ap_usage_add(&sum, &more);
	assert_true(sum.at[AP_USAGE_INPUT] == INT64_MAX);
	assert_true(sum.at[AP_USAGE_OUTPUT] == 2);
}

/* --- an account --- */

static bool count(struct ap_account *account, bool is_turn, int64_t number, struct ap_usage usage)
{
	struct ap_usage added;
	return ap_account_count(
		account,
		&(struct ap_usage_report){.is_turn = is_turn, .number = number, .usage = usage},
		&added);
}

static void a_turn_is_counted_once(void **state)
{
	struct ap_account account;
	ap_account_init(&account);
	assert_true(count(&account, true, 16, tokens(100, 10)));
	assert_false(count(&account, true, 16, tokens(100, 10)));
	assert_true(count(&account, true, 32, tokens(50, 5)));
	assert_false(count(&account, true, 16, tokens(100, 10)));
	assert_tells(&account.life, "input_tokens 150\noutput_tokens 15\n");
}

static void counters_are_counted_by_what_they_grow(void **state)
{
	struct ap_account account;
	ap_account_init(&account);
	(void)count(&account, false, 1, money(0.10));
	(void)count(&account, false, 1, money(0.10));
	(void)count(&account, false, 1, money(0.35));
	assert_tells(&account.life, "cost_usd 0.35\n");
	(void)count(&account, false, 1, money(0.05)); /* it has begun anew */
	assert_tells(&account.life, "cost_usd 0.4\n");
	(void)count(&account, false, 2, money(0.05)); /* another context */
	(void)count(&account, false, 2, money(0.06));
	assert_tells(&account.life, "cost_usd 0.46\n");
}

static void a_base_is_where_a_context_begins(void **state)
{
	struct ap_account account;
	struct ap_usage added;
	ap_account_init(&account);
	struct ap_usage_report report = {.is_base = true, .number = 5, .usage = money(1)};
	(void)ap_account_count(&account, &report, &added);
	assert_true(added.at[AP_USAGE_COST] == 0);
	report.usage = money(1.25); /* still before the first prompt, and yet it has grown */
	(void)ap_account_count(&account, &report, &added);
	report.is_base = false;
	report.usage = money(1.5);
	(void)ap_account_count(&account, &report, &added);
	assert_tells(&account.life, "cost_usd 0.5\n");
}

static void a_counter_that_comes_by_turns_is_counted_by_turns_alone(void **state)
{
	struct ap_account account;
	ap_account_init(&account);
	(void)count(&account, true, 1, tokens(10, 1));
	struct ap_usage both = money(0.5);
	both.at[AP_USAGE_INPUT] = 1000;
	(void)count(&account, false, 1, both);
	assert_tells(&account.life, "input_tokens 10\noutput_tokens 1\ncost_usd 0.5\n");
}

static void a_context_is_no_use(void **state)
{
	struct ap_account account;
	struct ap_usage usage = AP_USAGE_UNKNOWN;
	ap_account_init(&account);
	usage.at[AP_USAGE_CONTEXT_USED] = 900;
	usage.at[AP_USAGE_CONTEXT_SIZE] = 1000;
	(void)count(&account, false, 1, usage);
	usage.at[AP_USAGE_CONTEXT_USED] = 100; /* it was compacted */
	(void)count(&account, false, 1, usage);
	assert_tells(&account.lease, "context_used 100\ncontext_size 1000\n");
}

static void a_lease_begins_with_nothing_and_the_life_goes_on(void **state)
{
	struct ap_account account;
	ap_account_init(&account);
	(void)count(&account, true, 1, tokens(10, 1));
	ap_account_begin_lease(&account);
	assert_tells(&account.lease, "");
	(void)count(&account, true, 1, tokens(10, 1));
	assert_tells(&account.lease, "");
	(void)count(&account, true, 2, tokens(5, 2));
	assert_tells(&account.lease, "input_tokens 5\noutput_tokens 2\n");
	assert_tells(&account.life, "input_tokens 15\noutput_tokens 3\n");
}

static void a_record_has_all_of_an_account(void **state)
{
	struct ap_account account, again;
	char text[AP_ACCOUNT_TEXT_MAX], text_again[AP_ACCOUNT_TEXT_MAX];
	ap_account_init(&account);
	for (int i = 0; i < AP_N_USAGE; i++)
		account.lease.at[i] = account.life.at[i] = account.last.at[i] = INT64_MIN + i;
	account.context = account.turn = INT64_MIN;
	account.by_turn = 15;
	ap_account_format(&account, text);
	assert_true(strlen(text) < AP_ACCOUNT_TEXT_MAX - 1);
	assert_int_equal(ap_account_parse(text, &again), 0);
	ap_account_format(&again, text_again);
	assert_string_equal(text, text_again);
	assert_int_equal(ap_account_parse("", &again), -EINVAL);
	text[strlen(text) / 2] = 'x';
	assert_int_equal(ap_account_parse(text, &again), -EINVAL);
}

/* --- budgets --- */

static void budgets_are_read_and_written(void **state)
{
	static const struct {
		const char *text, *again;
	} rows[] = {
		{"none", "none"},    {"2.50usd", "2.5usd"},  {"200k", "200000"},
		{"1.5M", "1500000"}, {"0.05usd", "0.05usd"}, {"1000", "1000"},
		{"3K", "3000"},	     {"2m", "2000000"},	     {"1e-9usd", "0.000000001usd"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[AP_BUDGET_MAX];
		int64_t budget, again;
		assert_int_equal(ap_budget_parse(rows[i].text, &budget, NULL), 0);
		ap_budget_format(budget, text, sizeof text);
		assert_string_equal(text, rows[i].again);
		assert_int_equal(ap_budget_parse(text, &again, NULL), 0);
		assert_true(again == budget);
	}
}

static void other_words_are_no_budget(void **state)
{
	static const char *const bad[] = {"",	 "usd",	   "-1",   "5eur", "1 usd", "1usd ",
					  "nan", "infusd", "0x10", "k",	   "1kk",   "$1"};
	int64_t budget;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(ap_budget_parse(bad[i], &budget, NULL), -EINVAL);
	assert_int_equal(ap_budget_parse("0", &budget, NULL), -ERANGE);
	assert_int_equal(ap_budget_parse("0usd", &budget, NULL), -ERANGE);
	assert_int_equal(ap_budget_parse("1e30", &budget, NULL), -ERANGE);
}

static unsigned percent(const char *budget, struct ap_usage used)
{
	int64_t number;
	assert_int_equal(ap_budget_parse(budget, &number, NULL), 0);
	return ap_budget_percent(number, &used);
}

static void a_budget_is_used_up_when_all_of_it_is_used(void **state)
{
	assert_int_equal(percent("0.05usd", money(0.049999999)), 99);
	assert_int_equal(percent("0.05usd", money(0.05)), 100);
	assert_int_equal(percent("0.05usd", money(0.04)), 80);
	assert_int_equal(percent("1k", tokens(500, 499)), 99);
	assert_int_equal(percent("1k", tokens(500, 500)), 100);
	assert_int_equal(percent("1k", tokens(-1, 2000)), 200);
	assert_int_equal(percent("1k", money(100)), 0);
	assert_int_equal(percent("1usd", tokens(1000, 1000)), 0);
	assert_int_equal(percent("none", tokens(1000, 1000)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("what is not known is absent, and not 0", what_is_not_known_is_absent),
		IT("lines are read as they are written", lines_are_read_as_they_are_written),
		IT("money is read as programs print it", money_is_read_as_programs_print_it),
		IT("what is no usage is refused, with what there is",
		   what_is_no_usage_is_refused_with_what_there_is),
		IT("sums do not overflow", sums_do_not_overflow),
		IT("a turn is counted once, whoever reports it again", a_turn_is_counted_once),
		IT("counters are counted by what they grow, and anew where they fall",
		   counters_are_counted_by_what_they_grow),
		IT("a base is where the counters of a context begin",
		   a_base_is_where_a_context_begins),
		IT("a counter that comes by turns is counted by turns alone",
		   a_counter_that_comes_by_turns_is_counted_by_turns_alone),
		IT("what is in the context is no use", a_context_is_no_use),
		IT("a lease begins with nothing, and the agent's life goes on",
		   a_lease_begins_with_nothing_and_the_life_goes_on),
		IT("a record has all of an account", a_record_has_all_of_an_account),
		IT("budgets are read, and written as they are read", budgets_are_read_and_written),
		IT("other words are no budget", other_words_are_no_budget),
		IT("a budget is used up when all of it is used",
		   a_budget_is_used_up_when_all_of_it_is_used),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
