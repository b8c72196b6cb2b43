/* The driver and hosts: attach, renew, take-over, release, loss of evidence, all on virtual time.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ledger.pb-c.h"
#include "tests/unit/test_placement_rig.h"

#define SIZE (256ull << 20)

static struct rig *rig;
static struct peer *admin;
static struct peer *nodes[3];

static void setup(void)
{
	rig = rig_create(1);
	admin = peer_new(rig, "admin", "test");
	rig_three(rig, admin, nodes);
	ck_assert_msg(ask_create(admin, "v", SIZE, "secnumcloud-fr") == 0, "%s", admin->text);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* Nodes ask for leases at their pace, as real ones do, while time passes. */
static void run_s(unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		rig_run_ms(rig, 1000);
		for (uint32_t n = 0; n < 3; n++) {
			char name[] = {'n', (char)('1' + n), '\0'};

			ask_lease(nodes[n], name, rig_sites[n], (uint8_t)(n + 1), 0);
		}
	}
}

/* What the ledger has that is durable. */
struct told {
	uint32_t denials; /* of attaching "v" */
	int64_t last_end; /* until when permits lasted that have ended; 0: none has */
	uint32_t taints;
};

static void take_record(const void *key, size_t key_size, const void *value, size_t value_size,
			void *arg)
{
	struct told *t = arg;
	Pave__V1__LedgerRecord *r =
	    key_size == 8 ? pave__v1__ledger_record__unpack(NULL, value_size, value) : NULL;

	(void)key;
	if (r == NULL)
		return;
	if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_PERMIT_END)
		t->last_end = r->permit_end->expires_at;
	t->taints += r->body_case == PAVE__V1__LEDGER_RECORD__BODY_TAINT;
	if (r->body_case == PAVE__V1__LEDGER_RECORD__BODY_DENIAL)
		t->denials +=
		    strcmp(r->denial->what, "attach") == 0 && strcmp(r->denial->subject, "v") == 0;
	pave__v1__ledger_record__free_unpacked(r, NULL);
}

static struct told told(void)
{
	struct told t = {0};

	rig_run_ms(rig, 100);
	sim_kv_each(rig->kv, PD_KV_LEDGER, take_record, &t);
	return t;
}

START_TEST(attach_and_renew)
{
	struct peer *h = peer_new(rig, "host", "h1");
	const Pave__V1__AttachReply *a;
	struct permit p, q;
	int64_t asked = rig_wall(rig);

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	a = h->reply->attach_reply;
	p = reply_permit(h);
	ck_assert_uint_eq(a->size, SIZE);
	ck_assert_uint_eq(a->replicas, 3);
	ck_assert_uint_eq(a->min_acks, 2);
	ck_assert_uint_eq(a->freeze_timeout_s, 30);
	ck_assert_uint_eq(a->n_nodes, 3);
	ck_assert_uint_eq(a->map.len, 4 * 3);
	ck_assert_uint_eq(a->renew_ms, LIFETIME_MS * 3 / 10);
	ck_assert_uint_gt(a->root.len, 0);
	ck_assert_str_eq(a->nodes[0]->addresses[0], a->nodes[0]->node);
	ck_assert_uint_eq(p.generation, 1);
	ck_assert_uint_eq(p.node_count, 3);
	ck_assert_int_eq(p.serve_after, 0);
	ck_assert_str_eq(p.holder_site, "par");
	ck_assert(p.expires_at >= asked + (int64_t)(LIFETIME_MS * NS_PER_MS));
	ck_assert(p.expires_at <= rig_wall(rig) + (int64_t)(LIFETIME_MS * NS_PER_MS));
	run_s(3);
	ck_assert_int_eq(ask_renew(h, p.volume, 1), 0);
	q = reply_permit(h);
	ck_assert_uint_gt(q.serial, p.serial);
	ck_assert(q.expires_at >= p.expires_at + 2 * (int64_t)NS_PER_S);
	ck_assert_uint_eq(h->reply->renew_reply->n_nodes, 3);
	ck_assert_int_eq(ask_renew(h, p.volume, 2), -E_FENCED);
	ck_assert_int_eq(ask_renew(h, 99, 1), -ENOENT);
	permit_deinit(&p);
	permit_deinit(&q);
}
END_TEST

START_TEST(attach_is_refused)
{
	struct peer *h = peer_new(rig, "host", "h1");

	ck_assert_int_eq(ask_attach(h, "w", "h1", "par"), -ENOENT);
	ck_assert_int_eq(ask_attach(h, "v", "", "par"), -EINVAL);
	ck_assert_int_eq(ask_attach(h, "v", "h 1", "par"), -EINVAL);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "Par/is"), -EINVAL);
	/* hosts: eligible. */
	ck_assert_int_eq(ask_attach(h, "v", "h1", ""), -E_DENIED);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "iad"), -E_DENIED);
	ck_assert_ptr_nonnull(strstr(h->text, "iad"));
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->generation, 0);
}
END_TEST

START_TEST(take_over)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct permit p1, p2;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	p1 = reply_permit(h1);
	rig_run_ms(rig, 2000);
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "lyo"), 0);
	p2 = reply_permit(h2);
	ck_assert_uint_eq(p2.generation, 2);
	ck_assert_int_ge(p2.serve_after, p1.expires_at);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h1->permit_notices, 1);
	ck_assert_int_eq(h1->notice_status, -E_FENCED);
	ck_assert_int_eq(ask_renew(h1, p1.volume, 1), -E_FENCED);
	/* The newer one is renewed with the same wait. */
	permit_deinit(&p2);
	ck_assert_int_eq(ask_renew(h2, p1.volume, 2), 0);
	p2 = reply_permit(h2);
	ck_assert_int_ge(p2.serve_after, p1.expires_at);
	/* The older host lets go: the newer needn't wait, and is told at once. */
	ck_assert_int_eq(ask_detach(h1, p1.volume, 1), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h2->permit_notices, 1);
	ck_assert_int_eq(h2->notice.serve_after, 0);
	ck_assert_uint_gt(h2->notice.serial, p2.serial);
	permit_deinit(&p1);
	permit_deinit(&p2);
}
END_TEST

START_TEST(a_live_attachment_is_not_taken_over_unasked)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct permit p;

	ck_assert_int_eq(ask_attach_if_free(h1, "v", "h1", "par"), 0);
	p = reply_permit(h1);
	rig_run_ms(rig, 1000);
	ck_assert_int_eq(ask_attach_if_free(h2, "v", "h2", "lyo"), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(h2->text, "h1"));
	ck_assert_ptr_nonnull(strstr(h2->text, "--force"));
	/* The refusal has changed nothing. */
	ck_assert_uint_eq(h1->permit_notices, 0);
	ck_assert_int_eq(ask_renew(h1, p.volume, 1), 0);
	/* Its permit has run out, though it is connected: it is no obstacle any more. */
	run_s(60);
	ck_assert_int_eq(ask_attach_if_free(h2, "v", "h2", "lyo"), 0);
	/* Whoever asks for it takes it. */
	ck_assert_int_eq(ask_attach_if_free(h1, "v", "h1", "par"), -E_IN_USE);
	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	permit_deinit(&p);
}
END_TEST

/* What no permit can name is refused before it fences anybody. */
static int ask_prepare(struct peer *p, const char *volume, const char *site)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Prepare ask = PAVE__V1__PREPARE__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;

	a.volume = (char *)(uintptr_t)volume;
	a.holder = (char *)(uintptr_t) "h2";
	a.holder_site = (char *)(uintptr_t)site;
	a.endpoint = (char *)(uintptr_t) "unix:/x";
	a.if_free = true;
	ask.attach = &a;
	m.body_case = PAVE__V1__CONTROL__BODY_PREPARE;
	m.prepare = &ask;
	return peer_ask(p, &m);
}

/* A host may ask whether it could attach a volume; nothing changes by that. */
START_TEST(a_host_that_prepares_changes_nothing)
{
	struct peer *h1 = peer_new(rig, "host", "h1"), *h2 = peer_new(rig, "host", "h2");
	Pave__V1__Control none = PAVE__V1__CONTROL__INIT;
	Pave__V1__Prepare without = PAVE__V1__PREPARE__INIT;
	struct permit p;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	p = reply_permit(h1);
	ck_assert_int_eq(ask_prepare(h2, "v", "lyo"), 0);
	ck_assert_uint_eq(h2->reply->prepare_reply->n_nodes, 3);
	ck_assert_uint_gt(h2->reply->prepare_reply->root.len, 0);
	ck_assert_int_eq(ask_renew(h1, p.volume, 1), 0);
	ck_assert_int_eq(ask_prepare(h2, "w", "lyo"), -ENOENT);
	ck_assert_int_eq(ask_prepare(h2, "v", ""), -E_DENIED);
	ck_assert_int_eq(ask_prepare(admin, "v", "lyo"), -EPERM);
	none.body_case = PAVE__V1__CONTROL__BODY_PREPARE;
	none.prepare = &without;
	ck_assert_int_eq(peer_ask(h2, &none), -ENOENT);
	ck_assert_int_eq(ask_detach(h1, p.volume, 1), 0);
	ck_assert_int_eq(ask_attach_if_free(h2, "v", "h2", "lyo"), 0);
	permit_deinit(&p);
	p = reply_permit(h2);
	ck_assert_uint_eq(p.generation, 2);
	ck_assert_int_eq(p.serve_after, 0);
	permit_deinit(&p);
}
END_TEST

START_TEST(a_bad_holder_takes_nothing_over)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct permit p;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	ck_assert_int_ne(ask_attach(h2, "v", "bad:holder", "par"), 0);
	ck_assert_uint_eq(h1->permit_notices, 0);
	p = reply_permit(h1);
	ck_assert_int_eq(ask_renew(h1, p.volume, p.generation), 0);
	permit_deinit(&p);
}
END_TEST

/* A third waits for the first, although the second has let go: nobody knows that the first has. */
START_TEST(take_over_twice)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct peer *h3 = peer_new(rig, "host", "h3");
	struct permit p1, p3;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	p1 = reply_permit(h1);
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "par"), 0);
	ck_assert_int_eq(ask_detach(h2, p1.volume, 2), 0);
	ck_assert_int_eq(ask_attach(h3, "v", "h3", "par"), 0);
	p3 = reply_permit(h3);
	ck_assert_uint_eq(p3.generation, 3);
	ck_assert_int_ge(p3.serve_after, p1.expires_at);
	permit_deinit(&p3);
	/* And doesn't once that has run out. */
	ck_assert_int_eq(ask_detach(h3, p1.volume, 3), 0);
	run_s(LIFETIME_MS / 1000 + 1);
	ck_assert_int_eq(ask_attach(h3, "v", "h3", "par"), 0);
	p3 = reply_permit(h3);
	ck_assert_int_eq(p3.serve_after, 0);
	permit_deinit(&p1);
	permit_deinit(&p3);
}
END_TEST

START_TEST(detach_releases)
{
	struct peer *h = peer_new(rig, "host", "h1");
	struct permit p;

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	p = reply_permit(h);
	ck_assert_int_eq(ask_detach(h, p.volume, 1), 0);
	ck_assert_int_eq(ask_detach(h, p.volume, 1), 0); /* harmless twice */
	ck_assert_int_eq(ask_detach(h, p.volume, 2), -ENOENT);
	ck_assert_int_eq(ask_renew(h, p.volume, 1), -E_FENCED);
	permit_deinit(&p);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	p = reply_permit(h);
	ck_assert_uint_eq(p.generation, 2);
	ck_assert_int_eq(p.serve_after, 0);
	permit_deinit(&p);
}
END_TEST

static bool has_node(const struct permit *p, const char *node)
{
	return permit_find_node(p, node) != NULL;
}

START_TEST(revocation_is_pushed)
{
	struct peer *h = peer_new(rig, "host", "h1");
	uint64_t admin_answers;

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	admin_answers = admin->answers;
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", rig_wall(rig)), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(admin->answers, admin_answers + 1);
	ck_assert_uint_eq(h->permit_notices, 1);
	ck_assert_uint_eq(h->notice.node_count, 2);
	ck_assert(!has_node(&h->notice, "n3"));
	ck_assert(has_node(&h->notice, "n1") && has_node(&h->notice, "n2"));
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(nodes[i]->evidence_version, rig->snapshot_version);
	ck_assert_int_eq(ask_lease(nodes[2], "n3", "rbx", 3, 0), -E_REVOKED);
	ck_assert_int_eq(ask_lease(nodes[1], "n2", "lyo", 2, 0), 0);
	/* All of them: no permit at all. */
	ck_assert_int_eq(rig_revoke(rig, admin, "par lyo rbx", rig_wall(rig)), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, -E_DENIED);
	ck_assert_uint_eq(h->notice.volume, 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	/* And back. */
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, 0);
	ck_assert_uint_eq(h->notice.node_count, 3);
}
END_TEST

static void near(struct peer *p)
{
	sim_net_set_delay(p->process, rig->pd_process, 10000, 20000);
	sim_net_set_delay(rig->pd_process, p->process, 10000, 20000);
}

/* A renewal and what gives a site back meet: the permit that names the node again is the same on
 * both roads, and is in the ledger before it is given on either (check_ledger of the rig). */
START_TEST(a_permit_is_in_the_ledger_first)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew renew = PAVE__V1__RENEW__INIT;
	struct peer *h;

	rig_destroy(rig);
	rig = rig_create((uint64_t)_i + 2);
	admin = peer_new(rig, "admin", "test");
	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, "secnumcloud-fr"), 0);
	h = peer_new(rig, "host", "h1");
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", rig_wall(rig)), 0);
	rig_run_ms(rig, 100);
	/* Messages are faster than commits. */
	near(h);
	near(admin);
	renew.volume = 1;
	renew.generation = 1;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &renew;
	peer_ask_start(h, &m);
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(peer_ask_wait(h), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h->notice.node_count, 3);
}
END_TEST

/* Refused for one reason and another by turns: told so often in an hour, and then again. */
START_TEST(refusals_by_turns_fill_no_ledger)
{
	struct peer *h = peer_new(rig, "host", "h1");
	uint32_t before;

	for (uint32_t i = 0; i < 100; i++) {
		ck_assert_int_eq(ask_attach(h, "v", "h1", ""), -E_DENIED);
		ck_assert_int_eq(ask_attach(h, "v", "h 1", "par"), -EINVAL);
	}
	before = told().denials;
	ck_assert_uint_ge(before, 2);
	ck_assert_uint_le(before, 8);
	rig_run_ms(rig, 3600 * 1000);
	for (uint32_t i = 0; i < 2; i++) {
		ck_assert_int_eq(ask_attach(h, "v", "h1", ""), -E_DENIED);
		ck_assert_int_eq(ask_attach(h, "v", "h 1", "par"), -EINVAL);
	}
	ck_assert_uint_gt(told().denials, before);
	ck_assert_uint_le(told().denials, before + 4);
}
END_TEST

/* A withdrawal is told late once: a snapshot that says the same again is no news, nor is it one
 * whose moment has come since it was announced. */
START_TEST(a_withdrawal_is_told_late_once)
{
	const int64_t second = NS_PER_S, from = (rig_wall(rig) / second + (_i - 1) * 100) * second;
	const uint32_t late = _i == 0 ? 1 : 0;

	/* 0: it took effect before; 1: it does now; 2: it will. */
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", from), 0);
	ck_assert_uint_eq(told().taints, late);
	run_s(120);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", from), 0);
	ck_assert_uint_eq(told().taints, late);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", from), 0);
	ck_assert_uint_eq(told().taints, late);
	/* Another moment is news. */
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", from - 10 * second), 0);
	ck_assert_uint_eq(told().taints, late + 1);
}
END_TEST

/* The host's own site loses its eligibility. */
START_TEST(host_is_a_place_too)
{
	struct peer *h = peer_new(rig, "host", "h1");

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, "par", rig_wall(rig)), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, -E_DENIED);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
}
END_TEST

/* A withdrawal that is announced takes effect at its moment, without anybody asking. */
START_TEST(announced_withdrawal)
{
	struct peer *h = peer_new(rig, "host", "h1");
	int64_t from = rig_wall(rig) + 60 * (int64_t)NS_PER_S;
	struct permit p;

	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", from), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	p = reply_permit(h);
	ck_assert_uint_eq(p.node_count, 3);
	permit_deinit(&p);
	for (int i = 0; i < 19; i++) {
		rig_run_ms(rig, 3000);
		ck_assert_int_eq(ask_renew(h, 1, 1), 0);
		p = reply_permit(h);
		ck_assert_int_le(p.expires_at, has_node(&p, "n3") ? from : INT64_MAX);
		permit_deinit(&p);
	}
	ck_assert_int_lt(rig_wall(rig), from);
	h->permit_notices = 0;
	rig_run_ms(rig, (uint64_t)(from - rig_wall(rig)) / NS_PER_MS + 100);
	ck_assert_uint_ge(h->permit_notices, 1);
	ck_assert_uint_eq(h->notice.node_count, 2);
	ck_assert(!has_node(&h->notice, "n3"));
	/* What it got before the moment must not reach beyond it. */
	ck_assert_int_eq(ask_lease(nodes[2], "n3", "rbx", 3, 0), -E_REVOKED);
}
END_TEST

START_TEST(snapshot_runs_out)
{
	struct peer *h = peer_new(rig, "host", "h1");
	char *envelope = rig_snapshot(rig, NULL, 0, 15);
	int64_t end = (rig_wall(rig) / (int64_t)NS_PER_S + 15) * (int64_t)NS_PER_S;
	struct permit p;

	ck_assert_int_eq(ask_revocations(admin, envelope), 0);
	free(envelope);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	rig_run_ms(rig, 9000);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	p = reply_permit(h);
	ck_assert_int_le(p.expires_at, end);
	ck_assert_uint_eq(p.node_count, 3);
	permit_deinit(&p);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	ck_assert_int_le(reply_lease(nodes[0]).expires_at, end);
	rig_run_ms(rig, 7000);
	ck_assert_int_eq(h->notice_status, -E_DENIED); /* by the timer */
	/* What was given is told, not what might have been. */
	ck_assert_int_gt(told().last_end, end - (int64_t)NS_PER_S);
	ck_assert_int_le(told().last_end, end);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), -E_STALE_EVIDENCE);
	/* An older snapshot doesn't help; a newer does. */
	rig->snapshot_version = 0;
	envelope = rig_snapshot(rig, NULL, 0, 86400);
	ck_assert_int_eq(ask_revocations(admin, envelope), -E_ROLLBACK);
	free(envelope);
	rig->snapshot_version = 10;
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
}
END_TEST

START_TEST(volume_detach_waits_for_the_host)
{
	struct peer *h = peer_new(rig, "host", "h1");

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	start_volume_detach(admin, "v");
	rig_run_ms(rig, 1000);
	ck_assert(!admin->answered);
	ck_assert_uint_eq(h->detach_notices, 1);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0); /* it is still draining */
	ck_assert_int_eq(ask_detach(h, 1, 1), 0);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	/* Nothing to detach: done. */
	start_volume_detach(admin, "v");
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	start_volume_detach(admin, "w");
	ck_assert_int_eq(peer_ask_wait(admin), -ENOENT);
}
END_TEST

START_TEST(volume_detach_waits_for_the_permit)
{
	struct peer *h = peer_new(rig, "host", "h1");
	struct permit p;
	int64_t begun;

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	p = reply_permit(h);
	peer_close(h); /* a host that is gone, or cut off: it may still write */
	start_volume_detach(admin, "v");
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	ck_assert_int_ge(rig_wall(rig), p.expires_at);
	permit_deinit(&p);
	/* One that goes on renewing is cut off in the end. */
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	begun = rig_wall(rig);
	start_volume_detach(admin, "v");
	while (ask_renew(h, 1, 2) == 0)
		rig_run_ms(rig, 3000);
	ck_assert_int_eq(h->status, -E_FENCED);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	ck_assert_int_le(rig_wall(rig) - begun, 4 * (int64_t)(LIFETIME_MS * NS_PER_MS));
}
END_TEST

/* The driver's clock goes back: nothing is issued until it has caught up, restart or not. */
START_TEST(clock_goes_back)
{
	struct peer *h = peer_new(rig, "host", "h1");

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	run_s(25);
	rig->pd_process->wall_offset_ns -= 20 * (int64_t)NS_PER_S;
	h->process->wall_offset_ns -= 20 * (int64_t)NS_PER_S;
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_CLOCK_SKEW);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), -E_CLOCK_SKEW);
	nodes[0]->process->wall_offset_ns -= 20 * (int64_t)NS_PER_S;
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), -E_CLOCK_SKEW);
	rig_pd_crash(rig, SIM_KILL);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_CLOCK_SKEW);
	rig_run_ms(rig, 25000);
	ck_assert_msg(ask_renew(h, 1, 1) == 0, "%s", h->text);
}
END_TEST

/* The wall clocks of all machines leap forward together: the older permit still lives as long as it
 * was meant to, because deadlines run on the clock that can't be set. */
START_TEST(clocks_leap)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	const int64_t leap = 120 * (int64_t)NS_PER_S;
	struct permit p1, p2;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	p1 = reply_permit(h1);
	rig->pd_process->wall_offset_ns += leap;
	for (uint32_t i = 0; i < rig->peer_count; i++)
		rig->peers[i].process->wall_offset_ns += leap;
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "par"), 0);
	p2 = reply_permit(h2);
	ck_assert_int_ge(p2.serve_after, p1.expires_at + leap - (int64_t)NS_PER_S);
	permit_deinit(&p1);
	permit_deinit(&p2);
}
END_TEST

/* The driver dies and comes back: the same attachment goes on, and a newer one still waits for it.
 */
START_TEST(restart_goes_on)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct permit p, q;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", rig_wall(rig)), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h1->permit_notices, 2);
	rig_pd_crash(rig, SIM_KILL);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(h1, "host", "h1"), 0);
	ck_assert_int_eq(ask_renew(h1, 1, 1), 0);
	p = reply_permit(h1);
	ck_assert_uint_gt(p.serial, h1->notice.serial);
	ck_assert_uint_eq(p.node_count, 3);
	/* It is told of changes again. */
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", rig_wall(rig)), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h1->permit_notices, 3);
	rig_pd_crash(rig, SIM_KILL);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(h2, "host", "h2"), 0);
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "par"), 0);
	q = reply_permit(h2);
	ck_assert_uint_eq(q.generation, 2);
	ck_assert_int_ge(q.serve_after, p.expires_at);
	ck_assert_int_eq(peer_connect(h1, "host", "h1"), 0);
	ck_assert_int_eq(ask_renew(h1, 1, 1), -E_FENCED);
	permit_deinit(&p);
	permit_deinit(&q);
}
END_TEST

static void become_one_of_several(void)
{
	rig_one_of_several(rig);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
}

/* Neither permits nor leases, by no way; and what it refuses for that is no verdict. */
START_TEST(whoever_may_not_lead_issues_nothing)
{
	struct peer *h = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	Pave__V1__Control get = PAVE__V1__CONTROL__INIT;
	Pave__V1__StatusGet status = PAVE__V1__STATUS_GET__INIT;

	become_one_of_several();
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	ck_assert_int_eq(peer_connect(h2, "host", "h2"), 0);
	ck_assert_int_eq(peer_connect(nodes[0], "node", "n1"), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	rig->leads = false;
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_NOT_LEADER);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), -E_NOT_LEADER);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", rig_wall(rig)), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h->permit_notices, 0);
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "lyo"), -E_NOT_LEADER);
	rig->leads = true;
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "lyo"), 0);
	get.body_case = PAVE__V1__CONTROL__BODY_STATUS_GET;
	get.status_get = &status;
	ck_assert_int_eq(peer_ask(admin, &get), 0);
	ck_assert_uint_eq(admin->reply->status_reply->n_drivers, 2);
	ck_assert_str_eq(admin->reply->status_reply->drivers[0]->name, "a");
	ck_assert(admin->reply->status_reply->drivers[0]->leads);
	ck_assert(!admin->reply->status_reply->drivers[1]->leads);
}
END_TEST

static int ask_commit(struct peer *p, generation_t generation, const char *from, const char *to)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__MoveCommit c = PAVE__V1__MOVE_COMMIT__INIT;

	c.volume = 1;
	c.generation = generation;
	c.from = (char *)(uintptr_t)from;
	c.to = (char *)(uintptr_t)to;
	m.body_case = PAVE__V1__CONTROL__BODY_MOVE_COMMIT;
	m.move_commit = &c;
	return peer_ask(p, &m);
}

/* Another has led since: has given the volume to a host anew, moved a chunk, and had what was to be
 * erased on a node erased, and put a copy there again. Whoever comes here then must hear nothing of
 * what this driver remembers. */
START_TEST(whoever_may_not_lead_says_nothing_from_memory)
{
	struct peer *h = peer_new(rig, "host", "h1");

	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	become_one_of_several();
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	for (uint32_t i = 0; i < 2; i++) {
		const char name[] = {'n', (char)('1' + i), '\0'};

		ck_assert_int_eq(peer_connect(nodes[i], "node", name), 0);
		ck_assert_int_eq(ask_lease(nodes[i], name, rig_sites[i], (uint8_t)(i + 1), 0), 0);
	}
	ck_assert_int_eq(ask_delete(admin, "w"), 0);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(nodes[0]->erases, 1);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	rig->leads = false;
	ck_assert_int_eq(ask_renew(h, 1, 2), -E_NOT_LEADER);
	ck_assert_int_eq(ask_commit(h, 1, "n1", "n4"), -E_NOT_LEADER);
	ck_assert_int_eq(ask_commit(h, 2, "n1", "n4"), -E_NOT_LEADER);
	ck_assert_int_eq(ask_attach(h, "new", "h1", "par"), -E_NOT_LEADER);
	ck_assert_int_eq(peer_connect(nodes[2], "node", "n3"), 0);
	ck_assert_int_eq(ask_lease(nodes[2], "n3", rig_sites[2], 3, 0), -E_NOT_LEADER);
	rig_run_ms(rig, 5000);
	ck_assert_uint_eq(nodes[2]->erases, 0);
	/* It leads after all: everything goes on. */
	rig->leads = true;
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	ck_assert_int_eq(ask_commit(h, 1, "n1", "n4"), -ENOENT);
	ck_assert_int_eq(ask_lease(nodes[2], "n3", rig_sites[2], 3, 0), 0);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(nodes[2]->erases, 1);
	/* What is only written down waits for that. */
	rig->leads = false;
	ck_assert_int_eq(ask_detach(h, 1, 1), 0);
}
END_TEST

/* Nor does it have anything erased of its own accord: on connections that are left from when it
 * led, after a pause, what it remembers may have come back since. */
START_TEST(whoever_may_not_lead_has_nothing_erased)
{
	ck_assert_int_eq(ask_create(admin, "w", SIZE, "secnumcloud-fr"), 0);
	become_one_of_several();
	for (uint32_t i = 0; i < 3; i++) {
		const char name[] = {'n', (char)('1' + i), '\0'};

		ck_assert_int_eq(peer_connect(nodes[i], "node", name), 0);
		ck_assert_int_eq(ask_lease(nodes[i], name, rig_sites[i], (uint8_t)(i + 1), 0), 0);
	}
	rig->leads = false;
	ck_assert_int_eq(ask_delete(admin, "w"), 0);
	rig_run_ms(rig, 5000);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_uint_eq(nodes[i]->erases, 0);
	rig->leads = true;
	rig_run_ms(rig, 5000);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_uint_eq(nodes[i]->erases, 1);
}
END_TEST

/* A second administrator, or the same one again, asks for what the first has not got yet: that it
 * is there already, or is not there, would be taken for done. */
START_TEST(what_is_there_is_told_when_it_is_durable)
{
	struct peer *again = peer_new(rig, "admin", "again");
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeCreate create = PAVE__V1__VOLUME_CREATE__INIT;

	create.name = (char *)(uintptr_t) "new";
	create.size = SIZE;
	create.chunk_size = 64ull << 20;
	create.policy = (char *)(uintptr_t) "secnumcloud-fr";
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_CREATE;
	m.volume_create = &create;
	sim_kv_slow_commits(rig->kv, 3 * NS_PER_S);
	peer_ask_start(admin, &m);
	rig_run_ms(rig, 1000);
	peer_ask_start(again, &m);
	rig_run_ms(rig, 1000);
	ck_assert(!admin->answered && !again->answered);
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	ck_assert_int_eq(peer_ask_wait(again), -EEXIST);
}
END_TEST

/* It has led, and another does since: what it finds in its memory may be gone, or have come. */
START_TEST(what_is_there_is_told_by_a_driver_that_leads)
{
	become_one_of_several();
	ck_assert_int_eq(ask_create(admin, "v", SIZE, "secnumcloud-fr"), -EEXIST);
	sim_kv_on_commit(rig->kv, 1, SIM_IO_FAIL); /* as another leads */
	ck_assert_int_eq(ask_create(admin, "v", SIZE, "secnumcloud-fr"), -E_NOT_LEADER);
}
END_TEST

/* By this driver's clock the older permit is nearly over; by the clock of the driver that gave it,
 * who knows. */
START_TEST(permits_of_another_driver_last_a_lifetime)
{
	struct peer *h1 = peer_new(rig, "host", "h1");
	struct peer *h2 = peer_new(rig, "host", "h2");
	struct permit q;
	int64_t taken_over;

	ck_assert_int_eq(ask_attach(h1, "v", "h1", "par"), 0);
	run_s(LIFETIME_MS / 1000 - 1);
	taken_over = rig_wall(rig);
	become_one_of_several();
	ck_assert_int_eq(peer_connect(h2, "host", "h2"), 0);
	ck_assert_int_eq(ask_attach(h2, "v", "h2", "par"), 0);
	q = reply_permit(h2);
	ck_assert_int_ge(q.serve_after, taken_over + (int64_t)(LIFETIME_MS * NS_PER_MS));
	permit_deinit(&q);
}
END_TEST

/* Of the permit in the last reply, ms; what its commit took is rounded away. */
static int64_t lifetime_of(struct peer *p)
{
	struct permit permit = reply_permit(p);
	const int64_t ns = permit.expires_at - permit.issued_at;

	permit_deinit(&permit);
	return (ns / (int64_t)NS_PER_MS + 50) / 100 * 100;
}

/* Whatever each of several drivers was started with: hosts renew by what they were told. */
START_TEST(drivers_agree_on_how_long_a_permit_lasts)
{
	struct peer *h = peer_new(rig, "host", "h1");

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	ck_assert_int_eq(lifetime_of(h), LIFETIME_MS);
	rig->lifetime_ms = LIFETIME_MS / 5;
	become_one_of_several();
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	ck_assert_int_eq(lifetime_of(h), LIFETIME_MS);
	/* With nothing attached it is as this driver has it, from when it starts. */
	ck_assert_int_eq(ask_detach(h, 1, 1), 0);
	become_one_of_several();
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	ck_assert_int_eq(lifetime_of(h), LIFETIME_MS / 5);
	rig->lifetime_ms = 0;
	become_one_of_several();
	ck_assert_int_eq(peer_connect(h, "host", "h1"), 0);
	ck_assert_int_eq(ask_renew(h, 1, 2), 0);
	ck_assert_int_eq(lifetime_of(h), LIFETIME_MS / 5);
}
END_TEST

/* A volume that is frozen: fewer eligible copies than must acknowledge. */
START_TEST(state_for_people)
{
	struct peer *h = peer_new(rig, "host", "h1");
	const Pave__V1__VolumeInfo *v;

	ck_assert_int_eq(ask_attach(h, "v", "h1", "par"), 0);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	v = admin->reply->volume_get_reply->info;
	ck_assert_str_eq(v->state, "attached");
	ck_assert_str_eq(v->holder, "h1");
	ck_assert_str_eq(v->endpoint, "unix:/x");
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx lyo", rig_wall(rig)), 0);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_str_eq(admin->reply->volume_get_reply->info->state, "frozen");
	ck_assert_uint_eq(admin->reply->volume_get_reply->n_verdicts, 3);
	rig_run_ms(rig, LIFETIME_MS + 1000);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_str_eq(admin->reply->volume_get_reply->info->state, "lapsed");
	ck_assert_int_eq(ask_detach(h, 1, 1), 0);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_str_eq(admin->reply->volume_get_reply->info->state, "detached");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement_hosts");
	TCase *t = tcase_create("hosts");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, attach_and_renew);
	tcase_add_test(t, attach_is_refused);
	tcase_add_test(t, take_over);
	tcase_add_test(t, take_over_twice);
	tcase_add_test(t, a_live_attachment_is_not_taken_over_unasked);
	tcase_add_test(t, a_host_that_prepares_changes_nothing);
	tcase_add_test(t, a_bad_holder_takes_nothing_over);
	tcase_add_test(t, detach_releases);
	tcase_add_test(t, revocation_is_pushed);
	tcase_add_test(t, refusals_by_turns_fill_no_ledger);
	tcase_add_loop_test(t, a_withdrawal_is_told_late_once, 0, 3);
	tcase_add_test(t, host_is_a_place_too);
	tcase_add_test(t, announced_withdrawal);
	tcase_add_test(t, snapshot_runs_out);
	tcase_add_test(t, volume_detach_waits_for_the_host);
	tcase_add_test(t, volume_detach_waits_for_the_permit);
	tcase_add_test(t, clock_goes_back);
	tcase_add_test(t, clocks_leap);
	tcase_add_loop_test(t, a_permit_is_in_the_ledger_first, 0, 40);
	tcase_add_test(t, restart_goes_on);
	tcase_add_test(t, whoever_may_not_lead_issues_nothing);
	tcase_add_test(t, whoever_may_not_lead_says_nothing_from_memory);
	tcase_add_test(t, whoever_may_not_lead_has_nothing_erased);
	tcase_add_test(t, what_is_there_is_told_when_it_is_durable);
	tcase_add_test(t, what_is_there_is_told_by_a_driver_that_leads);
	tcase_add_test(t, permits_of_another_driver_last_a_lifetime);
	tcase_add_test(t, drivers_agree_on_how_long_a_permit_lasts);
	tcase_add_test(t, state_for_people);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
