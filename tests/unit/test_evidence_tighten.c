/* Unit tests of what counts as tightening a policy, rule by rule: a case changes a few members of a
 * preset, and says which field was loosened, or that none was. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/evidence/tighten.h"
#include "test_evidence_rig.h"

#define CHANGES_MAX 3u

struct tighten_case {
	const char *name;
	const char *preset;
	struct {
		const char *path, *text; /* NULL: the member is removed */
	} was[CHANGES_MAX], is[CHANGES_MAX];
	const char *loosened; /* NULL: nothing is */
};

#define FR "secnumcloud-fr"
#define HDS                                                                                        \
	"{\"scheme\": \"HDS\", \"min_version\": \"2.0\", \"layer\": \"iaas\", \"status\": "        \
	"\"qualified\"}"

static const struct tighten_case cases[] = {
    {"nothing", FR, {{NULL}}, {{NULL}}, NULL},

    {"the mainland alone", FR, {{NULL}}, {{"territory", "[\"FR-metropolitan\"]"}}, NULL},
    {"a region of it", FR, {{NULL}}, {{"territory", "[\"FR-IDF\", \"FR-974\"]"}}, NULL},
    {"Germany too", FR, {{NULL}}, {{"territory", "[\"FR\", \"DE\"]"}}, "territory"},
    {"the EU for France", FR, {{NULL}}, {{"territory", "[\"EU\"]"}}, "territory"},
    {"France for the EU: New Caledonia is not in it",
     FR,
     {{"territory", "[\"EU\"]"}},
     {{"territory", "[\"FR\"]"}},
     "territory"},
    {"the mainland for the EU",
     FR,
     {{"territory", "[\"EU\"]"}},
     {{"territory", "[\"FR-metropolitan\", \"FR-971\", \"DE-BE\"]"}},
     NULL},
    {"a department for its region",
     FR,
     {{"territory", "[\"FR-ARA\"]"}},
     {{"territory", "[\"FR-69\"]"}},
     NULL},
    {"a region for its department",
     FR,
     {{"territory", "[\"FR-69\"]"}},
     {{"territory", "[\"FR-ARA\"]"}},
     "territory"},
    {"no territory at all", FR, {{NULL}}, {{"territory", "[]"}}, NULL},
    {"the rule of territory left out", FR, {{NULL}}, {{"territory", NULL}}, NULL},
    {"the rule of territory stated again", FR, {{"territory", NULL}}, {{NULL}}, "territory"},

    {"a newer version of the label", FR, {{NULL}}, {{"labels.0.min_version", "\"3.10\""}}, NULL},
    {"an older one", FR, {{NULL}}, {{"labels.0.min_version", "\"3.1\""}}, "labels"},
    {"another label too", FR, {{NULL}}, {{"labels.1", HDS}}, NULL},
    {"another label instead", FR, {{NULL}}, {{"labels.0", HDS}}, "labels"},
    {"no label", FR, {{NULL}}, {{"labels", "[]"}}, "labels"},
    {"another layer", FR, {{NULL}}, {{"labels.0.layer", "\"saas\""}}, "labels"},
    {"another status", FR, {{NULL}}, {{"labels.0.status", "\"in_progress\""}}, "labels"},
    {"a predicate without a version", FR, {{NULL}}, {{"labels.0.min_version", NULL}}, NULL},
    {"and with one again", FR, {{"labels.0.min_version", NULL}}, {{NULL}}, "labels"},

    {"24 % to 10 %", FR, {{NULL}}, {{"ownership.max_individual_ppm", "100000"}}, NULL},
    {"24 % to 24.0001 %",
     FR,
     {{NULL}},
     {{"ownership.max_individual_ppm", "240001"}},
     "ownership.max_individual_ppm"},
    {"39 % to 40 %",
     FR,
     {{NULL}},
     {{"ownership.max_collective_ppm", "400000"}},
     "ownership.max_collective_ppm"},
    {"vetoes tolerated", FR, {{NULL}}, {{"ownership.veto", "true"}}, "ownership.veto"},
    {"vetoes forbidden", "dev", {{NULL}}, {{"ownership.veto", "false"}}, NULL},
    {"the board", FR, {{NULL}}, {{"ownership.board_majority", "true"}}, "ownership.board_majority"},
    {"home is France", FR, {{NULL}}, {{"ownership.home", "\"FR\""}}, NULL},
    {"home is the EEA", FR, {{NULL}}, {{"ownership.home", "\"EEA\""}}, "ownership.home"},

    {"a French seat", FR, {{NULL}}, {{"operator.seat", "\"FR\""}}, NULL},
    {"any seat", FR, {{NULL}}, {{"operator.seat", "\"any\""}}, "operator.seat"},
    {"any administration",
     FR,
     {{NULL}},
     {{"operator.central_administration", "\"EEA\""}},
     "operator.central_administration"},

    {"administration in France alone",
     FR,
     {{NULL}},
     {{"forbidden_jurisdictions.admin", "[\"!FR\"]"}},
     NULL},
    {"administration in the EEA",
     FR,
     {{NULL}},
     {{"forbidden_jurisdictions.admin", "[\"!EEA\"]"}},
     "forbidden_jurisdictions.admin"},
    {"suppliers forbidden", FR, {{NULL}}, {{"forbidden_jurisdictions.supplier", "[\"US\"]"}}, NULL},
    {"and allowed again",
     FR,
     {{"forbidden_jurisdictions.supplier", "[\"US\", \"CN\"]"}},
     {{"forbidden_jurisdictions.supplier", "[\"US\"]"}},
     "forbidden_jurisdictions.supplier"},
    {"the same in other words",
     FR,
     {{"forbidden_jurisdictions.supplier", "[\"US\", \"CN\"]"}},
     {{"forbidden_jurisdictions.supplier", "[\"!EEA\"]"}},
     NULL},

    {"a law tolerated", FR, {{NULL}}, {{"exposure", "[\"X\"]"}}, "exposure"},
    {"one law of two", FR, {{"exposure", "[\"X\", \"Y\"]"}}, {{"exposure", "[\"Y\"]"}}, NULL},
    {"one law of any", "dev", {{NULL}}, {{"exposure", "[\"Y\"]"}}, NULL},
    {"any law", FR, {{"exposure", "[\"X\"]"}}, {{"exposure", "[\"any\"]"}}, "exposure"},

    {"more copies", FR, {{NULL}}, {{"replicas", "5"}, {"min_acks", "3"}}, NULL},
    {"fewer copies", FR, {{"replicas", "5"}, {"min_acks", "3"}}, {{NULL}}, "replicas"},
    {"more acknowledge", FR, {{NULL}}, {{"min_acks", "3"}}, NULL},
    {"fewer acknowledge", FR, {{"min_acks", "3"}}, {{NULL}}, "min_acks"},
    {"distinct sites for campuses", FR, {{NULL}}, {{"distinct", "\"site\""}}, "distinct"},
    {"campuses for sites", "dev", {{NULL}}, {{"distinct", "\"campus\""}}, NULL},
    {"farther apart", FR, {{NULL}}, {{"min_distance_km", "25.5"}}, NULL},
    {"nearer", FR, {{"min_distance_km", "25.5"}}, {{"min_distance_km", "25"}}, "min_distance_km"},
    {"any host", FR, {{NULL}}, {{"hosts", "\"any\""}}, "hosts"},
    {"eligible hosts", "dev", {{NULL}}, {{"hosts", "\"eligible\""}}, NULL},
    {"fresher snapshots", FR, {{NULL}}, {{"staleness_s", "3600"}}, NULL},
    {"older snapshots", FR, {{NULL}}, {{"staleness_s", "86401"}}, "staleness_s"},
    {"discarding for overwriting", FR, {{NULL}}, {{"erase", "\"discard\""}}, "erase"},
    {"overwriting for discarding", "dev", {{NULL}}, {{"erase", "\"overwrite\""}}, NULL},
    {"nothing said is overwriting", FR, {{NULL}}, {{"erase", NULL}}, NULL},
    {"which may be said", FR, {{"erase", NULL}}, {{"erase", "\"overwrite\""}}, NULL},
    {"and not be loosened", FR, {{"erase", NULL}}, {{"erase", "\"discard\""}}, "erase"},
    {"more patience is no matter of strictness", FR, {{NULL}}, {{"on_loss.timeout_s", "60"}}, NULL},
    {"what happens on loss left out", FR, {{NULL}}, {{"on_loss", NULL}}, NULL},
    {"and stated again", FR, {{"on_loss", NULL}}, {{NULL}}, "on_loss.action"},
    {"for how long, stated again",
     FR,
     {{"on_loss.timeout_s", NULL}},
     {{NULL}},
     "on_loss.timeout_s"},
};

static struct policy_document *policy_of(const struct tighten_case *c, bool is)
{
	json_t *json = rig_policy_json(c->preset);
	struct policy_document *d = NULL;
	struct error err = {0};
	char *text;

	for (size_t i = 0; i < CHANGES_MAX; i++) {
		if (c->was[i].path != NULL)
			rig_set(json, c->was[i].path, c->was[i].text);
	}
	for (size_t i = 0; is && i < CHANGES_MAX; i++)
		if (c->is[i].path != NULL)
			rig_set(json, c->is[i].path, c->is[i].text);
	/* A case of which only the former differs from the preset goes back to it. */
	if (is && c->is[0].path == NULL) {
		json_decref(json);
		json = rig_policy_json(c->preset);
	}
	text = json_dumps(json, 0);
	json_decref(json);
	ck_assert_msg(policy_parse(text, strlen(text), &d, &err) == 0, "%s: %s", c->name, err.text);
	free(text);
	return d;
}

START_TEST(rules_are_compared)
{
	const struct tighten_case *c = &cases[_i];
	struct policy_document *was = policy_of(c, false), *is = policy_of(c, true);
	struct policy_change change = {"", "", ""};
	bool loosens = policy_loosens(was, is, &change);

	ck_assert_msg(loosens == (c->loosened != NULL), "%s: %s", c->name, change.field);
	if (loosens)
		ck_assert_msg(strcmp(change.field, c->loosened) == 0, "%s: %s", c->name,
			      change.field);
	ck_assert_msg(!loosens || (change.was[0] != '\0' && change.is[0] != '\0'), "%s", c->name);
	policy_free(was);
	policy_free(is);
}
END_TEST

/* Of two presets none is stricter than the other in all; `dev` is looser than each. */
START_TEST(presets_are_compared)
{
	for (const char *const *name = policy_preset_names(); *name != NULL; name++) {
		const char *text = policy_preset(*name), *dev = policy_preset("dev");
		struct policy_document *p = NULL, *d = NULL;
		struct policy_change change;

		ck_assert_int_eq(policy_parse(text, strlen(text), &p, NULL), 0);
		ck_assert_int_eq(policy_parse(dev, strlen(dev), &d, NULL), 0);
		ck_assert_msg(!policy_loosens(d, p, &change), "%s: %s", *name, change.field);
		ck_assert(policy_loosens(p, d, &change) == (strcmp(*name, "dev") != 0));
		policy_free(p);
		policy_free(d);
	}
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("tighten");
	Suite *s = suite_create("evidence tighten");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, rules_are_compared, 0, (int)ARRAY_SIZE(cases));
	tcase_add_test(tc, presets_are_compared);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
