/* The store without memory: every allocation of its own fails once, in its own run. Nothing ends
 * the process, nothing leaks, what cannot be done says so, what was acknowledged is there, and
 * afterwards everything works. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store_alloc_rig.h"
#include "store_rebuild_rig.h"

#define DISK_MIB 24u

static void some_data(struct rig *rig)
{
	for (uint32_t i = 0; i < 40; i++) {
		rig_write(rig, i % 9 == 8 ? STORE_ZERO : STORE_DATA, i % 2, i % 3, i * 12,
			  1 + i % 40);
		rig_drain_to(rig, 4);
	}
	ck_assert(rig_drain(rig));
	ck_assert_int_eq(rig_wait(rig, rig_erase(rig, 0, 2)), 0);
	ck_assert_int_eq(rig_wait(rig, rig_fence(rig, 1, 3)), 0);
}

START_TEST(opening)
{
	const uint64_t before = alloc_live();
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	if (_i == 1)
		rig_checkpoint(&rig); /* so that there is an index to be loaded */
	some_data(&rig);
	rig_crash(&rig, SIM_KILL);
	opens_at_last(&rig, before, 20);
}
END_TEST

START_TEST(formatting)
{
	const uint64_t before = alloc_live();
	uint64_t n = 1;

	for (bool failed = true; failed; n++) {
		struct rig rig;
		int rc;

		rig_init(&rig, 1, DISK_MIB);
		alloc_fail_at(n);
		rc = rig_format(&rig, false);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert_int_eq(rc, failed ? -ENOMEM : 0);
		ck_assert_uint_eq(alloc_live(), before);
		ck_assert_int_eq(rig_format(&rig, true), 0);
		rig_must_open(&rig);
		rig_close(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(n, 2);
}
END_TEST

/* A write fails only when an allocation has, and can be done again. Returns whether it did. */
static bool write_fails(struct rig *rig, enum store_write_kind kind, uint32_t i, uint32_t count)
{
	const block_no_t block = (i * 31) % 140;
	const int rc = rig_wait(rig, rig_write(rig, kind, i % 2, i % 3, block, count));

	ck_assert_msg(rc == 0 || (rc == -ENOSPC && alloc_failed()), "%d", rc);
	if (rc != 0)
		ck_assert_int_eq(
		    rig_wait(rig, rig_write(rig, STORE_DATA, i % 2, i % 3, block, count)), 0);
	return rc != 0;
}

/* Writes of all kinds, reads, a checkpoint, cleaning: an operation fails, or does not; if it does,
 * with -ENOSPC as the index has no room, and it can be done again. */
START_TEST(working)
{
	const uint64_t before = alloc_live();
	uint64_t n = 1, refused = 0;

	for (bool failed = true; failed; n++) {
		struct store_stats stats;
		struct rig rig;

		rig_init(&rig, 1, DISK_MIB);
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		alloc_fail_at(n);
		for (uint32_t i = 0; i < 60; i++) {
			refused += write_fails(&rig, i % 7 == 6 ? STORE_DISCARD : STORE_DATA, i,
					       1 + (i * 5) % 60);
			if (i % 20 == 7)
				rig_checkpoint(&rig);
			if (i % 20 == 13) {
				const int rc = rig_wait(&rig, rig_fence(&rig, i % 2, i));

				ck_assert(rc == 0 || rc == -ENOMEM);
				rig.model.generation = i;
			}
			if (i % 20 == 17)
				ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, i % 3)), 0);
		}
		/* The device three times over, here and there. */
		for (uint32_t i = 0; i < 300; i++)
			refused += write_fails(&rig, STORE_DATA, i, 1 + (i * 37) % 120);
		/* Many chunks, for the tables to grow. */
		for (uint32_t i = 0; i < 60; i++)
			rig_discard_far(&rig, 100 + i * 50, 5, 2);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert(rig_drain(&rig));
		store_get_stats(rig.store, &stats);
		ck_assert_uint_gt(stats.cleaned_segments, 0);
		rig_verify(&rig);
		rig_crash(&rig, SIM_POWER_LOSS);
		ck_assert_uint_eq(alloc_live(), before);
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_close(&rig);
		ck_assert_uint_eq(alloc_live(), before);
		rig_deinit(&rig);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, 3);
	ck_assert_uint_gt(refused, 0);
}
END_TEST

static int rebuild(struct rig *rig)
{
	const struct survey_device device = rig_survey_device(rig, DISK_MIB);
	struct survey_super super;
	struct rebuild *r = NULL;
	struct error err;
	int rc = survey_read_super(&device, &super, &err);

	if (rc == 0) {
		r = rebuild_create(&device, &super.copies[super.best]);
		rc = r != NULL ? rebuild_run(r, &err) : -ENOMEM;
	}
	if (rc == 0)
		rc = rebuild_write(r, rig->config.kv, 0, rig_commit, rig, &err);
	rebuild_destroy(r);
	return rc;
}

/* The index is made anew from the segments: what could not be is tried again, over what the first
 * try has left. */
START_TEST(rebuilding)
{
	const uint64_t before = alloc_live();
	uint64_t n = 1, refused = 0;
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	rig_crash(&rig, SIM_KILL);
	rig.sim_kv = sim_kv_create(rig.process, "n1.new", STORE_KV_FAMILIES);
	rig_boot(&rig);
	for (bool failed = true; failed; n++) {
		int rc;

		alloc_fail_at(n);
		rc = rebuild(&rig);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert_msg(rc == 0 || (rc == -ENOMEM && failed), "%d", rc);
		refused += rc != 0;
		ck_assert_uint_eq(alloc_live(), before);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(refused, 20);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_close(&rig);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("alloc");
	Suite *s = suite_create("store_alloc");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, opening, 0, 2);
	tcase_add_test(tc, formatting);
	tcase_add_test(tc, working);
	tcase_add_test(tc, rebuilding);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
