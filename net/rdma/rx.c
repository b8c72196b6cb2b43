/* rx: the receiving side of a connection. See conn.h and transport.h.
 *
 * Happy path: a message is decoded where it lies and delivered; its buffer is posted again, and
 * owed to the peer as a credit. A payload that lies with the peer is fetched with RDMA READ
 * straight into the owner's memory; what arrives meanwhile is held, so that frames are delivered in
 * their order.
 *
 * Failure modes: a message that does not decode, credits or fetches that cannot be, more messages
 * than there were credits for, an owner without memory, and memory that the device does not
 * register end the connection. */
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"

static struct rdma_held *first_held(struct rdma_conn *c)
{
	INVARIANT(c->held_first != c->held_end);
	return &c->held[c->held_first % RDMA_CREDITS];
}

/* The buffer is the peer's again. */
static void release(struct rdma_conn *c, uint16_t slot)
{
	rdma_receive_again(conn_rdma(c), slot);
	c->owed++;
}

static void deliver_first(struct rdma_conn *c)
{
	struct rdma_held *h = first_held(c);
	const struct frame *f = &h->message.frame;

	c->head.stats.rx_frames++;
	c->head.stats.rx_bytes += FRAME_HEADER_SIZE + 4ull * f->crc_count + f->payload_size;
	c->head.handler->rx(&c->head, f, c->head.arg);
	release(c, h->slot);
	c->held_first++;
}

/* -- fetching --------------------------------------------------------------------------------- */

static void drop_read_memory(struct rdma_conn *c)
{
	if (c->read_mr != NULL)
		conn_rdma(c)->verbs->dereg_mr(c->read_mr);
	c->read_mr = NULL;
	c->read_memory = NULL;
}

static int post_reads(struct rdma_conn *c, const struct rdma_message *m, uint32_t lkey)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_send_wr wrs[RDMA_READS_MAX] = {0}, *bad = wrs;
	struct ibv_sge sges[RDMA_READS_MAX];
	uint64_t at = (uintptr_t)c->read_memory;
	const uint32_t count = m->segment_count;
	int rc;

	for (uint32_t i = 0; i < count; i++) {
		const struct rdma_segment *s = &m->segments[i];

		sges[i] = (struct ibv_sge){at, s->size_bytes, lkey};
		wrs[i] = (struct ibv_send_wr){
		    .wr_id = (uint64_t)c->id << 16 | RDMA_WR_READ,
		    .next = i + 1 < count ? &wrs[i + 1] : NULL,
		    .sg_list = &sges[i],
		    .num_sge = 1,
		    .opcode = IBV_WR_RDMA_READ,
		    .send_flags = IBV_SEND_SIGNALED,
		    .wr.rdma = {.remote_addr = s->address, .rkey = s->key},
		};
		at += s->size_bytes;
	}
	rc = t->verbs->post_send(c->qp, wrs, &bad);
	c->reading = count;
	if (rc != 0)
		c->reading = bad >= wrs && bad < wrs + count ? (uint32_t)(bad - wrs) : 0;
	c->tx_posted += c->reading;
	t->counters.post_calls++;
	return -rc;
}

/* Begins to fetch the payload of the first message that is held. */
static int begin_read(struct rdma_conn *c)
{
	struct rdma *t = conn_rdma(c);
	const struct transport_handler *h = c->head.handler;
	const struct rdma_message *m = &first_held(c)->message;
	const uint32_t size = m->frame.payload_size;
	struct ibv_mr *mr;
	void *memory = h->rx_buffer != NULL ? h->rx_buffer(&c->head, &m->frame, c->head.arg) : NULL;

	if (memory == NULL)
		return -ENOBUFS;
	if (c->state != RDMA_OPEN)
		return 0;
	PRE((uintptr_t)memory % BLOCK_SIZE == 0);
	mr = rdma_region_find(t, memory, size);
	if (mr == NULL) {
		mr = t->verbs->reg_mr(t->pd, memory, size, IBV_ACCESS_LOCAL_WRITE);
		if (mr == NULL)
			return -ENOMEM;
		t->counters.registrations++;
		c->read_mr = mr;
	}
	c->read_memory = memory;
	return post_reads(c, m, mr->lkey);
}

static void run(struct rdma_conn *c)
{
	int rc = 0;

	while (rc == 0 && c->state == RDMA_OPEN && c->reading == 0 &&
	       c->held_first != c->held_end) {
		if (first_held(c)->message.kind == RDMA_PULL)
			rc = begin_read(c);
		else
			deliver_first(c);
	}
	if (rc != 0)
		rdma_conn_end(c, rc);
}

void rdma_rx_read_done(struct rdma_conn *c)
{
	struct rdma *t = conn_rdma(c);

	INVARIANT(c->reading > 0);
	c->reading--;
	if (c->reading > 0 || c->state != RDMA_OPEN)
		return;
	first_held(c)->message.frame.payload = c->read_memory;
	t->counters.pulls++;
	t->counters.pulled_bytes += first_held(c)->message.frame.payload_size;
	drop_read_memory(c);
	c->pulled_owed++;
	deliver_first(c);
	run(c);
	rdma_tx_kick(c);
}

/* -- messages --------------------------------------------------------------------------------- */

/* What the message says of our own buffers at the peer, and payloads. */
static bool take_returns(struct rdma_conn *c, const struct rdma_message *m)
{
	if (m->credits > c->credits_max - c->credits)
		return false;
	c->credits += m->credits;
	return rdma_tx_pulled(c, m->pulled);
}

void rdma_rx_message(struct rdma_conn *c, uint16_t slot, uint32_t size_bytes)
{
	struct rdma *t = conn_rdma(c);
	struct rdma_held *h = &c->held[c->held_end % RDMA_CREDITS];
	int rc = -E_BAD_FRAME;

	if (c->state != RDMA_GREETING && c->state != RDMA_OPEN) {
		rdma_receive_again(t, slot);
		return;
	}
	c->head.stats.rx_calls++;
	if (size_bytes <= RDMA_SLOT_SIZE && c->held_end - c->held_first < RDMA_CREDITS)
		rc = rdma_message_decode(rdma_receive_memory(t, slot), size_bytes, &h->message);
	if (rc == 0 && !take_returns(c, &h->message))
		rc = -E_BAD_FRAME;
	if (rc != 0) {
		rdma_receive_again(t, slot);
		rdma_conn_end(c, rc);
		return;
	}
	h->slot = slot;
	if (h->message.kind == RDMA_ACK)
		release(c, slot);
	else
		c->held_end++;
	if (c->state == RDMA_GREETING)
		rdma_conn_established(c);
	run(c);
	rdma_tx_kick(c);
}

void rdma_rx_drop(struct rdma_conn *c)
{
	for (; c->held_first != c->held_end; c->held_first++)
		rdma_receive_again(conn_rdma(c), first_held(c)->slot);
	drop_read_memory(c);
	c->reading = 0;
}
