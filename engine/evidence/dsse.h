/* DSSE envelopes (Dead Simple Signing Envelope v1.0.2, secure-systems-lab) with Ed25519 (RFC 8032):
 * the JSON form for documents of people, the protobuf form (pave.v1.Signed) for permits and leases.
 * What is signed is the PAE of type and payload in both.
 *
 * An envelope counts only if its signatures meet the threshold of each role that its type needs:
 *   root: `root` of the old and of the new root; site: `authority` and `auditor`; revocations:
 * `authority`; policy: `tenant` where the root has that role, else `root`; permit, lease:
 * `placement`. A key counts once, however often it signed and under however many names the
 * root lists it; signatures by keys that the role doesn't have are passed over.
 *
 * All of it is pure but for signing_key_read, and safe on any thread. Errors: -E_BAD_DOCUMENT,
 * -E_BAD_SIGNATURE, -E_WRONG_CLUSTER, -E_ROLLBACK, -ENOMEM. */
#ifndef EVIDENCE_DSSE_H
#define EVIDENCE_DSSE_H

#include "control.pb-c.h"
#include "engine/evidence/documents.h"

#define ENVELOPE_SIZE_MAX (2u << 20)
#define SIGNATURES_MAX	  16u

struct signing_key;
struct dsse_envelope;

/* Private key from PEM (PKCS #8), as `pave evidence keygen` makes it. keyid is copied.
 * -E_BAD_DOCUMENT, -EINVAL. */
int signing_key_read(const char *path, const char *keyid, struct signing_key **ret,
		     struct error *err);
int signing_key_generate(const char *keyid, struct signing_key **ret, struct error *err);
/* The key that the 32 bytes are (RFC 8032, 5.1.5): for simulations that must repeat. */
int signing_key_from_seed(const char *keyid, const uint8_t seed[32], struct signing_key **ret,
			  struct error *err);
const char *signing_key_id(const struct signing_key *k);
/* PEM texts; the caller frees. NULL without memory. */
char *signing_key_public_pem(const struct signing_key *k);
char *signing_key_private_pem(const struct signing_key *k);
void signing_key_free(struct signing_key *k);

/* Signs payload with every key: a JSON envelope, malloc'd, NUL-terminated. */
int dsse_sign(const char *payload_type, const void *payload, size_t payload_size,
	      struct signing_key *const *keys, size_t key_count, char **ret_json,
	      struct error *err);

/* Adds signatures to an envelope that others have signed already; one by a keyid that signs again
 * is replaced. */
int dsse_cosign(const struct dsse_envelope *e, struct signing_key *const *keys, size_t key_count,
		char **ret_json, struct error *err);

/* An envelope taken apart, not verified. */
int dsse_parse(const void *json, size_t size_bytes, struct dsse_envelope **ret, struct error *err);
const char *dsse_type(const struct dsse_envelope *e);
const void *dsse_payload(const struct dsse_envelope *e, size_t *ret_size);
size_t dsse_signature_count(const struct dsse_envelope *e);
const char *dsse_signature_keyid(const struct dsse_envelope *e, size_t i);
void dsse_free(struct dsse_envelope *e); /* NULL is allowed */

/* 0 when the signatures that verify under root's keys meet the threshold of role. -E_BAD_SIGNATURE:
 * the text tells which keys were needed, and what was wrong with each signature. */
int dsse_verify_role(const struct dsse_envelope *e, const struct root_document *root,
		     const char *role, struct error *err);

/* Parse the envelope, verify it for its type (table above), check the cluster, parse the payload.
 * The only ways to get a trusted document; *ret is the caller's, freed with the function of its
 * kind. A first root is verified by itself: it is what is trusted; old is NULL then. With old: the
 * thresholds of both, the same cluster, and a higher version (or the very same document again). */
int root_open(const void *envelope, size_t size_bytes, const struct root_document *old,
	      struct root_document **ret, struct error *err);
int site_open(const void *envelope, size_t size_bytes, const struct root_document *root,
	      struct site_document **ret, struct error *err);
int revocations_open(const void *envelope, size_t size_bytes, const struct root_document *root,
		     struct revocations_document **ret, struct error *err);
int policy_open(const void *envelope, size_t size_bytes, const struct root_document *root,
		struct policy_document **ret, struct error *err);
/* The same for one that the operator (role `root`) signed where the tenant should: it counts only
 * if it tightens what is in force (tighten.h), which the caller makes sure of. */
int policy_open_by_operator(const void *envelope, size_t size_bytes,
			    const struct root_document *root, struct policy_document **ret,
			    struct error *err);

/* The protobuf form. Memory of *ret is the caller's: pave__v1__signed__free_unpacked(.., NULL). */
int signed_make(const char *payload_type, const void *payload, size_t payload_size,
		struct signing_key *key, Pave__V1__Signed **ret, struct error *err);
/* Verifies type and threshold of role `placement`. */
int signed_verify(const Pave__V1__Signed *s, const char *payload_type,
		  const struct root_document *root, struct error *err);

#endif
