/* The options of a pool: one row an option, one value an option. Knows names, types, ranges and
 * defaults; knows nothing of what an option does. Every file of config/ and every -o option of the
 * pool is a row here. Not thread-safe: the owner locks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

enum ap_option {
	AP_OPT_MIN_POOL_SIZE,
	AP_OPT_MAX_POOL_SIZE,
	AP_OPT_HARD_CAP,
	AP_OPT_IDLE_TIMEOUT,
	AP_OPT_RECYCLE_THRESHOLD,
	AP_OPT_MAINTENANCE_INTERVAL,
	AP_OPT_MAX_MEMORY_MB,
	AP_OPT_MAX_CPU_PERCENT,
	AP_OPT_MAX_INSTANCE_AGE,
	AP_OPT_MAX_RECYCLES_PER_ID,
	AP_OPT_REQUESTS_PER_QUOTA,
	AP_OPT_ACQUIRE_TIMEOUT,
	AP_OPT_LEASE_TTL,
	AP_OPT_PERMISSION,
	AP_OPT_BUDGET,
	AP_OPT_OVER_BUDGET,
	AP_OPT_POOL_BUDGET,
	AP_OPT_SPAWN_TIMEOUT,
	AP_OPT_SPAWN_BACKEND,
	AP_OPT_MAX_SPAWNING,
	AP_OPT_SCALE_POLICY,
	AP_OPT_SCALE_UP_AT,
	AP_OPT_SCALE_DOWN_AT,
	AP_OPT_SCALE_DOWN_WINDOW,
	AP_OPT_MIN_IDLE,
	AP_OPT_MAX_IDLE,
	AP_OPT_BASE,
	AP_OPT_ON_RELEASE,
	AP_OPT_ON_LIMIT,
	AP_OPT_RESUME,
	AP_OPT_PROGRAM,
	AP_OPT_PROGRAM_PROFILE,
	AP_OPT_KEEP_WORK,
	AP_OPT_KEEP_WORK_SIZE,
	AP_OPT_SETUP,
	AP_OPT_TEARDOWN,
	AP_OPT_MAX_PROMPT,
	AP_OPT_OUTPUT_LIMIT,
	AP_OPT_STATUS_COLOR,
	AP_OPT_ALLOW_FOREIGN_REPO,
	AP_OPT_UMASK,
	AP_OPT_UID,
	AP_OPT_GID,
	AP_OPT_GIT,
	AP_OPT_PORTS,
	AP_OPT_TERMINAL_SIZE,
	AP_OPT_SANDBOX,
	AP_OPT_SANDBOX_NET,
	AP_OPT_SANDBOX_HIDE,
	AP_OPT_SANDBOX_ENV,
	AP_OPT_STATE_DIR,
	AP_OPT_PERSIST,
	AP_OPT_DURABILITY,
	AP_N_OPTIONS,
};

enum ap_option_type {
	AP_TYPE_NUMBER,	    /* a whole number */
	AP_TYPE_OCTAL,	    /* permission bits */
	AP_TYPE_DURATION,   /* ns; 0 if the option has its word instead of a duration */
	AP_TYPE_SIZE,	    /* bytes */
	AP_TYPE_TERMINAL,   /* columns << 16 | rows */
	AP_TYPE_PERMISSION, /* a policy, as ap_permission_parse() reads it */
	AP_TYPE_BUDGET,	    /* as ap_budget_parse() reads it */
	AP_TYPE_TEXT,	    /* one line */
	AP_TYPE_CHOICE,	    /* one of the words in `choices` */
};

enum ap_option_when {
	AP_WHEN_ANYTIME,
	AP_WHEN_MOUNT, /* on the command line only */
};

enum ap_option_origin {
	AP_ORIGIN_DEFAULT,
	AP_ORIGIN_MOUNT, /* the command line */
	AP_ORIGIN_SET,	 /* at run time */
};

struct ap_option_row {
	const char *name;
	enum ap_option_type type;
	enum ap_option_when when;
	const char *initial; /* default, as a user would write it; "" of a number: -1, none */
	int64_t min, max;    /* of the number, ns or bytes */
	const char *choices; /* of AP_TYPE_CHOICE: words with a blank between; else words to
			      * propose, or NULL */
	const char *word;    /* of AP_TYPE_DURATION: what may stand for 0; NULL: nothing */
	const char *alone;   /* what -o NAME without a value means; NULL: it needs one */
	const char *doc;     /* one line for people */
};

extern const struct ap_option_row ap_options[AP_N_OPTIONS];

#define AP_MAX_SPAWNING	   4	/* what max_spawning may be at most */
#define AP_OPTION_TEXT_MAX 4096 /* bytes of a text option with its NUL */

struct ap_config {
	int64_t number[AP_N_OPTIONS]; /* value of the types that are no text */
	char *text[AP_N_OPTIONS];     /* value of TEXT and CHOICE, owned */
	uint8_t origin[AP_N_OPTIONS]; /* enum ap_option_origin */
};

/* Sets every option to its default. -ENOMEM. */
int ap_config_init(struct ap_config *config);
void ap_config_fini(struct ap_config *config);

/* -ENOMEM: `ret` is left as it was. */
int ap_config_copy(struct ap_config *ret, const struct ap_config *from);

/* The option of that name, or -ENOENT. */
int ap_option_find(const char *name);

/* The place of a CHOICE's value among its words, from 0. */
unsigned ap_config_choice(const struct ap_config *config, enum ap_option option);

/* Sets the options of a profile: development, production or high-load. -EINVAL: no such one. */
int ap_config_profile(struct ap_config *config, const char *profile, struct ap_err *err);

/* Whether ap_config_set() would take it. */
int ap_config_try(const struct ap_config *config, enum ap_option option, const char *text,
		  struct ap_err *err);

/* Sets one option from its text. -EINVAL, -ERANGE (also where it contradicts another option),
 * -EPERM (only at mount), -ENOMEM; the old value stays then. `at_mount` lifts the
 * rule of AP_WHEN_MOUNT. */
int ap_config_set(struct ap_config *config, enum ap_option option, const char *text, bool at_mount,
		  struct ap_err *err);

/* Whether the values fit each other: min_pool_size <= max_pool_size <= hard_cap, scale_down_at <
 * scale_up_at, min_idle <= max_idle. -ERANGE. */
int ap_config_check(const struct ap_config *config, struct ap_err *err);

/* Appends the value as text, without a newline. */
void ap_config_show(const struct ap_config *config, enum ap_option option, struct ap_buf *out);
