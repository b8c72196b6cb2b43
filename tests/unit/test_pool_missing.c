/* The pool while devices are missing: what may lie on one is neither denied, nor begun anew, nor
 * confirmed as erased. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pool/records.h"
#include "test_store_rig.h"

struct erasing {
	union {
		struct store_erase_op erase;
		struct store_wipe_op wipe;
	};
	bool done;
	int status;
};

static void erased(struct store_erase_op *op, int status)
{
	struct erasing *e = container_of(op, struct erasing, erase);

	e->status = status;
	e->done = true;
}

static void wiped(struct store_wipe_op *op, int status)
{
	struct erasing *e = container_of(op, struct erasing, wipe);

	e->status = status;
	e->done = true;
}

static int erase_now(struct rig *rig, uint32_t volume, chunk_no_t chunk)
{
	struct erasing e = {
	    .erase = {.done = erased, .volume = rig_volume_id(volume), .chunk = chunk}};

	pool_erase(rig->pool, &e.erase);
	ck_assert(sim_run_flag(rig->world, &e.done));
	return e.status;
}

static int wipe_now(struct rig *rig, uint32_t volume)
{
	const struct store_wipe_key key = {rig_volume_id(volume), UINT32_MAX};
	struct erasing e = {.wipe = {.done = wiped, .keys = &key, .key_count = 1}};

	pool_wipe(rig->pool, &e.wipe);
	ck_assert(sim_run_flag(rig->world, &e.done));
	return e.status;
}

/* Be it of a layer, which has no fence of its own: nobody says that it is gone. */
START_TEST(what_a_missing_device_holds_is_not_erased)
{
	static const uint32_t BAD = 1;
	uint32_t refused = 0;
	struct rig rig;

	rig_start_pool(&rig, 2, 10);
	rig_fence(&rig, 0, 1);
	rig_fill(&rig);
	rig_close(&rig);
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	ck_assert_int_eq(pool_absent(rig.pool), -E_DEVICE);
	ck_assert_int_eq(erase_now(&rig, 1, UINT32_MAX), -E_DEVICE);
	ck_assert_int_eq(wipe_now(&rig, 1), -E_DEVICE);
	rig_crash(&rig, SIM_KILL);
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	for (chunk_no_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		refused += erase_now(&rig, 0, chunk) == -E_DEVICE;
	ck_assert(refused > 0 && refused < RIG_CHUNKS);
	/* When it is back, that goes too. */
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		ck_assert_int_eq(erase_now(&rig, volume, UINT32_MAX), 0);
	rig_deinit(&rig);
}
END_TEST

/* A chunk of a layer lies on a device that is missing: the others cannot erase it. */
START_TEST(a_chunk_on_a_missing_device_is_not_erased)
{
	static const uint32_t BAD = 1;
	uint32_t refused = 0;
	struct rig rig;

	rig_start_pool(&rig, 2, 11);
	rig_fill(&rig);
	rig_close(&rig);
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	for (chunk_no_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		refused += erase_now(&rig, 1, chunk) == -E_DEVICE;
	ck_assert(refused > 0 && refused < RIG_CHUNKS);
	rig_deinit(&rig);
}
END_TEST

/* Of a chunk of a layer the index knows nothing yet, and its device is missing: it is not begun
 * anew on another, so that there is one when that is back. */
START_TEST(a_layers_chunk_on_a_missing_device_is_not_begun_anew)
{
	static const uint32_t BAD = 1;
	uint32_t refused = 0;
	struct rig rig;

	rig_start_pool(&rig, 2, 12);
	rig_fence(&rig, 0, 1);
	ck_assert(rig_drain(&rig));
	for (chunk_no_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, chunk, 0, 1)), 0);
	rig_crash(&rig, SIM_KILL);
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	ck_assert_uint_eq(rig_device(&rig, BAD).chunks, 0);
	for (chunk_no_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		refused += rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, chunk, 1, 1)) == -E_DEVICE;
	ck_assert(refused > 0 && refused < RIG_CHUNKS);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_SERVING);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A volume is opened first while one device is missing, and written on the other; then they change
 * places. The one that is there now knows nothing of the volume, and its host, which has it
 * attached still, opens it again: nobody says that nothing of it is here, and nothing is begun
 * anew, so that each chunk is there once when both are back. */
START_TEST(devices_that_are_missing_by_turns_are_missed)
{
	struct rig_op *op;
	struct rig rig;

	rig_start_pool(&rig, 2, 13);
	rig_crash(&rig, SIM_KILL);
	sim_disk_on_io(rig.disks[0], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	rig_fence(&rig, 0, 1);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 8);
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_KILL);
	sim_disk_on_io(rig.disks[1], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, 0).state, POOL_DEVICE_SERVING);
	ck_assert_int_eq(rig_device(&rig, 1).state, POOL_DEVICE_FAILED);
	ck_assert_int_eq(pool_absent(rig.pool), -E_DEVICE);
	rig_fence(&rig, 0, 1);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(pool_absent(rig.pool), -E_DEVICE);
	ck_assert_int_eq(erase_now(&rig, 0, UINT32_MAX), -E_DEVICE);
	op = rig_write(&rig, STORE_DATA, 0, 0, 4, 8);
	ck_assert_int_eq(rig_wait(&rig, op), -E_DEVICE);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A layer that another volume brought here lies on a device that is missing; then the volume that
 * wrote it, and has its number, is opened here for the first time. */
START_TEST(a_layer_is_missed_though_its_volume_is_opened_first_now)
{
	static const uint32_t BAD = 1;
	uint32_t refused = 0;
	struct rig rig;

	rig_start_pool(&rig, 2, 14);
	rig_fence(&rig, 0, 1);
	ck_assert(rig_drain(&rig));
	for (chunk_no_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, chunk, 0, 1)), 0);
	rig_crash(&rig, SIM_KILL);
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	rig_fence(&rig, 1, 1);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(pool_absent(rig.pool), -E_DEVICE);
	for (chunk_no_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		refused += rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, chunk, 1, 1)) == -E_DEVICE;
	ck_assert(refused > 0 && refused < RIG_CHUNKS);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A chunk has moved off a device that is missing since, before its copy there was erased: who
 * erases the chunk is not told that all of it is gone. */
START_TEST(a_copy_that_was_left_on_a_missing_device_is_not_erased)
{
	struct move_record move = {.chunk = 0, .state = MOVE_MOVED};
	struct kv_batch *batch;
	struct rig rig;
	uint32_t from;

	rig_start_pool(&rig, 2, 15);
	rig_fence(&rig, 0, 1);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 8);
	ck_assert(rig_drain(&rig));
	from = rig_device(&rig, 0).chunks == 0 ? 0 : 1;
	move.volume = rig_volume_id(0);
	move.from = rig_device(&rig, from).uuid;
	move.to = rig_device(&rig, 1 - from).uuid;
	batch = kv_batch_create(rig.config.kv);
	record_put_move(rig.config.kv, batch, &move);
	ck_assert_int_eq(rig_commit(rig.config.kv, batch, &rig), 0);
	rig_crash(&rig, SIM_KILL);
	sim_disk_on_io(rig.disks[from], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, from).state, POOL_DEVICE_FAILED);
	ck_assert_int_eq(erase_now(&rig, 0, 0), -E_DEVICE);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	ck_assert_int_eq(erase_now(&rig, 0, 0), 0);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pool missing");
	Suite *s = suite_create("pool missing");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, what_a_missing_device_holds_is_not_erased);
	tcase_add_test(tc, a_chunk_on_a_missing_device_is_not_erased);
	tcase_add_test(tc, a_layers_chunk_on_a_missing_device_is_not_begun_anew);
	tcase_add_test(tc, devices_that_are_missing_by_turns_are_missed);
	tcase_add_test(tc, a_layer_is_missed_though_its_volume_is_opened_first_now);
	tcase_add_test(tc, a_copy_that_was_left_on_a_missing_device_is_not_erased);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
