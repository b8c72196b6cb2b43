/* setup: how two ends of a connection learn of each other over the control connection. See conn.h.
 *
 * Happy path: who connects makes a queue pair and asks with its number, address and first sequence,
 * in a Control message that is the first on the control connection; the other makes one too, joins
 * it, and answers with its own; the asker joins, and sends the first message; the other's first
 * message is the answer to that. From then on the control connection says nothing, and lives.
 *
 * Failure modes: a refusal is answered with its reason, and the asker ends. Anything else on the
 * control connection, and its end, ends the connection. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"

#define SETUP_SIZE_MAX 1024u

/* -- messages --------------------------------------------------------------------------------- */

/* A message on its way. */
struct outgoing {
	struct transport_send send;
	uint32_t crc;
	uint8_t bytes[SETUP_SIZE_MAX];
};
_Static_assert(SETUP_SIZE_MAX <= BLOCK_SIZE, "one CRC");

static void outgoing_done(struct transport_send *send, int status)
{
	(void)status; /* closed tells */
	free(container_of(send, struct outgoing, send));
}

static int send_control(struct transport_conn *control, uint16_t flags, uint64_t request_id,
			const Pave__V1__Control *m)
{
	const size_t size = pave__v1__control__get_packed_size(m);
	struct outgoing *o;

	INVARIANT(size > 0 && size <= SETUP_SIZE_MAX);
	o = malloc(sizeof *o);
	if (o == NULL)
		return -ENOMEM;
	pave__v1__control__pack(m, o->bytes);
	frame_payload_crcs(o->bytes, (uint32_t)size, &o->crc);
	o->send = (struct transport_send){
	    .frame = {.wire_version = FRAME_VERSION_MIN,
		      .op = FRAME_CONTROL,
		      .flags = flags,
		      .request_id = request_id,
		      .payload_size = (uint32_t)size,
		      .status = (int32_t)m->status,
		      .crc_count = 1,
		      .crcs = &o->crc},
	    .iov = {{o->bytes, size}},
	    .iov_count = 1,
	    .done = outgoing_done,
	};
	transport_send(control, &o->send);
	return 0;
}

/* Our end of the connection. */
static int send_setup(struct rdma_conn *c, struct transport_conn *control, uint16_t flags)
{
	const struct rdma *t = conn_rdma(c);
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__RdmaSetup setup = PAVE__V1__RDMA_SETUP__INIT;

	setup.version = RDMA_VERSION;
	setup.gid = (ProtobufCBinaryData){16, c->gid.gid.raw};
	setup.lid = t->port_attr.lid;
	setup.queue_pair = c->qp->qp_num;
	setup.sequence = c->sequence;
	setup.mtu = 128u << t->port_attr.active_mtu;
	setup.credits = RDMA_CREDITS;
	setup.message_size = RDMA_SLOT_SIZE;
	setup.reads = t->reads_max;
	m.body_case = PAVE__V1__CONTROL__BODY_RDMA_SETUP;
	m.rdma_setup = &setup;
	return send_control(control, flags, c->setup_id, &m);
}

Pave__V1__Control *rdma_setup_unpack(const struct frame *f)
{
	Pave__V1__Control *m;

	if (f->op != FRAME_CONTROL || f->payload_size > SETUP_SIZE_MAX || !frame_payload_ok(f))
		return NULL;
	m = pave__v1__control__unpack(NULL, f->payload_size, f->payload);
	if (m != NULL && (m->status != (uint32_t)f->status ||
			  (m->status == 0 && m->body_case != PAVE__V1__CONTROL__BODY_RDMA_SETUP))) {
		pave__v1__control__free_unpacked(m, NULL);
		return NULL;
	}
	return m;
}

/* -- who connects ----------------------------------------------------------------------------- */

static void control_ready(struct transport_conn *control, void *arg)
{
	struct rdma_conn *c = arg;
	struct reactor *r = control->transport->reactor;
	int rc;

	if (c->state != RDMA_INTRODUCING)
		return;
	c->control_ready = true;
	c->head.peer = control->peer;
	c->state = RDMA_ASKING;
	reactor_timer_arm(r, &c->timer, reactor_now_ns(r) + RDMA_SETUP_MS * NS_PER_MS);
	rc = rdma_conn_make_qp(c);
	if (rc == 0) {
		reactor_random(r, &c->setup_id, sizeof c->setup_id);
		c->setup_id |= 1; /* 0 is for notices */
		rc = send_setup(c, control, 0);
	}
	if (rc != 0)
		rdma_conn_end(c, rc);
}

static void take_answer(struct rdma_conn *c, const Pave__V1__Control *m)
{
	int rc;

	if (m->status != 0) {
		rdma_conn_end(c, -(int)m->status);
		return;
	}
	rc = rdma_conn_join(c, m->rdma_setup);
	if (rc != 0) {
		rdma_conn_end(c, rc);
		return;
	}
	c->state = RDMA_GREETING;
	c->greet = true;
	rdma_tx_kick(c);
}

static void control_rx(struct transport_conn *control, const struct frame *f, void *arg)
{
	struct rdma_conn *c = arg;
	Pave__V1__Control *m = NULL;

	(void)control;
	if (c->state == RDMA_ENDING)
		return;
	if (c->state == RDMA_ASKING && (f->flags & FRAME_F_REPLY) != 0 &&
	    f->request_id == c->setup_id)
		m = rdma_setup_unpack(f);
	if (m == NULL) {
		rdma_conn_end(c, -E_BAD_FRAME);
		return;
	}
	take_answer(c, m);
	pave__v1__control__free_unpacked(m, NULL);
}

static void control_closed(struct transport_conn *control, int reason, void *arg)
{
	struct rdma_conn *c = arg;
	struct rdma *t = conn_rdma(c);

	(void)control;
	c->control = NULL;
	if (c->state == RDMA_ENDING) {
		rdma_conn_settle(c);
		return;
	}
	/* What the peer sent before it hung up has arrived before this, and is heard. */
	rdma_poll(t);
	rdma_conn_end(c, reason != 0 ? reason : -E_DISCONNECTED);
	rdma_conn_settle(c);
}

const struct transport_handler rdma_control_handler = {
    .ready = control_ready,
    .rx = control_rx,
    .closed = control_closed,
};

/* -- who is connected to ---------------------------------------------------------------------- */

static const struct transport_handler control_handler_passive = {
    .rx = control_rx, /* nothing is due: it ends the connection */
    .closed = control_closed,
};

static int make_passive(struct rdma *t, struct rdma_listener *l, struct transport_conn *control,
			uint64_t request_id, const Pave__V1__RdmaSetup *setup)
{
	struct rdma_conn *c;
	int rc = rdma_conn_create(t, &c);

	if (rc != 0)
		return rc;
	c->passive = true;
	rdma_listener_expect(l, c);
	c->head.peer = control->peer;
	c->setup_id = request_id;
	rc = rdma_conn_make_qp(c);
	if (rc == 0)
		rc = rdma_conn_join(c, setup);
	if (rc == 0)
		rc = send_setup(c, control, FRAME_F_REPLY);
	if (rc != 0) { /* the control connection stays, for the answer that tells why */
		rdma_conn_end(c, rc);
		return rc;
	}
	c->control = control;
	control->handler = &control_handler_passive;
	control->arg = c;
	c->state = RDMA_GREETING;
	reactor_timer_arm(t->head.reactor, &c->timer,
			  reactor_now_ns(t->head.reactor) + RDMA_SETUP_MS * NS_PER_MS);
	return 0;
}

void rdma_setup_answer(struct rdma *t, struct rdma_listener *l, struct transport_conn *control,
		       uint64_t request_id, const Pave__V1__RdmaSetup *setup)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	int rc = make_passive(t, l, control, request_id, setup);

	if (rc == 0)
		return;
	log_warn("rdma", "%s asked for a connection over RDMA, which is refused: %s",
		 control->peer.address, err_text(rc));
	m.status = (uint32_t)-rc;
	m.status_text = (char *)(uintptr_t)err_text(rc);
	if (send_control(control, FRAME_F_REPLY, request_id, &m) != 0)
		transport_close(control);
}
