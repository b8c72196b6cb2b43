/* The evidence that is in force, and what follows from it: certificates, snapshot and policies as
 * parsed documents with their envelopes, and the verdict of each site under each policy, cached
 * until it may change (new evidence, or its `until`).
 *
 * It is filled from the register at the start, and by the admin's requests, always through trust
 * (signatures, no older version). A site with two contents under one version is quarantined: never
 * eligible; under a policy with two contents under one version no site is.
 *
 * Thread: the driver's reactor. */
#ifndef PLACEMENT_VERDICTS_H
#define PLACEMENT_VERDICTS_H

/* Without memory for a place in a table the element is not in it (hh.tbl is NULL). */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "engine/evidence/evaluate.h"
#include "engine/evidence/trust.h"

#define VERDICT_SITES_MAX    1024u
#define VERDICT_POLICIES_MAX 64u

struct verdict_brief {
	uint64_t epoch; /* of the evidence; 0: never computed */
	bool eligible;
	int64_t until; /* when to look again: the end of what makes it eligible */
	char why[300]; /* when it isn't: the first failed rule */
};

struct verdict_site {
	char name[NAME_SIZE_MAX];
	struct site_document *doc;
	void *envelope;
	size_t envelope_size;
	int64_t
	    told_from; /* since when it is withdrawn by the last snapshot; INT64_MIN: it isn't */
	struct verdict_brief own; /* the certificate alone */
	struct verdict_brief under[VERDICT_POLICIES_MAX];
	UT_hash_handle hh;
};

struct verdict_policy {
	char name[NAME_SIZE_MAX];
	struct policy_document *doc; /* NULL: nothing is in force, but base is held */
	void *envelope;		     /* NULL: a preset as it ships */
	size_t envelope_size;
	bool by_operator; /* then what the tenant signed, which it tightens; NULL: a preset: */
	void *base;
	size_t base_size;
};

struct verdicts {
	struct trust *trust;
	uint64_t epoch;
	int64_t next_change;	    /* no verdict that was computed in this epoch ends before */
	struct verdict_site *sites; /* a hash; in the order of their coming */
	struct verdict_policy policies[VERDICT_POLICIES_MAX];
	uint32_t policy_count;
	struct revocations_document *revocations;
	void *revocations_envelope;
	size_t revocations_size;
	struct verdict_brief unknown; /* the answer for what isn't known */
};

/* With the presets. -ENOMEM, -E_BAD_DOCUMENT. */
int verdicts_init(struct verdicts *v, struct trust *trust, struct error *err);
void verdicts_deinit(struct verdicts *v); /* zeroed memory is allowed */

/* Verify through trust and put in force. The errors of trust_accept_...; -E_LIMIT. The name is that
 * of the document. */
int verdicts_add_site(struct verdicts *v, const void *envelope, size_t size, const char **ret_name,
		      struct error *err);
int verdicts_add_revocations(struct verdicts *v, const void *envelope, size_t size,
			     struct error *err);
/* ret_by_operator: it tightens what was in force before, and the tenant has not signed it. May be
 * NULL. -E_DENIED also when what it tightened is void since. */
int verdicts_add_policy(struct verdicts *v, const void *envelope, size_t size,
			const char **ret_name, bool *ret_by_operator, struct error *err);

/* At the start: a policy of the tenant's that is older than the one that trust has seen last. It is
 * not in force, but what the operator has made of it may be, which the register has beside it.
 * -E_BAD_SIGNATURE and the like: it does not verify under the root in force; -ENOMEM, -E_LIMIT. */
int verdicts_hold_base(struct verdicts *v, const void *envelope, size_t size, struct error *err);

/* What is in force under this name, be it a preset, is not any more. */
void verdicts_void_policy(struct verdicts *v, const char *name);

/* The trust root has changed: what does not verify under it is not in force any more. How many
 * documents that were. */
uint32_t verdicts_root_changed(struct verdicts *v);

const struct verdict_site *verdicts_site(const struct verdicts *v, const char *site);
/* NULL: no such policy. */
const struct policy_document *verdicts_policy(const struct verdicts *v, const char *policy);

/* Whether the site is eligible at now. policy NULL: its certificate alone (a lease). Never NULL;
 * valid until the next call. A site or policy that isn't known is not eligible. */
const struct verdict_brief *verdicts_get(struct verdicts *v, const char *site, const char *policy,
					 int64_t now);
/* The same with every rule that failed; not cached. */
void verdicts_full(struct verdicts *v, const char *site, const char *policy, int64_t now,
		   struct verdict *ret);

/* The first moment after now at which some site may lose its eligibility; INT64_MAX: none. */
int64_t verdicts_next_change(struct verdicts *v, int64_t now);

#endif
