/* Options set one after the other: a line is NAME VALUE, at run time, or NAME=VALUE, as behind -o.
 */
#include "fuzz.h"

#include <errno.h>

#include "config.h"

static void show(const struct ap_config *config, enum ap_option option, struct ap_buf *out)
{
	out->len = 0;
	ap_config_show(config, option, out);
	HOLDS(!out->failed);
}

static bool same(const struct ap_config *a, const struct ap_config *b, enum ap_option option)
{
	const char *text = a->text[option];
	return a->number[option] == b->number[option] && a->origin[option] == b->origin[option] &&
	       !text == !b->text[option] && (!text || strcmp(text, b->text[option]) == 0);
}

static bool same_but(const struct ap_config *a, const struct ap_config *b, int changed)
{
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		if (i != changed && !same(a, b, (enum ap_option)i))
			return false;
	}
	return true;
}

/* The word of that place, as a reader of the manual counts them. */
static bool is_choice(const char *choices, unsigned place, const char *word)
{
	while (place-- > 0) {
		choices += strcspn(choices, " ");
		choices += *choices == ' ';
	}
	size_t len = strcspn(choices, " ");
	return len > 0 && strlen(word) == len && strncmp(choices, word, len) == 0;
}

static void is_in_range(const struct ap_config *config, enum ap_option option)
{
	const struct ap_option_row *row = &ap_options[option];
	int64_t number = config->number[option];
	if (row->type == AP_TYPE_CHOICE)
		HOLDS(is_choice(row->choices, ap_config_choice(config, option),
				config->text[option]));
	else if (row->type == AP_TYPE_TEXT)
		HOLDS(strlen(config->text[option]) < AP_OPTION_TEXT_MAX);
	else
		HOLDS((number >= row->min && number <= row->max) || (row->word && number == 0) ||
		      (!*row->initial && number == -1));
}

/* What is shown is taken again, and means the same. */
static void is_taken_again(const struct ap_config *config, enum ap_option option)
{
	AP_CLEANUP_BUF struct ap_buf shown = {0}, again = {0};
	struct ap_config copy = {0};
	struct ap_err err = {""};
	HOLDS(ap_config_copy(&copy, config) == 0);
	show(config, option, &shown);
	bool at_mount = config->origin[option] == AP_ORIGIN_MOUNT;
	HOLDS(ap_config_set(&copy, option, ap_buf_text(&shown), at_mount, &err) == 0);
	HOLDS(same(config, &copy, option) && same_but(config, &copy, -1));
	show(&copy, option, &again);
	HOLDS(strcmp(ap_buf_text(&shown), ap_buf_text(&again)) == 0);
	ap_config_fini(&copy);
}

static void set(struct ap_config *config, enum ap_option option, const char *value, bool at_mount)
{
	struct ap_config before = {0};
	struct ap_err err = {""}, try_err = {""};
	HOLDS(ap_config_copy(&before, config) == 0);
	bool fitted = ap_config_check(config, NULL) == 0;
	int tried = ap_config_try(config, option, value, &try_err);
	int r = ap_config_set(config, option, value, at_mount, &err);
	HOLDS(r == 0 || r == -EINVAL || r == -ERANGE || r == -EPERM);
	HOLDS((r == 0) == (err.text[0] == '\0'));
	HOLDS(at_mount || tried == r);
	HOLDS(same_but(config, &before, r == 0 ? (int)option : -1));
	if (r == 0) {
		is_in_range(config, option);
		HOLDS(config->origin[option] == (at_mount ? AP_ORIGIN_MOUNT : AP_ORIGIN_SET));
		HOLDS(at_mount || !fitted || ap_config_check(config, NULL) == 0);
		is_taken_again(config, option);
	}
	ap_config_fini(&before);
}

/* A line as it would stand on the command line, or be written to a file of config/. */
static void take_line(struct ap_config *config, char *line)
{
	size_t len = strcspn(line, "= ");
	bool at_mount = line[len] == '=';
	struct ap_err err = {""};
	if (line[len] == '\0')
		return;
	line[len] = '\0';
	int option = ap_option_find(line);
	if (option >= 0)
		set(config, (enum ap_option)option, line + len + 1, at_mount);
	else if (strcmp(line, "profile") == 0)
		(void)ap_config_profile(config, line + len + 1, &err); /* whether it is one */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	struct ap_config config = {0};
	HOLDS(ap_config_init(&config) == 0);
	while (input.left > 0) {
		char *line = fuzz_line(&input);
		take_line(&config, line);
		free(line);
	}
	ap_config_fini(&config);
	return 0;
}
