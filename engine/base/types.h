/* Units and identities that every module shares.
 *
 * A volume is addressed in chunks (the unit of placement), pages (the unit of a node's index) and
 * blocks (the unit of checksum and atomicity). Numbers that are easy to confuse have a typedef that
 * says what they count. All ranges are half-open. */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SIZE	4096u
#define BLOCK_SHIFT	12u
#define PAGE_BLOCKS	16u /* blocks in a page */
#define PAGE_SHIFT	4u
#define PAGE_SIZE_BYTES (BLOCK_SIZE * PAGE_BLOCKS)

#define CHUNK_SIZE_MIN	   (16ull << 20)
#define CHUNK_SIZE_MAX	   (1ull << 30)
#define CHUNK_SIZE_DEFAULT (256ull << 20)

/* The most that one read, write, discard or write-zeroes on the wire may cover. */
#define IO_SIZE_MAX   (1u << 20)
#define IO_BLOCKS_MAX (IO_SIZE_MAX / BLOCK_SIZE)

#define REPLICAS_MAX  5u
#define NAME_SIZE_MAX 64u /* with the terminating NUL: nodes, sites, volumes, policies, keys */
#define ADDR_SIZE_MAX 112u

typedef uint64_t volume_id_t; /* given by the register; never used again; 0 is none */
typedef uint32_t chunk_no_t;  /* chunk in its volume */
typedef uint32_t block_no_t;  /* block in its chunk */
typedef uint32_t page_no_t;   /* page in its chunk */

/* The order of all changes to one chunk: (generation, sequence), packed so that integers compare as
 * pairs do. Generation: 24 bits, one for each attachment. Sequence: 40 bits, from 1 in each chunk
 * and generation; 0 is "before the first write of this generation". Version 0 is "never written".
 */
typedef uint64_t version_t;
typedef uint32_t generation_t;

#define VERSION_SEQ_BITS 40u
#define VERSION_SEQ_MAX	 ((1ull << VERSION_SEQ_BITS) - 1)
#define GENERATION_MAX	 ((1u << 24) - 1)

static inline version_t version_make(generation_t generation, uint64_t seq)
{
	return ((uint64_t)generation << VERSION_SEQ_BITS) | seq;
}

static inline generation_t version_generation(version_t v)
{
	return (generation_t)(v >> VERSION_SEQ_BITS);
}

static inline uint64_t version_seq(version_t v)
{
	return v & VERSION_SEQ_MAX;
}

/* The watermark of a sealed layer's copy: it holds everything that the layer will ever hold. */
static inline bool version_is_sealed(version_t watermark)
{
	return version_seq(watermark) == VERSION_SEQ_MAX;
}

/* Which shard of a node holds a chunk, and so which of the node's addresses to ask: part of the
 * format, for a shard finds its chunks on its own segments only. shard_count is at least 1. */
static inline uint32_t chunk_shard(volume_id_t volume, chunk_no_t chunk, uint32_t shard_count)
{
	return (uint32_t)((volume + chunk) % shard_count);
}

struct uuid {
	uint8_t bytes[16];
};

#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull
#define KIB	  1024ull
#define MIB	  (1024ull * KIB)
#define GIB	  (1024ull * MIB)

#define ARRAY_SIZE(a)		   (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)		   ((a) < (b) ? (a) : (b))
#define MAX(a, b)		   ((a) > (b) ? (a) : (b))
#define ROUND_UP(x, to)		   (((x) + (to)-1) / (to) * (to))
#define container_of(ptr, type, m) ((type *)(void *)((char *)(ptr)-offsetof(type, m)))

#endif
