/* Prompts as they are made fit for a terminal. */
#include "fuzz.h"

#include "../../core/session/driver_terminal.c"
#include "../../core/session/prompts.c"

static void is_clean(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		HOLDS(c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f));
		HOLDS(i == 0 || (unsigned char)text[i - 1] != 0xc2 || c < 0x80 || c >= 0xa0);
	}
}

/* What is clean stays as it is, but for one newline at the end. */
static void stays_clean(const char *text, size_t len)
{
	char *copy = fuzz_copy(text, len);
	size_t expected = len > 0 && text[len - 1] == '\n' ? len - 1 : len;
	HOLDS(clean_text(copy, len) == expected && memcmp(copy, text, expected) == 0);
	free(copy);
}

static void long_lines_hold(const char *text, size_t len)
{
	bool is_long = false;
	size_t line = 0;
	for (size_t i = 0; i < len; i++) {
		line = text[i] == '\n' ? 0 : line + 1;
		is_long = is_long || line > CANONICAL_LINE;
	}
	HOLDS(has_long_line(text, len) == is_long);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_copy(data, size);
	long_lines_hold(text, size);
	size_t len = clean_text(text, size);
	HOLDS(len <= size);
	is_clean(text, len);
	HOLDS(!fuzz_is_utf8((const char *)data, size) || fuzz_is_utf8(text, len));
	stays_clean(text, len);
	free(text);
	return 0;
}
