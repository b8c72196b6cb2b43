/* apply: see apply.h. */
#include "engine/store/apply.h"

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/store/core.h"

static bool slot_takes(const struct format_slot *slot, const struct format_entry *e, uint32_t i,
		       const struct apply_context *ctx)
{
	if ((e->flags & FORMAT_FLAG_MOVE) != 0) {
		if (slot->version != e->version || !format_slot_has_data(slot))
			return false;
		if ((e->flags & FORMAT_FLAG_BAD) != 0)
			return slot->location == e->moved_from;
		return ctx->moved_from == LOCATION_NONE || slot->location == ctx->moved_from + i;
	}
	if (e->version > slot->version)
		return true;
	/* The same version has the same content; resync brings it again where ours was damaged. */
	return (e->flags & FORMAT_FLAG_RESYNC) != 0 && e->kind == FORMAT_DATA &&
	       e->version == slot->version && format_slot_has_data(slot);
}

static void slot_set(struct store *store, struct index_page *page, uint32_t at,
		     const struct format_slot *old, const struct format_entry *e, uint32_t i,
		     const struct apply_context *ctx)
{
	struct format_slot slot = {.version = e->version, .crc = CRC32C_ZERO_BLOCK};

	switch (e->kind) {
	case FORMAT_DATA:
		slot.location = ctx->data_block + e->data_first + i;
		slot.crc = ctx->crcs[e->data_first + i];
		segments_ref(&store->segments, slot.location);
		break;
	case FORMAT_ZERO:
		slot.location = LOCATION_ZERO;
		break;
	case FORMAT_DISCARD:
		slot.location = LOCATION_DISCARDED;
		break;
	default:
		INVARIANT(false);
	}
	if (page->blind)
		blind_note(store, page);
	else
		index_dirty_page(&store->index, page);
	index_set_slot(page, at, &slot);
	if (page->blind && format_slot_has_data(&slot))
		blind_ref(store, slot.location);
	if (page->blind && format_slot_has_data(old))
		blind_unref(store, old->location);
	if (format_slot_has_data(old))
		segments_unref(&store->segments, old->location);
}

/* Looking a page up misses the cache twice: who holds it has found it already. */
static struct index_page *page_of(const struct index *ix, const struct index_chunk *chunk,
				  page_no_t no, const struct apply_context *ctx)
{
	if (ctx->page != NULL && ctx->page->no == no && ctx->page->chunk == chunk)
		return ctx->page;
	return index_find_page(ix, chunk, no);
}

static void apply_blocks(struct store *store, const struct format_entry *e,
			 const struct apply_context *ctx)
{
	bool move = (e->flags & FORMAT_FLAG_MOVE) != 0;
	struct index *ix = &store->index;
	struct index_chunk *chunk = index_find_chunk(ix, e->volume, e->chunk);
	struct index_page *page = NULL;
	page_no_t no = UINT32_MAX;

	/* Its look-up made it; but a move changes only what is there. */
	INVARIANT(chunk != NULL || move);
	if (chunk == NULL)
		return;
	if (!move && e->version > chunk->newest) {
		index_dirty_chunk(ix, chunk);
		chunk->newest = e->version;
	}
	for (uint32_t i = 0; i < e->block_count; i++) {
		uint32_t at = (e->block + i) % PAGE_BLOCKS;
		struct format_slot old;

		if ((e->block + i) >> PAGE_SHIFT != no) {
			no = (e->block + i) >> PAGE_SHIFT;
			page = page_of(ix, chunk, no, ctx);
			INVARIANT(page != NULL || move);
		}
		if (page == NULL)
			continue;
		old = index_slot(page, at);
		if (!slot_takes(&old, e, i, ctx))
			continue;
		slot_set(store, page, at, &old, e, i, ctx);
		if ((e->flags & FORMAT_FLAG_BAD) != 0)
			scrub_damage_moved(store, e, ctx->data_block + e->data_first);
	}
}

static void apply_watermark(struct store *store, const struct format_entry *e)
{
	struct index_chunk *chunk = index_find_chunk(&store->index, e->volume, e->chunk);

	INVARIANT(chunk != NULL);
	if (format_entry_watermark(e) <= chunk->watermark)
		return;
	index_dirty_chunk(&store->index, chunk);
	chunk->watermark = format_entry_watermark(e);
}

static void apply_fence(struct store *store, const struct format_entry *e)
{
	struct index_volume *volume = index_find_volume(&store->index, e->volume);
	generation_t generation = (generation_t)e->version;

	INVARIANT(volume != NULL);
	if (generation <= volume->fence_durable)
		return;
	index_dirty_volume(&store->index, volume);
	volume->fence_durable = generation;
	if (generation > volume->fence)
		volume->fence = generation;
}

static void apply_erase(struct store *store, const struct format_entry *e)
{
	struct index_volume *volume = index_find_volume(&store->index, e->volume);
	struct index_chunk *chunk;

	if (volume == NULL)
		return;
	if (e->chunk != UINT32_MAX) {
		chunk = index_find_chunk(&store->index, e->volume, e->chunk);
		if (chunk != NULL)
			index_kill_chunk(&store->index, chunk);
	} else {
		while ((chunk = index_next_chunk(volume, 0)) != NULL)
			index_kill_chunk(&store->index, chunk);
	}
	bury_kick(store);
}

void apply_entry(struct store *store, const struct format_entry *e, const struct apply_context *ctx)
{
	switch (e->kind) {
	case FORMAT_DATA:
	case FORMAT_ZERO:
	case FORMAT_DISCARD:
		apply_blocks(store, e, ctx);
		if (format_entry_watermark(e) > 0)
			apply_watermark(store, e);
		break;
	case FORMAT_WATERMARK:
		apply_watermark(store, e);
		break;
	case FORMAT_FENCE:
		apply_fence(store, e);
		break;
	case FORMAT_ERASE:
		apply_erase(store, e);
		break;
	default:
		INVARIANT(false); /* the decoder lets no other through */
	}
}
