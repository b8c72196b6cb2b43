/* See test_volume_rig.h: the fake nodes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "tests/unit/test_volume_rig.h"

/* -- replies ----------------------------------------------------------------------------------- */

static void reply_sent(struct transport_send *send, int status)
{
	struct fake_reply *r = container_of(send, struct fake_reply, send);

	(void)status;
	free(r->data);
	free(r);
}

static void send_reply(struct fake_reply *r)
{
	if (r->conn->conn == NULL || r->conn->epoch != r->epoch) {
		reply_sent(&r->send, 0);
		return;
	}
	transport_send(r->conn->conn, &r->send);
}

static uint8_t version_of(const struct fake_node *n)
{
	return n->wire_version != 0 ? n->wire_version : FRAME_VERSION;
}

static struct fake_reply *make_reply(struct fake_conn *c, const struct frame *f, int status)
{
	struct fake_reply *r = calloc(1, sizeof(*r));

	ck_assert_ptr_nonnull(r);
	r->node = c->node;
	r->conn = c;
	r->epoch = c->epoch;
	r->send.done = reply_sent;
	r->send.frame = (struct frame){
	    .wire_version = version_of(c->node),
	    .op = f->op,
	    .flags = FRAME_F_REPLY,
	    .request_id = f->request_id,
	    .status = -status,
	};
	ck_assert(c->node->traces || (f->flags & FRAME_F_TRACE) == 0);
	if ((f->flags & FRAME_F_TRACE) != 0 && status == 0) {
		r->send.frame.flags |= FRAME_F_TRACE;
		r->send.frame.chunk = c->node->queue_ns;
		r->send.frame.block = c->node->log_ns;
		r->send.frame.block_count = c->node->answer_ns;
	}
	return r;
}

static void hold(struct fake_reply *r)
{
	struct fake_reply **at = &r->node->held;

	while (*at != NULL)
		at = &(*at)->next;
	*at = r;
}

/* -- data -------------------------------------------------------------------------------------- */

static void store(struct fake_node *n, const struct frame *f)
{
	struct fake_chunk *c = &n->chunks[f->chunk];

	c->watermark = MAX(c->watermark, f->watermark);
	for (uint32_t i = 0; i < f->block_count; i++) {
		struct fake_block *b = &c->blocks[f->block + i];

		if (f->version <= b->version)
			continue;
		b->version = f->version;
		if (n->corrupt_block == (uint64_t)f->chunk * RIG_CHUNK_BLOCKS + f->block + i)
			n->has_corrupt_block = false;
		if (f->op == FRAME_ZERO) {
			free(b->data);
			b->data = NULL;
			continue;
		}
		if (b->data == NULL)
			b->data = malloc(BLOCK_SIZE);
		ck_assert_ptr_nonnull(b->data);
		memcpy(b->data, (const uint8_t *)f->payload + (size_t)i * BLOCK_SIZE, BLOCK_SIZE);
	}
}

void fake_release(struct fake_node *n)
{
	n->hold_writes = n->hold_reads = n->hold_pulls = n->delay_writes = false;
	while (n->held != NULL) {
		struct fake_reply *r = n->held;

		n->held = r->next;
		if (r->delayed) {
			store(n, &r->write);
			n->delayed--;
		}
		send_reply(r);
	}
}

static void delay(struct fake_conn *c, const struct frame *f)
{
	struct fake_reply *r = make_reply(c, f, 0);

	r->delayed = true;
	r->write = *f;
	if (f->payload_size > 0) {
		r->data = malloc(f->payload_size);
		ck_assert_ptr_nonnull(r->data);
		memcpy(r->data, f->payload, f->payload_size);
		r->write.payload = r->data;
	}
	c->node->delayed++;
	hold(r);
}

static void take_write(struct fake_conn *c, const struct frame *f)
{
	struct fake_node *n = c->node;
	int status = n->write_status;
	struct fake_reply *r;

	n->writes++;
	n->payload_bytes += f->payload_size;
	ck_assert_uint_lt(f->chunk, RIG_CHUNKS_MAX);
	ck_assert_uint_le(f->block + f->block_count, RIG_CHUNK_BLOCKS);
	n->settles += (f->flags & FRAME_F_SETTLE) != 0;
	ck_assert_uint_eq(f->wire_version, version_of(n));
	ck_assert(f->wire_version >= FRAME_VERSION_SETTLE || (f->flags & FRAME_F_SETTLE) == 0);
	if (n->full && (f->flags & FRAME_F_SETTLE) == 0)
		status = -ENOSPC;
	if (n->device_failed && f->chunk == 0)
		status = -E_DEVICE;
	if (c->generation < n->generation)
		status = -E_FENCED;
	ck_assert_uint_eq(version_generation(f->version), c->generation);
	if (status == 0 && f->op == FRAME_WRITE && !frame_payload_ok(f))
		status = -E_BAD_CRC;
	if (status == 0 && n->delay_writes) {
		delay(c, f);
		return;
	}
	if (status == 0) {
		store(n, f);
		status = n->write_lies;
	}
	r = make_reply(c, f, status);
	if (n->hold_writes)
		hold(r);
	else
		send_reply(r);
}

static void take_watermark(struct fake_conn *c, const struct frame *f)
{
	struct fake_node *n = c->node;
	struct fake_chunk *chunk = &n->chunks[f->chunk];

	n->watermarks++;
	if (c->generation >= n->generation)
		chunk->watermark = MAX(chunk->watermark, f->watermark);
	send_reply(make_reply(c, f, c->generation < n->generation ? -E_FENCED : 0));
}

static void take_read(struct fake_conn *c, const struct frame *f)
{
	struct fake_node *n = c->node;
	const uint64_t first = (uint64_t)f->chunk * RIG_CHUNK_BLOCKS + f->block;
	struct fake_reply *r;
	int status = n->read_status;

	n->reads++;
	if (c->generation < n->generation)
		status = -E_FENCED;
	if (n->has_corrupt_block && n->corrupt_block >= first &&
	    n->corrupt_block < first + f->block_count)
		status = -E_BAD_CRC;
	r = make_reply(c, f, status);
	if (status == 0) {
		const uint32_t size = f->block_count * BLOCK_SIZE;

		r->data = calloc(1, size);
		ck_assert_ptr_nonnull(r->data);
		for (uint32_t i = 0; i < f->block_count; i++) {
			const struct fake_block *b = &n->chunks[f->chunk].blocks[f->block + i];

			if (b->data != NULL)
				memcpy(r->data + (size_t)i * BLOCK_SIZE, b->data, BLOCK_SIZE);
		}
		frame_payload_crcs(r->data, size, r->crcs);
		if (n->corrupt_reads)
			r->data[17] ^= 4;
		r->send.frame.payload_size = size;
		r->send.frame.crc_count = frame_crc_count(size);
		r->send.frame.crcs = r->crcs;
		r->send.iov[0] = (struct iovec){r->data, size};
		r->send.iov_count = 1;
	}
	if (n->hold_reads)
		hold(r);
	else
		send_reply(r);
}

/* -- control ----------------------------------------------------------------------------------- */

static version_t newest_of(const struct fake_chunk *c)
{
	version_t newest = 0;

	for (uint32_t b = 0; b < RIG_CHUNK_BLOCKS; b++)
		newest = MAX(newest, c->blocks[b].version);
	return newest;
}

static void answer_chunks(struct fake_conn *c, uint64_t id, const Pave__V1__Chunks *ask)
{
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__ChunksReply r = PAVE__V1__CHUNKS_REPLY__INIT;
	Pave__V1__ChunkState items[RIG_CHUNKS_MAX], *list[RIG_CHUNKS_MAX];
	const uint32_t max = ask->max == 0 ? RIG_CHUNKS_MAX : ask->max;
	const bool doubt = ask->layer != 0 && ask->layer == c->node->doubt_layer;
	const uint32_t end = c->node->tells_half ? 1 : RIG_CHUNKS_MAX;

	if (ask->from >= end || (ask->layer != 0 && ask->layer == c->node->silent_layer))
		return;
	for (uint32_t i = ask->from; i < end && r.n_chunks < max; i++) {
		const struct fake_chunk *chunk = &c->node->chunks[i];
		Pave__V1__ChunkState *s = &items[r.n_chunks];

		if (c->shard != chunk_shard(RIG_VOLUME, i, c->node->rig->pd.shards))
			continue;
		if (doubt || (chunk->watermark == 0 && newest_of(chunk) == 0))
			continue;
		pave__v1__chunk_state__init(s);
		s->chunk = i;
		s->watermark = chunk->watermark;
		s->newest = newest_of(chunk);
		s->status = c->node->device_failed && i == 0 ? E_DEVICE : 0;
		list[r.n_chunks++] = s;
	}
	r.chunks = list;
	r.absent_status = c->node->device_failed || doubt ? E_DEVICE : 0;
	r.more = c->node->tells_half;
	r.next = end;
	m.body_case = PAVE__V1__CONTROL__BODY_CHUNKS_REPLY;
	m.chunks_reply = &r;
	rpc_reply(&c->rpc, id, &m);
}

/* Pages of a few runs, so that paging is tested too. */
static void answer_changes(struct fake_conn *c, uint64_t id, const Pave__V1__Changes *ask)
{
	enum { PAGE = 16 };
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__ChangesReply r = PAVE__V1__CHANGES_REPLY__INIT;
	Pave__V1__Change items[PAGE], *list[PAGE];
	const struct fake_chunk *chunk = &c->node->chunks[ask->chunk];

	c->node->changes++;
	r.changes = list;
	for (uint32_t b = ask->from; b < RIG_CHUNK_BLOCKS; b++) {
		Pave__V1__Change *last = r.n_changes > 0 ? &items[r.n_changes - 1] : NULL;
		const struct fake_block *block = &chunk->blocks[b];

		if (block->version <= ask->above)
			continue;
		if (last != NULL && last->block + last->block_count == b &&
		    last->version == block->version && last->zero == (block->data == NULL)) {
			last->block_count++;
			continue;
		}
		if (r.n_changes == PAGE) {
			r.more = true;
			r.next = b;
			break;
		}
		last = &items[r.n_changes];
		pave__v1__change__init(last);
		last->block = b;
		last->block_count = 1;
		last->version = block->version;
		last->zero = block->data == NULL;
		list[r.n_changes++] = last;
	}
	m.body_case = PAVE__V1__CONTROL__BODY_CHANGES_REPLY;
	m.changes_reply = &r;
	rpc_reply(&c->rpc, id, &m);
}

static bool is_in_ranges(const Pave__V1__Pull *ask, block_no_t b)
{
	if (ask->exact)
		return true;
	for (size_t i = 0; i + 1 < ask->n_ranges; i += 2)
		if (b >= ask->ranges[i] && b < ask->ranges[i] + ask->ranges[i + 1])
			return true;
	return false;
}

static void answer_pull(struct fake_conn *c, uint64_t id, const Pave__V1__Pull *ask)
{
	struct fake_node *n = c->node, *source = NULL;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__PullReply r = PAVE__V1__PULL_REPLY__INIT;
	struct fake_chunk *to = &n->chunks[ask->chunk];

	n->pulls++;
	if (n->hold_pulls)
		return;
	for (uint32_t i = 0; i < RIG_ALL_NODES; i++)
		if (strcmp(n->rig->nodes[i].name, ask->source_node) == 0)
			source = &n->rig->nodes[i];
	ck_assert_ptr_nonnull(source);
	ck_assert_str_eq(ask->source_address,
			 c->shard == 0 ? source->name : source->second_address);
	for (uint32_t b = 0; b < RIG_CHUNK_BLOCKS; b++) {
		const struct fake_block *from = &source->chunks[ask->chunk].blocks[b];
		struct fake_block *block = &to->blocks[b];

		if (n->stop_pulls_at != 0 && b >= n->stop_pulls_at)
			return;
		if (!is_in_ranges(ask, b) || from->version <= ask->above ||
		    (ask->below != 0 && from->version >= ask->below))
			continue;
		n->copied_blocks++;
		if (from->version <= block->version)
			continue;
		r.blocks++;
		free(block->data);
		block->data = NULL;
		block->version = from->version;
		if (from->data == NULL)
			continue;
		block->data = malloc(BLOCK_SIZE);
		ck_assert_ptr_nonnull(block->data);
		memcpy(block->data, from->data, BLOCK_SIZE);
	}
	n->pulled_blocks += r.blocks;
	m.body_case = PAVE__V1__CONTROL__BODY_PULL_REPLY;
	m.pull_reply = &r;
	rpc_reply(&c->rpc, id, &m);
}

static void answer_open(struct fake_conn *c, uint64_t id, const Pave__V1__Open *ask)
{
	struct fake_node *n = c->node;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__OpenReply r = PAVE__V1__OPEN_REPLY__INIT;
	Pave__V1__Permit *permit =
	    pave__v1__permit__unpack(NULL, ask->permit->payload.len, ask->permit->payload.data);

	n->opens++;
	ck_assert_ptr_nonnull(permit);
	c->generation = permit->generation;
	pave__v1__permit__free_unpacked(permit, NULL);
	if (n->open_status != 0) {
		rpc_fail(&c->rpc, id, n->open_status, "as the test wants it");
		return;
	}
	if (n->delayed > 0) {
		rpc_fail(&c->rpc, id, -E_LIMIT, "an earlier session is not quiet");
		return;
	}
	if (c->generation < n->generation) {
		rpc_fail(&c->rpc, id, -E_FENCED, "a newer attachment has been here");
		return;
	}
	n->generation = c->generation;
	r.generation = n->generation;
	m.body_case = PAVE__V1__CONTROL__BODY_OPEN_REPLY;
	m.open_reply = &r;
	rpc_reply(&c->rpc, id, &m);
}

static void node_handle(struct rpc *rpc, const struct rpc_request *request, void *arg)
{
	struct fake_conn *c = arg;
	const Pave__V1__Control *ask = request->message;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__HelloReply hello = PAVE__V1__HELLO_REPLY__INIT;
	Pave__V1__Empty empty = PAVE__V1__EMPTY__INIT;
	const uint64_t id = request->request_id;

	switch (ask->body_case) {
	case PAVE__V1__CONTROL__BODY_HELLO:
		hello.version = version_of(c->node);
		hello.name = (char *)(uintptr_t)c->node->name;
		hello.inflight_max = 64;
		hello.traces = c->node->traces;
		m.body_case = PAVE__V1__CONTROL__BODY_HELLO_REPLY;
		m.hello_reply = &hello;
		rpc_reply(rpc, id, &m);
		break;
	case PAVE__V1__CONTROL__BODY_OPEN:
		answer_open(c, id, ask->open);
		break;
	case PAVE__V1__CONTROL__BODY_PERMIT_UPDATE:
		c->node->updates++;
		m.body_case = PAVE__V1__CONTROL__BODY_EMPTY;
		m.empty = &empty;
		rpc_reply(rpc, id, &m);
		break;
	case PAVE__V1__CONTROL__BODY_CHUNKS:
		if (!c->node->silent_chunks)
			answer_chunks(c, id, ask->chunks);
		break;
	case PAVE__V1__CONTROL__BODY_CHANGES:
		answer_changes(c, id, ask->changes);
		break;
	case PAVE__V1__CONTROL__BODY_PULL:
		answer_pull(c, id, ask->pull);
		break;
	default:
		ck_abort_msg("a node is asked something odd");
	}
}

/* -- connections ------------------------------------------------------------------------------- */

static void *node_rx_buffer(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct fake_conn *c = arg;

	(void)conn;
	if (f->op == FRAME_CONTROL)
		return rpc_rx_buffer(&c->rpc, f);
	free(c->rx);
	c->rx = aligned_alloc(BLOCK_SIZE, f->payload_size);
	return c->rx;
}

static void node_rx(struct transport_conn *conn, const struct frame *f, void *arg)
{
	struct fake_conn *c = arg;

	(void)conn;
	if (f->op != FRAME_CONTROL)
		ck_assert_uint_eq(c->shard,
				  chunk_shard(RIG_VOLUME, f->chunk, c->node->rig->pd.shards));
	switch (f->op) {
	case FRAME_CONTROL:
		rpc_rx(&c->rpc, f);
		break;
	case FRAME_WRITE:
	case FRAME_ZERO:
		take_write(c, f);
		break;
	case FRAME_WATERMARK:
		take_watermark(c, f);
		break;
	case FRAME_READ:
		take_read(c, f);
		break;
	default:
		ck_abort_msg("an odd frame");
	}
}

static void node_closed(struct transport_conn *conn, int reason, void *arg)
{
	struct fake_conn *c = arg;

	(void)conn;
	(void)reason;
	rpc_closed(&c->rpc);
	free(c->rx);
	c->rx = NULL;
	c->conn = NULL;
	c->generation = 0;
}

static const struct transport_handler node_handler = {
    .rx_buffer = node_rx_buffer, .rx = node_rx, .closed = node_closed};

static void accept_for(struct fake_node *n, struct transport_conn *conn, uint32_t shard)
{
	n->connects++;
	for (uint32_t i = 0; i < RIG_CONNS; i++) {
		struct fake_conn *c = &n->conns[i];

		if (c->conn != NULL)
			continue;
		c->node = n;
		c->conn = conn;
		c->shard = shard;
		c->epoch = ++n->epochs;
		conn->handler = &node_handler;
		conn->arg = c;
		rpc_init(&c->rpc, conn, node_handle, c);
		return;
	}
	ck_abort_msg("too many connections to a node");
}

static void node_accepted(struct transport_conn *conn, void *arg)
{
	accept_for(arg, conn, 0);
}

static void node_accepted_second(struct transport_conn *conn, void *arg)
{
	accept_for(arg, conn, 1);
}

void fake_start(struct fake_node *n)
{
	struct error err;

	sim_process_start(n->process);
	n->transport = sim_transport_create(n->process);
	ck_assert_int_eq(
	    transport_listen(n->transport, n->name, node_accepted, n, &n->listener, &err), 0);
	ck_assert_int_eq(transport_listen(n->transport, n->second_address, node_accepted_second, n,
					  &n->second_listener, &err),
			 0);
}

void fake_crash(struct fake_node *n)
{
	if (!n->process->alive)
		return;
	sim_process_crash(n->process, SIM_KILL);
	while (n->held != NULL) {
		struct fake_reply *r = n->held;

		n->held = r->next;
		free(r->data);
		free(r);
	}
	n->delayed = 0;
	for (uint32_t i = 0; i < RIG_CONNS; i++) {
		free(n->conns[i].rx);
		n->conns[i] = (struct fake_conn){0};
	}
}

void fake_tell_damage(struct fake_node *n, uint32_t chunk, uint32_t block, uint32_t block_count)
{
	Pave__V1__Control message = PAVE__V1__CONTROL__INIT;
	Pave__V1__Damage damage = PAVE__V1__DAMAGE__INIT;
	Pave__V1__DamagedRange range = PAVE__V1__DAMAGED_RANGE__INIT;
	Pave__V1__DamagedRange *list = &range;

	range.chunk = chunk;
	range.block = block;
	range.block_count = block_count;
	damage.ranges = &list;
	damage.n_ranges = 1;
	message.body_case = PAVE__V1__CONTROL__BODY_DAMAGE;
	message.damage = &damage;
	for (uint32_t i = 0; i < RIG_CONNS; i++)
		if (n->conns[i].conn != NULL)
			rpc_notify(&n->conns[i].rpc, &message);
}
