/* Unit tests of the parts of engine/reactor that know no kernel: the heap of timers and the arena
 * of I/O memory. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/types.h"
#include "engine/reactor/memory.h"
#include "engine/reactor/timers.h"

static struct timers timers;
static uint32_t fired_ids[4096];
static uint32_t fired_count;

struct numbered {
	struct reactor_timer timer;
	uint32_t id;
	uint64_t order; /* of arming, as the model sees it */
};

static void note_fired(struct reactor_timer *t)
{
	ck_assert_uint_eq(t->heap_slot, 0);
	fired_ids[fired_count++] = container_of(t, struct numbered, timer)->id;
}

START_TEST(timers_fire_by_deadline_and_then_by_arming)
{
	static struct numbered n[6];
	static const uint64_t deadlines[] = {50, 20, 50, 20, 10, 60};
	static const uint32_t expected[] = {4, 1, 3, 0, 2};

	ck_assert_int_eq(timers_init(&timers), 0);
	ck_assert_uint_eq(timers_next(&timers), TIMERS_NEVER);
	for (uint32_t i = 0; i < ARRAY_SIZE(n); i++) {
		n[i] = (struct numbered){{.fire = note_fired}, i, 0};
		timers_arm(&timers, &n[i].timer, deadlines[i], 0);
	}
	ck_assert_uint_eq(timers_next(&timers), 10);
	ck_assert_uint_eq(timers_fire(&timers, 9), 0);
	ck_assert_uint_eq(timers_fire(&timers, 50), 5);
	ck_assert_mem_eq(fired_ids, expected, sizeof expected);
	ck_assert_uint_eq(timers_next(&timers), 60);
	timers_cancel(&timers, &n[5].timer);
	timers_cancel(&timers, &n[5].timer);
	ck_assert_uint_eq(timers_fire(&timers, 1000), 0);
	timers_deinit(&timers);
}
END_TEST

static uint64_t rng_state = 0x9e3779b97f4a7c15ull;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

/* Whether a must fire before b. */
static bool model_before(const struct numbered *a, const struct numbered *b)
{
	return a->timer.deadline_ns < b->timer.deadline_ns ||
	       (a->timer.deadline_ns == b->timer.deadline_ns && a->order < b->order);
}

START_TEST(timers_agree_with_a_plain_list)
{
	static struct numbered n[200];
	uint64_t now = 0, order = 0;

	ck_assert_int_eq(timers_init(&timers), 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(n); i++)
		n[i] = (struct numbered){{.fire = note_fired}, i, 0};
	for (uint32_t round = 0; round < 3000; round++) {
		uint32_t due = 0;

		for (uint32_t k = 0; k < 10; k++) {
			struct numbered *t = &n[rng() % ARRAY_SIZE(n)];

			if (rng() % 4 == 0) {
				timers_cancel(&timers, &t->timer);
			} else {
				t->order = order++;
				timers_arm(&timers, &t->timer, now + rng() % 50, now);
			}
		}
		now += rng() % 10;
		for (uint32_t i = 0; i < ARRAY_SIZE(n); i++)
			due += n[i].timer.heap_slot != 0 && n[i].timer.deadline_ns <= now;
		fired_count = 0;
		ck_assert_uint_eq(timers_fire(&timers, now), due);
		for (uint32_t i = 1; i < fired_count; i++)
			ck_assert(model_before(&n[fired_ids[i - 1]], &n[fired_ids[i]]));
	}
	timers_deinit(&timers);
}
END_TEST

static struct numbered pushy, other;
static uint32_t pushy_count;

static void arm_again_in_the_past(struct reactor_timer *t)
{
	pushy_count++;
	timers_arm(&timers, t, 1, 100);
}

START_TEST(a_timer_that_arms_itself_in_the_past_starves_nobody)
{
	ck_assert_int_eq(timers_init(&timers), 0);
	fired_count = 0;
	pushy.timer.fire = arm_again_in_the_past;
	other = (struct numbered){{.fire = note_fired}, 7, 0};
	timers_arm(&timers, &pushy.timer, 1, 0);
	timers_arm(&timers, &other.timer, 100, 0);
	ck_assert_uint_eq(timers_fire(&timers, 100), 2);
	ck_assert_uint_eq(pushy_count, 1);
	ck_assert_uint_eq(fired_ids[0], 7);
	timers_arm(&timers, &other.timer, 100, 100);
	ck_assert_uint_eq(timers_fire(&timers, 100), 2);
	timers_deinit(&timers);
}
END_TEST

static void cancel_other(struct reactor_timer *t)
{
	(void)t;
	timers_cancel(&timers, &other.timer);
}

START_TEST(a_due_timer_can_still_be_cancelled)
{
	ck_assert_int_eq(timers_init(&timers), 0);
	fired_count = 0;
	pushy.timer.fire = cancel_other;
	other = (struct numbered){{.fire = note_fired}, 7, 0};
	timers_arm(&timers, &pushy.timer, 5, 0);
	timers_arm(&timers, &other.timer, 6, 0);
	ck_assert_uint_eq(timers_fire(&timers, 10), 1);
	ck_assert_uint_eq(fired_count, 0);
	timers_deinit(&timers);
}
END_TEST

START_TEST(each_allocation_lies_in_one_registered_buffer)
{
	static struct memory m;
	struct memory_extent extent;
	size_t sizes[] = {3 * MIB, MIB, 1536 * KIB, 4096, 600 * KIB, 700 * KIB, 900 * KIB, 5 * MIB};
	uint16_t next_slot = 0;
	uint8_t *p = NULL;

	ck_assert_int_eq(memory_init(&m, 64 * MIB), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		p = memory_alloc(&m, sizes[i], &extent);
		ck_assert_ptr_nonnull(p);
		if (extent.size_bytes > 0)
			memory_set_slot(&m, &extent, next_slot++);
		ck_assert_uint_lt(memory_slot(&m, p, sizes[i]), next_slot);
	}
	ck_assert_uint_eq(memory_slot(&m, p, 5 * MIB + 2 * MIB), MEMORY_NO_SLOT);
	ck_assert_uint_eq(memory_slot(&m, p - 1, 2), MEMORY_NO_SLOT);
	ck_assert_uint_eq(memory_slot(&m, m.base - 1, 1), MEMORY_NO_SLOT);
	ck_assert_uint_eq(memory_slot(&m, &m, 1), MEMORY_NO_SLOT);
	ck_assert_uint_eq(memory_slot(&m, p, SIZE_MAX), MEMORY_NO_SLOT);
	memory_deinit(&m);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("timers");
	Suite *s = suite_create("timers");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, timers_fire_by_deadline_and_then_by_arming);
	tcase_add_test(tc, timers_agree_with_a_plain_list);
	tcase_add_test(tc, a_timer_that_arms_itself_in_the_past_starves_nobody);
	tcase_add_test(tc, a_due_timer_can_still_be_cancelled);
	tcase_add_test(tc, each_allocation_lies_in_one_registered_buffer);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
