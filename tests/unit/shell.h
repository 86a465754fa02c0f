/* A test that has a directory of its own, and does there by a shell what a user would. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "clock.h"
#include "process.h"
#include "unit.h"

static char dir[64]; /* the test's own */
static struct ap_err err;

/* Makes the directory, in TMPDIR: on which file system it is makes no difference, but for what is
 * skipped. git obeys no configuration of the user's there. */
static inline void make_dir(void)
{
	const char *where = getenv("TMPDIR");
	snprintf(dir, sizeof dir, "%s/agentpool-test-XXXXXX", where ? where : "/tmp");
	assert_non_null(mkdtemp(dir));
	setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	unsetenv("GIT_CONFIG_COUNT");
}

/* Runs a script in the directory and returns what it printed, without newlines at its end; to be
 * freed. */
static inline char *shell(const char *script)
{
	struct ap_buf out = {0};
	struct process_run run = {
		.argv = (const char *const[]){"bash", "-ec", script, NULL},
		.dir = dir,
		.limit_ns = 60 * AP_SECOND,
		.out = &out,
	};
	if (process_run(&run, &err) != 0)
		fail_msg("%s: %s", script, err.text);
	while (out.len > 0 && out.data[out.len - 1] == '\n')
		out.data[--out.len] = '\0';
	return out.data ? out.data : strdup("");
}

#define RUN(script) free(shell(script))

static inline void assert_shell(const char *script, const char *expected)
{
	char *printed = shell(script);
	assert_string_equal(printed, expected);
	free(printed);
}

/* What fills `err` has not failed. */
static inline void must(int r)
{
	if (r < 0)
		fail_msg("%s: %s", strerror(-r), err.text);
}
