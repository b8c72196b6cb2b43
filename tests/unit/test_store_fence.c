/* Versions and fences: what is older changes nothing, and what is fenced appears no more. */
#include <stdlib.h>
#include <string.h>

#include "engine/store/format.h"
#include "test_store_rig.h"

START_TEST(a_fence_keeps_older_generations_out)
{
	struct rig rig;

	rig_must_begin(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 5)), 0);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(0)), 5);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(1)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 5)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 4)), -E_FENCED);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 1, 2)), 0);
	rig.model.generation = 4;
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 1, 2)), -E_FENCED);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_ZERO, 0, 0, 1, 2)), -E_FENCED);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 0, 1, 2)), 0);
	/* Resync brings what older generations wrote. */
	ck_assert_int_eq(rig_wait(&rig, rig_resync(&rig, 0, 2, 1, 2)), 0);
	rig_verify(&rig);
	/* In force from the call on, though not durable yet. */
	rig_fence(&rig, 1, 7);
	rig.model.generation = 6;
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 0, 1, 2)), -E_FENCED);
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(0)), 5);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(1)), 7);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

struct raw_write {
	struct store_write op;
	uint32_t *in_flight;
};

static void raw_write_done(struct store_write *op, int status)
{
	struct raw_write *w = container_of(op, struct raw_write, op);

	ck_assert(status == 0 || status == -E_FENCED);
	(*w->in_flight)--;
}

/* A write that is cut in two has its second part behind a fence: once the fence is done nothing of
 * an older generation appears any more. */
START_TEST(a_fence_cuts_off_the_rest_of_a_write)
{
	static _Alignas(BLOCK_SIZE) uint8_t data[BLOCK_SIZE];
	static const uint8_t zeroes[BLOCK_SIZE];
	static struct raw_write zero[FORMAT_GROUP_ENTRIES_MAX - 1];
	const uint32_t last = IO_BLOCKS_MAX - 1;
	uint32_t crc, bad, in_flight = 0;
	version_t at_fence, afterwards;
	struct rig_op *cut, *fence;
	uint64_t writes;
	struct rig rig;

	rig_init(&rig, 1, 24);
	rig.config.groups_in_flight = 1;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	/* A segment has IO_BLOCKS_MAX blocks here, and a header takes one. */
	writes = sim_disk_stats(rig.sim_disk)->writes;
	cut = rig_write(&rig, STORE_DATA, 0, 0, 0, IO_BLOCKS_MAX);
	while (sim_disk_stats(rig.sim_disk)->writes == writes)
		ck_assert(sim_step(rig.world));
	for (uint32_t i = 0; i < ARRAY_SIZE(zero); i++, in_flight++) {
		zero[i] = (struct raw_write){
		    .in_flight = &in_flight,
		    .op = {.done = raw_write_done,
			   .kind = STORE_ZERO,
			   .volume = 9,
			   .block = i,
			   .block_count = 1,
			   .version = version_make(1, i + 1)},
		};
		store_write(rig.store, &zero[i].op);
	}
	fence = rig_fence(&rig, 0, 2);
	ck_assert_int_eq(rig_wait(&rig, fence), 0);
	ck_assert_int_eq(rig_read(&rig, 0, 0, last, 1, data, &crc, &at_fence, &bad), 0);
	rig_wait(&rig, cut);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(rig_read(&rig, 0, 0, last, 1, data, &crc, &afterwards, &bad), 0);
	ck_assert_uint_eq(at_fence, afterwards);
	ck_assert(at_fence != 0 || memcmp(data, zeroes, BLOCK_SIZE) == 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(old_versions_change_nothing)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	uint8_t expected[BLOCK_SIZE];
	version_t version;
	struct rig rig;
	uint32_t crc;

	rig_must_begin(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 3, 1)), 0); /* 3 */
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 1, false)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 1, true)), 0);
	ck_assert_int_eq(rig_read(&rig, 0, 0, 3, 1, data, &crc, &version, NULL), 0);
	ck_assert_uint_eq(version, version_make(1, 3));
	rig_content(3, 3, expected);
	ck_assert(memcmp(data, expected, BLOCK_SIZE) == 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("store_fence");
	TCase *tc = tcase_create("fence");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_fence_keeps_older_generations_out);
	tcase_add_test(tc, a_fence_cuts_off_the_rest_of_a_write);
	tcase_add_test(tc, old_versions_change_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
