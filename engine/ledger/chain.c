/* chain: see chain.h. */
#include "engine/ledger/chain.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"

static int digest(const void *bytes, size_t size, uint8_t ret[LEDGER_HASH_SIZE])
{
	return EVP_Digest(bytes, size, ret, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

/* -- records ---------------------------------------------------------------------------------- */

int ledger_append(struct ledger_tip *tip, Pave__V1__LedgerRecord *record, int64_t at,
		  uint8_t **ret_bytes, size_t *ret_size, struct error *err)
{
	struct ledger_tip next = {.seq = tip->seq + 1, .at = MAX(at, tip->at)};
	uint8_t *bytes;
	size_t size;

	record->seq = next.seq;
	record->prev = (ProtobufCBinaryData){LEDGER_HASH_SIZE, tip->hash};
	record->at = next.at;
	size = pave__v1__ledger_record__get_packed_size(record);
	if (size > LEDGER_RECORD_MAX)
		return error_set(err, -E_LIMIT,
				 "ledger: a record of %zu bytes is over the bound of %u", size,
				 LEDGER_RECORD_MAX);
	bytes = malloc(size);
	if (bytes == NULL)
		return error_set(err, -ENOMEM, "ledger: no memory for a record");
	pave__v1__ledger_record__pack(record, bytes);
	if (digest(bytes, size, next.hash) != 0) {
		free(bytes);
		return error_set(err, -ENOMEM, "ledger: no memory for a record");
	}
	*tip = next;
	*ret_bytes = bytes;
	*ret_size = size;
	return 0;
}

/* The number tells which of the many things that may have been done to a chain it was. */
static int broken_link(const struct ledger_tip *tip, const Pave__V1__LedgerRecord *r,
		       struct error *err)
{
	unsigned long long want = (unsigned long long)tip->seq + 1;
	unsigned long long have = (unsigned long long)r->seq;
	char a[2 * LEDGER_HASH_SIZE + 1], b[2 * LEDGER_HASH_SIZE + 1];

	if (have > want)
		return error_set(err, -E_BAD_DOCUMENT,
				 "record %llu is missing: record %llu stands in its place", want,
				 have);
	if (have < want)
		return error_set(err, -E_BAD_DOCUMENT,
				 "record %llu stands in the place of record %llu: records were "
				 "put into another order, or repeated",
				 have, want);
	return error_set(
	    err, -E_BAD_DOCUMENT,
	    "record %llu was changed: record %llu says that its hash is %.16s..., "
	    "and it is %.16s...",
	    (unsigned long long)tip->seq, have,
	    text_hex(r->prev.data, MIN(r->prev.len, (size_t)LEDGER_HASH_SIZE), a, sizeof a),
	    text_hex(tip->hash, sizeof tip->hash, b, sizeof b));
}

int ledger_follow(struct ledger_tip *tip, const void *bytes, size_t size,
		  Pave__V1__LedgerRecord **ret, struct error *err)
{
	struct ledger_tip next = {.seq = tip->seq + 1};
	Pave__V1__LedgerRecord *r = NULL;
	int rc;

	if (size <= LEDGER_RECORD_MAX)
		r = pave__v1__ledger_record__unpack(NULL, size, bytes);
	if (r == NULL)
		return error_set(err, -E_BAD_DOCUMENT,
				 "record %llu was changed: it cannot be read (%zu bytes)",
				 (unsigned long long)next.seq, size);
	if (r->seq != next.seq || r->prev.len != LEDGER_HASH_SIZE ||
	    memcmp(r->prev.data, tip->hash, LEDGER_HASH_SIZE) != 0)
		rc = broken_link(tip, r, err);
	else if (r->at < tip->at)
		rc =
		    error_set(err, -E_BAD_DOCUMENT, "record %llu is dated before the one before it",
			      (unsigned long long)r->seq);
	else if (digest(bytes, size, next.hash) != 0)
		rc = error_set(err, -ENOMEM, "ledger: no memory");
	else
		rc = 0;
	if (rc != 0) {
		pave__v1__ledger_record__free_unpacked(r, NULL);
		return rc;
	}
	next.at = r->at;
	*tip = next;
	*ret = r;
	return 0;
}

/* -- heads ------------------------------------------------------------------------------------ */

int ledger_head_make(const struct ledger_tip *tip, const struct uuid *cluster,
		     struct signing_key *key, Pave__V1__Signed **ret, struct error *err)
{
	Pave__V1__LedgerHead m = PAVE__V1__LEDGER_HEAD__INIT;
	uint8_t bytes[160];
	size_t size;

	m.cluster =
	    (ProtobufCBinaryData){sizeof cluster->bytes, (uint8_t *)(uintptr_t)cluster->bytes};
	m.seq = tip->seq;
	m.hash = (ProtobufCBinaryData){LEDGER_HASH_SIZE, (uint8_t *)(uintptr_t)tip->hash};
	m.at = tip->at;
	size = pave__v1__ledger_head__get_packed_size(&m);
	INVARIANT(size <= sizeof bytes);
	pave__v1__ledger_head__pack(&m, bytes);
	return signed_make(TYPE_LEDGER_HEAD, bytes, size, key, ret, err);
}

int ledger_head_open(const Pave__V1__Signed *s, const struct root_document *root,
		     struct ledger_tip *ret, struct error *err)
{
	int rc = signed_verify(s, TYPE_LEDGER_HEAD, root, err);
	Pave__V1__LedgerHead *m;

	if (rc != 0)
		return rc;
	m = pave__v1__ledger_head__unpack(NULL, s->payload.len, s->payload.data);
	if (m == NULL || m->hash.len != LEDGER_HASH_SIZE || m->cluster.len != sizeof(struct uuid)) {
		rc = error_set(err, -E_BAD_DOCUMENT, "a signed head is malformed");
	} else if (memcmp(m->cluster.data, root_cluster(root)->bytes, m->cluster.len) != 0) {
		rc = error_set(err, -E_WRONG_CLUSTER, "a signed head is of another cluster");
	} else {
		ret->seq = m->seq;
		ret->at = m->at;
		memcpy(ret->hash, m->hash.data, LEDGER_HASH_SIZE);
	}
	if (m != NULL)
		pave__v1__ledger_head__free_unpacked(m, NULL);
	return rc;
}

/* -- files ------------------------------------------------------------------------------------ */

void ledger_item_head(enum ledger_item_kind kind, size_t size, uint8_t ret[LEDGER_ITEM_HEAD])
{
	ret[0] = (uint8_t)kind;
	for (unsigned i = 0; i < 4; i++)
		ret[1 + i] = (uint8_t)(size >> (8 * i));
}

int ledger_item_next(const void *file, size_t size, size_t *offset, struct ledger_item *ret,
		     struct error *err)
{
	const uint8_t *bytes = file;
	size_t at = *offset;
	uint32_t item_size = 0;

	if (at == 0) {
		if (size < LEDGER_MAGIC_LEN || memcmp(bytes, LEDGER_MAGIC, LEDGER_MAGIC_LEN) != 0)
			return error_set(err, -E_BAD_DOCUMENT,
					 "it is no exported ledger: it does not begin with %s",
					 LEDGER_MAGIC);
		at = LEDGER_MAGIC_LEN;
	}
	if (at == size) {
		*offset = at;
		return -ENOENT;
	}
	for (unsigned i = 0; i < 4 && size - at >= LEDGER_ITEM_HEAD; i++)
		item_size |= (uint32_t)bytes[at + 1 + i] << (8 * i);
	if (size - at < LEDGER_ITEM_HEAD || item_size > size - at - LEDGER_ITEM_HEAD)
		return error_set(err, -E_BAD_DOCUMENT, "the file is cut short at byte %zu of %zu",
				 at, size);
	if (bytes[at] != LEDGER_ITEM_RECORD && bytes[at] != LEDGER_ITEM_SIGNED_HEAD)
		return error_set(err, -E_BAD_DOCUMENT, "the item at byte %zu is of no known kind",
				 at);
	*ret = (struct ledger_item){
	    .kind = bytes[at], .bytes = bytes + at + LEDGER_ITEM_HEAD, .size = item_size};
	*offset = at + LEDGER_ITEM_HEAD + item_size;
	return 0;
}
