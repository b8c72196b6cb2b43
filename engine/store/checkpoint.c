/* checkpoint: see checkpoint.h. */
#include "engine/store/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/store/core.h"

static void step_fire(struct reactor_timer *timer);
static void interval_fire(struct reactor_timer *timer);
static void committed(struct kv_op *op, int status);

int checkpoint_init(struct store *store, uint64_t bytes)
{
	struct checkpoint *c = &store->checkpoint;
	uint64_t goal;

	c->bytes = bytes > 0 ? bytes : CHECKPOINT_BYTES;
	goal = 4 * c->bytes / store->super.segment_bytes;
	goal = MIN(MAX(goal, (uint64_t)CHECKPOINT_RESERVED_MIN), (uint64_t)CHECKPOINT_RESERVED_MAX);
	c->reserved_goal = (uint32_t)goal;
	c->step.fire = step_fire;
	c->interval.fire = interval_fire;
	c->op.done = committed;
	return checkpoint_expect_erases(store, CHECKPOINT_ERASES_MAX);
}

void checkpoint_deinit(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;

	if (c->step.fire == NULL)
		return; /* not initialised: opening failed before */
	reactor_timer_cancel(store->reactor, &c->step);
	reactor_timer_cancel(store->reactor, &c->interval);
	kv_batch_destroy(store->kv, c->batch);
	c->batch = NULL;
	free(c->erases);
	c->erases = NULL;
}

/* -- erases ----------------------------------------------------------------------------------- */

static void batch_erase(struct store *store, volume_id_t volume, chunk_no_t chunk)
{
	static const uint32_t families[] = {STORE_KV_PAGES, STORE_KV_REPLICAS};
	uint8_t from[FORMAT_KEY_MAX], to[FORMAT_KEY_MAX];
	size_t from_size, to_size;

	if (chunk == UINT32_MAX) {
		from_size = format_key_chunk(store->prefix, volume, 0, from);
		to_size = format_key_volume_end(store->prefix, volume, to);
	} else {
		from_size = format_key_chunk(store->prefix, volume, chunk, from);
		to_size = format_key_chunk_end(store->prefix, volume, chunk, to);
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(families); i++)
		kv_batch_delete_range(store->kv, store->checkpoint.batch, families[i], from,
				      from_size, to, to_size);
}

int checkpoint_expect_erases(struct store *store, uint32_t count)
{
	struct checkpoint *c = &store->checkpoint;
	uint32_t max = MAX(MAX(CHECKPOINT_ERASES_MAX, c->erase_count + count), c->erase_max);
	void *p;

	if (max == c->erase_max)
		return 0;
	p = realloc(c->erases, max * sizeof *c->erases);
	if (p == NULL)
		return -ENOMEM;
	c->erases = p;
	c->erase_max = max;
	return 0;
}

void checkpoint_note_erase(struct store *store, volume_id_t volume, chunk_no_t chunk)
{
	struct checkpoint *c = &store->checkpoint;

	if (c->batch != NULL) {
		batch_erase(store, volume, chunk);
		return;
	}
	INVARIANT(c->erase_count < c->erase_max);
	c->erases[c->erase_count++] = (struct checkpoint_erase){volume, chunk};
}

bool checkpoint_erases_full(const struct store *store)
{
	return store->checkpoint.erase_count + store->wlog.erases_in_flight >=
	       CHECKPOINT_ERASES_MAX;
}

/* -- the beginning ---------------------------------------------------------------------------- */

/* The segments to be listed as reserved: what is free or empty, primed ones first. */
static void plan_segments(struct store *store)
{
	struct segments *t = &store->segments;
	uint32_t wanted = store->checkpoint.reserved_goal;
	uint32_t listed = t->state_counts[SEGMENT_RESERVED];

	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct segment *s = &t->array[no];

		s->planned = SEGMENT_FOREIGN;
		if (s->empty)
			s->planned = SEGMENT_FREE;
	}
	for (uint32_t pass = 0; pass < 2 && listed < wanted; pass++) {
		for (uint32_t no = t->shard; no < t->count && listed < wanted;
		     no += t->shard_count) {
			struct segment *s = &t->array[no];
			bool candidate =
			    s->planned == SEGMENT_FREE ||
			    (s->state == SEGMENT_FREE && s->planned == SEGMENT_FOREIGN);

			if (!candidate || (pass == 0 && !s->primed))
				continue;
			s->planned = SEGMENT_RESERVED;
			listed++;
		}
	}
}

static struct format_segment segment_record(const struct store *store, uint32_t no)
{
	const struct segment *s = &store->segments.array[no];
	uint32_t state = s->planned != SEGMENT_FOREIGN ? s->planned : s->state;
	struct format_segment r = {
	    .stream = s->stream,
	    .primed = s->primed,
	    .epoch = s->epoch,
	    .used_blocks = s->used,
	    .last_seq = s->last_seq,
	};

	switch (state) {
	case SEGMENT_FREE:
		r = (struct format_segment){.primed = s->primed, .epoch = s->epoch};
		r.state = FORMAT_SEGMENT_FREE;
		break;
	case SEGMENT_RESERVED:
		r = (struct format_segment){.primed = s->primed, .epoch = s->epoch};
		r.state = FORMAT_SEGMENT_RESERVED;
		if (s->planned == SEGMENT_RESERVED)
			r.epoch++;
		break;
	case SEGMENT_OPEN:
	case SEGMENT_SEALED:
		r.state = state == SEGMENT_OPEN || s->unapplied > 0 ? FORMAT_SEGMENT_LOG
								    : FORMAT_SEGMENT_SEALED;
		if (r.state == FORMAT_SEGMENT_LOG)
			r.start_block =
			    s->unapplied > 0 ? wlog_first_unapplied(store, no) : s->used;
		break;
	default:
		INVARIANT(false);
	}
	return r;
}

static void put_segments(struct store *store)
{
	struct segments *t = &store->segments;

	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct format_segment r = segment_record(store, no);
		struct segment *s = &t->array[no];
		uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX], old[FORMAT_VALUE_MAX];
		size_t key_size, value_size;

		value_size = format_segment_encode(&r, value);
		format_segment_encode(&s->record, old);
		if (s->has_record && memcmp(old, value, value_size) == 0)
			continue;
		s->record = r;
		s->has_record = true;
		key_size = format_key_segment(store->prefix, no, key);
		kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_SEGMENTS, key, key_size,
			     value, value_size);
	}
}

static void put_position(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;
	struct format_checkpoint r = {
	    .device = store->super.device,
	    .shard = store->config.identity.shard,
	    .shard_count = store->super.shard_count,
	    .segment_bytes = store->super.segment_bytes,
	    .segment_count = store->super.segment_count,
	    .number = ++c->number,
	    .next_seq = store->wlog.next_seq,
	};
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
	size_t key_size, value_size;

	for (uint32_t i = 0; i < WLOG_STREAMS; i++)
		r.last_seq[i] = store->wlog.streams[i].durable_seq;
	key_size = format_key_node(store->prefix, key);
	value_size = format_checkpoint_encode(&r, value);
	kv_batch_put(store->kv, c->batch, STORE_KV_NODE, key, key_size, value, value_size);
}

static void begin(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;

	c->batch = kv_batch_create(store->kv);
	for (uint32_t i = 0; i < c->erase_count; i++)
		batch_erase(store, c->erases[i].volume, c->erases[i].chunk);
	c->erase_count = 0;
	wlog_release_erases(store);
	c->wanted = false;
	c->dirty = false;
	c->log_bytes = 0;
	reactor_timer_cancel(store->reactor, &c->interval);
	plan_segments(store);
	put_segments(store);
	put_position(store);
	c->pages_left = store->index.dirty_page_count;
	c->chunks_left = store->index.dirty_chunk_count;
	c->volumes_left = store->index.dirty_volume_count;
	c->state = CHECKPOINT_PAGES;
	reactor_timer_arm(store->reactor, &c->step, reactor_now_ns(store->reactor));
}

/* -- collecting ------------------------------------------------------------------------------- */

static void put_page(struct store *store, struct index_page *page)
{
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_PAGE_VALUE_MAX];
	size_t key_size, value_size;

	index_clean_page(&store->index, page);
	if (page->chunk->dead)
		return;
	key_size =
	    format_key_page(store->prefix, page->chunk->volume->id, page->chunk->no, page->no, key);
	value_size = format_page_encode(page->slots, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_PAGES, key, key_size, value,
		     value_size);
}

static void put_chunk(struct store *store, struct index_chunk *chunk)
{
	struct format_chunk r = {.watermark = chunk->watermark, .newest = chunk->newest};
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
	size_t key_size, value_size;

	index_clean_chunk(&store->index, chunk);
	key_size = format_key_chunk(store->prefix, chunk->volume->id, chunk->no, key);
	value_size = format_chunk_encode(&r, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_REPLICAS, key, key_size, value,
		     value_size);
}

static void put_volume(struct store *store, struct index_volume *volume)
{
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
	size_t key_size, value_size;

	index_clean_volume(&store->index, volume);
	key_size = format_key_chunk(store->prefix, volume->id, UINT32_MAX, key);
	value_size = format_fence_encode(volume->fence_durable, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_REPLICAS, key, key_size, value,
		     value_size);
}

static void step_fire(struct reactor_timer *timer)
{
	struct store *store = container_of(timer, struct store, checkpoint.step);
	struct checkpoint *c = &store->checkpoint;
	struct index *ix = &store->index;

	for (uint32_t i = 0; i < CHECKPOINT_STEP; i++) {
		if (c->state == CHECKPOINT_PAGES && c->pages_left-- > 0 && ix->dirty_pages != NULL)
			put_page(store, ix->dirty_pages);
		else if (c->state == CHECKPOINT_PAGES)
			c->state = CHECKPOINT_CHUNKS;
		else if (c->state == CHECKPOINT_CHUNKS && c->chunks_left-- > 0 &&
			 ix->dirty_chunks != NULL)
			put_chunk(store, ix->dirty_chunks);
		else if (c->state == CHECKPOINT_CHUNKS)
			c->state = CHECKPOINT_VOLUMES;
		else if (c->state == CHECKPOINT_VOLUMES && c->volumes_left-- > 0 &&
			 ix->dirty_volumes != NULL)
			put_volume(store, ix->dirty_volumes);
		else {
			struct kv_batch *batch = c->batch;

			c->state = CHECKPOINT_COMMIT;
			c->batch = NULL;
			kv_commit(store->kv, batch, &c->op);
			return;
		}
	}
	reactor_timer_arm(store->reactor, &c->step,
			  reactor_now_ns(store->reactor) + CHECKPOINT_PAUSE_NS);
}

/* -- the end ---------------------------------------------------------------------------------- */

static void carry_out_plan(struct store *store)
{
	struct segments *t = &store->segments;

	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct segment *s = &t->array[no];

		if (s->planned == SEGMENT_FOREIGN)
			continue;
		INVARIANT(s->state == SEGMENT_FREE || s->empty);
		if (s->state == SEGMENT_SEALED)
			upkeep_freed(store, no);
		if (s->planned == SEGMENT_RESERVED)
			s->epoch++;
		segments_set_state(t, no, s->planned);
		s->planned = SEGMENT_FOREIGN;
	}
}

static void committed(struct kv_op *op, int status)
{
	struct store *store = container_of(op, struct store, checkpoint.op);
	struct checkpoint *c = &store->checkpoint;

	c->state = CHECKPOINT_IDLE;
	if (status < 0) {
		store_fail(store, status, "a checkpoint of the index");
	} else {
		store->stats.checkpoints++;
		carry_out_plan(store);
		upkeep_kick(store);
		cleaner_kick(store);
	}
	if (c->dirty)
		reactor_timer_arm(store->reactor, &c->interval,
				  reactor_now_ns(store->reactor) + CHECKPOINT_INTERVAL_NS);
	wlog_kick(store);
	store_close_tick(store);
}

/* -- when ------------------------------------------------------------------------------------- */

static bool streams_are_stalled(const struct store *store)
{
	return store->wlog.streams[WLOG_HOT].stalled || store->wlog.streams[WLOG_COLD].stalled;
}

static bool has_reason(const struct store *store)
{
	const struct checkpoint *c = &store->checkpoint;
	const struct segments *t = &store->segments;
	uint32_t reserved = t->state_counts[SEGMENT_RESERVED];
	uint32_t gain = t->empty_count + t->state_counts[SEGMENT_FREE];

	if (c->wanted || c->log_bytes >= c->bytes || checkpoint_erases_full(store) ||
	    store->index.dirty_page_count >= CHECKPOINT_DIRTY_PAGES)
		return true;
	if (gain == 0)
		return false;
	if (streams_are_stalled(store) && (t->empty_count > 0 || reserved == 0))
		return true;
	if (reserved < MIN(c->reserved_goal / 4, gain))
		return true;
	/* Space is getting low, and some is only waiting for this. */
	return (segments_available(t) < store->space.clean_below && t->empty_count >= 4) ||
	       (segments_available(t) <= store->space.floor_segments && t->empty_count > 0);
}

void checkpoint_consider(struct store *store)
{
	if (store->checkpoint.state == CHECKPOINT_IDLE && store->failed == 0 && store->serving &&
	    has_reason(store))
		begin(store);
}

void checkpoint_want(struct store *store)
{
	store->checkpoint.wanted = true;
	checkpoint_consider(store);
}

void checkpoint_note_dirty(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;

	if (c->dirty)
		return;
	c->dirty = true;
	if (c->state == CHECKPOINT_IDLE)
		reactor_timer_arm(store->reactor, &c->interval,
				  reactor_now_ns(store->reactor) + CHECKPOINT_INTERVAL_NS);
}

static void interval_fire(struct reactor_timer *timer)
{
	checkpoint_want(container_of(timer, struct store, checkpoint.interval));
}
