/* The node without memory: every allocation of its own fails once, while a host is greeted, opens,
 * writes, reads, asks and pulls. Nothing ends the process, nothing leaks; what cannot be done is
 * refused, or ends that connection; and the next host is served as ever. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc_fail.h"
#include "tests/unit/test_node_rig.h"

#define RUNS_MAX 2000u

static struct rig *rig;
static uint8_t *data, *back;

static int ask_lists(struct peer_host *h)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Chunks chunks = PAVE__V1__CHUNKS__INIT;
	Pave__V1__Changes changes = PAVE__V1__CHANGES__INIT;
	int rc;

	chunks.max = 100;
	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	message.chunks = &chunks;
	rc = peer_host_ask(h, &message);
	if (rc != 0)
		return rc;
	changes.chunk = 2;
	message.body_case = PAVE__V1__CONTROL__BODY_CHANGES;
	message.changes = &changes;
	return peer_host_ask(h, &message);
}

static int greet(struct peer_host *h, uint32_t node, generation_t generation)
{
	struct peer_permit p = rig_permit(rig, generation, 1);
	int rc;

	peer_host_init(h, sim_reactor(rig->host_process), rig->host_transport, rig->wait,
		       &rig->demo);
	rc = peer_host_connect(h, rig->nodes[node].name);
	if (rc == 0)
		rc = peer_host_hello(h, "host", "host");
	if (rc == 0)
		rc = rig_try_open(h, &p);
	if (rc == 0) {
		p.serial = 2;
		rc = rig_update(h, &p);
	}
	return rc;
}

/* All that a host does on node 0, and a pull from node 1. 0, or the first thing that failed. */
static int one_life(struct peer_host *h, struct peer_host *source, generation_t generation)
{
	version_t v = version_make(generation, 1);
	int rc = greet(h, 0, generation);

	if (rc == 0)
		rc = peer_host_write(h, 2, 10, 4, v, data);
	if (rc == 0)
		rc = peer_host_write(h, 2, 20, 64, v + 1, data);
	if (rc == 0)
		rc = peer_host_zero(h, 2, 12, 2, v + 2, true);
	if (rc == 0)
		rc = peer_host_watermark(h, 2, v + 2);
	if (rc == 0)
		rc = peer_host_read(h, 2, 20, 64, back);
	if (rc == 0)
		rc = ask_lists(h);
	if (rc == 0)
		rc = greet(source, 1, generation);
	if (rc == 0)
		rc = peer_host_write(source, 5, 0, 40, v + 3, data);
	if (rc == 0)
		rc = peer_host_pull(h, 5, 0, rig->nodes[1].name, rig->nodes[1].name);
	return rc;
}

static void end_life(struct peer_host *h, struct peer_host *source)
{
	if (h->transport != NULL)
		peer_host_close(h);
	if (source->transport != NULL)
		peer_host_close(source);
	memset(h, 0, sizeof(*h));
	memset(source, 0, sizeof(*source));
}

START_TEST(any_allocation_may_fail)
{
	static struct peer_host host, source;
	generation_t generation = 1;
	uint64_t n = 1, refused = 0;
	bool failed = true;

	for (; failed; n++) {
		int rc;

		alloc_fail_at(n);
		rc = one_life(&host, &source, generation++);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert(rc == 0 || failed);
		refused += rc != 0;
		end_life(&host, &source);
		/* And now with memory. */
		for (uint32_t i = 0; i < RIG_NODES; i++)
			rig_wait_lease(&rig->nodes[i], true);
		ck_assert_int_eq(one_life(&host, &source, generation++), 0);
		ck_assert_mem_eq(back, data, 64 * BLOCK_SIZE);
		ck_assert_int_eq(peer_host_read(&host, 5, 0, 40, back), 0);
		ck_assert_mem_eq(back, data, 40 * BLOCK_SIZE);
		end_life(&host, &source);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, 15);
	ck_assert_uint_gt(refused, 10);
}
END_TEST

static void begin(void)
{
	rig = rig_create(1);
	data = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	back = aligned_alloc(BLOCK_SIZE, IO_SIZE_MAX);
	peer_fill(data, IO_BLOCKS_MAX, 1);
}

static void end(void)
{
	rig_destroy(rig);
	free(data);
	free(back);
	ck_assert_uint_eq(alloc_live(), 0);
}

int main(void)
{
	TCase *tc = tcase_create("alloc");
	Suite *s = suite_create("node_alloc");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_checked_fixture(tc, begin, end);
	tcase_add_test(tc, any_allocation_may_fail);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
