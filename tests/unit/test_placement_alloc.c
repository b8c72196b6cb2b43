/* The driver without memory: every allocation of its own fails once, while nodes ask for leases, an
 * admin makes and deletes volumes, and a host attaches. Nothing ends the process. What cannot be
 * done is refused, or ends that connection; or, where the register would not be what memory says
 * any more, the driver says so, and has to start again. Afterwards all are served as ever. (Leaks
 * are left to the address sanitizer: what the driver frees comes from other modules too.) */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc_fail.h"
#include "tests/unit/test_placement_rig.h"

#define SIZE	 (64ull << 20)
#define RUNS_MAX 3000u

static bool back(struct rig *r, struct peer *p, const char *role)
{
	if (r->pd == NULL)
		return false;
	return (p->conn != NULL && !p->closed) || peer_connect(p, role, "x") == 0;
}

static int ask_lists(struct peer *admin)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__StatusGet status = PAVE__V1__STATUS_GET__INIT;
	Pave__V1__ScrubStart scrub = PAVE__V1__SCRUB_START__INIT;
	int rc;

	m.body_case = PAVE__V1__CONTROL__BODY_STATUS_GET;
	m.status_get = &status;
	rc = peer_ask(admin, &m);
	if (rc != 0)
		return rc;
	m.body_case = PAVE__V1__CONTROL__BODY_SCRUB_START;
	m.scrub_start = &scrub;
	return peer_ask(admin, &m);
}

/* 0, or the first thing that failed. */
static int one_life(struct rig *r, struct peer *admin, struct peer *nodes[3], struct peer *host,
		    uint32_t number)
{
	static const char *const names[] = {"n1", "n2", "n3"};
	char volume[32];
	volume_id_t id = 0;
	int rc = 0;

	snprintf(volume, sizeof volume, "v%u", number);
	for (uint32_t i = 0; i < 3 && rc == 0; i++)
		rc = back(r, nodes[i], "node")
			 ? ask_lease(nodes[i], names[i], rig_sites[i], (uint8_t)(i + 1), 0)
			 : -E_DISCONNECTED;
	if (rc == 0 && (!back(r, admin, "admin") || !back(r, host, "host")))
		rc = -E_DISCONNECTED;
	if (rc == 0)
		rc = ask_create(admin, volume, SIZE, "");
	if (rc == 0)
		rc = ask_volume(admin, volume);
	if (rc == 0)
		id = admin->reply->volume_get_reply->info->id;
	if (rc == 0)
		rc = ask_attach(host, volume, "h", "par");
	if (rc == 0)
		rc = ask_renew(host, id, 1);
	if (rc == 0)
		rc = ask_lists(admin);
	if (rc == 0)
		rc = rig_revoke(r, admin, NULL, 0);
	if (rc == 0)
		rc = ask_detach(host, id, 1);
	if (rc == 0)
		rc = ask_delete(admin, volume);
	rig_run_ms(r, 300);
	return rc;
}

START_TEST(any_allocation_may_fail)
{
	struct rig *r = rig_create(1);
	struct peer *admin, *nodes[3], *host;
	uint64_t n = 1, refused = 0, restarts = 0;
	uint32_t number = 1;
	bool failed = true;

	admin = peer_new(r, "admin", "x");
	rig_three(r, admin, nodes);
	host = peer_new(r, "host", "h");
	for (; failed; n++) {
		int rc;

		alloc_fail_at(n);
		rc = one_life(r, admin, nodes, host, number++);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert_msg(rc == 0 || failed, "%d", rc);
		ck_assert_ptr_nonnull(r->pd);
		refused += rc != 0;
		/* What an attempt left behind runs out. */
		if (rc != 0)
			rig_run_ms(r, LIFETIME_MS + 2000);
		rc = one_life(r, admin, nodes, host, number++);
		/* What cannot be written to the register ends the driver: it starts again. */
		if (rc == -ENOMEM && failed) {
			restarts++;
			/* Which nobody would do who was not told. */
			ck_assert_msg(r->failed == (int)restarts,
				      "allocation %lu broke the register, and nobody was told", n);
			rig_pd_crash(r, SIM_KILL);
			rig_pd_start(r);
			rig_run_ms(r, LIFETIME_MS + 2000);
			rc = one_life(r, admin, nodes, host, number++);
		}
		ck_assert_msg(rc == 0, "after allocation %lu failed: %d %s%s", n, rc, admin->text,
			      host->text);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, 20);
	ck_assert_uint_gt(refused, 10);
	ck_assert_uint_lt(restarts, n / 2);
	ck_assert_int_eq(r->failed, (int)restarts);
	rig_destroy(r);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("alloc");
	Suite *s = suite_create("placement_alloc");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_test(tc, any_allocation_may_fail);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
