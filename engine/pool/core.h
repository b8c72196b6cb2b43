/* The pool as its parts see it: open.c (what is there, when it opens), place.c
 * (which chunk lies where, then), device.c (one disk), ops.c
 * (the operations), mover.c (a chunk at a time from one device to another), change.c (devices that
 * come and go), equal.c (fences on all devices alike), pool.c (the rest). Private to engine/pool.
 */
#ifndef POOL_CORE_H
#define POOL_CORE_H

#include "engine/pool/mover.h"
#include "engine/pool/records.h"
#include "engine/pool/route.h"
#include "engine/store/format.h"

struct pool_device {
	enum pool_device_state state;
	bool leaving; /* RETIRING, and nothing lies on it any more: it is being closed */
	uint32_t slot;
	struct uuid uuid;
	char path[POOL_PATH_MAX];
	int why;
	struct store *store; /* NULL: it could not be opened, or is leaving */
	struct disk *disk;
	bool recorded;	      /* in kv, as it is */
	bool is_retiring;     /* by its record; before it is opened */
	uint64_t chunk_count; /* routes that lead to it */
	uint64_t moved_bytes, stuck, read_errors;
};

/* In the hook of an operation, while it is the pool's. */
enum hook_kind {
	HOOK_WRITE,
	HOOK_WATERMARK,
	HOOK_READ,
	HOOK_CHANGES,
	HOOK_FENCE,
	HOOK_ERASE,
	HOOK_WIPE
};

struct pool_hook {
	union {
		void (*write)(struct store_write *op, int status);
		void (*watermark)(struct store_watermark_op *op, int status);
		void (*read)(struct store_read *op, int status);
		void (*changes)(struct store_changes_op *op, int status);
		void (*fence)(struct store_fence_op *op, int status);
		void (*erase)(struct store_erase_op *op, int status);
		void (*wipe)(struct store_wipe_op *op, int status);
	} done;
	struct pool *pool;
	struct route *route;
	struct pool_hook *next; /* in the one queue that it is in */
	int32_t status;
	uint8_t kind;
	uint8_t place; /* of the device that it went to */
	uint8_t turn;  /* of the route */
};
_Static_assert(sizeof(struct pool_hook) <= sizeof(struct store_hook), "room in the operation");

struct hook_queue {
	struct pool_hook *head, *tail;
};

struct opening;
struct change;
struct fan;

struct closing {
	struct pool *pool;
	void (*done)(void *arg);
	void *arg;
	uint32_t place; /* the device whose store is being closed */
	bool waiting;
	struct reactor_task task;
};

struct pool {
	struct pool_config config;
	struct reactor *reactor;
	struct kv *kv;
	struct uuid node; /* pool_node */
	struct pool_device devices[POOL_DEVICES_MAX];
	struct routes routes;
	bool absent;		  /* a device is: a chunk that is nowhere may be on it */
	struct move_record *kept; /* in kv: the copy that does not count is not erased yet */
	uint32_t kept_count;
	int broken;   /* kv has failed: where chunks lie cannot be told any more; no more changes */
	uint32_t ops; /* of users, and the pool's own, that were begun and have not ended */
	struct hook_queue finished; /* answered at once, to be told in a later turn */
	struct reactor_task finish_task;
	struct reactor_task *damage_task; /* who watches damage, or NULL */
	struct hook_queue held;		  /* changes to the chunk that the mover holds */
	struct hook_queue erases;	  /* wait for the mover to let go */
	struct fan *fans;		  /* under way */
	struct mover mover;
	struct opening *opening;
	struct change *change;	      /* a device being added, retired or closed; NULL: none is */
	struct change *change_memory; /* of it: devices can go, and the pool close, without any */
	struct closing *closing;      /* NULL, or closing_memory */
	struct closing closing_memory;
};

/* -- pool.c ----------------------------------------------------------------------------------- */

struct pool_device *pool_find_device(struct pool *pool, const struct uuid *uuid);
struct pool_device *pool_free_place(struct pool *pool);
bool pool_uses_slot(const struct pool *pool, uint32_t slot);
uint32_t pool_free_slot(const struct pool *pool);

static inline uint8_t pool_place(const struct pool *pool, const struct pool_device *d)
{
	return (uint8_t)(d - pool->devices);
}

/* Known, but there is nothing to be read of it. */
static inline bool device_is_absent(const struct pool_device *d)
{
	return d->state != POOL_DEVICE_NONE && d->store == NULL && !d->leaving;
}

/* Notices that its store has failed. */
void pool_check_device(struct pool *pool, struct pool_device *d);

/* What a user is told: an error of a store that has failed is -E_DEVICE. */
int pool_status(struct pool *pool, struct pool_device *d, int status);

/* The device on which a new chunk lies best; NULL: there is none. but: not this one; NULL: any. */
struct pool_device *pool_choose(struct pool *pool, const struct pool_device *but);

struct route *pool_add_route(struct pool *pool, volume_id_t volume, chunk_no_t chunk,
			     struct pool_device *d);

/* Removes the route of a chunk that its store does not know (any more), if nothing holds it. */
void pool_settle_route(struct pool *pool, struct route *r);

/* kv can not be written: what is where cannot be told any more. */
void pool_break(struct pool *pool, int status);

/* Something of the pool's own begins, and ends: closing waits for it. */
void pool_begin(struct pool *pool);
void pool_end(struct pool *pool);
void pool_kick_closing(struct pool *pool); /* what it waits for may have come */

/* Notes a move whose other copy could not be erased, or forgets it. */
int pool_keep_move(struct pool *pool, const struct move_record *r);
void pool_forget_moves(struct pool *pool, struct kv_batch *batch, const struct uuid *device);

/* -- device.c --------------------------------------------------------------------------------- */

/* Both superblocks, what most other formats begin with, and the first block of the first segment.
 */
#define DEVICE_PROBE_SIZE (FORMAT_SEGMENTS_OFFSET + BLOCK_SIZE)

enum device_found {
	FOUND_EMPTY,	 /* all zeroes, but perhaps for superblocks that were being written */
	FOUND_SUPER,	 /* a superblock that checks: super */
	FOUND_SOMETHING, /* anything else */
};

/* Steps for one disk, one at a time, each with one completion, never inline. */
struct device_work {
	void (*done)(struct device_work *w, int status);
	struct pool *pool;
	struct disk *disk;
	uint32_t slot;
	struct error err; /* why, with status < 0 */
	enum device_found found;
	struct format_super super;
	struct store *store; /* opened */
	struct disk_op io;
	uint8_t *probe;
	struct reactor_task no_memory;
	uint64_t offset; /* discarded up to here */
	uint32_t copy;
	struct store_format_op format;
	struct store_open_op open;
};

void device_probe(struct device_work *w);
void device_format(struct device_work *w, bool force);
void device_open(struct device_work *w);
/* Gives its space back and overwrites its superblocks: nothing tells any more whose it was. */
void device_wipe(struct device_work *w);
void device_work_deinit(struct device_work *w);

/* -- place.c ---------------------------------------------------------------------------------- */

/* When all devices are open: makes the routes. -E_CORRUPT: a chunk is on two devices; -ENOMEM, or
 * what reading kv gives. */
int place_chunks(struct pool *pool, struct error *err);

/* -- equal.c ---------------------------------------------------------------------------------- */

/* Raises, on every device that can be written, the fence of each volume to the highest on any. */
struct equal {
	void (*done)(struct equal *e, int status);
	struct pool *pool;
	struct lagging *list;
	uint32_t count, max, next, in_flight;
	int status;
	struct equal_op *ops;
	struct reactor_task task;
};
void equal_start(struct equal *e, struct pool *pool, void (*done)(struct equal *e, int status));
void equal_deinit(struct equal *e);

/* -- ops.c ------------------------------------------------------------------------------------ */

void ops_finish_run(struct reactor_task *task);
void ops_free_fans(struct pool *pool); /* pool_abandon */

/* Submits, or fails with status < 0, what waited for the mover. */
void ops_release_held(struct pool *pool, int status);
void ops_release_erases(struct pool *pool);
/* An erase of the chunk is under way: what is copied meanwhile could come back after it. */
bool ops_erasing(const struct pool *pool, volume_id_t volume, chunk_no_t chunk);

/* -- change.c --------------------------------------------------------------------------------- */

int change_init(struct pool *pool); /* 0 or -ENOMEM */
void change_deinit(struct pool *pool);

/* Nothing lies on this device any more. */
void change_device_empty(struct pool *pool, struct pool_device *d);
void change_abandon(struct pool *pool);

/* -- open.c ----------------------------------------------------------------------------------- */

void opening_abandon(struct pool *pool);

#endif
