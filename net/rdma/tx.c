/* tx: the sending side of a connection. See conn.h and transport.h.
 *
 * Happy path: rdma_tx_send queues a frame and defers the flush; the flush, at the end of the turn,
 * makes a message of each and posts them in one call. A message carries small payloads along:
 * copied beside the header, or gathered from where they lie when that is registered. Of a large one
 * it says where it lies; the frame is done when the peer says that it was fetched.
 *
 * Credits: a message needs a buffer at the peer. What is owed to the peer goes with the next
 * message, or in one of its own when half of the buffers are owed or a payload was fetched. Frames
 * leave the last credit to messages that return half of the peer's: so both sides never wait for
 * each other.
 *
 * Failure modes: no credit, no slot: frames wait for them. Memory that is not registered and cannot
 * be, and a call that fails, end the connection. */
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"

#define OWED_DUE (RDMA_CREDITS / 2)

static bool is_large(const struct transport_send *s)
{
	return s->frame.payload_size > TRANSPORT_COPY_MAX;
}

/* -- large payloads --------------------------------------------------------------------------- */

static void release_regions(struct rdma_conn *c, struct rdma_pull *p)
{
	while (p->mr_count > 0)
		conn_rdma(c)->verbs->dereg_mr(p->mrs[--p->mr_count]);
}

/* Where it lies, as the peer can read it. */
static int fill_segments(struct rdma_conn *c, const struct transport_send *s, struct rdma_pull *p,
			 struct rdma_message *m)
{
	struct rdma *t = conn_rdma(c);

	for (uint32_t i = 0; i < s->iov_count; i++) {
		const struct iovec *v = &s->iov[i];
		struct ibv_mr *mr;

		if (v->iov_len == 0)
			continue;
		mr = rdma_region_find(t, v->iov_base, v->iov_len);
		if (mr == NULL) {
			mr = t->verbs->reg_mr(t->pd, v->iov_base, v->iov_len,
					      IBV_ACCESS_REMOTE_READ);
			if (mr == NULL)
				return -ENOMEM;
			t->counters.registrations++;
			p->mrs[p->mr_count++] = mr;
		}
		m->segments[m->segment_count++] =
		    (struct rdma_segment){(uintptr_t)v->iov_base, mr->rkey, (uint32_t)v->iov_len};
	}
	return 0;
}

static void complete_pulls(struct rdma_conn *c)
{
	while (c->pull_first != c->pull_fetched) {
		struct rdma_pull *p = &c->pulls[c->pull_first % RDMA_SENDS_MAX];
		struct transport_send *s = p->send;

		if (!p->sent)
			return;
		release_regions(c, p);
		p->send = NULL;
		c->pull_first++;
		sends_end(&c->head, s, 0);
	}
}

bool rdma_tx_pulled(struct rdma_conn *c, uint32_t count)
{
	if (count > c->pull_end - c->pull_fetched)
		return false;
	c->pull_fetched += count;
	complete_pulls(c);
	return true;
}

/* -- messages --------------------------------------------------------------------------------- */

static uint8_t *slot_memory(const struct rdma_conn *c, uint8_t slot)
{
	return c->arena->memory + (size_t)slot * RDMA_SLOT_SIZE;
}

/* The payload as further pieces of the message, from where it lies. 0: it cannot. */
static int gather(struct rdma_conn *c, const struct transport_send *s, struct ibv_sge *sges)
{
	struct rdma *t = conn_rdma(c);
	int n = 0;

	if (s->frame.payload_size < RDMA_GATHER_MIN || s->iov_count >= t->sges_max)
		return 0;
	for (uint32_t i = 0; i < s->iov_count; i++) {
		const struct iovec *v = &s->iov[i];
		const struct ibv_mr *mr;

		if (v->iov_len == 0)
			continue;
		mr = rdma_region_find(t, v->iov_base, v->iov_len);
		if (mr == NULL)
			return 0;
		sges[n++] =
		    (struct ibv_sge){(uintptr_t)v->iov_base, (uint32_t)v->iov_len, mr->lkey};
	}
	return n;
}

/* The message's place-th in the chain that is about to be posted. */
static void fill_wr(struct rdma_conn *c, uint8_t slot, uint32_t place, uint32_t prefix_size,
		    const struct transport_send *s)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_sge *sges = t->sges[place];
	uint8_t *memory = slot_memory(c, slot);
	int n = 1;

	sges[0] = (struct ibv_sge){(uintptr_t)memory, prefix_size, c->arena->mr->lkey};
	if (s != NULL && !is_large(s) && s->frame.payload_size > 0) {
		n += gather(c, s, sges + 1);
		for (uint32_t i = 0; n == 1 && i < s->iov_count; i++) {
			memcpy(memory + sges[0].length, s->iov[i].iov_base, s->iov[i].iov_len);
			sges[0].length += (uint32_t)s->iov[i].iov_len;
			t->counters.copied_bytes += s->iov[i].iov_len;
		}
	}
	t->wrs[place] = (struct ibv_send_wr){
	    .wr_id = (uint64_t)c->id << 16 | slot,
	    .sg_list = sges,
	    .num_sge = n,
	    .opcode = IBV_WR_SEND,
	    .send_flags = IBV_SEND_SIGNALED,
	};
}

/* What is owed goes with it. */
static void pay(struct rdma_conn *c, struct rdma_message *m)
{
	m->credits = (uint16_t)c->owed;
	m->pulled = (uint16_t)c->pulled_owed;
	c->owed = 0;
	c->pulled_owed = 0;
	INVARIANT(c->credits > 0);
	c->credits--;
}

static int build_frame(struct rdma_conn *c, uint32_t place)
{
	struct transport_send *s = c->queue.first;
	struct rdma_message m = {.kind = is_large(s) ? RDMA_PULL : RDMA_FRAME, .frame = s->frame};
	struct rdma_pull *p = &c->pulls[c->pull_end % RDMA_SENDS_MAX];
	uint8_t slot;
	int rc;

	if (is_large(s)) {
		*p = (struct rdma_pull){0};
		rc = fill_segments(c, s, p, &m);
		if (rc != 0) {
			release_regions(c, p);
			return rc;
		}
		p->send = s;
	}
	sends_take(&c->queue);
	slot = c->free_slots[--c->free_count];
	c->slots[slot] = (struct rdma_slot){.send = s, .pull = is_large(s)};
	if (is_large(s))
		c->slots[slot].pull_place = (uint8_t)(c->pull_end++ % RDMA_SENDS_MAX);
	pay(c, &m);
	fill_wr(c, slot, place, rdma_message_encode(&m, s->header, slot_memory(c, slot)), s);
	return 0;
}

static void build_ack(struct rdma_conn *c, uint32_t place)
{
	const uint8_t slot = c->free_slots[--c->free_count];
	struct rdma_message m = {.kind = RDMA_ACK};

	c->greet = false;
	c->slots[slot] = (struct rdma_slot){0};
	pay(c, &m);
	conn_rdma(c)->counters.acks++;
	fill_wr(c, slot, place, rdma_message_encode(&m, NULL, slot_memory(c, slot)), NULL);
}

static void post(struct rdma_conn *c, uint32_t count)
{
	struct rdma *t = conn_rdma(c);
	struct ibv_send_wr *bad = t->wrs;
	uint32_t posted = count;
	int rc;

	for (uint32_t i = 0; i < count; i++)
		t->wrs[i].next = i + 1 < count ? &t->wrs[i + 1] : NULL;
	rc = t->verbs->post_send(c->qp, t->wrs, &bad);
	if (rc != 0)
		posted = bad >= t->wrs && bad < t->wrs + count ? (uint32_t)(bad - t->wrs) : 0;
	for (uint32_t i = 0; i < posted; i++)
		c->slots[(uint16_t)t->wrs[i].wr_id].posted = true;
	c->tx_posted += posted;
	c->head.stats.tx_calls++;
	t->counters.post_calls++;
	t->counters.messages += posted;
	if (rc == 0)
		return;
	log_warn("rdma", "%s: sending: %s", c->head.peer.address, err_text(rc));
	rdma_conn_end(c, -rc);
}

/* -- flushing --------------------------------------------------------------------------------- */

static bool may_send_frame(const struct rdma_conn *c)
{
	return c->state == RDMA_OPEN && c->queue.first != NULL && c->free_count > 0 &&
	       c->credits >= 2 &&
	       (!is_large(c->queue.first) || c->pull_end - c->pull_first < RDMA_SENDS_MAX);
}

static bool ack_is_due(const struct rdma_conn *c)
{
	if (c->free_count == 0)
		return false;
	if (c->greet || c->owed >= OWED_DUE)
		return c->credits >= 1;
	return c->pulled_owed > 0 && c->credits >= 2;
}

static bool may_send(const struct rdma_conn *c)
{
	return c->state == RDMA_OPEN || (c->state == RDMA_GREETING && !c->passive);
}

static void tx_flush(struct reactor_task *task)
{
	struct rdma_conn *c = container_of(task, struct rdma_conn, flush);
	uint32_t count = 0;
	int rc = 0;

	if (!may_send(c))
		return;
	/* Other tasks of this turn may send too: they go first, once. */
	if (!c->flush_late) {
		c->flush_late = true;
		reactor_defer(c->head.transport->reactor, &c->flush);
		return;
	}
	c->flush_late = false;
	while (rc == 0 && count < RDMA_SENDS_MAX && may_send_frame(c)) {
		rc = build_frame(c, count);
		count += rc == 0;
	}
	if (rc != 0) {
		log_warn("rdma", "%s: memory cannot be registered: %s", c->head.peer.address,
			 err_text(rc));
		rdma_conn_end(c, rc);
		return;
	}
	if (count == 0 && ack_is_due(c))
		build_ack(c, count++);
	c->greet = c->greet && count == 0;
	if (count > 0)
		post(c, count);
}

void rdma_tx_kick(struct rdma_conn *c)
{
	if (may_send(c) && (may_send_frame(c) || ack_is_due(c)))
		reactor_defer(c->head.transport->reactor, &c->flush);
}

void rdma_tx_done(struct rdma_conn *c, uint16_t slot)
{
	struct rdma_slot done;

	INVARIANT(slot < RDMA_SENDS_MAX && c->slots[slot].posted);
	done = c->slots[slot];
	c->slots[slot] = (struct rdma_slot){0};
	c->free_slots[c->free_count++] = (uint8_t)slot;
	if (done.pull) {
		c->pulls[done.pull_place].sent = true;
		complete_pulls(c);
	} else if (done.send != NULL) {
		sends_end(&c->head, done.send, 0);
	}
	rdma_tx_kick(c);
}

void rdma_tx_init(struct rdma_conn *c)
{
	c->flush.run = tx_flush;
	for (uint32_t i = 0; i < RDMA_SENDS_MAX; i++)
		c->free_slots[c->free_count++] = (uint8_t)(RDMA_SENDS_MAX - 1 - i);
}

void rdma_tx_send(struct rdma_conn *c, struct transport_send *s)
{
	PRE(c->state != RDMA_GONE);
	sends_begin(&c->queue, &c->head, s);
	rdma_tx_kick(c);
}

void rdma_tx_fail(struct rdma_conn *c)
{
	struct transport_send *s;

	INVARIANT(c->qp == NULL);
	for (uint32_t i = 0; i < RDMA_SENDS_MAX; i++) {
		s = c->slots[i].pull ? NULL : c->slots[i].send;
		c->slots[i] = (struct rdma_slot){0};
		if (s != NULL)
			sends_end(&c->head, s, -E_DISCONNECTED);
	}
	for (; c->pull_first != c->pull_end; c->pull_first++) {
		struct rdma_pull *p = &c->pulls[c->pull_first % RDMA_SENDS_MAX];

		release_regions(c, p);
		sends_end(&c->head, p->send, -E_DISCONNECTED);
	}
	while ((s = sends_take(&c->queue)) != NULL)
		sends_end(&c->head, s, -E_DISCONNECTED);
}
