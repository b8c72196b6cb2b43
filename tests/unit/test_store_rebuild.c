/* The index made anew from the segments alone: the store opens on it, and has everything that was
 * acknowledged, wherever it was killed, and whatever the cleaner has done before. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/store/core.h"
#include "store_rebuild_rig.h"

/* The process is down. Its index is gone, and made anew; it is still down. */
static struct rebuild_stats rebuild(struct rig *rig, uint32_t disk_mib)
{
	const struct survey_device device = rig_survey_device(rig, disk_mib);
	struct rebuild_stats stats;
	struct survey_super super;
	struct rebuild *r;
	struct error err;

	ck_assert(!rig->process->alive);
	rig->sim_kv = sim_kv_create(rig->process, "n1.new", STORE_KV_FAMILIES);
	rig_boot(rig);
	ck_assert_int_eq(survey_read_super(&device, &super, &err), 0);
	r = rebuild_create(&device, &super.copies[super.best]);
	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(rebuild_run(r, &err), 0);
	/* Without memory nothing is left out, and it can be done again. */
	sim_kv_fail_batches(rig->sim_kv, 1);
	ck_assert_int_eq(rebuild_write(r, rig->config.kv, 0, rig_commit, rig, &err), -ENOMEM);
	ck_assert_int_eq(rebuild_write(r, rig->config.kv, 0, rig_commit, rig, &err), 0);
	rebuild_get_stats(r, &stats);
	rebuild_destroy(r);
	sim_process_crash(rig->process, SIM_KILL);
	for (uint32_t volume = 0; volume < RIG_VOLUMES && !stats.complete; volume++) {
		/* Fences are as high as any version. */
		rig->model.fence_tried[volume] =
		    MAX(rig->model.fence_tried[volume], rig->model.generation);
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			rig->model.chunks[volume][chunk].watermark_acked = 0;
	}
	return stats;
}

/* What a store is for: it goes on, cleans, crashes, opens. */
static void goes_on(struct rig *rig)
{
	for (uint32_t i = 0; i < 120; i++) {
		rig_write(rig, STORE_DATA, i % 2, i % 3, (i * 41) % 400, 1 + (i * 7) % 60);
		rig_drain_to(rig, 4);
	}
	ck_assert(rig_drain(rig));
	rig_verify(rig);
	rig_crash(rig, SIM_POWER_LOSS);
	rig_must_open(rig);
	rig_verify(rig);
	rig_close(rig);
	rig_must_open(rig);
	rig_verify(rig);
}

START_TEST(of_a_complete_log_everything_is_exact)
{
	struct rebuild_stats stats;
	struct rig rig;

	rig_init(&rig, (uint64_t)_i + 1, 64);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	/* Without a checkpoint no segment is used again. */
	for (uint32_t i = 0; i < 80; i++) {
		rig_random_op(&rig, true);
		rig_drain_to(&rig, 8);
	}
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_KILL);
	stats = rebuild(&rig, 64);
	ck_assert(stats.complete);
	ck_assert_uint_gt(stats.blocks, 0);
	ck_assert_uint_eq(stats.bad_blocks, 0);
	ck_assert_uint_eq(stats.lost_blocks, 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	goes_on(&rig);
	rig_deinit(&rig);
}
END_TEST

/* The cleaner has moved most of it, and segments were used again and again. */
START_TEST(of_an_aged_device_every_write_is_there)
{
	struct rebuild_stats stats;
	struct store_stats store;
	struct rig rig;

	rig_init(&rig, (uint64_t)_i + 1, 18);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (uint32_t i = 0; i < 900; i++) {
		uint32_t count = 1 + (uint32_t)sim_random_below(rig.world, 24);
		block_no_t block = (block_no_t)sim_random_below(rig.world, RIG_BLOCKS - count);

		rig_write(&rig, STORE_DATA, i % 2, i % 3, block, count);
		if (i % 50 == 7)
			rig_resync(&rig, i % 2, i % 3, block / 2, count);
		rig_drain_to(&rig, 4);
	}
	ck_assert(rig_drain(&rig));
	store_get_stats(rig.store, &store);
	ck_assert_uint_gt(store.cleaned_segments, 3);
	rig_crash(&rig, _i % 2 == 0 ? SIM_KILL : SIM_POWER_LOSS);
	stats = rebuild(&rig, 18);
	ck_assert(!stats.complete);
	ck_assert_uint_eq(stats.blocks * BLOCK_SIZE, store.live_bytes);
	rig_must_open(&rig);
	rig_verify(&rig);
	goes_on(&rig);
	/* And once more, of what went on from there. */
	rig_crash(&rig, SIM_KILL);
	rebuild(&rig, 18);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A replica that may have lost something claims nothing. */
START_TEST(of_an_incomplete_log_watermarks_are_zero)
{
	struct store_chunk_state states[RIG_CHUNKS];
	struct rebuild_stats stats;
	uint8_t header[BLOCK_SIZE];
	uint64_t at;
	struct rig rig;

	rig_init(&rig, 1, 24);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 20)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 0, 20)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_ZERO, 0, 0, 3, 2)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_watermark(&rig, 0, 0, version_make(1, 3))), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 30, 2)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 9)), 0);
	rig_crash(&rig, SIM_KILL);
	/* The header of the second group: what it covered is lost, and said to be. */
	at = FORMAT_SEGMENTS_OFFSET + 21 * BLOCK_SIZE;
	sim_disk_peek(rig.sim_disk, at, header, sizeof header);
	header[100] ^= 1;
	sim_disk_poke(rig.sim_disk, at, header, sizeof header);
	stats = rebuild(&rig, 24);
	ck_assert(!stats.complete);
	ck_assert_uint_eq(stats.lost_blocks, 21);
	ck_assert_uint_eq(stats.blocks, 18 + 2);
	ck_assert_uint_eq(stats.zero_blocks, 2);
	rig_must_open(&rig);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(0)), 9);
	ck_assert_uint_eq(store_chunks(rig.store, rig_volume_id(0), 0, states, RIG_CHUNKS), 2);
	for (uint32_t i = 0; i < 2; i++)
		ck_assert_uint_eq(states[i].watermark, 0);
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_erased_copy_stays_erased)
{
	struct rig rig;

	rig_init(&rig, 1, 24);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (uint32_t i = 0; i < 30; i++) {
		rig_write(&rig, STORE_DATA, i % 2, i % 3, i * 10, 20);
		rig_drain_to(&rig, 4);
	}
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 1, 0)), 0);
	/* Taken in again, with what is older than what was erased. */
	ck_assert_int_eq(rig_wait(&rig, rig_resync(&rig, 0, 1, 200, 7)), 0);
	rig_crash(&rig, SIM_KILL);
	ck_assert(rebuild(&rig, 24).complete);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_bad_block_is_known_to_be_bad)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX], bad;
	struct rebuild_stats stats;
	struct rig rig;

	rig_init(&rig, 1, 24);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, i * 10, 20)), 0);
	rig_crash(&rig, SIM_KILL);
	rig_rot(&rig, rig_find_block(&rig, 3, 25) + 8);
	stats = rebuild(&rig, 24);
	ck_assert_uint_eq(stats.bad_blocks, 1);
	ck_assert_uint_eq(stats.torn_groups, 0);
	rig_must_open(&rig);
	/* Not the older content, which lies on the device too. */
	ck_assert_int_eq(rig_read(&rig, 0, 1, 20, 10, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert_uint_eq(bad, 5);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 3, true)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* The last group of a stream, which only the other stream tells to have been durable. */
START_TEST(a_bad_block_of_the_other_stream_is_no_torn_group)
{
	struct rebuild_stats stats;
	struct rig rig;

	rig_must_begin(&rig);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(rig_wait(&rig, i == _i ? rig_resync(&rig, 0, 2, 40, 3)
							: rig_write(&rig, STORE_DATA, 0, 2, 50, 1)),
				 0);
	rig_crash(&rig, SIM_KILL);
	rig_rot(&rig, _i == 0 ? rig_find_block(&rig, 3, 41) : rig_find_block(&rig, 3, 50));
	stats = rebuild(&rig, 24);
	ck_assert_uint_eq(stats.bad_blocks, 1);
	ck_assert_uint_eq(stats.torn_groups, 0);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 3, true)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static void churn(struct rig *rig)
{
	for (uint32_t i = 0; i < 14 && rig->process->alive; i++) {
		rig_write(rig, STORE_DATA, i % 2, i % 3, (i * 7) % 48, 1 + (i * 5) % 60);
		if (i % 3 == 1)
			rig_write(rig, STORE_ZERO, i % 2, i % 3, i, 5);
		if (i % 5 == 2)
			rig_resync(rig, i % 2, i % 3, i * 9, 12);
		if (i == 7)
			store_want_checkpoint(rig->store);
		rig_drain_to(rig, 3);
	}
	rig_drain(rig);
}

/* Wherever it was killed, and whatever became of what was in flight. */
START_TEST(after_a_crash_at_any_io)
{
	static const enum sim_fate fates[] = {SIM_FATE_TEAR, SIM_FATE_DROP, SIM_FATE_KEEP,
					      SIM_FATE_RANDOM};
	enum sim_io_action action = _i < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL;
	bool survived = false;

	for (uint64_t n = 1; !survived; n++) {
		struct rig rig;

		rig_init(&rig, n, 18);
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		churn(&rig);
		rig.process->fate = fates[_i % 4];
		sim_process_on_io(rig.process, n, action);
		churn(&rig);
		survived = rig.process->alive;
		rig_crash(&rig, action == SIM_IO_KILL ? SIM_KILL : SIM_POWER_LOSS);
		rebuild(&rig, 18);
		rig_must_open(&rig);
		rig_verify(&rig);
		churn(&rig);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_deinit(&rig);
		ck_assert_uint_lt(n, 2000);
	}
}
END_TEST

static void wipe_done(struct store_wipe_op *op, int status)
{
	bool *done = op->hook.hook[0];

	ck_assert_int_eq(status, 0);
	*done = true;
}

/* A group with a block that was moved although it did not check (FORMAT_FLAG_BAD) is not torn. */
START_TEST(what_moved_damaged_keeps_its_group)
{
	static uint8_t data[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
	static struct store_wipe_key key;
	static struct store_wipe_op wipe;
	static bool done;
	struct rebuild_stats stats;
	struct format_slot slot;
	uint32_t crc, bad;
	uint64_t seq;
	struct rig rig;

	rig_init(&rig, 5, 20);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 60);
	seq = rig_write(&rig, STORE_DATA, 0, 1, 0, 60)->seq;
	ck_assert(rig_drain(&rig));
	ck_assert(rig_checkpoint(&rig));
	slot = index_find_slot(&rig.store->index,
			       index_find_chunk(&rig.store->index, rig_volume_id(0), 1), 7);
	memset(data, 0x5a, sizeof data);
	sim_disk_poke(rig.sim_disk, (uint64_t)slot.location * BLOCK_SIZE, data, 100);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	done = false;
	key = (struct store_wipe_key){rig_volume_id(0), 0};
	wipe = (struct store_wipe_op){.done = wipe_done,
				      .keys = &key,
				      .key_count = 1,
				      .overwrite = true,
				      .hook.hook[0] = &done};
	store_wipe(rig.store, &wipe);
	ck_assert(sim_run_flag(rig.world, &done));
	rig_crash(&rig, SIM_KILL);
	stats = rebuild(&rig, 20);
	ck_assert_uint_eq(stats.torn_groups, 0);
	ck_assert_uint_eq(stats.bad_blocks, 1);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_read(&rig, 0, 1, 7, 1, data, &crc, NULL, &bad), -E_BAD_CRC);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, seq, true)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("rebuild");
	Suite *s = suite_create("store_rebuild");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, of_a_complete_log_everything_is_exact, 0, 10);
	tcase_add_loop_test(tc, of_an_aged_device_every_write_is_there, 0, 6);
	tcase_add_test(tc, of_an_incomplete_log_watermarks_are_zero);
	tcase_add_test(tc, an_erased_copy_stays_erased);
	tcase_add_test(tc, a_bad_block_is_known_to_be_bad);
	tcase_add_loop_test(tc, a_bad_block_of_the_other_stream_is_no_torn_group, 0, 2);
	tcase_add_loop_test(tc, after_a_crash_at_any_io, 0, 5);
	tcase_add_test(tc, what_moved_damaged_keeps_its_group);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
