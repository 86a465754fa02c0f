/* What the fuzz targets share: input cut into pieces, and properties that must hold. A target is
 * one file, fuzz_NAME.c; what it is tried with first is in seeds/NAME/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property of what is under test: the fuzzer reports the input that breaks it. */
#define HOLDS(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__,          \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

/* 0 at the end. */
static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
	if (input->left == 0)
		return 0;
	input->left--;
	return *input->at++;
}

/* A copy on the heap, with a NUL behind it and nothing further: what reads on is caught. */
static inline char *fuzz_copy(const void *data, size_t len)
{
	char *copy = malloc(len + 1);
	HOLDS(copy);
	if (len > 0)
		memcpy(copy, data, len);
	copy[len] = '\0';
	return copy;
}

/* The text up to the next NUL or the end, as fuzz_copy() gives it; "" when there is no more. */
static inline char *fuzz_text(struct fuzz_input *input)
{
	const uint8_t *nul = input->left > 0 ? memchr(input->at, 0, input->left) : NULL;
	size_t len = nul ? (size_t)(nul - input->at) : input->left;
	char *text = fuzz_copy(input->at, len);
	input->at += len + (nul != NULL);
	input->left -= len + (nul != NULL);
	return text;
}

/* The text up to the next newline, likewise. */
static inline char *fuzz_line(struct fuzz_input *input)
{
	const uint8_t *newline = input->left > 0 ? memchr(input->at, '\n', input->left) : NULL;
	size_t len = newline ? (size_t)(newline - input->at) : input->left;
	char *text = fuzz_copy(input->at, len);
	input->at += len + (newline != NULL);
	input->left -= len + (newline != NULL);
	return text;
}

/* A file that holds this, in memory, as /proc/self/fd/NUMBER; one at a time. Returns the number. */
static inline const char *fuzz_file(const void *data, size_t len)
{
	static char number[16];
	static int fd = -1;
	if (fd < 0) {
		fd = memfd_create("fuzz", MFD_CLOEXEC);
		snprintf(number, sizeof number, "%d", fd);
	}
	HOLDS(fd >= 0 && ftruncate(fd, 0) == 0);
	HOLDS(pwrite(fd, data, len, 0) == (ssize_t)len);
	return number;
}

/* Whether a text is UTF-8 in its strict form, without surrogates and overlong forms: RFC 3629. Said
 * again here, so that what is under test is not held against itself. */
static inline bool fuzz_is_utf8(const char *text, size_t len)
{
	const unsigned char *c = (const unsigned char *)text;
	for (size_t i = 0; i < len;) {
		uint32_t code = c[i];
		size_t n = code < 0x80		   ? 1
			   : (code & 0xe0) == 0xc0 ? 2
			   : (code & 0xf0) == 0xe0 ? 3
			   : (code & 0xf8) == 0xf0 ? 4
						   : 0;
		static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
		if (n == 0 || n > len - i)
			return false;
		code &= n == 1 ? 0x7fu : 0xffu >> (n + 1);
		for (size_t k = 1; k < n; k++) {
			if ((c[i + k] & 0xc0) != 0x80)
				return false;
			code = code << 6 | (c[i + k] & 0x3fu);
		}
		if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
			return false;
		i += n;
	}
	return true;
}
