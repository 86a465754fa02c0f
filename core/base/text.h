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
 * -EINVAL, -ERANGE (negative or over a century). ns, exactly; what is less than one is dropped. */
int ap_duration_parse(const char *text, int64_t *ret_ns);

/* The shortest exact way to write a duration: 30s, 5m, 1500ms, 0.25ms, 0. What it writes is read as
 * the same. `ns` is not negative. */
void ap_duration_format(int64_t ns, char *ret_text, size_t size);

/* A number of bytes, with an optional suffix K, M or G. -EINVAL, -ERANGE. */
int ap_size_parse(const char *text, int64_t *ret);

/* Puts '?' for what a terminal would obey or could not show: control characters, and bytes that are
 * no UTF-8. In place. */
void ap_text_tame(char *text);

/* The same, but that each such character is written as one can tell it: \n, \t, or a byte as \ooo.
 * In place, within `size` bytes: what has no room at the end is cut off. */
void ap_text_escape(char *text, size_t size);

/* Appends what a helper said as part of one sentence: its lines with "; " between, without control
 * sequences, blank lines, progress, repeats and git's hints. Of more than about 1 KiB those that
 * say fatal: or error: are kept, and the last ones; "…" stands for what is left out. A line is
 * whole up to 4 KiB: it may name a path. */
void ap_text_gist(const char *text, size_t len, struct ap_buf *out);

/* How many characters one has to add, take away or replace to make one word the other:
 * Levenshtein's distance. Of words that are longer, the first 63 bytes count. */
unsigned ap_text_distance(const char *a, const char *b);

/* FNV-1a, 64 bits. */
uint64_t ap_hash(const char *text);
uint64_t ap_hash_bytes(const void *data, size_t len);

#define AP_OSC_MAX 256 /* bytes of an operating system command that are looked at */

/* Where the removal of control sequences stands between two pieces of a terminal's output. */
struct ap_plain {
	uint8_t state;
	bool cr;	/* a carriage return was held back: it may belong to a line feed */
	uint8_t n_utf8; /* bytes of a character held back, in `utf8` */
	char utf8[4];
	size_t osc_len;
	char osc[AP_OSC_MAX];

	/* May be NULL: an operating system command ("0;title") has passed, when `out` had what
	 * came before it. A longer one than AP_OSC_MAX is cut. */
	void (*on_osc)(void *data, const char *osc, const struct ap_buf *out);
	void *data;
};

/* Appends what a terminal's output says as plain text, in UTF-8: control sequences (CSI, OSC, DCS,
 * charset and single-character ones, in their 7- and 8-bit forms) and other control characters but
 * newline and tab are left out, and so is what is no UTF-8. `\r\n` is a newline; a lone `\r`
 * becomes one. A backspace takes the last character of the line away, as far as it stands in `out`.
 * Keeps state over pieces. */
void ap_plain_add(struct ap_plain *plain, const char *data, size_t len, struct ap_buf *out);
