/* check: see check.h. */
#include "engine/store/check.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/store/core.h"

struct check {
	const struct store *store;
	uint32_t *live; /* a segment */
	uint8_t *seen;	/* a bit a block of the device */
	struct error *err;
	int rc;
};

static void check_page(const struct index_page *page, void *arg)
{
	struct check *c = arg;
	const struct segments *t = &c->store->segments;

	for (uint32_t i = 0; i < PAGE_BLOCKS && c->rc == 0; i++) {
		const struct format_slot *slot = &page->slots[i];
		uint32_t location = slot->location;
		uint32_t no;

		if (slot->version > page->chunk->newest)
			c->rc = error_set(c->err, -E_CORRUPT,
					  "chunk %u page %u block %u is newer than its chunk",
					  page->chunk->no, page->no, i);
		if (!format_slot_has_data(slot))
			continue;
		no = segments_of(t, location);
		if (no >= t->count ||
		    (t->array[no].state != SEGMENT_OPEN && t->array[no].state != SEGMENT_SEALED)) {
			c->rc = error_set(c->err, -E_CORRUPT,
					  "chunk %u page %u block %u lies in segment %u, state %d",
					  page->chunk->no, page->no, i, no,
					  no < t->count ? t->array[no].state : -1);
			return;
		}
		if ((c->seen[location / 8] & 1u << location % 8) != 0)
			c->rc =
			    error_set(c->err, -E_CORRUPT, "two slots refer to block %u", location);
		c->seen[location / 8] = (uint8_t)(c->seen[location / 8] | 1u << location % 8);
		c->live[no]++;
	}
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
		/* Dead pages that wait to be buried still count. */
		if (s->live != c->live[no] &&
		    (c->store->index.graves == NULL || s->live < c->live[no]))
			return error_set(c->err, -E_CORRUPT,
					 "segment %u counts %u live blocks, and has %u", no,
					 s->live, c->live[no]);
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
	struct check c = {.store = store, .err = err};

	c.live = calloc(t->count, sizeof *c.live);
	c.seen = calloc(blocks / 8 + 1, 1);
	if (c.live == NULL || c.seen == NULL)
		c.rc = error_set(err, -ENOMEM, "there is no memory for the check");
	else
		index_each_page(&store->index, check_page, &c);
	if (c.rc == 0)
		c.rc = check_segments(&c);
	free(c.live);
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
