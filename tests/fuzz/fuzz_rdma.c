/* The messages of the RDMA transport: what decodes keeps its bounds, and encodes to the same bytes.
 * Each input is tried as it is, and with its two checksums put right, which no fuzzer finds. */
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "net/rdma/message.h"
#include "tests/fuzz/fuzz.h"

static _Alignas(64) uint8_t bytes[RDMA_MESSAGE_MAX + 64];

static void check(uint32_t size)
{
	static _Alignas(64) uint8_t again[RDMA_MESSAGE_MAX];
	struct rdma_message m = {.kind = 99};
	uint8_t header[FRAME_HEADER_SIZE];
	uint64_t sum = 0;
	int rc = rdma_message_decode(bytes, size, &m);
	uint32_t fixed;

	INVARIANT(rc == 0 || rc == -E_BAD_FRAME || rc == -E_BAD_CRC || rc == -E_WIRE_VERSION);
	if (rc != 0) {
		INVARIANT(m.kind == 99);
		return;
	}
	INVARIANT(size <= RDMA_MESSAGE_MAX && m.segment_count <= RDMA_SEGMENTS_MAX);
	for (uint32_t i = 0; i < m.segment_count; i++)
		sum += m.segments[i].size_bytes;
	INVARIANT(m.kind != RDMA_PULL || sum == m.frame.payload_size);
	INVARIANT(m.kind != RDMA_FRAME || m.frame.payload_size <= TRANSPORT_COPY_MAX);
	INVARIANT(m.kind == RDMA_ACK || (const uint8_t *)m.frame.crcs <= bytes + size);
	if (m.kind != RDMA_ACK)
		frame_encode_header(&m.frame, header);
	fixed = rdma_message_encode(&m, header, again);
	INVARIANT(fixed <= size && memcmp(again, bytes, fixed) == 0);
}

static void seal(uint32_t size)
{
	const uint32_t segments = 16u * MIN(bytes[1], RDMA_SEGMENTS_MAX);
	uint32_t crc;

	if (size < RDMA_HEAD_SIZE + segments)
		return;
	if (size >= RDMA_HEAD_SIZE + segments + FRAME_HEADER_SIZE) {
		uint8_t *header = bytes + RDMA_HEAD_SIZE + segments;

		crc = crc32c(0, header, FRAME_HEADER_SIZE - 4);
		memcpy(header + FRAME_HEADER_SIZE - 4, &crc, 4);
	}
	memcpy(bytes + 8, &size, 4);
	crc = crc32c(0, bytes, 12);
	if (segments > 0)
		crc = crc32c(crc, bytes + RDMA_HEAD_SIZE, segments);
	memcpy(bytes + 12, &crc, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > sizeof bytes)
		return 0;
	memset(bytes, 0, sizeof bytes);
	memcpy(bytes, data, size);
	check((uint32_t)size);
	seal((uint32_t)size);
	check((uint32_t)size);
	return 0;
}
