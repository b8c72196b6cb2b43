/* Erasures that leave nothing behind (engine/store/wipe.h): what is on the raw device afterwards,
 * after crashes at every I/O too, and what else the store owes all the while. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/store/core.h"
#include "test_store_rig.h"

#define DISK_MIB 20u /* 18 segments */

static uint32_t disk_mib;

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

/* Sectors of all disks on which something of the erased chunk lies, torn pieces of it included. */
static uint32_t remains(struct rig *rig, uint32_t volume, uint32_t chunk)
{
	static uint8_t buf[MIB];
	uint32_t count = 0;

	for (uint32_t d = 0; d < RIG_DISKS_MAX && rig->disks[d] != NULL; d++)
		for (uint64_t at = 0; at < disk_mib * MIB; at += sizeof buf) {
			sim_disk_peek(rig->disks[d], at, buf, sizeof buf);
			for (uint32_t s = 0; s < sizeof buf / 512; s++)
				count += is_of(rig, volume, chunk, buf + s * 512u, s);
		}
	return count;
}

/* -- erasing ---------------------------------------------------------------------------------- */

/* Lent to operations of a process that may die: it lives until the next test. */
static struct wiping {
	struct store_wipe_op op;
	struct store_wipe_key keys[4];
	bool done;
	int status;
} wiping;

static void wipe_done(struct store_wipe_op *op, int status)
{
	struct wiping *w = container_of(op, struct wiping, op);

	w->done = true;
	w->status = status;
}

static void wipe_begin(struct rig *rig, uint32_t volume, uint32_t chunk, bool overwrite)
{
	wiping = (struct wiping){
	    .op = {.done = wipe_done, .key_count = 1, .overwrite = overwrite},
	    .keys[0] = {rig_volume_id(volume), chunk},
	};
	wiping.op.keys = wiping.keys;
	if (rig->pool != NULL)
		pool_wipe(rig->pool, &wiping.op);
	else
		store_wipe(rig->store, &wiping.op);
	ck_assert(!wiping.done);
}

/* -E_DISCONNECTED: the process crashed. */
static int wipe_wait(struct rig *rig)
{
	if (sim_run_flag(rig->world, &wiping.done))
		return wiping.status;
	ck_assert_msg(!rig->process->alive, "an erasure never ends");
	return -E_DISCONNECTED;
}

/* What the node does: drops, then wipes. */
static int erase_chunk(struct rig *rig, uint32_t volume, uint32_t chunk, bool overwrite)
{
	struct rig_op *op = rig_erase(rig, volume, chunk);
	int rc = op != NULL ? rig_wait(rig, op) : -E_DISCONNECTED;

	if (rc != 0)
		return rc;
	wipe_begin(rig, volume, chunk, overwrite);
	return wipe_wait(rig);
}

static void begin(struct rig *rig, uint64_t seed)
{
	disk_mib = DISK_MIB;
	rig_init(rig, seed, disk_mib);
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
}

/* Of every chunk: what is there, what was overwritten, zeroed and discarded since, what the cleaner
 * and resync brought to other places; some in the log only. */
static void long_history(struct rig *rig, uint32_t rounds)
{
	for (uint32_t i = 0; i < rounds; i++) {
		rig_random_op(rig, false);
		rig_drain_to(rig, 6);
		if (i % 100 == 50)
			rig_checkpoint(rig);
	}
	ck_assert(rig_drain(rig));
}

START_TEST(nothing_of_it_is_left)
{
	struct store_stats stats;
	struct rig rig;

	begin(&rig, 100 + (uint64_t)_i);
	rig.primes = _i % 2 == 1;
	rig_close(&rig);
	rig_must_open(&rig);
	long_history(&rig, 600);
	if (_i % 3 == 1) {
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		long_history(&rig, 20);
	}
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	ck_assert_uint_gt(remains(&rig, 0, 1), 100);
	wipe_begin(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_eq(remains(&rig, 0, 1), 0);
	ck_assert_uint_gt(wiping.op.segments, 0);
	ck_assert_uint_eq(wiping.op.bytes, wiping.op.segments * (uint64_t)MIB);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_eq(stats.wiped_segments, wiping.op.segments);
	ck_assert_uint_eq(stats.wiping_segments, 0);
	rig_verify(&rig);
	/* It is so durably, and nobody has to do it twice. */
	rig_crash(&rig, SIM_POWER_LOSS);
	ck_assert_uint_eq(remains(&rig, 0, 1), 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	long_history(&rig, 60);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* What nothing is left of costs nothing, as long as nothing crashed. */
START_TEST(what_is_gone_is_not_wiped_again)
{
	struct rig rig;

	begin(&rig, 7);
	for (uint32_t i = 0; i < 3; i++)
		rig_write(&rig, STORE_DATA, 0, 1, i * 100, 100);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(erase_chunk(&rig, 0, 1, true), 0);
	ck_assert_uint_gt(wiping.op.segments, 1);
	ck_assert_int_eq(erase_chunk(&rig, 0, 1, true), 0);
	ck_assert_uint_eq(wiping.op.segments, 0);
	/* Of a volume, and of a chunk, that never was; and the segment in use is not needed for it.
	 */
	rig_write(&rig, STORE_DATA, 0, 2, 0, 100);
	ck_assert(rig_drain(&rig));
	wipe_begin(&rig, 1, UINT32_MAX, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_eq(wiping.op.segments, 0);
	wipe_begin(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_eq(wiping.op.segments, 0);
	rig_deinit(&rig);
}
END_TEST

/* A whole volume, of which chunks were dropped before, and not wiped. */
START_TEST(a_whole_volume)
{
	struct rig rig;

	begin(&rig, 11);
	long_history(&rig, 500);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 1, chunk)), 0);
	wipe_begin(&rig, 1, UINT32_MAX, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_uint_eq(remains(&rig, 1, chunk), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(segments_are_discarded)
{
	struct rig rig;
	uint64_t before;

	begin(&rig, 12);
	long_history(&rig, 400);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	before = sim_disk_stats(rig.sim_disk)->discards;
	wipe_begin(&rig, 0, 1, false);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_gt(wiping.op.segments, 0);
	ck_assert_uint_ge(sim_disk_stats(rig.sim_disk)->discards, before + wiping.op.segments);
	/* A device may ignore it: who wants it overwritten gets that. */
	wipe_begin(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_gt(wiping.op.segments, 0);
	ck_assert_uint_eq(remains(&rig, 0, 1), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* As full as clients can make it: the moves take from the reserve, and clients go on. */
START_TEST(a_full_device)
{
	struct rig rig;
	uint64_t refused;

	begin(&rig, 13);
	for (uint32_t round = 0; round < 4; round++)
		for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
			for (block_no_t block = 0; block < RIG_BLOCKS; block += 64)
				for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
					rig_write(&rig, STORE_DATA, volume, chunk,
						  (block + round * 13) % (RIG_BLOCKS - 64), 64);
					rig_drain_to(&rig, 4);
				}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_gt(rig.refused, 0);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	wipe_begin(&rig, 0, 0, true);
	refused = rig.refused;
	for (uint32_t i = 0; !wiping.done; i++) {
		/* Of the erased chunk too: what is new is not meant. */
		rig_write(&rig, STORE_DATA, 0, i % 3, (i * 31) % 300, 9);
		rig_drain_to(&rig, 4);
		ck_assert_uint_lt(i, 5000);
	}
	ck_assert_int_eq(wiping.status, 0);
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig.refused, refused);
	ck_assert_uint_eq(remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Erased and written anew while the cleaner has what it was in its hands, and has not begun to move
 * it: in a segment that takes it many steps. */
START_TEST(a_move_brings_nothing_back)
{
	uint32_t met = 0;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		const struct cleaner *c;
		struct rig rig;

		disk_mib = 4 * 16;
		rig_init(&rig, seed, disk_mib);
		rig.segment_bytes = 4 << 20;
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		for (block_no_t block = 0; block < 300; block += 20)
			for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
				rig_write(&rig, STORE_DATA, 0, chunk, block, 20);
				rig_drain_to(&rig, 8);
			}
		ck_assert(rig_drain(&rig));
		/* The cleaner is at work for another chunk. */
		c = &rig.store->cleaner;
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
		wipe_begin(&rig, 0, 0, true);
		while (c->state != CLEANER_MOVING)
			ck_assert(sim_step(rig.world));
		while (c->next < seed * 20)
			ck_assert(sim_step(rig.world));
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 2)), 0);
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 0, 200)), 0);
		met += c->state == CLEANER_MOVING && c->next < c->block_count;
		ck_assert_int_eq(wipe_wait(&rig), 0);
		wipe_begin(&rig, 0, 2, true);
		ck_assert_int_eq(wipe_wait(&rig), 0);
		ck_assert_uint_eq(remains(&rig, 0, 0), 0);
		ck_assert_uint_eq(remains(&rig, 0, 2), 0);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(met, 3);
}
END_TEST

/* -- what goes wrong -------------------------------------------------------------------------- */

static struct disk_fault_plan plan;

START_TEST(an_error_is_told_and_tried_again)
{
	struct rig rig;

	plan = (struct disk_fault_plan){0};
	disk_mib = DISK_MIB;
	rig_init(&rig, 21, disk_mib);
	rig.faults = &plan;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	long_history(&rig, 300);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	/* Of the zeroes, which are written 1 MiB at a time: no group is as large. */
	plan.faults[0] = (struct disk_fault){
	    .kind = _i == 0 ? DISK_FAULT_ERROR : DISK_FAULT_SHORT,
	    .on_kinds = DISK_FAULT_ON(DISK_WRITE),
	    .size_min = MIB,
	    .skip = 1,
	    .times = 1,
	    .status = -EIO,
	};
	plan.count = 1;
	wipe_begin(&rig, 0, 0, true);
	ck_assert_int_eq(wipe_wait(&rig), -EIO);
	ck_assert_uint_eq(plan.faults[0].hits, 1);
	ck_assert_int_eq(store_failure(rig.store), 0);
	wipe_begin(&rig, 0, 0, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_eq(remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Where a block that somebody needs does not check, its segment cannot be emptied. */
START_TEST(a_damaged_neighbour_keeps_its_segment)
{
	uint8_t rot[512];
	struct rig rig;
	struct format_slot slot;

	begin(&rig, 22);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 60);
	rig_write(&rig, STORE_DATA, 0, 1, 0, 60);
	ck_assert(rig_drain(&rig));
	slot = index_find_slot(&rig.store->index,
			       index_find_chunk(&rig.store->index, rig_volume_id(0), 1), 7);
	memset(rot, 0x5a, sizeof rot);
	sim_disk_poke(rig.sim_disk, (uint64_t)slot.location * BLOCK_SIZE, rot, sizeof rot);
	ck_assert_int_eq(erase_chunk(&rig, 0, 0, true), -E_BAD_CRC);
	/* It is written again, as the host does when it is told. */
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 7, 1)), 0);
	wipe_begin(&rig, 0, 0, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_eq(remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

/* The store does not wait for it, and it does not say that it was done. */
START_TEST(a_store_that_closes_breaks_it_off)
{
	uint32_t broken_off = 0;

	for (uint64_t step = 0; step < 40; step++) {
		bool closed = false;
		struct rig rig;

		begin(&rig, 23);
		long_history(&rig, 300);
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
		wipe_begin(&rig, 0, 0, true);
		sim_run_for(rig.world, step * 500000);
		store_close(rig.store, set_flag, &closed);
		ck_assert(sim_run_flag(rig.world, &closed));
		ck_assert(wiping.done);
		ck_assert(wiping.status == 0 || wiping.status == -ECANCELED);
		broken_off += wiping.status != 0;
		rig.store = NULL;
		sim_process_crash(rig.process, SIM_KILL);
		ck_assert(wiping.status != 0 || remains(&rig, 0, 0) == 0);
		rig_must_open(&rig);
		rig_verify(&rig);
		ck_assert_int_eq(erase_chunk(&rig, 0, 0, true), 0);
		ck_assert_uint_eq(remains(&rig, 0, 0), 0);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(broken_off, 5);
}
END_TEST

/* -- crashes at every I/O --------------------------------------------------------------------- */

static void some_history(struct rig *rig)
{
	for (uint32_t i = 0; i < 6; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, (i * 41) % 200, 120);
		rig_write(rig, STORE_DATA, 1, i % 3, i * 9, 30);
		rig_resync(rig, 0, i % 3, 300, 20);
		rig_drain_to(rig, 2);
		if (i == 3)
			rig_checkpoint(rig);
	}
	ck_assert(rig_drain(rig));
}

/* True: it survived. *ret_erased: it was told that nothing is left. */
static bool erase_with_crash(struct rig *rig, uint64_t n, enum sim_io_action action,
			     enum sim_fate fate, bool *ret_erased)
{
	rig->process->fate = fate;
	sim_process_on_io(rig->process, n, action);
	*ret_erased = erase_chunk(rig, 0, 1, true) == 0;
	if (rig->process->alive)
		sim_process_on_io(rig->process, 1, SIM_IO_NORMAL);
	return rig->process->alive;
}

static bool crash_at(uint64_t n, enum sim_io_action action, enum sim_fate fate)
{
	struct rig rig;
	bool survived, erased;

	begin(&rig, n);
	some_history(&rig);
	survived = erase_with_crash(&rig, n, action, fate, &erased);
	rig_crash(&rig, action == SIM_IO_KILL ? SIM_KILL : SIM_POWER_LOSS);
	ck_assert(!erased || remains(&rig, 0, 1) == 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	ck_assert(!erased || remains(&rig, 0, 1) == 0);
	if (!erased)
		/* The driver asks again. */
		ck_assert_int_eq(erase_chunk(&rig, 0, 1, true), 0);
	ck_assert_uint_eq(remains(&rig, 0, 1), 0);
	rig_write(&rig, STORE_DATA, 0, 1, 3, 40);
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_POWER_LOSS);
	ck_assert_uint_eq(remains(&rig, 0, 1), 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	return survived;
}

static const enum sim_fate fates[] = {SIM_FATE_TEAR, SIM_FATE_DROP, SIM_FATE_KEEP, SIM_FATE_RANDOM,
				      SIM_FATE_RANDOM};

START_TEST(a_crash_at_any_io)
{
	uint64_t n = 1;

	rig_devices = _i < 5 ? 0 : 2;
	while (!crash_at(n, _i % 5 < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL, fates[_i % 5]))
		n++;
	ck_assert_uint_gt(n, 20);
	rig_devices = 0;
}
END_TEST

/* -- several devices -------------------------------------------------------------------------- */

START_TEST(on_every_device)
{
	struct rig rig;

	rig_devices = 2;
	begin(&rig, 31);
	long_history(&rig, 500);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	ck_assert_uint_gt(remains(&rig, 0, 1), 100);
	wipe_begin(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_wait(&rig), 0);
	ck_assert_uint_gt(wiping.op.segments, 0);
	ck_assert_uint_eq(remains(&rig, 0, 1), 0);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	rig_devices = 0;
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store_wipe");
	Suite *s = suite_create("store_wipe");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, nothing_of_it_is_left, 0, 6);
	tcase_add_test(tc, what_is_gone_is_not_wiped_again);
	tcase_add_test(tc, a_whole_volume);
	tcase_add_test(tc, segments_are_discarded);
	tcase_add_test(tc, a_full_device);
	tcase_add_test(tc, a_move_brings_nothing_back);
	tcase_add_loop_test(tc, an_error_is_told_and_tried_again, 0, 2);
	tcase_add_test(tc, a_damaged_neighbour_keeps_its_segment);
	tcase_add_test(tc, a_store_that_closes_breaks_it_off);
	tcase_add_loop_test(tc, a_crash_at_any_io, 0, 10);
	tcase_add_test(tc, on_every_device);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
