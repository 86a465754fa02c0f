/* Shared texts: a text never changes, and the last unref frees it. Taking a reference copies
 * nothing. Any thread. */
#pragma once

#include <stddef.h>

/* Copies a text, with a NUL behind it; the caller has its one reference. NULL on ENOMEM. */
const char *ap_shared_new(const char *text, size_t len);

/* Both take NULL, which is no text. */
const char *ap_shared_ref(const char *text);
void ap_shared_unref(const char *text);
