/* Tests of hedged reads (engine/volume/hedge.h, pace.h): replicas that stop answering, on virtual
 * time. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/volume/hedge.h"
#include "tests/unit/test_volume_rig.h"

#define SMALL 1u
#define LARGE 32u /* blocks: received straight into its buffer */

static struct rig *rig;
static struct rig_host *host;

static void setup(void)
{
	rig = rig_create(1);
	host = &rig->hosts[0];
	rig_open(host);
}

static void teardown(void)
{
	rig_destroy(rig);
}

/* Sends a read, and returns the node that it went to, which keeps its answer. */
static struct fake_node *start_held_read(struct rig_op *o, uint64_t block, uint32_t count)
{
	uint64_t before[RIG_NODES];

	for (uint32_t i = 0; i < RIG_NODES; i++) {
		before[i] = rig->nodes[i].reads;
		rig->nodes[i].hold_reads = true;
	}
	rig_start_read(host, o, block, count);
	for (uint32_t ms = 0; ms < 10; ms++) {
		rig_run_ms(rig, 1);
		for (uint32_t i = 0; i < RIG_NODES; i++) {
			if (rig->nodes[i].reads == before[i])
				continue;
			for (uint32_t n = 0; n < RIG_NODES; n++)
				if (n != i)
					fake_release(&rig->nodes[n]);
			return &rig->nodes[i];
		}
	}
	ck_abort_msg("the read went nowhere");
	return NULL;
}

static void must_be_answered_by_another(uint32_t count)
{
	struct rig_op o, next;
	struct fake_node *slow;

	ck_assert_int_eq(rig_write(host, 0, count, 11), 0);
	slow = start_held_read(&o, 0, count);
	ck_assert_msg(rig_wait(rig, &o.done, 2 * VHEDGE_DELAY_MAX_NS / NS_PER_MS),
		      "a read waits for a replica that does not answer");
	ck_assert_int_eq(o.status, 0);
	ck_assert_uint_eq(rig_stats(host).hedges, 1);
	ck_assert_uint_eq(rig_stats(host).hedges_won, 1);
	/* The guest has its buffer back: what the slow one says at last goes nowhere near it. */
	memset(o.buffer->data, 0x5a, count * BLOCK_SIZE);
	fake_release(slow);
	rig_run_ms(rig, 100);
	for (uint32_t i = 0; i < count * BLOCK_SIZE; i++)
		ck_assert_uint_eq(o.buffer->data[i], 0x5a);
	ck_assert_int_eq(rig_finish(&o), 0);
	/* All is as before. */
	rig_start_read(host, &next, 0, count);
	ck_assert_int_eq(rig_finish(&next), 0);
}

START_TEST(a_small_read_is_answered_by_another_replica)
{
	must_be_answered_by_another(SMALL);
}
END_TEST

START_TEST(a_large_read_is_answered_by_another_replica)
{
	must_be_answered_by_another(LARGE);
}
END_TEST

START_TEST(a_replica_that_stopped_is_not_asked_again)
{
	struct rig_op o;
	struct fake_node *slow;
	uint64_t asked;

	for (uint32_t i = 0; i < 20; i++)
		ck_assert_int_eq(rig_write(host, i, 1, i + 1), 0);
	slow = start_held_read(&o, 0, 1);
	rig_run_ms(rig, 200);
	asked = slow->reads;
	for (uint32_t i = 0; i < 300; i++)
		rig_must_read(host, i % 20, 1, i % 20 + 1);
	ck_assert_uint_eq(slow->reads, asked);
	fake_release(slow);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

START_TEST(the_second_answer_counts_when_the_first_is_bad)
{
	struct rig_op o;
	struct fake_node *slow;

	ck_assert_int_eq(rig_write(host, 0, LARGE, 7), 0);
	slow = start_held_read(&o, 0, LARGE);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].corrupt_reads = &rig->nodes[i] != slow;
	rig_run_ms(rig, 200);
	ck_assert(!o.done);
	fake_release(slow);
	ck_assert(rig_wait(rig, &o.done, 1000));
	ck_assert_int_eq(o.status, 0);
	for (uint32_t i = 0; i < LARGE; i++)
		ck_assert_uint_eq(rig_stamp_of(&o, i), 7);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].corrupt_reads = false;
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

START_TEST(a_replica_that_lacks_a_write_is_no_second)
{
	struct rig_op o, w;
	struct fake_node *slow, *lacking;
	uint64_t asked;

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	lacking = &rig->nodes[2];
	lacking->delay_writes = true;
	rig_start_write(host, &w, 0, 1, 2);
	ck_assert_int_eq(rig_finish(&w), 0);
	asked = lacking->reads;
	slow = start_held_read(&o, 0, 1);
	ck_assert_ptr_ne(slow, lacking);
	ck_assert(rig_wait(rig, &o.done, 1000));
	ck_assert_uint_eq(rig_stamp_of(&o, 0), 2);
	ck_assert_uint_eq(lacking->reads, asked);
	fake_release(slow);
	fake_release(lacking);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

START_TEST(hedges_are_bounded)
{
	enum { READS = 1000 };
	struct rig_op *ops = calloc(READS, sizeof(*ops));

	ck_assert_ptr_nonnull(ops);
	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_reads = true;
	for (uint32_t i = 0; i < READS; i++)
		rig_start_read(host, &ops[i], 0, 1);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(rig_stats(host).hedges, VHEDGE_MAX);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	for (uint32_t i = 0; i < READS; i++)
		ck_assert_int_eq(rig_finish(&ops[i]), 0);
	free(ops);
}
END_TEST

START_TEST(the_site_of_the_host_is_read_first)
{
	uint64_t near, all = 0;

	for (uint32_t i = 0; i < RIG_NODES; i++)
		all -= rig->nodes[i].reads;
	near = rig->nodes[0].reads; /* par, as the host */
	for (uint32_t i = 0; i < 200; i++)
		rig_must_read(host, i, 1, 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		all += rig->nodes[i].reads;
	ck_assert_uint_ge(all, 200);
	ck_assert_uint_gt(rig->nodes[0].reads - near, 100);
}
END_TEST

/* -- pace -------------------------------------------------------------------------------------- */

START_TEST(the_percentile_is_known_within_a_bucket)
{
	static const uint64_t took_ns[] = {1000, 90000, 333333, 5000000, 70000000, 4000000000ull};
	struct vpace p;

	for (size_t k = 0; k < ARRAY_SIZE(took_ns); k++) {
		p = (struct vpace){0};
		ck_assert_uint_eq(vpace_p99_ns(&p), 0);
		for (uint32_t i = 0; i < 1000; i++)
			vpace_note(&p, i % 200 == 0 ? 100 * took_ns[k] : took_ns[k]);
		ck_assert_uint_ge(vpace_p99_ns(&p), took_ns[k]);
		ck_assert_uint_le(vpace_p99_ns(&p), took_ns[k] + took_ns[k] / 4 + 4096);
	}
}
END_TEST

START_TEST(the_past_is_forgotten)
{
	struct vpace p = {0};

	for (uint32_t i = 0; i < 100000; i++)
		vpace_note(&p, 50000000);
	for (uint32_t i = 0; i < 100000; i++)
		vpace_note(&p, 100000);
	ck_assert_uint_lt(vpace_p99_ns(&p), 130000);
	ck_assert_uint_le(p.total, VPACE_SAMPLE_MAX);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("hedge");
	Suite *s = suite_create("volume_hedge");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_small_read_is_answered_by_another_replica);
	tcase_add_test(tc, a_large_read_is_answered_by_another_replica);
	tcase_add_test(tc, a_replica_that_stopped_is_not_asked_again);
	tcase_add_test(tc, the_second_answer_counts_when_the_first_is_bad);
	tcase_add_test(tc, a_replica_that_lacks_a_write_is_no_second);
	tcase_add_test(tc, hedges_are_bounded);
	tcase_add_test(tc, the_site_of_the_host_is_read_first);
	tcase_add_test(tc, the_percentile_is_known_within_a_bucket);
	tcase_add_test(tc, the_past_is_forgotten);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
