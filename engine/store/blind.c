/* blind: see blind.h. Reading again, after a failure, is in lookup.c. */
#include "engine/store/blind.h"

#include "engine/base/assert.h"
#include "engine/store/core.h"

void blind_note(struct store *store, struct index_page *page)
{
	struct index_blind *b = index_blind_of(page);

	if (b->listed)
		return;
	/* A group counts as durable only when it is applied: so these are those before it. */
	for (uint32_t i = 0; i < WLOG_STREAMS; i++)
		b->seqs[i] = store->wlog.streams[i].durable_seq;
	b->log_at = store->checkpoint.log_total;
	index_list_blind(&store->index, page);
	if (page->state == INDEX_FAILED)
		lookup_blind_failed(store);
}

void blind_ref(struct store *store, uint32_t location)
{
	store->segments.array[segments_of(&store->segments, location)].blind++;
}

void blind_unref(struct store *store, uint32_t location)
{
	struct segment *s = &store->segments.array[segments_of(&store->segments, location)];

	INVARIANT(s->blind > 0);
	s->blind--;
}

void blind_see(struct store *store, struct index_page *page, const struct format_slot *slots)
{
	bool written = index_blind_of(page)->listed;
	struct format_slot over[PAGE_BLOCKS];

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		over[i] = index_slot(page, i);
	index_see_page(&store->index, page, slots);
	if (!written)
		return;
	index_dirty_page(&store->index, page);
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		bool wins = over[i].version >= slots[i].version;
		const struct format_slot *loser = wins ? &slots[i] : &over[i];

		if (over[i].version == 0)
			continue;
		if (format_slot_has_data(&over[i]))
			blind_unref(store, over[i].location);
		if (wins)
			index_set_slot(page, i, &over[i]);
		if (format_slot_has_data(loser))
			segments_unref(&store->segments, loser->location);
	}
	checkpoint_note_dirty(store);
}

void blind_position(const struct store *store, uint64_t *ret_seqs, uint64_t *ret_log_at)
{
	const struct index_blind *oldest = store->index.blinds;

	for (uint32_t i = 0; i < WLOG_STREAMS; i++)
		ret_seqs[i] = oldest != NULL ? oldest->seqs[i] : store->wlog.streams[i].durable_seq;
	*ret_log_at = oldest != NULL ? oldest->log_at : store->checkpoint.log_total;
}
