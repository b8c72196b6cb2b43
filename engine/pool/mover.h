/* The mover: takes chunks off devices that are being retired, one chunk at a time, while it is read
 * and written.
 *
 *   IDLE --a chunk lies on a RETIRING device--> RECORD (COPYING is durable)
 *     -> COPY: a sweep over what is in the chunk, then over what was changed meanwhile, again and
 * again
 *     -> DRAIN: little is left: changes are held, those under way end
 *     -> COPY (the rest) -> MARK (watermark) -> COMMIT (MOVED is durable)
 *     -> the chunk is the other device's: changes go on there
 *     -> QUIET (reads of the old copy end) -> ERASE (the old copy) -> CLEAR (the record goes) ->
 * IDLE
 *
 *   an error, or somebody erases the chunk: UNDO (the new copy is erased) -> CLEAR -> IDLE
 *
 * Invariants:
 * 1. Everything is copied with its version, by the store's own interface; newest wins. A block that
 *    the first sweep has passed, and that is not marked and not being copied, is the same on both.
 * 2. While the record says COPYING the new copy counts for nothing; when it says MOVED the old one
 *    does. Nothing is acknowledged on the new copy before MOVED is durable.
 * 3. What does not check is not moved: the chunk is stuck until scrub has repaired it.
 *
 * Failure: kv fails: the pool is broken, and takes no more changes, for it could not be told later
 * which copy they are on. A store fails: the chunk stays where it is. */
#ifndef POOL_MOVER_H
#define POOL_MOVER_H

#include "engine/kv/kv.h"
#include "engine/pool/records.h"

#define MOVER_BYTES_PER_S  (96 * MIB)
#define MOVER_SLOTS	   8u
#define MOVER_PIECE_BLOCKS 64u
#define MOVER_BLOCKS	   ((uint32_t)(CHUNK_SIZE_MAX / BLOCK_SIZE))
#define MOVER_HOLD_BLOCKS  128u /* with no more than these left, changes are held */
#define MOVER_SWEEPS_MAX   6u
#define MOVER_RETRY_NS	   (10 * NS_PER_S) /* stuck chunks are tried again */

enum mover_state {
	MOVER_IDLE,
	MOVER_RECORD,
	MOVER_LIST,
	MOVER_COPY,
	MOVER_DRAIN,
	MOVER_MARK,
	MOVER_COMMIT,
	MOVER_QUIET,
	MOVER_ERASE,
	MOVER_UNDO,
	MOVER_CLEAR,
};

struct pool;
struct pool_device;
struct route;

struct mover_slot {
	struct mover *mover;
	struct store_read read;
	struct store_write writes[MOVER_PIECE_BLOCKS];
	uint32_t crcs[MOVER_PIECE_BLOCKS];
	version_t versions[MOVER_PIECE_BLOCKS];
	uint8_t *data;
	uint32_t pending; /* the read, or writes; 0: free */
};

struct mover {
	struct pool *pool;
	enum mover_state state;
	bool waiting;	     /* for one operation: changes, watermark, erase or kv */
	bool held;	     /* changes of the chunk are held */
	bool give_up;	     /* somebody wants the chunk let go */
	bool paused;	     /* the pool is closing */
	int status;	     /* the first error of this chunk */
	struct route *route; /* NULL: IDLE */
	struct pool_device *from, *to;
	uint32_t bucket;		   /* where the search goes on */
	uint64_t dirty[MOVER_BLOCKS / 64]; /* a bit a block: changed since it was copied */
	uint32_t dirty_count;
	uint32_t sweeps;
	block_no_t cursor;    /* the sweep goes on here */
	uint32_t change;      /* of the list: being copied */
	uint32_t done_blocks; /* of that one */
	uint64_t next_ns;     /* not before: the throttle */
	uint8_t old_turn;
	struct store_changes_op changes_op;
	struct store_watermark_op watermark_op;
	struct store_erase_op erase_op;
	struct kv_op kv_op;
	struct reactor_task task;
	struct reactor_timer timer;
	struct mover_slot *slots;     /* MOVER_SLOTS; made when the first device is retired */
	struct store_change *changes; /* STORE_CHANGES_MAX */
};

void mover_init(struct pool *pool);
void mover_deinit(struct pool *pool);

/* There may be something to do. From anywhere: it runs later. */
void mover_kick(struct pool *pool);

/* A device is being retired: the search begins now, whatever it waits for. */
void mover_search(struct pool *pool);

/* A change of the chunk that is being moved has ended. */
void mover_note_change(struct pool *pool, block_no_t block, uint32_t block_count);

/* Lets go of the chunk, if it has one of this volume (chunk: or UINT32_MAX for any). True: it has,
 * and ops_release_erases is called when it has let go. */
bool mover_let_go(struct pool *pool, volume_id_t volume, chunk_no_t chunk);

/* Begins no other chunk, and gives up the one in hand. */
void mover_pause(struct pool *pool);

static inline bool mover_is_idle(const struct mover *m)
{
	return m->state == MOVER_IDLE;
}

#endif
