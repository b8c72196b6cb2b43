/* Erasures with a crash at every I/O: whoever was told that nothing is left finds nothing left, and
 * whoever asks again gets it done. */
#include "test_wipe_rig.h"

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
static bool erase_with_crash(struct rig *rig, uint32_t chunk, bool overwrite, uint64_t n,
			     enum sim_io_action action, enum sim_fate fate, bool *ret_erased)
{
	rig->process->fate = fate;
	sim_process_on_io(rig->process, n, action);
	*ret_erased = wipe_rig_erase(rig, 0, chunk, overwrite) == 0;
	if (rig->process->alive)
		sim_process_on_io(rig->process, 1, SIM_IO_NORMAL);
	return rig->process->alive;
}

static bool crash_at(uint64_t n, enum sim_io_action action, enum sim_fate fate)
{
	struct rig rig;
	bool survived, erased;

	wipe_rig_begin(&rig, n);
	some_history(&rig);
	survived = erase_with_crash(&rig, 1, true, n, action, fate, &erased);
	rig_crash(&rig, action == SIM_IO_KILL ? SIM_KILL : SIM_POWER_LOSS);
	ck_assert(!erased || wipe_rig_remains(&rig, 0, 1) == 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	ck_assert(!erased || wipe_rig_remains(&rig, 0, 1) == 0);
	if (!erased)
		/* The driver asks again. */
		ck_assert_int_eq(wipe_rig_erase(&rig, 0, 1, true), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_write(&rig, STORE_DATA, 0, 1, 3, 40);
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_POWER_LOSS);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	return survived;
}

static const enum sim_fate fates[] = {SIM_FATE_TEAR, SIM_FATE_DROP, SIM_FATE_KEEP, SIM_FATE_RANDOM,
				      SIM_FATE_RANDOM};

START_TEST(a_crash_at_any_io)
{
	uint64_t n = 1 + (uint64_t)_i % LOOP_STEP;

	rig_devices = _i < 5 ? 0 : 2;
	while (!crash_at(n, _i % 5 < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL, fates[_i % 5]))
		n += LOOP_STEP;
	ck_assert_uint_gt(n, 20);
	rig_devices = 0;
}
END_TEST

/* On devices that do what a discard asks, as long as they have power: what the next loss of it
 * brings back is known still, and whoever asks again gets it done, by overwriting too. */
static bool discard_with_crash_at(uint64_t n, enum sim_io_action action, enum sim_fate fate)
{
	struct rig rig;
	bool survived, erased;

	wipe_rig_begin(&rig, n);
	for (uint32_t i = 0; i < RIG_DISKS_MAX && rig.disks[i] != NULL; i++)
		sim_disk_obey_discards(rig.disks[i]);
	some_history(&rig);
	survived = erase_with_crash(&rig, 1, false, n, action, fate, &erased);
	ck_assert(!erased || !survived || wipe_rig_remains(&rig, 0, 1) == 0);
	if (survived)
		ck_assert(rig_checkpoint(&rig)); /* durable, as the discards are not */
	rig_crash(&rig, action == SIM_IO_KILL ? SIM_KILL : SIM_POWER_LOSS);
	ck_assert(!erased || action != SIM_IO_KILL || wipe_rig_remains(&rig, 0, 1) == 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	/* The driver asks again, whether it was told or not: the answer may not have reached it. */
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 1, false), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_write(&rig, STORE_DATA, 0, 1, 3, 40);
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	wipe_rig_wipe(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	return survived;
}

START_TEST(a_crash_at_any_io_of_discards)
{
	uint64_t n = 1 + (uint64_t)_i % LOOP_STEP;

	rig_devices = _i < 5 ? 0 : 2;
	while (
	    !discard_with_crash_at(n, _i % 5 < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL, fates[_i % 5]))
		n += LOOP_STEP;
	ck_assert_uint_gt(n, 20);
	rig_devices = 0;
}
END_TEST

/* True: it survived. */
static bool damage_with_crash_at(uint64_t n, enum sim_fate fate)
{
	struct rig rig;
	bool survived, erased;
	uint64_t seq;

	wipe_rig_begin(&rig, n);
	seq = wipe_rig_damaged_neighbour(&rig);
	survived = erase_with_crash(&rig, 0, true, n, SIM_IO_POWER_LOSS, fate, &erased);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	/* Nobody takes it for good, wherever it is. */
	ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 7), -E_BAD_CRC);
	ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 8), 0);
	if (!erased)
		ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 7), -E_BAD_CRC);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, seq, true)), 0);
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	return survived;
}

START_TEST(a_damaged_neighbour_and_a_crash_at_any_io)
{
	uint64_t n = 1 + (uint64_t)_i % LOOP_STEP;

	while (!damage_with_crash_at(n, fates[_i]))
		n += LOOP_STEP;
	ck_assert_uint_gt(n, 10);
}
END_TEST

int main(void)
{
	TCase *overwriting = tcase_create("overwriting");
	TCase *discarding = tcase_create("discarding");
	Suite *s = suite_create("store_wipe_crash");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(overwriting, 250);
	tcase_add_loop_test(overwriting, a_crash_at_any_io, 0, 10);
	tcase_add_loop_test(overwriting, a_damaged_neighbour_and_a_crash_at_any_io, 0, 5);
	suite_add_tcase(s, overwriting);
	tcase_set_timeout(discarding, 250);
	tcase_add_loop_test(discarding, a_crash_at_any_io_of_discards, 0, 10);
	suite_add_tcase(s, discarding);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
