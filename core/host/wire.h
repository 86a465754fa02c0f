/* Frames between a pool and what serves it on another machine, over a pair of pipes: a head, which
 * is one JSON object, and bytes. On the wire: the length of the head, the length of the bytes, each
 * as 32 bits in network order; both; and a newline, as srun passes whole lines on. A frame has
 * bounds, so that whoever reads never holds more than that for the other side. Pure: no I/O, no
 * lock. */
#pragma once

#include <jansson.h>

#include "buf.h"
#include "err.h"

#define WIRE_VERSION   1
#define WIRE_HEAD_MAX  (64 << 10)
#define WIRE_BYTES_MAX (1 << 20)

struct wire_frame {
	json_t *head;	   /* an object, owned */
	const char *bytes; /* of the buffer that the frame was taken from: `len` of them */
	size_t len;
};

/* Appends a frame. -EMSGSIZE: it is over the bounds; -ENOMEM. The buffer is as before then. */
int wire_put(struct ap_buf *out, const json_t *head, const void *bytes, size_t len);

/* Takes the frame that begins at `in`: how many bytes it has there, with ret->head the caller's;
 * 0: its end has not arrived. -EPROTO, with a sentence: it is none, and nothing behind it can be
 * read; -ENOMEM. */
long wire_take(const char *in, size_t len, struct wire_frame *ret, struct ap_err *err);
