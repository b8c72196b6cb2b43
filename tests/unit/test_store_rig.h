/* What the tests of the store share: one simulated machine with a store, operations that are waited
 * for or kept in flight, and a model of what the store owes.
 *
 * The model: for each block the newest version that was acknowledged, and a table of every write
 * that was ever tried, by sequence (each has its own). A block that is read must hold a version
 * that was tried for it, not older than the one acknowledged, with that write's content. What was
 * read once is owed from then on. */
#ifndef TEST_STORE_RIG_H
#define TEST_STORE_RIG_H

#include <check.h>

#include "engine/disk/fault.h"
#include "engine/pool/pool.h"
#include "engine/store/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/kv.h"
#include "tests/unit/loops.h"

#define RIG_VOLUMES   2u
#define RIG_CHUNKS    3u
#define RIG_BLOCKS    512u /* of each chunk that the tests use */
#define RIG_TRIES_MAX (1u << 18)
#define RIG_DEPTH_MAX 64u
#define RIG_BOOTS_MAX 16u /* with the fault layer */
#define RIG_DISKS_MAX 4u

/* Room for a few pages of the index: everything has to be looked up, and each change waits for a
 * checkpoint. */
#define RIG_TINY_CACHE 1u

struct rig_try {
	enum store_write_kind kind;
	version_t version;
	uint32_t volume, chunk;
	block_no_t block;
	uint32_t block_count;
};

struct rig_chunk {
	version_t acked[RIG_BLOCKS];
	uint64_t erased_before; /* tries below this must not show any more */
	version_t watermark_acked, watermark_tried;
};

struct rig_model {
	struct rig_try *tries; /* by sequence, from 1 */
	uint64_t try_count;
	struct rig_chunk chunks[RIG_VOLUMES][RIG_CHUNKS];
	generation_t generation; /* that writes use */
	generation_t fence_acked[RIG_VOLUMES], fence_tried[RIG_VOLUMES];
};

struct rig {
	struct sim_world *world;
	struct sim_process *process;
	struct sim_disk *sim_disk;
	struct sim_kv *sim_kv;
	struct store_config config; /* what stores are opened with */
	struct store_open_op open_op;
	struct store *store;
	uint32_t devices; /* 0: a store; else a pool of so many devices at first */
	struct sim_disk *disks[RIG_DISKS_MAX]; /* the pool's; [0] is sim_disk */
	struct pool *pool;
	struct error err; /* of the last format or open */
	uint32_t segment_bytes;
	bool primes;			/* the disk says that it needs priming */
	struct disk_fault_plan *faults; /* NULL, or the fault layer lies over the disk from the next
					   boot on */
	/* The same for a pool's disks, from the next time on that it is opened; it may only crash,
	 * not be closed, for then it would take the layer with it. */
	struct disk_fault_plan *disk_faults[RIG_DISKS_MAX];
	struct disk *fault_disks[RIG_BOOTS_MAX]; /* of crashed processes too */
	uint32_t boots;
	struct rig_model model;
	struct rig_op *ops;
	uint32_t in_flight;
	bool ios_fail;	  /* reads may get -EIO */
	uint64_t refused; /* writes that got -ENOSPC */
};

enum rig_kind { RIG_WRITE, RIG_READ, RIG_FENCE, RIG_WATERMARK, RIG_ERASE };

struct rig_op {
	union {
		struct store_write write;
		struct store_read read;
		struct store_fence_op fence;
		struct store_watermark_op watermark;
		struct store_erase_op erase;
	};
	struct rig *rig;
	enum rig_kind kind;
	bool busy, done;
	int status;
	uint64_t seq;
	uint32_t volume, chunk;
	uint32_t crcs[IO_BLOCKS_MAX];
	version_t versions[IO_BLOCKS_MAX]; /* read */
	version_t before[IO_BLOCKS_MAX];   /* acknowledged when the read began */
	uint8_t *data;			   /* IO_SIZE_MAX */
};

/* What rig_init makes: 0: a store; else a pool of so many devices. With a pool rig->store is NULL,
 * and the operations go to the pool. */
extern uint32_t rig_devices;

/* A machine with a disk of so many MiB, formatted with segments of 1 MiB; nothing is open. */
void rig_init(struct rig *rig, uint64_t seed, uint32_t disk_mib);
void rig_deinit(struct rig *rig);

/* Starts the process, with disk and kv, if it is down. */
void rig_boot(struct rig *rig);

int rig_format(struct rig *rig, bool force);

/* Starts the process if it is down. 0; why it could not be opened; or -E_DISCONNECTED: it crashed.
 */
int rig_open(struct rig *rig);
void rig_must_open(struct rig *rig);
/* A new device of 24 MiB, open, with two writes. */
void rig_must_begin(struct rig *rig);

/* Changes one byte of the block at offset. */
void rig_rot(struct rig *rig, uint64_t offset);
/* Where on such a device a block of a write lies; its only copy. */
uint64_t rig_find_block(struct rig *rig, uint64_t seq, block_no_t block);
void rig_close(struct rig *rig);

/* A disk of the pool, for pool_add; its path is rig_disk_path(i). */
struct disk *rig_disk(struct rig *rig, uint32_t i);
const char *rig_disk_path(uint32_t i);

/* After a crash: forgets the store and what was in flight. */
void rig_crashed(struct rig *rig);
void rig_crash(struct rig *rig, enum sim_crash how);

volume_id_t rig_volume_id(uint32_t volume);

/* Kept in flight: NULL when there are RIG_DEPTH_MAX already, or the process is down. Volumes count
 * from 0. */
struct rig_op *rig_write(struct rig *rig, enum store_write_kind kind, uint32_t volume,
			 uint32_t chunk, block_no_t block, uint32_t block_count);
struct rig_op *rig_resync(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			  uint32_t block_count);
/* As a host writes to bring a chunk into service. */
struct rig_op *rig_settle(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			  uint32_t block_count);
/* An old write again, as the host or as resync would. */
struct rig_op *rig_repeat(struct rig *rig, uint64_t seq, bool resync);
/* Reads in the midst of everything else. What it finds must be as new as what was acknowledged when
 * it began, and whole. */
struct rig_op *rig_begin_read(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
			      uint32_t block_count);
/* Of a volume that the model doesn't know. */
struct rig_op *rig_discard_far(struct rig *rig, chunk_no_t chunk, block_no_t block,
			       uint32_t block_count);
struct rig_op *rig_fence(struct rig *rig, uint32_t volume, generation_t generation);
struct rig_op *rig_watermark(struct rig *rig, uint32_t volume, uint32_t chunk, version_t watermark);
struct rig_op *rig_erase(struct rig *rig, uint32_t volume, uint32_t chunk);

/* Until op is done: its status; -E_DISCONNECTED when the process crashed. */
int rig_wait(struct rig *rig, struct rig_op *op);

/* Until nothing is in flight. False: the process crashed. */
bool rig_drain(struct rig *rig);

/* Until no more than `depth` are in flight. */
bool rig_drain_to(struct rig *rig, uint32_t depth);

/* A checkpoint that begins now, waited for. */
bool rig_checkpoint(struct rig *rig);

/* Reads blocks as they are; returns the status. bad_block as the store gave it. */
int rig_read(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block,
	     uint32_t block_count, uint8_t *data, uint32_t *crcs, version_t *versions,
	     uint32_t *ret_bad_block);

/* Reads everything and compares it with the model, then store_check. */
void rig_verify(struct rig *rig);

/* Of a chunk what its blocks hold. */
void rig_verify_chunk(struct rig *rig, uint32_t volume, uint32_t chunk);

/* The content of a block in a given write. */
void rig_content(uint64_t seq, block_no_t block, uint8_t *data);

/* A random operation, mostly writes of all kinds and sizes. */
void rig_random_op(struct rig *rig, bool with_erase);

/* Of a pool: adds disk. What it gives; of an error its text, when ret_text (sizeof err.text) is not
 * NULL. */
int rig_add_device(struct rig *rig, uint32_t disk, char *ret_text);

/* Runs `scenario` with a crash at its n-th I/O for every n, in every way, each time from a fresh
 * world prepared by `prepare`, then opens, verifies, writes on, reopens and verifies again. */
void rig_crash_everywhere_with(void (*prepare)(struct rig *rig), void (*scenario)(struct rig *rig),
			       uint32_t disk_mib, uint64_t cache_bytes);

static inline void rig_crash_everywhere(void (*prepare)(struct rig *rig),
					void (*scenario)(struct rig *rig), uint32_t disk_mib)
{
	rig_crash_everywhere_with(prepare, scenario, disk_mib, MIB);
}

static inline void rig_crash_everywhere_tiny(void (*prepare)(struct rig *rig),
					     void (*scenario)(struct rig *rig), uint32_t disk_mib)
{
	rig_crash_everywhere_with(prepare, scenario, disk_mib, RIG_TINY_CACHE);
}

struct rig_commit {
	struct kv_op op;
	bool done;
	int status;
};

static inline void rig_committed(struct kv_op *op, int status)
{
	struct rig_commit *c = container_of(op, struct rig_commit, op);

	c->done = true;
	c->status = status;
}

/* A batch of the index, as the store would commit it, or what rebuilds it (rebuild_write). arg: the
 * rig. What kv says. */
static inline int rig_commit(struct kv *kv, struct kv_batch *batch, void *arg)
{
	struct rig_commit c = {.op = {.done = rig_committed}};
	struct rig *rig = arg;

	kv_commit(kv, batch, &c.op);
	ck_assert(sim_run_flag(rig->world, &c.done));
	return c.status;
}

/* Something in every chunk. */
static inline void rig_fill(struct rig *rig)
{
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			rig_write(rig, STORE_DATA, volume, chunk, chunk * 7, 60);
	ck_assert(rig_drain(rig));
}

#define RIG_DEVICE_MIB 32u

/* A pool of so many devices, open. */
static inline void rig_start_pool(struct rig *rig, uint32_t devices, uint64_t seed)
{
	rig_devices = devices;
	rig_init(rig, seed, RIG_DEVICE_MIB);
	rig_must_open(rig);
}

/* What the pool says of one; POOL_DEVICE_NONE: it does not know it. */
static inline struct pool_device_info rig_device(const struct rig *rig, uint32_t disk)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	uint32_t count = pool_devices(rig->pool, infos, POOL_DEVICES_MAX);

	for (uint32_t i = 0; i < count; i++)
		if (strcmp(infos[i].path, rig_disk_path(disk)) == 0)
			return infos[i];
	return (struct pool_device_info){.state = POOL_DEVICE_NONE};
}

#endif
