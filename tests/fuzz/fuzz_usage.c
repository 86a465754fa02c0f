/* What programs report of their use, whatever they write: lines, budgets, the record of an account;
 * and reports that are counted in an account, which never fall. */
#include "fuzz.h"

#include "usage.h"

static void is_read_as_it_is_written(const struct ap_usage *usage)
{
	struct ap_buf text = {0};
	struct ap_usage again;
	ap_usage_format(usage, "", " ", "\n", &text);
	HOLDS(ap_usage_parse(ap_buf_text(&text), &again, NULL) == 0);
	for (int i = 0; i < AP_N_USAGE; i++)
		HOLDS(i == AP_USAGE_COST || usage->at[i] == again.at[i]);
	ap_buf_fini(&text);
}

static void is_counted(struct fuzz_input *input, struct ap_usage usage)
{
	struct ap_account account, again;
	struct ap_usage added, before;
	char record[AP_ACCOUNT_TEXT_MAX];
	ap_account_init(&account);
	for (unsigned n = 0; n < 8 && input->left > 0; n++) {
		size_t byte = fuzz_byte(input);
		struct ap_usage_report report = {.is_turn = byte & 1,
						 .is_base = byte & 2,
						 .number = (byte >> 2) & 7,
						 .usage = usage};
		usage.at[byte % AP_N_COUNTERS] = (int64_t)fuzz_byte(input) - 1;
		before = account.life;
		(void)ap_account_count(&account, &report, &added);
		for (int i = 0; i < AP_N_COUNTERS; i++)
			HOLDS(account.life.at[i] >= before.at[i]);
	}
	ap_account_format(&account, record);
	HOLDS(ap_account_parse(record, &again) == 0);
	HOLDS(memcmp(&account, &again, sizeof account) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	struct ap_usage usage = AP_USAGE_UNKNOWN;
	struct ap_account account;
	struct ap_err err = {""};
	int64_t budget, same;
	char word[AP_BUDGET_MAX];
	char *text = fuzz_copy(input.at, input.left);
	if (ap_usage_parse(text, &usage, &err) == 0)
		is_read_as_it_is_written(&usage);
	else
		HOLDS(err.text[0]);
	if (ap_budget_parse(text, &budget, &err) == 0) {
		ap_budget_format(budget, word, sizeof word);
		HOLDS(ap_budget_parse(word, &same, NULL) == 0);
		HOLDS((same & 1) == (budget & 1));
		(void)ap_budget_percent(budget, &usage);
	}
	(void)ap_account_parse(text, &account);
	is_counted(&input, usage);
	free(text);
	return 0;
}
