/* engine/ledger: which root an auditor may have, and what it proves of the others in a ledger. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test_ledger_rig.h"

START_TEST(another_root_is_refused)
{
	static const uint8_t seed[32] = "an authority of somebody else";
	const struct history_options options = {.until = INT64_MAX};
	struct demo other;
	struct book b;
	unsigned order[RECORDS_MAX];
	struct history *h = NULL;
	struct error err = {0};
	char *root, *file;
	size_t size;

	book_init(&b);
	sign_head(&b);
	in_order(order, b.count);
	file = file_of(&b, order, b.count, &size);
	ck_assert_int_eq(demo_init(&other, seed, NULL), 0);
	/* Its own cluster; and one that claims to be ours. */
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(
		    demo_root(&other, 1, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &root, NULL), 0);
		ck_assert_int_ne(history_replay(file, size, root, strlen(root), &options, &h, &err),
				 0);
		free(root);
		other.cluster = b.rig.demo.cluster;
	}
	demo_deinit(&other);
	free(file);
	book_deinit(&b);
}
END_TEST

static int replay_until(const struct book *b, const char *root, int64_t until, struct history **ret,
			struct error *err)
{
	const struct history_options options = {.until = until};
	unsigned order[RECORDS_MAX];
	size_t size;
	char *file;
	int rc;

	in_order(order, b->count);
	file = file_of(b, order, b->count, &size);
	rc = history_replay(file, size, root, strlen(root), &options, ret, err);
	free(file);
	return rc;
}

/* What was at a moment is told from a file that goes on, under another root and another key of the
 * driver's, whichever of the roots the auditor has. */
START_TEST(the_past_is_told_under_a_later_root)
{
	struct book b;
	struct demo old, next, stranger;
	struct history *h = NULL;
	struct error err = {0};
	int64_t before;
	char *root;

	book_init(&b);
	put_ordinary_life(&b);
	before = b.now - 1;
	next = old = b.rig.demo;
	ck_assert_int_eq(signing_key_generate("placement-2", &next.keys[2], NULL), 0);
	ck_assert_int_eq(
	    demo_root_after(&old, &next, 2, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &root, NULL), 0);
	put_document(&b, "root", "", root);
	b.rig.demo = next;
	put_permit_end(&b, 2, "changed", b.now + 10 * (int64_t)NS_PER_S);
	put_permit(&b, &(struct permit_case){.generation = 2, .serial = 2});
	sign_head(&b);
	for (int i = 0; i < 2; i++) {
		const char *trusted = i == 0 ? b.rig.root_envelope : root;

		ck_assert_msg(replay_until(&b, trusted, before, &h, &err) == 0, "%s", err.text);
		ck_assert_uint_eq(h->finding_count, 0);
		ck_assert_uint_eq(root_version(h->root), 1);
		ck_assert_uint_eq(history_find_volume(h, "vm")->permit_count, 2);
		ck_assert_uint_eq(h->head.seq, b.count);
		history_free(h);
		ck_assert_msg(replay_until(&b, trusted, INT64_MAX, &h, &err) == 0, "%s", err.text);
		ck_assert_uint_eq(h->finding_count, 0);
		ck_assert_uint_eq(history_find_volume(h, "vm")->permit_count, 3);
		history_free(h);
	}
	h = NULL;
	/* Before all of it: that is said, and not that the file is bad. */
	ck_assert_int_eq(replay_until(&b, root, RIG_NOW - 1, &h, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "begins at"));
	ck_assert_ptr_null(h);
	/* A root that does not follow is none, also after the moment. */
	free(root);
	ck_assert_int_eq(demo_init(&stranger, NULL, NULL), 0);
	stranger.cluster = old.cluster;
	ck_assert_int_eq(demo_root(&stranger, 3, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &root, NULL),
			 0);
	put_document(&b, "root", "", root);
	sign_head(&b);
	ck_assert_int_eq(replay_until(&b, b.rig.root_envelope, before, &h, &err), -E_BAD_SIGNATURE);
	ck_assert_ptr_nonnull(strstr(err.text, "the trust root in it"));
	demo_deinit(&stranger);
	b.rig.demo = old;
	signing_key_free(next.keys[2]);
	free(root);
	book_deinit(&b);
}
END_TEST

/* A root says who may follow it, not who was before: anybody can add his signatures to one. So what
 * a dishonest driver has put before the auditor's own root is believed only if the keys of its
 * successor have signed it. */
START_TEST(a_root_of_before_is_signed_by_its_successor)
{
	const struct history_options options = {.until = INT64_MAX};
	struct history *h = NULL;
	struct demo forger, own;
	struct error err = {0};
	char *root, *added, *file;
	unsigned order[RECORDS_MAX];
	struct book b;
	size_t size;

	book_init(&b);
	put_ordinary_life(&b);
	forger = b.rig.demo;
	ck_assert_int_eq(demo_init(&own, NULL, NULL), 0);
	own.cluster = forger.cluster;
	ck_assert_int_eq(demo_root(&own, 2, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &root, NULL), 0);
	ck_assert_int_eq(
	    demo_root_after(&forger, &own, 2, RIG_NOW - RIG_DAY, RIG_NOW + RIG_DAY, &added, NULL),
	    0);
	put_document(&b, "root", "", added);
	b.rig.demo = own; /* whose placement key the driver has */
	sign_head(&b);
	in_order(order, b.count);
	file = file_of(&b, order, b.count, &size);
	ck_assert_int_eq(history_replay(file, size, root, strlen(root), &options, &h, &err),
			 -E_BAD_SIGNATURE);
	ck_assert_msg(strstr(err.text, "version 1") != NULL, "%s", err.text);
	b.rig.demo = forger;
	demo_deinit(&own);
	free(file);
	free(root);
	free(added);
	book_deinit(&b);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ledger roots");
	TCase *tcase = tcase_create("roots");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, another_root_is_refused);
	tcase_add_test(tcase, the_past_is_told_under_a_later_root);
	tcase_add_test(tcase, a_root_of_before_is_signed_by_its_successor);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}
