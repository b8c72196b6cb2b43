/* space: see space.h. */
#include "engine/store/space.h"

#include <errno.h>

#include "engine/base/assert.h"
#include "engine/store/core.h"

/* Of a segment's blocks at least 15/16 can be data when it is packed by the cleaner, whose groups
 * are large: at most 3 of 259 blocks are headers. What is live may fill the segments up to this
 * share, the open ones and one in the making not counted. */
#define DENSITY_NUM   15u
#define DENSITY_DEN   16u
#define OPEN_SEGMENTS 3u

#define URGENT_FLOOR 2u

static uint64_t live_bound(const struct store *store, uint32_t kept)
{
	uint32_t own = store->segments.own_count;
	uint32_t usable = own > kept + OPEN_SEGMENTS ? own - kept - OPEN_SEGMENTS : 0;

	return (uint64_t)usable * store->segments.blocks / DENSITY_DEN * DENSITY_NUM;
}

void space_init(struct store *store, uint32_t reserve_percent)
{
	uint32_t percent = reserve_percent > 0 ? reserve_percent : SPACE_RESERVE_PERCENT;
	uint32_t own = store->segments.own_count;
	uint32_t step = MIN((uint32_t)(SPACE_STEP_BYTES / store->super.segment_bytes),
			    own / SPACE_STEP_BYTES_DEN);
	struct space *space = &store->space;

	step = MAX(step, MAX(SPACE_STEP_MIN, own / SPACE_STEP_DEN));
	space->reserve_segments =
	    MAX(SPACE_RESERVE_SEGMENTS_MIN, (uint32_t)((uint64_t)own * percent / 100));
	space->floor_segments = SPACE_FLOOR_SEGMENTS;
	space->tight_below = space->floor_segments + step;
	space->clean_below = space->tight_below + step;
	space->live_max = live_bound(store, space->reserve_segments);
	space->live_max_reserve =
	    live_bound(store, MAX(SPACE_RESERVE_KEPT, space->reserve_segments / 4));
}

bool space_may_open(const struct store *store, enum space_user user)
{
	uint32_t available = segments_available(&store->segments);
	uint32_t floor = 0;

	switch (user) {
	case SPACE_CLIENT:
		floor = store->space.floor_segments;
		break;
	case SPACE_URGENT:
		floor = URGENT_FLOOR;
		break;
	case SPACE_RESYNC:
		floor = URGENT_FLOOR + 1;
		break;
	case SPACE_CLEANER:
		break;
	}
	return available > floor;
}

/* How many of the blocks hold no data yet; its pages are held. False: one is still being read, and
 * it depends on that. */
static bool count_growth(struct store *store, const struct store_write *op, uint32_t *ret_growth)
{
	struct index_chunk *chunk = index_find_chunk(&store->index, op->volume, op->chunk);
	uint32_t growth = 0;

	INVARIANT(chunk != NULL);
	for (uint32_t i = 0; i < op->block_count; i++) {
		block_no_t block = op->block + i;
		const struct index_page *page =
		    index_find_page(&store->index, chunk, block >> PAGE_SHIFT);
		struct format_slot slot = index_slot(page, block % PAGE_BLOCKS);

		if (page->state == INDEX_LOADING && !format_slot_has_data(&slot))
			return false;
		if (!format_slot_has_data(&slot))
			growth++;
	}
	*ret_growth = growth;
	return true;
}

int space_admit(struct store *store, struct item *item)
{
	const struct store_write *op = ITEM_OWNER(item, struct store_write);
	uint64_t used = store->segments.live_blocks + store->wlog.pending_growth;
	uint64_t max =
	    op->resync || op->settles ? store->space.live_max_reserve : store->space.live_max;

	item->growth = op->block_count;
	if (used + item->growth <= max)
		return 0;
	if (!count_growth(store, op, &item->growth))
		return -EAGAIN;
	if (item->growth == 0 || used + item->growth <= max)
		return 0;
	return store->wlog.pending_growth > 0 ? -EAGAIN : -ENOSPC;
}

uint32_t space_reclaimed(const struct store *store)
{
	return segments_available(&store->segments) + store->segments.empty_count;
}
