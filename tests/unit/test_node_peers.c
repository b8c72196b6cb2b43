/* See test_node_peers.h. */
#include "tests/unit/test_node_peers.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "ledger.pb-c.h"

/* -- the driver ------------------------------------------------------------------------------- */

static void pd_lease(struct peer_pd_conn *c, uint64_t request_id, const Pave__V1__LeaseRequest *ask)
{
	struct peer_pd *pd = c->pd;
	const int64_t wall = reactor_wall_ns(pd->reactor) + pd->wall_skew_ns;
	Pave__V1__Lease lease = PAVE__V1__LEASE__INIT;
	Pave__V1__LeaseReply reply = PAVE__V1__LEASE_REPLY__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	uint8_t zeroes[16] = {0};
	struct error err;

	pd->asked++;
	pd->flag = true;
	if (pd->silent)
		return;
	if (pd->refuse != 0) {
		rpc_fail(&c->rpc, request_id, -pd->refuse, "as the test wants it");
		return;
	}
	lease.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)pd->demo->cluster.bytes};
	lease.node = pd->lease_node != NULL ? (char *)(uintptr_t)pd->lease_node : ask->node;
	lease.site = ask->site;
	lease.site_version = pd->site_version;
	lease.revocations_version = pd->revocations_version;
	lease.serial = ++pd->granted;
	lease.issued_at = wall;
	lease.expires_at = wall + (int64_t)(pd->lifetime_ms * NS_PER_MS);
	lease.nonce = ask->nonce;
	if (pd->wrong_nonce)
		lease.nonce = (ProtobufCBinaryData){16, zeroes};
	ck_assert_int_eq(lease_make(&lease, pd->key, &reply.lease, &err), 0);
	reply.wall = wall;
	if (pd->revocations != NULL)
		reply.revocations =
		    (ProtobufCBinaryData){strlen(pd->revocations), (uint8_t *)pd->revocations};
	if (pd->site != NULL)
		reply.site_certificate =
		    (ProtobufCBinaryData){strlen(pd->site), (uint8_t *)pd->site};
	message.body_case = PAVE__V1__CONTROL__BODY_LEASE_REPLY;
	message.lease_reply = &reply;
	rpc_reply(&c->rpc, request_id, &message);
	pave__v1__signed__free_unpacked(reply.lease, NULL);
}

static void pd_receipts(struct peer_pd_conn *c, uint64_t request_id, const Pave__V1__Receipts *m)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	for (size_t i = 0; i < m->n_receipts; i++) {
		const ProtobufCBinaryData *payload = &m->receipts[i]->payload;
		Pave__V1__Receipt *r = pave__v1__receipt__unpack(NULL, payload->len, payload->data);

		ck_assert_ptr_nonnull(r);
		c->pd->receipts++;
		c->pd->receipt_run = r->run;
		pave__v1__receipt__free_unpacked(r, NULL);
	}
	message.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	message.empty = &empty;
	rpc_reply(&c->rpc, request_id, &message);
}

static void pd_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct peer_pd_conn *c = arg;
	const Pave__V1__Control *m = request->message;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply reply = PAVE__V1__HELLO_REPLY__INIT;

	if (m->body_case == PAVE__V1__CONTROL__BODY_LEASE_REQUEST) {
		pd_lease(c, request->request_id, m->lease_request);
		return;
	}
	if (m->body_case == PAVE__V1__CONTROL__BODY_RECEIPTS) {
		pd_receipts(c, request->request_id, m->receipts);
		return;
	}
	ck_assert_int_eq(m->body_case, PAVE__V1__CONTROL__BODY_HELLO);
	reply.version = 1;
	reply.name = (char *)(uintptr_t) "pd";
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
	message.hello_reply = &reply;
	rpc_reply(rpc, request->request_id, &message);
}

static void *pd_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer_pd_conn *c = arg;

	(void)conn;
	return rpc_rx_buffer(&c->rpc, f);
}

static void pd_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer_pd_conn *c = arg;

	(void)conn;
	rpc_rx(&c->rpc, f);
}

static void pd_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct peer_pd_conn *c = arg;

	(void)conn;
	(void)reason;
	rpc_closed(&c->rpc);
	c->conn = NULL;
}

static const struct transport_handler pd_handler = {
    .rx_buffer = pd_rx_buffer, .rx = pd_rx, .closed = pd_closed};

static void pd_accepted(struct transport_conn *conn, void *arg)
{
	struct peer_pd *pd = arg;

	for (uint32_t i = 0; i < PEERS_PD_CONNS; i++) {
		struct peer_pd_conn *c = &pd->conns[i];

		if (c->conn != NULL)
			continue;
		c->pd = pd;
		c->conn = conn;
		conn->handler = &pd_handler;
		conn->arg = c;
		rpc_init(&c->rpc, conn, pd_handle, c);
		return;
	}
	ck_abort_msg("too many connections to the driver");
}

void peer_pd_start(struct peer_pd *pd, struct reactor *r, struct transport *t, const char *listen,
		   const struct demo *demo)
{
	struct error err;

	*pd = (struct peer_pd){
	    .reactor = r,
	    .transport = t,
	    .demo = demo,
	    .lifetime_ms = PERMIT_LIFETIME_MS,
	    .site_version = 1,
	    .revocations_version = 1,
	    .key = demo_key(demo, DEMO_PLACEMENT),
	};
	ck_assert_int_eq(transport_listen(t, listen, pd_accepted, pd, &pd->listener, &err), 0);
}

void peer_pd_notice(struct peer_pd *pd, const char *revocations)
{
	peer_pd_notice_root(pd, NULL, revocations);
}

void peer_pd_notice_root(struct peer_pd *pd, const char *root, const char *revocations)
{
	Pave__V1__EvidenceNotice notice = PAVE__V1__EVIDENCE_NOTICE__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	if (revocations != NULL)
		notice.revocations =
		    (ProtobufCBinaryData){strlen(revocations), (uint8_t *)(uintptr_t)revocations};
	if (root != NULL)
		notice.root = (ProtobufCBinaryData){strlen(root), (uint8_t *)(uintptr_t)root};
	message.body_case = PAVE__V1__CONTROL__BODY_EVIDENCE_NOTICE;
	message.evidence_notice = &notice;
	for (uint32_t i = 0; i < PEERS_PD_CONNS; i++)
		if (pd->conns[i].conn != NULL)
			rpc_notify(&pd->conns[i].rpc, &message);
}

static void pd_called(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		      const char *text)
{
	struct peer_pd_conn *c = container_of(call, struct peer_pd_conn, call);

	(void)reply;
	(void)text;
	c->status = status;
	c->called = true;
}

int peer_pd_erase(struct peer_pd *pd, struct peers_wait wait, volume_id_t volume, bool whole,
		  chunk_no_t chunk)
{
	Pave__V1__Erase erase = PAVE__V1__ERASE__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	struct peer_pd_conn *c = &pd->conns[0];

	ck_assert_ptr_nonnull(c->conn);
	erase.volume = volume;
	erase.whole_volume = whole;
	erase.n_chunks = whole ? 0 : 1;
	erase.chunks = &chunk;
	message.body_case = PAVE__V1__CONTROL__BODY_ERASE;
	message.erase = &erase;
	c->call.done = pd_called;
	c->called = false;
	rpc_call_start(&c->rpc, &c->call, &message, 0);
	ck_assert(wait.until(wait.arg, &c->called));
	return c->status;
}

void peer_pd_stop(struct peer_pd *pd)
{
	transport_unlisten(pd->listener);
	pd->listener = NULL;
	for (uint32_t i = 0; i < PEERS_PD_CONNS; i++)
		if (pd->conns[i].conn != NULL)
			transport_close(pd->conns[i].conn);
}

/* -- permits ---------------------------------------------------------------------------------- */

Pave__V1__Signed *peer_permit_make(const struct peer_permit *p)
{
	Pave__V1__Permit permit = PAVE__V1__PERMIT__INIT;
	Pave__V1__PermitNode nodes[3];
	Pave__V1__PermitNode *list[3];
	Pave__V1__PermitLayer layers[4];
	Pave__V1__PermitLayer *layer_list[4];
	Pave__V1__Signed *ret = NULL;
	uint8_t digest[32] = {1};
	struct error err;

	for (uint32_t i = 0; i < 3 && p->nodes[i] != NULL; i++) {
		pave__v1__permit_node__init(&nodes[i]);
		nodes[i].node = (char *)(uintptr_t)p->nodes[i];
		nodes[i].site = (char *)(uintptr_t)p->sites[i];
		nodes[i].site_version = p->site_version;
		list[i] = &nodes[i];
		permit.n_nodes = i + 1;
	}
	for (uint32_t i = 0; i < 4 && p->layers[i].id != 0; i++) {
		pave__v1__permit_layer__init(&layers[i]);
		layers[i].layer = p->layers[i].id;
		layers[i].open = p->layers[i].open;
		layer_list[i] = &layers[i];
		permit.n_layers = i + 1;
	}
	permit.layers = layer_list;
	permit.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)p->demo->cluster.bytes};
	permit.volume = p->volume;
	permit.generation = p->generation;
	permit.serial = p->serial;
	permit.policy_digest = (ProtobufCBinaryData){sizeof(digest), digest};
	permit.holder = (char *)(uintptr_t) "host";
	permit.map_version = p->map_version;
	permit.nodes = list;
	permit.issued_at = p->issued_at;
	permit.expires_at = p->issued_at + (int64_t)(p->lifetime_ms * NS_PER_MS);
	permit.read_only = p->read_only;
	ck_assert_int_eq(permit_make(&permit,
				     p->key != NULL ? p->key : demo_key(p->demo, DEMO_PLACEMENT),
				     &ret, &err),
			 0);
	return ret;
}

void peer_permit_free(Pave__V1__Signed *s)
{
	pave__v1__signed__free_unpacked(s, NULL);
}

/* -- the host --------------------------------------------------------------------------------- */

static void answer_vacate(struct peer_host *h, const struct rpc_request *request)
{
	Pave__V1__Control reply = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;

	ck_assert_uint_ge(request->message->vacate->n_chunks, 1);
	h->vacates++;
	h->vacate_chunk = request->message->vacate->chunks[0];
	reply.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	reply.empty = &empty;
	if (h->vacate_status == 0)
		rpc_reply(&h->rpc, request->request_id, &reply);
	else if (h->vacate_status < 0)
		rpc_fail(&h->rpc, request->request_id, h->vacate_status, "as the test wants it");
}

static void host_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct peer_host *h = arg;
	const Pave__V1__Control *m = request->message;

	(void)rpc;
	if (m->body_case == PAVE__V1__CONTROL__BODY_PERMIT_NOTICE ||
	    m->body_case == PAVE__V1__CONTROL__BODY_DETACH_NOTICE)
		return; /* of a driver, to whoever wants it */
	if (m->body_case == PAVE__V1__CONTROL__BODY_DAMAGE) {
		ck_assert_uint_ge(m->damage->n_ranges, 1);
		h->damage_count++;
		h->damage = *m->damage->ranges[0];
		return;
	}
	if (m->body_case == PAVE__V1__CONTROL__BODY_PULL_PROGRESS) {
		ck_assert_uint_ge(m->pull_progress->blocks, h->pull_progress);
		h->pull_progress = m->pull_progress->blocks;
		return;
	}
	if (m->body_case == PAVE__V1__CONTROL__BODY_VACATE) {
		answer_vacate(h, request);
		return;
	}
	ck_assert_int_eq(m->body_case, PAVE__V1__CONTROL__BODY_GATE_CLOSED);
	h->gate_closed_count++;
	h->gate_closed_why = -(int)m->gate_closed->status;
	h->gate_closed = true;
}

static void host_ready(struct transport_conn *conn, void *arg)
{
	struct peer_host *h = arg;

	(void)conn;
	h->ready = true;
}

static void *host_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer_host *h = arg;

	(void)conn;
	if (f->op == FRAME_CONTROL)
		return rpc_rx_buffer(&h->rpc, f);
	ck_assert_ptr_null(h->rx_buffer);
	h->rx_buffer = aligned_alloc(BLOCK_SIZE, ROUND_UP(f->payload_size, BLOCK_SIZE));
	return h->rx_buffer;
}

static void host_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct peer_host *h = arg;
	struct peer_request *q;

	(void)conn;
	if (f->op == FRAME_CONTROL) {
		rpc_rx(&h->rpc, f);
		return;
	}
	q = h->requests[f->request_id % PEER_REQUESTS];
	ck_assert_ptr_nonnull(q);
	ck_assert_uint_eq(q->send.frame.request_id, f->request_id);
	ck_assert_uint_eq(q->send.frame.op, f->op);
	ck_assert(!q->done);
	h->requests[f->request_id % PEER_REQUESTS] = NULL;
	q->reply = *f;
	q->status = -f->status;
	if (f->payload_size > 0) {
		q->reply_payload = malloc(f->payload_size);
		memcpy(q->reply_payload, f->payload, f->payload_size);
		memcpy(q->reply_crcs, f->crcs, 4u * f->crc_count);
	}
	free(h->rx_buffer);
	h->rx_buffer = NULL;
	q->done = true;
}

static void host_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct peer_host *h = arg;

	(void)conn;
	rpc_closed(&h->rpc);
	h->rpc_live = false;
	free(h->rx_buffer);
	h->rx_buffer = NULL;
	h->conn = NULL;
	h->reason = reason;
	h->closed = true;
	h->ready = true;
	for (uint32_t i = 0; i < PEER_REQUESTS; i++) {
		struct peer_request *q = h->requests[i];

		if (q == NULL)
			continue;
		h->requests[i] = NULL;
		q->status = -E_DISCONNECTED;
		q->done = true;
	}
}

static const struct transport_handler host_handler = {
    .ready = host_ready, .rx_buffer = host_rx_buffer, .rx = host_rx, .closed = host_closed};

void peer_host_init(struct peer_host *h, struct reactor *r, struct transport *t,
		    struct peers_wait wait, const struct demo *demo)
{
	*h = (struct peer_host){
	    .reactor = r, .transport = t, .wait = wait, .cluster = demo->cluster};
}

int peer_host_connect(struct peer_host *h, const char *address)
{
	h->ready = false;
	h->closed = false;
	ck_assert_int_eq(transport_connect(h->transport, address, &host_handler, h, &h->conn), 0);
	rpc_init(&h->rpc, h->conn, host_handle, h);
	h->rpc_live = true;
	ck_assert(h->wait.until(h->wait.arg, &h->ready));
	return h->closed ? h->reason : 0;
}

void peer_host_close(struct peer_host *h)
{
	if (h->conn != NULL) {
		transport_close(h->conn);
		ck_assert(h->wait.until(h->wait.arg, &h->closed));
	}
	if (h->call_reply != NULL)
		pave__v1__control__free_unpacked(h->call_reply, NULL);
	h->call_reply = NULL;
}

static void host_called(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			const char *text)
{
	struct peer_host *h = container_of(call, struct peer_host, call);

	h->call_status = status;
	snprintf(h->call_text, sizeof(h->call_text), "%s", text != NULL ? text : "");
	if (h->call_reply != NULL)
		pave__v1__control__free_unpacked(h->call_reply, NULL);
	h->call_reply = NULL;
	if (reply != NULL) {
		const size_t size = pave__v1__control__get_packed_size(reply);
		uint8_t *packed = malloc(size + 1);

		pave__v1__control__pack(reply, packed);
		h->call_reply = pave__v1__control__unpack(NULL, size, packed);
		free(packed);
	}
	h->called = true;
}

void peer_host_ask_start(struct peer_host *h, const Pave__V1__Control *message)
{
	ck_assert(h->rpc_live);
	h->called = false;
	h->call.done = host_called;
	rpc_call_start(&h->rpc, &h->call, message, 60000);
}

int peer_host_ask_wait(struct peer_host *h)
{
	ck_assert(h->wait.until(h->wait.arg, &h->called));
	return h->call_status;
}

int peer_host_ask(struct peer_host *h, const Pave__V1__Control *message)
{
	if (!h->rpc_live)
		return -E_DISCONNECTED;
	peer_host_ask_start(h, message);
	return peer_host_ask_wait(h);
}

int peer_host_hello(struct peer_host *h, const char *role, const char *name)
{
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	int rc;

	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.cluster = (ProtobufCBinaryData){16, h->cluster.bytes};
	hello.role = (char *)(uintptr_t)role;
	hello.name = (char *)(uintptr_t)name;
	hello.software = (char *)(uintptr_t) "test";
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message.hello = &hello;
	rc = peer_host_ask(h, &message);
	if (rc == 0)
		h->inflight_max = h->call_reply->hello_reply->inflight_max;
	return rc;
}

int peer_host_open(struct peer_host *h, Pave__V1__Signed *permit, uint64_t chunk_size)
{
	Pave__V1__Open open = PAVE__V1__OPEN__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	open.permit = permit;
	open.chunk_size = chunk_size;
	open.read_only = h->read_only;
	message.body_case = PAVE__V1__CONTROL__BODY_OPEN;
	message.open = &open;
	return peer_host_ask(h, &message);
}

int peer_host_update(struct peer_host *h, Pave__V1__Signed *permit)
{
	Pave__V1__PermitUpdate update = PAVE__V1__PERMIT_UPDATE__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	update.permit = permit;
	message.body_case = PAVE__V1__CONTROL__BODY_PERMIT_UPDATE;
	message.permit_update = &update;
	return peer_host_ask(h, &message);
}

int peer_host_pull_part(struct peer_host *h, chunk_no_t chunk, version_t above, version_t below,
			const uint32_t *ranges, size_t n_ranges, const char *node,
			const char *address)
{
	Pave__V1__Pull pull = PAVE__V1__PULL__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	pull.chunk = chunk;
	pull.above = above;
	pull.below = below;
	pull.ranges = (uint32_t *)(uintptr_t)ranges;
	pull.n_ranges = n_ranges;
	pull.source_node = (char *)(uintptr_t)node;
	pull.source_address = (char *)(uintptr_t)address;
	message.body_case = PAVE__V1__CONTROL__BODY_PULL;
	message.pull = &pull;
	peer_host_ask_start(h, &message);
	return peer_host_ask_wait(h);
}

void peer_host_pull_start(struct peer_host *h, chunk_no_t chunk, version_t above, const char *node,
			  const char *address)
{
	Pave__V1__Pull pull = PAVE__V1__PULL__INIT;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;

	pull.chunk = chunk;
	pull.above = above;
	pull.layer = h->layer;
	pull.exact = h->exact;
	pull.repair = h->repair;
	pull.ranges = h->ranges;
	pull.n_ranges = h->repair ? 2 : 0;
	pull.source_node = (char *)(uintptr_t)node;
	pull.source_address = (char *)(uintptr_t)address;
	message.body_case = PAVE__V1__CONTROL__BODY_PULL;
	message.pull = &pull;
	peer_host_ask_start(h, &message);
}

int peer_host_pull(struct peer_host *h, chunk_no_t chunk, version_t above, const char *node,
		   const char *address)
{
	peer_host_pull_start(h, chunk, above, node, address);
	return peer_host_ask_wait(h);
}

static void request_sent(struct transport_send *send, int status)
{
	struct peer_request *q = container_of(send, struct peer_request, send);

	(void)status;
	q->sent = true;
}

struct peer_request *peer_host_send(struct peer_host *h, struct frame f, const void *data,
				    bool bad_crc)
{
	struct peer_request *q = calloc(1, sizeof(*q));

	f.wire_version = FRAME_VERSION;
	f.request_id = ((uint64_t)1 << 62) + h->next_id++;
	q->host = h;
	if (data != NULL) {
		f.payload_size = f.block_count * BLOCK_SIZE;
		f.crc_count = frame_crc_count(f.payload_size);
		q->payload = malloc(f.payload_size);
		memcpy(q->payload, data, f.payload_size);
		crc32c_blocks(q->payload, f.block_count, q->crcs);
		if (bad_crc)
			q->crcs[f.block_count / 2] ^= 1;
		f.crcs = q->crcs;
		q->send.iov[0] = (struct iovec){q->payload, f.payload_size};
		q->send.iov_count = 1;
	}
	q->send.frame = f;
	q->send.done = request_sent;
	if (h->conn == NULL) {
		q->sent = true;
		q->done = true;
		q->status = -E_DISCONNECTED;
		return q;
	}
	ck_assert_ptr_null(h->requests[f.request_id % PEER_REQUESTS]);
	h->requests[f.request_id % PEER_REQUESTS] = q;
	transport_send(h->conn, &q->send);
	return q;
}

bool peer_host_wait(struct peer_host *h, struct peer_request *q)
{
	ck_assert(h->wait.until(h->wait.arg, &q->done));
	ck_assert(h->wait.until(h->wait.arg, &q->sent));
	return q->status != -E_DISCONNECTED;
}

void peer_request_free(struct peer_request *q)
{
	free(q->payload);
	free(q->reply_payload);
	free(q);
}

static int run(struct peer_host *h, struct frame f, const void *data)
{
	struct peer_request *q = peer_host_send(h, f, data, false);
	int status;

	peer_host_wait(h, q);
	status = q->status;
	peer_request_free(q);
	return status;
}

int peer_host_write(struct peer_host *h, chunk_no_t chunk, block_no_t block, uint32_t block_count,
		    version_t version, const void *data)
{
	return run(h,
		   (struct frame){.op = FRAME_WRITE,
				  .layer = h->layer,
				  .chunk = chunk,
				  .block = block,
				  .block_count = block_count,
				  .version = version},
		   data);
}

int peer_host_zero(struct peer_host *h, chunk_no_t chunk, block_no_t block, uint32_t block_count,
		   version_t version, bool discard)
{
	return run(h,
		   (struct frame){.op = FRAME_ZERO,
				  .layer = h->layer,
				  .flags = discard ? FRAME_F_DISCARD : 0,
				  .chunk = chunk,
				  .block = block,
				  .block_count = block_count,
				  .version = version},
		   NULL);
}

int peer_host_watermark(struct peer_host *h, chunk_no_t chunk, version_t watermark)
{
	return run(
	    h,
	    (struct frame){
		.op = FRAME_WATERMARK, .chunk = chunk, .layer = h->layer, .watermark = watermark},
	    NULL);
}

int peer_host_read(struct peer_host *h, chunk_no_t chunk, block_no_t block, uint32_t block_count,
		   void *ret_data)
{
	const struct frame f = {.op = FRAME_READ,
				.chunk = chunk,
				.layer = h->layer,
				.block = block,
				.block_count = block_count};
	struct peer_request *q = peer_host_send(h, f, NULL, false);
	int status;

	peer_host_wait(h, q);
	status = q->status;
	if (status == 0) {
		ck_assert_uint_eq(q->reply.payload_size, block_count * BLOCK_SIZE);
		ck_assert(crc32c_blocks_match(q->reply_payload, block_count, q->reply_crcs));
		memcpy(ret_data, q->reply_payload, q->reply.payload_size);
	}
	peer_request_free(q);
	return status;
}

void peer_fill(void *data, uint32_t block_count, uint64_t seed)
{
	uint64_t *words = data;
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t i = 0; i < (size_t)block_count * BLOCK_SIZE / sizeof(*words); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(&words[i], &x, sizeof(x));
	}
}
