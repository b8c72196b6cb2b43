/* The ledger's chain: records, each with the hash of the one before it, and signed heads
 * (proto/ledger.proto; proto/FORMAT.md, "Ledger"). The placement driver appends; whoever holds an
 * exported file checks it with this and the trust root alone.
 *
 *   record 1 <--hash-- record 2 <--hash-- ... <--hash-- record n <--signed-- head
 *
 * A record is hashed as the bytes that were written: nothing depends on how a later version would
 * pack them. Pure: no I/O, no clock. */
#ifndef LEDGER_CHAIN_H
#define LEDGER_CHAIN_H

#include "engine/evidence/dsse.h"
#include "ledger.pb-c.h"

#define LEDGER_HASH_SIZE  32u
#define LEDGER_RECORD_MAX (3u << 20) /* bytes of one record */

#define TYPE_LEDGER_HEAD "application/vnd.pave.ledger-head"
#define TYPE_RECEIPT	 "application/vnd.pave.receipt"
#define TYPE_ERASURE	 "application/vnd.pave.erasure"

/* The end of a chain; all zeroes: before the first record. */
struct ledger_tip {
	uint64_t seq;
	uint8_t hash[LEDGER_HASH_SIZE];
	int64_t at;
};

/* Packs the record as the next one, with seq, prev and at (never before the one before) filled in;
 * malloc'd. The tip moves on. -ENOMEM, -E_LIMIT (over LEDGER_RECORD_MAX; the tip stays). */
int ledger_append(struct ledger_tip *tip, Pave__V1__LedgerRecord *record, int64_t at,
		  uint8_t **ret_bytes, size_t *ret_size, struct error *err);

/* Takes the next record of a chain apart and checks that it is that: number, hash, time. The tip
 * moves on. *ret is freed with pave__v1__ledger_record__free_unpacked. -E_BAD_DOCUMENT: the text
 * names the record and what was done to it (changed, removed, put elsewhere). */
int ledger_follow(struct ledger_tip *tip, const void *bytes, size_t size,
		  Pave__V1__LedgerRecord **ret, struct error *err);

/* The head of a chain, signed by the placement key. */
int ledger_head_make(const struct ledger_tip *tip, const struct uuid *cluster,
		     struct signing_key *key, Pave__V1__Signed **ret, struct error *err);
/* A head whose signature verifies under the root. -E_BAD_SIGNATURE, -E_BAD_DOCUMENT,
 * -E_WRONG_CLUSTER. */
int ledger_head_open(const Pave__V1__Signed *s, const struct root_document *root,
		     struct ledger_tip *ret, struct error *err);

/* -- exported files --------------------------------------------------------------------------- */

/* A file: LEDGER_MAGIC, then items. An item: kind (1 byte), size (4 bytes, little-endian), bytes.
 */
#define LEDGER_MAGIC	 "PAVELDG1"
#define LEDGER_MAGIC_LEN 8u
#define LEDGER_ITEM_HEAD 5u /* bytes of kind and size */

enum ledger_item_kind { LEDGER_ITEM_RECORD = 1, LEDGER_ITEM_SIGNED_HEAD = 2 };

struct ledger_item {
	enum ledger_item_kind kind;
	const uint8_t *bytes; /* in the file's memory */
	size_t size;
};

void ledger_item_head(enum ledger_item_kind kind, size_t size, uint8_t ret[LEDGER_ITEM_HEAD]);

/* The item at *offset of a file in memory (0: the first), which moves on. 0; -ENOENT: the end;
 * -E_BAD_DOCUMENT: cut short, or no ledger. */
int ledger_item_next(const void *file, size_t size, size_t *offset, struct ledger_item *ret,
		     struct error *err);

#endif
