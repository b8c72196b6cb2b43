/* The group header: what decodes keeps its bounds, its entries lie within chunks and their data,
 * without overlap, within the group; and it encodes to the same blocks. Each input is tried as it
 * is, and with its checksum put right. */
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/store/format.h"
#include "tests/fuzz/fuzz.h"

#define HEADER_BLOCKS_AT 7u
#define CRC_AT		 8u
#define SIZE_MAX_	 (FORMAT_GROUP_HEADER_MAX * BLOCK_SIZE)

static void check_entries(const struct format_group *g, const struct format_entry *entries)
{
	uint32_t data_next = 0;

	for (uint32_t i = 0; i < g->entry_count; i++) {
		const struct format_entry *e = &entries[i];

		INVARIANT(e->kind >= FORMAT_DATA && e->kind < FORMAT_KINDS && e->volume != 0);
		if (e->kind > FORMAT_DISCARD)
			continue;
		INVARIANT(e->block_count >= 1 && e->block_count <= IO_BLOCKS_MAX);
		INVARIANT((uint64_t)e->block + e->block_count <= CHUNK_SIZE_MAX / BLOCK_SIZE);
		INVARIANT(e->version != 0 && e->chunk != UINT32_MAX);
		if (e->kind != FORMAT_DATA)
			continue;
		INVARIANT((e->flags & FORMAT_FLAG_BAD) == 0 ||
			  (e->flags == (FORMAT_FLAG_BAD | FORMAT_FLAG_MOVE) &&
			   e->block_count == 1 && e->moved_from >= FORMAT_SEGMENTS_BLOCK));
		INVARIANT(e->data_first == data_next);
		data_next += e->block_count;
	}
	INVARIANT(data_next == g->data_blocks);
}

static void check(const uint8_t *blocks, size_t size)
{
	static struct format_entry entries[FORMAT_GROUP_ENTRIES_MAX];
	static uint32_t crcs[FORMAT_GROUP_DATA_MAX];
	static uint8_t again[SIZE_MAX_];
	struct format_group g = {.seq = 77}, g2;
	int rc = format_group_decode(blocks, size, &g);

	INVARIANT(rc == 0 || rc == -ENOSPC || rc == -E_CORRUPT);
	if (rc != 0) {
		INVARIANT(g.seq == 77);
		return;
	}
	INVARIANT(g.header_blocks >= 1 && (size_t)g.header_blocks * BLOCK_SIZE <= size);
	INVARIANT(g.entry_count >= 1 && g.entry_count <= FORMAT_GROUP_ENTRIES_MAX &&
		  g.data_blocks <= FORMAT_GROUP_DATA_MAX && g.seq > 0);
	format_group_entries(blocks, &g, entries, crcs);
	check_entries(&g, entries);
	format_group_encode(&g, entries, crcs, again);
	rc = format_group_decode(again, (size_t)g.header_blocks * BLOCK_SIZE, &g2);
	INVARIANT(rc == 0 && g2.seq == g.seq && g2.data_blocks == g.data_blocks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t blocks[SIZE_MAX_];
	uint32_t crc = 0;
	size_t covered;

	memset(blocks, 0, sizeof blocks);
	memcpy(blocks, data, size < sizeof blocks ? size : sizeof blocks);
	for (size_t have = BLOCK_SIZE; have <= sizeof blocks; have += BLOCK_SIZE)
		check(blocks, have);
	covered = (size_t)blocks[HEADER_BLOCKS_AT] * BLOCK_SIZE;
	if (covered == 0 || covered > sizeof blocks)
		return 0;
	memcpy(blocks + CRC_AT, &crc, sizeof crc);
	crc = crc32c(0, blocks, covered);
	memcpy(blocks + CRC_AT, &crc, sizeof crc);
	for (size_t have = BLOCK_SIZE; have <= sizeof blocks; have += BLOCK_SIZE)
		check(blocks, have);
	return 0;
}
