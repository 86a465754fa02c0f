#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

int ap_err_set(struct ap_err *err, int error, const char *fmt, ...)
{
	if (!err)
		return error;
	va_list args;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	ap_text_escape(err->text, sizeof err->text);
	return error;
}

int ap_err_errno(struct ap_err *err, int error, const char *fmt, ...)
{
	if (!err)
		return error;
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof err->text)
		snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror(-error));
	ap_text_escape(err->text, sizeof err->text);
	return error;
}

int ap_err_wrap(struct ap_err *err, int error, const char *fmt, ...)
{
	if (!err)
		return error;
	char cause[sizeof err->text];
	memcpy(cause, err->text, sizeof cause);
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(err->text, sizeof err->text, fmt, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof err->text)
		snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", cause);
	ap_text_escape(err->text, sizeof err->text);
	return error;
}
