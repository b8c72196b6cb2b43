/* Unit tests of the store on the simulated disk and kv: what it promises while nothing fails, and
 * what it refuses. Crashes: test_store_crash.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test_store_rig.h"

START_TEST(what_was_written_is_read)
{
	struct rig rig;

	rig_init(&rig, 1, 48);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 5, 1)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 0, 256)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_ZERO, 0, 1, 3, 20)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DISCARD, 0, 1, 40, 16)), 0);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Random work of every kind, now and then crashed, killed, closed, checkpointed. */
static void random_life(uint64_t seed, uint32_t disk_mib, uint32_t rounds, bool primes)
{
	struct rig rig;

	rig_init(&rig, seed, disk_mib);
	rig.primes = primes;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	for (uint32_t round = 0; round < rounds; round++) {
		uint64_t count = sim_random_below(rig.world, 200);
		uint64_t end = sim_random_below(rig.world, 4);

		rig_must_open(&rig);
		rig_verify(&rig);
		for (uint64_t i = 0; i < count; i++) {
			rig_random_op(&rig, true);
			if (sim_chance(rig.world, 1, 3))
				rig_drain_to(&rig, (uint32_t)sim_random_below(rig.world, 32));
			if (sim_chance(rig.world, 1, 60))
				store_want_checkpoint(rig.store);
		}
		if (end == 0) {
			ck_assert(rig_drain(&rig));
			rig_verify(&rig);
			rig_close(&rig);
		} else {
			rig_crash(&rig, end == 1 ? SIM_KILL : SIM_POWER_LOSS);
		}
	}
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}

START_TEST(random_work_matches_the_model)
{
	random_life((uint64_t)_i + 1, 64, 12, _i % 2 == 1);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store");
	Suite *s = suite_create("store");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 100);
	tcase_add_test(tc, what_was_written_is_read);
	tcase_add_loop_test(tc, random_work_matches_the_model, 0, 16);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
