/* Erasures that leave nothing behind (engine/store/wipe.h): what is on the raw device afterwards,
 * and what else the store owes all the while. Crashes: test_store_wipe_crash.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "test_wipe_rig.h"

/* Of every chunk: what is there, what was overwritten, zeroed and discarded since, what the cleaner
 * and resync brought to other places; some in the log only. */
static void long_history(struct rig *rig, uint32_t rounds)
{
	for (uint32_t i = 0; i < rounds; i++) {
		rig_random_op(rig, false);
		rig_drain_to(rig, 6);
		if (i % 100 == 50)
			rig_checkpoint(rig);
	}
	ck_assert(rig_drain(rig));
}

START_TEST(nothing_of_it_is_left)
{
	struct store_stats stats;
	struct rig rig;

	wipe_rig_begin(&rig, 100 + (uint64_t)_i);
	rig.primes = _i % 2 == 1;
	rig_close(&rig);
	rig_must_open(&rig);
	long_history(&rig, 600);
	if (_i % 3 == 1) {
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		long_history(&rig, 20);
	}
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	ck_assert_uint_gt(wipe_rig_remains(&rig, 0, 1), 100);
	wipe_rig_wipe(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 0);
	ck_assert_uint_eq(wipe_rig.op.bytes, wipe_rig.op.segments * (uint64_t)MIB);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_eq(stats.wiped_segments, wipe_rig.op.segments);
	ck_assert_uint_eq(stats.wiping_segments, 0);
	rig_verify(&rig);
	/* It is so durably, and nobody has to do it twice. */
	rig_crash(&rig, SIM_POWER_LOSS);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	long_history(&rig, 60);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* What nothing is left of costs nothing, as long as nothing crashed. */
START_TEST(what_is_gone_is_not_wiped_again)
{
	struct rig rig;

	wipe_rig_begin(&rig, 7);
	for (uint32_t i = 0; i < 3; i++)
		rig_write(&rig, STORE_DATA, 0, 1, i * 100, 100);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 1, true), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 1);
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 1, true), 0);
	ck_assert_uint_eq(wipe_rig.op.segments, 0);
	/* Of a volume, and of a chunk, that never was; and the segment in use is not needed for it.
	 */
	rig_write(&rig, STORE_DATA, 0, 2, 0, 100);
	ck_assert(rig_drain(&rig));
	wipe_rig_wipe(&rig, 1, UINT32_MAX, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_eq(wipe_rig.op.segments, 0);
	wipe_rig_wipe(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_eq(wipe_rig.op.segments, 0);
	rig_deinit(&rig);
}
END_TEST

/* A whole volume, of which chunks were dropped before, and not wiped. */
START_TEST(a_whole_volume)
{
	struct rig rig;

	wipe_rig_begin(&rig, 11);
	long_history(&rig, 500);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 1, chunk)), 0);
	wipe_rig_wipe(&rig, 1, UINT32_MAX, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		ck_assert_uint_eq(wipe_rig_remains(&rig, 1, chunk), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(segments_are_discarded)
{
	struct rig rig;
	uint64_t before;

	wipe_rig_begin(&rig, 12);
	long_history(&rig, 400);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	before = sim_disk_stats(rig.sim_disk)->discards;
	wipe_rig_wipe(&rig, 0, 1, false);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 0);
	ck_assert_uint_ge(sim_disk_stats(rig.sim_disk)->discards, before + wipe_rig.op.segments);
	/* A device may ignore it: who wants it overwritten gets that. */
	wipe_rig_wipe(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* As full as clients can make it: the moves take from the reserve, and clients go on. */
START_TEST(a_full_device)
{
	struct rig rig;
	uint64_t refused;

	wipe_rig_begin(&rig, 13);
	for (uint32_t round = 0; round < 4; round++)
		for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
			for (block_no_t block = 0; block < RIG_BLOCKS; block += 64)
				for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
					rig_write(&rig, STORE_DATA, volume, chunk,
						  (block + round * 13) % (RIG_BLOCKS - 64), 64);
					rig_drain_to(&rig, 4);
				}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_gt(rig.refused, 0);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	wipe_rig_wipe(&rig, 0, 0, true);
	refused = rig.refused;
	for (uint32_t i = 0; !wipe_rig.done; i++) {
		/* Of the erased chunk too: what is new is not meant. */
		rig_write(&rig, STORE_DATA, 0, i % 3, (i * 31) % 300, 9);
		rig_drain_to(&rig, 4);
		ck_assert_uint_lt(i, 5000);
	}
	ck_assert_int_eq(wipe_rig.status, 0);
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig.refused, refused);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* While space is tight clients pay with what the cleaner earns. What it empties for an erasure may
 * give nothing, and on a large device that goes on for hours: who is without credit does not wait
 * for the end of it, nor for that of a second segment. */
START_TEST(clients_go_on_while_nothing_is_gained)
{
	uint64_t paid_at = 0, most = 0;
	struct rig rig;

	wipe_rig_mib = 30;
	rig_init(&rig, 33, wipe_rig_mib);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	/* A block of what is to be erased in each of dense segments. */
	for (uint32_t i = 0; i < 20; i++) {
		const uint32_t chunk = i % 5;

		rig_write(&rig, STORE_DATA, chunk / 3, chunk % 3, i / 5 * 128, 128);
		rig_write(&rig, STORE_DATA, 1, 2, i, 1);
		ck_assert(rig_drain(&rig));
	}
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 1, 2)), 0);
	sim_run_for(rig.world, 100 * NS_PER_MS);
	rig.store->space.tight_below = 24;
	rig.store->space.clean_below = 26;
	wipe_rig_wipe(&rig, 1, 2, true);
	for (uint32_t i = 0; !wipe_rig.done; i++) {
		rig_write(&rig, STORE_DATA, 0, 0, i * 8 % 504, 8);
		while (rig.in_flight > 4) {
			const struct store *store = rig.store;
			const struct segments *t = &store->segments;

			ck_assert(sim_step(rig.world));
			if (store->space.credit > 0 || store->cleaner.starving ||
			    t->array[store->cleaner.victim].wipe == SEGMENT_WIPE_NOT)
				paid_at = store->stats.cleaned_segments;
			most = MAX(most, store->stats.cleaned_segments - paid_at);
		}
		ck_assert_uint_lt(i, 10000);
	}
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(wipe_rig.status, 0);
	ck_assert_uint_gt(rig.store->stats.cleaned_segments, 5);
	ck_assert_uint_le(most, 1);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 1, 2), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Erased and written anew while the cleaner has what it was in its hands, and has not begun to move
 * it: in a segment that takes it many steps. */
START_TEST(a_move_brings_nothing_back)
{
	uint32_t met = 0;

	for (uint64_t seed = 1; seed <= 12; seed++) {
		const struct cleaner *c;
		struct rig rig;

		wipe_rig_mib = 4 * 16;
		rig_init(&rig, seed, wipe_rig_mib);
		rig.segment_bytes = 4 << 20;
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		for (block_no_t block = 0; block < 300; block += 20)
			for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
				rig_write(&rig, STORE_DATA, 0, chunk, block, 20);
				rig_drain_to(&rig, 8);
			}
		ck_assert(rig_drain(&rig));
		/* The cleaner is at work for another chunk. */
		c = &rig.store->cleaner;
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
		wipe_rig_wipe(&rig, 0, 0, true);
		while (c->state != CLEANER_MOVING)
			ck_assert(sim_step(rig.world));
		while (c->next < seed * 20)
			ck_assert(sim_step(rig.world));
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 2)), 0);
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 2, 0, 200)), 0);
		met += c->state == CLEANER_MOVING && c->next < c->block_count;
		ck_assert_int_eq(wipe_rig_wait(&rig), 0);
		wipe_rig_wipe(&rig, 0, 2, true);
		ck_assert_int_eq(wipe_rig_wait(&rig), 0);
		ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
		ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 2), 0);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(met, 3);
}
END_TEST

/* -- what goes wrong -------------------------------------------------------------------------- */

static struct disk_fault_plan plan;

START_TEST(an_error_is_told_and_tried_again)
{
	struct rig rig;

	plan = (struct disk_fault_plan){0};
	wipe_rig_mib = WIPE_RIG_MIB;
	rig_init(&rig, 21, wipe_rig_mib);
	rig.faults = &plan;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	long_history(&rig, 300);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	/* Of the zeroes, which are written 1 MiB at a time: no group is as large. */
	plan.faults[0] = (struct disk_fault){
	    .kind = _i == 0 ? DISK_FAULT_ERROR : DISK_FAULT_SHORT,
	    .on_kinds = DISK_FAULT_ON(DISK_WRITE),
	    .size_min = MIB,
	    .skip = 1,
	    .times = 1,
	    .status = -EIO,
	};
	plan.count = 1;
	wipe_rig_wipe(&rig, 0, 0, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), -EIO);
	ck_assert_uint_eq(plan.faults[0].hits, 1);
	ck_assert_int_eq(store_failure(rig.store), 0);
	wipe_rig_wipe(&rig, 0, 0, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- damaged neighbours ----------------------------------------------------------------------- */

static struct store_stats stats_of(const struct rig *rig)
{
	struct store_stats stats;

	store_get_stats(rig->store, &stats);
	return stats;
}

static struct store_scrub_stats scrub_of(const struct rig *rig)
{
	return stats_of(rig).scrub;
}

/* It leaves its segment as it is, nothing of what lay there goes with it, and it is known to be
 * damaged until it is repaired: under the version that it has, or another. */
START_TEST(a_damaged_neighbour_moves_as_it_is)
{
	uint8_t erased[BLOCK_SIZE];
	struct format_slot slot;
	struct rig rig;
	uint64_t seq;

	wipe_rig_begin(&rig, 22);
	seq = wipe_rig_damaged_neighbour(&rig);
	/* A write that went astray: what lies there belongs to the chunk that is erased. */
	slot = wipe_rig_slot(&rig, 0, 1, 7);
	rig_content(1, 3, erased);
	sim_disk_poke(rig.sim_disk, (uint64_t)slot.location * BLOCK_SIZE, erased, sizeof erased);
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 6), 0);
		ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 7), -E_BAD_CRC);
		ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 8), 0);
		ck_assert_uint_eq(scrub_of(&rig).damaged, 1);
		ck_assert_uint_eq(scrub_of(&rig).repaired, 0);
		sim_run_for(rig.world, 3 * SCRUB_LOOK_NS);
		ck_assert_uint_eq(scrub_of(&rig).damaged, 1);
		if (i == 0)
			rig_crash(&rig, SIM_POWER_LOSS); /* the move is in the log alone */
		else
			rig_close(&rig);
		rig_must_open(&rig);
	}
	if (_i == 0)
		ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, seq, true)), 0);
	else
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 7, 1)), 0);
	sim_run_for(rig.world, 3 * SCRUB_LOOK_NS);
	ck_assert_uint_eq(scrub_of(&rig).damaged, 0);
	ck_assert_uint_eq(scrub_of(&rig).repaired, 1);
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static void zeroes_written(struct store_write *op, int status)
{
	(void)op;
	ck_assert_int_eq(status, 0);
}

static int zeroes_status;

static void zeroes_read(struct store_read *op, int status)
{
	(void)op;
	zeroes_status = status;
}

/* What is written in the place of a damaged block of zeroes are not zeroes. */
START_TEST(damaged_zeroes_do_not_become_good)
{
	static uint8_t data[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
	static struct store_write write;
	static struct store_read read;
	static uint32_t crc;
	struct rig rig;

	wipe_rig_begin(&rig, 24);
	crc = CRC32C_ZERO_BLOCK;
	memset(data, 0, sizeof data);
	write = (struct store_write){
	    .done = zeroes_written,
	    .kind = STORE_DATA,
	    .volume = rig_volume_id(0),
	    .chunk = 1,
	    .block = 7,
	    .block_count = 1,
	    .version = version_make(1, 1000),
	    .crcs = &crc,
	    .data = data,
	};
	store_write(rig.store, &write);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 60);
	ck_assert(rig_drain(&rig));
	ck_assert(rig_checkpoint(&rig));
	wipe_rig_rot(&rig, 0, 1, 7);
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 0);
	read = (struct store_read){
	    .done = zeroes_read,
	    .volume = rig_volume_id(0),
	    .chunk = 1,
	    .block = 7,
	    .block_count = 1,
	    .data = data,
	    .ret_crcs = &crc,
	};
	zeroes_status = 1;
	store_read(rig.store, &read);
	while (zeroes_status == 1)
		ck_assert(sim_step(rig.world));
	ck_assert_int_eq(zeroes_status, -E_BAD_CRC);
	rig_deinit(&rig);
}
END_TEST

/* It is read a second time, and good then; or it was not read at all the first time: then it is a
 * matter of another time. */
START_TEST(what_was_only_read_badly_is_not_given_up)
{
	struct format_slot slot;
	struct rig rig;
	uint32_t at;

	plan = (struct disk_fault_plan){0};
	wipe_rig_mib = WIPE_RIG_MIB;
	rig_init(&rig, 25, wipe_rig_mib);
	rig.faults = &plan;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 60);
	rig_write(&rig, STORE_DATA, 0, 1, 0, 60);
	ck_assert(rig_drain(&rig));
	slot = wipe_rig_slot(&rig, 0, 1, 7);
	at = (slot.location - FORMAT_SEGMENTS_BLOCK) % (CLEANER_READ_BYTES / BLOCK_SIZE);
	plan.faults[1] = (struct disk_fault){
	    .kind = DISK_FAULT_ERROR,
	    .on_kinds = DISK_FAULT_ON(DISK_READ),
	    .from = (uint64_t)slot.location * BLOCK_SIZE,
	    .to = (uint64_t)(slot.location + 1) * BLOCK_SIZE,
	    .times = 1,
	    .status = -EIO,
	};
	plan.faults[0] = (struct disk_fault){
	    .kind = DISK_FAULT_FLIP,
	    .on_kinds = DISK_FAULT_ON(DISK_READ),
	    .from = (uint64_t)slot.location * BLOCK_SIZE,
	    .to = (uint64_t)(slot.location + 1) * BLOCK_SIZE,
	    .times = 1,
	    .bit = (uint64_t)at * BLOCK_SIZE * 8 + 77,
	};
	plan.count = 1;
	if (_i == 1) {
		plan.faults[0].skip = 1;
		plan.count = 2;
		ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), -E_BAD_CRC);
	}
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), 0);
	ck_assert_uint_eq(plan.faults[0].hits, 1);
	ck_assert_uint_eq(scrub_of(&rig).found, 1);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Known or not: unless an erasure wants it, what does not check stays where it is. */
START_TEST(what_is_damaged_stays_where_no_erasure_is)
{
	struct format_slot slot;
	struct rig rig;
	uint32_t no;

	wipe_rig_begin(&rig, 38);
	wipe_rig_damaged_neighbour(&rig);
	ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 7), -E_BAD_CRC);
	ck_assert_uint_eq(scrub_of(&rig).damaged, 1);
	slot = wipe_rig_slot(&rig, 0, 1, 7);
	no = segments_of(&rig.store->segments, slot.location);
	wlog_leave_segment(rig.store, no);
	rig.store->space.clean_below = rig.store->segments.own_count;
	cleaner_kick(rig.store);
	sim_run_for(rig.world, NS_PER_S);
	ck_assert(rig.store->segments.array[no].stuck);
	ck_assert_uint_eq(wipe_rig_slot(&rig, 0, 1, 7).location, slot.location);
	rig_deinit(&rig);
}
END_TEST

/* What lies under it is not found: that segment is passed over, and told. */
START_TEST(a_damaged_header_keeps_its_segment)
{
	struct rig rig;
	uint64_t header;
	uint8_t byte = 0xff;

	wipe_rig_begin(&rig, 26);
	rig_write(&rig, STORE_DATA, 0, 0, 0, 60);
	ck_assert(rig_drain(&rig));
	rig_write(&rig, STORE_DATA, 0, 1, 0, 60);
	ck_assert(rig_drain(&rig));
	ck_assert(rig_checkpoint(&rig));
	header = (uint64_t)(wipe_rig_slot(&rig, 0, 1, 0).location - 1) * BLOCK_SIZE;
	sim_disk_poke(rig.sim_disk, header + 100, &byte, 1);
	ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), -E_BAD_CRC);
	/* It is written again, as the host does when it is told. */
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 2, true)), 0);
	wipe_rig_wipe(&rig, 0, 0, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static void moved(struct store *store, struct cleaner_move *m, int status)
{
	(void)store;
	(void)m;
	ck_assert_int_eq(status, 0);
}

/* Block 7 of chunk 1 moves as it is, at once. Lent until it is done. */
static void begin_bad_move(struct rig *rig)
{
	static uint8_t nothing[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
	static struct cleaner_move move;
	static struct format_slot slot;

	slot = wipe_rig_slot(rig, 0, 1, 7);
	move = (struct cleaner_move){
	    .volume = rig_volume_id(0),
	    .chunk = 1,
	    .block = 7,
	    .count = 1,
	    .version = slot.version,
	    .location = slot.location,
	    .data = nothing,
	    .crcs = &slot.crc,
	    .bad = true,
	    .done = moved,
	};
	cleaner_begin_move(rig->store, &move);
}

/* A repair that is in the log before the move is not undone by it, in recovery either. */
START_TEST(a_repair_is_not_undone)
{
	struct rig_op *repair;
	struct rig rig;
	uint64_t seq;

	wipe_rig_begin(&rig, 27);
	seq = wipe_rig_damaged_neighbour(&rig);
	repair = rig_repeat(&rig, seq, true);
	while (rig.store->wlog.unapplied == 0)
		ck_assert(sim_step(rig.world));
	ck_assert(!repair->done);
	begin_bad_move(&rig);
	ck_assert_int_eq(rig_wait(&rig, repair), 0);
	sim_run_for(rig.world, NS_PER_S);
	rig_verify(&rig);
	rig_crash(&rig, SIM_KILL);
	rig_must_open(&rig);
	ck_assert_uint_gt(stats_of(&rig).recovered_groups, 1);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A group that holds what is known to be damaged is not taken for torn: the log goes on behind it.
 */
START_TEST(the_log_goes_on_behind_it)
{
	struct format_slot before, after;
	struct rig rig;
	uint64_t seq;

	wipe_rig_begin(&rig, 28);
	seq = wipe_rig_damaged_neighbour(&rig);
	before = wipe_rig_slot(&rig, 0, 1, 7);
	begin_bad_move(&rig);
	sim_run_for(rig.world, NS_PER_S);
	after = wipe_rig_slot(&rig, 0, 1, 7);
	ck_assert_uint_ne(before.location, after.location);
	/* Not durable for certain until a later group says so. */
	if (_i == 1)
		ck_assert_int_eq(rig_wait(&rig, rig_resync(&rig, 0, 2, 0, 20)), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_uint_eq(wipe_rig_slot(&rig, 0, 1, 7).location, after.location);
	ck_assert_int_eq(wipe_rig_read_one(&rig, 0, 1, 7), -E_BAD_CRC);
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, seq, true)), 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* A segment that is being read in the moment in which it is looked at is looked at again. */
START_TEST(who_reads_a_segment_keeps_it_no_longer)
{
	struct segments *t;
	struct segment *s;
	struct rig rig;

	wipe_rig_begin(&rig, 34);
	wipe_rig_damaged_neighbour(&rig);
	t = &rig.store->segments;
	s = &t->array[segments_of(t, wipe_rig_slot(&rig, 0, 1, 7).location)];
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	wipe_rig_wipe(&rig, 0, 0, true);
	while (!s->stuck)
		ck_assert(sim_step(rig.world));
	s->pins++;
	/* Until no checkpoint, either, has it look again. */
	sim_run_for(rig.world, 4 * CHECKPOINT_INTERVAL_NS);
	ck_assert(!wipe_rig.done);
	s->pins--;
	sim_run_for(rig.world, 60 * NS_PER_S);
	ck_assert(wipe_rig.done);
	ck_assert_int_eq(wipe_rig.status, 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
	rig_deinit(&rig);
}
END_TEST

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

/* The store does not wait for it, and it does not say that it was done. */
START_TEST(a_store_that_closes_breaks_it_off)
{
	uint32_t broken_off = 0;

	for (uint64_t step = 0; step < 120; step++) {
		bool closed = false;
		struct rig rig;

		wipe_rig_begin(&rig, 23);
		long_history(&rig, 300);
		ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
		wipe_rig_wipe(&rig, 0, 0, true);
		sim_run_for(rig.world, step * 500000);
		store_close(rig.store, set_flag, &closed);
		ck_assert(sim_run_flag(rig.world, &closed));
		ck_assert(wipe_rig.done);
		ck_assert(wipe_rig.status == 0 || wipe_rig.status == -ECANCELED);
		broken_off += wipe_rig.status != 0;
		rig.store = NULL;
		sim_process_crash(rig.process, SIM_KILL);
		ck_assert(wipe_rig.status != 0 || wipe_rig_remains(&rig, 0, 0) == 0);
		rig_must_open(&rig);
		rig_verify(&rig);
		ck_assert_int_eq(wipe_rig_erase(&rig, 0, 0, true), 0);
		ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 0), 0);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(broken_off, 5);
}
END_TEST

/* -- several devices -------------------------------------------------------------------------- */

START_TEST(on_every_device)
{
	struct rig rig;

	rig_devices = 2;
	wipe_rig_begin(&rig, 31);
	long_history(&rig, 500);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	ck_assert_uint_gt(wipe_rig_remains(&rig, 0, 1), 100);
	wipe_rig_wipe(&rig, 0, 1, true);
	ck_assert_int_eq(wipe_rig_wait(&rig), 0);
	ck_assert_uint_gt(wipe_rig.op.segments, 0);
	ck_assert_uint_eq(wipe_rig_remains(&rig, 0, 1), 0);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	rig_devices = 0;
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store_wipe");
	Suite *s = suite_create("store_wipe");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, nothing_of_it_is_left, 0, 6);
	tcase_add_test(tc, what_is_gone_is_not_wiped_again);
	tcase_add_test(tc, a_whole_volume);
	tcase_add_test(tc, segments_are_discarded);
	tcase_add_test(tc, a_full_device);
	tcase_add_test(tc, clients_go_on_while_nothing_is_gained);
	tcase_add_test(tc, a_move_brings_nothing_back);
	tcase_add_loop_test(tc, an_error_is_told_and_tried_again, 0, 2);
	tcase_add_loop_test(tc, a_damaged_neighbour_moves_as_it_is, 0, 2);
	tcase_add_test(tc, damaged_zeroes_do_not_become_good);
	tcase_add_loop_test(tc, what_was_only_read_badly_is_not_given_up, 0, 2);
	tcase_add_test(tc, what_is_damaged_stays_where_no_erasure_is);
	tcase_add_test(tc, a_damaged_header_keeps_its_segment);
	tcase_add_test(tc, a_repair_is_not_undone);
	tcase_add_loop_test(tc, the_log_goes_on_behind_it, 0, 2);
	tcase_add_test(tc, who_reads_a_segment_keeps_it_no_longer);
	tcase_add_test(tc, a_store_that_closes_breaks_it_off);
	tcase_add_test(tc, on_every_device);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
