/* What a node erases for the driver (tools/pave-node/erase.h), on one simulated device: who asks
 * for the same again is answered in the place of who asked before, and nothing that was asked for
 * before is begun after what was asked for last. */
#include <errno.h>
#include <string.h>

#include "test_store_rig.h"
#include "tools/pave-node/erase.h"

#define DISK_MIB   16u
#define TOKENS_MAX 8u

static struct bench {
	struct rig rig;
	struct node_shard *shard; /* none: nobody has anything open */
	struct layer_work *work;
	struct eraser *eraser;
	bool answered[TOKENS_MAX];
	int status[TOKENS_MAX];
	bool stopped;
} b;

static bool may_store(void *arg)
{
	(void)arg;
	return true;
}

static void no_answer(uint64_t token, int status, const char *text,
		      const Pave__V1__Control *message, void *arg)
{
	(void)token;
	(void)status;
	(void)text;
	(void)message;
	(void)arg;
	ck_abort_msg("nobody asked for work on layers");
}

static void erased(uint64_t token, int status, const struct node_erasure *done, void *arg)
{
	(void)arg;
	ck_assert_uint_lt(token, TOKENS_MAX);
	ck_assert_msg(!b.answered[token], "%u was answered twice", (unsigned)token);
	ck_assert(done != NULL || status != 0);
	b.answered[token] = true;
	b.status[token] = status;
}

static void stopped(void *arg)
{
	(void)arg;
	b.stopped = true;
}

static void setup(void)
{
	struct layer_work_config config = {.may_store = may_store, .answer = no_answer};

	rig_devices = 1;
	memset(&b, 0, sizeof b);
	rig_init(&b.rig, 1, DISK_MIB);
	rig_must_open(&b.rig);
	for (uint32_t chunk = 0; chunk < 3; chunk++)
		rig_write(&b.rig, STORE_DATA, 0, chunk, 0, 100);
	ck_assert(rig_drain(&b.rig));
	config.reactor = sim_reactor(b.rig.process);
	config.pool = b.rig.pool;
	ck_assert_int_eq(layer_work_start(&config, &b.work), 0);
	ck_assert_int_eq(
	    eraser_start(config.reactor, b.rig.pool, &b.shard, b.work, erased, NULL, &b.eraser), 0);
}

static void teardown(void)
{
	eraser_stop(b.eraser, stopped, NULL);
	ck_assert(sim_run_flag(b.rig.world, &b.stopped));
	layer_work_abandon(b.work);
	rig_close(&b.rig);
	rig_deinit(&b.rig);
}

/* So many chunks of volume 0, the higher ones first, from this one on. */
static void ask(uint64_t token, uint32_t first, size_t count, const char *method)
{
	Pave__V1__Erase erase = PAVE__V1__ERASE__INIT;
	uint32_t chunks[] = {2, 1, 0};

	erase.volume = rig_volume_id(0);
	erase.chunks = chunks + (2 - first);
	erase.n_chunks = count;
	erase.method = (char *)(uintptr_t)method;
	eraser_add(b.eraser, token, &erase);
}

static int wait_for(uint64_t token)
{
	ck_assert_msg(sim_run_flag(b.rig.world, &b.answered[token]), "%u is never answered",
		      (unsigned)token);
	return b.status[token];
}

static bool is_there(chunk_no_t chunk)
{
	struct store_chunk_state state;

	return pool_chunks(b.rig.pool, rig_volume_id(0), chunk, &state, 1) == 1 &&
	       state.chunk == chunk;
}

START_TEST(whoever_asks_again_is_answered)
{
	ask(0, 0, 1, "overwrite");
	ask(1, 0, 1, "overwrite");
	ck_assert(b.answered[0]);
	ck_assert_int_eq(b.status[0], -EALREADY);
	ck_assert_int_eq(wait_for(1), 0);
	ck_assert(!is_there(0));
	ck_assert(is_there(1));
}
END_TEST

/* What is under way ends first, whoever waits for it. */
START_TEST(another_erasure_waits)
{
	ask(0, 0, 1, "overwrite");
	ask(1, 2, 2, "");
	ck_assert_int_eq(wait_for(1), 0);
	ck_assert_int_eq(wait_for(0), 0);
	for (chunk_no_t chunk = 0; chunk < 3; chunk++)
		ck_assert(!is_there(chunk));
}
END_TEST

/* The first takes long, the driver asks for more, and then, as another that took over does, for
 * the first alone. When it hears that this is done the chunk may come back. */
START_TEST(what_has_come_back_stays)
{
	ask(0, 0, 1, "");
	ask(1, 1, 2, "");
	ask(2, 0, 1, "");
	ck_assert_int_eq(wait_for(2), 0);
	ck_assert(!is_there(0));
	rig_write(&b.rig, STORE_DATA, 0, 0, 50, 10);
	ck_assert(rig_drain(&b.rig));
	sim_run_for(b.rig.world, 60 * NS_PER_S);
	ck_assert(is_there(0));
	ck_assert(is_there(1));
	ck_assert(b.answered[0] && b.answered[1]);
	ck_assert_int_eq(b.status[1], -EALREADY);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("eraser");
	TCase *tc = tcase_create("eraser");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, whoever_asks_again_is_answered);
	tcase_add_test(tc, another_erasure_waits);
	tcase_add_test(tc, what_has_come_back_stays);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
