/* wipe: see wipe.h. */
#include "engine/store/wipe.h"

#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/store/core.h"

static void timer_fire(struct reactor_timer *timer);
static void op_done(struct disk_op *op, int status);

int wipe_init(struct store *store)
{
	struct wipe *w = &store->wipe;

	w->timer.fire = timer_fire;
	w->zeroes = reactor_memory(store->reactor, WIPE_PIECE_BYTES);
	if (w->zeroes == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < ARRAY_SIZE(w->iovs); i++)
		w->iovs[i] = (struct iovec){w->zeroes, WIPE_PIECE_BYTES};
	return 0;
}

void wipe_deinit(struct store *store)
{
	if (store->wipe.timer.fire != NULL)
		reactor_timer_cancel(store->reactor, &store->wipe.timer);
	reactor_memory_put(store->reactor, store->wipe.zeroes, WIPE_PIECE_BYTES);
	store->wipe.zeroes = NULL;
}

bool wipe_is_idle(const struct store *store)
{
	return !store->wipe.busy;
}

static void kick_after(struct store *store, uint64_t pause_ns)
{
	struct reactor_timer *timer = &store->wipe.timer;

	if (store->serving && timer->heap_slot == 0)
		reactor_timer_arm(store->reactor, timer, reactor_now_ns(store->reactor) + pause_ns);
}

void wipe_kick(struct store *store)
{
	if (store->wipe.state != WIPE_IDLE)
		kick_after(store, WIPE_PAUSE_NS);
}

/* -- the turn --------------------------------------------------------------------------------- */

void wipe_submit(struct store *store, struct item *item)
{
	item_push(&store->wipe.waiting, item);
	kick_after(store, 0);
}

static void unmark(struct store *store, uint32_t no)
{
	struct segment *s = &store->segments.array[no];

	INVARIANT(s->wipe != SEGMENT_WIPE_NOT && store->wipe.marked > 0);
	s->wipe = SEGMENT_WIPE_NOT;
	s->given_up = false;
	store->wipe.marked--;
	store->stats.wiping_segments = store->wipe.marked;
}

static void note_error(struct store *store, uint32_t no, int status, const char *what)
{
	struct wipe *w = &store->wipe;

	log_warn("store", "%s: segment %u cannot be %s: what was erased may be in it still: %s",
		 store->disk->name, no, what, err_text(status));
	if (w->status == 0)
		w->status = status;
	unmark(store, no);
}

static void end_turn(struct store *store)
{
	struct wipe *w = &store->wipe;
	struct item *item;

	w->state = WIPE_IDLE;
	w->to_clean = 0;
	while ((item = item_pop(&w->turn)) != NULL)
		item_complete_later(store, item, w->status);
	w->status = 0;
	w->stopping = false;
	wlog_kick(store);
	upkeep_kick(store);
	if (w->waiting.head != NULL)
		kick_after(store, 0);
}

/* Nothing more is done for those who asked. */
static void break_off(struct store *store, int status)
{
	struct wipe *w = &store->wipe;
	const struct segments *t = &store->segments;
	struct item *item;

	for (uint32_t no = t->shard; no < t->count && w->marked > 0; no += t->shard_count)
		if (t->array[no].wipe != SEGMENT_WIPE_NOT)
			unmark(store, no);
	w->status = status;
	while ((item = item_pop(&w->waiting)) != NULL)
		item_push(&w->turn, item);
	end_turn(store);
}

void store_wipe_stop(struct store *store)
{
	struct wipe *w = &store->wipe;

	if (w->state == WIPE_IDLE && w->waiting.head == NULL)
		return;
	w->stopping = true;
	kick_after(store, 0);
}

/* -- marking ---------------------------------------------------------------------------------- */

static bool concerns(const struct store_wipe_op *op, const struct segment *s)
{
	for (uint32_t i = 0; i < op->key_count; i++)
		if (segment_may_hold(s, op->keys[i].volume, op->keys[i].chunk))
			return true;
	return false;
}

static void mark(struct store *store, uint32_t no)
{
	struct segment *s = &store->segments.array[no];
	struct wipe *w = &store->wipe;

	for (struct item *item = w->turn.head; item != NULL; item = item->next) {
		struct store_wipe_op *op = ITEM_OWNER(item, struct store_wipe_op);
		uint8_t how = op->overwrite ? SEGMENT_WIPE_OVERWRITE : SEGMENT_WIPE_DISCARD;

		if (!concerns(op, s))
			continue;
		op->segments++;
		op->bytes += (uint64_t)store->segments.blocks * BLOCK_SIZE;
		w->marked += s->wipe == SEGMENT_WIPE_NOT;
		store->stats.wiping_segments = w->marked;
		s->wipe = MAX(s->wipe, how);
	}
	if (s->wipe == SEGMENT_WIPE_NOT)
		return;
	s->stuck = false; /* what was damaged may have been repaired */
	s->given_up = false;
	if (s->state == SEGMENT_OPEN)
		wlog_leave_segment(store, no);
}

/* False: it goes on in a later turn of the reactor. */
static bool mark_some(struct store *store)
{
	const struct segments *t = &store->segments;
	struct wipe *w = &store->wipe;
	uint64_t keys = 0, checks = 0;

	for (struct item *item = w->turn.head; item != NULL; item = item->next)
		keys += ITEM_OWNER(item, struct store_wipe_op)->key_count;
	for (; w->next < t->count && checks < WIPE_CHECKS; w->next += t->shard_count) {
		mark(store, w->next);
		checks += keys;
	}
	return w->next >= t->count;
}

/* -- wiping ----------------------------------------------------------------------------------- */

static void submit(struct store *store)
{
	struct wipe *w = &store->wipe;
	const uint32_t bytes = store->segments.blocks * BLOCK_SIZE;
	const bool overwrite = store->segments.array[w->segment].wipe == SEGMENT_WIPE_OVERWRITE;

	w->busy = true;
	w->op.kind = overwrite ? DISK_WRITE : DISK_DISCARD;
	w->op.offset =
	    (uint64_t)segments_first_block(&store->segments, w->segment) * BLOCK_SIZE + w->offset;
	w->op.size = overwrite ? MIN((uint32_t)WIPE_WRITE_BYTES, bytes - w->offset) : bytes;
	/* The last one makes all of them durable. */
	w->op.durable = overwrite && w->offset + w->op.size == bytes;
	w->op.iovs = w->iovs;
	w->op.iov_count = overwrite ? (uint32_t)(w->op.size / WIPE_PIECE_BYTES) : 0;
	w->op.done = op_done;
	disk_submit(store->disk, &w->op);
}

static void op_done(struct disk_op *op, int status)
{
	struct store *store = container_of(op, struct store, wipe.op);
	struct wipe *w = &store->wipe;
	struct segment *s = &store->segments.array[w->segment];
	const bool overwrite = s->wipe == SEGMENT_WIPE_OVERWRITE;

	w->offset += (uint32_t)op->size;
	if (status == 0 && !w->stopping && store->failed == 0 &&
	    w->offset < store->segments.blocks * BLOCK_SIZE) {
		submit(store);
		return;
	}
	w->busy = false;
	s->busy = false;
	if (status < 0) {
		note_error(store, w->segment, status, overwrite ? "overwritten" : "discarded");
	} else if (w->offset == store->segments.blocks * BLOCK_SIZE) {
		if (overwrite)
			s->traces = (struct format_traces){0};
		s->wiped = overwrite;
		s->primed = overwrite || (s->primed && !store->disk->needs_priming);
		store->stats.wiped_segments++;
		unmark(store, w->segment);
	}
	wlog_kick(store);
	kick_after(store, 0);
	store_close_tick(store);
}

static void begin_segment(struct store *store, uint32_t no)
{
	store->segments.array[no].busy = true;
	store->wipe.segment = no;
	store->wipe.offset = 0;
	submit(store);
}

/* -- steps ------------------------------------------------------------------------------------ */

/* Sees to each marked segment. True: something has to be waited for that nobody tells of. */
static bool empty_some(struct store *store)
{
	struct segments *t = &store->segments;
	struct wipe *w = &store->wipe;
	bool wants_checkpoint = false, waits = false;

	w->to_clean = 0;
	for (uint32_t no = t->shard; no < t->count && w->marked > 0; no += t->shard_count) {
		struct segment *s = &t->array[no];

		if (s->wipe == SEGMENT_WIPE_NOT)
			continue;
		if (s->stuck && s->pins == 0 && !s->given_up) {
			s->given_up = true;
			s->stuck = false;
		}
		if (s->state == SEGMENT_FREE || s->state == SEGMENT_RESERVED) {
			if (!w->busy && !s->busy && s->pins == 0)
				begin_segment(store, no);
			else
				waits = true;
		} else if (s->empty) {
			wants_checkpoint = wants_checkpoint || s->planned == SEGMENT_FOREIGN;
		} else if (s->unapplied > 0) {
			waits = true;
		} else if (s->stuck && s->pins == 0) {
			note_error(store, no, -E_BAD_CRC, "emptied");
		} else if (s->stuck) {
			waits = true; /* for who reads it */
		} else {
			w->to_clean++;
		}
	}
	if (w->to_clean > 0)
		cleaner_kick(store);
	else if (wants_checkpoint && store->checkpoint.state == CHECKPOINT_IDLE)
		checkpoint_want_room(store);
	return waits;
}

static void begin_turn(struct store *store)
{
	struct wipe *w = &store->wipe;

	w->turn = w->waiting;
	w->waiting = (struct item_queue){0};
	w->next = store->segments.shard;
	w->state = WIPE_BURYING;
}

static void tick(struct store *store)
{
	struct wipe *w = &store->wipe;

	if (w->stopping || store->failed != 0) {
		if (!w->busy)
			break_off(store, store->failed != 0 ? store->failed : -ECANCELED);
		return;
	}
	switch (w->state) {
	case WIPE_IDLE:
		if (w->waiting.head == NULL)
			return;
		begin_turn(store);
		kick_after(store, 0);
		return;
	case WIPE_BURYING:
		if (store->index.graves != NULL)
			return;
		w->state = WIPE_MARKING;
		kick_after(store, 0);
		return;
	case WIPE_MARKING:
		if (mark_some(store))
			w->state = WIPE_EMPTYING;
		kick_after(store, WIPE_PAUSE_NS);
		return;
	case WIPE_EMPTYING:
		if (empty_some(store))
			kick_after(store, WIPE_LOOK_NS);
		if (w->marked == 0 && !w->busy)
			end_turn(store);
		return;
	}
	INVARIANT(false);
}

static void timer_fire(struct reactor_timer *timer)
{
	tick(container_of(timer, struct store, wipe.timer));
}
