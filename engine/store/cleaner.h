/* The cleaner: makes whole segments free again by moving what is live in them to the cold stream.
 *
 *   IDLE --space is low, victim found--> READING --read and parsed--> MOVING --all moved--> IDLE
 *
 * READING: the victim is read in large pieces, and its groups parsed; what the index still refers
 * to is noted, one entry after the other, each after its pages were looked up. MOVING: sorted by
 * volume, chunk and block, so that what was scattered lies together again, it is given to the cold
 * stream bit by bit, under its original versions. A block that was written meanwhile keeps its new
 * place: a move holds only where the index still has the old location. The victim is then empty,
 * and the next checkpoint makes it free (segment.h).
 *
 * Which one: first what an erasure wants emptied (wipe.h). Then by benefit and cost, (1 - u) / (1 +
 * u) for the share u that is live, times the root of its age: what is old and still live will stay
 * so, what is young may soon be garbage by itself. The full age would be too much of it for writes
 * without locality (bench/aging; engine/ARCHITECTURE.md has the figures). Only the emptiest when
 * space is tight. One in which nothing can be gained is never taken, so it comes to rest.
 *
 * How fast: while space allows, two small reads or one group at a time, with pauses that shrink as
 * space does, and none while no client asks for anything. When space is tight CLEANER_READS_MAX
 * reads or CLEANER_DEPTH_BLOCKS of moves are in flight, and clients pay: each of their groups costs
 * credit, which is earned bit by bit by what moving will free, or, for an erasure, by the moving
 * alone. I/O is in pieces of 128 and 256 KiB, so that none of a client's waits long behind them;
 * its write does so twice, for the flush comes after it.
 *
 * Failure: what can not be read or does not check stays where it is, and all else in the segment
 * with it; it is stuck, and not taken again until it is empty by itself, or something in it was
 * repaired; or, where something could not be read at all, here or in the index, when there is
 * nothing else to gain, CLEANER_RETRY_NS later. (To move the rest would take room and give none:
 * many damaged segments would leave none even for fences and erasures.) Only for an erasure, and
 * when it was read so before, a block that does not check moves nevertheless: not what lies there,
 * which may be anything, but that it should have this CRC and has not (FORMAT_FLAG_BAD). So what is
 * erased does not wait for another's repair, and a read of the block fails until it is repaired. */
#ifndef STORE_CLEANER_H
#define STORE_CLEANER_H

#include "engine/store/item.h"
#include "engine/store/lookup.h"
#include "engine/store/wlog.h"

#define CLEANER_READ_BYTES   (128u * 1024)
#define CLEANER_READS	     2u /* in flight, so that the disk has one while the other is parsed */
#define CLEANER_READS_MAX    4u /* when space is tight */
#define CLEANER_STEP_BLOCKS  WLOG_COLD_SHARE /* moved at a time: a group */
#define CLEANER_DEPTH_BLOCKS (4 * CLEANER_STEP_BLOCKS)
#define CLEANER_PAUSE_MAX_NS (NS_PER_MS / 2)
#define CLEANER_RETRY_NS     (10 * NS_PER_S)

enum cleaner_state { CLEANER_IDLE, CLEANER_READING, CLEANER_MOVING };

struct cleaner_block {
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	version_t version;
	uint32_t location;
	uint32_t crc;
	bool bad;
};

struct store;

/* A piece of the victim on its way into the buffer. */
struct cleaner_read {
	struct disk_op op;
	struct cleaner *cleaner;
	uint32_t blocks;
	bool complete;
	int status;
};

/* Blocks that lie together and go to another place under the version that they have: the cleaner's,
 * and the tidier's (tidy.h). */
struct cleaner_move {
	struct item_op op;
	struct cleaner_move *next; /* free, or looked up and waiting for the others */
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t count;
	version_t version;
	uint32_t location; /* where its first block was; the others follow */
	const uint8_t *data;
	const uint32_t *crcs;
	bool bad; /* its data are not what its CRC says */
	void (*done)(struct store *store, struct cleaner_move *m, int status);
};

struct cleaner {
	enum cleaner_state state;
	bool starving; /* space is low, but there is nothing to gain */
	uint32_t reads_in_flight;
	uint32_t moves_in_flight, blocks_in_flight;
	uint32_t moves_looking; /* of these: their pages are being looked up */
	struct cleaner_move *moves_here, *moves_here_tail; /* these wait for them, in order */
	uint32_t victim;
	uint32_t end;			   /* blocks of it that were written */
	uint32_t read_next;		   /* blocks that were asked for */
	uint32_t read_end;		   /* blocks that are in the buffer, without a gap */
	uint32_t reads_begun, reads_taken; /* counted; reads is a ring of those between */
	uint32_t parsed;		   /* blocks that were looked at */
	bool damaged;			   /* something does not check, or could not be read */
	bool unread;			   /* it, or the index: that may pass */
	uint64_t retry_ns;		   /* what is stuck for that is not tried again before */
	struct cleaner_read reads[CLEANER_READS_MAX];
	uint8_t *buffer; /* a segment; registered, for all that is cleaned passes it */
	size_t buffer_bytes;
	uint32_t base;		      /* the device's block of its first block */
	struct cleaner_block *blocks; /* found live; a segment's at most */
	uint32_t *crcs;		      /* of blocks, once sorted */
	uint32_t block_count;
	uint32_t next;					       /* of blocks, to be moved */
	struct format_entry entries[FORMAT_GROUP_ENTRIES_MAX]; /* of the group being parsed */
	uint32_t entry_crcs[FORMAT_GROUP_DATA_MAX];
	uint32_t entry_count, entry;	    /* of these, and which is next */
	uint32_t data_block;		    /* the device's, of the group's first data */
	bool looking_up;		    /* lookup is under way */
	struct lookup lookup;		    /* of the entry */
	uint64_t gain_reading, gain_moving; /* blocks that are free when the victim is (for an
					     * erasure: that are emptied): the credit
					     * for it is earned in both, so that clients do not
					     * stop while it is read */
	uint64_t clients_seen;		    /* operations of clients when it last looked */
	struct cleaner_move moves[CLEANER_DEPTH_BLOCKS];
	struct cleaner_move *moves_free;
	struct reactor_timer pause;
};

int cleaner_init(struct store *store);
void cleaner_deinit(struct store *store);

/* Space may be low: looks whether there is something to do. */
void cleaner_kick(struct store *store);

/* Nothing in flight. */
bool cleaner_is_idle(const struct store *store);

/* -- for the log ------------------------------------------------------------------------------ */

void cleaner_describe(const struct item *item, struct format_entry *ret_entry,
		      const uint8_t **ret_data, const uint32_t **ret_crcs);

/* A move begins: its pages are looked up, then it goes to the cold stream; done follows. */
void cleaner_begin_move(struct store *store, struct cleaner_move *m);

/* Where a block of a move was. */
uint32_t cleaner_moved_from(const struct item *item, block_no_t block);
void cleaner_moved(struct store *store, struct item *item, int status);

/* May a group with data be written to this stream now? If not, the cleaner kicks the pump later. */
bool cleaner_lets_write(struct store *store, uint8_t stream);

/* A group with so many blocks is written: for credit, unless there is nothing to gain. */
void cleaner_charge(struct store *store, uint8_t stream, uint32_t blocks);

#endif
