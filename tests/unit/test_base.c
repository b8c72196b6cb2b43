/* Unit tests of engine/base: texts, errors, checksums, versions. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/error.h"
#include "engine/base/text.h"

START_TEST(sizes_are_read_whole_or_not_at_all)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t bytes;
	} cases[] = {
	    {"0", 0, 0},
	    {"512", 0, 512},
	    {"64KiB", 0, 64 << 10},
	    {"10GiB", 0, 10 * GIB},
	    {"1T", 0, 1024 * GIB},
	    {"4096B", 0, 4096},
	    {"", -EINVAL, 0},
	    {"-1", -EINVAL, 0},
	    {"10GB", -EINVAL, 0},
	    {"1.5GiB", -EINVAL, 0},
	    {"10GiBx", -EINVAL, 0},
	    {"99999999999999999999", -ERANGE, 0},
	    {"99999999999PiB", -ERANGE, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t bytes = 77;

		ck_assert_int_eq(text_parse_size(cases[i].text, &bytes), cases[i].rc);
		ck_assert_uint_eq(bytes, cases[i].rc == 0 ? cases[i].bytes : 77);
	}
}
END_TEST

START_TEST(sizes_are_shown_in_the_largest_unit)
{
	char buf[32];

	ck_assert_str_eq(text_size(0, buf, sizeof buf), "0B");
	ck_assert_str_eq(text_size(10 * GIB, buf, sizeof buf), "10GiB");
	ck_assert_str_eq(text_size(1536, buf, sizeof buf), "1.5KiB");
	ck_assert_str_eq(text_size(3 * GIB / 2, buf, sizeof buf), "1536MiB");
}
END_TEST

START_TEST(times_go_both_ways)
{
	char buf[40];
	int64_t t;

	ck_assert_int_eq(text_parse_time("2026-11-23T10:00:00Z", &t), 0);
	ck_assert_str_eq(text_time(t, buf, sizeof buf), "2026-11-23T10:00:00Z");
	ck_assert_int_eq(text_parse_time("2026-11-23T11:00:00.25+01:00", &t), 0);
	ck_assert_str_eq(text_time(t, buf, sizeof buf), "2026-11-23T10:00:00.250Z");
	ck_assert_int_eq(text_parse_time("2026-02-29T00:00:00Z", &t), -EINVAL);
	ck_assert_int_eq(text_parse_time("2028-02-29T00:00:00Z", &t), 0);
	ck_assert_int_eq(text_parse_time("2026-11-23", &t), -EINVAL);
	ck_assert_int_eq(text_parse_time("2026-11-23T10:00:00", &t), -EINVAL);
	ck_assert_int_eq(text_parse_time("2026-11-23T10:00:00Zx", &t), -EINVAL);
	ck_assert_int_eq(text_parse_time("2026-13-01T10:00:00Z", &t), -EINVAL);
}
END_TEST

START_TEST(uuids_go_both_ways)
{
	struct uuid a, b;
	char buf[40];

	uuid_generate(&a);
	ck_assert_int_eq(text_parse_uuid(text_uuid(&a, buf, sizeof buf), &b), 0);
	ck_assert(uuid_equal(&a, &b));
	ck_assert_int_eq(text_parse_uuid("6f1d2c1e-8a54-4b7e-9a51-1f0a5c0e7d1g", &b), -EINVAL);
}
END_TEST

START_TEST(crc_is_castagnoli)
{
	static const uint8_t zero[BLOCK_SIZE];

	/* RFC 3720 B.4 gives 0xe3069283 for the nine digits (as a check value of the polynomial).
	 */
	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283u);
	ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
	ck_assert_uint_eq(crc32c(0, zero, sizeof zero), CRC32C_ZERO_BLOCK);
}
END_TEST

START_TEST(versions_compare_as_pairs)
{
	ck_assert(version_make(2, 0) > version_make(1, VERSION_SEQ_MAX));
	ck_assert_uint_eq(version_generation(version_make(7, 9)), 7);
	ck_assert_uint_eq(version_seq(version_make(7, 9)), 9);
}
END_TEST

START_TEST(errors_keep_the_first_cause)
{
	struct error err;

	ck_assert_int_eq(error_set(&err, -ENOSPC, "3 of %d", 4), -ENOSPC);
	ck_assert_int_eq(error_wrap(&err, "device %s", "d0"), -ENOSPC);
	ck_assert_str_eq(err.text, "device d0: 3 of 4");
	ck_assert_str_eq(err_name(-E_FENCED), "E_FENCED");
	ck_assert_str_eq(err_name(ENOSPC), "ENOSPC");
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("base");
	Suite *s = suite_create("base");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, sizes_are_read_whole_or_not_at_all);
	tcase_add_test(tc, sizes_are_shown_in_the_largest_unit);
	tcase_add_test(tc, times_go_both_ways);
	tcase_add_test(tc, uuids_go_both_ways);
	tcase_add_test(tc, crc_is_castagnoli);
	tcase_add_test(tc, versions_compare_as_pairs);
	tcase_add_test(tc, errors_keep_the_first_cause);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
