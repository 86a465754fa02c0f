/* What users write: numbers, durations, sizes, labels, words; and text made fit to be shown. */
#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "clock.h"
#include "text.h"

#define UNTOUCHED 4711
#define CENTURY	  (INT64_C(100) * 366 * 86400 * AP_SECOND)

static void numbers(const char *text)
{
	int64_t number = UNTOUCHED, again;
	char shown[32];
	int r = ap_number_parse(text, &number);
	HOLDS(r == 0 || r == -EINVAL || r == -ERANGE);
	HOLDS(r == 0 || number == UNTOUCHED);
	if (r < 0)
		return;
	snprintf(shown, sizeof shown, "%" PRId64, number);
	HOLDS(ap_number_parse(shown, &again) == 0 && again == number);
	HOLDS((text[0] == '-') == (number < 0) || number == 0);
}

/* As a pocket calculator would have it, to the nanosecond. */
static long double duration_about(const char *text)
{
	char *suffix;
	long double value = strtold(text, &suffix);
	return value * (strcmp(suffix, "d") == 0    ? 86400e9L
			: strcmp(suffix, "h") == 0  ? 3600e9L
			: strcmp(suffix, "m") == 0  ? 60e9L
			: strcmp(suffix, "ms") == 0 ? 1e6L
						    : 1e9L);
}

static void durations(const char *text)
{
	int64_t ns = UNTOUCHED, again;
	char shown[32], twice[32];
	int r = ap_duration_parse(text, &ns);
	HOLDS(r == 0 || r == -EINVAL || r == -ERANGE);
	HOLDS(r == 0 || ns == UNTOUCHED);
	if (r < 0)
		return;
	HOLDS(ns >= 0 && ns <= CENTURY);
	HOLDS(fabsl(duration_about(text) - (long double)ns) <=
	      1.5L); /* the floor, and what about is off by */
	ap_duration_format(ns, shown, sizeof shown);
	HOLDS(ap_duration_parse(shown, &again) == 0 && again == ns);
	ap_duration_format(again, twice, sizeof twice);
	HOLDS(strcmp(shown, twice) == 0);
}

static void sizes(const char *text)
{
	int64_t size = UNTOUCHED, again;
	char shown[32];
	int r = ap_size_parse(text, &size);
	HOLDS(r == 0 || r == -EINVAL || r == -ERANGE);
	HOLDS(r == 0 || size == UNTOUCHED);
	if (r < 0)
		return;
	HOLDS(size >= 0);
	snprintf(shown, sizeof shown, "%" PRId64, size);
	HOLDS(ap_size_parse(shown, &again) == 0 && again == size);
}

/* What git-check-ref-format(1) asks of a component, and a shell of a word without quotes. */
static void labels(const char *text)
{
	size_t len = strlen(text);
	if (!ap_label_valid(text))
		return;
	HOLDS(len >= 1 && len <= AP_LABEL_MAX);
	HOLDS(!strpbrk(text, "/ ~^:?*[\\\"'$&|;<>()\t\n") && text[0] != '.' && text[0] != '-');
	HOLDS(!strstr(text, "..") && text[len - 1] != '.');
	HOLDS(len < 5 || strcmp(text + len - 5, ".lock") != 0);
}

static void words(const char *text)
{
	char *copy = fuzz_copy(text, strlen(text)), *cursor = copy, *word;
	while ((word = ap_word_next(&cursor))) {
		text += strspn(text, " \t");
		size_t len = strcspn(text, " \t");
		HOLDS(len > 0 && strlen(word) == len && strncmp(word, text, len) == 0);
		text += len;
	}
	HOLDS(text[strspn(text, " \t")] == '\0');
	HOLDS(!ap_word_next(&cursor));
	free(copy);
}

static void tamed(const char *text)
{
	size_t len = strlen(text);
	char *once = fuzz_copy(text, len);
	ap_text_tame(once);
	HOLDS(strlen(once) == len && fuzz_is_utf8(once, len));
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)once[i];
		HOLDS(c >= 0x20 && c != 0x7f);
		HOLDS(c != 0xc2 || (unsigned char)once[i + 1] >= 0xa0);
	}
	char *twice = fuzz_copy(once, len);
	ap_text_tame(twice);
	HOLDS(strcmp(once, twice) == 0);
	HOLDS(ap_hash(once) == ap_hash(twice));
	free(once);
	free(twice);
}

static void times(const char *text)
{
	int64_t now = (int64_t)(ap_hash(text) % (uint64_t)CENTURY), span = 0;
	char shown[32];
	if (ap_number_parse(text, &span) < 0 || span < 0)
		return;
	int64_t after = ap_clock_after(now, span);
	HOLDS(after >= now && (after == AP_FOREVER || after - now == span));
	ap_clock_rfc3339(now, shown, sizeof shown);
	HOLDS(strlen(shown) == strlen("2000-01-01T00:00:00Z"));
	ap_clock_rfc3339_us(now, shown, sizeof shown);
	HOLDS(strlen(shown) == strlen("2000-01-01T00:00:00.000000Z"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	char *text = fuzz_text(&input);
	numbers(text);
	durations(text);
	sizes(text);
	labels(text);
	words(text);
	tamed(text);
	times(text);
	free(text);
	return 0;
}
