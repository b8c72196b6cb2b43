/* node data requests: WRITE, ZERO, READ, WATERMARK; and the pool of requests. See shard.h.
 *
 * INVARIANTS
 *  1. Nothing is stored of a request that was refused: every check comes before store_write.
 *  2. No request is answered with 0 after its session's gate has closed, though it may have been
 *     carried out: then the answer is the refusal.
 *  3. Requests come from slabs that are allocated at Hello; payloads from the shard's memory. So no
 *     request allocates.
 *
 * Happy path: node_data_rx takes a request, checks (gate, range, version, CRCs), hands it to the
 * store; the store's done checks the gate again and sends the answer; its send's done gives all
 * back.
 *
 * Failure modes: a session that exceeds what it was told at Hello is ended; so is one whose payload
 * finds no memory. A read without memory waits in the shard's queue, in order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/node/shard.h"

#define REQUESTS_SLAB 64u

struct request_slab {
	struct request_slab *next;
	struct node_request requests[REQUESTS_SLAB];
};

/* -- the pool --------------------------------------------------------------------------------- */

static int requests_grow(struct node_shard *shard)
{
	struct request_slab *slab = calloc(1, sizeof(*slab));

	if (slab == NULL)
		return -ENOMEM;
	slab->next = shard->request_slabs;
	shard->request_slabs = slab;
	for (uint32_t i = 0; i < REQUESTS_SLAB; i++) {
		slab->requests[i].next = shard->free_requests;
		shard->free_requests = &slab->requests[i];
	}
	shard->request_count += REQUESTS_SLAB;
	return 0;
}

int node_requests_reserve(struct node_shard *shard, struct node_session *s)
{
	/* What every session that may still come is sure to get is set aside first. */
	const uint32_t least = NODE_INFLIGHT_MIN + NODE_INFLIGHT_MIN / 4;
	const uint32_t others = (NODE_SESSIONS_MAX - shard->session_count) * least;
	const uint32_t left = NODE_REQUESTS_MAX - shard->reserved;
	const uint32_t spare = left > others + least ? left - others - least : 0;

	PRE(s->reserved == 0);
	s->inflight_max = MIN(NODE_INFLIGHT_MIN + spare / 4, NODE_INFLIGHT_MAX);
	/* A quarter more than it is told: it may hear an answer, and ask again, before we hear that
	 * the answer was sent. */
	s->reserved = s->inflight_max + s->inflight_max / 4;
	shard->reserved += s->reserved;
	INVARIANT(shard->reserved <= NODE_REQUESTS_MAX);
	while (shard->request_count < shard->reserved)
		if (requests_grow(shard) != 0) {
			node_requests_unreserve(shard, s);
			return -ENOMEM;
		}
	return 0;
}

void node_requests_unreserve(struct node_shard *shard, struct node_session *s)
{
	PRE(s->inflight == 0);
	shard->reserved -= s->reserved;
	s->reserved = 0;
}

void node_requests_free(struct node_shard *shard)
{
	struct request_slab *slab = shard->request_slabs;

	while (slab != NULL) {
		struct request_slab *next = slab->next;

		free(slab);
		slab = next;
	}
	shard->request_slabs = NULL;
}

static struct node_request *request_take(struct node_session *s, const struct frame *f)
{
	struct node_shard *shard = s->shard;
	struct node_request *q = shard->free_requests;

	INVARIANT(q != NULL);
	shard->free_requests = q->next;
	s->inflight++;
	q->next = NULL;
	q->session = s;
	q->op = f->op;
	q->ask = *f;
	q->buffer = (struct node_buffer){0};
	q->is_tx = false;
	q->received_ns = reactor_now_ns(shard_reactor(shard));
	return q;
}

static void request_give_back(struct node_request *q)
{
	struct node_session *s = q->session;
	struct node_shard *shard = s->shard;

	if (q->is_tx)
		s->tx_bytes -= node_buffer_size(&q->buffer);
	else
		s->rx_bytes -= node_buffer_size(&q->buffer);
	node_buffers_put(q->is_tx ? &shard->tx_memory : &shard->rx_memory, &q->buffer);
	if (shard->waiting != NULL)
		node_requests_wake(shard);
	q->session = NULL;
	q->next = shard->free_requests;
	shard->free_requests = q;
	s->inflight--;
	node_session_release(s);
}

bool node_requests_change(const struct node_shard *shard, volume_id_t layer, chunk_no_t chunk)
{
	for (const struct request_slab *slab = shard->request_slabs; slab != NULL;
	     slab = slab->next)
		for (uint32_t i = 0; i < REQUESTS_SLAB; i++) {
			const struct node_request *q = &slab->requests[i];

			if (q->session != NULL && q->layer == layer && q->ask.chunk == chunk &&
			    (q->op == FRAME_WRITE || q->op == FRAME_ZERO ||
			     q->op == FRAME_WATERMARK))
				return true;
		}
	return false;
}

static void request_sent(struct transport_send *send, int status)
{
	(void)status;
	request_give_back(container_of(send, struct node_request, send));
}

static void count_answer(struct node_stats *stats, const struct node_request *q, int status)
{
	if (status == 0 && (q->op == FRAME_WRITE || q->op == FRAME_ZERO))
		stats->writes++;
	else if (status == 0 && q->op == FRAME_READ)
		stats->reads++;
	else if (status == -E_FENCED)
		stats->refused_fence++;
	else if (status == -EINVAL || status == -EROFS)
		stats->refused_invalid++;
}

static uint32_t clip(uint64_t ns)
{
	return ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

/* How long it took here, into the fields that an answer leaves free. done_ns: the turn's time, at
 * which the store was done. */
static void tell_times(struct node_request *q, struct frame *f)
{
	struct reactor *r = shard_reactor(q->session->shard);
	const uint64_t done_ns = q->done_ns;
	uint64_t begun_ns = q->op == FRAME_READ ? q->begun_ns : store_write_begun_ns(&q->u.write);

	reactor_refresh(r);
	begun_ns = MIN(MAX(begun_ns, q->received_ns), done_ns);
	f->flags |= FRAME_F_TRACE;
	f->chunk = clip(begun_ns - q->received_ns);
	f->block = clip(done_ns - begun_ns);
	f->block_count = clip(reactor_now_ns(r) - done_ns);
}

void node_request_finish(struct node_request *q, int status)
{
	struct node_session *s = q->session;
	struct transport_send *send = &q->send;

	PRE(status <= 0 && -status <= FRAME_STATUS_MAX);
	count_answer(&s->shard->stats, q, status);
	if (s->conn == NULL || s->closing) {
		request_give_back(q);
		return;
	}
	send->frame = (struct frame){
	    .wire_version = s->rpc.wire_version,
	    .op = q->op,
	    .flags = FRAME_F_REPLY,
	    .request_id = q->ask.request_id,
	    .status = -status,
	};
	PROBE(node_answer, q->ask.request_id, q->op, status);
	if (status == 0 && (q->ask.flags & FRAME_F_TRACE) != 0)
		tell_times(q, &send->frame);
	send->iov_count = 0;
	send->done = request_sent;
	if (status == 0 && q->op == FRAME_READ) {
		send->frame.payload_size = q->ask.block_count * BLOCK_SIZE;
	} else if (status == 0 && q->op == FRAME_FETCH) {
		/* fetch.c has put its answer into ask. */
		send->frame.flags |= q->ask.flags;
		send->frame.block = q->ask.block;
		send->frame.payload_size = q->ask.payload_size;
	}
	if (send->frame.payload_size != 0) {
		send->frame.crc_count = frame_crc_count(send->frame.payload_size);
		send->frame.crcs = q->crcs;
		send->iov[0] = (struct iovec){q->buffer.data, send->frame.payload_size};
		send->iov_count = 1;
	}
	transport_send(s->conn, send);
}

/* -- carrying out ----------------------------------------------------------------------------- */

/* For the receipt: what is acknowledged. */
static void count_write(struct node_request *q)
{
	struct node_session *s = q->session;
	struct reactor *r = shard_reactor(s->shard);

	receipt_count(&s->receipt, &s->permit, s->shard->lease.site_version, q->op,
		      (q->ask.flags & FRAME_F_DISCARD) != 0, q->ask.version, q->ask.chunk,
		      q->ask.block, q->ask.block_count, q->op == FRAME_WRITE ? q->crcs : NULL,
		      reactor_now_ns(r),
		      s->shard->lease.driver_clock_ns + (int64_t)reactor_now_ns(r));
}

/* What another node restores or repairs its copy of a sealed layer from: a copy with the last word,
 * still. One that was erased since the host chose it would pass for a copy that holds nothing. */
static int check_source(const struct node_request *q)
{
	const struct node_session *s = q->session;
	const struct permit_layer *layer = permit_find_layer(&s->permit, q->layer);
	struct store_chunk_state state;

	if (layer == NULL || layer->open)
		return 0;
	if (pool_chunks(s->shard->config.pool, q->layer, q->ask.chunk, &state, 1) == 1 &&
	    state.chunk == q->ask.chunk && version_is_sealed(state.watermark))
		return 0;
	return -E_STALE_REPLICA;
}

void node_request_complete(struct node_request *q, int status)
{
	int why;

	if (status == 0 && q->session->peer_is_node)
		status = check_source(q);
	q->done_ns = reactor_now_ns(shard_reactor(q->session->shard));
	why = node_session_check_now(q->session);
	if (status == 0 && why != 0) {
		q->session->shard->stats.refused_late++;
		status = why;
	}
	if (status == 0 && (q->op == FRAME_WRITE || q->op == FRAME_ZERO))
		count_write(q);
	node_request_finish(q, status);
}

static void write_done(struct store_write *op, int status)
{
	node_request_complete(container_of(op, struct node_request, u.write), status);
}

static void watermark_done(struct store_watermark_op *op, int status)
{
	node_request_complete(container_of(op, struct node_request, u.watermark), status);
}

static void read_done(struct store_read *op, int status)
{
	struct node_request *q = container_of(op, struct node_request, u.read);

	if (status == -E_BAD_CRC)
		log_warn("node", "volume %llu chunk %u block %u does not check on the disk",
			 (unsigned long long)op->volume, op->chunk, op->block + op->bad_block);
	node_request_complete(q, status);
}

/* payload: what the transport lends while the request is received; or NULL, when all is the
 * request's. */
static void write_begin(struct node_request *q, const void *payload)
{
	struct node_session *s = q->session;
	struct store_write *w = &q->u.write;

	*w = (struct store_write){
	    .done = write_done,
	    .kind = q->op == FRAME_WRITE		    ? STORE_DATA
		    : (q->ask.flags & FRAME_F_DISCARD) != 0 ? STORE_DISCARD
							    : STORE_ZERO,
	    .volume = q->layer,
	    .owner = s->volume->id,
	    .chunk = q->ask.chunk,
	    .block = q->ask.block,
	    .block_count = q->ask.block_count,
	    .version = q->ask.version,
	    .watermark = q->ask.watermark,
	    .crcs = q->crcs,
	    .data = payload != NULL ? payload : q->buffer.data,
	    .copy = payload != NULL ? q->buffer.data : NULL,
	    .trace = (q->ask.flags & FRAME_F_TRACE) != 0,
	    .settles = (q->ask.flags & FRAME_F_SETTLE) != 0,
	};
	pool_write(s->shard->config.pool, w);
	if (payload != NULL)
		store_write_keep(w, payload);
}

/* False: it must wait for others to end. */
static bool read_begin(struct node_request *q)
{
	if (q->session->permit.layer_count > 1)
		return node_layered_begin(q);
	q->u.read = (struct store_read){
	    .done = read_done,
	    .volume = q->layer,
	    .chunk = q->ask.chunk,
	    .block = q->ask.block,
	    .block_count = q->ask.block_count,
	    .data = q->buffer.data,
	    .ret_crcs = q->crcs,
	};
	q->begun_ns = reactor_now_ns(shard_reactor(q->session->shard));
	pool_read(q->session->shard->config.pool, &q->u.read);
	return true;
}

static void watermark_begin(struct node_request *q)
{
	q->u.watermark = (struct store_watermark_op){
	    .done = watermark_done,
	    .volume = q->layer,
	    .chunk = q->ask.chunk,
	    .watermark = q->ask.watermark,
	};
	pool_watermark(q->session->shard->config.pool, &q->u.watermark);
}

/* -- waiting for memory ----------------------------------------------------------------------- */

enum start { STARTED, SESSION_IS_FULL, SHARD_IS_FULL };

static enum start request_start(struct node_request *q)
{
	struct node_session *s = q->session;
	struct node_shard *shard = s->shard;
	const uint32_t size = q->op == FRAME_FETCH ? IO_SIZE_MAX : q->ask.block_count * BLOCK_SIZE;

	if (s->tx_bytes + size > NODE_TX_SESSION_MAX)
		return SESSION_IS_FULL;
	q->buffer = node_buffers_get(&shard->tx_memory, size);
	if (q->buffer.data == NULL)
		return SHARD_IS_FULL;
	if (!(q->op == FRAME_READ ? read_begin(q) : node_fetch_begin(q))) {
		node_buffers_put(&shard->tx_memory, &q->buffer);
		return SHARD_IS_FULL;
	}
	q->is_tx = true;
	s->tx_bytes += node_buffer_size(&q->buffer);
	return STARTED;
}

/* Reads and fetches go through here: those of a session in order, sessions by turns. */
static void request_queue(struct node_request *q)
{
	struct node_session *s = q->session;
	struct node_shard *shard = s->shard;

	if (s->waiting == NULL && !shard->short_of_memory) {
		const enum start start = request_start(q);

		if (start == STARTED)
			return;
		shard->short_of_memory = start == SHARD_IS_FULL;
	}
	shard->stats.waited_memory++;
	q->next = NULL;
	if (s->waiting != NULL) {
		s->waiting_last->next = q;
	} else {
		s->waiting = q;
		DL_APPEND2(shard->waiting, s, waiting_prev, waiting_next);
	}
	s->waiting_last = q;
}

/* Starts, or gives up, the first one of s that waits. */
static enum start serve_one(struct node_session *s)
{
	struct node_shard *shard = s->shard;
	struct node_request *q = s->waiting;
	struct node_request *next = q->next;
	const bool gone = s->conn == NULL;
	const enum start start = gone ? STARTED : request_start(q);

	if (start != STARTED)
		return start;
	s->waiting = next;
	DL_DELETE2(shard->waiting, s, waiting_prev, waiting_next);
	if (next != NULL)
		DL_APPEND2(shard->waiting, s, waiting_prev, waiting_next);
	if (gone)
		node_request_finish(q, -E_DISCONNECTED); /* s may be gone with it */
	return STARTED;
}

static void serve_waiting(struct reactor_task *task)
{
	struct node_shard *shard = container_of(task, struct node_shard, serve_task);
	struct node_session *s = shard->waiting;

	shard->short_of_memory = false;
	while (s != NULL) {
		struct node_session *next = s->waiting_next;
		const enum start start = serve_one(s);

		if (start == SHARD_IS_FULL) {
			shard->short_of_memory = true;
			return;
		}
		/* One that was started has gone to the end of the list, which comes again. */
		s = start == STARTED && next == NULL ? shard->waiting : next;
	}
}

void node_requests_wake(struct node_shard *shard)
{
	shard->serve_task.run = serve_waiting;
	reactor_defer(shard_reactor(shard), &shard->serve_task);
}

/* -- arrival ---------------------------------------------------------------------------------- */

static int check_version(const struct node_session *s, version_t version)
{
	const generation_t generation = version_generation(version);

	if (generation < s->generation)
		return -E_FENCED;
	/* A version of a generation that does not exist yet would outlive every write to come. */
	return generation == s->generation ? 0 : -EINVAL;
}

static int check_change(struct node_session *s, const struct frame *f,
			const struct permit_layer *layer)
{
	int rc;

	if (s->peer_is_node || s->read_only || !layer->open)
		return -EROFS;
	if (version_generation(f->watermark) > s->generation)
		return -EINVAL;
	if (f->op == FRAME_WATERMARK)
		return 0;
	rc = check_version(s, f->version);
	if (rc != 0)
		return rc;
	/* The index's page comes while the payload is checked and copied. */
	pool_look_ahead(s->shard->config.pool, layer->id, f->chunk, f->block, STORE_AHEAD_PLACE);
	if (f->op == FRAME_WRITE && !crc32c_blocks_match(f->payload, f->block_count, f->crcs)) {
		s->shard->stats.refused_crc++;
		return -E_BAD_CRC;
	}
	return 0;
}

/* 0, or why f is refused. */
static int check_request(struct node_session *s, const struct frame *f, volume_id_t *ret_layer)
{
	const int why = node_session_check(s);
	const struct permit_layer *layer;

	if (why != 0) {
		if (why != -E_FENCED)
			s->shard->stats.refused_gate++;
		return why;
	}
	/* The host may have a newer permit, which this node has refused. */
	layer = permit_find_layer(&s->permit, f->layer);
	if (layer == NULL)
		return -E_NO_PERMIT;
	*ret_layer = layer->id;
	/* No chunk has this number: it stands for all of them, or for what belongs to none. */
	if (f->chunk == UINT32_MAX)
		return -EINVAL;
	if (f->op == FRAME_FETCH)
		return f->block < s->chunk_blocks ? 0 : -EINVAL;
	if (f->op != FRAME_WATERMARK &&
	    (f->block >= s->chunk_blocks || f->block_count > s->chunk_blocks - f->block))
		return -EINVAL;
	return f->op == FRAME_READ ? 0 : check_change(s, f, layer);
}

/* The payload becomes the request's: the memory that it was received into; or, for the transport
 * takes its own back, and the store may keep a write waiting, there is memory for a copy. */
static bool take_payload(struct node_request *q, const struct frame *f)
{
	struct node_session *s = q->session;

	/* Its size was counted when it was lent. */
	if (s->rx_buffer.data != NULL) {
		PRE(f->payload == s->rx_buffer.data);
		q->buffer = s->rx_buffer;
		s->rx_buffer = (struct node_buffer){0};
		return true;
	}
	if (f->payload_size == 0)
		return true;
	q->buffer = node_session_rx_memory(s, f->payload_size);
	return q->buffer.data != NULL;
}

static void session_drop(struct node_session *s, const char *why)
{
	s->shard->stats.dropped++;
	log_warn("node", "ended the session of %s (%s): %s", s->peer[0] != '\0' ? s->peer : "?",
		 s->conn->peer.address, why);
	node_session_close(s);
}

void node_data_rx(struct node_session *s, const struct frame *f)
{
	volume_id_t layer = 0;
	struct node_request *q;
	int why;

	if (s->state == SESSION_CONNECTED || (f->flags & FRAME_F_REPLY) != 0) {
		session_drop(s, "a data frame that nobody asked for");
		return;
	}
	if (s->inflight == s->reserved) {
		session_drop(s, "more requests in flight than it was told at Hello");
		return;
	}
	PROBE(node_receive, f->request_id, f->op, f->block);
	why = check_request(s, f, &layer);
	q = request_take(s, f);
	q->layer = layer;
	if (f->op == FRAME_WRITE && why == 0)
		pool_look_ahead(s->shard->config.pool, layer, f->chunk, f->block, STORE_AHEAD_PAGE);
	if (f->op == FRAME_WRITE && (why == 0 || s->rx_buffer.data != NULL) &&
	    !take_payload(q, f)) {
		session_drop(s, "no memory for what it writes");
		why = -ENOBUFS;
	}
	if (why != 0) {
		node_request_finish(q, why);
		return;
	}
	switch (f->op) {
	case FRAME_WRITE:
		memcpy(q->crcs, f->crcs, f->crc_count * sizeof(q->crcs[0]));
		write_begin(q, f->payload != q->buffer.data ? f->payload : NULL);
		break;
	case FRAME_ZERO:
		write_begin(q, NULL);
		break;
	case FRAME_WATERMARK:
		watermark_begin(q);
		break;
	default: /* READ, FETCH: the decoder lets no other through */
		request_queue(q);
		break;
	}
}
