/* Tests of engine/volume on virtual time, with a driver and nodes that do what each test says
 * (test_volume_rig.h): operations, replicas that fail and come back, hosts that do. What has to do
 * with evidence and with the traps of the protocol: test_volume_traps.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/volume/core.h"
#include "tests/unit/test_volume_rig.h"

#define CHUNK1 RIG_CHUNK_BLOCKS

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

/* -- operations -------------------------------------------------------------------------------- */

START_TEST(what_was_written_is_read)
{
	uint32_t stamp;

	rig_must_read(host, 0, 256, 0);
	ck_assert_int_eq(rig_write(host, 0, 1, 11), 0);
	ck_assert_int_eq(rig_write(host, 5, 256, 22), 0);
	ck_assert_int_eq(rig_write(host, CHUNK1 - 3, 7, 33), 0); /* over the border */
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS - 1, 1, 44), 0);
	rig_must_read(host, 0, 1, 11);
	rig_must_read(host, 5, 256, 22);
	rig_must_read(host, CHUNK1 - 3, 7, 33);
	rig_must_read(host, RIG_BLOCKS - 1, 1, 44);
	rig_must_read(host, 1, 4, 0);
	ck_assert_int_eq(rig_write(host, 6, 2, 55), 0);
	rig_must_read(host, 5, 1, 22);
	rig_must_read(host, 6, 2, 55);
	ck_assert_int_eq(rig_read(host, 6, 2, &stamp), 0);
	rig_run_ms(rig, 100);
	rig_must_agree(rig);
}
END_TEST

/* All places of writes are taken, by many replicas that lag a little each: none has so much that it
 * would be given up. */
START_TEST(writes_wait_for_a_place)
{
	struct vwrite_pool *pool = &host->volume->writes;
	const uint32_t taken = pool->free_count - VWRITE_POOL_RESERVE;
	struct rig_op o[2];

	ck_assert_int_eq(rig_write(host, 0, 2, 1), 0);
	pool->free_count -= taken;
	for (uint32_t i = 0; i < 2; i++)
		rig_start_write(host, &o[i], i, 1, 2 + i);
	rig_run_ms(rig, 1000);
	ck_assert(!o[0].done && !o[1].done);
	pool->free_count += taken;
	volume_room(host->volume);
	for (uint32_t i = 0; i < 2; i++)
		ck_assert_int_eq(rig_finish(&o[i]), 0);
	for (uint32_t i = 0; i < 2; i++)
		rig_must_read(host, i, 1, 2 + i);
}
END_TEST

START_TEST(zeroes_and_discards_read_as_zeroes)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 10, 40, 7), 0);
	rig_start_zero(host, &o, 12, 4, false);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_start_zero(host, &o, 20, 4, true);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 12, 4, 0);
	rig_must_read(host, 20, 4, 0);
	rig_must_read(host, 16, 4, 7);
	/* The whole volume in one operation. */
	rig_start_zero(host, &o, 0, RIG_BLOCKS, true);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 10, 40, 0);
	rig_must_agree(rig);
}
END_TEST

static int submit(uint64_t offset, uint32_t size, enum volume_op_kind kind)
{
	struct rig_op o;

	/* By way of a legal one, whose range is then spoilt. */
	rig_start_zero(host, &o, 0, 1, false);
	ck_assert_int_eq(rig_finish(&o), 0);
	o.done = false;
	o.op.offset = offset;
	o.op.size = size;
	o.op.kind = kind;
	volume_submit(host->volume, &o.op);
	return rig_finish(&o);
}

START_TEST(ranges_are_checked)
{
	ck_assert_int_eq(submit(1, BLOCK_SIZE, VOLUME_ZERO), -EINVAL);
	ck_assert_int_eq(submit(0, 512, VOLUME_ZERO), -EINVAL);
	ck_assert_int_eq(submit(0, 0, VOLUME_ZERO), -EINVAL);
	ck_assert_int_eq(submit(RIG_BLOCKS * (uint64_t)BLOCK_SIZE, BLOCK_SIZE, VOLUME_ZERO),
			 -EINVAL);
	ck_assert_int_eq(submit(UINT64_MAX - BLOCK_SIZE + 1, BLOCK_SIZE, VOLUME_ZERO), -EINVAL);
	ck_assert_int_eq(submit(0, BLOCK_SIZE, VOLUME_READ), -EINVAL); /* no buffer */
	ck_assert_int_eq(submit(0, 0, VOLUME_FLUSH), 0);
}
END_TEST

START_TEST(more_operations_than_the_limit_are_sent_back)
{
	struct rig_op *ops = calloc(VOLUME_OPS_MAX + 1, sizeof(*ops));

	ck_assert_ptr_nonnull(ops);
	rig->nodes[1].hold_writes = rig->nodes[2].hold_writes = true;
	for (uint32_t i = 0; i <= VOLUME_OPS_MAX; i++)
		rig_start_zero(host, &ops[i], i % 1000, 1, false);
	ck_assert_int_eq(rig_finish(&ops[VOLUME_OPS_MAX]), -E_LIMIT);
	fake_release(&rig->nodes[1]);
	for (uint32_t i = 0; i < VOLUME_OPS_MAX; i++)
		ck_assert_int_eq(rig_finish(&ops[i]), 0);
	fake_release(&rig->nodes[2]);
	rig_run_ms(rig, 1000);
	free(ops);
}
END_TEST

START_TEST(a_majority_acknowledges)
{
	struct rig_op o;

	rig->nodes[2].hold_writes = true;
	ck_assert_int_eq(rig_write(host, 3, 2, 1), 0);
	rig->nodes[1].hold_writes = true;
	rig_start_write(host, &o, 3, 2, 2);
	rig_run_ms(rig, 1000);
	ck_assert(!o.done);
	fake_release(&rig->nodes[1]);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 3, 2, 2);
}
END_TEST

START_TEST(reads_go_where_the_write_has_been_answered)
{
	rig->nodes[0].hold_writes = rig->nodes[0].hold_reads = true;
	ck_assert_int_eq(rig_write(host, 3, 1, 9), 0);
	for (int i = 0; i < 20; i++)
		rig_must_read(host, 3, 1, 9);
	ck_assert_uint_eq(rig->nodes[0].reads, 0);
	fake_release(&rig->nodes[0]);
}
END_TEST

START_TEST(the_newest_of_overlapping_writes_wins_everywhere)
{
	struct rig_op o[40];

	for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
		rig_start_write(host, &o[i], 100 + i % 3, 4, i + 1);
	for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
		ck_assert_int_eq(rig_finish(&o[i]), 0);
	rig_run_ms(rig, 100);
	rig_must_agree(rig);
	/* The last began at block 100 (39 % 3 == 0). */
	rig_must_read(host, 100, 4, 40);
}
END_TEST

START_TEST(checksums_are_computed_once)
{
	struct rig_op o;

	rig_start_write(host, &o, 0, 4, 1);
	ck_assert(o.buffer->crcs_known);
	ck_assert_int_eq(rig_finish(&o), 0);
}
END_TEST

struct asked {
	struct volume_extents_op op;
	struct volume_extent extents[8];
	bool done;
	int status;
};

static void extents_done(struct volume_extents_op *op, int status)
{
	struct asked *a = container_of(op, struct asked, op);

	a->done = true;
	a->status = status;
}

static void ask_extents(struct asked *a, uint64_t block, uint64_t count)
{
	*a = (struct asked){0};
	a->op = (struct volume_extents_op){
	    .done = extents_done,
	    .offset = block * BLOCK_SIZE,
	    .size = count * BLOCK_SIZE,
	    .extents = a->extents,
	    .max = ARRAY_SIZE(a->extents),
	};
	volume_extents(host->volume, &a->op);
	ck_assert(!a->done);
	ck_assert(rig_wait(rig, &a->done, 30000));
	ck_assert_int_eq(a->status, 0);
}

static void extent_is(const struct asked *a, uint32_t i, uint64_t blocks, bool allocated)
{
	ck_assert_uint_lt(i, a->op.count);
	ck_assert_uint_eq(a->extents[i].size, blocks * BLOCK_SIZE);
	ck_assert(a->extents[i].allocated == allocated);
}

START_TEST(extents_tell_what_takes_space)
{
	struct asked a;
	struct rig_op o;

	ask_extents(&a, 0, RIG_BLOCKS);
	ck_assert_uint_eq(a.op.count, 1);
	extent_is(&a, 0, RIG_CHUNK_BLOCKS, false); /* a chunk at a time */
	ck_assert_int_eq(rig_write(host, 10, 20, 7), 0);
	ck_assert_int_eq(rig_write(host, 30, 5, 8), 0);
	rig_start_zero(host, &o, 15, 5, true);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_run_ms(rig, 100);
	ask_extents(&a, 2, 100);
	ck_assert_uint_eq(a.op.count, 5);
	extent_is(&a, 0, 8, false);
	extent_is(&a, 1, 5, true);
	extent_is(&a, 2, 5, false);
	extent_is(&a, 3, 15, true);
	extent_is(&a, 4, 67, false);
	/* More runs than one answer has place for. */
	for (uint32_t i = 0; i < 200; i++)
		ck_assert_int_eq(rig_write(host, CHUNK1 + 2 * i, 1, 7), 0);
	rig_run_ms(rig, 100);
	ask_extents(&a, CHUNK1, 400);
	ck_assert_uint_eq(a.op.count, 8);
	extent_is(&a, 0, 1, true);
	extent_is(&a, 7, 1, false);
	/* Nobody to ask: allocated, after a while. */
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_crash(&rig->nodes[i]);
	ask_extents(&a, 100, 100);
	ck_assert_uint_eq(a.op.count, 1);
	extent_is(&a, 0, 100, true);
}
END_TEST

START_TEST(a_read_only_attachment_does_not_write)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 1, 5), 0);
	rig_close(host);
	host->read_only = true;
	rig_open(host);
	rig_must_read(host, 0, 1, 5);
	rig_start_zero(host, &o, 0, 1, false);
	ck_assert_int_eq(rig_finish(&o), -EROFS);
}
END_TEST

/* -- replicas ---------------------------------------------------------------------------------- */

START_TEST(a_node_that_returns_gets_what_it_missed)
{
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	fake_crash(&rig->nodes[0]);
	for (uint32_t i = 0; i < 50; i++)
		ck_assert_int_eq(rig_write(host, i * 3, 2, 100 + i), 0);
	fake_start(&rig->nodes[0]);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
	/* From the backlog: no resync. */
	ck_assert_uint_eq(rig_stats(host).resyncs, 0);
	ck_assert_uint_eq(rig->nodes[0].pulls, 0);
}
END_TEST

/* In the middle of it the node crashes, and other blocks are written the while. */
START_TEST(a_resync_goes_on_where_it_stopped)
{
	const uint32_t writes = VOLUME_BACKLOG_BYTES_MAX / IO_SIZE_MAX + 20;
	struct fake_node *n = &rig->nodes[0];

	rig_run_ms(rig, 2000);
	fake_crash(n);
	for (uint32_t i = 0; i < writes; i++)
		ck_assert_int_eq(rig_write(host, (i % 8) * 256, 256, 100 + i), 0);
	n->stop_pulls_at = 3 * 256 + 77;
	fake_start(n);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(n->copied_blocks, n->stop_pulls_at);
	/* It gets these by itself. */
	ck_assert_int_eq(rig_write(host, 7 * 256, 256, 999), 0);
	n->stop_pulls_at = 5 * 256;
	fake_crash(n);
	fake_start(n);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(n->copied_blocks, 5 * 256);
	n->stop_pulls_at = 0;
	fake_crash(n);
	fake_start(n);
	rig_run_ms(rig, 4000);
	ck_assert_uint_eq(n->copied_blocks, 7 * 256);
	ck_assert_uint_ge(rig_stats(host).resyncs, 1);
	rig_must_agree(rig);
}
END_TEST

START_TEST(a_node_that_was_away_too_long_is_resynced)
{
	const uint32_t writes = VOLUME_BACKLOG_BYTES_MAX / IO_SIZE_MAX + 20;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig_run_ms(rig, 2000);
	fake_crash(&rig->nodes[0]);
	for (uint32_t i = 0; i < writes; i++)
		ck_assert_int_eq(rig_write(host, (i % 16) * 256, 256, 100 + i), 0);
	ck_assert_int_eq(rig_write(host, CHUNK1 + 9, 1, 8), 0);
	fake_start(&rig->nodes[0]);
	rig_run_ms(rig, 8000);
	ck_assert_uint_eq(rig_stats(host).resyncs, 2);
	ck_assert_uint_ge(rig->nodes[0].pulls, 1);
	rig_must_agree(rig);
	/* It counts again: with another one away it is the majority, and it serves. */
	fake_crash(&rig->nodes[1]);
	ck_assert_int_eq(rig_write(host, 9, 1, 77), 0);
	fake_crash(&rig->nodes[2]);
	rig_must_read(host, 9, 1, 77);
	rig_must_read(host, 256, 1, fake_stamp(&rig->nodes[0], 256));
}
END_TEST

START_TEST(a_slow_node_is_cut_off_and_holds_nobody_up)
{
	const uint32_t writes = VOLUME_BACKLOG_BYTES_MAX / IO_SIZE_MAX + 20;

	rig->nodes[0].hold_writes = true;
	for (uint32_t i = 0; i < writes; i++)
		ck_assert_int_eq(rig_write(host, (i % 16) * 256, 256, 100 + i), 0);
	ck_assert_uint_ge(rig->nodes[0].opens, 1);
	fake_release(&rig->nodes[0]);
	rig_run_ms(rig, 8000);
	rig_must_agree(rig);
	ck_assert_uint_ge(rig_stats(host).resyncs, 1);
}
END_TEST

START_TEST(writes_during_resync_arrive)
{
	const uint32_t writes = VOLUME_BACKLOG_BYTES_MAX / IO_SIZE_MAX + 20;
	struct rig_op o[64];

	fake_crash(&rig->nodes[0]);
	for (uint32_t i = 0; i < writes; i++)
		ck_assert_int_eq(rig_write(host, (i % 16) * 256, 256, 100 + i), 0);
	fake_start(&rig->nodes[0]);
	for (uint32_t round = 0; round < 40; round++) {
		for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
			rig_start_write(host, &o[i], (i * 37 + round) % 4000, 3,
					1000 * (round + 1) + i);
		for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
			ck_assert_int_eq(rig_finish(&o[i]), 0);
		rig_run_ms(rig, 50);
	}
	rig_run_ms(rig, 5000);
	ck_assert_uint_ge(rig_stats(host).resyncs, 1);
	rig_must_agree(rig);
}
END_TEST

START_TEST(when_all_nodes_return_writes_go_on)
{
	struct rig_op o[10];

	ck_assert_int_eq(rig_write(host, 0, 1, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_crash(&rig->nodes[i]);
	/* Some are sent into the dark, the others are held. */
	for (uint32_t i = 0; i < ARRAY_SIZE(o); i++) {
		rig_start_write(host, &o[i], i, 1, 50 + i);
		rig_run_ms(rig, 200);
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
		ck_assert(!o[i].done);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_start(&rig->nodes[i]);
	for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
		ck_assert_int_eq(rig_finish(&o[i]), 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(o); i++)
		rig_must_read(host, i, 1, 50 + i);
	ck_assert_uint_ge(rig_stats(host).freezes, 1);
}
END_TEST

/* The last current replicas go for good, and those that were behind make a majority: what they hold
 * together is everything. */
START_TEST(a_majority_without_a_current_replica_is_reconciled)
{
	const uint32_t writes = VOLUME_BACKLOG_BYTES_MAX / IO_SIZE_MAX + 20;

	fake_crash(&rig->nodes[0]);
	for (uint32_t i = 0; i < writes; i++)
		ck_assert_int_eq(rig_write(host, (i % 16) * 256, 256, 100 + i), 0);
	/* Node 0 joins, but can't catch up; node 1 has everything, node 2 misses the last write. */
	rig->nodes[0].hold_pulls = true;
	fake_start(&rig->nodes[0]);
	rig_run_ms(rig, 3000);
	fake_crash(&rig->nodes[2]);
	ck_assert_int_eq(rig_write(host, 700, 1, 9), 0); /* nodes 0 and 1 */
	for (uint32_t i = 0; i < writes; i++)
		ck_assert_int_eq(rig_write(host, (i % 16) * 256, 256, 1000 + i), 0);
	fake_crash(&rig->nodes[1]);
	rig->nodes[0].hold_pulls = false;
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 3000);
	for (uint32_t b = 0; b < 16; b++)
		rig_must_read(host, b * 256, 256, fake_stamp(&rig->nodes[1], b * 256));
	ck_assert_int_eq(rig_write(host, 3, 1, 4), 0);
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 8000);
	rig_must_agree(rig);
}
END_TEST

START_TEST(chunks_find_their_shard)
{
	rig_close(host);
	rig->pd.shards = 2;
	rig->pd.unknown = 2; /* the driver doesn't know where node 1 is */
	rig_open(host);
	for (uint32_t i = 0; i < 40; i++)
		ck_assert_int_eq(rig_write(host, (i % 2) * CHUNK1 + i, 2, i + 1), 0);
	ck_assert_uint_eq(rig->nodes[1].opens, 1); /* of the first attachment */
	rig->pd.unknown = 0;			   /* the next renewal says it */
	rig_run_ms(rig, 8000);
	ck_assert_uint_eq(rig->nodes[1].opens, 3);
	rig_must_agree(rig);
	fake_crash(&rig->nodes[0]);
	for (uint32_t i = 0; i < 40; i++)
		rig_must_read(host, (i % 2) * CHUNK1 + i, 1, i + 1);
}
END_TEST

static void lose_disk(struct fake_node *n)
{
	fake_crash(n);
	for (uint32_t b = 0; b < 8; b++) {
		free(n->chunks[0].blocks[b].data);
		n->chunks[0].blocks[b] = (struct fake_block){0};
	}
	n->chunks[0].watermark = 0;
	fake_start(n);
}

/* Nor when it loses it again, as soon as it has caught up. */
START_TEST(a_node_that_lost_its_disk_is_not_trusted)
{
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig_run_ms(rig, 3000); /* its watermark is durable */
	ck_assert_uint_gt(rig->nodes[0].chunks[0].watermark, 0);
	lose_disk(&rig->nodes[0]);
	for (uint32_t i = 0; i < 3000 && rig_stats(host).resyncs == 0; i++)
		rig_run_ms(rig, 1);
	ck_assert_uint_eq(rig_stats(host).resyncs, 1);
	lose_disk(&rig->nodes[0]);
	rig_run_ms(rig, 3000);
	for (int i = 0; i < 20; i++)
		rig_must_read(host, 0, 8, 1);
	rig_must_agree(rig);
}
END_TEST

/* A device of node 1 fails, which holds chunk 0 and not chunk 1. */
START_TEST(a_failed_device_costs_its_chunks_one_replica)
{
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	ck_assert_int_eq(rig_write(host, CHUNK1, 8, 2), 0);
	rig->nodes[1].device_failed = true;
	for (uint32_t i = 0; i < 20; i++) {
		ck_assert_int_eq(rig_write(host, i, 1, 10 + i), 0);
		ck_assert_int_eq(rig_write(host, CHUNK1 + i, 1, 40 + i), 0);
	}
	rig_run_ms(rig, 5000);
	for (uint32_t i = 0; i < 20; i++)
		rig_must_read(host, i, 1, 10 + i);
	/* The node was not given up for it. */
	ck_assert_uint_eq(rig->nodes[1].opens, 1);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[1], CHUNK1 + 19), 40 + 19);
	ck_assert_uint_ne(fake_stamp(&rig->nodes[1], 19), 10 + 19);
	/* A host that comes later goes on without that replica at once, and does without a third.
	 */
	rig_crash_host(host);
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 3, 1, 77), 0);
	ck_assert_int_eq(rig_write(host, CHUNK1 + 3, 1, 78), 0);
	rig_must_read(host, 3, 1, 77);
	/* It is back: the replica catches up. */
	rig->nodes[1].device_failed = false;
	fake_crash(&rig->nodes[1]);
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 10000);
	rig_must_read(host, 3, 1, 77);
	rig_must_agree(rig);
}
END_TEST

/* -- what goes wrong with data ----------------------------------------------------------------- */

START_TEST(a_bad_block_is_read_elsewhere_and_repaired)
{
	ck_assert_int_eq(rig_write(host, 40, 8, 6), 0);
	rig->nodes[0].corrupt_block = 42;
	rig->nodes[0].has_corrupt_block = true;
	for (int i = 0; i < 200 && rig->nodes[0].has_corrupt_block; i++) {
		rig_must_read(host, 40, 8, 6);
		rig_run_ms(rig, 20);
	}
	ck_assert(!rig->nodes[0].has_corrupt_block);
	ck_assert_uint_ge(rig_stats(host).repairs, 1);
	rig_must_read(host, 40, 8, 6);
	rig_run_ms(rig, 1000);
	rig_must_agree(rig);
}
END_TEST

/* Each replica has another bad block: no one can read all of them, and together they can. */
START_TEST(every_replica_may_have_a_bad_block_of_its_own)
{
	ck_assert_int_eq(rig_write(host, 40, 8, 6), 0);
	rig_run_ms(rig, 500);
	for (uint32_t i = 0; i < RIG_NODES; i++) {
		rig->nodes[i].corrupt_block = 41 + 2 * i;
		rig->nodes[i].has_corrupt_block = true;
	}
	rig_must_read(host, 40, 8, 6);
	rig_run_ms(rig, 2000);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert(!rig->nodes[i].has_corrupt_block);
	rig_must_read(host, 40, 8, 6);
	/* The same block everywhere is lost. */
	for (uint32_t i = 0; i < RIG_NODES; i++) {
		rig->nodes[i].corrupt_block = 43;
		rig->nodes[i].has_corrupt_block = true;
	}
	{
		uint32_t stamp;

		ck_assert_int_eq(rig_read(host, 40, 8, &stamp), -EIO);
	}
	rig_must_read(host, 40, 3, 6);
	rig_must_read(host, 44, 4, 6);
}
END_TEST

/* Nobody reads it: the node itself has found it. */
START_TEST(a_bad_block_that_a_node_reports_is_repaired)
{
	uint64_t opens = rig->nodes[0].opens;

	ck_assert_int_eq(rig_write(host, RIG_CHUNK_BLOCKS + 40, 8, 6), 0);
	rig_run_ms(rig, 3000);
	rig->nodes[0].corrupt_block = RIG_CHUNK_BLOCKS + 42;
	rig->nodes[0].has_corrupt_block = true;
	/* What cannot be is passed over. */
	fake_tell_damage(&rig->nodes[0], RIG_CHUNKS, 40, 1);
	fake_tell_damage(&rig->nodes[0], UINT32_MAX, 40, 1);
	fake_tell_damage(&rig->nodes[0], 1, RIG_CHUNK_BLOCKS, 1);
	fake_tell_damage(&rig->nodes[0], 1, RIG_CHUNK_BLOCKS - 1, 2);
	fake_tell_damage(&rig->nodes[0], 1, 40, 0);
	fake_tell_damage(&rig->nodes[0], 1, 40, IO_BLOCKS_MAX + 1);
	fake_tell_damage(&rig->nodes[0], 1, UINT32_MAX, UINT32_MAX);
	rig_run_ms(rig, 500);
	ck_assert(rig->nodes[0].has_corrupt_block);
	ck_assert_uint_eq(rig_stats(host).repairs, 0);
	fake_tell_damage(&rig->nodes[0], 1, 42, 1);
	fake_tell_damage(&rig->nodes[0], 1, 42, 1);
	rig_run_ms(rig, 1000);
	ck_assert(!rig->nodes[0].has_corrupt_block);
	ck_assert_uint_ge(rig_stats(host).repairs, 1);
	ck_assert_uint_eq(rig->nodes[0].opens, opens);
	rig_must_read(host, RIG_CHUNK_BLOCKS + 40, 8, 6);
	rig_run_ms(rig, 1000);
	rig_must_agree(rig);
}
END_TEST

START_TEST(what_is_spoilt_on_the_way_is_never_returned)
{
	ck_assert_int_eq(rig_write(host, 40, 256, 6), 0);
	rig->nodes[0].corrupt_reads = rig->nodes[1].corrupt_reads = true;
	for (int i = 0; i < 10; i++) {
		rig_must_read(host, 40, 256, 6);
		rig_must_read(host, 40, 1, 6);
	}
	rig->nodes[2].corrupt_reads = true;
	rig_run_ms(rig, 1000);
	{
		uint32_t stamp;

		ck_assert_int_eq(rig_read(host, 40, 1, &stamp), -EIO);
	}
}
END_TEST

START_TEST(a_full_cluster_says_so_at_once_and_reads_go_on)
{
	const uint64_t before = rig->world->now_ns;

	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].write_status = -ENOSPC;
	ck_assert_int_eq(rig_write(host, 0, 4, 2), -ENOSPC);
	ck_assert_uint_lt(rig->world->now_ns - before, NS_PER_S);
	rig_must_read(host, 0, 4, 1);
	/* Space comes back. */
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].write_status = 0;
	ck_assert_int_eq(rig_write(host, 0, 4, 3), 0);
	rig_must_read(host, 0, 4, 3);
}
END_TEST

/* A node whose disk fails answers everything but writes: reconciling does without it. */
START_TEST(a_node_that_cannot_write_holds_nobody_up)
{
	struct rig_op w[2];
	const uint64_t begun_ns = rig->world->now_ns;

	rig->nodes[1].hold_writes = rig->nodes[2].hold_writes = true;
	rig_start_write(host, &w[0], 3, 1, 31);
	rig_start_write(host, &w[1], CHUNK1 + 3, 1, 32);
	rig_run_ms(rig, 20);
	rig_crash_host(host);
	fake_release(&rig->nodes[1]);
	fake_release(&rig->nodes[2]);
	fake_put(&rig->nodes[1], 9, version_make(1, 77), 99);
	rig->nodes[0].write_lies = rig->nodes[0].write_status = -EIO;
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 4, 1, 41), 0);
	ck_assert_uint_lt(rig->world->now_ns - begun_ns, 12 * NS_PER_S);
	rig_must_read(host, 4, 1, 41);
	rig->nodes[0].write_lies = rig->nodes[0].write_status = 0;
	rig_run_ms(rig, 60000);
	rig_must_agree(rig);
}
END_TEST

START_TEST(one_full_node_is_behind_until_it_has_space)
{
	rig->nodes[1].write_status = -ENOSPC;
	rig->nodes[1].hold_pulls = true;
	for (uint32_t i = 0; i < 20; i++)
		ck_assert_int_eq(rig_write(host, i, 1, i + 1), 0);
	for (uint32_t i = 0; i < 20; i++)
		rig_must_read(host, i, 1, i + 1);
	ck_assert_uint_eq(rig->nodes[1].reads, 0);
	rig->nodes[1].write_status = 0;
	rig->nodes[1].hold_pulls = false;
	fake_crash(&rig->nodes[1]); /* with the pull that was held */
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 60000);
	rig_must_agree(rig);
	ck_assert_uint_ge(rig_stats(host).resyncs, 1);
}
END_TEST

/* One node stored it, two had no space: it was refused, so nobody may see it, then, or now and
 * then. */
START_TEST(a_refused_write_does_not_flap)
{
	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	rig->nodes[0].write_status = rig->nodes[1].write_status = -ENOSPC;
	ck_assert_int_eq(rig_write(host, 0, 4, 2), -ENOSPC);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], 0), 2);
	for (int i = 0; i < 50; i++)
		rig_must_read(host, 0, 4, 1);
	rig->nodes[0].write_status = rig->nodes[1].write_status = 0;
	rig_run_ms(rig, 60000);
	rig_must_read(host, 0, 4, 1);
	rig_must_agree(rig);
}
END_TEST

/* A refused write is still on its way to the third node, and arrives long after. */
START_TEST(a_refused_write_that_arrives_late_does_not_flap)
{
	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	rig->nodes[0].write_status = rig->nodes[1].write_status = -ENOSPC;
	rig->nodes[2].delay_writes = true;
	ck_assert_int_eq(rig_write(host, 0, 4, 2), -ENOSPC);
	rig->nodes[0].write_status = rig->nodes[1].write_status = 0;
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], 0), 1);
	fake_release(&rig->nodes[2]);
	rig_run_ms(rig, 5000);
	ck_assert_uint_ge(rig_stats(host).resyncs, 1);
	for (int i = 0; i < 50; i++)
		rig_must_read(host, 0, 4, 1);
	rig_must_agree(rig);
}
END_TEST

/* Three refused writes, each on its way to another node, so that nobody is current any more: what
 * the nodes hold is asked only when these have arrived. */
START_TEST(reconciling_waits_for_what_may_still_arrive)
{
	struct rig_op r;
	uint32_t first, stamp;

	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	for (uint32_t late = 0; late < RIG_NODES; late++) {
		for (uint32_t i = 0; i < RIG_NODES; i++) {
			rig->nodes[i].delay_writes = i == late;
			rig->nodes[i].write_status = i == late ? 0 : -ENOSPC;
		}
		ck_assert_int_eq(rig_write(host, 0, 4, 2 + late), -ENOSPC);
	}
	for (uint32_t i = 0; i < RIG_NODES; i++) {
		rig->nodes[i].delay_writes = false;
		rig->nodes[i].write_status = 0;
	}
	rig_start_read(host, &r, 0, 4);
	rig_run_ms(rig, 1000);
	ck_assert(!r.done);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert(rig_wait(rig, &r.done, 5000));
	first = rig_stamp_of(&r, 0);
	ck_assert_int_eq(rig_finish(&r), 0);
	for (int i = 0; i < 30; i++) {
		ck_assert_int_eq(rig_read(host, 0, 4, &stamp), 0);
		ck_assert_uint_eq(stamp, first);
		rig_run_ms(rig, 100);
	}
	rig_must_agree(rig);
}
END_TEST

START_TEST(a_write_that_timed_out_is_settled)
{
	struct rig_op o;
	uint32_t first = 0, stamp;

	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	/* Everybody stores it; two never answer. */
	rig->nodes[0].hold_writes = rig->nodes[1].hold_writes = true;
	rig_start_write(host, &o, 0, 4, 2);
	ck_assert_int_eq(rig_finish(&o), -EIO);
	rig->nodes[0].hold_writes = rig->nodes[1].hold_writes = false;
	rig_run_ms(rig, 5000);
	ck_assert_int_eq(rig_read(host, 0, 4, &first), 0);
	ck_assert(first == 1 || first == 2);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(rig_read(host, 0, 4, &stamp), 0);
		ck_assert_uint_eq(stamp, first);
	}
	rig_run_ms(rig, 20000);
	rig_must_agree(rig);
	rig_must_read(host, 0, 4, first);
}
END_TEST

/* -- the host ---------------------------------------------------------------------------------- */

START_TEST(an_idle_volume_has_nothing_to_reconcile)
{
	for (uint32_t i = 0; i < 30; i++)
		ck_assert_int_eq(rig_write(host, i * 200, 2, i + 1), 0);
	rig_run_ms(rig, 3000);
	rig_crash_host(host);
	rig_open(host);
	rig_must_read(host, 200, 2, 2);
	rig_must_read(host, 29 * 200, 2, 30);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_uint_eq(rig->nodes[i].changes, 0);
	ck_assert_uint_eq(rig_stats(host).reconciled_blocks, 0);
}
END_TEST

START_TEST(a_clean_detach_releases_the_permit_and_seals)
{
	struct rig_host *second = &rig->hosts[1];
	uint64_t began;

	for (uint32_t i = 0; i < 30; i++)
		ck_assert_int_eq(rig_write(host, i * 200, 2, i + 1), 0);
	rig_close(host);
	ck_assert_uint_eq(rig->pd.detaches, 1);
	began = rig->world->now_ns;
	rig_open(second);
	ck_assert_uint_lt(rig->world->now_ns - began, NS_PER_S);
	rig_must_read(second, 200, 2, 2);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_uint_eq(rig->nodes[i].changes, 0);
}
END_TEST

START_TEST(a_crashed_host_leaves_one_truth)
{
	struct rig_op o[30];
	uint32_t stamp[30], again;

	for (uint32_t i = 0; i < 30; i++)
		ck_assert_int_eq(rig_write(host, i * 2, 2, i + 1), 0);
	/* Some of these reach one node, some two, some none. */
	rig->nodes[1].hold_writes = true;
	for (uint32_t i = 0; i < 30; i++)
		rig_start_write(host, &o[i], i * 2, 2, 100 + i);
	rig_run_ms(rig, 3);
	rig_crash_host(host);
	fake_release(&rig->nodes[1]);
	rig_open(host);
	for (uint32_t i = 0; i < 30; i++) {
		ck_assert_int_eq(rig_read(host, i * 2, 2, &stamp[i]), 0);
		ck_assert(stamp[i] == i + 1 || stamp[i] == 100 + i);
	}
	rig_run_ms(rig, 3000);
	rig_must_agree(rig);
	for (uint32_t n = 0; n < RIG_NODES; n++) {
		fake_crash(&rig->nodes[n]);
		for (uint32_t i = 0; i < 30; i++) {
			ck_assert_int_eq(rig_read(host, i * 2, 2, &again), 0);
			ck_assert_uint_eq(again, stamp[i]);
		}
		fake_start(&rig->nodes[n]);
		rig_run_ms(rig, 5000);
	}
}
END_TEST

START_TEST(attaching_without_a_majority_says_who_is_missing)
{
	rig_close(host);
	fake_crash(&rig->nodes[1]);
	rig->nodes[2].open_status = -E_NO_LEASE;
	rig_open_start(host);
	ck_assert(rig_wait(rig, &host->opened, 60000));
	ck_assert_int_eq(host->open_status, -E_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(host->open_error.text, "lyo1"));
	ck_assert_ptr_nonnull(strstr(host->open_error.text, "holds no lease"));
	host->volume = NULL;
	/* The permit was given back. */
	ck_assert_uint_eq(rig->pd.detaches, 2);
	rig->nodes[2].open_status = 0;
	rig_open(host);
}
END_TEST

START_TEST(attaching_without_a_driver_fails)
{
	rig_close(host);
	sim_process_crash(rig->pd.process, SIM_KILL);
	rig_open_start(host);
	ck_assert(rig_wait(rig, &host->opened, 60000));
	ck_assert_int_eq(host->open_status, -E_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(host->open_error.text, "pd"));
}
END_TEST

/* Its chunks, counted, must not come to nothing. */
START_TEST(attaching_to_a_size_that_cannot_be_fails)
{
	static const uint64_t sizes[] = {BLOCK_SIZE, BLOCK_SIZE + 1, (uint64_t)1 << 63,
					 UINT64_MAX - BLOCK_SIZE + 1};

	rig_close(host);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		rig->pd.size = sizes[i];
		rig_open_start(host);
		ck_assert(rig_wait(rig, &host->opened, 60000));
		ck_assert_int_eq(host->open_status, -E_BAD_DOCUMENT);
	}
}
END_TEST

START_TEST(closing_waits_for_operations_and_refuses_new_ones)
{
	struct rig_op o, late;

	rig->nodes[1].hold_writes = rig->nodes[2].hold_writes = true;
	rig_start_write(host, &o, 0, 1, 5);
	rig_run_ms(rig, 100);
	volume_close(host->volume, (void (*)(void *))abort, NULL);
	rig_start_zero(host, &late, 0, 1, false);
	ck_assert_int_eq(rig_finish(&late), -ECANCELED);
	ck_assert(!o.done);
}
END_TEST

START_TEST(the_driver_may_ask_for_a_detach)
{
	rig_notify_detach(rig);
	ck_assert(rig_wait(rig, &host->ended, 1000));
	ck_assert_int_eq(host->ended_why, 0);
	rig_close(host);
	ck_assert_uint_eq(rig->pd.detaches, 1);
}
END_TEST

START_TEST(the_driver_hears_how_replicas_are)
{
	ck_assert_int_eq(rig_write(host, 0, 1, 5), 0);
	fake_crash(&rig->nodes[1]);
	rig_run_ms(rig, 8000);
	ck_assert_str_eq(rig->pd.states[0], "current");
	ck_assert_str_eq(rig->pd.states[1], "away");
	ck_assert_str_eq(rig->pd.states[2], "current");
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("volume");
	Suite *s = suite_create("volume");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_was_written_is_read);
	tcase_add_test(tc, writes_wait_for_a_place);
	tcase_add_test(tc, zeroes_and_discards_read_as_zeroes);
	tcase_add_test(tc, ranges_are_checked);
	tcase_add_test(tc, more_operations_than_the_limit_are_sent_back);
	tcase_add_test(tc, a_majority_acknowledges);
	tcase_add_test(tc, reads_go_where_the_write_has_been_answered);
	tcase_add_test(tc, the_newest_of_overlapping_writes_wins_everywhere);
	tcase_add_test(tc, checksums_are_computed_once);
	tcase_add_test(tc, extents_tell_what_takes_space);
	tcase_add_test(tc, a_read_only_attachment_does_not_write);
	tcase_add_test(tc, a_node_that_returns_gets_what_it_missed);
	tcase_add_test(tc, a_node_that_was_away_too_long_is_resynced);
	tcase_add_test(tc, a_resync_goes_on_where_it_stopped);
	tcase_add_test(tc, a_slow_node_is_cut_off_and_holds_nobody_up);
	tcase_add_test(tc, writes_during_resync_arrive);
	tcase_add_test(tc, when_all_nodes_return_writes_go_on);
	tcase_add_test(tc, a_majority_without_a_current_replica_is_reconciled);
	tcase_add_test(tc, chunks_find_their_shard);
	tcase_add_test(tc, a_node_that_lost_its_disk_is_not_trusted);
	tcase_add_test(tc, a_failed_device_costs_its_chunks_one_replica);
	tcase_add_test(tc, a_bad_block_is_read_elsewhere_and_repaired);
	tcase_add_test(tc, every_replica_may_have_a_bad_block_of_its_own);
	tcase_add_test(tc, a_bad_block_that_a_node_reports_is_repaired);
	tcase_add_test(tc, what_is_spoilt_on_the_way_is_never_returned);
	tcase_add_test(tc, a_full_cluster_says_so_at_once_and_reads_go_on);
	tcase_add_test(tc, a_node_that_cannot_write_holds_nobody_up);
	tcase_add_test(tc, one_full_node_is_behind_until_it_has_space);
	tcase_add_test(tc, a_refused_write_does_not_flap);
	tcase_add_test(tc, a_refused_write_that_arrives_late_does_not_flap);
	tcase_add_test(tc, reconciling_waits_for_what_may_still_arrive);
	tcase_add_test(tc, a_write_that_timed_out_is_settled);
	tcase_add_test(tc, an_idle_volume_has_nothing_to_reconcile);
	tcase_add_test(tc, a_clean_detach_releases_the_permit_and_seals);
	tcase_add_test(tc, a_crashed_host_leaves_one_truth);
	tcase_add_test(tc, attaching_without_a_majority_says_who_is_missing);
	tcase_add_test(tc, attaching_without_a_driver_fails);
	tcase_add_test(tc, attaching_to_a_size_that_cannot_be_fails);
	tcase_add_test(tc, closing_waits_for_operations_and_refuses_new_ones);
	tcase_add_test(tc, the_driver_may_ask_for_a_detach);
	tcase_add_test(tc, the_driver_hears_how_replicas_are);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
