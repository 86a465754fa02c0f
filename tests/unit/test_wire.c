/* Frames: what is put is taken, whatever pieces it arrives in; nothing else is. */
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "wire.h"

static json_t *some_head(int id)
{
	return json_pack("{s:i, s:s}", "id", id, "op", "read");
}

static void put(struct ap_buf *out, int id, const void *bytes, size_t len)
{
	json_t *head = some_head(id);
	assert_int_equal(wire_put(out, head, bytes, len), 0);
	json_decref(head);
}

/* The lengths as they are on the wire. */
static void put_lengths(struct ap_buf *out, uint32_t head, uint32_t bytes)
{
	const uint32_t lengths[2] = {htonl(head), htonl(bytes)};
	ap_buf_add(out, lengths, sizeof lengths);
}

static void put_text(struct ap_buf *out, const char *head)
{
	put_lengths(out, (uint32_t)strlen(head), 0);
	ap_buf_adds(out, head);
	ap_buf_adds(out, "\n");
}

static void frames_come_back_in_their_order(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct wire_frame frame;
	struct ap_err err;
	size_t at = 0;
	(void)state;
	put(&out, 1, "bytes\0of any kind\n", 18);
	put(&out, 2, NULL, 0);
	for (int id = 1; id <= 2; id++) {
		long n = wire_take(out.data + at, out.len - at, &frame, &err);
		assert_true(n > 0);
		assert_int_equal(json_integer_value(json_object_get(frame.head, "id")), id);
		assert_int_equal(frame.len, id == 1 ? 18 : 0);
		if (id == 1)
			assert_memory_equal(frame.bytes, "bytes\0of any kind\n", 18);
		json_decref(frame.head);
		at += (size_t)n;
	}
	assert_int_equal(at, out.len);
}

static void a_part_of_a_frame_is_none_yet(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	struct wire_frame frame;
	struct ap_err err;
	(void)state;
	put(&out, 1, "bytes", 5);
	for (size_t len = 0; len < out.len; len++) {
		/* in memory of its own: a reader beyond its end is found by the sanitizer */
		AP_CLEANUP_FREE char *part = malloc(len + 1);
		memcpy(part, out.data, len);
		assert_int_equal(wire_take(part, len, &frame, &err), 0);
	}
}

static void what_is_over_the_bounds_is_neither_put_nor_taken(void **state)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	AP_CLEANUP_FREE char *bytes = calloc(1, WIRE_BYTES_MAX + 1);
	AP_CLEANUP_FREE char *text = malloc(WIRE_HEAD_MAX + 1);
	struct wire_frame frame;
	struct ap_err err;
	json_t *head = some_head(1);
	(void)state;
	assert_int_equal(wire_put(&out, head, bytes, WIRE_BYTES_MAX + 1), -EMSGSIZE);
	assert_int_equal(out.len, 0);
	assert_int_equal(wire_put(&out, head, bytes, WIRE_BYTES_MAX), 0);
	memset(text, 'x', WIRE_HEAD_MAX);
	text[WIRE_HEAD_MAX] = '\0';
	json_object_set_new(head, "path", json_string(text));
	size_t before = out.len;
	assert_int_equal(wire_put(&out, head, NULL, 0), -EMSGSIZE);
	assert_int_equal(out.len, before);
	json_decref(head);
	const uint32_t lengths[][2] = {
		{WIRE_HEAD_MAX + 1, 0}, {0, WIRE_BYTES_MAX + 1}, {UINT32_MAX, UINT32_MAX}};
	for (size_t i = 0; i < 3; i++) { /* refused at once, before so much has come */
		out.len = 0;
		put_lengths(&out, lengths[i][0], lengths[i][1]);
		assert_int_equal(wire_take(out.data, out.len, &frame, &err), -EPROTO);
	}
}

static void a_head_is_one_object(void **state)
{
	static const char *const bad[] = {"",
					  "1",
					  "[]",
					  "\"text\"",
					  "{",
					  "{}{}",
					  "{}x",
					  "{\"a\":1,\"a\":2}",
					  "{\"a\":\"\\u0000\"}",
					  "null",
					  "{a:1}",
					  "{\"a\":\"\xff\"}"};
	struct wire_frame frame;
	struct ap_err err;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		AP_CLEANUP_BUF struct ap_buf out = {0};
		put_text(&out, bad[i]);
		assert_int_equal(wire_take(out.data, out.len, &frame, &err), -EPROTO);
		assert_true(*err.text);
	}
	AP_CLEANUP_FREE char *deep = malloc(WIRE_HEAD_MAX + 1);
	memset(deep, '[', WIRE_HEAD_MAX);
	deep[WIRE_HEAD_MAX] = '\0';
	memcpy(deep, "{\"a\":", 5);
	AP_CLEANUP_BUF struct ap_buf out = {0};
	put_text(&out, deep);
	assert_int_equal(wire_take(out.data, out.len, &frame, &err), -EPROTO);
}

/* xorshift32: Marsaglia, 2003 */
static uint32_t draw(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

static void bytes_of_any_kind_are_frames_or_refused(void **state)
{
	uint32_t dice = 20261128;
	(void)state;
	for (unsigned run = 0; run < 20000; run++) {
		AP_CLEANUP_BUF struct ap_buf in = {0};
		struct wire_frame frame;
		struct ap_err err = {""};
		put(&in, 1, "bytes", 5);
		put(&in, 2, "more", 4);
		for (unsigned n = draw(&dice) % 4; n > 0; n--)
			in.data[draw(&dice) % (draw(&dice) % 2 ? in.len : 8)] = (char)draw(&dice);
		in.len -= draw(&dice) % in.len;
		AP_CLEANUP_FREE char *part = malloc(in.len);
		memcpy(part, in.data, in.len);
		for (size_t at = 0; at < in.len;) {
			long n = wire_take(part + at, in.len - at, &frame, &err);
			assert_true(n >= 0 || (n == -EPROTO && *err.text));
			if (n <= 0)
				break;
			assert_true(json_is_object(frame.head));
			assert_true((size_t)n <= in.len - at && frame.len <= (size_t)n);
			json_decref(frame.head);
			at += (size_t)n;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_come_back_in_their_order),
		cmocka_unit_test(a_part_of_a_frame_is_none_yet),
		cmocka_unit_test(what_is_over_the_bounds_is_neither_put_nor_taken),
		cmocka_unit_test(a_head_is_one_object),
		cmocka_unit_test(bytes_of_any_kind_are_frames_or_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
