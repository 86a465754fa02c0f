/* A profile as a user writes it, and what it then makes of a screen, a title, a prompt and an
 * event: texts with a NUL between them. */
#include "rules.h"

#include <errno.h>
#include <jansson.h>

static const char *const dirs[] = {AP_SOURCE_DIR "/share/programs", NULL};

static void values_hold(const struct profile_values *values)
{
	const char *const texts[] = {values->name, values->submit, values->abandon, values->clear,
				     values->quit, values->input,  values->response};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		HOLDS(texts[i]);
	HOLDS(values->pause_ns >= 0 && values->rules.debounce_ns >= 0);
	HOLDS(values->rules.hold_ns >= 0 && values->rules.silence_ns >= 0);
	bool stream = values->mode == PROFILE_STREAM;
	HOLDS(!stream || (*values->input && values->rules.tells_ready));
	HOLDS(!stream || (!*values->clear && !*values->quit));
	HOLDS(stream == values->rules.reports);
	HOLDS((values->mode == PROFILE_SHELL) == values->rules.shell);
	for (unsigned i = 0; i < values->args.n; i++)
		HOLDS(values->args.at[i]);
	for (unsigned i = 0; i < values->env.n; i++)
		HOLDS(values->env.at[i][0] && values->env.at[i][0] != '=');
	for (unsigned i = 0; i < values->files.n; i++)
		HOLDS(values->files.at[i].name[0] && !strchr(values->files.at[i].name, '/'));
	for (unsigned i = 0; i < values->seeds.n; i++) {
		json_t *seed = json_loads(values->seeds.at[i].value, 0, NULL);
		HOLDS(json_is_object(seed));
		json_decref(seed);
	}
}

/* Whatever a program's files hold, what is found in them is part of them. */
static void conversations_hold(const struct profile *profile, const char *text)
{
	struct profile_found found = {.id = {0}};
	for (int is_line = 0; is_line < 2; is_line++) {
		if (profile_conversation(profile, is_line, text, strlen(text), &found))
			HOLDS(found.id.len > 0 && found.id.len <= strlen(text) &&
			      found.cwd.len > 0);
		profile_found_fini(&found);
	}
}

/* Whoever has to repair it is told where. */
static void says_where(const struct ap_err *err, const char *path)
{
	const char *at = strstr(err->text, path);
	HOLDS(at && strlen(at) > strlen(path) + 1);
	HOLDS(at[strlen(path)] == ':');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	struct profile *profile = NULL;
	struct ap_err err = {""};
	char path[64];
	char *text = fuzz_text(&input), *screen = fuzz_text(&input), *title = fuzz_text(&input);
	char *prompt = fuzz_text(&input), *event = fuzz_text(&input);
	snprintf(path, sizeof path, "/proc/self/fd/%s", fuzz_file(text, strlen(text)));
	int r = profile_load(&profile, path, dirs, &err);
	HOLDS(r == 0 || r == -EINVAL);
	HOLDS((r == 0) == (profile != NULL) && (r == 0 || err.text[0]));
	if (r == 0) {
		values_hold(profile_values(profile));
		rules_hold(profile, screen, title, prompt);
		events_hold(profile, event);
		conversations_hold(profile, screen);
	} else {
		says_where(&err, path);
	}
	profile_free(profile);
	free(text);
	free(screen);
	free(title);
	free(prompt);
	free(event);
	return 0;
}
