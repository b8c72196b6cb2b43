/* The driver and moves: what hosts are told, when the map changes, when old copies are erased; all
 * of it also over a new start. On virtual time. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_placement_rig.h"

#define CHUNKS 4u
#define SIZE   ((uint64_t)CHUNKS * (64ull << 20))

static struct rig *rig;
static struct peer *admin, *nodes[4], *host;
static const char *const names[] = {"n1", "n2", "n3", "n4"};

static void leases(void)
{
	for (uint32_t n = 0; n < 4; n++)
		if (nodes[n] != NULL)
			ask_lease(nodes[n], names[n], rig_sites[n], (uint8_t)(n + 1), 0);
}

static void run_s(unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		rig_run_ms(rig, 1000);
		leases();
	}
}

static void setup(void)
{
	rig = rig_create(1);
	admin = peer_new(rig, "admin", "test");
	rig_three(rig, admin, nodes);
	ck_assert_msg(ask_create(admin, "v", SIZE, "secnumcloud-fr") == 0, "%s", admin->text);
	ck_assert_int_eq(ask_site_add(admin, rig->sites[3]), 0);
	nodes[3] = peer_new(rig, "node", "n4");
	leases();
	host = peer_new(rig, "host", "h1");
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	ck_assert_uint_eq(host->reply->attach_reply->n_moves, 0);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* As the list of all has it. */
static const Pave__V1__NodeInfo *node_info(const char *node)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeList list = PAVE__V1__NODE_LIST__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST;
	m.node_list = &list;
	ck_assert_int_eq(peer_ask(admin, &m), 0);
	for (size_t i = 0; i < admin->reply->node_list_reply->n_nodes; i++)
		if (strcmp(admin->reply->node_list_reply->nodes[i]->node, node) == 0)
			return admin->reply->node_list_reply->nodes[i];
	ck_abort_msg("there is no node %s", node);
}

/* What the driver takes the node's load for. */
static uint64_t load_of(const char *node)
{
	return node_info(node)->operations_per_s;
}

/* Nodes count what they answer; the driver places new volumes elsewhere. */
START_TEST(busy_nodes_get_no_new_volumes)
{
	for (int i = 0; i < 60; i++) {
		nodes[0]->operations += 5000;
		nodes[1]->operations += 1000;
		nodes[2]->operations += 1000;
		run_s(1);
	}
	ck_assert_uint_gt(load_of("n1"), 4500);
	ck_assert_uint_le(load_of("n1"), 5000);
	ck_assert_uint_le(load_of("n2"), 1000);
	ck_assert_uint_eq(load_of("n4"), 0);
	/* Three chunks: n1 counts as two and a half fuller than n2 and n3. */
	ck_assert_int_eq(ask_create(admin, "w", SIZE / 4 * 3, "secnumcloud-fr"), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), 0);
	ck_assert_int_eq(ask_volume(admin, "w"), 0);
	for (size_t i = 0; i < admin->reply->volume_get_reply->n_nodes; i++)
		ck_assert_str_ne(admin->reply->volume_get_reply->nodes[i]->node, "n1");
	/* It is started again: the count begins anew, and what it carries is known all the same. */
	nodes[0]->operations = 0;
	run_s(2);
	ck_assert_uint_le(load_of("n1"), 5000);
	run_s(60);
	ck_assert_uint_eq(load_of("n1"), 0);
}
END_TEST

static int ask_commit_of(struct peer *p, volume_id_t volume, generation_t generation,
			 uint32_t chunk, const char *from, const char *to)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__MoveCommit c = PAVE__V1__MOVE_COMMIT__INIT;

	c.volume = volume;
	c.generation = generation;
	c.chunk = chunk;
	c.from = (char *)(uintptr_t)from;
	c.to = (char *)(uintptr_t)to;
	m.body_case = PAVE__V1__CONTROL__BODY_MOVE_COMMIT;
	m.move_commit = &c;
	return peer_ask(p, &m);
}

static int ask_commit(struct peer *p, generation_t generation, uint32_t chunk, const char *from,
		      const char *to)
{
	return ask_commit_of(p, 1, generation, chunk, from, to);
}

/* A renewal that says that these chunks are still moving; the moves that it is told. */
static size_t renew(const uint32_t *moving, size_t count)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	r.volume = 1;
	r.generation = 1;
	r.moving = (uint32_t *)(uintptr_t)moving;
	r.n_moving = count;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	ck_assert_msg(peer_ask(host, &m) == 0, "%s", host->text);
	return host->reply->renew_reply->n_moves;
}

static bool in_permit(const char *node)
{
	struct permit p = reply_permit(host);
	const bool found = permit_find_node(&p, node) != NULL;

	permit_deinit(&p);
	return found;
}

/* How many chunks the volume's map lays on the node. */
static uint32_t placed_of(const char *volume, const char *node)
{
	const Pave__V1__VolumeGetReply *g;
	uint32_t n = 0;

	ck_assert_int_eq(ask_volume(admin, volume), 0);
	g = admin->reply->volume_get_reply;
	for (size_t i = 0; i < g->map.len; i++)
		n += strcmp(g->nodes[g->map.data[i]]->node, node) == 0;
	return n;
}

static uint32_t placed(const char *node)
{
	return placed_of("v", node);
}

START_TEST(drain_moves_every_chunk)
{
	const Pave__V1__Move *m;

	ck_assert_int_eq(ask_drain(admin, "nix", false), -ENOENT);
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	ck_assert(node_info("n1")->draining && !node_info("n4")->draining);
	run_s(2);
	ck_assert_uint_ge(host->permit_notices, 1); /* at once, not with the next renewal */
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	ck_assert(in_permit("n1") && in_permit("n4"));
	for (uint32_t i = 0; i < CHUNKS; i++) {
		m = host->reply->renew_reply->moves[i];
		ck_assert_str_eq(m->from, "n1");
		ck_assert_str_eq(m->to, "n4");
	}
	/* A learner is in no map. */
	ck_assert_uint_eq(placed("n4"), 0);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_msg(ask_commit(host, 1, c, "n1", "n4") == 0, "%s", host->text);
	ck_assert_uint_eq(placed("n1"), 0);
	ck_assert_uint_eq(placed("n4"), CHUNKS);
	/* In no map any more, but not erased yet. */
	ck_assert(node_info("n1")->chunks == 0 && node_info("n1")->draining);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert(!in_permit("n1") && in_permit("n4"));
	ck_assert_uint_eq(ask_status(admin)->moves_done, CHUNKS);
	ck_assert_uint_eq(ask_status(admin)->bytes_done,
			  0); /* nothing lies on the nodes, they say */
	run_s(5);
	ck_assert_str_eq(ask_status(admin)->state, "idle");
	ck_assert(node_info("n1")->drain && !node_info("n1")->draining);
	/* Asked again, because the answer was lost: the same answer. */
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n4", "n1"), -ENOENT);
	ck_assert_int_eq(ask_commit(host, 1, CHUNKS, "n1", "n4"), -ENOENT);
	ck_assert_int_eq(ask_commit(host, 2, 0, "n1", "n4"), -E_FENCED);
}
END_TEST

/* Whoever drains a node and asks at once must not hear that nothing is to do. */
START_TEST(what_is_not_planned_yet_is_told)
{
	run_s(5);
	ck_assert_str_eq(ask_status(admin)->state, "idle");
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	ck_assert_str_eq(ask_status(admin)->state, "planning");
	run_s(2);
	ck_assert_str_eq(ask_status(admin)->state, "running");
}
END_TEST

/* What comes to a node of which a device is missing may be refused, chunk by chunk. */
START_TEST(a_node_in_trouble_is_no_target)
{
	nodes[3]->trouble = "device d is missing";
	leases();
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(5);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert_uint_gt(ask_status(admin)->stuck, 0);
	nodes[3]->trouble = NULL;
	run_s(3);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	/* And those that are under way do not stay there. */
	nodes[3]->trouble = "device d is missing";
	run_s(3);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert(!in_permit("n4"));
}
END_TEST

/* Nor does a new volume lie there, as long as there are others; after that it begins with a copy
 * less. */
START_TEST(a_new_volume_is_spared_a_node_in_trouble)
{
	nodes[0]->trouble = "device d is missing";
	leases();
	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	ck_assert_uint_eq(placed_of("w", "n1"), 0);
	nodes[1]->trouble = "device d is missing";
	leases();
	ck_assert_int_eq(ask_create(admin, "x", SIZE, "secnumcloud-fr"), 0);
	ck_assert_uint_gt(placed_of("x", "n1") + placed_of("x", "n2"), 0);
}
END_TEST

START_TEST(old_copies_wait_for_the_host)
{
	const uint32_t moving[] = {0};

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	run_s(3);
	ck_assert_uint_eq(nodes[0]->erases, 0);
	renew(moving, 1); /* it still has something on the wire to n1 */
	run_s(3);
	ck_assert_uint_eq(nodes[0]->erases, 0);
	renew(NULL, 0);
	run_s(2);
	ck_assert_uint_eq(nodes[0]->erases, 1);
	ck_assert_uint_eq(nodes[0]->erase_volume, 1);
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	ck_assert_uint_eq(placed("n1"), CHUNKS - 1);
}
END_TEST

/* A node that does less than the policy says has not erased; it is asked again, until it does. */
START_TEST(a_copy_is_erased_as_the_policy_says)
{
	nodes[0]->erase_less = true;
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	run_s(1);
	renew(NULL, 0);
	run_s(2);
	ck_assert_uint_ge(nodes[0]->erases, 1);
	ck_assert_str_eq(nodes[0]->erase_method, "overwrite");
	ck_assert_uint_eq(ask_status(admin)->erasing, 1);
	run_s(6);
	ck_assert_uint_ge(nodes[0]->erases, 2);
	ck_assert_uint_eq(ask_status(admin)->erasing, 1);
	nodes[0]->erase_less = false;
	run_s(6);
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
}
END_TEST

START_TEST(old_copies_of_a_dead_host_wait_for_its_permit)
{
	struct peer *next = peer_new(rig, "host", "h2");

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	peer_close(host);
	run_s(LIFETIME_MS / 1000 + 5);
	/* It has lapsed, and may come back with what it believed. */
	ck_assert_uint_eq(nodes[0]->erases, 0);
	ck_assert_int_eq(ask_attach(next, "v", "h2", "lyo"), 0);
	ck_assert_uint_eq(next->reply->attach_reply->n_moves, CHUNKS - 1);
	run_s(2);
	ck_assert_uint_eq(nodes[0]->erases, 1);
}
END_TEST

static void come_back(struct peer *p, const char *role, const char *name)
{
	ck_assert(sim_run_flag(rig->world, &p->closed));
	ck_assert_int_eq(peer_connect(p, role, name), 0);
}

/* After a crash of the driver, of which everybody hears. */
static void restart(void)
{
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	for (uint32_t i = 0; i < 4; i++)
		come_back(nodes[i], "node", names[i]);
	come_back(host, "host", "h1");
	leases();
}

START_TEST(a_new_start_goes_on)
{
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	restart();
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS - 1);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS - 1); /* what the host was told is not kept */
	ck_assert_uint_eq(placed("n4"), 1);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	ck_assert_int_eq(ask_commit(host, 1, 1, "n1", "n4"), 0);
	run_s(3);
	ck_assert_uint_eq(nodes[0]->erases, 1); /* chunk 0; of 1 the host has said nothing yet */
	ck_assert_uint_eq(placed("n1"), CHUNKS - 2);
}
END_TEST

START_TEST(undrain_drops_the_learners)
{
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	ck_assert_int_eq(ask_drain(admin, "n1", true), 0);
	run_s(2);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), -ENOENT);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert(!in_permit("n4"));
	run_s(2);
	/* That may have been said before it heard of the moves; once it was answered it knows. */
	ck_assert_uint_eq(nodes[3]->erases, 0);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	run_s(2);
	ck_assert_uint_ge(nodes[3]->erases, 1); /* what the learners have got so far */
	ck_assert_uint_eq(placed("n1"), CHUNKS);
}
END_TEST

START_TEST(a_target_that_lost_its_label)
{
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	ck_assert_int_eq(rig_revoke(rig, admin, "mrs", rig_wall(rig)), 0);
	/* At that moment, whatever the planner knows. */
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), -E_DENIED);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert_uint_eq(placed("n1"), CHUNKS);
	ck_assert_uint_eq(ask_status(admin)->stuck, CHUNKS);
	ck_assert_ptr_nonnull(strstr(ask_status(admin)->stuck_why, "node n1"));
}
END_TEST

START_TEST(a_site_that_lost_its_label_is_left)
{
	ck_assert_int_eq(rig_revoke(rig, admin, "lyo", rig_wall(rig)), 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	ck_assert_str_eq(host->reply->renew_reply->moves[0]->from, "n2");
	ck_assert(!in_permit("n2") && in_permit("n4"));
	/* Pausing stops no evacuation. */
	ck_assert_int_eq(ask_set(admin, "pause"), 0);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n2", "n4"), 0);
	renew(NULL, 0);
	run_s(2);
	ck_assert_uint_ge(nodes[1]->erases, 1); /* erasing needs no eligibility */
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	ck_assert_uint_eq(placed("n2"), 0);
}
END_TEST

/* What the admin is told of copies that lie too close: once, and so. */
static void must_fail(const char *rule, const char *value, const char *bound, const char *source)
{
	const Pave__V1__FailedRule *f;

	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->n_spread, 1);
	f = admin->reply->volume_get_reply->spread[0];
	ck_assert_str_eq(f->rule, rule);
	ck_assert_str_eq(f->value, value);
	ck_assert_str_eq(f->bound, bound);
	ck_assert_str_eq(f->source, source);
}

/* rbx is 204 km from par; mrs is far enough from all. */
START_TEST(a_greater_distance_moves_copies)
{
	const char *from[CHUNKS];

	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert_msg(rig_put_policy(rig, admin, 2, "\"min_distance_km\": 0",
				     "\"min_distance_km\": 230", false) == 0,
		      "%s", admin->text);
	ck_assert_int_eq(ask_set(admin, "pause"), 0); /* which stops no such move */
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	must_fail("min_distance_km", "204.4 km between par and rbx (4 chunks)", "at least 230 km",
		  "site par version 1, site rbx version 1");
	/* They count until the others are there: nothing is quarantined. */
	ck_assert(in_permit("n1") && in_permit("n2") && in_permit("n3") && in_permit("n4"));
	for (uint32_t i = 0; i < CHUNKS; i++) {
		const Pave__V1__Move *m = host->reply->renew_reply->moves[i];

		from[m->chunk] = strcmp(m->from, "n1") == 0 ? "n1" : "n3";
		ck_assert_str_eq(m->from, from[m->chunk]);
		ck_assert_str_eq(m->to, "n4");
	}
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_msg(ask_commit(host, 1, c, from[c], "n4") == 0, "%s", host->text);
	ck_assert_uint_eq(placed("n4"), CHUNKS);
	ck_assert_uint_eq(placed("n2"), CHUNKS);
	ck_assert_uint_eq(placed("n1") + placed("n3"), CHUNKS);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->n_spread, 0);
	renew(NULL, 0);
	run_s(3);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert_uint_ge(nodes[0]->erases + nodes[2]->erases, 1);
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
}
END_TEST

/* The tenant takes it back while they move. */
START_TEST(a_distance_that_is_taken_back)
{
	ck_assert_int_eq(rig_put_policy(rig, admin, 2, "\"min_distance_km\": 0",
					"\"min_distance_km\": 230", false),
			 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	run_s(5);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS); /* the reason lasts */
	ck_assert_int_eq(rig_put_policy(rig, admin, 3, "\"min_distance_km\": 0",
					"\"min_distance_km\": 200", true),
			 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert_uint_eq(placed("n4"), 0);
	/* Nowhere far enough: what there is stays, and it is said why. */
	ck_assert_int_eq(rig_put_policy(rig, admin, 4, "\"min_distance_km\": 0",
					"\"min_distance_km\": 2000", false),
			 0);
	run_s(5);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	ck_assert_uint_eq(ask_status(admin)->stuck, CHUNKS);
	ck_assert_ptr_nonnull(strstr(ask_status(admin)->stuck_why, "too-close"));
}
END_TEST

static int ask_maintenance(struct peer *p, const char *holder)
{
	return ask_maintenance_of(p, "#1", holder); /* nodes know numbers */
}

/* A node maintains one volume at a time: one whose moves must wait for others would keep the place
 * from the volume that those are of. */
START_TEST(a_volume_whose_moves_must_wait_is_not_maintained)
{
	ck_assert_int_eq(ask_drain(admin, "n4", false), 0);
	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	ck_assert_int_eq(ask_drain(admin, "n4", true), 0);
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(5);
	ck_assert_uint_eq(ask_status(admin)->n_active, CHUNKS);
	ck_assert_uint_eq(nodes[3]->maintains, 0);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_msg(ask_commit(host, 1, c, "n1", "n4") == 0, "%s", host->text);
	run_s(3);
	ck_assert_uint_ge(nodes[3]->maintains, 1);
}
END_TEST

START_TEST(detached_volumes_are_maintained)
{
	struct peer *keeper = peer_new(rig, "host", "n4");

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(3);
	ck_assert_uint_eq(nodes[3]->maintains, 0); /* its host does it */
	ck_assert_int_eq(ask_maintenance(keeper, "n4"), -E_IN_USE);
	ck_assert_int_eq(ask_detach(host, 1, 1), 0);
	run_s(2);
	ck_assert_uint_eq(nodes[3]->maintains, 1);
	ck_assert_int_eq(ask_maintenance(keeper, "n4"), 0);
	ck_assert_uint_eq(keeper->reply->attach_reply->n_moves, CHUNKS);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_str_eq(admin->reply->volume_get_reply->info->state, "maintenance");
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(keeper, 2, c, "n1", "n4"), 0);
	ck_assert_uint_eq(keeper->detach_notices, 0);
	run_s(5);
	ck_assert_uint_ge(keeper->detach_notices, 1);
	ck_assert_int_eq(ask_detach(keeper, 1, 2), 0);
	run_s(2);
	ck_assert_uint_ge(nodes[0]->erases, 1);
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	ck_assert_uint_eq(nodes[3]->maintains, 1);
}
END_TEST

/* An attachment that its holder renews, so many seconds. */
static void hold_s(struct peer *p, generation_t generation, unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i += 2) {
		run_s(2);
		ask_renew(p, 1, generation);
	}
}

/* Nobody has the volume: the node with the damage has it attached, until nothing is damaged, or it
 * cannot be repaired; then not again for an hour. */
START_TEST(damage_of_a_detached_volume_is_repaired)
{
	struct peer *keeper = peer_new(rig, "host", "n2");

	nodes[1]->damaged = 1;
	hold_s(host, 1, 20);
	ck_assert_uint_eq(nodes[1]->maintains, 0); /* its host does it */
	ck_assert_int_eq(ask_detach(host, 1, 1), 0);
	run_s(10);
	ck_assert_uint_eq(nodes[1]->maintains, 1);
	ck_assert_int_eq(ask_maintenance(keeper, "n2"), 0);
	ck_assert_uint_eq(keeper->reply->attach_reply->n_moves, 0);
	hold_s(keeper, 2, 30);
	ck_assert_uint_eq(keeper->detach_notices, 0);
	if (_i == 0)
		nodes[1]->damaged = 0;
	hold_s(keeper, 2, _i == 0 ? 20 : 120);
	ck_assert_uint_ge(keeper->detach_notices, 1);
	ck_assert_int_eq(ask_detach(keeper, 1, 2), 0);
	run_s(60);
	ck_assert_uint_eq(nodes[1]->maintains, 1);
	/* New damage is a reason at once; of another volume it is none. */
	nodes[1]->damaged = 7;
	run_s(20);
	ck_assert_uint_eq(nodes[1]->maintains, 1);
	nodes[1]->damaged = 1;
	run_s(20);
	ck_assert_uint_ge(nodes[1]->maintains, 2);
}
END_TEST

/* Nobody comes, and nothing has to move any more: what the dead host may believe to have would lie
 * there for ever, be it where it may lie no longer. */
START_TEST(old_copies_of_a_dead_host_do_not_stay)
{
	struct peer *keeper = peer_new(rig, "host", "n2");
	uint32_t maintains = 0;

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n1", "n4"), 0);
	peer_close(host);
	run_s(LIFETIME_MS / 1000 + 30);
	for (uint32_t n = 0; n < 4; n++)
		maintains += nodes[n]->maintains;
	ck_assert_uint_eq(maintains, 0); /* it may come back */
	run_s(45);
	for (uint32_t n = 0; n < 4; n++)
		maintains += nodes[n]->maintains;
	ck_assert_uint_ge(maintains, 1);
	ck_assert_uint_eq(nodes[0]->maintains, 0); /* it is none of the volume's nodes any more */
	ck_assert_uint_eq(nodes[0]->erases, 0);
	ck_assert_int_eq(ask_maintenance(keeper, "n2"), 0);
	run_s(3);
	ck_assert_uint_ge(nodes[0]->erases, 1);
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	run_s(5);
	ck_assert_uint_ge(keeper->detach_notices, 1);
}
END_TEST

START_TEST(maintenance_gives_way)
{
	struct peer *keeper = peer_new(rig, "host", "n4");

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	ck_assert_int_eq(ask_detach(host, 1, 1), 0);
	run_s(3);
	ck_assert_int_eq(ask_maintenance(keeper, "n4"), 0);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(keeper->notice_status, -E_FENCED);
	ck_assert_int_eq(ask_commit(keeper, 2, 0, "n1", "n4"), -E_FENCED);
	/* It lets go: who came need not wait for its permit. */
	ck_assert_int_eq(ask_detach(keeper, 1, 2), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(host->notice.serve_after, 0);
}
END_TEST

START_TEST(the_last_copies_stay)
{
	/* Nowhere to go: nothing moves, nothing is erased. */
	ck_assert_int_eq(rig_revoke(rig, admin, "lyo rbx mrs", rig_wall(rig)), 0);
	run_s(5);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	for (uint32_t n = 0; n < 4; n++)
		ck_assert_uint_eq(nodes[n]->erases, 0);
	ck_assert_uint_eq(ask_status(admin)->stuck, 2 * CHUNKS); /* copies: those on n2 and on n3 */
}
END_TEST

START_TEST(a_lost_node_is_replaced_after_the_grace)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RebalanceSet s = PAVE__V1__REBALANCE_SET__INIT;

	s.action = (char *)(uintptr_t) "set";
	s.has_replace_after = true;
	s.replace_after_s = 60;
	m.body_case = PAVE__V1__CONTROL__BODY_REBALANCE_SET;
	m.rebalance_set = &s;
	ck_assert_int_eq(peer_ask(admin, &m), 0);
	ck_assert_int_eq(ask_remove(admin, "n1", false), -E_IN_USE);
	peer_close(nodes[0]);
	nodes[0] = NULL;
	for (unsigned t = 0; t < 50; t += 5) {
		run_s(5);
		ck_assert_uint_eq(renew(NULL, 0), 0);
	}
	run_s(15);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	ck_assert_int_eq(ask_remove(admin, "n1", false), -E_IN_USE);
	ck_assert_int_eq(ask_remove(admin, "n1", true), 0);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n1", "n4"), 0);
	renew(NULL, 0);
	run_s(3);
	ck_assert_int_eq(ask_remove(admin, "n1", true), -ENOENT); /* forgotten */
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
}
END_TEST

/* -- families ---------------------------------------------------------------------------------- */

/* v has the snapshot v@s, settled: v's layers are the result and 1. *ret_own: the snapshot's. */
static volume_id_t snapshot(volume_id_t *ret_own)
{
	volume_id_t top;

	start_snapshot(admin, "v", "s");
	rig_run_ms(rig, 500);
	top = host->notice.layers[0].id;
	ck_assert_int_eq(renew_sealed(host, 1, 1, 1), 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	*ret_own = admin->reply->volume_get_reply->info->id;
	return top;
}

static bool has_erased(const struct peer *node, volume_id_t layer)
{
	return (node->erased_layers >> layer & 1) != 0;
}

/* n1 can be forgotten without force. */
static void nothing_is_left(void)
{
	peer_close(nodes[0]);
	nodes[0] = NULL;
	run_s(1);
	ck_assert_msg(ask_remove(admin, "n1", false) == 0, "%s", admin->text);
}

START_TEST(a_snapshot_moves_with_its_volume)
{
	volume_id_t own, top = snapshot(&own);

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_msg(ask_commit(host, 1, c, "n1", "n4") == 0, "%s", host->text);
	ck_assert_uint_eq(placed("n1"), 0);
	ck_assert_uint_eq(placed_of("v@s", "n1"), 0);
	ck_assert_uint_eq(placed_of("v@s", "n4"), CHUNKS);
	run_s(2);
	/* The host may still read there. */
	ck_assert(!has_erased(nodes[0], top) && !has_erased(nodes[0], 1));
	restart();
	renew(NULL, 0);
	renew(NULL, 0);
	run_s(3);
	ck_assert(has_erased(nodes[0], top) && has_erased(nodes[0], 1) &&
		  has_erased(nodes[0], own));
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	ck_assert_uint_eq(ask_status(admin)->stuck, 0);
	nothing_is_left();
}
END_TEST

/* What two volumes share stays until both have left, and goes to one place. */
START_TEST(a_clone_moves_after_its_volume)
{
	struct peer *keeper = peer_new(rig, "host", "n4");
	volume_id_t own, top = snapshot(&own);
	volume_id_t clone;

	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	clone = admin->reply->volume_get_reply->info->id;
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n1", "n4"), 0);
	renew(NULL, 0);
	run_s(3);
	ck_assert(has_erased(nodes[0], top) && has_erased(nodes[0], own));
	ck_assert(!has_erased(nodes[0], 1));
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	ck_assert_uint_eq(placed_of("w", "n1"), CHUNKS);
	ck_assert_uint_ge(nodes[3]->maintains, 1);
	ck_assert_int_eq(ask_maintenance_of(keeper, "w", "n4"), 0);
	run_s(2);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_msg(
		    ask_commit_of(keeper, clone, keeper->notice.generation, c, "n1", "n4") == 0,
		    "%s", keeper->text);
	ck_assert_int_eq(ask_detach(keeper, clone, keeper->notice.generation), 0);
	run_s(3);
	ck_assert(has_erased(nodes[0], 1) && has_erased(nodes[0], clone));
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
}
END_TEST

/* What a node cannot erase of a volume keeps nothing else of it waiting. */
START_TEST(copies_that_are_not_erased_go_to_the_back)
{
	struct peer *keeper = peer_new(rig, "host", "n4");
	const uint32_t moving[] = {1};
	volume_id_t own, clone;

	(void)snapshot(&own);
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	clone = admin->reply->volume_get_reply->info->id;
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n1", "n4"), 0);
	renew(moving, 1);
	run_s(3);
	ck_assert_uint_eq(ask_status(admin)->erasing, 1);
	/* The clone leaves with what they shared, but for chunk 1, which the volume still has. */
	nodes[0]->erase_refuses = 1u << 1;
	ck_assert_int_eq(ask_maintenance_of(keeper, "w", "n4"), 0);
	run_s(2);
	for (uint32_t c = 0; c < 2; c++)
		ck_assert_msg(
		    ask_commit_of(keeper, clone, keeper->notice.generation, c, "n1", "n4") == 0,
		    "%s", keeper->text);
	ck_assert_uint_eq(ask_status(admin)->erasing, 1 + 2);
	ck_assert_int_eq(ask_detach(keeper, clone, keeper->notice.generation), 0);
	run_s(10);
	ck_assert_uint_eq(ask_status(admin)->erasing, 1 + 1);
	ck_assert(has_erased(nodes[0], 1));
	nodes[0]->erase_refuses = 0;
	renew(NULL, 0);
	run_s(10);
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
}
END_TEST

/* One that is deleted leaves what it shared to those that are still there, and nothing behind. */
START_TEST(a_clone_is_deleted_where_its_volume_has_left)
{
	volume_id_t own, top = snapshot(&own);

	(void)top;
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n1", "n4"), 0);
	renew(NULL, 0);
	run_s(3);
	ck_assert(!has_erased(nodes[0], 1));
	ck_assert_int_eq(ask_delete(admin, "w"), 0);
	restart();
	run_s(3);
	ck_assert(has_erased(nodes[0], 1));
	ck_assert(!has_erased(nodes[1], 1) && !has_erased(nodes[3], 1));
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	nothing_is_left();
}
END_TEST

/* It leaves what it shared to its volume while that is having its own part of the copy erased: the
 * rest is erased after that, and only then has the volume let go of the copy. */
START_TEST(a_snapshot_is_deleted_while_its_volume_leaves)
{
	volume_id_t own, top = snapshot(&own);

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_msg(ask_commit(host, 1, c, "n1", "n4") == 0, "%s", host->text);
	nodes[0]->erase_hold = true;
	renew(NULL, 0);
	run_s(2);
	ck_assert(has_erased(nodes[0], top) && !has_erased(nodes[0], 1));
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	nodes[0]->erase_hold = false;
	peer_answer_erase(nodes[0]);
	run_s(3);
	ck_assert(has_erased(nodes[0], 1) && has_erased(nodes[0], own));
	ck_assert(!has_erased(nodes[1], 1) && !has_erased(nodes[3], 1));
	ck_assert_uint_eq(ask_status(admin)->erasing, 0);
	nothing_is_left();
}
END_TEST

/* A snapshot does not wait for moves; they begin again. */
START_TEST(a_snapshot_is_taken_while_chunks_move)
{
	volume_id_t own;

	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	start_snapshot(admin, "v", "s");
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(host->notice.layer_count, 2);
	ck_assert_uint_eq(renew(NULL, 0), 0);
	run_s(3);
	ck_assert_uint_eq(renew(NULL, 0), 0); /* not before it is settled */
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), -ENOENT);
	ck_assert_int_eq(renew_sealed(host, 1, 1, 1), 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	own = admin->reply->volume_get_reply->info->id;
	ck_assert_uint_ne(own, 0);
	run_s(5);
	ck_assert_uint_eq(renew(NULL, 0), CHUNKS);
	ck_assert_int_eq(ask_commit(host, 1, 0, "n1", "n4"), 0);
	ck_assert_uint_eq(placed_of("v@s", "n4"), 1);
}
END_TEST

/* What was planned for a volume that has been rolled back since does not begin: its copies lie in
 * other places now, of which one may be too close to where another was to go. */
START_TEST(a_plan_ends_with_a_rollback)
{
	struct peer *reader = peer_new(rig, "host", "h2");
	struct peer *n5 = peer_new(rig, "node", "n5");
	volume_id_t own;

	(void)snapshot(&own);
	ck_assert_int_eq(ask_attach_read_only(reader, "v@s"), 0); /* so it does not follow */
	ck_assert_int_eq(ask_drain(admin, "n1", false), 0);
	run_s(2);
	for (uint32_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(ask_commit(host, 1, c, "n1", "n4"), 0);
	ck_assert_int_eq(ask_drain(admin, "n1", true), 0);
	ck_assert_int_eq(ask_detach(host, 1, 1), 0);
	ck_assert_int_eq(ask_detach(reader, own, 2), 0);
	run_s(3);
	/* In par, as n1: v, which has left that, goes to both of them by halves. */
	ck_assert_int_eq(ask_lease(n5, "n5", "par", 5, 0), 0);
	ck_assert_int_eq(ask_drain(admin, "n2", false), 0);
	run_s(2);
	ck_assert_uint_ge(nodes[0]->maintains, 1);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), 0);
	ck_assert_uint_eq(placed("n1"), CHUNKS);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	run_s(3);
	ck_assert_int_eq(ask_renew(host, 1, 2), 0);
	ck_assert_uint_eq(host->reply->renew_reply->n_moves, CHUNKS);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		ck_assert_str_eq(host->reply->renew_reply->moves[i]->from, "n2");
		ck_assert_str_eq(host->reply->renew_reply->moves[i]->to, "n4");
	}
}
END_TEST

/* -- what is not durable yet ------------------------------------------------------------------ */

/* A host that is told of a move makes a copy; after a crash nobody would know of that. */
START_TEST(a_move_is_told_when_it_is_durable)
{
	struct peer *h2 = peer_new(rig, "host", "h2");
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	/* All four nodes have some of it, so the permit says nothing of a move. */
	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	ck_assert_int_eq(ask_attach(h2, "w", "h2", "par"), 0);
	ck_assert_uint_eq(h2->reply->attach_reply->n_nodes, 4);
	ck_assert_int_eq(ask_detach(host, 1, 1), 0);
	r.volume = h2->reply->attach_reply->volume;
	r.generation = 1;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	sim_kv_slow_commits(rig->kv, 3 * NS_PER_S);
	peer_ask_start(h2, &m);
	rig_run_ms(rig, 50);
	start_drain(admin, "n1", false);
	ck_assert_int_eq(peer_ask_wait(h2), 0);
	ck_assert(!admin->answered);
	ck_assert_uint_eq(h2->reply->renew_reply->n_moves, 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	sim_kv_slow_commits(rig->kv, 0);
	run_s(2);
	ck_assert_int_eq(peer_ask(h2, &m), 0);
	ck_assert_uint_gt(h2->reply->renew_reply->n_moves, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement moves");
	TCase *tc = tcase_create("moves");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, busy_nodes_get_no_new_volumes);
	tcase_add_test(tc, drain_moves_every_chunk);
	tcase_add_test(tc, what_is_not_planned_yet_is_told);
	tcase_add_test(tc, a_node_in_trouble_is_no_target);
	tcase_add_test(tc, a_new_volume_is_spared_a_node_in_trouble);
	tcase_add_test(tc, old_copies_wait_for_the_host);
	tcase_add_test(tc, a_copy_is_erased_as_the_policy_says);
	tcase_add_test(tc, old_copies_of_a_dead_host_wait_for_its_permit);
	tcase_add_test(tc, a_new_start_goes_on);
	tcase_add_test(tc, undrain_drops_the_learners);
	tcase_add_test(tc, a_target_that_lost_its_label);
	tcase_add_test(tc, a_site_that_lost_its_label_is_left);
	tcase_add_test(tc, a_greater_distance_moves_copies);
	tcase_add_test(tc, a_distance_that_is_taken_back);
	tcase_add_test(tc, a_volume_whose_moves_must_wait_is_not_maintained);
	tcase_add_test(tc, detached_volumes_are_maintained);
	tcase_add_loop_test(tc, damage_of_a_detached_volume_is_repaired, 0, 2);
	tcase_add_test(tc, old_copies_of_a_dead_host_do_not_stay);
	tcase_add_test(tc, maintenance_gives_way);
	tcase_add_test(tc, a_snapshot_moves_with_its_volume);
	tcase_add_test(tc, a_clone_moves_after_its_volume);
	tcase_add_test(tc, copies_that_are_not_erased_go_to_the_back);
	tcase_add_test(tc, a_clone_is_deleted_where_its_volume_has_left);
	tcase_add_test(tc, a_snapshot_is_deleted_while_its_volume_leaves);
	tcase_add_test(tc, a_snapshot_is_taken_while_chunks_move);
	tcase_add_test(tc, a_plan_ends_with_a_rollback);
	tcase_add_test(tc, a_move_is_told_when_it_is_durable);
	tcase_add_test(tc, the_last_copies_stay);
	tcase_add_test(tc, a_lost_node_is_replaced_after_the_grace);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
