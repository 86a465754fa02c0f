/* Applies profiles: judges screens, dresses prompts, finds answers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "profile_internal.h"
#include "text.h"

/* Whether the pattern matches; appends the match of group `group` to `ret`, which may be NULL. */
static bool matches(const struct profile *profile, const pcre2_code *regex, const char *text,
		    size_t len, unsigned group, struct ap_buf *ret)
{
	pcre2_match_data *data = pcre2_match_data_create_from_pattern(regex, NULL);
	if (!data)
		return false;
	int n = pcre2_match(regex, (PCRE2_SPTR)text, len, 0, 0, data, profile->match);
	if (n > (int)group && ret) {
		const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data) + 2 * group;
		/* the group may be unset, and \K can put the start of a match behind its end */
		if (at[0] < at[1] && at[1] <= len)
			ap_buf_add(ret, text + at[0], at[1] - at[0]);
	}
	pcre2_match_data_free(data);
	return n > 0;
}

/* --- judging --- */

/* Whether a line has more than blanks and braille dots, of which programs make pictures: E2 A0 80
 * to E2 A3 BF. */
static bool shows(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		const unsigned char *c = (const unsigned char *)line + i;
		if (len - i >= 3 && c[0] == 0xe2 && c[1] >= 0xa0 && c[1] <= 0xa3)
			i += 2;
		else if (c[0] != ' ')
			return true;
	}
	return false;
}

/* The last `n` lines for which shows() is true; the whole screen if `n` is 0. */
static void last_lines(const char *screen, unsigned n, struct ap_buf *ret)
{
	const char *end = screen + strlen(screen), *at = end;
	ret->len = 0;
	if (n == 0) {
		ap_buf_adds(ret, screen);
		return;
	}
	while (at > screen && n > 0) {
		const char *line = at;
		while (line > screen && line[-1] != '\n')
			line--;
		n -= shows(line, (size_t)(at - line));
		at = line > screen ? line - 1 : screen;
		end = line;
	}
	for (at = end; *at;) {
		size_t len = strcspn(at, "\n");
		if (shows(at, len)) {
			ap_buf_add(ret, at, len);
			ap_buf_adds(ret, "\n");
		}
		at += len + (at[len] == '\n');
	}
}

/* Whether an event contains all members of the pattern, at every depth. */
static bool event_has(const json_t *event, json_t *pattern)
{
	const char *name;
	json_t *wanted;
	if (!json_is_object(pattern))
		return json_equal(event, pattern);
	json_object_foreach(pattern, name, wanted)
	{
		const json_t *there = json_object_get(event, name);
		if (!there || !event_has(there, wanted))
			return false;
	}
	return true;
}

static bool rule_matches(const struct profile *profile, const struct rule *rule, const char *text,
			 const json_t *event, struct ap_buf *matched)
{
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	matched->len = 0;
	if (rule->source == PROFILE_EVENT) {
		ap_buf_adds(matched, rule->text);
		return event && event_has(event, rule->event);
	}
	if (rule->source != PROFILE_SCREEN)
		return matches(profile, rule->regex, text, strlen(text), 0, matched);
	last_lines(text, rule->n_lines, &lines);
	return matches(profile, rule->regex, ap_buf_text(&lines), lines.len, 0, matched);
}

static void say_why(struct activity_signal *signal, const struct rule *rule, struct ap_buf *matched)
{
	static const char *const names[] = {"screen", "title", "osc", "event", "line"};
	ap_buf_add(matched, "", 1);
	char *text = matched->failed ? rule->text : matched->data;
	ap_text_tame(text); /* replaces newlines, too: `why` is one line */
	text += strspn(text, " ?");
	snprintf(signal->why, sizeof signal->why, "%s: %.100s", names[rule->source], text);
	ap_text_tame(signal->why); /* again: the cut may be inside a character */
}

bool profile_judge(const struct profile *profile, enum profile_source source, const char *text,
		   const char *title, struct activity_signal *ret)
{
	static const enum ap_activity order[] = {AP_ACTIVITY_WAITING, AP_ACTIVITY_BUSY,
						 AP_ACTIVITY_STARTING, AP_ACTIVITY_READY};
	AP_CLEANUP_BUF struct ap_buf matched = {0};
	json_t *event = source == PROFILE_EVENT ? json_loads(text, 0, NULL) : NULL;
	ret->found = false;
	ret->why[0] = '\0';
	for (size_t i = 0; i < 4 && !ret->found; i++) {
		for (unsigned k = 0; k < profile->n_rules && !ret->found; k++) {
			const struct rule *rule = &profile->rules[k];
			bool by_title =
				source == PROFILE_SCREEN && title && rule->source == PROFILE_TITLE;
			if (rule->activity != order[i] || (rule->source != source && !by_title) ||
			    !rule_matches(profile, rule, by_title ? title : text, event, &matched))
				continue;
			ret->found = true;
			ret->activity = rule->activity;
			say_why(ret, rule, &matched);
		}
	}
	json_decref(event);
	return ret->found;
}

/* --- prompts and answers --- */

bool profile_has_composer(const struct profile *profile)
{
	return profile->composer != NULL;
}

/* Trims white space, and no-break spaces, from both ends. */
static void trim(struct ap_buf *text)
{
	size_t start = 0, len = text->len;
	const unsigned char *c = (const unsigned char *)text->data;
	for (bool more = true; more && start < len;) {
		more = true;
		if (strchr(" \t\n", c[start]) && c[start])
			start++;
		else if (len - start >= 2 && c[start] == 0xc2 && c[start + 1] == 0xa0)
			start += 2;
		else
			more = false;
	}
	for (bool more = true; more && len > start;) {
		if (strchr(" \t\n", c[len - 1]) && c[len - 1])
			len--;
		else if (len - start >= 2 && c[len - 2] == 0xc2 && c[len - 1] == 0xa0)
			len -= 2;
		else
			more = false;
	}
	if (!text->data)
		return;
	text->len = len;
	text->data[len] = '\0';
	ap_buf_drop(text, start);
}

enum profile_composer profile_composer(const struct profile *profile, const char *screen)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (!profile->composer ||
	    !matches(profile, profile->composer, screen, strlen(screen), 1, &text))
		return COMPOSER_UNKNOWN;
	trim(&text);
	if (text.len == 0 || (profile->composer_empty && matches(profile, profile->composer_empty,
								 text.data, text.len, 0, NULL)))
		return COMPOSER_EMPTY;
	return COMPOSER_FILLED;
}

bool profile_resumed(const struct profile *profile, const char *screen)
{
	return profile->resumed &&
	       matches(profile, profile->resumed, screen, strlen(screen), 0, NULL);
}

int profile_dress(const struct profile *profile, const char *text, size_t len, struct ap_buf *ret)
{
	if (profile->lead && matches(profile, profile->lead, text, len, 0, NULL))
		ap_buf_adds(ret, " ");
	ap_buf_add(ret, text, len);
	if (profile->trail && matches(profile, profile->trail, text, len, 0, NULL))
		ap_buf_adds(ret, " ");
	return ret->failed ? -ENOMEM : 0;
}

bool profile_has_answer(const struct profile *profile)
{
	return profile->answer != NULL;
}

bool profile_answer(const struct profile *profile, const char *terminal, struct ap_buf *ret)
{
	if (!profile->answer ||
	    !matches(profile, profile->answer, terminal, strlen(terminal), 1, ret))
		return false;
	trim(ret);
	ap_buf_adds(ret, ret->len ? "\n" : "");
	return true;
}

const char *profile_auto_answer(const struct profile *profile, const char *screen)
{
	for (unsigned i = 0; i < profile->n_answers; i++) {
		const struct auto_answer *answer = &profile->answers[i];
		if (matches(profile, answer->regex, screen, strlen(screen), 0, NULL))
			return answer->keys;
	}
	return NULL;
}

/* --- conversations --- */

static void add_group(const pcre2_code *regex, pcre2_match_data *data, const char *name,
		      const char *text, struct ap_buf *ret)
{
	int group = pcre2_substring_number_from_name(regex, (PCRE2_SPTR)name);
	if (group <= 0)
		return;
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data) + 2 * group;
	if (at[0] < at[1] && at[1] != PCRE2_UNSET)
		ap_buf_add(ret, text + at[0], at[1] - at[0]);
}

bool profile_conversation(const struct profile *profile, bool is_line, const char *text, size_t len,
			  struct profile_found *ret)
{
	const pcre2_code *regex = is_line ? profile->conversation_log : profile->conversation;
	pcre2_match_data *data = regex ? pcre2_match_data_create_from_pattern(regex, NULL) : NULL;
	if (!data)
		return false;
	bool found = pcre2_match(regex, (PCRE2_SPTR)text, len, 0, 0, data, profile->match) > 0;
	if (found) {
		add_group(regex, data, "id", text, &ret->id);
		add_group(regex, data, "cwd", text, &ret->cwd);
		add_group(regex, data, "time", text, &ret->time);
	}
	pcre2_match_data_free(data);
	return found && ret->id.len > 0 && ret->cwd.len > 0;
}

void profile_found_fini(struct profile_found *found)
{
	ap_buf_fini(&found->id);
	ap_buf_fini(&found->cwd);
	ap_buf_fini(&found->time);
}

/* --- limits --- */

/* A group of a match, as it stands in the text. False: it is not set. */
static bool group_of(const pcre2_code *regex, pcre2_match_data *data, const char *name,
		     const char *text, const char **ret, size_t *ret_len)
{
	int group = pcre2_substring_number_from_name(regex, (PCRE2_SPTR)name);
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data) + 2 * (group > 0 ? group : 0);
	if (group <= 0 || at[0] == PCRE2_UNSET || at[0] > at[1])
		return false;
	*ret = text + at[0];
	*ret_len = at[1] - at[0];
	return true;
}

/* When the limit of a match ends, by its named groups; 0: they do not say. */
static int64_t until_of(const struct profile *profile, const pcre2_code *regex,
			pcre2_match_data *data, const char *text, int64_t now_s)
{
	const char *at;
	size_t len;
	int64_t span, until;
	if (group_of(regex, data, "until", text, &at, &len) &&
	    when_parse(at, len, now_s, profile->values.limit_zone, &until) == 0)
		return until;
	if (group_of(regex, data, "in", text, &at, &len) && when_span_parse(at, len, &span) == 0)
		return now_s + 1 + span; /* never too early: a part of that second is over */
	if (group_of(regex, data, "epoch", text, &at, &len) &&
	    when_epoch_parse(at, len, &until) == 0)
		return until;
	return 0;
}

static bool limit_matches(const struct profile *profile, const struct limit_rule *rule,
			  const char *text, int64_t now_s, struct profile_limit *ret)
{
	const char *at;
	size_t len;
	pcre2_match_data *data = pcre2_match_data_create_from_pattern(rule->regex, NULL);
	if (!data)
		return false;
	ret->found = pcre2_match(rule->regex, (PCRE2_SPTR)text, strlen(text), 0, 0, data,
				 profile->match) > 0;
	const PCRE2_SIZE *all = pcre2_get_ovector_pointer(data);
	if (ret->found && all[0] <= all[1]) { /* not where \K puts the start behind the end */
		ret->hash = ap_hash_bytes(text + all[0], all[1] - all[0]);
		snprintf(ret->text, sizeof ret->text, "%.*s", (int)(all[1] - all[0]),
			 text + all[0]);
		ap_text_tame(ret->text);
	}
	if (ret->found) {
		ret->until_s = until_of(profile, rule->regex, data, text, now_s);
		ret->is_overload = ret->until_s == 0 &&
				   group_of(rule->regex, data, "overload", text, &at, &len);
	}
	pcre2_match_data_free(data);
	return ret->found;
}

bool profile_limited(const struct profile *profile, bool is_answer, const char *text, int64_t now_s,
		     struct profile_limit *ret)
{
	AP_CLEANUP_BUF struct ap_buf lines = {0};
	*ret = (struct profile_limit){.found = false};
	for (unsigned i = 0; i < profile->n_limits && !ret->found; i++) {
		const struct limit_rule *rule = &profile->limits[i];
		if (rule->is_answer != is_answer)
			continue;
		if (rule->n_lines > 0)
			last_lines(text, rule->n_lines, &lines);
		(void)limit_matches(profile, rule, rule->n_lines > 0 ? ap_buf_text(&lines) : text,
				    now_s, ret);
	}
	return ret->found;
}

/* --- mode stream --- */

/* A copy in which the prompt replaces every string that is "${PROMPT}" as a whole. NULL on ENOMEM.
 */
static json_t *with_prompt(json_t *json, json_t *prompt)
{
	const char *name;
	json_t *value;
	size_t i;
	if (json_is_string(json) && strcmp(json_string_value(json), "${PROMPT}") == 0)
		return json_incref(prompt);
	if (!json_is_object(json) && !json_is_array(json))
		return json_incref(json);
	json_t *copied = json_copy(json);
	json_object_foreach(copied, name, value)
		json_object_set_new(copied, name, with_prompt(value, prompt));
	json_array_foreach(copied, i, value)
		json_array_set_new(copied, i, with_prompt(value, prompt));
	return copied;
}

int profile_input(const struct profile *profile, const char *text, size_t len, struct ap_buf *ret)
{
	json_t *template = json_loads(profile->values.input, 0, NULL);
	json_t *prompt = json_stringn(text, len);
	json_t *input = template && prompt ? with_prompt(template, prompt) : NULL;
	char *line = input ? json_dumps(input, JSON_COMPACT) : NULL;
	int r = line ? 0 : prompt ? -ENOMEM : -EILSEQ;
	json_decref(template);
	json_decref(prompt);
	json_decref(input);
	if (r < 0)
		return r;
	ap_buf_adds(ret, line);
	ap_buf_adds(ret, "\n");
	free(line);
	return ret->failed ? -ENOMEM : 0;
}

/* The value at a JSON pointer (RFC 6901, without its escapes), or NULL. */
static const json_t *at_pointer(const json_t *json, const char *pointer)
{
	char name[128];
	while (json && *pointer == '/') {
		size_t len = strcspn(pointer + 1, "/");
		snprintf(name, sizeof name, "%.*s", (int)len, pointer + 1);
		pointer += len + 1;
		json = json_is_array(json) ? json_array_get(json, (size_t)atoi(name))
					   : json_object_get(json, name);
	}
	return json;
}

void profile_response(const struct profile *profile, const char *event, struct ap_buf *ret)
{
	json_t *json = json_loads(event, 0, NULL);
	const json_t *text = at_pointer(json, profile->values.response);
	if (json_is_string(text)) {
		ap_buf_add(ret, json_string_value(text), json_string_length(text));
		if (ret->len > 0 && ret->data[ret->len - 1] != '\n')
			ap_buf_adds(ret, "\n");
	}
	json_decref(json);
}
