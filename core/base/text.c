#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool ends_with(const char *text, size_t len, const char *end)
{
	size_t n = strlen(end);
	return len >= n && memcmp(text + len - n, end, n) == 0;
}

/* How many bytes a character of UTF-8 has that begins with this one, or 0 if none does. */
static size_t utf8_size(unsigned char first)
{
	return first < 0x80   ? 1
	       : first < 0xc2 ? 0
	       : first < 0xe0 ? 2
	       : first < 0xf0 ? 3
	       : first < 0xf5 ? 4
			      : 0;
}

/* Overlong forms, surrogates and what is over U+10FFFF show in the second byte: RFC 3629. Readers
 * that are strict would refuse the whole text for them. */
static bool utf8_second_fits(unsigned char first, unsigned char second)
{
	switch (first) {
	case 0xe0:
		return second >= 0xa0;
	case 0xed:
		return second < 0xa0;
	case 0xf0:
		return second >= 0x90;
	case 0xf4:
		return second < 0x90;
	}
	return true;
}

/* The length of the UTF-8 sequence at `text`, or 0 if it is none. */
static size_t utf8_length(const unsigned char *text)
{
	size_t n = utf8_size(text[0]);
	for (size_t i = 1; i < n; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	}
	return n > 1 && !utf8_second_fits(text[0], text[1]) ? 0 : n;
}

/* A control character or what is no UTF-8 at `at`, its length in bytes; 0: a character that can be
 * shown, whose length is in *ret_n. */
static size_t unshowable(const unsigned char *at, size_t *ret_n)
{
	size_t n = utf8_length(at);
	bool control = *at < 0x20 || *at == 0x7f || (*at == 0xc2 && n == 2 && at[1] < 0xa0);
	*ret_n = n;
	return n == 0 ? 1 : control ? n : 0;
}

void ap_text_tame(char *text)
{
	unsigned char *at = (unsigned char *)text;
	while (*at) {
		size_t n, odd = unshowable(at, &n);
		memset(at, '?', odd);
		at += odd ? odd : n;
	}
}

/* The escape of one byte, in `ret`. Its length. */
static size_t escape_byte(unsigned char byte, char ret[5])
{
	static const char letters[] = "\nn\tt\rr";
	for (const char *at = letters; *at; at += 2) {
		if (byte == (unsigned char)*at) {
			ret[0] = '\\';
			ret[1] = at[1];
			return 2;
		}
	}
	return (size_t)snprintf(ret, 5, "\\%03o", byte);
}

void ap_text_escape(char *text, size_t size)
{
	size_t n;
	unsigned char *at = (unsigned char *)text;
	while (*at && !unshowable(at, &n))
		at += n;
	while (*at) {
		char escape[5];
		size_t odd = unshowable(at, &n);
		if (!odd) {
			at += n;
			continue;
		}
		size_t len = escape_byte(*at, escape); /* the next byte of it is odd too, alone */
		size_t used = (size_t)(at - (unsigned char *)text), rest = strlen((char *)at + 1);
		if (used + len >= size) {
			*at = '\0';
			return;
		}
		if (used + len + rest >= size)
			rest = size - used - len - 1;
		memmove(at + len, at + 1, rest);
		memcpy(at, escape, len);
		at[len + rest] = '\0';
		at += len;
	}
}

#define GIST_MAX  1024 /* bytes, but for the line that goes over it */
#define GIST_LINE 4096

struct gist_line {
	const char *text;
	size_t len;
	bool kept;
};

static bool begins(const struct gist_line *line, const char *word)
{
	size_t len = strlen(word);
	return line->len >= len && memcmp(line->text, word, len) == 0;
}

/* "Updating files:  42% (21/50)" */
static bool is_progress(const struct gist_line *line)
{
	const char *percent = memchr(line->text, '%', line->len);
	return percent && percent > line->text && percent[-1] >= '0' && percent[-1] <= '9' &&
	       (size_t)(percent - line->text) + 2 < line->len && strncmp(percent, "% (", 3) == 0;
}

/* Splits into the lines that say something. The array is the caller's; NULL: none, or no memory. */
static struct gist_line *gist_lines(const char *text, size_t *ret_n)
{
	struct gist_line *lines = NULL;
	size_t n = 0, room = 0;
	for (const char *next; *text; text = next) {
		struct gist_line line = {.text = text, .len = strcspn(text, "\r\n")};
		next = text + line.len + (text[line.len] != '\0');
		while (line.len > 0 && strchr(" \t", line.text[0])) {
			line.text++;
			line.len--;
		}
		while (line.len > 0 && strchr(" \t", line.text[line.len - 1]))
			line.len--;
		bool repeats = n > 0 && lines[n - 1].len == line.len &&
			       memcmp(lines[n - 1].text, line.text, line.len) == 0;
		if (line.len == 0 || repeats || is_progress(&line) || begins(&line, "hint:"))
			continue;
		if (n == room) {
			room = 2 * room + 16;
			struct gist_line *grown = realloc(lines, room * sizeof *lines);
			if (!grown)
				break;
			lines = grown;
		}
		lines[n++] = line;
	}
	*ret_n = n;
	return lines;
}

/* Keeps a line while there is room. */
static void gist_keep(struct gist_line *line, size_t *room)
{
	if (line->kept || *room == 0)
		return;
	line->kept = true;
	*room -= line->len + 2 < *room ? line->len + 2 : *room;
}

void ap_text_gist(const char *text, size_t len, struct ap_buf *out)
{
	struct ap_plain filter = {0};
	struct ap_buf plain = {0};
	size_t n = 0, room = GIST_MAX / 2;
	if (len > 0 && (memchr(text, '\033', len) || memchr(text, '\0', len)))
		ap_plain_add(&filter, text, len, &plain);
	else
		ap_buf_add(&plain, text, len);
	struct gist_line *lines = gist_lines(ap_buf_text(&plain), &n);
	for (size_t i = 0; i < n; i++) {
		if (begins(&lines[i], "fatal:") || begins(&lines[i], "error:"))
			gist_keep(&lines[i], &room);
	}
	room += GIST_MAX / 2;
	for (size_t i = n; i-- > 0;)
		gist_keep(&lines[i], &room);
	for (size_t i = 0; i < n; i++) {
		if (lines[i].kept) {
			size_t most = lines[i].len < GIST_LINE ? lines[i].len : GIST_LINE;
			ap_buf_adds(out, i > 0 && lines[i - 1].kept ? "; " : i > 0 ? " " : "");
			ap_buf_add(out, lines[i].text, most);
		} else if (i == 0 || lines[i - 1].kept) {
			ap_buf_adds(out, i > 0 ? "; …" : "…");
		}
	}
	free(lines);
	ap_buf_fini(&plain);
}

const char *ap_text_last_line(const char *text, size_t *ret_len)
{
	const char *end = text + strlen(text);
	while (end > text && strchr(" \n", end[-1]))
		end--;
	const char *start = end;
	while (start > text && start[-1] != '\n')
		start--;
	while (start < end && *start == ' ')
		start++;
	*ret_len = (size_t)(end - start);
	return start;
}

unsigned ap_text_distance(const char *a, const char *b)
{
	enum { MOST = 63 };
	unsigned row[MOST + 1]; /* of what is done of `a`: to each beginning of `b` */
	size_t n_a = strnlen(a, MOST), n_b = strnlen(b, MOST);
	for (size_t j = 0; j <= n_b; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= n_a; i++) {
		unsigned across = row[0]++; /* of one less of both */
		for (size_t j = 1; j <= n_b; j++) {
			unsigned replaced = across + (a[i - 1] != b[j - 1]);
			across = row[j];
			unsigned less = row[j] < row[j - 1] ? row[j] : row[j - 1];
			row[j] = replaced < less + 1 ? replaced : less + 1;
		}
	}
	return row[n_b];
}

uint64_t ap_hash_bytes(const void *data, size_t len)
{
	const unsigned char *at = data;
	uint64_t hash = 0xcbf29ce484222325u;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ at[i]) * 0x100000001b3u;
	return hash;
}

uint64_t ap_hash(const char *text)
{
	return ap_hash_bytes(text, strlen(text));
}

bool ap_label_valid(const char *label)
{
	size_t len = strlen(label);
	if (len == 0 || len > AP_LABEL_MAX || !is_alnum(label[0]))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_alnum(label[i]) && !strchr("._-", label[i]))
			return false;
	}
	return !strstr(label, "..") && !ends_with(label, len, ".") &&
	       !ends_with(label, len, ".lock");
}

char *ap_word_next(char **cursor)
{
	char *word = *cursor + strspn(*cursor, " \t");
	if (*word == '\0')
		return NULL;
	char *end = word + strcspn(word, " \t");
	*cursor = *end ? end + 1 : end;
	*end = '\0';
	return word;
}

/* A number whose first digit is at `digits`. */
static int parse_number(const char *text, const char *digits, const char *all_digits, int base,
			int64_t *ret)
{
	if (*digits == '\0' || strspn(digits, all_digits) != strlen(digits))
		return -EINVAL;
	errno = 0;
	long long value = strtoll(text, NULL, base);
	if (errno == ERANGE)
		return -ERANGE;
	*ret = value;
	return 0;
}

int ap_number_parse(const char *text, int64_t *ret)
{
	bool has_sign = text[0] == '-' || text[0] == '+';
	return parse_number(text, text + has_sign, "0123456789", 10, ret);
}

int ap_octal_parse(const char *text, int64_t *ret)
{
	return parse_number(text, text, "01234567", 8, ret);
}

/* Rows from the longest unit to the shortest, as ap_duration_format tries them. */
static const struct {
	const char *suffix;
	int64_t ns;
} duration_units[] = {
	{"d", 86400 * AP_SECOND}, {"h", 3600 * AP_SECOND}, {"m", 60 * AP_SECOND},
	{"s", AP_SECOND},	  {"ms", AP_MS},
};

#define N_DURATION_UNITS (sizeof duration_units / sizeof *duration_units)
#define CENTURY		 (INT64_C(100) * 366 * 86400 * AP_SECOND)

/* Whole numbers, since a double has not every nanosecond of a century. `digits` may have a point in
 * it. -ERANGE: over a century. */
static int duration_of(const char *digits, size_t n, int64_t unit, int64_t *ret_ns)
{
	const char *point = memchr(digits, '.', n);
	const char *end = digits + n, *whole_end = point ? point : end;
	int64_t whole = 0, part = 0;
	for (const char *at = digits; at < whole_end; at++) {
		whole = whole * 10 + (*at - '0');
		if (whole > CENTURY / unit)
			return -ERANGE;
	}
	for (const char *at = end; at > whole_end + 1; at--) /* from the last digit */
		part = ((at[-1] - '0') * unit + part) / 10;
	if (whole * unit + part > CENTURY)
		return -ERANGE;
	*ret_ns = whole * unit + part;
	return 0;
}

int ap_duration_parse(const char *text, int64_t *ret_ns)
{
	if (text[0] == '-')
		return ap_number_parse(text, &(int64_t){0}) == 0 ? -ERANGE : -EINVAL;
	size_t n = strspn(text, "0123456789");
	if (n > 0 && text[n] == '.')
		n += 1 + strspn(text + n + 1, "0123456789");
	if (n == 0 || text[n - 1] == '.')
		return -EINVAL;
	const char *suffix = text[n] ? text + n : "s";
	for (size_t i = 0; i < N_DURATION_UNITS; i++) {
		if (strcmp(suffix, duration_units[i].suffix) == 0)
			return duration_of(text, n, duration_units[i].ns, ret_ns);
	}
	return -EINVAL;
}

void ap_duration_format(int64_t ns, char *ret_text, size_t size)
{
	if (ns == 0) {
		snprintf(ret_text, size, "0");
		return;
	}
	for (size_t i = 0; i < N_DURATION_UNITS; i++) {
		int64_t unit = duration_units[i].ns;
		if (ns % unit == 0) {
			snprintf(ret_text, size, "%" PRId64 "%s", ns / unit,
				 duration_units[i].suffix);
			return;
		}
	}
	int digits = 6;
	int64_t part = ns % AP_MS;
	for (; part % 10 == 0; digits--)
		part /= 10;
	snprintf(ret_text, size, "%" PRId64 ".%0*" PRId64 "ms", ns / AP_MS, digits, part);
}

int ap_size_parse(const char *text, int64_t *ret)
{
	char number[32];
	size_t len = strlen(text);
	if (len == 0 || len >= sizeof number)
		return -EINVAL;
	memcpy(number, text, len + 1);
	int shift = 0;
	switch (number[len - 1]) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	}
	if (shift)
		number[len - 1] = '\0';
	int64_t value;
	int r = ap_number_parse(number, &value);
	if (r < 0)
		return r;
	if (value < 0 || value > (INT64_MAX >> shift))
		return -ERANGE;
	*ret = value << shift;
	return 0;
}

/* The states of the reader of control sequences, after the DEC parser: ECMA-48 section 5.4. */
enum plain_state {
	PLAIN_TEXT,
	PLAIN_ESC,	  /* after ESC */
	PLAIN_ESC_INTER,  /* after ESC and an intermediate byte: one final byte follows */
	PLAIN_CSI,	  /* after ESC [ */
	PLAIN_OSC,	  /* after ESC ]: until BEL or ESC \ */
	PLAIN_OSC_ESC,	  /* in it, after ESC */
	PLAIN_STRING,	  /* in DCS, SOS, PM or APC: likewise */
	PLAIN_STRING_ESC, /* in such a string, after ESC */
};

static void plain_backspace(struct ap_buf *out)
{
	if (out->len == 0 || out->data[out->len - 1] == '\n')
		return;
	/* continuation bytes of UTF-8 go with their first byte */
	while (out->len > 1 && ((unsigned char)out->data[out->len - 1] & 0xc0) == 0x80)
		out->len--;
	out->data[--out->len] = '\0';
}

static enum plain_state plain_introduced(struct ap_plain *plain, unsigned char c)
{
	plain->osc_len = 0;
	switch (c) {
	case '[':
		return PLAIN_CSI;
	case ']':
		return PLAIN_OSC;
	case 'P':
	case 'X':
	case '^':
	case '_':
		return PLAIN_STRING;
	case 0x1b:
		return PLAIN_ESC;
	}
	return PLAIN_TEXT;
}

static enum plain_state plain_after_esc(struct ap_plain *plain, unsigned char c)
{
	return c >= 0x20 && c <= 0x2f ? PLAIN_ESC_INTER : plain_introduced(plain, c);
}

/* ESC begins anew where a sequence was cut short, CAN and SUB end it: text behind it is text. */
static bool plain_cut_short(struct ap_plain *plain, unsigned char c)
{
	if (c == 0x1b)
		plain->state = PLAIN_ESC;
	else if (c == 0x18 || c == 0x1a)
		plain->state = PLAIN_TEXT;
	else
		return false;
	return true;
}

/* A byte of a character of several. C1 controls are such characters: they introduce sequences as
 * ESC and the letter 0x40 below them do. What is no UTF-8 is left out. */
static void plain_utf8_byte(struct ap_plain *plain, unsigned char c, struct ap_buf *out)
{
	if (c >= 0xc0)
		plain->n_utf8 = 0;
	else if (plain->n_utf8 == 0)
		return;
	plain->utf8[plain->n_utf8++] = (char)c;
	unsigned char first = (unsigned char)plain->utf8[0];
	size_t n = utf8_size(first);
	if (plain->n_utf8 < n)
		return;
	plain->n_utf8 = 0;
	if (n == 0 || utf8_length((const unsigned char *)plain->utf8) == 0)
		return;
	if (first == 0xc2 && c < 0xa0)
		plain->state = plain_introduced(plain, c - 0x40);
	else
		ap_buf_add(out, plain->utf8, n);
}

static void plain_text_byte(struct ap_plain *plain, unsigned char c, struct ap_buf *out)
{
	if (plain->cr) {
		plain->cr = false;
		ap_buf_add(out, "\n", 1);
		if (c == '\n')
			return;
	}
	if (c >= 0x80) {
		plain_utf8_byte(plain, c, out);
		return;
	}
	plain->n_utf8 = 0; /* one that was not finished is none */
	if (c == 0x1b)
		plain->state = PLAIN_ESC;
	else if (c == '\r')
		plain->cr = true;
	else if (c == '\b')
		plain_backspace(out);
	else if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t')
		ap_buf_add(out, &c, 1);
}

static void plain_osc_end(struct ap_plain *plain, const struct ap_buf *out)
{
	plain->state = PLAIN_TEXT;
	plain->osc[plain->osc_len] = '\0';
	if (plain->on_osc)
		plain->on_osc(plain->data, plain->osc, out);
}

static void plain_osc_byte(struct ap_plain *plain, unsigned char c, const struct ap_buf *out)
{
	if (c == 0x07)
		plain_osc_end(plain, out);
	else if (c == 0x1b)
		plain->state = PLAIN_OSC_ESC;
	else if (plain->osc_len < AP_OSC_MAX - 1 && c)
		plain->osc[plain->osc_len++] = (char)c;
}

void ap_plain_add(struct ap_plain *plain, const char *data, size_t len, struct ap_buf *out)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];
		switch ((enum plain_state)plain->state) {
		case PLAIN_TEXT:
			plain_text_byte(plain, c, out);
			break;
		case PLAIN_ESC:
			plain->state = plain_after_esc(plain, c);
			break;
		case PLAIN_ESC_INTER:
			if (!plain_cut_short(plain, c) && (c < 0x20 || c > 0x2f))
				plain->state = PLAIN_TEXT;
			break;
		case PLAIN_CSI:
			if (!plain_cut_short(plain, c) && c >= 0x40 && c <= 0x7e)
				plain->state = PLAIN_TEXT;
			break;
		case PLAIN_OSC:
			plain_osc_byte(plain, c, out);
			break;
		case PLAIN_OSC_ESC:
			plain_osc_end(plain, out);
			if (c != '\\')
				plain->state = plain_after_esc(plain, c);
			break;
		case PLAIN_STRING:
			if (c == 0x07)
				plain->state = PLAIN_TEXT;
			else if (c == 0x1b)
				plain->state = PLAIN_STRING_ESC;
			break;
		case PLAIN_STRING_ESC:
			plain->state = c == '\\' ? PLAIN_TEXT : plain_after_esc(plain, c);
			break;
		}
	}
}
