#include "progress.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"

#define PAUSE_MS 100
/* A template that is made sooner is not worth a line. */
#define SILENT_MS 500

/* The number in a file of stats/; -1: the pool is not there any more. */
static long stat_of(const char *mountpoint, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	char text[32];
	ap_buf_printf(&path, "%s/stats/%s", mountpoint, name);
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&path), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	return strtol(text, NULL, 10);
}

void progress_show(const char *mountpoint)
{
	bool shown = false;
	for (int waited_ms = 0;
	     stat_of(mountpoint, "templates") == 0 && stat_of(mountpoint, "spawning_agents") > 0;
	     waited_ms += PAUSE_MS) {
		long all = stat_of(mountpoint, "template_files");
		long done = stat_of(mountpoint, "template_files_done");
		if (waited_ms >= SILENT_MS && all > 0) {
			fprintf(stderr, "\ragentpoolfs: checking out: %ld of %ld files", done, all);
			shown = true;
		}
		poll(NULL, 0, PAUSE_MS);
	}
	if (shown)
		fprintf(stderr, "\r\033[K"); /* what was a line of progress is none any more */
}
