/* Signatures that were made or verified before are not computed again: one permit is verified by
 * the host and by every node, renewed all the time, and judged again at the end, and Ed25519 was a
 * quarter of the time of a run. Linked in place of the two functions (meson.build), as the mutants
 * are; whatever differs in a bit from what is remembered is verified by the code itself, so an
 * answer is never another than its. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/keys.h"

#define REMEMBERED 4096u
#define KEY_SIZE   32u

struct remembered {
	uint8_t key[KEY_SIZE], sig[ED25519_SIG_SIZE];
	size_t size, room;
	uint8_t *data;
};

static struct remembered table[REMEMBERED]; /* by signature; the newest of a place */

static struct remembered *place_of(const uint8_t *sig)
{
	uint64_t x;

	memcpy(&x, sig, sizeof(x));
	return &table[x % REMEMBERED];
}

static bool raw_key(EVP_PKEY *pkey, uint8_t ret_key[KEY_SIZE])
{
	size_t size = KEY_SIZE;

	return EVP_PKEY_get_raw_public_key(pkey, ret_key, &size) == 1 && size == KEY_SIZE;
}

static void remember(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig)
{
	struct remembered *r = place_of(sig);

	if (size_bytes > r->room) {
		free(r->data);
		r->data = malloc(size_bytes);
		INVARIANT(r->data != NULL);
		r->room = size_bytes;
	}
	r->size = 0;
	if (size_bytes == 0 || !raw_key(pkey, r->key))
		return;
	memcpy(r->sig, sig, ED25519_SIG_SIZE);
	memcpy(r->data, data, size_bytes);
	r->size = size_bytes;
}

static bool is_remembered(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig)
{
	const struct remembered *r = place_of(sig);
	uint8_t key[KEY_SIZE];

	return r->size == size_bytes && size_bytes > 0 &&
	       memcmp(r->sig, sig, ED25519_SIG_SIZE) == 0 &&
	       memcmp(r->data, data, size_bytes) == 0 && raw_key(pkey, key) &&
	       memcmp(r->key, key, KEY_SIZE) == 0;
}

int __real_ed25519_sign(const struct signing_key *k, const void *data, size_t size_bytes,
			uint8_t ret_sig[ED25519_SIG_SIZE]);
int __wrap_ed25519_sign(const struct signing_key *k, const void *data, size_t size_bytes,
			uint8_t ret_sig[ED25519_SIG_SIZE]);
int __wrap_ed25519_sign(const struct signing_key *k, const void *data, size_t size_bytes,
			uint8_t ret_sig[ED25519_SIG_SIZE])
{
	int rc = __real_ed25519_sign(k, data, size_bytes, ret_sig);

	if (rc == 0)
		remember(k->pkey, data, size_bytes, ret_sig);
	return rc;
}

bool __real_ed25519_verify(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig,
			   size_t sig_size);
bool __wrap_ed25519_verify(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig,
			   size_t sig_size);
bool __wrap_ed25519_verify(EVP_PKEY *pkey, const void *data, size_t size_bytes, const uint8_t *sig,
			   size_t sig_size)
{
	bool ok;

	if (sig_size == ED25519_SIG_SIZE && is_remembered(pkey, data, size_bytes, sig))
		return true;
	ok = __real_ed25519_verify(pkey, data, size_bytes, sig, sig_size);
	if (ok)
		remember(pkey, data, size_bytes, sig);
	return ok;
}
