/* Resync: one node pulls from another, under the host's permit; and what it refuses. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/node/run_table.h"
#include "tests/unit/test_node_rig.h"

#define CHUNK	    4u
#define TEST_BLOCKS 2000u

static struct rig *rig;
static struct peer_host to, from; /* sessions with the target (node 0) and the source (node 1) */
static uint8_t *data, *back;

static void setup(void)
{
	rig = rig_create(1);
	data = aligned_alloc(BLOCK_SIZE, (size_t)TEST_BLOCKS * BLOCK_SIZE);
	back = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, TEST_BLOCKS, 5);
	rig_open(rig, &to, 0, 1);
	rig_open(rig, &from, 1, 1);
}

static void teardown(void)
{
	peer_host_close(&to);
	peer_host_close(&from);
	rig_destroy(rig);
	free(data);
	free(back);
}

static version_t v(uint64_t seq)
{
	return version_make(1, seq);
}

/* Fills the source: TEST_BLOCKS blocks in writes of different sizes. Returns the last sequence. */
static uint64_t fill_source(void)
{
	uint64_t seq = 0;

	for (uint32_t block = 0; block < TEST_BLOCKS;) {
		const uint32_t count = MIN((uint32_t)(1 + (seq * 37) % 90), TEST_BLOCKS - block);

		ck_assert_int_eq(peer_host_write(&from, CHUNK, block, count, v(++seq),
						 data + (size_t)block * BLOCK_SIZE),
				 0);
		block += count;
	}
	return seq;
}

static void expect_same(struct peer_host *h, uint32_t blocks)
{
	for (uint32_t block = 0; block < blocks; block += 250) {
		const uint32_t count = MIN(250u, blocks - block);

		ck_assert_int_eq(peer_host_read(h, CHUNK, block, count, back), 0);
		ck_assert_mem_eq(back, data + (size_t)block * BLOCK_SIZE, count * BLOCK_SIZE);
	}
}

static int pull(version_t above)
{
	return peer_host_pull(&to, CHUNK, above, "n2", rig->nodes[1].name);
}

static void fresh_permits(void)
{
	static uint64_t serial = 10;
	struct peer_permit p = rig_permit(rig, 1, ++serial);

	ck_assert_int_eq(rig_update(&to, &p), 0);
	ck_assert_int_eq(rig_update(&from, &p), 0);
}

START_TEST(test_pull_all)
{
	struct node_stats stats;

	fill_source();
	ck_assert_msg(pull(0) == 0, "%s", to.call_text);
	ck_assert_uint_eq(to.call_reply->pull_reply->blocks, TEST_BLOCKS);
	expect_same(&to, TEST_BLOCKS);
	node_shard_get_stats(rig->nodes[0].shard, &stats);
	ck_assert_uint_eq(stats.pulled_blocks, TEST_BLOCKS);
	/* Once more: nothing changes. */
	fresh_permits();
	ck_assert_int_eq(pull(0), 0);
	expect_same(&to, TEST_BLOCKS);
	ck_assert_int_eq(pull(v(1000)), 0);
	ck_assert_uint_eq(to.call_reply->pull_reply->blocks, 0);
}
END_TEST

static int compare_changes(const struct store_change *a, const struct store_change *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (a[i].block != b[i].block || a[i].block_count != b[i].block_count ||
		    a[i].version != b[i].version)
			return 1;
	return 0;
}

struct list {
	struct store_changes_op op;
	struct store_change changes[STORE_CHANGES_MAX];
	bool done;
};

static void list_done(struct store_changes_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	container_of(op, struct list, op)->done = true;
}

static void list_changes(struct rig_node *n, struct list *list)
{
	list->done = false;
	list->op = (struct store_changes_op){.done = list_done,
					     .volume = RIG_VOLUME,
					     .chunk = CHUNK,
					     .changes = list->changes,
					     .max = STORE_CHANGES_MAX};
	store_changes(n->store, &list->op);
	ck_assert(sim_run_flag(rig->world, &list->done));
	ck_assert_uint_eq(list->op.next, UINT32_MAX);
}

/* The versions come along, block by block. */
START_TEST(test_pull_keeps_versions)
{
	static struct list a, b;

	fill_source();
	/* Neighbours with versions of their own, zeroes and a discard among them. */
	for (uint32_t i = 0; i < 600; i += 2)
		ck_assert_int_eq(
		    peer_host_write(&from, CHUNK, i, 1, v(500 + i), data + (size_t)i * BLOCK_SIZE),
		    0);
	ck_assert_int_eq(peer_host_zero(&from, CHUNK, 700, 200, v(2000), false), 0);
	memset(data + (size_t)700 * BLOCK_SIZE, 0, (size_t)200 * BLOCK_SIZE);
	ck_assert_int_eq(peer_host_zero(&from, CHUNK, 950, 30, v(2001), true), 0);
	memset(data + (size_t)950 * BLOCK_SIZE, 0, (size_t)30 * BLOCK_SIZE);
	fresh_permits();
	ck_assert_int_eq(pull(0), 0);
	expect_same(&to, TEST_BLOCKS);
	list_changes(&rig->nodes[0], &a);
	list_changes(&rig->nodes[1], &b);
	ck_assert_uint_gt(a.op.count, 300);
	ck_assert_uint_eq(a.op.count, b.op.count);
	ck_assert_int_eq(compare_changes(a.changes, b.changes, a.op.count), 0);
}
END_TEST

/* What the host writes meanwhile is newer, and stays. */
START_TEST(test_pull_under_writes)
{
	struct peer_request *q[40];
	uint64_t seq = fill_source();

	memset(back, 0x5a, IO_SIZE_MAX);
	to.called = false;
	for (uint32_t i = 0; i < 40; i++) {
		const struct frame f = {.op = FRAME_WRITE,
					.chunk = CHUNK,
					.block = i * 50,
					.block_count = 3,
					.version = v(++seq)};

		q[i] = peer_host_send(&to, f, back, false);
		memcpy(data + (size_t)f.block * BLOCK_SIZE, back, 3 * BLOCK_SIZE);
	}
	ck_assert_int_eq(pull(0), 0);
	for (uint32_t i = 0; i < 40; i++) {
		ck_assert(peer_host_wait(&to, q[i]));
		ck_assert_int_eq(q[i]->status, 0);
		peer_request_free(q[i]);
	}
	expect_same(&to, TEST_BLOCKS);
}
END_TEST

/* Nothing is fetched that is there, or that comes by itself. */
START_TEST(test_pull_a_part)
{
	struct node_stats stats;
	const uint64_t seq = fill_source();
	const char *address = rig->nodes[1].name;
	const uint32_t ranges[] = {3, 1, 500, 600, 1400, TEST_BLOCKS - 1400};
	const uint32_t bad[][4] = {{0}, {5, 5, 9, 1}, {5, 0, 9, 1}, {0, 1, UINT32_MAX, 1}};
	const uint64_t expected = 1 + 600 + TEST_BLOCKS - 1400 - 10;

	for (uint32_t i = 0; i < 10; i++)
		ck_assert_int_eq(peer_host_write(&from, CHUNK, 1500 + i, 1, v(seq + 1 + i),
						 data + (size_t)(1500 + i) * BLOCK_SIZE),
				 0);
	ck_assert_int_eq(peer_host_pull_part(&to, CHUNK, 0, v(seq + 1), ranges, 6, "n2", address),
			 0);
	ck_assert_uint_eq(to.call_reply->pull_reply->blocks, expected);
	node_shard_get_stats(rig->nodes[1].shard, &stats);
	ck_assert_uint_eq(stats.fetched_blocks, expected);
	for (uint32_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(
		    peer_host_pull_part(&to, CHUNK, 0, 0, bad[i], i == 0 ? 1 : 4, "n2", address),
		    -EINVAL);
	/* The rest, once. */
	fresh_permits();
	ck_assert_int_eq(peer_host_pull_part(&to, CHUNK, 0, 0, NULL, 0, "n2", address), 0);
	expect_same(&to, TEST_BLOCKS);
}
END_TEST

/* -- pace ------------------------------------------------------------------------------------- */

START_TEST(test_the_rate_is_kept)
{
	const uint64_t rate = 4u << 20;
	const uint64_t at_least_ns =
	    ((uint64_t)TEST_BLOCKS * BLOCK_SIZE - IO_SIZE_MAX) * NS_PER_S / rate;
	uint64_t begun_ns;

	rig->resync_rate = rate;
	sim_process_crash(rig->nodes[0].process, SIM_KILL);
	rig_node_start(&rig->nodes[0]);
	rig_wait_lease(&rig->nodes[0], true);
	peer_host_close(&to);
	rig_open(rig, &to, 0, 1);
	fill_source();
	fresh_permits();
	begun_ns = rig->world->now_ns;
	ck_assert_int_eq(pull(0), 0);
	ck_assert_uint_ge(rig->world->now_ns - begun_ns, at_least_ns);
	ck_assert_uint_le(rig->world->now_ns - begun_ns, 3 * at_least_ns);
	ck_assert_uint_gt(to.pull_progress, 0);
	ck_assert_uint_le(to.pull_progress, TEST_BLOCKS);
	expect_same(&to, TEST_BLOCKS);
}
END_TEST

/* -- interrupted ------------------------------------------------------------------------------ */

static void rig_again(uint32_t node, struct peer_host *h)
{
	rig_node_start(&rig->nodes[node]);
	rig_wait_lease(&rig->nodes[node], true);
	peer_host_close(h);
	rig_open(rig, h, node, 1);
}

static uint32_t failed_pulls;

/* Asks for the pull, lets `steps` events pass, does `harm`; false: the pull was done before. The
 * pull that is asked for after that brings everything. */
static bool pull_with_harm(uint32_t steps, void (*harm)(void))
{
	fresh_permits();
	peer_host_pull_start(&to, CHUNK, 0, "n2", rig->nodes[1].name);
	for (uint32_t i = 0; i < steps && !to.called; i++)
		ck_assert(sim_step(rig->world));
	if (to.called) {
		ck_assert_int_eq(to.call_status, 0);
		return false;
	}
	harm();
	failed_pulls += to.called && to.call_status != 0;
	return true;
}

static void expect_pulled(void)
{
	fresh_permits();
	ck_assert_msg(pull(0) == 0, "%s", to.call_text);
	expect_same(&to, TEST_BLOCKS);
}

static void harm_connection(void)
{
	sim_net_disconnect(rig->nodes[0].process, rig->nodes[1].process);
	peer_host_ask_wait(&to);
}

START_TEST(test_connection_breaks)
{
	uint32_t steps = 1;

	fill_source();
	while (pull_with_harm(steps, harm_connection))
		steps += 1 + steps / 4;
	ck_assert_uint_gt(failed_pulls, 10);
	expect_pulled();
}
END_TEST

static void harm_source(void)
{
	rig_node_crash(&rig->nodes[1], SIM_POWER_LOSS);
	peer_host_ask_wait(&to);
	rig_again(1, &from);
}

START_TEST(test_source_dies)
{
	uint32_t steps = 1;

	fill_source();
	while (pull_with_harm(steps, harm_source))
		steps += 4 + steps / 2;
	expect_pulled();
}
END_TEST

static void harm_target(void)
{
	rig_node_crash(&rig->nodes[0], SIM_POWER_LOSS);
	ck_assert_int_ne(peer_host_ask_wait(&to), 0);
	rig_again(0, &to);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

/* As a process ends that is asked to: nothing may be waited for that never comes. */
static void end_node(struct rig_node *n)
{
	bool done = false;

	node_shard_stop(n->shard, set_flag, &done);
	ck_assert(sim_run_flag(rig->world, &done));
	n->shard = NULL;
	done = false;
	node_lease_stop(n->lease, set_flag, &done);
	ck_assert(sim_run_flag(rig->world, &done));
	n->lease = NULL;
	done = false;
	pool_close(n->pool, set_flag, &done);
	ck_assert(sim_run_flag(rig->world, &done));
	n->pool = NULL;
	n->store = NULL;
	rig_node_crash(n, SIM_KILL);
}

static void harm_end_of_target(void)
{
	end_node(&rig->nodes[0]);
	ck_assert_int_ne(peer_host_ask_wait(&to), 0);
	rig_again(0, &to);
}

static void harm_end_of_source(void)
{
	end_node(&rig->nodes[1]);
	peer_host_ask_wait(&to);
	rig_again(1, &from);
}

START_TEST(test_a_node_ends)
{
	uint32_t steps = 1;

	fill_source();
	while (pull_with_harm(steps, _i == 0 ? harm_end_of_target : harm_end_of_source))
		steps += 4 + steps / 4;
	expect_pulled();
}
END_TEST

START_TEST(test_target_dies)
{
	uint32_t steps = 1;

	fill_source();
	while (pull_with_harm(steps, harm_target))
		steps += 4 + steps / 2;
	expect_pulled();
}
END_TEST

static void harm_host(void)
{
	peer_host_close(&to);
	rig_open(rig, &to, 0, 1);
}

START_TEST(test_host_goes)
{
	uint32_t steps = 1;

	fill_source();
	while (pull_with_harm(steps, harm_host))
		steps += 4 + steps / 2;
	expect_pulled();
}
END_TEST

/* The source stands still: the pull gives up in bounded time. */
START_TEST(test_source_is_paused)
{
	fill_source();
	fresh_permits();
	peer_host_pull_start(&to, CHUNK, 0, "n2", rig->nodes[1].name);
	for (uint32_t i = 0; i < 40; i++)
		ck_assert(sim_step(rig->world));
	ck_assert(!to.called);
	sim_process_pause(rig->nodes[1].process);
	ck_assert_int_ne(peer_host_ask_wait(&to), 0);
	sim_process_resume(rig->nodes[1].process);
	rig_run_ms(rig, 1000);
	expect_pulled();
}
END_TEST

/* -- refused ---------------------------------------------------------------------------------- */

START_TEST(test_source_not_in_permit)
{
	struct peer_permit p;

	fill_source();
	ck_assert_int_eq(peer_host_pull(&to, CHUNK, 0, "n3", rig->nodes[1].name), -E_NOT_IN_PERMIT);
	ck_assert_int_eq(peer_host_pull(&to, CHUNK, 0, "n1", rig->nodes[1].name), -EINVAL);
	/* The address leads to another node than the name says. */
	ck_assert_int_eq(peer_host_pull(&to, CHUNK, 0, "n2", rig->nodes[0].name), -E_WRONG_NODE);
	p = rig_permit(rig, 1, 20);
	p.nodes[1] = NULL;
	ck_assert_int_eq(rig_update(&to, &p), 0);
	ck_assert_int_eq(pull(0), -E_NOT_IN_PERMIT);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
}
END_TEST

START_TEST(test_target_gate_closed)
{
	fill_source();
	rig_run_ms(rig, PERMIT_LIFETIME_MS);
	ck_assert_int_eq(pull(0), -E_PERMIT_EXPIRED);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
}
END_TEST

/* The target's own lease ends in the middle: no more is applied than was under way. */
START_TEST(test_target_gate_closes_in_the_middle)
{
	const int64_t now = reactor_wall_ns(sim_reactor(rig->pd_process));
	char *next = rig_revocations(rig, 2, "par", now - (int64_t)NS_PER_S);
	struct store_stats stats = {0};

	fill_source();
	fresh_permits();
	peer_host_pull_start(&to, CHUNK, 0, "n2", rig->nodes[1].name);
	while (stats.blocks_written == 0) {
		ck_assert(sim_step(rig->world));
		store_get_stats(rig->nodes[0].store, &stats);
	}
	peer_pd_notice(&rig->pd, next);
	rig_wait_lease(&rig->nodes[0], false);
	store_get_stats(rig->nodes[0].store, &stats);
	ck_assert_int_eq(peer_host_ask_wait(&to), -E_REVOKED);
	ck_assert_uint_lt(stats.blocks_written, TEST_BLOCKS / 2);
	rig_run_ms(rig, 1000);
	store_get_stats(rig->nodes[0].store, &stats);
	ck_assert_uint_lt(stats.blocks_written, TEST_BLOCKS - 255);
	free(next);
}
END_TEST

/* The source's lease ends: it sends nothing more, by its own word. */
START_TEST(test_source_gate_closed)
{
	const int64_t now = reactor_wall_ns(sim_reactor(rig->pd_process));
	char *next = rig_revocations(rig, 2, "lyo", now - (int64_t)NS_PER_S);

	fill_source();
	fresh_permits();
	peer_pd_notice(&rig->pd, next);
	rig_wait_lease(&rig->nodes[1], false);
	ck_assert_int_eq(pull(0), -E_REVOKED);
	ck_assert_uint_eq(rig_chunks_held(&rig->nodes[0]), 0);
	free(next);
}
END_TEST

/* A node that asks without being in the permit gets nothing; nor can it write, or fence. */
START_TEST(test_reader_session)
{
	struct peer_host node;
	struct peer_permit p;

	fill_source();
	fresh_permits();
	peer_host_init(&node, sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	ck_assert_int_eq(peer_host_connect(&node, rig->nodes[1].name), 0);
	ck_assert_int_eq(peer_host_hello(&node, "node", "n9"), 0);
	p = rig_permit(rig, 1, 1000);
	ck_assert_int_eq(rig_try_open(&node, &p), -E_NOT_IN_PERMIT);
	peer_host_close(&node);
	ck_assert_int_eq(peer_host_connect(&node, rig->nodes[1].name), 0);
	ck_assert_int_eq(peer_host_hello(&node, "node", "n1"), 0);
	p = rig_permit(rig, 2, 1000);
	ck_assert_int_eq(rig_try_open(&node, &p), 0);
	ck_assert_int_eq(peer_host_write(&node, CHUNK, 0, 1, version_make(2, 1), data), -EROFS);
	ck_assert_int_eq(peer_host_read(&node, CHUNK, 0, 1, back), 0);
	ck_assert_uint_eq(store_generation(rig->nodes[1].store, RIG_VOLUME), 1);
	ck_assert_int_eq(peer_host_write(&from, CHUNK, 0, 1, v(5000), data), 0);
	p = rig_permit(rig, 2, 1001);
	p.nodes[0] = "n2";
	p.sites[0] = "lyo";
	p.nodes[1] = NULL;
	ck_assert_int_eq(rig_update(&node, &p), -E_NOT_IN_PERMIT);
	ck_assert_int_eq(peer_host_read(&node, CHUNK, 0, 1, back), -E_NOT_IN_PERMIT);
	peer_host_close(&node);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("node_resync");
	TCase *t = tcase_create("pull");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_pull_all);
	tcase_add_test(t, test_pull_keeps_versions);
	tcase_add_test(t, test_pull_under_writes);
	tcase_add_test(t, test_pull_a_part);
	tcase_add_test(t, test_the_rate_is_kept);
	tcase_add_test(t, test_connection_breaks);
	tcase_add_test(t, test_source_dies);
	tcase_add_test(t, test_target_dies);
	tcase_add_loop_test(t, test_a_node_ends, 0, 2);
	tcase_add_test(t, test_host_goes);
	tcase_add_test(t, test_source_is_paused);
	tcase_add_test(t, test_source_not_in_permit);
	tcase_add_test(t, test_target_gate_closed);
	tcase_add_test(t, test_target_gate_closes_in_the_middle);
	tcase_add_test(t, test_source_gate_closed);
	tcase_add_test(t, test_reader_session);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
