/* The site certificate: see documents.h, and DOCUMENTS.md for what each member means. Beyond the
 * kinds of its members a certificate must agree with itself: the country with the territory, the
 * shares with the whole, the beginnings with the ends. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/model.h"

static const char what[] = "site certificate";

static const char *const label_states[] = {"in_progress", "qualified", "suspended", "withdrawn",
					   NULL};

#define AT(m) .offset = offsetof(struct holder, m)
#define PPM   .min = 0, .max = SHARES_MAX_PPM
static const struct member holder_members[] = {
    {.name = "name", .kind = MEMBER_TEXT, AT(name), .min = 1},
    {.name = "jurisdiction", .kind = MEMBER_JURISDICTION, AT(jurisdiction)},
    {.name = "capital_ppm", .kind = MEMBER_INTEGER, AT(capital_ppm), PPM},
    {.name = "votes_ppm", .kind = MEMBER_INTEGER, AT(votes_ppm), PPM},
    {.name = "veto", .kind = MEMBER_BOOL, AT(veto)},
    {.name = "board_majority", .kind = MEMBER_BOOL, AT(board_majority)},
};
#undef AT
static const struct schema holder_schema = {holder_members, ARRAY_SIZE(holder_members)};
static const struct member holder_item = {.kind = MEMBER_OBJECT, .schema = &holder_schema};

#define AT(m) .offset = offsetof(struct supplier, m)
static const struct member supplier_members[] = {
    {.name = "role", .kind = MEMBER_TEXT, AT(role)},
    {.name = "name", .kind = MEMBER_TEXT, AT(name), .min = 1},
    {.name = "jurisdiction", .kind = MEMBER_JURISDICTION, AT(jurisdiction)},
    {.name = "technical_access", .kind = MEMBER_BOOL, AT(technical_access)},
};
#undef AT
static const struct schema supplier_schema = {supplier_members, ARRAY_SIZE(supplier_members)};
static const struct member supplier_item = {.kind = MEMBER_OBJECT, .schema = &supplier_schema};

#define AT(m) .offset = offsetof(struct exposure, m)
static const struct member exposure_members[] = {
    {.name = "law", .kind = MEMBER_TEXT, AT(law), .min = 1},
    {.name = "basis", .kind = MEMBER_TEXT, AT(basis)},
};
#undef AT
static const struct schema exposure_schema = {exposure_members, ARRAY_SIZE(exposure_members)};
static const struct member exposure_item = {.kind = MEMBER_OBJECT, .schema = &exposure_schema};

static const struct member text_item = {.kind = MEMBER_TEXT, .min = 1};
static const struct member jurisdiction_item = {.kind = MEMBER_JURISDICTION};

#define AT(m) .offset = offsetof(struct label, m)
static const struct member label_members[] = {
    {.name = "scheme", .kind = MEMBER_TEXT, AT(scheme), .min = 1},
    {.name = "version", .kind = MEMBER_TEXT, AT(version), .min = 1},
    {.name = "layers",
     .kind = MEMBER_LIST,
     AT(layers),
     .item = &text_item,
     .item_size = sizeof(const char *)},
    {.name = "service", .kind = MEMBER_TEXT, AT(service), .min = 1},
    {.name = "status", .kind = MEMBER_CHOICE, AT(status), .choices = label_states},
    {.name = "from", .kind = MEMBER_TIME, AT(from)},
    {.name = "until", .kind = MEMBER_TIME, AT(until)},
    {.name = "decision", .kind = MEMBER_TEXT, AT(decision)},
};
#undef AT
static const struct schema label_schema = {label_members, ARRAY_SIZE(label_members)};
static const struct member label_item = {.kind = MEMBER_OBJECT, .schema = &label_schema};

#define AT(m) .offset = offsetof(struct site_document, m)
/* Offsets are within the whole document here, so the tables of its objects are read at its
 * beginning. */
static const struct member facility_members[] = {
    {.name = "country", .kind = MEMBER_COUNTRY, AT(facility.country)},
    {.name = "territory", .kind = MEMBER_SUBDIVISION, AT(facility.territory)},
    {.name = "commune", .kind = MEMBER_TEXT, AT(facility.commune), .min = 1},
    {.name = "campus", .kind = MEMBER_TEXT, AT(facility.campus), .min = 1},
    {.name = "building", .kind = MEMBER_TEXT, AT(facility.building)},
    {.name = "latitude", .kind = MEMBER_NUMBER, AT(facility.latitude), .min = -90, .max = 90},
    {.name = "longitude", .kind = MEMBER_NUMBER, AT(facility.longitude), .min = -180, .max = 180},
};
static const struct schema facility_schema = {facility_members, ARRAY_SIZE(facility_members)};

static const struct member operator_members[] = {
    {.name = "legal_id", .kind = MEMBER_TEXT, AT(operator.legal_id), .min = 1},
    {.name = "name", .kind = MEMBER_TEXT, AT(operator.name), .min = 1},
    {.name = "seat", .kind = MEMBER_JURISDICTION, AT(operator.seat)},
    {.name = "central_administration",
     .kind = MEMBER_JURISDICTION,
     AT(operator.central_administration)},
    {.name = "main_establishment", .kind = MEMBER_JURISDICTION, AT(operator.main_establishment)},
};
static const struct schema operator_schema = {operator_members, ARRAY_SIZE(operator_members)};

static const struct member ownership_members[] = {
    {.name = "as_of", .kind = MEMBER_DATE, AT(ownership.as_of)},
    {.name = "holders",
     .kind = MEMBER_LIST,
     AT(ownership.holders),
     .item = &holder_item,
     .item_size = sizeof(struct holder),
     .not_empty = true},
};
static const struct schema ownership_schema = {ownership_members, ARRAY_SIZE(ownership_members)};

static const struct member site_members[] = {
    {.name = "cluster", .kind = MEMBER_UUID, AT(cluster), .required = true},
    {.name = "site", .kind = MEMBER_NAME, AT(site), .required = true},
    {.name = "version",
     .kind = MEMBER_INTEGER,
     AT(version),
     .min = 1,
     .max = VERSION_MAX,
     .required = true},
    {.name = "issued_at", .kind = MEMBER_TIME, AT(issued_at)},
    {.name = "not_before", .kind = MEMBER_TIME, AT(not_before)},
    {.name = "not_after", .kind = MEMBER_TIME, AT(not_after)},
    {.name = "facility", .kind = MEMBER_OBJECT, .schema = &facility_schema},
    {.name = "operator", .kind = MEMBER_OBJECT, .schema = &operator_schema},
    {.name = "ownership", .kind = MEMBER_OBJECT, .schema = &ownership_schema},
    {.name = "suppliers",
     .kind = MEMBER_LIST,
     AT(suppliers),
     .item = &supplier_item,
     .item_size = sizeof(struct supplier)},
    {.name = "exposure",
     .kind = MEMBER_LIST,
     AT(exposure),
     .item = &exposure_item,
     .item_size = sizeof(struct exposure)},
    {.name = "admin_locations",
     .kind = MEMBER_LIST,
     AT(admin_locations),
     .item = &jurisdiction_item,
     .item_size = sizeof(struct jurisdiction)},
    {.name = "support_locations",
     .kind = MEMBER_LIST,
     AT(support_locations),
     .item = &jurisdiction_item,
     .item_size = sizeof(struct jurisdiction)},
    {.name = "labels",
     .kind = MEMBER_LIST,
     AT(labels),
     .item = &label_item,
     .item_size = sizeof(struct label)},
    {.name = "services",
     .kind = MEMBER_LIST,
     AT(services),
     .item = &text_item,
     .item_size = sizeof(const char *)},
    /* Compared with what a TLS peer shows: anything but 64 hexadecimal digits never matches. */
    {.name = "node_ca_sha256", .kind = MEMBER_TEXT, AT(node_ca_sha256)},
};
#undef AT
static const struct schema site_schema = {site_members, ARRAY_SIZE(site_members)};

static int check_place(const struct site_document *d, struct error *err)
{
	const char *country = d->facility.country, *territory = d->facility.territory;

	if (country != NULL && territory != NULL && !place_agrees(country, territory))
		return document_error(
		    err, what, "facility.territory", territory,
		    "that is not in facility.country, which is %s (the code of the "
		    "place itself: GP with FR-971)",
		    country);
	return 0;
}

static int check_times(const struct site_document *d, struct error *err)
{
	char after[40], text[40], path[PATH_SIZE_MAX];

	text_time(d->not_after, after, sizeof after);
	if (d->not_after == TIME_MISSING)
		after[0] = '\0';
	else if (d->not_before != TIME_MISSING && d->not_before >= d->not_after)
		return document_error(err, what, "not_after", after,
				      "it must lie after not_before, which is %s",
				      text_time(d->not_before, text, sizeof text));
	else if (d->issued_at != TIME_MISSING && d->issued_at >= d->not_after)
		return document_error(err, what, "not_after", after,
				      "it must lie after issued_at, which is %s",
				      text_time(d->issued_at, text, sizeof text));
	for (uint32_t i = 0; i < d->labels.count; i++) {
		const struct label *l = LIST_AT(&d->labels, struct label, i);

		if (l->from == TIME_MISSING || l->until == TIME_MISSING || l->from < l->until)
			continue;
		snprintf(path, sizeof path, "labels[%u].until", i);
		return document_error(err, what, path, text_time(l->until, text, sizeof text),
				      "it must lie after labels[%u].from", i);
	}
	return 0;
}

static int check_shares(const struct site_document *d, struct error *err)
{
	int64_t capital = 0, votes = 0;
	char value[32];

	for (uint32_t i = 0; i < d->ownership.holders.count; i++) {
		const struct holder *h = LIST_AT(&d->ownership.holders, struct holder, i);

		capital += h->capital_ppm == INTEGER_MISSING ? 0 : h->capital_ppm;
		votes += h->votes_ppm == INTEGER_MISSING ? 0 : h->votes_ppm;
	}
	if (capital <= SHARES_MAX_PPM && votes <= SHARES_MAX_PPM)
		return 0;
	snprintf(value, sizeof value, "%lld",
		 (long long)(capital > SHARES_MAX_PPM ? capital : votes));
	return document_error(err, what,
			      capital > SHARES_MAX_PPM
				  ? "the sum of ownership.holders[].capital_ppm"
				  : "the sum of ownership.holders[].votes_ppm",
			      value, "the whole is %d parts per million", SHARES_MAX_PPM);
}

static bool same_text(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static bool labels_overlap(const struct label *a, const struct label *b)
{
	if (a->from == TIME_MISSING || a->until == TIME_MISSING || b->from == TIME_MISSING ||
	    b->until == TIME_MISSING || a->from >= b->until || b->from >= a->until)
		return false;
	for (uint32_t i = 0; i < a->layers.count; i++)
		for (uint32_t k = 0; k < b->layers.count; k++)
			if (strcasecmp(*LIST_AT(&a->layers, const char *, i),
				       *LIST_AT(&b->layers, const char *, k)) == 0)
				return true;
	return false;
}

/* One decision about one service cannot have two outcomes at one moment. */
static int check_labels(const struct site_document *d, struct error *err)
{
	for (uint32_t i = 0; i < d->labels.count; i++)
		for (uint32_t k = 0; k < i; k++) {
			const struct label *a = LIST_AT(&d->labels, struct label, i);
			const struct label *b = LIST_AT(&d->labels, struct label, k);
			char path[PATH_SIZE_MAX];

			if (!same_text(a->scheme, b->scheme) ||
			    !same_text(a->decision, b->decision) ||
			    !same_text(a->service, b->service) ||
			    !same_text(a->version, b->version) || a->status == NULL ||
			    b->status == NULL || same_text(a->status, b->status) ||
			    !labels_overlap(a, b))
				continue;
			snprintf(path, sizeof path, "labels[%u].status", i);
			return document_error(
			    err, what, path, a->status,
			    "labels[%u] says %s of the same decision at the same time", k,
			    b->status);
		}
	return 0;
}

int site_parse(const void *json, size_t size_bytes, struct site_document **ret, struct error *err)
{
	struct site_document *d = calloc(1, sizeof *d);
	int rc;

	if (d == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", what);
	rc = schema_parse(what, "site", &site_schema, json, size_bytes, d, &d->json, err);
	if (rc == 0)
		rc = check_place(d, err);
	if (rc == 0)
		rc = check_times(d, err);
	if (rc == 0)
		rc = check_shares(d, err);
	if (rc == 0)
		rc = check_labels(d, err);
	if (rc == 0)
		rc = document_digest(json, size_bytes, d->digest);
	if (rc != 0) {
		site_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void site_free(struct site_document *d)
{
	if (d == NULL)
		return;
	schema_release(&site_schema, d);
	json_decref(d->json);
	free(d);
}

static const char *or_empty(const char *text)
{
	return text == NULL ? "" : text;
}

const struct uuid *site_cluster(const struct site_document *d)
{
	return &d->cluster.uuid;
}

const char *site_name(const struct site_document *d)
{
	return d->site;
}

uint64_t site_version(const struct site_document *d)
{
	return (uint64_t)d->version;
}

const char *site_campus(const struct site_document *d)
{
	return or_empty(d->facility.campus);
}

const char *site_territory(const struct site_document *d)
{
	return or_empty(d->facility.territory);
}

const char *site_operator(const struct site_document *d)
{
	return or_empty(d->operator.name);
}

int64_t site_not_before(const struct site_document *d)
{
	return d->not_before;
}

int64_t site_not_after(const struct site_document *d)
{
	return d->not_after;
}

bool site_position(const struct site_document *d, double *ret_latitude, double *ret_longitude)
{
	if (isnan(d->facility.latitude) || isnan(d->facility.longitude))
		return false;
	*ret_latitude = d->facility.latitude;
	*ret_longitude = d->facility.longitude;
	return true;
}
