/* Unit tests of the store's index where it does not fit into memory: its two forms on disk, what a
 * look-up costs and what it does when kv fails, burying, old versions, and the bounds of memory and
 * of recovery. Random work and crashes with a tiny cache: test_store.c, test_store_crash.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/store/core.h"
#include "test_store_rig.h"

/* -- pages in kv ------------------------------------------------------------------------------ */

static void random_slots(struct sim_world *w, struct format_slot *slots)
{
	static const uint32_t places[] = {LOCATION_ZERO, LOCATION_DISCARDED, 5000, 70000};
	struct format_slot slot = {0};

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (sim_chance(w, 1, 3))
			slot.version = sim_random_below(w, 3);
		if (sim_chance(w, 1, 3))
			slot.location = places[sim_random_below(w, ARRAY_SIZE(places))];
		slot.crc = (uint32_t)sim_random(w);
		slots[i] = slot.version != 0 && slot.location != LOCATION_NONE
			       ? slot
			       : (struct format_slot){0};
		if (slot.location > LOCATION_DISCARDED)
			slot.location++;
		else
			slots[i].crc = slots[i].version != 0 ? CRC32C_ZERO_BLOCK : 0;
	}
}

static size_t round_trip(const struct format_slot *slots)
{
	uint8_t value[FORMAT_PAGE_VALUE_MAX];
	struct format_slot back[PAGE_BLOCKS];
	size_t size = format_page_encode(slots, value);

	ck_assert_uint_le(size, sizeof value);
	ck_assert_int_eq(format_page_decode(value, size, back), 0);
	ck_assert(memcmp(slots, back, sizeof back) == 0);
	for (size_t cut = 0; cut < size; cut++)
		ck_assert_int_eq(format_page_decode(value, cut, back), -E_CORRUPT);
	return size;
}

START_TEST(a_page_is_written_in_the_shorter_form)
{
	struct sim_world *w = sim_world_create(1);
	struct format_slot slots[PAGE_BLOCKS];

	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] = (struct format_slot){.location = 9000 + i, .crc = i, .version = 77};
	ck_assert_uint_eq(round_trip(slots), 4 + 14 + 64);
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] =
		    (struct format_slot){.location = 9000 + 2 * i, .crc = i, .version = 77 + i};
	ck_assert_uint_eq(round_trip(slots), 4 + 16 * 16);
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++)
		slots[i] = (struct format_slot){
		    .location = LOCATION_ZERO, .crc = CRC32C_ZERO_BLOCK, .version = 5};
	ck_assert_uint_eq(round_trip(slots), 4 + 14);
	for (uint32_t i = 0; i < 5000; i++) {
		random_slots(w, slots);
		round_trip(slots);
	}
	sim_world_destroy(w);
}
END_TEST

/* -- what costs a look-up --------------------------------------------------------------------- */

static void begin(struct rig *rig, uint64_t seed, uint32_t disk_mib, uint64_t cache_bytes)
{
	rig_init(rig, seed, disk_mib);
	rig->config.cache_bytes = cache_bytes;
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
}

static struct store_stats stats_of(struct rig *rig)
{
	struct store_stats stats;

	store_get_stats(rig->store, &stats);
	return stats;
}

static void fill(struct rig *rig, uint32_t step)
{
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			for (block_no_t block = 0; block < RIG_BLOCKS; block += step) {
				rig_write(rig, STORE_DATA, volume, chunk, block, step);
				rig_drain_to(rig, 8);
			}
	ck_assert(rig_drain(rig));
}

START_TEST(what_is_in_memory_or_never_existed_is_not_looked_up)
{
	struct rig rig;

	begin(&rig, 1, 48, MIB);
	fill(&rig, 32);
	fill(&rig, 4);
	ck_assert(rig_checkpoint(&rig));
	rig_verify(&rig);
	ck_assert_uint_eq(stats_of(&rig).index_reads, 0);
	rig_deinit(&rig);
	/* A thin volume is filled without one, however small the cache. */
	begin(&rig, 1, 48, RIG_TINY_CACHE);
	fill(&rig, 32);
	ck_assert_uint_eq(stats_of(&rig).index_reads, 0);
	ck_assert_uint_gt(stats_of(&rig).index_evictions, 0);
	fill(&rig, 32);
	ck_assert_uint_gt(stats_of(&rig).index_reads, 0);
	rig_deinit(&rig);
}
END_TEST

START_TEST(opening_does_not_read_the_pages)
{
	struct rig rig;

	begin(&rig, 1, 48, MIB);
	fill(&rig, 32);
	rig_close(&rig);
	rig_must_open(&rig);
	ck_assert_uint_eq(stats_of(&rig).index_pages, RIG_VOLUMES * RIG_CHUNKS * RIG_BLOCKS / 16);
	ck_assert_uint_eq(stats_of(&rig).index_pages_loaded, 0);
	ck_assert_uint_eq(stats_of(&rig).live_bytes,
			  RIG_VOLUMES * RIG_CHUNKS * RIG_BLOCKS * BLOCK_SIZE);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Pages that the log changes are fetched, each once, on workers and many at a time. */
START_TEST(opening_fetches_what_the_log_changes)
{
	static const uint64_t GET_NS = NS_PER_S;
	uint64_t begun_ns, took_ns;
	uint32_t pages = 0;
	struct rig rig;

	begin(&rig, 1, 48, MIB);
	fill(&rig, 32);
	rig_close(&rig);
	rig_must_open(&rig);
	for (uint32_t twice = 0; twice < 2; twice++)
		for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
			for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
				rig_write(&rig, STORE_DATA, volume, chunk, 14, 4);
				rig_drain_to(&rig, 8);
				pages += twice == 0 ? 2 : 0;
			}
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_KILL);
	sim_kv_slow_gets(rig.sim_kv, GET_NS);
	begun_ns = rig.world->now_ns;
	rig_must_open(&rig);
	took_ns = rig.world->now_ns - begun_ns;
	ck_assert_uint_eq(stats_of(&rig).index_reads, pages);
	ck_assert_uint_ge(took_ns, GET_NS / 2);
	ck_assert_uint_lt(took_ns, pages * GET_NS / 2);
	sim_kv_slow_gets(rig.sim_kv, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- when kv fails ---------------------------------------------------------------------------- */

START_TEST(a_page_that_cannot_be_read_fails_who_asked)
{
	uint8_t *data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	uint32_t crcs[IO_BLOCKS_MAX];
	struct rig rig;

	begin(&rig, 1, 48, RIG_TINY_CACHE);
	fill(&rig, 32);
	ck_assert(rig_checkpoint(&rig));
	/* A read, a read of many pages of which one fails; a write waits for no page (blind.h). */
	sim_kv_fail_gets(rig.sim_kv, 1);
	ck_assert_int_eq(rig_read(&rig, 0, 0, 5, 1, data, crcs, NULL, NULL), -EIO);
	ck_assert_int_eq(rig_read(&rig, 0, 0, 5, 1, data, crcs, NULL, NULL), 0);
	sim_kv_fail_gets(rig.sim_kv, 1);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 1, 77, 3)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 1, 1, 78, 3)), 0);
	sim_kv_fail_gets(rig.sim_kv, 1);
	ck_assert_int_eq(rig_read(&rig, 1, 2, 0, 256, data, crcs, NULL, NULL), -EIO);
	ck_assert_uint_eq(stats_of(&rig).index_errors, 3);
	rig_verify(&rig);
	/* Two at once for the same page, and none of them hangs. */
	sim_kv_fail_gets(rig.sim_kv, 3);
	rig_write(&rig, STORE_DATA, 0, 1, 200, 1);
	rig_write(&rig, STORE_DATA, 0, 1, 201, 1);
	rig_write(&rig, STORE_ZERO, 0, 1, 150, 100);
	ck_assert(rig_drain(&rig));
	sim_kv_fail_gets(rig.sim_kv, 0);
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
	free(data);
}
END_TEST

/* The cleaner and burying go on later: nothing is lost, and all space comes back. */
START_TEST(cleaning_and_burying_survive_failing_gets)
{
	struct rig rig;

	begin(&rig, 1, 22, RIG_TINY_CACHE);
	fill(&rig, 32);
	for (uint32_t i = 0; i < 400; i++) {
		if (i % 20 == 0)
			sim_kv_fail_gets(rig.sim_kv, 1 + i % 3);
		rig_write(&rig, STORE_DATA, i % 2, i % 3, (i * 61) % 480, 1 + (i * 5) % 30);
		rig_drain_to(&rig, 4);
	}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_gt(stats_of(&rig).cleaned_segments, 0);
	ck_assert_uint_gt(stats_of(&rig).index_errors, 5);
	rig_verify(&rig);
	for (uint32_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
			sim_kv_fail_gets(rig.sim_kv, 2);
			ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, volume, chunk)), 0);
		}
	sim_run_for(rig.world, 60 * NS_PER_S);
	ck_assert_uint_eq(stats_of(&rig).live_bytes, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* The cleaner meets a disk, or an index, that cannot be read for a while, or an index that fails it
 * when it begins to move: what it passed over then it takes later. */
START_TEST(what_cannot_be_read_for_a_while_costs_no_space)
{
	struct disk_fault_plan plan = {.faults = {{.kind = DISK_FAULT_ERROR,
						   .on_kinds = DISK_FAULT_ON(DISK_READ),
						   .times = DISK_FAULT_FOREVER,
						   .status = -EIO}}};
	struct space bounds;
	struct rig rig;
	uint64_t tries;

	rig_init(&rig, 1, 26);
	rig.config.cache_bytes = RIG_TINY_CACHE;
	rig.faults = &plan;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	bounds = rig.store->space;
	rig.store->space.tight_below = rig.store->space.clean_below = 0;
	fill(&rig, 64);
	/* To where clients would have to wait for room, and nothing made any. */
	for (uint32_t i = 0; segments_available(&rig.store->segments) > 5; i++) {
		rig_write(&rig, STORE_DATA, i % 2, i % 3, i / 6 * 2 % RIG_BLOCKS, 1);
		rig_drain_to(&rig, 32);
	}
	ck_assert(rig_drain(&rig));
	ck_assert(rig_checkpoint(&rig));
	plan.count = _i == 0;
	rig.store->space.tight_below = bounds.tight_below;
	rig.store->space.clean_below = bounds.clean_below;
	cleaner_kick(rig.store);
	for (uint64_t end = rig.world->now_ns + 60 * NS_PER_S; rig.world->now_ns < end;) {
		const bool fails =
		    _i == 1 || (_i == 2 && rig.store->cleaner.state == CLEANER_MOVING);

		sim_kv_fail_gets(rig.sim_kv, fails ? UINT64_MAX : 0);
		if (!sim_step(rig.world))
			sim_run_for(rig.world, NS_PER_S);
	}
	tries = _i == 0 ? plan.faults[0].hits : stats_of(&rig).index_errors;
	ck_assert_uint_gt(tries, 5);
	/* Each block of each segment, and that again and again, but with pauses. */
	ck_assert_uint_le(tries, 7 * 26 * MIB / BLOCK_SIZE);
	ck_assert_uint_eq(stats_of(&rig).cleaned_segments, 0);
	sim_kv_fail_gets(rig.sim_kv, 0);
	plan.count = 0;
	sim_run_for(rig.world, 60 * NS_PER_S);
	for (uint32_t i = 0; i < 400; i++) {
		rig_write(&rig, STORE_DATA, i % 2, i % 3, i * 37 % 500, 8);
		rig_drain_to(&rig, 4);
	}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_eq(rig.refused, 0);
	ck_assert_uint_gt(stats_of(&rig).cleaned_segments, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- burying ---------------------------------------------------------------------------------- */

struct wiping {
	struct store_wipe_op op;
	bool done;
	int status;
};

static void wiped(struct store_wipe_op *op, int status)
{
	struct wiping *w = container_of(op, struct wiping, op);

	w->done = true;
	w->status = status;
}

/* What an erased chunk refers to can never be told: who waits for that is told, and does not wait
 * for ever. */
START_TEST(a_chunk_that_cannot_be_buried_ends_writing)
{
	const struct store_wipe_key key = {rig_volume_id(0), 1};
	struct wiping w = {.op = {.done = wiped, .keys = &key, .key_count = 1}};
	struct rig_op *write = NULL;
	struct rig rig;

	begin(&rig, 1, 24, RIG_TINY_CACHE);
	fill(&rig, 64);
	ck_assert(rig_checkpoint(&rig));
	sim_kv_fail_gets(rig.sim_kv, UINT64_MAX);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 1)), 0);
	if (_i == 0)
		write = rig_write(&rig, STORE_DATA, 0, 1, 7, 30);
	else
		store_wipe(rig.store, &w.op);
	sim_run_for(rig.world, 600 * NS_PER_S);
	ck_assert(write != NULL ? write->done : w.done);
	ck_assert_int_eq(write != NULL ? write->status : w.status, -EIO);
	ck_assert_int_eq(store_failure(rig.store), -EIO);
	rig_close(&rig);
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Crashed somewhere in it, again and again, with a checkpoint now and then: in the end everything
 * was given back, once. */
START_TEST(burying_goes_on_after_a_crash)
{
	for (uint32_t delay = 0; delay < 24; delay++) {
		struct rig rig;

		begin(&rig, delay + 1, 24, _i == 0 ? RIG_TINY_CACHE : MIB);
		fill(&rig, 64);
		if (delay % 2 == 0)
			ck_assert(rig_checkpoint(&rig));
		for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
			ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, chunk)), 0);
		sim_run_for(rig.world, delay * 40000);
		if (delay % 3 == 0)
			ck_assert(rig_checkpoint(&rig));
		sim_run_for(rig.world, delay * 20000);
		/* Its place is taken again, as soon as it is free. */
		if (delay % 4 == 1)
			ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 1, 7, 30)),
					 0);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		rig_verify(&rig);
		sim_run_for(rig.world, delay * 30000);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		rig_verify(&rig);
		sim_run_for(rig.world, 100 * NS_PER_S);
		ck_assert_uint_eq(stats_of(&rig).live_bytes,
				  (RIG_CHUNKS * RIG_BLOCKS + (delay % 4 == 1 ? 30 : 0)) *
				      (uint64_t)BLOCK_SIZE);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
}
END_TEST

/* -- values that do not check ----------------------------------------------------------------- */

/* A page run by run: each of these has one run, and as many CRCs as its count says. */
START_TEST(runs_beyond_a_page_are_refused)
{
	static const struct {
		uint8_t first, count;
		int status;
	} cases[] = {{0, 16, 0},
		     {15, 1, 0},
		     {0, 17, -E_CORRUPT},
		     {15, 2, -E_CORRUPT},
		     {16, 1, -E_CORRUPT},
		     {94, 94, -E_CORRUPT},
		     {255, 1, -E_CORRUPT},
		     {17, 255, -E_CORRUPT},
		     {240, 32, -E_CORRUPT},
		     {3, 0, -E_CORRUPT}};
	uint8_t value[4 + 14 + 255 * 4];
	struct format_slot slots[PAGE_BLOCKS];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t location = 70000;

		memset(value, 0, sizeof value);
		value[0] = 2;
		value[1] = 1;
		value[4] = cases[i].first;
		value[5] = cases[i].count;
		memcpy(value + 6, &location, 4);
		value[10] = 9;
		ck_assert_msg(format_page_decode(value, 18 + 4u * cases[i].count, slots) ==
				  cases[i].status,
			      "%u blocks from %u", cases[i].count, cases[i].first);
	}
}
END_TEST

/* -- an index of an older version ------------------------------------------------------------- */

struct rewriting {
	uint8_t version;
	struct kv *kv;
	struct kv_batch *batch;
	uint32_t family;
	struct kv_op op;
	bool done;
};

static size_t page_of_version_1(const void *value, size_t value_size, uint8_t *ret)
{
	struct format_slot slots[PAGE_BLOCKS];
	uint16_t present = 0;
	size_t size = 4;

	ck_assert_int_eq(format_page_decode(value, value_size, slots), 0);
	for (uint32_t i = 0; i < PAGE_BLOCKS; i++) {
		if (slots[i].version == 0)
			continue;
		present = (uint16_t)(present | 1u << i);
		memcpy(ret + size, &slots[i], sizeof slots[i]);
		size += sizeof slots[i];
	}
	ret[0] = 1;
	ret[1] = 0;
	memcpy(ret + 2, &present, 2);
	return size;
}

static int rewrite(const void *key, size_t key_size, const void *value, size_t value_size,
		   void *arg)
{
	const uint32_t live = 2 * (uint32_t)MIB / BLOCK_SIZE + 1;
	uint8_t old[FORMAT_CHUNK_VALUE_MAX];
	struct rewriting *r = arg;
	size_t size = value_size;

	memcpy(old, value, value_size);
	if (r->version == 1 && r->family == STORE_KV_PAGES)
		size = page_of_version_1(value, value_size, old);
	else if (r->version == 1 || r->family == STORE_KV_SEGMENTS || r->family == STORE_KV_NODE)
		old[0] = r->version;
	if (r->version == 1 && r->family == STORE_KV_REPLICAS && value_size >= 40)
		size = 24;
	if (r->family == STORE_KV_SEGMENTS && value_size == 160 && r->version < 3)
		size = r->version == 1 ? 24 : 32;
	if (r->family == STORE_KV_SEGMENTS && value_size == 160 && r->version == 3)
		memcpy(old + 24, &live, sizeof live);
	kv_batch_put(r->kv, r->batch, r->family, key, key_size, old, size);
	return 0;
}

static void rewritten(struct kv_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	container_of(op, struct rewriting, op)->done = true;
}

/* As a program of that version would have left it; of the present one: more blocks live in each
 * segment than it can have. */
static void make_older(struct rig *rig, uint8_t version)
{
	struct rewriting r = {.version = version, .op = {.done = rewritten}};

	sim_process_start(rig->process);
	r.kv = sim_kv_open(rig->sim_kv);
	r.batch = kv_batch_create(r.kv);
	for (r.family = 0; r.family < STORE_KV_FAMILIES; r.family++)
		ck_assert_int_eq(kv_scan(r.kv, r.family, NULL, 0, rewrite, &r), 0);
	kv_commit(r.kv, r.batch, &r.op);
	ck_assert(sim_run_flag(rig->world, &r.done));
	sim_process_crash(rig->process, SIM_KILL);
}

/* With some log after the checkpoint. */
static void begin_older(struct rig *rig, uint32_t ops, uint8_t version)
{
	begin(rig, 1, 24, MIB);
	for (uint32_t i = 0; i < ops; i++) {
		rig_write(rig, i % 5 == 0 ? STORE_DISCARD : STORE_DATA, i % 2, i % 3, i * 7,
			  1 + i % 9);
		rig_drain_to(rig, 4);
	}
	ck_assert(rig_drain(rig));
	ck_assert(rig_checkpoint(rig));
	rig_write(rig, STORE_DATA, 0, 0, 3, 20);
	rig_write(rig, STORE_DATA, 1, 2, 100, 20);
	ck_assert(rig_drain(rig));
	rig_crash(rig, SIM_POWER_LOSS);
	make_older(rig, version);
}

START_TEST(segments_with_more_blocks_than_they_have_are_refused)
{
	struct rig rig;

	begin_older(&rig, 60, 3);
	ck_assert_int_eq(rig_open(&rig), -E_CORRUPT);
	sim_process_crash(rig.process, SIM_KILL);
	rig_deinit(&rig);
}
END_TEST

START_TEST(an_index_of_an_older_version_is_read_and_rewritten)
{
	uint64_t pages;
	struct rig rig;

	begin_older(&rig, 60, (uint8_t)(1 + _i));
	rig_must_open(&rig);
	rig_verify(&rig);
	pages = stats_of(&rig).index_pages;
	ck_assert_uint_gt(pages, 60);
	ck_assert(rig_checkpoint(&rig));
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_uint_eq(stats_of(&rig).index_pages, pages);
	ck_assert_uint_lt(stats_of(&rig).index_pages_loaded, 64);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* What reads it writes it anew, with its first checkpoint: a crash at any I/O of that, with every
 * fate of what was in flight, leaves the one or the other. */
START_TEST(a_crash_while_it_is_upgraded_loses_nothing)
{
	static const enum sim_fate fates[] = {SIM_FATE_TEAR, SIM_FATE_DROP, SIM_FATE_KEEP,
					      SIM_FATE_RANDOM, SIM_FATE_RANDOM};
	const uint8_t version = (uint8_t)(1 + _i / (int)ARRAY_SIZE(fates));
	const uint32_t way = (uint32_t)_i % (uint32_t)ARRAY_SIZE(fates);
	bool survived = false;
	uint64_t n;

	for (n = 1; !survived; n++) {
		struct rig rig;

		begin_older(&rig, 20, version);
		rig_boot(&rig);
		rig.process->fate = fates[way];
		sim_process_on_io(rig.process, n, way < 4 ? SIM_IO_POWER_LOSS : SIM_IO_KILL);
		if (rig_open(&rig) == 0) {
			rig_write(&rig, STORE_DATA, 0, 1, 30, 9);
			rig_checkpoint(&rig);
			rig_drain(&rig);
		}
		survived = rig.process->alive;
		if (survived)
			sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
		rig_crash(&rig, way < 4 ? SIM_POWER_LOSS : SIM_KILL);
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_close(&rig);
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_gt(n, 8);
}
END_TEST

/* -- bounds ----------------------------------------------------------------------------------- */

START_TEST(memory_is_bounded)
{
	const uint64_t cache = 64 * KIB;
	struct rig rig;

	begin(&rig, 1, 48, cache);
	for (uint32_t i = 0; i < 3000; i++) {
		rig_discard_far(&rig, i / 1000, i % 1000 * 256, 256);
		if (i % 3 == 0)
			rig_random_op(&rig, false);
		rig_drain_to(&rig, 48);
	}
	ck_assert(rig_drain(&rig));
	ck_assert_uint_gt(stats_of(&rig).index_pages, 45000);
	/* An eighth more, what moves and a few look-ups hold, and extents of 64 KiB or more. */
	ck_assert_uint_le(rig.store->index.cells.memory_bytes,
			  cache + cache / 8 +
			      INDEX_CELL * INDEX_PAGE_CELLS *
				  (INDEX_MOVES_MAX + 16 * INDEX_LOOKUP_PAGES) +
			      2 * 64 * KIB);
	ck_assert_uint_le(rig.store->index.cells_used,
			  rig.store->index.cells_max +
			      INDEX_PAGE_CELLS * (INDEX_MOVES_MAX + 4 * INDEX_LOOKUP_PAGES));
	rig_deinit(&rig);
}
END_TEST

/* However long a checkpoint takes to become durable, recovery has no more to read than it may. */
START_TEST(the_log_after_a_checkpoint_is_bounded)
{
	const uint64_t bytes = 256 * KIB;
	const uint64_t group = FORMAT_GROUP_BLOCKS_MAX * BLOCK_SIZE;
	uint64_t most = 0;

	for (uint32_t i = 0; i < 20; i++) {
		struct rig rig;

		rig_init(&rig, i + 1, 64);
		rig.config.checkpoint_bytes = bytes;
		ck_assert_int_eq(rig_format(&rig, false), 0);
		rig_must_open(&rig);
		for (uint32_t k = 0; k < 200; k++) {
			rig_write(&rig, STORE_DATA, k % 2, k % 3, k % 250, 256);
			rig_drain_to(&rig, 60);
		}
		sim_run_for(rig.world, i * 100000);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		most = MAX(most, stats_of(&rig).recovered_bytes);
		ck_assert_uint_le(stats_of(&rig).recovered_bytes,
				  CHECKPOINT_FAR_FACTOR * bytes +
				      (WLOG_GROUPS_IN_FLIGHT + WLOG_COLD_GROUPS_IN_FLIGHT) * group);
		rig_verify(&rig);
		rig_deinit(&rig);
	}
	ck_assert_uint_ge(most, CHECKPOINT_FAR_FACTOR * bytes);
}
END_TEST

struct far_erase {
	struct store_erase_op op;
	bool done;
};

static void erased(struct store_erase_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	container_of(op, struct far_erase, op)->done = true;
}

/* What was written, erased and buried took its turn in memory; what replays all that has it at
 * once. */
START_TEST(opening_takes_the_memory_that_the_log_needs)
{
	struct rig rig;

	begin(&rig, 1, 48, 256 * KIB);
	for (chunk_no_t chunk = 0; chunk < 120; chunk++) {
		struct far_erase erase = {{.done = erased, .volume = 77, .chunk = chunk}, false};

		for (uint32_t i = 0; i < 4; i++)
			rig_discard_far(&rig, chunk, i * 256, 256);
		ck_assert(rig_drain(&rig));
		store_erase(rig.store, &erase.op);
		ck_assert(sim_run_flag(rig.world, &erase.done));
		sim_run_for(rig.world, 2 * NS_PER_MS);
	}
	ck_assert_uint_le(stats_of(&rig).checkpoints, 1);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	sim_run_for(rig.world, 100 * NS_PER_S);
	ck_assert_uint_eq(stats_of(&rig).index_pages, 0);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static void layer_written(struct store_write *op, int status)
{
	ck_assert_int_eq(status, 0);
	op->block_count = 0;
}

static void layer_erased(struct store_erase_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	op->chunk = 0;
}

static bool no_graves(void *arg)
{
	const struct rig *rig = arg;

	return rig->store->index.graves == NULL;
}

/* Layers come and go with snapshots, and no id comes twice: nothing may be left of one, or a store
 * has met its INDEX_VOLUMES_MAX one day. What was fenced stays. */
START_TEST(nothing_is_left_of_a_layer)
{
	struct rig rig;
	uint32_t before;

	begin(&rig, 17, 24, MIB);
	ck_assert_int_eq(rig_wait(&rig, rig_fence(&rig, 0, 3)), 0);
	ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 1)), 0);
	before = rig.store->index.volume_count;
	for (volume_id_t id = 5000; id < 5040; id++) {
		const bool whole = id % 2 == 0;
		struct store_erase_op erase = {
		    .done = layer_erased, .volume = id, .chunk = whole ? UINT32_MAX : 5};
		struct store_write op = {.done = layer_written,
					 .kind = STORE_ZERO,
					 .volume = id,
					 .chunk = 5,
					 .block_count = 4,
					 .version = version_make(3, id),
					 .owner = rig_volume_id(0)};

		store_write(rig.store, &op);
		while (op.block_count > 0)
			sim_run_for(rig.world, NS_PER_MS);
		store_erase(rig.store, &erase);
		while (erase.chunk > 0)
			sim_run_for(rig.world, NS_PER_MS);
	}
	ck_assert_int_eq(
	    sim_run_until(rig.world, rig.world->now_ns + 10 * NS_PER_S, no_graves, &rig), 0);
	ck_assert_uint_eq(rig.store->index.volume_count, before);
	ck_assert_int_eq(rig_wait(&rig, rig_erase(&rig, 0, 0)), 0);
	ck_assert_int_eq(
	    sim_run_until(rig.world, rig.world->now_ns + 10 * NS_PER_S, no_graves, &rig), 0);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(0)), 3);
	rig_verify(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	ck_assert_uint_eq(store_generation(rig.store, rig_volume_id(0)), 3);
	ck_assert_int_eq(
	    sim_run_until(rig.world, rig.world->now_ns + 10 * NS_PER_S, no_graves, &rig), 0);
	ck_assert_uint_eq(rig.store->index.volume_count, before);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static void one_fenced(struct store_fence_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	op->volume = 0;
}

#define MANY_VOLUMES 200000u

static void fence_many(struct rig *rig)
{
	enum { AT_ONCE = 10000 };
	struct store_fence_op *ops = calloc(AT_ONCE, sizeof *ops);

	for (uint32_t i = 0; i < MANY_VOLUMES; i++) {
		struct store_fence_op *op = &ops[i % AT_ONCE];

		while (op->volume != 0)
			ck_assert(sim_step(rig->world));
		*op = (struct store_fence_op){
		    .done = one_fenced, .volume = 5000 + i, .generation = 1 + i % 3};
		store_fence(rig->store, op);
	}
	for (uint32_t i = 0; i < AT_ONCE; i++)
		while (ops[i].volume != 0)
			ck_assert(sim_step(rig->world));
	free(ops);
}

/* A fence outlives its volume: as many as a node meets in a long life. */
START_TEST(many_volumes_can_be_fenced)
{
	struct rig rig;

	begin(&rig, 18, 40, MIB);
	fence_many(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	for (uint32_t i = 0; i < MANY_VOLUMES; i++)
		if (store_generation(rig.store, 5000 + i) != 1 + i % 3)
			ck_abort_msg("volume %u has no fence", 5000 + i);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Who goes through all that is there, volume by volume, does not look at each of these for each of
 * them: that would take the node away from its hosts for minutes, and this test beyond its time. */
START_TEST(many_fences_are_passed_quickly)
{
	struct store_stats stats;
	uint8_t byte = 0;
	struct rig rig;

	begin(&rig, 19, 40, MIB);
	fill(&rig, 64);
	fence_many(&rig);
	/* The tidier; and the scrub, which seeks what lies under the header of the first group. */
	rig_write(&rig, STORE_DATA, 0, 0, 256, 256);
	ck_assert(rig_drain(&rig));
	sim_run_for(rig.world, 10 * NS_PER_S);
	ck_assert_uint_gt(rig.store->tidy.written_passed, 0);
	sim_disk_poke(rig.sim_disk, FORMAT_SEGMENTS_OFFSET, &byte, 1);
	store_scrub(rig.store);
	sim_run_for(rig.world, 60 * NS_PER_S);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_eq(stats.scrub.passes, 1);
	ck_assert_uint_gt(stats.scrub.damaged, 0);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store_index");
	Suite *s = suite_create("store_index");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 100);
	tcase_add_test(tc, a_page_is_written_in_the_shorter_form);
	tcase_add_test(tc, what_is_in_memory_or_never_existed_is_not_looked_up);
	tcase_add_test(tc, opening_does_not_read_the_pages);
	tcase_add_test(tc, opening_fetches_what_the_log_changes);
	tcase_add_test(tc, a_page_that_cannot_be_read_fails_who_asked);
	tcase_add_test(tc, cleaning_and_burying_survive_failing_gets);
	tcase_add_loop_test(tc, what_cannot_be_read_for_a_while_costs_no_space, 0, 3);
	tcase_add_loop_test(tc, a_chunk_that_cannot_be_buried_ends_writing, 0, 2);
	tcase_add_loop_test(tc, burying_goes_on_after_a_crash, 0, 2);
	tcase_add_test(tc, runs_beyond_a_page_are_refused);
	tcase_add_test(tc, segments_with_more_blocks_than_they_have_are_refused);
	tcase_add_loop_test(tc, an_index_of_an_older_version_is_read_and_rewritten, 0, 2);
	tcase_add_loop_test(tc, a_crash_while_it_is_upgraded_loses_nothing, 0, 10);
	tcase_add_test(tc, memory_is_bounded);
	tcase_add_test(tc, opening_takes_the_memory_that_the_log_needs);
	tcase_add_test(tc, the_log_after_a_checkpoint_is_bounded);
	tcase_add_test(tc, nothing_is_left_of_a_layer);
	tcase_add_test(tc, many_volumes_can_be_fenced);
	tcase_add_test(tc, many_fences_are_passed_quickly);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
