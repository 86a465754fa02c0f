/* What a program's texts say of use: `usage = SOURCE ...`. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "profile_internal.h"
#include "text.h"

/* Input with what is cached in it. */
#define WITH_CACHED "input_and_cached_tokens"

/* What the counters of an event count in. */
#define CONTEXT AP_N_USAGE

/* --- the key --- */

static int value_find(const char *name, size_t len)
{
	for (int i = 0; i < AP_N_USAGE; i++) {
		if (strlen(ap_usage_names[i]) == len && strncmp(ap_usage_names[i], name, len) == 0)
			return i;
	}
	return len == 7 && strncmp(name, "context", 7) == 0 ? CONTEXT : -1;
}

static bool has_value(const pcre2_code *regex)
{
	for (int i = 0; i < AP_N_USAGE; i++) {
		if (pcre2_substring_number_from_name(regex, (PCRE2_SPTR)ap_usage_names[i]) > 0)
			return true;
	}
	return pcre2_substring_number_from_name(regex, (PCRE2_SPTR)WITH_CACHED) > 0;
}

/* Cuts the first word off. */
static char *first_word(char **text)
{
	char *word = *text;
	*text += strcspn(*text, " \t\n");
	if (**text)
		*(*text)++ = '\0';
	*text += strspn(*text, " \t\n");
	return word;
}

static int pointer_parse(struct usage_rule *rule, char *text, struct ap_err *err)
{
	const char *name = first_word(&text);
	rule->value = value_find(name, strlen(name));
	if (rule->value < 0 || *text != '/')
		return ap_err_set(
			err, -EINVAL,
			"an event says NAME POINTER, with a name such as input_tokens, or "
			"context");
	rule->pointer = strdup(text);
	return rule->pointer ? 0 : ap_err_errno(err, -ENOMEM, "profile");
}

static int pattern_parse(struct usage_rule *rule, const char *text, struct ap_err *err)
{
	int r = profile_regex(&rule->regex, text, err);
	if (r == 0 && !has_value(rule->regex))
		r = ap_err_set(err, -EINVAL,
			       "the pattern has no group such as (?<input_tokens>...)");
	return r;
}

void usage_rule_fini(struct usage_rule *rule)
{
	pcre2_code_free(rule->regex);
	free(rule->pointer);
}

int usage_rule_parse(char *text, struct usage_rule *ret, struct ap_err *err)
{
	static const struct {
		const char *word;
		enum profile_source source;
	} sources[] = {
		{"screen", PROFILE_SCREEN},
		{"conversation", PROFILE_CONVERSATION},
		{"event", PROFILE_EVENT},
	};
	const char *source = first_word(&text);
	for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
		if (strcmp(source, sources[i].word) != 0)
			continue;
		*ret = (struct usage_rule){.source = sources[i].source};
		int r = ret->source == PROFILE_EVENT ? pointer_parse(ret, text, err)
						     : pattern_parse(ret, text, err);
		if (r < 0)
			usage_rule_fini(ret);
		return r;
	}
	return ap_err_set(err, -EINVAL, "'%.64s' is none of: screen conversation event", source);
}

/* --- patterns --- */

/* A number as programs show it: 1,234 or 10.1K. */
static int64_t shown_number(const char *text, size_t len, bool is_money)
{
	char digits[32];
	size_t n = 0;
	for (size_t i = 0; i < len && n + 1 < sizeof digits; i++) {
		if (text[i] != ',')
			digits[n++] = text[i];
	}
	digits[n] = '\0';
	char *unit;
	double number = strtod(digits, &unit);
	if (unit == digits || number < 0 || !isfinite(number))
		return -1;
	if (is_money)
		return ap_usage_money(number);
	number *= *unit == 'K' || *unit == 'k' ? 1e3 : *unit == 'M' || *unit == 'm' ? 1e6 : 1;
	return number <= (double)AP_USAGE_MAX ? llround(number) : -1;
}

static int64_t group_of(const struct usage_rule *rule, pcre2_match_data *data, const char *name,
			const char *text, bool is_money)
{
	int group = pcre2_substring_number_from_name(rule->regex, (PCRE2_SPTR)name);
	if (group <= 0)
		return -1;
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data) + 2 * group;
	if (at[0] == PCRE2_UNSET || at[0] >= at[1])
		return -1;
	return shown_number(text + at[0], at[1] - at[0], is_money);
}

static void by_pattern(const struct profile *profile, const struct usage_rule *rule,
		       const char *text, size_t len, struct ap_usage *ret)
{
	pcre2_match_data *data = pcre2_match_data_create_from_pattern(rule->regex, NULL);
	if (!data)
		return;
	if (pcre2_match(rule->regex, (PCRE2_SPTR)text, len, 0, 0, data, profile->match) > 0) {
		for (int i = 0; i < AP_N_USAGE; i++) {
			int64_t value =
				group_of(rule, data, ap_usage_names[i], text, i == AP_USAGE_COST);
			if (value >= 0)
				ret->at[i] = value;
		}
		int64_t all = group_of(rule, data, WITH_CACHED, text, false);
		int64_t cached = ret->at[AP_USAGE_CACHED];
		if (all >= 0)
			ret->at[AP_USAGE_INPUT] = cached > 0 && cached <= all ? all - cached : all;
	}
	pcre2_match_data_free(data);
}

/* --- pointers --- */

static void add_value(const struct usage_rule *rule, const json_t *value,
		      struct ap_usage_report *ret)
{
	struct ap_usage more = AP_USAGE_UNKNOWN;
	if (rule->value == CONTEXT && json_is_string(value))
		ret->number = (int64_t)(ap_hash(json_string_value(value)) >> 1);
	if (rule->value == CONTEXT || !json_is_number(value))
		return;
	double number = json_number_value(value);
	if (rule->value == AP_USAGE_COST)
		more.at[AP_USAGE_COST] = ap_usage_money(number);
	else if (number >= 0 && number <= (double)AP_USAGE_MAX)
		more.at[rule->value] = llround(number);
	ap_usage_add(&ret->usage, &more);
}

/* Adds the values at a pointer, in which `*` stands for every member. */
static void by_pointer(const struct usage_rule *rule, json_t *json, const char *pointer,
		       struct ap_usage_report *ret)
{
	char name[128];
	const char *key;
	json_t *value;
	if (*pointer != '/') {
		add_value(rule, json, ret);
		return;
	}
	size_t len = strcspn(pointer + 1, "/");
	snprintf(name, sizeof name, "%.*s", (int)len, pointer + 1);
	pointer += len + 1;
	if (strcmp(name, "*") != 0) {
		json = json_object_get(json, name);
		if (json)
			by_pointer(rule, json, pointer, ret);
		return;
	}
	json_object_foreach(json, key, value) by_pointer(rule, value, pointer, ret);
}

/* --- what they say --- */

bool profile_says_usage(const struct profile *profile, enum profile_source source)
{
	for (unsigned i = 0; i < profile->n_usages; i++) {
		if (profile->usages[i].source == source)
			return true;
	}
	return false;
}

bool profile_usage(const struct profile *profile, enum profile_source source, const char *text,
		   size_t len, struct ap_usage_report *ret)
{
	*ret = (struct ap_usage_report){.usage = AP_USAGE_UNKNOWN};
	bool is_event = source == PROFILE_EVENT;
	if (!profile_says_usage(profile, source))
		return false;
	json_t *event = is_event ? json_loadb(text, len, 0, NULL) : NULL;
	for (unsigned i = 0; i < profile->n_usages; i++) {
		const struct usage_rule *rule = &profile->usages[i];
		if (rule->source != source)
			continue;
		if (!is_event)
			by_pattern(profile, rule, text, len, &ret->usage);
		else if (event)
			by_pointer(rule, event, rule->pointer, ret);
	}
	json_decref(event);
	return ap_usage_is_known(&ret->usage);
}
