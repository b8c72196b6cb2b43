/* Opening a pool of several devices: their stores side by side, and which error is told. */
#include <string.h>

#include "engine/store/format.h"
#include "test_store_rig.h"

#define DISK_MIB 32u

static void start(struct rig *rig, uint32_t devices, uint64_t seed)
{
	rig_devices = devices;
	rig_init(rig, seed, DISK_MIB);
	rig_must_open(rig);
}

static void fill(struct rig *rig)
{
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			rig_write(rig, STORE_DATA, volume, chunk, chunk * 7, 60);
	ck_assert(rig_drain(rig));
}

static uint64_t time_to_open(struct rig *rig, uint64_t slow0, uint64_t slow1)
{
	uint64_t begun_ns;

	rig_crash(rig, SIM_KILL);
	sim_disk_set_slowness(rig->disks[0], slow0);
	sim_disk_set_slowness(rig->disks[1], slow1);
	begun_ns = rig->world->now_ns;
	rig_must_open(rig);
	return rig->world->now_ns - begun_ns;
}

/* Two devices read their logs at the same time: when both are slow it takes as long as one of them,
 * and not as both one after the other. In virtual time, so it is the same in every run. */
START_TEST(logs_are_read_side_by_side)
{
	uint64_t first_ns, second_ns, both_ns;
	struct rig rig;

	start(&rig, 2, 70);
	rig_fence(&rig, 0, 1);
	fill(&rig);
	for (uint32_t i = 0; i < 200; i++)
		ck_assert_int_eq(
		    rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, i % RIG_CHUNKS, i, 1)), 0);
	first_ns = time_to_open(&rig, 100, 1);
	second_ns = time_to_open(&rig, 1, 100);
	both_ns = time_to_open(&rig, 100, 100);
	ck_assert_uint_lt(both_ns, (first_ns + second_ns) * 3 / 4);
	sim_disk_set_slowness(rig.disks[0], 1);
	sim_disk_set_slowness(rig.disks[1], 1);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Neither disk holds a store any more; the first one is slow. It is told of all the same, and what
 * was being opened is closed. */
START_TEST(the_first_disks_error_is_told)
{
	uint8_t noise[BLOCK_SIZE];
	struct rig rig;

	start(&rig, 3, 71);
	fill(&rig);
	rig_crash(&rig, SIM_KILL);
	memset(noise, 0x5a, sizeof noise);
	for (uint32_t i = 0; i < 2; i++)
		for (uint32_t copy = 0; copy < FORMAT_SUPER_COPIES; copy++)
			sim_disk_poke(rig.disks[i], format_super_offset(copy), noise, sizeof noise);
	sim_disk_set_slowness(rig.disks[0], 100);
	ck_assert_int_lt(rig_open(&rig), 0);
	ck_assert_ptr_nonnull(strstr(rig.err.text, rig_disk_path(0)));
	ck_assert_ptr_null(strstr(rig.err.text, rig_disk_path(1)));
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pool_open");
	Suite *s = suite_create("pool_open");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, logs_are_read_side_by_side);
	tcase_add_test(tc, the_first_disks_error_is_told);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
