/* A host that prepares to take a volume over, and does so when it is told to. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_volume_rig.h"

static struct rig *rig;
static struct rig_host *first, *second;

static void setup(void)
{
	rig = rig_create(1);
	first = &rig->hosts[0];
	second = &rig->hosts[1];
	second->migrates = true;
	rig_open(first);
	ck_assert_int_eq(rig_write(first, 0, 8, 7), 0);
}

static void teardown(void)
{
	rig_destroy(rig);
}

static void prepare(void)
{
	rig_open_start(second);
	ck_assert(rig_wait(rig, &second->prepared, 5000));
}

/* The first host does what its owner does when it is asked to detach. */
static void let_go(void)
{
	ck_assert(rig_wait(rig, &first->ended, 5000));
	ck_assert_int_eq(first->ended_why, 0);
	rig_close(first);
}

static uint64_t connects(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < RIG_NODES; i++)
		sum += rig->nodes[i].connects;
	return sum;
}

START_TEST(it_is_prepared_and_disturbs_nobody)
{
	const uint64_t opens = rig->nodes[0].opens;

	prepare();
	ck_assert_uint_eq(connects(), 2 * RIG_NODES);
	rig_run_ms(rig, 60000); /* for as long as it likes */
	ck_assert(!second->opened);
	ck_assert(!first->ended);
	ck_assert_uint_eq(rig->pd.attaches, 1);
	ck_assert_uint_eq(rig->nodes[0].opens, opens);
	ck_assert_int_eq(rig_write(first, 0, 8, 9), 0);
}
END_TEST

START_TEST(it_takes_over_over_the_connections_that_are_there)
{
	struct rig_op o;
	uint64_t begun_ns, made;

	prepare();
	made = connects();
	rig_start_write(first, &o, 4, 2, 11); /* in flight when it is told */
	begun_ns = rig->world->now_ns;
	volume_take_over(&second->open);
	volume_take_over(&second->open);
	ck_assert_int_eq(rig_finish(&o), 0);
	let_go();
	ck_assert(rig_wait(rig, &second->opened, 5000));
	ck_assert_int_eq(second->open_status, 0);
	/* Nobody's permit had to run out. */
	ck_assert_uint_lt(rig->world->now_ns - begun_ns, rig->pd.lifetime_ms * NS_PER_MS / 2);
	ck_assert_uint_eq(connects(), made);
	ck_assert_uint_eq(rig->pd.attaches, 2);
	rig_must_read(second, 0, 4, 7);
	rig_must_read(second, 4, 2, 11);
	ck_assert_int_eq(rig_write(second, 0, 8, 12), 0);
}
END_TEST

/* Told before it was prepared, it goes all the way. */
START_TEST(it_may_be_told_early)
{
	rig_open_start(second);
	volume_take_over(&second->open);
	let_go();
	ck_assert(rig_wait(rig, &second->opened, 5000));
	ck_assert_int_eq(second->open_status, 0);
	rig_must_read(second, 0, 8, 7);
}
END_TEST

START_TEST(nodes_may_come_and_go_meanwhile)
{
	fake_crash(&rig->nodes[1]);
	prepare(); /* with two */
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 5000);
	fake_crash(&rig->nodes[2]);
	rig_run_ms(rig, 5000);
	volume_take_over(&second->open);
	let_go();
	ck_assert(rig_wait(rig, &second->opened, 20000));
	ck_assert_int_eq(second->open_status, 0);
	rig_must_read(second, 0, 8, 7);
}
END_TEST

/* It asks the driver anew, and the nodes for nothing. */
START_TEST(the_driver_may_come_and_go_meanwhile)
{
	const uint64_t opens = rig->nodes[0].opens;
	uint64_t made;

	prepare();
	made = connects();
	sim_net_disconnect(rig->pd.process, second->process);
	rig_run_ms(rig, 5000);
	ck_assert_uint_eq(rig->pd.prepares, 2);
	ck_assert_uint_eq(connects(), made);
	ck_assert_uint_eq(rig->nodes[0].opens, opens);
}
END_TEST

/* Nothing is sent to a node that the permit will not name. */
START_TEST(nodes_without_a_permit_are_left_alone)
{
	const uint64_t before = rig->nodes[2].connects;

	rig_permit(rig, 3);
	prepare();
	ck_assert_uint_eq(rig->nodes[2].connects, before);
	volume_take_over(&second->open);
	let_go();
	ck_assert(rig_wait(rig, &second->opened, 5000));
	rig_must_read(second, 0, 8, 7);
	ck_assert_uint_eq(rig->nodes[2].connects, before);
}
END_TEST

START_TEST(a_host_that_may_not_is_told_at_once)
{
	rig->pd.prepare_status = -E_DENIED;
	rig_open_start(second);
	ck_assert(rig_wait(rig, &second->opened, 5000));
	ck_assert_int_eq(second->open_status, -E_DENIED);
	ck_assert(!second->prepared);
	ck_assert_int_eq(rig_write(first, 0, 8, 9), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("volume migrate");
	TCase *tc = tcase_create("migrate");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, it_is_prepared_and_disturbs_nobody);
	tcase_add_test(tc, it_takes_over_over_the_connections_that_are_there);
	tcase_add_test(tc, it_may_be_told_early);
	tcase_add_test(tc, nodes_may_come_and_go_meanwhile);
	tcase_add_test(tc, the_driver_may_come_and_go_meanwhile);
	tcase_add_test(tc, nodes_without_a_permit_are_left_alone);
	tcase_add_test(tc, a_host_that_may_not_is_told_at_once);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
