/* test_wipe_rig: see test_wipe_rig.h. */
#include "test_wipe_rig.h"

#include <string.h>

uint32_t wipe_rig_mib;
struct wipe_rig wipe_rig;

/* -- the raw device --------------------------------------------------------------------------- */

/* Whether a sector holds what was tried for a block of the chunk before it was erased. */
static bool is_of(const struct rig *rig, uint32_t volume, uint32_t chunk, const uint8_t *sector,
		  uint32_t sector_no)
{
	const struct rig_chunk *c = &rig->model.chunks[volume][chunk];
	uint8_t content[BLOCK_SIZE];
	const uint32_t at = sector_no % (BLOCK_SIZE / 512) * 512;

	for (uint64_t seq = 1; seq < c->erased_before; seq++) {
		const struct rig_try *t = &rig->model.tries[seq];
		uint64_t word, first;

		if (t->volume != volume || t->chunk != chunk || t->kind != STORE_DATA)
			continue;
		memcpy(&word, sector, 8);
		for (block_no_t b = t->block; b < t->block + t->block_count; b++) {
			first = (seq * 0x9e3779b97f4a7c15ull ^ (uint64_t)b << 32) +
				at / 8 * 0x2545f4914f6cdd1dull;
			if (word != first)
				continue;
			rig_content(seq, b, content);
			return memcmp(content + at, sector, 512) == 0;
		}
	}
	return false;
}

uint32_t wipe_rig_remains(struct rig *rig, uint32_t volume, uint32_t chunk)
{
	static uint8_t buf[MIB];
	uint32_t count = 0;

	for (uint32_t d = 0; d < RIG_DISKS_MAX && rig->disks[d] != NULL; d++)
		for (uint64_t at = 0; at < wipe_rig_mib * MIB; at += sizeof buf) {
			sim_disk_peek(rig->disks[d], at, buf, sizeof buf);
			for (uint32_t s = 0; s < sizeof buf / 512; s++)
				count += is_of(rig, volume, chunk, buf + s * 512u, s);
		}
	return count;
}

/* -- erasing ---------------------------------------------------------------------------------- */

static void wipe_done(struct store_wipe_op *op, int status)
{
	struct wipe_rig *w = container_of(op, struct wipe_rig, op);

	w->done = true;
	w->status = status;
}

void wipe_rig_wipe(struct rig *rig, uint32_t volume, uint32_t chunk, bool overwrite)
{
	wipe_rig = (struct wipe_rig){
	    .op = {.done = wipe_done, .key_count = 1, .overwrite = overwrite},
	    .keys[0] = {rig_volume_id(volume), chunk},
	};
	wipe_rig.op.keys = wipe_rig.keys;
	if (rig->pool != NULL)
		pool_wipe(rig->pool, &wipe_rig.op);
	else
		store_wipe(rig->store, &wipe_rig.op);
	ck_assert(!wipe_rig.done);
}

int wipe_rig_wait(struct rig *rig)
{
	if (sim_run_flag(rig->world, &wipe_rig.done))
		return wipe_rig.status;
	ck_assert_msg(!rig->process->alive, "an erasure never ends");
	return -E_DISCONNECTED;
}

int wipe_rig_erase(struct rig *rig, uint32_t volume, uint32_t chunk, bool overwrite)
{
	struct rig_op *op = rig_erase(rig, volume, chunk);
	int rc = op != NULL ? rig_wait(rig, op) : -E_DISCONNECTED;

	if (rc != 0)
		return rc;
	wipe_rig_wipe(rig, volume, chunk, overwrite);
	return wipe_rig_wait(rig);
}

void wipe_rig_begin(struct rig *rig, uint64_t seed)
{
	wipe_rig_mib = WIPE_RIG_MIB;
	rig_init(rig, seed, wipe_rig_mib);
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
}

/* -- damaged neighbours ----------------------------------------------------------------------- */

struct format_slot wipe_rig_slot(const struct rig *rig, uint32_t volume, uint32_t chunk,
				 block_no_t block)
{
	struct index *ix = &rig->store->index;
	const struct format_slot slot =
	    index_find_slot(ix, index_find_chunk(ix, rig_volume_id(volume), chunk), block);

	ck_assert(format_slot_has_data(&slot));
	return slot;
}

void wipe_rig_rot(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block)
{
	const struct format_slot slot = wipe_rig_slot(rig, volume, chunk, block);
	uint8_t bytes[512];

	memset(bytes, 0x5a, sizeof bytes);
	sim_disk_poke(rig->sim_disk, (uint64_t)slot.location * BLOCK_SIZE, bytes, sizeof bytes);
}

int wipe_rig_read_one(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block)
{
	static uint8_t data[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
	uint32_t crc, bad;

	return rig_read(rig, volume, chunk, block, 1, data, &crc, NULL, &bad);
}

uint64_t wipe_rig_damaged_neighbour(struct rig *rig)
{
	uint64_t seq;

	rig_write(rig, STORE_DATA, 0, 0, 0, 60);
	ck_assert(rig_drain(rig));
	seq = rig_write(rig, STORE_DATA, 0, 1, 0, 60)->seq;
	rig_write(rig, STORE_DATA, 0, 0, 60, 60);
	ck_assert(rig_drain(rig));
	ck_assert(rig_checkpoint(rig));
	wipe_rig_rot(rig, 0, 1, 7);
	return seq;
}
