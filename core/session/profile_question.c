/* Finds what a program asks on its screen, and what it offers. The screen is an agent's: what is
 * found there becomes text for people, and keys only where the profile says which. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "profile_internal.h"
#include "text.h"

/* Matches of one rule that are looked at. */
#define MATCHES_MAX 64
/* Bytes of an option's id, with its NUL: it becomes a key. */
#define OPTION_ID_MAX 16

/* Adds a text as one line, in which blanks and what frames are drawn of (U+2500 to U+259F) are one
 * blank. */
static void flatten(const char *text, size_t len, char *ret, size_t size)
{
	size_t n = 0;
	for (size_t i = 0; i < len && n + 5 < size; i++) {
		const unsigned char *c = (const unsigned char *)text + i;
		bool frame = len - i >= 3 && c[0] == 0xe2 &&
			     (c[1] == 0x94 || c[1] == 0x95 || c[1] == 0x96);
		if (!frame && !isspace(*c)) {
			ret[n++] = text[i];
			continue;
		}
		i += frame ? 2 : 0;
		if (n > 0 && ret[n - 1] != ' ')
			ret[n++] = ' ';
	}
	while (n > 0 && ret[n - 1] == ' ')
		n--;
	ret[n] = '\0';
	ap_text_tame(ret);
}

/* A match of a rule: its groups, as offsets into the screen. */
struct found {
	size_t at[2], groups[3][2];
	unsigned n; /* groups, with the whole as group 0 */
};

/* The next match from `from` on. */
static bool find(const struct profile *profile, const struct question_rule *rule,
		 const char *screen, size_t len, size_t from, struct found *ret)
{
	pcre2_match_data *data = pcre2_match_data_create_from_pattern(rule->regex, NULL);
	int n = data ? pcre2_match(rule->regex, (PCRE2_SPTR)screen, len, from, 0, data,
				   profile->match)
		     : 0;
	*ret = (struct found){.n = 0};
	if (n > 0) {
		const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data);
		for (unsigned i = 0; i < (unsigned)n && i < 3; i++) {
			/* a group may be unset, and \K can put a start behind its end */
			bool is_set = at[2 * i] <= at[2 * i + 1] && at[2 * i + 1] <= len;
			ret->groups[i][0] = is_set ? at[2 * i] : 0;
			ret->groups[i][1] = is_set ? at[2 * i + 1] : 0;
			ret->n = i + 1;
		}
		memcpy(ret->at, ret->groups[0], sizeof ret->at);
	}
	pcre2_match_data_free(data);
	return n > 0;
}

static size_t after(const struct found *found)
{
	return found->at[1] > found->at[0] ? found->at[1] : found->at[0] + 1;
}

/* The group of that name, as a line; "" if the pattern has none, or it matched nothing. */
static void named(const struct question_rule *rule, const char *name, const char *screen,
		  const struct found *found, char ret[QUESTION_TEXT_MAX])
{
	int group = pcre2_substring_number_from_name(rule->regex, (PCRE2_SPTR)name);
	ret[0] = '\0';
	if (group > 0 && (unsigned)group < found->n)
		flatten(screen + found->groups[group][0],
			found->groups[group][1] - found->groups[group][0], ret, QUESTION_TEXT_MAX);
}

/* The last match of the first rule that matches. */
static const struct question_rule *find_question(const struct profile *profile, const char *screen,
						 size_t len, struct found *ret)
{
	for (unsigned i = 0; i < profile->n_questions; i++) {
		const struct question_rule *rule = &profile->questions[i];
		struct found found;
		bool any = false;
		size_t from = 0;
		for (unsigned n = 0; n < MATCHES_MAX && from <= len &&
				     find(profile, rule, screen, len, from, &found);
		     n++) {
			any = true;
			*ret = found;
			from = after(&found);
		}
		if (any)
			return rule;
	}
	return NULL;
}

/* Whether the text is fit to be a key: it comes from the screen. */
static bool is_plain(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)text[i]))
			return false;
	}
	return len > 0 && len < OPTION_ID_MAX;
}

/* Group 1 of two is the option's id, the last one its name; of one group alone it is the name, and
 * the id is the kind. False: the keys cannot be made. */
static bool fill_option(const struct question_rule *rule, const char *screen,
			const struct found *found, struct question_option *ret)
{
	const size_t *first = found->groups[1], *last = found->groups[found->n - 1];
	size_t len = found->n > 1 ? first[1] - first[0] : 0;
	const char *text = screen + first[0], *mark = strstr(rule->keys, "${1}");
	*ret = (struct question_option){.kind = rule->kind};
	flatten(screen + last[0], last[1] - last[0], ret->name, sizeof ret->name);
	if ((mark || found->n > 2) && !is_plain(text, len))
		return false;
	if (found->n > 2)
		snprintf(ret->id, sizeof ret->id, "%.*s", (int)len, text);
	else
		snprintf(ret->id, sizeof ret->id, "%s", rule->kind);
	int n = mark ? snprintf(ret->keys, sizeof ret->keys, "%.*s%.*s%s", (int)(mark - rule->keys),
				rule->keys, (int)len, text, mark + 4)
		     : snprintf(ret->keys, sizeof ret->keys, "%s", rule->keys);
	return n < (int)sizeof ret->keys && ret->name[0];
}

/* Adds an option in the order of the screen, unless an earlier rule has found one there. */
static void add_option(struct question *question, size_t places[QUESTION_OPTIONS_MAX], size_t place,
		       const struct question_option *option)
{
	unsigned i = question->n_options;
	for (unsigned j = 0; j < question->n_options; j++) {
		if (places[j] == place)
			return;
	}
	if (question->n_options == QUESTION_OPTIONS_MAX)
		return;
	for (; i > 0 && places[i - 1] > place; i--) {
		places[i] = places[i - 1];
		question->options[i] = question->options[i - 1];
	}
	places[i] = place;
	question->options[i] = *option;
	question->n_options++;
}

static void set_id(struct question *question)
{
	uint64_t id = ap_hash(question->title) * 31 + ap_hash(question->detail);
	for (unsigned i = 0; i < question->n_options; i++)
		id = id * 31 + ap_hash(question->options[i].name);
	snprintf(question->id, sizeof question->id, "%08x", (unsigned)(id ^ id >> 32));
}

bool profile_question(const struct profile *profile, const char *screen, struct question *ret)
{
	size_t len = strlen(screen), places[QUESTION_OPTIONS_MAX];
	struct found asked, found;
	const struct question_rule *rule = find_question(profile, screen, len, &asked);
	*ret = (struct question){.kind = "other"};
	if (!rule)
		return false;
	ret->kind = rule->kind;
	named(rule, "title", screen, &asked, ret->title);
	named(rule, "detail", screen, &asked, ret->detail);
	if (!ret->title[0])
		flatten(screen + asked.at[0], asked.at[1] - asked.at[0], ret->title,
			sizeof ret->title);
	for (unsigned i = 0; i < profile->n_options; i++) {
		struct question_option option;
		size_t from = asked.at[0];
		for (unsigned n = 0; n < MATCHES_MAX && from <= len &&
				     find(profile, &profile->options[i], screen, len, from, &found);
		     n++) {
			if (fill_option(&profile->options[i], screen, &found, &option))
				add_option(ret, places, found.groups[found.n - 1][0], &option);
			from = after(&found);
		}
	}
	set_id(ret);
	return true;
}

/* The first option of the first of these kinds that is offered. */
static const struct question_option *of_kinds(const struct question *question,
					      const char *const kinds[2])
{
	for (unsigned k = 0; k < 2 && kinds[k]; k++) {
		for (unsigned i = 0; i < question->n_options; i++) {
			if (strcmp(question->options[i].kind, kinds[k]) == 0)
				return &question->options[i];
		}
	}
	return NULL;
}

const struct question_option *question_option_by(const struct question *question,
						 enum ap_verdict verdict)
{
	static const char *const kinds[][2] = {
		[AP_VERDICT_ASK] = {NULL, NULL},
		[AP_VERDICT_ALLOW] = {"allow_once", NULL},
		[AP_VERDICT_REJECT] = {"reject_once", "reject_always"},
	};
	return of_kinds(question, kinds[verdict]);
}

const struct question_option *question_option(const struct question *question, const char *answer)
{
	static const struct {
		const char *answer, *kinds[2];
	} words[] = {
		{"allow", {"allow_once", NULL}},
		{"always", {"allow_always", NULL}},
		{"reject", {"reject_once", "reject_always"}},
	};
	for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
		if (strcmp(words[w].answer, answer) == 0)
			return of_kinds(question, words[w].kinds);
	}
	for (unsigned i = 0; i < question->n_options; i++) {
		if (strcmp(question->options[i].id, answer) == 0)
			return &question->options[i];
	}
	return NULL;
}

int question_no_answer(const struct question *asked, const char *word, bool cancels,
		       struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf options = {0};
	for (unsigned i = 0; i < asked->n_options; i++)
		ap_buf_printf(&options, " %s", asked->options[i].id);
	if (cancels)
		ap_buf_adds(&options, " cancel");
	return ap_err_set(err, -EINVAL, "'%.64s' is no answer to '%s': there are%s", word,
			  asked->title, options.len ? ap_buf_text(&options) : " none");
}
