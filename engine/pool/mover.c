/* mover: see mover.h. Each completion records its result and kicks; mover_run ticks. */
#include "engine/pool/mover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/pool/core.h"

static void run(struct reactor_task *task);
static void committed(struct kv_op *op, int status);

static void timer_fire(struct reactor_timer *timer)
{
	mover_kick(container_of(timer, struct mover, timer)->pool);
}

void mover_init(struct pool *pool)
{
	struct mover *m = &pool->mover;

	m->pool = pool;
	m->task.run = run;
	m->timer.fire = timer_fire;
	m->kv_op.done = committed;
}

static void free_buffers(struct mover *m)
{
	for (uint32_t i = 0; m->slots != NULL && i < MOVER_SLOTS; i++)
		free(m->slots[i].data);
	free(m->slots);
	free(m->changes);
	m->slots = NULL;
	m->changes = NULL;
}

void mover_deinit(struct pool *pool)
{
	reactor_timer_cancel(pool->reactor, &pool->mover.timer);
	free_buffers(&pool->mover);
}

void mover_kick(struct pool *pool)
{
	reactor_defer(pool->reactor, &pool->mover.task);
}

void mover_search(struct pool *pool)
{
	reactor_timer_cancel(pool->reactor, &pool->mover.timer);
	mover_kick(pool);
}

bool mover_let_go(struct pool *pool, volume_id_t volume, chunk_no_t chunk)
{
	struct mover *m = &pool->mover;

	if (m->route == NULL || m->route->volume != volume ||
	    (chunk != UINT32_MAX && m->route->chunk != chunk))
		return false;
	m->give_up = true;
	mover_kick(pool);
	return true;
}

void mover_pause(struct pool *pool)
{
	pool->mover.paused = true;
	reactor_timer_cancel(pool->reactor, &pool->mover.timer);
	mover_kick(pool);
}

static void fail(struct mover *m, int status)
{
	if (status < 0 && m->status == 0)
		m->status = status;
}

static void wait_until(struct mover *m, uint64_t at_ns)
{
	reactor_timer_arm(m->pool->reactor, &m->timer, at_ns);
}

/* -- what has changed ------------------------------------------------------------------------- */

static bool is_dirty(const struct mover *m, block_no_t block)
{
	return (m->dirty[block / 64] >> (block % 64) & 1) != 0;
}

static void set_dirty(struct mover *m, block_no_t block, bool dirty)
{
	if (is_dirty(m, block) == dirty)
		return;
	m->dirty[block / 64] ^= (uint64_t)1 << (block % 64);
	m->dirty_count += dirty ? 1 : UINT32_MAX;
}

void mover_note_change(struct pool *pool, block_no_t block, uint32_t block_count)
{
	for (uint32_t i = 0; i < block_count; i++)
		set_dirty(&pool->mover, block + i, true);
}

/* The next blocks that were changed, from the cursor on: from now on they count as copied, unless
 * they are changed again. 0: the sweep is over. */
static uint32_t take_dirty(struct mover *m, block_no_t *ret_block)
{
	uint32_t count = 0;

	while (m->cursor < MOVER_BLOCKS && !is_dirty(m, m->cursor)) {
		if (m->cursor % 64 == 0 && m->dirty[m->cursor / 64] == 0)
			m->cursor += 64;
		else
			m->cursor++;
	}
	*ret_block = m->cursor;
	while (count < MOVER_PIECE_BLOCKS && m->cursor < MOVER_BLOCKS && is_dirty(m, m->cursor)) {
		set_dirty(m, m->cursor++, false);
		count++;
	}
	return count;
}

/* -- records ---------------------------------------------------------------------------------- */

static void committed(struct kv_op *op, int status)
{
	struct mover *m = container_of(op, struct mover, kv_op);

	m->waiting = false;
	if (status < 0)
		pool_break(m->pool, status);
	mover_kick(m->pool);
}

static struct move_record record_of(const struct mover *m, enum move_state state)
{
	return (struct move_record){.volume = m->route->volume,
				    .chunk = m->route->chunk,
				    .state = state,
				    .from = m->from->uuid,
				    .to = m->to->uuid};
}

static void commit_record(struct mover *m, enum move_state state)
{
	struct pool *pool = m->pool;
	struct kv_batch *batch = kv_batch_create(pool->kv);
	struct move_record r = record_of(m, state);

	record_put_move(pool->kv, batch, &r);
	m->waiting = true;
	kv_commit(pool->kv, batch, &m->kv_op);
}

static void commit_clear(struct mover *m)
{
	struct pool *pool = m->pool;
	struct kv_batch *batch = kv_batch_create(pool->kv);

	record_delete_move(pool->kv, batch, m->route->volume, m->route->chunk);
	m->waiting = true;
	m->state = MOVER_CLEAR;
	kv_commit(pool->kv, batch, &m->kv_op);
}

/* -- choosing --------------------------------------------------------------------------------- */

/* All of them or none: without, it is tried again with the chunks that are stuck. */
static bool make_buffers(struct mover *m)
{
	bool all;

	if (m->slots != NULL)
		return true;
	m->slots = calloc(MOVER_SLOTS, sizeof *m->slots);
	m->changes = calloc(STORE_CHANGES_MAX, sizeof *m->changes);
	all = m->slots != NULL && m->changes != NULL;
	for (uint32_t i = 0; all && i < MOVER_SLOTS; i++) {
		m->slots[i].mover = m;
		m->slots[i].data =
		    aligned_alloc(BLOCK_SIZE, (size_t)MOVER_PIECE_BLOCKS * BLOCK_SIZE);
		all = m->slots[i].data != NULL;
	}
	if (!all)
		free_buffers(m);
	return all;
}

/* A chunk on a device that is being retired, from where the search stands. A copy that could not be
 * erased is not joined by a third: such a chunk stays. */
static bool may_move(const struct pool *pool, const struct route *r)
{
	const struct pool_device *d = &pool->devices[r->place];

	if (d->state != POOL_DEVICE_RETIRING || d->store == NULL || d->leaving ||
	    ops_erasing(pool, r->volume, r->chunk))
		return false;
	for (uint32_t i = 0; i < pool->kept_count; i++)
		if (pool->kept[i].volume == r->volume && pool->kept[i].chunk == r->chunk)
			return false;
	return true;
}

static struct route *find_next(struct mover *m)
{
	struct routes *t = &m->pool->routes;

	for (; m->bucket < t->bucket_count; m->bucket++)
		for (struct route *r = t->buckets[m->bucket]; r != NULL; r = r->next)
			if (may_move(m->pool, r))
				return r;
	return NULL;
}

static void empty_devices_leave(struct pool *pool)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *d = &pool->devices[i];

		if (d->state == POOL_DEVICE_RETIRING && d->chunk_count == 0 && !d->leaving)
			change_device_empty(pool, d);
	}
}

static bool anything_left(const struct pool *pool)
{
	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++)
		if (pool->devices[i].state == POOL_DEVICE_RETIRING &&
		    pool->devices[i].chunk_count > 0)
			return true;
	return false;
}

/* The search goes on behind the chunk that was stuck, and begins again later. */
static void search_ended(struct mover *m)
{
	m->bucket = 0;
	empty_devices_leave(m->pool);
	if (!anything_left(m->pool))
		return;
	if (m->timer.heap_slot == 0)
		wait_until(m, reactor_now_ns(m->pool->reactor) + MOVER_RETRY_NS);
}

static void begin(struct mover *m)
{
	struct pool *pool = m->pool;
	struct route *r;

	if (m->paused || pool->broken != 0)
		return;
	if (!anything_left(pool)) {
		m->bucket = 0;
		empty_devices_leave(pool);
		return;
	}
	if (m->bucket == 0 && m->timer.heap_slot != 0)
		return; /* everything that is left was stuck: until the timer fires */
	for (uint32_t i = 0; i < POOL_DEVICES_MAX && m->bucket == 0; i++)
		pool->devices[i].stuck = 0;
	r = make_buffers(m) ? find_next(m) : NULL;
	if (r == NULL) {
		search_ended(m);
		return;
	}
	m->from = &pool->devices[r->place];
	m->to = pool_choose(pool, m->from);
	if (m->to == NULL) {
		search_ended(m);
		return;
	}
	m->route = r;
	m->status = 0;
	m->held = m->give_up = false;
	m->sweeps = 0;
	m->cursor = 0;
	memset(m->dirty, 0, sizeof m->dirty);
	m->dirty_count = 0;
	m->state = MOVER_RECORD;
	commit_record(m, MOVE_COPYING);
}

/* -- copying ---------------------------------------------------------------------------------- */

static bool slots_are_free(const struct mover *m)
{
	for (uint32_t i = 0; i < MOVER_SLOTS; i++)
		if (m->slots[i].pending > 0)
			return false;
	return true;
}

static void slot_released(struct mover_slot *slot)
{
	if (--slot->pending == 0)
		mover_kick(slot->mover->pool);
}

static void copy_written(struct store_write *op, int status)
{
	struct mover_slot *slot = op->hook.hook[0];

	fail(slot->mover, status);
	slot_released(slot);
}

static void write_copy(struct mover_slot *slot, struct store_write *op)
{
	struct mover *m = slot->mover;

	op->done = copy_written;
	op->volume = m->route->volume;
	op->chunk = m->route->chunk;
	op->resync = true;
	op->hook.hook[0] = slot;
	slot->pending++;
	store_write(m->to->store, op);
}

static bool block_is_zero(const struct mover_slot *slot, uint32_t i)
{
	const uint8_t *data = slot->data + (size_t)i * BLOCK_SIZE;

	return slot->crcs[i] == CRC32C_ZERO_BLOCK && data[0] == 0 &&
	       memcmp(data, data + 1, BLOCK_SIZE - 1) == 0;
}

/* Runs of one version, and of one kind. */
static void write_piece(struct mover_slot *slot)
{
	const uint32_t count = slot->read.block_count;

	for (uint32_t i = 0, n; i < count; i += n) {
		const version_t version = slot->versions[i];
		const bool zero = block_is_zero(slot, i);

		for (n = 1; i + n < count && slot->versions[i + n] == version; n++)
			if (block_is_zero(slot, i + n) != zero)
				break;
		if (version == 0)
			continue; /* erased since it was listed */
		slot->writes[i] = (struct store_write){
		    .kind = zero ? STORE_ZERO : STORE_DATA,
		    .block = slot->read.block + i,
		    .block_count = n,
		    .version = version,
		    .crcs = &slot->crcs[i],
		    .data = slot->data + (size_t)i * BLOCK_SIZE,
		};
		write_copy(slot, &slot->writes[i]);
		slot->mover->from->moved_bytes += (uint64_t)n * BLOCK_SIZE;
	}
}

static void piece_read(struct store_read *op, int status)
{
	struct mover_slot *slot = op->hook.hook[0];
	struct mover *m = slot->mover;

	fail(m, status);
	if (m->status == 0)
		write_piece(slot);
	slot_released(slot);
}

static void copy_zeroes(struct mover *m, struct mover_slot *slot, const struct store_change *c)
{
	uint32_t count = MIN(c->block_count - m->done_blocks, IO_BLOCKS_MAX);

	slot->writes[0] = (struct store_write){.kind = STORE_ZERO,
					       .block = c->block + m->done_blocks,
					       .block_count = count,
					       .version = c->version};
	m->done_blocks += count;
	write_copy(slot, &slot->writes[0]);
}

static void copy_data(struct mover *m, struct mover_slot *slot, block_no_t block, uint32_t count)
{
	slot->read = (struct store_read){.done = piece_read,
					 .volume = m->route->volume,
					 .chunk = m->route->chunk,
					 .block = block,
					 .block_count = count,
					 .data = slot->data,
					 .ret_crcs = slot->crcs,
					 .ret_versions = slot->versions};
	slot->read.hook.hook[0] = slot;
	slot->pending++;
	if (!m->held)
		m->next_ns =
		    MAX(m->next_ns, reactor_now_ns(m->pool->reactor)) +
		    (uint64_t)count * BLOCK_SIZE * NS_PER_S / m->pool->config.move_bytes_per_s;
	store_read(m->from->store, &slot->read);
}

/* The next piece of the list, or NULL. */
static const struct store_change *next_change(struct mover *m)
{
	while (m->change < m->changes_op.count) {
		const struct store_change *c = &m->changes[m->change];

		if (m->done_blocks < c->block_count)
			return c;
		m->change++;
		m->done_blocks = 0;
	}
	return NULL;
}

/* Begins the next piece of this sweep in the slot. False: there is none. */
static bool copy_next(struct mover *m, struct mover_slot *slot)
{
	const struct store_change *c;
	block_no_t block;
	uint32_t count;

	if (m->sweeps > 0) {
		count = take_dirty(m, &block);
		if (count > 0)
			copy_data(m, slot, block, count);
		return count > 0;
	}
	c = next_change(m);
	if (c == NULL)
		return false;
	if (c->zero) {
		copy_zeroes(m, slot, c);
		return true;
	}
	count = MIN(c->block_count - m->done_blocks, MOVER_PIECE_BLOCKS);
	block = c->block + m->done_blocks;
	m->done_blocks += count;
	copy_data(m, slot, block, count);
	return true;
}

static void listed(struct store_changes_op *op, int status)
{
	struct mover *m = container_of(op, struct mover, changes_op);

	m->waiting = false;
	fail(m, status);
	mover_kick(m->pool);
}

static void list(struct mover *m, block_no_t from)
{
	m->changes_op = (struct store_changes_op){.done = listed,
						  .volume = m->route->volume,
						  .chunk = m->route->chunk,
						  .from = from,
						  .changes = m->changes,
						  .max = STORE_CHANGES_MAX};
	m->change = 0;
	m->done_blocks = 0;
	m->waiting = true;
	m->state = MOVER_LIST;
	store_changes(m->from->store, &m->changes_op);
}

static void sweep_ended(struct mover *m)
{
	m->cursor = 0;
	m->sweeps++;
	if (m->held && m->dirty_count == 0) {
		m->state = MOVER_MARK;
	} else if (!m->held &&
		   (m->dirty_count <= MOVER_HOLD_BLOCKS || m->sweeps >= MOVER_SWEEPS_MAX)) {
		m->held = true;
		m->route->held = true;
		m->state = MOVER_DRAIN;
	}
	mover_kick(m->pool);
}

static void copy(struct mover *m)
{
	for (uint32_t i = 0; i < MOVER_SLOTS; i++) {
		if (m->slots[i].pending > 0)
			continue;
		if (!m->held && m->next_ns > reactor_now_ns(m->pool->reactor)) {
			wait_until(m, m->next_ns);
			return;
		}
		if (!copy_next(m, &m->slots[i]))
			break;
	}
	if (!slots_are_free(m))
		return;
	if (m->sweeps == 0 && m->changes_op.next != UINT32_MAX)
		list(m, m->changes_op.next);
	else
		sweep_ended(m);
}

/* -- the change of sides ---------------------------------------------------------------------- */

static void marked(struct store_watermark_op *op, int status)
{
	struct mover *m = container_of(op, struct mover, watermark_op);

	m->waiting = false;
	fail(m, status);
	m->state = MOVER_COMMIT;
	if (m->status == 0)
		commit_record(m, MOVE_MOVED);
	mover_kick(m->pool);
}

static void mark(struct mover *m)
{
	struct store_chunk_state state = {0};
	const struct route *r = m->route;

	store_chunks(m->from->store, r->volume, r->chunk, &state, 1);
	m->waiting = true;
	m->watermark_op =
	    (struct store_watermark_op){.done = marked,
					.volume = r->volume,
					.chunk = r->chunk,
					.watermark = state.chunk == r->chunk ? state.watermark : 0};
	store_watermark(m->to->store, &m->watermark_op);
}

/* MOVED is durable. */
static void switch_sides(struct mover *m)
{
	struct pool *pool = m->pool;
	struct route *r = m->route;

	m->from->chunk_count--;
	m->to->chunk_count++;
	r->place = pool_place(pool, m->to);
	m->old_turn = r->turn;
	r->turn ^= 1;
	r->held = false;
	m->held = false;
	ops_release_held(pool, 0);
	m->state = MOVER_QUIET;
}

static void erased(struct store_erase_op *op, int status)
{
	struct mover *m = container_of(op, struct mover, erase_op);
	const enum move_state state = m->state == MOVER_UNDO ? MOVE_COPYING : MOVE_MOVED;
	struct move_record r = record_of(m, state);

	m->waiting = false;
	if (status == 0) {
		commit_clear(m);
		return;
	}
	/* Its store has failed: the record stays, and says which copy counts. */
	if (pool_keep_move(m->pool, &r) != 0)
		pool_break(m->pool, -ENOMEM);
	m->state = MOVER_CLEAR;
	mover_kick(m->pool);
}

static void erase(struct mover *m, struct pool_device *d)
{
	m->waiting = true;
	m->erase_op = (struct store_erase_op){
	    .done = erased, .volume = m->route->volume, .chunk = m->route->chunk};
	store_erase(d->store, &m->erase_op);
}

/* The chunk stays where it is. */
static void undo(struct mover *m)
{
	if (m->status < 0 && m->status != -ECANCELED) {
		log_warn(
		    "pool",
		    "chunk %u of volume %llu stays on %s for now: it cannot be moved to %s: %s",
		    m->route->chunk, (unsigned long long)m->route->volume, m->from->path,
		    m->to->path, err_text(m->status));
		m->from->stuck++;
		m->bucket++;
	}
	m->route->held = false;
	m->held = false;
	ops_release_held(m->pool, 0);
	m->state = MOVER_UNDO;
	erase(m, m->to);
}

static void end(struct mover *m)
{
	struct route *r = m->route;

	m->route = NULL;
	m->state = MOVER_IDLE;
	pool_settle_route(m->pool, r);
	ops_release_erases(m->pool);
	pool_check_device(m->pool, m->from);
	pool_check_device(m->pool, m->to);
	mover_kick(m->pool);
}

/* kv has failed: nobody may change the chunk any more. */
static void stop_broken(struct mover *m)
{
	m->route->held = false;
	m->held = false;
	ops_release_held(m->pool, m->pool->broken);
	end(m);
}

/* -- the tick --------------------------------------------------------------------------------- */

static bool wants_end(const struct mover *m)
{
	return m->status < 0 || m->give_up || m->paused || m->pool->broken != 0;
}

static bool must_give_up(struct mover *m)
{
	if (m->state > MOVER_DRAIN)
		return m->status < 0 && m->state == MOVER_COMMIT;
	if (m->give_up || m->paused)
		fail(m, -ECANCELED);
	return m->status < 0;
}

static void tick(struct mover *m)
{
	if (m->waiting)
		return;
	/* Only the next pieces may be begun while some are under way. */
	if (m->route != NULL && !slots_are_free(m) && (m->state != MOVER_COPY || wants_end(m)))
		return;
	if (m->route != NULL && m->pool->broken != 0) {
		stop_broken(m);
		return;
	}
	if (m->route != NULL && must_give_up(m)) {
		undo(m);
		return;
	}
	switch (m->state) {
	case MOVER_IDLE:
		begin(m);
		return;
	case MOVER_RECORD:
		list(m, 0);
		return;
	case MOVER_LIST:
		m->state = MOVER_COPY;
		copy(m);
		return;
	case MOVER_COPY:
		copy(m);
		return;
	case MOVER_DRAIN:
		if (m->route->writes > 0)
			return;
		m->state = MOVER_COPY;
		copy(m);
		return;
	case MOVER_MARK:
		mark(m);
		return;
	case MOVER_COMMIT:
		switch_sides(m);
		mover_kick(m->pool);
		return;
	case MOVER_QUIET:
		if (m->route->reads[m->old_turn] > 0)
			return;
		m->state = MOVER_ERASE;
		erase(m, m->from);
		return;
	case MOVER_CLEAR:
		end(m);
		return;
	case MOVER_ERASE:
	case MOVER_UNDO:
		return;
	}
	INVARIANT(false);
}

static void run(struct reactor_task *task)
{
	struct mover *m = container_of(task, struct mover, task);

	tick(m);
	if (m->paused && m->state == MOVER_IDLE)
		pool_kick_closing(m->pool);
}
