/* The scenarios of engine/placement/SCENARIOS.md that one verdict decides, in its order and under
 * its names: what the site's evidence says at a moment, and which rule refuses. The consequences on
 * a running cluster: tests/integration/scenarios. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/evaluate.h"
#include "test_evidence_rig.h"

#define CHANGES_MAX 6u

struct scenario {
	const char *name;
	const char *policy; /* a preset */
	const char *at;	    /* NULL: 2026-11-23T10:00:00Z, when the evidence of the rig is fresh */
	/* "site PATH", "snapshot PATH", "policy PATH", and the JSON there. */
	struct {
		const char *path, *text;
	} changes[CHANGES_MAX];
	const char *rule, *field, *source; /* of the first failure; rule NULL: eligible */
	const char *until_field; /* of an eligible one: whose end comes first; may be NULL */
};

#define FR	   "secnumcloud-fr"
#define SITE	   "site par version 3"
#define SNAPSHOT   "revocations version 41"
#define HOME	   "site ownership.holders.0.capital_ppm", "400000"
#define HOME_VOTES "site ownership.holders.0.votes_ppm", "400000"
#define HELD(name, capital, votes, veto)                                                           \
	"{\"name\": \"" name "\", \"jurisdiction\": \"US\", \"capital_ppm\": " capital             \
	", \"votes_ppm\": " votes ", \"veto\": " veto ", \"board_majority\": false}"
#define OTHER	      "site ownership.holders."
#define SHARES	      "ownership.holders[1].capital_ppm"
#define MIDNIGHT      "\"2026-11-24T00:00:00Z\""
#define LONG_SNAPSHOT "snapshot not_after", "\"2026-12-01T00:00:00Z\""
#define LONG_SHARE    HELD("One", "240000", "0", "false")

static const struct scenario scenarios[] = {
    {"label ends at midnight: a moment before",
     FR,
     "2026-11-23T23:59:59.999999999Z",
     {{"site labels.0.until", MIDNIGHT}, {LONG_SNAPSHOT}},
     NULL,
     NULL,
     NULL,
     "labels[0].until"},
    {"label ends at midnight: then",
     FR,
     "2026-11-24T00:00:00Z",
     {{"site labels.0.until", MIDNIGHT}, {LONG_SNAPSHOT}},
     "labels",
     "labels[0].until",
     SITE,
     NULL},
    {"non-EU holder: 24.00 %",
     FR,
     NULL,
     {{HOME}, {HOME_VOTES}, {OTHER "1", LONG_SHARE}},
     NULL,
     NULL,
     NULL,
     NULL},
    {"non-EU holder: 24.01 %",
     FR,
     NULL,
     {{HOME}, {HOME_VOTES}, {OTHER "1", HELD("One", "240100", "0", "false")}},
     "ownership",
     SHARES,
     SITE,
     NULL},
    {"three holders of 14 % each",
     FR,
     NULL,
     {{HOME},
      {HOME_VOTES},
      {OTHER "1", HELD("One", "140000", "0", "false")},
      {OTHER "2", HELD("Two", "140000", "0", "false")},
      {OTHER "3", HELD("Three", "140000", "0", "false")}},
     "ownership",
     "ownership.holders[].capital_ppm",
     SITE,
     NULL},
    {"capital 20 %, votes 30 %",
     FR,
     NULL,
     {{HOME}, {HOME_VOTES}, {OTHER "1", HELD("One", "200000", "300000", "false")}},
     "ownership",
     "ownership.holders[1].votes_ppm",
     SITE,
     NULL},
    {"5 % with a veto",
     FR,
     NULL,
     {{HOME}, {HOME_VOTES}, {OTHER "1", HELD("One", "50000", "50000", "true")}},
     "ownership",
     "ownership.holders[1].veto",
     SITE,
     NULL},
    {"label for SaaS only",
     FR,
     NULL,
     {{"site labels.0.layers", "[\"saas\"]"}},
     "labels",
     "labels[0].layers",
     SITE,
     NULL},
    {"qualified firm, another service",
     FR,
     NULL,
     {{"site labels.0.service", "\"Mail\""}},
     "labels",
     "labels[0].service",
     SITE,
     NULL},
    {"SecNumCloud 3.1 where immunity is required",
     FR,
     NULL,
     {{"site labels.0.version", "\"3.1\""}},
     "labels",
     "labels[0].version",
     SITE,
     NULL},
    {"status in_progress",
     FR,
     NULL,
     {{"site labels.0.status", "\"in_progress\""}},
     "labels",
     "labels[0].status",
     SITE,
     NULL},
    {"re-signed with a shorter date: while it lasts",
     FR,
     NULL,
     {{"site version", "4"},
      {"snapshot sites.par", "4"},
      {"site not_after", "\"2026-11-23T12:00:00Z\""}},
     NULL,
     NULL,
     NULL,
     "not_after"},
    {"re-signed with a shorter date: after it",
     FR,
     "2026-11-23T12:00:00Z",
     {{"site version", "4"},
      {"snapshot sites.par", "4"},
      {"site not_after", "\"2026-11-23T12:00:00Z\""}},
     "certificate",
     "not_after",
     "site par version 4",
     NULL},
    {"replay of an older, longer certificate",
     FR,
     NULL,
     {{"site version", "2"}, {"site not_after", "\"2036-01-01T00:00:00Z\""}},
     "revocations",
     "version",
     "site par version 2",
     NULL},
    {"stale snapshot: it has run out",
     FR,
     "2026-11-24T08:00:00Z",
     {{"snapshot not_after", "\"2026-11-24T08:00:00Z\""}},
     "revocations",
     "revocations.not_after",
     SNAPSHOT,
     NULL},
    {"stale snapshot: older than the policy's staleness_s",
     FR,
     "2026-11-24T09:00:00Z",
     {{LONG_SNAPSHOT}},
     "revocations",
     "revocations.issued_at",
     SNAPSHOT,
     NULL},
    {"stale snapshot: there is none for the site",
     FR,
     NULL,
     {{"snapshot sites", "{\"lyo\": 1}"}},
     "revocations",
     "revocations.sites.par",
     SNAPSHOT,
     NULL},
    {"La Reunion under FR",
     FR,
     NULL,
     {{"site facility.country", "\"RE\""}, {"site facility.territory", "\"FR-974\""}},
     NULL,
     NULL,
     NULL,
     NULL},
    {"La Reunion under FR-metropolitan",
     FR,
     NULL,
     {{"site facility.country", "\"RE\""},
      {"site facility.territory", "\"FR-974\""},
      {"policy territory", "[\"FR-metropolitan\"]"}},
     "territory",
     "facility.territory",
     SITE,
     NULL},
    {"suspended",
     FR,
     NULL,
     {{"site labels.0.status", "\"suspended\""}},
     "labels",
     "labels[0].status",
     SITE,
     NULL},
    {"suspended, then restored",
     FR,
     NULL,
     {{"site version", "4"}, {"snapshot sites.par", "4"}},
     NULL,
     NULL,
     NULL,
     "revocations.not_after"},
    {"policy tightened over existing data",
     FR,
     NULL,
     {{"policy territory", "[\"FR-ARA\"]"}, {"policy version", "2"}},
     "territory",
     "facility.territory",
     SITE,
     NULL},
    {"every site loses its label",
     FR,
     NULL,
     {{"snapshot withdrawals",
       "[{\"site\": \"par\", \"effective_from\": \"2026-11-23T09:00:00Z\"}, "
       "{\"site\": \"lyo\", \"effective_from\": \"2026-11-23T09:00:00Z\"}]"}},
     "revocations",
     "revocations.withdrawals.par",
     SNAPSHOT,
     NULL},
    {"loss notified a month late",
     FR,
     NULL,
     {{"snapshot withdrawals",
       "[{\"site\": \"par\", \"effective_from\": \"2026-10-23T10:00:00Z\"}]"}},
     "revocations",
     "revocations.withdrawals.par",
     SNAPSHOT,
     NULL},
    {"loss notified before it takes effect",
     FR,
     NULL,
     {{"snapshot withdrawals",
       "[{\"site\": \"par\", \"effective_from\": \"2026-11-23T10:30:00Z\"}]"}},
     NULL,
     NULL,
     NULL,
     "revocations.withdrawals.par"},
};

static struct rig rig;

static void setup(void)
{
	rig_init(&rig);
}

static void teardown(void)
{
	rig_deinit(&rig);
}

static void judge(const struct scenario *s, int64_t now, struct verdict *v)
{
	json_t *json[3] = {rig_site_json(&rig), rig_revocations_json(&rig),
			   rig_policy_json(s->policy)};
	struct revocations_document *snapshot = NULL;
	struct policy_document *policy = NULL;
	struct site_document *site = NULL;
	struct error err = {0};
	char *text[3];

	for (size_t i = 0; i < CHANGES_MAX && s->changes[i].path != NULL; i++) {
		const char *path = s->changes[i].path;

		rig_set(json[path[0] == 'p' ? 2 : path[1] == 'n'], strchr(path, ' ') + 1,
			s->changes[i].text);
	}
	for (size_t i = 0; i < 3; i++) {
		text[i] = json_dumps(json[i], 0);
		json_decref(json[i]);
	}
	ck_assert_msg(site_parse(text[0], strlen(text[0]), &site, &err) == 0 &&
			  revocations_parse(text[1], strlen(text[1]), &snapshot, &err) == 0 &&
			  policy_parse(text[2], strlen(text[2]), &policy, &err) == 0,
		      "%s: %s", s->name, err.text);
	evaluate(site, snapshot, policy, now, v);
	site_free(site);
	revocations_free(snapshot);
	policy_free(policy);
	for (size_t i = 0; i < 3; i++)
		free(text[i]);
}

START_TEST(the_verdict_is_the_expected_one)
{
	const struct scenario *s = &scenarios[_i];
	int64_t now = RIG_NOW;
	struct verdict v;

	if (s->at != NULL)
		ck_assert_int_eq(text_parse_time(s->at, &now), 0);
	judge(s, now, &v);
	ck_assert_msg(v.eligible == (s->rule == NULL), "%s: %s %s", s->name, v.failed[0].rule,
		      v.failed[0].field);
	if (s->rule == NULL) {
		ck_assert_msg(s->until_field == NULL || strcmp(v.until_field, s->until_field) == 0,
			      "%s: until %s", s->name, v.until_field);
		return;
	}
	ck_assert_msg(v.failed_count == 1 && strcmp(v.failed[0].rule, s->rule) == 0 &&
			  strcmp(v.failed[0].field, s->field) == 0 &&
			  strcmp(v.failed[0].source, s->source) == 0,
		      "%s: %u failed, of them %s %s (%s)", s->name, v.failed_count,
		      v.failed[0].rule, v.failed[0].field, v.failed[0].source);
}
END_TEST

/* No verdict at all: such a document is none. */
START_TEST(an_unknown_critical_field)
{
	struct site_document *site = NULL;
	json_t *json = rig_site_json(&rig);
	struct error err = {0};
	char *text;

	rig_set(json, "critical", "[\"flood_plain\"]");
	rig_set(json, "flood_plain", "true");
	text = json_dumps(json, 0);
	ck_assert_int_eq(site_parse(text, strlen(text), &site, &err), -E_BAD_DOCUMENT);
	ck_assert_ptr_nonnull(strstr(err.text, "flood_plain"));
	free(text);
	/* The same without calling it critical is a member that is passed over. */
	rig_set(json, "critical", "[]");
	text = json_dumps(json, 0);
	ck_assert_int_eq(site_parse(text, strlen(text), &site, &err), 0);
	site_free(site);
	free(text);
	json_decref(json);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("scenarios");
	Suite *s = suite_create("scenarios");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, the_verdict_is_the_expected_one, 0, (int)ARRAY_SIZE(scenarios));
	tcase_add_test(tc, an_unknown_critical_field);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
