/* The index: which version of each block the store holds, and where. In memory, whole; a checkpoint
 * writes what is dirty to kv (checkpoint.h), recovery reads it back.
 *
 *   volume (id) -> fence
 *   chunk (volume, number) -> watermark, newest version, 64 leaves -> 256 pages -> 16 slots
 *   slot = location on the device, CRC, version
 *
 * Invariants:
 * 1. A chunk's newest is at least the version of each of its slots.
 * 2. Every object that changed since the last checkpoint captured it is in its dirty list, once.
 * 3. Nothing on the path of a write allocates: pages, leaves, chunks and volumes come from slabs,
 *    under a promise made before the write's group was submitted.
 * 4. A dead chunk (erased) is found by no look-up; its pages are buried bit by bit.
 *
 * The index knows nothing of segments: who changes a slot accounts for what it referred to. */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include "engine/store/format.h"
#include "engine/store/slab.h"

#define INDEX_LEAF_PAGES   256u
#define INDEX_CHUNK_LEAVES ((uint32_t)(CHUNK_SIZE_MAX / PAGE_SIZE_BYTES / INDEX_LEAF_PAGES))
#define INDEX_VOLUMES_MAX  65536u
#define INDEX_CHUNKS_MAX   (1u << 22)
#define INDEX_PAGES_SPARE  65536u /* on top of one a block of the device: for tombstones */
#define INDEX_PAGES_FLIGHT                                                                         \
	65536u /* on top of those: promised, for pages that are there already                      \
		*/

struct index_page {
	struct format_slot slots[PAGE_BLOCKS];
	struct index_chunk *chunk;
	page_no_t no;
	bool dirty;
	struct index_page *prev, *next; /* dirty list */
};

struct index_leaf {
	struct index_page *pages[INDEX_LEAF_PAGES];
};

struct index_chunk {
	struct index_chunk *hash_next;
	struct index_volume *volume;
	struct index_chunk *left, *right; /* the volume's treap, by number */
	chunk_no_t no;
	uint32_t priority;
	version_t watermark;
	version_t newest;
	bool dirty;
	bool dead;
	uint32_t holds; /* look-ups (lookup.h): while there are any it isn't buried */
	struct index_chunk *prev, *next; /* dirty list */
	struct index_chunk *grave_next;
	uint32_t bury_leaf; /* where burying goes on */
	uint32_t bury_page;
	struct index_leaf *leaves[INDEX_CHUNK_LEAVES];
};

struct index_volume {
	struct index_volume *hash_next;
	volume_id_t id;
	generation_t fence;	    /* in force */
	generation_t fence_durable; /* in the log, durably */
	bool dirty;
	struct index_volume *prev, *next; /* dirty list */
	struct index_chunk *chunks;	  /* treap */
};

struct index {
	struct slab pages, leaves, chunks, volumes;
	uint32_t pages_max;
	struct index_chunk **chunk_buckets;
	uint32_t chunk_bucket_count; /* a power of two */
	struct index_volume **volume_buckets;
	uint32_t volume_bucket_count;
	struct index_chunk *last_chunk; /* the one looked up last, or NULL */
	struct index_page *dirty_pages;
	struct index_chunk *dirty_chunks;
	struct index_volume *dirty_volumes;
	uint32_t dirty_page_count, dirty_chunk_count, dirty_volume_count;
	uint32_t chunk_count; /* that look-ups find */
	uint32_t volume_count;
	struct index_chunk *graves; /* dead chunks with pages left */
};

/* device_blocks bounds the pages. 0 or -ENOMEM. */
int index_init(struct index *ix, uint32_t device_blocks);
void index_deinit(struct index *ix);

/* Whether these blocks may get places: not where pages_max pages are in use and some of theirs
 * would be new. */
bool index_admits(struct index *ix, volume_id_t volume, chunk_no_t no, block_no_t block,
		  uint32_t block_count);

/* For `entries` entries which together touch up to `pages` pages. 0, -ENOMEM, -E_LIMIT. */
int index_promise(struct index *ix, uint32_t entries, uint32_t pages);
void index_release(struct index *ix, uint32_t entries, uint32_t pages);

/* NULL when there is none. */
struct index_volume *index_find_volume(const struct index *ix, volume_id_t id);
struct index_chunk *index_find_chunk(struct index *ix, volume_id_t volume, chunk_no_t no);

static inline struct index_page *index_find_page(const struct index_chunk *chunk, page_no_t no)
{
	const struct index_leaf *leaf = chunk->leaves[no / INDEX_LEAF_PAGES];

	return leaf != NULL ? leaf->pages[no % INDEX_LEAF_PAGES] : NULL;
}

/* Of a page that is there. */
static inline struct format_slot index_slot(const struct index_page *page, uint32_t i)
{
	return page->slots[i];
}

/* What is known of a block: version 0 for never written. Its page must be held by a look-up
 * (lookup.h). */
static inline struct format_slot index_find_slot(const struct index_chunk *chunk, block_no_t block)
{
	const struct index_page *page = index_find_page(chunk, block >> PAGE_SHIFT);

	return page != NULL ? index_slot(page, block % PAGE_BLOCKS) : (struct format_slot){0};
}

/* Found or made; under a promise: never NULL. */
struct index_volume *index_get_volume(struct index *ix, volume_id_t id);
struct index_chunk *index_get_chunk(struct index *ix, volume_id_t volume, chunk_no_t no);
struct index_page *index_get_page(struct index *ix, struct index_chunk *chunk, page_no_t no);

void index_dirty_page(struct index *ix, struct index_page *page);
void index_dirty_chunk(struct index *ix, struct index_chunk *chunk);
void index_dirty_volume(struct index *ix, struct index_volume *volume);
void index_clean_page(struct index *ix, struct index_page *page);
void index_clean_chunk(struct index *ix, struct index_chunk *chunk);
void index_clean_volume(struct index *ix, struct index_volume *volume);

/* The volume's first chunk with number >= from, or NULL. */
struct index_chunk *index_next_chunk(const struct index_volume *volume, chunk_no_t from);

/* From now on look-ups don't find the chunk; its pages wait to be buried. */
void index_kill_chunk(struct index *ix, struct index_chunk *chunk);

/* Takes up to max pages of dead chunks to their graves, as long as nobody holds them: each is given
 * to `each` first, which accounts for what its slots refer to. Returns false when no dead chunk is
 * left. */
bool index_bury(struct index *ix, uint32_t max, void (*each)(struct index_page *page, void *arg),
		void *arg);

/* Every live page, in no order; for recovery and checks. */
void index_each_page(const struct index *ix, void (*each)(const struct index_page *page, void *arg),
		     void *arg);

/* Every volume, in no order. */
void index_each_volume(const struct index *ix,
		       void (*each)(const struct index_volume *volume, void *arg), void *arg);

uint64_t index_memory_bytes(const struct index *ix);

#endif
