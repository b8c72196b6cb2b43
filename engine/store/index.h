/* The index: which version of each block the store holds, and where. Volumes and chunks are in
 * memory, all of them; of the pages those that are dirty, those that somebody uses, and as many of
 * the others as the cache takes (store_config.cache_bytes). The rest lies in kv, where checkpoints
 * put it (checkpoint.h) and look-ups fetch it from (lookup.h): whoever wants to know where blocks
 * are begins a look-up first.
 *
 *   volume (id) -> fence
 *   chunk (volume, number) -> watermark, newest version, which pages exist (a bit a page)
 *   page (chunk, number) -> 16 slots: location on the device, CRC, version
 *
 * A page is one cell of memory (INDEX_CELL bytes) while its slots are one run: blocks one after the
 * other, of one version, in order on the device (or all zeroed, or all discarded). A page that is
 * anything else, or may be changed, takes two more cells.
 *
 *   absent --look-up--> LOADING --read--> RUN or FULL, clean <--collected-- dirty (FULL)
 *     ^                   \--error--> FAILED                 ---write----->
 *     +-- evicted: clean, in no checkpoint that isn't durable yet, not pinned
 *
 * A page that is LOADING or FAILED is blind once somebody wants to change it: it has all the cells
 * of a FULL one and one more, and takes what is written, as if nothing had been there. When it has
 * been read the two become one (blind.h); until then nobody reads it.
 *
 * Invariants:
 * 1. A chunk's newest is at least the version of each of its slots.
 * 2. Every object that changed since the last checkpoint captured it is in its dirty list, once.
 *    Who changes it says so before (index_dirty_...): what belongs to a checkpoint under way and is
 *    not collected yet is collected then, as it was; so a checkpoint is the state of one moment.
 * 3. What exists and is not in memory is in kv, as it was when it left memory.
 * 4. Nothing on the path of a write allocates but bulk: pages are made when they are looked up.
 * 5. A blind page that was written to is in the list of those, in the order of its first write, and
 *    stays in memory. It is not dirty.
 * 6. A dead chunk (erased) is found by no look-up; its pages are buried bit by bit (bury.h), and
 *    until then no new chunk takes its place.
 *
 * The index knows nothing of segments: who changes a slot accounts for what it referred to. */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include "engine/base/assert.h"
#include "engine/store/format.h"
#include "engine/store/slab.h"

#define INDEX_VOLUMES_MAX  (1u << 20) /* with a fence, which outlives its volume, or with chunks */
#define INDEX_CHUNKS_MAX   (1u << 22)
#define INDEX_PAGES_SPARE  65536u /* that may exist, on top of one a block: for tombstones */
#define INDEX_CELL	   104u	  /* bytes */
#define INDEX_PAGE_CELLS   3u
#define INDEX_DIRTY_MAX	   262144u /* pages, dirty or not durable yet; less with a small cache */
#define INDEX_HELD_MAX	   65536u  /* pages held by look-ups that only read; likewise */
#define INDEX_MOVES_MAX	   1024u   /* pages held by moves, on top of what may be dirty */
#define INDEX_LOOKUP_PAGES (IO_BLOCKS_MAX / PAGE_BLOCKS + 1) /* that one look-up may span */

/* How far the clock goes for one page that must leave: among so many buckets it finds one that was
 * not used lately, or takes one that was. */
#define INDEX_CLOCK_BUCKETS 64u

enum index_page_state { INDEX_LOADING, INDEX_FAILED, INDEX_RUN, INDEX_FULL };

struct index_page;
struct index_blind;

/* The two cells that a FULL page has besides its own. */
struct index_cell_a {
	version_t versions[12];
	union {
		struct index_page *next; /* dirty list */
		struct index_blind *blind;
	};
};

struct index_cell_b {
	uint32_t locations[PAGE_BLOCKS];
	version_t versions[PAGE_BLOCKS - 12];
	struct index_page *prev; /* dirty list */
};

/* The cell that a blind page has besides those of a FULL one. */
struct index_blind {
	struct lookup *waiters;
	struct index_page *wanted_next; /* as loading.next */
	struct index_page *page;
	struct index_blind *prev, *next; /* written to */
	uint64_t seqs[2];		 /* the streams' durable_seq before its first write */
	uint64_t log_at;		 /* checkpoint.log_total then */
	bool listed;
	uint8_t pad[INDEX_CELL - 8 * 8 - 8];
};

struct index_page {
	struct index_page *hash_next;
	struct index_chunk *chunk;
	uint16_t no;
	uint16_t pins;
	uint8_t state;
	uint8_t epoch; /* dirty: in which it became so; clean: in which it was collected */
	bool dirty : 1;
	bool blind : 1;
	bool used : 1; /* since the clock's hand passed */
	union {
		struct {
			version_t version;
			uint32_t location; /* of the first block */
			uint8_t first, count;
		} run;
		struct {
			struct index_cell_a *a;
			struct index_cell_b *b;
		} full; /* a blind one's too */
	};
	union {
		uint32_t crcs[PAGE_BLOCKS];
		struct {
			struct lookup *waiters;
			struct index_page *next; /* waits to be read */
		} loading;
	};
};
_Static_assert(sizeof(struct index_page) == INDEX_CELL, "a cell");
_Static_assert(sizeof(struct index_cell_a) == INDEX_CELL, "a cell");
_Static_assert(sizeof(struct index_cell_b) == INDEX_CELL, "a cell");
_Static_assert(sizeof(struct index_blind) == INDEX_CELL, "a cell");

struct index_chunk {
	struct index_chunk *hash_next;
	struct index_volume *volume;
	struct index_chunk *left, *right; /* the volume's treap, by number */
	chunk_no_t no;
	uint32_t priority;
	uint64_t hash; /* of volume and number: what its pages are found by */
	version_t watermark;
	version_t newest;
	bool dirty;
	uint8_t epoch;
	bool dead;
	uint32_t holds;			 /* look-ups that refer to it */
	uint32_t writers;		 /* of these, the ones that may change it */
	uint32_t erasures;		 /* of it, under way: no new writer begins */
	page_no_t buried;		 /* of a dead one: pages below are gone */
	struct index_chunk *prev, *next; /* dirty list */
	struct index_chunk *grave_next;
	struct format_leaf *leaves[FORMAT_CHUNK_LEAVES]; /* which pages exist; NULL: none */
};

struct index_volume {
	struct index_volume *hash_next;
	volume_id_t id;
	generation_t fence;	    /* in force */
	generation_t fence_durable; /* in the log, durably */
	uint32_t writers, erasures; /* as of a chunk */
	uint32_t chunk_count;	    /* dead ones too */
	bool dirty;
	uint8_t epoch;
	struct index_volume *prev, *next; /* dirty list */
	struct index_chunk *chunks;	  /* treap */
};

/* What belongs to the checkpoint under way is given to it before it changes. */
struct index_collector {
	void (*page)(struct index_collector *c, struct index_page *page);
	void (*chunk)(struct index_collector *c, struct index_chunk *chunk);
	void (*volume)(struct index_collector *c, struct index_volume *volume);
};

struct index {
	struct slab cells, leaves, chunks, volumes;
	struct index_collector *collector;
	uint64_t cells_max; /* the cache */
	uint64_t cells_used;
	uint32_t dirty_max, held_max; /* pages */
	uint64_t pages_max;	      /* that may exist */
	uint64_t page_count;	      /* that exist, in memory or not */
	uint64_t loaded_count;	      /* in memory */
	uint64_t evicted_count;	      /* so far */
	struct index_page **page_buckets;
	uint32_t page_bucket_count; /* a power of two */
	uint32_t clock_hand;	    /* bucket */
	struct index_chunk **chunk_buckets;
	uint32_t chunk_bucket_count; /* a power of two */
	struct index_volume **volume_buckets;
	uint32_t volume_bucket_count;
	struct index_chunk *last_chunk; /* the live one looked up last, or NULL */
	struct index_page *dirty_pages, *dirty_pages_tail;
	struct index_chunk *dirty_chunks;
	struct index_volume *dirty_volumes;
	uint32_t dirty_page_count, dirty_chunk_count, dirty_volume_count;
	struct index_blind *blinds; /* pages that were written to and are not read yet */
	uint32_t blind_count;	    /* of these */
	uint32_t collected_count;   /* pages in a checkpoint that isn't durable yet */
	uint8_t epoch;		    /* rises with every checkpoint */
	bool committing;	    /* the one of this epoch is not durable yet */
	uint32_t chunk_count;	    /* live ones */
	uint32_t volume_count;
	struct index_chunk *graves; /* dead chunks */
};

/* device_blocks bounds the pages; cache_bytes the memory of those that are not dirty or held. 0 or
 * -ENOMEM. */
int index_init(struct index *ix, uint32_t device_blocks, uint64_t cache_bytes,
	       struct index_collector *collector);
void index_deinit(struct index *ix);

/* From now on the memory is bounded. Before, while the log is replayed, pages that had it one after
 * the other need it at once: as much as the log after a checkpoint can make dirty. */
void index_limit(struct index *ix);

/* -- volumes and chunks ----------------------------------------------------------------------- */

/* NULL when there is none; a dead chunk is none. */
struct index_volume *index_find_volume(const struct index *ix, volume_id_t id);
struct index_chunk *index_find_chunk(struct index *ix, volume_id_t volume, chunk_no_t no);

/* A dead chunk has this place. */
bool index_is_dead(const struct index *ix, volume_id_t volume, chunk_no_t no);

/* Found or made. -ENOMEM, -E_LIMIT; a chunk: -EBUSY while a dead one has its place. */
int index_get_volume(struct index *ix, volume_id_t id, struct index_volume **ret_volume);
int index_get_chunk(struct index *ix, volume_id_t volume, chunk_no_t no,
		    struct index_chunk **ret_chunk);

/* The volume's first chunk with number >= from, or NULL. */
struct index_chunk *index_next_chunk(const struct index_volume *volume, chunk_no_t from);

/* From now on look-ups don't find the chunk; its pages wait to be buried. */
void index_kill_chunk(struct index *ix, struct index_chunk *chunk);

/* Of a dead chunk without pages, which nobody holds: it is gone, and so is its volume if this was
 * all that was known of it (index_settle_volume). */
void index_remove_chunk(struct index *ix, struct index_chunk *chunk);

/* Removes a volume that has no fence and no chunks and is not being erased: an erased layer's. */
void index_settle_volume(struct index *ix, struct index_volume *volume);

/* -- what exists ------------------------------------------------------------------------------ */

static inline bool index_page_exists(const struct index_chunk *chunk, page_no_t no)
{
	const struct format_leaf *leaf = chunk->leaves[no / FORMAT_LEAF_PAGES];

	no %= FORMAT_LEAF_PAGES;
	return leaf != NULL && (leaf->exists[no / 64] >> no % 64 & 1) != 0;
}

/* The first page >= from that exists, or UINT32_MAX. */
page_no_t index_next_page(const struct index_chunk *chunk, page_no_t from);

/* Recovery: a chunk's bits as they were stored. 0, -ENOMEM, -E_LIMIT. */
int index_set_leaf(struct index *ix, struct index_chunk *chunk, uint32_t leaf,
		   const struct format_leaf *exists);

/* -- pages ------------------------------------------------------------------------------------ */

/* In memory, in whatever state; or NULL. */
struct index_page *index_find_page(const struct index *ix, const struct index_chunk *chunk,
				   page_no_t no);

/* Begins to bring from memory what index_find_page will look at: first its bucket, then, when that
 * has come, the page. Changes nothing. */
void index_prefetch_bucket(const struct index *ix, const struct index_chunk *chunk, page_no_t no);
void index_prefetch_found(const struct index *ix, const struct index_chunk *chunk, page_no_t no);

/* A page that isn't in memory gets its place there, LOADING (write false) or empty and FULL. 0;
 * -ENOMEM. */
int index_make_page(struct index *ix, struct index_chunk *chunk, page_no_t no, bool write,
		    struct index_page **ret_page);

/* A LOADING page that isn't blind has been read: these are its slots. */
void index_fill_page(struct index *ix, struct index_page *page, const struct format_slot *slots);

/* A LOADING or FAILED page may be written to from now on. 0 or -ENOMEM. */
int index_blind_page(struct index *ix, struct index_page *page);

/* Of a blind page: puts it into the list, before its first write. */
void index_list_blind(struct index *ix, struct index_page *page);

/* A blind page has been read: these are its slots, whatever was written to it; it is FULL. */
void index_see_page(struct index *ix, struct index_page *page, const struct format_slot *slots);

static inline struct index_blind *index_blind_of(const struct index_page *page)
{
	INVARIANT(page->blind);
	return page->full.a->blind;
}

/* Makes a page fit to be changed. 0 or -ENOMEM. */
int index_widen_page(struct index *ix, struct index_page *page);

/* Takes as little memory for a clean page as its slots need. Not while it is pinned. */
void index_narrow_page(struct index *ix, struct index_page *page);

/* Out of memory: clean ones, or such as were never written. */
void index_drop_page(struct index *ix, struct index_page *page);

/* Out of the index: of a dead chunk, accounted for. It exists no more. */
void index_bury_page(struct index *ix, struct index_page *page);

/* Of a blind page: what was written to it. */
static inline struct format_slot index_slot(const struct index_page *page, uint32_t i)
{
	struct format_slot slot = {0};

	if (page->state == INDEX_FULL || page->blind) {
		const struct index_cell_a *a = page->full.a;
		const struct index_cell_b *b = page->full.b;

		slot.version = i < 12 ? a->versions[i] : b->versions[i - 12];
		slot.location = b->locations[i];
		slot.crc = page->crcs[i];
		return slot;
	}
	INVARIANT(page->state == INDEX_RUN);
	i -= page->run.first;
	if (i >= page->run.count)
		return slot;
	slot.version = page->run.version;
	slot.location = page->run.location;
	if (slot.location >= FORMAT_SEGMENTS_BLOCK)
		slot.location += i;
	slot.crc = page->crcs[i + page->run.first];
	return slot;
}

/* It is about to be changed. */
static inline void index_prefetch_page(const struct index_page *page)
{
	if (page->state != INDEX_FULL && !page->blind)
		return;
	__builtin_prefetch(page->full.a, 1);
	__builtin_prefetch((const uint8_t *)page->full.a + 64, 1);
	__builtin_prefetch(page->full.b, 1);
	__builtin_prefetch((const uint8_t *)page->full.b + 64, 1);
}

/* Of a page that is FULL, and dirty already; or blind, and in the list. */
static inline void index_set_slot(struct index_page *page, uint32_t i,
				  const struct format_slot *slot)
{
	INVARIANT(page->blind || (page->state == INDEX_FULL && page->dirty));
	if (i < 12)
		page->full.a->versions[i] = slot->version;
	else
		page->full.b->versions[i - 12] = slot->version;
	page->full.b->locations[i] = slot->location;
	page->crcs[i] = slot->crc;
}

/* What is known of a block: version 0 for never written. Its page must be held by a look-up
 * (lookup.h). */
struct format_slot index_find_slot(const struct index *ix, const struct index_chunk *chunk,
				   block_no_t block);

/* -- dirt ------------------------------------------------------------------------------------- */

/* Before the change. A page must be FULL. */
void index_dirty_page(struct index *ix, struct index_page *page);
void index_dirty_chunk(struct index *ix, struct index_chunk *chunk);
void index_dirty_volume(struct index *ix, struct index_volume *volume);

/* A checkpoint begins: what is dirty belongs to it. */
void index_begin_epoch(struct index *ix);

/* The next one that belongs to the checkpoint under way and is not collected; NULL: none. */
struct index_page *index_next_dirty_page(const struct index *ix);
struct index_chunk *index_next_dirty_chunk(const struct index *ix);
struct index_volume *index_next_dirty_volume(const struct index *ix);

/* It has been collected. */
void index_clean_page(struct index *ix, struct index_page *page);
void index_clean_chunk(struct index *ix, struct index_chunk *chunk);
void index_clean_volume(struct index *ix, struct index_volume *volume);

/* The checkpoint is durable. */
void index_end_epoch(struct index *ix);

/* -- all of it -------------------------------------------------------------------------------- */

/* Every page in memory that has slots, in no order; for checks. */
void index_each_page(const struct index *ix, void (*each)(const struct index_page *page, void *arg),
		     void *arg);

/* Dead chunks too. */
void index_each_chunk(const struct index *ix,
		      void (*each)(const struct index_chunk *chunk, void *arg), void *arg);

/* Every volume, in no order. */
void index_each_volume(const struct index *ix,
		       void (*each)(const struct index_volume *volume, void *arg), void *arg);

uint64_t index_memory_bytes(const struct index *ix);

#endif
