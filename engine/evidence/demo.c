/* demo: see demo.h. */
#include "engine/evidence/demo.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/keys.h"
#include "engine/evidence/model.h"

#define DEMO_OPERATOR "Pavage Demonstration SAS"
#define DEMO_SERVICE  "Pavage Demonstration IaaS"
#define YEAR_S	      (365 * 86400ll)

const char *const demo_key_names[DEMO_KEY_COUNT] = {DEMO_AUTHORITY, DEMO_AUDITOR, DEMO_PLACEMENT,
						    DEMO_TENANT};

enum { AUTHORITY, AUDITOR, PLACEMENT, TENANT };

struct place {
	const char *site, *country, *territory, *commune;
	double latitude, longitude;
	const char *jurisdiction; /* of operator, staff and majority holder */
	bool labelled;
};

/* The first ones are also where other names go. */
#define FRENCH_CITIES 9u
static const struct place places[] = {
    {"par", "FR", "FR-IDF", "93066", 48.93, 2.36, "FR", true},
    {"lyo", "FR", "FR-ARA", "69387", 45.73, 4.84, "FR", true},
    {"rbx", "FR", "FR-HDF", "59512", 50.69, 3.18, "FR", true},
    {"mrs", "FR", "FR-PAC", "13202", 43.31, 5.37, "FR", true},
    {"sxb", "FR", "FR-GES", "67482", 48.58, 7.76, "FR", true},
    {"bod", "FR", "FR-NAQ", "33063", 44.86, -0.56, "FR", true},
    {"tls", "FR", "FR-OCC", "31555", 43.6, 1.44, "FR", true},
    {"nte", "FR", "FR-PDL", "44109", 47.22, -1.55, "FR", true},
    {"rns", "FR", "FR-BRE", "35238", 48.11, -1.68, "FR", true},
    {"run", "RE", "FR-974", "97411", -20.9, 55.48, "FR", true},
    {"nou", "NC", "NC", "98818", -22.27, 166.46, "FR", true},
    {"fra", "DE", "DE-HE", "06412000", 50.12, 8.74, "DE", false},
    {"iad", "US", "US-VA", "51107", 39.02, -77.46, "US", false},
};

/* -- keys ------------------------------------------------------------------------------------- */

/* The bytes that belong to a name, under the seed. */
static int derive(const uint8_t *seed, const char *name, uint8_t ret[32])
{
	uint8_t text[32 + NAME_SIZE_MAX] = {0};

	PRE(strlen(name) < NAME_SIZE_MAX);
	memcpy(text, seed, 32);
	memcpy(text + 32, name, strlen(name));
	return document_digest(text, sizeof text, ret);
}

int demo_init(struct demo *d, const uint8_t *seed, struct error *err)
{
	uint8_t bytes[32];
	int rc = 0;

	*d = (struct demo){0};
	if (seed == NULL) {
		uuid_generate(&d->cluster);
	} else {
		rc = derive(seed, "cluster", bytes);
		if (rc != 0)
			return error_set(err, rc, "demo authority: no memory");
		memcpy(d->cluster.bytes, bytes, sizeof d->cluster.bytes);
	}
	for (size_t i = 0; rc == 0 && i < DEMO_KEY_COUNT; i++) {
		if (seed == NULL) {
			rc = signing_key_generate(demo_key_names[i], &d->keys[i], err);
			continue;
		}
		rc = derive(seed, demo_key_names[i], bytes);
		if (rc == 0)
			rc = signing_key_from_seed(demo_key_names[i], bytes, &d->keys[i], err);
	}
	if (rc != 0)
		demo_deinit(d);
	return rc;
}

void demo_deinit(struct demo *d)
{
	for (size_t i = 0; i < DEMO_KEY_COUNT; i++)
		signing_key_free(d->keys[i]);
	*d = (struct demo){0};
}

struct signing_key *demo_key(const struct demo *d, const char *keyid)
{
	for (size_t i = 0; i < DEMO_KEY_COUNT; i++)
		if (strcmp(demo_key_names[i], keyid) == 0)
			return d->keys[i];
	return NULL;
}

/* -- envelopes -------------------------------------------------------------------------------- */

/* Takes json, which may be NULL for want of memory. */
static int sign_json(json_t *json, const char *type, struct signing_key *const *keys,
		     size_t key_count, char **ret_envelope, struct error *err)
{
	char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2));
	int rc;

	if (text == NULL)
		rc = error_set(err, -ENOMEM, "demo authority: no memory");
	else
		rc = dsse_sign(type, text, strlen(text), keys, key_count, ret_envelope, err);
	free(text);
	json_decref(json);
	return rc;
}

static json_t *time_json(int64_t ns)
{
	char text[40];

	return json_string(text_time(ns - ns % (int64_t)NS_PER_S, text, sizeof text));
}

static json_t *cluster_json(const struct demo *d)
{
	char text[40];

	return json_string(text_uuid(&d->cluster, text, sizeof text));
}

static json_t *keys_json(const struct demo *d)
{
	json_t *keys = json_object();
	int failed = keys == NULL;

	for (size_t i = 0; i < DEMO_KEY_COUNT && failed == 0; i++) {
		char *pem = signing_key_public_pem(d->keys[i]);

		failed = pem == NULL || json_object_set_new(keys, signing_key_id(d->keys[i]),
							    json_pack("{s:s, s:s}", "alg",
								      "ed25519", "public", pem));
		free(pem);
	}
	if (failed == 0)
		return keys;
	json_decref(keys);
	return NULL;
}

static json_t *role_json(const struct demo *d, size_t key)
{
	return json_pack("{s:[s], s:i}", "keys", signing_key_id(d->keys[key]), "threshold", 1);
}

int demo_root(const struct demo *d, uint64_t version, int64_t issued_at, int64_t not_after,
	      char **ret_envelope, struct error *err)
{
	return demo_root_after(d, d, version, issued_at, not_after, ret_envelope, err);
}

int demo_root_after(const struct demo *before, const struct demo *d, uint64_t version,
		    int64_t issued_at, int64_t not_after, char **ret_envelope, struct error *err)
{
	struct signing_key *keys[4] = {d->keys[AUTHORITY], d->keys[AUDITOR]};
	size_t count = 2;
	json_t *roles = json_pack(
	    "{s:{s:[s, s], s:i}, s:o, s:o, s:o, s:o}", "root", "keys",
	    signing_key_id(d->keys[AUTHORITY]), signing_key_id(d->keys[AUDITOR]), "threshold", 2,
	    "authority", role_json(d, AUTHORITY), "auditor", role_json(d, AUDITOR), "placement",
	    role_json(d, PLACEMENT), "tenant", role_json(d, TENANT));
	json_t *json = json_pack(
	    "{s:s, s:o, s:I, s:o, s:o, s:[], s:o, s:o}", "type", "root", "cluster", cluster_json(d),
	    "version", (json_int_t)version, "issued_at", time_json(issued_at), "not_after",
	    time_json(not_after), "critical", "keys", keys_json(d), "roles", roles);

	for (size_t i = AUTHORITY; i <= AUDITOR; i++)
		if (before->keys[i] != d->keys[i])
			keys[count++] = before->keys[i];
	return sign_json(json, TYPE_ROOT, keys, count, ret_envelope, err);
}

/* -- sites ------------------------------------------------------------------------------------ */

static const struct place *find_place(const char *name)
{
	unsigned sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (strcmp(places[i].site, name) == 0)
			return &places[i];
	for (const char *p = name; *p != '\0'; p++)
		sum = sum * 31u + (unsigned char)*p;
	return &places[sum % FRENCH_CITIES];
}

static json_t *facility_json(const struct place *p, const char *name)
{
	char campus[NAME_SIZE_MAX + 8];

	snprintf(campus, sizeof campus, "%s-1", name);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:f}", "country", p->country, "territory",
			 p->territory, "commune", p->commune, "campus", campus, "building", "A",
			 "latitude", p->latitude, "longitude", p->longitude);
}

static json_t *holder_json(const char *name, const char *jurisdiction, int ppm, bool majority)
{
	return json_pack("{s:s, s:s, s:i, s:i, s:b, s:b}", "name", name, "jurisdiction",
			 jurisdiction, "capital_ppm", ppm, "votes_ppm", ppm, "veto", majority,
			 "board_majority", majority);
}

static json_t *labels_json(const struct place *p, int64_t not_before, int64_t not_after)
{
	/* A label outlives the certificate a little, so that certificates can be renewed under it.
	 */
	const int64_t margin = YEAR_S * (int64_t)NS_PER_S;
	json_t *from, *until;

	if (!p->labelled)
		return json_array();
	from = time_json(MAX(not_before - margin, 0));
	until = time_json(MIN(not_after, INT64_MAX - 2 * margin) + margin);
	/* O takes a reference of its own. */
	return json_pack("[{s:s, s:s, s:[s], s:s, s:s, s:O, s:O, s:s},"
			 " {s:s, s:s, s:[s], s:s, s:s, s:o, s:o, s:s}]",
			 "scheme", "SecNumCloud", "version", "3.2", "layers", "iaas", "service",
			 DEMO_SERVICE, "status", "qualified", "from", from, "until", until,
			 "decision", "DEMO-0001", "scheme", "HDS", "version", "2.0", "layers",
			 "iaas", "service", DEMO_SERVICE, "status", "qualified", "from", from,
			 "until", until, "decision", "DEMO-0002");
}

static json_t *exposure_json(const struct place *p)
{
	if (strcmp(p->jurisdiction, "US") != 0)
		return json_array();
	return json_pack("[{s:s, s:s}]", "law", "US CLOUD Act", "basis", "seat of the operator");
}

/* The key of a site's node CA follows from the authority's, so that it need not be kept. */
static int node_ca_key(const struct demo *d, const char *site, struct signing_key **ret,
		       struct error *err)
{
	uint8_t seed[32], bytes[32];
	size_t size = sizeof seed;

	if (EVP_PKEY_get_raw_private_key(d->keys[AUTHORITY]->pkey, seed, &size) != 1 ||
	    derive(seed, site, bytes) != 0)
		return error_set(err, -ENOMEM, "demo authority: no memory");
	return signing_key_from_seed(site, bytes, ret, err);
}

static json_t *node_ca_json(const struct demo *d, const char *site)
{
	struct signing_key *ca = NULL;
	char text[65];
	json_t *json = NULL;

	if (node_ca_key(d, site, &ca, NULL) == 0)
		json = json_string(identity_ca_sha256(ca, text, sizeof text));
	signing_key_free(ca);
	return json;
}

int demo_identity(const struct demo *d, const char *site, const char *node, int64_t not_before,
		  int64_t not_after, struct identity *ret, struct error *err)
{
	struct identity id = {0};
	struct signing_key *ca = NULL;
	char name[2 * NAME_SIZE_MAX];
	uint8_t seed[32];
	size_t size = sizeof seed;
	int rc = node_ca_key(d, site, &ca, err);

	if (rc == 0)
		rc = identity_make_ca(ca, site, not_before, not_after, &id.ca, err);
	snprintf(name, sizeof name, "node %.*s", (int)NAME_SIZE_MAX - 6, node);
	if (rc == 0 && (EVP_PKEY_get_raw_private_key(ca->pkey, seed, &size) != 1 ||
			derive(seed, name, seed) != 0))
		rc = error_set(err, -ENOMEM, "demo authority: no memory");
	if (rc == 0)
		rc = signing_key_from_seed(node, seed, &id.key, err);
	if (rc == 0)
		rc = identity_issue(ca, &id.ca, &d->cluster, site, node, id.key, not_before,
				    not_after, &id.certificate, err);
	signing_key_free(ca);
	if (rc != 0) {
		identity_deinit(&id);
		return rc;
	}
	*ret = id;
	return 0;
}

static json_t *operator_json(const struct place *p)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s}", "legal_id", "DEMO-000000000", "name",
			 DEMO_OPERATOR, "seat", p->jurisdiction, "central_administration",
			 p->jurisdiction, "main_establishment", p->jurisdiction);
}

int demo_site(const struct demo *d, const char *name, uint64_t version, int64_t not_before,
	      int64_t not_after, char **ret_envelope, struct error *err)
{
	const struct place *p = find_place(name);
	json_t *ownership =
	    json_pack("{s:s, s:[o, o]}", "as_of", "2026-01-01", "holders",
		      holder_json("Fondateurs Demonstration", p->jurisdiction, 900000, true),
		      holder_json("Minority Demonstration LP", "US", 100000, false));
	json_t *json;

	PRE(text_is_name(name));
	json =
	    json_pack("{s:s, s:o, s:s, s:I, s:o, s:o, s:o, s:[], s:o, s:o, s:o}", "type", "site",
		      "cluster", cluster_json(d), "site", name, "version", (json_int_t)version,
		      "issued_at", time_json(not_before), "not_before", time_json(not_before),
		      "not_after", time_json(not_after), "critical", "facility",
		      facility_json(p, name), "operator", operator_json(p), "ownership", ownership);
	if (json != NULL &&
	    json_object_update_new(
		json,
		json_pack("{s:[{s:s, s:s, s:s, s:b}], s:o, s:[s], s:[s], s:o, s:[s], s:o}",
			  "suppliers", "role", "hardware", "name", "Demonstration Hardware Inc",
			  "jurisdiction", "US", "technical_access", 0, "exposure", exposure_json(p),
			  "admin_locations", p->jurisdiction, "support_locations", p->jurisdiction,
			  "labels", labels_json(p, not_before, not_after), "services", DEMO_SERVICE,
			  "node_ca_sha256", node_ca_json(d, name))) != 0) {
		json_decref(json);
		json = NULL;
	}
	return sign_json(json, TYPE_SITE, &d->keys[AUTHORITY], 2, ret_envelope, err);
}

/* -- snapshots and policies ------------------------------------------------------------------- */

static int add_entry(json_t *sites, json_t *withdrawals, const struct demo_entry *e)
{
	int failed = json_object_set_new(sites, e->site, json_integer((json_int_t)e->version));

	if (failed == 0 && e->withdrawn_from != 0)
		failed = json_array_append_new(withdrawals, json_pack("{s:s, s:o, s:s}", "site",
								      e->site, "effective_from",
								      time_json(e->withdrawn_from),
								      "reason", "demonstration"));
	return failed;
}

int demo_revocations(const struct demo *d, uint64_t version, int64_t issued_at, int64_t not_after,
		     const struct demo_entry *entries, size_t entry_count, char **ret_envelope,
		     struct error *err)
{
	json_t *sites = json_object();
	json_t *withdrawals = json_array();
	json_t *json = NULL;
	int failed = sites == NULL || withdrawals == NULL;

	for (size_t i = 0; i < entry_count && failed == 0; i++)
		failed = add_entry(sites, withdrawals, &entries[i]);
	if (failed == 0)
		json =
		    json_pack("{s:s, s:o, s:I, s:o, s:o, s:[], s:O, s:O}", "type", "revocations",
			      "cluster", cluster_json(d), "version", (json_int_t)version,
			      "issued_at", time_json(issued_at), "not_after", time_json(not_after),
			      "critical", "sites", sites, "withdrawals", withdrawals);
	json_decref(sites);
	json_decref(withdrawals);
	return sign_json(json, TYPE_REVOCATIONS, &d->keys[AUTHORITY], 1, ret_envelope, err);
}

int demo_revocations_amend(const struct demo *d, const struct revocations_document *old,
			   const struct revocations_change *change, char **ret_envelope,
			   struct error *err)
{
	char *text = NULL;
	int rc = revocations_amend(old, change, &text, err);

	if (rc == 0)
		rc = dsse_sign(TYPE_REVOCATIONS, text, strlen(text), &d->keys[AUTHORITY], 1,
			       ret_envelope, err);
	free(text);
	return rc;
}

int demo_policy(const struct demo *d, const char *preset, char **ret_envelope, struct error *err)
{
	const char *text = policy_preset(preset);

	if (text == NULL)
		return error_set(err, -EINVAL, "policy %.80s: there is no preset of this name",
				 preset);
	return dsse_sign(TYPE_POLICY, text, strlen(text), &d->keys[TENANT], 1, ret_envelope, err);
}
