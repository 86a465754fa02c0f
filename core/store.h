/* The state store: what must outlive the daemon, in one SQLite database of the state directory. The
 * only user of SQLite. Knows names of counters, not what they count. */
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
