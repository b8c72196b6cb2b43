/* read: see read.h.
 *
 * Failure modes: -E_BAD_CRC or another error from a slot sends the read to another one, and what
 * was bad is written again (rewrite.h); a slot that is away is waited for as long as the operation
 * may wait; when every current slot has answered wrongly the read fails with -EIO. */
#include "engine/volume/read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/crc32c.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"
#include "engine/volume/rewrite.h"

int vread_pool_init(struct vread_pool *p)
{
	p->memory = calloc(VREAD_POOL_MAX, sizeof(*p->memory));
	p->free_count = VREAD_POOL_MAX;
	return p->memory != NULL ? 0 : -ENOMEM;
}

void vread_pool_deinit(struct vread_pool *p)
{
	free(p->memory);
	*p = (struct vread_pool){0};
}

static struct vread *pool_get(struct vread_pool *p, bool own)
{
	struct vread *rd = p->free;

	if (p->free_count <= (own ? 0 : VREAD_POOL_RESERVE))
		return NULL;
	p->free_count--;
	if (rd != NULL)
		p->free = rd->next;
	else
		rd = &p->memory[p->touched++];
	return rd;
}

static void give_back(struct vread *rd)
{
	struct volume *v = rd->chunk->volume;

	PRE(rd->request.state == VREQUEST_IDLE);
	vbuffers_put(&v->buffers, rd->buffer);
	rd->next = v->reads.free;
	v->reads.free = rd;
	v->reads.free_count++;
	volume_room(v);
}

static void list_append(struct vread *rd)
{
	struct vchunk *c = rd->chunk;

	rd->next = NULL;
	rd->prev = c->reads_tail;
	if (c->reads_tail != NULL)
		c->reads_tail->next = rd;
	else
		c->reads = rd;
	c->reads_tail = rd;
}

static void list_remove(struct vread *rd)
{
	struct vchunk *c = rd->chunk;

	if (rd->prev != NULL)
		rd->prev->next = rd->next;
	else
		c->reads = rd->next;
	if (rd->next != NULL)
		rd->next->prev = rd->prev;
	else
		c->reads_tail = rd->prev;
	rd->next = rd->prev = NULL;
}

/* -- ending ------------------------------------------------------------------------------------ */

/* The request is idle and the read in no list. */
static void finish(struct vread *rd, int status)
{
	void (*done)(struct vread *, int) = rd->done;
	const vmask_t bad = rd->bad;

	if (status == 0 && bad != 0 && !rd->fixed)
		vrewrite_repair(rd->chunk, rd->block, rd->block_count);
	done(rd, status);
	give_back(rd);
}

static void wait_again(struct vread *rd)
{
	rd->state = VREAD_WAITING;
	list_append(rd);
	vchunk_kick(rd->chunk);
}

/* What came is good as far as the checksums go. May it be shown? */
static void judge(struct vread *rd)
{
	struct vchunk *c = rd->chunk;

	if (rd->fixed) {
		rd->state = VREAD_HELD;
		return;
	}
	/* In the list, whatever follows: done is called from vchunk_run only. */
	rd->state = VREAD_HELD;
	rd->held_seq = c->window.last_seq;
	list_append(rd);
	vchunk_kick(c);
}

static void try_held(struct vread *rd)
{
	struct vchunk *c = rd->chunk;

	/* The pause: the clock is read again before anything is shown. */
	reactor_refresh(c->volume->reactor);
	if (!volume_gate_open(c->volume) || rd->epoch != c->epoch || c->state != VCHUNK_SERVING) {
		/* Somebody else may have written since, or a write that it shows has failed. */
		rd->state = VREAD_WAITING;
		c->volume->stats.read_retries++;
		return;
	}
	if (rd->request.state != VREQUEST_IDLE ||
	    vwrite_overlaps(c, rd->block, rd->block_count, rd->held_seq).undecided)
		return;
	list_remove(rd);
	finish(rd, 0);
}

/* -- choosing a slot --------------------------------------------------------------------------- */

/* The nearest, then the least loaded: the time that the answer may be expected in. */
static uint32_t choose_slot(const struct vchunk *c, vmask_t candidates)
{
	uint64_t best_cost = UINT64_MAX;
	uint32_t best = UINT32_MAX;

	for (uint32_t i = 0; i < c->volume->replicas; i++) {
		const struct vreplica *r = c->slots[i].replica;
		const uint64_t cost = (r->latency_ns + 20000) * (r->inflight + 4);

		if ((candidates & vmask_bit(i)) != 0 && cost < best_cost) {
			best_cost = cost;
			best = i;
		}
	}
	return best;
}

static vmask_t current_slots(const struct vchunk *c)
{
	vmask_t m = 0;

	for (uint32_t i = 0; i < c->volume->replicas; i++)
		if (c->slots[i].current)
			m |= vmask_bit(i);
	return m;
}

static void send(struct vread *rd, uint32_t slot)
{
	rd->slot = slot;
	rd->state = VREAD_SENT;
	rd->epoch = rd->chunk->epoch;
	vreplica_submit(rd->chunk->slots[slot].replica, &rd->request);
}

static void try_waiting(struct vread *rd)
{
	struct vchunk *c = rd->chunk;
	const vmask_t current = current_slots(c);
	vmask_t candidates;

	if (c->state != VCHUNK_SERVING || !volume_gate_open(c->volume) ||
	    rd->request.state != VREQUEST_IDLE)
		return;
	if (current != 0 && (current & ~rd->bad) == 0) {
		log_error("volume", "%s: chunk %u blocks %u+%u: no current replica can read them",
			  c->volume->config.name, c->no, rd->block, rd->block_count);
		list_remove(rd);
		finish(rd, -EIO);
		return;
	}
	candidates = current & ~rd->bad & vchunk_ready_slots(c);
	if (candidates == 0)
		return;
	candidates &= ~vwrite_overlaps(c, rd->block, rd->block_count, 0).missing;
	if (candidates == 0)
		return;
	list_remove(rd);
	send(rd, choose_slot(c, candidates));
}

void vread_try(struct vread *rd)
{
	if (rd->state == VREAD_HELD)
		try_held(rd);
	if (rd->state == VREAD_WAITING)
		try_waiting(rd);
}

/* -- the request ------------------------------------------------------------------------------- */

static void read_fill(struct vrequest *q)
{
	const struct vread *rd = q->owner;

	q->send.frame = (struct frame){
	    .op = FRAME_READ,
	    .chunk = rd->chunk->no,
	    .block = rd->block,
	    .block_count = rd->block_count,
	};
}

static void *read_rx_buffer(struct vrequest *q, const struct frame *f)
{
	const struct vread *rd = q->owner;

	return f->payload_size == rd->block_count * BLOCK_SIZE ? rd->data : NULL;
}

static int check_answer(struct vread *rd, int status, const struct frame *f)
{
	if (status != 0)
		return status;
	if (f->payload_size != rd->block_count * BLOCK_SIZE)
		return -E_BAD_FRAME;
	if (f->payload != rd->data)
		memcpy(rd->data, f->payload, f->payload_size);
	return crc32c_blocks_match(rd->data, rd->block_count, f->crcs) ? 0 : -E_BAD_CRC;
}

static bool is_bad_data(int status)
{
	return status == -EIO || status == -E_BAD_CRC || status == -ENOMEM || status == -E_CORRUPT;
}

static void read_answered(struct vrequest *q, int status, const struct frame *f)
{
	struct vread *rd = q->owner;
	struct vreplica *r = q->replica;
	struct volume *v = rd->chunk->volume;
	const uint64_t took_ns = volume_now(v) - q->sent_ns;

	r->latency_ns = r->latency_ns == 0 ? took_ns : (r->latency_ns * 7 + took_ns) / 8;
	if (rd->state == VREAD_ORPHAN)
		return;
	status = check_answer(rd, status, f);
	if (status == 0) {
		judge(rd);
		return;
	}
	v->stats.read_retries++;
	if (status == -E_FENCED) {
		volume_end(v, status, err_text(status));
	} else if (is_bad_data(status)) {
		log_warn("volume", "%s: node %s, chunk %u blocks %u+%u: %s", v->config.name,
			 v->nodes[r->node].name, rd->chunk->no, rd->block, rd->block_count,
			 err_text(status));
		rd->bad |= vmask_bit(rd->slot);
	} else {
		vreplica_disconnect(r, status);
	}
	if (rd->fixed)
		rd->bad |= vmask_bit(rd->slot);
	else
		wait_again(rd);
}

static void read_released(struct vrequest *q)
{
	struct vread *rd = q->owner;

	if (rd->state == VREAD_ORPHAN)
		give_back(rd);
	else if (rd->fixed)
		finish(rd, rd->bad == 0 ? 0 : -EIO);
	else
		vchunk_kick(rd->chunk); /* it may have been held back for this */
}

static void read_lost(struct vrequest *q)
{
	struct vread *rd = q->owner;

	if (rd->state == VREAD_ORPHAN) {
		give_back(rd);
		return;
	}
	if (rd->fixed) {
		finish(rd, -E_DISCONNECTED);
		return;
	}
	rd->chunk->volume->stats.read_retries++;
	wait_again(rd);
}

static const struct vrequest_ops read_ops = {
    .fill = read_fill,
    .rx_buffer = read_rx_buffer,
    .answered = read_answered,
    .lost = read_lost,
    .released = read_released,
};

/* -- starting ---------------------------------------------------------------------------------- */

static struct vread *start(struct vchunk *c, block_no_t block, uint32_t block_count,
			   struct volume_buffer *buffer, bool own,
			   void (*done)(struct vread *rd, int status), void *owner)
{
	struct vread *rd = pool_get(&c->volume->reads, own);

	if (rd == NULL)
		return NULL;
	*rd = (struct vread){
	    .request = {.ops = &read_ops, .owner = rd},
	    .chunk = c,
	    .block = block,
	    .block_count = block_count,
	    .buffer = buffer,
	    .data = buffer->data,
	    .done = done,
	    .owner = owner,
	};
	vbuffers_ref(buffer);
	return rd;
}

struct vread *vread_start(struct vchunk *c, block_no_t block, uint32_t block_count,
			  struct volume_buffer *buffer, uint32_t buffer_block, bool own,
			  void (*done)(struct vread *rd, int status), void *owner)
{
	struct vread *rd = start(c, block, block_count, buffer, own, done, owner);

	if (rd == NULL)
		return NULL;
	rd->data += (size_t)buffer_block * BLOCK_SIZE;
	rd->state = VREAD_WAITING;
	list_append(rd);
	vchunk_kick(c);
	return rd;
}

struct vread *vread_start_fixed(struct vchunk *c, uint32_t slot, block_no_t block,
				uint32_t block_count, struct volume_buffer *buffer,
				void (*done)(struct vread *rd, int status), void *owner)
{
	struct vread *rd;

	if (!vreplica_ready(c->slots[slot].replica))
		return NULL;
	rd = start(c, block, block_count, buffer, true, done, owner);
	if (rd == NULL)
		return NULL;
	rd->fixed = true;
	send(rd, slot);
	return rd;
}

void vread_cancel(struct vread *rd)
{
	if (!rd->fixed && (rd->state == VREAD_WAITING || rd->state == VREAD_HELD))
		list_remove(rd);
	if (rd->request.state == VREQUEST_QUEUED)
		vreplica_cancel(&rd->request);
	if (rd->request.state == VREQUEST_IDLE)
		give_back(rd);
	else
		rd->state = VREAD_ORPHAN;
}
