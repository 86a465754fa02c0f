#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

struct lengths {
	uint32_t head, bytes;
};

int wire_put(struct ap_buf *out, const json_t *head, const void *bytes, size_t len)
{
	AP_CLEANUP_FREE char *text = json_dumps(head, JSON_COMPACT);
	size_t head_len = text ? strlen(text) : 0;
	if (!text)
		return -ENOMEM;
	if (head_len > WIRE_HEAD_MAX || len > WIRE_BYTES_MAX)
		return -EMSGSIZE;
	const struct lengths lengths = {htonl((uint32_t)head_len), htonl((uint32_t)len)};
	if (!ap_buf_reserve(out, sizeof lengths + head_len + len + 1))
		return -ENOMEM;
	ap_buf_add(out, &lengths, sizeof lengths);
	ap_buf_add(out, text, head_len);
	ap_buf_add(out, bytes, len);
	ap_buf_adds(out, "\n");
	return 0; /* there is room for all of it */
}

long wire_take(const char *in, size_t len, struct wire_frame *ret, struct ap_err *err)
{
	struct lengths lengths;
	if (len < sizeof lengths)
		return 0;
	memcpy(&lengths, in, sizeof lengths);
	size_t head = ntohl(lengths.head), bytes = ntohl(lengths.bytes);
	if (head > WIRE_HEAD_MAX || bytes > WIRE_BYTES_MAX)
		return ap_err_set(err, -EPROTO, "a frame of %zu and %zu bytes is over %d and %d",
				  head, bytes, WIRE_HEAD_MAX, WIRE_BYTES_MAX);
	if (len < sizeof lengths + head + bytes + 1)
		return 0;
	const char *text = in + sizeof lengths;
	if (text[head + bytes] != '\n')
		return ap_err_set(err, -EPROTO, "a frame does not end with a newline");
	json_error_t error;
	ret->head = json_loadb(text, head, JSON_REJECT_DUPLICATES, &error);
	if (!ret->head && json_error_code(&error) == json_error_out_of_memory)
		return -ENOMEM;
	if (!json_is_object(ret->head)) {
		json_decref(ret->head);
		return ap_err_set(err, -EPROTO, "the head of a frame is no object of JSON");
	}
	ret->bytes = text + head;
	ret->len = bytes;
	return (long)(sizeof lengths + head + bytes + 1);
}
