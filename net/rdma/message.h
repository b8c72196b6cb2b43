/* What one SEND carries (proto/FORMAT.md, "RDMA"):
 *
 *   head (16 bytes) | segments (16 bytes each) | frame header | CRCs | payload
 *
 * ACK: the head alone. FRAME: no segments, the payload is there. PULL: the payload lies in the
 * sender's memory, in up to four segments, to be fetched with RDMA READ. This header: the codec,
 * which has no state and no I/O; a decoder accepts only what an encoder can have made. */
#ifndef RDMA_MESSAGE_H
#define RDMA_MESSAGE_H

#include "net/transport.h"

#define RDMA_VERSION	  1u
#define RDMA_HEAD_SIZE	  16u
#define RDMA_SEGMENT_SIZE 16u
#define RDMA_SEGMENTS_MAX TRANSPORT_IOV_MAX
#define RDMA_MESSAGE_MAX                                                                           \
	(RDMA_HEAD_SIZE + FRAME_HEADER_SIZE + 4u * (TRANSPORT_COPY_MAX / BLOCK_SIZE) +             \
	 TRANSPORT_COPY_MAX)

_Static_assert(RDMA_HEAD_SIZE + RDMA_SEGMENTS_MAX * RDMA_SEGMENT_SIZE + FRAME_HEADER_SIZE +
		       4u * FRAME_CRCS_MAX <=
		   RDMA_MESSAGE_MAX,
	       "what announces the largest payload fits");

enum rdma_kind { RDMA_ACK = 1, RDMA_FRAME = 2, RDMA_PULL = 3 };

struct rdma_segment {
	uint64_t address; /* in the sender's memory */
	uint32_t key;	  /* which lets it be read */
	uint32_t size_bytes;
};

struct rdma_message {
	uint8_t kind;
	uint8_t segment_count;
	uint16_t credits; /* buffers of the receiver that are free again */
	uint16_t pulled;  /* payloads of the receiver that were fetched since the last message */
	struct rdma_segment segments[RDMA_SEGMENTS_MAX];
	struct frame frame; /* crcs and payload: in the message */
};

/* Writes all but the payload: head, segments, and for FRAME and PULL the header and the CRCs.
 * Returns how many bytes that is. frame_header: as frame_encode_header made it of m->frame. */
uint32_t rdma_message_encode(const struct rdma_message *m,
			     const uint8_t frame_header[FRAME_HEADER_SIZE],
			     uint8_t ret[RDMA_MESSAGE_MAX]);

/* 0, or -E_BAD_FRAME, -E_BAD_CRC, -E_WIRE_VERSION. bytes: aligned to 4. */
int rdma_message_decode(const uint8_t *bytes, uint32_t size_bytes, struct rdma_message *ret);

#endif
