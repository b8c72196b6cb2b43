/* The devices of one shard of a node, as one: each has a store of its own (engine/store), and the
 * pool knows which chunk lies on which. It offers the operations of store.h, with the same op
 * structs, errors, order and durability; what is said there holds here.
 *
 * A chunk lies on exactly one device. Where is found again from what the stores hold when the pool
 * opens; nothing else is written for it. A chunk that is written for the first time goes to the
 * device with the most free space by share. A fence holds on all devices. While a chunk is moved
 * (a device is retired) it is on two; a record in kv says which of them counts (records.h).
 *
 * Devices:
 *                                                         /--last chunk moved--> (gone)
 *   (empty) --added--> JOINING --fences copied--> SERVING --retire--> RETIRING
 *                                                    \--a write fails--> FAILED
 *   (known, but not there when the pool opens) ----> MISSING
 *
 * A device that FAILED or is MISSING does not stop the others: what lies on it is answered with
 * -E_DEVICE, so that hosts drop this replica of those chunks and no other. While one cannot
 * be opened that holds for every chunk that is found nowhere: it may be on that device. Also of a
 * volume that was never opened here, as far as the others know: they may have been away then, and
 * what is begun anew would be there twice when that device is back.
 *
 * Errors beside those of store.h:
 *   -E_DEVICE  the device that holds the chunk, or may hold it, has failed or is missing
 *
 * Thread: the shard's reactor. */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include "engine/store/store.h"

#define POOL_DEVICES_MAX 16u
#define POOL_PATH_MAX	 256u /* with the terminating NUL */

struct pool;

enum pool_device_state {
	POOL_DEVICE_NONE,
	POOL_DEVICE_JOINING,
	POOL_DEVICE_SERVING,
	POOL_DEVICE_RETIRING,
	POOL_DEVICE_FAILED,
	POOL_DEVICE_MISSING,
};
const char *pool_state_name(enum pool_device_state state); /* "serving" */

struct pool_config {
	struct reactor *reactor;
	struct kv *kv;			/* lent until closed */
	struct store_identity identity; /* device and slot are the pool's to find */
	uint32_t groups_in_flight;	/* as in store_config */
	uint32_t group_fill_blocks;
	uint64_t checkpoint_bytes;
	uint64_t cache_bytes; /* of each device's index */
	uint32_t reserve_percent;
	uint32_t segment_bytes; /* of devices that are formatted; 0: the default */
	uint64_t scrub_period_s;
	uint64_t move_bytes_per_s; /* at most so much is moved off a device; 0: the default */
	bool no_format; /* an empty device is not formatted: another shard of the node does that */
};

/* A device to open. The pool takes the disk over: it is closed when the pool is, or the device has
 * left it; but not by pool_abandon. */
struct pool_disk {
	struct disk *disk; /* NULL: it could not be opened; why: */
	int why;
	const char *path; /* how it is called, now and at the next start; copied */
};

/* Opens all devices. What is not all zeroes is opened, and refused if it is not this node's; an
 * empty one is formatted, unless the index says that a device is missing for which it may stand in.
 * One that cannot be read, or that is known and damaged, becomes FAILED, if another can be opened.
 * done gives the pool, or the error that
 * store_open gives, or -E_CORRUPT (a chunk on two devices without a reason; a disk that is a copy
 * of another), -EIO (none can be read), -EINVAL, -ENOMEM; then the disks have been closed. */
struct pool_open_op {
	void (*done)(struct pool_open_op *op, int status, struct pool *pool,
		     const struct error *err);
	struct pool_config config;
	struct pool_disk disks[POOL_DEVICES_MAX];
	uint32_t disk_count;
	void *impl;		       /* the pool, while it is being opened */
	struct reactor_task no_memory; /* the pool's */
};
void pool_open(struct pool_open_op *op);

/* The paths of the devices that the index knows to belong to the node, for pool_open; behind them
 * the ones that have been retired, as far as there is room. Blocks; for start-up. Returns how many,
 * or what kv_scan gives. */
struct pool_known {
	char path[POOL_PATH_MAX];
	bool retired;
};
int pool_list_known(struct kv *kv, struct pool_known *ret_known, uint32_t max);

/* As store_close, for all of them; then the disks are closed too. What is being moved stays where
 * it is. */
void pool_close(struct pool *pool, void (*done)(void *arg), void *arg);

/* Frees everything at once, without I/O: the simulator's crash, of an opening too. */
void pool_abandon(struct pool *pool);

/* -- as store.h ------------------------------------------------------------------------------- */

void pool_write(struct pool *pool, struct store_write *op);
void pool_look_ahead(struct pool *pool, volume_id_t volume, chunk_no_t chunk, block_no_t block,
		     enum store_ahead what);
void pool_read(struct pool *pool, struct store_read *op);
void pool_fence(struct pool *pool, struct store_fence_op *op);
generation_t pool_generation(const struct pool *pool, volume_id_t volume);
void pool_watermark(struct pool *pool, struct store_watermark_op *op);
void pool_changes(struct pool *pool, struct store_changes_op *op);
void pool_erase(struct pool *pool, struct store_erase_op *op);
void pool_wipe(struct pool *pool, struct store_wipe_op *op);
void pool_wipe_stop(struct pool *pool);

/* Chunks on a device that has failed are listed with its error in `status`. */
uint32_t pool_chunks(struct pool *pool, volume_id_t volume, chunk_no_t from,
		     struct store_chunk_state *ret_states, uint32_t max);

/* What is true of a chunk that pool_chunks does not list: 0: nothing of it is here; -E_DEVICE: it
 * may be on a device that is missing. */
int pool_absent(const struct pool *pool);

/* Begins to scrub every device. */
void pool_scrub(struct pool *pool);

uint32_t pool_damage(const struct pool *pool, struct store_damage *ret_damage, uint32_t max);
void pool_watch_damage(struct pool *pool, struct reactor_task *task);

/* Sums over the devices that can be written; of scrubbing, over all. */
void pool_get_stats(const struct pool *pool, struct store_stats *ret_stats);

/* -- devices ---------------------------------------------------------------------------------- */

struct pool_device_info {
	enum pool_device_state state;
	struct uuid uuid;
	char path[POOL_PATH_MAX];
	int why; /* FAILED, MISSING: the error */
	uint64_t size_bytes, live_bytes, free_bytes;
	uint64_t chunks;      /* that lie on it */
	uint64_t moved_bytes; /* RETIRING: moved off it since the pool opened */
	uint64_t stuck;	      /* RETIRING: chunks that could not be moved, and are tried again */
	uint64_t read_errors, bad_blocks;
};

/* The devices, in no order that means anything. Returns how many. */
uint32_t pool_devices(const struct pool *pool, struct pool_device_info *ret_infos, uint32_t max);

/* The store of the i-th device of pool_devices; NULL: it has none. For tests and tools. */
struct store *pool_store(const struct pool *pool, uint32_t i);

/* Who the node is, so that it can be told from one of the same name that has nothing of what it
 * had: the device that was its first, for as long as its index lives. */
const struct uuid *pool_node(const struct pool *pool);

/* 0, or why no chunk can be written any more: where chunks lie cannot be told (kv has failed). */
int pool_broken(const struct pool *pool);

/* What keeps the pool from taking or giving some chunk. Empty: nothing does. For people, who see it
 * in `pave node list`, and for the driver, which has no copy move to a node that says anything
 * here. size > 0. */
void pool_trouble(const struct pool *pool, char *buf, size_t size);

/* A device is being added, or retiring one begins or ends: no other may be begun. */
bool pool_is_changing(const struct pool *pool);

/* Formats an empty device and takes it in; done when new chunks may go to it. The disk is the
 * pool's from now on: it is closed when that fails. One at a time (pool_is_changing). -E_IN_USE: it
 * is not empty; -E_LIMIT: POOL_DEVICES_MAX; -EIO; -ENOMEM. */
struct pool_add_op {
	void (*done)(struct pool_add_op *op, int status, const struct error *err);
	struct disk *disk;
	const char *path; /* copied */
	void *impl;
};
void pool_add(struct pool *pool, struct pool_add_op *op);

/* Moves what lies on a device to the others, in the background, and then lets go of it: its
 * superblocks are overwritten, its disk is closed. done when that has begun and will go on after a
 * crash. -ENOENT: no such device; -ENOSPC: it would not fit on the others (err has the figures), or
 * there is none; -EINVAL: it cannot be read, and chunks lie on it; 0 also when it is being retired
 * already. */
struct pool_retire_op {
	void (*done)(struct pool_retire_op *op, int status, const struct error *err);
	const char *path; /* or the uuid as text; lent until done */
	void *impl;
};
void pool_retire(struct pool *pool, struct pool_retire_op *op);

#endif
