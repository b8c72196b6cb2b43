/* Unit tests of the store on the simulated disk and kv: what it promises while nothing fails, and
 * what it refuses. Crashes: test_store_crash.c; what it does beside clients: test_store_pace.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/store/core.h"
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
static void random_life(uint64_t seed, uint32_t disk_mib, uint32_t rounds, bool primes,
			uint64_t cache_bytes)
{
	struct rig rig;

	rig_init(&rig, seed, disk_mib);
	rig.config.cache_bytes = cache_bytes;
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
	/* The small ones fill up, and are cleaned all the time. */
	static const uint32_t disks[] = {16, 19, 24, 64};
	static const uint64_t caches[] = {MIB, RIG_TINY_CACHE, 8 * KIB};

	random_life((uint64_t)_i + 1, disks[_i % 4], 16, _i % 8 >= 4, caches[_i % 3]);
}
END_TEST

/* -- space ------------------------------------------------------------------------------------ */

/* Fills every block of the volumes that the model knows, so far as the device takes it. */
static void fill(struct rig *rig, uint32_t chunks)
{
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < chunks; chunk++)
			for (block_no_t block = 0; block < RIG_BLOCKS; block += 64) {
				rig_write(rig, STORE_DATA, volume, chunk, block, 64);
				rig_drain_to(rig, 8);
			}
	ck_assert(rig_drain(rig));
}

START_TEST(a_full_device_refuses_and_reads_go_on)
{
	struct store_stats stats;
	struct rig rig;

	/* 12 MiB are wanted; of 13 segments 4 are the reserve. */
	rig_init(&rig, 1, 15);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	fill(&rig, RIG_CHUNKS);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_gt(rig.refused, 0);
	ck_assert_uint_gt(stats.live_bytes, stats.size_bytes - 2 * 64 * BLOCK_SIZE);
	rig_verify(&rig);
	/* What is overwritten or given back needs no more than there is. */
	rig.refused = 0;
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 64)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DISCARD, 0, 0, 0, 64)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 0, 64)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 64, 64)), -ENOSPC);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* What has no data has room where clients have none, however much of it comes: fences, watermarks,
 * and erases, which give space back. */
START_TEST(a_full_device_takes_what_has_no_data)
{
	struct rig rig;

	rig_init(&rig, 1, 15);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	fill(&rig, RIG_CHUNKS);
	for (block_no_t block = 0; block < RIG_BLOCKS; block += 16)
		rig_wait(&rig, rig_settle(&rig, 1, 2, block, 16)); /* the reserve too */
	ck_assert_int_eq(rig_wait(&rig, rig_settle(&rig, 1, 2, 448, 64)), -ENOSPC);
	/* One at a time, so each takes a block: more of them than the device has. */
	for (uint32_t i = 1; i <= 2000; i++) {
		version_t watermark = version_make(1, i);

		ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, i % 2, 1 + i / 2)), 0);
		ck_assert_int_eq(rig_wait(&rig, rig_watermark(&rig, 0, i % 2, watermark)), 0);
	}
	rig_verify(&rig);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, chunk)), 0);
	sim_run_for(rig.world, NS_PER_S);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 448, 64)), 0);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

struct raw {
	struct store_write op;
	struct sim_world *world;
	bool done;
	int status;
	uint64_t version, longest_ns;
	uint32_t crcs[IO_BLOCKS_MAX];
	uint8_t *data;
};

static void raw_done(struct store_write *op, int status)
{
	struct raw *r = container_of(op, struct raw, op);

	r->done = true;
	r->status = status;
}

/* A write that the model does not know, waited for. */
static int raw_write(struct rig *rig, struct raw *r, chunk_no_t chunk, block_no_t block,
		     uint32_t block_count)
{
	const uint64_t begun = rig->world->now_ns;

	r->op = (struct store_write){.done = raw_done,
				     .volume = 9,
				     .chunk = chunk,
				     .block = block,
				     .block_count = block_count,
				     .version = version_make(1, ++r->version),
				     .crcs = r->crcs,
				     .data = r->data};
	r->done = false;
	store_write(rig->store, &r->op);
	ck_assert(sim_run_flag(rig->world, &r->done));
	r->longest_ns = MAX(r->longest_ns, rig->world->now_ns - begun);
	return r->status;
}

/* While space is tight a write waits for what the cleaner gains: not for what it cannot gain, nor
 * for what others wrote meanwhile. */
START_TEST(nobody_waits_for_a_gain_that_does_not_come)
{
	enum { CHUNKS = 40 };
	struct space *space;
	struct raw r = {.data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX)};
	chunk_no_t chunk = 0;
	int64_t least = 0;
	struct rig rig;

	memset(r.data, 0x5a, IO_SIZE_MAX);
	crc32c_blocks(r.data, IO_BLOCKS_MAX, r.crcs);
	rig_init(&rig, (uint64_t)_i + 1, 66);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (; chunk < CHUNKS; chunk++)
		ck_assert_int_eq(raw_write(&rig, &r, chunk, 0, IO_BLOCKS_MAX), 0);
	/* As on a large device, where it is tight long before there is nothing left; what is there
	 * is dense, and hardly anything can be gained. */
	space = &rig.store->space;
	space->tight_below = 24;
	space->clean_below = 28;
	space->credit = 0;
	r.longest_ns = 0;
	for (uint32_t i = 0; i < 3000; i++) {
		const uint32_t count = 1 + (uint32_t)sim_random_below(rig.world, 8);
		const chunk_no_t any = (chunk_no_t)sim_random_below(rig.world, CHUNKS);
		const block_no_t block = (block_no_t)sim_random_below(rig.world, 249);

		ck_assert_int_eq(raw_write(&rig, &r, any, block, count), 0);
		/* Never by more than that write. */
		ck_assert_int_ge(space->credit, -9);
	}
	if (getenv("STORE_TEST_VERBOSE") != NULL)
		fprintf(stderr, "the longest write took %lu ns\n", r.longest_ns);
	ck_assert_uint_lt(r.longest_ns, NS_PER_S);
	/* What has no data waits for no credit, and is paid for by those that do: within bounds. */
	for (uint32_t i = 1; i <= 600; i++) {
		rig.store->cleaner.starving = false;
		ck_assert_int_eq(rig_wait(&rig, rig_watermark(&rig, 0, 0, version_make(1, i))), 0);
		ck_assert_int_ge(space->credit, -(int64_t)rig.store->segments.blocks);
		least = MIN(least, space->credit);
	}
	ck_assert_int_lt(least, 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(r.data);
}
END_TEST

/* While space is tight, what is earned by reading a victim counts at once: the disk is not left
 * alone by clients until the first of its blocks has moved. */
START_TEST(credit_is_spent_when_it_is_earned)
{
	const struct wlog_stream *hot;
	uint64_t idle_ns = 0, waited = 0;
	struct space *space;
	struct rig rig;

	rig_init(&rig, (uint64_t)_i + 1, 40);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	hot = &rig.store->wlog.streams[WLOG_HOT];
	space = &rig.store->space;
	space->tight_below = 24; /* long before there is nothing left */
	space->clean_below = 28;
	for (uint32_t i = 0; i < 4000; i++) {
		rig_write(&rig, STORE_DATA, i % 2, i % 3,
			  (block_no_t)sim_random_below(rig.world, 480), 8);
		while (rig.in_flight > 16) {
			const uint64_t before_ns = rig.world->now_ns;
			const bool idle =
			    space->credit > 0 && hot->data.head != NULL && hot->in_flight == 0;

			waited += hot->data.head != NULL && hot->in_flight == 0;
			ck_assert(sim_step(rig.world));
			idle_ns += idle ? rig.world->now_ns - before_ns : 0;
		}
	}
	ck_assert(rig_drain(&rig));
	if (getenv("STORE_TEST_VERBOSE") != NULL)
		fprintf(stderr, "idle for %lu ns, waited %lu steps\n", idle_ns, waited);
	ck_assert_uint_gt(waited, 0);
	ck_assert_uint_lt(idle_ns, NS_PER_MS);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static struct format_slot raw_slot(const struct rig *rig, chunk_no_t chunk, block_no_t block)
{
	struct index *ix = &rig->store->index;

	return index_find_slot(ix, index_find_chunk(ix, 9, chunk), block);
}

/* Damages what some segments hold: of each a block, or the header of its first group. */
static void damage(struct rig *rig, chunk_no_t chunks, bool headers)
{
	const struct segments *t = &rig->store->segments;
	const uint8_t junk[512] = {0x5b};

	for (chunk_no_t chunk = 0; chunk < chunks; chunk++) {
		uint32_t at = raw_slot(rig, chunk, 255).location;

		if (headers)
			at = segments_first_block(t, segments_of(t, at));
		sim_disk_poke(rig->sim_disk, (uint64_t)at * BLOCK_SIZE, junk, sizeof junk);
	}
}

static void raw_erased(struct store_erase_op *op, int status)
{
	(void)op;
	ck_assert_int_eq(status, 0);
}

/* A segment with damage in it cannot be emptied. What else lies there is not moved away from it, or
 * many of them would leave the log no place even for what needs hardly any. */
START_TEST(damaged_segments_cost_no_space)
{
	enum { CHUNKS = 60, DAMAGED = 30 };
	struct raw r = {.data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX)};
	struct store_erase_op erase = {.done = raw_erased, .volume = 9};
	struct store_stats before, after;
	chunk_no_t chunks = 0;
	struct rig rig;

	memset(r.data, 0x5a, IO_SIZE_MAX);
	crc32c_blocks(r.data, IO_BLOCKS_MAX, r.crcs);
	rig_init(&rig, (uint64_t)_i + 1, 66);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	while (chunks < CHUNKS && raw_write(&rig, &r, chunks, 0, IO_BLOCKS_MAX) == 0)
		chunks++;
	ck_assert_uint_gt(chunks, DAMAGED);
	ck_assert(rig_checkpoint(&rig));
	damage(&rig, DAMAGED, _i % 2 == 1);
	for (uint32_t i = 0; i < 6000; i++) {
		const chunk_no_t chunk = (chunk_no_t)sim_random_below(rig.world, chunks);
		int rc =
		    raw_write(&rig, &r, chunk, (block_no_t)sim_random_below(rig.world, 240), 8);

		ck_assert(rc == 0 || rc == -ENOSPC);
	}
	for (uint32_t i = 1; i <= 600; i++) {
		struct rig_op *op = rig_fence(&rig, 0, i);

		sim_run_for(rig.world, NS_PER_S / 2);
		ck_assert_msg(op->done, "fence %u waits", i);
	}
	/* And what gives space back does. */
	store_get_stats(rig.store, &before);
	erase.chunk = chunks - 1;
	store_erase(rig.store, &erase);
	sim_run_for(rig.world, NS_PER_S);
	store_get_stats(rig.store, &after);
	ck_assert_uint_eq(after.live_bytes + IO_SIZE_MAX, before.live_bytes);
	rig_deinit(&rig);
	free(r.data);
}
END_TEST

/* On a full device what settles a chunk has the reserve, and no more than that. */
START_TEST(the_reserve_is_for_what_settles)
{
	struct store_stats before, after;
	uint32_t taken = 0;
	struct rig rig;

	rig_init(&rig, 1, 15);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	fill(&rig, RIG_CHUNKS);
	store_get_stats(rig.store, &before);
	ck_assert_uint_gt(before.reserve_bytes, 0);
	ck_assert_uint_lt(before.free_bytes, 64 * BLOCK_SIZE);
	for (block_no_t block = 0; block < RIG_BLOCKS; block += 16) {
		int rc = rig_wait(&rig, rig_settle(&rig, 1, 2, block, 16));

		ck_assert(rc == 0 || rc == -ENOSPC);
		taken += rc == 0;
		ck_assert_int_ne(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 448, 64)), 0);
	}
	store_get_stats(rig.store, &after);
	ck_assert_uint_gt(taken, 0);
	ck_assert_uint_gt(after.live_bytes, before.live_bytes);
	ck_assert_uint_le(after.live_bytes, after.size_bytes + after.reserve_bytes);
	/* It is given back as well. */
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DISCARD, 0, 0, 0, 256)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_ZERO, 0, 1, 0, 256)), 0);
	store_get_stats(rig.store, &before);
	ck_assert_uint_eq(before.live_bytes + 512 * BLOCK_SIZE, after.live_bytes);
	ck_assert_uint_gt(before.free_bytes, 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 448, 64)), 0);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* The last writes of a full device wait for the cleaner; closing waits for them. */
START_TEST(closing_waits_for_what_waits_for_space)
{
	struct rig rig;
	bool waited = false;

	rig_init(&rig, 3, 22);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	fill(&rig, RIG_CHUNKS);
	for (uint32_t i = 0; i < 40; i++) {
		for (uint32_t k = 0; k < 40; k++)
			rig_write(&rig, STORE_DATA, k % 2, k % 3, (k * 41 + i) % 480, 32);
		if (rig.in_flight == 40 && i % 8 == 7) {
			rig_close(&rig);
			ck_assert_uint_eq(rig.in_flight, 0);
			waited = true;
			rig_must_open(&rig);
		}
		ck_assert(rig_drain(&rig));
	}
	ck_assert(waited);
	ck_assert_uint_eq(rig.refused, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* So does what has no data. It may open segments where clients may not; but there is an end of
 * those too, and only the cleaner makes others. */
START_TEST(closing_waits_for_what_has_no_data)
{
	const struct wlog_stream *hot;
	struct space bounds;
	struct rig rig;

	rig_init(&rig, 4, 26);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	hot = &rig.store->wlog.streams[WLOG_HOT];
	bounds = rig.store->space;
	rig.store->space.tight_below = rig.store->space.clean_below = 0;
	rig.store->space.floor_segments = 2;
	fill(&rig, RIG_CHUNKS);
	while (segments_available(&rig.store->segments) > 2) {
		rig_write(&rig, STORE_DATA, 0, 0,
			  (block_no_t)sim_random_below(rig.world, RIG_BLOCKS), 1);
		ck_assert(rig_drain(&rig));
	}
	/* At once, before the tidier finds that nobody is at work. */
	for (uint32_t i = 0; !hot->stalled; i++) {
		rig_watermark(&rig, 0, 0, version_make(1, 1 + i));
		while (rig.in_flight > 0 && !hot->stalled)
			ck_assert(sim_step(rig.world));
	}
	rig.store->space = bounds;
	rig_close(&rig);
	ck_assert_uint_eq(rig.in_flight, 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Entries without data need places in the index, of which there is an end too. */
START_TEST(tombstones_are_bounded)
{
	struct store_stats stats;
	struct rig rig;
	uint32_t refused = 0;

	rig_init(&rig, 1, 24);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (uint32_t i = 0; i < 6000; i++) {
		struct rig_op *op = rig_discard_far(&rig, i / 1000, i % 1000 * 256, 256);

		if (rig_wait(&rig, op) == -ENOSPC)
			refused++;
	}
	ck_assert_uint_gt(refused, 100);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_lt(stats.memory_bytes, 40 * MIB);
	ck_assert_int_eq(rig_wait(&rig, rig_discard_far(&rig, 0, 0, 256)), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Two stores on one device and one index see nothing of each other. */
START_TEST(shards_share_a_device)
{
	struct store_chunk_state state;
	uint64_t before;
	struct rig rig;

	rig_init(&rig, 1, 40);
	rig.config.identity.shard_count = 2;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 200)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 1, 0, 200)), 0);
	rig_close(&rig);
	rig.config.identity.shard = 1;
	rig_must_open(&rig);
	ck_assert_uint_eq(store_chunks(rig.store, rig_volume_id(0), 0, &state, 1), 0);
	before = rig.model.try_count;
	rig.model.generation = 9;
	for (uint32_t i = 0; i < 40; i++)
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 0, 200)), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_close(&rig);
	/* The model knows one shard: what the other one did is not owed by this. */
	rig.model.try_count = before;
	memset(&rig.model.chunks[0][2], 0, sizeof rig.model.chunks[0][2]);
	rig.config.identity.shard = 0;
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A device of which `used_mib` of live data are overwritten at random, many times its size. */
static void overwrite(uint64_t seed, uint32_t disk_mib, uint32_t writes, uint32_t max_blocks,
		      bool primes, uint64_t cache_bytes)
{
	struct store_stats stats;
	struct rig rig;

	rig_init(&rig, seed, disk_mib);
	rig.config.cache_bytes = cache_bytes;
	rig.primes = primes;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	fill(&rig, RIG_CHUNKS);
	ck_assert_uint_eq(rig.refused, 0);
	for (uint32_t i = 0; i < writes; i++) {
		uint32_t count = (uint32_t)sim_random_range(rig.world, 1, max_blocks);

		rig_write(&rig, STORE_DATA, (uint32_t)sim_random_below(rig.world, RIG_VOLUMES),
			  (uint32_t)sim_random_below(rig.world, RIG_CHUNKS),
			  (block_no_t)sim_random_below(rig.world, RIG_BLOCKS - count + 1), count);
		rig_begin_read(&rig, (uint32_t)sim_random_below(rig.world, RIG_VOLUMES),
			       (uint32_t)sim_random_below(rig.world, RIG_CHUNKS),
			       (block_no_t)sim_random_below(rig.world, RIG_BLOCKS - count + 1),
			       count);
		rig_drain_to(&rig, 32);
		if (i % 1000 == 999) {
			ck_assert(rig_drain(&rig));
			rig_verify(&rig);
		}
	}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig.refused, 0);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_gt(stats.cleaned_segments, 3);
	if (getenv("STORE_TEST_VERBOSE") != NULL)
		fprintf(stderr,
			"disk %u MiB, live %.1f of %.1f MiB: %lu segments cleaned, %lu blocks "
			"written, %lu moved, %lu checkpoints\n",
			disk_mib, (double)stats.live_bytes / (double)MIB,
			(double)stats.size_bytes / (double)MIB, stats.cleaned_segments,
			stats.blocks_written, stats.moved_blocks, stats.checkpoints);
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}

START_TEST(overwriting_goes_on_for_ever)
{
	/* 12 MiB live. Bound of what may be live: 12.2, 13.1, 15, 28 MiB. */
	static const uint32_t disks[] = {22, 23, 25, 40};

	overwrite((uint64_t)_i + 1, disks[_i % 4], 3000, _i < 4 ? 24 : 2, _i == 2,
		  _i < 8 ? MIB : RIG_TINY_CACHE);
}
END_TEST

/* -- groups ----------------------------------------------------------------------------------- */

/* What comes in one turn leaves in one write of the disk, headers and all. */
START_TEST(writes_of_one_turn_share_groups)
{
	static const uint32_t counts[] = {1, 8, RIG_DEPTH_MAX};
	struct rig rig;

	rig_init(&rig, 1, 40);
	rig.config.group_fill_blocks = 0;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (uint32_t i = 0; i < ARRAY_SIZE(counts); i++) {
		const struct sim_disk_stats before = *sim_disk_stats(rig.sim_disk);
		struct sim_disk_stats after;

		for (uint32_t k = 0; k < counts[i]; k++)
			rig_write(&rig, STORE_DATA, 0, 0, k * 3, 1);
		ck_assert(rig_drain(&rig));
		after = *sim_disk_stats(rig.sim_disk);
		ck_assert_uint_eq(after.writes - before.writes, 1);
		ck_assert_uint_eq(after.written_bytes - before.written_bytes,
				  (uint64_t)(counts[i] + 1) * BLOCK_SIZE);
		ck_assert_uint_eq(after.flushes, before.flushes);
	}
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static uint64_t disk_writes(const struct rig *rig)
{
	return sim_disk_stats(rig->sim_disk)->writes;
}

/* While a group is being written, what is not worth one of its own waits for it, and then leaves as
 * one; what is worth it leaves beside it. */
START_TEST(small_writes_wait_for_the_group_in_flight)
{
	const uint32_t blocks = 4, enough = WLOG_FILL_BLOCKS / blocks;
	uint64_t first, before;
	struct rig rig;

	rig_init(&rig, 1, 40);
	rig.config.group_fill_blocks = 0;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	for (uint32_t more = enough - 1; more <= enough; more++) {
		before = disk_writes(&rig);
		rig_write(&rig, STORE_DATA, 0, 0, 0, 1);
		while (disk_writes(&rig) == before)
			ck_assert(sim_step(rig.world));
		for (uint32_t k = 1; k <= more; k++)
			rig_write(&rig, STORE_DATA, 0, 0, k * 5, blocks);
		first = 0;
		while (rig.in_flight > 0) {
			ck_assert(sim_step(rig.world));
			if (rig.in_flight == more + 1)
				first = disk_writes(&rig) - before;
		}
		ck_assert_uint_eq(first, more < enough ? 1 : 2);
		ck_assert_uint_eq(disk_writes(&rig) - before, 2);
	}
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- payloads --------------------------------------------------------------------------------- */

/* A disk over the disk that sees from where it is written. */
struct spy {
	struct disk head;
	struct disk *inner;
	const uint8_t *data; /* a payload's memory, IO_SIZE_MAX */
	uint64_t direct_bytes;
};

static void spy_submit(struct disk *head, struct disk_op *op)
{
	struct spy *spy = container_of(head, struct spy, head);

	for (uint32_t i = 0; op->kind == DISK_WRITE && i < op->iov_count; i++) {
		const uint8_t *base = op->iovs[i].iov_base;

		if (base >= spy->data && base < spy->data + IO_SIZE_MAX)
			spy->direct_bytes += op->iovs[i].iov_len;
	}
	disk_submit(spy->inner, op);
}

/* Up to STORE_COPY_MAX a payload is copied to where its group gathers; a larger one never. */
START_TEST(large_payloads_are_not_copied)
{
	static const struct disk_ops spy_ops = {.submit = spy_submit};
	static const uint32_t counts[] = {1, 2, 16, 17, 100, IO_BLOCKS_MAX};
	struct spy spy;
	struct rig rig;

	rig_init(&rig, 1, 24);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	spy = (struct spy){
	    .head = *rig.config.disk, .inner = rig.config.disk, .data = rig.ops[0].data};
	spy.head.ops = &spy_ops;
	rig.config.disk = &spy.head;
	rig_must_open(&rig);
	/* Twice: every other one lends its payload until it is submitted only. */
	for (uint32_t i = 0; i < 2 * ARRAY_SIZE(counts); i++) {
		const uint32_t count = counts[i % ARRAY_SIZE(counts)];
		const uint64_t size = (uint64_t)count * BLOCK_SIZE;

		spy.direct_bytes = 0;
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, i % 3, i, count)),
				 0);
		ck_assert_uint_eq(spy.direct_bytes, size > STORE_COPY_MAX ? size : 0);
		if (i + 1 == ARRAY_SIZE(counts))
			ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_ZERO, 1, 0, i, 1)),
					 0);
	}
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- erasing in the midst of things ----------------------------------------------------------- */

/* The copy is erased while a write to it waits: that says what the copy had, not what it has. */
START_TEST(a_write_that_waits_for_an_erase_claims_nothing)
{
	struct store_chunk_state state = {0};
	struct rig_op *write, *watermark;
	version_t version;
	struct rig rig;

	rig_init(&rig, 29, 64);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 16)), 0);
	rig_erase(&rig, 0, 0);
	write = rig_write(&rig, STORE_DATA, 0, 0, 64, 1);
	version = write->write.version;
	write->write.watermark = version - 1;
	watermark = rig_watermark(&rig, 0, 0, version);
	ck_assert_int_eq(rig_wait(&rig, watermark), -E_STALE_REPLICA);
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(store_chunks(rig.store, rig_volume_id(0), 0, &state, 1), 1);
	ck_assert_uint_eq(state.newest, version);
	ck_assert_uint_eq(state.watermark, 0);
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_erase_meets_a_checkpoint)
{
	for (uint32_t delay = 0; delay < 30; delay++) {
		struct rig rig;

		rig_init(&rig, delay + 1, 24);
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		rig_write(&rig, STORE_DATA, 0, 0, 0, 100);
		for (uint32_t i = 0; i < 200; i++) {
			rig_discard_far(&rig, 0, i * 256, 256);
			rig_drain_to(&rig, 40);
		}
		rig_write(&rig, STORE_DATA, 0, 0, 200, 100);
		ck_assert(rig_drain(&rig));
		store_want_checkpoint(rig.store);
		sim_run_for(rig.world, delay * 30000);
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 5, 3)), 0);
		ck_assert(rig_checkpoint(&rig));
		ck_assert(rig_checkpoint(&rig));
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
}
END_TEST

/* An erase and a write of resync at the same time: either order, but what is seen then stays. */
START_TEST(an_erase_meets_resync)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);

	for (uint64_t seed = 1; seed < 80; seed++) {
		version_t before[200], after[200];
		uint32_t crcs[200];
		struct rig rig;

		rig_init(&rig, seed, 24);
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		ck_assert(rig_checkpoint(&rig));
		rig_resync(&rig, 0, 0, 0, 200);
		sim_run_for(rig.world, seed * 10000);
		rig_erase(&rig, 0, 0);
		sim_run_for(rig.world, seed % 8 * 1000);
		rig_resync(&rig, 0, 0, 50, 1);
		ck_assert(rig_drain(&rig));
		ck_assert_int_eq(rig_read(&rig, 0, 0, 0, 200, data, crcs, before, NULL), 0);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		ck_assert_int_eq(rig_read(&rig, 0, 0, 0, 200, data, crcs, after, NULL), 0);
		ck_assert(memcmp(before, after, sizeof before) == 0);
		rig_deinit(&rig);
	}
	free(data);
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
	tcase_add_loop_test(tc, random_work_matches_the_model, 0, 24);
	tcase_add_test(tc, a_full_device_refuses_and_reads_go_on);
	tcase_add_test(tc, a_full_device_takes_what_has_no_data);
	tcase_add_loop_test(tc, nobody_waits_for_a_gain_that_does_not_come, 0, 4);
	tcase_add_test(tc, the_reserve_is_for_what_settles);
	tcase_add_test(tc, writes_of_one_turn_share_groups);
	tcase_add_test(tc, small_writes_wait_for_the_group_in_flight);
	tcase_add_test(tc, large_payloads_are_not_copied);
	tcase_add_test(tc, closing_waits_for_what_waits_for_space);
	tcase_add_test(tc, closing_waits_for_what_has_no_data);
	tcase_add_test(tc, tombstones_are_bounded);
	tcase_add_test(tc, shards_share_a_device);
	tcase_add_test(tc, a_write_that_waits_for_an_erase_claims_nothing);
	tcase_add_test(tc, an_erase_meets_a_checkpoint);
	tcase_add_test(tc, an_erase_meets_resync);
	tcase_add_loop_test(tc, overwriting_goes_on_for_ever, 0, 12);
	suite_add_tcase(s, tc);
	tc = tcase_create("tight");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, credit_is_spent_when_it_is_earned, 0, 3);
	tcase_add_loop_test(tc, damaged_segments_cost_no_space, 0, 6);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
