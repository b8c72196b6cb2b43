/* frame: see frame.h and proto/FORMAT.md, "Wire".
 *
 * The image of the header is a packed struct of which every field lies on its natural boundary, so
 * that encoding and decoding are a copy of 64 bytes, one CRC and a handful of compares.
 *
 * Failure: a header is judged in the order magic, CRC, version, fields. The CRC comes before the
 * version, because every version keeps magic, version and CRC in these places: so a damaged version
 * byte is told from a peer that is newer than we are. */
#include "net/frame/frame.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"

#define CHUNK_BLOCKS_MAX (CHUNK_SIZE_MAX / BLOCK_SIZE)

/* Little-endian throughout. */
struct image {
	uint32_t magic;
	uint8_t wire_version;
	uint8_t op;
	uint16_t flags;
	uint64_t request_id;
	uint32_t chunk;
	uint32_t block;
	uint32_t block_count;
	uint32_t payload_size;
	uint64_t version;
	uint64_t watermark;
	uint32_t status;
	uint16_t crc_count;
	uint16_t reserved_a;
	uint32_t layer;
	uint32_t header_crc;
};

static_assert(sizeof(struct image) == FRAME_HEADER_SIZE, "the header is 64 bytes");
static_assert(offsetof(struct image, request_id) == 8, "FORMAT.md: request_id");
static_assert(offsetof(struct image, chunk) == 16, "FORMAT.md: chunk");
static_assert(offsetof(struct image, payload_size) == 28, "FORMAT.md: payload_size");
static_assert(offsetof(struct image, version) == 32, "FORMAT.md: version");
static_assert(offsetof(struct image, watermark) == 40, "FORMAT.md: watermark");
static_assert(offsetof(struct image, status) == 48, "FORMAT.md: status");
static_assert(offsetof(struct image, crc_count) == 52, "FORMAT.md: crc_count");
static_assert(offsetof(struct image, layer) == 56, "FORMAT.md: layer");
static_assert(offsetof(struct image, header_crc) == 60, "FORMAT.md: header_crc");
static_assert(FRAME_CRCS_MAX <= UINT16_MAX, "crc_count holds the largest payload");
static_assert(FRAME_DATA_MAX <= FRAME_CONTROL_MAX, "FRAME_CRCS_MAX bounds every operation");

void frame_encode_header(const struct frame *f, uint8_t ret_header[FRAME_HEADER_SIZE])
{
	struct image h = {
	    .magic = htole32(FRAME_MAGIC),
	    .wire_version = f->wire_version,
	    .op = f->op,
	    .flags = htole16(f->flags),
	    .request_id = htole64(f->request_id),
	    .chunk = htole32(f->chunk),
	    .block = htole32(f->block),
	    .block_count = htole32(f->block_count),
	    .payload_size = htole32(f->payload_size),
	    .version = htole64(f->version),
	    .watermark = htole64(f->watermark),
	    .status = htole32((uint32_t)f->status),
	    .crc_count = htole16(f->crc_count),
	    .layer = htole32(f->layer),
	};

	PRE(f->payload_size <= FRAME_CONTROL_MAX);
	PRE(f->crc_count == frame_crc_count(f->payload_size));
	h.header_crc = htole32(crc32c(0, &h, offsetof(struct image, header_crc)));
	memcpy(ret_header, &h, sizeof(h));
}

/* A range of blocks that one operation may cover, within the largest chunk there is. */
static bool range_ok(const struct frame *f)
{
	return f->block_count >= 1 && f->block_count <= IO_BLOCKS_MAX &&
	       (uint64_t)f->block + f->block_count <= CHUNK_BLOCKS_MAX;
}

static bool request_ok(const struct frame *f)
{
	const unsigned flags = f->flags & ~(unsigned)FRAME_F_TRACE;

	if (f->status != 0)
		return false;
	if ((flags & FRAME_F_SETTLE) != 0 && f->wire_version < FRAME_VERSION_SETTLE)
		return false;
	switch (f->op) {
	case FRAME_CONTROL:
		return f->flags == 0 && f->payload_size <= FRAME_CONTROL_MAX;
	case FRAME_WRITE:
		return (flags & ~(unsigned)FRAME_F_SETTLE) == 0 && range_ok(f) &&
		       version_seq(f->version) != 0 &&
		       f->payload_size == f->block_count * BLOCK_SIZE;
	case FRAME_READ:
		return flags == 0 && range_ok(f) && f->payload_size == 0;
	case FRAME_ZERO:
		return (flags & ~(unsigned)(FRAME_F_DISCARD | FRAME_F_SETTLE)) == 0 &&
		       range_ok(f) && version_seq(f->version) != 0 && f->payload_size == 0;
	case FRAME_WATERMARK:
		return f->flags == 0 && f->payload_size == 0;
	case FRAME_FETCH:
		return f->flags == 0 && f->block < CHUNK_BLOCKS_MAX && f->payload_size == 0;
	default:
		return false;
	}
}

static bool reply_ok(const struct frame *f)
{
	const unsigned flags = f->flags & ~(unsigned)FRAME_F_REPLY;

	if (f->status < 0 || f->status > FRAME_STATUS_MAX)
		return false;
	if (f->op == FRAME_CONTROL)
		return flags == 0 && f->payload_size <= FRAME_CONTROL_MAX;
	if (f->status != 0)
		return flags == 0 && f->payload_size == 0 && f->op >= FRAME_WRITE &&
		       f->op <= FRAME_FETCH;
	switch (f->op) {
	case FRAME_WRITE:
	case FRAME_ZERO:
		return (flags & ~(unsigned)FRAME_F_TRACE) == 0 && f->payload_size == 0;
	case FRAME_WATERMARK:
		return flags == 0 && f->payload_size == 0;
	case FRAME_READ:
		return (flags & ~(unsigned)FRAME_F_TRACE) == 0 && f->payload_size != 0 &&
		       f->payload_size <= FRAME_DATA_MAX && f->payload_size % BLOCK_SIZE == 0;
	case FRAME_FETCH:
		return (flags & ~(unsigned)FRAME_F_MORE) == 0 && f->block <= CHUNK_BLOCKS_MAX &&
		       f->payload_size <= FRAME_DATA_MAX;
	default:
		return false;
	}
}

int frame_decode_header(const uint8_t header[FRAME_HEADER_SIZE], struct frame *ret_frame)
{
	struct image h;
	struct frame f;

	memcpy(&h, header, sizeof(h));
	if (le32toh(h.magic) != FRAME_MAGIC)
		return -E_BAD_FRAME;
	if (le32toh(h.header_crc) != crc32c(0, &h, offsetof(struct image, header_crc)))
		return -E_BAD_CRC;
	if (h.wire_version < FRAME_VERSION_MIN || h.wire_version > FRAME_VERSION)
		return -E_WIRE_VERSION;
	f = (struct frame){
	    .wire_version = h.wire_version,
	    .op = h.op,
	    .flags = le16toh(h.flags),
	    .request_id = le64toh(h.request_id),
	    .chunk = le32toh(h.chunk),
	    .block = le32toh(h.block),
	    .block_count = le32toh(h.block_count),
	    .payload_size = le32toh(h.payload_size),
	    .version = le64toh(h.version),
	    .watermark = le64toh(h.watermark),
	    .status = (int32_t)le32toh(h.status),
	    .crc_count = le16toh(h.crc_count),
	    .layer = le32toh(h.layer),
	};
	if ((f.flags & ~FRAME_FLAGS_KNOWN) != 0 || h.reserved_a != 0)
		return -E_BAD_FRAME;
	if (f.layer != 0 && (f.op == FRAME_CONTROL || (f.flags & FRAME_F_REPLY) != 0))
		return -E_BAD_FRAME;
	if ((f.flags & FRAME_F_REPLY) != 0 ? !reply_ok(&f) : !request_ok(&f))
		return -E_BAD_FRAME;
	/* After the bound of the payload, which keeps the count from wrapping around. */
	if (f.crc_count != frame_crc_count(f.payload_size))
		return -E_BAD_FRAME;
	*ret_frame = f;
	return 0;
}

void frame_payload_crcs(const void *payload, uint32_t payload_size, uint32_t *ret_crcs)
{
	const uint32_t whole = payload_size / BLOCK_SIZE;
	const uint32_t rest = payload_size % BLOCK_SIZE;

	PRE(payload_size <= FRAME_CONTROL_MAX);
	crc32c_blocks(payload, whole, ret_crcs);
	if (rest != 0)
		ret_crcs[whole] =
		    crc32c(0, (const uint8_t *)payload + (size_t)whole * BLOCK_SIZE, rest);
}

bool frame_payload_ok(const struct frame *f)
{
	const uint32_t whole = f->payload_size / BLOCK_SIZE;
	const uint32_t rest = f->payload_size % BLOCK_SIZE;

	PRE(f->crc_count == frame_crc_count(f->payload_size));
	if (!crc32c_blocks_match(f->payload, whole, f->crcs))
		return false;
	return rest == 0 || crc32c(0, (const uint8_t *)f->payload + (size_t)whole * BLOCK_SIZE,
				   rest) == f->crcs[whole];
}

const char *frame_op_name(uint8_t op)
{
	switch (op) {
	case FRAME_CONTROL:
		return "control";
	case FRAME_WRITE:
		return "write";
	case FRAME_READ:
		return "read";
	case FRAME_ZERO:
		return "zero";
	case FRAME_WATERMARK:
		return "watermark";
	case FRAME_FETCH:
		return "fetch";
	default:
		return "unknown";
	}
}
