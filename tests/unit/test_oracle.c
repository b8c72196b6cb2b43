/* Unit tests of the simulator's oracle: what it must let pass, and what it must find. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/oracle.h"

static unsigned violations;
static struct oracle *o;
static uint8_t data[4 * BLOCK_SIZE];

static void violated(const char *text, void *arg)
{
	(void)text;
	(void)arg;
	violations++;
}

static void begin(void)
{
	violations = 0;
	o = oracle_create(16, violated, NULL);
	memset(data, 0, sizeof(data));
}

static void finish(void)
{
	oracle_destroy(o);
}

static struct oracle_write put(enum oracle_kind kind, generation_t generation, uint64_t block)
{
	struct oracle_write w;

	oracle_write_begin(o, kind, generation, block, 1, &w);
	return w;
}

static struct oracle_write put_done(generation_t generation, uint64_t block)
{
	struct oracle_write w = put(ORACLE_DATA, generation, block);

	oracle_write_end(o, &w, 0);
	return w;
}

/* A read that returns what w wrote; NULL: zeroes. */
static void get(generation_t generation, uint64_t block, const struct oracle_write *w)
{
	struct oracle_read r;

	memset(data, 0, BLOCK_SIZE);
	if (w != NULL)
		oracle_fill(w, data);
	oracle_read_begin(o, generation, block, 1, &r);
	oracle_read_end(o, &r, data);
}

START_TEST(what_was_written_is_read)
{
	struct oracle_write w;

	get(1, 3, NULL);
	w = put_done(1, 3);
	get(1, 3, &w);
	get(1, 4, NULL);
	ck_assert_uint_eq(violations, 0);
	get(1, 3, NULL);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(an_overwritten_write_does_not_come_back)
{
	struct oracle_write first = put_done(1, 3), second = put_done(1, 3);

	get(1, 3, &second);
	ck_assert_uint_eq(violations, 0);
	get(1, 3, &first);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(writes_at_the_same_time_have_one_order)
{
	struct oracle_write a = put(ORACLE_DATA, 1, 3), b = put(ORACLE_DATA, 1, 3);

	get(1, 3, NULL);
	oracle_write_end(o, &a, 0);
	oracle_write_end(o, &b, 0);
	get(1, 3, &a);
	get(1, 3, &a);
	ck_assert_uint_eq(violations, 0);
	get(1, 3, &b);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(what_was_seen_stays)
{
	struct oracle_write old = put_done(1, 3), w = put(ORACLE_DATA, 1, 3);

	get(1, 3, &old);
	get(1, 3, &w);
	get(1, 3, &w);
	ck_assert_uint_eq(violations, 0);
	get(1, 3, &old);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(an_undecided_write_is_there_after_the_attach_or_never)
{
	struct oracle_write old = put_done(1, 3), w = put(ORACLE_DATA, 1, 3);
	struct oracle_write other = put_done(1, 4), x = put(ORACLE_DATA, 1, 4);

	get(2, 3, &old);
	get(2, 4, &x);
	get(2, 4, &x);
	ck_assert_uint_eq(violations, 0);
	get(2, 3, &w);
	ck_assert_uint_eq(violations, 1);
	get(2, 4, &other);
	ck_assert_uint_eq(violations, 2);
}
END_TEST

START_TEST(a_refused_write_may_be_there_until_the_next_one)
{
	struct oracle_write refused = put(ORACLE_DATA, 1, 3), next;

	oracle_write_end(o, &refused, -5);
	get(1, 3, NULL);
	get(1, 3, &refused);
	next = put_done(1, 3);
	get(1, 3, &next);
	ck_assert_uint_eq(violations, 0);
	get(1, 3, &refused);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(zeroes_are_a_write_too)
{
	struct oracle_write w = put_done(1, 3), z = put(ORACLE_ZERO, 1, 3);

	get(1, 3, &w);
	oracle_write_end(o, &z, 0);
	get(1, 3, NULL);
	ck_assert_uint_eq(violations, 0);
	get(1, 3, &w);
	ck_assert_uint_eq(violations, 1);
	w = put_done(1, 3);
	get(1, 3, NULL);
	ck_assert_uint_eq(violations, 2);
}
END_TEST

START_TEST(torn_and_foreign_blocks_are_found)
{
	struct oracle_write w = put_done(1, 3), x = put_done(1, 3);
	struct oracle_read r;
	uint8_t other[BLOCK_SIZE];

	oracle_fill(&w, other);
	oracle_fill(&x, data);
	memcpy(data, other, 512);
	oracle_read_begin(o, 1, 3, 1, &r);
	oracle_read_end(o, &r, data);
	ck_assert_uint_eq(violations, 1);
	oracle_fill(&x, data);
	oracle_read_begin(o, 1, 5, 1, &r);
	oracle_read_end(o, &r, data);
	ck_assert_uint_eq(violations, 2);
}
END_TEST

START_TEST(an_older_attachment_acknowledges_nothing)
{
	struct oracle_write a = put(ORACLE_DATA, 1, 3), b = put(ORACLE_DATA, 2, 4);

	oracle_write_end(o, &b, 0);
	ck_assert_uint_eq(violations, 0);
	oracle_write_end(o, &a, 0);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

static void get_shot(struct oracle_shot *s, uint64_t block, const struct oracle_write *w)
{
	memset(data, 0, BLOCK_SIZE);
	if (w != NULL)
		oracle_fill(w, data);
	oracle_shot_read(o, s, block, 1, data);
}

/* The snapshot is long in coming: each of the many writes that came meanwhile may be its last. */
START_TEST(a_snapshot_may_show_what_was_overwritten_while_it_was_taken)
{
	struct oracle_write w[20];
	struct oracle_shot *shot = oracle_shot_begin(o);

	for (unsigned i = 0; i < ARRAY_SIZE(w); i++)
		w[i] = put_done(1, 3);
	get(1, 3, &w[19]);
	oracle_shot_taken(o, shot);
	get_shot(shot, 3, &w[_i]);
	get_shot(shot, 3, &w[_i]);
	ck_assert_uint_eq(violations, 0);
	get_shot(shot, 3, &w[(_i + 1) % 20]);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(a_snapshot_shows_nothing_of_another_time)
{
	struct oracle_write past = put_done(1, 3), last = put_done(1, 3), other = put_done(1, 4);
	struct oracle_shot *first = oracle_shot_begin(o), *second;
	struct oracle_write later;

	for (unsigned i = 0; i < 20; i++)
		later = put_done(1, 3);
	oracle_shot_taken(o, first);
	put_done(1, 4);
	put_done(1, 3);
	second = oracle_shot_begin(o);
	for (unsigned i = 0; i < 20; i++)
		put_done(1, 3);
	oracle_shot_taken(o, second);
	get_shot(first, 3, &last);
	get_shot(first, 4, &other);
	ck_assert_uint_eq(violations, 0);
	get_shot(second, 3, _i == 0 ? &past : &later);
	ck_assert_uint_eq(violations, 1);
}
END_TEST

START_TEST(a_read_in_flight_may_return_what_is_overwritten_meanwhile)
{
	struct oracle_write old = put_done(1, 3);
	struct oracle_read r;

	oracle_read_begin(o, 1, 3, 1, &r);
	put_done(1, 3);
	oracle_fill(&old, data);
	oracle_read_end(o, &r, data);
	ck_assert_uint_eq(violations, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oracle");
	TCase *t = tcase_create("oracle");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(t, begin, finish);
	tcase_add_test(t, what_was_written_is_read);
	tcase_add_test(t, an_overwritten_write_does_not_come_back);
	tcase_add_test(t, writes_at_the_same_time_have_one_order);
	tcase_add_test(t, what_was_seen_stays);
	tcase_add_test(t, an_undecided_write_is_there_after_the_attach_or_never);
	tcase_add_test(t, a_refused_write_may_be_there_until_the_next_one);
	tcase_add_test(t, zeroes_are_a_write_too);
	tcase_add_test(t, torn_and_foreign_blocks_are_found);
	tcase_add_test(t, an_older_attachment_acknowledges_nothing);
	tcase_add_loop_test(t, a_snapshot_may_show_what_was_overwritten_while_it_was_taken, 0, 20);
	tcase_add_loop_test(t, a_snapshot_shows_nothing_of_another_time, 0, 2);
	tcase_add_test(t, a_read_in_flight_may_return_what_is_overwritten_meanwhile);
	suite_add_tcase(s, t);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
