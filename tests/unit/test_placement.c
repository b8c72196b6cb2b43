/* The driver: who may speak, leases, volumes, erasure. Evidence: test_placement_evidence.c; hosts:
 * test_placement_hosts.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/placement/standby.h"
#include "tests/unit/test_placement_rig.h"

#define SIZE (256ull << 20)

static struct rig *rig;
static struct peer *admin;
static struct peer *nodes[3];

static void setup(void)
{
	rig = rig_create(1);
	admin = peer_new(rig, "admin", "test");
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* -- who may speak ---------------------------------------------------------------------------- */

static int hello(struct peer *p, uint32_t version_min, uint32_t version_max, const void *cluster,
		 size_t cluster_size, const char *role)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello h = PAVE__V1__HELLO__INIT;

	h.version_min = version_min;
	h.version_max = version_max;
	h.cluster.data = (uint8_t *)(uintptr_t)cluster;
	h.cluster.len = cluster_size;
	h.role = (char *)(uintptr_t)role;
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	m.hello = &h;
	return peer_ask(p, &m);
}

START_TEST(hello_is_judged)
{
	struct peer *p = peer_new(rig, NULL, NULL);
	const uint8_t other[16] = {9};
	const void *own = rig->demo.cluster.bytes;

	/* Nothing before it. */
	ck_assert_int_eq(ask_create(p, "v", SIZE, ""), -EINVAL);
	ck_assert_int_eq(hello(p, FRAME_VERSION + 1, FRAME_VERSION + 2, own, 16, "node"),
			 -E_WIRE_VERSION);
	ck_assert_int_eq(hello(p, 1, 1, other, 16, "node"), -E_WRONG_CLUSTER);
	ck_assert_int_eq(hello(p, 1, 1, own, 5, "node"), -E_WRONG_CLUSTER);
	ck_assert_int_eq(hello(p, 1, 1, NULL, 0, "host"), -E_WRONG_CLUSTER);
	ck_assert_int_eq(hello(p, 1, 1, own, 16, "king"), -EINVAL);
	ck_assert_int_eq(hello(p, 1, 2, own, 16, "node"), 0);
	ck_assert_int_eq(hello(p, 1, 1, own, 16, "admin"), -EINVAL); /* once */
	ck_assert_int_eq(ask_create(p, "v", SIZE, ""), -EPERM);
	ck_assert_int_eq(ask_attach(p, "v", "h", ""), -EPERM);
	ck_assert_int_eq(ask_lease(admin, "n1", "par", 1, 0), -EPERM);
	/* Whoever says nothing is put out. */
	p = peer_new(rig, NULL, NULL);
	ck_assert(sim_run_flag(rig->world, &p->closed));
}
END_TEST

static struct rpc_call many[70];
static uint32_t many_refused, many_done;

static void many_answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			  const char *text)
{
	(void)call;
	(void)reply;
	(void)text;
	if (status == -E_LIMIT)
		many_refused++;
	else if (status == 0)
		many_done++;
}

START_TEST(requests_are_bounded)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeDetach d = PAVE__V1__VOLUME_DETACH__INIT;
	struct peer *h;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	d.name = (char *)(uintptr_t) "v";
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DETACH;
	m.volume_detach = &d;
	/* Each waits for the host: 64 may. */
	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		many[i].done = many_answered;
		rpc_call_start(&admin->rpc, &many[i], &m, 600000);
	}
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(many_refused, 6);
	ck_assert_uint_eq(many_done, 0);
	ck_assert_int_eq(ask_detach(h, 1, 1), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(many_done, 64);
}
END_TEST

/* A connection that is greeted, and no more. */
struct silent {
	struct transport_conn *conn;
	struct rpc rpc;
	struct rpc_call call;
	uint32_t *count;
};

static void silent_message(struct rpc *rpc, const struct rpc_request *r, void *arg)
{
	(void)rpc;
	(void)r;
	(void)arg;
}

static void silent_greeted(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			   const char *text)
{
	(void)reply;
	(void)text;
	*container_of(call, struct silent, call)->count += status == 0;
}

static void silent_ready(struct transport_conn *conn, void *arg)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello h = PAVE__V1__HELLO__INIT;
	char role[] = "admin";
	struct silent *s = arg;

	(void)conn;
	h.version_min = h.version_max = FRAME_VERSION;
	h.role = role;
	m.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	m.hello = &h;
	s->call.done = silent_greeted;
	rpc_call_start(&s->rpc, &s->call, &m, 0);
}

static void silent_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	(void)conn;
	rpc_rx(&((struct silent *)arg)->rpc, f);
}

static void silent_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct silent *s = arg;

	(void)conn;
	(void)reason;
	rpc_closed(&s->rpc);
	s->conn = NULL;
}

/* Whoever is greeted and asks for nothing keeps nobody out for ever; who asks, or waits for an
 * answer, stays. */
START_TEST(who_asks_for_nothing_makes_room)
{
	static const struct transport_handler handler = {
	    .ready = silent_ready, .rx = silent_rx, .closed = silent_closed};
	static struct silent all[PD_SESSIONS_MAX - 1]; /* and the admin */
	const uint32_t count = ARRAY_SIZE(all);
	struct peer *p = peer_new(rig, NULL, NULL);
	uint32_t greeted = 0;

	peer_close(p);
	for (uint32_t i = 0; i < count; i++) {
		all[i].count = &greeted;
		ck_assert_int_eq(
		    transport_connect(p->transport, "pd", &handler, &all[i], &all[i].conn), 0);
		rpc_init(&all[i].rpc, all[i].conn, silent_message, &all[i]);
		if (i % 100 == 0)
			rig_run_ms(rig, 5);
	}
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(greeted, count);
	rig_run_ms(rig, 15000);
	ck_assert_int_eq(ask_revocations(admin, "nonsense"), -E_BAD_DOCUMENT);
	/* None of them is silent for long enough. */
	ck_assert_int_ne(peer_connect(p, "admin", "late"), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_ne(peer_connect(p, "admin", "late"), 0);
	rig_run_ms(rig, 20000);
	ck_assert_int_ne(peer_connect(p, "admin", "late"), 0);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(peer_connect(p, "admin", "late"), 0);
	ck_assert(all[0].conn == NULL && all[1].conn != NULL && !admin->closed);
}
END_TEST

static const char *no_leader(void *arg)
{
	(void)arg;
	return "";
}

static void meets_standby(struct transport_conn *conn, void *arg)
{
	standby_accept(arg, conn);
}

static void standby_is_gone(void *arg)
{
	*(bool *)arg = true;
}

/* Who says nothing to a driver that does not lead, or stays there though it was told, keeps no
 * place. */
START_TEST(nobody_stays_with_a_standby)
{
	static const struct transport_handler handlers[] = {
	    {.rx = silent_rx, .closed = silent_closed},
	    {.ready = silent_ready, .rx = silent_rx, .closed = silent_closed}};
	struct sim_process *process = sim_process_create(rig->world, "standby");
	struct peer *p = peer_new(rig, NULL, NULL);
	struct transport_listener *listener;
	struct standby *standby;
	struct transport *transport;
	struct silent all[2];
	uint32_t greeted = 0;
	struct error err;
	bool gone = false;

	sim_process_start(process);
	transport = sim_transport_create(process);
	ck_assert_int_eq(
	    standby_create(sim_reactor(process), &rig->demo.cluster, no_leader, NULL, &standby), 0);
	ck_assert_int_eq(
	    transport_listen(transport, "standby", meets_standby, standby, &listener, &err), 0);
	for (uint32_t i = 0; i < 2; i++) {
		all[i] = (struct silent){.count = &greeted};
		ck_assert_int_eq(
		    transport_connect(p->transport, "standby", &handlers[i], &all[i], &all[i].conn),
		    0);
		rpc_init(&all[i].rpc, all[i].conn, silent_message, &all[i]);
	}
	rig_run_ms(rig, STANDBY_TIMEOUT_MS / 2);
	ck_assert_uint_eq(greeted, 1);
	ck_assert(all[0].conn != NULL && all[1].conn != NULL);
	rig_run_ms(rig, STANDBY_TIMEOUT_MS);
	ck_assert(all[0].conn == NULL && all[1].conn == NULL);
	standby_stop(standby, standby_is_gone, &gone);
	ck_assert(sim_run_flag(rig->world, &gone));
}
END_TEST

/* Every request, with fields that no honest peer sends: an answer, and nothing else. */
START_TEST(nonsense)
{
	static char strange[5000];
	const char *texts[] = {"", "v", "../../etc", "\xff\xfe", "a b\n", strange};
	const uint64_t numbers[] = {0, 1, 4096, UINT64_MAX, 1ull << 40, 1ull << 63};
	struct peer *peers[3];

	memset(strange, 'x', sizeof strange - 1);
	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	peers[0] = admin;
	peers[1] = nodes[0];
	peers[2] = peer_new(rig, "host", "h");
	for (int i = 0; i < 2000; i++) {
		const char *text = texts[sim_random_below(rig->world, ARRAY_SIZE(texts))];
		const char *text2 = texts[sim_random_below(rig->world, ARRAY_SIZE(texts))];
		uint64_t n = numbers[sim_random_below(rig->world, ARRAY_SIZE(numbers))];
		struct peer *p = peers[sim_random_below(rig->world, 3)];

		switch (sim_random_below(rig->world, 10)) {
		case 0:
			ask_lease(p, text, text2, (uint8_t)n, (int64_t)n);
			break;
		case 1:
			ask_create(p, text, n, text2);
			break;
		case 2:
			ask_delete(p, text[0] == 'v' ? "w" : text);
			break;
		case 3:
			ask_volume(p, text);
			break;
		case 4:
			ask_attach(p, text[0] == 'v' ? "w" : text, text2, text);
			break;
		case 5:
			ask_renew(p, n, (generation_t)n);
			break;
		case 6:
			ask_detach(p, n, (generation_t)n);
			break;
		case 7:
			ck_assert_int_ne(ask_site_add(p, text), 0);
			break;
		case 8:
			ck_assert_int_ne(ask_revocations(p, text), 0);
			break;
		default:
			start_volume_detach(p, text[0] == 'v' ? "w" : text);
			peer_ask_wait(p);
			break;
		}
		ck_assert(p->conn != NULL);
	}
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->generation, 0);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
}
END_TEST

/* -- leases ----------------------------------------------------------------------------------- */

START_TEST(lease_needs_evidence)
{
	struct peer *n = peer_new(rig, "node", "n1");
	struct lease lease;

	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), -E_DENIED); /* no certificate */
	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), -E_DENIED); /* no snapshot, not known */
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), 0);
	lease = reply_lease(n);
	ck_assert_str_eq(lease.node, "n1");
	ck_assert_str_eq(lease.site, "par");
	ck_assert_uint_eq(lease.site_version, 1);
	ck_assert_uint_eq(lease.revocations_version, 1);
	ck_assert_int_le(lease.expires_at, rig_wall(rig) + (int64_t)(LIFETIME_MS * NS_PER_MS));
	ck_assert_int_ge(lease.expires_at,
			 rig_wall(rig) + (int64_t)(LIFETIME_MS - 1000) * (int64_t)NS_PER_MS);
	/* What the node doesn't have yet comes with it. */
	ck_assert_uint_gt(n->reply->lease_reply->revocations.len, 0);
	ck_assert_uint_gt(n->reply->lease_reply->site_certificate.len, 0);
	ck_assert_uint_gt(n->reply->lease_reply->root.len, 0);
	ck_assert_int_eq(rig_revoke(rig, admin, "par", rig_wall(rig)), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), -E_REVOKED);
	ck_assert_ptr_nonnull(strstr(n->text, "withdrawals"));
}
END_TEST

START_TEST(lease_input)
{
	struct peer *n = peer_new(rig, "node", "n1");

	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(ask_lease(n, "", "par", 1, 0), -EINVAL);
	ck_assert_int_eq(ask_lease(n, "N/1", "par", 1, 0), -EINVAL);
	ck_assert_int_eq(ask_lease(n, "n1", "../x", 1, 0), -EINVAL);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), 0);
}
END_TEST

START_TEST(lease_measures_clocks)
{
	struct peer *n = peer_new(rig, "node", "n1");
	const int64_t ms = (int64_t)NS_PER_MS;

	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 700 * ms), -E_CLOCK_SKEW);
	ck_assert_ptr_nonnull(strstr(n->text, "500 ms"));
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 400 * ms), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, -400 * ms), 0);
	/* Late: it may have been the road, but not three times. */
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, -700 * ms), -EAGAIN);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, -700 * ms), -EAGAIN);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, INT64_MIN / 2), -EAGAIN);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, -700 * ms), -E_CLOCK_SKEW);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, -700 * ms), -E_CLOCK_SKEW);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, INT64_MAX / 4), -E_CLOCK_SKEW);
}
END_TEST

START_TEST(lease_knows_the_node)
{
	struct peer *n = peer_new(rig, "node", "n1");
	struct peer *m;

	rig_three(rig, admin, nodes);
	/* Another site under an old name. */
	ck_assert_int_eq(ask_lease(n, "n1", "lyo", 1, 0), -E_WRONG_NODE);
	/* Another device: as long as nothing is placed on it, it may be replaced. */
	ck_assert_int_eq(ask_lease(n, "n1", "par", 77, 0), 0);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 78, 0), -E_WRONG_NODE);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 77, 0), 0);
	/* The same from the register. */
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	m = peer_new(rig, "node", "n1");
	ck_assert_int_eq(ask_lease(m, "n1", "lyo", 77, 0), -E_WRONG_NODE);
	ck_assert_int_eq(ask_lease(m, "n1", "par", 78, 0), -E_WRONG_NODE);
	ck_assert_int_eq(ask_lease(m, "n1", "par", 77, 0), 0);
	ck_assert_int_eq(ask_lease(m, "n1", "par", 0, 0), -E_WRONG_NODE);
}
END_TEST

/* Nodes said once that their device is all zeroes: what they say next is taken for it. */
START_TEST(lease_learns_the_device)
{
	struct peer *n = peer_new(rig, "node", "n1");

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 0, 0), 0);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 0, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 77, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 78, 0), -E_WRONG_NODE);
}
END_TEST

static int ask_receipts(struct peer *p)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Receipts r = PAVE__V1__RECEIPTS__INIT;

	m.body_case = PAVE__V1__CONTROL__BODY_RECEIPTS;
	m.receipts = &r;
	return peer_ask(p, &m);
}

static bool is_listed(struct peer *p, const char *node)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeList list = PAVE__V1__NODE_LIST__INIT;
	bool found = false;

	m.body_case = PAVE__V1__CONTROL__BODY_NODE_LIST;
	m.node_list = &list;
	ck_assert_int_eq(peer_ask(p, &m), 0);
	for (size_t i = 0; i < p->reply->node_list_reply->n_nodes; i++)
		found = found || strcmp(p->reply->node_list_reply->nodes[i]->node, node) == 0;
	return found;
}

/* One that is removed and forgotten is known to no connection that it had before its last, and
 * whose end nobody has noticed. */
START_TEST(a_node_that_is_forgotten_has_no_session)
{
	struct peer *last;

	rig_three(rig, admin, nodes);
	last = peer_new(rig, "node", "n1");
	ck_assert_int_eq(ask_lease(last, "n1", "par", 1, 0), 0);
	ck_assert_int_eq(ask_receipts(nodes[0]), 0);
	peer_close(last);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(ask_remove(admin, "n1", false), 0);
	rig_run_ms(rig, 2000);
	ck_assert(!is_listed(admin, "n1"));
	ck_assert_int_eq(ask_receipts(nodes[0]), -EINVAL);
	peer_close(nodes[0]);
	rig_run_ms(rig, 100);
}
END_TEST

/* What it asked for last may wait for a commit still, and needs the node when that is done. */
START_TEST(a_node_is_not_forgotten_while_it_asks)
{
	struct peer *other = peer_new(rig, "admin", "other"), *n4;

	rig_three(rig, admin, nodes);
	n4 = peer_new(rig, "node", "n4");
	sim_kv_slow_commits(rig->kv, 5 * NS_PER_S);
	start_lease(n4, "n4", "par", 4, 0);
	rig_run_ms(rig, 100);
	peer_close(n4);
	rig_run_ms(rig, 100);
	start_remove(admin, "n4", false);
	rig_run_ms(rig, 3000);
	ck_assert(is_listed(other, "n4"));
	ck_assert_int_eq(peer_ask_wait(admin), 0);
	sim_kv_slow_commits(rig->kv, 0);
	rig_run_ms(rig, 12000); /* the lease is not in the ledger before */
	ck_assert(!is_listed(other, "n4"));
}
END_TEST

static int ask_node_add(const char *node, const char *site, const char *identity_of)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__NodeAdd add = PAVE__V1__NODE_ADD__INIT;
	struct identity id = {0};
	struct error err;
	int rc;

	ck_assert_int_eq(demo_identity(&rig->demo, identity_of, node, rig_wall(rig) - day,
				       rig_wall(rig) + day, &id, &err),
			 0);
	add.node = (char *)(uintptr_t)node;
	add.site = (char *)(uintptr_t)site;
	add.certificate = (ProtobufCBinaryData){id.certificate.size, id.certificate.data};
	add.ca = (ProtobufCBinaryData){id.ca.size, id.ca.data};
	m.body_case = PAVE__V1__CONTROL__BODY_NODE_ADD;
	m.node_add = &add;
	rc = peer_ask(admin, &m);
	identity_deinit(&id);
	return rc;
}

/* Its name is taken from then on, over a restart too, and nobody has it without that identity; a
 * driver that takes in none but those refuses all others. */
START_TEST(a_node_is_added)
{
	struct peer *n;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_node_add("n9", "nowhere", "par"), -ENOENT);
	ck_assert_int_eq(ask_node_add("n9", "par", "lyo"), -E_BAD_SIGNATURE);
	ck_assert_int_eq(ask_node_add("n1", "lyo", "lyo"), -E_IN_USE);
	ck_assert_msg(ask_node_add("n9", "par", "par") == 0, "%s", admin->text);
	ck_assert_int_eq(ask_node_add("n9", "par", "par"), -E_IN_USE);
	rig->only_added = true;
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	n = peer_new(rig, "node", "n9");
	ck_assert_int_eq(ask_lease(n, "n9", "par", 9, 0), -E_WRONG_NODE);
	ck_assert_ptr_nonnull(strstr(n->text, "identity"));
	ck_assert_int_eq(ask_lease(n, "n8", "par", 8, 0), -E_DENIED);
	ck_assert_ptr_nonnull(strstr(n->text, "pave node add"));
	/* Those that were there before are known. */
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), 0);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_int_eq(ask_remove(admin, "n9", false), 0);
	rig_run_ms(rig, 2000);
	ck_assert_int_eq(ask_remove(admin, "n9", false), -ENOENT);
}
END_TEST

/* -- volumes ---------------------------------------------------------------------------------- */

START_TEST(create)
{
	const Pave__V1__VolumeGetReply *r;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	r = admin->reply->volume_get_reply;
	ck_assert_uint_eq(r->info->id, 1);
	ck_assert_str_eq(r->info->policy, "secnumcloud-fr");
	ck_assert_str_eq(r->info->state, "detached");
	ck_assert_uint_eq(r->n_verdicts, 3);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	r = admin->reply->volume_get_reply;
	ck_assert_uint_eq(r->map.len, 4 * 3);
	ck_assert_uint_eq(r->n_nodes, 3);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), -EEXIST);
	ck_assert_int_eq(ask_create(admin, "V v", SIZE, ""), -EINVAL);
	ck_assert_int_eq(ask_create(admin, "w", 0, ""), -EINVAL);
	ck_assert_int_eq(ask_create(admin, "w", 1000, ""), -EINVAL);
	ck_assert_int_eq(ask_create(admin, "w", UINT64_MAX / 4096 * 4096, ""), -EINVAL);
	ck_assert_int_eq(ask_create(admin, "w", SIZE, "strange"), -ENOENT);
	ck_assert_int_eq(ask_create(admin, "w", 5000ull << 30, "cloud-de-confiance"), 0); /* thin */
	ck_assert_int_eq(ask_volume(admin, "x"), -ENOENT);
}
END_TEST

START_TEST(create_needs_sites)
{
	rig_three(rig, admin, nodes);
	ck_assert_int_eq(rig_revoke(rig, admin, "rbx", rig_wall(rig)), 0);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, "secnumcloud-fr"), -E_DENIED);
	ck_assert_ptr_nonnull(strstr(admin->text, "secnumcloud-fr needs 3 replicas"));
	ck_assert_ptr_nonnull(strstr(admin->text, "only 2 are eligible"));
	ck_assert_ptr_nonnull(strstr(admin->text, "rbx (revocations"));
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	peer_close(nodes[1]);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	ck_assert_int_eq(ask_lease(nodes[2], "n3", "rbx", 3, 0), 0);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, "secnumcloud-fr"), -E_DENIED);
	ck_assert_ptr_nonnull(strstr(admin->text, "n2 of site lyo (down)"));
}
END_TEST

START_TEST(lists)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeList list = PAVE__V1__VOLUME_LIST__INIT;
	Pave__V1__StatusGet status = PAVE__V1__STATUS_GET__INIT;
	const Pave__V1__StatusReply *s;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "b", SIZE, ""), 0);
	ck_assert_int_eq(ask_create(admin, "a", SIZE, ""), 0);
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_LIST;
	m.volume_list = &list;
	ck_assert_int_eq(peer_ask(admin, &m), 0);
	ck_assert_uint_eq(admin->reply->volume_list_reply->n_volumes, 2);
	ck_assert_str_eq(admin->reply->volume_list_reply->volumes[0]->name, "a");
	ck_assert(!admin->reply->volume_list_reply->more);
	list.after = (char *)(uintptr_t) "a";
	ck_assert_int_eq(peer_ask(admin, &m), 0);
	ck_assert_uint_eq(admin->reply->volume_list_reply->n_volumes, 1);
	m.body_case = PAVE__V1__CONTROL__BODY_STATUS_GET;
	m.status_get = &status;
	ck_assert_int_eq(peer_ask(admin, &m), 0);
	s = admin->reply->status_reply;
	ck_assert_uint_eq(s->n_nodes, 3);
	ck_assert_uint_eq(s->n_sites, 3);
	ck_assert_uint_eq(s->n_volumes, 2);
	ck_assert_uint_eq(s->revocations_version, 1);
	for (size_t i = 0; i < 3; i++) {
		ck_assert_str_eq(s->nodes[i]->state, "up");
		ck_assert_uint_eq(s->nodes[i]->chunks, 8);
		ck_assert(s->nodes[i]->eligible);
	}
	peer_close(nodes[0]);
	rig_run_ms(rig, LIFETIME_MS);
	ck_assert_int_eq(peer_ask(admin, &m), 0);
	for (size_t i = 0; i < 3; i++)
		ck_assert_str_eq(admin->reply->status_reply->nodes[i]->state, "down");
}
END_TEST

/* -- deletion --------------------------------------------------------------------------------- */

START_TEST(delete_erases)
{
	struct peer *h;

	rig_three(rig, admin, nodes);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(admin->text, "pave detach v"));
	ck_assert_int_eq(ask_detach(h, 1, 1), 0);
	/* One node is away, one can't, one does. */
	peer_close(nodes[0]);
	nodes[1]->erase_refuse = true;
	ck_assert_int_eq(ask_delete(admin, "v"), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), -ENOENT);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(nodes[2]->erases, 1);
	ck_assert_uint_eq(nodes[2]->erase_volume, 1);
	ck_assert_uint_eq(sim_kv_key_count(rig->kv, PD_KV_VOLUMES), 1); /* the tombstone */
	/* The name is free, the id isn't. */
	ck_assert_int_eq(ask_lease(nodes[1], "n2", "lyo", 2, 0), 0);
	nodes[1]->erase_refuse = false;
	rig_run_ms(rig, 10000);
	ck_assert_uint_ge(nodes[1]->erases, 2);
	ck_assert_uint_eq(sim_kv_key_count(rig->kv, PD_KV_VOLUMES), 1);
	/* Over a restart too. */
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(nodes[0], "node", "n1"), 0);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(nodes[0]->erases, 1);
	ck_assert_uint_eq(nodes[2]->erases, 1); /* it has confirmed */
	ck_assert_uint_eq(sim_kv_key_count(rig->kv, PD_KV_VOLUMES), 0);
	ck_assert_uint_eq(sim_kv_key_count(rig->kv, PD_KV_MAPS), 0);
	ck_assert_int_eq(peer_connect(nodes[1], "node", "n2"), 0);
	ck_assert_int_eq(peer_connect(nodes[2], "node", "n3"), 0);
	ck_assert_int_eq(ask_lease(nodes[1], "n2", "lyo", 2, 0), 0);
	ck_assert_int_eq(ask_lease(nodes[2], "n3", "rbx", 3, 0), 0);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->id, 2);
}
END_TEST

/* Volume v on the most nodes, none of which is there, with a copy on n1 that waits to be erased. */
static void plant_large_volume(void)
{
	struct reg_node **list = calloc(REG_MAP_NODES_MAX, sizeof *list);
	uint8_t *map = malloc(REG_MAP_NODES_MAX);
	struct reg reg;
	struct reg_volume *v;
	char name[16];

	rig_pd_load(rig, &reg);
	for (uint32_t i = 0; i < REG_MAP_NODES_MAX; i++) {
		snprintf(name, sizeof name, "m%03u", i);
		list[i] = reg_node_add(&reg, name, rig_sites[i % 3]);
		map[i] = (uint8_t)i;
		reg_save_node(&reg, list[i]);
	}
	v = reg_volume_add(&reg, "v", REG_MAP_NODES_MAX / 3, 3, 64ull << 20, list,
			   REG_MAP_NODES_MAX, map);
	v->size = v->chunk_count * v->chunk_size;
	v->min_acks = 2;
	memcpy(v->policy, "secnumcloud-fr", sizeof "secnumcloud-fr");
	ck_assert_int_eq(reg_drop_unused(&reg, v, 0, reg_node_find(&reg, "n1")), 0);
	reg_save_meta(&reg);
	reg_save_volume(&reg, v);
	reg_save_map(&reg, v);
	rig_pd_start_with(rig, &reg);
}

/* A tombstone names as many nodes as a map: none that still has something is left out. */
START_TEST(no_copy_is_left_out)
{
	rig_three(rig, admin, nodes);
	plant_large_volume();
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_int_eq(ask_delete(admin, "v"), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(admin->text, "wait to be erased"));
	ck_assert_msg(ask_snapshot(admin, "v", "s") == 0, "%s", admin->text);
	ck_assert_int_eq(ask_rollback(admin, "v@s"), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(admin->text, "wait to be erased"));
	ck_assert_int_eq(peer_connect(nodes[0], "node", "n1"), 0);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	rig_run_ms(rig, 3000);
	ck_assert_uint_eq(nodes[0]->erases, 1);
	ck_assert_msg(ask_rollback(admin, "v@s") == 0, "%s", admin->text);
	ck_assert_msg(ask_delete(admin, "v@s") == 0, "%s", admin->text);
	ck_assert_msg(ask_delete(admin, "v") == 0, "%s", admin->text);
}
END_TEST

/* What does not fit into one tombstone, another one names. */
START_TEST(a_tombstone_takes_all_nodes_or_none)
{
	struct reg reg;
	struct reg_volume *v, *few, *grave;
	struct reg_node **one = calloc(1, sizeof(struct reg_node *));
	struct reg_node **two = calloc(2, sizeof(struct reg_node *));

	rig_three(rig, admin, nodes);
	plant_large_volume();
	rig_pd_load(rig, &reg);
	v = reg_volume_find(&reg, "v");
	one[0] = two[0] = v->nodes[7];
	two[1] = reg_node_find(&reg, "n1");
	few = reg_volume_add(&reg, "few", 0, 1, v->chunk_size, two, 2, NULL);
	grave = reg_volume_add(&reg, "grave", 0, 1, v->chunk_size, one, 1, NULL);
	ck_assert_int_eq(reg_volume_bury(&reg, grave), 0);
	ck_assert_int_eq(reg_volume_also_erase(&reg, grave, few), 0);
	ck_assert_uint_eq(grave->erase_count, 2);
	ck_assert_int_eq(reg_volume_also_erase(&reg, grave, v), -E_LIMIT);
	ck_assert_uint_eq(grave->erase_count, 2);
	reg_volume_erased(grave, two[1]);
	ck_assert_int_eq(reg_volume_also_erase(&reg, grave, v), 0);
	ck_assert_uint_eq(grave->erase_count, REG_MAP_NODES_MAX);
	ck_assert_int_eq(reg.broken, 0);
	reg_deinit(&reg);
}
END_TEST

/* What a node cannot erase keeps nothing else waiting, and is tried again. */
START_TEST(an_erasure_that_fails_goes_to_the_back)
{
	static const char *const volumes[] = {"u", "v", "w"};

	rig_three(rig, admin, nodes);
	nodes[1]->erase_refuses = 1u << 1 | 1u << 2;
	for (uint32_t i = 0; i < ARRAY_SIZE(volumes); i++)
		ck_assert_int_eq(ask_create(admin, volumes[i], SIZE, ""), 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(volumes); i++)
		ck_assert_int_eq(ask_delete(admin, volumes[i]), 0);
	rig_run_ms(rig, 15000);
	ck_assert_uint_ge(nodes[1]->erases, 4);
	ck_assert_uint_le(nodes[1]->erases, 7); /* and not with each tick */
	ck_assert_uint_eq(nodes[1]->erased_layers, 1u << 1 | 1u << 2 | 1u << 3);
	ck_assert_uint_eq(sim_kv_key_count(rig->kv, PD_KV_VOLUMES), 2);
	nodes[1]->erase_refuses = 0;
	rig_run_ms(rig, 15000);
	ck_assert_uint_eq(sim_kv_key_count(rig->kv, PD_KV_VOLUMES), 0);
}
END_TEST

/* A host that never let go: its permit has to run out first. */
START_TEST(delete_waits_for_permits)
{
	struct peer *h;

	rig_three(rig, admin, nodes);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	peer_close(h);
	ck_assert_int_eq(ask_delete(admin, "v"), -E_IN_USE);
	rig_run_ms(rig, LIFETIME_MS + 100);
	ck_assert_int_eq(ask_delete(admin, "v"), 0);
	ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), -ENOENT);
}
END_TEST

static int ask_scrub(const char *node)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__ScrubStart start = PAVE__V1__SCRUB_START__INIT;

	start.node = (char *)(uintptr_t)node;
	m.body_case = PAVE__V1__CONTROL__BODY_SCRUB_START;
	m.scrub_start = &start;
	return peer_ask(admin, &m);
}

/* The nodes that are there are told, and named in the answer. */
START_TEST(scrub_is_passed_on)
{
	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_scrub("n2"), 0);
	ck_assert_uint_eq(admin->reply->scrub_start_reply->n_nodes, 1);
	ck_assert_str_eq(admin->reply->scrub_start_reply->nodes[0], "n2");
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(nodes[0]->scrubs, 0);
	ck_assert_uint_eq(nodes[1]->scrubs, 1);
	ck_assert_int_eq(ask_scrub(""), 0);
	ck_assert_uint_eq(admin->reply->scrub_start_reply->n_nodes, 3);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(nodes[0]->scrubs, 1);
	ck_assert_uint_eq(nodes[1]->scrubs, 2);
	ck_assert_int_eq(ask_scrub("n9"), -ENOENT);
	peer_close(nodes[0]);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(ask_scrub("n1"), -E_UNREACHABLE);
	ck_assert_int_eq(ask_scrub(""), 0);
	ck_assert_uint_eq(admin->reply->scrub_start_reply->n_nodes, 2);
}
END_TEST

/* That a node's period cannot be kept is seen by whoever asks the driver. */
START_TEST(a_scrub_that_is_late_is_shown)
{
	const Pave__V1__ScrubState *s;

	rig_three(rig, admin, nodes);
	ck_assert(is_listed(admin, "n1"));
	s = admin->reply->node_list_reply->nodes[0]->scrub;
	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(s->needed_rate, RIG_SCRUB_NEEDED);
	ck_assert_uint_eq(s->max_rate, RIG_SCRUB_MAX);
}
END_TEST

/* -- the end ---------------------------------------------------------------------------------- */

static void stopped(void *arg)
{
	*(bool *)arg = true;
}

START_TEST(stop)
{
	struct peer *h;
	bool done = false;

	rig_three(rig, admin, nodes);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	start_volume_detach(admin, "v"); /* parked */
	rig_run_ms(rig, 100);
	pd_stop(rig->pd, stopped, &done);
	ck_assert(sim_run_flag(rig->world, &done));
	rig->pd = NULL;
	ck_assert_int_ne(peer_ask_wait(admin), 0); /* -E_UNREACHABLE, if that still left */
}
END_TEST

/* What was under way when it stopped is answered by nothing; nor does anything of it come later. */
START_TEST(stop_amid_an_attach)
{
	struct peer *h;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;
	bool done = false;

	rig_three(rig, admin, nodes);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	a.volume = (char *)(uintptr_t) "v";
	a.holder = (char *)(uintptr_t) "h";
	a.holder_site = (char *)(uintptr_t) "par";
	a.endpoint = (char *)(uintptr_t) "unix:/x";
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	sim_kv_slow_commits(rig->kv, NS_PER_S);
	peer_ask_start(h, &m);
	rig_run_ms(rig, 100);
	pd_stop(rig->pd, stopped, &done);
	ck_assert(sim_run_flag(rig->world, &done));
	rig->pd = NULL;
	rig_run_ms(rig, 2 * 3600 * 1000); /* evidence is looked at each hour */
}
END_TEST

START_TEST(stop_when_idle)
{
	bool done = false;

	pd_stop(rig->pd, stopped, &done);
	ck_assert(sim_run_flag(rig->world, &done));
	rig->pd = NULL;
}
END_TEST

/* A register that cannot be written: nothing is answered as if it were. */
START_TEST(register_fails)
{
	struct peer *h;

	rig_three(rig, admin, nodes);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	sim_kv_on_commit(rig->kv, 1, SIM_IO_FAIL);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), -EIO);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), -EIO);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), -EIO);
	rig_pd_crash(rig, SIM_KILL);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement");
	TCase *t = tcase_create("driver");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, hello_is_judged);
	tcase_add_test(t, requests_are_bounded);
	tcase_add_test(t, who_asks_for_nothing_makes_room);
	tcase_add_test(t, nobody_stays_with_a_standby);
	tcase_add_test(t, nonsense);
	tcase_add_test(t, lease_needs_evidence);
	tcase_add_test(t, lease_input);
	tcase_add_test(t, lease_measures_clocks);
	tcase_add_test(t, lease_knows_the_node);
	tcase_add_test(t, lease_learns_the_device);
	tcase_add_test(t, a_node_that_is_forgotten_has_no_session);
	tcase_add_test(t, a_node_is_not_forgotten_while_it_asks);
	tcase_add_test(t, a_node_is_added);
	tcase_add_test(t, create);
	tcase_add_test(t, create_needs_sites);
	tcase_add_test(t, lists);
	tcase_add_test(t, delete_erases);
	tcase_add_test(t, no_copy_is_left_out);
	tcase_add_test(t, a_tombstone_takes_all_nodes_or_none);
	tcase_add_test(t, an_erasure_that_fails_goes_to_the_back);
	tcase_add_test(t, delete_waits_for_permits);
	tcase_add_test(t, scrub_is_passed_on);
	tcase_add_test(t, a_scrub_that_is_late_is_shown);
	tcase_add_test(t, stop);
	tcase_add_test(t, stop_amid_an_attach);
	tcase_add_test(t, stop_when_idle);
	tcase_add_test(t, register_fails);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
