/* Tests of the trace (engine/volume/trace.h): where the time of an operation went, with nodes whose
 * steps and a network whose delay are known, on virtual time. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "engine/volume/trace.h"
#include "tests/unit/test_volume_rig.h"

#define DELAY_NS  (2 * NS_PER_MS) /* of the network, one way */
#define QUEUE_NS  3000u
#define LOG_NS	  250000u
#define ANSWER_NS 700u

static struct rig *rig;
static struct rig_host *host;
static struct volume_trace trace;

static void begin(bool traces)
{
	rig = rig_create(1);
	host = &rig->hosts[0];
	for (uint32_t i = 0; i < RIG_NODES; i++) {
		struct fake_node *n = &rig->nodes[i];

		n->traces = traces;
		n->queue_ns = QUEUE_NS;
		n->log_ns = LOG_NS;
		n->answer_ns = ANSWER_NS;
		sim_net_set_delay(host->process, n->process, DELAY_NS, DELAY_NS);
		sim_net_set_delay(n->process, host->process, DELAY_NS, DELAY_NS);
	}
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	ck_assert_int_eq(volume_trace_start(host->volume, &trace), 0);
	ck_assert_int_eq(volume_trace_start(host->volume, &trace), -EBUSY);
}

static void end(void)
{
	rig_destroy(rig);
}

/* The one operation that there was: every step of it is told, and together they are all of it. */
static const struct volume_trace_op *the_only(bool changes)
{
	const struct volume_trace_op *o = &trace.slowest[0];
	uint64_t sum = 0;
	bool is_a_node = false;

	volume_trace_stop(host->volume);
	ck_assert_uint_eq(trace.count, 1);
	ck_assert_uint_eq(trace.operations[changes], 1);
	ck_assert_uint_eq(trace.operations[!changes], 0);
	ck_assert_uint_eq(trace.told[changes], 1);
	ck_assert(o->told);
	ck_assert_uint_eq(o->offset, 3 * BLOCK_SIZE);
	ck_assert_uint_eq(o->size, 2 * BLOCK_SIZE);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		is_a_node = is_a_node || strcmp(o->node, rig->nodes[i].name) == 0;
	ck_assert_msg(is_a_node, "'%s'", o->node);
	ck_assert_uint_eq(o->parts_ns[TRACE_NODE_QUEUE], QUEUE_NS);
	ck_assert_uint_eq(o->parts_ns[TRACE_LOG], LOG_NS);
	ck_assert_uint_eq(o->parts_ns[TRACE_ANSWER], ANSWER_NS);
	for (uint32_t i = 0; i < VOLUME_TRACE_PARTS; i++) {
		sum += o->parts_ns[i];
		ck_assert_uint_eq(trace.parts_ns[changes][i], o->parts_ns[i]);
	}
	ck_assert_uint_eq(sum, o->total_ns);
	ck_assert_uint_eq(trace.total_ns[changes], o->total_ns);
	return o;
}

START_TEST(each_step_has_its_time)
{
	const struct volume_trace_op *o;
	uint32_t stamp;

	begin(true);
	if (_i == 0)
		ck_assert_int_eq(rig_write(host, 3, 2, 9), 0);
	else
		ck_assert_int_eq(rig_read(host, 3, 2, &stamp), 0);
	o = the_only(_i == 0);
	/* What the nodes do not tell was on the way. */
	ck_assert_uint_ge(o->total_ns, 2 * DELAY_NS);
	ck_assert_uint_lt(o->total_ns, 3 * DELAY_NS);
	ck_assert_uint_ge(o->parts_ns[TRACE_NETWORK], 2 * DELAY_NS - QUEUE_NS - LOG_NS - ANSWER_NS);
	ck_assert_uint_lt(o->parts_ns[TRACE_HOST_QUEUE] + o->parts_ns[TRACE_HOST_END], DELAY_NS);
	end();
}
END_TEST

/* Answers that are on their way for long. */
START_TEST(a_slow_network_is_told)
{
	const struct volume_trace_op *o;
	struct rig_op write;

	begin(true);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = true;
	rig_start_write(host, &write, 3, 2, 9);
	rig_run_ms(rig, 50);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&write), 0);
	o = the_only(true);
	ck_assert_uint_ge(o->parts_ns[TRACE_NETWORK], 49 * NS_PER_MS);
	end();
}
END_TEST

/* A write that may go to one node only waits on the host. */
START_TEST(a_wait_on_the_host_is_told)
{
	const struct volume_trace_op *o;
	struct rig_op write;

	begin(true);
	rig_permit(rig, 1);
	rig_run_ms(rig, 20);
	rig_start_write(host, &write, 3, 2, 9);
	rig_run_ms(rig, 100);
	ck_assert(!write.done);
	rig_permit(rig, 7);
	ck_assert_int_eq(rig_finish(&write), 0);
	o = the_only(true);
	ck_assert_uint_ge(o->parts_ns[TRACE_HOST_QUEUE], 100 * NS_PER_MS);
	ck_assert_uint_lt(o->parts_ns[TRACE_NETWORK], 3 * DELAY_NS);
	end();
}
END_TEST

/* Nodes of the version before are not asked (test_volume_nodes.c), and nothing is made up. */
START_TEST(what_nobody_tells_is_not_told)
{
	begin(false);
	ck_assert_int_eq(rig_write(host, 3, 2, 9), 0);
	volume_trace_stop(host->volume);
	ck_assert_uint_eq(trace.operations[1], 1);
	ck_assert_uint_eq(trace.told[1], 0);
	ck_assert_uint_eq(trace.count, 1);
	ck_assert(!trace.slowest[0].told);
	ck_assert_str_eq(trace.slowest[0].node, "");
	ck_assert_uint_ge(trace.slowest[0].total_ns, 2 * DELAY_NS);
	end();
}
END_TEST

/* The slowest, and they come first; nothing is asked once it is over. */
START_TEST(the_slowest_are_kept)
{
	const uint32_t count = VOLUME_TRACE_MAX + 21; /* has no divisor in common with 7 */
	struct rig_op write;

	begin(true);
	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t k = 0; k < RIG_NODES; k++)
			rig->nodes[k].hold_writes = true;
		rig_start_write(host, &write, i, 1, i);
		rig_run_ms(rig, 10 + i * 7 % count); /* each time another */
		for (uint32_t k = 0; k < RIG_NODES; k++)
			fake_release(&rig->nodes[k]);
		ck_assert_int_eq(rig_finish(&write), 0);
	}
	volume_trace_stop(host->volume);
	ck_assert_uint_eq(trace.operations[1], count);
	ck_assert_uint_eq(trace.count, VOLUME_TRACE_MAX);
	for (uint32_t i = 0; i < trace.count; i++) {
		const uint64_t block = trace.slowest[i].offset / BLOCK_SIZE;

		ck_assert_uint_eq(block * 7 % count, count - 1 - i);
		ck_assert_uint_ge(trace.slowest[i].total_ns, (10 + count - 1 - i) * NS_PER_MS);
	}
	for (uint32_t k = 0; k < RIG_NODES; k++)
		rig->nodes[k].traces = false;
	ck_assert_int_eq(rig_write(host, 3, 2, 9), 0);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("volume trace");
	TCase *tc = tcase_create("trace");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, each_step_has_its_time, 0, 2);
	tcase_add_test(tc, a_slow_network_is_told);
	tcase_add_test(tc, a_wait_on_the_host_is_told);
	tcase_add_test(tc, what_nobody_tells_is_not_told);
	tcase_add_test(tc, the_slowest_are_kept);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
