/* The pool of devices: where chunks go, fences on all devices, devices that fail, are missing, are
 * added and retired. Crashes: test_pool_crash.c. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/pool/records.h"
#include "engine/store/format.h"
#include "test_store_rig.h"

/* Devices of one size share chunks evenly, and each chunk is found where it was after a restart. */
START_TEST(chunks_are_spread_and_found_again)
{
	uint64_t before;
	struct rig rig;

	rig_start_pool(&rig, 2, 1);
	rig_fill(&rig);
	ck_assert_uint_eq(rig_device(&rig, 0).chunks, 3);
	ck_assert_uint_eq(rig_device(&rig, 1).chunks, 3);
	rig_verify(&rig);
	before = rig_device(&rig, 0).live_bytes;
	rig_close(&rig);
	rig_must_open(&rig);
	ck_assert_uint_eq(rig_device(&rig, 0).chunks, 3);
	ck_assert_uint_eq(rig_device(&rig, 0).live_bytes, before);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* The words behind scrub, which are all counters or sizes. */
#define WORDS_FROM (offsetof(struct store_stats, size_bytes) / sizeof(uint64_t))
#define WORDS	   (sizeof(struct store_stats) / sizeof(uint64_t))

static uint64_t word_of(const struct store_stats *stats, size_t at)
{
	uint64_t word;

	memcpy(&word, (const char *)stats + at * sizeof word, sizeof word);
	return word;
}

/* Everything that stores tell adds up, the reserve too. */
START_TEST(what_is_told_is_the_sum)
{
	struct store_stats sum, one[2];
	struct rig rig;

	rig_start_pool(&rig, 2, 1);
	rig_fill(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_fill(&rig);
	ck_assert(rig_checkpoint(&rig));
	rig_verify(&rig);
	pool_get_stats(rig.pool, &sum);
	for (uint32_t i = 0; i < 2; i++)
		store_get_stats(pool_store(rig.pool, i), &one[i]);
	for (size_t at = WORDS_FROM; at < WORDS; at++)
		ck_assert_msg(word_of(&sum, at) == word_of(&one[0], at) + word_of(&one[1], at),
			      "word %zu of struct store_stats: %lu is not %lu + %lu", at,
			      word_of(&sum, at), word_of(&one[0], at), word_of(&one[1], at));
	ck_assert_uint_gt(one[0].reserve_bytes, 0);
	ck_assert_uint_gt(one[0].recovered_bytes, 0);
	ck_assert_uint_gt(one[1].index_pages, 0);
	rig_deinit(&rig);
}
END_TEST

static uint64_t passes(const struct rig *rig, uint32_t disk)
{
	struct store_stats s;

	store_get_stats(pool_store(rig->pool, disk), &s);
	return s.scrub.passes;
}

/* Whichever of its devices is the first. */
START_TEST(a_pass_is_over_when_each_device_had_one)
{
	const uint32_t early = (uint32_t)_i, late = 1 - early;
	struct store_stats sum;
	struct rig rig;

	rig_start_pool(&rig, 2, 1);
	rig_fill(&rig);
	store_scrub(pool_store(rig.pool, early));
	sim_run_for(rig.world, 60 * NS_PER_S);
	ck_assert_uint_eq(passes(&rig, early), 1);
	ck_assert_uint_eq(passes(&rig, late), 0);
	pool_get_stats(rig.pool, &sum);
	ck_assert_uint_eq(sum.scrub.passes, 0);
	store_scrub(pool_store(rig.pool, late));
	sim_run_for(rig.world, 60 * NS_PER_S);
	pool_get_stats(rig.pool, &sum);
	ck_assert_uint_eq(sum.scrub.passes, 1);
	rig_deinit(&rig);
}
END_TEST

START_TEST(random_work_is_what_a_store_owes)
{
	struct rig rig;

	rig_start_pool(&rig, 1 + (uint32_t)_i % 3, 10 + (uint64_t)_i);
	for (uint32_t round = 0; round < 4; round++) {
		for (uint32_t i = 0; i < 400; i++) {
			rig_random_op(&rig, true);
			if (i % 8 == 0)
				rig_drain_to(&rig, 6);
		}
		ck_assert(rig_drain(&rig));
		rig_verify(&rig);
		rig_crash(&rig, round % 2 == 0 ? SIM_KILL : SIM_POWER_LOSS);
		rig_must_open(&rig);
		rig_verify(&rig);
	}
	rig_deinit(&rig);
}
END_TEST

/* A fence holds for chunks on every device. */
START_TEST(a_fence_holds_on_all_devices)
{
	struct rig rig;

	rig_start_pool(&rig, 2, 2);
	rig_fill(&rig);
	rig_fence(&rig, 0, 5);
	ck_assert(rig_drain(&rig));
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
		struct rig_op *op;

		rig.model.generation = 4;
		op = rig_write(&rig, STORE_DATA, 0, chunk, 0, 1);
		ck_assert_int_eq(rig_wait(&rig, op), -E_FENCED);
	}
	rig.model.generation = 5;
	for (uint32_t i = 0; i < 2; i++)
		ck_assert_uint_eq(store_generation(pool_store(rig.pool, i), rig_volume_id(0)), 5);
	rig_deinit(&rig);
}
END_TEST

static void filler_read(struct store_read *op, int status)
{
	ck_assert(status == 0 || status == -E_LIMIT);
	op->bad_block = UINT32_MAX;
}

/* A device that serves and could not take the fence takes writes of the generations before it: the
 * fence is not done. */
START_TEST(a_fence_that_one_device_does_not_take_is_not_done)
{
	struct store_read *fillers = calloc(STORE_OPS_MAX, sizeof *fillers);
	uint8_t *data = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	uint32_t crc;
	struct rig_op *op;
	struct rig rig;

	rig_start_pool(&rig, 2, 7);
	rig_fill(&rig);
	rig_fence(&rig, 0, 4);
	ck_assert(rig_drain(&rig));
	/* As many operations as a store takes. */
	for (uint32_t i = 0; i < STORE_OPS_MAX; i++) {
		fillers[i] = (struct store_read){.done = filler_read,
						 .volume = rig_volume_id(1),
						 .chunk = 1000,
						 .block_count = 1,
						 .data = data,
						 .ret_crcs = &crc};
		store_read(pool_store(rig.pool, 1), &fillers[i]);
	}
	op = rig_fence(&rig, 0, 5);
	ck_assert_int_eq(rig_wait(&rig, op), -E_LIMIT);
	for (uint32_t i = 0; i < STORE_OPS_MAX; i++)
		ck_assert_uint_eq(fillers[i].bad_block, UINT32_MAX);
	/* Whoever asks again gets it. */
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 5)), 0);
	for (uint32_t i = 0; i < 2; i++)
		ck_assert_uint_eq(store_generation(pool_store(rig.pool, i), rig_volume_id(0)), 5);
	rig_deinit(&rig);
	free(data);
	free(fillers);
}
END_TEST

struct retiring {
	struct pool_retire_op op;
	bool done;
	int status;
	char text[1000];
};

static void retired(struct pool_retire_op *op, int status, const struct error *err)
{
	struct retiring *r = container_of(op, struct retiring, op);

	if (err != NULL)
		memcpy(r->text, err->text, sizeof r->text);
	r->done = true;
	r->status = status;
}

static int retire(struct rig *rig, uint32_t disk, char *ret_text)
{
	struct retiring r = {.op = {.done = retired, .path = rig_disk_path(disk)}};

	pool_retire(rig->pool, &r.op);
	ck_assert(!r.done);
	ck_assert(sim_run_flag(rig->world, &r.done));
	if (ret_text != NULL)
		memcpy(ret_text, r.text, sizeof r.text);
	return r.status;
}

static bool first_is_gone(void *arg)
{
	return rig_device(arg, 0).state == POOL_DEVICE_NONE;
}

static void wait_gone(struct rig *rig)
{
	ck_assert_int_eq(
	    sim_run_until(rig->world, rig->world->now_ns + 3600 * NS_PER_S, first_is_gone, rig), 0);
}

/* A new device has the fences of all volumes, and gets the new chunks. */
START_TEST(an_added_device_joins_in)
{
	char text[1000];
	struct rig rig;

	rig_start_pool(&rig, 1, 3);
	rig_fence(&rig, 0, 3);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 200);
	rig_write(&rig, STORE_DATA, 0, 1, 0, 200);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(rig_add_device(&rig, 1, NULL), 0);
	ck_assert_uint_eq(store_generation(pool_store(rig.pool, 1), rig_volume_id(0)), 3);
	rig_write(&rig, STORE_DATA, 0, 2, 0, 20);
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig_device(&rig, 1).chunks, 1);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_uint_eq(rig_device(&rig, 1).chunks, 1);
	rig_verify(&rig);
	/* What holds something is not taken. */
	sim_disk_poke(rig.disks[2], 0, "mine", 4);
	ck_assert_int_eq(rig_add_device(&rig, 2, text),
			 0); /* a superblock that was being written */
	sim_disk_poke(rig.disks[3], 65536, "mine", 4);
	ck_assert_int_eq(rig_add_device(&rig, 3, text), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(text, "not empty"));
	rig_deinit(&rig);
}
END_TEST

static uint32_t chunks_listed(struct rig *rig)
{
	struct store_chunk_state states[RIG_CHUNKS];
	uint32_t count = 0;

	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		count += pool_chunks(rig->pool, rig_volume_id(volume), 0, states, RIG_CHUNKS);
	return count;
}

/* Retired while it is written: everything is on the other one afterwards, and the device is empty,
 * so that it can be added again. */
START_TEST(a_retired_device_is_emptied)
{
	uint8_t block[BLOCK_SIZE], zeroes[BLOCK_SIZE] = {0};
	struct pool_device_info first;
	struct uuid node;
	struct rig rig;

	rig_start_pool(&rig, 2, 20 + (uint64_t)_i);
	node = *pool_node(rig.pool);
	first = rig_device(&rig, 0);
	ck_assert(uuid_equal(&node, &first.uuid));
	rig_fill(&rig);
	ck_assert_int_eq(retire(&rig, 0, NULL), 0);
	ck_assert_int_eq(rig_device(&rig, 0).state, POOL_DEVICE_RETIRING);
	for (uint32_t i = 0; i < 300; i++) {
		rig_random_op(&rig, i % 3 == 0);
		rig_drain_to(&rig, 4);
	}
	ck_assert(rig_drain(&rig));
	wait_gone(&rig);
	rig_verify(&rig);
	ck_assert_uint_eq(rig_device(&rig, 1).chunks, chunks_listed(&rig));
	sim_disk_peek(rig.disks[0], 0, block, sizeof block);
	ck_assert_int_eq(memcmp(block, zeroes, sizeof block), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, 0).state, POOL_DEVICE_NONE);
	rig_verify(&rig);
	/* The node is who it was, though that device is gone. */
	ck_assert(uuid_equal(pool_node(rig.pool), &node));
	ck_assert_int_eq(rig_add_device(&rig, 0, NULL), 0);
	ck_assert_int_eq(rig_device(&rig, 0).state, POOL_DEVICE_SERVING);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

struct adding {
	struct pool_add_op op;
	bool done;
};

static void added(struct pool_add_op *op, int status, const struct error *err)
{
	ck_assert_msg(status == 0, "%s", err != NULL ? err->text : "");
	container_of(op, struct adding, op)->done = true;
}

/* A pool that is closed so many steps after a device has begun to come (or to go), with a fence and
 * a write under way. False: that was over before. */
static bool close_amid_a_change(bool comes, uint32_t steps)
{
	struct adding a = {.op = {.done = added, .path = rig_disk_path(1)}};
	struct retiring r = {.op = {.done = retired, .path = rig_disk_path(0)}};
	bool over = false;
	struct rig rig;

	rig_start_pool(&rig, comes ? 1 : 2, 40);
	rig_fill(&rig);
	if (comes) {
		a.op.disk = rig_disk(&rig, 1);
		pool_add(rig.pool, &a.op);
	} else {
		pool_retire(rig.pool, &r.op);
	}
	for (uint32_t i = 0; i < steps && !over; i++) {
		ck_assert(sim_step(rig.world));
		over = comes ? a.done : first_is_gone(&rig);
	}
	rig_write(&rig, STORE_DATA, 0, 1, 9, 5);
	rig_fence(&rig, 0, 2);
	rig_close(&rig);
	ck_assert(comes ? a.done : r.done && r.status == 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	if (!comes)
		wait_gone(&rig);
	for (uint32_t i = 0; i < 2 && rig.pool != NULL; i++)
		if (pool_store(rig.pool, i) != NULL)
			ck_assert_uint_ge(
			    store_generation(pool_store(rig.pool, i), rig_volume_id(0)), 2);
	rig_verify(&rig);
	rig_deinit(&rig);
	return !over;
}

START_TEST(a_pool_is_closed_amid_a_change)
{
	uint32_t steps = 1, closed = 0;

	for (; close_amid_a_change(_i == 0, steps); steps += 1 + steps / 16)
		closed++;
	ck_assert_uint_gt(closed, 10);
}
END_TEST

static void fill_whole(struct rig *rig)
{
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			for (block_no_t b = 0; b < RIG_BLOCKS; b += 256) {
				rig_write(rig, STORE_DATA, volume, chunk, b, 256);
				rig_drain_to(rig, 2);
			}
}

START_TEST(what_does_not_fit_is_not_retired)
{
	char text[1000];
	struct rig rig;

	rig_start_pool(&rig, 1, 4);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 100);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(retire(&rig, 0, text), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(text, "the only one"));
	ck_assert_int_eq(retire(&rig, 3, text), -ENOENT);
	rig_deinit(&rig);
	/* Nearly full, both of them. */
	rig_start_pool(&rig, 2, 5);
	fill_whole(&rig);
	for (chunk_no_t chunk = 10; chunk < 14; chunk++)
		rig_discard_far(&rig, chunk, 0, 1);
	ck_assert(rig_drain(&rig));
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A device whose writes fail: its chunks are answered with -E_DEVICE, the others go on; new chunks
 * go elsewhere. After a restart without it the same, and nothing is claimed of what it may hold. */
START_TEST(a_failed_device_does_not_stop_the_others)
{
	static const uint32_t BAD = 1;
	struct store_chunk_state states[8];
	struct rig rig;
	struct rig_op *op;
	uint32_t bad = 0, listed;

	rig_start_pool(&rig, 2, 6);
	rig_fence(&rig, 0, 1);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 10);
	ck_assert(rig_drain(&rig));
	rig_write(&rig, STORE_DATA, 0, 1, 0, 10);
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig_device(&rig, BAD).chunks, 1);
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	for (uint32_t chunk = 0; chunk < 2; chunk++) {
		op = rig_write(&rig, STORE_DATA, 0, chunk, 3, 2);
		if (rig_wait(&rig, op) == 0)
			continue;
		ck_assert_int_eq(op->status, -E_DEVICE);
		bad++;
	}
	ck_assert_uint_eq(bad, 1);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	op = rig_write(&rig, STORE_DATA, 0, 2, 3, 2);
	ck_assert_int_eq(rig_wait(&rig, op), 0);
	ck_assert_uint_eq(rig_device(&rig, BAD).chunks, 1);
	listed = pool_chunks(rig.pool, rig_volume_id(0), 0, states, 8);
	ck_assert_uint_eq(listed, 3);
	bad = 0;
	for (uint32_t i = 0; i < listed; i++)
		bad += states[i].status == -E_DEVICE;
	ck_assert_uint_eq(bad, 1);
	ck_assert_int_eq(pool_absent(rig.pool), 0);
	rig_crash(&rig, SIM_KILL);
	/* Now it cannot even be read. */
	sim_disk_on_io(rig.disks[BAD], 1, SIM_IO_FAIL);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_FAILED);
	ck_assert_int_eq(pool_absent(rig.pool), -E_DEVICE);
	/* Nor is anything begun of a volume that nobody here has heard of. */
	rig_fence(&rig, 1, 1);
	ck_assert(rig_drain(&rig));
	op = rig_write(&rig, STORE_DATA, 1, 0, 0, 1);
	ck_assert_int_eq(rig_wait(&rig, op), -E_DEVICE);
	bad = 0;
	for (uint32_t chunk = 0; chunk < 3; chunk++) {
		op = rig_write(&rig, STORE_DATA, 0, chunk, 8, 1);
		bad += rig_wait(&rig, op) == -E_DEVICE;
	}
	ck_assert_uint_eq(bad, 1);
	rig_crash(&rig, SIM_KILL);
	/* And it is back. */
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, BAD).state, POOL_DEVICE_SERVING);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Where on a disk a block of a write lies; 0: it is not there. */
static uint64_t find_block(struct rig *rig, uint32_t disk, uint64_t seq, block_no_t block)
{
	uint8_t expected[BLOCK_SIZE], found[BLOCK_SIZE];

	rig_content(seq, block, expected);
	for (uint64_t at = FORMAT_SEGMENTS_OFFSET; at < RIG_DEVICE_MIB * MIB; at += BLOCK_SIZE) {
		sim_disk_peek(rig->disks[disk], at, found, sizeof found);
		if (memcmp(expected, found, sizeof found) == 0)
			return at;
	}
	return 0;
}

/* A device whose log does not check is not opened: the others are; with none left the node says
 * why. */
START_TEST(a_damaged_device_does_not_stop_the_others)
{
	const uint32_t devices = (uint32_t)_i + 1;
	uint64_t seq = 0, at = 0;
	uint32_t disk = 0, bad = 0;
	uint8_t byte;
	struct rig rig;

	rig_start_pool(&rig, devices, 9);
	rig_fence(&rig, 0, 1);
	rig_fill(&rig);
	for (uint32_t i = 0; i < 6; i++) {
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, i * 4, 3)), 0);
		if (i == 2)
			seq = rig.model.try_count;
	}
	for (disk = 0; disk < devices && at == 0; disk++)
		at = find_block(&rig, disk, seq, 8);
	ck_assert_uint_gt(at, 0);
	disk--;
	rig_crash(&rig, SIM_POWER_LOSS);
	/* The header of that group. */
	sim_disk_peek(rig.disks[disk], at - BLOCK_SIZE + 50, &byte, 1);
	byte ^= 0x10;
	sim_disk_poke(rig.disks[disk], at - BLOCK_SIZE + 50, &byte, 1);
	if (devices == 1) {
		ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
		ck_assert_ptr_nonnull(strstr(rig.err.text, "acknowledged writes are lost"));
		ck_assert_ptr_nonnull(strstr(rig.err.text, "device disk0"));
		sim_process_crash(rig.process, SIM_KILL);
	} else {
		rig_must_open(&rig);
		ck_assert_int_eq(rig_device(&rig, disk).state, POOL_DEVICE_FAILED);
		ck_assert_int_eq(rig_device(&rig, disk).why, -E_CORRUPT);
		ck_assert_int_eq(rig_device(&rig, 1 - disk).state, POOL_DEVICE_SERVING);
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
			struct rig_op *op = rig_write(&rig, STORE_DATA, 0, chunk, 300, 1);

			bad += rig_wait(&rig, op) == -E_DEVICE;
		}
		ck_assert_uint_gt(bad, 0);
		ck_assert_uint_lt(bad, RIG_CHUNKS);
		rig_crash(&rig, SIM_KILL);
	}
	byte ^= 0x10;
	sim_disk_poke(rig.disks[disk], at - BLOCK_SIZE + 50, &byte, 1);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, disk).state, POOL_DEVICE_SERVING);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A device that fails while it is retired is emptied as far as it can be read. */
START_TEST(a_failed_device_can_be_retired)
{
	struct rig_op *op;
	struct rig rig;

	rig_start_pool(&rig, 2, 8);
	rig_fill(&rig);
	sim_disk_on_io(rig.disks[0], 1, SIM_IO_FAIL);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
		op = rig_write(&rig, STORE_DATA, 0, chunk, 3, 2);
		rig_wait(&rig, op);
		op = rig_write(&rig, STORE_DATA, 1, chunk, 3, 2);
		rig_wait(&rig, op);
	}
	ck_assert_int_eq(rig_device(&rig, 0).state, POOL_DEVICE_FAILED);
	ck_assert_int_eq(retire(&rig, 0, NULL), 0);
	wait_gone(&rig);
	rig_verify(&rig);
	op = rig_write(&rig, STORE_DATA, 0, 0, 3, 2);
	ck_assert_int_eq(rig_wait(&rig, op), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* An empty device is not taken for one that the index knows. */
START_TEST(a_swapped_device_is_not_taken_for_the_old_one)
{
	uint8_t *zeroes = calloc(1, 3u << 20);
	struct rig rig;

	rig_start_pool(&rig, 2, 9);
	rig_fill(&rig);
	rig_checkpoint(&rig);
	rig_crash(&rig, SIM_KILL);
	sim_disk_poke(rig.disks[1], 0, zeroes, 3u << 20);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, 1).state, POOL_DEVICE_MISSING);
	ck_assert_uint_eq(rig_device(&rig, 1).chunks, 3);
	rig_crash(&rig, SIM_KILL);
	sim_disk_poke(rig.disks[0], 0, zeroes, 3u << 20);
	ck_assert_int_eq(rig_open(&rig), -E_WRONG_NODE);
	sim_process_crash(rig.process, SIM_KILL);
	rig_deinit(&rig);
	free(zeroes);
}
END_TEST

/* Of a long life: devices that came and went, before all others in the index's order. */
static void many_have_retired(struct rig *rig)
{
	struct kv_batch *batch = kv_batch_create(rig->config.kv);

	for (uint32_t i = 0; i < 600; i++) {
		struct device_record record = {.state = RECORD_RETIRED};

		record.uuid.bytes[1] = (uint8_t)(i >> 8);
		record.uuid.bytes[2] = (uint8_t)i;
		snprintf(record.path, sizeof record.path, "gone%u", i);
		record_put_device(rig->config.kv, batch, &record);
	}
	ck_assert_int_eq(rig_commit(rig->config.kv, batch, rig), 0);
}

/* However many devices were retired before: one that was is known when it comes back, and one that
 * serves is not left out. */
START_TEST(any_number_of_devices_may_have_been_retired)
{
	const size_t size = FORMAT_SEGMENTS_OFFSET + MIB;
	uint8_t *before = malloc(size), zeroes[BLOCK_SIZE] = {0};
	struct rig rig;

	rig_start_pool(&rig, 2, 31);
	rig_fill(&rig);
	ck_assert_int_eq(rig_add_device(&rig, 2, NULL), 0); /* which only the index knows */
	sim_disk_peek(rig.disks[0], 0, before, size);
	ck_assert_int_eq(retire(&rig, 0, NULL), 0);
	wait_gone(&rig);
	many_have_retired(&rig);
	rig_crash(&rig, SIM_KILL);
	sim_disk_poke(rig.disks[0], 0, before, size); /* as if it had not been wiped */
	rig_must_open(&rig);
	ck_assert_int_eq(rig_device(&rig, 0).state, POOL_DEVICE_NONE);
	ck_assert_int_eq(rig_device(&rig, 2).state, POOL_DEVICE_SERVING);
	sim_disk_peek(rig.disks[0], 0, before, BLOCK_SIZE);
	ck_assert_mem_eq(before, zeroes, BLOCK_SIZE);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(before);
}
END_TEST

/* Two disks that say they are the same device, byte for byte: nobody can tell which of them holds
 * what was acknowledged, and two stores would write one index. */
START_TEST(a_copy_of_a_device_is_refused)
{
	const size_t size = RIG_DEVICE_MIB << 20;
	uint8_t *all = malloc(size);
	uint64_t commits;
	struct rig rig;

	rig_start_pool(&rig, 1, 50);
	rig_fill(&rig);
	if (_i == 1)
		rig_close(&rig);
	else
		rig_crash(&rig, SIM_KILL);
	sim_disk_peek(rig.disks[0], 0, all, size);
	sim_disk_poke(rig.disks[1], 0, all, size);
	rig.devices = 2;
	commits = sim_kv_commit_count(rig.sim_kv);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	ck_assert_ptr_nonnull(strstr(rig.err.text, rig_disk_path(0)));
	ck_assert_ptr_nonnull(strstr(rig.err.text, rig_disk_path(1)));
	/* Nor has the index learnt anything of either. */
	ck_assert_uint_eq(sim_kv_commit_count(rig.sim_kv), commits);
	sim_process_crash(rig.process, SIM_KILL);
	rig.devices = 1;
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(all);
}
END_TEST

/* A crash while a device is added, at any time; when the node starts again there is an empty one in
 * its place. What the index has of the first one is not taken for that of the second. */
START_TEST(a_device_that_was_not_taken_in_leaves_its_slot)
{
	uint8_t *zeroes = calloc(1, RIG_DEVICE_MIB << 20);
	bool over = false;
	struct rig rig;

	for (uint32_t steps = 1; !over; steps += 1 + steps / 16) {
		struct adding a = {.op = {.done = added, .path = rig_disk_path(1)}};

		rig_start_pool(&rig, 1, 60);
		rig_fence(&rig, 0, 1);
		rig_fill(&rig);
		sim_disk_set_slowness(rig.disks[1], 40);
		a.op.disk = rig_disk(&rig, 1);
		pool_add(rig.pool, &a.op);
		for (uint32_t i = 0; i < steps && !a.done; i++)
			ck_assert(sim_step(rig.world));
		over = a.done;
		rig_crash(&rig, SIM_POWER_LOSS);
		sim_disk_poke(rig.disks[1], 0, zeroes, RIG_DEVICE_MIB << 20);
		rig.devices = 2;
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	free(zeroes);
}
END_TEST

/* Without memory for a batch of the index: told, and nothing worse. */
START_TEST(a_batch_without_memory_is_told)
{
	struct rig rig;

	rig_start_pool(&rig, 2, 32);
	rig_fill(&rig);
	if (_i == 0) {
		sim_kv_fail_batches(rig.sim_kv, 1000);
		ck_assert_int_eq(rig_add_device(&rig, 2, NULL), -EIO);
	} else if (_i == 1) {
		sim_kv_fail_batches(rig.sim_kv, 1);
		ck_assert_int_eq(retire(&rig, 0, NULL), -EIO);
	} else if (_i == 2) {
		ck_assert_int_eq(retire(&rig, 0, NULL), 0);
		sim_kv_fail_batches(rig.sim_kv, 1000); /* the mover's */
		sim_run_for(rig.world, 10 * NS_PER_S);
	}
	if (_i < 3) {
		ck_assert_int_eq(pool_broken(rig.pool), -EIO);
		rig_verify(&rig);
		rig_crash(&rig, SIM_POWER_LOSS);
	} else {
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_boot(&rig);
		sim_kv_fail_batches(rig.sim_kv, 1000);
		ck_assert_int_eq(rig_open(&rig), -EIO);
		sim_process_crash(rig.process, SIM_KILL);
	}
	rig_must_open(&rig);
	ck_assert_int_eq(pool_broken(rig.pool), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Every I/O of adding a device fails once: where kv did, no chunk is changed any more, and that is
 * told; what was there can be read, and after a restart all is well. */
START_TEST(an_index_that_cannot_be_written_is_told)
{
	uint32_t broken = 0;

	for (uint64_t n = 1; n <= 40; n++) {
		struct rig rig;

		rig_start_pool(&rig, 1, 2);
		rig_write(&rig, STORE_DATA, 0, 0, 0, 20);
		ck_assert(rig_drain(&rig));
		ck_assert(rig_checkpoint(&rig));
		ck_assert_int_eq(pool_broken(rig.pool), 0);
		sim_process_on_io(rig.process, n, SIM_IO_FAIL);
		if (rig_add_device(&rig, 1, NULL) != 0 && pool_broken(rig.pool) != 0) {
			broken++;
			ck_assert_int_eq(pool_broken(rig.pool), -EIO);
			ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 0, 1)),
					 -EIO);
		}
		sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
		rig_verify(&rig);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		ck_assert_int_eq(pool_broken(rig.pool), 0);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(broken, 0);
}
END_TEST

/* One of three devices is being emptied: what is on its way to the third counts there already. */
START_TEST(two_are_not_retired_onto_one_that_is_too_small)
{
	char text[1000];
	struct rig rig;

	rig_devices = 3;
	rig_init(&rig, 6, 20);
	rig_must_open(&rig);
	fill_whole(&rig);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(retire(&rig, 0, NULL), 0);
	ck_assert_int_eq(retire(&rig, 1, text), -ENOSPC);
	ck_assert_msg(strstr(text, "others that are being retired 4 MiB,") != NULL, "%s", text);
	wait_gone(&rig);
	ck_assert_int_eq(retire(&rig, 1, text), -ENOSPC);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pool");
	Suite *s = suite_create("pool");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, chunks_are_spread_and_found_again);
	tcase_add_test(tc, what_is_told_is_the_sum);
	tcase_add_loop_test(tc, a_pass_is_over_when_each_device_had_one, 0, 2);
	tcase_add_loop_test(tc, random_work_is_what_a_store_owes, 0, 6);
	tcase_add_test(tc, a_fence_holds_on_all_devices);
	tcase_add_test(tc, a_fence_that_one_device_does_not_take_is_not_done);
	tcase_add_test(tc, an_added_device_joins_in);
	tcase_add_loop_test(tc, a_retired_device_is_emptied, 0, 32);
	tcase_add_loop_test(tc, a_pool_is_closed_amid_a_change, 0, 2);
	tcase_add_test(tc, what_does_not_fit_is_not_retired);
	tcase_add_test(tc, two_are_not_retired_onto_one_that_is_too_small);
	tcase_add_test(tc, a_failed_device_does_not_stop_the_others);
	tcase_add_loop_test(tc, a_damaged_device_does_not_stop_the_others, 0, 2);
	tcase_add_test(tc, a_failed_device_can_be_retired);
	tcase_add_test(tc, a_swapped_device_is_not_taken_for_the_old_one);
	tcase_add_loop_test(tc, a_copy_of_a_device_is_refused, 0, 2);
	tcase_add_test(tc, a_device_that_was_not_taken_in_leaves_its_slot);
	tcase_add_test(tc, an_index_that_cannot_be_written_is_told);
	tcase_add_test(tc, any_number_of_devices_may_have_been_retired);
	tcase_add_loop_test(tc, a_batch_without_memory_is_told, 0, 4);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
