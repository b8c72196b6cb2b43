/* scrub: see scrub.h. */
#include "engine/store/scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/store/core.h"

#define WAIT_MAX_NS	 (3600 * NS_PER_S) /* wall clocks step: looked at again then */
#define CATCH_UP_MAX_NS	 (10 * NS_PER_S)
#define SEARCH_STEPS	 64u /* look-ups in one turn */
#define UNREADABLE	 0xa5
#define PERIOD_SHARE_NUM 5u /* a pass is planned for 4/5 of the period */
#define PERIOD_SHARE_DEN 4u

static void tick(struct store *store);
static void step_fire(struct reactor_timer *timer);
static void look_fire(struct reactor_timer *timer);
static void saved(struct kv_op *op, int status);

static uint64_t now(const struct store *store)
{
	return reactor_now_ns(store->reactor);
}

static void step_at(struct store *store, uint64_t when_ns)
{
	reactor_timer_arm(store->reactor, &store->scrub.step, when_ns);
}

/* -- life ------------------------------------------------------------------------------------- */

int scrub_init(struct store *store)
{
	struct scrub *s = &store->scrub;

	s->period_ns = MIN(store->config.scrub_period_s, SCRUB_PERIOD_MAX_S) * NS_PER_S;
	s->kept.segment = store->segments.shard;
	s->step.fire = step_fire;
	s->look.fire = look_fire;
	s->save.done = saved;
	s->window = aligned_alloc(BLOCK_SIZE, (size_t)SCRUB_WINDOW * BLOCK_SIZE);
	return s->window != NULL ? 0 : -ENOMEM;
}

void scrub_deinit(struct store *store)
{
	scrub_stop(store);
	free(store->scrub.window);
	store->scrub.window = NULL;
}

int scrub_load(struct store *store, const void *value, size_t size)
{
	return format_scrub_decode(value, size, &store->scrub.kept);
}

void scrub_stop(struct store *store)
{
	struct scrub *s = &store->scrub;

	if (s->step.fire == NULL)
		return; /* not initialised: opening failed before */
	reactor_timer_cancel(store->reactor, &s->step);
	reactor_timer_cancel(store->reactor, &s->look);
}

bool scrub_is_idle(const struct store *store)
{
	const struct scrub *s = &store->scrub;

	return !s->reading && !s->looking_up && !s->looking && !s->saving;
}

/* -- what is kept ----------------------------------------------------------------------------- */

static void save(struct store *store, bool at_once)
{
	struct scrub *s = &store->scrub;
	uint8_t key[FORMAT_KEY_MAX], value[FORMAT_SCRUB_VALUE_MAX];
	struct kv_batch *batch;
	size_t key_size;

	if (!s->dirty || s->saving || store->failed != 0 || store->closing ||
	    (!at_once && now(store) < s->saved_ns + SCRUB_SAVE_NS))
		return;
	s->dirty = false;
	s->saving = true;
	s->saved_ns = now(store);
	batch = kv_batch_create(store->kv);
	key_size = format_key_segment(store->prefix, FORMAT_SCRUB_KEY, key);
	kv_batch_put(store->kv, batch, STORE_KV_SEGMENTS, key, key_size, value,
		     format_scrub_encode(&s->kept, value));
	kv_commit(store->kv, batch, &s->save);
}

/* A failure is only logged: it costs some reading after a restart. */
static void saved(struct kv_op *op, int status)
{
	struct store *store = container_of(op, struct store, scrub.save);

	store->scrub.saving = false;
	if (status < 0)
		log_warn("store", "%s: the scrub's position was not kept: %s", store->disk->name,
			 err_text(status));
	store_close_tick(store);
}

/* -- damage ----------------------------------------------------------------------------------- */

static bool is_referred_to(struct store *store, const struct format_damage *d)
{
	struct index_chunk *chunk = index_find_chunk(&store->index, d->volume, d->chunk);

	return chunk != NULL &&
	       index_find_slot(&store->index, chunk, d->block).location == d->location;
}

/* Entry number `looked` of the list is looked up: takes it off if it was repaired, or is gone. */
static void look_at(struct store *store)
{
	struct format_scrub *k = &store->scrub.kept;
	struct format_damage *d = &k->damage[store->scrub.looked];
	struct segments *t = &store->segments;
	uint32_t no = segments_of(t, d->location);

	if (is_referred_to(store, d)) {
		store->scrub.looked++;
		return;
	}
	if (no < t->count)
		t->array[no].stuck = false;
	*d = k->damage[--k->damage_count];
	k->repaired++;
	store->scrub.dirty = true;
}

static void end_look(struct store *store)
{
	struct format_scrub *k = &store->scrub.kept;

	save(store, true);
	if (k->damage_count > 0 && !store->closing)
		reactor_timer_arm(store->reactor, &store->scrub.look, now(store) + SCRUB_LOOK_NS);
	else
		cleaner_kick(store);
	store_close_tick(store);
}

static void damage_looked_up(struct lookup *lookup, int status);

static void look_on(struct store *store)
{
	struct scrub *s = &store->scrub;

	while (s->looked < s->kept.damage_count && !store->closing) {
		const struct format_damage *d = &s->kept.damage[s->looked];

		s->look_lookup = (struct lookup){.done = damage_looked_up,
						 .volume = d->volume,
						 .chunk = d->chunk,
						 .block = d->block,
						 .block_count = 1};
		s->looking = lookup_begin(store, &s->look_lookup) > 0;
		if (s->looking)
			return;
		look_at(store);
		lookup_end(store, &s->look_lookup);
	}
	end_look(store);
}

/* Entries are only added meanwhile, so the number still names the same one. */
static void damage_looked_up(struct lookup *lookup, int status)
{
	struct store *store = container_of(lookup, struct store, scrub.look_lookup);

	store->scrub.looking = false;
	if (status == 0) {
		look_at(store);
		lookup_end(store, lookup);
	} else {
		store->scrub.looked++;
	}
	look_on(store);
}

static void look(struct store *store)
{
	if (store->scrub.looking)
		return;
	store->scrub.looked = 0;
	look_on(store);
}

static void look_fire(struct reactor_timer *timer)
{
	struct store *store = container_of(timer, struct store, scrub.look);

	if (store->serving && !store->closing)
		look(store);
}

bool scrub_knows_damage(const struct store *store, volume_id_t volume, chunk_no_t chunk,
			block_no_t block, uint32_t location)
{
	const struct format_scrub *k = &store->scrub.kept;

	for (uint32_t i = 0; i < k->damage_count; i++)
		if (k->damage[i].location == location && k->damage[i].block == block &&
		    k->damage[i].chunk == chunk && k->damage[i].volume == volume)
			return true;
	return k->damage_count == FORMAT_DAMAGE_MAX;
}

void scrub_note_damage(struct store *store, volume_id_t volume, chunk_no_t chunk, block_no_t block,
		       uint32_t location)
{
	struct scrub *s = &store->scrub;
	struct format_scrub *k = &s->kept;

	/* What finds no room is found again later. */
	if (scrub_knows_damage(store, volume, chunk, block, location) || store->closing)
		return;
	k->found++;
	k->damage[k->damage_count++] = (struct format_damage){volume, chunk, block, location};
	s->dirty = true;
	if (s->look.heap_slot == 0)
		reactor_timer_arm(store->reactor, &s->look, now(store) + SCRUB_LOOK_NS);
	if (s->watcher != NULL)
		reactor_defer(store->reactor, s->watcher);
}

void scrub_damage_moved(struct store *store, const struct format_entry *e, uint32_t location)
{
	struct format_scrub *k = &store->scrub.kept;

	for (uint32_t n = 0; n < k->damage_count; n++) {
		struct format_damage *d = &k->damage[n];

		if (d->location == e->moved_from && d->block == e->block && d->chunk == e->chunk &&
		    d->volume == e->volume) {
			d->location = location;
			store->scrub.dirty = true;
			return;
		}
	}
	scrub_note_damage(store, e->volume, e->chunk, e->block, location);
}

/* -- a pass ----------------------------------------------------------------------------------- */

static uint32_t end_of(const struct store *store, uint32_t no)
{
	return MIN(store->segments.array[no].used, wlog_first_unapplied(store, no));
}

static bool is_to_be_read(const struct store *store, uint32_t no)
{
	const struct segment *s = &store->segments.array[no];

	return (s->state == SEGMENT_OPEN || s->state == SEGMENT_SEALED) && s->live > 0 &&
	       end_of(store, no) > 0;
}

/* -- whether the period can be kept ----------------------------------------------------------- */

/* Bytes a second that it asks for. Before the first pass of this process what has to be read is not
 * counted; it is no less than what is live. */
static uint64_t needed_rate(const struct store *store)
{
	const struct scrub *s = &store->scrub;
	const uint64_t live = store->segments.live_blocks * BLOCK_SIZE;

	if (s->period_ns == 0)
		return 0;
	return (uint64_t)((double)MAX(s->total_bytes, live) * (double)NS_PER_S /
			  (double)s->period_ns);
}

static void tell_if_late(const struct store *store)
{
	const struct scrub *s = &store->scrub;
	const uint64_t needed = needed_rate(store);

	if (needed <= SCRUB_RATE_MAX || s->kept.asked)
		return;
	log_warn("store",
		 "%s: the scrub will be late: %" PRIu64 " MiB within a --scrub-period of %" PRIu64
		 " s are %" PRIu64 " MiB a second, and it takes no more than %u MiB a second of a "
		 "device from its clients; a period of %" PRIu64 " s can be kept",
		 store->disk->name, s->total_bytes >> 20, (uint64_t)(s->period_ns / NS_PER_S),
		 needed >> 20, SCRUB_RATE_MAX >> 20,
		 s->total_bytes / SCRUB_RATE_MAX * PERIOD_SHARE_NUM / PERIOD_SHARE_DEN + 1);
}

/* What a whole pass has to read, and what lies before its position. */
static void count_bytes(struct store *store)
{
	const struct segments *t = &store->segments;
	struct scrub *s = &store->scrub;

	s->total_bytes = 0;
	s->done_bytes = 0;
	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		if (!is_to_be_read(store, no))
			continue;
		s->total_bytes += (uint64_t)end_of(store, no) * BLOCK_SIZE;
		if (no < s->kept.segment)
			s->done_bytes = s->total_bytes;
	}
	s->began_ns = now(store);
	s->began_bytes = s->done_bytes;
}

static void run_pass(struct store *store)
{
	struct scrub *s = &store->scrub;

	s->state = SCRUB_READING;
	s->in_segment = false;
	s->due_ns = now(store);
	count_bytes(store);
	tell_if_late(store);
	step_at(store, now(store));
}

static void begin_pass(struct store *store)
{
	struct scrub *s = &store->scrub;

	s->kept.started_at = reactor_wall_ns(store->reactor);
	s->kept.segment = store->segments.shard;
	s->kept.asked = s->wanted;
	s->wanted = false;
	s->dirty = true;
	run_pass(store);
}

static void end_pass(struct store *store)
{
	struct scrub *s = &store->scrub;

	s->state = SCRUB_WAITING;
	s->kept.finished_at = reactor_wall_ns(store->reactor);
	s->kept.passes++;
	s->kept.segment = store->segments.shard;
	s->kept.asked = false;
	s->done_bytes = s->total_bytes;
	s->dirty = true;
	save(store, true);
	if (s->total_bytes > 0)
		log_info("store",
			 "%s: the scrub has read %" PRIu64
			 " MiB; since the device was formatted it found "
			 "%" PRIu64 " damaged blocks, of which %" PRIu64 " were repaired",
			 store->disk->name, s->total_bytes >> 20, s->kept.found, s->kept.repaired);
	tick(store);
}

/* When the next pass is due; UINT64_MAX: never by itself. */
static uint64_t next_pass(struct store *store)
{
	const struct scrub *s = &store->scrub;
	int64_t wall = reactor_wall_ns(store->reactor);
	int64_t period = (int64_t)s->period_ns;

	if (s->wanted)
		return 0;
	if (period == 0)
		return UINT64_MAX;
	/* One that began in what is the future now, for the clock was set back, tells nothing. */
	if (s->kept.started_at == 0 || s->kept.started_at > wall ||
	    s->kept.started_at <= wall - period)
		return 0;
	return now(store) + (uint64_t)(s->kept.started_at + period - wall);
}

static void wait_for_pass(struct store *store)
{
	uint64_t at = next_pass(store);

	if (at <= now(store))
		begin_pass(store);
	else if (at != UINT64_MAX)
		step_at(store, MIN(at, now(store) + WAIT_MAX_NS));
}

/* -- pace ------------------------------------------------------------------------------------- */

static bool clients_are_at_work(const struct store *store)
{
	return store->ops_in_flight > 0;
}

static uint64_t pace(const struct store *store)
{
	const struct scrub *s = &store->scrub;
	uint64_t rate;

	if (s->kept.asked || s->period_ns == 0)
		return clients_are_at_work(store) ? SCRUB_RATE_SHARED : SCRUB_RATE_MAX;
	rate = (uint64_t)((double)s->total_bytes * PERIOD_SHARE_NUM / PERIOD_SHARE_DEN *
			  (double)NS_PER_S / (double)s->period_ns);
	return MIN(MAX(rate, (uint64_t)SCRUB_RATE_MIN), (uint64_t)SCRUB_RATE_MAX);
}

/* After a read. */
static void step_later(struct store *store)
{
	struct scrub *s = &store->scrub;
	uint64_t interval = (uint64_t)s->read_blocks * BLOCK_SIZE * NS_PER_S / pace(store);
	uint64_t late = now(store) - MIN(now(store), CATCH_UP_MAX_NS);

	s->due_ns = MAX(s->due_ns, late) + interval;
	step_at(store, MAX(s->due_ns, now(store) + interval / 2));
}

static bool must_yield(const struct store *store)
{
	return clients_are_at_work(store) && now(store) < store->scrub.due_ns + SCRUB_LATE_NS;
}

/* -- a segment -------------------------------------------------------------------------------- */

static bool next_segment(struct store *store)
{
	const struct segments *t = &store->segments;
	struct scrub *s = &store->scrub;
	uint32_t no = s->kept.segment;

	while (no < t->count && (no % t->shard_count != t->shard || !is_to_be_read(store, no)))
		no++;
	s->kept.segment = no;
	if (no >= t->count)
		return false;
	s->in_segment = true;
	s->epoch = t->array[no].epoch;
	s->end = end_of(store, no);
	s->first = 0;
	s->count = 0;
	s->at = 0;
	s->group_blocks = 0;
	s->entry = s->entry_count = 0;
	s->one_by_one = 0;
	s->range_count = 0;
	return true;
}

static void end_segment(struct store *store)
{
	struct scrub *s = &store->scrub;

	s->state = SCRUB_READING;
	s->in_segment = false;
	s->kept.segment++;
	s->dirty = true;
	save(store, false);
}

/* It may have been emptied, and given out again, since the last turn. */
static bool segment_is_gone(const struct store *store)
{
	const struct scrub *s = &store->scrub;

	return !is_to_be_read(store, s->kept.segment) ||
	       store->segments.array[s->kept.segment].epoch != s->epoch;
}

/* Its pages are here. */
static void check_entry(struct store *store, const struct format_entry *e)
{
	struct index_chunk *chunk = index_find_chunk(&store->index, e->volume, e->chunk);
	const struct scrub *s = &store->scrub;
	uint32_t first = s->at + s->header_blocks + e->data_first;
	uint32_t base = segments_first_block(&store->segments, s->kept.segment) + s->first + first;

	for (uint32_t i = 0; chunk != NULL && i < e->block_count; i++) {
		const struct format_slot slot = index_find_slot(&store->index, chunk, e->block + i);
		const uint8_t *data = s->window + (size_t)(first + i) * BLOCK_SIZE;

		if (slot.location != base + i || crc32c(0, data, BLOCK_SIZE) == slot.crc)
			continue;
		log_warn("store",
			 "%s: the scrub: block %u of chunk %u of volume %llu does not check",
			 store->disk->name, e->block + i, e->chunk, (unsigned long long)e->volume);
		store->stats.bad_blocks++;
		scrub_note_damage(store, e->volume, e->chunk, e->block + i, base + i);
	}
}

static void note_header(struct store *store, uint32_t block)
{
	struct scrub *s = &store->scrub;
	struct scrub_range *last = s->range_count > 0 ? &s->ranges[s->range_count - 1] : NULL;

	if (last != NULL && (last->to == block || s->range_count == SCRUB_RANGES_MAX))
		last->to = block + 1;
	else
		s->ranges[s->range_count++] = (struct scrub_range){block, block + 1};
}

/* The group at block `at` of the window, to be checked next. False: it goes on beyond the window.
 * What is no group is taken for one of one block. */
static bool parse_group(struct store *store)
{
	struct scrub *s = &store->scrub;
	uint32_t left = s->count - s->at, position = s->first + s->at;
	const uint8_t *p = s->window + (size_t)s->at * BLOCK_SIZE;
	struct format_group g;
	int rc = format_group_decode(p, (size_t)left * BLOCK_SIZE, &g);

	if (rc == 0 &&
	    (!uuid_equal(&g.device, &store->super.device) || g.segment != s->kept.segment ||
	     g.epoch != s->epoch || g.first_block != position))
		rc = -E_CORRUPT;
	if (rc == 0 && g.header_blocks + g.data_blocks > left)
		rc = -ENOSPC;
	if (rc == -ENOSPC && s->first + s->count < s->end)
		return false;
	s->entry = 0;
	s->entry_count = 0;
	s->group_blocks = 1;
	if (rc < 0) {
		note_header(store, position);
		return true;
	}
	format_group_entries(p, &g, s->entries, s->entry_crcs);
	s->entry_count = g.entry_count;
	s->header_blocks = g.header_blocks;
	s->group_blocks = g.header_blocks + g.data_blocks;
	return true;
}

static void entry_looked_up(struct lookup *lookup, int status);

/* Of the group that was parsed: false when a look-up is under way. */
static bool check_entries(struct store *store)
{
	struct scrub *s = &store->scrub;

	for (; s->entry < s->entry_count; s->entry++) {
		const struct format_entry *e = &s->entries[s->entry];

		if (e->kind != FORMAT_DATA)
			continue;
		s->lookup = (struct lookup){.done = entry_looked_up,
					    .volume = e->volume,
					    .chunk = e->chunk,
					    .block = e->block,
					    .block_count = e->block_count};
		s->looking_up = lookup_begin(store, &s->lookup) > 0;
		if (s->looking_up)
			return false;
		check_entry(store, e);
		lookup_end(store, &s->lookup);
	}
	return true;
}

/* Goes through what was read. False when a look-up is under way. */
static bool check_window(struct store *store)
{
	struct scrub *s = &store->scrub;

	for (;;) {
		if (!check_entries(store))
			return false;
		s->at += s->group_blocks;
		s->group_blocks = 0;
		if (s->at == s->count || !parse_group(store))
			break;
	}
	s->first += s->at;
	s->count -= s->at;
	memmove(s->window, s->window + (size_t)s->at * BLOCK_SIZE, (size_t)s->count * BLOCK_SIZE);
	s->at = 0;
	return true;
}

static void begin_search(struct store *store)
{
	struct scrub *s = &store->scrub;

	log_warn("store", "%s: the scrub: segment %u: a group's header at block %u does not check",
		 store->disk->name, s->kept.segment, s->ranges[0].from);
	s->state = SCRUB_SEARCHING;
	s->search_volume = 0;
	s->search_chunk = 0;
	s->search_block = 0;
}

/* Goes through what was read, and on from there. */
static void check_on(struct store *store)
{
	struct scrub *s = &store->scrub;

	if (!check_window(store))
		return;
	if (s->first == s->end && s->range_count > 0)
		begin_search(store);
	else if (s->first == s->end)
		end_segment(store);
	step_later(store);
	store_close_tick(store);
}

/* Pages that can not be read are those of another disk's trouble: what they refer to is looked at
 * by the next pass. */
static void entry_looked_up(struct lookup *lookup, int status)
{
	struct store *store = container_of(lookup, struct store, scrub.lookup);
	struct scrub *s = &store->scrub;

	s->looking_up = false;
	if (status == 0) {
		if (!segment_is_gone(store))
			check_entry(store, &s->entries[s->entry]);
		lookup_end(store, lookup);
	}
	s->entry++;
	if (store->closing) {
		store_close_tick(store);
		return;
	}
	check_on(store);
}

static void read_done(struct disk_op *op, int status);

static void read_more(struct store *store)
{
	struct scrub *s = &store->scrub;
	uint32_t position = s->first + s->count;
	uint32_t blocks = position < s->one_by_one ? 1 : SCRUB_READ_BLOCKS;

	blocks = MIN(blocks, s->end - position);
	INVARIANT(blocks > 0 && s->count + blocks <= SCRUB_WINDOW);
	s->op.kind = DISK_READ;
	s->op.offset =
	    (uint64_t)(segments_first_block(&store->segments, s->kept.segment) + position) *
	    BLOCK_SIZE;
	s->op.size = (uint64_t)blocks * BLOCK_SIZE;
	s->op.iov[0] =
	    (struct iovec){s->window + (size_t)s->count * BLOCK_SIZE, (size_t)s->op.size};
	s->op.iovs = s->op.iov;
	s->op.iov_count = 1;
	s->op.done = read_done;
	s->reading = true;
	store->segments.array[s->kept.segment].pins++;
	disk_submit(store->disk, &s->op);
}

static void unpin(struct store *store)
{
	struct segment *segment = &store->segments.array[store->scrub.kept.segment];

	INVARIANT(segment->pins > 0);
	if (--segment->pins == 0 && segment->state == SEGMENT_RESERVED)
		wlog_kick(store);
}

static void read_done(struct disk_op *op, int status)
{
	struct store *store = container_of(op, struct store, scrub.op);
	struct scrub *s = &store->scrub;
	uint32_t blocks = (uint32_t)(op->size / BLOCK_SIZE);

	s->reading = false;
	unpin(store);
	if (store->closing) {
		store_close_tick(store);
		return;
	}
	if (segment_is_gone(store)) {
		end_segment(store);
		step_at(store, now(store));
		return;
	}
	if (status < 0 && blocks > 1) {
		/* Which of them can not be read shows when they are read one by one. */
		s->one_by_one = s->first + s->count + blocks;
		blocks = 0;
	} else if (status < 0) {
		memset(op->iov[0].iov_base, UNREADABLE, BLOCK_SIZE);
	}
	s->count += blocks;
	s->read_blocks = MAX(blocks, 1u);
	s->done_bytes = MIN(s->done_bytes + (uint64_t)blocks * BLOCK_SIZE, s->total_bytes);
	check_on(store);
}

/* -- what lies under damaged headers ---------------------------------------------------------- */

static bool is_under_bad_header(const struct store *store, uint32_t location)
{
	const struct scrub *s = &store->scrub;
	uint32_t base = segments_first_block(&store->segments, s->kept.segment);

	for (uint32_t i = 0; location >= base && i < s->range_count; i++)
		if (location - base >= s->ranges[i].from && location - base < s->ranges[i].to)
			return true;
	return false;
}

/* The range that was looked up last. */
static void search_range(struct store *store)
{
	const struct lookup *l = &store->scrub.lookup;
	struct index_chunk *chunk = index_find_chunk(&store->index, l->volume, l->chunk);

	for (uint32_t i = 0; chunk != NULL && i < l->block_count; i++) {
		const struct format_slot slot = index_find_slot(&store->index, chunk, l->block + i);

		if (format_slot_has_data(&slot) && is_under_bad_header(store, slot.location))
			scrub_note_damage(store, l->volume, l->chunk, l->block + i, slot.location);
	}
}

struct volume_after {
	volume_id_t above, found; /* the lowest number above, of those that have chunks */
};

static void pick_volume(const struct index_volume *volume, void *arg)
{
	struct volume_after *a = arg;

	if (volume->chunks != NULL && volume->id > a->above &&
	    (a->found == 0 || volume->id < a->found))
		a->found = volume->id;
}

/* To the next chunk that is there, of this volume or of one after it. False: there is none. */
static bool next_chunk(struct store *store)
{
	struct scrub *s = &store->scrub;
	const struct index_volume *volume = index_find_volume(&store->index, s->search_volume);
	const struct index_chunk *chunk = NULL;

	if (volume != NULL && s->search_chunk != UINT32_MAX)
		chunk = index_next_chunk(volume, s->search_chunk);
	while (chunk == NULL) {
		struct volume_after a = {.above = s->search_volume};

		index_each_volume(&store->index, pick_volume, &a);
		if (a.found == 0)
			return false;
		s->search_volume = a.found;
		s->search_chunk = 0;
		chunk = index_next_chunk(index_find_volume(&store->index, a.found), 0);
	}
	if (chunk->no != s->search_chunk || s->search_block >= CHUNK_SIZE_MAX / BLOCK_SIZE)
		s->search_block = 0;
	s->search_chunk = chunk->no;
	return true;
}

static void range_looked_up(struct lookup *lookup, int status)
{
	struct store *store = container_of(lookup, struct store, scrub.lookup);
	struct scrub *s = &store->scrub;

	s->looking_up = false;
	if (status == 0) {
		search_range(store);
		lookup_end(store, lookup);
	}
	if (store->closing)
		store_close_tick(store);
	else
		step_at(store, now(store));
}

static void search(struct store *store)
{
	struct scrub *s = &store->scrub;

	for (uint32_t i = 0; i < SEARCH_STEPS; i++) {
		if (segment_is_gone(store) || !next_chunk(store)) {
			end_segment(store);
			break;
		}
		s->lookup = (struct lookup){.done = range_looked_up,
					    .volume = s->search_volume,
					    .chunk = s->search_chunk,
					    .block = s->search_block,
					    .block_count = IO_BLOCKS_MAX};
		s->search_block += IO_BLOCKS_MAX;
		if (s->search_block >= CHUNK_SIZE_MAX / BLOCK_SIZE)
			s->search_chunk++;
		s->looking_up = lookup_begin(store, &s->lookup) > 0;
		if (s->looking_up)
			return;
		search_range(store);
		lookup_end(store, &s->lookup);
	}
	step_at(store, now(store) + SCRUB_SEARCH_NS);
}

/* -- steps ------------------------------------------------------------------------------------ */

static void tick(struct store *store)
{
	struct scrub *s = &store->scrub;

	if (s->reading || s->looking_up || !store->serving || store->closing)
		return;
	/* One that goes slowly begins anew: who asks wants everything to be looked at now. */
	if (s->wanted && s->state != SCRUB_WAITING && !s->kept.asked)
		begin_pass(store);
	switch (s->state) {
	case SCRUB_WAITING:
		wait_for_pass(store);
		return;
	case SCRUB_READING:
		if (s->in_segment && segment_is_gone(store))
			end_segment(store);
		if (!s->in_segment && !next_segment(store))
			end_pass(store);
		else if (must_yield(store))
			step_at(store, now(store) + SCRUB_YIELD_NS);
		else
			read_more(store);
		return;
	case SCRUB_SEARCHING:
		search(store);
		return;
	}
	INVARIANT(false);
}

static void step_fire(struct reactor_timer *timer)
{
	tick(container_of(timer, struct store, scrub.step));
}

void scrub_start(struct store *store)
{
	struct scrub *s = &store->scrub;
	bool unfinished = s->kept.started_at > s->kept.finished_at;

	s->saved_ns = now(store);
	if (s->kept.damage_count > 0)
		look(store);
	if (unfinished && (s->kept.asked || s->period_ns > 0))
		run_pass(store);
	else
		step_at(store, now(store));
}

/* -- for the store's user --------------------------------------------------------------------- */

void store_scrub(struct store *store)
{
	struct scrub *s = &store->scrub;

	if (store->closing)
		return;
	if (s->state != SCRUB_WAITING && s->kept.asked)
		return; /* as fast as it may already */
	s->wanted = true;
	step_at(store, now(store));
}

void store_watch_damage(struct store *store, struct reactor_task *task)
{
	store->scrub.watcher = task;
	if (task != NULL && store->scrub.kept.damage_count > 0)
		reactor_defer(store->reactor, task);
}

uint32_t store_damage(const struct store *store, struct store_damage *ret_damage, uint32_t max)
{
	const struct format_scrub *k = &store->scrub.kept;
	uint32_t count = MIN(max, k->damage_count);

	for (uint32_t i = 0; i < count; i++)
		ret_damage[i] = (struct store_damage){
		    .volume = k->damage[i].volume,
		    .chunk = k->damage[i].chunk,
		    .block = k->damage[i].block,
		};
	return count;
}

void scrub_get_stats(const struct store *store, struct store_scrub_stats *ret_stats)
{
	const struct scrub *s = &store->scrub;
	uint64_t took_ns = now(store) - MIN(now(store), s->began_ns);
	bool running = s->state != SCRUB_WAITING;

	*ret_stats = (struct store_scrub_stats){
	    .running = running,
	    .period_s = s->period_ns / NS_PER_S,
	    .passes = s->kept.passes,
	    .started_at = s->kept.started_at,
	    .finished_at = s->kept.finished_at,
	    .total_bytes = s->total_bytes,
	    .done_bytes = s->done_bytes,
	    .found = s->kept.found,
	    .repaired = s->kept.repaired,
	    .damaged = s->kept.damage_count,
	    .needed_rate = needed_rate(store),
	    .max_rate = SCRUB_RATE_MAX,
	};
	if (running && took_ns > 0)
		ret_stats->rate = (uint64_t)((double)(s->done_bytes - s->began_bytes) *
					     (double)NS_PER_S / (double)took_ns);
}
