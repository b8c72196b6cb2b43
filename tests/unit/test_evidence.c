/* Unit tests of envelopes, keys and the parsing of documents. The rules: test_evidence_rules.c; the
 * trust state and permits: test_evidence_trust.c. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/base64.h"
#include "engine/evidence/evaluate.h"
#include "engine/evidence/file.h"
#include "test_evidence_rig.h"

static struct rig rig;

static void setup(void)
{
	rig_init(&rig);
}

static void teardown(void)
{
	rig_deinit(&rig);
}

/* -- base64 ----------------------------------------------------------------------------------- */

START_TEST(base64_goes_both_ways)
{
	/* RFC 4648, section 10. */
	static const char *const pairs[][2] = {{"", ""},
					       {"f", "Zg=="},
					       {"fo", "Zm8="},
					       {"foo", "Zm9v"},
					       {"foob", "Zm9vYg=="},
					       {"fooba", "Zm9vYmE="},
					       {"foobar", "Zm9vYmFy"}};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		char *text = base64_encode(pairs[i][0], strlen(pairs[i][0]));
		uint8_t *data = NULL;
		size_t size = 0;

		ck_assert_str_eq(text, pairs[i][1]);
		ck_assert_int_eq(base64_decode(text, strlen(text), &data, &size), 0);
		ck_assert_uint_eq(size, strlen(pairs[i][0]));
		ck_assert_mem_eq(data, pairs[i][0], size);
		free(text);
		free(data);
	}
}
END_TEST

START_TEST(base64_is_strict_and_knows_both_alphabets)
{
	static const struct {
		const char *text;
		int rc;
	} cases[] = {
	    {"+/+/", 0},	{"-_-_", 0},	    {"+_+_", -EINVAL},	 {"Zg", 0},
	    {"Zm8", 0},		{"Zh==", -EINVAL},  {"Zm9=", -EINVAL},	 {"Z", -EINVAL},
	    {"Zm9vY", -EINVAL}, {"Zg=", -EINVAL},   {"Zg===", -EINVAL},	 {"=", -EINVAL},
	    {"====", -EINVAL},	{"Zm 9v", -EINVAL}, {"Zm9v\n", -EINVAL}, {"Zm=v", -EINVAL},
	    {"Zm9v=", -EINVAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t *data = NULL;
		size_t size = 0;

		ck_assert_msg(base64_decode(cases[i].text, strlen(cases[i].text), &data, &size) ==
				  cases[i].rc,
			      "%s", cases[i].text);
		free(data);
	}
}
END_TEST

/* -- interoperation --------------------------------------------------------------------------- */

/* Made with the openssl command: the key is the first of RFC 8032 (7.1), the bytes are the PAE of
 * type and payload, written out by hand, and `openssl pkeyutl -sign -rawin` signed them. */
#define VECTOR_PUBLIC                                                                              \
	"-----BEGIN PUBLIC "                                                                       \
	"KEY-----\\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\\n"               \
	"-----END PUBLIC KEY-----\\n"
#define VECTOR_SIG                                                                                 \
	"oJlvjsOdUKUiYAWfbNInIungfei8KyBoBfZOyyLkHFf/uimfV//h23XY4x/cb1NKKJnRiJ8RDtR6u76B0xOPAA=="
#define VECTOR_SIG_URL                                                                             \
	"oJlvjsOdUKUiYAWfbNInIungfei8KyBoBfZOyyLkHFf_uimfV__h23XY4x_cb1NKKJnRiJ8RDtR6u76B0xOPAA"
#define VECTOR_PAYLOAD "eyJ2ZWN0b3IiOiAiw6l0w6kiLCAibiI6IDN9Cg=="
#define VECTOR_TYPE    "application/vnd.pave.policy+json"

static const uint8_t vector_seed[32] = {
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60};

static const char vector_root[] =
    "{\"type\": \"root\", \"cluster\": \"6f1d2c1e-8a54-4b7e-9a51-1f0a5c0e7d11\", \"version\": 1,"
    "\"not_after\": \"2030-01-01T00:00:00Z\","
    "\"keys\": {\"rfc\": {\"alg\": \"ed25519\", \"public\": \"" VECTOR_PUBLIC "\"}},"
    "\"roles\": {\"tenant\": {\"keys\": [\"rfc\"], \"threshold\": 1}}}";

static int verify_vector(const char *envelope)
{
	struct root_document *root = NULL;
	struct dsse_envelope *e = NULL;
	struct error err = {0};
	int rc;

	ck_assert_msg(root_parse(vector_root, strlen(vector_root), &root, &err) == 0, "%s",
		      err.text);
	rc = dsse_parse(envelope, strlen(envelope), &e, &err);
	if (rc == 0)
		rc = dsse_verify_role(e, root, "tenant", &err);
	dsse_free(e);
	root_free(root);
	return rc;
}

#define ENVELOPE(type, payload, keyid, sig)                                                        \
	"{\"payloadType\": \"" type "\", \"payload\": \"" payload                                  \
	"\", \"signatures\": [{\"keyid\": \"" keyid "\", \"sig\": \"" sig "\"}]}"

START_TEST(envelopes_of_others_verify)
{
	ck_assert_int_eq(verify_vector(ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc", VECTOR_SIG)),
			 0);
	/* The URL-safe alphabet, without padding; unknown members; an unknown key beside it. */
	ck_assert_int_eq(
	    verify_vector(ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc", VECTOR_SIG_URL)), 0);
	ck_assert_int_eq(
	    verify_vector("{\"payloadType\": \"" VECTOR_TYPE "\", \"x\": 1, \"payload\": "
			  "\"" VECTOR_PAYLOAD "\", \"signatures\": [{\"sig\": \"AAAA\"},"
			  "{\"keyid\": \"stranger\", \"sig\": \"AAAA\"},"
			  "{\"keyid\": \"rfc\", \"sig\": \"" VECTOR_SIG "\", \"cert\": 1}]}"),
	    0);
}
END_TEST

START_TEST(our_envelopes_are_theirs)
{
	static const char payload[] = "{\"vector\": \"\xc3\xa9t\xc3\xa9\", \"n\": 3}\n";
	struct signing_key *key = NULL;
	char *envelope = NULL;
	char *pem;

	ck_assert_int_eq(signing_key_from_seed("rfc", vector_seed, &key, NULL), 0);
	pem = signing_key_public_pem(key);
	ck_assert_ptr_nonnull(
	    strstr(pem, "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
	ck_assert_int_eq(dsse_sign(VECTOR_TYPE, payload, strlen(payload), &key, 1, &envelope, NULL),
			 0);
	ck_assert_ptr_nonnull(strstr(envelope, "\"" VECTOR_SIG "\""));
	ck_assert_ptr_nonnull(strstr(envelope, "\"" VECTOR_PAYLOAD "\""));
	free(pem);
	free(envelope);
	signing_key_free(key);
}
END_TEST

START_TEST(any_change_to_an_envelope_is_refused)
{
	static const struct {
		const char *envelope;
		int rc;
	} cases[] = {
	    {ENVELOPE("application/vnd.pave.site+json", VECTOR_PAYLOAD, "rfc", VECTOR_SIG),
	     -E_BAD_SIGNATURE},
	    {ENVELOPE(VECTOR_TYPE, "eyJ2ZWN0b3IiOiAiw6l0w6kiLCAibiI6IDR9Cg==", "rfc", VECTOR_SIG),
	     -E_BAD_SIGNATURE},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "cfr", VECTOR_SIG), -E_BAD_SIGNATURE},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc",
		      "oJlvjsOdUKUiYAWfbNInIungfei8KyBoBfZOyyLkHFf/uimfV//h23XY4x/"
		      "cb1NKKJnRiJ8RDtR6u76B0xOPAQ=="),
	     -E_BAD_SIGNATURE},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc", "AAAA"), -E_BAD_SIGNATURE},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc", ""), -E_BAD_SIGNATURE},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc", "!"), -E_BAD_DOCUMENT},
	    {ENVELOPE(VECTOR_TYPE, "=", "rfc", VECTOR_SIG), -E_BAD_DOCUMENT},
	    {ENVELOPE("", VECTOR_PAYLOAD, "rfc", VECTOR_SIG), -E_BAD_DOCUMENT},
	    {ENVELOPE("a\\nb", VECTOR_PAYLOAD, "rfc", VECTOR_SIG), -E_BAD_DOCUMENT},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "\\u001b[2J", VECTOR_SIG), -E_BAD_DOCUMENT},
	    {ENVELOPE(VECTOR_TYPE, VECTOR_PAYLOAD, "rfc", VECTOR_SIG) "x", -E_BAD_DOCUMENT},
	    {"{\"payloadType\": \"" VECTOR_TYPE "\", \"payload\": \"" VECTOR_PAYLOAD "\"}",
	     -E_BAD_DOCUMENT},
	    {"{\"payloadType\": \"" VECTOR_TYPE "\", \"payload\": \"" VECTOR_PAYLOAD
	     "\", \"signatures\": []}",
	     -E_BAD_SIGNATURE},
	    {"{\"payloadType\": \"" VECTOR_TYPE "\", \"payload\": \"" VECTOR_PAYLOAD
	     "\", \"payload\": \"" VECTOR_PAYLOAD
	     "\", \"signatures\": [{\"keyid\": \"rfc\", \"sig\": \"" VECTOR_SIG "\"}]}",
	     -E_BAD_DOCUMENT},
	    {"{\"payloadType\": 1, \"payload\": \"\", \"signatures\": []}", -E_BAD_DOCUMENT},
	    {"{\"payloadType\": \"x\", \"payload\": {}, \"signatures\": []}", -E_BAD_DOCUMENT},
	    {"{\"payloadType\": \"x\", \"payload\": \"\", \"signatures\": [7]}", -E_BAD_DOCUMENT},
	    {"[]", -E_BAD_DOCUMENT},
	    {"", -E_BAD_DOCUMENT},
	    {"nonsense", -E_BAD_DOCUMENT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_msg(verify_vector(cases[i].envelope) == cases[i].rc, "case %zu: %s", i,
			      cases[i].envelope);
}
END_TEST

START_TEST(the_signatures_are_bounded)
{
	json_t *json = rig_site_json(&rig);
	char *envelope = rig_sign_site(&rig, json);
	json_t *e = json_loads(envelope, 0, NULL);
	json_t *list = json_object_get(e, "signatures");
	struct site_document *site = NULL;
	struct error err;
	char *text;

	while (json_array_size(list) < SIGNATURES_MAX)
		json_array_append_new(list,
				      json_pack("{s:s, s:s}", "keyid", "stranger", "sig", "AAAA"));
	text = json_dumps(e, 0);
	ck_assert_int_eq(site_open(text, strlen(text), rig.root, &site, &err), 0);
	site_free(site);
	free(text);
	json_array_append_new(list, json_pack("{s:s, s:s}", "keyid", "stranger", "sig", "AAAA"));
	text = json_dumps(e, 0);
	ck_assert_int_eq(site_open(text, strlen(text), rig.root, &site, &err), -E_BAD_DOCUMENT);
	free(text);
	json_decref(e);
	free(envelope);
	json_decref(json);
}
END_TEST

/* -- who must sign what ----------------------------------------------------------------------- */

static int open_site(const char *envelope, struct error *err)
{
	struct site_document *d = NULL;
	int rc = site_open(envelope, strlen(envelope), rig.root, &d, err);

	site_free(d);
	return rc;
}

START_TEST(a_site_needs_authority_and_auditor)
{
	json_t *json = rig_site_json(&rig);
	static const struct {
		const char *keys[4];
		int rc;
	} cases[] = {
	    {{DEMO_AUTHORITY, DEMO_AUDITOR, NULL}, 0},
	    {{DEMO_TENANT, DEMO_AUDITOR, DEMO_AUTHORITY, NULL}, 0},
	    {{DEMO_AUTHORITY, NULL}, -E_BAD_SIGNATURE},
	    {{DEMO_AUDITOR, NULL}, -E_BAD_SIGNATURE},
	    {{DEMO_AUTHORITY, DEMO_AUTHORITY, NULL}, -E_BAD_SIGNATURE},
	    {{DEMO_PLACEMENT, DEMO_TENANT, NULL}, -E_BAD_SIGNATURE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *envelope = rig_sign(&rig, TYPE_SITE, json, cases[i].keys);
		struct error err = {0};

		ck_assert_msg(open_site(envelope, &err) == cases[i].rc, "case %zu: %s", i,
			      err.text);
		free(envelope);
	}
	json_decref(json);
}
END_TEST

START_TEST(a_document_of_one_type_is_not_of_another)
{
	json_t *json = rig_revocations_json(&rig);
	char *envelope = rig_sign(&rig, TYPE_REVOCATIONS, json,
				  (const char *const[]){DEMO_AUTHORITY, DEMO_AUDITOR, NULL});
	char *lied =
	    rig_sign_site(&rig, json); /* the type of the envelope against the `type` inside */
	struct error err;

	ck_assert_int_eq(open_site(envelope, &err), -E_BAD_DOCUMENT);
	ck_assert_int_eq(open_site(lied, &err), -E_BAD_DOCUMENT);
	free(envelope);
	free(lied);
	json_decref(json);
}
END_TEST

START_TEST(a_document_of_another_cluster_is_refused)
{
	json_t *json = rig_site_json(&rig);
	struct error err;
	char *envelope;

	rig_set(json, "cluster", "\"00000000-0000-4000-8000-000000000000\"");
	envelope = rig_sign_site(&rig, json);
	ck_assert_int_eq(open_site(envelope, &err), -E_WRONG_CLUSTER);
	free(envelope);
	json_decref(json);
}
END_TEST

static int open_policy_under(json_t *root_json, const char *const *signers, struct error *err)
{
	char *root_text = json_dumps(root_json, 0);
	json_t *json = rig_policy_json("dev");
	char *envelope = rig_sign(&rig, TYPE_POLICY, json, signers);
	struct root_document *root = NULL;
	struct policy_document *policy = NULL;
	int rc = root_parse(root_text, strlen(root_text), &root, err);

	ck_assert_msg(rc == 0, "%s", err->text);
	rc = policy_open(envelope, strlen(envelope), root, &policy, err);
	policy_free(policy);
	root_free(root);
	free(envelope);
	free(root_text);
	json_decref(json);
	return rc;
}

START_TEST(a_policy_is_the_tenants_or_else_the_roots)
{
	const char *const tenant[] = {DEMO_TENANT, NULL};
	const char *const operators[] = {DEMO_AUTHORITY, DEMO_AUDITOR, NULL};
	const char *const one[] = {DEMO_AUTHORITY, NULL};
	json_t *root = rig_root_json(&rig);
	struct error err = {0};

	ck_assert_int_eq(open_policy_under(root, tenant, &err), 0);
	ck_assert_int_eq(open_policy_under(root, operators, &err), -E_BAD_SIGNATURE);
	rig_set(root, "roles.tenant", NULL);
	ck_assert_int_eq(open_policy_under(root, tenant, &err), -E_BAD_SIGNATURE);
	ck_assert_int_eq(open_policy_under(root, operators, &err), 0);
	ck_assert_int_eq(open_policy_under(root, one, &err), -E_BAD_SIGNATURE);
	rig_set(root, "roles.tenant", "{\"keys\": [], \"threshold\": 1}");
	ck_assert_int_eq(open_policy_under(root, operators, &err), 0);
	json_decref(root);
}
END_TEST

/* A role with two keys and threshold 2: the same key under two names is one key. */
START_TEST(a_key_counts_once_under_however_many_names)
{
	json_t *root = rig_root_json(&rig);
	json_t *key =
	    json_deep_copy(json_object_get(json_object_get(root, "keys"), DEMO_AUTHORITY));
	json_t *site = rig_site_json(&rig);
	struct signing_key *twins[3] = {demo_key(&rig.demo, DEMO_AUTHORITY), NULL,
					demo_key(&rig.demo, DEMO_AUDITOR)};
	char *pem = signing_key_private_pem(twins[0]), *text, *envelope = NULL;
	char path[] = "/tmp/evidence-twin-XXXXXX";
	struct root_document *parsed = NULL;
	struct site_document *d = NULL;
	struct error err = {0};
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(file_replace(path, pem, strlen(pem), 0600, NULL), 0);
	ck_assert_int_eq(signing_key_read(path, "twin", &twins[1], NULL), 0);
	unlink(path);
	json_object_set_new(json_object_get(root, "keys"), "twin", key);
	rig_set(root, "roles.authority",
		"{\"keys\": [\"authority-1\", \"twin\", \"tenant-a\"], \"threshold\": 2}");
	text = json_dumps(root, 0);
	ck_assert_msg(root_parse(text, strlen(text), &parsed, &err) == 0, "%s", err.text);
	free(text);
	text = json_dumps(site, 0);
	ck_assert_int_eq(dsse_sign(TYPE_SITE, text, strlen(text), twins, 3, &envelope, &err), 0);
	ck_assert_int_eq(site_open(envelope, strlen(envelope), parsed, &d, &err), -E_BAD_SIGNATURE);
	ck_assert_ptr_nonnull(strstr(err.text, "the same key again"));
	free(envelope);
	signing_key_free(twins[1]);
	twins[1] = demo_key(&rig.demo, DEMO_TENANT);
	ck_assert_int_eq(dsse_sign(TYPE_SITE, text, strlen(text), twins, 3, &envelope, &err), 0);
	ck_assert_msg(site_open(envelope, strlen(envelope), parsed, &d, &err) == 0, "%s", err.text);
	site_free(d);
	root_free(parsed);
	/* And a role that could only be met by counting it twice is refused in the root itself. */
	rig_set(root, "roles.authority",
		"{\"keys\": [\"authority-1\", \"twin\"], \"threshold\": 2}");
	free(text);
	text = json_dumps(root, 0);
	ck_assert_int_eq(root_parse(text, strlen(text), &parsed, &err), -E_BAD_DOCUMENT);
	free(text);
	free(envelope);
	free(pem);
	json_decref(site);
	json_decref(root);
}
END_TEST

START_TEST(signatures_are_added_by_those_who_sign_later)
{
	json_t *json = rig_site_json(&rig);
	char *first = rig_sign(&rig, TYPE_SITE, json, (const char *const[]){DEMO_AUTHORITY, NULL});
	struct signing_key *auditor = demo_key(&rig.demo, DEMO_AUDITOR);
	struct dsse_envelope *e = NULL;
	struct error err = {0};
	char *both = NULL, *again = NULL;

	ck_assert_int_eq(open_site(first, &err), -E_BAD_SIGNATURE);
	ck_assert_int_eq(dsse_parse(first, strlen(first), &e, NULL), 0);
	ck_assert_int_eq(dsse_cosign(e, &auditor, 1, &both, NULL), 0);
	ck_assert_msg(open_site(both, &err) == 0, "%s", err.text);
	dsse_free(e);
	ck_assert_int_eq(dsse_parse(both, strlen(both), &e, NULL), 0);
	ck_assert_uint_eq(dsse_signature_count(e), 2);
	ck_assert_int_eq(dsse_cosign(e, &auditor, 1, &again, NULL), 0);
	ck_assert_str_eq(again, both);
	dsse_free(e);
	free(first);
	free(both);
	free(again);
	json_decref(json);
}
END_TEST

/* -- strict documents ------------------------------------------------------------------------- */

struct parse_case {
	const char *path, *text; /* text NULL: removed */
	const char *names;	 /* what the error text must name; NULL: the document is good */
};

static void run_parse_case(const char *type, json_t *json, const struct parse_case *c)
{
	struct error err = {0};
	struct site_document *site = NULL;
	struct revocations_document *revocations = NULL;
	struct policy_document *policy = NULL;
	struct root_document *root = NULL;
	char *text;
	int rc;

	rig_set(json, c->path, c->text);
	text = json_dumps(json, 0);
	if (strcmp(type, "site") == 0)
		rc = site_parse(text, strlen(text), &site, &err);
	else if (strcmp(type, "revocations") == 0)
		rc = revocations_parse(text, strlen(text), &revocations, &err);
	else if (strcmp(type, "policy") == 0)
		rc = policy_parse(text, strlen(text), &policy, &err);
	else
		rc = root_parse(text, strlen(text), &root, &err);
	ck_assert_msg(rc == (c->names == NULL ? 0 : -E_BAD_DOCUMENT), "%s: %s = %s: %d %s", type,
		      c->path, c->text == NULL ? "(removed)" : c->text, rc, err.text);
	if (c->names != NULL)
		ck_assert_msg(strstr(err.text, c->names) != NULL, "%s: no %s in: %s", c->path,
			      c->names, err.text);
	site_free(site);
	revocations_free(revocations);
	policy_free(policy);
	root_free(root);
	free(text);
	json_decref(json);
}

static const struct parse_case site_cases[] = {
    {"unknown", "{\"a\": [1, null]}", NULL},
    {"critical", "[]", NULL},
    {"critical", NULL, NULL},
    {"critical", "[\"facility\", \"exposure\", \"technical_access\", \"critical\", \"type\"]",
     NULL},
    {"critical", "[\"facility\", \"quantum\"]", "critical[1] is \"quantum\""},
    {"critical", "\"facility\"", "critical"},
    {"critical", "[1]", "critical[0]"},
    {"type", "\"policy\"", "type"},
    {"type", NULL, "type"},
    {"cluster", NULL, "cluster"},
    {"cluster", "\"x\"", "cluster"},
    {"site", NULL, "site"},
    {"site", "\"Par\"", "site"},
    {"site", "\"../par\"", "site"},
    {"version", NULL, "version"},
    {"version", "0", "version"},
    {"version", "-1", "version"},
    {"version", "1.0", "version"},
    {"version", "\"1\"", "version"},
    {"version", "9007199254740992", NULL},
    {"version", "9007199254740993", "version"},
    {"issued_at", "null", "issued_at"},
    {"issued_at", "0", "issued_at"},
    {"not_before", "\"2026-11-23\"", "not_before"},
    {"not_before", "\"2026-11-23T10:00:00+01:00\"", "not_before"},
    {"not_before", "\"2026-11-23T10:00:00+00:00\"", NULL},
    {"not_before", "\"2026-02-30T10:00:00Z\"", "not_before"},
    {"not_after", "\"2026-11-22T10:00:00Z\"", "not_after"},
    {"not_after", "\"2026-11-22T10:00:01Z\"", NULL},
    {"facility", "[]", "facility"},
    {"facility.country", "\"fr\"", "facility.country"},
    {"facility.country", "\"UK\"", "facility.country"},
    {"facility.country", "\"EU\"", "facility.country"},
    {"facility.country", "\"GP\"", "facility.territory"},
    {"facility.territory", "\"FR-971\"", "facility.territory"},
    {"facility.territory", "\"FR-NC\"", "facility.territory"},
    {"facility.territory", "\"NC\"", "facility.territory"},
    {"facility.territory", "\"DE-BE\"", "facility.territory"},
    {"facility.territory", "\"FR-QQQ\"", "facility.territory"},
    {"facility.territory", "\"FR-\"", "facility.territory"},
    {"facility.territory", "\"EU\"", "facility.territory"},
    {"facility.territory", "\"FR-metropolitan\"", "facility.territory"},
    {"facility.territory", "\"FR-59\"", NULL},
    {"facility.latitude", "90", NULL},
    {"facility.latitude", "90.001", "facility.latitude"},
    {"facility.latitude", "\"48\"", "facility.latitude"},
    {"facility.longitude", "-181", "facility.longitude"},
    {"facility.campus", "\"\"", "facility.campus"},
    {"facility.building", "\"a\\u0007b\"", "facility.building"},
    {"operator.seat", "\"USA\"", "operator.seat"},
    {"operator.seat", "\"!EU\"", "operator.seat"},
    {"operator.seat", "\"any\"", "operator.seat"},
    {"operator.seat", "[\"FR\"]", "operator.seat"},
    {"ownership.as_of", "\"2026-13-01\"", "ownership.as_of"},
    {"ownership.holders", "[]", "ownership.holders"},
    {"ownership.holders", "{}", "ownership.holders"},
    {"ownership.holders.0", "7", "ownership.holders[0]"},
    {"ownership.holders.0.capital_ppm", "900001", "capital_ppm"},
    {"ownership.holders.0.capital_ppm", "900000", NULL},
    {"ownership.holders.0.votes_ppm", "900001", "votes_ppm"},
    {"ownership.holders.1.capital_ppm", "1000001", "ownership.holders[1].capital_ppm"},
    {"ownership.holders.1.capital_ppm", "-1", "ownership.holders[1].capital_ppm"},
    {"ownership.holders.1.capital_ppm", "1e5", "ownership.holders[1].capital_ppm"},
    {"ownership.holders.1.capital_ppm", "\"100000\"", "ownership.holders[1].capital_ppm"},
    {"ownership.holders.1.veto", "\"false\"", "ownership.holders[1].veto"},
    {"ownership.holders.1.veto", "0", "ownership.holders[1].veto"},
    {"ownership.holders.1.jurisdiction", "\"XX\"", "ownership.holders[1].jurisdiction"},
    {"suppliers.0.technical_access", "null", "suppliers[0].technical_access"},
    {"exposure", "[\"CLOUD Act\"]", "exposure[0]"},
    {"admin_locations", "\"FR\"", "admin_locations"},
    {"admin_locations", "[\"Paris\"]", "admin_locations[0]"},
    {"labels.0.layers", "\"iaas\"", "labels[0].layers"},
    {"labels.0.version", "3.2", "labels[0].version"},
    {"labels.0.status", "\"valid\"", "labels[0].status"},
    {"labels.0.until", "\"2025-01-01T00:00:00Z\"", "labels[0].until"},
    {"services", "[1]", "services[0]"},
    {"node_ca_sha256", "\"to be filled in\"", NULL},
};

START_TEST(sites_are_read_strictly)
{
	run_parse_case("site", rig_site_json(&rig), &site_cases[_i]);
}
END_TEST

static const struct parse_case revocations_cases[] = {
    {"sites", "{}", NULL},
    {"sites", "[]", "sites"},
    {"sites", "{\"par\": 0}", "sites.par"},
    {"sites", "{\"par\": \"3\"}", "sites.par"},
    {"sites", "{\"Par is\": 3}", "Par is"},
    {"sites", "{\"\": 3}", "sites"},
    {"withdrawals", NULL, NULL},
    {"withdrawals", "[{\"site\": \"par\"}]", "withdrawals[0].effective_from"},
    {"withdrawals", "[{\"effective_from\": \"2026-11-23T10:00:00Z\"}]", "withdrawals[0].site"},
    {"withdrawals", "[{\"site\": \"par\", \"effective_from\": \"soon\"}]",
     "withdrawals[0].effective_from"},
    {"not_after", "\"2026-11-23T09:00:00Z\"", "not_after"},
    {"not_after", "\"2026-11-23T09:00:01Z\"", NULL},
    {"critical", "[\"tombstones\"]", "critical[0]"},
};

START_TEST(snapshots_are_read_strictly)
{
	run_parse_case("revocations", rig_revocations_json(&rig), &revocations_cases[_i]);
}
END_TEST

static const struct parse_case policy_cases[] = {
    {"critical", "[\"min_version\"]", NULL},
    {"critical", "[\"colour\"]", "critical[0]"},
    {"name", NULL, "name"},
    {"name", "\"A policy\"", "name"},
    {"territory", "[\"FR-metropolitan\", \"EEA\", \"DE\", \"DE-BE\", \"any\"]", NULL},
    {"territory", "\"FR\"", "territory"},
    {"territory", "[\"France\"]", "territory[0]"},
    {"territory", "[\"!EU\"]", "territory[0]"},
    {"territory", "[\"FR-XX\"]", "territory[0]"},
    {"labels.0.min_version", "\"3.2a\"", "labels[0].min_version"},
    {"labels.0.min_version", "\"3.\"", "labels[0].min_version"},
    {"labels.0.min_version", "\".2\"", "labels[0].min_version"},
    {"labels.0.min_version", "\"3..2\"", "labels[0].min_version"},
    {"labels.0.min_version", "\"1234567890\"", "labels[0].min_version"},
    {"labels.0.min_version", "3.2", "labels[0].min_version"},
    {"labels.0.status", "\"good\"", "labels[0].status"},
    {"ownership.home", "\"!US\"", NULL},
    {"ownership.home", "\"!any\"", "ownership.home"},
    {"ownership.home", "\"Europe\"", "ownership.home"},
    {"ownership.max_individual_ppm", "240000.0", "ownership.max_individual_ppm"},
    {"ownership.max_individual_ppm", "-1", "ownership.max_individual_ppm"},
    {"ownership.max_collective_ppm", "1000001", "ownership.max_collective_ppm"},
    {"forbidden_jurisdictions.admin", "[\"!EU\", \"FR\"]", NULL},
    {"forbidden_jurisdictions.admin", "[\"!!EU\"]", "forbidden_jurisdictions.admin[0]"},
    {"forbidden_jurisdictions.admin", "\"!EU\"", "forbidden_jurisdictions.admin"},
    {"replicas", "0", "replicas"},
    {"replicas", "6", "replicas"},
    {"replicas", "5", "min_acks"},
    {"min_acks", "1", "min_acks"},
    {"min_acks", "3", NULL},
    {"min_acks", "4", "min_acks"},
    {"distinct", "\"rack\"", "distinct"},
    {"min_distance_km", "12.5", NULL},
    {"min_distance_km", "-1", "min_distance_km"},
    {"hosts", "\"some\"", "hosts"},
    {"erase", "\"shred\"", "erase"},
    {"erase", "\"discard\"", NULL},
    {"staleness_s", "0", "staleness_s"},
    {"staleness_s", "31622401", "staleness_s"},
    {"on_loss.action", "\"continue\"", "on_loss.action"},
    {"on_loss.timeout_s", "86401", "on_loss.timeout_s"},
    {"cluster", "\"x\"", "cluster"},
};

START_TEST(policies_are_read_strictly)
{
	run_parse_case("policy", rig_policy_json("secnumcloud-fr"), &policy_cases[_i]);
}
END_TEST

static const struct parse_case root_cases[] = {
    {"issued_at", NULL, NULL},
    {"not_after", NULL, "not_after"},
    {"not_after", "\"2026-11-22T10:00:00Z\"", "not_after"},
    {"keys", "{}", "keys"},
    {"keys.authority-1.alg", "\"rsa\"", "keys.authority-1.alg"},
    {"keys.authority-1.public", "\"AAAA\"", "keys.authority-1.public"},
    {"keys.authority-1.public",
     "\"-----BEGIN PUBLIC "
     "KEY-----\\nMCowBQYDK2VuAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\\n-----END "
     "PUBLIC KEY-----\\n\"",
     "keys.authority-1.public"}, /* X25519 */
    {"keys.authority-1.public", NULL, "keys.authority-1.public"},
    {"roles.root.threshold", "0", "roles.root.threshold"},
    {"roles.root.threshold", "3", "roles.root.threshold"},
    {"roles.root.threshold", "1", NULL},
    {"roles.auditor.keys", "[\"nobody\"]", "roles.auditor.keys[0]"},
    {"roles.auditor.keys", "[\"auditor-1\", \"auditor-1\"]", NULL},
    {"roles.auditor.keys", NULL, "roles.auditor.keys"},
    {"roles.tenant", NULL, NULL},
    {"roles.something_else", "{\"keys\": [\"auditor-1\"], \"threshold\": 1}", NULL},
};

START_TEST(roots_are_read_strictly)
{
	run_parse_case("root", rig_root_json(&rig), &root_cases[_i]);
}
END_TEST

START_TEST(what_is_not_one_json_object_is_refused)
{
	static const char *const texts[] = {
	    "",
	    "{",
	    "[]",
	    "null",
	    "{\"type\": \"site\"} {}",
	    "{\"type\": \"site\", \"type\": \"site\"}",
	    "{\"type\": \"site\", \"facility\": {\"country\": \"FR\", \"country\": \"US\"}}",
	    "{\"type\": \"si\\u0000te\"}",
	    "{\"type\": \"\xff\"}",
	};
	struct site_document *d = NULL;
	struct error err = {0};
	char *large = malloc(DOCUMENT_SIZE_MAX + 1);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		ck_assert_msg(site_parse(texts[i], strlen(texts[i]), &d, &err) == -E_BAD_DOCUMENT,
			      "%s", texts[i]);
	memset(large, ' ', DOCUMENT_SIZE_MAX + 1);
	ck_assert_int_eq(site_parse(large, DOCUMENT_SIZE_MAX + 1, &d, &err), -E_BAD_DOCUMENT);
	ck_assert_ptr_nonnull(strstr(err.text, "at most"));
	free(large);
}
END_TEST

/* In documents that are good but for it, on the first level and below. */
START_TEST(duplicate_members_are_refused)
{
	static const char *const twice[] = {"\"site\": ", "\"country\": "};
	json_t *json = rig_site_json(&rig);
	char *text = json_dumps(json, 0);
	struct site_document *d = NULL;
	struct error err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(twice); i++) {
		char *at = strstr(text, twice[i]), *doubled = NULL;

		ck_assert_ptr_nonnull(at);
		ck_assert_int_gt(
		    asprintf(&doubled, "%.*s%s\"FR\", %s", (int)(at - text), text, twice[i], at),
		    0);
		ck_assert_int_eq(site_parse(doubled, strlen(doubled), &d, &err), -E_BAD_DOCUMENT);
		ck_assert_msg(strstr(err.text, "uplicate") != NULL, "%s", err.text);
		free(doubled);
	}
	free(text);
	json_decref(json);
}
END_TEST

START_TEST(lists_are_bounded)
{
	json_t *json = rig_site_json(&rig);
	json_t *list = json_array();
	struct parse_case c = {"admin_locations", NULL, NULL};
	char *text;

	for (unsigned i = 0; i < LIST_MAX; i++)
		json_array_append_new(list, json_string("FR"));
	text = json_dumps(list, 0);
	c.text = text;
	run_parse_case("site", json_deep_copy(json), &c);
	free(text);
	json_array_append_new(list, json_string("FR"));
	text = json_dumps(list, 0);
	c.text = text;
	c.names = "admin_locations";
	run_parse_case("site", json_deep_copy(json), &c);
	free(text);
	json_decref(list);
	json_decref(json);
}
END_TEST

START_TEST(one_decision_has_one_outcome)
{
	json_t *json = rig_site_json(&rig);
	json_t *labels = json_object_get(json, "labels");
	struct parse_case c = {"labels.2.status", "\"withdrawn\"", "labels[2].status"};
	struct parse_case other = {"labels.2.decision", "\"another\"", NULL};

	json_array_append_new(labels, json_deep_copy(json_array_get(labels, 0)));
	run_parse_case("site", json_deep_copy(json), &c);
	rig_set(json, "labels.2.status", "\"withdrawn\"");
	run_parse_case("site", json, &other);
}
END_TEST

/* -- what others need to know ----------------------------------------------------------------- */

START_TEST(presets_are_documents)
{
	for (const char *const *name = policy_preset_names(); *name != NULL; name++) {
		const char *text = policy_preset(*name);
		struct policy_document *d = NULL;
		struct error err = {0};

		ck_assert_msg(policy_parse(text, strlen(text), &d, &err) == 0, "%s", err.text);
		ck_assert_str_eq(policy_name(d), *name);
		ck_assert_uint_eq(policy_replicas(d), 3);
		ck_assert_uint_eq(policy_min_acks(d), 2);
		ck_assert_uint_eq(policy_staleness_s(d), 86400);
		ck_assert_uint_eq(policy_freeze_timeout_s(d), 30);
		ck_assert(policy_host_must_be_eligible(d) == (strcmp(*name, "dev") != 0));
		ck_assert_str_eq(policy_distinct(d), strcmp(*name, "dev") == 0 ? "site" : "campus");
		ck_assert_str_eq(policy_erase(d),
				 strcmp(*name, "dev") == 0 ? "discard" : "overwrite");
		policy_free(d);
	}
	ck_assert_ptr_null(policy_preset("hope"));
}
END_TEST

START_TEST(demo_sites_are_real_documents)
{
	static const char *const names[] = {"par", "lyo", "rbx", "fra",
					    "iad", "run", "nou", "some-where.9"};
	char campus[80];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct site_document *d = NULL;
		struct error err = {0};
		double lat, lon;
		char *envelope = NULL;

		ck_assert_int_eq(
		    demo_site(&rig.demo, names[i], 1, RIG_NOW, RIG_NOW + RIG_DAY, &envelope, &err),
		    0);
		ck_assert_msg(site_open(envelope, strlen(envelope), rig.root, &d, &err) == 0, "%s",
			      err.text);
		snprintf(campus, sizeof campus, "%s-1", names[i]);
		ck_assert_str_eq(site_campus(d), campus);
		ck_assert(site_position(d, &lat, &lon));
		ck_assert(site_not_after(d) == RIG_NOW + RIG_DAY);
		site_free(d);
		free(envelope);
	}
}
END_TEST

START_TEST(a_snapshot_follows_from_the_last)
{
	const int64_t from_ms = RIG_NOW + 750 * (int64_t)NS_PER_MS;
	json_t *json = rig_revocations_json(&rig);
	char *text = json_dumps(json, 0), *next_text = NULL;
	struct revocations_document *old = NULL, *next = NULL;
	struct revocations_change change = {.issued_at = RIG_NOW + 1,
					    .not_after = RIG_NOW + RIG_DAY,
					    .site = "par",
					    .withdraw = true,
					    .effective_from = from_ms,
					    .reason = "for the test"};
	const char *reason = NULL;
	int64_t from = 0;

	ck_assert_int_eq(revocations_parse(text, strlen(text), &old, NULL), 0);
	ck_assert_int_eq(revocations_amend(old, &change, &next_text, NULL), 0);
	ck_assert_int_eq(revocations_parse(next_text, strlen(next_text), &next, NULL), 0);
	ck_assert_uint_eq(revocations_version(next), 42);
	ck_assert(revocations_issued_at(next) == RIG_NOW);
	ck_assert(revocations_not_after(next) == RIG_NOW + RIG_DAY);
	ck_assert_uint_eq(revocations_site_version(next, "par"), 3);
	/* Not from the beginning of that second on: it would be told late. */
	ck_assert(!revocations_withdrawn(next, "par", from_ms - 1, NULL, NULL));
	ck_assert(revocations_next_withdrawal(next, "par", RIG_NOW) == from_ms);
	ck_assert(revocations_withdrawn(next, "par", from_ms, &from, &reason));
	ck_assert(from == from_ms);
	ck_assert_str_eq(reason, "for the test");
	ck_assert(!revocations_withdrawn(next, "lyo", RIG_NOW, NULL, NULL));
	free(next_text);
	revocations_free(old);
	/* A new certificate in force lifts the withdrawal of the old one. */
	old = next;
	change = (struct revocations_change){
	    .issued_at = RIG_NOW, .not_after = RIG_NOW + RIG_DAY, .site = "par", .site_version = 4};
	ck_assert_int_eq(revocations_amend(old, &change, &next_text, NULL), 0);
	ck_assert_int_eq(revocations_parse(next_text, strlen(next_text), &next, NULL), 0);
	ck_assert_uint_eq(revocations_site_version(next, "par"), 4);
	ck_assert(!revocations_withdrawn(next, "par", INT64_MAX, NULL, NULL));
	revocations_free(old);
	revocations_free(next);
	free(next_text);
	free(text);
	json_decref(json);
}
END_TEST

static char *example(const char *name, size_t *ret_size)
{
	char path[1024], *data = NULL;
	struct error err = {0};

	snprintf(path, sizeof path, "%s/%s", EVIDENCE_EXAMPLES, name);
	ck_assert_msg(file_read_whole(path, DOCUMENT_SIZE_MAX, &data, ret_size, &err) == 0, "%s",
		      err.text);
	return data;
}

START_TEST(the_examples_are_good)
{
	static const char *const names[] = {"root.json", "site-nantes-est.json", "revocations.json",
					    "policy-mutuelle-ouest.json"};
	struct root_document *root = NULL;
	struct site_document *site = NULL;
	struct revocations_document *revocations = NULL;
	struct policy_document *policy = NULL;
	struct error err = {0};
	struct verdict v;
	char *text[4];
	size_t size[4];

	for (size_t i = 0; i < 4; i++)
		text[i] = example(names[i], &size[i]);
	ck_assert_msg(root_parse(text[0], size[0], &root, &err) == 0 &&
			  site_parse(text[1], size[1], &site, &err) == 0 &&
			  revocations_parse(text[2], size[2], &revocations, &err) == 0 &&
			  policy_parse(text[3], size[3], &policy, &err) == 0,
		      "%s", err.text);
	evaluate(site, revocations, policy, RIG_NOW, &v);
	ck_assert(v.eligible);
	ck_assert(v.until == RIG_NOW + 8 * RIG_HOUR); /* issued at six, stale after twelve hours */
	root_free(root);
	site_free(site);
	revocations_free(revocations);
	policy_free(policy);
	for (size_t i = 0; i < 4; i++)
		free(text[i]);
}
END_TEST

/* -- key files -------------------------------------------------------------------------------- */

START_TEST(keys_go_to_files_and_back)
{
	char dir[] = "/tmp/evidence-keys-XXXXXX";
	char path[64];
	struct signing_key *key = NULL, *back = NULL;
	struct error err = {0};
	struct stat st;
	char *pem, *other;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/key", dir);
	ck_assert_int_eq(signing_key_generate("a", &key, &err), 0);
	pem = signing_key_private_pem(key);
	ck_assert_int_eq(file_create(path, pem, strlen(pem), 0600, &err), 0);
	ck_assert_int_eq(file_create(path, pem, strlen(pem), 0600, &err), -EEXIST);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(signing_key_read(path, "b", &back, &err), 0);
	ck_assert_str_eq(signing_key_id(back), "b");
	other = signing_key_private_pem(back);
	ck_assert_str_eq(pem, other);
	signing_key_free(back);
	ck_assert_int_eq(signing_key_read("/tmp/evidence-nowhere/key", "b", &back, &err), -ENOENT);
	ck_assert_int_eq(signing_key_read(path, "", &back, &err), -EINVAL);
	ck_assert_int_eq(file_replace(path, "nonsense", 8, 0600, &err), 0);
	ck_assert_int_eq(signing_key_read(path, "b", &back, &err), -E_BAD_DOCUMENT);
	/* A public key is no private one. */
	free(other);
	other = signing_key_public_pem(key);
	ck_assert_int_eq(file_replace(path, other, strlen(other), 0600, &err), 0);
	ck_assert_int_eq(signing_key_read(path, "b", &back, &err), -E_BAD_DOCUMENT);
	unlink(path);
	/* What is no file would be lost. */
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(file_replace(path, "nonsense", 8, 0600, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert(S_ISFIFO(st.st_mode));
	unlink(path);
	rmdir(dir);
	free(pem);
	free(other);
	signing_key_free(key);
}
END_TEST

static void add_envelopes(Suite *s)
{
	TCase *tc = tcase_create("envelopes");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, base64_goes_both_ways);
	tcase_add_test(tc, base64_is_strict_and_knows_both_alphabets);
	tcase_add_test(tc, envelopes_of_others_verify);
	tcase_add_test(tc, our_envelopes_are_theirs);
	tcase_add_test(tc, any_change_to_an_envelope_is_refused);
	tcase_add_test(tc, the_signatures_are_bounded);
	tcase_add_test(tc, a_site_needs_authority_and_auditor);
	tcase_add_test(tc, a_document_of_one_type_is_not_of_another);
	tcase_add_test(tc, a_document_of_another_cluster_is_refused);
	tcase_add_test(tc, a_policy_is_the_tenants_or_else_the_roots);
	tcase_add_test(tc, a_key_counts_once_under_however_many_names);
	tcase_add_test(tc, signatures_are_added_by_those_who_sign_later);
	tcase_add_test(tc, keys_go_to_files_and_back);
	suite_add_tcase(s, tc);
}

static void add_documents(Suite *s)
{
	TCase *tc = tcase_create("documents");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, sites_are_read_strictly, 0, (int)ARRAY_SIZE(site_cases));
	tcase_add_loop_test(tc, snapshots_are_read_strictly, 0, (int)ARRAY_SIZE(revocations_cases));
	tcase_add_loop_test(tc, policies_are_read_strictly, 0, (int)ARRAY_SIZE(policy_cases));
	tcase_add_loop_test(tc, roots_are_read_strictly, 0, (int)ARRAY_SIZE(root_cases));
	tcase_add_test(tc, what_is_not_one_json_object_is_refused);
	tcase_add_test(tc, duplicate_members_are_refused);
	tcase_add_test(tc, lists_are_bounded);
	tcase_add_test(tc, one_decision_has_one_outcome);
	tcase_add_test(tc, presets_are_documents);
	tcase_add_test(tc, demo_sites_are_real_documents);
	tcase_add_test(tc, a_snapshot_follows_from_the_last);
	tcase_add_test(tc, the_examples_are_good);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("evidence");
	SRunner *sr = srunner_create(s);
	int failed;

	add_envelopes(s);
	add_documents(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
