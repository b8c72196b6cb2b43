/* index_page: the pages of the index in memory. See index.h. One hash table holds them all; its
 * buckets are also what the clock goes round, so that a page needs no list. */
#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/err.h"
#include "engine/store/index.h"

/* By what the page is, not where its chunk lies in memory: the clock goes round the buckets, and
 * must let go of the same pages in every run of the simulator. A chunk's pages are neighbours:
 * eight share a line of the cache. */
static uint32_t bucket_of(const struct index *ix, const struct index_chunk *chunk, page_no_t no)
{
	uint64_t x = chunk->hash * 0xbf58476d1ce4e5b9ull;

	return ((uint32_t)(x >> 32) + no) & (ix->page_bucket_count - 1);
}

struct index_page *index_find_page(const struct index *ix, const struct index_chunk *chunk,
				   page_no_t no)
{
	struct index_page *page = ix->page_buckets[bucket_of(ix, chunk, no)];

	while (page != NULL && (page->chunk != chunk || page->no != no))
		page = page->hash_next;
	return page;
}

void index_prefetch_bucket(const struct index *ix, const struct index_chunk *chunk, page_no_t no)
{
	__builtin_prefetch(&ix->page_buckets[bucket_of(ix, chunk, no)]);
}

void index_prefetch_found(const struct index *ix, const struct index_chunk *chunk, page_no_t no)
{
	const struct index_page *page = ix->page_buckets[bucket_of(ix, chunk, no)];

	if (page == NULL)
		return;
	__builtin_prefetch(page, 1);
	__builtin_prefetch((const uint8_t *)page + 64, 1);
}

struct format_slot index_find_slot(const struct index *ix, const struct index_chunk *chunk,
				   block_no_t block)
{
	const struct index_page *page = index_find_page(ix, chunk, block >> PAGE_SHIFT);

	if (page != NULL) {
		INVARIANT(!page->blind);
		return index_slot(page, block % PAGE_BLOCKS);
	}
	/* Whoever asks without a look-up is found out here, not in what it makes of the answer. */
	INVARIANT(!index_page_exists(chunk, block >> PAGE_SHIFT));
	return (struct format_slot){0};
}

/* -- cells ------------------------------------------------------------------------------------ */

static bool may_leave(const struct index *ix, const struct index_page *page)
{
	return page->pins == 0 && !page->dirty && page->state >= INDEX_RUN &&
	       !(ix->committing && page->epoch == ix->epoch);
}

/* One turn of the clock's hand. False: nothing may leave, as far as it looked. */
static bool evict(struct index *ix)
{
	uint32_t steps = MIN(INDEX_CLOCK_BUCKETS, ix->page_bucket_count);
	struct index_page *second = NULL;

	for (uint32_t i = 0; i < steps; i++) {
		struct index_page *page = ix->page_buckets[ix->clock_hand];

		for (; page != NULL; page = page->hash_next) {
			if (!may_leave(ix, page))
				continue;
			if (!page->used) {
				second = page;
				goto out;
			}
			page->used = false;
			if (second == NULL)
				second = page;
		}
		ix->clock_hand = (ix->clock_hand + 1) & (ix->page_bucket_count - 1);
	}
out:
	if (second == NULL)
		return false;
	index_drop_page(ix, second);
	ix->evicted_count++;
	return true;
}

/* A little at a time, whatever happened before. */
static void make_room(struct index *ix, uint32_t cells)
{
	for (uint32_t i = 0; i < 2 * cells && ix->cells_used + cells > ix->cells_max; i++)
		if (!evict(ix))
			return;
}

static void *cell_take(struct index *ix)
{
	void *cell;

	/* The bound of the slab is beyond the cache's: hardly ever is it needed to look all round.
	 */
	for (uint32_t i = 0; slab_make(&ix->cells, &cell) < 0;) {
		if (evict(ix))
			continue;
		if (i++ > ix->page_bucket_count / INDEX_CLOCK_BUCKETS)
			return NULL;
	}
	ix->cells_used++;
	return cell;
}

static void cell_give(struct index *ix, void *cell)
{
	slab_give(&ix->cells, cell);
	ix->cells_used--;
}

/* -- runs ------------------------------------------------------------------------------------- */

/* Whether the slots are one run; if so where it begins, and how long it is. */
static bool is_run(const struct format_slot *slots, uint32_t *ret_first, uint32_t *ret_count)
{
	uint32_t first = 0, end = PAGE_BLOCKS;

	while (first < end && slots[first].version == 0)
		first++;
	while (end > first && slots[end - 1].version == 0)
		end--;
	for (uint32_t i = first + 1; i < end; i++) {
		uint32_t step = format_slot_has_data(&slots[first]) ? i - first : 0;

		if (slots[i].version != slots[first].version ||
		    slots[i].location != slots[first].location + step)
			return false;
	}
	*ret_first = first;
	*ret_count = end - first;
	return true;
}

static void set_run(struct index_page *page, const struct format_slot *slots, uint32_t first,
		    uint32_t count)
{
	page->state = INDEX_RUN;
	page->run.version = count > 0 ? slots[first].version : 0;
	page->run.location = count > 0 ? slots[first].location : LOCATION_NONE;
	page->run.first = (uint8_t)first;
	page->run.count = (uint8_t)count;
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		page->crcs[i] = slots[i].crc;
}

static void set_full(struct index_page *page, const struct format_slot *slots,
		     struct index_cell_a *a, struct index_cell_b *b)
{
	page->state = INDEX_FULL;
	page->full.a = a;
	page->full.b = b;
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (i < ARRAY_SIZE(a->versions))
			a->versions[i] = slots[i].version;
		else
			b->versions[i - ARRAY_SIZE(a->versions)] = slots[i].version;
		b->locations[i] = slots[i].location;
		page->crcs[i] = slots[i].crc;
	}
}

static void get_slots(const struct index_page *page, struct format_slot *slots)
{
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] = index_slot(page, i);
}

/* The two cells more. */
static int take_two(struct index *ix, struct index_cell_a **ret_a, struct index_cell_b **ret_b)
{
	make_room(ix, 2);
	*ret_a = cell_take(ix);
	*ret_b = *ret_a != NULL ? cell_take(ix) : NULL;
	if (*ret_b != NULL)
		return 0;
	if (*ret_a != NULL)
		cell_give(ix, *ret_a);
	return -ENOMEM;
}

int index_widen_page(struct index *ix, struct index_page *page)
{
	struct format_slot slots[PAGE_BLOCKS];
	struct index_cell_a *a;
	struct index_cell_b *b;
	int rc;

	if (page->state == INDEX_FULL)
		return 0;
	PRE(page->state == INDEX_RUN && page->pins > 0);
	rc = take_two(ix, &a, &b);
	if (rc < 0)
		return rc;
	get_slots(page, slots);
	set_full(page, slots, a, b);
	return 0;
}

void index_narrow_page(struct index *ix, struct index_page *page)
{
	struct format_slot slots[PAGE_BLOCKS];
	struct index_cell_a *a;
	struct index_cell_b *b;
	uint32_t first, count;

	PRE(page->pins == 0 && !page->dirty);
	if (page->state != INDEX_FULL)
		return;
	get_slots(page, slots);
	if (!is_run(slots, &first, &count))
		return;
	a = page->full.a;
	b = page->full.b;
	set_run(page, slots, first, count);
	cell_give(ix, a);
	cell_give(ix, b);
}

/* -- coming and going ------------------------------------------------------------------------- */

int index_make_page(struct index *ix, struct index_chunk *chunk, page_no_t no, bool write,
		    struct index_page **ret_page)
{
	static const struct format_slot empty[PAGE_BLOCKS];
	struct format_leaf **leaf = &chunk->leaves[no / FORMAT_LEAF_PAGES];
	struct index_page **bucket = &ix->page_buckets[bucket_of(ix, chunk, no)];
	struct index_cell_a *a = NULL;
	struct index_cell_b *b = NULL;
	struct index_page *page;

	PRE(no < FORMAT_CHUNK_LEAVES * FORMAT_LEAF_PAGES);
	/* What is to be changed will exist: the bit must not need memory then. */
	if (*leaf == NULL && slab_make(&ix->leaves, (void **)leaf) < 0)
		return -ENOMEM;
	make_room(ix, 1);
	if (write && take_two(ix, &a, &b) < 0)
		return -ENOMEM;
	page = cell_take(ix);
	if (page == NULL) {
		if (write) {
			cell_give(ix, a);
			cell_give(ix, b);
		}
		return -ENOMEM;
	}
	page->chunk = chunk;
	page->no = (uint16_t)no;
	page->epoch = (uint8_t)(ix->epoch - 1);
	page->state = INDEX_LOADING;
	if (write)
		set_full(page, empty, a, b);
	page->hash_next = *bucket;
	*bucket = page;
	ix->loaded_count++;
	*ret_page = page;
	return 0;
}

void index_fill_page(struct index *ix, struct index_page *page, const struct format_slot *slots)
{
	struct index_cell_a *a;
	struct index_cell_b *b;
	uint32_t first, count;

	PRE(page->state == INDEX_LOADING && !page->blind);
	if (is_run(slots, &first, &count))
		set_run(page, slots, first, count);
	else if (take_two(ix, &a, &b) == 0)
		set_full(page, slots, a, b);
	else
		page->state = INDEX_FAILED;
}

/* -- blind ------------------------------------------------------------------------------------ */

int index_blind_page(struct index *ix, struct index_page *page)
{
	static const struct format_slot empty[PAGE_BLOCKS];
	struct lookup *waiters = page->loading.waiters;
	struct index_page *wanted_next = page->loading.next;
	struct index_cell_a *a;
	struct index_cell_b *b;
	struct index_blind *c;
	uint8_t state = page->state;

	PRE(page->state < INDEX_RUN && !page->blind);
	make_room(ix, 1);
	c = cell_take(ix);
	if (c == NULL || take_two(ix, &a, &b) < 0) {
		if (c != NULL)
			cell_give(ix, c);
		return -ENOMEM;
	}
	set_full(page, empty, a, b);
	*c = (struct index_blind){.waiters = waiters, .wanted_next = wanted_next, .page = page};
	a->blind = c;
	page->blind = true;
	page->state = state;
	return 0;
}

void index_list_blind(struct index *ix, struct index_page *page)
{
	struct index_blind *c = index_blind_of(page);

	PRE(!c->listed);
	c->listed = true;
	DL_APPEND(ix->blinds, c);
	ix->blind_count++;
}

static void end_blind(struct index *ix, struct index_page *page)
{
	struct index_blind *c = index_blind_of(page);

	if (c->listed) {
		DL_DELETE(ix->blinds, c);
		ix->blind_count--;
	}
	page->blind = false;
	page->full.a->next = NULL;
	cell_give(ix, c);
}

void index_see_page(struct index *ix, struct index_page *page, const struct format_slot *slots)
{
	PRE(page->state == INDEX_LOADING && page->blind);
	end_blind(ix, page);
	set_full(page, slots, page->full.a, page->full.b);
}

/* Takes it out of the table, and gives its cells back. */
static void remove_page(struct index *ix, struct index_page *page)
{
	struct index_page **p = &ix->page_buckets[bucket_of(ix, page->chunk, page->no)];

	while (*p != page)
		p = &(*p)->hash_next;
	*p = page->hash_next;
	if (page->blind) {
		end_blind(ix, page);
		page->state = INDEX_FULL;
	}
	if (page->state == INDEX_FULL) {
		cell_give(ix, page->full.a);
		cell_give(ix, page->full.b);
	}
	cell_give(ix, page);
	ix->loaded_count--;
}

void index_drop_page(struct index *ix, struct index_page *page)
{
	PRE(page->pins == 0 && !page->dirty && page->state != INDEX_LOADING);
	PRE(!page->blind || !index_blind_of(page)->listed);
	remove_page(ix, page);
}

/* -- dirt ------------------------------------------------------------------------------------- */

static void unlink_dirty(struct index *ix, struct index_page *page)
{
	struct index_page *prev = page->full.b->prev, *next = page->full.a->next;

	if (prev != NULL)
		prev->full.a->next = next;
	else
		ix->dirty_pages = next;
	if (next != NULL)
		next->full.b->prev = prev;
	else
		ix->dirty_pages_tail = prev;
	page->dirty = false;
	ix->dirty_page_count--;
}

static void set_exists(struct index *ix, struct index_page *page)
{
	struct index_chunk *chunk = page->chunk;
	uint32_t i = page->no % FORMAT_LEAF_PAGES;

	if (index_page_exists(chunk, page->no))
		return;
	index_dirty_chunk(ix, chunk);
	chunk->leaves[page->no / FORMAT_LEAF_PAGES]->exists[i / 64] |= 1ull << i % 64;
	ix->page_count++;
}

void index_dirty_page(struct index *ix, struct index_page *page)
{
	PRE(page->state == INDEX_FULL);
	if (page->dirty && page->epoch == ix->epoch)
		return;
	if (page->dirty)
		ix->collector->page(ix->collector, page);
	INVARIANT(!page->dirty && page->state == INDEX_FULL);
	set_exists(ix, page);
	page->dirty = true;
	page->epoch = ix->epoch;
	page->full.a->next = NULL;
	page->full.b->prev = ix->dirty_pages_tail;
	if (ix->dirty_pages_tail != NULL)
		ix->dirty_pages_tail->full.a->next = page;
	else
		ix->dirty_pages = page;
	ix->dirty_pages_tail = page;
	ix->dirty_page_count++;
}

struct index_page *index_next_dirty_page(const struct index *ix)
{
	struct index_page *page = ix->dirty_pages;

	return page != NULL && page->epoch != ix->epoch ? page : NULL;
}

void index_clean_page(struct index *ix, struct index_page *page)
{
	PRE(page->dirty);
	unlink_dirty(ix, page);
	page->epoch = ix->epoch;
	ix->collected_count++;
}

void index_bury_page(struct index *ix, struct index_page *page)
{
	struct index_chunk *chunk = page->chunk;
	uint32_t i = page->no % FORMAT_LEAF_PAGES;

	PRE(chunk->dead && page->pins == 0);
	/* A checkpoint under way gets it as it was. */
	if (page->dirty && page->epoch != ix->epoch)
		ix->collector->page(ix->collector, page);
	if (page->dirty)
		unlink_dirty(ix, page);
	index_dirty_chunk(ix, chunk);
	chunk->leaves[page->no / FORMAT_LEAF_PAGES]->exists[i / 64] &= ~(1ull << i % 64);
	ix->page_count--;
	remove_page(ix, page);
}

/* -- all of them ------------------------------------------------------------------------------ */

void index_each_page(const struct index *ix, void (*each)(const struct index_page *page, void *arg),
		     void *arg)
{
	for (uint32_t b = 0; b < ix->page_bucket_count; b++)
		for (const struct index_page *p = ix->page_buckets[b]; p != NULL; p = p->hash_next)
			if (p->state >= INDEX_RUN)
				each(p, arg);
}
