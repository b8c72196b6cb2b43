/* node session: its life, Hello, and the gate. See shard.h. What a host asks for once it is greeted
 * is in open.c.
 *
 * Happy path: accepted, greeted, opened, served; when the connection is gone, what is still in
 * flight ends and the last of it frees the session.
 *
 * Failure modes: no Hello within NODE_HELLO_TIMEOUT_MS, a request before it, or replies that pile
 * up unread end the connection. A refused Hello is answered, and the peer goes, or the time runs
 * out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/node/shard.h"

/* -- the gate --------------------------------------------------------------------------------- */

static struct gate closed_gate(int why)
{
	return (struct gate){.why = why};
}

static struct gate compute_gate(const struct node_session *s)
{
	const struct node_shard *shard = s->shard;
	const struct node_identity *me = &shard->config.identity;
	const struct node_lease_state *lease = &shard->lease;
	const struct permit_node *entry;

	if (s->state < SESSION_OPENING)
		return closed_gate(-E_NO_PERMIT);
	if (s->fenced)
		return closed_gate(-E_FENCED);
	entry = permit_find_node(&s->permit, me->name);
	if (entry == NULL || strcmp(entry->site, me->site) != 0)
		return closed_gate(-E_NOT_IN_PERMIT);
	if (s->peer_is_node && permit_find_node(&s->permit, s->peer) == NULL)
		return closed_gate(-E_NOT_IN_PERMIT);
	if (lease->deadline_ns == 0)
		return closed_gate(lease->why);
	if (entry->site_version != lease->site_version)
		return closed_gate(-E_STALE_EVIDENCE);
	if (s->permit.deadline_ns <= lease->deadline_ns)
		return (struct gate){s->permit.deadline_ns, -E_PERMIT_EXPIRED};
	return (struct gate){lease->deadline_ns, -E_LEASE_EXPIRED};
}

void node_session_update_gate(struct node_session *s)
{
	const bool was_set = s->gate.deadline_ns != 0;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__GateClosed closed = PAVE__V1__GATE_CLOSED__INIT;

	s->gate = compute_gate(s);
	if (s->gate.deadline_ns == 0 && was_set)
		node_session_close_receipt(s);
	if (s->gate.deadline_ns != 0 || !was_set || s->state != SESSION_OPEN || s->conn == NULL ||
	    s->closing)
		return;
	log_info("node", "closed the gate of %s for volume %llu: %s", s->peer,
		 (unsigned long long)s->volume->id, err_text(s->gate.why));
	closed.status = (uint32_t)-s->gate.why;
	message.body_case = PAVE__V1__CONTROL__BODY_GATE_CLOSED;
	message.gate_closed = &closed;
	rpc_notify(&s->rpc, &message);
}

int node_session_check(const struct node_session *s)
{
	if (s->state != SESSION_OPEN)
		return -E_NO_PERMIT;
	return gate_open(&s->gate, reactor_now_ns(shard_reactor(s->shard))) ? 0 : s->gate.why;
}

int node_session_check_now(const struct node_session *s)
{
	gate_refresh(shard_reactor(s->shard));
	return node_session_check(s);
}

void node_session_close_receipt(struct node_session *s)
{
	struct node_shard *shard = s->shard;
	struct node_receipt receipt;

	if (receipt_close(&s->receipt, &receipt) && shard->config.receipt != NULL)
		shard->config.receipt(&receipt, shard->config.arg);
}

/* -- life ------------------------------------------------------------------------------------- */

void node_session_close(struct node_session *s)
{
	if (s->closing || s->conn == NULL)
		return;
	s->closing = true;
	transport_close(s->conn);
}

void node_session_destroy(struct node_session *s)
{
	struct node_shard *shard = s->shard;

	node_pull_destroy_all(s);
	node_changes_destroy_all(s);
	if (s->open_waiting)
		s->volume->opens_waiting--;
	if (s->volume != NULL)
		node_shard_put_volume(shard, s->volume);
	receipt_counter_deinit(&s->receipt);
	permit_deinit(&s->permit);
	free(s->permit_packed);
	DL_DELETE(shard->sessions, s);
	free(s);
}

void node_session_release(struct node_session *s)
{
	struct node_shard *shard = s->shard;

	if (s->volume != NULL && s->volume->opens_waiting > 0)
		node_open_resume(shard, s->volume);
	if (s->conn != NULL || s->inflight > 0 || s->controls > 0 || s->fencing || s->pulls != NULL)
		return;
	node_session_close_receipt(s);
	node_requests_unreserve(shard, s);
	node_vacate_session_gone(s);
	node_session_destroy(s);
	node_shard_session_gone(shard);
}

static void session_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct node_session *s = arg;

	log_debug("node", "the session of %s (%s) ended: %s", s->peer[0] != '\0' ? s->peer : "?",
		  conn->peer.address, err_text(reason));
	reactor_timer_cancel(shard_reactor(s->shard), &s->hello_timer);
	rpc_closed(&s->rpc);
	s->conn = NULL;
	s->rx_bytes -= node_buffer_size(&s->rx_buffer);
	node_buffers_put(&s->shard->rx_memory, &s->rx_buffer);
	if (s->shard->waiting != NULL)
		node_requests_wake(s->shard);
	/* The pulls end by themselves; one may be the last thing that holds the session. */
	s->controls++;
	node_pull_abort_all(s);
	s->controls--;
	node_session_release(s);
}

struct node_buffer node_session_rx_memory(struct node_session *s, uint32_t size_bytes)
{
	struct node_buffer piece = {0};

	if (s->rx_bytes + size_bytes <= NODE_RX_SESSION_MAX)
		piece = node_buffers_get(&s->shard->rx_memory, size_bytes);
	s->rx_bytes += node_buffer_size(&piece);
	return piece;
}

static void *session_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct node_session *s = arg;

	(void)conn;
	if (f->op == FRAME_CONTROL)
		return rpc_rx_buffer(&s->rpc, f);
	/* Replies are never due to us here; and before Hello nothing is. */
	if (f->op != FRAME_WRITE || (f->flags & FRAME_F_REPLY) != 0 ||
	    s->state == SESSION_CONNECTED)
		return NULL;
	PRE(s->rx_buffer.data == NULL);
	s->rx_buffer = node_session_rx_memory(s, f->payload_size);
	return s->rx_buffer.data;
}

static void session_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct node_session *s = arg;

	(void)conn;
	if (s->closing)
		return;
	if (f->op == FRAME_CONTROL)
		rpc_rx(&s->rpc, f);
	else
		node_data_rx(s, f);
}

static const struct transport_handler session_handler = {
    .rx_buffer = session_rx_buffer,
    .rx = session_rx,
    .closed = session_closed,
};

static void hello_timeout(struct reactor_timer *timer)
{
	struct node_session *s = container_of(timer, struct node_session, hello_timer);

	if (s->state == SESSION_CONNECTED) {
		s->shard->stats.dropped++;
		node_session_close(s);
	}
}

void node_session_accept(struct node_shard *shard, struct transport_conn *conn)
{
	struct node_session *s = calloc(1, sizeof(*s));
	struct reactor *r = shard_reactor(shard);

	if (s == NULL || receipt_counter_init(&s->receipt) != 0) {
		free(s);
		transport_close(conn);
		return;
	}
	s->shard = shard;
	s->conn = conn;
	s->gate = compute_gate(s);
	s->hello_timer.fire = hello_timeout;
	conn->handler = &session_handler;
	conn->arg = s;
	rpc_init(&s->rpc, conn, node_session_handle, s);
	DL_APPEND(shard->sessions, s);
	shard->session_count++;
	reactor_timer_arm(r, &s->hello_timer,
			  reactor_now_ns(r) + NODE_HELLO_TIMEOUT_MS * NS_PER_MS);
}

/* -- answers ---------------------------------------------------------------------------------- */

void node_session_reply(struct node_session *s, uint64_t request_id,
			const Pave__V1__Control *message)
{
	if (s->conn != NULL && !s->closing)
		rpc_reply(&s->rpc, request_id, message);
}

void node_session_fail(struct node_session *s, uint64_t request_id, int code, const char *text)
{
	if (s->conn != NULL && !s->closing)
		rpc_fail(&s->rpc, request_id, code, text);
}

void node_session_reply_empty(struct node_session *s, uint64_t request_id)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	message.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	message.empty = &empty;
	node_session_reply(s, request_id, &message);
}

bool node_session_control_begin(struct node_session *s, uint64_t request_id)
{
	char text[120];

	if (s->controls < NODE_CONTROLS_MAX) {
		s->controls++;
		return true;
	}
	snprintf(text, sizeof(text),
		 "%u control requests of this session are being carried out, which is the limit",
		 NODE_CONTROLS_MAX);
	node_session_fail(s, request_id, -E_LIMIT, text);
	return false;
}

void node_session_control_end(struct node_session *s)
{
	PRE(s->controls > 0);
	s->controls--;
	node_session_release(s);
}

/* -- Hello ------------------------------------------------------------------------------------ */

static int check_hello(struct node_session *s, const Pave__V1__Hello *hello, struct error *err)
{
	const struct node_identity *me = &s->shard->config.identity;

	if (s->state != SESSION_CONNECTED)
		return error_set(err, -E_BAD_FRAME, "this connection was greeted already");
	if (rpc_agree(&s->rpc, hello->version_min, hello->version_max) != 0)
		return error_set(err, -E_WIRE_VERSION,
				 "node %s speaks wire versions %u to %u, the peer %u to %u: update "
				 "the older of both",
				 me->name, FRAME_VERSION_MIN, FRAME_VERSION, hello->version_min,
				 hello->version_max);
	if (hello->cluster.len != sizeof(me->cluster.bytes) ||
	    memcmp(hello->cluster.data, me->cluster.bytes, sizeof(me->cluster.bytes)) != 0)
		return error_set(err, -E_WRONG_CLUSTER,
				 "node %s belongs to another cluster than the peer", me->name);
	if (strcmp(hello->role, "host") != 0 && strcmp(hello->role, "node") != 0 &&
	    strcmp(hello->role, "bench") != 0)
		return error_set(err, -E_DENIED,
				 "role \"%.32s\" has nothing to ask of a node: host, node or bench",
				 hello->role);
	if (!text_is_name(hello->name))
		return error_set(err, -E_BAD_FRAME, "the peer's name is not a name: \"%.64s\"",
				 hello->name);
	if (s->conn->peer.verified && strcmp(s->conn->peer.name, hello->name) != 0)
		return error_set(err, -E_DENIED, "the peer says it is %s, its certificate says %s",
				 hello->name, s->conn->peer.name);
	return 0;
}

void node_session_hello(struct node_session *s, uint64_t request_id, const Pave__V1__Hello *hello)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply reply = PAVE__V1__HELLO_REPLY__INIT;
	struct node_identity *me = &s->shard->config.identity;
	struct error err;
	int rc = check_hello(s, hello, &err);

	if (rc == 0 && node_requests_reserve(s->shard, s) != 0)
		rc =
		    error_set(&err, -ENOMEM, "node %s has no memory for another session", me->name);
	if (rc != 0) {
		node_session_fail(s, request_id, rc, err.text);
		return;
	}
	s->peer_is_node = strcmp(hello->role, "node") == 0;
	snprintf(s->peer, sizeof(s->peer), "%s", hello->name);
	s->state = SESSION_GREETED;
	s->greeted_ns = reactor_now_ns(shard_reactor(s->shard));
	reactor_timer_cancel(shard_reactor(s->shard), &s->hello_timer);
	reply.version = s->rpc.wire_version;
	reply.cluster = (ProtobufCBinaryData){sizeof(me->cluster.bytes), me->cluster.bytes};
	reply.name = me->name;
	reply.inflight_max = s->inflight_max;
	reply.traces = true;
	reply.software = (char *)(uintptr_t) "pave-node " PAVE_VERSION;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
	message.hello_reply = &reply;
	node_session_reply(s, request_id, &message);
}
