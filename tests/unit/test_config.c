#include "unit.h"

#include <errno.h>
#include <string.h>

#include "config.h"

static struct ap_config config;
static struct ap_err err;

static int setup(void **state)
{
	return ap_config_init(&config);
}

static int teardown(void **state)
{
	ap_config_fini(&config);
	return 0;
}

static void assert_shows(enum ap_option option, const char *text)
{
	struct ap_buf out = {0};
	ap_config_show(&config, option, &out);
	assert_string_equal(ap_buf_text(&out), text);
	ap_buf_fini(&out);
}

static void defaults_are_the_tables(void **state)
{
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		assert_non_null(ap_options[i].name);
		assert_non_null(ap_options[i].doc);
		assert_int_equal(ap_option_find(ap_options[i].name), i);
	}
	assert_shows(AP_OPT_MAX_POOL_SIZE, "10");
	assert_shows(AP_OPT_IDLE_TIMEOUT, "5m");
	assert_shows(AP_OPT_MAX_PROMPT, "1048576");
	assert_shows(AP_OPT_SETUP, "");
	assert_int_equal(ap_config_check(&config, &err), 0);
}

static void bad_values_keep_the_old(void **state)
{
	static const struct {
		const char *text;
		int error;
	} rows[] = {{"-1", -ERANGE},  {"0", -ERANGE},	{"11", -ERANGE},
		    {"", -EINVAL},    {"x", -EINVAL},	{"0x5", -EINVAL},
		    {"1e9", -EINVAL}, {"5 5", -EINVAL}, {"99999999999999999999", -ERANGE}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		err.text[0] = '\0';
		assert_int_equal(
			ap_config_set(&config, AP_OPT_MAX_POOL_SIZE, rows[i].text, false, &err),
			rows[i].error);
		assert_non_null(strstr(err.text, "max_pool_size"));
		assert_shows(AP_OPT_MAX_POOL_SIZE, "10");
	}
}

static void sizes_are_held_against_each_other(void **state)
{
	assert_int_equal(ap_config_set(&config, AP_OPT_MIN_POOL_SIZE, "5", false, &err), 0);
	assert_int_equal(ap_config_set(&config, AP_OPT_MAX_POOL_SIZE, "4", false, &err), -ERANGE);
	assert_int_equal(ap_config_set(&config, AP_OPT_MAX_POOL_SIZE, "5", false, &err), 0);
	assert_int_equal(ap_config_set(&config, AP_OPT_MIN_POOL_SIZE, "6", false, &err), -ERANGE);
	assert_shows(AP_OPT_MIN_POOL_SIZE, "5");
}

static void mount_only_options(void **state)
{
	assert_int_equal(ap_config_set(&config, AP_OPT_PROGRAM, "sh", false, &err), -EPERM);
	assert_int_equal(ap_config_set(&config, AP_OPT_PROGRAM, "sh", true, &err), 0);
	assert_shows(AP_OPT_PROGRAM, "sh");
}

static void what_has_no_default_may_be_empty(void **state)
{
	assert_shows(AP_OPT_UID, "");
	assert_int_equal(config.number[AP_OPT_UID], -1);
	assert_int_equal(ap_config_set(&config, AP_OPT_UID, "0", true, &err), 0);
	assert_shows(AP_OPT_UID, "0");
	assert_int_equal(ap_config_set(&config, AP_OPT_UID, "4294967294", true, &err), 0);
	assert_int_equal(ap_config_set(&config, AP_OPT_UID, "4294967295", true, &err), -ERANGE);
	assert_int_equal(ap_config_set(&config, AP_OPT_UID, "-1", true, &err), -ERANGE);
	assert_int_equal(ap_config_set(&config, AP_OPT_UID, "nobody", true, &err), -EINVAL);
	assert_shows(AP_OPT_UID, "4294967294");
	assert_int_equal(ap_config_set(&config, AP_OPT_UID, "", true, &err), 0);
	assert_shows(AP_OPT_UID, "");
}

static void permission_bits_are_octal(void **state)
{
	static const struct {
		const char *text;
		int error;
	} rows[] = {{"8", -EINVAL},    {"0x1f", -EINVAL},
		    {"-22", -EINVAL},  {"u=rwx", -EINVAL},
		    {"1000", -ERANGE}, {"7777", -ERANGE},
		    {"22 ", -EINVAL},  {"7777777777777777777777777", -ERANGE}};
	assert_int_equal(ap_config_set(&config, AP_OPT_UMASK, "22", true, &err), 0);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_int_equal(ap_config_set(&config, AP_OPT_UMASK, rows[i].text, true, &err),
				 rows[i].error);
		assert_shows(AP_OPT_UMASK, "022");
	}
	assert_int_equal(ap_config_set(&config, AP_OPT_UMASK, "0", true, &err), 0);
	assert_shows(AP_OPT_UMASK, "000");
	assert_int_equal(ap_config_set(&config, AP_OPT_UMASK, "0777", true, &err), 0);
	assert_shows(AP_OPT_UMASK, "777");
	assert_int_equal(ap_config_set(&config, AP_OPT_UMASK, "0", false, &err), -EPERM);
}

static void a_terminal_has_columns_and_rows(void **state)
{
	static const struct {
		const char *text;
		int error;
	} rows[] = {{"200", -EINVAL},	   {"200x", -EINVAL},	  {"x50", -EINVAL},
		    {"200X50", -EINVAL},   {"200x50x1", -EINVAL}, {"-200x50", -EINVAL},
		    {"200 x 50", -EINVAL}, {"0x50", -ERANGE},	  {"79x50", -ERANGE},
		    {"200x23", -ERANGE},   {"200x501", -ERANGE},  {"1001x50", -ERANGE},
		    {"65736x50", -ERANGE}, {"", -EINVAL}};
	assert_shows(AP_OPT_TERMINAL_SIZE, "200x50");
	assert_int_equal(ap_config_set(&config, AP_OPT_TERMINAL_SIZE, "0300x0040", false, &err), 0);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_int_equal(
			ap_config_set(&config, AP_OPT_TERMINAL_SIZE, rows[i].text, false, &err),
			rows[i].error);
		assert_shows(AP_OPT_TERMINAL_SIZE, "300x40");
	}
	assert_int_equal(ap_config_set(&config, AP_OPT_TERMINAL_SIZE, "1000x500", false, &err), 0);
	assert_int_equal(ap_config_set(&config, AP_OPT_TERMINAL_SIZE, "80x24", false, &err), 0);
	assert_shows(AP_OPT_TERMINAL_SIZE, "80x24");
}

static void a_range_is_told(void **state)
{
	static const struct {
		enum ap_option option;
		const char *text, *said;
	} rows[] = {
		{AP_OPT_MAX_POOL_SIZE, "5000",
		 "max_pool_size: '5000' is not in its range, 1 to 4096"},
		{AP_OPT_MAINTENANCE_INTERVAL, "1ms",
		 "maintenance_interval: '1ms' is not in its range, auto or 100ms to 36600d"},
		{AP_OPT_UMASK, "1000", "umask: '1000' is not in its range, 000 to 777"},
		{AP_OPT_TERMINAL_SIZE, "20x5",
		 "terminal_size: '20x5' is not in its range, 80x24 to 1000x500"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_int_equal(ap_config_set(&config, rows[i].option, rows[i].text, true, &err),
				 -ERANGE);
		assert_string_equal(err.text, rows[i].said);
	}
}

static void profiles_set_several(void **state)
{
	assert_int_equal(ap_config_profile(&config, "production", &err), 0);
	assert_shows(AP_OPT_MIN_POOL_SIZE, "4");
	assert_shows(AP_OPT_MAX_INSTANCE_AGE, "2h");
	assert_int_equal(ap_config_set(&config, AP_OPT_MIN_POOL_SIZE, "2", true, &err), 0);
	assert_shows(AP_OPT_MIN_POOL_SIZE, "2");
	assert_int_equal(ap_config_profile(&config, "prod", &err), -EINVAL);
}

static void values_must_fit(void **state)
{
	assert_int_equal(ap_config_set(&config, AP_OPT_SCALE_DOWN_AT, "80", false, &err), -ERANGE);
	assert_int_equal(ap_config_set(&config, AP_OPT_MIN_IDLE, "7", false, &err), -ERANGE);
	assert_int_equal(ap_config_set(&config, AP_OPT_MAX_IDLE, "7", false, &err), 0);
	assert_int_equal(ap_config_set(&config, AP_OPT_MIN_IDLE, "7", false, &err), 0);
	assert_int_equal(ap_config_try(&config, AP_OPT_MAX_IDLE, "9", &err), 0);
	assert_shows(AP_OPT_MAX_IDLE, "7");
}

static void choices_have_places(void **state)
{
	assert_int_equal(ap_config_choice(&config, AP_OPT_SCALE_POLICY), 0);
	assert_int_equal(ap_config_set(&config, AP_OPT_SCALE_POLICY, "spare", false, &err), 0);
	assert_int_equal(ap_config_choice(&config, AP_OPT_SCALE_POLICY), 1);
	static const char *const none[] = {"", " ", "utilization spare", "spar", "utilization "};
	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		assert_int_equal(ap_config_set(&config, AP_OPT_SCALE_POLICY, none[i], false, &err),
				 -EINVAL);
	assert_int_equal(ap_config_set(&config, AP_OPT_BASE, "", false, &err), -EINVAL);
	assert_int_equal(ap_config_set(&config, AP_OPT_MAINTENANCE_INTERVAL, "auto", false, &err),
			 0);
	assert_shows(AP_OPT_MAINTENANCE_INTERVAL, "auto");
	assert_int_equal(ap_config_set(&config, AP_OPT_IDLE_TIMEOUT, "auto", false, &err), -EINVAL);
}

#define OPTION_TEST(sentence, function)                                                            \
	{                                                                                          \
		(sentence), (function), setup, teardown, NULL                                      \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OPTION_TEST("every option has a row and a default", defaults_are_the_tables),
		OPTION_TEST("a bad value is refused by name and keeps the old one",
			    bad_values_keep_the_old),
		OPTION_TEST("min over max is refused from either side",
			    sizes_are_held_against_each_other),
		OPTION_TEST("some options are for the command line only", mount_only_options),
		OPTION_TEST("a number without a default may be empty, and is within its range else",
			    what_has_no_default_may_be_empty),
		OPTION_TEST("permission bits are octal, 0 to 0777", permission_bits_are_octal),
		OPTION_TEST("who is refused for a range is told the range", a_range_is_told),
		OPTION_TEST("a terminal has columns and rows, 80x24 to 1000x500",
			    a_terminal_has_columns_and_rows),
		OPTION_TEST("a profile sets several options, and later ones override it",
			    profiles_set_several),
		OPTION_TEST("values that contradict each other are refused", values_must_fit),
		OPTION_TEST("a choice is one of its words", choices_have_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
