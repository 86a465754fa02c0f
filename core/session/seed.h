/* Makes settings of a program before its start, without which it would ask questions. Adds only
 * what is missing: what the user has set stays as it is. */
#pragma once

#include "buf.h"
#include "err.h"

/* Adds to the object in a JSON file all members of the object `wanted` that it does not have, at
 * every depth; `expand` is applied to the strings and names of `wanted` before. Replaces the file
 * as a whole, with its mode and owner, and only if something is missing. Creates a file, mode 0600,
 * if there is none. -EINVAL: the file is no object of JSON, and is left alone. Blocks. */
int seed_json(const char *path, const char *wanted,
	      void (*expand)(void *data, const char *text, struct ap_buf *ret), void *data,
	      struct ap_err *err);
