/* crc32c: see crc32c.h. ISA-L's crc32_iscsi leaves the two inversions to the caller. */
#include "engine/base/crc32c.h"

#include <isa-l/crc.h>
#include <limits.h>

#include "engine/base/assert.h"

uint32_t crc32c(uint32_t crc, const void *data, size_t size_bytes)
{
	PRE(size_bytes <= INT_MAX);
	return ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size_bytes, ~crc);
}

void crc32c_blocks(const void *data, uint32_t block_count, uint32_t *ret_crcs)
{
	const uint8_t *p = data;

	for (uint32_t i = 0; i < block_count; i++)
		ret_crcs[i] = crc32c(0, p + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
}

bool crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs)
{
	const uint8_t *p = data;

	for (uint32_t i = 0; i < block_count; i++)
		if (crc32c(0, p + (size_t)i * BLOCK_SIZE, BLOCK_SIZE) != crcs[i])
			return false;
	return true;
}
