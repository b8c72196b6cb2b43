/* wlog: see wlog.h. */
#include "engine/store/wlog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/probe.h"
#include "engine/store/apply.h"
#include "engine/store/core.h"

#define COPY_BLOCKS (STORE_COPY_MAX / BLOCK_SIZE)
#define GROUP_BYTES ((size_t)FORMAT_GROUP_BLOCKS_MAX * BLOCK_SIZE)

static void pump_run(struct reactor_task *task);

/* -- start and end ---------------------------------------------------------------------------- */

static int stream_init(struct store *store, uint8_t kind, uint32_t in_flight_max,
		       struct wlog_group *groups)
{
	struct wlog_stream *s = &store->wlog.streams[kind];

	s->store = store;
	s->kind = kind;
	s->in_flight_max = in_flight_max;
	s->segment = SEGMENT_NONE;
	for (uint32_t i = 0; i < in_flight_max; i++) {
		struct wlog_group *g = &groups[i];

		g->stream = s;
		g->buffer = reactor_memory(store->reactor, GROUP_BYTES);
		if (g->buffer == NULL)
			return -ENOMEM;
		g->next = s->groups_free;
		s->groups_free = g;
	}
	return 0;
}

int wlog_init(struct store *store, uint32_t groups_in_flight, uint32_t fill_blocks)
{
	uint32_t hot = groups_in_flight > 0 ? groups_in_flight : WLOG_GROUPS_IN_FLIGHT;
	struct wlog *wlog = &store->wlog;
	int rc;

	hot = MIN(hot, WLOG_GROUPS_IN_FLIGHT_MAX);
	wlog->pump.run = pump_run;
	wlog->next_seq = 1;
	wlog->fill_blocks = fill_blocks > 0 ? fill_blocks : WLOG_FILL_BLOCKS;
	wlog->group_count = hot + WLOG_COLD_GROUPS_IN_FLIGHT;
	wlog->groups = calloc(wlog->group_count, sizeof *wlog->groups);
	if (wlog->groups == NULL)
		return -ENOMEM;
	rc = stream_init(store, WLOG_HOT, hot, wlog->groups);
	if (rc == 0)
		rc = stream_init(store, WLOG_COLD, WLOG_COLD_GROUPS_IN_FLIGHT, wlog->groups + hot);
	return rc;
}

void wlog_deinit(struct store *store)
{
	for (uint32_t i = 0; store->wlog.groups != NULL && i < store->wlog.group_count; i++)
		reactor_memory_put(store->reactor, store->wlog.groups[i].buffer, GROUP_BYTES);
	free(store->wlog.groups);
	store->wlog.groups = NULL;
}

/* -- what an operation writes ----------------------------------------------------------------- */

struct payload {
	const uint8_t *data;
	const uint32_t *crcs;
};

static void describe_write(const struct item *item, struct format_entry *e, struct payload *p)
{
	const struct store_write *op = ITEM_OWNER(item, struct store_write);

	*e = (struct format_entry){
	    .kind = item->kind,
	    .flags = op->resync ? FORMAT_FLAG_RESYNC : 0,
	    .block_count = (uint16_t)op->block_count,
	    .block = op->block,
	    .volume = op->volume,
	    .chunk = op->chunk,
	    .version = op->version,
	    .watermark = op->watermark,
	};
	*p = (struct payload){.data = op->data, .crcs = op->crcs};
}

static void describe(const struct item *item, struct format_entry *e, struct payload *p)
{
	*p = (struct payload){0};
	switch ((enum item_kind)item->kind) {
	case ITEM_DATA:
	case ITEM_ZERO:
	case ITEM_DISCARD:
		describe_write(item, e, p);
		return;
	case ITEM_MOVE:
		cleaner_describe(item, e, &p->data, &p->crcs);
		return;
	case ITEM_FENCE: {
		const struct store_fence_op *op = ITEM_OWNER(item, struct store_fence_op);

		*e = (struct format_entry){
		    .kind = FORMAT_FENCE, .volume = op->volume, .version = op->generation};
		return;
	}
	case ITEM_WATERMARK: {
		const struct store_watermark_op *op = ITEM_OWNER(item, struct store_watermark_op);

		*e = (struct format_entry){.kind = FORMAT_WATERMARK,
					   .volume = op->volume,
					   .chunk = op->chunk,
					   .watermark = op->watermark};
		return;
	}
	case ITEM_ERASE: {
		const struct store_erase_op *op = ITEM_OWNER(item, struct store_erase_op);

		*e = (struct format_entry){
		    .kind = FORMAT_ERASE, .volume = op->volume, .chunk = op->chunk};
		return;
	}
	case ITEM_READ:
	case ITEM_CHANGES:
	case ITEM_WIPE:
		break;
	}
	INVARIANT(false);
}

/* What must hold when an operation is gathered, though it was checked when it was submitted: a
 * fence may have come in between, and space may have gone. 0, -EAGAIN, or why it fails. */
static int may_gather(struct store *store, struct item *item)
{
	const struct store_write *op;

	if (item->kind > ITEM_DISCARD)
		return 0;
	op = ITEM_OWNER(item, struct store_write);
	/* The rest of a write that was begun too: nothing of it may come after the fence. */
	if (!op->resync && version_generation(op->version) <
			       store_generation(store, op->owner != 0 ? op->owner : op->volume))
		return -E_FENCED;
	return item->kind == ITEM_DATA && item->cursor == 0 ? space_admit(store, item) : 0;
}

/* -- gathering -------------------------------------------------------------------------------- */

/* How many data blocks of `want` the group can take with one more entry; for an entry without data
 * 1 or 0. */
static uint32_t group_fits(const struct wlog_group *g, uint32_t want, bool has_data)
{
	uint32_t d = g->data_blocks;
	uint32_t n;

	if (g->entry_count == FORMAT_GROUP_ENTRIES_MAX)
		return 0;
	if (!has_data)
		return format_header_blocks(g->entry_count + 1, d) + d <= g->room ? 1 : 0;
	n = MIN(want, FORMAT_GROUP_DATA_MAX - d);
	n = MIN(n, g->room - d);
	while (n > 0 && format_header_blocks(g->entry_count + 1, d + n) + d + n > g->room)
		n--;
	return n;
}

static uint8_t *group_data(const struct wlog_group *g, uint32_t data_block)
{
	return g->buffer + (size_t)(FORMAT_GROUP_HEADER_MAX + data_block) * BLOCK_SIZE;
}

static void group_add_iov(struct wlog_group *g, const void *data, size_t size)
{
	struct iovec *last = &g->iovs[g->iov_count - 1];

	if (g->iov_count > 1 && (const uint8_t *)last->iov_base + last->iov_len == data) {
		last->iov_len += size;
		return;
	}
	INVARIANT(g->iov_count < DISK_IOV_MAX);
	g->iovs[g->iov_count++] = (struct iovec){(void *)(uintptr_t)data, size};
}

/* The group that is taken next. NULL: all are in flight. */
static struct wlog_group *stage_of(struct wlog_stream *s)
{
	if (s->next == NULL && s->groups_free != NULL) {
		s->next = s->groups_free;
		s->groups_free = s->next->next;
		s->stage++;
		s->staged_blocks = 0;
		s->staged_items = 0;
	}
	return s->next;
}

/* Copies a small payload to where it will be when all before it fits. False: there is no place. */
static bool stage_data(struct wlog_stream *s, struct item *item)
{
	struct store_write *op = ITEM_OWNER(item, struct store_write);
	struct wlog_group *g = stage_of(s);
	uint8_t *place;

	if (g == NULL || op->block_count > COPY_BLOCKS ||
	    s->staged_blocks + op->block_count > FORMAT_GROUP_DATA_MAX)
		return false;
	place = group_data(g, s->staged_blocks);
	memcpy(place, op->data, (size_t)op->block_count * BLOCK_SIZE);
	if (op->copy != NULL)
		op->data = place;
	item->stage = s->stage;
	item->staged = s->staged_blocks;
	s->staged_blocks += op->block_count;
	s->staged_items++;
	return true;
}

/* What lies in g and is not of it leaves it: for the next stage, in order, or, when g is to be
 * written to, for its owner's memory. */
static void unstage(struct wlog_stream *s, struct wlog_group *g, bool to_next)
{
	for (struct item *item = s->data.head; item != NULL && g->staged_items > 0;
	     item = item->next) {
		struct store_write *op = ITEM_OWNER(item, struct store_write);

		if (item->stage != g->stage)
			continue;
		g->staged_items--;
		item->stage = 0;
		if (to_next && item->cursor == 0 && stage_data(s, item))
			continue;
		if (op->copy != NULL)
			store_write_keep(op, op->data);
	}
	g->stage = 0;
	g->staged_items = 0;
}

static bool is_staged(const struct wlog_group *g, const struct item *item)
{
	return item->cursor == 0 && item->stage != 0 && item->stage == g->stage &&
	       item->staged == g->data_blocks;
}

/* Small payloads are copied, so that a group of them is one contiguous write. */
static void group_add_data(struct wlog_group *g, const struct payload *p, const struct item *item,
			   uint32_t count)
{
	const uint8_t *data = p->data + (size_t)item->cursor * BLOCK_SIZE;
	uint8_t *own = group_data(g, g->data_blocks);
	size_t size = (size_t)count * BLOCK_SIZE;

	memcpy(&g->crcs[g->data_blocks], &p->crcs[item->cursor], count * sizeof *p->crcs);
	if (count <= COPY_BLOCKS || (uintptr_t)data % BLOCK_SIZE != 0) {
		if (!is_staged(g, item))
			memcpy(own, data, size);
		data = own;
	}
	group_add_iov(g, data, size);
	g->data_blocks += count;
}

/* Blocks of data that it still brings from a client or from resync. */
static uint32_t item_waits(const struct item *item)
{
	return item->kind == ITEM_DATA
		   ? ITEM_OWNER(item, struct store_write)->block_count - item->cursor
		   : 0;
}

/* Adds as much of the item as fits. True: all of it is in now; false: the group is full. */
static bool group_add(struct store *store, struct wlog_group *g, struct item *item)
{
	struct format_entry e;
	struct payload p;
	uint32_t want, fits;
	bool has_data;

	describe(item, &e, &p);
	has_data = e.kind == FORMAT_DATA;
	want = has_data ? e.block_count - item->cursor : 1;
	fits = group_fits(g, want, has_data);
	/* A large payload that would fit a group of its own isn't cut to fill up this one. */
	if (fits == 0 || (fits < want && want > COPY_BLOCKS && g->entry_count > 0))
		return false;
	if (has_data && g->staged_items > 0 && !is_staged(g, item)) {
		unstage(g->stream, g, false);
		describe(item, &e, &p);
	}
	if (has_data) {
		e.block += item->cursor;
		e.block_count = (uint16_t)fits;
		e.data_first = g->data_blocks;
		group_add_data(g, &p, item, fits);
	}
	if (item->cursor == 0) {
		g->growth += item->growth;
		store->wlog.pending_growth += item->growth;
	}
	g->entries[g->entry_count] = e;
	g->items[g->entry_count++] = item;
	if (item->kind == ITEM_DATA)
		g->stream->waiting_blocks -= fits;
	item->parts++;
	item->cursor += fits;
	return fits == want;
}

static void item_give_up(struct wlog_stream *s, struct item *item, int status)
{
	struct store *store = s->store;

	s->waiting_blocks -= item_waits(item);
	item->gathered = true;
	item->status = status;
	if (item->parts == 0)
		item_complete_later(store, item, status);
}

/* Returns false when the group is full or the queue must wait. */
static bool gather_queue(struct wlog_stream *s, struct wlog_group *g, struct item_queue *q)
{
	struct store *store = s->store;

	while (q->head != NULL && g->entry_count < g->share) {
		struct item *item = q->head;
		int rc = may_gather(store, item);

		if (rc == -EAGAIN)
			return false;
		if (rc == 0 && !group_add(store, g, item))
			return false;
		item_pop(q);
		if (item->stage != 0 && item->stage == g->stage)
			g->staged_items--;
		if (rc < 0)
			item_give_up(s, item, rc);
		else
			item->gathered = true;
	}
	return true;
}

/* -- places ----------------------------------------------------------------------------------- */

static void stream_seal(struct wlog_stream *s)
{
	const uint32_t blocks = s->store->segments.blocks;
	struct segment *segment;

	if (s->segment == SEGMENT_NONE)
		return;
	segment = &s->store->segments.array[s->segment];
	/* It was written from end to end now, but for a block at most. */
	if (blocks - s->offset < 2)
		segment->primed = true;
	if (s->offset == blocks)
		segment->traces.before = (struct format_remains){0};
	segments_set_state(&s->store->segments, s->segment, SEGMENT_SEALED);
	s->segment = SEGMENT_NONE;
}

static bool stream_open_segment(struct wlog_stream *s, enum space_user user)
{
	struct store *store = s->store;

	if (!space_may_open(store, user))
		return false;
	s->segment = segments_open(&store->segments, s->kind);
	if (s->segment == SEGMENT_NONE)
		return false;
	s->offset = 0;
	s->segment_is_clients = user == SPACE_CLIENT || user == SPACE_RESYNC;
	upkeep_kick(store);
	cleaner_kick(store);
	return true;
}

/* How many blocks the next group may take; 0: none. *ret_data: data of clients may go in too. */
static uint32_t stream_room(struct wlog_stream *s, bool *ret_data)
{
	enum space_user users = s->kind == WLOG_HOT ? SPACE_CLIENT : SPACE_RESYNC;
	enum space_user urgent = s->kind == WLOG_HOT ? SPACE_URGENT : SPACE_CLEANER;
	struct segments *t = &s->store->segments;

	/* Less than a header and a block is left over. */
	if (s->segment != SEGMENT_NONE && t->blocks - s->offset < 2)
		stream_seal(s);
	if (s->segment == SEGMENT_NONE &&
	    !(s->data.head != NULL && stream_open_segment(s, users)) &&
	    !(s->urgent.head != NULL && stream_open_segment(s, urgent)))
		return 0;
	if (!s->segment_is_clients && space_may_open(s->store, users))
		s->segment_is_clients = true;
	*ret_data = s->segment_is_clients;
	return MIN(t->blocks - s->offset, FORMAT_GROUP_BLOCKS_MAX);
}

/* -- submitting ------------------------------------------------------------------------------- */

static void group_written(struct disk_op *op, int status);

/* Beside others it is worth a group of its own only when there is enough of it. */
static bool is_worth_a_group(const struct wlog_stream *s)
{
	return s->in_flight == 0 || s->kind == WLOG_COLD ||
	       s->waiting_blocks >= s->store->wlog.fill_blocks;
}

/* What waits is shared out over the groups that may be in flight, as far as each is filled, so that
 * they overlap even when all of it came at once. */
static uint32_t group_share(const struct wlog_stream *s)
{
	uint32_t waiting = s->urgent.count + s->data.count;
	uint32_t slots = s->in_flight_max - s->in_flight;

	if (s->kind == WLOG_COLD)
		return WLOG_COLD_SHARE;
	return MAX(s->store->wlog.fill_blocks, (waiting + slots - 1) / slots);
}

static struct wlog_group *group_take(struct wlog_stream *s, uint32_t room)
{
	struct wlog_group *g = stage_of(s);

	INVARIANT(g != NULL);
	s->next = NULL;
	g->next = NULL;
	g->stage = s->stage;
	g->staged_items = s->staged_items;
	g->complete = false;
	g->status = 0;
	g->room = room;
	g->share = group_share(s);
	g->data_blocks = 0;
	g->entry_count = 0;
	g->growth = 0;
	g->iov_count = 1;
	return g;
}

/* It took nothing: it is the stage again, with what lies in it. */
static void group_put_back(struct wlog_stream *s, struct wlog_group *g)
{
	INVARIANT(s->next == NULL && g->stage == s->stage);
	s->next = g;
	s->staged_items = g->staged_items;
}

static void group_give(struct wlog_group *g)
{
	g->next = g->stream->groups_free;
	g->stream->groups_free = g;
}

/* The header goes right in front of the data, in one piece with it when that was copied. */
static void group_encode(struct wlog_stream *s, struct wlog_group *g)
{
	struct store *store = s->store;
	uint8_t *header;
	size_t size;

	g->header_blocks = format_header_blocks(g->entry_count, g->data_blocks);
	size = (size_t)g->header_blocks * BLOCK_SIZE;
	header = group_data(g, 0) - size;
	format_group_encode(
	    &(struct format_group){
		.stream = s->kind,
		.header_blocks = (uint8_t)g->header_blocks,
		.entry_count = g->entry_count,
		.device = store->super.device,
		.segment = g->segment,
		.epoch = store->segments.array[g->segment].epoch,
		.first_block = g->first_block,
		.data_blocks = g->data_blocks,
		.seq = g->seq,
		.prev_seq = s->last_seq,
		.durable_seq = s->durable_seq,
		.other_durable_seq = store->wlog.streams[1 - s->kind].durable_seq,
	    },
	    g->entries, g->crcs, header);
	g->iovs[0] = (struct iovec){header, size};
	g->op.iovs = g->iovs;
	g->op.iov_count = g->iov_count;
	if (g->iov_count > 1 && g->iovs[1].iov_base == group_data(g, 0)) {
		g->iovs[1].iov_base = header;
		g->iovs[1].iov_len += size;
		g->op.iovs = &g->iovs[1];
		g->op.iov_count--;
	}
}

/* Before it is written: who looks for what is left of a chunk must not miss it. */
static void leave_traces(struct segment *segment, const struct wlog_group *g)
{
	const struct format_entry *last = NULL;

	for (uint32_t i = 0; i < g->entry_count; i++) {
		const struct format_entry *e = &g->entries[i];

		if (e->kind != FORMAT_DATA ||
		    (last != NULL && last->volume == e->volume && last->chunk == e->chunk))
			continue;
		format_remains_add(&segment->traces.now, e->volume, e->chunk);
		last = e;
	}
}

static void group_submit(struct wlog_stream *s, struct wlog_group *g)
{
	struct store *store = s->store;
	struct segment *segment = &store->segments.array[s->segment];
	uint32_t blocks;

	g->segment = s->segment;
	g->first_block = s->offset;
	g->seq = store->wlog.next_seq++;
	group_encode(s, g);
	blocks = g->header_blocks + g->data_blocks;
	INVARIANT(blocks <= g->room);
	leave_traces(segment, g);
	s->last_seq = g->seq;
	s->offset += blocks;
	segment->used = s->offset;
	segment->last_seq = g->seq;
	segment->unapplied++;
	store->wlog.unapplied++;
	if (s->head == NULL)
		s->head = g;
	else
		s->tail->next = g;
	s->tail = g;
	s->in_flight++;
	if (s->traced)
		reactor_refresh(store->reactor);
	s->traced = false;
	g->begun_ns = reactor_now_ns(store->reactor);
	PROBE(log_write, g->seq, g->entry_count, blocks);
	g->op.kind = DISK_WRITE;
	g->op.durable = true;
	g->op.offset =
	    (uint64_t)(segments_first_block(&store->segments, g->segment) + g->first_block) *
	    BLOCK_SIZE;
	g->op.size = (uint64_t)blocks * BLOCK_SIZE;
	g->op.done = group_written;
	store->checkpoint.log_bytes += g->op.size;
	store->checkpoint.log_total += g->op.size;
	if (s->kind == WLOG_HOT) {
		store->stats.groups++;
		store->stats.group_bytes += g->op.size;
	}
	disk_submit(store->disk, &g->op);
}

/* -- the pump --------------------------------------------------------------------------------- */

static void fail_queue(struct wlog_stream *s, struct item_queue *q, int status)
{
	struct item *item;

	while ((item = item_pop(q)) != NULL)
		item_give_up(s, item, status);
	if (q == &s->data)
		s->staged_blocks = s->staged_items = 0;
}

static void stream_pump(struct wlog_stream *s)
{
	struct store *store = s->store;

	if (store->failed != 0) {
		fail_queue(s, &s->urgent, store->failed);
		fail_queue(s, &s->data, store->failed);
	}
	s->stalled = false;
	while (s->in_flight < s->in_flight_max && is_worth_a_group(s) &&
	       !checkpoint_is_far(store) && (s->urgent.head != NULL || s->data.head != NULL)) {
		bool data_may = false;
		uint32_t room = stream_room(s, &data_may);
		struct wlog_group *g;

		if (room == 0 || (!data_may && s->urgent.head == NULL)) {
			s->stalled = true;
			break;
		}
		if (s->urgent.head == NULL && !cleaner_lets_write(store, s->kind))
			break;
		g = group_take(s, room);
		if (gather_queue(s, g, &s->urgent) && data_may)
			gather_queue(s, g, &s->data);
		if (g->entry_count == 0) {
			group_put_back(s, g);
			break;
		}
		unstage(s, g, true);
		cleaner_charge(store, s->kind, g->data_blocks);
		group_submit(s, g);
	}
	if (s->stalled)
		cleaner_kick(store);
}

static void pump_run(struct reactor_task *task)
{
	struct store *store = container_of(task, struct store, wlog.pump);

	stream_pump(&store->wlog.streams[WLOG_HOT]);
	stream_pump(&store->wlog.streams[WLOG_COLD]);
	checkpoint_consider(store);
	store_close_tick(store);
}

void wlog_kick(struct store *store)
{
	reactor_defer(store->reactor, &store->wlog.pump);
}

void wlog_trace(struct store *store, enum wlog_kind kind)
{
	store->wlog.streams[kind].traced = true;
}

void wlog_submit(struct store *store, struct item *item, enum wlog_kind kind, bool urgent)
{
	struct wlog_stream *s = &store->wlog.streams[kind];

	item->stage = 0;
	if (item->kind == ITEM_DATA)
		stage_data(s, item);
	item_push(urgent ? &s->urgent : &s->data, item);
	s->waiting_blocks += item_waits(item);
	wlog_kick(store);
}

void wlog_no_space(struct store *store, enum wlog_kind kind)
{
	struct wlog_stream *s = &store->wlog.streams[kind];

	fail_queue(s, &s->data, -ENOSPC);
}

void wlog_leave_segment(struct store *store, uint32_t segment)
{
	for (uint32_t i = 0; i < WLOG_STREAMS; i++)
		if (store->wlog.streams[i].segment == segment)
			stream_seal(&store->wlog.streams[i]);
}

bool wlog_is_idle(const struct store *store)
{
	const struct wlog *wlog = &store->wlog;

	for (uint32_t i = 0; i < WLOG_STREAMS; i++)
		if (wlog->streams[i].in_flight > 0 || wlog->streams[i].urgent.head != NULL ||
		    wlog->streams[i].data.head != NULL)
			return false;
	return true;
}

bool wlog_has_waiting(const struct store *store)
{
	return store->wlog.streams[WLOG_HOT].data.head != NULL ||
	       store->wlog.streams[WLOG_HOT].urgent.head != NULL ||
	       store->wlog.streams[WLOG_COLD].data.head != NULL;
}

/* -- completion ------------------------------------------------------------------------------- */

/* The page of an entry of the group, which is not one that a group before changed lately: what it
 * consists of comes from memory, while the entries before are applied. */
#define APPLY_AHEAD 4u

static struct index_page *held_page(const struct wlog_group *g, uint32_t entry)
{
	struct item *item;

	if (entry >= g->entry_count)
		return NULL;
	item = g->items[entry];
	if (item->kind > ITEM_DISCARD && item->kind != ITEM_MOVE)
		return NULL;
	return lookup_first_page(&item_op_of(item)->lookup);
}

static void apply_ahead(const struct wlog_group *g, uint32_t entry)
{
	const struct index_page *far = held_page(g, entry + 2 * APPLY_AHEAD);
	const struct index_page *near = held_page(g, entry + APPLY_AHEAD);

	if (far != NULL) {
		__builtin_prefetch(far, 1);
		__builtin_prefetch((const uint8_t *)far + 64, 1);
	}
	if (near != NULL)
		index_prefetch_page(near);
}

static void group_apply(struct store *store, struct wlog_group *g)
{
	struct apply_context ctx = {
	    .crcs = g->crcs,
	    .data_block = segments_first_block(&store->segments, g->segment) + g->first_block +
			  g->header_blocks,
	};

	for (uint32_t i = 0; i < g->entry_count; i++) {
		const struct format_entry *e = &g->entries[i];

		apply_ahead(g, i);
		ctx.moved_from = LOCATION_NONE;
		ctx.page = held_page(g, i);
		if (g->items[i]->kind == ITEM_MOVE)
			ctx.moved_from = cleaner_moved_from(g->items[i], e->block);
		apply_entry(store, e, &ctx);
	}
	g->stream->durable_seq = g->seq;
}

/* Takes one group out of flight: applied, or failed when it or one before it failed. */
static void group_finish(struct store *store, struct wlog_group *g)
{
	struct segments *t = &store->segments;

	store->wlog.pending_growth -= g->growth;
	store->wlog.unapplied--;
	if (store->failed == 0 && g->status < 0)
		store_fail(store, g->status, "a write to the log");
	if (store->failed == 0)
		group_apply(store, g);
	t->array[g->segment].unapplied--;
	segments_update(t, g->segment);
	for (uint32_t i = 0; i < g->entry_count; i++) {
		struct item *item = g->items[i];

		item->parts--;
		item->begun_ns = g->begun_ns;
		if (store->failed != 0 && item->status == 0)
			item->status = store->failed;
		if (item->gathered && item->parts == 0)
			item_complete(store, item, item->status);
	}
}

static void group_written(struct disk_op *op, int status)
{
	struct wlog_group *g = container_of(op, struct wlog_group, op);
	struct wlog_stream *s = g->stream;
	struct store *store = s->store;

	PROBE(log_durable, g->seq, g->entry_count, status);
	g->complete = true;
	g->status = status;
	while (s->head != NULL && s->head->complete) {
		g = s->head;
		s->head = g->next;
		s->in_flight--;
		group_finish(store, g);
		group_give(g);
	}
	if (s->kind == WLOG_HOT)
		tidy_kick(store);
	checkpoint_note_dirty(store);
	wlog_kick(store);
}

uint32_t wlog_first_unapplied(const struct store *store, uint32_t segment)
{
	for (uint32_t i = 0; i < WLOG_STREAMS; i++) {
		const struct wlog_group *g = store->wlog.streams[i].head;

		for (; g != NULL; g = g->next)
			if (g->segment == segment)
				return g->first_block;
	}
	return UINT32_MAX;
}
