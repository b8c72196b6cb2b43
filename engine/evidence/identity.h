/* Who a node is: an Ed25519 key with an X.509 certificate (RFC 5280, RFC 8410) from the CA of its
 * site's nodes. The site certificate names that CA by the SHA-256 of its SubjectPublicKeyInfo
 * (`node_ca_sha256`), which binds the key to the site: no document names single nodes, and a site
 * adds nodes without asking the authority.
 *
 *   site certificate --node_ca_sha256--> CA certificate --signs--> node certificate --signs-->
 * receipts
 *
 * The node's certificate carries a URI name, pave://CLUSTER/SITE/NODE (RFC 3986). The key signs
 * receipts; TLS will use the same certificate.
 *
 * All of it is pure but for identity_read, and safe on any thread. */
#ifndef EVIDENCE_IDENTITY_H
#define EVIDENCE_IDENTITY_H

#include "engine/evidence/dsse.h"

#define IDENTITY_DER_MAX 8192u /* bytes of one certificate */

struct public_key;

/* A certificate in DER; malloc'd. */
struct identity_der {
	uint8_t *data;
	size_t size;
};

/* A node's own: its key, its certificate, and that of the CA. */
struct identity {
	struct signing_key *key; /* keyid: the node's name */
	struct identity_der certificate, ca;
};

/* The self-signed certificate of a site's node CA, valid in [not_before, not_after) (ns since 1970;
 * whole seconds count). -ENOMEM, -EINVAL (a time that X.509 can't tell). */
int identity_make_ca(const struct signing_key *ca, const char *site, int64_t not_before,
		     int64_t not_after, struct identity_der *ret, struct error *err);

/* The certificate of a node's key, by the CA. */
int identity_issue(const struct signing_key *ca, const struct identity_der *ca_certificate,
		   const struct uuid *cluster, const char *site, const char *node,
		   const struct signing_key *key, int64_t not_before, int64_t not_after,
		   struct identity_der *ret, struct error *err);

/* What a site certificate says of its node CA: 64 hexadecimal digits; buf: at least 65. NULL
 * without memory. */
const char *identity_ca_sha256(const struct signing_key *ca, char *buf, size_t size);

/* Whether these certificates prove, at that time, that the key belongs to this node of this site:
 * CA by its hash, signature, validity, names. *ret is the caller's, freed with public_key_free.
 * -E_BAD_DOCUMENT (not a certificate, or of something else), -E_BAD_SIGNATURE (another CA, or not
 * signed by it), -E_STALE_EVIDENCE (not valid at that time), -ENOMEM. */
int identity_verify(const void *certificate, size_t certificate_size, const void *ca,
		    size_t ca_size, const struct site_document *site, const char *node, int64_t at,
		    struct public_key **ret, struct error *err);
void public_key_free(struct public_key *k); /* NULL is allowed */

/* Verifies type and the one signature, by that key. -E_BAD_SIGNATURE, -E_BAD_DOCUMENT. */
int signed_verify_by(const Pave__V1__Signed *s, const char *payload_type,
		     const struct public_key *key, struct error *err);

/* PEM texts; the caller frees. NULL without memory. */
char *identity_pem(const struct identity_der *der);

/* From PEM files: NODE.key, NODE.crt (certificate) and NODE.ca (of the CA), all beginning with
 * prefix. What can be checked without the site certificate is: the key belongs to the certificate,
 * the CA signed it. It blocks. */
int identity_read(const char *prefix, const char *node, struct identity *ret, struct error *err);
/* Writes them: key with mode 0600. -EEXIST when there is a key. */
int identity_write(const char *prefix, const struct identity *id, struct error *err);
void identity_deinit(struct identity *id); /* zeroed memory is allowed */
void identity_der_free(struct identity_der *der);

#endif
