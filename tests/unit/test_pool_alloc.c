/* A pool of devices without memory: every allocation of its own, and of its stores, fails once, in
 * its own run. Nothing ends the process, nothing leaks, what cannot be done says so and can be done
 * later, and what was acknowledged is there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store_alloc_rig.h"

#define DISK_MIB 16u

static void one_fenced(struct store_fence_op *op, int status)
{
	ck_assert_int_eq(status, 0);
	op->volume = 0;
}

/* Takes memory on every device: one that is added gets all of them. */
static void many_fences(struct rig *rig)
{
	enum { FENCES = 3000 };
	struct store_fence_op *ops = calloc(FENCES, sizeof *ops);

	for (uint32_t i = 0; i < FENCES; i++) {
		ops[i] = (struct store_fence_op){
		    .done = one_fenced, .volume = 5000 + i, .generation = 1};
		pool_fence(rig->pool, &ops[i]);
	}
	for (uint32_t i = 0; i < FENCES; i++)
		while (ops[i].volume != 0)
			ck_assert(sim_step(rig->world));
	free(ops);
}

/* A device that could not be added can be, and so can another one in its slot: nothing is left of
 * it in the index. */
START_TEST(adding_a_device)
{
	const uint64_t before = alloc_live();
	uint64_t n = 1;

	rig_devices = 1;
	for (bool failed = true; failed; n++) {
		struct rig rig;
		int rc;

		rig_init(&rig, 1, DISK_MIB);
		rig_must_open(&rig);
		ck_assert_int_eq(rig_wait(&rig, rig_write(&rig, STORE_DATA, 0, 0, 0, 100)), 0);
		many_fences(&rig);
		alloc_fail_at(n);
		rc = rig_add_device(&rig, 1, NULL);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert(rc == 0 || (rc == -ENOMEM && failed));
		ck_assert_int_eq(pool_broken(rig.pool), 0);
		if (rc != 0 && n % 2 == 0)
			ck_assert_int_eq(rig_add_device(&rig, 1, NULL), 0);
		ck_assert_int_eq(rig_add_device(&rig, 2, NULL), 0);
		ck_assert_uint_eq(store_generation(pool_store(rig.pool, 1), 7999), 1);
		rig_verify(&rig);
		rig_crash(&rig, SIM_POWER_LOSS);
		rig_must_open(&rig);
		rig_verify(&rig);
		rig_close(&rig);
		ck_assert_uint_eq(alloc_live(), before);
		rig_deinit(&rig);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, 20);
}
END_TEST

struct retiring {
	struct pool_retire_op op;
	bool done;
	int status;
};

static void retired(struct pool_retire_op *op, int status, const struct error *err)
{
	struct retiring *r = container_of(op, struct retiring, op);

	ck_assert((status < 0) == (err != NULL));
	r->done = true;
	r->status = status;
}

static int begin_retiring(struct rig *rig, uint32_t disk)
{
	struct retiring r = {.op = {.done = retired, .path = rig_disk_path(disk)}};

	pool_retire(rig->pool, &r.op);
	ck_assert(!r.done);
	ck_assert(sim_run_flag(rig->world, &r.done));
	return r.status;
}

static bool one_is_left(void *arg)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];
	const struct rig *rig = arg;

	return pool_devices(rig->pool, infos, POOL_DEVICES_MAX) == 1;
}

static void some_data(struct rig *rig)
{
	for (uint32_t i = 0; i < 30; i++) {
		rig_write(rig, i % 9 == 8 ? STORE_ZERO : STORE_DATA, i % 2, i % 3, i * 12,
			  1 + i % 40);
		rig_drain_to(rig, 4);
	}
	ck_assert(rig_drain(rig));
	ck_assert_int_eq(rig_wait(rig, rig_fence(rig, 1, 3)), 0);
}

/* What is retired leaves, be it that its chunks have to wait for memory; while they do they are
 * where they were. */
START_TEST(retiring_a_device)
{
	const uint64_t before = alloc_live();
	uint64_t n = 1;

	rig_devices = 2;
	for (bool failed = true; failed; n++) {
		struct rig rig;

		rig_init(&rig, 1, DISK_MIB);
		rig_must_open(&rig);
		some_data(&rig);
		alloc_fail_at(n);
		ck_assert_int_eq(begin_retiring(&rig, 0), 0);
		rig_write(&rig, STORE_DATA, 0, 1, 7, 9);
		ck_assert_int_eq(sim_run_until(rig.world, rig.world->now_ns + 3600 * NS_PER_S,
					       one_is_left, &rig),
				 0);
		failed = alloc_failed();
		alloc_fail_at(0);
		ck_assert(rig_drain(&rig));
		ck_assert_int_eq(pool_broken(rig.pool), 0);
		rig_verify(&rig);
		rig_close(&rig);
		ck_assert_uint_eq(alloc_live(), before);
		rig_must_open(&rig);
		ck_assert(one_is_left(&rig));
		rig_verify(&rig);
		rig_close(&rig);
		rig_deinit(&rig);
		ck_assert_uint_lt(n, RUNS_MAX);
	}
	ck_assert_uint_gt(n, 10);
}
END_TEST

/* With three devices: one was retired, or is being retired. */
START_TEST(opening)
{
	const uint64_t before = alloc_live();
	struct rig rig;

	rig_devices = 2;
	rig_init(&rig, 1, DISK_MIB);
	rig_must_open(&rig);
	ck_assert_int_eq(rig_add_device(&rig, 2, NULL), 0);
	some_data(&rig);
	ck_assert_int_eq(begin_retiring(&rig, 2), 0);
	rig_write(&rig, STORE_DATA, 1, 1, 7, 9);
	ck_assert(rig_drain(&rig));
	if (_i == 0)
		sim_run_for(rig.world, 60 * NS_PER_S);
	rig_crash(&rig, SIM_KILL);
	opens_at_last(&rig, before, 40);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("alloc");
	Suite *s = suite_create("pool_alloc");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_test(tc, adding_a_device);
	tcase_add_test(tc, retiring_a_device);
	tcase_add_loop_test(tc, opening, 0, 2);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
