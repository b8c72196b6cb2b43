/* Unit tests of engine/base/drivers: whom of several placement drivers to ask. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/drivers.h"

static struct drivers drivers(const char *text)
{
	struct drivers d;
	struct error err = {0};

	ck_assert_msg(drivers_parse(text, &d, &err) == 0, "%s", err.text);
	return d;
}

START_TEST(lists_are_read)
{
	struct drivers d = drivers("a:1,b:2,c:3");

	ck_assert_uint_eq(d.count, 3);
	ck_assert_str_eq(d.list[2], "c:3");
	ck_assert_str_eq(drivers_current(&d), "a:1");
}
END_TEST

START_TEST(bad_lists_are_refused)
{
	static const struct {
		const char *text;
		int code;
	} bad[] = {
	    {"", -EINVAL},	   {",", -EINVAL},    {"a:1,", -EINVAL},
	    {"a:1,,b:2", -EINVAL}, {",a:1", -EINVAL}, {"1,2,3,4,5,6,7,8,9", -E_LIMIT},
	};
	char longest[ADDR_SIZE_MAX + 1];
	struct drivers d;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct error){0};
		ck_assert_int_eq(drivers_parse(bad[i].text, &d, &err), bad[i].code);
		ck_assert_str_ne(err.text, "");
	}
	memset(longest, 'x', sizeof longest);
	longest[ADDR_SIZE_MAX] = '\0';
	ck_assert_int_eq(drivers_parse(longest, &d, &err), -ENAMETOOLONG);
	longest[ADDR_SIZE_MAX - 1] = '\0';
	ck_assert_int_eq(drivers_parse(longest, &d, &err), 0);
}
END_TEST

START_TEST(a_single_one_is_asked_again_after_a_pause)
{
	struct drivers d = drivers("a:1");

	ck_assert(!drivers_several(&d));
	for (int i = 0; i < 3; i++) {
		ck_assert(drivers_next(&d, NULL));
		ck_assert_str_eq(drivers_current(&d), "a:1");
	}
}
END_TEST

START_TEST(each_is_tried_before_there_is_a_pause)
{
	struct drivers d = drivers("a:1,b:2,c:3");

	ck_assert(!drivers_next(&d, NULL));
	ck_assert_str_eq(drivers_current(&d), "b:2");
	ck_assert(!drivers_next(&d, ""));
	ck_assert_str_eq(drivers_current(&d), "c:3");
	ck_assert(drivers_next(&d, NULL));
	ck_assert_str_eq(drivers_current(&d), "a:1");
	ck_assert(!drivers_next(&d, NULL));
	drivers_found(&d);
	ck_assert(!drivers_next(&d, NULL));
	ck_assert(!drivers_next(&d, NULL));
	ck_assert(drivers_next(&d, NULL));
}
END_TEST

START_TEST(a_leader_that_was_named_comes_next)
{
	struct drivers d = drivers("a:1,b:2");

	ck_assert(drivers_several(&d));
	ck_assert(!drivers_next(&d, "x:9"));
	ck_assert_str_eq(drivers_current(&d), "x:9");
	drivers_found(&d);
	ck_assert_str_eq(drivers_current(&d), "x:9");
	/* It is lost: back to the list, which goes on where it was. */
	ck_assert(!drivers_next(&d, NULL));
	ck_assert_str_eq(drivers_current(&d), "b:2");
}
END_TEST

START_TEST(two_that_name_each_other_cause_pauses)
{
	struct drivers d = drivers("a:1,b:2");
	int pauses = 0;

	for (int i = 0; i < 10; i++)
		pauses += drivers_next(&d, strcmp(drivers_current(&d), "a:1") == 0 ? "b:2" : "a:1");
	ck_assert_int_eq(pauses, 5);
}
END_TEST

START_TEST(whoever_names_itself_is_not_believed)
{
	struct drivers d = drivers("a:1,b:2");

	drivers_next(&d, "a:1");
	ck_assert_str_eq(drivers_current(&d), "b:2");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("drivers");
	TCase *tc = tcase_create("drivers");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, lists_are_read);
	tcase_add_test(tc, bad_lists_are_refused);
	tcase_add_test(tc, a_single_one_is_asked_again_after_a_pause);
	tcase_add_test(tc, each_is_tried_before_there_is_a_pause);
	tcase_add_test(tc, a_leader_that_was_named_comes_next);
	tcase_add_test(tc, two_that_name_each_other_cause_pauses);
	tcase_add_test(tc, whoever_names_itself_is_not_believed);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
