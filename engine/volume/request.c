/* request: queues, window and answers of one replica's connection. See replica.h.
 *
 * INVARIANTS
 *  1. A request leaves only while the host's gate is open, the replica READY and its node in the
 *     permit: one compare each, at the moment of sending.
 *  2. sent is in the order of sending, so its head is the oldest; answers are found by the place in
 *     the table that the id carries.
 *  3. Its owner gets a request back only when the transport has let go of it, too. */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/volume/core.h"

#define PLACE_BITS 10u
_Static_assert(1u << PLACE_BITS == VREPLICA_WINDOW_MAX, "the id carries the place");

static void list_append(struct vrequest_list *l, struct vrequest *q)
{
	q->next = NULL;
	q->prev = l->tail;
	if (l->tail != NULL)
		l->tail->next = q;
	else
		l->head = q;
	l->tail = q;
}

static void list_remove(struct vrequest_list *l, struct vrequest *q)
{
	if (q->prev != NULL)
		q->prev->next = q->next;
	else
		l->head = q->next;
	if (q->next != NULL)
		q->next->prev = q->prev;
	else
		l->tail = q->prev;
	q->next = q->prev = NULL;
}

int vrequests_init(struct vreplica *r)
{
	r->table = calloc(VREPLICA_WINDOW_MAX, sizeof(struct vrequest *));
	r->free_places = calloc(VREPLICA_WINDOW_MAX, sizeof(*r->free_places));
	if (r->table == NULL || r->free_places == NULL)
		return -ENOMEM;
	r->free_count = VREPLICA_WINDOW_MAX;
	for (uint32_t i = 0; i < VREPLICA_WINDOW_MAX; i++)
		r->free_places[i] = (uint16_t)(VREPLICA_WINDOW_MAX - 1 - i);
	return 0;
}

/* Off the table and the list of what is on the wire. */
static void unsend(struct vreplica *r, struct vrequest *q)
{
	const uint32_t place = (uint32_t)(q->id & (VREPLICA_WINDOW_MAX - 1));

	INVARIANT(r->table[place] == q);
	r->table[place] = NULL;
	r->free_places[r->free_count++] = (uint16_t)place;
	list_remove(&r->sent, q);
	r->inflight--;
	r->inflight_bytes -= q->bytes;
	q->id = 0;
}

static void send_done(struct transport_send *send, int status)
{
	struct vrequest *q = container_of(send, struct vrequest, send);

	(void)status;
	q->lent = false;
	if (q->state == VREQUEST_ANSWERED) {
		q->state = VREQUEST_IDLE;
		q->ops->released(q);
	}
}

static void trace_one(const struct vreplica *r, struct vrequest *q)
{
	struct frame *f = &q->send.frame;

	if (r->traces && (f->op == FRAME_WRITE || f->op == FRAME_READ || f->op == FRAME_ZERO))
		f->flags |= FRAME_F_TRACE;
}

static void send_one(struct vreplica *r, struct vrequest *q)
{
	const uint16_t place = r->free_places[--r->free_count];

	list_remove(&r->queue[q->bulk], q);
	q->id = ++r->id_count << PLACE_BITS | place;
	q->state = VREQUEST_SENT;
	q->sent_ns = volume_now(r->volume);
	q->send.iov_count = 0;
	q->send.done = send_done;
	q->ops->fill(q);
	if (r->volume->trace != NULL)
		trace_one(r, q);
	q->send.frame.wire_version = r->rpc.wire_version;
	if (r->rpc.wire_version < FRAME_VERSION_SETTLE)
		q->send.frame.flags &= (uint16_t)~FRAME_F_SETTLE;
	q->send.frame.request_id = q->id;
	q->bytes = q->send.frame.payload_size;
	r->table[place] = q;
	r->inflight++;
	r->inflight_bytes += q->bytes;
	list_append(&r->sent, q);
	q->lent = true;
	r->volume->stats.frames_sent++;
	PROBE(frame_send, q->id, q->send.frame.op, q->send.frame.block);
	transport_send(r->conn, &q->send);
}

void vreplica_pump(struct vreplica *r)
{
	if (r->queue[0].head == NULL && r->queue[1].head == NULL)
		return;
	gate_refresh(r->volume->reactor); /* the gate is judged by what the time is now */
	while (r->state == VREPLICA_READY && r->permitted && !r->closing && !r->held &&
	       r->inflight < r->window && r->inflight_bytes < VREPLICA_WINDOW_BYTES &&
	       volume_gate_open(r->volume)) {
		struct vrequest *q = r->queue[r->turn].head;

		r->turn = !r->turn;
		if (q == NULL)
			q = r->queue[r->turn].head;
		if (q == NULL)
			return;
		send_one(r, q);
	}
}

void vreplica_submit(struct vreplica *r, struct vrequest *q)
{
	PRE(q->state == VREQUEST_IDLE && !q->lent);
	q->replica = r;
	q->state = VREQUEST_QUEUED;
	list_append(&r->queue[q->bulk], q);
	vreplica_pump(r);
}

bool vreplica_cancel(struct vrequest *q)
{
	if (q->state != VREQUEST_QUEUED)
		return false;
	list_remove(&q->replica->queue[q->bulk], q);
	q->state = VREQUEST_IDLE;
	return true;
}

/* -- answers ----------------------------------------------------------------------------------- */

static struct vrequest *find(struct vreplica *r, const struct frame *f)
{
	struct vrequest *q = r->table[f->request_id & (VREPLICA_WINDOW_MAX - 1)];

	return q != NULL && q->id == f->request_id && q->send.frame.op == f->op ? q : NULL;
}

void *vrequests_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct vreplica *r = arg;
	struct vrequest *q;

	(void)conn;
	if (f->op == FRAME_CONTROL)
		return rpc_rx_buffer(&r->rpc, f);
	q = find(r, f);
	if (q == NULL || q->ops->rx_buffer == NULL)
		return NULL;
	return q->ops->rx_buffer(q, f);
}

void vrequests_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct vreplica *r = arg;
	struct vrequest *q;

	(void)conn;
	if (r->closing)
		return;
	if (f->op == FRAME_CONTROL) {
		rpc_rx(&r->rpc, f);
		return;
	}
	q = (f->flags & FRAME_F_REPLY) != 0 ? find(r, f) : NULL;
	if (q == NULL) {
		log_warn("volume", "node %s answers what nobody asked",
			 r->volume->nodes[r->node].name);
		vreplica_disconnect(r, -E_BAD_FRAME);
		return;
	}
	PROBE(host_answer, f->request_id, f->op, f->status);
	if (r->volume->trace != NULL)
		vtrace_answer(r->volume, q, f);
	unsend(r, q);
	q->state = VREQUEST_ANSWERED;
	q->ops->answered(q, -f->status, f);
	if (!q->lent && q->state == VREQUEST_ANSWERED) {
		q->state = VREQUEST_IDLE;
		q->ops->released(q);
	}
	vreplica_pump(r);
}

static void drop_queue(struct vreplica *r, struct vrequest_list *queue)
{
	struct vrequest_list dropped = *queue;

	(void)r;
	*queue = (struct vrequest_list){0};
	while (dropped.head != NULL) {
		struct vrequest *q = dropped.head;

		list_remove(&dropped, q);
		q->state = VREQUEST_IDLE;
		(q->ops->dropped != NULL ? q->ops->dropped : q->ops->lost)(q);
	}
}

void vrequests_lost(struct vreplica *r)
{
	struct vrequest_list lost = r->sent;
	struct vrequest_list waiting = r->queue[1];

	/* What was sent goes before what was not, again in its order: writes that are submitted
	 * again go to the end of an empty queue, and what waited follows them. */
	r->queue[1] = (struct vrequest_list){0};
	while (lost.head != NULL) {
		struct vrequest *q = lost.head;

		unsend(r, q);
		lost = r->sent;
		INVARIANT(!q->lent);
		q->state = VREQUEST_IDLE;
		q->ops->lost(q);
	}
	if (waiting.head == NULL) {
		drop_queue(r, &r->queue[0]);
		return;
	}
	if (r->queue[1].tail != NULL) {
		r->queue[1].tail->next = waiting.head;
		waiting.head->prev = r->queue[1].tail;
	} else {
		r->queue[1].head = waiting.head;
	}
	r->queue[1].tail = waiting.tail;
	drop_queue(r, &r->queue[0]); /* reads go elsewhere */
}

void vrequests_forbid(struct vreplica *r)
{
	drop_queue(r, &r->queue[0]);
	drop_queue(r, &r->queue[1]);
}

void vreplica_overflow(struct vreplica *r)
{
	if (r->overflowed)
		return;
	log_warn("volume", "%s: node %s is too far behind (%u writes, %llu bytes): resync instead",
		 r->volume->config.name, r->volume->nodes[r->node].name, r->backlog_ops,
		 (unsigned long long)r->backlog_bytes);
	r->overflowed = true;
	if (r->conn != NULL)
		vreplica_disconnect(r, -E_LIMIT);
	drop_queue(r, &r->queue[1]);
}
