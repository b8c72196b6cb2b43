/* The volume without memory: every allocation of its own fails once, while a host attaches, writes,
 * asks what is allocated, reconciles what a crashed one left, brings a replica up to date, moves
 * a chunk and grows. Nothing ends the process, nothing leaks. What cannot be done fails with
 * -ENOMEM when the volume is opened; afterwards it is done later. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "alloc_fail.h"
#include "engine/volume/core.h"
#include "tests/unit/test_volume_rig.h"

#define RUNS_MAX 1000u
#define CHUNK1	 RIG_CHUNK_BLOCKS
#define LEARNER	 3u

static struct rig *rig;
static struct rig_host *host;
static uint64_t refused;

/* With memory again, if there was none. */
static void open_volume(void)
{
	rig_open_start(host);
	ck_assert(rig_wait(rig, &host->opened, 30000));
	if (host->open_status == 0)
		return;
	ck_assert(alloc_failed());
	ck_assert_int_eq(host->open_status, -ENOMEM);
	refused++;
	rig_open(host);
}

/* Who gets no buffer asks again. */
static void write_blocks(uint64_t block, uint32_t count, uint32_t stamp)
{
	struct volume_buffer *b = volume_buffer_get(host->volume, count * BLOCK_SIZE);

	ck_assert(b != NULL || alloc_failed());
	if (b == NULL)
		b = volume_buffer_get(host->volume, count * BLOCK_SIZE);
	ck_assert_ptr_nonnull(b);
	volume_buffer_put(host->volume, b);
	ck_assert_int_eq(rig_write(host, block, count, stamp), 0);
}

static void extents_done(struct volume_extents_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	ck_assert_uint_gt(op->count, 0);
	op->size = 0;
}

static void ask_extents(uint64_t block, uint64_t count)
{
	struct volume_extent extents[8];
	struct volume_extents_op op = {
	    .done = extents_done,
	    .offset = block * BLOCK_SIZE,
	    .size = count * BLOCK_SIZE,
	    .extents = extents,
	    .max = ARRAY_SIZE(extents),
	};

	volume_extents(host->volume, &op);
	for (uint32_t i = 0; i < 5000 && op.size != 0; i++)
		rig_run_ms(rig, 1);
	ck_assert_uint_eq(op.size, 0);
}

/* Node 2 is away, and lacks what was written since; node 0 has a phantom. */
static void differ(void)
{
	fake_crash(&rig->nodes[2]);
	for (uint32_t i = 0; i < 40; i++)
		write_blocks(CHUNK1 + 2 * i, 1, 7 + i);
	write_blocks(4, 4, 9);
	rig_crash_host(host);
	fake_put(&rig->nodes[0], 2, version_make(rig->pd.generation, 1000), 66);
}

static void must_be_equal(void)
{
	for (uint32_t i = 0; i < 20; i++)
		rig_run_ms(rig, 1000);
	rig_must_agree(rig);
}

static void one_life(void)
{
	uint32_t stamp;

	open_volume();
	write_blocks(0, 64, 5);
	ask_extents(0, 100);
	differ();
	open_volume();
	rig_must_read(host, 4, 4, 9);
	ck_assert_int_eq(rig_read(host, 2, 1, &stamp), 0);
	for (uint32_t i = 0; i < 40; i++)
		rig_must_read(host, CHUNK1 + 2 * i, 1, 7 + i);
	fake_start(&rig->nodes[2]);
	must_be_equal();
	rig_must_read(host, 2, 1, stamp);
	rig_move(rig, 0, 0, LEARNER);
	for (uint32_t i = 0; i < 60 && rig_stats(host).moves == 0; i++)
		rig_run_ms(rig, 1000);
	ck_assert_uint_eq(rig_stats(host).moves, 1);
	write_blocks(0, 2, 10);
	rig_must_read(host, 0, 2, 10);
	rig_grow(rig, (RIG_CHUNKS + 1) * RIG_CHUNK_SIZE, true);
	for (uint32_t i = 0; i < 10 && volume_size(host->volume) != rig->pd.bytes; i++)
		rig_run_ms(rig, 1000);
	write_blocks(RIG_BLOCKS, 2, 11);
	rig_must_read(host, RIG_BLOCKS, 2, 11);
	rig_close(host);
}

/* On a sealed layer. */
static void growing_life(void)
{
	rig->pd.snapshots = rig->pd.open_layers = 1;
	open_volume();
	write_blocks(0, 4, 5);
	rig_grow(rig, (RIG_CHUNKS + 2) * RIG_CHUNK_SIZE, true);
	for (uint32_t i = 0; i < 10 && volume_size(host->volume) != rig->pd.bytes; i++)
		rig_run_ms(rig, 1000);
	rig_must_read(host, RIG_BLOCKS, 2, 0);
	write_blocks(RIG_BLOCKS + RIG_CHUNK_BLOCKS - 2, 4, 11);
	rig_must_read(host, RIG_BLOCKS + RIG_CHUNK_BLOCKS - 2, 4, 11);
	rig_must_read(host, 0, 4, 5);
	rig_close(host);
}

static const struct {
	uint32_t shards; /* of each node */
	void (*life)(void);
} lives[] = {{1, one_life}, {2, one_life}, {1, growing_life}};

START_TEST(any_allocation_may_fail)
{
	bool failed = true;
	uint64_t n = 1;

	refused = 0;
	for (; failed; n++) {
		ck_assert_uint_lt(n, RUNS_MAX);
		rig = rig_create(n);
		host = &rig->hosts[0];
		rig->pd.shards = lives[_i].shards;
		alloc_fail_at(n);
		lives[_i].life();
		failed = alloc_failed();
		alloc_fail_at(0);
		rig_destroy(rig);
		ck_assert_msg(alloc_live() == 0, "allocation %lu: %lu leaked", (unsigned long)n,
			      (unsigned long)alloc_live());
	}
	ck_assert_uint_gt(n, 30);
	ck_assert_uint_gt(refused, 10);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("alloc");
	Suite *s = suite_create("volume_alloc");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, any_allocation_may_fail, 0, ARRAY_SIZE(lives));
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
