/* A test that has a whole pool: on a repository of its own, and the fake backend, without a mount
 * and without programs. */
#pragma once

#include "unit.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agentpool.h"
#include "buf.h"
#include "remove.h"

#define WAIT_S 60 /* for what must come */

static char top[64], repo[80], state[80], profile[80];
static struct ap_pool *pool;
static struct ap_err err;

/* --- a repository, and a pool over it --- */

static inline void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void run(const char *fmt, ...)
{
	char command[1024];
	va_list args;
	va_start(args, fmt);
	vsnprintf(command, sizeof command, fmt, args);
	va_end(args);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

static inline void set(struct ap_config *config, enum ap_option option, const char *text)
{
	if (ap_config_set(config, option, text, true, &err) < 0)
		fail_msg("%s", err.text);
}

struct setup {
	const char *min, *max, *persist;
	const char *argv[4];
	void (*agent_gone)(void *data, const char *name);
	void (*changed)(void *data);
	void *data; /* of both */
};

/* Makes it; ap_pool_start() has it begin. */
static inline int make_as(const struct setup *setup)
{
	static const char *argv[4]; /* as long as the pool */
	memcpy(argv, setup->argv, sizeof argv);
	if (!argv[0])
		argv[0] = "fake";
	struct ap_pool_options options = {
		.repo = repo,
		.argv = argv,
		.mountpoint = "/nowhere",
		.shim = "/nowhere/shim",
		.profiles = AP_SOURCE_DIR "/share/programs",
		.agent_gone = setup->agent_gone,
		.changed = setup->changed,
		.data = setup->data,
	};
	setenv("XDG_STATE_HOME", top, 1); /* where pools are listed */
	assert_int_equal(ap_config_init(&options.config), 0);
	set(&options.config, AP_OPT_MAX_POOL_SIZE, setup->max ? setup->max : "4");
	set(&options.config, AP_OPT_MIN_POOL_SIZE, setup->min ? setup->min : "1");
	set(&options.config, AP_OPT_STATE_DIR, state);
	set(&options.config, AP_OPT_PROGRAM_PROFILE, profile);
	set(&options.config, AP_OPT_SPAWN_BACKEND, "copy");
	set(&options.config, AP_OPT_DURABILITY, "normal");
	set(&options.config, AP_OPT_PERSIST, setup->persist ? setup->persist : "no");
	int r = ap_pool_new(&pool, &options, &err);
	if (r < 0)
		ap_config_fini(&options.config);
	return r < 0 ? r : ap_pool_begin(pool, &err);
}

static inline int start_as(const struct setup *setup)
{
	int r = make_as(setup);
	return r < 0 ? r : ap_pool_start(pool, &err);
}

#define START(...)                                                                                 \
	do {                                                                                       \
		if (start_as(&(struct setup){__VA_ARGS__}) < 0)                                    \
			fail_msg("%s", err.text);                                                  \
	} while (0)

static inline void stop(void)
{
	assert_int_equal(ap_pool_stop(pool, &err), 0);
	ap_pool_free(pool);
	pool = NULL;
}

static inline int begin(void **test_state)
{
	(void)test_state;
	const char *where = getenv("TMPDIR");
	snprintf(top, sizeof top, "%s/agentpool-pool-XXXXXX", where ? where : "/tmp");
	if (!mkdtemp(top))
		return -1;
	snprintf(repo, sizeof repo, "%s/repo", top);
	snprintf(state, sizeof state, "%s/state", top);
	snprintf(profile, sizeof profile, "%s/quick.conf", top);
	run("echo 'silence = 30ms' > %s", profile);
	setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	setenv("HOME", top, 1);
	run("git init -q -b main %s && cd %s && git config user.name u && git config user.email u@e"
	    " && echo 1 > file && git add . && git commit -qm one",
	    repo, repo);
	return 0;
}

static inline int end(void **test_state)
{
	(void)test_state;
	if (pool)
		stop();
	remove_tree(top, NULL, NULL);
	return 0;
}
