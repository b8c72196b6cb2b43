/* Tests of engine/volume: layers that begin, are sealed and are retired, as permits
 * tell. */
#include <check.h>
#include <stdlib.h>

#include "engine/volume/core.h"
#include "tests/unit/test_volume_rig.h"

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

/* So many snapshots after the first layer; of all layers the upper ones, so many, are open. */
static void take_layers(uint32_t snapshots, uint32_t open)
{
	rig->pd.snapshots = snapshots;
	rig->pd.open_layers = open;
	rig_permit(rig, rig->pd.nodes);
	rig_run_ms(rig, 10);
}

static uint32_t set_count(void)
{
	uint32_t n = 0;

	for (const struct vset *set = host->volume->sets; set != NULL; set = set->next)
		n++;
	return n;
}

/* A node has the last word of a chunk, loses its disk, and then the layer is sealed: it is not read
 * as if it had all. The other chunk is not settled yet when that happens, or is. */
START_TEST(a_last_word_that_is_lost)
{
	struct fake_node *n = &rig->nodes[0];
	struct fake_chunk *lost = &n->chunks[0];
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig_permit(rig, 7);
	rig_run_ms(rig, 100);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = _i == 0;
	rig_start_write(host, &o, RIG_CHUNK_BLOCKS, 1, 2);
	rig_run_ms(rig, 10);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	ck_assert(version_is_sealed(lost->watermark));
	ck_assert_uint_eq(host->volume->layers.settled, _i == 0 ? 0 : RIG_VOLUME);
	fake_crash(n);
	for (uint32_t b = 0; b < 8; b++) {
		free(lost->blocks[b].data);
		lost->blocks[b] = (struct fake_block){0};
	}
	lost->watermark = 0;
	fake_start(n);
	rig_run_ms(rig, 1000);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	take_layers(1, 1);
	for (uint32_t b = 0; b < 8 && (vlayers_good(&host->volume->chunks[0]) & 1) != 0; b++)
		ck_assert_uint_eq(fake_stamp(n, b), 1);
	ck_assert_uint_ge(vmask_count(vlayers_good(&host->volume->chunks[0])), 2);
}
END_TEST

/* A read began before two snapshots, and is answered by nobody until both layers below the top are
 * retired: it is done again from the top. */
START_TEST(a_read_outlives_two_layers)
{
	struct rig_op o;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_reads = true;
	rig_start_read(host, &o, 0, 8);
	rig_run_ms(rig, 100);
	for (uint32_t i = 1; i <= 2; i++) {
		take_layers(i, 2);
		take_layers(i, 1);
	}
	rig_run_ms(rig, 1000);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(set_count(), 1);
}
END_TEST

/* While a chunk's layer is empty everywhere, as far as the host was told, a merge gives its copies
 * last words and blocks, and breaks off. Then the chunk moves: the learner gets them too, from
 * whoever of those that are there has them. */
START_TEST(a_learner_gets_what_a_merge_wrote)
{
	struct fake_node *learner = &rig->nodes[RIG_NODES];

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	take_layers(1, 1);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(vmask_count(vlayers_good(&host->volume->chunks[1])), RIG_NODES);
	for (uint32_t i = (uint32_t)_i; i < RIG_NODES; i++) {
		rig->nodes[i].chunks[1].watermark = version_make(1, VERSION_SEQ_MAX);
		fake_put(&rig->nodes[i], RIG_CHUNK_BLOCKS, version_make(1, 1), 7);
	}
	rig_move(rig, 1, 0, RIG_NODES);
	rig_run_ms(rig, 2000);
	ck_assert_uint_eq(rig->pd.commits, 1);
	ck_assert_uint_eq(fake_stamp(learner, RIG_CHUNK_BLOCKS), 7);
	ck_assert_uint_ne(vlayers_good(&host->volume->chunks[1]), 0);
}
END_TEST

/* A node alone holds something of a chunk, and cannot tell what it has of the layer below, for a
 * device is missing there, so nobody reads it. The others are reconciled without it. */
START_TEST(one_that_is_in_doubt_keeps_no_other)
{
	struct rig_host *second = &rig->hosts[1];

	rig_crash_host(host);
	rig->nodes[0].doubt_layer = RIG_VOLUME;
	fake_put(&rig->nodes[0], RIG_CHUNK_BLOCKS, version_make(1, 5), 9);
	rig->pd.snapshots = 1;
	rig->pd.open_layers = 1;
	rig_open(second);
	ck_assert_int_eq(rig_write(second, RIG_CHUNK_BLOCKS, 1, 3), 0);
	rig_must_read(second, RIG_CHUNK_BLOCKS, 1, 3);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("layers");
	Suite *s = suite_create("volume_layers");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_last_word_that_is_lost, 0, 2);
	tcase_add_test(tc, a_read_outlives_two_layers);
	tcase_add_test(tc, one_that_is_in_doubt_keeps_no_other);
	tcase_add_loop_test(tc, a_learner_gets_what_a_merge_wrote, 0, 2);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
