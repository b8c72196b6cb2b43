/* rpc: see rpc.h.
 *
 * INVARIANTS
 *  1. A call is in flight (reactor != NULL) from rpc_call_start until it is finished, once: by its
 *     reply, by its deadline, by rpc_closed, or by rpc_call_cancel. It is taken off the list before
 *     its done runs, which may start it again or free it.
 *  2. A call that could not be sent has no number, and a timer that is due at once. It is on the
 *     list like any other, but when it was started after rpc_closed: then it knows no rpc, only its
 *     timer holds it, and it may outlive the rpc.
 *
 * Happy path: rpc_call_start packs the message into memory of its own, sends it and arms the
 * deadline; the peer's rpc_rx unpacks it and calls handle; rpc_reply packs the answer; our rpc_rx
 * finds the call by its number.
 *
 * Failure modes: what a peer sends wrong ends the connection, with a line in the log that says
 * what; a peer that doesn't read its answers is cut off at RPC_QUEUE_BYTES_MAX. */
#include "net/rpc/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"

/* -- sending --------------------------------------------------------------------------------- */

/* One packed message, on its way. The CRCs stand behind it in memory, then the payload. */
struct outgoing {
	struct transport_send send;
	struct rpc *rpc;
	size_t size_bytes; /* of all of this */
	uint32_t crcs[];
};

static void outgoing_done(struct transport_send *send, int status)
{
	struct outgoing *o = container_of(send, struct outgoing, send);

	(void)status; /* closed follows an error, and tells everybody */
	INVARIANT(o->rpc->queued_bytes >= o->size_bytes);
	o->rpc->queued_bytes -= o->size_bytes;
	free(o);
}

/* 0, -E_DISCONNECTED, -E_LIMIT (the message is too large) or -ENOMEM. */
static int send_message(struct rpc *rpc, uint16_t flags, uint64_t request_id, int status,
			const Pave__V1__Control *message)
{
	const size_t size = pave__v1__control__get_packed_size(message);
	struct outgoing *o;
	uint8_t *payload;
	uint16_t crc_count;
	size_t whole;

	if (rpc->conn == NULL || rpc->cut_off)
		return -E_DISCONNECTED;
	if (size > FRAME_CONTROL_MAX)
		return -E_LIMIT;
	crc_count = frame_crc_count((uint32_t)size);
	whole = sizeof(*o) + 4u * crc_count + size;
	if (rpc->queued_bytes + whole > RPC_QUEUE_BYTES_MAX) {
		log_warn("rpc", "%s: it doesn't read: over %u MiB wait to be sent; closing",
			 rpc->conn->peer.address, RPC_QUEUE_BYTES_MAX >> 20);
		rpc->cut_off = true;
		transport_close(rpc->conn);
		return -E_DISCONNECTED;
	}
	o = malloc(whole);
	if (o == NULL)
		return -ENOMEM;
	memset(&o->send, 0, sizeof(o->send));
	payload = (uint8_t *)(o->crcs + crc_count);
	pave__v1__control__pack(message, payload);
	frame_payload_crcs(payload, (uint32_t)size, o->crcs);
	o->rpc = rpc;
	o->size_bytes = whole;
	o->send.frame = (struct frame){.wire_version = rpc->wire_version,
				       .op = FRAME_CONTROL,
				       .flags = flags,
				       .request_id = request_id,
				       .payload_size = (uint32_t)size,
				       .status = status,
				       .crc_count = crc_count,
				       .crcs = o->crcs};
	o->send.iov[0] = (struct iovec){payload, size};
	o->send.iov_count = size > 0 ? 1 : 0;
	o->send.done = outgoing_done;
	rpc->queued_bytes += whole;
	transport_send(rpc->conn, &o->send);
	return 0;
}

void rpc_notify(struct rpc *rpc, const Pave__V1__Control *message)
{
	int rc = send_message(rpc, 0, 0, 0, message);

	if (rc == -E_LIMIT)
		log_error("rpc", "%s: a notice is dropped: %zu bytes, of at most %u",
			  rpc->conn->peer.address, pave__v1__control__get_packed_size(message),
			  FRAME_CONTROL_MAX);
	if (rc == -ENOMEM)
		transport_close(rpc->conn);
}

void rpc_fail(struct rpc *rpc, uint64_t request_id, int code, const char *text)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	int rc;

	PRE(code < 0 && -code <= FRAME_STATUS_MAX);
	if (request_id == 0)
		return;
	if (text == NULL || strlen(text) > FRAME_CONTROL_MAX / 2)
		text = err_text(code);
	message.status = (uint32_t)-code;
	message.status_text = (char *)(uintptr_t)text;
	rc = send_message(rpc, FRAME_F_REPLY, request_id, -code, &message);
	if (rc == -ENOMEM)
		transport_close(rpc->conn);
}

void rpc_reply(struct rpc *rpc, uint64_t request_id, const Pave__V1__Control *message)
{
	int rc;

	PRE(message->status == 0);
	if (request_id == 0)
		return;
	rc = send_message(rpc, FRAME_F_REPLY, request_id, 0, message);
	if (rc == -E_LIMIT)
		rpc_fail(rpc, request_id, -E_LIMIT, "the answer is larger than a message may be");
	if (rc == -ENOMEM)
		transport_close(rpc->conn);
}

/* -- calls ----------------------------------------------------------------------------------- */

/* Takes it out of flight; the caller owes its done. */
static void call_remove(struct rpc_call *call)
{
	PRE(call->reactor != NULL);
	reactor_timer_cancel(call->reactor, &call->deadline);
	call->reactor = NULL;
	if (call->rpc == NULL)
		return;
	if (call->request_id != 0) {
		INVARIANT(call->rpc->call_count > 0);
		call->rpc->call_count--;
	}
	DL_DELETE(call->rpc->calls, call);
	call->rpc = NULL;
}

static void call_fail(struct rpc_call *call, int status)
{
	call_remove(call);
	call->done(call, status, NULL, err_text(status));
}

static void call_deadline(struct reactor_timer *timer)
{
	struct rpc_call *call = container_of(timer, struct rpc_call, deadline);

	call_fail(call, call->failure);
}

void rpc_call_start(struct rpc *rpc, struct rpc_call *call, const Pave__V1__Control *message,
		    uint32_t timeout_ms)
{
	uint64_t deadline_ns = reactor_now_ns(rpc->reactor);
	int rc = -E_LIMIT;

	PRE(call->done != NULL && call->reactor == NULL);
	call->reactor = rpc->reactor;
	call->rpc = rpc->conn != NULL ? rpc : NULL;
	call->deadline = (struct reactor_timer){.fire = call_deadline};
	call->request_id = 0;
	if (rpc->call_count < RPC_CALLS_MAX)
		rc = send_message(rpc, 0, rpc->next_id, 0, message);
	if (rc == 0) {
		call->request_id = rpc->next_id++;
		rpc->call_count++;
		rc = -ETIMEDOUT;
		deadline_ns += (timeout_ms != 0 ? timeout_ms : RPC_TIMEOUT_MS) * NS_PER_MS;
	}
	if (call->rpc != NULL)
		DL_APPEND(rpc->calls, call);
	call->failure = rc;
	reactor_timer_arm(rpc->reactor, &call->deadline, deadline_ns);
}

void rpc_call_cancel(struct rpc_call *call)
{
	if (call->reactor != NULL)
		call_remove(call);
}

/* -- receiving ------------------------------------------------------------------------------- */

/* Small messages can ask for much memory, as by millions of empty elements: it is counted. */
static void *bounded_alloc(void *budget, size_t size)
{
	size_t *left = budget;

	if (size > *left)
		return NULL;
	*left -= size;
	return malloc(size);
}

static void bounded_free(void *budget, void *p)
{
	(void)budget;
	free(p);
}

/* The text may end on somebody's terminal: neither its control characters nor those that UTF-8
 * writes as C2 80 to C2 9F are passed on. */
static void make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++) {
		if (*p < ' ' || *p == 0x7f)
			*p = ' ';
		if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) {
			p[0] = ' ';
			p[1] = ' ';
		}
	}
}

static void end_call(struct rpc *rpc, const struct frame *f, Pave__V1__Control *message)
{
	struct rpc_call *call;

	DL_SEARCH_SCALAR(rpc->calls, call, request_id, f->request_id);
	if (call == NULL)
		return;
	call_remove(call);
	make_printable(message->status_text);
	if (f->status == 0)
		call->done(call, 0, message, "");
	else
		call->done(call, -f->status, NULL,
			   *message->status_text != '\0' ? message->status_text
							 : err_text(f->status));
}

/* NULL, or what is wrong with it. */
static const char *receive(struct rpc *rpc, const struct frame *f)
{
	size_t budget = RPC_UNPACK_MAX;
	ProtobufCAllocator allocator = {bounded_alloc, bounded_free, &budget};
	Pave__V1__Control *message;
	struct rpc_request request = {.request_id = f->request_id};
	const char *wrong = NULL;

	if (!frame_payload_ok(f))
		return "a checksum of the payload does not match";
	message = pave__v1__control__unpack(&allocator, f->payload_size, f->payload);
	if (message == NULL)
		return "it is not a message of pave.v1.Control, or takes too much memory";
	request.message = message;
	if ((f->flags & FRAME_F_REPLY) == 0)
		rpc->handle(rpc, &request, rpc->arg);
	else if (f->request_id == 0 || message->status != (uint32_t)f->status)
		wrong = "a reply contradicts its header";
	else
		end_call(rpc, f, message);
	pave__v1__control__free_unpacked(message, &allocator);
	return wrong;
}

void rpc_rx(struct rpc *rpc, const struct frame *f)
{
	void *memory = rpc->rx_memory;
	struct transport_conn *conn = rpc->conn;
	const char *wrong;

	PRE(f->op == FRAME_CONTROL && conn != NULL);
	if (memory != NULL && f->payload == memory)
		rpc->rx_memory = NULL;
	else
		memory = NULL;
	wrong = receive(rpc, f);
	free(memory);
	if (wrong != NULL) {
		log_warn("rpc", "%s: bad control frame: %s; closing", conn->peer.address, wrong);
		transport_close(conn);
	}
}

void *rpc_rx_buffer(struct rpc *rpc, const struct frame *f)
{
	PRE(f->op == FRAME_CONTROL && f->payload_size <= FRAME_CONTROL_MAX);
	PRE(rpc->rx_memory == NULL); /* frames of a connection arrive one after the other */
	rpc->rx_memory = aligned_alloc(BLOCK_SIZE, ROUND_UP((size_t)f->payload_size, BLOCK_SIZE));
	return rpc->rx_memory;
}

/* -- life ------------------------------------------------------------------------------------ */

void rpc_init(struct rpc *rpc, struct transport_conn *conn,
	      void (*handle)(struct rpc *rpc, const struct rpc_request *request, void *arg),
	      void *arg)
{
	PRE(handle != NULL);
	*rpc = (struct rpc){.conn = conn,
			    .reactor = conn->transport->reactor,
			    .handle = handle,
			    .arg = arg,
			    .wire_version = FRAME_VERSION_MIN,
			    .next_id = 1};
}

int rpc_agree(struct rpc *rpc, uint32_t version_min, uint32_t version_max)
{
	const uint32_t newest = MIN(version_max, FRAME_VERSION);

	if (newest < FRAME_VERSION_MIN || newest < version_min)
		return -E_WIRE_VERSION;
	rpc->wire_version = (uint8_t)newest;
	return 0;
}

void rpc_closed(struct rpc *rpc)
{
	PRE(rpc->queued_bytes == 0);
	rpc->conn = NULL;
	free(rpc->rx_memory);
	rpc->rx_memory = NULL;
	while (rpc->calls != NULL)
		call_fail(rpc->calls, -E_DISCONNECTED);
	POST(rpc->call_count == 0);
}
