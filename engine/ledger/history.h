/* The history that a ledger tells: its records replayed, every signature verified, every permit and
 * lease judged anew from the evidence that stood in the ledger when it was given.
 *
 *   file + trust root -> chain (chain.h) -> documents -> permits, leases, receipts -> state,
 * findings
 *
 * What it proves: that the authorities of the trust root asserted what the certificates say, that
 * the driver decided by it, and what the nodes say they took in. Not the law, and not what a node
 * did beside what it signed.
 *
 * A chain that is broken ends the replay with an error that names the record. What contradicts the
 * evidence inside a whole chain is a *finding*; what an auditor should know and is no contradiction
 * (a late notice, a receipt that is missing) is a *note*. Pure: no I/O, no clock. */
#ifndef LEDGER_HISTORY_H
#define LEDGER_HISTORY_H

#include <uthash.h>

#include "engine/evidence/identity.h"
#include "engine/evidence/permit.h"
#include "engine/ledger/chain.h"

#define HISTORY_FINDINGS_MAX 1000u /* kept; all are counted */

struct history_finding {
	uint64_t seq; /* of the record */
	bool note;
	char text[400];
};

/* A document's envelope, to be verified again under another root; malloc'd, may be NULL. */
struct history_envelope {
	void *data;
	size_t size;
};

struct history_certificate {
	struct site_document *document;
	struct history_envelope envelope;
	bool is_void; /* under a root that came later */
};

struct history_site {
	char name[NAME_SIZE_MAX];
	struct history_certificate *versions; /* in the order in which they were taken in */
	uint32_t version_count;
	int64_t told_from; /* from when on the last snapshot withdraws it; INT64_MIN: it doesn't */
	UT_hash_handle hh;
};

struct history_policy {
	char name[NAME_SIZE_MAX];
	struct policy_document *document; /* in force; NULL: void under a root that came later */
	struct history_envelope envelope; /* none: a preset as it ships */
	bool by_operator;		  /* then what the tenant signed, unless it is a preset: */
	struct history_envelope base;
	UT_hash_handle hh;
};

struct history_node {
	char name[NAME_SIZE_MAX];
	char site[NAME_SIZE_MAX];
	struct public_key *key;	 /* proved to be the node's; NULL: none */
	int64_t receipt_run;	 /* of the last receipt */
	uint64_t receipt_serial; /* in that run */
	bool leased;		 /* an open lease span */
	int64_t lease_from, lease_until;
	uint64_t lease_site_version;
	UT_hash_handle hh;
};

/* What permits and leases that were alike rested on: a site's certificate under a policy. They may
 * go on, unwritten, for as long as it holds. */
struct history_claim {
	struct history_claim_key {
		char policy[NAME_SIZE_MAX]; /* "": a lease's */
		uint8_t digest[32];	    /* of the policy */
		char site[NAME_SIZE_MAX];
		uint64_t version; /* of the certificate; 0: the last one */
	} key;
	int64_t past; /* what was given on evidence before that in force has ended by then;
			 INT64_MIN: there was none before */
	/* Before that: no evidence allowed that anything lasts until a moment after from and before
	 * to. */
	struct history_gap {
		int64_t from, to;
	} * gaps;
	uint32_t gap_count;
	int64_t noted_at; /* something that rests on it was given then */
	UT_hash_handle hh;
};

/* Permits that named the same nodes on the same conditions. */
struct history_permit {
	Pave__V1__Permit *first;
	uint64_t seq; /* of the record */
	bool open;
	uint64_t last_serial; /* once it is not open */
	int64_t expires_at;   /* no later than this */
	char why[24];
};

/* Copies that left the map and are not known to be erased. */
struct history_leftover {
	char node[NAME_SIZE_MAX];
	chunk_no_t chunk; /* UINT32_MAX: all */
	int64_t since;
	struct history_leftover *next;
};

/* Copies that are erased, as its record says; what contradicts what the node signed is not here. */
struct history_erasure {
	char node[NAME_SIZE_MAX];
	char method[16]; /* "drop", "discard", "overwrite" */
	bool whole, is_signed;
	uint32_t chunk_count;
	uint64_t segments, bytes, took_ms;
	int64_t done_at;
	struct history_erasure *next;
};

struct history_volume {
	uint64_t id;
	char name[NAME_SIZE_MAX];
	char policy[NAME_SIZE_MAX];
	uint64_t size, chunk_size;
	uint32_t replicas, min_acks;
	int64_t created_at, ended_at; /* ended_at 0: it is there */
	uint64_t map_version;
	char (*nodes)[NAME_SIZE_MAX]; /* of the map */
	uint32_t node_count;
	uint8_t *map; /* replicas bytes a chunk */
	uint32_t chunk_count;
	struct history_permit *permits;
	uint32_t permit_count;
	struct history_leftover *leftovers;
	struct history_erasure *erasures; /* in their order */
	UT_hash_handle hh;
};

struct history_receipt {
	Pave__V1__Receipt *body;
	uint64_t seq;
	bool tainted;
};

struct history_taint {
	uint64_t seq; /* of the record */
	char site[NAME_SIZE_MAX];
	int64_t effective_from, noticed_at;
	bool untold; /* it follows from a snapshot, and no record says so */
};

struct history {
	struct ledger_tip tip, head; /* the last record; the newest signed head of the file */
	int64_t first_at;
	uint8_t (*hashes)[LEDGER_HASH_SIZE]; /* of each record */
	size_t hash_room;
	struct root_document *root;	 /* in force; NULL: all came after the moment asked for */
	struct root_document *last_root; /* one that came after it, which signed heads verify under;
					    NULL: none did */
	bool linked;			 /* to the root that the auditor trusts; until then: */
	struct history_envelope earlier_root; /* the last one that came */
	struct history_site *sites;
	struct history_policy *policies;
	struct revocations_document *revocations; /* in force */
	struct history_envelope revocations_envelope;
	struct history_node *nodes;
	struct history_volume *volumes; /* ended ones too */
	struct history_claim *claims;
	int64_t evidence_at; /* since when the evidence in force is */
	struct history_receipt *receipts;
	uint32_t receipt_count, receipt_room;
	struct history_taint *taints;
	uint32_t taint_count;
	struct history_finding *findings;
	uint32_t finding_count, note_count; /* all */
	uint32_t kept_count;		    /* in findings */
	uint64_t denials, permits, leases, erasures, erasures_signed;
	uint64_t erasures_by[3]; /* policy_erase_strictness: dropped, discarded, overwritten */
	uint64_t erased_bytes, erasure_longest_ms;
	uint64_t receipts_bytes;
	/* Of the replay. */
	const struct root_document *trusted;
	bool failed; /* no memory */
};

struct history_options {
	int64_t until; /* records after this moment are checked for the chain of records and that of
			  trust roots only; INT64_MAX: all */
	/* Called for each record that counts, after it has been taken in; may be NULL. */
	void (*each)(const struct history *h, const Pave__V1__LedgerRecord *r, void *arg);
	void *arg;
};

/* Replays a file in memory. root: the envelope of the root that the auditor trusts; roots of the
 * ledger that come before it must lead to it, each signed also by the keys of the one after it.
 * -E_BAD_DOCUMENT, -E_BAD_SIGNATURE, -E_WRONG_CLUSTER (broken: the text says what), -ENOENT (all of
 * it came after options->until), -ENOMEM. On success *ret is the caller's, also with findings. */
int history_replay(const void *file, size_t size, const void *root, size_t root_size,
		   const struct history_options *options, struct history **ret, struct error *err);
void history_free(struct history *h); /* NULL is allowed */

struct history_volume *history_find_volume(const struct history *h, const char *name_or_id);
struct history_node *history_find_node(const struct history *h, const char *name);
/* The certificate of that version; version 0: the last one. NULL: not in the ledger. */
const struct site_document *history_site_version(const struct history *h, const char *site,
						 uint64_t version);
/* The same, if it is not void under the root in force at this point of the replay. */
const struct site_document *history_site_in_force(const struct history *h, const char *site,
						  uint64_t version);
const struct policy_document *history_policy(const struct history *h, const char *name);

/* -- for judge.c ------------------------------------------------------------------------------ */

void history_finding(struct history *h, uint64_t seq, bool note, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void history_judge_permit(struct history *h, uint64_t seq, const Pave__V1__Signed *s);
void history_judge_permit_end(struct history *h, uint64_t seq, const Pave__V1__LedgerPermitEnd *e);
void history_judge_lease(struct history *h, uint64_t seq, const Pave__V1__Signed *s);
void history_judge_lease_end(struct history *h, uint64_t seq, const Pave__V1__LedgerLeaseEnd *e);
/* Evidence is about to change: what is in force now is over at that moment. */
void history_judge_evidence(struct history *h, int64_t at);
void history_judge_receipt(struct history *h, uint64_t seq, const Pave__V1__Signed *s);
/* False: the record contradicts what the node signed, or that is not the node's. */
bool history_judge_erasure(struct history *h, uint64_t seq, const Pave__V1__LedgerErasure *e);
void history_judge_taint(struct history *h, uint64_t seq, const Pave__V1__LedgerTaint *t);
/* A snapshot was taken in: what it withdraws from a moment on that is past, and the one before did
 * not. */
void history_judge_late(struct history *h, uint64_t seq, int64_t at);
/* At the end: which receipts the taints flag. */
void history_judge_taints(struct history *h);

#endif
