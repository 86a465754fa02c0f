/* Text as users write it and as terminals print it: words, numbers, durations, labels, and the
 * removal of control sequences. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

#define AP_LABEL_MAX 64 /* bytes of a label, without its NUL */
#define GIT_OID_MAX  64 /* hex digits of an object name: of a sha256 */

/* A label: [A-Za-z0-9][A-Za-z0-9._-]{0,63}, no "..", not ending in "." or ".lock": what can be a
 * file name and the last component of a branch name. */
bool ap_label_valid(const char *label);

/* Cuts the next word (blanks and tabs separate) off *cursor, in place. NULL at the end. */
char *ap_word_next(char **cursor);

/* A decimal number, whole string. -EINVAL if it is none, -ERANGE if int64 cannot hold it. */
int ap_number_parse(const char *text, int64_t *ret);

/* Permission bits in octal, whole string: `022`. -EINVAL, -ERANGE. */
int ap_octal_parse(const char *text, int64_t *ret);

/* A duration `250ms 30s 5m 2h 1d`; a bare number is seconds; digits may have a decimal fraction.
 * -EINVAL, -ERANGE (negative or over a century). Exact in ns; drops parts of one. */
int ap_duration_parse(const char *text, int64_t *ret_ns);

/* The shortest exact way to write a duration: 30s, 5m, 1500ms, 0.25ms, 0. ap_duration_parse() reads
 * it as the same. `ns` is not negative. */
void ap_duration_format(int64_t ns, char *ret_text, size_t size);

/* A number of bytes, with an optional suffix K, M or G. -EINVAL, -ERANGE. */
int ap_size_parse(const char *text, int64_t *ret);

/* Replaces by '?' what a terminal would obey or could not show: control characters, and bytes that
 * are no UTF-8. In place. */
void ap_text_tame(char *text);

/* The same, but escapes each such character: \n, \t, or a byte as \ooo. In place, within `size`
 * bytes: cuts off what has no room at the end. */
void ap_text_escape(char *text, size_t size);

/* Appends what a helper printed as part of one sentence: its lines with "; " between, without
 * control sequences, blank lines, progress, repeats and git's hints. Of more than about 1 KiB it
 * keeps the lines that say fatal: or error:, and the last ones; "…" stands for the rest. A line
 * stays whole up to 4 KiB: it may name a path. */
void ap_text_gist(const char *text, size_t len, struct ap_buf *out);

/* The Levenshtein distance of two words: how many characters to add, remove or replace to make one
 * word the other. Only the first 63 bytes of a longer word count. */
unsigned ap_text_distance(const char *a, const char *b);

/* The last line that is not blank, without the blanks round it: where it begins, and its bytes. */
const char *ap_text_last_line(const char *text, size_t *ret_len);

/* FNV-1a, 64 bits. */
uint64_t ap_hash(const char *text);
uint64_t ap_hash_bytes(const void *data, size_t len);

#define AP_OSC_MAX 256 /* bytes of an operating system command that are kept */

/* The state of the removal of control sequences, between two pieces of a terminal's output. */
struct ap_plain {
	uint8_t state;
	bool cr;	/* a carriage return was held back: it may belong to a line feed */
	uint8_t n_utf8; /* bytes of a character held back, in `utf8` */
	char utf8[4];
	size_t osc_len;
	char osc[AP_OSC_MAX];

	/* Called after each operating system command ("0;title"), when `out` has what came before
	 * it. One longer than AP_OSC_MAX is cut. May be NULL. */
	void (*on_osc)(void *data, const char *osc, const struct ap_buf *out);
	void *data;
};

/* Appends a terminal's output as plain text, in UTF-8: leaves out control sequences (CSI, OSC, DCS,
 * charset and single-character ones, in their 7- and 8-bit forms), other control characters but
 * newline and tab, and what is no UTF-8. `\r\n` is a newline; a lone `\r` becomes one. A backspace
 * removes the last character of the line, if that is still in `out`. Keeps state between pieces. */
void ap_plain_add(struct ap_plain *plain, const char *data, size_t len, struct ap_buf *out);
