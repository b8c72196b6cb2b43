/* Tests of engine/volume: a volume that is made larger while it is attached. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "engine/volume/core.h"
#include "tests/unit/test_volume_rig.h"

#define LARGER	  ((uint64_t)(RIG_CHUNKS + 1) * RIG_CHUNK_SIZE)
#define NEW_CHUNK RIG_CHUNKS
#define NEW_NODE  RIG_NODES

static struct rig *rig;
static struct rig_host *host;

static void setup(void)
{
	rig = rig_create(1);
	host = &rig->hosts[0];
}

static void teardown(void)
{
	rig_destroy(rig);
}

static void must_have(uint64_t bytes)
{
	const uint64_t end = bytes / BLOCK_SIZE;
	struct rig_op o;

	ck_assert_uint_eq(volume_size(host->volume), bytes);
	rig_start_zero(host, &o, end - 1, 1, false);
	ck_assert_int_eq(rig_finish(&o), 0);
	ck_assert_int_eq(rig_write(host, end, 1, 1), -EINVAL);
	rig_start_zero(host, &o, end - 1, 2, false);
	ck_assert_int_eq(rig_finish(&o), -EINVAL);
}

static void take_layers(uint32_t snapshots, uint32_t open)
{
	rig->pd.snapshots = snapshots;
	rig->pd.open_layers = open;
	rig_permit(rig, rig->pd.nodes);
	rig_run_ms(rig, 10);
}

/* What goes through the chunks for layers does one of them a turn, or all. */
static void open_in_pieces(bool pieces)
{
	rig_open(host);
	if (pieces)
		host->volume->layers.piece = 1;
}

static vmask_t good(chunk_no_t chunk)
{
	return vlayers_good(&host->volume->chunks[chunk]);
}

/* Writes are under way, and go on; nothing moves that they point to. The new range serves without
 * another attachment, begins with zeroes, and outlives the host. */
START_TEST(while_it_serves)
{
	const struct vchunk *first;
	const struct vslot *slots;
	struct rig_op o, p;

	rig_open(host);
	first = host->volume->chunks;
	slots = first->slots;
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = true;
	rig_start_write(host, &o, 0, 8, 1);
	rig_start_write(host, &p, RIG_BLOCKS - 4, 4, 2);
	rig_run_ms(rig, 10);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 1, 3), -EINVAL);
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	ck_assert_uint_eq(volume_size(host->volume), LARGER);
	ck_assert_uint_eq(rig->pd.size_reported, LARGER);
	ck_assert_ptr_eq(host->volume->chunks, first);
	ck_assert_ptr_eq(first->slots, slots);
	ck_assert(!o.done && !p.done);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	ck_assert_int_eq(rig_finish(&p), 0);
	rig_must_read(host, RIG_BLOCKS, 8, 0);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS - 2, 4, 4), 0);
	rig_must_read(host, RIG_BLOCKS - 2, 4, 4);
	rig_must_read(host, RIG_BLOCKS - 4, 2, 2);
	must_have(LARGER);
	ck_assert_uint_eq(rig->pd.attaches, 1);
	ck_assert_uint_eq(rig->nodes[0].connects, 1);
	rig_crash_host(host);
	host = &rig->hosts[1];
	rig_open(host);
	must_have(LARGER);
	rig_must_read(host, RIG_BLOCKS - 2, 4, 4);
	rig_must_read(host, 0, 8, 1);
	rig_must_agree(rig);
}
END_TEST

/* Nobody told it: the next renewal does. */
START_TEST(by_the_next_renewal)
{
	rig_open(host);
	rig_grow(rig, LARGER, false);
	rig_run_ms(rig, 100);
	must_have(RIG_CHUNKS * RIG_CHUNK_SIZE);
	rig_run_ms(rig, rig->pd.lifetime_ms);
	must_have(LARGER);
}
END_TEST

/* The last chunk has room, and then one more is needed, and another. */
START_TEST(bit_by_bit)
{
	uint64_t bytes = RIG_CHUNK_SIZE + 8 * BLOCK_SIZE;

	rig->pd.bytes = bytes;
	rig_open(host);
	must_have(bytes);
	ck_assert_int_eq(rig_write(host, RIG_CHUNK_BLOCKS + 4, 4, 5), 0);
	for (uint32_t i = 0; i < 4; i++) {
		bytes += RIG_CHUNK_SIZE / 2;
		rig_grow(rig, bytes, true);
		rig_run_ms(rig, 50);
		rig_must_read(host, bytes / BLOCK_SIZE - 8, 8, 0);
		must_have(bytes);
		ck_assert_int_eq(rig_write(host, bytes / BLOCK_SIZE - 4, 4, 6 + i), 0);
	}
	rig_must_read(host, RIG_CHUNK_BLOCKS + 4, 3, 5);
	for (uint32_t i = 0; i < 4; i++, bytes -= RIG_CHUNK_SIZE / 2)
		rig_must_read(host, bytes / BLOCK_SIZE - 4, 4, 9 - i);
	ck_assert_uint_eq(rig->pd.attaches, 1);
}
END_TEST

/* It stays as it is, and serves; and grows once the driver talks sense. */
START_TEST(nonsense_is_refused)
{
	rig_open(host);
	rig->pd.growth_lies = _i;
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(rig->pd.renews, 1); /* it does not ask again and again */
	must_have(RIG_CHUNKS * RIG_CHUNK_SIZE);
	rig->pd.growth_lies = 0;
	rig_run_ms(rig, rig->pd.lifetime_ms);
	must_have(LARGER);
}
END_TEST

/* The new chunk lies on a node that had nothing of the volume. */
START_TEST(onto_another_node)
{
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 0, 4, 1), 0);
	rig->pd.on_new_node = true;
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 500);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 4, 7), 0);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[NEW_NODE], RIG_BLOCKS), 7);
	ck_assert_uint_eq(fake_version(&rig->nodes[0], RIG_BLOCKS), 0);
	/* The first and the third are away: of the old chunks no majority is left. */
	fake_crash(&rig->nodes[0]);
	rig_must_read(host, RIG_BLOCKS, 4, 7);
	ck_assert_int_eq(rig_write(host, 0, 4, 2), 0);
	fake_crash(&rig->nodes[2]);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 4, 8), 0);
	ck_assert_int_eq(rig_write(host, 0, 4, 3), -EIO);
}
END_TEST

/* Who is away meanwhile gets what was written, and is asked what it holds of the new chunk. */
START_TEST(without_a_node)
{
	rig_open(host);
	fake_crash(&rig->nodes[2]);
	rig_run_ms(rig, 100);
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 8, 7), 0);
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 5000);
	rig_must_agree(rig);
	ck_assert_uint_eq(fake_stamp(&rig->nodes[2], RIG_BLOCKS), 7);
}
END_TEST

/* Nothing is presumed of the new chunk: a node that holds something of it is heard. */
START_TEST(what_a_node_holds_is_heard)
{
	uint32_t stamp = 99;

	rig_open(host);
	fake_put(&rig->nodes[1], RIG_BLOCKS, version_make(1, 5), 9);
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	ck_assert_int_eq(rig_read(host, RIG_BLOCKS, 1, &stamp), 0);
	rig_run_ms(rig, 2000);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_uint_eq(fake_stamp(&rig->nodes[i], RIG_BLOCKS), stamp);
}
END_TEST

/* Below the top lies a sealed layer, of which nobody has anything of the new chunk; one comes to be
 * sealed while it grows; and it grows, and another is sealed. */
START_TEST(with_layers)
{
	struct rig_op o;

	open_in_pieces(_i == 1);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	take_layers(1, 1);
	rig_run_ms(rig, 100);
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	ck_assert_uint_eq(vmask_count(good(NEW_CHUNK)), RIG_NODES);
	rig_must_read(host, RIG_BLOCKS, 4, 0);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 4, 2), 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_writes = true;
	rig_start_write(host, &o, RIG_BLOCKS, 2, 3);
	rig_run_ms(rig, 10);
	take_layers(2, 2);
	ck_assert_uint_eq(host->volume->layers.settled, 0);
	rig_grow(rig, LARGER + RIG_CHUNK_SIZE, true);
	rig_run_ms(rig, 50);
	ck_assert_uint_eq(volume_size(host->volume), LARGER + RIG_CHUNK_SIZE);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME + 1);
	/* What nobody wrote to has no last word, nor anything else. */
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_uint_eq(rig->nodes[i].chunks[NEW_CHUNK + 1].watermark, 0);
	take_layers(2, 1);
	rig_run_ms(rig, 1000);
	ck_assert_ptr_null(host->volume->sets->next);
	ck_assert_uint_eq(vmask_count(good(NEW_CHUNK + 1)), RIG_NODES);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS + RIG_CHUNK_BLOCKS, 4, 4), 0);
	rig_must_read(host, RIG_BLOCKS + RIG_CHUNK_BLOCKS, 4, 4);
	must_have(LARGER + RIG_CHUNK_SIZE);
}
END_TEST

/* A layer was told to be settled, and the permit that says so is on its way: it is not begun anew
 * in the chunk that comes then, however it is read. */
START_TEST(a_settled_layer_stays_so)
{
	open_in_pieces(_i == 1);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	fake_crash(&rig->nodes[2]);
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	ck_assert_uint_eq(volume_size(host->volume), LARGER);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 4, 2), 0);
	ck_assert_int_eq(host->volume->sets->next->chunks[NEW_CHUNK].state, VCHUNK_UNOPENED);
	take_layers(1, 1);
	rig_run_ms(rig, 100);
	rig_must_read(host, RIG_BLOCKS, 4, 2);
	rig_must_read(host, RIG_BLOCKS + 8, 4, 0);
}
END_TEST

/* The permit names another top, which cannot begin yet, for a chunk moves: what is the top now, and
 * belongs to a snapshot of the old size, gets nothing of the new range. */
START_TEST(not_while_another_top_is_due)
{
	open_in_pieces(_i == 1);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->nodes[NEW_NODE].hold_pulls = true;
	rig_move(rig, 0, 0, NEW_NODE);
	rig_run_ms(rig, 500);
	take_layers(1, 2);
	ck_assert_ptr_null(host->volume->sets->next);
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	must_have(RIG_CHUNKS * RIG_CHUNK_SIZE);
	rig_move_drop(rig);
	rig->nodes[NEW_NODE].hold_pulls = false;
	rig_run_ms(rig, 2 * rig->pd.lifetime_ms);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	must_have(LARGER);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 4, 2), 0);
	take_layers(1, 1);
	rig_must_read(host, RIG_BLOCKS, 4, 2);
}
END_TEST

/* A node tells what it holds, bit by bit, while the volume grows: it begins again. */
START_TEST(while_a_node_is_scanned)
{
	struct fake_node *n = &rig->nodes[0];
	uint64_t connects;

	rig_open(host);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	fake_crash(n);
	n->silent_chunks = true;
	fake_start(n);
	rig_run_ms(rig, 2500);
	connects = n->connects;
	n->silent_chunks = false;
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(n->connects, connects + 1);
	ck_assert_int_eq(rig_write(host, RIG_BLOCKS, 4, 2), 0);
	rig_run_ms(rig, 1000);
	rig_must_agree(rig);
}
END_TEST

/* Who prepares to take it over has no chunks yet, and attaches with the new size; who has let go
 * does not grow. */
START_TEST(a_migrating_host)
{
	struct rig_host *second = &rig->hosts[1];

	rig_open(host);
	second->migrates = true;
	rig_open_start(second);
	ck_assert(rig_wait(rig, &second->prepared, 5000));
	rig_grow(rig, LARGER, true);
	rig_run_ms(rig, 50);
	must_have(LARGER);
	volume_take_over(&second->open);
	rig_run_ms(rig, 10);
	ck_assert(host->ended && host->ended_why == 0);
	rig_close(host);
	ck_assert(rig_wait(rig, &second->opened, 30000));
	ck_assert_int_eq(second->open_status, 0);
	host = second;
	must_have(LARGER);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("volume_grow");
	TCase *tc = tcase_create("grow");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, while_it_serves);
	tcase_add_test(tc, by_the_next_renewal);
	tcase_add_test(tc, bit_by_bit);
	tcase_add_loop_test(tc, nonsense_is_refused, 1, 7);
	tcase_add_test(tc, onto_another_node);
	tcase_add_test(tc, without_a_node);
	tcase_add_test(tc, what_a_node_holds_is_heard);
	tcase_add_loop_test(tc, with_layers, 0, 2);
	tcase_add_loop_test(tc, a_settled_layer_stays_so, 0, 2);
	tcase_add_loop_test(tc, not_while_another_top_is_due, 0, 2);
	tcase_add_test(tc, while_a_node_is_scanned);
	tcase_add_test(tc, a_migrating_host);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
