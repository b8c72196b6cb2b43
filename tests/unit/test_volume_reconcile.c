/* Reconciling a chunk of which a replica cannot read what it holds. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/unit/test_volume_rig.h"

static struct rig *rig;
static struct rig_host *host;

static void setup(void)
{
	rig = rig_create(1);
	host = &rig->hosts[0];
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 40, 8, 6), 0);
	rig_run_ms(rig, 3000);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* As a write of a host that died, which came to these nodes alone. */
static void put(uint32_t nodes, uint32_t stamp)
{
	for (uint32_t n = 0; n < RIG_NODES; n++)
		for (uint32_t i = 0; (nodes & 1u << n) != 0 && i < 8; i++)
			fake_put(&rig->nodes[n], 40 + i, version_make(1, 77), stamp);
}

static void damage(uint32_t node, uint64_t block)
{
	rig->nodes[node].corrupt_block = block;
	rig->nodes[node].has_corrupt_block = true;
}

/* The next attachment serves the chunk, with the block as it was written by that stamp, and its
 * blocks are the same everywhere. */
static void must_serve(uint64_t block, uint32_t stamp)
{
	const uint64_t begun_ns = rig->world->now_ns;

	rig_crash_host(host);
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 4, 1, 41), 0);
	ck_assert_uint_lt(rig->world->now_ns - begun_ns, 20 * NS_PER_S);
	rig_must_read(host, block, 1, stamp);
	rig_run_ms(rig, 10000);
	for (uint32_t n = 0; n < RIG_NODES; n++)
		ck_assert(!rig->nodes[n].has_corrupt_block);
	rig_must_agree(rig);
}

/* It was never acknowledged, for the two others do not have it. */
START_TEST(what_one_alone_has_and_cannot_read_keeps_no_other)
{
	put(1, 9);
	damage(0, 42);
	must_serve(42, 6);
}
END_TEST

/* It may have been: it is read from both together. */
START_TEST(each_holder_has_a_bad_block_of_its_own)
{
	put(3, 9);
	damage(0, 41);
	damage(1, 43);
	must_serve(41, 9);
	rig_must_read(host, 40, 8, 9);
}
END_TEST

/* What two have may have been acknowledged: as long as neither gives it the chunk waits, and what
 * is older is not taken for it. */
START_TEST(what_may_have_been_acknowledged_is_waited_for)
{
	struct rig_op o;

	put(3, 9);
	damage(0, 42);
	damage(1, 42);
	rig_crash_host(host);
	rig_open(host);
	rig_start_read(host, &o, 40, 8);
	rig_run_ms(rig, 4000);
	ck_assert(!o.done);
	rig->nodes[1].has_corrupt_block = false; /* it was the way there */
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 42, 1, 9);
	rig_run_ms(rig, 10000);
	ck_assert(!rig->nodes[0].has_corrupt_block);
	rig_must_agree(rig);
}
END_TEST

/* A node loses its disk, and before it has all again another one is away, so that it and one that
 * was behind are a majority: what it had answered for is waited for. */
START_TEST(what_is_known_to_be_lost_is_no_majority)
{
	struct fake_node *n = &rig->nodes[0];
	struct rig_op o;

	rig_crash_host(host);
	fake_crash(&rig->nodes[2]);
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 40, 8, 9), 0);
	rig_run_ms(rig, 3000);
	n->hold_pulls = true;
	fake_crash(n);
	for (uint32_t i = 0; i < 8; i++) {
		free(n->chunks[0].blocks[40 + i].data);
		n->chunks[0].blocks[40 + i] = (struct fake_block){0};
	}
	n->chunks[0].watermark = 0;
	fake_start(n);
	rig_run_ms(rig, 3000);
	fake_crash(&rig->nodes[1]);
	fake_start(&rig->nodes[2]);
	rig_start_read(host, &o, 40, 8);
	rig_run_ms(rig, 4000);
	ck_assert(!o.done);
	n->hold_pulls = false;
	fake_start(&rig->nodes[1]);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 40, 8, 9);
	rig_run_ms(rig, 10000);
	rig_must_agree(rig);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("volume reconcile");
	TCase *tc = tcase_create("reconcile");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_one_alone_has_and_cannot_read_keeps_no_other);
	tcase_add_test(tc, each_holder_has_a_bad_block_of_its_own);
	tcase_add_test(tc, what_may_have_been_acknowledged_is_waited_for);
	tcase_add_test(tc, what_is_known_to_be_lost_is_no_majority);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
