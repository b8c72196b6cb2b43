/* When a node tells that it hears nothing of its driver (tools/pave-node/lease_watch.h). */
#include <check.h>

#include "tools/pave-node/lease_watch.h"

static struct lease_watch w;
static uint64_t now_ns, silent_ns;

static void begin(void)
{
	w = (struct lease_watch){0};
	now_ns = 1000 * NS_PER_S;
}

/* That many seconds; the last word of them, which must be the only one. */
static enum lease_word run_s(uint32_t seconds, bool held, uint64_t answers)
{
	enum lease_word said = LEASE_WORD_NONE;

	for (uint32_t i = 0; i < seconds; i++) {
		const enum lease_word word =
		    lease_watch_step(&w, now_ns, held, answers, &silent_ns);

		ck_assert(word == LEASE_WORD_NONE || said == LEASE_WORD_NONE);
		said = word != LEASE_WORD_NONE ? word : said;
		now_ns += LEASE_WATCH_STEP_NS;
	}
	return said;
}

START_TEST(a_driver_that_was_never_there_is_told_once)
{
	ck_assert_int_eq(run_s(5, false, 0), LEASE_WORD_NONE);
	ck_assert_int_eq(run_s(1, false, 0), LEASE_WORD_SILENT);
	ck_assert_uint_eq(silent_ns, LEASE_WATCH_AFTER_NS);
	ck_assert_int_eq(run_s(3600, false, 0), LEASE_WORD_NONE);
	ck_assert_int_eq(run_s(1, true, 1), LEASE_WORD_OVER);
	ck_assert_uint_eq(silent_ns, 3605 * NS_PER_S + NS_PER_S);
	ck_assert_int_eq(run_s(3600, true, 1000), LEASE_WORD_NONE);
}
END_TEST

START_TEST(a_lease_that_runs_out_begins_the_silence)
{
	ck_assert_int_eq(run_s(60, true, 1), LEASE_WORD_NONE);
	ck_assert_int_eq(run_s(4, false, 1), LEASE_WORD_NONE);
	ck_assert_int_eq(run_s(1, false, 1), LEASE_WORD_SILENT);
	ck_assert_int_eq(run_s(1, true, 2), LEASE_WORD_OVER);
	ck_assert_int_eq(run_s(5, false, 2), LEASE_WORD_SILENT); /* each time anew */
}
END_TEST

/* Refusals are told by whoever gets them. */
START_TEST(a_refusal_is_an_answer)
{
	for (uint64_t i = 1; i < 60; i++)
		ck_assert_int_eq(run_s(1, false, i), LEASE_WORD_NONE);
	ck_assert_int_eq(run_s(5, false, 59), LEASE_WORD_SILENT);
	ck_assert_int_eq(run_s(1, false, 60), LEASE_WORD_OVER);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lease_watch");
	TCase *t = tcase_create("lease_watch");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, begin, NULL);
	tcase_add_test(t, a_driver_that_was_never_there_is_told_once);
	tcase_add_test(t, a_lease_that_runs_out_begins_the_silence);
	tcase_add_test(t, a_refusal_is_an_answer);
	suite_add_tcase(s, t);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
