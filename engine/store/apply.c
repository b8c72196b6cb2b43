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
		return ctx->moved_from == LOCATION_NONE || slot->location == ctx->moved_from + i;
	}
	if (e->version > slot->version)
		return true;
	/* The same version has the same content; resync brings it again where ours was damaged. */
	return (e->flags & FORMAT_FLAG_RESYNC) != 0 && e->kind == FORMAT_DATA &&
	       e->version == slot->version && format_slot_has_data(slot);
}

static void slot_set(struct store *store, struct format_slot *slot, const struct format_entry *e,
		     uint32_t i, const struct apply_context *ctx)
{
	struct format_slot old = *slot;

	slot->version = e->version;
	switch (e->kind) {
	case FORMAT_DATA:
		slot->location = ctx->data_block + e->data_first + i;
		slot->crc = ctx->crcs[e->data_first + i];
		if (!ctx->recovering)
			segments_ref(&store->segments, slot->location);
		break;
	case FORMAT_ZERO:
	case FORMAT_DISCARD:
		slot->location = e->kind == FORMAT_ZERO ? LOCATION_ZERO : LOCATION_DISCARDED;
		slot->crc = CRC32C_ZERO_BLOCK;
		break;
	default:
		INVARIANT(false);
	}
	if (format_slot_has_data(&old) && !ctx->recovering)
		segments_unref(&store->segments, old.location);
}

static void apply_blocks(struct store *store, const struct format_entry *e,
			 const struct apply_context *ctx)
{
	bool move = (e->flags & FORMAT_FLAG_MOVE) != 0;
	struct index *ix = &store->index;
	struct index_chunk *chunk;

	/* A move changes only what is there; it must not bring an erased chunk back. */
	chunk = move ? index_find_chunk(ix, e->volume, e->chunk)
		     : index_get_chunk(ix, e->volume, e->chunk);
	if (chunk == NULL)
		return;
	for (uint32_t i = 0; i < e->block_count;) {
		page_no_t no = (e->block + i) >> PAGE_SHIFT;
		struct index_page *page =
		    move ? index_find_page(chunk, no) : index_get_page(ix, chunk, no);
		bool changed = false;

		for (; i < e->block_count && (e->block + i) >> PAGE_SHIFT == no; i++) {
			struct format_slot *slot;

			if (page == NULL)
				continue;
			slot = &page->slots[(e->block + i) % PAGE_BLOCKS];
			if (!slot_takes(slot, e, i, ctx))
				continue;
			slot_set(store, slot, e, i, ctx);
			changed = true;
		}
		if (changed)
			index_dirty_page(ix, page);
	}
	if (!move && e->version > chunk->newest) {
		chunk->newest = e->version;
		index_dirty_chunk(ix, chunk);
	}
}

static void apply_watermark(struct store *store, const struct format_entry *e)
{
	struct index_chunk *chunk = index_get_chunk(&store->index, e->volume, e->chunk);

	if (e->watermark <= chunk->watermark)
		return;
	chunk->watermark = e->watermark;
	index_dirty_chunk(&store->index, chunk);
}

static void apply_fence(struct store *store, const struct format_entry *e)
{
	struct index_volume *volume = index_get_volume(&store->index, e->volume);
	generation_t generation = (generation_t)e->version;

	if (generation <= volume->fence_durable)
		return;
	volume->fence_durable = generation;
	if (generation > volume->fence)
		volume->fence = generation;
	index_dirty_volume(&store->index, volume);
}

static void apply_erase(struct store *store, const struct format_entry *e)
{
	struct index_volume *volume = index_find_volume(&store->index, e->volume);
	struct index_chunk *chunk;

	checkpoint_note_erase(store, e->volume, e->chunk);
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
	if (!store->serving)
		return;
	upkeep_kick(store);
}

void apply_entry(struct store *store, const struct format_entry *e, const struct apply_context *ctx)
{
	switch (e->kind) {
	case FORMAT_DATA:
	case FORMAT_ZERO:
	case FORMAT_DISCARD:
		apply_blocks(store, e, ctx);
		if (e->watermark > 0)
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
