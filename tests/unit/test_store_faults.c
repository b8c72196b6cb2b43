/* What the store refuses, and what it does when its disk or its index is damaged, belongs to
 * somebody else, or fails. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/store/format.h"
#include "test_store_rig.h"

/* -- superblocks ------------------------------------------------------------------------------ */

static bool super_is_valid(struct rig *rig, uint32_t copy)
{
	struct format_super super;
	uint8_t block[BLOCK_SIZE];

	sim_disk_peek(rig->sim_disk, format_super_offset(copy), block, sizeof block);
	return format_super_decode(block, &super, NULL) == 0;
}

START_TEST(one_damaged_superblock_is_healed)
{
	uint32_t copy = (uint32_t)_i;
	struct rig rig;

	rig_must_begin(&rig);
	rig_close(&rig);
	ck_assert(super_is_valid(&rig, 0) && super_is_valid(&rig, 1));
	rig_rot(&rig, format_super_offset(copy) + 40);
	ck_assert(!super_is_valid(&rig, copy));
	rig_must_open(&rig);
	ck_assert(super_is_valid(&rig, copy));
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(two_damaged_superblocks_are_refused)
{
	struct rig rig;

	rig_must_begin(&rig);
	rig_close(&rig);
	rig_rot(&rig, format_super_offset(0) + 100);
	rig_rot(&rig, format_super_offset(1) + 3000);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "n1.disk"));
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_empty_disk_is_refused)
{
	struct rig rig;

	rig_init(&rig, 1, 24);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "no superblock"));
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_unknown_version_is_refused)
{
	uint8_t block[BLOCK_SIZE];
	uint32_t version = 99, crc = 0;
	struct rig rig;

	rig_must_begin(&rig);
	rig_close(&rig);
	sim_disk_peek(rig.sim_disk, 0, block, sizeof block);
	memcpy(block + 8, &version, 4);
	memcpy(block + 12, &crc, 4);
	crc = crc32c(0, block, sizeof block);
	memcpy(block + 12, &crc, 4);
	sim_disk_poke(rig.sim_disk, format_super_offset(0), block, sizeof block);
	sim_disk_poke(rig.sim_disk, format_super_offset(1), block, sizeof block);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "version 99"));
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_device_of_somebody_else_is_refused)
{
	struct rig rig;

	rig_must_begin(&rig);
	rig_close(&rig);
	rig.config.identity.cluster.bytes[3] = 9;
	ck_assert_int_eq(rig_open(&rig), -E_WRONG_CLUSTER);
	rig.config.identity.cluster.bytes[3] = 0;
	memcpy(rig.config.identity.node, "n2", 3);
	ck_assert_int_eq(rig_open(&rig), -E_WRONG_NODE);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "n1"));
	ck_assert_ptr_nonnull(strstr(rig.err.text, "n2"));
	memcpy(rig.config.identity.node, "n1", 3);
	rig.config.identity.shard_count = 2;
	ck_assert_int_eq(rig_open(&rig), -EINVAL);
	rig.config.identity.shard_count = 1;
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(format_refuses_a_device_in_use)
{
	struct rig rig;

	rig_must_begin(&rig);
	rig_close(&rig);
	ck_assert_int_eq(rig_format(&rig, false), -E_IN_USE);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_close(&rig);
	/* By force: the index that is left doesn't belong to the new device. */
	ck_assert_int_eq(rig_format(&rig, true), 0);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "index"));
	rig_deinit(&rig);
}
END_TEST

START_TEST(format_checks_sizes)
{
	struct rig rig;

	rig_init(&rig, 1, 10);
	ck_assert_int_eq(rig_format(&rig, false), -EINVAL);
	rig.segment_bytes = 3 << 20;
	ck_assert_int_eq(rig_format(&rig, false), -EINVAL);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "power of two"));
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_crash_while_formatting_leaves_a_device_or_none)
{
	static const enum sim_fate fates[] = {SIM_FATE_TEAR, SIM_FATE_DROP, SIM_FATE_KEEP,
					      SIM_FATE_RANDOM};

	for (uint64_t n = 1; n <= 4; n++) {
		struct rig rig;
		int rc;

		rig_init(&rig, n, 24);
		sim_process_start(rig.process);
		rig.config.reactor = sim_reactor(rig.process);
		rig.config.disk = sim_disk_open(rig.sim_disk);
		rig.config.kv = sim_kv_open(rig.sim_kv);
		rig.process->fate = fates[_i % 4];
		sim_disk_on_io(rig.sim_disk, n, _i < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL);
		ck_assert_int_eq(rig_format(&rig, false), -E_DISCONNECTED);
		rc = rig_open(&rig);
		ck_assert(rc == 0 || rc == -E_CORRUPT);
		if (rc == 0) {
			rig_verify(&rig);
			rig_close(&rig);
		} else {
			ck_assert_int_eq(rig_format(&rig, false), 0);
		}
		rig_deinit(&rig);
	}
}
END_TEST

START_TEST(a_lost_index_is_not_taken_for_an_empty_device)
{
	struct sim_kv *kv;
	struct rig rig;

	rig_must_begin(&rig);
	rig_close(&rig);
	kv = rig.sim_kv;
	rig.sim_kv = sim_kv_create(rig.process, "n1.other", STORE_KV_FAMILIES);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "index"));
	sim_process_crash(rig.process, SIM_KILL);
	rig.sim_kv = kv;
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- bit rot ---------------------------------------------------------------------------------- */

START_TEST(bit_rot_is_found_and_repaired)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX], bad;
	struct store_stats stats;
	struct rig rig;

	rig_must_begin(&rig);
	rig_rot(&rig, rig_find_block(&rig, 2, 7 + 33) + 1234);
	rig_rot(&rig, rig_find_block(&rig, 2, 7 + 90));
	ck_assert_int_eq(rig_read(&rig, 1, 1, 7, 200, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert_uint_eq(bad, 33);
	ck_assert_int_eq(rig_read(&rig, 1, 1, 7, 33, data, crcs, NULL, NULL), 0);
	ck_assert_int_eq(rig_read(&rig, 1, 1, 97, 1, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert_uint_eq(bad, 0);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_eq(stats.bad_blocks, 3);
	/* The host's replay is taken for one; resync's is a repair. */
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 2, false)), 0);
	ck_assert_int_eq(rig_read(&rig, 1, 1, 7, 200, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 2, true)), 0);
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* The log after the checkpoint: what was acknowledged, and is damaged, is not passed over. */
START_TEST(damaged_data_in_the_log_is_still_owed)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX], bad;
	struct rig rig;

	rig_must_begin(&rig);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, i * 4, 3)), 0);
	rig_rot(&rig, rig_find_block(&rig, 4, 4 + 1));
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_read(&rig, 0, 2, 0, 30, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert_uint_eq(bad, 5);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 4, true)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* The last group of a stream, of which the other stream's groups tell that it was durable: what was
 * written after it, and counts on it, must not be kept without it. */
START_TEST(damage_in_one_stream_shows_in_the_other)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	const bool cold_first = _i == 0;
	uint32_t crcs[IO_BLOCKS_MAX], bad;
	struct rig rig;

	rig_must_begin(&rig);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, i * 4, 3)), 0);
	ck_assert_int_eq(rig_wait(&rig, cold_first ? rig_resync(&rig, 0, 2, 40, 3)
						   : rig_write(&rig, STORE_DATA, 0, 2, 40, 3)),
			 0);
	ck_assert_int_eq(rig_wait(&rig, cold_first ? rig_write(&rig, STORE_DATA, 0, 2, 50, 1)
						   : rig_resync(&rig, 0, 2, 50, 1)),
			 0);
	rig_rot(&rig, rig_find_block(&rig, 6, 41));
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_read(&rig, 0, 2, 30, 30, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert_uint_eq(bad, 11);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 6, true)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

START_TEST(a_damaged_header_in_the_log_is_not_passed_over)
{
	struct rig rig;

	rig_must_begin(&rig);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, i * 4, 3)), 0);
	rig_rot(&rig, rig_find_block(&rig, 5, 8) - BLOCK_SIZE + 50);
	rig_crash(&rig, SIM_POWER_LOSS);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "acknowledged writes are lost"));
	rig_deinit(&rig);
}
END_TEST

/* -- failing media ---------------------------------------------------------------------------- */

START_TEST(a_failed_read_fails_alone)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX];
	struct rig rig;

	rig_must_begin(&rig);
	sim_process_on_io(rig.process, 1, SIM_IO_FAIL);
	ck_assert_int_eq(rig_read(&rig, 1, 1, 7, 200, data, crcs, NULL, NULL), -EIO);
	rig_verify(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 3, 1)), 0);
	rig_deinit(&rig);
	free(data);
}
END_TEST

START_TEST(a_failed_write_ends_all_writing)
{
	struct rig_op *ops[5];
	struct rig rig;

	rig_must_begin(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 3, 1)), 0);
	sim_process_on_io(rig.process, 1, SIM_IO_FAIL);
	for (uint32_t i = 0; i < 5; i++)
		ops[i] = rig_write(&rig, STORE_DATA, 0, i % 3, i * 50, 50);
	for (uint32_t i = 0; i < 5; i++)
		ck_assert_int_eq(rig_wait(&rig, ops[i]), -EIO);
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 9)), -EIO);
	ck_assert_int_eq(rig_wait(&rig, rig_watermark(&rig, 0, 0, version_make(1, 1))), -EIO);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DISCARD, 0, 0, 3, 1)), -EIO);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	rig_verify(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 3, 1)), 0);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_failed_checkpoint_ends_all_writing)
{
	struct rig rig;

	rig_must_begin(&rig);
	ck_assert(rig_checkpoint(&rig));
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 3, 1)), 0);
	sim_kv_on_commit(rig.sim_kv, 1, SIM_IO_FAIL);
	ck_assert(rig_checkpoint(&rig));
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 4, 1)), -EIO);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- the fault layer over the disk: each kind, while the store writes and reads ---------------- */

static void fault_begin(struct rig *rig, struct disk_fault_plan *plan)
{
	rig_init(rig, 1, 24);
	rig->faults = plan;
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
	for (uint32_t i = 0; i < 12; i++)
		ck_assert_int_eq(rig_wait(rig, rig_write(rig, STORE_DATA, 0, i % 3, i * 20, 10)),
				 0);
}

static void plan_one(struct disk_fault_plan *plan, struct disk_fault fault)
{
	*plan = (struct disk_fault_plan){.faults = {fault}, .count = 1};
}

/* Every block is read for itself: it is what was written, or it is refused; never anything else.
 * Returns how many were refused. On a disk that lies what is acknowledged may be gone. */
static uint32_t count_refused(struct rig *rig, bool lies)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	uint8_t expected[BLOCK_SIZE];
	uint32_t refused = 0;

	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		for (block_no_t block = 0; block < RIG_BLOCKS; block++) {
			version_t acked = rig->model.chunks[0][chunk].acked[block], version;
			uint32_t crc, bad;
			int rc = rig_read(rig, 0, chunk, block, 1, data, &crc, &version, &bad);

			if (rc == -E_BAD_CRC) {
				refused++;
				continue;
			}
			ck_assert_int_eq(rc, 0);
			ck_assert(lies || version == acked);
			if (version == 0)
				continue;
			rig_content(version_seq(version), block, expected);
			ck_assert_mem_eq(data, expected, BLOCK_SIZE);
		}
	free(data);
	return refused;
}

/* A lost write: the place holds what it held before. A misdirected one: so does its place, and
 * somebody else's holds what has a good CRC of its own, but not the one that the index has. */
START_TEST(lost_and_misdirected_writes_are_seen)
{
	struct disk_fault_plan plan = {0};
	struct store_stats stats;
	struct rig rig;
	bool lost = _i == 0;

	fault_begin(&rig, &plan);
	/* The first group of all lies at the first segment's begin: its blocks are hit. */
	plan_one(&plan, (struct disk_fault){.kind = lost ? DISK_FAULT_DROP : DISK_FAULT_MISDIRECT,
					    .on_kinds = DISK_FAULT_ON(DISK_WRITE),
					    .times = 1,
					    .elsewhere = FORMAT_SEGMENTS_OFFSET + 2 * BLOCK_SIZE});
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 400, 4)), 0);
	ck_assert_uint_eq(plan.faults[0].hits, 1);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 400, 4)), 0);
	/* 4 blocks that never arrived; and a header and 4 blocks over somebody else's. */
	ck_assert_uint_eq(count_refused(&rig, false), lost ? 4 : 9);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_eq(stats.scrub.damaged, lost ? 4 : 9);
	rig_write(&rig, STORE_DATA, 0, 1, 400, 4);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 10);
	ck_assert(rig_drain(&rig));
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(bits_that_rot_on_the_way_to_the_disk_are_seen)
{
	struct disk_fault_plan plan = {0};
	uint32_t refused;
	struct rig rig;

	fault_begin(&rig, &plan);
	plan_one(&plan, (struct disk_fault){.kind = DISK_FAULT_FLIP,
					    .on_kinds = DISK_FAULT_ON(DISK_WRITE),
					    .times = DISK_FAULT_FOREVER,
					    .every = 3,
					    .roams = true});
	for (uint32_t i = 0; i < 60; i++)
		ck_assert_int_eq(
		    rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, i % 3, i * 8, 1 + i % 8)), 0);
	refused = count_refused(&rig, false);
	ck_assert_uint_ge(refused, 5);
	ck_assert_uint_le(refused, plan.faults[0].hits);
	plan.count = 0;
	rig_deinit(&rig);
}
END_TEST

/* A device that is full, fails, or does half of it: the write fails, all writing ends, and nothing
 * that was acknowledged before is lost. */
START_TEST(a_write_that_fails_in_any_way_loses_nothing)
{
	static const struct {
		enum disk_fault_kind kind;
		int status;
	} ways[] = {{DISK_FAULT_ERROR, -EIO},
		    {DISK_FAULT_ERROR, -ENOSPC},
		    {DISK_FAULT_SHORT, -EIO},
		    {DISK_FAULT_SHORT, -ENOSPC}};
	struct disk_fault_plan plan = {0};
	struct rig rig;

	fault_begin(&rig, &plan);
	plan_one(&plan, (struct disk_fault){.kind = ways[_i].kind,
					    .on_kinds = DISK_FAULT_ON(DISK_WRITE),
					    .skip = 2,
					    .times = 1,
					    .status = ways[_i].status});
	for (uint32_t i = 0; i < 6; i++) {
		int rc = rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, i % 3, 300 + i * 9, 9));

		ck_assert_int_eq(rc, i < 2 ? 0 : ways[_i].status);
	}
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 5)), ways[_i].status);
	ck_assert_uint_eq(count_refused(&rig, false), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	plan.count = 0;
	rig_must_open(&rig);
	rig_verify(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 300, 9)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A read that ends short, or is of another place: what asked for it is refused, once, and nothing
 * is taken for damaged that is not, but in memory. */
START_TEST(a_read_that_goes_wrong_is_refused)
{
	static const struct {
		enum disk_fault_kind kind;
		int status;
	} ways[] = {{DISK_FAULT_SHORT, -EIO}, {DISK_FAULT_MISDIRECT, -E_BAD_CRC}};
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX], bad;
	struct disk_fault_plan plan = {0};
	struct rig rig;

	fault_begin(&rig, &plan);
	plan_one(&plan, (struct disk_fault){.kind = ways[_i].kind,
					    .on_kinds = DISK_FAULT_ON(DISK_READ),
					    .times = 1,
					    .status = -EIO,
					    .elsewhere = FORMAT_SEGMENTS_OFFSET + 3 * BLOCK_SIZE});
	ck_assert_int_eq(rig_read(&rig, 0, 1, 80, 10, data, crcs, NULL, &bad), ways[_i].status);
	ck_assert_uint_eq(plan.faults[0].hits, 1);
	ck_assert_int_eq(rig_read(&rig, 0, 1, 80, 10, data, crcs, NULL, &bad), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* The cleaner reads the wrong place, or half of it: it moves nothing that does not check, and what
 * it could not move stays where it is. */
START_TEST(a_cleaner_that_reads_wrong_loses_nothing)
{
	const enum disk_fault_kind kind = _i == 0 ? DISK_FAULT_SHORT : DISK_FAULT_MISDIRECT;
	struct disk_fault_plan plan = {0};
	struct store_stats stats;
	struct rig rig;

	fault_begin(&rig, &plan);
	/* Large ones only: those of the cleaner. */
	plan_one(&plan, (struct disk_fault){.kind = kind,
					    .on_kinds = DISK_FAULT_ON(DISK_READ),
					    .size_min = 32 * BLOCK_SIZE,
					    .every = 2,
					    .times = 6,
					    .status = -EIO,
					    .elsewhere = FORMAT_SEGMENTS_OFFSET});
	for (uint32_t i = 0; i < 400; i++) {
		rig_write(&rig, STORE_DATA, i % 2, i % 3, (i * 61) % 480, 1 + (i * 5) % 30);
		rig_drain_to(&rig, 3);
	}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_gt(plan.faults[0].hits, 0);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_gt(stats.cleaned_segments, 0);
	plan.count = 0;
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* The flush at the end of recovery lies, and the power fails again: what that recovery found and
 * nobody had been promised may be gone, what was promised before and after is not. */
START_TEST(a_lying_flush_after_recovery_loses_nothing_promised)
{
	uint32_t struck = 0;

	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct disk_fault_plan plan = {0};
		struct rig rig;

		rig_init(&rig, seed, 24);
		rig.faults = &plan;
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		for (uint32_t i = 0; i < 20; i++)
			rig_write(&rig, STORE_DATA, i % 2, i % 3, i * 20, 10);
		sim_run_for(rig.world, seed * 10000);
		rig_crash(&rig, SIM_KILL); /* what is in flight may be kept, and is not durable */
		plan_one(&plan, (struct disk_fault){.kind = DISK_FAULT_DROP,
						    .on_kinds = DISK_FAULT_ON(DISK_FLUSH),
						    .times = DISK_FAULT_FOREVER});
		rig_must_open(&rig);
		struck += plan.faults[0].hits > 0;
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 400, 5)), 0);
		rig_crash(&rig, SIM_POWER_LOSS);
		plan.count = 0;
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(struck, 20);
}
END_TEST

static uint64_t segment_at(uint32_t no, block_no_t block)
{
	return FORMAT_SEGMENTS_OFFSET + (uint64_t)no * MIB + (uint64_t)block * BLOCK_SIZE;
}

/* Sectors that cannot be read keep a device from opening only where they may hold what was
 * acknowledged: not in a segment that is listed and was never opened, nor behind the log's end. */
START_TEST(unreadable_sectors_that_nobody_needs_cost_nothing)
{
	static const struct {
		block_no_t behind_log; /* or, 0: in the last segment, which was never opened: */
		block_no_t from, to;
		int status;
	} places[] = {{0, 5, 6, 0}, {0, 1, 4, 0},  {0, 200, 256, 0}, {0, 0, 1, -EIO},
		      {2, 0, 1, 0}, {2, 0, 90, 0}, {1, 0, 1, -EIO},  {1, 0, 90, -EIO}};
	struct disk_fault_plan plan = {0};
	uint64_t at = segment_at(21, places[_i].from);
	uint64_t size = (uint64_t)(places[_i].to - places[_i].from) * BLOCK_SIZE;
	struct rig rig;
	int rc;

	fault_begin(&rig, &plan);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 400, 3)), 0);
	if (places[_i].behind_log > 0)
		at = rig_find_block(&rig, rig.model.try_count, 402) +
		     places[_i].behind_log * BLOCK_SIZE;
	rig_crash(&rig, SIM_POWER_LOSS);
	plan_one(&plan, (struct disk_fault){.kind = DISK_FAULT_ERROR,
					    .on_kinds = DISK_FAULT_ON(DISK_READ),
					    .from = at,
					    .to = at + size,
					    .times = DISK_FAULT_FOREVER,
					    .status = -EIO});
	rc = rig_open(&rig);
	ck_assert_uint_gt(plan.faults[0].hits, 0);
	ck_assert_int_eq(rc, places[_i].status);
	if (rc < 0) {
		ck_assert_ptr_nonnull(strstr(rig.err.text, "cannot be read"));
		plan.count = 0;
		rig_must_open(&rig);
	}
	rig_verify(&rig);
	for (uint32_t i = 0; i < 300; i++) {
		rig_write(&rig, STORE_DATA, i % 2, i % 3, (i * 61) % 480, 1 + (i * 5) % 30);
		rig_drain_to(&rig, 3);
	}
	ck_assert(rig_drain(&rig));
	plan.count = 0; /* what was written since can be read */
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A disk that is there no more: that is an error like any other. */
START_TEST(a_disk_that_is_gone_is_told)
{
	struct disk_fault_plan plan = {0};
	struct rig rig;

	fault_begin(&rig, &plan);
	rig_crash(&rig, SIM_KILL);
	for (uint64_t skip = 0; skip < 3; skip++) {
		plan_one(&plan, (struct disk_fault){.kind = DISK_FAULT_ERROR,
						    .on_kinds = DISK_FAULT_ON(DISK_READ),
						    .skip = skip,
						    .times = DISK_FAULT_FOREVER,
						    .status = -ENODEV});
		ck_assert_int_eq(rig_open(&rig), -EIO);
		rig_crash(&rig, SIM_KILL);
	}
	plan.count = 0;
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A group of the log that cannot be read as a whole: whether it was acknowledged cannot be told,
 * nor, behind one that does not check, what it knew of that. */
START_TEST(an_unreadable_log_is_not_passed_over)
{
	struct disk_fault_plan plan = {0};
	uint64_t at, before;
	struct rig rig;

	fault_begin(&rig, &plan);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 380, 9)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 400, 9)), 0);
	before = rig_find_block(&rig, rig.model.try_count - 1, 380) - BLOCK_SIZE + 50;
	at = rig_find_block(&rig, rig.model.try_count, 400);
	if (_i == 0)
		at -= BLOCK_SIZE; /* the header */
	if (_i >= 2)
		at += 8 * BLOCK_SIZE;
	if (_i == 3)
		rig_rot(&rig, before);
	rig_crash(&rig, SIM_POWER_LOSS);
	plan_one(&plan, (struct disk_fault){.kind = DISK_FAULT_ERROR,
					    .on_kinds = DISK_FAULT_ON(DISK_READ),
					    .from = at,
					    .to = at + BLOCK_SIZE,
					    .times = DISK_FAULT_FOREVER,
					    .status = -EIO});
	ck_assert_int_eq(rig_open(&rig), -EIO);
	plan.count = 0;
	if (_i == 3)
		rig_rot(&rig, before);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* What a lying disk loses with the power is missed when the node starts, not when a guest reads: a
 * node that lost acknowledged writes in the midst of its log does not serve. (When all of the end
 * is gone nothing on this disk can tell; the other replicas do.) */
START_TEST(a_lying_flush_never_shows_as_other_content)
{
	uint32_t opened = 0, refused = 0;

	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct disk_fault_plan plan = {0};
		struct rig rig;
		int rc;

		rig_init(&rig, seed, 24);
		rig.faults = &plan;
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		rig.process->fate = SIM_FATE_RANDOM;
		plan_one(&plan, (struct disk_fault){.kind = DISK_FAULT_LIE,
						    .on_kinds = DISK_FAULT_ON(DISK_WRITE),
						    .times = DISK_FAULT_FOREVER});
		for (uint32_t i = 0; i <= seed % 6; i++)
			ck_assert_int_eq(
			    rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, i % 3, i * 20, 10)), 0);
		rig_crash(&rig, SIM_POWER_LOSS);
		plan.count = 0;
		rc = rig_open(&rig);
		ck_assert(rc == 0 || rc == -E_CORRUPT);
		opened += rc == 0;
		refused += rc != 0;
		if (rc != 0)
			ck_assert_ptr_nonnull(strstr(rig.err.text, "acknowledged writes are lost"));
		if (rc == 0)
			count_refused(&rig, true);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(refused, 0);
	ck_assert_uint_gt(opened, 0);
}
END_TEST

/* Every I/O of a life fails once, in its own run: nothing is lost, nothing hangs. */
START_TEST(any_io_may_fail)
{
	for (uint64_t n = 1; n < 60; n++) {
		struct rig rig;
		int rc;

		rig_init(&rig, n, 22);
		rig.ios_fail = true;
		ck_assert_int_eq(rig_format(&rig, false), 0);
		sim_process_on_io(rig.process, n, SIM_IO_FAIL);
		rc = rig_open(&rig);
		for (uint32_t i = 0; rc == 0 && i < 30; i++) {
			rig_random_op(&rig, true);
			rig_drain_to(&rig, 4);
			if (i % 10 == 5)
				rig_checkpoint(&rig);
		}
		if (rc == 0) {
			ck_assert(rig_drain(&rig));
			sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
			rig_close(&rig);
		} else {
			ck_assert_int_eq(rc, -EIO);
		}
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
}
END_TEST

/* -- limits ----------------------------------------------------------------------------------- */

struct many {
	struct store_watermark_op op;
	uint32_t *done_count, *limit_count;
};

static void many_done(struct store_watermark_op *op, int status)
{
	struct many *m = container_of(op, struct many, op);

	++*m->done_count;
	*m->limit_count += status == -E_LIMIT;
}

START_TEST(too_many_operations_are_refused)
{
	uint32_t count = STORE_OPS_MAX + 10, done_count = 0, limit_count = 0;
	struct many *many = calloc(count, sizeof *many);
	struct rig rig;

	rig_must_begin(&rig);
	for (uint32_t i = 0; i < count; i++) {
		many[i] = (struct many){
		    .op = {.done = many_done, .volume = 5, .chunk = i % 100, .watermark = 1 + i},
		    .done_count = &done_count,
		    .limit_count = &limit_count,
		};
		store_watermark(rig.store, &many[i].op);
	}
	ck_assert_uint_eq(done_count, 0);
	sim_run_for(rig.world, 10 * NS_PER_S);
	ck_assert_uint_eq(done_count, count);
	ck_assert_uint_eq(limit_count, 10);
	rig_deinit(&rig);
	free(many);
}
END_TEST

static TCase *superblocks(void)
{
	TCase *tc = tcase_create("superblocks");

	tcase_add_loop_test(tc, one_damaged_superblock_is_healed, 0, 2);
	tcase_add_test(tc, two_damaged_superblocks_are_refused);
	tcase_add_test(tc, an_empty_disk_is_refused);
	tcase_add_test(tc, an_unknown_version_is_refused);
	tcase_add_test(tc, a_device_of_somebody_else_is_refused);
	tcase_add_test(tc, format_refuses_a_device_in_use);
	tcase_add_test(tc, format_checks_sizes);
	tcase_add_loop_test(tc, a_crash_while_formatting_leaves_a_device_or_none, 0, 5);
	tcase_add_test(tc, a_lost_index_is_not_taken_for_an_empty_device);
	return tc;
}

static TCase *faults(void)
{
	TCase *tc = tcase_create("faults");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, bit_rot_is_found_and_repaired);
	tcase_add_test(tc, damaged_data_in_the_log_is_still_owed);
	tcase_add_loop_test(tc, damage_in_one_stream_shows_in_the_other, 0, 2);
	tcase_add_test(tc, a_damaged_header_in_the_log_is_not_passed_over);
	tcase_add_test(tc, a_failed_read_fails_alone);
	tcase_add_test(tc, a_failed_write_ends_all_writing);
	tcase_add_test(tc, a_failed_checkpoint_ends_all_writing);
	tcase_add_loop_test(tc, lost_and_misdirected_writes_are_seen, 0, 2);
	tcase_add_test(tc, bits_that_rot_on_the_way_to_the_disk_are_seen);
	tcase_add_loop_test(tc, a_write_that_fails_in_any_way_loses_nothing, 0, 4);
	tcase_add_loop_test(tc, a_read_that_goes_wrong_is_refused, 0, 2);
	tcase_add_loop_test(tc, a_cleaner_that_reads_wrong_loses_nothing, 0, 2);
	tcase_add_loop_test(tc, unreadable_sectors_that_nobody_needs_cost_nothing, 0, 8);
	tcase_add_test(tc, a_disk_that_is_gone_is_told);
	tcase_add_loop_test(tc, an_unreadable_log_is_not_passed_over, 0, 4);
	tcase_add_test(tc, a_lying_flush_after_recovery_loses_nothing_promised);
	tcase_add_test(tc, a_lying_flush_never_shows_as_other_content);
	tcase_add_test(tc, any_io_may_fail);
	tcase_add_test(tc, too_many_operations_are_refused);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("store_faults");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, superblocks());
	suite_add_tcase(s, faults());
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
