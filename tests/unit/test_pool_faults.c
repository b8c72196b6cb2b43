/* A pool of two devices, with a layer of faults (engine/disk/fault.h) over each, one of which
 * strikes: whatever it does, the other device goes on, the node tells of its trouble, and nothing
 * that was acknowledged is lost, or passed over in silence. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test_store_rig.h"

#define DISK_MIB 32u
#define BAD	 1u /* the device that is struck */
#define GOOD	 0u

static struct disk_fault_plan plans[2];

/* Three chunks on each, with some blocks in them. */
static void begin(struct rig *rig, uint64_t seed)
{
	memset(plans, 0, sizeof plans);
	rig_devices = 2;
	rig_init(rig, seed, DISK_MIB);
	rig_devices = 0;
	rig_must_open(rig);
	rig_crash(rig, SIM_KILL); /* it is formatted; the layers come with the next start */
	for (uint32_t i = 0; i < 2; i++)
		rig->disk_faults[i] = &plans[i];
	rig_must_open(rig);
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++) {
		rig_fence(rig, volume, 1);
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			rig_write(rig, STORE_DATA, volume, chunk, chunk * 7, 60);
	}
	ck_assert(rig_drain(rig));
	ck_assert_uint_eq(rig_device(rig, GOOD).chunks, 3);
	ck_assert_uint_eq(rig_device(rig, BAD).chunks, 3);
}

static void strike(struct disk_fault fault)
{
	plans[BAD].faults[0] = fault;
	plans[BAD].count = 1;
}

static struct store *store_of(const struct rig *rig, uint32_t disk)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	uint32_t count = pool_devices(rig->pool, infos, POOL_DEVICES_MAX);

	for (uint32_t i = 0; i < count; i++)
		if (strcmp(infos[i].path, rig_disk_path(disk)) == 0)
			return pool_store(rig->pool, i);
	return NULL;
}

static bool is_on(struct rig *rig, uint32_t disk, uint32_t volume, uint32_t chunk)
{
	struct store_chunk_state state;
	struct store *store = store_of(rig, disk);

	return store != NULL && store_chunks(store, rig_volume_id(volume), chunk, &state, 1) == 1 &&
	       state.chunk == chunk;
}

/* A write to each chunk; returns how many were not done. Those on the good device are. */
static uint32_t write_all(struct rig *rig, block_no_t block)
{
	uint32_t bad = 0;

	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
			const bool good = is_on(rig, GOOD, volume, chunk);
			const int rc =
			    rig_wait(rig, rig_write(rig, STORE_DATA, volume, chunk, block, 4));

			ck_assert(rc == 0 || (!good && rc == -E_DEVICE));
			bad += rc != 0;
		}
	return bad;
}

static const char *trouble(const struct rig *rig)
{
	static char text[512];

	pool_trouble(rig->pool, text, sizeof text);
	return text;
}

static const struct {
	enum disk_fault_kind kind;
	int status;
	uint64_t skip;
} write_faults[] = {
    {DISK_FAULT_ERROR, -EIO, 0},    {DISK_FAULT_ERROR, -EIO, 3},
    {DISK_FAULT_ERROR, -ENOSPC, 0}, /* a thin device that is full */
    {DISK_FAULT_ERROR, -ENOSPC, 3}, {DISK_FAULT_SHORT, -EIO, 0},
    {DISK_FAULT_SHORT, -EIO, 3},    {DISK_FAULT_SHORT, -ENOSPC, 0},
    {DISK_FAULT_SHORT, -ENOSPC, 3},
};

/* From some write on none is done, or only its first half. */
START_TEST(what_cannot_be_written_fails_its_device_alone)
{
	struct rig rig;

	begin(&rig, 1 + (uint64_t)_i);
	ck_assert_str_eq(trouble(&rig), "");
	strike((struct disk_fault){.kind = write_faults[_i].kind,
				   .on_kinds = DISK_FAULT_ON(DISK_WRITE),
				   .skip = write_faults[_i].skip,
				   .times = DISK_FAULT_FOREVER,
				   .status = write_faults[_i].status});
	for (block_no_t block = 100; block < 120; block += 5)
		write_all(&rig, block);
	ck_assert_uint_gt(plans[BAD].faults[0].hits, 0);
	ck_assert_uint_eq(write_all(&rig, 120), 3);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	ck_assert_int_eq(rig_device(&rig, BAD).why, write_faults[_i].status);
	ck_assert_int_eq(rig_device(&rig, GOOD).state, POOL_DEVICE_SERVING);
	ck_assert_ptr_nonnull(strstr(trouble(&rig), rig_disk_path(BAD)));
	ck_assert_ptr_null(strstr(trouble(&rig), rig_disk_path(GOOD)));
	/* What it has can be read again once it is well, and more be written. */
	plans[BAD].count = 0;
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_str_eq(trouble(&rig), "");
	rig_verify(&rig);
	ck_assert_uint_eq(write_all(&rig, 130), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Reads fail for a while, or only their first half is read. Nobody gets what was not read; other
 * replicas have it, so the device goes on, and its errors are counted. */
START_TEST(what_cannot_be_read_is_not_answered)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX], failed = 0;
	struct rig rig;

	begin(&rig, 20);
	strike((struct disk_fault){.kind = _i == 0 ? DISK_FAULT_ERROR : DISK_FAULT_SHORT,
				   .on_kinds = DISK_FAULT_ON(DISK_READ),
				   .times = DISK_FAULT_FOREVER,
				   .status = -EIO});
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
			const bool good = is_on(&rig, GOOD, volume, chunk);
			const int rc =
			    rig_read(&rig, volume, chunk, chunk * 7, 60, data, crcs, NULL, NULL);

			ck_assert_int_eq(rc, good ? 0 : -EIO);
			failed += rc != 0;
		}
	ck_assert_uint_eq(failed, 3);
	ck_assert_uint_eq(rig_device(&rig, BAD).read_errors, 3);
	ck_assert_int_eq(rig_device(&rig, GOOD).state, POOL_DEVICE_SERVING);
	ck_assert_uint_eq(rig_device(&rig, GOOD).read_errors, 0);
	ck_assert_uint_eq(write_all(&rig, 100), 0);
	plans[BAD].count = 0;
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* It says that writes are durable, and the power goes. Where what was acknowledged is gone, and
 * that can be told, the device is not served from, and the node says so; the other has everything.
 */
START_TEST(a_lie_is_told_and_the_other_device_goes_on)
{
	uint32_t told = 0;

	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct rig rig;
		bool good[RIG_VOLUMES][RIG_CHUNKS];

		begin(&rig, seed);
		for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
			for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
				good[volume][chunk] = is_on(&rig, GOOD, volume, chunk);
		strike((struct disk_fault){.kind = DISK_FAULT_LIE,
					   .on_kinds = DISK_FAULT_ON(DISK_WRITE),
					   .times = DISK_FAULT_FOREVER});
		rig.process->fate = SIM_FATE_RANDOM;
		for (uint32_t i = 0; i <= seed % 4; i++)
			ck_assert_uint_eq(write_all(&rig, 100 + i * 5), 0);
		ck_assert_uint_gt(plans[BAD].faults[0].hits, 0);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig.disk_faults[BAD] = NULL;
		rig_must_open(&rig);
		ck_assert_int_eq(rig_device(&rig, GOOD).state, POOL_DEVICE_SERVING);
		if (rig_device(&rig, BAD).state == POOL_DEVICE_FAILED) {
			told++;
			ck_assert_int_eq(rig_device(&rig, BAD).why, -E_CORRUPT);
			ck_assert_ptr_nonnull(strstr(trouble(&rig), rig_disk_path(BAD)));
			ck_assert_uint_eq(write_all(&rig, 200), 3);
		}
		for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
			for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
				if (good[volume][chunk])
					rig_verify_chunk(&rig, volume, chunk);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(told, 3);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pool_faults");
	Suite *s = suite_create("pool_faults");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, what_cannot_be_written_fails_its_device_alone, 0,
			    ARRAY_SIZE(write_faults));
	tcase_add_loop_test(tc, what_cannot_be_read_is_not_answered, 0, 2);
	tcase_add_test(tc, a_lie_is_told_and_the_other_device_goes_on);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
