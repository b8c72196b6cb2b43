/* Tests of `pave evidence` and `pave policy` as their users see them: files, exit codes, what is
 * printed. The commands are called as main.c calls them, with stdout and stderr going to files. */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/evidence/file.h"
#include "test_evidence_rig.h"
#include "tools/pave/cmd.h"

#define WORDS_MAX 24u
#define NOW_TEXT  "2026-11-23T10:00:00Z"

static struct rig rig;
static char dir[64];
static char *out_text, *err_text_of_run;

static void setup(void)
{
	rig_init(&rig);
	snprintf(dir, sizeof dir, "/tmp/evidence-cli-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
}

static void teardown(void)
{
	static const char *const names[] = {
	    "root", "site",   "revocations", "policy", "half",	      "in.json",   "out", "err",
	    "k1",   "k1.pub", "k2",	     "k2.pub", "authority-1", "auditor-1", "x",	  "seen"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(names[i]);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(rmdir(dir), 0);
	free(out_text);
	free(err_text_of_run);
	rig_deinit(&rig);
}

static void put(const char *name, const char *text)
{
	ck_assert_int_eq(file_replace(name, text, strlen(text), 0600, NULL), 0);
}

/* Takes the text. */
static void put_free(const char *name, char *text)
{
	put(name, text);
	free(text);
}

static int redirect(const char *name, int fd)
{
	int saved = dup(fd), file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(saved, 0);
	ck_assert_int_ge(file, 0);
	dup2(file, fd);
	close(file);
	return saved;
}

static char *slurp(const char *name)
{
	char *data = NULL;
	size_t size = 0;

	ck_assert_int_eq(file_read_whole(name, 1 << 20, &data, &size, NULL), 0);
	return data;
}

/* Runs the words of a command line, of which the first is evidence or policy; returns the exit
 * code. */
static int run(const char *line)
{
	char copy[1024];
	char *words[WORDS_MAX + 1] = {NULL};
	int count = 0, rc, saved_out, saved_err;

	snprintf(copy, sizeof copy, "%s", line);
	for (char *save = NULL, *w = strtok_r(copy, " ", &save); w != NULL;
	     w = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(count, (int)WORDS_MAX);
		words[count++] = w;
	}
	fflush(stdout);
	fflush(stderr);
	saved_out = redirect("out", STDOUT_FILENO);
	saved_err = redirect("err", STDERR_FILENO);
	rc = strcmp(words[0], "evidence") == 0 ? cmd_evidence(count, words)
					       : cmd_policy(count, words);
	fflush(stdout);
	fflush(stderr);
	dup2(saved_out, STDOUT_FILENO);
	dup2(saved_err, STDERR_FILENO);
	close(saved_out);
	close(saved_err);
	free(out_text);
	free(err_text_of_run);
	out_text = slurp("out");
	err_text_of_run = slurp("err");
	return rc;
}

static void expect(const char *line, int rc, const char *in_out, const char *in_err)
{
	int got = run(line);

	ck_assert_msg(got == rc, "%s: exit %d, expected %d\n%s%s", line, got, rc, out_text,
		      err_text_of_run);
	ck_assert_msg(in_out == NULL ? out_text[0] == '\0' : strstr(out_text, in_out) != NULL,
		      "%s: stdout: %s", line, out_text);
	ck_assert_msg(in_err == NULL ? err_text_of_run[0] == '\0'
				     : strstr(err_text_of_run, in_err) != NULL,
		      "%s: stderr: %s", line, err_text_of_run);
}

static void put_evidence(void)
{
	json_t *site = rig_site_json(&rig), *revocations = rig_revocations_json(&rig);
	char *policy = NULL;

	ck_assert_int_eq(demo_policy(&rig.demo, "secnumcloud-fr", &policy, NULL), 0);
	put("root", rig.root_envelope);
	put_free("site", rig_sign_site(&rig, site));
	put_free("revocations", rig_sign_revocations(&rig, revocations));
	put_free("policy", policy);
	json_decref(site);
	json_decref(revocations);
}

#define FILES "--site site --revocations revocations --root root"
#define CHECK "policy check --policy policy " FILES " --at "

/* -- policy ----------------------------------------------------------------------------------- */

START_TEST(check_tells_until_when)
{
	put_evidence();
	expect(CHECK NOW_TEXT, 0, "par is eligible under secnumcloud-fr until 2026-11-24T09:00:00Z",
	       NULL);
	expect("policy check --policy cloud-de-confiance " FILES " --at " NOW_TEXT, 0,
	       "under cloud-de-confiance until", NULL);
	expect(CHECK "2026-11-24T08:59:59Z", 0, "eligible", NULL);
	expect(CHECK "2026-11-24T09:00:00Z", 3,
	       "revocations: revocations.not_after is 2026-11-24T09:00:00Z", NULL);
}
END_TEST

START_TEST(check_in_json_is_of_one_shape)
{
	json_t *json, *rule;

	put_evidence();
	ck_assert_int_eq(run(CHECK NOW_TEXT " --json"), 0);
	json = json_loads(out_text, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_ptr_nonnull(json);
	ck_assert_uint_eq(json_object_size(json), 5);
	ck_assert(json_is_true(json_object_get(json, "eligible")));
	ck_assert_str_eq(json_string_value(json_object_get(json, "until")), "2026-11-24T09:00:00Z");
	ck_assert_str_eq(json_string_value(json_object_get(json, "until_field")),
			 "revocations.not_after");
	ck_assert_str_eq(json_string_value(json_object_get(json, "until_source")),
			 "revocations version 41");
	ck_assert_uint_eq(json_array_size(json_object_get(json, "failed")), 0);
	json_decref(json);
	ck_assert_int_eq(run(CHECK "2026-11-24T09:00:00Z --json"), 3);
	json = json_loads(out_text, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_uint_eq(json_object_size(json), 5);
	ck_assert(json_is_false(json_object_get(json, "eligible")));
	ck_assert(json_is_null(json_object_get(json, "until")));
	ck_assert_uint_eq(json_array_size(json_object_get(json, "failed")), 2);
	rule = json_array_get(json_object_get(json, "failed"), 0);
	ck_assert_uint_eq(json_object_size(rule), 5);
	ck_assert_str_eq(json_string_value(json_object_get(rule, "rule")), "revocations");
	ck_assert_str_eq(json_string_value(json_object_get(rule, "field")),
			 "revocations.not_after");
	ck_assert_str_eq(json_string_value(json_object_get(rule, "value")), "2026-11-24T09:00:00Z");
	ck_assert(json_is_string(json_object_get(rule, "bound")));
	ck_assert_str_eq(json_string_value(json_object_get(rule, "source")),
			 "revocations version 41");
	json_decref(json);
}
END_TEST

static void put_site_of(const char *version, const char *territory)
{
	json_t *json = rig_site_json(&rig);

	rig_set(json, "version", version);
	rig_set(json, "facility.territory", territory);
	put_free("site", rig_sign_site(&rig, json));
	json_decref(json);
}

static void put_snapshot_of(const char *version, const char *sites)
{
	json_t *json = rig_revocations_json(&rig);

	rig_set(json, "version", version);
	rig_set(json, "sites.par", sites);
	put_free("revocations", rig_sign_revocations(&rig, json));
	json_decref(json);
}

/* A verifier that is asked now and then remembers what it has seen, if it is told where. */
START_TEST(check_remembers_what_it_has_seen)
{
	const char *const seen = CHECK NOW_TEXT " --seen seen";

	put_evidence();
	expect(seen, 0, "eligible", NULL);
	expect(seen, 0, "eligible", NULL);
	/* Older ones, which are signed all the same. */
	put_site_of("2", "\"FR-IDF\"");
	expect(CHECK NOW_TEXT, 3, "version is 2", NULL);
	expect(seen, 1, NULL, "this is version 2, but version 3 was seen before");
	put_site_of("4", "\"FR-IDF\"");
	put_snapshot_of("40", "4");
	expect(CHECK NOW_TEXT, 0, "eligible", NULL);
	expect(seen, 1, NULL, "this is version 40, but version 41 was seen before");
	put_snapshot_of("42", "4");
	expect(seen, 0, "eligible", NULL);
	/* Two contents under one version: neither, until a higher one. */
	put_site_of("4", "\"FR-ARA\"");
	expect(seen, 1, NULL, "two contents");
	put_site_of("4", "\"FR-IDF\"");
	expect(seen, 1, NULL, "two contents");
	put_site_of("5", "\"FR-IDF\"");
	put_snapshot_of("43", "5");
	expect(seen, 0, "eligible", NULL);
	/* What is no such file is not begun anew. */
	put("seen", "{}");
	expect(seen, 1, NULL, "trust state seen");
}
END_TEST

START_TEST(check_needs_what_it_needs)
{
	put_evidence();
	expect("policy check", 2, NULL, "needs --policy");
	expect("policy check --policy policy " FILES " x", 2, NULL, "nothing else");
	expect(CHECK "tomorrow", 2, NULL, "--at tomorrow");
	expect(CHECK NOW_TEXT " --nonsense", 2, NULL, "nonsense");
	expect("policy", 2, NULL, "check, list, show");
	expect("policy chekc", 2, NULL, "chekc");
	expect("policy --help", 0, "Exit status", NULL);
	expect("policy check --policy nowhere " FILES, 1, NULL, "neither a preset nor a file");
	expect("policy check --policy dev --site nowhere --revocations revocations --root root", 1,
	       NULL, "nowhere");
	expect("policy check --policy dev --site site --revocations site --root root", 1, NULL,
	       "payloadType");
	expect("policy check --policy dev --site site --revocations revocations --root site", 1,
	       NULL, "--root site");
}
END_TEST

START_TEST(what_is_not_signed_is_no_evidence)
{
	json_t *json = rig_site_json(&rig);
	char *text = json_dumps(json, 0);

	put_evidence();
	put("site", text);
	expect(CHECK NOW_TEXT, 1, NULL, "--site site");
	put_free("site",
		 rig_sign(&rig, TYPE_SITE, json, (const char *const[]){DEMO_AUDITOR, NULL}));
	expect(CHECK NOW_TEXT, 1, NULL, "role authority");
	put("site", "");
	expect(CHECK NOW_TEXT " --json", 1, NULL, "--site site");
	free(text);
	json_decref(json);
}
END_TEST

START_TEST(nothing_is_eligible_under_a_root_that_ran_out)
{
	json_t *json = rig_root_json(&rig);

	put_evidence();
	rig_set(json, "not_after", "\"2026-11-23T12:00:00Z\"");
	put_free("root", rig_sign(&rig, TYPE_ROOT, json,
				  (const char *const[]){DEMO_AUTHORITY, DEMO_AUDITOR, NULL}));
	expect(CHECK NOW_TEXT, 0, "until 2026-11-23T12:00:00Z", NULL);
	expect(CHECK "2026-11-23T12:00:00Z", 3, "root: root.not_after", NULL);
	json_decref(json);
}
END_TEST

/* -- evidence --------------------------------------------------------------------------------- */

START_TEST(keygen_makes_a_pair_and_overwrites_nothing)
{
	struct stat st;
	char *before, *after;

	expect("evidence keygen --out k1 --keyid main", 0, "\"main\"", NULL);
	ck_assert_int_eq(stat("k1", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	before = slurp("k1");
	ck_assert_ptr_nonnull(strstr(before, "BEGIN PRIVATE KEY"));
	expect("evidence keygen --out k1", 1, NULL, "exists already");
	after = slurp("k1");
	ck_assert_str_eq(before, after);
	free(before);
	free(after);
	put("k2.pub", "mine");
	expect("evidence keygen --out k2", 1, NULL, "k2.pub exists already");
	ck_assert_int_eq(access("k2", F_OK), -1);
	expect("evidence keygen", 2, NULL, "--out");
	expect("evidence keygen --out nowhere/k", 1, NULL, "nowhere/k");
}
END_TEST

static void put_key(const char *keyid)
{
	put_free(keyid, signing_key_private_pem(demo_key(&rig.demo, keyid)));
}

START_TEST(two_houses_sign_one_after_the_other)
{
	json_t *json = rig_site_json(&rig);

	put_evidence();
	put_key("authority-1");
	put_key("auditor-1");
	put_free("in.json", json_dumps(json, JSON_INDENT(1)));
	expect("evidence sign --key authority-1=authority-1 --type site in.json --out half", 0,
	       "1 key", NULL);
	expect("evidence verify --root root half", 1, NULL, "role auditor");
	expect("evidence sign --key auditor-1=auditor-1 --type application/vnd.pave.site+json half "
	       "--out site",
	       0, "1 key", NULL);
	expect("evidence verify --root root site", 0, "valid: site certificate par, version 3",
	       NULL);
	expect("evidence verify --root root site --json", 0, "\"valid\": true", NULL);
	expect("evidence show site", 0, "signed by: authority-1 auditor-1 (not verified)", NULL);
	expect("evidence show site --json", 0, "\"verified\": false", NULL);
	expect("evidence verify --root root root", 0, "trust root, version 1", NULL);
	expect("evidence verify --root root policy", 0, "placement policy secnumcloud-fr", NULL);
	expect("evidence verify --root root revocations", 0, "revocation snapshot, version 41",
	       NULL);
	expect("evidence sign --key auditor-1=auditor-1 --type policy half --out site", 1, NULL,
	       "type");
	json_decref(json);
}
END_TEST

START_TEST(what_a_verifier_would_refuse_is_not_signed)
{
	json_t *json = rig_site_json(&rig);

	put_key("authority-1");
	rig_set(json, "facility.country", "\"GP\"");
	put_free("in.json", json_dumps(json, 0));
	expect("evidence sign --key a=authority-1 --type site in.json --out x", 1, NULL,
	       "facility.territory");
	ck_assert_int_eq(access("x", F_OK), -1);
	expect("evidence sign --key a=authority-1 --type policy in.json --out x", 1, NULL,
	       "type is \"site\"");
	expect("evidence sign --key a=authority-1 --type car in.json --out x", 2, NULL,
	       "--type car");
	expect("evidence sign --key authority-1 --type site in.json --out x", 2, NULL, "KEYID=KEY");
	expect("evidence sign --key a=authority-1 --key a=authority-1 --type site in.json --out x",
	       2, NULL, "given twice");
	expect("evidence sign --key a=in.json --type site in.json --out x", 1, NULL, "private key");
	expect("evidence sign --key a=nowhere --type site in.json --out x", 1, NULL, "nowhere");
	expect("evidence sign --type site in.json --out x", 2, NULL, "--key");
	expect("evidence show in.json", 1, NULL, "payloadType");
	expect("evidence show nowhere", 1, NULL, "nowhere");
	expect("evidence", 2, NULL, "keygen, sign, verify, show");
	expect("evidence --help", 0, "Exit status", NULL);
	json_decref(json);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("cli");
	Suite *s = suite_create("evidence cli");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, check_tells_until_when);
	tcase_add_test(tc, check_in_json_is_of_one_shape);
	tcase_add_test(tc, check_remembers_what_it_has_seen);
	tcase_add_test(tc, check_needs_what_it_needs);
	tcase_add_test(tc, what_is_not_signed_is_no_evidence);
	tcase_add_test(tc, nothing_is_eligible_under_a_root_that_ran_out);
	tcase_add_test(tc, keygen_makes_a_pair_and_overwrites_nothing);
	tcase_add_test(tc, two_houses_sign_one_after_the_other);
	tcase_add_test(tc, what_a_verifier_would_refuse_is_not_signed);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
