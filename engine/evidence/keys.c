/* Signing keys: Ed25519 (RFC 8032) by OpenSSL, PEM in and out. Part of dsse.h. A key file is PKCS
 * #8 without a password: whoever can read it can sign, which is why it is made with mode 0600. */
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/keys.h"

static struct signing_key *key_wrap(EVP_PKEY *pkey, const char *keyid)
{
	struct signing_key *k;

	if (pkey == NULL)
		return NULL;
	k = calloc(1, sizeof *k);
	if (k == NULL) {
		EVP_PKEY_free(pkey);
		return NULL;
	}
	k->pkey = pkey;
	memcpy(k->keyid, keyid, strlen(keyid) + 1);
	return k;
}

static int check_keyid(const char *keyid, struct error *err)
{
	if (strlen(keyid) > 0 && strlen(keyid) < NAME_SIZE_MAX)
		return 0;
	return error_set(err, -EINVAL, "key id %.80s has %zu bytes: 1 to %u are allowed", keyid,
			 strlen(keyid), NAME_SIZE_MAX - 1);
}

/* Instead of OpenSSL's own, which would ask on the terminal. */
static int no_password(char *buf, int size, int rwflag, void *arg)
{
	(void)buf, (void)size, (void)rwflag, (void)arg;
	return -1;
}

int signing_key_read(const char *path, const char *keyid, struct signing_key **ret,
		     struct error *err)
{
	struct signing_key *k;
	EVP_PKEY *pkey = NULL;
	BIO *bio;
	int rc = check_keyid(keyid, err);

	if (rc != 0)
		return rc;
	errno = 0;
	bio = BIO_new_file(path, "r");
	if (bio == NULL)
		return error_set(err, errno > 0 ? -errno : -EINVAL, "key %s: %s", path,
				 err_text(errno > 0 ? errno : EINVAL));
	pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
	BIO_free(bio);
	if (pkey == NULL || EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519) {
		EVP_PKEY_free(pkey);
		return error_set(
		    err, -E_BAD_DOCUMENT,
		    "key %s: it holds no Ed25519 private key in PEM (PKCS #8, without a "
		    "password); make one with `pave evidence keygen`",
		    path);
	}
	k = key_wrap(pkey, keyid);
	if (k == NULL)
		return error_set(err, -ENOMEM, "key %s: no memory", path);
	*ret = k;
	return 0;
}

int signing_key_generate(const char *keyid, struct signing_key **ret, struct error *err)
{
	int rc = check_keyid(keyid, err);
	struct signing_key *k;

	if (rc != 0)
		return rc;
	k = key_wrap(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), keyid);
	if (k == NULL)
		return error_set(err, -ENOMEM, "key %s: it could not be generated", keyid);
	*ret = k;
	return 0;
}

int signing_key_from_seed(const char *keyid, const uint8_t seed[32], struct signing_key **ret,
			  struct error *err)
{
	int rc = check_keyid(keyid, err);
	struct signing_key *k;

	if (rc != 0)
		return rc;
	k = key_wrap(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, 32), keyid);
	if (k == NULL)
		return error_set(err, -ENOMEM, "key %s: no memory", keyid);
	*ret = k;
	return 0;
}

const char *signing_key_id(const struct signing_key *k)
{
	return k->keyid;
}

static char *bio_text(BIO *bio, bool written)
{
	char *data, *text = NULL;
	long size = bio == NULL ? 0 : BIO_get_mem_data(bio, &data);

	if (written && size > 0)
		text = strndup(data, (size_t)size);
	BIO_free(bio);
	return text;
}

char *signing_key_public_pem(const struct signing_key *k)
{
	BIO *bio = BIO_new(BIO_s_mem());

	return bio_text(bio, bio != NULL && PEM_write_bio_PUBKEY(bio, k->pkey) == 1);
}

char *signing_key_private_pem(const struct signing_key *k)
{
	BIO *bio = BIO_new(BIO_s_secmem());

	return bio_text(bio, bio != NULL && PEM_write_bio_PrivateKey(bio, k->pkey, NULL, NULL, 0,
								     NULL, NULL) == 1);
}

void signing_key_free(struct signing_key *k)
{
	if (k == NULL)
		return;
	EVP_PKEY_free(k->pkey);
	free(k);
}

/* -- one signature ---------------------------------------------------------------------------- */

int ed25519_sign(const struct signing_key *k, const void *data, size_t size_bytes,
		 uint8_t ret_sig[ED25519_SIG_SIZE])
{
	size_t sig_size = ED25519_SIG_SIZE;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int rc = -ENOMEM;

	if (ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, k->pkey) == 1 &&
	    EVP_DigestSign(ctx, ret_sig, &sig_size, data, size_bytes) == 1 &&
	    sig_size == ED25519_SIG_SIZE)
		rc = 0;
	EVP_MD_CTX_free(ctx);
	return rc;
}

bool ed25519_verify(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig,
		    size_t sig_size)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = sig_size == ED25519_SIG_SIZE && ctx != NULL &&
		  EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
		  EVP_DigestVerify(ctx, sig, sig_size, data, size_bytes) == 1;

	EVP_MD_CTX_free(ctx);
	return ok;
}
