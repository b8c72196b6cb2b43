/* The scrub: it finds whatever no longer is what was written, keeps its list and its place, holds
 * its period, and is never in the way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/store/core.h"
#include "test_store_rig.h"

#define DISK_MIB 24u
#define SEGMENT	 MIB

static void rig_begin(struct rig *rig)
{
	rig_init(rig, 1, DISK_MIB);
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
}

/* Four chunks' worth of data, several segments; write i has sequence i. */
static void some_data(struct rig *rig)
{
	for (uint32_t i = 0; i < 24; i++) {
		rig_write(rig, STORE_DATA, i % 2, i % 3, (i / 6) * 100, 60 + i);
		rig_drain_to(rig, 3);
	}
	ck_assert(rig_drain(rig));
}

static void rot(struct rig *rig, uint64_t offset)
{
	uint8_t byte;

	sim_disk_peek(rig->sim_disk, offset, &byte, 1);
	byte ^= 0x10;
	sim_disk_poke(rig->sim_disk, offset, &byte, 1);
}

/* Where on the disk the newest copy of a block lies, as the index says. */
static uint64_t place_of(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block)
{
	const struct index_chunk *c =
	    index_find_chunk(&rig->store->index, rig_volume_id(volume), chunk);
	struct format_slot slot = {0};

	if (c != NULL)
		slot = index_find_slot(&rig->store->index, c, block);
	ck_assert(format_slot_has_data(&slot));
	return (uint64_t)slot.location * BLOCK_SIZE;
}

static struct store_scrub_stats stats_of(struct rig *rig)
{
	struct store_stats stats;

	store_get_stats(rig->store, &stats);
	return stats.scrub;
}

struct waiting {
	struct rig *rig;
	uint64_t passes;
	uint32_t damaged;
	uint64_t repaired;
};

static bool has_passed(void *arg)
{
	struct waiting *w = arg;

	return stats_of(w->rig).passes >= w->passes;
}

static bool is_repaired(void *arg)
{
	struct waiting *w = arg;

	return stats_of(w->rig).repaired >= w->repaired;
}

/* A pass that was asked for, to its end. */
static void scrub(struct rig *rig)
{
	struct waiting w = {.rig = rig, .passes = stats_of(rig).passes + 1};

	store_scrub(rig->store);
	ck_assert_int_eq(
	    sim_run_until(rig->world, rig->world->now_ns + 3600 * NS_PER_S, has_passed, &w), 0);
}

static void wait_repaired(struct rig *rig, uint64_t repaired)
{
	struct waiting w = {.rig = rig, .repaired = repaired};

	ck_assert_int_eq(
	    sim_run_until(rig->world, rig->world->now_ns + 3600 * NS_PER_S, is_repaired, &w), 0);
}

static bool is_listed(struct rig *rig, uint32_t volume, uint32_t chunk, block_no_t block)
{
	struct store_damage damage[STORE_DAMAGE_MAX];
	uint32_t count = store_damage(rig->store, damage, STORE_DAMAGE_MAX);

	for (uint32_t i = 0; i < count; i++)
		if (damage[i].volume == rig_volume_id(volume) && damage[i].chunk == chunk &&
		    damage[i].block == block)
			return true;
	return false;
}

/* -- what it finds ---------------------------------------------------------------------------- */

START_TEST(everything_live_is_read)
{
	struct sim_disk_stats before;
	struct store_stats stats;
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	before = *sim_disk_stats(rig.sim_disk);
	scrub(&rig);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_gt(stats.live_bytes, 4 * SEGMENT);
	ck_assert_uint_ge(stats.scrub.total_bytes, stats.live_bytes);
	ck_assert_uint_ge(sim_disk_stats(rig.sim_disk)->read_bytes - before.read_bytes,
			  stats.scrub.total_bytes);
	ck_assert_uint_eq(stats.scrub.done_bytes, stats.scrub.total_bytes);
	ck_assert_uint_eq(stats.scrub.found, 0);
	ck_assert(!stats.scrub.running);
	ck_assert_int_ge(stats.scrub.finished_at, stats.scrub.started_at);
	ck_assert_int_gt(stats.scrub.started_at, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

struct watching {
	struct reactor_task task;
	uint32_t runs;
};

static void count_run(struct reactor_task *task)
{
	container_of(task, struct watching, task)->runs++;
}

START_TEST(bit_rot_is_found_and_leaves_the_list_when_repaired)
{
	struct watching watching = {.task = {.run = count_run}};
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig); /* write 24 is volume 1, chunk 2, blocks 300 to 382 */
	store_watch_damage(rig.store, &watching.task);
	rot(&rig, place_of(&rig, 1, 2, 310) + 77);
	rot(&rig, place_of(&rig, 1, 2, 350));
	scrub(&rig);
	ck_assert_uint_eq(stats_of(&rig).found, 2);
	ck_assert_uint_eq(stats_of(&rig).damaged, 2);
	ck_assert(is_listed(&rig, 1, 2, 310) && is_listed(&rig, 1, 2, 350));
	ck_assert_uint_ge(watching.runs, 1);
	/* Found again: nothing new. */
	scrub(&rig);
	ck_assert_uint_eq(stats_of(&rig).found, 2);
	/* Resync brings the same version; the host a new one. */
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 24, true)), 0);
	wait_repaired(&rig, 2);
	ck_assert_uint_eq(stats_of(&rig).damaged, 0);
	rot(&rig, place_of(&rig, 1, 2, 310));
	scrub(&rig);
	ck_assert_uint_eq(stats_of(&rig).damaged, 1);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 310, 1)), 0);
	wait_repaired(&rig, 3);
	store_watch_damage(rig.store, NULL);
	scrub(&rig);
	ck_assert_uint_eq(stats_of(&rig).found, 3);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* What a read meets is listed without a pass, and what the cleaner meets: when it is repaired the
 * segment can be cleaned. */
START_TEST(reads_report_what_they_meet)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX], bad;
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	rot(&rig, place_of(&rig, 0, 1, 310));
	ck_assert_int_eq(rig_read(&rig, 0, 1, 300, 40, data, crcs, NULL, &bad), -E_BAD_CRC);
	ck_assert(is_listed(&rig, 0, 1, 310));
	ck_assert_uint_eq(stats_of(&rig).found, 1);
	ck_assert_uint_eq(stats_of(&rig).passes, 0);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* The blocks of a group whose header is damaged can only be found by way of the index. */
START_TEST(what_lies_under_a_damaged_header_is_found)
{
	uint64_t place;
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 400, 30)), 0);
	place = place_of(&rig, 0, 0, 400);
	/* They lie one after the other in one group, behind its header. */
	ck_assert_uint_eq(place_of(&rig, 0, 0, 429), place + 29 * BLOCK_SIZE);
	rot(&rig, place - BLOCK_SIZE + 100);
	scrub(&rig);
	ck_assert_uint_eq(stats_of(&rig).damaged, 30);
	for (block_no_t block = 400; block < 430; block++)
		ck_assert(is_listed(&rig, 0, 0, block));
	ck_assert(!is_listed(&rig, 0, 0, 399) && !is_listed(&rig, 0, 0, 430));
	rig_verify(&rig); /* they are all readable */
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 400, 30)), 0);
	wait_repaired(&rig, 30);
	scrub(&rig);
	ck_assert_uint_eq(stats_of(&rig).found, 30);
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_unreadable_block_is_found_alone)
{
	struct disk_fault_plan plan = {0};
	uint64_t place;
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	rig.faults = &plan;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	place = place_of(&rig, 1, 0, 330);
	plan.faults[0] = (struct disk_fault){
	    .kind = DISK_FAULT_ERROR,
	    .on_kinds = DISK_FAULT_ON(DISK_READ),
	    .from = place,
	    .to = place + BLOCK_SIZE,
	    .times = DISK_FAULT_FOREVER,
	    .status = -EIO,
	};
	plan.count = 1;
	scrub(&rig);
	ck_assert_uint_gt(plan.faults[0].hits, 0);
	ck_assert_uint_eq(stats_of(&rig).damaged, 1);
	ck_assert(is_listed(&rig, 1, 0, 330));
	plan.count = 0;
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- when ------------------------------------------------------------------------------------- */

START_TEST(the_period_is_kept)
{
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	rig.config.scrub_period_s = 3600;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	sim_run_for(rig.world, 10 * 3600 * NS_PER_S);
	ck_assert_uint_ge(stats_of(&rig).passes, 9);
	ck_assert_uint_le(stats_of(&rig).passes, 11);
	rig_deinit(&rig);

	/* Off: never by itself. */
	rig_begin(&rig);
	some_data(&rig);
	sim_run_for(rig.world, 10 * 3600 * NS_PER_S);
	ck_assert_uint_eq(stats_of(&rig).passes, 0);
	rig_deinit(&rig);
}
END_TEST

/* A clock that was far ahead when a pass began: set right, it keeps no pass waiting for longer than
 * a period. */
START_TEST(a_clock_that_is_set_back_delays_no_pass)
{
	const uint64_t period_s = _i == 0 ? 1800 : 3 * 3600;
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	rig.config.scrub_period_s = period_s;
	rig.process->wall_offset_ns = 1000 * 86400 * (int64_t)NS_PER_S;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	sim_run_for(rig.world, 60 * NS_PER_S);
	ck_assert_uint_eq(stats_of(&rig).passes, 1);
	rig.process->wall_offset_ns = 0;
	sim_run_for(rig.world, 4 * period_s * NS_PER_S);
	ck_assert_uint_ge(stats_of(&rig).passes, 4);
	ck_assert_uint_le(stats_of(&rig).passes, 6);
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_pass_takes_most_of_a_short_period)
{
	uint64_t before, rate;
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	rig.config.scrub_period_s = 2; /* 7 MiB, so 4.4 MiB a second */
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	sim_run_for(rig.world, 4 * NS_PER_S);
	before = sim_disk_stats(rig.sim_disk)->read_bytes;
	sim_run_for(rig.world, 20 * NS_PER_S);
	rate = (sim_disk_stats(rig.sim_disk)->read_bytes - before) / 20;
	ck_assert_uint_ge(rate, stats_of(&rig).total_bytes / 3);
	ck_assert_uint_le(rate, stats_of(&rig).total_bytes);
	ck_assert_uint_ge(stats_of(&rig).passes, 10);
	rig_deinit(&rig);
}
END_TEST

static uint32_t told_late;

static void count_late(enum log_level level, const char *line)
{
	told_late += level == LOG_WARN && strstr(line, "the scrub will be late") != NULL;
}

/* Nor does a period that is too short make it faster than clients can bear. */
START_TEST(a_period_that_cannot_be_kept_is_told)
{
	struct store_scrub_stats stats;
	struct rig rig;
	uint64_t before;

	rig_init(&rig, 1, DISK_MIB);
	rig.config.scrub_period_s = 1;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	told_late = 0;
	log_set_sink(count_late);
	sim_run_for(rig.world, 3 * NS_PER_S);
	stats = stats_of(&rig);
	ck_assert_uint_gt(stats.passes, 1);
	ck_assert_uint_eq(stats.needed_rate, stats.total_bytes);
	ck_assert_uint_lt(stats.needed_rate, stats.max_rate);
	ck_assert_uint_eq(told_late, 0);
	/* As if there were twenty times as much. */
	rig.store->scrub.period_ns = NS_PER_S / 20;
	sim_run_for(rig.world, NS_PER_S);
	stats = stats_of(&rig);
	before = stats.passes;
	told_late = 0;
	sim_run_for(rig.world, 3 * NS_PER_S);
	stats = stats_of(&rig);
	ck_assert_uint_gt(stats.needed_rate, SCRUB_RATE_MAX);
	ck_assert_uint_eq(stats.max_rate, SCRUB_RATE_MAX);
	ck_assert_uint_gt(stats.passes - before, 10);
	ck_assert_uint_eq(told_late, stats.passes - before);
	ck_assert_uint_le((stats.passes - before) * stats.total_bytes,
			  3u * SCRUB_RATE_MAX * 11 / 10);
	/* Nobody asked for that one to be done by a certain time. */
	rig.store->scrub.period_ns = 0;
	sim_run_for(rig.world, 3 * NS_PER_S);
	told_late = 0;
	scrub(&rig);
	ck_assert_uint_eq(told_late, 0);
	ck_assert_uint_eq(stats_of(&rig).needed_rate, 0);
	rig_deinit(&rig);
}
END_TEST

/* Clients that are always at work slow it down, and do not stop it. */
START_TEST(it_gets_on_under_load)
{
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	rot(&rig, place_of(&rig, 1, 2, 310));
	store_scrub(rig.store);
	for (uint32_t i = 0; i < 100000 && stats_of(&rig).passes == 0; i++) {
		rig_begin_read(&rig, 0, i % 3, (i * 13) % 200, 1 + i % 40);
		rig_write(&rig, STORE_DATA, 0, i % 3, (i * 31) % 400, 1 + i % 20);
		rig_drain_to(&rig, 4);
	}
	ck_assert_uint_eq(stats_of(&rig).passes, 1);
	ck_assert_uint_eq(stats_of(&rig).found, 1);
	ck_assert(rig_drain(&rig));
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 2, 310, 1)), 0);
	rig_verify(&rig);
	rig_close(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- restarts --------------------------------------------------------------------------------- */

START_TEST(list_and_counters_survive_a_restart)
{
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	ck_assert(rig_checkpoint(&rig)); /* damage at the log's end would be taken for its end */
	rot(&rig, place_of(&rig, 1, 2, 310));
	rot(&rig, place_of(&rig, 1, 2, 320));
	scrub(&rig);
	sim_run_for(rig.world, 5 * NS_PER_S);
	ck_assert_uint_eq(stats_of(&rig).damaged, 2);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_uint_eq(stats_of(&rig).passes, 1);
	ck_assert_uint_eq(stats_of(&rig).found, 2);
	ck_assert(is_listed(&rig, 1, 2, 310) && is_listed(&rig, 1, 2, 320));
	/* Repaired, and then a crash before it is noticed: noticed afterwards. */
	ck_assert_int_eq(rig_wait(&rig, rig_repeat(&rig, 24, true)), 0);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	wait_repaired(&rig, 2);
	ck_assert_uint_eq(stats_of(&rig).damaged, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_pass_goes_on_where_it_was)
{
	struct store_scrub_stats s;
	uint64_t before;
	struct rig rig;

	rig_init(&rig, 1, DISK_MIB);
	rig.config.scrub_period_s = 400; /* the lowest rate: a second a MiB */
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_data(&rig);
	rig_checkpoint(&rig);
	sim_run_for(rig.world, 405 * NS_PER_S); /* the second pass has begun, the first is kept */
	ck_assert_uint_eq(stats_of(&rig).passes, 1);
	sim_run_for(rig.world, 0);
	rig.store->scrub.saved_ns = 0; /* not to wait for SCRUB_SAVE_NS */
	sim_run_for(rig.world, NS_PER_S);
	s = stats_of(&rig);
	ck_assert(s.running && s.done_bytes > 3 * SEGMENT);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	before = sim_disk_stats(rig.sim_disk)->read_bytes;
	ck_assert(stats_of(&rig).running);
	ck_assert_uint_ge(stats_of(&rig).done_bytes, 2 * SEGMENT);
	sim_run_for(rig.world, 60 * NS_PER_S);
	ck_assert_uint_eq(stats_of(&rig).passes, 2);
	ck_assert_uint_lt(sim_disk_stats(rig.sim_disk)->read_bytes - before,
			  s.total_bytes - SEGMENT);
	rig_deinit(&rig);
}
END_TEST

/* Closing in the midst of everything. */
START_TEST(it_ends_with_the_store)
{
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	rot(&rig, place_of(&rig, 1, 2, 310));
	for (uint32_t i = 0; i < 40; i++) {
		store_scrub(rig.store);
		sim_run_for(rig.world, i * 7 * NS_PER_MS);
		rig_close(&rig);
		rig_must_open(&rig);
	}
	rig_deinit(&rig);
}
END_TEST

/* A damaged header, in the checkpoint, so that everything can still be read; and listed. */
static void damaged(struct rig *rig)
{
	some_data(rig);
	ck_assert_int_eq(rig_wait(rig, rig_write(rig, STORE_DATA, 0, 0, 400, 12)), 0);
	rig_checkpoint(rig);
	rig_checkpoint(rig);
	rot(rig, place_of(rig, 0, 0, 400) - BLOCK_SIZE + 100);
}

/* With repairs, so that the list is written too. */
static void scrubbing(struct rig *rig)
{
	store_scrub(rig->store);
	for (uint32_t i = 0; i < 6 && rig->process->alive; i++) {
		sim_run_for(rig->world, 100 * NS_PER_MS);
		if (rig->process->alive && rig_write(rig, STORE_DATA, 0, 0, 400 + 2 * i, 2) != NULL)
			rig_drain(rig);
	}
	if (rig->process->alive)
		sim_run_for(rig->world, 3 * NS_PER_S);
}

/* Its position is not kept then; a checkpoint comes later. */
START_TEST(without_memory_for_a_batch_it_goes_on)
{
	struct rig rig;

	rig_begin(&rig);
	some_data(&rig);
	ck_assert(rig_checkpoint(&rig));
	sim_kv_fail_batches(rig.sim_kv, 1000);
	scrub(&rig);
	sim_run_for(rig.world, 60 * NS_PER_S);
	rig_verify(&rig);
	sim_kv_fail_batches(rig.sim_kv, 0);
	some_data(&rig);
	scrub(&rig);
	sim_kv_fail_batches(rig.sim_kv, 1000);
	rig_close(&rig);
	rig_must_open(&rig);
	ck_assert_uint_eq(stats_of(&rig).passes, 2);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

START_TEST(a_crash_at_any_io_of_it_loses_nothing)
{
	rig_crash_everywhere(damaged, scrubbing, DISK_MIB);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("scrub");
	Suite *s = suite_create("store_scrub");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_test(tc, everything_live_is_read);
	tcase_add_test(tc, bit_rot_is_found_and_leaves_the_list_when_repaired);
	tcase_add_test(tc, reads_report_what_they_meet);
	tcase_add_test(tc, what_lies_under_a_damaged_header_is_found);
	tcase_add_test(tc, an_unreadable_block_is_found_alone);
	tcase_add_test(tc, the_period_is_kept);
	tcase_add_loop_test(tc, a_clock_that_is_set_back_delays_no_pass, 0, 2);
	tcase_add_test(tc, a_pass_takes_most_of_a_short_period);
	tcase_add_test(tc, a_period_that_cannot_be_kept_is_told);
	tcase_add_test(tc, it_gets_on_under_load);
	tcase_add_test(tc, list_and_counters_survive_a_restart);
	tcase_add_test(tc, a_pass_goes_on_where_it_was);
	tcase_add_test(tc, it_ends_with_the_store);
	tcase_add_test(tc, without_memory_for_a_batch_it_goes_on);
	tcase_add_test(tc, a_crash_at_any_io_of_it_loses_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
