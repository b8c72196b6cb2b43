/* ops: the guest's operations: checked, cut at chunk boundaries, held while they cannot go on,
 * ended when they have waited too long.
 *
 * INVARIANTS
 *  1. done is called from the done task only, once.
 *  2. An operation ends only when none of its pieces is known to a chunk any more.
 *
 * Failure modes: a write that began and could not be decided in time is settled as failed: see
 * vwrite_fail. */
#include <errno.h>
#include <utlist.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/volume/core.h"

#define PIECES_MAX     4u
#define ZERO_SIZE_MAX  (1u << 30)
#define FIRST_OVERFLOW (8u << 20) /* a backlog worth giving up when the pools run out */

struct op_state {
	struct volume *volume;
	struct volume_op *next, *prev;
	uint64_t submitted_ns;
	uint64_t waits_ns; /* since then: submitted, or gone on, for a long one */
	uint64_t at, end;  /* bytes: cut so far */
	int status;
	uint32_t active;
	struct vpiece pieces[PIECES_MAX];
};
_Static_assert(sizeof(struct op_state) <= sizeof(((struct volume_op *)0)->impl), "impl is room");

static struct op_state *state_of(struct volume_op *op)
{
	return (struct op_state *)(void *)op->impl;
}

/* -- ends -------------------------------------------------------------------------------------- */

static void run_done(struct reactor_task *task)
{
	struct volume *v = container_of(task, struct volume, done_task);
	struct volume_op *op = v->done_head;

	v->done_head = v->done_tail = NULL;
	while (op != NULL) {
		struct volume_op *next = state_of(op)->next;

		op->done(op, state_of(op)->status);
		op = next;
	}
}

static void complete(struct volume_op *op, int status)
{
	struct op_state *s = state_of(op);
	struct volume *v = s->volume;

	s->status = status;
	s->next = NULL;
	if (v->done_tail != NULL)
		state_of(v->done_tail)->next = op;
	else
		v->done_head = op;
	v->done_tail = op;
	reactor_defer(v->reactor, &v->done_task);
}

static void list_add(struct volume *v, struct volume_op *op)
{
	struct op_state *s = state_of(op);

	s->next = NULL;
	s->prev = v->ops_tail;
	if (v->ops_tail != NULL)
		state_of(v->ops_tail)->next = op;
	else
		v->ops = op;
	v->ops_tail = op;
	v->op_count++;
}

static void list_remove(struct volume *v, struct volume_op *op)
{
	struct op_state *s = state_of(op);

	if (s->prev != NULL)
		state_of(s->prev)->next = s->next;
	else
		v->ops = s->next;
	if (s->next != NULL)
		state_of(s->next)->prev = s->prev;
	else
		v->ops_tail = s->prev;
	v->op_count--;
}

static void finish(struct volume_op *op)
{
	struct volume *v = state_of(op)->volume;

	PROBE(op_done, op->offset, op->size, state_of(op)->status);
	if (v->trace != NULL)
		vtrace_done(v, op, state_of(op)->submitted_ns, state_of(op)->status);
	list_remove(v, op);
	complete(op, state_of(op)->status);
	volume_room(v);
	if (v->state >= VOLUME_CLOSING)
		volume_event(v);
}

/* -- pieces ------------------------------------------------------------------------------------ */

static void advance(struct volume_op *op);

/* A long one that goes on does not wait: it comes last again among those whose time will be up. */
static void gone_on(struct volume_op *op)
{
	struct volume *v = state_of(op)->volume;

	list_remove(v, op);
	list_add(v, op);
	state_of(op)->waits_ns = volume_now(v);
}

void volume_piece_done(struct vpiece *p, int status)
{
	struct volume_op *op = p->op;
	struct op_state *s = state_of(op);
	struct volume_stats *stats = &s->volume->stats;

	if (status == 0 && op->kind == VOLUME_READ)
		stats->blocks_read += p->block_count;
	else if (status == 0)
		stats->blocks_written += p->block_count;
	p->state = VPIECE_FREE;
	s->active--;
	if (s->status == 0)
		s->status = status;
	if (s->status != 0)
		s->at = s->end;
	if (s->at < s->end) {
		gone_on(op);
		advance(op);
	} else if (s->active == 0) {
		finish(op);
	}
}

static void piece_read(struct vread *rd, int status)
{
	struct volume *v = rd->chunk->volume;

	if (v->trace != NULL)
		v->trace->answer = rd->answer;
	volume_piece_done(rd->owner, status);
}

static void piece_written(struct vwrite *w, int status)
{
	struct vpiece *p = w->what.owner;
	struct volume *v = p->chunk->volume;

	if (status == -E_STALE_REPLICA) {
		/* It is settled, and may or may not be there: it goes again, as a newer write. */
		p->seq = w->entry.seq;
		p->chunk = vchunk_top(p->chunk);
		vchunk_queue_write(p->chunk, p);
		return;
	}
	if (status == 0 && v->frozen) {
		v->frozen = false;
		log_info("volume", "%s: writes go on", v->config.name);
	}
	volume_piece_done(p, status);
}

bool volume_piece_start(struct vpiece *p)
{
	struct vchunk *c = p->chunk;
	struct volume *v = c->volume;
	struct vwrite_what what = {
	    .block = p->block,
	    .block_count = p->block_count,
	    .zero = p->op->kind != VOLUME_WRITE,
	    .discard = p->op->kind == VOLUME_DISCARD,
	    .buffer = p->op->buffer,
	    .buffer_block = p->buffer_block,
	    .need = v->need,
	    .decided = piece_written,
	    .owner = p,
	};

	if (c->locks != NULL && vchunk_locked(c, p->block, p->block_count))
		return false;
	what.targets = vchunk_targets(c);
	if (c->reset_wanted || !vchunk_enough(c, what.targets, what.need))
		return false;
	if (!vwrite_start(c, &what, false, &p->write)) {
		volume_relieve(v); /* and volume_room sets it going again, nothing sooner */
		return false;
	}
	vchunk_unqueue_write(p);
	p->state = VPIECE_ACTIVE;
	return true;
}

static void start_read(struct volume_op *op, struct vpiece *p)
{
	p->read = vread_start(p->chunk, p->block, p->block_count, op->buffer, p->buffer_block,
			      false, piece_read, p);
	INVARIANT(p->read !=
		  NULL); /* check() saw two places, and a read touches two chunks at most */
}

static void advance(struct volume_op *op)
{
	struct op_state *s = state_of(op);
	struct volume *v = s->volume;

	for (uint32_t i = 0; i < PIECES_MAX && s->at < s->end; i++) {
		struct vpiece *p = &s->pieces[i];
		const uint64_t in_chunk = s->at % v->chunk_size;
		const uint64_t size =
		    MIN(MIN(s->end - s->at, v->chunk_size - in_chunk), (uint64_t)IO_SIZE_MAX);

		if (p->state != VPIECE_FREE)
			continue;
		*p = (struct vpiece){
		    .op = op,
		    .chunk = &v->chunks[s->at / v->chunk_size],
		    .block = (block_no_t)(in_chunk >> BLOCK_SHIFT),
		    .block_count = (uint32_t)(size >> BLOCK_SHIFT),
		    .buffer_block = (uint32_t)((s->at - op->offset) >> BLOCK_SHIFT),
		    .state = VPIECE_ACTIVE,
		};
		s->at += size;
		s->active++;
		if (op->kind != VOLUME_READ)
			vchunk_queue_write(p->chunk, p);
		else
			start_read(op, p);
	}
}

/* -- submitting -------------------------------------------------------------------------------- */

static int check(const struct volume *v, const struct volume_op *op)
{
	const bool data = op->kind == VOLUME_READ || op->kind == VOLUME_WRITE;

	if (v->ended != 0)
		return v->ended;
	if (v->state != VOLUME_OPEN)
		return -ECANCELED;
	if (op->kind == VOLUME_FLUSH)
		return 0;
	if (v->config.read_only && op->kind != VOLUME_READ)
		return -EROFS;
	if (op->size == 0 || op->size % BLOCK_SIZE != 0 || op->offset % BLOCK_SIZE != 0 ||
	    op->size > (data ? IO_SIZE_MAX : ZERO_SIZE_MAX) || op->offset > v->size ||
	    op->size > v->size - op->offset)
		return -EINVAL;
	if (data && (op->buffer == NULL || op->buffer->size < op->size))
		return -EINVAL;
	/* Reads that were given up may still be lent to their connections. */
	if (op->kind == VOLUME_READ && v->reads.free_count < VREAD_POOL_RESERVE + 2)
		return -E_LIMIT;
	return v->op_count < VOLUME_OPS_MAX ? 0 : -E_LIMIT;
}

static void count(struct volume *v, const struct volume_op *op)
{
	switch (op->kind) {
	case VOLUME_READ:
		v->stats.reads++;
		break;
	case VOLUME_WRITE:
		v->stats.writes++;
		break;
	case VOLUME_ZERO:
	case VOLUME_DISCARD:
		v->stats.zeroes++;
		break;
	case VOLUME_FLUSH:
		break;
	}
}

void volume_submit(struct volume *v, struct volume_op *op)
{
	struct op_state *s = state_of(op);
	const int rc = check(v, op);

	*s = (struct op_state){.volume = v};
	if (rc != 0 || op->kind == VOLUME_FLUSH) {
		complete(op, rc);
		return;
	}
	s->submitted_ns = s->waits_ns = volume_now(v);
	s->at = op->offset;
	s->end = op->offset + op->size;
	if (op->kind == VOLUME_READ) {
		op->buffer->crcs_known = false;
	} else if (op->kind == VOLUME_WRITE && !op->buffer->crcs_known) {
		crc32c_blocks(op->buffer->data, op->size >> BLOCK_SHIFT, op->buffer->crcs);
		op->buffer->crcs_known = true;
	}
	PROBE(op_submit, op->offset, op->size, op->kind);
	count(v, op);
	list_add(v, op);
	advance(op);
}

/* -- waiting too long -------------------------------------------------------------------------- */

static void piece_end(struct vpiece *p, int status)
{
	struct vwrite *w = p->write;

	if (p->state == VPIECE_FREE)
		return;
	if (p->state == VPIECE_WAITING) {
		vchunk_unqueue_write(p);
	} else if (p->op->kind == VOLUME_READ) {
		vread_cancel(p->read);
	} else {
		if (w->error == -ENOSPC && status == -EIO)
			status = -ENOSPC;
		vwrite_fail(w);
	}
	volume_piece_done(p, status);
}

static void end_op(struct volume_op *op, int status)
{
	struct op_state *s = state_of(op);

	s->at = s->end;
	/* One more that is active, so that it does not end under our hands. */
	s->active++;
	for (uint32_t i = 0; i < PIECES_MAX; i++)
		piece_end(&s->pieces[i], status);
	s->active--;
	if (s->status == 0)
		s->status = status;
	finish(op);
}

void volume_ops_tick(struct volume *v, uint64_t now_ns)
{
	while (v->ops != NULL && now_ns >= state_of(v->ops)->waits_ns + v->freeze_ns) {
		struct volume_op *op = v->ops;

		log_warn("volume", "%s: an operation at %llu has waited for %llu ms: refused",
			 v->config.name, (unsigned long long)op->offset,
			 (unsigned long long)(v->freeze_ns / NS_PER_MS));
		end_op(op, -EIO);
	}
}

void volume_ops_end(struct volume *v, int status)
{
	while (v->ops != NULL)
		end_op(v->ops, status);
}

void volume_frozen(struct volume *v)
{
	if (v->frozen)
		return;
	v->frozen = true;
	v->stats.freezes++;
	log_warn("volume", "%s: too few eligible replicas can be reached: writes are held",
		 v->config.name);
}

void volume_ops_init(struct volume *v)
{
	v->done_task.run = run_done;
}

/* -- room -------------------------------------------------------------------------------------- */

void volume_room(struct volume *v)
{
	for (uint32_t i = 0; i < v->waiter_count; i++)
		reactor_defer(v->reactor, v->waiters[i]);
	v->waiter_count = 0;
	if (v->writes_starved) {
		struct vchunk *c;

		v->writes_starved = false;
		DL_FOREACH2(v->troubled, c, troubled_next)
		vchunk_kick(c);
	}
}

void volume_on_room(struct volume *v, struct reactor_task *task)
{
	for (uint32_t i = 0; i < v->waiter_count; i++)
		if (v->waiters[i] == task)
			return;
	if (v->waiter_count == VOLUME_WAITERS_MAX)
		reactor_defer(v->reactor, task);
	else
		v->waiters[v->waiter_count++] = task;
}

/* A pool has run out: the replica with the largest backlog is given up, if that helps. */
void volume_relieve(struct volume *v)
{
	struct vreplica *worst = NULL;

	v->writes_starved = true;
	for (uint32_t n = 0; n < v->node_count; n++) {
		for (uint32_t i = 0; i < VREPLICA_SHARDS_MAX; i++) {
			struct vreplica *r = v->nodes[n].replicas[i];

			if (r == NULL || r->overflow_wanted ||
			    (r->backlog_bytes < FIRST_OVERFLOW &&
			     r->backlog_ops < VOLUME_BACKLOG_OPS_MAX / 8))
				continue;
			if (worst == NULL || r->backlog_bytes > worst->backlog_bytes)
				worst = r;
		}
	}
	if (worst == NULL)
		return;
	worst->overflow_wanted = true;
	reactor_defer(v->reactor, &v->kick_task);
}

struct volume_buffer *volume_buffer_get(struct volume *v, uint32_t size)
{
	struct volume_buffer *b = vbuffers_get(&v->buffers, size, false);

	if (b == NULL)
		volume_relieve(v);
	return b;
}

void volume_buffer_put(struct volume *v, struct volume_buffer *b)
{
	if (vbuffers_put(&v->buffers, b))
		volume_room(v);
}
