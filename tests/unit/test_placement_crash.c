/* The driver crashes at every commit, with every outcome of what was in flight: what it has
 * answered is never taken back, and no two generations may ever write at once. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/placement/family.h"
#include "tests/unit/test_placement_rig.h"

#define SIZE (256ull << 20)

/* What hosts hold, by the permits that they were given. */
struct book {
	generation_t generation; /* the newest that was given */
	uint64_t serial;	 /* of its last permit */
	int64_t bound;		 /* the latest expiry of any permit of a generation before it */
	int64_t newest_bound;	 /* of the newest itself */
	bool created, deleted, released;
};

static void note(struct book *b, struct peer *p)
{
	struct permit permit = reply_permit(p);

	if (permit.generation != b->generation) {
		ck_assert_uint_gt(permit.generation, b->generation);
		if (!b->released)
			b->bound = MAX(b->bound, b->newest_bound);
		b->generation = permit.generation;
		b->newest_bound = 0;
		b->serial = 0;
		b->released = false;
	}
	ck_assert_uint_gt(permit.serial, b->serial);
	/* I4: it serves nothing while an older permit may live. */
	if (b->bound > permit.issued_at)
		ck_assert_int_ge(permit.serve_after, b->bound);
	b->serial = permit.serial;
	b->newest_bound = MAX(b->newest_bound, permit.expires_at);
	permit_deinit(&permit);
}

/* Reconnects whoever lost the driver. False: it is down. */
static bool back(struct rig *r, struct peer *p, const char *role)
{
	if (r->pd == NULL)
		return false;
	if (p->conn == NULL || p->closed)
		return peer_connect(p, role, "x") == 0;
	return true;
}

static void lease_all(struct rig *r, struct peer *nodes[3])
{
	static const char *const names[] = {"n1", "n2", "n3"};

	for (uint32_t i = 0; i < 3; i++)
		if (back(r, nodes[i], "node"))
			ask_lease(nodes[i], names[i], rig_sites[i], (uint8_t)(i + 1), 0);
}

/* One run of everything that changes the register; any step may meet the crash. */
static void run(struct rig *r, struct peer *admin, struct peer *nodes[3], struct peer *hosts[2],
		struct book *b)
{
	lease_all(r, nodes);
	if (!b->created && back(r, admin, "admin"))
		b->created = ask_create(admin, "v", SIZE, "") == 0 || admin->status == -EEXIST;
	for (int i = 0; i < 2 && b->created && !b->deleted; i++) {
		if (back(r, hosts[i], "host") && ask_attach(hosts[i], "v", "h", "par") == 0)
			note(b, hosts[i]);
		rig_run_ms(r, 500);
		if (back(r, hosts[i], "host") && ask_renew(hosts[i], 1, b->generation) == 0)
			note(b, hosts[i]);
	}
	/* Whoever asks has let go, whether the driver comes to know it or not. */
	if (back(r, hosts[1], "host") && b->generation != 0) {
		b->released = true;
		ask_detach(hosts[1], 1, b->generation);
	}
	if (back(r, admin, "admin"))
		rig_revoke(r, admin, "rbx", rig_wall(r) - 1);
	if (back(r, admin, "admin"))
		rig_revoke(r, admin, NULL, 0);
	lease_all(r, nodes);
}

static void crash_at(uint64_t n, enum sim_io_action how, enum sim_fate fate, bool *ret_reached)
{
	struct rig *r = rig_create(n * 31 + (uint64_t)how);
	struct peer *admin = peer_new(r, "admin", "x");
	struct peer *nodes[3];
	struct peer *hosts[2];
	struct book b = {0};
	uint64_t crashes;

	rig_three(r, admin, nodes);
	hosts[0] = peer_new(r, "host", "h1");
	hosts[1] = peer_new(r, "host", "h2");
	r->pd_process->fate = fate;
	crashes = r->world->crash_count;
	sim_kv_on_commit(r->kv, n, how);
	run(r, admin, nodes, hosts, &b);
	*ret_reached = r->world->crash_count > crashes;
	if (*ret_reached) {
		rig_run_ms(r, 200);
		rig_pd_start(r);
		for (uint32_t i = 0; i < r->peer_count; i++)
			if (r->peers[i].conn != NULL) /* a machine without power says nothing */
				peer_close(&r->peers[i]);
		run(r, admin, nodes, hosts, &b);
		ck_assert(b.created && b.generation >= 2);
		ck_assert(back(r, admin, "admin"));
		ck_assert_int_eq(ask_volume(admin, "v"), 0);
		ck_assert_uint_eq(admin->reply->volume_get_reply->info->id, 1);
		ck_assert_uint_eq(admin->reply->volume_get_reply->info->generation, b.generation);
		ck_assert_uint_eq(admin->reply->volume_get_reply->map.len, 12);
	}
	rig_destroy(r);
}

START_TEST(every_commit)
{
	static const enum sim_io_action hows[] = {SIM_IO_KILL, SIM_IO_POWER_LOSS};
	static const enum sim_fate fates[] = {SIM_FATE_KEEP, SIM_FATE_DROP};
	uint64_t n;
	bool reached = true;

	for (n = 1; reached; n++)
		crash_at(n, hows[_i % 2], fates[_i / 2], &reached);
	ck_assert_uint_gt(n, 8); /* or the loop tested nothing */
}
END_TEST

/* -- an end in the midst of everything ----------------------------------------------------------
 */

static void start(struct peer *p, Pave__V1__Control *m, Pave__V1__Control__BodyCase body)
{
	m->body_case = body;
	peer_ask_start(p, m);
}

/* What takes a worker, other peers, time, or another request; nobody is answered yet. */
static void begin_everything(struct peer *admins[4])
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LedgerRead ledger = PAVE__V1__LEDGER_READ__INIT;
	Pave__V1__RebalancePlan plan = PAVE__V1__REBALANCE_PLAN__INIT;

	start_snapshot(admins[0], "u", "s");
	start_volume_detach(admins[1], "v");
	plan.balance = true;
	m.rebalance_plan = &plan;
	start(admins[2], &m, PAVE__V1__CONTROL__BODY_REBALANCE_PLAN);
	ledger.from = 1;
	m.ledger_read = &ledger;
	start(admins[3], &m, PAVE__V1__CONTROL__BODY_LEDGER_READ);
}

/* A driver that leads no more ends, whatever waits for it, and whether the register still takes
 * anything; its process goes on. (Leaks are the address sanitizer's to find.) */
START_TEST(an_end_amid_everything)
{
	struct rig *r = rig_create(7);
	struct peer *admins[4], *nodes[3], *hosts[2];

	for (uint32_t i = 0; i < 4; i++)
		admins[i] = peer_new(r, "admin", "x");
	rig_three(r, admins[0], nodes);
	for (uint32_t i = 0; i < 2; i++)
		hosts[i] = peer_new(r, "host", "h");
	ck_assert_int_eq(ask_create(admins[0], "v", SIZE, ""), 0);
	ck_assert_int_eq(ask_create(admins[0], "u", SIZE, ""), 0);
	ck_assert_int_eq(ask_create(admins[0], "w", SIZE, ""), 0);
	ck_assert_int_eq(ask_attach(hosts[0], "v", "h", "par"), 0);
	ck_assert_int_eq(ask_attach(hosts[1], "u", "h", "par"), 0);
	nodes[0]->erase_hold = true;
	ck_assert_int_eq(ask_delete(admins[0], "w"), 0);
	rig_run_ms(r, 1500);
	ck_assert_uint_ne(nodes[0]->erase_held, 0);
	begin_everything(admins);
	sim_run_for(r->world, NS_PER_MS / 8 * (unsigned)_i);
	if (_i % 2 == 1)
		sim_kv_on_commit(r->kv, 1, SIM_IO_FAIL);
	rig_pd_end(r);
	rig_destroy(r);
}
END_TEST

/* -- a register that is damaged --------------------------------------------------------------- */

struct record {
	uint32_t family;
	uint8_t key[80];
	size_t key_size;
	uint8_t *value;
	size_t value_size;
};

struct records {
	struct record all[32];
	uint32_t count, family;
};

static int take_record(const void *key, size_t key_size, const void *value, size_t value_size,
		       void *arg)
{
	struct records *rs = arg;
	struct record *r = &rs->all[rs->count++];

	ck_assert_uint_le(rs->count, ARRAY_SIZE(rs->all));
	ck_assert_uint_le(key_size, sizeof r->key);
	r->family = rs->family;
	memcpy(r->key, key, key_size);
	r->key_size = key_size;
	r->value = malloc(value_size + 1);
	memcpy(r->value, value, value_size);
	r->value_size = value_size;
	return 0;
}

static bool put_done;

static void on_put(struct kv_op *op, int status)
{
	(void)op;
	ck_assert_int_eq(status, 0);
	put_done = true;
}

/* Writes the record as data, behind the driver's back; value_size 0: removes it. */
static void put(struct rig *r, const struct record *record, const void *data, size_t size)
{
	static struct kv_op op;
	struct kv *kv;
	struct kv_batch *batch;

	sim_process_start(r->pd_process);
	kv = sim_kv_open(r->kv);
	batch = kv_batch_create(kv);
	if (size > 0)
		kv_batch_put(kv, batch, record->family, record->key, record->key_size, data, size);
	else
		kv_batch_delete(kv, batch, record->family, record->key, record->key_size);
	put_done = false;
	op.done = on_put;
	kv_commit(kv, batch, &op);
	ck_assert(sim_run_flag(r->world, &put_done));
	sim_process_crash(r->pd_process, SIM_KILL);
}

/* Starts the driver on it: it starts, or says why not. */
static int try_start(struct rig *r)
{
	struct error err = {0};
	int rc = rig_pd_try(r, &err);

	if (rc != 0) {
		ck_assert_int_eq(rc, err.code);
		ck_assert_str_ne(err.text, "");
	}
	sim_process_crash(r->pd_process, SIM_KILL);
	r->pd = NULL;
	return rc;
}

START_TEST(damaged_register)
{
	static struct records rs;
	struct rig *r = rig_create(3);
	struct peer *admin = peer_new(r, "admin", "x");
	struct peer *nodes[3];
	struct peer *h;
	uint32_t refused = 0;
	struct kv *kv;

	rig_three(r, admin, nodes);
	ck_assert_int_eq(ask_create(admin, "v", SIZE, ""), 0);
	h = peer_new(r, "host", "h");
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	ck_assert_int_eq(ask_attach(h, "v", "h", "par"), 0);
	rig_pd_crash(r, SIM_KILL);
	sim_process_start(r->pd_process);
	kv = sim_kv_open(r->kv);
	for (rs.family = 0; rs.family < PD_KV_FAMILIES; rs.family++)
		ck_assert_int_eq(kv_scan(kv, rs.family, "", 0, take_record, &rs), 0);
	sim_process_crash(r->pd_process, SIM_KILL);
	ck_assert_uint_ge(rs.count, 1 + 4 + 1 + 1 + 3);
	for (uint32_t i = 0; i < rs.count; i++) {
		struct record *record = &rs.all[i];
		uint8_t *copy = malloc(record->value_size + 1);

		for (uint32_t n = 0; n < 40; n++) {
			size_t size = record->value_size;

			memcpy(copy, record->value, size);
			if (n == 0)
				size = 0;
			else if (n < 10)
				size = (size_t)sim_random_below(r->world, size) + 1;
			else
				copy[sim_random_below(r->world, size)] ^=
				    (uint8_t)sim_random_range(r->world, 1, 255);
			put(r, record, copy, size);
			refused += try_start(r) != 0;
		}
		put(r, record, record->value, record->value_size);
		free(copy);
		free(record->value);
	}
	ck_assert_uint_gt(refused, 100);
	ck_assert_int_eq(try_start(r), 0);
	rig_destroy(r);
}
END_TEST

START_TEST(register_of_another_cluster)
{
	struct rig *r = rig_create(3);
	struct trust *own = r->trust;
	struct demo other;
	struct error err = {0};
	char *root;

	rig_run_ms(r, 100);
	rig_pd_crash(r, SIM_KILL);
	ck_assert_int_eq(demo_init(&other, NULL, &err), 0);
	ck_assert_int_eq(
	    demo_root(&other, 1, rig_wall(r) - (int64_t)NS_PER_S, rig_wall(r) * 2, &root, &err), 0);
	ck_assert_int_eq(trust_open(NULL, root, strlen(root), &r->trust, &err), 0);
	ck_assert_int_eq(rig_pd_try(r, &err), -E_WRONG_CLUSTER);
	sim_process_crash(r->pd_process, SIM_KILL);
	trust_close(r->trust);
	r->trust = own;
	free(root);
	demo_deinit(&other);
	ck_assert_int_eq(try_start(r), 0);
	rig_destroy(r);
}
END_TEST

/* Beside each volume in the list stand those of its family that were made before and after it, and
 * are there. Returns how many have neither. */
static uint32_t check_families(struct reg *reg)
{
	uint32_t alone = 0;

	for (struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next) {
		struct reg_volume *before = NULL, *after = NULL;

		for (struct reg_volume *w = reg->volumes; w != NULL && !v->deleted;
		     w = w->hh.next) {
			if (w->deleted || family_of(w) != family_of(v))
				continue;
			if (w->id < v->id && (before == NULL || w->id > before->id))
				before = w;
			if (w->id > v->id && (after == NULL || w->id < after->id))
				after = w;
		}
		ck_assert_ptr_eq(v->kin_prev, before);
		ck_assert_ptr_eq(v->kin_next, after);
		alone += !v->deleted && before == NULL && after == NULL;
	}
	return alone;
}

/* Who stands on the layers of a volume is known after a crash too: what they need there is never
 * erased. */
START_TEST(families_are_found_again)
{
	struct rig *r = rig_create(4);
	struct peer *admin = peer_new(r, "admin", "x"), *nodes[3];
	struct reg_node **places;
	struct reg_volume *v, *w;
	struct reg reg;
	uint8_t *map;

	rig_three(r, admin, nodes);
	/* Each is made amid the others' snapshots. */
	ck_assert_int_eq(ask_create(admin, "a", SIZE, ""), 0);
	ck_assert_int_eq(ask_create(admin, "b", SIZE, ""), 0);
	for (uint32_t i = 0; i < 4; i++) {
		ck_assert_int_eq(ask_snapshot(admin, i % 2 == 0 ? "b" : "a", i < 2 ? "s" : "t"), 0);
		if (i == 1)
			ck_assert_int_eq(ask_create(admin, "c", SIZE, ""), 0);
	}
	ck_assert_int_eq(ask_clone(admin, "a@s", "d"), 0);
	ck_assert_int_eq(ask_delete(admin, "a@t"), 0);
	rig_pd_load(r, &reg);
	v = reg_volume_find(&reg, "a");
	ck_assert_uint_eq(check_families(&reg), 1); /* c */
	ck_assert_ptr_eq(v->kin_next, reg_volume_find(&reg, "a@s"));
	ck_assert_ptr_eq(v->kin_next->kin_next, reg_volume_find(&reg, "d"));
	/* From then on it stays so. */
	places = calloc(3, sizeof(struct reg_node *));
	memcpy(places, v->nodes, 3 * sizeof(struct reg_node *));
	map = malloc((size_t)v->chunk_count * v->replicas);
	memcpy(map, v->map, (size_t)v->chunk_count * v->replicas);
	w = reg_volume_add(&reg, "e", v->chunk_count, v->replicas, v->chunk_size, places, 3, map);
	reg_volume_join(w, reg_volume_find(&reg, "a@s"));
	ck_assert_uint_eq(family_of(w), v->id);
	ck_assert_uint_eq(check_families(&reg), 1);
	ck_assert_int_eq(reg_volume_bury(&reg, reg_volume_find(&reg, "d")), 0);
	check_families(&reg);
	ck_assert_int_eq(reg_volume_bury(&reg, v), 0);
	check_families(&reg);
	ck_assert_int_eq(reg_volume_bury(&reg, w), 0);
	ck_assert_uint_eq(check_families(&reg), 2); /* the last one is alone now */
	reg_deinit(&reg);
	rig_destroy(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement_crash");
	TCase *t = tcase_create("crash");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 280);
	tcase_add_loop_test(t, every_commit, 0, 4);
	tcase_add_loop_test(t, an_end_amid_everything, 0, 40);
	tcase_add_test(t, damaged_register);
	tcase_add_test(t, register_of_another_cluster);
	tcase_add_test(t, families_are_found_again);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
