/* upkeep: see upkeep.h. */
#include "engine/store/upkeep.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/store/core.h"

static void timer_fire(struct reactor_timer *timer);

int upkeep_init(struct store *store)
{
	struct upkeep *u = &store->upkeep;

	u->timer.fire = timer_fire;
	u->discards = calloc(store->segments.own_count, sizeof *u->discards);
	if (u->discards == NULL)
		return -ENOMEM;
	if (!store->disk->needs_priming)
		return 0;
	u->zeroes = reactor_memory(store->reactor, UPKEEP_PRIME_BYTES);
	return u->zeroes != NULL ? 0 : -ENOMEM;
}

void upkeep_deinit(struct store *store)
{
	struct upkeep *u = &store->upkeep;

	if (u->timer.fire != NULL)
		reactor_timer_cancel(store->reactor, &u->timer);
	reactor_memory_put(store->reactor, u->zeroes, UPKEEP_PRIME_BYTES);
	u->zeroes = NULL;
	free(u->discards);
	u->discards = NULL;
}

void upkeep_kick(struct store *store)
{
	if (store->upkeep.timer.heap_slot == 0 && store->serving)
		reactor_timer_arm(store->reactor, &store->upkeep.timer,
				  reactor_now_ns(store->reactor) + UPKEEP_PAUSE_NS);
}

bool upkeep_is_idle(const struct store *store)
{
	return !store->upkeep.busy;
}

/* -- discarding ------------------------------------------------------------------------------- */

void upkeep_freed(struct store *store, uint32_t segment)
{
	struct upkeep *u = &store->upkeep;

	/* What was written once is quick to write again: it stays. What is to be wiped is so soon.
	 */
	if (store->disk->needs_priming || store->segments.array[segment].busy ||
	    store->segments.array[segment].wipe != SEGMENT_WIPE_NOT)
		return;
	store->segments.array[segment].busy = true;
	u->discards[(u->discard_head + u->discard_count++) % store->segments.own_count] = segment;
}

static void op_done(struct disk_op *op, int status);

static void submit(struct store *store, enum disk_op_kind kind, uint64_t offset, uint64_t size)
{
	struct upkeep *u = &store->upkeep;

	u->busy = true;
	u->op.kind = kind;
	u->op.durable = false;
	u->op.offset = offset;
	u->op.size = size;
	u->op.iov[0] = (struct iovec){u->zeroes, size};
	u->op.iovs = u->op.iov;
	u->op.iov_count = 1;
	u->op.done = op_done;
	disk_submit(store->disk, &u->op);
}

static uint64_t segment_offset(const struct store *store, uint32_t no)
{
	return (uint64_t)segments_first_block(&store->segments, no) * BLOCK_SIZE;
}

/* A read that began before the segment was given back may still be under way: then later. */
static bool discard_next(struct store *store)
{
	struct upkeep *u = &store->upkeep;
	uint32_t no;

	if (u->discard_count == 0)
		return false;
	no = u->discards[u->discard_head];
	if (store->segments.array[no].pins > 0) {
		upkeep_kick(store);
		return false;
	}
	u->discard_head = (u->discard_head + 1) % store->segments.own_count;
	u->discard_count--;
	u->segment = no;
	u->priming = false;
	submit(store, DISK_DISCARD, segment_offset(store, no),
	       (uint64_t)store->segments.blocks * BLOCK_SIZE);
	return true;
}

/* -- priming ---------------------------------------------------------------------------------- */

static void prime_more(struct store *store)
{
	struct upkeep *u = &store->upkeep;
	uint32_t size = store->segments.blocks * BLOCK_SIZE;

	/* Writes go first, unless they wait for a segment: perhaps for this one. */
	if (store->wlog.streams[WLOG_HOT].data.count > 0 &&
	    !store->wlog.streams[WLOG_HOT].stalled && !store->wlog.streams[WLOG_COLD].stalled) {
		reactor_timer_arm(store->reactor, &u->timer,
				  reactor_now_ns(store->reactor) + UPKEEP_PRIME_PAUSE_NS);
		return;
	}
	submit(store, DISK_WRITE, segment_offset(store, u->segment) + u->primed,
	       MIN((uint32_t)UPKEEP_PRIME_BYTES, size - u->primed));
}

/* One that could be opened now is enough for each stream; beyond that nothing is written ahead. */
static bool prime_next(struct store *store)
{
	struct segments *t = &store->segments;
	struct upkeep *u = &store->upkeep;
	uint32_t found = SEGMENT_NONE;
	uint32_t ready = 0;

	if (u->zeroes == NULL || store->closing || store->failed != 0)
		return false;
	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		const struct segment *s = &t->array[no];

		/* A read of what lay there before may still be under way. */
		if (s->state != SEGMENT_RESERVED || (s->pins > 0 && !s->primed) ||
		    s->wipe != SEGMENT_WIPE_NOT)
			continue;
		if (s->primed)
			ready++;
		else if (found == SEGMENT_NONE)
			found = no;
	}
	if (ready >= WLOG_STREAMS || found == SEGMENT_NONE)
		return false;
	t->array[found].busy = true;
	u->segment = found;
	u->primed = 0;
	u->priming = true;
	prime_more(store);
	return true;
}

static void op_done(struct disk_op *op, int status)
{
	struct store *store = container_of(op, struct store, upkeep.op);
	struct upkeep *u = &store->upkeep;
	struct segment *s = &store->segments.array[u->segment];

	u->busy = false;
	if (u->priming && status == 0 && !store->closing) {
		u->primed += (uint32_t)op->size;
		if (u->primed < store->segments.blocks * BLOCK_SIZE) {
			prime_more(store);
			return;
		}
	}
	/* A failure costs only time, or space on a thin device: whatever the segment is used for
	 * next will tell. It isn't tried again. */
	if (u->priming && !store->closing)
		s->primed = true;
	u->priming = false;
	s->busy = false;
	wlog_kick(store);
	upkeep_kick(store);
	wipe_kick(store);
	store_close_tick(store);
}

static void timer_fire(struct reactor_timer *timer)
{
	struct store *store = container_of(timer, struct store, upkeep.timer);

	if (store->upkeep.busy)
		return;
	if (store->upkeep.priming && !store->closing)
		prime_more(store);
	else if (!discard_next(store))
		prime_next(store);
}
