/* The frame: what goes over every connection, data and control (proto/FORMAT.md, "Wire").
 *
 *   header (64 bytes, own CRC) | CRC32C of each 4 KiB piece of the payload | payload
 *
 * This header: the fields, the operations, and the codec, which has no state and no I/O. A decoder
 * accepts only what an encoder can have made: unknown versions, operations or flags, sizes over
 * their bounds, and fields that contradict each other are errors. */
#ifndef FRAME_FRAME_H
#define FRAME_FRAME_H

#include "engine/base/err.h"
#include "engine/base/types.h"

#define FRAME_HEADER_SIZE 64u
#define FRAME_MAGIC	  0x31465650u /* "PVF1" */
/* Wire versions. Each can do all that the one before can:
 *   1  all but what follows
 *   2  FRAME_F_SETTLE */
#define FRAME_VERSION_MIN    1u
#define FRAME_VERSION_SETTLE 2u
#ifdef PAVE_PROTOCOL_PREVIOUS /* a build for tests, of programs that are one version behind */
#define FRAME_VERSION 1u
#else
#define FRAME_VERSION 2u
#endif
#define FRAME_DATA_MAX	  IO_SIZE_MAX
#define FRAME_CONTROL_MAX (4u << 20) /* a protobuf payload: certificates, maps */
#define FRAME_CRCS_MAX	  (FRAME_CONTROL_MAX / BLOCK_SIZE)
#define FRAME_STATUS_MAX  65535 /* errno and err.h lie below */

/* (op, has a reply, payload of the request, payload of the reply) */
enum frame_op {
	FRAME_CONTROL = 1, /* protobuf pave.v1.Control both ways: net/rpc */
	FRAME_WRITE = 2,   /* blocks -> none. chunk, block, block_count, version, watermark */
	FRAME_READ = 3,	   /* none -> blocks. chunk, block, block_count */
	FRAME_ZERO =
	    4, /* none -> none. As WRITE, of zeroes; FRAME_F_DISCARD: space is given back */
	FRAME_WATERMARK = 5, /* none -> none. chunk, watermark: durable when answered */
	FRAME_FETCH =
	    6, /* none -> run table + blocks, for resync. chunk, block (start), version (above) */
};

enum frame_flag {
	FRAME_F_REPLY = 1u << 0,
	FRAME_F_DISCARD = 1u << 1,
	FRAME_F_MORE = 1u << 2,	  /* FETCH reply: `block` says where to go on */
	FRAME_F_SETTLE = 1u << 3, /* WRITE, ZERO: the host's own, to settle what replicas hold; may
				   * use the reserve of a node that is full. Not in version 1 */
	/* WRITE, READ, ZERO: the answer says how long the steps took on the node, in ns, each up to
	 * UINT32_MAX: chunk: until the log, or the disk, was begun; block: log or disk;
	 * block_count: until the answer was handed over. */
	FRAME_F_TRACE = 1u << 4,
};
#define FRAME_FLAGS_KNOWN 0x1fu

struct frame {
	uint8_t wire_version;
	uint8_t op;	     /* enum frame_op */
	uint16_t flags;	     /* enum frame_flag */
	uint64_t request_id; /* chosen by the asking side, unique among its requests in flight */
	chunk_no_t chunk;
	block_no_t block;
	uint32_t block_count;
	uint32_t payload_size; /* bytes */
	version_t version;
	version_t watermark;
	uint32_t layer; /* of a data request: which layer of the volume; 0: the one with its id */
	int32_t status; /* replies: 0, or the error as a positive number (err.h); then no payload,
			 * but for FRAME_CONTROL */
	uint16_t crc_count;   /* always ceil(payload_size / BLOCK_SIZE) */
	const uint32_t *crcs; /* after decoding: in the receive buffer, host order */
	const void *payload;  /* likewise, or the memory that rx_buffer gave */
};

/* Writes the 64 bytes, CRC included. crc_count must be what payload_size says; what else the fields
 * hold is the sender's business, and judged by the decoder at the other end. */
void frame_encode_header(const struct frame *f, uint8_t ret_header[FRAME_HEADER_SIZE]);

/* Checks everything that the 64 bytes alone can tell. 0; -E_BAD_FRAME, -E_BAD_CRC, -E_WIRE_VERSION;
 * on failure *ret_frame is untouched. crcs and payload are set to NULL. Fields that the operation
 * does not use are passed on unjudged; a payload never exceeds the bound of its operation, a range
 * of blocks never IO_BLOCKS_MAX nor the largest chunk, and the version of a change is never 0. */
int frame_decode_header(const uint8_t header[FRAME_HEADER_SIZE], struct frame *ret_frame);

static inline uint16_t frame_crc_count(uint32_t payload_size)
{
	return (uint16_t)((payload_size + BLOCK_SIZE - 1) / BLOCK_SIZE);
}

/* CRCs of the pieces of any payload (the last may be short), and their check. */
void frame_payload_crcs(const void *payload, uint32_t payload_size, uint32_t *ret_crcs);
bool frame_payload_ok(const struct frame *f);

const char *frame_op_name(uint8_t op);

#endif
