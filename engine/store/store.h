/* The store: the log that holds one shard's share of a node's chunks (engine/ARCHITECTURE.md, "A
 * node's disk").
 *
 * It knows blocks, versions and watermarks; it does not know permits, leases or hosts: engine/node
 * checks evidence before it calls here.
 *
 * Thread: the shard's reactor. Every operation is embedded by its owner, lent from submit until
 * `done`, which runs exactly once and never from inside the call. status: 0 or a negative code:
 *   -ENOSPC     client data would go into the reserve; reads and cleaning go on
 *   -EIO        the disk failed
 *   -E_BAD_CRC  what was read does not check (read), or what was given does not (write)
 *   -E_FENCED   the write's generation is older than the volume's
 *   -E_STALE_REPLICA  a watermark of a copy that was erased meanwhile
 *   -E_LIMIT    too many operations in flight (STORE_OPS_MAX)
 *
 * Order: for each block the newest version wins, whatever the order of arrival: a write that is not
 * newer than what the block holds succeeds and changes nothing. So replays and duplicates are
 * harmless.
 *
 * Durability: when a write, zero, fence, watermark or erase is done with 0, it survives power loss.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "engine/base/error.h"
#include "engine/base/types.h"
#include "engine/disk/disk.h"
#include "engine/kv/kv.h"
#include "engine/reactor/reactor.h"

#define STORE_OPS_MAX 16384u
#define STORE_COPY_MAX                                                                             \
	65536u /* a payload up to this is copied into the log's own buffer, so it needs            \
		 no alignment; a larger one goes to the disk from where it is */
#define STORE_CACHE_BYTES GIB /* the default */
/* What a store takes of reactor_memory at most: the cleaner's segment, the groups' buffers. */
#define STORE_REACTOR_MEMORY_MAX ((size_t)112 << 20)
#define STORE_CHANGES_MAX	 1024u /* runs in one answer of store_changes */

/* The families of the index in kv, in this order. */
enum store_family {
	STORE_KV_NODE,
	STORE_KV_PAGES,
	STORE_KV_REPLICAS,
	STORE_KV_SEGMENTS,
	STORE_KV_FAMILIES
};
extern const char *const store_kv_family_names[STORE_KV_FAMILIES];

/* Who a device belongs to. Written into its superblocks; a device of somebody else is refused. */
struct store_identity {
	struct uuid cluster;
	char node[NAME_SIZE_MAX];
	struct uuid device; /* ret of format; checked against the index when opened */
	uint32_t shard;	    /* this store's, of */
	uint32_t shard_count;
	uint32_t slot; /* of the device in the node's index: each has its own keys in kv. Not on the
			* device: the index knows which device has which slot */
};

struct store_config {
	struct reactor *reactor;
	struct disk *disk; /* lent until closed */
	struct kv *kv;	   /* lent until closed */
	struct store_identity identity;
	uint32_t groups_in_flight;  /* 0: the default */
	uint32_t group_fill_blocks; /* of data, for a group beside others; 0: the default */
	uint64_t checkpoint_bytes;  /* log between two checkpoints, the bound of recovery; 0: the
				       default */
	uint64_t cache_bytes;	    /* memory for pages of the index; 0: the default */
	uint32_t reserve_percent; /* of the segments, for cleaning and evacuation; 0: the default */
	uint64_t scrub_period_s;  /* everything live is read again within it; 0: only when asked */
};

struct store;

/* In every operation on a chunk: for whoever stands between its owner and the store (engine/pool).
 * The store does not look at it. */
struct store_hook {
	void *hook[6];
};

/* Writes the superblocks of an empty device. Refuses one that already has a valid superblock,
 * unless force. The device's uuid comes from the reactor's randomness. -E_IN_USE (has one), -EINVAL
 * (too small), -EIO. */
struct store_format_op {
	void (*done)(struct store_format_op *op, int status, const struct error *err);
	struct disk *disk;
	struct store_identity identity;
	uint32_t segment_bytes; /* 0: by the device; a power of two from 1 to 64 MiB */
	bool force;
	uint64_t impl[96];
};
void store_format(struct store_format_op *op);

/* Frees what one that will never complete holds: the simulator's crash. */
void store_format_abandon(struct store_format_op *op);

/* Opens and recovers: superblock, index, then the log after the last checkpoint. done gives the
 * store, or the error: -ENOMEM, -E_WRONG_CLUSTER, -E_WRONG_NODE, -E_CORRUPT (no valid superblock,
 * unknown version, index and device do not belong together), -EIO. */
struct store_open_op {
	void (*done)(struct store_open_op *op, int status, struct store *store,
		     const struct error *err);
	struct store_config config;
	void *impl;
	struct reactor_task no_memory; /* the store's */
};
void store_open(struct store_open_op *op);

/* Writes what is gathered, a last checkpoint, and closes. Operations in flight complete first; none
 * may follow. */
void store_close(struct store *store, void (*done)(void *arg), void *arg);

/* The uuid of its device. */
const struct uuid *store_device(const struct store *store);

/* 0, or why nothing more can be written: the first write that failed. Reads go on. */
int store_failure(const struct store *store);

/* Frees everything at once, without I/O: the simulator's crash, and a failed open's clean-up. */
void store_abandon(struct store *store);

/* -- data ------------------------------------------------------------------------------------- */

enum store_write_kind { STORE_DATA, STORE_ZERO, STORE_DISCARD };

struct store_write {
	void (*done)(struct store_write *op, int status);
	enum store_write_kind kind;
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t block_count; /* 1 to IO_BLOCKS_MAX; within the chunk */
	version_t version;    /* its generation is compared with the fence of: */
	volume_id_t owner;    /* the volume that volume is a layer of; 0: of itself */
	version_t watermark;  /* "you have everything up to here"; 0: no news */
	const uint32_t *crcs; /* STORE_DATA: one a block; lent until done */
	const void *data; /* STORE_DATA: lent until done, for a write may have to wait for space;
			     aligned to BLOCK_SIZE when over STORE_COPY_MAX */
	void *copy;	  /* NULL; or as much memory, lent until done: then data may be lent until
			     store_write_keep only, which must follow in the same turn */
	bool resync;  /* moved here by resync: goes to the cold log, may be of an older generation
		       * than the fence, may use the reserve */
	bool settles; /* what a host must write before a chunk can serve: may use the reserve */
	bool trace;   /* store_write_begun_ns is to be exact: reads the clock once more a group */
	uint64_t impl[15];
	struct store_hook hook;
};

/* Whoever calls has checked the CRCs (once, on receipt). */
void store_write(struct store *store, struct store_write *op);

/* Of a write with a copy, before its owner takes back what it gave as data: what the store has not
 * put into its place yet is copied. */
void store_write_keep(struct store_write *op, const void *data);

/* Says that this block is about to be looked up, so that what the index has of it comes from memory
 * meanwhile: PLACE first, then PAGE, then SLOTS, each after some other work of a few hundred
 * nanoseconds. It changes nothing, and none of it is needed. */
enum store_ahead { STORE_AHEAD_PLACE, STORE_AHEAD_PAGE, STORE_AHEAD_SLOTS };
void store_look_ahead(struct store *store, volume_id_t volume, chunk_no_t chunk, block_no_t block,
		      enum store_ahead what);

/* In done: when the group with the (last part of the) write was handed to the disk, on the
 * reactor's clock; 0 when it never was. Exact only if the write was traced. */
uint64_t store_write_begun_ns(const struct store_write *op);

struct store_read {
	void (*done)(struct store_read *op, int status);
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
	uint32_t block_count;
	void *data;	    /* aligned to BLOCK_SIZE */
	uint32_t *ret_crcs; /* one a block; the CRC stored with the block, checked against what was
			       read */
	version_t *ret_versions; /* NULL, or one a block: 0 for never written */
	uint32_t bad_block;	 /* with -E_BAD_CRC: which, counted from block */
	void *impl[16];
	struct store_hook hook;
};

/* Unwritten, zeroed and discarded blocks read as zeroes, without I/O. */
void store_read(struct store *store, struct store_read *op);

/* -- what the protocol asks ------------------------------------------------------------------- */

/* Fences the volume: from now on writes of older generations get -E_FENCED; durable when done. A
 * generation older than the one in force: -E_FENCED; the same again: 0. */
struct store_fence_op {
	void (*done)(struct store_fence_op *op, int status);
	volume_id_t volume;
	generation_t generation;
	uint64_t impl[15];
	struct store_hook hook;
};
void store_fence(struct store *store, struct store_fence_op *op);

/* The generation in force; 0 for a volume that was never opened here. */
generation_t store_generation(const struct store *store, volume_id_t volume);

/* Every volume that was ever opened here or has chunks here, in no order, with its generation. */
void store_each_volume(const struct store *store,
		       void (*each)(volume_id_t volume, generation_t generation, void *arg),
		       void *arg);

/* Raises the chunk's watermark, durably. A lower one than in force: 0, and nothing changes. */
struct store_watermark_op {
	void (*done)(struct store_watermark_op *op, int status);
	volume_id_t volume;
	chunk_no_t chunk;
	version_t watermark;
	uint64_t impl[15];
	struct store_hook hook;
};
void store_watermark(struct store *store, struct store_watermark_op *op);

struct store_chunk_state {
	chunk_no_t chunk;
	version_t watermark; /* holds everything up to here */
	int status;	     /* 0. engine/pool: -E_DEVICE: its device has failed */
	version_t newest; /* the newest version that it holds; nothing above the watermark if newest
			     <= watermark */
};

/* The chunks of a volume that hold anything here, in order, from chunk number `from`. Returns how
 * many were filled in (< max: no more). */
uint32_t store_chunks(struct store *store, volume_id_t volume, chunk_no_t from,
		      struct store_chunk_state *ret_states, uint32_t max);

/* Whether the store knows the chunk, be it that nothing is left in it. */
bool store_has_chunk(struct store *store, volume_id_t volume, chunk_no_t chunk);

struct store_change {
	block_no_t block;
	uint32_t block_count;
	version_t version; /* of all these blocks */
	bool zero;	   /* they are zeroes that take no space: zeroed or discarded */
};

/* The runs of blocks of a chunk whose version is above `above`, in order, from block `from`; done
 * gives up to STORE_CHANGES_MAX of them in the op's memory, and where to go on (next == UINT32_MAX:
 * no more). */
struct store_changes_op {
	void (*done)(struct store_changes_op *op, int status);
	volume_id_t volume;
	chunk_no_t chunk;
	version_t above;
	block_no_t from;
	struct store_change *changes; /* the caller's, max places */
	uint32_t max;
	uint32_t count;
	block_no_t next;
	uint64_t impl[15];
	struct store_hook hook;
};
void store_changes(struct store *store, struct store_changes_op *op);

/* Drops a chunk's, or with chunk == UINT32_MAX a whole volume's, blocks and state (a deleted
 * volume's fence stays). Done when no log replay can bring them back; the space is given back by
 * the cleaner. Writes to it that are in flight meanwhile may come before or after. What it was lies
 * on the device still: store_wipe. */
struct store_erase_op {
	void (*done)(struct store_erase_op *op, int status);
	volume_id_t volume;
	chunk_no_t chunk;
	uint64_t impl[15];
	struct store_hook hook;
};
void store_erase(struct store *store, struct store_erase_op *op);

/* Makes sure that nothing of chunks that were erased is on the device any more: neither what the
 * index referred to, nor older versions, nor what was moved. Every segment in which anything of
 * them may lie is emptied, what lives in it moved elsewhere, and overwritten with zeroes, durably,
 * or discarded, which a device may ignore. (What of them lives, because it was written after the
 * erase, is moved too.) Takes as long as it takes: clients come first. It may be asked for again
 * after a crash: what was done is not done twice.
 *   -ECANCELED  the store closes
 *   -EIO, -E_BAD_CRC  a segment could not be overwritten, or not be emptied: the rest is done
 * In done, segments and bytes say what was wiped. */
struct store_wipe_key {
	volume_id_t volume;
	chunk_no_t chunk; /* UINT32_MAX: the whole volume */
};
#define STORE_WIPE_KEYS_MAX (1u << 17)
struct store_wipe_op {
	void (*done)(struct store_wipe_op *op, int status);
	const struct store_wipe_key *keys; /* lent until done */
	uint32_t key_count;		   /* 1 to STORE_WIPE_KEYS_MAX */
	bool overwrite;			   /* or discard */
	uint32_t segments;
	uint64_t bytes;
	uint64_t impl[15];
	struct store_hook hook;
};
void store_wipe(struct store *store, struct store_wipe_op *op);

/* Those that are under way end soon, with -ECANCELED. */
void store_wipe_stop(struct store *store);

/* -- scrub ------------------------------------------------------------------------------------ */

/* Begins to read everything that is live again, now (scrub.h). Nothing happens where one that was
 * asked for is under way. */
void store_scrub(struct store *store);

struct store_damage {
	volume_id_t volume;
	chunk_no_t chunk;
	block_no_t block;
};

/* Blocks that are known to be damaged, and not repaired: at most max. Whoever holds the volume
 * repairs one by writing it again, under a new version, or as resync under the same. */
#define STORE_DAMAGE_MAX 256u
uint32_t store_damage(const struct store *store, struct store_damage *ret_damage, uint32_t max);

/* Defers task whenever damage is found, and at once if there is some. Lent; NULL ends it. */
void store_watch_damage(struct store *store, struct reactor_task *task);

struct store_scrub_stats {
	bool running;
	uint64_t period_s;		 /* 0: only when asked */
	uint64_t passes;		 /* whole ones, ever */
	int64_t started_at, finished_at; /* wall, ns: the last pass begun, the last one ended; 0 */
	uint64_t total_bytes, done_bytes;
	uint64_t rate;		  /* bytes a second */
	uint64_t found, repaired; /* blocks, ever */
	uint32_t damaged;	  /* found and not repaired yet */
	/* Bytes a second that the period asks for, and that it takes at most: when that is less it
	 * is late. Of a pool: of the device that needs the most. */
	uint64_t needed_rate, max_rate;
};

struct store_stats {
	struct store_scrub_stats scrub;
	uint64_t size_bytes;	/* what clients can store */
	uint64_t live_bytes;	/* blocks that the index refers to */
	uint64_t free_bytes;	/* what clients can still store before -ENOSPC */
	uint64_t reserve_bytes; /* on top of size_bytes, for resync and the like */
	uint64_t writes, blocks_written, groups, group_bytes; /* client log */
	uint64_t reads, blocks_read;
	uint64_t cleaned_segments, moved_blocks;
	uint64_t tidied_blocks;			  /* put in order (tidy.h) */
	uint64_t wiped_segments, wiping_segments; /* for erasures: so far; still to be done */
	uint64_t checkpoints, releases;		  /* of the index; of segments between two */
	uint64_t recovered_groups, recovered_bytes, recovery_ms;
	uint64_t bad_blocks;
	uint64_t memory_bytes;			  /* of the index */
	uint64_t index_pages, index_pages_loaded; /* that exist; of these in memory */
	uint64_t index_reads, index_errors;	  /* pages read from kv; that could not be */
	uint64_t index_evictions;		  /* pages that had to leave memory */
};
void store_get_stats(const struct store *store, struct store_stats *ret_stats);

#endif
