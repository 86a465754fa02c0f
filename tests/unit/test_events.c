#include "unit.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "events.h"

#define LIMIT	 (4 << 20)
#define N_EVENTS 100000

static char path[] = "/tmp/agentpool-events-XXXXXX";
static struct events *events;

static int begin(void **state)
{
	struct ap_err err = {""};
	int fd = mkstemp(path);
	return fd < 0 || close(fd) < 0 ? -1 : events_open(&events, path, &err);
}

static int end(void **state)
{
	events_close(events);
	return unlink(path);
}

static void bounded(void **state)
{
	char text[256];
	int64_t first;
	struct stat attr;
	for (int i = 0; i < N_EVENTS; i++)
		events_add(events, "test",
			   EVENT_FIELDS({.name = "text", .text = "of some length or other"}));
	int64_t size = events_size(events);
	assert_true(size > 2 * LIMIT); /* offsets count all that was ever written */
	ssize_t n = events_read(events, false, text, sizeof text, 0, &first);
	assert_true(n > 0);
	assert_true(size - first <= LIMIT + LIMIT / 8);
	assert_true(size - first >= LIMIT / 2);
	assert_memory_equal(text, "{\"seq\":", 7); /* the first that is kept is whole */
	assert_int_equal(stat(path, &attr), 0);
	assert_true(attr.st_blocks * 512 <= 2 * LIMIT); /* nor is it on the disk */
}

static void told_of_missed(void **state)
{
	char text[512];
	int64_t first, before = events_look(events).seq;
	for (int i = 0; i < 20000; i++)
		events_note(events, "test", EVENT_FIELDS({.name = "n", .number = i}));
	assert_int_equal(events_look(events).seq, before); /* nobody writes yet */
	assert_int_equal(events_start(events, NULL, NULL), 0);
	events_end(events);
	struct events_end end = events_look(events);
	assert_true(end.over);
	assert_int_equal(end.seq, before + 16384 + 1);
	ssize_t n = events_read(events, true, text, sizeof text - 1, end.offset - 200, &first);
	assert_true(n == 200 || n == -EAGAIN); /* whatever is in memory */
	n = events_read(events, false, text, sizeof text - 1, end.offset - 200, &first);
	assert_int_equal(n, 200);
	text[n] = '\0';
	assert_non_null(strstr(text, "\"n\":16383}\n"));
	assert_non_null(strstr(text, "\"missed\",\"count\":3616}\n"));
}

static void news_came(void *data)
{
	sem_post(data);
}

static void told_of_news(void **state)
{
	sem_t news;
	struct events *others;
	struct ap_err err = {""};
	char of_others[] = "/tmp/agentpool-events-XXXXXX";
	sem_init(&news, 0, 0);
	int fd = mkstemp(of_others);
	assert_true(fd >= 0 && close(fd) == 0);
	assert_int_equal(events_open(&others, of_others, &err), 0);
	for (int i = 0; i < 1000; i++)
		events_note(others, "test", EVENT_FIELDS({.name = "n", .number = i}));
	assert_int_equal(events_start(others, news_came, &news), 0);
	assert_int_equal(sem_wait(&news), 0);
	assert_int_equal(sem_trywait(&news), -1); /* once for all of them */
	events_note(others, "test", EVENT_FIELDS({0}));
	assert_int_equal(sem_wait(&news), 0);
	assert_int_equal(events_look(others).seq, 1001);
	events_end(others);
	assert_int_equal(sem_wait(&news), 0); /* that it is over */
	assert_int_equal(sem_trywait(&news), -1);
	events_close(others);
	unlink(of_others);
	sem_destroy(&news);
}

/* As a daemon leaves it that was killed while it wrote, or whose disk was full. */
static void an_event_that_is_cut_off_counts_once_its_number_is_whole(void **state)
{
	static const char whole[] = "{\"seq\":41,\"event\":\"a\"}\n",
			  cut[] = "{\"seq\":42,\"event\"";
	for (size_t len = 0; len < sizeof cut; len++) {
		char of_others[] = "/tmp/agentpool-events-XXXXXX";
		struct events *others;
		struct ap_err err = {""};
		int fd = mkstemp(of_others);
		assert_true(fd >= 0);
		assert_int_equal(write(fd, whole, sizeof whole - 1), sizeof whole - 1);
		assert_int_equal(write(fd, cut, len), len);
		close(fd);
		assert_int_equal(events_open(&others, of_others, &err), 0);
		assert_int_equal(events_look(others).seq, len > strlen("{\"seq\":42") ? 42 : 41);
		events_close(others);
		unlink(of_others);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the last 4 MiB of events are kept", bounded),
		IT("what finds no room in the queue is counted, behind what did", told_of_missed),
		IT("who reads is told of news, once for all that came meanwhile", told_of_news),
		IT("an event that is cut off counts once its number is whole",
		   an_event_that_is_cut_off_counts_once_its_number_is_whole),
	};
	return cmocka_run_group_tests(tests, begin, end);
}
