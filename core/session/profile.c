/* Loads profiles: files, keys, checks. */
#include "profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "permission.h"
#include "profile_internal.h"
#include "text.h"

#define LIKE_DEPTH_MAX 8
#define FILE_SIZE_MAX  (256 << 10)
/* Bound on the work of one match: a program has printed the text. */
#define MATCH_LIMIT 200000

/* --- patterns --- */

int profile_regex(pcre2_code **ret, const char *text, struct ap_err *err)
{
	int error;
	PCRE2_SIZE at;
	PCRE2_UCHAR why[128];
	pcre2_code *regex = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
					  PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_MULTILINE,
					  &error, &at, NULL);
	if (!regex) {
		pcre2_get_error_message(error, why, sizeof why);
		return ap_err_set(err, -EINVAL, "the pattern is wrong at character %zu: %s",
				  (size_t)at + 1, why);
	}
	*ret = regex;
	return 0;
}

/* --- the keys --- */

struct loader {
	struct profile *profile;
	const char *const *all;	 /* all directories of profiles */
	const char *const *dirs; /* those still to be searched */
	const char *name;
	unsigned depth;
};

struct key {
	const char *name;
	int (*set)(const struct loader *, const struct key *, char *value, struct ap_err *);
	size_t offset;		   /* in struct profile, of the value that the key sets */
	enum ap_activity activity; /* of a rule */
};

static void *target(const struct loader *loader, const struct key *key)
{
	return (char *)loader->profile + key->offset;
}

/* Appends a zeroed element to an array. NULL on ENOMEM. */
static void *grow(void *at_ptr, unsigned *n, size_t size)
{
	void **at = at_ptr;
	void *grown = realloc(*at, (*n + 1) * size);
	if (!grown)
		return NULL;
	*at = grown;
	void *added = (char *)grown + *n * size;
	memset(added, 0, size);
	(*n)++;
	return added;
}

static int copy(char **ret, const char *text, struct ap_err *err)
{
	char *copied = strdup(text);
	if (!copied)
		return ap_err_errno(err, -ENOMEM, "profile");
	free(*ret);
	*ret = copied;
	return 0;
}

static int set_text(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	return copy(target(loader, key), value, err);
}

static int set_time(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	int r = ap_duration_parse(value, target(loader, key));
	return r < 0 ? ap_err_set(err, -EINVAL, "'%.64s' is not a duration such as 250ms or 2s",
				  value)
		     : 0;
}

static int set_flag(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	bool *flag = target(loader, key);
	*flag = strcmp(value, "yes") == 0;
	return *flag || strcmp(value, "no") == 0
		       ? 0
		       : ap_err_set(err, -EINVAL, "%s is yes or no", key->name);
}

static int set_word(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	struct profile_words *words = target(loader, key);
	char **word = grow(&words->at, &words->n, sizeof *word);
	return word ? copy(word, value, err) : ap_err_errno(err, -ENOMEM, "profile");
}

static int set_env(const struct loader *loader, const struct key *key, char *value,
		   struct ap_err *err)
{
	const char *equals = strchr(value, '=');
	bool sets = strcmp(key->name, "set") == 0;
	if (sets != (equals != NULL) || equals == value || *value == '\0')
		return ap_err_set(err, -EINVAL, "%s takes %s", key->name,
				  sets ? "NAME=VALUE" : "a NAME");
	return set_word(loader, key, value, err);
}

/* "NAME TEXT"; the text of a seed is JSON. */
static int set_pair(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	struct profile_pairs *pairs = target(loader, key);
	char *text = value + strcspn(value, " \t\n");
	bool is_seed = strcmp(key->name, "seed") == 0;
	if (*text)
		*text++ = '\0';
	text += strspn(text, " \t\n");
	if (*value == '\0' || *text == '\0')
		return ap_err_set(err, -EINVAL, "%s takes a %s", key->name,
				  is_seed ? "path and an object of JSON" : "name and a text");
	if (!is_seed && strchr(value, '/'))
		return ap_err_set(err, -EINVAL, "'%.64s' is no plain name", value);
	json_error_t error;
	json_t *object = is_seed ? json_loads(text, 0, &error) : NULL;
	bool valid = !is_seed || json_is_object(object);
	json_decref(object);
	if (!valid)
		return ap_err_set(err, -EINVAL, "no object of JSON: %.160s", error.text);
	struct profile_pair *pair = grow(&pairs->at, &pairs->n, sizeof *pair);
	if (!pair)
		return ap_err_errno(err, -ENOMEM, "profile");
	int r = copy(&pair->name, value, err);
	return r < 0 ? r : copy(&pair->value, text, err);
}

static int set_regex(const struct loader *loader, const struct key *key, char *value,
		     struct ap_err *err)
{
	pcre2_code **regex = target(loader, key);
	pcre2_code *compiled = NULL;
	int r = *value ? profile_regex(&compiled, value, err) : 0; /* empty: removes the pattern */
	if (r < 0)
		return r;
	pcre2_code_free(*regex);
	*regex = compiled;
	return 0;
}

static bool has_group(const pcre2_code *regex, const char *name)
{
	return pcre2_substring_number_from_name(regex, (PCRE2_SPTR)name) > 0;
}

/* "PATHS PATTERN": a file of these paths, or a line in one, is a conversation if the regular
 * expression matches. */
static int set_conversation(const struct loader *loader, const struct key *key, char *value,
			    struct ap_err *err)
{
	struct profile *profile = loader->profile;
	bool is_log = strcmp(key->name, "conversation_log") == 0;
	pcre2_code **target = is_log ? &profile->conversation_log : &profile->conversation;
	char *pattern = value + strcspn(value, " \t\n");
	pcre2_code *regex = NULL;
	if (*pattern)
		*pattern++ = '\0';
	pattern += strspn(pattern, " \t\n");
	int r = *pattern ? profile_regex(&regex, pattern, err)
			 : ap_err_set(err, -EINVAL, "%s takes PATHS PATTERN", key->name);
	if (r == 0 && !(has_group(regex, "id") && has_group(regex, "cwd")))
		r = ap_err_set(err, -EINVAL, "the pattern needs groups (?<id>...) and (?<cwd>...)");
	if (r == 0 && is_log && !has_group(regex, "time"))
		r = ap_err_set(err, -EINVAL, "the pattern needs a group (?<time>...)");
	if (r == 0)
		r = copy(is_log ? &profile->values.conversation_logs
				: &profile->values.conversations,
			 value, err);
	if (r < 0) {
		pcre2_code_free(regex);
		return r;
	}
	pcre2_code_free(*target);
	*target = regex;
	return 0;
}

static int set_json(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	json_error_t error;
	json_t *json = json_loads(value, 0, &error);
	if (!json)
		return ap_err_set(err, -EINVAL, "no JSON: %.160s", error.text);
	json_decref(json);
	return set_text(loader, key, value, err);
}

static const struct mode {
	const char *name;
	bool events; /* the program reports events: all rules are about them */
} modes[] = {
	[PROFILE_TERMINAL] = {"terminal", false},
	[PROFILE_SHELL] = {"shell", false},
	[PROFILE_STREAM] = {"stream", true},
	[PROFILE_ACP] = {"acp", true},
};

#define N_MODES (sizeof modes / sizeof *modes)

static int set_mode(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	struct profile_values *values = &loader->profile->values;
	unsigned i = 0;
	while (i < N_MODES && strcmp(value, modes[i].name) != 0)
		i++;
	if (i == N_MODES)
		return ap_err_set(err, -EINVAL, "'%.64s' is none of: terminal shell stream acp",
				  value);
	values->mode = i;
	values->rules.shell = i == PROFILE_SHELL;
	values->rules.reports = modes[i].events;
	return 0;
}

/* Cuts ":LINES" off a source. -EINVAL. */
static int take_lines(char *source, bool is_screen, int64_t *ret, struct ap_err *err)
{
	char *lines = strchr(source, ':');
	*ret = 0;
	if (!lines)
		return 0;
	*lines++ = '\0';
	if (is_screen && ap_number_parse(lines, ret) == 0 && *ret >= 1 && *ret <= 1000)
		return 0;
	return ap_err_set(err, -EINVAL, "'%.64s': lines of the screen are 1 to 1000", lines);
}

/* "SOURCE[:LINES] PATTERN": adds a rule about an activity. */
static int set_rule(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	static const char *const sources[] = {[PROFILE_SCREEN] = "screen",
					      [PROFILE_TITLE] = "title",
					      [PROFILE_OSC] = "osc",
					      [PROFILE_EVENT] = "event",
					      [PROFILE_LINE] = "line"};
	struct profile *profile = loader->profile;
	char *pattern = value + strcspn(value, " \t\n");
	if (*pattern)
		*pattern++ = '\0';
	pattern += strspn(pattern, " \t\n");
	unsigned source = 0;
	int64_t n_lines;
	int r = take_lines(value, strncmp(value, "screen", 6) == 0, &n_lines, err);
	if (r < 0)
		return r;
	bool perhaps = strcmp(value, "osc?") == 0;
	if (perhaps)
		value[3] = '\0';
	while (source < 5 && strcmp(value, sources[source]) != 0)
		source++;
	if (source == 5)
		return ap_err_set(err, -EINVAL,
				  "'%.64s' is none of: screen title osc osc? event line", value);
	if (source == PROFILE_LINE && key->activity != AP_ACTIVITY_WAITING)
		return ap_err_set(err, -EINVAL, "a line says nothing but waiting");
	if (*pattern == '\0')
		return ap_err_set(err, -EINVAL, "a pattern is missing");
	struct rule rule = {.activity = key->activity,
			    .source = (enum profile_source)source,
			    .perhaps = perhaps,
			    .n_lines = (unsigned)n_lines};
	json_error_t error;
	if (source != PROFILE_EVENT)
		r = profile_regex(&rule.regex, pattern, err);
	else
		rule.event = json_loads(pattern, 0, &error);
	if (r == 0 && source == PROFILE_EVENT && !json_is_object(rule.event))
		r = ap_err_set(err, -EINVAL, "an event is an object of JSON: %.160s", error.text);
	if (r == 0)
		r = copy(&rule.text, pattern, err);
	struct rule *added =
		r == 0 ? grow(&profile->rules, &profile->n_rules, sizeof *added) : NULL;
	if (added) {
		*added = rule;
		return 0;
	}
	pcre2_code_free(rule.regex);
	json_decref(rule.event);
	free(rule.text);
	return r < 0 ? r : ap_err_errno(err, -ENOMEM, "profile");
}

/* "SOURCE[:LINES] PATTERN": adds a rule about usage limits. */
static int set_limited(const struct loader *loader, const struct key *key, char *value,
		       struct ap_err *err)
{
	struct profile *profile = loader->profile;
	char *pattern = value + strcspn(value, " \t\n");
	bool is_screen = strncmp(value, "screen", 6) == 0;
	int64_t n_lines;
	(void)key;
	if (*pattern)
		*pattern++ = '\0';
	pattern += strspn(pattern, " \t\n");
	int r = take_lines(value, is_screen, &n_lines, err);
	if (r < 0)
		return r;
	if (strcmp(value, "screen") != 0 && strcmp(value, "answer") != 0)
		return ap_err_set(err, -EINVAL, "'%.64s' is none of: screen answer", value);
	if (*pattern == '\0')
		return ap_err_set(err, -EINVAL, "a pattern is missing");
	struct limit_rule rule = {.is_answer = !is_screen, .n_lines = (unsigned)n_lines};
	r = profile_regex(&rule.regex, pattern, err);
	if (r < 0)
		return r;
	struct limit_rule *added = grow(&profile->limits, &profile->n_limits, sizeof *added);
	if (!added) {
		pcre2_code_free(rule.regex);
		return ap_err_errno(err, -ENOMEM, "profile");
	}
	*added = rule;
	return 0;
}

static int set_zone(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	return when_zone_parse(value, target(loader, key)) < 0
		       ? ap_err_set(err, -EINVAL, "'%.64s' is none of: local UTC +HH:MM", value)
		       : 0;
}

static int set_limit(const struct loader *loader, const struct key *key, char *value,
		     struct ap_err *err)
{
	bool *is_shared = target(loader, key);
	*is_shared = strcmp(value, "account") == 0;
	return *is_shared || strcmp(value, "agent") == 0
		       ? 0
		       : ap_err_set(err, -EINVAL, "'%.64s' is none of: agent account", value);
}

/* "PATTERN => KEYS" */
static int set_auto_answer(const struct loader *loader, const struct key *key, char *value,
			   struct ap_err *err)
{
	struct profile *profile = loader->profile;
	char *arrow = strstr(value, " => ");
	(void)key;
	if (!arrow || arrow[4] == '\0')
		return ap_err_set(err, -EINVAL, "auto_answer takes PATTERN => KEYS");
	*arrow = '\0';
	struct auto_answer answer = {NULL, NULL};
	int r = profile_regex(&answer.regex, value, err);
	if (r == 0)
		r = copy(&answer.keys, arrow + 4, err);
	struct auto_answer *added =
		r == 0 ? grow(&profile->answers, &profile->n_answers, sizeof *added) : NULL;
	if (added) {
		*added = answer;
		return 0;
	}
	pcre2_code_free(answer.regex);
	free(answer.keys);
	return r < 0 ? r : ap_err_errno(err, -ENOMEM, "profile");
}

/* Takes the first word of `value`, which is one of `kinds`. NULL: it is not. */
static const char *take_kind(char **value, const char *const *kinds)
{
	size_t len = strcspn(*value, " ");
	for (; *kinds; kinds++) {
		if (strlen(*kinds) == len && strncmp(*kinds, *value, len) == 0) {
			*value += len + strspn(*value + len, " ");
			return *kinds;
		}
	}
	return NULL;
}

static void question_rule_fini(struct question_rule *rule)
{
	pcre2_code_free(rule->regex);
	free(rule->keys);
}

static int add_question_rule(struct question_rule **rules, unsigned *n, const char *kind,
			     const char *pattern, const char *keys, struct ap_err *err)
{
	struct question_rule rule = {.kind = kind};
	int r = profile_regex(&rule.regex, pattern, err);
	if (r == 0 && keys)
		r = copy(&rule.keys, keys, err);
	struct question_rule *added = r == 0 ? grow(rules, n, sizeof *added) : NULL;
	if (added) {
		*added = rule;
		return 0;
	}
	question_rule_fini(&rule);
	return r < 0 ? r : ap_err_errno(err, -ENOMEM, "profile");
}

/* "KIND PATTERN" */
static int set_question(const struct loader *loader, const struct key *key, char *value,
			struct ap_err *err)
{
	struct profile *profile = loader->profile;
	const char *kind = take_kind(&value, ap_permission_kinds);
	(void)key;
	if (!kind || !*value)
		return ap_err_set(err, -EINVAL, "question takes KIND PATTERN, KIND one of:%s",
				  ap_permission_kind_words);
	return add_question_rule(&profile->questions, &profile->n_questions, kind, value, NULL,
				 err);
}

/* "KIND PATTERN => KEYS" */
static int set_option(const struct loader *loader, const struct key *key, char *value,
		      struct ap_err *err)
{
	static const char *const kinds[] = {"allow_once",    "allow_always", "reject_once",
					    "reject_always", "other",	     NULL};
	struct profile *profile = loader->profile;
	const char *kind = take_kind(&value, kinds);
	char *arrow = strstr(value, " => ");
	(void)key;
	if (!kind || !arrow || arrow[4] == '\0')
		return ap_err_set(err, -EINVAL,
				  "option takes KIND PATTERN => KEYS, KIND one of: allow_once "
				  "allow_always reject_once reject_always other");
	*arrow = '\0';
	return add_question_rule(&profile->options, &profile->n_options, kind, value, arrow + 4,
				 err);
}

static int set_usage(const struct loader *loader, const struct key *key, char *value,
		     struct ap_err *err)
{
	struct profile *profile = loader->profile;
	struct usage_rule rule;
	(void)key;
	int r = usage_rule_parse(value, &rule, err);
	if (r < 0)
		return r;
	struct usage_rule *added = grow(&profile->usages, &profile->n_usages, sizeof *added);
	if (added)
		*added = rule;
	else
		usage_rule_fini(&rule);
	return added ? 0 : ap_err_errno(err, -ENOMEM, "profile");
}

static int load(struct loader *loader, struct ap_err *err);

/* Loads another profile in place of this line: the lines behind it add to that or override it. */
static int set_like(const struct loader *loader, const struct key *key, char *value,
		    struct ap_err *err)
{
	struct loader other = *loader;
	(void)key;
	other.depth++;
	if (strcmp(value, loader->name) != 0)
		other.dirs = loader->all;
	other.name = value;
	if (other.depth > LIKE_DEPTH_MAX)
		return ap_err_set(err, -EINVAL, "profiles that are like each other");
	int r = load(&other, err);
	return r < 0 && r != -ENOMEM ? -EINVAL
				     : r; /* -EINVAL also for -ENOENT: this line is wrong */
}

static int set_forget(const struct loader *loader, const struct key *key, char *value,
		      struct ap_err *err);

#define VALUE(member) offsetof(struct profile, values.member)

static const struct key keys[] = {
	{"like", set_like, 0, 0},
	{"forget", set_forget, 0, 0},
	{"mode", set_mode, 0, 0},
	{"arg", set_word, VALUE(args), 0},
	{"new_conversation", set_word, VALUE(new_conversation), 0},
	{"resume", set_word, VALUE(resume), 0},
	{"own_conversation", set_word, VALUE(own_conversation), 0},
	{"follow_conversation", set_flag, VALUE(follows_conversation), 0},
	{"settle", set_time, VALUE(settle_ns), 0},
	{"resumed", set_regex, offsetof(struct profile, resumed), 0},
	{"conversation_stays", set_flag, VALUE(conversation_stays), 0},
	{"holds_conversation", set_flag, VALUE(holds_conversation), 0},
	{"conversation", set_conversation, 0, 0},
	{"conversation_log", set_conversation, 0, 0},
	{"conversation_file", set_text, VALUE(conversation_file), 0},
	{"conversation_from", set_text, VALUE(conversation_from), 0},
	{"write", set_word, VALUE(writes), 0},
	{"pass", set_word, VALUE(passes), 0},
	{"set", set_env, VALUE(env), 0},
	{"unset", set_env, VALUE(env), 0},
	{"file", set_pair, VALUE(files), 0},
	{"seed", set_pair, VALUE(seeds), 0},
	{"waiting", set_rule, 0, AP_ACTIVITY_WAITING},
	{"busy", set_rule, 0, AP_ACTIVITY_BUSY},
	{"starting", set_rule, 0, AP_ACTIVITY_STARTING},
	{"ready", set_rule, 0, AP_ACTIVITY_READY},
	{"debounce", set_time, VALUE(rules.debounce_ns), 0},
	{"hold", set_time, VALUE(rules.hold_ns), 0},
	{"silence", set_time, VALUE(rules.silence_ns), 0},
	{"composer", set_regex, offsetof(struct profile, composer), 0},
	{"composer_empty", set_regex, offsetof(struct profile, composer_empty), 0},
	{"lead", set_regex, offsetof(struct profile, lead), 0},
	{"trail", set_regex, offsetof(struct profile, trail), 0},
	{"pause", set_time, VALUE(pause_ns), 0},
	{"submit", set_text, VALUE(submit), 0},
	{"abandon", set_text, VALUE(abandon), 0},
	{"clear", set_text, VALUE(clear), 0},
	{"quit", set_text, VALUE(quit), 0},
	{"answer", set_regex, offsetof(struct profile, answer), 0},
	{"auto_answer", set_auto_answer, 0, 0},
	{"question", set_question, 0, 0},
	{"option", set_option, 0, 0},
	{"cancel", set_text, VALUE(cancel), 0},
	{"usage", set_usage, 0, 0},
	{"limited", set_limited, 0, 0},
	{"limit_zone", set_zone, VALUE(limit_zone), 0},
	{"limit", set_limit, VALUE(limit_is_shared), 0},
	{"continue", set_text, VALUE(go_on), 0},
	{"configure", set_pair, VALUE(configure), 0},
	{"input", set_json, VALUE(input), 0},
	{"response", set_text, VALUE(response), 0},
};

static const struct key *key_find(const char *name)
{
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		if (strcmp(name, keys[i].name) == 0)
			return &keys[i];
	}
	return NULL;
}

static void rule_fini(struct rule *rule)
{
	pcre2_code_free(rule->regex);
	json_decref(rule->event);
	free(rule->text);
}

static void forget_limits(struct profile *profile)
{
	for (unsigned i = 0; i < profile->n_limits; i++)
		pcre2_code_free(profile->limits[i].regex);
	profile->n_limits = 0;
}

/* Removes the rules of an activity so far, such as those of the profile that this one is like. */
static int set_forget(const struct loader *loader, const struct key *key, char *value,
		      struct ap_err *err)
{
	struct profile *profile = loader->profile;
	const struct key *of = key_find(value);
	unsigned n = 0;
	(void)key;
	if (of && of->set == set_limited) {
		forget_limits(profile);
		return 0;
	}
	if (!of || of->set != set_rule)
		return ap_err_set(err, -EINVAL,
				  "forget takes waiting, busy, starting, ready or limited");
	for (unsigned i = 0; i < profile->n_rules; i++) {
		if (profile->rules[i].activity == of->activity)
			rule_fini(&profile->rules[i]);
		else
			profile->rules[n++] = profile->rules[i];
	}
	profile->n_rules = n;
	return 0;
}

/* --- files --- */

/* Splits "KEY = VALUE". Returns the key; NULL: the line is not of that form. */
static char *split(char *line, char **ret_value)
{
	char *equals = strchr(line, '=');
	if (!equals)
		return NULL;
	char *end = equals;
	while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*end = '\0';
	char *value = equals + 1 + strspn(equals + 1, " \t");
	end = value + strlen(value);
	while (end > value && strchr(" \t\r\n", end[-1]))
		end--;
	*end = '\0';
	*ret_value = value;
	return line;
}

static int take_line(const struct loader *loader, char *line, struct ap_err *err)
{
	char *value;
	const char *name = split(line, &value);
	if (!name)
		return ap_err_set(err, -EINVAL, "'%.64s' is not KEY = VALUE", line);
	const struct key *key = key_find(name);
	if (!key)
		return ap_err_set(err, -EINVAL, "there is no key '%.64s'", name);
	return key->set(loader, key, value, err);
}

/* The next line, with its continuation lines, which begin with a blank. NULL at the end. */
static char *next_line(char **cursor, unsigned *line)
{
	char *start = *cursor, *at = start;
	if (*start == '\0')
		return NULL;
	for (;;) {
		char *newline = strchr(at, '\n');
		if (!newline) {
			*cursor = at + strlen(at);
			return start;
		}
		(*line)++;
		at = newline + 1;
		bool goes_on = (*at == ' ' || *at == '\t') && *start != '#' && start != newline;
		if (!goes_on) {
			*newline = '\0';
			*cursor = at;
			return start;
		}
	}
}

static int take_text(const struct loader *loader, const char *path, char *text, struct ap_err *err)
{
	unsigned next = 1, line;
	char *at;
	while ((void)(line = next), (at = next_line(&text, &next))) {
		at += strspn(at, " \t\r");
		if (*at == '\0' || *at == '#')
			continue;
		int r = take_line(loader, at, err);
		if (r < 0)
			return ap_err_wrap(err, r, "%s:%u", path, line);
	}
	return 0;
}

static int load_file(const struct loader *loader, const char *path, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int r = file_read(path, 0, FILE_SIZE_MAX, &text, err);
	if (r < 0 && r != -EFBIG)
		return r;
	if (r == -EFBIG || (text.len > 0 && memchr(text.data, '\0', text.len)))
		return ap_err_set(err, -EINVAL, "%s: no text of at most %d bytes", path,
				  FILE_SIZE_MAX);
	if (!text.data)
		ap_buf_adds(&text, "");
	return text.data ? take_text(loader, path, text.data, err)
			 : ap_err_errno(err, -ENOMEM, "%s", path);
}

/* Loads loader->name from the first of loader->dirs that has it. A profile that is like its own
 * name means the next profile of that name: dirs begins behind its own directory then. */
static int load(struct loader *loader, struct ap_err *err)
{
	const char *name = loader->name;
	if (strchr(name, '/'))
		return load_file(loader, name, err);
	for (const char *const *dir = loader->dirs; *dir; dir++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s.conf", *dir, name);
		if (path.failed)
			return ap_err_errno(err, -ENOMEM, "%s", name);
		loader->dirs = dir + 1;
		int r = load_file(loader, ap_buf_text(&path), err);
		if (r != -ENOENT)
			return r;
	}
	return ap_err_set(err, -ENOENT, "there is no profile '%s'", name);
}

struct profile *profile_unknown(void)
{
	struct profile *profile = calloc(1, sizeof *profile);
	if (!profile)
		return NULL;
	struct profile_values *values = &profile->values;
	profile->match = pcre2_match_context_create(NULL);
	values->rules.debounce_ns = 300 * AP_MS;
	values->rules.hold_ns = 2 * AP_SECOND;
	/* the longest gap measured in the output of a working program is 0.9 s */
	values->rules.silence_ns = 2 * AP_SECOND;
	values->name = strdup("unknown");
	values->submit = strdup("Enter");
	values->abandon = strdup("");
	values->cancel = strdup("C-c");
	values->clear = strdup("");
	values->quit = strdup("");
	values->input = strdup("");
	values->response = strdup("");
	values->conversation_file = strdup("");
	values->conversation_from = strdup("");
	values->conversations = strdup("");
	values->conversation_logs = strdup("");
	values->go_on = strdup("");
	values->limit_zone.local = true;
	if (!profile->match || !values->name || !values->submit || !values->abandon ||
	    !values->cancel || !values->clear || !values->quit || !values->input ||
	    !values->response || !values->conversation_file || !values->conversation_from ||
	    !values->conversations || !values->conversation_logs || !values->go_on) {
		profile_free(profile);
		return NULL;
	}
	pcre2_set_match_limit(profile->match, MATCH_LIMIT);
	pcre2_set_depth_limit(profile->match, MATCH_LIMIT);
	return profile;
}

/* Checks the profile as a whole, and derives looks, tells_ready, says_ready and terminal from its
 * rules. */
static int conclude(struct profile *profile, struct ap_err *err)
{
	struct profile_values *values = &profile->values;
	for (unsigned i = 0; i < profile->n_rules; i++) {
		const struct rule *rule = &profile->rules[i];
		bool event = rule->source == PROFILE_EVENT;
		if (event != modes[values->mode].events)
			return ap_err_set(err, -EINVAL, "%s",
					  event ? "rules about events need mode = stream"
						: "with mode = stream rules are about events");
		values->rules.looks = values->rules.looks || rule->source == PROFILE_SCREEN ||
				      rule->source == PROFILE_TITLE;
		values->rules.tells_ready =
			values->rules.tells_ready ||
			(rule->activity == AP_ACTIVITY_READY && rule->source != PROFILE_OSC);
		values->rules.says_ready = values->rules.says_ready ||
					   (rule->activity == AP_ACTIVITY_READY && !rule->perhaps);
	}
	values->rules.looks |= profile_says_usage(profile, PROFILE_SCREEN);
	for (unsigned i = 0; i < profile->n_limits; i++) {
		bool is_answer = profile->limits[i].is_answer;
		if (is_answer != modes[values->mode].events)
			return ap_err_set(err, -EINVAL, "%s",
					  is_answer ? "limited = answer needs mode = stream or acp"
						    : "limited = screen needs a terminal");
		values->rules.looks = values->rules.looks || !is_answer;
	}
	values->rules.terminal = values->mode == PROFILE_TERMINAL && !values->rules.says_ready;
	if (values->mode == PROFILE_STREAM && (!*values->input || !values->rules.tells_ready))
		return ap_err_set(err, -EINVAL, "mode = stream needs input and a ready rule");
	if (values->mode == PROFILE_ACP && profile->n_rules > 0)
		return ap_err_set(err, -EINVAL, "mode = acp has no rules: the program says it all");
	if (modes[values->mode].events) /* nobody can type commands to such a program */
		values->clear[0] = values->quit[0] = '\0';
	if (values->mode != PROFILE_ACP)
		return 0;
	free(values->clear); /* the protocol has a way to forget */
	values->clear = NULL;
	return copy(&values->clear, "session/new", err);
}

int profile_load(struct profile **ret, const char *name, const char *const *dirs,
		 struct ap_err *err)
{
	struct profile *profile = profile_unknown();
	if (!profile)
		return ap_err_errno(err, -ENOMEM, "profile");
	struct loader loader = {.profile = profile, .all = dirs, .dirs = dirs, .name = name};
	const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
	int r = load(&loader, err);
	if (r == 0)
		r = conclude(profile, err) < 0 ? ap_err_wrap(err, -EINVAL, "profile %s", name) : 0;
	if (r == 0)
		r = copy(&profile->values.name, base, err);
	size_t len = r == 0 ? strlen(profile->values.name) : 0;
	if (slash && len > 5 && strcmp(profile->values.name + len - 5, ".conf") == 0)
		profile->values.name[len - 5] = '\0';
	if (r < 0)
		profile_free(profile);
	else
		*ret = profile;
	return r;
}

static void words_fini(struct profile_words *words)
{
	for (unsigned i = 0; i < words->n; i++)
		free(words->at[i]);
	free(words->at);
}

static void pairs_fini(struct profile_pairs *pairs)
{
	for (unsigned i = 0; i < pairs->n; i++) {
		free(pairs->at[i].name);
		free(pairs->at[i].value);
	}
	free(pairs->at);
}

void profile_free(struct profile *profile)
{
	if (!profile)
		return;
	struct profile_values *values = &profile->values;
	for (unsigned i = 0; i < profile->n_rules; i++)
		rule_fini(&profile->rules[i]);
	for (unsigned i = 0; i < profile->n_answers; i++) {
		pcre2_code_free(profile->answers[i].regex);
		free(profile->answers[i].keys);
	}
	for (unsigned i = 0; i < profile->n_questions; i++)
		question_rule_fini(&profile->questions[i]);
	for (unsigned i = 0; i < profile->n_options; i++)
		question_rule_fini(&profile->options[i]);
	for (unsigned i = 0; i < profile->n_usages; i++)
		usage_rule_fini(&profile->usages[i]);
	forget_limits(profile);
	pcre2_code *const regexes[] = {profile->composer,
				       profile->composer_empty,
				       profile->lead,
				       profile->trail,
				       profile->answer,
				       profile->conversation,
				       profile->conversation_log,
				       profile->resumed};
	for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++)
		pcre2_code_free(regexes[i]);
	char *const texts[] = {values->name,
			       values->submit,
			       values->abandon,
			       values->cancel,
			       values->clear,
			       values->quit,
			       values->input,
			       values->response,
			       values->conversation_file,
			       values->conversation_from,
			       values->conversations,
			       values->conversation_logs,
			       values->go_on};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		free(texts[i]);
	words_fini(&values->args);
	words_fini(&values->writes);
	words_fini(&values->passes);
	words_fini(&values->new_conversation);
	words_fini(&values->resume);
	words_fini(&values->own_conversation);
	words_fini(&values->env);
	pairs_fini(&values->files);
	pairs_fini(&values->seeds);
	pairs_fini(&values->configure);
	pcre2_match_context_free(profile->match);
	free(profile->rules);
	free(profile->answers);
	free(profile->usages);
	free(profile->questions);
	free(profile->options);
	free(profile->limits);
	free(profile);
}

const struct profile_values *profile_values(const struct profile *profile)
{
	return &profile->values;
}
