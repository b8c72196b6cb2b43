/* The payload of a FETCH reply: one block that is a table of runs, then the blocks of the runs in
 * order, but for runs of zeroes, which have none. So the frame's CRCs from the second on are those
 * of the blocks as they were stored, and go with them all the way.
 *
 *   0  u32 magic "PVRT" | 4  u32 run_count | 8  u64 0 | 16  run_count x 16 bytes | zeroes to 4096
 *   run:  0  u32 block | 4  u32 block_count; bit 31: zeroes | 8  u64 version
 *
 * Numbers are little-endian. Runs are in the order of their blocks, do not overlap, lie within the
 * chunk, and have at least one block and a version that is not 0. A codec without state or I/O. */
#ifndef NODE_RUN_TABLE_H
#define NODE_RUN_TABLE_H

#include "engine/base/types.h"

#define RUN_TABLE_MAGIC	     0x54525650u
#define RUN_TABLE_BLOCKS_MAX (IO_BLOCKS_MAX - 1)
#define RUN_TABLE_RUNS_MAX   ((BLOCK_SIZE - 16u) / 16u)

struct node_run {
	block_no_t block;
	uint32_t block_count;
	version_t version;
	bool zeroes;
};

/* Fills the table's block. run_count <= RUN_TABLE_RUNS_MAX. */
void node_run_table_encode(const struct node_run *runs, uint32_t run_count, void *ret_block);

/* payload_size is what the frame said; chunk_blocks: blocks in a chunk of the volume. Gives up to
 * RUN_TABLE_RUNS_MAX runs. 0 or -E_BAD_FRAME. */
int node_run_table_decode(const void *payload, uint32_t payload_size, uint32_t chunk_blocks,
			  struct node_run *ret_runs, uint32_t *ret_run_count);

#endif
