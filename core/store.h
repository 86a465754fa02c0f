/* The state store: what must outlive the daemon, in one SQLite database of the state directory. The
 * only user of SQLite. Knows names of counters and settings, not what they mean. */
#pragma once

#include <stdint.h>

#include "err.h"

struct store;

/* Opens or makes the database. A newer schema is refused with -EPROTO and left as it is. Blocks. */
int store_open(struct store **ret, const char *path, struct ap_err *err);
void store_close(struct store *store);

/* The counter's value, or `initial` if it was never raised. */
int64_t store_counter(struct store *store, const char *name, int64_t initial);

/* Makes the counter at least `value`; it is on disk when this returns. Any thread. Blocks. */
int store_raise(struct store *store, const char *name, int64_t value, struct ap_err *err);

/* Makes it `value`, whatever it was; else as store_raise(). */
int store_set(struct store *store, const char *name, int64_t value, struct ap_err *err);

struct store_setting {
	const char *name;
	char *value;
};

/* Replaces all settings by these, in one transaction; they are on disk when this returns. Any
 * thread. Blocks. */
int store_settings_write(struct store *store, const struct store_setting *settings, unsigned n,
			 struct ap_err *err);

/* Calls `take` with every setting, until it says that it failed; its error is returned. Any thread.
 * Blocks. */
int store_settings_read(struct store *store,
			int (*take)(void *data, const char *name, const char *value), void *data,
			struct ap_err *err);
