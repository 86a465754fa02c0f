#include "rules.h"

#include <errno.h>
#include <jansson.h>

static void says_why(const struct activity_signal *signal)
{
	static const char *const sources[] = {"screen: ", "title: ", "osc: ", "event: "};
	bool named = false;
	for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
		named = named || strncmp(signal->why, sources[i], strlen(sources[i])) == 0;
	HOLDS(named && strlen(signal->why) < sizeof signal->why);
	HOLDS(fuzz_is_utf8(signal->why, strlen(signal->why)));
	for (const char *c = signal->why; *c; c++)
		HOLDS((unsigned char)*c >= 0x20 && *c != 0x7f);
	HOLDS(signal->activity != AP_ACTIVITY_EXITED);
}

static void judge_holds(const struct profile *profile, enum profile_source source, const char *text,
			const char *title)
{
	struct activity_signal signal, again;
	bool found = profile_judge(profile, source, text, title, &signal);
	HOLDS(found == signal.found);
	HOLDS(profile_judge(profile, source, text, title, &again) == found);
	HOLDS(strcmp(signal.why, again.why) == 0);
	if (found)
		says_why(&signal);
	else
		HOLDS(signal.why[0] == '\0');
	/* a title adds evidence, and takes none away */
	if (found && source == PROFILE_SCREEN && !title)
		HOLDS(profile_judge(profile, source, text, "", &again));
}

static bool is_blank_at(const char *text, size_t len)
{
	return len > 0 && text[0] != '\0' && strchr(" \t\n", text[0]);
}

/* An answer is a line or several, without blanks round it; or empty. */
static void answer_holds(const struct profile *profile, const char *screen)
{
	AP_CLEANUP_BUF struct ap_buf answer = {0};
	bool found = profile_answer(profile, screen, &answer);
	HOLDS(!found || profile_has_answer(profile));
	if (!found || answer.len == 0)
		return;
	HOLDS(answer.len > 1 && answer.len <= strlen(screen) + 1);
	HOLDS(answer.data[answer.len - 1] == '\n');
	HOLDS(!is_blank_at(answer.data, answer.len));
	HOLDS(!is_blank_at(answer.data + answer.len - 2, 1));
}

static void line_holds(const char *text, size_t size)
{
	HOLDS(strlen(text) < size && fuzz_is_utf8(text, strlen(text)));
	for (const char *c = text; *c; c++)
		HOLDS((unsigned char)*c >= 0x20 && *c != 0x7f);
}

/* Lines for people; and each option is one that an answer can name. */
static void question_holds(const struct profile *profile, const char *screen)
{
	struct question asked;
	HOLDS(profile_question(profile, screen, &asked) == (asked.id[0] != '\0'));
	line_holds(asked.title, sizeof asked.title);
	line_holds(asked.detail, sizeof asked.detail);
	for (unsigned i = 0; i < asked.n_options; i++) {
		const struct question_option *option = &asked.options[i];
		line_holds(option->name, sizeof option->name);
		line_holds(option->keys, sizeof option->keys);
		HOLDS(option->name[0] && option->keys[0] && !strchr(option->id, ' '));
		HOLDS(question_option(&asked, option->id));
	}
	HOLDS(!question_option(&asked, ""));
}

/* A prompt stays what it is; a blank may be put before and behind it. */
static void dress_holds(const struct profile *profile, const char *prompt)
{
	AP_CLEANUP_BUF struct ap_buf dressed = {0};
	size_t len = strlen(prompt);
	HOLDS(profile_dress(profile, prompt, len, &dressed) == 0);
	HOLDS(dressed.len >= len && dressed.len <= len + 2);
	const char *at = strstr(ap_buf_text(&dressed), prompt);
	HOLDS(at && at - ap_buf_text(&dressed) <= 1);
}

/* One line of JSON, and whatever the prompt is, it is in it as it was. */
static void input_holds(const struct profile *profile, const char *prompt)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	size_t len = strlen(prompt);
	if (profile_values(profile)->mode != PROFILE_STREAM)
		return;
	int r = profile_input(profile, prompt, len, &line);
	HOLDS(r == (fuzz_is_utf8(prompt, len) ? 0 : -EILSEQ));
	if (r < 0)
		return;
	HOLDS(line.len > 1 && strchr(line.data, '\n') == line.data + line.len - 1);
	json_t *input = json_loads(line.data, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	HOLDS(input);
	json_decref(input);
}

void rules_hold(const struct profile *profile, const char *screen, const char *title,
		const char *prompt)
{
	judge_holds(profile, PROFILE_SCREEN, screen, NULL);
	judge_holds(profile, PROFILE_SCREEN, screen, title);
	judge_holds(profile, PROFILE_TITLE, title, NULL);
	judge_holds(profile, PROFILE_OSC, title, NULL);
	HOLDS(profile_composer(profile, screen) == COMPOSER_UNKNOWN ||
	      profile_has_composer(profile));
	const char *keys = profile_auto_answer(profile, screen);
	HOLDS(!keys || *keys);
	answer_holds(profile, screen);
	question_holds(profile, screen);
	dress_holds(profile, prompt);
	input_holds(profile, prompt);
}

void events_hold(const struct profile *profile, const char *event)
{
	AP_CLEANUP_BUF struct ap_buf response = {0};
	judge_holds(profile, PROFILE_EVENT, event, NULL);
	profile_response(profile, event, &response);
	HOLDS(response.len == 0 || response.data[response.len - 1] == '\n');
	HOLDS(fuzz_is_utf8(ap_buf_text(&response), response.len));
}
