/* The lease keeper: what it takes for a lease, and what ends one. On virtual time. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/node/lease.h"
#include "tests/unit/test_node_rig.h"

static struct rig *rig;
static struct rig_node *n;

static void setup(void)
{
	rig = rig_create(1);
	n = &rig->nodes[0];
}

static void teardown(void)
{
	rig_destroy(rig);
}

static struct node_lease_stats stats(void)
{
	struct node_lease_stats s;

	node_lease_get_stats(n->lease, &s);
	return s;
}

static int64_t wall(void)
{
	return reactor_wall_ns(sim_reactor(rig->pd_process));
}

START_TEST(test_renews)
{
	const uint64_t granted = stats().granted;

	rig_run_ms(rig, 30000);
	ck_assert_uint_ge(stats().granted, granted + 9);
	ck_assert_uint_le(stats().granted, granted + 11);
	ck_assert_uint_eq(stats().connects, 1);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	ck_assert_uint_eq(n->state.site_version, 1);
}
END_TEST

/* A lease never lasts beyond its time by the node's own clock, the bound taken off. */
START_TEST(test_deadline)
{
	const uint64_t now = reactor_now_ns(sim_reactor(n->process));

	ck_assert_uint_le(n->state.deadline_ns,
			  now + PERMIT_LIFETIME_MS * NS_PER_MS - CLOCK_BOUND_NS);
	rig->pd.silent = true;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_LEASE_EXPIRED);
	ck_assert_uint_le(reactor_now_ns(sim_reactor(n->process)),
			  now + PERMIT_LIFETIME_MS * NS_PER_MS + 10 * NS_PER_MS);
	rig->pd.silent = false;
	rig_wait_lease(n, true);
}
END_TEST

START_TEST(test_driver_goes_and_comes)
{
	sim_net_isolate(rig->pd_process, true);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_LEASE_EXPIRED);
	rig_run_ms(rig, 60000);
	sim_net_isolate(rig->pd_process, false);
	rig_wait_lease(n, true);
	/* Broken, not only cut: back within the lease's life. */
	for (unsigned i = 0; i < 5; i++) {
		const uint64_t changes = n->changes;

		sim_net_disconnect(rig->pd_process, n->process);
		rig_run_ms(rig, 5000);
		ck_assert_uint_ne(n->state.deadline_ns, 0);
		ck_assert_uint_gt(n->changes, changes);
	}
	ck_assert_uint_ge(stats().connects, 6);
}
END_TEST

START_TEST(test_a_short_lease_is_renewed_in_time)
{
	uint64_t until;

	rig->pd.lifetime_ms = 2000;
	rig_run_ms(rig, PERMIT_LIFETIME_MS); /* the long one is replaced */
	until = reactor_now_ns(sim_reactor(n->process)) + 60 * NS_PER_S;
	while (reactor_now_ns(sim_reactor(n->process)) < until) {
		rig_run_ms(rig, 100);
		ck_assert_uint_ne(n->state.deadline_ns, 0);
		ck_assert_uint_le(n->state.deadline_ns,
				  reactor_now_ns(sim_reactor(n->process)) + 2 * NS_PER_S);
	}
}
END_TEST

START_TEST(test_refusals_are_verdicts)
{
	static const int verdicts[] = {E_REVOKED, E_DENIED, E_STALE_EVIDENCE, E_CLOCK_SKEW,
				       E_NO_LEASE};

	for (size_t i = 0; i < ARRAY_SIZE(verdicts); i++) {
		const uint64_t asked = reactor_now_ns(sim_reactor(n->process));

		rig->pd.refuse = verdicts[i];
		rig_wait_lease(n, false);
		ck_assert_int_eq(n->state.why, -verdicts[i]);
		/* At once: with the next answer. */
		ck_assert_uint_le(reactor_now_ns(sim_reactor(n->process)) - asked,
				  (PERMIT_RENEW_MS + 100) * NS_PER_MS);
		rig->pd.refuse = 0;
		rig_wait_lease(n, true);
	}
	/* Trouble of the driver's own is none. */
	rig->pd.refuse = EIO;
	rig_run_ms(rig, PERMIT_LIFETIME_MS - PERMIT_RENEW_MS - 1000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_LEASE_EXPIRED);
}
END_TEST

/* Refused after it was granted, while its documents were still on their way to the disk: it is no
 * lease when they are there, either. */
START_TEST(test_a_refusal_overtakes_a_lease)
{
	const uint64_t granted = rig->pd.granted;
	uint64_t until;

	n->process->work_ns = 2 * NS_PER_S;
	while (rig->pd.granted == granted)
		ck_assert(sim_step(rig->world));
	rig_run_ms(rig, 50);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig->pd.refuse = E_DENIED;
	sim_net_disconnect(rig->pd_process, n->process);
	until = rig->world->now_ns + 4 * NS_PER_S;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_DENIED);
	ck_assert_uint_lt(rig->world->now_ns, until - 3 * NS_PER_S);
	while (rig->world->now_ns < until) {
		ck_assert(sim_step(rig->world));
		ck_assert_uint_eq(n->state.deadline_ns, 0);
	}
	n->process->work_ns = 0;
	rig->pd.refuse = 0;
	rig_wait_lease(n, true);
}
END_TEST

START_TEST(test_clocks)
{
	/* Within the bound, both ways. */
	n->process->wall_offset_ns = 450 * (int64_t)NS_PER_MS;
	rig_run_ms(rig, 20000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	ck_assert_int_gt(stats().clock_offset_ns, 440 * (int64_t)NS_PER_MS);
	ck_assert_int_lt(stats().clock_offset_ns, 460 * (int64_t)NS_PER_MS);
	n->process->wall_offset_ns = -450 * (int64_t)NS_PER_MS;
	rig_run_ms(rig, 20000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	/* Beyond it. */
	n->process->wall_offset_ns = 520 * (int64_t)NS_PER_MS;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_CLOCK_SKEW);
	n->process->wall_offset_ns = 0;
	rig_wait_lease(n, true);
	n->process->wall_offset_ns = -3600 * (int64_t)NS_PER_S;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_CLOCK_SKEW);
	n->process->wall_offset_ns = 0;
	rig_wait_lease(n, true);
	/* The clock of the driver is no better. */
	rig->pd.wall_skew_ns = 700 * (int64_t)NS_PER_MS;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_CLOCK_SKEW);
}
END_TEST

/* An answer that took so long that it proves nothing about the clocks gives no lease. */
START_TEST(test_slow_answers)
{
	sim_net_set_delay(rig->pd_process, n->process, 600 * NS_PER_MS, 600 * NS_PER_MS);
	sim_net_set_delay(n->process, rig->pd_process, 600 * NS_PER_MS, 600 * NS_PER_MS);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_LEASE_EXPIRED);
	sim_net_set_delay(rig->pd_process, n->process, NS_PER_MS, NS_PER_MS);
	sim_net_set_delay(n->process, rig->pd_process, NS_PER_MS, NS_PER_MS);
	rig_wait_lease(n, true);
}
END_TEST

static void expect_no_more_leases(void)
{
	const uint64_t granted = stats().granted;

	rig_run_ms(rig, 2 * PERMIT_LIFETIME_MS);
	ck_assert_uint_eq(n->state.deadline_ns, 0);
	ck_assert_uint_eq(stats().granted, granted);
}

START_TEST(test_leases_that_are_none)
{
	struct demo stranger;
	struct error err;

	ck_assert_int_eq(demo_init(&stranger, NULL, &err), 0);
	rig->pd.wrong_nonce = true;
	rig_wait_lease(n, false);
	expect_no_more_leases();
	rig->pd.wrong_nonce = false;
	rig_wait_lease(n, true);
	rig->pd.key = demo_key(&stranger, DEMO_PLACEMENT);
	rig_wait_lease(n, false);
	expect_no_more_leases();
	rig->pd.key = demo_key(&rig->demo, DEMO_PLACEMENT);
	rig_wait_lease(n, true);
	rig->pd.lease_node = "n2";
	rig_wait_lease(n, false);
	expect_no_more_leases();
	rig->pd.lease_node = NULL;
	rig_wait_lease(n, true);
	rig->pd.site_version = 2;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_STALE_EVIDENCE);
	expect_no_more_leases();
	rig->pd.site_version = 1;
	rig_wait_lease(n, true);
	/* The driver knows a snapshot that it does not send. */
	rig->pd.revocations_version = 9;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_STALE_EVIDENCE);
	expect_no_more_leases();
	demo_deinit(&stranger);
}
END_TEST

START_TEST(test_withdrawal_closes_at_once)
{
	char *next = rig_revocations(rig, 2, "par", wall() - 1);
	const uint64_t before = rig->world->now_ns;

	peer_pd_notice(&rig->pd, next);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_REVOKED);
	ck_assert_uint_lt(rig->world->now_ns - before, 100 * NS_PER_MS);
	expect_no_more_leases();
	ck_assert_int_eq(n->state.why, -E_REVOKED);
	free(next);
}
END_TEST

/* What the authority signed closes even if it is no longer the newest; the next lease, under the
 * newest, opens again. */
START_TEST(test_older_withdrawal)
{
	char *newest = rig_revocations(rig, 5, NULL, 0);
	char *older = rig_revocations(rig, 3, "par", SIM_EPOCH_NS);

	rig->pd.revocations = newest;
	rig->pd.revocations_version = 5;
	rig_run_ms(rig, 5000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	peer_pd_notice(&rig->pd, older);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_REVOKED);
	rig_wait_lease(n, true);
	rig->pd.revocations = rig->revocations;
	free(newest);
	free(older);
}
END_TEST

/* At every moment of an exchange: the gate that a withdrawal has closed does not open again, though
 * the driver's leases are under way. */
START_TEST(test_withdrawal_races_with_a_lease)
{
	for (uint32_t steps = 0; steps < 60; steps++) {
		struct rig *r = rig_create(steps + 2);
		char *next = rig_revocations(r, 2, "par", SIM_EPOCH_NS);
		struct rig_node *m = &r->nodes[0];

		r->pd.flag = false;
		ck_assert(sim_run_flag(r->world, &r->pd.flag));
		for (uint32_t i = 0; i < steps; i++)
			ck_assert(sim_step(r->world));
		peer_pd_notice(&r->pd, next);
		rig_wait_lease(m, false);
		for (uint32_t i = 0; i < 3000; i++) {
			ck_assert(sim_step(r->world));
			ck_assert_uint_eq(m->state.deadline_ns, 0);
		}
		ck_assert_int_eq(m->state.why, -E_REVOKED);
		rig_destroy(r);
		free(next);
	}
}
END_TEST

/* From a moment to come: the lease ends by then, the clock bound taken off. */
START_TEST(test_withdrawal_to_come)
{
	const int64_t from = (wall() / (int64_t)NS_PER_S + 10) * (int64_t)NS_PER_S;
	char *next = rig_revocations(rig, 2, "par", from);

	rig->pd.revocations = next;
	rig->pd.revocations_version = 2;
	rig_run_ms(rig, 5000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig_wait_lease(n, false);
	ck_assert_int_le(wall(), from - (int64_t)CLOCK_BOUND_NS + (int64_t)(10 * NS_PER_MS));
	ck_assert_int_ge(wall(), from - (int64_t)CLOCK_BOUND_NS - (int64_t)(10 * NS_PER_MS));
	ck_assert_int_eq(n->state.why, -E_REVOKED);
	expect_no_more_leases();
	rig->pd.revocations = rig->revocations;
	free(next);
}
END_TEST

/* What the evidence's end has closed a clock that steps back does not open again. */
START_TEST(test_the_clock_steps_back)
{
	const int64_t from = (wall() / (int64_t)NS_PER_S + 10) * (int64_t)NS_PER_S;
	char *next = rig_revocations(rig, 2, "par", from);

	rig->pd.revocations = next;
	rig->pd.revocations_version = 2;
	rig_run_ms(rig, 5000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig->pd.refuse = EIO; /* so that no exchange shows it */
	n->process->wall_offset_ns = -4 * (int64_t)NS_PER_S;
	node_lease_evaluate(n->lease);
	rig_wait_lease(n, false);
	ck_assert_int_le(wall(), from - (int64_t)CLOCK_BOUND_NS + (int64_t)(10 * NS_PER_MS));
	rig->pd.revocations = rig->revocations;
	free(next);
}
END_TEST

/* The snapshot is short-lived: when it has run out, every site in it counts as revoked. */
START_TEST(test_snapshot_runs_out)
{
	const struct demo_entry entry = {"par", 1, 0};
	const int64_t end = (wall() / (int64_t)NS_PER_S + 8) * (int64_t)NS_PER_S;
	char *next = NULL;
	struct error err;

	ck_assert_int_eq(demo_revocations(&rig->demo, 2, wall() - (int64_t)NS_PER_S, end, &entry, 1,
					  &next, &err),
			 0);
	rig->pd.revocations = next;
	rig->pd.revocations_version = 2;
	rig_run_ms(rig, 4000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig_wait_lease(n, false);
	ck_assert_int_le(wall(), end - (int64_t)CLOCK_BOUND_NS + (int64_t)(10 * NS_PER_MS));
	ck_assert_int_eq(n->state.why, -E_STALE_EVIDENCE);
	expect_no_more_leases();
	rig->pd.revocations = rig->revocations;
	free(next);
}
END_TEST

/* The authority's key was lost: under the new root what it signed is void at once, and nothing is
 * served until what the new key signed has come. A forged root changes nothing; a restart neither.
 */
START_TEST(test_another_root)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	const struct demo_entry entry = {"par", 1, 0};
	struct demo next = rig->demo;
	char *root, *forged, *site, *revocations;
	const uint64_t before = rig->world->now_ns;
	struct error err;

	ck_assert_int_eq(signing_key_generate("authority-2", &next.keys[0], &err), 0);
	ck_assert_int_eq(
	    demo_root_after(&rig->demo, &next, 2, wall() - day, wall() + day, &root, &err), 0);
	ck_assert_int_eq(demo_root(&next, 2, wall() - day, wall() + day, &forged, &err), 0);
	ck_assert_int_eq(demo_site(&next, "par", 1, wall() - day, wall() + day, &site, &err), 0);
	ck_assert_int_eq(demo_revocations(&next, 2, wall() - (int64_t)NS_PER_S, wall() + day,
					  &entry, 1, &revocations, &err),
			 0);
	peer_pd_notice_root(&rig->pd, forged, NULL);
	rig_run_ms(rig, 3000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	peer_pd_notice_root(&rig->pd, root, NULL);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_STALE_EVIDENCE);
	ck_assert_uint_lt(rig->world->now_ns - before, 3200 * NS_PER_MS);
	expect_no_more_leases();
	rig_node_crash(n, SIM_POWER_LOSS);
	rig_node_start(n);
	rig->pd.site = site;
	rig->pd.revocations = revocations;
	rig->pd.revocations_version = 2;
	rig_wait_lease(n, true);
	rig->pd.site = NULL;
	rig->pd.revocations = rig->revocations;
	signing_key_free(next.keys[0]);
	free(root);
	free(forged);
	free(site);
	free(revocations);
}
END_TEST

/* What a host has opened, and writes. */
static int write_block(struct peer_host *h, uint64_t seq)
{
	uint8_t block[BLOCK_SIZE];

	peer_fill(block, 1, seq);
	return peer_host_write(h, 0, 0, 1, version_make(1, seq), block);
}

/* The driver's key was lost: what it signed, leases and permits, is void as soon as the node knows
 * the root without it, and not when it would have run out. */
START_TEST(test_a_root_without_the_drivers_key)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct demo next = rig->demo;
	struct peer_permit p;
	struct peer_host h;
	struct error err;
	uint64_t before;
	char *root;

	ck_assert_int_eq(signing_key_generate("placement-2", &next.keys[2], &err), 0);
	ck_assert_int_eq(
	    demo_root_after(&rig->demo, &next, 2, wall() - day, wall() + day, &root, &err), 0);
	rig_run_ms(rig, 5000);
	rig_open(rig, &h, 0, 1);
	ck_assert_int_eq(write_block(&h, 1), 0);
	before = rig->world->now_ns;
	peer_pd_notice_root(&rig->pd, root, NULL);
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_NO_LEASE);
	ck_assert_uint_lt(rig->world->now_ns - before, 100 * NS_PER_MS);
	rig->pd.key = next.keys[2];
	rig_wait_lease(n, true);
	ck_assert_int_eq(write_block(&h, 2), -E_PERMIT_EXPIRED);
	p = rig_permit(rig, 1, 2);
	ck_assert_int_ne(rig_update(&h, &p), 0);
	ck_assert_int_eq(write_block(&h, 3), -E_PERMIT_EXPIRED);
	p.key = next.keys[2];
	ck_assert_msg(rig_update(&h, &p) == 0, "%s", h.call_text);
	ck_assert_int_eq(write_block(&h, 4), 0);
	peer_host_close(&h);
	rig->pd.key = demo_key(&rig->demo, DEMO_PLACEMENT);
	signing_key_free(next.keys[2]);
	free(root);
}
END_TEST

/* A root that ends sooner ends what was given under the one before. */
START_TEST(test_a_root_that_ends_sooner)
{
	const int64_t end = (wall() / (int64_t)NS_PER_S + 10) * (int64_t)NS_PER_S;
	struct peer_host h;
	struct error err;
	char *root;

	ck_assert_int_eq(demo_root(&rig->demo, 2, wall() - (int64_t)NS_PER_S, end, &root, &err), 0);
	rig_run_ms(rig, 5000);
	rig_open(rig, &h, 0, 1);
	peer_pd_notice_root(&rig->pd, root, NULL);
	rig->pd.silent = true;
	rig_run_ms(rig, 1000);
	ck_assert_int_eq(write_block(&h, 1), 0);
	while (write_block(&h, 2) == 0)
		rig_run_ms(rig, 10);
	ck_assert_int_le(wall(), end - (int64_t)CLOCK_BOUND_NS + (int64_t)(20 * NS_PER_MS));
	ck_assert_int_ge(wall(), end - (int64_t)CLOCK_BOUND_NS - (int64_t)(20 * NS_PER_MS));
	rig->pd.silent = false;
	peer_host_close(&h);
	free(root);
}
END_TEST

/* A permit that has run out is sent again while there is no lease, and this machine's clock steps
 * back to a time when it was good: it is not good again when there is a lease. */
START_TEST(test_an_expired_permit_does_not_come_back_with_the_lease)
{
	struct peer_permit p = rig_permit(rig, 1, 1);
	struct peer_host h;

	rig_host(rig, &h, 0);
	ck_assert_int_eq(rig_try_open(&h, &p), 0);
	ck_assert_int_eq(write_block(&h, 1), 0);
	rig_run_ms(rig, PERMIT_LIFETIME_MS + 1000);
	ck_assert_int_eq(write_block(&h, 2), -E_PERMIT_EXPIRED);
	rig->pd.refuse = E_REVOKED;
	rig_wait_lease(n, false);
	n->process->wall_offset_ns = p.issued_at - wall();
	ck_assert_int_ne(rig_update(&h, &p), 0);
	n->process->wall_offset_ns = 0;
	rig->pd.refuse = 0;
	rig_wait_lease(n, true);
	ck_assert_int_eq(write_block(&h, 3), -E_PERMIT_EXPIRED);
	peer_host_close(&h);
}
END_TEST

static void tell_receipt(void)
{
	const struct node_receipt r = {.volume = RIG_VOLUME, .generation = 1, .count = 1};
	const uint64_t before = rig->pd.receipts;

	node_lease_receipt(n->lease, &r);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(rig->pd.receipts, before + 1);
}

/* A run of the node is named by the driver's time: this machine's clock may be set, and the driver
 * takes a run that seems to be before the last one for receipts that it has. */
START_TEST(test_runs_follow_one_another_whatever_the_clock_says)
{
	static const int64_t steps_s[] = {0, 3600, -3600, 0, -7200, 0};
	int64_t last = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps_s); i++) {
		/* Between two leases. */
		n->process->wall_offset_ns = steps_s[i] * (int64_t)NS_PER_S;
		tell_receipt();
		ck_assert_int_gt(rig->pd.receipt_run, last);
		last = rig->pd.receipt_run;
		ck_assert_int_ge(last, wall() - 2 * (int64_t)NS_PER_S);
		ck_assert_int_le(last, wall());
		n->process->wall_offset_ns = 0;
		rig_node_crash(n, SIM_POWER_LOSS);
		rig_run_ms(rig, 1000);
		rig_node_start(n);
		rig_wait_lease(n, true);
	}
}
END_TEST

/* What was signed twice as one version counts for the node neither, whatever the driver says, until
 * a higher version comes: the site's certificate, or the snapshot. */
START_TEST(test_two_contents_of_one_version)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	const struct demo_entry entry = {"par", 2, 0};
	char *other, *newer, *first, *second, *third;
	struct error err;

	ck_assert_int_eq(
	    demo_site(&rig->demo, "par", 1, wall() - 2 * day, wall() + day, &other, &err), 0);
	rig->pd.site = other;
	rig_wait_lease(n, false);
	ck_assert_int_eq(n->state.why, -E_STALE_EVIDENCE);
	/* Nor the one that it had, over a restart either. */
	rig->pd.site = rig->site_envelopes[0];
	expect_no_more_leases();
	rig_node_crash(n, SIM_POWER_LOSS);
	rig_node_start(n);
	expect_no_more_leases();
	ck_assert_int_eq(demo_site(&rig->demo, "par", 2, wall() - day, wall() + day, &newer, &err),
			 0);
	ck_assert_int_eq(demo_revocations(&rig->demo, 2, wall() - (int64_t)NS_PER_S, wall() + day,
					  &entry, 1, &first, &err),
			 0);
	rig->pd.site = newer;
	rig->pd.site_version = 2;
	rig->pd.revocations = first;
	rig->pd.revocations_version = 2;
	rig_wait_lease(n, true);
	rig_run_ms(rig, 5000);
	ck_assert_int_eq(demo_revocations(&rig->demo, 2, wall() - (int64_t)NS_PER_S, wall() + day,
					  &entry, 1, &second, &err),
			 0);
	peer_pd_notice(&rig->pd, second);
	rig_wait_lease(n, false);
	expect_no_more_leases();
	ck_assert_int_eq(demo_revocations(&rig->demo, 3, wall() - (int64_t)NS_PER_S, wall() + day,
					  &entry, 1, &third, &err),
			 0);
	rig->pd.revocations = third;
	rig->pd.revocations_version = 3;
	rig_wait_lease(n, true);
	rig->pd.site = NULL;
	rig->pd.revocations = rig->revocations;
	free(other);
	free(newer);
	free(first);
	free(second);
	free(third);
}
END_TEST

/* One that was prepared well: what is held holds under it too, and nothing is interrupted. */
START_TEST(test_a_root_that_knows_both_keys)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	const uint64_t changes = stats().refused;
	struct error err;
	char *root;

	ck_assert_int_eq(demo_root(&rig->demo, 2, wall() - day, wall() + day, &root, &err), 0);
	peer_pd_notice_root(&rig->pd, root, NULL);
	rig_run_ms(rig, 5000);
	ck_assert_uint_eq(root_version(trust_root(n->trust)), 2);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	ck_assert_uint_eq(stats().refused, changes);
	free(root);
}
END_TEST

/* Notices that are no documents, are forged, or older than what was seen, change nothing. */
START_TEST(test_bad_notices)
{
	char *newer = rig_revocations(rig, 5, NULL, 0);
	struct demo stranger;
	struct rig fake = *rig;
	struct error err;
	char *forged;

	peer_pd_notice(&rig->pd, "{\"payloadType\": 3}");
	peer_pd_notice(&rig->pd, "not JSON");
	ck_assert_int_eq(demo_init(&stranger, NULL, &err), 0);
	fake.demo = stranger;
	fake.demo.cluster = rig->demo.cluster;
	forged = rig_revocations(&fake, 6, "par", SIM_EPOCH_NS);
	peer_pd_notice(&rig->pd, forged);
	rig_run_ms(rig, 20000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig->pd.revocations = newer;
	rig->pd.revocations_version = 5;
	rig_run_ms(rig, 5000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	peer_pd_notice(&rig->pd, rig->revocations);
	rig_run_ms(rig, 20000);
	ck_assert_uint_ne(n->state.deadline_ns, 0);
	rig->pd.revocations = rig->revocations;
	free(newer);
	free(forged);
	demo_deinit(&stranger);
}
END_TEST

START_TEST(test_erase_is_answered)
{
	ck_assert_int_eq(peer_pd_erase(&rig->pd, rig->wait, RIG_VOLUME, true, 0), 0);
	ck_assert_int_eq(peer_pd_erase(&rig->pd, rig->wait, RIG_VOLUME, false, 3), -EIO);
}
END_TEST

/* Stopped at any moment: it ends. */
static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(test_stops_at_any_moment)
{
	for (uint32_t steps = 0; steps < 60; steps++) {
		struct rig *r = rig_create(steps + 2);
		bool done = false;
		char *next = rig_revocations(r, 2, NULL, 0);

		peer_pd_notice(&r->pd, next);
		for (uint32_t i = 0; i < steps; i++)
			ck_assert(sim_step(r->world));
		node_lease_stop(r->nodes[0].lease, set_flag, &done);
		ck_assert(sim_run_flag(r->world, &done));
		r->nodes[0].lease = NULL;
		sim_process_crash(r->nodes[0].process, SIM_KILL);
		rig_destroy(r);
		free(next);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("node_lease");
	TCase *t = tcase_create("lease");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_renews);
	tcase_add_test(t, test_deadline);
	tcase_add_test(t, test_driver_goes_and_comes);
	tcase_add_test(t, test_a_short_lease_is_renewed_in_time);
	tcase_add_test(t, test_refusals_are_verdicts);
	tcase_add_test(t, test_a_refusal_overtakes_a_lease);
	tcase_add_test(t, test_clocks);
	tcase_add_test(t, test_slow_answers);
	tcase_add_test(t, test_leases_that_are_none);
	tcase_add_test(t, test_withdrawal_closes_at_once);
	tcase_add_test(t, test_older_withdrawal);
	tcase_add_test(t, test_withdrawal_races_with_a_lease);
	tcase_add_test(t, test_withdrawal_to_come);
	tcase_add_test(t, test_the_clock_steps_back);
	tcase_add_test(t, test_snapshot_runs_out);
	tcase_add_test(t, test_another_root);
	tcase_add_test(t, test_a_root_without_the_drivers_key);
	tcase_add_test(t, test_a_root_that_ends_sooner);
	tcase_add_test(t, test_an_expired_permit_does_not_come_back_with_the_lease);
	tcase_add_test(t, test_runs_follow_one_another_whatever_the_clock_says);
	tcase_add_test(t, test_two_contents_of_one_version);
	tcase_add_test(t, test_a_root_that_knows_both_keys);
	tcase_add_test(t, test_bad_notices);
	tcase_add_test(t, test_erase_is_answered);
	tcase_add_test(t, test_stops_at_any_moment);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
