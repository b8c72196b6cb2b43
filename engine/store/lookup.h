/* Looking up: makes sure that pages of the index are in memory, and keeps them there while somebody
 * uses them. The index holds only some of its pages; the others lie in kv and are fetched by
 * workers. Whoever wants to know where blocks are begins a look-up of their range:
 *
 *   rc = lookup_begin(store, &lookup);	  0: they are here; 1: lookup.done follows
 *   ... index_find_chunk, index_find_slot, index_find_page of this range: nothing is missing ...
 *   lookup_end(store, &lookup);
 *
 * Between the two, pages of the range don't leave memory; their content may change, for writes go
 * on: what must be of one moment is read in one turn. The chunk may be erased meanwhile: then
 * index_find_chunk returns NULL, as for one that never was. Pages that did not exist may come, and
 * leave again: who goes on in a later turn asks lookup_slot, to which they are as they were.
 *
 * A page that was never written costs no look-up in kv, nor does one that is in memory: then the
 * answer is 0, at once.
 *
 * Who is going to change blocks says so (LOOKUP_WRITE): the chunk and the pages are made, so that
 * applying a group finds all that it needs and cannot fail. It waits for no page: one that is still
 * being read is blind until then (blind.h). So every operation passes here before it goes to the
 * log (item.h), and ends its look-up when it is applied:
 *
 *   begin --allowed--> (LOADING) --all here--> held --end-->
 *     |  ^
 *     v  |
 *   waits: an erase of the chunk is under way, or what was erased is not buried yet (gate);
 *	    too much is dirty, until a checkpoint is durable (writers; movers);
 *	    too much is held by readers, until some of it is let go (readers)
 *
 * Invariants:
 * 1. Who waits holds nothing that others could wait for.
 * 2. What is held by those that only read is at most index.held_max pages and one look-up's; what
 *    is dirty, not durable yet, blind, or held by writers is at most index.dirty_max and one
 *look-up's. Moves have INDEX_MOVES_MAX for themselves, as many as the cleaner makes at a time:
 *writers may be waiting for the space that they make.
 * 3. Who waited for an erase says nothing of what it erased: a write claims no watermark for the
 *copy that it begins anew, and a watermark alone gets -E_STALE_REPLICA.
 * 4. An erase goes to the log when no writer of its chunks has passed here and is not applied; from
 *    then until it is applied none passes. So of an erase and a write or move it is the same one
 *    that comes first in the log and in the index.
 *
 * Failure: a page that cannot be read, or does not check, fails those who asked for it (-EIO,
 * -E_CORRUPT), and nobody else; nothing is lost, it is tried again by whoever asks next. */
#ifndef STORE_LOOKUP_H
#define STORE_LOOKUP_H

#include "engine/kv/kv.h"
#include "engine/store/index.h"
#include "engine/store/item.h"

#define LOOKUP_FETCHES_MAX 64u /* pages being read from kv */

struct store;

enum lookup_kind {
	LOOKUP_READ,
	LOOKUP_WRITE, /* makes what isn't there; without blocks: the chunk only, for a watermark */
	LOOKUP_MOVE,  /* may change what is there */
	LOOKUP_BURY,  /* of the dead chunk `held` */
};

/* Embedded by its owner; lent from begin to end, or to a done with an error. */
struct lookup {
	/* Never from inside lookup_begin. 0, or why a page could not be read: then nothing is held,
	 * and lookup_end must not follow. */
	void (*done)(struct lookup *lookup, int status);
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t block_count; /* 1 to IO_BLOCKS_MAX; within the chunk; 0: LOOKUP_WRITE only */
	uint8_t kind;	      /* enum lookup_kind */

	uint8_t next_page; /* the module's from here on. LOADING: the first not seen loaded */
	bool counted;	   /* among the held pages */
	bool was_gated;	   /* it waited at the gate: what it was meant for is erased */
	uint32_t pinned;   /* a bit for each page of the range */
	struct index_page *first; /* the first one of these, while it is pinned */
	struct index_chunk *held; /* NULL: nothing is there */
	struct lookup *next;	  /* in the one queue that it is in */
};

/* The impl of an operation that looks pages up. */
struct item_op {
	struct item item;
	struct lookup lookup;
	struct store *store;
};
_Static_assert(sizeof(struct item_op) <= sizeof((struct store_write *)0)->impl, "room");
_Static_assert(sizeof(struct item_op) <= sizeof((struct store_read *)0)->impl, "room");
_Static_assert(sizeof(struct item_op) <= sizeof((struct store_watermark_op *)0)->impl, "room");
_Static_assert(sizeof(struct item_op) <= sizeof((struct store_changes_op *)0)->impl, "room");
_Static_assert(sizeof(struct item_op) <= sizeof((struct store_erase_op *)0)->impl, "room");
_Static_assert(sizeof(struct item_op) <= sizeof((struct store_wipe_op *)0)->impl, "room");

static inline struct item_op *item_op_of(struct item *item)
{
	return container_of(item, struct item_op, item);
}

struct lookup_queue {
	struct lookup *head, *tail;
};

struct lookup_fetch {
	struct kv_get_op op;
	struct store *store;
	struct index_page *page;
	struct lookup_fetch *next; /* free */
	uint8_t value[FORMAT_PAGE_VALUE_MAX];
};

struct lookups {
	struct lookup_fetch *fetches, *free;
	uint32_t in_flight;			      /* of these */
	struct index_page *wanted_head, *wanted_tail; /* pages that wait for one of these */
	struct lookup_queue gate, readers, writers, movers;
	struct lookup_queue failed;	   /* to be told: -ENOMEM */
	struct item_queue erases;	   /* wait for the writers of their chunks */
	uint32_t reading, writing, moving; /* pages held by look-ups of each kind */
	struct reactor_task retry;
	struct reactor_timer blind_retry; /* blind pages that could not be read are tried again */
	uint32_t blind_tries;		  /* in a row */
};

int lookups_init(struct store *store);
void lookups_deinit(struct store *store);

/* 0: the pages are here, until lookup_end. 1: done follows. Or, but not for LOOKUP_READ, an error
 * at once, and nothing is held: -ENOSPC (as many pages exist as may), -E_LIMIT (as many chunks),
 * -ENOMEM. */
int lookup_begin(struct store *store, struct lookup *lookup);
void lookup_end(struct store *store, struct lookup *lookup);

/* What is known of a block of the range: version 0 for never written when the look-up was done, or
 * erased since. */
struct format_slot lookup_slot(const struct store *store, const struct lookup *lookup,
			       block_no_t block);

/* The page of a block of the range: index_slot tells the same of each of its blocks. NULL: nothing
 * is there. Valid in this turn. */
const struct index_page *lookup_page(const struct store *store, const struct lookup *lookup,
				     block_no_t block);

/* The page of its first block, when it is held. */
static inline struct index_page *lookup_first_page(const struct lookup *lookup)
{
	return lookup->held != NULL && (lookup->pinned & 1) != 0 ? lookup->first : NULL;
}

/* While the store is being opened: begins to read the page, if it exists and is not in memory, so
 * that lookup_now finds it there. recovery_pages_read is called when all that was begun has ended.
 * A page that could not be read, or for which there was no memory, is not there. */
void lookup_ahead(struct store *store, struct index_chunk *chunk, page_no_t no);

/* The same, without waiting: for recovery, which reads kv where it stands. 0; -EBUSY: a dead chunk
 * is to be buried first; or why a page could not be read. */
int lookup_now(struct store *store, struct lookup *lookup);

/* An erase: goes to the log when it may. */
void lookup_submit_erase(struct store *store, struct item *item);

/* It is applied, or has failed. */
void lookup_erased(struct store *store, struct item *item);

/* What some may wait for has happened: a checkpoint is durable, a chunk is buried, writing has
 * ended (store->failed). */
void lookup_retry(struct store *store);

/* A blind page (blind.h) that was written to could not be read: it is tried again. */
void lookup_blind_failed(struct store *store);

/* Nothing waits, nothing is being read. */
bool lookups_are_idle(const struct store *store);

#endif
