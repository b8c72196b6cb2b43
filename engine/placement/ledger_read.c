/* The driver hands out its ledger in pieces, for `pave audit export`. See driver.h.
 *
 *   LedgerRead --> [get record, get record, ... until the piece is full or the durable end is
 * reached] --> LedgerReadReply
 *
 * The records are read from kv on workers, one after the other: nothing of the driver's waits for
 * it. With the last piece comes the signed head, of exactly the last record in it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/placement/driver.h"

#define READS_MAX   4u	       /* at once, of all sessions */
#define PIECE_BYTES (1u << 20) /* of records; one that is larger comes alone */
#define PIECE_MAX   8192u      /* records in a piece */

struct pd_ledger_read {
	struct kv_get_op op;
	struct pd_request *q;
	uint64_t next, last;
	size_t bytes, bytes_max;
	uint8_t *value; /* LEDGER_RECORD_MAX */
	ProtobufCBinaryData *records;
	size_t count;
	struct pd_ledger_read *list_next, *list_prev;
};

static void read_free(struct pd_ledger_read *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->records[i].data);
	free(r->records);
	free(r->value);
	free(r);
}

static void read_end(struct pd_ledger_read *r)
{
	DL_DELETE2(r->q->pd->ledger_reads, r, list_prev, list_next);
	read_free(r);
}

void ledger_read_drop(struct pd *pd)
{
	struct pd_ledger_read *r, *next;

	DL_FOREACH_SAFE2(pd->ledger_reads, r, next, list_next)
	read_free(r);
	pd->ledger_reads = NULL;
}

static void answer(struct pd_ledger_read *r)
{
	struct pd_request *q = r->q;
	struct pd_ledger *l = &q->pd->ledger;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__LedgerReadReply reply = PAVE__V1__LEDGER_READ_REPLY__INIT;

	reply.records = r->records;
	reply.n_records = r->count;
	reply.next = r->next;
	reply.last = l->durable.seq;
	/* More may have come since this began: then the head is not of this piece. */
	reply.more = r->next <= l->durable.seq;
	if (!reply.more)
		reply.head = (Pave__V1__Signed *)(uintptr_t)pd_ledger_head(l);
	m.body_case = PAVE__V1__CONTROL__BODY_LEDGER_READ_REPLY;
	m.ledger_read_reply = &reply;
	DL_DELETE2(q->pd->ledger_reads, r, list_prev, list_next);
	request_reply(q, &m); /* q is gone, and pd may be waiting for us to end */
	read_free(r);
}

static void get_next(struct pd_ledger_read *r)
{
	pd_ledger_key(r->next, r->op.key);
	r->op.key_size = PD_LEDGER_KEY_SIZE;
	kv_get(r->q->pd->reg.kv, &r->op);
}

static void got(struct kv_get_op *op, int status)
{
	struct pd_ledger_read *r = container_of(op, struct pd_ledger_read, op);
	struct pd_request *q = r->q;
	ProtobufCBinaryData *record = &r->records[r->count];
	struct error err;

	if (status == 0 && op->value_size > op->value_max)
		status = -E_CORRUPT;
	if (status == 0 && r->count > 0 && r->bytes + op->value_size > r->bytes_max) {
		answer(r);
		return;
	}
	if (status == 0) {
		*record = (ProtobufCBinaryData){op->value_size, malloc(op->value_size + 1)};
		if (record->data == NULL)
			status = -ENOMEM;
	}
	if (status != 0) {
		error_set(&err, status, "record %llu of the ledger cannot be read: %s",
			  (unsigned long long)r->next, err_text(status));
		read_end(r);
		request_fail(q, &err);
		return;
	}
	memcpy(record->data, r->value, op->value_size);
	r->bytes += op->value_size;
	r->count++;
	r->next++;
	if (r->next > r->last || r->count == PIECE_MAX)
		answer(r);
	else
		get_next(r);
}

static int check(struct pd *pd, const Pave__V1__LedgerRead *ask, struct error *err)
{
	struct pd_ledger_read *r;
	unsigned count;

	DL_COUNT2(pd->ledger_reads, r, count, list_next);
	if (count >= READS_MAX)
		return error_set(err, -E_LIMIT, "%u readers of the ledger are at work, the most",
				 READS_MAX);
	if (ask->from == 0 || ask->from > pd->ledger.durable.seq)
		return error_set(err, -ENOENT, "the ledger has records 1 to %llu, and none %llu",
				 (unsigned long long)pd->ledger.durable.seq,
				 (unsigned long long)ask->from);
	return 0;
}

void admin_ledger_read(struct pd_request *q, const Pave__V1__Control *m)
{
	const Pave__V1__LedgerRead *ask = m->ledger_read;
	struct pd *pd = q->pd;
	struct pd_ledger_read *r = NULL;
	struct error err;

	if (check(pd, ask, &err) != 0) {
		request_fail(q, &err);
		return;
	}
	r = calloc(1, sizeof *r);
	if (r != NULL) {
		r->value = malloc(LEDGER_RECORD_MAX);
		r->records = calloc(PIECE_MAX, sizeof *r->records);
	}
	if (r == NULL || r->value == NULL || r->records == NULL) {
		if (r != NULL)
			read_free(r);
		error_set(&err, -ENOMEM, "no memory to read the ledger");
		request_fail(q, &err);
		return;
	}
	r->q = q;
	r->next = ask->from;
	r->last = pd->ledger.durable.seq;
	r->bytes_max = ask->max_bytes == 0 ? PIECE_BYTES : MIN(ask->max_bytes, PIECE_BYTES);
	r->op.done = got;
	r->op.family = PD_KV_LEDGER;
	r->op.value = r->value;
	r->op.value_max = LEDGER_RECORD_MAX;
	DL_APPEND2(pd->ledger_reads, r, list_prev, list_next);
	get_next(r);
}
