/* Evaluation: (certificate, snapshot, policy, now) -> eligible until T, or every rule that failed.
 * One pure function, used by the placement driver, by the offline check, and by whoever doubts
 * either. */
#ifndef EVIDENCE_EVALUATE_H
#define EVIDENCE_EVALUATE_H

#include "engine/evidence/documents.h"

#define FAILED_RULES_MAX 64u
#define SOURCE_SIZE	 104u

struct failed_rule {
	/* "certificate", "revocations", "territory", "labels", "ownership", "operator",
	 * "forbidden_jurisdictions", "exposure", "distinct", "min_distance_km"; "root"; "policy"
	 * for what a policy leaves out. */
	char rule[48];
	/* Of the certificate, as "ownership.holders[1].capital_ppm"; of the snapshot, as
	 * "revocations.not_after"; of the policy or the root, as "policy.territory". */
	char field[96];
	char value[160]; /* what it is; "(missing)" */
	char bound[160]; /* what is asked */
	/* The document that the field is of: "site par version 3", "revocations version 41", ... */
	char source[SOURCE_SIZE];
};

struct verdict {
	bool eligible;
	/* Exclusive: the first moment at which what is true now may cease to be: certificate,
	 * label, snapshot expiry, staleness bound, a withdrawal to come. 0 when not eligible. */
	int64_t until;
	/* Whose end that is: the field, and the document that it is of. Empty when not eligible. */
	char until_field[96], until_source[SOURCE_SIZE];
	uint32_t failed_count; /* all of them are counted; the first FAILED_RULES_MAX are kept */
	struct failed_rule failed[FAILED_RULES_MAX];
};

/* site or revocations may be NULL: evidence that is absent is a refusal, and the verdict says so.
 * now: ns since 1970. A snapshot that claims to be issued after now (by more than
 * EVALUATE_CLOCK_BOUND_MS) is refused: then it or the clock is wrong. */
#define EVALUATE_CLOCK_BOUND_MS 500u
void evaluate(const struct site_document *site, const struct revocations_document *revocations,
	      const struct policy_document *policy, int64_t now, struct verdict *ret_verdict);

/* Whether the site's certificate alone is in force (validity, current version, not withdrawn,
 * snapshot not expired): what a node's lease needs before any policy. Same form of answer, rules
 * "certificate" and "revocations". */
void evaluate_site(const struct site_document *site, const struct revocations_document *revocations,
		   int64_t now, struct verdict *ret_verdict);

/* Folds the trust root's own end into a verdict: everything rests on it. */
void evaluate_root(const struct root_document *root, int64_t now, struct verdict *verdict);

/* Great-circle distance in km. */
double distance_km(double lat1, double lon1, double lat2, double lon2);

#endif
