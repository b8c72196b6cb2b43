/* The revocation snapshot: see documents.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/model.h"

static const char what[] = "revocation snapshot";

static const struct member entry_item = {.kind = MEMBER_INTEGER,
					 .offset = offsetof(struct site_entry, version),
					 .min = 1,
					 .max = VERSION_MAX};

#define AT(m) .offset = offsetof(struct withdrawal, m)
/* A withdrawal that doesn't say of what, or from when, cannot be obeyed: so these are required. */
static const struct member withdrawal_members[] = {
    {.name = "site", .kind = MEMBER_NAME, AT(site), .required = true},
    {.name = "effective_from", .kind = MEMBER_TIME, AT(effective_from), .required = true},
    {.name = "reason", .kind = MEMBER_TEXT, AT(reason)},
};
#undef AT
static const struct schema withdrawal_schema = {withdrawal_members, ARRAY_SIZE(withdrawal_members)};
static const struct member withdrawal_item = {.kind = MEMBER_OBJECT, .schema = &withdrawal_schema};

#define AT(m) .offset = offsetof(struct revocations_document, m)
static const struct member revocations_members[] = {
    {.name = "cluster", .kind = MEMBER_UUID, AT(cluster), .required = true},
    {.name = "version",
     .kind = MEMBER_INTEGER,
     AT(version),
     .min = 1,
     .max = VERSION_MAX,
     .required = true},
    {.name = "issued_at", .kind = MEMBER_TIME, AT(issued_at)},
    {.name = "not_after", .kind = MEMBER_TIME, AT(not_after)},
    {.name = "sites",
     .kind = MEMBER_MAP,
     AT(sites),
     .item = &entry_item,
     .item_size = sizeof(struct site_entry)},
    {.name = "withdrawals",
     .kind = MEMBER_LIST,
     AT(withdrawals),
     .item = &withdrawal_item,
     .item_size = sizeof(struct withdrawal)},
};
#undef AT
static const struct schema revocations_schema = {revocations_members,
						 ARRAY_SIZE(revocations_members)};

static int check(const struct revocations_document *d, struct error *err)
{
	char text[40];

	for (uint32_t i = 0; i < d->sites.count; i++) {
		const char *site = LIST_AT(&d->sites, struct site_entry, i)->site;

		if (!text_is_name(site))
			return document_error(
			    err, what, "a member of sites", site,
			    "a name has 1 to 63 of a-z 0-9 . _ - and begins with a "
			    "letter or digit");
	}
	if (d->issued_at != TIME_MISSING && d->not_after != TIME_MISSING &&
	    d->issued_at >= d->not_after)
		return document_error(err, what, "not_after",
				      text_time(d->not_after, text, sizeof text),
				      "it must lie after issued_at");
	return 0;
}

int revocations_parse(const void *json, size_t size_bytes, struct revocations_document **ret,
		      struct error *err)
{
	struct revocations_document *d = calloc(1, sizeof *d);
	int rc;

	if (d == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", what);
	rc = schema_parse(what, "revocations", &revocations_schema, json, size_bytes, d, &d->json,
			  err);
	if (rc == 0)
		rc = check(d, err);
	if (rc == 0)
		rc = document_digest(json, size_bytes, d->digest);
	if (rc != 0) {
		revocations_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void revocations_free(struct revocations_document *d)
{
	if (d == NULL)
		return;
	schema_release(&revocations_schema, d);
	json_decref(d->json);
	free(d);
}

const struct uuid *revocations_cluster(const struct revocations_document *d)
{
	return &d->cluster.uuid;
}

uint64_t revocations_version(const struct revocations_document *d)
{
	return (uint64_t)d->version;
}

int64_t revocations_issued_at(const struct revocations_document *d)
{
	return d->issued_at;
}

int64_t revocations_not_after(const struct revocations_document *d)
{
	return d->not_after;
}

uint64_t revocations_site_version(const struct revocations_document *d, const char *site)
{
	for (uint32_t i = 0; i < d->sites.count; i++)
		if (strcmp(LIST_AT(&d->sites, struct site_entry, i)->site, site) == 0)
			return (uint64_t)LIST_AT(&d->sites, struct site_entry, i)->version;
	return 0;
}

bool revocations_withdrawn(const struct revocations_document *d, const char *site, int64_t now,
			   int64_t *ret_from, const char **ret_reason)
{
	const struct withdrawal *first = NULL;

	for (uint32_t i = 0; i < d->withdrawals.count; i++) {
		const struct withdrawal *w = LIST_AT(&d->withdrawals, struct withdrawal, i);

		if (strcmp(w->site, site) == 0 && w->effective_from <= now &&
		    (first == NULL || w->effective_from < first->effective_from))
			first = w;
	}
	if (first == NULL)
		return false;
	if (ret_from != NULL)
		*ret_from = first->effective_from;
	if (ret_reason != NULL)
		*ret_reason = first->reason == NULL ? "" : first->reason;
	return true;
}

int64_t revocations_next_withdrawal(const struct revocations_document *d, const char *site,
				    int64_t now)
{
	int64_t next = INT64_MAX;

	for (uint32_t i = 0; i < d->withdrawals.count; i++) {
		const struct withdrawal *w = LIST_AT(&d->withdrawals, struct withdrawal, i);

		if (strcmp(w->site, site) == 0 && w->effective_from > now)
			next = MIN(next, w->effective_from);
	}
	return next;
}

/* -- composing a new one ---------------------------------------------------------------------- */

/* A time as a document writes it: whole seconds, rounded down. */
static json_t *time_json(int64_t ns)
{
	char text[40];

	return json_string(text_time(ns - ns % (int64_t)NS_PER_S, text, sizeof text));
}

/* To the millisecond: one that was cut to the second would be told late, by up to a second. */
static json_t *withdrawal_json(const char *site, int64_t from, const char *reason)
{
	char text[40];

	return json_pack("{s:s, s:s, s:s}", "site", site, "effective_from",
			 text_time(from, text, sizeof text), "reason",
			 reason == NULL ? "" : reason);
}

static void remove_withdrawals(json_t *withdrawals, const char *site)
{
	for (size_t i = json_array_size(withdrawals); i-- > 0;) {
		const json_t *w = json_array_get(withdrawals, i);

		if (strcmp(json_string_value(json_object_get(w, "site")), site) == 0)
			json_array_remove(withdrawals, i);
	}
}

int revocations_amend(const struct revocations_document *old,
		      const struct revocations_change *change, char **ret_json, struct error *err)
{
	json_t *json = json_deep_copy(old->json);
	json_t *sites, *withdrawals;
	int failed = 0;
	char *text = NULL;

	PRE(change->issued_at < change->not_after);
	if (json == NULL)
		goto out;
	if (json_object_get(json, "sites") == NULL)
		failed |= json_object_set_new(json, "sites", json_object());
	if (json_object_get(json, "withdrawals") == NULL)
		failed |= json_object_set_new(json, "withdrawals", json_array());
	sites = json_object_get(json, "sites");
	withdrawals = json_object_get(json, "withdrawals");
	failed |= json_object_set_new(json, "version", json_integer(old->version + 1));
	failed |= json_object_set_new(json, "issued_at", time_json(change->issued_at));
	failed |= json_object_set_new(json, "not_after", time_json(change->not_after));
	if (failed == 0 && change->site != NULL && change->site_version != 0) {
		remove_withdrawals(withdrawals, change->site);
		failed |= json_object_set_new(sites, change->site,
					      json_integer((json_int_t)change->site_version));
	}
	if (failed == 0 && change->site != NULL && change->withdraw)
		failed |= json_array_append_new(
		    withdrawals,
		    withdrawal_json(change->site, change->effective_from, change->reason));
	if (failed == 0)
		text = json_dumps(json, JSON_INDENT(2));
out:
	json_decref(json);
	if (text == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", what);
	*ret_json = text;
	return 0;
}
