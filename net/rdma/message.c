/* message: the codec of what one SEND carries. See message.h. The head's CRC covers head and
 * segments; the frame's header has its own, the payload the CRCs that come with it. */
#include "net/rdma/message.h"

#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "fields are used as they lie on the wire");

/* As on the wire. */
struct head {
	uint8_t kind;
	uint8_t segment_count;
	uint16_t credits;
	uint16_t pulled;
	uint16_t zero;
	uint32_t size_bytes; /* of the whole message */
	uint32_t crc;	     /* of the fields before it, and of the segments */
};
_Static_assert(sizeof(struct head) == RDMA_HEAD_SIZE, "wire");
_Static_assert(sizeof(struct rdma_segment) == RDMA_SEGMENT_SIZE, "wire");

static uint32_t head_crc(const struct head *h, const void *segments)
{
	const uint32_t crc = crc32c(0, h, offsetof(struct head, crc));

	return h->segment_count == 0
		   ? crc
		   : crc32c(crc, segments, (size_t)h->segment_count * RDMA_SEGMENT_SIZE);
}

uint32_t rdma_message_encode(const struct rdma_message *m,
			     const uint8_t frame_header[FRAME_HEADER_SIZE],
			     uint8_t ret[RDMA_MESSAGE_MAX])
{
	const uint32_t segments_size = m->segment_count * RDMA_SEGMENT_SIZE;
	struct head h = {.kind = m->kind,
			 .segment_count = m->segment_count,
			 .credits = m->credits,
			 .pulled = m->pulled,
			 .size_bytes = RDMA_HEAD_SIZE + segments_size};
	uint32_t at = h.size_bytes;

	PRE(m->segment_count <= RDMA_SEGMENTS_MAX);
	PRE((m->segment_count > 0) == (m->kind == RDMA_PULL));
	memcpy(ret + RDMA_HEAD_SIZE, m->segments, segments_size);
	if (m->kind != RDMA_ACK) {
		memcpy(ret + at, frame_header, FRAME_HEADER_SIZE);
		at += FRAME_HEADER_SIZE;
		if (m->frame.crc_count > 0)
			memcpy(ret + at, m->frame.crcs, 4u * m->frame.crc_count);
		at += 4u * m->frame.crc_count;
		h.size_bytes = at + (m->kind == RDMA_FRAME ? m->frame.payload_size : 0);
	}
	h.crc = head_crc(&h, m->segments);
	memcpy(ret, &h, sizeof h);
	POST(h.size_bytes <= RDMA_MESSAGE_MAX);
	return at;
}

/* The segments must be what the frame's header says. */
static bool segments_match(const struct rdma_message *m)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < m->segment_count; i++) {
		if (m->segments[i].size_bytes == 0)
			return false;
		sum += m->segments[i].size_bytes;
	}
	return sum == m->frame.payload_size;
}

static int decode_frame(const uint8_t *bytes, uint32_t at, uint32_t size_bytes,
			struct rdma_message *m)
{
	uint64_t end;
	int rc;

	if (size_bytes - at < FRAME_HEADER_SIZE)
		return -E_BAD_FRAME;
	rc = frame_decode_header(bytes + at, &m->frame);
	if (rc != 0)
		return rc;
	at += FRAME_HEADER_SIZE;
	end = at + 4ull * m->frame.crc_count;
	if (m->kind == RDMA_FRAME) {
		if (m->frame.payload_size > TRANSPORT_COPY_MAX)
			return -E_BAD_FRAME;
		end += m->frame.payload_size;
	} else if (m->frame.payload_size <= TRANSPORT_COPY_MAX || !segments_match(m)) {
		return -E_BAD_FRAME;
	}
	if (end != size_bytes)
		return -E_BAD_FRAME;
	m->frame.crcs = (const uint32_t *)(const void *)(bytes + at);
	if (m->kind == RDMA_FRAME)
		m->frame.payload = bytes + at + 4u * m->frame.crc_count;
	return 0;
}

int rdma_message_decode(const uint8_t *bytes, uint32_t size_bytes, struct rdma_message *ret)
{
	struct rdma_message m = {0};
	struct head h;
	uint32_t at;
	int rc = 0;

	PRE((uintptr_t)bytes % 4 == 0);
	if (size_bytes < sizeof h)
		return -E_BAD_FRAME;
	memcpy(&h, bytes, sizeof h);
	at = RDMA_HEAD_SIZE + h.segment_count * RDMA_SEGMENT_SIZE;
	if (h.segment_count > RDMA_SEGMENTS_MAX || at > size_bytes)
		return -E_BAD_FRAME;
	if (h.crc != head_crc(&h, bytes + RDMA_HEAD_SIZE))
		return -E_BAD_CRC;
	if (h.kind < RDMA_ACK || h.kind > RDMA_PULL || h.zero != 0 || h.size_bytes != size_bytes ||
	    (h.segment_count > 0) != (h.kind == RDMA_PULL))
		return -E_BAD_FRAME;
	m.kind = h.kind;
	m.segment_count = h.segment_count;
	m.credits = h.credits;
	m.pulled = h.pulled;
	memcpy(m.segments, bytes + RDMA_HEAD_SIZE, (size_t)h.segment_count * RDMA_SEGMENT_SIZE);
	if (h.kind != RDMA_ACK)
		rc = decode_frame(bytes, at, size_bytes, &m);
	else if (size_bytes != RDMA_HEAD_SIZE)
		rc = -E_BAD_FRAME;
	if (rc == 0)
		*ret = m;
	return rc;
}
