/* What the store does of its own accord, and how it leaves the disk to clients meanwhile: the
 * tidier (engine/store/tidy.h) and the cleaner's pace (engine/store/cleaner.h). Virtual time: what
 * is said of times holds exactly. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/store/core.h"
#include "test_store_rig.h"

/* A whole window; and a part of the second one, behind one that was never written to. */
static const struct tidied {
	block_no_t first;
	uint32_t count;
} tidied_ranges[] = {{0, IO_BLOCKS_MAX}, {IO_BLOCKS_MAX + PAGE_BLOCKS, 3 * 64}};

/* So many disk reads it takes to read the range in sequence. */
static uint64_t reads_of(struct rig *rig, uint32_t volume, chunk_no_t chunk, const struct tidied *t)
{
	const uint64_t before = sim_disk_stats(rig->sim_disk)->reads;

	for (uint32_t i = 0; i < t->count; i += 64) {
		struct rig_op *op = rig_begin_read(rig, volume, chunk, t->first + i, 64);

		ck_assert_int_eq(rig_wait(rig, op), 0);
	}
	return sim_disk_stats(rig->sim_disk)->reads - before;
}

static uint64_t reads_in_sequence(struct rig *rig, const struct tidied *t)
{
	return reads_of(rig, 0, 0, t);
}

/* Every block on its own, in an order without neighbours, among writes elsewhere. */
static void scatter(struct rig *rig, const struct tidied *t)
{
	for (uint32_t i = 0; i < t->count; i++) {
		rig_write(rig, STORE_DATA, 0, 0, t->first + i * 37 % t->count, 1);
		if (i % 8 == 0)
			rig_write(rig, STORE_DATA, 1, 1, i, 1);
		rig_drain_to(rig, 16);
	}
	ck_assert(rig_drain(rig));
}

START_TEST(what_was_scattered_becomes_sequential)
{
	const struct tidied *t = &tidied_ranges[_i];
	struct store_stats stats;
	uint64_t tidied;
	struct rig rig;

	rig_init(&rig, 1, 40);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	scatter(&rig, t);
	ck_assert_uint_gt(reads_in_sequence(&rig, t), t->count / 2);
	sim_run_for(rig.world, 20 * NS_PER_S);
	ck_assert_uint_le(reads_in_sequence(&rig, t), 16);
	rig_verify(&rig);
	store_get_stats(rig.store, &stats);
	tidied = stats.tidied_blocks;
	/* No more than was written, and it comes to rest. */
	ck_assert_uint_gt(tidied, 0);
	ck_assert_uint_le(tidied, stats.blocks_written);
	sim_run_for(rig.world, 60 * NS_PER_S);
	store_get_stats(rig.store, &stats);
	ck_assert_uint_eq(stats.tidied_blocks, tidied);
	rig_close(&rig);
	rig_must_open(&rig);
	ck_assert_uint_le(reads_in_sequence(&rig, t), 16);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

static const struct tidied whole_chunk = {0, RIG_BLOCKS};

/* A store with everything that there is, so many times over, out of order. */
static void scatter_all(struct rig *rig, uint64_t seed, uint32_t disk_mib, uint32_t times)
{
	const uint32_t all = RIG_VOLUMES * RIG_CHUNKS * RIG_BLOCKS;

	rig_init(rig, seed, disk_mib);
	ck_assert_int_eq(rig_format(rig, false), 0);
	rig_must_open(rig);
	for (uint32_t i = 0; i < times * all; i++) {
		uint32_t at = i * 1237u % all; /* has no divisor in common with it */

		rig_write(rig, STORE_DATA, at % RIG_VOLUMES, at / RIG_VOLUMES % RIG_CHUNKS,
			  at / (RIG_VOLUMES * RIG_CHUNKS), 1);
		rig_drain_to(rig, 16);
	}
	ck_assert(rig_drain(rig));
}

static void all_is_sequential(struct rig *rig)
{
	for (uint32_t i = 0; i < RIG_VOLUMES * RIG_CHUNKS; i++)
		ck_assert_uint_le(reads_of(rig, i % RIG_VOLUMES, i / RIG_VOLUMES, &whole_chunk),
				  32);
}

/* All that the store has, and twice its size of garbage made on the way: the cleaner has to make
 * room for it again and again, though nobody writes. */
START_TEST(tidying_has_the_cleaner_make_room)
{
	struct rig rig;

	scatter_all(&rig, 1, 30, 3);
	ck_assert_uint_gt(reads_of(&rig, 0, 0, &whole_chunk), RIG_BLOCKS / 2);
	sim_run_for(rig.world, 60 * NS_PER_S);
	all_is_sequential(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* Crashed, written to, erased and closed while it tidies. */
START_TEST(tidying_may_be_disturbed)
{
	struct rig rig;

	rig_init(&rig, (uint64_t)_i + 1, 40);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	for (uint32_t round = 0; round < 4; round++) {
		rig_must_open(&rig);
		scatter(&rig, &tidied_ranges[0]);
		sim_run_for(rig.world, NS_PER_S + sim_random_below(rig.world, 2 * NS_PER_S));
		for (uint32_t i = 0; i < 4; i++) {
			rig_write(&rig, STORE_DATA, 0, 0,
				  (block_no_t)sim_random_below(rig.world, tidied_ranges[0].count),
				  1);
			/* What is in flight to what is erased may come before or after. */
			if (i == 2 && sim_chance(rig.world, 1, 3) && rig_drain(&rig))
				rig_erase(&rig, 0, 0);
			sim_run_for(rig.world, sim_random_below(rig.world, 3 * NS_PER_MS));
		}
		if (sim_chance(rig.world, 1, 4)) {
			ck_assert(rig_drain(&rig));
			rig_close(&rig);
		} else {
			rig_crash(&rig, SIM_POWER_LOSS);
		}
	}
	rig_must_open(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* -- beside clients --------------------------------------------------------------------------- */

static uint64_t tidied(const struct rig *rig)
{
	return rig->store->stats.tidied_blocks;
}

/* The tidier, watched after each event. */
struct watch {
	const struct rig *rig;
	enum tidy_state state;
	bool working;
	uint64_t seen_ns, working_ns;
	uint32_t windows;
};

static bool watch(void *arg)
{
	struct watch *w = arg;
	const struct store *store = w->rig->store;

	if (w->working)
		w->working_ns += w->rig->world->now_ns - w->seen_ns;
	w->seen_ns = w->rig->world->now_ns;
	w->working = !tidy_is_idle(store);
	if (store->tidy.state == TIDY_READING && w->state != TIDY_READING) {
		/* Beside none of a client's, and with room for those that come. */
		ck_assert_uint_eq(store->clients.in_flight, 0);
		ck_assert_uint_gt(segments_available(&store->segments),
				  (store->space.tight_below + store->space.clean_below) / 2);
		w->windows++;
	}
	w->state = store->tidy.state;
	return false;
}

static bool watch_read(void *arg)
{
	struct watch *w = arg;

	watch(w);
	return w->rig->in_flight == 0;
}

/* So long clients read a block, wait for gap_ns, read again. */
static struct watch read_for(struct rig *rig, uint64_t gap_ns, uint64_t for_ns)
{
	const uint64_t end = rig->world->now_ns + for_ns;
	struct watch w = {.rig = rig, .state = rig->store->tidy.state};

	for (uint32_t i = 0; rig->world->now_ns < end; i++) {
		rig_begin_read(rig, 1, 1, i * 8 % 256, 1);
		ck_assert_int_eq(sim_run_until(rig->world, end + NS_PER_S, watch_read, &w), 0);
		sim_run_until(rig->world, rig->world->now_ns + gap_ns, watch, &w);
	}
	return w;
}

/* A read a second, on another volume, all night. */
START_TEST(tidying_goes_on_beside_light_load)
{
	const struct tidied *t = &tidied_ranges[_i];
	struct rig rig;

	rig_init(&rig, 1, 40);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	scatter(&rig, t);
	ck_assert_uint_gt(reads_in_sequence(&rig, t), t->count / 2);
	read_for(&rig, NS_PER_S * 9 / 10, 30 * NS_PER_S);
	ck_assert_uint_le(reads_in_sequence(&rig, t), 16);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* The cleaner has to make room for it here too, and clients must not have to pay for any. */
START_TEST(tidying_leaves_clients_their_space)
{
	struct watch w;
	struct rig rig;

	scatter_all(&rig, 5, 30, 3);
	w = read_for(&rig, 20 * NS_PER_MS, 60 * NS_PER_S);
	ck_assert_uint_gt(w.windows, 40);
	all_is_sequential(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

/* One operation always under way, though only one: not a window is taken. */
START_TEST(tidying_gives_way_to_heavy_load)
{
	struct watch w;
	struct rig rig;

	scatter_all(&rig, 2, 60, 1);
	w = read_for(&rig, 0, 5 * NS_PER_S);
	ck_assert_uint_eq(w.windows, 0);
	ck_assert_uint_eq(tidied(&rig), 0);
	/* In the midst of a pass too. */
	w = read_for(&rig, 50 * NS_PER_MS, 2 * NS_PER_S);
	ck_assert_uint_gt(w.windows, 3);
	ck_assert_uint_ne(rig.store->tidy.state, TIDY_RESTING);
	read_for(&rig, 0, 300 * NS_PER_MS);
	w = read_for(&rig, 0, 3 * NS_PER_S);
	ck_assert_uint_eq(w.windows, 0);
	/* It has not forgotten what it was at. */
	sim_run_for(rig.world, 20 * NS_PER_S);
	all_is_sequential(&rig);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

#define SHARE_NS (200 * NS_PER_MS)

/* Thousandths of the time that it takes while clients read every gap_ns. */
static uint64_t share_beside(uint64_t gap_ns, uint32_t *ret_busy)
{
	struct watch w;
	struct rig rig;

	scatter_all(&rig, 3, 60, 1);
	for (uint32_t i = 0; tidied(&rig) == 0; i++) {
		read_for(&rig, gap_ns, gap_ns);
		ck_assert_uint_lt(i, 10000);
	}
	w = read_for(&rig, gap_ns, SHARE_NS);
	ck_assert_uint_gt(w.windows, 1);
	ck_assert_uint_ne(rig.store->tidy.state, TIDY_RESTING); /* nor has it come to its end */
	*ret_busy = rig.store->tidy.busy;
	rig_deinit(&rig);
	return w.working_ns * 1000 / SHARE_NS;
}

START_TEST(the_tidiers_share_falls_with_the_load)
{
	uint32_t light, medium;
	uint64_t beside_light = share_beside(20 * NS_PER_MS, &light);
	uint64_t beside_medium = share_beside(500000, &medium);

	ck_assert_uint_lt(light, 20);
	ck_assert_uint_gt(medium, 100);
	ck_assert_uint_lt(medium, TIDY_BUSY_MAX);
	ck_assert_uint_le(beside_light, TIDY_SHARE_MAX + 5);
	ck_assert_uint_gt(beside_light, TIDY_SHARE_MAX / 4);
	ck_assert_uint_lt(beside_medium, beside_light / 2);
	ck_assert_uint_gt(beside_medium, 0);
}
END_TEST

/* -- the cleaner ------------------------------------------------------------------------------ */

enum room { TO_SPARE, SOME, TIGHT };

/* So that of what lies between where cleaning begins and where it is tight so much is left. */
static void set_room(struct store *store, enum room room)
{
	const uint32_t now = space_reclaimed(store);

	store->space.tight_below = room == TO_SPARE ? 0 : room == SOME ? now - 3 : now + 8;
	store->space.clean_below = room == TO_SPARE ? now + 4 : now + 12;
}

/* How long the cleaner has nothing under way, though it has a segment in its hands, until three are
 * clean; clients keep so many reads in flight. */
static uint64_t cleaning_pauses(enum room room, uint32_t depth)
{
	uint64_t paused_ns = 0, seen_ns;
	const struct cleaner *c;
	struct rig rig;
	bool paused = false;

	scatter_all(&rig, 4, 60, 1);
	for (uint32_t i = 0; i < 900; i++) { /* of each segment a part is garbage */
		rig_write(&rig, STORE_DATA, i % RIG_VOLUMES, i % RIG_CHUNKS, i * 5 % RIG_BLOCKS, 1);
		rig_drain_to(&rig, 16);
	}
	ck_assert(rig_drain(&rig));
	c = &rig.store->cleaner;
	ck_assert_uint_eq(c->state, CLEANER_IDLE);
	ck_assert_uint_eq(rig.store->stats.cleaned_segments, 0);
	set_room(rig.store, room);
	cleaner_kick(rig.store);
	seen_ns = rig.world->now_ns;
	for (uint32_t i = 0; rig.store->stats.cleaned_segments < 3; i++) {
		while (rig.in_flight < depth)
			rig_begin_read(&rig, 1, 1, i++ * 8 % 512, 1);
		ck_assert(sim_step(rig.world));
		if (paused)
			paused_ns += rig.world->now_ns - seen_ns;
		seen_ns = rig.world->now_ns;
		paused = c->state != CLEANER_IDLE && cleaner_is_idle(rig.store);
		ck_assert_uint_lt(i, 1000000);
	}
	ck_assert_uint_gt(rig.store->stats.moved_blocks, 100);
	ck_assert(rig_drain(&rig));
	rig_verify(&rig);
	rig_deinit(&rig);
	return paused_ns;
}

START_TEST(the_cleaner_makes_room_for_clients)
{
	const uint64_t to_spare = cleaning_pauses(TO_SPARE, 8);
	const uint64_t some = cleaning_pauses(SOME, 8);

	/* After each step, of which a segment takes several: of eight pieces two are read at once.
	 */
	ck_assert_uint_gt(to_spare, 3 * 3 * CLEANER_PAUSE_MAX_NS / 2);
	/* The less the less space there is. */
	ck_assert_uint_lt(some, to_spare * 2 / 3);
	ck_assert_uint_gt(some, 0);
	ck_assert_uint_eq(cleaning_pauses(TIGHT, 8), 0);
	/* It looks once at what clients did before. */
	ck_assert_uint_le(cleaning_pauses(TO_SPARE, 0), CLEANER_PAUSE_MAX_NS);
}
END_TEST

int main(void)
{
	TCase *tidying = tcase_create("tidying");
	TCase *beside = tcase_create("beside clients");
	Suite *s = suite_create("store_pace");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tidying, 120);
	tcase_add_loop_test(tidying, what_was_scattered_becomes_sequential, 0,
			    ARRAY_SIZE(tidied_ranges));
	tcase_add_test(tidying, tidying_has_the_cleaner_make_room);
	tcase_add_loop_test(tidying, tidying_may_be_disturbed, 0, 40);
	suite_add_tcase(s, tidying);
	tcase_set_timeout(beside, 120);
	tcase_add_loop_test(beside, tidying_goes_on_beside_light_load, 0,
			    ARRAY_SIZE(tidied_ranges));
	tcase_add_test(beside, tidying_leaves_clients_their_space);
	tcase_add_test(beside, tidying_gives_way_to_heavy_load);
	tcase_add_test(beside, the_tidiers_share_falls_with_the_load);
	tcase_add_test(beside, the_cleaner_makes_room_for_clients);
	suite_add_tcase(s, beside);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
