/* Texts that several hold: one never changes, and goes with the last reference to it. Taking a
 * reference copies nothing. Any thread. */
#pragma once

#include <stddef.h>

/* With one reference, the caller's; a NUL behind it. NULL on ENOMEM. */
const char *ap_shared_new(const char *text, size_t len);

/* Both take NULL, which is no text. */
const char *ap_shared_ref(const char *text);
void ap_shared_unref(const char *text);
