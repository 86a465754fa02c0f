#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "../../fs/last_error.h"

#define N_USERS 64

static void assert_said(uid_t uid, const char *text)
{
	struct ap_buf out = {0};
	last_error_show(uid, &out);
	assert_string_equal(ap_buf_text(&out), text);
	ap_buf_fini(&out);
}

static void last_one_stays(void **state)
{
	last_error_set(1, "first");
	last_error_set(1, "second");
	assert_said(1, "second\n");
	assert_said(2, "");
}

static void bounded(void **state)
{
	for (uid_t uid = 100; uid < 100 + N_USERS; uid++)
		last_error_set(uid, "once");
	last_error_set(100, "again");
	last_error_set(7, "one more");
	assert_said(7, "one more\n");
	assert_said(100, "again\n");
	assert_said(101, ""); /* the one that nothing was said to for longest */
	assert_said(102, "once\n");
}

static void tamed(void **state)
{
	char line[2048];
	memset(line, 'x', sizeof line - 1);
	line[0] = '\033';
	line[sizeof line - 1] = '\0';
	last_error_set(1, line);
	struct ap_buf out = {0};
	last_error_show(1, &out);
	assert_int_equal(out.data[0], '?');
	assert_true(out.len <= sizeof(struct ap_err));
	ap_buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the last sentence of each user is remembered", last_one_stays),
		IT("64 users are remembered, those of the latest refusals", bounded),
		IT("a sentence is bounded and does nothing to a terminal", tamed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
