/* The driver's pen: writes the ledger (engine/ledger) into the register, in the same batch as what
 * it tells of, so that both are durable or neither is.
 *
 * Permits and leases are renewed every few seconds, and most differ only in serial and times. The
 * ledger holds the first of those that are alike, and the end of them:
 *
 *   (nothing) --permit--> OPEN --alike--> OPEN --another, released, denied ...--> ended --permit-->
 * OPEN
 *
 * The first of a kind is durable in the ledger *before* it, or another like it, is given: whoever
 * makes one asks pd_ledger_permit, commits when it says so, and makes it again. One that only names
 * fewer nodes than the one before may be given at once, because what is open covers it: a
 * revocation waits for no disk.
 *
 * Thread: the driver's reactor. */
#ifndef PLACEMENT_LEDGER_H
#define PLACEMENT_LEDGER_H

#include "engine/ledger/chain.h"
#include "engine/placement/register.h"

struct ledger_span;   /* an open permit or lease */
struct ledger_denial; /* the last of its subject */

struct pd_ledger {
	struct reg *reg;
	struct signing_key *key;
	struct ledger_tip tip;	   /* written, maybe not durable */
	struct ledger_tip durable; /* what a head may be signed of */
	struct ledger_span *permits, *leases;
	struct ledger_denial *denials;
	struct reg_commit commit; /* after it `durable` moves up */
	struct ledger_tip committing;
	bool busy, again;
	Pave__V1__Signed *head; /* of head_seq, made when asked for */
	uint64_t head_seq;
	struct error broken; /* a record could not be written: the register is broken with it */
};

/* Finds the end of the ledger (blocks), and begins this run: what an earlier run left open is
 * ended. root: the envelope of the trust root in force. -E_CORRUPT, -EIO, -ENOMEM. */
int pd_ledger_start(struct pd_ledger *l, struct reg *reg, struct signing_key *key, const void *root,
		    size_t root_size, struct error *err);
void pd_ledger_deinit(struct pd_ledger *l); /* zeroed memory is allowed */
bool pd_ledger_idle(const struct pd_ledger *l);

/* -- what happened; none of these can fail: a register that cannot be written is broken ---------
 */

void pd_ledger_document(struct pd_ledger *l, const char *kind, const char *name, uint64_t version,
			const void *envelope, size_t size);
void pd_ledger_node(struct pd_ledger *l, const struct reg_node *n);
void pd_ledger_volume(struct pd_ledger *l, const struct reg_volume *v, uint64_t policy_version);
void pd_ledger_map(struct pd_ledger *l, const struct reg_volume *v);
void pd_ledger_move(struct pd_ledger *l, const struct reg_volume *v, chunk_no_t chunk,
		    const char *from, const char *to, const char *why);
void pd_ledger_volume_end(struct pd_ledger *l, const struct reg_volume *v);
void pd_ledger_erasure(struct pd_ledger *l, const Pave__V1__LedgerErasure *e);
void pd_ledger_taint(struct pd_ledger *l, const char *site, int64_t effective_from,
		     uint64_t revocations_version);
void pd_ledger_receipt(struct pd_ledger *l, Pave__V1__Signed *receipt);
/* The same refusal of the same subject again is not told again; nor are more than eight an hour of
 * a subject that is refused for different reasons by turns, and nothing given in between: the end
 * of what it held, and that it was refused, stand there by then. */
void pd_ledger_denial(struct pd_ledger *l, const char *what, const char *subject,
		      const struct error *why);

/* A permit that was made. True: it may be given. False: it was written down, by this call or by one
 * before it, and may be given once that is durable (commit, and make it again). */
bool pd_ledger_permit(struct pd_ledger *l, const Pave__V1__Signed *permit);
/* No more like the last one. expires_at: none of them is valid after this; the record tells when
 * the last that was made ends, if that is sooner. */
void pd_ledger_permit_end(struct pd_ledger *l, volume_id_t volume, int64_t expires_at,
			  const char *why);
/* The host has let go of it: none of its permits is of use any more. */
void pd_ledger_released(struct pd_ledger *l, const struct reg_volume *v, generation_t generation);
bool pd_ledger_lease(struct pd_ledger *l, const Pave__V1__Signed *lease);
void pd_ledger_lease_end(struct pd_ledger *l, const char *node, const char *why);

/* The signed head of what is durable; the ledger's memory, valid until the next record. NULL: none
 * yet, or no memory. */
const Pave__V1__Signed *pd_ledger_head(struct pd_ledger *l);

/* The key of a record in PD_KV_LEDGER. */
#define PD_LEDGER_KEY_SIZE 8u
void pd_ledger_key(uint64_t seq, uint8_t ret[PD_LEDGER_KEY_SIZE]);

#endif
