/* Crashes of the store, at every I/O of what it does, with every fate of what was in flight, and
 * I/Os that fail: what was acknowledged is there, nothing else than what was tried is, and the
 * bookkeeping is right. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test_store_rig.h"

#define DISK_MIB 16u /* 14 segments */

/* Something older for everything, in the log only. */
static void some_old(struct rig *rig)
{
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
		rig_write(rig, STORE_DATA, 0, chunk, 0, 40);
		rig_write(rig, STORE_DATA, 1, chunk, 100, 3);
	}
	rig_drain(rig);
}

/* The same, in a checkpoint. */
static void some_checkpointed(struct rig *rig)
{
	some_old(rig);
	rig_checkpoint(rig);
}

static void small_writes(struct rig *rig)
{
	for (uint32_t i = 0; i < 24; i++) {
		rig_write(rig, STORE_DATA, i % 2, i % 3, (i * 7) % 48, 1 + i % 3);
		if (i % 4 == 3)
			rig_drain_to(rig, 2);
	}
	rig_drain(rig);
}

static void large_writes(struct rig *rig)
{
	for (uint32_t i = 0; i < 5; i++) {
		rig_write(rig, STORE_DATA, i % 2, 0, i * 16, 256);
		rig_write(rig, STORE_DATA, i % 2, 0, i * 16 + 3, 17);
		rig_drain_to(rig, 3);
	}
	rig_drain(rig);
}

static void zeroes_and_discards(struct rig *rig)
{
	for (uint32_t i = 0; i < 10; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, i, 4);
		rig_write(rig, i % 2 == 0 ? STORE_ZERO : STORE_DISCARD, 0, i % 3, 0, 2 + i);
		rig_drain_to(rig, 1);
	}
	rig_drain(rig);
}

static void fences(struct rig *rig)
{
	for (generation_t g = 2; g < 8; g++) {
		rig_write(rig, STORE_DATA, 0, 0, g, 2);
		rig_fence(rig, g % 2, g);
		rig_write(rig, STORE_DATA, 1, 0, g, 2);
		rig_drain_to(rig, 1);
	}
	rig_drain(rig);
}

static void watermarks(struct rig *rig)
{
	for (uint32_t i = 0; i < 8; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, i, 1);
		rig_watermark(rig, 0, i % 3, version_make(1, 1 + (i * 5) % 12));
		rig_drain_to(rig, 1);
	}
	rig_drain(rig);
}

static void checkpoints(struct rig *rig)
{
	for (uint32_t i = 0; i < 4; i++) {
		rig_write(rig, STORE_DATA, i % 2, 1, i * 3, 4);
		rig_watermark(rig, 0, 1, version_make(1, i + 1));
		if (!rig_checkpoint(rig))
			return;
		rig_write(rig, STORE_ZERO, i % 2, 1, i * 3 + 1, 1);
		store_want_checkpoint(rig->store);
		rig_write(rig, STORE_DATA, 0, 2, i * 5, 2);
		rig_drain(rig);
	}
}

/* Segments of 1 MiB: each of these fills more than one. */
static void segment_switches(struct rig *rig)
{
	for (uint32_t i = 0; i < 6 && rig->process->alive; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, 0, 200);
		rig_write(rig, STORE_DATA, 1, i % 3, 5, 3);
		rig_resync(rig, 1, i % 3, 100, 150);
		rig_drain_to(rig, 1);
	}
	rig_drain(rig);
}

static void erases(struct rig *rig)
{
	for (uint32_t i = 0; i < 3 && rig->process->alive; i++) {
		rig_write(rig, STORE_DATA, 0, i, 0, 60);
		rig_resync(rig, 0, i, 60, 20);
		if (!rig_drain(rig))
			return;
		if (i == 1)
			store_want_checkpoint(rig->store);
		rig_erase(rig, 0, i);
		if (!rig_drain(rig))
			return;
		rig_write(rig, STORE_DATA, 0, i, 30, 2);
		rig_drain(rig);
	}
	if (rig->process->alive)
		rig_checkpoint(rig);
}

/* Volume 0, all of it: 6 of the 6.5 MiB that may be live, and then some garbage. */
static void almost_full(struct rig *rig)
{
	for (uint32_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
		for (block_no_t block = 0; block < RIG_BLOCKS; block += 128) {
			rig_write(rig, STORE_DATA, 0, chunk, block, 128);
			rig_drain_to(rig, 4);
		}
	rig_drain(rig);
	for (uint32_t i = 0; i < 40; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, (i * 37) % 500, 12);
		rig_drain_to(rig, 4);
	}
	rig_drain(rig);
}

/* On a disk whose fresh space is slow: segments are written ahead with zeroes. */
static void primed(struct rig *rig)
{
	rig_close(rig);
	rig->primes = true;
	rig_must_open(rig);
	some_old(rig);
}

static void priming(struct rig *rig)
{
	for (uint32_t i = 0; i < 4 && rig->process->alive; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, 0, 200);
		sim_run_for(rig->world, 20 * NS_PER_MS);
		if (rig->process->alive)
			rig_drain(rig);
	}
}

/* Overwrites that keep the cleaner going. */
static void cleaning(struct rig *rig)
{
	struct store_stats before, after;

	store_get_stats(rig->store, &before);
	for (uint32_t i = 0; i < 60 && rig->process->alive; i++) {
		rig_write(rig, STORE_DATA, 0, i % 3, (i * 61) % 480, 1 + (i * 5) % 30);
		rig_drain_to(rig, 3);
	}
	if (!rig_drain(rig) || rig->ios_fail)
		return;
	store_get_stats(rig->store, &after);
	ck_assert_uint_gt(after.cleaned_segments, before.cleaned_segments);
}

/* Of a few hundred blocks, each written by itself, among others: out of order on the disk. */
static void scattered(struct rig *rig)
{
	for (uint32_t i = 0; i < 192; i++) {
		rig_write(rig, STORE_DATA, 0, 0, i * 37 % 192, 1);
		if (i % 8 == 0)
			rig_write(rig, STORE_DATA, 1, 1, i, 1);
		rig_drain_to(rig, 8);
	}
	rig_drain(rig);
}

static bool has_tidied(void *arg)
{
	const struct rig *rig = arg;
	struct store_stats stats;

	if (!rig->process->alive || store_failure(rig->store) != 0)
		return true;
	store_get_stats(rig->store, &stats);
	return stats.tidied_blocks >= 192;
}

/* What lies out of order is put in order while nobody asks for anything, and while somebody does.
 */
static void tidying(struct rig *rig)
{
	for (uint32_t i = 0; i < 3 && rig->process->alive; i++) {
		sim_run_for(rig->world, NS_PER_S + i * 100 * NS_PER_MS);
		rig_write(rig, i == 1 ? STORE_DISCARD : STORE_DATA, 0, 0, 50 * i, 3);
		rig_drain(rig);
	}
	if (sim_run_until(rig->world, rig->world->now_ns + 60 * NS_PER_S, has_tidied, rig) != 0)
		ck_assert(!rig->process->alive || rig->ios_fail);
	if (rig->process->alive)
		rig_checkpoint(rig);
}

static const struct {
	const char *name;
	void (*prepare)(struct rig *rig);
	void (*scenario)(struct rig *rig);
} scenarios[] = {
    {"small writes", some_old, small_writes},
    {"large writes", some_checkpointed, large_writes},
    {"zeroes and discards", some_checkpointed, zeroes_and_discards},
    {"fences", NULL, fences},
    {"watermarks", some_checkpointed, watermarks},
    {"checkpoints", some_old, checkpoints},
    {"segment switches", NULL, segment_switches},
    {"erases", some_checkpointed, erases},
    {"cleaning", almost_full, cleaning},
    {"priming", primed, priming},
    {"tidying", scattered, tidying},
};

START_TEST(a_crash_at_any_io_loses_nothing)
{
	rig_crash_everywhere(scenarios[_i].prepare, scenarios[_i].scenario, DISK_MIB);
}
END_TEST

/* The same where hardly anything of the index is in memory. */
START_TEST(a_crash_with_a_tiny_cache_loses_nothing)
{
	rig_crash_everywhere_tiny(scenarios[_i].prepare, scenarios[_i].scenario, DISK_MIB);
}
END_TEST

/* I/O n fails instead, of the disk or of the index. False: there were not so many. */
static bool fail_at(uint32_t which, uint64_t n)
{
	struct rig rig;
	bool struck;

	rig_init(&rig, n, DISK_MIB);
	rig.ios_fail = true;
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	if (scenarios[which].prepare != NULL)
		scenarios[which].prepare(&rig);
	sim_process_on_io(rig.process, n, SIM_IO_FAIL);
	scenarios[which].scenario(&rig);
	ck_assert(rig_drain(&rig));
	struck = rig.process->io_count >= rig.process->io_fault_at;
	sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
	if (n % 2 == 0)
		rig_close(&rig);
	else
		rig_crash(&rig, SIM_POWER_LOSS);
	rig_must_open(&rig);
	rig_verify(&rig);
	for (uint32_t i = 0; i < 8; i++)
		rig_write(&rig, STORE_DATA, i % 2, 2, i * 40, 1 + i * 5);
	ck_assert(rig_drain(&rig));
	rig_verify(&rig);
	rig_deinit(&rig);
	return struck;
}

/* Nothing hangs, and what was acknowledged is there. */
START_TEST(an_io_that_fails_loses_nothing)
{
	uint64_t n = 1;

	while (fail_at((uint32_t)_i, n))
		n += LOOP_STEP;
	ck_assert_uint_gt(n, 2);
}
END_TEST

/* Opening writes too: a crash at any of its I/Os, over and over, changes nothing. */
START_TEST(a_crash_while_opening_loses_nothing)
{
	struct rig rig;
	uint64_t n = 1;

	rig_init(&rig, 7, DISK_MIB);
	ck_assert_int_eq(rig_format(&rig, false), 0);
	rig_must_open(&rig);
	some_old(&rig);
	small_writes(&rig);
	rig_erase(&rig, 0, 1);
	ck_assert(rig_drain(&rig));
	small_writes(&rig);
	rig_crash(&rig, SIM_POWER_LOSS);
	for (;;) {
		int rc;

		sim_process_on_io(rig.process, n, n % 2 == 0 ? SIM_IO_KILL : SIM_IO_POWER_LOSS);
		rc = rig_open(&rig);
		if (rc == 0)
			break;
		ck_assert_int_eq(rc, -E_DISCONNECTED);
		n++;
	}
	ck_assert_uint_gt(n, 3);
	sim_process_on_io(rig.process, 1, SIM_IO_NORMAL);
	rig_verify(&rig);
	rig_deinit(&rig);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("store_crash");
	Suite *s = suite_create("store_crash");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 250);
	tcase_add_loop_test(tc, a_crash_at_any_io_loses_nothing, 0, ARRAY_SIZE(scenarios));
	tcase_add_loop_test(tc, a_crash_with_a_tiny_cache_loses_nothing, 0, ARRAY_SIZE(scenarios));
	tcase_add_loop_test(tc, an_io_that_fails_loses_nothing, 0, ARRAY_SIZE(scenarios));
	tcase_add_test(tc, a_crash_while_opening_loses_nothing);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
