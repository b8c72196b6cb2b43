/* checkpoint: see checkpoint.h. */
#include "engine/store/checkpoint.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/store/core.h"

static void step_fire(struct reactor_timer *timer);
static void interval_fire(struct reactor_timer *timer);
static void committed(struct kv_op *op, int status);
static void released(struct kv_op *op, int status);

static void put_page(struct index_collector *collector, struct index_page *page);
static void put_chunk(struct index_collector *collector, struct index_chunk *chunk);
static void put_volume(struct index_collector *collector, struct index_volume *volume);

/* The more log lies between two, the more often a page has changed when it is put once; and the
 * more of a device is neither covered nor free. */
static uint64_t distance_of(const struct store *store)
{
	uint64_t device = (uint64_t)store->super.segment_count * store->super.segment_bytes;

	return MIN(MAX(device / CHECKPOINT_DEVICE_DEN, CHECKPOINT_BYTES_MIN), CHECKPOINT_BYTES_MAX);
}

int checkpoint_init(struct store *store, uint64_t bytes)
{
	struct checkpoint *c = &store->checkpoint;
	uint64_t goal;

	c->bytes = bytes > 0 ? bytes : distance_of(store);
	goal = 2 * c->bytes / store->super.segment_bytes;
	goal = MIN(MAX(goal, (uint64_t)CHECKPOINT_RESERVED_MIN), (uint64_t)CHECKPOINT_RESERVED_MAX);
	c->reserved_goal = (uint32_t)goal;
	c->step.fire = step_fire;
	c->interval.fire = interval_fire;
	c->op.done = committed;
	c->release.done = released;
	c->collector = (struct index_collector){put_page, put_chunk, put_volume};
	return checkpoint_promise_buried(store);
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
	free(c->buried);
	c->buried = NULL;
}

/* -- what was buried -------------------------------------------------------------------------- */

int checkpoint_promise_buried(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;
	uint32_t max = MAX(64u, 2 * c->buried_max);
	void *p;

	if (c->buried_count < c->buried_max)
		return 0;
	p = realloc(c->buried, max * sizeof *c->buried);
	if (p == NULL)
		return -ENOMEM;
	c->buried = p;
	c->buried_max = max;
	return 0;
}

void checkpoint_note_buried(struct store *store, volume_id_t volume, chunk_no_t chunk)
{
	struct checkpoint *c = &store->checkpoint;

	INVARIANT(c->buried_count < c->buried_max);
	c->buried[c->buried_count++] = (struct checkpoint_key){volume, chunk};
}

/* The pages [0, end) of a chunk, from kv; end UINT32_MAX: all of them. */
static void delete_pages(struct store *store, volume_id_t volume, chunk_no_t chunk, page_no_t end)
{
	uint8_t from[FORMAT_KEY_MAX], to[FORMAT_KEY_MAX];
	size_t from_size = format_key_page(store->prefix, volume, chunk, 0, from);
	size_t to_size = end == UINT32_MAX ? format_key_chunk_end(store->prefix, volume, chunk, to)
					   : format_key_page(store->prefix, volume, chunk, end, to);

	kv_batch_delete_range(store->kv, store->checkpoint.batch, STORE_KV_PAGES, from, from_size,
			      to, to_size);
}

static void delete_buried(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;

	for (uint32_t i = 0; i < c->buried_count; i++) {
		uint8_t key[FORMAT_KEY_MAX];
		size_t key_size =
		    format_key_chunk(store->prefix, c->buried[i].volume, c->buried[i].chunk, key);

		delete_pages(store, c->buried[i].volume, c->buried[i].chunk, UINT32_MAX);
		kv_batch_delete(store->kv, c->batch, STORE_KV_REPLICAS, key, key_size);
	}
	c->buried_count = 0;
}

/* -- the beginning ---------------------------------------------------------------------------- */

/* It has groups that will be replayed although some of them, or all, are in the index (blind.h). */
static bool is_behind(const struct store *store, const struct segment *s)
{
	uint64_t position = store->checkpoint.position[s->stream];

	return position < store->wlog.streams[s->stream].durable_seq && s->last_seq > position;
}

/* Of what is planned to be free, and of what is free, as many are listed as reserved as may be
 * opened soon, primed ones first. */
static void plan_reserved(struct store *store)
{
	struct segments *t = &store->segments;
	uint32_t wanted = store->checkpoint.reserved_goal;
	uint32_t listed = t->state_counts[SEGMENT_RESERVED];

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

static void plan_segments(struct store *store)
{
	struct segments *t = &store->segments;

	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct segment *s = &t->array[no];

		s->planned = SEGMENT_FOREIGN;
		if (s->empty && !is_behind(store, s))
			s->planned = SEGMENT_FREE;
	}
	plan_reserved(store);
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
	    .live = s->live - s->blind,
	    .last_seq = s->last_seq,
	};

	switch (state) {
	case SEGMENT_FREE:
		r = (struct format_segment){.primed = s->primed, .epoch = s->epoch};
		r.state = FORMAT_SEGMENT_FREE;
		r.live = s->live - s->blind;
		break;
	case SEGMENT_RESERVED:
		r = (struct format_segment){.primed = s->primed, .epoch = s->epoch};
		r.state = FORMAT_SEGMENT_RESERVED;
		r.live = s->live - s->blind; /* of a former use: invariant 4 */
		if (s->planned == SEGMENT_RESERVED)
			r.epoch++;
		break;
	case SEGMENT_OPEN:
	case SEGMENT_SEALED:
		r.state = state == SEGMENT_OPEN || s->unapplied > 0 || is_behind(store, s)
			      ? FORMAT_SEGMENT_LOG
			      : FORMAT_SEGMENT_SEALED;
		if (r.state == FORMAT_SEGMENT_LOG && !is_behind(store, s))
			r.start_block =
			    s->unapplied > 0 ? wlog_first_unapplied(store, no) : s->used;
		break;
	default:
		INVARIANT(false);
	}
	return r;
}

static bool records_equal(const struct format_segment *a, const struct format_segment *b)
{
	return a->state == b->state && a->stream == b->stream && a->primed == b->primed &&
	       a->epoch == b->epoch && a->start_block == b->start_block &&
	       a->used_blocks == b->used_blocks && a->live == b->live && a->last_seq == b->last_seq;
}

/* What the records say is of this moment; they are collected bit by bit. */
static void note_segments(struct store *store)
{
	struct segments *t = &store->segments;

	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct format_segment r = segment_record(store, no);
		struct segment *s = &t->array[no];

		if (s->has_record && !s->wiped && records_equal(&r, &s->record))
			continue;
		s->wiped = false;
		s->record = r;
		s->has_record = true;
		s->put_record = true;
	}
	store->checkpoint.segment = t->shard;
}

static void put_segment(struct store *store, uint32_t no)
{
	struct segment *s = &store->segments.array[no];
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
	size_t key_size, value_size;

	s->put_record = false;
	key_size = format_key_segment(store->prefix, no, key);
	/* Traces may be of a later moment than the rest: they only grow, or are gone for good. */
	value_size = format_segment_encode(&s->record, &s->traces, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_SEGMENTS, key, key_size, value,
		     value_size);
}

/* False: there is none left. */
static bool put_next_segment(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;
	const struct segments *t = &store->segments;

	while (c->segment < t->count) {
		uint32_t no = c->segment;

		c->segment += t->shard_count;
		if (!t->array[no].put_record)
			continue;
		put_segment(store, no);
		return true;
	}
	return false;
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
		r.last_seq[i] = c->position[i];
	key_size = format_key_node(store->prefix, key);
	value_size = format_checkpoint_encode(&r, value);
	kv_batch_put(store->kv, c->batch, STORE_KV_NODE, key, key_size, value, value_size);
}

static void begin(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;
	uint64_t log_at;

	c->batch = kv_batch_create(store->kv);
	if (c->batch == NULL) {
		/* No memory: with the next reason, or then. */
		reactor_timer_arm(store->reactor, &c->interval,
				  reactor_now_ns(store->reactor) + CHECKPOINT_INTERVAL_NS);
		return;
	}
	c->wanted = false;
	c->room_wanted = false;
	c->dirty = false;
	c->covered_bytes += c->log_bytes;
	c->log_bytes = 0;
	blind_position(store, c->position, &log_at);
	c->behind_bytes = c->log_total - log_at;
	reactor_timer_cancel(store->reactor, &c->interval);
	index_begin_epoch(&store->index);
	plan_segments(store);
	note_segments(store);
	put_position(store);
	delete_buried(store);
	c->state = CHECKPOINT_SEGMENTS;
	reactor_timer_arm(store->reactor, &c->step, reactor_now_ns(store->reactor));
}

/* -- collecting ------------------------------------------------------------------------------- */

static struct store *store_of(struct index_collector *collector)
{
	return container_of(collector, struct store, checkpoint.collector);
}

static void put_page(struct index_collector *collector, struct index_page *page)
{
	struct store *store = store_of(collector);
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_PAGE_VALUE_MAX];
	struct format_slot slots[PAGE_BLOCKS];
	size_t key_size, value_size;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] = index_slot(page, i);
	index_clean_page(&store->index, page);
	key_size =
	    format_key_page(store->prefix, page->chunk->volume->id, page->chunk->no, page->no, key);
	value_size = format_page_encode(slots, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_PAGES, key, key_size, value,
		     value_size);
}

static void put_chunk(struct index_collector *collector, struct index_chunk *chunk)
{
	struct store *store = store_of(collector);
	struct format_chunk r = {.watermark = chunk->watermark,
				 .newest = chunk->newest,
				 .dead = chunk->dead,
				 .buried = chunk->buried};
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_CHUNK_VALUE_MAX];
	size_t key_size, value_size;

	index_clean_chunk(&store->index, chunk);
	for (uint32_t i = 0; i < FORMAT_CHUNK_LEAVES; i++) {
		const struct format_leaf *leaf = chunk->leaves[i];

		for (uint32_t k = 0; leaf != NULL && k < ARRAY_SIZE(leaf->exists); k++)
			if (leaf->exists[k] != 0)
				r.leaf_mask |= 1ull << i;
	}
	if (chunk->dead && chunk->buried > 0)
		delete_pages(store, chunk->volume->id, chunk->no, chunk->buried);
	key_size = format_key_chunk(store->prefix, chunk->volume->id, chunk->no, key);
	value_size =
	    format_chunk_encode(&r, (const struct format_leaf *const *)chunk->leaves, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_REPLICAS, key, key_size, value,
		     value_size);
}

static void put_volume(struct index_collector *collector, struct index_volume *volume)
{
	struct store *store = store_of(collector);
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
	size_t key_size, value_size;

	index_clean_volume(&store->index, volume);
	key_size = format_key_chunk(store->prefix, volume->id, UINT32_MAX, key);
	value_size = format_fence_encode(volume->fence_durable, value);
	kv_batch_put(store->kv, store->checkpoint.batch, STORE_KV_REPLICAS, key, key_size, value,
		     value_size);
}

/* Of the kind that it is at, the next; or on to the next kind. False: all of it is in the batch. */
static bool collect_one(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;
	struct index *ix = &store->index;
	struct index_page *page = index_next_dirty_page(ix);
	struct index_chunk *chunk = index_next_dirty_chunk(ix);
	struct index_volume *volume = index_next_dirty_volume(ix);

	switch (c->state) {
	case CHECKPOINT_SEGMENTS:
		if (!put_next_segment(store))
			c->state = CHECKPOINT_PAGES;
		return true;
	case CHECKPOINT_PAGES:
		if (page == NULL) {
			c->state = CHECKPOINT_CHUNKS;
			return true;
		}
		put_page(&c->collector, page);
		if (page->pins == 0)
			index_narrow_page(ix, page);
		return true;
	case CHECKPOINT_CHUNKS:
		if (chunk != NULL)
			put_chunk(&c->collector, chunk);
		else
			c->state = CHECKPOINT_VOLUMES;
		return true;
	case CHECKPOINT_VOLUMES:
		if (volume != NULL)
			put_volume(&c->collector, volume);
		return volume != NULL;
	case CHECKPOINT_IDLE:
	case CHECKPOINT_COMMIT:
	case CHECKPOINT_RELEASE:
		break;
	}
	INVARIANT(false);
	return false;
}

static void step_fire(struct reactor_timer *timer)
{
	struct store *store = container_of(timer, struct store, checkpoint.step);
	struct checkpoint *c = &store->checkpoint;

	for (uint32_t i = 0; i < CHECKPOINT_STEP; i++) {
		struct kv_batch *batch = c->batch;

		if (collect_one(store))
			continue;
		c->state = CHECKPOINT_COMMIT;
		c->batch = NULL;
		kv_commit(store->kv, batch, &c->op);
		return;
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

static void has_room(struct store *store)
{
	carry_out_plan(store);
	upkeep_kick(store);
	cleaner_kick(store);
	wipe_kick(store);
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
		c->covers = true;
		c->covered_bytes = c->behind_bytes;
		index_end_epoch(&store->index);
		lookup_retry(store);
		has_room(store);
	}
	if (c->dirty)
		reactor_timer_arm(store->reactor, &c->interval,
				  reactor_now_ns(store->reactor) + CHECKPOINT_INTERVAL_NS);
	wlog_kick(store);
	store_close_tick(store);
}

/* -- releases --------------------------------------------------------------------------------- */

static bool streams_are_stalled(const struct store *store)
{
	return store->wlog.streams[WLOG_HOT].stalled || store->wlog.streams[WLOG_COLD].stalled;
}

/* What the index in kv still seeks in it is found elsewhere by the groups that would be replayed;
 * none of those is in it. */
static bool can_release(const struct store *store, const struct segment *s)
{
	return s->empty && s->last_seq <= store->checkpoint.position[s->stream];
}

/* How many there are; planned to be free. */
static uint32_t plan_release(struct store *store)
{
	struct segments *t = &store->segments;
	uint32_t count = 0;

	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct segment *s = &t->array[no];

		s->planned = SEGMENT_FOREIGN;
		if (!can_release(store, s))
			continue;
		s->planned = SEGMENT_FREE;
		count++;
	}
	return count;
}

/* The record that is durable, with its count of live blocks, becomes one of a free segment. */
static void put_released(struct store *store, uint32_t no)
{
	struct segment *s = &store->segments.array[no];
	struct format_segment *r = &s->record;
	bool reserved = s->planned == SEGMENT_RESERVED;

	INVARIANT(s->has_record && !s->put_record);
	*r = (struct format_segment){
	    .state = reserved ? FORMAT_SEGMENT_RESERVED : FORMAT_SEGMENT_FREE,
	    .primed = s->primed,
	    .epoch = reserved ? s->epoch + 1 : s->epoch,
	    .live = r->live,
	};
	put_segment(store, no);
}

/* So few are listed as those that may be opened next that it is worth a commit to list others. */
static bool lacks_reserved(const struct store *store)
{
	const struct segments *t = &store->segments;
	uint32_t gain = t->empty_count + t->state_counts[SEGMENT_FREE];

	return t->state_counts[SEGMENT_RESERVED] < MIN(store->checkpoint.reserved_goal / 4, gain);
}

/* Streams will soon have none to open. */
static bool is_room_short(const struct store *store)
{
	return segments_available(&store->segments) <= store->space.floor_segments + WLOG_STREAMS;
}

/* False: a whole checkpoint gives more, or there is no memory. */
static bool begin_release(struct store *store)
{
	struct checkpoint *c = &store->checkpoint;
	struct segments *t = &store->segments;
	struct kv_batch *batch;
	uint32_t freed;

	if (!c->covers)
		return false;
	freed = plan_release(store);
	if (freed == 0 && (t->state_counts[SEGMENT_FREE] == 0 || !lacks_reserved(store)))
		return false;
	if (2 * freed < t->empty_count && !is_room_short(store))
		return false;
	c->batch = kv_batch_create(store->kv);
	if (c->batch == NULL)
		return false;
	plan_reserved(store);
	for (uint32_t no = t->shard; no < t->count; no += t->shard_count)
		if (t->array[no].planned != SEGMENT_FOREIGN)
			put_released(store, no);
	c->state = CHECKPOINT_RELEASE;
	c->room_wanted = false;
	batch = c->batch;
	c->batch = NULL;
	kv_commit(store->kv, batch, &c->release);
	return true;
}

static void released(struct kv_op *op, int status)
{
	struct store *store = container_of(op, struct store, checkpoint.release);

	store->checkpoint.state = CHECKPOINT_IDLE;
	if (status < 0) {
		store_fail(store, status, "a release of segments");
	} else {
		store->stats.releases++;
		has_room(store);
	}
	wlog_kick(store);
	store_close_tick(store);
}

/* -- when ------------------------------------------------------------------------------------- */

static bool is_due(const struct store *store)
{
	const struct checkpoint *c = &store->checkpoint;

	return c->wanted || c->log_bytes >= c->bytes ||
	       store->index.dirty_page_count >=
		   MIN(CHECKPOINT_DIRTY_PAGES, MAX(1u, store->index.dirty_max / 2));
}

/* Some segments, or space as such, are only waiting for this. */
static bool is_room_wanted(const struct store *store)
{
	const struct checkpoint *c = &store->checkpoint;
	const struct segments *t = &store->segments;
	uint32_t reserved = t->state_counts[SEGMENT_RESERVED];
	uint32_t gain = t->empty_count + t->state_counts[SEGMENT_FREE];

	if (gain == 0)
		return false;
	if (c->room_wanted)
		return true;
	if (streams_are_stalled(store) && (t->empty_count > 0 || reserved == 0))
		return true;
	if (lacks_reserved(store))
		return true;
	return (segments_available(t) < store->space.clean_below &&
		t->empty_count >= CHECKPOINT_RELEASE_MIN) ||
	       (is_room_short(store) && t->empty_count > 0);
}

bool checkpoint_is_far(const struct store *store)
{
	const struct checkpoint *c = &store->checkpoint;

	return c->state != CHECKPOINT_IDLE &&
	       c->covered_bytes + c->log_bytes >= CHECKPOINT_FAR_FACTOR * c->bytes;
}

void checkpoint_consider(struct store *store)
{
	if (store->checkpoint.state != CHECKPOINT_IDLE || store->failed != 0 || !store->serving)
		return;
	if (is_due(store))
		begin(store);
	else if (is_room_wanted(store) && !begin_release(store))
		begin(store);
}

void checkpoint_want(struct store *store)
{
	store->checkpoint.wanted = true;
	checkpoint_consider(store);
}

void checkpoint_want_room(struct store *store)
{
	store->checkpoint.room_wanted = true;
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
