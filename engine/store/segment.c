/* segment: see segment.h. */
#include "engine/store/segment.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"

int segments_init(struct segments *t, const struct format_super *super, uint32_t shard)
{
	*t = (struct segments){
	    .count = super->segment_count,
	    .shard = shard,
	    .shard_count = super->shard_count,
	    .blocks = super->segment_bytes / BLOCK_SIZE,
	    .shift = (uint32_t)__builtin_ctz(super->segment_bytes / BLOCK_SIZE),
	};
	t->array = calloc(t->count, sizeof *t->array);
	if (t->array == NULL)
		return -ENOMEM;
	for (uint32_t i = shard; i < t->count; i += t->shard_count) {
		t->array[i].state = SEGMENT_FREE;
		t->own_count++;
	}
	t->state_counts[SEGMENT_FOREIGN] = t->count - t->own_count;
	t->state_counts[SEGMENT_FREE] = t->own_count;
	t->next_open = shard;
	return 0;
}

void segments_deinit(struct segments *t)
{
	free(t->array);
	*t = (struct segments){0};
}

void segments_update(struct segments *t, uint32_t no)
{
	struct segment *s = &t->array[no];
	bool empty = s->state == SEGMENT_SEALED && s->live == 0 && s->unapplied == 0;

	if (empty == s->empty)
		return;
	s->empty = empty;
	if (empty)
		t->empty_count++;
	else
		t->empty_count--;
}

void segments_set_state(struct segments *t, uint32_t no, enum segment_state state)
{
	struct segment *s = &t->array[no];

	PRE(s->state != SEGMENT_FOREIGN && state != SEGMENT_FOREIGN);
	t->state_counts[s->state]--;
	t->state_counts[state]++;
	s->state = (uint8_t)state;
	segments_update(t, no);
}

void segments_ref(struct segments *t, uint32_t location)
{
	uint32_t no = segments_of(t, location);

	INVARIANT(no < t->count && t->array[no].live < 2 * t->blocks);
	t->array[no].live++;
	t->live_blocks++;
	if (t->array[no].empty)
		segments_update(t, no);
}

void segments_unref(struct segments *t, uint32_t location)
{
	uint32_t no = segments_of(t, location);

	INVARIANT(no < t->count && t->array[no].live > 0);
	t->live_blocks--;
	if (--t->array[no].live == 0)
		segments_update(t, no);
}

uint32_t segments_open(struct segments *t, uint8_t stream)
{
	uint32_t found = SEGMENT_NONE;
	uint32_t no = t->next_open;

	if (t->state_counts[SEGMENT_RESERVED] == 0)
		return SEGMENT_NONE;
	for (uint32_t i = 0; i < t->own_count; i++) {
		struct segment *s = &t->array[no];

		if (s->state == SEGMENT_RESERVED && s->pins == 0 && !s->busy &&
		    s->wipe == SEGMENT_WIPE_NOT) {
			if (found == SEGMENT_NONE)
				found = no;
			if (s->primed) {
				found = no;
				break;
			}
		}
		no += t->shard_count;
		if (no >= t->count)
			no = t->shard;
	}
	if (found == SEGMENT_NONE)
		return SEGMENT_NONE;
	segments_set_state(t, found, SEGMENT_OPEN);
	t->array[found].stream = stream;
	t->array[found].used = 0;
	t->array[found].stuck = false;
	format_remains_merge(&t->array[found].traces.before, &t->array[found].traces.now);
	t->array[found].traces.now = (struct format_remains){0};
	t->next_open = found + t->shard_count < t->count ? found + t->shard_count : t->shard;
	return found;
}
