/* A volume with several layers on a node: which of them an answer comes from, which may be written,
 * and how a copy of a sealed one is restored. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "tests/unit/test_node_rig.h"

#define CHUNK 3u
#define TOP   21u
#define LOW   11u

static struct rig *rig;
static struct peer_host h, other; /* sessions with node 0, node 1 */
static uint8_t *data, *back;

static version_t v(uint64_t seq)
{
	return version_make(1, seq);
}

/* TOP above the volume's own layer, which is open or not, above LOW, which is sealed. */
static struct peer_permit permit(uint64_t serial, bool open)
{
	struct peer_permit p = rig_permit(rig, 1, serial);

	p.layers[0] = (struct permit_layer){TOP, true};
	p.layers[1] = (struct permit_layer){RIG_VOLUME, open};
	p.layers[2] = (struct permit_layer){LOW, false};
	return p;
}

static void setup(void)
{
	rig = rig_create(1);
	data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	back = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, IO_BLOCKS_MAX, 5);
	rig_open(rig, &h, 0, 1);
	rig_open(rig, &other, 1, 1);
}

static void teardown(void)
{
	peer_host_close(&h);
	peer_host_close(&other);
	rig_destroy(rig);
	free(data);
	free(back);
}

static const void *block(uint32_t n)
{
	return data + (size_t)n * BLOCK_SIZE;
}

static int write_to(struct peer_host *p, uint32_t layer, block_no_t at, uint64_t seq, uint32_t n)
{
	p->layer = layer;
	return peer_host_write(p, CHUNK, at, 1, v(seq), block(n));
}

/* What a read from the layer down shows: a number of block(), or -1 for zeroes. */
static void expect(struct peer_host *p, uint32_t layer, block_no_t at, const int *numbers,
		   uint32_t count)
{
	static const uint8_t zeroes[BLOCK_SIZE];

	p->layer = layer;
	ck_assert_int_eq(peer_host_read(p, CHUNK, at, count, back), 0);
	for (uint32_t i = 0; i < count; i++)
		ck_assert_mem_eq(back + (size_t)i * BLOCK_SIZE,
				 numbers[i] < 0 ? zeroes : block((uint32_t)numbers[i]), BLOCK_SIZE);
}
#define EXPECT(p, layer, at, ...)                                                                  \
	expect(p, layer, at, (const int[]){__VA_ARGS__},                                           \
	       sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

START_TEST(test_reads_fall_through)
{
	struct peer_permit p = permit(2, true);

	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&h, 0, 1, 2, 2), 0);
	ck_assert_int_eq(write_to(&h, 0, 3, 3, 3), 0);
	/* The permit does not name it yet. */
	ck_assert_int_eq(write_to(&h, TOP, 0, 4, 9), -E_NO_PERMIT);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(write_to(&h, TOP, 0, 4, 4), 0);
	h.layer = TOP;
	ck_assert_int_eq(peer_host_zero(&h, CHUNK, 1, 1, v(5), true), 0);
	/* From the top: the newest, a hole that hides what is below, what is below, nothing. */
	EXPECT(&h, TOP, 0, 4, -1, -1, 3, -1);
	EXPECT(&h, 0, 0, 1, 2, -1, 3, -1);
	/* An older write that comes late goes where it belongs. */
	ck_assert_int_eq(write_to(&h, 0, 2, 6, 5), 0);
	EXPECT(&h, TOP, 0, 4, -1, 5, 3);
	/* Every second block of a long read. */
	for (uint32_t i = 0; i < 64; i++)
		ck_assert_int_eq(write_to(&h, i % 2 == 0 ? TOP : 0, 100 + i, 10 + i, i), 0);
	h.layer = TOP;
	ck_assert_int_eq(peer_host_read(&h, CHUNK, 100, 64, back), 0);
	ck_assert_mem_eq(back, data, (size_t)64 * BLOCK_SIZE);
	ck_assert_int_eq(write_to(&h, 99, 0, 7, 1), -E_NO_PERMIT);
}
END_TEST

START_TEST(test_sealed_takes_no_writes)
{
	struct peer_permit p = permit(2, true);

	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&h, LOW, 0, 2, 2), -EROFS);
	p = permit(3, false);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(write_to(&h, 0, 0, 3, 2), -EROFS);
	ck_assert_int_eq(peer_host_watermark(&h, CHUNK, v(3)), -EROFS);
	ck_assert_int_eq(write_to(&h, TOP, 0, 4, 3), 0);
	EXPECT(&h, 0, 0, 1);
	EXPECT(&h, TOP, 0, 3);
}
END_TEST

/* A session whose permit is older does not write what a newer one calls sealed. */
START_TEST(test_older_permits)
{
	struct peer_permit p = permit(2, true), q = permit(1, false);
	struct peer_host clone;

	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	rig_host(rig, &clone, 0);
	q.volume = 31;
	q.layers[0].id = 31;
	ck_assert_int_eq(rig_try_open(&clone, &q), 0);
	ck_assert_int_eq(write_to(&h, 0, 0, 2, 2), -EROFS);
	EXPECT(&clone, 31, 0, 1);
	peer_host_close(&clone);
}
END_TEST

#define LAST_WORD version_make(1, VERSION_SEQ_MAX)

static int restore(const char *node, const char *address)
{
	h.layer = RIG_VOLUME;
	h.exact = true;
	return peer_host_pull(&h, CHUNK, 0, node, address);
}

static version_t watermark_of(struct rig_node *n, volume_id_t layer)
{
	struct store_chunk_state state;

	return pool_chunks(n->pool, layer, CHUNK, &state, 1) == 1 ? state.watermark : 0;
}

/* A copy that lacks a write, has an older one, and holds one that nobody acknowledged. */
START_TEST(test_restore)
{
	struct peer_permit p = permit(2, true), q;

	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&other, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&other, 0, 1, 2, 2), 0);
	ck_assert_int_eq(write_to(&other, 0, 0, 3, 3), 0);
	ck_assert_int_eq(write_to(&h, 0, 5, 4, 9), 0);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
	/* Only of what is sealed; and of an open layer not exactly. */
	ck_assert_int_eq(restore("n2", rig->nodes[1].name), -EINVAL);
	other.layer = 0;
	ck_assert_int_eq(peer_host_watermark(&other, CHUNK, LAST_WORD), 0);
	q = permit(3, false);
	ck_assert_int_eq(rig_update(&h, &q), 0);
	ck_assert_int_eq(rig_update(&other, &q), 0);
	ck_assert_msg(restore("n2", rig->nodes[1].name) == 0, "%s", h.call_text);
	ck_assert_uint_eq(h.call_reply->pull_reply->blocks, 2);
	EXPECT(&h, 0, 0, 3, 2, -1, -1, -1, -1);
	ck_assert(version_is_sealed(watermark_of(&rig->nodes[0], RIG_VOLUME)));
	/* Once more: it is whole, and nothing is fetched, nor dropped. */
	ck_assert_int_eq(restore("n2", "nowhere"), 0);
	EXPECT(&h, 0, 0, 3, 2, -1);
}
END_TEST

/* A source that has no last word, as its copy was erased since it was chosen, or never had one:
 * what it lacks must not pass for what nobody has. Where nobody has anything there is no source. */
START_TEST(test_restore_from_what_is_whole)
{
	struct peer_permit p = permit(2, false);

	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	if (_i == 0)
		ck_assert_int_eq(write_to(&other, 0, 0, 1, 1), 0);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
	ck_assert_int_eq(restore("n2", rig->nodes[1].name), -E_STALE_REPLICA);
	ck_assert_uint_eq(watermark_of(&rig->nodes[0], RIG_VOLUME), 0);
	ck_assert_msg(restore("", "") == 0, "%s", h.call_text);
	ck_assert(version_is_sealed(watermark_of(&rig->nodes[0], RIG_VOLUME)));
	EXPECT(&h, 0, 0, -1, -1);
}
END_TEST

/* The host's last word is still on its way to the disk when the host, which has enough others, has
 * this copy restored. It must not come after the erasure: what is left would pass for whole. */
START_TEST(test_restore_waits_for_the_last_word)
{
	struct peer_permit p = permit(2, true), q = permit(3, false);
	struct frame word = {.op = FRAME_WATERMARK, .chunk = CHUNK, .watermark = LAST_WORD};
	struct peer_request *sent;

	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&other, 0, 0, 1, 1), 0);
	ck_assert_int_eq(peer_host_watermark(&other, CHUNK, LAST_WORD), 0);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 10000);
	sent = peer_host_send(&h, word, NULL, false);
	ck_assert_int_eq(rig_update(&h, &q), 0);
	ck_assert_int_eq(rig_update(&other, &q), 0);
	ck_assert_int_eq(restore("n2", rig->nodes[1].name), -EBUSY);
	ck_assert(peer_host_wait(&h, sent));
	ck_assert_int_eq(sent->status, 0);
	peer_request_free(sent);
	sim_disk_set_slowness(rig->nodes[0].sim_disk, 1);
	ck_assert_int_eq(restore("n2", rig->nodes[1].name), 0);
	EXPECT(&h, 0, 0, 1, -1);
}
END_TEST

/* A crash in the midst leaves a copy that does not pass for a whole one. */
START_TEST(test_restore_is_cut_short)
{
	struct peer_permit p = permit(2, false);

	ck_assert_int_eq(write_to(&h, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&other, 0, 0, 1, 1), 0);
	h.layer = other.layer = 0;
	ck_assert_int_eq(peer_host_watermark(&h, CHUNK, v(1)), 0);
	ck_assert_int_eq(peer_host_watermark(&other, CHUNK, LAST_WORD), 0);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
	/* The source is not there. */
	rig_node_crash(&rig->nodes[1], SIM_KILL);
	ck_assert_int_ne(restore("n2", rig->nodes[1].name), 0);
	ck_assert_uint_eq(watermark_of(&rig->nodes[0], RIG_VOLUME), 0);
	peer_host_close(&h);
	rig_node_crash(&rig->nodes[0], SIM_POWER_LOSS);
	rig_node_start(&rig->nodes[0]);
	ck_assert_uint_eq(watermark_of(&rig->nodes[0], RIG_VOLUME), 0);
	rig_node_start(&rig->nodes[1]);
	rig_wait_lease(&rig->nodes[0], true);
	rig_wait_lease(&rig->nodes[1], true);
	rig_host(rig, &h, 0);
	p = permit(3, false);
	ck_assert_msg(rig_try_open(&h, &p) == 0, "%s", h.call_text);
	ck_assert_msg(restore("n2", rig->nodes[1].name) == 0, "%s", h.call_text);
	EXPECT(&h, 0, 0, 1, -1);
	ck_assert(version_is_sealed(watermark_of(&rig->nodes[0], RIG_VOLUME)));
}
END_TEST

/* -- repairs ---------------------------------------------------------------------------------- */

/* A newer top above TOP, which is sealed now, above the volume's own, sealed as well. */
#define NEWER 41u

static void seal_top(uint64_t serial)
{
	struct peer_permit p = permit(serial, false);

	h.layer = other.layer = TOP;
	ck_assert_int_eq(peer_host_watermark(&h, CHUNK, LAST_WORD), 0);
	ck_assert_int_eq(peer_host_watermark(&other, CHUNK, LAST_WORD), 0);
	p.layers[0].id = NEWER;
	p.layers[2] = p.layers[1];
	p.layers[1] = (struct permit_layer){TOP, false};
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
}

/* Inverts a bit on node 0, `after` blocks behind the only copy of block(n). */
static void rot(uint32_t n, uint32_t after)
{
	struct sim_disk *disk = rig->nodes[0].sim_disk;
	const uint64_t size = rig->nodes[0].disk->size_bytes;
	uint64_t at = 0;

	for (; at < size; at += BLOCK_SIZE) {
		sim_disk_peek(disk, at, back, BLOCK_SIZE);
		if (memcmp(back, block(n), BLOCK_SIZE) == 0)
			break;
	}
	ck_assert_uint_lt(at, size);
	at += (uint64_t)after * BLOCK_SIZE;
	sim_disk_peek(disk, at, back, 1);
	back[0] ^= 4;
	sim_disk_poke(disk, at, back, 1);
}

static int repair(block_no_t at, uint32_t count)
{
	h.layer = TOP;
	h.repair = true;
	h.ranges[0] = at;
	h.ranges[1] = count;
	return peer_host_pull(&h, CHUNK, 0, "n2", rig->nodes[1].name);
}

static int read_one(block_no_t at)
{
	h.layer = TOP;
	return peer_host_read(&h, CHUNK, at, 1, back);
}

/* Two whole copies show the same: what one of them was given when the layer was settled once more,
 * the other one shows from below. */
START_TEST(test_repair_by_what_the_source_shows)
{
	struct peer_permit p = permit(2, true);

	ck_assert_int_eq(write_to(&other, 0, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&other, 0, 3, 2, 4), 0);
	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
	ck_assert_int_eq(write_to(&h, TOP, 0, 3, 1), 0);
	ck_assert_int_eq(write_to(&h, TOP, 2, 4, 3), 0);
	ck_assert_int_eq(write_to(&other, TOP, 2, 4, 3), 0);
	seal_top(3);
	rot(1, 0);
	rot(3, 0);
	ck_assert_int_eq(read_one(0), -E_BAD_CRC);
	ck_assert_int_eq(read_one(2), -E_BAD_CRC);
	ck_assert_msg(repair(0, 3) == 0, "%s", h.call_text);
	ck_assert_uint_eq(h.call_reply->pull_reply->blocks, 2);
	/* What this copy does not hold is not its to hold. */
	EXPECT(&h, TOP, 0, 1, -1, 3, -1);
}
END_TEST

/* Zeroes that were written as data take the place of the same. */
START_TEST(test_repair_of_zeroes)
{
	struct peer_permit p = permit(2, true);

	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
	memset(data + (size_t)8 * BLOCK_SIZE, 0, BLOCK_SIZE);
	h.layer = other.layer = TOP;
	ck_assert_int_eq(peer_host_write(&h, CHUNK, 7, 3, v(1), block(7)), 0);
	ck_assert_int_eq(peer_host_write(&other, CHUNK, 7, 3, v(1), block(7)), 0);
	seal_top(3);
	rot(7, 1);
	ck_assert_int_eq(read_one(8), -E_BAD_CRC);
	ck_assert_msg(repair(8, 1) == 0, "%s", h.call_text);
	EXPECT(&h, TOP, 7, 7, -1, 9);
}
END_TEST

static void merged(struct store_write *op, int status)
{
	ck_assert_int_eq(status, 0);
	*(bool *)op->hook.hook[5] = true;
}

/* Block n comes into TOP of the node as a merge of that layer brings it. */
static void merge(uint32_t node, block_no_t at, uint32_t n, volume_id_t from)
{
	bool done = false;
	uint32_t crc = crc32c(0, block(n), BLOCK_SIZE);
	struct store_write w = {.done = merged,
				.kind = STORE_DATA,
				.volume = TOP,
				.chunk = CHUNK,
				.block = at,
				.block_count = 1,
				.version = version_make(GENERATION_MAX, from),
				.crcs = &crc,
				.data = block(n),
				.resync = true,
				.hook = {.hook = {[5] = &done}}};

	store_write(rig->nodes[node].store, &w);
	ck_assert(sim_run_flag(rig->world, &done));
}

/* A layer that is being merged into this one: the source may not be so far, and what it shows would
 * be kept for what was merged. When the permit does not name it any more all copies are. */
START_TEST(test_no_repair_amid_a_merge)
{
	struct peer_permit p = permit(2, true);

	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(rig_update(&other, &p), 0);
	ck_assert_int_eq(write_to(&h, TOP, 0, 1, 1), 0);
	ck_assert_int_eq(write_to(&other, TOP, 0, 1, 1), 0);
	seal_top(3);
	merge(0, 0, 2, NEWER);
	rot(2, 0);
	ck_assert_int_eq(repair(0, 1), -EBUSY);
	ck_assert_int_eq(read_one(0), -E_BAD_CRC);
	merge(0, 4, 5, 40);
	merge(1, 4, 5, 40);
	rot(5, 0);
	ck_assert_int_eq(read_one(4), -E_BAD_CRC);
	ck_assert_msg(repair(4, 1) == 0, "%s", h.call_text);
	EXPECT(&h, TOP, 4, 5);
}
END_TEST

/* Layers are asked about one by one. */
START_TEST(test_chunks_of_a_layer)
{
	struct peer_permit p = permit(2, true);
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Chunks chunks = PAVE__V1__CHUNKS__INIT;

	ck_assert_int_eq(rig_update(&h, &p), 0);
	ck_assert_int_eq(write_to(&h, TOP, 0, 7, 1), 0);
	m.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	m.chunks = &chunks;
	ck_assert_int_eq(peer_host_ask(&h, &m), 0);
	ck_assert_uint_eq(h.call_reply->chunks_reply->n_chunks, 0);
	chunks.layer = TOP;
	ck_assert_int_eq(peer_host_ask(&h, &m), 0);
	ck_assert_uint_eq(h.call_reply->chunks_reply->n_chunks, 1);
	ck_assert_uint_eq(h.call_reply->chunks_reply->chunks[0]->newest, v(7));
	chunks.layer = 99;
	ck_assert_int_eq(peer_host_ask(&h, &m), -E_NO_PERMIT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("node_layers");
	TCase *tc = tcase_create("layers");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_reads_fall_through);
	tcase_add_test(tc, test_sealed_takes_no_writes);
	tcase_add_test(tc, test_older_permits);
	tcase_add_test(tc, test_restore);
	tcase_add_loop_test(tc, test_restore_from_what_is_whole, 0, 2);
	tcase_add_test(tc, test_restore_waits_for_the_last_word);
	tcase_add_test(tc, test_restore_is_cut_short);
	tcase_add_test(tc, test_repair_by_what_the_source_shows);
	tcase_add_test(tc, test_repair_of_zeroes);
	tcase_add_test(tc, test_no_repair_amid_a_merge);
	tcase_add_test(tc, test_chunks_of_a_layer);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
