/* The driver gives back what a deleted snapshot alone showed, by itself: the volume's top is sealed
 * once, without a snapshot, when that pays, and merged into what the snapshot left. The crashes of
 * the driver in between, and its allocations: test_placement_families.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/placement/driver.h"
#include "engine/placement/layers.h"
#include "tests/unit/test_placement_rig.h"

#define SIZE	   (256ull << 20)
#define V	   1 /* the number of the volume, and of its first layer */
#define FOR_EVER_S (3 * LAYERS_SEAL_AFTER_S)

static const char *const node_names[] = {"n1", "n2", "n3"};

static struct rig *rig;
static struct peer *admin, *host;
static struct peer *nodes[3];
static generation_t generation; /* of the attachment; 0: nobody has the volume */

static void nodes_have(uint32_t chunks_above, bool anything_below)
{
	for (uint32_t n = 0; n < 3; n++) {
		nodes[n]->merge_has = chunks_above;
		nodes[n]->merge_blocks = 7;
		nodes[n]->merge_lower_whole = anything_below;
	}
}

static void setup(void)
{
	rig = rig_create(1);
	admin = peer_new(rig, "admin", "test");
	rig_three(rig, admin, nodes);
	host = peer_new(rig, "host", "h1");
	ck_assert_msg(ask_create(admin, "v", SIZE, "secnumcloud-fr") == 0, "%s", admin->text);
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	generation = 1;
	nodes_have(1, true);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* Of the layers that the last permit names; from the top. */
static volume_id_t top, settling;
static uint32_t layer_count;

static void take_permit(void)
{
	struct permit p = reply_permit(host);

	top = p.layer_count > 0 ? p.layers[0].id : p.volume;
	settling = p.layer_count > 1 && p.layers[1].open ? p.layers[1].id : 0;
	layer_count = p.layer_count;
	permit_deinit(&p);
}

static void renew(volume_id_t sealed)
{
	ck_assert_msg(renew_sealed(host, V, generation, sealed) == 0, "%s", host->text);
	take_permit();
}

/* Time passes, with leases and renewals; nobody settles anything. */
static void live(unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		rig_run_ms(rig, 1000);
		for (uint32_t n = 0; n < 3; n++)
			if (nodes[n]->conn != NULL)
				ask_lease(nodes[n], node_names[n], rig_sites[n], (uint8_t)(n + 1),
					  0);
		if (generation != 0)
			renew(0);
	}
}

/* Settled. Returns the new top. */
static volume_id_t snapshot(const char *name)
{
	start_snapshot(admin, "v", name);
	rig_run_ms(rig, 500);
	renew(0);
	renew(settling);
	ck_assert_uint_eq(settling, 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	return top;
}

/* Until the top is being sealed, or some time in which it should have been. */
static bool is_sealed(void)
{
	for (uint32_t i = 0; i < FOR_EVER_S && settling == 0; i++)
		live(1);
	return settling != 0;
}

static void come_back(struct peer *p, const char *role, const char *name)
{
	ck_assert(sim_run_flag(rig->world, &p->closed));
	ck_assert_int_eq(peer_connect(p, role, name), 0);
}

static void detach(void)
{
	ck_assert_int_eq(ask_detach(host, V, generation), 0);
	generation = 0;
}

static const Pave__V1__VolumeInfo *info(const char *name)
{
	ck_assert_int_eq(ask_volume(admin, name), 0);
	return admin->reply->volume_get_reply->info;
}

static uint32_t maintains(void)
{
	return nodes[0]->maintains + nodes[1]->maintains + nodes[2]->maintains;
}

/* -- an attached volume ------------------------------------------------------------------------ */

/* What was the top is merged into what was below it, and goes. */
static void expect_merged(volume_id_t upper, volume_id_t lower)
{
	live(6);
	for (uint32_t n = 0; n < 3; n++) {
		ck_assert_uint_ge(nodes[n]->merges, 2);
		ck_assert_uint_eq(nodes[n]->merge_upper, upper);
		ck_assert_uint_eq(nodes[n]->merge_lower, lower);
	}
	ck_assert_uint_eq(layer_count, 2);
	live(LIFETIME_MS / 1000 + 7);
	for (uint32_t n = 0; n < 3; n++) {
		ck_assert_uint_eq(nodes[n]->erased_layers >> upper & 1, 1);
		ck_assert_uint_eq(nodes[n]->erased_layers >> lower & 1, 0);
	}
}

START_TEST(a_deletion_gives_its_space_back)
{
	const volume_id_t old = snapshot("s");
	volume_id_t new;

	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	live(LAYERS_SEAL_AFTER_S / 2);
	ck_assert_uint_eq(top, old);
	ck_assert(is_sealed());
	new = top;
	ck_assert_uint_eq(settling, old);
	ck_assert_uint_eq(layer_count, 3);
	ck_assert(info("v")->settling);
	/* It is told at once, not when it renews. */
	ck_assert_uint_eq(host->notice.layers[0].id, new);
	/* Nothing is merged before it is settled. */
	live(10);
	ck_assert_uint_eq(nodes[0]->merges, 0);
	renew(old);
	ck_assert_uint_eq(settling, 0);
	expect_merged(old, V);
	/* Once. */
	live(FOR_EVER_S);
	ck_assert_uint_eq(top, new);
	ck_assert_uint_eq(layer_count, 2);
	/* And once more for the next one. */
	ck_assert_uint_ne(snapshot("t"), new);
	ck_assert_int_eq(ask_delete(admin, "v@t"), 0);
	ck_assert(is_sealed());
}
END_TEST

/* A clone of v@t on n4, and not on n1. Returns n4. */
static struct peer *clone_elsewhere(void)
{
	struct reg reg;
	struct reg_volume *w;
	struct reg_node *n4;
	struct peer *p;

	ck_assert_int_eq(ask_clone(admin, "v@t", "w"), 0);
	rig_pd_load(rig, &reg);
	n4 = reg_node_add(&reg, "n4", "par");
	w = reg_volume_find(&reg, "w");
	for (uint32_t i = 0; i < w->node_count; i++)
		if (w->nodes[i] == reg_node_find(&reg, "n1"))
			w->nodes[i] = n4;
	reg_save_node(&reg, n4);
	reg_save_map(&reg, w);
	rig_pd_start_with(rig, &reg);
	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	for (uint32_t n = 0; n < 3; n++)
		come_back(nodes[n], "node", node_names[n]);
	p = peer_new(rig, "node", "n4");
	p->merge_has = 1;
	p->merge_lower_whole = true;
	return p;
}

/* A copy that no map names, where the others have blocks of the lower layer: it gets no last word.
 */
START_TEST(no_last_word_for_what_no_map_names)
{
	struct peer *n4, *odd;

	(void)snapshot("s");
	snapshot("t");
	n4 = clone_elsewhere();
	live(1);
	/* Of the chunks that are new n1 or n4 has none: they are of one site. */
	ck_assert_int_eq(ask_resize(admin, "v", 2 * SIZE), 0);
	odd = _i == 0 ? nodes[0] : n4;
	nodes_have(1u << SIZE / (64 << 20), true);
	n4->merge_has = nodes[0]->merge_has;
	odd->merge_lower_whole = false;
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_int_eq(ask_lease(n4, "n4", "par", 4, 0), 0);
		live(1);
	}
	ck_assert(!odd->merge_fresh);
}
END_TEST

static void live_with(struct peer *n4, unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		ck_assert_int_eq(ask_lease(n4, "n4", "par", 4, 0), 0);
		live(1);
	}
}

/* A layer of v and its clone w is damaged on that node; five seconds pass. */
static void damage(struct peer *n4, struct peer *on)
{
	for (uint32_t n = 0; n < 3; n++) {
		nodes[n]->damaged = nodes[n] == on ? V : 0;
		nodes[n]->maintains = 0;
		nodes[n]->maintain_volumes = 0;
	}
	n4->damaged = n4 == on ? V : 0;
	live_with(n4, 5);
}

/* On n4, which only the clone has, the volume's host sees to nothing: the clone is maintained. What
 * both have is the host's, unless it only reads; and where the clone has nothing, nor is it. */
START_TEST(damage_is_repaired_where_no_host_comes)
{
	uint64_t clone;
	struct peer *n4;

	(void)snapshot("s");
	snapshot("t");
	n4 = clone_elsewhere();
	clone = 1ull << info("w")->id;
	damage(n4, nodes[1]);
	ck_assert_uint_eq(maintains() + n4->maintains, 0);
	damage(n4, n4);
	ck_assert_uint_ge(n4->maintains, 1);
	ck_assert_uint_eq(maintains(), 0);
	detach();
	ck_assert_int_eq(ask_attach_read_only(host, "v"), 0);
	damage(n4, nodes[0]);
	ck_assert_uint_ne(nodes[0]->maintain_volumes, 0); /* the snapshots */
	ck_assert_uint_eq(nodes[0]->maintain_volumes & clone, 0);
	damage(n4, nodes[1]);
	ck_assert_uint_ne(nodes[1]->maintain_volumes & clone, 0);
}
END_TEST

/* Nobody could repair it in time: a host of another volume of the family, which comes and goes, is
 * no reason to try for this one again. */
START_TEST(damage_that_stays_is_not_tried_for_again)
{
	struct peer *n4;

	(void)snapshot("s");
	snapshot("t");
	n4 = clone_elsewhere();
	detach();
	damage(n4, nodes[1]);
	ck_assert_uint_ne(nodes[1]->maintain_volumes & 1u << V, 0);
	live_with(n4, PD_REPAIR_S + 10);
	damage(n4, nodes[1]);
	ck_assert_uint_eq(nodes[1]->maintain_volumes, 0);
	ck_assert_int_eq(ask_attach(host, "w", "h1", "par"), 0);
	live_with(n4, 5);
	peer_close(host);
	live_with(n4, 30);
	ck_assert_uint_eq(nodes[1]->maintain_volumes & 1u << V, 0);
}
END_TEST

/* Another may have made other layers of these since. */
START_TEST(whoever_may_not_lead_merges_nothing)
{
	rig_one_of_several(rig);
	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	for (uint32_t n = 0; n < 3; n++)
		come_back(nodes[n], "node", node_names[n]);
	live(1);
	(void)snapshot("s");
	snapshot("t");
	for (uint32_t n = 0; n < 3; n++)
		nodes[n]->merge_hold = _i == 1;
	if (_i == 0)
		rig->leads = false;
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	if (_i == 1) { /* amid one */
		for (unsigned i = 0; i < FOR_EVER_S && nodes[0]->merge_held == 0; i++)
			live(1);
		rig->leads = false;
		for (uint32_t n = 0; n < 3; n++) {
			nodes[n]->merge_hold = false;
			if (nodes[n]->merge_held != 0)
				peer_answer_merge(nodes[n]);
			nodes[n]->merges = 0;
		}
	}
	rig_run_ms(rig, 5000);
	ck_assert_uint_eq(nodes[0]->merges + nodes[1]->merges + nodes[2]->merges, 0);
	rig->leads = true;
	live(FOR_EVER_S);
	ck_assert_uint_ge(nodes[0]->merges, 1);
}
END_TEST

START_TEST(a_merged_layer_is_erased_wherever_a_member_lies)
{
	const volume_id_t upper = snapshot("s");
	struct peer *n4;

	snapshot("t");
	n4 = clone_elsewhere();
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	for (unsigned i = 0; i < 2 * LIFETIME_MS / 1000; i++) {
		ck_assert_int_eq(ask_lease(n4, "n4", "par", 4, 0), 0);
		live(1);
	}
	ck_assert_uint_eq(n4->merge_upper, upper);
	for (uint32_t n = 0; n < 3; n++)
		ck_assert_uint_eq(nodes[n]->erased_layers >> upper & 1, 1);
	ck_assert_uint_eq(n4->erased_layers >> upper & 1, 1);
}
END_TEST

/* Neither is there anything to seal for: nothing was written since, or before. Nor later, when
 * there would be. */
START_TEST(not_when_there_is_nothing_to_gain)
{
	const volume_id_t old = snapshot("s");

	nodes_have(_i == 0 ? 0 : 1, false);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert(!is_sealed());
	nodes_have(1, true);
	ck_assert(!is_sealed());
	ck_assert_uint_eq(top, old);
}
END_TEST

/* A clone still shows what the snapshot did; when it goes, there is something to gain. */
START_TEST(not_while_somebody_else_needs_it)
{
	(void)snapshot("s");
	ck_assert_int_eq(ask_clone(admin, "v@s", "w"), 0);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert(!is_sealed());
	ck_assert_int_eq(ask_delete(admin, "w"), 0);
	ck_assert(is_sealed());
}
END_TEST

/* What is below is merged first, where no seal is needed; and one seal is enough for many. */
START_TEST(one_seal_for_many_deletions)
{
	volume_id_t old;

	(void)snapshot("s");
	(void)snapshot("t");
	old = snapshot("u");
	ck_assert_int_eq(ask_delete(admin, "v@u"), 0);
	ck_assert_int_eq(ask_delete(admin, "v@t"), 0);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	nodes[0]->merge_refuse = V;
	ck_assert(!is_sealed());
	nodes[0]->merge_refuse = 0;
	for (uint32_t i = 0; i < FOR_EVER_S && layer_count > 2; i++) {
		live(1);
		ck_assert_uint_eq(top, old);
	}
	ck_assert_uint_eq(layer_count, 2);
	ck_assert(is_sealed());
	renew(old);
	expect_merged(old, V);
	live(FOR_EVER_S);
	ck_assert_uint_eq(settling, 0);
}
END_TEST

/* Another snapshot seals the top too. */
START_TEST(not_after_another_snapshot)
{
	volume_id_t new;

	(void)snapshot("s");
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	new = snapshot("t");
	ck_assert(!is_sealed());
	ck_assert_uint_eq(top, new);
	ck_assert_uint_eq(layer_count, 2);
}
END_TEST

/* Where it could not be merged: a node is away. When it is back it is. */
START_TEST(not_while_a_node_is_away)
{
	(void)snapshot("s");
	peer_close(nodes[2]);
	rig_run_ms(rig, 2 * LIFETIME_MS);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert(!is_sealed());
	ck_assert_int_eq(peer_connect(nodes[2], "node", "n3"), 0);
	ck_assert(is_sealed());
}
END_TEST

/* The nodes have said that it pays, and nobody has the volume. */
static void wait_until_it_pays(void)
{
	(void)snapshot("s");
	detach();
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	live(LAYERS_SEAL_AFTER_S + 10);
	ck_assert_uint_ge(maintains(), 1);
}

static void attach(void)
{
	ck_assert_int_eq(ask_attach(host, "v", "h1", "par"), 0);
	generation = 2;
	take_permit();
}

/* Nor when it goes after it was asked. */
START_TEST(not_when_a_node_has_gone_since)
{
	wait_until_it_pays();
	peer_close(nodes[2]);
	live(2 * LIFETIME_MS / 1000);
	attach();
	ck_assert(!is_sealed());
	ck_assert_int_eq(peer_connect(nodes[2], "node", "n3"), 0);
	ck_assert(is_sealed());
}
END_TEST

/* Nor for a host that is about to go. */
START_TEST(not_when_the_holder_is_to_let_go)
{
	wait_until_it_pays();
	attach();
	start_volume_detach(admin, "v");
	live(5);
	ck_assert_uint_eq(settling, 0);
	detach();
	ck_assert_int_eq(peer_ask_wait(admin), 0);
}
END_TEST

/* The merge would have to begin anew. */
START_TEST(not_while_the_layers_below_are_merged)
{
	(void)snapshot("r");
	wait_until_it_pays();
	nodes[1]->merge_hold = true;
	ck_assert_int_eq(ask_delete(admin, "v@r"), 0);
	live(3);
	ck_assert_uint_ne(nodes[1]->merge_held, 0);
	attach();
	live(10);
	ck_assert_uint_eq(settling, 0);
	nodes[1]->merge_hold = false;
	peer_answer_merge(nodes[1]);
	ck_assert(is_sealed());
	ck_assert_uint_eq(layer_count, 3);
}
END_TEST

/* With the most snapshots too, or no room would ever come of a deletion. */
START_TEST(with_the_most_layers)
{
	char name[16];

	for (uint32_t i = 0; i < LAYERS_SNAPSHOTS_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		snapshot(name);
	}
	ck_assert_int_eq(ask_snapshot(admin, "v", "more"), -E_LIMIT);
	snprintf(name, sizeof(name), "v@s%u", LAYERS_SNAPSHOTS_MAX - 1);
	ck_assert_int_eq(ask_delete(admin, name), 0);
	ck_assert(is_sealed());
	ck_assert_uint_eq(layer_count, LAYERS_MAX);
	renew(settling);
	live(10);
	ck_assert_uint_eq(layer_count, LAYERS_MAX - 1);
}
END_TEST

/* Nobody is told of it before it is durable: the next driver would know of no such layer. */
START_TEST(not_told_before_it_is_durable)
{
	const volume_id_t old = snapshot("s");

	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	live(LAYERS_SEAL_AFTER_S - 3);
	sim_kv_slow_commits(rig->kv, 3600 * NS_PER_S);
	rig_run_ms(rig, 9000);
	ck_assert_uint_ne(host->notice.layers[0].id, 0);
	ck_assert_uint_eq(host->notice.layers[0].id, old);
	rig->pd_process->fate = SIM_FATE_DROP;
	rig_pd_crash(rig, SIM_KILL);
	sim_kv_slow_commits(rig->kv, 0);
	rig_pd_start(rig);
	come_back(admin, "admin", "test");
	come_back(host, "host", "h1");
	for (uint32_t n = 0; n < 3; n++)
		come_back(nodes[n], "node", node_names[n]);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(info("v")->layers[0], old);
	ck_assert(is_sealed());
	ck_assert_uint_eq(settling, old);
}
END_TEST

/* -- what admins want meanwhile ---------------------------------------------------------------- */

/* It is taken when the seal is settled; a snapshot of what was before would lack what was
 * acknowledged since. */
START_TEST(a_snapshot_waits_for_the_seal)
{
	(void)snapshot("s");
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert(is_sealed());
	start_snapshot(admin, "v", "t");
	live(3);
	ck_assert(!admin->answered);
	renew(settling);
	live(1);
	ck_assert(!admin->answered);
	ck_assert_uint_ne(settling, 0);
	renew(settling);
	ck_assert_msg(peer_ask_wait(admin) == 0, "%s", admin->text);
	ck_assert_str_eq(admin->reply->volume_get_reply->info->name, "v@t");
	ck_assert(!admin->reply->volume_get_reply->info->settling);
	/* Not for ever. */
	ck_assert_int_eq(ask_delete(admin, "v@t"), 0);
	ck_assert(is_sealed());
	start_snapshot(admin, "v", "u");
	live(45);
	ck_assert(admin->answered);
	ck_assert_int_eq(admin->status, -E_IN_USE);
}
END_TEST

static int ask_diff(const char *from, const char *to)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDiff d = PAVE__V1__VOLUME_DIFF__INIT;

	d.from = (char *)(uintptr_t)from;
	d.to = (char *)(uintptr_t)to;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DIFF;
	m.volume_diff = &d;
	return peer_ask(admin, &m);
}

/* Nobody waits for what no snapshot stands on. */
START_TEST(nothing_else_waits_for_the_seal)
{
	volume_id_t old;

	(void)snapshot("r");
	(void)snapshot("s");
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert(is_sealed());
	old = settling;
	ck_assert_msg(ask_diff("v@r", "v") == 0, "%s", admin->text);
	detach();
	ck_assert(info("v")->settling);
	ck_assert_msg(ask_rollback(admin, "v@r") == 0, "%s", admin->text);
	ck_assert_uint_eq(info("v")->n_layers, 2);
	live(20);
	ck_assert_uint_eq(nodes[0]->erased_layers >> old & 1, 1);
	ck_assert_uint_eq(maintains(), 0);
}
END_TEST

/* What one stands on is its owner's to settle, by whoever has that attached: it is no seal. */
START_TEST(a_snapshot_that_is_not_settled_is_no_seal)
{
	(void)snapshot("r");
	start_snapshot(admin, "v", "s");
	rig_run_ms(rig, 500);
	detach();
	live(40);
	ck_assert(admin->answered);
	ck_assert_int_eq(ask_diff("v@r", "v"), -E_IN_USE);
	ck_assert_int_eq(ask_rollback(admin, "v@r"), -E_IN_USE);
	ck_assert_int_eq(ask_snapshot(admin, "v", "t"), -E_IN_USE);
	ck_assert_uint_ge(maintains(), 1);
	/* Without it, it is one. */
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert_int_eq(ask_rollback(admin, "v@r"), 0);
}
END_TEST

/* -- a detached volume ------------------------------------------------------------------------- */

/* A node attaches it for that; so it does when the host went away in between. */
START_TEST(a_detached_volume_is_maintained)
{
	const volume_id_t old = snapshot("s");

	if (_i == 0) {
		detach();
		ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
		live(LAYERS_SEAL_AFTER_S / 2);
		ck_assert_uint_eq(maintains(), 0);
		live(FOR_EVER_S);
		ck_assert_uint_eq(info("v")->layers[0], old);
	} else {
		ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
		ck_assert(is_sealed());
		ck_assert_uint_eq(maintains(), 0);
		detach();
		live(20);
	}
	ck_assert_uint_ge(maintains(), 1);
	ck_assert_int_eq(ask_maintenance_of(host, "#1", "n2"), 0);
	generation = 2;
	take_permit();
	ck_assert(is_sealed());
	live(10);
	ck_assert_uint_eq(host->detach_notices, 0);
	renew(settling);
	expect_merged(old, V);
	ck_assert_uint_ge(host->detach_notices, 1);
	detach();
	nodes[0]->maintains = nodes[1]->maintains = nodes[2]->maintains = 0;
	live(FOR_EVER_S);
	ck_assert_uint_eq(maintains(), 0);
	ck_assert_uint_eq(info("v")->n_layers, 2);
}
END_TEST

/* Whoever only reads cannot settle anything. */
START_TEST(a_reader_is_not_asked)
{
	const volume_id_t old = snapshot("s");

	detach();
	ck_assert_int_eq(ask_attach_read_only(host, "v"), 0);
	generation = 2;
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	ck_assert(!is_sealed());
	ck_assert_uint_eq(top, old);
	ck_assert_uint_eq(maintains(), 0);
	detach();
	live(20);
	ck_assert_uint_ge(maintains(), 1);
}
END_TEST

/* It would hold the volume for nothing. */
START_TEST(no_maintenance_for_nothing)
{
	(void)snapshot("s");
	detach();
	nodes_have(0, true);
	ck_assert_int_eq(ask_delete(admin, "v@s"), 0);
	live(FOR_EVER_S);
	ck_assert_uint_eq(maintains(), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("placement_seal");
	TCase *tc = tcase_create("seal");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_deletion_gives_its_space_back);
	tcase_add_loop_test(tc, no_last_word_for_what_no_map_names, 0, 2);
	tcase_add_test(tc, damage_is_repaired_where_no_host_comes);
	tcase_add_test(tc, damage_that_stays_is_not_tried_for_again);
	tcase_add_loop_test(tc, whoever_may_not_lead_merges_nothing, 0, 2);
	tcase_add_test(tc, a_merged_layer_is_erased_wherever_a_member_lies);
	tcase_add_loop_test(tc, not_when_there_is_nothing_to_gain, 0, 2);
	tcase_add_test(tc, not_while_somebody_else_needs_it);
	tcase_add_test(tc, one_seal_for_many_deletions);
	tcase_add_test(tc, not_after_another_snapshot);
	tcase_add_test(tc, not_while_a_node_is_away);
	tcase_add_test(tc, not_when_a_node_has_gone_since);
	tcase_add_test(tc, not_when_the_holder_is_to_let_go);
	tcase_add_test(tc, not_while_the_layers_below_are_merged);
	tcase_add_test(tc, with_the_most_layers);
	tcase_add_test(tc, not_told_before_it_is_durable);
	tcase_add_test(tc, a_snapshot_waits_for_the_seal);
	tcase_add_test(tc, nothing_else_waits_for_the_seal);
	tcase_add_test(tc, a_snapshot_that_is_not_settled_is_no_seal);
	tcase_add_loop_test(tc, a_detached_volume_is_maintained, 0, 2);
	tcase_add_test(tc, a_reader_is_not_asked);
	tcase_add_test(tc, no_maintenance_for_nothing);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
