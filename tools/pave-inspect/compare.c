/* pave-inspect --index: the index against the device. All references of the index are taken in,
 * sorted by place; each group ticks off those that it bears out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/text.h"
#include "engine/store/store.h"
#include "tools/pave-inspect/inspect.h"

struct ref {
	uint32_t location;
	uint32_t crc;
	version_t version;
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	bool named; /* by some group */
};

struct compare {
	struct inspect_device *device;
	const struct format_super *super;
	struct kv *kv;
	struct ref *refs;
	size_t count, room;
	bool found[FORMAT_SHARDS_MAX]; /* a checkpoint of the shard */
	uint32_t prefixes[FORMAT_SHARDS_MAX];
	struct format_checkpoint checkpoints[FORMAT_SHARDS_MAX];
	uint32_t *epochs; /* by segment, of the index */
	struct compare_totals totals;
};

static int take_node(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct format_checkpoint record;
	struct compare *c = arg;
	uint32_t prefix;

	if (format_key_node_decode(key, key_size, &prefix) < 0 ||
	    format_checkpoint_decode(value, value_size, &record) < 0)
		return 0; /* not a checkpoint of today's format: not ours to judge */
	if (!uuid_equal(&record.device, &c->super->device) || record.shard >= FORMAT_SHARDS_MAX)
		return 0;
	c->found[record.shard] = true;
	c->prefixes[record.shard] = prefix;
	c->checkpoints[record.shard] = record;
	c->totals.checkpoint = MAX(c->totals.checkpoint, record.number);
	return 0;
}

static int take_segment(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct format_segment record;
	struct format_traces traces;
	struct compare *c = arg;
	uint32_t no;

	if (format_key_segment_decode(key, key_size, &no) < 0)
		return -E_CORRUPT;
	if (no >= c->super->segment_count)
		return 0;
	if (format_segment_decode(value, value_size, &record, &traces) < 0)
		return -E_CORRUPT;
	c->epochs[no] = record.epoch;
	return 0;
}

static int take_page(const void *key, size_t key_size, const void *value, size_t value_size,
		     void *arg)
{
	struct format_slot slots[PAGE_BLOCKS];
	struct compare *c = arg;
	volume_id_t volume;
	chunk_no_t chunk;
	page_no_t page;

	if (format_key_page_decode(key, key_size, &volume, &chunk, &page) < 0 ||
	    format_page_decode(value, value_size, slots) < 0)
		return -E_CORRUPT;
	c->totals.pages++;
	if (c->count + PAGE_BLOCKS > c->room) {
		size_t room = MAX((size_t)65536, 2 * c->room);
		void *p = realloc(c->refs, room * sizeof *c->refs);

		if (p == NULL)
			return -ENOMEM;
		c->refs = p;
		c->room = room;
	}
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		if (format_slot_has_data(&slots[i]))
			c->refs[c->count++] = (struct ref){
			    .location = slots[i].location,
			    .crc = slots[i].crc,
			    .version = slots[i].version,
			    .volume = volume,
			    .chunk = chunk,
			    .block = page * PAGE_BLOCKS + i,
			};
	return 0;
}

static int by_location(const void *a, const void *b)
{
	const struct ref *ra = a, *rb = b;

	return (ra->location > rb->location) - (ra->location < rb->location);
}

static int take_all(struct compare *c, const char *path, struct error *err)
{
	uint8_t prefix[FORMAT_KEY_MAX];
	int rc = kv_scan(c->kv, STORE_KV_NODE, prefix, 0, take_node, c);

	for (uint32_t shard = 0; rc == 0 && shard < c->super->shard_count; shard++) {
		size_t size;

		if (!c->found[shard])
			return error_set(
			    err, -ENOENT,
			    "index %s: it has no checkpoint of shard %u of this device "
			    "(%s)",
			    path, shard, c->device->survey.name);
		size = format_key_node(c->prefixes[shard], prefix);
		rc = kv_scan(c->kv, STORE_KV_SEGMENTS, prefix, size, take_segment, c);
		if (rc == 0)
			rc = kv_scan(c->kv, STORE_KV_PAGES, prefix, size, take_page, c);
	}
	if (rc != 0)
		return error_set(err, rc, "index %s: it cannot be read: %s", path, err_text(rc));
	if (c->count > 0)
		qsort(c->refs, c->count, sizeof *c->refs, by_location);
	c->totals.blocks = c->count;
	for (size_t i = 1; i < c->count; i++)
		c->totals.shared += c->refs[i].location == c->refs[i - 1].location;
	return 0;
}

int compare_open(struct inspect_device *d, const char *path, const struct format_super *super,
		 struct compare **ret_compare, struct error *err)
{
	struct compare *c;
	struct stat st;
	int rc;

	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return error_set(err, -ENOENT, "index %s: there is no such directory", path);
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return error_set(err, -ENOMEM, "no memory");
	c->device = d;
	c->super = super;
	c->epochs = calloc(super->segment_count, sizeof *c->epochs);
	rc = c->epochs != NULL ? 0 : error_set(err, -ENOMEM, "no memory");
	if (rc == 0)
		rc = kv_rocks_open(d->reactor, path, store_kv_family_names, STORE_KV_FAMILIES, 0,
				   &c->kv, err);
	if (rc == 0)
		rc = take_all(c, path, err);
	if (rc != 0) {
		compare_close(c);
		return rc;
	}
	*ret_compare = c;
	return 0;
}

void compare_close(struct compare *c)
{
	if (c == NULL)
		return;
	kv_close(c->kv);
	free(c->refs);
	free(c->epochs);
	free(c);
}

/* The first reference to a place that is not below location. */
static size_t find(const struct compare *c, uint32_t location)
{
	size_t low = 0, high = c->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->refs[mid].location < location)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void compare_entry(struct compare *c, const struct survey_group *group,
			  const struct format_entry *e)
{
	uint32_t first = group->data_location + e->data_first;

	for (size_t i = find(c, first);
	     i < c->count && c->refs[i].location - first < e->block_count; i++) {
		struct ref *r = &c->refs[i];
		uint32_t n = r->location - first;

		r->named = true;
		if (r->volume != e->volume || r->chunk != e->chunk || r->block != e->block + n ||
		    r->version != e->version || r->crc != group->crcs[e->data_first + n])
			c->totals.contradictions++;
		else if (group->block_is_bad[e->data_first + n])
			c->totals.bad++;
		else
			c->totals.matching++;
	}
}

int compare_group(struct compare *c, const struct survey_group *group)
{
	const struct format_group *g = &group->header;
	const struct format_checkpoint *k = &c->checkpoints[g->segment % c->super->shard_count];

	c->totals.later_groups += g->seq > k->last_seq[g->stream];
	for (uint32_t i = 0; i < g->entry_count; i++)
		if (group->entries[i].kind == FORMAT_DATA)
			compare_entry(c, group, &group->entries[i]);
	return 0;
}

int compare_segment(struct compare *c, const struct survey_segment *segment)
{
	if (segment->epoch > c->epochs[segment->no])
		c->totals.stale = true;
	return 0;
}

int compare_finish(struct compare *c, struct compare_totals *ret_totals)
{
	const struct survey_device *d = &c->device->survey;
	uint8_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);

	if (block == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < c->count; i++) {
		const struct ref *r = &c->refs[i];
		uint64_t offset = (uint64_t)r->location * BLOCK_SIZE;

		if (r->named)
			continue;
		if (offset + BLOCK_SIZE <= d->size_bytes &&
		    d->read(d->arg, offset, BLOCK_SIZE, block) == 0 &&
		    crc32c(0, block, BLOCK_SIZE) == r->crc)
			c->totals.headerless_good++;
		else
			c->totals.headerless_bad++;
	}
	free(block);
	*ret_totals = c->totals;
	return 0;
}
