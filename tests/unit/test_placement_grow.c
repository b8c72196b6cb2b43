/* The driver makes a volume larger that a host has attached: what the host is told, and when. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_placement_rig.h"

#define CHUNK	(64ull << 20)
#define SIZE	(4 * CHUNK - BLOCK_SIZE) /* the last chunk has room */
#define LARGER	(6 * CHUNK + BLOCK_SIZE)
#define SLOW_MS 100u

static struct rig *rig;
static struct peer *admin, *host;
static struct peer *nodes[3];
static volume_id_t volume;

static void begin(uint64_t seed)
{
	rig = rig_create(seed);
	admin = peer_new(rig, "admin", "test");
	rig_three(rig, admin, nodes);
	host = peer_new(rig, "host", "h1");
	ck_assert_msg(ask_create(admin, "v", SIZE, "secnumcloud-fr") == 0, "%s", admin->text);
	volume = admin->reply->volume_get_reply->info->id;
}

static void setup(void)
{
	begin(1);
}

static void teardown(void)
{
	rig_destroy(rig);
}

static void attach(void)
{
	ck_assert_msg(ask_attach(host, "v", "h1", "par") == 0, "%s", host->text);
	ck_assert_uint_eq(host->reply->attach_reply->size, SIZE);
}

static void start_renew(uint64_t size)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Renew r = PAVE__V1__RENEW__INIT;

	r.volume = volume;
	r.generation = 1;
	r.size = size;
	m.body_case = PAVE__V1__CONTROL__BODY_RENEW;
	m.renew = &r;
	peer_ask_start(host, &m);
}

/* What it is told that it has not, if it has so much. */
static const Pave__V1__Growth *renew(uint64_t size)
{
	start_renew(size);
	ck_assert_msg(peer_ask_wait(host) == 0, "%s", host->text);
	return host->reply->renew_reply->growth;
}

static void start_resize(uint64_t size)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__VolumeResize r = PAVE__V1__VOLUME_RESIZE__INIT;
	char name[] = "v";

	r.name = name;
	r.size = size;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_RESIZE;
	m.volume_resize = &r;
	peer_ask_start(admin, &m);
}

static const Pave__V1__VolumeInfo *info(void)
{
	ck_assert_int_eq(ask_volume(admin, "v"), 0);
	return admin->reply->volume_get_reply->info;
}

/* It hears at once how large the volume is, and by renewing what it lacks: rows of the map, of
 * nodes that the answer and its permit name. One that does not say what it has is told nothing. */
START_TEST(a_host_is_told)
{
	const Pave__V1__Growth *g;
	const Pave__V1__RenewReply *r;
	uint32_t notices;

	attach();
	ck_assert_ptr_null(renew(SIZE));
	ck_assert_uint_eq(info()->served_size, SIZE);
	notices = host->permit_notices;
	ck_assert_msg(ask_resize(admin, "v", LARGER) == 0, "%s", admin->text);
	rig_run_ms(rig, 100);
	ck_assert_uint_eq(host->permit_notices, notices + 1);
	ck_assert_uint_eq(host->notice.volume, volume);
	ck_assert_uint_eq(host->notice_size, LARGER);
	ck_assert_uint_eq(info()->size, LARGER);
	ck_assert_uint_eq(info()->served_size, SIZE);
	ck_assert_ptr_null(renew(0));
	ck_assert_uint_eq(info()->served_size, 0);
	g = renew(SIZE);
	ck_assert_ptr_nonnull(g);
	ck_assert_uint_eq(g->size, LARGER);
	ck_assert_uint_eq(g->from, 4);
	ck_assert_uint_eq(g->map.len, 3 * 3);
	r = host->reply->renew_reply;
	for (size_t i = 0; i < g->map.len; i++)
		ck_assert_uint_lt(g->map.data[i], r->n_nodes);
	ck_assert_ptr_nonnull(r->permit);
	/* What it has of its last chunk counts as the whole chunk. */
	g = renew(5 * CHUNK + BLOCK_SIZE);
	ck_assert_uint_eq(g->from, 6);
	ck_assert_uint_eq(g->map.len, 3);
	g = renew(6 * CHUNK + BLOCK_SIZE / 2);
	ck_assert_uint_eq(g->from, 7);
	ck_assert_uint_eq(g->map.len, 0);
	ck_assert_ptr_null(renew(UINT64_MAX));
	ck_assert_ptr_null(renew(LARGER));
	ck_assert_uint_eq(info()->served_size, LARGER);
	ck_assert_int_eq(ask_detach(host, volume, 1), 0);
	ck_assert_uint_eq(info()->served_size, 0);
}
END_TEST

/* The driver that it grew under is gone: the next one tells. */
START_TEST(another_driver_tells)
{
	const Pave__V1__Growth *g;

	attach();
	ck_assert_int_eq(ask_resize(admin, "v", LARGER), 0);
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	ck_assert(sim_run_flag(rig->world, &host->closed));
	ck_assert_int_eq(peer_connect(host, "host", "h1"), 0);
	g = renew(SIZE);
	ck_assert_ptr_nonnull(g);
	ck_assert_uint_eq(g->size, LARGER);
}
END_TEST

static void start_attach(void)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Attach a = PAVE__V1__ATTACH__INIT;
	char name[] = "v", holder[] = "h1", site[] = "par", endpoint[] = "unix:/x";

	a.volume = name;
	a.holder = holder;
	a.holder_site = site;
	a.endpoint = endpoint;
	m.body_case = PAVE__V1__CONTROL__BODY_ATTACH;
	m.attach = &a;
	peer_ask_start(host, &m);
}

/* A host renews, or attaches, while the larger size is being written down: it hears of it when a
 * crash can undo it no more. The one that renews hears of it with the next answer, the one that
 * attaches waits. */
START_TEST(not_before_it_is_durable)
{
	const bool attaches = _i % 2 == 1;
	bool told;

	teardown(); /* what a crash keeps depends on the seed */
	begin(2 + (uint64_t)_i / 2);
	if (!attaches)
		attach();
	sim_kv_slow_commits(rig->kv, SLOW_MS * NS_PER_MS);
	if (attaches)
		start_attach();
	else
		start_renew(SIZE);
	/* Attaching takes two commits: the permit is in the ledger first. */
	rig_run_ms(rig, attaches ? SLOW_MS * 3 / 2 : SLOW_MS / 2);
	start_resize(4 * CHUNK);
	rig_run_ms(rig, SLOW_MS / 4);
	ck_assert(!host->answered && !admin->answered);
	ck_assert_msg(peer_ask_wait(host) == 0, "%s", host->text);
	told = attaches ? host->reply->attach_reply->size != SIZE
			: host->reply->renew_reply->growth != NULL;
	rig_pd_crash(rig, SIM_POWER_LOSS);
	rig_pd_start(rig);
	ck_assert(sim_run_flag(rig->world, &admin->closed));
	ck_assert_int_eq(peer_connect(admin, "admin", "test"), 0);
	ck_assert(!told || info()->size == 4 * CHUNK);
	ck_assert(told == attaches);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("placement_grow");
	TCase *tc = tcase_create("grow");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_host_is_told);
	tcase_add_test(tc, another_driver_tells);
	tcase_add_loop_test(tc, not_before_it_is_durable, 0, 16);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
