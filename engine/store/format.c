/* format: see format.h and proto/FORMAT.md, "Disk".
 *
 * Structures go to the disk as they lie in memory, on little-endian machines only; their sizes and
 * the places of their fields are asserted here. */
#include "engine/store/format.h"

#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"

#define SUPER_MAGIC "PAVEDEV1"
#define GROUP_MAGIC 0x47565045u

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are little-endian");
_Static_assert(sizeof(struct format_group) == 80, "a format");
_Static_assert(offsetof(struct format_group, header_crc) == 8, "a format");
_Static_assert(offsetof(struct format_group, segment) == 32, "a format");
_Static_assert(offsetof(struct format_group, seq) == 48, "a format");
_Static_assert(sizeof(struct format_entry) == 40, "a format");
_Static_assert(offsetof(struct format_entry, volume) == 8, "a format");
_Static_assert(offsetof(struct format_entry, version) == 24, "a format");
_Static_assert(sizeof(struct format_slot) == 16, "a format");
_Static_assert(sizeof(struct format_group) +
		       FORMAT_GROUP_ENTRIES_MAX * sizeof(struct format_entry) +
		       FORMAT_GROUP_DATA_MAX * sizeof(uint32_t) <=
		   FORMAT_GROUP_HEADER_MAX * BLOCK_SIZE,
	       "the largest header fits");

/* -- superblock ------------------------------------------------------------------------------- */

struct super_disk {
	char magic[8];
	uint32_t format_version;
	uint32_t crc; /* of the block, with 0 in this place */
	uint64_t sequence;
	struct uuid cluster;
	struct uuid device;
	char node[NAME_SIZE_MAX];
	uint32_t segment_bytes;
	uint32_t segment_count;
	uint32_t shard_count;
	uint32_t reserved;
};
_Static_assert(sizeof(struct super_disk) == 136, "a format");

static uint32_t crc_with_hole(const uint8_t *data, size_t size, size_t hole)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, data, hole);

	crc = crc32c(crc, zero, sizeof zero);
	return crc32c(crc, data + hole + sizeof zero, size - hole - sizeof zero);
}

void format_super_encode(const struct format_super *super, uint8_t *ret_block)
{
	struct super_disk d = {
	    .format_version = FORMAT_VERSION,
	    .sequence = super->sequence,
	    .cluster = super->cluster,
	    .device = super->device,
	    .segment_bytes = super->segment_bytes,
	    .segment_count = super->segment_count,
	    .shard_count = super->shard_count,
	};

	memcpy(d.magic, SUPER_MAGIC, sizeof d.magic);
	memcpy(d.node, super->node, sizeof d.node);
	memset(ret_block, 0, BLOCK_SIZE);
	memcpy(ret_block, &d, sizeof d);
	d.crc = crc_with_hole(ret_block, BLOCK_SIZE, offsetof(struct super_disk, crc));
	memcpy(ret_block, &d, sizeof d);
}

static bool super_is_sane(const struct super_disk *d)
{
	uint32_t bytes = d->segment_bytes;

	if (bytes < FORMAT_SEGMENT_BYTES_MIN || bytes > FORMAT_SEGMENT_BYTES_MAX ||
	    (bytes & (bytes - 1)) != 0)
		return false;
	if (d->segment_count == 0 || d->shard_count == 0 || d->shard_count > FORMAT_SHARDS_MAX)
		return false;
	/* Block numbers on the device have 32 bits. */
	if (FORMAT_SEGMENTS_OFFSET + (uint64_t)d->segment_count * bytes >
	    (uint64_t)UINT32_MAX * BLOCK_SIZE)
		return false;
	return d->node[0] != '\0' && memchr(d->node, '\0', sizeof d->node) != NULL;
}

int format_super_decode(const uint8_t *block, struct format_super *ret_super, struct error *err)
{
	struct super_disk d;

	memcpy(&d, block, sizeof d);
	if (memcmp(d.magic, SUPER_MAGIC, sizeof d.magic) != 0)
		return error_set(err, -ENOENT, "there is no superblock");
	if (crc_with_hole(block, BLOCK_SIZE, offsetof(struct super_disk, crc)) != d.crc)
		return error_set(err, -E_CORRUPT, "the superblock's checksum does not match");
	if (d.format_version != FORMAT_VERSION)
		return error_set(err, -E_CORRUPT,
				 "the superblock has format version %u; this program knows %u",
				 d.format_version, FORMAT_VERSION);
	if (!super_is_sane(&d))
		return error_set(err, -E_CORRUPT, "the superblock's fields are out of range");
	*ret_super = (struct format_super){
	    .cluster = d.cluster,
	    .device = d.device,
	    .sequence = d.sequence,
	    .segment_bytes = d.segment_bytes,
	    .segment_count = d.segment_count,
	    .shard_count = d.shard_count,
	};
	memcpy(ret_super->node, d.node, sizeof ret_super->node);
	return 0;
}

uint64_t format_super_offset(uint32_t copy)
{
	PRE(copy < FORMAT_SUPER_COPIES);
	return copy == 0 ? 0 : FORMAT_SUPER_OFFSET_B;
}

uint32_t format_segment_bytes(uint64_t device_bytes)
{
	uint32_t bytes = FORMAT_SEGMENT_USUAL_MIN;

	while (bytes < FORMAT_SEGMENT_USUAL_MAX &&
	       device_bytes / FORMAT_SEGMENTS_USUAL >= 2ull * bytes)
		bytes *= 2;
	return bytes;
}

uint32_t format_segments_fit(uint64_t device_bytes, uint32_t segment_bytes)
{
	uint64_t usable = MIN(device_bytes, (uint64_t)UINT32_MAX * BLOCK_SIZE);

	if (usable < FORMAT_SEGMENTS_OFFSET)
		return 0;
	return (uint32_t)((usable - FORMAT_SEGMENTS_OFFSET) / segment_bytes);
}

/* -- groups ----------------------------------------------------------------------------------- */

void format_group_encode(const struct format_group *group, const struct format_entry *entries,
			 const uint32_t *crcs, uint8_t *ret_blocks)
{
	size_t size = (size_t)group->header_blocks * BLOCK_SIZE;
	size_t entries_size = group->entry_count * sizeof *entries;
	size_t crcs_size = group->data_blocks * sizeof *crcs;
	struct format_group g = *group;
	uint8_t *p = ret_blocks;

	PRE(format_header_blocks(g.entry_count, g.data_blocks) == g.header_blocks);
	g.magic = GROUP_MAGIC;
	g.format_version = FORMAT_VERSION;
	g.header_crc = 0;
	memcpy(p, &g, sizeof g);
	p += sizeof g;
	memcpy(p, entries, entries_size);
	p += entries_size;
	memcpy(p, crcs, crcs_size);
	p += crcs_size;
	memset(p, 0, size - (size_t)(p - ret_blocks));
	g.header_crc = crc32c(0, ret_blocks, size);
	memcpy(ret_blocks, &g, sizeof g);
}

static bool entry_is_sane(const struct format_entry *e, uint32_t *data_next, uint32_t data_blocks)
{
	if (e->volume == 0 || (e->flags & ~FORMAT_FLAGS) != 0)
		return false;
	if ((e->flags & FORMAT_FLAG_BAD) != 0 &&
	    (e->kind != FORMAT_DATA || e->flags != (FORMAT_FLAG_MOVE | FORMAT_FLAG_BAD) ||
	     e->block_count != 1 || e->moved_from < FORMAT_SEGMENTS_BLOCK ||
	     e->moved_from > UINT32_MAX))
		return false;
	switch (e->kind) {
	case FORMAT_DATA:
	case FORMAT_ZERO:
	case FORMAT_DISCARD:
		if (e->block_count == 0 || e->block_count > IO_BLOCKS_MAX || e->version == 0 ||
		    e->block >= CHUNK_SIZE_MAX / BLOCK_SIZE ||
		    e->block_count > CHUNK_SIZE_MAX / BLOCK_SIZE - e->block ||
		    e->chunk == UINT32_MAX)
			return false;
		if (e->kind != FORMAT_DATA)
			return true;
		/* The data lies in the order of the entries, without gaps. */
		if (e->data_first != *data_next || e->block_count > data_blocks - *data_next)
			return false;
		*data_next += e->block_count;
		return true;
	case FORMAT_FENCE:
		return e->version <= GENERATION_MAX;
	case FORMAT_WATERMARK:
		return e->chunk != UINT32_MAX;
	case FORMAT_ERASE:
		return true;
	default:
		return false;
	}
}

static const uint8_t *entry_at(const uint8_t *blocks, uint32_t i)
{
	return blocks + sizeof(struct format_group) + i * sizeof(struct format_entry);
}

int format_group_decode(const uint8_t *blocks, size_t size, struct format_group *ret_group)
{
	struct format_group g;
	uint32_t data_next = 0;

	PRE(size >= BLOCK_SIZE && size % BLOCK_SIZE == 0);
	memcpy(&g, blocks, sizeof g);
	if (g.magic != GROUP_MAGIC || g.format_version != FORMAT_VERSION || g.stream > 1)
		return -E_CORRUPT;
	if (g.entry_count == 0 || g.entry_count > FORMAT_GROUP_ENTRIES_MAX ||
	    g.data_blocks > FORMAT_GROUP_DATA_MAX ||
	    g.header_blocks != format_header_blocks(g.entry_count, g.data_blocks) || g.seq == 0)
		return -E_CORRUPT;
	if ((size_t)g.header_blocks * BLOCK_SIZE > size)
		return -ENOSPC;
	if (crc_with_hole(blocks, (size_t)g.header_blocks * BLOCK_SIZE,
			  offsetof(struct format_group, header_crc)) != g.header_crc)
		return -E_CORRUPT;
	for (uint32_t i = 0; i < g.entry_count; i++) {
		struct format_entry e;

		memcpy(&e, entry_at(blocks, i), sizeof e);
		if (!entry_is_sane(&e, &data_next, g.data_blocks))
			return -E_CORRUPT;
	}
	if (data_next != g.data_blocks)
		return -E_CORRUPT;
	*ret_group = g;
	return 0;
}

bool format_group_matches(const struct format_group *group, const struct format_entry *entries,
			  const uint32_t *crcs, const uint8_t *data)
{
	for (uint32_t i = 0; i < group->entry_count; i++) {
		const struct format_entry *e = &entries[i];

		if (e->kind == FORMAT_DATA && (e->flags & FORMAT_FLAG_BAD) == 0 &&
		    !crc32c_blocks_match(data + (size_t)e->data_first * BLOCK_SIZE, e->block_count,
					 &crcs[e->data_first]))
			return false;
	}
	return true;
}

void format_group_entries(const uint8_t *blocks, const struct format_group *group,
			  struct format_entry *ret_entries, uint32_t *ret_crcs)
{
	memcpy(ret_entries, entry_at(blocks, 0), group->entry_count * sizeof *ret_entries);
	memcpy(ret_crcs, entry_at(blocks, group->entry_count),
	       group->data_blocks * sizeof *ret_crcs);
}

/* -- keys ------------------------------------------------------------------------------------- */

static uint8_t *put_be(uint8_t *p, uint64_t value, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
	return p + bytes;
}

static uint64_t get_be(const uint8_t *p, uint32_t bytes)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < bytes; i++)
		value = value << 8 | p[i];
	return value;
}

size_t format_key_node(uint32_t prefix, uint8_t *ret_key)
{
	return (size_t)(put_be(ret_key, prefix, 2) - ret_key);
}

size_t format_key_segment(uint32_t prefix, uint32_t segment, uint8_t *ret_key)
{
	uint8_t *p = put_be(ret_key, prefix, 2);

	return (size_t)(put_be(p, segment, 4) - ret_key);
}

size_t format_key_chunk(uint32_t prefix, volume_id_t volume, chunk_no_t chunk, uint8_t *ret_key)
{
	uint8_t *p = put_be(ret_key, prefix, 2);

	p = put_be(p, volume, 8);
	return (size_t)(put_be(p, chunk, 4) - ret_key);
}

size_t format_key_page(uint32_t prefix, volume_id_t volume, chunk_no_t chunk, page_no_t page,
		       uint8_t *ret_key)
{
	size_t size = format_key_chunk(prefix, volume, chunk, ret_key);

	return (size_t)(put_be(ret_key + size, page, 4) - ret_key);
}

size_t format_key_chunk_end(uint32_t prefix, volume_id_t volume, chunk_no_t chunk, uint8_t *ret_key)
{
	PRE(chunk != UINT32_MAX);
	return format_key_chunk(prefix, volume, chunk + 1, ret_key);
}

size_t format_key_volume_end(uint32_t prefix, volume_id_t volume, uint8_t *ret_key)
{
	/* The volume's own state, chunk UINT32_MAX, stays. */
	return format_key_chunk(prefix, volume, UINT32_MAX, ret_key);
}

int format_key_node_decode(const void *key, size_t size, uint32_t *ret_prefix)
{
	if (size != 2 || get_be(key, 2) >= FORMAT_SLOTS_MAX * FORMAT_SHARDS_MAX)
		return -E_CORRUPT;
	*ret_prefix = (uint32_t)get_be(key, 2);
	return 0;
}

int format_key_segment_decode(const void *key, size_t size, uint32_t *ret_segment)
{
	if (size != 6)
		return -E_CORRUPT;
	*ret_segment = (uint32_t)get_be((const uint8_t *)key + 2, 4);
	return 0;
}

int format_key_chunk_decode(const void *key, size_t size, volume_id_t *ret_volume,
			    chunk_no_t *ret_chunk)
{
	const uint8_t *p = key;

	if (size != 14 || get_be(p + 2, 8) == 0)
		return -E_CORRUPT;
	*ret_volume = get_be(p + 2, 8);
	*ret_chunk = (chunk_no_t)get_be(p + 10, 4);
	return 0;
}

int format_key_page_decode(const void *key, size_t size, volume_id_t *ret_volume,
			   chunk_no_t *ret_chunk, page_no_t *ret_page)
{
	const uint8_t *p = key;
	uint64_t page;

	if (size != 18 || get_be(p + 2, 8) == 0 || get_be(p + 10, 4) == UINT32_MAX)
		return -E_CORRUPT;
	page = get_be(p + 14, 4);
	if (page >= CHUNK_SIZE_MAX / PAGE_SIZE_BYTES)
		return -E_CORRUPT;
	*ret_volume = get_be(p + 2, 8);
	*ret_chunk = (chunk_no_t)get_be(p + 10, 4);
	*ret_page = (page_no_t)page;
	return 0;
}

/* -- values ----------------------------------------------------------------------------------- */

/* Version 1: the slots, one by one. */
struct page_disk {
	uint8_t version;
	uint8_t reserved;
	uint16_t present; /* a bit a block; the slots of those follow */
};
_Static_assert(sizeof(struct page_disk) == 4, "a format");

/* Version 2: runs, in order; then a CRC for each block that has data. */
struct runs_disk {
	uint8_t version;
	uint8_t run_count;
	uint16_t reserved;
};
_Static_assert(sizeof(struct runs_disk) == 4, "a format");

#define RUN_SIZE 14u /* first 1, count 1, location 4, version 8 */

struct run {
	uint8_t first, count;
	uint32_t location;
	version_t version;
};

static bool continues(const struct run *run, const struct format_slot *slot)
{
	uint32_t step = run->location >= FORMAT_SEGMENTS_BLOCK ? run->count : 0;

	return slot->version == run->version && slot->location == run->location + step;
}

/* Returns how many. */
static uint32_t find_runs(const struct format_slot *slots, struct run *runs)
{
	struct run *run = NULL;
	uint32_t count = 0;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (slots[i].version == 0) {
			run = NULL;
			continue;
		}
		if (run != NULL && continues(run, &slots[i])) {
			run->count++;
			continue;
		}
		run = &runs[count++];
		*run = (struct run){.first = (uint8_t)i,
				    .count = 1,
				    .location = slots[i].location,
				    .version = slots[i].version};
	}
	return count;
}

static size_t encode_runs(const struct format_slot *slots, const struct run *runs, uint32_t count,
			  uint8_t *ret_value)
{
	struct runs_disk d = {.version = FORMAT_PAGE_RUNS, .run_count = (uint8_t)count};
	uint8_t *p = ret_value + sizeof d;

	memcpy(ret_value, &d, sizeof d);
	for (uint32_t i = 0; i < count; i++) {
		p[0] = runs[i].first;
		p[1] = runs[i].count;
		memcpy(p + 2, &runs[i].location, 4);
		memcpy(p + 6, &runs[i].version, 8);
		p += RUN_SIZE;
	}
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (!format_slot_has_data(&slots[i]))
			continue;
		memcpy(p, &slots[i].crc, 4);
		p += 4;
	}
	return (size_t)(p - ret_value);
}

static size_t encode_slots(const struct format_slot *slots, uint8_t *ret_value)
{
	struct page_disk d = {.version = FORMAT_VERSION};
	uint8_t *p = ret_value + sizeof d;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (slots[i].version == 0)
			continue;
		d.present = (uint16_t)(d.present | 1u << i);
		memcpy(p, &slots[i], sizeof slots[i]);
		p += sizeof slots[i];
	}
	memcpy(ret_value, &d, sizeof d);
	return (size_t)(p - ret_value);
}

size_t format_page_encode(const struct format_slot *slots, uint8_t *ret_value)
{
	struct run runs[PAGE_BLOCKS];
	uint32_t count = find_runs(slots, runs);
	uint32_t present = 0, with_data = 0;

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		present += slots[i].version != 0;
		with_data += format_slot_has_data(&slots[i]);
	}
	if (count * RUN_SIZE + with_data * 4 < present * sizeof(struct format_slot))
		return encode_runs(slots, runs, count, ret_value);
	return encode_slots(slots, ret_value);
}

static bool slot_is_sane(const struct format_slot *slot)
{
	return slot->version != 0 && slot->location != LOCATION_NONE &&
	       (slot->location <= LOCATION_DISCARDED || format_slot_has_data(slot));
}

static int decode_slots(const uint8_t *p, size_t size, struct format_slot *slots)
{
	struct page_disk d;

	memcpy(&d, p, sizeof d);
	p += sizeof d;
	if (d.reserved != 0 ||
	    size != sizeof d + (size_t)__builtin_popcount(d.present) * sizeof slots[0])
		return -E_CORRUPT;
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if ((d.present & 1u << i) == 0)
			continue;
		memcpy(&slots[i], p, sizeof slots[i]);
		p += sizeof slots[i];
		if (!slot_is_sane(&slots[i]))
			return -E_CORRUPT;
	}
	return 0;
}

/* Returns how many blocks with data the runs have, or -E_CORRUPT. */
static int decode_run_table(const uint8_t *p, uint32_t run_count, struct format_slot *slots)
{
	uint32_t next = 0;
	int with_data = 0;

	for (uint32_t r = 0; r < run_count; r++, p += RUN_SIZE) {
		struct format_slot slot = {.crc = CRC32C_ZERO_BLOCK};
		uint32_t first = p[0], count = p[1];

		memcpy(&slot.location, p + 2, 4);
		memcpy(&slot.version, p + 6, 8);
		if (first < next || first >= PAGE_BLOCKS || count == 0 ||
		    count > PAGE_BLOCKS - first || !slot_is_sane(&slot) ||
		    slot.location > UINT32_MAX - (count - 1))
			return -E_CORRUPT;
		next = first + count;
		for (uint32_t i = first; i < next; i++) {
			slots[i] = slot;
			if (!format_slot_has_data(&slot))
				continue;
			slot.location++;
			with_data++;
		}
	}
	return with_data;
}

static int decode_runs(const uint8_t *p, size_t size, struct format_slot *slots)
{
	size_t table;
	struct runs_disk d;
	int with_data;

	memcpy(&d, p, sizeof d);
	table = sizeof d + (size_t)d.run_count * RUN_SIZE;
	if (d.reserved != 0 || d.run_count > PAGE_BLOCKS || size < table)
		return -E_CORRUPT;
	with_data = decode_run_table(p + sizeof d, d.run_count, slots);
	if (with_data < 0 || size != table + (size_t)with_data * 4)
		return -E_CORRUPT;
	p += table;
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (!format_slot_has_data(&slots[i]))
			continue;
		memcpy(&slots[i].crc, p, 4);
		p += 4;
	}
	return 0;
}

int format_page_decode(const void *value, size_t size, struct format_slot *ret_slots)
{
	struct format_slot slots[PAGE_BLOCKS] = {0};
	const uint8_t *p = value;
	int rc = -E_CORRUPT;

	if (size >= sizeof(struct page_disk) && p[0] == FORMAT_VERSION)
		rc = decode_slots(p, size, slots);
	else if (size >= sizeof(struct runs_disk) && p[0] == FORMAT_PAGE_RUNS)
		rc = decode_runs(p, size, slots);
	if (rc == 0)
		memcpy(ret_slots, slots, sizeof slots);
	return rc;
}

#define REMAINS_BITS (64u * FORMAT_REMAINS_WORDS)

/* The two bits of a chunk, or of a volume as a whole. The multipliers are those of splitmix64. */
static void remains_places(volume_id_t volume, chunk_no_t chunk, uint32_t *ret_places)
{
	uint64_t x = volume * 0x9e3779b97f4a7c15ull + chunk;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	ret_places[0] = (uint32_t)x % REMAINS_BITS;
	ret_places[1] = (uint32_t)(x >> 32) % REMAINS_BITS;
}

static void remains_set(struct format_remains *r, volume_id_t volume, chunk_no_t chunk)
{
	uint32_t places[2];

	remains_places(volume, chunk, places);
	for (uint32_t i = 0; i < ARRAY_SIZE(places); i++)
		r->bits[places[i] / 64] |= 1ull << places[i] % 64;
}

void format_remains_add(struct format_remains *r, volume_id_t volume, chunk_no_t chunk)
{
	remains_set(r, volume, chunk);
	remains_set(r, volume, UINT32_MAX);
}

void format_remains_fill(struct format_remains *r)
{
	for (uint32_t i = 0; i < FORMAT_REMAINS_WORDS; i++)
		r->bits[i] = UINT64_MAX;
}

void format_remains_merge(struct format_remains *r, const struct format_remains *other)
{
	for (uint32_t i = 0; i < FORMAT_REMAINS_WORDS; i++)
		r->bits[i] |= other->bits[i];
}

bool format_remains_may_hold(const struct format_remains *r, volume_id_t volume, chunk_no_t chunk)
{
	uint32_t places[2];

	remains_places(volume, chunk, places);
	for (uint32_t i = 0; i < ARRAY_SIZE(places); i++)
		if ((r->bits[places[i] / 64] >> places[i] % 64 & 1) == 0)
			return false;
	return true;
}

struct segment_disk {
	uint8_t version;
	uint8_t state;
	uint8_t stream;
	uint8_t primed;
	uint32_t epoch;
	uint32_t start_block;
	uint32_t used_blocks;
	uint64_t last_seq;
	uint32_t live; /* from here on since version 2 */
	uint32_t reserved;
	struct format_traces traces; /* from here on since version 3 */
};
_Static_assert(sizeof(struct segment_disk) == 160, "a format");
_Static_assert(sizeof(struct segment_disk) <= FORMAT_VALUE_MAX, "room for values");

static const size_t segment_sizes[FORMAT_INDEX_VERSION + 1] = {0, 24, 32, 160};

size_t format_segment_encode(const struct format_segment *segment,
			     const struct format_traces *traces, uint8_t *ret_value)
{
	struct segment_disk d = {
	    .version = FORMAT_INDEX_VERSION,
	    .live = segment->live,
	    .state = segment->state,
	    .stream = segment->stream,
	    .primed = segment->primed,
	    .epoch = segment->epoch,
	    .start_block = segment->start_block,
	    .used_blocks = segment->used_blocks,
	    .last_seq = segment->last_seq,
	    .traces = *traces,
	};

	memcpy(ret_value, &d, sizeof d);
	return sizeof d;
}

int format_segment_decode(const void *value, size_t size, struct format_segment *ret_segment,
			  struct format_traces *ret_traces)
{
	struct segment_disk d = {0};

	format_remains_fill(&d.traces.now);
	format_remains_fill(&d.traces.before);
	if (size < segment_sizes[1] || size > sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, size);
	if (d.version == 0 || d.version > FORMAT_INDEX_VERSION ||
	    size != segment_sizes[d.version] || d.state >= FORMAT_SEGMENT_STATES || d.stream > 1 ||
	    d.primed > 1 || d.start_block > FORMAT_SEGMENT_BYTES_MAX / BLOCK_SIZE ||
	    d.used_blocks > FORMAT_SEGMENT_BYTES_MAX / BLOCK_SIZE ||
	    d.live > FORMAT_SEGMENT_LIVE_MAX || d.reserved != 0)
		return -E_CORRUPT;
	*ret_segment = (struct format_segment){
	    .version = d.version,
	    .live = d.live,
	    .state = d.state,
	    .stream = d.stream,
	    .primed = d.primed,
	    .epoch = d.epoch,
	    .start_block = d.start_block,
	    .used_blocks = d.used_blocks,
	    .last_seq = d.last_seq,
	};
	*ret_traces = d.traces;
	return 0;
}

struct checkpoint_disk {
	uint32_t version;
	uint32_t shard;
	struct uuid device;
	uint32_t shard_count;
	uint32_t segment_bytes;
	uint32_t segment_count;
	uint32_t reserved;
	uint64_t number;
	uint64_t next_seq;
	uint64_t last_seq[2];
};
_Static_assert(sizeof(struct checkpoint_disk) == 72, "a format");
_Static_assert(sizeof(struct checkpoint_disk) <= FORMAT_VALUE_MAX, "room for values");

size_t format_checkpoint_encode(const struct format_checkpoint *checkpoint, uint8_t *ret_value)
{
	struct checkpoint_disk d = {
	    .version = FORMAT_INDEX_VERSION,
	    .shard = checkpoint->shard,
	    .device = checkpoint->device,
	    .shard_count = checkpoint->shard_count,
	    .segment_bytes = checkpoint->segment_bytes,
	    .segment_count = checkpoint->segment_count,
	    .number = checkpoint->number,
	    .next_seq = checkpoint->next_seq,
	    .last_seq = {checkpoint->last_seq[0], checkpoint->last_seq[1]},
	};

	memcpy(ret_value, &d, sizeof d);
	return sizeof d;
}

int format_checkpoint_decode(const void *value, size_t size,
			     struct format_checkpoint *ret_checkpoint)
{
	struct checkpoint_disk d;

	if (size != sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, sizeof d);
	if (d.version == 0 || d.version > FORMAT_INDEX_VERSION || d.next_seq == 0 ||
	    d.last_seq[0] >= d.next_seq || d.last_seq[1] >= d.next_seq)
		return -E_CORRUPT;
	*ret_checkpoint = (struct format_checkpoint){
	    .version = d.version,
	    .device = d.device,
	    .shard = d.shard,
	    .shard_count = d.shard_count,
	    .segment_bytes = d.segment_bytes,
	    .segment_count = d.segment_count,
	    .number = d.number,
	    .next_seq = d.next_seq,
	    .last_seq = {d.last_seq[0], d.last_seq[1]},
	};
	return 0;
}

struct chunk_disk {
	uint64_t version;
	uint64_t watermark;
	uint64_t newest;
	uint8_t dead; /* from here on since version 2; the leaves of the mask follow */
	uint8_t reserved[3];
	uint32_t buried;
	uint64_t leaf_mask;
};
_Static_assert(sizeof(struct chunk_disk) == 40, "a format");
_Static_assert(sizeof(struct format_leaf) == 32, "a format");
#define CHUNK_SIZE_1 24u

size_t format_chunk_encode(const struct format_chunk *chunk,
			   const struct format_leaf *const *leaves, uint8_t *ret_value)
{
	struct chunk_disk d = {
	    .version = FORMAT_CHUNK_VERSION,
	    .watermark = chunk->watermark,
	    .newest = chunk->newest,
	    .dead = chunk->dead,
	    .buried = chunk->buried,
	    .leaf_mask = chunk->leaf_mask,
	};
	uint8_t *p = ret_value + sizeof d;

	memcpy(ret_value, &d, sizeof d);
	for (uint32_t i = 0; i < FORMAT_CHUNK_LEAVES; i++) {
		if ((chunk->leaf_mask >> i & 1) == 0)
			continue;
		memcpy(p, leaves[i], sizeof *leaves[i]);
		p += sizeof *leaves[i];
	}
	return (size_t)(p - ret_value);
}

int format_chunk_decode(const void *value, size_t size, struct format_chunk *ret_chunk,
			struct format_leaf *ret_leaves)
{
	const uint8_t *p = value;
	struct chunk_disk d = {0};

	if (size < CHUNK_SIZE_1)
		return -E_CORRUPT;
	memcpy(&d, value, MIN(size, sizeof d));
	if (size == CHUNK_SIZE_1) {
		if (d.version != FORMAT_VERSION)
			return -E_CORRUPT;
	} else if (d.version != FORMAT_CHUNK_VERSION || d.dead > 1 || d.reserved[0] != 0 ||
		   d.reserved[1] != 0 || d.reserved[2] != 0 ||
		   d.buried > FORMAT_CHUNK_LEAVES * FORMAT_LEAF_PAGES ||
		   size != sizeof d + (size_t)__builtin_popcountll(d.leaf_mask) *
					  sizeof(struct format_leaf)) {
		return -E_CORRUPT;
	}
	*ret_chunk = (struct format_chunk){
	    .version = (uint8_t)d.version,
	    .watermark = d.watermark,
	    .newest = d.newest,
	    .dead = d.dead != 0,
	    .buried = d.buried,
	    .leaf_mask = d.leaf_mask,
	};
	p += sizeof d;
	for (uint32_t i = 0; i < FORMAT_CHUNK_LEAVES; i++) {
		if ((d.leaf_mask >> i & 1) == 0)
			continue;
		memcpy(&ret_leaves[i], p, sizeof ret_leaves[i]);
		p += sizeof ret_leaves[i];
	}
	return 0;
}

struct fence_disk {
	uint32_t version;
	uint32_t generation;
};
_Static_assert(sizeof(struct fence_disk) == 8, "a format");

size_t format_fence_encode(generation_t generation, uint8_t *ret_value)
{
	struct fence_disk d = {.version = FORMAT_VERSION, .generation = generation};

	memcpy(ret_value, &d, sizeof d);
	return sizeof d;
}

int format_fence_decode(const void *value, size_t size, generation_t *ret_generation)
{
	struct fence_disk d;

	if (size != sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, sizeof d);
	if (d.version != FORMAT_VERSION || d.generation > GENERATION_MAX)
		return -E_CORRUPT;
	*ret_generation = d.generation;
	return 0;
}

struct scrub_disk {
	uint32_t version;
	uint32_t segment;
	int64_t started_at;
	int64_t finished_at;
	uint64_t passes;
	uint64_t found;
	uint64_t repaired;
	uint32_t asked;
	uint32_t damage_count;
};
_Static_assert(sizeof(struct scrub_disk) == 56, "a format");

struct damage_disk {
	uint64_t volume;
	uint32_t chunk;
	uint32_t block;
	uint32_t location;
	uint32_t reserved;
};
_Static_assert(sizeof(struct damage_disk) == 24, "a format");
_Static_assert(sizeof(struct scrub_disk) + FORMAT_DAMAGE_MAX * sizeof(struct damage_disk) <=
		   FORMAT_SCRUB_VALUE_MAX,
	       "room for it");

size_t format_scrub_encode(const struct format_scrub *scrub, uint8_t *ret_value)
{
	struct scrub_disk d = {
	    .version = FORMAT_VERSION,
	    .segment = scrub->segment,
	    .started_at = scrub->started_at,
	    .finished_at = scrub->finished_at,
	    .passes = scrub->passes,
	    .found = scrub->found,
	    .repaired = scrub->repaired,
	    .asked = scrub->asked,
	    .damage_count = scrub->damage_count,
	};

	PRE(scrub->damage_count <= FORMAT_DAMAGE_MAX);
	memcpy(ret_value, &d, sizeof d);
	for (uint32_t i = 0; i < scrub->damage_count; i++) {
		const struct format_damage *b = &scrub->damage[i];
		struct damage_disk e = {
		    .volume = b->volume,
		    .chunk = b->chunk,
		    .block = b->block,
		    .location = b->location,
		};

		memcpy(ret_value + sizeof d + i * sizeof e, &e, sizeof e);
	}
	return sizeof d + scrub->damage_count * sizeof(struct damage_disk);
}

int format_scrub_decode(const void *value, size_t size, struct format_scrub *ret_scrub)
{
	struct format_scrub s;
	struct scrub_disk d;

	if (size < sizeof d)
		return -E_CORRUPT;
	memcpy(&d, value, sizeof d);
	if (d.version != FORMAT_VERSION || d.asked > 1 || d.damage_count > FORMAT_DAMAGE_MAX ||
	    size != sizeof d + d.damage_count * sizeof(struct damage_disk))
		return -E_CORRUPT;
	s = (struct format_scrub){
	    .segment = d.segment,
	    .started_at = d.started_at,
	    .finished_at = d.finished_at,
	    .passes = d.passes,
	    .found = d.found,
	    .repaired = d.repaired,
	    .asked = d.asked != 0,
	    .damage_count = d.damage_count,
	};
	for (uint32_t i = 0; i < d.damage_count; i++) {
		struct damage_disk e;

		memcpy(&e, (const uint8_t *)value + sizeof d + i * sizeof e, sizeof e);
		if (e.volume == 0 || e.chunk == UINT32_MAX || e.reserved != 0 ||
		    e.block >= CHUNK_SIZE_MAX / BLOCK_SIZE || e.location < FORMAT_SEGMENTS_BLOCK)
			return -E_CORRUPT;
		s.damage[i] = (struct format_damage){
		    .volume = e.volume,
		    .chunk = e.chunk,
		    .block = e.block,
		    .location = e.location,
		};
	}
	*ret_scrub = s;
	return 0;
}
