/* node pull: the target of a resync. The host says "get what was changed in this chunk above this
 * version from that node"; this node connects to it as a client, presents the permit of the host,
 * fetches run by run, and applies with the versions of the source: newest wins. See fetch.c for the
 * other side.
 *
 *   WAITING --a place is free--> CONNECTING --> GREETING --> OPENING --> FETCHING
 *      |                             |              |            |           |
 *      +-----------------------------+--- failed ---+------------+-----------+--> ENDING --> gone
 *                                                                            |      ^
 *                                      all is fetched, applied and durable: answered
 *
 * A pull is exact when a sealed layer's copy is restored: ERASING comes before CONNECTING, and
 * SEALING (a watermark that says so, durable) before the answer. What this node held of the chunk
 * in that layer may be of writes that were never acknowledged, and a sealed layer takes no newer
 * version that would hide them; so it goes. A crash in between leaves a copy that is not sealed.
 * The source must have the last word, still, with each of its answers (data.c); where nobody holds
 * anything of the chunk there is none to be asked.
 *
 * A repair is the pull of some ranges of a sealed layer, which are damaged here: it asks for what
 * the source shows there (repair.c), and takes the rest of the way of any other.
 *
 * INVARIANTS
 *  1. Nothing is applied, and no pull answered with 0, while the gate of the session that asked for
 *     it is closed; the source is in the permit (checked here), and so are we (checked there).
 *  2. What is applied has a version above `above`, of a generation up to the session's (or of
 *     whatever volume wrote the sealed layer), and CRCs that were checked once on receipt.
 *  3. At most one FETCH is in flight and PULL_BATCHES answers are being applied.
 *  4. All pulls of the shard together fetch resync_rate bytes a second, and one answer each more.
 *  5. One exact pull of a layer's chunk at a time, and none while a request that changes the chunk
 *     in that layer is in flight, of whichever session: the store may carry it out after the
 *     erasure.
 *
 * Failure modes: any error ends the pull with it; what was applied stays, and a pull that is asked
 * for again begins anew, harmlessly. A source that does not answer for PULL_STALL_MS: -ETIMEDOUT.
 *
 * A completion only records its result and defers the tick. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/node/pull.h"

#define PULL_STALL_MS	10000u
#define PULL_TELL_MS	500u
#define PULL_RANGES_MAX 64u
#define PULL_REQUEST_ID ((uint64_t)1 << 63) /* of FETCH; apart from those of control requests */

/* What the node asks of the store at once leaves room for control requests. */
static_assert(NODE_REQUESTS_MAX + NODE_PULLS_ACTIVE_MAX * PULL_BATCHES * RUN_TABLE_RUNS_MAX +
		      NODE_FETCHES_MAX * RUN_TABLE_BLOCKS_MAX <
		  STORE_OPS_MAX,
	      "bounded by what the store takes");

static void pull_stalled(struct reactor_timer *timer)
{
	pull_error(container_of(timer, struct node_pull, stall_timer), -ETIMEDOUT);
}

static void pull_expect(struct node_pull *p)
{
	struct reactor *r = shard_reactor(p->session->shard);

	reactor_timer_arm(r, &p->stall_timer, reactor_now_ns(r) + PULL_STALL_MS * NS_PER_MS);
}

/* -- pace ------------------------------------------------------------------------------------- */

static void pull_paced(struct reactor_timer *timer)
{
	pull_wake(container_of(timer, struct node_pull, pace_timer));
}

/* True: as much was fetched as the rate allows; the timer goes on with it. */
static bool pull_must_wait(struct node_pull *p)
{
	const struct node_shard *shard = p->session->shard;
	struct reactor *r = shard_reactor(shard);

	if (reactor_now_ns(r) >= shard->pull_after_ns)
		return false;
	reactor_timer_arm(r, &p->pace_timer, shard->pull_after_ns);
	return true;
}

static void pull_count(struct node_pull *p, uint32_t size_bytes)
{
	struct node_shard *shard = p->session->shard;
	const uint64_t now_ns = reactor_now_ns(shard_reactor(shard));
	const uint64_t rate = shard->config.resync_rate;

	if (rate > 0)
		shard->pull_after_ns =
		    MAX(shard->pull_after_ns, now_ns) + size_bytes * NS_PER_S / rate;
}

static void pull_tell(struct node_pull *p)
{
	struct node_session *s = p->session;
	const uint64_t now_ns = reactor_now_ns(shard_reactor(s->shard));
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__PullProgress progress = PAVE__V1__PULL_PROGRESS__INIT;

	if (now_ns < p->told_ns + PULL_TELL_MS * NS_PER_MS || s->conn == NULL || s->closing)
		return;
	p->told_ns = now_ns;
	progress.chunk = p->chunk;
	progress.blocks = p->block_count;
	message.body_case = PAVE__V1__CONTROL__BODY_PULL_PROGRESS;
	message.pull_progress = &progress;
	rpc_notify(&s->rpc, &message);
}

/* -- applying --------------------------------------------------------------------------------- */

static void batch_end(struct pull_batch *batch)
{
	node_buffers_put(&batch->pull->session->shard->rx_memory, &batch->buffer);
	batch->busy = false;
	pull_wake(batch->pull);
}

static void batch_write_done(struct store_write *op, int status)
{
	struct pull_batch *batch = container_of(op, struct pull_write, op)->batch;
	struct node_pull *p = batch->pull;

	if (status != 0)
		pull_error(p, status);
	else
		p->block_count += op->block_count;
	if (--batch->writing == 0)
		batch_end(batch);
}

/* The batch's buffer and crcs hold a payload that checks, runs its table. */
static void batch_apply(struct pull_batch *batch, uint32_t run_count)
{
	struct node_pull *p = batch->pull;
	struct node_session *s = p->session;
	uint32_t next = 1; /* behind the table */

	if (run_count == 0) {
		batch_end(batch);
		return;
	}
	batch->writing = run_count;
	for (uint32_t i = 0; i < run_count; i++) {
		const struct node_run *run = &batch->runs[i];
		struct pull_write *w = &batch->writes[i];
		const uint32_t place = p->repair != NULL ? run->block - batch->block : next;

		w->batch = batch;
		w->op = (struct store_write){
		    .done = batch_write_done,
		    .kind = run->zeroes ? STORE_ZERO : STORE_DATA,
		    .volume = p->layer,
		    .chunk = p->chunk,
		    .block = run->block,
		    .block_count = run->block_count,
		    .version = run->version,
		    .crcs = &batch->crcs[place],
		    .data = batch->buffer.data + (size_t)place * BLOCK_SIZE,
		    .resync = true,
		};
		if (!run->zeroes)
			next += run->block_count;
		pool_write(s->shard->config.pool, &w->op);
	}
}

static struct pull_batch *pull_free_batch(struct node_pull *p)
{
	for (uint32_t i = 0; i < PULL_BATCHES; i++)
		if (!p->batches[i].busy)
			return &p->batches[i];
	return NULL;
}

void node_pull_advance(struct node_pull *p, block_no_t block)
{
	if (block < p->ranges[p->range].end) {
		p->from = block;
		return;
	}
	do
		p->range++;
	while (p->range < p->range_count && block != UINT32_MAX &&
	       block >= p->ranges[p->range].end);
	p->all_fetched = p->range == p->range_count;
	if (p->all_fetched)
		return;
	p->from = p->ranges[p->range].block;
	if (block != UINT32_MAX)
		p->from = MAX(p->from, block);
}

/* Checks everything of an answer before anything of it is applied; then the range goes on. */
static int batch_check(struct pull_batch *batch, const struct frame *f, uint32_t *ret_run_count)
{
	struct node_pull *p = batch->pull;
	const struct node_session *s = p->session;
	int rc;

	if (f->payload_size % BLOCK_SIZE != 0)
		return -E_BAD_FRAME;
	if ((f->flags & FRAME_F_MORE) != 0 && (f->block <= p->from || f->block >= s->chunk_blocks))
		return -E_BAD_FRAME;
	if (!crc32c_blocks_match(batch->buffer.data, f->crc_count, f->crcs))
		return -E_BAD_CRC;
	if (p->repair != NULL)
		return node_repair_take(batch, f, ret_run_count);
	rc = node_run_table_decode(batch->buffer.data, f->payload_size, s->chunk_blocks,
				   batch->runs, ret_run_count);
	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < *ret_run_count; i++)
		if (batch->runs[i].version <= p->above ||
		    (!p->exact && version_generation(batch->runs[i].version) > s->generation))
			return -E_BAD_FRAME;
	node_pull_advance(p, (f->flags & FRAME_F_MORE) != 0 ? f->block : UINT32_MAX);
	return 0;
}

/* An answer of the source. The payload is in rx_buffer, or must be copied. */
static int pull_take_answer(struct node_pull *p, const struct frame *f)
{
	struct node_shard *shard = p->session->shard;
	struct pull_batch *batch = pull_free_batch(p);
	uint32_t run_count;
	int rc;

	if (f->op != p->send.frame.op || !p->fetching || f->request_id != p->fetch_id ||
	    (f->flags & FRAME_F_REPLY) == 0 || batch == NULL)
		return -E_BAD_FRAME;
	p->fetching = false;
	reactor_timer_cancel(shard_reactor(shard), &p->stall_timer);
	/* A device of the source has failed: not one of ours, which is what the host would read. */
	if (f->status != 0)
		return f->status == E_DEVICE ? -EIO : -f->status;
	if (f->payload_size == 0)
		return -E_BAD_FRAME;
	pull_count(p, f->payload_size);
	pull_tell(p);
	rc = node_session_check_now(p->session);
	if (rc == 0 && permit_find_layer(&p->session->permit, p->layer) == NULL)
		rc = -E_NO_PERMIT; /* it was merged, and is being erased */
	if (rc != 0)
		return rc;
	if (p->rx_buffer.data != NULL) {
		batch->buffer = p->rx_buffer;
		p->rx_buffer = (struct node_buffer){0};
	} else {
		batch->buffer = node_buffers_get(&shard->rx_memory, f->payload_size);
		if (batch->buffer.data == NULL)
			return -ENOBUFS;
		memcpy(batch->buffer.data, f->payload, f->payload_size);
	}
	batch->busy = true;
	rc = batch_check(batch, f, &run_count);
	if (rc != 0) {
		batch_end(batch);
		return rc;
	}
	memcpy(batch->crcs, f->crcs, f->crc_count * sizeof(batch->crcs[0]));
	batch_apply(batch, run_count);
	return 0;
}

/* -- the connection to the source ------------------------------------------------------------- */

static void source_ready(struct transport_conn *conn, void *arg)
{
	struct node_pull *p = arg;

	(void)conn;
	if (p->state == PULL_CONNECTING)
		p->call_done = true;
	pull_wake(p);
}

static void *source_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct node_pull *p = arg;

	(void)conn;
	if (f->op == FRAME_CONTROL)
		return rpc_rx_buffer(&p->rpc, f);
	if (f->op != p->send.frame.op || !p->fetching || p->rx_buffer.data != NULL)
		return NULL;
	p->rx_buffer = node_buffers_get(&p->session->shard->rx_memory, f->payload_size);
	return p->rx_buffer.data;
}

static void source_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct node_pull *p = arg;
	int rc;

	(void)conn;
	if (f->op == FRAME_CONTROL) {
		rpc_rx(&p->rpc, f);
		return;
	}
	if (p->state == PULL_ENDING)
		return;
	rc = pull_take_answer(p, f);
	if (rc != 0)
		pull_error(p, rc);
	pull_wake(p);
}

static void source_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct node_pull *p = arg;

	(void)conn;
	rpc_closed(&p->rpc);
	p->conn = NULL;
	node_buffers_put(&p->session->shard->rx_memory, &p->rx_buffer);
	pull_error(p, reason != 0 ? reason : -E_DISCONNECTED);
}

static const struct transport_handler source_handler = {
    .ready = source_ready,
    .rx_buffer = source_rx_buffer,
    .rx = source_rx,
    .closed = source_closed,
};

/* The source has nothing to ask of us; what it tells (its gate has closed) comes with the next
 * answer too. */
static void source_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	(void)arg;
	if (request->request_id != 0)
		rpc_fail(rpc, request->request_id, -EOPNOTSUPP, "this side only asks");
}

static void source_called(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			  const char *text)
{
	struct node_pull *p = container_of(call, struct node_pull, call);

	p->calling = false;
	if (status != 0) {
		if (p->status == 0 && text != NULL && text[0] != '\0')
			log_info("node", "pull from %s: %s", p->source, text);
		pull_error(p, status);
		return;
	}
	if (p->state == PULL_GREETING) {
		if (reply->body_case != PAVE__V1__CONTROL__BODY_HELLO_REPLY)
			pull_error(p, -E_BAD_FRAME);
		else if (strcmp(reply->hello_reply->name, p->source) != 0)
			pull_error(p, -E_WRONG_NODE);
		else if (rpc_agree(&p->rpc, reply->hello_reply->version,
				   reply->hello_reply->version) != 0)
			pull_error(p, -E_WIRE_VERSION);
	}
	p->call_done = true;
	pull_wake(p);
}

static void pull_say_hello(struct node_pull *p)
{
	struct node_identity *me = &p->session->shard->config.identity;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;

	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.cluster = (ProtobufCBinaryData){sizeof(me->cluster.bytes), me->cluster.bytes};
	hello.role = (char *)(uintptr_t) "node";
	hello.name = me->name;
	hello.software = (char *)(uintptr_t) "pave-node " PAVE_VERSION;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message.hello = &hello;
	p->calling = true;
	rpc_call_start(&p->rpc, &p->call, &message, 0);
}

static Pave__V1__Signed *pull_permit(const struct node_pull *p)
{
	const struct node_session *s = p->session;

	return pave__v1__signed__unpack(NULL, s->permit_packed_size, s->permit_packed);
}

static void pull_open(struct node_pull *p)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Open open = PAVE__V1__OPEN__INIT;

	open.permit = pull_permit(p);
	if (open.permit == NULL) {
		pull_error(p, -ENOMEM);
		return;
	}
	open.chunk_size = (uint64_t)p->session->chunk_blocks * BLOCK_SIZE;
	open.read_only = true;
	message.body_case = PAVE__V1__CONTROL__BODY_OPEN;
	message.open = &open;
	p->calling = true;
	rpc_call_start(&p->rpc, &p->call, &message, 0);
	pave__v1__signed__free_unpacked(open.permit, NULL);
}

/* Whether the source takes it shows in what it answers to the next FETCH. */
static void permit_called(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			  const char *text)
{
	struct node_pull *p = container_of(call, struct node_pull, permit_call);

	(void)status;
	(void)reply;
	(void)text;
	p->permit_calling = false;
	pull_wake(p);
}

static void pull_update_permit(struct node_pull *p)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__PermitUpdate update = PAVE__V1__PERMIT_UPDATE__INIT;

	update.permit = pull_permit(p);
	if (update.permit == NULL) {
		pull_error(p, -ENOMEM);
		return;
	}
	message.body_case = PAVE__V1__CONTROL__BODY_PERMIT_UPDATE;
	message.permit_update = &update;
	p->permit_changed = false;
	p->permit_calling = true;
	rpc_call_start(&p->rpc, &p->permit_call, &message, 0);
	pave__v1__signed__free_unpacked(update.permit, NULL);
}

static void fetch_sent(struct transport_send *send, int status)
{
	struct node_pull *p = container_of(send, struct node_pull, send);

	(void)status;
	p->sending = false;
	pull_wake(p);
}

static void pull_fetch(struct node_pull *p)
{
	p->send.frame = (struct frame){
	    .wire_version = p->rpc.wire_version,
	    .op = FRAME_FETCH,
	    .request_id = p->fetch_id + 1,
	    .chunk = p->chunk,
	    .block = p->from,
	    .block_count = p->ranges[p->range].end - p->from,
	    .version = p->above,
	    .watermark = p->below,
	    .layer = p->layer == p->session->volume->id ? 0 : (uint32_t)p->layer,
	};
	if (p->repair != NULL && !node_repair_ask(p, &p->send.frame))
		return;
	p->fetch_id++;
	p->fetching = true;
	p->sending = true;
	p->send.iov_count = 0;
	p->send.done = fetch_sent;
	pull_expect(p);
	transport_send(p->conn, &p->send);
}

/* -- the course of a pull --------------------------------------------------------------------- */

static void pull_connect(struct node_pull *p)
{
	struct node_shard *shard = p->session->shard;
	int rc;

	p->state = PULL_CONNECTING;
	p->batches = calloc(PULL_BATCHES, sizeof(*p->batches));
	if (p->is_repair)
		p->repair = node_repair_create(p);
	if (p->batches == NULL || (p->is_repair && p->repair == NULL)) {
		pull_error(p, -ENOMEM);
		return;
	}
	for (uint32_t i = 0; i < PULL_BATCHES; i++)
		p->batches[i].pull = p;
	rc = transport_connect(shard->config.transport, p->address, &source_handler, p, &p->conn);
	if (rc != 0) {
		p->conn = NULL;
		pull_error(p, rc);
		return;
	}
	rpc_init(&p->rpc, p->conn, source_handle, p);
}

/* -- exact pulls ------------------------------------------------------------------------------ */

static void erased(struct store_erase_op *op, int status)
{
	struct node_pull *p = container_of(op, struct node_pull, store.erase);

	p->storing = false;
	if (status != 0)
		pull_error(p, status);
	p->call_done = true;
	pull_wake(p);
}

static void sealed(struct store_watermark_op *op, int status)
{
	struct node_pull *p = container_of(op, struct node_pull, store.seal);

	p->storing = false;
	if (status != 0)
		pull_error(p, status);
	p->call_done = true;
	pull_wake(p);
}

static bool is_sealed(const struct node_pull *p)
{
	struct store_chunk_state state;

	return pool_chunks(p->session->shard->config.pool, p->layer, p->chunk, &state, 1) == 1 &&
	       state.chunk == p->chunk && version_is_sealed(state.watermark);
}

/* Somebody else restores the same; or something is under way that was sent before the layer was
 * sealed, of whichever session. Above all this host's own last word: after the erasure it would
 * make what is left pass for a copy that is whole. */
static bool is_busy(const struct node_pull *p)
{
	const struct node_session *s;
	const struct node_pull *o;

	if (node_requests_change(p->session->shard, p->layer, p->chunk))
		return true;
	DL_FOREACH (p->session->shard->sessions, s)
		DL_FOREACH (s->pulls, o)
			if (o != p && o->exact && o->state != PULL_WAITING &&
			    o->layer == p->layer && o->chunk == p->chunk)
				return true;
	return false;
}

static void pull_begin_exact(struct node_pull *p)
{
	p->state = PULL_ERASING;
	if (is_sealed(p)) {
		p->state = PULL_SEALING;
		p->call_done = true;
		pull_wake(p);
		return;
	}
	if (is_busy(p)) {
		pull_error(p, -EBUSY);
		return;
	}
	p->storing = true;
	p->store.erase = (struct store_erase_op){
	    .done = erased,
	    .volume = p->layer,
	    .chunk = p->chunk,
	};
	pool_erase(p->session->shard->config.pool, &p->store.erase);
}

static void pull_seal(struct node_pull *p)
{
	p->state = PULL_SEALING;
	p->storing = true;
	p->store.seal = (struct store_watermark_op){
	    .done = sealed,
	    .volume = p->layer,
	    .chunk = p->chunk,
	    .watermark = version_make(GENERATION_MAX, VERSION_SEQ_MAX),
	};
	pool_watermark(p->session->shard->config.pool, &p->store.seal);
}

static bool pull_applying(const struct node_pull *p)
{
	for (uint32_t i = 0; p->batches != NULL && i < PULL_BATCHES; i++)
		if (p->batches[i].busy)
			return true;
	return false;
}

static void pull_answer(struct node_pull *p)
{
	struct node_session *s = p->session;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__PullReply reply = PAVE__V1__PULL_REPLY__INIT;
	char text[NAME_SIZE_MAX + 160];

	p->answered = true;
	if (p->status == 0) {
		s->shard->stats.pulls++;
		s->shard->stats.pulled_blocks += p->block_count;
		receipt_count_pulled(&s->receipt, &s->permit, s->shard->lease.site_version,
				     p->block_count, reactor_now_ns(shard_reactor(s->shard)),
				     s->shard->lease.driver_clock_ns +
					 (int64_t)reactor_now_ns(shard_reactor(s->shard)));
		reply.blocks = p->block_count;
		message.body_case = PAVE__V1__CONTROL__BODY_PULL_REPLY;
		message.pull_reply = &reply;
		node_session_reply(s, p->request_id, &message);
		return;
	}
	snprintf(text, sizeof(text), "chunk %u could not be pulled from %s%s: %s", p->chunk,
		 p->source[0] != '\0' ? "node " : "nowhere", p->source, err_text(p->status));
	node_session_fail(s, p->request_id, p->status, text);
}

static void pull_start_waiting(struct node_shard *shard)
{
	struct node_pull *p = shard->waiting_pulls;

	if (p == NULL || shard->pulls_active == NODE_PULLS_ACTIVE_MAX)
		return;
	DL_DELETE2(shard->waiting_pulls, p, wait_prev, wait_next);
	shard->pulls_active++;
	if (p->exact)
		pull_begin_exact(p);
	else
		pull_connect(p);
}

static void pull_free(struct node_pull *p)
{
	DL_DELETE(p->session->pulls, p);
	free(p->repair);
	free(p->batches);
	free(p);
}

/* Everything of it has ended: the session, and those that wait, go on. */
static void pull_end(struct node_pull *p)
{
	struct node_session *s = p->session;
	struct node_shard *shard = s->shard;

	reactor_timer_cancel(shard_reactor(shard), &p->stall_timer);
	reactor_timer_cancel(shard_reactor(shard), &p->pace_timer);
	pull_free(p);
	shard->pulls_active--;
	pull_start_waiting(shard);
	node_session_control_end(s);
}

static void pull_tick_ending(struct node_pull *p)
{
	if (p->conn != NULL) {
		transport_close(p->conn);
		return;
	}
	if (pull_applying(p) || p->storing)
		return;
	if (!p->answered)
		pull_answer(p);
	pull_end(p);
}

static void pull_finish(struct node_pull *p)
{
	if (p->status == 0)
		p->status = node_session_check_now(p->session);
	pull_answer(p);
	p->state = PULL_ENDING;
	pull_tick_ending(p);
}

static void pull_tick_fetching(struct node_pull *p)
{
	if (p->permit_changed && !p->permit_calling)
		pull_update_permit(p);
	if (p->all_fetched) {
		if (pull_applying(p))
			return;
		p->status = node_session_check_now(p->session);
		if (p->exact && p->status == 0) {
			pull_seal(p);
			return;
		}
		pull_finish(p);
	} else if (!p->fetching && !p->sending && !p->storing && pull_free_batch(p) != NULL &&
		   !pull_must_wait(p)) {
		pull_fetch(p);
	}
}

static void pull_tick(struct reactor_task *task)
{
	struct node_pull *p = container_of(task, struct node_pull, tick_task);
	const bool go_on = p->call_done;

	p->call_done = false;
	if (p->status != 0 && p->state != PULL_WAITING)
		p->state = PULL_ENDING;
	switch (p->state) {
	case PULL_WAITING:
		break;
	case PULL_ERASING:
		if (go_on && p->source[0] == '\0')
			pull_seal(p);
		else if (go_on)
			pull_connect(p);
		break;
	case PULL_CONNECTING:
		if (go_on) {
			p->state = PULL_GREETING;
			pull_say_hello(p);
		}
		break;
	case PULL_GREETING:
		if (go_on) {
			p->state = PULL_OPENING;
			pull_open(p);
		}
		break;
	case PULL_OPENING:
		if (go_on) {
			p->state = PULL_FETCHING;
			pull_tick_fetching(p);
		}
		break;
	case PULL_FETCHING:
		pull_tick_fetching(p);
		break;
	case PULL_SEALING:
		if (go_on)
			pull_finish(p);
		break;
	case PULL_ENDING:
		pull_tick_ending(p);
		break;
	}
}

static bool ranges_are_good(const Pave__V1__Pull *what, uint32_t chunk_blocks)
{
	block_no_t end = 0;

	if (what->n_ranges % 2 != 0 || what->n_ranges > 2 * PULL_RANGES_MAX)
		return false;
	for (size_t i = 0; i < what->n_ranges; i += 2) {
		const uint32_t block = what->ranges[i], count = what->ranges[i + 1];

		if (block < end || block >= chunk_blocks || count == 0 ||
		    count > chunk_blocks - block)
			return false;
		end = block + count;
	}
	return true;
}

static int pull_check(const struct node_session *s, const Pave__V1__Pull *what, struct error *err)
{
	const struct permit_layer *layer = permit_find_layer(&s->permit, what->layer);

	if (s->peer_is_node || s->read_only)
		return error_set(err, -EROFS, "this session can only read");
	if (!(what->exact && what->source_node[0] == '\0') &&
	    permit_find_node(&s->permit, what->source_node) == NULL)
		return error_set(err, -E_NOT_IN_PERMIT,
				 "node \"%.63s\" is not in the permit: nothing is pulled from it",
				 what->source_node);
	if (what->chunk == UINT32_MAX)
		return error_set(err, -EINVAL, "no chunk has the number %u", what->chunk);
	if (!ranges_are_good(what, s->chunk_blocks))
		return error_set(err, -EINVAL,
				 "a pull has up to %u ranges of a chunk's %u blocks, in order",
				 PULL_RANGES_MAX, s->chunk_blocks);
	if (layer == NULL)
		return error_set(err, -E_NO_PERMIT, "the permit does not name layer %llu",
				 (unsigned long long)what->layer);
	if ((what->exact || what->repair) == layer->open || (what->exact && what->repair))
		return error_set(err, -EINVAL,
				 "layer %llu is %s: a pull that is exact or a repair is for a "
				 "sealed layer, another for an open one",
				 (unsigned long long)layer->id, layer->open ? "open" : "sealed");
	if (strcmp(what->source_node, s->shard->config.identity.name) == 0 ||
	    strlen(what->source_address) >= ADDR_SIZE_MAX)
		return error_set(err, -EINVAL, "a pull needs another node and its address");
	return 0;
}

void node_pull_begin(struct node_session *s, uint64_t request_id, const Pave__V1__Pull *what)
{
	struct node_shard *shard = s->shard;
	const uint32_t range_count = MAX((uint32_t)(what->n_ranges / 2), 1u);
	struct node_pull *p;
	struct error err;
	int rc = pull_check(s, what, &err);

	if (rc != 0) {
		node_session_fail(s, request_id, rc, err.text);
		return;
	}
	if (!node_session_control_begin(s, request_id))
		return;
	p = calloc(1, sizeof(*p) + range_count * sizeof(p->ranges[0]));
	if (p == NULL) {
		node_session_fail(s, request_id, -ENOMEM, "no memory for the pull");
		node_session_control_end(s);
		return;
	}
	p->session = s;
	p->request_id = request_id;
	p->chunk = what->chunk;
	p->layer = permit_find_layer(&s->permit, what->layer)->id;
	p->above = what->exact || what->repair ? 0 : what->above;
	p->below = what->exact || what->repair ? 0 : what->below;
	p->exact = what->exact;
	p->is_repair = what->repair;
	p->range_count = range_count;
	p->ranges[0] = (struct pull_range){0, s->chunk_blocks};
	for (uint32_t i = 0; i < what->n_ranges / 2; i++)
		p->ranges[i] = (struct pull_range){what->ranges[2 * i],
						   what->ranges[2 * i] + what->ranges[2 * i + 1]};
	p->from = p->ranges[0].block;
	p->told_ns = reactor_now_ns(shard_reactor(shard));
	p->fetch_id = PULL_REQUEST_ID;
	snprintf(p->source, sizeof(p->source), "%s", what->source_node);
	snprintf(p->address, sizeof(p->address), "%s", what->source_address);
	p->tick_task.run = pull_tick;
	p->stall_timer.fire = pull_stalled;
	p->pace_timer.fire = pull_paced;
	p->call.done = source_called;
	p->permit_call.done = permit_called;
	DL_APPEND(s->pulls, p);
	DL_APPEND2(shard->waiting_pulls, p, wait_prev, wait_next);
	pull_start_waiting(shard);
}

void node_pull_permit_changed(struct node_session *s)
{
	struct node_pull *p;

	DL_FOREACH (s->pulls, p) {
		if (p->state < PULL_OPENING)
			continue;
		p->permit_changed = true;
		pull_wake(p);
	}
}

void node_pull_abort_all(struct node_session *s)
{
	struct node_pull *p, *tmp;

	DL_FOREACH_SAFE (s->pulls, p, tmp) {
		if (p->state == PULL_WAITING) {
			/* It has begun nothing: it goes at once. */
			DL_DELETE2(s->shard->waiting_pulls, p, wait_prev, wait_next);
			pull_free(p);
			s->controls--;
		} else {
			pull_error(p, -E_DISCONNECTED);
		}
	}
}

void node_pull_destroy_all(struct node_session *s)
{
	struct node_pull *p, *tmp;

	DL_FOREACH_SAFE (s->pulls, p, tmp)
		pull_free(p);
}
