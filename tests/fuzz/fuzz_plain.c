/* What a terminal prints, in two pieces: byte 0 says where it is cut. */
#include "fuzz.h"

#include "text.h"

/* All that was said beside the text, so that two readers can be compared. */
static void on_osc(void *data, const char *osc, const struct ap_buf *out)
{
	HOLDS(strlen(osc) < AP_OSC_MAX);
	ap_buf_printf(data, "%zu %s\n", out->len, osc);
}

static void is_plain(const struct ap_buf *out)
{
	for (size_t i = 0; i < out->len; i++) {
		unsigned char c = (unsigned char)out->data[i];
		HOLDS(c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f));
		HOLDS(c != 0xc2 || (unsigned char)out->data[i + 1] >= 0xa0);
	}
	HOLDS(fuzz_is_utf8(ap_buf_text(out), out->len));
}

/* Plain text stays as it is, whatever came before it: what was cut off in the middle is over when
 * a string terminator comes. */
static void finds_back(struct ap_plain *plain, struct ap_buf *out)
{
	static const char after[] = "after: \xe2\x80\xa6\n";
	ap_plain_add(plain, "\x1b\\", 2, out);
	size_t len = out->len;
	ap_plain_add(plain, after, sizeof after - 1, out);
	HOLDS(out->len - len == sizeof after - 1);
	HOLDS(memcmp(out->data + len, after, sizeof after - 1) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	AP_CLEANUP_BUF struct ap_buf whole = {0}, pieces = {0}, osc = {0}, osc_pieces = {0};
	AP_CLEANUP_BUF struct ap_buf twice = {0};
	size_t cut = fuzz_byte(&input);
	char *text = fuzz_copy(input.at, input.left);
	cut = input.left ? cut % (input.left + 1) : 0;

	struct ap_plain plain = {.on_osc = on_osc, .data = &osc};
	ap_plain_add(&plain, text, input.left, &whole);
	is_plain(&whole);
	HOLDS(whole.len <= input.left);

	struct ap_plain cut_plain = {.on_osc = on_osc, .data = &osc_pieces};
	ap_plain_add(&cut_plain, text, cut, &pieces);
	is_plain(&pieces);
	ap_plain_add(&cut_plain, text + cut, input.left - cut, &pieces);
	HOLDS(whole.len == pieces.len && strcmp(ap_buf_text(&whole), ap_buf_text(&pieces)) == 0);
	HOLDS(strcmp(ap_buf_text(&osc), ap_buf_text(&osc_pieces)) == 0);

	struct ap_plain again = {0};
	ap_plain_add(&again, ap_buf_text(&whole), whole.len, &twice);
	HOLDS(strcmp(ap_buf_text(&whole), ap_buf_text(&twice)) == 0);

	finds_back(&plain, &whole);
	free(text);
	return 0;
}
