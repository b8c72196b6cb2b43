/* The placement policy: see documents.h. The presets (presets.c) go through this same parser. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/model.h"

#define DISTANCE_MAX_KM	     20038 /* half of the way round */
#define STALENESS_MAX_S	     (366 * 86400)
#define FREEZE_TIMEOUT_MAX_S 86400

static const char what[] = "placement policy";

static const char *const label_states[] = {"in_progress", "qualified", "suspended", "withdrawn",
					   NULL};
static const char *const distinct_values[] = {"campus", "site", "none", NULL};
static const char *const hosts_values[] = {"eligible", "any", NULL};
static const char *const erase_methods[] = {"discard", "overwrite", NULL};
static const char *const on_loss_actions[] = {"freeze", NULL};

#define AT(m) .offset = offsetof(struct label_rule, m)
static const struct member label_rule_members[] = {
    {.name = "scheme", .kind = MEMBER_TEXT, AT(scheme), .min = 1},
    {.name = "min_version", .kind = MEMBER_LABEL_VERSION, AT(min_version)},
    {.name = "layer", .kind = MEMBER_TEXT, AT(layer), .min = 1},
    {.name = "status", .kind = MEMBER_CHOICE, AT(status), .choices = label_states},
};
#undef AT
static const struct schema label_rule_schema = {label_rule_members, ARRAY_SIZE(label_rule_members)};
static const struct member label_rule_item = {.kind = MEMBER_OBJECT, .schema = &label_rule_schema};

static const struct member territory_item = {.kind = MEMBER_TERRITORY};
static const struct member text_item = {.kind = MEMBER_TEXT, .min = 1};
static const struct member jurisdiction_item = {.kind = MEMBER_JURISDICTION_RULE};

#define AT(m) .offset = offsetof(struct policy_document, m)
/* Offsets are within the whole document here, so the tables of its objects are read at its
 * beginning. */
static const struct member ownership_members[] = {
    {.name = "home", .kind = MEMBER_JURISDICTION_RULE, AT(ownership.home)},
    {.name = "max_individual_ppm",
     .kind = MEMBER_INTEGER,
     AT(ownership.max_individual_ppm),
     .min = 0,
     .max = SHARES_MAX_PPM},
    {.name = "max_collective_ppm",
     .kind = MEMBER_INTEGER,
     AT(ownership.max_collective_ppm),
     .min = 0,
     .max = SHARES_MAX_PPM},
    {.name = "veto", .kind = MEMBER_BOOL, AT(ownership.veto)},
    {.name = "board_majority", .kind = MEMBER_BOOL, AT(ownership.board_majority)},
};
static const struct schema ownership_schema = {ownership_members, ARRAY_SIZE(ownership_members)};

static const struct member operator_members[] = {
    {.name = "seat", .kind = MEMBER_JURISDICTION_RULE, AT(operator.seat)},
    {.name = "central_administration",
     .kind = MEMBER_JURISDICTION_RULE,
     AT(operator.central_administration)},
    {.name = "main_establishment",
     .kind = MEMBER_JURISDICTION_RULE,
     AT(operator.main_establishment)},
};
static const struct schema operator_schema = {operator_members, ARRAY_SIZE(operator_members)};

#define JURISDICTIONS                                                                              \
	.kind = MEMBER_LIST, .item = &jurisdiction_item, .item_size = sizeof(struct jurisdiction)
static const struct member forbidden_members[] = {
    {.name = "operator", AT(forbidden.operator), JURISDICTIONS},
    {.name = "supplier", AT(forbidden.supplier), JURISDICTIONS},
    {.name = "technical_access", AT(forbidden.technical_access), JURISDICTIONS},
    {.name = "admin", AT(forbidden.admin), JURISDICTIONS},
    {.name = "support", AT(forbidden.support), JURISDICTIONS},
};
static const struct schema forbidden_schema = {forbidden_members, ARRAY_SIZE(forbidden_members)};

static const struct member on_loss_members[] = {
    {.name = "action", .kind = MEMBER_CHOICE, AT(on_loss.action), .choices = on_loss_actions},
    {.name = "timeout_s",
     .kind = MEMBER_INTEGER,
     AT(on_loss.timeout_s),
     .min = 0,
     .max = FREEZE_TIMEOUT_MAX_S},
};
static const struct schema on_loss_schema = {on_loss_members, ARRAY_SIZE(on_loss_members)};

static const struct member policy_members[] = {
    {.name = "cluster", .kind = MEMBER_UUID, AT(cluster)},
    {.name = "name", .kind = MEMBER_NAME, AT(name), .required = true},
    {.name = "version",
     .kind = MEMBER_INTEGER,
     AT(version),
     .min = 1,
     .max = VERSION_MAX,
     .required = true},
    {.name = "issued_at", .kind = MEMBER_TIME, AT(issued_at)},
    {.name = "territory",
     .kind = MEMBER_LIST,
     AT(territory),
     .item = &territory_item,
     .item_size = sizeof(const char *)},
    {.name = "labels",
     .kind = MEMBER_LIST,
     AT(labels),
     .item = &label_rule_item,
     .item_size = sizeof(struct label_rule)},
    {.name = "ownership", .kind = MEMBER_OBJECT, .schema = &ownership_schema},
    {.name = "operator", .kind = MEMBER_OBJECT, .schema = &operator_schema},
    {.name = "forbidden_jurisdictions", .kind = MEMBER_OBJECT, .schema = &forbidden_schema},
    {.name = "exposure",
     .kind = MEMBER_LIST,
     AT(exposure),
     .item = &text_item,
     .item_size = sizeof(const char *)},
    {.name = "replicas", .kind = MEMBER_INTEGER, AT(replicas), .min = 1, .max = REPLICAS_MAX},
    {.name = "min_acks", .kind = MEMBER_INTEGER, AT(min_acks), .min = 1, .max = REPLICAS_MAX},
    {.name = "distinct", .kind = MEMBER_CHOICE, AT(distinct), .choices = distinct_values},
    {.name = "min_distance_km",
     .kind = MEMBER_NUMBER,
     AT(min_distance_km),
     .min = 0,
     .max = DISTANCE_MAX_KM},
    {.name = "hosts", .kind = MEMBER_CHOICE, AT(hosts), .choices = hosts_values},
    {.name = "staleness_s",
     .kind = MEMBER_INTEGER,
     AT(staleness_s),
     .min = 1,
     .max = STALENESS_MAX_S},
    {.name = "on_loss", .kind = MEMBER_OBJECT, .schema = &on_loss_schema},
    {.name = "erase", .kind = MEMBER_CHOICE, AT(erase), .choices = erase_methods},
};
#undef AT
static const struct schema policy_schema = {policy_members, ARRAY_SIZE(policy_members)};

/* Fewer acknowledgements than a majority could lose an acknowledged write with a minority of the
 * replicas. */
static int check_acks(const struct policy_document *d, struct error *err)
{
	char value[32];

	if (d->replicas == INTEGER_MISSING || d->min_acks == INTEGER_MISSING ||
	    (d->min_acks > d->replicas / 2 && d->min_acks <= d->replicas))
		return 0;
	snprintf(value, sizeof value, "%lld", (long long)d->min_acks);
	return document_error(err, what, "min_acks", value,
			      "with %lld replicas it must be from %lld (a majority) to %lld",
			      (long long)d->replicas, (long long)d->replicas / 2 + 1,
			      (long long)d->replicas);
}

int policy_parse(const void *json, size_t size_bytes, struct policy_document **ret,
		 struct error *err)
{
	struct policy_document *d = calloc(1, sizeof *d);
	int rc;

	if (d == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", what);
	rc = schema_parse(what, "policy", &policy_schema, json, size_bytes, d, &d->json, err);
	if (rc == 0)
		rc = check_acks(d, err);
	if (rc == 0)
		rc = document_digest(json, size_bytes, d->digest);
	if (rc != 0) {
		policy_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void policy_free(struct policy_document *d)
{
	if (d == NULL)
		return;
	schema_release(&policy_schema, d);
	json_decref(d->json);
	free(d);
}

const char *policy_name(const struct policy_document *d)
{
	return d->name;
}

uint64_t policy_version(const struct policy_document *d)
{
	return (uint64_t)d->version;
}

/* A policy that leaves one of the following out makes no site eligible (evaluate.c), so what they
 * return then only has to be the strict side. */

uint32_t policy_replicas(const struct policy_document *d)
{
	return d->replicas == INTEGER_MISSING ? 3 : (uint32_t)d->replicas;
}

uint32_t policy_min_acks(const struct policy_document *d)
{
	return d->min_acks == INTEGER_MISSING ? policy_replicas(d) : (uint32_t)d->min_acks;
}

const char *policy_distinct(const struct policy_document *d)
{
	return d->distinct == NULL ? "campus" : d->distinct;
}

double policy_min_distance_km(const struct policy_document *d)
{
	return d->min_distance_km >= 0 ? d->min_distance_km : DISTANCE_MAX_KM;
}

bool policy_host_must_be_eligible(const struct policy_document *d)
{
	return d->hosts == NULL || strcmp(d->hosts, "any") != 0;
}

uint64_t policy_staleness_s(const struct policy_document *d)
{
	return d->staleness_s == INTEGER_MISSING ? 0 : (uint64_t)d->staleness_s;
}

uint32_t policy_freeze_timeout_s(const struct policy_document *d)
{
	return d->on_loss.timeout_s == INTEGER_MISSING ? 0 : (uint32_t)d->on_loss.timeout_s;
}

const char *policy_erase(const struct policy_document *d)
{
	return d->erase == NULL ? "overwrite" : d->erase;
}

int policy_erase_strictness(const char *method)
{
	static const char *const methods[] = {"drop", "discard", "overwrite"};

	if (method[0] == '\0')
		return 0;
	for (int i = 0; i < (int)ARRAY_SIZE(methods); i++)
		if (strcmp(method, methods[i]) == 0)
			return i;
	return -1;
}

const uint8_t *policy_digest(const struct policy_document *d)
{
	return d->digest;
}
