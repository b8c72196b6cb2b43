/* Every crash of a story of the store, and damage on its disk: see test_store_rig.h. */
#include <string.h>

#include "engine/store/format.h"
#include "test_store_rig.h"

static bool crash_at(void (*prepare)(struct rig *rig), void (*scenario)(struct rig *rig),
		     uint32_t disk_mib, uint64_t cache_bytes, uint64_t seed, uint64_t n,
		     enum sim_io_action action, enum sim_fate fate)
{
	struct rig rig;
	bool survived;

	rig_init(&rig, seed, disk_mib);
	rig.config.cache_bytes = cache_bytes;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	if (prepare != NULL)
		prepare(&rig);
	ck_assert(rig.process->alive);
	rig.process->fate = fate;
	sim_process_on_io(rig.process, n, action);
	scenario(&rig);
	survived = rig.process->alive;
	if (survived)
		sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
	rig_crash(&rig, action == SIM_IO_KILL ? SIM_KILL : SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	for (uint32_t i = 0; i < 8; i++) {
		rig_write(&rig, STORE_DATA, 0, 0, i * 3, 2);
		rig_write(&rig, STORE_DATA, 1, 2, i * 40, 40);
	}
	ck_assert(rig_drain(&rig));
	/* Once more, now with what the first recovery left behind in the log. */
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	return survived;
}

void rig_crash_everywhere_with(void (*prepare)(struct rig *rig), void (*scenario)(struct rig *rig),
			       uint32_t disk_mib, uint64_t cache_bytes)
{
	static const enum sim_fate fates[] = {SIM_FATE_TEAR, SIM_FATE_DROP, SIM_FATE_KEEP,
					      SIM_FATE_RANDOM, SIM_FATE_RANDOM};
	/* A tiny cache makes many more I/Os: then each third, in the two ways with the most. */
	const bool tiny = cache_bytes <= RIG_TINY_CACHE;
	const uint32_t step = (tiny ? 3 : 1) * LOOP_STEP;

	for (uint32_t way = tiny ? 3 : 0; way < ARRAY_SIZE(fates); way++) {
		uint64_t n = 1 + way % step;

		while (!crash_at(prepare, scenario, disk_mib, cache_bytes, 1 + way, n,
				 way < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL, fates[way]))
			n += step;
		ck_assert_uint_gt(n, 2);
	}
}

/* -- damage ----------------------------------------------------------------------------------- */

void rig_must_begin(struct rig *rig)
{
	rig_init(rig, 1, 24);
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
	rig_write(rig, STORE_DATA, 0, 0, 0, 20);
	rig_write(rig, STORE_DATA, 1, 1, 7, 200);
	ck_assert(rig_drain(rig));
}

void rig_rot(struct rig *rig, uint64_t offset)
{
	uint8_t byte;

	sim_disk_peek(rig->sim_disk, offset, &byte, 1);
	byte ^= 0x10;
	sim_disk_poke(rig->sim_disk, offset, &byte, 1);
}

uint64_t rig_find_block(struct rig *rig, uint64_t seq, block_no_t block)
{
	uint8_t expected[BLOCK_SIZE], found[BLOCK_SIZE];

	rig_content(seq, block, expected);
	for (uint64_t at = FORMAT_SEGMENTS_OFFSET; at < 24 * MIB; at += BLOCK_SIZE) {
		sim_disk_peek(rig->sim_disk, at, found, sizeof found);
		if (memcmp(expected, found, sizeof found) == 0)
			return at;
	}
	ck_abort_msg("write %lu block %u is not on the disk", seq, block);
	return 0;
}
