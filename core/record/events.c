#include "events.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "clock.h"
#include "kept.h"
#include "list.h"

#define EVENTS_LIMIT (4 << 20)

/* Events in the queue; with those that are taken out and not written yet, some MiB at most. */
#define QUEUE_MAX 16384

struct note {
	struct ap_list link;
	int64_t at_ns;
	const char *kind;
	unsigned n_fields;
	struct event_field fields[]; /* their texts are behind them */
};

struct events {
	pthread_mutex_t
		lock; /* of what follows; taken before queue_lock, held while it is written */
	struct kept kept;
	int64_t seq; /* of the last one */
	bool torn;   /* the disk took the last line in part only */

	pthread_mutex_t queue_lock; /* of what follows; a leaf: nothing is waited for under it */
	pthread_cond_t changed;
	struct ap_list queue; /* struct note */
	unsigned n_queued;
	uint64_t n_missed; /* that found no room, behind those in the queue */
	struct events_end end;
	bool grown;  /* since `news` was called */
	bool ending; /* the thread is to end */

	pthread_t thread;
	bool runs;
	void (*news)(void *data);
	void *data;
};

/* The number of the last event of which that is whole; ends the line of one that is cut off, which
 * stays as it is. */
static int64_t last_seq(struct kept *kept)
{
	char text[8 << 10];
	int64_t size = atomic_load(&kept->size), offset;
	int64_t from = size > (int64_t)sizeof text - 1 ? size - (int64_t)sizeof text + 1 : 0;
	ssize_t n = kept_read(kept, false, text, sizeof text - 1, from, &offset);
	if (n <= 0)
		return 0;
	text[n] = '\0'; /* behind a number that is cut off */
	if (text[n - 1] != '\n')
		kept_append(kept, "\n", 1);
	int64_t last = 0;
	for (char *at = text; (at = memmem(at, (size_t)(text + n - at), "{\"seq\":", 7));) {
		int64_t seq = strtoll(at + 7, &at, 10);
		last = *at == ',' ? seq : last; /* else it is cut off */
	}
	return last;
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
	pthread_mutex_init(&events->queue_lock, NULL);
	pthread_cond_init(&events->changed, NULL);
	ap_list_init(&events->queue);
	events->end =
		(struct events_end){.offset = atomic_load(&events->kept.size), .seq = events->seq};
	*ret = events;
	return 0;
}

/* Texts of programs and users need not be UTF-8: the event leaves such a text out. */
static void add_field(json_t *event, const struct event_field *field)
{
	json_t *value = NULL;
	if (!field->text)
		value = json_integer(field->number);
	else if (*field->text && field->number == EVENT_JSON)
		value = json_loads(field->text, JSON_DECODE_ANY, NULL);
	else if (*field->text)
		value = json_string(field->text);
	if (value)
		json_object_set_new(event, field->name, value);
}

static struct note *note_new(const char *kind, const struct event_field *fields)
{
	size_t n = 0, texts = 0;
	for (; fields[n].name; n++)
		texts += fields[n].text ? strlen(fields[n].text) + 1 : 0;
	struct note *note = malloc(sizeof *note + n * sizeof *fields + texts);
	if (!note)
		return NULL;
	ap_list_init(&note->link);
	note->at_ns = ap_clock_ns();
	note->kind = kind;
	note->n_fields = (unsigned)n;
	char *text = (char *)&note->fields[n];
	for (size_t i = 0; i < n; i++) {
		note->fields[i] = fields[i];
		if (!fields[i].text)
			continue;
		note->fields[i].text = text;
		text = stpcpy(text, fields[i].text) + 1;
	}
	return note;
}

void events_note(struct events *events, const char *kind, const struct event_field *fields)
{
	struct note *note = note_new(kind, fields);
	pthread_mutex_lock(&events->queue_lock);
	/* once one event is missed so are those behind it, until `missed` is written: the order
	 * stays */
	if (note && events->n_queued < QUEUE_MAX && events->n_missed == 0) {
		ap_list_append(&events->queue, &note->link);
		events->n_queued++;
		note = NULL;
	} else {
		events->n_missed++;
	}
	pthread_cond_signal(&events->changed);
	pthread_mutex_unlock(&events->queue_lock);
	free(note);
}

static void write_locked(struct events *events, const char *kind, int64_t at_ns,
			 const struct event_field *fields, size_t n, struct ap_buf *out)
{
	char when[32];
	ap_clock_rfc3339_us(at_ns, when, sizeof when);
	json_t *event = json_object();
	json_object_set_new(event, "seq", json_integer(++events->seq));
	json_object_set_new(event, "time", json_string(when));
	json_object_set_new(event, "event", json_string(kind));
	for (size_t i = 0; i < n; i++)
		add_field(event, &fields[i]);
	char *line =
		json_dumps(event, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));
	if (line) {
		ap_buf_adds(out, line);
		ap_buf_adds(out, "\n");
	}
	free(line);
	json_decref(event);
}

/* Appends the lines, and publishes the new end when they are whole. */
static void append_locked(struct events *events, const struct ap_buf *lines)
{
	if (events->torn)
		kept_append(&events->kept, "\n", 1);
	int64_t before = atomic_load(&events->kept.size);
	kept_append(&events->kept, lines->data, lines->len);
	int64_t size = atomic_load(&events->kept.size);
	events->torn = size - before != (int64_t)lines->len;
	kept_bound(&events->kept, EVENTS_LIMIT);
	if (events->torn)
		return;
	pthread_mutex_lock(&events->queue_lock);
	events->end.offset = size;
	events->end.seq = events->seq;
	events->grown = true;
	pthread_cond_signal(&events->changed);
	pthread_mutex_unlock(&events->queue_lock);
}

/* Bytes that are written at once. */
#define LINES_AT_ONCE (64 << 10)

/* Writes what is in the queue. Takes it out under the lock under which it writes, so that two
 * threads that drain cannot swap. */
static void drain(struct events *events)
{
	struct ap_list taken;
	struct ap_buf lines = {0};
	ap_list_init(&taken);
	pthread_mutex_lock(&events->lock);
	pthread_mutex_lock(&events->queue_lock);
	ap_list_splice(&events->queue, &taken);
	uint64_t n_missed = events->n_missed;
	events->n_missed = 0;
	events->n_queued = 0;
	pthread_mutex_unlock(&events->queue_lock);
	while (!ap_list_empty(&taken)) {
		struct note *note = ap_container_of(taken.next, struct note, link);
		ap_list_remove(&note->link);
		write_locked(events, note->kind, note->at_ns, note->fields, note->n_fields, &lines);
		free(note);
		if (lines.len >= LINES_AT_ONCE) {
			append_locked(events, &lines);
			ap_buf_fini(&lines);
		}
	}
	if (n_missed > 0)
		write_locked(events, "missed", ap_clock_ns(),
			     EVENT_FIELDS({"count", NULL, (int64_t)n_missed}), 1, &lines);
	if (lines.len > 0)
		append_locked(events, &lines);
	pthread_mutex_unlock(&events->lock);
	ap_buf_fini(&lines);
}

void events_add(struct events *events, const char *kind, const struct event_field *fields)
{
	events_note(events, kind, fields);
	drain(events);
}

void events_settle(struct events *events)
{
	drain(events);
}

bool events_are_settled(struct events *events)
{
	if (!kept_lock(&events->lock, true)) /* what was taken out of the queue is being written */
		return false;
	pthread_mutex_lock(&events->queue_lock);
	bool settled = ap_list_empty(&events->queue) || events->end.over;
	pthread_mutex_unlock(&events->queue_lock);
	pthread_mutex_unlock(&events->lock);
	return settled;
}

/* --- the thread --- */

static void *events_main(void *data)
{
	struct events *events = data;
	bool ending;
	do {
		pthread_mutex_lock(&events->queue_lock);
		while (ap_list_empty(&events->queue) && !events->n_missed && !events->grown &&
		       !events->ending)
			pthread_cond_wait(&events->changed, &events->queue_lock);
		ending = events->ending;
		pthread_mutex_unlock(&events->queue_lock);
		drain(events);
		pthread_mutex_lock(&events->queue_lock);
		bool news = events->grown || ending;
		events->grown = false;
		events->end.over = ending;
		pthread_mutex_unlock(&events->queue_lock);
		if (news && events->news)
			events->news(events->data);
	} while (!ending);
	return NULL;
}

int events_start(struct events *events, void (*news)(void *data), void *data)
{
	sigset_t all, before;
	events->news = news;
	events->data = data;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&events->thread, NULL, events_main, events);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	events->runs = r == 0;
	return r;
}

void events_end(struct events *events)
{
	if (!events->runs)
		return;
	pthread_mutex_lock(&events->queue_lock);
	events->ending = true;
	pthread_cond_signal(&events->changed);
	pthread_mutex_unlock(&events->queue_lock);
	pthread_join(events->thread, NULL);
	events->runs = false;
}

void events_close(struct events *events)
{
	if (!events)
		return;
	events_end(events);
	drain(events);
	kept_close(&events->kept);
	pthread_cond_destroy(&events->changed);
	pthread_mutex_destroy(&events->queue_lock);
	pthread_mutex_destroy(&events->lock);
	free(events);
}

/* --- reading --- */

struct events_end events_look(struct events *events)
{
	pthread_mutex_lock(&events->queue_lock);
	struct events_end end = events->end;
	pthread_mutex_unlock(&events->queue_lock);
	return end;
}

int64_t events_size(const struct events *events)
{
	return atomic_load(&events->kept.size);
}

ssize_t events_read(struct events *events, bool at_once, void *ret, size_t size, int64_t offset,
		    int64_t *ret_offset)
{
	if (!kept_lock(&events->lock, at_once))
		return -EAGAIN;
	ssize_t n = kept_read(&events->kept, at_once, ret, size, offset, ret_offset);
	pthread_mutex_unlock(&events->lock);
	return n;
}
