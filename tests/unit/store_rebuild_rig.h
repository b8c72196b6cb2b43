/* What a rebuilding of the index reads and writes in tests: the rig's disk as it lies there, and
 * its kv. */
#ifndef UNIT_STORE_REBUILD_RIG_H
#define UNIT_STORE_REBUILD_RIG_H

#include "engine/store/rebuild.h"
#include "test_store_rig.h"

static inline int rig_peek(void *arg, uint64_t offset, size_t size, void *data)
{
	struct rig *rig = arg;

	sim_disk_peek(rig->sim_disk, offset, data, size);
	return 0;
}

static inline struct survey_device rig_survey_device(struct rig *rig, uint64_t disk_mib)
{
	return (struct survey_device){
	    .read = rig_peek, .arg = rig, .size_bytes = disk_mib << 20, .name = "disk"};
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

/* For rebuild_write; arg: the rig. */
static inline int rig_commit(struct kv *kv, struct kv_batch *batch, void *arg)
{
	struct rig_commit c = {.op = {.done = rig_committed}};
	struct rig *rig = arg;

	kv_commit(kv, batch, &c.op);
	ck_assert(sim_run_flag(rig->world, &c.done));
	return c.status;
}

#endif
