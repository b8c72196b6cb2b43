/* net (simulated): see net.h.
 *
 * A connection is two endpoints. An endpoint belongs to one process: `sends` is what its owner
 * handed over and has not left, `arrivals` what is on its way to it, in order. An endpoint is
 * touched by events of its own process and by the world's, and lives, once gone, until the world
 * ends: so an event may always look at the one that it was meant for.
 *
 *   CONNECTING --(SYN heard, accepted)--> OPEN --(end)--> CLOSING --(closed has run)--> GONE
 *        \------------------(end)-------------------------^
 *
 * Happy path: send -> `leave` (own event: header encoded, bytes copied, done) -> the peer's
 * `arrive` (its event: header decoded, rx_buffer, and a little later rx). What is sent in one turn
 * leaves in one event.
 *
 * Failure: whoever ends a connection calls `end` with the reason; the rest follows from the state.
 */
#include "tests/sim/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

#define SEND_DELAY_MAX_NS   8000u
#define DELAY_BASE_MIN_NS   (50 * 1000ull)
#define DELAY_BASE_MAX_NS   (4 * NS_PER_MS)
#define SPIKE_ONE_IN	    300u
#define SPIKE_MAX_NS	    (40 * NS_PER_MS)
#define NS_PER_KIB	    800u
#define WINDOW_BYTES	    (4u << 20) /* on their way or not taken in yet: more has to wait */
#define SYN_RETRY_NS	    (200 * NS_PER_MS)
#define CONNECT_PATIENCE_NS (4 * NS_PER_S)
#define PATIENCE_MIN_NS	    (3 * NS_PER_S)
#define PATIENCE_MAX_NS	    (12 * NS_PER_S)
#define BREAK_DELAY_MAX_NS  (50 * NS_PER_MS)
#define RESET_DELAY_MAX_NS  (300 * NS_PER_MS)
#define HELD		    UINT64_MAX

enum end_state { CONNECTING, OPEN, CLOSING, GONE };

struct message {
	struct message *next;
	uint64_t arrive_ns; /* HELD: the link was cut */
	bool fin;
	void *buffer; /* from rx_buffer */
	uint32_t crc_count, payload_size;
	uint8_t header[FRAME_HEADER_SIZE];
	uint32_t *crcs;
	uint8_t *payload; /* at an odd address */
	uint32_t memory[];
};

struct link {
	bool cut;
	uint64_t min_ns, max_ns;
};

struct sim_transport;

struct endpoint {
	struct transport_conn head;
	struct sim_net *net;
	struct sim_process *process;
	struct sim_transport *transport;
	struct endpoint *peer; /* NULL until the SYN was heard */
	struct endpoint *next; /* of all */
	struct sim_listener *listener;
	char address[ADDR_SIZE_MAX];
	enum end_state state;
	int reason;
	bool in_closed, leaving;
	uint64_t connect_deadline_ns;
	struct transport_send *sends, **sends_tail;
	struct message *arrivals, **arrivals_tail;
	uint64_t arrival_bytes;
	uint64_t last_arrival_ns;
	bool holding; /* the last of the arrivals are held by a cut link */
	bool arriving;
};

struct sim_listener {
	struct transport_listener head;
	struct sim_listener *next;
	void (*accepted)(struct transport_conn *conn, void *arg);
	void *arg;
	bool gone;
};

struct sim_transport {
	struct transport head;
	struct sim_net *net;
	struct sim_process *process;
	struct sim_transport *next;
	uint32_t conn_count;
	bool gone;
};

struct sim_net {
	struct sim_world *world;
	struct sim_transport *transports;
	struct sim_listener *listeners; /* gone ones included */
	struct endpoint *endpoints;	/* gone ones included, newest first */
	struct link links[SIM_PROCESSES_MAX][SIM_PROCESSES_MAX];
	struct sim_net_stats stats;
	void (*observe)(const struct sim_process *from, const struct sim_process *to,
			const struct transport_send *send, void *arg);
	void *observe_arg;
};

static const struct transport_ops sim_transport_ops;

static void leave(void *arg);
static void arrive(void *arg);

/* -- links ----------------------------------------------------------------------------------- */

static struct sim_net *net_of(struct sim_world *w)
{
	struct sim_net *n = w->net;

	if (n != NULL)
		return n;
	n = calloc(1, sizeof(*n));
	INVARIANT(n != NULL);
	n->world = w;
	for (uint32_t i = 0; i < SIM_PROCESSES_MAX; i++) {
		for (uint32_t j = 0; j < SIM_PROCESSES_MAX; j++) {
			uint64_t ns = sim_random_range(w, DELAY_BASE_MIN_NS, DELAY_BASE_MAX_NS);

			n->links[i][j] = (struct link){.min_ns = ns, .max_ns = ns + ns / 4};
		}
	}
	w->net = n;
	return n;
}

static struct link *link_of(struct sim_net *n, const struct sim_process *from,
			    const struct sim_process *to)
{
	return &n->links[from->index][to->index];
}

static uint64_t delay_ns(struct sim_net *n, const struct sim_process *from,
			 const struct sim_process *to)
{
	const struct link *l = link_of(n, from, to);
	uint64_t ns = sim_random_range(n->world, l->min_ns, l->max_ns);

	if (sim_chance(n->world, 1, SPIKE_ONE_IN))
		ns += sim_random_below(n->world, SPIKE_MAX_NS);
	return ns;
}

/* -- the end of a connection ----------------------------------------------------------------- */

static struct endpoint *endpoint_of(struct transport_conn *conn)
{
	return container_of(conn, struct endpoint, head);
}

static void drop_arrivals(struct endpoint *e)
{
	while (e->arrivals != NULL) {
		struct message *m = e->arrivals;

		e->arrivals = m->next;
		free(m);
	}
	e->arrivals_tail = &e->arrivals;
	e->arrival_bytes = 0;
}

static uint64_t wire_size(const struct frame *f)
{
	return FRAME_HEADER_SIZE + f->crc_count * sizeof(uint32_t) + f->payload_size;
}

static struct transport_send *take_send(struct endpoint *e)
{
	struct transport_send *s = e->sends;

	e->sends = s->next;
	if (e->sends == NULL)
		e->sends_tail = &e->sends;
	e->head.queued_bytes -= wire_size(&s->frame);
	return s;
}

/* The end of the owner's side: every send is done, then closed, then nothing. */
static void run_closed(void *arg)
{
	struct endpoint *e = arg;
	const struct transport_handler *h = e->head.handler;

	INVARIANT(e->state == CLOSING);
	while (e->sends != NULL) {
		struct transport_send *s = take_send(e);

		s->done(s, -E_DISCONNECTED);
	}
	sim_trace(e->net->world, e->process, "closed %s: %s", e->head.peer.address,
		  err_name(e->reason));
	e->in_closed = true;
	if (h != NULL)
		h->closed(&e->head, e->reason, e->head.arg);
	e->state = GONE;
	e->transport->conn_count--;
	e->head.transport = NULL; /* using it now is a mistake that shows */
	e->head.handler = NULL;
}

static void end(struct endpoint *e, int reason)
{
	if (e->state >= CLOSING)
		return;
	e->state = CLOSING;
	e->reason = reason;
	drop_arrivals(e);
	if (reason != 0)
		e->net->stats.broken++;
	sim_schedule(
	    e->net->world, e->process,
	    sim_process_delay(e->process, sim_random_below(e->net->world, SEND_DELAY_MAX_NS)),
	    run_closed, e);
}

static void end_disconnected(void *arg)
{
	end(arg, -E_DISCONNECTED);
}

static void end_timed_out(void *arg)
{
	end(arg, -ETIMEDOUT);
}

static void end_refused(void *arg)
{
	end(arg, -ECONNREFUSED);
}

/* -- on the way ------------------------------------------------------------------------------ */

static void wake_arrive(struct endpoint *e)
{
	uint64_t now_ns = e->net->world->now_ns;

	if (e->arriving || e->arrivals == NULL || e->arrivals->arrive_ns == HELD)
		return;
	e->arriving = true;
	sim_schedule(e->net->world, e->process, MAX(e->arrivals->arrive_ns, now_ns) - now_ns,
		     arrive, e);
}

/* What was held back for so long ends the connection: first for the side that sends. */
static void lose_patience(void *arg)
{
	struct endpoint *e = arg;

	if (e->state >= CLOSING || !e->holding)
		return;
	end(e->peer, -ETIMEDOUT);
	sim_schedule(e->net->world, NULL, sim_random_below(e->net->world, PATIENCE_MAX_NS),
		     end_disconnected, e);
}

static void hold(struct endpoint *e)
{
	struct sim_world *w = e->net->world;

	if (e->holding)
		return;
	e->holding = true;
	sim_schedule(w, NULL, sim_random_range(w, PATIENCE_MIN_NS, PATIENCE_MAX_NS), lose_patience,
		     e);
}

/* m is on its way from now to e. */
static void dispatch(struct endpoint *e, struct message *m)
{
	struct sim_net *n = e->net;
	struct sim_process *from = e->peer->process;
	bool held = link_of(n, from, e->process)->cut;
	uint64_t at_ns = n->world->now_ns + delay_ns(n, from, e->process);

	/* A cut holds everything that leaves after it, so the order stays. */
	at_ns = MAX(at_ns, e->last_arrival_ns) + m->payload_size / KIB * NS_PER_KIB;
	if (held) {
		hold(e);
		at_ns = HELD;
	} else {
		e->last_arrival_ns = at_ns;
	}
	m->arrive_ns = at_ns;
}

static void push(struct endpoint *e, struct message *m)
{
	m->next = NULL;
	dispatch(e, m);
	*e->arrivals_tail = m;
	e->arrivals_tail = &m->next;
	e->arrival_bytes += m->payload_size;
	wake_arrive(e);
}

static void push_fin(struct endpoint *to)
{
	struct message *m;

	if (to->state >= CLOSING)
		return;
	m = calloc(1, sizeof(*m));
	INVARIANT(m != NULL);
	m->fin = true;
	push(to, m);
}

static void heal(struct sim_net *n, const struct sim_process *from, const struct sim_process *to)
{
	for (struct endpoint *e = n->endpoints; e != NULL; e = e->next) {
		if (e->process != to || e->peer == NULL || e->peer->process != from ||
		    e->state >= CLOSING)
			continue;
		e->holding = false;
		for (struct message *m = e->arrivals; m != NULL; m = m->next)
			if (m->arrive_ns == HELD)
				dispatch(e, m);
		wake_arrive(e);
	}
}

/* -- sending --------------------------------------------------------------------------------- */

static struct message *message_create(struct transport_send *s)
{
	const struct frame *f = &s->frame;
	size_t crc_bytes = f->crc_count * sizeof(uint32_t);
	struct message *m = malloc(sizeof(*m) + crc_bytes + f->payload_size + 1);
	uint8_t *to;

	INVARIANT(m != NULL);
	*m = (struct message){.crc_count = f->crc_count, .payload_size = f->payload_size};
	frame_encode_header(f, m->header);
	memcpy(s->header, m->header, sizeof(m->header));
	m->crcs = m->memory;
	if (crc_bytes > 0)
		memcpy(m->crcs, f->crcs, crc_bytes);
	m->payload = to = (uint8_t *)m->memory + crc_bytes + 1;
	for (uint32_t i = 0; i < s->iov_count; i++) {
		if (s->iov[i].iov_len > 0)
			memcpy(to, s->iov[i].iov_base, s->iov[i].iov_len);
		to += s->iov[i].iov_len;
	}
	return m;
}

static void schedule_leave(struct endpoint *e)
{
	struct sim_world *w = e->net->world;

	if (e->leaving || e->sends == NULL || e->state != OPEN)
		return;
	e->leaving = true;
	sim_schedule(w, e->process,
		     sim_process_delay(e->process, sim_random_below(w, SEND_DELAY_MAX_NS)), leave,
		     e);
}

static void frame_words(const struct sim_world *w, const uint64_t *v, char *buf, size_t size)
{
	const bool reply = (v[2] & FRAME_F_REPLY) != 0;

	snprintf(buf, size, "-> %s %s%s id %lu layer %lu chunk %lu block %lu +%lu v %lx w %lx %s",
		 w->processes[v[0]]->name, frame_op_name((uint8_t)v[1]), reply ? " reply" : "",
		 v[3], v[4], v[5], v[6], v[7], v[8], v[9], reply ? err_name((int)v[10]) : "");
}

static void arrival_words(const struct sim_world *w, const uint64_t *v, char *buf, size_t size)
{
	snprintf(buf, size, "<- %s %s%s id %lu", w->processes[v[0]]->name,
		 frame_op_name((uint8_t)v[1]), (v[2] & FRAME_F_REPLY) != 0 ? " reply" : "", v[3]);
}

static void note(const struct endpoint *e, sim_trace_words *words, const struct frame *f,
		 uint32_t count)
{
	const uint64_t values[] = {
	    e->peer->process->index,
	    f->op,
	    f->flags,
	    f->request_id,
	    f->layer,
	    f->chunk,
	    f->block,
	    f->block_count,
	    f->version,
	    f->watermark,
	    (uint64_t)f->status,
	};

	sim_trace_note(e->net->world, e->process, words, values, count);
}

static void leave_one(struct endpoint *e)
{
	struct transport_send *s = take_send(e);
	struct message *m = message_create(s);

	e->net->stats.frames++;
	e->net->stats.bytes += wire_size(&s->frame);
	e->head.stats.tx_frames++;
	e->head.stats.tx_bytes += wire_size(&s->frame);
	note(e, frame_words, &s->frame, 11);
	/* What is sent to somebody who is gone is sent all the same. */
	if (e->peer->state == OPEN || e->peer->state == CONNECTING)
		push(e->peer, m);
	else
		free(m);
	s->done(s, 0);
}

/* All that is there when the event begins; what its callbacks send leaves with the next. */
static void leave(void *arg)
{
	struct endpoint *e = arg;
	struct transport_send *last = NULL, *s;

	e->leaving = false;
	for (s = e->sends; s != NULL; s = s->next)
		last = s;
	e->head.stats.tx_calls++;
	while (last != NULL && e->state == OPEN && !e->process->doomed &&
	       e->peer->arrival_bytes < WINDOW_BYTES) {
		s = e->sends;
		leave_one(e);
		if (s == last)
			break;
	}
	/* With a full window the peer wakes this side up. */
	if (e->peer->arrival_bytes < WINDOW_BYTES)
		schedule_leave(e);
}

static void wake_leave(void *arg)
{
	schedule_leave(arg);
}

static void sim_send(struct transport_conn *conn, struct transport_send *s)
{
	struct endpoint *e = endpoint_of(conn);
	size_t size = 0;

	PRE(e->state != GONE && !e->in_closed && e->process->alive);
	PRE(s->done != NULL && s->iov_count <= TRANSPORT_IOV_MAX);
	PRE(s->frame.crc_count == frame_crc_count(s->frame.payload_size));
	for (uint32_t i = 0; i < s->iov_count; i++)
		size += s->iov[i].iov_len;
	PRE(size == s->frame.payload_size);
	s->next = NULL;
	*e->sends_tail = s;
	e->sends_tail = &s->next;
	conn->queued_bytes += wire_size(&s->frame);
	if (e->net->observe != NULL && e->peer != NULL)
		e->net->observe(e->process, e->peer->process, s, e->net->observe_arg);
	schedule_leave(e);
}

/* -- arriving -------------------------------------------------------------------------------- */

static void protocol_error(struct endpoint *e, int reason)
{
	push_fin(e->peer);
	end(e, reason);
}

/* Large payloads come in two steps. False: not yet. */
static bool has_buffer(struct endpoint *e, struct message *m, const struct frame *f)
{
	const struct transport_handler *h = e->head.handler;
	uint64_t now_ns = e->net->world->now_ns;
	void *buffer;

	if (m->payload_size <= TRANSPORT_COPY_MAX || m->buffer != NULL)
		return true;
	buffer = h->rx_buffer != NULL ? h->rx_buffer(&e->head, f, e->head.arg) : NULL;
	if (e->state != OPEN) /* and m is gone */
		return false;
	if (buffer == NULL) {
		protocol_error(e, -ENOBUFS);
		return false;
	}
	PRE((uintptr_t)buffer % BLOCK_SIZE == 0);
	m->buffer = buffer;
	m->arrive_ns = now_ns + 1 + m->payload_size / KIB * NS_PER_KIB;
	e->last_arrival_ns = MAX(e->last_arrival_ns, m->arrive_ns);
	return false;
}

static void take_in(struct endpoint *e, struct frame *f)
{
	struct message *m = e->arrivals;

	e->arrivals = m->next;
	if (e->arrivals == NULL)
		e->arrivals_tail = &e->arrivals;
	/* The sender may have waited for the window. */
	if (e->arrival_bytes >= WINDOW_BYTES && e->arrival_bytes - m->payload_size < WINDOW_BYTES)
		sim_schedule(e->net->world, e->peer->process,
			     delay_ns(e->net, e->process, e->peer->process), wake_leave, e->peer);
	e->arrival_bytes -= m->payload_size;
	if (m->buffer != NULL)
		memcpy(m->buffer, m->payload, m->payload_size);
	f->crcs = m->crc_count > 0 ? m->crcs : NULL;
	f->payload = m->buffer != NULL ? m->buffer : m->payload_size > 0 ? m->payload : NULL;
	note(e, arrival_words, f, 4);
	e->head.stats.rx_frames++;
	e->head.stats.rx_bytes += wire_size(f);
	e->head.handler->rx(&e->head, f, e->head.arg);
	free(m);
}

/* False: the first message has to wait, or is the last. */
static bool arrive_one(struct endpoint *e)
{
	struct message *m = e->arrivals;
	struct frame f;
	int rc;

	if (m->fin) {
		end(e, -E_DISCONNECTED);
		return false;
	}
	rc = frame_decode_header(m->header, &f);
	if (rc != 0) {
		protocol_error(e, rc);
		return false;
	}
	if (!has_buffer(e, m, &f))
		return false;
	take_in(e, &f);
	return true;
}

static void arrive(void *arg)
{
	struct endpoint *e = arg;
	uint64_t now_ns = e->net->world->now_ns;

	e->arriving = false;
	while (e->state == OPEN && e->arrivals != NULL && e->arrivals->arrive_ns <= now_ns &&
	       !e->process->doomed)
		if (!arrive_one(e))
			break;
	if (e->state == OPEN)
		wake_arrive(e);
}

/* -- connecting ------------------------------------------------------------------------------ */

static struct endpoint *endpoint_create(struct sim_transport *t)
{
	struct endpoint *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return NULL;
	e->head.transport = &t->head;
	e->net = t->net;
	e->process = t->process;
	e->transport = t;
	e->sends_tail = &e->sends;
	e->arrivals_tail = &e->arrivals;
	e->next = t->net->endpoints;
	t->net->endpoints = e;
	t->conn_count++;
	return e;
}

static struct sim_listener *find_listener(struct sim_net *n, const char *address)
{
	for (struct sim_listener *l = n->listeners; l != NULL; l = l->next)
		if (!l->gone && strcmp(l->head.address, address) == 0)
			return l;
	return NULL;
}

static struct sim_transport *transport_of(struct transport *t)
{
	return container_of(t, struct sim_transport, head);
}

static void run_accepted(void *arg)
{
	struct endpoint *e = arg;

	if (e->state != CONNECTING)
		return;
	if (e->listener->gone) {
		push_fin(e->peer);
		end(e, -E_DISCONNECTED);
		return;
	}
	e->state = OPEN;
	sim_trace(e->net->world, e->process, "accepted %s", e->head.peer.address);
	e->listener->accepted(&e->head, e->listener->arg);
	PRE(e->head.handler != NULL);
	wake_arrive(e);
}

static void run_ready(void *arg)
{
	struct endpoint *e = arg;

	if (e->state != CONNECTING)
		return;
	e->state = OPEN;
	sim_trace(e->net->world, e->process, "connected to %s", e->address);
	if (e->head.handler->ready != NULL)
		e->head.handler->ready(&e->head, e->head.arg);
	schedule_leave(e);
	wake_arrive(e);
}

static bool reachable(struct sim_net *n, const struct sim_process *a, const struct sim_process *b)
{
	return !link_of(n, a, b)->cut && !link_of(n, b, a)->cut;
}

/* The world's event: the SYN gets to where the address is, or not. The kernel there answers it,
 * whether its process runs or is stopped. */
static void syn(void *arg)
{
	struct endpoint *e = arg, *peer;
	struct sim_net *n = e->net;
	struct sim_listener *l = find_listener(n, e->address);
	struct sim_process *to;

	if (e->state != CONNECTING)
		return;
	if (l == NULL) {
		sim_schedule(n->world, NULL, sim_random_below(n->world, DELAY_BASE_MAX_NS),
			     end_refused, e);
		return;
	}
	to = transport_of(l->head.transport)->process;
	if (!reachable(n, e->process, to)) {
		if (n->world->now_ns >= e->connect_deadline_ns)
			end(e, -ETIMEDOUT);
		else
			sim_schedule(n->world, NULL, SYN_RETRY_NS, syn, e);
		return;
	}
	n->stats.connects++;
	peer = endpoint_create(transport_of(l->head.transport));
	INVARIANT(peer != NULL);
	peer->listener = l;
	peer->peer = e;
	e->peer = peer;
	snprintf(peer->head.peer.address, sizeof(peer->head.peer.address), "%s", e->process->name);
	sim_schedule(n->world, to, 0, run_accepted, peer);
	sim_schedule(n->world, e->process, delay_ns(n, to, e->process), run_ready, e);
}

static int sim_connect(struct transport *transport, const char *address,
		       const struct transport_handler *h, void *arg,
		       struct transport_conn **ret_conn)
{
	struct sim_transport *t = transport_of(transport);
	struct sim_world *w = t->net->world;
	struct endpoint *e;

	PRE(t->process->alive && h->rx != NULL && h->closed != NULL);
	if (address[0] == '\0' || strlen(address) >= sizeof(e->address))
		return -EINVAL;
	e = endpoint_create(t);
	if (e == NULL)
		return -ENOMEM;
	snprintf(e->address, sizeof(e->address), "%s", address);
	snprintf(e->head.peer.address, sizeof(e->head.peer.address), "%s", address);
	e->head.handler = h;
	e->head.arg = arg;
	e->connect_deadline_ns = w->now_ns + CONNECT_PATIENCE_NS;
	/* What a process asks for after its death's cause does not happen: its own event first. */
	if (!t->process->doomed)
		sim_schedule(w, NULL,
			     sim_process_delay(t->process, sim_random_range(w, DELAY_BASE_MIN_NS,
									    DELAY_BASE_MAX_NS)),
			     syn, e);
	*ret_conn = &e->head;
	return 0;
}

static int sim_listen(struct transport *transport, const char *address,
		      void (*accepted)(struct transport_conn *conn, void *arg), void *arg,
		      struct transport_listener **ret_listener, struct error *err)
{
	struct sim_transport *t = transport_of(transport);
	struct sim_listener *l;

	if (address[0] == '\0')
		address = t->process->name;
	if (strlen(address) >= sizeof(l->head.address))
		return error_set(err, -EINVAL, "the address %s is too long", address);
	if (find_listener(t->net, address) != NULL)
		return error_set(err, -EADDRINUSE, "somebody listens on %s already", address);
	l = calloc(1, sizeof(*l));
	INVARIANT(l != NULL);
	l->head.transport = transport;
	snprintf(l->head.address, sizeof(l->head.address), "%s", address);
	l->accepted = accepted;
	l->arg = arg;
	l->next = t->net->listeners;
	t->net->listeners = l;
	*ret_listener = &l->head;
	return 0;
}

static void sim_unlisten(struct transport_listener *listener)
{
	struct sim_listener *l = container_of(listener, struct sim_listener, head);

	PRE(!l->gone || !transport_of(listener->transport)->process->alive);
	l->gone = true;
}

static void sim_close(struct transport_conn *conn)
{
	struct endpoint *e = endpoint_of(conn);

	PRE(e->state != GONE || !e->process->alive);
	if (e->state >= CLOSING)
		return;
	if (e->peer != NULL && !e->process->doomed)
		push_fin(e->peer);
	end(e, 0);
}

static void sim_destroy(struct transport *transport)
{
	struct sim_transport *t = transport_of(transport);

	PRE(t->conn_count == 0 || !t->process->alive);
	for (struct sim_listener *l = t->net->listeners; l != NULL; l = l->next)
		PRE(l->gone || l->head.transport != transport);
	t->gone = true;
}

static const struct transport_ops sim_transport_ops = {
    .name = "sim",
    .connect = sim_connect,
    .listen = sim_listen,
    .unlisten = sim_unlisten,
    .send = sim_send,
    .close = sim_close,
    .destroy = sim_destroy,
};

struct transport *sim_transport_create(struct sim_process *p)
{
	struct sim_transport *t = calloc(1, sizeof(*t));

	INVARIANT(t != NULL);
	PRE(p->alive);
	t->head.ops = &sim_transport_ops;
	t->head.reactor = &p->reactor;
	t->net = net_of(p->world);
	t->process = p;
	t->next = t->net->transports;
	t->net->transports = t;
	return &t->head;
}

/* -- faults ---------------------------------------------------------------------------------- */

void sim_net_cut(struct sim_process *from, struct sim_process *to, bool cut)
{
	struct sim_net *n = net_of(from->world);
	struct link *l = link_of(n, from, to);

	if (l->cut == cut)
		return;
	sim_trace(n->world, NULL, "link %s -> %s %s", from->name, to->name, cut ? "cut" : "healed");
	l->cut = cut;
	if (!cut)
		heal(n, from, to);
}

void sim_net_isolate(struct sim_process *p, bool cut)
{
	for (uint32_t i = 0; i < p->world->process_count; i++) {
		if (p->world->processes[i] == p)
			continue;
		sim_net_cut(p, p->world->processes[i], cut);
		sim_net_cut(p->world->processes[i], p, cut);
	}
}

void sim_net_heal_all(struct sim_world *w)
{
	for (uint32_t i = 0; i < w->process_count; i++)
		sim_net_isolate(w->processes[i], false);
}

void sim_net_disconnect(struct sim_process *a, struct sim_process *b)
{
	struct sim_net *n = net_of(a->world);

	sim_trace(n->world, NULL, "disconnected %s and %s", a->name, b->name);
	for (struct endpoint *e = n->endpoints; e != NULL; e = e->next) {
		if (e->state >= CLOSING || e->peer == NULL)
			continue;
		if ((e->process == a && e->peer->process == b) ||
		    (e->process == b && e->peer->process == a))
			sim_schedule(n->world, NULL, sim_random_below(n->world, BREAK_DELAY_MAX_NS),
				     end_disconnected, e);
	}
}

void sim_net_set_delay(struct sim_process *from, struct sim_process *to, uint64_t min_ns,
		       uint64_t max_ns)
{
	struct link *l = link_of(net_of(from->world), from, to);

	PRE(min_ns <= max_ns);
	l->min_ns = min_ns;
	l->max_ns = max_ns;
}

void sim_net_observe(struct sim_world *w,
		     void (*observe)(const struct sim_process *from, const struct sim_process *to,
				     const struct transport_send *send, void *arg),
		     void *arg)
{
	net_of(w)->observe = observe;
	net_of(w)->observe_arg = arg;
}

struct sim_net_stats sim_net_stats(const struct sim_world *w)
{
	return w->net != NULL ? w->net->stats : (struct sim_net_stats){0};
}

/* What a cut link held back was still in the memory of the sender's machine. */
static void drop_held(struct endpoint *e)
{
	struct message **at = &e->arrivals, *m;

	while (*at != NULL) {
		m = *at;
		if (m->arrive_ns == HELD) {
			*at = m->next;
			e->arrival_bytes -= m->payload_size;
			free(m);
		} else {
			at = &m->next;
		}
	}
	e->arrivals_tail = at;
	e->holding = false;
}

/* How the other side learns of it: what was on its way and then the end; or the end at once; or
 * nothing, until its patience is at an end. */
static void tell_peer(struct endpoint *e, enum sim_crash how)
{
	struct sim_world *w = e->net->world;
	struct endpoint *peer = e->peer;

	if (peer == NULL || peer->state >= CLOSING)
		return;
	if (how == SIM_POWER_LOSS) {
		drop_held(peer);
		sim_schedule(w, NULL, sim_random_range(w, PATIENCE_MIN_NS, PATIENCE_MAX_NS),
			     end_timed_out, peer);
	} else if (sim_chance(w, 1, 2))
		push_fin(peer);
	else
		sim_schedule(w, NULL, delay_ns(e->net, e->process, peer->process), end_disconnected,
			     peer);
}

void sim_net_crash(struct sim_process *p, enum sim_crash how)
{
	struct sim_net *n = p->world->net;

	if (n == NULL)
		return;
	for (struct endpoint *e = n->endpoints; e != NULL; e = e->next) {
		if (e->process != p || e->state == GONE)
			continue;
		if (e->state < CLOSING)
			tell_peer(e, how);
		for (struct transport_send *s = e->sends; s != NULL; s = s->next)
			sim_abandon(s);
		sim_abandon(e->head.arg);
		e->sends = NULL;
		drop_arrivals(e);
		e->state = GONE;
	}
	for (struct sim_listener *l = n->listeners; l != NULL; l = l->next) {
		if (transport_of(l->head.transport)->process == p && !l->gone) {
			sim_abandon(l->arg);
			l->gone = true;
		}
	}
}

void sim_net_started(struct sim_process *p)
{
	struct sim_net *n = p->world->net;

	if (n == NULL)
		return;
	for (struct endpoint *e = n->endpoints; e != NULL; e = e->next)
		if (e->state == OPEN && e->peer->process == p && e->peer->state == GONE &&
		    reachable(n, p, e->process))
			sim_schedule(n->world, NULL, sim_random_below(n->world, RESET_DELAY_MAX_NS),
				     end_disconnected, e);
}

void sim_net_destroy(struct sim_world *w)
{
	struct sim_net *n = w->net;

	if (n == NULL)
		return;
	while (n->endpoints != NULL) {
		struct endpoint *e = n->endpoints;

		n->endpoints = e->next;
		drop_arrivals(e);
		free(e);
	}
	while (n->listeners != NULL) {
		struct sim_listener *l = n->listeners;

		n->listeners = l->next;
		free(l);
	}
	while (n->transports != NULL) {
		struct sim_transport *t = n->transports;

		n->transports = t->next;
		free(t);
	}
	free(n);
	w->net = NULL;
}
