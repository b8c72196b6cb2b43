/* Unit tests of blind pages (engine/store/blind.h): a write waits for the log alone, however long
 * kv takes to say what was there before; and nothing is lost of it, whatever comes in between. */
#include <errno.h>
#include <stdlib.h>

#include "engine/store/core.h"
#include "test_store_rig.h"

#define SLOW_NS (10 * NS_PER_S)

static void begin(struct rig *rig, uint64_t seed, uint32_t disk_mib, uint64_t cache_bytes)
{
	rig_init(rig, seed, disk_mib);
	rig->config.cache_bytes = cache_bytes;
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
}

/* Everything is written, and out of memory. */
static void begin_cold(struct rig *rig, uint64_t seed, uint32_t disk_mib, uint64_t cache_bytes)
{
	begin(rig, seed, disk_mib, cache_bytes);
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			for (block_no_t block = 0; block < RIG_BLOCKS; block += 32) {
				rig_write(rig, STORE_DATA, volume, chunk, block, 32);
				rig_drain_to(rig, 8);
			}
	ck_assert(rig_drain(rig));
	rig_close(rig);
	rig_must_open(rig);
	ck_assert_uint_eq(rig->store->index.loaded_count, 0);
}

static uint64_t timed_write(struct rig *rig, enum store_write_kind kind, block_no_t block,
			    uint32_t block_count)
{
	uint64_t begun_ns = rig->world->now_ns;

	ck_assert_int_eq(rig_wait(rig, rig_write(rig, kind, 1, 1, block, block_count)), 0);
	return rig->world->now_ns - begun_ns;
}

START_TEST(a_write_does_not_wait_for_kv)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX];
	uint64_t begun_ns;
	struct rig rig;

	begin_cold(&rig, 1, 48, 256 * KIB);
	sim_kv_slow_gets(rig.sim_kv, SLOW_NS);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, 70, 40), NS_PER_S);
	ck_assert_uint_lt(timed_write(&rig, STORE_ZERO, 100, 3), NS_PER_S);
	ck_assert_uint_lt(timed_write(&rig, STORE_DISCARD, 104, 1), NS_PER_S);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, 75, 1), NS_PER_S);
	ck_assert_uint_eq(rig.store->index.blind_count, 3);
	/* A read does, and sees them all. */
	begun_ns = rig.world->now_ns;
	ck_assert_int_eq(rig_read(&rig, 1, 1, 64, 64, data, crcs, NULL, NULL), 0);
	ck_assert_uint_gt(rig.world->now_ns - begun_ns, SLOW_NS / 2);
	ck_assert_uint_eq(rig.store->index.blind_count, 0);
	sim_kv_slow_gets(rig.sim_kv, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* Reads, writes, erases, checkpoints and crashes while kv takes longer than all of these. */
START_TEST(nothing_is_lost_of_what_was_written_blind)
{
	static const uint64_t delays_ns[] = {100000, NS_PER_MS, 20 * NS_PER_MS, NS_PER_S};
	uint64_t most = 0, behind = 0;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct rig rig;

		begin_cold(&rig, seed * 16 + (uint64_t)_i, 40,
			   seed % 2 == 0 ? RIG_TINY_CACHE : 64 * KIB);
		for (uint32_t life = 0; life < 8; life++) {
			sim_kv_slow_gets(rig.sim_kv, delays_ns[_i]);
			for (uint32_t i = 0; i < 60; i++) {
				rig_random_op(&rig, delays_ns[_i] < NS_PER_S);
				if (i % 16 == 15)
					store_want_checkpoint(rig.store);
				rig_drain_to(&rig, 24);
				most = MAX(most, rig.store->index.blind_count);
				behind = MAX(behind, rig.store->checkpoint.behind_bytes);
				sim_run_for(rig.world, sim_random_below(rig.world, NS_PER_MS));
			}
			sim_run_for(rig.world, sim_random_below(rig.world, 10 * NS_PER_MS));
			if (life % 4 == 3) {
				rig_drain(&rig);
				rig_close(&rig);
			} else {
				rig_crash(&rig, life % 2 == 0 ? SIM_POWER_LOSS : SIM_KILL);
			}
			sim_kv_slow_gets(rig.sim_kv, 0);
			rig_must_open(&rig);
			rig_verify(&rig);
		}
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(most, 0);
	ck_assert_uint_gt(behind, 0);
}
END_TEST

/* Segments with groups that will be replayed are not given out again, though nothing in them is
 * live any more, until kv has answered. */
START_TEST(what_will_be_replayed_stays)
{
	uint64_t groups;
	struct rig rig;

	begin(&rig, 3, 64, 256 * KIB);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 1, 0, 256)), 0);
	rig_close(&rig);
	rig_must_open(&rig);
	sim_kv_slow_gets(rig.sim_kv, 100 * NS_PER_S);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, 70, 2), NS_PER_S);
	groups = rig.store->stats.groups;
	/* Of pages that are new, and stay in memory. */
	for (uint32_t i = 0; i < 14; i++) {
		for (block_no_t block = 0; block < RIG_BLOCKS; block += 64) {
			rig_write(&rig, STORE_DATA, 0, 0, block, 64);
			rig_drain_to(&rig, 4);
		}
		ck_assert(rig_checkpoint(&rig));
	}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig.store->index.blind_count, 1);
	ck_assert_uint_gt(rig.store->segments.empty_count, 20);
	groups = rig.store->stats.groups - groups;
	ck_assert_uint_gt(groups, 50);
	rig_crash(&rig, SIM_POWER_LOSS);
	sim_kv_slow_gets(rig.sim_kv, 0);
	rig_must_open(&rig);
	ck_assert_uint_gt(rig.store->stats.recovered_groups, groups);
	rig_verify(&rig);
	ck_assert(rig_checkpoint(&rig));
	ck_assert_uint_lt(rig.store->segments.empty_count, 20);
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_erase_buries_what_was_written_blind)
{
	struct rig rig;

	begin_cold(&rig, 4, 48, 256 * KIB);
	sim_kv_slow_gets(rig.sim_kv, NS_PER_S);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, 0, 200), NS_PER_S);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 1, 1)), 0);
	/* What comes after it is of another copy. */
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 1, 90, 20)), 0);
	sim_kv_slow_gets(rig.sim_kv, 0);
	rig_verify(&rig);
	ck_assert_uint_eq(rig.store->segments.live_blocks,
			  (RIG_VOLUMES * RIG_CHUNKS - 1) * RIG_BLOCKS + 20);
	rig_deinit(&rig);
}
END_TEST

/* The index cannot be read for what was acknowledged: the device fails, and forgets nothing. */
START_TEST(an_index_that_cannot_be_read_ends_writing)
{
	struct rig rig;

	begin_cold(&rig, 5, 48, 256 * KIB);
	sim_kv_fail_gets(rig.sim_kv, 3);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, 0, 1), NS_PER_S);
	sim_run_for(rig.world, 5 * NS_PER_S);
	ck_assert_uint_eq(rig.store->index.blind_count, 0);
	rig_verify(&rig);

	rig_close(&rig);
	rig_must_open(&rig);
	sim_kv_fail_gets(rig.sim_kv, UINT64_MAX);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, 400, 1), NS_PER_S);
	ck_assert_int_eq(store_failure(rig.store), 0);
	sim_run_for(rig.world, 20 * NS_PER_S);
	ck_assert_int_eq(store_failure(rig.store), -EIO);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 1)), -EIO);
	rig_close(&rig);
	sim_kv_fail_gets(rig.sim_kv, 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Nearly full: whether an overwrite needs space only the page tells, so it waits for that. */
START_TEST(an_overwrite_needs_no_space)
{
	struct store_stats stats;
	struct rig rig;

	begin(&rig, 6, 20, 64 * KIB);
	for (uint32_t i = 0; i < RIG_VOLUMES * RIG_CHUNKS * RIG_BLOCKS / 32; i++) {
		store_get_stats(rig.store, &stats);
		if (stats.free_bytes < 32 * BLOCK_SIZE)
			break;
		rig_wait(&rig, rig_write(&rig, STORE_DATA, i % 2, i / 2 % 3, i / 6 * 32, 32));
	}
	ck_assert_uint_lt(stats.free_bytes, 32 * BLOCK_SIZE);
	for (uint32_t i = 0; i < 6; i++) {
		rig_close(&rig);
		rig_must_open(&rig);
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, i % 2, i / 2, 0, 32)),
				 0);
	}
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* As much as may be dirty is blind: who waits for that to become less goes on when kv has answered,
 * not when a checkpoint is due by itself. */
START_TEST(who_waits_for_blind_pages_goes_on)
{
	uint64_t begun_ns;
	uint32_t count = 0;
	struct rig rig;

	begin_cold(&rig, 7, 48, 128 * KIB);
	sim_run_for(rig.world, NS_PER_S);
	sim_kv_slow_gets(rig.sim_kv, NS_PER_S);
	begun_ns = rig.world->now_ns;
	for (; count < RIG_VOLUMES * RIG_CHUNKS * RIG_BLOCKS / PAGE_BLOCKS; count++) {
		uint32_t page = count % (RIG_BLOCKS / PAGE_BLOCKS);
		uint32_t chunk = count / (RIG_BLOCKS / PAGE_BLOCKS);

		if (rig.store->index.blind_count == rig.store->index.dirty_max)
			break;
		ck_assert_int_eq(
		    rig_wait(&rig, rig_write(&rig, STORE_DATA, chunk % RIG_VOLUMES,
					     chunk / RIG_VOLUMES, page * PAGE_BLOCKS, 1)),
		    0);
	}
	ck_assert_uint_eq(rig.store->index.blind_count, rig.store->index.dirty_max);
	ck_assert_uint_lt(rig.world->now_ns - begun_ns, NS_PER_S / 2);
	ck_assert_uint_lt(timed_write(&rig, STORE_DATA, RIG_BLOCKS - 1, 1), 5 * NS_PER_S);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store_blind");
	Suite *s = suite_create("store_blind");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 100);
	tcase_add_test(tc, a_write_does_not_wait_for_kv);
	tcase_add_loop_test(tc, nothing_is_lost_of_what_was_written_blind, 0, 4);
	tcase_add_test(tc, what_will_be_replayed_stays);
	tcase_add_test(tc, an_erase_buries_what_was_written_blind);
	tcase_add_test(tc, an_index_that_cannot_be_read_ends_writing);
	tcase_add_test(tc, an_overwrite_needs_no_space);
	tcase_add_test(tc, who_waits_for_blind_pages_goes_on);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
