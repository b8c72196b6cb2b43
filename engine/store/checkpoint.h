/* Checkpoints: from time to time what changed in the index is written to kv in one atomic batch, on
 * a worker, never in the path of a write. It bounds recovery and what is dirty, and it alone makes
 * segments free.
 *
 *   IDLE --wanted--> SEGMENTS -> PAGES -> CHUNKS -> VOLUMES -> COMMIT -> IDLE
 *                    (some at a time, with turns in between)
 *   IDLE --room is wanted--> RELEASE -> IDLE
 *
 * It is the state of the moment at which it began, when the log was applied up to its position, and
 * perhaps beyond (blind.h).
 * While it collects the index goes on changing: what is about to change and belongs to it is
 * collected before (index_dirty_...). So the live counts in the records of the segments are exactly
 * those of the pages in kv, and recovery counts on from there with the groups after the position.
 *
 * Invariants:
 * 1. One at a time. What is dirty when it begins is in it, as it was.
 * 2. The states and live counts of the segments are those at its beginning; a segment that is empty
 *    then may be given out again when it is durable, for nothing durable refers to it any more.
 * 3. The pages of a dead chunk leave kv as they are buried: at the beginning of a checkpoint those
 *    below its mark do, and with the last of them the chunk's record (bury.h).
 * 4. Between two, segments that were sealed before the last one and have become empty since are
 *    released: their records alone are committed. The index in kv may still seek blocks there; the
 *    log after the checkpoint, of which nothing is in them, brings each of these to where it is
 *    now, or says that its chunk is dead. So that replaying counts right the record keeps the count
 *    of blocks that kv's pages seek there; and while dead chunks are buried again after a recovery
 *    a segment may count those of its former use besides its own: at most twice its blocks, for it
 *    is released again only when a checkpoint was durable in between.
 * 5. The log after the last durable one is never longer than `far` and the groups in flight: the
 *    streams wait (I8).
 *
 * Failure: a batch that cannot be committed ends all writing (store_fail): reads go on. */
#ifndef STORE_CHECKPOINT_H
#define STORE_CHECKPOINT_H

#include "engine/kv/kv.h"
#include "engine/store/format.h"
#include "engine/store/index.h"

#define CHECKPOINT_BYTES_MIN	(256 * MIB) /* of log, between two */
#define CHECKPOINT_BYTES_MAX	GIB
#define CHECKPOINT_DEVICE_DEN	4u /* between the two: a part of the device */
#define CHECKPOINT_INTERVAL_NS	(30 * NS_PER_S)
#define CHECKPOINT_DIRTY_PAGES	65536u
#define CHECKPOINT_STEP		64u /* objects put into the batch in one turn */
#define CHECKPOINT_PAUSE_NS	200000u
#define CHECKPOINT_RESERVED_MIN 16u /* segments listed as those that may be opened next */
#define CHECKPOINT_RESERVED_MAX 64u
#define CHECKPOINT_RELEASE_MIN	4u /* segments that are worth a commit, while there is room */
#define CHECKPOINT_FAR_FACTOR	2u /* of the distance at which one begins */

enum checkpoint_state {
	CHECKPOINT_IDLE,
	CHECKPOINT_SEGMENTS,
	CHECKPOINT_PAGES,
	CHECKPOINT_CHUNKS,
	CHECKPOINT_VOLUMES,
	CHECKPOINT_COMMIT,
	CHECKPOINT_RELEASE,
};

struct checkpoint_key {
	volume_id_t volume;
	chunk_no_t chunk;
};

struct checkpoint {
	enum checkpoint_state state;
	uint64_t bytes;		/* the bound of log_bytes */
	uint32_t reserved_goal; /* how many segments to list */
	uint64_t log_bytes;	/* written since the last one began */
	uint64_t covered_bytes; /* of the log, before that, after the last durable one */
	uint64_t log_total;	/* written since the store was opened */
	uint64_t behind_bytes;	/* of the log before the one under way began, not covered by it */
	uint64_t position[2];	/* of the streams: what it covers (blind.h) */
	bool covers;		/* one is durable since the store was opened: of that, when idle */
	bool dirty;		/* anything applied since then */
	bool wanted;		/* begin as soon as possible */
	bool room_wanted;	/* or release */
	uint64_t number;
	struct kv_batch *batch; /* being built, or NULL */
	struct kv_op op, release;
	struct reactor_timer step;     /* goes on collecting */
	struct reactor_timer interval; /* the longest time that anything stays dirty */
	uint32_t segment;	       /* the next record to collect */
	struct index_collector collector;
	struct checkpoint_key *buried; /* chunks to be deleted in kv by the next one */
	uint32_t buried_count, buried_max;
};

struct store;

int checkpoint_init(struct store *store, uint64_t bytes); /* 0 or -ENOMEM */
void checkpoint_deinit(struct store *store);

/* Begins one if there is a reason for it. */
void checkpoint_consider(struct store *store);

/* Begins one as soon as possible, whether or not there is a reason. */
void checkpoint_want(struct store *store);

/* As soon as possible makes segments that are empty free, in whichever way. */
void checkpoint_want_room(struct store *store);

/* Room for one more: 0 or -ENOMEM. */
int checkpoint_promise_buried(struct store *store);

/* A dead chunk's last page was buried: nothing of it may be left in kv. */
void checkpoint_note_buried(struct store *store, volume_id_t volume, chunk_no_t chunk);

/* Something was applied. */
void checkpoint_note_dirty(struct store *store);

/* The log after the last durable one is as long as it may be: nothing is written until the one
 * under way is durable. */
bool checkpoint_is_far(const struct store *store);

#endif
