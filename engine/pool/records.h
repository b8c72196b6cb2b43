/* What the pool keeps in kv, beside what the stores keep there: which devices belong to the node,
 * and which chunk is on two of them (proto/FORMAT.md, "Pool"). In the family STORE_KV_NODE, under
 * keys that no store has. Pure, but for the scans, which block: for start-up.
 *
 * What is decoded comes from a disk: -E_CORRUPT for what does not check. */
#ifndef POOL_RECORDS_H
#define POOL_RECORDS_H

#include "engine/kv/kv.h"
#include "engine/pool/pool.h"

enum record_state {
	RECORD_SERVING = 1,
	RECORD_RETIRING,
	RECORD_RETIRED, /* the index knows nothing of it any more; its superblocks may be left */
	RECORD_STATES,
};

struct device_record {
	struct uuid uuid;
	uint32_t state;
	uint32_t slot;
	char path[POOL_PATH_MAX];
};

/* A chunk that is on two devices: COPYING: the copy on `to` counts for nothing; MOVED: that on
 * `from` does. */
enum move_state { MOVE_COPYING = 1, MOVE_MOVED, MOVE_STATES };

struct move_record {
	volume_id_t volume;
	chunk_no_t chunk;
	uint32_t state;
	struct uuid from, to;
};

void record_put_device(struct kv *kv, struct kv_batch *batch, const struct device_record *r);
void record_delete_device(struct kv *kv, struct kv_batch *batch, const struct uuid *uuid);
/* Who the node is: pool_node. */
void record_put_node(struct kv *kv, struct kv_batch *batch, const struct uuid *node);
void record_put_move(struct kv *kv, struct kv_batch *batch, const struct move_record *r);
void record_delete_move(struct kv *kv, struct kv_batch *batch, volume_id_t volume,
			chunk_no_t chunk);

/* Everything that the store of a slot and shard has in kv. */
void record_delete_store(struct kv *kv, struct kv_batch *batch, uint32_t slot, uint32_t shard);

/* 0, what each gave, -E_CORRUPT, or what kv_scan gives. */
int record_scan_devices(struct kv *kv, int (*each)(const struct device_record *r, void *arg),
			void *arg);
/* *ret_node is left alone when there is none. */
int record_get_node(struct kv *kv, struct uuid *ret_node);
int record_scan_moves(struct kv *kv, int (*each)(const struct move_record *r, void *arg),
		      void *arg);

/* The slots in use by stores of a shard, and of which device. */
int record_scan_slots(struct kv *kv, uint32_t shard,
		      int (*each)(uint32_t slot, const struct uuid *device, void *arg), void *arg);

/* The chunks that the index has for a slot and shard. */
int record_scan_chunks(struct kv *kv, uint32_t slot, uint32_t shard,
		       int (*each)(volume_id_t volume, chunk_no_t chunk, void *arg), void *arg);

#endif
