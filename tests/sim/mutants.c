/* mutants: see mutants.h. */
#include "tests/sim/mutants.h"

#include <stddef.h>

#include "engine/base/crc32c.h"
#include "engine/disk/disk.h"
#include "engine/store/store.h"
#include "tests/sim/process.h"

static enum mutant active;

const char *mutant_name(enum mutant m)
{
	static const char *const names[] = {
	    [MUTANT_NONE] = "none",
	    [MUTANT_NOT_DURABLE] = "not-durable",
	    [MUTANT_FENCE_FORGOTTEN] = "fence-forgotten",
	    [MUTANT_CRC_UNCHECKED] = "crc-unchecked",
	    [MUTANT_LEASE_IGNORED] = "lease-ignored",
	    [MUTANT_UNSEALED] = "unsealed",
	};

	return m < MUTANTS ? names[m] : NULL;
}

void mutant_set(enum mutant m)
{
	active = m;
}

enum mutant mutant_now(void)
{
	return active;
}

/* -- the wrapped functions ------------------------------------------------------------------- */

void __real_disk_submit(struct disk *disk, struct disk_op *op);
void __wrap_disk_submit(struct disk *disk, struct disk_op *op);
void __wrap_disk_submit(struct disk *disk, struct disk_op *op)
{
	if (active == MUTANT_NOT_DURABLE && op->kind == DISK_WRITE &&
	    sim_chance(sim_process_of(disk->reactor)->world, 1, 3))
		op->durable = false;
	__real_disk_submit(disk, op);
}

/* By the process whose turn it is. */
static void answer_later(void (*fn)(void *arg), void *op)
{
	struct sim_world *w = sim_world_now();

	sim_schedule(w, w->now, NS_PER_MS, fn, op);
}

static void fence_answered(void *arg)
{
	struct store_fence_op *op = arg;

	op->done(op, 0);
}

void __real_store_fence(struct store *store, struct store_fence_op *op);
void __wrap_store_fence(struct store *store, struct store_fence_op *op);
void __wrap_store_fence(struct store *store, struct store_fence_op *op)
{
	if (active == MUTANT_FENCE_FORGOTTEN)
		answer_later(fence_answered, op);
	else
		__real_store_fence(store, op);
}

static void watermark_answered(void *arg)
{
	struct store_watermark_op *op = arg;

	op->done(op, 0);
}

void __real_store_watermark(struct store *store, struct store_watermark_op *op);
void __wrap_store_watermark(struct store *store, struct store_watermark_op *op);
void __wrap_store_watermark(struct store *store, struct store_watermark_op *op)
{
	if (active == MUTANT_UNSEALED)
		answer_later(watermark_answered, op);
	else
		__real_store_watermark(store, op);
}

bool __real_crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs);
bool __wrap_crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs);
bool __wrap_crc32c_blocks_match(const void *data, uint32_t block_count, const uint32_t *crcs)
{
	return active == MUTANT_CRC_UNCHECKED ||
	       __real_crc32c_blocks_match(data, block_count, crcs);
}
