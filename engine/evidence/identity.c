/* identity: see identity.h. */
#include "engine/evidence/identity.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"
#include "engine/evidence/file.h"
#include "engine/evidence/keys.h"
#include "engine/evidence/model.h"

#define URI_SIZE	 (37u + 2 * NAME_SIZE_MAX + 16u)
#define IDENTITY_PEM_MAX 16384u
#define SERIAL_BYTES	 16u
#define X509_TIME_MAX	 253402300799ll /* 9999-12-31T23:59:59Z, in seconds */

struct public_key {
	EVP_PKEY *pkey;
};

/* -- making ----------------------------------------------------------------------------------- */

static void name_uri(const struct uuid *cluster, const char *site, const char *node, char *buf,
		     size_t size)
{
	char id[40];
	int n =
	    snprintf(buf, size, "pave://%s/%s/%s", text_uuid(cluster, id, sizeof id), site, node);

	POST(n > 0 && (size_t)n < size);
}

static bool set_time(ASN1_TIME *t, int64_t ns)
{
	return ASN1_TIME_set(t, (time_t)(ns / (int64_t)NS_PER_S)) != NULL;
}

/* The serial is the hash of what the certificate is for: the same again is the same certificate. */
static bool set_serial(X509 *x, const char *cn, const struct signing_key *key)
{
	uint8_t text[NAME_SIZE_MAX + ED25519_KEY_SIZE] = {0}, digest[32];
	size_t size = ED25519_KEY_SIZE;
	BIGNUM *n;
	bool ok;

	memcpy(text, cn, MIN(strlen(cn), (size_t)NAME_SIZE_MAX));
	if (EVP_PKEY_get_raw_public_key(key->pkey, text + NAME_SIZE_MAX, &size) != 1 ||
	    document_digest(text, sizeof text, digest) != 0)
		return false;
	digest[0] = (digest[0] & 0x7f) | 0x40;
	n = BN_bin2bn(digest, SERIAL_BYTES, NULL);
	ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
	BN_free(n);
	return ok;
}

static bool add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e != NULL && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

static bool set_name(X509_NAME *n, const char *cn)
{
	return X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1,
					  0) == 1;
}

/* Everything that both kinds of certificate have; not signed. */
static X509 *begin(const char *cn, const struct signing_key *key, int64_t not_before,
		   int64_t not_after)
{
	X509 *x = X509_new();

	if (x != NULL && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x, cn, key) &&
	    set_time(X509_getm_notBefore(x), not_before) &&
	    set_time(X509_getm_notAfter(x), not_after) && X509_set_pubkey(x, key->pkey) == 1 &&
	    set_name(X509_get_subject_name(x), cn))
		return x;
	X509_free(x);
	return NULL;
}

static int finish(X509 *x, const struct signing_key *ca, struct identity_der *ret,
		  struct error *err)
{
	unsigned char *der = NULL;
	int size;

	if (X509_sign(x, ca->pkey, NULL) == 0)
		return error_set(err, -ENOMEM, "signing a certificate: no memory");
	size = i2d_X509(x, &der);
	if (size <= 0)
		return error_set(err, -ENOMEM, "a certificate: no memory");
	ret->data = malloc((size_t)size);
	if (ret->data != NULL)
		memcpy(ret->data, der, (size_t)size);
	ret->size = (size_t)size;
	OPENSSL_free(der);
	return ret->data != NULL ? 0 : error_set(err, -ENOMEM, "a certificate: no memory");
}

static int check_times(int64_t not_before, int64_t not_after, struct error *err)
{
	if (not_before >= 0 && not_before < not_after &&
	    not_after / (int64_t)NS_PER_S <= X509_TIME_MAX)
		return 0;
	return error_set(err, -EINVAL, "a certificate's validity must begin before it ends");
}

int identity_make_ca(const struct signing_key *ca, const char *site, int64_t not_before,
		     int64_t not_after, struct identity_der *ret, struct error *err)
{
	int rc = check_times(not_before, not_after, err);
	X509 *x;

	if (rc != 0)
		return rc;
	x = begin(site, ca, not_before, not_after);
	if (x == NULL || X509_set_issuer_name(x, X509_get_subject_name(x)) != 1 ||
	    !add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
	    !add_extension(x, x, NID_key_usage, "critical,keyCertSign"))
		rc = error_set(err, -ENOMEM, "the certificate of the node CA of %s: no memory",
			       site);
	else
		rc = finish(x, ca, ret, err);
	X509_free(x);
	return rc;
}

static X509 *parse(const void *der, size_t size)
{
	const unsigned char *p = der;
	X509 *x;

	if (size == 0 || size > IDENTITY_DER_MAX)
		return NULL;
	x = d2i_X509(NULL, &p, (long)size);
	if (x != NULL && p != (const unsigned char *)der + size) {
		X509_free(x);
		x = NULL;
	}
	return x;
}

int identity_issue(const struct signing_key *ca, const struct identity_der *ca_certificate,
		   const struct uuid *cluster, const char *site, const char *node,
		   const struct signing_key *key, int64_t not_before, int64_t not_after,
		   struct identity_der *ret, struct error *err)
{
	X509 *issuer = parse(ca_certificate->data, ca_certificate->size);
	char uri[URI_SIZE], names[URI_SIZE + 8];
	int rc = check_times(not_before, not_after, err);
	X509 *x = NULL;

	if (rc != 0)
		goto out;
	name_uri(cluster, site, node, uri, sizeof uri);
	snprintf(names, sizeof names, "URI:%s", uri);
	x = begin(node, key, not_before, not_after);
	if (x == NULL || issuer == NULL ||
	    X509_set_issuer_name(x, X509_get_subject_name(issuer)) != 1 ||
	    !add_extension(x, issuer, NID_basic_constraints, "critical,CA:FALSE") ||
	    !add_extension(x, issuer, NID_key_usage, "critical,digitalSignature") ||
	    !add_extension(x, issuer, NID_subject_alt_name, names))
		rc = error_set(err, -ENOMEM, "the certificate of node %s: no memory", node);
	else
		rc = finish(x, ca, ret, err);
out:
	X509_free(issuer);
	X509_free(x);
	return rc;
}

static bool spki_digest(EVP_PKEY *pkey, uint8_t ret[32])
{
	unsigned char *der = NULL;
	int size = i2d_PUBKEY(pkey, &der);
	bool ok = size > 0 && document_digest(der, (size_t)size, ret) == 0;

	OPENSSL_free(der);
	return ok;
}

const char *identity_ca_sha256(const struct signing_key *ca, char *buf, size_t size)
{
	uint8_t digest[32];

	if (!spki_digest(ca->pkey, digest))
		return NULL;
	return text_hex(digest, sizeof digest, buf, size);
}

/* -- verifying -------------------------------------------------------------------------------- */

static bool in_force(const X509 *x, int64_t at)
{
	time_t t = (time_t)(at / (int64_t)NS_PER_S);

	return X509_cmp_time(X509_get0_notBefore(x), &t) < 0 &&
	       X509_cmp_time(X509_get0_notAfter(x), &t) > 0;
}

static bool names_node(X509 *x, const char *uri)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		const ASN1_IA5STRING *s =
		    n->type == GEN_URI ? n->d.uniformResourceIdentifier : NULL;

		found = found || (s != NULL && (size_t)ASN1_STRING_length(s) == strlen(uri) &&
				  memcmp(ASN1_STRING_get0_data(s), uri, strlen(uri)) == 0);
	}
	GENERAL_NAMES_free(names);
	return found;
}

static int check_pair(X509 *x, X509 *ca, const char *node, struct error *err)
{
	EVP_PKEY *ca_key = X509_get0_pubkey(ca);

	if (EVP_PKEY_get_id(ca_key) != EVP_PKEY_ED25519 ||
	    EVP_PKEY_get_id(X509_get0_pubkey(x)) != EVP_PKEY_ED25519)
		return error_set(err, -E_BAD_DOCUMENT, "node %s: a key is not Ed25519", node);
	if (X509_check_ca(ca) != 1)
		return error_set(err, -E_BAD_DOCUMENT, "node %s: the CA's certificate is of no CA",
				 node);
	if (X509_verify(x, ca_key) != 1)
		return error_set(err, -E_BAD_SIGNATURE,
				 "node %s: its certificate is not signed by the CA that comes "
				 "with it",
				 node);
	return 0;
}

static int check_site(X509 *x, X509 *ca, const struct site_document *site, const char *node,
		      int64_t at, struct error *err)
{
	char uri[URI_SIZE], have[65], when[40];
	uint8_t digest[32];

	if (!spki_digest(X509_get0_pubkey(ca), digest))
		return error_set(err, -ENOMEM, "node %s: no memory", node);
	text_hex(digest, sizeof digest, have, sizeof have);
	if (site->node_ca_sha256 == NULL || strcasecmp(site->node_ca_sha256, have) != 0)
		return error_set(err, -E_BAD_SIGNATURE,
				 "node %s: its CA has the hash %.16s..., the certificate of site "
				 "%s names %.16s...",
				 node, have, site_name(site),
				 site->node_ca_sha256 != NULL ? site->node_ca_sha256 : "none");
	name_uri(site_cluster(site), site_name(site), node, uri, sizeof uri);
	if (!names_node(x, uri))
		return error_set(err, -E_BAD_DOCUMENT,
				 "node %s: its certificate does not carry the name %s", node, uri);
	if (!in_force(x, at) || !in_force(ca, at))
		return error_set(err, -E_STALE_EVIDENCE,
				 "node %s: its certificate, or its CA's, is not valid at %s", node,
				 text_time(at, when, sizeof when));
	return 0;
}

int identity_verify(const void *certificate, size_t certificate_size, const void *ca,
		    size_t ca_size, const struct site_document *site, const char *node, int64_t at,
		    struct public_key **ret, struct error *err)
{
	X509 *x = parse(certificate, certificate_size);
	X509 *issuer = parse(ca, ca_size);
	struct public_key *key;
	int rc;

	if (x == NULL || issuer == NULL)
		rc = error_set(err, -E_BAD_DOCUMENT, "node %s: not an X.509 certificate in DER",
			       node);
	else
		rc = check_pair(x, issuer, node, err);
	if (rc == 0)
		rc = check_site(x, issuer, site, node, at, err);
	if (rc != 0)
		goto out;
	key = calloc(1, sizeof *key);
	if (key == NULL) {
		rc = error_set(err, -ENOMEM, "node %s: no memory", node);
		goto out;
	}
	key->pkey = X509_get_pubkey(x);
	*ret = key;
out:
	X509_free(x);
	X509_free(issuer);
	return rc;
}

void public_key_free(struct public_key *k)
{
	if (k == NULL)
		return;
	EVP_PKEY_free(k->pkey);
	free(k);
}

int signed_verify_by(const Pave__V1__Signed *s, const char *payload_type,
		     const struct public_key *key, struct error *err)
{
	size_t size = 0;
	char *text;
	bool ok;

	if (s == NULL || s->n_signatures != 1)
		return error_set(err, -E_BAD_SIGNATURE, "%s: exactly one signature is expected",
				 payload_type);
	if (strcmp(s->payload_type, payload_type) != 0 || s->payload.len > DOCUMENT_SIZE_MAX)
		return error_set(err, -E_BAD_DOCUMENT, "a signed message has another type than %s",
				 payload_type);
	text = dsse_pae(payload_type, s->payload.data, s->payload.len, &size);
	if (text == NULL)
		return error_set(err, -ENOMEM, "%s: no memory", payload_type);
	ok = ed25519_verify(key->pkey, text, size, s->signatures[0]->sig.data,
			    s->signatures[0]->sig.len);
	free(text);
	if (ok)
		return 0;
	return error_set(err, -E_BAD_SIGNATURE, "%s: the signature by %.63s does not verify",
			 payload_type, s->signatures[0]->keyid);
}

/* -- files ------------------------------------------------------------------------------------ */

char *identity_pem(const struct identity_der *der)
{
	X509 *x = parse(der->data, der->size);
	BIO *bio = BIO_new(BIO_s_mem());
	char *data, *text = NULL;

	if (x != NULL && bio != NULL && PEM_write_bio_X509(bio, x) == 1) {
		long size = BIO_get_mem_data(bio, &data);

		text = strndup(data, (size_t)size);
	}
	BIO_free(bio);
	X509_free(x);
	return text;
}

static int path_of(const char *prefix, const char *end, char *buf, size_t size, struct error *err)
{
	int n = snprintf(buf, size, "%s.%s", prefix, end);

	if (n > 0 && (size_t)n < size)
		return 0;
	return error_set(err, -ENAMETOOLONG, "identity %.80s...: the name is too long", prefix);
}

static int read_certificate(const char *path, struct identity_der *ret, struct error *err)
{
	size_t size = 0;
	char *text = NULL;
	unsigned char *der = NULL;
	int rc = file_read_whole(path, IDENTITY_PEM_MAX, &text, &size, err);
	BIO *bio;
	X509 *x = NULL;
	int n = 0;

	if (rc != 0)
		return rc;
	bio = BIO_new_mem_buf(text, (int)size);
	if (bio != NULL)
		x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	if (x != NULL)
		n = i2d_X509(x, &der);
	if (n > 0 && (size_t)n <= IDENTITY_DER_MAX)
		ret->data = malloc((size_t)n);
	if (ret->data != NULL) {
		memcpy(ret->data, der, (size_t)n);
		ret->size = (size_t)n;
	} else {
		rc = error_set(err, -E_BAD_DOCUMENT, "%s: it holds no X.509 certificate in PEM",
			       path);
	}
	OPENSSL_free(der);
	X509_free(x);
	BIO_free(bio);
	free(text);
	return rc;
}

/* The key is the certificate's, and the CA signed it. */
static int check_whole(const struct identity *id, const char *prefix, const char *node,
		       struct error *err)
{
	X509 *x = parse(id->certificate.data, id->certificate.size);
	X509 *ca = parse(id->ca.data, id->ca.size);
	int rc = 0;

	if (x == NULL || ca == NULL)
		rc = error_set(err, -E_BAD_DOCUMENT, "identity %s: not X.509 certificates", prefix);
	if (rc == 0)
		rc = check_pair(x, ca, node, err);
	if (rc == 0 && EVP_PKEY_eq(X509_get0_pubkey(x), id->key->pkey) != 1)
		rc = error_set(err, -E_BAD_DOCUMENT,
			       "identity %s: %s.key is not the key of the certificate in %s.crt",
			       prefix, prefix, prefix);
	X509_free(x);
	X509_free(ca);
	return rc;
}

int identity_read(const char *prefix, const char *node, struct identity *ret, struct error *err)
{
	struct identity id = {0};
	char path[4500];
	int rc = path_of(prefix, "key", path, sizeof path, err);

	if (rc == 0)
		rc = signing_key_read(path, node, &id.key, err);
	if (rc == 0)
		rc = path_of(prefix, "crt", path, sizeof path, err);
	if (rc == 0)
		rc = read_certificate(path, &id.certificate, err);
	if (rc == 0)
		rc = path_of(prefix, "ca", path, sizeof path, err);
	if (rc == 0)
		rc = read_certificate(path, &id.ca, err);
	if (rc == 0)
		rc = check_whole(&id, prefix, node, err);
	if (rc != 0) {
		identity_deinit(&id);
		return rc;
	}
	*ret = id;
	return 0;
}

static int write_text(const char *prefix, const char *end, char *text, mode_t mode,
		      struct error *err)
{
	char path[4500];
	int rc = path_of(prefix, end, path, sizeof path, err);

	if (rc == 0 && text == NULL)
		rc = error_set(err, -ENOMEM, "identity %s: no memory", prefix);
	if (rc == 0 && mode == 0600)
		rc = file_create(path, text, strlen(text), mode, err);
	else if (rc == 0)
		rc = file_replace(path, text, strlen(text), mode, err);
	free(text);
	return rc;
}

int identity_write(const char *prefix, const struct identity *id, struct error *err)
{
	int rc = write_text(prefix, "ca", identity_pem(&id->ca), 0644, err);

	if (rc == 0)
		rc = write_text(prefix, "crt", identity_pem(&id->certificate), 0644, err);
	if (rc == 0)
		rc = write_text(prefix, "key", signing_key_private_pem(id->key), 0600, err);
	return rc;
}

void identity_der_free(struct identity_der *der)
{
	free(der->data);
	*der = (struct identity_der){0};
}

void identity_deinit(struct identity *id)
{
	signing_key_free(id->key);
	identity_der_free(&id->certificate);
	identity_der_free(&id->ca);
	*id = (struct identity){0};
}
