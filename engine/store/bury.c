/* bury: see bury.h. */
#include "engine/store/bury.h"

#include <errno.h>

#include "engine/base/assert.h"
#include "engine/store/core.h"

#define CHUNK_PAGES (FORMAT_CHUNK_LEAVES * FORMAT_LEAF_PAGES)

static void timer_fire(struct reactor_timer *timer);
static void looked_up(struct lookup *lookup, int status);

void bury_init(struct store *store)
{
	store->bury.timer.fire = timer_fire;
}

void bury_deinit(struct store *store)
{
	if (store->bury.timer.fire != NULL)
		reactor_timer_cancel(store->reactor, &store->bury.timer);
}

bool bury_is_idle(const struct store *store)
{
	return !store->bury.looking_up && !store->bury.ready;
}

static void kick_after(struct store *store, uint64_t pause_ns)
{
	struct bury *b = &store->bury;

	if (store->serving && !b->looking_up && b->timer.heap_slot == 0)
		reactor_timer_arm(store->reactor, &b->timer,
				  reactor_now_ns(store->reactor) + pause_ns);
}

void bury_kick(struct store *store)
{
	kick_after(store, BURY_PAUSE_NS);
}

/* As many pages from `first` on as one look-up takes. */
static struct lookup lookup_of(struct index_chunk *chunk, page_no_t first)
{
	uint32_t count = MIN(IO_BLOCKS_MAX / PAGE_BLOCKS, CHUNK_PAGES - first);

	return (struct lookup){.done = looked_up,
			       .kind = LOOKUP_BURY,
			       .volume = chunk->volume->id,
			       .chunk = chunk->no,
			       .block = first * PAGE_BLOCKS,
			       .block_count = count * PAGE_BLOCKS,
			       .held = chunk};
}

static void bury_page(struct store *store, struct index_page *page)
{
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		const struct format_slot slot = index_slot(page, i);

		if (format_slot_has_data(&slot))
			segments_unref(&store->segments, slot.location);
	}
	index_bury_page(&store->index, page);
}

/* The pages of the look-up are here: lets them go, and buries them. Returns how many. */
static uint32_t bury_range(struct store *store, struct lookup *l)
{
	struct index_chunk *chunk = l->held;
	page_no_t no = l->block / PAGE_BLOCKS;
	page_no_t end = no + l->block_count / PAGE_BLOCKS;
	uint32_t count = 0;

	lookup_end(store, l);
	index_dirty_chunk(&store->index, chunk);
	for (; no < end; no++) {
		if (!index_page_exists(chunk, no))
			continue;
		bury_page(store, index_find_page(&store->index, chunk, no));
		count++;
	}
	chunk->buried = end;
	checkpoint_note_dirty(store);
	return count;
}

/* The last page is buried. False: there is no memory to remember it; later. */
static bool remove_chunk(struct store *store, struct index_chunk *chunk)
{
	if (checkpoint_promise_buried(store) < 0)
		return false;
	checkpoint_note_buried(store, chunk->volume->id, chunk->no);
	checkpoint_note_dirty(store);
	index_remove_chunk(&store->index, chunk);
	lookup_retry(store);
	return true;
}

/* A store that is closing goes on only for those who wait for it. */
static bool must_stop(const struct store *store)
{
	return !store->serving || store->failed != 0 ||
	       (store->closing && store->lookups.gate.head == NULL);
}

static void step(struct store *store)
{
	struct bury *b = &store->bury;
	uint32_t count = 0;

	if (b->ready) {
		b->ready = false;
		count += bury_range(store, &b->lookup);
		store_close_tick(store);
	}
	while (!must_stop(store) && store->index.graves != NULL && count < BURY_PAGES) {
		struct index_chunk *chunk = store->index.graves;
		page_no_t first = index_next_page(chunk, chunk->buried);
		int rc;

		if (chunk->holds > 0)
			break;
		count++;
		if (first == UINT32_MAX) {
			if (!remove_chunk(store, chunk))
				break;
			continue;
		}
		b->lookup = lookup_of(chunk, first);
		rc = lookup_begin(store, &b->lookup);
		b->looking_up = rc > 0;
		if (rc > 0)
			return;
		if (rc < 0) {
			kick_after(store, BURY_RETRY_NS);
			return;
		}
		count += bury_range(store, &b->lookup);
	}
	if (must_stop(store))
		return;
	if (store->index.graves != NULL) {
		bury_kick(store);
		return;
	}
	cleaner_kick(store);
	wipe_kick(store);
}

static void looked_up(struct lookup *lookup, int status)
{
	struct store *store = container_of(lookup, struct store, bury.lookup);

	/* Not here: whoever read the page still has a hand on it. */
	store->bury.looking_up = false;
	store->bury.ready = status == 0;
	store->bury.tries = status < 0 ? store->bury.tries + 1 : 0;
	if (store->bury.tries > BURY_TRIES)
		store_fail(store, status, "reading the index, for what was erased,");
	kick_after(store, status < 0 ? BURY_RETRY_NS : 0);
	store_close_tick(store);
}

static void timer_fire(struct reactor_timer *timer)
{
	step(container_of(timer, struct store, bury.timer));
}

int bury_now(struct store *store, struct index_chunk *chunk)
{
	page_no_t first;

	while ((first = index_next_page(chunk, chunk->buried)) != UINT32_MAX) {
		struct lookup l = lookup_of(chunk, first);
		int rc = lookup_now(store, &l);

		if (rc < 0)
			return rc;
		bury_range(store, &l);
	}
	return remove_chunk(store, chunk) ? 0 : -ENOMEM;
}
