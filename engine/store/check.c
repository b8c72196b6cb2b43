/* check: see check.h. */
#include "engine/store/check.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/err.h"
#include "engine/store/core.h"

struct check {
	struct store *store;
	uint32_t *live;	   /* a segment */
	uint32_t *blind;   /* of these */
	uint8_t *seen;	   /* a bit a block of the device */
	uint64_t pages;	   /* that were found */
	uint64_t existing; /* that chunks say exist */
	struct error *err;
	int rc;
};

/* Of a dead chunk: its blocks are counted until they are buried, and their places may be in use
 * again (checkpoint.h, 4). */
static void count_dead(struct check *c, const struct format_slot *slots)
{
	const struct segments *t = &c->store->segments;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		if (format_slot_has_data(&slots[i]) && segments_of(t, slots[i].location) < t->count)
			c->live[segments_of(t, slots[i].location)]++;
}

static void check_slots(struct check *c, const struct index_chunk *chunk, page_no_t no,
			const struct format_slot *slots)
{
	const struct segments *t = &c->store->segments;

	c->pages++;
	if (chunk->dead) {
		count_dead(c, slots);
		return;
	}
	for (uint32_t i = 0; i < PAGE_BLOCKS && c->rc == 0; i++) {
		uint32_t location = slots[i].location;
		uint32_t segment;

		if (slots[i].version > chunk->newest)
			c->rc = error_set(c->err, -E_CORRUPT,
					  "chunk %u page %u block %u is newer than its chunk",
					  chunk->no, no, i);
		if (!format_slot_has_data(&slots[i]))
			continue;
		segment = segments_of(t, location);
		if (segment >= t->count || (t->array[segment].state != SEGMENT_OPEN &&
					    t->array[segment].state != SEGMENT_SEALED)) {
			c->rc = error_set(c->err, -E_CORRUPT,
					  "chunk %u page %u block %u lies in segment %u, state %d",
					  chunk->no, no, i, segment,
					  segment < t->count ? t->array[segment].state : -1);
			return;
		}
		if ((c->seen[location / 8] & 1u << location % 8) != 0)
			c->rc =
			    error_set(c->err, -E_CORRUPT, "two slots refer to block %u", location);
		c->seen[location / 8] = (uint8_t)(c->seen[location / 8] | 1u << location % 8);
		c->live[segment]++;
		if (!segment_may_hold(&t->array[segment], chunk->volume->id, chunk->no))
			c->rc = error_set(c->err, -E_CORRUPT,
					  "segment %u has no trace of chunk %u page %u block %u",
					  segment, chunk->no, no, i);
	}
}

static void check_loaded(const struct index_page *page, void *arg)
{
	struct check *c = arg;
	struct format_slot slots[PAGE_BLOCKS];

	if (!index_page_exists(page->chunk, page->no))
		return; /* made for a write that is under way */
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] = index_slot(page, i);
	check_slots(c, page->chunk, page->no, slots);
}

/* What was written to pages that are not read yet; as kv has them they were counted. */
static void check_blind(struct check *c)
{
	const struct segments *t = &c->store->segments;

	for (const struct index_blind *b = c->store->index.blinds; b != NULL; b = b->next) {
		struct format_slot slots[PAGE_BLOCKS];

		for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
			slots[i] = index_slot(b->page, i);
			if (format_slot_has_data(&slots[i]))
				c->blind[segments_of(t, slots[i].location)]++;
		}
		check_slots(c, b->page->chunk, b->page->no, slots);
		c->pages--;
	}
}

static struct index_chunk *find_chunk(const struct index *ix, volume_id_t volume, chunk_no_t no)
{
	struct index_chunk *chunk = index_find_chunk((struct index *)(uintptr_t)ix, volume, no);

	if (chunk != NULL)
		return chunk;
	for (chunk = ix->graves; chunk != NULL; chunk = chunk->grave_next)
		if (chunk->volume->id == volume && chunk->no == no)
			break;
	return chunk;
}

/* Of the pages in kv those that are not in memory; what doesn't exist any more is to be deleted. */
static int check_stored(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct check *c = arg;
	const struct index *ix = &c->store->index;
	struct format_slot slots[PAGE_BLOCKS];
	const struct index_page *page;
	struct index_chunk *chunk;
	volume_id_t volume;
	chunk_no_t chunk_no;
	page_no_t no;

	if (format_key_page_decode(key, key_size, &volume, &chunk_no, &no) < 0 ||
	    format_page_decode(value, value_size, slots) < 0)
		return error_set(c->err, -E_CORRUPT, "a page in kv does not check");
	chunk = find_chunk(ix, volume, chunk_no);
	if (chunk == NULL || !index_page_exists(chunk, no))
		return 0;
	page = index_find_page(ix, chunk, no);
	if (page == NULL || page->state < INDEX_RUN)
		check_slots(c, chunk, no, slots);
	return c->rc;
}

static void count_existing(const struct index_chunk *chunk, void *arg)
{
	struct check *c = arg;
	page_no_t no = 0;

	while ((no = index_next_page(chunk, no)) != UINT32_MAX) {
		c->existing++;
		no++;
	}
}

static int check_pages(struct check *c)
{
	const struct index *ix = &c->store->index;
	uint8_t prefix[FORMAT_KEY_MAX];
	size_t prefix_size = format_key_node(c->store->prefix, prefix);
	int rc;

	index_each_page(ix, check_loaded, c);
	rc = kv_scan(c->store->kv, STORE_KV_PAGES, prefix, prefix_size, check_stored, c);
	if (c->rc == 0 && rc < 0)
		c->rc = error_set(c->err, rc, "the index cannot be read: %s", err_text(rc));
	check_blind(c);
	index_each_chunk(ix, count_existing, c);
	if (c->rc == 0 && (c->pages != c->existing || c->pages != ix->page_count))
		c->rc = error_set(c->err, -E_CORRUPT,
				  "%llu pages are there, chunks say %llu, and %llu are counted",
				  (unsigned long long)c->pages, (unsigned long long)c->existing,
				  (unsigned long long)ix->page_count);
	return c->rc;
}

static int check_segments(const struct check *c)
{
	const struct segments *t = &c->store->segments;
	uint32_t states[SEGMENT_STATES] = {0};
	uint64_t live = 0;
	uint32_t empty = 0;

	for (uint32_t no = 0; no < t->count; no++) {
		const struct segment *s = &t->array[no];

		states[s->state]++;
		live += s->live;
		empty += s->state == SEGMENT_SEALED && s->live == 0 && s->unapplied == 0;
		if (s->live != c->live[no])
			return error_set(c->err, -E_CORRUPT,
					 "segment %u counts %u live blocks, and has %u", no,
					 s->live, c->live[no]);
		if (s->blind != c->blind[no])
			return error_set(c->err, -E_CORRUPT,
					 "segment %u counts %u live blocks of blind pages, and has "
					 "%u",
					 no, s->blind, c->blind[no]);
	}
	if (live != t->live_blocks || empty != t->empty_count)
		return error_set(c->err, -E_CORRUPT,
				 "%llu live blocks and %u empty segments are counted as %llu, %u",
				 (unsigned long long)live, empty,
				 (unsigned long long)t->live_blocks, t->empty_count);
	for (uint32_t i = 0; i < SEGMENT_STATES; i++)
		if (states[i] != t->state_counts[i])
			return error_set(c->err, -E_CORRUPT,
					 "%u segments in state %u are counted as %u", states[i], i,
					 t->state_counts[i]);
	return 0;
}

int store_check(const struct store *store, struct error *err)
{
	const struct segments *t = &store->segments;
	size_t blocks = FORMAT_SEGMENTS_BLOCK + ((size_t)t->count << t->shift);
	struct check c = {.store = (struct store *)(uintptr_t)store, .err = err};

	c.live = calloc(t->count, sizeof *c.live);
	c.blind = calloc(t->count, sizeof *c.blind);
	c.seen = calloc(blocks / 8 + 1, 1);
	if (c.live == NULL || c.blind == NULL || c.seen == NULL)
		c.rc = error_set(err, -ENOMEM, "there is no memory for the check");
	else
		check_pages(&c);
	if (c.rc == 0)
		c.rc = check_segments(&c);
	free(c.live);
	free(c.blind);
	free(c.seen);
	return c.rc;
}

void store_want_checkpoint(struct store *store)
{
	checkpoint_want(store);
}

bool store_is_checkpointing(const struct store *store)
{
	return store->checkpoint.state != CHECKPOINT_IDLE ||
	       (store->checkpoint.wanted && store->failed == 0);
}
