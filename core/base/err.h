/* Errors as the code passes them: a negative errno that may go to the kernel as it is, and a
 * sentence for the person who meets it. The function that knows the cause sets the sentence,
 * callers wrap it on the way up, and the edge shows it once. */
#pragma once

/* Bytes of a sentence with its NUL: a path of any length, and 4 KiB beside it. */
#define AP_ERR_MAX 8192

struct ap_err {
	/* one sentence without a full stop; empty when nothing failed. It is always one line: what
	 * a terminal would obey in it (from a path, or a helper's output) is escaped */
	char text[AP_ERR_MAX];
};

/* Sets the sentence and returns `error` (negative errno). `err` may be NULL. */
int ap_err_set(struct ap_err *err, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As ap_err_set, and ends the sentence with ": " and the errno's own text. */
int ap_err_errno(struct ap_err *err, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "PREFIX: " before the sentence that is there, and returns `error`. */
int ap_err_wrap(struct ap_err *err, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
