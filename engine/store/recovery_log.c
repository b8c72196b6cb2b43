/* recovery_log: see recovery_log.h. */
#include "engine/store/recovery_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/store/apply.h"
#include "engine/store/core.h"

#define WINDOW_BLOCKS 1024u
#define LOOK_AHEAD    FORMAT_GROUP_BLOCKS_MAX /* past what does not check */

/* New groups keep a distance from the numbers that lost ones may have had: at least the groups that
 * can be in flight, and a random part, so that no number comes back either after several power
 * losses without a checkpoint in between, when what lies behind a gap has not been seen. */
#define SEQ_DISTANCE 64u

static uint64_t seq_distance(struct reactor *r)
{
	uint32_t distance;

	reactor_random(r, &distance, sizeof distance);
	return (uint64_t)SEQ_DISTANCE + distance;
}

struct recovery_group {
	struct format_group header;
	bool data_ok;
	bool accepted;
	uint32_t *crcs;
	struct format_entry entries[];
};

int recovery_log_init(struct recovery_log *l, struct store *store)
{
	l->store = store;
	l->window = aligned_alloc(BLOCK_SIZE, WINDOW_BLOCKS * BLOCK_SIZE);
	return l->window != NULL ? 0 : -ENOMEM;
}

void recovery_log_deinit(struct recovery_log *l)
{
	for (uint32_t i = 0; i < l->group_count; i++)
		free(l->groups[i]);
	free(l->groups);
	free(l->segments);
	free(l->window);
	*l = (struct recovery_log){0};
}

int recovery_log_add(struct recovery_log *l, uint32_t segment, uint32_t start_block)
{
	if (l->segment_count == l->segment_max) {
		uint32_t max = MAX(64u, l->segment_max * 2);
		void *p = realloc(l->segments, max * sizeof *l->segments);

		if (p == NULL)
			return -ENOMEM;
		l->segments = p;
		l->segment_max = max;
	}
	l->segments[l->segment_count++] = (struct recovery_segment){segment, start_block};
	return 0;
}

static void begin_segment(struct recovery_log *l)
{
	l->window_count = 0;
	l->any = false;
	l->gap = 0;
	if (l->current < l->segment_count)
		l->position = l->segments[l->current].start_block;
}

void recovery_log_start(struct recovery_log *l, const uint64_t *last_seq)
{
	l->last_seq[0] = last_seq[0];
	l->last_seq[1] = last_seq[1];
	l->max_seq = MAX(last_seq[0], last_seq[1]);
	l->current = 0;
	begin_segment(l);
}

/* -- scanning --------------------------------------------------------------------------------- */

static int add_group(struct recovery_log *l, const uint8_t *blocks, const struct format_group *g)
{
	const uint8_t *data = blocks + (size_t)g->header_blocks * BLOCK_SIZE;
	size_t entries_size = g->entry_count * sizeof(struct format_entry);
	struct recovery_group *rg;

	if (l->group_count == l->group_max) {
		uint32_t max = MAX(1024u, l->group_max * 2);
		void *p = realloc(l->groups, max * sizeof(struct recovery_group *));

		if (p == NULL)
			return -ENOMEM;
		l->groups = p;
		l->group_max = max;
	}
	rg = malloc(sizeof *rg + entries_size + g->data_blocks * sizeof(uint32_t));
	if (rg == NULL)
		return -ENOMEM;
	rg->header = *g;
	rg->accepted = false;
	rg->crcs = (uint32_t *)(void *)((uint8_t *)rg->entries + entries_size);
	format_group_entries(blocks, g, rg->entries, rg->crcs);
	rg->data_ok = format_group_matches(g, rg->entries, rg->crcs, data);
	l->groups[l->group_count++] = rg;
	l->max_seq = MAX(l->max_seq, g->seq);
	return 0;
}

/* The header at the position, if it is one of this use of this segment. -E_CORRUPT: it is not;
 * -EAGAIN: the group goes on beyond the window; -ESTALE: the segment was used again after the index
 * was written. */
static int header_at(const struct recovery_log *l, struct format_group *ret_group)
{
	const struct store *store = l->store;
	uint32_t no = l->segments[l->current].no;
	uint32_t left = l->window_first + l->window_count - l->position;
	const uint8_t *p = l->window + (size_t)(l->position - l->window_first) * BLOCK_SIZE;
	struct format_group g;
	int rc = format_group_decode(p, (size_t)left * BLOCK_SIZE, &g);

	if (rc == -ENOSPC)
		return -EAGAIN;
	if (rc < 0 || !uuid_equal(&g.device, &store->super.device) || g.segment != no ||
	    g.first_block != l->position ||
	    g.header_blocks + g.data_blocks > store->segments.blocks - l->position)
		return -E_CORRUPT;
	if (g.epoch > store->segments.array[no].epoch)
		return -ESTALE;
	if (g.epoch < store->segments.array[no].epoch)
		return -E_CORRUPT;
	if (g.header_blocks + g.data_blocks > left)
		return -EAGAIN;
	*ret_group = g;
	return 0;
}

/* Goes through what is in the window. 1: more must be read, from the position; 0: the segment is
 * done. */
static int scan_window(struct recovery_log *l, struct error *err)
{
	uint32_t blocks = l->store->segments.blocks;
	uint32_t end = l->window_first + l->window_count;
	uint32_t no = l->segments[l->current].no;

	while (l->position < end) {
		struct format_group g;
		int rc = header_at(l, &g);

		if (rc == -EAGAIN && end < blocks)
			return 1;
		if (rc == -ESTALE)
			return error_set(err, -E_CORRUPT,
					 "the index is older than the device: segment %u has been "
					 "used again since",
					 no);
		if (rc == 0)
			rc = add_group(
			    l, l->window + (size_t)(l->position - l->window_first) * BLOCK_SIZE,
			    &g);
		else
			rc = 1;
		if (rc < 0)
			return error_set(err, rc, "there is no memory to recover the log");
		if (rc == 0) {
			l->position += g.header_blocks + g.data_blocks;
			l->any = true;
			l->gap = 0;
			continue;
		}
		/* Whether this is the end or a damaged group shows in what follows. */
		if (l->gap++ == LOOK_AHEAD)
			return 0;
		l->position++;
	}
	return l->position < blocks ? 1 : 0;
}

/* A window is read at once; where that fails block by block, up to the first that cannot be read.
 * 1: the next block is to be read; 0: the window is complete, or cut. */
static int take_read(struct recovery_log *l, int io_status)
{
	l->cut = false;
	if (!l->singly) {
		l->singly = io_status < 0;
		l->window_count = l->singly ? 0 : l->window_max;
		return l->singly ? 1 : 0;
	}
	if (io_status == 0 && ++l->window_count < l->window_max)
		return 1;
	l->cut = io_status < 0;
	l->singly = false;
	return 0;
}

/* What cannot be read may be the group that comes next, or a part of it: acknowledged, perhaps.
 * Only behind a block that should be its beginning, and is not, nothing that was acknowledged can
 * be (wlog.h, 1): there it is taken for one that does not check. As scan_window. */
static int scan_cut(struct recovery_log *l, int io_status, struct error *err)
{
	if (l->position == l->window_first && (l->window_count > 0 || l->gap == 0))
		return error_set(err, io_status, "segment %u cannot be read",
				 l->segments[l->current].no);
	if (l->window_count > 0)
		return 1;
	if (l->gap++ == LOOK_AHEAD)
		return 0;
	l->position++;
	return 1;
}

static void ask_for_window(struct recovery_log *l, struct recovery_io *ret_io)
{
	const struct segments *t = &l->store->segments;
	uint32_t no = l->segments[l->current].no;

	ret_io->offset = (uint64_t)(segments_first_block(t, no) + l->window_first) * BLOCK_SIZE;
	ret_io->size = (size_t)l->window_max * BLOCK_SIZE;
	ret_io->data = l->window;
	if (l->singly) {
		ret_io->offset += (uint64_t)l->window_count * BLOCK_SIZE;
		ret_io->size = BLOCK_SIZE;
		ret_io->data = l->window + (size_t)l->window_count * BLOCK_SIZE;
	}
}

int recovery_log_step(struct recovery_log *l, int io_status, struct recovery_io *ret_io,
		      struct error *err)
{
	uint32_t blocks = l->store->segments.blocks;

	while (l->current < l->segment_count) {
		uint32_t no = l->segments[l->current].no;
		int rc = 1;

		if (l->reading && take_read(l, io_status) > 0) {
			ask_for_window(l, ret_io);
			return 1;
		}
		if (l->reading && l->window_count > 0)
			rc = scan_window(l, err);
		if (l->reading && l->cut && rc > 0)
			rc = scan_cut(l, io_status, err);
		l->reading = false;
		if (rc < 0)
			return rc;
		if (rc > 0 && l->position < blocks) {
			/* One that was never opened costs only a short read. */
			uint32_t count = l->any ? WINDOW_BLOCKS : LOOK_AHEAD + 1;

			l->window_first = l->position;
			l->window_max = MIN(count, blocks - l->position);
			l->reading = true;
			ask_for_window(l, ret_io);
			return 1;
		}
		if (l->any && l->store->segments.array[no].state == SEGMENT_RESERVED)
			segments_set_state(&l->store->segments, no, SEGMENT_SEALED);
		l->current++;
		begin_segment(l);
	}
	return 0;
}

/* -- replaying -------------------------------------------------------------------------------- */

static int by_seq(const void *a, const void *b)
{
	const struct recovery_group *const *ga = a, *const *gb = b;

	return ((*ga)->header.seq > (*gb)->header.seq) - ((*ga)->header.seq < (*gb)->header.seq);
}

/* Up to which group each stream is known to have been durable. */
static void known_durable(const struct recovery_log *l, uint64_t *ret_seq)
{
	ret_seq[0] = 0;
	ret_seq[1] = 0;
	for (uint32_t i = 0; i < l->group_count; i++)
		format_group_tell_durable(&l->groups[i]->header, ret_seq);
}

/* What was erased before it was written anew is buried first, as it was then. */
static int bury_before(struct store *store, const struct format_entry *e)
{
	struct index_chunk *chunk = store->index.graves;

	while (chunk != NULL && (chunk->volume->id != e->volume || chunk->no != e->chunk))
		chunk = chunk->grave_next;
	return chunk != NULL ? bury_now(store, chunk) : 0;
}

static int replay_entry(struct store *store, const struct format_entry *e,
			const struct apply_context *ctx)
{
	struct lookup l = {.volume = e->volume,
			   .chunk = e->chunk,
			   .block = e->block,
			   .block_count = e->block_count,
			   .kind = LOOKUP_WRITE};
	struct index_volume *volume;
	int rc = 0;

	switch (e->kind) {
	case FORMAT_FENCE:
		rc = index_get_volume(&store->index, e->volume, &volume);
		break;
	case FORMAT_WATERMARK:
		l.block_count = 0;
		break;
	default:
		if ((e->flags & FORMAT_FLAG_MOVE) != 0)
			l.kind = LOOKUP_MOVE;
		break;
	}
	if (rc < 0)
		return rc;
	if (e->kind == FORMAT_FENCE || e->kind == FORMAT_ERASE) {
		apply_entry(store, e, ctx);
		return 0;
	}
	if (l.kind == LOOKUP_WRITE && index_is_dead(&store->index, e->volume, e->chunk))
		rc = bury_before(store, e);
	if (rc == 0)
		rc = lookup_now(store, &l);
	if (rc < 0)
		return rc;
	if (l.held != NULL)
		apply_entry(store, e, ctx);
	lookup_end(store, &l);
	return 0;
}

static int replay_group(struct recovery_log *l, const struct recovery_group *rg)
{
	struct store *store = l->store;
	const struct format_group *g = &rg->header;
	struct segment *s = &store->segments.array[g->segment];
	uint64_t size = (uint64_t)(g->header_blocks + g->data_blocks) * BLOCK_SIZE;
	struct apply_context ctx = {
	    .crcs = rg->crcs,
	    .data_block = segments_first_block(&store->segments, g->segment) + g->first_block +
			  g->header_blocks,
	    .moved_from = LOCATION_NONE,
	};

	for (uint32_t i = 0; i < g->entry_count; i++) {
		int rc = replay_entry(store, &rg->entries[i], &ctx);

		if (rc < 0)
			return rc;
	}
	l->last_seq[g->stream] = g->seq;
	l->accepted++;
	l->accepted_bytes += size;
	s->stream = g->stream;
	s->used = MAX(s->used, g->first_block + g->header_blocks + g->data_blocks);
	s->last_seq = g->seq;
	checkpoint_note_dirty(store);
	store->checkpoint.log_bytes += size;
	return 0;
}

/* By stream, then by the group before, then by sequence. */
static int by_prev(const void *a, const void *b)
{
	const struct recovery_group *const *pa = a, *const *pb = b;
	const struct format_group *ga = &(*pa)->header, *gb = &(*pb)->header;

	if (ga->stream != gb->stream)
		return ga->stream - gb->stream;
	if (ga->prev_seq != gb->prev_seq)
		return ga->prev_seq > gb->prev_seq ? 1 : -1;
	return by_seq(a, b);
}

/* Of the groups that come after group `prev` in the stream the newest: an older one was written
 * before an earlier recovery, which did not accept it, and the log went on from `prev` without it.
 */
static struct recovery_group *find_next(const struct recovery_log *l, uint8_t stream, uint64_t prev)
{
	uint32_t low = 0, high = l->group_count;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const struct format_group *g = &l->groups[mid]->header;

		if (g->stream < stream || (g->stream == stream && g->prev_seq <= prev))
			low = mid + 1;
		else
			high = mid;
	}
	if (low == 0 || l->groups[low - 1]->header.stream != stream ||
	    l->groups[low - 1]->header.prev_seq != prev || l->groups[low - 1]->header.seq <= prev)
		return NULL;
	return l->groups[low - 1];
}

static int follow_chain(struct recovery_log *l, uint8_t stream, uint64_t durable, struct error *err)
{
	uint64_t last = l->last_seq[stream];
	struct recovery_group *rg;

	while ((rg = find_next(l, stream, last)) != NULL) {
		/* Torn, unless it is known that it once was whole. */
		if (!rg->data_ok && rg->header.seq > durable)
			break;
		rg->accepted = true;
		last = rg->header.seq;
	}
	if (durable > last)
		return error_set(err, -E_CORRUPT,
				 "acknowledged writes are lost: the log is damaged after group "
				 "%llu, and was durable up to %llu",
				 (unsigned long long)last, (unsigned long long)durable);
	return 0;
}

int recovery_log_accept(struct recovery_log *l, struct error *err)
{
	uint64_t durable[WLOG_STREAMS];
	int rc;

	if (l->group_count == 0)
		return 0;
	known_durable(l, durable);
	qsort(l->groups, l->group_count, sizeof(struct recovery_group *), by_prev);
	for (uint8_t i = 0; i < WLOG_STREAMS; i++) {
		rc = follow_chain(l, i, durable[i], err);
		if (rc < 0)
			return rc;
	}
	qsort(l->groups, l->group_count, sizeof(struct recovery_group *), by_seq);
	return 0;
}

/* A run of pages that an entry changes. */
struct span {
	volume_id_t volume;
	chunk_no_t chunk;
	page_no_t first, last;
};

static int by_place(const void *a, const void *b)
{
	const struct span *sa = a, *sb = b;

	if (sa->volume != sb->volume)
		return sa->volume > sb->volume ? 1 : -1;
	if (sa->chunk != sb->chunk)
		return sa->chunk > sb->chunk ? 1 : -1;
	return (sa->first > sb->first) - (sa->first < sb->first);
}

static bool has_pages(const struct format_entry *e)
{
	return e->kind != FORMAT_FENCE && e->kind != FORMAT_ERASE && e->kind != FORMAT_WATERMARK &&
	       e->block_count > 0;
}

static size_t list_spans(const struct recovery_log *l, struct span *ret)
{
	size_t count = 0;

	for (uint32_t i = 0; i < l->group_count; i++) {
		const struct recovery_group *rg = l->groups[i];

		for (uint32_t k = 0; rg->accepted && k < rg->header.entry_count; k++) {
			const struct format_entry *e = &rg->entries[k];

			if (!has_pages(e))
				continue;
			if (ret != NULL)
				ret[count] = (struct span){.volume = e->volume,
							   .chunk = e->chunk,
							   .first = e->block / PAGE_BLOCKS,
							   .last = (e->block + e->block_count - 1) /
								   PAGE_BLOCKS};
			count++;
		}
	}
	return count;
}

int recovery_log_load(struct recovery_log *l)
{
	struct store *store = l->store;
	const size_t count = list_spans(l, NULL);
	struct span *spans = malloc((count + 1) * sizeof *spans);

	if (spans == NULL)
		return -ENOMEM;
	list_spans(l, spans);
	qsort(spans, count, sizeof *spans, by_place);
	for (size_t i = 0; i < count; i++) {
		struct index_chunk *chunk =
		    index_find_chunk(&store->index, spans[i].volume, spans[i].chunk);

		for (page_no_t no = spans[i].first; chunk != NULL && no <= spans[i].last; no++)
			lookup_ahead(store, chunk, no);
	}
	free(spans);
	return 0;
}

int recovery_log_replay(struct recovery_log *l, struct error *err)
{
	struct store *store = l->store;

	for (uint32_t i = 0; i < l->group_count; i++) {
		int rc = l->groups[i]->accepted ? replay_group(l, l->groups[i]) : 0;
		if (rc < 0)
			return error_set(err, rc, "the log cannot be replayed: %s", err_text(rc));
	}
	for (uint32_t i = 0; i < WLOG_STREAMS; i++) {
		store->wlog.streams[i].last_seq = l->last_seq[i];
		store->wlog.streams[i].durable_seq = l->last_seq[i];
	}
	store->wlog.next_seq =
	    MAX(store->wlog.next_seq, l->max_seq + 1) + seq_distance(store->reactor);
	return 0;
}
