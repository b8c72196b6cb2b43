/* The store's formats: the superblock, the group header, and the values of the index in kv. Pure:
 * encoding and decoding only, no I/O. Described in proto/FORMAT.md, "Disk". Everything is
 * little-endian, but for the keys in kv, which are big-endian so that they sort.
 *
 * What is decoded comes from a disk: nothing in it is trusted. Decoders check every field against
 * its bound, return -E_CORRUPT for what does not check, and leave their results untouched then. */
#ifndef STORE_FORMAT_H
#define STORE_FORMAT_H

#include "engine/base/error.h"
#include "engine/base/types.h"

#define FORMAT_VERSION 1u
/* Of values in kv whose form has changed; older ones are read too. */
#define FORMAT_INDEX_VERSION 3u /* of the checkpoint and the segments */
#define FORMAT_CHUNK_VERSION 2u
#define FORMAT_PAGE_RUNS     2u /* of a page that is written run by run */

/* -- places on the device --------------------------------------------------------------------- */

#define FORMAT_SUPER_COPIES	 2u
#define FORMAT_SUPER_OFFSET_B	 MIB
#define FORMAT_SEGMENTS_OFFSET	 (2 * MIB)
#define FORMAT_SEGMENTS_BLOCK	 ((uint32_t)(FORMAT_SEGMENTS_OFFSET / BLOCK_SIZE))
#define FORMAT_SEGMENT_BYTES_MIN (1u << 20)
#define FORMAT_SEGMENT_BYTES_MAX (64u << 20)
/* In kv one may be referred to by pages of its former use besides (store/checkpoint.h). */
#define FORMAT_SEGMENT_LIVE_MAX (2 * FORMAT_SEGMENT_BYTES_MAX / BLOCK_SIZE)
/* By default a device has so many, as far as their size lies between these: what is kept free is
 * counted in segments, and should be a small part of it. */
#define FORMAT_SEGMENTS_USUAL	 512u
#define FORMAT_SEGMENT_USUAL_MIN (8u << 20)
#define FORMAT_SEGMENT_USUAL_MAX (32u << 20)
#define FORMAT_SEGMENTS_MIN	 12u /* a shard's, below which there is no room for a reserve */
#define FORMAT_SHARDS_MAX	 64u

struct format_super {
	struct uuid cluster;
	struct uuid device;
	char node[NAME_SIZE_MAX];
	uint64_t sequence; /* of the two copies the higher one counts */
	uint32_t segment_bytes;
	uint32_t segment_count; /* of the device, all shards */
	uint32_t shard_count;
};

void format_super_encode(const struct format_super *super, uint8_t *ret_block);

/* -ENOENT: no superblock at all (another magic); -E_CORRUPT: damaged, or of an unknown version; err
 * (NULL is allowed) says what. */
int format_super_decode(const uint8_t *block, struct format_super *ret_super, struct error *err);

/* Where copy 0 or 1 lies. */
uint64_t format_super_offset(uint32_t copy);

/* Of a segment, unless somebody says otherwise. */
uint32_t format_segment_bytes(uint64_t device_bytes);

/* How many segments fit on a device. */
uint32_t format_segments_fit(uint64_t device_bytes, uint32_t segment_bytes);

/* -- groups ----------------------------------------------------------------------------------- */

#define FORMAT_GROUP_DATA_MAX	 256u /* data blocks in a group */
#define FORMAT_GROUP_ENTRIES_MAX 256u
#define FORMAT_GROUP_HEADER_MAX	 3u /* header blocks that the two above can need */
#define FORMAT_GROUP_BLOCKS_MAX	 (FORMAT_GROUP_HEADER_MAX + FORMAT_GROUP_DATA_MAX)

enum format_kind {
	FORMAT_DATA = 1,
	FORMAT_ZERO,
	FORMAT_DISCARD,
	FORMAT_FENCE,	  /* version: the generation */
	FORMAT_WATERMARK, /* watermark */
	FORMAT_ERASE,	  /* chunk, or UINT32_MAX for the whole volume */
	FORMAT_KINDS,
};

/* Written by the cleaner: holds only where the index still has this very version. */
#define FORMAT_FLAG_MOVE 1u
/* Written by resync: repairs a block of the same version. */
#define FORMAT_FLAG_RESYNC 2u
/* With MOVE, of one block: it did not check where it was, so that nobody knows its content. The CRC
 * is the one that it should have; what lies in its place has another, and is not compared when the
 * group is. In the place of a watermark stands where it was, and it holds only for a block that is
 * there: in recovery it must not undo a repair. */
#define FORMAT_FLAG_BAD 4u
#define FORMAT_FLAGS	7u

struct format_entry {
	uint8_t kind;
	uint8_t flags;
	uint16_t block_count;
	block_no_t block;
	volume_id_t volume;
	chunk_no_t chunk;
	uint32_t data_first; /* DATA: its first block among the group's data blocks */
	version_t version;
	union {
		version_t watermark;
		uint64_t moved_from; /* FORMAT_FLAG_BAD: its location before */
	};
};

/* 0: none. */
static inline version_t format_entry_watermark(const struct format_entry *e)
{
	return (e->flags & FORMAT_FLAG_BAD) != 0 ? 0 : e->watermark;
}

/* The first bytes of a group. The entries follow, then one CRC for each data block, then zeroes up
 * to the end of the last header block. */
struct format_group {
	uint32_t magic;
	uint16_t format_version;
	uint8_t stream;	       /* 0 hot, 1 cold */
	uint8_t header_blocks; /* 1 to FORMAT_GROUP_HEADER_MAX */
	uint32_t header_crc;   /* of all header blocks, with 0 in this place */
	uint32_t entry_count;
	struct uuid device;
	uint32_t segment;
	uint32_t epoch;	      /* how many times the segment was given out */
	uint32_t first_block; /* of the group in the segment */
	uint32_t data_blocks;
	uint64_t seq;		    /* of the shard: no two groups ever have the same */
	uint64_t prev_seq;	    /* the group before it in this stream; 0: none */
	uint64_t durable_seq;	    /* up to here the stream was known to be durable */
	uint64_t other_durable_seq; /* and the other stream; 0: it was not told */
};

/* Raises ret_seqs, of hot and cold, to what the group tells of either stream. */
static inline void format_group_tell_durable(const struct format_group *group, uint64_t *ret_seqs)
{
	uint64_t *own = &ret_seqs[group->stream], *other = &ret_seqs[1 - group->stream];

	*own = MAX(*own, group->durable_seq);
	*other = MAX(*other, group->other_durable_seq);
}

/* How many header blocks a group needs. */
static inline uint32_t format_header_blocks(uint32_t entry_count, uint32_t data_blocks)
{
	size_t bytes = sizeof(struct format_group) + entry_count * sizeof(struct format_entry) +
		       data_blocks * sizeof(uint32_t);

	return (uint32_t)(ROUND_UP(bytes, BLOCK_SIZE) / BLOCK_SIZE);
}

/* Writes group->header_blocks blocks to ret_blocks; fills in magic, version and CRC. */
void format_group_encode(const struct format_group *group, const struct format_entry *entries,
			 const uint32_t *crcs, uint8_t *ret_blocks);

/* Checks a header, of which `size` bytes are there (a multiple of BLOCK_SIZE). Returns 0;
 * -E_CORRUPT; or -ENOSPC when the header goes on beyond what is there. The caller compares device,
 * segment, epoch and first_block with what it expects. */
int format_group_decode(const uint8_t *blocks, size_t size, struct format_group *ret_group);

/* Whether the data blocks have their CRCs, but for those of FORMAT_FLAG_BAD. */
bool format_group_matches(const struct format_group *group, const struct format_entry *entries,
			  const uint32_t *crcs, const uint8_t *data);

/* Of a header that was decoded: its entries and CRCs, copied out. */
void format_group_entries(const uint8_t *blocks, const struct format_group *group,
			  struct format_entry *ret_entries, uint32_t *ret_crcs);

/* -- the index in kv -------------------------------------------------------------------------- */

#define FORMAT_KEY_MAX	      18u
#define FORMAT_PAGE_VALUE_MAX (4u + PAGE_BLOCKS * 16u)
#define FORMAT_VALUE_MAX      160u /* of the other values */

/* Where a block is. The first blocks of the device hold the superblocks, so their numbers are free
 * for other meanings. */
#define LOCATION_NONE	   0u
#define LOCATION_ZERO	   1u
#define LOCATION_DISCARDED 2u

struct format_slot {
	uint32_t location; /* block on the device */
	uint32_t crc;
	version_t version; /* 0: never written */
};

static inline bool format_slot_has_data(const struct format_slot *slot)
{
	return slot->location >= FORMAT_SEGMENTS_BLOCK;
}

/* The state of a segment in the index. */
enum format_segment_state {
	FORMAT_SEGMENT_FREE,
	FORMAT_SEGMENT_RESERVED, /* may be opened: recovery looks here, from its first block */
	FORMAT_SEGMENT_LOG,	 /* has groups that the index does not cover, from start_block */
	FORMAT_SEGMENT_SEALED,	 /* the index covers it */
	FORMAT_SEGMENT_STATES,
};

/* Which chunks may have left something in a place: a Bloom filter. So an erasure knows which
 * segments to wipe, those that nothing refers to any more included. */
#define FORMAT_REMAINS_WORDS 8u

struct format_remains {
	uint64_t bits[FORMAT_REMAINS_WORDS];
};

/* Of a segment: what was written since it was last opened, and what may lie in it from before. */
struct format_traces {
	struct format_remains now, before;
};

void format_remains_add(struct format_remains *r, volume_id_t volume, chunk_no_t chunk);
/* Anything may lie there. */
void format_remains_fill(struct format_remains *r);
void format_remains_merge(struct format_remains *r, const struct format_remains *other);
/* chunk UINT32_MAX: any of the volume. False: certainly nothing. */
bool format_remains_may_hold(const struct format_remains *r, volume_id_t volume, chunk_no_t chunk);

struct format_segment {
	uint8_t version; /* 1: without live; 2: without traces. Encoders write the newest */
	uint8_t state;
	uint8_t stream;
	uint8_t primed;
	uint32_t epoch;
	uint32_t start_block;
	uint32_t used_blocks;
	uint32_t live; /* slots of pages in kv that refer to it */
	uint64_t last_seq;
};

/* What a checkpoint covers. */
struct format_checkpoint {
	uint32_t version; /* 1: segments have no live, chunks no leaves; 2: segments have no traces.
			   * Encoders write the newest */
	struct uuid device;
	uint32_t shard;
	uint32_t shard_count;
	uint32_t segment_bytes;
	uint32_t segment_count;
	uint64_t number;
	uint64_t next_seq;
	uint64_t last_seq[2]; /* of each stream: groups up to here are in the index */
};

/* Which pages of a chunk exist: a bit each. */
#define FORMAT_LEAF_PAGES   256u
#define FORMAT_CHUNK_LEAVES ((uint32_t)(CHUNK_SIZE_MAX / PAGE_SIZE_BYTES / FORMAT_LEAF_PAGES))

struct format_leaf {
	uint64_t exists[FORMAT_LEAF_PAGES / 64];
};

struct format_chunk {
	uint8_t version; /* 1: without what follows newest. Encoders write the newest version */
	version_t watermark;
	version_t newest;
	bool dead;	    /* erased: its pages are being accounted for */
	page_no_t buried;   /* those below it are */
	uint64_t leaf_mask; /* a bit for each leaf in which pages exist */
};
#define FORMAT_CHUNK_VALUE_MAX (40u + FORMAT_CHUNK_LEAVES * 32u)

/* A block that does not check, or lies under a group header that does not. */
struct format_damage {
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t location;
};

/* In the family `segments`, in the place of a segment that no device can have. */
#define FORMAT_SCRUB_KEY       UINT32_MAX
#define FORMAT_DAMAGE_MAX      256u
#define FORMAT_SCRUB_VALUE_MAX (64u + FORMAT_DAMAGE_MAX * 24u)

/* How far the scrub is. Times are wall clock, ns; 0: never. */
struct format_scrub {
	int64_t started_at;  /* of the pass */
	int64_t finished_at; /* of the last whole pass */
	uint64_t passes;     /* whole ones */
	uint64_t found;
	uint64_t repaired;
	uint32_t segment; /* the next one */
	bool asked;	  /* the pass is one that somebody asked for */
	uint32_t damage_count;
	struct format_damage damage[FORMAT_DAMAGE_MAX];
};

/* Keys begin with a prefix: the slot of the device among the node's, and the shard. Slot 0 alone is
 * what a node with one device has. */
#define FORMAT_SLOTS_MAX 512u

static inline uint32_t format_prefix(uint32_t slot, uint32_t shard)
{
	return slot * FORMAT_SHARDS_MAX + shard;
}

/* Keys. Each returns its size. A volume's own state has the chunk number UINT32_MAX. */
size_t format_key_node(uint32_t prefix, uint8_t *ret_key);
size_t format_key_segment(uint32_t prefix, uint32_t segment, uint8_t *ret_key);
size_t format_key_chunk(uint32_t prefix, volume_id_t volume, chunk_no_t chunk, uint8_t *ret_key);
size_t format_key_page(uint32_t prefix, volume_id_t volume, chunk_no_t chunk, page_no_t page,
		       uint8_t *ret_key);
/* The first key after all of a chunk's pages, and after all of a volume's. */
size_t format_key_chunk_end(uint32_t prefix, volume_id_t volume, chunk_no_t chunk,
			    uint8_t *ret_key);
size_t format_key_volume_end(uint32_t prefix, volume_id_t volume, uint8_t *ret_key);

int format_key_node_decode(const void *key, size_t size, uint32_t *ret_prefix);
int format_key_segment_decode(const void *key, size_t size, uint32_t *ret_segment);
int format_key_chunk_decode(const void *key, size_t size, volume_id_t *ret_volume,
			    chunk_no_t *ret_chunk);
int format_key_page_decode(const void *key, size_t size, volume_id_t *ret_volume,
			   chunk_no_t *ret_chunk, page_no_t *ret_page);

/* Values. Encoders return the size. A page has two forms, slot by slot and run by run; it is
 * written in the shorter one. */
size_t format_page_encode(const struct format_slot *slots, uint8_t *ret_value);
int format_page_decode(const void *value, size_t size, struct format_slot *ret_slots);
size_t format_segment_encode(const struct format_segment *segment,
			     const struct format_traces *traces, uint8_t *ret_value);
/* Of an older version: anything may lie there. */
int format_segment_decode(const void *value, size_t size, struct format_segment *ret_segment,
			  struct format_traces *ret_traces);
size_t format_checkpoint_encode(const struct format_checkpoint *checkpoint, uint8_t *ret_value);
int format_checkpoint_decode(const void *value, size_t size,
			     struct format_checkpoint *ret_checkpoint);
/* leaves: FORMAT_CHUNK_LEAVES places; those of the mask count. */
size_t format_chunk_encode(const struct format_chunk *chunk,
			   const struct format_leaf *const *leaves, uint8_t *ret_value);
/* ret_leaves: FORMAT_CHUNK_LEAVES; those outside of the mask are left untouched. */
int format_chunk_decode(const void *value, size_t size, struct format_chunk *ret_chunk,
			struct format_leaf *ret_leaves);
size_t format_fence_encode(generation_t generation, uint8_t *ret_value);
int format_fence_decode(const void *value, size_t size, generation_t *ret_generation);
/* Up to FORMAT_SCRUB_VALUE_MAX bytes. */
size_t format_scrub_encode(const struct format_scrub *scrub, uint8_t *ret_value);
int format_scrub_decode(const void *value, size_t size, struct format_scrub *ret_scrub);

#endif
