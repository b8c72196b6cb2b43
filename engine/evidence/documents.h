/* The documents that people author and sign, parsed: trust root, site certificate, revocation
 * snapshot, placement policy. Their shapes and meaning: engine/evidence/DOCUMENTS.md.
 *
 * A document is first verified in its envelope (dsse.h), then parsed here from the payload; parsing
 * is strict: a member of the wrong kind, a duplicate member, a contradiction inside the document,
 * or a name in `critical` that this code does not know makes the document invalid (-E_BAD_DOCUMENT,
 * the text names the member, the value and the bound). A member that is missing is remembered as
 * missing, and fails the rule that needs it. Pure: no I/O, no clock. Parsed documents are
 * immutable, and freed with the ..._free of their kind, which accepts NULL. */
#ifndef EVIDENCE_DOCUMENTS_H
#define EVIDENCE_DOCUMENTS_H

#include "engine/base/error.h"
#include "engine/base/types.h"

#define DOCUMENT_SIZE_MAX (1u << 20) /* bytes of payload */
#define LIST_MAX	  256u	     /* members of any list in a document */

#define TYPE_ROOT	 "application/vnd.pave.root+json"
#define TYPE_SITE	 "application/vnd.pave.site+json"
#define TYPE_REVOCATIONS "application/vnd.pave.revocations+json"
#define TYPE_POLICY	 "application/vnd.pave.policy+json"
#define TYPE_PERMIT	 "application/vnd.pave.permit"
#define TYPE_LEASE	 "application/vnd.pave.lease"

struct root_document;
struct site_document;
struct revocations_document;
struct policy_document;

int root_parse(const void *json, size_t size_bytes, struct root_document **ret, struct error *err);
int site_parse(const void *json, size_t size_bytes, struct site_document **ret, struct error *err);
int revocations_parse(const void *json, size_t size_bytes, struct revocations_document **ret,
		      struct error *err);
int policy_parse(const void *json, size_t size_bytes, struct policy_document **ret,
		 struct error *err);

void root_free(struct root_document *d);
void site_free(struct site_document *d);
void revocations_free(struct revocations_document *d);
void policy_free(struct policy_document *d);

/* -- what others need to know of them --------------------------------------------------------- */

const struct uuid *root_cluster(const struct root_document *d);
uint64_t root_version(const struct root_document *d);
int64_t root_not_after(const struct root_document *d);
/* SHA-256 of the payload that it was parsed from. */
const uint8_t *root_digest(const struct root_document *d);

/* Names of the keys of a role, one by one; NULL: there are no more, or there is no such role. */
const char *root_role_key(const struct root_document *d, const char *role, uint32_t i);

const struct uuid *site_cluster(const struct site_document *d);
const char *site_name(const struct site_document *d);
uint64_t site_version(const struct site_document *d);
const char *site_campus(const struct site_document *d);	   /* "" when missing */
const char *site_territory(const struct site_document *d); /* "" when missing */
const char *site_operator(const struct site_document *d);  /* "" when missing */
int64_t site_not_before(const struct site_document *d);	   /* INT64_MIN when missing */
int64_t site_not_after(const struct site_document *d);	   /* INT64_MIN when missing */
/* Degrees; false when missing. */
bool site_position(const struct site_document *d, double *ret_latitude, double *ret_longitude);

const struct uuid *revocations_cluster(const struct revocations_document *d);
uint64_t revocations_version(const struct revocations_document *d);
int64_t revocations_issued_at(const struct revocations_document *d); /* INT64_MIN when missing */
int64_t revocations_not_after(const struct revocations_document *d); /* INT64_MIN when missing */
/* The version of the site's certificate that is in force; 0: the snapshot doesn't list the site. */
uint64_t revocations_site_version(const struct revocations_document *d, const char *site);
/* True when the site has a withdrawal with effective_from <= now. ret_from, ret_reason may be NULL.
 */
bool revocations_withdrawn(const struct revocations_document *d, const char *site, int64_t now,
			   int64_t *ret_from, const char **ret_reason);
/* The first moment after now at which a withdrawal of the site takes effect; INT64_MAX: none. */
int64_t revocations_next_withdrawal(const struct revocations_document *d, const char *site,
				    int64_t now);

/* What changes from one snapshot to the next; the version goes up by one. */
struct revocations_change {
	int64_t issued_at, not_after; /* ns; written in whole seconds */
	const char *site;	      /* NULL: nothing but the times */
	uint64_t
	    site_version; /* puts this version in force and lifts the site's withdrawals; 0: no */
	bool withdraw;
	int64_t effective_from; /* written in whole milliseconds, rounded down */
	const char *reason;	/* NULL: none given */
};

/* The text of the next snapshot, to be signed: malloc'd. Unknown members of the old one are kept.
 * -ENOMEM. */
int revocations_amend(const struct revocations_document *old,
		      const struct revocations_change *change, char **ret_json, struct error *err);

const char *policy_name(const struct policy_document *d);
uint64_t policy_version(const struct policy_document *d);
uint32_t policy_replicas(const struct policy_document *d);
uint32_t policy_min_acks(const struct policy_document *d);
const char *policy_distinct(const struct policy_document *d); /* "campus", "site", "none" */
double policy_min_distance_km(const struct policy_document *d);
bool policy_host_must_be_eligible(const struct policy_document *d);
uint64_t policy_staleness_s(const struct policy_document *d);
uint32_t policy_freeze_timeout_s(const struct policy_document *d);
/* What is done with the place of copies that are erased: "discard" or "overwrite". */
const char *policy_erase(const struct policy_document *d);
/* How much a method of erasing does, to be compared: of a policy's two, of "drop" (only forgotten;
 * "" means that too) which is less than either; negative: it is not known. */
int policy_erase_strictness(const char *method);
/* SHA-256 of the payload that it was parsed from. */
const uint8_t *policy_digest(const struct policy_document *d);

/* The policies that ship with the product: secnumcloud-fr, cloud-de-confiance, hds, dev. NULL:
 * no such name. The text is static JSON. */
const char *policy_preset(const char *name);
const char *const *policy_preset_names(void); /* NULL at the end */

#endif
