/* Receipts: what a node took in from one attachment while its permits said the same of it
 * (ledger.proto, Receipt).
 *
 *   NONE --first write acknowledged--> COUNTING --permit of another kind, RECEIPT_INTERVAL, gate
 * closed, ^                                    |       end of the session-->  handed over
 *     +------------------------------------+
 *
 * The chain of a receipt is the SHA-256 over one record for each write, in the order of their
 * acknowledgement: version (8 bytes), chunk, block, block_count, op | discard << 8 (4 each; all
 * little-endian), and the CRC of each block. So nobody can claim later that other writes were taken
 * in, and an auditor with the host's log of writes can recompute it.
 *
 * On the path of a write it costs a copy of 24 bytes and the CRCs; what was copied is hashed 4 KiB
 * at a time. Thread: the shard's reactor. */
#ifndef NODE_RECEIPT_H
#define NODE_RECEIPT_H

#include "engine/base/types.h"
#include "engine/evidence/permit.h"

#define RECEIPT_INTERVAL_NS (60 * NS_PER_S)
#define RECEIPT_BUFFER	    4096u

/* A receipt that is complete but for who signs it. Plain memory. */
struct node_receipt {
	volume_id_t volume;
	generation_t generation;
	uint64_t first_serial, last_serial; /* of the permits */
	uint64_t site_version;
	uint8_t policy_digest[32];
	uint64_t count, bytes;
	version_t first_version, last_version;
	uint8_t chain[32];
	int64_t from, until; /* by the driver's clock */
	uint64_t pulled_blocks;
};

struct receipt_counter {
	struct node_receipt body;   /* count and pulled_blocks 0: nothing was taken in yet */
	uint64_t began_ns, last_ns; /* of the first and the last write; CLOCK_BOOTTIME */
	void *digest;		    /* EVP_MD_CTX */
	uint32_t used;
	uint8_t buffer[RECEIPT_BUFFER];
};

/* -ENOMEM. */
int receipt_counter_init(struct receipt_counter *c);
void receipt_counter_deinit(struct receipt_counter *c); /* zeroed memory is allowed */

/* A write, zero or discard that is acknowledged. crcs: one a block, or NULL without payload. now
 * and wall: of the first one of a receipt. */
void receipt_count(struct receipt_counter *c, const struct permit *permit, uint64_t site_version,
		   uint8_t op, bool discard, version_t version, chunk_no_t chunk, block_no_t block,
		   uint32_t block_count, const uint32_t *crcs, uint64_t now_ns, int64_t wall_ns);
/* Blocks that came from another node. */
void receipt_count_pulled(struct receipt_counter *c, const struct permit *permit,
			  uint64_t site_version, uint64_t blocks, uint64_t now_ns, int64_t wall_ns);

/* Whether a permit says the same as the one before, but for serial and times: then one receipt may
 * cover both. */
bool receipt_same_permit(const struct permit *a, const struct permit *b);

/* Ends the receipt, at its last write. False: there is nothing to tell. */
bool receipt_close(struct receipt_counter *c, struct node_receipt *ret);

#endif
