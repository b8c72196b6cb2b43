/* The planner, as tables: sites and nodes in, places or the rule that cannot be met out. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/placement/planner.h"

#define GIB_ (1ull << 30)

static const struct planner_site three[] = {
    {.name = "par",
     .campus = "c1",
     .has_position = true,
     .latitude = 48.93,
     .longitude = 2.36,
     .eligible = true},
    {.name = "lyo",
     .campus = "c2",
     .has_position = true,
     .latitude = 45.76,
     .longitude = 4.84,
     .eligible = true},
    {.name = "rbx",
     .campus = "c3",
     .has_position = true,
     .latitude = 50.69,
     .longitude = 3.17,
     .eligible = true},
};

static struct planner_node node(const char *name, uint32_t site)
{
	return (struct planner_node){
	    .name = name, .site = site, .up = true, .size_bytes = 8 * GIB_, .free_bytes = 8 * GIB_};
}

static struct planner_input input(const struct planner_site *sites, uint32_t site_count,
				  const struct planner_node *nodes, uint32_t node_count)
{
	return (struct planner_input){.policy = "p",
				      .replicas = 3,
				      .distinct = "campus",
				      .sites = sites,
				      .site_count = site_count,
				      .nodes = nodes,
				      .node_count = node_count,
				      .chunk_count = 30,
				      .chunk_size = 64ull << 20};
}

static uint32_t count_of(const struct planner_input *in, const struct planner_result *r,
			 uint32_t which)
{
	uint32_t n = 0;

	for (size_t i = 0; i < (size_t)in->chunk_count * in->replicas; i++)
		n += r->nodes[r->map[i]] == which;
	return n;
}

/* Every row obeys the rules, looked at independently of how it was found. */
static void check_map(const struct planner_input *in, const struct planner_result *r)
{
	for (uint32_t c = 0; c < in->chunk_count; c++)
		for (uint32_t i = 0; i < in->replicas; i++) {
			const struct planner_node *a =
			    &in->nodes[r->nodes[r->map[c * in->replicas + i]]];

			ck_assert_uint_lt(r->map[c * in->replicas + i], r->node_count);
			ck_assert(a->up && in->sites[a->site].eligible);
			for (uint32_t j = 0; j < i; j++) {
				const struct planner_node *b =
				    &in->nodes[r->nodes[r->map[c * in->replicas + j]]];

				ck_assert(a != b);
				if (strcmp(in->distinct, "campus") == 0)
					ck_assert_str_ne(in->sites[a->site].campus,
							 in->sites[b->site].campus);
				else if (strcmp(in->distinct, "site") == 0)
					ck_assert_uint_ne(a->site, b->site);
			}
		}
}

static void must_place(const struct planner_input *in, struct planner_result *r)
{
	struct error err = {0};

	ck_assert_msg(planner_place(in, r, &err) == 0, "%s", err.text);
	check_map(in, r);
}

static void must_refuse(const struct planner_input *in, const char *const *words)
{
	struct planner_result r = {0};
	struct error err = {0};

	ck_assert_int_eq(planner_place(in, &r, &err), -E_DENIED);
	ck_assert_ptr_null(r.map);
	for (; *words != NULL; words++)
		ck_assert_msg(strstr(err.text, *words) != NULL, "\"%s\" is not in: %s", *words,
			      err.text);
}

START_TEST(spreads_evenly)
{
	struct planner_node nodes[] = {node("a1", 0), node("a2", 0), node("b1", 1),
				       node("b2", 1), node("c1", 2), node("c2", 2)};
	struct planner_input in = input(three, 3, nodes, 6);
	struct planner_result r;

	must_place(&in, &r);
	ck_assert_uint_eq(r.node_count, 6);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert_uint_eq(count_of(&in, &r, i), 15);
	planner_result_deinit(&r);
}
END_TEST

/* A node that carries much more than the others counts as 2.56 chunks fuller. */
START_TEST(hot_nodes_come_after_others)
{
	struct planner_node nodes[] = {node("a1", 0), node("a2", 0), node("b", 1), node("c", 2)};
	struct planner_input in = input(three, 3, nodes, 4);
	struct planner_result r;

	nodes[0].load = 1000;
	must_place(&in, &r);
	ck_assert_uint_eq(count_of(&in, &r, 0), 14);
	ck_assert_uint_eq(count_of(&in, &r, 1), 16);
	planner_result_deinit(&r);
	/* Others carry as much, or it is little: nobody is hot. */
	for (int little = 0; little < 2; little++) {
		nodes[0].load = little == 1 ? PLANNER_HOT_MIN - 1 : 1000;
		nodes[1].load = nodes[2].load = nodes[3].load = little == 1 ? 0 : 600;
		must_place(&in, &r);
		ck_assert_uint_eq(count_of(&in, &r, 0), 15);
		planner_result_deinit(&r);
	}
	/* One of twice the size may carry twice as much. */
	nodes[0].load = 2000;
	nodes[0].size_bytes *= 2;
	nodes[1].load = nodes[2].load = nodes[3].load = 1000;
	must_place(&in, &r);
	ck_assert_uint_eq(count_of(&in, &r, 0), 20);
	planner_result_deinit(&r);
	/* It is taken when there is no other. */
	in = input(three, 3, nodes, 4);
	nodes[1].up = false;
	nodes[0].load = 100000;
	must_place(&in, &r);
	ck_assert_uint_eq(count_of(&in, &r, 0), 30);
	planner_result_deinit(&r);
}
END_TEST

START_TEST(weighs_by_size_and_load)
{
	struct planner_node nodes[] = {node("a1", 0), node("a2", 0), node("b", 1), node("c", 2)};
	struct planner_input in = input(three, 3, nodes, 4);
	struct planner_result r;

	nodes[1].size_bytes *= 2; /* takes twice as much */
	must_place(&in, &r);
	ck_assert_uint_eq(count_of(&in, &r, 0), 10);
	ck_assert_uint_eq(count_of(&in, &r, 1), 20);
	planner_result_deinit(&r);
	nodes[1].size_bytes /= 2;
	nodes[0].placed_bytes = 10 * in.chunk_size; /* has ten more already */
	must_place(&in, &r);
	ck_assert_uint_eq(count_of(&in, &r, 0), 10);
	ck_assert_uint_eq(count_of(&in, &r, 1), 20);
	planner_result_deinit(&r);
}
END_TEST

START_TEST(repeats)
{
	struct planner_node nodes[] = {node("a1", 0), node("a2", 0), node("b1", 1), node("c1", 2)};
	struct planner_input in = input(three, 3, nodes, 4);
	struct planner_result a, b;

	must_place(&in, &a);
	must_place(&in, &b);
	ck_assert_mem_eq(a.map, b.map, in.chunk_count * in.replicas);
	planner_result_deinit(&a);
	planner_result_deinit(&b);
}
END_TEST

START_TEST(too_few_sites)
{
	struct planner_site sites[3];
	struct planner_node nodes[] = {node("a", 0), node("b", 1), node("c", 2)};
	struct planner_input in = input(sites, 3, nodes, 3);

	memcpy(sites, three, sizeof sites);
	sites[2].eligible = false;
	sites[2].why = "because";
	must_refuse(&in, (const char *[]){"policy p needs 3 replicas on 3 distinct campuses",
					  "only 2 are eligible", "par", "lyo",
					  "Not eligible: rbx (because)", NULL});
	sites[2] = three[2];
	sites[2].campus = "c1"; /* two sites on one campus */
	must_refuse(&in, (const char *[]){"only 2 are eligible", NULL});
	sites[2].campus = ""; /* and one that doesn't say */
	must_refuse(&in, (const char *[]){"only 2 are eligible", "campus missing", NULL});
	in.distinct = "site";
	struct planner_result r;
	must_place(&in, &r);
	planner_result_deinit(&r);
}
END_TEST

START_TEST(too_few_nodes)
{
	struct planner_node nodes[] = {node("a", 0), node("b", 1), node("c", 2)};
	struct planner_input in = input(three, 3, nodes, 3);

	nodes[1].up = false;
	nodes[1].why = "its clock";
	must_refuse(
	    &in, (const char *[]){"only 2 of the 3 eligible", "b of site lyo (its clock)", NULL});
	nodes[1].up = true;
	nodes[1].free_bytes = nodes[1].size_bytes / 100;
	must_refuse(&in, (const char *[]){"b of site lyo (full)", NULL});
	in.node_count = 2;
	nodes[1].free_bytes = nodes[1].size_bytes;
	must_refuse(&in, (const char *[]){"site rbx has no node", NULL});
	in.distinct = "none";
	must_refuse(&in, (const char *[]){"3 distinct nodes", "only 2 can take one", NULL});
}
END_TEST

START_TEST(none_takes_any_node)
{
	struct planner_node nodes[] = {node("a1", 0), node("a2", 0), node("a3", 0)};
	struct planner_input in = input(three, 1, nodes, 3);
	struct planner_result r;

	in.distinct = "none";
	must_place(&in, &r);
	planner_result_deinit(&r);
}
END_TEST

START_TEST(distance)
{
	struct planner_site sites[4];
	struct planner_node nodes[] = {node("a", 0), node("b", 1), node("c", 2), node("d", 3)};
	struct planner_input in = input(sites, 4, nodes, 4);
	struct planner_result r;

	memcpy(sites, three, sizeof three);
	sites[3] = three[0]; /* 20 km from the first */
	sites[3].name = "pa2";
	sites[3].campus = "c4";
	sites[3].longitude = 2.63;
	in.min_distance_km = 150;
	must_place(&in, &r);
	/* a and d are never together, and share what one of them would have. */
	ck_assert_uint_eq(count_of(&in, &r, 0), 15);
	ck_assert_uint_eq(count_of(&in, &r, 3), 15);
	planner_result_deinit(&r);
	in.min_distance_km = 300; /* par - rbx is some 200 km */
	must_refuse(&in, (const char *[]){"at least 300 km", "min_distance_km", NULL});
	in.min_distance_km = 150;
	sites[1].has_position = false;
	must_refuse(&in, (const char *[]){"min_distance_km", NULL});
}
END_TEST

/* The light nodes come first, and don't fit: it must look further. */
START_TEST(backs_off)
{
	struct planner_site sites[4];
	struct planner_node nodes[] = {node("a", 0), node("b", 1), node("c", 2), node("d", 3)};
	struct planner_input in = input(sites, 4, nodes, 4);
	struct planner_result r;

	memcpy(sites, three, sizeof three);
	/* Between par and rbx: too near to both, but the lightest. */
	sites[3] = (struct planner_site){.name = "mid",
					 .campus = "c4",
					 .has_position = true,
					 .latitude = 49.8,
					 .longitude = 2.8,
					 .eligible = true};
	for (int i = 0; i < 3; i++)
		nodes[i].placed_bytes = GIB_;
	in.min_distance_km = 150;
	must_place(&in, &r);
	ck_assert_uint_eq(count_of(&in, &r, 3), 0);
	planner_result_deinit(&r);
}
END_TEST

/* More nodes than a map can name. */
START_TEST(many_nodes)
{
	static struct planner_site sites[600];
	static struct planner_node nodes[600];
	static char names[600][16];
	struct planner_input in = input(sites, 600, nodes, 600);
	struct planner_result r;

	for (uint32_t i = 0; i < 600; i++) {
		snprintf(names[i], sizeof names[i], "n%03u", i);
		sites[i] =
		    (struct planner_site){.name = names[i], .campus = names[i], .eligible = true};
		nodes[i] = node(names[i], i);
	}
	in.chunk_count = 2000;
	must_place(&in, &r);
	ck_assert_uint_le(r.node_count, PLANNER_NODES_MAX);
	ck_assert_uint_gt(r.node_count, 250);
	planner_result_deinit(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("planner");
	TCase *t = tcase_create("planner");
	SRunner *runner;
	int failed;

	tcase_add_test(t, spreads_evenly);
	tcase_add_test(t, weighs_by_size_and_load);
	tcase_add_test(t, hot_nodes_come_after_others);
	tcase_add_test(t, repeats);
	tcase_add_test(t, too_few_sites);
	tcase_add_test(t, too_few_nodes);
	tcase_add_test(t, none_takes_any_node);
	tcase_add_test(t, distance);
	tcase_add_test(t, backs_off);
	tcase_add_test(t, many_nodes);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
