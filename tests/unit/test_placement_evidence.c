/* The driver and evidence: certificates, snapshots and policies that come in, or that two contents
 * were signed of, and another trust root. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* -- evidence --------------------------------------------------------------------------------- */

START_TEST(evidence_is_verified)
{
	char *bad = strdup(rig->sites[0]);
	char *old = rig_snapshot(rig, NULL, 0, 86400);
	char *new = rig_snapshot(rig, NULL, 0, 86400);
	struct demo stranger;
	char *forged;
	struct error err;

	bad[strlen(bad) / 2] ^= 1;
	ck_assert_int_ne(ask_site_add(admin, bad), 0);
	ck_assert_int_ne(ask_site_add(admin, ""), 0);
	ck_assert_int_ne(ask_site_add(admin, old), 0); /* of another type */
	ck_assert_int_eq(demo_init(&stranger, NULL, &err), 0);
	stranger.cluster = rig->demo.cluster;
	ck_assert_int_eq(demo_site(&stranger, "par", 1, 0, rig_wall(rig) * 2, &forged, &err), 0);
	ck_assert_int_eq(ask_site_add(admin, forged), -E_BAD_SIGNATURE);
	free(forged);
	demo_deinit(&stranger);
	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), 0);
	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), 0); /* the same again */
	ck_assert_int_eq(ask_revocations(admin, new), 0);
	ck_assert_int_eq(ask_revocations(admin, old), -E_ROLLBACK);
	free(bad);
	free(old);
	free(new);
}
END_TEST

START_TEST(two_contents_are_quarantined)
{
	struct peer *n = peer_new(rig, "node", "n1");
	char *other;
	struct error err;

	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), 0);
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(ask_lease(n, "n1", "par", 1, 0), 0);
	ck_assert_int_eq(demo_site(&rig->demo, "par", 1, rig_wall(rig) - (int64_t)NS_PER_S,
				   rig_wall(rig) * 2, &other, &err),
			 0);
	ck_assert_int_eq(ask_site_add(admin, other), -E_ROLLBACK);
	free(other);
	ck_assert_int_ne(ask_lease(n, "n1", "par", 1, 0), 0);
	ck_assert_ptr_nonnull(strstr(n->text, "two contents"));
}
END_TEST

/* Of the snapshot: then every site is without evidence, whatever was judged before. */
START_TEST(two_snapshots_of_one_version)
{
	struct peer *h;
	char *first, *other;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	first = rig_snapshot(rig, NULL, 0, 86400);
	rig->snapshot_version--;
	other = rig_snapshot(rig, "rbx", rig_wall(rig), 86400);
	ck_assert_int_eq(ask_revocations(admin, first), 0);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	ck_assert_int_eq(ask_revocations(admin, other), -E_ROLLBACK);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, -E_DENIED);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	ck_assert_int_ne(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	ck_assert_ptr_nonnull(strstr(nodes[0]->text, "two contents"));
	/* A higher version ends it. */
	ck_assert_int_eq(rig_revoke(rig, admin, NULL, 0), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	free(first);
	free(other);
}
END_TEST

/* A newer certificate counts once the snapshot lists it, and then the older one doesn't. */
START_TEST(newer_certificate)
{
	char *newer;
	struct error err;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(demo_site(&rig->demo, "par", 2, rig_wall(rig) - (int64_t)NS_PER_S,
				   rig_wall(rig) * 2, &newer, &err),
			 0);
	ck_assert_int_eq(ask_site_add(admin, newer), 0);
	free(newer);
	ck_assert_int_ne(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
}
END_TEST

/* The tenant tightens a policy: volumes under it are judged by the newer one at once. */
START_TEST(policy_is_put)
{
	struct peer *h;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	/* Version 2 allows Ile-de-France only: one site is left. */
	ck_assert_msg(rig_put_policy(rig, admin, 2, "[\"FR\"]", "[\"FR-IDF\"]", true) == 0, "%s",
		      admin->text);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h->permit_notices, 1);
	ck_assert_uint_eq(h->notice.node_count, 1);
	ck_assert_str_eq(h->notice.nodes[0].node, "n1");
	/* Kept over a restart. */
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->policy_version, 2);
}
END_TEST

static uint32_t min_acks_in_force(void)
{
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	return admin->reply->volume_get_reply->info->min_acks;
}

/* How many copies acknowledge is changed at once, for what is there too, and kept. */
START_TEST(min_acks_of_volumes_follow_the_policy)
{
	static const char what[] = "\"replicas\": 3, \"min_acks\": 2";
	static const char more[] = "\"replicas\": 3, \"min_acks\": 3";
	struct peer *h;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	ck_assert_uint_eq(h->reply->attach_reply->min_acks, 2);
	ck_assert_msg(rig_put_policy(rig, admin, 2, what, more, false) == 0, "%s", admin->text);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(h->permit_notices, 1);
	ck_assert_uint_eq(h->notice_min_acks, 3);
	ck_assert_uint_eq(min_acks_in_force(), 3);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	ck_assert_uint_eq(h->reply->renew_reply->min_acks, 3);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert_uint_eq(min_acks_in_force(), 3);
	/* Less is the tenant's to ask for. */
	ck_assert_int_eq(rig_put_policy(rig, admin, 3, what, what, false), -E_DENIED);
	ck_assert_uint_eq(min_acks_in_force(), 3);
	ck_assert_int_eq(rig_put_policy(rig, admin, 3, what, what, true), 0);
	ck_assert_uint_eq(min_acks_in_force(), 2);
	/* More copies are for new volumes, and the way there is told. */
	ck_assert_int_eq(
	    rig_put_policy(rig, admin, 4, what, "\"replicas\": 5, \"min_acks\": 3", false),
	    -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(admin->text, "volume v under it has 3"));
	ck_assert_ptr_nonnull(strstr(admin->text, "under another name"));
}
END_TEST

/* Of a volume with more copies than the policy asks for by now a majority acknowledges. */
START_TEST(fewer_copies_are_for_new_volumes)
{
	static const char what[] = "\"replicas\": 3, \"min_acks\": 2";
	const Pave__V1__VolumeGetReply *v;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_int_eq(
	    rig_put_policy(rig, admin, 2, what, "\"replicas\": 1, \"min_acks\": 1", true), 0);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->replicas, 3);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->min_acks, 2);
	ck_assert_int_eq(ask_create(admin, "w", SIZE, ""), 0);
	ck_assert_int_eq(ask_volume(admin, "w"), 0);
	ck_assert_uint_eq(admin->reply->volume_get_reply->info->replicas, 1);
	/* One that is there grows by chunks of as many copies as it has. */
	ck_assert_msg(ask_resize(admin, "v", 9 * SIZE) == 0, "%s", admin->text);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	v = admin->reply->volume_get_reply;
	ck_assert_uint_eq(v->n_nodes, 3);
	ck_assert_uint_eq(v->map.len, 9 * 3 * SIZE / v->info->chunk_size);
	for (size_t i = 0; i < v->map.len; i += 3)
		ck_assert_uint_eq(
		    1u << v->map.data[i] | 1u << v->map.data[i + 1] | 1u << v->map.data[i + 2], 7);
}
END_TEST

/* A version of secnumcloud-fr with this in the place of "territory": ["FR"]. */
static int put_policy(int version, const char *territory, bool by_tenant)
{
	return rig_put_policy(rig, admin, version, "[\"FR\"]", territory, by_tenant);
}

static uint64_t version_in_force(void)
{
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	return admin->reply->volume_get_reply->info->policy_version;
}

static void restart(bool without_trust)
{
	rig_pd_crash(rig, SIM_POWER_LOSS);
	if (without_trust) {
		struct error err;

		trust_close(rig->trust);
		ck_assert_int_eq(trust_open(NULL, rig->root, strlen(rig->root), &rig->trust, &err),
				 0);
	}
	rig_pd_start(rig);
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
}

/* The operator tightens, at once and for good; loosening is the tenant's. */
START_TEST(the_operator_may_only_tighten)
{
	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	ck_assert_msg(put_policy(2, "[\"FR-metropolitan\"]", false) == 0, "%s", admin->text);
	ck_assert_uint_eq(version_in_force(), 2);
	ck_assert_int_eq(put_policy(3, "[\"FR\"]", false), -E_DENIED);
	ck_assert_ptr_nonnull(strstr(admin->text, "territory is FR, and version 2 in force says "
						  "FR-metropolitan"));
	ck_assert_ptr_nonnull(strstr(admin->text, "have the tenant sign"));
	ck_assert_uint_eq(version_in_force(), 2);
	/* What was refused has used no version up, and the same again is no news. */
	ck_assert_int_eq(put_policy(2, "[\"FR-metropolitan\"]", false), 0);
	ck_assert_int_eq(put_policy(3, "[\"FR-IDF\", \"FR-ARA\"]", false), 0);
	ck_assert_uint_eq(version_in_force(), 3);
	restart(false);
	ck_assert_uint_eq(version_in_force(), 3);
	/* A driver that has seen none of it before believes the second after the first. */
	restart(true);
	ck_assert_uint_eq(version_in_force(), 3);
	ck_assert_int_eq(put_policy(4, "[\"FR\"]", false), -E_DENIED);
	ck_assert_int_eq(put_policy(4, "[\"FR\"]", true), 0);
	ck_assert_uint_eq(version_in_force(), 4);
	restart(true);
	ck_assert_uint_eq(version_in_force(), 4);
}
END_TEST

static const Pave__V1__PolicyListReply *ask_policies(const char *policy)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PolicyList list = PAVE__V1__POLICY_LIST__INIT;

	list.policy = (char *)(uintptr_t)policy;
	m.body_case = PAVE__V1__CONTROL__BODY_POLICY_LIST;
	m.policy_list = &list;
	return peer_ask(admin, &m) == 0 ? admin->reply->policy_list_reply : NULL;
}

/* What is told of the policy, and with which document. */
static void expect_policy(const char *name, uint64_t version, const char *signed_by, bool disputed,
			  const char *in_document)
{
	const Pave__V1__PolicyListReply *r = ask_policies(name);
	const Pave__V1__PolicyInfo *p;
	struct policy_document *d = NULL;

	ck_assert_msg(r != NULL && r->n_policies == 1, "%s", admin->text);
	p = r->policies[0];
	ck_assert_str_eq(p->policy, name);
	ck_assert_uint_eq(p->version, version);
	ck_assert_str_eq(p->signed_by, signed_by);
	ck_assert_int_eq(p->disputed, disputed);
	ck_assert_ptr_nonnull(
	    memmem(p->document.data, p->document.len, in_document, strlen(in_document)));
	/* The very bytes that the digest is of. */
	ck_assert_int_eq(policy_parse(p->document.data, p->document.len, &d, NULL), 0);
	ck_assert_uint_eq(p->digest.len, 32);
	ck_assert_mem_eq(p->digest.data, policy_digest(d), 32);
	policy_free(d);
}

/* What is in force, whoever signed it, and after a start too; not what shipped under that name. */
START_TEST(policies_are_told)
{
	static const char name[] = "secnumcloud-fr";
	const Pave__V1__PolicyListReply *r = ask_policies("");

	ck_assert_msg(r != NULL && r->n_policies == 4, "%s", admin->text);
	for (size_t i = 0; i < r->n_policies; i++) {
		ck_assert_str_eq(r->policies[i]->signed_by, "preset");
		ck_assert_uint_eq(r->policies[i]->document.len, 0);
	}
	expect_policy(name, 1, "preset", false, "\"FR\"");
	ck_assert_int_eq(put_policy(2, "[\"FR-metropolitan\"]", true), 0);
	expect_policy(name, 2, "tenant", false, "FR-metropolitan");
	ck_assert_int_eq(put_policy(3, "[\"FR-IDF\", \"FR-ARA\"]", false), 0);
	expect_policy(name, 3, "operator", false, "FR-ARA");
	restart(false);
	expect_policy(name, 3, "operator", false, "FR-ARA");
	ck_assert_int_eq(put_policy(3, "[\"FR-IDF\"]", true), -E_ROLLBACK);
	expect_policy(name, 3, "operator", true, "FR-ARA");
	ck_assert_ptr_null(ask_policies("nonsense"));
	ck_assert_msg(strstr(admin->text, "pave policy list") != NULL, "%s", admin->text);
}
END_TEST

/* Neither of two contents that were signed as one version counts, nor the preset of that name in
 * their place, over a restart either. */
START_TEST(two_contents_of_a_policy)
{
	struct peer *h;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	ck_assert_int_eq(put_policy(2, "[\"FR-metropolitan\"]", true), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	ck_assert_int_eq(put_policy(2, "[\"EEA\"]", true), -E_ROLLBACK);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, -E_DENIED);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	ck_assert_ptr_nonnull(strstr(h->text, "two contents"));
	restart(false);
	ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	ck_assert_int_eq(put_policy(3, "[\"FR-metropolitan\"]", true), 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
}
END_TEST

/* -- another root ----------------------------------------------------------------------------- */

static int put_root(const char *root, char *const *documents, size_t count)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RootPut put = PAVE__V1__ROOT_PUT__INIT;
	ProtobufCBinaryData list[RIG_SITES + 1];

	for (size_t i = 0; i < count; i++)
		list[i] = (ProtobufCBinaryData){strlen(documents[i]), (uint8_t *)documents[i]};
	put.envelope = (ProtobufCBinaryData){strlen(root), (uint8_t *)(uintptr_t)root};
	put.documents = list;
	put.n_documents = count;
	m.body_case = PAVE__V1__CONTROL__BODY_ROOT_PUT;
	m.root_put = &put;
	return peer_ask(admin, &m);
}

/* The authority's key is lost: a root without it, and what it had signed, signed by the new one. */
struct successor {
	struct demo demo;
	char *root;
	char *documents[RIG_SITES + 1]; /* sites, snapshot */
};

static void make_successor(struct successor *x, const struct demo *before, uint64_t version)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct demo_entry entries[RIG_SITES];
	struct error err;

	x->demo = *before;
	ck_assert_int_eq(signing_key_generate("authority-2", &x->demo.keys[0], &err), 0);
	ck_assert_int_eq(demo_root_after(before, &x->demo, version, rig_wall(rig) - day,
					 rig_wall(rig) + 300 * day, &x->root, &err),
			 0);
	for (uint32_t i = 0; i < RIG_SITES; i++) {
		entries[i] = (struct demo_entry){.site = rig_sites[i], .version = 1};
		ck_assert_int_eq(demo_site(&x->demo, rig_sites[i], 1, rig_wall(rig) - day,
					   rig_wall(rig) + 300 * day, &x->documents[i], &err),
				 0);
	}
	ck_assert_int_eq(demo_revocations(&x->demo, 1, rig_wall(rig), rig_wall(rig) + day, entries,
					  RIG_SITES, &x->documents[RIG_SITES], &err),
			 0);
}

static void free_successor(struct successor *x)
{
	signing_key_free(x->demo.keys[0]);
	free(x->root);
	for (uint32_t i = 0; i <= RIG_SITES; i++)
		free(x->documents[i]);
}

/* What the lost key signed is void at once, for nodes and hosts, over a restart too; certificates
 * of the same versions, signed again, count. */
START_TEST(a_lost_key_makes_certificates_void)
{
	struct successor x;
	struct peer *h;
	char *again;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	make_successor(&x, &rig->demo, 2);
	ck_assert_msg(put_root(x.root, NULL, 0) == 0, "%s", admin->text);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, -E_DENIED);
	for (int i = 0; i < 3; i++)
		ck_assert_int_ne(ask_lease(nodes[i],
					   i == 0   ? "n1"
					   : i == 1 ? "n2"
						    : "n3",
					   rig_sites[i], (uint8_t)(i + 1), 0),
				 0);
	ck_assert_int_eq(ask_site_add(admin, rig->sites[0]), -E_BAD_SIGNATURE);
	again = rig_snapshot(rig, NULL, 0, 86400);
	ck_assert_int_eq(ask_revocations(admin, again), -E_BAD_SIGNATURE);
	restart(false);
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	for (size_t i = 0; i < admin->reply->volume_get_reply->n_verdicts; i++)
		ck_assert(!admin->reply->volume_get_reply->verdicts[i]->eligible);
	for (uint32_t i = 0; i < RIG_SITES; i++)
		ck_assert_msg(ask_site_add(admin, x.documents[i]) == 0, "%s", admin->text);
	/* It was version 2 and higher before: that is forgotten with the key. */
	ck_assert_msg(ask_revocations(admin, x.documents[RIG_SITES]) == 0, "%s", admin->text);
	ck_assert_int_eq(peer_connect(nodes[0], "node", "n1"), 0);
	ck_assert_int_eq(ask_lease(nodes[0], "n1", "par", 1, 0), 0);
	ck_assert_uint_gt(nodes[0]->reply->lease_reply->site_certificate.len +
			      nodes[0]->reply->lease_reply->root.len,
			  0);
	ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
	ck_assert_msg(ask_renew(h, 1, 1) == 0, "%s", h->text);
	ck_assert_uint_gt(h->reply->renew_reply->root.len, 0);
	ck_assert_int_eq(ask_renew(h, 1, 1), 0);
	ck_assert_uint_eq(h->reply->renew_reply->root.len, 0); /* once */
	free(again);
	free_successor(&x);
}
END_TEST

/* The tenant's key is lost: what it signed is void. A preset of the same name, which the tenant had
 * tightened, does not come back with the next start. */
START_TEST(a_void_policy_is_no_preset_again)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct demo next = rig->demo;
	struct error err;
	struct peer *h;
	char *root;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(put_policy(2, "[\"FR-IDF\"]", true), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	ck_assert_int_eq(signing_key_generate("tenant-2", &next.keys[3], &err), 0);
	ck_assert_int_eq(demo_root_after(&rig->demo, &next, 2, rig_wall(rig) - day,
					 rig_wall(rig) + 300 * day, &root, &err),
			 0);
	ck_assert_msg(put_root(root, NULL, 0) == 0, "%s", admin->text);
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	ck_assert_int_eq(ask_resize(admin, "v", 2 * SIZE), -E_DENIED);
	ck_assert_msg(strstr(admin->text, "not in force") != NULL, "%s", admin->text);
	for (int forgets = 0; forgets < 2; forgets++) {
		restart(forgets != 0);
		ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
		ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	}
	signing_key_free(next.keys[3]);
	free(root);
}
END_TEST

/* A root with the same keys, and one of the tenant's beside the first. Freed by the caller. */
static char *root_of_two_tenants(struct signing_key *second)
{
	static const char role[] = "\"tenant\": {", list[] = "\"keys\": {",
			  first[] = "\"version\": 1";
	struct signing_key *keys[] = {demo_key(&rig->demo, DEMO_AUTHORITY),
				      demo_key(&rig->demo, DEMO_AUDITOR)};
	struct dsse_envelope *e;
	struct error err;
	char pem[256] = "", *lines = signing_key_public_pem(second), *json, *envelope;
	const char *text, *version, *at, *names;
	size_t size, length = 0;

	for (const char *p = lines; *p != '\0'; p++)
		length += (size_t)snprintf(pem + length, sizeof pem - length,
					   *p == '\n' ? "\\n" : "%c", *p);
	ck_assert_int_eq(dsse_parse(rig->root, strlen(rig->root), &e, &err), 0);
	text = dsse_payload(e, &size);
	version = memmem(text, size, first, strlen(first));
	at = memmem(text, size, list, strlen(list));
	names = memmem(text, size, role, strlen(role));
	ck_assert(version != NULL && at > version && names > at);
	names = strchr(names, '[') + 1;
	at += strlen(list);
	ck_assert_int_gt(
	    asprintf(&json,
		     "%.*s\"version\": 2%.*s\"%s\": {\"alg\": \"ed25519\", \"public\": \"%s\"},"
		     "%.*s\"%s\", %.*s",
		     (int)(version - text), text, (int)(at - version - (int)strlen(first)),
		     version + strlen(first), signing_key_id(second), pem, (int)(names - at), at,
		     signing_key_id(second), (int)(text + size - names), names),
	    0);
	ck_assert_int_eq(dsse_sign(TYPE_ROOT, json, strlen(json), keys, 2, &envelope, &err), 0);
	dsse_free(e);
	free(lines);
	free(json);
	return envelope;
}

/* What the operator has tightened stands on what the tenant signed, and is void with that: whether
 * the driver was started before (1) or after (2) the root that makes it so, and whether the tenant
 * has kept another key (4). */
START_TEST(a_tightened_policy_falls_with_what_it_tightens)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct demo next = rig->demo;
	struct error err;
	struct peer *h;
	char *root, *both;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(signing_key_generate("tenant-2", &next.keys[3], &err), 0);
	both = root_of_two_tenants(next.keys[3]);
	ck_assert_int_eq(demo_root_after(&rig->demo, &next, 3, rig_wall(rig) - day,
					 rig_wall(rig) + 300 * day, &root, &err),
			 0);
	if ((_i & 4) != 0)
		ck_assert_msg(put_root(both, NULL, 0) == 0, "%s", admin->text);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(put_policy(2, "[\"FR-metropolitan\"]", true), 0);
	ck_assert_int_eq(put_policy(3, "[\"FR-IDF\", \"FR-ARA\"]", false), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	if ((_i & 1) != 0) {
		restart(false);
		ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
		ck_assert_msg(ask_renew(h, 1, 1) == 0, "%s", h->text);
	}
	ck_assert_msg(put_root(root, NULL, 0) == 0, "%s", admin->text);
	if ((_i & 2) != 0) {
		restart(false);
		ck_assert_int_eq(peer_connect(h, "host", "h"), 0);
	}
	ck_assert_int_eq(ask_renew(h, 1, 1), -E_DENIED);
	signing_key_free(next.keys[3]);
	free(root);
	free(both);
}
END_TEST

/* With what was signed again beside it nothing is without evidence for a moment. */
START_TEST(a_root_comes_with_what_is_reissued)
{
	struct successor x;
	struct peer *h;

	rig_three(rig, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(rig, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	make_successor(&x, &rig->demo, 2);
	ck_assert_msg(put_root(x.root, x.documents, RIG_SITES + 1) == 0, "%s", admin->text);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(h->notice_status, 0);
	ck_assert_uint_eq(h->notice.node_count, 3);
	ck_assert_int_eq(put_root(x.root, NULL, 0), 0); /* the same again */
	ck_assert_int_ne(put_root(rig->root, NULL, 0), 0);
	free_successor(&x);
}
END_TEST

/* A root that does not know this driver's key would silence it. */
START_TEST(a_root_without_the_drivers_key_is_refused)
{
	const int64_t day = 86400 * (int64_t)NS_PER_S;
	struct demo next = rig->demo;
	struct error err;
	char *root;

	ck_assert_int_eq(signing_key_generate("placement-2", &next.keys[2], &err), 0);
	ck_assert_int_eq(demo_root_after(&rig->demo, &next, 2, rig_wall(rig) - day,
					 rig_wall(rig) + day, &root, &err),
			 0);
	ck_assert_int_eq(put_root(root, NULL, 0), -E_IN_USE);
	ck_assert_ptr_nonnull(strstr(admin->text, "placement-1"));
	ck_assert_uint_eq(root_version(trust_root(rig->trust)), 1);
	signing_key_free(next.keys[2]);
	free(root);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement evidence");
	TCase *t = tcase_create("evidence");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, evidence_is_verified);
	tcase_add_test(t, two_contents_are_quarantined);
	tcase_add_test(t, two_snapshots_of_one_version);
	tcase_add_test(t, newer_certificate);
	tcase_add_test(t, policy_is_put);
	tcase_add_test(t, min_acks_of_volumes_follow_the_policy);
	tcase_add_test(t, fewer_copies_are_for_new_volumes);
	tcase_add_test(t, the_operator_may_only_tighten);
	tcase_add_test(t, policies_are_told);
	tcase_add_test(t, two_contents_of_a_policy);
	tcase_add_test(t, a_lost_key_makes_certificates_void);
	tcase_add_test(t, a_void_policy_is_no_preset_again);
	tcase_add_loop_test(t, a_tightened_policy_falls_with_what_it_tightens, 0, 8);
	tcase_add_test(t, a_root_comes_with_what_is_reissued);
	tcase_add_test(t, a_root_without_the_drivers_key_is_refused);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
