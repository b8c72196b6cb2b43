/* A ledger as a driver would write it, record by record, and the file of it. */
#ifndef TEST_LEDGER_RIG_H
#define TEST_LEDGER_RIG_H

#include "engine/ledger/history.h"
#include "test_evidence_rig.h"

#define RECORDS_MAX 64

struct book {
	struct rig rig;
	struct identity node; /* par-1 */
	struct ledger_tip tip;
	uint8_t *bytes[RECORDS_MAX];
	size_t size[RECORDS_MAX];
	unsigned count;
	Pave__V1__Signed *head;
	int64_t now;
};

/* Evidence, two nodes (par-1 with an identity, lyo-1 without), a volume: nothing given yet. */
void book_init(struct book *b);
void book_deinit(struct book *b);

/* -- writing ---------------------------------------------------------------------------------- */

void put(struct book *b, Pave__V1__LedgerRecord *r);

#define PUT(b, CASE, field, body)                                                                  \
	do {                                                                                       \
		Pave__V1__LedgerRecord r_ = PAVE__V1__LEDGER_RECORD__INIT;                         \
                                                                                                   \
		r_.body_case = PAVE__V1__LEDGER_RECORD__BODY_##CASE;                               \
		r_.field = (body);                                                                 \
		put((b), &r_);                                                                     \
	} while (0)

static inline ProtobufCBinaryData data(const void *bytes, size_t size)
{
	return (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)bytes};
}

static inline char *name(const char *s)
{
	return (char *)(uintptr_t)s;
}

void put_document(struct book *b, const char *kind, const char *of, char *envelope);
void put_evidence(struct book *b, uint64_t snapshot, int64_t par_withdrawn);
void put_site(struct book *b, const char *site, uint64_t version);
void put_node(struct book *b, const char *node, const char *site, const struct identity *id);

struct permit_case {
	generation_t generation;
	uint64_t serial, par_version;
	int64_t serve_after;
	const char *signer; /* NULL: the placement key */
	const char *policy; /* the text that is in force; NULL: the preset dev */
	const char *holder_site;
};

void put_permit(struct book *b, const struct permit_case *c);
void put_permit_end(struct book *b, generation_t generation, const char *why, int64_t expires);

struct receipt_case {
	generation_t generation;
	uint64_t first_serial, last_serial, serial;
	int64_t from, until; /* after now */
	uint64_t head_seq;
	uint8_t head_byte; /* added to the hash's first */
	bool other_key;
};

void put_receipt(struct book *b, const struct receipt_case *c);
/* An attachment that ended, with a receipt, and one that goes on. */
void put_ordinary_life(struct book *b);
void sign_head(struct book *b);

/* -- files ------------------------------------------------------------------------------------ */

/* The file of the records in this order, and the head; malloc'd. */
char *file_of(const struct book *b, const unsigned *order, unsigned count, size_t *ret_size);
int replay(const struct book *b, const char *file, size_t size, struct history **ret,
	   struct error *err);
void in_order(unsigned *order, unsigned count);
struct history *replay_whole(const struct book *b);
/* It is not accepted, and the text has the word. */
void refused(const struct book *b, const unsigned *order, unsigned count, const char *word);

#endif
