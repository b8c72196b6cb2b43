/* Unit tests of the rules: each at its bound, from both sides. A case changes a few members of a
 * certificate, a snapshot or a policy that are eligible as they are, and names every rule that must
 * fail. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/evidence/evaluate.h"
#include "test_evidence_rig.h"

#define CHANGES_MAX 8u
#define FAILS_MAX   6u

struct rule_case {
	const char *name;
	/* "site PATH", "snapshot PATH" or "policy PATH", and the JSON that it gets; NULL: removed.
	 */
	struct {
		const char *path, *text;
	} changes[CHANGES_MAX];
	const char *fails[FAILS_MAX]; /* "rule field", in this order; none: eligible */
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

static void apply(const struct rule_case *c, json_t *site, json_t *snapshot, json_t *policy)
{
	for (size_t i = 0; i < CHANGES_MAX && c->changes[i].path != NULL; i++) {
		const char *path = strchr(c->changes[i].path, ' ') + 1;
		json_t *json = c->changes[i].path[1] == 'i'   ? site
			       : c->changes[i].path[1] == 'n' ? snapshot
							      : policy;

		rig_set(json, path, c->changes[i].text);
	}
}

static void judge(const struct rule_case *c, const char *preset, int64_t now, struct verdict *v)
{
	json_t *json[3] = {rig_site_json(&rig), rig_revocations_json(&rig),
			   rig_policy_json(preset)};
	struct site_document *site = NULL;
	struct revocations_document *snapshot = NULL;
	struct policy_document *policy = NULL;
	struct error err = {0};
	char *text[3];

	apply(c, json[0], json[1], json[2]);
	for (size_t i = 0; i < 3; i++) {
		text[i] = json_dumps(json[i], 0);
		json_decref(json[i]);
	}
	ck_assert_msg(site_parse(text[0], strlen(text[0]), &site, &err) == 0 &&
			  revocations_parse(text[1], strlen(text[1]), &snapshot, &err) == 0 &&
			  policy_parse(text[2], strlen(text[2]), &policy, &err) == 0,
		      "%s: %s", c->name, err.text);
	evaluate(site, snapshot, policy, now, v);
	site_free(site);
	revocations_free(snapshot);
	policy_free(policy);
	for (size_t i = 0; i < 3; i++)
		free(text[i]);
}

static void run_case(const struct rule_case *c, const char *preset)
{
	struct verdict v;
	uint32_t expected = 0;
	char got[256];

	judge(c, preset, RIG_NOW, &v);
	while (expected < FAILS_MAX && c->fails[expected] != NULL)
		expected++;
	for (uint32_t i = 0; i < MAX(v.failed_count, expected); i++) {
		snprintf(got, sizeof got, "%s %s",
			 i < v.failed_count ? v.failed[i].rule : "nothing",
			 i < v.failed_count ? v.failed[i].field : "more");
		ck_assert_msg(i < expected && i < v.failed_count && strcmp(got, c->fails[i]) == 0,
			      "%s: failed: %s, expected %s", c->name, got,
			      i < expected ? c->fails[i] : "nothing");
	}
	ck_assert_msg(v.eligible == (expected == 0), "%s", c->name);
	ck_assert_msg(v.eligible ? v.until > RIG_NOW : v.until == 0, "%s: until", c->name);
}

#define US(capital, votes, veto, board)                                                            \
	"{\"name\": \"O\", \"jurisdiction\": \"US\", \"capital_ppm\": " capital                    \
	", \"votes_ppm\": " votes ", \"veto\": " veto ", \"board_majority\": " board "}"
#define NAMED(name, capital)                                                                       \
	"{\"name\": \"" name "\", \"jurisdiction\": \"US\", \"capital_ppm\": " capital             \
	", \"votes_ppm\": 0, \"veto\": false, \"board_majority\": false}"
#define HOLDER "site ownership.holders.1"
/* The home holder has 500,000, so that the sum stays within the whole. */
#define HOME                                                                                       \
	{"site ownership.holders.0.capital_ppm", "500000"},                                        \
	{                                                                                          \
		"site ownership.holders.0.votes_ppm", "500000"                                     \
	}

static const struct rule_case secnumcloud_cases[] = {
    {"as it is", {{NULL}}, {NULL}},

    /* ownership */
    {"24.00 % of one", {HOME, {HOLDER, US("240000", "240000", "false", "false")}}, {NULL}},
    {"24.01 % of one",
     {HOME, {HOLDER, US("240100", "240000", "false", "false")}},
     {"ownership ownership.holders[1].capital_ppm"}},
    {"one ppm above",
     {HOME, {HOLDER, US("240001", "0", "false", "false")}},
     {"ownership ownership.holders[1].capital_ppm"}},
    {"capital 20 %, votes 30 %",
     {HOME, {HOLDER, US("200000", "300000", "false", "false")}},
     {"ownership ownership.holders[1].votes_ppm"}},
    {"39.00 % together",
     {HOME, {HOLDER, NAMED("A", "240000")}, {"site ownership.holders.2", NAMED("B", "150000")}},
     {NULL}},
    {"39.0001 % together",
     {HOME, {HOLDER, NAMED("A", "240000")}, {"site ownership.holders.2", NAMED("B", "150001")}},
     {"ownership ownership.holders[].capital_ppm"}},
    {"three of 14 %",
     {HOME,
      {HOLDER, NAMED("A", "140000")},
      {"site ownership.holders.2", NAMED("B", "140000")},
      {"site ownership.holders.3", NAMED("C", "140000")}},
     {"ownership ownership.holders[].capital_ppm"}},
    {"one holder in two entries",
     {HOME, {HOLDER, NAMED("A", "140000")}, {"site ownership.holders.2", NAMED("A", "140000")}},
     {"ownership ownership.holders[1].capital_ppm"}},
    {"5 % with a veto",
     {HOME, {HOLDER, US("50000", "50000", "true", "false")}},
     {"ownership ownership.holders[1].veto"}},
    {"a veto that is tolerated",
     {HOME, {HOLDER, US("50000", "50000", "true", "false")}, {"policy ownership.veto", "true"}},
     {NULL}},
    {"5 % and the board's majority",
     {HOME, {HOLDER, US("50000", "50000", "false", "true")}},
     {"ownership ownership.holders[1].board_majority"}},
    {"a veto at home", {{"site ownership.holders.0.veto", "true"}}, {NULL}},
    {"Swiss is outside",
     {HOME, {"site ownership.holders.0.jurisdiction", "\"CH\""}},
     {"ownership ownership.holders[0].capital_ppm", "ownership ownership.holders[].capital_ppm",
      "ownership ownership.holders[0].votes_ppm", "ownership ownership.holders[].votes_ppm",
      "ownership ownership.holders[0].veto", "ownership ownership.holders[0].board_majority"}},
    {"EU as a whole is inside", {{"site ownership.holders.0.jurisdiction", "\"EU\""}}, {NULL}},
    {"Norway under EEA",
     {HOME,
      {"site ownership.holders.0.jurisdiction", "\"NO\""},
      {"policy ownership.home", "\"EEA\""}},
     {NULL}},
    {"jurisdiction missing",
     {{"site ownership.holders.1.jurisdiction", NULL}},
     {"ownership ownership.holders[1].jurisdiction"}},
    {"jurisdiction and more missing, of much",
     {HOME, {HOLDER, "{\"capital_ppm\": 300000, \"votes_ppm\": 0, \"veto\": false}"}},
     {"ownership ownership.holders[1].jurisdiction", "ownership ownership.holders[1].capital_ppm",
      "ownership ownership.holders[1].board_majority"}},
    {"votes missing",
     {{"site ownership.holders.1.votes_ppm", NULL}},
     {"ownership ownership.holders[1].votes_ppm"}},
    {"veto missing",
     {{"site ownership.holders.1.veto", NULL}},
     {"ownership ownership.holders[1].veto"}},
    {"holders missing", {{"site ownership.holders", NULL}}, {"ownership ownership.holders"}},
    {"ownership missing", {{"site ownership", NULL}}, {"ownership ownership.holders"}},
    {"no rule of ownership",
     {{"policy ownership", NULL}},
     {"ownership policy.ownership.max_individual_ppm",
      "ownership policy.ownership.max_collective_ppm", "ownership policy.ownership.home"}},

    /* labels */
    {"only SaaS", {{"site labels.0.layers", "[\"saas\"]"}}, {"labels labels[0].layers"}},
    {"SaaS and IaaS", {{"site labels.0.layers", "[\"saas\", \"IaaS\"]"}}, {NULL}},
    {"another service", {{"site labels.0.service", "\"Mail\""}}, {"labels labels[0].service"}},
    {"3.1", {{"site labels.0.version", "\"3.1\""}}, {"labels labels[0].version"}},
    {"3.1.99", {{"site labels.0.version", "\"3.1.99\""}}, {"labels labels[0].version"}},
    {"3.10", {{"site labels.0.version", "\"3.10\""}}, {NULL}},
    {"3.2.0", {{"site labels.0.version", "\"3.2.0\""}}, {NULL}},
    {"4", {{"site labels.0.version", "\"4\""}}, {NULL}},
    {"3.2-beta", {{"site labels.0.version", "\"3.2-beta\""}}, {"labels labels[0].version"}},
    {"in progress", {{"site labels.0.status", "\"in_progress\""}}, {"labels labels[0].status"}},
    {"suspended", {{"site labels.0.status", "\"suspended\""}}, {"labels labels[0].status"}},
    {"another scheme", {{"site labels.0.scheme", "\"HDS\""}}, {"labels labels"}},
    {"no label", {{"site labels", "[]"}}, {"labels labels"}},
    {"labels missing", {{"site labels", NULL}}, {"labels labels"}},
    {"services missing", {{"site services", NULL}}, {"labels labels[0].service"}},
    {"until now",
     {{"site labels.0.until", "\"2026-11-23T10:00:00Z\""}},
     {"labels labels[0].until"}},
    {"until a second later", {{"site labels.0.until", "\"2026-11-23T10:00:01Z\""}}, {NULL}},
    {"from now", {{"site labels.0.from", "\"2026-11-23T10:00:00Z\""}}, {NULL}},
    {"from a second later",
     {{"site labels.0.from", "\"2026-11-23T10:00:01Z\""}},
     {"labels labels[0].from"}},
    {"everything at once",
     {{"site labels.0.version", "\"3.1\""},
      {"site labels.0.layers", "[]"},
      {"site labels.0.status", "\"withdrawn\""},
      {"site labels.0.from", NULL},
      {"site labels.0.until", NULL}},
     {"labels labels[0].version", "labels labels[0].layers", "labels labels[0].status",
      "labels labels[0].from", "labels labels[0].until"}},
    {"two predicates, one met",
     {{"policy labels.1",
       "{\"scheme\": \"C5\", \"min_version\": \"2\", \"layer\": \"iaas\", \"status\": "
       "\"qualified\"}"}},
     {"labels labels"}},
    {"a predicate without a version",
     {{"policy labels.0.min_version", NULL}},
     {"labels policy.labels[0].min_version"}},

    /* territory */
    {"La Reunion",
     {{"site facility.country", "\"RE\""}, {"site facility.territory", "\"FR-974\""}},
     {NULL}},
    {"Noumea",
     {{"site facility.country", "\"NC\""}, {"site facility.territory", "\"NC\""}},
     {NULL}},
    {"Frankfurt",
     {{"site facility.country", "\"DE\""}, {"site facility.territory", "\"DE-HE\""}},
     {"territory facility.territory"}},
    {"country missing", {{"site facility.country", NULL}}, {"territory facility.country"}},
    {"territory missing", {{"site facility.territory", NULL}}, {"territory facility.territory"}},
    {"no territory at all", {{"policy territory", "[]"}}, {"territory facility.territory"}},
    {"no rule of territory", {{"policy territory", NULL}}, {"territory policy.territory"}},

    /* operator */
    {"Swiss seat", {{"site operator.seat", "\"CH\""}}, {"operator operator.seat"}},
    {"American administration",
     {{"site operator.central_administration", "\"US\""}},
     {"operator operator.central_administration"}},
    {"New Caledonian establishment",
     {{"site operator.main_establishment", "\"NC\""}},
     {"operator operator.main_establishment"}},
    {"operator missing",
     {{"site operator", NULL}},
     {"operator operator.seat", "operator operator.central_administration",
      "operator operator.main_establishment"}},
    {"no rule of seat", {{"policy operator.seat", NULL}}, {"operator policy.operator.seat"}},

    /* forbidden jurisdictions */
    {"American access",
     {{"site suppliers.0.technical_access", "true"}},
     {"forbidden_jurisdictions suppliers[0].jurisdiction"}},
    {"access not stated",
     {{"site suppliers.0.technical_access", NULL}},
     {"forbidden_jurisdictions suppliers[0].technical_access"}},
    {"Indian support",
     {{"site support_locations.1", "\"IN\""}},
     {"forbidden_jurisdictions support_locations[1]"}},
    {"American administrators",
     {{"site admin_locations", "[\"US\"]"}},
     {"forbidden_jurisdictions admin_locations[0]"}},
    {"administrators somewhere in the EEA",
     {{"site admin_locations", "[\"EEA\"]"}},
     {"forbidden_jurisdictions admin_locations[0]"}},
    {"administrators missing",
     {{"site admin_locations", NULL}},
     {"forbidden_jurisdictions admin_locations"}},
    {"suppliers missing", {{"site suppliers", NULL}}, {"forbidden_jurisdictions suppliers"}},
    {"suppliers missing where none may be American, whatever they reach",
     {{"site suppliers", NULL},
      {"policy forbidden_jurisdictions.supplier", "[\"US\"]"},
      {"policy forbidden_jurisdictions.technical_access", "[]"}},
     {"forbidden_jurisdictions suppliers"}},
    {"American suppliers forbidden",
     {{"policy forbidden_jurisdictions.supplier", "[\"US\", \"CN\"]"}},
     {"forbidden_jurisdictions suppliers[0].jurisdiction"}},
    {"German operators forbidden, of some EU state",
     {{"policy forbidden_jurisdictions.operator", "[\"DE\"]"}, {"site operator.seat", "\"EU\""}},
     {"forbidden_jurisdictions operator.seat"}},
    {"a role left out",
     {{"policy forbidden_jurisdictions.admin", NULL}},
     {"forbidden_jurisdictions policy.forbidden_jurisdictions.admin"}},

    /* exposure */
    {"a law",
     {{"site exposure", "[{\"law\": \"X\", \"basis\": \"seat\"}]"}},
     {"exposure exposure[0].law"}},
    {"a law that is tolerated",
     {{"site exposure", "[{\"law\": \"X\"}]"}, {"policy exposure", "[\"Y\", \"X\"]"}},
     {NULL}},
    {"one of two is tolerated",
     {{"site exposure", "[{\"law\": \"X\"}, {\"law\": \"Z\"}]"}, {"policy exposure", "[\"X\"]"}},
     {"exposure exposure[1].law"}},
    {"a law without a name",
     {{"site exposure", "[{\"basis\": \"seat\"}]"}},
     {"exposure exposure[0].law"}},
    {"exposure missing", {{"site exposure", NULL}}, {"exposure exposure"}},

    /* certificate */
    {"not before now", {{"site not_before", "\"2026-11-23T10:00:00Z\""}}, {NULL}},
    {"not before a second later",
     {{"site not_before", "\"2026-11-23T10:00:01Z\""}},
     {"certificate not_before"}},
    {"not after now", {{"site not_after", "\"2026-11-23T10:00:00Z\""}}, {"certificate not_after"}},
    {"not after a second later", {{"site not_after", "\"2026-11-23T10:00:01Z\""}}, {NULL}},
    {"times missing",
     {{"site not_before", NULL}, {"site not_after", NULL}},
     {"certificate not_before", "certificate not_after"}},

    /* revocations */
    {"an older certificate", {{"site version", "2"}}, {"revocations version"}},
    {"a newer certificate, not listed yet", {{"site version", "4"}}, {"revocations version"}},
    {"not listed", {{"snapshot sites", "{\"lyo\": 1}"}}, {"revocations revocations.sites.par"}},
    {"sites missing", {{"snapshot sites", NULL}}, {"revocations revocations.sites.par"}},
    {"withdrawn now",
     {{"snapshot withdrawals",
       "[{\"site\": \"par\", \"effective_from\": \"2026-11-23T10:00:00Z\"}]"}},
     {"revocations revocations.withdrawals.par"}},
    {"withdrawn a second later",
     {{"snapshot withdrawals",
       "[{\"site\": \"par\", \"effective_from\": \"2026-11-23T10:00:01Z\"}]"}},
     {NULL}},
    {"another site withdrawn",
     {{"snapshot withdrawals",
       "[{\"site\": \"lyo\", \"effective_from\": \"2026-11-20T10:00:00Z\"}]"}},
     {NULL}},
    {"snapshot not after now",
     {{"snapshot not_after", "\"2026-11-23T10:00:00Z\""}},
     {"revocations revocations.not_after"}},
    {"snapshot a day old",
     {{"snapshot issued_at", "\"2026-11-22T10:00:00Z\""}},
     {"revocations revocations.issued_at"}},
    {"snapshot almost a day old", {{"snapshot issued_at", "\"2026-11-22T10:00:01Z\""}}, {NULL}},
    {"snapshot of the future, within the clock bound",
     {{"snapshot issued_at", "\"2026-11-23T10:00:00.5Z\""}},
     {NULL}},
    {"snapshot of the future",
     {{"snapshot issued_at", "\"2026-11-23T10:00:00.6Z\""}},
     {"revocations revocations.issued_at"}},
    {"snapshot without times",
     {{"snapshot issued_at", NULL}, {"snapshot not_after", NULL}},
     {"revocations revocations.not_after", "revocations revocations.issued_at"}},
    {"snapshot of another cluster",
     {{"snapshot cluster", "\"00000000-0000-4000-8000-000000000000\""}},
     {"revocations revocations.cluster"}},
    {"no rule of staleness", {{"policy staleness_s", NULL}}, {"revocations policy.staleness_s"}},

    /* placement */
    {"campus missing", {{"site facility.campus", NULL}}, {"distinct facility.campus"}},
    {"campus missing under distinct sites",
     {{"site facility.campus", NULL}, {"policy distinct", "\"site\""}},
     {NULL}},
    {"position missing", {{"site facility.latitude", NULL}}, {NULL}},
    {"position missing where distance counts",
     {{"site facility.latitude", NULL}, {"policy min_distance_km", "0.5"}},
     {"min_distance_km facility.latitude"}},
    {"longitude missing where distance counts",
     {{"site facility.longitude", NULL}, {"policy min_distance_km", "0.5"}},
     {"min_distance_km facility.longitude"}},
    {"what placement needs is left out",
     {{"policy replicas", NULL},
      {"policy distinct", NULL},
      {"policy min_distance_km", NULL},
      {"policy hosts", NULL},
      {"policy on_loss", NULL}},
     {"distinct policy.distinct", "min_distance_km policy.min_distance_km",
      "policy policy.replicas", "policy policy.hosts", "policy policy.on_loss.action",
      "policy policy.on_loss.timeout_s"}},

    /* all rules are told */
    {"several rules",
     {{"site facility.territory", "\"DE-HE\""},
      {"site facility.country", "\"DE\""},
      {"site labels", "[]"},
      {"site operator.seat", "\"US\""},
      {"site exposure", "[{\"law\": \"X\"}]"},
      {"site version", "1"}},
     {"revocations version", "territory facility.territory", "labels labels",
      "operator operator.seat", "exposure exposure[0].law"}},
};

START_TEST(secnumcloud_fr_rules)
{
	run_case(&secnumcloud_cases[_i], "secnumcloud-fr");
}
END_TEST

/* What the two looser presets let pass, and what not. */
static const struct rule_case confidence_cases[] = {
    {"as it is", {{NULL}}, {NULL}},
    {"no label", {{"site labels", NULL}, {"site services", NULL}}, {NULL}},
    {"Frankfurt",
     {{"site facility.country", "\"DE\""}, {"site facility.territory", "\"DE-HE\""}},
     {"territory facility.territory"}},
    {"24.01 %",
     {HOME, {HOLDER, US("240100", "0", "false", "false")}},
     {"ownership ownership.holders[1].capital_ppm"}},
    {"a law", {{"site exposure", "[{\"law\": \"X\"}]"}}, {"exposure exposure[0].law"}},
};

START_TEST(cloud_de_confiance_rules)
{
	run_case(&confidence_cases[_i], "cloud-de-confiance");
}
END_TEST

static const struct rule_case hds_cases[] = {
    {"as it is", {{NULL}}, {NULL}},
    {"without SecNumCloud", {{"site labels.0.status", "\"withdrawn\""}}, {NULL}},
    {"without HDS", {{"site labels.1.status", "\"suspended\""}}, {"labels labels[1].status"}},
    {"HDS of 2018", {{"site labels.1.version", "\"1.1\""}}, {"labels labels[1].version"}},
    {"Frankfurt",
     {{"site facility.country", "\"DE\""}, {"site facility.territory", "\"DE-HE\""}},
     {NULL}},
    {"Virginia",
     {{"site facility.country", "\"US\""}, {"site facility.territory", "\"US-VA\""}},
     {"territory facility.territory"}},
    {"an American holder", {HOME, {HOLDER, US("400000", "400000", "true", "false")}}, {NULL}},
    {"support from India",
     {{"site support_locations.0", "\"IN\""}},
     {"forbidden_jurisdictions support_locations[0]"}},
    {"a law", {{"site exposure", "[{\"law\": \"X\"}]"}}, {"exposure exposure[0].law"}},
};

START_TEST(hds_rules)
{
	run_case(&hds_cases[_i], "hds");
}
END_TEST

static const struct rule_case dev_cases[] = {
    {"as it is", {{NULL}}, {NULL}},
    {"anywhere, anybody",
     {{"site facility.country", "\"US\""},
      {"site facility.territory", "\"US-VA\""},
      {"site operator.seat", "\"US\""},
      {HOLDER, US("100000", "100000", "true", "true")},
      {"site exposure", "[{\"law\": \"X\"}]"},
      {"site suppliers", NULL},
      {"site labels", NULL}},
     {NULL}},
    {"still evidence", {{"site facility.territory", NULL}}, {"territory facility.territory"}},
    {"still in force", {{"site version", "2"}}, {"revocations version"}},
};

START_TEST(dev_rules)
{
	run_case(&dev_cases[_i], "dev");
}
END_TEST

/* -- territory: sets and places --------------------------------------------------------------- */

static const struct {
	const char *wanted, *country, *territory;
	bool in;
} territory_cases[] = {
    {"FR-metropolitan", "FR", "FR-IDF", true},
    {"FR-metropolitan", "FR", "FR-2A", true},
    {"FR-metropolitan", "FR", "FR-20R", true},
    {"FR-metropolitan", "RE", "FR-974", false},
    {"FR-metropolitan", "FR", "FR", false},
    {"FR", "FR", "FR", true},
    {"FR", "FR", "FR-93", true},
    {"FR", "RE", "FR-974", true},
    {"FR", "RE", "RE", true},
    {"FR", "GP", "FR-971", true},
    {"FR", "NC", "NC", true},
    {"FR", "PF", "FR-PF", true},
    {"FR", "BL", "BL", true},
    {"FR", "MC", "MC", false},
    {"FR", "BE", "BE-BRU", false},
    {"EU", "RE", "FR-974", true},
    {"EU", "MF", "MF", true},
    {"EU", "YT", "FR-976", true},
    {"EU", "NC", "NC", false},
    {"EU", "PF", "PF", false},
    {"EU", "BL", "BL", false},
    {"EU", "PM", "PM", false},
    {"EU", "DE", "DE-BE", true},
    {"EU", "PT", "PT-20", true},
    {"EU", "AX", "FI-01", true},
    {"EU", "GL", "GL", false},
    {"EU", "AW", "NL-AW", false},
    {"EU", "GB", "GB-LND", false},
    {"EU", "CH", "CH-GE", false},
    {"EU", "NO", "NO-03", false},
    {"EEA", "NO", "NO-03", true},
    {"EEA", "IS", "IS-1", true},
    {"EEA", "LI", "LI-11", true},
    {"EEA", "SJ", "SJ", false},
    {"EEA", "RE", "FR-974", true},
    {"EEA", "NC", "NC", false},
    {"EEA", "CH", "CH-GE", false},
    {"FR-IDF", "FR", "FR-IDF", true},
    {"FR-IDF", "FR", "FR-93", true},
    {"FR-IDF", "FR", "FR-69", false},
    {"FR-93", "FR", "FR-IDF", false},
    {"FR-974", "RE", "FR-974", true},
    {"FR-974", "RE", "RE", true},
    {"RE", "RE", "FR-974", true},
    {"FR-974", "GP", "FR-971", false},
    {"DE", "DE", "DE-BE", true},
    {"DE-BE", "DE", "DE-BE", true},
    {"DE-BE", "DE", "DE-HE", false},
    {"DE-BE", "DE", "DE", false},
    {"NL-BQ1", "BQ", "NL-BQ2", false},
    {"any", "US", "US-VA", true},
};

START_TEST(territories)
{
	for (size_t i = 0; i < ARRAY_SIZE(territory_cases); i++) {
		struct rule_case c = {"territory", {{NULL}}, {NULL}};
		char wanted[40], country[40], territory[40];
		struct verdict v;

		snprintf(wanted, sizeof wanted, "[\"%s\"]", territory_cases[i].wanted);
		snprintf(country, sizeof country, "\"%s\"", territory_cases[i].country);
		snprintf(territory, sizeof territory, "\"%s\"", territory_cases[i].territory);
		c.changes[0].path = "policy territory";
		c.changes[0].text = wanted;
		c.changes[1].path = "site facility.country";
		c.changes[1].text = country;
		c.changes[2].path = "site facility.territory";
		c.changes[2].text = territory;
		judge(&c, "dev", RIG_NOW, &v);
		ck_assert_msg(v.eligible == territory_cases[i].in, "%s, %s under %s",
			      territory_cases[i].country, territory_cases[i].territory,
			      territory_cases[i].wanted);
	}
}
END_TEST

/* -- until ------------------------------------------------------------------------------------ */

static int64_t at(const char *text)
{
	int64_t ns = 0;

	ck_assert_int_eq(text_parse_time(text, &ns), 0);
	return ns;
}

START_TEST(until_is_the_first_of_all_ends)
{
	static const struct {
		struct rule_case c;
		const char *until;
	} cases[] = {
	    {{"staleness",
	      {{"snapshot not_after", "\"2027-01-01T00:00:00Z\""}, {"policy staleness_s", "7200"}},
	      {NULL}},
	     "2026-11-23T11:00:00Z"},
	    {{"snapshot", {{"snapshot not_after", "\"2026-11-23T10:30:00Z\""}}, {NULL}},
	     "2026-11-23T10:30:00Z"},
	    {{"certificate", {{"site not_after", "\"2026-11-23T10:20:00Z\""}}, {NULL}},
	     "2026-11-23T10:20:00Z"},
	    {{"label", {{"site labels.0.until", "\"2026-11-23T10:10:00Z\""}}, {NULL}},
	     "2026-11-23T10:10:00Z"},
	    {{"withdrawal to come",
	      {{"snapshot withdrawals", "[{\"site\": \"par\", \"effective_from\": "
					"\"2026-11-23T10:05:00Z\"}]"}},
	      {NULL}},
	     "2026-11-23T10:05:00Z"},
	    {{"the later of two labels",
	      {{"site labels.0.until", "\"2026-11-23T10:10:00Z\""},
	       {"site labels.1",
		"{\"scheme\": \"SecNumCloud\", \"version\": \"3.2\", \"layers\": [\"iaas\"], "
		"\"service\": "
		"\"Pavage Demonstration IaaS\", \"status\": \"qualified\", \"from\": "
		"\"2026-01-01T00:00:00Z\", \"until\": \"2026-11-23T10:15:00Z\"}"}},
	      {NULL}},
	     "2026-11-23T10:15:00Z"},
	    {{"the later of two labels, first",
	      {{"site labels.0.until", "\"2026-11-23T10:15:00Z\""},
	       {"site labels.1",
		"{\"scheme\": \"SecNumCloud\", \"version\": \"3.2\", \"layers\": [\"iaas\"], "
		"\"service\": "
		"\"Pavage Demonstration IaaS\", \"status\": \"qualified\", \"from\": "
		"\"2026-01-01T00:00:00Z\", \"until\": \"2026-11-23T10:10:00Z\"}"}},
	      {NULL}},
	     "2026-11-23T10:15:00Z"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct verdict v;

		judge(&cases[i].c, "secnumcloud-fr", RIG_NOW, &v);
		ck_assert_msg(v.eligible, "%s", cases[i].c.name);
		ck_assert_msg(v.until == at(cases[i].until), "%s", cases[i].c.name);
		/* And it is exact: the last nanosecond is in, the next one is out. */
		judge(&cases[i].c, "secnumcloud-fr", at(cases[i].until) - 1, &v);
		ck_assert_msg(v.eligible, "%s: a moment before", cases[i].c.name);
		judge(&cases[i].c, "secnumcloud-fr", at(cases[i].until), &v);
		ck_assert_msg(!v.eligible, "%s: then", cases[i].c.name);
	}
}
END_TEST

START_TEST(the_certificate_alone)
{
	struct site_document *site = NULL;
	struct revocations_document *snapshot = NULL;
	json_t *json = rig_revocations_json(&rig);
	char *text;
	struct verdict v;

	text = json_dumps(json, 0);
	json_decref(json);
	ck_assert_int_eq(revocations_parse(text, strlen(text), &snapshot, NULL), 0);
	free(text);
	json = rig_site_json(&rig);
	rig_set(json, "facility", NULL);
	text = json_dumps(json, 0);
	json_decref(json);
	ck_assert_int_eq(site_parse(text, strlen(text), &site, NULL), 0);
	free(text);
	evaluate_site(site, snapshot, RIG_NOW, &v);
	ck_assert(v.eligible);
	ck_assert(v.until == RIG_NOW + 23 * RIG_HOUR);
	evaluate_site(site, NULL, RIG_NOW, &v);
	ck_assert(!v.eligible);
	ck_assert_str_eq(v.failed[0].rule, "revocations");
	evaluate_site(NULL, NULL, RIG_NOW, &v);
	ck_assert_uint_eq(v.failed_count, 2);
	evaluate_site(site, snapshot, INT64_MIN, &v);
	ck_assert(!v.eligible);
	evaluate_site(site, snapshot, RIG_NOW, &v);
	evaluate_root(rig.root, RIG_NOW, &v);
	ck_assert(v.eligible);
	evaluate_root(rig.root, root_not_after(rig.root), &v);
	ck_assert(!v.eligible);
	ck_assert_str_eq(v.failed[0].rule, "root");
	site_free(site);
	revocations_free(snapshot);
}
END_TEST

START_TEST(more_failures_than_are_kept_are_counted)
{
	struct rule_case c = {"many", {{NULL}}, {NULL}};
	json_t *list = json_array();
	struct verdict v;
	char *many;

	for (int i = 0; i < 200; i++)
		json_array_append_new(list, json_string("US"));
	many = json_dumps(list, 0);
	json_decref(list);
	c.changes[0].path = "site admin_locations";
	c.changes[0].text = many;
	judge(&c, "secnumcloud-fr", RIG_NOW, &v);
	ck_assert_uint_eq(v.failed_count, 200);
	ck_assert(!v.eligible);
	free(many);
}
END_TEST

/* A long text is cut between two characters, so that what is printed stays UTF-8. */
START_TEST(values_are_cut_between_characters)
{
	struct rule_case c = {"long", {{NULL}}, {NULL}};
	char law[600];
	struct verdict v;
	json_t *json;
	int len = snprintf(law, sizeof law, "[{\"law\": \"x");

	for (int i = 0; i < 150; i++)
		len += snprintf(law + len, sizeof law - (size_t)len, "\xc3\xa9");
	snprintf(law + len, sizeof law - (size_t)len, "\"}]");
	c.changes[0].path = "site exposure";
	c.changes[0].text = law;
	judge(&c, "secnumcloud-fr", RIG_NOW, &v);
	ck_assert_uint_eq(v.failed_count, 1);
	ck_assert_uint_eq(strlen(v.failed[0].value), sizeof v.failed[0].value - 1);
	json = json_string(v.failed[0].value);
	ck_assert_ptr_nonnull(json);
	json_decref(json);
}
END_TEST

START_TEST(distances)
{
	/* Paris to Lyon is about 390 km, a quarter of the way round about 10,008. */
	ck_assert(fabs(distance_km(48.8566, 2.3522, 45.764, 4.8357) - 391.5) < 2);
	ck_assert(fabs(distance_km(0, 0, 0, 90) - 10007.6) < 1);
	ck_assert(fabs(distance_km(0, 0, 0, 180) - 20015.1) < 1);
	ck_assert(distance_km(-20.9, 55.5, -20.9, 55.5) < 1e-6);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("rules");
	Suite *s = suite_create("evidence rules");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, secnumcloud_fr_rules, 0, (int)ARRAY_SIZE(secnumcloud_cases));
	tcase_add_loop_test(tc, cloud_de_confiance_rules, 0, (int)ARRAY_SIZE(confidence_cases));
	tcase_add_loop_test(tc, hds_rules, 0, (int)ARRAY_SIZE(hds_cases));
	tcase_add_loop_test(tc, dev_rules, 0, (int)ARRAY_SIZE(dev_cases));
	tcase_add_test(tc, territories);
	tcase_add_test(tc, until_is_the_first_of_all_ends);
	tcase_add_test(tc, the_certificate_alone);
	tcase_add_test(tc, more_failures_than_are_kept_are_counted);
	tcase_add_test(tc, values_are_cut_between_characters);
	tcase_add_test(tc, distances);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
