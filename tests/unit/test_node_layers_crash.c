/* What a node does with the layers of a volume, with a crash at every I/O, in every way: writes
 * before and after a snapshot, the last word that seals a layer, a clone and its end, a sealed
 * layer that is restored. What it has answered is there afterwards, a layer that it calls whole has
 * exactly what it should have, and index and segments agree. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/store/check.h"
#include "tests/unit/test_node_rig.h"

#define CHUNK  3u
#define TOP    21u
#define CLONE  31u
#define LOW    11u
#define LARGE  100u /* blocks of a write that is a group of its own */
#define SEALED version_make(1, VERSION_SEQ_MAX)

enum step {
	WRITE,
	WRITE_LARGE,
	SNAPSHOT,
	WRITE_TOP,
	DISCARD_TOP,
	SEAL,
	CALL_SEALED,
	WRITE_CLONE,
	ERASE_CLONE,
	RESTORE,
	STEPS,
};

struct erasing {
	struct store_erase_op op;
	bool done;
	int status;
};

static struct rig *rig;
static struct peer_host h, clone;
static uint64_t serial;
static uint8_t *data, *back;
static struct erasing erasing;

static version_t v(uint64_t seq)
{
	return version_make(1, seq);
}

static const void *block(uint32_t n)
{
	return data + (size_t)n * BLOCK_SIZE;
}

/* A run ends when a process crashes; what it said last arrives after that. */
static bool until(void *arg, const bool *flag)
{
	(void)arg;
	return sim_run_flag(rig->world, flag) || sim_run_flag(rig->world, flag);
}

/* -- before ----------------------------------------------------------------------------------- */

/* Of LOW node 1 has what was acknowledged; node 0 lacks one block of it, and has one that nobody
 * acknowledged. */
static void prepare_low(void)
{
	for (uint32_t n = 0; n < RIG_NODES; n++) {
		struct peer_permit p = rig_permit(rig, 1, 1);
		struct peer_host low;

		p.volume = LOW;
		rig_host(rig, &low, n);
		ck_assert_msg(rig_try_open(&low, &p) == 0, "%s", low.call_text);
		ck_assert_int_eq(peer_host_write(&low, CHUNK, 0, 2, v(1), block(40)), 0);
		if (n == 0)
			ck_assert_int_eq(peer_host_write(&low, CHUNK, 9, 1, v(2), block(50)), 0);
		else
			ck_assert_int_eq(peer_host_write(&low, CHUNK, 1, 1, v(3), block(42)), 0);
		if (n == 1)
			ck_assert_int_eq(peer_host_watermark(&low, CHUNK, SEALED), 0);
		peer_host_close(&low);
	}
}

/* The volume's permit as it is when this step begins. */
static struct peer_permit permit_of(enum step step)
{
	struct peer_permit p = rig_permit(rig, 1, ++serial);

	if (step <= SNAPSHOT) {
		p.layers[0] = (struct permit_layer){RIG_VOLUME, true};
		p.layers[1] = (struct permit_layer){LOW, false};
		return p;
	}
	p.layers[0] = (struct permit_layer){TOP, true};
	p.layers[1] = (struct permit_layer){RIG_VOLUME, step <= CALL_SEALED};
	p.layers[2] = (struct permit_layer){LOW, false};
	return p;
}

static int connect_and_open(struct peer_host *p, const struct peer_permit *permit)
{
	int rc;

	peer_host_init(p, sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	rc = peer_host_connect(p, rig->nodes[0].name);
	if (rc == 0)
		rc = peer_host_hello(p, "host", "host");
	return rc == 0 ? rig_try_open(p, permit) : rc;
}

static int open_clone(void)
{
	struct peer_permit p = rig_permit(rig, 1, ++serial);

	p.volume = CLONE;
	p.layers[0] = (struct permit_layer){CLONE, true};
	p.layers[1] = (struct permit_layer){RIG_VOLUME, false};
	p.layers[2] = (struct permit_layer){LOW, false};
	return connect_and_open(&clone, &p);
}

/* Nobody reads a snapshot before it is settled. */
static int open_sessions(enum step step)
{
	struct peer_permit p = permit_of(step);
	int rc = connect_and_open(&h, &p);

	return rc == 0 && step > CALL_SEALED ? open_clone() : rc;
}

static void close_sessions(void)
{
	peer_host_close(&h);
	peer_host_close(&clone);
}

/* -- steps ------------------------------------------------------------------------------------ */

static int write_to(struct peer_host *p, uint32_t layer, block_no_t at, uint32_t count,
		    uint64_t seq, uint32_t n)
{
	p->layer = layer;
	return peer_host_write(p, CHUNK, at, count, v(seq), block(n));
}

static void erased(struct store_erase_op *op, int status)
{
	struct erasing *e = container_of(op, struct erasing, op);

	e->done = true;
	e->status = status;
}

static int erase_clone(void)
{
	struct rig_node *n = &rig->nodes[0];

	erasing = (struct erasing){.op = {.done = erased, .volume = CLONE, .chunk = UINT32_MAX}};
	pool_erase(n->pool, &erasing.op);
	return sim_run_flag(rig->world, &erasing.done) ? erasing.status : -E_DISCONNECTED;
}

static int update(enum step step)
{
	struct peer_permit p = permit_of(step + 1);
	int rc = rig_update(&h, &p);

	return rc == 0 && step == CALL_SEALED ? open_clone() : rc;
}

static int take(enum step step)
{
	switch (step) {
	case WRITE:
		return write_to(&h, RIG_VOLUME, 0, 1, 1, 1);
	case WRITE_LARGE:
		return write_to(&h, RIG_VOLUME, 100, LARGE, 2, 100);
	case SNAPSHOT:
	case CALL_SEALED:
		return update(step);
	case WRITE_TOP:
		return write_to(&h, TOP, 0, 1, 4, 4);
	case DISCARD_TOP:
		h.layer = TOP;
		return peer_host_zero(&h, CHUNK, 101, 1, v(5), true);
	case SEAL:
		h.layer = RIG_VOLUME;
		return peer_host_watermark(&h, CHUNK, SEALED);
	case WRITE_CLONE:
		return write_to(&clone, CLONE, 0, 1, 6, 6);
	case ERASE_CLONE:
		return erase_clone();
	case RESTORE:
		h.layer = LOW;
		h.exact = true;
		return peer_host_pull(&h, CHUNK, 0, "n2", rig->nodes[1].name);
	default:
		ck_abort();
	}
}

/* -- what must hold --------------------------------------------------------------------------- */

/* A block as it shows from the layer down: `number` of block(), or of one that may be: `other`; -1:
 * zeroes. */
static void expect(struct peer_host *p, uint32_t layer, block_no_t at, int number, int other)
{
	static const uint8_t zeroes[BLOCK_SIZE];

	p->layer = layer;
	ck_assert_int_eq(peer_host_read(p, CHUNK, at, 1, back), 0);
	ck_assert_msg(
	    memcmp(back, number < 0 ? zeroes : block((uint32_t)number), BLOCK_SIZE) == 0 ||
		memcmp(back, other < 0 ? zeroes : block((uint32_t)other), BLOCK_SIZE) == 0,
	    "block %u of layer %u is neither %d nor %d", at, layer, number, other);
}

static version_t watermark_of(volume_id_t layer)
{
	struct store_chunk_state state;

	return pool_chunks(rig->nodes[0].pool, layer, CHUNK, &state, 1) == 1 ? state.watermark : 0;
}

/* On every device of the node. */
static void index_and_segments_agree(void)
{
	const struct pool *pool = rig->nodes[0].pool;
	uint32_t stores = 0;

	for (uint32_t i = 0; i < POOL_DEVICES_MAX; i++) {
		const struct store *store = pool_store(pool, i);
		struct error err;

		if (store == NULL)
			continue;
		ck_assert_msg(store_check(store, &err) == 0, "device %u: %s", i, err.text);
		stores++;
	}
	ck_assert_uint_gt(stores, 0);
}

/* Before this step, which may have happened. */
static void check(enum step step)
{
	const int large = step > WRITE_LARGE ? 100 : -1;
	struct store_chunk_state state;

	index_and_segments_agree();
	expect(&h, RIG_VOLUME, 0, step > WRITE ? 1 : 40, 1);
	for (uint32_t i = 0; i < LARGE; i++)
		expect(&h, RIG_VOLUME, 100 + i, large < 0 ? -1 : large + (int)i, 100 + (int)i);
	if (step > SNAPSHOT) {
		expect(&h, TOP, 0, step > WRITE_TOP ? 4 : 1, 4);
		expect(&h, TOP, 101, step > DISCARD_TOP ? -1 : 101, -1);
		expect(&h, TOP, 102, 102, 102);
	}
	ck_assert(step <= SEAL || version_is_sealed(watermark_of(RIG_VOLUME)));
	ck_assert(step >= SEAL || watermark_of(RIG_VOLUME) == 0);
	if (step > CALL_SEALED && step < RESTORE) {
		expect(&clone, CLONE, 0, step > WRITE_CLONE && step <= ERASE_CLONE ? 6 : 1,
		       step == WRITE_CLONE ? 6 : 1);
		expect(&clone, CLONE, 101, 101, 101); /* not as the volume has it */
	}
	if (step > ERASE_CLONE)
		ck_assert_uint_eq(pool_chunks(rig->nodes[0].pool, CLONE, 0, &state, 1), 0);
	ck_assert(step <= RESTORE || version_is_sealed(watermark_of(LOW)));
	if (version_is_sealed(watermark_of(LOW))) {
		expect(&h, LOW, 0, 40, 40);
		expect(&h, LOW, 1, 42, 42);
		expect(&h, LOW, 9, -1, -1);
	}
}

static void start_again(enum step step)
{
	struct rig_node *n = &rig->nodes[0];

	close_sessions();
	if (n->process->alive)
		rig_node_crash(n, SIM_POWER_LOSS);
	rig_node_start(n);
	rig_wait_lease(n, true);
	ck_assert_msg(open_sessions(step) == 0, "%s", h.call_text);
}

/* -- every I/O -------------------------------------------------------------------------------- */

static const struct {
	enum sim_io_action action;
	enum sim_fate fate;
} crashes[] = {
    {SIM_IO_KILL, SIM_FATE_RANDOM},	  {SIM_IO_POWER_LOSS, SIM_FATE_KEEP},
    {SIM_IO_POWER_LOSS, SIM_FATE_DROP},	  {SIM_IO_POWER_LOSS, SIM_FATE_TEAR},
    {SIM_IO_POWER_LOSS, SIM_FATE_RANDOM},
};

static void begin(uint64_t n)
{
	rig = rig_create(n);
	rig->wait.until = until;
	serial = 1;
	prepare_low();
	ck_assert_int_eq(open_sessions(WRITE), 0);
}

/* True: it came to its end before I/O n came. */
static bool crash_at(uint64_t n, uint32_t how)
{
	struct rig_node *node;
	bool crashed = false;

	begin(n);
	node = &rig->nodes[0];
	node->process->fate = crashes[how].fate;
	sim_process_on_io(node->process, n, crashes[how].action);
	for (uint32_t step = 0; step < STEPS; step++) {
		int rc = take((enum step)step);

		if (rc == 0 && node->process->alive)
			continue;
		ck_assert_msg(!crashed && !node->process->alive, "step %u: %s %s", step,
			      err_name(rc), h.call_text);
		crashed = true;
		sim_process_on_io(node->process, 1, SIM_IO_NORMAL);
		step += rc == 0; /* or it is asked for again */
		start_again((enum step)step);
		check((enum step)step);
		step--;
	}
	sim_process_on_io(node->process, 1, SIM_IO_NORMAL);
	check(STEPS);
	start_again(STEPS);
	check(STEPS);
	close_sessions();
	rig_destroy(rig);
	return !crashed;
}

START_TEST(a_crash_at_any_io_loses_nothing)
{
	uint64_t n = 1;

	data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	back = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, IO_BLOCKS_MAX, 5);
	while (!crash_at(n, (uint32_t)_i))
		n++;
	ck_assert_uint_gt(n, 10);
	free(data);
	free(back);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("node_layers_crash");
	TCase *tc = tcase_create("layers");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, a_crash_at_any_io_loses_nothing, 0, ARRAY_SIZE(crashes));
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
