#include "seed.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"

#define SETTINGS_MAX (64 << 20) /* bytes of a program's settings */

struct expander {
	void (*expand)(void *data, const char *text, struct ap_buf *ret);
	void *data;
};

/* A copy with all strings and names expanded; NULL on ENOMEM. */
static json_t *expanded(const struct expander *expander, json_t *json)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (json_is_string(json)) {
		expander->expand(expander->data, json_string_value(json), &text);
		return json_string(ap_buf_text(&text));
	}
	json_t *value;
	if (json_is_array(json)) {
		json_t *array = json_array();
		size_t i;
		json_array_foreach(json, i, value)
			json_array_append_new(array, expanded(expander, value));
		return array;
	}
	if (!json_is_object(json))
		return json_incref(json);
	json_t *object = json_object();
	const char *name;
	json_object_foreach(json, name, value)
	{
		text.len = 0;
		expander->expand(expander->data, name, &text);
		ap_buf_adds(&text, "");
		json_object_set_new(object, ap_buf_text(&text), expanded(expander, value));
	}
	return object;
}

/* Adds the members of `wanted` that `object` lacks. Whether there were any. */
static bool add_missing(json_t *object, json_t *wanted)
{
	const char *name;
	json_t *value;
	bool added = false;
	json_object_foreach(wanted, name, value)
	{
		json_t *there = json_object_get(object, name);
		if (!there)
			added = json_object_set(object, name, value) == 0 || added;
		else if (json_is_object(there) && json_is_object(value))
			added = add_missing(there, value) || added;
	}
	return added;
}

/* Replaces the file. The new file has the mode of `old`, and its owner if `there`. */
static int replace(const char *path, const json_t *object, const struct stat *old, bool there,
		   struct ap_err *err)
{
	AP_CLEANUP_FREE char *temporary = NULL;
	AP_CLEANUP_FREE char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	if (!text || asprintf(&temporary, "%s.agentpool-XXXXXX", path) < 0)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	AP_CLEANUP_CLOSE int fd = mkostemp(temporary, O_CLOEXEC);
	size_t len = strlen(text);
	if (fd < 0)
		return ap_err_errno(err, -errno, "%s", path);
	if (write(fd, text, len) != (ssize_t)len ||
	    (there && fchown(fd, old->st_uid, old->st_gid) < 0) ||
	    fchmod(fd, old->st_mode & 07777) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
		int error = errno ? -errno : -EIO;
		unlink(temporary);
		return ap_err_errno(err, error, "%s", path);
	}
	return 0;
}

int seed_json(const char *path, const char *wanted,
	      void (*expand)(void *data, const char *text, struct ap_buf *ret), void *data,
	      struct ap_err *err)
{
	char real[PATH_MAX]; /* replaces the target of a link, not the link */
	struct stat st = {.st_mode = 0600};
	json_error_t error;
	if (!realpath(path, real)) {
		if (errno != ENOENT || strlen(path) >= sizeof real)
			return ap_err_errno(err, -errno, "%s", path);
		strcpy(real, path);
	}
	bool there = stat(real, &st) == 0;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int r = there ? file_read(real, 0, SETTINGS_MAX, &text, err) : 0;
	if (r < 0)
		return r;
	json_t *object = text.len > 0 ? json_loadb(text.data, text.len, 0, &error) : json_object();
	if (!json_is_object(object)) {
		json_decref(object);
		return ap_err_set(err, -EINVAL, "%s is no object of JSON and is left alone", path);
	}
	json_t *plain = json_loads(wanted, 0, NULL);
	json_t *add = plain ? expanded(&(struct expander){expand, data}, plain) : NULL;
	r = add ? 0 : ap_err_errno(err, -ENOMEM, "%s", path);
	if (r == 0 && add_missing(object, add)) {
		AP_CLEANUP_FREE char *dir = strdup(real);
		char *slash = dir ? strrchr(dir, '/') : NULL;
		if (slash && slash != dir) {
			*slash = '\0';
			r = there ? 0 : file_make_dirs(dir, err);
		}
		if (r == 0)
			r = replace(real, object, &st, there, err);
	}
	json_decref(plain);
	json_decref(add);
	json_decref(object);
	return r;
}
