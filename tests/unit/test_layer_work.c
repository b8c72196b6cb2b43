/* What a node does with layers for the driver (tools/pave-node/layer_work.h), on one simulated
 * device: a merge is crashed at every I/O, in every way, and begun again; it ends where the lease
 * does, and before what it writes to is erased; it refuses what is not whole; memory runs out.
 *
 * Volume 0 of the rig is the lower layer, volume 1 the upper one. Chunk 0 has blocks in both, some
 * of the lower one under newer versions; of chunk 1 the lower layer has nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc_fail.h"
#include "test_store_rig.h"
#include "tools/pave-node/layer_work.h"

#define DISK_MIB    16u
#define LOWER	    0u
#define UPPER	    1u
#define CHUNKS	    2u /* of the rig's: the third is of neither layer */
#define TOKEN	    7u
#define STEPS_MAX   4000u
#define ANSWERS_MAX 64u

/* Each ck_assert is a system call: where there are many they are only made to fail. */
#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			ck_abort_msg(__VA_ARGS__);                                                 \
	} while (0)

static struct bench {
	struct rig rig;
	struct layer_work *work;
	struct rig_model before; /* of the layers, when they were sealed */
	bool answered;
	int status;
	bool done, upper_whole, lower_whole, lower_empty, found;
	chunk_no_t chunk;
	uint64_t blocks;
	uint32_t stores_left; /* writes until the lease runs out */
	uint32_t stores;      /* that were asked for */
	bool left;
	uint8_t *data;
} b;

static version_t last_word(void)
{
	return version_make(GENERATION_MAX, VERSION_SEQ_MAX);
}

static version_t merged_version(void)
{
	return version_make(GENERATION_MAX, rig_volume_id(UPPER));
}

/* -- the layers ------------------------------------------------------------------------------- */

static void prepare(struct rig *rig)
{
	rig_write(rig, STORE_DATA, LOWER, 0, 0, 100);
	rig_write(rig, STORE_ZERO, LOWER, 0, 90, 20);
	rig_write(rig, STORE_DATA, UPPER, 0, 20, 150);
	rig_write(rig, STORE_DISCARD, UPPER, 0, 30, 5);
	rig_write(rig, STORE_DATA, UPPER, 0, 300, 1);
	rig_write(rig, STORE_DATA, UPPER, 0, 302, 1);
	rig_write(rig, STORE_DATA, UPPER, 1, 7, 70);
	rig_write(rig, STORE_ZERO, UPPER, 1, 400, 9);
	/* Settled while the upper one was written already. */
	rig_write(rig, STORE_DATA, LOWER, 0, 60, 70);
	CHECK(rig_drain(rig), "the rig crashed");
	rig_watermark(rig, LOWER, 0, last_word());
	for (uint32_t c = 0; c < CHUNKS; c++)
		rig_watermark(rig, UPPER, c, last_word());
	CHECK(rig_drain(rig), "the rig crashed");
	b.before = rig->model;
}

static bool may_store(void *arg)
{
	(void)arg;
	b.stores++;
	return b.stores_left == UINT32_MAX || (b.stores_left > 0 && b.stores_left-- > 0);
}

static void answer(uint64_t token, int status, const char *text, const Pave__V1__Control *message,
		   void *arg)
{
	(void)arg;
	CHECK(token == TOKEN && !b.answered, "answered twice, or somebody else");
	b.answered = true;
	b.status = status;
	if (status != 0) {
		CHECK(text != NULL, "no reason is given");
		return;
	}
	CHECK(message->body_case == PAVE__V1__CONTROL__BODY_LAYER_MERGE_REPLY, "another answer");
	b.done = message->layer_merge_reply->done;
	b.blocks += message->layer_merge_reply->blocks;
	b.found = message->layer_merge_reply->found;
	b.chunk = message->layer_merge_reply->chunk;
	b.upper_whole = message->layer_merge_reply->upper_whole;
	b.lower_whole = message->layer_merge_reply->lower_whole;
	b.lower_empty = message->layer_merge_reply->lower_empty;
}

static void start(void)
{
	const struct layer_work_config config = {
	    .reactor = sim_reactor(b.rig.process),
	    .pool = b.rig.pool,
	    .may_store = may_store,
	    .answer = answer,
	};

	ck_assert_int_eq(layer_work_start(&config, &b.work), 0);
}

static void begin(uint64_t seed)
{
	rig_devices = 1;
	memset(&b, 0, sizeof b);
	b.stores_left = UINT32_MAX;
	b.data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	rig_init(&b.rig, seed, DISK_MIB);
	rig_must_open(&b.rig);
	prepare(&b.rig);
	start();
}

static void crashed(void)
{
	layer_work_abandon(b.work);
	b.work = NULL;
	rig_crash(&b.rig, SIM_KILL);
	sim_process_on_io(b.rig.process, 1, SIM_IO_NORMAL);
	rig_must_open(&b.rig);
	start();
}

static void end(void)
{
	layer_work_abandon(b.work);
	rig_deinit(&b.rig);
	free(b.data);
}

/* -- merging ---------------------------------------------------------------------------------- */

enum what { LOOK, WORD, BLOCKS };

static void ask(chunk_no_t chunk, enum what what)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LayerMerge merge = PAVE__V1__LAYER_MERGE__INIT;

	merge.upper = rig_volume_id(UPPER);
	merge.lower = rig_volume_id(LOWER);
	merge.chunk = chunk;
	merge.look = what == LOOK;
	merge.fresh = what == WORD;
	m.body_case = PAVE__V1__CONTROL__BODY_LAYER_MERGE;
	m.layer_merge = &merge;
	b.answered = false;
	layer_work_add(b.work, TOKEN, &m);
}

/* The status; -E_DISCONNECTED: the process crashed. */
static int wait_answer(void)
{
	if (sim_run_flag(b.rig.world, &b.answered) && b.rig.process->alive)
		return b.status;
	CHECK(!b.rig.process->alive, "a merge is never answered");
	return -E_DISCONNECTED;
}

static int failure(void)
{
	return b.rig.process->alive ? b.status : -E_DISCONNECTED;
}

/* What a block of a layer must hold, by the version that it has. */
static void check_content(uint32_t layer, block_no_t block, const uint8_t *data, version_t version)
{
	const struct rig_try *t = &b.before.tries[version_seq(version)];
	uint8_t expected[BLOCK_SIZE] = {0};

	if (version != 0 && t->kind == STORE_DATA)
		rig_content(version_seq(version), block, expected);
	CHECK(memcmp(expected, data, BLOCK_SIZE) == 0, "layer %u block %u: wrong content", layer,
	      block);
}

/* The upper layer is as it was; of the lower one each block is as it was, or as in the upper one,
 * and must be that where `merged`. */
static void check_block(uint32_t chunk, block_no_t block, bool merged, const uint8_t *upper,
			version_t upper_version, const uint8_t *lower, version_t lower_version)
{
	const version_t upper_owed = b.before.chunks[UPPER][chunk].acked[block];
	const version_t lower_owed = b.before.chunks[LOWER][chunk].acked[block];

	CHECK(upper_version == upper_owed, "chunk %u block %u: the upper layer has changed", chunk,
	      block);
	check_content(UPPER, block, upper, upper_version);
	CHECK(!merged || upper_owed == 0 || lower_version == merged_version(),
	      "chunk %u block %u: it is not merged", chunk, block);
	if (lower_version == merged_version()) {
		CHECK(upper_owed != 0, "chunk %u block %u: nobody wrote it", chunk, block);
		check_content(LOWER, block, lower, upper_owed);
		return;
	}
	CHECK(lower_version == lower_owed, "chunk %u block %u: version %lx instead of %lx", chunk,
	      block, lower_version, lower_owed);
	check_content(LOWER, block, lower, lower_version);
}

static bool is_whole(uint32_t layer, chunk_no_t chunk)
{
	struct store_chunk_state state;

	return pool_chunks(b.rig.pool, rig_volume_id(layer), chunk, &state, 1) == 1 &&
	       state.chunk == chunk && version_is_sealed(state.watermark);
}

/* Like the driver, chunk by chunk: the lower layer has nothing of the second. */
static int merge_all(void)
{
	b.blocks = 0;
	if (!is_whole(LOWER, 1)) {
		ask(1, WORD);
		if (wait_answer() != 0)
			return failure();
		CHECK(b.done && b.blocks == 0, "a last word takes no blocks");
	}
	for (chunk_no_t c = 0; c < CHUNKS; c++)
		do {
			ask(c, BLOCKS);
			if (wait_answer() != 0)
				return failure();
		} while (!b.done);
	return 0;
}

/* Whatever has happened: both copies of chunk 0 can be read and restored from; the lower one of
 * chunk 1 holds nothing, or can be, too. */
static void check_layers(bool merged)
{
	version_t versions[2][IO_BLOCKS_MAX];
	uint32_t crcs[IO_BLOCKS_MAX];
	uint8_t *lower = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);

	for (chunk_no_t c = 0; c < CHUNKS; c++) {
		bool touched = false;

		CHECK(is_whole(UPPER, c), "the upper layer's chunk %u is not whole", c);
		for (block_no_t at = 0; at < RIG_BLOCKS; at += IO_BLOCKS_MAX) {
			ck_assert_int_eq(rig_read(&b.rig, UPPER, c, at, IO_BLOCKS_MAX, b.data, crcs,
						  versions[UPPER], NULL),
					 0);
			ck_assert_int_eq(rig_read(&b.rig, LOWER, c, at, IO_BLOCKS_MAX, lower, crcs,
						  versions[LOWER], NULL),
					 0);
			for (uint32_t i = 0; i < IO_BLOCKS_MAX; i++) {
				check_block(c, at + i, merged, b.data + (size_t)i * BLOCK_SIZE,
					    versions[UPPER][i], lower + (size_t)i * BLOCK_SIZE,
					    versions[LOWER][i]);
				touched = touched || versions[LOWER][i] != 0;
			}
		}
		CHECK(!touched || is_whole(LOWER, c), "chunk %u of the lower layer is in parts", c);
	}
	free(lower);
}

static void merge_must_end(void)
{
	ck_assert_int_eq(merge_all(), 0);
	check_layers(true);
	/* The pass after it finds nothing to do. */
	ck_assert_int_eq(merge_all(), 0);
	ck_assert_uint_eq(b.blocks, 0);
}

static const struct {
	enum sim_io_action action;
	enum sim_fate fate;
} crashes[] = {
    {SIM_IO_KILL, SIM_FATE_RANDOM},	  {SIM_IO_POWER_LOSS, SIM_FATE_KEEP},
    {SIM_IO_POWER_LOSS, SIM_FATE_DROP},	  {SIM_IO_POWER_LOSS, SIM_FATE_TEAR},
    {SIM_IO_POWER_LOSS, SIM_FATE_RANDOM},
};

START_TEST(a_crash_at_any_io_loses_nothing)
{
	uint64_t n = 1;
	bool whole = false;

	for (; !whole; n++) {
		begin(n);
		b.rig.process->fate = crashes[_i].fate;
		sim_process_on_io(b.rig.process, n, crashes[_i].action);
		whole = merge_all() == 0;
		sim_process_on_io(b.rig.process, 1, SIM_IO_NORMAL);
		if (!whole) {
			crashed();
			check_layers(false);
		}
		merge_must_end();
		crashed();
		check_layers(true);
		end();
	}
	ck_assert_uint_gt(n, 5);
}
END_TEST

/* A disk that fails: the merge says so, and can be done later. */
START_TEST(an_io_that_fails_is_told)
{
	uint64_t n = 1;
	bool whole = false;

	for (; !whole; n++) {
		begin(n);
		sim_process_on_io(b.rig.process, n, SIM_IO_FAIL);
		whole = merge_all() == 0;
		sim_process_on_io(b.rig.process, 1, SIM_IO_NORMAL);
		crashed();
		check_layers(whole);
		merge_must_end();
		end();
	}
	ck_assert_uint_gt(n, 5);
}
END_TEST

/* -- what it refuses -------------------------------------------------------------------------- */

START_TEST(nothing_is_stored_without_a_lease)
{
	uint32_t n = 0;

	for (int rc = -1; rc != 0; n++) {
		begin(1);
		b.stores_left = n;
		rc = merge_all();
		CHECK(rc == 0 || rc == -E_NO_LEASE, "%d", rc);
		check_layers(rc == 0);
		CHECK(n > 0 || is_whole(LOWER, 0), "it has lost its last word");
		CHECK(n > 0 || !is_whole(LOWER, 1), "stored without a lease");
		b.stores_left = UINT32_MAX;
		merge_must_end();
		end();
	}
	ck_assert_uint_gt(n, 3);
}
END_TEST

START_TEST(what_is_not_whole_is_not_merged)
{
	begin(1);
	/* Of a third chunk the upper layer has something, but not all. */
	rig_write(&b.rig, STORE_DATA, UPPER, 2, 0, 3);
	ck_assert(rig_drain(&b.rig));
	ask(2, BLOCKS);
	ck_assert_int_eq(wait_answer(), -EBUSY);
	/* Nor of chunk 1 the lower one: what is there may never have been acknowledged. */
	rig_write(&b.rig, STORE_DATA, LOWER, 1, 0, 3);
	ck_assert(rig_drain(&b.rig));
	for (enum what what = WORD; what <= BLOCKS; what++) {
		ask(1, what);
		ck_assert_int_eq(wait_answer(), -EBUSY);
		ck_assert(!is_whole(LOWER, 1));
	}
	/* A chunk that is not here. */
	ask(9, BLOCKS);
	ck_assert_int_eq(wait_answer(), -EBUSY);
	end();
}
END_TEST

START_TEST(a_look_tells_what_is_whole)
{
	begin(1);
	ask(0, LOOK);
	ck_assert_int_eq(wait_answer(), 0);
	ck_assert(b.found && b.chunk == 0 && b.upper_whole && b.lower_whole && !b.lower_empty);
	ask(1, LOOK);
	ck_assert_int_eq(wait_answer(), 0);
	ck_assert(b.found && b.chunk == 1 && b.upper_whole && !b.lower_whole && b.lower_empty);
	/* Its last word is no block. */
	ask(1, WORD);
	ck_assert_int_eq(wait_answer(), 0);
	ask(1, LOOK);
	ck_assert_int_eq(wait_answer(), 0);
	ck_assert(b.found && b.chunk == 1 && b.upper_whole && b.lower_whole && b.lower_empty);
	ck_assert_int_eq(merge_all(), 0);
	ask(1, LOOK);
	ck_assert_int_eq(wait_answer(), 0);
	ck_assert(b.lower_whole && !b.lower_empty);
	ask(2, LOOK);
	ck_assert_int_eq(wait_answer(), 0);
	ck_assert(!b.found);
	end();
}
END_TEST

/* -- erasing ---------------------------------------------------------------------------------- */

static void left(struct layer_leave_op *op)
{
	(void)op;
	CHECK(!b.left, "left twice");
	CHECK(b.stores == 0 || b.answered, "a merge is still under way");
	b.left = true;
}

static bool has_any(uint32_t layer)
{
	struct store_chunk_state state;

	return pool_chunks(b.rig.pool, rig_volume_id(layer), 0, &state, 1) == 1;
}

static void erase_layer(uint32_t layer)
{
	for (chunk_no_t c = 0; c < CHUNKS; c++)
		ck_assert_int_eq(rig_wait(&b.rig, rig_erase(&b.rig, layer, c)), 0);
}

/* Whenever it comes: what is erased once the merge has left it does not come back. False: the merge
 * was over before. */
static bool erased_after(uint32_t steps, chunk_no_t chunk, enum what what, uint32_t layer)
{
	struct layer_leave_op op = {.done = left, .layer = rig_volume_id(layer)};

	begin(steps + 1);
	if (chunk == 1 && what == BLOCKS) {
		ask(chunk, WORD);
		ck_assert_int_eq(wait_answer(), 0);
		b.stores = 0;
	}
	ask(chunk, what);
	for (uint32_t i = 0; i < steps && !b.answered; i++)
		ck_assert(sim_step(b.rig.world));
	if (b.answered) {
		end();
		return false;
	}
	layer_work_leave(b.work, &op);
	ck_assert(!b.left);
	ck_assert(sim_run_flag(b.rig.world, &b.left));
	erase_layer(layer);
	ck_assert(sim_run_flag(b.rig.world, &b.answered));
	CHECK(b.status == 0 || b.status == -EBUSY, "%d", b.status);
	sim_run_for(b.rig.world, NS_PER_S);
	CHECK(!has_any(layer), "what was erased is there again");
	end();
	return true;
}

START_TEST(what_is_erased_stays_erased)
{
	const uint32_t layer = _i % 2 == 0 ? LOWER : UPPER;
	const chunk_no_t chunk = _i / 2 == 0 ? 0 : 1;
	const enum what what = _i / 2 == 2 ? WORD : BLOCKS;
	uint32_t steps = 0;

	while (erased_after(steps, chunk, what, layer))
		ck_assert_uint_lt(++steps, STEPS_MAX);
	ck_assert_uint_gt(steps, what == WORD ? 1 : 3);
}
END_TEST

/* -- memory ----------------------------------------------------------------------------------- */

START_TEST(without_memory_it_says_so)
{
	const struct layer_work_config config = {.may_store = may_store, .answer = answer};
	const uint64_t before = alloc_live();
	struct layer_work *w = NULL;
	uint64_t n = 1;

	for (;; n++) {
		int rc;

		alloc_fail_at(n);
		rc = layer_work_start(&config, &w);
		if (!alloc_failed())
			break;
		ck_assert_int_eq(rc, -ENOMEM);
		ck_assert_ptr_null(w);
		ck_assert_uint_eq(alloc_live(), before);
	}
	alloc_fail_at(0);
	ck_assert_uint_gt(n, 3);
	layer_work_abandon(w);
	begin(1);
	alloc_fail_at(1);
	ask(0, BLOCKS);
	ck_assert(alloc_failed());
	alloc_fail_at(0);
	ck_assert(b.answered);
	ck_assert_int_eq(b.status, -ENOMEM);
	merge_must_end();
	end();
	ck_assert_uint_eq(alloc_live(), before);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("layer_work");
	TCase *tc = tcase_create("layer_work");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 240);
	tcase_add_loop_test(tc, a_crash_at_any_io_loses_nothing, 0, ARRAY_SIZE(crashes));
	tcase_add_test(tc, an_io_that_fails_is_told);
	tcase_add_test(tc, nothing_is_stored_without_a_lease);
	tcase_add_test(tc, what_is_not_whole_is_not_merged);
	tcase_add_test(tc, a_look_tells_what_is_whole);
	tcase_add_loop_test(tc, what_is_erased_stays_erased, 0, 6);
	tcase_add_test(tc, without_memory_it_says_so);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
