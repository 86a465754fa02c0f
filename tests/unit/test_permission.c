#include "unit.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "permission.h"

static void words_are_read_and_written(void **state)
{
	static const struct {
		const char *text, *again;
	} rows[] = {
		{"ask", NULL},
		{"allow", NULL},
		{"reject", NULL},
		{"allow:read", NULL},
		{"allow:read,search", NULL},
		{"allow:search,read", "allow:read,search"},
		{"allow:other,other", "allow:other"},
		{"allow:edit,delete,move,search,execute,think,fetch,switch_mode,other", NULL},
		{"allow:other,read,edit,delete,move,search,execute,think,fetch,switch_mode",
		 "allow"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[AP_PERMISSION_MAX];
		uint32_t policy = 77, again = 78;
		assert_int_equal(ap_permission_parse(rows[i].text, &policy, NULL), 0);
		ap_permission_format(policy, text, sizeof text);
		assert_string_equal(text, rows[i].again ? rows[i].again : rows[i].text);
		assert_int_equal(ap_permission_parse(text, &again, NULL), 0);
		assert_int_equal(again, policy);
	}
}

static void every_policy_fits_its_bounds(void **state)
{
	assert_true((AP_PERMISSION_REJECT | AP_PERMISSION_ALLOW) <= INT16_MAX);
	for (uint32_t policy = 0; policy <= AP_PERMISSION_REJECT; policy++) {
		char text[AP_PERMISSION_MAX + 1];
		uint32_t again = 77;
		ap_permission_format(policy, text, sizeof text);
		assert_true(strlen(text) < AP_PERMISSION_MAX);
		assert_int_equal(ap_permission_parse(text, &again, NULL), 0);
		assert_int_equal(again, policy);
	}
}

static void other_words_are_refused_with_what_there_is(void **state)
{
	static const char *const bad[] = {
		"",
		"Allow",
		"allow ",
		"allow:",
		"allow:,",
		"allow:read,",
		"allow:,read",
		"allow:reads",
		"allow:rea",
		"reject:read",
		"ask:read",
		"allow:read search",
		"allow:READ",
		"allow:read,allow",
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct ap_err err = {""};
		uint32_t policy = 77;
		assert_int_equal(ap_permission_parse(bad[i], &policy, &err), -EINVAL);
		assert_int_equal(policy, 77);
		assert_non_null(strstr(err.text, "none of:"));
		assert_non_null(strstr(err.text, "read edit delete move search execute think fetch "
						 "switch_mode other"));
	}
	struct ap_err err;
	uint32_t policy;
	assert_int_equal(ap_permission_parse("allow:read,frob,edit", &policy, &err), -EINVAL);
	assert_ptr_equal(strstr(err.text, "'frob' is none of: read"), err.text);
}

static void kinds_have_a_number_each(void **state)
{
	for (int kind = 0; kind < AP_PERMISSION_N_KINDS; kind++)
		assert_int_equal(ap_permission_kind(ap_permission_kinds[kind]), kind);
	assert_null(ap_permission_kinds[AP_PERMISSION_N_KINDS]);
	assert_int_equal(ap_permission_kind(""), -1);
	assert_int_equal(ap_permission_kind("rea"), -1);
	assert_int_equal(ap_permission_kind("reads"), -1);
}

static enum ap_verdict judge(const char *word, const char *kind)
{
	uint32_t policy = 0;
	assert_int_equal(ap_permission_parse(word, &policy, NULL), 0);
	return ap_permission_judge(policy, kind);
}

static void a_policy_judges_by_the_kind(void **state)
{
	for (int i = 0; i < AP_PERMISSION_N_KINDS; i++) {
		const char *kind = ap_permission_kinds[i];
		bool named = strcmp(kind, "read") == 0 || strcmp(kind, "switch_mode") == 0;
		assert_int_equal(judge("ask", kind), AP_VERDICT_ASK);
		assert_int_equal(judge("allow", kind), AP_VERDICT_ALLOW);
		assert_int_equal(judge("reject", kind), AP_VERDICT_REJECT);
		assert_int_equal(judge("allow:read,switch_mode", kind),
				 named ? AP_VERDICT_ALLOW : AP_VERDICT_ASK);
	}
}

static void what_is_of_no_kind_is_asked_whatever_the_policy(void **state)
{
	static const char *const policies[] = {"ask", "allow", "reject", "allow:other"};
	for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
		assert_int_equal(judge(policies[i], "frob"), AP_VERDICT_ASK);
		assert_int_equal(judge(policies[i], ""), AP_VERDICT_ASK);
		assert_int_equal(judge(policies[i], NULL), AP_VERDICT_ASK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("words are read, and written as they are read", words_are_read_and_written),
		IT("every policy fits its bounds", every_policy_fits_its_bounds),
		IT("other words are refused, with what there is",
		   other_words_are_refused_with_what_there_is),
		IT("kinds have a number each", kinds_have_a_number_each),
		IT("a policy judges by the kind", a_policy_judges_by_the_kind),
		IT("what is of no kind is asked, whatever the policy",
		   what_is_of_no_kind_is_asked_whatever_the_policy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
