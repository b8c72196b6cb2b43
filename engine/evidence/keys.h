/* Signing keys from inside, and one Ed25519 signature: for the files of engine/evidence only. */
#ifndef EVIDENCE_KEYS_H
#define EVIDENCE_KEYS_H

#include <openssl/evp.h>

#include "engine/evidence/dsse.h"

#define ED25519_SIG_SIZE 64u

struct signing_key {
	EVP_PKEY *pkey;
	char keyid[NAME_SIZE_MAX];
};

/* DSSE's pre-authentication encoding of type and payload: malloc'd, NULL without memory. */
char *dsse_pae(const char *type, const void *payload, size_t payload_size, size_t *ret_size);

/* -ENOMEM. */
int ed25519_sign(const struct signing_key *k, const void *data, size_t size_bytes,
		 uint8_t ret_sig[ED25519_SIG_SIZE]);

/* Fails closed: without memory it is false. */
bool ed25519_verify(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig,
		    size_t sig_size);

#endif
