/* refs: see refs.h. */
#include "tools/pave-inspect/refs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/store/store.h"

#define CHUNK_PAGES (FORMAT_CHUNK_LEAVES * FORMAT_LEAF_PAGES)
#define LIVE_SINCE  2u /* the version of segments' records */

struct refs {
	struct inspect_device *device;
	const struct format_super *super;
	struct kv *kv;
	struct findings *findings;
	uint32_t segment_blocks;
	bool found[FORMAT_SHARDS_MAX]; /* a checkpoint of the shard */
	uint32_t prefixes[FORMAT_SHARDS_MAX];
	struct format_checkpoint checkpoints[FORMAT_SHARDS_MAX];
	struct refs_segment *segments;
	uint64_t page_count, count;

	/* The window, [first, end) of segments. */
	struct ref *window;
	size_t window_count, window_room, window_max;
	uint32_t first, end;

	/* While all is gone through. */
	uint32_t shard;
	struct refs_chunk chunk; /* the one whose pages are being scanned */
	struct format_leaf seen[FORMAT_CHUNK_LEAVES];
	void (*take)(struct refs *r, page_no_t page, const struct format_slot *slots);
	int failed;

	/* What was asked for last. */
	struct refs_chunk asked;
	bool asked_valid;
	struct format_slot slots[PAGE_BLOCKS];
	uint32_t slots_shard;
	volume_id_t slots_volume;
	chunk_no_t slots_chunk;
	page_no_t slots_page;
	bool slots_valid, slots_found;
};

static bool has_bit(const struct format_leaf *leaves, page_no_t page)
{
	const struct format_leaf *leaf = &leaves[page / FORMAT_LEAF_PAGES];

	page %= FORMAT_LEAF_PAGES;
	return (leaf->exists[page / 64] >> page % 64 & 1) != 0;
}

static void set_bit(struct format_leaf *leaves, page_no_t page)
{
	struct format_leaf *leaf = &leaves[page / FORMAT_LEAF_PAGES];

	page %= FORMAT_LEAF_PAGES;
	leaf->exists[page / 64] |= 1ull << page % 64;
}

/* Records of version 1 do not say which pages exist. */
static bool knows_pages(const struct refs_chunk *chunk)
{
	return chunk->record.version > 1;
}

bool refs_chunk_has_page(const struct refs_chunk *chunk, page_no_t page)
{
	return chunk->found && knows_pages(chunk) && page < CHUNK_PAGES &&
	       has_bit(chunk->leaves, page);
}

/* -- going through all of it ------------------------------------------------------------------ */

/* The segment of a place, or UINT32_MAX. */
static uint32_t segment_of(const struct refs *r, uint32_t location)
{
	uint32_t no = (location - FORMAT_SEGMENTS_BLOCK) / r->segment_blocks;

	return no < r->super->segment_count && no % r->super->shard_count == r->shard ? no
										      : UINT32_MAX;
}

static int take_page(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct format_slot slots[PAGE_BLOCKS];
	struct refs *r = arg;
	volume_id_t volume;
	chunk_no_t chunk;
	page_no_t page;

	if (format_key_page_decode(key, key_size, &volume, &chunk, &page) < 0 ||
	    format_page_decode(value, value_size, slots) < 0 || page >= CHUNK_PAGES)
		return -E_CORRUPT;
	set_bit(r->seen, page);
	/* To the node it is not there. */
	if (!knows_pages(&r->chunk) || has_bit(r->chunk.leaves, page))
		r->take(r, page, slots);
	return r->failed;
}

static int decode_chunk(struct refs_chunk *c, const void *value, size_t size)
{
	memset(c->leaves, 0, sizeof c->leaves);
	return format_chunk_decode(value, size, &c->record, c->leaves);
}

static int take_chunk(const void *key, size_t key_size, const void *value, size_t value_size,
		      void *arg)
{
	struct refs *r = arg;
	struct refs_chunk *c = &r->chunk;
	uint8_t prefix[FORMAT_KEY_MAX];
	size_t size;

	if (format_key_chunk_decode(key, key_size, &c->volume, &c->no) < 0)
		return -E_CORRUPT;
	if (c->no == UINT32_MAX)
		return 0; /* the volume's fence */
	if (decode_chunk(c, value, value_size) < 0)
		return -E_CORRUPT;
	c->shard = r->shard;
	c->found = true;
	memset(r->seen, 0, sizeof r->seen);
	/* It is what the keys of the chunk's pages begin with. */
	size = format_key_chunk(r->prefixes[r->shard], c->volume, c->no, prefix);
	return kv_scan(r->kv, STORE_KV_PAGES, prefix, size, take_page, r);
}

static int scan(struct refs *r, void (*take)(struct refs *, page_no_t, const struct format_slot *),
		int (*each)(const void *, size_t, const void *, size_t, void *))
{
	uint8_t prefix[FORMAT_KEY_MAX];
	int rc = 0;

	r->take = take;
	r->failed = 0;
	for (r->shard = 0; r->shard < r->super->shard_count && rc == 0; r->shard++) {
		size_t size = format_key_node(r->prefixes[r->shard], prefix);

		rc = kv_scan(r->kv, STORE_KV_REPLICAS, prefix, size, each, r);
	}
	return rc;
}

/* -- the first time --------------------------------------------------------------------------- */

static void count_outside(struct refs *r, page_no_t page, uint32_t i, const struct format_slot *s)
{
	const struct refs_chunk *c = &r->chunk;

	findings_add(r->findings, FINDING_OUTSIDE, 1,
		     "volume %" PRIu64 " chunk %u block %u: the index has it in block %u of the "
		     "device; shard %u of %u has %u segments of %u blocks, from block %u on",
		     c->volume, c->no, page * PAGE_BLOCKS + i, s->location, r->shard,
		     r->super->shard_count, r->super->segment_count, r->segment_blocks,
		     FORMAT_SEGMENTS_BLOCK);
}

static void count_page(struct refs *r, page_no_t page, const struct format_slot *slots)
{
	const struct refs_chunk *c = &r->chunk;
	bool newer = false;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		uint32_t no;

		newer = newer || slots[i].version > c->record.newest;
		if (!format_slot_has_data(&slots[i]))
			continue;
		no = segment_of(r, slots[i].location);
		if (no == UINT32_MAX) {
			count_outside(r, page, i, &slots[i]);
			continue;
		}
		r->segments[no].live++;
		r->segments[no].refs += !c->record.dead;
		r->count += !c->record.dead;
	}
	r->page_count += !c->record.dead;
	if (newer && !c->record.dead)
		findings_add(r->findings, FINDING_ODD_PAGE, 1,
			     "volume %" PRIu64 " chunk %u page %u: it holds newer versions than "
			     "%u.%" PRIu64 ", which its chunk says is the newest",
			     c->volume, c->no, page, version_generation(c->record.newest),
			     version_seq(c->record.newest));
}

/* The pages that were there, and those that the chunk says exist. */
static void compare_pages(struct refs *r)
{
	const struct refs_chunk *c = &r->chunk;

	if (c->record.dead || !knows_pages(c))
		return;
	for (page_no_t page = 0; page < CHUNK_PAGES; page++) {
		bool exists = has_bit(c->leaves, page), seen = has_bit(r->seen, page);

		if (exists && !seen)
			findings_add(r->findings, FINDING_LOST_PAGE, 1,
				     "volume %" PRIu64 " chunk %u page %u (blocks %u+%u)",
				     c->volume, c->no, page, page * PAGE_BLOCKS, PAGE_BLOCKS);
		if (!exists && seen)
			findings_add(r->findings, FINDING_ODD_PAGE, 1,
				     "volume %" PRIu64
				     " chunk %u page %u: it is there, and its chunk says that no "
				     "such page exists",
				     c->volume, c->no, page);
	}
}

static int count_chunk(const void *key, size_t key_size, const void *value, size_t value_size,
		       void *arg)
{
	struct refs *r = arg;
	int rc = take_chunk(key, key_size, value, value_size, arg);

	if (rc == 0 && r->chunk.no != UINT32_MAX)
		compare_pages(r);
	return rc;
}

static void compare_counts(struct refs *r)
{
	for (uint32_t no = 0; no < r->super->segment_count; no++) {
		const struct refs_segment *s = &r->segments[no];

		if ((s->has_record && s->record.version < LIVE_SINCE) || s->record.live == s->live)
			continue;
		findings_add(r->findings, FINDING_COUNT, 1,
			     "segment %u: its record says %u live blocks, and pages refer to %u",
			     no, s->record.live, s->live);
	}
}

static int take_segment(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct format_traces traces;
	struct refs *r = arg;
	uint32_t no;

	if (format_key_segment_decode(key, key_size, &no) < 0)
		return -E_CORRUPT;
	if (no >= r->super->segment_count)
		return 0; /* the scrub's */
	if (format_segment_decode(value, value_size, &r->segments[no].record, &traces) < 0)
		return -E_CORRUPT;
	r->segments[no].has_record = true;
	return 0;
}

static int take_node(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct format_checkpoint record;
	struct refs *r = arg;
	uint32_t prefix;

	if (format_key_node_decode(key, key_size, &prefix) < 0 ||
	    format_checkpoint_decode(value, value_size, &record) < 0)
		return 0; /* not a checkpoint of today's format: not ours to judge */
	if (!uuid_equal(&record.device, &r->super->device) || record.shard >= FORMAT_SHARDS_MAX)
		return 0;
	r->found[record.shard] = true;
	r->prefixes[record.shard] = prefix;
	r->checkpoints[record.shard] = record;
	return 0;
}

static int take_all(struct refs *r, const char *path, struct error *err)
{
	uint8_t prefix[FORMAT_KEY_MAX];
	int rc = kv_scan(r->kv, STORE_KV_NODE, prefix, 0, take_node, r);

	for (uint32_t shard = 0; rc == 0 && shard < r->super->shard_count; shard++) {
		size_t size;

		if (!r->found[shard])
			return error_set(
			    err, -ENOENT,
			    "index %s: it has no checkpoint of shard %u of this device (%s)", path,
			    shard, r->device->survey.name);
		size = format_key_node(r->prefixes[shard], prefix);
		rc = kv_scan(r->kv, STORE_KV_SEGMENTS, prefix, size, take_segment, r);
	}
	if (rc == 0)
		rc = scan(r, count_page, count_chunk);
	if (rc != 0)
		return error_set(err, rc,
				 "index %s: it cannot be read: %s: restore it, or make a new one "
				 "(--rebuild-index)",
				 path, err_text(rc));
	compare_counts(r);
	return 0;
}

int refs_open(struct inspect_device *d, const char *path, const struct format_super *super,
	      uint64_t memory_bytes, struct findings *findings, struct refs **ret_refs,
	      struct error *err)
{
	struct refs *r = calloc(1, sizeof *r);
	int rc = 0;

	if (r == NULL)
		return error_set(err, -ENOMEM, "no memory");
	r->device = d;
	r->super = super;
	r->findings = findings;
	r->segment_blocks = super->segment_bytes / BLOCK_SIZE;
	/* One segment must fit, each of its blocks referred to twice even. */
	r->window_max = MAX(memory_bytes / sizeof *r->window, (uint64_t)2 * r->segment_blocks);
	r->segments = calloc(super->segment_count, sizeof *r->segments);
	if (r->segments == NULL)
		rc = error_set(err, -ENOMEM, "no memory");
	if (rc == 0) {
		rc = kv_rocks_open_read_only(d->reactor, path, store_kv_family_names,
					     STORE_KV_FAMILIES, 0, &r->kv, err);
		if (rc != 0)
			error_wrap(err, "index %s", path);
	}
	if (rc == 0)
		rc = take_all(r, path, err);
	if (rc != 0) {
		refs_close(r);
		return rc;
	}
	*ret_refs = r;
	return 0;
}

void refs_close(struct refs *r)
{
	if (r == NULL)
		return;
	kv_close(r->kv);
	free(r->segments);
	free(r->window);
	free(r);
}

const struct format_checkpoint *refs_checkpoints(const struct refs *r)
{
	return r->checkpoints;
}

const struct refs_segment *refs_segments(const struct refs *r)
{
	return r->segments;
}

uint64_t refs_page_count(const struct refs *r)
{
	return r->page_count;
}

uint64_t refs_count(const struct refs *r)
{
	return r->count;
}

/* -- the window ------------------------------------------------------------------------------- */

static void collect_page(struct refs *r, page_no_t page, const struct format_slot *slots)
{
	for (uint32_t i = 0; i < PAGE_BLOCKS && !r->chunk.record.dead; i++) {
		uint32_t no;

		if (!format_slot_has_data(&slots[i]))
			continue;
		no = segment_of(r, slots[i].location);
		/* It was counted: there is room, but for a segment that is referred to so often
		 * that its places must be shared many times over. */
		if (no < r->first || no >= r->end || r->window_count == r->window_room)
			continue;
		r->window[r->window_count++] = (struct ref){
		    .location = slots[i].location,
		    .crc = slots[i].crc,
		    .version = slots[i].version,
		    .volume = r->chunk.volume,
		    .chunk = r->chunk.no,
		    .block = page * PAGE_BLOCKS + i,
		    .shard = (uint8_t)r->shard,
		};
	}
}

static int by_location(const void *a, const void *b)
{
	const struct ref *ra = a, *rb = b;

	return (ra->location > rb->location) - (ra->location < rb->location);
}

static int make_room(struct refs *r, size_t count)
{
	size_t room = MIN(count, r->window_max);
	void *p;

	if (room <= r->window_room)
		return 0;
	p = realloc(r->window, room * sizeof *r->window);
	if (p == NULL)
		return -ENOMEM;
	r->window = p;
	r->window_room = room;
	return 0;
}

int refs_load_window(struct refs *r, uint32_t first, uint32_t *ret_end)
{
	size_t count = 0;
	int rc;

	r->first = first;
	r->end = first;
	r->window_count = 0;
	while (r->end < r->super->segment_count &&
	       (r->end == first || count + r->segments[r->end].refs <= r->window_max))
		count += r->segments[r->end++].refs;
	rc = make_room(r, count);
	if (rc == 0 && count > 0)
		rc = scan(r, collect_page, take_chunk);
	if (rc != 0)
		return rc;
	if (r->window_count > 0)
		qsort(r->window, r->window_count, sizeof *r->window, by_location);
	*ret_end = r->end;
	return 0;
}

struct ref *refs_find(struct refs *r, uint32_t location, struct ref **ret_end)
{
	size_t low = 0, high = r->window_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->window[mid].location < location)
			low = mid + 1;
		else
			high = mid;
	}
	*ret_end = r->window + r->window_count;
	return r->window + low;
}

/* -- single blocks ---------------------------------------------------------------------------- */

static int take_asked_chunk(const void *key, size_t key_size, const void *value, size_t value_size,
			    void *arg)
{
	struct refs *r = arg;

	(void)key;
	(void)key_size;
	r->asked.found = true;
	return decode_chunk(&r->asked, value, value_size);
}

int refs_chunk(struct refs *r, uint32_t shard, volume_id_t volume, chunk_no_t no,
	       const struct refs_chunk **ret_chunk)
{
	struct refs_chunk *c = &r->asked;
	uint8_t key[FORMAT_KEY_MAX];
	size_t size;
	int rc;

	*ret_chunk = c;
	if (r->asked_valid && c->shard == shard && c->volume == volume && c->no == no)
		return 0;
	r->asked_valid = false;
	c->shard = shard;
	c->volume = volume;
	c->no = no;
	c->found = false;
	size = format_key_chunk(r->prefixes[shard], volume, no, key);
	rc = kv_scan(r->kv, STORE_KV_REPLICAS, key, size, take_asked_chunk, r);
	r->asked_valid = rc == 0;
	return rc;
}

static int fetch_page(struct refs *r, const uint8_t *key, size_t key_size)
{
	uint8_t value[FORMAT_PAGE_VALUE_MAX];
	size_t value_size = 0;
	int rc = inspect_get(r->device, r->kv, STORE_KV_PAGES, key, key_size, value, sizeof value,
			     &value_size);

	r->slots_found = rc == 0;
	if (rc == -ENOENT)
		return 0;
	if (rc == 0 && value_size > sizeof value)
		rc = -E_CORRUPT;
	return rc == 0 ? format_page_decode(value, value_size, r->slots) : rc;
}

int refs_page(struct refs *r, uint32_t shard, volume_id_t volume, chunk_no_t chunk, page_no_t page,
	      const struct format_slot **ret_slots)
{
	uint8_t key[FORMAT_KEY_MAX];
	int rc = 0;

	if (!r->slots_valid || r->slots_shard != shard || r->slots_volume != volume ||
	    r->slots_chunk != chunk || r->slots_page != page) {
		r->slots_shard = shard;
		r->slots_volume = volume;
		r->slots_chunk = chunk;
		r->slots_page = page;
		rc = fetch_page(r, key,
				format_key_page(r->prefixes[shard], volume, chunk, page, key));
		r->slots_valid = rc == 0;
	}
	*ret_slots = r->slots_found ? r->slots : NULL;
	return rc;
}
