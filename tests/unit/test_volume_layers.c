/* Tests of engine/volume: layers that begin, are sealed and are retired, as permits
 * tell. */
#include <check.h>
#include <stdlib.h>

#include "engine/volume/layers_parts.h"
#include "tests/unit/test_volume_rig.h"

static struct rig *rig;
static struct rig_host *host;

static void setup(void)
{
	rig = rig_create(1);
	host = &rig->hosts[0];
	rig_open(host);
}

/* One chunk a turn. */
static void setup_in_pieces(void)
{
	setup();
	host->volume->layers.piece = 1;
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

/* With what it holds of chunk 0, of which the first eight blocks were written. */
static void lose_disk(struct fake_node *n)
{
	struct fake_chunk *lost = &n->chunks[0];

	fake_crash(n);
	for (uint32_t b = 0; b < 8; b++) {
		free(lost->blocks[b].data);
		lost->blocks[b] = (struct fake_block){0};
	}
	lost->watermark = 0;
	fake_start(n);
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
	lose_disk(n);
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

/* Besides, one of the others alone has a block that was never acknowledged, and is damaged there.
 * Nobody needs that one to know what was: the chunk serves without it. */
START_TEST(one_that_is_in_doubt_and_one_that_is_damaged_keep_no_other)
{
	struct rig_host *second = &rig->hosts[1];

	rig_crash_host(host);
	rig->pd.snapshots = 1;
	rig->pd.open_layers = 1;
	rig_open(second);
	rig_crash_host(second);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].chunks[1].watermark = version_make(1, VERSION_SEQ_MAX);
	rig->nodes[0].doubt_layer = RIG_VOLUME;
	fake_put(&rig->nodes[1], RIG_CHUNK_BLOCKS, version_make(2, 77), 9);
	rig->nodes[1].corrupt_block = RIG_CHUNK_BLOCKS;
	rig->nodes[1].has_corrupt_block = true;
	rig_open(host);
	ck_assert_int_eq(rig_write(host, RIG_CHUNK_BLOCKS + 4, 1, 3), 0);
	rig_must_read(host, RIG_CHUNK_BLOCKS + 4, 1, 3);
	rig_run_ms(rig, 10000);
	ck_assert(!rig->nodes[1].has_corrupt_block);
	rig_must_read(host, RIG_CHUNK_BLOCKS, 1, 0);
}
END_TEST

/* Two nodes have the last word of what was written, and the third, which is away, has nothing. */
static void settle_without_the_third(void)
{
	rig_crash_host(host);
	fake_crash(&rig->nodes[2]);
	rig_open(host);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	take_layers(1, 2);
	rig_run_ms(rig, 3000);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
}

/* The layer is sealed, one of the two has lost its disk, and the other is away. Nothing is
 * restored. */
static void lose_one_of_two(void)
{
	take_layers(1, 1);
	rig_run_ms(rig, 1000);
	rig->nodes[0].hold_pulls = rig->nodes[2].hold_pulls = true;
	lose_disk(&rig->nodes[0]);
	rig_run_ms(rig, 3000);
	fake_crash(&rig->nodes[1]);
}

/* A node has lost its disk, with what it held of a sealed layer; the one that has all of it comes
 * back, and does not get to say so; the third never had anything. What it had is not forgotten. */
START_TEST(a_scan_that_is_broken_off_forgets_nothing)
{
	struct rig_op o;

	settle_without_the_third();
	lose_one_of_two();
	rig->nodes[1].silent_layer = RIG_VOLUME;
	fake_start(&rig->nodes[1]);
	rig_run_ms(rig, 1000);
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 1000);
	rig_start_read(host, &o, 0, 8);
	rig_run_ms(rig, 1000);
	ck_assert(!o.done);
	rig->nodes[1].silent_layer = 0;
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 0, 8, 1);
}
END_TEST

/* The same, and the one that has all of it comes back without the device on which that lies: what
 * it had it has still, and nobody else says that there is nothing. */
START_TEST(who_misses_a_device_forgets_nothing)
{
	struct rig_op o;

	settle_without_the_third();
	lose_one_of_two();
	rig->nodes[1].doubt_layer = RIG_VOLUME;
	fake_start(&rig->nodes[1]);
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 2000);
	rig_start_read(host, &o, 0, 8);
	rig_run_ms(rig, 1000);
	ck_assert(!o.done);
	fake_crash(&rig->nodes[1]);
	rig->nodes[1].doubt_layer = 0;
	fake_start(&rig->nodes[1]);
	ck_assert_int_eq(rig_finish(&o), 0);
	rig_must_read(host, 0, 8, 1);
}
END_TEST

/* A node's device fails, with what it holds of a layer that is sealed then: whether the node has
 * anything of the chunk there is in doubt from then on, and not what it last told. */
START_TEST(what_was_refused_is_in_doubt_when_sealed)
{
	struct vchunk *c;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig->nodes[0].device_failed = true;
	ck_assert_int_eq(rig_write(host, 0, 8, 2), 0);
	rig_run_ms(rig, 100);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	take_layers(1, 1);
	rig_run_ms(rig, 100);
	c = &host->volume->chunks[0];
	for (uint32_t i = 0; i < RIG_NODES; i++)
		ck_assert_int_eq(vlayers_in_doubt(c, i), c->slots[i].node == 0);
	rig_must_read(host, 0, 8, 2);
}
END_TEST

/* Of those that are there one has nothing of a layer, and one cannot tell, for it misses a device:
 * whether anything of the layer was acknowledged only the third knows. */
START_TEST(what_one_cannot_tell_was_not_untouched)
{
	fake_crash(&rig->nodes[1]);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	rig_crash_host(host);
	fake_crash(&rig->nodes[2]);
	lose_disk(&rig->nodes[0]);
	rig->nodes[0].doubt_layer = RIG_VOLUME;
	fake_start(&rig->nodes[1]);
	rig_open_start(host);
	rig_run_ms(rig, 1000);
	ck_assert(!host->opened);
	take_layers(1, 2); /* of the new one nothing is in doubt: it opens */
	ck_assert(rig_wait(rig, &host->opened, 20000));
	rig_run_ms(rig, 3000);
	ck_assert_uint_eq(host->volume->layers.settled, 0);
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 10000);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	take_layers(1, 1);
	rig_must_read(host, 0, 8, 1);
}
END_TEST

/* Two nodes have the last word of a chunk, the third has nothing of it, and the driver may have
 * been told that the layer is settled. Each of the two starts without the device that has it, and
 * then with it again: nobody has lost anything. */
START_TEST(a_last_word_on_a_device_that_comes_back)
{
	settle_without_the_third();
	fake_start(&rig->nodes[2]);
	rig_run_ms(rig, 3000);
	for (uint32_t i = 0; i < 2; i++) {
		fake_crash(&rig->nodes[i]);
		rig->nodes[i].doubt_layer = RIG_VOLUME;
		fake_start(&rig->nodes[i]);
		rig_run_ms(rig, 3000);
		fake_crash(&rig->nodes[i]);
		rig->nodes[i].doubt_layer = 0;
		fake_start(&rig->nodes[i]);
		rig_run_ms(rig, 3000);
	}
	take_layers(1, 1);
	rig_must_read(host, 0, 8, 1);
	rig_run_ms(rig, 3000);
	for (uint32_t b = 0; b < 8; b++)
		ck_assert_uint_eq(fake_stamp(&rig->nodes[0], b), 1);
	rig_must_read(host, 0, 8, 1);
}
END_TEST

/* As if the volume had so many chunks that a turn prepares one of them: it waits there, until
 * go_on. */
static void stop_at_the_first(volume_id_t layer)
{
	struct vlayers *l = &host->volume->layers;

	l->piece = 0;
	take_layers((uint32_t)(layer - RIG_VOLUME), 2);
	ck_assert_ptr_nonnull(l->coming);
	ck_assert_uint_eq(l->prepared, 0);
	l->piece = 1;
	ck_assert(!vbegin_prepare(host->volume, l->coming->layer));
	ck_assert_uint_eq(l->prepared, 1);
	l->piece = 0;
	rig_run_ms(rig, 10);
	ck_assert_uint_eq(l->prepared, 1);
	ck_assert_uint_eq(set_count(), 1);
}

static void go_on(void)
{
	host->volume->layers.piece = 1;
	rig_run_ms(rig, 10);
	ck_assert_ptr_null(host->volume->layers.coming);
	ck_assert_uint_eq(set_count(), 2);
}

/* While a layer is prepared, chunks that were prepared and such that were not are written to: the
 * versions of the new layer go on from there. */
START_TEST(a_write_while_a_layer_is_prepared)
{
	const struct vchunk *old = host->volume->chunks;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	stop_at_the_first(RIG_VOLUME + 1);
	for (uint32_t i = 0; i < RIG_CHUNKS; i++)
		for (uint32_t k = 0; k < 3; k++)
			ck_assert_int_eq(rig_write(host, i * RIG_CHUNK_BLOCKS, 1, 2 + k), 0);
	ck_assert_uint_eq(old[0].window.last_seq, 4);
	go_on();
	ck_assert_ptr_eq(&host->volume->sets->next->chunks[0], &old[0]);
	for (uint32_t i = 0; i < RIG_CHUNKS; i++) {
		ck_assert_uint_eq(host->volume->chunks[i].window.last_seq, old[i].window.last_seq);
		ck_assert(!old[i].stale);
		rig_must_read(host, i * RIG_CHUNK_BLOCKS, 1, 4);
	}
	ck_assert_uint_eq(rig_stats(host).layers_begun, 1);
}
END_TEST

/* A repair writes to a chunk that was prepared, without having waited in its queue. */
START_TEST(a_repair_while_a_layer_is_prepared)
{
	const struct vchunk *old = host->volume->chunks;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	stop_at_the_first(RIG_VOLUME + 1);
	fake_tell_damage(&rig->nodes[0], 0, 0, 8);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(rig_stats(host).repairs, 1);
	ck_assert_uint_eq(old[0].window.last_seq, 2);
	go_on();
	ck_assert_uint_eq(host->volume->chunks[0].window.last_seq, 2);
}
END_TEST

/* A chunk has its last word on two nodes, and is done with; one of them loses its disk before the
 * other chunk is done: the layer is not settled before the first chunk has it on two again. */
START_TEST(a_chunk_is_undone)
{
	struct fake_node *n = &rig->nodes[0];
	struct rig_op o;
	uint32_t sealed = 0;

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	fake_crash(&rig->nodes[2]);
	rig_run_ms(rig, 100);
	for (uint32_t i = 0; i < 2; i++)
		rig->nodes[i].hold_writes = true;
	rig_start_write(host, &o, RIG_CHUNK_BLOCKS, 1, 2);
	rig_run_ms(rig, 10);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	ck_assert(host->volume->sets->next->chunks[0].done);
	ck_assert(!host->volume->sets->next->chunks[1].done);
	lose_disk(n);
	for (uint32_t i = 0; i < 2; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	for (uint32_t i = 0; i < 20000 && host->volume->layers.settled == 0; i++)
		rig_run_ms(rig, 1);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		sealed += version_is_sealed(rig->nodes[i].chunks[0].watermark);
	ck_assert_uint_ge(sealed, 2);
}
END_TEST

/* A write waits for nodes, since before its chunk was prepared or since then: it is not forgotten
 * in the layer below. */
START_TEST(a_write_that_waits_goes_up)
{
	struct rig_op o[RIG_CHUNKS];

	for (uint32_t i = 1; i < RIG_NODES; i++)
		fake_crash(&rig->nodes[i]);
	rig_run_ms(rig, 100);
	if (_i == 0)
		for (uint32_t i = 0; i < RIG_CHUNKS; i++)
			rig_start_write(host, &o[i], i * RIG_CHUNK_BLOCKS, 1, 7);
	stop_at_the_first(RIG_VOLUME + 1);
	if (_i == 1)
		for (uint32_t i = 0; i < RIG_CHUNKS; i++)
			rig_start_write(host, &o[i], i * RIG_CHUNK_BLOCKS, 1, 7);
	rig_run_ms(rig, 10);
	go_on();
	for (uint32_t i = 0; i < RIG_CHUNKS; i++) {
		ck_assert_ptr_null(host->volume->sets->next->chunks[i].writes);
		ck_assert_ptr_nonnull(host->volume->chunks[i].writes);
	}
	for (uint32_t i = 1; i < RIG_NODES; i++)
		fake_start(&rig->nodes[i]);
	for (uint32_t i = 0; i < RIG_CHUNKS; i++)
		ck_assert_int_eq(rig_finish(&o[i]), 0);
}
END_TEST

/* No chunk changes its members once it was prepared. */
START_TEST(nothing_moves_while_a_layer_is_prepared)
{
	stop_at_the_first(RIG_VOLUME + 1);
	rig_move(rig, 0, 0, RIG_NODES);
	rig_run_ms(rig, 3000);
	ck_assert_ptr_null(host->volume->chunks[0].move);
	ck_assert_uint_eq(rig->pd.commits, 0);
	go_on();
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	take_layers(1, 1);
	rig_run_ms(rig, 4000);
	ck_assert_uint_eq(rig->pd.commits, 1);
}
END_TEST

/* A layer was sealed, and what its chunks knew of their copies is not taken over yet; a node loses
 * its disk, and comes back. What it says itself counts. */
START_TEST(a_loss_before_the_sweep)
{
	struct fake_node *n = &rig->nodes[0];

	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME);
	host->volume->layers.piece = 0;
	take_layers(1, 1);
	ck_assert_uint_eq(set_count(), 2);
	lose_disk(n);
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(vlayers_good(&host->volume->chunks[0]) & 1, 0);
	rig_must_read(host, 0, 8, 1);
	host->volume->layers.piece = 1;
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(set_count(), 1);
	for (uint32_t b = 0; b < 8 && (vlayers_good(&host->volume->chunks[0]) & 1) != 0; b++)
		ck_assert_uint_eq(fake_stamp(n, b), 1);
	rig_must_read(host, 0, 8, 1);
}
END_TEST

static uint32_t held_nodes(void)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < RIG_NODES; i++)
		count += host->volume->nodes[i].replicas[0]->held;
	return count;
}

/* Nodes are sent nothing of a new layer before they have answered for the permit of before, which
 * is on its way when that of the layer comes: so long writes are held back, and that is counted,
 * for as long as a write needs those nodes. A switch without that takes no (virtual) time. */
START_TEST(the_pause_of_a_switch_is_counted)
{
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	take_layers(1, 1);
	ck_assert_uint_eq(rig_stats(host).layers_begun, 1);
	ck_assert_uint_eq(rig_stats(host).layers_pause_ns, 0);
	for (uint32_t i = 0; i < 8; i++)
		rig_permit(rig, rig->pd.nodes);
	rig->pd.snapshots = rig->pd.open_layers = 2;
	rig_permit(rig, rig->pd.nodes);
	while (rig_stats(host).layers_begun < 2)
		ck_assert(sim_step(rig->world));
	ck_assert_uint_eq(held_nodes(), RIG_NODES);
	ck_assert_uint_ne(host->volume->layers.switched_ns, 0);
	while (held_nodes() > 1)
		ck_assert(sim_step(rig->world));
	ck_assert_uint_eq(host->volume->layers.switched_ns, 0);
	ck_assert_uint_gt(rig_stats(host).layers_pause_ns, 0);
}
END_TEST

/* Reads are answered from the layer that was retired, before, while and after it is swept; and one
 * that was asked for while it was open is done again. */
START_TEST(reads_while_a_layer_is_swept)
{
	struct rig_op o;
	uint64_t retries;

	/* The layer that will be retired has never had an error, nor has the one above it. */
	take_layers(1, 2);
	rig_run_ms(rig, 500);
	take_layers(1, 1);
	ck_assert_int_eq(rig_write(host, 0, 8, 1), 0);
	take_layers(2, 2);
	rig_run_ms(rig, 500);
	ck_assert_uint_eq(host->volume->layers.settled, RIG_VOLUME + 1);
	ck_assert_uint_eq(host->volume->sets->next->chunks[0].epoch, 0);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		rig->nodes[i].hold_reads = true;
	rig_start_read(host, &o, 0, 8);
	rig_run_ms(rig, 10);
	retries = rig_stats(host).read_retries;
	host->volume->layers.piece = 0;
	take_layers(2, 1);
	for (uint32_t i = 0; i < RIG_NODES; i++)
		fake_release(&rig->nodes[i]);
	ck_assert_int_eq(rig_finish(&o), 0);
	ck_assert_uint_gt(rig_stats(host).read_retries, retries);
	rig_must_read(host, 0, 8, 1);
	ck_assert_uint_eq(set_count(), 2);
	host->volume->layers.piece = 1;
	rig_run_ms(rig, 1000);
	ck_assert_uint_eq(set_count(), 1);
	rig_must_read(host, 0, 8, 1);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("layers"), *pieces = tcase_create("pieces");
	Suite *s = suite_create("volume_layers");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_last_word_that_is_lost, 0, 2);
	tcase_add_test(tc, a_read_outlives_two_layers);
	tcase_add_test(tc, one_that_is_in_doubt_keeps_no_other);
	tcase_add_test(tc, a_scan_that_is_broken_off_forgets_nothing);
	tcase_add_test(tc, who_misses_a_device_forgets_nothing);
	tcase_add_test(tc, one_that_is_in_doubt_and_one_that_is_damaged_keep_no_other);
	tcase_add_test(tc, what_was_refused_is_in_doubt_when_sealed);
	tcase_add_test(tc, what_one_cannot_tell_was_not_untouched);
	tcase_add_test(tc, a_last_word_on_a_device_that_comes_back);
	tcase_add_loop_test(tc, a_learner_gets_what_a_merge_wrote, 0, 2);
	tcase_add_test(tc, a_write_while_a_layer_is_prepared);
	tcase_add_test(tc, a_repair_while_a_layer_is_prepared);
	tcase_add_test(tc, a_chunk_is_undone);
	tcase_add_loop_test(tc, a_write_that_waits_goes_up, 0, 2);
	tcase_add_test(tc, nothing_moves_while_a_layer_is_prepared);
	tcase_add_test(tc, a_loss_before_the_sweep);
	tcase_add_test(tc, reads_while_a_layer_is_swept);
	tcase_add_test(tc, the_pause_of_a_switch_is_counted);
	suite_add_tcase(s, tc);
	tcase_set_timeout(pieces, 60);
	tcase_add_checked_fixture(pieces, setup_in_pieces, teardown);
	tcase_add_loop_test(pieces, a_last_word_that_is_lost, 0, 2);
	tcase_add_test(pieces, a_read_outlives_two_layers);
	tcase_add_loop_test(pieces, a_learner_gets_what_a_merge_wrote, 0, 2);
	suite_add_tcase(s, pieces);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
