/* Settings of a program that are made before it is started, so that it asks nothing. What its user
 * has set stays as it is: only what is missing is added. */
#pragma once

#include "buf.h"
#include "err.h"

/* Has the JSON file hold all that the object `wanted` has and it does not; the texts of `wanted`,
 * names too, go through `expand` first. The file is replaced as a whole, with its mode, and only
 * when something is missing; one that is no JSON is left alone: -EINVAL. Blocks. */
int seed_json(const char *path, const char *wanted,
	      void (*expand)(void *data, const char *text, struct ap_buf *ret), void *data,
	      struct ap_err *err);
