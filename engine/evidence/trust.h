/* What a verifier has seen: the trust root in force, and the highest version (with its digest) of
 * every document, kept in a file so that a replay of an older document is refused after a restart
 * too. Every verifier (driver, node, host, and the offline tools when asked) has one.
 *
 * Accepting is two steps, so that nothing is in force that is not durable: the file is written and
 * synced before the function returns 0 (these are rare and small; it blocks). */
#ifndef EVIDENCE_TRUST_H
#define EVIDENCE_TRUST_H

#include "engine/evidence/dsse.h"

#define TRUST_DOCUMENTS_MAX 16384u /* remembered at once; more is -E_LIMIT */
#define TRUST_ROOTS_MAX	    256u   /* earlier roots remembered */

struct trust;

/* path: the state file, created when missing; NULL: state in memory only (simulator, tests).
 * root_envelope: the root that the operator gave; may be NULL when the state holds one already. If
 * the state holds a newer root, that one is in force. -E_ROLLBACK (the given root is none of those
 * that led to the one in force), -E_BAD_SIGNATURE, -E_WRONG_CLUSTER, -E_CORRUPT (the file is
 * damaged: it is never begun anew by itself, because that would forget what was seen), -ENOENT (no
 * root at all), -EIO and what open(2) returns. One process a file; one thread at a time. */
int trust_open(const char *path, const void *root_envelope, size_t root_size, struct trust **ret,
	       struct error *err);
/* Valid until the next trust_accept_root that returns 0, or trust_close. */
const struct root_document *trust_root(const struct trust *t);
const void *trust_root_envelope(const struct trust *t, size_t *ret_size);
void trust_close(struct trust *t); /* NULL is allowed */

/* A new root: signed by the thresholds of both. Where it replaces all keys of a role, what was seen
 * of the documents that the role signs is forgotten: whoever had those keys may have signed a
 * version that nobody can go beyond, and none of them verifies any more. */
int trust_accept_root(struct trust *t, const void *envelope, size_t size, struct error *err);

/* Opens (verifies, parses) the document and records its version. -E_ROLLBACK: an older version than
 * one seen before, or the same version with another content (then the site is quarantined:
 * trust_quarantined). */
int trust_accept_site(struct trust *t, const void *envelope, size_t size,
		      struct site_document **ret, struct error *err);
int trust_accept_revocations(struct trust *t, const void *envelope, size_t size,
			     struct revocations_document **ret, struct error *err);
/* Where the policies in force are looked up; NULL: there is none of that name. */
struct trust_policies {
	const struct policy_document *(*find)(const char *name, void *arg);
	void *arg;
};

/* Signed by the tenant; or by the operator, if it is no looser than the one in force (in_force may
 * be NULL: then nothing is). -E_DENIED: the operator would loosen it. ret_by_operator may be NULL.
 */
int trust_accept_policy(struct trust *t, const void *envelope, size_t size,
			const struct trust_policies *in_force, struct policy_document **ret,
			bool *ret_by_operator, struct error *err);

/* True once two contents under one version of the site's certificate were seen, or of the snapshot
 * (then for every site): both are refused, and what was opened of them before must be dropped. It
 * survives a restart, and ends with the next higher version. */
bool trust_quarantined(const struct trust *t, const char *site);
/* The same of a policy. */
bool trust_policy_disputed(const struct trust *t, const char *name);

#endif
