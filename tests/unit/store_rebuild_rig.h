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

#endif
