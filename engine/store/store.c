/* store: the operations of store.h; the work is done by the parts (core.h).
 *
 * Life:  store_open -> recovery -> SERVING -> store_close -> drained -> last checkpoint -> closed
 *                          \-> failed open: store_abandon
 *
 * Invariants:
 * 1. Every operation that was accepted is counted in ops_in_flight until its done has run.
 * 2. done never runs from inside the call: what can be answered at once goes through `finished`. */
#include "engine/store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/store/core.h"
#include "engine/store/recovery.h"

const char *const store_kv_family_names[STORE_KV_FAMILIES] = {
    [STORE_KV_NODE] = "node",
    [STORE_KV_PAGES] = "pages",
    [STORE_KV_REPLICAS] = "replicas",
    [STORE_KV_SEGMENTS] = "segments",
};

/* -- life ------------------------------------------------------------------------------------- */

static void finish_run(struct reactor_task *task);
static void close_run(struct reactor_task *task);

static void no_memory_run(struct reactor_task *task)
{
	struct store_open_op *op = container_of(task, struct store_open_op, no_memory);
	struct error err;

	error_set(&err, -ENOMEM, "device %s: there is not enough memory for the store",
		  op->config.disk->name);
	op->done(op, -ENOMEM, NULL, &err);
}

void store_open(struct store_open_op *op)
{
	struct store *store = calloc(1, sizeof *store);

	PRE(op->config.reactor != NULL && op->config.disk != NULL && op->config.kv != NULL);
	PRE(op->config.identity.slot < FORMAT_SLOTS_MAX);
	op->impl = NULL;
	op->no_memory = (struct reactor_task){.run = no_memory_run};
	if (store == NULL) {
		reactor_defer(op->config.reactor, &op->no_memory);
		return;
	}
	store->config = op->config;
	store->reactor = op->config.reactor;
	store->disk = op->config.disk;
	store->kv = op->config.kv;
	store->prefix = format_prefix(op->config.identity.slot, op->config.identity.shard);
	store->finish_task.run = finish_run;
	store->close_task.run = close_run;
	op->impl = store;
	if (recovery_start(store, op) == 0)
		return;
	op->impl = NULL;
	store_abandon(store);
	reactor_defer(op->config.reactor, &op->no_memory);
}

/* Each buffer of a group, and of zeroes, has an extent of its own (reactor/memory.h). */
_Static_assert(FORMAT_SEGMENT_BYTES_MAX +
		       2 * MIB * (WLOG_GROUPS_IN_FLIGHT_MAX + WLOG_COLD_GROUPS_IN_FLIGHT + 2) <=
		   STORE_REACTOR_MEMORY_MAX,
	       "the bound is too low");

void store_abandon(struct store *store)
{
	if (store == NULL)
		return;
	recovery_destroy(store->recovery);
	scrub_deinit(store);
	bury_deinit(store);
	wipe_deinit(store);
	upkeep_deinit(store);
	tidy_deinit(store);
	cleaner_deinit(store);
	checkpoint_deinit(store);
	reader_deinit(store);
	wlog_deinit(store);
	lookups_deinit(store);
	index_deinit(&store->index);
	segments_deinit(&store->segments);
	free(store);
}

static void close_run(struct reactor_task *task)
{
	struct store *store = container_of(task, struct store, close_task);
	void (*closed)(void *arg) = store->closed;
	void *arg = store->closed_arg;

	/* Tasks that are queued behind this one would run in memory that is gone. */
	if (store->wlog.pump.queued || store->finish_task.queued || store->lookups.retry.queued) {
		reactor_defer(store->reactor, task);
		return;
	}
	store_abandon(store);
	closed(arg);
}

void store_close_tick(struct store *store)
{
	if (!store->closing || !store->serving || store->ops_in_flight > 0 ||
	    !wlog_is_idle(store) || !lookups_are_idle(store) || !upkeep_is_idle(store) ||
	    !cleaner_is_idle(store) || !tidy_is_idle(store) || !bury_is_idle(store) ||
	    !scrub_is_idle(store) || !wipe_is_idle(store) ||
	    store->checkpoint.state != CHECKPOINT_IDLE)
		return;
	if (store->failed == 0 && store->checkpoint.dirty) {
		checkpoint_want(store);
		/* But without memory for it: the log has everything. */
		if (store->checkpoint.state != CHECKPOINT_IDLE)
			return;
	}
	store->serving = false;
	reactor_defer(store->reactor, &store->close_task);
}

void store_close(struct store *store, void (*done)(void *arg), void *arg)
{
	PRE(!store->closing && store->serving);
	store->closing = true;
	store->closed = done;
	store->closed_arg = arg;
	scrub_stop(store);
	store_wipe_stop(store);
	/* The pump's end goes on with it, never from inside this call. */
	wlog_kick(store);
}

void store_fail(struct store *store, int status, const char *what)
{
	PRE(status < 0);
	if (store->failed != 0)
		return;
	store->failed = status;
	log_error("store", "%s: %s failed: %s; nothing more is written", store->disk->name, what,
		  err_text(status));
	wlog_kick(store);
	lookup_retry(store);
	wipe_kick(store);
}

/* -- operations ------------------------------------------------------------------------------- */

static void finish_run(struct reactor_task *task)
{
	struct store *store = container_of(task, struct store, finish_task);
	struct item_queue q = store->finished;
	struct item *item;

	store->finished = (struct item_queue){0};
	while ((item = item_pop(&q)) != NULL)
		item_complete(store, item, item->status);
	store_close_tick(store);
}

/* Every operation begins here. False: there are too many; it completes with -E_LIMIT. */
static bool accept(struct store *store, struct item *item, uint8_t kind)
{
	PRE(store->serving && !store->closing);
	*item = (struct item){.kind = kind, .client = kind <= ITEM_DISCARD || kind == ITEM_READ};
	if (item->client)
		clients_begin(&store->clients, reactor_now_ns(store->reactor));
	if (kind != ITEM_FENCE)
		item_op_of(item)->store = store;
	if (store->ops_in_flight++ < STORE_OPS_MAX)
		return true;
	item_complete_later(store, item, -E_LIMIT);
	return false;
}

static bool is_in_chunk(block_no_t block, uint32_t block_count)
{
	return block_count >= 1 && block_count <= IO_BLOCKS_MAX &&
	       block < CHUNK_SIZE_MAX / BLOCK_SIZE &&
	       block_count <= CHUNK_SIZE_MAX / BLOCK_SIZE - block;
}

/* What an operation will change is here: it goes to the log. */
static void go_to_log(struct store *store, struct item *item)
{
	struct store_write *op = ITEM_OWNER(item, struct store_write);

	/* An erase came before it: it said "you have everything up to here" of a copy that is no
	 * more. What it makes anew may claim nothing. */
	if (item_op_of(item)->lookup.was_gated)
		op->watermark = 0;
	item->held = true;
	/* What has no data needs hardly any space, and may even give some back. */
	if (item->kind != ITEM_WATERMARK && op->resync)
		wlog_submit(store, item, WLOG_COLD, false);
	else
		wlog_submit(store, item, WLOG_HOT, item->kind != ITEM_DATA);
}

/* The index has no room for it: to a host that is as if the device had none. */
static int no_room(int rc)
{
	return rc == -ENOMEM || rc == -E_LIMIT ? -ENOSPC : rc;
}

static void looked_up(struct lookup *lookup, int status)
{
	struct item_op *item_op = container_of(lookup, struct item_op, lookup);

	if (status < 0)
		item_complete(item_op->store, &item_op->item, no_room(status));
	else
		go_to_log(item_op->store, &item_op->item);
}

static void look_up(struct store *store, struct item *item, volume_id_t volume, chunk_no_t chunk,
		    block_no_t block, uint32_t block_count)
{
	struct lookup *l = &item_op_of(item)->lookup;
	int rc;

	*l = (struct lookup){.done = looked_up,
			     .kind = LOOKUP_WRITE,
			     .volume = volume,
			     .chunk = chunk,
			     .block = block,
			     .block_count = block_count};
	rc = lookup_begin(store, l);
	if (rc < 0)
		item_complete_later(store, item, no_room(rc));
	else if (rc == 0)
		go_to_log(store, item);
}

void store_write(struct store *store, struct store_write *op)
{
	static const uint8_t kinds[] = {
	    [STORE_DATA] = ITEM_DATA,
	    [STORE_ZERO] = ITEM_ZERO,
	    [STORE_DISCARD] = ITEM_DISCARD,
	};
	struct item *item = ITEM_OF(op);

	PRE(is_in_chunk(op->block, op->block_count) && op->volume != 0 && op->chunk != UINT32_MAX &&
	    op->version != 0);
	PRE(op->kind != STORE_DATA || (op->data != NULL && op->crcs != NULL));
	if (!accept(store, item, kinds[op->kind]))
		return;
	if (store->failed != 0) {
		item_complete_later(store, item, store->failed);
		return;
	}
	if (!op->resync && version_generation(op->version) <
			       store_generation(store, op->owner != 0 ? op->owner : op->volume)) {
		item_complete_later(store, item, -E_FENCED);
		return;
	}
	store->stats.writes++;
	store->stats.blocks_written += op->block_count;
	if (op->trace)
		wlog_trace(store, op->resync ? WLOG_COLD : WLOG_HOT);
	look_up(store, item, op->volume, op->chunk, op->block, op->block_count);
}

void store_write_keep(struct store_write *op, const void *data)
{
	if (op->kind != STORE_DATA || op->data != data)
		return;
	memcpy(op->copy, data, (size_t)op->block_count * BLOCK_SIZE);
	op->data = op->copy;
}

void store_look_ahead(struct store *store, volume_id_t volume, chunk_no_t chunk, block_no_t block,
		      enum store_ahead what)
{
	struct index *ix = &store->index;
	const struct index_chunk *c = index_find_chunk(ix, volume, chunk);
	const page_no_t no = block >> PAGE_SHIFT;
	const struct index_page *page;

	if (c == NULL)
		return;
	switch (what) {
	case STORE_AHEAD_PLACE:
		index_prefetch_bucket(ix, c, no);
		return;
	case STORE_AHEAD_PAGE:
		index_prefetch_found(ix, c, no);
		return;
	case STORE_AHEAD_SLOTS:
		page = index_find_page(ix, c, no);
		if (page != NULL)
			index_prefetch_page(page);
		return;
	}
}

uint64_t store_write_begun_ns(const struct store_write *op)
{
	return ((const struct item *)(const void *)op->impl)->begun_ns;
}

void store_read(struct store *store, struct store_read *op)
{
	PRE(is_in_chunk(op->block, op->block_count) && op->data != NULL && op->ret_crcs != NULL);
	if (!accept(store, ITEM_OF(op), ITEM_READ))
		return;
	store->stats.reads++;
	store->stats.blocks_read += op->block_count;
	reader_submit(store, op);
}

generation_t store_generation(const struct store *store, volume_id_t volume)
{
	const struct index_volume *v = index_find_volume(&store->index, volume);

	return v != NULL ? v->fence : 0;
}

const struct uuid *store_device(const struct store *store)
{
	return &store->super.device;
}

int store_failure(const struct store *store)
{
	return store->failed;
}

struct each_volume {
	void (*each)(volume_id_t volume, generation_t generation, void *arg);
	void *arg;
};

static void each_volume(const struct index_volume *volume, void *arg)
{
	const struct each_volume *e = arg;

	e->each(volume->id, volume->fence, e->arg);
}

void store_each_volume(const struct store *store,
		       void (*each)(volume_id_t volume, generation_t generation, void *arg),
		       void *arg)
{
	struct each_volume e = {.each = each, .arg = arg};

	index_each_volume(&store->index, each_volume, &e);
}

void store_fence(struct store *store, struct store_fence_op *op)
{
	struct index_volume *volume;
	struct item *item = ITEM_OF(op);
	int rc;

	PRE(op->volume != 0 && op->generation > 0 && op->generation <= GENERATION_MAX);
	if (!accept(store, item, ITEM_FENCE))
		return;
	rc = store->failed;
	if (rc == 0)
		rc = index_get_volume(&store->index, op->volume, &volume);
	if (rc < 0) {
		item_complete_later(store, item, rc);
		return;
	}
	if (op->generation < volume->fence) {
		item_complete_later(store, item, -E_FENCED);
		return;
	}
	if (op->generation == volume->fence_durable) {
		item_complete_later(store, item, 0);
		return;
	}
	/* In force from now on; done when durable. */
	volume->fence = op->generation;
	wlog_submit(store, item, WLOG_HOT, true);
}

void store_watermark(struct store *store, struct store_watermark_op *op)
{
	struct index_chunk *chunk;
	struct item *item = ITEM_OF(op);

	PRE(op->volume != 0 && op->chunk != UINT32_MAX);
	if (!accept(store, item, ITEM_WATERMARK))
		return;
	if (store->failed != 0) {
		item_complete_later(store, item, store->failed);
		return;
	}
	chunk = index_find_chunk(&store->index, op->volume, op->chunk);
	if (op->watermark == 0 || (chunk != NULL && op->watermark <= chunk->watermark)) {
		item_complete_later(store, item, 0);
		return;
	}
	look_up(store, item, op->volume, op->chunk, 0, 0);
}

void store_erase(struct store *store, struct store_erase_op *op)
{
	struct item *item = ITEM_OF(op);

	PRE(op->volume != 0);
	if (!accept(store, item, ITEM_ERASE))
		return;
	if (store->failed != 0)
		item_complete_later(store, item, store->failed);
	else
		lookup_submit_erase(store, item);
}

void store_wipe(struct store *store, struct store_wipe_op *op)
{
	struct item *item = ITEM_OF(op);

	PRE(op->keys != NULL && op->key_count > 0);
	op->segments = 0;
	op->bytes = 0;
	if (!accept(store, item, ITEM_WIPE))
		return;
	wipe_submit(store, item);
}

/* -- questions -------------------------------------------------------------------------------- */

uint32_t store_chunks(struct store *store, volume_id_t volume, chunk_no_t from,
		      struct store_chunk_state *ret_states, uint32_t max)
{
	const struct index_volume *v = index_find_volume(&store->index, volume);
	uint32_t count = 0;

	while (v != NULL && count < max) {
		const struct index_chunk *c = index_next_chunk(v, from);

		if (c == NULL)
			break;
		from = c->no + 1;
		if (c->newest == 0 && c->watermark == 0)
			continue;
		ret_states[count++] = (struct store_chunk_state){
		    .chunk = c->no, .watermark = c->watermark, .newest = c->newest};
	}
	return count;
}

bool store_has_chunk(struct store *store, volume_id_t volume, chunk_no_t chunk)
{
	return index_find_chunk(&store->index, volume, chunk) != NULL;
}

/* Adds a block to the answer. False: it is full. */
static bool add_change(struct store_changes_op *op, block_no_t block,
		       const struct format_slot *slot)
{
	struct store_change *last = op->count > 0 ? &op->changes[op->count - 1] : NULL;
	const bool zero = !format_slot_has_data(slot);

	if (last != NULL && last->version == slot->version && last->zero == zero &&
	    last->block + last->block_count == block) {
		last->block_count++;
		return true;
	}
	if (op->count == MIN(op->max, STORE_CHANGES_MAX))
		return false;
	op->changes[op->count++] = (struct store_change){
	    .block = block, .block_count = 1, .version = slot->version, .zero = zero};
	return true;
}

/* Of the pages that are held. False: the answer is full. */
static bool find_changes(struct store *store, const struct lookup *l, struct store_changes_op *op)
{
	const struct index_chunk *chunk = index_find_chunk(&store->index, op->volume, op->chunk);

	for (uint32_t i = 0; chunk != NULL && i < l->block_count; i++) {
		const struct format_slot slot = index_find_slot(&store->index, chunk, l->block + i);

		if (slot.version > op->above && !add_change(op, l->block + i, &slot)) {
			op->next = l->block + i;
			return false;
		}
	}
	return true;
}

/* Goes on after what the look-up held, as long as nothing has to be waited for. True: the answer is
 * complete, or *ret_status says why there is none. */
static bool go_through(struct store *store, struct store_changes_op *op, struct lookup *l,
		       int *ret_status)
{
	for (;;) {
		block_no_t from = MAX(op->from, l->block + l->block_count);
		const struct index_chunk *chunk =
		    index_find_chunk(&store->index, op->volume, op->chunk);
		page_no_t page = UINT32_MAX;
		int rc;

		*ret_status = 0;
		if (chunk != NULL && chunk->newest > op->above)
			page = index_next_page(chunk, from >> PAGE_SHIFT);
		if (page == UINT32_MAX)
			return true;
		from = MAX(from, page * PAGE_BLOCKS);
		l->block = from;
		l->block_count = MIN(IO_BLOCKS_MAX, (uint32_t)(CHUNK_SIZE_MAX / BLOCK_SIZE) - from);
		rc = lookup_begin(store, l);
		if (rc > 0)
			return false;
		*ret_status = rc;
		if (rc < 0)
			return true;
		if (!find_changes(store, l, op)) {
			lookup_end(store, l);
			return true;
		}
		lookup_end(store, l);
	}
}

static void changes_looked_up(struct lookup *l, int status)
{
	struct item_op *item_op = container_of(l, struct item_op, lookup);
	struct store_changes_op *op = ITEM_OWNER(&item_op->item, struct store_changes_op);
	struct store *store = item_op->store;
	bool complete = status < 0;

	if (status == 0) {
		complete = !find_changes(store, l, op);
		lookup_end(store, l);
	}
	if (complete || go_through(store, op, l, &status))
		item_complete(store, &item_op->item, status);
}

void store_changes(struct store *store, struct store_changes_op *op)
{
	struct item *item = ITEM_OF(op);
	struct lookup *l = &item_op_of(item)->lookup;
	int status;

	PRE(op->volume != 0 && op->changes != NULL && op->max > 0);
	op->count = 0;
	op->next = UINT32_MAX;
	if (!accept(store, item, ITEM_CHANGES))
		return;
	*l = (struct lookup){.done = changes_looked_up, .volume = op->volume, .chunk = op->chunk};
	if (go_through(store, op, l, &status))
		item_complete_later(store, item, status);
}

void store_get_stats(const struct store *store, struct store_stats *ret_stats)
{
	const struct space *space = &store->space;
	uint64_t live = store->segments.live_blocks;

	*ret_stats = store->stats;
	ret_stats->size_bytes = space->live_max * BLOCK_SIZE;
	ret_stats->live_bytes = live * BLOCK_SIZE;
	ret_stats->free_bytes = (space->live_max - MIN(space->live_max, live)) * BLOCK_SIZE;
	ret_stats->reserve_bytes = (space->live_max_reserve - space->live_max) * BLOCK_SIZE;
	ret_stats->memory_bytes = index_memory_bytes(&store->index);
	scrub_get_stats(store, &ret_stats->scrub);
	ret_stats->index_pages = store->index.page_count;
	ret_stats->index_pages_loaded = store->index.loaded_count;
	ret_stats->index_evictions = store->index.evicted_count;
}
