/* tidy: see tidy.h. */
#include "engine/store/tidy.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/store/core.h"

static void timer_fire(struct reactor_timer *timer);
static void looked_up(struct lookup *lookup, int status);
static void read_done(struct store_read *op, int status);
static void moved(struct store *store, struct cleaner_move *m, int status);

int tidy_init(struct store *store)
{
	struct tidy *t = &store->tidy;

	t->timer.fire = timer_fire;
	t->data = aligned_alloc(BLOCK_SIZE, (size_t)TIDY_WINDOW * BLOCK_SIZE);
	return t->data != NULL ? 0 : -ENOMEM;
}

void tidy_deinit(struct store *store)
{
	struct tidy *t = &store->tidy;

	if (t->timer.fire != NULL)
		reactor_timer_cancel(store->reactor, &t->timer);
	free(t->data);
	t->data = NULL;
}

bool tidy_is_idle(const struct store *store)
{
	const struct tidy *t = &store->tidy;

	return !t->looking_up && !t->reading && t->moves_in_flight == 0;
}

/* -- when ------------------------------------------------------------------------------------- */

static uint64_t client_operations(const struct store *store)
{
	return store->stats.writes + store->stats.reads;
}

static bool has_reason(const struct store *store)
{
	uint64_t since = store->stats.blocks_written - store->tidy.written_passed;

	return since > 0 && since >= store->segments.live_blocks / TIDY_REASON_DEN;
}

/* No client has asked for anything for a while. */
static bool is_alone(const struct store *store)
{
	return reactor_now_ns(store->reactor) >= store->tidy.client_ns + TIDY_IDLE_NS;
}

/* Segments that it leaves available. */
static uint32_t kept_segments(const struct store *store)
{
	const struct space *space = &store->space;
	const uint32_t between = space->clean_below - space->tight_below;

	return space->tight_below + (is_alone(store) ? 0 : between / 2);
}

static bool may_run(const struct store *store)
{
	return store->serving && !store->closing && store->failed == 0 &&
	       segments_available(&store->segments) > kept_segments(store);
}

/* There is no room. What the cleaner has emptied may be enough, and waits to be released. */
static void want_room(struct store *store)
{
	if (space_reclaimed(store) > kept_segments(store))
		checkpoint_want_room(store);
}

/* How much clients were at work lately. */
static void observe_clients(struct store *store)
{
	struct tidy *t = &store->tidy;
	const uint64_t now = reactor_now_ns(store->reactor);
	const uint64_t operations = client_operations(store);
	const uint64_t busy = clients_busy_ns(&store->clients, now);

	if (operations != t->clients_seen || store->clients.in_flight > 0)
		t->client_ns = now;
	t->clients_seen = operations;
	if (now < t->sampled_ns + TIDY_SAMPLE_NS)
		return;
	t->busy = (uint32_t)((busy - t->busy_seen_ns) * 1000 / (now - t->sampled_ns));
	t->sampled_ns = now;
	t->busy_seen_ns = busy;
}

/* How long it has to wait before it may take a window; 0: it may. */
static uint64_t clients_want_ns(const struct store *store)
{
	if (is_alone(store))
		return 0;
	if (store->tidy.busy >= TIDY_BUSY_MAX)
		return TIDY_IDLE_NS;
	return store->clients.in_flight > 0 ? TIDY_YIELD_NS : 0;
}

/* After a window: so long that what it took is the share that it may have. */
static uint64_t pause_ns(const struct store *store)
{
	const struct tidy *t = &store->tidy;
	const uint64_t took = reactor_now_ns(store->reactor) - t->began_ns;
	uint64_t share;

	if (is_alone(store))
		return TIDY_PAUSE_NS;
	if (t->busy >= TIDY_BUSY_MAX)
		return TIDY_IDLE_NS;
	share = MAX(1u, TIDY_SHARE_MAX * (TIDY_BUSY_MAX - t->busy) / TIDY_BUSY_MAX);
	return MIN(MAX(took * (1000 - share) / share, TIDY_PAUSE_NS), TIDY_IDLE_NS);
}

static void wake_in(struct store *store, uint64_t delay_ns)
{
	reactor_timer_arm(store->reactor, &store->tidy.timer,
			  reactor_now_ns(store->reactor) + delay_ns);
}

void tidy_kick(struct store *store)
{
	if (store->tidy.timer.heap_slot != 0 || store->tidy.state != TIDY_RESTING ||
	    !store->serving || !has_reason(store))
		return;
	observe_clients(store); /* from here on, not since the last pass */
	wake_in(store, TIDY_IDLE_NS);
}

static void earn(struct store *store)
{
	struct tidy *t = &store->tidy;

	t->budget += store->stats.blocks_written - t->written_seen;
	t->budget = MIN(t->budget, store->segments.live_blocks);
	t->written_seen = store->stats.blocks_written;
}

/* -- where ------------------------------------------------------------------------------------ */

struct nearest {
	volume_id_t from, found;
};

/* Most have a fence and nothing else: to go from one of those to the next would be to look at all
 * of them once for each. */
static void find_nearest(const struct index_volume *volume, void *arg)
{
	struct nearest *n = arg;

	if (volume->chunks != NULL && volume->id >= n->from &&
	    (n->found == 0 || volume->id < n->found))
		n->found = volume->id;
}

/* Smaller ones beside clients; none reaches beyond where a large one that began at a whole number
 * of them ends, and that is within the chunk. */
static uint32_t window_at(const struct store *store, block_no_t block)
{
	return is_alone(store) ? TIDY_WINDOW - block % TIDY_WINDOW : TIDY_BESIDE;
}

/* Goes on to a window within a chunk that exists. False: that was the last one. */
static bool settle_on_window(struct store *store)
{
	struct tidy *t = &store->tidy;

	for (;;) {
		const struct index_volume *volume = index_find_volume(&store->index, t->volume);
		const struct index_chunk *chunk = NULL;
		struct nearest n = {.from = t->volume + 1};

		if (volume != NULL && t->chunk != TIDY_NONE)
			chunk = index_next_chunk(volume, t->chunk);
		if (chunk != NULL) {
			if (chunk->no != t->chunk)
				t->block = 0;
			t->chunk = chunk->no;
			if (t->block < CHUNK_SIZE_MAX / BLOCK_SIZE)
				return true;
			t->chunk++;
			t->block = 0;
			continue;
		}
		index_each_volume(&store->index, find_nearest, &n);
		if (n.found == 0)
			return false;
		t->volume = n.found;
		t->chunk = 0;
		t->block = 0;
	}
}

/* No page of the window exists. */
static bool is_bare(struct store *store)
{
	const struct tidy *t = &store->tidy;
	const struct index_chunk *chunk = index_find_chunk(&store->index, t->volume, t->chunk);

	for (uint32_t i = 0; chunk != NULL && i < t->window; i += PAGE_BLOCKS)
		if (index_page_exists(chunk, (t->block + i) >> PAGE_SHIFT))
			return false;
	return true;
}

/* What a window lies in, page after page. */
struct pieces {
	uint32_t blocks, runs, next;
};

static void count_pieces(const struct index_page *page, struct pieces *p)
{
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		const struct format_slot slot = index_slot(page, i);

		if (!format_slot_has_data(&slot))
			continue;
		p->blocks++;
		p->runs += slot.location != p->next;
		p->next = slot.location + 1;
	}
}

/* Whether the window lies in too many pieces. *ret_blocks: how many blocks of it have data. */
static bool is_scattered(struct store *store, uint32_t *ret_blocks)
{
	struct tidy *t = &store->tidy;
	struct pieces p = {.next = LOCATION_NONE};

	_Static_assert(TIDY_BESIDE % PAGE_BLOCKS == 0, "whole pages");
	for (uint32_t i = 0; i < t->window; i += PAGE_BLOCKS) {
		const struct index_page *page = lookup_page(store, &t->lookup, t->block + i);

		if (page != NULL)
			count_pieces(page, &p);
	}
	*ret_blocks = p.blocks;
	return p.runs > 1 + p.blocks / TIDY_RUN_BLOCKS;
}

/* -- a window --------------------------------------------------------------------------------- */

/* It is looked at again. */
static void leave_window(struct store *store)
{
	struct tidy *t = &store->tidy;

	if (t->holds)
		lookup_end(store, &t->lookup);
	t->holds = false;
	t->state = TIDY_LOOKING;
}

static void end_window(struct store *store)
{
	leave_window(store);
	store->tidy.block += store->tidy.window;
}

static void rest(struct store *store)
{
	store->tidy.state = TIDY_RESTING;
	tidy_kick(store);
}

/* Its pages are here. False: there is nothing to do in it. */
static bool begin_window(struct store *store)
{
	struct tidy *t = &store->tidy;
	uint32_t blocks;

	if (!is_scattered(store, &blocks) || blocks > t->budget) {
		end_window(store);
		return false;
	}
	t->state = TIDY_READING;
	t->reading = true;
	t->read = (struct store_read){
	    .done = read_done,
	    .volume = t->volume,
	    .chunk = t->chunk,
	    .block = t->block,
	    .block_count = t->window,
	    .data = t->data,
	    .ret_crcs = t->crcs,
	    .ret_versions = t->versions,
	};
	store->ops_in_flight++; /* it is counted like any other */
	reader_submit(store, &t->read);
	return true;
}

/* Looks at windows until there is something to do, or enough for one turn. */
static void look(struct store *store)
{
	struct tidy *t = &store->tidy;

	for (uint32_t i = 0; i < TIDY_LOOKS_MAX; i++) {
		if (!settle_on_window(store)) {
			rest(store);
			return;
		}
		if (!may_run(store))
			break;
		t->window = window_at(store, t->block);
		if (is_bare(store)) {
			end_window(store);
			continue;
		}
		t->lookup = (struct lookup){.done = looked_up,
					    .volume = t->volume,
					    .chunk = t->chunk,
					    .block = t->block,
					    .block_count = t->window};
		t->looking_up = lookup_begin(store, &t->lookup) > 0;
		if (t->looking_up)
			return;
		t->holds = true;
		if (begin_window(store))
			return;
	}
	wake_in(store, TIDY_PAUSE_NS);
}

static void looked_up(struct lookup *lookup, int status)
{
	struct store *store = container_of(lookup, struct store, tidy.lookup);
	struct tidy *t = &store->tidy;

	t->looking_up = false;
	t->holds = status == 0;
	if (status < 0)
		end_window(store);
	if (status < 0 || !begin_window(store))
		wake_in(store, pause_ns(store));
	store_close_tick(store);
}

/* What was read holds for the versions that were read; where they are now is where they move from.
 */
static void begin_moves(struct store *store)
{
	struct tidy *t = &store->tidy;

	for (uint32_t i = 0; i < t->window; i++) {
		const struct format_slot slot = lookup_slot(store, &t->lookup, t->block + i);
		struct cleaner_move *m = &t->moves[t->moves_in_flight];

		if (!format_slot_has_data(&slot) || slot.version != t->versions[i])
			continue;
		*m = (struct cleaner_move){
		    .volume = t->volume,
		    .chunk = t->chunk,
		    .block = t->block + i,
		    .count = 1,
		    .version = slot.version,
		    .location = slot.location,
		    .data = t->data + (size_t)i * BLOCK_SIZE,
		    .crcs = &t->crcs[i],
		    .done = moved,
		};
		t->moves_in_flight++;
		cleaner_begin_move(store, m);
	}
	t->budget -= MIN(t->budget, t->moves_in_flight);
}

static void read_done(struct store_read *op, int status)
{
	struct store *store = container_of(op, struct store, tidy.read);
	struct tidy *t = &store->tidy;

	t->reading = false;
	t->state = TIDY_MOVING;
	if (status == 0 && !may_run(store)) {
		leave_window(store); /* the cleaner took the room meanwhile, and makes more */
		wake_in(store, TIDY_WAIT_NS);
		store_close_tick(store);
		return;
	}
	if (status == 0)
		begin_moves(store);
	if (t->moves_in_flight == 0) {
		end_window(store);
		wake_in(store, pause_ns(store));
	}
	store_close_tick(store);
}

static void moved(struct store *store, struct cleaner_move *m, int status)
{
	struct tidy *t = &store->tidy;

	(void)m;
	if (status == 0)
		store->stats.tidied_blocks++;
	if (--t->moves_in_flight > 0)
		return;
	end_window(store);
	wake_in(store, pause_ns(store));
	store_close_tick(store);
}

/* -- time ------------------------------------------------------------------------------------- */

static void timer_fire(struct reactor_timer *timer)
{
	struct store *store = container_of(timer, struct store, tidy.timer);
	struct tidy *t = &store->tidy;
	uint64_t wait;

	if (store->closing || store->failed != 0) {
		t->state = TIDY_RESTING;
		return;
	}
	observe_clients(store);
	wait = clients_want_ns(store);
	if (wait == 0 && !may_run(store)) {
		want_room(store);
		wait = store->cleaner.starving ? TIDY_IDLE_NS : TIDY_WAIT_NS;
	}
	if (wait > 0) {
		/* A pass that was begun goes on where it was, once it is quiet again, or once the
		 * cleaner has made room, which it does up to clean_below. */
		if (t->state == TIDY_LOOKING || has_reason(store))
			wake_in(store, wait);
		return;
	}
	t->began_ns = reactor_now_ns(store->reactor);
	earn(store);
	if (t->state == TIDY_RESTING) {
		if (!has_reason(store))
			return;
		t->written_passed = store->stats.blocks_written;
		t->volume = 0;
		t->chunk = TIDY_NONE;
		t->state = TIDY_LOOKING;
	}
	look(store);
}
