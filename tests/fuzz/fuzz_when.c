/* Times as a program says them, whatever it says: byte 0 says when and where it is read. */
#include "fuzz.h"

#include "when.h"

#define NOW	INT64_C(1795878000)
#define CENTURY (INT64_C(100) * 366 * 86400)

static void is_a_date(int64_t at)
{
	char text[32];
	int64_t again;
	when_format(at, text, sizeof text);
	HOLDS(strlen(text) == strlen("2026-11-28T15:00:00Z"));
	HOLDS(when_parse(text, strlen(text), NOW, (struct when_zone){.local = false}, &again) == 0);
	HOLDS(again == at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	size_t byte = fuzz_byte(&input);
	struct when_zone zone = {.local = byte & 1, .offset_s = (int32_t)(byte >> 1) * 900 - 50400};
	int64_t now = NOW + (int64_t)byte * 86400 * 3, at = -1, span = -1;
	char *text = fuzz_copy(input.at, input.left);
	if (when_parse(text, input.left, now, zone, &at) == 0 && at >= 86400)
		is_a_date(at);
	if (when_span_parse(text, input.left, &span) == 0)
		HOLDS(span >= 0 && span <= CENTURY);
	if (when_epoch_parse(text, input.left, &at) == 0)
		HOLDS(at >= 0 && at < INT64_C(100000000000));
	if (when_zone_parse(text, &zone) == 0)
		HOLDS(zone.local || (zone.offset_s >= -54000 && zone.offset_s <= 54000));
	free(text);
	return 0;
}
