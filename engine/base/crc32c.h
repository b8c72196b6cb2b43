/* CRC32C (Castagnoli, RFC 3720 appendix B.4), by ISA-L. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/types.h"

/* crc: 0 to start, or the result so far. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size_bytes);

/* One CRC for each block of data; ret_crcs has block_count places. */
void crc32c_blocks(const void *data, uint32_t block_count, uint32_t *ret_crcs);

/* True when every block's CRC is the one given. */
bool crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs);

/* The CRC of a block of zeroes. */
#define CRC32C_ZERO_BLOCK 0x98f94189u

#endif
