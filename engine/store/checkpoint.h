/* Checkpoints: from time to time what changed in the index is written to kv in one atomic batch, on
 * a worker, never in the path of a write. It bounds recovery, and it alone makes segments free.
 *
 *   IDLE --wanted--> PAGES -> CHUNKS -> VOLUMES -> COMMIT -> IDLE
 *                    (some at a time, with turns in between)
 *
 * It is fuzzy: it covers the log up to the groups applied when it began (its position), and while
 * it collects the index goes on changing, so some of what it holds is newer. Recovery replays all
 * groups after the position, and replaying what is there already changes nothing.
 *
 * Invariants:
 * 1. One at a time. What is dirty when it begins is in it.
 * 2. The states of the segments are those at its beginning; a segment that is empty then may be
 * given out again when it is durable, for nothing durable refers to it any more.
 * 3. An erase that is applied while it collects is put into the batch at that place, so that it
 *    removes what was collected before, and not what comes after.
 *
 * Failure: a batch that cannot be committed ends all writing (store_fail): reads go on. */
#ifndef STORE_CHECKPOINT_H
#define STORE_CHECKPOINT_H

#include "engine/kv/kv.h"
#include "engine/store/format.h"

#define CHECKPOINT_BYTES	(256 * MIB) /* of log, between two */
#define CHECKPOINT_INTERVAL_NS	(30 * NS_PER_S)
#define CHECKPOINT_DIRTY_PAGES	65536u
#define CHECKPOINT_STEP		256u /* objects put into the batch in one turn */
#define CHECKPOINT_PAUSE_NS	50000u
#define CHECKPOINT_RESERVED_MIN 16u /* segments listed as those that may be opened next */
#define CHECKPOINT_RESERVED_MAX 64u
#define CHECKPOINT_ERASES_MAX	256u /* remembered until the next one; more only in recovery */

enum checkpoint_state {
	CHECKPOINT_IDLE,
	CHECKPOINT_PAGES,
	CHECKPOINT_CHUNKS,
	CHECKPOINT_VOLUMES,
	CHECKPOINT_COMMIT,
};

struct checkpoint_erase {
	volume_id_t volume;
	chunk_no_t chunk;
};

struct checkpoint {
	enum checkpoint_state state;
	uint64_t bytes;		/* the bound of log_bytes */
	uint32_t reserved_goal; /* how many segments to list */
	uint64_t log_bytes;	/* written since the last one began */
	bool dirty;		/* anything applied since then */
	bool wanted;		/* begin as soon as possible */
	uint64_t number;
	struct kv_batch *batch; /* being built, or NULL */
	struct kv_op op;
	struct reactor_timer step;     /* goes on collecting */
	struct reactor_timer interval; /* the longest time that anything stays dirty */
	uint32_t pages_left, chunks_left, volumes_left; /* to collect */
	struct checkpoint_erase *erases;		/* not in a batch yet */
	uint32_t erase_count, erase_max;
};

struct store;

int checkpoint_init(struct store *store, uint64_t bytes); /* 0 or -ENOMEM */
void checkpoint_deinit(struct store *store);

/* Begins one if there is a reason for it. */
void checkpoint_consider(struct store *store);

/* Begins one as soon as possible, whether or not there is a reason. */
void checkpoint_want(struct store *store);

/* Something was applied. */
void checkpoint_note_dirty(struct store *store);
/* Room for so many more, in recovery: while the store serves it is bounded. 0 or -ENOMEM. */
int checkpoint_expect_erases(struct store *store, uint32_t count);
void checkpoint_note_erase(struct store *store, volume_id_t volume, chunk_no_t chunk);

/* An erase must wait for the next checkpoint: too many since the last one. */
bool checkpoint_erases_full(const struct store *store);

#endif
