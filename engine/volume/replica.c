/* replica: the connection's life. See replica.h. Requests are in request.c.
 *
 * Happy path: connect, Hello, Open under the permit in force, Chunks page by page, READY; then what
 * waited unsent leaves in order.
 *
 * Failure modes: whatever goes wrong before READY, a request that stays unanswered for
 * VREPLICA_STALL_MS, or a refusal by the node's gate ends the connection, and it is tried again
 * after the back-off. E_FENCED ends the attachment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"

#define SCAN_MAX	16384u
#define CALL_TIMEOUT_MS 5000u
#define LATENCY_FORGET	64u /* of what is left, at each tick */

static void connect_now(struct vreplica *r);
static void scan(struct vreplica *r);
static void scan_next(struct vreplica *r);

static const char *name_of(const struct vreplica *r)
{
	return r->volume->nodes[r->node].name;
}

const char *vreplica_state_name(const struct vreplica *r)
{
	static const char *const names[] = {
	    [VREPLICA_AWAY] = "away",	      [VREPLICA_CONNECTING] = "connecting",
	    [VREPLICA_GREETING] = "greeting", [VREPLICA_OPENING] = "opening",
	    [VREPLICA_SCANNING] = "scanning", [VREPLICA_READY] = "ready",
	};

	return names[r->state];
}

static void arm_retry(struct vreplica *r)
{
	reactor_timer_arm(r->volume->reactor, &r->retry,
			  volume_now(r->volume) + r->backoff_ms * NS_PER_MS);
	r->backoff_ms = MIN(r->backoff_ms * 2, VREPLICA_BACKOFF_MAX_MS);
}

void vreplica_disconnect(struct vreplica *r, int why)
{
	if (why != 0)
		r->why = why;
	if (r->conn == NULL || r->closing)
		return;
	/* Without a reason it is what the owner wants (vreplica_stop), and no news. */
	if (r->state == VREPLICA_READY && why != 0)
		log_info("volume", "%s: disconnects node %s: %s", r->volume->config.name,
			 name_of(r), err_text(why));
	r->closing = true;
	transport_close(r->conn);
}

/* A step of the greeting failed. */
static void step_failed(struct vreplica *r, int status, const char *text)
{
	if (status == -E_DISCONNECTED)
		return; /* closed comes, or has come */
	if (r->why != status)
		log_warn("volume", "%s: node %s (%s) refuses: %s", r->volume->config.name,
			 name_of(r), r->address, text);
	if (status == -E_FENCED)
		volume_end(r->volume, -E_FENCED, text);
	vreplica_disconnect(r, status);
}

/* -- Hello, Open, Chunks ----------------------------------------------------------------------- */

static void became_ready(struct vreplica *r)
{
	log_info("volume", "%s: node %s (%s) is ready, wire version %u", r->volume->config.name,
		 name_of(r), r->address, r->rpc.wire_version);
	r->state = VREPLICA_READY;
	r->why = 0;
	r->tried = true;
	r->overflowed = false;
	r->backoff_ms = VREPLICA_BACKOFF_MIN_MS;
	r->epoch++;
	volume_replica_ready(r->volume, r);
	vreplica_pump(r);
}

static void take_states(struct vreplica *r, const Pave__V1__ChunksReply *reply)
{
	struct volume *v = r->volume;

	for (size_t i = 0; i < reply->n_chunks; i++) {
		const Pave__V1__ChunkState *state = reply->chunks[i];
		struct vchunk *c;
		uint32_t slot;

		if (state->chunk >= v->chunk_count)
			continue;
		if (r->scan_set == NULL) {
			vlayers_take_state(v, r->scan_sealed, r, state->chunk, state->watermark,
					   state->newest);
			if (state->status != 0)
				vlayers_doubt(v, r->scan_sealed, r, state->chunk);
			continue;
		}
		c = &r->scan_set->chunks[state->chunk];
		slot = vchunk_slot_of(c, r);
		if (slot == UINT32_MAX)
			continue;
		c->slots[slot].reported_watermark = state->watermark;
		c->slots[slot].reported_newest = state->newest;
		c->slots[slot].refused_epoch = state->status != 0 ? r->epoch + 1 : 0;
	}
}

/* Of chunks that the node does not list it cannot tell whether it holds them. */
static void refuse_absent(struct vreplica *r)
{
	struct volume *v = r->volume;

	for (uint32_t i = 0; i < v->chunk_count; i++) {
		const uint32_t slot = vchunk_slot_of(&v->chunks[i], r);

		if (slot != UINT32_MAX && r->scan_set != NULL)
			r->scan_set->chunks[i].slots[slot].refused_epoch = r->epoch + 1;
		else if (slot != UINT32_MAX)
			vlayers_doubt(v, r->scan_sealed, r, i);
	}
}

static void scan_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		      const char *text)
{
	struct vreplica *r = container_of(call, struct vreplica, call);

	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_CHUNKS_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0 && reply->chunks_reply->more && reply->chunks_reply->next <= r->scan_from)
		status = -E_BAD_FRAME;
	if (status != 0) {
		step_failed(r, status, text);
		return;
	}
	if (r->scan_from == 0 && reply->chunks_reply->absent_status != 0)
		refuse_absent(r);
	take_states(r, reply->chunks_reply);
	r->scan_from = reply->chunks_reply->next;
	if (reply->chunks_reply->more && r->scan_from < r->volume->chunk_count)
		scan(r);
	else
		scan_next(r);
}

static void scan(struct vreplica *r)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Chunks chunks = PAVE__V1__CHUNKS__INIT;

	chunks.from = r->scan_from;
	chunks.max = SCAN_MAX;
	chunks.layer =
	    r->scan_set != NULL ? r->scan_set->layer : vlayers_id(r->volume, r->scan_sealed);
	message.body_case = PAVE__V1__CONTROL__BODY_CHUNKS;
	message.chunks = &chunks;
	r->call.done = scan_done;
	rpc_call_start(&r->rpc, &r->call, &message, CALL_TIMEOUT_MS);
}

/* What the node will not list it does not hold. */
static void scan_set(struct vreplica *r)
{
	struct vchunk *chunks = r->scan_set->chunks;

	r->scan_from = 0;
	for (uint32_t i = 0; i < r->volume->chunk_count; i++) {
		const uint32_t slot = vchunk_slot_of(&chunks[i], r);

		if (slot == UINT32_MAX)
			continue;
		chunks[i].slots[slot].reported_watermark = 0;
		chunks[i].slots[slot].reported_newest = 0;
		/* A scan that was broken off may have told of a device that is back by now. */
		chunks[i].slots[slot].refused_epoch = 0;
		chunks[i].slots[slot].fresh = true;
	}
	scan(r);
}

static void scan_begin(struct vreplica *r)
{
	r->state = VREPLICA_SCANNING;
	r->scan_set = r->volume->sets;
	r->scan_sealed = 0;
	scan_set(r);
}

/* A layer was scanned: the open ones come first, then those that are sealed. */
static void scan_next(struct vreplica *r)
{
	struct volume *v = r->volume;

	if (r->scan_set != NULL) {
		r->scan_set = r->scan_set->next;
		while (r->scan_set != NULL && r->scan_set->retired)
			r->scan_set = r->scan_set->next;
	} else {
		vlayers_scanned(v, r->scan_sealed++, r);
	}
	if (r->scan_set != NULL) {
		scan_set(r);
	} else if (r->scan_sealed < v->sealed_count) {
		r->scan_from = 0;
		vlayers_scan_begin(v, r->scan_sealed, r);
		scan(r);
	} else {
		became_ready(r);
	}
}

static void open_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		      const char *text)
{
	struct vreplica *r = container_of(call, struct vreplica, call);

	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_OPEN_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0 && reply->open_reply->generation != r->volume->generation) {
		status = -E_FENCED;
		text = "the node has opened the volume under another generation";
	}
	if (status != 0)
		step_failed(r, status, text);
	else
		scan_begin(r);
}

/* Or its volume is only being prepared: then there is a connection, and nothing goes over it. */
static bool is_attached(const struct vreplica *r)
{
	return r->volume->attach.signed_permit != NULL;
}

static void open_volume(struct vreplica *r)
{
	struct volume *v = r->volume;
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Open open = PAVE__V1__OPEN__INIT;

	r->state = VREPLICA_OPENING;
	open.permit = v->attach.signed_permit;
	open.chunk_size = v->chunk_size;
	message.body_case = PAVE__V1__CONTROL__BODY_OPEN;
	message.open = &open;
	r->call.done = open_done;
	rpc_call_start(&r->rpc, &r->call, &message, CALL_TIMEOUT_MS);
}

static void hello_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
		       const char *text)
{
	struct vreplica *r = container_of(call, struct vreplica, call);

	if (status == 0 && reply->body_case != PAVE__V1__CONTROL__BODY_HELLO_REPLY)
		status = -E_BAD_FRAME;
	if (status == 0 &&
	    rpc_agree(&r->rpc, reply->hello_reply->version, reply->hello_reply->version) != 0)
		status = -E_WIRE_VERSION;
	if (status == 0 && strcmp(reply->hello_reply->name, name_of(r)) != 0) {
		status = -E_WRONG_NODE;
		text = "another node answers at this address";
	}
	if (status != 0) {
		step_failed(r, status, text);
		return;
	}
	r->window = VREPLICA_WINDOW_MAX;
	r->traces = reply->hello_reply->traces;
	if (reply->hello_reply->inflight_max != 0)
		r->window = MIN(r->window, reply->hello_reply->inflight_max);
	r->greeted = true;
	if (is_attached(r))
		open_volume(r);
	else
		volume_event(r->volume);
}

static void conn_ready(struct transport_conn *conn, void *arg)
{
	struct vreplica *r = arg;
	const struct uuid *cluster = root_cluster(trust_root(r->volume->config.trust));
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Hello hello = PAVE__V1__HELLO__INIT;
	char role[] = "host", software[] = "pave " PAVE_VERSION;

	(void)conn;
	if (r->closing)
		return;
	r->state = VREPLICA_GREETING;
	hello.version_min = FRAME_VERSION_MIN;
	hello.version_max = FRAME_VERSION;
	hello.cluster.len = sizeof(cluster->bytes);
	hello.cluster.data = (uint8_t *)(uintptr_t)cluster->bytes;
	hello.role = role;
	hello.name = (char *)(uintptr_t)r->volume->config.holder;
	hello.software = software;
	message.body_case = PAVE__V1__CONTROL__BODY_HELLO;
	message.hello = &hello;
	r->call.done = hello_done;
	rpc_call_start(&r->rpc, &r->call, &message, CALL_TIMEOUT_MS);
}

/* -- the connection ---------------------------------------------------------------------------- */

/* What the node has found to be damaged is written again. Ranges that are not the volume's are
 * passed over; what finds no place now is told again. */
static void take_damage(struct vreplica *r, const Pave__V1__Damage *damage)
{
	struct volume *v = r->volume;

	for (size_t i = 0; r->state == VREPLICA_READY && i < damage->n_ranges; i++) {
		const Pave__V1__DamagedRange *d = damage->ranges[i];
		struct vchunk *c = d->chunk < v->chunk_count ? &v->chunks[d->chunk] : NULL;

		if (c == NULL || vchunk_slot_of(c, r) == UINT32_MAX || d->block_count == 0 ||
		    d->block_count > IO_BLOCKS_MAX || d->block >= vchunk_blocks(c) ||
		    d->block_count > vchunk_blocks(c) - d->block)
			continue;
		log_info("volume", "%s: node %s says that chunk %u blocks %u+%u are damaged there",
			 v->config.name, name_of(r), d->chunk, d->block, d->block_count);
		if (d->layer != 0) {
			vlayers_repair(v, r, d->layer, d->chunk, d->block, d->block_count);
			continue;
		}
		/* Of a chunk that nobody has used yet it is repaired when told again. */
		vreconcile_want(c, true);
		vrewrite_repair(c, d->block, d->block_count);
	}
}

/* The node is to erase these chunks. Its question came over this connection, so what was sent over
 * an earlier one is not ours to tell: that session is asked, too, and is silent. */
static void answer_vacate(struct vreplica *r, uint64_t request_id, const Pave__V1__Vacate *vacate)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;
	char text[120];

	for (size_t i = 0; i < vacate->n_chunks; i++) {
		if (!vchunk_uses(r, vacate->chunks[i]))
			continue;
		snprintf(text, sizeof(text), "chunk %u is in use by its host", vacate->chunks[i]);
		rpc_fail(&r->rpc, request_id, -E_IN_USE, text);
		return;
	}
	message.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
	message.empty = &empty;
	rpc_reply(&r->rpc, request_id, &message);
}

static void handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct vreplica *r = arg;
	int why;

	(void)rpc;
	if (request->message->body_case == PAVE__V1__CONTROL__BODY_DAMAGE) {
		take_damage(r, request->message->damage);
		return;
	}
	if (request->message->body_case == PAVE__V1__CONTROL__BODY_PULL_PROGRESS) {
		vresync_progress(r, request->message->pull_progress->chunk,
				 request->message->pull_progress->blocks);
		return;
	}
	if (request->message->body_case == PAVE__V1__CONTROL__BODY_VACATE) {
		answer_vacate(r, request->request_id, request->message->vacate);
		return;
	}
	if (request->message->body_case != PAVE__V1__CONTROL__BODY_GATE_CLOSED) {
		if (request->request_id != 0)
			rpc_fail(&r->rpc, request->request_id, -EOPNOTSUPP,
				 "a host does not answer this kind of message");
		return;
	}
	why = -(int)MIN(request->message->gate_closed->status, (uint32_t)FRAME_STATUS_MAX);
	log_warn("volume", "%s: node %s has closed its gate: %s", r->volume->config.name,
		 name_of(r), err_text(why));
	if (why == -E_FENCED)
		volume_end(r->volume, why, err_text(why));
	vreplica_disconnect(r, why);
}

static void conn_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct vreplica *r = arg;
	const bool was_ready = r->state == VREPLICA_READY;

	(void)conn;
	if (reason != 0)
		r->why = reason;
	if (was_ready && !r->stopped)
		log_info("volume", "%s: node %s is away: %s", r->volume->config.name, name_of(r),
			 err_text(r->why != 0 ? r->why : -E_DISCONNECTED));
	r->state = VREPLICA_AWAY;
	r->closing = r->greeted = false;
	r->conn = NULL;
	r->tried = true;
	rpc_closed(&r->rpc);
	r->permit_calling = r->permit_again = r->held = false;
	vlayers_released(r->volume);
	vrequests_lost(r);
	if (!r->stopped && r->permitted && r->address[0] != '\0')
		arm_retry(r);
	volume_replica_away(r->volume, r);
}

static const struct transport_handler conn_handler = {
    .ready = conn_ready,
    .rx_buffer = vrequests_rx_buffer,
    .rx = vrequests_rx,
    .closed = conn_closed,
};

static void connect_now(struct vreplica *r)
{
	int rc;

	PRE(r->conn == NULL);
	if (r->stopped || !r->permitted || r->address[0] == '\0' ||
	    (!is_attached(r) && !r->volume->attach.prepared))
		return;
	r->state = VREPLICA_CONNECTING;
	rc = transport_connect(r->volume->config.transport, r->address, &conn_handler, r, &r->conn);
	if (rc != 0) {
		r->state = VREPLICA_AWAY;
		r->conn = NULL;
		r->why = rc;
		r->tried = true;
		arm_retry(r);
		return;
	}
	rpc_init(&r->rpc, r->conn, handle, r);
}

static void retry_fire(struct reactor_timer *timer)
{
	struct vreplica *r = container_of(timer, struct vreplica, retry);

	if (r->conn == NULL)
		connect_now(r);
}

void vreplica_set_address(struct vreplica *r, const char *address)
{
	if (strcmp(r->address, address) == 0)
		return;
	snprintf(r->address, sizeof(r->address), "%s", address);
	r->backoff_ms = VREPLICA_BACKOFF_MIN_MS;
	if (r->conn != NULL)
		vreplica_disconnect(r, -E_DISCONNECTED); /* comes back at the new address */
	else
		connect_now(r);
}

/* -- permits ----------------------------------------------------------------------------------- */

static void send_permit(struct vreplica *r);

static void permit_done(struct rpc_call *call, int status, const Pave__V1__Control *reply,
			const char *text)
{
	struct vreplica *r = container_of(call, struct vreplica, permit_call);

	(void)reply;
	r->permit_calling = false;
	if (status != 0) {
		step_failed(r, status, text);
		return;
	}
	if (r->permit_again && r->state >= VREPLICA_SCANNING && !r->closing)
		send_permit(r);
	r->held = false;
	vlayers_released(r->volume);
	vreplica_pump(r);
}

static void send_permit(struct vreplica *r)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__PermitUpdate update = PAVE__V1__PERMIT_UPDATE__INIT;

	r->permit_again = r->permit_calling;
	if (r->permit_calling)
		return;
	r->held = false;
	update.permit = r->volume->attach.signed_permit;
	message.body_case = PAVE__V1__CONTROL__BODY_PERMIT_UPDATE;
	message.permit_update = &update;
	r->permit_call.done = permit_done;
	r->permit_calling = true;
	rpc_call_start(&r->rpc, &r->permit_call, &message, 0);
}

void vreplica_follow_permit(struct vreplica *r)
{
	const bool before = r->followed;

	r->followed = r->permitted;
	if (!r->permitted) {
		/* Not another byte: what is queued is dropped, what is on the wire is given up. */
		reactor_timer_cancel(r->volume->reactor, &r->retry);
		r->tried = true;
		if (before || r->why == 0)
			r->why = -E_NOT_IN_PERMIT;
		if (r->conn != NULL)
			vreplica_disconnect(r, -E_NOT_IN_PERMIT);
		if (before)
			vrequests_forbid(r);
		return;
	}
	if (r->conn == NULL) {
		if (!before) {
			r->backoff_ms = VREPLICA_BACKOFF_MIN_MS;
			connect_now(r);
		}
		return;
	}
	if (r->state == VREPLICA_GREETING && r->greeted && !r->closing && is_attached(r))
		open_volume(r);
	/* Between Open and READY the node has the permit that Open carried; that one is short-lived
	 * too, so it gets the newer one as soon as it may. */
	if (r->state >= VREPLICA_SCANNING && !r->closing)
		send_permit(r);
}

void vreplica_layers_changed(struct vreplica *r)
{
	if (r->conn == NULL)
		return;
	/* What was being scanned is not what there is now. */
	if (r->state != VREPLICA_READY)
		vreplica_disconnect(r, -E_STALE_REPLICA);
	/* Nothing leaves before the permit that names the new layer. */
	r->held = r->permit_calling;
}

/* -- life -------------------------------------------------------------------------------------- */

int vreplica_init(struct vreplica *r, struct volume *v, uint32_t node, uint32_t shard)
{
	*r = (struct vreplica){
	    .volume = v,
	    .node = node,
	    .shard = shard,
	    .backoff_ms = VREPLICA_BACKOFF_MIN_MS,
	    .retry = {.fire = retry_fire},
	};
	return vrequests_init(r);
}

void vreplica_deinit(struct vreplica *r)
{
	reactor_timer_cancel(r->volume->reactor, &r->retry);
	free(r->table);
	free(r->free_places);
	r->table = NULL;
	r->free_places = NULL;
}

void vreplica_stop(struct vreplica *r)
{
	r->stopped = true;
	reactor_timer_cancel(r->volume->reactor, &r->retry);
	vreplica_disconnect(r, 0);
}

void vreplica_note_latency(struct vreplica *r, uint64_t took_ns)
{
	r->latency_ns = r->latency_ns == 0 ? took_ns : (r->latency_ns * 7 + took_ns) / 8;
	r->measured = true;
}

void vreplica_tick(struct vreplica *r, uint64_t now_ns)
{
	const struct vrequest *oldest = r->sent.head;

	/* One that was slow is asked nothing, so nothing tells that it is slow no more: it gets
	 * another chance after some seconds. */
	if (!r->measured)
		r->latency_ns -= r->latency_ns / LATENCY_FORGET;
	r->measured = false;
	if (r->state == VREPLICA_READY && oldest != NULL && !r->closing &&
	    now_ns > oldest->sent_ns + VREPLICA_STALL_MS * NS_PER_MS)
		vreplica_disconnect(r, -ETIMEDOUT);
	vreplica_pump(r);
}
