/* rebuild: see rebuild.h. */
#include "engine/store/rebuild.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/store/store.h"

#define STREAMS	   2u
#define BATCH_PUTS 4096u
#define TORN_MAX   (1u << 20) /* groups with bad blocks: more than that is no device any more */
#define ERASES_MAX (1u << 24)

struct slot {
	struct format_slot slot;
	uint64_t seq; /* of the group that it came from */
};

struct page_key {
	volume_id_t volume;
	chunk_no_t chunk;
	page_no_t page;
	uint32_t shard;
	uint32_t zero;
};

struct page {
	struct page_key key;
	struct slot slots[PAGE_BLOCKS];
	UT_hash_handle hh;
};

/* Of a chunk; with the number UINT32_MAX of a volume. */
struct chunk_key {
	volume_id_t volume;
	chunk_no_t chunk;
	uint32_t shard;
};

struct chunk {
	struct chunk_key key;
	version_t newest, watermark;
	generation_t fence;	    /* of a volume: the highest found */
	generation_t generation;    /* of a volume: the highest of any version */
	uint64_t erased;	    /* seq of its last erase */
	struct format_leaf *leaves; /* FORMAT_CHUNK_LEAVES: which pages exist; NULL: none */
	UT_hash_handle hh;
};

struct torn {
	uint32_t shard;
	uint8_t stream;
	bool dropped;
	uint64_t seq, prev_seq;
};

struct stream {
	uint64_t last_seq;
	uint64_t chain; /* sum of mix(seq) - mix(prev_seq): telescopes when no group is missing */
};

struct rebuild {
	const struct survey_device *device;
	const struct format_super *super;
	struct survey_segment *segments; /* by number */
	uint8_t *bad;			 /* a bit a block of the device */
	uint32_t *live;			 /* blocks, by segment */
	struct page *pages;
	struct chunk *chunks;
	struct torn *torn;
	uint32_t torn_count, torn_room;
	struct stream streams[FORMAT_SHARDS_MAX][STREAMS];
	uint64_t durable_seq[FORMAT_SHARDS_MAX][STREAMS];
	struct rebuild_stats stats;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 32;
}

struct rebuild *rebuild_create(const struct survey_device *device, const struct format_super *super)
{
	struct rebuild *r = calloc(1, sizeof *r);
	size_t blocks = FORMAT_SEGMENTS_BLOCK +
			(size_t)super->segment_count * (super->segment_bytes / BLOCK_SIZE);

	if (r == NULL)
		return NULL;
	r->device = device;
	r->super = super;
	r->segments = calloc(super->segment_count, sizeof *r->segments);
	r->live = calloc(super->segment_count, sizeof *r->live);
	r->bad = calloc(blocks / 8 + 1, 1);
	if (r->segments != NULL && r->live != NULL && r->bad != NULL)
		return r;
	rebuild_destroy(r);
	return NULL;
}

void rebuild_destroy(struct rebuild *r)
{
	struct page *p, *next_page;
	struct chunk *c, *next_chunk;

	if (r == NULL)
		return;
	HASH_ITER (hh, r->pages, p, next_page) {
		HASH_DEL(r->pages, p);
		free(p);
	}
	HASH_ITER (hh, r->chunks, c, next_chunk) {
		HASH_DEL(r->chunks, c);
		free(c->leaves);
		free(c);
	}
	free(r->segments);
	free(r->live);
	free(r->bad);
	free(r->torn);
	free(r);
}

static bool is_bad(const struct rebuild *r, uint32_t location)
{
	return (r->bad[location / 8] & 1u << location % 8) != 0;
}

static struct chunk *find_chunk(const struct rebuild *r, uint32_t shard, volume_id_t volume,
				chunk_no_t chunk)
{
	struct chunk_key key = {.volume = volume, .chunk = chunk, .shard = shard};
	struct chunk *c;

	HASH_FIND(hh, r->chunks, &key, sizeof key, c);
	return c;
}

/* Found or made; NULL without memory. */
static struct chunk *get_chunk(struct rebuild *r, uint32_t shard, volume_id_t volume,
			       chunk_no_t chunk)
{
	struct chunk *c = find_chunk(r, shard, volume, chunk);

	if (c != NULL)
		return c;
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	c->key = (struct chunk_key){.volume = volume, .chunk = chunk, .shard = shard};
	HASH_ADD(hh, r->chunks, key, sizeof c->key, c);
	if (c->hh.tbl != NULL)
		return c;
	free(c);
	return NULL;
}

static struct page *get_page(struct rebuild *r, uint32_t shard, volume_id_t volume,
			     chunk_no_t chunk, page_no_t no)
{
	struct page_key key = {.volume = volume, .chunk = chunk, .page = no, .shard = shard};
	struct page *p;

	HASH_FIND(hh, r->pages, &key, sizeof key, p);
	if (p != NULL)
		return p;
	p = calloc(1, sizeof *p);
	if (p == NULL)
		return NULL;
	p->key = key;
	HASH_ADD(hh, r->pages, key, sizeof p->key, p);
	if (p->hh.tbl != NULL)
		return p;
	free(p);
	return NULL;
}

/* -- pass 1 ----------------------------------------------------------------------------------- */

static int note_torn(struct rebuild *r, uint32_t shard, const struct format_group *g)
{
	if (r->torn_count == r->torn_room) {
		uint32_t room = MAX(64u, 2 * r->torn_room);
		void *p = room <= TORN_MAX ? realloc(r->torn, room * sizeof *r->torn) : NULL;

		if (p == NULL)
			return room <= TORN_MAX ? -ENOMEM : -E_LIMIT;
		r->torn = p;
		r->torn_room = room;
	}
	r->torn[r->torn_count++] = (struct torn){
	    .shard = shard, .stream = g->stream, .seq = g->seq, .prev_seq = g->prev_seq};
	return 0;
}

static int note_entry(struct rebuild *r, uint32_t shard, const struct format_entry *e, uint64_t seq)
{
	struct chunk *volume = get_chunk(r, shard, e->volume, UINT32_MAX);
	struct chunk *c = volume;

	if (e->chunk != UINT32_MAX)
		c = get_chunk(r, shard, e->volume, e->chunk);
	if (volume == NULL || c == NULL)
		return -ENOMEM;
	switch (e->kind) {
	case FORMAT_ERASE:
		c->erased = MAX(c->erased, seq);
		r->stats.erases++;
		break;
	case FORMAT_FENCE:
		volume->fence = MAX(volume->fence, (generation_t)e->version);
		break;
	default:
		volume->generation = MAX(volume->generation, version_generation(e->version));
		volume->generation =
		    MAX(volume->generation, version_generation(format_entry_watermark(e)));
		break;
	}
	return 0;
}

static int first_group(const struct survey_group *group, void *arg)
{
	struct rebuild *r = arg;
	const struct format_group *g = &group->header;
	uint32_t shard = g->segment % r->super->shard_count;
	struct stream *s = &r->streams[shard][g->stream];
	int rc = 0;

	r->stats.groups++;
	s->last_seq = MAX(s->last_seq, g->seq);
	format_group_tell_durable(g, r->durable_seq[shard]);
	s->chain += mix(g->seq) - mix(g->prev_seq);
	for (uint32_t i = 0; group->bad_blocks > 0 && i < g->data_blocks; i++)
		if (group->block_is_bad[i]) {
			uint32_t location = group->data_location + i;

			r->bad[location / 8] = (uint8_t)(r->bad[location / 8] | 1u << location % 8);
		}
	if (group->bad_blocks > group->known_bad_blocks)
		rc = note_torn(r, shard, g);
	for (uint32_t i = 0; i < g->entry_count && rc == 0; i++)
		rc = note_entry(r, shard, &group->entries[i], g->seq);
	return rc;
}

static int first_segment(const struct survey_segment *segment, void *arg)
{
	struct rebuild *r = arg;

	r->segments[segment->no] = *segment;
	r->stats.old_groups += segment->old_groups;
	r->stats.lost_blocks += segment->lost;
	r->stats.unreadable_blocks += segment->unreadable;
	return 0;
}

static int by_seq(const void *a, const void *b)
{
	const struct torn *ta = a, *tb = b;

	if (ta->shard != tb->shard)
		return ta->shard > tb->shard ? 1 : -1;
	return (ta->seq > tb->seq) - (ta->seq < tb->seq);
}

/* A group with bad blocks that is not known to have been durable is torn: it was never
 * acknowledged, and is none. */
static void drop_torn(struct rebuild *r)
{
	for (uint32_t i = 0; i < r->torn_count; i++) {
		struct torn *t = &r->torn[i];
		struct stream *s = &r->streams[t->shard][t->stream];

		t->dropped = t->seq > r->durable_seq[t->shard][t->stream];
		if (!t->dropped)
			continue;
		s->chain -= mix(t->seq) - mix(t->prev_seq);
		r->stats.torn_groups++;
	}
	if (r->torn_count > 0)
		qsort(r->torn, r->torn_count, sizeof *r->torn, by_seq);
}

static bool is_dropped(const struct rebuild *r, uint32_t shard, uint64_t seq)
{
	struct torn key = {.shard = shard, .seq = seq};
	const struct torn *t = NULL;

	if (r->torn_count > 0)
		t = bsearch(&key, r->torn, r->torn_count, sizeof *r->torn, by_seq);
	return t != NULL && t->dropped;
}

/* -- pass 2 ----------------------------------------------------------------------------------- */

/* Whether what was written under this number was erased later. */
static bool is_erased(const struct rebuild *r, uint32_t shard, const struct format_entry *e,
		      uint64_t seq)
{
	const struct chunk *c = find_chunk(r, shard, e->volume, e->chunk);
	const struct chunk *volume = find_chunk(r, shard, e->volume, UINT32_MAX);

	return (c != NULL && c->erased > seq) || (volume != NULL && volume->erased > seq);
}

static bool is_better(const struct rebuild *r, const struct slot *a, const struct slot *b)
{
	bool a_data = format_slot_has_data(&a->slot), b_data = format_slot_has_data(&b->slot);

	if (a->slot.version != b->slot.version)
		return a->slot.version > b->slot.version;
	/* One version has one content. */
	if (a_data != b_data)
		return b_data ? is_bad(r, b->slot.location) : !is_bad(r, a->slot.location);
	if (a_data && is_bad(r, a->slot.location) != is_bad(r, b->slot.location))
		return !is_bad(r, a->slot.location);
	return a->seq > b->seq;
}

static int place_blocks(struct rebuild *r, uint32_t shard, const struct format_entry *e,
			const struct survey_group *group)
{
	struct page *page = NULL;

	for (uint32_t i = 0; i < e->block_count; i++) {
		block_no_t block = e->block + i;
		struct slot new = {.slot = {.version = e->version, .crc = CRC32C_ZERO_BLOCK},
				   .seq = group->header.seq};
		struct slot *slot;

		if (page == NULL || page->key.page != block >> PAGE_SHIFT)
			page = get_page(r, shard, e->volume, e->chunk, block >> PAGE_SHIFT);
		if (page == NULL)
			return -ENOMEM;
		if (e->kind == FORMAT_DATA) {
			new.slot.location = group->data_location + e->data_first + i;
			new.slot.crc = group->crcs[e->data_first + i];
		} else {
			new.slot.location =
			    e->kind == FORMAT_ZERO ? LOCATION_ZERO : LOCATION_DISCARDED;
		}
		slot = &page->slots[block % PAGE_BLOCKS];
		if (is_better(r, &new, slot))
			*slot = new;
	}
	return 0;
}

static int second_entry(struct rebuild *r, uint32_t shard, const struct format_entry *e,
			const struct survey_group *group)
{
	struct chunk *c;

	if (e->kind == FORMAT_FENCE || e->kind == FORMAT_ERASE ||
	    is_erased(r, shard, e, group->header.seq))
		return 0;
	c = get_chunk(r, shard, e->volume, e->chunk);
	INVARIANT(c != NULL); /* pass 1 made it */
	c->watermark = MAX(c->watermark, format_entry_watermark(e));
	if (e->kind == FORMAT_WATERMARK)
		return 0;
	c->newest = MAX(c->newest, e->version);
	return place_blocks(r, shard, e, group);
}

static int second_group(const struct survey_group *group, void *arg)
{
	struct rebuild *r = arg;
	uint32_t shard = group->header.segment % r->super->shard_count;
	int rc = 0;

	if (is_dropped(r, shard, group->header.seq))
		return 0;
	for (uint32_t i = 0; i < group->header.entry_count && rc == 0; i++)
		rc = second_entry(r, shard, &group->entries[i], group);
	return rc;
}

static bool is_complete(const struct rebuild *r)
{
	bool complete = r->stats.lost_blocks == 0;

	for (uint32_t i = 0; i < r->super->shard_count; i++)
		for (uint32_t j = 0; j < STREAMS; j++) {
			const struct stream *s = &r->streams[i][j];
			uint64_t last = s->last_seq;

			for (uint32_t k = 0; k < r->torn_count; k++)
				if (r->torn[k].dropped && r->torn[k].shard == i &&
				    r->torn[k].stream == j && r->torn[k].seq == last)
					last = r->torn[k].prev_seq;
			if (s->last_seq > 0 && s->chain != mix(last) - mix(0))
				complete = false;
		}
	return complete;
}

static void count(struct rebuild *r)
{
	uint32_t blocks = r->super->segment_bytes / BLOCK_SIZE;

	for (struct page *p = r->pages; p != NULL; p = p->hh.next) {
		r->stats.pages++;
		for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
			const struct format_slot *slot = &p->slots[i].slot;

			if (slot->version != 0 && !format_slot_has_data(slot))
				r->stats.zero_blocks++;
			if (!format_slot_has_data(slot))
				continue;
			r->stats.blocks++;
			r->stats.bad_blocks += is_bad(r, slot->location);
			r->live[(slot->location - FORMAT_SEGMENTS_BLOCK) / blocks]++;
		}
	}
	for (struct chunk *c = r->chunks; c != NULL; c = c->hh.next) {
		if (c->key.chunk == UINT32_MAX)
			r->stats.volumes++;
		else if (c->newest != 0)
			r->stats.chunks++;
	}
}

int rebuild_run(struct rebuild *r, struct error *err)
{
	struct survey_sink first = {.group = first_group, .segment = first_segment, .arg = r};
	struct survey_sink second = {.group = second_group, .arg = r};
	int rc = survey_run(r->device, r->super, true, &first);

	if (rc == 0) {
		drop_torn(r);
		r->stats.complete = is_complete(r);
		rc = survey_run(r->device, r->super, false, &second);
	}
	if (rc == -E_LIMIT)
		return error_set(err, rc, "%s: more than %u groups do not check", r->device->name,
				 TORN_MAX);
	if (rc < 0)
		return error_set(err, rc, "%s: there is no memory for its index", r->device->name);
	count(r);
	return 0;
}

void rebuild_get_stats(const struct rebuild *r, struct rebuild_stats *ret_stats)
{
	*ret_stats = r->stats;
}

/* -- writing ---------------------------------------------------------------------------------- */

struct writer {
	struct rebuild *r;
	struct kv *kv;
	uint32_t slot;
	int (*commit)(struct kv *kv, struct kv_batch *batch, void *arg);
	void *arg;
	struct kv_batch *batch;
	uint32_t puts;
	int rc;
};

/* A batch that something failed for stays, for rebuild_write to destroy. */
static void commit_puts(struct writer *w)
{
	if (w->rc != 0 || w->batch == NULL)
		return;
	w->rc = w->commit(w->kv, w->batch, w->arg);
	w->batch = NULL;
	w->puts = 0;
}

static void put(struct writer *w, uint32_t family, const uint8_t *key, size_t key_size,
		const uint8_t *value, size_t value_size)
{
	if (w->rc != 0)
		return;
	if (w->batch == NULL)
		w->batch = kv_batch_create(w->kv);
	if (w->batch == NULL) {
		w->rc = -ENOMEM;
		return;
	}
	kv_batch_put(w->kv, w->batch, family, key, key_size, value, value_size);
	if (++w->puts == BATCH_PUTS)
		commit_puts(w);
}

/* Notes in the page's chunk that it exists. 0 or -ENOMEM. */
static int note_exists(struct rebuild *r, const struct page_key *key)
{
	struct chunk *c = find_chunk(r, key->shard, key->volume, key->chunk);
	uint32_t i = key->page % FORMAT_LEAF_PAGES;

	INVARIANT(c != NULL); /* pass 1 made it */
	if (c->leaves == NULL)
		c->leaves = calloc(FORMAT_CHUNK_LEAVES, sizeof *c->leaves);
	if (c->leaves == NULL)
		return -ENOMEM;
	c->leaves[key->page / FORMAT_LEAF_PAGES].exists[i / 64] |= 1ull << i % 64;
	return 0;
}

static void put_pages(struct writer *w)
{
	for (struct page *p = w->r->pages; p != NULL; p = p->hh.next) {
		uint8_t key[FORMAT_KEY_MAX], value[FORMAT_PAGE_VALUE_MAX];
		struct format_slot slots[PAGE_BLOCKS];
		size_t key_size;

		if (w->rc == 0)
			w->rc = note_exists(w->r, &p->key);
		for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
			slots[i] = p->slots[i].slot;
		key_size = format_key_page(format_prefix(w->slot, p->key.shard), p->key.volume,
					   p->key.chunk, p->key.page, key);
		put(w, STORE_KV_PAGES, key, key_size, value, format_page_encode(slots, value));
	}
}

static size_t encode_chunk(const struct chunk *c, struct format_chunk *record, uint8_t *ret_value)
{
	const struct format_leaf *leaves[FORMAT_CHUNK_LEAVES];

	for (uint32_t i = 0; c->leaves != NULL && i < FORMAT_CHUNK_LEAVES; i++) {
		leaves[i] = &c->leaves[i];
		for (uint32_t k = 0; k < ARRAY_SIZE(leaves[i]->exists); k++)
			if (leaves[i]->exists[k] != 0)
				record->leaf_mask |= 1ull << i;
	}
	return format_chunk_encode(record, leaves, ret_value);
}

static void put_replicas(struct writer *w)
{
	for (struct chunk *c = w->r->chunks; c != NULL; c = c->hh.next) {
		struct format_chunk record = {.newest = c->newest};
		generation_t fence = c->fence;
		uint8_t key[FORMAT_KEY_MAX], value[FORMAT_CHUNK_VALUE_MAX];
		size_t key_size = format_key_chunk(format_prefix(w->slot, c->key.shard),
						   c->key.volume, c->key.chunk, key);

		if (w->r->stats.complete)
			record.watermark = c->watermark;
		else
			fence = MAX(fence, c->generation);
		if (c->key.chunk == UINT32_MAX)
			put(w, STORE_KV_REPLICAS, key, key_size, value,
			    format_fence_encode(fence, value));
		else if (record.newest != 0 || record.watermark != 0)
			put(w, STORE_KV_REPLICAS, key, key_size, value,
			    encode_chunk(c, &record, value));
	}
}

static void put_segments(struct writer *w)
{
	const struct rebuild *r = w->r;
	struct format_traces traces;

	/* Also under headers that do not check. */
	format_remains_fill(&traces.now);
	format_remains_fill(&traces.before);
	for (uint32_t no = 0; no < r->super->segment_count; no++) {
		const struct survey_segment *s = &r->segments[no];
		struct format_segment record = {
		    .state = FORMAT_SEGMENT_FREE,
		    .primed = s->epoch > 0,
		    .epoch = s->epoch,
		};
		uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
		size_t key_size =
		    format_key_segment(format_prefix(w->slot, no % r->super->shard_count), no, key);

		if (r->live[no] > 0) {
			record.state = FORMAT_SEGMENT_SEALED;
			record.used_blocks = s->used;
			record.live = r->live[no];
			record.last_seq = s->last_seq;
		}
		put(w, STORE_KV_SEGMENTS, key, key_size, value,
		    format_segment_encode(&record, &traces, value));
	}
}

/* Last, in a batch of their own: without them the index counts as none. */
static void put_positions(struct writer *w)
{
	const struct rebuild *r = w->r;

	commit_puts(w);
	for (uint32_t shard = 0; shard < r->super->shard_count; shard++) {
		const struct stream *s = r->streams[shard];
		struct format_checkpoint record = {
		    .device = r->super->device,
		    .shard = shard,
		    .shard_count = r->super->shard_count,
		    .segment_bytes = r->super->segment_bytes,
		    .segment_count = r->super->segment_count,
		    .number = 1,
		    .next_seq = MAX(s[0].last_seq, s[1].last_seq) + 1,
		    .last_seq = {s[0].last_seq, s[1].last_seq},
		};
		uint8_t key[FORMAT_KEY_MAX], value[FORMAT_VALUE_MAX];
		size_t key_size = format_key_node(format_prefix(w->slot, shard), key);

		put(w, STORE_KV_NODE, key, key_size, value,
		    format_checkpoint_encode(&record, value));
	}
	commit_puts(w);
}

int rebuild_write(struct rebuild *r, struct kv *kv, uint32_t slot,
		  int (*commit)(struct kv *kv, struct kv_batch *batch, void *arg), void *arg,
		  struct error *err)
{
	struct writer w = {.r = r, .kv = kv, .slot = slot, .commit = commit, .arg = arg};

	put_pages(&w);
	put_replicas(&w);
	put_segments(&w);
	put_positions(&w);
	kv_batch_destroy(kv, w.batch);
	return w.rc == 0 ? 0 : error_set(err, w.rc, "the new index cannot be written");
}
