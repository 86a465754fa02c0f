/* What a program says of its use: the tokens of a turn, with its answer; and its own counters and
 * its context, between. */
#include <math.h>
#include <string.h>

#include "acp_internal.h"

static int64_t count_of(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	double number = json_is_number(value) ? json_number_value(value) : -1;
	return number >= 0 && number <= (double)AP_USAGE_MAX ? llround(number) : -1;
}

/* For sums: what is not known is none of it. */
static int64_t known(int64_t count)
{
	return count > 0 ? count : 0;
}

static void report(struct acp *acp, const struct ap_usage_report *report)
{
	if (ap_usage_is_known(&report->usage))
		ap_buf_add(&acp->usage, (const char *)report, sizeof *report);
}

/* The count of the first name that there is, as programs differ. */
static int64_t count_by(const json_t *object, const char *name, const char *other)
{
	int64_t count = count_of(object, name);
	return count >= 0 ? count : count_of(object, other);
}

/* Adds the tokens of an object. Whether the input has those that are cached in it, and the output
 * those of thoughts, tells their sum. */
static void add_tokens(const json_t *tokens, struct ap_usage *ret)
{
	struct ap_usage more = AP_USAGE_UNKNOWN;
	int64_t input = count_of(tokens, "inputTokens"), output = count_of(tokens, "outputTokens");
	int64_t cached = count_by(tokens, "cachedReadTokens", "cachedInputTokens");
	int64_t read = known(cached), written = known(count_of(tokens, "cachedWriteTokens"));
	int64_t thought = known(count_by(tokens, "thoughtTokens", "reasoningOutputTokens"));
	int64_t total = count_of(tokens, "totalTokens"), least = known(input) + known(output);
	bool cached_apart = total != least && total != least + thought;
	bool thought_apart = total == least + thought || total == least + thought + read + written;
	more.at[AP_USAGE_CACHED] = cached;
	more.at[AP_USAGE_OUTPUT] = output < 0 || !thought_apart ? output : output + thought;
	if (cached_apart)
		more.at[AP_USAGE_INPUT] = input < 0 ? input : input + written;
	else
		more.at[AP_USAGE_INPUT] = input < read ? input : input - read;
	ap_usage_add(ret, &more);
}

/* What a turn has used, by the fullest account that its answer gives: by models, with what the
 * program asks for itself; of the turn alone; or as gemini has it. */
static void fill_turn(const json_t *result, struct ap_usage *ret)
{
	const json_t *quota = json_object_get(json_object_get(result, "_meta"), "quota");
	const json_t *count = json_object_get(quota, "token_count"), *usage, *row;
	size_t i;
	json_array_foreach(json_object_get(quota, "model_usage"), i, row)
		add_tokens(json_object_get(row, "token_count"), ret);
	if (!ap_usage_is_known(ret) && json_is_object(usage = json_object_get(result, "usage")))
		add_tokens(usage, ret);
	if (ap_usage_is_known(ret))
		return;
	ret->at[AP_USAGE_INPUT] = count_of(count, "input_tokens");
	ret->at[AP_USAGE_OUTPUT] = count_of(count, "output_tokens");
}

bool acp_turn_has_used(const json_t *result)
{
	struct ap_usage usage = AP_USAGE_UNKNOWN;
	fill_turn(result, &usage);
	return usage.at[AP_USAGE_OUTPUT] > 0;
}

void acp_take_turn_usage(struct acp *acp, int64_t id, const json_t *result)
{
	struct ap_usage_report turn = {.is_turn = true, .number = id, .usage = AP_USAGE_UNKNOWN};
	fill_turn(result, &turn.usage);
	report(acp, &turn);
}

static int64_t money_of(const json_t *cost)
{
	const json_t *amount = json_object_get(cost, "amount");
	const char *currency = json_string_value(json_object_get(cost, "currency"));
	if (!json_is_number(amount) || (currency && strcmp(currency, "USD") != 0))
		return -1;
	return ap_usage_money(json_number_value(amount));
}

void acp_context(const struct acp *acp, struct ap_usage_report *ret)
{
	ret->is_base = !acp->asked;
	ret->number = acp->phase == ACP_OPENING ? acp->awaited : acp->opening;
}

void acp_take_usage_update(struct acp *acp, json_t *update)
{
	struct ap_usage_report now = {.usage = AP_USAGE_UNKNOWN};
	acp_context(acp, &now);
	now.usage.at[AP_USAGE_COST] = money_of(json_object_get(update, "cost"));
	now.usage.at[AP_USAGE_CONTEXT_USED] = count_of(update, "used");
	now.usage.at[AP_USAGE_CONTEXT_SIZE] = count_of(update, "size");
	if (!acp->adopting) {
		report(acp, &now);
		return;
	}
	now.number = acp->past_opening;
	acp->held = now;
}

void acp_pass_opening(struct acp *acp, int64_t id)
{
	acp->past_opening = id;
	acp->held.usage = AP_USAGE_UNKNOWN;
}

void acp_report_held(struct acp *acp)
{
	bool is_present = acp->held.number == 0 || acp->held.number == acp->opening;
	acp->held.number = acp->opening;
	acp->held.is_base = !acp->asked;
	if (is_present)
		report(acp, &acp->held);
	acp_pass_opening(acp, 0);
}
