#include "unit.h"

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
	long n = events_read(events, text, sizeof text, 0, &first);
	assert_true(n > 0);
	assert_true(size - first <= LIMIT + LIMIT / 8);
	assert_true(size - first >= LIMIT / 2);
	assert_memory_equal(text, "{\"seq\":", 7); /* the first that is kept is whole */
	assert_int_equal(stat(path, &attr), 0);
	assert_true(attr.st_blocks * 512 <= 2 * LIMIT); /* nor is it on the disk */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the last 4 MiB of events are kept", bounded),
	};
	return cmocka_run_group_tests(tests, begin, end);
}
