/* Moves, as the host does them: the learner, the joint time, the change, what is left behind. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_volume_rig.h"

#define LEARNER 3u

static struct rig *rig;
static struct rig_host *host, *second;
static int vacate_status; /* 1: no answer yet */

static void setup(void)
{
	rig = rig_create(1);
	host = &rig->hosts[0];
	second = &rig->hosts[1];
	rig_open(host);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* Virtual time passes until the driver was asked for the change. */
static void wait_asked(uint64_t commits)
{
	for (unsigned i = 0; i < 20000 && rig->pd.commits < commits; i++)
		rig_run_ms(rig, 1);
	ck_assert_uint_ge(rig->pd.commits, commits);
}

static void wait_left(void)
{
	for (unsigned i = 0; i < 20000 && rig->pd.moving_reported != 0; i++)
		rig_run_ms(rig, 1);
	ck_assert_uint_eq(rig->pd.moving_reported, 0);
}

static void learner_must_agree(uint64_t block, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		ck_assert_uint_eq(fake_stamp(&rig->nodes[LEARNER], block + i),
				  fake_stamp(&rig->nodes[1], block + i));
}

START_TEST(a_chunk_moves)
{
	struct fake_node *old = &rig->nodes[0], *new = &rig->nodes[LEARNER];
	uint64_t writes;

	ck_assert_int_eq(rig_write(host, 0, 64, 7), 0);
	ck_assert_int_eq(rig_write(host, RIG_CHUNK_BLOCKS, 1, 8), 0);
	rig_move(rig, 0, 0, LEARNER);
	wait_asked(1);
	rig_run_ms(rig, 50);
	learner_must_agree(0, 64);
	ck_assert_uint_gt(new->chunks[0].watermark, 0);
	ck_assert_uint_eq(rig_stats(host).moves, 1);
	/* The old one gets nothing of the chunk any more, and goes on with the other. */
	writes = old->writes;
	ck_assert_int_eq(rig_write(host, 1, 1, 9), 0);
	rig_run_ms(rig, 10);
	ck_assert_uint_eq(old->writes, writes);
	ck_assert_uint_eq(fake_stamp(new, 1), 9);
	ck_assert_int_eq(rig_write(host, RIG_CHUNK_BLOCKS, 1, 10), 0);
	rig_run_ms(rig, 10);
	ck_assert_uint_eq(old->writes, writes + 1);
	wait_left();
	/* It counts now: with it and one other a write is acknowledged. */
	fake_crash(&rig->nodes[1]);
	fake_crash(old);
	ck_assert_int_eq(rig_write(host, 2, 1, 11), 0);
	rig_must_read(host, 2, 1, 11);
	rig_must_read(host, 0, 1, 7);
}
END_TEST

static void vacate_answered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			    const char *text)
{
	(void)call;
	(void)reply;
	(void)text;
	vacate_status = status;
}

/* The old node asks whether it may erase chunk 0: the answer. */
static int ask_vacate(void)
{
	struct fake_node *n = &rig->nodes[0];
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Vacate vacate = PAVE__V1__VACATE__INIT;
	uint32_t chunks[] = {0, 4000};
	struct rpc_call call = {.done = vacate_answered};

	vacate.n_chunks = 2;
	vacate.chunks = chunks;
	m.body_case = PAVE__V1__CONTROL__BODY_VACATE;
	m.vacate = &vacate;
	vacate_status = 1;
	for (uint32_t i = 0; i < RIG_CONNS; i++)
		if (n->conns[i].conn != NULL) {
			rpc_call_start(&n->conns[i].rpc, &call, &m, 0);
			break;
		}
	for (unsigned i = 0; i < 2000 && vacate_status == 1; i++)
		rig_run_ms(rig, 1);
	return vacate_status;
}

START_TEST(a_node_that_is_left_may_erase)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	ck_assert_int_eq(ask_vacate(), -E_IN_USE);
	rig_move(rig, 0, 0, LEARNER);
	rig->pd.commit_silent = true;
	wait_asked(1);
	ck_assert_int_eq(ask_vacate(), -E_IN_USE);
	rig->nodes[0].hold_writes = true;
	rig_start_write(host, &o, 3, 1, 2);
	rig_run_ms(rig, 10);
	rig->pd.commit_silent = false;
	for (unsigned i = 0; i < 20000 && rig_stats(host).moves == 0; i++)
		rig_run_ms(rig, 1);
	ck_assert_int_eq(rig_finish(&o), 0);
	ck_assert_int_eq(ask_vacate(), -E_IN_USE); /* the write is still on its way */
	fake_release(&rig->nodes[0]);
	wait_left();
	ck_assert_int_eq(ask_vacate(), 0);
}
END_TEST

START_TEST(a_learner_counts_for_nothing)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	rig->nodes[LEARNER].hold_pulls = true;
	rig_move(rig, 0, 0, LEARNER);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(rig->pd.commits, 0);
	rig->nodes[1].hold_writes = rig->nodes[2].hold_writes = true;
	rig_start_write(host, &o, 5, 1, 2);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[LEARNER], 5), 2); /* it has it, with node 0 */
	ck_assert(!o.done);
	fake_release(&rig->nodes[1]);
	ck_assert_int_eq(rig_finish(&o), 0);
	fake_release(&rig->nodes[2]);
	/* Nor does it serve reads. */
	ck_assert_uint_eq(rig->nodes[LEARNER].reads, 0);
}
END_TEST

/* Asked, and not answered: both maps may be in force. */
START_TEST(in_doubt_both_maps_must_agree)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->pd.commit_silent = true;
	rig_move(rig, 0, 0, LEARNER);
	wait_asked(1);
	/* Two of the old members have it, one of the new. */
	fake_crash(&rig->nodes[1]);
	rig->nodes[LEARNER].hold_writes = true;
	rig_start_write(host, &o, 3, 1, 2);
	rig_run_ms(rig, 300);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[0], 3), 2);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], 3), 2);
	ck_assert(!o.done);
	fake_release(&rig->nodes[LEARNER]);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

START_TEST(refused_the_old_map_goes_on)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->pd.commit_status = -ENOENT;
	rig_move(rig, 0, 0, LEARNER);
	wait_asked(1);
	rig->pd.moving = false;
	rig_run_ms(rig, 50);
	fake_crash(&rig->nodes[1]);
	rig->nodes[LEARNER].hold_writes = true;
	rig_start_write(host, &o, 3, 1, 2);
	ck_assert_int_eq(rig_finish(&o), 0);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[LEARNER], 3), 1);
	wait_left();
	ck_assert_uint_eq(rig_stats(host).moves, 0);
}
END_TEST

START_TEST(a_lost_answer_is_asked_for_again)
{
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->pd.commit_silent = true; /* it does what is asked, and says nothing */
	rig_move(rig, 0, 0, LEARNER);
	wait_asked(1);
	ck_assert_uint_eq(rig_stats(host).moves, 0);
	sim_net_disconnect(rig->pd.process, host->process);
	rig->pd.commit_silent = false;
	wait_asked(2);
	rig_run_ms(rig, 50);
	ck_assert_uint_eq(rig_stats(host).moves, 1);
	wait_left();
}
END_TEST

/* The chunk has to be reconciled while the answer is in doubt: by which members? */
START_TEST(in_doubt_nothing_is_reconciled)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->pd.commit_silent = true;
	rig_move(rig, 0, 0, LEARNER);
	wait_asked(1);
	/* Every member fails a write: none is current any more. */
	for (uint32_t i = 0; i <= LEARNER; i++)
		rig->nodes[i].write_lies = -EIO;
	ck_assert_int_eq(rig_write(host, 3, 1, 2), -EIO);
	for (uint32_t i = 0; i <= LEARNER; i++)
		rig->nodes[i].write_lies = 0;
	rig_start_read(host, &o, 0, 1);
	rig_run_ms(rig, 1000);
	ck_assert(!o.done);
	sim_net_disconnect(rig->pd.process, host->process);
	rig->pd.commit_silent = false;
	ck_assert_int_eq(rig_finish(&o), 0);
	ck_assert_uint_eq(rig_stats(host).moves, 1);
	rig_must_read(host, 0, 1, 1);
}
END_TEST

START_TEST(given_up_by_the_driver)
{
	uint64_t writes;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->nodes[LEARNER].hold_pulls = true;
	rig_move(rig, 0, 0, LEARNER);
	rig_run_ms(rig, 500);
	ck_assert_int_eq(rig_write(host, 0, 1, 2), 0);
	rig_run_ms(rig, 10);
	writes = rig->nodes[LEARNER].writes;
	ck_assert_uint_gt(writes, 0);
	rig_move_drop(rig);
	rig_run_ms(rig, 100);
	ck_assert_int_eq(rig_write(host, 0, 1, 3), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(rig->nodes[LEARNER].writes, writes);
	wait_left();
	/* And again, from the beginning. */
	fake_release(&rig->nodes[LEARNER]);
	rig_move(rig, 0, 1, LEARNER);
	wait_asked(1);
	rig_run_ms(rig, 50);
	learner_must_agree(0, 8);
	ck_assert_uint_eq(rig_stats(host).moves, 1);
}
END_TEST

/* What is on the wire to the old copy keeps it: a read of it must not meet an erased chunk. */
START_TEST(what_is_on_the_wire_keeps_the_old_copy)
{
	struct rig_op o;
	uint64_t renews;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_reads = true;
	rig_start_read(host, &o, 0, 1); /* one of them has it, and a second one, before long */
	rig_run_ms(rig, 200);
	for (uint32_t from = 0; from < RIG_NODES; from++)
		if (rig->nodes[from].held != NULL) {
			rig_move(rig, 0, from, LEARNER);
			break;
		}
	wait_asked(1);
	renews = rig->pd.renews;
	/* Not so long that the connection is given up. */
	for (unsigned i = 0; i < 4000 && rig->pd.renews < renews + 1; i++)
		rig_run_ms(rig, 1);
	ck_assert_uint_eq(rig->pd.moving_reported, 1);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	wait_left();
}
END_TEST

/* The change is in force, and its host dies before it hears of it. */
START_TEST(the_next_attachment_has_the_new_map)
{
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->pd.commit_silent = true;
	rig_move(rig, 0, 0, LEARNER);
	wait_asked(1);
	ck_assert_int_eq(rig_write(host, 4, 1, 2), 0);
	rig_crash_host(host);
	rig->pd.commit_silent = false;
	/* Of the new members the learner that was, and one more; the copy that left says nothing.
	 */
	fake_put(&rig->nodes[0], 0, version_make(1, 1000), 99);
	fake_crash(&rig->nodes[1]);
	rig_open(second);
	rig_must_read(second, 0, 1, 1);
	rig_must_read(second, 4, 1, 2);
	ck_assert_int_eq(rig_write(second, 0, 1, 3), 0);
	rig_must_read(second, 0, 1, 3);
}
END_TEST

START_TEST(the_next_attachment_takes_the_move_up)
{
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->nodes[LEARNER].hold_pulls = true;
	rig_move(rig, 0, 0, LEARNER);
	rig_run_ms(rig, 500);
	ck_assert_int_eq(rig_write(host, 4, 1, 2), 0);
	rig_crash_host(host);
	fake_release(&rig->nodes[LEARNER]);
	rig_open(second);
	ck_assert_int_eq(rig_write(second, 5, 1, 3), 0);
	wait_asked(1);
	rig_run_ms(rig, 50);
	learner_must_agree(0, 8);
	ck_assert_uint_eq(rig_stats(second).moves, 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("volume moves");
	TCase *tc = tcase_create("moves");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_chunk_moves);
	tcase_add_test(tc, a_node_that_is_left_may_erase);
	tcase_add_test(tc, a_learner_counts_for_nothing);
	tcase_add_test(tc, in_doubt_both_maps_must_agree);
	tcase_add_test(tc, refused_the_old_map_goes_on);
	tcase_add_test(tc, a_lost_answer_is_asked_for_again);
	tcase_add_test(tc, in_doubt_nothing_is_reconciled);
	tcase_add_test(tc, given_up_by_the_driver);
	tcase_add_test(tc, what_is_on_the_wire_keeps_the_old_copy);
	tcase_add_test(tc, the_next_attachment_has_the_new_map);
	tcase_add_test(tc, the_next_attachment_takes_the_move_up);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
