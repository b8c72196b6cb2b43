/* Snapshots, a clone, the merge of what a deleted snapshot leaves, the seal that the only one's
 * wants, rollback, resize and deletion, with the driver crashing at every commit, with every
 * outcome of what was in flight; and with each of its allocations failing once. What it has
 * answered is never taken back; no permit ever names a layer that somebody was told to erase; in
 * the end everything is erased. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc_fail.h"
#include "engine/placement/layers.h"
#include "tests/unit/loops.h"
#include "tests/unit/test_placement_rig.h"

#define SIZE	      (64ull << 20)
#define LARGER	      (192ull << 20)
#define TRIES_MAX     8u
#define RUNS_MAX      6000u
#define LAYER_BIT(id) (1ull << ((id)&63))

struct story;
typedef int phase(struct story *s); /* 0, or what failed */

/* What the hosts and the admin know, whatever becomes of the driver. */
struct story {
	struct rig *rig;
	struct peer *admin, *host, *nodes[3];
	uint32_t number;      /* part of the volumes' names */
	uint32_t tale, phase; /* the next */
	volume_id_t volume, top;
	volume_id_t old_top; /* that is to be sealed, or not */
	generation_t generation;
	bool attached, rolled_back;
	bool bits; /* there are so few layers that each has a bit of its own */
	uint64_t layers;
	char text[NAME_SIZE_MAX];
};

static const char *name(struct story *s, const char *what)
{
	snprintf(s->text, sizeof s->text, "v%u%s", s->number, what);
	return s->text;
}

/* -- what must hold --------------------------------------------------------------------------- */

static void note(struct story *s, const struct permit *p)
{
	bool found = s->top == 0 || s->rolled_back;

	s->volume = p->volume;
	s->generation = p->generation;
	for (uint32_t i = 0; i < p->layer_count; i++) {
		found = found || p->layers[i].id == s->top;
		s->layers |= LAYER_BIT(p->layers[i].id);
		for (uint32_t n = 0; n < 3 && s->bits; n++)
			ck_assert_msg((s->nodes[n]->erased_layers & LAYER_BIT(p->layers[i].id)) ==
					  0,
				      "a permit names layer %lu, which %s was told to erase",
				      p->layers[i].id, rig_sites[n]);
	}
	/* What was written to it would be lost. */
	ck_assert_msg(found, "layer %lu, which took writes, is no layer of the volume any more",
		      s->top);
	if (p->layers[0].id != s->top)
		s->rolled_back = false;
	s->top = p->layers[0].id;
}

/* Notes the permit in the last answer; the open layer below the top in *ret_settling, 0: none. */
static void note_reply(struct story *s, volume_id_t *ret_settling)
{
	struct permit p = reply_permit(s->host);

	note(s, &p);
	*ret_settling = p.layer_count > 1 && p.layers[1].open ? p.layers[1].id : 0;
	permit_deinit(&p);
}

/* -- phases ----------------------------------------------------------------------------------- */

/* Who lost the driver connects again. 0, or why not. */
static int back(struct story *s)
{
	static const char *const node_names[] = {"n1", "n2", "n3"};
	int rc = s->rig->pd == NULL ? -E_DISCONNECTED : 0;

	if (rc == 0 && (s->admin->conn == NULL || s->admin->closed))
		rc = peer_connect(s->admin, "admin", "x");
	if (rc == 0 && (s->host->conn == NULL || s->host->closed))
		rc = peer_connect(s->host, "host", "h");
	for (uint32_t i = 0; i < 3 && rc == 0; i++) {
		if (s->nodes[i]->conn == NULL || s->nodes[i]->closed)
			rc = peer_connect(s->nodes[i], "node", node_names[i]);
		if (rc == 0)
			rc = ask_lease(s->nodes[i], node_names[i], rig_sites[i], (uint8_t)(i + 1),
				       0);
	}
	return rc;
}

static int renew(struct story *s, volume_id_t sealed, volume_id_t *ret_settling)
{
	int rc = renew_sealed(s->host, s->volume, s->generation, sealed);

	if (rc == 0)
		note_reply(s, ret_settling);
	return rc;
}

/* Time passes, with leases and renewals. */
static int live_by(struct story *s, unsigned seconds, unsigned step)
{
	volume_id_t settling = 0;
	int rc = 0;

	for (unsigned i = 0; i < seconds && rc == 0; i += step) {
		rig_run_ms(s->rig, step * 1000);
		rc = back(s);
		if (rc == 0 && s->attached)
			rc = renew(s, settling, &settling);
	}
	return rc;
}

static int live(struct story *s, unsigned seconds)
{
	return live_by(s, seconds, 1);
}

static int create(struct story *s)
{
	int rc = ask_create(s->admin, name(s, ""), SIZE, "");

	return rc == -EEXIST ? 0 : rc;
}

static int attach(struct story *s)
{
	volume_id_t settling;
	int rc = ask_attach(s->host, name(s, ""), "h", "par");

	if (rc != 0)
		return rc;
	note_reply(s, &settling);
	s->attached = true;
	return 0;
}

/* A snapshot of the attached volume; the host settles what is to be settled. */
static int snapshot(struct story *s, const char *snapshot_name)
{
	volume_id_t settling = 0;
	int rc, asked;

	start_snapshot(s->admin, name(s, ""), snapshot_name);
	rig_run_ms(s->rig, 500);
	rc = renew(s, 0, &settling);
	if (rc == 0 && settling != 0)
		rc = renew(s, settling, &settling);
	ck_assert(rc != 0 || settling == 0);
	asked = peer_ask_wait(s->admin);
	if (rc == 0)
		rc = asked;
	return rc == -EEXIST ? 0 : rc;
}

static int snapshot_1(struct story *s)
{
	return snapshot(s, "1");
}

static int snapshot_2(struct story *s)
{
	return snapshot(s, "2");
}

static int snapshot_3(struct story *s)
{
	return snapshot(s, "3");
}

static int clone(struct story *s)
{
	char source[NAME_SIZE_MAX];
	int rc;

	snprintf(source, sizeof source, "%s", name(s, "@1"));
	rc = ask_clone(s->admin, source, name(s, "-clone"));
	return rc == -EEXIST ? 0 : rc;
}

static int delete (struct story *s, const char *what)
{
	int rc = ask_delete(s->admin, name(s, what));

	return rc == -ENOENT ? 0 : rc;
}

static int delete_2(struct story *s)
{
	return delete (s, "@2");
}

static int stands_on(struct story *s, uint32_t layers, bool sealed)
{
	int rc = ask_volume(s->admin, name(s, ""));

	for (uint32_t i = 0; i < TRIES_MAX && rc == 0; i++) {
		if (s->admin->reply->volume_get_reply->info->n_layers == layers &&
		    (!sealed || s->top != s->old_top))
			return 0;
		rc = live(s, 6);
		if (rc == 0)
			rc = ask_volume(s->admin, name(s, ""));
	}
	ck_assert_msg(rc != 0, "the layers are not merged: %zu, not %u",
		      s->admin->reply->volume_get_reply->info->n_layers, layers);
	return rc;
}

static int is_merged(struct story *s)
{
	return stands_on(s, 3, false);
}

static int note_top(struct story *s)
{
	s->old_top = s->top;
	return 0;
}

static int a_long_while(struct story *s)
{
	return live_by(s, LAYERS_SEAL_AFTER_S, 5);
}

static int is_sealed(struct story *s)
{
	const int rc = stands_on(s, 2, true);

	if (rc == 0)
		s->old_top = s->top;
	return rc;
}

/* Whatever happened: there is one seal for a deletion. */
static int once(struct story *s)
{
	const int rc = live_by(s, 10, 5);

	if (rc == 0)
		ck_assert_uint_eq(s->top, s->old_top);
	return rc == 0 ? stands_on(s, 2, false) : rc;
}

/* So that what was merged is erased while the volume is attached. */
static int a_while(struct story *s)
{
	return live(s, 16);
}

static int detach(struct story *s)
{
	int rc = ask_detach(s->host, s->volume, s->generation);

	if (rc == -E_DISCONNECTED || rc == -ENOMEM)
		return rc;
	s->attached = false; /* or it had let go already */
	return 0;
}

static int roll_back(struct story *s)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeRollback r = PAVE__V1__VOLUME_ROLLBACK__INIT;

	r.source = (char *)(uintptr_t)name(s, "@3");
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_ROLLBACK;
	m.volume_rollback = &r;
	s->rolled_back = true;
	return peer_ask(s->admin, &m);
}

static int resize_to(struct story *s, uint64_t size)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeResize r = PAVE__V1__VOLUME_RESIZE__INIT;

	r.name = (char *)(uintptr_t)name(s, "");
	r.size = size;
	r.force = true;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_RESIZE;
	m.volume_resize = &r;
	return peer_ask(s->admin, &m);
}

static int resize(struct story *s)
{
	return resize_to(s, LARGER);
}

/* When nobody shares its layers any more. */
static int shrink(struct story *s)
{
	return resize_to(s, SIZE);
}

static int has_size(struct story *s, uint64_t size)
{
	int rc = ask_volume(s->admin, name(s, ""));

	if (rc == 0) {
		ck_assert_uint_eq(s->admin->reply->volume_get_reply->info->size, size);
		ck_assert_uint_eq(s->admin->reply->volume_get_reply->map.len, 3 * size / SIZE);
	}
	return rc;
}

static int is_larger(struct story *s)
{
	return has_size(s, LARGER);
}

static int is_smaller(struct story *s)
{
	return has_size(s, SIZE);
}

static int delete_clone(struct story *s)
{
	return delete (s, "-clone");
}

static int delete_3(struct story *s)
{
	return delete (s, "@3");
}

static int delete_1(struct story *s)
{
	return delete (s, "@1");
}

static int delete_all(struct story *s)
{
	return delete (s, "");
}

static bool all_erased(const struct story *s)
{
	for (uint32_t n = 0; n < 3; n++)
		if ((s->layers & ~s->nodes[n]->erased_layers) != 0)
			return false;
	return true;
}

static int nothing_is_left(struct story *s)
{
	int rc = 0;

	for (uint32_t i = 0; i < 2 * TRIES_MAX && rc == 0 && s->bits; i++) {
		if (all_erased(s))
			return 0;
		rc = live(s, 4);
	}
	ck_assert_msg(rc != 0 || !s->bits, "layers %lx were used, node n1 erased %lx", s->layers,
		      s->nodes[0]->erased_layers);
	return rc;
}

static phase *const family[] = {
    create,    attach,	  snapshot_1,	clone,		 snapshot_2, snapshot_3, delete_2,
    is_merged, a_while,	  detach,	roll_back,	 resize,     is_larger,	 attach,
    detach,    is_larger, delete_clone, delete_3,	 delete_1,   shrink,	 is_smaller,
    resize,    is_larger, delete_all,	nothing_is_left,
};

/* The only snapshot goes, and what the top hides with it. */
static phase *const alone[] = {
    create,    attach, snapshot_1, note_top, delete_1,	 a_long_while,
    is_sealed, once,   a_while,	   detach,   delete_all, nothing_is_left,
};

static const struct {
	phase *const *phases;
	uint32_t count;
} tales[] = {{family, ARRAY_SIZE(family)}, {alone, ARRAY_SIZE(alone)}};

/* From the phase in which it stopped. 0, or what failed. */
static int go_on(struct story *s)
{
	uint32_t waits = 0;
	int rc = back(s);

	while (rc == 0 && s->phase < tales[s->tale].count) {
		rc = tales[s->tale].phases[s->phase](s);
		/* An attachment of which nobody knows whether it was released runs out. */
		if (rc == -E_IN_USE && waits++ < TRIES_MAX) {
			rig_run_ms(s->rig, LIFETIME_MS / 2);
			rc = back(s);
		} else if (rc == 0) {
			s->phase++;
			waits = 0;
		}
	}
	return rc;
}

static void story_begin(struct story *s, struct rig *r, uint32_t number, uint32_t tale)
{
	*s = (struct story){.rig = r, .number = number, .tale = tale};
	s->admin = &r->peers[0];
	for (uint32_t n = 0; n < 3; n++) {
		s->nodes[n] = &r->peers[1 + n];
		s->nodes[n]->merge_has = 1;
		s->nodes[n]->merge_done = 0;
		s->nodes[n]->merge_blocks = 7;
		s->nodes[n]->merge_lower_whole = true;
	}
	s->host = &r->peers[4];
}

static struct rig *make(uint64_t seed)
{
	struct rig *r = rig_create(seed);
	struct peer *admin = peer_new(r, "admin", "x");
	struct peer *nodes[3];

	rig_three(r, admin, nodes);
	ck_assert(admin == &r->peers[0] && nodes[2] == &r->peers[3]);
	ck_assert(peer_new(r, "host", "h") == &r->peers[4]);
	return r;
}

/* -- crashes ---------------------------------------------------------------------------------- */

static void crash_at(uint64_t n, uint32_t tale, enum sim_io_action how, enum sim_fate fate,
		     bool *ret_reached)
{
	struct rig *r = make(n * 31 + (uint64_t)how);
	const uint64_t crashes = r->world->crash_count;
	struct story s;
	int rc;

	story_begin(&s, r, 1, tale);
	s.bits = true;
	r->pd_process->fate = fate;
	sim_kv_on_commit(r->kv, n, how);
	rc = go_on(&s);
	*ret_reached = r->world->crash_count > crashes;
	ck_assert_msg(*ret_reached || rc == 0, "phase %u: %d %s", s.phase, rc, s.admin->text);
	if (*ret_reached) {
		rig_run_ms(r, 200);
		rig_pd_start(r);
		for (uint32_t i = 0; i < r->peer_count; i++)
			if (r->peers[i].conn != NULL) /* a machine without power says nothing */
				peer_close(&r->peers[i]);
		rc = go_on(&s);
		ck_assert_msg(rc == 0, "commit %lu, phase %u: %d %s %s", n, s.phase, rc,
			      s.admin->text, s.host->text);
	}
	rig_destroy(r);
}

START_TEST(every_commit)
{
	static const enum sim_io_action hows[] = {SIM_IO_KILL, SIM_IO_POWER_LOSS};
	static const enum sim_fate fates[] = {SIM_FATE_KEEP, SIM_FATE_DROP};
	bool reached = true;
	uint64_t n;

	for (n = 1 + (uint64_t)_i % LOOP_STEP; reached; n += LOOP_STEP)
		crash_at(n, (uint32_t)_i / 4, hows[_i % 2], fates[_i / 2 % 2], &reached);
	ck_assert_uint_gt(n, 30); /* or the loop tested nothing */
}
END_TEST

/* -- memory ----------------------------------------------------------------------------------- */

/* The one that failed, once more where it stopped; then another from the beginning to the end. */
static int after(struct story *s, struct rig *r, bool failed)
{
	int rc = 0;

	for (uint32_t i = 0; i < TRIES_MAX && failed; i++) {
		rig_run_ms(r, LIFETIME_MS / 2);
		rc = go_on(s);
		failed = rc != 0;
	}
	return rc;
}

/* Whether the driver still writes to its register. */
static int probe(struct story *s)
{
	int rc = back(s);

	if (rc == 0)
		rc = ask_create(s->admin, name(s, "-probe"), SIZE, "");
	return rc == 0 ? ask_delete(s->admin, name(s, "-probe")) : rc;
}

START_TEST(any_allocation_may_fail)
{
	struct rig *r = make(1);
	uint64_t refused = 0, restarts = 0, n = 1;
	bool failed = true;

	for (; failed; n += LOOP_STEP) {
		struct story s;
		int rc;

		story_begin(&s, r, (uint32_t)n, (uint32_t)_i);
		/* So many are longer than a snapshot lives. */
		ck_assert_int_eq(rig_revoke(r, s.admin, NULL, 0), 0);
		alloc_fail_at(n);
		rc = go_on(&s);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert_msg(rc == 0 || failed, "phase %u: %d %s", s.phase, rc, s.admin->text);
		refused += rc != 0;
		rc = after(&s, r, rc != 0);
		if (rc == 0)
			rc = probe(&s);
		/* What cannot be written to the register ends the driver: it starts again. */
		if (rc != 0) {
			restarts++;
			rig_pd_crash(r, SIM_KILL);
			rig_pd_start(r);
			rc = after(&s, r, true);
		}
		ck_assert_msg(rc == 0, "allocation %lu, phase %u: %d %s%s", n, s.phase, rc,
			      s.admin->text, s.host->text);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, 100);
	ck_assert_uint_gt(refused, 20 / LOOP_STEP);
	ck_assert_uint_lt(restarts, n / LOOP_STEP / 2);
	rig_destroy(r);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("placement_families");
	TCase *tc = tcase_create("families");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 900);
	tcase_add_loop_test(tc, every_commit, 0, 4 * ARRAY_SIZE(tales));
	tcase_add_loop_test(tc, any_allocation_may_fail, 0, ARRAY_SIZE(tales));
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
