#include "buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ap_buf_reserve(struct ap_buf *buf, size_t extra)
{
	size_t need = buf->len + extra + 1;
	if (extra > SIZE_MAX / 4 || need > SIZE_MAX / 4) { /* or the doubling would not end */
		buf->failed = true;
		return false;
	}
	if (need <= buf->cap)
		return true;
	size_t cap = buf->cap ? buf->cap : 128;
	while (cap < need)
		cap *= 2;
	char *data = realloc(buf->data, cap);
	if (!data) {
		buf->failed = true;
		return false;
	}
	buf->data = data;
	buf->cap = cap;
	return true;
}

void ap_buf_add(struct ap_buf *buf, const void *data, size_t len)
{
	if (!ap_buf_reserve(buf, len))
		return;
	if (len > 0)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void ap_buf_adds(struct ap_buf *buf, const char *text)
{
	ap_buf_add(buf, text, strlen(text));
}

void ap_buf_add_number(struct ap_buf *buf, uint64_t number)
{
	char digits[20];
	size_t at = sizeof digits;
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	ap_buf_add(buf, digits + at, sizeof digits - at);
}

void ap_buf_add_quoted(struct ap_buf *buf, const char *word)
{
	ap_buf_adds(buf, "'");
	for (size_t n; n = strcspn(word, "'"), word[n]; word += n + 1) {
		ap_buf_add(buf, word, n);
		ap_buf_adds(buf, "'\\''");
	}
	ap_buf_adds(buf, word);
	ap_buf_adds(buf, "'");
}

void ap_buf_printf(struct ap_buf *buf, const char *fmt, ...)
{
	va_list args;
	size_t room = buf->cap - buf->len;
	va_start(args, fmt);
	int n = vsnprintf(room > 0 ? buf->data + buf->len : NULL, room, fmt, args);
	va_end(args);
	if (n < 0 || !ap_buf_reserve(buf, (size_t)n)) {
		buf->failed = true;
		if (room > 0) /* what did not fit may have left a part */
			buf->data[buf->len] = '\0';
		return;
	}
	if ((size_t)n >= room) {
		va_start(args, fmt);
		vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, args);
		va_end(args);
	}
	buf->len += (size_t)n;
}

void ap_buf_drop(struct ap_buf *buf, size_t n)
{
	if (n == 0)
		return;
	memmove(buf->data, buf->data + n, buf->len - n + 1);
	buf->len -= n;
}

void ap_buf_fini(struct ap_buf *buf)
{
	free(buf->data);
	*buf = (struct ap_buf){0};
}
