/* receipts: signed, numbered, and brought to the placement driver over the lease's conversation.
 *
 *   node_lease_receipt -> queue --connected, nothing under way--> Receipts --durable in the
 * ledger--> forgotten
 *
 * Numbers rise by one within a run of the node, and a run is named by the moment at which it began:
 * so an auditor sees what is missing. That moment is told by the driver's time: this machine's
 * clock may be set, and what is of an earlier run than the last the driver has already. The queue
 * is bounded: when the driver is away no permit is renewed, and so there is soon nothing to tell;
 * what comes beyond the bound is dropped, logged, and leaves a gap in the numbers. What a node that
 * is killed has not delivered is missing likewise. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/ledger/chain.h"
#include "engine/node/lease.h"

#define SEND_MAX	64u
#define SEND_TIMEOUT_MS 10000u

static int sign(struct node_lease *k, const struct node_receipt *b, Pave__V1__Signed **ret,
		struct error *err)
{
	struct node_lease_config *config = &k->config;
	Pave__V1__Receipt m = PAVE__V1__RECEIPT__INIT;
	size_t size;
	uint8_t *bytes;
	int rc;

	m.cluster = (ProtobufCBinaryData){sizeof config->identity.cluster.bytes,
					  config->identity.cluster.bytes};
	m.node = config->identity.name;
	m.site = config->identity.site;
	m.site_version = b->site_version;
	m.volume = b->volume;
	m.generation = b->generation;
	m.first_serial = b->first_serial;
	m.last_serial = b->last_serial;
	m.policy_digest =
	    (ProtobufCBinaryData){sizeof b->policy_digest, (uint8_t *)(uintptr_t)b->policy_digest};
	m.count = b->count;
	m.bytes = b->bytes;
	m.first_version = b->first_version;
	m.last_version = b->last_version;
	m.chain = (ProtobufCBinaryData){sizeof b->chain, (uint8_t *)(uintptr_t)b->chain};
	m.from = b->from;
	m.until = b->until;
	m.pulled_blocks = b->pulled_blocks;
	m.run = k->receipts.run;
	m.serial = k->receipts.serial + 1;
	m.head_seq = k->receipts.head.seq;
	if (m.head_seq != 0)
		m.head_hash =
		    (ProtobufCBinaryData){sizeof k->receipts.head.hash, k->receipts.head.hash};
	size = pave__v1__receipt__get_packed_size(&m);
	bytes = malloc(size);
	if (bytes == NULL)
		return error_set(err, -ENOMEM, "no memory");
	pave__v1__receipt__pack(&m, bytes);
	rc = signed_make(TYPE_RECEIPT, bytes, size, config->proof->key, ret, err);
	free(bytes);
	return rc;
}

static void forget_sent(struct node_receipts *r)
{
	for (uint32_t i = 0; i < r->sending; i++)
		pave__v1__signed__free_unpacked(r->queue[(r->first + i) % NODE_RECEIPTS_MAX], NULL);
	r->first = (r->first + r->sending) % NODE_RECEIPTS_MAX;
	r->count -= r->sending;
	r->sending = 0;
}

static void delivered(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		      const char *text)
{
	struct node_lease *k = container_of(call, struct node_lease, receipts.call);
	struct node_receipts *r = &k->receipts;

	(void)reply;
	if (status == 0 || status == -EOPNOTSUPP || status == -EINVAL) {
		if (status != 0)
			log_warn("lease", "the driver takes no receipts: %s",
				 text != NULL ? text : err_text(status));
		forget_sent(r);
	} else {
		r->sending = 0; /* the same again, once there is a connection */
	}
	/* What is refused for now waits for the next lease. */
	if (status != -E_DISCONNECTED && status != -E_STALE_EVIDENCE)
		node_receipts_send(k);
	node_lease_drained(k);
}

void node_receipts_send(struct node_lease *k)
{
	struct node_receipts *r = &k->receipts;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Receipts body = PAVE__V1__RECEIPTS__INIT;
	Pave__V1__Signed *list[SEND_MAX];

	if (r->count == 0 || r->sending > 0 || k->conn == NULL ||
	    (k->step != LEASE_IDLE && k->step != LEASE_ASKING && k->step != LEASE_TAKING_IN))
		return;
	r->sending = MIN(r->count, SEND_MAX);
	for (uint32_t i = 0; i < r->sending; i++)
		list[i] = r->queue[(r->first + i) % NODE_RECEIPTS_MAX];
	body.receipts = list;
	body.n_receipts = r->sending;
	m.body_case = PAVE__V1__CONTROL__BODY_RECEIPTS;
	m.receipts = &body;
	r->call.done = delivered;
	rpc_call_start(&k->rpc, &r->call, &m, SEND_TIMEOUT_MS);
}

void node_lease_receipt(struct node_lease *k, const struct node_receipt *receipt)
{
	struct node_receipts *r = &k->receipts;
	Pave__V1__Signed *s;
	struct error err;

	if (k->config.proof == NULL)
		return;
	if (r->run == 0)
		r->run = node_lease_driver_wall(k);
	if (r->count == NODE_RECEIPTS_MAX) {
		log_warn("lease", "receipt %llu is dropped: %u wait for the placement driver",
			 (unsigned long long)r->serial + 1, NODE_RECEIPTS_MAX);
		r->serial++;
		return;
	}
	if (sign(k, receipt, &s, &err) != 0) {
		log_warn("lease", "a receipt cannot be signed: %s", err.text);
		r->serial++;
		return;
	}
	r->serial++;
	r->queue[(r->first + r->count) % NODE_RECEIPTS_MAX] = s;
	r->count++;
	node_receipts_send(k);
}

void node_receipts_take_head(struct node_lease *k, const Pave__V1__Signed *head)
{
	struct ledger_tip tip;
	struct error err;

	if (head == NULL)
		return;
	if (ledger_head_open(head, trust_root(k->config.trust), &tip, &err) != 0) {
		log_warn("lease", "the head of the ledger: %s", err.text);
		return;
	}
	if (tip.seq > k->receipts.head.seq)
		k->receipts.head = tip;
}

void node_receipts_deinit(struct node_lease *k)
{
	struct node_receipts *r = &k->receipts;

	for (uint32_t i = 0; i < r->count; i++)
		pave__v1__signed__free_unpacked(r->queue[(r->first + i) % NODE_RECEIPTS_MAX], NULL);
	r->count = r->sending = 0;
}
