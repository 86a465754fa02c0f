/* Settings put into a JSON file that its user may have made. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "seed.h"

static char dir[32], path[64];

static int setup(void **state)
{
	strcpy(dir, "/tmp/agentpool-seed-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/settings.json", dir);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(dir);
}

/* `$` stands for a word. */
static void expand(void *data, const char *text, struct ap_buf *ret)
{
	for (; *text; text++)
		ap_buf_adds(ret, *text == '$' ? "word" : (const char[]){*text, '\0'});
}

static void write_settings(const char *text)
{
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void assert_seeds(const char *wanted, const char *expected)
{
	char text[512];
	struct ap_err err = {""};
	assert_int_equal(seed_json(path, wanted, expand, NULL, &err), 0);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	text[fread(text, 1, sizeof text - 1, file)] = '\0';
	fclose(file);
	size_t n = 0; /* blanks of the layout do not matter */
	for (const char *at = text; *at; at++) {
		if (*at != ' ' && *at != '\n')
			text[n++] = *at;
	}
	text[n] = '\0';
	assert_string_equal(text, expected);
}

static void only_what_is_missing_is_added(void **state)
{
	write_settings("{\"theme\": \"light\", \"projects\": {\"/a\": {\"trusted\": false}}}");
	assert_seeds("{\"theme\": \"dark\", \"projects\": {\"/a\": {\"trusted\": true, \"n\": 1}}}",
		     "{\"theme\":\"light\",\"projects\":{\"/a\":{\"trusted\":false,\"n\":1}}}");
}

static void texts_are_expanded_wherever_they_stand(void **state)
{
	assert_seeds("{\"$\": \"a$\", \"in\": [\"$\", {\"$\": [\"$\"]}, 1]}",
		     "{\"word\":\"aword\",\"in\":[\"word\",{\"word\":[\"word\"]},1]}");
}

static void what_is_no_object_is_left_alone(void **state)
{
	struct stat before, after;
	struct ap_err err = {""};
	write_settings("[1]");
	assert_int_equal(stat(path, &before), 0);
	assert_true(seed_json(path, "{\"a\": 1}", expand, NULL, &err) < 0);
	assert_non_null(strstr(err.text, "is no object of JSON"));
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
}

#define SEED_TEST(sentence, function)                                                              \
	{                                                                                          \
		(sentence), (function), setup, teardown, NULL                                      \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SEED_TEST("only what is missing is added", only_what_is_missing_is_added),
		SEED_TEST("texts are expanded wherever they stand, in arrays too",
			  texts_are_expanded_wherever_they_stand),
		SEED_TEST("a file that is no object is left alone",
			  what_is_no_object_is_left_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
