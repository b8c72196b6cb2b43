/* rdma: the transport's operations, its listeners, and falling back to the carrier. See rdma.h.
 *
 * A listener is one of the carrier's. Who connects is an `intro` until the first frame: a set-up
 * makes a connection over RDMA of it; anything else, the carrier's connection, is given to the
 * listener's owner with that frame.
 *
 * INVARIANTS
 *  1. An intro lives as long as its control connection has its handler.
 *  2. A listener that is ending is freed when its last intro, and the last connection that is not
 * yet accepted, are gone.
 *
 * Failure modes: a first frame that does not come within RDMA_INTRODUCE_MS ends the connection; so
 * does one more that connects, for the one that has waited longest, when RDMA_INTROS_MAX are there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "net/rdma/conn.h"
#include "net/tcp/address.h"

struct intro {
	struct rdma_listener *listener;
	struct transport_conn *control;
	struct reactor_timer timer;
	bool answered; /* with a refusal: nothing more is due */
	bool closing;  /* not counted any more */
	struct intro *next, *prev;
};

struct rdma_listener {
	struct transport_listener head;
	struct transport_listener *carrier;
	void (*accepted)(struct transport_conn *conn, void *arg);
	void *arg;
	bool ending;
	struct intro *intros; /* in the order of their coming */
	uint32_t intro_count;
	uint32_t conn_count; /* not yet accepted */
};

/* -- who connects ----------------------------------------------------------------------------- */

static void listener_free_if_unused(struct rdma_listener *l)
{
	struct rdma *t = rdma_of(l->head.transport);

	if (!l->ending || l->intros != NULL || l->conn_count > 0)
		return;
	free(l);
	INVARIANT(t->listener_count > 0);
	t->listener_count--;
	rdma_free_if_unused(t);
}

static void intro_free(struct intro *i)
{
	struct rdma_listener *l = i->listener;

	reactor_timer_cancel(i->control->transport->reactor, &i->timer);
	DL_DELETE(l->intros, i);
	l->intro_count -= i->closing ? 0 : 1;
	free(i);
	listener_free_if_unused(l);
}

/* Its end comes with intro_closed. */
static void intro_close(struct intro *i)
{
	i->listener->intro_count -= i->closing ? 0 : 1;
	i->closing = true;
	transport_close(i->control);
}

/* It did not ask for RDMA: its owner gets it as it is. */
static void hand_over(struct intro *i)
{
	struct transport_conn *control = i->control;
	struct rdma_listener *l = i->listener;

	l->accepted(control, l->arg);
	PRE(control->handler != NULL && control->arg != i);
	intro_free(i);
}

static void *intro_rx_buffer(struct transport_conn *control, const struct frame *f, void *arg)
{
	struct intro *i = arg;

	if (i->answered || i->listener->ending)
		return NULL;
	hand_over(i);
	return control->handler->rx_buffer != NULL
		   ? control->handler->rx_buffer(control, f, control->arg)
		   : NULL;
}

static void answer_setup(struct intro *i, const struct frame *f, const Pave__V1__Control *m)
{
	struct rdma_listener *l = i->listener;
	struct transport_conn *control = i->control;

	i->answered = true;
	rdma_setup_answer(rdma_of(l->head.transport), l, control, f->request_id, m->rdma_setup);
	if (control->arg != i)
		intro_free(i); /* otherwise the peer closes it, or the timer does */
}

static void intro_rx(struct transport_conn *control, const struct frame *f, void *arg)
{
	struct intro *i = arg;
	Pave__V1__Control *m = NULL;

	if (i->answered || i->listener->ending) {
		intro_close(i);
		return;
	}
	if ((f->flags & FRAME_F_REPLY) == 0 && f->request_id != 0)
		m = rdma_setup_unpack(f);
	if (m != NULL && m->body_case == PAVE__V1__CONTROL__BODY_RDMA_SETUP) {
		answer_setup(i, f, m);
	} else {
		hand_over(i);
		control->handler->rx(control, f, control->arg);
	}
	if (m != NULL)
		pave__v1__control__free_unpacked(m, NULL);
}

static void intro_closed(struct transport_conn *control, int reason, void *arg)
{
	(void)control;
	(void)reason;
	intro_free(arg);
}

static const struct transport_handler intro_handler = {
    .rx_buffer = intro_rx_buffer,
    .rx = intro_rx,
    .closed = intro_closed,
};

static void intro_timeout(struct reactor_timer *timer)
{
	intro_close(container_of(timer, struct intro, timer));
}

/* Who has waited longest gives way. */
static void make_room_for_intro(struct rdma_listener *l)
{
	struct intro *i;

	DL_FOREACH (l->intros, i)
		if (!i->closing) {
			intro_close(i);
			return;
		}
}

static void carrier_closed(struct transport_conn *control, int reason, void *arg)
{
	(void)control;
	(void)reason;
	(void)arg;
}

static void carrier_rx(struct transport_conn *control, const struct frame *f, void *arg)
{
	(void)control;
	(void)f;
	(void)arg;
}

/* For connections that are closed at once. */
static const struct transport_handler refused_handler = {.rx = carrier_rx,
							 .closed = carrier_closed};

static void carrier_accepted(struct transport_conn *control, void *arg)
{
	struct rdma_listener *l = arg;
	struct reactor *r = control->transport->reactor;
	struct intro *i = calloc(1, sizeof *i);

	if (i == NULL) {
		control->handler = &refused_handler;
		transport_close(control);
		return;
	}
	if (l->intro_count == RDMA_INTROS_MAX)
		make_room_for_intro(l);
	i->listener = l;
	i->control = control;
	i->timer.fire = intro_timeout;
	control->handler = &intro_handler;
	control->arg = i;
	DL_APPEND(l->intros, i);
	l->intro_count++;
	reactor_timer_arm(r, &i->timer, reactor_now_ns(r) + RDMA_INTRODUCE_MS * NS_PER_MS);
}

void rdma_listener_expect(struct rdma_listener *l, struct rdma_conn *c)
{
	l->conn_count++;
	c->listener = l;
}

void rdma_listener_accept(struct rdma_conn *c)
{
	struct rdma_listener *l = c->listener;

	if (l->ending) {
		rdma_conn_end(c, 0);
		return;
	}
	INVARIANT(l->conn_count > 0);
	l->conn_count--;
	c->listener = NULL;
	l->accepted(&c->head, l->arg);
	PRE(c->head.handler != NULL);
	c->owned = true;
}

void rdma_listener_forget(struct rdma_conn *c)
{
	struct rdma_listener *l = c->listener;

	INVARIANT(l->conn_count > 0);
	l->conn_count--;
	c->listener = NULL;
	listener_free_if_unused(l);
}

/* -- falling back ----------------------------------------------------------------------------- */

void rdma_fallback_note(struct rdma *t, const char *address, int reason)
{
	struct rdma_fallback *f = &t->fallbacks[t->fallback_next];
	const char *then = t->required ? "trying again" : "TCP is used for now";

	t->counters.fallbacks++;
	if (!t->warned)
		log_warn("rdma", "%s: no connection over RDMA can be made: %s; %s", address,
			 err_text(reason), then);
	else
		log_info("rdma", "%s: no connection over RDMA: %s; %s", address, err_text(reason),
			 then);
	t->warned = true;
	if (t->required)
		return;
	t->fallback_next = (t->fallback_next + 1) % RDMA_FALLBACKS_MAX;
	snprintf(f->address, sizeof f->address, "%s", address);
	f->until_ns = reactor_now_ns(t->head.reactor) + RDMA_FALLBACK_MS * NS_PER_MS;
}

static bool has_fallen_back(const struct rdma *t, const char *address)
{
	for (uint32_t i = 0; i < RDMA_FALLBACKS_MAX; i++)
		if (t->fallbacks[i].until_ns > reactor_now_ns(t->head.reactor) &&
		    strcmp(t->fallbacks[i].address, address) == 0)
			return true;
	return false;
}

/* -- operations ------------------------------------------------------------------------------- */

/* Whether it is one of the list, which commas divide. */
static bool is_listed(const char *list, const char *address)
{
	const size_t size = strlen(address);

	for (const char *p = list; p != NULL; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, address, size) == 0 && (p[size] == ',' || p[size] == '\0'))
			return true;
	}
	return false;
}

static int connect_plain(struct rdma *t, const char *address, const struct transport_handler *h,
			 void *arg, struct transport_conn **ret_conn)
{
	if (t->required && !is_listed(t->plain_addresses, address)) {
		if (!t->warned)
			log_error("rdma",
				  "%s offers no RDMA, and --transport rdma allows nothing else: "
				  "start that node with --transport rdma, or use auto here",
				  address);
		t->warned = true;
		return -ENODEV;
	}
	return transport_connect(t->carrier, address, h, arg, ret_conn);
}

static int rdma_connect(struct transport *head, const char *address,
			const struct transport_handler *h, void *arg,
			struct transport_conn **ret_conn)
{
	struct rdma *t = rdma_of(head);
	struct rdma_conn *c;
	int rc;

	PRE(h != NULL && h->rx != NULL && h->closed != NULL);
	if (!address_offers(address, RDMA_TRANSPORT) || has_fallen_back(t, address))
		return connect_plain(t, address, h, arg, ret_conn);
	rc = rdma_conn_create(t, &c);
	if (rc != 0)
		return rc;
	snprintf(c->address, sizeof c->address, "%s", address);
	rc = transport_connect(t->carrier, address, &rdma_control_handler, c, &c->control);
	if (rc != 0) {
		DL_DELETE(t->conns, c);
		t->conn_count--;
		free(c);
		return rc;
	}
	c->head.handler = h;
	c->head.arg = arg;
	c->owned = true;
	c->head.peer = c->control->peer;
	*ret_conn = &c->head;
	return 0;
}

static int rdma_listen(struct transport *head, const char *address,
		       void (*accepted)(struct transport_conn *conn, void *arg), void *arg,
		       struct transport_listener **ret_listener, struct error *err)
{
	struct rdma *t = rdma_of(head);
	struct rdma_listener *l = calloc(1, sizeof *l);
	int rc;

	PRE(accepted != NULL);
	if (l == NULL)
		return error_set(err, -ENOMEM, "no memory to listen on %s", address);
	l->head.transport = head;
	l->accepted = accepted;
	l->arg = arg;
	rc = transport_listen(t->carrier, address, carrier_accepted, l, &l->carrier, err);
	if (rc == 0 && address_offer(l->carrier->address, RDMA_TRANSPORT, l->head.address) != 0) {
		rc = error_set(err, -EINVAL, "%s is too long an address", address);
		transport_unlisten(l->carrier);
	}
	if (rc != 0) {
		free(l);
		return rc;
	}
	t->listener_count++;
	*ret_listener = &l->head;
	return 0;
}

static void rdma_unlisten(struct transport_listener *head)
{
	struct rdma_listener *l = container_of(head, struct rdma_listener, head);
	struct rdma_conn *c;
	struct intro *i;

	PRE(!l->ending);
	l->ending = true;
	transport_unlisten(l->carrier);
	DL_FOREACH (l->intros, i)
		intro_close(i);
	/* Nobody but the listener knows of these, who might destroy the transport next. */
	DL_FOREACH (rdma_of(head->transport)->conns, c)
		if (c->listener == l)
			rdma_conn_end(c, 0);
	listener_free_if_unused(l);
}

static void rdma_send(struct transport_conn *conn, struct transport_send *s)
{
	rdma_tx_send(rdma_conn_of(conn), s);
}

static void rdma_close(struct transport_conn *conn)
{
	rdma_conn_end(rdma_conn_of(conn), 0);
}

static void rdma_destroy(struct transport *head)
{
	struct rdma *t = rdma_of(head);

	PRE(t->conn_count == 0 && !t->destroyed);
	t->destroyed = true;
	rdma_free_if_unused(t);
}

static const struct transport_ops rdma_ops = {
    .name = RDMA_TRANSPORT,
    .connect = rdma_connect,
    .listen = rdma_listen,
    .unlisten = rdma_unlisten,
    .send = rdma_send,
    .close = rdma_close,
    .memory_add = rdma_memory_add,
    .memory_remove = rdma_memory_remove,
    .destroy = rdma_destroy,
};

int transport_rdma_create(const struct rdma_config *config, struct transport **ret_transport,
			  struct error *err)
{
	struct rdma *t = calloc(1, sizeof *t);
	int rc;

	if (t == NULL)
		return error_set(err, -ENOMEM, "no memory");
	t->head.ops = &rdma_ops;
	t->head.reactor = config->reactor;
	t->carrier = config->carrier;
	t->verbs = config->verbs != NULL ? config->verbs : &rdma_verbs_library;
	t->required = config->required;
	t->poll_ns = config->poll_us * 1000ull;
	if (config->device != NULL)
		snprintf(t->device, sizeof t->device, "%s", config->device);
	t->plain_addresses = config->plain_addresses != NULL ? config->plain_addresses : "";
	rc = rdma_device_open(t, err);
	if (rc != 0) {
		free(t);
		return rc;
	}
	rdma_device_close(t);
	*ret_transport = &t->head;
	return 0;
}

void transport_rdma_counters(const struct transport *head, struct rdma_counters *ret)
{
	*ret = rdma_of(head)->counters;
}
