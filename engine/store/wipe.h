/* Wiping: what was erased goes from the device itself (store.h, store_wipe).
 *
 *   IDLE --asked--> BURYING --nothing waits to be buried--> MARKING --every segment looked at-->
 *   EMPTYING --no segment is marked any more--> IDLE, told
 *
 * MARKING: a segment in which anything of the chunks may lie (segment.h, traces) is marked; one
 * that is being written is left by its stream. A segment that is EMPTYING:
 *
 *   SEALED, live --cleaner--> SEALED, empty --checkpoint--> FREE or RESERVED --zeroes, durable, or
 *   a discard--> not marked
 *
 * Invariants:
 * 1. A segment is overwritten only when a durable checkpoint says that nothing in it counts
 *    (segment.h, 3), nobody reads it, and no stream can open it: marked ones are not opened.
 * 2. What is written after MARKING holds nothing of what was erased: nobody refers to it, and a
 *    move of what nothing refers to is not written (cleaner.c).
 * 3. Traces are forgotten when the zeroes are durable. So after a crash the same segments are found
 *    again, but for those that are done.
 *
 * Who asks meanwhile waits for the next turn, which is for all of them. While there is hardly any
 * space segments that give some when they are emptied are taken first; the moves may use the
 * reserve. Clients are not slowed down: the cleaner makes pauses as always.
 *
 * Failure: a segment that cannot be overwritten, or has a damaged block that somebody needs, is
 * passed over, and those who asked get the error: it is not erased. A store that has failed:
 * its failure. */
#ifndef STORE_WIPE_H
#define STORE_WIPE_H

#include "engine/store/item.h"

#define WIPE_PIECE_BYTES (64 * KIB) /* of zeroes; a write repeats them */
#define WIPE_WRITE_BYTES (1 * MIB)
#define WIPE_CHECKS	 16384u /* keys compared with segments in one turn */
#define WIPE_PAUSE_NS	 50000u
#define WIPE_LOOK_NS	 (5 * NS_PER_MS) /* for reads, groups and the like to end */

enum wipe_state { WIPE_IDLE, WIPE_BURYING, WIPE_MARKING, WIPE_EMPTYING };

struct wipe {
	enum wipe_state state;
	struct item_queue waiting, turn; /* of store_wipe_op */
	int status;			 /* the first error of the turn */
	bool stopping;			 /* the turn ends with -ECANCELED */
	uint32_t marked;		 /* segments */
	uint32_t to_clean;		 /* of these, for the cleaner, when it was last looked */
	uint32_t next;			 /* MARKING: the segment to look at */
	bool busy;			 /* op is under way */
	uint32_t segment, offset;	 /* being wiped; bytes of it that are */
	struct disk_op op;
	void *zeroes; /* WIPE_PIECE_BYTES */
	struct iovec iovs[WIPE_WRITE_BYTES / WIPE_PIECE_BYTES];
	struct reactor_timer timer;
};

int wipe_init(struct store *store); /* 0 or -ENOMEM */
void wipe_deinit(struct store *store);

void wipe_submit(struct store *store, struct item *item);

/* Something that it waits for may have happened. */
void wipe_kick(struct store *store);

/* No I/O in flight. */
bool wipe_is_idle(const struct store *store);

#endif
