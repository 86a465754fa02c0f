#include "events.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "kept.h"

#define EVENTS_LIMIT (4 << 20)

struct events {
	pthread_mutex_t lock; /* of what follows */
	struct kept kept;
	int64_t seq; /* of the last one */
};

/* The number of the last whole event; one that was cut off is left as it is, behind its line's end.
 */
static int64_t last_seq(struct kept *kept)
{
	char text[8 << 10];
	int64_t size = atomic_load(&kept->size), offset;
	int64_t from = size > (int64_t)sizeof text - 1 ? size - (int64_t)sizeof text + 1 : 0;
	ssize_t n = kept_read(kept, text, sizeof text - 1, from, &offset);
	if (n <= 0)
		return 0;
	text[n] = '\0'; /* behind a number that is cut off */
	if (text[n - 1] != '\n')
		kept_append(kept, "\n", 1);
	const char *last = NULL;
	for (const char *at = text; (at = memmem(at, (size_t)(text + n - at), "{\"seq\":", 7));
	     at += 7)
		last = at + 7;
	return last ? strtoll(last, NULL, 10) : 0;
}

int events_open(struct events **ret, const char *path, struct ap_err *err)
{
	struct events *events = calloc(1, sizeof *events);
	if (!events)
		return ap_err_errno(err, -ENOMEM, "events");
	int r = kept_adopt(&events->kept, path);
	if (r < 0) {
		free(events);
		return ap_err_errno(err, r, "%s", path);
	}
	events->seq = last_seq(&events->kept);
	pthread_mutex_init(&events->lock, NULL);
	*ret = events;
	return 0;
}

void events_close(struct events *events)
{
	if (!events)
		return;
	kept_close(&events->kept);
	pthread_mutex_destroy(&events->lock);
	free(events);
}

/* What programs and users say need not be UTF-8: such a text is left out. */
static void add_field(json_t *event, const struct event_field *field)
{
	json_t *value = !field->text   ? json_integer(field->number)
			: *field->text ? json_string(field->text)
				       : NULL;
	if (value)
		json_object_set_new(event, field->name, value);
}

void events_add(struct events *events, const char *kind, const struct event_field *fields)
{
	char when[32];
	ap_clock_rfc3339_us(ap_clock_ns(), when, sizeof when);
	json_t *event = json_object();
	pthread_mutex_lock(&events->lock); /* numbers and lines are in the same order */
	json_object_set_new(event, "seq", json_integer(++events->seq));
	json_object_set_new(event, "time", json_string(when));
	json_object_set_new(event, "event", json_string(kind));
	for (; fields->name; fields++)
		add_field(event, fields);
	char *line = json_dumps(event, JSON_COMPACT | JSON_PRESERVE_ORDER);
	if (line) {
		size_t len = strlen(line);
		line[len] = '\n'; /* in place of the NUL: one write is one line */
		kept_append(&events->kept, line, len + 1);
		kept_bound(&events->kept, EVENTS_LIMIT);
	}
	pthread_mutex_unlock(&events->lock);
	free(line);
	json_decref(event);
}

int64_t events_size(const struct events *events)
{
	return atomic_load(&events->kept.size);
}

long events_read(struct events *events, void *ret, size_t size, int64_t offset, int64_t *ret_offset)
{
	pthread_mutex_lock(&events->lock);
	long n = kept_read(&events->kept, ret, size, offset, ret_offset);
	pthread_mutex_unlock(&events->lock);
	return n;
}
