/* Crashes of a pool of devices, at every I/O of what it does, with every fate of what was in
 * flight: writing to several devices, adding one, retiring one while it is written to. What is owed
 * is what a store owes (test_store_rig.h), and each chunk is on one device. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test_store_rig.h"

#define DISK_MIB 16u

static void some_old(struct rig *rig)
{
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
		rig_write(rig, STORE_DATA, 0, chunk, 0, 40);
		rig_write(rig, STORE_ZERO, 0, chunk, 38, 7);
		rig_write(rig, STORE_DATA, 1, chunk, 100, 3);
	}
	rig_watermark(rig, 0, 1, version_make(1, 2));
	rig_drain(rig);
}

static void some_checkpointed(struct rig *rig)
{
	some_old(rig);
	rig_checkpoint(rig);
}

static void writes(struct rig *rig)
{
	for (uint32_t i = 0; i < 18; i++) {
		rig_write(rig, STORE_DATA, i % 2, i % 3, (i * 7) % 48, 1 + i % 3);
		if (i % 4 == 3)
			rig_drain_to(rig, 2);
	}
	rig_drain(rig);
}

static void fences(struct rig *rig)
{
	for (generation_t g = 2; g < 6; g++) {
		rig_write(rig, STORE_DATA, 0, g % 3, g, 2);
		rig_fence(rig, g % 2, g);
		rig_write(rig, STORE_DATA, 1, g % 3, g, 2);
		rig_drain_to(rig, 1);
	}
	rig_drain(rig);
}

static void erases(struct rig *rig)
{
	for (uint32_t i = 0; i < 3 && rig->process->alive; i++) {
		rig_write(rig, STORE_DATA, 0, i, 0, 20);
		if (!rig_drain(rig))
			return;
		rig_erase(rig, 0, i);
		if (!rig_drain(rig))
			return;
		rig_write(rig, STORE_DATA, 0, i, 30, 2);
		rig_drain(rig);
	}
}

/* -- adding and retiring ---------------------------------------------------------------------- */

struct adding {
	struct pool_add_op op;
	bool done;
	int status;
};

static void added(struct pool_add_op *op, int status, const struct error *err)
{
	struct adding *a = container_of(op, struct adding, op);

	(void)err;
	a->done = true;
	a->status = status;
}

struct retiring {
	struct pool_retire_op op;
	bool done;
	int status;
	struct error err;
};

static void retired(struct pool_retire_op *op, int status, const struct error *err)
{
	struct retiring *r = container_of(op, struct retiring, op);

	if (err != NULL)
		r->err = *err;
	r->done = true;
	r->status = status;
}

static uint32_t device_count(const struct rig *rig)
{
	struct pool_device_info infos[POOL_DEVICES_MAX];

	return pool_devices(rig->pool, infos, POOL_DEVICES_MAX);
}

static bool one_is_left(void *arg)
{
	return device_count(arg) == 1;
}

/* Lent to operations of a process that may die: they live until the next test. */
static struct adding adding;
static struct retiring retiring;

static void add(struct rig *rig)
{
	adding = (struct adding){
	    .op = {.done = added, .disk = rig_disk(rig, 2), .path = rig_disk_path(2)}};
	pool_add(rig->pool, &adding.op);
	for (uint32_t i = 0; i < 6; i++) {
		rig_write(rig, STORE_DATA, i % 2, i % 3, i * 11, 3);
		rig_fence(rig, 1, 2 + i);
		rig_drain_to(rig, 2);
	}
	if (!sim_run_flag(rig->world, &adding.done))
		return;
	ck_assert_int_eq(adding.status, 0);
	ck_assert_uint_eq(device_count(rig), 3);
	rig_erase(rig, 0, 2);
	rig_drain(rig);
	rig_write(rig, STORE_DATA, 0, 2, 9, 9);
	rig_drain(rig);
}

static void begin_retiring(struct rig *rig, const char *path)
{
	retiring = (struct retiring){.op = {.done = retired, .path = path}};
	pool_retire(rig->pool, &retiring.op);
	if (sim_run_flag(rig->world, &retiring.done))
		ck_assert_msg(retiring.status == 0, "%s", retiring.err.text);
}

static void wait_retired(struct rig *rig)
{
	int rc = sim_run_until(rig->world, rig->world->now_ns + 3600 * NS_PER_S, one_is_left, rig);

	ck_assert_msg(rc == 0 || !rig->process->alive, "a device is never retired: %d", rc);
}

static void retire(struct rig *rig)
{
	begin_retiring(rig, rig_disk_path(0));
	if (rig->process->alive)
		wait_retired(rig);
}

/* The same, while its chunks are written, read, fenced and erased. */
static void retire_busy(struct rig *rig)
{
	begin_retiring(rig, rig_disk_path(1));
	for (uint32_t i = 0; i < 30 && rig->process->alive; i++) {
		rig_write(rig, i % 5 == 0 ? STORE_ZERO : STORE_DATA, i % 2, i % 3, (i * 7) % 90,
			  1 + i % 5);
		rig_begin_read(rig, i % 2, i % 3, (i * 7) % 90, 8);
		if (i % 7 == 3)
			rig_watermark(rig, i % 2, i % 3, version_make(1, i));
		if (i == 11 && rig_drain(rig))
			rig_erase(rig, 1, 1);
		rig_drain_to(rig, 2);
	}
	if (rig_drain(rig))
		wait_retired(rig);
}

static const struct {
	const char *name;
	void (*prepare)(struct rig *rig);
	void (*scenario)(struct rig *rig);
} scenarios[] = {
    {"writes", some_checkpointed, writes}, {"fences", NULL, fences},
    {"erases", some_checkpointed, erases}, {"add", some_old, add},
    {"retire", some_checkpointed, retire}, {"retire, busy", some_old, retire_busy},
};

START_TEST(a_crash_at_any_io_loses_nothing)
{
	rig_devices = 2;
	rig_crash_everywhere(scenarios[_i].prepare, scenarios[_i].scenario, DISK_MIB);
}
END_TEST

/* Opening writes too: a crash at any of its I/Os, over and over, changes nothing; in the midst of a
 * move too, and before anything was formatted. */
START_TEST(a_crash_while_opening_loses_nothing)
{
	struct rig rig;
	uint64_t n = 1;

	rig_devices = 2;
	rig_init(&rig, 7, DISK_MIB);
	for (bool first = true;; first = false) {
		int rc;

		sim_process_start(rig.process);
		sim_process_crash(rig.process, SIM_KILL);
		sim_process_on_io(rig.process, n, n % 2 == 0 ? SIM_IO_KILL : SIM_IO_POWER_LOSS);
		rc = rig_open(&rig);
		if (rc == 0)
			break;
		ck_assert_msg(rc == -E_DISCONNECTED, "%d %s", rc, rig.err.text);
		n++;
		(void)first;
	}
	ck_assert_uint_gt(n, 8);
	sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
	some_old(&rig);
	begin_retiring(&rig, rig_disk_path(0));
	ck_assert(rig_drain(&rig));
	rig_crash(&rig, SIM_POWER_LOSS);
	for (n = 1;; n++) {
		int rc;

		sim_process_on_io(rig.process, n, n % 2 == 0 ? SIM_IO_KILL : SIM_IO_POWER_LOSS);
		rc = rig_open(&rig);
		if (rc == 0)
			break;
		ck_assert_msg(rc == -E_DISCONNECTED, "%d %s", rc, rig.err.text);
	}
	sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
	rig_verify(&rig);
	wait_retired(&rig);
	rig_verify(&rig);
	rig_close(&rig);
	rig_must_open(&rig);
	ck_assert_uint_eq(device_count(&rig), 1);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("pool_crash");
	Suite *s = suite_create("pool_crash");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, a_crash_at_any_io_loses_nothing, 0, ARRAY_SIZE(scenarios));
	tcase_add_test(tc, a_crash_while_opening_loses_nothing);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
