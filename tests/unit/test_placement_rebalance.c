/* Which copies move where: the expected plan is the test. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/placement/rebalance.h"

#define CHUNK (64ull << 20)
#define SIZE  (100 * CHUNK)

static const struct planner_site sites[] = {
    {.name = "par", .campus = "c1", .eligible = true},
    {.name = "lyo", .campus = "c2", .eligible = true},
    {.name = "rbx", .campus = "c3", .eligible = true},
    {.name = "mrs", .campus = "c4", .eligible = true},
    {.name = "mrs2", .campus = "c4", .eligible = true},
};

static bool eligible[5];
static struct rebalance_policy policy;
static struct rebalance_node nodes[5];
static uint8_t map[2 * 3];
static const uint32_t map_nodes[] = {0, 1, 2, 3, 4};
static struct rebalance_volume volume;
static struct rebalance_input in;
static struct rebalance_plan plan;

/* Five nodes, one a site; two chunks on par, lyo, rbx. */
static void setup(void)
{
	static const uint8_t rows[] = {0, 1, 2, 2, 0, 1};

	policy = (struct rebalance_policy){.distinct = "campus", .eligible = eligible};
	for (uint32_t i = 0; i < 5; i++) {
		eligible[i] = true;
		nodes[i] = (struct rebalance_node){.name = sites[i].name,
						   .site = i,
						   .up = true,
						   .takes = true,
						   .size_bytes = SIZE,
						   .placed_bytes = i < 3 ? 2 * CHUNK : 0};
	}
	memcpy(map, rows, sizeof rows);
	volume = (struct rebalance_volume){
	    .replicas = 3, .chunk_count = 2, .chunk_size = CHUNK, .map = map, .nodes = map_nodes};
	in = (struct rebalance_input){.sites = sites,
				      .site_count = 5,
				      .policies = &policy,
				      .policy_count = 1,
				      .nodes = nodes,
				      .node_count = 5,
				      .volumes = &volume,
				      .volume_count = 1,
				      .moves_max = 1000};
}

static void teardown(void)
{
	rebalance_plan_deinit(&plan);
}

static void make(void)
{
	rebalance_plan_deinit(&plan);
	ck_assert_int_eq(rebalance_make(&in, &plan), 0);
}

static void must_move(size_t i, chunk_no_t chunk, uint32_t from, uint32_t to, enum move_why why)
{
	ck_assert_uint_lt(i, plan.count);
	ck_assert_uint_eq(plan.moves[i].chunk, chunk);
	ck_assert_uint_eq(plan.moves[i].from, from);
	ck_assert_uint_eq(plan.moves[i].to, to);
	ck_assert_int_eq((int)plan.moves[i].why, (int)why);
}

START_TEST(nothing_has_to_move)
{
	make();
	ck_assert_uint_eq(plan.count, 0);
	ck_assert_uint_eq(plan.stuck.count, 0);
}
END_TEST

START_TEST(drain_goes_to_the_lightest)
{
	nodes[1].leaves = MOVE_WHY_DRAIN;
	make();
	ck_assert_uint_eq(plan.count, 2);
	must_move(0, 0, 1, 3, MOVE_WHY_DRAIN);
	must_move(1, 1, 1, 4, MOVE_WHY_DRAIN); /* the other one of the campus has one by then */
	ck_assert_uint_eq(plan.placed_after[1], 0);
	ck_assert_uint_eq(plan.placed_after[3], CHUNK);
	ck_assert_uint_eq(plan.bytes, 2 * CHUNK);
}
END_TEST

START_TEST(a_hot_node_is_the_last_target)
{
	nodes[1].leaves = MOVE_WHY_DRAIN;
	nodes[3].load = 1000;
	make();
	must_move(0, 0, 1, 4, MOVE_WHY_DRAIN);
	must_move(1, 1, 1, 4, MOVE_WHY_DRAIN);
	ck_assert_uint_eq(plan.placed_after[3], 0);
	ck_assert_uint_eq(plan.placed_after[4], 2 * CHUNK); /* and not what heat counts as */
	nodes[4].takes = false;
	make();
	must_move(0, 0, 1, 3, MOVE_WHY_DRAIN);
}
END_TEST

START_TEST(the_campus_of_the_others_is_no_target)
{
	nodes[1].leaves = MOVE_WHY_DRAIN;
	map[0] = 3; /* chunk 0: mrs, lyo, rbx */
	make();
	must_move(0, 0, 1, 0, MOVE_WHY_DRAIN); /* not mrs2, though it has less on it */
	must_move(1, 1, 1, 3, MOVE_WHY_DRAIN);
}
END_TEST

START_TEST(the_pressing_ones_come_first)
{
	nodes[0].leaves = MOVE_WHY_DRAIN;
	eligible[2] = false;
	make();
	/* Of each chunk the copy that isn't eligible; the drained one with the next plan. */
	ck_assert_uint_eq(plan.count, 2);
	must_move(0, 0, 2, 3, MOVE_WHY_INELIGIBLE);
	must_move(1, 1, 2, 4, MOVE_WHY_INELIGIBLE);
	nodes[1].leaves = MOVE_WHY_LOST;
	nodes[1].up = nodes[1].takes = false;
	volume.served = true;
	make();
	must_move(0, 0, 1, 3, MOVE_WHY_LOST);
}
END_TEST

/* The policy was tightened, or a certificate says something else by now. */
START_TEST(copies_that_lie_too_close_are_spread)
{
	static const uint8_t rows[] = {0, 1, 2, 3, 0, 4};

	memcpy(map, rows, sizeof rows);
	make();
	/* Of the two on campus c4 one goes, to where no other of them is; the rest stays. */
	ck_assert_uint_eq(plan.count, 1);
	must_move(0, 1, 3, 1, MOVE_WHY_TOO_CLOSE);
	/* If the first of the two has no place to go, and the second neither: stuck, and said. */
	nodes[1].takes = nodes[2].takes = false;
	make();
	ck_assert_uint_eq(plan.count, 0);
	ck_assert_uint_eq(plan.stuck.count, 1);
	ck_assert_uint_eq(plan.stuck.chunk, 1);
	ck_assert_int_eq((int)plan.stuck.why, MOVE_WHY_TOO_CLOSE);
	/* Copies that may not count anyway are too close to nobody. */
	nodes[1].takes = nodes[2].takes = true;
	eligible[4] = false;
	make();
	must_move(0, 1, 4, 1, MOVE_WHY_INELIGIBLE);
	ck_assert_uint_eq(plan.count, 1);
	eligible[4] = true;
	policy.distinct = "site";
	make();
	ck_assert_uint_eq(plan.count, 0);
}
END_TEST

/* The one that most others are too close to, and of those one that has a place. */
START_TEST(the_one_in_the_middle_moves)
{
	const struct planner_site line[] = {
	    {.name = "a", .campus = "a", .has_position = true, .latitude = 45, .longitude = 0},
	    {.name = "b", .campus = "b", .has_position = true, .latitude = 46, .longitude = 0},
	    {.name = "c", .campus = "c", .has_position = true, .latitude = 47, .longitude = 0},
	    {.name = "d", .campus = "d", .has_position = true, .latitude = 49, .longitude = 0},
	    {.name = "e", .campus = "e", .has_position = true, .latitude = 46.5, .longitude = 0},
	};

	in.sites = line;
	volume.chunk_count = 1;
	map[0] = 0, map[1] = 1, map[2] = 2;
	make();
	ck_assert_uint_eq(plan.count, 0);
	policy.min_distance_km = 150; /* a degree is 111 km */
	make();
	ck_assert_uint_eq(plan.count, 1);
	must_move(0, 0, 1, 3, MOVE_WHY_TOO_CLOSE);
	/* Both ends of a pair: the second, where the first has no place. */
	map[0] = 3, map[1] = 2, map[2] = 4;
	policy.min_distance_km = 60;
	nodes[0].takes = false;
	make();
	ck_assert_uint_eq(plan.count, 1);
	must_move(0, 0, 4, 1, MOVE_WHY_TOO_CLOSE); /* b is too close to e, if c were to leave */
}
END_TEST

START_TEST(what_moves_already_is_left_alone)
{
	const chunk_no_t moving[] = {0};

	nodes[1].leaves = MOVE_WHY_DRAIN;
	volume.moving = moving;
	volume.moving_count = 1;
	make();
	ck_assert_uint_eq(plan.count, 1);
	must_move(0, 1, 1, 3, MOVE_WHY_DRAIN);
}
END_TEST

START_TEST(no_target)
{
	nodes[1].leaves = MOVE_WHY_DRAIN;
	nodes[3].takes = false;
	eligible[4] = false;
	make();
	ck_assert_uint_eq(plan.count, 0);
	ck_assert_uint_eq(plan.stuck.count, 2);
	ck_assert_uint_eq(plan.stuck.from, 1);
	ck_assert(!plan.stuck.no_source);
}
END_TEST

START_TEST(no_source)
{
	nodes[0].leaves = nodes[1].leaves = MOVE_WHY_LOST;
	nodes[0].up = nodes[1].up = nodes[0].takes = nodes[1].takes = false;
	make();
	ck_assert_uint_eq(plan.count, 0); /* detached: a majority is wanted */
	ck_assert(plan.stuck.no_source);
	volume.served = true; /* attached: the one that is left may be served from */
	make();
	ck_assert_uint_eq(plan.count, 2);
	eligible[2] = false; /* and may be copied from only where it is eligible */
	make();
	ck_assert_uint_eq(plan.count, 0);
}
END_TEST

START_TEST(as_many_as_asked_for)
{
	nodes[1].leaves = MOVE_WHY_DRAIN;
	in.moves_max = 1;
	make();
	ck_assert_uint_eq(plan.count, 1);
	ck_assert(plan.more);
}
END_TEST

/* -- levelling -------------------------------------------------------------------------------- */

enum { BIG_NODES = 200, BIG_VOLUMES = 50, BIG_CHUNKS = 20000 };

struct big {
	struct planner_site sites[BIG_NODES / 10];
	char site_names[BIG_NODES / 10][16];
	bool eligible[BIG_NODES / 10];
	struct rebalance_node nodes[BIG_NODES];
	char node_names[BIG_NODES][16];
	uint32_t indices[BIG_NODES];
	struct rebalance_volume volumes[BIG_VOLUMES];
	uint8_t *map;
};

/* 20 sites of ten nodes, all on the first half of the nodes. */
static struct big *big_create(uint32_t volume_count)
{
	struct big *b = calloc(1, sizeof *b);
	uint32_t x = 1;

	ck_assert_ptr_nonnull(b);
	b->map = malloc((size_t)BIG_VOLUMES * BIG_CHUNKS * 3);
	ck_assert_ptr_nonnull(b->map);
	for (uint32_t i = 0; i < BIG_NODES / 10; i++) {
		snprintf(b->site_names[i], sizeof b->site_names[i], "s%02u", i);
		b->sites[i] =
		    (struct planner_site){.name = b->site_names[i], .campus = b->site_names[i]};
		b->eligible[i] = true;
	}
	for (uint32_t i = 0; i < BIG_NODES; i++) {
		snprintf(b->node_names[i], sizeof b->node_names[i], "n%03u", i);
		b->indices[i] = i;
		b->nodes[i] = (struct rebalance_node){.name = b->node_names[i],
						      .site = i / 10,
						      .up = true,
						      .takes = true,
						      .size_bytes = 20000 * CHUNK * (1 + i % 2)};
	}
	for (uint32_t v = 0; v < volume_count; v++) {
		uint8_t *rows = b->map + (size_t)v * BIG_CHUNKS * 3;

		for (uint32_t c = 0; c < BIG_CHUNKS * 3; c++) {
			x = x * 1664525u + 1013904223u;
			/* Each replica of a chunk has sites of its own. */
			rows[c] = (uint8_t)((x >> 8) % 30 + c % 3 * 30);
			b->nodes[rows[c]].placed_bytes += CHUNK;
		}
		b->volumes[v] = (struct rebalance_volume){.replicas = 3,
							  .chunk_count = BIG_CHUNKS,
							  .chunk_size = CHUNK,
							  .map = rows,
							  .nodes = b->indices};
	}
	policy = (struct rebalance_policy){.distinct = "campus", .eligible = b->eligible};
	in = (struct rebalance_input){.sites = b->sites,
				      .site_count = BIG_NODES / 10,
				      .policies = &policy,
				      .policy_count = 1,
				      .nodes = b->nodes,
				      .node_count = BIG_NODES,
				      .volumes = b->volumes,
				      .volume_count = volume_count,
				      .balance = true,
				      .moves_max = SIZE_MAX};
	return b;
}

static void big_destroy(struct big *b)
{
	free(b->map);
	free(b);
}

/* Applies the plan to the maps, and checks every row by the rules. */
static void apply(struct big *b)
{
	for (size_t i = 0; i < plan.count; i++) {
		const struct rebalance_move *m = &plan.moves[i];
		uint8_t *row =
		    (uint8_t *)(uintptr_t)b->volumes[m->volume].map + (size_t)m->chunk * 3;
		uint32_t at = 0;

		while (at < 3 && row[at] != m->from)
			at++;
		ck_assert_uint_lt(at, 3);
		row[at] = (uint8_t)m->to;
		for (uint32_t k = 0; k < 3; k++)
			for (uint32_t j = 0; j < k; j++)
				ck_assert_uint_ne(b->nodes[row[k]].site, b->nodes[row[j]].site);
	}
}

static double load(const struct big *b, uint32_t node)
{
	return (double)plan.placed_after[node] / (double)b->nodes[node].size_bytes;
}

START_TEST(levelled_by_size)
{
	struct big *b = big_create(2);
	double low = 1e9, high = 0;
	uint32_t rounds = 0;

	/* One move a chunk and plan. */
	do {
		make();
		apply(b);
		for (uint32_t i = 0; i < BIG_NODES; i++)
			b->nodes[i].placed_bytes = plan.placed_after[i];
		ck_assert_uint_lt(rounds++, 20);
	} while (plan.count > 0);
	ck_assert_uint_gt(rounds, 1);
	for (uint32_t i = 0; i < BIG_NODES; i++) {
		low = MIN(low, load(b, i));
		high = MAX(high, load(b, i));
	}
	ck_assert_msg(high < low * 1.10, "from %f to %f", low, high);
	big_destroy(b);
}
END_TEST

START_TEST(a_million_chunks)
{
	struct big *b = big_create(BIG_VOLUMES);
	const clock_t begun = clock();
	double seconds;

	make();
	seconds = (double)(clock() - begun) / CLOCKS_PER_SEC;
	printf("%u chunks on %u nodes: %zu moves planned in %.2f s\n", BIG_VOLUMES * BIG_CHUNKS,
	       BIG_NODES, plan.count, seconds);
	ck_assert_uint_gt(plan.count, BIG_CHUNKS);
	apply(b);
	big_destroy(b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement rebalance");
	TCase *tc = tcase_create("rebalance");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, nothing_has_to_move);
	tcase_add_test(tc, drain_goes_to_the_lightest);
	tcase_add_test(tc, a_hot_node_is_the_last_target);
	tcase_add_test(tc, the_campus_of_the_others_is_no_target);
	tcase_add_test(tc, the_pressing_ones_come_first);
	tcase_add_test(tc, copies_that_lie_too_close_are_spread);
	tcase_add_test(tc, the_one_in_the_middle_moves);
	tcase_add_test(tc, what_moves_already_is_left_alone);
	tcase_add_test(tc, no_target);
	tcase_add_test(tc, no_source);
	tcase_add_test(tc, as_many_as_asked_for);
	tcase_add_test(tc, levelled_by_size);
	tcase_add_test(tc, a_million_chunks);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
