/* Frames, whatever comes over the wire: byte 0 says in what pieces it arrives. What is taken is put
 * again as it was. */
#include "fuzz.h"

#include <errno.h>

#include "wire.h"

static void is_put_again(const struct wire_frame *frame)
{
	struct ap_buf out = {0};
	struct wire_frame again;
	struct ap_err err;
	int r = wire_put(&out, frame->head, frame->bytes, frame->len);
	if (r == 0) { /* else its head is longer when it is written plainly: 1e9 as 1000000000.0 */
		HOLDS(wire_take(out.data, out.len, &again, &err) == (long)out.len);
		HOLDS(json_equal(frame->head, again.head));
		HOLDS(again.len == frame->len &&
		      (again.len == 0 || memcmp(again.bytes, frame->bytes, again.len) == 0));
		json_decref(again.head);
	}
	ap_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	size_t piece = fuzz_byte(&input) + 1u, at = 0;
	struct ap_err err;
	struct wire_frame frame;
	for (size_t here = piece;; here += piece) {
		size_t arrived = here < input.left ? here : input.left;
		char *text = fuzz_copy(input.at + at, arrived - at);
		long n = wire_take(text, arrived - at, &frame, &err);
		HOLDS(n >= 0 || n == -EPROTO);
		if (n > 0) {
			HOLDS((size_t)n <= arrived - at && json_is_object(frame.head));
			HOLDS(frame.len <= WIRE_BYTES_MAX);
			is_put_again(&frame);
			json_decref(frame.head);
			at += (size_t)n;
		}
		free(text);
		if (n < 0 || (n == 0 && arrived == input.left))
			return 0;
	}
}
