/* A byte buffer that grows. A failed allocation is remembered in `failed`, so that a writer of many
 * pieces checks once at the end; the bytes are always followed by a NUL that is not counted. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ap_buf {
	char *data; /* owned; NULL while nothing was added */
	size_t len, cap;
	bool failed; /* an addition was lost to ENOMEM */
};

void ap_buf_add(struct ap_buf *buf, const void *data, size_t len);
void ap_buf_adds(struct ap_buf *buf, const char *text);
void ap_buf_add_number(struct ap_buf *buf, uint64_t number); /* decimal; far cheaper than printf */
void ap_buf_add_quoted(struct ap_buf *buf, const char *word); /* as one word of sh */
void ap_buf_printf(struct ap_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Makes room for `extra` further bytes at data + len. False on ENOMEM. */
bool ap_buf_reserve(struct ap_buf *buf, size_t extra);

/* Removes the first `n` bytes. */
void ap_buf_drop(struct ap_buf *buf, size_t n);

/* Frees the memory; the buffer is empty and usable again. */
void ap_buf_fini(struct ap_buf *buf);

/* The text, "" when nothing was added. */
static inline const char *ap_buf_text(const struct ap_buf *buf)
{
	return buf->data ? buf->data : "";
}

#define AP_CLEANUP_BUF __attribute__((cleanup(ap_buf_fini)))
