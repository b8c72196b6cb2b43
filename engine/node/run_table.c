/* run_table: see run_table.h. */
#include "engine/node/run_table.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"

#define RUN_ZEROES (1u << 31)

struct table_head {
	uint32_t magic;
	uint32_t run_count;
	uint64_t reserved;
};

struct table_run {
	uint32_t block;
	uint32_t block_count;
	uint64_t version;
};

static_assert(sizeof(struct table_head) == 16 && sizeof(struct table_run) == 16,
	      "FORMAT.md: run table");
static_assert(RUN_TABLE_BLOCKS_MAX <= RUN_TABLE_RUNS_MAX, "every block may be a run of its own");

void node_run_table_encode(const struct node_run *runs, uint32_t run_count, void *ret_block)
{
	const struct table_head head = {
	    .magic = htole32(RUN_TABLE_MAGIC),
	    .run_count = htole32(run_count),
	};
	uint8_t *p = ret_block;

	PRE(run_count <= RUN_TABLE_RUNS_MAX);
	memset(p, 0, BLOCK_SIZE);
	memcpy(p, &head, sizeof(head));
	for (uint32_t i = 0; i < run_count; i++) {
		const struct table_run run = {
		    .block = htole32(runs[i].block),
		    .block_count = htole32(runs[i].block_count | (runs[i].zeroes ? RUN_ZEROES : 0)),
		    .version = htole64(runs[i].version),
		};

		memcpy(p + sizeof(head) + i * sizeof(run), &run, sizeof(run));
	}
}

int node_run_table_decode(const void *payload, uint32_t payload_size, uint32_t chunk_blocks,
			  struct node_run *ret_runs, uint32_t *ret_run_count)
{
	const uint8_t *p = payload;
	struct table_head head;
	uint32_t count, end = 0, data_blocks = 0;

	if (payload_size < BLOCK_SIZE || payload_size % BLOCK_SIZE != 0)
		return -E_BAD_FRAME;
	memcpy(&head, p, sizeof(head));
	count = le32toh(head.run_count);
	if (le32toh(head.magic) != RUN_TABLE_MAGIC || head.reserved != 0 ||
	    count > RUN_TABLE_RUNS_MAX)
		return -E_BAD_FRAME;
	for (uint32_t i = 0; i < count; i++) {
		struct node_run *run = &ret_runs[i];
		struct table_run raw;

		memcpy(&raw, p + sizeof(head) + i * sizeof(raw), sizeof(raw));
		*run = (struct node_run){
		    .block = le32toh(raw.block),
		    .block_count = le32toh(raw.block_count) & ~RUN_ZEROES,
		    .version = le64toh(raw.version),
		    .zeroes = (le32toh(raw.block_count) & RUN_ZEROES) != 0,
		};
		if (run->block < end || run->block >= chunk_blocks || run->block_count == 0 ||
		    run->block_count > RUN_TABLE_BLOCKS_MAX ||
		    run->block_count > chunk_blocks - run->block || run->version == 0)
			return -E_BAD_FRAME;
		end = run->block + run->block_count;
		if (!run->zeroes)
			data_blocks += run->block_count;
	}
	for (uint32_t i = (uint32_t)sizeof(head) + count * (uint32_t)sizeof(struct table_run);
	     i < BLOCK_SIZE; i++)
		if (p[i] != 0)
			return -E_BAD_FRAME;
	if (payload_size != (1 + data_blocks) * BLOCK_SIZE)
		return -E_BAD_FRAME;
	*ret_run_count = count;
	return 0;
}
