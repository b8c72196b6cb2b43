/* cleaner: see cleaner.h. */
#include "engine/store/cleaner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/store/core.h"

/* A packed segment holds more than 63/64 of data; a victim must have clearly less. */
#define GAIN_MIN_DEN 32u

#define SCORE_WIPE 1e30 /* above that of any other */

#define LOOK_AHEAD 4u /* entries, for each step of a look-up */

/* Clients start with this share of a segment when space becomes tight, so that they slow down
 * without stopping first. */
#define CREDIT_SHARE 4u

static void tick(struct store *store);
static void pause_then_tick(struct store *store);
static void pause_fire(struct reactor_timer *timer);

int cleaner_init(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	uint32_t blocks = store->segments.blocks;

	c->pause.fire = pause_fire;
	c->buffer_bytes = (size_t)blocks * BLOCK_SIZE;
	c->buffer = reactor_memory(store->reactor, c->buffer_bytes);
	c->blocks = calloc(blocks, sizeof *c->blocks);
	c->crcs = calloc(blocks, sizeof *c->crcs);
	for (uint32_t i = 0; i < CLEANER_READS_MAX; i++)
		c->reads[i].cleaner = c;
	for (uint32_t i = 0; i < CLEANER_DEPTH_BLOCKS; i++) {
		c->moves[i].next = c->moves_free;
		c->moves_free = &c->moves[i];
	}
	return c->buffer != NULL && c->blocks != NULL && c->crcs != NULL ? 0 : -ENOMEM;
}

void cleaner_deinit(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	if (c->pause.fire != NULL)
		reactor_timer_cancel(store->reactor, &c->pause);
	reactor_memory_put(store->reactor, c->buffer, c->buffer_bytes);
	free(c->blocks);
	free(c->crcs);
	c->buffer = NULL;
	c->blocks = NULL;
	c->crcs = NULL;
}

bool cleaner_is_idle(const struct store *store)
{
	return store->cleaner.reads_in_flight == 0 && !store->cleaner.looking_up &&
	       store->cleaner.moves_in_flight == 0;
}

/* -- credit ----------------------------------------------------------------------------------- */

static bool is_tight(const struct store *store)
{
	return space_is_tight(&store->space, space_reclaimed(store));
}

bool cleaner_lets_write(struct store *store, uint8_t stream)
{
	struct space *space = &store->space;

	if (stream != WLOG_HOT)
		return true;
	if (!is_tight(store)) {
		space->credit = store->segments.blocks / CREDIT_SHARE;
		return true;
	}
	if (space->credit > 0 || store->cleaner.starving)
		return true;
	cleaner_kick(store);
	return false;
}

/* Nobody owes more than a segment, or he would pay long after there is space again. */
void cleaner_charge(struct store *store, uint8_t stream, uint32_t blocks)
{
	struct space *space = &store->space;

	if (stream == WLOG_HOT && !store->cleaner.starving)
		space->credit = MAX(space->credit - (blocks + 1), -(int64_t)store->segments.blocks);
}

static void earn(struct store *store, uint64_t blocks)
{
	struct space *space = &store->space;
	const bool waited_for = space->credit <= 0;

	space->credit = MIN(space->credit + (int64_t)blocks, 2 * (int64_t)store->segments.blocks);
	if (waited_for && space->credit > 0)
		wlog_kick(store);
}

/* -- choosing --------------------------------------------------------------------------------- */

/* A store that is closing needs space only for what still waits for it. */
static bool must_stop(const struct store *store)
{
	return store->failed != 0 || !store->serving ||
	       (store->closing && !wlog_has_waiting(store));
}

static bool is_wanted(const struct store *store)
{
	uint32_t below = store->space.clean_below;

	if (must_stop(store))
		return false;
	if (store->wipe.to_clean > 0)
		return true;
	/* Once begun it goes a little further than where it begins. */
	if (store->cleaner.state != CLEANER_IDLE)
		below += 2;
	return space_reclaimed(store) < below;
}

/* What of a segment can be gained, in blocks, when its live blocks are packed elsewhere. */
static uint32_t gain_of(const struct segments *t, const struct segment *s)
{
	uint32_t cost = s->live + s->live / 64 + 1;

	return cost < t->blocks ? t->blocks - cost : 0;
}

/* Blocks that the cold stream can still take, so that no victim is begun that can't be finished. */
static uint64_t cold_room(const struct store *store)
{
	const struct wlog_stream *cold = &store->wlog.streams[WLOG_COLD];
	uint64_t room = (uint64_t)segments_available(&store->segments) * store->segments.blocks;

	if (cold->segment != SEGMENT_NONE)
		room += store->segments.blocks - cold->offset;
	return room;
}

static bool is_candidate(const struct store *store, const struct segment *s)
{
	const struct segments *t = &store->segments;

	return s->state == SEGMENT_SEALED && s->live > 0 && s->unapplied == 0 && !s->stuck &&
	       (s->wipe != SEGMENT_WIPE_NOT || gain_of(t, s) >= t->blocks / GAIN_MIN_DEN);
}

/* What an erasure wants emptied comes first, the least full before the others; but while there is
 * hardly any space, only after what makes some. */
static double score_of(const struct store *store, const struct segment *s)
{
	const struct segments *t = &store->segments;
	double u = (double)s->live / t->blocks;
	double gain = (1 - u) / (1 + u);
	double score = gain * gain;

	if (s->wipe != SEGMENT_WIPE_NOT) {
		if (gain_of(t, s) >= t->blocks / GAIN_MIN_DEN ||
		    segments_available(t) > store->space.floor_segments)
			return SCORE_WIPE + gain;
		return 0;
	}
	if (!is_tight(store))
		score *= (double)(store->wlog.next_seq - s->last_seq);
	return score;
}

/* *ret_waits: there is one, but no room to move it to until a checkpoint has made some. */
static uint32_t choose(const struct store *store, bool *ret_waits)
{
	const struct segments *t = &store->segments;
	uint64_t room = cold_room(store);
	uint32_t best = SEGMENT_NONE;
	double best_score = -1;

	*ret_waits = false;
	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		const struct segment *s = &t->array[no];
		double score;

		if (!is_candidate(store, s))
			continue;
		if (s->live + s->live / 32 + 8 > room) {
			*ret_waits = true;
			continue;
		}
		score = score_of(store, s);
		if (score > best_score) {
			best_score = score;
			best = no;
		}
	}
	return best;
}

/* -- reading ---------------------------------------------------------------------------------- */

static void read_done(struct disk_op *op, int status);

static void read_next(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	struct cleaner_read *r = &c->reads[c->reads_begun++ % CLEANER_READS_MAX];
	uint32_t count = MIN(CLEANER_READ_BYTES / BLOCK_SIZE, c->end - c->read_next);

	r->blocks = count;
	r->complete = false;
	r->op.kind = DISK_READ;
	r->op.offset = (uint64_t)(c->base + c->read_next) * BLOCK_SIZE;
	r->op.size = (uint64_t)count * BLOCK_SIZE;
	r->op.iov[0] =
	    (struct iovec){c->buffer + (size_t)c->read_next * BLOCK_SIZE, (size_t)r->op.size};
	r->op.iovs = r->op.iov;
	r->op.iov_count = 1;
	r->op.done = read_done;
	c->read_next += count;
	c->reads_in_flight++;
	disk_submit(store->disk, &r->op);
}

static void read_some(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	uint32_t depth = is_tight(store) ? CLEANER_READS_MAX : CLEANER_READS;

	while (c->reads_in_flight < depth && c->reads_begun - c->reads_taken < CLEANER_READS_MAX &&
	       c->read_next < c->end)
		read_next(store);
}

/* What does not check. True: it moves all the same, and this takes the place of its content. */
static bool give_up_block(struct store *store, const struct format_entry *e, uint32_t i,
			  const struct format_slot *slot, uint8_t *data)
{
	struct cleaner *c = &store->cleaner;
	/* The pass before may have failed for another reason: then it is read badly once. */
	const bool moves =
	    store->segments.array[c->victim].given_up &&
	    scrub_knows_damage(store, e->volume, e->chunk, e->block + i, slot->location);

	log_warn("store", "%s: block %u of chunk %u of volume %llu does not check; %s %u%s",
		 store->disk->name, e->block + i, e->chunk, (unsigned long long)e->volume,
		 moves ? "it leaves segment" : "segment", c->victim,
		 moves ? " as it is" : " cannot be cleaned");
	store->stats.bad_blocks++;
	scrub_note_damage(store, e->volume, e->chunk, e->block + i, slot->location);
	if (moves)
		memset(data, slot->crc == CRC32C_ZERO_BLOCK ? 0xff : 0, BLOCK_SIZE);
	else
		c->damaged = true;
	return moves;
}

/* Notes the blocks of an entry that the index still refers to; its pages are here. */
static void note_live(struct store *store, const struct format_entry *e, uint32_t location)
{
	struct index_chunk *chunk = index_find_chunk(&store->index, e->volume, e->chunk);
	struct cleaner *c = &store->cleaner;

	for (uint32_t i = 0; chunk != NULL && i < e->block_count; i++) {
		const struct format_slot slot = index_find_slot(&store->index, chunk, e->block + i);
		uint8_t *data;
		bool bad;

		if (slot.location != location + i)
			continue;
		data = c->buffer + (size_t)(location + i - c->base) * BLOCK_SIZE;
		bad = crc32c(0, data, BLOCK_SIZE) != slot.crc;
		if (bad && !give_up_block(store, e, i, &slot, data))
			continue;
		c->blocks[c->block_count++] = (struct cleaner_block){
		    .volume = e->volume,
		    .chunk = e->chunk,
		    .block = e->block + i,
		    .version = slot.version,
		    .location = location + i,
		    .crc = slot.crc,
		    .bad = bad,
		};
	}
}

/* 0, -E_CORRUPT, or -EAGAIN: it goes on beyond what was read. */
static int parse_group(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	uint32_t left = c->read_end - c->parsed;
	const uint8_t *p = c->buffer + (size_t)c->parsed * BLOCK_SIZE;
	struct format_group g;
	int rc = format_group_decode(p, (size_t)left * BLOCK_SIZE, &g);

	if (rc == 0 &&
	    (!uuid_equal(&g.device, &store->super.device) || g.segment != c->victim ||
	     g.epoch != store->segments.array[c->victim].epoch || g.first_block != c->parsed))
		rc = -E_CORRUPT;
	if (rc == -ENOSPC || (rc == 0 && g.header_blocks + g.data_blocks > left))
		rc = -EAGAIN;
	if (rc < 0)
		return c->read_end == c->end && rc == -EAGAIN ? -E_CORRUPT : rc;
	/* The CRCs that count are the index's. */
	format_group_entries(p, &g, c->entries, c->entry_crcs);
	c->entry_count = g.entry_count;
	c->entry = 0;
	c->data_block = c->base + c->parsed + g.header_blocks;
	c->parsed += g.header_blocks + g.data_blocks;
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct cleaner_block *ba = a, *bb = b;

	if (ba->volume != bb->volume)
		return ba->volume > bb->volume ? 1 : -1;
	if (ba->chunk != bb->chunk)
		return ba->chunk > bb->chunk ? 1 : -1;
	return (ba->block > bb->block) - (ba->block < bb->block);
}

/* Whether nothing is left in the victim when what was found has moved. */
static bool can_be_emptied(const struct store *store)
{
	const struct cleaner *c = &store->cleaner;

	return !c->damaged && (store->index.graves != NULL ||
			       c->block_count >= store->segments.array[c->victim].live);
}

/* To move a part takes room, and gives none before the rest has been repaired: then it is a victim
 * again. */
static void begin_moving(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	if (!can_be_emptied(store))
		c->block_count = 0;
	qsort(c->blocks, c->block_count, sizeof *c->blocks, by_key);
	for (uint32_t i = 0; i < c->block_count; i++)
		c->crcs[i] = c->blocks[i].crc;
	c->next = 0;
	c->state = CLEANER_MOVING;
}

static void entry_looked_up(struct lookup *lookup, int status);

/* The first page of an entry further on. */
static void look_ahead_at(struct store *store, uint32_t entry, enum store_ahead what)
{
	const struct cleaner *c = &store->cleaner;

	if (entry < c->entry_count && c->entries[entry].kind == FORMAT_DATA)
		store_look_ahead(store, c->entries[entry].volume, c->entries[entry].chunk,
				 c->entries[entry].block, what);
}

/* Small writes lie where nothing else does: each would wait for the memory four times. */
static void look_ahead(struct store *store)
{
	const uint32_t entry = store->cleaner.entry;

	look_ahead_at(store, entry + 3 * LOOK_AHEAD, STORE_AHEAD_PLACE);
	look_ahead_at(store, entry + 2 * LOOK_AHEAD, STORE_AHEAD_PAGE);
	look_ahead_at(store, entry + LOOK_AHEAD, STORE_AHEAD_SLOTS);
}

/* Of the group that was parsed: false when a look-up is under way. */
static bool note_entries(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	for (; c->entry < c->entry_count; c->entry++) {
		const struct format_entry *e = &c->entries[c->entry];

		look_ahead(store);
		if (e->kind != FORMAT_DATA)
			continue;
		c->lookup = (struct lookup){.done = entry_looked_up,
					    .volume = e->volume,
					    .chunk = e->chunk,
					    .block = e->block,
					    .block_count = e->block_count};
		c->looking_up = lookup_begin(store, &c->lookup) > 0;
		if (c->looking_up)
			return false;
		note_live(store, e, c->data_block + e->data_first);
		lookup_end(store, &c->lookup);
	}
	return true;
}

/* Goes through what was read. False when a look-up is under way. */
static bool parse(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	while (note_entries(store) && c->parsed < c->read_end) {
		int rc = parse_group(store);

		if (rc == -EAGAIN)
			return true;
		/* A damaged header: what it covers isn't found, but what follows is. */
		if (rc < 0)
			c->parsed++;
	}
	return !c->looking_up;
}

/* -- moving ----------------------------------------------------------------------------------- */

/* Blocks from `first` that can move as one: one after the other, before and after, of one version.
 * One that is bad moves alone. */
static uint32_t run_length(const struct cleaner *c, uint32_t first, uint32_t max)
{
	const struct cleaner_block *a = &c->blocks[first];
	uint32_t n = 1;

	while (n < max && first + n < c->block_count) {
		const struct cleaner_block *b = &c->blocks[first + n];

		if (b->volume != a->volume || b->chunk != a->chunk || b->block != a->block + n ||
		    b->version != a->version || b->location != a->location + n || a->bad || b->bad)
			break;
		n++;
	}
	return n;
}

static void own_moved(struct store *store, struct cleaner_move *m, int status);

static struct cleaner_move move_of(const struct cleaner *c, uint32_t first, uint32_t count)
{
	const struct cleaner_block *b = &c->blocks[first];

	return (struct cleaner_move){
	    .volume = b->volume,
	    .chunk = b->chunk,
	    .block = b->block,
	    .count = count,
	    .version = b->version,
	    .location = b->location,
	    .data = c->buffer + (size_t)(b->location - c->base) * BLOCK_SIZE,
	    .crcs = &c->crcs[first],
	    .bad = b->bad,
	    .done = own_moved,
	};
}

/* In order, as they were sorted, which is that of their CRCs. */
static void add_here(struct cleaner *c, struct cleaner_move *m)
{
	struct cleaner_move **p = &c->moves_here;

	if (c->moves_here != NULL && c->moves_here_tail->crcs < m->crcs)
		p = &c->moves_here_tail->next;
	while (*p != NULL && (*p)->crcs < m->crcs)
		p = &(*p)->next;
	m->next = *p;
	*p = m;
	if (m->next == NULL)
		c->moves_here_tail = m;
}

/* All at once, so that their groups are large: what is packed must be dense (space.h). */
static void submit_moves(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	while (c->moves_looking == 0 && c->moves_here != NULL) {
		struct cleaner_move *m = c->moves_here;

		c->moves_here = m->next;
		wlog_submit(store, &m->op.item, WLOG_COLD, true);
	}
}

/* Whether the index still refers to any of it; its pages are here. */
static bool is_there(const struct store *store, const struct cleaner_move *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (lookup_slot(store, &m->op.lookup, m->block + i).location == m->location + i)
			return true;
	return false;
}

static void move_looked_up(struct lookup *lookup, int status)
{
	struct item_op *op = container_of(lookup, struct item_op, lookup);
	struct cleaner_move *m = container_of(op, struct cleaner_move, op);
	struct store *store = op->store;
	bool own = m->done == own_moved;

	if (own)
		store->cleaner.moves_looking--;
	op->item.held = status == 0;
	/* Or an erase was quicker: there is nothing left to be moved, nor may it be written again.
	 */
	if (status < 0 || !is_there(store, m))
		item_complete_later(store, &op->item, status);
	else if (own)
		add_here(&store->cleaner, m);
	else
		wlog_submit(store, &op->item, WLOG_COLD, true);
	if (own)
		submit_moves(store);
}

void cleaner_begin_move(struct store *store, struct cleaner_move *m)
{
	int rc;

	m->op = (struct item_op){.item = {.kind = ITEM_MOVE}, .store = store};
	m->op.lookup = (struct lookup){.done = move_looked_up,
				       .kind = LOOKUP_MOVE,
				       .volume = m->volume,
				       .chunk = m->chunk,
				       .block = m->block,
				       .block_count = m->count};
	rc = lookup_begin(store, &m->op.lookup);
	if (rc <= 0)
		move_looked_up(&m->op.lookup, rc);
}

static void move_some(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	uint32_t depth = is_tight(store) ? CLEANER_DEPTH_BLOCKS : CLEANER_STEP_BLOCKS;
	struct cleaner_move *begun = NULL, **tail = &begun;

	while (c->blocks_in_flight < depth && c->next < c->block_count) {
		struct cleaner_move *m = c->moves_free;

		INVARIANT(m != NULL);
		c->moves_free = m->next;
		*m = move_of(c, c->next, run_length(c, c->next, depth - c->blocks_in_flight));
		c->next += m->count;
		c->blocks_in_flight += m->count;
		c->moves_in_flight++;
		c->moves_looking++;
		*tail = m;
		tail = &m->next;
	}
	while (begun != NULL) {
		struct cleaner_move *m = begun;

		begun = m->next;
		cleaner_begin_move(store, m);
	}
}

static const struct cleaner_move *move_owner(const struct item *item)
{
	return (const struct cleaner_move *)(const void *)((const char *)item -
							   offsetof(struct cleaner_move, op.item));
}

void cleaner_describe(const struct item *item, struct format_entry *e, const uint8_t **ret_data,
		      const uint32_t **ret_crcs)
{
	const struct cleaner_move *m = move_owner(item);

	*e = (struct format_entry){
	    .kind = FORMAT_DATA,
	    .flags = FORMAT_FLAG_MOVE,
	    .block_count = (uint16_t)m->count,
	    .block = m->block,
	    .volume = m->volume,
	    .chunk = m->chunk,
	    .version = m->version,
	};
	if (m->bad) {
		e->flags |= FORMAT_FLAG_BAD;
		e->moved_from = m->location;
	}
	*ret_data = m->data;
	*ret_crcs = m->crcs;
}

uint32_t cleaner_moved_from(const struct item *item, block_no_t block)
{
	const struct cleaner_move *m = move_owner(item);

	return m->location + (block - m->block);
}

void cleaner_moved(struct store *store, struct item *item, int status)
{
	struct cleaner_move *m = container_of(item, struct cleaner_move, op.item);

	m->done(store, m, status);
}

static void own_moved(struct store *store, struct cleaner_move *m, int status)
{
	struct cleaner *c = &store->cleaner;

	if (status < 0) {
		c->damaged = true;
		c->unread = true;
	} else {
		store->stats.moved_blocks += m->count;
		earn(store, c->gain_moving * m->count / MAX(1u, c->block_count));
	}
	m->next = c->moves_free;
	c->moves_free = m;
	c->blocks_in_flight -= m->count;
	if (--c->moves_in_flight == 0 ||
	    (is_tight(store) && c->blocks_in_flight + CLEANER_STEP_BLOCKS <= CLEANER_DEPTH_BLOCKS))
		tick(store);
}

/* -- steps ------------------------------------------------------------------------------------ */

static uint64_t pause_ns(struct store *store)
{
	const struct space *space = &store->space;
	uint32_t reclaimed = space_reclaimed(store);
	uint64_t clients = store->stats.writes + store->stats.reads;
	bool idle = clients == store->cleaner.clients_seen;

	store->cleaner.clients_seen = clients;
	if (idle || reclaimed <= space->tight_below || space->clean_below <= space->tight_below)
		return 0;
	return MIN(CLEANER_PAUSE_MAX_NS, CLEANER_PAUSE_MAX_NS * (reclaimed - space->tight_below) /
					     (space->clean_below - space->tight_below));
}

static void pause_then_tick(struct store *store)
{
	reactor_timer_arm(store->reactor, &store->cleaner.pause,
			  reactor_now_ns(store->reactor) + pause_ns(store));
}

static void pause_fire(struct reactor_timer *timer)
{
	tick(container_of(timer, struct store, cleaner.pause));
}

/* Goes through what was read, and on from there. */
static void parse_on(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	if (!parse(store))
		return;
	if (c->read_end == c->end && c->reads_in_flight == 0)
		begin_moving(store);
	pause_then_tick(store);
	store_close_tick(store);
}

static void entry_looked_up(struct lookup *lookup, int status)
{
	struct store *store = container_of(lookup, struct store, cleaner.lookup);
	struct cleaner *c = &store->cleaner;
	const struct format_entry *e = &c->entries[c->entry];

	c->looking_up = false;
	if (status == 0) {
		note_live(store, e, c->data_block + e->data_first);
		lookup_end(store, lookup);
	} else {
		c->damaged = true; /* what it refers to stays where it is */
		c->unread = true;
	}
	c->entry++;
	parse_on(store);
}

/* Pieces count in order: what comes behind one that is under way has to wait for it. */
static void take_reads(struct cleaner *c)
{
	while (c->reads_taken < c->reads_begun) {
		struct cleaner_read *r = &c->reads[c->reads_taken % CLEANER_READS_MAX];

		if (!r->complete)
			return;
		c->reads_taken++;
		if (c->read_end == c->end)
			continue; /* behind one that failed */
		c->read_end += r->blocks;
		if (r->status < 0) {
			c->damaged = true;
			c->unread = true;
			c->end = c->parsed;
			c->read_next = c->parsed;
			c->read_end = c->parsed;
		}
	}
}

static void read_done(struct disk_op *op, int status)
{
	struct cleaner_read *r = container_of(op, struct cleaner_read, op);
	struct store *store = container_of(r->cleaner, struct store, cleaner);
	struct cleaner *c = &store->cleaner;

	r->complete = true;
	r->status = status;
	c->reads_in_flight--;
	if (status == 0)
		earn(store, c->gain_reading * r->blocks / MAX(1u, c->end));
	take_reads(c);
	if (!c->looking_up)
		parse_on(store);
}

/* The pin kept the victim from being given out again while it was read and moved. */
static void end_victim(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	struct segment *s = &store->segments.array[c->victim];

	c->state = CLEANER_IDLE;
	INVARIANT(s->pins > 0);
	s->pins--;
	wlog_kick(store);
}

static void finish_victim(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	struct segment *s = &store->segments.array[c->victim];

	if (s->state != SEGMENT_SEALED || s->live == 0)
		store->stats.cleaned_segments++;
	else if (store->index.graves == NULL || c->damaged)
		s->stuck = true;
	s->unread = s->stuck && c->unread;
	/* From now on, or one that takes long to fail would be all that the cleaner does. */
	if (s->unread)
		c->retry_ns = reactor_now_ns(store->reactor) + CLEANER_RETRY_NS;
	end_victim(store);
	checkpoint_consider(store);
	wipe_kick(store);
}

/* Nothing can be gained. Who waits for space waits in vain, unless something else is under way. */
static void starve(struct store *store)
{
	const struct segments *t = &store->segments;

	/* Who waits for credit need not: there is none to be had. */
	if (!store->cleaner.starving)
		wlog_kick(store);
	store->cleaner.starving = true;
	if (t->empty_count > 0 || store->index.graves != NULL || store->wlog.unapplied > 0 ||
	    store->checkpoint.state != CHECKPOINT_IDLE) {
		checkpoint_consider(store);
		return;
	}
	if (store->wlog.streams[WLOG_HOT].stalled && !space_may_open(store, SPACE_CLIENT))
		wlog_no_space(store, WLOG_HOT);
	if (store->wlog.streams[WLOG_COLD].stalled && !space_may_open(store, SPACE_RESYNC))
		wlog_no_space(store, WLOG_COLD);
}

/* Disk or index may be read again. False: nothing is stuck but what is damaged. */
static bool try_unread(struct store *store)
{
	const struct segments *t = &store->segments;
	bool any = false;

	if (reactor_now_ns(store->reactor) < store->cleaner.retry_ns)
		return false;
	for (uint32_t no = t->shard; no < t->count; no += t->shard_count) {
		struct segment *s = &t->array[no];

		if (!s->stuck || !s->unread)
			continue;
		s->stuck = false;
		any = true;
	}
	return any;
}

static void begin_victim(struct store *store)
{
	struct cleaner *c = &store->cleaner;
	struct segments *t = &store->segments;
	bool waits;
	uint32_t no = choose(store, &waits);
	uint64_t gain;

	if (no == SEGMENT_NONE && try_unread(store))
		no = choose(store, &waits);
	if (no == SEGMENT_NONE) {
		/* There may have been none but for an erasure, which looks again. */
		store->wipe.to_clean = 0;
		if (waits && t->empty_count > 0)
			checkpoint_want_room(store);
		else if (is_wanted(store))
			starve(store);
		return;
	}
	c->starving = false;
	c->state = CLEANER_READING;
	c->victim = no;
	t->array[no].pins++;
	c->base = segments_first_block(t, no);
	c->end = t->array[no].used;
	c->read_next = 0;
	c->read_end = 0;
	c->reads_begun = 0;
	c->reads_taken = 0;
	c->parsed = 0;
	c->entry_count = 0;
	c->entry = 0;
	c->block_count = 0;
	c->damaged = false;
	c->unread = false;
	/* What an erasure wants emptied may free nothing: nobody waits for that. */
	gain = t->array[no].wipe == SEGMENT_WIPE_NOT ? gain_of(t, &t->array[no]) : t->blocks;
	/* By the work that it is: a block that is moved is read and written. */
	c->gain_reading = gain * c->end / (c->end + t->array[no].live);
	c->gain_moving = gain - c->gain_reading;
	read_some(store);
}

static void tick(struct store *store)
{
	struct cleaner *c = &store->cleaner;

	if (c->looking_up)
		return;
	if (must_stop(store)) {
		if (!cleaner_is_idle(store))
			return;
		if (c->state != CLEANER_IDLE)
			end_victim(store);
		store_close_tick(store);
		return;
	}
	switch (c->state) {
	case CLEANER_IDLE:
		if (is_wanted(store))
			begin_victim(store);
		return;
	case CLEANER_READING:
		read_some(store);
		return;
	case CLEANER_MOVING:
		if (c->next < c->block_count) {
			move_some(store);
			return;
		}
		if (c->moves_in_flight > 0)
			return;
		finish_victim(store);
		pause_then_tick(store);
		return;
	}
	INVARIANT(false);
}

void cleaner_kick(struct store *store)
{
	if (store->cleaner.state == CLEANER_IDLE && store->cleaner.pause.heap_slot == 0 &&
	    is_wanted(store))
		pause_then_tick(store);
}
