/* The header codec: what decodes must encode to the same 64 bytes, and keep its bounds. Each input
 * is tried as it is, and with its checksum put right, because no fuzzer finds that by itself. What
 * follows the header is taken as CRCs and payload when it is long enough. */
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "net/frame/frame.h"
#include "tests/fuzz/fuzz.h"

static void check_payload(struct frame f, const uint8_t *data, size_t size)
{
	uint32_t crcs[FRAME_CRCS_MAX];
	const size_t before = 4u * f.crc_count;

	if (size < before + f.payload_size)
		return;
	memcpy(crcs, data, before);
	f.crcs = crcs;
	f.payload = data + before;
	(void)frame_payload_ok(&f);
	frame_payload_crcs(f.payload, f.payload_size, crcs);
	INVARIANT(frame_payload_ok(&f));
}

static void check(const uint8_t *header, const uint8_t *data, size_t size)
{
	uint8_t again[FRAME_HEADER_SIZE];
	struct frame f = {.op = 99};
	int rc = frame_decode_header(header, &f);

	INVARIANT(rc == 0 || rc == -E_BAD_FRAME || rc == -E_BAD_CRC || rc == -E_WIRE_VERSION);
	if (rc != 0) {
		INVARIANT(f.op == 99);
		return;
	}
	INVARIANT(f.crcs == NULL && f.payload == NULL);
	INVARIANT(f.payload_size <= (f.op == FRAME_CONTROL ? FRAME_CONTROL_MAX : FRAME_DATA_MAX));
	INVARIANT(f.crc_count <= FRAME_CRCS_MAX);
	INVARIANT(strcmp(frame_op_name(f.op), "unknown") != 0);
	frame_encode_header(&f, again);
	INVARIANT(memcmp(header, again, sizeof(again)) == 0);
	check_payload(f, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t header[FRAME_HEADER_SIZE];
	uint32_t crc;

	if (size < FRAME_HEADER_SIZE)
		return 0;
	memcpy(header, data, sizeof(header));
	check(header, data + sizeof(header), size - sizeof(header));
	crc = crc32c(0, header, 60);
	memcpy(header + 60, &crc, 4);
	check(header, data + sizeof(header), size - sizeof(header));
	return 0;
}
