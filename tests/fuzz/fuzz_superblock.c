/* The superblock: what decodes keeps its bounds and encodes to the same block. Each input is tried
 * as it is, and with its checksum put right, because no fuzzer finds that by itself. */
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/store/format.h"
#include "tests/fuzz/fuzz.h"

#define CRC_AT 12u

static void check(const uint8_t *block)
{
	struct format_super super = {.segment_bytes = 77};
	uint8_t again[BLOCK_SIZE];
	int rc = format_super_decode(block, &super, NULL);

	INVARIANT(rc == 0 || rc == -ENOENT || rc == -E_CORRUPT);
	if (rc != 0) {
		INVARIANT(super.segment_bytes == 77);
		return;
	}
	INVARIANT(super.segment_bytes >= FORMAT_SEGMENT_BYTES_MIN &&
		  super.segment_bytes <= FORMAT_SEGMENT_BYTES_MAX && super.segment_count > 0 &&
		  super.shard_count > 0 && super.shard_count <= FORMAT_SHARDS_MAX);
	INVARIANT(memchr(super.node, '\0', sizeof super.node) != NULL);
	format_super_encode(&super, again);
	rc = format_super_decode(again, &super, NULL);
	INVARIANT(rc == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t block[BLOCK_SIZE] = {0};
	uint32_t crc = 0;

	memcpy(block, data, size < sizeof block ? size : sizeof block);
	check(block);
	memcpy(block + CRC_AT, &crc, sizeof crc);
	crc = crc32c(0, block, sizeof block);
	memcpy(block + CRC_AT, &crc, sizeof crc);
	check(block);
	return 0;
}
