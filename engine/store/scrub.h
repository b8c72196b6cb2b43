/* The scrub: reads everything that is live again, segment by segment, within a set period, and
 * compares it with the CRCs in the index. So a block that went bad in silence, was written to the
 * wrong place, or never, is found while there are good copies elsewhere.
 *
 *   WAITING --time for a pass, or asked for--> READING --segment's end--> READING the next ... -->
 *      ^                                         |   ^                                         |
 *      |                        a header is bad  v   | all of the index seen                   |
 *      |                                      SEARCHING                                        |
 *      +----------------------------- all segments done ---------------------------------------+
 *
 * READING: the groups of a segment, as the cleaner reads them; each block that the index still
 * refers to is checked. SEARCHING: under a header that does not check lie blocks that only the
 * index can name; they are good perhaps, but neither the cleaner nor a rebuilding of the index
 * would find them, so they count as damaged.
 *
 * Damage (bad blocks, found by the scrub, by reads and by the cleaner) is kept in a list of up to
 * FORMAT_DAMAGE_MAX blocks, here and in kv. Nothing is repaired here: the attached host, told by
 * the node, writes the blocks again under a new version with the content of another replica; then
 * the index no longer refers to the damaged place, and the block leaves the list. What finds no
 * room in the list is found again by the next pass.
 *
 * How fast: so that a pass takes four fifths of the period, at least SCRUB_RATE_MIN, at most
 * SCRUB_RATE_MAX; a pass that was asked for takes SCRUB_RATE_MAX. One read at a time; while clients
 * are at work a read waits until it is late by several of its turns. A period that asks for more is
 * not kept, and that is told: in the log with each pass, and in the statistics (needed_rate over
 * max_rate). The rate is not raised for it: how much of a device is taken from clients, in the
 * worst case, is not to depend on how much is stored; whoever chose the period can choose a longer
 * one.
 *
 * Kept in kv, now and then: the position (a segment), the counters, the list. */
#ifndef STORE_SCRUB_H
#define STORE_SCRUB_H

#include "engine/store/item.h"
#include "engine/store/lookup.h"

#define SCRUB_RATE_MIN	   (1u << 20)  /* bytes a second */
#define SCRUB_RATE_MAX	   (64u << 20) /* bytes a second */
#define SCRUB_RATE_SHARED  (8u << 20)  /* asked for, while clients are at work */
#define SCRUB_READ_BLOCKS  64u	       /* of one read */
#define SCRUB_WINDOW	   (FORMAT_GROUP_BLOCKS_MAX + SCRUB_READ_BLOCKS)
#define SCRUB_LATE_NS	   (100 * NS_PER_MS) /* a read waits so long for clients */
#define SCRUB_YIELD_NS	   (5 * NS_PER_MS)
#define SCRUB_SAVE_NS	   (30 * NS_PER_S) /* between two records in kv */
#define SCRUB_SEARCH_NS	   (2 * NS_PER_MS)
#define SCRUB_LOOK_NS	   NS_PER_S /* whether damage was repaired */
#define SCRUB_RANGES_MAX   16u	    /* damaged headers of a segment; more are taken together */
#define SCRUB_PERIOD_MAX_S (10u * 365 * 86400)

enum scrub_state { SCRUB_WAITING, SCRUB_READING, SCRUB_SEARCHING };

struct scrub_range {
	uint32_t from, to; /* blocks of the segment */
};

struct scrub {
	enum scrub_state state;
	uint64_t period_ns; /* 0: only when asked for */
	struct format_scrub kept;
	bool wanted; /* a pass was asked for, and has not begun */
	bool dirty;  /* kept is not in kv */
	bool saving;
	uint64_t saved_ns;
	struct kv_op save;

	/* Of the pass. */
	uint64_t total_bytes, done_bytes;
	uint64_t began_ns, began_bytes; /* in this process: for the rate */
	uint64_t due_ns;
	uint32_t read_blocks; /* by the last read */

	/* Of the segment. */
	bool in_segment;
	uint32_t epoch;
	uint32_t end;	     /* blocks of it to be read */
	uint32_t first;	     /* block of the segment that the window begins with */
	uint32_t count;	     /* blocks in the window */
	uint32_t one_by_one; /* a read failed: up to this block they are read singly */
	uint32_t range_count;
	struct scrub_range ranges[SCRUB_RANGES_MAX]; /* where headers should be */
	struct disk_op op;
	bool reading, looking_up;
	struct lookup lookup;
	uint8_t *window; /* SCRUB_WINDOW blocks */

	/* Of the group that is being checked: it begins at block `at` of the window. */
	uint32_t at;
	uint32_t header_blocks, group_blocks;
	uint32_t entry, entry_count;
	struct format_entry entries[FORMAT_GROUP_ENTRIES_MAX];
	uint32_t entry_crcs[FORMAT_GROUP_DATA_MAX];

	/* SEARCHING: what is looked up next. */
	volume_id_t search_volume;
	chunk_no_t search_chunk;
	block_no_t search_block;

	/* Whether damage was repaired: entry `looked` of the list is looked up. */
	uint32_t looked;
	bool looking;
	struct lookup look_lookup;

	struct reactor_timer step, look;
	struct reactor_task *watcher; /* lent: store_watch_damage */
};

int scrub_init(struct store *store);
void scrub_deinit(struct store *store);

/* From kv, when opening. -E_CORRUPT. */
int scrub_load(struct store *store, const void *value, size_t size);

/* The store serves; ends. */
void scrub_start(struct store *store);
void scrub_stop(struct store *store);
bool scrub_is_idle(const struct store *store);

/* The index refers to a block that does not check. */
void scrub_note_damage(struct store *store, volume_id_t volume, chunk_no_t chunk, block_no_t block,
		       uint32_t location);

/* Whether that is known. True also when the list has no room for it. */
bool scrub_knows_damage(const struct store *store, volume_id_t volume, chunk_no_t chunk,
			block_no_t block, uint32_t location);

/* The entry's block is as damaged in another place now (FORMAT_FLAG_BAD). */
void scrub_damage_moved(struct store *store, const struct format_entry *entry, uint32_t location);

void scrub_get_stats(const struct store *store, struct store_scrub_stats *ret_stats);

#endif
