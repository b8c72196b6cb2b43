/* The index that is compared: its records, read in; its references to places on the device, a
 * window of segments after the other; and what it says of single blocks.
 *
 * Memory: 32 bytes a segment; the references of a window, at most as many bytes as refs_open is
 * given; RocksDB's own. */
#ifndef PAVE_INSPECT_REFS_H
#define PAVE_INSPECT_REFS_H

#include "tools/pave-inspect/findings.h"
#include "tools/pave-inspect/inspect.h"

/* A block that the index refers to. */
struct ref {
	uint32_t location;
	uint32_t crc;
	version_t version;
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint8_t shard;
	bool named; /* by some group */
};

struct refs_segment {
	struct format_segment record;
	bool has_record;
	uint32_t live; /* blocks that pages refer to, those of dead chunks too */
	uint32_t refs; /* those of living ones */
};

/* A chunk's record. */
struct refs_chunk {
	uint32_t shard;
	volume_id_t volume;
	chunk_no_t no;
	bool found;
	struct format_chunk record;
	struct format_leaf leaves[FORMAT_CHUNK_LEAVES]; /* zeroes outside of the mask */
};

struct refs;

/* Opens the database in path to look, and goes through all of it once: segments[] and what is
 * wrong with pages, chunks and counts, which goes to findings. -ENOENT: there is no index, or it is
 * of another device. */
int refs_open(struct inspect_device *d, const char *path, const struct format_super *super,
	      uint64_t memory_bytes, struct findings *findings, struct refs **ret_refs,
	      struct error *err);
void refs_close(struct refs *r); /* NULL is allowed */

const struct format_checkpoint *refs_checkpoints(const struct refs *r); /* by shard */
const struct refs_segment *refs_segments(const struct refs *r);
uint64_t refs_page_count(const struct refs *r); /* of living chunks */
uint64_t refs_count(const struct refs *r);	/* likewise */

/* Takes in the references to the segments from `first` on, as many as there is room for, sorted by
 * place. *ret_end: the first segment of which they are not there. 0, -ENOMEM, -EIO, -E_CORRUPT. */
int refs_load_window(struct refs *r, uint32_t first, uint32_t *ret_end);

/* Those of the window that refer to `location` or behind it, in order, up to *ret_end. */
struct ref *refs_find(struct refs *r, uint32_t location, struct ref **ret_end);

/* The chunk's record; valid until the next call. -EIO, -E_CORRUPT. */
int refs_chunk(struct refs *r, uint32_t shard, volume_id_t volume, chunk_no_t no,
	       const struct refs_chunk **ret_chunk);
bool refs_chunk_has_page(const struct refs_chunk *chunk, page_no_t page);

/* The page's slots, PAGE_BLOCKS of them; NULL: it is not there. Valid until the next call. -EIO,
 * -E_CORRUPT. */
int refs_page(struct refs *r, uint32_t shard, volume_id_t volume, chunk_no_t chunk, page_no_t page,
	      const struct format_slot **ret_slots);

#endif
