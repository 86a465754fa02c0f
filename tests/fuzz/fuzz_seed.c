/* Settings put into a file of JSON that is there: the file and what it is to have, with a NUL
 * between them. */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>

#include "seed.h"

static char dir[] = "/tmp/fuzz-seed-XXXXXX", path[64];

static void remove_all(void)
{
	unlink(path);
	rmdir(dir);
}

static void prepare(const char *text)
{
	if (!path[0]) {
		HOLDS(mkdtemp(dir));
		snprintf(path, sizeof path, "%s/file.json", dir);
		atexit(remove_all);
	}
	FILE *file = fopen(path, "we");
	HOLDS(file && fputs(text, file) >= 0 && fclose(file) == 0);
	HOLDS(chmod(path, 0640) == 0);
}

/* `$` stands for a word. */
static void expand(void *data, const char *text, struct ap_buf *ret)
{
	(void)data;
	for (; *text; text++)
		ap_buf_adds(ret, *text == '$' ? "word" : (const char[]){*text, '\0'});
}

/* Whether `larger` has all that `smaller` has, and the same where both have more than an object. */
static bool has(json_t *larger, json_t *smaller)
{
	const char *name;
	json_t *value;
	if (!json_is_object(larger) || !json_is_object(smaller))
		return json_equal(larger, smaller);
	json_object_foreach(smaller, name, value)
	{
		json_t *there = json_object_get(larger, name);
		if (!there || !has(there, value))
			return false;
	}
	return true;
}

/* Whether a `$` is left in any text. */
static bool has_dollar(json_t *json)
{
	const char *name;
	json_t *value;
	size_t i;
	bool found = json_is_string(json) && strchr(json_string_value(json), '$');
	json_object_foreach(json, name, value) found =
		found || strchr(name, '$') || has_dollar(value);
	json_array_foreach(json, i, value) found = found || has_dollar(value);
	return found;
}

static void nothing_else_is_there(void)
{
	DIR *entries = opendir(dir);
	unsigned n = 0;
	HOLDS(entries);
	while (readdir(entries))
		n++;
	closedir(entries);
	HOLDS(n == 3);
}

static void seeded_holds(json_t *old, json_t *wanted, const char *wanted_text)
{
	struct stat before, after;
	json_t *now = json_load_file(path, 0, NULL);
	const char *name;
	json_t *value;
	HOLDS(json_is_object(now) && has(now, old));
	json_object_foreach(wanted, name, value)
		HOLDS(strchr(name, '$') || json_object_get(now, name));
	HOLDS(has_dollar(old) || !has_dollar(now));
	json_decref(now);
	HOLDS(stat(path, &before) == 0 && (before.st_mode & 07777) == 0640);
	HOLDS(seed_json(path, wanted_text, expand, NULL, NULL) == 0);
	HOLDS(stat(path, &after) == 0 && before.st_ino == after.st_ino);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	char *text = fuzz_text(&input), *wanted_text = fuzz_text(&input);
	json_t *wanted = json_loads(wanted_text, 0, NULL);
	json_t *old = *text ? json_loads(text, 0, NULL) : json_object();
	struct ap_err err = {""};
	if (json_is_object(wanted)) { /* as profiles promise */
		struct stat before, after;
		prepare(text);
		HOLDS(stat(path, &before) == 0);
		int r = seed_json(path, wanted_text, expand, NULL, &err);
		HOLDS(r == (json_is_object(old) ? 0 : -EINVAL));
		if (r == 0 && (*text || json_object_size(wanted) > 0)) /* or it stays empty */
			seeded_holds(old, wanted, wanted_text);
		else if (r < 0)
			HOLDS(stat(path, &after) == 0 && before.st_ino == after.st_ino);
		nothing_else_is_there();
	}
	json_decref(wanted);
	json_decref(old);
	free(text);
	free(wanted_text);
	return 0;
}
