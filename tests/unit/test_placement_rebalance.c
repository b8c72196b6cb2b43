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

/* Of two copies that must leave neither keeps the other from the one place that is near both. */
START_TEST(what_must_leave_takes_up_no_place)
{
	const struct planner_site line[] = {
	    {.name = "a", .campus = "a", .has_position = true, .latitude = 40, .longitude = 0},
	    {.name = "b", .campus = "b", .has_position = true, .latitude = 46, .longitude = 0},
	    {.name = "c", .campus = "c", .has_position = true, .latitude = 47, .longitude = 0},
	    {.name = "d", .campus = "d", .has_position = true, .latitude = 49, .longitude = 0},
	    {.name = "e", .campus = "e", .has_position = true, .latitude = 46.5, .longitude = 0},
	};

	in.sites = line;
	policy.min_distance_km = 100;
	volume.chunk_count = 1;
	volume.served = true;
	map[0] = 3, map[1] = 1, map[2] = 2;
	nodes[0].takes = false;
	eligible[1] = eligible[2] = false;
	make();
	ck_assert_uint_eq(plan.count, 1);
	must_move(0, 0, 1, 4, MOVE_WHY_INELIGIBLE);
	eligible[1] = eligible[2] = true;
	nodes[1].leaves = nodes[2].leaves = MOVE_WHY_LOST;
	nodes[1].up = nodes[1].takes = nodes[2].up = nodes[2].takes = false;
	make();
	ck_assert_uint_eq(plan.count, 1);
	must_move(0, 0, 1, 4, MOVE_WHY_LOST);
	/* One that stays does. */
	nodes[2].leaves = MOVE_WHY_NONE;
	make();
	ck_assert_uint_eq(plan.count, 0);
	ck_assert_uint_eq(plan.stuck.count, 1);
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

/* Copies, and not chunks: of each chunk two must leave. */
START_TEST(every_copy_that_is_stuck_counts)
{
	eligible[1] = eligible[2] = false;
	make();
	ck_assert_uint_eq(plan.count, 0);
	ck_assert_uint_eq(plan.stuck.count, 2 * 2);
	ck_assert(plan.stuck.no_source);
	volume.served = true;
	nodes[3].takes = nodes[4].takes = false;
	make();
	ck_assert_uint_eq(plan.stuck.count, 2 * 2);
	ck_assert(!plan.stuck.no_source);
	/* One of each goes now, and then the other one may. */
	nodes[4].takes = true;
	make();
	ck_assert_uint_eq(plan.count, 2);
	ck_assert_uint_eq(plan.stuck.count, 0);
}
END_TEST

/* A drained copy that has no place to go to keeps no other one of its chunk from going. */
START_TEST(one_that_is_stuck_keeps_no_other)
{
	nodes[0].leaves = nodes[1].leaves = MOVE_WHY_DRAIN;
	nodes[3].site = 1;
	nodes[4].takes = false;
	make();
	ck_assert_uint_eq(plan.count, 2);
	must_move(0, 0, 1, 3, MOVE_WHY_DRAIN);
	must_move(1, 1, 1, 3, MOVE_WHY_DRAIN);
	ck_assert_uint_eq(plan.stuck.count, 2);
	ck_assert_uint_eq(plan.stuck.from, 0);
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

/* A map numbers its nodes with bytes: one that has the most goes on with those, and what must leave
 * does not wait for ever for a place on another. */
START_TEST(a_volume_on_the_most_nodes_keeps_to_them)
{
	struct rebalance_node many[REG_MAP_NODES_MAX + 1] = {0};
	uint32_t numbers[REG_MAP_NODES_MAX];
	char texts[REG_MAP_NODES_MAX + 1][8];
	const uint32_t other = REG_MAP_NODES_MAX;

	for (uint32_t i = 0; i < ARRAY_SIZE(many); i++) {
		snprintf(texts[i], sizeof texts[i], "n%03u", i);
		many[i] = i < 5 ? nodes[i] : (struct rebalance_node){.size_bytes = SIZE, .site = 3};
		many[i].name = texts[i];
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(numbers); i++)
		numbers[i] = i;
	many[1].leaves = MOVE_WHY_DRAIN;
	many[3].placed_bytes = many[4].placed_bytes = CHUNK;
	many[other].takes = many[other].up = true;
	in.nodes = many;
	in.node_count = ARRAY_SIZE(many);
	volume.nodes = numbers;
	volume.chunk_count = 1;
	volume.node_count = REG_MAP_NODES_MAX - 1;
	make();
	must_move(0, 0, 1, other, MOVE_WHY_DRAIN);
	volume.node_count = REG_MAP_NODES_MAX;
	make();
	must_move(0, 0, 1, 3, MOVE_WHY_DRAIN);
}
END_TEST

/* -- worlds at random ------------------------------------------------------------------------- */

enum { ANY_SITES = 8, ANY_NODES = 12, ANY_CHUNKS = 6, ANY_WORLDS = 4000 };

struct any {
	char names[ANY_NODES][8];
	struct planner_site sites[ANY_SITES];
	bool eligible[ANY_SITES];
	struct rebalance_policy policy;
	struct rebalance_node nodes[ANY_NODES];
	uint32_t indices[ANY_NODES];
	uint8_t map[ANY_CHUNKS * 3];
	chunk_no_t moving;
	struct rebalance_volume volume;
	struct rebalance_input in;
	uint32_t dice;
};

static uint32_t roll(struct any *w, uint32_t sides)
{
	w->dice = w->dice * 1664525u + 1013904223u;
	return (w->dice >> 8) % sides;
}

static void any_nodes(struct any *w)
{
	static const char *const campuses[] = {"c1", "c2", "c3", "c4", "c5"};

	for (uint32_t i = 0; i < ANY_NODES; i++)
		snprintf(w->names[i], sizeof w->names[i], "n%02u", i);
	for (uint32_t i = 0; i < ANY_SITES; i++) {
		w->eligible[i] = roll(w, 4) != 0;
		w->sites[i] = (struct planner_site){.name = w->names[i],
						    .campus = campuses[roll(w, 5)],
						    .has_position = roll(w, 8) != 0,
						    .latitude = 43 + roll(w, 70) / 10.0,
						    .longitude = roll(w, 60) / 10.0};
	}
	for (uint32_t i = 0; i < ANY_NODES; i++) {
		const uint32_t fate = roll(w, 8);
		const bool up = fate != 1 && roll(w, 6) != 0;

		w->indices[i] = i;
		w->nodes[i] =
		    (struct rebalance_node){.name = w->names[i],
					    .site = i < ANY_SITES ? i : roll(w, ANY_SITES),
					    .up = up,
					    .leaves = fate == 0	  ? MOVE_WHY_DRAIN
						      : fate == 1 ? MOVE_WHY_LOST
								  : MOVE_WHY_NONE,
					    .takes = up && fate != 0 && roll(w, 6) != 0,
					    .size_bytes = SIZE * (1 + roll(w, 3)),
					    .load = roll(w, 3) == 0 ? roll(w, 1000) : 0};
	}
}

static void any_world(struct any *w, uint32_t seed)
{
	static const char *const kinds[] = {"campus", "site", "none"};

	*w = (struct any){.dice = seed};
	any_nodes(w);
	w->policy = (struct rebalance_policy){.distinct = kinds[roll(w, 3)],
					      .min_distance_km = roll(w, 2) == 0 ? 0 : roll(w, 300),
					      .eligible = w->eligible};
	w->volume = (struct rebalance_volume){.replicas = 1 + roll(w, 3),
					      .chunk_count = ANY_CHUNKS,
					      .chunk_size = CHUNK,
					      .map = w->map,
					      .nodes = w->indices,
					      .moving = &w->moving,
					      .moving_count = roll(w, 2),
					      .served = roll(w, 2) != 0};
	w->moving = roll(w, ANY_CHUNKS);
	for (uint32_t k = 0; k < ANY_CHUNKS * w->volume.replicas; k++) {
		const uint32_t first = k - k % w->volume.replicas;
		uint32_t i;

		do {
			w->map[k] = (uint8_t)roll(w, ANY_NODES);
			for (i = first; w->map[i] != w->map[k]; i++)
				;
		} while (i != k);
		w->nodes[w->map[k]].placed_bytes += CHUNK;
	}
	w->in = (struct rebalance_input){.sites = w->sites,
					 .site_count = ANY_SITES,
					 .policies = &w->policy,
					 .policy_count = 1,
					 .nodes = w->nodes,
					 .node_count = ANY_NODES,
					 .volumes = &w->volume,
					 .volume_count = 1,
					 .balance = roll(w, 2) != 0,
					 .moves_max = SIZE_MAX};
}

static bool counts(const struct any *w, uint8_t node)
{
	return w->eligible[w->nodes[node].site];
}

static uint32_t copies_that_count(const struct any *w, const uint8_t *row, bool up)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->volume.replicas; i++)
		n += counts(w, row[i]) && (!up || w->nodes[row[i]].up);
	return n;
}

static bool are_together(const struct any *w, uint32_t a, uint32_t b)
{
	return planner_sites_go_together(w->policy.distinct, w->policy.min_distance_km,
					 &w->sites[w->nodes[a].site], &w->sites[w->nodes[b].site]);
}

/* There is the reason that the move tells. */
static void check_reason(const struct any *w, const uint8_t *row, const struct rebalance_move *m)
{
	bool close = false;

	for (uint32_t i = 0; i < w->volume.replicas; i++)
		close = close || (row[i] != m->from && !are_together(w, row[i], m->from));
	switch (m->why) {
	case MOVE_WHY_INELIGIBLE:
		ck_assert(!counts(w, (uint8_t)m->from));
		break;
	case MOVE_WHY_LOST:
	case MOVE_WHY_DRAIN:
		ck_assert_int_eq((int)w->nodes[m->from].leaves, (int)m->why);
		break;
	case MOVE_WHY_TOO_CLOSE:
		ck_assert(counts(w, (uint8_t)m->from) && close);
		break;
	default:
		ck_assert_int_eq((int)m->why, MOVE_WHY_BALANCE);
		ck_assert(w->in.balance && counts(w, (uint8_t)m->from));
		break;
	}
}

/* Carries one move out, and looks whether it may be: never does it leave fewer copies that count
 * than before, nor one where the policy has none. */
static void carry_out(struct any *w, const struct rebalance_move *m)
{
	uint8_t *row = w->map + m->chunk * w->volume.replicas;
	const uint32_t before = copies_that_count(w, row, false);
	const uint32_t sources = copies_that_count(w, row, true);
	uint32_t at = w->volume.replicas;

	ck_assert_uint_ge(sources, w->volume.served ? 1 : w->volume.replicas / 2 + 1);
	check_reason(w, row, m);
	for (uint32_t i = 0; i < w->volume.replicas; i++) {
		ck_assert_uint_ne(row[i], m->to);
		if (row[i] == m->from)
			at = i;
		else if (counts(w, row[i]) && w->nodes[row[i]].leaves != MOVE_WHY_LOST)
			ck_assert(are_together(w, row[i], m->to));
	}
	ck_assert_uint_lt(at, w->volume.replicas);
	ck_assert(w->nodes[m->to].takes && w->nodes[m->to].leaves == MOVE_WHY_NONE);
	row[at] = (uint8_t)m->to;
	ck_assert_uint_ge(copies_that_count(w, row, false), before);
	ck_assert(counts(w, row[at]));
}

/* Each chunk of which something must leave has a move, or counts as stuck. */
static uint32_t must_leave(const struct any *w)
{
	uint32_t n = 0;

	for (chunk_no_t c = 0; c < ANY_CHUNKS; c++) {
		bool leaves = false;

		for (uint32_t i = 0; i < w->volume.replicas; i++) {
			const uint8_t node = w->map[c * w->volume.replicas + i];

			leaves =
			    leaves || !counts(w, node) || w->nodes[node].leaves == MOVE_WHY_LOST;
		}
		n += leaves && !(w->volume.moving_count > 0 && w->moving == c);
	}
	return n;
}

START_TEST(no_move_leaves_fewer_copies_that_count)
{
	struct any w;
	uint32_t moves[MOVE_WHY_COUNT] = {0};

	for (uint32_t seed = 0; seed < ANY_WORLDS; seed++) {
		uint32_t rounds = 0;

		any_world(&w, seed);
		in = w.in;
		do {
			uint64_t placed[ANY_NODES] = {0};
			uint32_t pressing = 0, moved = 0;
			const uint32_t leave = must_leave(&w);

			in.volumes = &w.volume;
			in.nodes = w.nodes;
			make();
			for (size_t i = 0; i < plan.count; i++) {
				const struct rebalance_move *m = &plan.moves[i];

				ck_assert(!(w.volume.moving_count > 0 && m->chunk == w.moving));
				ck_assert_uint_eq(moved & 1u << m->chunk, 0);
				moved |= 1u << m->chunk;
				carry_out(&w, m);
				pressing +=
				    m->why == MOVE_WHY_INELIGIBLE || m->why == MOVE_WHY_LOST;
				moves[m->why]++;
			}
			ck_assert_uint_ge(pressing + plan.stuck.count, leave);
			for (uint32_t k = 0; k < ANY_CHUNKS * w.volume.replicas; k++)
				placed[w.map[k]] += CHUNK;
			for (uint32_t i = 0; i < ANY_NODES; i++) {
				ck_assert_uint_eq(plan.placed_after[i], placed[i]);
				w.nodes[i].placed_bytes = placed[i];
			}
			w.volume.moving_count = 0;
			ck_assert_uint_lt(rounds++, 50);
		} while (plan.count > 0);
	}
	for (int why = MOVE_WHY_NONE + 1; why < MOVE_WHY_COUNT; why++)
		ck_assert_uint_gt(moves[why], 100); /* it was tried */
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
	tcase_add_test(tc, what_must_leave_takes_up_no_place);
	tcase_add_test(tc, what_moves_already_is_left_alone);
	tcase_add_test(tc, no_target);
	tcase_add_test(tc, no_source);
	tcase_add_test(tc, every_copy_that_is_stuck_counts);
	tcase_add_test(tc, one_that_is_stuck_keeps_no_other);
	tcase_add_test(tc, as_many_as_asked_for);
	tcase_add_test(tc, a_volume_on_the_most_nodes_keeps_to_them);
	tcase_add_test(tc, no_move_leaves_fewer_copies_that_count);
	tcase_add_test(tc, levelled_by_size);
	tcase_add_test(tc, a_million_chunks);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
