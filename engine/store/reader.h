/* Reads: straight from the disk into the caller's memory, then checked.
 *
 * A read is cut into runs of blocks that lie together on the disk, one I/O each, up to
 * READER_RUNS_PER_READ of them at a time. A run pins its segment, so that it is neither given out
 * again nor discarded under the read. Where a block lies is looked up when its run is submitted.
 *
 *   store_read -> LOOK-UP (lookup.h) -> RUNS (submit, verify; again until the end) -> done
 *                                        \-- no run left in the pool: waits, first come first
 *                                            served
 */
#ifndef STORE_READER_H
#define STORE_READER_H

#include "engine/store/item.h"

#define READER_RUNS_MAX	     512u /* in flight, of all reads */
#define READER_RUNS_PER_READ 16u

struct reader_run {
	struct disk_op op;
	struct store *store;
	struct store_read *read;
	struct reader_run *next_free;
	uint32_t first; /* block in the read */
	uint32_t count;
	uint32_t segment;
};

struct reader {
	struct reader_run *runs;
	struct reader_run *free;
	struct item_queue waiting;
};

int reader_init(struct store *store);
void reader_deinit(struct store *store);
void reader_submit(struct store *store, struct store_read *op);

#endif
