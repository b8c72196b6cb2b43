/* What the tests of erasures share, beside the rig of the store: erasing as a node does it, and
 * what is on the raw devices afterwards. */
#ifndef TEST_WIPE_RIG_H
#define TEST_WIPE_RIG_H

#include "engine/store/core.h"
#include "test_store_rig.h"

#define WIPE_RIG_MIB 20u /* 18 segments */

/* Of each disk: what wipe_rig_remains looks through. */
extern uint32_t wipe_rig_mib;

/* The erasure that was begun last. Lent to operations of a process that may die: it lives until the
 * next test. */
extern struct wipe_rig {
	struct store_wipe_op op;
	struct store_wipe_key keys[4];
	bool done;
	int status;
} wipe_rig;

/* A store, or a pool (rig_devices), on disks of WIPE_RIG_MIB, open. */
void wipe_rig_begin(struct rig *rig, uint64_t seed);

/* Sectors of all disks on which something of the erased chunk lies, torn pieces of it included. */
uint32_t wipe_rig_remains(struct rig *rig, uint32_t volume, uint32_t chunk);

/* Begins to wipe what was dropped before. overwrite: or discard. */
void wipe_rig_wipe(struct rig *rig, uint32_t volume, uint32_t chunk, bool overwrite);

/* Its status; -E_DISCONNECTED: the process crashed. */
int wipe_rig_wait(struct rig *rig);

/* What the node does: drops, then wipes, and waits. */
int wipe_rig_erase(struct rig *rig, uint32_t volume, uint32_t chunk, bool overwrite);

/* Where the index has a block that has data. */
struct format_slot wipe_rig_slot(const struct rig *rig, uint32_t volume, uint32_t chunk,
				 block_no_t block);

/* Some of the block changes. A checkpoint covers it: at its end the log would be taken for torn. */
void wipe_rig_rot(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block);

int wipe_rig_read_one(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block);

/* Two chunks that share segments; block 7 of chunk 1 is damaged, chunk 0 is to be erased. Returns
 * the number of the write that wrote block 7. */
uint64_t wipe_rig_damaged_neighbour(struct rig *rig);

#endif
