/* NBD requests: each becomes one or more parts, each part one volume operation (nbd_private.h has
 * the states of a part).
 *
 * Happy path: request_get -> parts -> volume_submit -> part_done -> the answer is queued ->
 * request_put. Invariants:
 *  1. A request is answered exactly once, when all of its parts exist and none is pending.
 *  2. A part that locks a range holds the lock from before its first read until its write is done;
 *     when it begins, no change of these blocks is under way.
 *  3. Whoever waits for room holds none, but for one read that needs several parts (`large`); a
 * write holds one part while its payload comes in, and what a part changes is done with when the
 * volume has done it. So what is held always comes free. Failure: the first error of a part is the
 * request's. Without room (parts, buffers) a request waits in `starved`, or its connection is
 * blocked, until server_room or server_own_room. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "engine/attach/bytes.h"
#include "engine/attach/nbd_private.h"
#include "engine/base/assert.h"
#include "engine/base/err.h"

#define ZERO_PART_MAX (1u << 30) /* the most that one zero or discard of the volume covers */

static void part_step(struct nbd_part *p);

void request_pools_init(struct nbd_server *s)
{
	for (uint32_t i = 0; i < NBD_PARTS_MAX; i++) {
		s->parts[i].free_next = s->free_parts;
		s->free_parts = &s->parts[i];
	}
}

/* -- room ---------------------------------------------------------------------------------- */

static void ask_for_room(struct nbd_server *s)
{
	s->found_none = true;
	if (s->room_asked)
		return;
	s->room_asked = true;
	volume_on_room(s->volume, &s->room);
}

static void wait_in_turn(struct nbd_request *r)
{
	struct nbd_server *s = r->conn->server;

	PRE(!r->starved);
	r->starved = true;
	r->next = NULL;
	if (s->starved == NULL)
		s->starved = r;
	else
		s->starved_last->next = r;
	s->starved_last = r;
}

static void starve(struct nbd_request *r)
{
	wait_in_turn(r);
	ask_for_room(r->conn->server);
}

/* The volume does not know of what came free: it may have been done with it for long. */
static void own_room_is_free(struct nbd_server *s)
{
	if (s->own_wanted)
		reactor_defer(s->config.reactor, &s->own_room);
	s->own_wanted = false;
}

/* Until one of them finds no room: what that one gave back again must not wake the others, nor it
 * them, for ever. Who was tried comes last the next time. */
static void try_waiting(struct nbd_server *s)
{
	const struct nbd_request *last = s->starved != NULL ? s->starved_last : NULL;
	const struct nbd_request *r = NULL;

	s->found_none = false;
	while (s->starved != NULL && r != last && !s->found_none) {
		struct nbd_request *first = s->starved;

		r = first;
		s->starved = first->next;
		first->starved = false;
		request_start(first);
	}
	for (uint32_t n = s->conn_count; n > 0 && s->conns != NULL && !s->found_none; n--) {
		struct nbd_conn *c = s->conns;

		DL_DELETE(s->conns, c);
		DL_APPEND(s->conns, c);
		conn_resume(c);
	}
	server_maybe_stopped(s);
}

void server_room(struct reactor_task *t)
{
	struct nbd_server *s = container_of(t, struct nbd_server, room);

	s->room_asked = false;
	try_waiting(s);
}

void server_own_room(struct reactor_task *t)
{
	try_waiting(container_of(t, struct nbd_server, own_room));
}

static uint64_t span_start(const struct nbd_part *p)
{
	return p->offset / BLOCK_SIZE * BLOCK_SIZE;
}

static uint64_t span_end(const struct nbd_part *p)
{
	return ROUND_UP(p->offset + p->size, BLOCK_SIZE);
}

static bool part_is_partial(const struct nbd_part *p)
{
	return p->kind == VOLUME_WRITE &&
	       (p->offset % BLOCK_SIZE != 0 || (p->offset + p->size) % BLOCK_SIZE != 0);
}

static void put_buffers(struct nbd_part *p)
{
	struct volume *v = p->request->conn->server->volume;

	if (p->buffer != NULL)
		volume_buffer_put(v, p->buffer);
	if (p->edge != NULL)
		volume_buffer_put(v, p->edge);
	p->buffer = p->edge = NULL;
}

/* All that the part will ever need, or NULL and nothing: a part that holds one buffer and waits for
 * another could wait for itself. */
static bool get_buffers(struct nbd_part *p)
{
	struct volume *v = p->request->conn->server->volume;

	p->buffer = volume_buffer_get(v, (uint32_t)(span_end(p) - span_start(p)));
	if (p->buffer != NULL && part_is_partial(p))
		p->edge = volume_buffer_get(v, BLOCK_SIZE);
	if (p->buffer != NULL && (p->edge != NULL || !part_is_partial(p)))
		return true;
	put_buffers(p);
	return false;
}

static void keep_part(struct nbd_request *r, struct nbd_part *p)
{
	if (r->last_part == NULL)
		r->parts = p;
	else
		r->last_part->next = p;
	r->last_part = p;
}

static struct nbd_part *part_get(struct nbd_request *r, enum volume_op_kind kind, uint64_t offset,
				 uint32_t size)
{
	struct nbd_server *s = r->conn->server;
	struct nbd_part *p = s->free_parts;

	if (p == NULL) {
		s->own_wanted = true;
		return NULL;
	}
	p->request = r;
	p->state = PART_START;
	p->kind = kind;
	p->offset = offset;
	p->size = size;
	p->buffer = p->edge = NULL;
	p->next = NULL;
	if ((kind == VOLUME_READ || kind == VOLUME_WRITE) && !get_buffers(p))
		return NULL;
	s->free_parts = p->free_next;
	if (kind == VOLUME_READ)
		keep_part(r, p);
	r->issued += size;
	r->pending++;
	return p;
}

static void part_put(struct nbd_part *p)
{
	struct nbd_server *s = p->request->conn->server;

	put_buffers(p);
	p->free_next = s->free_parts;
	s->free_parts = p;
	own_room_is_free(s);
}

/* -- the range lock ------------------------------------------------------------------------- */

static bool overlap(const struct nbd_part *a, const struct nbd_part *b)
{
	return span_start(a) < span_end(b) && span_start(b) < span_end(a);
}

static bool overlaps_any(const struct nbd_part *list, const struct nbd_part *p)
{
	const struct nbd_part *l;

	DL_FOREACH2(list, l, lock_next)
	if (overlap(l, p))
		return true;
	return false;
}

/* Behind those that wait already, too: they would never come to their turn otherwise. */
static bool must_wait(const struct nbd_server *s, const struct nbd_part *p)
{
	return overlaps_any(s->locked, p) || overlaps_any(s->waiting, p) ||
	       (part_is_partial(p) && overlaps_any(s->changing, p));
}

/* p changes its blocks no more: whoever waited for that may go on. */
static void unlock_range(struct nbd_server *s, struct nbd_part *p)
{
	struct nbd_part *w = s->waiting;

	if (part_is_partial(p))
		DL_DELETE2(s->locked, p, lock_prev, lock_next);
	else
		DL_DELETE2(s->changing, p, lock_prev, lock_next);
	s->waiting = NULL;
	while (w != NULL) {
		struct nbd_part *next = w->lock_next;

		if (overlap(w, p))
			part_step(w);
		else
			DL_APPEND2(s->waiting, w, lock_prev, lock_next);
		w = next;
	}
}

/* -- parts ---------------------------------------------------------------------------------- */

static void part_finish(struct nbd_part *p, int status)
{
	struct nbd_request *r = p->request;
	struct nbd_server *s = r->conn->server;

	if (status != 0)
		request_fail(r, nbd_error_from(status), err_text(status));
	/* A read's data must live until the answer has left. */
	if (p->kind != VOLUME_READ) {
		unlock_range(s, p);
		part_put(p);
	}
	r->pending--;
	request_finish_if_done(r);
}

/* Fills in from the block just read what the request leaves as it was. */
static void take_edge(struct nbd_part *p)
{
	uint32_t lead = (uint32_t)(p->offset % BLOCK_SIZE);
	uint32_t end = lead + p->size;
	uint32_t room = (uint32_t)ROUND_UP(end, BLOCK_SIZE);

	if (p->state == PART_HEAD)
		memcpy(p->buffer->data, p->edge->data, lead);
	/* When head and tail are one block it is read once. */
	if (p->state == PART_TAIL || room == BLOCK_SIZE)
		memcpy(p->buffer->data + end, p->edge->data + end % BLOCK_SIZE, room - end);
}

static void part_op_done(struct volume_op *op, int status)
{
	struct nbd_part *p = container_of(op, struct nbd_part, op);

	if (status != 0 || p->state == PART_SUBMITTED) {
		part_finish(p, status);
		return;
	}
	take_edge(p);
	part_step(p);
}

static void read_edge(struct nbd_part *p, uint64_t block_start)
{
	p->op = (struct volume_op){
	    .done = part_op_done,
	    .kind = VOLUME_READ,
	    .offset = block_start,
	    .size = BLOCK_SIZE,
	    .buffer = p->edge,
	};
	volume_submit(p->request->conn->server->volume, &p->op);
}

static void submit_whole(struct nbd_part *p)
{
	p->state = PART_SUBMITTED;
	p->op = (struct volume_op){
	    .done = part_op_done,
	    .kind = p->kind,
	    .offset = span_start(p),
	    .size = (uint32_t)(span_end(p) - span_start(p)),
	    .buffer = p->buffer,
	};
	volume_submit(p->request->conn->server->volume, &p->op);
}

/* The tick of a part: does what its state awaits next. */
static void part_step(struct nbd_part *p)
{
	struct nbd_server *s = p->request->conn->server;
	bool head = p->offset % BLOCK_SIZE != 0;
	bool tail = (p->offset + p->size) % BLOCK_SIZE != 0;
	bool one_block = span_end(p) - span_start(p) == BLOCK_SIZE;

	if (p->kind == VOLUME_READ) {
		submit_whole(p);
		return;
	}
	if (p->state == PART_START || p->state == PART_WAITING) {
		p->state = PART_WAITING;
		if (must_wait(s, p)) {
			DL_APPEND2(s->waiting, p, lock_prev, lock_next);
			return;
		}
		if (!part_is_partial(p)) {
			DL_APPEND2(s->changing, p, lock_prev, lock_next);
			submit_whole(p);
			return;
		}
		DL_APPEND2(s->locked, p, lock_prev, lock_next);
		s->stats.rmw++;
		p->state = head || one_block ? PART_HEAD : PART_TAIL;
		read_edge(p, head || one_block ? span_start(p) : span_end(p) - BLOCK_SIZE);
		return;
	}
	if (p->state == PART_HEAD && tail && !one_block) {
		p->state = PART_TAIL;
		read_edge(p, span_end(p) - BLOCK_SIZE);
		return;
	}
	submit_whole(p);
}

/* -- requests ------------------------------------------------------------------------------- */

_Static_assert(NBD_READ_BYTES_MAX >= NBD_DATA_MAX, "the largest read may begin");

static uint32_t read_bytes(const struct nbd_request_header *q)
{
	return q->command == NBD_CMD_READ ? MIN(q->length, NBD_DATA_MAX) : 0;
}

struct nbd_request *request_get(struct nbd_conn *c, const struct nbd_request_header *q)
{
	struct nbd_request *r = c->free_requests;

	if (r == NULL || c->read_bytes + read_bytes(q) > NBD_READ_BYTES_MAX)
		return NULL;
	c->free_requests = r->next;
	c->inflight++;
	c->read_bytes += read_bytes(q);
	c->server->stats.requests++;
	*r = (struct nbd_request){.conn = c, .q = *q};
	return r;
}

void request_put(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;

	for (struct nbd_part *p = r->parts, *next; p != NULL; p = next) {
		next = p->next;
		part_put(p);
	}
	if (r->extents_buffer != NULL)
		volume_buffer_put(c->server->volume, r->extents_buffer);
	r->next = c->free_requests;
	c->free_requests = r;
	c->inflight--;
	c->read_bytes -= read_bytes(&r->q);
}

void request_fail(struct nbd_request *r, uint32_t error, const char *text)
{
	if (r->error != 0)
		return;
	r->error = error;
	r->text = text;
}

static uint8_t *put_structured(uint8_t *p, const struct nbd_request *r, uint16_t type,
			       uint32_t size)
{
	p = put_be32(p, NBD_MAGIC_STRUCTURED);
	p = put_be16(p, NBD_REPLY_FLAG_DONE);
	p = put_be16(p, type);
	memcpy(p, &r->q.cookie, sizeof r->q.cookie);
	return put_be32(p + sizeof r->q.cookie, size);
}

/* The head of the answer; what follows it is added by request_reply_iov. */
static void compose_head(struct nbd_request *r)
{
	bool data = r->q.command == NBD_CMD_READ || r->q.command == NBD_CMD_BLOCK_STATUS;
	uint8_t *p = r->head;

	if (!r->conn->structured || (!data && r->error == 0)) {
		p = put_be32(p, NBD_MAGIC_SIMPLE);
		p = put_be32(p, r->error);
		memcpy(p, &r->q.cookie, sizeof r->q.cookie);
		p += sizeof r->q.cookie;
	} else if (r->error != 0) {
		uint32_t text_size = r->text != NULL ? (uint32_t)strlen(r->text) : 0;

		p = put_structured(p, r, NBD_REPLY_ERROR, 6 + text_size);
		p = put_be32(p, r->error);
		p = put_be16(p, (uint16_t)text_size);
	} else if (r->q.command == NBD_CMD_READ) {
		p = put_structured(p, r, NBD_REPLY_OFFSET_DATA, 8 + r->q.length);
		p = put_be64(p, r->q.offset);
	} else {
		p = put_structured(p, r, NBD_REPLY_BLOCK_STATUS, 4 + 8 * r->extents.count);
		p = put_be32(p, NBD_CONTEXT_ID);
	}
	r->head_size = (uint32_t)(p - r->head);
}

uint32_t request_reply_iov(struct nbd_request *r, struct iovec *iov, uint32_t max)
{
	uint32_t n = 0;

	if (max < REPLY_IOV_MAX)
		return 0;
	iov[n++] = (struct iovec){r->head, r->head_size};
	if (r->error != 0) {
		if (r->conn->structured && r->text != NULL)
			iov[n++] = (struct iovec){(void *)(uintptr_t)r->text, strlen(r->text)};
		return n;
	}
	if (r->q.command == NBD_CMD_READ)
		for (struct nbd_part *p = r->parts; p != NULL; p = p->next)
			iov[n++] = (struct iovec){part_payload(p), p->size};
	if (r->q.command == NBD_CMD_BLOCK_STATUS)
		iov[n++] = (struct iovec){r->extents_buffer->data, 8 * r->extents.count};
	return n;
}

void request_finish_if_done(struct nbd_request *r)
{
	struct nbd_conn *c = r->conn;

	if (!r->complete || r->pending > 0)
		return;
	compose_head(r);
	r->next = NULL;
	if (c->ready == NULL)
		c->ready = r;
	else
		c->ready_last->next = r;
	c->ready_last = r;
	conn_flush_later(c);
}

/* -- writes: one part for each IO_SIZE_MAX of the volume, as the payload comes in
 * -------------------- */

struct nbd_part *request_next_payload(struct nbd_request *r)
{
	uint64_t offset = r->q.offset + r->issued;
	uint64_t room = IO_SIZE_MAX - offset % IO_SIZE_MAX;
	struct nbd_part *p =
	    part_get(r, VOLUME_WRITE, offset, (uint32_t)MIN(room, r->q.length - r->issued));

	if (p == NULL)
		ask_for_room(r->conn->server);
	return p;
}

uint8_t *part_payload(const struct nbd_part *p)
{
	return p->buffer->data + p->offset % BLOCK_SIZE;
}

void request_payload_done(struct nbd_part *p)
{
	p->request->conn->server->stats.bytes_written += p->size;
	p->request->complete = p->request->issued == p->request->q.length;
	part_step(p);
}

void request_payload_lost(struct nbd_request *r, struct nbd_part *p)
{
	r->complete = true;
	if (r->conn->server->stopping)
		request_fail(r, NBD_ESHUTDOWN, "the server stops");
	else
		request_fail(r, NBD_EIO, "the connection was lost");
	if (p != NULL) {
		part_put(p);
		r->pending--;
	}
	request_finish_if_done(r);
}

/* -- everything else ------------------------------------------------------------------------ */

/* Having begun it must go on to its last part: then it needs nothing more. Others that need several
 * do not begin meanwhile, and no room is what they lack. */
static void start_read(struct nbd_request *r)
{
	struct nbd_server *s = r->conn->server;

	if (s->large != NULL && s->large != r &&
	    r->q.offset % BLOCK_SIZE + r->q.length > IO_SIZE_MAX) {
		s->own_wanted = true;
		wait_in_turn(r);
		return;
	}
	while (r->issued < r->q.length) {
		uint64_t offset = r->q.offset + r->issued;
		uint64_t room = IO_SIZE_MAX - offset % BLOCK_SIZE;
		struct nbd_part *p =
		    part_get(r, VOLUME_READ, offset, (uint32_t)MIN(room, r->q.length - r->issued));

		if (p == NULL) {
			if (r->issued > 0)
				s->large = r;
			starve(r);
			return;
		}
		r->complete = r->issued == r->q.length;
		part_step(p);
	}
	if (s->large == r) {
		s->large = NULL;
		own_room_is_free(s);
	}
	s->stats.bytes_read += r->q.length;
}

/* Parts of blocks at the edges are written as zeroes; trim leaves them alone, as it may. */
static void start_zero(struct nbd_request *r)
{
	bool trim = r->q.command == NBD_CMD_TRIM;
	bool hole = trim || (r->q.flags & NBD_CMD_FLAG_NO_HOLE) == 0;

	while (r->issued < r->q.length) {
		uint64_t offset = r->q.offset + r->issued;
		uint64_t left = r->q.length - r->issued;
		uint64_t lead = offset % BLOCK_SIZE;
		uint64_t size = MIN(left / BLOCK_SIZE * BLOCK_SIZE, ZERO_PART_MAX);
		bool edge = lead != 0 || left < BLOCK_SIZE;
		struct nbd_part *p;

		if (edge)
			size = MIN(BLOCK_SIZE - lead, left);
		if (edge && trim) {
			r->issued += size;
			continue;
		}
		p = part_get(r,
			     edge   ? VOLUME_WRITE
			     : hole ? VOLUME_DISCARD
				    : VOLUME_ZERO,
			     offset, (uint32_t)size);
		if (p == NULL) {
			starve(r);
			return;
		}
		if (edge)
			memset(part_payload(p), 0, size);
		r->complete = r->issued == r->q.length;
		part_step(p);
	}
	if (!r->complete) {
		r->complete = true;
		request_finish_if_done(r);
	}
}

/* Turns the volume's extents, in place, into the descriptors of the protocol. */
static void extents_done(struct volume_extents_op *op, int status)
{
	struct nbd_request *r = container_of(op, struct nbd_request, extents);
	uint64_t skip = r->q.offset % BLOCK_SIZE;
	uint64_t left = r->q.length;
	uint8_t *p = r->extents_buffer->data;
	uint32_t n = 0;

	if (status != 0 || op->count == 0)
		request_fail(r, nbd_error_from(status != 0 ? status : -EIO),
			     "the block status cannot be told");
	for (uint32_t i = 0; i < op->count && left > 0; i++) {
		struct volume_extent e = op->extents[i];
		uint64_t whole = MIN(e.size - skip, left);
		uint32_t size = (uint32_t)MIN(whole, 0xfffff000u);

		skip = 0;
		if (size == 0)
			continue;
		p = put_be32(p, size);
		p = put_be32(p, e.allocated ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO);
		left -= size;
		n++;
		/* What follows one that was cut short would seem to begin where it was cut. */
		if (size < whole || (r->q.flags & NBD_CMD_FLAG_REQ_ONE) != 0)
			break;
	}
	op->count = n;
	r->pending--;
	request_finish_if_done(r);
}

static void start_block_status(struct nbd_request *r)
{
	struct volume *v = r->conn->server->volume;
	uint64_t start = r->q.offset / BLOCK_SIZE * BLOCK_SIZE;

	r->extents_buffer = volume_buffer_get(v, NBD_EXTENTS_MAX * sizeof(struct volume_extent));
	if (r->extents_buffer == NULL) {
		starve(r);
		return;
	}
	r->complete = true;
	r->pending++;
	r->extents = (struct volume_extents_op){
	    .done = extents_done,
	    .offset = start,
	    .size = ROUND_UP(r->q.offset + r->q.length, BLOCK_SIZE) - start,
	    .extents = (struct volume_extent *)(void *)r->extents_buffer->data,
	    .max = NBD_EXTENTS_MAX,
	};
	volume_extents(v, &r->extents);
}

void request_start(struct nbd_request *r)
{
	switch (r->q.command) {
	case NBD_CMD_READ:
		start_read(r);
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		start_zero(r);
		break;
	case NBD_CMD_BLOCK_STATUS:
		start_block_status(r);
		break;
	default: /* FLUSH: what was answered is durable already */
		r->complete = true;
		request_finish_if_done(r);
		break;
	}
}
