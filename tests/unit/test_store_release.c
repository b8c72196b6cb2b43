/* Unit tests of releases (store/checkpoint.h, invariant 4): segments that have become empty are
 * used again between two checkpoints, while the index in kv still seeks blocks there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/store/core.h"
#include "test_store_rig.h"

#define FAR (512 * MIB) /* no checkpoint is due for its log */

static struct store_stats stats_of(const struct rig *rig)
{
	struct store_stats stats;

	store_get_stats(rig->store, &stats);
	return stats;
}

static void begin(struct rig *rig, uint64_t seed, uint32_t disk_mib)
{
	rig_init(rig, seed, disk_mib);
	rig->config.checkpoint_bytes = FAR;
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
	ck_assert(rig_checkpoint(rig));
}

/* Everything, 12 MiB of it, so many times. */
static void overwrite(struct rig *rig, uint32_t times)
{
	uint32_t pieces = RIG_VOLUMES * RIG_CHUNKS * (RIG_BLOCKS / 16);

	for (uint32_t i = 0; i < times * pieces; i++) {
		rig_write(rig, STORE_DATA, i % RIG_VOLUMES, i / RIG_VOLUMES % RIG_CHUNKS,
			  i / (RIG_VOLUMES * RIG_CHUNKS) * 16 % RIG_BLOCKS, 16);
		ck_assert(rig_drain_to(rig, 8));
	}
	ck_assert(rig_drain(rig));
}

/* In segments that a checkpoint covers. */
static void fill(struct rig *rig)
{
	overwrite(rig, 2);
	ck_assert(rig_checkpoint(rig));
}

static void work(struct rig *rig, uint32_t count, bool with_erase)
{
	for (uint32_t i = 0; i < count; i++) {
		rig_random_op(rig, with_erase);
		ck_assert(rig_drain_to(rig, 12));
	}
}

/* Crashed in the midst of it, again and again, with what was in flight: nothing is lost, and what
 * is counted is right. */
START_TEST(what_was_released_is_sought_elsewhere)
{
	bool with_erase = _i % 2 == 1;
	uint64_t releases = 0;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct rig rig;

		begin(&rig, seed + (uint64_t)_i * 100, 28);
		fill(&rig);
		for (uint32_t round = 0; round < 4; round++) {
			struct store_stats before = stats_of(&rig), after;

			work(&rig, 200 + 150 * round, with_erase);
			after = stats_of(&rig);
			releases += after.releases - before.releases;
			rig_crash(&rig, round % 2 == 0 ? SIM_POWER_LOSS : SIM_KILL);
			rig_must_open(&rig);
			rig_verify(&rig);
			/* At once, before what was erased is buried again. */
			if (round == 1)
				ck_assert(rig_checkpoint(&rig));
			if (round == 2)
				rig_crash(&rig, SIM_POWER_LOSS);
			if (round == 2)
				rig_must_open(&rig);
		}
		ck_assert(rig_drain(&rig));
		sim_run_for(rig.world, 100 * NS_PER_S);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(releases, 24);
}
END_TEST

/* Room comes from releases, as long as no checkpoint is due. */
START_TEST(room_does_not_need_a_checkpoint)
{
	struct store_stats before, after;
	struct rig rig;

	begin(&rig, 1, 40);
	fill(&rig);
	before = stats_of(&rig);
	overwrite(&rig, 2);
	ck_assert(rig_drain(&rig));
	after = stats_of(&rig);
	ck_assert_uint_eq(after.checkpoints, before.checkpoints);
	ck_assert_uint_gt(after.releases, before.releases);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Segments that were cleaned one by one, when few are left, wait for no checkpoint: there are as
 * many as the length of the log asks for. */
START_TEST(room_comes_in_small_pieces)
{
	struct store_stats before, after;
	struct rig rig;
	uint64_t log;

	rig_init(&rig, 1, 24);
	rig.config.checkpoint_bytes = 6 * MIB;
	rig.config.cache_bytes = 16 * MIB; /* none for what is dirty */
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	fill(&rig);
	before = stats_of(&rig);
	log = rig.store->checkpoint.log_total;
	for (uint32_t i = 0; i < 20000; i++) {
		rig_write(&rig, STORE_DATA, i % RIG_VOLUMES, i * 7u % RIG_CHUNKS,
			  i * 2654435761u % RIG_BLOCKS, 1);
		ck_assert(rig_drain_to(&rig, 8));
	}
	ck_assert(rig_drain(&rig));
	after = stats_of(&rig);
	log = rig.store->checkpoint.log_total - log;
	ck_assert_uint_gt(after.cleaned_segments, before.cleaned_segments + 20);
	ck_assert_uint_gt(after.releases, before.releases + 5);
	ck_assert_uint_le(after.checkpoints - before.checkpoints, log / (5 * MIB));
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A release that cannot be committed ends all writing, and loses nothing. */
START_TEST(a_failed_release_ends_all_writing)
{
	bool failed = false;
	struct rig rig;

	begin(&rig, 1, 28);
	fill(&rig);
	sim_kv_on_commit(rig.sim_kv, 1, SIM_IO_FAIL);
	for (uint32_t i = 0; i < 4000 && !failed; i++) {
		struct rig_op *op =
		    rig_write(&rig, STORE_DATA, i % 2, i % 3, i * 16 % RIG_BLOCKS, 16);

		failed = rig_wait(&rig, op) == -EIO;
	}
	ck_assert(failed);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- a crash at every I/O --------------------------------------------------------------------- */

static void covered(struct rig *rig)
{
	for (uint32_t i = 0; i < 3; i++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
			rig_write(rig, STORE_DATA, 0, chunk, 0, 250);
			rig_drain(rig);
		}
	rig_checkpoint(rig);
}

/* The old segments become empty, are released, and are written to anew. */
static void releasing(struct rig *rig)
{
	for (uint32_t i = 0; i < 3; i++) {
		if (i == 1)
			rig_erase(rig, 0, 1);
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			rig_write(rig, STORE_DATA, 0, chunk, i * 5, 245);
		rig_drain(rig);
	}
}

START_TEST(a_crash_at_any_io_loses_nothing)
{
	rig_crash_everywhere(covered, releasing, 16);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store_release");
	Suite *s = suite_create("store_release");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 200);
	tcase_add_loop_test(tc, what_was_released_is_sought_elsewhere, 0, 4);
	tcase_add_test(tc, room_does_not_need_a_checkpoint);
	tcase_add_test(tc, room_comes_in_small_pieces);
	tcase_add_test(tc, a_failed_release_ends_all_writing);
	tcase_add_test(tc, a_crash_at_any_io_loses_nothing);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
